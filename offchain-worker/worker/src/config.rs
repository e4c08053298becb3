//! The worker's configuration: one TOML file, overridden by the environment, overridden by the command line.
//!
//! Precedence, lowest first: built-in defaults, the file, `POQ_<SECTION>__<KEY>` variables, what the command line gives. A list in a
//! variable is separated by commas (`POQ_CHAIN__URLS=ws://a,ws://b`) or written as in the file (`["ws://a", "ws://b"]`); a list of
//! tables as there (`POQ_NODES=[{id = 1, role = "inference", model = "…"}]`).
//! Relative paths in the file are relative to the file's own folder, all others to the working directory. Unknown keys are
//! refused: a misspelt limit that silently does nothing is worse than a refusal to start.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use poq_blobs::endpoint::{self, Audience};
use poq_chain::{NodeUrl, NodeUrls};
use poq_inference::data::TaskKind;
use poq_inference::{default_models_dir, Manifest, ModelStore};
use poq_simulator::Attack;
use serde::de::Visitor;
use serde::{Deserialize, Serialize};

pub use poq_inference::models::find_config;
pub use poq_inference::ModelConfig;

/// The prefix of environment variables.
const ENV_PREFIX: &str = "POQ_";
/// What parts a section from a key in their names.
const ENV_SEPARATOR: &str = "__";
/// The keys that belong to no section.
const LONE_KEYS: [&str; 4] = ["data_dir", "models_dir", "models", "nodes"];
/// The sections.
const SECTIONS: [&str; 8] = ["chain", "keys", "blobs", "metrics", "keeper", "limits", "log", "adversary"];

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration file {path}: {source}; write one with `poq worker example-config > {path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A value does not parse, or a key is unknown.
    #[error("{origin}: `{key}`: {message}")]
    Invalid {
        /// Which file, environment variable or command line it came from.
        origin: String,
        /// The key, dotted.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values parse but do not make a worker.
    #[error("{origin}: `{key}` {problem}; {advice}")]
    Unfit {
        /// Where the configuration came from.
        origin: String,
        /// The key, dotted.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
}

/// Which block a transaction must be in to count as sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirmation {
    /// The best block. Right for development nodes, and for duties, which are checked again at every block.
    #[default]
    Best,
    /// A finalised block.
    Finalized,
}

/// What tells the time that deadlines are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// The later of the best block's timestamp and this machine's clock: the next block carries a time like that.
    #[default]
    System,
    /// The best block's timestamp alone: for chains whose clock is not the wall clock (tests, simulations).
    Chain,
}

/// What a node does, as the configuration spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Runs a language model and answers.
    Inference,
    /// Scores answers.
    Evaluator,
}

impl RoleName {
    /// The label that metrics and logs use.
    pub const fn label(self) -> &'static str {
        match self {
            RoleName::Inference => "inference",
            RoleName::Evaluator => "evaluator",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the chain is and how to treat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainConfig {
    /// Websocket addresses of the chain's nodes; the next one is tried when one fails.
    pub urls: NodeUrls,
    /// The contract's account, SS58 or 0x and 64 hexadecimal digits.
    pub contract: Option<String>,
    /// Which block counts.
    pub confirmation: Confirmation,
    /// What tells the time.
    pub time: TimeSource,
    /// How often duties are read even when no block is announced.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// After how long without an answer from any node the chain counts as unreachable.
    #[serde(with = "duration")]
    pub stall_after: Duration,
    /// On chains that make blocks regularly: how old the best block may be. Unset for development nodes, which make a
    /// block only when a transaction arrives.
    #[serde(with = "optional_duration")]
    pub max_block_age: Option<Duration>,
}

impl Default for ChainConfig {
    fn default() -> Self {
        ChainConfig {
            urls: default_urls(),
            contract: None,
            confirmation: Confirmation::Best,
            time: TimeSource::System,
            // Blocks are announced; this is for the announcement that got lost. A block time of the usual chains.
            poll_interval: Duration::from_secs(6),
            // Ten polls in a row: one slow answer is no stall, and a deadline is minutes away.
            stall_after: Duration::from_secs(60),
            max_block_age: None,
        }
    }
}

/// A node on this machine at Substrate's usual port.
fn default_urls() -> NodeUrls {
    match "ws://127.0.0.1:9944".parse() {
        Ok(urls) => urls,
        Err(error) => unreachable!("the default address is one: {error}"),
    }
}

/// Which key signs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// The operator's key file: a polkadot.js JSON keystore, or a text file (mode 0600) with a secret URI.
    #[serde(deserialize_with = "relative_optional")]
    pub operator: Option<PathBuf>,
    /// The file that holds the keystore's password.
    #[serde(deserialize_with = "relative_optional")]
    pub password_file: Option<PathBuf>,
}

/// Where blobs are kept and served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobsConfig {
    /// Where the blob server listens. Inference nodes need it: nobody can score an output that cannot be fetched.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// The address under which others reach the blob server; what nodes register as their endpoint.
    pub public_url: Option<String>,
    /// The store, as a URL; unset for `<data_dir>/blobs` on the local disk.
    pub store: Option<String>,
    /// The largest blob that is stored, fetched or served, in bytes.
    pub max_blob_bytes: u64,
    /// Whether blobs are fetched from addresses that are not on the public internet. Requesters and other nodes choose these
    /// addresses: on a public network this lets strangers make this machine knock at doors behind its firewall, so set it
    /// to `false` there. Unset: only where every `chain.urls` is on this machine, as on a development network.
    pub allow_private: Option<bool>,
}

impl Default for BlobsConfig {
    fn default() -> Self {
        // An answer has a few kilobytes; a quarter of a mebibyte leaves room and cannot fill a disk soon.
        BlobsConfig {
            listen: None,
            public_url: None,
            store: None,
            max_blob_bytes: 256 * 1024,
            allow_private: None,
        }
    }
}

/// Where metrics and health are served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where `/metrics`, `/health` and `/ready` listen; unset for nowhere.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
}

/// One node that this process runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's number, as its registration told.
    pub id: u32,
    /// What it does; must be what it is registered for.
    pub role: RoleName,
    /// The model's name, as the model manifest spells it.
    pub model: String,
    /// Of an evaluator: the rubric that ships with this build for a kind of answer, `qa` or `summarisation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rubric: Option<TaskKind>,
    /// Of an evaluator: a file with a rubric of one's own.
    #[serde(default, deserialize_with = "relative_optional", skip_serializing_if = "Option::is_none")]
    pub rubric_file: Option<PathBuf>,
    /// Its own operator key file, where it is not the common one.
    #[serde(default, deserialize_with = "relative_optional")]
    pub key: Option<PathBuf>,
    /// The file that holds that keystore's password.
    #[serde(default, deserialize_with = "relative_optional")]
    pub password_file: Option<PathBuf>,
}

