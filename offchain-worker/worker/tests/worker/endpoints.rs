//! Nodes whose models a server runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use poq_chain::types::Role;
use poq_experiments::serve;
use poq_inference::endpoint::Served;
use poq_inference::{
    default_models_dir, load_cross_encoder, load_encoder, CrossEncoder, Encoder, Generator, GeneratorSource,
    LoadOptions, Manifest, ModelDigest, ModelStore, ModelThread, ThreadOptions,
};
use poq_worker::config::ModelConfig;
use poq_worker::{Models, Worker};
use tokio::net::TcpListener;

use crate::models::{installed, GENERATOR as SMOLLM, SCORERS as ENCODERS};
use crate::support::{free_port, Counts, Net, Node, ScriptedGenerator, Scripts, PATIENCE};

/// The name that the worker has for what the server calls by another.
const BEHIND: &str = "behind-an-endpoint";

fn about(name: &str, digest: ModelDigest) -> serve::About {
    serve::About {
        name: name.into(),
        digest: digest.to_string(),
        context_tokens: 2_048,
        time_limit: Duration::from_secs(60),
    }
}

/// A server that ends when this is dropped.
struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(router: axum::Router, port: u16) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Server { address, task: tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }) }
    }

    /// Of a scripted language model, under this name.
    async fn scripted(name: &str, port: u16) -> (Server, ModelThread<Box<dyn Generator>>) {
        let options = ThreadOptions { queue: 32, parallel: 4, ..ThreadOptions::default() };
        let thread = ModelThread::spawn(name, options, || {
            let model = ScriptedGenerator {
                delay: Duration::ZERO,
                calls: Default::default(),
                panics: Default::default(),
            };
            Ok(Box::new(model) as Box<dyn Generator>)
        })
        .unwrap();
        let router = serve::generator(thread.handle(), about(name, ModelDigest([1; 32])));
        (Server::start(router, port).await, thread)
    }
}

fn section(name: &str, kind: &str, url: &str, model: &str) -> ModelConfig {
    toml::from_str(&format!(
        "name = \"{name}\"\nendpoint = {{ kind = \"{kind}\", url = \"{url}\", model = \"{model}\" }}"
    ))
    .unwrap()
}

fn digest_of(model: &str) -> ModelDigest {
    Served { model: model.into(), revision: None }.digest()
}

