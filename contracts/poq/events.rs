//! What happened, with every number. Each event has its signature as its only topic: a topic costs a database write.

use crate::types::{
    Auditor, BondChange, Change, Decline, KindParams, Lever, Open, Opened, Opening, Penalty, Reveal, Role,
    TaskInput,
};
use ink::prelude::{string::String, vec::Vec};
use ink::primitives::AccountId;
use parity_scale_codec::Encode;
use poq_core::commitment::Hash;
use poq_core::formulas::settlement::{Audit, AuditInput, Settlement, SettlementInput};
use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, TaskId};

/// Emits an event. One function writes them all: ink!'s own builds each event's topics anew, which is a third of a kilobyte of code an
/// event.
pub fn emit<E: ink::env::Event>(event: &E) {
    let mut topics = ink::prelude::vec::Vec::new();
    topics.extend(E::SIGNATURE_TOPIC);
    deposit(&topics.encode(), &event.encode());
}

#[cfg(target_arch = "wasm32")]
#[inline(never)]
fn deposit(topics: &[u8], data: &[u8]) {
    use pallet_contracts_uapi::HostFn;
    pallet_contracts_uapi::HostFnImpl::deposit_event(topics, data);
}

/// Only the Wasm runs: natively the contract is types and metadata.
#[cfg(not(target_arch = "wasm32"))]
fn deposit(_: &[u8], _: &[u8]) {}

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
    /// When it can be withdrawn.
    pub until: Millis,
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

/// Emitted when a task was requested and its inference nodes assigned.
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
    /// The inference nodes.
    pub nodes: Vec<NodeId>,
    /// How many evaluators will be drawn.
    pub panel: u8,
    /// Until when the outputs must be committed to.
    pub deadline: Millis,
    /// Whether the requester gets the outputs at once.
    pub early: bool,
    /// Where the input is.
    pub input: TaskInput,
    /// The input itself where the request carries it; else empty.
    pub data: Vec<u8>,
}

/// Emitted when inference nodes committed to outputs.
#[ink::event]
pub struct OutputsCommitted {
    /// Task and node of each commitment that was accepted.
    pub items: Vec<(TaskId, NodeId)>,
}

/// Emitted when inference nodes declined.
#[ink::event]
pub struct Declined {
    /// Each that was accepted.
    pub items: Vec<Decline>,
}

/// Emitted when outputs' commitments were opened before the draw.
#[ink::event]
pub struct OutputsOpened {
    /// Each that was accepted.
    pub items: Vec<Open>,
}

/// Emitted when a panel was drawn, or its empty seats filled.
#[ink::event]
pub struct PanelDrawn {
    /// The task.
    pub task: TaskId,
    /// Whether these fill empty seats.
    pub filled: bool,
    /// The seed.
    pub seed: Hash,
    /// The requester's secret; all zero where seats were filled.
    pub secret: Hash,
    /// Per output its opening, where it was opened in this message.
    pub outputs: Vec<Option<Opened>>,
    /// The evaluators drawn.
    pub nodes: Vec<NodeId>,
    /// Their weights in the epoch in which the outputs were sealed.
    pub weights: Vec<Ratio>,
    /// Who lost a seat for not committing, and what it cost.
    pub vacated: Vec<Penalty>,
    /// Until when they must commit.
    pub deadline: Millis,
}

/// Emitted when the secret was shown but too few evaluators could be drawn. It can be tried again until the deadline.
#[ink::event]
pub struct PanelShort {
    /// The task.
    pub task: TaskId,
    /// How many there were.
    pub found: u8,
}

/// Emitted when evaluators committed to scores.
#[ink::event]
pub struct ScoresCommitted {
    /// Task and node of each commitment that was accepted.
    pub items: Vec<(TaskId, NodeId)>,
}

/// Emitted when evaluators' scores were revealed.
#[ink::event]
pub struct ScoresRevealed {
    /// Each that was accepted: it matches its commitment.
    pub items: Vec<Reveal>,
}

/// Emitted when a task ended, with or without a consensus: everything that went in and everything that came out, so that anyone
/// can replay it.
#[ink::event]
pub struct TaskClosed {
    /// The task.
    pub task: TaskId,
    /// Who gets the refund.
    pub requester: AccountId,
    /// The kind.
    pub kind: KindId,
    /// The version of the kind's parameters.
    pub version: u32,
    /// The seed of the panel, which also decides about the ring.
    pub seed: Hash,
    /// The inference nodes in order.
    pub output_nodes: Vec<NodeId>,
    /// The panel in order; 0 for a vacant seat.
    pub panel_nodes: Vec<NodeId>,
    /// What went in.
    pub input: SettlementInput,
    /// What came out.
    pub settlement: Settlement,
}

/// Emitted when an auditor opened a gold task's reference.
#[ink::event]
pub struct TaskAudited {
    /// The task.
    pub task: TaskId,
    /// The auditor.
    pub auditor: AccountId,
    /// What it opened: the reference and the outputs, for everybody to read and to check.
    pub opening: Opening,
    /// The panel in order; 0 for a vacant seat.
    pub panel_nodes: Vec<NodeId>,
    /// What went in.
    pub input: AuditInput,
    /// What came out.
    pub audit: Audit,
}

/// Emitted when steps paid their keeper.
#[ink::event]
pub struct KeeperPaid {
    /// Whose credit it is.
    pub keeper: AccountId,
    /// Task and fee of each step that paid something.
    pub items: Vec<(TaskId, Balance)>,
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

/// Emitted when an account's credit was paid out.
#[ink::event]
pub struct Withdrawn {
    /// To whom.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when burned money left the contract for an account that nobody has.
#[ink::event]
pub struct Burned {
    /// How much.
    pub amount: Balance,
}

/// Emitted when the owner announced a change.
#[ink::event]
pub struct Proposed {
    /// The change.
    pub change: Change,
    /// When it can be enacted.
    pub acts_at: Millis,
}

/// Emitted when a change acts.
#[ink::event]
pub struct Enacted {
    /// The change.
    pub change: Change,
}

/// Emitted when the owner withdrew what it had announced.
#[ink::event]
pub struct Cancelled {
    /// What it is about.
    pub lever: Lever,
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
    /// Whether new tasks are refused.
    Paused(bool),
    /// Who may accept the ownership.
    Proposed(AccountId),
    /// The owner: the proposed one accepted.
    Owner(AccountId),
}
