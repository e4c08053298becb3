//! What moves a task on. Every function checks before it changes: one that refuses has changed nothing.

use super::clock::{Phase, Step};
use super::records::{Draw, Opened, OutputState, Reveal, Seat, SeatState, Task};
use crate::commitment::{self, Hash, Salt};
use crate::formulas::settlement::{
    has_no_input, Answer, AuditInput, Conduct, Ending, EvaluatorInput, OutputInput, Settlement,
    SettlementInput, TrustState,
};
use crate::kind::Population;
use crate::node::Outcome;
use crate::params::KEEPER_STEPS;
use crate::registry::{epoch_of, panel_seed};
use crate::units::{Balance, Millis, NodeId, Ratio, Score, SignedBalance, TaskId};
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Why a task refuses an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Refusal {
    /// The node has no part in the task.
    NotAssigned,
    /// The task is not in the phase that this is for, or its deadline has passed.
    WrongPhase,
    /// Duties are still open.
    TooEarly,
    /// Another commitment of this node is already there, or it has declined. The same again is accepted and does nothing.
    AlreadyCommitted,
    /// The node has not committed.
    NotCommitted,
    /// The node has already revealed or opened.
    AlreadyRevealed,
    /// The commitment is all zero.
    BadCommitment,
    /// There is not one score per output, or some but not all say that there was no input.
    BadScores,
    /// What is revealed or opened does not match what was committed to.
    Mismatch,
    /// The secret does not match the request's hash.
    BadSecret,
    /// Not every output that was committed to is opened, or there is not one opening or `None` per output.
    NotOpened,
}

impl Refusal {
    /// What was wrong and what to do, in one sentence.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::NotAssigned => "the node has no part in this task",
            Refusal::WrongPhase => "the task is not in that phase, or the phase's deadline has passed",
            Refusal::TooEarly => "it is too early: duties are still open",
            Refusal::AlreadyCommitted => "the node has already committed to something else in this task, or declined it",
            Refusal::NotCommitted => "the node has not committed, so it has nothing to reveal",
            Refusal::AlreadyRevealed => "the node has already revealed",
            Refusal::BadCommitment => "a commitment cannot be all zero",
            Refusal::BadScores => "there must be one score per output, and `no input` for all or for none",
            Refusal::Mismatch => "this is not what the node committed to",
            Refusal::BadSecret => "this is not the secret whose hash is in the request",
            Refusal::NotOpened => {
                "every output that was committed to must be opened: one opening per output, none for those that are opened on \
                 chain"
            }
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.explain())
    }
}

impl core::error::Error for Refusal {}

fn ensure(ok: bool, refusal: Refusal) -> Result<(), Refusal> {
    if ok {
        Ok(())
    } else {
        Err(refusal)
    }
}

impl Task {
    /// An inference node commits to its output. Whether that is new.
    ///
    /// # Errors
    /// `NotAssigned`, `AlreadyCommitted`, `BadCommitment`, `WrongPhase`.
    pub fn commit_output(
        &mut self,
        node: NodeId,
        commitment: Hash,
        now: Millis,
        epoch_ms: Millis,
    ) -> Result<bool, Refusal> {
        let open = self.phase == Phase::Inferring && now <= self.deadline;
        let slot = self.outputs.iter_mut().find(|slot| slot.node == node).ok_or(Refusal::NotAssigned)?;
        if slot.state != OutputState::Assigned {
            return ensure(slot.commitment == commitment, Refusal::AlreadyCommitted).map(|()| false);
        }
        ensure(commitment != [0; 32], Refusal::BadCommitment)?;
        ensure(open, Refusal::WrongPhase)?;
        slot.commitment = commitment;
        slot.committed_at = now;
        slot.state = OutputState::Committed;
        self.seal_if_answered(now, epoch_ms);
        Ok(true)
    }

    /// An inference node declines. Whether that is new.
    ///
    /// # Errors
    /// `NotAssigned`, `AlreadyCommitted`, `WrongPhase`.
    pub fn decline(&mut self, node: NodeId, now: Millis, epoch_ms: Millis) -> Result<bool, Refusal> {
        let open = self.phase == Phase::Inferring && now <= self.deadline;
        let slot = self.outputs.iter_mut().find(|slot| slot.node == node).ok_or(Refusal::NotAssigned)?;
        match slot.state {
            OutputState::Declined => return Ok(false),
            OutputState::Assigned => ensure(open, Refusal::WrongPhase)?,
            _ => return Err(Refusal::AlreadyCommitted),
        }
        slot.state = OutputState::Declined;
        self.seal_if_answered(now, epoch_ms);
        Ok(true)
    }

