//! `poq devnet`: a development chain in this process, served on a websocket.

use crate::cli::args::DevnetArgs;
use crate::cli::output::write_out;
use crate::cli::signal::stopped;
use anyhow::Context;
use poq_sandbox::{SandboxConfig, SandboxNode, Sealing};

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
    stopped().await?;
    drop(server);
    Ok(())
}
