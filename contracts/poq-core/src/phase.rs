//! The life of a task. Every state that is not final has a deadline, and past it anyone can move the task on.
//!
//! ```text
//! request ─► Inferring ─► (draw) Scoring ─► Revealing ─► Settled
//!                └── nobody delivered, or      └── below quorum: a second panel once, then Refunded
//!                    no panel drawn: Refunded
//! ```
//! Deadlines are block timestamps in milliseconds: a node that seals a block only when a transaction arrives leaves block
//! numbers standing still.

use crate::units::Millis;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Where a task stands, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Phase {
    /// The drawn inference nodes are to commit to their outputs.
    #[default]
    Inferring,
    /// Outputs are fixed; a panel of evaluators is to be drawn.
    Drawing,
    /// The panel is to commit to its scores.
    Scoring,
    /// The panel is to reveal them.
    Revealing,
    /// A quorum has revealed. An auditor may open the reference of a gold task; after that anybody settles.
    Auditing,
    /// Rewards have been credited. Final.
    Settled,
    /// The fee went back to the requester. Final.
    Refunded,
}

impl Phase {
    /// Whether nothing can happen to the task any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Phase::Settled | Phase::Refunded)
    }
}

/// All that decides what can be done with a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The stored phase.
    pub phase: Phase,
    /// The stored phase's deadline.
    pub deadline: Millis,
    /// How long a panel may take to be drawn.
    pub draw_ms: Millis,
    /// How long the panel has to reveal.
    pub reveal_ms: Millis,
    /// How long an auditor has after that.
    pub audit_ms: Millis,
    /// Outputs asked for.
    pub outputs: u8,
    /// Outputs committed to.
    pub delivered: u8,
    /// Evaluators drawn.
    pub panel: u8,
    /// Evaluators that have committed.
    pub committed: u8,
    /// Evaluators whose reveal matched.
    pub revealed: u8,
    /// Evaluators whose reveal did not match.
    pub mismatched: u8,
    /// How many reveals a settlement needs.
    pub quorum: u8,
    /// Whether a second panel has already been drawn.
    pub redrawn: bool,
    /// The block in which the last output was committed; a panel is drawn in a later one, so that no inference node can
    /// choose its own panel.
    pub fixed_at_block: u32,
}

/// What is to be done with a task now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Step {
    /// Nodes have duties; the next thing that anyone can do is due at this time.
    Wait {
        /// Block timestamp in milliseconds, exclusive: the step is due when now is above it.
        until: Millis,
    },
    /// The outputs are fixed, but the panel is drawn in a later block than this one.
    WaitForBlock,
    /// Draw the panel.
    Draw,
    /// Settle.
    Settle,
    /// Too few revealed: release the panel and draw another.
    Redraw,
    /// Return the fee: no inference node delivered.
    RefundUndelivered,
    /// Return the fee: no panel could be drawn in time.
    RefundUndrawn,
    /// Return the fee: two panels in turn were below quorum.
    RefundBelowQuorum,
    /// Nothing: the task is final.
    Done,
}

impl Clock {
    /// The phase at `now` with its deadline. Three phases begin without anybody having to say so: a panel may be drawn once
    /// the inference deadline has passed with any output there, a panel is revealing once the commit deadline has passed with
    /// a quorum of commitments, and an audit begins once the reveal deadline has passed with a quorum of reveals.
    pub fn at(&self, now: Millis) -> (Phase, Millis) {
        match self.phase {
            Phase::Inferring if now > self.deadline && self.delivered > 0 => {
                (Phase::Drawing, self.deadline.saturating_add(self.draw_ms))
            }
            Phase::Scoring if now > self.deadline && self.committed >= self.quorum => {
                (Phase::Revealing, self.deadline.saturating_add(self.reveal_ms))
            }
            Phase::Revealing if now > self.deadline && self.audited() => {
                (Phase::Auditing, self.deadline.saturating_add(self.audit_ms))
            }
            phase => (phase, self.deadline),
        }
    }

    /// Whether what has been revealed is worth an audit: a quorum, of a kind that gives auditors time.
    fn audited(&self) -> bool {
        self.audit_ms > 0 && self.revealed >= self.quorum
    }

    /// Whether everybody who committed has revealed something.
    fn answered(&self) -> bool {
        self.revealed.saturating_add(self.mismatched) >= self.committed
    }

    /// The phase and its deadline after a reveal at `now`: the last one ends the phase where an audit follows.
    pub fn after_reveal(&self, now: Millis) -> (Phase, Millis) {
        match self.at(now) {
            (Phase::Revealing, _) if self.answered() && self.audited() => {
                (Phase::Auditing, now.saturating_add(self.audit_ms))
            }
            at => at,
        }
    }

    /// Whether an auditor may settle by the reference at `now` in block `block`: from the last reveal until somebody settles.
    pub fn can_audit(&self, now: Millis, block: u32) -> bool {
        self.at(now).0 == Phase::Auditing || self.step(now, block) == Step::Settle
    }

    /// What is to be done at `now` in block `block`.
    pub fn step(&self, now: Millis, block: u32) -> Step {
        let (phase, deadline) = self.at(now);
        let late = now > deadline;
        let below_quorum = if self.redrawn { Step::RefundBelowQuorum } else { Step::Redraw };
        match phase {
            Phase::Inferring if !late => Step::Wait { until: deadline },
            Phase::Inferring => Step::RefundUndelivered,
            Phase::Drawing if late => Step::RefundUndrawn,
            Phase::Drawing if block <= self.fixed_at_block => Step::WaitForBlock,
            Phase::Drawing => Step::Draw,
            Phase::Scoring if late => below_quorum,
            Phase::Scoring => Step::Wait { until: deadline },
            Phase::Auditing if !late => Step::Wait { until: deadline },
            Phase::Auditing => Step::Settle,
            Phase::Revealing => {
                if !self.answered() && !late {
                    Step::Wait { until: deadline }
                } else if self.revealed >= self.quorum {
                    Step::Settle
                } else {
                    below_quorum
                }
            }
            Phase::Settled | Phase::Refunded => Step::Done,
        }
    }
}
