//! Every settlement of a history computed again, and compared to the unit.
//!
//! The stored events are gone through in order. The books of [`crate::ledger`], moved on by `poq-core`'s own transitions, say what must
//! have gone into each settlement: who answered when, who scored what, what everybody was trusted and the kind remembered at that
//! moment, what keepers had got. `poq_core::settlement::settle` says what must have come out. Both are compared with what the chain said,
//! number by number, and so is what the index derived from it: the lines of each node, the tasks, and in the end every node, account
//! and sum.
//!
//! What this cannot see, because no event tells it, is in [`mod@crate::explain`]'s comparison with a chain: that a reveal matches its
//! commitment, and who had to be drawn.

use crate::db::schema::{self, Table};
use crate::db::{Cell, Conn};
use crate::error::Result;
use crate::ledger::{Block, End, Finding, Ledger, Opened, Out};
use crate::rows::{line_rows, present, task_row, Rows};
use crate::store::{self, Identity};
use crate::{dump, row};
use poq_chain::explain::{diff, Difference};
use poq_chain::json::ToJson;
use poq_chain::types::{Balance, Liabilities, NodeView, Settlement};
use poq_chain::{commit, Client};
use poq_core::settlement::{audit, settle};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// How many events are gone through at a time.
const PAGE: usize = 20_000;

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The last block.
    pub block: Option<Block>,
    /// Events gone through.
    pub events: u64,
    /// Settlements computed again: ends of every kind.
    pub settlements: u64,
    /// Opened references computed again.
    pub references: u64,
    /// What differs, the first one first; at most as many as were asked for.
    pub differences: Vec<Finding>,
    /// How many differences there are.
    pub different: u64,
}

impl Report {
    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.different == 0
    }

    fn found(&mut self, mut findings: Vec<Finding>, most: usize) {
        self.different = self.different.saturating_add(findings.len() as u64);
        findings.truncate(most.saturating_sub(self.differences.len()));
        self.differences.append(&mut findings);
    }
}

/// Goes through a whole history, on one state of the database; keeps at most `most` differences. `told` hears of every page: the last
/// block of it and the settlements so far. Returns the books at the end, too.
///
/// # Errors
/// `Empty`, `Stored` for what cannot be read at all, `Database`.
pub fn replay(
    conn: &mut Conn,
    identity: &Identity,
    most: usize,
    mut told: impl FnMut(Block, u64),
) -> Result<(Report, Ledger)> {
    conn.snapshot(|conn| {
        let birth = store::birth(conn, identity)?.ok_or_else(|| crate::Error::Empty {
            database: "(nothing has been read of the chain yet)".into(),
        })?;
        let mut ledger = Ledger::new(&birth);
        let mut report = Report { block: Some(birth.block), ..Report::default() };
        let mut from = birth.block.number;
        loop {
            let page = store::stored(conn, &identity.contract, from, PAGE)?;
            let Some(last) = page.last().map(|facts| facts.block) else { break };
            let mut out = Out::default();
            page.iter().for_each(|facts| ledger.apply(facts, &mut out));
            let mut findings = std::mem::take(&mut out.strange);
            findings.par_extend(out.ends.par_iter().flat_map_iter(check_end));
            findings.par_extend(out.opened.par_iter().flat_map_iter(check_opened));
            findings.extend(check_tables(conn, &ledger, &out.ends, (from, last.number))?);
            findings.sort_by_key(|finding| (finding.block, finding.index));
            report.events = ledger.sums.events;
            report.settlements = report.settlements.saturating_add(out.ends.len() as u64);
            report.references = report.references.saturating_add(out.opened.len() as u64);
            report.block = Some(last);
            report.found(findings, most);
            ledger.forget(last.at);
            told(last, report.settlements);
            from = last.number.saturating_add(1);
        }
        let findings = check_present(conn, &ledger, report.block.unwrap_or(birth.block))?;
        report.found(findings, most);
        Ok((report, ledger))
    })
}