/// A node behind an endpoint, and scripted evaluators.
async fn nodes(net: &Net, served: &str) -> Vec<Node> {
    let mut nodes = net.scripted(0, 3, "//operator").await;
    let port = nodes[0].port;
    nodes.insert(0, net.register(Role::Inference, BEHIND, digest_of(served), "//operator", port).await);
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_an_endpoint_answers_and_is_paid() {
    let net = Net::start().await;
    let (server, _model) = Server::scripted("org/served", 0).await;
    let nodes = nodes(&net, "org/served").await;
    let mut config = net.config("worker", &nodes);
    config.models = vec![section(BEHIND, "openai", &format!("http://{}/v1", server.address), "org/served")];
    // Its threads end with it.
    let scripts = Scripts::new();
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    worker.ready(PATIENCE).await.unwrap();
    let id = net.ask("What is the capital of France?", 1, 3).await;
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    assert!(net.node(nodes[0].id).await.node.claimable > 0);
    worker.shutdown();
    worker.wait().await.unwrap();
}

/// Before any duty is taken on, and afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_away_or_serves_another_model_says_so() {
    let net = Net::start().await;
    let nodes = nodes(&net, "org/served").await;
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/v1");
    let mut config = net.config("worker", &nodes);
    config.models = vec![section(BEHIND, "openai", &url, "org/served")];
    let scripts = Scripts::new();
    let worker = Worker::start(config.clone(), net.deps(&nodes, scripts.models()).await).await.unwrap();
    let says = |wanted: &'static str| {
        let (worker, url) = (&worker, url.clone());
        async move {
            let begun = Instant::now();
            loop {
                let reasons = worker.ready(Duration::ZERO).await.err().unwrap_or_default();
                if reasons.iter().any(|reason| reason.contains(wanted) && reason.contains(&url)) {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE && !worker.is_finished(), "{reasons:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    says("onnection refused").await;
    // It comes.
    let (server, _model) = Server::scripted("org/served", port).await;
    worker.ready(PATIENCE).await.unwrap();
    // It goes, and another one comes.
    drop(server);
    says("onnection refused").await;
    let (server, _other) = Server::scripted("org/other", port).await;
    says("it serves org/other, not `org/served`").await;
    worker.shutdown();
    worker.wait().await.unwrap();
    // A worker that finds the wrong one does not start.
    config.data_dir = net.dir.path().join("again");
    let worker = Worker::start(config, net.deps(&nodes, scripts.models()).await).await.unwrap();
    let error = worker.wait().await.unwrap_err().to_string();
    assert!(error.contains("it serves org/other, not `org/served`") && error.contains(BEHIND), "{error}");
    drop(server);
}

/// Real models, each in another process's place: a language model by OpenAI's API, evaluators as stand-ins by TEI's.
#[tokio::test(flavor = "multi_thread")]
async fn real_models_behind_endpoints_answer_score_and_are_paid() {
    if !installed() {
        return;
    }
    let store = ModelStore::new(Manifest::builtin(), default_models_dir());
    let manifest = Manifest::builtin();
    let entry = |name: &str| manifest.get(name).unwrap();
    let options = ThreadOptions { queue: 32, ..ThreadOptions::default() };
    let load = LoadOptions::default();

    let source = GeneratorSource::new(store.clone(), SMOLLM, load);
    let parallel = ThreadOptions { parallel: source.parallel(), ..options };
    let generator = ModelThread::spawn(SMOLLM, parallel, move || source.open()).unwrap();
    let generator_at =
        Server::start(serve::generator(generator.handle(), about(SMOLLM, entry(SMOLLM).digest())), 0).await;
    let mut bi = Vec::new();
    for name in ENCODERS.into_iter().take(2) {
        let store = store.clone();
        let thread: ModelThread<Box<dyn Encoder>> =
            ModelThread::spawn(name, options, move || load_encoder(&store, name, &load)).unwrap();
        let at =
            Server::start(serve::bi_encoder(thread.handle(), about(name, entry(name).digest())), 0).await;
        bi.push((thread, at));
    }
    let cross: ModelThread<Box<dyn CrossEncoder>> = {
        let store = store.clone();
        ModelThread::spawn(ENCODERS[2], options, move || load_cross_encoder(&store, ENCODERS[2], &load))
            .unwrap()
    };
    let cross_at = Server::start(
        serve::cross_encoder(cross.handle(), about(ENCODERS[2], entry(ENCODERS[2]).digest())),
        0,
    )
    .await;

    let net = Net::start().await;
    let port = free_port();
    let mut nodes = vec![net.register(Role::Inference, BEHIND, digest_of(SMOLLM), "//operator", port).await];
    for name in ENCODERS {
        nodes.push(net.register(Role::Evaluator, name, entry(name).digest(), "//operator", port).await);
    }
    let mut config = net.config("worker", &nodes);
    config.limits.max_tokens = 24;
    config.models = vec![
        section(BEHIND, "openai", &format!("http://{}/v1", generator_at.address), SMOLLM),
        section(ENCODERS[0], "tei", &format!("http://{}", bi[0].1.address), ENCODERS[0]),
        section(ENCODERS[1], "openai", &format!("http://{}/v1", bi[1].1.address), ENCODERS[1]),
        section(ENCODERS[2], "tei", &format!("http://{}", cross_at.address), ENCODERS[2]),
    ];
    let worker = Worker::start(config.clone(), net.deps(&nodes, Models::new()).await).await.unwrap();
    worker.ready(PATIENCE * 3).await.unwrap();
    let id = net.ask("What is the capital of France?", 1, 3).await;
    let task = net.settled(id).await;
    Counts::of(&net.events().await, id).assert_once(&task);
    let quality = task.task.outputs[0].quality.quality().unwrap();
    assert!(quality.ppb() > 100_000_000, "{quality}");
    worker.shutdown();
    worker.wait().await.unwrap();

    // A stand-in that is another model: of the same shape, by the same name.
    let posing = Server::start(
        serve::bi_encoder(bi[1].0.handle(), about(ENCODERS[0], entry(ENCODERS[0]).digest())),
        0,
    )
    .await;
    config.models[1] = section(ENCODERS[0], "tei", &format!("http://{}", posing.address), ENCODERS[0]);
    config.data_dir = net.dir.path().join("again");
    let worker = Worker::start(config, net.deps(&nodes, Models::new()).await).await.unwrap();
    let error = worker.wait().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("does not run `{}`", ENCODERS[0])) && error.contains("cosine"),
        "{error}"
    );
}

/// The demonstration with a node whose model `poq experiment serve` runs; with another model's name nothing is started.
#[test]
fn the_demonstration_runs_with_a_node_behind_an_endpoint() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    struct Child(std::process::Child);
    impl Drop for Child {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    if !installed() {
        return;
    }
    let poq = || Command::new(assert_cmd::cargo::cargo_bin("poq"));
    let mut server = Child(
        poq()
            .args(["experiment", "serve", "--model", SMOLLM, "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("answers at") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the server has ended");
    }
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    let url = line.split_whitespace().last().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("demo.json");
    let demo = |model: &str| {
        let mut command = poq();
        command.args(["demo", "--questions", "3", "--endpoint", &url, "--endpoint-model", model]);
        command.arg("--json").arg(&report).current_dir(crate::support::repository());
        command.output().unwrap()
    };
    let refused = demo("another");
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && says.contains(&format!("it serves {SMOLLM}, not `another`")),
        "{says}"
    );
    let output = demo(SMOLLM);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{says}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("\"endpoint\""), "{report}");
}

