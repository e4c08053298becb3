//! Moves tasks on whose next step is due: fills panels, settles, ends what failed. Anyone may; somebody must, or nobody is paid.
//!
//! A step pays nothing when it falls due and more the longer nobody takes it. So this keeper waits until it is worth its
//! transaction, and others do the same: whoever can do it for the least goes first. Panels are not drawn here: that takes the
//! requester's secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poq_chain::types::{Balance, Millis, Step, Task, TaskId, TaskView, MAX_BATCH, TASKS_PAGE, TASKS_SCAN};
use poq_chain::{messages, ContractError, Submitter, View};
use poq_core::params::KEEPER_STEPS;
use poq_core::task::Refusal;

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
/// How often it is looked whether a step pays by now: a fraction of the least time that its fee takes to rise.
const LOOK: Duration = Duration::from_secs(3);
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

/// A step that could be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    step: Step,
    /// What it pays.
    pays: Balance,
    /// Whether it is done whatever it pays: it will not pay more, and nodes of this worker wait for their money.
    anyway: bool,
}

impl Due {
    fn of(task: &Task, nodes: &BTreeSet<u32>, now: Millis) -> Option<Due> {
        let clock = task.clock();
        let step = clock.step(now);
        if !matches!(step, Step::Fill | Step::Settle | Step::End(_)) {
            return None;
        }
        let pays = match task.keeper_steps >= KEEPER_STEPS {
            true => 0,
            false => clock.keeper_fee(task.terms.keeper_fee, now),
        };
        let own = task.outputs.iter().map(|slot| slot.node).chain(task.panel.iter().map(|seat| seat.node));
        let own = own.into_iter().any(|node| nodes.contains(&node));
        // Filling empty seats ends when the fee is at its highest: half of that time must do.
        let patience = if step == Step::Fill { task.terms.draw_ms / 2 } else { task.terms.draw_ms };
        let late = now.saturating_sub(clock.due_since(now)) >= patience;
        Some(Due { step, pays, anyway: own && late })
    }
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
    // What a transaction last cost per step.
    let mut costs = 0;
    loop {
        ctx.board.beat(NAME);
        let mut wake = Instant::now() + ctx.config.chain.poll_interval;
        if not_before <= Instant::now() {
            match round(&ctx, &submitter, &mut scan, &mut pending, &mut costs).await {
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
    costs: &mut Balance,
) -> poq_chain::error::Result<Option<Instant>> {
    let view = ctx.client.view().await?;
    let tasks = look(&view, scan).await?;
    let block = view.block();
    // What can be done is done in the next block, which has the present time.
    let now = ctx.clock.now().max(block.timestamp_ms);
    let own: BTreeSet<u32> = ctx.config.nodes.iter().map(|node| node.id).collect();
    let due: BTreeMap<TaskId, Due> =
        tasks.iter().filter_map(|view| Some((view.id, Due::of(&view.task, &own, now)?))).collect();
    let instant = Instant::now();
    pending.retain(|task, _| due.contains_key(task));
    for (task, due) in &due {
        let fresh = pending.get(task).is_none_or(|known| known.step != due.step);
        if fresh {
            let delay = delay(*task, due.step, &submitter.account().0, ctx.config.keeper.max_delay);
            pending.insert(*task, Pending { step: due.step, at: instant + delay, failures: 0 });
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
        // What failed comes out the same until there is another block, which on a chain that seals on demand nobody else may
        // make.
        let failed = ripe.iter().filter_map(|task| pending.get(task)).any(|pending| pending.failures > 0);
        if failed {
            submitter.next_block().await?;
        }
        let margin = Balance::from(ctx.config.keeper.margin_percent);
        let done = advance(submitter, &ripe, &due, margin, costs).await?;
        for (task, result) in ripe.iter().zip(done) {
            let Some(pending_step) = pending.get_mut(task) else { continue };
            match result {
                Done::Moved(step) => {
                    tracing::info!(task, ?step, "moved on");
                    metrics::keeper_step(label(step));
                    pending.remove(task);
                    continue;
                }
                Done::TooCheap => pending_step.at = instant + LOOK,
                Done::Refused(error) => {
                    tracing::info!(task, %error, "cannot be moved on now");
                    pending_step.failures += 1;
                    pending_step.at = instant + again(pending_step.failures);
                }
            }
            let at = pending_step.at;
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
    }
    Ok(wake)
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Moved(Step),
    /// It does not pay for its transaction yet.
    TooCheap,
    Refused(ContractError),
}

/// Sends what would do something and pays for itself, in one transaction. A result per task.
///
/// The dry run sees the best block's time, so that a task which only waits for the next block is "too early" in it: the submitter
/// then waits for that block, or has a chain that stands still make one.
async fn advance(
    submitter: &Submitter,
    tasks: &[TaskId],
    due: &BTreeMap<TaskId, Due>,
    margin: Balance,
    costs: &mut Balance,
) -> poq_chain::error::Result<Vec<Done>> {
    const EARLY: ContractError = ContractError::Task(Refusal::TooEarly);
    let quote = match submitter.quote(&messages::advance(tasks.to_vec())).await {
        Ok(quote) => quote,
        // All of them: nothing is due that was thought to be.
        Err(error) => match error.rejection() {
            Some(refusal) => return Ok(tasks.iter().map(|_| Done::Refused(refusal)).collect()),
            None => return Err(error),
        },
    };
    let dry = quote.value.unwrap_or_else(|| tasks.iter().map(|_| Err(EARLY)).collect());
    let useful: Vec<(usize, TaskId)> = tasks
        .iter()
        .copied()
        .enumerate()
        .filter(|(place, _)| matches!(dry.get(*place), Some(Ok(_) | Err(EARLY))))
        .collect();
    let refused =
        |place: usize| Done::Refused(dry.get(place).copied().and_then(Result::err).unwrap_or(EARLY));
    let mut results: Vec<Done> = (0..tasks.len()).map(refused).collect();
    let of = |(_, task): &(usize, TaskId)| due.get(task).copied();
    let items = Balance::try_from(useful.len()).unwrap_or(Balance::MAX);
    if let Some(fee) = quote.cost.fee {
        *costs = fee / Balance::try_from(tasks.len()).unwrap_or(1).max(1);
    }
    let pays = useful.iter().filter_map(of).fold(0, |sum: Balance, due| sum.saturating_add(due.pays));
    let needed = costs.saturating_mul(items).saturating_mul(margin) / 100;
    let anyway = useful.iter().filter_map(of).any(|due| due.anyway);
    if useful.is_empty() {
        return Ok(results);
    }
    if pays < needed && !anyway {
        tracing::debug!(pays, needed, tasks = useful.len(), "not worth a transaction yet");
        for (place, _) in useful {
            if let Some(result) = results.get_mut(place) {
                *result = Done::TooCheap;
            }
        }
        return Ok(results);
    }
    let begun = Instant::now();
    let receipt = submitter.send(messages::advance(useful.iter().map(|(_, task)| *task).collect())).await?;
    metrics::call_succeeded("advance", useful.len(), begun.elapsed());
    for ((place, _), moved) in useful.into_iter().zip(receipt.value) {
        if let Some(result) = results.get_mut(place) {
            *result = moved.map_or_else(Done::Refused, Done::Moved);
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
        Step::Wait { .. } => "wait",
        Step::Draw { .. } => "draw",
        Step::Fill => "fill",
        Step::Settle => "settle",
        Step::End(_) => "end",
        Step::Done => "done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duty::tests::{seat, slot, task};
    use poq_chain::types::{OutputState, Phase, SeatState};

    #[test]
    fn a_step_pays_more_the_longer_it_waits_and_is_done_anyway_for_own_nodes() {
        let panel = || vec![seat(3, SeatState::Committed), seat(4, SeatState::Drawn)];
        let mut task = task(Phase::Scoring, 200, vec![slot(1, OutputState::Opened)], panel());
        task.terms.keeper_fee = 800;
        let (none, own) = (BTreeSet::new(), BTreeSet::from([3]));
        assert_eq!(Due::of(&task, &none, 200), None);
        let fill = |pays, anyway| Some(Due { step: Step::Fill, pays, anyway });
        assert_eq!(Due::of(&task, &none, 201), fill(10, false));
        assert_eq!(Due::of(&task, &own, 239), fill(390, false));
        assert_eq!(Due::of(&task, &own, 240), fill(400, true));
        assert_eq!(Due::of(&task, &none, 280), fill(800, false));
        task.keeper_steps = KEEPER_STEPS;
        assert_eq!(Due::of(&task, &own, 280), fill(0, true));
        // A panel is the requester's to draw.
        task.phase = Phase::Drawing;
        task.deadline = 300;
        assert_eq!(Due::of(&task, &own, 250), None);
    }

    #[test]
    fn keepers_wait_for_different_times_within_the_limit() {
        let most = Duration::from_secs(2);
        let delays: BTreeSet<Duration> = (0..8).map(|n| delay(1, Step::Fill, &[n; 32], most)).collect();
        assert_eq!(delays.len(), 8);
        assert!(delays.iter().all(|delay| *delay <= most));
        assert_eq!(delay(1, Step::Fill, &[1; 32], most), delay(1, Step::Fill, &[1; 32], most));
        assert_ne!(delay(1, Step::Fill, &[1; 32], most), delay(1, Step::Settle, &[1; 32], most));
    }
}
