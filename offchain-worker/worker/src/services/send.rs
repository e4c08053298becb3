//! Sends duties: alone, or several of one kind of one operator in one transaction.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use poq_chain::types::{
    Commit, Decline, DeclineReason, Hash, Millis, NodeId, Open, Opened, Refusal, Reveal, TaskId, MAX_BATCH,
};
use poq_chain::{messages, ContractError, Message};
use poq_journal::{Duty, State};

use super::class_label;
use super::operator::Operator;
use crate::failpoint::hit;
use crate::metrics::{self, DutyStep};

/// How long the reveals of others are waited for: they ride along, or go alone.
const GATHER: Duration = Duration::from_secs(3);

/// A duty that can be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) duty: Duty,
    pub(crate) deadline: Millis,
    pub(crate) item: Item,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Output(Hash),
    Decline(DeclineReason),
    Open(Opened),
    Scores(Hash),
    Reveal {
        reveal: Reveal,
        /// The others of the panel whose reveals are not on chain yet, with their commitments.
        others: Vec<(NodeId, Hash)>,
    },
}

impl Ready {
    pub(crate) fn step(&self) -> DutyStep {
        match self.item {
            Item::Output(_) => DutyStep::CommitOutput,
            Item::Decline(_) => DutyStep::Decline,
            Item::Open(_) => DutyStep::OpenOutput,
            Item::Scores(_) => DutyStep::CommitScores,
            Item::Reveal { .. } => DutyStep::RevealScores,
        }
    }

    fn commit(&self) -> Option<Commit> {
        let Duty { task, node, .. } = self.duty;
        match self.item {
            Item::Output(commitment) | Item::Scores(commitment) => Some(Commit { task, node, commitment }),
            _ => None,
        }
    }

    fn decline(&self) -> Option<Decline> {
        let Duty { task, node, .. } = self.duty;
        match self.item {
            Item::Decline(reason) => Some(Decline { task, node, reason }),
            _ => None,
        }
    }

    fn open(&self) -> Option<Open> {
        let Duty { task, node, .. } = self.duty;
        match self.item {
            Item::Open(opened) => Some(Open { task, node, opened }),
            _ => None,
        }
    }

    fn reveal(&self) -> Option<Reveal> {
        match &self.item {
            Item::Reveal { reveal, .. } => Some(reveal.clone()),
            _ => None,
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) duty: Duty,
    pub(crate) step: DutyStep,
    pub(crate) failure: Option<Failure>,
}

/// Why it was not accepted.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The contract said no.
    Rejected(ContractError),
    /// The call did not come to the contract, or nobody knows.
    Call { text: String, lacks_funds: bool },
}

impl Failure {
    fn of(error: &poq_chain::Error) -> Failure {
        match error.rejection() {
            Some(rejection) => Failure::Rejected(rejection),
            None => Failure::Call {
                text: error.to_string(),
                lacks_funds: matches!(error, poq_chain::Error::InsufficientFunds { .. }),
            },
        }
    }
}

/// Sends duties of one step, at most a batch of them. What was accepted shows in the chain's state, which is read again
/// anyway; what was refused is told per duty.
pub(crate) async fn send(operator: &Operator, step: DutyStep, ready: Vec<Ready>) -> Vec<Sent> {
    // To decline promises nothing, so that nothing is recorded of it.
    if step != DutyStep::Decline {
        let duties: Vec<Duty> = ready.iter().map(|ready| ready.duty).collect();
        let noted = operator
            .ctx
            .journal(move |journal| {
                duties.iter().try_for_each(|duty| journal.advance(duty, State::Sent).map(drop))
            })
            .await;
        if let Err(error) = noted {
            // Nothing is signed that is not on disk.
            let failure = Failure::Call { text: error.to_string(), lacks_funds: false };
            return ready.iter().map(|ready| sent(ready, Some(failure.clone()))).collect();
        }
    }
    hit(before(step));
    let others = match step {
        DutyStep::RevealScores => gather(operator, &ready).await,
        _ => Vec::new(),
    };
    let outcome = batch(operator, step, ready, others).await;
    hit(after(step));
    outcome
}

