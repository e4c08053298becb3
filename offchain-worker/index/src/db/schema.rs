//! The tables. What the chain said is kept as it said it; everything else follows from that, and is made anew from it where a later
//! version keeps other tables.

use super::{Conn, Row};
use crate::error::{Error, Result};

/// The layout of what is kept as the chain said it. A later one brings an older database to it (`MIGRATIONS`).
pub const LAYOUT: i64 = 1;
/// The layout of what follows from it. With another one, all of it is dropped and made anew; no chain is needed for that.
pub const DERIVED: i64 = 1;

/// What brings the kept tables from layout n to n + 1, first entry from 1 to 2.
const MIGRATIONS: [&str; (LAYOUT - 1) as usize] = [];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int,
    /// A number, or nothing.
    OptInt,
    /// Text.
    Text,
    /// Text, or nothing.
    OptText,
    /// Bytes.
    Blob,
}

impl Kind {
    pub(super) fn postgres(self) -> &'static str {
        match self {
            Kind::Int | Kind::OptInt => "BIGINT",
            Kind::Text | Kind::OptText => "TEXT",
            Kind::Blob => "BYTEA",
        }
    }

    fn sqlite(self) -> &'static str {
        match self {
            Kind::Int | Kind::OptInt => "INTEGER",
            Kind::Text | Kind::OptText => "TEXT",
            Kind::Blob => "BLOB",
        }
    }

    fn may_be_null(self) -> bool {
        matches!(self, Kind::OptInt | Kind::OptText)
    }
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns; the first `key` of them are its key.
    pub columns: &'static [Column],
    /// How many columns the key has.
    pub key: usize,
    /// Columns that it is searched and sorted by.
    pub indexes: &'static [&'static str],
    /// Whether it follows from other tables.
    pub derived: bool,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident $name:literal $class:ident key $key:literal
        { $($column:ident: $kind:ident),* $(,)? } [$($index:literal),* $(,)?])*) => {
        $($(#[$doc])*
        pub const $constant: Table = Table {
            name: $name,
            columns: &[$(Column { name: stringify!($column), kind: Kind::$kind }),*],
            key: $key,
            indexes: &[$($index),*],
            derived: tables!(@ $class),
        };)*

        /// All of them.
        pub const TABLES: &[&Table] = &[$(&$constant),*];
    };
    (@ kept) => { false };
    (@ derived) => { true };
}

