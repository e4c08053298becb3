//! What happened, with every number. Shares move by PSP22's `Transfer`; beside it each event has its signature as its only topic.

use ink::primitives::AccountId;
use poq_core::pool::{EraId, Rules, Stage, Terms};
use poq_core::units::{Balance, Millis, NodeId};

/// Emitted when a pool was made and its node registered.
#[ink::event]
pub struct PoolCreated {
    /// The contract that the node is in.
    pub poq: AccountId,
    /// The node's number there.
    pub node: NodeId,
    /// Who runs the pool.
    pub manager: AccountId,
    /// The manager's bond.
    pub bond: Balance,
    /// What is promised for ever.
    pub rules: Rules,
    /// The first terms.
    pub terms: Terms,
}

/// Emitted when a sync found slashes or rewards.
#[ink::event]
pub struct Accounted {
    /// What slashes took from the bond.
    pub bond_slashed: Balance,
    /// What they took from the shares.
    pub shares_slashed: Balance,
    /// What they took from exits that wait.
    pub exits_slashed: Balance,
    /// What of rewards became commission.
    pub commission: Balance,
    /// What became the bond's.
    pub bond_earned: Balance,
    /// What became the shares' (it vests).
    pub shares_earned: Balance,
    /// Whether the exits that waited were written off.
    pub written_off: bool,
}

/// Emitted when a deposit was taken.
#[ink::event]
pub struct Deposited {
    /// Who put it in.
    pub account: AccountId,
    /// How much.
    pub amount: Balance,
    /// The shares minted for it.
    pub shares: Balance,
}

/// Emitted when shares were exited.
#[ink::event]
pub struct ExitRequested {
    /// Whose.
    pub account: AccountId,
    /// How many shares were burned.
    pub shares: Balance,
    /// What they were worth: the most that will be paid.
    pub value: Balance,
    /// The era that they are paid with; 0 if they were paid at once, by a closed pool.
    pub era: EraId,
}

/// Emitted when stake was unstaked, an era with exits ended, or both.
#[ink::event]
pub struct EraEnded {
    /// The era; 0 where stake was unstaked for exits of earlier ones.
    pub era: EraId,
    /// How much was unstaked.
    pub unstaked: Balance,
    /// When its exits can be paid.
    pub ends: Millis,
}

/// Emitted when an ended era's exits became fixed: they can be claimed.
#[ink::event]
pub struct EraPaid {
    /// The era.
    pub era: EraId,
    /// What all its exits are paid.
    pub pot: Balance,
}

/// Emitted when an account was paid what its exits gave.
#[ink::event]
pub struct ExitPaid {
    /// Whom.
    pub account: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when the manager added to its bond.
#[ink::event]
pub struct BondAdded {
    /// How much.
    pub amount: Balance,
}

/// Emitted when the manager was paid its commission, and the bond with the last one.
#[ink::event]
pub struct ManagerPaid {
    /// To whom: the manager.
    pub to: AccountId,
    /// How much.
    pub amount: Balance,
}

/// Emitted when terms were announced.
#[ink::event]
pub struct TermsAnnounced {
    /// The terms.
    pub terms: Terms,
    /// When they begin.
    pub from: Millis,
}

/// Emitted when the pool began to close, and when it was closed.
#[ink::event]
pub struct StageChanged {
    /// What it does now.
    pub stage: Stage,
}

/// Emitted when the manager proposed another account in its place (or took that back), and when that one accepted.
#[ink::event]
pub struct ManagerChanged {
    /// The manager.
    pub manager: AccountId,
    /// Who may accept.
    pub proposed: Option<AccountId>,
}
