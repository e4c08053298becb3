//! Keeps services running: starts them again after errors and panics, and gives up when that does not help.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::health::{About, Board};
use crate::metrics;

/// A service that fails this often within [`WINDOW`] will not get better by itself.
const MAX_FAILURES: usize = 5;
/// Failures older than this are forgotten: a lost connection per hour is no reason to stop.
const WINDOW: Duration = Duration::from_secs(300);
/// The first pause before a service is started again; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Shorter than any duty's window: a service that is down must be back before a deadline passes.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// The two ways to stop, the first a request, the second an order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// No new duties; finish the open ones.
    pub(crate) drain: CancellationToken,
    /// At once.
    pub(crate) now: CancellationToken,
}

/// Keeps services running until told to stop.
pub(crate) struct Supervisor {
    services: JoinSet<()>,
    board: Arc<Board>,
    stop: Stop,
    pace: Pace,
    failure: Arc<Mutex<Option<Error>>>,
}

/// How fast it goes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    first_pause: Duration,
    grace: Duration,
}

impl Supervisor {
    pub(crate) fn new(board: Arc<Board>, stop: Stop) -> Self {
        let pace = Pace { first_pause: FIRST_PAUSE, grace: GRACE };
        Supervisor { services: JoinSet::new(), board, stop, pace, failure: Arc::default() }
    }

    /// Runs what `make` makes until it returns `Ok` (which a service does only when told to stop), again after each error
    /// or panic. A service that fails for good stops the whole worker: a worker without its evaluator, say, would look
    /// healthy and miss every duty.
    pub(crate) fn spawn<F, S>(&mut self, name: impl Into<String>, make: F)
    where
        F: Fn() -> S + Send + 'static,
        S: Future<Output = Result<()>> + Send + 'static,
    {
        let name = name.into();
        self.board.set(About::Starting(name.clone()), format!("the service `{name}` is starting"));
        let (board, stop, failure) = (self.board.clone(), self.stop.clone(), self.failure.clone());
        let pace = self.pace;
        self.services.spawn(async move {
            if let Err(error) = keep(&name, make, &stop, &board, pace).await {
                tracing::error!(service = %name, %error, "giving up");
                failure.lock().get_or_insert(error);
                stop.now.cancel();
            }
            board.retire(&name);
        });
    }

    /// Waits until every service has ended; the first failure for good, if there was one.
    pub(crate) async fn wait(mut self) -> Result<()> {
        while let Some(ended) = self.services.join_next().await {
            if let Err(error) = ended {
                // `keep` catches panics of services; this is one of its own.
                tracing::error!(%error, "a supervising task failed");
                self.stop.now.cancel();
            }
        }
        let failure = self.failure.lock().take();
        failure.map_or(Ok(()), Err)
    }
}

async fn keep<F, S>(name: &str, make: F, stop: &Stop, board: &Board, pace: Pace) -> Result<()>
where
    F: Fn() -> S,
    S: Future<Output = Result<()>> + Send + 'static,
{
    let mut failures: Vec<Instant> = Vec::new();
    loop {
        // A task of its own, so that a panic ends the service and not its supervisor.
        let mut service = JoinSet::new();
        service.spawn(make());
        let ended = tokio::select! {
            ended = service.join_next() => ended,
            () = stop.now.cancelled() => {
                // Services see the same token; this is for one that does not look.
                match tokio::time::timeout(pace.grace, service.join_next()).await {
                    Ok(_) => return Ok(()),
                    Err(_) => {
                        service.abort_all();
                        tracing::warn!(service = %name, "did not stop by itself and was stopped");
                        return Ok(());
                    }
                }
            }
        };
        let error = match ended {
            None => return Ok(()),
            Some(Ok(Ok(()))) => return Ok(()),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => Error::Service { service: name.to_owned(), reason: describe(panic) },
        };
        if stop.now.is_cancelled() {
            return Ok(());
        }
        if error.is_fatal() {
            return Err(error);
        }
        failures.retain(|at| at.elapsed() < WINDOW);
        failures.push(Instant::now());
        if failures.len() >= MAX_FAILURES {
            return Err(Error::Service {
                service: name.to_owned(),
                reason: format!(
                    "{} failures within {} s, the last: {error}",
                    failures.len(),
                    WINDOW.as_secs()
                ),
            });
        }
        metrics::restarted(name);
        board.set(
            About::Starting(name.to_owned()),
            format!("the service `{name}` failed and is starting again: {error}"),
        );
        let pause = pace.first_pause.saturating_mul(1 << failures.len().min(16)).min(MAX_PAUSE);
        tracing::error!(service = %name, %error, ?pause, "failed; starting it again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.now.cancelled() => return Ok(()),
        }
    }
}

/// How long a service may take to notice that it is to stop at once: longer than a disk write, shorter than what service
/// managers wait before they kill.
const GRACE: Duration = Duration::from_secs(5);

fn describe(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_else(|| "without a message".into()))
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn supervisor() -> (Supervisor, Stop) {
        let stop = Stop::default();
        let mut supervisor = Supervisor::new(Board::new(Duration::from_secs(60)), stop.clone());
        supervisor.pace = Pace { first_pause: Duration::from_millis(1), grace: Duration::from_millis(100) };
        (supervisor, stop)
    }

    #[tokio::test]
    async fn a_panic_starts_the_service_again() {
        let (mut supervisor, stop) = supervisor();
        let runs = Arc::new(AtomicUsize::new(0));
        let seen = runs.clone();
        supervisor.spawn("flaky", move || {
            let (runs, now) = (seen.clone(), stop.now.clone());
            async move {
                if runs.fetch_add(1, Ordering::SeqCst) < 2 {
                    panic!("on purpose");
                }
                now.cancel();
                Ok(())
            }
        });
        supervisor.wait().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn repeated_failures_stop_the_worker_with_the_reason() {
        let (mut supervisor, stop) = supervisor();
        let other = stop.now.clone();
        supervisor.spawn("bystander", move || {
            let now = other.clone();
            async move {
                now.cancelled().await;
                Ok(())
            }
        });
        supervisor.spawn("broken", || async { panic!("again") });
        let error = supervisor.wait().await.unwrap_err().to_string();
        assert!(
            error.contains("broken") && error.contains("again") && error.contains("5 failures"),
            "{error}"
        );
        assert!(stop.now.is_cancelled());
    }

    #[tokio::test]
    async fn a_fatal_error_is_not_tried_again() {
        let (mut supervisor, _stop) = supervisor();
        let runs = Arc::new(AtomicUsize::new(0));
        let seen = runs.clone();
        supervisor.spawn("doomed", move || {
            seen.fetch_add(1, Ordering::SeqCst);
            async { Err(Error::Node { node: 7, problem: "is not registered".into() }) }
        });
        assert!(supervisor.wait().await.unwrap_err().to_string().contains("node 7"));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_service_that_ignores_the_order_to_stop_is_stopped() {
        let (mut supervisor, stop) = supervisor();
        supervisor.spawn("deaf", || async {
            std::future::pending::<()>().await;
            Ok(())
        });
        stop.now.cancel();
        supervisor.wait().await.unwrap();
    }
}
