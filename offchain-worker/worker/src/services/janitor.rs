//! Forgets what is over: journal records and blobs of tasks that have long been final.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use poq_blobs::BlobId;
use poq_journal::{now_ms, Payload};

use super::inference::millis;
use super::{journal_error, Ctx, Served};
use crate::metrics;

pub(crate) const NAME: &str = "janitor";

/// How often the journal is measured.
const LOOK: Duration = Duration::from_secs(30);
/// How often something is thrown away, in looks: deleting is bounded by `limits.keep_finished`, which is days.
const SWEEP: u32 = 120;

/// Runs until told to stop.
pub(crate) async fn run(ctx: Arc<Ctx>) -> Served {
    let mut looks = 0u32;
    loop {
        ctx.board.beat(NAME);
        measure(&ctx)?;
        if looks.is_multiple_of(SWEEP) {
            sweep(&ctx).await?;
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = ctx.stop.now.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn measure(ctx: &Ctx) -> Served {
    let bytes = std::fs::metadata(ctx.journal.path()).map_or(0, |file| file.len());
    let open = ctx.journal.open_duties().map_err(|error| journal_error(&ctx.board, error))?;
    metrics::journal(bytes, open.len());
    Ok(())
}

async fn sweep(ctx: &Ctx) -> Served {
    let keep_for = ctx.config.limits.keep_finished;
    let before = now_ms().saturating_sub(millis(keep_for));
    let pruned = ctx.journal(move |journal| journal.prune(before)).await;
    let pruned = pruned.map_err(|error| journal_error(&ctx.board, error))?;
    tracing::debug!(?pruned, "journal pruned");
    let open = ctx.journal.open_duties().map_err(|error| journal_error(&ctx.board, error))?;
    let keep: HashSet<BlobId> = open
        .iter()
        .map(|record| match &record.payload {
            Payload::Output { hash, .. } => BlobId(*hash),
            Payload::Scores { report_hash, .. } => BlobId(*report_hash),
        })
        .collect();
    match ctx.store.sweep(keep_for, &keep).await {
        Ok(swept) => tracing::debug!(?swept, "blobs swept"),
        // Nothing that earns depends on it.
        Err(error) => tracing::warn!(%error, "old blobs cannot be deleted"),
    }
    Ok(())
}