/// The reveals of the others on the panels, as far as they serve them: who brings all of a task's settles it.
async fn gather(operator: &Operator, ready: &[Ready]) -> Vec<Reveal> {
    let own: BTreeSet<(TaskId, NodeId)> =
        ready.iter().map(|ready| (ready.duty.task, ready.duty.node)).collect();
    let mut wanted: BTreeSet<(TaskId, NodeId, Hash)> = BTreeSet::new();
    for ready in ready {
        if let Item::Reveal { others, .. } = &ready.item {
            wanted.extend(others.iter().map(|(node, commitment)| (ready.duty.task, *node, *commitment)));
        }
    }
    wanted.retain(|(task, node, _)| !own.contains(&(*task, *node)));
    let room = MAX_BATCH.saturating_sub(ready.len());
    let fetched = wanted.into_iter().take(room).map(|(task, node, commitment)| async move {
        let fetch = async {
            let endpoint = operator.endpoint(node).await?;
            operator.fetcher.fetch_reveal(&endpoint, task, node, &commitment).await
        };
        match tokio::time::timeout(GATHER, fetch).await {
            Ok(Ok(reveal)) => Some(reveal),
            Ok(Err(error)) => {
                tracing::debug!(task, node, %error, "its reveal is not served");
                None
            }
            Err(_) => None,
        }
    });
    join_all(fetched).await.into_iter().flatten().collect()
}

async fn batch(operator: &Operator, step: DutyStep, ready: Vec<Ready>, others: Vec<Reveal>) -> Vec<Sent> {
    let (mut good, mut others, mut outcome) = (ready, others, Vec::new());
    if good.len().saturating_add(others.len()) > 1 {
        // A batch succeeds as a whole whatever becomes of its items: the dry run tells which would be refused, and those are
        // left out, so that nobody pays for them.
        match operator.submitter.dry_run(&message(step, &good, &others)).await {
            Ok(dry) => {
                let mut told = dry.value.into_iter();
                let mut kept = Vec::with_capacity(good.len());
                for ready in good {
                    match told.next().flatten() {
                        Some(error) if !is_early(error) => {
                            metrics::call_failed(step.label(), "rejected");
                            outcome.push(sent(&ready, Some(Failure::Rejected(error))));
                        }
                        _ => kept.push(ready),
                    }
                }
                good = kept;
                others.retain(|_| told.next().flatten().is_none());
            }
            // The submitter waits for the block that it is too early for.
            Err(error) if error.rejection().is_some_and(is_early) => {}
            Err(error) => {
                metrics::call_failed(step.label(), class_label(&error));
                let failure = Failure::of(&error);
                return good.iter().map(|ready| sent(ready, Some(failure.clone()))).collect();
            }
        }
    }
    if good.is_empty() {
        return outcome;
    }
    let items = good.len().saturating_add(others.len());
    let begun = Instant::now();
    let result = operator.submitter.send(message(step, &good, &others)).await;
    match &result {
        Ok(receipt) => {
            metrics::call_succeeded(step.label(), items, begun.elapsed());
            tracing::info!(step = step.label(), items, block = receipt.block.number, "sent");
        }
        Err(error) => metrics::call_failed(step.label(), class_label(error)),
    }
    let failure = result.err().map(|error| Failure::of(&error));
    outcome.extend(good.iter().map(|ready| sent(ready, failure.clone())));
    outcome
}

fn is_early(error: ContractError) -> bool {
    matches!(error, ContractError::Task(Refusal::TooEarly | Refusal::WrongPhase))
}

fn message(step: DutyStep, ready: &[Ready], others: &[Reveal]) -> Message<Vec<Option<ContractError>>> {
    match step {
        DutyStep::CommitOutput => messages::commit_outputs(ready.iter().filter_map(Ready::commit).collect()),
        DutyStep::Decline => messages::decline(ready.iter().filter_map(Ready::decline).collect()),
        DutyStep::OpenOutput => messages::open_outputs(ready.iter().filter_map(Ready::open).collect()),
        DutyStep::CommitScores => messages::commit_scores(ready.iter().filter_map(Ready::commit).collect()),
        DutyStep::RevealScores => {
            let own = ready.iter().filter_map(Ready::reveal);
            messages::reveal_scores(own.chain(others.iter().cloned()).collect())
        }
    }
}

fn sent(ready: &Ready, failure: Option<Failure>) -> Sent {
    Sent { duty: ready.duty, step: ready.step(), failure }
}

fn before(step: DutyStep) -> &'static str {
    match step {
        DutyStep::CommitOutput | DutyStep::Decline => "output_before_commit",
        DutyStep::OpenOutput => "open_before",
        DutyStep::CommitScores => "scores_before_commit",
        DutyStep::RevealScores => "reveal_before",
    }
}

fn after(step: DutyStep) -> &'static str {
    match step {
        DutyStep::CommitOutput | DutyStep::Decline => "output_after_commit",
        DutyStep::OpenOutput => "open_after",
        DutyStep::CommitScores => "scores_after_commit",
        DutyStep::RevealScores => "reveal_after",
    }
}
