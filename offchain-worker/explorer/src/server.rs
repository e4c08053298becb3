//! The server.

use crate::limits::Limits;
use crate::live::{Live, Pulse};
use crate::{api, pages};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{header, HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::Router;
use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use parking_lot::Mutex;
use poq_index::read::Reads;
use poq_index::{Conn, Error, Pool, Target};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::TimeoutLayer;

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The index.
    pub database: Target,
    /// How many questions the database is asked at a time.
    pub connections: usize,
    /// How many requests an address may make per second, over time.
    pub per_second: NonZeroU32,
    /// How many it may make at once.
    pub burst: NonZeroU32,
    /// Whether a proxy in front says in `X-Forwarded-For` whose requests they are. Without one, anybody could say so.
    pub forwarded: bool,
    /// How often to look whether there is anything new.
    pub pulse: Duration,
}

impl Config {
    /// The usual behaviour, over this index.
    pub fn new(database: Target) -> Config {
        Config {
            database,
            connections: 4,
            per_second: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            burst: NonZeroU32::new(200).unwrap_or(NonZeroU32::MIN),
            forwarded: false,
            pulse: Duration::from_millis(500),
        }
    }
}

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many answers are kept until something new happens.
const KEPT: usize = 512;
/// The largest answer that is kept, in bytes.
const KEPT_SIZE: usize = 256 * 1024;

/// An answer as it is sent.
#[derive(Clone)]
struct Answer {
    body: axum::body::Bytes,
    tag: HeaderValue,
}

/// Answers since the last block that was read.
#[derive(Default)]
struct Answers {
    tip: String,
    kept: HashMap<String, Answer>,
}

/// What handlers share.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    config: Config,
    pool: Pool,
    reads: Reads,
    live: Live,
    limits: Limits,
    answers: Mutex<Answers>,
}

impl Shared {
    /// Opens the index.
    ///
    /// # Errors
    /// Where it cannot be opened, or is none.
    pub async fn open(config: Config) -> Result<Shared, Error> {
        let pool = Pool::open(&config.database, config.connections).await?;
        let database = config.database.to_string();
        let reads = pool.read(move |conn| Reads::of(conn, &database)).await?;
        let live = Live::start(pool.clone(), reads.clone(), config.pulse).await?;
        let limits = Limits::new(config.per_second, config.burst);
        Ok(Shared(Arc::new(Inner { config, pool, reads, live, limits, answers: Mutex::default() })))
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What can be asked.
    pub fn reads(&self) -> &Reads {
        &self.0.reads
    }

    /// Asks the index.
    ///
    /// # Errors
    /// The question's.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reads, &mut Conn) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let reads = self.0.reads.clone();
        self.0.pool.read(move |conn| conn.snapshot(|conn| question(&reads, conn))).await
    }

    /// Answers a request from the index; the same answer, without asking, until something new was read.
    pub(crate) async fn answer<T: Serialize + Send + 'static>(
        &self,
        request: &Asked,
        question: impl FnOnce(&Reads, &mut Conn) -> Result<T, Error> + Send + 'static,
    ) -> Response {
        let Pulse { hash, .. } = self.live().pulse();
        let known = {
            let mut answers = self.0.answers.lock();
            if answers.tip != hash {
                *answers = Answers { tip: hash.clone(), kept: HashMap::new() };
            }
            answers.kept.get(&request.key).cloned()
        };
        let answer = match known {
            Some(answer) => answer,
            None => {
                let body = match self.ask(question).await {
                    Ok(value) => match serde_json::to_vec(&value) {
                        Ok(body) => axum::body::Bytes::from(body),
                        Err(error) => return internal(&error),
                    },
                    Err(error) => return failure(&error),
                };
                let answer = Answer { tag: tag_of(&body), body };
                let mut answers = self.0.answers.lock();
                if answers.tip == hash && answers.kept.len() < KEPT && answer.body.len() <= KEPT_SIZE {
                    answers.kept.insert(request.key.clone(), answer.clone());
                }
                answer
            }
        };
        tagged(request.if_none_match.as_ref(), answer.tag, "application/json", "no-cache", answer.body)
    }
}

