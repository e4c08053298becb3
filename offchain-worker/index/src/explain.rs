//! One task's end, explained from the index: the same numbers and the same functions as [`poq_chain::explain`], without a chain.
//!
//! What went in is compared with what the task's own events say, with the trust that the panel had by the openings before, and with
//! what the kind remembered: what it remembered when the task before it ended, moved on by that task's outcome. As every task is
//! compared so, all of them together prove the whole history, which is what [`mod@crate::replay`] does in one go. What no event tells is
//! said as skipped: that a reveal matches its commitment, and who had to be drawn (`poq explain` without an index compares these too,
//! where the chain still has the blocks).

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::ledger::{totals, Body, End, Facts, Ledger, Opened, Out};
use crate::replay;
use crate::row;
use crate::store::{self, Identity};
use poq_chain::explain::{node_lines, Audited, Check, Difference, Explanation, Found};
use poq_chain::types::{KindId, NodeId, Population, Ratio, TaskId, TrustState};
use poq_chain::{to_account32, Block, PoqEvent};
use poq_core::settlement::settle;
use poq_core::units::SignedBalance;
use std::collections::BTreeSet;

/// Explains a task.
///
/// # Errors
/// `Absent` where there is no such task or it has not ended; `Stored`, `Database`.
pub fn explain(conn: &mut Conn, identity: &Identity, task: TaskId) -> Result<Explanation> {
    let Some(found) = conn.first("SELECT phase, ended_block FROM tasks WHERE task = ?1", &row![task])? else {
        return Err(Error::Absent(format!("there is no task {task} in the index")));
    };
    if found.opt_int(1).is_none() {
        let phase = found.text(0);
        return Err(Error::Absent(format!("task {task} has not ended: it is {phase}")));
    }
    let (end, opened, strange) = moments(conn, identity, task)?;
    let mut checks = Checks::default();
    let event = &end.event;
    let found = replay::differences(&end);
    checks.made(replay::OUTCOME, &found);
    checks.made(replay::SUMS, &found);
    match &end.expected {
        Some(_) => checks.made(replay::INPUT, &found),
        None => checks.skipped(replay::INPUT, "the events do not tell all of it"),
    }
    checks.differences.extend(found);
    checks.made(EVENTS, &strange);
    checks.differences.extend(strange);
    if event.panel_nodes.iter().any(|node| *node != 0) {
        let why = "no event tells; `poq explain` asks the chain, where it is given without --index";
        checks.skipped("that reveals match their commitments, and that the panel was drawn rightly", why);
    }
    let mut audit = None;
    if let Some(opened) = &opened {
        let found = replay::opened_differences(opened);
        checks.made(replay::REFERENCE, &found);
        checks.made(replay::OPENING, &found);
        match &opened.expected {
            Some(_) => checks.made(replay::AUDIT_INPUT, &found),
            None => checks.skipped(replay::AUDIT_INPUT, "the events do not tell all of it"),
        }
        checks.differences.extend(found);
        audit = Some(Audited {
            block: block_of(opened.block),
            auditor: to_account32(&opened.event.auditor),
            opening: opened.event.opening.clone(),
        });
    }
    let params = end.params.as_deref();
    let trusted = opened.as_ref().map(|opened| &opened.event.audit.panel[..]);
    Ok(Explanation {
        task,
        contract: identity.contract,
        requester: to_account32(&event.requester),
        kind: event.kind,
        version: event.version,
        block: block_of(end.block),
        ending: event.settlement.ending,
        nodes: params.map(|params| node_lines(params, event, trusted)).unwrap_or_default(),
        recomputed: params.and_then(|params| settle(params, &event.input)),
        params: params.cloned(),
        input: event.input.clone(),
        recorded: event.settlement.clone(),
        totals: totals(event),
        audit,
        checks: checks.checks,
        differences: checks.differences,
    })
}

const EVENTS: &str = "its events, against what the protocol allows";

fn block_of(block: crate::ledger::Block) -> Block {
    Block { number: block.number, hash: block.hash, timestamp_ms: block.at }
}

#[derive(Default)]
struct Checks {
    checks: Vec<Check>,
    differences: Vec<Difference>,
}

impl Checks {
    fn made(&mut self, check: &str, found: &[Difference]) {
        let differs = found.iter().any(|difference| difference.check == check);
        let found = if differs { Found::Differs } else { Found::Agrees };
        self.checks.push(Check { what: check.to_owned(), found });
    }

    fn skipped(&mut self, check: &str, why: &str) {
        self.checks.push(Check { what: check.to_owned(), found: Found::Skipped(why.to_owned()) });
    }
}

/// A place in the history: a block and an event in it.
type Place = (u32, u32);

