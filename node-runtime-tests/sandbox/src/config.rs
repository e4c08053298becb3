//! How a sandbox behaves.

use std::time::Duration;

use poq_runtime::{AccountId, Balance};

/// Where the timestamps of blocks come from. Timestamps are milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMode {
    /// The test moves the clock; time stands still between blocks but for [`SandboxConfig::block_time_ms`] per block.
    Manual {
        /// The clock at genesis.
        start_ms: u64,
    },
    /// The wall clock, never backwards. Advancing it by hand adds an offset.
    System,
}

/// When blocks are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// As soon as an extrinsic is ready: it is in a block before its submission is answered.
    Instant,
    /// At this interval, with all that waits in the pool, empty or not. Needs a [`crate::SandboxNode`].
    Interval(Duration),
    /// Only when the test says so.
    Manual,
}

/// When blocks are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// At once.
    Instant,
    /// As soon as this many blocks follow.
    Blocks(u32),
    /// After this time on the wall clock, as on a substrate-contracts-node. Needs a [`crate::SandboxNode`].
    Delay(Duration),
    /// Only when the test says so.
    Manual,
}

/// Settings of a sandbox chain.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where time comes from. Default: [`TimeMode::Manual`] from 2026-01-01T00:00:00Z.
    pub time: TimeMode,
    /// With [`TimeMode::Manual`], how far the timestamps of consecutive blocks are apart, milliseconds; the runtime wants
    /// at least 5. Default: 10.
    pub block_time_ms: u64,
    /// When blocks are sealed. Default: [`Sealing::Instant`].
    pub sealing: Sealing,
    /// When blocks are final. Default: [`Finality::Instant`].
    pub finality: Finality,
    /// Accounts endowed beside the development accounts (Alice to Ferdie and their stashes, 2^60 each).
    pub endowments: Vec<(AccountId, Balance)>,
    /// How many blocks before the last finalized one keep a readable state. Default: 256, as on a node.
    pub history_blocks: u32,
    /// What kind of chain it says it is. Default: `Development`.
    pub chain_type: &'static str,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            time: TimeMode::Manual { start_ms: 1_767_225_600_000 },
            block_time_ms: 10,
            sealing: Sealing::Instant,
            finality: Finality::Instant,
            endowments: Vec::new(),
            history_blocks: 256,
            chain_type: "Development",
        }
    }
}

impl SandboxConfig {
    /// Behaves like the development node: wall clock, instant seal, finality one second behind.
    pub fn live() -> Self {
        Self { time: TimeMode::System, finality: Finality::Delay(Duration::from_secs(1)), ..Self::default() }
    }

    /// Endows `account` with `amount` at genesis.
    pub fn endow(mut self, account: AccountId, amount: Balance) -> Self {
        self.endowments.push((account, amount));
        self
    }
}
