//! Client and server over real sockets.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use axum::Router;
use poq_blobs::{
    blake2_256, message, Access, AccessError, AccessRequest, AccountId32, BlobClient, BlobId, BlobServer,
    BlobStore, ClientConfig, Decision, FetchClass, FetchError, Hash, RequestSigner, Resource, RevealBlob,
    Salt, ServerConfig, Slot, ACCOUNT_HEADER, SIGNATURE_HEADER, TIME_HEADER,
};
use poq_core::commitment;
use poq_core::task::{Opened, Reveal};
use poq_core::Score;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use subxt_signer::sr25519::{dev, Keypair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, Semaphore};

const NETWORK: Hash = [3; 32];
const SALT: Salt = [5; 32];
const AT: Slot = Slot { network: NETWORK, task: 7, node: 4 };

/// Alice may have everything of task 7; task 8 is still running; task 9 cannot be looked up; 10 takes until the test says
/// so, 12 for ever.
struct Rules {
    asked: AtomicUsize,
    answer: Semaphore,
}

#[async_trait]
impl Access for Rules {
    async fn decide(&self, request: &AccessRequest) -> Result<Decision, AccessError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if request.account != account(&dev::alice()) {
            return Ok(Decision::Forbidden);
        }
        match (request.task, request.resource) {
            (7, Resource::Output(99)) => Ok(Decision::NotFound),
            (7, _) => Ok(Decision::Allow),
            (8, _) => Ok(Decision::TooEarly { retry_after: Some(Duration::from_millis(2_500)) }),
            (9, _) => Err(AccessError::new("the chain is away")),
            (10, _) => {
                self.answer.acquire().await.unwrap().forget();
                Ok(Decision::Allow)
            }
            (12, _) => std::future::pending().await,
            _ => Ok(Decision::NotFound),
        }
    }
}

fn account(keypair: &Keypair) -> AccountId32 {
    RequestSigner::account(keypair)
}

