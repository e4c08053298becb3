//! A node's stake: bonded, on its way out, at risk.
//!
//! What is at risk is a claim on the whole (bonded and on its way out) and moves nothing, so a duty taken on or laid down never
//! changes when a withdrawal is due. What leaves goes into tranches that end on a grid: a later one never moves an earlier one,
//! and nobody but the owner adds to any.

use super::Error;
use crate::units::{Balance, Millis};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How many tranches there are: four steps of the grid fit the unbonding period, five ends can lie ahead, one may be over.
pub const TRANCHES: usize = 6;
/// Steps of the tranches' grid in an unbonding period.
const STEPS: Millis = 4;

/// Stake on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tranche {
    /// How much; zero for a free slot.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub amount: Balance,
    /// When it can be withdrawn: at this block timestamp and later.
    pub until: Millis,
}

/// A node's stake. Of constant size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stake {
    /// What counts in draws.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub bonded: Balance,
    /// What is at risk in open tasks, out of all there is. Never above [`Stake::total`].
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub locked: Balance,
    /// What is on its way out.
    pub tranches: [Tranche; TRANCHES],
}

impl Stake {
    /// What is on its way out.
    pub fn unbonding(&self) -> Balance {
        self.tranches.iter().fold(0, |sum, tranche| sum.saturating_add(tranche.amount))
    }

    /// All of it: what a slash can reach.
    pub fn total(&self) -> Balance {
        self.bonded.saturating_add(self.unbonding())
    }

    /// What another task can put at risk.
    pub fn lockable(&self) -> Balance {
        self.total().saturating_sub(self.locked)
    }

    /// Adds to what is bonded.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn stake(&mut self, amount: Balance) -> Result<(), Error> {
        self.total().checked_add(amount).ok_or(Error::Overflow)?;
        self.bonded = self.bonded.checked_add(amount).ok_or(Error::Overflow)?;
        Ok(())
    }

    /// Sends part of what is bonded on its way out; when it can be withdrawn: `unbonding_ms` from now, rounded up to a quarter of
    /// it. At risk or not: what is at risk stays so.
    ///
    /// # Errors
    /// `Amount` for nothing, or more than is bonded.
    pub fn unstake(&mut self, amount: Balance, now: Millis, unbonding_ms: Millis) -> Result<Millis, Error> {
        if amount == 0 {
            return Err(Error::Amount);
        }
        let bonded = self.bonded.checked_sub(amount).ok_or(Error::Amount)?;
        let step = unbonding_ms.checked_div(STEPS).unwrap_or(0).max(1);
        let until = now.saturating_add(unbonding_ms).div_ceil(step).saturating_mul(step);
        let tranche = self.tranche(now, until).ok_or(Error::Overflow)?;
        tranche.amount = tranche.amount.checked_add(amount).ok_or(Error::Overflow)?;
        tranche.until = tranche.until.max(until);
        let until = tranche.until;
        self.bonded = bonded;
        Ok(until)
    }

    /// The tranche that ends at `until`: that one, a free one, or one won by joining those that are over. Only where the
    /// unbonding period was changed in between can there be none left; then it is the last one, and ends when the later ends.
    fn tranche(&mut self, now: Millis, until: Millis) -> Option<&mut Tranche> {
        let is = |tranche: &Tranche| tranche.amount > 0 && tranche.until == until;
        if !self.tranches.iter().any(is) && self.tranches.iter().all(|tranche| tranche.amount > 0) {
            let mut over = Tranche::default();
            for tranche in self.tranches.iter_mut().filter(|tranche| tranche.until <= now) {
                over.amount = over.amount.saturating_add(tranche.amount);
                over.until = over.until.max(tranche.until);
                *tranche = Tranche::default();
            }
            if let Some(free) = self.tranches.iter_mut().find(|tranche| tranche.amount == 0) {
                *free = over;
            }
        }
        let at = self
            .tranches
            .iter()
            .position(is)
            .or_else(|| self.tranches.iter().position(|tranche| tranche.amount == 0))
            .or_else(|| (0..TRANCHES).max_by_key(|at| self.tranches.get(*at).map(|tranche| tranche.until)))?;
        let tranche = self.tranches.get_mut(at)?;
        if tranche.amount == 0 {
            tranche.until = 0;
        }
        Some(tranche)
    }

    /// What can be withdrawn now: the tranches that are over, but never what open tasks have at risk. Where stakes at risk are at
    /// most `stake_min`/`MAX_OPEN` and the unbonding period is longer than two epochs and a task's life, no task ever holds a
    /// tranche up: who still is drawn has as much bonded as can be at risk.
    pub fn withdrawable(&self, now: Millis) -> Balance {
        let over = self.tranches.iter().filter(|tranche| tranche.until <= now);
        over.fold(0, |sum: Balance, tranche| sum.saturating_add(tranche.amount)).min(self.lockable())
    }

    /// Takes out what can be withdrawn now.
    pub fn withdraw(&mut self, now: Millis) -> Balance {
        let amount = self.withdrawable(now);
        let mut rest = amount;
        for tranche in self.tranches.iter_mut().filter(|tranche| tranche.until <= now) {
            let taken = tranche.amount.min(rest);
            tranche.amount = tranche.amount.saturating_sub(taken);
            rest = rest.saturating_sub(taken);
        }
        amount
    }

    /// Puts an amount at risk.
    ///
    /// # Errors
    /// `Amount` where there is not so much left.
    pub fn lock(&mut self, at_risk: Balance) -> Result<(), Error> {
        if at_risk > self.lockable() {
            return Err(Error::Amount);
        }
        self.locked = self.locked.checked_add(at_risk).ok_or(Error::Overflow)?;
        Ok(())
    }

    /// Ends a task's claim of `at_risk`, and takes `slashed` of it: from what is bonded, then from what leaves last.
    ///
    /// # Errors
    /// `Amount` where more is to be taken than was at risk, or more was at risk than is locked.
    pub fn release(&mut self, at_risk: Balance, slashed: Balance) -> Result<(), Error> {
        if slashed > at_risk {
            return Err(Error::Amount);
        }
        self.locked = self.locked.checked_sub(at_risk).ok_or(Error::Amount)?;
        let bonded = self.bonded.min(slashed);
        self.bonded = self.bonded.saturating_sub(bonded);
        let mut rest = slashed.saturating_sub(bonded);
        while rest > 0 {
            let last = self.tranches.iter_mut().filter(|tranche| tranche.amount > 0).max_by_key(|t| t.until);
            let tranche = last.ok_or(Error::Amount)?;
            let taken = tranche.amount.min(rest);
            tranche.amount = tranche.amount.saturating_sub(taken);
            rest = rest.saturating_sub(taken);
        }
        Ok(())
    }
}
