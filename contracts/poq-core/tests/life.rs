//! The life of a task on its record alone: every ending, what it costs whom, and the findings of the protocol's audit that the
//! record answers (a test's name begins with the finding's number).

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod common;

use common::blake2;
use poq_core::commitment::{self, Hash, Purpose, Salt};
use poq_core::formulas::settlement::{audit, settle, Answer, Conduct, Ending, Settlement, TrustState};
use poq_core::kind::{Population, Ring};
use poq_core::params::{KEEPER_STEPS, MAX_OPEN, UNIT};
use poq_core::registry::epoch_of;
use poq_core::task::penalties::{evaluator_penalty, inference_penalty};
use poq_core::task::{
    Draw, Opened, Phase, Refusal, Request, Reveal, SeatState, Source, Step, Task, TaskInput, Terms,
};
use poq_core::{AccountId, Balance, KindParams, Millis, NodeId, Ratio, Score};
use proptest::prelude::*;

const NETWORK: Hash = [7; 32];
const SECRET: Hash = [8; 32];
const EPOCH: Millis = 600_000;
const START: Millis = 1_000_000_000;
const ID: u64 = 5;

fn params() -> KindParams {
    KindParams::default()
}

fn requester() -> AccountId {
    [1; 32].into()
}

fn salt(node: NodeId) -> Salt {
    blake2(&commitment::salt(&[9; 32], &NETWORK, ID, node, Purpose::Output))
}

fn opened(node: NodeId) -> Opened {
    Opened { hash: blake2(&node.to_le_bytes()), salt: salt(node) }
}

/// A task of nodes 1..=outputs, of so many evaluators, with this fee.
fn task(outputs: u32, panel: u8, fee: Balance) -> Task {
    let params = params();
    let n = u8::try_from(outputs).unwrap();
    let split = params.split(fee, n, panel).unwrap();
    let request = Request {
        kind: 1,
        fee,
        nodes: vec![],
        outputs: n,
        panel,
        input: Source::Inline(vec![1]),
        reference_commitment: [3; 32],
        secret_hash: blake2(&commitment::secret(&NETWORK, requester().as_ref(), &SECRET)),
        early: false,
    };
    let nodes: Vec<(NodeId, Balance)> = (1..=outputs).map(|node| (node, UNIT / 100)).collect();
    let input = TaskInput { hash: [2; 32], url: "http://127.0.0.1:9".into(), inline: false };
    Task::new(
        requester(),
        &request,
        input,
        Terms::new(&params, 1, &split, panel),
        params.inference_ms,
        &nodes,
        START,
    )
}

fn commit(task: &mut Task, node: NodeId, now: Millis) {
    let preimage = commitment::output(&NETWORK, ID, node, &opened(node).hash, &opened(node).salt);
    assert_eq!(task.commit_output(node, blake2(&preimage), now, EPOCH), Ok(true));
}

fn commit_all(task: &mut Task, now: Millis) {
    for node in task.outputs.iter().map(|slot| slot.node).collect::<Vec<_>>() {
        commit(task, node, now);
    }
}

fn draw(task: &Task) -> Draw {
    let openings = task.outputs.iter().map(|slot| (slot.committed_at > 0).then(|| opened(slot.node)));
    Draw { task: ID, secret: SECRET, openings: openings.collect() }
}

/// Draws the evaluators 101.. into the panel.
fn seat(task: &mut Task, now: Millis) {
    task.unseal(&draw(task), now, EPOCH, &NETWORK, blake2).unwrap();
    let panel = u32::try_from(task.panel.len()).unwrap();
    task.seat(101..=100 + panel, now);
}

fn reveal_of(node: NodeId, scores: &[Score]) -> Reveal {
    let salt = blake2(&(node, 1u8).0.to_be_bytes());
    Reveal { task: ID, node, scores: scores.to_vec(), report_hash: [0; 32], salt }
}

fn commit_scores(task: &mut Task, node: NodeId, scores: &[Score], now: Millis) {
    let r = reveal_of(node, scores);
    let preimage = commitment::scores(&NETWORK, ID, node, &r.scores, &r.report_hash, &r.salt);
    assert_eq!(task.commit_scores(node, blake2(&preimage), now), Ok(true));
}

fn reveal(task: &mut Task, node: NodeId, scores: &[Score], now: Millis) -> bool {
    task.reveal(&reveal_of(node, scores), now, &NETWORK, blake2).unwrap()
}

