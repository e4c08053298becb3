//! The databases: SQLite, compiled in, and PostgreSQL. One set of statements for both.
//!
//! Not sqlx: its SQLite driver turns on features of `futures-executor` and `spin` that the chain's SDK is built on, which then
//! compiles anew.

pub mod schema;
mod target;
mod workers;

pub use target::Target;
pub use workers::{Pool, Workers};

use crate::error::{Error, Result};
use postgres::types::{ToSql, Type};
use rusqlite::types::{ToSqlOutput, ValueRef};
use schema::{Column, Kind, Table};

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A number; also true (1) and false (0).
    Int(i64),
    /// Text: names, addresses, hashes in hexadecimal, amounts in decimal.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Numbers beyond what a database holds become the largest that it does: no such time or number is real.
macro_rules! ints {
    ($($type:ty),*) => {$(
        impl From<$type> for Cell {
            fn from(value: $type) -> Cell {
                Cell::Int(i64::try_from(value).unwrap_or(i64::MAX))
            }
        }
    )*};
}
ints!(u8, u16, u32, u64, usize, i64);

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Int(i64::from(value))
    }
}

/// An amount.
impl From<u128> for Cell {
    fn from(value: u128) -> Cell {
        Cell::Text(value.to_string())
    }
}

/// An amount that can be below zero.
impl From<i128> for Cell {
    fn from(value: i128) -> Cell {
        Cell::Text(value.to_string())
    }
}

/// PostgreSQL's text holds no NUL; whoever puts one into a name sees the replacement character.
impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(if value.contains('\0') { value.replace('\0', "\u{fffd}") } else { value.to_owned() })
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        if value.contains('\0') {
            Cell::from(value.as_str())
        } else {
            Cell::Text(value)
        }
    }
}

impl From<Vec<u8>> for Cell {
    fn from(value: Vec<u8>) -> Cell {
        Cell::Blob(value)
    }
}

impl<T> From<Option<T>> for Cell
where
    Cell: From<T>,
{
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Cell::from)
    }
}

/// A row of cells from anything that becomes one.
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Cell::from($value)),*] };
}

/// A row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub Vec<Cell>);

impl Row {
    /// A number; 0 where there is none.
    pub fn int(&self, at: usize) -> i64 {
        self.opt_int(at).unwrap_or(0)
    }

    /// A number that counts or names something.
    pub fn uint(&self, at: usize) -> u64 {
        u64::try_from(self.int(at)).unwrap_or(0)
    }

    /// The same in 32 bits.
    pub fn u32(&self, at: usize) -> u32 {
        u32::try_from(self.int(at)).unwrap_or(0)
    }

