//! The linear quality-cost reward of arXiv 2512.16317 for both kinds of node: R = α·quality − β·cost.
//!
//! The quality of an inference node is the consensus of its output; that of an evaluator is its merit ([`crate::merit`]).
//! A positive R pays R/α of the node's slot of the fee; a negative one costs |R|/β of the task's penalty cap.

use crate::units::{Balance, Ratio, Signed};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// α and β of one role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RewardWeights {
    /// The weight of quality; above zero.
    pub alpha: Ratio,
    /// The weight of cost.
    pub beta: Ratio,
}

/// What a net reward comes to in money. At most one of the two is above zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Paid out of the fee; at most the node's slot.
    pub payout: Balance,
    /// Taken from the stake at risk; at most the penalty cap.
    pub penalty: Balance,
}

impl RewardWeights {
    /// R = α·quality − β·cost in signed parts per billion, rounded towards minus infinity. In [−β, α].
    // Both products are at most 10^18, their difference fits i64.
    #[allow(clippy::arithmetic_side_effects)]
    pub fn net(&self, quality: Ratio, cost: Ratio) -> Signed {
        let gain = self.alpha.signed() * quality.signed();
        let loss = self.beta.signed() * cost.signed();
        (gain - loss).div_euclid(i64::from(crate::units::ONE))
    }

    /// Turns a net reward into money: max(0, R)/α of `slot`, or |R|/β of `penalty_cap`. Rounded down.
    pub fn outcome(&self, net: Signed, slot: Balance, penalty_cap: Balance) -> Outcome {
        let size = u128::from(net.unsigned_abs());
        if net >= 0 {
            let share = Ratio::from_fraction(size, u128::from(self.alpha.ppb()));
            Outcome { payout: share.of(slot), penalty: 0 }
        } else {
            let share = Ratio::from_fraction(size, u128::from(self.beta.ppb()));
            Outcome { payout: 0, penalty: share.of(penalty_cap) }
        }
    }
}
