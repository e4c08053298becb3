//! `poq check`: what a worker needs before it starts.

use crate::cli::amount::Unit;
use crate::cli::args::{duration, Output};
use crate::cli::change::Row;
use crate::cli::connect::{load_keys, Session};
use crate::cli::deploy::{artifact, find_upwards};
use crate::cli::node::has_outgrown;
use crate::cli::output::table;
use crate::cli::worker::chain_overrides;
use clap::Args;
use poq_chain::signer::ss58;
use poq_chain::types::{KindId, NodeStatus, Overview, Role};
use poq_chain::{to_account32, AccountId32, Client, Options, View};
use poq_core::params::MISSES_MAX;
use poq_inference::quality::Rubric;
use poq_inference::{DeviceSpec, ModelStore};
use poq_worker::config::{self, NodeConfig, RoleName};
use poq_worker::endpoint::{self, Audience};
use poq_worker::WorkerConfig;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `poq check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The worker's configuration file, found as `poq worker run` finds it. Without one only the chain is checked.
    #[arg(long, short, env = "POQ_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The chain node's websocket address; overrides the configuration.
    #[arg(long, env = "POQ_URL", hide_env_values = true, value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address, or the path of a deployment file; overrides the configuration.
    #[arg(long, env = "POQ_CONTRACT", hide_env_values = true, value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// The built contract that the one on chain should be, to compare their code hashes.
    #[arg(long, env = "POQ_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
    /// How long to try to reach the node before giving up.
    #[arg(long, env = "POQ_CONNECT_TIMEOUT", hide_env_values = true, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) connect_timeout: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A block from further in the future than this means that this machine's clock is slow, or the chain's is fast.
const SKEW_MAX: Duration = Duration::from_secs(10);
/// Less than so many thousandths of the chain's unit for transaction fees is worth a warning.
const FUNDS_LOW: u128 = 100;
/// Less room than this where the journal is, and it cannot be relied on.
const DISK_MIN: u64 = 64 * 1024 * 1024;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// One check.
struct Line {
    mark: Mark,
    what: String,
    detail: String,
}

/// All checks. Every one is made, whatever the others say, as far as they do not build on one another.
#[derive(Default)]
struct Findings {
    lines: Vec<Line>,
    /// The first thing that is wrong, as an error with its exit status.
    first: Option<anyhow::Error>,
}

impl Findings {
    fn add(&mut self, mark: Mark, what: impl Into<String>, detail: impl Into<String>) {
        self.lines.push(Line { mark, what: what.into(), detail: detail.into() });
    }

    fn good(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.add(Mark::Good, what, detail);
    }

    fn check(&mut self, ok: bool, what: impl Into<String>, good: impl Into<String>, bad: impl Into<String>) {
        if ok {
            self.good(what, good);
        } else {
            self.add(Mark::Bad, what, bad);
        }
    }

    fn bad(&mut self, what: impl Into<String>, error: anyhow::Error) {
        self.add(Mark::Bad, what, format!("{error:#}"));
        self.first.get_or_insert(error);
    }

    fn failed(&self) -> usize {
        self.lines.iter().filter(|line| line.mark == Mark::Bad).count()
    }
}

/// Runs `poq check`.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    let file = args.config.clone().or_else(config::find_config);
    let config = configuration(&mut findings, file, &args);
    if let Some(config) = &config {
        // Files that are not pinned are hashed.
        let own = config.clone();
        let store = tokio::task::spawn_blocking(move || own.store()).await?;
        if !config.nodes.is_empty() {
            folders(&mut findings, config);
            ports(&mut findings, config);
            models(&mut findings, config, &store);
        }
        chain(&mut findings, config, &store, &args).await;
    }
    let failed = findings.failed();
    args.output.printer().print(
        || {
            let lines: Vec<Value> = findings
                .lines
                .iter()
                .map(|line| {
                    let mark = match line.mark {
                        Mark::Good => "ok",
                        Mark::Warning => "warning",
                        Mark::Bad => "failed",
                    };
                    json!({ "check": line.what, "result": mark, "detail": line.detail })
                })
                .collect();
            json!({ "ok": failed == 0, "checks": lines })
        },
        || {
            let mut rows = table(["", "check", "found"], &[]);
            for line in &findings.lines {
                let mark = match line.mark {
                    Mark::Good => "ok",
                    Mark::Warning => "warning",
                    Mark::Bad => "FAILED",
                };
                rows.add_row([mark, &line.what, &line.detail]);
            }
            rows.to_string()
        },
    )?;
    match findings.first {
        _ if failed == 0 => Ok(()),
        Some(error) => Err(error.context(format!("{failed} of the checks failed"))),
        None => Err(anyhow::anyhow!("{failed} of the checks failed")),
    }
}

fn configuration(findings: &mut Findings, file: Option<PathBuf>, args: &CheckArgs) -> Option<WorkerConfig> {
    // A contract that is not named at all is found as every other command finds it.
    let contract = args.contract.clone().or_else(|| {
        let default = Path::new(crate::cli::args::DEPLOYMENT_FILE);
        (file.is_none() && default.is_file()).then(|| default.display().to_string())
    });
    let loaded = chain_overrides(args.url.as_deref(), contract.as_deref())
        .and_then(|overrides| Ok(WorkerConfig::load(file.as_deref(), overrides)?));
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            findings.bad("configuration", error);
            return None;
        }
    };
    match file {
        None => findings.add(Mark::Warning, "configuration", "no file was found: only the chain is checked"),
        Some(path) => match config.validate() {
            Ok(()) => findings.good("configuration", path.display().to_string()),
            Err(error) => findings.bad("configuration", error.into()),
        },
    }
    Some(config)
}

/// The nearest folder above a path that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."))
}

fn folders(findings: &mut Findings, config: &WorkerConfig) {
    let folder = existing(&config.data_dir);
    match tempfile::NamedTempFile::new_in(folder) {
        Ok(_) => findings.good("journal folder", format!("{} can be written", config.data_dir.display())),
        Err(error) => {
            findings.add(
                Mark::Bad,
                "journal folder",
                format!("{} cannot be written: {error}", folder.display()),
            );
        }
    }
    // A system that does not tell its disks is one that this cannot be checked on.
    let Ok(disks) = sysinfo::Disks::new_with_refreshed_list() else { return };
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let disk = disks
        .iter()
        .filter(|disk| full.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().components().count());
    if let Some(disk) = disk {
        let free = disk.available_space();
        let detail = format!("{} MiB free at {}", free / 1024 / 1024, disk.mount_point().display());
        findings.check(free >= DISK_MIN, "disk", detail.clone(), format!("{detail}: make room"));
    }
}

fn ports(findings: &mut Findings, config: &WorkerConfig) {
    let mut port = |what: &str, address: Option<SocketAddr>| {
        let Some(address) = address else { return };
        match TcpListener::bind(address) {
            Ok(_) => findings.good(what, format!("{address} is free")),
            Err(error) => {
                findings.add(
                    Mark::Warning,
                    what,
                    format!("{address}: {error}; is the worker running already?"),
                );
            }
        }
    };
    port("blob server", config.blobs.listen);
    port("metrics", config.metrics.listen);
}

fn models(findings: &mut Findings, config: &WorkerConfig, store: &ModelStore) {
    let mut memory = 0u64;
    for model in config.models.iter().filter(|model| model.device != DeviceSpec::Cpu) {
        match model.device.check() {
            Ok(card) => {
                findings.good(format!("device {}", model.device), format!("{card}, for {}", model.name))
            }
            Err(error) => findings.bad(format!("device {}", model.device), error.into()),
        }
    }
    for name in config.nodes.iter().map(|node| node.model.as_str()).collect::<BTreeSet<_>>() {
        match store.verify(name) {
            Ok(model) => {
                // A card has memory of its own, and the model is refused where it does not fit.
                if store.options(name).device == DeviceSpec::Cpu {
                    memory = memory.saturating_add(model.entry().required_memory_bytes());
                }
                let pinned =
                    store.config(name).is_none_or(|own| own.source.is_none() || !own.files.is_empty());
                let place = match model.entry().files.first().and_then(|file| file.at.as_deref()) {
                    Some(at) => at.parent().unwrap_or(at).display().to_string(),
                    None => store.model_dir(name).display().to_string(),
                };
                match pinned {
                    true => findings.good(format!("model {name}"), format!("{place} is whole")),
                    false => findings.add(
                        Mark::Warning,
                        format!("model {name}"),
                        format!("{place} is there, and its files are not pinned: `poq models add` does so"),
                    ),
                }
            }
            Err(error) => findings.bad(format!("model {name}"), error.into()),
        }
    }
    let Ok(mut system) = sysinfo::System::new() else { return };
    system.refresh_memory();
    let mib = |bytes: u64| bytes / 1024 / 1024;
    let available = system.cgroup_limits().map_or(system.available_memory(), |limits| limits.free_memory);
    let detail = format!("{} MiB needed, {} MiB available", mib(memory), mib(available));
    findings.check(
        available >= memory,
        "memory",
        detail.clone(),
        format!("{detail}: run fewer or smaller models"),
    );
}

async fn chain(findings: &mut Findings, config: &WorkerConfig, store: &ModelStore, args: &CheckArgs) {
    let contract = match config.chain.contract.as_deref().map(poq_chain::signer::parse_account).transpose() {
        Ok(contract) => contract,
        Err(error) => return findings.bad("contract", error.into()),
    };
    let options = Options { connect_timeout: args.connect_timeout, ..Options::default() };
    let client = match Client::connect_to(config.chain.urls.clone(), contract, options).await {
        Ok(client) => client,
        Err(error) => return findings.bad("node", error.into()),
    };
    let info = client.chain();
    findings.good("node", format!("{} ({}) at {}", info.name, info.node, client.endpoint()));
    clock(findings, config, &client).await;
    if let Err(error) = contract_there(findings, &client, args).await {
        return findings.bad("contract", error);
    }
    for node in &config.nodes {
        if let Err(error) = registration(findings, &client, config, store, node).await {
            findings.bad(format!("node {}", node.id), error);
        }
    }
}

/// Deadlines are block timestamps: a clock that differs from the chain's misses them.
async fn clock(findings: &mut Findings, config: &WorkerConfig, client: &Client) {
    let block = match client.best().await {
        Ok(block) => block,
        Err(error) => return findings.bad("clock", error.into()),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_millis(block.timestamp_ms);
    let ahead = at.saturating_sub(now);
    let age = now.saturating_sub(at);
    let told = humantime::format_duration(Duration::from_secs(age.as_secs()));
    if ahead > SKEW_MAX {
        let by = humantime::format_duration(Duration::from_secs(ahead.as_secs()));
        findings.add(
            Mark::Bad,
            "clock",
            format!("block {} is {by} ahead of this machine's clock: set the clock (NTP)", block.number),
        );
    } else if config.chain.max_block_age.is_some_and(|most| age > most) {
        findings.add(
            Mark::Bad,
            "clock",
            format!("block {} is {told} old: does the node follow its chain?", block.number),
        );
    } else {
        findings.good("clock", format!("block {} is {told} old", block.number));
    }
}

async fn contract_there(findings: &mut Findings, client: &Client, args: &CheckArgs) -> anyhow::Result<()> {
    let found = client.code_hash().await?;
    let address = ss58(&client.contract()?, client.chain().ss58_prefix);
    findings.good("contract", format!("{address}, code {found:?}"));
    let known = args.artifact.clone().or_else(|| find_upwards(Path::new("contracts/artifacts/poq.contract")));
    if let Some(path) = known {
        match artifact(Some(&path)) {
            Ok(built) if built.code_hash == found => {
                findings.good("contract's code", format!("is {}", path.display()))
            }
            Ok(built) => findings.add(
                Mark::Warning,
                "contract's code",
                format!("{} is another version (code {:?})", path.display(), built.code_hash),
            ),
            Err(error) => findings.add(Mark::Warning, "contract's code", format!("{error:#}")),
        }
    }
    match client.network().await {
        Ok(network) => findings.good("network", format!("0x{}, this chain's", hex::encode(network.hash))),
        Err(error) => findings.bad("network", error.into()),
    }
    let view = client.view().await?;
    let overview = view.overview().await?;
    epochs(findings, &view, &overview).await?;
    announced(findings, client, &view).await?;
    findings.check(
        overview.solvency().solvent,
        "solvency",
        "the contract has what it owes",
        "the contract owes more than it has",
    );
    if overview.paused {
        findings.add(Mark::Warning, "pause", "new tasks are refused: the contract's owner has paused them");
    }
    Ok(())
}

/// Whether every kind's panels are drawn and filled while the registry still knows the epoch that they are drawn from.
async fn epochs(findings: &mut Findings, view: &View, overview: &Overview) -> anyhow::Result<()> {
    let told = format!("{} long", humantime::format_duration(Duration::from_millis(overview.epoch_ms)));
    let mut wrong = Vec::new();
    for id in &overview.kinds {
        let Some(kind) = view.kind(*id).await? else { continue };
        if let Err(error) = kind.kind.params.fits_epoch(overview.epoch_ms) {
            wrong.push(format!("kind {id}: {error}"));
        }
    }
    findings.check(wrong.is_empty(), "epochs", told.clone(), format!("{told}; {}", wrong.join("; ")));
    Ok(())
}

/// What the contract's owner has announced: whoever does not like it has until then to leave.
async fn announced(findings: &mut Findings, client: &Client, view: &View) -> anyhow::Result<()> {
    let session = Session::new(client.clone());
    for row in Row::all(&session, view).await? {
        findings.add(
            Mark::Warning,
            format!("announced: {}", row.name),
            format!("{}\nacts {}", row.what, row.when()),
        );
    }
    Ok(())
}

/// Whether an evaluator scores by the rubric that its task kind prescribes.
async fn rubric(findings: &mut Findings, view: &View, node: &NodeConfig, kind: KindId) -> anyhow::Result<()> {
    let what = format!("node {}: rubric", node.id);
    let own = match (&node.rubric_file, node.rubric) {
        (Some(path), _) => Rubric::from_path(path).and_then(|rubric| rubric.hash()).map(Some),
        (None, Some(kind)) => Rubric::builtin(kind).hash().map(Some),
        (None, None) => Ok(None),
    };
    let own = match own {
        Ok(own) => own.map(|hash| hash.0),
        Err(error) => {
            findings.bad(what, error.into());
            return Ok(());
        }
    };
    let prescribed = view.kind(kind).await?.map_or([0; 32], |kind| kind.kind.params.rubric_hash);
    findings.check(
        prescribed == [0; 32] || own == Some(prescribed),
        what,
        own.map_or_else(|| "none, and none is prescribed".into(), |own| format!("0x{}", hex::encode(own))),
        format!(
            "its task kind prescribes 0x{}; set `rubric` or `rubric_file` to that one (`poq rubric list`)",
            hex::encode(prescribed)
        ),
    );
    Ok(())
}

/// Whether others can fetch what the node gives: its registered address, and what answers there.
async fn endpoint(
    findings: &mut Findings,
    client: &Client,
    config: &WorkerConfig,
    node: &NodeConfig,
    registered: &str,
) -> anyhow::Result<()> {
    let what = format!("node {}: endpoint", node.id);
    let audience = Audience::of(client.chain().is_development());
    let configured = config.blobs.public_url.as_deref().map(|url| endpoint::check(url, audience)).transpose();
    if let Err(error) = &configured {
        findings.add(Mark::Bad, "blobs.public_url", error.to_string());
    }
    let configured = configured.ok().flatten();
    let checked = match endpoint::check(registered, audience) {
        Ok(checked) => checked,
        Err(error) => {
            let advice = format!("{error}; `poq node configure {} --endpoint URL`", node.id);
            findings.add(Mark::Bad, what, advice);
            return Ok(());
        }
    };
    if let Some(url) = configured.map(|c| c.endpoint).filter(|url| *url != checked.endpoint) {
        let text = format!(
            "registered as {registered}, configured as {url}; `poq node configure {} --endpoint {url}`",
            node.id
        );
        findings.add(Mark::Warning, what.clone(), text);
    }
    if let Some(warning) = checked.warning {
        findings.add(Mark::Warning, what.clone(), warning);
    }
    let probe = endpoint::probe(&checked.endpoint, Some(&client.network().await?.hash)).await;
    // Before its worker runs nothing answers there: worth knowing, and no reason not to start it.
    let mark = if probe.is_good() { Mark::Good } else { Mark::Warning };
    findings.add(mark, what, format!("{}: {probe}", checked.endpoint));
    Ok(())
}

async fn registration(
    findings: &mut Findings,
    client: &Client,
    config: &WorkerConfig,
    store: &ModelStore,
    node: &NodeConfig,
) -> anyhow::Result<()> {
    let chain = client.chain();
    let unit = Unit { symbol: chain.symbol.clone(), decimals: chain.decimals };
    let what = |aspect: &str| format!("node {}: {aspect}", node.id);
    let view = client.view().await?;
    let Some(found) = view.node(node.id).await? else {
        findings.add(
            Mark::Bad,
            what("registration"),
            "there is no such node; `poq node register` registers one",
        );
        return Ok(());
    };
    let role = match node.role {
        RoleName::Inference => Role::Inference,
        RoleName::Evaluator => Role::Evaluator,
    };
    let registered = crate::cli::node::role_name(found.node.role);
    findings.check(
        found.node.role == role,
        what("role"),
        registered,
        format!("it is registered for {registered}"),
    );

    match store.manifest().get(&node.model) {
        Ok(entry) => findings.check(
            entry.digest().0 == found.node.model_digest,
            what("model"),
            node.model.clone(),
            format!("it is registered with another model ({})", found.info.model),
        ),
        Err(error) => findings.bad(what("model"), error.into()),
    }

    if node.role == RoleName::Evaluator {
        rubric(findings, &view, node, found.node.kind).await?;
    }

    endpoint(findings, client, config, node, &found.info.endpoint).await?;

    let params = view.kind(found.node.kind).await?.map(|kind| kind.kind.params).unwrap_or_default();
    let bonded = found.node.stake.bonded;
    let placed = found.node.standing.place.class().is_some();
    // Slashes leave a node in the draws down to a half of the minimum, where it has a place already.
    let enough = bonded >= params.stake_min || placed;
    findings.check(
        enough || found.node.status == NodeStatus::Draining,
        what("stake"),
        unit.show(bonded),
        format!(
            "{} is below the kind's minimum of {}: it is not drawn; `poq node stake {} AMOUNT`",
            unit.show(bonded),
            unit.show(params.stake_min),
            node.id
        ),
    );
    if found.node.status == NodeStatus::Draining {
        let why = match found.node.misses >= MISSES_MAX {
            true => "it missed two duties in a row and drains",
            false => "it drains",
        };
        let text = format!("{why}, and is not drawn; `poq node resume {}`", node.id);
        findings.add(Mark::Warning, what("status"), text);
    } else if has_outgrown(&found, &params) {
        let text = format!("it weighs more than its place counts; `poq node refresh {}`", node.id);
        findings.add(Mark::Warning, what("status"), text);
    }

    let Some(path) = node.key.as_ref().or(config.keys.operator.as_ref()) else { return Ok(()) };
    let password = node.password_file.as_ref().or(config.keys.password_file.as_ref());
    let operator = match load_keys(path, password.map(PathBuf::as_path)) {
        Ok(keys) => keys.account(),
        Err(error) => {
            findings.bad(what("key"), error);
            return Ok(());
        }
    };
    let address = |account: &AccountId32| ss58(account, chain.ss58_prefix);
    let expected = to_account32(&found.node.operator);
    findings.check(
        operator == expected,
        what("key"),
        format!("{} is the operator's", path.display()),
        format!(
            "{} is the key of {}, and the node's operator is {}; use that one's key, or `poq node configure {} --operator`",
            path.display(),
            address(&operator),
            address(&expected),
            node.id
        ),
    );
    let free = client.free_balance(&operator).await?;
    let low = 10u128.saturating_pow(u32::from(chain.decimals)) * FUNDS_LOW / 1_000;
    let told = format!("{} has {}", address(&operator), unit.show(free));
    if free <= chain.existential_deposit {
        findings.add(
            Mark::Bad,
            what("funds"),
            format!("{told}: it cannot pay for transactions; send it money"),
        );
    } else if free < low {
        findings.add(Mark::Warning, what("funds"), format!("{told}: that does not last long"));
    } else {
        findings.good(what("funds"), told);
    }
    Ok(())
}
