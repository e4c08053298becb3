//! Made-up histories in SQLite: the same database whatever the way there, every settlement computed again, every altered unit found.

use parity_scale_codec::Encode;
use poq_chain::events::TaskClosed;
use poq_chain::json::ToJson;
use poq_chain::types::{Ending, Settlement, SettlementInput};
use poq_chain::PoqEvent;
use poq_index::db::{schema, Access, Cell, Conn, Target};
use poq_index::ledger::{Body, Facts};
use poq_index::replay::replay;
use poq_index::synthetic::{birth, identity, Plan, Synthetic};
use poq_index::{dump, explain, row, Store};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// A history in which everything happens.
pub(crate) fn plan() -> Plan {
    Plan { tasks: 120, failing: 400, open: 6, ..Plan::default() }
}

pub(crate) fn made(plan: &Plan) -> Vec<Facts> {
    Synthetic::new(plan.clone()).collect()
}

fn target(folder: &Path, name: &str) -> Target {
    Target::Sqlite(folder.join(name))
}

/// Writes blocks in batches of a size.
pub(crate) fn write(target: &Target, blocks: &[Facts], batch: usize) -> Store {
    let mut store = Store::open(target, &identity()).unwrap();
    store.begin(&birth()).unwrap();
    for chunk in blocks.chunks(batch) {
        store.append(chunk, chunk.last().unwrap().block).unwrap();
    }
    store
}

pub(crate) fn digest(store: &mut Store) -> dump::Digests {
    dump::digests(store.conn()).unwrap()
}

fn strange(store: &mut Store) -> Vec<String> {
    let rows = store.conn().query("SELECT what FROM strange", &[]).unwrap();
    rows.iter().map(|row| row.text(0)).collect()
}

#[test]
fn a_history_is_the_same_database_whatever_the_way_there() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = made(&plan());
    let mut whole = write(&target(folder.path(), "whole"), &blocks, 10_000);
    assert_eq!(strange(&mut whole), Vec::<String>::new());
    let expected = digest(&mut whole);
    assert!(expected.tables.iter().all(|table| table.rows > 0 || table.table == "strange"), "{expected:#?}");

    // Block by block, stopped and opened again in between.
    let path = target(folder.path(), "pieces");
    drop(write(&path, &blocks[..30], 1));
    for piece in blocks[30..].chunks(100) {
        let mut store = Store::open(&path, &identity()).unwrap();
        for block in piece {
            store.append(std::slice::from_ref(block), block.block).unwrap();
        }
    }
    let mut pieces = Store::open(&path, &identity()).unwrap();
    assert_eq!(digest(&mut pieces), expected);

    // Everything that follows from the events made anew.
    pieces.rebuild().unwrap();
    assert_eq!(digest(&mut pieces), expected);

    // A part undone and read again; and all of it.
    for keep in [40, 0] {
        let common = (keep > 0).then(|| blocks[keep - 1].block);
        pieces.undo_to(common).unwrap();
        if keep > 0 {
            let mut short = write(&target(folder.path(), "short"), &blocks[..keep], 7);
            assert_eq!(digest(&mut pieces), digest(&mut short));
        } else {
            pieces.begin(&birth()).unwrap();
        }
        pieces.append(&blocks[keep..], blocks.last().unwrap().block).unwrap();
        assert_eq!(digest(&mut pieces), expected);
    }
    let mut lines = 0;
    dump::dump(pieces.conn(), |_| lines += 1).unwrap();
    let rows: u64 = expected.tables.iter().map(|table| table.rows + 1).sum();
    assert_eq!(lines, rows);
}

#[test]
fn two_writers_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = made(&Plan { tasks: 16, ..Plan::default() });
    let path = target(folder.path(), "index");
    let mut one = write(&path, &blocks[..4], 4);
    let mut two = Store::open(&path, &identity()).unwrap();
    one.append(&blocks[4..6], blocks[5].block).unwrap();
    let refused = two.append(&blocks[4..7], blocks[6].block).unwrap_err();
    assert!(refused.to_string().contains("another `poq index` writes"), "{refused}");
    // What was refused has left nothing, in the file or in its books.
    one.append(&blocks[6..], blocks.last().unwrap().block).unwrap();
    let mut fresh = write(&target(folder.path(), "fresh"), &blocks, 3);
    assert_eq!(digest(&mut one), digest(&mut fresh));

    let mut other = identity();
    other.genesis = poq_chain::H256([9; 32]);
    let refused = Store::open(&path, &other).err().unwrap();
    assert!(refused.to_string().contains("use another database"), "{refused}");
}

