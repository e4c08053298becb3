//! Runs what the command line asks for.

use poq_runtime::opaque::Block;
use sc_cli::SubstrateCli;
use sc_network::{config::NetworkBackendType, Litep2pNetworkBackend, NetworkWorker};

use crate::{
    chain_spec,
    cli::{Cli, Subcommand},
    service,
};

impl SubstrateCli for Cli {
    fn impl_name() -> String {
        "PoQ development node".into()
    }

    fn impl_version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn description() -> String {
        env!("CARGO_PKG_DESCRIPTION").into()
    }

    fn author() -> String {
        "the Proof of Quality authors".into()
    }

    fn support_url() -> String {
        concat!(env!("CARGO_PKG_REPOSITORY"), "/issues").into()
    }

    fn copyright_start_year() -> i32 {
        2026
    }

    fn load_spec(&self, id: &str) -> Result<Box<dyn sc_service::ChainSpec>, String> {
        Ok(match id {
            // `local` is what export-chain-spec asks for by default.
            "" | "dev" | "local" => Box::new(chain_spec::development()?),
            path => Box::new(chain_spec::ChainSpec::from_json_file(path.into())?),
        })
    }

    fn setup_command(command: clap::Command) -> clap::Command {
        command
            .name(Self::executable_name())
            .version(Self::impl_version())
            .author(Self::author())
            .after_help(format!("Support: {}", Self::support_url()))
            .propagate_version(true)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            // The fork-aware pool answers a submission only after a view of the best block is built; with one node and no
            // forks that is nothing but delay.
            .mut_arg("pool_type", |argument| argument.default_value("single-state"))
    }
}

/// Parses the command line and does it.
pub(crate) fn run() -> sc_cli::Result<()> {
    let mut cli = Cli::from_args();
    let shared = &mut cli.run.shared_params;
    if shared.chain.is_none() {
        shared.dev = true;
    }
    if shared.log.is_empty() {
        // What contracts print, without a line for every block.
        shared.log = ["runtime::contracts=debug", "sc_cli=info", "sc_rpc_server=info", "warn"]
            .map(str::to_owned)
            .to_vec();
    }

    match &cli.subcommand {
        Some(Subcommand::Key(command)) => command.run(&cli),
        Some(Subcommand::ExportChainSpec(command)) => command.run(cli.load_spec(&command.chain)?),
        #[allow(deprecated)]
        Some(Subcommand::BuildSpec(command)) => {
            let runner = cli.create_runner(command)?;
            runner.sync_run(|config| command.run(config.chain_spec, config.network))
        }
        Some(Subcommand::CheckBlock(command)) => {
            let runner = cli.create_runner(command)?;
            runner.async_run(|config| {
                let parts = service::new_partial(&config)?;
                Ok((command.run(parts.client, parts.import_queue), parts.task_manager))
            })
        }
        Some(Subcommand::ExportBlocks(command)) => {
            let runner = cli.create_runner(command)?;
            runner.async_run(|config| {
                let parts = service::new_partial(&config)?;
                Ok((command.run(parts.client, config.database), parts.task_manager))
            })
        }
        Some(Subcommand::ExportState(command)) => {
            let runner = cli.create_runner(command)?;
            runner.async_run(|config| {
                let parts = service::new_partial(&config)?;
                Ok((command.run(parts.client, config.chain_spec), parts.task_manager))
            })
        }
        Some(Subcommand::ImportBlocks(command)) => {
            let runner = cli.create_runner(command)?;
            runner.async_run(|config| {
                let parts = service::new_partial(&config)?;
                Ok((command.run(parts.client, parts.import_queue), parts.task_manager))
            })
        }
        Some(Subcommand::PurgeChain(command)) => {
            let runner = cli.create_runner(command)?;
            runner.sync_run(|config| command.run(config.database))
        }
        Some(Subcommand::Revert(command)) => {
            let runner = cli.create_runner(command)?;
            runner.async_run(|config| {
                let parts = service::new_partial(&config)?;
                Ok((command.run(parts.client, parts.backend, None), parts.task_manager))
            })
        }
        Some(Subcommand::ChainInfo(command)) => {
            let runner = cli.create_runner(command)?;
            runner.sync_run(|config| command.run::<Block>(&config))
        }
        None => {
            let runner = cli.create_runner(&cli.run)?;
            let (consensus, delay_s) = (cli.consensus, u64::from(cli.finalize_delay_sec));
            runner.run_node_until_exit(|config| async move {
                match config.network.network_backend {
                    NetworkBackendType::Libp2p => {
                        service::new_full::<NetworkWorker<_, _>>(config, consensus, delay_s)
                    }
                    NetworkBackendType::Litep2p => {
                        service::new_full::<Litep2pNetworkBackend>(config, consensus, delay_s)
                    }
                }
                .map_err(sc_cli::Error::Service)
            })
        }
    }
}
