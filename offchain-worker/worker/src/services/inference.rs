//! An inference node's answer: fetch the input, generate, and write the commitment down. Sending is another file's.

use std::time::{Duration, Instant};

use poq_chain::types::{Hash, Millis, Purpose, TaskView};
use poq_inference::{FinishReason, GenerateRequest, Generation};
use poq_journal::{commitment_of, Duty, NotSafe, Payload, Record, MAX_INLINE};

use super::fetch::{self, InputError};
use super::operator::{Job, Operator};
use super::{journal_error, Ctx};
use crate::error::{Error, Result};
use crate::failpoint::hit;
use crate::metrics::{self, Declined};
use crate::models::GeneratorHandle;

/// How often a context that is too long for the model is cut and tried again.
const CUTS: usize = 4;
/// A pause before a busy model is asked again.
const BUSY: Duration = Duration::from_millis(500);

/// Answers a task. With `expected` the commitment is on chain already and its opening was lost: the same answer is made
/// again (generation is deterministic) so that it can be served.
pub(crate) async fn answer(
    operator: &Operator,
    model: &GeneratorHandle,
    duty: Duty,
    view: &TaskView,
    deadline: Millis,
    expected: Option<Hash>,
) -> Result<Job> {
    let ctx = &operator.ctx;
    let margin = millis(ctx.config.limits.submit_margin);
    let done_by = deadline.saturating_sub(margin);
    let too_late = |at: &str| {
        let left = ctx.clock.until(deadline);
        Job::Declined(
            Declined::TooLate,
            format!(
                "{at} {left:?} are left until the deadline, limits.submit_margin is {:?}",
                ctx.config.limits.submit_margin
            ),
        )
    };
    let enough = || expected.is_some() || ctx.clock.until(done_by) >= ctx.config.limits.min_generation_time;
    if !enough() {
        return Ok(too_late("before the start"));
    }
    if ctx.adversary.as_ref().is_some_and(|adversary| adversary.declines(duty.node)) {
        return Ok(Job::Declined(Declined::Adversary, "it declines whatever is asked".into()));
    }

    let (prompt, bytes) = match fetch::input(ctx, &operator.fetcher, view, done_by).await {
        Ok(input) => input,
        Err(error) => {
            let reason = match error {
                InputError::Fetch { .. } | InputError::Event(_) => Declined::Input,
                InputError::TooLong { .. } => Declined::TooLong,
                InputError::Prompt(_) => Declined::Prompt,
            };
            return Ok(Job::Declined(reason, error.to_string()));
        }
    };
    if !view.task.input.inline {
        // For the panel, should the requester be away by then: without it the task ends with a share of the slot.
        if let Err(error) = ctx.store.put(bytes).await {
            tracing::warn!(%duty, %error, "the input cannot be kept for the panel");
        }
    }
    hit("answer_fetched");

    let Ok(permit) = ctx.working.acquire().await else { return Ok(Job::Stopped) };
    if !enough() {
        return Ok(too_late("when its turn came"));
    }
    let generation = {
        let wanted =
            prompt.max_tokens.map_or(usize::MAX, |tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
        let max_tokens = wanted.clamp(1, ctx.config.limits.max_tokens);
        let max_tokens = match &ctx.adversary {
            // At least one token, at most all: the cast cannot truncate.
            Some(adversary) => ((max_tokens as f64 * adversary.effort(duty.node)) as usize).max(1),
            None => max_tokens,
        };
        let limit = expected.is_none().then_some(done_by);
        generate(ctx, model, &prompt.context, &prompt.question, max_tokens, limit).await
    };
    drop(permit);
    let generation = match generation {
        Ok(generation) => generation,
        Err(error @ poq_inference::Error::PromptTooLong { .. }) => {
            return Ok(Job::Declined(Declined::TooLong, error.to_string()))
        }
        Err(error) if error.is_bad_request() => {
            return Ok(Job::Declined(Declined::Prompt, error.to_string()))
        }
        Err(error) if error.is_transient() => return Ok(Job::Again(error.to_string())),
        Err(error) => return Ok(Job::Declined(Declined::Model, error.to_string())),
    };
    hit("answer_generated");
    metrics::model_tokens(model.name(), generation.completion_tokens);
    // To decline costs less than an answer of no quality.
    if generation.text.trim().is_empty() {
        return Ok(Job::Declined(Declined::Empty, "the model produced no text".into()));
    }
    if matches!(generation.finish_reason, FinishReason::Deadline) {
        tracing::warn!(%duty, tokens = generation.completion_tokens, "cut short by the deadline");
    }

    let mut text = generation.text;
    if let Some(adversary) = &ctx.adversary {
        text = adversary.copied(duty.node, duty.task).unwrap_or(text);
        adversary.share(duty.node, duty.task, &text);
        let until = view.task.requested_at.saturating_add(millis(adversary.delay(duty.node)));
        ctx.clock.sleep_until(until.min(done_by)).await;
    }
    let salt = operator.keys.salt(&ctx.network, duty.task, duty.node, Purpose::Output);
    let payload = Payload::output(clip(text, ctx.config.blobs.max_blob_bytes).into_bytes(), salt);
    let Some(commitment) = commitment_of(&ctx.network.hash, &duty, &payload) else {
        return Ok(Job::Declined(Declined::Model, "the payload does not fit the duty".into()));
    };
    if expected.is_some_and(|expected| expected != commitment) {
        let text = "the answer on chain was made by another model or machine; its bytes are lost and nobody can score it";
        return Ok(Job::Declined(Declined::Model, text.into()));
    }
    let record = insert(ctx, duty, commitment, payload).await?;
    hit("answer_journalled");
    store(ctx, &record).await?;
    hit("answer_stored");
    Ok(Job::Prepared)
}

/// Generates within the time there is. Too long a context is cut at its end: an answer from most of the context is worth
/// more than none.
async fn generate(
    ctx: &Ctx,
    model: &GeneratorHandle,
    context: &str,
    question: &str,
    max_tokens: usize,
    done_by: Option<Millis>,
) -> poq_inference::Result<Generation> {
    let mut context = context;
    let mut cuts = 0;
    loop {
        let mut request = GenerateRequest::question(context, question).with_max_tokens(max_tokens);
        if let Some(done_by) = done_by {
            request = request.with_deadline(Instant::now() + ctx.clock.until(done_by));
        }
        let begun = Instant::now();
        match model.generate(request).await {
            Ok(generation) => {
                metrics::model_ran(model.name(), "generate", begun.elapsed());
                return Ok(generation);
            }
            Err(poq_inference::Error::PromptTooLong { tokens, limit, .. })
                if cuts < CUTS && !context.is_empty() =>
            {
                cuts += 1;
                let whole = context.len();
                // The limit is what fits beside the answer.
                context = cut(context, tokens, limit);
                tracing::warn!(
                    tokens,
                    limit,
                    bytes = whole,
                    left = context.len(),
                    "the context is longer than the model's: it is answered from its beginning"
                );
            }
            Err(poq_inference::Error::Overloaded { .. })
                if done_by.is_none_or(|done_by| !ctx.clock.until(done_by).is_zero()) =>
            {
                tokio::time::sleep(BUSY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The part of a text that has about `room` of its `tokens`, with a tenth to spare, ending at a character.
fn cut(text: &str, tokens: usize, room: usize) -> &str {
    let keep = text.len().saturating_mul(room) / tokens.max(1);
    let mut end = keep.saturating_sub(keep / 10).min(text.len().saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The beginning of a text that is stored and served whole: others refuse what is larger, and so does the journal.
fn clip(mut text: String, max_blob_bytes: u64) -> String {
    let mut end = usize::try_from(max_blob_bytes).unwrap_or(usize::MAX).min(MAX_INLINE).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Writes the commitment down before anything is signed. Of two jobs for one duty the first one's record is what counts.
pub(super) async fn insert(ctx: &Ctx, duty: Duty, commitment: Hash, payload: Payload) -> Result<Record> {
    match ctx.journal(move |journal| journal.check_and_insert(duty, commitment, payload)).await {
        Ok(safe) => Ok(safe.into_record()),
        Err(NotSafe::Conflict { existing, .. }) => {
            tracing::warn!(%duty, "the journal has another commitment, which stands");
            Ok(*existing)
        }
        Err(NotSafe::Journal(error)) => Err(journal_error(&ctx.board, error)),
        Err(error) => Err(Error::Service { service: "journal".into(), reason: error.to_string() }),
    }
}

/// Puts a journalled output where the blob server finds it. Doing so twice changes nothing.
pub(super) async fn store(ctx: &Ctx, record: &Record) -> Result<()> {
    let Payload::Output { salt, bytes: Some(bytes), .. } = &record.payload else { return Ok(()) };
    ctx.store
        .put_output(&ctx.slot(&record.duty), bytes.clone(), *salt)
        .await
        .map(drop)
        .map_err(|source| Error::Store { at: "(output)".into(), source })
}

pub(super) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_clipped_at_a_character() {
        assert_eq!(clip("héé".into(), 4), "hé");
        assert_eq!(clip("abc".into(), 10), "abc");
    }

    #[test]
    fn a_context_is_cut_to_the_room_that_there_is_and_at_a_character() {
        let text = "é".repeat(1_000);
        let shorter = cut(&text, 500, 100);
        assert!(shorter.len() <= text.len() / 5 && shorter.len() > text.len() / 7, "{}", shorter.len());
        assert!(shorter.chars().all(|c| c == 'é'));
        // It always gets shorter, whatever the tokenizer says.
        assert!(cut("abc", 1, 100).len() < 3);
        assert_eq!(cut("", 10, 5), "");
        assert_eq!(cut("abc", 10, 0), "");
    }
}