tables! {
    /// The network, and by which version this was made.
    META "meta" kept key 1 { name: Text, value: Text } []
    /// The last block that was read; one row.
    TIP "tip" kept key 1 { id: Int, number: Int, hash: Text, at: Int } []
    /// Blocks in which something happened.
    BLOCKS "blocks" kept key 1 { number: Int, hash: Text, at: Int } []
    /// Events of the contract and of its pools, as the chain has them.
    EVENTS "events" kept key 2 {
        block: Int, idx: Int, extrinsic: OptInt, contract: Text, name: Text, topics: Blob, data: Blob
    } []
    /// What no event tells and was read from the state after a block in which it changed: nodes' addresses and prices, pools' books.
    READS "reads" kept key 3 { block: Int, what: Text, id: Text, data: Blob } ["what, id, block"]

    /// Which events a task has.
    TASK_EVENTS "task_events" derived key 3 { task: Int, block: Int, idx: Int } []
    /// Tasks.
    TASKS "tasks" derived key 1 {
        task: Int, kind: Int, version: Int, requester: Text, fee: Text, outputs: Int, panel: Int, early: Int, inline: Int,
        input_hash: Text, input_url: Text, requested_block: Int, requested_at: Int, phase: Text, deadline: Int,
        committed: Int, revealed: Int, ending: OptText, ended_block: OptInt, ended_at: OptInt, quality: OptInt, paid: Text,
        keepers: Text, treasury: Text, burned: Text, slashed: Text, refund: Text, audited_block: OptInt, collected_block: OptInt
    } ["requester, task", "kind, task", "phase, task", "ended_block", "kind, ended_block", "kind, audited_block"]
    /// What ended tasks were for each of their nodes: the numbers of the formula.
    LINES "lines" derived key 2 {
        task: Int, place: Int, node: Int, role: Text, conduct: Text, block: Int, at: Int, quality: OptInt, cost: Int, net: Int,
        latency_ms: OptInt, price: Text, slot: Text, payout: Text, slashed: Text, deviation: OptInt, gain: OptInt,
        trust: OptInt, due: OptText
    } ["node, task", "node, block", "block"]
    /// What nodes have to do in tasks that are open.
    DUTIES "duties" derived key 2 {
        task: Int, place: Int, node: Int, role: Text, state: Text, due: Int
    } ["node"]
    /// Nodes, as they are.
    NODES "nodes" derived key 1 {
        node: Int, owner: Text, operator: Text, payee: Text, role: Text, kind: Int, model: Text, model_digest: Text,
        endpoint: Text, price: Text, status: Text, registered_block: Int, registered_at: Int, bonded: Text, locked: Text,
        unbonding: Text, claimable: Text, withdrawn: Text, slashed: Text, earned: Text, tasks: Int, missed: Int,
        misses: Int, scored: Int, quality_sum: Int, cost_sum: Int, answered: Int, latency_sum: Int, record_burned: Text,
        record_earned: Text, trust: Int, gain_average: Int, due: Text, open: Int, last_block: Int, last_at: Int
    } ["owner", "kind, role"]
    /// Evaluators' trust, whenever an opened reference moved it.
    TRUST "trust" derived key 3 {
        node: Int, block: Int, idx: Int, at: Int, task: Int, trust: Int, gain_average: Int
    } []
    /// What nodes did by days, UTC, counted from 1970-01-01.
    NODE_DAYS "node_days" derived key 2 {
        node: Int, day: Int, tasks: Int, missed: Int, scored: Int, earned: Text, slashed: Text, quality_sum: Int, cost_sum: Int
    } []
    /// Accounts' money, movement by movement.
    ENTRIES "entries" derived key 4 {
        account: Text, block: Int, idx: Int, part: Int, at: Int, what: Text, amount: Text, node: OptInt, task: OptInt,
        pool: OptText
    } []
    /// Accounts' sums.
    ACCOUNTS "accounts" derived key 1 {
        account: Text, tasks: Int, fees: Text, refunds: Text, rewards: Text, claimed: Text, keeper: Text, credit: Text,
        slashed: Text, staked: Text, unstaked: Text, pooled: Text, unpooled: Text, bond: Text, first_block: Int, last_block: Int
    } []
    /// Versions of kinds' parameters.
    KINDS "kinds" derived key 2 { kind: Int, version: Int, block: Int, at: Int, params: Text } []
    /// What kinds remember of their tasks.
    POPULATIONS "populations" derived key 1 { kind: Int, reference: Int, gain_average: Int, ring: Text } []
    /// What was announced, and what became of it.
    CHANGES "changes" derived key 2 {
        block: Int, idx: Int, at: Int, lever: Text, change: Text, acts_at: Int, state: Text, state_block: OptInt, state_at: OptInt
    } ["state"]
    /// Auditors.
    AUDITORS "auditors" derived key 1 { account: Text, appointed: Int, bond: Text, unbonds_at: Int, audits: Int, last_block: Int } []
    /// Staking pools.
    POOLS "pools" derived key 1 {
        pool: Text, node: Int, created_block: Int, created_at: Int, code: Text, manager: Text, name: Text, symbol: Text,
        stage: Text, active: Text, bond: Text, supply: Text, state: Text, state_block: Int
    } ["node"]
    /// What pools' syncs found: income and losses.
    POOL_INCOME "pool_income" derived key 3 {
        pool: Text, block: Int, idx: Int, at: Int, shares_earned: Text, shares_slashed: Text, bond_earned: Text,
        bond_slashed: Text, commission: Text, active: Text
    } []
    /// What accounts have in pools.
    MEMBERS "members" derived key 2 { pool: Text, account: Text, shares: Text, deposited: Text, exited: Text, paid: Text } ["account"]
    /// The network by days, UTC, counted from 1970-01-01.
    DAYS "days" derived key 1 {
        day: Int, requested: Int, settled: Int, refunded: Int, fees: Text, paid: Text, keepers: Text, treasury: Text,
        burned: Text, slashed: Text
    } []
    /// The network's sums; one row.
    TOTALS "totals" derived key 1 {
        id: Int, owner: Text, paused: Int, global: Text, requested: Int, settled: Int, refunded: Int, nodes: Int,
        fees: Text, paid: Text, keepers: Text, burned: Text, sent: Text, slashed: Text, treasury: Text,
        treasury_withdrawn: Text, stakes: Text, escrow: Text, refunds: Text, claimable: Text, bonds: Text,
        treasury_left: Text, burned_left: Text, events: Int
    } []
    /// Events that the protocol does not allow, or that this version does not understand.
    STRANGE "strange" derived key 3 { block: Int, idx: Int, part: Int, what: Text } []
}

