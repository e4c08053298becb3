//! Nodes: what they are, what they did, what it brought them.

use super::tasks::{Duty, Line};
use super::{limit, mean, Page, Reads};
use crate::db::schema::{LINES, NODES};
use crate::db::{Cell, Conn, Row};
use crate::error::{Error, Result};
use crate::row;
use poq_chain::types::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeInfo {
    /// Its number.
    pub node: u32,
    /// Its owner: stakes, claims, configures.
    pub owner: String,
    /// Its operator: does the duties.
    pub operator: String,
    /// Its payee: is paid.
    pub payee: String,
    /// `inference` or `evaluator`.
    pub role: String,
    /// The kind that it serves.
    pub kind: u16,
    /// Its model's name, as it says itself: show it as text.
    pub model: String,
    /// Its model's digest, as it says itself.
    pub model_digest: String,
    /// Where it serves, as it says itself: show it as text.
    pub endpoint: String,
    /// What it asks per task.
    pub price: String,
    /// `active`, `draining` or `gone`.
    pub status: String,
    /// When it was registered.
    pub registered_at: u64,
    /// Stake that counts in draws.
    pub bonded: String,
    /// Stake at risk in open tasks.
    pub locked: String,
    /// Stake on its way out.
    pub unbonding: String,
    /// Rewards that can be claimed.
    pub claimable: String,
    /// Rewards claimed.
    pub withdrawn: String,
    /// Stake lost.
    pub slashed: String,
    /// All rewards.
    pub earned: String,
    /// Tasks that ended.
    pub tasks: u32,
    /// Of these, duties missed.
    pub missed: u32,
    /// Duties missed in a row just now.
    pub misses: u32,
    /// Of these tasks, with a quality or a merit.
    pub scored: u32,
    /// The mean quality of its answers, or its mean merit.
    pub mean_quality: Option<u32>,
    /// The mean cost that went with it.
    pub mean_cost: Option<u32>,
    /// Its mean latency.
    pub mean_latency_ms: Option<u64>,
    /// The mean quality on its record in the contract: weighed by what its tasks burned.
    pub record: Option<u32>,
    /// Its trust; one for an inference node.
    pub trust: u32,
    /// Its average information gain in tasks with an opened reference, signed.
    pub gain_average: i64,
    /// What its scores have earned and no task has paid yet; below zero what is held back.
    pub due: String,
    /// Open duties.
    pub open: u32,
    /// When anything last happened to it.
    pub last_at: u64,
}

impl NodeInfo {
    fn of(reads: &Reads, row: &Row) -> NodeInfo {
        let (scored, answered) = (row.int(23), row.int(26));
        let burned = row.amount(28);
        let record = row.amount(29).saturating_mul(1_000_000_000).checked_div(burned);
        NodeInfo {
            node: row.u32(0),
            owner: reads.shown(&row.text(1)),
            operator: reads.shown(&row.text(2)),
            payee: reads.shown(&row.text(3)),
            role: row.text(4),
            kind: u16::try_from(row.int(5)).unwrap_or(0),
            model: row.text(6),
            model_digest: row.text(7),
            endpoint: row.text(8),
            price: row.text(9),
            status: row.text(10),
            registered_at: row.uint(12),
            bonded: row.text(13),
            locked: row.text(14),
            unbonding: row.text(15),
            claimable: row.text(16),
            withdrawn: row.text(17),
            slashed: row.text(18),
            earned: row.text(19),
            tasks: row.u32(20),
            missed: row.u32(21),
            misses: row.u32(22),
            scored: row.u32(23),
            mean_quality: mean(row.int(24), scored),
            mean_cost: mean(row.int(25), scored),
            mean_latency_ms: row.int(27).checked_div(answered).and_then(|ms| u64::try_from(ms).ok()),
            record: record.and_then(|ppb| u32::try_from(ppb).ok()),
            trust: row.u32(30),
            gain_average: row.int(31),
            due: row.text(32),
            open: row.u32(33),
            last_at: row.uint(35),
        }
    }
}