fn quality(permille: u32) -> Score {
    Score::of(Ratio::from_permille(permille))
}

fn end(task: &Task, ending: Ending, now: Millis) -> Settlement {
    let input = task.settlement_input(ending, |_| (Ratio::ONE, 0), &Population::default(), now);
    let settlement = settle(&params(), &input).unwrap();
    assert_books(task, &settlement);
    settlement
}

/// Σ payouts + keepers + treasury + burned + refund = fee.
fn assert_books(task: &Task, s: &Settlement) {
    let paid: Balance = s.outputs.iter().map(|o| o.payout).chain(s.panel.iter().map(|e| e.payout)).sum();
    assert_eq!(paid + task.keepers + s.treasury + s.burned + s.refund, task.fee);
    let slashed: Balance = s.outputs.iter().map(|o| o.slashed).chain(s.panel.iter().map(|e| e.slashed)).sum();
    assert_eq!(slashed, s.slashed);
}

/// Rounds down at most one unit per slot, which is all that goes back where nothing does.
fn nothing(refund: Balance, task: &Task) -> bool {
    refund <= (task.outputs.len() + task.panel.len()) as Balance
}

// ---- a round in which everybody does their duty

#[test]
fn a_round_settles_with_its_last_reveal() {
    let mut task = task(1, 3, 10 * UNIT);
    assert_eq!(task.clock().step(START), Step::Wait { until: START + 120_000 });
    commit_all(&mut task, START + 5_000);
    let deadline = START + 5_000 + 120_000;
    assert_eq!((task.phase, task.deadline), (Phase::Drawing, deadline));
    assert_eq!(task.sealed_epoch, epoch_of(START + 5_000, EPOCH));
    assert_eq!(task.clock().step(START + 6_000), Step::Draw { until: deadline - 60_000 });
    seat(&mut task, START + 6_000);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[quality(800)], START + 8_000);
    }
    assert_eq!(task.phase, Phase::Revealing);
    assert!(!reveal(&mut task, 101, &[quality(800)], START + 9_000));
    assert!(!reveal(&mut task, 103, &[quality(800)], START + 9_000));
    assert!(reveal(&mut task, 102, &[quality(800)], START + 9_000));
    let settlement = end(&task, Ending::Consensus, START + 9_000);
    assert_eq!(settlement.ending, Ending::Consensus);
    assert_eq!(settlement.outputs[0].quality, Some(Ratio::from_permille(800)));
    assert_eq!(settlement.slashed, 0);
    task.close(&settlement, START + 9_000, 77);
    assert_eq!((task.phase, task.final_block, task.clock().step(u64::MAX)), (Phase::Settled, 77, Step::Done));
}

#[test]
fn a_record_never_changes_its_size() {
    use parity_scale_codec::Encode;
    let mut task = task(2, 5, 10 * UNIT);
    let size = task.encoded_size();
    commit(&mut task, 1, START + 1);
    assert_eq!(task.encoded_size(), size);
    task.decline(2, START + 2, EPOCH).unwrap();
    assert_eq!(task.encoded_size(), size);
    seat(&mut task, START + 3);
    assert_eq!(task.encoded_size(), size);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[quality(1), Score::UNAVAILABLE], START + 4);
    }
    task.vacate();
    assert_eq!(task.encoded_size(), size);
    task.seat(201..=202, START + 5);
    assert_eq!(task.encoded_size(), size);
    let settlement = end(&task, Ending::BelowQuorum, START + 6);
    task.close(&settlement, START + 6, 1);
    assert_eq!(task.encoded_size(), size);
}

// ---- the draw

#[test]
fn a_panel_needs_the_secret_and_every_opening() {
    let mut task = task(2, 3, 10 * UNIT);
    let early = draw(&task);
    assert_eq!(task.unseal(&early, START, EPOCH, &NETWORK, blake2), Err(Refusal::TooEarly));
    commit_all(&mut task, START + 1);
    let whole = draw(&task);
    let mut attempt = |draw: &Draw, refusal| {
        let before = task.clone();
        assert_eq!(task.unseal(draw, START + 2, EPOCH, &NETWORK, blake2), Err(refusal));
        assert_eq!(task, before);
    };
    attempt(&Draw { secret: [0; 32], ..whole.clone() }, Refusal::BadSecret);
    attempt(&Draw { openings: vec![whole.openings[0], None], ..whole.clone() }, Refusal::NotOpened);
    attempt(&Draw { openings: vec![whole.openings[0]], ..whole.clone() }, Refusal::NotOpened);
    let swapped = vec![whole.openings[1], whole.openings[0]];
    attempt(&Draw { openings: swapped, ..whole.clone() }, Refusal::Mismatch);
    task.unseal(&whole, START + 2, EPOCH, &NETWORK, blake2).unwrap();
}

