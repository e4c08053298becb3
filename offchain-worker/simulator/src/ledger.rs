//! Money: every unit is somewhere, and all accounts sum to the same after every round.
//!
//! The accounts are the contract's: escrow, the treasury, what is burned, and the requester's purse, into which refunds are
//! collected at once; stakes and rewards are in the nodes' own records. What work costs off the chain is no transfer between
//! accounts and is kept elsewhere ([`crate::economy::Entry::expense`]).

use crate::error::{Error, Result};
use poq_core::units::Balance;
use poq_core::Settlement;

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

/// All accounts that are no node's.
#[derive(Clone, Debug)]
pub struct Ledger {
    requester: Balance,
    escrow: Balance,
    treasury: Balance,
    burned: Balance,
    /// What all accounts sum to, those of nodes counted.
    total: Balance,
    round: u64,
}

impl Ledger {
    /// The accounts of a network whose nodes own `stakes`, with a requester that has `budget`.
    pub fn new(stakes: Balance, budget: Balance) -> Ledger {
        Ledger { requester: budget, escrow: 0, treasury: 0, burned: 0, total: stakes + budget, round: 0 }
    }

    /// What went to the treasury so far.
    pub fn treasury(&self) -> Balance {
        self.treasury
    }

    /// What was burned so far: slashed stakes, and what nobody earned of fees.
    pub fn burned(&self) -> Balance {
        self.burned
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

    /// Burns what a node has lost of its stake.
    pub fn slash(&mut self, amount: Balance) {
        self.burned += amount;
    }

    /// Distributes a fee as a settlement says; `paid` is what nodes have been credited with.
    ///
    /// # Errors
    /// [`Error::Overdrawn`].
    pub fn settle(&mut self, settlement: &Settlement, paid: Balance) -> Result<()> {
        let mut take = |amount| Ledger::take(self.round, &mut self.escrow, amount, "escrow");
        take(paid)?;
        self.treasury += take(settlement.treasury)?;
        self.burned += take(settlement.burned)?;
        self.requester += take(settlement.refund)?;
        Ok(())
    }

    /// Ends a round: escrow must be empty, and everything must sum to what there was. `owned` is what nodes own.
    ///
    /// # Errors
    /// [`Error::Money`] where money was made or lost.
    pub fn end_round(&mut self, owned: Balance) -> Result<()> {
        if self.escrow != 0 {
            return Err(Error::Money { round: self.round, expected: 0, found: self.escrow });
        }
        self.count(owned)?;
        self.round += 1;
        Ok(())
    }

    /// Counts every account.
    ///
    /// # Errors
    /// [`Error::Money`] where money was made or lost.
    pub fn count(&self, owned: Balance) -> Result<()> {
        let found = owned + self.requester + self.escrow + self.treasury + self.burned;
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

    fn settlement(treasury: Balance, burned: Balance, refund: Balance) -> Settlement {
        Settlement { treasury, burned, refund, ..Settlement::default() }
    }

    #[test]
    fn money_moves_and_is_conserved() {
        let mut ledger = Ledger::new(150, 1_000);
        ledger.escrow_fee(300).unwrap();
        ledger.slash(4);
        ledger.settle(&settlement(6, 10, 84), 200).unwrap();
        ledger.end_round(150 - 4 + 200).unwrap();
        assert_eq!((ledger.treasury(), ledger.burned(), ledger.requester()), (6, 14, 784));
    }

    #[test]
    fn what_is_not_there_cannot_be_taken() {
        let mut ledger = Ledger::new(5, 10);
        assert!(matches!(ledger.escrow_fee(11), Err(Error::Overdrawn { .. })));
        assert!(matches!(ledger.settle(&settlement(0, 0, 1), 0), Err(Error::Overdrawn { .. })));
    }

    #[test]
    fn money_made_or_lost_is_found() {
        let mut ledger = Ledger::new(10, 10);
        assert!(matches!(ledger.end_round(11), Err(Error::Money { expected: 20, found: 21, .. })));
        let mut ledger = Ledger::new(10, 10);
        ledger.escrow_fee(3).unwrap();
        assert!(matches!(ledger.end_round(10), Err(Error::Money { .. })));
    }
}
