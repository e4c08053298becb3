//! `poq`: the command line of Proof of Quality.

mod cli;

use clap::Parser;
use cli::{exit_code, report, Cli};
use std::process::ExitCode;
use std::time::Duration;

/// How long threads that are at work (models, mostly) may take when the command is done.
const SHUTDOWN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = cli::logging(&cli).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(cli::run(cli.command));
        runtime.shutdown_timeout(SHUTDOWN);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", report(&error));
            exit_code(&error)
        }
    }
}
