//! One promise per duty, whoever asks, in whatever order.
#![allow(clippy::unwrap_used)]

use poq_core::units::{Ratio, Score};
use poq_journal::{
    blake2_256, commitment_of, derive_salt, now_ms, CallId, Duty, End, Error, Hash, Identity, Journal,
    NewCall, NotSafe, Outcome, Payload, Safe, State, MAX_INLINE,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Barrier;

const CONTRACT: Hash = [3; 32];

fn identity() -> Identity {
    Identity { genesis: [1; 32], first_block: [2; 32], contract: CONTRACT }
}

fn journal() -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path().join("journal.redb"), identity()).unwrap();
    (folder, journal)
}

fn output(duty: &Duty, text: &str) -> (Hash, Payload) {
    let payload =
        Payload::output(text.as_bytes().to_vec(), derive_salt(&[9; 32], &identity().network(), duty));
    (commitment_of(&identity().network(), duty, &payload).unwrap(), payload)
}

fn scores(duty: &Duty, values: &[u32]) -> (Hash, Payload) {
    let values = values.iter().map(|ppb| Score::of(Ratio::from_ppb(*ppb))).collect();
    let payload =
        Payload::scores(values, Some(b"{}".to_vec()), derive_salt(&[9; 32], &identity().network(), duty));
    (commitment_of(&identity().network(), duty, &payload).unwrap(), payload)
}

fn insert(journal: &Journal, duty: Duty, text: &str) -> Result<Safe, NotSafe> {
    let (commitment, payload) = output(&duty, text);
    journal.check_and_insert(duty, commitment, payload)
}