struct Running {
    url: String,
    address: SocketAddr,
    store: BlobStore,
    rules: Arc<Rules>,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

async fn server_with(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let store = BlobStore::memory();
    let rules = Arc::new(Rules { asked: AtomicUsize::new(0), answer: Semaphore::new(0) });
    let mut config = ServerConfig::new(NETWORK, "127.0.0.1:0".parse().unwrap());
    change(&mut config);
    let server = BlobServer::bind(config, store.clone(), rules.clone()).await.unwrap();
    let (url, address) = (server.url(), server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(async move {
        server
            .serve(async move {
                let _ = stopped.await;
            })
            .await
            .unwrap();
    });
    Running { url, address, store, rules, stop: Some(stop), done }
}

async fn server() -> Running {
    server_with(|_| {}).await
}

fn client_with(keypair: Keypair, change: impl FnOnce(&mut ClientConfig)) -> BlobClient {
    let mut config = ClientConfig::new(NETWORK);
    config.first_backoff = Duration::from_millis(5);
    change(&mut config);
    BlobClient::new(config, Arc::new(keypair)).unwrap()
}

fn client(keypair: Keypair) -> BlobClient {
    client_with(keypair, |_| {})
}

/// Somebody else's web server.
async fn strange_server(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn commitment_to(output: &[u8], salt: &Salt) -> Hash {
    blake2_256(&commitment::output(&NETWORK, AT.task, AT.node, &blake2_256(output), salt))
}

/// A reveal with its commitment.
fn reveal() -> (Reveal, Hash) {
    let scores = vec![Score::NO_INPUT; 2];
    let reveal = Reveal { task: AT.task, node: AT.node, scores, report_hash: [0; 32], salt: SALT };
    let preimage = commitment::scores(&NETWORK, AT.task, AT.node, &reveal.scores, &[0; 32], &SALT);
    (reveal, blake2_256(&preimage))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn signed(keypair: &Keypair, path: &str, time: u64, network: &Hash) -> [(&'static str, String); 3] {
    let signature = RequestSigner::sign(keypair, &message("GET", path, time, network));
    [
        (ACCOUNT_HEADER, account(keypair).to_string()),
        (TIME_HEADER, time.to_string()),
        (SIGNATURE_HEADER, hex::encode(signature)),
    ]
}

/// A request by hand: the status and the error's code.
async fn raw(url: &str, headers: &[(&'static str, String)]) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.get(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_machine_without_certificates_still_speaks_http() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_entitled_get_what_there_is"])
        .envs([("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")])
        .status()
        .unwrap();
    assert!(status.success());
}

// ---- those who may

#[tokio::test]
async fn the_entitled_get_what_there_is() {
    let server = server().await;
    let alice = client(dev::alice());
    let input = server.store.put("a prompt").await.unwrap();
    // By the server's address, with and without a slash, and by the blob's own.
    for url in [server.url.clone(), format!("{}/", server.url), format!("{}/v1/blobs/{input}", server.url)] {
        assert_eq!(&alice.fetch_blob(&url, &input.0, 7).await.unwrap()[..], b"a prompt", "{url}");
    }
    server.store.put_output(&AT, "Paris", SALT).await.unwrap();
    let opened = alice.fetch_opening(&server.url, 7, 4, &commitment_to(b"Paris", &SALT)).await.unwrap();
    assert_eq!(opened, Opened { hash: blake2_256(b"Paris"), salt: SALT });
    assert_eq!(&alice.fetch_output(&server.url, 7, 4, &opened.hash).await.unwrap()[..], b"Paris");
    let (reveal, committed) = reveal();
    server.store.put_reveal(&AT, RevealBlob::new(&reveal).encode().unwrap()).await.unwrap();
    assert_eq!(alice.fetch_reveal(&server.url, 7, 4, &committed).await.unwrap(), reveal);
    let report = server.store.put_report(&AT, "{}").await.unwrap();
    assert_eq!(&alice.fetch_report(&server.url, 7, 4, &report.0).await.unwrap()[..], b"{}");
}

#[tokio::test]
async fn others_learn_nothing() {
    let server = server().await;
    server.store.put_output(&AT, "Paris", SALT).await.unwrap();
    let bob = client(dev::bob());
    let there = bob.fetch_opening(&server.url, 7, 4, &commitment_to(b"Paris", &SALT)).await.unwrap_err();
    assert_eq!(there.class(), FetchClass::Forbidden);
    // Not even whether it is there.
    let absent = bob.fetch_opening(&server.url, 7, 5, &[0; 32]).await.unwrap_err();
    assert!(
        matches!((&there, &absent), (
            FetchError::Forbidden { status: 403, message: one, .. },
            FetchError::Forbidden { status: 403, message: other, .. },
        ) if one == other),
        "{there} / {absent}"
    );
}

#[tokio::test]
async fn too_early_and_not_there_and_undecided() {
    let server = server().await;
    let alice = client(dev::alice());
    let early = alice.fetch_output(&server.url, 8, 4, &[0; 32]).await.unwrap_err();
    assert!(
        matches!(early, FetchError::TooEarly { retry_after: Some(after), .. } if after == Duration::from_secs(3)),
        "{early}"
    );
    assert!(early.is_transient());
    // The rules say no, the rules say yes but the store has nothing, there is no such task.
    for (task, node) in [(7, 99), (7, 5), (11, 4)] {
        let error = alice.fetch_output(&server.url, task, node, &[0; 32]).await.unwrap_err();
        assert_eq!(error.class(), FetchClass::NotThere, "{error}");
    }
    // A server that cannot ask the chain is tried again, as often as configured.
    let before = server.rules.asked.load(Ordering::SeqCst);
    let error = alice.fetch_output(&server.url, 9, 4, &[0; 32]).await.unwrap_err();
    assert_eq!(error.class(), FetchClass::Unreachable, "{error}");
    assert!(error.to_string().contains("undecided"), "{error}");
    assert_eq!(server.rules.asked.load(Ordering::SeqCst) - before, 3);
}

// ---- servers that lie

#[tokio::test]
async fn what_was_tampered_with_is_refused() {
    let server = server().await;
    let alice = client(dev::alice());
    let mismatch = |error: FetchError| {
        assert_eq!(error.class(), FetchClass::Mismatch, "{error}");
        assert!(!error.is_transient());
        error.to_string()
    };
    // Another output or another salt than what was committed to.
    let expected = commitment_to(b"Paris", &SALT);
    server.store.put_output(&AT, "Lyon", SALT).await.unwrap();
    mismatch(alice.fetch_opening(&server.url, 7, 4, &expected).await.unwrap_err());
    mismatch(alice.fetch_output(&server.url, 7, 4, &blake2_256(b"Paris")).await.unwrap_err());
    server.store.put_output(&AT, "Paris", [6; 32]).await.unwrap();
    mismatch(alice.fetch_opening(&server.url, 7, 4, &expected).await.unwrap_err());
    // The commitment of another node.
    let copied = blake2_256(&commitment::output(&NETWORK, 7, 5, &blake2_256(b"Paris"), &[6; 32]));
    mismatch(alice.fetch_opening(&server.url, 7, 4, &copied).await.unwrap_err());
    // Other scores than those that were committed to, another node's reveal, no reveal.
    let (honest, committed) = reveal();
    let other = Reveal { scores: vec![Score::UNAVAILABLE; 2], ..honest.clone() };
    server.store.put_reveal(&AT, RevealBlob::new(&other).encode().unwrap()).await.unwrap();
    mismatch(alice.fetch_reveal(&server.url, 7, 4, &committed).await.unwrap_err());
    let at = Slot { node: 5, ..AT };
    server.store.put_reveal(&at, RevealBlob::new(&honest).encode().unwrap()).await.unwrap();
    mismatch(alice.fetch_reveal(&server.url, 7, 5, &committed).await.unwrap_err());
    server.store.put_reveal(&AT, "{}").await.unwrap();
    mismatch(alice.fetch_reveal(&server.url, 7, 4, &committed).await.unwrap_err());

    // Servers that send something else.
    let liars = Router::new()
        .route("/v1/tasks/7/outputs/4", get(|| async { "Lyon" }))
        .route("/v1/tasks/7/openings/4", get(|| async { "{\"version\":1,\"hash\":\"00\"}" }))
        .route("/v1/blobs/{hash}", get(|| async { "something else" }));
    let liar = strange_server(liars).await;
    mismatch(alice.fetch_output(&liar, 7, 4, &blake2_256(b"Paris")).await.unwrap_err());
    mismatch(alice.fetch_opening(&liar, 7, 4, &expected).await.unwrap_err());
    mismatch(alice.fetch_blob(&liar, &blake2_256(b"a prompt"), 7).await.unwrap_err());
}

#[tokio::test]
async fn too_large_is_noticed_before_it_is_read() {
    let server = server().await;
    let blob = server.store.put(vec![1; 2_000]).await.unwrap();
    let small = client_with(dev::alice(), |config| config.max_blob = 1_999);
    let error = small.fetch_blob(&server.url, &blob.0, 7).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { limit: 1_999, .. }), "{error}");
    let enough = client_with(dev::alice(), |config| config.max_blob = 2_000);
    enough.fetch_blob(&server.url, &blob.0, 7).await.unwrap();

    // A stream without end and without a length: only so much is read of it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut sent = 0usize;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 100_000_000, "the client reads on and on");
        }
        sent
    });
    let error = small.fetch_blob(&url, &[0; 32], 7).await.unwrap_err();
    assert_eq!(error.class(), FetchClass::TooLarge, "{error}");
    // The client hangs up; what was sent is what fitted into the sockets' buffers.
    tokio::time::timeout(Duration::from_secs(10), sent).await.unwrap().unwrap();
}

#[tokio::test]
async fn slow_servers_are_given_up() {
    let quick = |config: &mut ClientConfig| {
        config.request_timeout = Duration::from_millis(300);
        config.attempts = 2;
    };
    let alice = client_with(dev::alice(), quick);
    // Never answers; answers, and then drips.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let dripping = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dripping_url = format!("http://{}", dripping.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = dripping.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    for url in [silent_url, dripping_url] {
        let start = Instant::now();
        let error = alice.fetch_blob(&url, &[0; 32], 7).await.unwrap_err();
        assert_eq!(error.class(), FetchClass::Unreachable, "{error}");
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(start.elapsed() > Duration::from_millis(500), "it was tried twice: {:?}", start.elapsed());
    }
    // Nobody there.
    let error = alice.fetch_blob("http://127.0.0.1:1", &[0; 32], 7).await.unwrap_err();
    assert_eq!(error.class(), FetchClass::Unreachable, "{error}");
}

#[tokio::test]
async fn a_server_that_recovers_is_fetched_from() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let flaky = Router::new().route(
        "/v1/blobs/{hash}",
        get(move |headers: HeaderMap| async move {
            assert!(headers.contains_key(SIGNATURE_HEADER));
            match counter.fetch_add(1, Ordering::SeqCst) {
                0 => StatusCode::BAD_GATEWAY.into_response(),
                1 => StatusCode::TOO_MANY_REQUESTS.into_response(),
                _ => "a prompt".into_response(),
            }
        }),
    );
    let url = strange_server(flaky).await;
    let bytes = client(dev::alice()).fetch_blob(&url, &blake2_256(b"a prompt"), 7).await.unwrap();
    assert_eq!((&bytes[..], calls.load(Ordering::SeqCst)), (&b"a prompt"[..], 3));
}

