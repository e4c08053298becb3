//! What the contract stores and what its messages take and return.

use ink::prelude::{string::String, vec::Vec};
use ink::primitives::AccountId;
use poq_core::commitment::{Hash, Salt};
use poq_core::draw::Pool;
use poq_core::params::{KindParams, UNIT};
use poq_core::phase::{Clock, Phase, Step};
use poq_core::settlement::Population;
use poq_core::text::{MAX_AUDITED, MAX_REFERENCE};
use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, Score, Signed, TaskId};

/// The most open tasks that a node can be drawn for at a time.
pub const MAX_OPEN: usize = 16;
/// The most nodes that one account can own.
pub const MAX_NODES_PER_OWNER: usize = 32;
/// The most tasks that one requester can have open or uncollected.
pub const MAX_TASKS_PER_REQUESTER: usize = 256;
/// The most items of a batched message.
pub const MAX_BATCH: usize = 64;
/// The longest text (model name, endpoint, input address), in bytes.
pub const MAX_TEXT: usize = 256;
/// The most nodes that a page of nodes holds; a page must fit ink!'s 16 KiB buffer.
pub const NODES_PAGE: u32 = 12;
/// The most tasks that a page of tasks holds.
pub const TASKS_PAGE: u32 = 6;
/// The most numbers that one page of tasks looks at.
pub const TASKS_SCAN: TaskId = 200;
/// How many consensus values a kind remembers.
pub const RING: usize = 16;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Role {
    /// Runs a language model and answers.
    Inference,
    /// Scores answers.
    Evaluator,
}

/// Whether a node takes part in draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum NodeStatus {
    /// Drawn while its stake is at least the kind's minimum.
    Active,
    /// Finishes its open duties and is drawn no more, until it resumes.
    Draining,
}

/// What a registering node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Registration {
    /// What it does.
    pub role: Role,
    /// The one task kind that it serves.
    pub kind: KindId,
    /// The hot account that does the duties.
    pub operator: AccountId,
    /// The account that rewards are paid to.
    pub payee: AccountId,
    /// The model's name, for people. At most 256 bytes.
    pub model: String,
    /// The model's digest; two evaluators with the same digest count as one model in the draw of a panel.
    pub model_digest: Hash,
    /// Where its blobs are served (a URL). At most 256 bytes.
    pub endpoint: String,
    /// What it asks per task; 0 for an evaluator. It is not drawn where the slot of the fee is smaller.
    pub price: Balance,
}

/// What an owner changes about its node; `None` leaves a field as it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct NodeUpdate {
    /// The hot account.
    pub operator: Option<AccountId>,
    /// The account that rewards are paid to.
    pub payee: Option<AccountId>,
    /// Where its blobs are served.
    pub endpoint: Option<String>,
    /// What it asks per task, from the next draw on.
    pub price: Option<Balance>,
}

/// The part of a node that duties and settlements touch. Of constant size, so that no duty costs or returns a storage
/// deposit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Node {
    /// The cold account: stakes, unstakes, claims, configures.
    pub owner: AccountId,
    /// The hot account: duties only.
    pub operator: AccountId,
    /// The account that rewards are paid to.
    pub payee: AccountId,
    /// What it does.
    pub role: Role,
    /// The task kind that it serves.
    pub kind: KindId,
    /// Whether it takes part in draws.
    pub status: NodeStatus,
    /// Its model's digest.
    pub model_digest: Hash,
    /// What it asks per task.
    pub price: Balance,
    /// Stake that is neither locked nor unbonding.
    pub free: Balance,
    /// Stake at risk in open tasks.
    pub locked: Balance,
    /// Stake on its way out.
    pub unbonding: Balance,
    /// When the unbonding stake can be withdrawn.
    pub unbonds_at: Millis,
    /// Rewards credited and not yet withdrawn.
    pub claimable: Balance,
    /// Rewards withdrawn so far.
    pub withdrawn: Balance,
    /// Stake slashed so far.
    pub slashed: Balance,
    /// Tasks settled with this node so far.
    pub settled: u32,
    /// Its trust; one for inference nodes.
    pub trust: Ratio,
    /// Its moving average of information gains, in signed parts per billion.
    pub gain_average: Signed,
    /// Its place in the draw's pool, if it is in it: weight class and index.
    pub place: Place,
    /// The tasks that it has open duties or stake in; 0 for a free slot.
    pub open: [TaskId; MAX_OPEN],
}

/// A node's place in the draw's pool, of constant size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Place {
    /// The weight class; 255 for not in the pool.
    pub class: u8,
    /// The index within the class.
    pub index: u32,
}

impl Place {
    /// Not in the pool.
    pub const NONE: Place = Place { class: u8::MAX, index: 0 };

