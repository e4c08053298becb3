//! What happened, with every number. Each event has its signature as its only topic: a topic costs a database write.

use crate::types::{Auditor, BondChange, GlobalParams, Opening, Penalty, RefundReason, Role, Seat};
use ink::prelude::{string::String, vec::Vec};
use ink::primitives::AccountId;
use poq_core::commitment::{Hash, Salt};
use poq_core::params::KindParams;
use poq_core::settlement::{Settlement, SettlementInput};
use poq_core::units::{Balance, KindId, Millis, NodeId, Score, TaskId};

/// Emitted when a node was registered.
#[ink::event]
pub struct NodeRegistered {
    /// The node's number.
    pub node: NodeId,
    /// Its owner.
    pub owner: AccountId,
    /// Its operator.
    pub operator: AccountId,
    /// What it does.
    pub role: Role,
    /// The task kind that it serves.
    pub kind: KindId,
    /// Its model's name.
    pub model: String,
    /// Its model's digest.
    pub model_digest: Hash,
}

/// Emitted when a node was configured, drained, resumed or deregistered.
#[ink::event]
pub struct NodeChanged {
    /// The node.
    pub node: NodeId,
    /// What happened to it.
    pub change: NodeChange,
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum NodeChange {
    /// Its owner changed operator, payee, endpoint or price.
    Configured,
    /// It is drawn no more.
    Draining,
    /// It is drawn again.
    Resumed,
    /// It is gone.
    Deregistered,
}

/// Emitted when stake came in.
#[ink::event]
pub struct Staked {
    /// The node.
    pub node: NodeId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when stake began to unbond.
#[ink::event]
pub struct Unstaked {
    /// The node.
    pub node: NodeId,
    /// How much.
    pub amount: Balance,
    /// When all of the node's unbonding stake can be withdrawn.
    pub unbonds_at: Millis,
}

/// Emitted when unbonded stake was paid out.
#[ink::event]
pub struct StakeWithdrawn {
    /// The node.
    pub node: NodeId,
    /// To whom: its owner.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when rewards were paid out.
#[ink::event]
pub struct Claimed {
    /// The node.
    pub node: NodeId,
    /// To whom: its payee.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when a task was requested and its inference nodes drawn.
#[ink::event]
pub struct TaskRequested {
    /// The task's number.
    pub task: TaskId,
    /// Who pays.
    pub requester: AccountId,
    /// The kind.
    pub kind: KindId,
    /// The version of the kind's parameters.
    pub version: u32,
    /// What was paid into escrow.
    pub fee: Balance,
    /// The drawn inference nodes.
    pub nodes: Vec<NodeId>,
    /// How many evaluators will be drawn.
    pub panel: u8,
    /// Until when the outputs must be committed to.
    pub deadline: Millis,
}

/// Emitted when inference nodes committed to outputs.
#[ink::event]
pub struct OutputsCommitted {
    /// Task and node of each commitment that was accepted.
    pub items: Vec<(TaskId, NodeId)>,
}

/// Emitted when a panel was drawn.
#[ink::event]
pub struct PanelDrawn {
    /// The task.
    pub task: TaskId,
    /// The evaluators.
    pub nodes: Vec<NodeId>,
    /// Until when they must commit.
    pub deadline: Millis,
    /// Whether it is the second panel.
    pub redrawn: bool,
}

/// Emitted when evaluators committed to scores.
#[ink::event]
pub struct ScoresCommitted {
    /// Task and node of each commitment that was accepted.
    pub items: Vec<(TaskId, NodeId)>,
}

/// Emitted when an evaluator revealed, rightly or not.
#[ink::event]
pub struct ScoresRevealed {
    /// What was revealed, one item per reveal that was accepted.
    pub items: Vec<Revealed>,
}

/// One reveal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Revealed {
    /// The task.
    pub task: TaskId,
    /// The evaluator.
    pub node: NodeId,
    /// Its scores, one per output.
    pub scores: Vec<Score>,
    /// Hash of its report.
    pub report_hash: Hash,
    /// The salt.
    pub salt: Salt,
    /// Whether all this matches the commitment. If not, it is recorded as a fault.
    pub matched: bool,
}

/// Emitted when a panel that stayed below quorum was released for a second one.
#[ink::event]
pub struct PanelReleased {
    /// The task.
    pub task: TaskId,
    /// The panel as it stood.
    pub panel: Vec<Seat>,
    /// What its members lost.
    pub penalties: Vec<Penalty>,
}

/// Emitted when a task was settled: everything that went in and everything that came out, so that anyone can replay it.
#[ink::event]
pub struct TaskSettled {
    /// The task.
    pub task: TaskId,
    /// Who gets the refund.
    pub requester: AccountId,
    /// The kind.
    pub kind: KindId,
    /// The version of the kind's parameters.
    pub version: u32,
    /// The inference nodes in order.
    pub output_nodes: Vec<NodeId>,
    /// The evaluators in order.
    pub panel_nodes: Vec<NodeId>,
    /// What went in.
    pub input: SettlementInput,
    /// What came out.
    pub settlement: Settlement,
}

/// Emitted when an auditor opened a gold task's reference; the task is settled by it in the same message.
#[ink::event]
pub struct TaskAudited {
    /// The task.
    pub task: TaskId,
    /// The auditor.
    pub auditor: AccountId,
    /// What it opened: the reference and the outputs, for everybody to read and to check.
    pub opening: Opening,
}

/// Emitted when an auditor was appointed, bonded, was dismissed or slashed, resigned, or got its bond back.
#[ink::event]
pub struct AuditorChanged {
    /// The auditor's account.
    pub account: AccountId,
    /// Its record after the change.
    pub auditor: Auditor,
    /// What happened to its bond.
    pub change: BondChange,
}

/// Emitted when a task was refunded.
#[ink::event]
pub struct TaskRefunded {
    /// The task.
    pub task: TaskId,
    /// Who gets the refund.
    pub requester: AccountId,
    /// Why.
    pub reason: RefundReason,
    /// How much: the whole fee.
    pub refund: Balance,
    /// What nodes lost that missed their duties.
    pub penalties: Vec<Penalty>,
}

/// Emitted when a final task was collected: its refund is paid and its record gone.
#[ink::event]
pub struct Collected {
    /// The task.
    pub task: TaskId,
    /// To whom: its requester.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when the owner withdrew from the treasury.
#[ink::event]
pub struct TreasuryWithdrawn {
    /// To whom.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when a kind got new parameters, for future tasks.
#[ink::event]
pub struct KindSet {
    /// The kind.
    pub kind: KindId,
    /// The new version.
    pub version: u32,
    /// The parameters.
    pub params: KindParams,
}

/// Emitted when the contract's owner changed something for future tasks, or is another one.
#[ink::event]
pub struct Administered {
    /// What.
    pub what: Administration,
}

/// What the contract's owner changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Administration {
    /// The global parameters.
    Global(GlobalParams),
    /// Whether new tasks are refused.
    Paused(bool),
    /// Who may accept the ownership.
    Proposed(AccountId),
    /// The owner: the proposed one accepted.
    Owner(AccountId),
}
