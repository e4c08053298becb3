//! `poq task`: requesting, following and collecting tasks.

use crate::cli::advance::step_name;
use crate::cli::args::{
    AnswersArgs, CollectArgs, HostingArgs, RequestArgs, TaskCommand, TaskListArgs, TaskShowArgs, TaskWaitArgs,
};
use crate::cli::audit::{read_reference, Ticket};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::{Refused, TimedOut, Usage};
use crate::cli::host::Host;
use crate::cli::output::{pairs, table, time};
use crate::cli::send::sent;
use anyhow::Context;
use bytes::Bytes;
use poq_blobs::{BlobClient, BlobStore, ClientConfig, FetchedOutput, PromptBlob, RequestSigner, StoreLimits};
use poq_chain::json::ToJson;
use poq_chain::types::{Hash, OutputSlot, Phase, Score, SeatState, TaskId, TaskInput, TaskView, MAX_BATCH};
use poq_chain::{commit, messages, to_account32, AccountId32, Keys};
use poq_inference::quality::{Query, Rubric, RubricHash};
use rand::RngCore;
use serde_json::{json, Value};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Runs `poq task`.
pub(crate) async fn run(command: TaskCommand) -> anyhow::Result<()> {
    match command {
        TaskCommand::Request(args) => request(*args).await,
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

/// The input as its bytes: what was asked for on the command line, or the file's, checked.
fn input_bytes(args: &RequestArgs) -> anyhow::Result<Bytes> {
    let blob = match (&args.input.question, &args.input.file) {
        (Some(question), _) => PromptBlob::new(args.context.as_str(), question.as_str()),
        (None, Some(path)) => {
            let mut bytes = Vec::new();
            if path.as_os_str() == "-" {
                std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
            } else {
                bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            }
            PromptBlob::decode(&bytes).map_err(|e| Usage(format!("{}: {e}", path.display())))?
        }
        (None, None) => return Err(Usage("give the question with --question, or --file".into()).into()),
    };
    Ok(blob.encode().map_err(|e| Usage(e.to_string()))?)
}

/// Puts the input where the drawn nodes can fetch it, and says where that is.
async fn host(
    session: &Session,
    hosting: &HostingArgs,
    bytes: Bytes,
) -> anyhow::Result<(TaskInput, Option<Host>)> {
    let hash = commit::blake2(&bytes);
    if let Some(listen) = hosting.listen {
        let server = Host::start(session.client.clone(), listen).await?;
        server.put(bytes).await?;
        let url = hosting.blob_url.clone().unwrap_or_else(|| server.url().to_owned());
        return Ok((TaskInput { hash, url }, Some(server)));
    }
    let Some(url) = hosting.blob_url.clone() else {
        return Err(Usage("say where the input can be fetched: --listen, or --blob-url".into()).into());
    };
    if let Some(store) = &hosting.blob_dir {
        let store = BlobStore::open(store, StoreLimits::default()).context("--blob-dir")?;
        store.put(bytes).await.context("--blob-dir")?;
    }
    Ok((TaskInput { hash, url }, None))
}

/// Refuses a prompt in a language that the kind's rubric was not calibrated for: its scores, and so the payment, would mean
/// nothing. Of a rubric that this build does not know nothing can be said.
fn check_language(rubric: Hash, input: &[u8]) -> anyhow::Result<()> {
    let Some(rubric) = Rubric::builtin_with_hash(RubricHash(rubric)) else { return Ok(()) };
    let prompt = PromptBlob::decode(input).map_err(|e| Usage(e.to_string()))?;
    let query = Query { context: prompt.context, question: prompt.question };
    Ok(rubric.supports(&query).map_err(|e| Refused(e.to_string()))?)
}

async fn request(args: RequestArgs) -> anyhow::Result<()> {
    let bytes = input_bytes(&args)?;
    let reference = args.reference.as_deref().map(read_reference).transpose()?;
    let session = args.connection.contract().await?;
    let keys = load_keys(&args.signer.key_file, args.signer.password_file.as_deref())?;
    let submitter = session.client.submitter(keys.clone());
    let view = session.client.view().await?;
    let kind = view.kind(args.kind).await?.ok_or_else(|| {
        Refused(format!("there is no task kind {}; `poq params show` lists them", args.kind))
    })?;
    let bounds = &kind.params;
    let panel = args.panel.unwrap_or(bounds.panel_min);
    if args.outputs > bounds.outputs_max || !(bounds.panel_min..=bounds.panel_max).contains(&panel) {
        let text = format!(
            "kind {} takes 1 to {} answers and {} to {} evaluators, not {} and {panel}",
            args.kind, bounds.outputs_max, bounds.panel_min, bounds.panel_max, args.outputs
        );
        return Err(Refused(text).into());
    }
    check_language(bounds.rubric_hash, &bytes)?;
    let fee = match &args.fee {
        Some(fee) => session.raw(fee)?,
        None => {
            let quote = view.quote(args.kind, args.outputs, panel).await?;
            let missing = || Refused(format!("kind {} quotes no fee for that many", args.kind));
            quote.map(|quote| quote.fee_min).ok_or_else(missing)?
        }
    };

    let (input, server) = host(&session, &args.hosting, bytes).await?;
    let mut salt = [0u8; 32];
    rand::rng().fill_bytes(&mut salt);
    // Without a reference the commitment is random bytes: nobody can tell the two apart.
    let reference_commitment = match &reference {
        Some(reference) => {
            let auditor = args.auditor.unwrap_or_else(|| keys.account());
            let contract = session.client.contract()?;
            commit::reference(&contract, &auditor, &commit::blake2(reference.as_bytes()), &salt)
        }
        None => salt,
    };
    let message =
        messages::request_task(args.kind, args.outputs, panel, input.clone(), reference_commitment, fee);
    let receipt = submitter.send(message).await?;
    let task = receipt.value;
    let view = task_of(&session, task).await?;
    let nodes: Vec<u32> = view.task.outputs.iter().map(|slot| slot.node).collect();
    let mut value = json!({
        "task": task,
        "fee_paid": fee.to_string(),
        "input": { "hash": format!("0x{}", hex::encode(input.hash)), "url": input.url },
        "nodes": nodes,
        "deadline": view.task.deadline,
    });
    let mut text = format!(
        "task {task} is requested for {}; it was drawn to {}",
        session.unit.show(fee),
        names("node", &nodes)
    );
    if let Some(reference) = reference {
        let path = args.ticket.clone().unwrap_or_else(|| format!("gold-task-{task}.json").into());
        let ticket = Ticket {
            contract: session.address(&session.client.contract()?),
            task,
            auditor: session.address(&args.auditor.unwrap_or_else(|| keys.account())),
            reference,
            salt: format!("0x{}", hex::encode(salt)),
        };
        // The task is requested and paid for: what opens it must not be lost with a file that cannot be written.
        match ticket.write(&path) {
            Ok(()) => {
                text = format!("{text}\n{} opens its reference: `poq audit open {0}`", path.display());
                value["ticket"] = json!(path);
            }
            Err(error) => {
                let text = format!("{error:#}; this is what opens the reference:\n{}", ticket.text()?);
                eprintln!("error: {text}");
                value["ticket_text"] = serde_json::to_value(&ticket)?;
            }
        }
    }
    if !args.wait && server.is_none() {
        return sent(&session, args.output, &receipt, value, text);
    }

    if !args.output.json {
        crate::cli::output::write_out(&text)?;
    }
    let outcome = until_final(&session, task, args.timeout, !args.output.json).await;
    let answers = match &outcome {
        Ok(view) if view.task.phase == Phase::Settled => fetch_answers(&session, &keys, view).await?,
        _ => Vec::new(),
    };
    if let Some(server) = server {
        server.stop().await;
    }
    let view = outcome?;
    args.output.printer().print(
        || {
            value["outcome"] = view.to_json();
            value["answers"] = Value::Array(answers.iter().map(Answer::json).collect());
            value
        },
        || format!("{}\n{}", describe(&session, &view), show_answers(&answers)),
    )
}

fn names(what: &str, numbers: &[u32]) -> String {
    let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{what}{} {list}", if numbers.len() == 1 { "" } else { "s" })
}

/// Waits until the task is final, telling every change of phase on standard error.
pub(crate) async fn until_final(
    session: &Session,
    task: TaskId,
    timeout: Duration,
    progress: bool,
) -> anyhow::Result<TaskView> {
    let following = async {
        let mut blocks = session.client.best_watch();
        let mut last = None;
        loop {
            let view = task_of(session, task).await?;
            if progress && last != Some(view.task.phase) {
                eprintln!(
                    "{}  task {task}: {}",
                    time(blocks.borrow().timestamp_ms),
                    phase_name(view.task.phase)
                );
            }
            last = Some(view.task.phase);
            if view.task.phase.is_final() {
                return anyhow::Ok(view);
            }
            // A node that seals a block only when a transaction arrives may announce none for long: look again anyway.
            let _ = tokio::time::timeout(Duration::from_secs(5), blocks.changed()).await;
        }
    };
    match tokio::time::timeout(timeout, following).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!(
                "task {task} was not final within {}; `poq task show {task}` tells where it stands",
                humantime::format_duration(timeout)
            );
            Err(TimedOut(text).into())
        }
    }
}

