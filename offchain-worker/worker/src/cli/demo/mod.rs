//! `poq demo`: a whole network with real models, from nothing to the last unit.

mod cast;
mod chain;
mod lab;
mod ledger;
mod pool;
mod progress;
mod questions;
mod report;

use crate::cli::args::duration;
use crate::cli::connect::{load_keys, Session};
use crate::cli::deploy::{artifact, find_artifact, POOL_ARTIFACT};
use crate::cli::exit::{Difference, TimedOut};
use crate::cli::host::Host;
use crate::cli::output::{time, write_out};
use crate::cli::signal::stopped;
use crate::cli::task::{progress_text, Answer};
use anyhow::{anyhow, bail, ensure, Context};
use cast::{Actor, Cast, Player, KIND};
use chain::Ground;
use clap::Args;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use lab::Comparison;
use ledger::Ledger;
use pool::Pool;
use poq_blobs::PromptBlob;
use poq_chain::deploy::{deploy, Artifact, Setup};
use poq_chain::explain::explain;
use poq_chain::signer::Keys;
use poq_chain::types::{
    Change, Ending, GlobalParams, Millis, NodeId, Registration, Request, Role, Source, TaskId, MAX_BATCH,
};
use poq_chain::{messages, to_ink, AccountId32, At, Client, ContractError, Submitter};
use poq_core::params::DAY;
use poq_inference::data::TaskKind;
use poq_inference::quality::Rubric;
use poq_inference::{Manifest, ModelStore, QaItem};
use poq_worker::config::{AdversaryConfig, NodeConfig, RoleName};
use poq_worker::requester::{Progress as Step, Requester, RequesterOptions, Seen};
use poq_worker::{Deps, Worker, WorkerConfig, WorkerHandle};
use progress::Progress;
use rand::RngCore;
use report::{shorten, NodeRow, Report, Tally, TaskRow};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many tasks are open at a time. Enough that answering, scoring and settling overlap; more would only queue.
const WINDOW: usize = 4;
/// The most tokens of an answer. The questions ask for a name, a number or half a sentence.
const MAX_TOKENS: usize = 32;
/// How long an epoch is. Nodes that register in the first one are drawn at once, and what begins in it ends in it.
const EPOCH: Duration = Duration::from_millis(DAY);
/// With less of an epoch left than this the next one is waited for: half of the nodes would be drawn an epoch after the others.
const SETTLE_IN: Duration = Duration::from_secs(60);
/// How long a worker may take until it can work: it reads its model from disk and checks its hash.
const START: Duration = Duration::from_secs(600);
/// How long a worker that is asked to stop may take.
const STOP: Duration = Duration::from_secs(60);

