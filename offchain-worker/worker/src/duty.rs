//! What a node has to do in a task: decided from the task as the chain shows it and the time, and nothing else.
//!
//! The worker is level-triggered: at every block it asks again what is due. A crash, a lost transaction, a reorganisation or
//! a missed announcement needs no handling of its own.

use poq_chain::types::{Hash, Millis, NodeId, OutputState, Phase, SeatState, Task, TaskId};
use poq_journal::Duty;

use crate::config::RoleName;
use crate::metrics::DutyStep;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Answer and commit, or decline, until the deadline.
    Answer {
        /// The last block timestamp at which the commitment is accepted.
        deadline: Millis,
    },
    /// Serve the opening of the commitment to the requester, and open it on chain where the panel is not drawn in time.
    Open {
        /// The commitment on chain.
        commitment: Hash,
        /// When it is to be opened, and how.
        window: Window,
    },
    /// Score and commit, until the deadline.
    Score {
        /// When the seat was drawn.
        drawn_at: Millis,
        /// The last block timestamp at which the commitment is accepted.
        deadline: Millis,
    },
    /// Serve the reveal to everybody, and send it where nobody relays it.
    Reveal {
        /// The commitment on chain.
        commitment: Hash,
        /// When it is to be revealed, and how.
        window: Window,
    },
    /// Nothing now: committed, and others have yet to act. What was committed to must be kept.
    Keep {
        /// The commitment on chain.
        commitment: Hash,
        /// Whether it is still to be opened or revealed.
        ahead: bool,
    },
    /// Nothing any more: all was done.
    Done,
    /// Nothing any more: it declined.
    Declined,
    /// Nothing any more: the deadline passed without this node.
    Missed(DutyStep),
}

/// When nobody can commit any more, which is when openings and reveals stop being a help to those who would: published before
/// that is final, they are, after a reorganisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The time of the block that closed it; or the deadline that did.
    pub at: Millis,
    /// Whether it is the deadline's: then the first block after it closes.
    pub implied: bool,
}

impl Closing {
    /// Whether the block that closed is final, the last final block having this time.
    pub const fn is_final(&self, finalized: Millis) -> bool {
        finalized > self.at || (finalized == self.at && !self.implied)
    }
}

/// When something is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When commitments closed.
    pub closing: Closing,
    /// When it is sent to the chain where nobody else has taken it there, provided that the closing is final.
    pub send_at: Millis,
    /// When it is sent even if the closing is not: what is not published at all costs most.
    pub at_the_latest: Millis,
    /// The last block timestamp at which it is accepted.
    pub deadline: Millis,
}

impl Window {
    /// Whether it is to be sent at `now`, the last final block having the time `finalized`.
    pub const fn is_due(&self, now: Millis, finalized: Millis) -> bool {
        (now >= self.send_at && self.closing.is_final(finalized)) || now >= self.at_the_latest
    }
}

/// When a task's outputs were sealed; `None` while they are not.
pub fn sealed(task: &Task, now: Millis) -> Option<Closing> {
    match task.clock().at(now) {
        (Phase::Inferring, _) => None,
        (Phase::Drawing, deadline) => Some(Closing {
            at: deadline.saturating_sub(task.terms.draw_ms),
            implied: task.phase == Phase::Inferring,
        }),
        // The openings are on the chain by now.
        _ => Some(PUBLIC),
    }
}

/// When a task's panel stopped to take commitments; `None` while it does.
pub fn closed(task: &Task, now: Millis) -> Option<Closing> {
    match task.clock().at(now) {
        (Phase::Inferring | Phase::Drawing | Phase::Scoring, _) => None,
        (Phase::Revealing, deadline) => Some(Closing {
            at: deadline.saturating_sub(task.terms.reveal_ms),
            implied: task.phase == Phase::Scoring,
        }),
        _ => Some(PUBLIC),
    }
}

const PUBLIC: Closing = Closing { at: 0, implied: false };

/// What node `id` has to do in a task at `now`; `None` where it was not drawn for it.
pub fn due(id: TaskId, task: &Task, node: NodeId, role: RoleName, now: Millis) -> Option<(Duty, Due)> {
    match role {
        RoleName::Inference => answer_due(task, node, now).map(|due| (Duty::output(id, node), due)),
        RoleName::Evaluator => score_due(task, node, now).map(|due| (Duty::scores(id, node), due)),
    }
}

