//! What is stored of a task, and what its messages carry.

use super::clock::{Clock, Phase};
use crate::commitment::{Hash, Salt};
use crate::formulas::settlement::Ending;
use crate::params::{FeeSplit, KindParams};
use crate::registry::Epoch;
use crate::units::{AccountId, Balance, KindId, Millis, NodeId, Score, TaskId};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The longest text (model name, endpoint, input address), in bytes.
pub const MAX_TEXT: usize = 256;
/// The longest input that a request can carry itself, in bytes.
pub const MAX_INLINE: usize = 2_048;

/// Where a task's input is, as a request says it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum Source {
    /// At an address, for whoever is drawn.
    Url {
        /// blake2b-256 of the input's bytes.
        hash: Hash,
        /// Where to fetch it (the requester's blob server). 1 to 256 bytes.
        url: String,
    },
    /// In the request: public for ever, in the event `TaskRequested`. Nobody can say that it could not be had.
    Inline(Vec<u8>),
}

/// A request for a task. The fees of a batch sum up to the value that is transferred.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Request {
    /// The kind.
    pub kind: KindId,
    /// What is paid.
    pub fee: Balance,
    /// The inference nodes that are to answer. Where empty, `outputs` nodes are drawn.
    pub nodes: Vec<NodeId>,
    /// How many outputs there are to be; ignored where nodes are named.
    pub outputs: u8,
    /// How many evaluators there are to be.
    pub panel: u8,
    /// The input.
    pub input: Source,
    /// A salted hash of a reference answer, or random bytes where there is none, so that nobody can tell the two apart. Never
    /// zero, never one that the account has used lately.
    pub reference_commitment: Hash,
    /// Hash of the requester's part of the panel's seed ([`crate::commitment::secret`]).
    pub secret_hash: Hash,
    /// Whether the nodes are to serve their outputs to the requester at once, not only when the scores are committed. Then
    /// `delivery_share` of a delivered slot is not refunded, whatever the output turns out to be worth.
    pub early: bool,
}

/// Where a task's input is, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct TaskInput {
    /// blake2b-256 of the input's bytes.
    pub hash: Hash,
    /// Where to fetch it; empty where it is in the request's event.
    pub url: String,
    /// Whether it is in the request's event.
    pub inline: bool,
}

/// What an assigned inference node has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum OutputState {
    /// Nothing yet.
    Assigned,
    /// It has said that it cannot.
    Declined,
    /// It has committed.
    Committed,
    /// Its commitment is opened.
    Opened,
}

/// An assigned inference node's part of a task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct OutputSlot {
    /// The node.
    pub node: NodeId,
    /// The price it asked when it was assigned.
    pub price: Balance,
    /// What it has done.
    pub state: OutputState,
    /// Its commitment; all zero before it is there.
    pub commitment: Hash,
    /// When it committed; 0 before.
    pub committed_at: Millis,
    /// blake2b-256 of its output, under which it serves it; all zero before it is opened.
    pub hash: Hash,
    /// The salt of its commitment, its part of the panel's seed; all zero before it is opened.
    pub salt: Salt,
    /// The consensus of its output once settled; unavailable before, and where there is none.
    pub quality: Score,
}

/// What a member of the panel has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum SeatState {
    /// Nothing yet.
    Drawn,
    /// It has committed.
    Committed,
    /// It has revealed what it committed to.
    Revealed,
}

/// A drawn evaluator's part of a task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Seat {
    /// The node; 0 for a seat that is vacant.
    pub node: NodeId,
    /// What it has done.
    pub state: SeatState,
    /// When it was drawn; 0 before.
    pub drawn_at: Millis,
    /// Its commitment; all zero before it is there.
    pub commitment: Hash,
    /// When it committed; 0 before.
    pub committed_at: Millis,
    /// Its revealed scores, one per output; unavailable before.
    pub scores: Vec<Score>,
}

impl Seat {
    /// A vacant seat for so many outputs.
    pub fn vacant(outputs: usize) -> Seat {
        Seat {
            node: 0,
            state: SeatState::Drawn,
            drawn_at: 0,
            commitment: [0; 32],
            committed_at: 0,
            scores: vec![Score::UNAVAILABLE; outputs],
        }
    }
}

/// What a task takes over from its kind's parameters at the request, so that its clock and its money need nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Terms {
    /// The version of the kind's parameters.
    pub version: u32,
    /// The most that one inference node can earn.
    pub inference_slot: Balance,
    /// The most that one evaluator can earn.
    pub evaluator_slot: Balance,
    /// Stake locked per inference node.
    pub inference_at_risk: Balance,
    /// Stake locked per evaluator.
    pub evaluator_at_risk: Balance,
    /// The most that a step pays to its keeper.
    pub keeper_fee: Balance,
    /// How long a panel may take to be drawn.
    pub draw_ms: Millis,
    /// How long the panel has to commit.
    pub commit_ms: Millis,
    /// How long the panel has to reveal.
    pub reveal_ms: Millis,
    /// How long after the settlement a reference may be opened.
    pub audit_ms: Millis,
    /// How many commitments and reveals a settlement needs.
    pub quorum: u8,
}

impl Terms {
    /// What a task of this kind with this split runs under.
    pub fn new(params: &KindParams, version: u32, split: &FeeSplit, panel: u8) -> Terms {
        Terms {
            version,
            inference_slot: split.inference_slot,
            evaluator_slot: split.evaluator_slot,
            inference_at_risk: params.inference_at_risk(split.inference_slot),
            evaluator_at_risk: params.evaluator_at_risk(split.evaluator_slot),
            keeper_fee: params.keeper_fee,
            draw_ms: params.draw_ms,
            commit_ms: params.commit_ms,
            reveal_ms: params.reveal_ms,
            audit_ms: params.audit_ms,
            quorum: params.quorum_of(panel),
        }
    }
}