    /// The class, if the node is in the pool.
    pub fn class(&self) -> Option<u8> {
        (self.class != u8::MAX).then_some(self.class)
    }
}

impl Node {
    /// How many open tasks it has.
    pub fn open_count(&self) -> usize {
        self.open.iter().filter(|task| **task != 0).count()
    }

    /// All its stake that a slash can reach or that counts in a draw.
    pub fn bonded(&self) -> Balance {
        self.free.saturating_add(self.locked)
    }
}

/// The part of a node that only people and its own requests touch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct NodeInfo {
    /// The model's name.
    pub model: String,
    /// Where its blobs are served.
    pub endpoint: String,
    /// When it was registered.
    pub registered_at: Millis,
}

/// A node as queries return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct NodeView {
    /// The node's number.
    pub id: NodeId,
    /// What duties touch.
    pub node: Node,
    /// What people read.
    pub info: NodeInfo,
}

/// A drawn inference node's part of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct OutputSlot {
    /// The node.
    pub node: NodeId,
    /// The price it asked when it was drawn.
    pub price: Balance,
    /// Its commitment; all zero before it is there.
    pub commitment: Hash,
    /// When it committed; 0 before.
    pub committed_at: Millis,
    /// The consensus of its output once settled; unavailable before, and where there is none.
    pub quality: Score,
}

/// What a member of the panel has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum SeatState {
    /// Nothing yet.
    Drawn,
    /// It has committed.
    Committed,
    /// It has revealed what it committed to.
    Revealed,
    /// It has revealed something else: recorded, and final.
    Mismatched,
}

/// A drawn evaluator's part of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// What it has done.
    pub state: SeatState,
    /// Its commitment; all zero before it is there.
    pub commitment: Hash,
    /// When it committed; 0 before.
    pub committed_at: Millis,
    /// Its revealed scores, one per output; unavailable before.
    pub scores: Vec<Score>,
}

/// Where a task's input is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct TaskInput {
    /// blake2b-256 of the input's bytes.
    pub hash: Hash,
    /// Where to fetch it (the requester's blob server). At most 256 bytes.
    pub url: String,
}

/// A task. Written once by its requester at its full size, so that no other role pays or gets a storage deposit for it;
/// the requester gets the deposit back by collecting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Task {
    /// Who pays.
    pub requester: AccountId,
    /// The kind.
    pub kind: KindId,
    /// The version of the kind's parameters that it runs under.
    pub version: u32,
    /// Where it stands, as stored; [`Task::clock`] tells what that means now.
    pub phase: Phase,
    /// What was paid.
    pub fee: Balance,
    /// What the fee is split into.
    pub inference_slot: Balance,
    /// What the fee is split into.
    pub evaluator_slot: Balance,
    /// Stake locked per inference node.
    pub inference_at_risk: Balance,
    /// Stake locked per evaluator.
    pub evaluator_at_risk: Balance,
    /// Where the input is.
    pub input: TaskInput,
    /// A salted hash of a reference answer, or random bytes: nobody can tell.
    pub reference_commitment: Hash,
    /// When it was requested.
    pub requested_at: Millis,
    /// The stored phase's deadline.
    pub deadline: Millis,
    /// The block of the last output commitment.
    pub fixed_at_block: u32,
    /// When the panel was drawn; 0 before.
    pub drawn_at: Millis,
    /// Whether the panel is the second one.
    pub redrawn: bool,
    /// How long a panel may take to be drawn, of the parameters.
    pub draw_ms: Millis,
    /// How long the panel has to reveal, of the parameters.
    pub reveal_ms: Millis,
    /// How long an auditor has after that, of the parameters.
    pub audit_ms: Millis,
    /// How many reveals a settlement needs.
    pub quorum: u8,
    /// The inference nodes.
    pub outputs: Vec<OutputSlot>,
    /// The evaluators; seats of node 0 before the draw.
    pub panel: Vec<Seat>,
    /// Once final: what the requester collects.
    pub refund: Balance,
    /// Once final: the block of the event that tells every number.
    pub final_block: u32,
}

impl Task {
    /// All that decides what can be done with it.
    pub fn clock(&self) -> Clock {
        let count = |states: &[SeatState]| {
            u8::try_from(self.panel.iter().filter(|seat| states.contains(&seat.state)).count())
                .unwrap_or(u8::MAX)
        };
        Clock {
            phase: self.phase,
            deadline: self.deadline,
            draw_ms: self.draw_ms,
            reveal_ms: self.reveal_ms,
            audit_ms: self.audit_ms,
            outputs: u8::try_from(self.outputs.len()).unwrap_or(u8::MAX),
            delivered: u8::try_from(self.outputs.iter().filter(|o| o.committed_at > 0).count())
                .unwrap_or(u8::MAX),
            panel: u8::try_from(self.panel.len()).unwrap_or(u8::MAX),
            committed: count(&[SeatState::Committed, SeatState::Revealed, SeatState::Mismatched]),
            revealed: count(&[SeatState::Revealed]),
            mismatched: count(&[SeatState::Mismatched]),
            quorum: self.quorum,
            redrawn: self.redrawn,
            fixed_at_block: self.fixed_at_block,
        }
    }
}