/// The same against servers that scripts/check-endpoints.sh has started; `POQ_TEST_ENDPOINTS` is a file with their [[models]].
/// One of `name = "generator"` answers; the others are evaluators of the manifest. Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn real_servers_answer_score_and_are_paid() {
    let Some(path) = std::env::var_os("POQ_TEST_ENDPOINTS") else {
        eprintln!("skipped: scripts/check-endpoints.sh starts the servers that this asks");
        return;
    };
    #[derive(serde::Deserialize)]
    struct File {
        models: Vec<ModelConfig>,
    }
    let File { models } = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let manifest = Manifest::builtin();
    let net = Net::start().await;
    let port = free_port();
    let mut nodes = Vec::new();
    for model in &models {
        let digest = ModelConfig::digest_of(&models, &manifest, &model.name).unwrap();
        let role = if model.name == "generator" { Role::Inference } else { Role::Evaluator };
        nodes.push(net.register(role, &model.name, digest, "//operator", port).await);
    }
    let mut config = net.config("worker", &nodes);
    config.limits.max_tokens = 24;
    config.models = models;
    let worker = Worker::start(config, net.deps(&nodes, Models::new()).await).await.unwrap();
    worker.ready(PATIENCE * 3).await.unwrap();
    let panel = u8::try_from(nodes.len() - 1).unwrap();
    for question in ["What is the capital of France?", "Which country is Paris the capital of?"] {
        let id = net.ask(question, 1, panel).await;
        let task = net.settled(id).await;
        Counts::of(&net.events().await, id).assert_once(&task);
        eprintln!(
            "{question}: quality {:?}, panel {:?}",
            task.task.outputs[0].quality,
            task.task.panel.iter().map(|seat| &seat.scores).collect::<Vec<_>>()
        );
    }
    worker.shutdown();
    worker.wait().await.unwrap();
}
