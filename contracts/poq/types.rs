//! What the contract stores and returns beyond the protocol's own records, which are `poq-core`'s.

use ink::prelude::{string::String, vec::Vec};
use ink::primitives::AccountId;
use poq_core::commitment::{Hash, Salt};
use poq_core::text::{MAX_AUDITED, MAX_REFERENCE};

pub use poq_core::governance::{GlobalParams, Pending};
pub use poq_core::kind::Population;
pub use poq_core::node::{Holding, Node, NodeStatus, Record};
pub use poq_core::params::{KindParams, MAX_OPEN};
pub use poq_core::registry::{Counts, Epoch, Place, PoolId, Role, Stake, Standing, Tranche, Ver};
pub use poq_core::task::records::{MAX_INLINE, MAX_TEXT};
pub use poq_core::task::{
    Commit, Draw, Opened, OutputSlot, OutputState, Request, Reveal, Seat, SeatState, Source, Step, Task,
    TaskInput, Terms,
};
use poq_core::units::{Balance, KindId, Millis, NodeId, TaskId};

/// The most nodes that one account can own.
pub const MAX_NODES_PER_OWNER: usize = 32;
/// The most tasks that one requester can have open or uncollected.
pub const MAX_TASKS_PER_REQUESTER: usize = 256;
/// The most items of a batched message.
pub const MAX_BATCH: usize = 64;
/// The most nodes that a page of nodes holds; a page must fit ink!'s 16 KiB buffer.
pub const NODES_PAGE: u32 = 12;
/// The most tasks that a page of tasks holds.
pub const TASKS_PAGE: u32 = 4;
/// The most numbers that one page of tasks looks at.
pub const TASKS_SCAN: TaskId = 200;
/// The most changes that can be announced at a time.
pub const MAX_PENDING: usize = 16;
/// How many of an account's reference commitments are remembered, so that none is used twice.
pub const REFERENCES: usize = 16;
/// The layout of this version's storage; `migrate` brings an older one to it.
pub const LAYOUT: u16 = 2;

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
    /// The model's digest, for clients that choose by it; the draw does not look at it.
    pub model_digest: Hash,
    /// Where its blobs are served (a URL). At most 256 bytes.
    pub endpoint: String,
    /// What it asks per task; 0 for an evaluator. It is not assigned where the slot of the fee is smaller.
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
    /// What it asks per task, from the next assignment on.
    pub price: Option<Balance>,
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

/// Why an inference node declines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum DeclineReason {
    /// The input could not be had.
    InputUnavailable,
    /// The input is longer than the model takes.
    TooLong,
    /// There is not enough time left.
    TooLate,
    /// Anything else.
    Other,
}

/// An inference node's word that it will not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Decline {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// Why.
    pub reason: DeclineReason,
}

/// The opening of an output's commitment on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Open {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// What its commitment commits to.
    pub opened: Opened,
}

/// The opening of a gold task: its reference, and the outputs that it is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Opening {
    /// The reference answer's bytes; at most 256.
    pub reference: Vec<u8>,
    /// The salt of the task's `reference_commitment`.
    pub salt: Salt,
    /// Per output, in the task's order, its bytes (at most 2,048), which must hash to what was delivered; `None` for one that
    /// was not delivered or is longer. All others must be there, so that no auditor picks what it likes.
    pub outputs: Vec<Option<Vec<u8>>>,
}

impl Opening {
    /// Whether every part is within its bound, and there is an output to hold against the reference.
    pub fn is_bounded(&self, outputs: usize) -> bool {
        self.reference.len() <= MAX_REFERENCE
            && self.outputs.len() == outputs
            && self.outputs.iter().any(Option::is_some)
            && self.outputs.iter().flatten().all(|text| text.len() <= MAX_AUDITED)
    }
}

/// An account that may open references. Of constant size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Auditor {
    /// Whether the owner has appointed it.
    pub appointed: bool,
    /// What it has bonded.
    pub bond: Balance,
    /// Once it was dismissed or resigned with a bond: when that can be withdrawn. Nothing but withdrawing it sets this back.
    pub unbonds_at: Millis,
    /// How many references it has opened.
    pub audits: u32,
    /// The epoch of `audits_in_epoch`.
    pub epoch: Epoch,
    /// How many of them in that epoch.
    pub audits_in_epoch: u16,
}

/// What happened to an auditor's bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum BondChange {
    /// Nothing.
    None,
    /// This much came in.
    Added(Balance),
    /// This much was burned.
    Slashed(Balance),
    /// This much was paid back.
    Paid(Balance),
}

/// What a kind remembers, with its newest parameters: one cell, because whoever needs the one needs the other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Kind {
    /// The newest version of its parameters.
    pub version: u32,
    /// The newest parameters.
    pub params: KindParams,
    /// What settlements remember.
    pub population: Population,
}

/// A kind as queries return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct KindView {
    /// The kind.
    pub kind: Kind,
    /// Inference nodes by weight class, from the next epoch on.
    pub inference: Counts,
    /// Evaluators by weight class, from the next epoch on.
    pub evaluators: Counts,
}

/// What an account owns: its nodes, the tasks that it requested and has not collected, and its credit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Account {
    /// Nodes it owns.
    pub nodes: Vec<NodeId>,
    /// Tasks it requested and has not collected.
    pub tasks: Vec<TaskId>,
    /// Keepers' fees, and refunds that could not be paid out: `withdraw` pays them.
    pub credit: Balance,
    /// What it has collected and withdrawn so far.
    pub collected: Balance,
    /// The first bytes of the reference commitments that it used last, in a ring.
    pub references: [u64; REFERENCES],
    /// Where the next one goes.
    pub next_reference: u8,
}

