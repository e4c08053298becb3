//! The models that a worker's nodes run: loaded from verified files, or handed in.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::join_all;
use poq_inference::data::TaskKind;
use poq_inference::endpoint::{Api, Endpoint};
use poq_inference::quality::{QualityScorer, Rubric};
use poq_inference::{
    default_models_dir, DeviceSpec, Generator, GeneratorSource, Health, LoadOptions, Manifest, ModelDigest,
    ModelHandle, ModelStore, ModelThread, Precision, Role, ScorerSource, ThreadOptions,
};

use serde::{Deserialize, Serialize};

use crate::config::{NodeConfig, RoleName};
use crate::error::{Error, Result};
use crate::health::{About, Board};
use crate::metrics;
use crate::served::{self, EndpointConfig};
use crate::supervisor::Stop;

/// How a model is run, where the defaults do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's name, as the nodes that run it have it.
    pub name: String,
    /// Where it computes: `cpu`, `cuda:N`, `metal`.
    #[serde(default)]
    pub device: DeviceSpec,
    /// With what numbers: `auto`, `f32`, `f16`, `bf16`.
    #[serde(default)]
    pub dtype: Precision,
    /// Requests that are answered at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// The server that runs it, where this process does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointConfig>,
}

impl ModelConfig {
    /// A model that a server runs.
    pub fn behind(name: impl Into<String>, endpoint: EndpointConfig) -> Self {
        Self {
            name: name.into(),
            device: DeviceSpec::default(),
            dtype: Precision::default(),
            parallel: None,
            endpoint: Some(endpoint),
        }
    }

    /// How to load the model of this name: as it is configured, or as by default.
    pub(crate) fn options_of(models: &[ModelConfig], name: &str) -> LoadOptions {
        let found = models.iter().find(|model| model.name == name);
        found.map_or_else(LoadOptions::default, |model| LoadOptions {
            device: model.device,
            precision: model.dtype,
            parallel: model.parallel,
        })
    }

    /// The server that runs the model of this name, where one does.
    pub fn endpoint_of<'a>(models: &'a [ModelConfig], name: &str) -> Option<&'a EndpointConfig> {
        models.iter().find(|model| model.name == name)?.endpoint.as_ref()
    }

    /// What a node that runs the model of this name is registered with.
    ///
    /// # Errors
    /// When neither these sections nor the manifest have it.
    pub fn digest_of(
        models: &[ModelConfig],
        manifest: &Manifest,
        name: &str,
    ) -> poq_inference::Result<ModelDigest> {
        match ModelConfig::endpoint_of(models, name) {
            Some(endpoint) => Ok(endpoint.digest(name, manifest)),
            None => manifest.get(name).map(|entry| entry.digest()),
        }
    }

    /// What is wrong with these sections for these nodes, if anything: the key, the problem, what to do. Asks whether the
    /// devices are there.
    pub(crate) fn problem(
        models: &[ModelConfig],
        nodes: &[NodeConfig],
    ) -> Option<(String, String, &'static str)> {
        models.iter().enumerate().find_map(|(place, model)| {
            let key = |field: &str| format!("models[{place}].{field}");
            let name = &model.name;
            if !nodes.iter().any(|node| &node.model == name) {
                let problem = format!("is `{name}`, which no node here runs");
                return Some((key("name"), problem, "spell it as [[nodes]] does, or leave the section out"));
            }
            if models[..place].iter().any(|other| &other.name == name) {
                return Some((
                    key("name"),
                    format!("is `{name}` for the second time"),
                    "write one section per model",
                ));
            }
            if model.parallel == Some(0) {
                return Some((key("parallel"), "is 0".into(), "set it to at least 1, or leave it out"));
            }
            if let Some(endpoint) = &model.endpoint {
                let elsewhere = "is set beside endpoint, whose server decides it";
                let advice = "leave one of the two out";
                if model.device != DeviceSpec::default() {
                    return Some((key("device"), elsewhere.into(), advice));
                }
                if model.dtype != Precision::default() {
                    return Some((key("dtype"), elsewhere.into(), advice));
                }
                let answers =
                    nodes.iter().any(|node| &node.model == name && node.role == RoleName::Inference);
                if answers && endpoint.kind == Api::Tei {
                    let problem = "is `tei`, whose API has no answers, and an inference node runs the model";
                    return Some((
                        key("endpoint.kind"),
                        problem.into(),
                        "serve it by OpenAI's API: kind = \"openai\"",
                    ));
                }
                let (field, problem, advice) = endpoint.problem()?;
                return Some((key(&format!("endpoint.{field}")), problem, advice));
            }
            let error = model.device.check().err()?;
            Some((key("device"), format!("cannot be: {error}"), "leave it out to compute on the processor"))
        })
    }
}

