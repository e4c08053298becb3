//! `poq`: the command line of Proof of Quality.

mod cli;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use cli::{exit_code, report, report_json, usage_json, Cli};
use std::process::ExitCode;
use std::time::Duration;

/// How long threads that are at work (models, mostly) may take when the command is done.
const SHUTDOWN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
        Ok((cli, wants_json(&matches)))
    });
    let (cli, json) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") => {
            eprintln!("{}", usage_json(&error));
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX));
        }
        Err(error) => error.exit(),
    };
    let result = cli::logging(&cli, json).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(cli::run(cli.command));
        runtime.shutdown_timeout(SHUTDOWN);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", if json { report_json(&error) } else { report(&error) });
            exit_code(&error)
        }
    }
}

/// Whether the command that was given has the flag `--json` (not an option of that name that takes a file) and got it.
fn wants_json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, inner)) => wants_json(inner),
        None => matches.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false),
    }
}
