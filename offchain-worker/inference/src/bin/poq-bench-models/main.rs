//! Measures how fast models answer and score on this machine, beside llama.cpp, ONNX Runtime and sentence-transformers.
//! `scripts/bench.sh` calls it.
//!
//! Both sides take turns within one run, with the same inputs and the same number of threads: on a machine that others use
//! too, only the ratio of neighbouring measurements means something.

mod devices;
mod generate;
mod gpu;
mod peer;
mod score;

use clap::{Args, Parser, Subcommand};
use poq_inference::{configure_threads, models::find_config, DeviceSpec, Error, Manifest, ModelStore};
use std::{path::PathBuf, process::ExitCode};

/// Measures the speed of models, beside the programs that people would otherwise use.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tokens per second of language models, in prompts and in answers, beside llama.cpp.
    Generate(generate::Options),
    /// Texts and pairs per second of evaluators, beside ONNX Runtime and sentence-transformers.
    Score(score::Options),
    /// What differs between the ways in which this machine can compute: logits, answers, vectors, scores.
    Devices(devices::Options),
    /// Whether a card computes what the processor does, and how fast, beside PyTorch.
    GpuCheck(gpu::Options),
}

/// What both benchmarks are told.
#[derive(Args)]
struct Common {
    /// Names of models; with none, all that are installed.
    names: Vec<String>,

    /// The models folder.
    #[arg(long, env = "POQ_MODELS_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// A manifest of your own in place of the built-in one.
    #[arg(long, env = "POQ_MODELS_MANIFEST", value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// The configuration whose [[models]] sections say which models there are and how they are run.
    #[arg(long, env = "POQ_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Threads that each side computes with; the number of cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where our side computes, in place of what the configuration says: cpu, cuda:N, metal.
    #[arg(long, env = "POQ_DEVICE", value_name = "DEVICE")]
    device: Option<DeviceSpec>,

    /// How often each side is measured; medians are reported.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Write what was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The Python that has the other side's packages; without it, only our side is measured.
    #[arg(long, value_name = "FILE", requires = "peer")]
    python: Option<PathBuf>,

    /// The program of the other side, for that Python.
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
}

impl Common {
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores).max(1)
    }

    fn store(&self) -> Result<ModelStore, Error> {
        let manifest = match &self.manifest {
            Some(path) => Manifest::from_path(path)?,
            None => Manifest::builtin(),
        };
        let config = self.config.clone().or_else(find_config);
        ModelStore::configured(manifest, self.dir.as_deref(), config.as_deref())
    }

    /// Starts the other side, if there is one.
    fn start_peer(&self) -> Result<Option<peer::Peer>, Error> {
        match (&self.python, &self.peer) {
            (Some(python), Some(program)) => peer::Peer::start(python, program, self.threads()).map(Some),
            _ => Ok(None),
        }
    }

    fn write(&self, value: &serde_json::Value) -> Result<(), Error> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = format!("{value:#}\n");
        std::fs::write(path, text).map_err(|e| Error::Io { path: path.clone(), source: e })
    }
}

/// The middle value; the mean of the two middle ones where there are two. NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The median of the ratios of what was measured in the same round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let threads = match &cli.command {
        Command::Generate(options) => options.common.threads(),
        Command::Score(options) => options.common.threads(),
        Command::Devices(options) => options.common.threads(),
        Command::GpuCheck(options) => options.threads(),
    };
    // First of all: it sets an environment variable, and no other thread runs yet.
    configure_threads(threads);
    let result = match &cli.command {
        Command::Generate(options) => generate::run(options),
        Command::Score(options) => score::run(options),
        Command::Devices(options) => devices::run(options),
        Command::GpuCheck(options) => gpu::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        // One slow round of both sides does not move the ratio.
        assert_eq!(ratio(&[10.0, 1.0, 10.0], &[5.0, 0.5, 5.0]), 2.0);
    }
}