#[tokio::test]
async fn redirects_stay_with_the_host() {
    let elsewhere = strange_server(Router::new().route("/blob", get(|| async { "a prompt" }))).await;
    let away = format!("{elsewhere}/blob");
    let router = Router::new()
        .route("/here", get(|| async { Redirect::temporary("/blob") }))
        .route("/blob", get(|| async { "a prompt" }))
        .route("/away", get(move || async move { Redirect::temporary(&away) }))
        .route("/round", get(|| async { Redirect::temporary("/round") }));
    let url = strange_server(router).await;
    let alice = client(dev::alice());
    let hash = blake2_256(b"a prompt");
    assert_eq!(&alice.fetch_blob(&format!("{url}/here"), &hash, 7).await.unwrap()[..], b"a prompt");
    for path in ["away", "round"] {
        let error = alice.fetch_blob(&format!("{url}/{path}"), &hash, 7).await.unwrap_err();
        assert!(matches!(&error, FetchError::Address { .. }), "{path}: {error}");
    }
}

#[tokio::test]
async fn strangers_cannot_point_a_worker_at_anything() {
    let server = server().await;
    let strict = client_with(dev::alice(), |config| config.allow_private = false);
    let named = format!("http://localhost:{}", server.address.port());
    for url in
        [server.url.as_str(), "http://[::1]:1", "http://169.254.169.254/", "file:///etc/passwd", "nonsense"]
    {
        let error = strict.fetch_blob(url, &[0; 32], 7).await.unwrap_err();
        assert!(matches!(error, FetchError::Address { .. }), "{error}");
        assert!(!error.is_transient());
    }
    let error = strict.fetch_blob(&named, &[0; 32], 7).await.unwrap_err();
    assert!(error.to_string().contains("not on the public internet"), "{error}");
    assert_eq!(server.rules.asked.load(Ordering::SeqCst), 0, "nothing has been asked");
    // Cloud metadata is out of reach even where private addresses are allowed.
    let open = client(dev::alice());
    let error = open.fetch_blob("http://169.254.169.254/latest", &[0; 32], 7).await.unwrap_err();
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
    open.fetch_blob(&named, &server.store.put("x").await.unwrap().0, 7).await.unwrap();
}

