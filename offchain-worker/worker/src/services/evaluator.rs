//! An evaluator's scores: fetch the outputs, verify them against their hashes, score, and write the commitment down.

use std::time::{Duration, Instant};

use futures::future::join_all;
use poq_blobs::{BlobId, FetchClass, ReportBlob};
use poq_chain::types::{Hash, Millis, NodeId, OutputSlot, OutputState, Purpose, Ratio, Score, TaskView};
use poq_inference::quality::{Output, Query};
use poq_inference::ModelDigest;
use poq_journal::{commitment_of, Duty, Payload, Record};

use super::fetch;
use super::inference::{insert, millis};
use super::operator::{Job, Operator};
use super::Ctx;
use crate::error::{Error, Result};
use crate::failpoint::hit;
use crate::health::About;
use crate::metrics::{self, Declined};
use crate::models::Loaded;
use crate::models::ScorerHandle;

/// How often an output that is not what was committed to is fetched again: a proxy may have garbled it once.
const MISMATCHES: u32 = 2;
/// A pause before a busy model is asked again.
const BUSY: Duration = Duration::from_millis(500);

/// What became of one output.
enum Fetched {
    Text(String),
    Unavailable(&'static str),
}

/// Scores a task's outputs. With `expected` the commitment is on chain already and its opening was lost.
pub(crate) async fn score(
    operator: &Operator,
    loaded: &Loaded,
    model: &ScorerHandle,
    duty: Duty,
    view: &TaskView,
    window: (Millis, Millis),
    expected: Option<Hash>,
) -> Result<Job> {
    let ctx = &operator.ctx;
    let (drawn_at, deadline) = window;
    let done_by = deadline.saturating_sub(millis(ctx.config.limits.submit_margin));
    if expected.is_none() && ctx.clock.until(done_by).is_zero() {
        let left = ctx.clock.until(deadline);
        let text = format!(
            "{left:?} are left until the deadline, limits.submit_margin is {:?}",
            ctx.config.limits.submit_margin
        );
        return Ok(Job::Declined(Declined::TooLate, text));
    }
    if let Some(text) = other_rubric(ctx, loaded, view).await? {
        // All scores of a task are on one scale, or its consensus means nothing.
        operator.ctx.board.set(About::Duty(duty.task, duty.node), format!("{duty}: {text}"));
        return Ok(Job::Declined(Declined::Rubric, text));
    }
    let patience = patience(drawn_at, deadline, ctx.config.limits.fetch_patience_percent).min(done_by);

    // Input and outputs at the same time: they come from different machines.
    let (input, outputs) = tokio::join!(
        fetch::input(ctx, &operator.fetcher, view, patience),
        join_all(view.task.outputs.iter().map(|slot| output(operator, view, slot, patience))),
    );
    hit("scores_fetched");
    let mut outputs = outputs;
    let query = match input {
        Ok((prompt, _)) => Some(Query { context: prompt.context, question: prompt.question }),
        // Without the question no answer can be judged. To say so is a duty done; to guess would be a wrong score.
        Err(error) => {
            tracing::warn!(%duty, %error, "nothing can be scored");
            outputs = outputs.iter().map(|_| Fetched::Unavailable(error.label())).collect();
            None
        }
    };

    if let Some(asked) = query.clone() {
        // Scores that mean nothing would hurt whoever answered rightly.
        match model.call(move |model| model.supports(&asked)).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => return Ok(Job::Again(error.to_string())),
            Err(error) if error.is_bad_request() => {
                return Ok(Job::Declined(Declined::Prompt, error.to_string()))
            }
            Err(error) => return Ok(Job::Declined(Declined::Model, error.to_string())),
        }
    }

    let mut texts = Vec::new();
    for (slot, fetched) in view.task.outputs.iter().zip(&outputs) {
        if let Fetched::Text(text) = fetched {
            let model = registered_model(ctx, slot.node).await?;
            texts.push(Output { text: text.clone(), model });
        }
    }
    let qualities = if texts.is_empty() {
        Vec::new()
    } else {
        let Ok(permit) = ctx.working.acquire().await else { return Ok(Job::Stopped) };
        let query = query.clone().unwrap_or_default();
        let qualities = run(ctx, model, query, texts.clone(), done_by).await;
        drop(permit);
        match qualities {
            Ok(qualities) if qualities.len() == texts.len() => qualities,
            Ok(qualities) => {
                let text = format!("the model gave {} scores for {} outputs", qualities.len(), texts.len());
                return Ok(Job::Declined(Declined::Model, text));
            }
            Err(error) if error.is_transient() => return Ok(Job::Again(error.to_string())),
            // No commitment at all: a panel of others settles without this node at the price of a missed duty, whereas
            // calling the outputs unavailable would hurt the nodes that delivered them.
            Err(error) => return Ok(Job::Declined(Declined::Model, error.to_string())),
        }
    };
    hit("scores_computed");

