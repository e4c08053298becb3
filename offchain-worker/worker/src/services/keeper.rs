//! Moves tasks on whose next step is due: draws panels, settles, refunds. Anyone may; somebody must, or nobody is paid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poq_chain::types::{Step, TaskId, TaskView, MAX_BATCH, TASKS_PAGE, TASKS_SCAN};
use poq_chain::{messages, ContractError, Submitter, View};

use super::{class_label, Ctx, Served};
use crate::health::About;
use crate::metrics;

pub(crate) const NAME: &str = "keeper";

/// Pages of older tasks per round: the backlog of a first start is worked off beside the present.
const OLD_PAGES: usize = 5;
/// The first pause before a step that could not be done is tried again; it doubles up to [`AGAIN_MOST`], which leaves several
/// attempts within the time that a panel may take to be drawn.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(15);
/// The first pause after a failed transaction; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Finds open tasks: new ones as they come, and those from before this process, newest first.
#[derive(Debug, Default)]
struct Scan {
    /// Numbers from `low` to `high` have been looked at; 0 for none.
    low: TaskId,
    high: TaskId,
    open: BTreeSet<TaskId>,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    step: Step,
    /// When this keeper acts.
    at: Instant,
    /// How often it could not.
    failures: u32,
}

/// Runs until told to stop. Goes on while duties drain: they need it.
pub(crate) async fn run(ctx: Arc<Ctx>, submitter: Submitter) -> Served {
    let mut head = ctx.head.clone();
    let mut scan = Scan::default();
    let mut pending: BTreeMap<TaskId, Pending> = BTreeMap::new();
    let mut failures = 0u32;
    let mut not_before = Instant::now();
    loop {
        ctx.board.beat(NAME);
        let mut wake = Instant::now() + ctx.config.chain.poll_interval;
        if not_before <= Instant::now() {
            match round(&ctx, &submitter, &mut scan, &mut pending).await {
                Ok(next) => {
                    failures = 0;
                    wake = next.map_or(wake, |next| next.min(wake));
                }
                Err(error) => {
                    failures += 1;
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(MAX_PAUSE);
                    not_before = Instant::now() + pause;
                    wake = not_before;
                    metrics::call_failed("advance", class_label(&error));
                    if matches!(error, poq_chain::Error::InsufficientFunds { .. }) {
                        let text = format!("the keeper cannot pay: {error}");
                        ctx.board.set(About::Balance(submitter.account().to_string()), text);
                    }
                    tracing::warn!(%error, ?pause, "the keeper could not do its round");
                }
            }
        } else {
            wake = not_before;
        }
        tokio::select! {
            () = ctx.stop.now.cancelled() => return Ok(()),
            changed = head.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
}

/// One look at everything. Returns when to look again even without a new block.
async fn round(
    ctx: &Ctx,
    submitter: &Submitter,
    scan: &mut Scan,
    pending: &mut BTreeMap<TaskId, Pending>,
) -> poq_chain::error::Result<Option<Instant>> {
    let view = ctx.client.view().await?;
    let tasks = look(&view, scan).await?;
    let block = view.block();
    // What can be done is done in the next block, which has the present time and the next number.
    let (now, next_block) = (ctx.clock.now().max(block.timestamp_ms), block.number.saturating_add(1));
    let due: Vec<(TaskId, Step)> = tasks
        .iter()
        .filter_map(|view| {
            let step = view.task.clock().step(now, next_block);
            (!matches!(step, Step::Wait { .. } | Step::WaitForBlock | Step::Done)).then_some((view.id, step))
        })
        .collect();
    let instant = Instant::now();
    pending.retain(|task, _| due.iter().any(|(id, _)| id == task));
    for (task, step) in &due {
        let fresh = pending.get(task).is_none_or(|known| known.step != *step);
        if fresh {
            let delay = delay(*task, *step, &submitter.account().0, ctx.config.keeper.max_delay);
            pending.insert(*task, Pending { step: *step, at: instant + delay, failures: 0 });
        }
    }
    let ripe: Vec<TaskId> = pending
        .iter()
        .filter(|(_, pending)| pending.at <= instant)
        .map(|(task, _)| *task)
        .take(MAX_BATCH)
        .collect();
    let mut wake = pending.values().map(|pending| pending.at).filter(|at| *at > instant).min();

    if !ripe.is_empty() {
        // A draw that failed comes out the same until there is another block, which on a chain that seals on demand nobody
        // else may make.
        let failed = ripe.iter().filter_map(|task| pending.get(task)).any(|pending| pending.failures > 0);
        if failed {
            submitter.next_block().await?;
        }
        let done = advance(submitter, &ripe).await?;
        for (task, result) in ripe.iter().zip(done) {
            match result {
                Ok(step) => {
                    tracing::info!(task, ?step, "moved on");
                    metrics::keeper_step(label(step));
                    pending.remove(task);
                }
                Err(error) => {
                    tracing::info!(task, %error, "cannot be moved on now");
                    if let Some(pending) = pending.get_mut(task) {
                        pending.failures += 1;
                        pending.at = instant + again(pending.failures);
                        wake = Some(wake.map_or(pending.at, |at| at.min(pending.at)));
                    }
                }
            }
        }
    }
    Ok(wake)
}

/// Sends what would do something, in one transaction. A result per task.
///
/// The dry run sees the best block's time and number, so that a task which only waits for the next block is "too early" in it:
/// the submitter then waits for that block, or has a chain that stands still make one.
async fn advance(
    submitter: &Submitter,
    tasks: &[TaskId],
) -> poq_chain::error::Result<Vec<Result<Step, ContractError>>> {
    let mut results = submitter.dry_run(&messages::advance(tasks.to_vec())).await?.value;
    let useful: Vec<usize> = results
        .iter()
        .enumerate()
        .filter(|(_, result)| matches!(result, Ok(_) | Err(ContractError::TooEarly)))
        .map(|(place, _)| place)
        .collect();
    if useful.is_empty() {
        return Ok(results);
    }
    let begun = Instant::now();
    let ids = useful.iter().filter_map(|place| tasks.get(*place).copied()).collect();
    let receipt = submitter.send(messages::advance(ids)).await?;
    metrics::call_succeeded("advance", useful.len(), begun.elapsed());
    for (place, result) in useful.into_iter().zip(receipt.value) {
        if let Some(slot) = results.get_mut(place) {
            *slot = result;
        }
    }
    Ok(results)
}

/// The open tasks.
async fn look(view: &View, scan: &mut Scan) -> poq_chain::error::Result<Vec<TaskView>> {
    let count = view.task_count().await?;
    if scan.high > count {
        // The chain was started anew.
        *scan = Scan::default();
    }
    let mut seen: BTreeMap<TaskId, TaskView> = BTreeMap::new();
    if scan.high == 0 {
        scan.low = count.saturating_add(1);
        scan.high = count;
    }
    // New ones.
    while scan.high < count {
        let next = range(view, scan.high.saturating_add(1), count, &mut seen).await?;
        scan.high = next.max(scan.high.saturating_add(1)).min(count);
    }
    // Older ones, downwards.
    for _ in 0..OLD_PAGES {
        if scan.low <= 1 {
            break;
        }
        let from = scan.low.saturating_sub(TASKS_SCAN).max(1);
        let mut at = from;
        while at < scan.low {
            at = range(view, at, scan.low.saturating_sub(1), &mut seen).await?.saturating_add(1);
        }
        scan.low = from;
    }
    scan.open.extend(seen.values().filter(|view| !view.task.phase.is_final()).map(|view| view.id));
    // Those known from before.
    let mut tasks = Vec::new();
    for id in scan.open.clone() {
        let found = match seen.remove(&id) {
            Some(found) => Some(found),
            None => view.task(id).await?,
        };
        match found {
            Some(found) if !found.task.phase.is_final() => tasks.push(found),
            _ => {
                scan.open.remove(&id);
            }
        }
    }
    Ok(tasks)
}

/// One page from `from`, of numbers up to `to`. Returns the last number that has been looked at.
async fn range(
    view: &View,
    from: TaskId,
    to: TaskId,
    seen: &mut BTreeMap<TaskId, TaskView>,
) -> poq_chain::error::Result<TaskId> {
    let page = view.tasks(from, TASKS_PAGE).await?;
    let last = page.last().map(|view| view.id);
    seen.extend(page.into_iter().filter(|view| view.id <= to).map(|view| (view.id, view)));
    // A page that has something may have ended with it, however short it is; only an empty one has looked at all its numbers.
    Ok(last.unwrap_or_else(|| from.saturating_add(TASKS_SCAN).saturating_sub(1)).min(to))
}

fn again(failures: u32) -> Duration {
    AGAIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(AGAIN_MOST)
}

/// How long this keeper leaves a step to others: different for every account, the same whenever it is asked.
fn delay(task: TaskId, step: Step, account: &[u8; 32], most: Duration) -> Duration {
    let seed = poq_journal::blake2_256(&[&task.to_le_bytes()[..], label(step).as_bytes(), account].concat());
    let [a, b, c, d, ..] = seed;
    most.mul_f64(f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX))
}

fn label(step: Step) -> &'static str {
    match step {
        Step::Wait { .. } | Step::WaitForBlock => "wait",
        Step::Draw => "draw",
        Step::Settle => "settle",
        Step::Redraw => "redraw",
        Step::RefundUndelivered => "refund_undelivered",
        Step::RefundUndrawn => "refund_undrawn",
        Step::RefundBelowQuorum => "refund_below_quorum",
        Step::Done => "done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepers_wait_for_different_times_within_the_limit() {
        let most = Duration::from_secs(2);
        let delays: BTreeSet<Duration> = (0..8).map(|n| delay(1, Step::Draw, &[n; 32], most)).collect();
        assert_eq!(delays.len(), 8);
        assert!(delays.iter().all(|delay| *delay <= most));
        assert_eq!(delay(1, Step::Draw, &[1; 32], most), delay(1, Step::Draw, &[1; 32], most));
        assert_ne!(delay(1, Step::Draw, &[1; 32], most), delay(1, Step::Settle, &[1; 32], most));
    }
}
