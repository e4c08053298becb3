//! Following a task: its answers as soon as they may be had, its scores as they are revealed, its end. Whoever only watches needs
//! no key; the requester's own key draws the panel and passes the reveals on ([`poq_worker::requester`]).

use crate::cli::connect::Session;
use crate::cli::exit::TimedOut;
use crate::cli::output::{time, write_out};
use crate::cli::task::{ending_text, names, phase_name, score, task_of};
use bytes::Bytes;
use futures::future::join_all;
use poq_blobs::{BlobClient, ClientConfig, RequestSigner};
use poq_chain::types::{NodeId, OutputSlot, OutputState, SeatState, TaskId, TaskView};
use poq_chain::{AccountId32, Keys, Submitter};
use poq_worker::requester::{Progress, Requester, RequesterOptions, Seen};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long one round of fetching may take: a node that does not answer must not hide what others have to say.
const FETCH: Duration = Duration::from_secs(15);
/// How often a task is looked at where no block is announced.
const LOOK: Duration = Duration::from_secs(1);

/// One answer, checked against its hash on chain.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) node: NodeId,
    /// Its consensus, once the task is settled.
    pub(crate) quality: Option<f64>,
    /// Its text, or why it cannot be had.
    pub(crate) result: Result<String, String>,
}

impl Answer {
    /// Of a task's output.
    pub(crate) fn new(slot: &OutputSlot, result: Result<Bytes, String>) -> Answer {
        let result = result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Answer { node: slot.node, quality: slot.quality.quality().map(|quality| quality.to_f64()), result }
    }

    pub(super) fn json(&self) -> Value {
        let (text, error) = match &self.result {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(error)),
        };
        json!({ "node": self.node, "quality": self.quality, "text": text, "error": error })
    }
}

pub(super) fn show_answers(answers: &[Answer]) -> String {
    let answer = |answer: &Answer| {
        let quality = answer.quality.map_or_else(|| "unscored".into(), |q| format!("quality {q:.3}"));
        match &answer.result {
            Ok(text) => format!("node {} ({quality}): {}", answer.node, text.trim()),
            Err(error) => format!("node {} ({quality}): not to be had: {error}", answer.node),
        }
    };
    answers.iter().map(answer).collect::<Vec<_>>().join("\n")
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

/// Fetches a task's outputs from the nodes that gave them.
pub(crate) struct Fetcher<'a> {
    session: &'a Session,
    client: BlobClient,
}

impl<'a> Fetcher<'a> {
    /// With the keys of the task's requester.
    pub(crate) async fn new(session: &'a Session, keys: &Keys) -> anyhow::Result<Fetcher<'a>> {
        let network = session.client.network().await?;
        let client = BlobClient::new(ClientConfig::new(network.hash), Arc::new(FetchSigner(keys.clone())))?;
        Ok(Fetcher { session, client })
    }

    async fn one(&self, view: &TaskView, slot: &OutputSlot) -> anyhow::Result<Result<Bytes, String>> {
        match slot.state {
            OutputState::Assigned => return Ok(Err("the node has not answered".into())),
            OutputState::Declined => return Ok(Err("the node has declined".into())),
            OutputState::Committed => {
                return Ok(Err("the node has answered, and its answer is not opened yet".into()))
            }
            OutputState::Opened => {}
        }
        let Some(node) = self.session.client.view().await?.node(slot.node).await? else {
            return Ok(Err("the node is gone".into()));
        };
        let fetched = self.client.fetch_output(&node.info.endpoint, view.id, slot.node, &slot.hash);
        Ok(match tokio::time::timeout(FETCH, fetched).await {
            Ok(fetched) => fetched.map_err(|e| e.to_string()),
            Err(_) => Err(format!("{} did not answer in time", node.info.endpoint)),
        })
    }

    /// All of a task's outputs in their order, each checked against its hash on chain, or why it cannot be had.
    pub(crate) async fn all(&self, view: &TaskView) -> anyhow::Result<Vec<Result<Bytes, String>>> {
        join_all(view.task.outputs.iter().map(|slot| self.one(view, slot))).await.into_iter().collect()
    }

    /// All of a task's answers as text.
    pub(crate) async fn answers(&self, view: &TaskView) -> anyhow::Result<Vec<Answer>> {
        let outputs = self.all(view).await?;
        Ok(view.task.outputs.iter().zip(outputs).map(|(slot, output)| Answer::new(slot, output)).collect())
    }
}

/// The scores of who has revealed, each told once.
#[derive(Default)]
struct Scores(BTreeSet<NodeId>);

impl Scores {
    fn tell(&mut self, view: &TaskView) -> anyhow::Result<()> {
        for seat in view.task.panel.iter().filter(|seat| seat.state == SeatState::Revealed) {
            if !self.0.insert(seat.node) {
                continue;
            }
            let scores: Vec<String> = view
                .task
                .outputs
                .iter()
                .zip(&seat.scores)
                .map(|(slot, given)| format!("node {} {}", slot.node, score(*given)))
                .collect();
            write_out(&format!("scores of node {}: {}", seat.node, scores.join(", ")))?;
        }
        Ok(())
    }
}

fn timed_out(tasks: &[TaskId], timeout: Duration, goes_on: &str) -> anyhow::Error {
    let numbers = tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    TimedOut(format!(
        "{} {} not final within {}; `poq task show` tells where a task stands, `{goes_on} {numbers}` goes on waiting",
        names("task", tasks),
        if tasks.len() == 1 { "was" } else { "were" },
        humantime::format_duration(timeout)
    ))
    .into()
}

/// Waits until the task is final, as anybody may; `aloud` tells every change.
pub(super) async fn watch(
    session: &Session,
    task: TaskId,
    timeout: Duration,
    aloud: bool,
) -> anyhow::Result<TaskView> {
    let following = async {
        let mut blocks = session.client.best_watch();
        let (mut told, mut scores) = (None, Scores::default());
        loop {
            let now = session.client.upcoming().timestamp_ms;
            let view = task_of(session, task).await?;
            let phase = view.task.clock().at(now).0;
            if aloud && told != Some(phase) {
                eprintln!("{}  task {task}: {}", time(now), phase_name(phase));
                told = Some(phase);
            }
            if aloud {
                scores.tell(&view)?;
            }
            if view.task.phase.is_final() {
                return anyhow::Ok(view);
            }
            // A node that seals a block only when a transaction arrives may announce none for long: look again anyway.
            let _ = tokio::time::timeout(LOOK, blocks.changed()).await;
        }
    };
    match tokio::time::timeout(timeout, following).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(&[task], timeout, "poq task wait")),
    }
}

