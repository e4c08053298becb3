//! Tasks, and the network at a glance.

use super::{limit, Page, Reads};
use crate::db::schema::{LINES, TASKS};
use crate::db::{Cell, Conn, Row};
use crate::error::{Error, Result};
use crate::ledger::Body;
use crate::row;
use crate::store::fact_of;
use poq_chain::explain::Explanation;
use poq_chain::json::ToJson;
use poq_chain::types::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use utoipa::{IntoParams, ToSchema};

/// A task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskInfo {
    /// Its number.
    pub task: u64,
    /// Its kind.
    pub kind: u16,
    /// The version of the kind's parameters.
    pub version: u32,
    /// Who pays.
    pub requester: String,
    /// What was paid into escrow.
    pub fee: String,
    /// How many answers were asked for.
    pub outputs: u32,
    /// How many evaluators there are to be.
    pub panel: u32,
    /// Whether the requester gets the answers at once.
    pub early: bool,
    /// Whether its input is in the request.
    pub inline: bool,
    /// blake2b-256 of its input.
    pub input_hash: String,
    /// Where its input is served; empty where it is in the request. From the requester: show it as text.
    pub input_url: String,
    /// The block of the request.
    pub requested_block: u32,
    /// Its time.
    pub requested_at: u64,
    /// `inferring`, `drawing`, `scoring`, `revealing`, `settled` or `refunded`, as of the last event.
    pub phase: String,
    /// Until when that phase's duties are to be done; of a final task, when it ended.
    pub deadline: u64,
    /// Evaluators that have committed.
    pub committed: u32,
    /// Evaluators that have revealed.
    pub revealed: u32,
    /// How it ended: `consensus`, `undelivered`, `unopened`, `no_secret`, `no_panel`, `below_quorum`, `input_unavailable`.
    pub ending: Option<String>,
    /// The block of its end.
    pub ended_block: Option<u32>,
    /// Its time.
    pub ended_at: Option<u64>,
    /// The consensus of its first answer that has one.
    pub quality: Option<u32>,
    /// What nodes got.
    pub paid: String,
    /// What keepers got.
    pub keepers: String,
    /// What the treasury got.
    pub treasury: String,
    /// What nobody got.
    pub burned: String,
    /// What nodes lost of their stakes.
    pub slashed: String,
    /// What the requester gets back.
    pub refund: String,
    /// The block in which its reference was opened.
    pub audited_block: Option<u32>,
    /// The block in which it was collected.
    pub collected_block: Option<u32>,
}

fn opt_u32(row: &Row, at: usize) -> Option<u32> {
    row.opt_int(at).and_then(|number| u32::try_from(number).ok())
}

impl TaskInfo {
    fn of(reads: &Reads, row: &Row) -> TaskInfo {
        TaskInfo {
            task: row.uint(0),
            kind: u16::try_from(row.int(1)).unwrap_or(0),
            version: row.u32(2),
            requester: reads.shown(&row.text(3)),
            fee: row.text(4),
            outputs: row.u32(5),
            panel: row.u32(6),
            early: row.flag(7),
            inline: row.flag(8),
            input_hash: row.text(9),
            input_url: row.text(10),
            requested_block: row.u32(11),
            requested_at: row.uint(12),
            phase: row.text(13),
            deadline: row.uint(14),
            committed: row.u32(15),
            revealed: row.u32(16),
            ending: row.opt_text(17),
            ended_block: opt_u32(row, 18),
            ended_at: row.opt_int(19).and_then(|at| u64::try_from(at).ok()),
            quality: opt_u32(row, 20),
            paid: row.text(21),
            keepers: row.text(22),
            treasury: row.text(23),
            burned: row.text(24),
            slashed: row.text(25),
            refund: row.text(26),
            audited_block: opt_u32(row, 27),
            collected_block: opt_u32(row, 28),
        }
    }
}