    // Of an input that is on chain nobody can say that it could not be had.
    let no_input = query.is_none() && !view.task.input.inline;
    let mut scores = match no_input {
        true => vec![Score::NO_INPUT; outputs.len()],
        false => assemble(&outputs, &qualities),
    };
    if let Some(adversary) = &ctx.adversary {
        let ring = ring(ctx, view).await?;
        if let Some((plan, dishonest)) = adversary.scores(duty.node, view, &scores, &ring) {
            if !plan.commits {
                return Ok(Job::Declined(Declined::Adversary, "it stays away".into()));
            }
            ctx.clock.sleep_until(drawn_at.saturating_add(plan.at_least_ms).min(done_by)).await;
            scores = dishonest;
        }
    }
    let report = report(loaded, duty, view, &outputs, &scores);
    let report = report
        .encode()
        .map_err(|error| Error::Service { service: "evaluator".into(), reason: error.to_string() })?;
    let salt = operator.keys.salt(&ctx.network, duty.task, duty.node, Purpose::Scores);
    let payload = Payload::scores(scores, Some(report.to_vec()), salt);
    let Some(commitment) = commitment_of(&ctx.network.hash, &duty, &payload) else {
        return Ok(Job::Declined(Declined::Model, "the payload does not fit the duty".into()));
    };
    if expected.is_some_and(|expected| expected != commitment) {
        let text = "the scores on chain are others than this machine computes, and their opening is lost: they cannot be revealed";
        return Ok(Job::Declined(Declined::Model, text.into()));
    }
    let record = insert(ctx, duty, commitment, payload).await?;
    hit("scores_journalled");
    store(ctx, &record).await?;
    for reason in outputs.iter().filter_map(|output| match output {
        Fetched::Unavailable(reason) => Some(*reason),
        Fetched::Text(_) => None,
    }) {
        metrics::output_unavailable(reason);
    }
    Ok(Job::Prepared)
}

/// Why this evaluator must not score the task: its kind prescribes another rubric.
async fn other_rubric(ctx: &Ctx, loaded: &Loaded, view: &TaskView) -> Result<Option<String>> {
    let params = ctx.client.view().await?.params(view.task.kind, view.task.terms.version).await?;
    Ok(params.and_then(|params| rubric_problem(params.rubric_hash, loaded.rubric)))
}

/// What is wrong where a kind prescribes `prescribed` (all zero for nothing) and a node scores by `own`.
pub(super) fn rubric_problem(prescribed: Hash, own: Option<Hash>) -> Option<String> {
    if prescribed == [0; 32] || own == Some(prescribed) {
        return None;
    }
    let own = own.map_or_else(|| "none".into(), |own| format!("0x{}", hex::encode(own)));
    Some(format!(
        "the task kind prescribes the rubric 0x{} and this node scores by {own}: set `rubric` or `rubric_file` of the node to that \
         one (`poq rubric list` tells the hashes of those that ship with this build)",
        hex::encode(prescribed)
    ))
}

/// The model that an inference node is registered with: a claim that a rubric may weigh.
async fn registered_model(ctx: &Ctx, node: NodeId) -> Result<Option<ModelDigest>> {
    Ok(ctx.client.view().await?.node(node).await?.map(|found| ModelDigest(found.node.model_digest)))
}

/// The kind's past consensus values, the oldest first.
async fn ring(ctx: &Ctx, view: &TaskView) -> Result<Vec<Ratio>> {
    let kind = ctx.client.view().await?.kind(view.task.kind).await?;
    let ring = kind.map(|kind| kind.kind.population.ring).unwrap_or_default();
    let mut entries: Vec<_> = ring.entries.into_iter().filter(|entry| entry.settled_at > 0).collect();
    entries.sort_by_key(|entry| entry.settled_at);
    Ok(entries.iter().map(|entry| entry.quality).collect())
}