/// What becomes of a task, in words.
pub(crate) fn progress_text(progress: &Progress) -> String {
    match progress {
        Progress::Sealed { delivered, declined: 0 } => {
            format!("{delivered} answered; waiting for the openings")
        }
        Progress::Sealed { delivered, declined } => {
            format!("{delivered} answered, {declined} declined; waiting for the openings")
        }
        Progress::Drawn { panel } => format!("the panel is drawn: {}", names("node", panel)),
        Progress::Short => "too few evaluators can be drawn now: trying again".into(),
        Progress::Committed => "the panel has committed to its scores".into(),
        Progress::Output { node, bytes } => {
            format!("answer of node {node}: {}", String::from_utf8_lossy(bytes).trim())
        }
        Progress::Ended { ending } => ending_text(*ending).into(),
        Progress::Waiting { why } => format!("waiting: {why}"),
    }
}

/// A task at its end, with what it brought.
pub(crate) struct Followed {
    /// The task.
    pub(crate) task: TaskId,
    /// Where it stands; `None` where somebody has collected it.
    pub(crate) view: Option<TaskView>,
    /// Its answers.
    pub(crate) answers: Vec<Answer>,
}

impl Followed {
    fn of(seen: Seen) -> Followed {
        let Seen { task, view, outputs } = seen;
        let slots = view.iter().flat_map(|view| &view.task.outputs);
        let answers = slots
            .zip(outputs)
            .map(|(slot, output)| {
                let missing = || match slot.state {
                    OutputState::Assigned => "the node has not answered",
                    OutputState::Declined => "the node has declined",
                    OutputState::Committed => "the node did not open its answer",
                    OutputState::Opened => "it could not be fetched",
                };
                Answer::new(slot, output.ok_or_else(|| missing().into()))
            })
            .collect();
        Followed { task, view, answers }
    }

    /// For scripts.
    pub(crate) fn answers_json(&self) -> Value {
        Value::Array(self.answers.iter().map(Answer::json).collect())
    }
}

/// Sees the requester's tasks through with its key: draws their panels, passes reveals on, fetches the answers. `aloud` tells
/// every change; answers and scores are results.
pub(crate) async fn see_through(
    submitter: Submitter,
    tasks: &[TaskId],
    timeout: Duration,
    aloud: bool,
) -> anyhow::Result<Vec<Followed>> {
    let client = submitter.client().clone();
    let requester = Requester::new(submitter, RequesterOptions::default()).await?;
    let mut unwritten = None;
    let told = |task: TaskId, progress: Progress| {
        if !aloud {
            return;
        }
        let text = progress_text(&progress);
        match progress {
            Progress::Output { .. } => {
                if let Err(error) = write_out(&text) {
                    unwritten.get_or_insert(error);
                }
            }
            _ => eprintln!("{}  task {task}: {text}", time(client.upcoming().timestamp_ms)),
        }
    };
    let seen = match tokio::time::timeout(timeout, requester.see_through(tasks, told)).await {
        Ok(seen) => seen?,
        Err(_) => return Err(timed_out(tasks, timeout, "poq task follow")),
    };
    if let Some(error) = unwritten {
        return Err(error);
    }
    let followed: Vec<Followed> = seen.into_iter().map(Followed::of).collect();
    if aloud {
        for view in followed.iter().filter_map(|followed| followed.view.as_ref()) {
            Scores::default().tell(view)?;
        }
    }
    Ok(followed)
}
