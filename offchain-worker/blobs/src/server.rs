use crate::access::{Access, AccessRequest, Decision, Resource};
use crate::auth::{AuthError, Gate, Sr25519Verifier, Verifier};
use crate::store::{BlobStore, Slot, StoreError};
use crate::{now_ms, AccountId32, BlobId, Hash, NodeId, OpeningBlob, TaskId};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{MatchedPath, Path, Query, Request, State};
use axum::http::{header, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{watch, OwnedSemaphorePermit, Semaphore};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::trace::{DefaultOnFailure, DefaultOnResponse, TraceLayer};
use tracing::Level;

/// No request has a body.
const MAX_REQUEST_BODY: usize = 1024;
/// How long a client may take to say what it wants, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is used at most, so that clients who read nothing do not hold it for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(120);
/// How long requests under way may take once the server is stopping.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How a server listens and what it bears.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Hash of the chain's genesis and the contract: requests are signed for it, and outputs are its tasks'.
    pub network: Hash,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How far a request's time may be from this machine's clock, either way.
    pub window: Duration,
    /// How long answering a request may take.
    pub request_timeout: Duration,
    /// How many requests are answered at a time; more are told to come back.
    pub max_concurrent: usize,
    /// How many connections are open at a time; more wait to be accepted.
    pub max_connections: usize,
}

impl ServerConfig {
    /// With a window of 60 s, a timeout of 10 s, 64 requests and 512 connections.
    pub fn new(network: Hash, listen: SocketAddr) -> ServerConfig {
        ServerConfig {
            network,
            listen,
            window: Duration::from_secs(60),
            request_timeout: Duration::from_secs(10),
            max_concurrent: 64,
            max_connections: 512,
        }
    }
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} for blob requests: is another program using the port?")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
}

struct App {
    network: Hash,
    request_timeout: Duration,
    gate: Gate,
    store: BlobStore,
    access: Arc<dyn Access>,
    concurrent: Arc<Semaphore>,
}

/// The routes, to be mounted beside others. [`BlobServer`] adds limits on connections.
pub fn router(config: &ServerConfig, store: BlobStore, access: Arc<dyn Access>) -> Router {
    router_with(config, store, access, Box::new(Sr25519Verifier))
}

fn router_with(
    config: &ServerConfig,
    store: BlobStore,
    access: Arc<dyn Access>,
    verifier: Box<dyn Verifier>,
) -> Router {
    let app = Arc::new(App {
        network: config.network,
        request_timeout: config.request_timeout,
        gate: Gate::new(config.network, config.window, verifier),
        store,
        access,
        concurrent: Arc::new(Semaphore::new(config.max_concurrent)),
    });
    // Paths are logged, headers are not: they bear signatures and salts.
    let trace = TraceLayer::new_for_http()
        .make_span_with(|request: &Request| {
            tracing::debug_span!("blob_request", method = %request.method(), path = request.uri().path())
        })
        .on_response(DefaultOnResponse::new().level(Level::DEBUG))
        .on_failure(DefaultOnFailure::new().level(Level::WARN));
    Router::new()
        .route("/v1/blobs/{hash}", get(blob))
        .route("/v1/tasks/{task}/openings/{node}", get(opening))
        .route("/v1/tasks/{task}/outputs/{node}", get(output))
        .route("/v1/tasks/{task}/reveals/{node}", get(reveal))
        .route("/v1/tasks/{task}/reports/{node}", get(report))
        .route_layer(middleware::from_fn_with_state(app.clone(), guard))
        .route("/health", get(health))
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "no_such_route", "there is no such route")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "only GET and HEAD are understood",
            )
        })
        .layer(RequestBodyLimitLayer::new(MAX_REQUEST_BODY))
        .layer(trace)
        .with_state(app)
}

// ---- routes

async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, text) = match tokio::time::timeout(app.request_timeout, app.store.check()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok"),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the blob store is failing");
            (StatusCode::SERVICE_UNAVAILABLE, "failing")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
    };
    let body = serde_json::json!({ "status": text, "network": hex::encode(app.network), "time": now_ms() });
    (status, Json(body)).into_response()
}

#[derive(Deserialize)]
struct OfTask {
    task: TaskId,
}

async fn blob(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<OfTask>, QueryRejection>,
) -> Result<Response, ApiError> {
    let account = app.account(&method, &uri, &headers)?;
    let Path(name) = path.map_err(malformed)?;
    let id: BlobId = name.parse().map_err(malformed)?;
    let Query(OfTask { task }) = query.map_err(malformed)?;
    app.decide(AccessRequest { account, task, resource: Resource::Blob(id) }).await?;
    let bytes = app.store.get(&id).await?;
    Ok(([(header::CONTENT_TYPE, BYTES)], bytes).into_response())
}

async fn opening(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: Result<Path<(TaskId, NodeId)>, PathRejection>,
) -> Result<Response, ApiError> {
    let at = app.admit(&method, &uri, &headers, path, Resource::Opening).await?;
    let opening = OpeningBlob::new(&app.store.opening(&at).await?);
    Ok(([(header::CACHE_CONTROL, NOT_KEPT)], Json(opening)).into_response())
}

async fn output(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: Result<Path<(TaskId, NodeId)>, PathRejection>,
) -> Result<Response, ApiError> {
    let at = app.admit(&method, &uri, &headers, path, Resource::Output).await?;
    let bytes = app.store.output(&at).await?;
    Ok(([(header::CONTENT_TYPE, BYTES)], bytes).into_response())
}

