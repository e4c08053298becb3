//! `poq replay`: every settlement of the network's history computed again.

use crate::cli::args::ReadArgs;
use crate::cli::exit::Difference;
use crate::cli::indexed::{DbArg, Index};
use crate::cli::output::{pairs, time};
use clap::Args;
use poq_index::ledger::Finding;
use poq_index::replay::{against_chain, replay};
use serde_json::json;
use std::time::Instant;

/// `poq replay`.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Shows at most so many differences, the first one first.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// Compares the books at the end with the chain's own records too: every node, and what the contract owes. The node must still have
    /// the state of the index's last block.
    #[arg(long)]
    chain: bool,
    #[command(flatten)]
    db: DbArg,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `poq replay`.
pub(crate) async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let index = Index::open(&args.db.target()?).await?;
    let started = Instant::now();
    let most = args.limit.max(1);
    let (mut report, ledger) = index
        .work(move |reads, conn| {
            let identity = reads.identity().clone();
            replay(conn, &identity, most, |block, settlements| {
                tracing::info!(block = block.number, settlements, "replayed");
            })
        })
        .await?;
    let elapsed = started.elapsed();
    if args.chain {
        let session = args.read.contract().await?;
        // The books are of the last block that was read, whether anything happened in it or not.
        let tip = index.ask(|reads, conn| Ok(reads.status(conn)?.tip)).await?;
        if let Some(tip) = tip {
            let client = &session.client;
            let block = client.block(tip.number).await?;
            anyhow::ensure!(
                format!("{:?}", block.hash) == tip.hash,
                "block {} of the chain at {} is another one than the index has: `poq index --once` brings it up to date",
                tip.number,
                client.endpoint()
            );
            let found = against_chain(client, &ledger, block.into()).await?;
            report.different = report.different.saturating_add(found.len() as u64);
            report.differences.extend(found);
            report.differences.truncate(most);
        }
    }
    args.read.printer().print(
        || {
            let mut value = json!(report);
            value["agrees"] = json!(report.agrees());
            value["milliseconds"] = json!(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            value
        },
        || {
            let block = report.block.map(|block| format!("{}, {}", block.number, time(block.at)));
            let head = pairs(&[
                ("up to block", block.unwrap_or_default()),
                ("events", report.events.to_string()),
                ("settlements computed again", report.settlements.to_string()),
                ("references computed again", report.references.to_string()),
                ("took", format!("{:.1} s", elapsed.as_secs_f64())),
                ("differences", report.different.to_string()),
            ]);
            let found: String = report.differences.iter().map(shown).collect();
            match report.agrees() {
                true => format!("{head}\n\nEvery settlement agrees, to the unit."),
                false => format!("{head}\n\nNUMBERS DIFFER. The first ones:{found}"),
            }
        },
    )?;
    match report.differences.first() {
        None => Ok(()),
        Some(first) => {
            let text = format!("{} differences; the first one:{}", report.different, shown(first));
            Err(Difference(text).into())
        }
    }
}

fn shown(finding: &Finding) -> String {
    let Finding { block, index, task, check, what, expected, found } = finding;
    let task = task.map(|task| format!(", task {task}")).unwrap_or_default();
    format!("\n  block {block}, event {index}{task}: {what} ({check}): should be {expected}, is {found}")
}