/// An account's money in the contract.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Balances {
    /// Stake of its nodes that is bonded.
    pub staked: Balance,
    /// What of its nodes' stake is at risk in open tasks, bonded or not.
    pub locked: Balance,
    /// Stake of its nodes on its way out.
    pub unbonding: Balance,
    /// What of that can be withdrawn now.
    pub withdrawable: Balance,
    /// What its nodes can still earn in open tasks at the most, and its own fees in escrow.
    pub pending: Balance,
    /// Rewards, refunds and credit that can be taken now.
    pub claimable: Balance,
    /// Rewards, refunds and credit taken so far.
    pub withdrawn: Balance,
    /// Stake slashed so far.
    pub slashed: Balance,
    /// Its credit, which `claimable` contains.
    pub credit: Balance,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Its tasks that are open or uncollected.
    pub tasks: Vec<TaskId>,
}

/// What the contract owes, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Liabilities {
    /// Stakes: bonded and on their way out.
    pub stakes: Balance,
    /// Fees of open tasks, less what keepers have got of them.
    pub escrow: Balance,
    /// Refunds of final tasks that nobody has collected.
    pub refunds: Balance,
    /// Rewards that nobody has claimed, and accounts' credit.
    pub claimable: Balance,
    /// Auditors' bonds.
    pub bonds: Balance,
    /// The treasury's half of protocol fees that the owner has not withdrawn.
    pub treasury: Balance,
    /// What nobody can have: slashes, what was not earned, the other half of protocol fees. `burn` sends it away.
    pub burned: Balance,
}

impl Liabilities {
    /// All of it.
    pub fn total(&self) -> Balance {
        [self.stakes, self.escrow, self.refunds, self.claimable, self.bonds, self.treasury, self.burned]
            .into_iter()
            .fold(0, Balance::saturating_add)
    }
}

/// What duties change of the contract's own numbers: one cell, apart from what only its owner changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Books {
    /// What the contract owes.
    pub liabilities: Liabilities,
    /// The highest node number given.
    pub last_node: NodeId,
    /// The highest task number given.
    pub last_task: TaskId,
}

/// What the contract is and owes at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Overview {
    /// Announces changes and withdraws the treasury.
    pub owner: AccountId,
    /// Who may accept the ownership.
    pub proposed: Option<AccountId>,
    /// Whether new tasks are refused.
    pub paused: bool,
    /// The genesis hash of the chain that this contract is for.
    pub genesis: Hash,
    /// Hash of that and of the contract's account: what every commitment starts with.
    pub network: Hash,
    /// How long an epoch is; never changes.
    pub epoch_ms: Millis,
    /// The parameters that are not a kind's.
    pub global: GlobalParams,
    /// The kinds that exist.
    pub kinds: Vec<KindId>,
    /// The highest node number given.
    pub nodes: NodeId,
    /// The highest task number given.
    pub tasks: TaskId,
    /// The layout of the storage.
    pub layout: u16,
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

/// A change that the owner announces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Change {
    /// A kind's parameters, for tasks requested from then on.
    Kind(KindId, KindParams),
    /// The parameters that are not a kind's.
    Global(GlobalParams),
    /// An auditor.
    Appoint(AccountId),
    /// Burns so much of a dismissed auditor's bond.
    SlashAuditor(AccountId, Balance),
    /// The hash of the code that the contract is to run.
    Code(Hash),
}

/// What of [`Change`] there can be one of at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Lever {
    /// A kind's parameters.
    Kind(KindId),
    /// The parameters that are not a kind's.
    Global,
    /// An auditor's appointment.
    Appoint(AccountId),
    /// An auditor's bond.
    SlashAuditor(AccountId),
    /// The code.
    Code,
}

impl Change {
    /// The lever that it moves.
    pub fn lever(&self) -> Lever {
        match self {
            Change::Kind(kind, _) => Lever::Kind(*kind),
            Change::Global(_) => Lever::Global,
            Change::Appoint(account) => Lever::Appoint(*account),
            Change::SlashAuditor(account, _) => Lever::SlashAuditor(*account),
            Change::Code(_) => Lever::Code,
        }
    }
}

/// What a node lost, or a seat, outside a task's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Penalty {
    /// The node.
    pub node: NodeId,
    /// What it lost.
    pub amount: Balance,
}

/// The smallest and the largest fee, and what the smallest is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Quote {
    /// The smallest fee that is accepted.
    pub fee_min: Balance,
    /// The largest.
    pub fee_max: Balance,
    /// Of the smallest, half to the treasury and half burned.
    pub protocol_fee: Balance,
    /// Of it, reserved for keepers; what they do not earn is burned.
    pub keepers: Balance,
    /// Of it, the most that one inference node can earn.
    pub inference_slot: Balance,
    /// Of it, the most that one evaluator can earn.
    pub evaluator_slot: Balance,
}

impl Quote {
    /// The fees for so many outputs and evaluators under these parameters; `None` where no fee is enough. Pure arithmetic on what
    /// the contract tells: no message of the contract does it.
    pub fn of(params: &KindParams, outputs: u8, panel: u8) -> Option<Quote> {
        let fee_min = params.fee_min(outputs, panel)?;
        let split = params.split(fee_min, outputs, panel)?;
        Some(Quote {
            fee_min,
            fee_max: params.fee_max,
            protocol_fee: split.protocol_fee,
            keepers: split.keepers,
            inference_slot: split.inference_slot,
            evaluator_slot: split.evaluator_slot,
        })
    }
}
