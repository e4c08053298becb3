//! Bad input, bad neighbours, bad luck: what a worker does then, and what it never does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use poq_blobs::{BlobStore, Slot};
use poq_chain::types::{
    Ending, Hash, Open, Opened, OutputState, Phase, Purpose, Ratio, Role, Score, SeatState, Source, TaskId,
};
use poq_chain::{commit, messages, PoqEvent};
use poq_journal::{Duty, Journal, Payload};
use poq_worker::{Models, Readiness, Worker};

use crate::support::{
    free_port, prompt, scripted_digest, serve, Counts, Net, Node, Scripts, GENERATOR, PATIENCE, SCORERS,
};

async fn metrics(address: SocketAddr) -> String {
    reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap()
}

async fn stop(worker: poq_worker::WorkerHandle) {
    worker.stop_now();
    worker.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_model_ends_the_worker_with_what_to_do() {
    let net = Net::start().await;
    let digest = poq_inference::ModelDigest([1; 32]);
    let node =
        net.register(Role::Inference, "smollm2-135m-instruct", digest, "//operator", free_port()).await;
    let mut config = net.config("worker", std::slice::from_ref(&node));
    config.models_dir = Some(net.dir.path().join("no-models"));
    let worker = Worker::start(config, net.deps(&[node], Models::new()).await).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, worker.wait()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("smollm2-135m-instruct") && error.contains("install-models"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_wrong_role_is_refused() {
    let net = Net::start().await;
    let digest = poq_inference::ModelDigest([1; 32]);
    let node = net.register(Role::Inference, "all-minilm-l6-v2", digest, "//operator", free_port()).await;
    let config = net.config("worker", std::slice::from_ref(&node));
    let worker = Worker::start(config, net.deps(&[node], Models::new()).await).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, worker.wait()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("all-minilm-l6-v2") && error.contains("inference node cannot run"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_cannot_be_had_is_declined_when_patience_ends() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;

    // Nobody serves there.
    let url = format!("http://127.0.0.1:{}", free_port());
    let id = net.request(Source::Url { hash: [9; 32], url }, 2, 3).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(net.task(id).await.task.clock().declined, 0, "it may be starting");
    // The margin before the deadline is for telling.
    net.chain.advance_ms(109_000).unwrap();
    let task = net.until(id, "ended", |task| task.task.phase.is_final()).await;
    assert_eq!(task.task.ending, Ending::Undelivered);
    assert!(task.task.outputs.iter().all(|slot| slot.state == OutputState::Declined), "{task:#?}");
    assert_eq!(scripts.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "all agree: node {}", node.id);
    }
    let declined: Vec<_> = net
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event {
            PoqEvent::Declined(event) => Some(event.items),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(declined.iter().all(|item| format!("{:?}", item.reason) == "InputUnavailable"), "{declined:?}");

    // The worker goes on with the next one.
    let id = net.ask("And now?", 2, 3).await;
    net.settled(id).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_not_what_the_task_says_or_no_prompt_is_declined_at_once() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let Source::Url { hash, url } = net.prompt("What is the capital of France?").await else { panic!() };
    // The address serves other bytes than those with this hash.
    let other = Source::Url { hash: [9; 32], url: format!("{url}/v1/blobs/{}", hex::encode(hash)) };
    let text = net.inputs.put(&b"not json"[..]).await.unwrap();
    let text = Source::Url { hash: text.0, url };
    for input in [other, text, Source::Inline(b"not json".to_vec())] {
        let id = net.request(input, 1, 3).await;
        let task = net.until(id, "ended", |task| task.task.phase.is_final()).await;
        assert_eq!(task.task.outputs[0].state, OutputState::Declined, "{task:#?}");
    }
    assert_eq!(scripts.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    stop(worker).await;
}

/// The requester serves its input to those who answer, and is gone when it is to be scored: they serve it on.
#[tokio::test(flavor = "multi_thread")]
async fn the_panel_gets_the_input_from_those_who_answered() {
    let net = Net::start().await;
    let answering = net.scripted(1, 0, "//answering").await;
    let scoring = net.scripted(0, 3, "//scoring").await;
    let scripts = Scripts::new();
    let first = net.work("answering", &answering, &scripts).await;
    let question = prompt("Where does it come from?");
    let hash = net.inputs.put(question.clone()).await.unwrap();
    let id = net.request(Source::Url { hash: hash.0, url: net.inputs_url.clone() }, 1, 3).await;
    net.until(id, "scoring", |task| task.task.phase == Phase::Scoring).await;
    // Gone.
    net.inputs.sweep(Duration::ZERO, &Default::default()).await.unwrap();
    assert!(net.inputs.get(&hash).await.is_err());
    let second = net.work("scoring", &scoring, &scripts).await;
    let task = net.settled(id).await;
    assert!(task.task.panel.iter().all(|seat| seat.scores[0].quality().is_some()), "{task:#?}");
    stop(first).await;
    stop(second).await;
}

/// The same where nobody has it: that is said, and costs the requester.
#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_nobody_has_any_more_is_told_by_the_panel() {
    let net = Net::start().await;
    let (liar, _) = liar(&net).await;
    let evaluators = net.scripted(0, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &evaluators, &scripts).await;
    let url = format!("http://127.0.0.1:{}", free_port());
    let id = net.request(Source::Url { hash: [9; 32], url }, 1, 3).await;
    commit_and_open(&net, &liar, id, commit::blake2(b"Paris")).await;
    net.until(id, "scoring", |task| task.task.phase == Phase::Scoring).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.chain.advance_ms(95_000).unwrap();
    let task = net.until(id, "ended", |task| task.task.phase.is_final()).await;
    assert_eq!(task.task.ending, Ending::InputUnavailable);
    assert!(task.task.panel.iter().all(|seat| seat.scores == vec![Score::NO_INPUT]), "{task:#?}");
    for node in &evaluators {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    stop(worker).await;
}

/// An inference node that does by hand what it does.
async fn liar(net: &Net) -> (Node, u16) {
    let port = free_port();
    (net.register(Role::Inference, GENERATOR, scripted_digest(GENERATOR), "//liar", port).await, port)
}

/// Commits to an output of this hash and opens the commitment on chain.
async fn commit_and_open(net: &Net, node: &Node, id: TaskId, hash: Hash) {
    let salt = node.operator.salt(&net.network, id, node.id, Purpose::Output);
    let submitter = net.client.submitter(node.operator.clone());
    let commitment = net.network.output(id, node.id, &hash, &salt);
    submitter.send(messages::commit_output(id, node.id, commitment)).await.unwrap();
    let opened = Opened { hash, salt };
    submitter.send(messages::open_output(Open { task: id, node: node.id, opened })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_not_what_was_committed_to_is_unavailable() {
    let net = Net::start().await;
    let (liar, port) = liar(&net).await;
    let evaluators = net.scripted(0, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &evaluators, &scripts).await;

    let id = net.ask("What is true?", 1, 3).await;
    let store = BlobStore::memory();
    let slot = Slot { network: net.network.hash, task: id, node: liar.id };
    store.put_output(&slot, &b"London"[..], [1; 32]).await.unwrap();
    serve(&net.network, store, port).await;
    commit_and_open(&net, &liar, id, commit::blake2(b"Paris")).await;

    let task = net.settled(id).await;
    assert!(task.task.panel.iter().all(|seat| seat.scores == vec![Score::UNAVAILABLE]), "{task:#?}");
    assert!(net.node(liar.id).await.node.slashed > 0);
    for node in &evaluators {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_serves_is_waited_for_and_then_unavailable() {
    let net = Net::start().await;
    let (liar, _) = liar(&net).await;
    let evaluators = net.scripted(0, 3, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &evaluators, &scripts).await;

    let id = net.ask("Where is it?", 1, 3).await;
    commit_and_open(&net, &liar, id, [5; 32]).await;
    net.until(id, "scoring", |task| task.task.phase == Phase::Scoring).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Patience lasts three quarters of the window of 120 s.
    assert_eq!(net.task(id).await.task.clock().committed, 0);
    net.chain.advance_ms(95_000).unwrap();
    let task = net.settled(id).await;
    assert!(task.task.panel.iter().all(|seat| seat.scores == vec![Score::UNAVAILABLE]), "{task:#?}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_which_it_is_too_late_is_declined() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let id = net.ask("Too late?", 1, 3).await;
    net.chain.advance_ms(119_000).unwrap();
    let scripts = Scripts::new();
    let mut config = net.config("worker", &nodes);
    config.metrics.listen = Some(([127, 0, 0, 1], 0).into());
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    // One second is left, less than the margin: no model is bothered, and that is told.
    let task = net.until(id, "refunded", |task| task.task.phase == Phase::Refunded).await;
    assert_eq!(task.task.outputs[0].state, OutputState::Declined);
    assert_eq!(scripts.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    // The worker looks when it hears of the block, so a little later than this test.
    let begun = Instant::now();
    loop {
        let text = metrics(worker.metrics_addr().unwrap()).await;
        let declined = text.contains("poq_tasks_declined_total{role=\"inference\",reason=\"too_late\"} 1");
        if declined && text.contains("poq_duties_missed_total{role=\"inference\",step=\"commit_output\"} 0") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_in_a_language_that_the_rubric_does_not_know_is_declined() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    let mut config = net.config("worker", &nodes);
    config.metrics.listen = Some(([127, 0, 0, 1], 0).into());
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let id = net.ask("谁在擒杀中领先全队？", 1, 3).await;
    let begun = Instant::now();
    // Scores that mean nothing are no scores: the three evaluators say so and commit to none.
    loop {
        let text = metrics(worker.metrics_addr().unwrap()).await;
        if text.contains("poq_tasks_declined_total{role=\"evaluator\",reason=\"prompt\"} 3") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(net.task(id).await.task.clock().committed, 0);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_has_is_what_is_committed_and_revealed() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let id = net.ask("Who is right?", 1, 3).await;
    // From an earlier life: other scores than the model would give today.
    let identity = poq_worker::identity(&net.client).await.unwrap();
    let path = net.dir.path().join("worker/journal.redb");
    let earlier = Score::of(Ratio::from_f64(0.123));
    {
        let journal = Journal::open(&path, identity).unwrap();
        for node in &nodes[1..] {
            let duty = Duty::scores(id, node.id);
            let salt = node.operator.salt(&net.network, id, node.id, Purpose::Scores);
            let payload = Payload::scores(vec![earlier], None, salt);
            let commitment = poq_journal::commitment_of(&net.network.hash, &duty, &payload).unwrap();
            journal.check_and_insert(duty, commitment, payload).unwrap();
        }
    }
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let task = net.settled(id).await;
    assert!(task.task.panel.iter().all(|seat| seat.scores == vec![earlier]), "{task:#?}");
    Counts::of(&net.events().await, id).assert_once(&task);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_of_somebody_else_is_never_revealed_and_is_told() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    // The inference node's worker; the evaluators' key is used elsewhere.
    let answering = net.work("answering", &nodes[..1], &scripts).await;
    let id = net.ask("Who committed?", 1, 3).await;
    net.until(id, "scoring", |task| task.task.phase == Phase::Scoring).await;
    let submitter = net.client.submitter(nodes[1].operator.clone());
    for node in &nodes[1..] {
        submitter.send(messages::commit_score(id, node.id, [7; 32])).await.unwrap();
    }
    let scoring = Worker::start(
        {
            let mut config = net.config("scoring", &nodes[1..]);
            config.blobs.listen = None;
            config
        },
        net.deps(&nodes[1..], scripts.models()).await,
    )
    .await
    .unwrap();
    let begun = std::time::Instant::now();
    loop {
        if let Readiness::NotReady(reasons) = scoring.readiness() {
            if reasons.iter().filter(|reason| reason.contains("cannot be revealed")).count() == 3 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{reasons:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let task = net.task(id).await;
    assert!(task.task.panel.iter().all(|seat| seat.state == SeatState::Committed), "{task:#?}");
    stop(scoring).await;
    stop(answering).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_panics_is_tried_again() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    scripts.panics.store(2, std::sync::atomic::Ordering::SeqCst);
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("Does it panic?", 1, 3).await;
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_what_keeps_nodes_from_earning() {
    let net = Net::start().await;
    let mut nodes = net.scripted(1, 1, "//operator").await;
    let owner = net.client.submitter(nodes[0].owner.clone());
    owner.send(messages::drain(nodes[0].id)).await.unwrap();
    let foreign =
        net.register(Role::Evaluator, SCORERS[0], scripted_digest(SCORERS[1]), "//operator", 1).await;
    let absent = Node { id: 99, ..nodes[1].clone() };
    nodes.extend([foreign.clone(), absent]);
    let scripts = Scripts::new();
    let mut config = net.config("worker", &nodes);
    config.metrics.listen = Some(([127, 0, 0, 1], 0).into());
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    let url = format!("http://{}/ready", worker.metrics_addr().unwrap());
    let wanted = [
        format!("node {} is draining", nodes[0].id),
        format!("node {} is registered with another model", foreign.id),
        "node 99 is not registered".to_owned(),
    ];
    let begun = std::time::Instant::now();
    loop {
        let response = reqwest::get(&url).await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        if wanted.iter().all(|reason| body.contains(reason)) && !body.contains("starting") {
            assert_eq!(status, 503);
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let health = reqwest::get(url.replace("/ready", "/health")).await.unwrap();
    assert_eq!(health.status(), 200);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_is_not_there_is_told() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 0, "//operator").await;
    let scripts = Scripts::new();
    let mut deps = net.deps(&nodes, scripts.models()).await;
    deps.chain = deps.chain.map(|client| client.with_contract(poq_chain::AccountId32([3; 32])));
    let worker = Worker::start(net.config("worker", &nodes), deps).await.unwrap();
    let reasons = worker.ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(reasons.iter().any(|reason| reason.contains("poq deploy")), "{reasons:?}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_share_a_data_folder() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 0, "//operator").await;
    let scripts = Scripts::new();
    let worker = net.work("worker", &nodes, &scripts).await;
    let mut config = net.config("worker", &nodes);
    config.blobs.listen = Some(([127, 0, 0, 1], 0).into());
    let second = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, second.wait()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("journal"), "{error}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_each_third_call_does_not_end_the_worker() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    // From the start on: connecting, the identity, the first block.
    net.chain.refuse_every(3, -32_999, "RPC rate limit exceeded");
    let worker = net.work("worker", &nodes, &scripts).await;
    for question in 0..2 {
        let id = net.ask(&format!("Question {question}?"), 1, 3).await;
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
    }
    assert!(net.chain.refuse_every(0, 0, "") > 20);
    assert!(!worker.is_finished());
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    stop(worker).await;
}

/// A refusal that looks like the request's own fault, in the middle of the work: the worker goes on, and so does the duty.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_read_while_an_evaluator_works_costs_nothing() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::slow(Duration::from_millis(400));
    let worker = net.work("worker", &nodes, &scripts).await;
    let id = net.ask("Who reads the chain?", 1, 3).await;
    for _ in 0..12 {
        net.chain.refuse_every(2, 4_003, "Client error: Execution failed: the disk is tired");
        tokio::time::sleep(Duration::from_millis(150)).await;
        net.chain.refuse_every(0, 0, "");
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!worker.is_finished());
    }
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deregistered_nodes_gauges_are_gone() {
    let net = Net::start().await;
    let nodes = net.scripted(0, 2, "//operator").await;
    let scripts = Scripts::new();
    let mut config = net.config("worker", &nodes);
    config.metrics.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let deps = net.deps(&nodes, scripts.models()).await;
    let worker = Worker::start(config, deps).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let address = worker.metrics_addr().unwrap();
    let (leaves, stays) = (&nodes[0], &nodes[1]);
    let series = |node: &Node| format!("poq_node_stake_free{{node=\"{}\"}}", node.id);
    let before = metrics(address).await;
    assert!(before.contains(&series(leaves)) && before.contains(&series(stays)), "{before}");

    let owner = net.client.submitter(leaves.owner.clone());
    let free = net.node(leaves.id).await.node.stake.bonded;
    owner.send(messages::unstake(leaves.id, free)).await.unwrap();
    let global = net.client.view().await.unwrap().global_params().await.unwrap();
    // What is on its way out ends on a grid of quarters of the unbonding time.
    net.chain.advance_ms(2 * global.unbonding_ms).unwrap();
    owner.send(messages::withdraw_unbonded(leaves.id)).await.unwrap();
    owner.send(messages::deregister(leaves.id)).await.unwrap();

    let begun = Instant::now();
    let after = loop {
        let text = metrics(address).await;
        if !text.contains(&format!("node=\"{}\"", leaves.id)) {
            break text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(after.contains(&series(stays)), "{after}");
    match worker.readiness() {
        Readiness::NotReady(reasons) => {
            assert!(reasons.iter().any(|r| r.contains("is not registered")), "{reasons:?}")
        }
        Readiness::Ready => panic!("ready without its node"),
    }
    stop(worker).await;
}

/// What `blobs.public_url` and registered endpoints may be depends on who has to reach them.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_can_reach_is_refused_on_a_public_chain() {
    let live = poq_sandbox::SandboxConfig { chain_type: "Live", ..poq_sandbox::SandboxConfig::default() };
    let params =
        poq_chain::types::KindParams { panel_min: 3, ..poq_chain::types::KindParams::without_auditors() };
    for (sandbox, public) in [(live, true), (poq_sandbox::SandboxConfig::default(), false)] {
        let net = Net::on(sandbox, params.clone()).await;
        let nodes = net.scripted(1, 0, "//operator").await;
        let scripts = Scripts::new();
        let mut config = net.config("worker", &nodes);
        config.blobs.public_url = Some(format!("http://127.0.0.1:{}", nodes[0].port));
        let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
        if public {
            let error = tokio::time::timeout(PATIENCE, worker.wait()).await.unwrap().unwrap_err().to_string();
            assert!(error.contains("blobs.public_url") && error.contains("loopback"), "{error}");
            // The registered address is what evaluators ask.
            let deps = net.deps(&nodes, scripts.models()).await;
            let worker = Worker::start(net.config("again", &nodes), deps).await.unwrap();
            let begun = Instant::now();
            loop {
                if let Readiness::NotReady(reasons) = worker.readiness() {
                    if reasons
                        .iter()
                        .any(|r| r.contains("others cannot fetch from") && r.contains("loopback"))
                    {
                        break;
                    }
                }
                assert!(begun.elapsed() < PATIENCE, "{:?}", worker.readiness());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop(worker).await;
        } else {
            worker.ready(PATIENCE).await.unwrap();
            stop(worker).await;
        }
    }
}
