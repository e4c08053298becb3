//! When a task ended, for tasks that the contract no longer remembers.

use crate::cli::connect::Session;
use crate::cli::exit::{Coded, Exit, Refused};
use poq_chain::types::TaskId;
use poq_chain::{At, Error};
use serde_json::json;

/// What a block's state says of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It had not ended: it was not there yet, or open.
    Before,
    /// It had ended: it was final, or had been collected.
    Ended,
    /// The node no longer has the block's state.
    Forgotten,
}

/// The block in which a task ended: found by halving, because a task that has ended stays so. At most 2·32 questions.
///
/// # Errors
/// `Refused` where there has never been such a task; `NotFinal`; a failure that gives the command to go on with where the node
/// has forgotten the blocks in question.
pub(crate) async fn end_of(session: &Session, task: TaskId) -> anyhow::Result<u32> {
    let client = &session.client;
    let view = client.view().await?;
    let newest = view.task_count().await?;
    if task == 0 || task > newest {
        let text = match newest {
            0 => format!("there is no task of that number ({task}): there has been none yet"),
            newest => format!("there is no task of that number ({task}): the newest one is {newest}"),
        };
        return Err(Refused(text).into());
    }
    if let Some(record) = view.task(task).await? {
        if !record.task.phase.is_final() {
            let phase = crate::cli::task::phase_name(record.task.phase).to_owned();
            return Err(Error::NotFinal { task, phase }.into());
        }
        return Ok(record.task.final_block);
    }
    // At `low` it had not ended or nobody knows, at `high` it had.
    let (mut low, mut high) = (0u32, view.block().number);
    let mut forgotten = None;
    while high.saturating_sub(low) > 1 {
        let middle = low.midpoint(high);
        match seen(session, task, middle).await? {
            Seen::Ended => high = middle,
            Seen::Before => low = middle,
            Seen::Forgotten => {
                forgotten = Some(middle);
                low = middle;
            }
        }
    }
    // Without the state of the block before it, `high` is only the oldest block that this node still knows.
    match forgotten.filter(|block| *block == low) {
        None => Ok(high),
        Some(_) => {
            let text = format!(
                "task {task} ended in block {high} or before it, and the node {} no longer has the state of blocks before {high}; \
                 ask one that keeps it (`--state-pruning archive`): `poq explain {task} --url ws://HOST:PORT`",
                client.endpoint(),
            );
            let details = json!({ "task": task, "at_or_before_block": high });
            Err(Coded { exit: Exit::Failure, code: "pruned", text, details: Some(details) }.into())
        }
    }
}

async fn seen(session: &Session, task: TaskId, block: u32) -> anyhow::Result<Seen> {
    let forgotten = |error: &Error| matches!(error, Error::Pruned { .. });
    let view = match session.client.view_at(At::Number(block)).await {
        Ok(view) => view,
        Err(error) if forgotten(&error) => return Ok(Seen::Forgotten),
        Err(error) => return Err(error.into()),
    };
    match view.task_count().await {
        Ok(newest) if newest < task => return Ok(Seen::Before),
        Ok(_) => {}
        // Before the contract was deployed.
        Err(Error::ContractAbsent { .. }) => return Ok(Seen::Before),
        Err(error) if forgotten(&error) => return Ok(Seen::Forgotten),
        Err(error) => return Err(error.into()),
    }
    match view.task(task).await {
        Ok(Some(record)) if !record.task.phase.is_final() => Ok(Seen::Before),
        Ok(_) => Ok(Seen::Ended),
        Err(error) if forgotten(&error) => Ok(Seen::Forgotten),
        Err(error) => Err(error.into()),
    }
}
