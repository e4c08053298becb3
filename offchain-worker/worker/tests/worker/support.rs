//! A network in this process: chain, contract, accounts, a requester that serves inputs, scripted models.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::TryStreamExt;
use poq_blobs::{
    Access, AccessError, AccessRequest, BlobServer, BlobStore, Decision, PromptBlob, ServerConfig,
};
use poq_chain::deploy::{deploy, Artifact, Setup};
use poq_chain::events::Emitted;
use poq_chain::types::{
    Change, GlobalParams, KindParams, NodeId, NodeView, Phase, Registration, Request, Role, Source, TaskId,
    TaskView,
};
use poq_chain::{messages, to_ink, AccountId32, Client, Keys, Network, Options, PoqEvent};
use poq_inference::quality::{QualityScorer, Query, Rubric};
use poq_inference::{
    FinishReason, GenerateRequest, Generation, Generator, ModelDigest, ModelThread, Prompt, TaskKind,
    ThreadOptions,
};
use poq_sandbox::{SandboxConfig, SandboxNode};
use poq_worker::config::{NodeConfig, RoleName, TimeSource};
use poq_worker::{Deps, Models, Requester, RequesterOptions, Worker, WorkerConfig, WorkerHandle};

pub(crate) const UNIT: u128 = 1_000_000_000_000;
pub(crate) const KIND: u16 = 1;
/// An hour: what is registered in a new network is drawn at once, and no test outlasts it by accident.
const EPOCH_MS: u64 = 3_600_000;
/// Long enough for everything on a busy machine; a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const GENERATOR: &str = "scripted-generator";
pub(crate) const SCORERS: [&str; 3] = ["scripted-scorer-a", "scripted-scorer-b", "scripted-scorer-c"];

pub(crate) fn keys(uri: &str) -> Keys {
    Keys::from_uri(&uri.to_owned().into()).unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A registered node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) model: String,
    pub(crate) owner: Keys,
    pub(crate) operator: Keys,
    /// Its operator key as a secret URI.
    pub(crate) operator_uri: String,
    pub(crate) port: u16,
}

impl Node {
    pub(crate) fn config(&self) -> NodeConfig {
        NodeConfig {
            id: self.id,
            role: match self.role {
                Role::Inference => RoleName::Inference,
                Role::Evaluator => RoleName::Evaluator,
            },
            model: self.model.clone(),
            rubric: None,
            rubric_file: None,
            key: None,
            password_file: None,
        }
    }
}

/// Chain, contract and requester.
pub(crate) struct Net {
    pub(crate) chain: SandboxNode,
    pub(crate) client: Client,
    pub(crate) contract: AccountId32,
    pub(crate) network: Network,
    pub(crate) root: Keys,
    pub(crate) requester: Keys,
    pub(crate) inputs: BlobStore,
    pub(crate) inputs_url: String,
    pub(crate) dir: tempfile::TempDir,
    next: AtomicUsize,
}

/// Serves to everybody: for the requester's side, which is not under test.
pub(crate) struct Everybody;

#[async_trait]
impl Access for Everybody {
    async fn decide(&self, _request: &AccessRequest) -> Result<Decision, AccessError> {
        Ok(Decision::Allow)
    }
}

pub(crate) async fn serve(network: &Network, store: BlobStore, port: u16) -> String {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config = ServerConfig::new(network.hash, listen);
    let server = BlobServer::bind(config, store, Arc::new(Everybody)).await.unwrap();
    let url = server.url();
    tokio::spawn(server.serve(std::future::pending()));
    url
}

impl Net {
    pub(crate) async fn start() -> Net {
        Net::with_params(KindParams { panel_min: 3, ..KindParams::without_auditors() }).await
    }

    pub(crate) async fn with_params(params: KindParams) -> Net {
        Net::on(SandboxConfig::default(), params).await
    }

    pub(crate) async fn on(config: SandboxConfig, params: KindParams) -> Net {
        static LOG: std::sync::Once = std::sync::Once::new();
        LOG.call_once(|| {
            if let Ok(filter) = std::env::var("POQ_TEST_LOG") {
                tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            }
        });
        let chain = SandboxNode::start(config).unwrap();
        let client = Client::from_rpc(chain.rpc_client(), None, Options::default()).await.unwrap();
        let root = keys("//Alice");
        let artifact = Artifact::load(&repository().join("contracts/artifacts/poq.wasm")).unwrap();
        let submitter = client.submitter(root.clone());
        let setup = Setup { epoch_ms: EPOCH_MS, global: GlobalParams::default() };
        let deployed = deploy(&submitter, &artifact, &setup, b"worker-test").await.unwrap();
        let contract = deployed.address;
        let client = client.with_contract(contract);
        let network = client.network().await.unwrap();
        client.submitter(root.clone()).send(messages::propose(Change::Kind(KIND, params))).await.unwrap();
        let inputs = BlobStore::memory();
        let inputs_url = serve(&network, inputs.clone(), 0).await;
        let net = Net {
            chain,
            client,
            contract,
            network,
            root,
            requester: keys("//requester"),
            inputs,
            inputs_url,
            dir: tempfile::tempdir().unwrap(),
            next: AtomicUsize::new(1),
        };
        net.fund(&net.requester.account(), 10_000 * UNIT).await;
        net
    }

