//! kill -9 in the middle of inserts: what was acknowledged is there.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use poq_journal::{commitment_of, Duty, Identity, Journal, NewCall, Payload, State};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const IDENTITY: Identity = Identity { genesis: [1; 32], first_block: [2; 32], contract: [3; 32] };
const PATH: &str = "POQ_JOURNAL_KILL_TEST";
const ROUNDS: u64 = 40;

fn promise(task: u64) -> (Duty, [u8; 32], Payload) {
    let duty = Duty::output(task, 3);
    let payload = Payload::output(task.to_le_bytes().repeat(1 + (task % 700) as usize), [task as u8; 32]);
    (duty, commitment_of(&IDENTITY.network(), &duty, &payload).unwrap(), payload)
}

fn call(task: u64, duty: Duty) -> NewCall {
    NewCall {
        account: [6; 32],
        nonce: task,
        extrinsic: [7; 32],
        call: "commit_output".to_owned(),
        duties: vec![duty],
    }
}

/// The child: inserts until it is killed, and says so after each insert. Only when the test below starts it.
#[test]
#[ignore = "the process that the test below kills"]
fn child() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let journal = Journal::open(Path::new(&path), IDENTITY).unwrap();
    let first = journal.open_duties().unwrap().iter().map(|record| record.duty.task).max().unwrap_or(0) + 1;
    let mut out = std::io::stdout();
    for task in first.. {
        let (duty, commitment, payload) = promise(task);
        assert!(journal.check_and_insert(duty, commitment, payload).unwrap().is_new());
        writeln!(out, "inserted {task}").unwrap();
        journal.record_call(call(task, duty)).unwrap();
        writeln!(out, "called {task}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let (mut inserted, mut called) = (BTreeSet::new(), BTreeSet::new());
    let mut killed_at_work = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        // From before the journal is open to well into the inserts.
        std::thread::sleep(Duration::from_millis(5 + (round * 37) % 240));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = reader.join().unwrap();
        let before = inserted.len();
        for line in &lines {
            // The first line follows the test runner's own words. Short lines reach a pipe whole or not at all.
            if let Some((_, task)) = line.split_once("inserted ") {
                inserted.insert(task.parse::<u64>().unwrap());
            } else if let Some((_, task)) = line.split_once("called ") {
                called.insert(task.parse::<u64>().unwrap());
            }
        }
        killed_at_work += u64::from(inserted.len() > before);

        let journal = Journal::open(&path, IDENTITY).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = journal.open_duties().unwrap();
        let tasks: BTreeSet<u64> = found.iter().map(|record| record.duty.task).collect();
        assert!(inserted.is_subset(&tasks), "round {round}: lost {:?}", inserted.difference(&tasks));
        assert!(tasks.len() <= inserted.len() + round as usize + 1, "round {round}: more than was under way");
        for record in found {
            let (duty, commitment, payload) = promise(record.duty.task);
            assert_eq!((record.duty, record.commitment, &record.payload), (duty, commitment, &payload));
            if called.contains(&duty.task) {
                assert_eq!(record.state, State::Sent);
            }
            // Sending again after the crash is the same promise.
            assert!(!journal.check_and_insert(duty, commitment, payload).unwrap().is_new());
        }
        let sent: BTreeSet<u64> = journal.unresolved_calls().unwrap().iter().map(|call| call.nonce).collect();
        assert!(called.is_subset(&sent), "round {round}: lost {:?}", called.difference(&sent));
    }
    println!(
        "{killed_at_work} of {ROUNDS} kills hit a working child; {} inserts acknowledged",
        inserted.len()
    );
    assert!(killed_at_work >= ROUNDS / 4, "only {killed_at_work} of {ROUNDS} kills hit a working child");
}
