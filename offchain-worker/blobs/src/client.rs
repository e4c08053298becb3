use crate::auth::{message, RequestSigner};
use crate::network::Reach;
use crate::{
    blake2_256, now_ms, BlobId, Hash, NodeId, OpeningBlob, RevealBlob, TaskId, ACCOUNT_HEADER,
    DEFAULT_MAX_BLOB, SIGNATURE_HEADER, TIME_HEADER,
};
use backon::{ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use poq_core::commitment;
use poq_core::task::{Opened, Reveal};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{redirect, Client, ClientBuilder, Response, StatusCode};
use serde::Deserialize;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// An error's body is a line of JSON.
const MAX_ERROR_BODY: usize = 4 * 1024;
const MAX_ERROR_TEXT: usize = 200;
const MAX_REDIRECTS: usize = 3;
/// Below the time after which servers close idle connections.
const IDLE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How a client fetches.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Hash of the chain's genesis and the contract: requests are signed for it, and commitments bind it.
    pub network: Hash,
    /// The largest blob that is accepted, in bytes.
    pub max_blob: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one attempt may take altogether.
    pub request_timeout: Duration,
    /// How often a fetch is tried where the server cannot be reached or fails; at least once.
    pub attempts: usize,
    /// The pause after the first failed attempt; each further one is twice as long, up to 5 s, with jitter.
    pub first_backoff: Duration,
    /// Whether addresses that are not on the public internet may be fetched from (loopback, 10.0.0.0/8, …). Allowed by
    /// default, because development networks live there. **Turn it off on a public network**: addresses come from
    /// requesters and from other nodes. Link-local addresses are never fetched from.
    pub allow_private: bool,
    /// Whether to go through the proxy that `HTTP_PROXY` and `HTTPS_PROXY` name. Names are then resolved by the proxy, and
    /// it is for the proxy to refuse private addresses.
    pub use_proxy: bool,
}

