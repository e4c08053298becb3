//! The connection: one of several endpoints at a time, replaced when it fails or falls silent.

use crate::error::{says_busy, Error, Result};
use crate::options::Options;
use crate::url::{NodeUrl, NodeUrls};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subxt::ext::jsonrpsee::ws_client::{PingConfig, WsClientBuilder};
use subxt::utils::H256;
use subxt_rpcs::client::{rpc_params, RpcParams, RpcSubscription};
use subxt_rpcs::RpcClient;

/// The largest answer that is accepted: metadata and blocks are a few MiB.
const MAX_RESPONSE: u32 = 64 * 1024 * 1024;
/// The name of a connection that has no URL.
const IN_PROCESS: &str = "in-process";
/// The first pause before a busy node is asked again; it doubles up to [`BUSY_MOST`].
const BUSY_FIRST: Duration = Duration::from_millis(100);
const BUSY_MOST: Duration = Duration::from_secs(5);
/// After so many refusals of one request another endpoint is tried, where there is one.
const BUSY_ENOUGH: u32 = 3;

/// A live connection.
struct Live {
    rpc: RpcClient,
    /// As it may be shown.
    endpoint: String,
    /// Which connection this is: a failure report about an older one must not close a newer one.
    generation: u64,
}

enum Source {
    /// Websocket URLs in order of preference.
    Urls(NodeUrls),
    /// A client that somebody else keeps alive.
    Fixed(RpcClient),
}

/// Requests and subscriptions over whichever endpoint works.
pub(crate) struct Transport {
    source: Source,
    options: Options,
    /// Held while connecting, so that only one task does.
    connecting: tokio::sync::Mutex<Attempts>,
    live: RwLock<Option<Arc<Live>>>,
    /// The chain that the first connection showed.
    genesis: RwLock<Option<H256>>,
    heard: Mutex<Instant>,
}

#[derive(Default)]
struct Attempts {
    /// The endpoint to try first.
    next: usize,
    /// Connections made so far.
    generation: u64,
}

impl Transport {
    pub(crate) fn to_urls(urls: NodeUrls, options: &Options) -> Transport {
        Transport::new(Source::Urls(urls), options)
    }

    pub(crate) fn fixed(rpc: RpcClient, options: &Options) -> Transport {
        Transport::new(Source::Fixed(rpc), options)
    }

    fn new(source: Source, options: &Options) -> Transport {
        Transport {
            source,
            options: options.clone(),
            connecting: tokio::sync::Mutex::default(),
            live: RwLock::new(None),
            genesis: RwLock::new(None),
            heard: Mutex::new(Instant::now()),
        }
    }

    /// The endpoint in use, or the first one where there is none.
    pub(crate) fn endpoint(&self) -> String {
        if let Some(live) = self.live.read().as_ref() {
            return live.endpoint.clone();
        }
        match &self.source {
            Source::Urls(urls) => urls.to_string(),
            Source::Fixed(_) => IN_PROCESS.into(),
        }
    }

    /// Whether the endpoint in use, or any where there is none, has a part that is not shown.
    pub(crate) fn has_secret(&self) -> bool {
        let Source::Urls(urls) = &self.source else { return false };
        let live = self.live.read();
        urls.iter()
            .filter(|url| live.as_ref().is_none_or(|live| live.endpoint == url.to_string()))
            .any(NodeUrl::has_secret)
    }

