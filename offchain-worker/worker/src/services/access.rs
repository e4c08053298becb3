//! Who may fetch which blob, decided by what the chain says.
//!
//! | what | to whom | from when |
//! |---|---|---|
//! | input | requester, inference nodes, panel | the request |
//! | opening | requester | the outputs are sealed for good, so that no answer can be changed any more by whoever knows the seed |
//! | output | panel | the draw |
//! | output | requester | all scores are committed, or the task is over; the draw where the requester asked for that |
//! | reveal | everybody | the scores are committed for good, so that nobody can copy one |
//! | report | requester, panel | revealed |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use poq_blobs::{Access, AccessError, AccessRequest, Decision, Resource};
use poq_chain::types::{Millis, NodeId, OutputState, Phase, SeatState, Task, TaskId, TaskView};
use poq_chain::{to_account32, AccountId32, View};

use super::Ctx;
use crate::duty::{closed, sealed, Closing};

/// How long a task or an operator is believed without asking again. Operators change by hand; a task's phase is asked anew
/// with every block.
const FRESH: Duration = Duration::from_secs(2);
const OPERATOR_FRESH: Duration = Duration::from_secs(60);
/// Entries beyond which the caches are emptied: they only save repeated questions.
const CACHE: usize = 4_096;
/// What a client is told to wait where the deadline is further away: answers mostly come earlier.
const RETRY: Duration = Duration::from_secs(5);

/// A task as seen at a block, at a time.
type Seen = (u32, Instant, Option<Arc<TaskView>>);

/// Decides with chain data, cached for a block.
pub(crate) struct ChainAccess {
    ctx: Arc<Ctx>,
    tasks: Mutex<HashMap<TaskId, Seen>>,
    operators: Mutex<HashMap<NodeId, (Instant, Option<AccountId32>)>>,
}

impl ChainAccess {
    pub(crate) fn new(ctx: Arc<Ctx>) -> Self {
        ChainAccess { ctx, tasks: Mutex::default(), operators: Mutex::default() }
    }

    async fn task(&self, id: TaskId) -> Result<Option<Arc<TaskView>>, AccessError> {
        let head = self.ctx.head.borrow().number;
        if let Some((block, at, task)) = self.tasks.lock().get(&id) {
            if *block == head && at.elapsed() < FRESH {
                return Ok(task.clone());
            }
        }
        let view = self.view().await?;
        let task = view.task(id).await.map_err(AccessError::new)?.map(Arc::new);
        let mut tasks = self.tasks.lock();
        if tasks.len() >= CACHE {
            tasks.clear();
        }
        tasks.insert(id, (head, Instant::now(), task.clone()));
        Ok(task)
    }

    async fn view(&self) -> Result<View, AccessError> {
        self.ctx.client.view().await.map_err(AccessError::new)
    }

    async fn operator(&self, node: NodeId) -> Result<Option<AccountId32>, AccessError> {
        if let Some((at, operator)) = self.operators.lock().get(&node) {
            if at.elapsed() < OPERATOR_FRESH {
                return Ok(*operator);
            }
        }
        let view = self.view().await?;
        let found = view.node(node).await.map_err(AccessError::new)?;
        let operator = found.map(|found| to_account32(&found.node.operator));
        let mut operators = self.operators.lock();
        if operators.len() >= CACHE {
            operators.clear();
        }
        operators.insert(node, (Instant::now(), operator));
        Ok(operator)
    }

    /// Whether it is a dishonest node's, on a test network.
    fn withheld(&self, node: NodeId) -> bool {
        self.ctx.adversary.as_ref().is_some_and(|adversary| adversary.withholds(node))
    }