fn finding(block: Block, index: u32, task: u64, difference: Difference) -> Finding {
    let Difference { check, what, expected, found } = difference;
    Finding { block: block.number, index, task: Some(task), check, what, expected, found }
}

fn compare<T: ToJson + PartialEq>(check: &str, expected: &T, found: &T, out: &mut Vec<Difference>) {
    // The numbers are spelt out only where they differ.
    if expected != found {
        diff(check, "", &expected.to_json(), &found.to_json(), out);
        if out.is_empty() {
            // A difference that has no form in JSON is one all the same.
            out.push(Difference {
                check: check.to_owned(),
                what: String::new(),
                expected: expected.to_json(),
                found: found.to_json(),
            });
        }
    }
}

pub(crate) const OUTCOME: &str = "the outcome, computed again from what went in";
pub(crate) const SUMS: &str = "the sums";
pub(crate) const INPUT: &str = "what went in, against what had happened before";
pub(crate) const AUDIT_INPUT: &str = "what went into the opened reference, against what had happened before";
pub(crate) const REFERENCE: &str = "what the opened reference moves, computed again from what went in";
pub(crate) const OPENING: &str = "what the auditor opened, against what was delivered";

/// What differs in a task's end.
pub(crate) fn differences(end: &End) -> Vec<Difference> {
    let mut out = Vec::new();
    let event = &end.event;
    match &end.params {
        Some(params) => {
            let recomputed: Option<Settlement> = settle(params, &event.input);
            let mut found = Vec::new();
            compare(OUTCOME, &recomputed, &Some(event.settlement.clone()), &mut found);
            out.append(&mut found);
        }
        None => out.push(Difference {
            check: OUTCOME.into(),
            what: "version".into(),
            expected: json!("a version of the kind's parameters"),
            found: json!(event.version),
        }),
    }
    out.extend(sums(end));
    if let Some(expected) = &end.expected {
        let mut found = Vec::new();
        compare(INPUT, expected, &event.input, &mut found);
        out.append(&mut found);
    }
    if let Some(record) = &end.record {
        let expected = json!({
            "requester": record.requester.to_json(),
            "kind": record.kind,
            "version": record.version,
            "seed": record.seed.to_json(),
            "output_nodes": record.outputs,
            "panel_nodes": record.panel,
        });
        let found = json!({
            "requester": event.requester.to_json(),
            "kind": event.kind,
            "version": event.version,
            "seed": event.seed.to_json(),
            "output_nodes": event.output_nodes,
            "panel_nodes": event.panel_nodes,
        });
        diff(INPUT, "task", &expected, &found, &mut out);
    }
    out
}

/// Paid + keepers + treasury + burned + refund = fee, and Σ slashed = slashed.
pub(crate) fn sums(end: &End) -> Vec<Difference> {
    let Settlement { outputs, panel, treasury, burned, slashed, refund, .. } = &end.event.settlement;
    let all = outputs.iter().map(|o| (o.payout, o.slashed));
    let all = all.chain(panel.iter().map(|e| (e.payout, e.slashed)));
    let (paid, lost) = all.fold((0u128, 0u128), |(paid, lost), (payout, slashed)| {
        (paid.saturating_add(payout), lost.saturating_add(slashed))
    });
    let input = &end.event.input;
    let spent =
        [paid, input.keepers, *treasury, *burned, *refund].into_iter().fold(0, Balance::saturating_add);
    let mut out = Vec::new();
    if (spent, *slashed) != (input.fee, lost) {
        let expected = json!({ "fee": input.fee.to_json(), "slashed": lost.to_json() });
        let found = json!({ "fee": spent.to_json(), "slashed": slashed.to_json() });
        diff(SUMS, "", &expected, &found, &mut out);
    }
    out
}

fn check_end(end: &End) -> Vec<Finding> {
    differences(end).into_iter().map(|found| finding(end.block, end.index, end.event.task, found)).collect()
}