#[test]
fn whoever_reads_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    drop(write(&path, &made(&Plan { tasks: 8, ..Plan::default() }), 100));
    let mut conn = Conn::open(&path, Access::Read).unwrap();
    assert!(conn.query("SELECT COUNT(*) FROM tasks", &[]).unwrap()[0].int(0) > 0);
    for sql in
        ["DELETE FROM tasks", "UPDATE tip SET number = 0", "DROP TABLE events", "CREATE TABLE x (y INTEGER)"]
    {
        assert!(conn.execute(sql, &[]).is_err(), "{sql}");
    }
}

#[test]
fn every_settlement_is_computed_again_and_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let blocks = made(&plan());
    let endings: BTreeSet<String> =
        ends(&blocks).iter().map(|e| format!("{:?}", e.settlement.ending)).collect();
    let all = [
        Ending::Consensus,
        Ending::Undelivered,
        Ending::Unopened,
        Ending::NoSecret,
        Ending::NoPanel,
        Ending::BelowQuorum,
        Ending::InputUnavailable,
    ];
    assert_eq!(endings, all.iter().map(|ending| format!("{ending:?}")).collect());
    let mut store = write(&path, &blocks, 50);
    let (report, ledger) = replay(store.conn(), &identity(), 10, |_, _| {}).unwrap();
    assert!(report.agrees(), "{:#?}", report.differences);
    assert_eq!(report.settlements, ends(&blocks).len() as u64);
    assert!(report.settlements > 100 && report.references > 5, "{report:?}");
    // What the contract owes is what the books say: nothing is left over, nothing is missing.
    let sums = ledger.sums;
    let open: u128 = ledger.tasks.values().filter(|b| b.totals.is_none()).map(|b| b.task.fee).sum();
    assert_eq!(ledger.owes.escrow, open);
    let spent = sums.paid + sums.keepers + sums.treasury + (sums.burned - sums.slashed);
    let refunded: u128 = ends(&blocks).iter().map(|e| e.settlement.refund).sum();
    assert!(spent + refunded + open >= sums.fees, "vacated seats and bonds are burned on top");
}

fn ends(blocks: &[Facts]) -> Vec<&TaskClosed> {
    let events = blocks.iter().flat_map(|facts| &facts.events);
    events
        .filter_map(|fact| match &fact.body {
            Body::Core(PoqEvent::TaskClosed(e)) => Some(&**e),
            _ => None,
        })
        .collect()
}

/// Every number, and every choice, in a value, by its path; each time the value with that one moved by a unit or to another choice.
fn altered(value: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let mut below = Vec::new();
                    walk(inner, &format!("{path}.{key}"), &mut below);
                    for (path, new) in below {
                        let mut map = map.clone();
                        map.insert(key.clone(), new);
                        out.push((path, Value::Object(map)));
                    }
                }
            }
            Value::Array(list) => {
                for (place, inner) in list.iter().enumerate() {
                    let mut below = Vec::new();
                    walk(inner, &format!("{path}[{place}]"), &mut below);
                    for (path, new) in below {
                        let mut list = list.clone();
                        list[place] = new;
                        out.push((path, Value::Array(list)));
                    }
                }
            }
            Value::Bool(flag) => out.push((path.to_owned(), Value::Bool(!flag))),
            Value::Number(number) => {
                let number = number.as_i64().unwrap();
                let moved = if number >= 1_000_000_000 { number - 1 } else { number + 1 };
                out.push((path.to_owned(), Value::from(moved)));
            }
            Value::String(text) => {
                // An amount, or the name of a choice.
                if let Ok(amount) = text.parse::<u128>() {
                    out.push((path.to_owned(), Value::from((amount + 1).to_string())));
                } else {
                    for other in ["consensus", "undelivered", "missed", "declined", "unrevealed", "waited"] {
                        if other != text {
                            out.push((path.to_owned(), Value::from(other)));
                        }
                    }
                }
            }
            Value::Null => out.push((path.to_owned(), Value::from(1))),
        }
    }
    let mut out = Vec::new();
    walk(value, "", &mut out);
    out
}

