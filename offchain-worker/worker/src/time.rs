//! The time that deadlines are compared with: the chain's, not the machine's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use poq_chain::types::Millis;
use poq_chain::Client;

use crate::config::TimeSource;

/// How far this machine's clock may be off the time of a block that has just been made. Signed requests for blobs bear this
/// machine's time, and servers accept a minute either way: half of that is left to the other side's clock.
pub(crate) const SKEW_LIMIT: Duration = Duration::from_secs(30);

/// Milliseconds since the Unix epoch by this machine's clock.
pub fn wall_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Tells what time the next block will bear, as well as can be known.
#[derive(Clone)]
pub struct ChainClock {
    source: TimeSource,
    client: Client,
}

impl ChainClock {
    /// A clock of a chain.
    pub fn new(source: TimeSource, client: Client) -> Self {
        ChainClock { source, client }
    }

    /// The timestamp of the best block: what the chain itself takes for now.
    pub fn block_time(&self) -> Millis {
        self.client.best_watch().borrow().timestamp_ms
    }

    /// The timestamp of the last final block: what closed before it stays closed.
    pub fn final_time(&self) -> Millis {
        self.client.finalized_watch().borrow().timestamp_ms
    }

    /// The time to judge deadlines by.
    pub fn now(&self) -> Millis {
        match self.source {
            TimeSource::Chain => self.block_time(),
            // The client corrects this machine's clock by how far the latest blocks were from it.
            TimeSource::System => self.client.upcoming().timestamp_ms,
        }
    }

    /// Waits until the chain's time has come to `at`.
    pub async fn sleep_until(&self, at: Millis) {
        let mut blocks = self.client.best_watch();
        loop {
            let left = self.until(at);
            if left.is_zero() {
                return;
            }
            // The chain's time may jump with any block.
            let _ = tokio::time::timeout(left.min(Duration::from_secs(1)), blocks.changed()).await;
        }
    }

    /// How long until `deadline`; zero when it has passed.
    pub fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.saturating_sub(self.now()))
    }
}
