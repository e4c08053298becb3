//! `poq advance`: a keeper's work, once.

use crate::cli::args::SendArgs;
use crate::cli::output::table;
use clap::Args;
use poq_chain::types::{Step, TaskId, MAX_BATCH};
use poq_chain::{messages, ContractError};
use serde_json::json;

/// `poq advance`.
#[derive(Args, Debug)]
pub(crate) struct AdvanceArgs {
    /// The tasks' numbers; where none is given, every task that has a step due.
    tasks: Vec<TaskId>,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq advance`.
pub(crate) async fn run(args: AdvanceArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let tasks: Vec<TaskId> = if args.tasks.is_empty() {
        let all = desk.session.client.view().await?.all_tasks(1).await?;
        all.into_iter().filter(|view| is_due(&view.step)).map(|view| view.id).collect()
    } else {
        args.tasks
    };

    let batches: Vec<_> =
        tasks.chunks(MAX_BATCH).map(|batch| (batch, messages::advance(batch.to_vec()))).collect();
    if !batches.is_empty() {
        let mut order = desk.order(format!("move {} on", count(tasks.len())));
        for (batch, message) in &batches {
            for (task, step) in batch.iter().zip(order.add(message).await?.unwrap_or_default()) {
                order.effect(format!("task {task}"), outcome(&step));
            }
        }
        if !order.agreed().await? {
            return Ok(());
        }
    }
    let mut done: Vec<(TaskId, Result<Step, ContractError>)> = Vec::new();
    for (batch, message) in batches {
        let receipt = desk.submitter.send(message).await?;
        done.extend(batch.iter().copied().zip(receipt.value));
    }
    desk.printer.print(
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
                rows.add_row([task.to_string(), outcome(step)]);
            }
            rows.to_string()
        },
    )
}

fn count(tasks: usize) -> String {
    match tasks {
        1 => "one task".into(),
        more => format!("{more} tasks"),
    }
}

fn outcome(step: &Result<Step, ContractError>) -> String {
    step.as_ref().map_or_else(|error| format!("nothing: {error}"), |step| step_name(step).to_owned())
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