    /// A number that may not be there.
    pub fn opt_int(&self, at: usize) -> Option<i64> {
        match self.0.get(at) {
            Some(Cell::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// Whether something is so.
    pub fn flag(&self, at: usize) -> bool {
        self.int(at) != 0
    }

    /// Text; empty where there is none.
    pub fn text(&self, at: usize) -> String {
        self.opt_text(at).unwrap_or_default()
    }

    /// Text that may not be there.
    pub fn opt_text(&self, at: usize) -> Option<String> {
        match self.0.get(at) {
            Some(Cell::Text(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// An amount; 0 where there is none.
    pub fn amount(&self, at: usize) -> u128 {
        match self.0.get(at) {
            Some(Cell::Text(value)) => value.parse().unwrap_or(0),
            _ => 0,
        }
    }

    /// Bytes.
    pub fn bytes(&self, at: usize) -> &[u8] {
        match self.0.get(at) {
            Some(Cell::Blob(value)) => value,
            _ => &[],
        }
    }
}

/// Whether a connection may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It makes the database where there is none, and writes.
    Write,
    /// The database itself refuses every change.
    Read,
}

/// A connection.
pub enum Conn {
    /// To a file.
    Sqlite(rusqlite::Connection),
    /// To a server.
    Postgres(Box<postgres::Client>),
}

fn failed(what: &str) -> impl Fn(rusqlite::Error) -> Error + '_ {
    move |error| Error::Database { what: what.to_owned(), reason: error.to_string() }
}

fn refused(what: &str) -> impl Fn(postgres::Error) -> Error + '_ {
    move |error| Error::Database { what: what.to_owned(), reason: told(&error) }
}

/// What the server said; the driver's own text is only that there was an error.
pub(crate) fn told(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

impl rusqlite::ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(value) => ValueRef::Integer(*value),
            Cell::Text(value) => ValueRef::Text(value.as_bytes()),
            Cell::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl ToSql for Cell {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut postgres::types::private::BytesMut,
    ) -> Result<postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Cell::Null => Ok(postgres::types::IsNull::Yes),
            Cell::Int(value) => match *kind {
                Type::INT4 => i32::try_from(*value)?.to_sql(kind, out),
                _ => value.to_sql(kind, out),
            },
            Cell::Text(value) => value.to_sql(kind, out),
            Cell::Blob(value) => value.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

/// Placeholders are `?1`, `?2`, … as SQLite has them; PostgreSQL writes them with a dollar sign.
fn dollars(sql: &str) -> String {
    sql.replace('?', "$")
}

impl Conn {
    /// Opens a connection.
    ///
    /// # Errors
    /// `Open`.
    pub fn open(target: &Target, access: Access) -> Result<Conn> {
        target.connect(access)
    }

    /// Runs statements that return nothing, without parameters.
    ///
    /// # Errors
    /// `Database`.
    pub fn batch(&mut self, sql: &str) -> Result<()> {
        match self {
            Conn::Sqlite(conn) => conn.execute_batch(sql).map_err(failed("running a script")),
            Conn::Postgres(client) => client.batch_execute(sql).map_err(refused("running a script")),
        }
    }

    /// Runs one statement; how many rows it changed.
    ///
    /// # Errors
    /// `Database`.
    pub fn execute(&mut self, sql: &str, values: &[Cell]) -> Result<u64> {
        match self {
            Conn::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql).map_err(failed(sql))?;
                let changed = statement.execute(rusqlite::params_from_iter(values)).map_err(failed(sql))?;
                Ok(changed as u64)
            }
            Conn::Postgres(client) => {
                let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
                client.execute(&dollars(sql), &values).map_err(refused(sql))
            }
        }
    }

    /// What a query answers.
    ///
    /// # Errors
    /// `Database`.
    pub fn query(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.each(sql, values, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row that a query answers.
    ///
    /// # Errors
    /// `Database`.
    pub fn first(&mut self, sql: &str, values: &[Cell]) -> Result<Option<Row>> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// Hands every row of an answer on. SQLite's come one by one, PostgreSQL's all at once: ask for pages where there may be many.
    ///
    /// # Errors
    /// `Database`, or `each`'s.
    pub fn each(
        &mut self,
        sql: &str,
        values: &[Cell],
        mut each: impl FnMut(Row) -> Result<()>,
    ) -> Result<()> {
        match self {
            Conn::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql).map_err(failed(sql))?;
                let columns = statement.column_count();
                let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed(sql))?;
                while let Some(row) = rows.next().map_err(failed(sql))? {
                    let cells = (0..columns).map(|at| {
                        Ok(match row.get_ref(at).map_err(failed(sql))? {
                            ValueRef::Null => Cell::Null,
                            ValueRef::Integer(value) => Cell::Int(value),
                            // Nothing stored is a fraction; an average that a query asks for is rounded.
                            #[allow(clippy::cast_possible_truncation)]
                            ValueRef::Real(value) => Cell::Int(value as i64),
                            ValueRef::Text(value) => Cell::Text(String::from_utf8_lossy(value).into_owned()),
                            ValueRef::Blob(value) => Cell::Blob(value.to_vec()),
                        })
                    });
                    each(Row(cells.collect::<Result<_>>()?))?;
                }
                Ok(())
            }
            Conn::Postgres(client) => {
                let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
                for row in client.query(&dollars(sql), &values).map_err(refused(sql))? {
                    let cells = row.columns().iter().enumerate().map(|(at, column)| {
                        Ok(match *column.type_() {
                            Type::INT8 => {
                                Cell::from(row.try_get::<_, Option<i64>>(at).map_err(refused(sql))?)
                            }
                            Type::INT4 => Cell::from(
                                row.try_get::<_, Option<i32>>(at).map_err(refused(sql))?.map(i64::from),
                            ),
                            Type::BYTEA => {
                                Cell::from(row.try_get::<_, Option<Vec<u8>>>(at).map_err(refused(sql))?)
                            }
                            _ => Cell::from(row.try_get::<_, Option<String>>(at).map_err(refused(sql))?),
                        })
                    });
                    each(Row(cells.collect::<Result<_>>()?))?;
                }
                Ok(())
            }
        }
    }

    /// Runs `work` in a transaction: all of it, or nothing.
    ///
    /// # Errors
    /// `Database`, or `work`'s.
    pub fn transaction<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        // SQLite: takes the lock at once, so that two writers wait for each other instead of failing half way.
        self.batch(match self {
            Conn::Sqlite(_) => "BEGIN IMMEDIATE",
            Conn::Postgres(_) => "BEGIN",
        })?;
        match work(self) {
            Ok(value) => {
                self.batch("COMMIT")?;
                Ok(value)
            }
            Err(error) => {
                // What failed is what to tell.
                let _ = self.batch("ROLLBACK");
                Err(error)
            }
        }
    }

    /// Runs `work` on one state of the database, whatever is written meanwhile.
    ///
    /// # Errors
    /// `Database`, or `work`'s.
    pub fn snapshot<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        self.batch(match self {
            Conn::Sqlite(_) => "BEGIN",
            Conn::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })?;
        let result = work(self);
        let _ = self.batch("ROLLBACK");
        result
    }