impl ClientConfig {
    /// With blobs up to 1 MiB, 3 s to connect, 10 s per attempt, 3 attempts from 250 ms apart, private addresses allowed
    /// and no proxy.
    pub fn new(network: Hash) -> ClientConfig {
        ClientConfig {
            network,
            max_blob: DEFAULT_MAX_BLOB,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            attempts: 3,
            first_backoff: Duration::from_millis(250),
            allow_private: true,
            use_proxy: false,
        }
    }
}

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server does not have it.
    #[error("{url} is not there: {message}")]
    NotThere {
        /// What was fetched.
        url: String,
        /// What the server says.
        message: String,
    },
    /// The server will serve it later.
    #[error("{url} is not served yet: {message}")]
    TooEarly {
        /// What was fetched.
        url: String,
        /// When to try again, where the server says.
        retry_after: Option<Duration>,
        /// What the server says.
        message: String,
    },
    /// The server refuses to serve it to this account.
    #[error("{url} is refused with status {status}: {message}")]
    Forbidden {
        /// What was fetched.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// What the server sent is not what was asked for.
    #[error("{url} served something else: {detail}")]
    Mismatch {
        /// What was fetched.
        url: String,
        /// What does not fit.
        detail: String,
    },
    /// The server sent more than is accepted.
    #[error("{url} is larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// What was fetched.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The server cannot be reached, is too slow, or fails.
    #[error("{url} cannot be reached: {detail}")]
    Unreachable {
        /// What was fetched.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// The address may not be fetched from, or is none.
    #[error("{url} is not fetched: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// What sort of failure a fetch met.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FetchClass {
    /// The server does not have it (yet).
    NotThere,
    /// The server will serve it later.
    TooEarly,
    /// The server refuses.
    Forbidden,
    /// The server has something else.
    Mismatch,
    /// It is too large.
    TooLarge,
    /// The server cannot be reached, or its address is none.
    Unreachable,
}

impl FetchError {
    /// What sort of failure it is.
    pub fn class(&self) -> FetchClass {
        match self {
            FetchError::NotThere { .. } => FetchClass::NotThere,
            FetchError::TooEarly { .. } => FetchClass::TooEarly,
            FetchError::Forbidden { .. } => FetchClass::Forbidden,
            FetchError::Mismatch { .. } => FetchClass::Mismatch,
            FetchError::TooLarge { .. } => FetchClass::TooLarge,
            FetchError::Unreachable { .. } | FetchError::Address { .. } | FetchError::Client(_) => {
                FetchClass::Unreachable
            }
        }
    }

    /// Whether trying again later, before the deadline, can help. A refusal counts: a server that is a block behind does not
    /// know yet that this account is on the panel.
    pub fn is_transient(&self) -> bool {
        match self {
            FetchError::NotThere { .. }
            | FetchError::TooEarly { .. }
            | FetchError::Forbidden { .. }
            | FetchError::Unreachable { .. } => true,
            FetchError::Mismatch { .. }
            | FetchError::TooLarge { .. }
            | FetchError::Address { .. }
            | FetchError::Client(_) => false,
        }
    }
}

/// Fetches blobs from other people's servers. Clones share connections.
#[derive(Clone)]
pub struct BlobClient {
    config: ClientConfig,
    reach: Reach,
    http: Client,
    signer: Arc<dyn RequestSigner>,
}

impl fmt::Debug for BlobClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobClient").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BlobClient {
    /// A client that signs its requests with `signer`.
    ///
    /// # Errors
    /// [`FetchError::Client`] where TLS cannot be set up.
    pub fn new(config: ClientConfig, signer: Arc<dyn RequestSigner>) -> Result<BlobClient, FetchError> {
        let reach = Reach { allow_private: config.allow_private };
        let http = match builder(&config, reach).build() {
            Ok(http) => http,
            Err(error) => {
                // A slim container has no certificates of authorities, and reqwest then gives up. Plain http still works.
                let http = builder(&config, reach).tls_certs_only([]).build().map_err(FetchError::Client)?;
                tracing::warn!(
                    error = explain(error),
                    "blobs cannot be fetched over https: are certificates of authorities installed (ca-certificates)?"
                );
                http
            }
        };
        Ok(BlobClient { config, reach, http, signer })
    }

    /// A task's input, verified against its hash. `url` is what the task names: the address of the blob, or of a server
    /// (without a path, or with one that ends in a slash), to which `v1/blobs/{hash}` is added.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_blob(&self, url: &str, hash: &Hash, task: TaskId) -> Result<Bytes, FetchError> {
        let address = parse(url)?;
        let mut target = if address.path().ends_with('/') {
            below(&address, &format!("v1/blobs/{}", BlobId(*hash)))?
        } else {
            address
        };
        // Twice the same parameter would be malformed.
        if !target.query_pairs().any(|(key, _)| key == "task") {
            target.query_pairs_mut().append_pair("task", &task.to_string());
        }
        let bytes = self.get(&target).await?;
        check_hash(&target, &bytes, hash)?;
        Ok(bytes)
    }

    /// What opens an inference node's commitment, verified against it. `endpoint` is what the node has registered.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_opening(
        &self,
        endpoint: &str,
        task: TaskId,
        node: NodeId,
        commitment: &Hash,
    ) -> Result<Opened, FetchError> {
        let (target, bytes) = self.of_node(endpoint, task, "openings", node).await?;
        let opening =
            OpeningBlob::decode(&bytes).map_err(|error| mismatch(&target, error.to_string()))?.opened();
        let preimage = commitment::output(&self.config.network, task, node, &opening.hash, &opening.salt);
        check_opens(&target, &preimage, commitment)?;
        Ok(opening)
    }

    /// An inference node's output, verified against its hash, which is on chain once the panel is drawn.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_output(
        &self,
        endpoint: &str,
        task: TaskId,
        node: NodeId,
        hash: &Hash,
    ) -> Result<Bytes, FetchError> {
        let (target, bytes) = self.of_node(endpoint, task, "outputs", node).await?;
        check_hash(&target, &bytes, hash)?;
        Ok(bytes)
    }

    /// An evaluator node's reveal, verified against its commitment: it can be sent to the chain as it is.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_reveal(
        &self,
        endpoint: &str,
        task: TaskId,
        node: NodeId,
        commitment: &Hash,
    ) -> Result<Reveal, FetchError> {
        let (target, bytes) = self.of_node(endpoint, task, "reveals", node).await?;
        let blob = RevealBlob::decode(&bytes).map_err(|error| mismatch(&target, error.to_string()))?;
        let reveal = Reveal { task, node, ..blob.into_reveal() };
        let Reveal { scores, report_hash, salt, .. } = &reveal;
        let preimage = commitment::scores(&self.config.network, task, node, scores, report_hash, salt);
        check_opens(&target, &preimage, commitment)?;
        Ok(reveal)
    }

    /// An evaluator node's report, verified against the hash that it revealed.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_report(
        &self,
        endpoint: &str,
        task: TaskId,
        node: NodeId,
        hash: &Hash,
    ) -> Result<Bytes, FetchError> {
        let (target, bytes) = self.of_node(endpoint, task, "reports", node).await?;
        check_hash(&target, &bytes, hash)?;
        Ok(bytes)
    }

    async fn of_node(
        &self,
        endpoint: &str,
        task: TaskId,
        what: &str,
        node: NodeId,
    ) -> Result<(Url, Bytes), FetchError> {
        let target = below(&parse(endpoint)?, &format!("v1/tasks/{task}/{what}/{node}"))?;
        let bytes = self.get(&target).await?;
        Ok((target, bytes))
    }

    /// With retries where the server cannot be reached.
    async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        if let Some(reason) = self.reach.check(url) {
            return Err(FetchError::Address { url: shown(url), reason });
        }
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.config.first_backoff)
            .with_max_delay(MAX_BACKOFF)
            .with_max_times(self.config.attempts.saturating_sub(1))
            .with_jitter();
        (|| self.attempt(url))
            .retry(backoff)
            .when(|error| matches!(error, FetchError::Unreachable { .. }))
            .notify(|error, pause| tracing::debug!(%error, ?pause, "trying again"))
            .await
    }

    async fn attempt(&self, url: &Url) -> Result<Bytes, FetchError> {
        let unreachable = |detail: String| FetchError::Unreachable { url: shown(url), detail };
        // Signed anew for every attempt: a server takes a signature once.
        let time = now_ms();
        let signature = self.signer.sign(&message("GET", &signed_path(url), time, &self.config.network));
        let mut signature =
            HeaderValue::from_str(&hex::encode(signature)).map_err(|e| unreachable(e.to_string()))?;
        signature.set_sensitive(true);
        let request = self
            .http
            .get(url.clone())
            .header(ACCOUNT_HEADER, self.signer.account().to_string())
            .header(TIME_HEADER, time)
            .header(SIGNATURE_HEADER, signature);
        let response = request.send().await.map_err(|error| unreachable(explain(error)))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(self.refusal(url, response).await);
        }
        let limit = self.config.max_blob;
        match read(response, limit).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(FetchError::TooLarge { url: shown(url), limit }),
            Err(error) => Err(unreachable(explain(error))),
        }
    }

    async fn refusal(&self, url: &Url, response: Response) -> FetchError {
        let url = shown(url);
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let message = error_text(response).await;
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::NotThere { url, message },
            StatusCode::TOO_EARLY => FetchError::TooEarly { url, retry_after, message },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                FetchError::Unreachable { url, detail: format!("status {status}: {message}") }
            }
            status if status.is_client_error() => {
                FetchError::Forbidden { url, status: status.as_u16(), message }
            }
            status if status.is_redirection() => FetchError::Address {
                url,
                reason: "it redirects to another host, which is not followed".to_owned(),
            },
            status => FetchError::Unreachable { url, detail: format!("status {status}: {message}") },
        }
    }
}

