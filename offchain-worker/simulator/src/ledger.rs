//! Money: every unit is somewhere, and all accounts sum to the same after every round.
//!
//! The accounts are the contract's: stakes (free and locked), escrow, claimable rewards, the treasury, and the requester's
//! purse, into which refunds are collected at once. What work costs off the chain is no transfer between accounts and is
//! kept elsewhere ([`crate::economy::Entry::expense`]).

use crate::error::{Error, Result};
use poq_core::units::Balance;

/// What a node owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Stake that is not locked.
    pub free: Balance,
    /// Stake at risk in open tasks.
    pub locked: Balance,
    /// Rewards.
    pub claimable: Balance,
}

impl Purse {
    /// What its draw weight is made of.
    pub const fn bonded(&self) -> Balance {
        self.free.saturating_add(self.locked)
    }
}

/// All accounts.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// By node.
    purses: Vec<Purse>,
    requester: Balance,
    escrow: Balance,
    treasury: Balance,
    /// What they all sum to.
    total: Balance,
    round: u64,
}

/// Up to this many nodes every purse is counted after every round; above it, whenever as many rounds have passed that it
/// comes to this many purses a round.
const COUNT: usize = 1 << 10;

impl Ledger {
    /// Accounts of nodes with these stakes and a requester with `budget`.
    pub fn new(stakes: impl IntoIterator<Item = Balance>, budget: Balance) -> Ledger {
        let purses: Vec<Purse> = stakes.into_iter().map(|free| Purse { free, ..Purse::default() }).collect();
        let total = purses.iter().map(|p| p.free).sum::<Balance>() + budget;
        Ledger { purses, requester: budget, escrow: 0, treasury: 0, total, round: 0 }
    }

    /// A node's purse.
    pub fn purse(&self, node: usize) -> Purse {
        self.purses[node]
    }

    /// What went to the treasury so far.
    pub fn treasury(&self) -> Balance {
        self.treasury
    }

    /// What the requester has left.
    pub fn requester(&self) -> Balance {
        self.requester
    }

    /// What is in escrow.
    pub fn escrow(&self) -> Balance {
        self.escrow
    }

    fn take(round: u64, from: &mut Balance, amount: Balance, what: &'static str) -> Result<Balance> {
        *from = from.checked_sub(amount).ok_or(Error::Overdrawn { round, what })?;
        Ok(amount)
    }

    /// The requester pays a fee into escrow.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn escrow_fee(&mut self, fee: Balance) -> Result<()> {
        self.escrow += Ledger::take(self.round, &mut self.requester, fee, "the requester's purse")?;
        Ok(())
    }

    /// Locks a node's stake at risk.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn lock(&mut self, node: usize, at_risk: Balance) -> Result<()> {
        let purse = &mut self.purses[node];
        purse.locked += Ledger::take(self.round, &mut purse.free, at_risk, "a node's free stake")?;
        Ok(())
    }

    /// Unlocks a node's stake at risk, less what it lost, which goes to the treasury.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn release(&mut self, node: usize, at_risk: Balance, slashed: Balance) -> Result<()> {
        let purse = &mut self.purses[node];
        let mut back = Ledger::take(self.round, &mut purse.locked, at_risk, "a node's locked stake")?;
        self.treasury += Ledger::take(self.round, &mut back, slashed, "a node's stake at risk")?;
        purse.free += back;
        Ok(())
    }

    /// Credits a reward out of escrow.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn reward(&mut self, node: usize, payout: Balance) -> Result<()> {
        self.purses[node].claimable += Ledger::take(self.round, &mut self.escrow, payout, "escrow")?;
        Ok(())
    }

    /// Takes the treasury's part out of escrow.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn levy(&mut self, amount: Balance) -> Result<()> {
        self.treasury += Ledger::take(self.round, &mut self.escrow, amount, "escrow")?;
        Ok(())
    }

    /// Gives the requester back what is left of its fee.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn refund(&mut self, amount: Balance) -> Result<()> {
        self.requester += Ledger::take(self.round, &mut self.escrow, amount, "escrow")?;
        Ok(())
    }

    /// Ends a round: escrow must be empty, and everything must sum to what there was. With up to 1,024 nodes every
    /// purse is counted every time; with more, in turns that come to as much work.
    ///
    /// # Errors
    /// [`Error::Money`] where money was made or lost.
    pub fn end_round(&mut self) -> Result<()> {
        let every = self.purses.len().div_ceil(COUNT).max(1) as u64;
        if self.escrow != 0 {
            return Err(Error::Money { round: self.round, expected: 0, found: self.escrow });
        }
        if self.round.is_multiple_of(every) {
            self.count()?;
        }
        self.round += 1;
        Ok(())
    }

    /// Counts every account.
    ///
    /// # Errors
    /// [`Error::Money`] where money was made or lost.
    pub fn count(&self) -> Result<()> {
        let nodes: Balance = self.purses.iter().map(|p| p.free + p.locked + p.claimable).sum();
        let found = nodes + self.requester + self.escrow + self.treasury;
        if found == self.total {
            Ok(())
        } else {
            Err(Error::Money { round: self.round, expected: self.total, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_moves_and_is_conserved() {
        let mut ledger = Ledger::new([100, 50], 1_000);
        ledger.escrow_fee(300).unwrap();
        ledger.lock(0, 10).unwrap();
        ledger.release(0, 10, 4).unwrap();
        ledger.reward(1, 200).unwrap();
        ledger.levy(6).unwrap();
        ledger.refund(94).unwrap();
        ledger.end_round().unwrap();
        assert_eq!(ledger.purse(0), Purse { free: 96, locked: 0, claimable: 0 });
        assert_eq!(ledger.purse(1).claimable, 200);
        assert_eq!((ledger.treasury(), ledger.requester(), ledger.escrow()), (10, 794, 0));
    }

    #[test]
    fn what_is_not_there_cannot_be_taken() {
        let mut ledger = Ledger::new([5], 10);
        assert!(matches!(ledger.escrow_fee(11), Err(Error::Overdrawn { .. })));
        assert!(matches!(ledger.lock(0, 6), Err(Error::Overdrawn { .. })));
        assert!(matches!(ledger.reward(0, 1), Err(Error::Overdrawn { .. })));
        ledger.lock(0, 5).unwrap();
        assert!(matches!(ledger.release(0, 5, 6), Err(Error::Overdrawn { .. })));
    }

    #[test]
    fn money_made_or_lost_is_found() {
        let mut ledger = Ledger::new([5, 5], 10);
        ledger.purses[1].claimable += 1;
        assert!(matches!(ledger.end_round(), Err(Error::Money { expected: 20, found: 21, .. })));
        let mut ledger = Ledger::new([5, 5], 10);
        ledger.escrow_fee(3).unwrap();
        assert!(matches!(ledger.end_round(), Err(Error::Money { .. })));
    }
}