    /// How many endpoints there are to choose from.
    fn endpoints(&self) -> usize {
        match &self.source {
            Source::Urls(urls) => urls.as_slice().len(),
            Source::Fixed(_) => 1,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.live.read().is_some()
    }

    /// How long ago the node last said anything.
    pub(crate) fn last_heard(&self) -> Duration {
        self.heard.lock().elapsed()
    }

    pub(crate) fn hear(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// Which connection is in use; see [`Transport::close`].
    pub(crate) fn generation(&self) -> Option<u64> {
        self.live.read().as_ref().map(|live| live.generation)
    }

    /// Gives up a connection, if it is still the one in use.
    pub(crate) fn close(&self, generation: u64, reason: &str) {
        let mut live = self.live.write();
        if let Some(dead) = live.take_if(|live| live.generation == generation) {
            tracing::warn!(endpoint = %dead.endpoint, reason, "connection to the node given up");
        }
    }

    /// The connection in use, made if there is none: every endpoint is tried once, starting after the one that failed last.
    async fn live(&self) -> Result<Arc<Live>> {
        if let Some(live) = self.live.read().as_ref() {
            return Ok(live.clone());
        }
        let mut attempts = self.connecting.lock().await;
        if let Some(live) = self.live.read().as_ref() {
            return Ok(live.clone());
        }
        let live = match &self.source {
            Source::Fixed(rpc) => (rpc.clone(), IN_PROCESS.to_owned()),
            Source::Urls(urls) => {
                let urls = urls.as_slice();
                let mut failures = Vec::new();
                let mut connected = None;
                for step in 0..urls.len() {
                    let place = attempts.next.wrapping_add(step) % urls.len();
                    let url = &urls[place];
                    match self.connect_to(url).await {
                        Ok(rpc) => {
                            // After a failure of this one the next is tried first.
                            attempts.next = place.wrapping_add(1) % urls.len();
                            connected = Some((rpc, url.to_string()));
                            break;
                        }
                        Err(Error::WrongChain { url, expected, found }) if urls.len() == 1 => {
                            return Err(Error::WrongChain { url, expected, found })
                        }
                        Err(error) => failures.push(match error {
                            Error::Unreachable { attempts } => attempts,
                            other => other.to_string(),
                        }),
                    }
                }
                connected.ok_or_else(|| Error::Unreachable { attempts: failures.join("; ") })?
            }
        };
        attempts.generation = attempts.generation.wrapping_add(1);
        let live = Arc::new(Live { rpc: live.0, endpoint: live.1, generation: attempts.generation });
        self.hear();
        tracing::info!(endpoint = %live.endpoint, "connected to the node");
        *self.live.write() = Some(live.clone());
        Ok(live)
    }

    async fn connect_to(&self, url: &NodeUrl) -> Result<RpcClient> {
        let unreachable =
            |reason: String| Error::Unreachable { attempts: format!("{url}: {}", url.scrub(reason)) };
        let build = WsClientBuilder::default()
            .connection_timeout(self.options.connect_timeout)
            .request_timeout(self.options.request_timeout)
            .max_request_size(MAX_RESPONSE)
            .max_response_size(MAX_RESPONSE)
            .max_buffer_capacity_per_subscription(1_024)
            // Pings see a dead socket; the silence check above this sees a node that hangs.
            .enable_ws_ping(
                PingConfig::new()
                    .ping_interval(self.options.silence.min(Duration::from_secs(15)))
                    .inactive_limit(self.options.silence.max(Duration::from_secs(5)))
                    .max_failures(1),
            )
            .build(url.expose());
        let socket = tokio::time::timeout(self.options.connect_timeout, build)
            .await
            .map_err(|_| unreachable(format!("no answer within {:?}", self.options.connect_timeout)))?
            .map_err(|e| unreachable(chain_of(&e)))?;
        let rpc = RpcClient::new(socket);
        let mut backoff = Backoff::new(BUSY_FIRST, BUSY_MOST);
        let (started, mut refusals) = (Instant::now(), 0u32);
        let genesis = loop {
            let asked = rpc.request::<Option<H256>>("chain_getBlockHash", rpc_params![0u32]);
            match tokio::time::timeout(self.options.request_timeout, asked).await {
                Ok(Ok(genesis)) => break genesis,
                Ok(Err(subxt_rpcs::Error::User(refusal)))
                    if says_busy(refusal.code, &refusal.message)
                        && started.elapsed() < self.options.busy_patience
                        && (self.endpoints() == 1 || refusals < BUSY_ENOUGH) =>
                {
                    refusals = refusals.saturating_add(1);
                    tracing::debug!(endpoint = %url, code = refusal.code, message = %refusal.message, "the node is busy");
                    backoff.wait().await;
                }
                Ok(Err(subxt_rpcs::Error::User(refusal))) => {
                    return Err(unreachable(format!(
                        "connected, but it answers {} (code {})",
                        refusal.message, refusal.code
                    )))
                }
                Ok(Err(e)) => {
                    return Err(unreachable(format!("connected, but it is no Substrate node: {e}")))
                }
                Err(_) => {
                    return Err(unreachable(format!(
                        "connected, but no answer within {:?}",
                        self.options.request_timeout
                    )))
                }
            }
        };
        let genesis = genesis.ok_or_else(|| unreachable("connected, but it has no genesis block".into()))?;
        let mut known = self.genesis.write();
        match *known {
            Some(expected) if expected != genesis => {
                Err(Error::WrongChain { url: url.to_string(), expected, found: genesis })
            }
            Some(_) => Ok(rpc),
            None => {
                *known = Some(genesis);
                Ok(rpc)
            }
        }
    }

    /// One request, tried again: on another connection where this one fails, later where the node is busy or limits how often it
    /// is asked. For reads.
    pub(crate) async fn read<T: DeserializeOwned>(&self, method: &str, params: RpcParams) -> Result<T> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut retries = self.options.read_retries;
        let mut busy = Backoff::new(BUSY_FIRST, BUSY_MOST);
        let (started, mut refusals) = (Instant::now(), 0u32);
        loop {
            let generation = self.generation();
            match self.once(method, params.clone()).await {
                Err(error) if error.is_busy() && started.elapsed() < self.options.busy_patience => {
                    refusals = refusals.saturating_add(1);
                    tracing::debug!(method, %error, refusals, "the node is busy, trying again later");
                    // Another node may have time.
                    if let (BUSY_ENOUGH, Some(generation), 2..) = (refusals, generation, self.endpoints()) {
                        self.close(generation, "it refuses request after request");
                    }
                    busy.wait().await;
                }
                Err(error) if retries > 0 && !error.is_busy() && error.class() == crate::Class::Transient => {
                    tracing::debug!(method, %error, "read failed, trying again");
                    retries = retries.saturating_sub(1);
                    backoff.wait().await;
                }
                result => return result,
            }
        }
    }

    /// One request, once.
    pub(crate) async fn once<T: DeserializeOwned>(&self, method: &str, params: RpcParams) -> Result<T> {
        let live = self.live().await?;
        let answer =
            tokio::time::timeout(self.options.request_timeout, live.rpc.request(method, params)).await;
        self.settle(&live, method, answer)
    }

    /// A subscription, with the connection that it is on.
    pub(crate) async fn subscribe<T: DeserializeOwned>(
        &self,
        method: &str,
        params: RpcParams,
        unsubscribe: &str,
    ) -> Result<RpcSubscription<T>> {
        let live = self.live().await?;
        let answer = tokio::time::timeout(
            self.options.request_timeout,
            live.rpc.subscribe(method, params, unsubscribe),
        )
        .await;
        self.settle(&live, method, answer)
    }

    /// Tells a node's refusal from a broken connection, and gives up the latter.
    fn settle<T>(
        &self,
        live: &Live,
        method: &str,
        answer: Result<Result<T, subxt_rpcs::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T> {
        let endpoint = live.endpoint.clone();
        let method = method.to_owned();
        match answer {
            Ok(Ok(value)) => {
                self.hear();
                Ok(value)
            }
            Ok(Err(subxt_rpcs::Error::User(refusal))) => {
                self.hear();
                let mut message = refusal.message;
                if let Some(data) = refusal.data {
                    // Pools say what is wrong in the data: a JSON string.
                    let text =
                        serde_json::from_str::<String>(data.get()).unwrap_or_else(|_| data.get().to_owned());
                    message = format!("{message}: {text}");
                }
                Err(Error::Rpc { endpoint, method, code: refusal.code, message })
            }
            Ok(Err(subxt_rpcs::Error::Deserialization(e))) => {
                self.hear();
                Err(Error::decode(format!("the answer of {endpoint} to {method}"), e))
            }
            Ok(Err(subxt_rpcs::Error::Serialization(e))) => {
                Err(Error::decode(format!("a request of {method}"), e))
            }
            Ok(Err(error)) => {
                let reason = chain_of(&error);
                self.close(live.generation, &reason);
                Err(Error::Disconnected { endpoint, method, reason })
            }
            Err(_) => {
                self.close(live.generation, "a request was not answered in time");
                Err(Error::Timeout { endpoint, method, after: self.options.request_timeout })
            }
        }
    }
}

/// An error with its causes: the transport hides "connection refused" two levels deep.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Growing pauses with jitter, so that many workers do not come back at the same moment.
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { next: first, most }
    }

    pub(crate) async fn wait(&mut self) {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.most);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
    }
}
