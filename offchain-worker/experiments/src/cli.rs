//! Commands and flags, for this crate's own program and for `poq experiment`.

use crate::error::{Error, Result};
use clap::{Args, Subcommand};
use poq_inference::{
    configure_threads, models::find_config, quality::Rubric, DeviceSpec, LoadOptions, Manifest, ModelStore,
    TaskKind,
};
use std::{net::SocketAddr, path::PathBuf};

/// Measure quality signals: run models, score what they answer, and report which score can be trusted.
#[derive(Debug, Args)]
pub struct ExperimentArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ExperimentCommand,
}

/// The stages of an experiment.
#[derive(Debug, Subcommand)]
pub enum ExperimentCommand {
    /// Run models over prompts and log outputs, latencies, tokens and memory. Goes on where it was interrupted.
    Run(RunArgs),
    /// Score the outputs with every evaluator, and ask a judge about them.
    Score(ScoreArgs),
    /// Make tables, plots and a calibrated rubric of the scores.
    Report(ReportArgs),
    /// Show what evaluators make of empty, endless, foreign and malicious outputs.
    Hostile(HostileArgs),
    /// Check a rubric file and show its hash, which is what a task kind names on chain.
    Rubric(RubricArgs),
    /// Serve an installed language model at an OpenAI-compatible endpoint, for a judge among others.
    Serve(ServeArgs),
    /// Print what this program computes for pairs of texts, to be compared with other implementations
    /// (scripts/check-scores.sh does so).
    Compare(CompareArgs),
}

/// Where an experiment's files are.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// The experiment's folder; without it $POQ_CACHE/experiments/default, or ~/.cache/poq/experiments/default.
    #[arg(long = "dir", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl FolderArgs {
    /// The folder.
    pub fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| cache_dir().join("experiments/default"))
    }
}

/// `POQ_CACHE`, else `$XDG_CACHE_HOME/poq`, else `~/.cache/poq`: as the scripts have it.
fn cache_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(cache) = set("POQ_CACHE") {
        return cache;
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("poq")
}

/// Where models are and where they compute.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The models folder; without it, the configuration's models_dir.
    #[arg(long, env = "POQ_MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,

    /// The configuration whose [[models]] sections say which models there are and how they are run, found as `poq worker run`
    /// finds it.
    #[arg(long, env = "POQ_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A manifest of your own in place of the built-in one.
    #[arg(long, env = "POQ_MODELS_MANIFEST", value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Where to compute, in place of what the configuration says: cpu, cuda:N, metal:N.
    #[arg(long, env = "POQ_DEVICE")]
    pub device: Option<DeviceSpec>,

    /// Threads to compute with; without it, one per core. Fewer are faster where cores are shared with other work.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl StoreArgs {
    /// The store of models.
    ///
    /// # Errors
    /// When manifest or configuration cannot be read.
    pub fn open(&self) -> Result<ModelStore> {
        let manifest = match &self.manifest {
            Some(path) => Manifest::from_path(path)?,
            None => Manifest::builtin(),
        };
        let config = self.config.clone().or_else(find_config);
        Ok(ModelStore::configured(manifest, self.models_dir.as_deref(), config.as_deref())?)
    }

    /// How a model of this store is loaded.
    pub fn options(&self, store: &ModelStore, name: &str) -> LoadOptions {
        store.options_on(name, self.device)
    }
}

/// What to run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: FolderArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// Few prompts and the three usual models: under ten minutes on two cores.
    #[arg(long)]
    pub quick: bool,

    /// Questions with answers: SQuAD 1.1, 2.0 and its kin, records (JSON, JSON lines, CSV, TSV); without it, SQuAD's where
    /// `poq-models install squad` installed them.
    #[arg(long, value_name = "FILE")]
    pub squad: Option<PathBuf>,

    /// Prompts of your own, in any of the same forms: records of id, kind (qa or summarisation), context, question, references
    /// (or answers). All of them are used. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub items: Vec<PathBuf>,

    /// How many questions to draw [default: 160; with --quick 12].
    #[arg(long, value_name = "N")]
    pub qa: Option<usize>,

    /// How many summaries to draw, from all sets together [default: 80; with --quick 8].
    #[arg(long, value_name = "N")]
    pub summaries: Option<usize>,

    /// A language model to run; may be given several times. Without it, all that are installed.
    #[arg(long, value_name = "NAME")]
    pub model: Vec<String>,

    /// Decides which prompts are drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// 0 takes the most likely token each time; above, answers are sampled with the seed.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,

    /// The most tokens of an answer to a question.
    #[arg(long, default_value_t = 48)]
    pub qa_tokens: usize,

    /// The most tokens of a summary.
    #[arg(long, default_value_t = 96)]
    pub summary_tokens: usize,
}