/// One answer, checked against its commitment.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) node: u32,
    /// Its consensus, once the task is settled.
    pub(crate) quality: Option<f64>,
    /// Its text, or why it cannot be had.
    pub(crate) result: Result<String, String>,
}

impl Answer {
    fn json(&self) -> Value {
        let (text, error) = match &self.result {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(error)),
        };
        json!({ "node": self.node, "quality": self.quality, "text": text, "error": error })
    }
}

/// Signs a requester's fetches.
struct FetchSigner(Keys);

impl RequestSigner for FetchSigner {
    fn account(&self) -> AccountId32 {
        self.0.account()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// The outputs of a task in their order, each checked against its commitment, or why it cannot be had. `keys` are those of
/// the task's requester.
pub(crate) async fn fetch_outputs(
    session: &Session,
    keys: &Keys,
    view: &TaskView,
) -> anyhow::Result<Vec<Result<FetchedOutput, String>>> {
    let contract = session.client.contract()?;
    let client = BlobClient::new(ClientConfig::new(contract.0), Arc::new(FetchSigner(keys.clone())))?;
    let chain = session.client.view().await?;
    let mut outputs = Vec::new();
    for slot in &view.task.outputs {
        outputs.push(match chain.node(slot.node).await? {
            _ if slot.committed_at == 0 => Err("the node has not answered".into()),
            None => Err("the node is gone".into()),
            Some(node) => client
                .fetch_output(&node.info.endpoint, view.id, slot.node, &slot.commitment)
                .await
                .map_err(|e| e.to_string()),
        });
    }
    Ok(outputs)
}

pub(crate) async fn fetch_answers(
    session: &Session,
    keys: &Keys,
    view: &TaskView,
) -> anyhow::Result<Vec<Answer>> {
    let outputs = fetch_outputs(session, keys, view).await?;
    let answer = |(slot, output): (&OutputSlot, Result<FetchedOutput, String>)| Answer {
        node: slot.node,
        quality: slot.quality.quality().map(|quality| f64::from(quality.ppb()) / 1e9),
        result: output.map(|output| String::from_utf8_lossy(&output.bytes).into_owned()),
    };
    Ok(view.task.outputs.iter().zip(outputs).map(answer).collect())
}

fn show_answers(answers: &[Answer]) -> String {
    let answer = |answer: &Answer| {
        let quality = answer.quality.map_or_else(|| "unscored".into(), |q| format!("quality {q:.3}"));
        match &answer.result {
            Ok(text) => format!("node {} ({quality}): {}", answer.node, text.trim()),
            Err(error) => format!("node {} ({quality}): not to be had: {error}", answer.node),
        }
    };
    answers.iter().map(answer).collect::<Vec<_>>().join("\n")
}

async fn answers(args: AnswersArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let keys = load_keys(&args.signer.key_file, args.signer.password_file.as_deref())?;
    let view = task_of(&session, args.task).await?;
    let answers = fetch_answers(&session, &keys, &view).await?;
    args.output
        .printer()
        .print(|| Value::Array(answers.iter().map(Answer::json).collect()), || show_answers(&answers))?;
    anyhow::ensure!(answers.iter().any(|a| a.result.is_ok()), "no answer of task {} could be had", args.task);
    Ok(())
}

async fn show(args: TaskShowArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let view = task_of(&session, args.task).await?;
    args.output.printer().print(|| view.to_json(), || describe(&session, &view))
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
    let session = args.connection.contract().await?;
    let mut tasks = session.client.view().await?.all_tasks(args.from).await?;
    tasks.retain(|view| args.requester.as_ref().is_none_or(|who| to_account32(&view.task.requester) == *who));
    tasks.truncate(args.limit);
    args.output.printer().print(
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
    let session = args.connection.contract().await?;
    let view = until_final(&session, args.task, args.timeout, !args.output.json).await?;
    args.output.printer().print(|| view.to_json(), || describe(&session, &view))
}

async fn collect(args: CollectArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let tasks = if args.all {
        let account = submitter.account();
        let mut tasks = Vec::new();
        let view = session.client.view().await?;
        for id in view.balances(&account).await?.tasks {
            tasks.extend(view.task(id).await?.filter(|view| view.task.phase.is_final()).map(|view| view.id));
        }
        tasks
    } else {
        args.tasks
    };
    let (mut total, mut fees) = (0u128, 0u128);
    for batch in tasks.chunks(MAX_BATCH) {
        let receipt = submitter.send(messages::collect(batch.to_vec())).await?;
        total = total.saturating_add(receipt.value);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
    }
    args.output.printer().print(
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