/// A language model on its thread.
pub type GeneratorHandle = ModelHandle<Box<dyn Generator>>;
/// An evaluator's model on its thread.
pub type ScorerHandle = ModelHandle<Box<dyn QualityScorer>>;

/// Requests that may wait for a model. With several nodes of one model in a process each can have a task in the queue.
pub(crate) const QUEUE: usize = 32;

/// Models by name. Those handed in are used as they are; the worker loads what is missing.
#[derive(Clone, Default)]
pub struct Models {
    generators: HashMap<String, GeneratorHandle>,
    scorers: HashMap<String, ScorerHandle>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("generators", &self.generators.keys())
            .field("scorers", &self.scorers.keys())
            .finish()
    }
}

impl Models {
    /// No models: all are loaded from the models folder.
    pub fn new() -> Self {
        Models::default()
    }

    /// With a language model that runs already.
    #[must_use]
    pub fn with_generator(mut self, name: impl Into<String>, handle: GeneratorHandle) -> Self {
        self.generators.insert(name.into(), handle);
        self
    }

    /// With an evaluator's model that runs already.
    #[must_use]
    pub fn with_scorer(mut self, name: impl Into<String>, handle: ScorerHandle) -> Self {
        self.scorers.insert(name.into(), handle);
        self
    }
}

/// What a node runs.
#[derive(Clone)]
pub(crate) enum NodeModel {
    Generator(GeneratorHandle),
    Scorer(ScorerHandle),
}

impl NodeModel {
    fn health(&self) -> Health {
        match self {
            NodeModel::Generator(handle) => handle.health(),
            NodeModel::Scorer(handle) => handle.health(),
        }
    }

    /// The hash of the rubric that it scores by, where it does.
    async fn rubric(&self) -> poq_inference::Result<Option<[u8; 32]>> {
        match self {
            NodeModel::Generator(_) => Ok(None),
            NodeModel::Scorer(handle) => handle.call(|model| Ok(model.rubric_hash().map(|h| h.0))).await,
        }
    }

    /// The digest of the loaded model, which must be the registered one.
    async fn digest(&self) -> poq_inference::Result<[u8; 32]> {
        match self {
            NodeModel::Generator(handle) => handle.call(|model| Ok(model.digest().0)).await,
            NodeModel::Scorer(handle) => handle.call(|model| Ok(model.digest().0)).await,
        }
    }
}

/// A node's model with what was learnt when it was loaded.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) model: NodeModel,
    pub(crate) digest: [u8; 32],
    /// The hash of the rubric that it scores by, of an evaluator that has one.
    pub(crate) rubric: Option<[u8; 32]>,
}

/// What tells one loaded model from another.
type Key = (RoleName, String, Option<TaskKind>, Option<PathBuf>);

fn key(node: &NodeConfig) -> Key {
    (node.role, node.model.clone(), node.rubric, node.rubric_file.clone())
}

/// All models of a worker. Owns the threads that it started.
#[derive(Default)]
pub(crate) struct ModelSet {
    loaded: HashMap<Key, Loaded>,
    threads: Vec<Thread>,
    /// Of models that servers run, by name.
    endpoints: BTreeMap<String, Endpoint>,
}

#[allow(dead_code)] // held for their Drop, which joins the threads
pub(crate) enum Thread {
    Generator(ModelThread<Box<dyn Generator>>),
    Scorer(ModelThread<Box<dyn QualityScorer>>),
}

