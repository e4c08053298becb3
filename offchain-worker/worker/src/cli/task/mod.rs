//! `poq task`: requesting, following and collecting tasks.

mod follow;
mod market;
mod request;

pub(crate) use follow::Fetcher;

use crate::cli::advance::step_name;
use crate::cli::args::{duration, ReadArgs, SendArgs, Signer, Who};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::Refused;
use crate::cli::output::{pairs, table, time};
use clap::{Args, Subcommand};
use follow::{follow, show_answers, Answer};
use poq_chain::json::ToJson;
use poq_chain::types::{Phase, Score, SeatState, TaskId, TaskView, MAX_BATCH};
use poq_chain::{messages, to_account32};
use serde_json::{json, Value};
use std::time::Duration;

/// `poq task …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Requests a task: pays the fee into escrow and offers the input to the nodes that are drawn.
    Request(Box<request::RequestArgs>),
    /// Shows a task.
    Show(TaskShowArgs),
    /// Lists tasks that have not been collected.
    List(TaskListArgs),
    /// Waits until a task is settled or refunded, and prints its scores as they are revealed.
    Wait(TaskWaitArgs),
    /// Fetches a task's answers from the nodes that gave them, checks them against their commitments and prints them.
    Answers(AnswersArgs),
    /// Takes the refunds of final tasks and frees their storage. What a task paid can still be explained afterwards.
    Collect(CollectArgs),
}