// ---- clients that lie

#[tokio::test]
async fn requests_are_believed_only_when_signed_for_this_server_now() {
    let server = server().await;
    server.store.put_output(&AT, "Paris", SALT).await.unwrap();
    let path = "/v1/tasks/7/outputs/4";
    let url = format!("{}{path}", server.url);
    let alice = dev::alice();
    let good = signed(&alice, path, now(), &NETWORK);
    assert_eq!(raw(&url, &good).await.0, 200);
    // Once more: somebody was listening.
    assert_eq!(raw(&url, &good).await, (401, "replayed".to_owned()));
    assert_eq!(raw(&url, &[]).await, (401, "unsigned".to_owned()));
    // Bob's signature under Alice's name.
    let mut forged = signed(&dev::bob(), path, now(), &NETWORK);
    forged[0].1 = account(&alice).to_string();
    assert_eq!(raw(&url, &forged).await, (401, "bad_signature".to_owned()));
    // Signed for another path, another contract's server, another time.
    let other_path = signed(&alice, "/v1/tasks/7/outputs/5", now(), &NETWORK);
    assert_eq!(raw(&url, &other_path).await, (401, "bad_signature".to_owned()));
    let other_contract = signed(&alice, path, now(), &[4; 32]);
    assert_eq!(raw(&url, &other_contract).await, (401, "bad_signature".to_owned()));
    for time in [now() - 61_000, now() + 61_000] {
        assert_eq!(raw(&url, &signed(&alice, path, time, &NETWORK)).await, (401, "expired".to_owned()));
    }
    let mut redated = signed(&alice, path, now() - 30_000, &NETWORK);
    redated[1].1 = now().to_string();
    assert_eq!(raw(&url, &redated).await, (401, "bad_signature".to_owned()));
    assert_eq!(server.rules.asked.load(Ordering::SeqCst), 1, "only the good one was looked into");
}