    pub(crate) async fn fund(&self, account: &AccountId32, amount: u128) {
        self.client.submitter(self.root.clone()).transfer(account, amount).await.unwrap();
    }

    /// Registers a node with an owner of its own. Nodes with the same `operator` share a key.
    pub(crate) async fn register(
        &self,
        role: Role,
        model: &str,
        digest: ModelDigest,
        operator: &str,
        port: u16,
    ) -> Node {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let owner = keys(&format!("//owner/{number}"));
        let operator_keys = keys(operator);
        self.fund(&owner.account(), 1_000 * UNIT).await;
        if self.client.free_balance(&operator_keys.account()).await.unwrap() < UNIT {
            self.fund(&operator_keys.account(), 100 * UNIT).await;
        }
        let registration = Registration {
            role,
            kind: KIND,
            operator: to_ink(&operator_keys.account()),
            payee: to_ink(&owner.account()),
            model: model.into(),
            model_digest: digest.0,
            endpoint: format!("http://127.0.0.1:{port}"),
            price: 0,
        };
        let id = self
            .client
            .submitter(owner.clone())
            .send(messages::register(registration, 200 * UNIT))
            .await
            .unwrap()
            .value;
        Node {
            id,
            role,
            model: model.into(),
            owner,
            operator: operator_keys,
            operator_uri: operator.into(),
            port,
        }
    }

    /// Scripted nodes: `answering` inference nodes and `scoring` evaluators of three models.
    pub(crate) async fn scripted(&self, answering: usize, scoring: usize, operator: &str) -> Vec<Node> {
        let port = free_port();
        let mut nodes = Vec::new();
        for _ in 0..answering {
            let digest = scripted_digest(GENERATOR);
            nodes.push(self.register(Role::Inference, GENERATOR, digest, operator, port).await);
        }
        for place in 0..scoring {
            let model = SCORERS[place % SCORERS.len()];
            nodes.push(self.register(Role::Evaluator, model, scripted_digest(model), operator, port).await);
        }
        nodes
    }

    pub(crate) async fn prompt(&self, question: &str) -> Source {
        let id = self.inputs.put(prompt(question)).await.unwrap();
        Source::Url { hash: id.0, url: self.inputs_url.clone() }
    }

    /// Asks, and sees the task through beside the test.
    pub(crate) async fn ask(&self, question: &str, outputs: u8, panel: u8) -> TaskId {
        let input = self.prompt(question).await;
        self.request(input, outputs, panel).await
    }

    /// As [`Net::ask`] with any input.
    pub(crate) async fn request(&self, input: Source, outputs: u8, panel: u8) -> TaskId {
        let id = self.request_only(input, outputs, panel).await;
        self.see_through(id, true);
        id
    }

    /// Requests a task for which nobody acts on the requester's side.
    pub(crate) async fn request_only(&self, input: Source, outputs: u8, panel: u8) -> TaskId {
        let request = Request {
            kind: KIND,
            fee: 10 * UNIT,
            nodes: Vec::new(),
            outputs,
            panel,
            input,
            reference_commitment: [0; 32],
            secret_hash: [0; 32],
            early: false,
        };
        let requester = self.requester(true).await;
        let message = messages::request_task(requester.sealed(request));
        self.client.submitter(self.requester.clone()).send(message).await.unwrap().value
    }

    /// The requester's side; with `relay` it brings the panel's reveals to the chain.
    pub(crate) async fn requester(&self, relay: bool) -> Requester {
        let options = RequesterOptions { relay, time: TimeSource::Chain, ..RequesterOptions::default() };
        Requester::new(self.client.submitter(self.requester.clone()), options).await.unwrap()
    }

    /// Acts on the requester's side of a task, beside the test.
    pub(crate) fn see_through(&self, id: TaskId, relay: bool) {
        let submitter = self.client.submitter(self.requester.clone());
        tokio::spawn(async move {
            let options = RequesterOptions { relay, time: TimeSource::Chain, ..RequesterOptions::default() };
            let requester = Requester::new(submitter, options).await.unwrap();
            requester
                .see_through(&[id], |task, progress| tracing::info!(task, ?progress, "seen"))
                .await
                .unwrap();
        });
    }

