//! `poq index`: the network's history in a database.

use crate::cli::args::ReadArgs;
use crate::cli::exit::Usage;
use crate::cli::indexed::DbArg;
use crate::cli::output::{pairs, table, time};
use crate::cli::signal::stopped;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use poq_index::db::{Access, Workers};
use poq_index::follow::{Options, Progress};
use poq_index::{dump, Conn, Follower, Identity, Store, Target};
use serde_json::json;

/// `poq index`.
#[derive(Args, Debug)]
pub(crate) struct IndexArgs {
    /// Reads up to the last final block and ends, instead of going on with every new one.
    #[arg(long, conflicts_with = "follow")]
    once: bool,
    /// Goes on with every new final block until it is told to stop; so it does where nothing else is said.
    #[arg(long)]
    follow: bool,
    /// Makes everything that follows from the stored events anew, and ends; asks no node.
    #[arg(long, conflicts_with_all = ["once", "follow"])]
    rebuild: bool,
    /// Shows a hash of every table, the same for the same history in any database, and ends; asks no node.
    #[arg(long, conflicts_with_all = ["once", "follow", "rebuild"])]
    digest: bool,
    #[command(flatten)]
    db: DbArg,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `poq index`.
pub(crate) async fn run(args: IndexArgs) -> anyhow::Result<()> {
    let target = args.db.target()?;
    if args.digest {
        return digest(&args, target).await;
    }
    if args.rebuild {
        return rebuild(&args, target).await;
    }
    let session = args.read.contract().await?;
    let mut follower = Follower::open(session.client.clone(), &target, Options::default()).await?;
    let bar = bar(args.read.output.json);
    let mut told = |progress: Progress| {
        bar.set_length(progress.head.into());
        bar.set_position(progress.block.number.into());
        bar.set_message(format!("{} events", progress.events));
    };
    if !args.once {
        tracing::info!(database = %target, "indexing; stop with Ctrl-C");
        return tokio::select! {
            result = follower.follow(told) => Ok(result?),
            stopped = stopped() => stopped,
        };
    }
    let block = follower.once(&mut told).await?;
    bar.finish_and_clear();
    let events =
        follower.store().run(|store| Ok(store.ledger().map_or(0, |ledger| ledger.sums.events))).await?;
    args.read.printer().print(
        || json!({ "database": target.to_string(), "block": block.number, "hash": format!("{:?}", block.hash), "events": events }),
        || {
            pairs(&[
                ("index", target.to_string()),
                ("up to block", format!("{}, {}", block.number, time(block.at))),
                ("events", events.to_string()),
            ])
        },
    )
}

/// Shown on a terminal alone.
fn bar(json: bool) -> ProgressBar {
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("block {pos} of {len} {wide_bar} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Does something with a database that is there, on a thread of its own.
async fn on_thread<T: Send + 'static>(
    target: Target,
    access: Access,
    work: impl FnOnce(&mut Conn) -> poq_index::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    if !target.may_exist() {
        return Err(Usage(format!("there is no index at {target}")).into());
    }
    let workers = Workers::start("poq-db", 1, move || Conn::open(&target, access)).await?;
    Ok(workers.run(work).await?)
}

async fn rebuild(args: &IndexArgs, target: Target) -> anyhow::Result<()> {
    let name = target.to_string();
    let stored = target.clone();
    let database = name.clone();
    let identity = on_thread(target, Access::Read, move |conn| {
        // Whose it is can be read whatever is derived; the layout is checked by opening it.
        let text = poq_index::db::schema::meta(conn, "network")?;
        let identity = text.and_then(|text| serde_json::from_str::<Identity>(&text).ok());
        identity.ok_or(poq_index::Error::Empty { database })
    })
    .await?;
    let store = Workers::start("poq-index", 1, move || Store::open(&stored, &identity)).await?;
    let events = store
        .run(|store| {
            store.rebuild()?;
            Ok(store.ledger().map_or(0, |ledger| ledger.sums.events))
        })
        .await?;
    args.read.printer().print(
        || json!({ "database": name, "events": events }),
        || pairs(&[("index", name.clone()), ("derived anew from events", events.to_string())]),
    )
}

async fn digest(args: &IndexArgs, target: Target) -> anyhow::Result<()> {
    let digests = on_thread(target, Access::Read, dump::digests).await?;
    args.read.printer().print(
        || json!(digests),
        || {
            let mut rows = table(["table", "rows", "blake2b-256"], &[1]);
            for table in &digests.tables {
                rows.add_row([table.table.to_owned(), table.rows.to_string(), table.hash.clone()]);
            }
            format!("{rows}\nall  {}", digests.hash)
        },
    )
}
