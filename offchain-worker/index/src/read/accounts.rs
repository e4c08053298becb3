//! Accounts: what they have, what moved.

use super::nodes::{NodeFilter, NodeInfo};
use super::{limit, Page, Reads};
use crate::db::{Cell, Conn, Row};
use crate::error::{Error, Result};
use crate::ledger::{cash, WHATS};
use crate::row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An account's sums in the network.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct AccountInfo {
    /// The address.
    pub account: String,
    /// Whether it ever had to do with this network.
    pub known: bool,
    /// Tasks that it requested.
    pub tasks: u32,
    /// What it paid for them.
    pub fees: String,
    /// What came back.
    pub refunds: String,
    /// What its nodes have earned.
    pub rewards: String,
    /// Rewards paid out to it.
    pub claimed: String,
    /// Keepers' fees that it earned.
    pub keeper: String,
    /// Credit that it has not withdrawn.
    pub credit: String,
    /// What its nodes have lost of their stakes.
    pub slashed: String,
    /// Stake that it put in.
    pub staked: String,
    /// Stake that it took out.
    pub unstaked: String,
    /// What it put into pools.
    pub pooled: String,
    /// What pools paid it.
    pub unpooled: String,
    /// Its auditor's bond.
    pub bond: String,
    /// Stake of its nodes that is bonded.
    pub bonded: String,
    /// Stake of its nodes that is at risk in open tasks.
    pub locked: String,
    /// Stake of its nodes on its way out.
    pub unbonding: String,
    /// Rewards of its nodes that can be claimed.
    pub claimable: String,
    /// Refunds of its tasks that can be collected.
    pub collectable: String,
    /// Fees of its open tasks.
    pub escrow: String,
}

/// What an account has in a pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Holding {
    /// The pool.
    pub pool: String,
    /// Its token's name: show it as text.
    pub name: String,
    /// Its token's symbol: show it as text.
    pub symbol: String,
    /// Shares.
    pub shares: String,
    /// What they are worth by the pool's books, as of its last event.
    pub value: String,
    /// What was deposited.
    pub deposited: String,
    /// What exits were worth when they were asked for.
    pub exited: String,
    /// What was paid.
    pub paid: String,
}

/// An account with what it owns.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountDetail {
    /// Its sums.
    pub account: AccountInfo,
    /// Its nodes; at most 200.
    pub nodes: Vec<NodeInfo>,
    /// What it has in pools.
    pub pools: Vec<Holding>,
    /// Pools that it manages.
    pub manages: Vec<String>,
}

/// A movement of an account's money.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntryInfo {
    /// The block.
    pub block: u32,
    /// The event within it.
    pub index: u32,
    /// The movement within the event.
    pub part: u32,
    /// When.
    pub at: u64,
    /// What: `fee`, `refund`, `reward`, `claim`, …
    pub what: String,
    /// What it did to the account's balance on the chain: 1 in, −1 out, 0 nothing yet.
    pub cash: i8,
    /// How much.
    pub amount: String,
    /// The node.
    pub node: Option<u32>,
    /// The task.
    pub task: Option<u64>,
    /// The pool.
    pub pool: Option<String>,
}

/// Which movements.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryFilter {
    /// Those before this cursor.
    pub before: Option<String>,
    /// At most so many; 50 where it is not given, 200 at the most.
    pub limit: Option<u32>,
    /// Only these, by their names, separated by commas.
    pub what: Option<String>,
    /// Only those at this time or later, milliseconds since the Unix epoch.
    pub from: Option<u64>,
    /// Only those before this time.
    pub until: Option<u64>,
}