/// What of a request an answer depends on.
pub(crate) struct Asked {
    key: String,
    if_none_match: Option<HeaderValue>,
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Asked {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Asked, Self::Rejection> {
        let key = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        Ok(Asked { key, if_none_match: parts.headers.get(header::IF_NONE_MATCH).cloned() })
    }
}

/// A body's entity tag.
pub(crate) fn tag_of(body: &[u8]) -> HeaderValue {
    let hash = hex::encode(Blake2b::<U16>::digest(body));
    HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// An answer with its tag; only that, to whoever has the body already.
pub(crate) fn tagged(
    known: Option<&HeaderValue>,
    tag: HeaderValue,
    kind: &'static str,
    cache: &'static str,
    body: axum::body::Bytes,
) -> Response {
    let fresh = known.and_then(|known| known.to_str().ok()).is_some_and(|known| {
        let tag = tag.to_str().unwrap_or_default();
        known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*")
    });
    let headers = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
    ];
    match fresh {
        true => (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response(),
        false => (headers, body).into_response(),
    }
}

/// An error, as every error is told.
pub(crate) fn told(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, axum::Json(body)).into_response()
}

/// What a failed question is told as. What is wrong with the database is for its operator alone.
pub(crate) fn failure(error: &Error) -> Response {
    match error {
        Error::Invalid(why) => told(StatusCode::BAD_REQUEST, "invalid", why),
        Error::Absent(why) => told(StatusCode::NOT_FOUND, "absent", why),
        error => {
            tracing::error!(%error, "a question failed");
            told(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the index cannot be asked just now; try again",
            )
        }
    }
}

fn internal(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "an answer could not be written");
    told(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be written")
}

/// What no page of this server does: run what is not its own, ask anybody else, be framed.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whose request it is.
pub(crate) fn client(config: &Config, headers: &HeaderMap, peer: Option<SocketAddr>) -> IpAddr {
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
    if !config.forwarded {
        return peer;
    }
    // The last one is what the proxy itself saw; what stands before it anybody can write.
    let last = headers.get_all("x-forwarded-for").iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.unwrap_or(peer)
}

async fn limited(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let client = client(&shared.0.config, request.headers(), peer);
    if let Err(wait) = shared.limits().take(client) {
        let seconds = wait.as_secs().saturating_add(1);
        let message = format!("too many requests from this address; try again in {seconds} s");
        let mut response = told(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", &message);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

/// Whose request it is, for those that count by it.
#[derive(Clone, Copy)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Everything that the server answers.
pub fn router(shared: Shared) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::IF_NONE_MATCH])
        .expose_headers([header::ETAG, header::RETRY_AFTER]);
    let timed = TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE);
    let api = api::questions()
        .layer(timed)
        // What goes on for as long as somebody looks has no time limit.
        .merge(api::streams())
        .fallback(|| async {
            told(
                StatusCode::NOT_FOUND,
                "no_such_path",
                "there is nothing at this path; /v1/openapi.json lists what there is",
            )
        })
        .layer(middleware::from_fn_with_state(shared.clone(), limited))
        .layer(cors);
    Router::new()
        .nest("/v1", api)
        .route("/healthz", axum::routing::get(api::health))
        .fallback(pages::page)
        .layer(middleware::from_fn(headers))
        .with_state(shared)
}

/// Serves until `stop` is done.
///
/// # Errors
/// Where the index cannot be opened, or the listener fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let shared = Shared::open(config).await?;
    let live = shared.clone();
    let app = router(shared).into_make_service_with_connect_info::<SocketAddr>();
    let stopped = async move {
        stop.await;
        // Streams would keep the server waiting for as long as somebody looks.
        live.live().end();
    };
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await
        .map_err(|error| Error::Open { database: "the listener".into(), reason: error.to_string() })
}