fn builder(config: &ClientConfig, reach: Reach) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("poq/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout)
        .pool_idle_timeout(IDLE)
        .redirect(same_host_only())
        .referer(false)
        .dns_resolver(Arc::new(reach));
    if config.use_proxy {
        builder
    } else {
        builder.no_proxy()
    }
}

/// Redirects within a host are followed, a few of them; others are answers in themselves. From https to http is another
/// host.
fn same_host_only() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let stays = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
        if stays && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn parse(url: &str) -> Result<Url, FetchError> {
    Url::parse(url.trim()).map_err(|error| FetchError::Address {
        url: printable(url),
        reason: format!("it is no address: {error}"),
    })
}

/// `path` below a base address, whether or not that ends in a slash.
pub(crate) fn below(base: &Url, path: &str) -> Result<Url, FetchError> {
    let mut target = base.clone();
    target.set_query(None);
    target.set_fragment(None);
    let reason = || FetchError::Address { url: shown(base), reason: "it cannot have a path".to_owned() };
    target.path_segments_mut().map_err(|()| reason())?.pop_if_empty().extend(path.split('/'));
    Ok(target)
}

/// What a server sees as its own path: whatever a proxy takes off comes before `/v1/`.
fn signed_path(url: &Url) -> String {
    let path = url.path();
    let own = path.rfind("/v1/").and_then(|at| path.get(at..)).unwrap_or(path);
    match url.query() {
        Some(query) => format!("{own}?{query}"),
        None => own.to_owned(),
    }
}

