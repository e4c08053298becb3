//! The network's books, moved on event by event with `poq-core`'s own transitions: tasks, nodes' stakes and rewards, kinds, accounts,
//! what the contract owes.
//!
//! Three things use it: indexing writes down what it holds after each block; [`mod@crate::replay`] compares what every settlement says
//! went in and came out with what must have; [`mod@crate::explain`] does so for one task. What no event tells is not in it: the
//! commitments themselves, and nodes' places in the draw's pools (`refresh` emits nothing).

mod apply;
mod books;
mod entries;
mod pools;

pub(crate) use apply::totals;
pub use books::{
    AccountBook, Announced, DayBook, KindBook, NodeBook, NodeDay, PoolBook, Sums, TaskBook, DAY_MS,
};
pub use entries::{cash, Entry, WHATS};

use parity_scale_codec::{Decode, Encode};
use poq_chain::events::{TaskAudited, TaskClosed};
use poq_chain::pool::{PoolEvent, PoolView};
use poq_chain::types::{
    AuditInput, Auditor, GlobalParams, KindId, KindParams, Liabilities, NodeId, NodeView, Overview,
    SettlementInput, TaskId,
};
use poq_chain::{to_account32, AccountId32, Network, PoqEvent, H256};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// An account as a key.
pub type Id = [u8; 32];

/// Where the history begins: the block in which the contract came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The block.
    pub block: Block,
    /// The contract.
    pub contract: AccountId32,
    /// The chain's genesis.
    pub genesis: H256,
    /// The contract's own answer in that block.
    pub overview: Overview,
}

/// A block as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: H256,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub at: u64,
}

impl From<poq_chain::Block> for Block {
    fn from(block: poq_chain::Block) -> Block {
        Block { number: block.number, hash: block.hash, at: block.timestamp_ms }
    }
}

/// What a block says, decoded, with what was read of the state after it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The block.
    pub block: Block,
    /// Its events: the contract's and its pools', in order.
    pub events: Vec<Fact>,
    /// Nodes that were registered or configured in it, as they are after it.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Pools that said something in it, as they are after it, each with its code's hash.
    pub pools: BTreeMap<Id, PoolRead>,
}

/// A pool as it is after a block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PoolRead {
    /// The hash of its code.
    pub code: [u8; 32],
    /// What it answered.
    pub view: PoolView,
}

/// An event.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its place in the block.
    pub index: u32,
    /// The extrinsic that it happened in.
    pub extrinsic: Option<u32>,
    /// Which contract said it.
    pub contract: AccountId32,
    /// Its topics.
    pub topics: Vec<H256>,
    /// Its fields.
    pub data: Vec<u8>,
    /// What it means.
    pub body: Body,
}

/// What an event means.
#[derive(Clone, Debug)]
pub enum Body {
    /// The contract's.
    Core(PoqEvent),
    /// A pool's.
    Pool(PoolEventBox),
    /// It cannot be understood, and why.
    Strange(String),
}

/// A pool's event, which does not clone itself.
#[derive(Clone, Debug)]
pub struct PoolEventBox(pub Arc<PoolEvent>);

impl Fact {
    /// What `contract`'s event means, `poq` being the contract whose history this is.
    pub fn decode(
        poq: &AccountId32,
        contract: AccountId32,
        (extrinsic, index): (Option<u32>, u32),
        topics: Vec<H256>,
        data: Vec<u8>,
    ) -> Fact {
        let body = if contract == *poq {
            match PoqEvent::decode(&topics, &data) {
                Ok(PoqEvent::Unknown { .. }) => {
                    Body::Strange("an event that this version does not know".into())
                }
                Ok(event) => Body::Core(event),
                Err(error) => Body::Strange(error.to_string()),
            }
        } else {
            match PoolEvent::decode(&topics, &data) {
                Ok(Some(event)) => Body::Pool(PoolEventBox(Arc::new(event))),
                Ok(None) => Body::Strange("an event that is no pool's".into()),
                Err(error) => Body::Strange(error.to_string()),
            }
        };
        Fact { index, extrinsic, contract, topics, data, body }
    }

    /// The event's name.
    pub fn name(&self) -> &'static str {
        match &self.body {
            Body::Core(event) => event.name(),
            Body::Pool(event) => event.0.name(),
            Body::Strange(_) => "Unknown",
        }
    }
}

/// A number that is not what it must be, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The block.
    pub block: u32,
    /// The event within it.
    pub index: u32,
    /// The task, where it is about one.
    pub task: Option<TaskId>,
    /// What was compared.
    pub check: String,
    /// Which number.
    pub what: String,
    /// What it must be.
    pub expected: Value,
    /// What it is.
    pub found: Value,
}

/// A task's end, with what must have gone into it.
pub struct End {
    /// The block.
    pub block: Block,
    /// The event within it.
    pub index: u32,
    /// The event.
    pub event: Box<TaskClosed>,
    /// The parameters that it ran under.
    pub params: Option<Arc<KindParams>>,
    /// What went in by the events before; `None` where they do not tell.
    pub expected: Option<SettlementInput>,
    /// Requester, kind, version, seed, nodes and panel by the events before.
    pub record: Option<Record>,
}

/// What a task's own events say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who pays.
    pub requester: AccountId32,
    /// The kind.
    pub kind: KindId,
    /// The parameters' version.
    pub version: u32,
    /// The panel's seed.
    pub seed: [u8; 32],
    /// The inference nodes.
    pub outputs: Vec<NodeId>,
    /// The panel.
    pub panel: Vec<NodeId>,
}

