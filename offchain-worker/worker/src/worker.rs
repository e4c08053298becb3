//! A worker: everything that runs nodes, from configuration to shutdown.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use poq_blobs::endpoint::Audience;
use poq_blobs::{shown_store, BlobServer, BlobStore, ServerConfig, StoreLimits};
use poq_chain::signer::{parse_account, ss58, Keys};
use poq_chain::types::NodeId;
use poq_chain::{Client, Confirm, Options, H256};
use poq_journal::{Identity, Journal};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch, Semaphore};
use tokio::task::JoinHandle;

use crate::config::{Confirmation, Given, NodeConfig, WorkerConfig};
use crate::error::{Error, Result};
use crate::health::{About, Board, Readiness};
use crate::metrics;
use crate::models::{ModelSet, Models};
use crate::services::access::ChainAccess;
use crate::services::adversary::Adversary;
use crate::services::operator::{NodeRun, Operator};
use crate::services::{fetch, http, janitor, keeper, registry, watcher, Ctx};
use crate::supervisor::{Stop, Supervisor};
use crate::time::ChainClock;

/// The journal's file in the data folder.
pub const JOURNAL_FILE: &str = "journal.redb";
/// The first pause before an unreachable chain is tried again; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A chain that comes up is used within this time.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// What a program hands to a worker instead of having it made from the configuration. `Default` is nothing.
#[derive(Clone, Default)]
pub struct Deps {
    /// A connection that knows its contract; else one is made to `chain.urls`.
    pub chain: Option<Client>,
    /// Models that run already; the others are loaded.
    pub models: Models,
    /// The common operator key; else `keys.operator`.
    pub operator: Option<Keys>,
    /// Keys of nodes with a key of their own; else each node's `key`.
    pub keys: HashMap<NodeId, Keys>,
    /// A blob store; else `blobs.store`.
    pub store: Option<BlobStore>,
}

impl Deps {
    fn given(&self) -> Given {
        Given {
            chain: self.chain.is_some(),
            operator: self.operator.is_some(),
            nodes: self.keys.keys().copied().collect(),
        }
    }
}

/// Runs nodes.
pub struct Worker;

impl Worker {
    /// Checks the configuration, loads the keys, takes the address of the probes, and goes on in the background: waits for
    /// the chain, opens the journal, loads the models, and starts the services. Until all that is done the readiness
    /// probe says what is being waited for.
    ///
    /// # Errors
    /// What is wrong with the configuration, a key or the address. Later failures end the worker and come out of
    /// [`WorkerHandle::wait`].
    pub async fn start(config: WorkerConfig, deps: Deps) -> Result<WorkerHandle> {
        config.validate_given(&deps.given())?;
        metrics::install();
        let keys = KeyRing::load(&config, &deps).await?;
        let stop = Stop::default();
        // A loop comes round with every poll; one that waits for a node's answer may take as long as the chain may be
        // silent, and again for the retry.
        let board = Board::new(config.chain.poll_interval * 3 + config.chain.stall_after * 4);
        board.set(About::Starting("worker".into()), "the worker is starting");
        let listener = match config.metrics.listen {
            Some(listen) => Some(http::bind(listen).await?),
            None => None,
        };
        let metrics_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let blobs_addr = Arc::new(OnceLock::new());
        let boot = Boot {
            config,
            deps,
            keys,
            board: board.clone(),
            stop: stop.clone(),
            blobs_addr: blobs_addr.clone(),
        };
        let task = tokio::spawn(boot.run(listener));
        Ok(WorkerHandle { task, stop, board, blobs_addr, metrics_addr })
    }
}

/// A running worker. Dropping it leaves the worker running.
pub struct WorkerHandle {
    task: JoinHandle<Result<()>>,
    stop: Stop,
    board: Arc<Board>,
    blobs_addr: Arc<OnceLock<SocketAddr>>,
    metrics_addr: Option<SocketAddr>,
}

impl WorkerHandle {
    /// Asks the worker to stop: no new duty is begun, open ones are finished for up to `limits.drain_timeout`.
    pub fn shutdown(&self) {
        self.stop.drain.cancel();
    }

