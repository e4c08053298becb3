//! What a duty that was not done costs. For both roles nothing at all is never cheaper than something late, and that never
//! cheaper than something bad; hiding is the dearest.

use crate::formulas::settlement::{Answer, Conduct};
use crate::params::KindParams;
use crate::units::Balance;

/// What an inference node owes that did not deliver, of what its slot put at risk; `answers` are those of all.
///
/// Declining beside a delivery costs what the worst answer costs at least: the input could be had, and nobody is better off by
/// answering with nonsense. Where nobody delivered and one node was asked it costs a little, or nodes without a model would live
/// on it; where several were, and all declined, nothing.
pub fn inference_penalty(
    params: &KindParams,
    inference_slot: Balance,
    answers: &[Answer],
    own: Answer,
) -> Balance {
    let share = match own {
        Answer::Delivered { .. } => return 0,
        Answer::Unopened => params.unrevealed_penalty,
        Answer::Missed => params.missed_penalty,
        Answer::Declined => {
            let delivered = |answer: &Answer| matches!(answer, Answer::Delivered { .. } | Answer::Unopened);
            if answers.iter().any(delivered) {
                params.bad_penalty
            } else if answers.len() > 1 && answers.iter().all(|answer| *answer == Answer::Declined) {
                return 0;
            } else {
                params.decline_penalty
            }
        }
    };
    share.of(params.inference_at_risk(inference_slot))
}

/// What an evaluator owes that did not reveal, of what its slot put at risk.
pub fn evaluator_penalty(params: &KindParams, evaluator_slot: Balance, conduct: &Conduct) -> Balance {
    let share = match conduct {
        Conduct::Vacant | Conduct::Waited | Conduct::Revealed(_) => return 0,
        Conduct::Missed => params.missed_penalty,
        Conduct::Unrevealed => params.unrevealed_penalty,
    };
    share.of(params.evaluator_at_risk(evaluator_slot))
}