impl ModelSet {
    /// Loads what the nodes need and was not handed in, one after the other: two models that are being read at the same
    /// time only compete for the disk. A server that is away is waited for; `None` when told to stop meanwhile.
    pub(crate) async fn load(
        nodes: &[NodeConfig],
        models: &[ModelConfig],
        given: &Models,
        models_dir: Option<&Path>,
        board: &Board,
        stop: &Stop,
    ) -> Result<Option<ModelSet>> {
        let mut set = ModelSet::default();
        let mut store = None;
        for node in nodes {
            let key = key(node);
            if set.loaded.contains_key(&key) {
                continue;
            }
            let failed = |source| Error::Model { model: node.model.clone(), source };
            let injected = match node.role {
                RoleName::Inference => given.generators.get(&node.model).cloned().map(NodeModel::Generator),
                RoleName::Evaluator => given.scorers.get(&node.model).cloned().map(NodeModel::Scorer),
            };
            let model = match injected {
                Some(model) => model,
                None => {
                    let store = store.get_or_insert_with(|| {
                        let dir = models_dir.map_or_else(default_models_dir, Path::to_path_buf);
                        ModelStore::new(Manifest::builtin(), dir)
                    });
                    let served = ModelConfig::endpoint_of(models, &node.model).is_some();
                    check_role(node, store.manifest(), served)?;
                    let started = match models.iter().find(|model| model.name == node.model) {
                        Some(ModelConfig { endpoint: Some(endpoint), parallel, .. }) => {
                            let endpoint = endpoint.open(&node.model, store.manifest()).map_err(failed)?;
                            set.endpoints.insert(node.model.clone(), endpoint.clone());
                            connect(node, endpoint, *parallel, store, board, stop).await?
                        }
                        _ => {
                            board.set(
                                About::Model(node.model.clone()),
                                format!("the model `{}` is being loaded", node.model),
                            );
                            let load = ModelConfig::options_of(models, &node.model);
                            Some(start(node, store.clone(), load).await?)
                        }
                    };
                    let Some((thread, model)) = started else { return Ok(None) };
                    set.threads.push(thread);
                    model
                }
            };
            let digest = model.digest().await.map_err(failed)?;
            let rubric = model.rubric().await.map_err(failed)?;
            board.clear(&About::Model(node.model.clone()));
            tracing::info!(model = %node.model, digest = %format!("0x{}", hex::encode(digest)), "model loaded");
            set.loaded.insert(key, Loaded { name: node.model.clone(), model, digest, rubric });
        }
        Ok(Some(set))
    }

    pub(crate) fn of(&self, node: &NodeConfig) -> Option<&Loaded> {
        self.loaded.get(&key(node))
    }

    /// States which models do not work; asks the servers that run some.
    pub(crate) async fn report(&self, board: &Board) {
        let look = |endpoint: &Endpoint| {
            let endpoint = endpoint.clone();
            async move {
                let name = endpoint.name.clone();
                let looked = tokio::task::spawn_blocking(move || endpoint.look()).await;
                (
                    name,
                    looked
                        .map_err(|error| error.to_string())
                        .and_then(|look| look.map_err(|e| e.to_string())),
                )
            }
        };
        let looked: HashMap<String, String> = join_all(self.endpoints.values().map(look))
            .await
            .into_iter()
            .filter_map(|(name, look)| Some((name, look.err()?)))
            .collect();
        for loaded in self.loaded.values() {
            let trouble = match loaded.model.health() {
                Health::Healthy => looked.get(&loaded.name).cloned(),
                Health::Unhealthy { reason } => Some(format!(
                    "the model `{}` does not work: {reason}; restart the worker once that is mended",
                    loaded.name
                )),
                Health::Stopped => {
                    Some(format!("the model `{}` has stopped; restart the worker", loaded.name))
                }
            };
            metrics::model_healthy(&loaded.name, trouble.is_none());
            board.put(About::Model(loaded.name.clone()), trouble);
        }
    }

    /// Ends the threads; blocks until each has finished the request it is at.
    pub(crate) fn stop(&mut self) {
        self.loaded.clear();
        self.threads.clear();
    }
}