/// `poq demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Runs on this chain node instead of on a chain in this process: any node with pallet-contracts.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Spawns the development node and runs on it over a websocket. scripts/build-node.sh builds the node.
    #[arg(long, conflicts_with = "url")]
    pub(crate) node: bool,
    /// The development node's program; where it is not given, it is looked for where scripts/build-node.sh puts it.
    #[arg(long, env = "POQ_NODE", hide_env_values = true, value_name = "FILE")]
    pub(crate) node_bin: Option<PathBuf>,
    /// The file with the key of the account that pays for everything; on a development chain it is //Alice, which has money
    /// there. What is left goes back to it, save the stakes: they are on their way out for days, and their owners' keys stay in
    /// --work-dir.
    // Not from the environment: what another command signs with must not pay for a demonstration by accident.
    #[arg(long, value_name = "FILE", requires = "url", requires = "work_dir")]
    pub(crate) key_file: Option<PathBuf>,
    /// The file with the keystore's password.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub(crate) password_file: Option<PathBuf>,
    /// How many questions to ask.
    #[arg(long, env = "POQ_DEMO_QUESTIONS", hide_env_values = true, value_name = "COUNT", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) questions: u16,
    /// Decides which questions are asked.
    #[arg(long, env = "POQ_DEMO_SEED", hide_env_values = true, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Makes some of the nodes dishonest, as `poq simulate` spells it (boosting, noise=0.3, never-reveal, slow-delivery=30, withhold-opening, claim-no-input, …), and
    /// shows what cheating came to. Two evaluators are added where evaluators are attacked, and five score each task.
    #[arg(long, value_name = "ATTACK")]
    pub(crate) attack: Option<poq_simulator::Attack>,
    /// How many of the five evaluators are dishonest; two of five are more than the rules are made to stand.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "attack", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) dishonest: u8,
    /// The built contract; found as `poq deploy` finds it.
    #[arg(long, env = "POQ_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
    /// The built pool contract; found beside the other one, or as `poq pool create` finds it.
    #[arg(long, env = "POQ_POOL_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    pub(crate) pool_artifact: Option<PathBuf>,
    /// The folder of the models that scripts/install-models.sh has installed.
    #[arg(long, env = "POQ_MODELS_DIR", hide_env_values = true, value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
    /// The questions, as JSON lines with id, context and question; the installed ones where it is not given.
    #[arg(long, env = "POQ_DEMO_DATA", hide_env_values = true, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Keeps keys, journals and blobs in this folder instead of in a temporary one that is deleted at the end.
    #[arg(long, env = "POQ_DEMO_WORK_DIR", hide_env_values = true, value_name = "FOLDER")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Writes nodes, tasks and the money check to this file as JSON.
    #[arg(long, env = "POQ_DEMO_JSON", hide_env_values = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// How long the whole run may take before it counts as failed.
    #[arg(long, env = "POQ_DEMO_TIMEOUT", hide_env_values = true, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Runs `poq demo`.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let progress = Progress::new();
    let timeout = args.timeout;
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(timeout, show(&args, &progress)) => outcome,
        signal = stopped() => {
            progress.finish();
            signal?;
            bail!("stopped before the end");
        }
    };
    progress.finish();
    match outcome {
        Ok(result) => result,
        Err(_) => {
            let text = format!(
                "the demonstration was not done within {}; give it more time with --timeout, or ask less with --questions",
                humantime::format_duration(timeout)
            );
            Err(TimedOut(text).into())
        }
    }
}

/// Where keys, journals and blobs are.
enum WorkDir {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl WorkDir {
    fn new(kept: Option<&Path>) -> anyhow::Result<WorkDir> {
        Ok(match kept {
            None => {
                let folder = tempfile::Builder::new().prefix("poq-demo-").tempdir();
                WorkDir::Temporary(folder.context("cannot make a temporary folder")?)
            }
            Some(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
                let used =
                    std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
                ensure!(
                    used.count() == 0,
                    "{} is not empty; give an empty folder with --work-dir",
                    path.display()
                );
                WorkDir::Kept(path.to_owned())
            }
        })
    }