#[test]
fn the_same_promise_is_safe_and_another_is_not() {
    let (_folder, journal) = journal();
    let duty = Duty::output(7, 3);
    assert_eq!(journal.get(&duty).unwrap(), None);
    let first = insert(&journal, duty, "Paris").unwrap();
    assert!(first.is_new());
    assert_eq!(first.record().state, State::Prepared);
    let again = insert(&journal, duty, "Paris").unwrap();
    assert_eq!(again, Safe::Same(first.record().clone()));
    match insert(&journal, duty, "Lyon").unwrap_err() {
        NotSafe::Conflict { duty: of, existing, refused } => {
            assert_eq!(of, duty);
            assert_eq!(*existing, first.into_record());
            assert_eq!(refused, output(&duty, "Lyon").0);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn duties_differ_by_task_node_and_purpose() {
    let (_folder, journal) = journal();
    assert!(insert(&journal, Duty::output(7, 3), "Paris").unwrap().is_new());
    assert!(insert(&journal, Duty::output(8, 3), "Lyon").unwrap().is_new());
    assert!(insert(&journal, Duty::output(7, 4), "Nice").unwrap().is_new());
    let duty = Duty::scores(7, 3);
    let (commitment, payload) = scores(&duty, &[1]);
    assert!(journal.check_and_insert(duty, commitment, payload).unwrap().is_new());
    assert_eq!(journal.open_duties().unwrap().len(), 4);
    assert_eq!(journal.duties_of_node(4).unwrap().len(), 1);
}

#[test]
fn a_payload_that_does_not_open_its_commitment_is_refused() {
    let (_folder, journal) = journal();
    let duty = Duty::output(7, 3);
    let (commitment, payload) = output(&duty, "Paris");
    let refused = |commitment, payload| match journal.check_and_insert(duty, commitment, payload) {
        Err(NotSafe::Payload { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused([5; 32], payload.clone()).contains("it opens 0x"));
    assert!(refused(commitment, scores(&Duty::scores(7, 3), &[1]).1).contains("another purpose"));
    let salt = *payload.salt();
    let hash = blake2_256(b"Paris");
    let swapped = Payload::Output { hash, salt, bytes: Some(b"Lyon".to_vec()) };
    assert!(refused(commitment, swapped).contains("do not hash"));
    let huge = vec![0; MAX_INLINE + 1];
    let oversized = Payload::Output { hash: blake2_256(&huge), salt, bytes: Some(huge.clone()) };
    assert!(refused(commitment, oversized).contains("262145 bytes"));
    assert_eq!(journal.get(&duty).unwrap(), None);
    // The constructor leaves what is too large to the blob store.
    assert!(matches!(Payload::output(huge, salt), Payload::Output { bytes: None, .. }));
}

#[test]
fn of_ten_racing_threads_exactly_one_wins() {
    let (_folder, journal) = journal();
    for task in 1..=20 {
        let duty = Duty::output(task, 3);
        let barrier = Barrier::new(10);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|thread| {
                    let (journal, barrier) = (journal.clone(), &barrier);
                    scope.spawn(move || {
                        let text = format!("answer {thread}");
                        barrier.wait();
                        insert(&journal, duty, &text)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "task {task}");
        assert!(winners[0].is_new());
        for outcome in &outcomes {
            if let Err(error) = outcome {
                let NotSafe::Conflict { existing, .. } = error else { panic!("{error}") };
                assert_eq!(**existing, *winners[0].record());
            }
        }
    }
}

#[test]
fn ten_racing_threads_with_one_answer_all_succeed() {
    let (_folder, journal) = journal();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let journal = journal.clone();
                scope.spawn(move || insert(&journal, Duty::output(7, 3), "Paris").unwrap().is_new())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|new| **new).count(), 1);
}

#[test]
fn another_contract_or_chain_has_a_namespace_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let duty = Duty::output(1, 3);
    let first = Journal::open(&path, identity()).unwrap();
    insert(&first, duty, "Paris").unwrap();
    drop(first);

    // The same genesis and the same contract address, as after wiping a development chain.
    let wiped = Journal::open(&path, Identity { first_block: [8; 32], ..identity() }).unwrap();
    assert_eq!(wiped.get(&duty).unwrap(), None);
    assert!(insert(&wiped, duty, "Lyon").unwrap().is_new());
    drop(wiped);

    let elsewhere = Identity { contract: [9; 32], ..identity() };
    let other = Journal::open(&path, elsewhere).unwrap();
    assert_eq!(other.open_duties().unwrap(), []);
    // A commitment binds the contract: one of another contract's is refused.
    let (commitment, payload) = output(&duty, "Paris");
    assert!(matches!(other.check_and_insert(duty, commitment, payload), Err(NotSafe::Payload { .. })));
    let summaries = other.namespaces().unwrap();
    let counts: HashMap<_, _> = summaries.iter().map(|own| (own.identity, own.open_duties)).collect();
    assert_eq!(
        counts,
        HashMap::from([
            (identity(), 1),
            (Identity { first_block: [8; 32], ..identity() }, 1),
            (elsewhere, 0),
        ])
    );
    drop(other);

    let back = Journal::open(&path, identity()).unwrap();
    assert!(matches!(insert(&back, duty, "Lyon"), Err(NotSafe::Conflict { .. })));
    assert!(!insert(&back, duty, "Paris").unwrap().is_new());
}

#[test]
fn states_go_forward_only() {
    let (_folder, journal) = journal();
    let duty = Duty::output(7, 3);
    assert!(matches!(journal.advance(&duty, State::Sent), Err(Error::NoSuchDuty { .. })));
    insert(&journal, duty, "Paris").unwrap();
    assert_eq!(journal.advance(&duty, State::Committed).unwrap().state, State::Committed);
    assert_eq!(journal.advance(&duty, State::Sent).unwrap().state, State::Committed);
    assert_eq!(journal.advance(&duty, State::Final(End::Settled)).unwrap().state, State::Final(End::Settled));
    assert_eq!(journal.advance(&duty, State::Final(End::Missed)).unwrap().state, State::Final(End::Settled));
    assert_eq!(journal.open_duties().unwrap(), []);
    // A finished duty is still a promise.
    assert!(matches!(insert(&journal, duty, "Lyon"), Err(NotSafe::Conflict { .. })));
}

fn call(nonce: u64, duties: Vec<Duty>) -> NewCall {
    NewCall {
        account: [6; 32],
        nonce,
        extrinsic: [nonce as u8; 32],
        call: "commit_outputs".to_owned(),
        duties,
    }
}

#[test]
fn calls_are_remembered_until_they_are_resolved() {
    let (_folder, journal) = journal();
    let (one, two) = (Duty::output(1, 3), Duty::output(2, 3));
    insert(&journal, one, "Paris").unwrap();
    assert!(
        matches!(journal.record_call(call(4, vec![one, two])), Err(Error::NoSuchDuty { duty }) if duty == two)
    );
    // Refused as a whole.
    assert_eq!(journal.get(&one).unwrap().unwrap().state, State::Prepared);
    assert_eq!(journal.unresolved_calls().unwrap(), []);

    insert(&journal, two, "Rome").unwrap();
    let first = journal.record_call(call(4, vec![one, two])).unwrap();
    let second = journal.record_call(call(5, vec![two])).unwrap();
    assert!(second > first);
    assert_eq!(journal.get(&two).unwrap().unwrap().state, State::Sent);
    assert_eq!(journal.highest_nonce(&[6; 32]).unwrap(), Some(5));
    assert_eq!(journal.highest_nonce(&[7; 32]).unwrap(), None);
    assert_eq!(journal.calls_of(&two).unwrap().len(), 2);

    journal.record_outcome(first, Outcome::InBlock { number: 9, hash: [9; 32] }).unwrap();
    assert_eq!(journal.unresolved_calls().unwrap().len(), 2, "a block can still be replaced");
    journal.record_outcome(first, Outcome::Finalized { number: 9, hash: [9; 32] }).unwrap();
    journal.record_outcome(first, Outcome::Dropped { reason: "late news".to_owned() }).unwrap();
    assert!(matches!(
        journal.calls_of(&one).unwrap()[0].outcome,
        Some((Outcome::Finalized { number: 9, .. }, _))
    ));
    assert_eq!(journal.unresolved_calls().unwrap().iter().map(|call| call.id).collect::<Vec<_>>(), [second]);
    assert!(matches!(
        journal.record_outcome(CallId(77), Outcome::Dropped { reason: String::new() }),
        Err(Error::NoSuchCall { id: CallId(77) })
    ));
    let long = NewCall { call: "x".repeat(65), ..call(6, vec![]) };
    assert!(matches!(journal.record_call(long), Err(Error::CallName { length: 65, .. })));
}

#[test]
fn pruning_forgets_what_is_finished_and_old_and_nothing_else() {
    let (_folder, journal) = journal();
    let (done, open) = (Duty::output(1, 3), Duty::output(2, 3));
    for duty in [done, open] {
        insert(&journal, duty, "Paris").unwrap();
        let id = journal.record_call(call(duty.task, vec![duty])).unwrap();
        journal.record_outcome(id, Outcome::Failed { reason: "no".to_owned() }).unwrap();
    }
    journal.advance(&done, State::Final(End::Settled)).unwrap();
    let created = journal.get(&open).unwrap().unwrap().created;
    assert_eq!(journal.prune(created.saturating_sub(1_000)).unwrap(), Default::default());
    let pruned = journal.prune(now_ms() + 1).unwrap();
    assert_eq!((pruned.duties, pruned.calls), (1, 1));
    assert_eq!(journal.get(&done).unwrap(), None);
    assert!(journal.get(&open).unwrap().is_some());
    assert_eq!(journal.calls_of(&open).unwrap().len(), 1);
    let stats = journal.stats().unwrap();
    assert_eq!((stats.open_duties, stats.final_duties, stats.resolved_calls), (1, 0, 1));
    // Numbers are not used twice.
    assert_eq!(journal.record_call(call(9, vec![])).unwrap(), CallId(2));
}

#[test]
fn an_export_and_debug_output_keep_secrets() {
    let (_folder, journal) = journal();
    let (answer, judged) = (Duty::output(1, 3), Duty::scores(2, 4));
    let (commitment, payload) = output(&answer, "a very secret answer");
    let salts = [*payload.salt(), derive_salt(&[9; 32], &identity().network(), &judged)];
    let output_hash = hex::encode(blake2_256(b"a very secret answer"));
    let debug = format!("{:?}", journal.check_and_insert(answer, commitment, payload).unwrap());
    assert!(!debug.contains(&format!("{:?}", salts[0])[1..40]), "{debug}");
    let (commitment, payload) = scores(&judged, &[123_456_789]);
    let debug = format!("{:?}", journal.check_and_insert(judged, commitment, payload).unwrap());
    assert!(!debug.contains("123456789"), "{debug}");
    journal.record_call(call(4, vec![answer, judged])).unwrap();

    let export = journal.export().unwrap();
    let text = export.to_string();
    for salt in salts {
        assert!(!text.contains(&hex::encode(salt)));
    }
    assert!(!text.contains("secret answer"));
    assert!(!text.contains(&output_hash), "a short answer could be guessed from its hash");
    assert!(!text.contains("123456789") && !text.contains("0.123456789"));
    assert!(text.contains(&hex::encode(commitment)));
    assert_eq!(export["duties"][0]["state"], "sent");
    assert_eq!(export["calls"][0]["duties"][1], "scores of node 4 in task 2");

    journal.advance(&answer, State::Final(End::Settled)).unwrap();
    journal.advance(&judged, State::Revealed).unwrap();
    let text = journal.export().unwrap().to_string();
    assert!(text.contains(&output_hash) && text.contains("123456789"));
    for salt in salts {
        assert!(!text.contains(&hex::encode(salt)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is asked in whatever order, over restarts: the first promise stands.
    #[test]
    fn the_first_promise_stands(steps in proptest::collection::vec((0u64..4, 0u32..3, 0u8..3, any::<bool>()), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.redb");
        let mut journal = Journal::open(&path, identity()).unwrap();
        let mut promised: HashMap<Duty, u8> = HashMap::new();
        for (task, node, answer, restart) in steps {
            let duty = Duty::output(task, node);
            let outcome = insert(&journal, duty, &format!("answer {answer}"));
            match promised.get(&duty) {
                None => {
                    prop_assert!(outcome.unwrap().is_new());
                    promised.insert(duty, answer);
                }
                Some(first) if *first == answer => prop_assert!(!outcome.unwrap().is_new()),
                Some(_) => {
                    let is_conflict = matches!(outcome, Err(NotSafe::Conflict { .. }));
                    prop_assert!(is_conflict);
                }
            }
            if restart {
                drop(journal);
                journal = Journal::open(&path, identity()).unwrap();
            }
        }
        prop_assert_eq!(journal.open_duties().unwrap().len(), promised.len());
    }
}
