//! The command line: `poq simulate …` and `poq-simulate …`.

use crate::attack::Attack;
use crate::bench;
use crate::economy::{quantise, Gold, Requester, Setting};
use crate::error::{Error, Result};
use crate::failures;
use crate::fit;
use crate::log::Log;
use crate::measure::{Metric, Summary};
use crate::papers;
use crate::population::Crowd;
use crate::report;
use crate::rules::{named, set_trust, Regime, AGGREGATIONS, AUDIT_MS, GOLD_NOISE, MERITS, TRUSTS};
use crate::run::{Effort, Job};
use crate::scenario::{self, Finding};
use crate::sweep::{write_csv, Grid};
use crate::world::{ParametricSpec, Spread, World};
use clap::{Args, Subcommand};
use comfy_table::{presets, Table};
use indicatif::{ProgressBar, ProgressStyle};
use poq_core::params::UNIT;
use poq_core::units::Balance;
use poq_core::{Aggregation, KindParams, MeritRule, TrustRule};
use serde_json::{json, Map, Value};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What is asked for, and for how much.
#[derive(Args, Clone, Debug)]
struct TaskArgs {
    /// N: answers per task.
    #[arg(long, default_value_t = 2, value_name = "N")]
    outputs: u8,
    /// K: evaluators per task.
    #[arg(long, default_value_t = 9, value_name = "K")]
    panel: u8,
    /// What a task pays, in UNIT.
    #[arg(long, default_value_t = 10.0, value_name = "UNIT")]
    fee: f64,
}

/// The adversary lab: simulates Proof-of-Quality networks, honest and attacked, on the contract's own arithmetic.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// How many threads to use; 0 for one per core. The results do not depend on it.
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// What all random numbers come from.
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// What is to be done.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Simulate one network and print what it came to, with 95 % confidence intervals.
    Run(RunArgs),
    /// Simulate every combination of the given attacks, ratios, panels and rules, and write a table (CSV).
    Sweep(SweepArgs),
    /// Check the papers' findings, and ours: each says whether it was reproduced, and by which numbers.
    Scenario(ScenarioArgs),
    /// Write all tables and plots of docs/economics.md.
    Report(ReportArgs),
    /// Print what each failure costs whom: who pays, who is slashed, what is burned.
    Failures(FailuresArgs),
    /// Fit a parametric world to the log of `poq experiment` and write it as JSON, for --world.
    Fit(FitArgs),
    /// Time the simulator: 5,000 rounds of the papers' setting, and how the time grows.
    Bench(BenchArgs),
}

/// Where qualities, latencies and scores come from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "World")]
struct WorldArgs {
    /// `wide` (quality Beta(4,2)), `narrow` (Beta(18,2)), `papers` (the figures of arXiv 2512.16317), or a file that `fit` wrote.
    #[arg(long, default_value = "wide", value_name = "NAME|FILE")]
    world: String,
    /// Replay this log of `poq experiment` instead.
    #[arg(long, value_name = "FILE", conflicts_with = "world")]
    replay: Option<PathBuf>,
}

impl WorldArgs {
    fn world(&self) -> Result<World> {
        if let Some(path) = &self.replay {
            return Ok(World::replay(Log::read(path)?));
        }
        match self.world.as_str() {
            "wide" => World::standard(Spread::Wide),
            "narrow" => World::standard(Spread::Narrow),
            "papers" => World::parametric(papers::cost_aware()),
            path => World::parametric(read_json::<ParametricSpec>(Path::new(path))?),
        }
    }
}