#[test]
fn the_seed_is_of_all_parties_and_of_nothing_else() {
    let seed = |openers: &[NodeId], now: Millis| {
        let mut task = task(2, 3, 10 * UNIT);
        commit_all(&mut task, START + 1);
        for node in openers {
            task.open_output(ID, *node, &opened(*node), START + 2, EPOCH, &NETWORK, blake2).unwrap();
        }
        task.unseal(&draw(&task), now, EPOCH, &NETWORK, blake2).unwrap();
        (task.seed, task.sealed_epoch)
    };
    // Who opens, and when it is drawn, change nothing.
    assert_eq!(seed(&[], START + 3), seed(&[1], START + 9_000));
    assert_eq!(seed(&[2, 1], START + 100_000), seed(&[], START + 60_000));
}

#[test]
fn after_half_time_only_the_secret_may_be_missing() {
    let mut task = task(2, 3, 10 * UNIT);
    commit_all(&mut task, START);
    let half = START + 60_000;
    task.open_output(ID, 1, &opened(1), half, EPOCH, &NETWORK, blake2).unwrap();
    assert_eq!(
        task.open_output(ID, 2, &opened(2), half + 1, EPOCH, &NETWORK, blake2),
        Err(Refusal::WrongPhase)
    );
    assert_eq!(task.clock().step(half + 1), Step::End(Ending::Unopened));
    assert_eq!(
        task.unseal(&draw(&task), half + 1, EPOCH, &NETWORK, blake2),
        Err(Refusal::WrongPhase),
        "who withholds an opening does not choose between two panels"
    );
    let s = end(&task, Ending::Unopened, half + 1);
    let share = params().delivery_share.of(task.terms.inference_slot);
    assert_eq!(s.outputs[0].payout, share, "nobody judged what was opened");
    assert_eq!(s.outputs[1].slashed, params().unrevealed_penalty.of(task.terms.inference_at_risk));
    assert!(nothing(s.refund, &task));

    task.open_output(ID, 2, &opened(2), half, EPOCH, &NETWORK, blake2).unwrap();
    assert_eq!(task.clock().step(half + 1), Step::Draw { until: START + 120_000 });
    assert_eq!(task.clock().step(START + 120_001), Step::End(Ending::NoSecret));
    let s = end(&task, Ending::NoSecret, START + 120_001);
    assert_eq!(s.outputs[0].payout + s.outputs[1].payout, 2 * task.terms.inference_slot);
    assert!(nothing(s.refund, &task), "withholding the secret gives nothing back");
}

// ---- whoever delivered is paid, and nobody gains from a failure

#[test]
fn h1a_answers_are_not_free_when_no_panel_can_be_drawn() {
    let mut task = task(1, 15, 10 * UNIT);
    commit_all(&mut task, START);
    task.unseal(&draw(&task), START + 1, EPOCH, &NETWORK, blake2).unwrap();
    task.short = true;
    assert_eq!(task.clock().step(START + 120_001), Step::End(Ending::NoPanel));
    let s = end(&task, Ending::NoPanel, START + 120_001);
    let slot = task.terms.inference_slot;
    assert_eq!(s.outputs[0].payout, params().delivery_share.of(slot));
    assert_eq!(s.slashed, 0);
    // The evaluators' slots go back, the answer's does not.
    assert!(s.refund <= task.fee - slot);
    assert!(s.refund >= 15 * task.terms.evaluator_slot);
}

#[test]
fn h1b_serving_the_input_to_the_inference_nodes_alone_gives_nothing_back() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[Score::NO_INPUT], START + 2);
    }
    for node in 101..=103 {
        reveal(&mut task, node, &[Score::NO_INPUT], START + 3);
    }
    let s = end(&task, Ending::Consensus, START + 3);
    assert_eq!(s.ending, Ending::InputUnavailable);
    assert!(nothing(s.refund, &task));
    assert_eq!(s.slashed, 0, "nobody who did a duty loses anything");
    assert_eq!(s.outputs[0].payout, params().delivery_share.of(task.terms.inference_slot));
    let vote = params().unavailable_share.of(task.terms.evaluator_slot);
    assert!(s.panel.iter().all(|e| e.payout == vote));
    assert!(vote > 0 && vote <= UNIT / 100, "it pays gas, not laziness: {vote}");
}