fn answer_due(task: &Task, node: NodeId, now: Millis) -> Option<Due> {
    let slot = task.outputs.iter().find(|slot| slot.node == node)?;
    let (phase, deadline) = task.clock().at(now);
    let commitment = slot.commitment;
    Some(match (slot.state, phase) {
        (OutputState::Assigned, Phase::Inferring) if now <= deadline => Due::Answer { deadline },
        (OutputState::Assigned, _) => Due::Missed(DutyStep::CommitOutput),
        (OutputState::Declined, _) => Due::Declined,
        (OutputState::Committed, Phase::Inferring) => Due::Keep { commitment, ahead: true },
        (OutputState::Committed, Phase::Drawing) => match sealed(task, now) {
            Some(closing) if now <= task.clock().half_time(deadline) => {
                // The requester has until a quarter of the time; from then on its silence must not cost this node.
                let eighth = task.terms.draw_ms >> 3;
                let after = |eighths: u64| closing.at.saturating_add(eighth.saturating_mul(eighths));
                let deadline = task.clock().half_time(deadline);
                let window = Window { closing, send_at: after(2), at_the_latest: after(3), deadline };
                Due::Open { commitment, window }
            }
            _ => Due::Missed(DutyStep::OpenOutput),
        },
        (OutputState::Committed, _) => Due::Missed(DutyStep::OpenOutput),
        (OutputState::Opened, phase) if phase.is_final() => Due::Done,
        (OutputState::Opened, _) => Due::Keep { commitment, ahead: false },
    })
}

fn score_due(task: &Task, node: NodeId, now: Millis) -> Option<Due> {
    let place = task.panel.iter().position(|seat| node != 0 && seat.node == node)?;
    let seat = task.panel.get(place)?;
    let (phase, deadline) = task.clock().at(now);
    let commitment = seat.commitment;
    Some(match (seat.state, phase) {
        (SeatState::Revealed, _) => Due::Done,
        (SeatState::Drawn, Phase::Scoring) if now <= deadline => {
            Due::Score { drawn_at: seat.drawn_at, deadline }
        }
        (SeatState::Drawn, _) => Due::Missed(DutyStep::CommitScores),
        // Others may still commit, or seats are to be filled; or the panel ends below its quorum, and then nothing is revealed.
        (SeatState::Committed, Phase::Scoring) => {
            let ahead = now <= deadline || !task.filled && now <= deadline.saturating_add(task.terms.draw_ms);
            Due::Keep { commitment, ahead }
        }
        (SeatState::Committed, Phase::Revealing) if now <= deadline => match closed(task, now) {
            Some(closing) => {
                // One after the other, the last one by half time: the first collects what the others serve, and then all of it
                // goes in one transaction.
                let (place, seats) = (as_millis(place), as_millis(task.panel.len()));
                let half = task.terms.reveal_ms >> 1;
                let wait = half.saturating_mul(place.saturating_add(1)) / seats.saturating_add(1).max(1);
                let window = Window {
                    closing,
                    send_at: closing.at.saturating_add(wait),
                    at_the_latest: closing.at.saturating_add(half.saturating_add(half >> 1)),
                    deadline,
                };
                Due::Reveal { commitment, window }
            }
            None => Due::Keep { commitment, ahead: true },
        },
        // Below its quorum before it was to reveal.
        (SeatState::Committed, Phase::Refunded) if task.clock().committed < task.terms.quorum => {
            Due::Keep { commitment, ahead: false }
        }
        (SeatState::Committed, _) => Due::Missed(DutyStep::RevealScores),
    })
}

