//! Fetching what a task needs, patiently: the other side may be restarting.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use poq_blobs::{BlobClient, ClientConfig, FetchClass, FetchError, PromptBlob, RequestSigner};
use poq_chain::types::{Millis, TaskView};
use poq_chain::{AccountId32, Keys};

use super::Ctx;
use crate::error::Result;
use crate::metrics;

/// The first pause between two attempts; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A restart of a blob server takes seconds; asking more rarely would waste a good part of a window of two minutes.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The operator's key as the blob client wants it.
struct Signer(Keys);

impl RequestSigner for Signer {
    fn account(&self) -> AccountId32 {
        self.0.account()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// A client that signs with the operator's key.
pub(crate) fn client(ctx: &Ctx, keys: &Keys) -> Result<BlobClient> {
    let mut config = ClientConfig::new(ctx.contract);
    config.max_blob = usize::try_from(ctx.config.blobs.max_blob_bytes).unwrap_or(usize::MAX);
    // The loops here are the retries: two layers of them would multiply.
    config.attempts = 1;
    config.allow_private = ctx.config.fetches_private();
    Ok(BlobClient::new(config, Arc::new(Signer(keys.clone())))?)
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
    /// It is no prompt, or too large a one.
    #[error("the input is no prompt that this worker takes: {0}")]
    Prompt(String),
}

/// The task's prompt, verified against the hash on chain.
pub(crate) async fn input(
    ctx: &Ctx,
    client: &BlobClient,
    view: &TaskView,
    until: Millis,
) -> std::result::Result<PromptBlob, InputError> {
    let source = &view.task.input;
    let bytes = patiently(ctx, "input", until, || client.fetch_blob(&source.url, &source.hash, view.id))
        .await
        .map_err(|error| InputError::Fetch { url: source.url.clone(), source: error })?;
    let limit = ctx.config.limits.max_prompt_bytes;
    if bytes.len() > limit {
        return Err(InputError::Prompt(format!(
            "it has {} bytes, above limits.max_prompt_bytes of {limit}",
            bytes.len()
        )));
    }
    PromptBlob::decode(&bytes).map_err(|error| InputError::Prompt(error.to_string()))
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
