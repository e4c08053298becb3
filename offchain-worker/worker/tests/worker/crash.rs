//! A worker that dies between any two steps finishes its duty after a restart: one commitment each, no slash.
//!
//! The worker runs in a process of its own (this program again) against the sandbox chain served on a websocket.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use poq_chain::types::Role;
use poq_worker::config::{RoleName, TimeSource};
use poq_worker::{failpoint, run_until_signal, Deps, Worker, WorkerConfig};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::support::{keys, Counts, Net, Node, Scripts, PATIENCE};

/// What the child is told, in a file.
#[derive(Serialize, Deserialize)]
struct Orders {
    url: String,
    contract: String,
    data_dir: PathBuf,
    port: u16,
    nodes: Vec<OrderedNode>,
}

#[derive(Serialize, Deserialize)]
struct OrderedNode {
    id: u32,
    role: RoleName,
    model: String,
    operator: String,
}

const ORDERS: &str = "POQ_TEST_ORDERS";
const FAIL_AT: &str = "POQ_FAIL_AT";

/// Not a test: what the other process runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs only as the child process of the tests here"]
async fn child() {
    let Some(orders) = std::env::var_os(ORDERS) else { return };
    let orders: Orders = serde_json::from_slice(&std::fs::read(orders).unwrap()).unwrap();
    tracing_subscriber::fmt().with_env_filter("info,poq_chain=debug").with_writer(std::io::stderr).init();
    let mut config = WorkerConfig::default();
    config.data_dir = orders.data_dir;
    config.chain.urls = orders.url.parse().unwrap();
    config.chain.contract = Some(orders.contract);
    config.chain.time = TimeSource::Chain;
    config.chain.poll_interval = Duration::from_millis(500);
    config.blobs.listen = Some(([127, 0, 0, 1], orders.port).into());
    config.blobs.allow_private = Some(true);
    config.keeper.max_delay = Duration::ZERO;
    config.keeper.margin_percent = 0;
    let mut deps = Deps::default();
    for node in orders.nodes {
        deps.keys.insert(node.id, keys(&node.operator));
        deps.operator = deps.operator.or_else(|| Some(keys(&node.operator)));
        config.nodes.push(poq_worker::config::NodeConfig {
            id: node.id,
            role: node.role,
            model: node.model,
            rubric: None,
            rubric_file: None,
            key: None,
            password_file: None,
        });
    }
    let scripts = Scripts::new();
    deps.models = scripts.models();
    let worker = Worker::start(config, deps).await.unwrap();
    run_until_signal(worker).await.unwrap();
}

fn orders(net: &Net, url: String, nodes: &[Node]) -> PathBuf {
    let orders = Orders {
        url,
        contract: format!("0x{}", hex::encode(net.contract.0)),
        data_dir: net.dir.path().join("child"),
        port: nodes[0].port,
        nodes: nodes
            .iter()
            .map(|node| OrderedNode {
                id: node.id,
                role: match node.role {
                    Role::Inference => RoleName::Inference,
                    Role::Evaluator => RoleName::Evaluator,
                },
                model: node.model.clone(),
                operator: node.operator_uri.clone(),
            })
            .collect(),
    };
    let path = net.dir.path().join("orders.json");
    std::fs::write(&path, serde_json::to_vec(&orders).unwrap()).unwrap();
    path
}

fn spawn(orders: &Path, log: &Path, fail_at: Option<&str>) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .env(ORDERS, orders)
        .env_remove(FAIL_AT)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    if let Some(point) = fail_at {
        command.env(FAIL_AT, point);
    }
    command.spawn().unwrap()
}

async fn aborted(mut child: Child, point: &str, log: &Path) {
    use std::os::unix::process::ExitStatusExt;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    let text = || std::fs::read_to_string(log).unwrap();
    let status = status.unwrap_or_else(|_| panic!("{point} was never reached:\n{}", text())).unwrap();
    // SIGABRT.
    assert_eq!(status.signal(), Some(6), "{point}: {status}\n{}", text());
}

