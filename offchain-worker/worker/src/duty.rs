//! What a node has to do in a task: decided from the task as the chain shows it and the time, and nothing else.
//!
//! The worker is level-triggered: at every block it asks again what is due. A crash, a lost transaction, a reorganisation or
//! a missed announcement needs no handling of its own.

use poq_chain::types::{Hash, Millis, NodeId, Phase, SeatState, Task, TaskId};
use poq_journal::Duty;

use crate::config::RoleName;
use crate::metrics::DutyStep;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Answer and commit, until the deadline.
    Answer {
        /// The last block timestamp at which the commitment is accepted.
        deadline: Millis,
    },
    /// Score and commit, until the deadline.
    Score {
        /// When the panel was drawn.
        drawn_at: Millis,
        /// The last block timestamp at which the commitment is accepted.
        deadline: Millis,
    },
    /// Reveal what was committed to, until the deadline.
    Reveal {
        /// The commitment on chain.
        commitment: Hash,
        /// The last block timestamp at which the reveal is accepted.
        deadline: Millis,
    },
    /// Nothing now: committed, and others have yet to act. What was committed to must be kept.
    Keep {
        /// The commitment on chain.
        commitment: Hash,
        /// Whether a reveal is still to come.
        reveal_ahead: bool,
    },
    /// Nothing any more: all was done.
    Done,
    /// Nothing any more: the deadline passed without this node.
    Missed(DutyStep),
    /// The chain says that the node revealed something else than it had committed to.
    Mismatched,
}

/// What node `id` has to do in a task at `now`; `None` where it was not drawn for it.
pub fn due(id: TaskId, task: &Task, node: NodeId, role: RoleName, now: Millis) -> Option<(Duty, Due)> {
    match role {
        RoleName::Inference => answer_due(task, node, now).map(|due| (Duty::output(id, node), due)),
        RoleName::Evaluator => {
            score_due(task, node, now).map(|due| (Duty::scores(id, node, task.redrawn), due))
        }
    }
}

fn answer_due(task: &Task, node: NodeId, now: Millis) -> Option<Due> {
    let slot = task.outputs.iter().find(|slot| slot.node == node)?;
    let (phase, deadline) = task.clock().at(now);
    Some(match phase {
        Phase::Settled | Phase::Refunded if slot.committed_at > 0 => Due::Done,
        _ if slot.committed_at > 0 => Due::Keep { commitment: slot.commitment, reveal_ahead: false },
        Phase::Inferring if now <= deadline => Due::Answer { deadline },
        _ => Due::Missed(DutyStep::CommitOutput),
    })
}

