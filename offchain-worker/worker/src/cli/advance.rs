//! `poq advance`: a keeper's work, once.

use crate::cli::args::AdvanceArgs;
use crate::cli::output::table;
use poq_chain::types::{Step, TaskId, MAX_BATCH};
use poq_chain::{messages, ContractError};
use serde_json::json;

/// Runs `poq advance`.
pub(crate) async fn run(args: AdvanceArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let tasks: Vec<TaskId> = if args.tasks.is_empty() {
        let all = session.client.view().await?.all_tasks(1).await?;
        all.into_iter().filter(|view| is_due(&view.step)).map(|view| view.id).collect()
    } else {
        args.tasks
    };

    let mut done: Vec<(TaskId, Result<Step, ContractError>)> = Vec::new();
    for batch in tasks.chunks(MAX_BATCH) {
        let receipt = submitter.send(messages::advance(batch.to_vec())).await?;
        done.extend(batch.iter().copied().zip(receipt.value));
    }
    args.output.printer().print(
        || {
            let steps: Vec<_> = done
                .iter()
                .map(|(task, step)| match step {
                    Ok(step) => json!({ "task": task, "step": step_name(step) }),
                    Err(error) => json!({ "task": task, "refused": error.to_string() }),
                })
                .collect();
            json!({ "steps": steps })
        },
        || {
            if done.is_empty() {
                return "no task has a step due".into();
            }
            let mut rows = table(["task", "step"], &[0]);
            for (task, step) in &done {
                let what =
                    step.as_ref().map_or_else(|e| format!("nothing: {e}"), |s| step_name(s).to_owned());
                rows.add_row([task.to_string(), what]);
            }
            rows.to_string()
        },
    )
}

fn is_due(step: &Step) -> bool {
    !matches!(step, Step::Wait { .. } | Step::WaitForBlock | Step::Done)
}

/// What a step is called.
pub(crate) fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Wait { .. } => "wait",
        Step::WaitForBlock => "wait for the next block",
        Step::Draw => "draw the panel",
        Step::Settle => "settle",
        Step::Redraw => "release the panel and draw another",
        Step::RefundUndelivered => "refund: nobody delivered",
        Step::RefundUndrawn => "refund: no panel could be drawn",
        Step::RefundBelowQuorum => "refund: two panels below quorum",
        Step::Done => "nothing: it is final",
    }
}