    /// The outputs are sealed as soon as nobody can commit any more.
    fn seal_if_answered(&mut self, now: Millis, epoch_ms: Millis) {
        let clock = self.clock();
        if clock.delivered > 0 && clock.delivered.saturating_add(clock.declined) >= clock.outputs {
            self.seal(now, epoch_ms);
        }
    }

    fn seal(&mut self, at: Millis, epoch_ms: Millis) {
        self.phase = Phase::Drawing;
        self.deadline = at.saturating_add(self.terms.draw_ms);
        self.sealed_epoch = epoch_of(at, epoch_ms);
    }

    /// Writes down that the outputs were sealed when the inference deadline passed.
    fn seal_if_late(&mut self, now: Millis, epoch_ms: Millis) {
        if self.phase == Phase::Inferring && self.clock().at(now).0 == Phase::Drawing {
            self.seal(self.deadline, epoch_ms);
        }
    }

    /// Opens an output's commitment, by anybody: it authenticates itself. Whether that is new.
    ///
    /// # Errors
    /// `NotAssigned`, `NotCommitted`, `WrongPhase` after half time, `Mismatch`.
    #[allow(clippy::too_many_arguments)]
    pub fn open_output(
        &mut self,
        id: TaskId,
        node: NodeId,
        opened: &Opened,
        now: Millis,
        epoch_ms: Millis,
        network: &Hash,
        hash: impl Fn(&[u8]) -> Hash,
    ) -> Result<bool, Refusal> {
        let at = self.outputs.iter().position(|slot| slot.node == node).ok_or(Refusal::NotAssigned)?;
        let (phase, deadline) = self.clock().at(now);
        let slot = self.outputs.get_mut(at).ok_or(Refusal::NotAssigned)?;
        match slot.state {
            OutputState::Opened => return Ok(false),
            OutputState::Committed => {}
            _ => return Err(Refusal::NotCommitted),
        }
        let half = deadline.saturating_sub(self.terms.draw_ms >> 1);
        ensure(phase == Phase::Drawing && now <= half, Refusal::WrongPhase)?;
        let preimage = commitment::output(network, id, node, &opened.hash, &opened.salt);
        ensure(hash(&preimage) == slot.commitment, Refusal::Mismatch)?;
        slot.hash = opened.hash;
        slot.salt = opened.salt;
        slot.state = OutputState::Opened;
        self.seal_if_late(now, epoch_ms);
        Ok(true)
    }

    /// Shows the secret and opens what is not opened yet: fixes the seed of the panel.
    ///
    /// # Errors
    /// `WrongPhase`, `TooEarly`, `BadSecret`, `NotOpened`, `Mismatch`.
    pub fn unseal(
        &mut self,
        draw: &Draw,
        now: Millis,
        epoch_ms: Millis,
        network: &Hash,
        hash: impl Fn(&[u8]) -> Hash,
    ) -> Result<(), Refusal> {
        match self.clock().step(now) {
            Step::Draw { .. } => {}
            Step::Wait { .. } if self.phase == Phase::Inferring => return Err(Refusal::TooEarly),
            _ => return Err(Refusal::WrongPhase),
        }
        let requester: &[u8; 32] = self.requester.as_ref();
        let preimage = commitment::secret(network, requester, &draw.secret);
        ensure(hash(&preimage) == self.secret_hash, Refusal::BadSecret)?;
        ensure(draw.openings.len() == self.outputs.len(), Refusal::NotOpened)?;
        for (slot, opened) in self.outputs.iter().zip(&draw.openings) {
            match (slot.state, opened) {
                (OutputState::Committed, Some(opened)) => {
                    let preimage =
                        commitment::output(network, draw.task, slot.node, &opened.hash, &opened.salt);
                    ensure(hash(&preimage) == slot.commitment, Refusal::Mismatch)?;
                }
                (OutputState::Committed, None) => return Err(Refusal::NotOpened),
                _ => {}
            }
        }
        for (slot, opened) in self.outputs.iter_mut().zip(&draw.openings) {
            if let (OutputState::Committed, Some(opened)) = (slot.state, opened) {
                slot.hash = opened.hash;
                slot.salt = opened.salt;
                slot.state = OutputState::Opened;
            }
        }
        self.seal_if_late(now, epoch_ms);
        let opened = self.outputs.iter().filter(|slot| slot.state == OutputState::Opened);
        let salts: Vec<Salt> = opened.map(|slot| slot.salt).collect();
        self.seed = hash(&panel_seed(network, draw.task, &draw.secret, &salts));
        Ok(())
    }