/// The points up to the output's commitment.
#[tokio::test(flavor = "multi_thread")]
async fn death_while_answering_costs_nothing() {
    death_at(&failpoint::ALL[..6]).await;
}

/// The points of opening: the requester is away until then.
#[tokio::test(flavor = "multi_thread")]
async fn death_while_opening_costs_nothing() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let server = net.chain.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let orders = orders(&net, server.url(), &nodes);
    for point in &failpoint::ALL[6..8] {
        let log = net.dir.path().join(format!("{point}.log"));
        let id = net.request_only(net.prompt(&format!("What happens at {point}?")).await, 2, 3).await;
        let child = spawn(&orders, &log, Some(point));
        net.until(id, "answered", |task| task.task.clock().delivered == 2).await;
        net.chain.advance_ms(31_000).unwrap();
        aborted(child, point, &log).await;
        let mut child = spawn(&orders, &log, None);
        net.until(id, "opened", |task| task.task.clock().opened == 2).await;
        net.see_through(id, true);
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
        child.kill().await.unwrap();
    }
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
}

/// The points from there to the end.
#[tokio::test(flavor = "multi_thread")]
async fn death_while_scoring_costs_nothing() {
    death_at(&failpoint::ALL[8..]).await;
}

async fn death_at(points: &[&str]) {
    let net = Net::start().await;
    let nodes = net.scripted(2, 6, "//operator").await;
    let server = net.chain.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let orders = orders(&net, server.url(), &nodes);
    for point in points.iter().copied() {
        let log = net.dir.path().join(format!("{point}.log"));
        let id = net.request_only(net.prompt(&format!("What happens at {point}?")).await, 2, 3).await;
        // Nobody relays reveals: they are sent by those who have to.
        net.see_through(id, false);
        let life = async {
            aborted(spawn(&orders, &log, Some(point)), point, &log).await;
            let child = spawn(&orders, &log, None);
            (net.settled(id).await, child)
        };
        let (task, mut child) = tokio::select! {
            life = life => life,
            () = net.let_reveal(id) => unreachable!("it goes on for ever"),
        };
        Counts::of(&net.events().await, id).assert_once(&task);
        for node in &nodes {
            let view = net.node(node.id).await.node;
            assert_eq!(view.slashed, 0, "{point}: node {} was slashed", node.id);
        }
        // Killed as well: nothing may depend on an orderly end.
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_time_cost_nothing() {
    let net = Net::start().await;
    let nodes = net.scripted(2, 3, "//operator").await;
    let server = net.chain.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let orders = orders(&net, server.url(), &nodes);
    let log = net.dir.path().join("kills.log");
    let mut tasks = Vec::new();
    for question in 0..3 {
        tasks.push(net.ask(&format!("Question {question}?"), 2, 3).await);
    }
    // From before the start is over to after the first duties are done.
    for wait_ms in [150, 400, 600, 700, 800, 900, 1_000, 1_200, 1_500] {
        let mut child = spawn(&orders, &log, None);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        child.kill().await.unwrap();
    }
    let _child = spawn(&orders, &log, None);
    for id in tasks {
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
    }
    for node in &nodes {
        assert_eq!(net.node(node.id).await.node.slashed, 0, "node {}", node.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_costs_nothing_while_the_key_is_there() {
    let net = Net::start().await;
    let nodes = net.scripted(1, 3, "//operator").await;
    let scripts = Scripts::new();
    // Committed, and then the disk is gone: the outputs have to be served and the scores to be revealed.
    let mut config = net.config("first", &nodes);
    config.keeper.enabled = false;
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let id = net.request_only(net.prompt("What was lost?").await, 1, 3).await;
    net.until(id, "answered", |task| task.task.clock().delivered == 1).await;
    worker.stop_now();
    worker.wait().await.unwrap();

    let worker = net.work("second", &nodes, &scripts).await;
    net.see_through(id, true);
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    assert!(net.node(nodes[0].id).await.node.claimable > 0);
    worker.stop_now();
    worker.wait().await.unwrap();
}