#[test]
fn an_input_on_chain_cannot_be_unavailable_and_a_minority_has_missed() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    commit_scores(&mut task, 101, &[Score::NO_INPUT], START + 2);
    commit_scores(&mut task, 102, &[quality(700)], START + 2);
    commit_scores(&mut task, 103, &[quality(700)], START + 2);
    reveal(&mut task, 101, &[Score::NO_INPUT], START + 3);
    reveal(&mut task, 102, &[quality(700)], START + 3);
    reveal(&mut task, 103, &[quality(700)], START + 3);
    let s = end(&task, Ending::Consensus, START + 3);
    let missed = params().missed_penalty.of(task.terms.evaluator_at_risk);
    assert_eq!((s.ending, s.panel[0].slashed, s.panel[1].slashed), (Ending::Consensus, missed, 0));
    // The whole panel lies about an inline input: the task is worth nothing, and nobody has proved a fault of the node.
    task.input.inline = true;
    task.panel.iter_mut().for_each(|seat| seat.scores = vec![Score::NO_INPUT]);
    let s = end(&task, Ending::Consensus, START + 3);
    assert_eq!((s.ending, s.outputs[0].slashed), (Ending::BelowQuorum, 0));
    assert!(s.panel.iter().all(|e| e.payout == 0));
}

#[test]
fn h1c_no_shows_on_the_panel_return_no_fee() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    commit_scores(&mut task, 101, &[quality(900)], START + 2);
    // Two colluders do not come; their seats are filled once; the next ones do not come either.
    let late = START + 1 + 120_001;
    assert_eq!(task.clock().step(late), Step::Fill);
    assert_eq!(task.vacate(), vec![102, 103]);
    task.seat(201..=202, late);
    assert_eq!(task.panel.iter().map(|seat| seat.node).collect::<Vec<_>>(), vec![101, 201, 202]);
    assert_eq!(task.panel[0].state, SeatState::Committed, "who committed stays");
    let end_of_it = late + 120_001;
    assert_eq!(task.clock().step(end_of_it), Step::End(Ending::BelowQuorum), "no third try");
    let s = end(&task, Ending::BelowQuorum, end_of_it);
    assert!(nothing(s.refund, &task));
    assert_eq!(s.outputs[0].payout, params().delivery_share.of(task.terms.inference_slot));
    assert_eq!(s.panel[0].slashed, 0, "who committed could not reveal");
    let missed = params().missed_penalty.of(task.terms.evaluator_at_risk);
    assert_eq!((s.panel[1].slashed, s.panel[2].slashed), (missed, missed));
}

#[test]
fn what_evaluators_do_not_earn_is_burned() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START + 30_000);
    seat(&mut task, START + 30_001);
    let scores = [300, 500, 900];
    for (node, permille) in (101..).zip(scores) {
        commit_scores(&mut task, node, &[quality(permille)], START + 90_000);
    }
    for (node, permille) in (101..).zip(scores) {
        reveal(&mut task, node, &[quality(permille)], START + 90_001);
    }
    let s = end(&task, Ending::Consensus, START + 90_001);
    let unearned: Balance = s.panel.iter().map(|e| task.terms.evaluator_slot - e.payout).sum();
    assert!(unearned > UNIT);
    let protocol = params().protocol_fee.of(task.fee);
    assert_eq!(s.treasury, protocol / 2);
    let keepers = 4 * params().keeper_fee;
    assert_eq!(s.burned, unearned + (protocol - protocol / 2) + keepers);
    assert!(s.refund < task.terms.inference_slot, "an answer's own slot is all that comes back");
}

#[test]
fn who_got_an_answer_at_once_does_not_get_its_share_back() {
    let mut task = task(1, 3, 10 * UNIT);
    task.early = true;
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[quality(0)], START + 2);
    }
    for node in 101..=103 {
        reveal(&mut task, node, &[quality(0)], START + 3);
    }
    let early = end(&task, Ending::Consensus, START + 3);
    task.early = false;
    let late = end(&task, Ending::Consensus, START + 3);
    let share = params().delivery_share.of(task.terms.inference_slot);
    assert_eq!(late.refund - early.refund, share);
    assert_eq!(early.burned - late.burned, share);
    assert_eq!(early.outputs, late.outputs, "a bad answer is not paid for being early");
}