    /// A drawn panel takes its seats.
    pub fn seat(&mut self, nodes: impl Iterator<Item = NodeId>, now: Millis) {
        let outputs = self.outputs.len();
        let vacant = self.panel.iter_mut().filter(|seat| seat.node == 0);
        for (seat, node) in vacant.zip(nodes) {
            *seat = Seat { node, drawn_at: now, ..Seat::vacant(outputs) };
        }
        self.phase = Phase::Scoring;
        self.deadline = now.saturating_add(self.terms.commit_ms);
    }

    /// Vacates the seats of those who did not commit, once: who they were.
    pub fn vacate(&mut self) -> Vec<NodeId> {
        let outputs = self.outputs.len();
        let mut gone = Vec::new();
        for seat in self.panel.iter_mut().filter(|seat| seat.node != 0 && seat.state == SeatState::Drawn) {
            gone.push(seat.node);
            *seat = Seat::vacant(outputs);
        }
        self.filled = true;
        gone
    }

    /// The seat of a node once the panel is drawn.
    fn seat_of(&self, node: NodeId) -> Result<usize, Refusal> {
        let at = self.panel.iter().position(|seat| node != 0 && seat.node == node);
        at.ok_or(Refusal::NotAssigned)
    }

    /// A member of the panel commits to its scores. Whether that is new.
    ///
    /// # Errors
    /// `NotAssigned`, `AlreadyCommitted`, `BadCommitment`, `WrongPhase`.
    pub fn commit_scores(&mut self, node: NodeId, commitment: Hash, now: Millis) -> Result<bool, Refusal> {
        let at = self.seat_of(node)?;
        let open = self.phase == Phase::Scoring && now <= self.deadline;
        let seat = self.panel.get_mut(at).ok_or(Refusal::NotAssigned)?;
        if seat.state != SeatState::Drawn {
            return ensure(seat.commitment == commitment, Refusal::AlreadyCommitted).map(|()| false);
        }
        ensure(commitment != [0; 32], Refusal::BadCommitment)?;
        ensure(open, Refusal::WrongPhase)?;
        seat.commitment = commitment;
        seat.committed_at = now;
        seat.state = SeatState::Committed;
        if self.panel.iter().all(|seat| seat.node == 0 || seat.state == SeatState::Committed)
            && self.clock().committed >= self.terms.quorum
        {
            self.phase = Phase::Revealing;
            self.deadline = now.saturating_add(self.terms.reveal_ms);
        }
        Ok(true)
    }

    /// Takes a reveal, whoever relays it; one that does not match is refused. Whether it was the last, so that the task can be
    /// settled at once.
    ///
    /// # Errors
    /// `NotAssigned`, `NotCommitted`, `AlreadyRevealed`, `WrongPhase`, `BadScores`, `Mismatch`.
    pub fn reveal(
        &mut self,
        reveal: &Reveal,
        now: Millis,
        network: &Hash,
        hash: impl Fn(&[u8]) -> Hash,
    ) -> Result<bool, Refusal> {
        let at = self.seat_of(reveal.node)?;
        let (phase, deadline) = self.clock().at(now);
        let outputs = self.outputs.len();
        let seat = self.panel.get_mut(at).ok_or(Refusal::NotAssigned)?;
        match seat.state {
            SeatState::Drawn => return Err(Refusal::NotCommitted),
            SeatState::Revealed => return Err(Refusal::AlreadyRevealed),
            SeatState::Committed => {}
        }
        ensure(phase == Phase::Revealing && now <= deadline, Refusal::WrongPhase)?;
        let without = reveal.scores.iter().filter(|score| **score == Score::NO_INPUT).count();
        ensure(reveal.scores.len() == outputs && (without == 0 || without == outputs), Refusal::BadScores)?;
        let preimage = commitment::scores(
            network,
            reveal.task,
            reveal.node,
            &reveal.scores,
            &reveal.report_hash,
            &reveal.salt,
        );
        ensure(hash(&preimage) == seat.commitment, Refusal::Mismatch)?;
        seat.scores.clone_from(&reveal.scores);
        seat.state = SeatState::Revealed;
        // What the clock implies is stored now: the next reveal reads the same.
        (self.phase, self.deadline) = (phase, deadline);
        Ok(self.clock().answered())
    }

    /// Books what a keeper gets for a step at `now`, if anything is left of the reserve: how much. Before the step.
    pub fn pay_keeper(&mut self, now: Millis) -> Balance {
        if self.keeper_steps >= KEEPER_STEPS {
            return 0;
        }
        let fee = self.clock().keeper_fee(self.terms.keeper_fee, now);
        if fee > 0 {
            self.keeper_steps = self.keeper_steps.saturating_add(1);
            self.keepers = self.keepers.saturating_add(fee);
        }
        fee
    }