/// Whether this process moves tasks on whose next step is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeeperConfig {
    /// Whether it does. Somebody has to settle, or nobody is paid.
    pub enabled: bool,
    /// What a step must pay, in percent of what its transaction costs. 0 does every step at once, whatever it pays: for networks
    /// without other keepers.
    pub margin_percent: u32,
    /// The longest random delay before it acts on a due step, so that several keepers do not all pay for the same one.
    #[serde(with = "duration")]
    pub max_delay: Duration,
}

impl Default for KeeperConfig {
    fn default() -> Self {
        KeeperConfig { enabled: true, margin_percent: 100, max_delay: Duration::from_secs(2) }
    }
}

/// Bounds on what the worker takes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// How many tasks are worked on at a time; further ones wait their turn.
    pub max_concurrent: usize,
    /// The most tokens of one answer.
    pub max_tokens: usize,
    /// The largest task input that is taken, in bytes.
    pub max_prompt_bytes: usize,
    /// How long before a deadline work must be done, so that the transaction is still in time.
    #[serde(with = "duration")]
    pub submit_margin: Duration,
    /// The least time that an answer is begun with; with less left the duty is given up before it costs a model's time.
    #[serde(with = "duration")]
    pub min_generation_time: Duration,
    /// How much of the panel's time to commit an evaluator waits for an output that cannot be fetched, in percent.
    pub fetch_patience_percent: u8,
    /// How long ready transactions wait for others to share a batch with.
    #[serde(with = "duration")]
    pub batch_linger: Duration,
    /// How long open duties may take when the worker is asked to stop.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// How long finished tasks stay in the journal and their blobs on disk.
    #[serde(with = "duration")]
    pub keep_finished: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            // One model thread answers one task at a time; the second task fetches and verifies meanwhile.
            max_concurrent: 2,
            max_tokens: 128,
            max_prompt_bytes: 64 * 1024,
            // Two blocks of six seconds: one to be seen, one to be included.
            submit_margin: Duration::from_secs(12),
            min_generation_time: Duration::from_secs(2),
            // A node that restarts is back by then, and the last quarter of the window is for scoring and committing.
            fetch_patience_percent: 75,
            batch_linger: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(120),
            keep_finished: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// What dishonest nodes do: for test networks, to see what an attack earns. A worker with this section refuses to run on a chain
/// that does not call itself a development chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversaryConfig {
    /// The attack, as `poq simulate` spells it: `boosting`, `noise=0.3`, `never-reveal`, …
    pub attack: String,
    /// Which of this worker's nodes it corrupts. They collude.
    #[serde(deserialize_with = "list")]
    pub nodes: BTreeSet<u32>,
    /// What their coins are tossed with: colluders in other processes agree where it is the same.
    #[serde(default)]
    pub seed: u64,
}