/// Which nodes.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NodeFilter {
    /// Those after this number.
    pub after: Option<u32>,
    /// At most so many; 50 where it is not given, 200 at the most.
    pub limit: Option<u32>,
    /// `inference` or `evaluator`.
    pub role: Option<String>,
    /// Those of this kind.
    pub kind: Option<u16>,
    /// Those of this owner.
    pub owner: Option<String>,
}

/// A page of nodes, by number.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodePage {
    /// The nodes.
    pub items: Vec<NodeInfo>,
    /// What to ask for as `after` to get the next page; `null` at the end.
    pub next: Option<u32>,
}

/// What an evaluator's trust became.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TrustPoint {
    /// When.
    pub at: u64,
    /// By which task's opened reference; 0 for the beginning.
    pub task: u64,
    /// The trust.
    pub trust: u32,
    /// The average information gain, signed.
    pub gain_average: i64,
}

/// What a node did in a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeDayInfo {
    /// Which, counted from 1970-01-01 UTC.
    pub day: u64,
    /// Tasks that ended.
    pub tasks: u32,
    /// Of these, duties missed.
    pub missed: u32,
    /// What it earned.
    pub earned: String,
    /// What it lost of its stake.
    pub slashed: String,
    /// The mean quality of its answers, or its mean merit.
    pub mean_quality: Option<u32>,
    /// The mean cost.
    pub mean_cost: Option<u32>,
}

/// A node with what it did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeDetail {
    /// The node.
    pub node: NodeInfo,
    /// The pool that owns it, if one does.
    pub pool: Option<String>,
    /// What it has to do.
    pub duties: Vec<Duty>,
    /// Its trust, by openings of references, the latest first; at most 500.
    pub trust: Vec<TrustPoint>,
    /// Its days, the latest first; at most 366.
    pub days: Vec<NodeDayInfo>,
    /// What it earned per task that ended, in the smallest unit.
    pub earned_per_task: Option<String>,
    /// What it lost per task that ended, in the smallest unit.
    pub slashed_per_task: Option<String>,
}

/// Which of a node's tasks.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LineFilter {
    /// Those before this task.
    pub before: Option<u64>,
    /// At most so many; 50 where it is not given, 200 at the most.
    pub limit: Option<u32>,
    /// Only those in which it got nothing, or lost something.
    pub unpaid: Option<bool>,
}

impl Reads {
    /// Nodes, by number.
    ///
    /// # Errors
    /// `Invalid`, `Database`.
    pub fn nodes(&self, conn: &mut Conn, filter: &NodeFilter) -> Result<NodePage> {
        let limit = limit(filter.limit);
        let mut values: Vec<Cell> = row![filter.after.unwrap_or(0), limit.saturating_add(1)];
        let mut also = String::new();
        let mut and = |column: &str, value: Cell| {
            values.push(value);
            also += &format!(" AND {column} = ?{}", values.len());
        };
        match filter.role.as_deref() {
            None => {}
            Some(role @ ("inference" | "evaluator")) => and("role", role.into()),
            Some(other) => {
                return Err(Error::Invalid(format!("role {other:?}: inference or evaluator")));
            }
        }
        if let Some(kind) = filter.kind {
            and("kind", kind.into());
        }
        if let Some(owner) = &filter.owner {
            and("owner", self.account(owner)?.1.into());
        }
        let sql = format!("SELECT {} FROM nodes WHERE node > ?1{also} ORDER BY node LIMIT ?2", NODES.names());
        let rows = conn.query(&sql, &values)?;
        let mut items: Vec<NodeInfo> = rows.iter().map(|row| NodeInfo::of(self, row)).collect();
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > wanted;
        items.truncate(wanted);
        let next = if more { items.last().map(|node| node.node) } else { None };
        Ok(NodePage { items, next })
    }