/// `poq task show`.
#[derive(Args, Debug)]
pub(crate) struct TaskShowArgs {
    /// The task's number.
    task: TaskId,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq task list`.
#[derive(Args, Debug)]
pub(crate) struct TaskListArgs {
    /// Lists the tasks of this requester only: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    requester: Option<Who>,
    /// Lists the tasks from this number on.
    #[arg(long, value_name = "TASK", default_value_t = 1)]
    from: TaskId,
    /// Lists at most so many tasks.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq task wait`.
#[derive(Args, Debug)]
pub(crate) struct TaskWaitArgs {
    /// The task's number.
    task: TaskId,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq task answers`.
#[derive(Args, Debug)]
pub(crate) struct AnswersArgs {
    /// The task's number.
    task: TaskId,
    // The key signs the requests to the nodes; nothing is sent to the chain.
    #[command(flatten)]
    signer: Signer,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq task collect`.
#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// The tasks' numbers.
    #[arg(required_unless_present = "all")]
    tasks: Vec<TaskId>,
    /// Collects every final task of the key's account.
    #[arg(long, conflicts_with = "tasks")]
    all: bool,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq task`.
pub(crate) async fn run(command: TaskCommand) -> anyhow::Result<()> {
    match command {
        TaskCommand::Request(args) => request::request(*args).await,
        TaskCommand::Show(args) => show(args).await,
        TaskCommand::List(args) => list(args).await,
        TaskCommand::Wait(args) => wait(args).await,
        TaskCommand::Answers(args) => answers(args).await,
        TaskCommand::Collect(args) => collect(args).await,
    }
}

/// What a phase is called.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Inferring => "inferring",
        Phase::Drawing => "drawing",
        Phase::Scoring => "scoring",
        Phase::Revealing => "revealing",
        Phase::Auditing => "auditing",
        Phase::Settled => "settled",
        Phase::Refunded => "refunded",
    }
}

/// A task by its number.
pub(crate) async fn task_of(session: &Session, id: TaskId) -> anyhow::Result<TaskView> {
    let task = session.client.view().await?.task(id).await?;
    Ok(task.ok_or_else(|| Refused(format!("there is no task {id}: it never was, or has been collected")))?)
}

fn names<N: ToString>(what: &str, numbers: &[N]) -> String {
    let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{what}{} {list}", if numbers.len() == 1 { "" } else { "s" })
}

/// So many of something.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

async fn answers(args: AnswersArgs) -> anyhow::Result<()> {
    let keys = load_keys(&args.signer.key_file, args.signer.password_file.as_deref())?;
    let session = args.read.contract().await?;
    let view = task_of(&session, args.task).await?;
    let answers = Fetcher::new(&session, &keys)?.answers(&view).await?;
    args.read
        .printer()
        .print(|| Value::Array(answers.iter().map(Answer::json).collect()), || show_answers(&answers))?;
    anyhow::ensure!(answers.iter().any(|a| a.result.is_ok()), "no answer of task {} could be had", args.task);
    Ok(())
}

async fn show(args: TaskShowArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let view = task_of(&session, args.task).await?;
    args.read.printer().print(|| view.to_json(), || describe(&session, &view))
}

fn score(score: Score) -> String {
    score.quality().map_or_else(|| "-".into(), |quality| quality.to_string())
}

fn when(millis: u64) -> String {
    if millis == 0 {
        "-".into()
    } else {
        time(millis)
    }
}

fn describe(session: &Session, view: &TaskView) -> String {
    let task = &view.task;
    let unit = &session.unit;
    let mut lines = vec![
        ("task", view.id.to_string()),
        ("phase", phase_name(task.phase).into()),
        ("next step", step_name(&view.step).into()),
        ("kind", format!("{}, parameters' version {}", task.kind, task.version)),
        ("requester", session.address(&to_account32(&task.requester))),
        ("fee", unit.show(task.fee)),
        ("input", format!("0x{} at {}", hex::encode(task.input.hash), task.input.url)),
        ("requested", time(task.requested_at)),
    ];
    if task.phase.is_final() {
        lines.push(("refund", unit.show(task.refund)));
        lines.push(("final in block", task.final_block.to_string()));
    } else {
        lines.push(("deadline", time(task.deadline)));
    }
    let mut outputs = table(["inference node", "price", "committed", "quality"], &[0, 1, 3]);
    for slot in &task.outputs {
        outputs.add_row([
            slot.node.to_string(),
            unit.number(slot.price),
            when(slot.committed_at),
            score(slot.quality),
        ]);
    }
    let mut panel = table(["evaluator", "state", "committed", "scores"], &[0]);
    for seat in &task.panel {
        let state = match (seat.node, seat.state) {
            (0, _) => "not drawn yet",
            (_, SeatState::Drawn) => "drawn",
            (_, SeatState::Committed) => "committed",
            (_, SeatState::Revealed) => "revealed",
            (_, SeatState::Mismatched) => "revealed something else",
        };
        let node = if seat.node == 0 { "-".into() } else { seat.node.to_string() };
        let scores = seat.scores.iter().map(|s| score(*s)).collect::<Vec<_>>().join(", ");
        panel.add_row([node, state.into(), when(seat.committed_at), scores]);
    }
    format!("{}\n\n{outputs}\n{panel}", pairs(&lines))
}

async fn list(args: TaskListArgs) -> anyhow::Result<()> {
    let requester = args.requester.as_ref().map(|who| who.account(None)).transpose()?;
    let session = args.read.contract().await?;
    let mut tasks = session.client.view().await?.all_tasks(args.from).await?;
    tasks.retain(|view| requester.as_ref().is_none_or(|who| to_account32(&view.task.requester) == *who));
    tasks.truncate(args.limit);
    args.read.printer().print(
        || Value::Array(tasks.iter().map(ToJson::to_json).collect()),
        || {
            let mut rows = table(
                ["task", "kind", "phase", "next step", "fee", "answers", "panel", "requester"],
                &[0, 4],
            );
            for view in &tasks {
                let clock = view.task.clock();
                rows.add_row([
                    view.id.to_string(),
                    view.task.kind.to_string(),
                    phase_name(view.task.phase).into(),
                    step_name(&view.step).into(),
                    session.unit.number(view.task.fee),
                    format!("{} of {}", clock.delivered, clock.outputs),
                    format!("{} of {} revealed", clock.revealed, clock.panel),
                    session.address(&to_account32(&view.task.requester)),
                ]);
            }
            rows.to_string()
        },
    )
}

async fn wait(args: TaskWaitArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let (view, _) = follow(&session, None, args.task, args.timeout, !args.read.output.json).await?;
    args.read.printer().print(|| view.to_json(), || describe(&session, &view))
}

async fn collect(args: CollectArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let tasks = if args.all {
        let mut tasks = Vec::new();
        let view = session.client.view().await?;
        for id in view.balances(&desk.account()).await?.tasks {
            tasks.extend(view.task(id).await?.filter(|view| view.task.phase.is_final()).map(|view| view.id));
        }
        tasks
    } else {
        args.tasks
    };
    let batches: Vec<_> = tasks.chunks(MAX_BATCH).map(|batch| messages::collect(batch.to_vec())).collect();
    if !batches.is_empty() {
        let mut order = desk.order(format!("collect {}", names("task", &tasks)));
        let mut refunds = 0u128;
        for message in &batches {
            refunds = refunds.saturating_add(order.add(message).await?.unwrap_or(0));
        }
        order.effect("refunds", session.unit.show(refunds));
        order.note(
            "the contract forgets collected tasks; `poq explain` still finds them in the chain's history",
        );
        if !order.agreed().await? {
            return Ok(());
        }
    }
    let (mut total, mut fees) = (0u128, 0u128);
    for message in batches {
        let receipt = desk.submitter.send(message).await?;
        total = total.saturating_add(receipt.value);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
    }
    desk.printer.print(
        || json!({ "tasks": tasks, "refunds": total.to_string(), "fees": fees.to_string() }),
        || {
            if tasks.is_empty() {
                return "there is no final task to collect".into();
            }
            pairs(&[
                ("collected", tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
                ("refunds", session.unit.show(total)),
                ("transaction fees", session.unit.show(fees)),
            ])
        },
    )
}
