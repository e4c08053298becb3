//! What the books hold of each task, node, account, pool.

use super::{Id, PoolRead};
use poq_chain::explain::Totals;
use poq_chain::types::{Balance, Change, KindParams, Millis, Node, NodeInfo, Population, Task};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A day in milliseconds.
pub const DAY_MS: Millis = 24 * 60 * 60 * 1_000;

/// A kind.
#[derive(Clone, Debug)]
pub struct KindBook {
    /// The newest version.
    pub version: u32,
    /// All versions of its parameters.
    pub versions: BTreeMap<u32, Arc<KindParams>>,
    /// What its tasks have left behind.
    pub population: Population,
}

impl KindBook {
    /// The newest parameters.
    pub fn newest(&self) -> Option<&Arc<KindParams>> {
        self.versions.get(&self.version)
    }
}

/// A task.
#[derive(Clone, Debug)]
pub struct TaskBook {
    /// Its record. The commitments in it are not the real ones, which no event tells.
    pub task: Task,
    /// The block of the request.
    pub requested: u32,
    /// Whether the outputs' prices are known: not where a node changed its price twice in the block of the request.
    pub priced: bool,
    /// Whether the outputs' hashes are known: not where they were opened by a draw that found too few evaluators, whose event does not
    /// tell them.
    pub hashed: bool,
    /// Where its money went, and the consensus, once it has ended.
    pub totals: Option<Totals>,
    /// The consensus in parts per billion.
    pub quality: Option<u32>,
    /// The block of its collection.
    pub collected: Option<u32>,
    /// The block in which its reference was opened.
    pub audited: Option<u32>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeBook {
    /// Its record; its place in the draws is not kept.
    pub node: Node,
    /// What people read.
    pub info: NodeInfo,
    /// Whether its price is known.
    pub priced: bool,
    /// Whether it was deregistered.
    pub gone: bool,
    /// The block of its registration.
    pub registered: u32,
    /// All that it has earned.
    pub earned: Balance,
    /// Duties that it missed.
    pub missed: u32,
    /// Tasks that gave it a quality or a merit.
    pub scored: u32,
    /// The sum of these, in parts per billion.
    pub quality_sum: u64,
    /// The sum of the costs that went with them.
    pub cost_sum: u64,
    /// Commitments that it made in time.
    pub answered: u32,
    /// The sum of their latencies in milliseconds.
    pub latency_sum: u64,
    /// The last block that changed it.
    pub last: (u32, u64),
    /// Its last day.
    pub day: (u64, NodeDay),
}

/// What a node did in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeDay {
    /// Tasks that ended.
    pub tasks: u32,
    /// Of these, duties missed.
    pub missed: u32,
    /// Of these, with a quality or a merit.
    pub scored: u32,
    /// What they paid.
    pub earned: Balance,
    /// What they cost.
    pub slashed: Balance,
    /// The sum of qualities or merits, in parts per billion.
    pub quality_sum: u64,
    /// The sum of costs, in parts per billion.
    pub cost_sum: u64,
}

/// An account's sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountBook {
    /// Tasks that it requested.
    pub tasks: u32,
    /// What it paid for them.
    pub fees: Balance,
    /// What came back.
    pub refunds: Balance,
    /// What its nodes have earned.
    pub rewards: Balance,
    /// Rewards that were paid out to it, by its own nodes or others whose payee it is.
    pub claimed: Balance,
    /// Keepers' fees that it earned.
    pub keeper: Balance,
    /// What of these, and of refunds that could not be paid out, it has not withdrawn.
    pub credit: Balance,
    /// What its nodes have lost of their stake.
    pub slashed: Balance,
    /// Stake that it put in.
    pub staked: Balance,
    /// Stake that it took out.
    pub unstaked: Balance,
    /// What it put into pools.
    pub pooled: Balance,
    /// What pools paid it.
    pub unpooled: Balance,
    /// Its auditor's bond.
    pub bond: Balance,
    /// First and last block in which its money moved.
    pub blocks: Option<(u32, u32)>,
}

/// What an account has in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Shares.
    pub shares: Balance,
    /// What it deposited.
    pub deposited: Balance,
    /// What the shares were worth that it exited, when it did.
    pub exited: Balance,
    /// What it was paid.
    pub paid: Balance,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolBook {
    /// Block and time of its making.
    pub created: (u32, u64),
    /// Its node.
    pub node: u32,
    /// As it was after the last block in which it said something, and that block; `None` where it did not answer as a pool.
    pub state: Option<(PoolRead, u32)>,
    /// Who has what.
    pub members: BTreeMap<Id, Member>,
}

/// An announced change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Block, event and time of the announcement.
    pub placed: (u32, u32, u64),
    /// The change.
    pub change: Change,
    /// From when it can be enacted.
    pub acts_at: Millis,
    /// `pending`, `enacted`, `cancelled`; `at_once` for one that needed no announcement.
    pub state: &'static str,
    /// When it came to that.
    pub state_at: Option<(u32, u64)>,
}

/// The network's sums since its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Tasks requested.
    pub requested: u64,
    /// Tasks that ended by consensus.
    pub settled: u64,
    /// Tasks that ended otherwise.
    pub refunded: u64,
    /// Nodes registered.
    pub nodes: u64,
    /// Fees of ended and open tasks.
    pub fees: Balance,
    /// Paid to nodes.
    pub paid: Balance,
    /// Paid to keepers.
    pub keepers: Balance,
    /// Burned of fees, and of stakes and bonds.
    pub burned: Balance,
    /// What of that left the contract for the account that nobody has.
    pub sent: Balance,
    /// Slashed of stakes and bonds; part of what was burned.
    pub slashed: Balance,
    /// To the treasury.
    pub treasury: Balance,
    /// Out of it.
    pub withdrawn: Balance,
    /// Events so far.
    pub events: u64,
}

/// The network in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayBook {
    /// Which, counted from 1970-01-01 UTC.
    pub day: u64,
    /// Tasks requested.
    pub requested: u32,
    /// Tasks that ended by consensus.
    pub settled: u32,
    /// Tasks that ended otherwise.
    pub refunded: u32,
    /// Fees of requests.
    pub fees: Balance,
    /// Paid to nodes.
    pub paid: Balance,
    /// Paid to keepers.
    pub keepers: Balance,
    /// To the treasury.
    pub treasury: Balance,
    /// Burned of fees.
    pub burned: Balance,
    /// Slashed of stakes.
    pub slashed: Balance,
}

/// a += b; nobody has that much money that it would stop at the largest number.
pub(super) fn add(a: &mut Balance, b: Balance) {
    *a = a.saturating_add(b);
}

/// a −= b, as far as it goes.
pub(super) fn sub(a: &mut Balance, b: Balance) {
    *a = a.saturating_sub(b);
}