    /// Everything that the task's end at `now` depends on. `standing` is what the panel's members are trusted, and what is due to
    /// them.
    pub fn settlement_input(
        &self,
        ending: Ending,
        standing: impl Fn(NodeId) -> (Ratio, SignedBalance),
        population: &Population,
        now: Millis,
    ) -> SettlementInput {
        // What is owed follows the phase at this time, not the one that was stored when somebody last acted.
        let revealing = self.clock().at(now).0 == Phase::Revealing;
        SettlementInput {
            ending,
            fee: self.fee,
            keepers: self.keepers,
            early: self.early,
            inline: self.input.inline,
            outputs: self
                .outputs
                .iter()
                .map(|slot| OutputInput {
                    answer: match slot.state {
                        OutputState::Assigned => Answer::Missed,
                        OutputState::Declined => Answer::Declined,
                        OutputState::Committed => Answer::Unopened,
                        OutputState::Opened => Answer::Delivered {
                            latency_ms: slot.committed_at.saturating_sub(self.requested_at),
                        },
                    },
                    price: slot.price,
                })
                .collect(),
            panel: self
                .panel
                .iter()
                .map(|seat| {
                    let (trust, due) = if seat.node == 0 { (Ratio::ZERO, 0) } else { standing(seat.node) };
                    EvaluatorInput {
                        conduct: match seat.state {
                            _ if seat.node == 0 => Conduct::Vacant,
                            SeatState::Drawn => Conduct::Missed,
                            SeatState::Committed if !revealing => Conduct::Waited,
                            SeatState::Committed => Conduct::Unrevealed,
                            SeatState::Revealed => Conduct::Revealed(seat.scores.clone()),
                        },
                        latency_ms: match seat.committed_at {
                            0 => 0,
                            committed_at => committed_at.saturating_sub(seat.drawn_at),
                        },
                        trust,
                        due,
                    }
                })
                .collect(),
            population: population.clone(),
        }
    }

    /// What a task's end is for each of its nodes, the inference nodes first.
    pub fn outcomes(
        &self,
        id: TaskId,
        input: &SettlementInput,
        settlement: &Settlement,
    ) -> Vec<(NodeId, Outcome)> {
        let outputs = self.outputs.iter().zip(&input.outputs).zip(&settlement.outputs);
        let outputs = outputs.map(|((slot, input), settled)| {
            let outcome = Outcome {
                task: id,
                at_risk: self.terms.inference_at_risk,
                payout: settled.payout,
                slashed: settled.slashed,
                missed: matches!(input.answer, Answer::Missed | Answer::Unopened),
                record: settled.quality.map(|quality| (settlement.burned, quality)),
                due: 0,
            };
            (slot.node, outcome)
        });
        let panel = self.panel.iter().zip(&input.panel).zip(&settlement.panel);
        let panel = panel.filter(|((seat, _), _)| seat.node != 0).map(|((seat, input), settled)| {
            let scored =
                settlement.ending == Ending::Consensus && matches!(input.conduct, Conduct::Revealed(_));
            let outcome = Outcome {
                task: id,
                at_risk: self.terms.evaluator_at_risk,
                payout: settled.payout,
                slashed: settled.slashed,
                missed: matches!(input.conduct, Conduct::Missed | Conduct::Unrevealed),
                record: scored.then_some((settlement.burned, settled.merit)),
                due: settled.due.saturating_sub(input.due),
            };
            (seat.node, outcome)
        });
        outputs.chain(panel).collect()
    }

    /// Writes down a task's end.
    pub fn close(&mut self, settlement: &Settlement, now: Millis, block: u32) {
        self.phase = match settlement.ending {
            Ending::Consensus => Phase::Settled,
            _ => Phase::Refunded,
        };
        self.ending = settlement.ending;
        self.refund = settlement.refund;
        self.deadline = now;
        self.final_block = block;
        for (slot, settled) in self.outputs.iter_mut().zip(&settlement.outputs) {
            slot.quality = Score::from(settled.quality);
        }
    }

    /// Everything that the opening of its reference depends on, `truth` being the token F1 of each opened output.
    pub fn audit_input(
        &self,
        truth: Vec<Option<Ratio>>,
        state: impl Fn(NodeId) -> TrustState,
        population: &Population,
    ) -> AuditInput {
        let revealed =
            |seat: &Seat| seat.state == SeatState::Revealed && !has_no_input(&seat.scores) && seat.node != 0;
        AuditInput {
            truth,
            scores: self.panel.iter().map(|seat| revealed(seat).then(|| seat.scores.clone())).collect(),
            panel: self
                .panel
                .iter()
                .map(|seat| if seat.node == 0 { TrustState::default() } else { state(seat.node) })
                .collect(),
            population: population.clone(),
        }
    }
}