/// A task as queries return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct TaskView {
    /// The task's number.
    pub id: TaskId,
    /// The task.
    pub task: Task,
    /// What is to be done with it at the queried block.
    pub step: Step,
}

/// A commitment in a batch: an output's or a panel member's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Commit {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// The commitment.
    pub commitment: Hash,
}

/// A reveal, alone or in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Reveal {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// One score per output, in the task's order.
    pub scores: Vec<Score>,
    /// Hash of the evaluator's report; all zero for none.
    pub report_hash: Hash,
    /// The salt of the commitment.
    pub salt: Salt,
}

/// The opening of a gold task: its reference, and the outputs that it is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Opening {
    /// The reference answer's bytes; at most 256.
    pub reference: Vec<u8>,
    /// The salt of the task's `reference_commitment`.
    pub salt: Salt,
    /// Per output, in the task's order, its bytes (at most 2,048) and the salt of its commitment; `None` for one that was not
    /// delivered, is longer, or that the auditor could not get.
    pub outputs: Vec<Option<(Vec<u8>, Salt)>>,
}

impl Opening {
    /// Whether every part is within its bound, and there is an output to hold against the reference.
    pub fn is_bounded(&self, outputs: usize) -> bool {
        self.reference.len() <= MAX_REFERENCE
            && self.outputs.len() == outputs
            && self.outputs.iter().any(Option::is_some)
            && self.outputs.iter().flatten().all(|(text, _)| text.len() <= MAX_AUDITED)
    }
}

/// An account that may open references. Appointed by the contract's owner, and bonded. Of constant size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Auditor {
    /// Whether it may: what the owner gives and takes.
    pub appointed: bool,
    /// What it has bonded.
    pub bond: Balance,
    /// Once dismissed or resigned: when the bond can be withdrawn.
    pub unbonds_at: Millis,
    /// How many tasks it has settled by their reference.
    pub audits: u32,
}

/// What happened to an auditor's bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum BondChange {
    /// Nothing.
    None,
    /// This much came in.
    Added(Balance),
    /// This much went to the treasury.
    Slashed(Balance),
    /// This much was paid back.
    Paid(Balance),
}

/// What a kind remembers, hot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Kind {
    /// The newest version of its parameters.
    pub version: u32,
    /// The pool of inference nodes.
    pub inference: Pool,
    /// The pool of evaluators.
    pub evaluators: Pool,
    /// Where the next ring entry goes.
    pub ring_next: u8,
    /// What settlements remember.
    pub population: Population,
}

/// A kind as queries return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct KindView {
    /// The kind.
    pub kind: Kind,
    /// Its newest parameters.
    pub params: KindParams,
}

/// What an account owns: its nodes, and the tasks that it requested and has not collected.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Account {
    /// Nodes it owns.
    pub nodes: Vec<NodeId>,
    /// Tasks it requested and has not collected.
    pub tasks: Vec<TaskId>,
    /// Refunds collected so far.
    pub collected: Balance,
}

/// An account's money in the contract.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Balances {
    /// Stake of its nodes that is not locked.
    pub staked_free: Balance,
    /// Stake of its nodes at risk in open tasks.
    pub staked_locked: Balance,
    /// Stake of its nodes on its way out.
    pub unbonding: Balance,
    /// What its nodes can still earn in open tasks at the most, and its own fees in escrow.
    pub pending: Balance,
    /// Rewards and refunds that can be withdrawn now.
    pub claimable: Balance,
    /// Rewards and refunds withdrawn so far.
    pub withdrawn: Balance,
    /// Stake slashed so far.
    pub slashed: Balance,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Its tasks that are open or uncollected.
    pub tasks: Vec<TaskId>,
}

/// What the contract owes, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct Liabilities {
    /// Stakes: free, locked and unbonding.
    pub stakes: Balance,
    /// Fees of open tasks.
    pub escrow: Balance,
    /// Refunds of final tasks that nobody has collected.
    pub refunds: Balance,
    /// Rewards that nobody has claimed.
    pub claimable: Balance,
    /// Auditors' bonds.
    pub bonds: Balance,
    /// Protocol fees and slashed stake that the owner has not withdrawn.
    pub treasury: Balance,
}