#[tokio::test]
async fn a_request_to_one_deployment_is_worthless_at_another() {
    let here = server().await;
    let there = server_with(|config| config.network = [4; 32]).await;
    let blob = there.store.put("a prompt").await.unwrap();
    here.store.put("a prompt").await.unwrap();
    let path = format!("/v1/blobs/{blob}?task=7");
    let captured = signed(&dev::alice(), &path, now(), &NETWORK);
    assert_eq!(raw(&format!("{}{path}", there.url), &captured).await, (401, "bad_signature".to_owned()));
    assert_eq!(raw(&format!("{}{path}", here.url), &captured).await.0, 200);
    // The client says what it was.
    let error = client(dev::alice()).fetch_blob(&there.url, &blob.0, 7).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::Forbidden { status: 401, message, .. } if message.contains("network")),
        "{error}"
    );
}

#[tokio::test]
async fn malformed_requests_are_told_so() {
    let server = server().await;
    let alice = dev::alice();
    for (path, status, code) in [
        ("/v1/blobs/xyz?task=7", 400, "malformed"),
        ("/v1/blobs/..%2f..%2fetc?task=7", 400, "malformed"),
        (&format!("/v1/blobs/{}", BlobId([0; 32])), 400, "malformed"),
        (&format!("/v1/blobs/{}?task=-1", BlobId([0; 32])), 400, "malformed"),
        ("/v1/tasks/x/outputs/4", 400, "malformed"),
        ("/v1/tasks/7/outputs/4294967296", 400, "malformed"),
        ("/v2/anything", 404, "no_such_route"),
    ] {
        let headers = signed(&alice, path, now(), &NETWORK);
        assert_eq!(
            raw(&format!("{}{path}", server.url), &headers).await,
            (status, code.to_owned()),
            "{path}"
        );
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.post(format!("{}/v1/tasks/7/outputs/4", server.url)).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 405);
    let response = http.get(format!("{}/health", server.url)).body(vec![0; 2_000]).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 413);
    let health: serde_json::Value =
        http.get(format!("{}/health", server.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (health["status"].as_str(), health["network"].as_str()),
        (Some("ok"), Some(&*hex::encode(NETWORK)))
    );
    assert_eq!(server.rules.asked.load(Ordering::SeqCst), 0);
}

// ---- load