/// What a task was for one of its nodes, with every number of R = α·x − β·C.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Line {
    /// The task.
    pub task: u64,
    /// Its place: answers first, then seats.
    pub place: u32,
    /// The node.
    pub node: u32,
    /// `inference` or `evaluator`.
    pub role: String,
    /// What it did: `delivered`, `declined`, `unopened`, `missed`; of an evaluator `revealed`, `no_input`, `unrevealed`, `waited`,
    /// `missed`.
    pub conduct: String,
    /// The block of the task's end.
    pub block: u32,
    /// Its time.
    pub at: u64,
    /// x: the consensus of its answer, or its merit.
    pub quality: Option<u32>,
    /// C: its cost.
    pub cost: u32,
    /// R, signed.
    pub net: i64,
    /// From assignment to commitment.
    pub latency_ms: Option<u64>,
    /// What it asked for.
    pub price: String,
    /// The most that it could earn.
    pub slot: String,
    /// What it earned.
    pub payout: String,
    /// What it lost of its stake.
    pub slashed: String,
    /// Its deviation from the others.
    pub deviation: Option<u32>,
    /// Its information gain, signed.
    pub gain: Option<i64>,
    /// What its scores counted by.
    pub trust: Option<u32>,
    /// What is due to an evaluator after it: what its scores have earned and no task has paid yet, below zero what is held back.
    pub due: Option<String>,
    /// Why it was paid what it was, as a word: `paid`, or what kept it from the whole slot.
    pub reason: &'static str,
    /// How the task ended.
    pub ending: String,
}

impl Line {
    pub(super) fn of(row: &Row) -> Line {
        let mut line = Line {
            task: row.uint(0),
            place: row.u32(1),
            node: row.u32(2),
            role: row.text(3),
            conduct: row.text(4),
            block: row.u32(5),
            at: row.uint(6),
            quality: opt_u32(row, 7),
            cost: row.u32(8),
            net: row.int(9),
            latency_ms: row.opt_int(10).and_then(|ms| u64::try_from(ms).ok()),
            price: row.text(11),
            slot: row.text(12),
            payout: row.text(13),
            slashed: row.text(14),
            deviation: opt_u32(row, 15),
            gain: row.opt_int(16),
            trust: opt_u32(row, 17),
            due: row.opt_text(18),
            reason: "",
            ending: row.text(19),
        };
        line.reason = reason(&line);
        line
    }
}

/// Why a node got what it got: what `poq_core` looks at, in its order.
fn reason(line: &Line) -> &'static str {
    let (paid, slashed) = (line.payout != "0", line.slashed != "0");
    match line.conduct.as_str() {
        "missed" => "missed",
        "declined" if slashed => "declined_slashed",
        "declined" => "declined",
        "unopened" => "unopened",
        "unrevealed" => "unrevealed",
        "waited" => "waited",
        "no_input" if paid => "no_input_paid",
        "no_input" if slashed => "no_input_slashed",
        "delivered" if line.ending != "consensus" && paid => "delivered_no_consensus",
        "delivered" if line.ending != "consensus" => "delivered_unpaid",
        "delivered" if line.quality.is_none() => "no_quality",
        "delivered" if slashed && line.net >= 0 => "low_quality",
        "revealed" if line.ending != "consensus" => "no_consensus",
        "revealed" if line.quality.is_none() => "abstained",
        "revealed" if slashed && line.net >= 0 => "outlier",
        _ if line.net < 0 => "negative",
        _ if paid => "paid",
        _ => "worthless",
    }
}

/// An event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventInfo {
    /// The block.
    pub block: u32,
    /// The event within it.
    pub index: u32,
    /// The extrinsic within it.
    pub extrinsic: Option<u32>,
    /// The block's time.
    pub at: u64,
    /// Its name.
    pub name: String,
    /// Its fields. What nodes and requesters wrote is in here as they wrote it: show it as text.
    #[schema(value_type = Object)]
    pub fields: Value,
}

/// A task with all that happened to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskDetail {
    /// The task.
    pub task: TaskInfo,
    /// What it was for its nodes; empty before its end.
    pub lines: Vec<Line>,
    /// What its nodes have to do; empty after its end.
    pub duties: Vec<Duty>,
    /// Its events, in order.
    pub events: Vec<EventInfo>,
}

/// A node's duty in an open task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Duty {
    /// The task.
    pub task: u64,
    /// Its place: answers first, then seats.
    pub place: u32,
    /// The node.
    pub node: u32,
    /// `inference` or `evaluator`.
    pub role: String,
    /// `assigned`, `declined`, `committed`, `opened`; of an evaluator `drawn`, `committed`, `revealed`.
    pub state: String,
    /// Until when the present phase's duties are to be done.
    pub due: u64,
}

