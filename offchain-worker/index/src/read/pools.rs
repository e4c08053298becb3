//! Staking pools: what they hold, what they yield.

use super::accounts::worth;
use super::{stored_json, Reads};
use crate::db::{Conn, Row};
use crate::error::{Error, Result};
use crate::ledger::DAY_MS;
use crate::row;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Over how many days a yield is measured.
pub const YIELD_DAYS: u64 = 30;

/// A pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PoolInfo {
    /// Its address.
    pub pool: String,
    /// Its node.
    pub node: u32,
    /// The hash of its code.
    pub code: String,
    /// Who runs it.
    pub manager: String,
    /// Its token's name: show it as text.
    pub name: String,
    /// Its token's symbol: show it as text.
    pub symbol: String,
    /// `open`, `closing` or `closed`.
    pub stage: String,
    /// What the shares are worth.
    pub active: String,
    /// The manager's bond.
    pub bond: String,
    /// Shares that there are.
    pub supply: String,
    /// What a million million shares are worth, in the smallest unit.
    pub price: String,
    /// When it was made.
    pub created_at: u64,
    /// What the shares earned after commission, less what they lost, in a year at the pace of the last 30 days, in parts per billion of
    /// what they were worth; `null` before there is anything to tell by.
    pub yield_ppb: Option<i64>,
    /// All else, as it was after its last event.
    #[schema(value_type = Object)]
    pub state: Value,
    /// The block of that.
    pub state_block: u32,
}

/// What a pool's sync found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Income {
    /// When.
    pub at: u64,
    /// What the shares earned.
    pub shares_earned: String,
    /// What they lost.
    pub shares_slashed: String,
    /// What the bond earned.
    pub bond_earned: String,
    /// What it lost.
    pub bond_slashed: String,
    /// What became commission.
    pub commission: String,
    /// What the shares were worth.
    pub active: String,
}

/// Who has shares of a pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberInfo {
    /// The account.
    pub account: String,
    /// Its shares.
    pub shares: String,
    /// What they are worth.
    pub value: String,
    /// What it deposited.
    pub deposited: String,
    /// What it was paid.
    pub paid: String,
}

/// A pool with its income and its members.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PoolDetail {
    /// The pool.
    pub pool: PoolInfo,
    /// What syncs found, the latest first; at most 200.
    pub income: Vec<Income>,
    /// Who has shares, at most 200.
    pub members: Vec<MemberInfo>,
}

const COLUMNS: &str =
    "pool, node, code, manager, name, symbol, stage, active, bond, supply, created_at, state, state_block";

impl Reads {
    fn pool_info(&self, conn: &mut Conn, row: &Row, now: u64) -> Result<PoolInfo> {
        let (active, supply) = (row.amount(7), row.amount(9));
        Ok(PoolInfo {
            pool: self.shown(&row.text(0)),
            node: row.u32(1),
            code: row.text(2),
            manager: self.shown(&row.text(3)),
            name: row.text(4),
            symbol: row.text(5),
            stage: row.text(6),
            active: row.text(7),
            bond: row.text(8),
            supply: row.text(9),
            price: worth(1_000_000_000_000, active, supply).to_string(),
            created_at: row.uint(10),
            yield_ppb: yield_of(conn, &row.text(0), row.uint(10), now)?,
            state: self.localised(stored_json(row, 11)),
            state_block: row.u32(12),
        })
    }

    fn now(conn: &mut Conn) -> Result<u64> {
        let row = conn.first("SELECT at FROM tip WHERE id = 1", &[])?;
        Ok(row.map_or(0, |row| row.uint(0)))
    }

    /// Every pool, at most 500.
    ///
    /// # Errors
    /// `Database`.
    pub fn pools(&self, conn: &mut Conn) -> Result<Vec<PoolInfo>> {
        let now = Reads::now(conn)?;
        let sql = format!("SELECT {COLUMNS} FROM pools ORDER BY created_at, pool LIMIT 500");
        let rows = conn.query(&sql, &[])?;
        rows.iter().map(|row| self.pool_info(conn, row, now)).collect()
    }

    /// A pool.
    ///
    /// # Errors
    /// `Invalid`, `Absent`, `Database`.
    pub fn pool_detail(&self, conn: &mut Conn, typed: &str) -> Result<PoolDetail> {
        let (_, address) = self.account(typed)?;
        let now = Reads::now(conn)?;
        let sql = format!("SELECT {COLUMNS} FROM pools WHERE pool = ?1");
        let row = conn.first(&sql, &row![address.as_str()])?;
        let row = row.ok_or_else(|| Error::Absent(format!("there is no pool {}", self.shown(&address))))?;
        let pool = self.pool_info(conn, &row, now)?;
        let sql = "SELECT at, shares_earned, shares_slashed, bond_earned, bond_slashed, commission, active FROM pool_income \
                   WHERE pool = ?1 ORDER BY block DESC, idx DESC LIMIT 200";
        let income = conn.query(sql, &row![address.as_str()])?;
        let income = income.iter().map(|row| Income {
            at: row.uint(0),
            shares_earned: row.text(1),
            shares_slashed: row.text(2),
            bond_earned: row.text(3),
            bond_slashed: row.text(4),
            commission: row.text(5),
            active: row.text(6),
        });
        let (active, supply) = (row.amount(7), row.amount(9));
        let sql = "SELECT account, shares, deposited, paid FROM members WHERE pool = ?1 AND shares <> '0' \
                   ORDER BY LENGTH(shares) DESC, shares DESC LIMIT 200";
        let members = conn.query(sql, &row![address.as_str()])?;
        let members = members.iter().map(|row| MemberInfo {
            account: self.shown(&row.text(0)),
            shares: row.text(1),
            value: worth(row.amount(1), active, supply).to_string(),
            deposited: row.text(2),
            paid: row.text(3),
        });
        Ok(PoolDetail { pool, income: income.collect(), members: members.collect() })
    }
}

/// A pool's yield: what the last days brought, in proportion to what earned it, for a year. Floating point, and shown only.
fn yield_of(conn: &mut Conn, pool: &str, created_at: u64, now: u64) -> Result<Option<i64>> {
    let since = now.saturating_sub(YIELD_DAYS.saturating_mul(DAY_MS));
    let sql = "SELECT shares_earned, shares_slashed, active FROM pool_income WHERE pool = ?1 AND at > ?2";
    let rows = conn.query(sql, &row![pool, since])?;
    let sum = |at: usize| rows.iter().fold(0f64, |sum, row| sum + row.amount(at) as f64);
    let days = now.saturating_sub(since.max(created_at)) as f64 / DAY_MS as f64;
    let active = sum(2) / rows.len().max(1) as f64;
    if days < 0.5 || active <= 0.0 {
        return Ok(None);
    }
    let a_year = (sum(0) - sum(1)) / active * 365.0 / days;
    // A number that is shown; a cast saturates.
    #[allow(clippy::cast_possible_truncation)]
    Ok(Some((a_year * 1e9) as i64))
}
