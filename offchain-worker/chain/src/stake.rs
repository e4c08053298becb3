//! What taking stake out does, told before it is done: the contract keeps one amount and one time per node, so each further
//! amount makes all earlier ones wait again.

use crate::types::{GlobalParams, Millis, NodeView};
use serde::{Deserialize, Serialize};

/// What a call of `unstake` would do. Amounts in the chain's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unstake {
    /// What would begin to wait.
    pub amount: u128,
    /// What waits already, and would wait again from the beginning.
    pub waiting: u128,
    /// What could be withdrawn now, and would have to wait again.
    pub ready: u128,
    /// When all of it could be withdrawn, as block time.
    pub unbonds_at: Millis,
    /// When what waits already could be withdrawn, if nothing were added to it.
    pub earlier: Option<Millis>,
}

impl Unstake {
    /// Of `amount` more of a node's stake at block time `now`.
    pub fn of(node: &NodeView, global: &GlobalParams, amount: u128, now: Millis) -> Unstake {
        let (unbonding, unbonds_at) = (node.node.unbonding, node.node.unbonds_at);
        // As `withdraw_unbonded` has it.
        let ready = unbonding > 0 && now >= unbonds_at;
        Unstake {
            amount,
            waiting: if ready { 0 } else { unbonding },
            ready: if ready { unbonding } else { 0 },
            unbonds_at: now.saturating_add(global.unbonding_ms),
            earlier: (unbonding > 0 && !ready).then_some(unbonds_at),
        }
    }

    /// What its owner should know before it is sent, if anything. Amounts and times as the caller writes them.
    pub fn warning(
        &self,
        amount: impl Fn(u128) -> String,
        time: impl Fn(Millis) -> String,
    ) -> Option<String> {
        if self.ready > 0 {
            return Some(format!(
                "{} that can be withdrawn now would have to wait again until {}: withdraw it first",
                amount(self.ready),
                time(self.unbonds_at)
            ));
        }
        let earlier = self.earlier?;
        Some(format!(
            "{} that already waits, and could be withdrawn after {}, would wait again from the beginning: all {} could be withdrawn \
             after {}",
            amount(self.waiting),
            time(earlier),
            amount(self.waiting.saturating_add(self.amount)),
            time(self.unbonds_at)
        ))
    }
}