/// A place in a history, as a cursor.
fn cursor(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

impl Reads {
    /// An account's sums.
    ///
    /// # Errors
    /// `Invalid` for what is no address, `Database`.
    pub fn account_info(&self, conn: &mut Conn, typed: &str) -> Result<AccountInfo> {
        let (_, address) = self.account(typed)?;
        let sql = "SELECT tasks, fees, refunds, rewards, claimed, keeper, credit, slashed, staked, unstaked, pooled, unpooled, bond \
                   FROM accounts WHERE account = ?1";
        let row = conn.first(sql, &row![address.as_str()])?;
        let sql = "SELECT bonded, locked, unbonding, claimable FROM nodes WHERE owner = ?1";
        let mut sums = [0u128; 4];
        for row in conn.query(sql, &row![address.as_str()])? {
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = sum.saturating_add(row.amount(at));
            }
        }
        // At most 256 of one account's tasks are not collected.
        let sql =
            "SELECT refund, fee, ended_block FROM tasks WHERE requester = ?1 AND collected_block IS NULL";
        let (mut collectable, mut escrow) = (0u128, 0u128);
        for row in conn.query(sql, &row![address.as_str()])? {
            match row.opt_int(2) {
                Some(_) => collectable = collectable.saturating_add(row.amount(0)),
                None => escrow = escrow.saturating_add(row.amount(1)),
            }
        }
        let text = |at: usize| row.as_ref().map_or_else(|| "0".into(), |row: &Row| row.text(at));
        Ok(AccountInfo {
            account: self.shown(&address),
            known: row.is_some(),
            tasks: row.as_ref().map_or(0, |row| row.u32(0)),
            fees: text(1),
            refunds: text(2),
            rewards: text(3),
            claimed: text(4),
            keeper: text(5),
            credit: text(6),
            slashed: text(7),
            staked: text(8),
            unstaked: text(9),
            pooled: text(10),
            unpooled: text(11),
            bond: text(12),
            bonded: sums[0].to_string(),
            locked: sums[1].to_string(),
            unbonding: sums[2].to_string(),
            claimable: sums[3].to_string(),
            collectable: collectable.to_string(),
            escrow: escrow.to_string(),
        })
    }

    /// An account with what it owns.
    ///
    /// # Errors
    /// `Invalid` for what is no address, `Database`.
    pub fn account_detail(&self, conn: &mut Conn, typed: &str) -> Result<AccountDetail> {
        let account = self.account_info(conn, typed)?;
        let (_, address) = self.account(typed)?;
        let filter = NodeFilter { owner: Some(address.clone()), limit: Some(200), ..NodeFilter::default() };
        let nodes = self.nodes(conn, &filter)?.items;
        let sql = "SELECT m.pool, p.name, p.symbol, m.shares, m.deposited, m.exited, m.paid, p.active, p.supply FROM members m \
                   JOIN pools p ON p.pool = m.pool WHERE m.account = ?1 ORDER BY m.pool";
        let pools = conn.query(sql, &row![address.as_str()])?;
        let pools = pools.iter().map(|row| Holding {
            pool: self.shown(&row.text(0)),
            name: row.text(1),
            symbol: row.text(2),
            shares: row.text(3),
            value: worth(row.amount(3), row.amount(7), row.amount(8)).to_string(),
            deposited: row.text(4),
            exited: row.text(5),
            paid: row.text(6),
        });
        let sql = "SELECT pool FROM pools WHERE manager = ?1 ORDER BY pool";
        let manages = conn.query(sql, &row![address.as_str()])?;
        Ok(AccountDetail {
            account,
            nodes,
            pools: pools.collect(),
            manages: manages.iter().map(|row| self.shown(&row.text(0))).collect(),
        })
    }

    /// An account's movements, the newest first.
    ///
    /// # Errors
    /// `Invalid`, `Database`.
    pub fn history(&self, conn: &mut Conn, typed: &str, filter: &HistoryFilter) -> Result<Page<EntryInfo>> {
        let limit = limit(filter.limit);
        let items = self.entries(conn, typed, filter, limit.saturating_add(1))?;
        let place = |entry: &EntryInfo| format!("{}-{}-{}", entry.block, entry.index, entry.part);
        Ok(Page::cut(items, limit, place))
    }

    /// At most so many of an account's movements, the newest first.
    ///
    /// # Errors
    /// `Invalid`, `Database`.
    pub fn entries(
        &self,
        conn: &mut Conn,
        typed: &str,
        filter: &HistoryFilter,
        most: u32,
    ) -> Result<Vec<EntryInfo>> {
        let (_, address) = self.account(typed)?;
        let before = match &filter.before {
            None => (u32::MAX, u32::MAX, u32::MAX),
            Some(text) => cursor(text).ok_or_else(|| Error::Invalid(format!("{text:?} is no cursor")))?,
        };
        let from = filter.from.unwrap_or(0);
        let until = filter.until.unwrap_or(i64::MAX as u64);
        let mut values: Vec<Cell> = row![address, before.0, before.1, before.2, from, until, most];
        let mut only = String::new();
        if let Some(what) = &filter.what {
            let mut places = Vec::new();
            for what in what.split(',').map(str::trim).filter(|what| !what.is_empty()) {
                if !WHATS.iter().any(|(name, _, _)| *name == what) {
                    return Err(Error::Invalid(format!("{what:?} is no kind of movement")));
                }
                values.push(what.into());
                places.push(format!("?{}", values.len()));
            }
            if !places.is_empty() {
                only = format!(" AND what IN ({})", places.join(", "));
            }
        }
        let sql = format!(
            "SELECT block, idx, part, at, what, amount, node, task, pool FROM entries WHERE account = ?1 \
             AND (block, idx, part) < (?2, ?3, ?4) AND at >= ?5 AND at < ?6{only} \
             ORDER BY block DESC, idx DESC, part DESC LIMIT ?7"
        );
        let rows = conn.query(&sql, &values)?;
        let entries = rows.iter().map(|row| {
            let what = row.text(4);
            EntryInfo {
                block: row.u32(0),
                index: row.u32(1),
                part: row.u32(2),
                at: row.uint(3),
                cash: cash(&what),
                what,
                amount: row.text(5),
                node: row.opt_int(6).and_then(|node| u32::try_from(node).ok()),
                task: row.opt_int(7).and_then(|task| u64::try_from(task).ok()),
                pool: row.opt_text(8).map(|pool| self.shown(&pool)),
            }
        });
        Ok(entries.collect())
    }
}

/// What shares are worth by a pool's books: with the virtual shares and the virtual unit, as the pool computes it.
pub(super) fn worth(shares: u128, active: u128, supply: u128) -> u128 {
    use poq_core::pool::{VIRTUAL_ASSETS, VIRTUAL_SHARES};
    poq_core::units::mul_div(
        shares,
        active.saturating_add(VIRTUAL_ASSETS),
        supply.saturating_add(VIRTUAL_SHARES),
    )
    .unwrap_or(0)
}
