//! `poq devnet`: a development chain in this process, served on a websocket.

use crate::cli::args::duration;
use crate::cli::output::write_out;
use crate::cli::signal::stopped;
use anyhow::Context;
use clap::Args;
use poq_sandbox::{SandboxConfig, SandboxNode, Sealing};
use poq_worker::endpoint::check_listen;

use std::net::SocketAddr;
use std::time::Duration;

/// `poq devnet`.
#[derive(Args, Debug)]
pub(crate) struct DevnetArgs {
    /// Where to serve the chain; port 0 takes a free one.
    #[arg(long, env = "POQ_DEVNET_LISTEN", hide_env_values = true, value_name = "IP:PORT", default_value = "127.0.0.1:9944", value_parser = check_listen)]
    listen: SocketAddr,
    /// Seals a block every so often instead of whenever there is a transaction.
    #[arg(long, env = "POQ_DEVNET_BLOCK_TIME", hide_env_values = true, value_name = "DURATION", value_parser = duration)]
    block_time: Option<Duration>,
    /// How many blocks of old state can be read.
    #[arg(
        long,
        env = "POQ_DEVNET_HISTORY",
        hide_env_values = true,
        value_name = "BLOCKS",
        default_value_t = 4096
    )]
    history: u32,
}

/// Runs `poq devnet` until it is told to stop.
pub(crate) async fn run(args: DevnetArgs) -> anyhow::Result<()> {
    let live = SandboxConfig::live();
    let sealing = args.block_time.map_or(live.sealing, Sealing::Interval);
    let config = SandboxConfig { sealing, history_blocks: args.history, ..live };
    let node = SandboxNode::start(config).context("the chain in this process")?;
    let server =
        node.serve_ws(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    // Scripts wait for this line.
    write_out(&format!("listening on {}", server.url()))?;
    // Not on standard output: what scripts wait for stands alone there.
    eprintln!(
        "Alice, Bob, Charlie, Dave, Eve and Ferdie have money here: `poq keys dev alice.key` writes Alice's key, \
         `poq transfer ACCOUNT AMOUNT --key-file alice.key` gives some to another account."
    );
    stopped().await?;
    drop(server);
    Ok(())
}