    /// Lets time pass while a task is revealing: its evaluators send their reveals one after the other.
    pub(crate) async fn let_reveal(&self, id: TaskId) {
        loop {
            let revealing = self.task(id).await.task.phase == Phase::Revealing;
            if revealing {
                self.chain.advance_ms(1_000).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    pub(crate) async fn task(&self, id: TaskId) -> TaskView {
        self.client.view().await.unwrap().task(id).await.unwrap().unwrap()
    }

    pub(crate) async fn node(&self, id: NodeId) -> NodeView {
        self.client.view().await.unwrap().node(id).await.unwrap().unwrap()
    }

    /// Waits until the task is as wanted; fails with its state when that takes too long.
    pub(crate) async fn until(&self, id: TaskId, what: &str, wanted: impl Fn(&TaskView) -> bool) -> TaskView {
        let begun = Instant::now();
        loop {
            let task = self.task(id).await;
            if wanted(&task) {
                return task;
            }
            assert!(begun.elapsed() < PATIENCE, "task {id} did not become {what}: {task:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn settled(&self, id: TaskId) -> TaskView {
        self.until(id, "settled", |task| task.task.phase == Phase::Settled).await
    }

    /// Every event of the contract so far, with its block.
    pub(crate) async fn emitted(&self) -> Vec<Emitted> {
        let best = self.client.best().await.unwrap().number;
        self.client.events(1, best).try_collect().await.unwrap()
    }

    /// Every event of the contract so far.
    pub(crate) async fn events(&self) -> Vec<PoqEvent> {
        self.emitted().await.into_iter().map(|emitted| emitted.event).collect()
    }

    /// A worker's configuration for some nodes, with a data folder of that name.
    pub(crate) fn config(&self, name: &str, nodes: &[Node]) -> WorkerConfig {
        let mut config = WorkerConfig::default();
        config.data_dir = self.dir.path().join(name);
        config.chain.contract = Some(format!("0x{}", hex::encode(self.contract.0)));
        config.chain.time = TimeSource::Chain;
        config.chain.poll_interval = Duration::from_millis(500);
        config.blobs.allow_private = Some(true);
        config.blobs.listen = nodes.first().map(|node| SocketAddr::from((Ipv4Addr::LOCALHOST, node.port)));
        config.keeper.enabled = true;
        config.keeper.max_delay = Duration::ZERO;
        config.keeper.margin_percent = 0;
        config.limits.drain_timeout = Duration::from_secs(30);
        config.nodes = nodes.iter().map(Node::config).collect();
        config
    }

    /// What a worker in this process is handed: its own connection, the nodes' keys, and models.
    pub(crate) async fn deps(&self, nodes: &[Node], models: Models) -> Deps {
        let client =
            Client::from_rpc(self.chain.rpc_client(), Some(self.contract), Options::default()).await.unwrap();
        Deps {
            chain: Some(client),
            models,
            operator: nodes.first().map(|node| node.operator.clone()).or_else(|| Some(self.root.clone())),
            keys: nodes.iter().map(|node| (node.id, node.operator.clone())).collect(),
            store: None,
        }
    }

    pub(crate) async fn work(&self, name: &str, nodes: &[Node], models: &Scripts) -> WorkerHandle {
        let deps = self.deps(nodes, models.models()).await;
        let handle = Worker::start(self.config(name, nodes), deps).await.unwrap();
        handle.ready(PATIENCE).await.unwrap();
        handle
    }
}

/// A prompt as its bytes.
pub(crate) fn prompt(question: &str) -> bytes::Bytes {
    PromptBlob::new("Paris is the capital of France.", question).encode().unwrap()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn scripted_digest(name: &str) -> ModelDigest {
    ModelDigest(poq_journal::blake2_256(name.as_bytes()))
}

/// A model that answers as it is told to.
pub(crate) struct ScriptedGenerator {
    pub(crate) delay: Duration,
    pub(crate) calls: Arc<AtomicUsize>,
    /// Texts to give instead of the usual one; the calls beyond give the usual one.
    pub(crate) panics: Arc<AtomicUsize>,
}

impl Generator for ScriptedGenerator {
    fn name(&self) -> &str {
        GENERATOR
    }

    fn digest(&self) -> ModelDigest {
        scripted_digest(GENERATOR)
    }

    fn context_tokens(&self) -> usize {
        2_048
    }

    fn count_tokens(&self, prompt: &Prompt) -> poq_inference::Result<usize> {
        Ok(prompt.bytes() / 4)
    }

    fn generate(&mut self, request: &GenerateRequest) -> poq_inference::Result<Generation> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            panic!("scripted panic");
        }
        std::thread::sleep(self.delay);
        let hash = match &request.prompt {
            Prompt::Text(text) => poq_journal::blake2_256(text.as_bytes()),
            Prompt::Chat(messages) => {
                let all: String = messages.iter().map(|message| message.content.as_str()).collect();
                poq_journal::blake2_256(all.as_bytes())
            }
        };
        Ok(Generation {
            text: format!("The answer is {}.", hex::encode(&hash[..4])),
            prompt_tokens: 10,
            completion_tokens: 5,
            prompt_ms: 1,
            decode_ms: 1,
            finish_reason: FinishReason::Stop,
        })
    }
}

/// An evaluator's model that scores by a hash, near what the others say.
pub(crate) struct ScriptedScorer {
    pub(crate) name: &'static str,
    pub(crate) delay: Duration,
}

impl QualityScorer for ScriptedScorer {
    fn name(&self) -> &str {
        self.name
    }

    fn digest(&self) -> ModelDigest {
        scripted_digest(self.name)
    }

    fn supports(&self, query: &Query) -> poq_inference::Result<()> {
        Rubric::builtin(TaskKind::Qa).supports(query)
    }

    fn score(&mut self, query: &Query, outputs: &[String]) -> poq_inference::Result<Vec<f64>> {
        std::thread::sleep(self.delay);
        let unit = |text: &str| f64::from(poq_journal::blake2_256(text.as_bytes())[0]) / 255.0;
        Ok(outputs
            .iter()
            .map(|output| {
                let truth = 0.4 + 0.5 * unit(&format!("{}{output}", query.question));
                truth + 0.02 * (unit(&format!("{}{output}", self.name)) - 0.5)
            })
            .collect())
    }
}

/// Scripted models on their threads.
pub(crate) struct Scripts {
    generator: ModelThread<Box<dyn Generator>>,
    scorers: Vec<ModelThread<Box<dyn QualityScorer>>>,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) panics: Arc<AtomicUsize>,
}

impl Scripts {
    pub(crate) fn new() -> Scripts {
        Scripts::slow(Duration::ZERO)
    }

    pub(crate) fn slow(delay: Duration) -> Scripts {
        let options = ThreadOptions { queue: 32, ..ThreadOptions::default() };
        let (calls, panics) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, planned) = (calls.clone(), panics.clone());
        let generator = ModelThread::spawn(GENERATOR, options, move || {
            let model = ScriptedGenerator { delay, calls: seen.clone(), panics: planned.clone() };
            Ok(Box::new(model) as Box<dyn Generator>)
        })
        .unwrap();
        let scorers = SCORERS
            .iter()
            .map(|name| {
                ModelThread::spawn(name, options, move || {
                    Ok(Box::new(ScriptedScorer { name, delay }) as Box<dyn QualityScorer>)
                })
                .unwrap()
            })
            .collect();
        Scripts { generator, scorers, calls, panics }
    }

    pub(crate) fn models(&self) -> Models {
        let models = Models::new().with_generator(GENERATOR, self.generator.handle());
        SCORERS
            .iter()
            .zip(&self.scorers)
            .fold(models, |models, (name, thread)| models.with_scorer(*name, thread.handle()))
    }
}

/// How often each commitment and reveal of a task was accepted: every count must be one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) outputs: Vec<(TaskId, NodeId)>,
    pub(crate) scores: Vec<(TaskId, NodeId)>,
    pub(crate) reveals: Vec<(TaskId, NodeId)>,
}

impl Counts {
    pub(crate) fn of(events: &[PoqEvent], task: TaskId) -> Counts {
        let mut counts = Counts::default();
        for event in events {
            match event {
                PoqEvent::OutputsCommitted(event) => counts.outputs.extend(&event.items),
                PoqEvent::ScoresCommitted(event) => counts.scores.extend(&event.items),
                PoqEvent::ScoresRevealed(event) => {
                    counts.reveals.extend(event.items.iter().map(|item| (item.task, item.node)));
                }
                _ => {}
            }
        }
        counts.outputs.retain(|(id, _)| *id == task);
        counts.scores.retain(|(id, _)| *id == task);
        counts.reveals.retain(|(id, _)| *id == task);
        counts
    }

    /// Every drawn node did each of its steps exactly once.
    pub(crate) fn assert_once(&self, task: &TaskView) {
        let once = |found: Vec<NodeId>, drawn: Vec<NodeId>, what: &str| {
            let unique: HashSet<NodeId> = found.iter().copied().collect();
            assert_eq!(unique.len(), found.len(), "{what} more than once: {found:?}");
            assert_eq!(unique, drawn.iter().copied().collect(), "{what}");
        };
        let outputs = || task.task.outputs.iter().map(|slot| slot.node).collect::<Vec<_>>();
        let panel = || task.task.panel.iter().map(|seat| seat.node).collect::<Vec<_>>();
        once(self.outputs.iter().map(|(_, node)| *node).collect(), outputs(), "output commitments");
        once(self.scores.iter().map(|(_, node)| *node).collect(), panel(), "score commitments");
        once(self.reveals.iter().map(|(_, node)| *node).collect(), panel(), "reveals");
    }
}