impl Duty {
    pub(super) fn of(row: &Row) -> Duty {
        Duty {
            task: row.uint(0),
            place: row.u32(1),
            node: row.u32(2),
            role: row.text(3),
            state: row.text(4),
            due: row.uint(5),
        }
    }
}

/// Which tasks.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TaskFilter {
    /// Those before this number.
    pub before: Option<u64>,
    /// At most so many; 50 where it is not given, 200 at the most.
    pub limit: Option<u32>,
    /// Those of this requester.
    pub requester: Option<String>,
    /// Those of this kind.
    pub kind: Option<u16>,
    /// `open`, `settled` or `refunded`.
    pub state: Option<String>,
}

impl Reads {
    /// Tasks, the newest first.
    ///
    /// # Errors
    /// `Invalid`, `Database`.
    pub fn tasks(&self, conn: &mut Conn, filter: &TaskFilter) -> Result<Page<TaskInfo>> {
        let limit = limit(filter.limit);
        let mut values: Vec<Cell> = row![filter.before.unwrap_or(i64::MAX as u64), limit.saturating_add(1)];
        let mut also = String::new();
        let mut and = |column: &str, value: Cell, values: &mut Vec<Cell>| {
            values.push(value);
            also += &format!(" AND {column} = ?{}", values.len());
        };
        if let Some(requester) = &filter.requester {
            and("requester", self.account(requester)?.1.into(), &mut values);
        }
        if let Some(kind) = filter.kind {
            and("kind", kind.into(), &mut values);
        }
        match filter.state.as_deref() {
            None => {}
            Some("settled") => and("phase", "settled".into(), &mut values),
            Some("refunded") => and("phase", "refunded".into(), &mut values),
            Some("open") => also += " AND phase IN ('inferring', 'drawing', 'scoring', 'revealing')",
            Some(other) => {
                return Err(Error::Invalid(format!("state {other:?}: open, settled or refunded")));
            }
        }
        let sql =
            format!("SELECT {} FROM tasks WHERE task < ?1{also} ORDER BY task DESC LIMIT ?2", TASKS.names());
        let rows = conn.query(&sql, &values)?;
        let items = rows.iter().map(|row| TaskInfo::of(self, row)).collect();
        Ok(Page::cut(items, limit, |task: &TaskInfo| task.task.to_string()))
    }

    /// Tasks from a number on, the oldest first.
    ///
    /// # Errors
    /// `Invalid`, `Database`.
    pub fn tasks_from(
        &self,
        conn: &mut Conn,
        requester: Option<&str>,
        from: TaskId,
        most: usize,
    ) -> Result<Vec<TaskInfo>> {
        let mut values = row![from, most];
        let mut also = "";
        if let Some(requester) = requester {
            values.push(self.account(requester)?.1.into());
            also = " AND requester = ?3";
        }
        let sql =
            format!("SELECT {} FROM tasks WHERE task >= ?1{also} ORDER BY task LIMIT ?2", TASKS.names());
        Ok(conn.query(&sql, &values)?.iter().map(|row| TaskInfo::of(self, row)).collect())
    }

    /// A task.
    ///
    /// # Errors
    /// `Absent`, `Database`.
    pub fn task(&self, conn: &mut Conn, id: TaskId) -> Result<TaskInfo> {
        let sql = format!("SELECT {} FROM tasks WHERE task = ?1", TASKS.names());
        let row = conn.first(&sql, &row![id])?;
        row.map(|row| TaskInfo::of(self, &row)).ok_or_else(|| Error::Absent(format!("there is no task {id}")))
    }