/// With what to score.
#[derive(Debug, Clone, Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: FolderArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// An encoder to score with; may be given several times. Without it, all that are installed.
    #[arg(long, value_name = "NAME")]
    pub encoder: Vec<String>,

    /// A language model that grades outputs from 0 to 10: one that is installed, or with --judge-url the name of one there.
    #[arg(long, value_name = "MODEL")]
    pub judge: Option<String>,

    /// An OpenAI-compatible endpoint that the judge is asked at, for example http://127.0.0.1:8080/v1.
    #[arg(long, value_name = "URL", env = "POQ_JUDGE_URL")]
    pub judge_url: Option<url::Url>,

    /// A file with the endpoint's key.
    #[arg(long, value_name = "FILE", env = "POQ_JUDGE_KEY_FILE")]
    pub judge_key_file: Option<PathBuf>,

    /// What a million tokens cost there, read and written: `0.15,0.60`.
    #[arg(long, value_name = "READ,WRITTEN", value_parser = prices)]
    pub judge_prices: Option<(f64, f64)>,

    /// How many outputs a task is taken to have: each output is scored beside so many others less one. A live task has few.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub outputs: usize,

    /// Decides what cheats answer and which outputs stand beside which.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// How many prompts of each kind are judged; without it, all. A judge takes seconds an output.
    #[arg(long, value_name = "N")]
    pub judge_items: Option<usize>,
}

/// What to report.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: FolderArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// Where tables and plots go; without it, the folder `report` in the experiment's.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Where rubrics go as well, one file per kind.
    #[arg(long, value_name = "DIR")]
    pub rubrics: Option<PathBuf>,

    /// Decides which prompts are learnt from and which are held out, and the bootstrap's resamples.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// With what to score hostile outputs.
#[derive(Debug, Clone, Args)]
pub struct HostileArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// The rubric to score by; without it, the built-in one for questions.
    #[arg(long, value_name = "FILE")]
    pub rubric: Option<PathBuf>,

    /// An installed language model as a judge.
    #[arg(long, value_name = "MODEL")]
    pub judge: Option<String>,
}

/// Which model to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// An installed language model.
    #[arg(long, value_name = "NAME")]
    pub model: String,

    /// Where to listen. Anybody who reaches the address can use the model.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
}

/// Which texts.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,

    /// Pairs of texts, one JSON array of two strings a line.
    #[arg(value_name = "FILE")]
    pub pairs: PathBuf,
}

/// Which rubric.
#[derive(Debug, Clone, Args)]
pub struct RubricArgs {
    /// A rubric file; without it, the built-in ones are shown.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn rubric(args: &RubricArgs) -> Result<()> {
    let rubrics = match &args.file {
        Some(path) => vec![Rubric::from_path(path)?],
        None => TaskKind::ALL.into_iter().map(Rubric::builtin).collect(),
    };
    for rubric in rubrics {
        println!("{}  {}  for {}", rubric.hash()?, rubric.name, rubric.task);
        for profile in &rubric.profile {
            println!("    {}  {}", profile.digest, profile.model);
        }
    }
    Ok(())
}

fn prices(text: &str) -> std::result::Result<(f64, f64), String> {
    let number = |s: &str| s.trim().parse::<f64>().ok().filter(|n| *n >= 0.0 && n.is_finite());
    text.split_once(',')
        .and_then(|(read, written)| Some((number(read)?, number(written)?)))
        .ok_or_else(|| format!("`{text}` is not two prices with a comma between them"))
}

impl ExperimentArgs {
    /// How many threads the models of this command are to compute with.
    fn threads(&self) -> Option<usize> {
        match &self.command {
            ExperimentCommand::Run(args) => args.store.threads,
            ExperimentCommand::Score(args) => args.store.threads,
            ExperimentCommand::Report(args) => args.store.threads,
            ExperimentCommand::Hostile(args) => args.store.threads,
            ExperimentCommand::Rubric(_) => None,
            ExperimentCommand::Compare(args) => args.store.threads,
            ExperimentCommand::Serve(args) => args.store.threads,
        }
    }

    /// Does it. Blocks for as long as models compute: from async code call it through `spawn_blocking`.
    ///
    /// Sets `RAYON_NUM_THREADS` where `--threads` is given, so call it before any model has computed.
    ///
    /// # Errors
    /// What went wrong, in words that say what to do.
    pub fn execute(&self) -> Result<()> {
        match self.threads() {
            Some(0) => return Err(Error::Usage("--threads must be at least 1".to_string())),
            Some(threads) => configure_threads(threads),
            None => {}
        }
        match &self.command {
            ExperimentCommand::Run(args) => crate::run::run(args),
            ExperimentCommand::Score(args) => crate::score::score(args),
            ExperimentCommand::Report(args) => crate::report::report(args),
            ExperimentCommand::Hostile(args) => crate::hostile::hostile(args),
            ExperimentCommand::Rubric(args) => rubric(args),
            ExperimentCommand::Serve(args) => crate::serve::serve(args),
            ExperimentCommand::Compare(args) => crate::compare::compare(args),
        }
    }
}
