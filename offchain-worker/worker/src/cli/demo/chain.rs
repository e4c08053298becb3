//! The chain that the demonstration runs on: in this process, a spawned development node, or somebody's node.

use super::DemoArgs;
use crate::cli::exit::Usage;
use anyhow::Context;
use poq_chain::{AccountId32, Client, Options};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use subxt::{OnlineClient, SubstrateConfig};
use tokio::process::{Child, Command};

/// How long a spawned node may take until it answers; on a busy machine it compiles its runtime for many seconds.
const NODE_START: Duration = Duration::from_secs(120);

/// A chain, alive as long as this is.
pub(super) enum Ground {
    /// In this process.
    #[cfg(feature = "embedded")]
    Embedded(poq_sandbox::SandboxNode),
    /// The development node, spawned; it ends when this is dropped.
    Spawned {
        /// The process.
        _child: Child,
        /// Its program.
        program: PathBuf,
        /// Where it answers.
        url: String,
    },
    /// Somebody's node.
    Url(String),
}

impl Ground {
    /// Starts the chain that the flags ask for.
    pub(super) async fn start(args: &DemoArgs, work_dir: &Path) -> anyhow::Result<Ground> {
        if let Some(url) = &args.url {
            return Ok(Ground::Url(url.clone()));
        }
        if args.node {
            return spawn(args, work_dir);
        }
        embedded()
    }

    /// A connection of its own, as every participant of a real network has.
    pub(super) async fn client(&self, contract: Option<AccountId32>) -> anyhow::Result<Client> {
        match self {
            #[cfg(feature = "embedded")]
            Ground::Embedded(node) => {
                Ok(Client::from_rpc(node.rpc_client(), contract, Options::default()).await?)
            }
            Ground::Spawned { url, .. } => {
                let options = Options { connect_patience: NODE_START, ..Options::default() };
                Ok(Client::connect(url, contract, options).await?)
            }
            Ground::Url(url) => Ok(Client::connect(url, contract, Options::default()).await?),
        }
    }

    /// A plain client of the chain, which knows nothing of the contract: the money check must not rely on what it checks.
    pub(super) async fn plain(&self) -> anyhow::Result<OnlineClient<SubstrateConfig>> {
        let client = match self {
            #[cfg(feature = "embedded")]
            Ground::Embedded(node) => OnlineClient::from_rpc_client(node.rpc_client()).await,
            Ground::Spawned { url, .. } | Ground::Url(url) => {
                // The first of several addresses: this one is only read from.
                OnlineClient::from_insecure_url(url.split(',').next().unwrap_or(url).trim()).await
            }
        };
        client.context("the connection for the money check")
    }

    /// Where it runs, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            #[cfg(feature = "embedded")]
            Ground::Embedded(_) => "a chain in this process".into(),
            Ground::Spawned { program, url, .. } => format!("{} at {url}", program.display()),
            Ground::Url(url) => url.clone(),
        }
    }

    /// Moves this chain's clock on where it is one in this process: days need not be lived through. Whether it has.
    pub(super) fn advance_to(&self, timestamp_ms: u64) -> anyhow::Result<bool> {
        match self {
            #[cfg(feature = "embedded")]
            Ground::Embedded(node) => {
                node.advance_to_ms(timestamp_ms).context("the clock of the chain in this process")?;
                Ok(true)
            }
            Ground::Spawned { .. } | Ground::Url(_) => {
                tracing::debug!(timestamp_ms, "a chain of its own keeps its own time");
                Ok(false)
            }
        }
    }

    /// Whether the money on it belongs to somebody who will want it back.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Ground::Url(_))
    }
}

#[cfg(feature = "embedded")]
fn embedded() -> anyhow::Result<Ground> {
    use poq_sandbox::{SandboxConfig, SandboxNode};
    // Every block of the run stays readable, for the money check and for `poq explain`.
    let config = SandboxConfig { history_blocks: u32::MAX, ..SandboxConfig::live() };
    Ok(Ground::Embedded(SandboxNode::start(config).context("the chain in this process")?))
}

#[cfg(not(feature = "embedded"))]
fn embedded() -> anyhow::Result<Ground> {
    let text = "this build of poq has no chain in it (cargo feature `embedded`); use --node or --url";
    Err(Usage(text.into()).into())
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

fn spawn(args: &DemoArgs, work_dir: &Path) -> anyhow::Result<Ground> {
    let program = match &args.node_bin {
        Some(program) => program.clone(),
        None => candidates().into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let places: Vec<String> = candidates().iter().map(|path| path.display().to_string()).collect();
            let text = format!(
                "the development node was not found at {}; build it with scripts/build-node.sh, or name it with --node-bin",
                places.join(" or ")
            );
            anyhow::Error::from(Usage(text))
        })?,
    };
    let port = free_port()?;
    let log = work_dir.join("node.log");
    let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let also = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
    let child = Command::new(&program)
        .args(["--dev", "--tmp", "--rpc-port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(also)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(Ground::Spawned { _child: child, program, url: format!("ws://127.0.0.1:{port}") })
}

/// Where scripts/build-node.sh puts the node.
fn candidates() -> Vec<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("poq/target"));
    [target, cache].into_iter().flatten().map(|folder| folder.join("node/release/poq-node")).collect()
}
