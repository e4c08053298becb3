//! `poq advance`: a keeper's work, once.

use crate::cli::args::SendArgs;
use crate::cli::output::{pairs, table, time};
use crate::cli::task::ending_text;
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
    let unit = &desk.session.unit;
    let view = desk.session.client.view().await?;
    let now = desk.session.client.upcoming().timestamp_ms;
    let found = if args.tasks.is_empty() {
        let mut all = view.all_tasks(1).await?;
        // By what the next block will be like: a chain that seals on demand stands still in between.
        all.retain(|view| is_due(&view.task.clock().step(now)));
        all
    } else {
        let mut named = Vec::new();
        for task in &args.tasks {
            named.extend(view.task(*task).await?);
        }
        named
    };
    let tasks: Vec<TaskId> =
        if args.tasks.is_empty() { found.iter().map(|view| view.id).collect() } else { args.tasks };

    let batches: Vec<_> =
        tasks.chunks(MAX_BATCH).map(|batch| (batch, messages::advance(batch.to_vec()))).collect();
    let (mut done, mut earned) = (Vec::new(), 0u128);
    if !batches.is_empty() {
        let mut order = desk.order(format!("move {} on", count(tasks.len())));
        for (batch, message) in &batches {
            for (task, step) in batch.iter().zip(order.add(message).await?.unwrap_or_default()) {
                order.effect(format!("task {task}"), outcome(&step));
            }
        }
        // What the steps pay, as the contract will book it.
        earned = found.into_iter().fold(0u128, |sum, mut view| sum.saturating_add(view.task.pay_keeper(now)));
        order.effect("keeper's fees", format!("about {}, as credit (`poq claim`)", unit.show(earned)));
        if !order.agreed().await? {
            return Ok(());
        }
    }
    for (batch, message) in batches {
        let receipt = desk.submitter.send(message).await?;
        done.extend(batch.iter().copied().zip(receipt.value));
    }
    desk.printer.print(
        || {
            let steps: Vec<_> = done
                .iter()
                .map(|(task, step)| match step {
                    Ok(step) => json!({ "task": task, "step": step_text(step) }),
                    Err(error) => json!({ "task": task, "refused": error.to_string() }),
                })
                .collect();
            json!({ "steps": steps, "keeper_fees": earned.to_string() })
        },
        || {
            if done.is_empty() {
                return "no task has a step due".into();
            }
            let mut rows = table(["task", "step"], &[0]);
            for (task, step) in &done {
                rows.add_row([task.to_string(), outcome(step)]);
            }
            format!("{rows}\n{}", pairs(&[("keeper's fees", format!("about {}", unit.show(earned)))]))
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
    step.as_ref().map_or_else(|error| format!("nothing: {error}"), step_text)
}

/// Whether anybody can take the step: a panel is drawn only by who knows the requester's secret.
fn is_due(step: &Step) -> bool {
    matches!(step, Step::Fill | Step::Settle | Step::End(_))
}

/// What a step is, in words.
pub(crate) fn step_text(step: &Step) -> String {
    match step {
        Step::Wait { until } => format!("wait, until {}", time(*until)),
        Step::Draw { until } => format!("its requester draws the panel, until {}", time(*until)),
        Step::Fill => "fill empty seats of the panel".into(),
        Step::Settle => "settle".into(),
        Step::End(ending) => format!("end: {}", ending_text(*ending)),
        Step::Done => "nothing: it is final".into(),
    }
}