#[tokio::test]
async fn an_overloaded_server_says_so_and_recovers() {
    let server = server_with(|config| {
        config.max_concurrent = 2;
        config.request_timeout = Duration::from_secs(60);
    })
    .await;
    let blob = server.store.put("a prompt").await.unwrap();
    let once = |config: &mut ClientConfig| {
        config.attempts = 1;
        config.request_timeout = Duration::from_secs(60);
    };
    // Two requests that are not decided yet fill it.
    let held: Vec<_> = (0..2)
        .map(|_| {
            let (client, url) = (client_with(dev::alice(), once), server.url.clone());
            tokio::spawn(async move { client.fetch_output(&url, 10, 4, &[0; 32]).await.unwrap_err() })
        })
        .collect();
    while server.rules.asked.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = client_with(dev::alice(), once).fetch_blob(&server.url, &blob.0, 7).await.unwrap_err();
    assert!(error.to_string().contains("overloaded"), "{error}");
    // Health answers all the while.
    assert_eq!(raw(&format!("{}/health", server.url), &[]).await.0, 200);
    server.rules.answer.add_permits(2);
    for request in held {
        assert_eq!(request.await.unwrap().class(), FetchClass::NotThere);
    }
    client(dev::alice()).fetch_blob(&server.url, &blob.0, 7).await.unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let server = server_with(|config| config.request_timeout = Duration::from_millis(100)).await;
    let alice = client_with(dev::alice(), |config| config.attempts = 1);
    let error = alice.fetch_output(&server.url, 12, 4, &[0; 32]).await.unwrap_err();
    assert_eq!(error.class(), FetchClass::Unreachable);
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_served() {
    let server = server_with(|config| config.max_concurrent = 256).await;
    let blob = server.store.put("a prompt").await.unwrap();
    let alice = client(dev::alice());
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (alice, url) = (alice.clone(), server.url.clone());
            tokio::spawn(async move { alice.fetch_blob(&url, &blob.0, 7).await.unwrap() })
        })
        .collect();
    for request in requests {
        assert_eq!(&request.await.unwrap()[..], b"a prompt");
    }
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_of_a_stop() {
    let mut server = server_with(|config| config.max_connections = 4).await;
    // Says nothing at all.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let blob = server.store.put("a prompt").await.unwrap();
    client(dev::alice()).fetch_blob(&server.url, &blob.0, 7).await.unwrap();
    let start = Instant::now();
    server.stop.take().unwrap().send(()).unwrap();
    server.done.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0, "closed");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = server().await;
    let config = ServerConfig::new(NETWORK, server.address);
    let error =
        BlobServer::bind(config, BlobStore::memory(), server.rules.clone()).await.unwrap_err().to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
}

#[tokio::test]
async fn a_registered_address_is_asked_for_its_health() {
    use poq_blobs::endpoint::{check, probe, Audience, Probe};
    let endpoint = |text: &str| check(text, Audience::Development).unwrap().endpoint;
    let server = server().await;
    let found = probe(&endpoint(&server.url), Some(&NETWORK)).await;
    assert!(found.is_good() && matches!(found, Probe::Answers { .. }), "{found}");
    assert!(probe(&endpoint(&server.url), None).await.is_good());
    let found = probe(&endpoint(&server.url), Some(&[8; 32])).await;
    assert!(!found.is_good() && found.to_string().contains("another contract"), "{found}");
    // A proxy that keeps a prefix to itself.
    let health = || async {
        axum::Json(serde_json::json!({ "status": "ok", "network": hex::encode(NETWORK), "time": 0 }))
    };
    let proxied = strange_server(Router::new().route("/poq/health", get(health))).await;
    let found = probe(&endpoint(&format!("{proxied}/poq/")), Some(&NETWORK)).await;
    assert!(!found.is_good() && found.to_string().contains("clock"), "{found}");
    let failing = || async {
        let body = serde_json::json!({ "status": "failing", "network": hex::encode(NETWORK), "time": 0 });
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body))
    };
    let failing = strange_server(Router::new().route("/health", get(failing))).await;
    assert_eq!(probe(&endpoint(&failing), Some(&NETWORK)).await, Probe::Failing { status: 503 });
    let another = strange_server(Router::new().route("/health", get(|| async { "fine" }))).await;
    assert!(matches!(probe(&endpoint(&another), None).await, Probe::NoBlobServer { .. }));
    // Redirects are not followed: the endpoint is where blobs are.
    let moved = strange_server(
        Router::new().route("/health", get(|| async { Redirect::temporary("http://127.0.0.1:1") })),
    )
    .await;
    assert!(matches!(probe(&endpoint(&moved), None).await, Probe::NoBlobServer { .. }));
    let nothing = probe(&endpoint("http://127.0.0.1:1"), None).await;
    assert!(
        matches!(nothing, Probe::Unreachable { .. }) && nothing.to_string().contains("worker running"),
        "{nothing}"
    );
}