    fn path(&self) -> &Path {
        match self {
            WorkDir::Temporary(folder) => folder.path(),
            WorkDir::Kept(path) => path,
        }
    }
}

/// What was installed beforehand, all of it looked at before anything is started.
struct Prepared {
    artifact: Artifact,
    pool: Artifact,
    questions: Vec<QaItem>,
    models_dir: PathBuf,
}

fn prepare(args: &DemoArgs) -> anyhow::Result<Prepared> {
    let artifact = artifact(args.artifact.as_deref())?;
    // Both are built into one folder.
    let beside = args.artifact.as_ref().map(|file| file.with_file_name("pool.contract"));
    let pool = args.pool_artifact.clone().or(beside.filter(|file| file.is_file()));
    let pool = find_artifact(pool.as_deref(), POOL_ARTIFACT, "--pool-artifact")?;
    let models_dir = args.models_dir.clone().unwrap_or_else(poq_inference::default_models_dir);
    let store = ModelStore::new(Manifest::builtin(), &models_dir);
    for model in cast::models() {
        store.verify(model).context("the demonstration's models; scripts/install-models.sh installs them")?;
    }
    let data = args.data.clone().unwrap_or_else(|| poq_inference::data_dir(&models_dir).join("qa.jsonl"));
    let questions = questions::choose(&data, args.questions.into(), args.seed)?;
    Ok(Prepared { artifact, pool, questions, models_dir })
}

async fn show(args: &DemoArgs, progress: &Progress) -> anyhow::Result<()> {
    progress.stage("checking the contract, the models and the questions");
    let work_dir = WorkDir::new(args.work_dir.as_deref())?;
    let prepared = prepare(args)?;
    let ground = Ground::start(args, work_dir.path()).await?;
    progress.stage(&format!("connecting to {}", ground.describe()));
    let client = ground.client(None).await?;
    let session = Session::new(client.clone());
    let unit =
        10u128.checked_pow(session.unit.decimals.into()).context("the chain's unit has too many decimals")?;
    progress.line(&format!("chain: {} ({})", client.chain().name, ground.describe()));

    let mut cast = Cast::new(
        &work_dir.path().join("keys"),
        prepared.questions.len(),
        unit,
        args.attack,
        args.dishonest,
    )?;
    let panel = cast::panel(args.attack);
    let funder = funder(args, work_dir.path())?;
    let accounts =
        cast.actors().into_iter().chain([&funder]).map(|actor| (actor.account(), actor.name.clone()));
    let mut ledger = Ledger::open(&client, ground.plain().await?, accounts.collect::<Vec<_>>()).await?;

    progress.stage("giving everybody money");
    let transfer_fee = fund(&session, &funder, &cast).await?;

    progress.stage("deploying the contract");
    let setup = Setup { epoch_ms: EPOCH.as_millis() as Millis, global: global_params() };
    let mut salt = [0u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let deployed =
        deploy(&client.submitter(cast.deployer.keys.clone()), &prepared.artifact, &setup, &salt).await?;
    let client = client.with_contract(deployed.address);
    let session = Session::new(client.clone());
    ledger.contract(client.clone()).await?;
    ledger.follow(deployed.block.number).await?;
    let mut params = cast::kind_params(unit, panel);
    params.rubric_hash = Rubric::builtin(TaskKind::Qa).hash()?.0;
    let change = Change::Kind(KIND, params.clone());
    client.submitter(cast.deployer.keys.clone()).send(messages::propose(change)).await?;
    progress.line(&format!("contract: {}", session.address(&deployed.address)));

    progress.stage("registering nodes");
    settle_in(&client, progress).await;
    register(&client, &mut cast).await?;
    let pool = found(&client, &mut cast, &prepared.pool).await?;
    ledger.add(pool.address, "pool".into());
    progress.line(&format!("pool: {}", session.address(&pool.address)));
    for player in &cast.players {
        progress.line(&format!(
            "node {}: {}{} running {}, stake {}, price {}",
            player.id,
            if player.dishonest { "DISHONEST " } else { "" },
            crate::cli::node::role_name(player.role),
            player.model,
            session.unit.show(player.stake),
            session.unit.show(player.price)
        ));
    }

    progress.stage("loading the models");
    let workers =
        start_workers(&ground, deployed.address, &cast, work_dir.path(), &prepared.models_dir, args).await?;
    progress.line(&format!("{} workers run", workers.len()));
    let host = Host::start(client.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;

    let submitter = client.submitter(cast.requester.keys.clone());
    let asker = Asker {
        requester: Requester::new(submitter.clone(), RequesterOptions::default()).await?,
        submitter,
        progress,
        cast: &cast,
        host: &host,
        unit,
        panel,
    };
    let mut round = Round {
        session: &session,
        progress,
        cast: &cast,
        ledger: &mut ledger,
        workers: &workers,
        tally: Tally::default(),
        tasks: Vec::new(),
        complaints: BTreeMap::new(),
    };
    let asked = Instant::now();
    round.ask_all(&asker, &prepared.questions).await?;
    let Round { tally, tasks, .. } = round;
    progress.line(&format!("{} tasks in {:.1} s", tasks.len(), asked.elapsed().as_secs_f64()));

    progress.stage("stopping the workers");
    stop(workers).await?;
    host.stop().await;
    progress.stage("claiming rewards and collecting refunds");
    claim_all(&client, &cast, &tasks).await?;
    pool.harvest(&client, &cast.holder).await?;
    let mut fruits = pool.fruits(&client).await?;
    let slashed = slashed(&client, &cast).await?;
    progress.stage("taking the stakes out");
    fruits.paid = leave(&client, &cast, &pool, &ground).await?;
    if fruits.paid.is_none() {
        progress.line("the stakes are on their way out of the contract: that takes days on a chain that keeps its own time");
        if let Some(folder) = &args.work_dir {
            for player in cast.players.iter().filter(|player| !player.is_pooled()) {
                let file = folder.join("keys").join(player.owner.file.file_name().unwrap_or_default());
                progress.line(&format!("    poq node withdraw {} --key-file {}", player.id, file.display()));
            }
            let file = folder.join("keys").join(cast.holder.file.file_name().unwrap_or_default());
            let address = session.address(&pool.address);
            progress.line(&format!("    poq pool advance {address} --key-file {}", file.display()));
            progress.line(&format!("    poq pool exit {address} --all --key-file {}", file.display()));
        }
    }

    progress.stage("checking the money");
    ledger.follow(client.best().await?.number).await?;
    let comparison = Comparison::of(params, ledger.endings())?;
    let nodes = cast
        .players
        .iter()
        .map(|player| NodeRow {
            account: session.address(&if player.is_pooled() { pool.address } else { player.owner.account() }),
            role: player.role,
            model: player.model.into(),
            dishonest: player.dishonest,
            simulated: comparison.simulated(player.id),
            tally: tally.of(player.id),
            slashed: slashed.get(&player.id).copied().unwrap_or(0),
            claimed: ledger.claimed(player.id),
        })
        .collect();
    let payees: Vec<AccountId32> =
        cast.players.iter().filter_map(|player| player.payee.as_ref().map(Actor::account)).collect();
    fruits.error = pool.error(&client).await?;
    let money = ledger.close(&client, &payees).await?;
    if ground.is_foreign() {
        progress.stage("giving back what is left");
        give_back(&session, &cast, &funder, transfer_fee).await;
    }

    let report = Report { nodes, tasks, money, pool: fruits, attack: args.attack, comparison };
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    progress.finish();
    write_out(&report.text(&session.unit))?;
    write_out(&format!("\nThe whole run took {:.1} s.", progress.elapsed().as_secs_f64()))?;
    verdict(&report)
}

/// What is not the kind's: the shipped values, with an unbonding period that suits the long epochs.
fn global_params() -> GlobalParams {
    GlobalParams { unbonding_ms: 3 * DAY, params_delay_ms: 6 * DAY, ..GlobalParams::default() }
}

/// What makes the run a failure, with its own exit status.
fn verdict(report: &Report) -> anyhow::Result<()> {
    let unexplained: Vec<_> =
        report.tasks.iter().filter(|task| !task.explain_ok).map(|task| task.id).collect();
    if !unexplained.is_empty() {
        return Err(Difference(format!("tasks {unexplained:?} were not paid what the formulas say")).into());
    }
    if !report.comparison.agrees() {
        let text = format!(
            "the simulator's books differ from the chain's; settlements that differ: tasks {:?}",
            report.comparison.differing
        );
        return Err(Difference(text).into());
    }
    if report.money.difference() != 0 {
        let text = format!("the money check is off by {} smallest units", report.money.difference());
        return Err(Difference(text).into());
    }
    if report.pool.error != 0 {
        let text = format!("the pool's books are off by {} smallest units", report.pool.error);
        return Err(Difference(text).into());
    }
    let unsettled: Vec<_> =
        report.tasks.iter().filter(|task| task.ending != Ending::Consensus).map(|task| task.id).collect();
    // Some attacks keep tasks from being settled: what that comes to is what is shown.
    ensure!(report.attack.is_some() || unsettled.is_empty(), "tasks {unsettled:?} were not settled");
    Ok(())
}

/// Who pays for it all.
fn funder(args: &DemoArgs, work_dir: &Path) -> anyhow::Result<Actor> {
    let file = match &args.key_file {
        Some(file) => file.clone(),
        None => {
            // A development account, whose secret everybody knows; in a file like any other key.
            let file = work_dir.join("keys").join("alice.key");
            Keys::write_new(&file, &"//Alice".to_owned().into())
                .with_context(|| format!("cannot write the key file {}", file.display()))?;
            file
        }
    };
    let keys = load_keys(&file, args.password_file.as_deref())?;
    Ok(Actor { name: "funder".into(), keys, file, needs: 0 })
}

/// Sends everybody what it needs; returns what a transfer costs.
async fn fund(session: &Session, funder: &Actor, cast: &Cast) -> anyhow::Result<u128> {
    let submitter = session.client.submitter(funder.keys.clone());
    let needed: u128 = cast.actors().iter().map(|actor| actor.needs).sum();
    let free = session.client.free_balance(&funder.account()).await?;
    ensure!(
        free > needed,
        "{} has {} and the demonstration needs {}; give the key of an account that has it with --key-file (most of it comes \
         back)",
        session.address(&funder.account()),
        session.unit.show(free),
        session.unit.show(needed)
    );
    let mut fee = 0;
    for actor in cast.actors().into_iter().filter(|actor| actor.needs > 0) {
        let receipt = submitter.transfer(&actor.account(), actor.needs).await;
        fee = receipt.with_context(|| format!("money for the {}", actor.name))?.fee.unwrap_or(0);
    }
    Ok(fee)
}

/// Waits for the next epoch where this one is almost over.
async fn settle_in(client: &Client, progress: &Progress) {
    let epoch = EPOCH.as_millis() as Millis;
    let left = Duration::from_millis(epoch - client.upcoming().timestamp_ms % epoch);
    if left < SETTLE_IN {
        progress.line(&format!("the epoch is over in {} s: waiting for the next one", left.as_secs()));
        tokio::time::sleep(left).await;
    }
}

async fn register(client: &Client, cast: &mut Cast) -> anyhow::Result<()> {
    let manifest = Manifest::builtin();
    let registering = cast.players.iter_mut().filter(|player| !player.is_pooled()).map(|player| {
        let payee = player.payee.as_ref().map(Actor::account);
        let digest = manifest.get(player.model).map(|entry| entry.digest().0);
        let submitter = client.submitter(player.owner.keys.clone());
        async move {
            let registration = Registration {
                role: player.role,
                kind: KIND,
                operator: to_ink(&player.operator.account()),
                payee: to_ink(&payee.unwrap_or_else(|| player.owner.account())),
                model: player.model.into(),
                model_digest: digest?,
                endpoint: player.endpoint(),
                price: player.price,
            };
            player.id = submitter.send(messages::register(registration, player.stake)).await?.value;
            anyhow::Ok(())
        }
    });
    try_join_all(registering).await?;
    Ok(())
}

/// Makes the pool of the node that belongs to one.
async fn found(client: &Client, cast: &mut Cast, artifact: &Artifact) -> anyhow::Result<Pool> {
    let holder = cast.holder.clone();
    let player = cast.players.iter_mut().find(|player| player.is_pooled()).context("no node has a pool")?;
    let digest = Manifest::builtin().get(player.model)?.digest().0;
    Pool::found(client, player, &holder, artifact, digest).await
}

/// A worker with its name.
struct Running {
    name: String,
    handle: WorkerHandle,
}

/// One worker per node, each with its own connection, key, journal and blobs, and one that only moves tasks on.
async fn start_workers(
    ground: &Ground,
    contract: AccountId32,
    cast: &Cast,
    work_dir: &Path,
    models_dir: &Path,
    args: &DemoArgs,
) -> anyhow::Result<Vec<Running>> {
    let config = |name: &str, key: &Path| {
        let mut config = WorkerConfig::default();
        config.data_dir = work_dir.join("workers").join(name.replace(' ', "-"));
        config.models_dir = Some(models_dir.to_owned());
        config.chain.contract = Some(format!("0x{}", hex::encode(contract.0)));
        config.chain.poll_interval = Duration::from_secs(2);
        config.keys.operator = Some(key.to_owned());
        config.keeper.enabled = false;
        config.limits.max_tokens = MAX_TOKENS;
        config
    };
    let mut configs = Vec::new();
    if let Some(attack) = args.attack {
        // They collude, so they run in one process and share what they see.
        let dishonest: Vec<&Player> = cast.players.iter().filter(|player| player.dishonest).collect();
        let Some(first) = dishonest.first() else { bail!("nobody is dishonest under {attack}") };
        let mut config = config("dishonest", &first.operator.file);
        config.blobs.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, first.port)));
        config.nodes = dishonest
            .iter()
            .map(|player| NodeConfig { key: Some(player.operator.file.clone()), ..node_config(player) })
            .collect();
        config.adversary = Some(AdversaryConfig {
            attack: attack.to_string(),
            nodes: dishonest.iter().map(|player| player.id).collect(),
            seed: args.seed,
        });
        configs.push(("the dishonest nodes".to_owned(), config));
    }
    for player in cast.players.iter().filter(|player| !player.dishonest) {
        let name = format!("node {}", player.id);
        let mut config = config(&name, &player.operator.file);
        config.blobs.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, player.port)));
        config.nodes = vec![node_config(player)];
        configs.push((format!("{name} ({})", player.model), config));
    }
    let mut keeper = config("keeper", &cast.keeper.file);
    keeper.keeper.enabled = true;
    keeper.keeper.max_delay = Duration::ZERO;
    // It acts whether that pays or not.
    keeper.keeper.margin_percent = 0;
    configs.push(("keeper".into(), keeper));

    try_join_all(configs.into_iter().map(|(name, config)| async move {
        let deps = Deps { chain: Some(ground.client(Some(contract)).await?), ..Deps::default() };
        let handle = Worker::start(config, deps).await.with_context(|| format!("the worker of {name}"))?;
        let ready = handle.ready(START).await;
        ready.map_err(|reasons| anyhow!("the worker of {name} cannot work: {}", reasons.join("; ")))?;
        anyhow::Ok(Running { name, handle })
    }))
    .await
}