/// Until when an output is waited for: a share of the panel's time to commit.
fn patience(drawn_at: Millis, deadline: Millis, percent: u8) -> Millis {
    let window = deadline.saturating_sub(drawn_at);
    drawn_at.saturating_add(window.saturating_mul(u64::from(percent)) / 100)
}

fn assemble(outputs: &[Fetched], qualities: &[f64]) -> Vec<Score> {
    let mut qualities = qualities.iter();
    outputs
        .iter()
        .map(|output| match output {
            Fetched::Text(_) => {
                qualities.next().map_or(Score::UNAVAILABLE, |quality| Score::of(Ratio::from_f64(*quality)))
            }
            Fetched::Unavailable(_) => Score::UNAVAILABLE,
        })
        .collect()
}

/// What the evaluator has to show for its scores. It holds nothing that a second run would not reproduce: a node that lost
/// its disk can make the same report, and so the same commitment, again.
fn report(loaded: &Loaded, duty: Duty, view: &TaskView, outputs: &[Fetched], scores: &[Score]) -> ReportBlob {
    let note = |(slot, output): (&OutputSlot, &Fetched)| match output {
        Fetched::Text(_) => None,
        Fetched::Unavailable(reason) => Some(format!("node {}: {reason}", slot.node)),
    };
    ReportBlob {
        version: ReportBlob::VERSION,
        task: duty.task,
        node: duty.node,
        model: loaded.name.clone(),
        model_digest: BlobId(loaded.digest),
        scores: scores.to_vec(),
        notes: view.task.outputs.iter().zip(outputs).filter_map(note).collect(),
    }
}

async fn run(
    ctx: &Ctx,
    model: &ScorerHandle,
    query: Query,
    texts: Vec<Output>,
    done_by: Millis,
) -> poq_inference::Result<Vec<f64>> {
    loop {
        let begun = Instant::now();
        match model.score_outputs(query.clone(), texts.clone()).await {
            Ok(qualities) => {
                metrics::model_ran(model.name(), "score", begun.elapsed());
                return Ok(qualities);
            }
            Err(poq_inference::Error::Overloaded { .. }) if !ctx.clock.until(done_by).is_zero() => {
                tokio::time::sleep(BUSY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One output, verified against its hash, or why it could not be had.
async fn output(operator: &Operator, view: &TaskView, slot: &OutputSlot, until: Millis) -> Fetched {
    if slot.state != OutputState::Opened {
        return Fetched::Unavailable("undelivered");
    }
    let mut mismatches = 0;
    loop {
        let fetched = fetch::patiently(&operator.ctx, "output", until, || async {
            let endpoint = operator.endpoint(slot.node).await?;
            operator.fetcher.fetch_output(&endpoint, view.id, slot.node, &slot.hash).await
        })
        .await;
        match fetched {
            Ok(bytes) => return Fetched::Text(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.class() == FetchClass::Mismatch && mismatches < MISMATCHES => {
                mismatches += 1;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(error) => {
                tracing::warn!(task = view.id, node = slot.node, %error, "the output is unavailable");
                return Fetched::Unavailable(fetch::class_label(error.class()));
            }
        }
    }
}

/// Puts a journalled report where the blob server finds it. Doing so twice changes nothing.
pub(super) async fn store(ctx: &Ctx, record: &Record) -> Result<()> {
    let Payload::Scores { report: Some(report), .. } = &record.payload else { return Ok(()) };
    ctx.store
        .put_report(&ctx.slot(&record.duty), report.clone())
        .await
        .map(drop)
        .map_err(|source| Error::Store { at: "(report)".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_the_places_of_outputs_that_could_not_be_had() {
        let text = || Fetched::Text("t".into());
        let outputs = [text(), Fetched::Unavailable("mismatch"), text()];
        let scores = assemble(&outputs, &[0.25, 0.75]);
        assert_eq!(
            scores,
            vec![
                Score::of(Ratio::from_ppb(250_000_000)),
                Score::UNAVAILABLE,
                Score::of(Ratio::from_ppb(750_000_000))
            ]
        );
    }

    #[test]
    fn patience_is_a_share_of_the_window() {
        assert_eq!(patience(1_000, 2_000, 75), 1_750);
        assert_eq!(patience(2_000, 1_000, 75), 2_000);
    }
}
