//! From request to settlement.

use std::sync::atomic::Ordering;
use std::time::Duration;

use poq_chain::types::{Phase, SeatState, TASKS_PAGE};
use poq_journal::{Duty, Journal, State};
use poq_worker::Worker;

use crate::support::{Counts, Net, Scripts, PATIENCE};

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
        assert_eq!(view.node.locked, 0, "node {}", node.id);
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
        let scores = journal.get(&Duty::scores(id, seat.node, false)).unwrap().unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_needs_no_nodes() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let mut config = net.config("nodes", &nodes);
    config.keeper.enabled = false;
    let deps = net.deps(&nodes, scripts.models()).await;
    let worker = Worker::start(config, deps).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let id = net.ask("Who moves it on?", 1, 3).await;
    net.until(id, "answered", |task| task.task.clock().delivered == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(net.task(id).await.task.phase, Phase::Drawing);

    let keeper = net.work("keeper", &[], &scripts).await;
    net.settled(id).await;
    for worker in [worker, keeper] {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}

/// The contract answers with short pages, and tasks that are over stay in them until they are collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_starts_late_finds_tasks_beyond_the_first_page() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let mut config = net.config("nodes", &nodes);
    config.keeper.enabled = false;
    let deps = net.deps(&nodes, scripts.models()).await;
    let worker = Worker::start(config, deps).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..=TASKS_PAGE {
        ids.push(net.ask(&format!("Who finds number {number}?"), 1, 3).await);
    }
    for id in &ids {
        net.until(*id, "answered", |task| task.task.clock().delivered == 1).await;
    }

    let keeper = net.work("keeper", &[], &scripts).await;
    for id in ids {
        net.settled(id).await;
    }
    for worker in [worker, keeper] {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}