async fn reveal(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: Result<Path<(TaskId, NodeId)>, PathRejection>,
) -> Result<Response, ApiError> {
    let at = app.admit(&method, &uri, &headers, path, Resource::Reveal).await?;
    let bytes = app.store.reveal(&at).await?;
    Ok(([(header::CONTENT_TYPE, BYTES)], bytes).into_response())
}

async fn report(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: Result<Path<(TaskId, NodeId)>, PathRejection>,
) -> Result<Response, ApiError> {
    let at = app.admit(&method, &uri, &headers, path, Resource::Report).await?;
    let bytes = app.store.report(&at).await?;
    Ok(([(header::CONTENT_TYPE, BYTES)], bytes).into_response())
}

/// An opening is for its reader alone.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");
/// Never a type that a browser would run.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl App {
    fn account(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<AccountId32, ApiError> {
        let path = uri.path_and_query().map_or_else(|| uri.path(), |path| path.as_str());
        Ok(self.gate.check(method, path, headers, now_ms())?)
    }

    /// Whether this request for something of a node in a task may be answered, and where that is.
    async fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        path: Result<Path<(TaskId, NodeId)>, PathRejection>,
        resource: fn(NodeId) -> Resource,
    ) -> Result<Slot, ApiError> {
        let account = self.account(method, uri, headers)?;
        let Path((task, node)) = path.map_err(malformed)?;
        self.decide(AccessRequest { account, task, resource: resource(node) }).await?;
        Ok(Slot { network: self.network, task, node })
    }

    async fn decide(&self, request: AccessRequest) -> Result<(), ApiError> {
        let decision = self.access.decide(&request).await.map_err(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                ?request,
                "cannot decide on a blob request"
            );
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "undecided",
                "cannot tell now who may have it; try again",
            )
            .retry_after(Duration::from_secs(2))
        })?;
        let AccessRequest { account, task, resource } = &request;
        tracing::debug!(%account, task, ?resource, ?decision, "decided");
        match decision {
            Decision::Allow => Ok(()),
            Decision::TooEarly { retry_after } => Err(ApiError {
                retry_after,
                ..ApiError::new(
                    StatusCode::TOO_EARLY,
                    "too_early",
                    "it is not to be had yet in this phase of the task",
                )
            }),
            Decision::Forbidden => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this account has no part in the task that needs it",
            )),
            Decision::NotFound => {
                Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "the task has no such thing"))
            }
        }
    }
}

/// Limits how many requests are answered at a time and how long each may take, and counts them.
async fn guard(
    State(app): State<Arc<App>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = match app.concurrent.clone().try_acquire_owned() {
        Ok(_permit) => match tokio::time::timeout(app.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "this took too long; try again")
                    .retry_after(Duration::from_secs(1))
                    .into_response()
            }
        },
        Err(_) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests at once; try again",
        )
        .retry_after(Duration::from_secs(1))
        .into_response(),
    };
    let route = matched.map_or_else(|| "other".to_owned(), |matched| matched.as_str().to_owned());
    metrics::counter!("poq_blob_requests_total", "route" => route, "status" => response.status().as_u16().to_string())
        .increment(1);
    response
}

// ---- errors

#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, code, message: message.into(), retry_after: None }
    }

    fn retry_after(self, after: Duration) -> ApiError {
        ApiError { retry_after: Some(after), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(ErrorBody { code: self.code, message: &self.message });
        let mut response = (self.status, body).into_response();
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up.
            let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn malformed(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "malformed", error.to_string())
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::NotThere { what } => {
                ApiError::new(StatusCode::NOT_FOUND, "not_there", format!("there is no {what} here"))
            }
            // The caller learns no more than that: details are this machine's business.
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "the blob store failed");
                ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store_failed",
                    "the store failed; try again later",
                )
            }
        }
    }
}

// ---- connections

/// Serves a store over HTTP/1.1.
pub struct BlobServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    connections: usize,
}

impl std::fmt::Debug for BlobServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl BlobServer {
    /// Listens, with sr25519 signatures.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn bind(
        config: ServerConfig,
        store: BlobStore,
        access: Arc<dyn Access>,
    ) -> Result<BlobServer, ServerError> {
        BlobServer::bind_with(config, store, access, Box::new(Sr25519Verifier)).await
    }

    /// Listens, with signatures of any sort.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn bind_with(
        config: ServerConfig,
        store: BlobStore,
        access: Arc<dyn Access>,
        verifier: Box<dyn Verifier>,
    ) -> Result<BlobServer, ServerError> {
        let failed = |source| ServerError::Listen { listen: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = router_with(&config, store, access, verifier);
        Ok(BlobServer { listener, address, router, connections: config.max_connections })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its base address as this machine sees it, `http://address:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until `shutdown` resolves and the requests under way then are answered (10 s at most).
    ///
    /// # Errors
    /// None at present; connections fail one by one.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX).max(1);
        let connections = Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX)));
        let (stop, stopping) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        tracing::info!(address = %self.address, "serving blobs");
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &connections) => accepted,
                () = &mut shutdown => break,
            };
            let Some((stream, permit)) = accepted else { continue };
            tokio::spawn(connection(stream, self.router.clone(), stopping.clone(), permit));
        }
        drop(self.listener);
        drop(stop);
        // Every connection holds a permit until it is closed.
        if tokio::time::timeout(STOP_GRACE, connections.acquire_many(all)).await.is_err() {
            tracing::warn!("some blob requests were still under way when the server stopped");
        }
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // Out of file descriptors, most likely: closing connections will help.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopping: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    tokio::select! {
        result = serving.as_mut() => {
            if let Err(error) = result {
                tracing::trace!(%error, "a connection broke");
            }
            return;
        }
        _ = stopping.changed() => {}
        () = tokio::time::sleep(CONNECTION_AGE) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(STOP_GRACE, serving).await;
}
