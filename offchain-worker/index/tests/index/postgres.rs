//! The same histories in PostgreSQL. Only where POQ_TEST_POSTGRES has the address of an empty database: `scripts/check-postgres.sh` makes
//! one of Debian's packages.

use crate::made_up::{digest, made, plan, write};
use poq_index::db::{Access, Conn, Target};
use poq_index::read::{HistoryFilter, LineFilter, NodeFilter, Reads, TaskFilter};
use poq_index::replay::replay;
use poq_index::synthetic::{identity, Plan, Synthetic};
use poq_index::{explain, Store};
use serde::Serialize;

/// The database, emptied; `None` where there is none to test with.
fn database() -> Option<Target> {
    let url = std::env::var("POQ_TEST_POSTGRES").ok()?;
    let target: Target = url.parse().unwrap();
    let mut conn = Conn::open(&target, Access::Write).unwrap();
    conn.batch("DROP SCHEMA public CASCADE; CREATE SCHEMA public;").unwrap();
    Some(target)
}

fn text<T: Serialize>(value: T) -> String {
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn postgres_has_the_same_rows_and_answers_as_sqlite() {
    let Some(postgres) = database() else {
        eprintln!("skipped: POQ_TEST_POSTGRES is not set (scripts/check-postgres.sh sets it)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Target::Sqlite(folder.path().join("index"));
    // Names with NUL in them, too.
    let blocks = made(&Plan { hostile: true, ..plan() });
    let mut one = write(&sqlite, &blocks, 40);
    let mut two = write(&postgres, &blocks, 40);
    let expected = digest(&mut one);
    assert_eq!(digest(&mut two), expected);
    two.undo_to(Some(blocks[50].block)).unwrap();
    two.append(&blocks[51..], blocks.last().unwrap().block).unwrap();
    assert_eq!(digest(&mut two), expected);
    drop(two);
    let mut two = Store::open(&postgres, &identity()).unwrap();
    assert_eq!(digest(&mut two), expected);
    let (report, _) = replay(two.conn(), &identity(), 10, |_, _| {}).unwrap();
    assert!(report.agrees(), "{:#?}", report.differences);

    // Every question has the same answer; and a reader cannot write.
    let mut conns = [&sqlite, &postgres].map(|target| Conn::open(target, Access::Read).unwrap());
    assert!(conns[1].execute("DELETE FROM tasks", &[]).is_err());
    let reads = Reads::of(&mut conns[0], "index").unwrap();
    let requester = Synthetic::account("requester", 1).to_string();
    let holder = Synthetic::account("holder", 1).to_string();
    let answers = conns.each_mut().map(|conn| {
        let mut all = vec![
            text(reads.overview(conn, 30).unwrap()),
            text(reads.leaderboard(conn).unwrap()),
            text(reads.nodes(conn, &NodeFilter::default()).unwrap()),
            text(reads.kinds(conn).unwrap()),
            text(reads.kind_detail(conn, 1).unwrap()),
            text(reads.changes(conn, false).unwrap()),
            text(reads.changes(conn, true).unwrap()),
            text(reads.auditors(conn).unwrap()),
            text(reads.pools(conn).unwrap()),
            text(reads.account_detail(conn, &holder).unwrap()),
            text(reads.search(conn, "qwen").unwrap()),
            text(reads.search(conn, "%").unwrap()),
            text(reads.search(conn, "12").unwrap()),
            text(reads.tasks_changed(conn, 20, 50).unwrap()),
            text(reads.block(conn, blocks[30].block.number).unwrap()),
        ];
        let pool = reads.pools(conn).unwrap()[0].pool.clone();
        all.push(text(reads.pool_detail(conn, &pool).unwrap()));
        for state in [None, Some("open"), Some("settled"), Some("refunded")] {
            let filter = TaskFilter {
                state: state.map(str::to_owned),
                requester: Some(requester.clone()),
                kind: Some(1),
                limit: Some(7),
                before: Some(100),
            };
            all.push(text(reads.tasks(conn, &filter).unwrap()));
        }
        for node in [1, 13, 20] {
            all.push(text(reads.node_detail(conn, node).unwrap()));
            let filter = LineFilter { unpaid: Some(true), ..LineFilter::default() };
            all.push(text(reads.lines(conn, node, &filter).unwrap()));
        }
        for before in [None, Some("60-1-0".to_owned())] {
            let what = Some("fee,refund".to_owned());
            let filter = HistoryFilter { before, what, limit: Some(9), from: Some(1), until: None };
            all.push(text(reads.history(conn, &requester, &filter).unwrap()));
        }
        for task in [1, 2, 3, 50] {
            all.push(text(reads.task_detail(conn, task).unwrap()));
            all.push(text(explain::explain(conn, &identity(), task).unwrap()));
        }
        all
    });
    for (sqlite, postgres) in answers[0].iter().zip(&answers[1]) {
        assert_eq!(sqlite, postgres);
    }
}
