//! Nodes that are not there, go away, hang or forget.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use futures::StreamExt;
use poq_chain::types::{Change, Draw, Request, Role};
use poq_chain::{messages, At, Class, Client, Confirm, Error, Options, SendOptions};
use poq_sandbox::{SandboxConfig, SandboxNode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn within<T>(seconds: u64, future: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), future).await.expect("took too long")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_node_is_named_with_a_hint() {
    let error = Client::connect("ws://127.0.0.1:1", None, options()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
    let text = error.to_string();
    assert!(
        text.contains("ws://127.0.0.1:1") && text.contains("refused") && text.contains("running"),
        "{text}"
    );
    // Something that answers and is no node.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
        }
    });
    let error = Client::connect(&url, None, options()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let error = Client::connect("http://127.0.0.1:9944", None, options()).await.unwrap_err();
    assert!(matches!(error, Error::Url { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_late_is_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let patient = Options { connect_patience: Duration::from_secs(30), ..options() };
    let connecting =
        tokio::spawn(async move { Client::connect(&format!("ws://{address}"), None, patient).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let _server = node.serve_ws(address).await.unwrap();
    let client = within(30, connecting).await.unwrap().unwrap();
    assert_eq!(client.best().await.unwrap().number, 0);
    assert_eq!(client.chain().existential_deposit, 1_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_takes_over_when_one_goes_away() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let first = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let second = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let urls = format!("{}, {}", first.url(), second.url());
    let client = Client::connect(&urls, None, options()).await.unwrap();
    assert_eq!(client.endpoint(), first.url());
    let alice = client.submitter(keys("//Alice"));
    let bob = keys("//Bob").account();
    alice.transfer(&bob, UNIT).await.unwrap();
    let mut blocks = client.best_blocks();

    drop(first);
    alice.transfer(&bob, UNIT).await.unwrap();
    assert_eq!(client.endpoint(), second.url());
    assert!(client.is_connected());
    // The stream of blocks has moved over as well.
    let best = client.best().await.unwrap();
    within(10, async { while blocks.next().await.unwrap().number < best.number {} }).await;
    assert_eq!(client.account(&alice.account(), At::Best).await.unwrap().nonce, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_is_no_replacement() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let other = SandboxNode::start(SandboxConfig::default().endow([9u8; 32].into(), UNIT)).unwrap();
    let first = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let second = other.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let urls = format!("{},{}", first.url(), second.url());
    let client = Client::connect(&urls, None, options()).await.unwrap();
    drop(first);
    let error = client.best().await.unwrap_err();
    assert!(error.to_string().contains("another chain"), "{error}");
}

/// A proxy before a node that can stop passing anything on, as a hanging node does.
struct Proxy {
    url: String,
    frozen: Arc<AtomicBool>,
}

impl Proxy {
    async fn before(target: std::net::SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let frozen = Arc::new(AtomicBool::new(false));
        let stop = frozen.clone();
        tokio::spawn(async move {
            while let Ok((down, _)) = listener.accept().await {
                let up = TcpStream::connect(target).await.unwrap();
                let ((down_read, down_write), (up_read, up_write)) = (down.into_split(), up.into_split());
                tokio::spawn(pass(down_read, up_write, stop.clone()));
                tokio::spawn(pass(up_read, down_write, stop.clone()));
            }
        });
        Proxy { url, frozen }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    frozen: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count) = from.read(&mut buffer).await {
        while frozen.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_left() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let backup = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let proxy = Proxy::before(server.url().trim_start_matches("ws://").parse().unwrap()).await;
    let hasty = Options {
        silence: Duration::from_millis(400),
        request_timeout: Duration::from_millis(800),
        ..options()
    };
    let client = Client::connect(&format!("{},{}", proxy.url, backup.url()), None, hasty).await.unwrap();
    assert_eq!(client.endpoint(), proxy.url);
    let mut blocks = client.best_blocks();
    proxy.frozen.store(true, Ordering::Relaxed);
    // Nobody asks anything: the monitor notices by itself, and heads come from the other endpoint.
    let started = Instant::now();
    within(20, async {
        while client.endpoint() != backup.url() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let block = node.new_block().unwrap();
    within(10, async { while blocks.next().await.unwrap().number < block.number {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_chain_is_no_dead_node() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let hasty = Options { silence: Duration::from_millis(200), ..options() };
    let client = Client::connect(&server.url(), None, hasty).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(client.is_connected());
    assert!(client.last_heard() < Duration::from_millis(1_000), "{:?}", client.last_heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_subscriptions_come_back() {
    let (node, client) = chain(SandboxConfig::default()).await;
    let mut blocks = client.best_blocks();
    assert_eq!(blocks.next().await.unwrap().number, 0);
    for _ in 0..3 {
        node.drop_subscriptions();
        let block = node.new_block().unwrap();
        within(10, async { while blocks.next().await.unwrap().number < block.number {} }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_on_the_nodes_side_is_sat_out() {
    let world = World::new().await;
    for method in ["state_call", "system_accountNextIndex", "state_getStorage", "chain_getBlock"] {
        world.node.fail_next(method, 2);
        world
            .owner
            .send(messages::set_paused(true))
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"));
    }
    // A submission that fails in the node may have got through: it is looked for, and handed over again.
    world.node.fail_next("author_submitAndWatchExtrinsic", 1);
    let before = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
    within(20, world.owner.transfer(&keys("//Bob").account(), UNIT)).await.unwrap();
    let after = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
    assert_eq!(after, before + 1);
    // More than is worth sitting out.
    world.node.fail_next("state_call", 1_000);
    let error = world.client.view().await.unwrap().paused().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
}

/// What nodes and providers say to those who ask too often.
const BUSY: [(i32, &str); 4] = [
    (-32_999, "RPC rate limit exceeded"),
    (-32_009, "Server is busy, try again later"),
    (-32_005, "daily request count exceeded, request rate limited"),
    (429, "Too Many Requests"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_each_third_call_is_asked_again() {
    let world = World::new().await;
    let bob = keys("//Bob").account();
    for (code, message) in BUSY {
        world.node.refuse_every(3, code, message);
        let view = world.client.view().await.unwrap();
        assert!(!view.paused().await.unwrap());
        assert!(view.all_nodes().await.unwrap().is_empty());
        world.owner.send(messages::set_paused(false)).await.unwrap();
        let before = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
        world.owner.transfer(&bob, UNIT).await.unwrap();
        let after = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
        assert_eq!(after, before + 1, "{message}");
        assert!(world.node.refuse_every(0, 0, "") > 3, "{message}: nothing was refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_and_deploys_through_refusals() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    // From the first request on, subscriptions too. Not every second one: a call that asks one thing before it sends would then be
    // refused for ever, or never.
    node.refuse_every(3, -32_999, "RPC rate limit exceeded");
    let client = within(60, Client::connect(&server.url(), None, options())).await.unwrap();
    let alice = client.submitter(keys("//Alice"));
    let deployed = poq_chain::deploy::deploy(&alice, &artifact(), &setup(), b"busy").await.unwrap();
    let client = client.with_contract(deployed.address);
    assert_eq!(client.view().await.unwrap().node_count().await.unwrap(), 0);
    assert!(node.refuse_every(0, 0, "") > 5);
    // Heads come again once the subscriptions stand.
    let mut blocks = client.best_blocks();
    within(30, async {
        loop {
            let block = node.new_block().unwrap();
            if blocks.next().await.unwrap().number >= block.number {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_everything_is_given_up_in_the_end() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let hasty = Options { busy_patience: Duration::from_secs(1), ..options() };
    let client = Client::from_rpc(node.rpc_client(), None, hasty).await.unwrap();
    node.refuse_every(1, -32_999, "RPC rate limit exceeded");
    let started = Instant::now();
    let error = client.best().await.unwrap_err();
    assert!(error.is_busy() && started.elapsed() >= Duration::from_secs(1), "{error}");
    assert_eq!(error.class(), Class::Transient);
    // What the node says of the request itself is no reason to ask again.
    node.refuse_every(1, -32_601, "Method not found");
    let started = Instant::now();
    assert_eq!(client.best().await.unwrap_err().class(), Class::Fatal);
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_is_asked_where_one_refuses_everything() {
    // Two nodes of one chain: the same genesis block.
    let first = SandboxNode::start(SandboxConfig::default()).unwrap();
    let second = SandboxNode::start(SandboxConfig::default()).unwrap();
    let (one, two) = (
        first.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap(),
        second.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap(),
    );
    let urls = format!("{},{}", one.url(), two.url());
    let client = Client::connect(&urls, None, options()).await.unwrap();
    assert_eq!(client.endpoint(), one.url());
    first.refuse_every(1, 429, "Too Many Requests");
    within(20, client.best()).await.unwrap();
    assert_eq!(client.endpoint(), two.url());
    // Nor is it waited for when it is the first to be connected to.
    let client = within(20, Client::connect(&urls, None, options())).await.unwrap();
    assert_eq!(client.endpoint(), two.url());
}

/// Ten calls of one key from ten programs, which know nothing of each other's nonces.
#[tokio::test(flavor = "multi_thread")]
async fn ten_calls_of_one_key_at_once_all_land() {
    for sealing in [poq_sandbox::Sealing::Instant, poq_sandbox::Sealing::Interval(Duration::from_millis(300))]
    {
        let world = World::with(SandboxConfig { sealing, ..SandboxConfig::default() }).await;
        let bob = keys("//Bob").account();
        let before = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
        let gathering = Arc::new(tokio::sync::Barrier::new(10));
        let calls = (0..10u8).map(|index| {
            let (rpc, contract) = (world.node.rpc_client(), world.contract());
            let gathering = gathering.clone();
            tokio::spawn(async move {
                let client = Client::from_rpc(rpc, Some(contract), options()).await.unwrap();
                let sender = client.submitter(keys("//Alice"));
                gathering.wait().await;
                match index {
                    0 | 1 => poq_chain::deploy::deploy(&sender, &artifact(), &setup(), &[index])
                        .await
                        .map(|deployed| assert!(deployed.created)),
                    2..=4 => sender.transfer(&bob, UNIT).await.map(drop),
                    // Not to be made twice, and still tried again where another call had its nonce.
                    5 | 6 => {
                        let registration = registration(Role::Evaluator, index, &sender.account());
                        sender.send(messages::register(registration, 10 * UNIT)).await.map(drop)
                    }
                    _ => sender.send(messages::set_paused(false)).await.map(drop),
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            within(90, call).await.unwrap().unwrap();
        }
        let after = world.client.account(&world.owner.account(), At::Best).await.unwrap().nonce;
        assert_eq!(after, before + 10, "each call once, {sealing:?}");
        assert_eq!(world.client.view().await.unwrap().node_count().await.unwrap(), 2);
    }
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The only test of this program that logs: a subscriber is for the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn no_error_and_no_log_line_holds_a_nodes_key() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        // jsonrpsee tells the address that it connects to at `debug`: `poq` never lets that through. The server here is the
        // node, which knows its own address.
        .with_env_filter("trace,jsonrpsee-client=info,soketto=info,jsonrpsee-server=info")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let other = SandboxNode::start(SandboxConfig::default().endow([9u8; 32].into(), UNIT)).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let strange = other.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let secret = |address: String| format!("ws://user:SECRET@{address}/v3/SECRET?apikey=SECRET");
    let keyed = secret(server.address().to_string());
    let mut told = Vec::new();

    let hasty = Options {
        silence: Duration::from_millis(300),
        request_timeout: Duration::from_millis(500),
        read_retries: 1,
        ..options()
    };
    let urls = format!("{keyed},{}", secret(strange.address().to_string()));
    let client = Client::connect(&urls, None, hasty.clone()).await.unwrap();
    assert_eq!(client.endpoint(), format!("ws://***@{}/v3/***?***", server.address()));
    assert!(client.endpoint_has_secret());
    told.push(format!("{client:?} {:?}", client.chain()));
    node.refuse_every(1, -32_601, "Method not found");
    told.push(client.best().await.unwrap_err().to_string());
    node.refuse_every(0, 0, "");
    let absent = client.with_contract(poq_chain::AccountId32([7; 32]));
    told.push(absent.code_hash().await.unwrap_err().to_string());
    // The first goes away, and the second is of another chain.
    drop(server);
    let gone = std::time::Instant::now() + Duration::from_secs(20);
    while client.best().await.is_ok() {
        assert!(std::time::Instant::now() < gone, "a server that is gone still answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        let error = client.best().await.unwrap_err();
        told.push(format!("{error} {error:?}"));
    }
    for bad in [
        secret("127.0.0.1:1".into()),
        secret("no-such-host.invalid:9944".into()),
        keyed.replace("ws://", "http://"),
        keyed.replace("ws://", ""),
        keyed.replace("127.0.0.1", ""),
    ] {
        let error = Client::connect(&bad, None, hasty.clone()).await.unwrap_err();
        told.push(format!("{error} {error:?}"));
    }
    let written = client.endpoint();
    let error = Client::connect(&written, None, hasty).await.unwrap_err().to_string();
    assert!(error.contains("--url"), "{error}");
    for text in &told {
        assert!(!text.contains("SECRET"), "{text}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("connected to the node"), "{log}");
    let leak = log.lines().find(|line| line.contains("SECRET"));
    assert_eq!(leak, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_is_found_again() {
    let world = World::new().await;
    world.node.set_offline(true);
    let error = world.client.best().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    let client = world.client.clone();
    let waiting = tokio::spawn(async move {
        let mut blocks = client.best_blocks();
        loop {
            if blocks.next().await.unwrap().number > 3 {
                return;
            }
        }
    });
    world.node.set_offline(false);
    for _ in 0..4 {
        world.node.new_block().unwrap();
    }
    within(20, waiting).await.unwrap();
    world.owner.send(messages::set_paused(true)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_does_not_lose_a_calls_outcome() {
    let node = SandboxNode::start(SandboxConfig {
        sealing: poq_sandbox::Sealing::Manual,
        ..SandboxConfig::default()
    });
    let node = node.unwrap();
    let first = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let second = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client =
        Client::connect(&format!("{},{}", first.url(), second.url()), None, options()).await.unwrap();
    let alice = client.submitter(keys("//Alice"));
    let sending = {
        let alice = alice.clone();
        tokio::spawn(async move { alice.transfer(&keys("//Bob").account(), UNIT).await })
    };
    // It is in the pool, and in no block; then the connection on which it is watched goes.
    within(10, async {
        while node
            .with(|chain| chain.next_nonce(&poq_sandbox::account_of(&poq_sandbox::dev::alice())))
            .unwrap()
            == 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished());
    let block = node.new_block().unwrap();
    let receipt = within(20, sending).await.unwrap().unwrap();
    assert_eq!(receipt.block.number, block.number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_block_takes_expires() {
    let config = SandboxConfig { sealing: poq_sandbox::Sealing::Manual, ..SandboxConfig::default() };
    let (node, _) = chain(config).await;
    // Once: a call that is sure never to be in a block is sent again otherwise.
    let once = Options { send_retries: 0, ..options() };
    let client = Client::from_rpc(node.rpc_client(), None, once).await.unwrap();
    // Two calls; the pool forgets both with the node's state of before.
    let empty = node.snapshot();
    let alice = client.submitter(keys("//Alice"));
    let sending = {
        let alice = alice.clone();
        tokio::spawn(async move { alice.transfer(&keys("//Bob").account(), UNIT).await })
    };
    within(10, async {
        while node
            .with(|chain| chain.next_nonce(&poq_sandbox::account_of(&poq_sandbox::dev::alice())))
            .unwrap()
            == 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    node.restore(&empty);
    node.drop_subscriptions();
    // Its mortality is 64 blocks, none of which takes it: it is handed over again only after a while.
    node.with(|chain| {
        for _ in 0..70 {
            chain.new_block().unwrap();
        }
    });
    let error = within(30, sending).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(error.class(), Class::Stale);
}

/// With POQ_TEST_NODE_URL set (a development node with Alice's money), the same client on a real node.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_behaves_the_same() {
    let Ok(url) = std::env::var("POQ_TEST_NODE_URL") else { return };
    let client = Client::connect(&url, None, options()).await.unwrap();
    println!("{:?} {:?}", client.chain(), client.best().await.unwrap());
    let alice = client.submitter(keys("//Alice"));
    let salt: [u8; 8] = rand::random();
    let deployed = poq_chain::deploy::find_or_deploy(&alice, &artifact(), &setup(), &salt).await.unwrap();
    assert!(deployed.created);
    let client = client.with_contract(deployed.address);
    assert_eq!(client.code_hash().await.unwrap(), artifact().code_hash);
    let owner = client.submitter(keys("//Alice"));
    owner.send(messages::propose(Change::Kind(KIND, params()))).await.unwrap();
    let mut nodes = Vec::new();
    for (role, index) in
        [(Role::Inference, 0), (Role::Evaluator, 1), (Role::Evaluator, 2), (Role::Evaluator, 3)]
    {
        let sender = client.submitter(keys(&format!("//Real//{index}")));
        owner.transfer(&sender.account(), 1_000 * UNIT).await.unwrap();
        let id = sender
            .send(messages::register(registration(role, index, &sender.account()), 200 * UNIT))
            .await
            .unwrap();
        nodes.push((id.value, sender));
    }
    // Many at once, and one until it is final.
    let (node, sender) = nodes[0].clone();
    let stakes = (0..10u128).map(|index| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(messages::stake(node, UNIT + index)).await })
    });
    for stake in stakes.collect::<Vec<_>>() {
        stake.await.unwrap().unwrap();
    }
    let until_final = SendOptions { confirm: Some(Confirm::Finalized), ..SendOptions::default() };
    let receipt = owner.send_with(messages::set_paused(false), until_final).await.unwrap();
    assert!(client.finalized().await.unwrap().number >= receipt.block.number);
    // A panel right after the commitment: nobody else makes blocks here.
    let network = client.network().await.unwrap();
    let asked = Request { nodes: vec![node], ..request(&network, owner.keys(), 1, 3) };
    let secret = owner.keys().request_secret(&network, &asked.reference_commitment);
    let task = owner.send(messages::request_task(asked)).await.unwrap().value;
    let opened = opened(&network, &sender, task, node);
    let commitment = network.output(task, node, &opened.hash, &opened.salt);
    sender.send(messages::commit_output(task, node, commitment)).await.unwrap();
    let drawn =
        owner.send(messages::draw_panel(Draw { task, secret, openings: vec![Some(opened)] })).await.unwrap();
    assert!(drawn.value);
    assert_eq!(drawn.events.len(), 1);
    let record = client.view().await.unwrap().task(task).await.unwrap().unwrap();
    assert_eq!(record.task.panel.len(), 3);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(client.upcoming().timestamp_ms.abs_diff(wall) < 20_000);
}
