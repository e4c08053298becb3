//! The whole life of a task over a websocket, against the spawned development node.
//!
//! `scripts/test.sh` builds the node and names it in `POQ_NODE`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{artifact, keys, options, params, setup, World};
use poq_chain::deploy::{find_or_deploy, Setup};
use poq_chain::types::{Phase, Role};
use poq_chain::{messages, Client};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Long enough for the transactions of a test to begin and end in the same one, most of the time.
const EPOCH_MS: u64 = 10_000;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A node that is killed when the test ends, however it ends.
struct Node {
    child: Child,
    url: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let path = std::env::var_os("POQ_NODE").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| {
                let home = std::env::var_os("HOME").expect("HOME is set");
                PathBuf::from(home).join(".cache/poq/target")
            });
            target.join("release/poq-node")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "there is no node at {}: run scripts/build-node.sh, or name one in POQ_NODE",
        path.display()
    );
    path
}

fn spawn() -> Node {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new(binary())
        .args(["--dev", "--tmp", "--no-prometheus", "--no-telemetry", "--rpc-port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the node starts");
    let log = BufReader::new(child.stderr.take().unwrap());
    let (ready, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        for line in log.lines().map_while(Result::ok) {
            if line.contains("Running JSON-RPC server") {
                let _ = ready.send(Ok(()));
            }
            seen.push(line);
        }
        let _ = ready.send(Err(seen.join("\n")));
    });
    match waiting.recv_timeout(Duration::from_secs(60)) {
        Ok(Ok(())) => Node { child, url: format!("ws://127.0.0.1:{port}") },
        Ok(Err(log)) => panic!("the node stopped:\n{log}"),
        Err(_) => panic!("the node did not open its RPC port within a minute"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_node_a_task_goes_from_request_to_claim() {
    let node = spawn();
    let started = Instant::now();
    let client = Client::connect(&node.url, None, options()).await.unwrap();
    let setup = Setup { epoch_ms: EPOCH_MS, ..setup() };
    let alice = client.submitter(keys("//Alice"));
    let deployed = find_or_deploy(&alice, &artifact(), &setup, b"twice").await.unwrap();
    assert!(deployed.created);
    let again = find_or_deploy(&alice, &artifact(), &setup, b"twice").await.unwrap();
    assert_eq!((again.address, again.created), (deployed.address, false));

    // One inference node and three evaluators, each of another account.
    let world = World::on(node, client, setup, params()).await;
    let answering = world.nodes(Role::Inference, 1).await;
    let panel = world.nodes(Role::Evaluator, 3).await;
    let requester = world.sender("//Ferdie").await;
    // They are drawn from the next epoch on.
    let registered = world.client.best().await.unwrap().timestamp_ms;
    let next = (registered / EPOCH_MS + 1) * EPOCH_MS;
    tokio::time::sleep(Duration::from_millis(next.saturating_sub(now_ms()) + 500)).await;

    let task = world.request(&requester, 1, 3).await;
    let (node, sender) = &answering[0];
    world.deliver(sender, task, *node).await;
    let draw = world.drawing(&requester, &answering, task).await;
    // The seed has the hash of the block that sealed the answers, and so it is drawn a block later.
    requester.send(messages::draw_panel(draw)).await.unwrap();
    world.score(&panel, task).await;

    // The last reveal has settled it.
    assert_eq!(world.task(task).await.phase, Phase::Settled);
    let client = &world.client;
    let explanation = poq_chain::explain::explain(client, task).await.unwrap();
    assert!(explanation.agrees(), "{:?}", explanation.differences);

    let credited = client.view().await.unwrap().node(*node).await.unwrap().unwrap().node.claimable;
    assert!(credited > 0);
    assert_eq!(sender.send(messages::claim(*node)).await.unwrap().value, credited);
    requester.send(messages::collect(vec![task])).await.unwrap();

    // Finalisation follows sealing within seconds.
    let best = client.best().await.unwrap().number;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.finalized().await.unwrap().number < best {
        assert!(Instant::now() < deadline, "block {best} is not finalised after 30 s");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("the whole life took {:.1} s on the node", started.elapsed().as_secs_f64());
}