impl AdversaryConfig {
    /// The attack by its name.
    ///
    /// # Errors
    /// What is wrong with the name or its strength.
    pub fn parse(&self) -> Result<Attack, String> {
        self.attack.parse()
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged, as a `tracing` filter: `info`, `poq_worker=debug,info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, filter: "info".into() }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Where the journal and, by default, the blobs are. Back it up with the key: it is what makes a restart safe.
    #[serde(deserialize_with = "relative")]
    pub data_dir: PathBuf,
    /// Where the models are; unset for `poq-models`' default folder.
    #[serde(deserialize_with = "relative_optional")]
    pub models_dir: Option<PathBuf>,
    /// The chain.
    pub chain: ChainConfig,
    /// The keys.
    pub keys: KeysConfig,
    /// The blob store and server.
    pub blobs: BlobsConfig,
    /// Metrics and health.
    pub metrics: MetricsConfig,
    /// The keeper.
    pub keeper: KeeperConfig,
    /// Bounds.
    pub limits: LimitsConfig,
    /// Logging.
    pub log: LogConfig,
    /// Test networks only: what dishonest nodes do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adversary: Option<AdversaryConfig>,
    /// Models of one's own, and how models are run where the defaults do not fit.
    pub models: Vec<ModelConfig>,
    /// The nodes that this process runs.
    #[serde(deserialize_with = "tables")]
    pub nodes: Vec<NodeConfig>,
    /// Where this configuration came from, for error messages.
    #[serde(skip)]
    origin: String,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            data_dir: default_data_dir(),
            models_dir: None,
            chain: ChainConfig::default(),
            keys: KeysConfig::default(),
            blobs: BlobsConfig::default(),
            metrics: MetricsConfig::default(),
            keeper: KeeperConfig::default(),
            limits: LimitsConfig::default(),
            log: LogConfig::default(),
            adversary: None,
            models: Vec::new(),
            nodes: Vec::new(),
            origin: "configuration".into(),
        }
    }
}

/// `$XDG_DATA_HOME/poq`, or `~/.local/share/poq`, or `poq-data` in the working directory.
fn default_data_dir() -> PathBuf {
    xdg("XDG_DATA_HOME", ".local/share").map_or_else(|| PathBuf::from("poq-data"), |base| base.join("poq"))
}

fn xdg(variable: &str, fallback: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(fallback)))
}

impl WorkerConfig {
    /// Reads the file (if one is named), then the environment, then `overrides`, a table shaped like the file.
    ///
    /// # Errors
    /// Where the file cannot be read, a value does not parse, or a key is unknown; the error names source and key.
    pub fn load(file: Option<&Path>, overrides: toml::Table) -> Result<WorkerConfig, ConfigError> {
        WorkerConfig::load_with(file, overrides, std::env::vars_os())
    }

    /// As [`WorkerConfig::load`] with these variables for the environment.
    fn load_with(
        file: Option<&Path>,
        overrides: toml::Table,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<WorkerConfig, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(WorkerConfig::default()));
        if let Some(path) = file {
            figment = figment.merge(TomlFile::read(path)?);
        }
        let environment = environment(variables)?;
        let said = environment.0.clone();
        let figment = figment.merge(environment).merge(Overrides(overrides));
        let mut config: WorkerConfig = figment.extract().map_err(|error| invalid(error, file, &said))?;
        config.origin = file.map_or_else(|| "configuration".into(), |path| path.display().to_string());
        // What a variable says is relative to the working directory.
        if let Some(folder) = file.and_then(Path::parent).filter(|_| !said.contains_key("models")) {
            let manifest = Manifest::builtin();
            config.models.iter_mut().for_each(|model| model.relative_to(folder, &manifest));
        }
        Ok(config)
    }

    /// Whether blobs are fetched from private addresses; see [`BlobsConfig::allow_private`].
    pub fn fetches_private(&self) -> bool {
        let is_local = |address: &NodeUrl| {
            url::Url::parse(address.expose()).is_ok_and(|url| match url.host() {
                Some(url::Host::Domain(name)) => name == "localhost",
                Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
                Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
                None => false,
            })
        };
        self.blobs.allow_private.unwrap_or_else(|| self.chain.urls.iter().all(is_local))
    }

    /// The models that there are: those of the manifest, and those that are configured here. Files that are not pinned are hashed.
    pub fn store(&self) -> ModelStore {
        let dir = self.models_dir.clone().unwrap_or_else(default_models_dir);
        ModelStore::new(Manifest::builtin(), dir).with_models(self.models.clone())
    }

    /// The documented example file, which parses.
    pub fn example() -> &'static str {
        include_str!("../poq.example.toml")
    }

    /// Checks all that a worker needs and parsing cannot see.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_given(&Given::default())
    }

    /// As [`WorkerConfig::validate`], without asking for what the program hands in itself.
    pub(crate) fn validate_given(&self, given: &Given) -> Result<(), ConfigError> {
        if !given.chain {
            self.validate_chain()?;
        }
        self.validate_keys(given)?;
        self.validate_blobs()?;
        self.validate_limits()?;
        if let Some((place, key, problem, advice)) = ModelConfig::problem(&self.models, &Manifest::builtin())
        {
            self.ensure(false, format!("models[{place}].{key}"), problem, advice)?;
        }
        self.validate_adversary()
    }

    fn validate_chain(&self) -> Result<(), ConfigError> {
        self.ensure(
            self.chain.contract.is_some(),
            "chain.contract",
            "is not set",
            "set it to the contract's account: scripts/deploy.sh prints it",
        )?;
        for (key, span) in
            [("chain.poll_interval", self.chain.poll_interval), ("chain.stall_after", self.chain.stall_after)]
        {
            self.ensure(!span.is_zero(), key, "is zero", "set a duration such as \"6s\"")?;
        }
        Ok(())
    }

    fn validate_keys(&self, given: &Given) -> Result<(), ConfigError> {
        self.ensure(
            !self.nodes.is_empty() || self.keeper.enabled || self.blobs.listen.is_some(),
            "nodes",
            "is empty, and neither keeper nor blob server is on: there is nothing to do",
            "register a node with `poq node register` and add it as [[nodes]]",
        )?;
        let mut seen = BTreeSet::new();
        for (place, node) in self.nodes.iter().enumerate() {
            let key = |field: &str| format!("nodes[{place}].{field}");
            self.ensure(node.id != 0, key("id"), "is 0", "nodes count from 1; `poq node list` tells")?;
            self.ensure(
                seen.insert(node.id),
                key("id"),
                format!("is {} for the second time", node.id),
                "list every node once; two processes must not run the same node either",
            )?;
            self.ensure(
                !node.model.is_empty(),
                key("model"),
                "is empty",
                "`poq models list` tells the names",
            )?;
            self.ensure(
                node.key.is_some()
                    || self.keys.operator.is_some()
                    || given.operator
                    || given.nodes.contains(&node.id),
                key("key"),
                "is not set, and neither is keys.operator",
                "name the operator's key file",
            )?;
            self.ensure(
                node.role == RoleName::Evaluator || (node.rubric.is_none() && node.rubric_file.is_none()),
                key("rubric"),
                "is set for an inference node, which scores nothing",
                "leave it out",
            )?;
            self.ensure(
                node.rubric.is_none() || node.rubric_file.is_none(),
                key("rubric"),
                "is set beside rubric_file",
                "choose one of the two",
            )?;
            for (field, path) in [
                ("key", &node.key),
                ("password_file", &node.password_file),
                ("rubric_file", &node.rubric_file),
            ] {
                self.ensure_file(key(field), path.as_deref())?;
            }
        }
        if self.keeper.enabled && self.nodes.is_empty() {
            self.ensure(
                self.keys.operator.is_some() || given.operator,
                "keys.operator",
                "is not set, and the keeper has to sign",
                "name a key file, or set keeper.enabled = false",
            )?;
        }
        self.ensure_file("keys.operator".into(), self.keys.operator.as_deref())?;
        self.ensure_file("keys.password_file".into(), self.keys.password_file.as_deref())
    }

    fn validate_blobs(&self) -> Result<(), ConfigError> {
        let answers = self.nodes.iter().any(|node| node.role == RoleName::Inference);
        self.ensure(
            !answers || self.blobs.listen.is_some(),
            "blobs.listen",
            "is not set, and an inference node has to serve its outputs",
            "set an address such as \"0.0.0.0:9955\", and register http://<host>:9955 as the node's endpoint",
        )?;
        // Whom it must be reachable for is known only where the chain is: the worker looks when it has connected.
        self.check_public_url(Audience::Development).map(drop)?;
        self.ensure(self.blobs.max_blob_bytes > 0, "blobs.max_blob_bytes", "is 0", "leave it out for 262144")
    }

    /// Checks `blobs.public_url` for those who have to reach it. Returns what is to be said of it, if anything.
    ///
    /// # Errors
    /// Where they cannot.
    pub fn check_public_url(&self, audience: Audience) -> Result<Option<String>, ConfigError> {
        let Some(address) = &self.blobs.public_url else { return Ok(None) };
        endpoint::check(address, audience).map(|checked| checked.warning).map_err(|error| {
            ConfigError::Unfit {
                origin: self.origin.clone(),
                key: "blobs.public_url".into(),
                problem: format!("is `{}`, which {}", error.address, error.problem),
                advice: error.advice,
            }
        })
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        for (key, value) in [
            ("limits.max_concurrent", limits.max_concurrent),
            ("limits.max_tokens", limits.max_tokens),
            ("limits.max_prompt_bytes", limits.max_prompt_bytes),
        ] {
            self.ensure(value > 0, key, "is 0", "set it to at least 1, or leave it out")?;
        }
        self.ensure(
            limits.fetch_patience_percent <= 90,
            "limits.fetch_patience_percent",
            "is above 90",
            "leave time to score and to commit: 75 is the default",
        )
    }

    fn validate_adversary(&self) -> Result<(), ConfigError> {
        let Some(adversary) = &self.adversary else { return Ok(()) };
        if let Err(problem) = adversary.parse() {
            let advice = "`poq simulate sweep --help` lists the attacks";
            self.ensure(false, "adversary.attack", format!("does not parse: {problem}"), advice)?;
        }
        for node in &adversary.nodes {
            self.ensure(
                self.nodes.iter().any(|run| run.id == *node),
                "adversary.nodes",
                format!("names node {node}, which this worker does not run"),
                "name nodes of [[nodes]] only",
            )?;
        }
        Ok(())
    }

    fn ensure(
        &self,
        ok: bool,
        key: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<(), ConfigError> {
        if ok {
            return Ok(());
        }
        Err(ConfigError::Unfit {
            origin: self.origin.clone(),
            key: key.into(),
            problem: problem.into(),
            advice: advice.into(),
        })
    }

    fn ensure_file(&self, key: String, path: Option<&Path>) -> Result<(), ConfigError> {
        let Some(path) = path else { return Ok(()) };
        self.ensure(
            path.is_file(),
            key,
            format!("names {}, which is no file", path.display()),
            "correct the path, or make a key with `poq keys generate`",
        )
    }
}

/// What a program that runs a worker hands in, instead of configuring it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// A connection, which knows its contract.
    pub(crate) chain: bool,
    /// The common operator key.
    pub(crate) operator: bool,
    /// Nodes with a key of their own.
    pub(crate) nodes: BTreeSet<u32>,
}

/// A configuration file, as editors of all systems write it. figment's own reader takes a missing file for an empty one.
struct TomlFile {
    path: PathBuf,
    text: String,
}

impl TomlFile {
    fn read(path: &Path) -> Result<TomlFile, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.display().to_string(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::Invalid {
            origin: path.display().to_string(),
            key: String::new(),
            message: "is no UTF-8 text; save it as UTF-8 (Windows' editors call UTF-16 \"Unicode\")".into(),
        })?;
        // Beside the byte order mark, old editors end a text with ^Z.
        let text = text.trim_start_matches('\u{feff}').trim_end_matches('\u{1a}').to_owned();
        Ok(TomlFile { path: path.to_owned(), text })
    }
}

impl Provider for TomlFile {
    fn metadata(&self) -> Metadata {
        // Relative paths are taken relative to this.
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        Metadata::from("TOML file", Source::File(path))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values: Dict =
            Toml::from_str(&self.text).map_err(|error| figment::Error::from(error.to_string()))?;
        Ok(Profile::Default.collect(values))
    }
}

/// What the environment says: every variable with a section (`POQ_CHAIN__URLS`), and the few keys without one. Other `POQ_…`
/// variables belong to scripts and to the command line's flags.
struct Environment(Dict);

/// Reads the variables of this configuration.
fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, ConfigError> {
    let mut dict = Dict::new();
    let mut variables: Vec<(OsString, OsString)> = variables.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        let refuse = |message: String| ConfigError::Invalid {
            origin: "the environment".into(),
            key: name.to_owned(),
            message,
        };
        let rest = rest.to_lowercase();
        let mut path: Vec<&str> = rest.split(ENV_SEPARATOR).collect();
        let Some(key) = path.pop() else { continue };
        if path.is_empty() {
            if LONE_KEYS.contains(&key) {
                dict.insert(key.to_owned(), environment_value(&value).map_err(refuse)?);
            } else if let Some((section, key)) = key.split_once('_').filter(|(s, _)| SECTIONS.contains(s)) {
                return Err(refuse(format!(
                    "is no variable of the configuration: a section and its key are parted by two underscores; write {}",
                    variable(&[section, key])
                )));
            }
            continue;
        }
        let known = path.len() == 1 && SECTIONS.contains(&path[0]);
        if !known || key.is_empty() {
            return Err(refuse(format!(
                "is no variable of the configuration: they are {ENV_PREFIX}<SECTION>{ENV_SEPARATOR}<KEY>, and the sections are {}",
                SECTIONS.join(", ")
            )));
        }
        let value = environment_value(&value).map_err(refuse)?;
        let section = dict.entry(path[0].to_owned()).or_insert_with(|| Dict::new().into());
        if let Value::Dict(_, section) = section {
            section.insert(key.to_owned(), value);
        }
    }
    Ok(Environment(dict))
}

/// A variable's value: a number, a boolean or a list as TOML has them, a text without quotes, or JSON's list of texts and numbers,
/// which is TOML as well.
fn environment_value(value: &OsString) -> Result<Value, String> {
    let text = value.to_str().ok_or("is no UTF-8 text")?.trim();
    #[derive(Deserialize)]
    struct Line {
        value: toml::Value,
    }
    match toml::from_str::<Line>(&format!("value = {text}")) {
        // A date would be none that is asked for anywhere, and a line break another key.
        Ok(Line { value }) if !matches!(value, toml::Value::Datetime(_)) && !text.contains('\n') => {
            Value::serialize(value).map_err(|error| error.to_string())
        }
        _ if text.starts_with("[{") || text.starts_with("[ {") => Err(
            "is no list of tables as the configuration file has them: write [{ id = 1, role = \"inference\", model = \"…\" }]"
                .into(),
        ),
        _ => Ok(Value::from(text)),
    }
}

/// A variable's name.
fn variable(path: &[&str]) -> String {
    format!("{ENV_PREFIX}{}", path.join(ENV_SEPARATOR).to_uppercase())
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// What figment calls the command line.
const COMMAND_LINE: &str = "command line";

/// What the command line gave.
struct Overrides(toml::Table);

impl Provider for Overrides {
    fn metadata(&self) -> Metadata {
        Metadata::named(COMMAND_LINE)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let value = Value::serialize(&self.0)?;
        Ok(Profile::Default.collect(value.into_dict().unwrap_or_default()))
    }
}

/// figment's error in our words. `environment` is what the environment said.
fn invalid(error: figment::Error, file: Option<&Path>, environment: &Dict) -> ConfigError {
    // figment collects every error; the first one is told.
    let error = error.into_iter().next();
    let Some(error) = error else {
        return ConfigError::Invalid {
            origin: "configuration".into(),
            key: String::new(),
            message: "does not parse".into(),
        };
    };
    let message = error.kind.to_string();
    let mut path = error.path;
    if let figment::error::Kind::UnknownField(field, _) = &error.kind {
        if path.last() != Some(field) {
            path.push(field.clone());
        }
    }
    let given = error.metadata.as_ref().is_some_and(|metadata| metadata.name == COMMAND_LINE);
    // What the environment said wins over the file.
    if let Some(name) = said_by(environment, &path).filter(|_| !given) {
        return ConfigError::Invalid { origin: "the environment".into(), key: name, message };
    }
    let origin = match &error.metadata {
        Some(metadata) => match (&metadata.source, metadata.name.as_ref()) {
            (Some(Source::File(path)), _) => file.unwrap_or(path).display().to_string(),
            (_, name) => name.to_string(),
        },
        None => file.map_or_else(|| "configuration".into(), |path| path.display().to_string()),
    };
    ConfigError::Invalid { origin, key: path.join("."), message }
}

/// The variable that said what is at this path, if one did.
fn said_by(environment: &Dict, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    match (environment.get(first)?, rest.first()) {
        (Value::Dict(_, section), Some(key)) if SECTIONS.contains(&first.as_str()) => {
            section.contains_key(key).then(|| variable(&[first, key]))
        }
        _ => Some(variable(&[first])),
    }
}

/// An address to listen at.
fn listen<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    text.map(|text| endpoint::check_listen(&text).map_err(serde::de::Error::custom)).transpose()
}

/// Numbers: a list of them, one alone, or a text with commas, as an environment variable has them.
fn list<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BTreeSet<u32>, D::Error> {
    struct Numbers;

    fn fits<E: serde::de::Error>(number: impl TryInto<u32> + std::fmt::Display + Copy) -> Result<u32, E> {
        number.try_into().map_err(|_| E::custom(format!("{number} is no number of a node")))
    }

    impl<'de> Visitor<'de> for Numbers {
        type Value = BTreeSet<u32>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("numbers of nodes, as a list or separated by commas")
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(BTreeSet::from([fits(number)?]))
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(BTreeSet::from([fits(number)?]))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts
                .map(|part| part.parse().map_err(|_| E::custom(format!("`{part}` is no number of a node"))))
                .collect()
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut numbers = BTreeSet::new();
            while let Some(number) = seq.next_element()? {
                numbers.insert(number);
            }
            Ok(numbers)
        }
    }

    d.deserialize_any(Numbers)
}

/// Nodes: a list of them, or one alone, as an environment variable may have it.
fn tables<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<NodeConfig>, D::Error> {
    struct Tables;

    impl<'de> Visitor<'de> for Tables {
        type Value = Vec<NodeConfig>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of nodes: [[nodes]] in the file, [{ id = 1, role = \"inference\", model = \"…\" }] in a variable")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut nodes = Vec::new();
            while let Some(node) = seq.next_element()? {
                nodes.push(node);
            }
            Ok(nodes)
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            NodeConfig::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|node| vec![node])
        }
    }

    d.deserialize_any(Tables)
}

fn relative<'de, D: serde::Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    figment::value::magic::RelativePathBuf::deserialize(d).map(|path| path.relative())
}

fn relative_optional<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    Option::<figment::value::magic::RelativePathBuf>::deserialize(d)
        .map(|path| path.map(|path| path.relative()))
}

/// Durations as people write them: `"90s"`, `"2min"`.
mod duration {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("`{text}` is no duration such as \"90s\" or \"2min\": {error}"))
        })
    }
}

/// The same where it may be left out.
mod optional_duration {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Span(#[serde(with = "super::duration")] Duration);

    pub(super) fn serialize<S: Serializer>(span: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        span.map(Span).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Span>::deserialize(d)?.map(|span| span.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("poq.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn load(text: &str) -> Result<WorkerConfig, ConfigError> {
        let (_dir, path) = file(text);
        WorkerConfig::load(Some(&path), toml::Table::new())
    }

    #[test]
    fn the_example_parses_and_spells_out_the_defaults() {
        let config = load(WorkerConfig::example()).unwrap();
        let defaults = WorkerConfig::default();
        assert_eq!(config.limits, defaults.limits);
        assert_eq!(config.keeper, defaults.keeper);
        assert_eq!(config.log, defaults.log);
        assert_eq!(config.chain.poll_interval, defaults.chain.poll_interval);
        assert_eq!(config.nodes.len(), 2);
    }

    #[test]
    fn every_key_is_in_the_example() {
        fn keys(prefix: &str, value: &toml::Value, found: &mut Vec<String>) {
            if let toml::Value::Table(table) = value {
                for (key, value) in table {
                    found.push(key.clone());
                    keys(&format!("{prefix}{key}."), value, found);
                }
            }
        }
        let full = WorkerConfig {
            models_dir: Some("m".into()),
            chain: ChainConfig {
                contract: Some("c".into()),
                max_block_age: Some(Duration::from_secs(1)),
                ..ChainConfig::default()
            },
            keys: KeysConfig { operator: Some("k".into()), password_file: Some("p".into()) },
            blobs: BlobsConfig {
                listen: Some(([127, 0, 0, 1], 1).into()),
                public_url: Some("u".into()),
                store: Some("s".into()),
                allow_private: Some(false),
                ..BlobsConfig::default()
            },
            metrics: MetricsConfig { listen: Some(([127, 0, 0, 1], 1).into()) },
            ..WorkerConfig::default()
        };
        let mut found = Vec::new();
        keys("", &toml::Value::try_from(full).unwrap(), &mut found);
        for key in found {
            assert!(WorkerConfig::example().contains(&key), "`{key}` is not in poq.example.toml");
        }
    }

    #[test]
    fn how_a_model_is_run_is_checked_before_anything_is_promised() {
        let run = |models: &str| {
            let (dir, path) = file(&format!(
                "keys = {{ operator = \"operator.key\" }}\nblobs = {{ listen = \"127.0.0.1:0\" }}\n\
                 chain = {{ contract = \"c\" }}\n{models}\n\
                 [[nodes]]\nid = 1\nrole = \"inference\"\nmodel = \"m\"\n"
            ));
            std::fs::write(dir.path().join("operator.key"), "//Alice").unwrap();
            let config = WorkerConfig::load(Some(&path), toml::Table::new())?;
            config.validate().map(|()| config)
        };
        let own = |text: &str| format!("[[models]]\nname = \"m\"\nsource = \"m.gguf\"\n{text}\n");
        let config = run(&own("dtype = \"f32\"\nparallel = 4")).unwrap();
        // Relative to the file; what is not there hinders nobody who does not ask for it.
        assert!(config.models[0].source.as_ref().unwrap().ends_with("/m.gguf"));
        let store = config.store();
        assert!(store.manifest().get("m").unwrap_err().to_string().contains("/m.gguf"));
        let options = store.options("m");
        assert_eq!((options.precision, options.parallel), (poq_inference::Precision::F32, Some(4)));
        assert_eq!(store.options("all-minilm-l6-v2"), Default::default());
        let twice = own("") + &own("");
        for (models, parts) in [
            ("[[models]]\nname = \"x\"\n".to_string(), ["models[0].name", "`x`"]),
            (twice, ["models[1].name", "second time"]),
            (own("parallel = 0"), ["models[0].parallel", "at least 1"]),
            (own("device = \"gpu\""), ["device", "cuda:N"]),
            (own("dtype = \"int8\""), ["dtype", "int8"]),
            (own("device = \"cuda:99\""), ["models[0].device", "cuda:99"]),
        ] {
            let error = run(&models).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_and_key() {
        let error = load("[limits]\nmax_tokns = 5\n").unwrap_err().to_string();
        assert!(
            error.contains("poq.toml") && error.contains("limits") && error.contains("max_tokns"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_key() {
        let error = load("[chain]\npoll_interval = \"soon\"\n").unwrap_err().to_string();
        assert!(error.contains("chain.poll_interval") && error.contains("soon"), "{error}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let (dir, path) = file("data_dir = \"data\"\n[keys]\noperator = \"operator.key\"\n");
        let config = WorkerConfig::load(Some(&path), toml::Table::new()).unwrap();
        assert_eq!(config.data_dir, dir.path().join("data"));
        assert_eq!(config.keys.operator, Some(dir.path().join("operator.key")));
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let (_dir, path) = file("[chain]\ncontract = \"a\"\nconfirmation = \"finalized\"\n");
        let overrides: toml::Table = toml::from_str("[chain]\ncontract = \"b\"").unwrap();
        let config = WorkerConfig::load(Some(&path), overrides).unwrap();
        assert_eq!(config.chain.contract.as_deref(), Some("b"));
        assert_eq!(config.chain.confirmation, Confirmation::Finalized);
    }

    #[test]
    fn a_missing_file_is_told_with_what_to_do() {
        let error =
            WorkerConfig::load(Some(Path::new("nowhere.toml")), toml::Table::new()).unwrap_err().to_string();
        assert!(error.contains("nowhere.toml") && error.contains("poq worker example-config"), "{error}");
    }

    #[test]
    fn private_addresses_are_fetched_from_only_beside_a_local_node_or_when_told_to() {
        let mut config = WorkerConfig::default();
        assert!(config.fetches_private());
        config.chain.urls = "ws://127.0.0.1:9944,wss://rpc.example.org".parse().unwrap();
        assert!(!config.fetches_private());
        config.blobs.allow_private = Some(true);
        assert!(config.fetches_private());
    }

    #[test]
    fn validation_names_key_and_advice() {
        let (dir, _path) = file("");
        let key = dir.path().join("operator.key");
        std::fs::write(&key, "//Alice").unwrap();
        let good = WorkerConfig {
            chain: ChainConfig { contract: Some("c".into()), ..ChainConfig::default() },
            keys: KeysConfig { operator: Some(key.clone()), password_file: None },
            blobs: BlobsConfig { listen: Some(([127, 0, 0, 1], 0).into()), ..BlobsConfig::default() },
            nodes: vec![NodeConfig {
                id: 1,
                role: RoleName::Inference,
                model: "m".into(),
                rubric: None,
                rubric_file: None,
                key: None,
                password_file: None,
            }],
            ..WorkerConfig::default()
        };
        good.validate().unwrap();
        type Change = fn(&mut WorkerConfig);
        let changes: [(Change, &str); 9] = [
            (|c| c.blobs.public_url = Some("0.0.0.0:9955".into()), "blobs.public_url"),
            (|c| c.blobs.public_url = Some("http://u:SECRET@h:1".into()), "blobs.public_url"),
            (|c| c.chain.contract = None, "chain.contract"),
            (|c| c.keys.operator = None, "nodes[0].key"),
            (|c| c.keys.operator = Some("absent".into()), "keys.operator"),
            (|c| c.nodes.push(c.nodes[0].clone()), "nodes[1].id"),
            (|c| c.blobs.listen = None, "blobs.listen"),
            (|c| c.blobs.public_url = Some("ftp://x".into()), "blobs.public_url"),
            (|c| c.limits.max_concurrent = 0, "limits.max_concurrent"),
        ];
        for (change, key) in changes {
            let mut config = good.clone();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")) && !error.contains("SECRET"), "{key}: {error}");
        }
    }

    fn from_env(text: &str, variables: &[(&str, &str)]) -> Result<WorkerConfig, ConfigError> {
        let (_dir, path) = file(text);
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        WorkerConfig::load_with(Some(&path), toml::Table::new(), variables)
    }

    #[test]
    fn every_list_is_read_from_the_environment_in_either_form() {
        let expected: NodeUrls = "ws://a:1,wss://b/v3/SECRET".parse().unwrap();
        for value in [
            "ws://a:1,wss://b/v3/SECRET",
            " ws://a:1 , wss://b/v3/SECRET ,",
            r#"["ws://a:1", "wss://b/v3/SECRET"]"#,
            r#"['ws://a:1','wss://b/v3/SECRET']"#,
        ] {
            let config = from_env("[chain]\nurls = [\"ws://c:1\"]\n", &[("POQ_CHAIN__URLS", value)]).unwrap();
            assert_eq!(config.chain.urls, expected, "{value}");
            assert!(!format!("{config:?}").contains("SECRET"));
            assert!(!toml::to_string(&config).unwrap().contains("SECRET"));
        }
        let one = from_env("", &[("POQ_CHAIN__URLS", "ws://[::1]:9944")]).unwrap();
        assert_eq!(one.chain.urls.iter().count(), 1);
        for (value, nodes) in
            [("3", vec![3]), ("1,2", vec![1, 2]), ("1, 2,", vec![1, 2]), ("[1, 2]", vec![1, 2])]
        {
            let file = "[adversary]\nattack = \"boosting\"\nnodes = [9]\n";
            let config = from_env(file, &[("POQ_ADVERSARY__NODES", value)]).unwrap();
            assert_eq!(config.adversary.unwrap().nodes, nodes.into_iter().collect(), "{value}");
        }
        for value in [
            r#"[{id = 1, role = "inference", model = "m", key = "k"}]"#,
            r#"{id = 1, role = "inference", model = "m", key = "k"}"#,
        ] {
            let config = from_env("", &[("POQ_NODES", value)]).unwrap();
            assert_eq!(
                (config.nodes.len(), config.nodes[0].id, config.nodes[0].role),
                (1, 1, RoleName::Inference)
            );
            assert_eq!(config.nodes[0].key, Some("k".into()));
        }
        for (name, value) in [
            ("POQ_CHAIN__URLS", "http://a/SECRET"),
            ("POQ_CHAIN__URLS", ""),
            ("POQ_ADVERSARY__NODES", "1,x"),
            ("POQ_NODES", r#"[{"id": 1, "role": "inference", "model": "m"}]"#),
        ] {
            let file = "[adversary]\nattack = \"boosting\"\nnodes = [9]\n";
            let error = from_env(file, &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("SECRET"), "{value}: {error}");
        }
    }

    #[test]
    fn values_of_every_type_are_read_from_the_environment() {
        let config = from_env(
            "[limits]\nmax_tokens = 5\n",
            &[
                ("POQ_LIMITS__MAX_TOKENS", "7"),
                ("POQ_KEEPER__ENABLED", "false"),
                ("POQ_CHAIN__POLL_INTERVAL", "9s"),
                ("POQ_CHAIN__CONTRACT", "5CiPPseXPECbkjWCa6MnjNokrgYjMqmKndv2rSnekmSK2DjL"),
                ("POQ_BLOBS__LISTEN", "0.0.0.0:9955"),
                ("POQ_LOG__FILTER", "poq_worker=debug,info"),
                ("POQ_DATA_DIR", "/d"),
                ("POQ_CHAIN__CONFIRMATION", "finalized"),
                // Of flags and scripts.
                ("POQ_KEY_FILE", "k"),
                ("POQ_LOG", "info"),
                ("POQ_URL", "ws://x"),
                ("OTHER_CHAIN__URLS", "x"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.limits.max_tokens, 7);
        assert!(!config.keeper.enabled);
        assert_eq!(config.chain.poll_interval, Duration::from_secs(9));
        assert!(config.chain.contract.unwrap().starts_with("5CiP"));
        assert_eq!(config.blobs.listen, Some("0.0.0.0:9955".parse().unwrap()));
        assert_eq!(config.log.filter, "poq_worker=debug,info");
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.chain.confirmation, Confirmation::Finalized);
        let hex = format!("0x{}", "12".repeat(32));
        let config = from_env("", &[("POQ_CHAIN__CONTRACT", &hex)]).unwrap();
        assert_eq!(config.chain.contract, Some(hex));
    }

    #[test]
    fn a_variable_that_is_none_is_named() {
        for (name, says) in [
            ("POQ_CHAIN_URLS", "write POQ_CHAIN__URLS"),
            ("POQ_LIMITS_MAX_TOKENS", "write POQ_LIMITS__MAX_TOKENS"),
            ("POQ_CHIAN__URLS", "the sections are chain"),
            ("POQ_CHAIN__URLS__0", "the sections are chain"),
            ("POQ_CHAIN__URL", "unknown"),
            ("POQ_LIMITS__MAX_TOKNS", "unknown"),
        ] {
            let error = from_env("", &[(name, "1")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(says), "{name}: {error}");
        }
        let error = from_env("", &[("POQ_LIMITS__MAX_TOKENS", "many")]).unwrap_err().to_string();
        assert!(error.contains("POQ_LIMITS__MAX_TOKENS"), "{error}");
    }

    #[test]
    fn a_file_that_windows_wrote_is_read() {
        let config = load("\u{feff}data_dir = \"d\"\r\n[limits]\r\nmax_tokens = 5\r\n\u{1a}").unwrap();
        assert_eq!(config.limits.max_tokens, 5);
        let (dir, path) = file("");
        let utf16: Vec<u8> = "\u{feff}data_dir = 'd'".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, utf16).unwrap();
        let error = WorkerConfig::load(Some(&path), toml::Table::new()).unwrap_err().to_string();
        assert!(error.contains("save it as UTF-8") && error.contains("poq.toml"), "{error}");
        // Paths are still relative to the file.
        std::fs::write(&path, "\u{feff}data_dir = \"d\"\r\n").unwrap();
        assert_eq!(
            WorkerConfig::load(Some(&path), toml::Table::new()).unwrap().data_dir,
            dir.path().join("d")
        );
    }

    #[test]
    fn an_address_to_listen_at_is_refused_with_what_to_write() {
        let error = load("[blobs]\nlisten = \"http://0.0.0.0:9955\"\n").unwrap_err().to_string();
        assert!(error.contains("blobs.listen") && error.contains("write 0.0.0.0:9955"), "{error}");
        let error = load("[metrics]\nlisten = \"localhost:9615\"\n").unwrap_err().to_string();
        assert!(error.contains("metrics.listen") && error.contains("write 127.0.0.1:9615"), "{error}");
    }

    #[test]
    fn a_public_address_is_judged_by_who_has_to_reach_it() {
        let mut config = WorkerConfig::default();
        assert_eq!(config.check_public_url(Audience::Public).unwrap(), None);
        config.blobs.public_url = Some("http://192.168.1.7:9955".into());
        assert!(config.check_public_url(Audience::Development).unwrap().unwrap().contains("private network"));
        let error = config.check_public_url(Audience::Public).unwrap_err().to_string();
        assert!(error.contains("blobs.public_url") && error.contains("private network"), "{error}");
    }
}