    /// A task with all that happened to it.
    ///
    /// # Errors
    /// `Absent`, `Database`.
    pub fn task_detail(&self, conn: &mut Conn, id: TaskId) -> Result<TaskDetail> {
        let task = self.task(conn, id)?;
        let sql = format!("SELECT {} FROM lines WHERE task = ?1 ORDER BY place", LINES.names());
        let ending = task.ending.clone().unwrap_or_default();
        let mut lines = Vec::new();
        for mut row in conn.query(&sql, &row![id])? {
            row.0.push(Cell::Text(ending.clone()));
            lines.push(Line::of(&row));
        }
        let sql = "SELECT task, place, node, role, state, due FROM duties WHERE task = ?1 ORDER BY place";
        let duties = conn.query(sql, &row![id])?.iter().map(Duty::of).collect();
        let sql =
            "SELECT e.block, e.idx, e.extrinsic, e.contract, e.topics, e.data, b.at FROM task_events t \
                   JOIN events e ON e.block = t.block AND e.idx = t.idx JOIN blocks b ON b.number = t.block \
                   WHERE t.task = ?1 ORDER BY t.block, t.idx";
        let events = conn.query(sql, &row![id])?;
        let events = events.iter().map(|row| self.event(row)).collect::<Result<_>>()?;
        Ok(TaskDetail { task, lines, duties, events })
    }

    /// An event from block, index, extrinsic, contract, topics, data, time.
    pub(super) fn event(&self, row: &Row) -> Result<EventInfo> {
        let fact = fact_of(&self.identity.contract, row)?;
        let fields = match &fact.body {
            Body::Core(event) => event.to_json(),
            Body::Pool(event) => event.0.to_json(),
            Body::Strange(why) => json!({ "unknown": why, "data": format!("0x{}", hex::encode(&fact.data)) }),
        };
        Ok(EventInfo {
            block: row.u32(0),
            index: fact.index,
            extrinsic: fact.extrinsic,
            at: row.uint(6),
            name: fact.name().to_owned(),
            fields: self.localised(fields),
        })
    }

    /// How a task ended, with every number of every reward, and each comparison.
    ///
    /// # Errors
    /// `Absent` where it has not ended; `Database`.
    pub fn explanation(&self, conn: &mut Conn, id: TaskId) -> Result<Explanation> {
        crate::explain::explain(conn, &self.identity, id)
    }

    /// What happened in blocks after a number: which tasks changed.
    ///
    /// # Errors
    /// `Database`.
    pub fn tasks_changed(&self, conn: &mut Conn, after: u32, most: u32) -> Result<Vec<TaskInfo>> {
        let sql = "SELECT DISTINCT task FROM task_events WHERE block > ?1 ORDER BY task DESC LIMIT ?2";
        let ids = conn.query(sql, &row![after, most])?;
        let mut tasks = Vec::new();
        for row in ids {
            if let Ok(task) = self.task(conn, row.uint(0)) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }
}

/// The network in a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Day {
    /// Which, counted from 1970-01-01 UTC.
    pub day: u64,
    /// Tasks requested.
    pub requested: u32,
    /// Tasks that ended by consensus.
    pub settled: u32,
    /// Tasks that ended otherwise.
    pub refunded: u32,
    /// Fees of requests.
    pub fees: String,
    /// Paid to nodes.
    pub paid: String,
    /// Paid to keepers.
    pub keepers: String,
    /// To the treasury.
    pub treasury: String,
    /// Burned of fees.
    pub burned: String,
    /// Slashed of stakes.
    pub slashed: String,
}

/// What the contract owes, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Owes {
    /// Stakes: bonded and on their way out.
    pub stakes: String,
    /// Fees of open tasks.
    pub escrow: String,
    /// Refunds that nobody has collected.
    pub refunds: String,
    /// Rewards that nobody has claimed, and accounts' credit.
    pub claimable: String,
    /// Auditors' bonds.
    pub bonds: String,
    /// The treasury.
    pub treasury: String,
    /// What nobody can have and has not been sent away.
    pub burned: String,
}