    /// Stops the worker at once. Nothing is lost: the journal has what was promised.
    pub fn stop_now(&self) {
        self.stop.drain.cancel();
        self.stop.now.cancel();
    }

    /// Waits until the worker has stopped.
    ///
    /// # Errors
    /// Why it stopped, where nobody had asked it to.
    pub async fn wait(self) -> Result<()> {
        match self.task.await {
            Ok(result) => result,
            Err(error) => Err(Error::Service { service: "worker".into(), reason: error.to_string() }),
        }
    }

    /// Whether it has stopped, by itself or because it was asked to; [`WorkerHandle::wait`] tells why.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether it can earn, and if not, why.
    pub fn readiness(&self) -> Readiness {
        self.board.readiness()
    }

    /// Waits until it can earn.
    ///
    /// # Errors
    /// What it still lacks after `patience`, or that it has stopped.
    pub async fn ready(&self, patience: Duration) -> std::result::Result<(), Vec<String>> {
        let begun = std::time::Instant::now();
        loop {
            match self.board.readiness() {
                Readiness::Ready => return Ok(()),
                Readiness::NotReady(mut reasons) if self.task.is_finished() || begun.elapsed() > patience => {
                    if self.task.is_finished() {
                        reasons.push("the worker has stopped".into());
                    }
                    return Err(reasons);
                }
                Readiness::NotReady(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Where the blob server listens, once it does.
    pub fn blobs_addr(&self) -> Option<SocketAddr> {
        self.blobs_addr.get().copied()
    }

    /// Where metrics and probes are served, if anywhere.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }
}

/// Waits for the worker. SIGINT or SIGTERM asks it to stop, a second one stops it at once.
///
/// # Errors
/// As [`WorkerHandle::wait`]; or that signals cannot be listened to.
pub async fn run_until_signal(handle: WorkerHandle) -> Result<()> {
    let mut signals = Signals::new()?;
    let stop = handle.stop.clone();
    let mut waiting = Box::pin(handle.wait());
    let mut asked = false;
    loop {
        tokio::select! {
            result = &mut waiting => return result,
            name = signals.next() => {
                if asked {
                    tracing::warn!(signal = name, "stopping at once");
                    stop.now.cancel();
                } else {
                    tracing::info!(signal = name, "finishing open duties; a second signal stops at once");
                    stop.drain.cancel();
                    asked = true;
                }
            }
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{signal, SignalKind};
        let listen =
            |kind| signal(kind).map_err(|source| Error::Io { what: "listening for signals".into(), source });
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// The keys of all nodes, and one for the keeper.
struct KeyRing {
    of: BTreeMap<NodeId, Keys>,
    common: Option<Keys>,
}

impl KeyRing {
    async fn load(config: &WorkerConfig, deps: &Deps) -> Result<KeyRing> {
        let mut loaded: HashMap<std::path::PathBuf, Keys> = HashMap::new();
        let common = match (&deps.operator, &config.keys.operator) {
            (Some(keys), _) => Some(keys.clone()),
            (None, Some(path)) => {
                let keys = load_key("keys.operator", path, config.keys.password_file.as_deref()).await?;
                loaded.insert(path.clone(), keys.clone());
                Some(keys)
            }
            (None, None) => None,
        };
        let mut of = BTreeMap::new();
        for node in &config.nodes {
            let keys = match (deps.keys.get(&node.id), &node.key) {
                (Some(keys), _) => Some(keys.clone()),
                (None, Some(path)) => {
                    let keys = match loaded.get(path) {
                        Some(keys) => keys.clone(),
                        None => {
                            let password =
                                node.password_file.as_deref().or(config.keys.password_file.as_deref());
                            load_key(&format!("node {}", node.id), path, password).await?
                        }
                    };
                    loaded.insert(path.clone(), keys.clone());
                    Some(keys)
                }
                (None, None) => common.clone(),
            };
            let keys = keys.ok_or_else(|| Error::Node {
                node: node.id,
                problem: "has no key; set keys.operator or its own `key`".into(),
            })?;
            of.insert(node.id, keys);
        }
        Ok(KeyRing { of, common })
    }

    /// Who pays for the keeper's transactions.
    fn keeper(&self) -> Option<Keys> {
        self.common.clone().or_else(|| self.of.values().next().cloned())
    }
}

/// Loads a key file where it does not hold up other tasks: opening a keystore is made to take long.
async fn load_key(what: &str, path: &Path, password_file: Option<&Path>) -> Result<Keys> {
    let (path, password_file) = (path.to_path_buf(), password_file.map(Path::to_path_buf));
    let loaded = tokio::task::spawn_blocking(move || {
        let password = Keys::password(password_file.as_deref())?;
        Keys::load(&path, password.as_ref())
    })
    .await;
    match loaded {
        Ok(loaded) => loaded.map_err(|source| Error::Key { what: what.to_owned(), source }),
        Err(error) => Err(Error::Service { service: "keys".into(), reason: error.to_string() }),
    }
}

/// Which chain and contract a connection leads to, as the journal names them.
///
/// # Errors
/// Where the chain cannot be read, has no block yet, or the connection knows no contract.
pub async fn identity(client: &Client) -> Result<Identity> {
    let contract = client.contract()?;
    let genesis = client.chain().genesis_hash.0;
    let first_block = match client.block(1).await {
        Ok(block) => block.hash.0,
        // A node that keeps only recent states still tells which block it is; the error names it by its hash.
        Err(poq_chain::Error::Pruned { block }) => {
            block.parse::<H256>().map_err(|_| poq_chain::Error::NoBlock { block })?.0
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Identity { genesis, first_block, contract: contract.0 })
}

/// Opens the blob store that the configuration names, in a folder of its own per chain and contract: a development chain
/// that was started anew counts its tasks from 1 again, and their outputs must not meet the old ones.
///
/// # Errors
/// Where the store cannot be opened.
pub fn open_blob_store(config: &WorkerConfig, identity: &Identity) -> Result<BlobStore> {
    let at = store_address(config, identity);
    let max_blob = usize::try_from(config.blobs.max_blob_bytes).unwrap_or(usize::MAX);
    BlobStore::open(&at, StoreLimits { max_blob })
        .map_err(|source| Error::Store { at: shown_store(&at), source })
}

fn store_address(config: &WorkerConfig, identity: &Identity) -> String {
    let seed = [identity.genesis, identity.first_block, identity.contract].concat();
    let tag = hex::encode(&poq_journal::blake2_256(&seed)[..8]);
    let Some(base) = &config.blobs.store else {
        return config.data_dir.join("blobs").join(tag).display().to_string();
    };
    if base == "memory:" {
        return base.clone();
    }
    // A query (an S3 endpoint, say) stays at the end.
    match base.split_once('?') {
        Some((path, query)) => format!("{}/{tag}?{query}", path.trim_end_matches('/')),
        None => format!("{}/{tag}", base.trim_end_matches('/')),
    }
}

/// The background part of a worker.
struct Boot {
    config: WorkerConfig,
    deps: Deps,
    keys: KeyRing,
    board: Arc<Board>,
    stop: Stop,
    blobs_addr: Arc<OnceLock<SocketAddr>>,
}

impl Boot {
    async fn run(self, listener: Option<TcpListener>) -> Result<()> {
        // The probes outlive the services: they tell of the shutdown, too.
        let probes = Stop::default();
        let mut outer = Supervisor::new(self.board.clone(), probes.clone());
        if let Some(listener) = listener {
            serve_probes(&mut outer, listener, self.board.clone(), probes.clone());
        }
        let (board, stop) = (self.board.clone(), self.stop.clone());
        let result = tokio::select! {
            result = self.services() => result,
            // Something above waits for a node, a lock or a disk: all of that can be dropped.
            () = async { stop.now.cancelled().await; tokio::time::sleep(STOP_PATIENCE).await } => Ok(()),
        };
        stop.drain.cancel();
        stop.now.cancel();
        board.set(About::Draining, "the worker has stopped");
        probes.now.cancel();
        outer.wait().await?;
        result
    }

    async fn services(self) -> Result<()> {
        let Boot { config, deps, keys, board, stop, blobs_addr } = self;
        let starting = About::Starting("worker".into());

        let Some(client) = connect(&config, deps.chain.clone(), &board, &stop).await? else { return Ok(()) };
        let Some(identity) = patiently(&board, &stop, || identity(&client)).await? else { return Ok(()) };
        // A contract of another chain is not worked for.
        let Some(network) = patiently(&board, &stop, || client.network()).await? else { return Ok(()) };
        let contract = network.contract;
        tracing::info!(
            chain = %client.chain().name,
            endpoint = %client.endpoint(),
            contract = %ss58(&contract, client.chain().ss58_prefix),
            "connected"
        );

        let audience = Audience::of(client.chain().is_development());
        if let Some(warning) = config.check_public_url(audience)? {
            tracing::warn!("blobs.public_url: {warning}");
        }

        let adversary = match &config.adversary {
            Some(adversary) => Some(Adversary::new(adversary, &client)?),
            None => None,
        };

        board.set(starting.clone(), "the journal is being opened");
        let path = config.data_dir.join(JOURNAL_FILE);
        let opened = tokio::task::spawn_blocking(move || Journal::open(path, identity)).await;
        let journal = match opened {
            Ok(journal) => journal?,
            Err(error) => {
                return Err(Error::Service { service: "journal".into(), reason: error.to_string() })
            }
        };
        let store = match deps.store.clone() {
            Some(store) => store,
            None => open_blob_store(&config, &identity)?,
        };

        board.set(starting.clone(), "the models are being loaded");
        let models = Arc::new(ModelSet::load(&config, &deps.models, &board).await?);

        let Some(best) = patiently(&board, &stop, || client.best()).await? else { return Ok(()) };
        let (heads, head) = watch::channel(best);
        let ctx = Arc::new(Ctx {
            clock: ChainClock::new(config.chain.time, client.clone()),
            working: Arc::new(Semaphore::new(config.limits.max_concurrent)),
            network,
            head,
            journal,
            store,
            models: models.clone(),
            board: board.clone(),
            stop: stop.clone(),
            client: client.clone(),
            adversary,
            config,
        });

        let mut supervisor = Supervisor::new(board.clone(), stop.clone());
        let heads = Arc::new(heads);
        {
            let ctx = ctx.clone();
            supervisor.spawn(watcher::NAME, move || watcher::run(ctx.clone(), heads.clone()));
        }
        serve_blobs(&mut supervisor, &ctx, &blobs_addr);
        let operators = Arc::new(operators(&ctx, &keys)?);
        // Open while any operator runs: closed, nothing is left to drain.
        let (alive, drained) = mpsc::channel::<()>(1);
        for operator in operators.iter() {
            board.expect_submits(&operator.name);
            let (operator, alive) = (operator.clone(), alive.clone());
            supervisor.spawn(operator.service(), move || {
                let _alive = &alive;
                operator.clone().run()
            });
        }
        drop(alive);
        {
            let (ctx, operators) = (ctx.clone(), operators.clone());
            supervisor.spawn(registry::NAME, move || registry::run(ctx.clone(), operators.clone()));
        }
        {
            let ctx = ctx.clone();
            supervisor.spawn(janitor::NAME, move || janitor::run(ctx.clone()));
        }
        if let (true, Some(keys)) = (ctx.config.keeper.enabled, keys.keeper()) {
            let ctx = ctx.clone();
            let submitter = client.submitter(keys);
            supervisor.spawn(keeper::NAME, move || keeper::run(ctx.clone(), submitter.clone()));
        }
        board.clear(&starting);
        let drain = tokio::spawn(drain(ctx.clone(), drained));
        let result = supervisor.wait().await;
        stop.now.cancel();
        if drain.await.is_err() {
            tracing::error!("the drain's task failed");
        }
        drop((operators, ctx));
        // The threads finish the request they are at.
        let ended = tokio::task::spawn_blocking(move || {
            if let Ok(mut models) = Arc::try_unwrap(models) {
                models.stop();
            }
        });
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!("a model did not stop in time");
        }
        result
    }
}

/// How long services may take to end once they are told to at once; a little more than their supervisor gives them.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

fn serve_probes(supervisor: &mut Supervisor, listener: TcpListener, board: Arc<Board>, stop: Stop) {
    let address = listener.local_addr().ok();
    let first = Arc::new(Mutex::new(Some(listener)));
    supervisor.spawn(http::NAME, move || {
        let (first, board, stop) = (first.clone(), board.clone(), stop.now.clone());
        async move {
            let taken = first.lock().take();
            let listener = match (taken, address) {
                (Some(listener), _) => listener,
                (None, Some(address)) => http::bind(address).await?,
                (None, None) => return Ok(()),
            };
            board.up(http::NAME);
            http::run(listener, board, stop).await
        }
    });
}

fn serve_blobs(supervisor: &mut Supervisor, ctx: &Arc<Ctx>, addr: &Arc<OnceLock<SocketAddr>>) {
    const NAME: &str = "blobs";
    let Some(listen) = ctx.config.blobs.listen else { return };
    let (ctx, addr) = (ctx.clone(), addr.clone());
    let access = Arc::new(ChainAccess::new(ctx.clone()));
    supervisor.spawn(NAME, move || {
        let (ctx, addr, access) = (ctx.clone(), addr.clone(), access.clone());
        async move {
            // Port 0 is chosen once: others have been told the address.
            let listen = addr.get().copied().unwrap_or(listen);
            let server =
                BlobServer::bind(ServerConfig::new(ctx.network.hash, listen), ctx.store.clone(), access)
                    .await?;
            let bound = *addr.get_or_init(|| server.local_addr());
            tracing::info!(%bound, "serving blobs");
            ctx.board.up(NAME);
            server.serve(ctx.stop.now.clone().cancelled_owned()).await?;
            Ok(())
        }
    });
}

/// Connects, and goes on trying: nodes and workers of one machine start in any order. `None` when told to stop.
async fn connect(
    config: &WorkerConfig,
    given: Option<Client>,
    board: &Board,
    stop: &Stop,
) -> Result<Option<Client>> {
    if let Some(client) = given {
        return Ok(Some(client));
    }
    let contract = match &config.chain.contract {
        Some(text) => {
            Some(parse_account(text).map_err(|source| Error::Key { what: "chain.contract".into(), source })?)
        }
        None => None,
    };
    let options = Options {
        confirm: match config.chain.confirmation {
            Confirmation::Best => Confirm::Best,
            Confirmation::Finalized => Confirm::Finalized,
        },
        // A step takes another path as the state changes, and one that runs out of gas costs its whole fee; what is not used is
        // given back.
        gas_margin_percent: 100,
        ..Options::default()
    };
    let urls = &config.chain.urls;
    let mut pause = FIRST_PAUSE;
    loop {
        board.set(About::Chain, format!("connecting to {urls}"));
        let attempt = tokio::select! {
            attempt = Client::connect_to(urls.clone(), contract, options.clone()) => attempt,
            () = stop.drain.cancelled() => return Ok(None),
        };
        match attempt {
            Ok(client) => {
                board.clear(&About::Chain);
                return Ok(Some(client));
            }
            Err(error) if matches!(error.class(), poq_chain::Class::Fatal) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, ?pause, "no chain yet");
                board.set(About::Chain, error.to_string());
            }
        }
        if !wait(&mut pause, stop).await {
            return Ok(None);
        }
    }
}

/// Asks the chain until it answers: it may have no block yet, no contract, or be away. `None` when told to stop.
async fn patiently<T, E, F>(board: &Board, stop: &Stop, ask: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = std::result::Result<T, E>>,
    E: Into<Error>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match ask().await.map_err(Into::into) {
            Ok(answer) => {
                board.clear(&About::Chain);
                board.clear(&About::Contract);
                return Ok(Some(answer));
            }
            // Somebody may be about to put it there.
            Err(Error::Chain(error)) if is_absent(&error) => {
                tracing::warn!(%error, "no contract yet");
                board.set(About::Contract, error.to_string());
            }
            Err(Error::Chain(error)) if !matches!(error.class(), poq_chain::Class::Fatal) => {
                tracing::warn!(%error, "the chain has no block yet, or cannot be read");
                board.set(About::Chain, error.to_string());
            }
            Err(error) => return Err(error),
        }
        if !wait(&mut pause, stop).await {
            return Ok(None);
        }
    }
}

/// Whether there is no contract of this version at the address.
fn is_absent(error: &poq_chain::Error) -> bool {
    matches!(error, poq_chain::Error::ContractAbsent { .. } | poq_chain::Error::NotOurContract { .. })
}

/// Sleeps, longer every time. Whether to go on.
async fn wait(pause: &mut Duration, stop: &Stop) -> bool {
    let go_on = tokio::select! {
        () = tokio::time::sleep(*pause) => true,
        () = stop.drain.cancelled() => false,
    };
    *pause = pause.saturating_mul(2).min(MAX_PAUSE);
    go_on
}

/// One loop per operator account, however many nodes it has: they share its nonce and its batches.
fn operators(ctx: &Arc<Ctx>, keys: &KeyRing) -> Result<Vec<Arc<Operator>>> {
    let mut by_account: BTreeMap<[u8; 32], (Keys, Vec<&NodeConfig>)> = BTreeMap::new();
    for node in &ctx.config.nodes {
        if let Some(keys) = keys.of.get(&node.id) {
            by_account.entry(keys.account().0).or_insert_with(|| (keys.clone(), Vec::new())).1.push(node);
        }
    }
    by_account
        .into_values()
        .map(|(keys, nodes)| {
            let nodes = nodes
                .into_iter()
                .filter_map(|config| {
                    ctx.models
                        .of(config)
                        .map(|loaded| NodeRun { config: config.clone(), loaded: loaded.clone() })
                })
                .collect();
            Ok(Arc::new(Operator {
                name: ss58(&keys.account(), ctx.client.chain().ss58_prefix),
                submitter: ctx.client.submitter(keys.clone()),
                fetcher: fetch::client(
                    &ctx.network,
                    &keys,
                    ctx.config.blobs.max_blob_bytes,
                    ctx.config.fetches_private(),
                )?,
                ctx: ctx.clone(),
                keys,
                nodes,
            }))
        })
        .collect()
}

/// Lets operators finish what they have open, for as long as they may; then everything stops.
async fn drain(ctx: Arc<Ctx>, mut drained: mpsc::Receiver<()>) {
    tokio::select! {
        () = ctx.stop.drain.cancelled() => {}
        () = ctx.stop.now.cancelled() => return,
    }
    ctx.board.set(About::Draining, "the worker is stopping: no new duty is begun");
    tokio::select! {
        // Nobody sends: this ends when the last operator has.
        _ = drained.recv() => tracing::info!("all duties are done; stopping"),
        () = tokio::time::sleep(ctx.config.limits.drain_timeout) => {
            tracing::warn!("duties are still open after {:?}; stopping. They go on at the next start", ctx.config.limits.drain_timeout);
        }
        () = ctx.stop.now.cancelled() => {}
    }
    ctx.stop.now.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_and_contract_has_a_store_of_its_own() {
        let identity = |n| Identity { genesis: [1; 32], first_block: [n; 32], contract: [3; 32] };
        let mut config = WorkerConfig::default();
        config.data_dir = "data".into();
        let first = store_address(&config, &identity(1));
        assert!(first.starts_with("data/blobs/") && first != store_address(&config, &identity(2)), "{first}");
        config.blobs.store = Some("s3://bucket/prefix/?region=eu".into());
        let address = store_address(&config, &identity(1));
        assert!(address.starts_with("s3://bucket/prefix/") && address.ends_with("?region=eu"), "{address}");
        config.blobs.store = Some("s3://user:SECRET@bucket/p?aws_secret_access_key=SECRET".into());
        let error = open_blob_store(&config, &identity(1)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error} {error:?}");
        config.blobs.store = Some("memory:".into());
        assert_eq!(store_address(&config, &identity(1)), "memory:");
    }
}