/// What differs in an opened reference.
pub(crate) fn opened_differences(opened: &Opened) -> Vec<Difference> {
    let mut out = Vec::new();
    let event = &opened.event;
    match &opened.params {
        Some(params) => compare(REFERENCE, &audit(params, &event.input), &event.audit, &mut out),
        None => out.push(Difference {
            check: REFERENCE.into(),
            what: "task".into(),
            expected: json!("a settled task"),
            found: json!(event.task),
        }),
    }
    if let Some(expected) = &opened.expected {
        let mut found = Vec::new();
        compare(AUDIT_INPUT, expected, &event.input, &mut found);
        out.append(&mut found);
        diff(AUDIT_INPUT, "panel_nodes", &json!(opened.panel), &json!(event.panel_nodes), &mut out);
    }
    for (place, (text, hash)) in event.opening.outputs.iter().zip(&opened.hashes).enumerate() {
        if let (Some(text), Some(hash)) = (text, hash) {
            let found = commit::blake2(text);
            diff(OPENING, &format!("outputs[{place}]"), &hash.to_json(), &found.to_json(), &mut out);
        }
    }
    out
}

fn check_opened(opened: &Opened) -> Vec<Finding> {
    let to_finding = |found| finding(opened.block, opened.index, opened.event.task, found);
    opened_differences(opened).into_iter().map(to_finding).collect()
}

/// What a table's rows have that they must not, and lack that they must have. `ignored` are columns that change later.
fn differing(
    table: &Table,
    mut expected: Rows,
    mut found: Rows,
    ignored: &[&str],
    place: impl Fn(&[Cell]) -> (u32, u32, Option<u64>),
) -> Vec<Finding> {
    let check = format!("the table {}, against what the events say", table.name);
    let key = |row: &Vec<Cell>| row.iter().take(table.key).cloned().collect::<Vec<_>>();
    expected.sort_by_cached_key(&key);
    found.sort_by_cached_key(&key);
    let mut found: BTreeMap<Vec<Cell>, Vec<Cell>> = found.into_iter().map(|row| (key(&row), row)).collect();
    let mut out = Vec::new();
    let mut tell = |row: &[Cell], what: String, expected: Value, is: Value| {
        let (block, index, task) = place(row);
        out.push(Finding { block, index, task, check: check.clone(), what, expected, found: is });
    };
    let shown = |row: &[Cell]| dump::line(row.get(..table.key).unwrap_or(row));
    for row in expected {
        match found.remove(&key(&row)) {
            None => tell(&row, shown(&row), json!("a row"), json!("none")),
            Some(other) => {
                for ((column, must), is) in table.columns.iter().zip(&row).zip(&other) {
                    if must != is && !ignored.contains(&column.name) {
                        let what = format!("{} {}", shown(&row), column.name);
                        tell(&row, what, cell_json(must), cell_json(is));
                    }
                }
            }
        }
    }
    for row in found.values() {
        tell(row, shown(row), json!("none"), json!("a row"));
    }
    out
}

fn cell_json(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(value) => json!(value),
        Cell::Text(value) => json!(value),
        Cell::Blob(value) => json!(hex::encode(value)),
    }
}

