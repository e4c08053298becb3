//! The command line: what is parsed here, one module per command.

mod advance;
mod amount;
mod args;
mod audit;
mod balance;
mod check;
mod claim;
mod connect;
mod demo;
mod deploy;
mod deployment;
#[cfg(feature = "embedded")]
mod devnet;
mod exit;
mod explain;
mod host;
mod keys;
mod logging;
mod node;
mod output;
mod owner;
mod params;
mod params_file;
mod send;
mod signal;
mod task;
mod treasury;
mod worker;

pub(crate) use args::{Cli, Command};
pub(crate) use exit::{exit_code, report};
pub(crate) use logging::logging;

/// Runs the command.
///
/// # Errors
/// What went wrong, with its causes; [`exit_code`] says what a script is to make of it.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Deploy(args) => deploy::run(args).await,
        Command::Node(command) => node::run(command).await,
        Command::Worker(command) => worker::run(command).await,
        Command::Task(command) => task::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Balance(args) => balance::run(args).await,
        Command::Claim(args) => claim::run(args).await,
        Command::Params(command) => params::run(command).await,
        Command::Treasury(command) => treasury::run(command).await,
        Command::Owner(command) => owner::run(command).await,
        Command::Advance(args) => advance::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Keys(command) => keys::run(command),
        #[cfg(feature = "embedded")]
        Command::Devnet(args) => devnet::run(args).await,
        Command::Simulate(args) => {
            tokio::task::spawn_blocking(move || poq_simulator::cli::run(args)).await?.map_err(Into::into)
        }
        Command::Demo(args) => demo::run(args).await,
    }
}
