//! The whole life of a task over a websocket, against the spawned development node.
//!
//! `scripts/test.sh` builds the node and names it in `POQ_NODE`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use poq_chain::deploy::{find_or_deploy, Artifact};
use poq_chain::signer::Keys;
use poq_chain::types::{
    Commit, GlobalParams, KindParams, Phase, Purpose, Registration, Reveal, Role, Score, TaskInput,
};
use poq_chain::{commit, messages, to_ink, Client, Options};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const UNIT: u128 = 1_000_000_000_000;

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
    let path = std::env::var_os("POQ_NODE").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/poq/target")
        });
        cache.join("node/release/poq-node")
    });
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

fn keys(uri: &str) -> Keys {
    Keys::from_uri(&uri.to_string().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_node_a_task_goes_from_request_to_claim() {
    let node = spawn();
    let started = Instant::now();
    let client = Client::connect(&node.url, None, Options::default()).await.unwrap();
    let artifact =
        Artifact::load(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.wasm"))
            .unwrap();
    let owner = client.submitter(keys("//Alice"));
    let global = GlobalParams { unbonding_ms: 1_000, archive_ms: 3_600_000, audit_bond: UNIT };
    let deployed = find_or_deploy(&owner, &artifact, global, b"test").await.unwrap();
    assert!(deployed.created);
    let again = find_or_deploy(&owner, &artifact, global, b"test").await.unwrap();
    assert_eq!((again.address, again.created), (deployed.address, false));

    let client = client.with_contract(deployed.address);
    let owner = client.submitter(keys("//Alice"));
    owner.send(messages::set_kind(1, KindParams::without_auditors())).await.unwrap();

    // One inference node and three evaluators, each of another account.
    let mut nodes = Vec::new();
    for (index, uri) in ["//Bob", "//Charlie", "//Dave", "//Eve"].into_iter().enumerate() {
        let account = client.submitter(keys(uri));
        let registration = Registration {
            role: if index == 0 { Role::Inference } else { Role::Evaluator },
            kind: 1,
            operator: to_ink(&account.account()),
            payee: to_ink(&account.account()),
            model: format!("model {index}"),
            model_digest: [index as u8; 32],
            endpoint: "http://127.0.0.1:9".into(),
            price: 0,
        };
        let id = account.send(messages::register(registration, 200 * UNIT)).await.unwrap().value;
        nodes.push((id, keys(uri)));
    }
    let requester = client.submitter(keys("//Ferdie"));
    let input = TaskInput { hash: [5; 32], url: "http://127.0.0.1:9".into() };
    let id = requester.send(messages::request_task(1, 1, 3, input, [7; 32], 10 * UNIT)).await.unwrap().value;

    let (answering, bob) = &nodes[0];
    let salt = bob.salt(&deployed.address, id, *answering, Purpose::Output);
    let commitment = commit::output(&deployed.address, id, *answering, &[1; 32], &salt);
    client
        .submitter(bob.clone())
        .send(messages::commit_outputs(vec![Commit { task: id, node: *answering, commitment }]))
        .await
        .unwrap();
    owner.send(messages::draw_panel(id)).await.unwrap();

    let reveal = |node: u32, keys: &Keys| Reveal {
        task: id,
        node,
        scores: vec![Score::of(poq_chain::types::Ratio::from_permille(800))],
        report_hash: [0; 32],
        salt: keys.salt(&deployed.address, id, node, Purpose::Scores),
    };
    for (evaluator, keys) in &nodes[1..] {
        let r = reveal(*evaluator, keys);
        let commitment =
            commit::scores(&deployed.address, id, *evaluator, &r.scores, &r.report_hash, &r.salt);
        client
            .submitter(keys.clone())
            .send(messages::commit_scores(id, *evaluator, commitment))
            .await
            .unwrap();
    }
    for (evaluator, keys) in &nodes[1..] {
        client.submitter(keys.clone()).send(messages::reveal_scores(reveal(*evaluator, keys))).await.unwrap();
    }
    owner.send(messages::settle(id)).await.unwrap();

    let view = client.view().await.unwrap();
    assert_eq!(view.task(id).await.unwrap().unwrap().task.phase, Phase::Settled);
    let explanation = poq_chain::explain::explain(&client, id).await.unwrap();
    assert!(explanation.agrees(), "{:?}", explanation.differences);

    let credited = view.node(*answering).await.unwrap().unwrap().node.claimable;
    assert!(credited > 0);
    let paid = client.submitter(bob.clone()).send(messages::claim(*answering)).await.unwrap().value;
    assert_eq!(paid, credited);
    requester.send(messages::collect(vec![id])).await.unwrap();

    // Finalisation follows sealing within seconds.
    let best = client.best().await.unwrap().number;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.finalized().await.unwrap().number < best {
        assert!(Instant::now() < deadline, "block {best} is not finalised after 30 s");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("the whole life took {:.1} s on the node", started.elapsed().as_secs_f64());
}