    /// Every node that takes part or did, for comparing them: those with the most tasks first, at most 2,000.
    ///
    /// # Errors
    /// `Database`.
    pub fn leaderboard(&self, conn: &mut Conn) -> Result<Vec<NodeInfo>> {
        let sql = format!("SELECT {} FROM nodes ORDER BY tasks DESC, node LIMIT 2000", NODES.names());
        Ok(conn.query(&sql, &[])?.iter().map(|row| NodeInfo::of(self, row)).collect())
    }

    /// A node.
    ///
    /// # Errors
    /// `Absent`, `Database`.
    pub fn node(&self, conn: &mut Conn, id: NodeId) -> Result<NodeInfo> {
        let sql = format!("SELECT {} FROM nodes WHERE node = ?1", NODES.names());
        let row = conn.first(&sql, &row![id])?;
        row.map(|row| NodeInfo::of(self, &row)).ok_or_else(|| Error::Absent(format!("there is no node {id}")))
    }

    /// A node with what it did.
    ///
    /// # Errors
    /// `Absent`, `Database`.
    pub fn node_detail(&self, conn: &mut Conn, id: NodeId) -> Result<NodeDetail> {
        let node = self.node(conn, id)?;
        let pool = conn.first("SELECT pool FROM pools WHERE node = ?1", &row![id])?;
        let sql = "SELECT task, place, node, role, state, due FROM duties WHERE node = ?1 ORDER BY due, task";
        let duties = conn.query(sql, &row![id])?.iter().map(Duty::of).collect();
        let sql = "SELECT at, task, trust, gain_average FROM trust WHERE node = ?1 \
                   ORDER BY block DESC, idx DESC LIMIT 500";
        let trust = conn.query(sql, &row![id])?;
        let trust = trust.iter().map(|row| TrustPoint {
            at: row.uint(0),
            task: row.uint(1),
            trust: row.u32(2),
            gain_average: row.int(3),
        });
        let sql = "SELECT day, tasks, missed, scored, earned, slashed, quality_sum, cost_sum FROM node_days \
                   WHERE node = ?1 ORDER BY day DESC LIMIT 366";
        let days = conn.query(sql, &row![id])?;
        let days = days.iter().map(|row| NodeDayInfo {
            day: row.uint(0),
            tasks: row.u32(1),
            missed: row.u32(2),
            earned: row.text(4),
            slashed: row.text(5),
            mean_quality: mean(row.int(6), row.int(3)),
            mean_cost: mean(row.int(7), row.int(3)),
        });
        let per_task = |amount: &str| {
            let amount: u128 = amount.parse().unwrap_or(0);
            amount.checked_div(u128::from(node.tasks)).map(|amount| amount.to_string())
        };
        Ok(NodeDetail {
            pool: pool.map(|row| self.shown(&row.text(0))),
            duties,
            trust: trust.collect(),
            days: days.collect(),
            earned_per_task: per_task(&node.earned),
            slashed_per_task: per_task(&node.slashed),
            node,
        })
    }

    /// What tasks were for a node, the newest first.
    ///
    /// # Errors
    /// `Database`.
    pub fn lines(&self, conn: &mut Conn, id: NodeId, filter: &LineFilter) -> Result<Page<Line>> {
        let limit = limit(filter.limit);
        let columns = LINES.columns.iter().map(|column| format!("l.{}", column.name));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let only = match filter.unpaid {
            Some(true) => " AND (l.payout = '0' OR l.slashed <> '0')",
            _ => "",
        };
        let sql = format!(
            "SELECT {columns}, t.ending FROM lines l JOIN tasks t ON t.task = l.task \
             WHERE l.node = ?1 AND l.task < ?2{only} ORDER BY l.task DESC LIMIT ?3"
        );
        let before = filter.before.unwrap_or(i64::MAX as u64);
        let rows = conn.query(&sql, &row![id, before, limit.saturating_add(1)])?;
        let items = rows.iter().map(Line::of).collect();
        Ok(Page::cut(items, limit, |line: &Line| line.task.to_string()))
    }
}
