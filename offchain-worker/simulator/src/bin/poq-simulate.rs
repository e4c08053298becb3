//! `poq simulate` as a program of its own, which builds without the worker.

use clap::Parser;
use poq_simulator::cli::{run, SimulateArgs};
use std::process::ExitCode;

/// The adversary lab: simulates Proof-of-Quality networks, honest and attacked, on the contract's own arithmetic.
#[derive(Debug, Parser)]
#[command(name = "poq-simulate", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

fn main() -> ExitCode {
    match run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