fn node_config(player: &Player) -> NodeConfig {
    let role = match player.role {
        Role::Inference => RoleName::Inference,
        Role::Evaluator => RoleName::Evaluator,
    };
    NodeConfig {
        id: player.id,
        role,
        model: player.model.into(),
        // The kind prescribes it.
        rubric: (role == RoleName::Evaluator).then_some(TaskKind::Qa),
        rubric_file: None,
        key: None,
        password_file: None,
    }
}

async fn stop(workers: Vec<Running>) -> anyhow::Result<()> {
    workers.iter().for_each(|worker| worker.handle.shutdown());
    for Running { name, handle } in workers {
        match tokio::time::timeout(STOP, handle.wait()).await {
            Ok(result) => result.with_context(|| format!("the worker of {name}"))?,
            Err(_) => bail!("the worker of {name} did not stop within {} s", STOP.as_secs()),
        }
    }
    Ok(())
}

/// The requester: asks, and sees its tasks through.
struct Asker<'a> {
    requester: Requester,
    submitter: Submitter,
    progress: &'a Progress,
    cast: &'a Cast,
    host: &'a Host,
    unit: u128,
    panel: u8,
}

impl Asker<'_> {
    /// Asks a question and follows its task to the end.
    async fn ask(&self, question: usize, item: &QaItem) -> anyhow::Result<(usize, Seen)> {
        let task = self.request(item, cast::outputs(question)).await?;
        let seen = self.requester.see_through(&[task], |task, step| self.tell(task, &step)).await?;
        let seen = seen.into_iter().next().with_context(|| format!("task {task} was not seen through"))?;
        Ok((question, seen))
    }

    async fn request(&self, item: &QaItem, outputs: u8) -> anyhow::Result<TaskId> {
        let blob = PromptBlob::new(item.context.as_str(), item.question.as_str());
        let hash = self.host.put(blob.encode().context("the question")?).await?;
        let request = Request {
            kind: KIND,
            fee: cast::fee(self.unit, outputs, self.panel),
            nodes: Vec::new(),
            outputs,
            panel: self.panel,
            input: Source::Url { hash, url: self.host.url().to_owned() },
            // Random bytes, and what follows from them.
            reference_commitment: [0; 32],
            secret_hash: [0; 32],
            early: false,
        };
        let mut tries = 0;
        loop {
            match self.submitter.send(messages::request_task(self.requester.sealed(request.clone()))).await {
                Ok(receipt) => {
                    self.tell_assigned(receipt.value).await?;
                    return Ok(receipt.value);
                }
                // All nodes that fit have their hands full.
                Err(error) if error.rejection() == Some(ContractError::TooFewNodes) && tries < 20 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error).context("the request of a task"),
            }
        }
    }

    fn models<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
        let model = |id: &NodeId| {
            let player = self.cast.players.iter().find(|player| player.id == *id);
            player.map_or_else(|| format!("node {id}"), |player| player.model.to_owned())
        };
        nodes.into_iter().filter(|id| **id != 0).map(model).collect::<Vec<_>>().join(", ")
    }

    async fn tell_assigned(&self, task: TaskId) -> anyhow::Result<()> {
        let view = self.submitter.client().view().await?.task(task).await?;
        let nodes: Vec<NodeId> =
            view.iter().flat_map(|view| &view.task.outputs).map(|slot| slot.node).collect();
        self.progress.line(&format!("task {task}: asked of {}", self.models(&nodes)));
        Ok(())
    }

    fn tell(&self, task: TaskId, step: &Step) {
        let text = match step {
            // Told with its quality when the task is over.
            Step::Output { .. } => return,
            Step::Drawn { panel } => format!("scored by {}", self.models(panel)),
            step => progress_text(step),
        };
        self.progress.line(&format!("task {task}: {text}"));
    }
}

