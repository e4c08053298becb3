//! Fetching what a task needs, patiently: the other side may be restarting.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use poq_blobs::{
    blake2_256, BlobClient, BlobId, ClientConfig, FetchClass, FetchError, PromptBlob, RequestSigner,
};
use poq_chain::types::{Millis, NodeId, OutputState, TaskId, TaskView};
use poq_chain::{AccountId32, Client, Keys, Network, PoqEvent, View};

use super::Ctx;
use crate::error::Result;
use crate::metrics;

/// The first pause between two attempts; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A restart of a blob server takes seconds; asking more rarely would waste a good part of a window of two minutes.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// An account's key as the blob client wants it.
struct Signer(Keys);

impl RequestSigner for Signer {
    fn account(&self) -> AccountId32 {
        self.0.account()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// A client that signs with an account's key, and tries once: the loops of its users are the retries, and two layers of them would
/// multiply.
pub(crate) fn client(
    network: &Network,
    keys: &Keys,
    max_blob: u64,
    allow_private: bool,
) -> Result<BlobClient> {
    let mut config = ClientConfig::new(network.hash);
    config.max_blob = usize::try_from(max_blob).unwrap_or(usize::MAX);
    config.attempts = 1;
    config.allow_private = allow_private;
    Ok(BlobClient::new(config, Arc::new(Signer(keys.clone())))?)
}

/// Where a node serves its blobs. Asked anew at every attempt: an owner may move it.
pub(crate) async fn endpoint(view: &View, node: NodeId) -> std::result::Result<String, FetchError> {
    let unreachable =
        |detail: String| FetchError::Unreachable { url: format!("the endpoint of node {node}"), detail };
    let found = view.node(node).await.map_err(|error| unreachable(error.to_string()))?;
    found.map(|found| found.info.endpoint).ok_or_else(|| unreachable("it is no longer registered".into()))
}

/// Tries again until it works, cannot work, or the chain's time comes to `until`. At least one attempt is made.
pub(crate) async fn patiently<T, F>(
    ctx: &Ctx,
    what: &'static str,
    until: Millis,
    mut attempt: impl FnMut() -> F,
) -> std::result::Result<T, FetchError>
where
    F: Future<Output = std::result::Result<T, FetchError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        match attempt().await {
            Ok(fetched) => {
                metrics::fetched(what, begun.elapsed());
                return Ok(fetched);
            }
            Err(error) => {
                metrics::fetch_failed(what, class_label(error.class()));
                let left = ctx.clock.until(until);
                if !error.is_transient() || left.is_zero() {
                    return Err(error);
                }
                tracing::debug!(what, %error, ?pause, "fetching again");
                tokio::time::sleep(pause.min(left)).await;
                pause = pause.saturating_mul(2).min(MAX_PAUSE);
            }
        }
    }
}

/// Why a task's input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// It cannot be fetched, or is not what the task says.
    #[error("the input cannot be had from {url}: {source}")]
    Fetch {
        /// Where it should be.
        url: String,
        /// Why.
        source: FetchError,
    },
    /// It is in the request's event, and that cannot be read.
    #[error("the input cannot be read from the request's event: {0}")]
    Event(String),
    /// It is larger than this worker takes.
    #[error("the input has {length} bytes, above limits.max_prompt_bytes of {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It is no prompt.
    #[error("the input is no prompt: {0}")]
    Prompt(String),
}

impl InputError {
    /// What metrics and reports call it.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            InputError::Fetch { .. } | InputError::Event(_) => "input",
            InputError::TooLong { .. } => "too_long",
            InputError::Prompt(_) => "prompt",
        }
    }
}

/// The task's prompt with its bytes, verified against the hash on chain. Where the requester does not serve it, those who answered
/// may.
pub(crate) async fn input(
    ctx: &Ctx,
    client: &BlobClient,
    view: &TaskView,
    until: Millis,
) -> std::result::Result<(PromptBlob, Bytes), InputError> {
    let source = &view.task.input;
    let bytes = if source.inline {
        inline(ctx, view, until).await?
    } else {
        patiently(ctx, "input", until, || from_anybody(ctx, client, view))
            .await
            .map_err(|error| InputError::Fetch { url: source.url.clone(), source: error })?
    };
    let (length, limit) = (bytes.len(), ctx.config.limits.max_prompt_bytes);
    if length > limit {
        return Err(InputError::TooLong { length, limit });
    }
    let prompt = PromptBlob::decode(&bytes).map_err(|error| InputError::Prompt(error.to_string()))?;
    Ok((prompt, bytes))
}