/// A task's end and the opening of its reference, with what must have gone into them; and what of its events the protocol does not
/// allow.
///
/// Books are moved on by what bears on this task alone: its own events, the registrations of its nodes, its kind's parameters. Trust and
/// what the kind remembered are put in from the events that made them.
fn moments(
    conn: &mut Conn,
    identity: &Identity,
    task: TaskId,
) -> Result<(End, Option<Opened>, Vec<Difference>)> {
    let birth = store::birth(conn, identity)?.ok_or_else(|| Error::Absent("the index is empty".into()))?;
    let absent = || Error::Absent(format!("the end of task {task} is not among its events"));
    let row =
        conn.first("SELECT kind, version FROM tasks WHERE task = ?1", &row![task])?.ok_or_else(absent)?;
    let (kind, version) = (u16::try_from(row.int(0)).unwrap_or(0), row.u32(1));
    let sql = "SELECT block, idx FROM task_events WHERE task = ?1 ORDER BY block, idx";
    let own: BTreeSet<Place> =
        conn.query(sql, &row![task])?.iter().map(|row| (row.u32(0), row.u32(1))).collect();
    let sql = "SELECT DISTINCT node FROM lines WHERE task = ?1";
    let nodes: BTreeSet<NodeId> = conn.query(sql, &row![task])?.iter().map(|row| row.u32(0)).collect();
    let mut blocks: BTreeSet<u32> = own.iter().map(|(block, _)| *block).collect();
    let sql = "SELECT block FROM kinds WHERE kind = ?1 AND version <= ?2";
    blocks.extend(conn.query(sql, &row![kind, version])?.iter().map(|row| row.u32(0)));
    let last = blocks.last().copied().unwrap_or(0);
    for node in &nodes {
        let sql = "SELECT registered_block FROM nodes WHERE node = ?1";
        blocks.extend(conn.query(sql, &row![*node])?.iter().map(|row| row.u32(0)));
        let sql = "SELECT block FROM reads WHERE what = 'node' AND id = ?1 AND block <= ?2";
        let configured = conn.query(sql, &row![node.to_string(), last])?;
        blocks.extend(configured.iter().map(|row| row.u32(0)));
    }
    let mut ledger = Ledger::new(&birth);
    let mut out = Out::default();
    for number in blocks {
        for mut facts in store::between(conn, &identity.contract, number, number)? {
            bearing(&mut facts, &own, &nodes, kind);
            ledger.apply(&facts, &mut out);
        }
    }
    let mut end = out.ends.into_iter().find(|end| end.event.task == task).ok_or_else(absent)?;
    let mut opened = out.opened.into_iter().find(|opened| opened.event.task == task);
    if let Some(expected) = &mut end.expected {
        let place = (end.block.number, end.index);
        expected.population = population(conn, identity, kind, place)?;
        for (seat, node) in expected.panel.iter_mut().zip(&end.event.panel_nodes).filter(|(_, n)| **n != 0) {
            seat.trust = trust(conn, &ledger, *node, place)?.trust;
            seat.due = due(conn, identity, *node, place)?;
        }
    }
    if let Some(opened) = &mut opened {
        if let Some(expected) = &mut opened.expected {
            let place = (opened.block.number, opened.index);
            expected.population = population(conn, identity, kind, place)?;
            for (state, node) in expected.panel.iter_mut().zip(&opened.panel).filter(|(_, n)| **n != 0) {
                *state = trust(conn, &ledger, *node, place)?;
            }
        }
    }
    let strange = out.strange.into_iter().filter(|finding| finding.task == Some(task));
    let strange = strange
        .map(|f| Difference { check: EVENTS.into(), what: f.what, expected: f.expected, found: f.found })
        .collect();
    Ok((end, opened, strange))
}

/// Leaves of a block what bears on a task.
fn bearing(facts: &mut Facts, own: &BTreeSet<Place>, nodes: &BTreeSet<NodeId>, kind: KindId) {
    let number = facts.block.number;
    facts.events.retain(|fact| match &fact.body {
        Body::Core(PoqEvent::NodeRegistered(e)) => nodes.contains(&e.node),
        Body::Core(PoqEvent::NodeChanged(e)) => nodes.contains(&e.node),
        Body::Core(PoqEvent::KindSet(e)) => e.kind == kind,
        _ => own.contains(&(number, fact.index)),
    });
}

/// What a member of a panel was trusted before an event.
fn trust(conn: &mut Conn, ledger: &Ledger, node: NodeId, (block, index): Place) -> Result<TrustState> {
    let sql = "SELECT trust, gain_average FROM trust WHERE node = ?1 AND (block < ?2 OR (block = ?2 AND idx < ?3)) \
               ORDER BY block DESC, idx DESC LIMIT 1";
    Ok(match conn.first(sql, &row![node, block, index])? {
        Some(row) => TrustState { trust: Ratio::from_ppb(row.u32(0)), gain_average: row.int(1) },
        None => registered_trust(conn, ledger, node)?,
    })
}

