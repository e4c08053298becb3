//! Installs, adds and checks the models that Proof of Quality nodes run: `poq models` without the rest of `poq`.
//! `scripts/install-models.sh` calls it.

use clap::Parser;
use poq_inference::cli::ModelsCommand;
use std::process::ExitCode;

/// Installs, adds, checks and measures the models that Proof of Quality nodes run.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: ModelsCommand,
}

fn main() -> ExitCode {
    match Cli::parse().command.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
