//! The services of a worker, one file each, and what they share.

pub(crate) mod access;
pub(crate) mod adversary;
pub(crate) mod evaluator;
pub(crate) mod fetch;
pub(crate) mod http;
pub(crate) mod inference;
pub(crate) mod janitor;
pub(crate) mod keeper;
pub(crate) mod operator;
pub(crate) mod registry;
pub(crate) mod send;
pub(crate) mod watcher;

use std::sync::Arc;

use poq_blobs::{BlobStore, Slot};
use poq_chain::{Block, Client, Network};
use poq_journal::{Duty, Journal};
use tokio::sync::{watch, Semaphore};

use crate::config::WorkerConfig;
use crate::error::{Error, Result};
use crate::health::Board;
use crate::models::ModelSet;
use crate::supervisor::Stop;
use crate::time::ChainClock;

/// What every service of a worker can reach.
pub(crate) struct Ctx {
    pub(crate) config: WorkerConfig,
    pub(crate) client: Client,
    /// The contract on its chain.
    pub(crate) network: Network,
    pub(crate) head: watch::Receiver<Block>,
    pub(crate) clock: ChainClock,
    pub(crate) journal: Journal,
    pub(crate) store: BlobStore,
    pub(crate) models: Arc<ModelSet>,
    pub(crate) board: Arc<Board>,
    pub(crate) stop: Stop,
    /// What dishonest nodes do, on a test network.
    pub(crate) adversary: Option<adversary::Adversary>,
    /// One permit per task that may use a model at a time.
    pub(crate) working: Arc<Semaphore>,
}

impl Ctx {
    /// Where a duty's blobs belong.
    pub(crate) fn slot(&self, duty: &Duty) -> Slot {
        Slot { network: self.network.hash, task: duty.task, node: duty.node }
    }

    /// Runs a blocking journal call where it does not hold up other tasks: a write waits for the disk.
    pub(crate) async fn journal<R, E>(
        &self,
        work: impl FnOnce(&Journal) -> std::result::Result<R, E> + Send + 'static,
    ) -> std::result::Result<R, E>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(result) => result,
            // The runtime is going down, or the closure panicked: both end this task as well.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// What is to be said of a failed read of the chain: worth a warning, but no end of a service, which tries again at the
/// next block anyway.
pub(crate) fn class_label(error: &poq_chain::Error) -> &'static str {
    match error.class() {
        poq_chain::Class::Transient => "transient",
        poq_chain::Class::Stale => "stale",
        poq_chain::Class::Rejected(_) => "rejected",
        poq_chain::Class::Fatal => "fatal",
    }
}

/// A journal that cannot write ends the worker; every other journal error is told to the caller's service.
pub(crate) fn journal_error(board: &Board, error: poq_journal::Error) -> Error {
    board.set(crate::health::About::Journal, format!("the journal cannot be used: {error}"));
    Error::Journal(error)
}

pub(crate) type Served = Result<()>;