/// Lines and tasks of what ended in these blocks, as the index has them.
fn check_tables(
    conn: &mut Conn,
    ledger: &Ledger,
    ends: &[End],
    (from, to): (u32, u32),
) -> Result<Vec<Finding>> {
    let select = |table: &Table, column: &str| {
        format!("SELECT {} FROM {} WHERE {column} BETWEEN ?1 AND ?2", table.names(), table.name)
    };
    let places: BTreeMap<u64, (u32, u32)> =
        ends.iter().map(|end| (end.event.task, (end.block.number, end.index))).collect();
    let number = |row: &[Cell], at: Option<usize>| match at.and_then(|at| row.get(at)) {
        Some(Cell::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    let place_in = |table: &'static Table, column: &'static str| {
        let at = table.columns.iter().position(|other| other.name == column);
        let places = &places;
        move |row: &[Cell]| {
            let task = number(row, Some(0));
            // A row that no event speaks of comes after those of its block that one does.
            let unknown = (u32::try_from(number(row, at)).unwrap_or(from), u32::MAX);
            let (block, index) = places.get(&task).copied().unwrap_or(unknown);
            (block, index, Some(task))
        }
    };
    let mut rows = |table: &Table, column: &str| -> Result<Rows> {
        let found = conn.query(&select(table, column), &row![from, to])?;
        Ok(found.into_iter().map(|row| row.0).collect())
    };
    let lines: Rows = ends.iter().flat_map(line_rows).collect();
    let mut out = differing(
        &schema::LINES,
        lines,
        rows(&schema::LINES, "block")?,
        &[],
        place_in(&schema::LINES, "block"),
    );
    let tasks = ends.iter().filter_map(|end| {
        let id = end.event.task;
        Some(task_row(id, ledger.tasks.get(&id)?))
    });
    // What can still happen to a task that has ended.
    let later = ["audited_block", "collected_block"];
    let found = rows(&schema::TASKS, "ended_block")?;
    let place = place_in(&schema::TASKS, "ended_block");
    out.extend(differing(&schema::TASKS, tasks.collect(), found, &later, place));
    Ok(out)
}

/// What the index holds in the end, against the books.
fn check_present(conn: &mut Conn, ledger: &Ledger, block: Block) -> Result<Vec<Finding>> {
    let mut out = Vec::new();
    let whole = [
        schema::NODES.name,
        schema::ACCOUNTS.name,
        schema::POPULATIONS.name,
        schema::AUDITORS.name,
        schema::POOLS.name,
        schema::MEMBERS.name,
        schema::TOTALS.name,
    ];
    let mut expected = present(ledger).rows;
    for table in schema::TABLES.iter().filter(|table| whole.contains(&table.name)) {
        let at = expected.iter().position(|(other, _)| other.name == table.name);
        let rows = at.map(|at| expected.swap_remove(at).1).unwrap_or_default();
        let sql = format!("SELECT {} FROM {}", table.names(), table.name);
        let found = conn.query(&sql, &[])?.into_iter().map(|row| row.0).collect();
        out.extend(differing(table, rows, found, &[], |_| (block.number, 0, None)));
    }
    Ok(out)
}

/// Compares the books with the chain's own records in the block that they are of: every node and what the contract owes. Needs the
/// block's state.
///
/// # Errors
/// Where the node cannot be asked.
pub async fn against_chain(client: &Client, ledger: &Ledger, block: Block) -> Result<Vec<Finding>> {
    let view = client.view_at(block.hash).await?;
    let mut found = Vec::new();
    let overview = view.overview().await?;
    let check = "the books, against the chain's own";
    diff(check, "owes", &owed(&overview.liabilities), &owed(&ledger.owes), &mut found);
    let nodes: Vec<NodeView> = view.all_nodes().await?;
    let live = |id: &&u32| ledger.nodes.get(id).is_some_and(|book| !book.gone);
    let ours: Vec<u32> = ledger.nodes.keys().filter(live).copied().collect();
    let theirs: Vec<u32> = nodes.iter().map(|view| view.id).collect();
    diff(check, "nodes", &json!(theirs), &json!(ours), &mut found);
    for theirs in &nodes {
        if let Some(ours) = ledger.nodes.get(&theirs.id) {
            let mut expected = theirs.node.to_json();
            let mut is = ours.node.to_json();
            for node in [&mut expected, &mut is] {
                // Where a node stands in the draws, no event tells; and which of its slots a task has, nobody needs to know.
                if let Some(fields) = node.as_object_mut() {
                    fields.remove("standing");
                    if let Some(open) = fields.get_mut("open").and_then(Value::as_array_mut) {
                        open.sort_by_key(Value::as_u64);
                    }
                }
            }
            diff(check, &format!("node {}", theirs.id), &expected, &is, &mut found);
        }
    }
    Ok(found
        .into_iter()
        .map(|Difference { check, what, expected, found }| Finding {
            block: block.number,
            index: 0,
            task: None,
            check,
            what,
            expected,
            found,
        })
        .collect())
}

fn owed(owes: &Liabilities) -> Value {
    owes.to_json()
}