#[test]
fn h6_a_withheld_input_costs_nodes_little_and_the_requester_more() {
    let p = params();
    let gas = UNIT / 200;
    for n in 1..=4u32 {
        let mut task = task(n, 3, p.fee_min(u8::try_from(n).unwrap(), 3).unwrap());
        for node in 1..=n {
            assert_eq!(task.decline(node, START + 1, EPOCH), Ok(true));
            assert_eq!(task.decline(node, START + 1, EPOCH), Ok(false));
        }
        // At once, not at the deadline: nodes are free again.
        assert_eq!(task.clock().step(START + 1), Step::End(Ending::Undelivered));
        let s = end(&task, Ending::Undelivered, START + 1);
        let decline = p.decline_penalty.of(task.terms.inference_at_risk);
        assert_eq!(s.slashed, if n == 1 { decline } else { 0 });
        assert_eq!(s.refund, task.fee - Balance::from(KEEPER_STEPS) * p.keeper_fee);
        // w >= N (delta r + g): filling nodes with tasks that cannot be served costs more than it hurts.
        let hurt = s.slashed + Balance::from(n) * gas;
        assert!(s.burned >= hurt, "N = {n}: {} burned, {hurt} of harm", s.burned);
        assert_eq!(s.treasury, 0);
    }
}

#[test]
fn declining_is_never_dearer_than_nonsense() {
    let p = params();
    let slot = 3 * UNIT;
    let penalty = |answers: &[Answer], own| inference_penalty(&p, slot, answers, own);
    let delivered = Answer::Delivered { latency_ms: 1 };
    let of = |share: Ratio| share.of(p.inference_at_risk(slot));
    let (missed, bad, small) = (of(p.missed_penalty), of(p.bad_penalty), of(p.decline_penalty));
    assert_eq!(penalty(&[delivered, Answer::Declined], Answer::Declined), bad);
    assert_eq!(penalty(&[Answer::Unopened, Answer::Declined], Answer::Declined), bad);
    assert_eq!(penalty(&[Answer::Declined], Answer::Declined), small);
    assert_eq!(penalty(&[Answer::Declined, Answer::Missed], Answer::Declined), small);
    assert_eq!(penalty(&[Answer::Declined, Answer::Declined], Answer::Declined), 0);
    assert_eq!(penalty(&[Answer::Declined, Answer::Missed], Answer::Missed), missed);
}

#[test]
fn keepers_earn_from_zero_when_a_step_is_due_and_four_times_at_most() {
    let mut task = task(1, 3, 10 * UNIT);
    let fee = task.terms.keeper_fee;
    let due = task.deadline;
    let at = |task: &Task, now| task.clock().keeper_fee(fee, now);
    assert_eq!(at(&task, due), 0);
    assert!(at(&task, due + 1) <= fee / 100_000);
    assert_eq!(at(&task, due + 60_000), fee / 2);
    assert_eq!(at(&task, due + 120_000), fee);
    assert_eq!(at(&task, due + 10_000_000), fee);
    for step in 0..6 {
        assert_eq!(task.pay_keeper(due + 120_000), if step < 4 { fee } else { 0 });
    }
    let s = end(&task, Ending::Undelivered, due + 120_000);
    assert_eq!((task.keepers, s.burned), (4 * fee, 0));
}

// ---- penalties

#[test]
fn m1_what_is_at_risk_grows_with_the_fee_and_the_fee_is_bounded() {
    let p = params();
    for panel in 3..=15 {
        for fee in [p.fee_min(1, panel).unwrap(), 5 * UNIT, p.fee_max] {
            let split = p.split(fee, 1, panel).unwrap();
            assert_eq!(p.evaluator_at_risk(split.evaluator_slot), split.evaluator_slot * 2);
            assert!(p.evaluator_at_risk(split.evaluator_slot) <= p.stake_min / MAX_OPEN as Balance);
            assert_eq!(p.inference_at_risk(split.inference_slot), split.inference_slot * 2);
            assert!(p.inference_at_risk(split.inference_slot) <= p.stake_min / MAX_OPEN as Balance);
        }
    }
    assert_eq!(p.split(p.fee_max + 1, 1, 3), None, "dear tasks use a kind with more stake");
}