/// What was due to a member of a panel before an event: what the end before it left, of whichever task.
fn due(conn: &mut Conn, identity: &Identity, node: NodeId, before: Place) -> Result<SignedBalance> {
    let sql = "SELECT DISTINCT block FROM lines WHERE node = ?1 AND block <= ?2 ORDER BY block DESC LIMIT 2";
    let blocks: Vec<u32> = conn.query(sql, &row![node, before.0])?.iter().map(|row| row.u32(0)).collect();
    for number in blocks {
        let mut left = None;
        for facts in store::between(conn, &identity.contract, number, number)? {
            for fact in facts.events.iter().filter(|fact| (number, fact.index) < before) {
                if let Body::Core(PoqEvent::TaskClosed(e)) = &fact.body {
                    let seat = e.panel_nodes.iter().position(|other| *other == node);
                    left = seat.and_then(|seat| e.settlement.panel.get(seat)).map(|seat| seat.due).or(left);
                }
            }
        }
        if let Some(left) = left {
            return Ok(left);
        }
    }
    Ok(0)
}

/// What an evaluator is trusted when it registers: what its kind's newest parameters said then.
fn registered_trust(conn: &mut Conn, ledger: &Ledger, node: NodeId) -> Result<TrustState> {
    let Some(book) = ledger.nodes.get(&node) else { return Ok(TrustState::default()) };
    let sql = "SELECT params FROM kinds WHERE kind = ?1 AND block <= ?2 ORDER BY version DESC LIMIT 1";
    let params = conn.first(sql, &row![book.node.kind, book.registered])?.map(|row| row.text(0));
    let params = params.and_then(|text| serde_json::from_str::<poq_chain::types::KindParams>(&text).ok());
    let trust = match book.node.role {
        poq_chain::types::Role::Inference => Ratio::ONE,
        poq_chain::types::Role::Evaluator => params.map_or(Ratio::ZERO, |params| params.trust_initial),
    };
    Ok(TrustState { trust, gain_average: 0 })
}

/// What a kind remembered before an event: what had gone into the end before it, moved on by that end's outcome; its average gain by the
/// last opening since.
fn population(conn: &mut Conn, identity: &Identity, kind: KindId, before: Place) -> Result<Population> {
    let mut closed = None;
    for number in last_blocks(conn, "ended_block", kind, before)? {
        for facts in store::between(conn, &identity.contract, number, number)? {
            for fact in facts.events.into_iter().filter(|fact| (number, fact.index) < before) {
                match fact.body {
                    Body::Core(PoqEvent::TaskClosed(e)) if e.kind == kind => {
                        closed = Some((facts.block, (number, fact.index), e));
                    }
                    _ => {}
                }
            }
        }
        if closed.is_some() {
            break;
        }
    }
    let params = |conn: &mut Conn, version: u32| -> Result<poq_chain::types::KindParams> {
        let sql = "SELECT params FROM kinds WHERE kind = ?1 AND version = ?2";
        let text = conn.first(sql, &row![kind, version])?.map(|row| row.text(0)).unwrap_or_default();
        serde_json::from_str(&text).map_err(|error| Error::Stored {
            block: before.0,
            index: before.1,
            reason: format!("version {version} of the parameters of kind {kind}: {error}"),
        })
    };
    let (mut population, since) = match closed {
        Some((block, place, e)) => {
            let mut population = e.input.population.clone();
            population.absorb(&params(conn, e.version)?, &e.settlement, &e.seed, block.at);
            (population, place)
        }
        None => (Population::new(&params(conn, 1)?), (0, 0)),
    };
    let mut gain = None;
    for number in last_blocks(conn, "audited_block", kind, before)? {
        for facts in store::between(conn, &identity.contract, number, number)? {
            let places = facts.events.into_iter().map(|fact| ((number, fact.index), fact));
            for (_, fact) in places.filter(|(place, _)| *place < before && *place > since) {
                if let Body::Core(PoqEvent::TaskAudited(e)) = fact.body {
                    let sql = "SELECT kind FROM tasks WHERE task = ?1";
                    let of = conn.first(sql, &row![e.task])?.map_or(-1, |row| row.int(0));
                    if of == i64::from(kind) {
                        gain = Some(e.audit.gain_average);
                    }
                }
            }
        }
        if gain.is_some() {
            break;
        }
    }
    population.gain_average = gain.unwrap_or(population.gain_average);
    Ok(population)
}

/// The last two blocks in which something happened to tasks of a kind, the later one first: one of them may be the event's own.
fn last_blocks(conn: &mut Conn, column: &str, kind: KindId, before: Place) -> Result<Vec<u32>> {
    let sql = format!(
        "SELECT DISTINCT {column} FROM tasks WHERE kind = ?1 AND {column} <= ?2 ORDER BY {column} DESC LIMIT 2"
    );
    Ok(conn.query(&sql, &row![kind, before.0])?.iter().map(|row| row.u32(0)).collect())
}