/// Whether the index keeps up, and what the chain says of itself. Not history: no dump has it.
pub const FOLLOWER: Table = Table {
    name: "follower",
    columns: &[
        Column { name: "id", kind: Kind::Int },
        Column { name: "heard_at", kind: Kind::Int },
        Column { name: "head", kind: Kind::Int },
        Column { name: "head_at", kind: Kind::Int },
        Column { name: "error", kind: Kind::OptText },
    ],
    key: 1,
    indexes: &[],
    derived: false,
};

impl Table {
    /// Its columns' names with commas between.
    pub fn names(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    /// Its key's columns with commas between.
    pub fn key_names(&self) -> String {
        self.columns.iter().take(self.key).map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    /// What a row does to one with the same key.
    pub(super) fn replacing(&self) -> String {
        let rest: Vec<String> =
            self.columns.iter().skip(self.key).map(|c| format!("{0} = excluded.{0}", c.name)).collect();
        match rest.is_empty() {
            true => format!("ON CONFLICT ({}) DO NOTHING", self.key_names()),
            false => format!("ON CONFLICT ({}) DO UPDATE SET {}", self.key_names(), rest.join(", ")),
        }
    }

    fn create(&self, conn: &Conn) -> String {
        let postgres = matches!(conn, Conn::Postgres(_));
        let columns = self.columns.iter().map(|column| {
            let kind = if postgres { column.kind.postgres() } else { column.kind.sqlite() };
            // Sorted by bytes, as SQLite sorts.
            let order = if postgres && kind == "TEXT" { " COLLATE \"C\"" } else { "" };
            let null = if column.kind.may_be_null() { "" } else { " NOT NULL" };
            format!("{} {kind}{order}{null}", column.name)
        });
        let key = format!("PRIMARY KEY ({})", self.key_names());
        let parts: Vec<String> = columns.chain([key]).collect();
        // Rows within their key's tree: one lookup instead of two. A single number is the row's own already, and events are large.
        let within = !postgres && self.key > 1 && self.name != EVENTS.name && self.name != READS.name;
        let mut sql = format!(
            "CREATE TABLE {} ({}){};",
            self.name,
            parts.join(", "),
            if within { " WITHOUT ROWID" } else { "" }
        );
        for (number, columns) in self.indexes.iter().enumerate() {
            sql += &format!("CREATE INDEX {0}_{number} ON {0} ({columns});", self.name);
        }
        sql
    }
}

/// A name's value in `meta`.
///
/// # Errors
/// `Database`.
pub fn meta(conn: &mut Conn, name: &str) -> Result<Option<String>> {
    let row = conn.first("SELECT value FROM meta WHERE name = ?1", &crate::row![name])?;
    Ok(row.map(|row| row.text(0)))
}

/// Sets a name's value in `meta`.
///
/// # Errors
/// `Database`.
pub fn set_meta(conn: &mut Conn, name: &str, value: &str) -> Result<()> {
    conn.write(&META, &[crate::row![name, value]])
}

/// Whether the database has an index.
///
/// # Errors
/// `Database`.
pub fn is_made(conn: &mut Conn) -> Result<bool> {
    let sql = match conn {
        Conn::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'",
        Conn::Postgres(_) => {
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'meta'"
        }
    };
    Ok(conn.first(sql, &[])?.as_ref().map_or(0, |row: &Row| row.int(0)) > 0)
}

/// Makes the tables where there are none, and brings those of an older layout to this one. Whether what is derived has to be made anew.
///
/// # Errors
/// `Layout` for a newer one; `Database`.
pub fn prepare(conn: &mut Conn) -> Result<bool> {
    conn.transaction(|conn| {
        if !is_made(conn)? {
            for table in TABLES.iter().copied().chain([&FOLLOWER]) {
                let sql = table.create(conn);
                conn.batch(&sql)?;
            }
            set_meta(conn, "layout", &LAYOUT.to_string())?;
            set_meta(conn, "derived", &DERIVED.to_string())?;
            return Ok(false);
        }
        let number = |value: Option<String>| value.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let found = number(meta(conn, "layout")?);
        if found > LAYOUT {
            return Err(Error::Layout {
                found,
                known: LAYOUT,
                hint: "it was made by a newer version of poq; use that one",
            });
        }
        for step in MIGRATIONS.iter().skip(usize::try_from(found.saturating_sub(1)).unwrap_or(0)) {
            conn.batch(step)?;
        }
        set_meta(conn, "layout", &LAYOUT.to_string())?;
        let derived = number(meta(conn, "derived")?);
        if derived > DERIVED {
            return Err(Error::Layout {
                found: derived,
                known: DERIVED,
                hint: "it was made by a newer version of poq; use that one",
            });
        }
        Ok(derived != DERIVED)
    })
}

/// Drops what is derived and makes its tables anew, empty, within the transaction that fills them.
///
/// # Errors
/// `Database`.
pub fn reset_derived(conn: &mut Conn) -> Result<()> {
    for table in TABLES.iter().filter(|table| table.derived) {
        let sql = format!("DROP TABLE IF EXISTS {}; {}", table.name, table.create(conn));
        conn.batch(&sql)?;
    }
    set_meta(conn, "derived", &DERIVED.to_string())
}

/// Checks that a database can be read by this version.
///
/// # Errors
/// `Empty`, `Layout`; `Database`.
pub fn check(conn: &mut Conn, database: &str) -> Result<()> {
    if !is_made(conn)? || meta(conn, "network")?.is_none() {
        return Err(Error::Empty { database: database.to_owned() });
    }
    for (name, known) in [("layout", LAYOUT), ("derived", DERIVED)] {
        let found = meta(conn, name)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        if found != known {
            return Err(Error::Layout {
                found,
                known,
                hint: "`poq index` of the same version as this program brings it up to date",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What a dropped column of a kept table would lose cannot be made anew.
    #[test]
    fn tables_are_made_once_and_their_statements_are_valid() {
        let mut conn = Conn::Sqlite(rusqlite::Connection::open_in_memory().unwrap());
        assert!(!is_made(&mut conn).unwrap());
        assert!(matches!(check(&mut conn, "x"), Err(Error::Empty { .. })));
        assert!(!prepare(&mut conn).unwrap());
        assert!(!prepare(&mut conn).unwrap());
        for table in TABLES {
            assert!(table.key >= 1 && table.key <= table.columns.len(), "{}", table.name);
            let sql = format!("SELECT {} FROM {} ORDER BY {}", table.names(), table.name, table.key_names());
            assert_eq!(conn.query(&sql, &[]).unwrap().len(), usize::from(table.name == "meta") * 2, "{sql}");
        }
        set_meta(&mut conn, "derived", "0").unwrap();
        assert!(prepare(&mut conn).unwrap());
        conn.transaction(reset_derived).unwrap();
        assert!(!prepare(&mut conn).unwrap());
        set_meta(&mut conn, "layout", "99").unwrap();
        assert!(matches!(prepare(&mut conn), Err(Error::Layout { found: 99, .. })));
    }
}
