//! Who may fetch which blob, decided by what the chain says.
//!
//! Inputs go to the requester and to the nodes that were drawn; outputs to the panel and the requester, once no further
//! answer can be committed to, so that nobody can copy one; reports to the same once revealed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use poq_blobs::{Access, AccessError, AccessRequest, Decision, Resource};
use poq_chain::types::{NodeId, Phase, SeatState, Task, TaskId, TaskView};
use poq_chain::{to_account32, AccountId32, View};

use super::Ctx;

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
        let panel = || task.panel.iter().map(|seat| seat.node);
        let on_panel = requester || self.operates(&request.account, panel()).await?;
        match &request.resource {
            Resource::Blob(id) if id.0 == task.input.hash => {
                let outputs = task.outputs.iter().map(|slot| slot.node);
                let allowed = on_panel || self.operates(&request.account, outputs).await?;
                Ok(if allowed { Decision::Allow } else { Decision::Forbidden })
            }
            // Outputs and reports are asked for by node; another hash is nobody's business.
            Resource::Blob(_) => Ok(Decision::NotFound),
            Resource::Output(node) if !task.outputs.iter().any(|slot| slot.node == *node) => {
                Ok(Decision::NotFound)
            }
            // Only what a block has said counts here, never this machine's clock: an answer that is served a moment before
            // the deadline could be copied.
            Resource::Output(_) => Ok(decide_output(task, on_panel, self.ctx.clock.block_time())),
            Resource::Report(node) => Ok(decide_report(task, *node, on_panel)),
        }
    }
}

fn decide_output(task: &Task, allowed: bool, now: u64) -> Decision {
    let (phase, deadline) = task.clock().at(now);
    if phase == Phase::Inferring {
        let wait = Duration::from_millis(deadline.saturating_sub(now).saturating_add(1));
        return Decision::TooEarly { retry_after: Some(wait.min(RETRY)) };
    }
    if allowed {
        Decision::Allow
    } else {
        Decision::Forbidden
    }
}

fn decide_report(task: &Task, node: NodeId, allowed: bool) -> Decision {
    match task.panel.iter().find(|seat| seat.node == node) {
        None => Decision::NotFound,
        Some(_) if !allowed => Decision::Forbidden,
        Some(seat) if seat.state == SeatState::Revealed || task.phase.is_final() => Decision::Allow,
        Some(_) => Decision::TooEarly { retry_after: Some(RETRY) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duty::tests::{seat, slot, task};

    #[test]
    fn an_output_is_served_only_when_no_answer_can_follow() {
        let open = task(Phase::Inferring, 200, vec![slot(1, 20), slot(2, 0)], vec![]);
        assert!(matches!(decide_output(&open, true, 200), Decision::TooEarly { .. }));
        assert!(matches!(decide_output(&open, true, 201), Decision::Allow));
        assert!(matches!(decide_output(&open, false, 201), Decision::Forbidden));
        let fixed = task(Phase::Drawing, 200, vec![slot(1, 20)], vec![]);
        assert!(matches!(decide_output(&fixed, true, 50), Decision::Allow));
    }

    #[test]
    fn a_report_is_served_only_once_revealed() {
        let open = task(Phase::Revealing, 200, vec![slot(1, 20)], vec![seat(3, SeatState::Committed)]);
        assert!(matches!(decide_report(&open, 3, true), Decision::TooEarly { .. }));
        assert!(matches!(decide_report(&open, 3, false), Decision::Forbidden));
        assert!(matches!(decide_report(&open, 4, true), Decision::NotFound));
        let revealed = task(Phase::Revealing, 200, vec![slot(1, 20)], vec![seat(3, SeatState::Revealed)]);
        assert!(matches!(decide_report(&revealed, 3, true), Decision::Allow));
    }
}
