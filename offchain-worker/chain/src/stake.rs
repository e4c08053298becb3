//! What taking stake out does, told before it is done: each amount leaves by itself, and waits for none that was taken out before
//! or after it.

use crate::types::{GlobalParams, Millis, NodeView, Tranche};
use poq_core::registry::Error;
use serde::{Deserialize, Serialize};

/// What a call of `unstake` would do. Amounts in the chain's smallest unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unstake {
    /// What would begin to wait.
    #[serde(with = "poq_core::units::decimal")]
    pub amount: u128,
    /// When it could be withdrawn, as block time.
    pub until: Millis,
    /// What could be withdrawn now, whatever is taken out.
    #[serde(with = "poq_core::units::decimal")]
    pub withdrawable: u128,
    /// All that would be on its way out, each amount with its time, the earliest first.
    pub tranches: Vec<Tranche>,
}

impl Unstake {
    /// Of `amount` more of a node's stake at block time `now`.
    ///
    /// # Errors
    /// `Amount` for nothing, or more than is bonded.
    pub fn of(node: &NodeView, global: &GlobalParams, amount: u128, now: Millis) -> Result<Unstake, Error> {
        let mut stake = node.node.stake;
        let withdrawable = stake.withdrawable(now);
        let until = stake.unstake(amount, now, global.unbonding_ms)?;
        let mut tranches: Vec<Tranche> =
            stake.tranches.into_iter().filter(|tranche| tranche.amount > 0).collect();
        tranches.sort_by_key(|tranche| tranche.until);
        Ok(Unstake { amount, until, withdrawable, tranches })
    }
}