/// An opened reference, with what must have gone into it.
pub struct Opened {
    /// The block.
    pub block: Block,
    /// The event within it.
    pub index: u32,
    /// The event.
    pub event: Box<TaskAudited>,
    /// The parameters that the task ran under.
    pub params: Option<Arc<KindParams>>,
    /// What went in by the events before.
    pub expected: Option<AuditInput>,
    /// The hashes of the outputs that were delivered, where the events tell them.
    pub hashes: Vec<Option<[u8; 32]>>,
    /// The panel.
    pub panel: Vec<NodeId>,
}

/// What a block has changed, for whoever writes it down.
#[derive(Debug, Default)]
pub struct Touched {
    /// Tasks.
    pub tasks: BTreeSet<TaskId>,
    /// Nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Accounts.
    pub accounts: BTreeSet<Id>,
    /// Kinds.
    pub kinds: BTreeSet<KindId>,
    /// Auditors.
    pub auditors: BTreeSet<Id>,
    /// Pools.
    pub pools: BTreeSet<Id>,
    /// Accounts in pools.
    pub members: BTreeSet<(Id, Id)>,
    /// Announced changes, by block and event of their announcement.
    pub changes: BTreeMap<(u32, u32), Announced>,
    /// Days.
    pub days: BTreeMap<u64, DayBook>,
    /// Nodes' days.
    pub node_days: BTreeMap<(NodeId, u64), NodeDay>,
    /// Movements of money.
    pub entries: Vec<Entry>,
    /// Evaluators' trust, where it moved: node, block, event, time, task.
    pub trust: Vec<(NodeId, u32, u32, u64, TaskId, u32, i64)>,
    /// New versions of kinds' parameters: kind, version, block, time.
    pub versions: Vec<(KindId, u32, u32, u64, Arc<KindParams>)>,
    /// What syncs of pools found: pool, block, event, time, income, and what the shares are then.
    pub income: Vec<(Id, u32, u32, u64, PoolEventBox, u128)>,
    /// The tasks of each event: task, block, event.
    pub task_events: Vec<(TaskId, u32, u32)>,
}

/// What comes out of a block.
#[derive(Default)]
pub struct Out {
    /// What it has changed.
    pub touched: Touched,
    /// Tasks' ends.
    pub ends: Vec<End>,
    /// Opened references.
    pub opened: Vec<Opened>,
    /// What the protocol does not allow.
    pub strange: Vec<Finding>,
}

/// The books.
#[derive(Clone)]
pub struct Ledger {
    /// The contract on its chain.
    pub network: Network,
    /// The contract's owner.
    pub owner: AccountId32,
    /// Whether new tasks are refused.
    pub paused: bool,
    /// The parameters that are not a kind's.
    pub global: GlobalParams,
    /// Kinds.
    pub kinds: BTreeMap<KindId, KindBook>,
    /// Tasks that anything can still happen to.
    pub tasks: HashMap<TaskId, TaskBook>,
    /// Nodes, those that have gone too.
    pub nodes: BTreeMap<NodeId, NodeBook>,
    /// Accounts.
    pub accounts: HashMap<Id, AccountBook>,
    /// Auditors, with the block in which they last changed.
    pub auditors: BTreeMap<Id, (Auditor, u32)>,
    /// Pools.
    pub pools: BTreeMap<Id, PoolBook>,
    /// What is announced, by its lever's encoding.
    pub pending: BTreeMap<Vec<u8>, Announced>,
    /// What the contract owes.
    pub owes: Liabilities,
    /// The network's sums.
    pub sums: Sums,
    /// The day of the last event.
    pub day: DayBook,
    /// Final tasks that wait to be forgotten, in the order of their ends.
    final_tasks: VecDeque<TaskId>,
}

impl Ledger {
    /// The books of a contract in the block of its birth, before its first event.
    pub fn new(birth: &Birth) -> Ledger {
        let Overview { owner, paused, epoch_ms, global, .. } = &birth.overview;
        Ledger {
            network: Network::new(birth.genesis, birth.contract, *epoch_ms),
            owner: to_account32(owner),
            paused: *paused,
            global: *global,
            kinds: BTreeMap::new(),
            tasks: HashMap::new(),
            nodes: BTreeMap::new(),
            accounts: HashMap::new(),
            auditors: BTreeMap::new(),
            pools: BTreeMap::new(),
            pending: BTreeMap::new(),
            owes: Liabilities::default(),
            sums: Sums::default(),
            day: DayBook::default(),
            final_tasks: VecDeque::new(),
        }
    }

    /// A version of a kind's parameters.
    pub fn params(&self, kind: KindId, version: u32) -> Option<&Arc<KindParams>> {
        self.kinds.get(&kind)?.versions.get(&version)
    }

    /// Forgets tasks to which nothing can happen any more, once they are written down.
    pub fn forget(&mut self, now: u64) {
        let tasks = &mut self.tasks;
        self.final_tasks.retain(|id| {
            let Some(book) = tasks.get(id) else { return false };
            let over = book.task.deadline.saturating_add(book.task.terms.audit_ms);
            let done = book.collected.is_some() && (book.task.audited || now > over);
            if done {
                tasks.remove(id);
            }
            !done
        });
    }

    /// The pools by their addresses: whose events belong to the history.
    pub fn is_pool(&self, contract: &AccountId32) -> bool {
        self.pools.contains_key(&contract.0)
    }
}