fn check_hash(url: &Url, bytes: &[u8], expected: &Hash) -> Result<(), FetchError> {
    let found = BlobId::of(bytes);
    if found.0 == *expected {
        return Ok(());
    }
    Err(mismatch(url, format!("its {} bytes hash to {found}, not to {}", bytes.len(), BlobId(*expected))))
}

fn check_opens(url: &Url, preimage: &[u8], commitment: &Hash) -> Result<(), FetchError> {
    let opened = blake2_256(preimage);
    if opened == *commitment {
        return Ok(());
    }
    let (opened, commitment) = (BlobId(opened), BlobId(*commitment));
    Err(mismatch(url, format!("it opens 0x{opened}, but the node has committed to 0x{commitment}")))
}

fn mismatch(url: &Url, detail: String) -> FetchError {
    FetchError::Mismatch { url: shown(url), detail: printable(&detail) }
}

/// The body, or `None` where it is larger than `limit`: then the rest is not read.
pub(crate) async fn read(mut response: Response, limit: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let announced = response.content_length().unwrap_or(0);
    if announced > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Ok(None);
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = response.chunk().await? {
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

/// What a server says of its refusal, fit to be logged.
async fn error_text(response: Response) -> String {
    #[derive(Deserialize)]
    struct Said {
        code: String,
        message: String,
    }
    let Ok(Some(body)) = read(response, MAX_ERROR_BODY).await else { return "no explanation".to_owned() };
    match serde_json::from_slice::<Said>(&body) {
        Ok(Said { code, message }) => printable(&format!("{message} ({code})")),
        Err(_) if body.is_empty() => "no explanation".to_owned(),
        Err(_) => printable(&String::from_utf8_lossy(&body)),
    }
}

/// A stranger's text without what could forge a line of a log or fill it.
pub(crate) fn printable(text: &str) -> String {
    let mut clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_TEXT).collect();
    if text.chars().nth(MAX_ERROR_TEXT).is_some() {
        clean.push('…');
    }
    clean
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only where there can be no credentials.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    printable(url.as_str())
}

/// reqwest's own text says little ("error sending request"); the cause is below it.
pub(crate) fn explain(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn paths_are_put_below_bases() {
        for (base, expected) in [
            ("http://h:1", "http://h:1/v1/blobs/ab"),
            ("http://h:1/", "http://h:1/v1/blobs/ab"),
            ("http://h/poq", "http://h/poq/v1/blobs/ab"),
            ("http://h/poq/?x=1#y", "http://h/poq/v1/blobs/ab"),
        ] {
            assert_eq!(below(&url(base), "v1/blobs/ab").unwrap().as_str(), expected);
        }
        assert!(below(&url("mailto:somebody@example.com"), "v1").is_err());
    }

    #[test]
    fn the_signed_path_is_the_servers_own() {
        assert_eq!(signed_path(&url("http://h/v1/blobs/ab?task=7")), "/v1/blobs/ab?task=7");
        assert_eq!(signed_path(&url("https://h/behind/a/proxy/v1/blobs/ab?task=7")), "/v1/blobs/ab?task=7");
        assert_eq!(signed_path(&url("https://h/some/file.json")), "/some/file.json");
    }

    #[test]
    fn strangers_texts_are_cleaned() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(printable(&"x".repeat(1_000)).chars().count(), MAX_ERROR_TEXT + 1);
        assert_eq!(shown(&url("http://user:secret@h/x")), "http://h/x");
    }
}