/// The network at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The contract's owner.
    pub owner: String,
    /// Whether new tasks are refused.
    pub paused: bool,
    /// The parameters that are not a kind's.
    #[schema(value_type = Object)]
    pub global: Value,
    /// Tasks requested.
    pub requested: u64,
    /// Tasks that ended by consensus.
    pub settled: u64,
    /// Tasks that ended otherwise.
    pub refunded: u64,
    /// Nodes registered so far.
    pub registered: u64,
    /// Inference nodes that take part.
    pub inference: u64,
    /// Evaluators that take part.
    pub evaluators: u64,
    /// All fees.
    pub fees: String,
    /// Paid to nodes.
    pub paid: String,
    /// Paid to keepers.
    pub keepers: String,
    /// Burned, of fees, stakes and bonds.
    pub burned: String,
    /// What of that left the contract for an account that nobody has.
    pub sent: String,
    /// Slashed of stakes and bonds; part of what was burned.
    pub slashed: String,
    /// To the treasury.
    pub treasury: String,
    /// Out of it.
    pub treasury_withdrawn: String,
    /// What the contract owes.
    pub owes: Owes,
    /// Events so far.
    pub events: u64,
    /// The last days in which anything happened, the latest first.
    pub days: Vec<Day>,
}

impl Reads {
    /// The network at a glance.
    ///
    /// # Errors
    /// `Absent` before the first event, `Database`.
    pub fn overview(&self, conn: &mut Conn, days: u32) -> Result<Overview> {
        let sql = "SELECT owner, paused, global, requested, settled, refunded, nodes, fees, paid, keepers, burned, sent, slashed, \
                   treasury, treasury_withdrawn, stakes, escrow, refunds, claimable, bonds, treasury_left, burned_left, events \
                   FROM totals WHERE id = 1";
        let row = conn
            .first(sql, &[])?
            .ok_or_else(|| Error::Absent("nothing has happened in this network yet".into()))?;
        let sql = "SELECT role, COUNT(*) FROM nodes WHERE status = 'active' GROUP BY role";
        let counts = conn.query(sql, &[])?;
        let count = |role: &str| counts.iter().find(|row| row.text(0) == role).map_or(0, |row| row.uint(1));
        let sql = "SELECT day, requested, settled, refunded, fees, paid, keepers, treasury, burned, slashed FROM days \
                   ORDER BY day DESC LIMIT ?1";
        let days = conn.query(sql, &row![days])?;
        Ok(Overview {
            owner: self.shown(&row.text(0)),
            paused: row.flag(1),
            global: super::stored_json(&row, 2),
            requested: row.uint(3),
            settled: row.uint(4),
            refunded: row.uint(5),
            registered: row.uint(6),
            inference: count("inference"),
            evaluators: count("evaluator"),
            fees: row.text(7),
            paid: row.text(8),
            keepers: row.text(9),
            burned: row.text(10),
            sent: row.text(11),
            slashed: row.text(12),
            treasury: row.text(13),
            treasury_withdrawn: row.text(14),
            owes: Owes {
                stakes: row.text(15),
                escrow: row.text(16),
                refunds: row.text(17),
                claimable: row.text(18),
                bonds: row.text(19),
                treasury: row.text(20),
                burned: row.text(21),
            },
            events: row.uint(22),
            days: days
                .iter()
                .map(|row| Day {
                    day: row.uint(0),
                    requested: row.u32(1),
                    settled: row.u32(2),
                    refunded: row.u32(3),
                    fees: row.text(4),
                    paid: row.text(5),
                    keepers: row.text(6),
                    treasury: row.text(7),
                    burned: row.text(8),
                    slashed: row.text(9),
                })
                .collect(),
        })
    }
}

/// A block in which something happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockDetail {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: String,
    /// Its time.
    pub at: u64,
    /// Its events: the contract's and its pools'.
    pub events: Vec<EventInfo>,
}

impl Reads {
    /// A block.
    ///
    /// # Errors
    /// `Absent` where nothing happened in it, or it was not read; `Database`.
    pub fn block(&self, conn: &mut Conn, number: u32) -> Result<BlockDetail> {
        let row = conn.first("SELECT hash, at FROM blocks WHERE number = ?1", &row![number])?;
        let absent = || Error::Absent(format!("nothing of this network happened in block {number}"));
        let row = row.ok_or_else(absent)?;
        let sql = "SELECT e.block, e.idx, e.extrinsic, e.contract, e.topics, e.data, b.at FROM events e \
                   JOIN blocks b ON b.number = e.block WHERE e.block = ?1 ORDER BY e.idx";
        let events = conn.query(sql, &row![number])?;
        let events = events.iter().map(|row| self.event(row)).collect::<Result<_>>()?;
        Ok(BlockDetail { number, hash: row.text(0), at: row.uint(1), events })
    }
}