/// A task. Written once by its requester at its full size, so that no other role pays or gets a storage deposit for it;
/// the requester gets the deposit back by collecting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
// ink!'s accounts describe themselves only where metadata is made.
#[cfg_attr(feature = "std", derive(TypeInfo))]
pub struct Task {
    /// Who pays.
    pub requester: AccountId,
    /// The kind.
    pub kind: KindId,
    /// What it runs under.
    pub terms: Terms,
    /// Where it stands, as stored; [`Task::clock`] tells what that means now.
    pub phase: Phase,
    /// How it ended, once final.
    pub ending: Ending,
    /// What was paid.
    pub fee: Balance,
    /// What keepers have got of it.
    pub keepers: Balance,
    /// How many steps keepers have been paid for.
    pub keeper_steps: u8,
    /// Where the input is.
    pub input: TaskInput,
    /// A salted hash of a reference answer, or random bytes: nobody can tell.
    pub reference_commitment: Hash,
    /// Hash of the requester's secret.
    pub secret_hash: Hash,
    /// Whether the requester gets the outputs at once.
    pub early: bool,
    /// When it was requested.
    pub requested_at: Millis,
    /// The stored phase's deadline; once final, when it ended.
    pub deadline: Millis,
    /// The epoch in which its outputs were sealed: the draw reads that one. 0 before.
    pub sealed_epoch: Epoch,
    /// The seed of its panel; all zero before the secret is shown.
    pub seed: Hash,
    /// Whether the secret was shown and too few evaluators could be drawn.
    pub short: bool,
    /// Whether empty seats have been filled once.
    pub filled: bool,
    /// The inference nodes.
    pub outputs: Vec<OutputSlot>,
    /// The evaluators; vacant seats before the draw.
    pub panel: Vec<Seat>,
    /// Whether its reference has been opened.
    pub audited: bool,
    /// Once final: what the requester collects.
    pub refund: Balance,
    /// Once final: the block of the event that tells every number.
    pub final_block: u32,
}

impl Task {
    /// A requested task. `assigned` are its inference nodes with the prices that they ask.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        requester: AccountId,
        request: &Request,
        input: TaskInput,
        terms: Terms,
        inference_ms: Millis,
        assigned: &[(NodeId, Balance)],
        now: Millis,
    ) -> Task {
        Task {
            requester,
            kind: request.kind,
            terms,
            phase: Phase::Inferring,
            ending: Ending::Consensus,
            fee: request.fee,
            keepers: 0,
            keeper_steps: 0,
            input,
            reference_commitment: request.reference_commitment,
            secret_hash: request.secret_hash,
            early: request.early,
            requested_at: now,
            deadline: now.saturating_add(inference_ms),
            sealed_epoch: 0,
            seed: [0; 32],
            short: false,
            filled: false,
            outputs: assigned
                .iter()
                .map(|(node, price)| OutputSlot {
                    node: *node,
                    price: *price,
                    state: OutputState::Assigned,
                    commitment: [0; 32],
                    committed_at: 0,
                    hash: [0; 32],
                    salt: [0; 32],
                    quality: Score::UNAVAILABLE,
                })
                .collect(),
            panel: vec![Seat::vacant(assigned.len()); usize::from(request.panel)],
            audited: false,
            refund: 0,
            final_block: 0,
        }
    }

    /// All that decides what can be done with it.
    pub fn clock(&self) -> Clock {
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let outputs = |states: &[OutputState]| {
            count(self.outputs.iter().filter(|slot| states.contains(&slot.state)).count())
        };
        let seats = |states: &[SeatState]| {
            count(self.panel.iter().filter(|seat| seat.node != 0 && states.contains(&seat.state)).count())
        };
        Clock {
            phase: self.phase,
            deadline: self.deadline,
            draw_ms: self.terms.draw_ms,
            reveal_ms: self.terms.reveal_ms,
            outputs: count(self.outputs.len()),
            declined: outputs(&[OutputState::Declined]),
            delivered: outputs(&[OutputState::Committed, OutputState::Opened]),
            opened: outputs(&[OutputState::Opened]),
            short: self.short,
            filled: self.filled,
            committed: seats(&[SeatState::Committed, SeatState::Revealed]),
            revealed: seats(&[SeatState::Revealed]),
            quorum: self.terms.quorum,
        }
    }

    /// Whether an auditor may open its reference at `now`.
    pub fn can_audit(&self, now: Millis) -> bool {
        self.phase == Phase::Settled
            && self.ending == Ending::Consensus
            && !self.audited
            && now <= self.deadline.saturating_add(self.terms.audit_ms)
    }
}

/// A commitment: an output's or a panel member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Commit {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// The commitment; not all zero.
    pub commitment: Hash,
}

/// The opening of an output's commitment: its hash and salt, not the output itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Opened {
    /// blake2b-256 of the output's bytes.
    pub hash: Hash,
    /// The salt of the commitment.
    pub salt: Salt,
}

/// What it takes to draw a task's panel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Draw {
    /// The task.
    pub task: TaskId,
    /// The requester's secret.
    pub secret: Hash,
    /// Per output, in the task's order, its opening; `None` for one that was not committed to or is opened on chain already.
    pub openings: Vec<Option<Opened>>,
}

/// An evaluator's reveal. It authenticates itself: anybody may relay it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Reveal {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// One score per output, in the task's order; [`Score::NO_INPUT`] for all or for none.
    pub scores: Vec<Score>,
    /// Hash of the evaluator's report; all zero for none.
    pub report_hash: Hash,
    /// The salt of the commitment.
    pub salt: Salt,
}