/// The rules.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rules")]
struct RuleArgs {
    /// A task kind's parameters as JSON (as `poq explain --json` has them under `params`); without it the shipped defaults, with --gold those for a
    /// network that has auditors.
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// mean, median, trimmed-mean, trust-weighted-mean or trust-weighted-median.
    #[arg(long, value_parser = aggregation, value_name = "RULE")]
    aggregation: Option<Aggregation>,
    /// closeness or information.
    #[arg(long, value_parser = merit, value_name = "RULE")]
    merit: Option<MeritRule>,
    /// multiplicative, centred, relative-merit or anchored; moves in gold tasks only.
    #[arg(long, value_parser = trust, value_name = "RULE")]
    trust: Option<TrustRule>,
    /// The trust of a new evaluator, in (0, 1]; without it what suits --trust.
    #[arg(long, value_name = "SHARE")]
    trust_initial: Option<f64>,
    /// The trust below which no evaluator falls, in (0, 1]; without it what suits --trust.
    #[arg(long, value_name = "SHARE")]
    trust_floor: Option<f64>,
    #[command(flatten)]
    task: TaskArgs,
    /// The time between blocks in milliseconds.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    block_ms: u64,
    /// How often an honest node fails its duty.
    #[arg(long, default_value_t = 0.005, value_name = "SHARE")]
    fault_rate: f64,
    /// The share of tasks that are gold.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    gold: f64,
    /// The standard deviation of an opened reference's truth around true quality.
    #[arg(long, default_value_t = GOLD_NOISE, value_name = "SD")]
    gold_noise: f64,
    /// The share of gold tasks whose auditor plants a reference and tells the attackers.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    gold_abused: f64,
    /// What the requester does: honest, withholds-secret, withholds-input (from the panel) or withholds-all.
    #[arg(long, value_enum, default_value_t = Requester::Honest, value_name = "CONDUCT")]
    requester: Requester,
}

impl RuleArgs {
    fn setting(&self) -> Result<Setting> {
        let mut params = match &self.params {
            Some(path) => read_json::<KindParams>(path)?,
            None if self.gold > 0.0 => KindParams::default(),
            None => KindParams::without_auditors(),
        };
        params.aggregation = self.aggregation.unwrap_or(params.aggregation);
        params.merit = self.merit.unwrap_or(params.merit);
        if let Some(trust) = self.trust {
            set_trust(&mut params, trust);
        }
        if let Some(trust) = self.trust_initial {
            params.trust_initial = quantise(trust);
        }
        if let Some(trust) = self.trust_floor {
            params.trust_floor = quantise(trust);
        }
        if self.gold > 0.0 {
            params.audit_ms = params.audit_ms.max(AUDIT_MS);
        }
        Ok(Setting {
            params,
            outputs: self.task.outputs,
            panel: self.task.panel,
            fee: money(self.task.fee, "--fee")?,
            block_ms: self.block_ms,
            fault_rate: self.fault_rate,
            gold: Gold { share: self.gold, noise: self.gold_noise, abused: self.gold_abused },
            requester: self.requester,
        })
    }
}

/// Who takes part.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Nodes")]
struct CrowdArgs {
    /// How many inference nodes there are.
    #[arg(long, default_value_t = 12, value_name = "N")]
    inference: u32,
    /// How many evaluators there are.
    #[arg(long, default_value_t = 60, value_name = "N")]
    evaluators: u32,
    /// The stake of every node in UNIT.
    /// The stake of every node in UNIT; below the kind's `stake_min` none is drawn.
    #[arg(long, default_value_t = 1_000.0, value_name = "UNIT")]
    stake: f64,
}

impl CrowdArgs {
    fn crowd(&self) -> Result<Crowd> {
        Ok(Crowd {
            inference: self.inference,
            evaluators: self.evaluators,
            stake: money(self.stake, "--stake")?,
            attack: None,
            ratio: 0.0,
        })
    }
}

/// How often and how long.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Effort")]
struct EffortArgs {
    /// Tasks per replication.
    #[arg(long, default_value_t = 5_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Replications with random numbers of their own: confidence intervals come from them.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replications: u32,
}

