//! The models that a worker's nodes run: loaded from verified files, or handed in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use poq_inference::data::TaskKind;
use poq_inference::quality::rubric::load_rubric_scorer;
use poq_inference::quality::{QualityScorer, Rubric};
use poq_inference::{
    load_scorer, Generator, GeneratorSource, Health, Manifest, ModelHandle, ModelStore, ModelThread, Role,
    ThreadOptions,
};

use crate::config::{NodeConfig, RoleName, WorkerConfig};
use crate::error::{Error, Result};
use crate::health::{About, Board};
use crate::metrics;

/// A language model on its thread.
pub type GeneratorHandle = ModelHandle<Box<dyn Generator>>;
/// An evaluator's model on its thread.
pub type ScorerHandle = ModelHandle<Box<dyn QualityScorer>>;

/// Requests that may wait for a model. With several nodes of one model in a process each can have a task in the queue.
const QUEUE: usize = 32;

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
}

#[allow(dead_code)] // held for their Drop, which joins the threads
enum Thread {
    Generator(ModelThread<Box<dyn Generator>>),
    Scorer(ModelThread<Box<dyn QualityScorer>>),
}

impl ModelSet {
    /// Loads what the nodes need and was not handed in, one after the other: two models that are being read at the same
    /// time only compete for the disk.
    pub(crate) async fn load(config: &WorkerConfig, given: &Models, board: &Board) -> Result<ModelSet> {
        let mut set = ModelSet::default();
        let mut store = None;
        for node in &config.nodes {
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
                    board.set(
                        About::Model(node.model.clone()),
                        format!("the model `{}` is being loaded", node.model),
                    );
                    let store = match &store {
                        Some(store) => store,
                        None => store.insert(open(config).await?),
                    };
                    check_role(node, store.manifest())?;
                    let (thread, model) = start(node, store.clone()).await?;
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
        Ok(set)
    }

    pub(crate) fn of(&self, node: &NodeConfig) -> Option<&Loaded> {
        self.loaded.get(&key(node))
    }

    /// States which models do not work.
    pub(crate) fn report(&self, board: &Board) {
        for loaded in self.loaded.values() {
            let trouble = match loaded.model.health() {
                Health::Healthy => None,
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

/// A generator cannot score and a scorer cannot answer: say so before gigabytes are read.
fn check_role(node: &NodeConfig, manifest: &Manifest) -> Result<()> {
    let failed = |source| Error::Model { model: node.model.clone(), source };
    let entry = manifest.get(&node.model).map_err(failed)?;
    let fits = match entry.role {
        Role::Generator => node.role == RoleName::Inference,
        Role::BiEncoder | Role::CrossEncoder => node.role == RoleName::Evaluator,
    };
    if fits {
        return Ok(());
    }
    let problem = format!(
        "the model `{}` is a {:?}, which an {} node cannot run; `poq models list` tells which fit",
        node.model,
        entry.role,
        node.role.label()
    );
    Err(Error::Node { node: node.id, problem })
}

/// The store of models. Files that are not pinned are hashed: that takes a while.
async fn open(config: &WorkerConfig) -> Result<ModelStore> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || config.store())
        .await
        .map_err(|panic| Error::Service { service: "reading the models".into(), reason: panic.to_string() })
}

async fn start(node: &NodeConfig, store: ModelStore) -> Result<(Thread, NodeModel)> {
    let (role, name) = (node.role, node.model.clone());
    let load = store.options(&name);
    let model = name.clone();
    let rubric = match (&node.rubric_file, node.rubric) {
        (Some(path), _) => Some(Rubric::from_path(path)),
        (None, kind) => kind.map(|kind| Ok(Rubric::builtin(kind))),
    };
    let failed = |source| Error::Model { model: node.model.clone(), source };
    let rubric = rubric.transpose().map_err(failed)?.map(Arc::new);
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
                let file = name.clone();
                let thread = ModelThread::spawn(&name, options, move || match &rubric {
                    Some(rubric) => load_rubric_scorer(&store, rubric.clone(), &file, &load)
                        .map(|scorer| Box::new(scorer) as Box<dyn QualityScorer>),
                    None => load_scorer(&store, &file, &load),
                })?;
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
