//! What is new, told to whoever looks.

use poq_index::read::{Reads, Status, TaskInfo};
use poq_index::{Error, Pool};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

/// How many changed tasks one message carries at the most.
const TASKS: u32 = 50;
/// How often the state is told where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The last block that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) number: u32,
    pub(crate) hash: String,
}

/// What is told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct News {
    /// How far the index is, and whether it keeps up.
    pub(crate) status: Status,
    /// Tasks that changed since the last message.
    pub(crate) tasks: Vec<TaskInfo>,
}

/// A message as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) block: u32,
    pub(crate) text: Arc<str>,
}

/// Looks for what is new, once for everybody.
pub(crate) struct Live {
    pulse: watch::Receiver<Pulse>,
    news: broadcast::Sender<Message>,
    ended: watch::Sender<bool>,
    looking: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Live {
    pub(crate) async fn start(pool: Pool, reads: Reads, every: Duration) -> Result<Live, Error> {
        let first = look(&pool, &reads).await?;
        let (sender, pulse) = watch::channel(first.clone());
        let news = broadcast::Sender::new(32);
        let looking = tokio::spawn(keep_looking(pool, reads, every, first, sender, news.clone()));
        Ok(Live { pulse, news, ended: watch::Sender::new(false), looking: looking.abort_handle() })
    }

    /// The last block that was read, as of the last look.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.borrow().clone()
    }

    /// What will be told from now on, and when it is over.
    pub(crate) fn listen(&self) -> (broadcast::Receiver<Message>, watch::Receiver<bool>) {
        (self.news.subscribe(), self.ended.subscribe())
    }

    /// Tells everybody who listens that it is over.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }
}

async fn look(pool: &Pool, reads: &Reads) -> Result<Pulse, Error> {
    let reads = reads.clone();
    let (number, hash) = pool.read(move |conn| reads.pulse(conn)).await?;
    Ok(Pulse { number, hash })
}

async fn keep_looking(
    pool: Pool,
    reads: Reads,
    every: Duration,
    mut known: Pulse,
    pulse: watch::Sender<Pulse>,
    news: broadcast::Sender<Message>,
) {
    let mut told = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let now = match look(&pool, &reads).await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "cannot look for what is new");
                continue;
            }
        };
        let new = now != known;
        if !new && told.elapsed() < HEARTBEAT {
            continue;
        }
        told = tokio::time::Instant::now();
        // What was undone is read again as a whole by whoever looks at it.
        let after = if new { known.number.min(now.number) } else { now.number };
        let from = reads.clone();
        let read = pool
            .read(move |conn| {
                Ok(News { status: from.status(conn)?, tasks: from.tasks_changed(conn, after, TASKS)? })
            })
            .await;
        match read.map(|news| serde_json::to_string(&news)) {
            Ok(Ok(text)) => {
                known = now.clone();
                pulse.send_replace(now.clone());
                // Nobody may be listening.
                let _ = news.send(Message { block: now.number, text: text.into() });
            }
            Ok(Err(error)) => tracing::error!(%error, "news could not be written"),
            Err(error) => tracing::warn!(%error, "cannot read what is new"),
        }
    }
}