impl Liabilities {
    /// All of it.
    pub fn total(&self) -> Balance {
        self.stakes
            .saturating_add(self.escrow)
            .saturating_add(self.refunds)
            .saturating_add(self.claimable)
            .saturating_add(self.bonds)
            .saturating_add(self.treasury)
    }
}

/// What the contract is and owes at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Overview {
    /// Sets parameters for future tasks and withdraws the treasury.
    pub owner: AccountId,
    /// Who may accept the ownership.
    pub proposed: Option<AccountId>,
    /// Whether new tasks are refused.
    pub paused: bool,
    /// The parameters that are not a kind's.
    pub global: GlobalParams,
    /// The kinds that exist.
    pub kinds: Vec<KindId>,
    /// The highest node number given.
    pub nodes: NodeId,
    /// The highest task number given.
    pub tasks: TaskId,
    /// The draws' entropy as of now.
    pub entropy: Hash,
    /// What the contract can spend: its free balance without the existential deposit; storage deposits are held apart.
    pub balance: Balance,
    /// What it owes.
    pub liabilities: Liabilities,
}

impl Overview {
    /// Whether the contract can pay what it owes.
    pub fn solvency(&self) -> Solvency {
        let owed = self.liabilities.total();
        Solvency {
            balance: self.balance,
            liabilities: self.liabilities,
            surplus: self.balance.saturating_sub(owed),
            solvent: self.balance >= owed,
        }
    }
}

/// Whether the contract can pay what it owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Solvency {
    /// What the contract can spend: its free balance without the existential deposit; storage deposits are held apart.
    pub balance: Balance,
    /// What it owes.
    pub liabilities: Liabilities,
    /// What it has beyond that; 0 where it has not.
    pub surplus: Balance,
    /// Whether the balance covers the liabilities.
    pub solvent: bool,
}

/// Parameters that are not a kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct GlobalParams {
    /// From unstaking to withdrawal. At least an hour on a public network; at most 90 days.
    pub unbonding_ms: Millis,
    /// From a task's end until anyone may collect it for its requester (the refund goes to the requester, the storage
    /// deposit to whoever cleans up).
    pub archive_ms: Millis,
    /// What an auditor must have bonded to open references; above zero.
    pub audit_bond: Balance,
}

impl Default for GlobalParams {
    fn default() -> Self {
        const DAY: Millis = 24 * 60 * 60 * 1_000;
        GlobalParams {
            unbonding_ms: DAY,
            archive_ms: DAY.saturating_mul(30),
            audit_bond: UNIT.saturating_mul(100),
        }
    }
}

/// Why a task was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum RefundReason {
    /// No inference node delivered.
    Undelivered,
    /// No panel could be drawn in time.
    Undrawn,
    /// Two panels in turn were below quorum.
    BelowQuorum,
}

/// What a node lost outside a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Penalty {
    /// The node.
    pub node: NodeId,
    /// What it lost.
    pub amount: Balance,
}

/// The smallest fee, and what it is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Quote {
    /// The smallest fee that is accepted.
    pub fee_min: Balance,
    /// Of that, to the treasury.
    pub protocol_fee: Balance,
    /// Of that, the most that one inference node can earn.
    pub inference_slot: Balance,
    /// Of that, the most that one evaluator can earn.
    pub evaluator_slot: Balance,
}

impl Quote {
    /// The smallest fee for so many outputs and evaluators under these parameters, and its split; `None` where no fee is enough.
    /// Pure arithmetic on what the contract tells: no message of the contract does it.
    pub fn of(params: &KindParams, outputs: u8, panel: u8) -> Option<Quote> {
        let fee_min = params.fee_min(outputs, panel)?;
        let split = params.split(fee_min, outputs, panel)?;
        Some(Quote {
            fee_min,
            protocol_fee: split.protocol_fee,
            inference_slot: split.inference_slot,
            evaluator_slot: split.evaluator_slot,
        })
    }
}

// Records in mappings are leaves of the storage layout: each is one cell, whatever is in it.
#[cfg(feature = "std")]
mod layout {
    use ink::metadata::layout::{Layout, LeafLayout};
    use ink::primitives::Key;
    use ink::storage::traits::StorageLayout;

    macro_rules! leaf {
        ($($record:ty),* $(,)?) => {$(
            impl StorageLayout for $record {
                fn layout(key: &Key) -> Layout {
                    Layout::Leaf(LeafLayout::from_key::<Self>((*key).into()))
                }
            }
        )*};
    }

    leaf!(
        super::Node,
        super::NodeInfo,
        super::Task,
        super::Kind,
        super::Account,
        super::Params,
        super::Auditor
    );
}

/// A kind's parameters as stored; a type of this crate, so that it has a storage layout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Params(
    /// The parameters.
    pub KindParams,
);
