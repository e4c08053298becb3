//! `poq worker`: runs nodes.

use crate::cli::deployment::Target;
use crate::cli::exit::Usage;
use crate::cli::output::write_out;
use anyhow::Context;
use clap::{Args, Subcommand};
use poq_chain::signer::parse_account;
use poq_chain::{Class, Client, Options};
use poq_worker::{config, Deps, Worker, WorkerConfig};
use std::path::PathBuf;
use std::time::Duration;

/// `poq worker …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Runs the configured nodes until it is told to stop: once gracefully (SIGINT or SIGTERM), twice at once.
    Run(WorkerRunArgs),
    /// Writes a documented example of the configuration to standard output.
    ExampleConfig,
}

/// `poq worker run`.
#[derive(Args, Debug)]
pub(crate) struct WorkerRunArgs {
    /// The configuration file. Where it is not given, ./poq.toml, $XDG_CONFIG_HOME/poq/poq.toml and /etc/poq/poq.toml are
    /// tried in turn. Environment variables POQ_<SECTION>__<KEY> override it, and the flags below override both.
    #[arg(long, short, env = "POQ_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The chain node's websocket address, or several separated by commas; overrides the configuration.
    #[arg(long, env = "POQ_URL", hide_env_values = true, value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address, or the path of a deployment file; overrides the configuration.
    #[arg(long, env = "POQ_CONTRACT", hide_env_values = true, value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// The file with the operator's key; overrides the configuration.
    #[arg(long, env = "POQ_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The file with the keystore's password; overrides the configuration.
    #[arg(long, env = "POQ_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The folder of the journal and the blobs; overrides the configuration.
    #[arg(long, env = "POQ_DATA_DIR", hide_env_values = true, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The folder of the models; overrides the configuration.
    #[arg(long, env = "POQ_MODELS_DIR", hide_env_values = true, value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
}

/// How long to try to reach the chain before the worker is left to wait for it.
const LOOK: Duration = Duration::from_secs(5);

/// Runs `poq worker`.
pub(crate) async fn run(command: WorkerCommand) -> anyhow::Result<()> {
    match command {
        WorkerCommand::ExampleConfig => write_out(WorkerConfig::example()),
        WorkerCommand::Run(args) => {
            let file = args.config.clone().or_else(config::find_config);
            let config = load(file, &args)?;
            config.validate()?;
            contract_there(&config).await?;
            let handle = Worker::start(config, Deps::default()).await.context("the worker cannot start")?;
            poq_worker::run_until_signal(handle).await.context("the worker stopped")
        }
    }
}

/// A contract that is not there, on a chain that answers, does not come by waiting. A chain that does not answer may: the
/// worker waits for it.
async fn contract_there(config: &WorkerConfig) -> anyhow::Result<()> {
    let Some(contract) = &config.chain.contract else { return Ok(()) };
    let contract = parse_account(contract).map_err(|e| Usage(format!("chain.contract: {e}")))?;
    let options = Options { connect_timeout: LOOK, ..Options::default() };
    match Client::connect_to(config.chain.urls.clone(), Some(contract), options).await {
        Ok(client) => absent(client.code_hash().await.map(drop)),
        Err(error) => absent(Err(error)),
    }
}

/// What keeps the worker from starting: not what passes, which it waits for.
fn absent(found: poq_chain::error::Result<()>) -> anyhow::Result<()> {
    match found {
        Err(error) if error.class() == Class::Transient => Ok(()),
        found => found.context("the worker cannot start"),
    }
}

/// The configuration that `poq worker run` runs with: what is logged depends on it.
pub(crate) fn load(file: Option<PathBuf>, args: &WorkerRunArgs) -> anyhow::Result<WorkerConfig> {
    let config = WorkerConfig::load(file.as_deref(), overrides(args)?)?;
    if file.is_none() && config.nodes.is_empty() {
        let text = "no configuration was found: neither ./poq.toml nor $XDG_CONFIG_HOME/poq/poq.toml nor /etc/poq/poq.toml is \
                    there; write one with `poq worker example-config > poq.toml`, or name it with --config";
        return Err(Usage(text.into()).into());
    }
    Ok(config)
}

/// The flags as a table shaped like the configuration file.
fn overrides(args: &WorkerRunArgs) -> anyhow::Result<toml::Table> {
    chain_overrides(args.url.as_deref(), args.contract.as_deref()).map(|mut table| {
        let mut set = |section: Option<&str>, key: &str, value: &Option<PathBuf>| {
            let Some(value) = value else { return };
            let value = toml::Value::from(value.display().to_string());
            match section {
                None => {
                    table.insert(key.into(), value);
                }
                Some(section) => {
                    let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
                    if let toml::Value::Table(entry) = entry {
                        entry.insert(key.into(), value);
                    }
                }
            }
        };
        set(None, "data_dir", &args.data_dir);
        set(None, "models_dir", &args.models_dir);
        set(Some("keys"), "operator", &args.key_file);
        set(Some("keys"), "password_file", &args.password_file);
        table
    })
}

/// The flags that name chain and contract as a table shaped like the configuration file.
pub(crate) fn chain_overrides(url: Option<&str>, contract: Option<&str>) -> anyhow::Result<toml::Table> {
    let mut chain = toml::Table::new();
    let mut urls = url.map(str::to_owned);
    if let Some(contract) = contract {
        let target = Target::resolve(Some(contract))?;
        urls = urls.or_else(|| target.written_url().map(str::to_owned));
        if let Some(account) = target.account()? {
            chain.insert("contract".into(), format!("0x{}", hex::encode(account.0)).into());
        }
    }
    if let Some(urls) = urls {
        let urls: Vec<String> = urls.split(',').map(|url| url.trim().to_owned()).collect();
        chain.insert("urls".into(), urls.into());
    }
    let mut table = toml::Table::new();
    if !chain.is_empty() {
        table.insert("chain".into(), chain.into());
    }
    Ok(table)
}