    /// Writes rows, each in place of the one that had its key. No two of them may have the same key.
    ///
    /// # Errors
    /// `Database`.
    pub fn write(&mut self, table: &Table, rows: &[Vec<Cell>]) -> Result<()> {
        match self {
            Conn::Sqlite(_) => {
                let places: Vec<String> = (1..=table.columns.len()).map(|n| format!("?{n}")).collect();
                let sql = format!(
                    "INSERT INTO {} ({}) VALUES ({}) {}",
                    table.name,
                    table.names(),
                    places.join(", "),
                    table.replacing()
                );
                rows.iter().try_for_each(|row| self.execute(&sql, row).map(drop))
            }
            Conn::Postgres(client) => {
                // Column by column as arrays: one statement for many rows.
                let arrays: Vec<String> = (1..)
                    .zip(table.columns)
                    .map(|(n, column)| format!("${n}::{}[]", column.kind.postgres()))
                    .collect();
                let sql = format!(
                    "INSERT INTO {} ({}) SELECT * FROM UNNEST({}) {}",
                    table.name,
                    table.names(),
                    arrays.join(", "),
                    table.replacing()
                );
                for chunk in rows.chunks(1_000) {
                    let columns: Vec<Box<dyn ToSql + Sync>> =
                        (0..).zip(table.columns).map(|(at, column)| array(chunk, at, column)).collect();
                    let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(AsRef::as_ref).collect();
                    client.execute(&sql, &columns).map_err(refused(&sql))?;
                }
                Ok(())
            }
        }
    }

    /// Whether the connection has ended, so that another is needed.
    pub fn is_closed(&self) -> bool {
        match self {
            Conn::Sqlite(_) => false,
            Conn::Postgres(client) => client.is_closed(),
        }
    }
}

/// A column of rows as PostgreSQL's array.
fn array(rows: &[Vec<Cell>], at: usize, column: &Column) -> Box<dyn ToSql + Sync> {
    let cells = rows.iter().map(|row| row.get(at));
    match column.kind {
        Kind::Int | Kind::OptInt => Box::new(
            cells
                .map(|cell| match cell {
                    Some(Cell::Int(value)) => Some(*value),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        Kind::Text | Kind::OptText => Box::new(
            cells
                .map(|cell| match cell {
                    Some(Cell::Text(value)) => Some(value.clone()),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        Kind::Blob => Box::new(
            cells
                .map(|cell| match cell {
                    Some(Cell::Blob(value)) => Some(value.clone()),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
    }
}