#[test]
fn one_altered_unit_in_any_field_of_a_settlement_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let blocks = made(&Plan { tasks: 24, failing: 300, ..Plan::default() });
    let mut store = write(&path, &blocks, 50);
    // One of each ending, the one with the most in it.
    let mut chosen: Vec<(u32, u32, &TaskClosed)> = Vec::new();
    for facts in &blocks {
        for fact in &facts.events {
            if let Body::Core(PoqEvent::TaskClosed(e)) = &fact.body {
                let known = chosen.iter().any(|(_, _, o)| o.settlement.ending == e.settlement.ending);
                if !known && facts.block.number > 30 || (!known && e.settlement.ending != Ending::Consensus) {
                    chosen.push((facts.block.number, fact.index, e));
                }
            }
        }
    }
    assert!(chosen.len() >= 4, "{}", chosen.len());
    let mut tried = 0;
    for (block, index, e) in chosen {
        let mut variants: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = |input: &SettlementInput, settlement: &Settlement, head: &TaskClosed| {
            let TaskClosed { task, requester, kind, version, seed, output_nodes, panel_nodes, .. } = head;
            let front = (task, requester, kind, version, seed, output_nodes, panel_nodes);
            (front, input, settlement).encode()
        };
        assert_eq!(bytes(&e.input, &e.settlement, e), e.encode());
        for (path, value) in altered(&e.input.to_json()) {
            // A choice that the type does not have there is no settlement at all.
            if let Ok(input) = serde_json::from_value::<SettlementInput>(value) {
                variants.push((format!("input{path}"), bytes(&input, &e.settlement, e)));
            }
        }
        for (path, value) in altered(&e.settlement.to_json()) {
            if let Ok(settlement) = serde_json::from_value::<Settlement>(value) {
                variants.push((format!("settlement{path}"), bytes(&e.input, &settlement, e)));
            }
        }
        let (input, settlement) = (&e.input, &e.settlement);
        let mut outputs = e.output_nodes.clone();
        outputs[0] += 1;
        let mut panel = e.panel_nodes.clone();
        panel[0] += 1;
        let head = (&e.task, &e.requester, &e.kind, &e.version, &e.seed);
        let requester: [u8; 32] = *e.requester.as_ref();
        let mut other = requester;
        other[31] ^= 1;
        let mut seed = e.seed;
        seed[0] ^= 1;
        let rest = (&e.output_nodes, &e.panel_nodes, input, settlement);
        variants
            .push(("task".into(), ((e.task + 1, &e.requester, &e.kind, &e.version, &e.seed), rest).encode()));
        variants.push(("requester".into(), ((&e.task, other, &e.kind, &e.version, &e.seed), rest).encode()));
        variants
            .push(("kind".into(), ((&e.task, &e.requester, e.kind + 1, &e.version, &e.seed), rest).encode()));
        variants.push((
            "version".into(),
            ((&e.task, &e.requester, &e.kind, e.version + 1, &e.seed), rest).encode(),
        ));
        variants.push(("seed".into(), ((&e.task, &e.requester, &e.kind, &e.version, seed), rest).encode()));
        variants
            .push(("output_nodes".into(), (head, (&outputs, &e.panel_nodes, input, settlement)).encode()));
        variants.push(("panel_nodes".into(), (head, (&e.output_nodes, &panel, input, settlement)).encode()));
        let truth = e.encode();
        for (what, data) in variants {
            assert_ne!(data, truth, "{what}");
            tried += 1;
            set(store.conn(), block, index, data);
            let (report, _) = replay(store.conn(), &identity(), 3, |_, _| {}).unwrap();
            assert!(!report.agrees(), "{:?} {what}: not found", e.settlement.ending);
            let first = &report.differences[0];
            assert_eq!((first.block, first.index), (block, index), "{what}: {first:?}");
        }
        set(store.conn(), block, index, truth);
    }
    let (report, _) = replay(store.conn(), &identity(), 3, |_, _| {}).unwrap();
    assert!(report.agrees(), "{:#?}", report.differences);
    assert!(tried > 500, "{tried}");
}