fn as_millis(count: usize) -> Millis {
    Millis::try_from(count).unwrap_or(Millis::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use poq_chain::types::{Ending, OutputSlot, Score, Seat, TaskInput, Terms};
    use poq_chain::{to_ink, AccountId32};

    pub(crate) const REQUESTER: AccountId32 = AccountId32([1; 32]);

    pub(crate) fn slot(node: NodeId, state: OutputState) -> OutputSlot {
        let committed = matches!(state, OutputState::Committed | OutputState::Opened);
        OutputSlot {
            node,
            price: 0,
            state,
            commitment: if committed { [7; 32] } else { [0; 32] },
            committed_at: u64::from(committed) * 20,
            hash: if state == OutputState::Opened { [5; 32] } else { [0; 32] },
            salt: [0; 32],
            quality: Score::UNAVAILABLE,
        }
    }

    pub(crate) fn seat(node: NodeId, state: SeatState) -> Seat {
        let committed = state != SeatState::Drawn;
        Seat {
            node,
            state,
            drawn_at: 100,
            commitment: if committed { [9; 32] } else { [0; 32] },
            committed_at: u64::from(committed) * 150,
            scores: vec![Score::UNAVAILABLE],
        }
    }

    pub(crate) fn task(phase: Phase, deadline: Millis, outputs: Vec<OutputSlot>, panel: Vec<Seat>) -> Task {
        Task {
            requester: to_ink(&REQUESTER),
            kind: 1,
            terms: Terms {
                version: 1,
                inference_slot: 0,
                evaluator_slot: 0,
                inference_at_risk: 0,
                evaluator_at_risk: 0,
                keeper_fee: 0,
                draw_ms: 80,
                commit_ms: 80,
                reveal_ms: 80,
                audit_ms: 0,
                quorum: 2,
            },
            phase,
            ending: Ending::Consensus,
            fee: 0,
            keepers: 0,
            keeper_steps: 0,
            input: TaskInput { hash: [3; 32], url: "http://127.0.0.1:1".into(), inline: false },
            reference_commitment: [2; 32],
            secret_hash: [4; 32],
            early: false,
            requested_at: 10,
            deadline,
            sealed_epoch: 0,
            seed: [0; 32],
            short: false,
            filled: false,
            outputs,
            panel,
            audited: false,
            refund: 0,
            final_block: 0,
        }
    }

    fn inference(task: &Task, now: Millis) -> Due {
        due(5, task, 1, RoleName::Inference, now).map(|(_, due)| due).unwrap()
    }

    fn evaluator(task: &Task, now: Millis) -> Due {
        due(5, task, 3, RoleName::Evaluator, now).map(|(_, due)| due).unwrap()
    }

    #[test]
    fn a_node_that_was_not_drawn_has_nothing_to_do() {
        let mut task = task(Phase::Inferring, 200, vec![slot(1, OutputState::Assigned)], vec![]);
        assert_eq!(due(5, &task, 2, RoleName::Inference, 50), None);
        assert_eq!(due(5, &task, 1, RoleName::Evaluator, 50), None);
        // Vacant seats are nobody's.
        task.panel = vec![seat(0, SeatState::Drawn)];
        assert_eq!(due(5, &task, 0, RoleName::Evaluator, 50), None);
    }

    #[test]
    fn an_answer_is_due_until_its_deadline_inclusive() {
        let outputs = vec![slot(1, OutputState::Assigned), slot(2, OutputState::Committed)];
        let task = task(Phase::Inferring, 200, outputs, vec![]);
        assert_eq!(inference(&task, 50), Due::Answer { deadline: 200 });
        assert_eq!(inference(&task, 200), Due::Answer { deadline: 200 });
        assert_eq!(inference(&task, 201), Due::Missed(DutyStep::CommitOutput));
    }

    #[test]
    fn whoever_declined_has_done_with_it() {
        let task = task(Phase::Inferring, 200, vec![slot(1, OutputState::Declined)], vec![]);
        assert_eq!(inference(&task, 50), Due::Declined);
        assert_eq!(inference(&task, 900), Due::Declined);
    }

    #[test]
    fn an_opening_is_sent_from_a_quarter_on_once_the_seal_is_final_and_soon_anyway() {
        let outputs = vec![slot(1, OutputState::Committed)];
        // Sealed at 120, to be drawn by 200.
        let task = task(Phase::Drawing, 200, outputs, vec![]);
        let Due::Open { commitment, window } = inference(&task, 130) else {
            panic!("{:?}", inference(&task, 130))
        };
        assert_eq!(commitment, [7; 32]);
        let closing = Closing { at: 120, implied: false };
        assert_eq!(window, Window { closing, send_at: 140, at_the_latest: 150, deadline: 160 });
        assert!(!window.is_due(139, 139) && window.is_due(140, 120));
        assert!(!window.is_due(149, 119) && window.is_due(150, 0));
        assert_eq!(inference(&task, 160), Due::Open { commitment, window });
        assert_eq!(inference(&task, 161), Due::Missed(DutyStep::OpenOutput));
    }

    #[test]
    fn outputs_that_a_deadline_seals_are_sealed_by_the_block_after_it() {
        let outputs = vec![slot(1, OutputState::Committed), slot(2, OutputState::Assigned)];
        let task = task(Phase::Inferring, 200, outputs, vec![]);
        assert_eq!(inference(&task, 200), Due::Keep { commitment: [7; 32], ahead: true });
        assert_eq!(sealed(&task, 200), None);
        let closing = sealed(&task, 201).unwrap();
        assert_eq!(closing, Closing { at: 200, implied: true });
        // A block at the deadline itself can still have taken a commitment.
        assert!(!closing.is_final(200) && closing.is_final(201));
        assert!(matches!(inference(&task, 201), Due::Open { .. }));
        assert_eq!(inference(&task, 241), Due::Missed(DutyStep::OpenOutput));
    }

    #[test]
    fn an_opened_answer_is_kept_until_the_task_is_final() {
        let mut task = task(Phase::Scoring, 200, vec![slot(1, OutputState::Opened)], vec![]);
        assert_eq!(inference(&task, 150), Due::Keep { commitment: [7; 32], ahead: false });
        task.phase = Phase::Settled;
        assert_eq!(inference(&task, 150), Due::Done);
        task.phase = Phase::Refunded;
        assert_eq!(inference(&task, 150), Due::Done);
        task.outputs = vec![slot(1, OutputState::Committed)];
        assert_eq!(inference(&task, 150), Due::Missed(DutyStep::OpenOutput));
    }

    #[test]
    fn scores_are_due_until_the_deadline() {
        let task = task(Phase::Scoring, 200, vec![], vec![seat(3, SeatState::Drawn)]);
        assert_eq!(evaluator(&task, 200), Due::Score { drawn_at: 100, deadline: 200 });
        assert_eq!(evaluator(&task, 201), Due::Missed(DutyStep::CommitScores));
    }

    #[test]
    fn reveals_are_sent_one_after_the_other_once_the_closing_is_final() {
        let committed =
            || vec![seat(3, SeatState::Committed), seat(4, SeatState::Committed), seat(5, SeatState::Drawn)];
        let mut task = task(Phase::Scoring, 200, vec![], committed());
        assert_eq!(evaluator(&task, 200), Due::Keep { commitment: [9; 32], ahead: true });
        let Due::Reveal { window, .. } = evaluator(&task, 201) else { panic!() };
        let closing = Closing { at: 200, implied: true };
        assert_eq!(window, Window { closing, send_at: 210, at_the_latest: 260, deadline: 280 });
        assert!(!window.is_due(259, 200) && window.is_due(210, 201) && window.is_due(260, 0));
        assert_eq!(evaluator(&task, 281), Due::Missed(DutyStep::RevealScores));
        task.phase = Phase::Revealing;
        task.deadline = 300;
        let Due::Reveal { window, .. } = evaluator(&task, 230) else { panic!() };
        assert_eq!((window.closing, window.send_at), (Closing { at: 220, implied: false }, 230));
        let Some((_, Due::Reveal { window, .. })) = due(5, &task, 4, RoleName::Evaluator, 230) else {
            panic!()
        };
        assert_eq!(window.send_at, 240, "the second seat waits longer");
    }

    #[test]
    fn nothing_is_revealed_to_a_panel_below_quorum() {
        let panel = vec![seat(3, SeatState::Committed), seat(4, SeatState::Drawn)];
        let mut task = task(Phase::Scoring, 200, vec![], panel);
        // Its empty seats may be filled once.
        assert_eq!(evaluator(&task, 201), Due::Keep { commitment: [9; 32], ahead: true });
        assert_eq!(closed(&task, 201), None);
        task.filled = true;
        assert_eq!(evaluator(&task, 201), Due::Keep { commitment: [9; 32], ahead: false });
        task.phase = Phase::Refunded;
        assert_eq!(evaluator(&task, 201), Due::Keep { commitment: [9; 32], ahead: false });
        // With a quorum of commitments it was to reveal.
        task.panel = vec![seat(3, SeatState::Committed), seat(4, SeatState::Revealed)];
        assert_eq!(evaluator(&task, 201), Due::Missed(DutyStep::RevealScores));
    }

    #[test]
    fn what_is_done_stays_done() {
        let task = task(Phase::Revealing, 200, vec![], vec![seat(3, SeatState::Revealed)]);
        assert_eq!(evaluator(&task, 150), Due::Done);
        assert_eq!(evaluator(&task, 999), Due::Done);
    }
}
