//! Stopping: what is open is finished, what is new is left for the next start.

use std::time::{Duration, Instant};

use crate::support::{Counts, Net, Scripts, PATIENCE};
use poq_chain::types::Phase;

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_the_answer_that_is_being_made() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::slow(Duration::from_secs(2));
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("Is there time?", 1, 3).await;
    let begun = Instant::now();
    while scripts.calls.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.shutdown();
    worker.wait().await.unwrap();
    assert_eq!(net.task(id).await.task.clock().delivered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_the_reveal_of_what_was_committed() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 2, "//operator").await;
    let scripts = Scripts::new();
    // Two of three evaluators here; the third is late.
    let late = net.scripted(0, 1, "//late").await;
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("Who is late?", 1, 3).await;
    net.until(id, "scored by two", |task| task.task.clock().committed == 2).await;
    worker.shutdown();
    let waiting = tokio::spawn(worker.wait());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "reveals were still to come");

    let other = net.work("late", &late, &scripts).await;
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    other.stop_now();
    other.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_stops_at_once_and_a_stopped_one_goes_on_where_it_was() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let begun = Instant::now();
    worker.shutdown();
    worker.wait().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let id = net.ask("Still there?", 1, 3).await;
    assert_eq!(net.task(id).await.task.phase, Phase::Inferring);
    let worker = net.work("worker", &nodes, &scripts).await;
    net.settled(id).await;
    worker.shutdown();
    worker.wait().await.unwrap();
}