#[test]
fn m4_an_outlier_needs_two_others_to_be_one_against() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    let scores = [950, 100, 100];
    for (node, permille) in (101..).zip(scores) {
        commit_scores(&mut task, node, &[quality(permille)], START + 2);
    }
    reveal(&mut task, 101, &[quality(950)], START + 3);
    reveal(&mut task, 102, &[quality(100)], START + 3);
    let late = task.deadline + 1;
    assert_eq!(task.clock().step(late), Step::Settle);
    let two = end(&task, Ending::Consensus, late);
    assert_eq!((two.panel[0].slashed, two.panel[1].slashed), (0, 0), "one against one: nobody can tell");
    reveal(&mut task, 103, &[quality(100)], START + 3);
    let three = end(&task, Ending::Consensus, START + 3);
    let outlier = params().outlier_penalty.of(task.terms.evaluator_at_risk);
    assert_eq!((three.panel[0].slashed, three.panel[1].slashed), (outlier, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Nothing costs at least as much as late, and late as much as bad; hiding at least as much as anything.
    #[test]
    fn m5_no_answer_costs_more_than_none(
        permille in 0u32..=1_000,
        latency in 0u64..300_000,
        later in 0u64..300_000,
        price in 0u128..=2 * UNIT,
        scores in prop::collection::vec(0u32..=1_000, 3),
        committed in 0u64..300_000,
    ) {
        let p = params();
        let mut task = task(1, 3, 10 * UNIT);
        commit_all(&mut task, START);
        seat(&mut task, START + 1);
        let panel: Vec<Score> = scores.iter().map(|s| quality(s.min(&permille).to_owned())).collect();
        for (node, score) in (101..).zip(&panel) {
            commit_scores(&mut task, node, &[*score], START + 2);
        }
        for (node, score) in (101..).zip(&panel) {
            reveal(&mut task, node, &[*score], START + 3);
        }
        let mut input = task.settlement_input(Ending::Consensus, |_| (Ratio::ONE, 0), &Population::default(), START);
        input.panel[0].latency_ms = committed;
        input.outputs[0].price = price;
        let mut cost = |latency_ms| {
            input.outputs[0].answer = Answer::Delivered { latency_ms };
            let s = settle(&p, &input).unwrap();
            (s.outputs[0].slashed, s.panel.iter().map(|e| e.slashed).max().unwrap())
        };
        let (bad, evaluators) = cost(latency);
        let (late, _) = cost(latency + later);
        let answer = task.terms.inference_slot;
        let none = inference_penalty(&p, answer, &[Answer::Missed], Answer::Missed);
        let hidden = inference_penalty(&p, answer, &[Answer::Unopened], Answer::Unopened);
        prop_assert!(bad <= late && late <= none && none <= hidden);
        let slot = task.terms.evaluator_slot;
        let missed = evaluator_penalty(&p, slot, &Conduct::Missed);
        prop_assert!(evaluators <= missed && missed <= evaluator_penalty(&p, slot, &Conduct::Unrevealed));
    }
}

#[test]
fn m6_the_ring_costs_what_it_burns_however_the_tasks_are_cut() {
    let filled = || {
        let mut ring = Ring::default();
        (0..16).for_each(|_| ring.push(Ratio::from_permille(700), 1, UNIT, 0, 5));
        ring
    };
    // Sixteen tasks of the least fee replaced the whole ring before.
    let mut ring = filled();
    let dust = UNIT / 20;
    for task in 0..16u8 {
        ring.push(Ratio::ZERO, dust, UNIT, u128::from_le_bytes([task; 16]), 9);
    }
    assert!(ring.entries.iter().all(|entry| entry.quality == Ratio::from_permille(700)));
    // An entry costs ring_burn, as one task or as many.
    for pieces in [1u128, 4, 20] {
        let mut ring = filled();
        for piece in 0..pieces {
            ring.push(Ratio::ZERO, UNIT / pieces, UNIT, piece * 7 + 3, 9);
        }
        assert_eq!(ring.entries.iter().filter(|entry| entry.quality == Ratio::ZERO).count(), 1, "{pieces}");
    }
    // Whose value is written is drawn in proportion to what was burned: a quarter of the money, a quarter of the entries.
    let mut stream = 1u128;
    let mut cheap = 0u32;
    for _ in 0..4_000 {
        let mut ring = filled();
        for (value, burned) in [(Ratio::ZERO, UNIT / 4), (Ratio::ONE, 3 * UNIT / 4)] {
            stream = stream.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(99);
            ring.push(value, burned, UNIT, stream >> 1, 9);
        }
        cheap += u32::from(ring.entries[0].quality == Ratio::ZERO);
    }
    assert!((900..=1_100).contains(&cheap), "{cheap} of 4,000");
}

#[test]
fn m6_the_reference_gain_moves_by_what_is_burned() {
    let p = params();
    let population = {
        let mut population = Population::new(&p);
        (0..16).for_each(|i| population.ring.push(Ratio::from_permille(i * 60), 1, 1, 0, 5));
        population
    };
    let moved = |fee: Balance| {
        let mut task = task(1, 3, fee);
        commit_all(&mut task, START);
        seat(&mut task, START + 1);
        for node in 101..=103 {
            commit_scores(&mut task, node, &[quality(900)], START + 2);
        }
        for node in 101..=103 {
            reveal(&mut task, node, &[quality(900)], START + 3);
        }
        let input = task.settlement_input(Ending::Consensus, |_| (Ratio::ONE, 0), &population, START + 3);
        settle(&p, &input).unwrap().reference.ppb().abs_diff(population.reference.ppb())
    };
    // A hundredth of the fee, and the keepers' reserve.
    assert!(moved(p.fee_max) > 3 * moved(p.fee_min(1, 3).unwrap()));
}

#[test]
fn l1_a_quorum_that_committed_and_does_not_reveal_owes_for_it() {
    let mut task = task(1, 5, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[quality(500)], START + 2);
    }
    // The stored phase is still Scoring: nobody said that the deadline passed.
    assert_eq!(task.phase, Phase::Scoring);
    let late = START + 1 + 120_000 + 60_000 + 1;
    assert_eq!(task.clock().at(late).0, Phase::Revealing);
    assert_eq!(task.clock().step(late), Step::End(Ending::BelowQuorum));
    let s = end(&task, Ending::BelowQuorum, late);
    let unrevealed = params().unrevealed_penalty.of(task.terms.evaluator_at_risk);
    let missed = params().missed_penalty.of(task.terms.evaluator_at_risk);
    let slashed: Vec<Balance> = s.panel.iter().map(|e| e.slashed).collect();
    assert_eq!(slashed, vec![unrevealed, unrevealed, unrevealed, missed, missed]);
}

