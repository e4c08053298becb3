//! An index as text, the same for the same history whatever the database and however it came there.

use crate::db::schema::{Table, TABLES};
use crate::db::{Cell, Conn};
use crate::error::Result;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use std::fmt::Write as _;

/// What a table's rows hash to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableHash {
    /// The table.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// blake2b-256 of their text, in hexadecimal.
    pub hash: String,
}

/// What an index holds, in a few lines that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Digests {
    /// Table by table.
    pub tables: Vec<TableHash>,
    /// blake2b-256 of all of that, in hexadecimal.
    pub hash: String,
}

/// A row as a line: cells with tabs between, `-` for nothing, bytes in hexadecimal; backslash, tab and line ends in text are escaped.
pub(crate) fn line(cells: &[Cell]) -> String {
    let mut text = String::new();
    for (place, cell) in cells.iter().enumerate() {
        if place > 0 {
            text.push('\t');
        }
        match cell {
            Cell::Null => text.push('-'),
            Cell::Int(value) => {
                let _ = write!(text, "{value}");
            }
            Cell::Blob(value) => text.push_str(&hex::encode(value)),
            Cell::Text(value) => {
                for char in value.chars() {
                    match char {
                        '\\' => text.push_str("\\\\"),
                        '\t' => text.push_str("\\t"),
                        '\n' => text.push_str("\\n"),
                        '\r' => text.push_str("\\r"),
                        char => text.push(char),
                    }
                }
            }
        }
    }
    text
}

/// The rows of a table, in the order of its key.
fn rows(conn: &mut Conn, table: &Table, mut each: impl FnMut(&str)) -> Result<u64> {
    let mut count = 0;
    let sql = format!("SELECT {} FROM {} ORDER BY {}", table.names(), table.name, table.key_names());
    conn.each(&sql, &[], |row| {
        each(&line(&row.0));
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Writes an index as text: each table's name with its columns, then its rows. What says whether the index keeps up is not history, and
/// is not among them.
///
/// # Errors
/// `Database`.
pub fn dump(conn: &mut Conn, mut each: impl FnMut(&str)) -> Result<()> {
    conn.snapshot(|conn| {
        for table in TABLES {
            each(&format!("# {} {}", table.name, table.names()));
            rows(conn, table, &mut each)?;
        }
        Ok(())
    })
}

/// What an index holds, as hashes of its text.
///
/// # Errors
/// `Database`.
pub fn digests(conn: &mut Conn) -> Result<Digests> {
    conn.snapshot(|conn| {
        let mut whole = Blake2b::<U32>::new();
        let mut tables = Vec::new();
        for table in TABLES {
            let mut hasher = Blake2b::<U32>::new();
            let count = rows(conn, table, |line| {
                hasher.update(line.as_bytes());
                hasher.update(b"\n");
            })?;
            let hash = hex::encode(hasher.finalize());
            whole.update(format!("{} {count} {hash}\n", table.name).as_bytes());
            tables.push(TableHash { table: table.name, rows: count, hash });
        }
        Ok(Digests { tables, hash: hex::encode(whole.finalize()) })
    })
}
