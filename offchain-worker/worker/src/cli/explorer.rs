//! `poq explorer`: the network's history as pages, and as an API.

use crate::cli::args::Connection;
use crate::cli::exit::Usage;
use crate::cli::indexed::DbArg;
use crate::cli::signal::stopped;
use anyhow::Context;
use clap::Args;
use poq_explorer::{serve, Config};
use poq_index::follow::Options;
use poq_index::Follower;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use tokio::net::TcpListener;

/// `poq explorer`.
#[derive(Args, Debug)]
pub(crate) struct ExplorerArgs {
    /// Where the pages and the API are served.
    #[arg(
        long,
        env = "POQ_EXPLORER_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Keeps the index as well, as `poq index` does, from the chain that --url and --contract name: one process for all.
    #[arg(long)]
    follow: bool,
    /// How many requests one address may make per second, over time; four times as many at once.
    #[arg(long, value_name = "COUNT", default_value = "50")]
    per_second: NonZeroU32,
    /// Counts requests by X-Forwarded-For, where a proxy in front of this server sets it.
    #[arg(long)]
    forwarded: bool,
    #[command(flatten)]
    db: DbArg,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `poq explorer`.
pub(crate) async fn run(args: ExplorerArgs) -> anyhow::Result<()> {
    let target = args.db.target()?;
    let mut follower = None;
    if args.follow {
        let session = args.connection.contract().await?;
        follower = Some(Follower::open(session.client, &target, Options::default()).await?);
    } else if !target.may_exist() {
        let text = format!(
            "there is no index at {target}: `poq index --db {target}` makes one, and --follow keeps one in this process"
        );
        return Err(Usage(text).into());
    }
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let config = Config {
        per_second: args.per_second,
        burst: args.per_second.saturating_mul(NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN)),
        forwarded: args.forwarded,
        ..Config::new(target)
    };
    eprintln!("the explorer is at http://{address}");
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(config, listener, async {
        // Whoever holds the other end is gone: that is to stop, too.
        let _ = stopping.await;
    }));
    let following = async {
        match &mut follower {
            Some(follower) => Ok(follower.follow(|_| {}).await?),
            None => std::future::pending::<anyhow::Result<()>>().await,
        }
    };
    let mut serving = serving;
    tokio::select! {
        served = &mut serving => return Ok(served??),
        followed = following => followed?,
        stopped = stopped() => stopped?,
    }
    drop(stop);
    Ok(serving.await??)
}