#[derive(Args, Clone, Debug)]
struct RunArgs {
    #[command(flatten)]
    world: WorldArgs,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    crowd: CrowdArgs,
    #[command(flatten)]
    effort: EffortArgs,
    /// What attackers do, with its strength where it has one: boosting, boosting=0.3, shared-signal…; `--attack help` lists
    /// them.
    #[arg(long, value_parser = attack, value_name = "ATTACK[=X]")]
    attack: Option<Attack>,
    /// The share of attackers among the nodes that the attack corrupts.
    #[arg(long, default_value_t = 0.3, value_name = "SHARE")]
    ratio: f64,
    /// Write everything as JSON, by node too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct SweepArgs {
    /// The worlds to sweep, as --world names them.
    #[arg(long, value_delimiter = ',', default_value = "wide,narrow", value_name = "NAME,…")]
    worlds: Vec<Spread>,
    /// The attacks; without it all.
    #[arg(long, value_delimiter = ',', value_parser = attack, value_name = "ATTACK[=X],…")]
    attacks: Vec<Attack>,
    /// The shares of attackers.
    #[arg(long, value_delimiter = ',', default_value = "0.1,0.3,0.5", value_name = "SHARE,…")]
    ratios: Vec<f64>,
    /// The panel sizes.
    #[arg(long, value_delimiter = ',', default_value = "9", value_name = "K,…")]
    panels: Vec<u8>,
    /// The aggregations to sweep.
    #[arg(long, value_delimiter = ',', value_parser = aggregation, default_value = "median", value_name = "RULE,…")]
    aggregations: Vec<Aggregation>,
    /// The merit rules.
    #[arg(long, value_delimiter = ',', value_parser = merit, default_value = "information", value_name = "RULE,…")]
    merits: Vec<MeritRule>,
    /// The trust rules; trust moves in gold tasks only.
    #[arg(long, value_delimiter = ',', value_parser = trust, default_value = "anchored", value_name = "RULE,…")]
    trusts: Vec<TrustRule>,
    /// The shares of gold tasks.
    #[arg(long, value_delimiter = ',', default_value = "0.1", value_name = "SHARE,…")]
    gold: Vec<f64>,
    #[command(flatten)]
    crowd: CrowdArgs,
    #[command(flatten)]
    effort: EffortArgs,
    /// Where the table goes.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Clone, Debug)]
struct ScenarioArgs {
    /// Which; without any, all. `list` lists them.
    names: Vec<String>,
    #[command(flatten)]
    effort: EffortArgs,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct ReportArgs {
    /// The folder; it is made where it does not exist.
    #[arg(long, short, default_value = "economics", value_name = "FOLDER")]
    out: PathBuf,
    /// A fraction of the rounds and combinations: under a minute, for a look.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<report::Part>,
    /// Rounds per replication, instead of 3,000 (the sweep: 1,500).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,
    /// Replications, instead of 5; the sweep has one whatever is asked.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replications: Option<u32>,
    /// The shares of attackers that every attack is measured at, instead of 0.1 to 0.5.
    #[arg(long, value_delimiter = ',', value_name = "SHARE,…")]
    ratios: Vec<f64>,
}

#[derive(Args, Clone, Debug)]
struct FailuresArgs {
    /// A task kind's parameters as JSON; without it the shipped defaults.
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    #[command(flatten)]
    task: TaskArgs,
    /// Print it as Markdown, as docs/economics.md has it.
    #[arg(long)]
    markdown: bool,
    /// Write it as JSON, amounts in the chain's smallest unit.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct FitArgs {
    /// The folder or file that `poq experiment score` wrote.
    log: PathBuf,
    /// Where the world goes; without it standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct BenchArgs {
    /// Write what was measured as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Up to 10⁵ rounds instead of 10⁶.
    #[arg(long)]
    quick: bool,
    /// Only time this many rounds of the papers' setting, and print the seconds: what the comparison with NumPy calls.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
}

fn aggregation(name: &str) -> Result<Aggregation, String> {
    named(&AGGREGATIONS, name)
}

fn merit(name: &str) -> Result<MeritRule, String> {
    named(&MERITS, name)
}

fn trust(name: &str) -> Result<TrustRule, String> {
    named(&TRUSTS, name)
}

fn attack(text: &str) -> Result<Attack, String> {
    text.parse()
}

fn money(units: f64, flag: &str) -> Result<Balance> {
    if units.is_finite() && (0.0..1e15).contains(&units) {
        Ok((units * UNIT as f64) as Balance)
    } else {
        Err(Error::Setting(format!("{flag}: an amount in UNIT must be in [0, 10^15), not {units}")))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|e| Error::File { path: path.into(), problem: e.to_string() })
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::File { path: path.into(), problem: e.to_string() })?;
    std::fs::write(path, text + "\n").map_err(Error::io(path))
}

/// Runs a command.
///
/// # Errors
/// What was wrong with the arguments, files that cannot be read or written, bugs that the books found.
pub fn run(args: SimulateArgs) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()
        .map_err(|e| Error::Setting(format!("--threads {}: {e}", args.threads)))?;
    pool.install(|| match args.command {
        Command::Run(command) => one(command, args.seed),
        Command::Sweep(command) => sweep(command, args.seed),
        Command::Scenario(command) => scenarios(command, args.seed),
        Command::Report(command) => {
            let findings = report::write(
                &command.out,
                report::Options {
                    only: command.only,
                    quick: command.quick,
                    rounds: command.rounds,
                    replications: command.replications,
                    ratios: command.ratios,
                    seed: args.seed,
                    progress: interactive(),
                },
            )?;
            print_findings(&findings);
            println!("written: {}", command.out.display());
            Ok(())
        }
        Command::Failures(command) => failures(command),
        Command::Fit(command) => fitted(command),
        Command::Bench(command) => timing(command),
    })
}

