//! Whether the worker is alive, and whether it can earn.
//!
//! A process that runs and earns nothing must say so: every service sets and clears named conditions on the [`Board`]; the
//! readiness probe fails while any stands, and tells them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use serde::Serialize;

use crate::metrics;
use crate::time::wall_ms;

/// Whether the worker can earn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, or not with everything that it was configured for.
    NotReady(Vec<String>),
}

impl Readiness {
    /// Whether it can.
    pub fn is_ready(&self) -> bool {
        matches!(self, Readiness::Ready)
    }
}

/// What a condition is about. One of each stands at a time: setting it again replaces its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The service has not finished its first round.
    Starting(String),
    /// The chain cannot be reached, or stands.
    Chain,
    /// The contract is not there.
    Contract,
    /// This machine's clock and the chain's disagree.
    Clock,
    /// A node is not registered, not active, or staked too little.
    Node(u32),
    /// A model does not work.
    Model(String),
    /// An operator's last transaction failed.
    Submit(String),
    /// An operator cannot pay fees for long.
    Balance(String),
    /// Nothing durable can be promised.
    Journal,
    /// A duty was done by somebody else with the same key, or cannot be done any more.
    Duty(u64, u32),
    /// The worker is stopping.
    Draining,
}

#[derive(Debug, Default)]
struct Inner {
    conditions: BTreeMap<About, String>,
    beats: HashMap<String, Instant>,
    submits: HashMap<String, Option<(Instant, u64)>>,
}

/// What the services say of themselves.
#[derive(Debug)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
    started: Instant,
    /// A loop that has not come round for this long is stuck.
    patience: Duration,
}

impl Board {
    pub(crate) fn new(patience: Duration) -> Arc<Self> {
        Arc::new(Board { inner: Mutex::default(), started: Instant::now(), patience })
    }

    /// States a condition, or changes its text.
    pub(crate) fn set(&self, about: About, text: impl Into<String>) {
        let text = text.into();
        let mut inner = self.inner.lock();
        if inner.conditions.get(&about) != Some(&text) {
            if matches!(about, About::Starting(_)) {
                tracing::debug!(condition = ?about, "{text}");
            } else {
                tracing::warn!(condition = ?about, "not ready: {text}");
            }
            inner.conditions.insert(about, text);
        }
    }

    /// Takes a condition back.
    pub(crate) fn clear(&self, about: &About) {
        let mut inner = self.inner.lock();
        if inner.conditions.remove(about).is_none() {
            return;
        }
        if !matches!(about, About::Starting(_)) {
            tracing::info!(condition = ?about, "no longer holds");
        }
        // Whoever watches the log, a person or a script, waits for this line.
        if inner.conditions.is_empty() {
            tracing::info!("ready: the nodes can be drawn and earn");
        }
    }

    /// States or clears a condition.
    pub(crate) fn put(&self, about: About, text: Option<String>) {
        match text {
            Some(text) => self.set(about, text),
            None => self.clear(&about),
        }
    }

    /// A loop says that it came round. Its first beat also ends its start.
    pub(crate) fn beat(&self, service: &str) {
        self.clear(&About::Starting(service.to_owned()));
        self.inner.lock().beats.insert(service.to_owned(), Instant::now());
    }

    /// A service that has no loop is up.
    pub(crate) fn up(&self, service: &str) {
        self.clear(&About::Starting(service.to_owned()));
    }

    /// A loop ended on purpose.
    pub(crate) fn retire(&self, service: &str) {
        self.clear(&About::Starting(service.to_owned()));
        self.inner.lock().beats.remove(service);
    }

    /// An account that will send transactions.
    pub(crate) fn expect_submits(&self, account: &str) {
        self.inner.lock().submits.entry(account.to_owned()).or_insert(None);
    }

    /// An account's transaction was confirmed.
    pub(crate) fn submitted(&self, account: &str) {
        self.inner.lock().submits.insert(account.to_owned(), Some((Instant::now(), wall_ms())));
        self.clear(&About::Submit(account.to_owned()));
    }

    /// Loops that are stuck.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let mut stuck: Vec<String> = inner
            .beats
            .iter()
            .filter(|(_, at)| at.elapsed() > self.patience)
            .map(|(service, at)| {
                format!("the service `{service}` has not come round for {} s", at.elapsed().as_secs())
            })
            .collect();
        stuck.sort();
        stuck
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let mut reasons = self.stuck();
        reasons.extend(self.inner.lock().conditions.values().cloned());
        if reasons.is_empty() {
            Readiness::Ready
        } else {
            Readiness::NotReady(reasons)
        }
    }

    /// Brings the metrics up to date that change by the mere passing of time.
    pub(crate) fn export(&self) {
        metrics::ready(self.readiness().is_ready());
        for (account, last) in &self.inner.lock().submits {
            let age = last.map_or_else(|| self.started.elapsed(), |(at, _)| at.elapsed());
            metrics::last_submit(account, last.map(|(_, wall)| wall), age);
        }
    }
}

#[derive(Serialize)]
struct Probe {
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
    reasons: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    board: Arc<Board>,
    recorder: Option<&'static PrometheusHandle>,
}

/// `/metrics`, `/health` and `/ready`.
pub(crate) fn router(board: Arc<Board>, recorder: Option<&'static PrometheusHandle>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(Shared { board, recorder })
}

async fn scrape(State(shared): State<Shared>) -> Response {
    shared.board.export();
    match shared.recorder {
        Some(recorder) => {
            let text = metrics::render(recorder);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "metrics go to another recorder of this process\n")
            .into_response(),
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    let reasons = shared.board.stuck();
    probe(reasons.is_empty(), Probe { ready: None, alive: Some(reasons.is_empty()), reasons })
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = match shared.board.readiness() {
        Readiness::Ready => Vec::new(),
        Readiness::NotReady(reasons) => reasons,
    };
    probe(reasons.is_empty(), Probe { ready: Some(reasons.is_empty()), alive: None, reasons })
}

fn probe(ok: bool, body: Probe) -> Response {
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    #[test]
    fn conditions_make_the_worker_unready_until_they_are_cleared() {
        let board = Board::new(Duration::from_secs(60));
        assert!(board.readiness().is_ready());
        board.set(About::Node(3), "node 3 is not registered");
        board.set(About::Node(3), "node 3 is draining");
        assert_eq!(board.readiness(), Readiness::NotReady(vec!["node 3 is draining".into()]));
        board.clear(&About::Node(3));
        assert!(board.readiness().is_ready());
    }

    #[test]
    fn a_service_is_starting_until_its_first_beat_and_stuck_when_beats_stop() {
        let board = Board::new(Duration::ZERO);
        board.set(About::Starting("keeper".into()), "the service `keeper` is starting");
        assert!(!board.readiness().is_ready());
        board.beat("keeper");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(board.stuck().len(), 1);
        board.retire("keeper");
        assert!(board.readiness().is_ready());
    }

    #[test]
    fn a_confirmed_transaction_clears_the_failure_of_the_last() {
        let board = Board::new(Duration::from_secs(60));
        board.set(About::Submit("5F".into()), "the last transaction failed");
        board.submitted("5F");
        assert!(board.readiness().is_ready());
    }

    #[tokio::test]
    async fn the_probe_answers_503_with_reasons() {
        let board = Board::new(Duration::from_secs(60));
        board.set(About::Contract, "no contract at 5C…");
        let shared = Shared { board, recorder: None };
        let response = ready(State(shared.clone())).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, serde_json::json!({ "ready": false, "reasons": ["no contract at 5C…"] }));
        assert_eq!(health(State(shared)).await.status(), StatusCode::OK);
    }
}
