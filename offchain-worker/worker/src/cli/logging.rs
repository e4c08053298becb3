//! Log lines: on standard error, so that results on standard output stay clean.

use crate::cli::args::{Cli, Command};
use crate::cli::exit::Usage;
use crate::cli::worker::{self, WorkerCommand};
use poq_worker::config::{self, LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged by commands that are not `poq worker run`: what somebody has to know.
const QUIET: &str = "warn";
/// What is logged where a script reads standard error, or by the demonstration, whose workers come and go as they should: it tells their trouble itself.
const SILENT: &str = "error";

/// Starts logging as the flags or the worker's configuration ask for.
pub(crate) fn logging(cli: &Cli, json: bool) -> anyhow::Result<()> {
    let mut log = match &cli.command {
        // A configuration that cannot be read is reported by the command itself.
        Command::Worker(WorkerCommand::Run(args)) => {
            worker::load(args.config.clone().or_else(config::find_config), args)
                .map(|c| c.log)
                .unwrap_or_default()
        }
        Command::Demo(_) => LogConfig { format: LogFormat::Text, filter: SILENT.into() },
        _ => LogConfig { format: LogFormat::Text, filter: if json { SILENT } else { QUIET }.into() },
    };
    if let Some(filter) = &cli.log {
        log.filter.clone_from(filter);
    }
    let filter = EnvFilter::try_new(&log.filter).map_err(|e| {
        Usage(format!("the log filter '{}' is not one: {e}; write info or poq_chain=debug", log.filter))
    })?;
    // They tell the whole address of a node that is connected to, which may hold a key.
    let filter = ["jsonrpsee-client=info", "soketto=info"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
    }
    Ok(())
}
