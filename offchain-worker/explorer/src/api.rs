//! The questions.

use crate::csv;
use crate::server::{failure, told, Asked, Client, Shared};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{header, HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures::{Stream, StreamExt};
use poq_index::read::{
    AccountDetail, AuditorInfo, BlockDetail, ChangeInfo, EntryInfo, HistoryFilter, Hit, KindDetail, KindInfo,
    Line, LineFilter, NodeDetail, NodeFilter, NodeInfo, NodePage, Overview, Page, PoolDetail, PoolInfo,
    Status, TaskDetail, TaskFilter, TaskInfo,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use utoipa::{IntoParams, OpenApi, ToSchema};

/// A path's part or a query, refused in this API's own words.
struct In<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for In<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<In<T>, Response> {
        let invalid = |why: String| told(StatusCode::BAD_REQUEST, "invalid", &why);
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(In(value)),
            Err(error) => Err(invalid(error.body_text())),
        }
    }
}

struct Of<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Of<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Of<T>, Response> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Of(value)),
            Err(error) => Err(told(StatusCode::BAD_REQUEST, "invalid", &error.body_text())),
        }
    }
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub struct Failure {
    /// The error.
    pub error: FailureInfo,
}

/// An error.
#[derive(Serialize, ToSchema)]
pub struct FailureInfo {
    /// A word that does not change: `invalid`, `absent`, `too_many_requests`, `unavailable`, …
    pub code: String,
    /// What was wrong and what to do, for people.
    pub message: String,
}

/// How far the index has come, and whether it keeps up with the chain.
#[utoipa::path(get, path = "/v1/status", tag = "network", responses((status = 200, body = Status), (status = 503, body = Failure)))]
async fn status(State(shared): State<Shared>) -> Response {
    match shared.ask(|reads, conn| reads.status(conn)).await {
        Ok(status) => ([(header::CACHE_CONTROL, "no-store")], axum::Json(status)).into_response(),
        Err(error) => failure(&error),
    }
}

/// How many days.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Days {
    /// At most so many of the last days; 90 where it is not given, 366 at the most.
    days: Option<u32>,
}

/// The network at a glance: its sums, treasury, what is burned, what the contract owes, day by day.
#[utoipa::path(get, path = "/v1/overview", tag = "network", params(Days), responses((status = 200, body = Overview), (status = 404, body = Failure)))]
async fn overview(State(shared): State<Shared>, asked: Asked, Of(days): Of<Days>) -> Response {
    let days = days.days.unwrap_or(90).min(366);
    shared.answer(&asked, move |reads, conn| reads.overview(conn, days)).await
}

/// Tasks, the newest first.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(TaskFilter), responses((status = 200, body = Page<TaskInfo>), (status = 400, body = Failure)))]
async fn tasks(State(shared): State<Shared>, asked: Asked, Of(filter): Of<TaskFilter>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.tasks(conn, &filter)).await
}

/// A task with its nodes' numbers, duties and events.
#[utoipa::path(get, path = "/v1/tasks/{task}", tag = "tasks", params(("task" = u64, Path, description = "The task's number.")), responses((status = 200, body = TaskDetail), (status = 404, body = Failure)))]
async fn task(State(shared): State<Shared>, asked: Asked, In(task): In<u64>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.task_detail(conn, task)).await
}

/// How a task ended: what went in, what came out, the same computed again, every number of every reward, and each comparison.
#[utoipa::path(get, path = "/v1/tasks/{task}/explanation", tag = "tasks", params(("task" = u64, Path, description = "The task's number.")), responses((status = 200, body = Object, description = "The same document as `poq explain --json`."), (status = 404, body = Failure)))]
async fn explanation(State(shared): State<Shared>, asked: Asked, In(task): In<u64>) -> Response {
    shared
        .answer(&asked, move |reads, conn| {
            let explanation = reads.explanation(conn, task)?;
            let value = serde_json::to_value(&explanation).unwrap_or(Value::Null);
            Ok(reads.localised(value))
        })
        .await
}

/// Nodes, by number.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(NodeFilter), responses((status = 200, body = NodePage), (status = 400, body = Failure)))]
async fn nodes(State(shared): State<Shared>, asked: Asked, Of(filter): Of<NodeFilter>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.nodes(conn, &filter)).await
}

/// Every node with its quality and cost, for comparing them; those with the most tasks first, at most 2,000.
#[utoipa::path(get, path = "/v1/leaderboard", tag = "nodes", responses((status = 200, body = Vec<NodeInfo>)))]
async fn leaderboard(State(shared): State<Shared>, asked: Asked) -> Response {
    shared.answer(&asked, |reads, conn| reads.leaderboard(conn)).await
}

/// A node: stake, trust, record, margins, duties, earnings by days.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = u32, Path, description = "The node's number.")), responses((status = 200, body = NodeDetail), (status = 404, body = Failure)))]
async fn node(State(shared): State<Shared>, asked: Asked, In(node): In<u32>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.node_detail(conn, node)).await
}

