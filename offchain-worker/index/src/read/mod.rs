//! What applications and people ask an index. Reads only; amounts are decimal strings in the chain's smallest unit, ratios parts per
//! billion, times milliseconds since the Unix epoch, addresses in the chain's own form.

mod accounts;
mod nodes;
mod params;
mod pools;
mod tasks;

pub use accounts::*;
pub use nodes::*;
pub use params::*;
pub use pools::*;
pub use tasks::*;

use crate::db::{Conn, Row};
use crate::error::{Error, Result};
use crate::row;
use crate::store::Identity;
use poq_chain::signer::{parse_account, ss58};
use poq_chain::AccountId32;
use serde::Serialize;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// The most rows of one page.
pub const PAGE_MAX: u32 = 200;

/// A limit as it was asked for, within what one page may have.
pub fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(50).clamp(1, PAGE_MAX)
}

/// A page of a list that goes on, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask for as `before` to get the next page; `null` at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Cuts what was read with one more than the limit.
    fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Page { items, next }
    }
}

/// The network that the index is of.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Network {
    /// The chain's name.
    pub chain: String,
    /// The chain's genesis hash.
    pub genesis: String,
    /// The contract's address.
    pub contract: String,
    /// What a whole unit of the chain's money is called.
    pub symbol: String,
    /// How many decimals that has.
    pub decimals: u8,
    /// The prefix of the chain's addresses.
    pub ss58_prefix: u16,
}

/// A block.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockInfo {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: String,
    /// Its time.
    pub at: u64,
}

/// How far the index has come, and whether it keeps up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// Whose history this is.
    pub network: Network,
    /// The last block that was read; `null` before the first.
    pub tip: Option<BlockInfo>,
    /// When the chain last answered the indexer, by the indexer's clock; 0 for never.
    pub heard_at: u64,
    /// The chain's last final block then.
    pub head: u32,
    /// Its time.
    pub head_at: u64,
    /// What went wrong since, if anything did.
    pub error: Option<String>,
    /// The time now, by this program's clock.
    pub now: u64,
    /// This program's version.
    pub version: String,
}

/// Reads of one network's index.
#[derive(Clone, Debug)]
pub struct Reads {
    identity: Identity,
}

impl Reads {
    /// Of the index that a database has.
    ///
    /// # Errors
    /// `Empty`, `Layout`, `Database`.
    pub fn of(conn: &mut Conn, database: &str) -> Result<Reads> {
        Ok(Reads { identity: Identity::read(conn, database)? })
    }

    /// Whose history it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// An address in the chain's own form, from the form of the tables.
    pub fn shown(&self, address: &str) -> String {
        // The tables' own form.
        if self.identity.ss58_prefix == 42 {
            return address.to_owned();
        }
        match parse_account(address) {
            Ok(account) => ss58(&account, self.identity.ss58_prefix),
            Err(_) => address.to_owned(),
        }
    }

    /// An account from an address that somebody typed, and its form in the tables.
    ///
    /// # Errors
    /// `Invalid` for one that is none: its checksum does not fit, or it is no address at all.
    pub fn account(&self, typed: &str) -> Result<(AccountId32, String)> {
        let typed = typed.trim();
        let account = parse_account(typed).map_err(|_| {
            Error::Invalid(match typed.len() {
                40..=60 => "the address is mistyped: its checksum does not fit".into(),
                _ => "this is no address: SS58, or 0x and 64 hexadecimal digits".into(),
            })
        })?;
        Ok((account, account.to_string()))
    }

