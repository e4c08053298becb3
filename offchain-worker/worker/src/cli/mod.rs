//! The command line: one module per command, with its flags and what it does. `args` has the root and what commands share,
//! `order` what is asked before anything is sent.

mod advance;
mod amount;
mod args;
mod audit;
mod balance;
mod change;
mod check;
mod claim;
mod completions;
mod connect;
mod demo;
mod deploy;
mod deployment;
#[cfg(feature = "embedded")]
mod devnet;
mod exit;
mod explain;
mod explorer;
mod history;
mod host;
mod index;
mod indexed;
mod keys;
mod logging;
mod node;
mod order;
mod output;
mod owner;
mod params;
mod params_file;
mod pool;
mod replay;
mod rubric;
mod signal;
mod task;
mod transfer;
mod treasury;
mod worker;

pub(crate) use args::{Cli, Command};
pub(crate) use exit::{exit_code, report, report_json, usage_json};
pub(crate) use logging::logging;

/// Runs the command.
///
/// # Errors
/// What went wrong, with its causes; [`exit_code`] says what a script is to make of it.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Deploy(args) => deploy::run(args).await,
        Command::Node(command) => node::run(command).await,
        Command::Pool(command) => pool::run(command).await,
        Command::Worker(command) => worker::run(command).await,
        Command::Task(command) => task::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Index(args) => index::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Explorer(args) => explorer::run(args).await,
        Command::Balance(args) => balance::run(args).await,
        Command::Transfer(args) => transfer::run(args).await,
        Command::Claim(args) => claim::run(args).await,
        Command::Params(command) => params::run(command).await,
        Command::Treasury(command) => treasury::run(command).await,
        Command::Owner(command) => owner::run(command).await,
        Command::Advance(args) => advance::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Rubric(command) => rubric::run(command),
        Command::Experiment(args) => {
            tokio::task::spawn_blocking(move || args.execute()).await?.map_err(Into::into)
        }
        Command::Keys(command) => keys::run(command),
        #[cfg(feature = "embedded")]
        Command::Devnet(args) => devnet::run(args).await,
        Command::Simulate(args) => {
            tokio::task::spawn_blocking(move || poq_simulator::cli::run(args)).await?.map_err(Into::into)
        }
        Command::Demo(args) => demo::run(args).await,
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    }
}
