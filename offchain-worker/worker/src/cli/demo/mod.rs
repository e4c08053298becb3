//! `poq demo`: a whole network with real models, from nothing to the last unit.

mod cast;
mod chain;
mod lab;
mod ledger;
mod progress;
mod questions;
mod report;

use crate::cli::args::duration;
use crate::cli::connect::{load_keys, Session};
use crate::cli::deploy::artifact;
use crate::cli::exit::{Difference, TimedOut};
use crate::cli::host::Host;
use crate::cli::output::write_out;
use crate::cli::signal::stopped;
use crate::cli::task::{phase_name, Fetcher};
use anyhow::{anyhow, bail, ensure, Context};
use cast::{Actor, Cast, Player, KIND};
use chain::Ground;
use clap::Args;
use futures::future::try_join_all;
use lab::Comparison;
use ledger::Ledger;
use poq_blobs::PromptBlob;
use poq_chain::deploy::{deploy, Artifact};
use poq_chain::explain::explain;
use poq_chain::signer::Keys;
use poq_chain::types::{
    GlobalParams, NodeId, Phase, Registration, Role, TaskId, TaskInput, TaskView, MAX_BATCH,
};
use poq_chain::{messages, to_ink, AccountId32, At, Client, ContractError, Outcome};
use poq_inference::data::TaskKind;
use poq_inference::quality::Rubric;
use poq_inference::{Manifest, ModelStore, QaItem};
use poq_worker::config::{AdversaryConfig, NodeConfig, RoleName};
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
/// Unbonding in the demonstration: so that stakes can be seen to come back. A real network waits at least an hour.
const UNBONDING: Duration = Duration::from_secs(1);
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
    /// there. What is left goes back to it.
    // Not from the environment: what another command signs with must not pay for a demonstration by accident.
    #[arg(long, value_name = "FILE", requires = "url")]
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
    /// Makes some of the nodes dishonest, as `poq simulate` spells it (boosting, noise=0.3, never-reveal, slow-delivery=30, …), and
    /// shows what cheating came to. Two evaluators are added where evaluators are attacked, and five score each task.
    #[arg(long, value_name = "ATTACK")]
    pub(crate) attack: Option<poq_simulator::Attack>,
    /// How many of the five evaluators are dishonest; two of five are more than the rules are made to stand.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "attack", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) dishonest: u8,
    /// The built contract; found as `poq deploy` finds it.
    #[arg(long, env = "POQ_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
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
    questions: Vec<QaItem>,
    models_dir: PathBuf,
}