/// The input from its requester; else from the first of those who answered that serves it.
async fn from_anybody(
    ctx: &Ctx,
    client: &BlobClient,
    view: &TaskView,
) -> std::result::Result<Bytes, FetchError> {
    let source = &view.task.input;
    let refused = match client.fetch_blob(&source.url, &source.hash, view.id).await {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error,
    };
    let Ok(state) = ctx.client.view().await else { return Err(refused) };
    for slot in view.task.outputs.iter().filter(|slot| slot.state == OutputState::Opened) {
        let Ok(endpoint) = endpoint(&state, slot.node).await else { continue };
        let base = format!("{}/", endpoint.trim_end_matches('/'));
        match client.fetch_blob(&base, &source.hash, view.id).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => tracing::debug!(task = view.id, node = slot.node, %error, "no input there either"),
        }
    }
    Err(refused)
}

/// The input that a request carries itself, as often as there is time to ask for it.
async fn inline(ctx: &Ctx, view: &TaskView, until: Millis) -> std::result::Result<Bytes, InputError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match inline_input(&ctx.client, view.id, view.task.requested_at).await {
            Ok(Some(bytes)) if blake2_256(&bytes) == view.task.input.hash => return Ok(bytes.into()),
            Ok(Some(bytes)) => format!("what is there hashes to {}", BlobId::of(&bytes)),
            Ok(None) => "no block of that time has it".to_owned(),
            Err(error) => error.to_string(),
        };
        let left = ctx.clock.until(until);
        if left.is_zero() {
            return Err(InputError::Event(why));
        }
        tracing::debug!(task = view.id, why, ?pause, "reading the request again");
        tokio::time::sleep(pause.min(left)).await;
        pause = pause.saturating_mul(2).min(MAX_PAUSE);
    }
}

/// The input that a request carried itself, from the event of its block; `None` where no block of that time has it.
///
/// The task says when it was requested, not in which block: blocks are in the order of their times, so that some twenty headers
/// tell.
///
/// # Errors
/// As of every read of the chain; `Pruned` where the node has forgotten the block's state.
pub async fn inline_input(
    client: &Client,
    task: TaskId,
    requested_at: Millis,
) -> poq_chain::error::Result<Option<Vec<u8>>> {
    let best = client.best().await?;
    // Backwards in growing steps, to stay with blocks that every node still knows.
    let (mut high, mut step) = (best.number, 1u32);
    let mut low = high;
    while low > 0 && client.block(low).await?.timestamp_ms >= requested_at {
        high = low;
        low = low.saturating_sub(step);
        step = step.saturating_mul(2);
    }
    // Block `low` is older (or the first of all), block `high` is not.
    while high.saturating_sub(low) > 1 {
        let middle = low.saturating_add(high.saturating_sub(low) / 2);
        if client.block(middle).await?.timestamp_ms >= requested_at {
            high = middle;
        } else {
            low = middle;
        }
    }
    while high <= best.number && client.block(high).await?.timestamp_ms == requested_at {
        for emitted in client.events_at(high).await? {
            match emitted.event {
                PoqEvent::TaskRequested(event) if event.task == task => return Ok(Some(event.data)),
                _ => {}
            }
        }
        high = high.saturating_add(1);
    }
    Ok(None)
}

pub(crate) fn class_label(class: FetchClass) -> &'static str {
    match class {
        FetchClass::NotThere => "not_there",
        FetchClass::TooEarly => "too_early",
        FetchClass::Forbidden => "forbidden",
        FetchClass::Mismatch => "mismatch",
        FetchClass::TooLarge => "too_large",
        FetchClass::Unreachable => "unreachable",
    }
}