/// What tasks were for a node, the newest first, each with the reason for what it was paid.
#[utoipa::path(get, path = "/v1/nodes/{node}/tasks", tag = "nodes", params(("node" = u32, Path, description = "The node's number."), LineFilter), responses((status = 200, body = Page<Line>), (status = 404, body = Failure)))]
async fn node_tasks(
    State(shared): State<Shared>,
    asked: Asked,
    In(node): In<u32>,
    Of(filter): Of<LineFilter>,
) -> Response {
    shared
        .answer(&asked, move |reads, conn| {
            reads.node(conn, node)?;
            reads.lines(conn, node, &filter)
        })
        .await
}

/// An account: its sums, nodes and pools. Any SS58 address or 0x and 64 hexadecimal digits.
#[utoipa::path(get, path = "/v1/accounts/{account}", tag = "accounts", params(("account" = String, Path, description = "The account's address.")), responses((status = 200, body = AccountDetail), (status = 400, body = Failure)))]
async fn account(State(shared): State<Shared>, asked: Asked, In(account): In<String>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.account_detail(conn, &account)).await
}

/// An account's money, movement by movement, the newest first.
#[utoipa::path(get, path = "/v1/accounts/{account}/history", tag = "accounts", params(("account" = String, Path, description = "The account's address."), HistoryFilter), responses((status = 200, body = Page<EntryInfo>), (status = 400, body = Failure)))]
async fn history(
    State(shared): State<Shared>,
    asked: Asked,
    In(account): In<String>,
    Of(filter): Of<HistoryFilter>,
) -> Response {
    shared.answer(&asked, move |reads, conn| reads.history(conn, &account, &filter)).await
}

/// The same as a table for spreadsheets, all of it; `from` and `until` cut out a year. Amounts in whole units.
#[utoipa::path(get, path = "/v1/accounts/{account}/history.csv", tag = "accounts", params(("account" = String, Path, description = "The account's address."), HistoryFilter), responses((status = 200, content_type = "text/csv", body = String), (status = 400, body = Failure)))]
async fn history_csv(
    State(shared): State<Shared>,
    In(account): In<String>,
    Of(filter): Of<HistoryFilter>,
) -> Response {
    // What is wrong with the question is said before the table begins.
    let (typed, first) = (account.clone(), filter.clone());
    if let Err(error) = shared.ask(move |reads, conn| reads.entries(conn, &typed, &first, 1)).await {
        return failure(&error);
    }
    let rows = csv::rows(shared, account, filter).map(|row| row.map_err(std::io::Error::other));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"poq-history.csv\"")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(rows)).into_response()
}

/// Task kinds with their newest parameters.
#[utoipa::path(get, path = "/v1/kinds", tag = "parameters", responses((status = 200, body = Vec<KindInfo>)))]
async fn kinds(State(shared): State<Shared>, asked: Asked) -> Response {
    shared.answer(&asked, |reads, conn| reads.kinds(conn)).await
}

/// A task kind with every version of its parameters.
#[utoipa::path(get, path = "/v1/kinds/{kind}", tag = "parameters", params(("kind" = u16, Path, description = "The kind's number.")), responses((status = 200, body = KindDetail), (status = 404, body = Failure)))]
async fn kind(State(shared): State<Shared>, asked: Asked, In(kind): In<u16>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.kind_detail(conn, kind)).await
}

/// Which changes.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ChangeFilter {
    /// Only those that can still act.
    pending: Option<bool>,
}

/// What the contract's owner announced, the latest first, beside what holds now.
#[utoipa::path(get, path = "/v1/changes", tag = "parameters", params(ChangeFilter), responses((status = 200, body = Vec<ChangeInfo>)))]
async fn changes(State(shared): State<Shared>, asked: Asked, Of(filter): Of<ChangeFilter>) -> Response {
    let pending = filter.pending.unwrap_or(false);
    shared.answer(&asked, move |reads, conn| reads.changes(conn, pending)).await
}

/// Auditors.
#[utoipa::path(get, path = "/v1/auditors", tag = "parameters", responses((status = 200, body = Vec<AuditorInfo>)))]
async fn auditors(State(shared): State<Shared>, asked: Asked) -> Response {
    shared.answer(&asked, |reads, conn| reads.auditors(conn)).await
}

/// Staking pools with what they yield.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", responses((status = 200, body = Vec<PoolInfo>)))]
async fn pools(State(shared): State<Shared>, asked: Asked) -> Response {
    shared.answer(&asked, |reads, conn| reads.pools(conn)).await
}

/// A staking pool with its income and its members.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "The pool's address.")), responses((status = 200, body = PoolDetail), (status = 400, body = Failure), (status = 404, body = Failure)))]
async fn pool(State(shared): State<Shared>, asked: Asked, In(pool): In<String>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.pool_detail(conn, &pool)).await
}