/// The threads that ask a server, once it is there; `None` when told to stop before. One that runs something else is an error.
async fn connect(
    node: &NodeConfig,
    endpoint: Endpoint,
    parallel: Option<usize>,
    store: &ModelStore,
    board: &Board,
    stop: &Stop,
) -> Result<Option<(Thread, NodeModel)>> {
    let failed = |source| Error::Model { model: node.model.clone(), source };
    let about = About::Model(node.model.clone());
    board.set(
        about.clone(),
        format!("the endpoint of the model `{}` at {} is being asked", node.model, endpoint.url),
    );
    let rubric = rubric_of(node).map_err(failed)?;
    let start = served::Start { role: node.role, endpoint, rubric, parallel, store: store.clone() };
    let start = Arc::new(start);
    loop {
        let job = start.clone();
        let started = tokio::select! {
            started = tokio::task::spawn_blocking(move || served::start(&job)) => started,
            () = stop.drain.cancelled() => return Ok(None),
        };
        match started {
            Ok(Ok(started)) => return Ok(Some(started)),
            // Servers take minutes to load a model: nobody is drawn for duties meanwhile who does not say so.
            Ok(Err(error)) if error.is_transient() => board.set(about.clone(), error.to_string()),
            Ok(Err(error)) => return Err(failed(error)),
            Err(panic) => {
                let service = format!("connecting to {}", node.model);
                return Err(Error::Service { service, reason: panic.to_string() });
            }
        }
        tokio::select! {
            () = tokio::time::sleep(served::PAUSE) => {}
            () = stop.drain.cancelled() => return Ok(None),
        }
    }
}

/// The rubric that an evaluator scores by, where it has one.
fn rubric_of(node: &NodeConfig) -> poq_inference::Result<Option<Arc<Rubric>>> {
    let rubric = match (&node.rubric_file, node.rubric) {
        (Some(path), _) => Some(Rubric::from_path(path)?),
        (None, kind) => kind.map(Rubric::builtin),
    };
    Ok(rubric.map(Arc::new))
}

/// A generator cannot score and a scorer cannot answer: say so before gigabytes are read. What a server runs under a name of its
/// own shows when it is asked.
fn check_role(node: &NodeConfig, manifest: &Manifest, served: bool) -> Result<()> {
    let failed = |source| Error::Model { model: node.model.clone(), source };
    let entry = match manifest.get(&node.model) {
        Ok(entry) => entry,
        Err(_) if served => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let fits = match entry.role {
        Role::Generator => node.role == RoleName::Inference,
        Role::BiEncoder | Role::CrossEncoder => node.role == RoleName::Evaluator,
    };
    if fits {
        return Ok(());
    }
    let problem = format!(
        "the model `{}` is a {:?}, which an {} node cannot run; `poq-models list` tells which fit",
        node.model,
        entry.role,
        node.role.label()
    );
    Err(Error::Node { node: node.id, problem })
}

async fn start(node: &NodeConfig, store: ModelStore, load: LoadOptions) -> Result<(Thread, NodeModel)> {
    let (role, name) = (node.role, node.model.clone());
    let model = name.clone();
    let rubric = rubric_of(node).map_err(|source| Error::Model { model: node.model.clone(), source })?;
    let started = tokio::task::spawn_blocking(move || {
        let options = ThreadOptions { queue: QUEUE, ..ThreadOptions::default() };
        match role {
            RoleName::Inference => {
                let source = GeneratorSource::new(store, name.clone(), load);
                let options = ThreadOptions { parallel: source.parallel(), ..options };
                let thread = ModelThread::spawn(&name, options, move || source.open())?;
                let model = NodeModel::Generator(thread.handle());
                Ok((Thread::Generator(thread), model))
            }
            RoleName::Evaluator => {
                let source = ScorerSource::new(store, name.clone(), load, rubric);
                let options = ThreadOptions { parallel: source.parallel(), ..options };
                let thread = ModelThread::spawn(&name, options, move || source.open())?;
                let model = NodeModel::Scorer(thread.handle());
                Ok((Thread::Scorer(thread), model))
            }
        }
    })
    .await;
    match started {
        Ok(started) => started.map_err(|source| Error::Model { model, source }),
        Err(panic) => Err(Error::Service { service: format!("loading {model}"), reason: panic.to_string() }),
    }
}
