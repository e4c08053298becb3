//! Movements of accounts' money.

use super::Id;
use poq_chain::types::{Balance, NodeId, TaskId};

/// A movement of an account's money, or something that it earned or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub account: Id,
    /// The block.
    pub block: u32,
    /// The event within it.
    pub index: u32,
    /// The movement within the event.
    pub part: u32,
    /// The block's time.
    pub at: u64,
    /// What it was: one of [`WHATS`].
    pub what: &'static str,
    /// How much.
    pub amount: Balance,
    /// The node that it was about.
    pub node: Option<NodeId>,
    /// The task.
    pub task: Option<TaskId>,
    /// The pool.
    pub pool: Option<Id>,
}

/// Every kind of movement: its name, what it did to the account's balance on the chain (1 in, −1 out, 0 nothing yet), and what it is.
pub const WHATS: &[(&str, i8, &str)] = &[
    ("fee", -1, "a task's fee, into escrow"),
    ("refund", 1, "what came back of a fee"),
    ("reward", 0, "earned by a node of the account, claimable"),
    ("claim", 1, "rewards paid out"),
    ("keeper_fee", 0, "earned by a step, as credit"),
    ("withdrawal", 1, "credit paid out"),
    ("stake", -1, "stake put in"),
    ("unstake", 0, "stake sent on its way out"),
    ("stake_returned", 1, "stake taken out"),
    ("slash", 0, "stake lost"),
    ("bond", -1, "an auditor's bond put in"),
    ("bond_returned", 1, "an auditor's bond paid back"),
    ("bond_slashed", 0, "an auditor's bond lost"),
    ("pool_deposit", -1, "deposited in a pool"),
    ("pool_exit", 0, "shares of a pool exited, at their worth then"),
    ("pool_paid", 1, "exits paid by a pool"),
    ("pool_bond", -1, "a pool manager's bond put in"),
    ("pool_manager_paid", 1, "commission and bond paid to a pool's manager"),
    ("shares_in", 0, "shares of a pool received from another account"),
    ("shares_out", 0, "shares of a pool sent to another account"),
    ("treasury", 1, "paid out of the treasury"),
];

/// What a movement did to the account's balance on the chain: 1 in, −1 out, 0 nothing.
pub fn cash(what: &str) -> i8 {
    WHATS.iter().find(|(name, _, _)| *name == what).map_or(0, |(_, sign, _)| *sign)
}
