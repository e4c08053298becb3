//! Following a task: its answers as soon as they may be had, its scores as they are revealed, its end.

use crate::cli::connect::Session;
use crate::cli::exit::TimedOut;
use crate::cli::output::{time, write_out};
use crate::cli::task::{phase_name, score, task_of};
use futures::future::join_all;
use poq_blobs::{BlobClient, ClientConfig, FetchedOutput, RequestSigner};
use poq_chain::types::{NodeId, OutputSlot, Phase, SeatState, TaskId, TaskView};
use poq_chain::{AccountId32, Keys};
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long one round of fetching may take: a node that does not answer must not hide what others have to say.
const FETCH: Duration = Duration::from_secs(15);
/// How often a task is looked at where no block is announced.
const LOOK: Duration = Duration::from_secs(1);

/// One answer, checked against its commitment.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) node: NodeId,
    /// Its consensus, once the task is settled.
    pub(crate) quality: Option<f64>,
    /// Its text, or why it cannot be had.
    pub(crate) result: Result<String, String>,
}

impl Answer {
    fn new(slot: &OutputSlot, result: Result<String, String>) -> Answer {
        let quality = slot.quality.quality().map(|quality| f64::from(quality.ppb()) / 1e9);
        Answer { node: slot.node, quality, result }
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
    pub(crate) fn new(session: &'a Session, keys: &Keys) -> anyhow::Result<Fetcher<'a>> {
        let contract = session.client.contract()?;
        let client = BlobClient::new(ClientConfig::new(contract.0), Arc::new(FetchSigner(keys.clone())))?;
        Ok(Fetcher { session, client })
    }

    async fn one(&self, view: &TaskView, slot: &OutputSlot) -> anyhow::Result<Result<FetchedOutput, String>> {
        if slot.committed_at == 0 {
            return Ok(Err("the node has not answered".into()));
        }
        let Some(node) = self.session.client.view().await?.node(slot.node).await? else {
            return Ok(Err("the node is gone".into()));
        };
        let fetched = self.client.fetch_output(&node.info.endpoint, view.id, slot.node, &slot.commitment);
        Ok(match tokio::time::timeout(FETCH, fetched).await {
            Ok(fetched) => fetched.map_err(|e| e.to_string()),
            Err(_) => Err(format!("{} did not answer in time", node.info.endpoint)),
        })
    }

    /// All of a task's outputs in their order, each checked against its commitment, or why it cannot be had.
    pub(crate) async fn all(&self, view: &TaskView) -> anyhow::Result<Vec<Result<FetchedOutput, String>>> {
        join_all(view.task.outputs.iter().map(|slot| self.one(view, slot))).await.into_iter().collect()
    }

    /// All of a task's answers as text.
    pub(crate) async fn answers(&self, view: &TaskView) -> anyhow::Result<Vec<Answer>> {
        let outputs = self.all(view).await?;
        let answer = |(slot, output): (&OutputSlot, Result<FetchedOutput, String>)| {
            Answer::new(slot, output.map(|output| text(&output)))
        };
        Ok(view.task.outputs.iter().zip(outputs).map(answer).collect())
    }
}

fn text(output: &FetchedOutput) -> String {
    String::from_utf8_lossy(&output.bytes).into_owned()
}

/// What has been told of a task so far.
struct Telling<'a> {
    fetcher: Option<Fetcher<'a>>,
    /// Whether a person watches.
    aloud: bool,
    phase: Option<Phase>,
    answers: BTreeMap<NodeId, Result<String, String>>,
    scores: BTreeSet<NodeId>,
}

impl Telling<'_> {
    /// Tells what is new. Phases go to standard error, answers and scores are results.
    async fn tell(&mut self, view: &TaskView, now: u64) -> anyhow::Result<()> {
        if self.aloud && self.phase != Some(view.task.phase) {
            eprintln!("{}  task {}: {}", time(now), view.id, phase_name(view.task.phase));
        }
        self.phase = Some(view.task.phase);
        self.fetch(view, now).await?;
        if self.aloud {
            self.tell_scores(view)?;
        }
        Ok(())
    }

    /// Answers are served once no other one can be committed to any more: so say the nodes' servers, by the best block.
    async fn fetch(&mut self, view: &TaskView, now: u64) -> anyhow::Result<()> {
        let Some(fetcher) = &self.fetcher else { return Ok(()) };
        if view.task.clock().at(now).0 == Phase::Inferring {
            return Ok(());
        }
        let missing = view
            .task
            .outputs
            .iter()
            .filter(|slot| slot.committed_at > 0 && !matches!(self.answers.get(&slot.node), Some(Ok(_))));
        let fetched =
            join_all(missing.map(|slot| async { (slot.node, fetcher.one(view, slot).await) })).await;
        for (node, output) in fetched {
            let answer = output?.map(|output| text(&output));
            if let (true, Ok(answer)) = (self.aloud, &answer) {
                write_out(&format!("answer of node {node}: {}", answer.trim()))?;
            }
            self.answers.insert(node, answer);
        }
        Ok(())
    }

    fn tell_scores(&mut self, view: &TaskView) -> anyhow::Result<()> {
        for seat in view.task.panel.iter().filter(|seat| seat.state == SeatState::Revealed) {
            if !self.scores.insert(seat.node) {
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

    fn into_answers(self, view: &TaskView) -> Vec<Answer> {
        let mut answers = self.answers;
        view.task
            .outputs
            .iter()
            .map(|slot| {
                let missing = || Err("the node has not answered".into());
                Answer::new(slot, answers.remove(&slot.node).unwrap_or_else(missing))
            })
            .collect()
    }
}

/// Waits until the task is final. With the requester's keys its answers are fetched and told as soon as they may be had;
/// `aloud` tells every change.
pub(crate) async fn follow(
    session: &Session,
    keys: Option<&Keys>,
    task: TaskId,
    timeout: Duration,
    aloud: bool,
) -> anyhow::Result<(TaskView, Vec<Answer>)> {
    let fetcher = keys.map(|keys| Fetcher::new(session, keys)).transpose()?;
    let mut telling =
        Telling { fetcher, aloud, phase: None, answers: BTreeMap::new(), scores: BTreeSet::new() };
    let following = async {
        let mut blocks = session.client.best_watch();
        loop {
            let now = session.client.best().await?.timestamp_ms;
            let view = task_of(session, task).await?;
            telling.tell(&view, now).await?;
            if view.task.phase.is_final() {
                return anyhow::Ok(view);
            }
            // A node that seals a block only when a transaction arrives may announce none for long: look again anyway.
            let _ = tokio::time::timeout(LOOK, blocks.changed()).await;
        }
    };
    match tokio::time::timeout(timeout, following).await {
        Ok(result) => {
            let view = result?;
            let answers = telling.into_answers(&view);
            Ok((view, answers))
        }
        Err(_) => {
            let text = format!(
                "task {task} was not final within {}; `poq task show {task}` tells where it stands, `poq task wait {task}` goes on \
                 waiting",
                humantime::format_duration(timeout)
            );
            Err(TimedOut(text).into())
        }
    }
}
