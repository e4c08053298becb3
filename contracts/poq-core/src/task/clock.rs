//! What a task's clock says. Every state that is not final has a deadline, and past it anyone can move the task on.
//!
//! ```text
//! request ─► Inferring ─► Drawing ─► Scoring ──────────────► Revealing ─► Settled
//!                │           │          │  ▲ below quorum:      │
//!                │           │          └──┘ filled once        └── below quorum, or no input: Refunded
//!                │           │          └── below quorum again: Refunded
//!                │           └── an output not opened by half time, no secret, or no panel: Refunded
//!                └── nobody delivered: Refunded
//! ```
//! Deadlines are block timestamps in milliseconds: a node that seals a block only when a transaction arrives leaves block
//! numbers standing still.

use crate::formulas::settlement::Ending;
use crate::units::{Balance, Millis};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Where a task stands, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Phase {
    /// The assigned inference nodes are to commit to their outputs.
    #[default]
    Inferring,
    /// Outputs are sealed; they are to be opened, and a panel of evaluators is to be drawn.
    Drawing,
    /// The panel is to commit to its scores.
    Scoring,
    /// The panel is to reveal them.
    Revealing,
    /// Rewards have been credited. Final.
    Settled,
    /// It ended without a consensus: [`Ending`] says why. Final.
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
    /// How long a panel may take to be drawn, and how long empty seats may take to be filled.
    pub draw_ms: Millis,
    /// How long the panel has to reveal.
    pub reveal_ms: Millis,
    /// Outputs asked for.
    pub outputs: u8,
    /// Nodes that have declined.
    pub declined: u8,
    /// Outputs committed to.
    pub delivered: u8,
    /// Outputs whose commitment is opened on chain.
    pub opened: u8,
    /// Whether the secret was shown and too few evaluators could be drawn.
    pub short: bool,
    /// Whether empty seats have been filled.
    pub filled: bool,
    /// Evaluators that have committed.
    pub committed: u8,
    /// Evaluators that have revealed.
    pub revealed: u8,
    /// How many commitments, and how many reveals, a settlement needs.
    pub quorum: u8,
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
    /// Show the secret and draw the panel. Until half time with the openings of all outputs that are not opened on chain; after
    /// it all of them are.
    Draw {
        /// Block timestamp in milliseconds, inclusive: until then the panel can be drawn so.
        until: Millis,
    },
    /// Fill the seats of those who did not commit.
    Fill,
    /// Settle.
    Settle,
    /// End the task without a consensus.
    End(Ending),
    /// Nothing: the task is final.
    Done,
}

impl Clock {
    /// The phase at `now` with its deadline. Two phases begin without anybody having to say so: outputs are sealed once the
    /// inference deadline has passed with any output there, and a panel is revealing once the commit deadline has passed with
    /// a quorum of commitments.
    pub fn at(&self, now: Millis) -> (Phase, Millis) {
        match self.phase {
            Phase::Inferring if now > self.deadline && self.delivered > 0 => {
                (Phase::Drawing, self.deadline.saturating_add(self.draw_ms))
            }
            Phase::Scoring if now > self.deadline && self.committed >= self.quorum => {
                (Phase::Revealing, self.deadline.saturating_add(self.reveal_ms))
            }
            phase => (phase, self.deadline),
        }
    }

    /// Until when the outputs of a task that is to be drawn by `deadline` must be opened.
    pub fn half_time(&self, deadline: Millis) -> Millis {
        deadline.saturating_sub(self.draw_ms >> 1)
    }

    /// Whether everybody who committed has revealed.
    pub fn answered(&self) -> bool {
        self.revealed >= self.committed
    }

    /// Whether no inference node can deliver any more.
    pub fn all_declined(&self) -> bool {
        self.declined >= self.outputs
    }

    /// What is to be done at `now`.
    pub fn step(&self, now: Millis) -> Step {
        let (phase, deadline) = self.at(now);
        let late = now > deadline;
        match phase {
            Phase::Inferring if late || self.all_declined() => Step::End(Ending::Undelivered),
            Phase::Inferring => Step::Wait { until: deadline },
            Phase::Drawing => {
                let open = self.opened < self.delivered;
                let half = self.half_time(deadline);
                if open && now > half {
                    Step::End(Ending::Unopened)
                } else if late && self.short {
                    Step::End(Ending::NoPanel)
                } else if late {
                    Step::End(Ending::NoSecret)
                } else {
                    Step::Draw { until: if open { half } else { deadline } }
                }
            }
            Phase::Scoring if !late => Step::Wait { until: deadline },
            Phase::Scoring if !self.filled && now <= deadline.saturating_add(self.draw_ms) => Step::Fill,
            Phase::Scoring => Step::End(Ending::BelowQuorum),
            Phase::Revealing if !self.answered() && !late => Step::Wait { until: deadline },
            Phase::Revealing if self.revealed >= self.quorum => Step::Settle,
            Phase::Revealing => Step::End(Ending::BelowQuorum),
            Phase::Settled | Phase::Refunded => Step::Done,
        }
    }

    /// Since when the step of [`Clock::step`] is due: what a keeper's fee grows with.
    pub fn due_since(&self, now: Millis) -> Millis {
        let (phase, deadline) = self.at(now);
        match self.step(now) {
            Step::Wait { .. } | Step::Done => now,
            Step::Draw { .. } => deadline.saturating_sub(self.draw_ms),
            Step::End(Ending::Unopened) => self.half_time(deadline),
            // Past it, or because there is nothing left to wait for.
            Step::Fill | Step::Settle | Step::End(_) if phase == Phase::Scoring && self.filled => deadline,
            Step::Fill | Step::Settle | Step::End(_) => deadline.min(now),
        }
    }

    /// What a step at `now` pays to its keeper: nothing when it falls due, rising to `keeper_fee` within `draw_ms`.
    pub fn keeper_fee(&self, keeper_fee: Balance, now: Millis) -> Balance {
        let late = now.saturating_sub(self.due_since(now)).min(self.draw_ms);
        keeper_fee.saturating_mul(Balance::from(late)).checked_div(Balance::from(self.draw_ms)).unwrap_or(0)
    }
}