fn score_due(task: &Task, node: NodeId, now: Millis) -> Option<Due> {
    let seat = task.panel.iter().find(|seat| seat.node == node)?;
    let (phase, deadline) = task.clock().at(now);
    Some(match (seat.state, phase) {
        (SeatState::Mismatched, _) => Due::Mismatched,
        (SeatState::Revealed, _) => Due::Done,
        (SeatState::Drawn, Phase::Scoring) if now <= deadline => {
            Due::Score { drawn_at: task.drawn_at, deadline }
        }
        (SeatState::Drawn, _) => Due::Missed(DutyStep::CommitScores),
        // All others may still commit; or the panel is below quorum and will be released: then nothing is revealed.
        (SeatState::Committed, Phase::Scoring) => {
            Due::Keep { commitment: seat.commitment, reveal_ahead: now <= deadline }
        }
        (SeatState::Committed, Phase::Revealing) if now <= deadline => {
            Due::Reveal { commitment: seat.commitment, deadline }
        }
        (SeatState::Committed, _) => Due::Missed(DutyStep::RevealScores),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use poq_chain::types::{OutputSlot, Score, Seat, TaskInput};
    use poq_chain::{to_ink, AccountId32};

    pub(crate) fn slot(node: NodeId, committed_at: Millis) -> OutputSlot {
        let commitment = if committed_at > 0 { [7; 32] } else { [0; 32] };
        OutputSlot { node, price: 0, commitment, committed_at, quality: Score::UNAVAILABLE }
    }

    pub(crate) fn seat(node: NodeId, state: SeatState) -> Seat {
        let committed = state != SeatState::Drawn;
        Seat {
            node,
            state,
            commitment: if committed { [9; 32] } else { [0; 32] },
            committed_at: u64::from(committed) * 150,
            scores: vec![Score::UNAVAILABLE],
        }
    }

    pub(crate) fn task(phase: Phase, deadline: Millis, outputs: Vec<OutputSlot>, panel: Vec<Seat>) -> Task {
        let requester = to_ink(&AccountId32([1; 32]));
        Task {
            requester,
            kind: 1,
            version: 1,
            phase,
            fee: 0,
            inference_slot: 0,
            evaluator_slot: 0,
            inference_at_risk: 0,
            evaluator_at_risk: 0,
            input: TaskInput { hash: [3; 32], url: "http://127.0.0.1:1".into() },
            reference_commitment: [0; 32],
            requested_at: 10,
            deadline,
            fixed_at_block: 1,
            drawn_at: 100,
            redrawn: false,
            draw_ms: 50,
            reveal_ms: 50,
            audit_ms: 0,
            quorum: 2,
            outputs,
            panel,
            refund: 0,
            final_block: 0,
        }
    }

    fn inference(task: &Task, now: Millis) -> Due {
        due(5, task, 1, RoleName::Inference, now).map(|(_, due)| due).unwrap_or(Due::Done)
    }

    fn evaluator(task: &Task, now: Millis) -> Due {
        due(5, task, 3, RoleName::Evaluator, now).map(|(_, due)| due).unwrap_or(Due::Done)
    }

    #[test]
    fn a_node_that_was_not_drawn_has_nothing_to_do() {
        let task = task(Phase::Inferring, 200, vec![slot(1, 0)], vec![]);
        assert_eq!(due(5, &task, 2, RoleName::Inference, 50), None);
        assert_eq!(due(5, &task, 1, RoleName::Evaluator, 50), None);
    }

    #[test]
    fn an_answer_is_due_until_its_deadline_inclusive() {
        let task = task(Phase::Inferring, 200, vec![slot(1, 0), slot(2, 0)], vec![]);
        assert_eq!(inference(&task, 50), Due::Answer { deadline: 200 });
        assert_eq!(inference(&task, 200), Due::Answer { deadline: 200 });
        assert_eq!(inference(&task, 201), Due::Missed(DutyStep::CommitOutput));
    }

    #[test]
    fn a_late_answer_is_missed_when_another_node_delivered() {
        let task = task(Phase::Inferring, 200, vec![slot(1, 0), slot(2, 20)], vec![]);
        assert_eq!(inference(&task, 201), Due::Missed(DutyStep::CommitOutput));
    }

    #[test]
    fn a_committed_answer_is_kept_until_the_task_is_final() {
        let mut task = task(Phase::Scoring, 200, vec![slot(1, 20)], vec![]);
        assert_eq!(inference(&task, 150), Due::Keep { commitment: [7; 32], reveal_ahead: false });
        task.phase = Phase::Settled;
        assert_eq!(inference(&task, 150), Due::Done);
    }

    #[test]
    fn scores_are_due_until_the_deadline() {
        let task = task(Phase::Scoring, 200, vec![slot(1, 20)], vec![seat(3, SeatState::Drawn)]);
        assert_eq!(evaluator(&task, 200), Due::Score { drawn_at: 100, deadline: 200 });
        assert_eq!(evaluator(&task, 201), Due::Missed(DutyStep::CommitScores));
    }

    #[test]
    fn a_reveal_is_due_once_the_commit_deadline_has_passed_with_a_quorum() {
        let committed =
            || vec![seat(3, SeatState::Committed), seat(4, SeatState::Committed), seat(5, SeatState::Drawn)];
        let mut task = task(Phase::Scoring, 200, vec![slot(1, 20)], committed());
        assert_eq!(evaluator(&task, 200), Due::Keep { commitment: [9; 32], reveal_ahead: true });
        assert_eq!(evaluator(&task, 201), Due::Reveal { commitment: [9; 32], deadline: 250 });
        assert_eq!(evaluator(&task, 251), Due::Missed(DutyStep::RevealScores));
        task.phase = Phase::Revealing;
        task.deadline = 300;
        assert_eq!(evaluator(&task, 120), Due::Reveal { commitment: [9; 32], deadline: 300 });
    }

    #[test]
    fn nothing_is_revealed_to_a_panel_below_quorum() {
        let panel = vec![seat(3, SeatState::Committed), seat(4, SeatState::Drawn)];
        let task = task(Phase::Scoring, 200, vec![slot(1, 20)], panel);
        assert_eq!(evaluator(&task, 201), Due::Keep { commitment: [9; 32], reveal_ahead: false });
    }

    #[test]
    fn what_is_done_stays_done() {
        let task = task(Phase::Revealing, 200, vec![slot(1, 20)], vec![seat(3, SeatState::Revealed)]);
        assert_eq!(evaluator(&task, 150), Due::Done);
        assert_eq!(evaluator(&task, 999), Due::Done);
    }

    #[test]
    fn the_second_panel_is_another_duty() {
        let mut task = task(Phase::Scoring, 200, vec![slot(1, 20)], vec![seat(3, SeatState::Drawn)]);
        let first = due(5, &task, 3, RoleName::Evaluator, 150).map(|(duty, _)| duty);
        task.redrawn = true;
        let second = due(5, &task, 3, RoleName::Evaluator, 150).map(|(duty, _)| duty);
        assert_ne!(first, second);
    }
}
