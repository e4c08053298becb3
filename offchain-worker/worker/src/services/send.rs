//! Sends duties: alone, or several of one kind of one operator in one transaction.

use std::time::Instant;

use parity_scale_codec::Decode;
use poq_chain::types::{Commit, Hash, Millis, Reveal};
use poq_chain::{messages, ContractError, Message, Receipt};
use poq_journal::{Duty, State};

use super::class_label;
use super::operator::Operator;
use crate::failpoint::hit;
use crate::metrics::{self, DutyStep};

/// A duty that is journalled and can be sent.
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
    Scores(Hash),
    Reveal(Reveal),
}

impl Ready {
    pub(crate) fn step(&self) -> DutyStep {
        match self.item {
            Item::Output(_) => DutyStep::CommitOutput,
            Item::Scores(_) => DutyStep::CommitScores,
            Item::Reveal(_) => DutyStep::RevealScores,
        }
    }

    fn commit(&self) -> Option<Commit> {
        match self.item {
            Item::Output(commitment) | Item::Scores(commitment) => {
                Some(Commit { task: self.duty.task, node: self.duty.node, commitment })
            }
            Item::Reveal(_) => None,
        }
    }

    fn reveal(&self) -> Option<Reveal> {
        match &self.item {
            Item::Reveal(reveal) => Some(reveal.clone()),
            Item::Output(_) | Item::Scores(_) => None,
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
    hit(before(step));
    let outcome =
        if ready.len() > 1 { batch(operator, step, ready).await } else { single(operator, ready).await };
    hit(after(step));
    outcome
}

async fn single(operator: &Operator, ready: Vec<Ready>) -> Vec<Sent> {
    let mut outcome = Vec::with_capacity(ready.len());
    for ready in ready {
        let Ready { duty, item, .. } = &ready;
        let message = match item {
            Item::Output(commitment) => messages::commit_output(duty.task, duty.node, *commitment),
            Item::Scores(commitment) => messages::commit_scores(duty.task, duty.node, *commitment),
            Item::Reveal(reveal) => messages::reveal_scores(reveal.clone()),
        };
        let result = call(operator, ready.step(), message, 1).await;
        outcome.push(sent(&ready, result.err().map(|error| Failure::of(&error))));
    }
    outcome
}

async fn batch(operator: &Operator, step: DutyStep, ready: Vec<Ready>) -> Vec<Sent> {
    // A batch succeeds as a whole whatever becomes of its items: the dry run tells which would be refused, and those are
    // left out, so that nobody pays for them.
    let dry = match operator.submitter.dry_run(&message(step, &ready)).await {
        Ok(dry) => dry.value,
        Err(error) => {
            metrics::call_failed(step.label(), class_label(&error));
            let failure = Failure::of(&error);
            return ready.iter().map(|ready| sent(ready, Some(failure.clone()))).collect();
        }
    };
    let (mut good, mut outcome) = (Vec::new(), Vec::new());
    for (place, ready) in ready.into_iter().enumerate() {
        match dry.get(place).copied().flatten() {
            None => good.push(ready),
            Some(error) => {
                metrics::call_failed(step.label(), "rejected");
                outcome.push(sent(&ready, Some(Failure::Rejected(error))));
            }
        }
    }
    if good.len() > 1 {
        let result = call(operator, step, message(step, &good), good.len()).await;
        let failure = result.err().map(|error| Failure::of(&error));
        outcome.extend(good.iter().map(|ready| sent(ready, failure.clone())));
    } else {
        outcome.extend(single(operator, good).await);
    }
    outcome
}

fn message(step: DutyStep, ready: &[Ready]) -> Message<Vec<Option<ContractError>>> {
    match step {
        DutyStep::CommitOutput => messages::commit_outputs(ready.iter().filter_map(Ready::commit).collect()),
        DutyStep::CommitScores => {
            messages::commit_scores_batch(ready.iter().filter_map(Ready::commit).collect())
        }
        DutyStep::RevealScores => {
            messages::reveal_scores_batch(ready.iter().filter_map(Ready::reveal).collect())
        }
    }
}

async fn call<T>(
    operator: &Operator,
    step: DutyStep,
    message: Message<T>,
    items: usize,
) -> Result<Receipt<T>, poq_chain::Error>
where
    T: Decode + Clone,
{
    let begun = Instant::now();
    let result = operator.submitter.send(message).await;
    match &result {
        Ok(receipt) => {
            metrics::call_succeeded(step.label(), items, begun.elapsed());
            tracing::info!(step = step.label(), items, block = receipt.block.number, "sent");
        }
        Err(error) => metrics::call_failed(step.label(), class_label(error)),
    }
    result
}

fn sent(ready: &Ready, failure: Option<Failure>) -> Sent {
    Sent { duty: ready.duty, step: ready.step(), failure }
}

fn before(step: DutyStep) -> &'static str {
    match step {
        DutyStep::CommitOutput => "output_before_commit",
        DutyStep::CommitScores => "scores_before_commit",
        DutyStep::RevealScores => "reveal_before",
    }
}

fn after(step: DutyStep) -> &'static str {
    match step {
        DutyStep::CommitOutput => "output_after_commit",
        DutyStep::CommitScores => "scores_after_commit",
        DutyStep::RevealScores => "reveal_after",
    }
}
