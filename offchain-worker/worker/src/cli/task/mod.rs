//! `poq task`: requesting, following and collecting tasks.

mod follow;
mod market;
mod request;

pub(crate) use follow::{progress_text, Answer, Fetcher};

use crate::cli::advance::step_text;
use crate::cli::args::{duration, ReadArgs, SendArgs, Signer, Who};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::Refused;
use crate::cli::indexed::{Index, IndexArg};
use crate::cli::output::{pairs, table, time};
use clap::{Args, Subcommand};
use follow::{see_through, show_answers, watch, Followed};
use poq_chain::cost::Cost;
use poq_chain::json::ToJson;
use poq_chain::types::{Ending, OutputState, Phase, Score, SeatState, TaskId, TaskView, MAX_BATCH};
use poq_chain::{messages, to_account32, AccountId32, Deposit};
use serde_json::{json, Value};
use std::time::Duration;

/// `poq task …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Requests a task: pays the fee into escrow, offers the input to the nodes that answer and score, and sees the task through:
    /// draws the panel, fetches the answers, passes the scores on.
    Request(Box<request::RequestArgs>),
    /// Shows a task.
    Show(TaskShowArgs),
    /// Lists tasks that have not been collected; with --index all there ever were.
    List(TaskListArgs),
    /// Sees requested tasks through to their end with the requester's key, as `request` does: whoever stopped there goes on here.
    Follow(TaskFollowArgs),
    /// Waits until a task is over, and prints its scores as they are revealed. Only watches: its requester draws the panel.
    Wait(TaskWaitArgs),
    /// Fetches a task's answers from the nodes that gave them, checks them against their hashes on chain and prints them.
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
    index: IndexArg,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq task follow`.
#[derive(Args, Debug)]
pub(crate) struct TaskFollowArgs {
    /// The tasks' numbers; where none is given, every task of the key's account that is not over.
    tasks: Vec<TaskId>,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    send: SendArgs,
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
        TaskCommand::Follow(args) => follow(args).await,
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
        Phase::Settled => "settled",
        Phase::Refunded => "refunded",
    }
}

/// How a task ended, in words.
pub(crate) fn ending_text(ending: Ending) -> &'static str {
    match ending {
        Ending::Consensus => "settled by the panel's scores",
        Ending::Undelivered => "refunded: nobody delivered",
        Ending::Unopened => "refunded: a committed answer was not opened in time",
        Ending::NoSecret => "refunded: the requester did not draw the panel in time",
        Ending::NoPanel => "refunded: too few evaluators could be drawn",
        Ending::BelowQuorum => "refunded: too few evaluators committed or revealed",
        Ending::InputUnavailable => "refunded: most of the panel could not get the input",
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
    let answers = Fetcher::new(&session, &keys).await?.answers(&view).await?;
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

/// A score in words; its own form is a quality, `unavailable` or `no input`.
pub(crate) fn score(score: Score) -> String {
    format!("{score:?}")
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
    let input = match task.input.inline {
        true => format!("0x{}, in the request itself", hex::encode(task.input.hash)),
        false => format!("0x{} at {}", hex::encode(task.input.hash), task.input.url),
    };
    let mut lines = vec![
        ("task", view.id.to_string()),
        ("phase", phase_name(task.phase).into()),
        ("next step", step_text(&view.step)),
        ("kind", format!("{}, parameters' version {}", task.kind, task.terms.version)),
        ("requester", session.address(&to_account32(&task.requester))),
        ("fee", unit.show(task.fee)),
        ("input", input),
        (
            "answers",
            if task.early { "served from the draw on: early" } else { "served once the panel has committed" }
                .into(),
        ),
        ("requested", time(task.requested_at)),
    ];
    if task.phase.is_final() {
        lines.push(("ended", format!("{}, {}", time(task.deadline), ending_text(task.ending))));
        lines.push(("refund", unit.show(task.refund)));
        lines.push(("keepers got", unit.show(task.keepers)));
        lines.push(("reference", if task.audited { "opened" } else { "not opened" }.into()));
        lines.push(("final in block", task.final_block.to_string()));
    } else {
        lines.push(("deadline", time(task.deadline)));
    }
    let mut outputs = table(["inference node", "state", "price", "committed", "quality"], &[0, 2, 4]);
    for slot in &task.outputs {
        let state = match slot.state {
            OutputState::Assigned => "assigned",
            OutputState::Declined => "declined",
            OutputState::Committed => "committed",
            OutputState::Opened => "opened",
        };
        outputs.add_row([
            slot.node.to_string(),
            state.into(),
            unit.number(slot.price),
            when(slot.committed_at),
            slot.quality.quality().map_or_else(|| "-".into(), |quality| quality.to_string()),
        ]);
    }
    let mut panel = table(["evaluator", "state", "committed", "scores"], &[0]);
    for seat in &task.panel {
        let state = match (seat.node, seat.state) {
            (0, _) => "vacant",
            (_, SeatState::Drawn) => "drawn",
            (_, SeatState::Committed) => "committed",
            (_, SeatState::Revealed) => "revealed",
        };
        let node = if seat.node == 0 { "-".into() } else { seat.node.to_string() };
        let scores = match seat.state {
            SeatState::Revealed => seat.scores.iter().map(|s| score(*s)).collect::<Vec<_>>().join(", "),
            SeatState::Drawn | SeatState::Committed => "-".into(),
        };
        panel.add_row([node, state.into(), when(seat.committed_at), scores]);
    }
    format!("{}\n\n{outputs}\n{panel}", pairs(&lines))
}

async fn list(args: TaskListArgs) -> anyhow::Result<()> {
    let requester = args.requester.as_ref().map(|who| who.account(None)).transpose()?;
    if let Some(index) = args.index.open().await? {
        return indexed(&args, &index, requester).await;
    }
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
                    step_text(&view.step),
                    session.unit.number(view.task.fee),
                    format!("{} of {}", clock.delivered, clock.outputs),
                    format!("{} of {} revealed", clock.revealed, view.task.panel.len()),
                    session.address(&to_account32(&view.task.requester)),
                ]);
            }
            rows.to_string()
        },
    )
}

/// Tasks as the index has them, from the lowest number on.
async fn indexed(args: &TaskListArgs, index: &Index, requester: Option<AccountId32>) -> anyhow::Result<()> {
    let (from, limit) = (args.from, args.limit);
    let tasks = index
        .ask(move |reads, conn| {
            let requester = requester.map(|who| who.to_string());
            reads.tasks_from(conn, requester.as_deref(), from, limit)
        })
        .await?;
    args.read.printer().print(
        || json!(tasks),
        || {
            let header = ["task", "kind", "phase", "ended", "fee", "paid", "refund", "answers", "panel", "requester"];
            let mut rows = table(header, &[0, 4, 5, 6]);
            for task in &tasks {
                let amount = |text: &str| index.unit.number(text.parse().unwrap_or(0));
                rows.add_row([
                    task.task.to_string(),
                    task.kind.to_string(),
                    task.phase.clone(),
                    task.ended_at.map_or_else(|| "-".into(), time),
                    amount(&task.fee),
                    amount(&task.paid),
                    amount(&task.refund),
                    task.outputs.to_string(),
                    format!("{} of {} revealed", task.revealed, task.panel),
                    task.requester.clone(),
                ]);
            }
            rows.to_string()
        },
    )
}

async fn wait(args: TaskWaitArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let view = watch(&session, args.task, args.timeout, !args.read.output.json).await?;
    args.read.printer().print(|| view.to_json(), || describe(&session, &view))
}

/// What seeing a task through costs: known only when it is due.
fn later_costs() -> Cost {
    Cost { value: 0, fee: None, deposit: Deposit::Charge(0) }
}

async fn follow(args: TaskFollowArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let view = session.client.view().await?;
    let tasks = if args.tasks.is_empty() {
        let mut open = Vec::new();
        for id in view.balances(&desk.account()).await?.tasks {
            open.extend(view.task(id).await?.filter(|view| !view.task.phase.is_final()).map(|view| view.id));
        }
        open
    } else {
        args.tasks
    };
    for id in &tasks {
        let found = task_of(session, *id).await?;
        let requester = to_account32(&found.task.requester);
        if requester != desk.account() {
            let text = format!(
                "task {id} was requested by {}: only that account's key can draw its panel (`poq task wait {id}` watches it)",
                session.address(&requester)
            );
            return Err(Refused(text).into());
        }
    }
    if tasks.is_empty() {
        return desk.printer.print(|| json!({ "tasks": [] }), || "no task of this account is open".into());
    }
    let mut order = desk.order(format!("see {} through", names("task", &tasks)));
    order.effect("sends", "the panel's draw, and the reveals in one batch, when they are due");
    order.add_cost(Ok(later_costs())).await?;
    if !order.agreed().await? {
        return Ok(());
    }
    let aloud = !args.send.output.json;
    let followed = see_through(desk.submitter.clone(), &tasks, args.timeout, aloud).await?;
    desk.printer.print(
        || {
            let tasks: Vec<Value> = followed.iter().map(followed_json).collect();
            json!({ "tasks": tasks })
        },
        || followed.iter().map(|followed| followed_text(session, followed)).collect::<Vec<_>>().join("\n\n"),
    )
}

fn followed_json(followed: &Followed) -> Value {
    json!({
        "task": followed.task,
        "outcome": followed.view.as_ref().map(ToJson::to_json),
        "answers": followed.answers_json(),
    })
}

/// Where a task has ended, and which answers are missing; those that are there have been told.
fn followed_text(session: &Session, followed: &Followed) -> String {
    let Some(view) = &followed.view else {
        return format!("task {} is over, and has been collected", followed.task);
    };
    let lost = followed.answers.iter().filter_map(|answer| {
        let error = answer.result.as_ref().err()?;
        Some(format!("\nanswer of node {}: not to be had: {error}", answer.node))
    });
    format!("{}{}", describe(session, view), lost.collect::<String>())
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