/// Whether somebody is looking at the progress.
fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

fn one(args: RunArgs, seed: u64) -> Result<()> {
    let world = args.world.world()?;
    let setting = args.rules.setting()?;
    let mut crowd = args.crowd.crowd()?;
    if let Some(attack) = args.attack {
        crowd = crowd.attacked(attack, args.ratio);
    }
    let effort = Effort { rounds: args.effort.rounds, replications: args.effort.replications, seed };
    let job = Job { world: &world, setting, crowd };
    let outcomes = job.outcomes(effort)?;
    let summary = Summary::of(&outcomes);

    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(["measure", "mean", "95 % interval"]);
    let mut metrics = Map::new();
    for metric in Metric::ALL {
        let Some(e) = summary.get(metric) else { continue };
        table.add_row([
            metric.name().to_string(),
            format!("{:.4}", e.mean),
            format!("{:.4} … {:.4}", e.low, e.high),
        ]);
        metrics.insert(metric.name().into(), json!(e));
    }
    if let Some(break_even) = summary.break_even {
        table.add_row(["break_even_at_risk (UNIT)".to_string(), break_even.to_string(), String::new()]);
    }
    println!("{table}");
    if let Some(path) = args.json {
        let nodes: Vec<Value> = outcomes
            .iter()
            .enumerate()
            .flat_map(|(replication, outcome)| {
                outcome.nodes.iter().enumerate().map(move |(node, of)| {
                    json!({
                        "replication": replication, "node": node, "role": of.role, "model": of.model,
                        "malicious": of.malicious, "duties": of.duties, "paid": of.paid, "profit": of.profit,
                        "net": of.net, "quality": of.quality, "latency_ms": of.latency_ms,
                        "true_net": of.true_net, "trust": of.trust,
                    })
                })
            })
            .collect();
        let trust: Vec<Value> = outcomes.iter().map(|outcome| json!(outcome.trust)).collect();
        let value = json!({
            "setting": job.setting, "crowd": job.crowd, "rounds": effort.rounds,
            "replications": effort.replications, "seed": seed, "metrics": metrics,
            "break_even_at_risk": summary.break_even, "nodes": nodes, "trust": trust,
        });
        write_json(&path, &value)?;
    }
    Ok(())
}

fn sweep(args: SweepArgs, seed: u64) -> Result<()> {
    let mut regimes = Vec::new();
    for trust in &args.trusts {
        for gold in &args.gold {
            regimes.push(Regime::of(*trust, *gold));
        }
    }
    let grid = Grid {
        spreads: args.worlds,
        attacks: if args.attacks.is_empty() { Attack::ALL.into() } else { args.attacks },
        ratios: args.ratios,
        panels: args.panels,
        aggregations: args.aggregations,
        merits: args.merits,
        regimes,
    };
    let count = grid.cells().len() as u64;
    let bar = if interactive() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    let effort = Effort { rounds: args.effort.rounds, replications: args.effort.replications, seed };
    let rows = grid.run(&Setting::default(), args.crowd.crowd()?, effort, || bar.inc(1))?;
    bar.finish();
    write_csv(&args.out, &rows, &Metric::ALL, &[])?;
    println!("{} combinations written to {}", rows.len(), args.out.display());
    Ok(())
}