fn prepare(args: &DemoArgs) -> anyhow::Result<Prepared> {
    let artifact = artifact(args.artifact.as_deref())?;
    let models_dir = args.models_dir.clone().unwrap_or_else(poq_inference::default_models_dir);
    let store = ModelStore::new(Manifest::builtin(), &models_dir);
    for model in cast::models() {
        store.verify(model).context("the demonstration's models; scripts/install-models.sh installs them")?;
    }
    let data = args.data.clone().unwrap_or_else(|| poq_inference::data_dir(&models_dir).join("qa.jsonl"));
    let questions = questions::choose(&data, args.questions.into(), args.seed)?;
    Ok(Prepared { artifact, questions, models_dir })
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
    let global = GlobalParams { unbonding_ms: UNBONDING.as_millis() as u64, ..GlobalParams::default() };
    let mut salt = [0u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let deployed =
        deploy(&client.submitter(cast.deployer.keys.clone()), &prepared.artifact, global, &salt).await?;
    let client = client.with_contract(deployed.address);
    let session = Session::new(client.clone());
    ledger.contract(client.clone()).await?;
    ledger.follow(deployed.block.number).await?;
    let mut params = cast::kind_params(unit, panel);
    params.rubric_hash = Rubric::builtin(TaskKind::Qa).hash()?.0;
    client.submitter(cast.deployer.keys.clone()).send(messages::set_kind(KIND, params.clone())).await?;
    progress.line(&format!("contract: {}", session.address(&deployed.address)));

    progress.stage("registering nodes");
    register(&client, &mut cast).await?;
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

    let mut round = Round {
        session: &session,
        progress,
        cast: &cast,
        host: &host,
        ledger: &mut ledger,
        workers: &workers,
        unit,
        panel,
        tally: Tally::default(),
        tasks: Vec::new(),
        complaints: BTreeMap::new(),
    };
    let asked = Instant::now();
    round.ask_all(&prepared.questions).await?;
    let Round { tally, tasks, .. } = round;
    progress.line(&format!("{} tasks in {:.1} s", tasks.len(), asked.elapsed().as_secs_f64()));

    progress.stage("stopping the workers");
    stop(workers).await?;
    host.stop().await;
    progress.stage("claiming rewards and collecting refunds");
    claim_all(&client, &cast, &tasks).await?;
    let slashed = slashed(&client, &cast).await?;
    progress.stage("taking the stakes out");
    leave(&client, &cast, &funder).await?;

    progress.stage("checking the money");
    ledger.follow(client.best().await?.number).await?;
    let comparison = Comparison::of(params, ledger.endings())?;
    let nodes = cast
        .players
        .iter()
        .map(|player| NodeRow {
            account: session.address(&player.owner.account()),
            role: player.role,
            model: player.model.into(),
            dishonest: player.dishonest,
            simulated: comparison.simulated(player.id),
            tally: tally.of(player.id),
            slashed: slashed.get(&player.id).copied().unwrap_or(0),
            claimed: ledger.claimed(player.id),
        })
        .collect();
    let payees: Vec<AccountId32> = cast.players.iter().map(|player| player.payee.account()).collect();
    let money = ledger.close(&client, &payees).await?;
    if ground.is_foreign() {
        progress.stage("giving back what is left");
        give_back(&session, &cast, &funder, transfer_fee).await;
    }

    let report = Report { nodes, tasks, money, attack: args.attack, comparison };
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    progress.finish();
    write_out(&report.text(&session.unit))?;
    write_out(&format!("\nThe whole run took {:.1} s.", progress.elapsed().as_secs_f64()))?;
    verdict(&report)
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
    let unsettled: Vec<_> =
        report.tasks.iter().filter(|task| task.phase != "settled").map(|task| task.id).collect();
    ensure!(unsettled.is_empty(), "tasks {unsettled:?} were not settled");
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

async fn register(client: &Client, cast: &mut Cast) -> anyhow::Result<()> {
    let manifest = Manifest::builtin();
    let registering = cast.players.iter_mut().map(|player| {
        let digest = manifest.get(player.model).map(|entry| entry.digest().0);
        let submitter = client.submitter(player.owner.keys.clone());
        async move {
            let registration = Registration {
                role: player.role,
                kind: KIND,
                operator: to_ink(&player.operator.account()),
                payee: to_ink(&player.payee.account()),
                model: player.model.into(),
                model_digest: digest?,
                endpoint: format!("http://127.0.0.1:{}", player.port),
                price: player.price,
            };
            player.id = submitter.send(messages::register(registration, player.stake)).await?.value;
            anyhow::Ok(())
        }
    });
    try_join_all(registering).await?;
    Ok(())
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

/// An open task.
struct Open {
    question: usize,
    phase: Option<Phase>,
}

/// The requester's part.
struct Round<'a> {
    session: &'a Session,
    progress: &'a Progress,
    cast: &'a Cast,
    host: &'a Host,
    ledger: &'a mut Ledger,
    workers: &'a [Running],
    unit: u128,
    panel: u8,
    tally: Tally,
    tasks: Vec<TaskRow>,
    complaints: BTreeMap<String, Vec<String>>,
}

impl Round<'_> {
    /// Asks every question and follows its task to the end.
    async fn ask_all(&mut self, questions: &[QaItem]) -> anyhow::Result<()> {
        let mut blocks = self.session.client.best_watch();
        let mut open: BTreeMap<TaskId, Open> = BTreeMap::new();
        let mut next = 0;
        self.progress.tasks(questions.len() as u64);
        self.progress.stage("asking, answering and scoring");
        while next < questions.len() || !open.is_empty() {
            while open.len() < WINDOW && next < questions.len() {
                let task = self.request(&questions[next], cast::outputs(next)).await?;
                open.insert(task, Open { question: next, phase: None });
                next += 1;
            }
            let view = self.session.client.view().await?;
            let mut done = Vec::new();
            for (id, state) in &mut open {
                let task = view.task(*id).await?.with_context(|| format!("task {id} is gone"))?;
                if state.phase != Some(task.task.phase) {
                    state.phase = Some(task.task.phase);
                    self.tell(&task);
                }
                if task.task.phase.is_final() {
                    done.push(task);
                }
            }
            for task in done {
                if let Some(state) = open.remove(&task.id) {
                    self.finish(&task, &questions[state.question]).await?;
                }
            }
            self.listen_to_workers().await?;
            self.ledger.follow(self.session.client.finalized().await?.number).await?;
            // A chain without transactions makes no blocks: look again anyway.
            let _ = tokio::time::timeout(Duration::from_secs(1), blocks.changed()).await;
        }
        self.tasks.sort_by_key(|task| task.id);
        Ok(())
    }

    async fn request(&self, item: &QaItem, outputs: u8) -> anyhow::Result<TaskId> {
        let blob = PromptBlob::new(item.context.as_str(), item.question.as_str());
        let hash = self.host.put(blob.encode().context("the question")?).await?;
        let mut reference = [0u8; 32];
        rand::rng().fill_bytes(&mut reference);
        let fee = cast::fee(self.unit, outputs, self.panel);
        let submitter = self.session.client.submitter(self.cast.requester.keys.clone());
        let mut tries = 0;
        loop {
            let input = TaskInput { hash, url: self.host.url().to_owned() };
            let message = messages::request_task(KIND, outputs, self.panel, input, reference, fee);
            match submitter.send(message).await {
                Ok(receipt) => return Ok(receipt.value),
                // A draw that missed; another block draws anew.
                Err(error) if error.rejection() == Some(ContractError::TooFewNodes) && tries < 20 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error).context("the request of a task"),
            }
        }
    }

    fn tell(&self, view: &TaskView) {
        let task = &view.task;
        let models = |nodes: Vec<u32>| {
            let model = |id: &u32| {
                let player = self.cast.players.iter().find(|player| player.id == *id);
                player.map_or_else(|| format!("node {id}"), |player| player.model.to_owned())
            };
            nodes.iter().filter(|id| **id != 0).map(model).collect::<Vec<_>>().join(", ")
        };
        let detail = match task.phase {
            Phase::Inferring => format!(": {}", models(task.outputs.iter().map(|slot| slot.node).collect())),
            Phase::Scoring => format!(": {}", models(task.panel.iter().map(|seat| seat.node).collect())),
            Phase::Settled | Phase::Refunded => {
                format!(", {} back to the requester", self.session.unit.show(task.refund))
            }
            Phase::Drawing | Phase::Revealing | Phase::Auditing => String::new(),
        };
        self.progress.line(&format!("task {}: {}{detail}", view.id, phase_name(task.phase)));
    }

    /// Explains a final task and shows its answers.
    async fn finish(&mut self, view: &TaskView, item: &QaItem) -> anyhow::Result<()> {
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
        let mut quality = None;
        if let Outcome::Settled(event) = client.final_event(view.id).await?.outcome {
            self.tally.add(&event);
            quality = report::mean_ratio(event.settlement.outputs.iter().filter_map(|output| output.quality));
        }
        self.progress.line(&format!("task {}: {}", view.id, shorten(&item.question, 100)));
        let fetcher = Fetcher::new(self.session, &self.cast.requester.keys)?;
        for answer in fetcher.answers(view).await? {
            let player = self.cast.players.iter().find(|player| player.id == answer.node);
            let model = player.map_or("?", |player| player.model);
            let text = match &answer.result {
                Ok(text) => format!("\"{}\"", shorten(text, 100)),
                Err(error) => format!("not to be had: {error}"),
            };
            let quality = answer.quality.map_or_else(|| "-".into(), |quality| format!("{quality:.3}"));
            self.progress.line(&format!("    {quality}  {model}: {text}"));
        }
        self.tasks.push(TaskRow {
            id: view.id,
            kind: task.kind,
            phase: phase_name(task.phase),
            quality,
            fee: task.fee,
            refund: task.refund,
            explain_ok,
            answers: task.outputs.iter().filter(|slot| slot.committed_at > 0).count(),
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

/// Owners claim for their payees, the requester collects its refunds, the contract's owner takes the treasury.
async fn claim_all(client: &Client, cast: &Cast, tasks: &[TaskRow]) -> anyhow::Result<()> {
    let view = client.view().await?;
    let claims = cast.players.iter().map(|player| {
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
    let treasury = client.view().await?.liabilities().await?.treasury;
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

/// Every node takes its stake out and deregisters: what it put in can be had back.
async fn leave(client: &Client, cast: &Cast, funder: &Actor) -> anyhow::Result<()> {
    let view = client.view().await?;
    let unstaking = cast.players.iter().map(|player| {
        let view = &view;
        async move {
            let free = view.node(player.id).await?.map_or(0, |view| view.node.free);
            if free > 0 {
                client.submitter(player.owner.keys.clone()).send(messages::unstake(player.id, free)).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(unstaking).await?;

    // A node that seals a block only when a transaction arrives stands still in time: a transaction moves it on.
    let until = client.best().await?.timestamp_ms + UNBONDING.as_millis() as u64;
    while client.best().await?.timestamp_ms <= until {
        tokio::time::sleep(UNBONDING).await;
        client.submitter(funder.keys.clone()).transfer(&funder.account(), 1).await?;
    }
    let leaving = cast.players.iter().map(|player| async move {
        let owner = client.submitter(player.owner.keys.clone());
        owner.send(messages::withdraw_unbonded(player.id)).await?;
        owner.send(messages::deregister(player.id)).await?;
        anyhow::Ok(())
    });
    try_join_all(leaving).await?;
    Ok(())
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