/// A block in which something happened.
#[utoipa::path(get, path = "/v1/blocks/{block}", tag = "network", params(("block" = u32, Path, description = "The block's number.")), responses((status = 200, body = BlockDetail), (status = 404, body = Failure)))]
async fn block(State(shared): State<Shared>, asked: Asked, In(block): In<u32>) -> Response {
    shared.answer(&asked, move |reads, conn| reads.block(conn, block)).await
}

/// What is looked for.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Search {
    /// A number, an address, a block's hash, or part of a model's or a pool's name.
    q: String,
}

/// Finds tasks, nodes, accounts, pools and blocks.
#[utoipa::path(get, path = "/v1/search", tag = "network", params(Search), responses((status = 200, body = Vec<Hit>), (status = 400, body = Failure)))]
async fn search(State(shared): State<Shared>, asked: Asked, Of(search): Of<Search>) -> Response {
    if search.q.len() > 200 {
        return told(StatusCode::BAD_REQUEST, "invalid", "what is looked for has at most 200 characters");
    }
    shared.answer(&asked, move |reads, conn| reads.search(conn, &search.q)).await
}

/// What is new, as server-sent events named `news`: the status, and the tasks that changed. Every block that was read, and every ten
/// seconds where nothing happens. Whoever was away asks for what it shows anew.
#[utoipa::path(get, path = "/v1/live", tag = "network", responses((status = 200, content_type = "text/event-stream", body = String), (status = 429, body = Failure)))]
async fn live(State(shared): State<Shared>, client: Option<Extension<Client>>) -> Response {
    let address = client.map_or(std::net::IpAddr::from([0, 0, 0, 0]), |Extension(client)| client.0);
    let Some(slot) = shared.limits().stream(address) else {
        let message = "there are enough live streams from this address; close one";
        return told(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message);
    };
    let (news, ended) = shared.live().listen();
    let events = stream(news, ended, slot);
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    let headers: HeaderMap =
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))].into_iter().collect();
    (headers, Sse::new(events).keep_alive(keep)).into_response()
}

fn stream<T>(
    news: tokio::sync::broadcast::Receiver<crate::live::Message>,
    ended: tokio::sync::watch::Receiver<bool>,
    slot: T,
) -> impl Stream<Item = Result<Event, Infallible>> {
    // A first message at once, so that whoever asks knows that it is heard.
    let hello = Event::default().comment("listening").retry(Duration::from_secs(3));
    let rest = futures::stream::unfold((news, ended, slot), |(mut news, mut ended, slot)| async move {
        loop {
            let next = tokio::select! {
                next = news.recv() => next,
                _ = ended.wait_for(|ended| *ended) => return None,
            };
            match next {
                Ok(message) => {
                    let id = message.block.to_string();
                    let event = Event::default().event("news").id(id).data(&*message.text);
                    return Some((Ok(event), (news, ended, slot)));
                }
                // It was too slow: what it missed it asks for anew.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    futures::stream::once(async move { Ok(hello) }).chain(rest)
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "network", responses((status = 200, body = Object)))]
async fn openapi() -> Response {
    axum::Json(document()).into_response()
}

/// Whether the server can answer, for whoever watches it.
pub(crate) async fn health(State(shared): State<Shared>) -> Response {
    match shared.ask(|reads, conn| reads.status(conn)).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(error) => failure(&error),
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Proof of Quality: read API",
        description = "The history of a Proof-of-Quality network, from its index. Read only. Amounts are decimal strings in the \
                       chain's smallest unit, ratios parts per billion, times milliseconds since the Unix epoch, addresses in \
                       the chain's own form. Lists go on with `next`. Answers carry an ETag; it changes when the answer does."
    ),
    paths(
        status,
        overview,
        tasks,
        task,
        explanation,
        nodes,
        leaderboard,
        node,
        node_tasks,
        account,
        history,
        history_csv,
        kinds,
        kind,
        changes,
        auditors,
        pools,
        pool,
        block,
        search,
        live,
        openapi
    )
)]
struct Document;

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// What is answered at once.
pub(crate) fn questions() -> Router<Shared> {
    Router::new()
        .route("/status", get(status))
        .route("/overview", get(overview))
        .route("/tasks", get(tasks))
        .route("/tasks/{task}", get(task))
        .route("/tasks/{task}/explanation", get(explanation))
        .route("/nodes", get(nodes))
        .route("/leaderboard", get(leaderboard))
        .route("/nodes/{node}", get(node))
        .route("/nodes/{node}/tasks", get(node_tasks))
        .route("/accounts/{account}", get(account))
        .route("/accounts/{account}/history", get(history))
        .route("/kinds", get(kinds))
        .route("/kinds/{kind}", get(kind))
        .route("/changes", get(changes))
        .route("/auditors", get(auditors))
        .route("/pools", get(pools))
        .route("/pools/{pool}", get(pool))
        .route("/blocks/{block}", get(block))
        .route("/search", get(search))
        .route("/openapi.json", get(openapi))
}

/// What goes on.
pub(crate) fn streams() -> Router<Shared> {
    Router::new().route("/live", get(live)).route("/accounts/{account}/history.csv", get(history_csv))
}