fn scenarios(args: ScenarioArgs, seed: u64) -> Result<()> {
    if args.names.iter().any(|name| name == "list") {
        for scenario in scenario::ALL {
            println!("{:24} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let chosen = if args.names.is_empty() {
        scenario::ALL.to_vec()
    } else {
        args.names
            .iter()
            .map(|name| {
                scenario::ALL.into_iter().find(|s| s.name == name).ok_or_else(|| {
                    let known: Vec<&str> = scenario::ALL.iter().map(|s| s.name).collect();
                    Error::Setting(format!("no scenario is named `{name}`; there are: {}", known.join(", ")))
                })
            })
            .collect::<Result<Vec<_>>>()?
    };
    let effort = Effort { rounds: args.effort.rounds, replications: args.effort.replications, seed };
    let findings = chosen.iter().map(|scenario| scenario.run(effort)).collect::<Result<Vec<_>>>()?;
    print_findings(&findings);
    match args.json {
        Some(path) => write_json(&path, &findings),
        None => Ok(()),
    }
}

fn print_findings(findings: &[Finding]) {
    for finding in findings {
        println!("{} ({})", finding.scenario, finding.source);
        for claim in &finding.claims {
            println!(
                "  {} {}",
                if claim.reproduced { "reproduced:    " } else { "NOT reproduced:" },
                claim.claim
            );
            for e in &claim.evidence {
                println!("      {}: {:.4} ({:.4} … {:.4})", e.what, e.value.mean, e.value.low, e.value.high);
            }
            if let Some(remark) = claim.remark {
                println!("      ({remark})");
            }
        }
    }
}

fn failures(args: FailuresArgs) -> Result<()> {
    let params = match &args.params {
        Some(path) => read_json::<KindParams>(path)?,
        None => KindParams::default(),
    };
    let TaskArgs { outputs, panel, fee } = args.task;
    let fee = money(fee, "--fee")?;
    let setting = Setting { params, outputs, panel, fee, ..Setting::default() };
    let costs = failures::table(&setting)?;
    if args.markdown {
        print!("{}", failures::markdown(&costs));
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header(failures::HEADER);
        for costs in &costs {
            table.add_row(costs.row());
        }
        println!("{table}");
    }
    match args.json {
        Some(path) => write_json(&path, &costs),
        None => Ok(()),
    }
}

fn fitted(args: FitArgs) -> Result<()> {
    let log = Log::read(&args.log)?;
    let spec = fit::fit(&log, &args.log)?;
    eprintln!(
        "{} items, {} models, {} evaluators; {} items left out because a model has not answered them",
        log.items.len(),
        log.models.len(),
        log.evaluators.len(),
        log.incomplete
    );
    match args.out {
        Some(path) => write_json(&path, &spec),
        None => {
            let text = serde_json::to_string_pretty(&spec)
                .map_err(|e| Error::File { path: args.log.clone(), problem: e.to_string() })?;
            println!("{text}");
            Ok(())
        }
    }
}

fn timing(args: BenchArgs) -> Result<()> {
    if let Some(rounds) = args.rounds {
        println!("{:.6}", bench::papers_setting(rounds)?);
        return Ok(());
    }
    let timing = bench::time(args.quick)?;
    println!("5,000 rounds of the papers' setting: {:.1} ms on one core", timing.seconds_5000_rounds * 1e3);
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["axis", "rounds", "K", "nodes", "seconds", "µs per round"]);
    for point in &timing.scaling {
        table.add_row([
            point.axis.to_string(),
            point.rounds.to_string(),
            point.panel.to_string(),
            point.nodes.to_string(),
            format!("{:.3}", point.seconds),
            format!("{:.2}", point.per_round_us),
        ]);
    }
    println!("{table}");
    match args.json {
        Some(path) => write_json(&path, &timing),
        None => Ok(()),
    }
}