/// What comes of the questions.
struct Round<'a> {
    session: &'a Session,
    progress: &'a Progress,
    cast: &'a Cast,
    ledger: &'a mut Ledger,
    workers: &'a [Running],
    tally: Tally,
    tasks: Vec<TaskRow>,
    complaints: BTreeMap<String, Vec<String>>,
}

impl Round<'_> {
    /// Asks every question and follows its task to the end.
    async fn ask_all(&mut self, asker: &Asker<'_>, questions: &[QaItem]) -> anyhow::Result<()> {
        self.progress.tasks(questions.len() as u64);
        self.progress.stage("asking, answering and scoring");
        let mut waiting = questions.iter().enumerate();
        let mut open = FuturesUnordered::new();
        loop {
            while open.len() < WINDOW {
                let Some((question, item)) = waiting.next() else { break };
                open.push(asker.ask(question, item));
            }
            if open.is_empty() {
                break;
            }
            tokio::select! {
                Some(done) = open.next() => {
                    let (question, seen) = done?;
                    self.finish(&seen, &questions[question]).await?;
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            self.listen_to_workers().await?;
            self.ledger.follow(self.session.client.finalized().await?.number).await?;
        }
        self.tasks.sort_by_key(|task| task.id);
        Ok(())
    }

    /// Explains a task that is over and shows its answers.
    async fn finish(&mut self, seen: &Seen, item: &QaItem) -> anyhow::Result<()> {
        let view = seen.view.as_ref().with_context(|| format!("task {} is gone", seen.task))?;
        let task = &view.task;
        let client = &self.session.client;
        let explained = explain(client, view.id).await;
        let explain_ok = match &explained {
            Ok(explanation) => {
                for difference in &explanation.differences {
                    self.progress.line(&format!("task {}: DIFFERS: {difference:?}", view.id));
                }
                explanation.agrees()
            }
            Err(error) => {
                self.progress.line(&format!("task {} cannot be explained: {error}", view.id));
                false
            }
        };
        let event = client.final_event(view.id).await?.event;
        self.tally.add(&event);
        let quality = report::mean_ratio(event.settlement.outputs.iter().filter_map(|output| output.quality));
        self.progress.line(&format!(
            "task {}: {}; {} back to the requester",
            view.id,
            shorten(&item.question, 100),
            self.session.unit.show(task.refund)
        ));
        let mut answers = 0;
        for (slot, output) in task.outputs.iter().zip(&seen.outputs) {
            answers += usize::from(slot.committed_at > 0);
            let answer = Answer::new(slot, output.clone().ok_or_else(|| "not to be had".into()));
            let player = self.cast.players.iter().find(|player| player.id == answer.node);
            let model = player.map_or("?", |player| player.model);
            let text = match &answer.result {
                Ok(text) => format!("\"{}\"", shorten(text, 100)),
                Err(error) => error.clone(),
            };
            let quality = answer.quality.map_or_else(|| "-".into(), |quality| format!("{quality:.3}"));
            self.progress.line(&format!("    {quality}  {model}: {text}"));
        }
        self.tasks.push(TaskRow {
            id: view.id,
            kind: task.kind,
            ending: task.ending,
            quality,
            fee: task.fee,
            refund: task.refund,
            explain_ok,
            answers,
            question: item.question.clone(),
        });
        self.progress.task_done();
        Ok(())
    }

    /// Tells what a worker complains of, once; without one of them the run cannot end.
    async fn listen_to_workers(&mut self) -> anyhow::Result<()> {
        for worker in self.workers {
            let reasons = worker.handle.ready(Duration::ZERO).await.err().unwrap_or_default();
            let known = self.complaints.entry(worker.name.clone()).or_default();
            if *known != reasons {
                for reason in reasons.iter().filter(|reason| !known.contains(reason)) {
                    self.progress.line(&format!("{}: {reason}", worker.name));
                }
                *known = reasons;
            }
            ensure!(
                !worker.handle.is_finished(),
                "the worker of {} has stopped: {}",
                worker.name,
                known.join("; ")
            );
        }
        Ok(())
    }
}

/// Owners claim for their payees, the requester collects its refunds, keepers take their fees, the contract's owner the treasury.
async fn claim_all(client: &Client, cast: &Cast, tasks: &[TaskRow]) -> anyhow::Result<()> {
    let view = client.view().await?;
    let claims = cast.players.iter().filter(|player| !player.is_pooled()).map(|player| {
        let view = &view;
        async move {
            let node = view.node(player.id).await?;
            if node.is_some_and(|view| view.node.claimable > 0) {
                client.submitter(player.owner.keys.clone()).send(messages::claim(player.id)).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(claims).await?;
    let requester = client.submitter(cast.requester.keys.clone());
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    for batch in ids.chunks(MAX_BATCH) {
        requester.send(messages::collect(batch.to_vec())).await?;
    }
    let view = client.view().await?;
    for actor in cast.actors() {
        if view.balances(&actor.account()).await?.credit > 0 {
            client.submitter(actor.keys.clone()).send(messages::withdraw()).await?;
        }
    }
    let treasury = view.liabilities().await?.treasury;
    if treasury > 0 {
        let owner = client.submitter(cast.deployer.keys.clone());
        owner.send(messages::withdraw_treasury(&cast.deployer.account(), treasury)).await?;
    }
    Ok(())
}

/// What every node has lost, in settlements and outside of them.
async fn slashed(client: &Client, cast: &Cast) -> anyhow::Result<BTreeMap<NodeId, u128>> {
    let view = client.view().await?;
    let mut slashed = BTreeMap::new();
    for player in &cast.players {
        let node = view.node(player.id).await?.with_context(|| format!("node {} is gone", player.id))?;
        slashed.insert(player.id, node.node.slashed);
    }
    Ok(slashed)
}

/// Every node takes its stake out, the pool is closed; where the chain's clock can be moved on, they also withdraw it and deregister, and
/// the pool pays: what it paid to its manager and its holder then.
async fn leave(
    client: &Client,
    cast: &Cast,
    pool: &Pool,
    ground: &Ground,
) -> anyhow::Result<Option<(u128, u128)>> {
    let view = client.view().await?;
    let unstaking = cast.players.iter().map(|player| {
        let view = &view;
        async move {
            if player.is_pooled() {
                pool.close(client, player).await?;
                return anyhow::Ok(0);
            }
            let bonded = view.node(player.id).await?.map_or(0, |view| view.node.stake.bonded);
            if bonded == 0 {
                return Ok(0);
            }
            let owner = client.submitter(player.owner.keys.clone());
            Ok(owner.send(messages::unstake(player.id, bonded)).await?.value)
        }
    });
    let until = try_join_all(unstaking).await?.into_iter().max().unwrap_or(0);
    tracing::debug!(until = time(until), "the stakes are on their way out");
    if !ground.advance_to(until)? {
        return Ok(None);
    }
    let leaving = cast.players.iter().filter(|player| !player.is_pooled()).map(|player| async move {
        let owner = client.submitter(player.owner.keys.clone());
        owner.send(messages::withdraw_unbonded(player.id)).await?;
        owner.send(messages::deregister(player.id)).await?;
        anyhow::Ok(())
    });
    try_join_all(leaving).await?;
    let pooled = cast.players.iter().find(|player| player.is_pooled()).context("no node has a pool")?;
    // Its era, its exit time, and once more where a tranche's grid makes that longer.
    for _ in 0..4 {
        match pool.wind_up(client, pooled).await? {
            None => return pool.pay_out(client, pooled, &cast.holder).await.map(Some),
            Some(until) => ensure!(ground.advance_to(until)?, "the chain's clock cannot be moved any more"),
        };
    }
    bail!("the pool could not be closed")
}

/// Sends back to the funder what is left. What cannot be sent back is told, and is no failure of the demonstration.
async fn give_back(session: &Session, cast: &Cast, funder: &Actor, transfer_fee: u128) {
    let client = &session.client;
    let keep = client.chain().existential_deposit + 2 * transfer_fee;
    for actor in cast.actors() {
        let attempt = async {
            let free = client.account(&actor.account(), At::Best).await?.free;
            if free > 2 * keep {
                client.submitter(actor.keys.clone()).transfer(&funder.account(), free - keep).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = attempt.await {
            tracing::warn!(account = %session.address(&actor.account()), "what is left could not be given back: {error:#}");
        }
    }
}