fn set(conn: &mut Conn, block: u32, index: u32, data: Vec<u8>) {
    let sql = "UPDATE events SET data = ?1 WHERE block = ?2 AND idx = ?3";
    assert_eq!(conn.execute(sql, &row![data, block, index]).unwrap(), 1);
}

#[test]
fn one_altered_unit_in_any_table_that_follows_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let mut store = write(&path, &made(&Plan { tasks: 24, failing: 300, ..Plan::default() }), 50);
    let conn = store.conn();
    for table in [
        &schema::TASKS,
        &schema::LINES,
        &schema::NODES,
        &schema::ACCOUNTS,
        &schema::POPULATIONS,
        &schema::AUDITORS,
        &schema::POOLS,
        &schema::MEMBERS,
        &schema::TOTALS,
    ] {
        let names = table.names();
        let ended = if table.name == "tasks" { "WHERE ended_block IS NOT NULL" } else { "" };
        let sql =
            format!("SELECT {names} FROM {} {ended} ORDER BY {} LIMIT 1", table.name, table.key_names());
        let row = conn.query(&sql, &[]).unwrap().remove(0).0;
        for (at, column) in table.columns.iter().enumerate().skip(table.key) {
            // What happens to a task after its end is no part of its settlement.
            if table.name == "tasks" && ["audited_block", "collected_block"].contains(&column.name) {
                continue;
            }
            let mut altered = row.clone();
            altered[at] = match &row[at] {
                Cell::Null => Cell::Int(1),
                Cell::Int(value) => Cell::Int(value + 1),
                Cell::Text(text) => match text.parse::<u128>() {
                    Ok(amount) => Cell::from(amount + 1),
                    Err(_) => Cell::from(format!("{text}x")),
                },
                Cell::Blob(_) => unreachable!("derived tables have no bytes"),
            };
            conn.write(table, &[altered]).unwrap();
            let (report, _) = replay(conn, &identity(), 3, |_, _| {}).unwrap();
            assert!(!report.agrees(), "{}.{}", table.name, column.name);
            assert!(report.differences[0].what.ends_with(column.name), "{:?}", report.differences[0]);
            conn.write(table, &[row.clone()]).unwrap();
        }
    }
    conn.execute("DELETE FROM lines WHERE task = 3 AND place = 0", &[]).unwrap();
    assert!(!replay(conn, &identity(), 3, |_, _| {}).unwrap().0.agrees());
}

#[test]
fn a_task_is_explained_without_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let blocks = made(&plan());
    let mut store = write(&path, &blocks, 50);
    let mut audited = 0;
    for end in ends(&blocks) {
        let explained = explain::explain(store.conn(), &identity(), end.task).unwrap();
        assert!(explained.agrees(), "task {}: {:#?}", end.task, explained.differences);
        assert_eq!(explained.recomputed.as_ref(), Some(&end.settlement));
        let totals = explained.totals;
        let sum = totals.paid + totals.keepers + totals.treasury + totals.burned + totals.refund;
        assert_eq!(sum, totals.fee);
        audited += usize::from(explained.audit.is_some());
        // Only what no event tells is left out.
        let skipped: Vec<&str> = explained.skipped().map(|(what, _)| what).collect();
        assert!(skipped.len() <= 1, "{skipped:?}");
    }
    assert!(audited > 5);
    let last = ends(&blocks).last().unwrap().task;
    let absent = explain::explain(store.conn(), &identity(), last + 1_000).unwrap_err();
    assert!(absent.to_string().contains("no task"), "{absent}");
    // A lie in what went in is seen though the outcome does not depend on it.
    let (block, index, e) = blocks
        .iter()
        .flat_map(|facts| facts.events.iter().map(|fact| (facts.block.number, fact)))
        .find_map(|(block, fact)| match &fact.body {
            Body::Core(PoqEvent::TaskClosed(e)) if e.task > 60 => Some((block, fact.index, e)),
            _ => None,
        })
        .unwrap();
    let mut input = e.input.clone();
    input.population.ring.candidate = poq_chain::types::Ratio::from_ppb(1);
    let head = (&e.task, &e.requester, &e.kind, &e.version, &e.seed, &e.output_nodes, &e.panel_nodes);
    set(store.conn(), block, index, (head, &input, &e.settlement).encode());
    let explained = explain::explain(store.conn(), &identity(), e.task).unwrap();
    assert_eq!(explained.differences[0].what, "population.ring.candidate");
}
