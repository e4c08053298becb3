//! From request to settlement.

use std::sync::atomic::Ordering;
use std::time::Duration;

use poq_chain::types::{Ending, KindParams, Phase, SeatState, Source, TASKS_PAGE};
use poq_journal::{Duty, Journal, State};
use poq_sandbox::{Finality, SandboxConfig};
use poq_worker::requester::Progress;
use poq_worker::Worker;

use crate::support::{prompt, Counts, Net, Scripts, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_answered_scored_settled_and_paid() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;

    let id = net.ask("What is the capital of France?", 2, 3).await;
    let task = net.settled(id).await;

    Counts::of(&net.events().await, id).assert_once(&task);
    for node in &nodes {
        let view = net.node(node.id).await;
        assert!(view.node.claimable > 0, "node {} earned nothing: {view:?}", node.id);
        assert_eq!(view.node.slashed, 0, "node {}", node.id);
        assert_eq!(view.node.stake.locked, 0, "node {}", node.id);
    }
    assert_eq!(scripts.calls.load(Ordering::SeqCst), 2);
    worker.shutdown();
    worker.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_operator_share_transactions() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 5, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;

    let id = net.ask("Which city?", 1, 5).await;
    let task = net.settled(id).await;

    let events = net.events().await;
    Counts::of(&events, id).assert_once(&task);
    // Five reveals fall due in the same block: one transaction, and so one event.
    let reveals = events.iter().filter(|event| event.name() == "ScoresRevealed").count();
    assert_eq!(reveals, 1, "{events:#?}");
    worker.shutdown();
    worker.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_with_workers_of_their_own_settle_many_tasks() {
    let net = Net::start().await;
    let scripts = Scripts::new();
    let mut workers = Vec::new();
    let mut all = Vec::new();
    for place in 0..2 {
        let nodes = net.scripted(1, 0, &format!("//answering/{place}")).await;
        workers.push(net.work(&format!("answering-{place}"), &nodes, &scripts).await);
        all.extend(nodes);
    }
    for place in 0..4 {
        let nodes = net.scripted(0, 1, &format!("//scoring/{place}")).await;
        workers.push(net.work(&format!("scoring-{place}"), &nodes, &scripts).await);
        all.extend(nodes);
    }
    let mut tasks = Vec::new();
    for question in 0..5 {
        tasks.push(net.ask(&format!("Question {question}?"), 2, 3).await);
    }
    for id in tasks {
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
    }
    for node in all {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    for worker in workers {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_says_how_every_duty_ended() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("How does it end?", 1, 3).await;
    let task = net.settled(id).await;
    // The round after settlement writes it down.
    tokio::time::sleep(Duration::from_secs(2)).await;
    worker.stop_now();
    worker.wait().await.unwrap();

    let identity = poq_worker::identity(&net.client).await.unwrap();
    let journal = Journal::open(net.dir.path().join("worker/journal.redb"), identity).unwrap();
    let output = journal.get(&Duty::output(id, task.task.outputs[0].node)).unwrap().unwrap();
    assert_eq!(output.state, State::Final(poq_journal::End::Settled));
    assert_eq!(output.commitment, task.task.outputs[0].commitment);
    for seat in &task.task.panel {
        let scores = journal.get(&Duty::scores(id, seat.node)).unwrap().unwrap();
        assert_eq!(scores.state, State::Final(poq_journal::End::Settled));
    }
    assert!(journal.open_duties().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_is_not_complete_reveals_after_the_deadline_and_settles() {
    let net = Net::start().await;
    let mut nodes = net.scripted(1, 3, "//operator").await;
    // One evaluator never shows up.
    let absent = nodes.pop().unwrap();
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("Who is missing?", 1, 3).await;
    net.until(id, "scored by two", |task| task.task.clock().committed == 2).await;
    net.chain.advance_ms(121_000).unwrap();
    let task = net.settled(id).await;
    let seat = task.task.panel.iter().find(|seat| seat.node == absent.id).unwrap();
    assert_eq!(seat.state, SeatState::Drawn);
    assert!(net.node(absent.id).await.node.slashed > 0);
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_subscriptions_and_failing_requests_cost_nothing() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    for question in 0..3 {
        net.chain.drop_subscriptions();
        net.chain.fail_next("author_submitExtrinsic", 1);
        net.chain.fail_next("author_submitAndWatchExtrinsic", 1);
        net.chain.fail_next("state_call", 2);
        let input = net.prompt(&format!("Question {question}?")).await;
        // The requester meets the same failures; its client tries again by itself.
        let id = net.request(input, 1, 3).await;
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}

/// Tasks that nobody answers: the keeper gives the requester its money back, and is paid for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_needs_no_nodes_and_waits_until_it_is_paid() {
    let net = Net::start().await;
    let _nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let mut config = net.config("keeper", &[]);
    config.keeper.margin_percent = 100;
    let deps = net.deps(&[], scripts.models()).await;
    let keeper = Worker::start(config, deps).await.unwrap();
    keeper.ready(PATIENCE).await.unwrap();
    let id = net.request_only(net.prompt("Who answers?").await, 1, 3).await;
    // Due, and it pays next to nothing yet.
    net.chain.advance_ms(121_000).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(net.task(id).await.task.phase, Phase::Inferring);
    // Two minutes later it pays all that it ever will.
    net.chain.advance_ms(120_000).unwrap();
    let task = net.until(id, "ended", |task| task.task.phase.is_final()).await;
    assert_eq!(task.task.ending, Ending::Undelivered);
    let balances = net.client.view().await.unwrap().balances(&net.root.account()).await.unwrap();
    assert_eq!(balances.credit, task.task.terms.keeper_fee);
    keeper.shutdown();
    keeper.wait().await.unwrap();
}

/// The contract answers with short pages, and tasks that are over stay in them until they are collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_starts_late_finds_tasks_beyond_the_first_page() {
    let net = Net::start().await;
    let _nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let mut ids = Vec::new();
    for number in 0..=TASKS_PAGE {
        let input = net.prompt(&format!("Who finds number {number}?")).await;
        ids.push(net.request_only(input, 1, 3).await);
    }
    net.chain.advance_ms(121_000).unwrap();
    let keeper = net.work("keeper", &[], &scripts).await;
    for id in ids {
        net.until(id, "ended", |task| task.task.phase == Phase::Refunded).await;
    }
    keeper.shutdown();
    keeper.wait().await.unwrap();
}

/// One evaluator of three commits, and the two that do not are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn empty_seats_are_filled_and_the_task_settles() {
    let net = Net::start().await;
    let present = net.scripted(1, 1, "//operator").await;
    let absent = net.scripted(0, 2, "//absent").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &present, &scripts).await;
    let id = net.ask("Who sits in for them?", 1, 3).await;
    net.until(id, "scored by one", |task| task.task.clock().committed == 1).await;
    let substitutes = net.scripted(0, 2, "//substitutes").await;
    let other = net.work("substitutes", &substitutes, &scripts).await;
    // They are in the draws from the next epoch on, or where the sealed epoch has no one else.
    net.chain.advance_ms(121_000).unwrap();
    let task = net.until(id, "over", |task| task.task.phase.is_final()).await;
    assert!(task.task.filled, "{task:#?}");
    for node in &absent {
        assert!(net.node(node.id).await.node.slashed > 0, "node {}", node.id);
    }
    for node in present.iter().chain(&substitutes) {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    for worker in [worker, other] {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}

/// The requester is away: what it pays for goes its way, and whoever delivered is paid.
#[tokio::test(flavor = "multi_thread")]
async fn openings_go_on_chain_where_the_requester_is_away() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.request_only(net.prompt("Is anybody there?").await, 2, 3).await;
    net.until(id, "answered", |task| task.task.clock().delivered == 2).await;
    net.chain.advance_ms(29_000).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(net.task(id).await.task.clock().opened, 0, "a quarter of the time is the requester's");
    net.chain.advance_ms(2_000).unwrap();
    net.until(id, "opened", |task| task.task.clock().opened == 2).await;
    let opened = net.events().await.iter().filter(|event| event.name() == "OutputsOpened").count();
    assert_eq!(opened, 1, "two openings of one operator share a transaction");

    // It is back in the second half, and needs nothing from the nodes.
    net.chain.advance_ms(40_000).unwrap();
    net.see_through(id, true);
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);

    // And never comes back.
    let id = net.request_only(net.prompt("And now?").await, 2, 3).await;
    net.until(id, "answered", |task| task.task.clock().delivered == 2).await;
    net.chain.advance_ms(31_000).unwrap();
    net.until(id, "opened", |task| task.task.clock().opened == 2).await;
    net.chain.advance_ms(90_000).unwrap();
    let task = net.until(id, "ended", |task| task.task.phase.is_final()).await;
    assert_eq!(task.task.ending, Ending::NoSecret);
    for slot in &task.task.outputs {
        let node = net.node(slot.node).await.node;
        assert!(node.claimable >= task.task.terms.inference_slot && node.slashed == 0, "{node:?}");
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}

/// Nobody relays: the evaluators reveal by themselves, the first for all.
#[tokio::test(flavor = "multi_thread")]
async fn evaluators_reveal_by_themselves_where_nobody_relays() {
    let net = Net::start().await;
    let mut nodes = net.scripted(1, 0, "//answering").await;
    let scripts = Scripts::new();
    let mut workers = vec![net.work("answering", &nodes, &scripts).await];
    for place in 0..3 {
        let own = net.scripted(0, 1, &format!("//scoring/{place}")).await;
        workers.push(net.work(&format!("scoring-{place}"), &own, &scripts).await);
        nodes.extend(own);
    }
    let id = net.request_only(net.prompt("Who tells?").await, 1, 3).await;
    net.see_through(id, false);
    net.until(id, "revealing", |task| task.task.phase == Phase::Revealing).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(net.task(id).await.task.clock().revealed, 0, "there is time for somebody else to relay");
    // The first seat's turn comes after an eighth of the time.
    net.chain.advance_ms(8_000).unwrap();
    let task = net.settled(id).await;
    let events = net.events().await;
    Counts::of(&events, id).assert_once(&task);
    let reveals = events.iter().filter(|event| event.name() == "ScoresRevealed").count();
    assert_eq!(reveals, 1, "it brought the others' along");
    for worker in workers {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}

/// What the requester gets to see, and in which order.
#[tokio::test(flavor = "multi_thread")]
async fn a_requester_sees_its_task_through() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.request_only(Source::Inline(prompt("What is inline?").to_vec()), 2, 3).await;
    let requester = net.requester(true).await;
    let mut heard = Vec::new();
    let seen = requester.see_through(&[id], |_, progress| heard.push(progress)).await.unwrap();
    let [seen] = &seen[..] else { panic!("{seen:?}") };
    let task = seen.view.clone().unwrap();
    assert_eq!(task.task.phase, Phase::Settled);
    for (slot, output) in task.task.outputs.iter().zip(&seen.outputs) {
        assert_eq!(poq_journal::blake2_256(output.as_ref().unwrap()), slot.hash);
    }
    let names: Vec<&str> = heard
        .iter()
        .filter_map(|progress| match progress {
            Progress::Sealed { delivered: 2, declined: 0 } => Some("sealed"),
            Progress::Drawn { panel } if panel.len() == 3 => Some("drawn"),
            Progress::Committed => Some("committed"),
            Progress::Ended { ending: Ending::Consensus } => Some("ended"),
            Progress::Output { .. } | Progress::Waiting { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["sealed", "drawn", "committed", "ended"], "{heard:#?}");
    // A second look, by a process that has only the key: nothing is left to do.
    let again = requester.see_through(&[id], |_, _| {}).await.unwrap();
    assert_eq!(again[0].outputs, seen.outputs);
    let refund = requester.collect(vec![id]).await.unwrap().value;
    assert_eq!(refund, task.task.refund);
    let gone = requester.see_through(&[id], |_, _| {}).await.unwrap();
    assert!(gone[0].view.is_none());
    worker.shutdown();
    worker.wait().await.unwrap();
}

fn finalize(net: &Net) {
    net.chain.with(|chain| chain.finalize_to(chain.best().number));
}

/// A secret that is shown before the seal is final could be used against the requester.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_or_revealed_before_it_is_final() {
    let config = SandboxConfig { finality: Finality::Manual, ..SandboxConfig::default() };
    let net = Net::on(config, KindParams { panel_min: 3, ..KindParams::without_auditors() }).await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("When is it final?", 1, 3).await;
    net.until(id, "answered", |task| task.task.clock().delivered == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let task = net.task(id).await.task;
    assert_eq!((task.phase, task.clock().opened), (Phase::Drawing, 0));
    finalize(&net);
    net.until(id, "committed", |task| task.task.phase == Phase::Revealing).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(net.task(id).await.task.clock().revealed, 0);
    finalize(&net);
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    worker.stop_now();
    worker.wait().await.unwrap();
}