    /// Every address in a value, in the chain's own form.
    pub fn localised(&self, value: Value) -> Value {
        if self.identity.ss58_prefix == 42 {
            return value;
        }
        match value {
            Value::String(text) if (46..=49).contains(&text.len()) && !text.starts_with("0x") => {
                Value::String(self.shown(&text))
            }
            Value::Array(list) => list.into_iter().map(|value| self.localised(value)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, self.localised(value))).collect(),
            value => value,
        }
    }

    /// How far the index has come.
    ///
    /// # Errors
    /// `Database`.
    pub fn status(&self, conn: &mut Conn) -> Result<Status> {
        let tip = conn.first("SELECT number, hash, at FROM tip WHERE id = 1", &[])?;
        let heard = conn.first("SELECT heard_at, head, head_at, error FROM follower WHERE id = 1", &[])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Identity { genesis, contract, chain, symbol, decimals, ss58_prefix } = &self.identity;
        Ok(Status {
            network: Network {
                chain: chain.clone(),
                genesis: format!("{genesis:?}"),
                contract: ss58(contract, *ss58_prefix),
                symbol: symbol.clone(),
                decimals: *decimals,
                ss58_prefix: *ss58_prefix,
            },
            tip: tip.map(|row| BlockInfo { number: row.u32(0), hash: row.text(1), at: row.uint(2) }),
            heard_at: heard.as_ref().map_or(0, |row| row.uint(0)),
            head: heard.as_ref().map_or(0, |row| row.u32(1)),
            head_at: heard.as_ref().map_or(0, |row| row.uint(2)),
            error: heard.and_then(|row| row.opt_text(3)),
            now: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// The last block that was read and when the chain last answered: what tells whether anything is new.
    ///
    /// # Errors
    /// `Database`.
    pub fn pulse(&self, conn: &mut Conn) -> Result<(u32, String)> {
        let row = conn.first("SELECT number, hash FROM tip WHERE id = 1", &[])?;
        Ok(row.map_or((0, String::new()), |row| (row.u32(0), row.text(1))))
    }
}

/// A mean of a sum of parts per billion.
fn mean(sum: i64, count: i64) -> Option<u32> {
    let mean = sum.checked_div(count)?;
    u32::try_from(mean).ok()
}

/// JSON that is stored as text.
fn stored_json(row: &Row, at: usize) -> Value {
    serde_json::from_str(&row.text(at)).unwrap_or(Value::Null)
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hit {
    /// `task`, `node`, `account`, `pool`, `block` or `kind`.
    pub what: &'static str,
    /// Its number or address.
    pub id: String,
    /// What people know it by: a model's name, a pool's token.
    pub label: String,
}

impl Reads {
    /// What somebody may mean by a few characters: a number, an address, a block's hash, part of a model's or a pool's name.
    ///
    /// # Errors
    /// `Invalid` for what looks like an address and is mistyped; `Database`.
    pub fn search(&self, conn: &mut Conn, query: &str) -> Result<Vec<Hit>> {
        let query = query.trim();
        let mut hits = Vec::new();
        if query.is_empty() {
            return Ok(hits);
        }
        if let Ok(number) = query.trim_start_matches('#').parse::<u64>() {
            for (what, sql) in [
                ("task", "SELECT task, requester FROM tasks WHERE task = ?1"),
                ("node", "SELECT node, model FROM nodes WHERE node = ?1"),
                ("kind", "SELECT DISTINCT kind, '' FROM kinds WHERE kind = ?1"),
            ] {
                if let Some(row) = conn.first(sql, &row![number])? {
                    let label = if what == "node" { row.text(1) } else { String::new() };
                    hits.push(Hit { what, id: row.uint(0).to_string(), label });
                }
            }
            return Ok(hits);
        }
        let hexadecimal = query.starts_with("0x") && query.len() == 66;
        if hexadecimal {
            let sql = "SELECT number FROM blocks WHERE hash = ?1";
            if let Some(row) = conn.first(sql, &row![query.to_lowercase()])? {
                hits.push(Hit { what: "block", id: row.u32(0).to_string(), label: query.to_owned() });
                return Ok(hits);
            }
        }
        let looks_like_one =
            (46..=49).contains(&query.len()) && query.chars().all(|c| c.is_ascii_alphanumeric());
        match self.account(query) {
            Ok((account, address)) => {
                let id = ss58(&account, self.identity.ss58_prefix);
                if let Some(row) =
                    conn.first("SELECT name FROM pools WHERE pool = ?1", &row![address.as_str()])?
                {
                    hits.push(Hit { what: "pool", id: id.clone(), label: row.text(0) });
                }
                hits.push(Hit { what: "account", id, label: String::new() });
                return Ok(hits);
            }
            Err(error) if looks_like_one => return Err(error),
            Err(_) => {}
        }
        // `!` escapes what would stand for anything.
        let escaped = query.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
        let pattern = format!("%{escaped}%");
        let sql =
            "SELECT node, model FROM nodes WHERE LOWER(model) LIKE ?1 ESCAPE '!' ORDER BY node LIMIT 20";
        for row in conn.query(sql, &row![pattern.as_str()])? {
            hits.push(Hit { what: "node", id: row.uint(0).to_string(), label: row.text(1) });
        }
        let sql = "SELECT pool, name, symbol FROM pools WHERE LOWER(name) LIKE ?1 ESCAPE '!' \
                   OR LOWER(symbol) LIKE ?1 ESCAPE '!' ORDER BY pool LIMIT 20";
        for row in conn.query(sql, &row![pattern.as_str()])? {
            hits.push(Hit { what: "pool", id: self.shown(&row.text(0)), label: row.text(1) });
        }
        Ok(hits)
    }
}