#[test]
fn l4_there_is_no_second_panel() {
    let mut task = task(1, 9, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    // Four of nine do not commit: five are no quorum of six; the others' commitments stay theirs.
    for node in 101..=105 {
        commit_scores(&mut task, node, &[quality(500)], START + 2);
    }
    let late = START + 1 + 120_001;
    assert_eq!(task.clock().step(late), Step::Fill);
    task.vacate();
    task.seat(201..=204, late);
    assert_eq!(task.clock().committed, 5);
    for node in 201..=204 {
        commit_scores(&mut task, node, &[quality(500)], late + 1);
    }
    // Partial reveals are never read by a later panel: below a quorum of reveals the task ends.
    for node in 101..=105 {
        assert!(!reveal(&mut task, node, &[quality(500)], late + 2));
    }
    assert_eq!(task.clock().step(task.deadline + 1), Step::End(Ending::BelowQuorum));
    // And when commitments reached the quorum, nobody's seat is filled any more.
    assert_eq!(task.clock().step(task.deadline), Step::Wait { until: task.deadline });
}

// ---- reveals that authenticate themselves

#[test]
fn a_reveal_that_does_not_match_is_refused_and_brands_nobody() {
    let mut task = task(1, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[quality(500)], START + 2);
    }
    let before = task.clone();
    let forged = reveal_of(101, &[quality(501)]);
    assert_eq!(task.reveal(&forged, START + 3, &NETWORK, blake2), Err(Refusal::Mismatch));
    let stolen = Reveal { node: 102, ..reveal_of(101, &[quality(500)]) };
    assert_eq!(task.reveal(&stolen, START + 3, &NETWORK, blake2), Err(Refusal::Mismatch));
    let elsewhere = reveal_of(101, &[quality(500)]);
    assert_eq!(task.reveal(&elsewhere, START + 3, &[6; 32], blake2), Err(Refusal::Mismatch));
    assert_eq!(task, before);
}