    /// Whether the account operates one of the nodes.
    async fn operates(
        &self,
        account: &AccountId32,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Result<bool, AccessError> {
        for node in nodes {
            if node != 0 && self.operator(node).await?.as_ref() == Some(account) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Access for ChainAccess {
    async fn decide(&self, request: &AccessRequest) -> Result<Decision, AccessError> {
        let Some(view) = self.task(request.task).await? else { return Ok(Decision::NotFound) };
        let task = &view.task;
        let requester = to_account32(&task.requester) == request.account;
        let panel = || self.operates(&request.account, task.panel.iter().map(|seat| seat.node));
        // Only what a block has said counts here, never this machine's clock: an answer that is served a moment before the
        // deadline could be copied.
        let (now, finalized) = (self.ctx.clock.block_time(), self.ctx.clock.final_time());
        Ok(match &request.resource {
            Resource::Blob(id) if id.0 == task.input.hash => {
                let outputs = task.outputs.iter().map(|slot| slot.node);
                allow(requester || self.operates(&request.account, outputs).await? || panel().await?)
            }
            // Outputs and reports are asked for by node; another hash is nobody's business.
            Resource::Blob(_) => Decision::NotFound,
            Resource::Opening(node) if self.withheld(*node) => Decision::NotFound,
            Resource::Opening(node) => decide_opening(task, *node, requester, now, finalized),
            Resource::Output(node) => decide_output(task, *node, requester, panel().await?, now),
            Resource::Reveal(node) => decide_reveal(task, *node, now, finalized),
            Resource::Report(node) => decide_report(task, *node, requester || panel().await?),
        })
    }
}

fn allow(allowed: bool) -> Decision {
    if allowed {
        Decision::Allow
    } else {
        Decision::Forbidden
    }
}

const EARLY: Decision = Decision::TooEarly { retry_after: Some(RETRY) };

/// What is served once something is closed for good.
fn once_final(closing: Option<Closing>, finalized: Millis) -> Decision {
    match closing {
        Some(closing) if closing.is_final(finalized) => Decision::Allow,
        // A block or two.
        Some(_) => Decision::TooEarly { retry_after: Some(Duration::from_secs(1)) },
        None => EARLY,
    }
}

fn decide_opening(task: &Task, node: NodeId, requester: bool, now: Millis, finalized: Millis) -> Decision {
    match task.outputs.iter().find(|slot| slot.node == node) {
        None => Decision::NotFound,
        Some(_) if !requester => Decision::Forbidden,
        Some(_) => once_final(sealed(task, now), finalized),
    }
}

fn decide_output(task: &Task, node: NodeId, requester: bool, panel: bool, now: Millis) -> Decision {
    let Some(slot) = task.outputs.iter().find(|slot| slot.node == node) else { return Decision::NotFound };
    if !requester && !panel {
        return Decision::Forbidden;
    }
    let drawn = slot.state == OutputState::Opened && task.panel.iter().any(|seat| seat.node != 0);
    match task.clock().at(now).0 {
        Phase::Settled | Phase::Refunded | Phase::Revealing => Decision::Allow,
        _ if drawn && (panel || task.early) => Decision::Allow,
        _ => EARLY,
    }
}

fn decide_reveal(task: &Task, node: NodeId, now: Millis, finalized: Millis) -> Decision {
    match task.panel.iter().find(|seat| node != 0 && seat.node == node) {
        None => Decision::NotFound,
        Some(seat) if seat.state == SeatState::Revealed => Decision::Allow,
        Some(_) => once_final(closed(task, now), finalized),
    }
}

fn decide_report(task: &Task, node: NodeId, allowed: bool) -> Decision {
    match task.panel.iter().find(|seat| node != 0 && seat.node == node) {
        None => Decision::NotFound,
        Some(_) if !allowed => Decision::Forbidden,
        Some(seat) if seat.state == SeatState::Revealed || task.phase.is_final() => Decision::Allow,
        Some(_) => EARLY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duty::tests::{seat, slot, task};

    const OPENED: OutputState = OutputState::Opened;
    const COMMITTED: OutputState = OutputState::Committed;

    fn is_early(decision: Decision) -> bool {
        matches!(decision, Decision::TooEarly { .. })
    }

    #[test]
    fn an_opening_is_the_requesters_once_the_seal_is_final() {
        let open =
            task(Phase::Inferring, 200, vec![slot(1, COMMITTED), slot(2, OutputState::Assigned)], vec![]);
        assert!(is_early(decide_opening(&open, 1, true, 200, 200)));
        // The deadline has passed: the first block after it must be final.
        assert!(is_early(decide_opening(&open, 1, true, 201, 200)));
        assert_eq!(decide_opening(&open, 1, true, 201, 201), Decision::Allow);
        assert_eq!(decide_opening(&open, 1, false, 201, 201), Decision::Forbidden);
        assert_eq!(decide_opening(&open, 3, true, 201, 201), Decision::NotFound);
        // Sealed at 120 by the last commitment.
        let sealed = task(Phase::Drawing, 200, vec![slot(1, COMMITTED)], vec![]);
        assert!(is_early(decide_opening(&sealed, 1, true, 121, 119)));
        assert_eq!(decide_opening(&sealed, 1, true, 121, 120), Decision::Allow);
    }

    #[test]
    fn an_output_is_the_panels_from_the_draw_and_the_requesters_once_all_scores_are_committed() {
        let drawing = task(Phase::Drawing, 200, vec![slot(1, OPENED)], vec![seat(0, SeatState::Drawn)]);
        assert!(is_early(decide_output(&drawing, 1, false, true, 150)));
        assert!(is_early(decide_output(&drawing, 1, true, false, 150)));
        assert_eq!(decide_output(&drawing, 1, false, false, 150), Decision::Forbidden);
        assert_eq!(decide_output(&drawing, 2, true, false, 150), Decision::NotFound);
        let panel = || vec![seat(3, SeatState::Committed), seat(4, SeatState::Committed)];
        let mut scoring = task(Phase::Scoring, 200, vec![slot(1, OPENED)], panel());
        assert_eq!(decide_output(&scoring, 1, false, true, 150), Decision::Allow);
        assert!(is_early(decide_output(&scoring, 1, true, false, 200)));
        // By the deadline, with a quorum of commitments.
        assert_eq!(decide_output(&scoring, 1, true, false, 201), Decision::Allow);
        scoring.early = true;
        assert_eq!(decide_output(&scoring, 1, true, false, 150), Decision::Allow);
        let over = task(Phase::Refunded, 200, vec![slot(1, COMMITTED)], vec![]);
        assert_eq!(decide_output(&over, 1, true, false, 201), Decision::Allow);
    }

    #[test]
    fn a_reveal_is_everybodys_once_no_commitment_can_follow() {
        let panel = || vec![seat(3, SeatState::Committed), seat(4, SeatState::Committed)];
        let scoring = task(Phase::Scoring, 200, vec![slot(1, OPENED)], panel());
        assert!(is_early(decide_reveal(&scoring, 3, 200, 200)));
        assert!(is_early(decide_reveal(&scoring, 3, 201, 200)));
        assert_eq!(decide_reveal(&scoring, 3, 201, 201), Decision::Allow);
        assert_eq!(decide_reveal(&scoring, 5, 201, 201), Decision::NotFound);
        assert_eq!(decide_reveal(&scoring, 0, 201, 201), Decision::NotFound);
        let revealing = task(Phase::Revealing, 200, vec![slot(1, OPENED)], panel());
        assert!(is_early(decide_reveal(&revealing, 3, 130, 119)));
        assert_eq!(decide_reveal(&revealing, 3, 130, 120), Decision::Allow);
    }

    #[test]
    fn a_report_is_served_only_once_revealed() {
        let open = task(Phase::Revealing, 200, vec![slot(1, OPENED)], vec![seat(3, SeatState::Committed)]);
        assert!(is_early(decide_report(&open, 3, true)));
        assert_eq!(decide_report(&open, 3, false), Decision::Forbidden);
        assert_eq!(decide_report(&open, 4, true), Decision::NotFound);
        let revealed = task(Phase::Revealing, 200, vec![slot(1, OPENED)], vec![seat(3, SeatState::Revealed)]);
        assert_eq!(decide_report(&revealed, 3, true), Decision::Allow);
    }
}