#[test]
fn a_vote_on_the_input_is_for_all_outputs_or_none() {
    let mut task = task(2, 3, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    for node in 101..=103 {
        commit_scores(&mut task, node, &[Score::NO_INPUT, quality(5)], START + 2);
    }
    let mixed = reveal_of(101, &[Score::NO_INPUT, quality(5)]);
    assert_eq!(task.reveal(&mixed, START + 3, &NETWORK, blake2), Err(Refusal::BadScores));
}

// ---- gold

#[test]
fn a_reference_moves_trust_and_nothing_else() {
    let p = params();
    let mut population = Population::new(&p);
    (0..16).for_each(|i| population.ring.push(Ratio::from_permille(200 + i * 40), 1, 1, 0, 5));
    let mut task = task(1, 5, 10 * UNIT);
    commit_all(&mut task, START);
    seat(&mut task, START + 1);
    let scores = [980, 200, 200, 200, 200];
    for (node, permille) in (101..).zip(scores) {
        commit_scores(&mut task, node, &[quality(permille)], START + 2);
    }
    for (node, permille) in (101..).zip(scores) {
        reveal(&mut task, node, &[quality(permille)], START + 3);
    }
    assert!(!task.can_audit(START + 3));
    let settlement = end(&task, Ending::Consensus, START + 3);
    task.close(&settlement, START + 3, 1);
    assert!(task.can_audit(START + 3 + p.audit_ms) && !task.can_audit(START + 4 + p.audit_ms));
    let half = TrustState { trust: Ratio::from_permille(500), gain_average: 0 };
    let input = task.audit_input(vec![Some(Ratio::ONE)], |_| half, &population);
    let moved = audit(&p, &input);
    assert!(moved.panel[0].trust >= half.trust);
    assert!(moved.panel[1..].iter().all(|state| state.trust < half.trust), "four liars lose by the truth");
    assert!(moved.gain_average > 0);
}

// ---- what each failure costs whom: the payoff inequalities of the shipped parameters

#[test]
fn the_payoff_inequalities_hold_for_the_shipped_parameters() {
    for p in [KindParams::default(), KindParams::without_auditors()] {
        // g: gas of a node's messages of one task; q: the least share that an honest node earns; c: cost of an answer.
        let g = UNIT / 200;
        for outputs in 1..=4u8 {
            for panel in [3u8, 5, 9, 15] {
                for fee in [p.fee_min(outputs, panel).unwrap(), p.fee_max] {
                    let split = p.split(fee, outputs, panel).unwrap();
                    let n = Balance::from(outputs);
                    // w >= N (delta r_i + g), w what every refund burns. Where several decline nothing is taken.
                    let risk = p.inference_at_risk(split.inference_slot);
                    let delta = if outputs == 1 { p.decline_penalty.of(risk) } else { 0 };
                    assert!(
                        split.keepers - p.keeper_fee >= n * g + delta,
                        "even if the requester keeps for itself"
                    );
                    // c_i / S_i <= d < q: half a slot pays the work, and is less than an honest answer earns.
                    let worth = p.inference_weights.net(Ratio::from_permille(700), Ratio::from_permille(200));
                    let q = p.inference_weights.outcome(worth, split.inference_slot, 0).payout;
                    assert!(p.delivery_share.of(split.inference_slot) < q);
                    // v S_e <= g: no reason to say unread that there was no input.
                    assert!(p.unavailable_share.of(split.evaluator_slot) <= g);
                    // d pi S_i < (1 - pi) penalty, pi = 1 %: garbage does not live on tasks that end without a consensus.
                    let hoped = p.delivery_share.of(split.inference_slot) / 100;
                    assert!(hoped < p.bad_penalty.of(risk) / 100 * 99);
                    // (N - 1) d <= u sigma: nobody lives on outputs that are not judged because one of its nodes hides its own.
                    let others = (n - 1) * p.delivery_share.of(split.inference_slot);
                    assert!(others < p.unrevealed_penalty.of(risk));
                    assert!(risk <= p.stake_min / MAX_OPEN as Balance);
                    // outlier_penalty sigma <= 1: a slandered evaluator loses one slot at most.
                    let risk = p.evaluator_at_risk(split.evaluator_slot);
                    assert!(p.outlier_penalty.of(risk) <= split.evaluator_slot);
                    // keeper_fee <= m r_e: nobody fails a duty to be paid for clearing it away.
                    assert!(p.keeper_fee <= p.missed_penalty.of(risk));
                    assert!(risk <= p.stake_min / MAX_OPEN as Balance);
                }
            }
        }
    }
}
