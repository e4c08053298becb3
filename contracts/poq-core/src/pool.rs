//! The books of a staking pool: whose every planck is that a pool contract has staked, waits for or holds.
//!
//! A pool owns one node. Whoever runs it, its *manager*, puts in a *bond*, which stays until the pool is closed and is the first to
//! lose. Others deposit, and get *shares* (a token). Rewards, less a commission, belong to bond and shares in proportion. An exit turns
//! shares into a place in a queue that earns nothing more, stays at risk while the stake behind it unbonds, and is then paid.
//!
//! Every function takes records and returns records, with the money that has to move; what is refused has changed nothing. Nothing
//! here asks what a contract's account holds: money counts when it came in by a message, so a gift to the account is nobody's.
//!
//! # Where the money is, and whose it is
//!
//! ```text
//! cash + staked + unbonding = due + fees + bond + active + vesting + exiting      after every function (`Ledger::is_balanced`)
//! cash ≥ due + fees                                                               what is promised is there (`Ledger::idle`)
//! ```
//!
//! # Rounding
//!
//! | what | rounds | who has the remainder |
//! |---|---|---|
//! | shares of a deposit | down | all shares |
//! | value of an exit | down | the shares that stay; of the last one, the bond |
//! | commission | down | bond and shares |
//! | the bond's part of income | down | shares |
//! | what exits lose of a slash | down | shares lose it |
//! | an exit's points, an era's pot | down | the exits that wait |
//! | an exit's part of the pot | down | shares, when the era's last exit is paid |
//!
//! # Sources
//!
//! Shares with virtual shares and assets: ERC-4626 as OpenZeppelin Contracts 5 implements it (`_convertToShares` with a decimals offset
//! of 6). Income that vests, a longer time for more of it: Yearn V3 vaults (`_process_report`, profit unlocking). Exits that leave the
//! earning part at once and share slashes until they are paid: `pallet-nomination-pools` (`SubPools`), with one index for all eras in
//! place of a loop over them.

use crate::units::{mul_div, Balance, Millis, Ratio};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Shares that nobody has, beside [`VIRTUAL_ASSETS`] that nobody put in: a first depositor cannot inflate the price of a share so that
/// the next one's deposit rounds to nothing. Their ratio is the first price: a planck buys a million shares.
pub const VIRTUAL_SHARES: Balance = 1_000_000;
/// See [`VIRTUAL_SHARES`], in planck.
pub const VIRTUAL_ASSETS: Balance = 1;
/// How many more decimals a share has than the chain's token.
pub const SHARE_DECIMALS: u8 = 6;
/// A pool whose shares are worth less than one part in so many of their first price takes no deposits.
pub const WIPED_OUT: Balance = 1_000;
/// Exits that slashes left less than one part in so many are written off: their points would grow beyond any number.
pub const WORTHLESS: Balance = 1_000_000_000;
/// In how many eras one account can have exits that it has not been paid.
pub const MAX_EXITS: usize = 16;
/// The longest era and the longest exit time: 90 days, in milliseconds.
pub const LONGEST_MS: Millis = 90 * 24 * 60 * 60 * 1_000;
/// No change of terms is pending.
pub const NEVER: Millis = Millis::MAX;

/// An era's number; they count up from 1. An era is the time between two unstakes; only eras with exits are counted.
pub type EraId = u32;

/// What is promised for ever when a pool is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rules {
    /// The highest commission that can ever be announced.
    pub commission_max: Ratio,
    /// The least part of the whole (bond, shares and the new deposit) that the bond must be for a deposit to be taken.
    pub first_loss: Ratio,
    /// The least time between two unstakes, and the time over which income vests. At least an epoch of the node's contract.
    pub era_ms: Millis,
    /// How long an exit stays at risk after its era has ended. At least the unbonding time of the node's contract.
    pub exit_ms: Millis,
}

impl Rules {
    /// How long before it acts a change of terms is announced: who does not want it can exit under the old ones.
    pub fn notice_ms(&self) -> Millis {
        self.era_ms.saturating_add(self.exit_ms)
    }

    /// Checks the rules against the epoch and the unbonding time of the contract that the node is in.
    ///
    /// # Errors
    /// `BadRules` for an era shorter than the epoch, an exit shorter than the unbonding, either longer than [`LONGEST_MS`], or no first
    /// loss.
    pub fn check(&self, epoch_ms: Millis, unbonding_ms: Millis) -> Result<()> {
        let within = |ms: Millis, least: Millis| ms > 0 && ms >= least && ms <= LONGEST_MS;
        if within(self.era_ms, epoch_ms)
            && within(self.exit_ms, unbonding_ms)
            && self.first_loss > Ratio::ZERO
        {
            Ok(())
        } else {
            Err(PoolError::BadRules)
        }
    }
}

/// What a manager may change, announced [`Rules::notice_ms`] ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Terms {
    /// The manager's part of rewards.
    pub commission: Ratio,
    /// The most that bond and shares may come to with a deposit, in planck: what a node has above its kind's `stake_cap` earns nothing.
    pub capacity: Balance,
}

/// What a pool does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stage {
    /// Takes deposits.
    Open,
    /// Takes no deposits; all stake is on its way out.
    Closing,
    /// Its node is gone and all it has is cash: shares, and the bond, are paid at once.
    Closed,
}

/// Why a pool refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
pub enum PoolError {
    /// Returned for a deposit, a bond or a change of terms when the pool is closing or closed.
    Closing,
    /// Returned if the pool still has stake that it waits for.
    NotClosed,
    /// Returned for an amount of nothing, or one that is worth no share.
    NoAmount,
    /// Returned for more shares than there are.
    NotEnoughShares,
    /// Returned for a deposit when slashes have left next to nothing of the shares: it would pay for what others lost.
    WipedOut,
    /// Returned for a deposit above the terms' capacity.
    OverCapacity,
    /// Returned for a deposit for which the bond is too small to be the first to lose.
    TooLittleBond,
    /// Returned if the account has exits in as many eras as it may have: claim first.
    TooManyExits,
    /// Returned for a commission above what was promised as the highest.
    BadTerms,
    /// Returned for rules that the node's contract does not allow.
    BadRules,
    /// Returned if an amount would overflow. Nobody has that much money.
    Overflow,
}

impl core::fmt::Display for PoolError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Texts are for the tools, not for the chain: without `std` they would only cost code.
        #[cfg(feature = "std")]
        f.write_str(match self {
            PoolError::Closing => "the pool is closing: it takes no deposits, and its terms stay as they are",
            PoolError::NotClosed => "the pool still waits for stake; the bond is paid when it is closed",
            PoolError::NoAmount => "the amount is nothing, or worth less than one share",
            PoolError::NotEnoughShares => "there are not that many shares",
            PoolError::WipedOut => "slashes have left next to nothing of this pool's shares: it takes no deposits any more",
            PoolError::OverCapacity => "the pool would be above its capacity; `poq pool show` tells how much it still takes",
            PoolError::TooLittleBond => {
                "the manager's bond is too small a part of the pool to be the first to lose; it takes deposits again when the bond has grown"
            }
            PoolError::TooManyExits => "the account has exits in 16 eras that were not paid yet: claim those that are ready",
            PoolError::BadTerms => "the commission is above the highest that the pool promised",
            PoolError::BadRules => {
                "an era must last at least the contract's epoch, an exit at least its unbonding time, both at most 90 days, and the \
                 bond must have a part in the first loss"
            }
            PoolError::Overflow => "an amount would overflow",
        })?;
        #[cfg(not(feature = "std"))]
        let _ = f;
        Ok(())
    }
}

impl core::error::Error for PoolError {}

type Result<T> = core::result::Result<T, PoolError>;

/// What the node's contract says of the node, after what it paid out in the same message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Stake that is not on its way out.
    pub staked: Balance,
    /// Stake on its way out.
    pub unbonding: Balance,
    /// Unbonded stake that it just paid.
    pub withdrawn: Balance,
    /// Rewards that it just paid.
    pub claimed: Balance,
}

/// What a sync found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Synced {
    /// Stake that is gone: what it took from the bond, …
    pub bond_slashed: Balance,
    /// … from the shares, …
    pub shares_slashed: Balance,
    /// … and from the exits that wait.
    pub exits_slashed: Balance,
    /// Income: what became commission, …
    pub commission: Balance,
    /// … what the bond's, …
    pub bond_earned: Balance,
    /// … and what the shares' (it vests).
    pub shares_earned: Balance,
    /// Whether the exits that waited were written off.
    pub written_off: bool,
}

/// An era's exits. Of constant size; made by its first exit, gone with the payment of its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Era {
    /// Points of its exits.
    pub points: Balance,
    /// Those of them that have not been paid.
    pub unclaimed: Balance,
    /// What it is paid, once it is; in planck.
    pub pot: Balance,
    /// What of that has not been paid out.
    pub rest: Balance,
    /// When it can be paid; 0 while it is open.
    pub ends: Millis,
}

impl Era {
    /// What an exit of so many points is paid of the pot.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn part(&self, points: Balance) -> Result<Balance> {
        if self.pot == 0 {
            return Ok(0);
        }
        mul_div(self.pot, points, self.points).ok_or(PoolError::Overflow)
    }
}

/// An account's exits: era and points, 0 points for none. Of constant size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
pub struct Exits(pub [(EraId, Balance); MAX_EXITS]);

impl Exits {
    /// Adds an exit's points.
    ///
    /// # Errors
    /// `TooManyExits`, `Overflow`.
    pub fn add(mut self, era: EraId, points: Balance) -> Result<Exits> {
        let same = self.0.iter().position(|(other, points)| *points > 0 && *other == era);
        let free = same.or_else(|| self.0.iter().position(|(_, points)| *points == 0));
        let slot = free.and_then(|index| self.0.get_mut(index)).ok_or(PoolError::TooManyExits)?;
        *slot = (era, if same.is_some() { add(slot.1, points)? } else { points });
        Ok(self)
    }

    /// Takes out one exit that belongs to an era before `oldest`: its era and points.
    pub fn take_ready(&mut self, oldest: EraId) -> Option<(EraId, Balance)> {
        let slot = self.0.iter_mut().find(|(era, points)| *points > 0 && *era < oldest)?;
        Some(core::mem::take(slot))
    }

    /// The exits that there are.
    pub fn iter(&self) -> impl Iterator<Item = (EraId, Balance)> + '_ {
        self.0.iter().copied().filter(|(_, points)| *points > 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// What an exit gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exited {
    /// What the shares were worth, in planck: the most that will be paid for them, but for a planck's part that other exits round off.
    pub value: Balance,
    /// Points in the open era; 0 where [`Exited::value`] is to be paid at once, from a closed pool, or is nothing.
    pub points: Balance,
}

/// A pool's books, in planck unless it says otherwise. Of constant size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ledger {
    /// What the pool does.
    pub stage: Stage,
    /// Money in the pool's account that came in by a message and has not gone out.
    pub cash: Balance,
    /// The node's stake that is not on its way out, as last seen.
    pub staked: Balance,
    /// The node's stake on its way out, as last seen.
    pub unbonding: Balance,
    /// The manager's bond: the first to lose, there until the pool is closed.
    pub bond: Balance,
    /// Commission that the manager has not collected.
    pub fees: Balance,
    /// What the shares can be exited for.
    pub active: Balance,
    /// Income of the shares that is not theirs yet: it becomes `active` with time, evenly until `vests_at`.
    pub vesting: Balance,
    /// What exits that wait are worth.
    pub exiting: Balance,
    /// What exits were paid that nobody has claimed: fixed, beyond any slash.
    pub due: Balance,
    /// Points of the exits that wait. A point is worth `exiting / points`: at the most a planck, and never more than before but for what
    /// rounding leaves.
    pub points: Balance,
    /// When the books were last brought up to date.
    pub synced_at: Millis,
    /// When all income will have vested.
    pub vests_at: Millis,
    /// The open era.
    pub era: EraId,
    /// The time of the last unstake, or of the end of the last era.
    pub era_from: Millis,
    /// The oldest era that has not been paid. Exits of earlier ones can be claimed.
    pub oldest: EraId,
    /// The terms as of `synced_at`.
    pub terms: Terms,
    /// The terms that were announced.
    pub next: Terms,
    /// When they act; [`NEVER`] where there are none.
    pub next_from: Millis,
}

impl Ledger {
    /// The books of a pool that has just staked its manager's bond.
    ///
    /// # Errors
    /// `NoAmount` without a bond; `BadTerms`.
    pub fn new(bond: Balance, terms: Terms, now: Millis, rules: &Rules) -> Result<Ledger> {
        if bond == 0 {
            return Err(PoolError::NoAmount);
        }
        if terms.commission > rules.commission_max {
            return Err(PoolError::BadTerms);
        }
        Ok(Ledger {
            stage: Stage::Open,
            cash: 0,
            staked: bond,
            unbonding: 0,
            bond,
            fees: 0,
            active: 0,
            vesting: 0,
            exiting: 0,
            due: 0,
            points: 0,
            synced_at: now,
            vests_at: now,
            era: 1,
            era_from: now,
            oldest: 1,
            terms,
            next: terms,
            next_from: NEVER,
        })
    }

    /// Whether all that there is belongs to somebody and all that belongs to somebody is there, and what is promised is cash.
    pub fn is_balanced(&self) -> bool {
        let there = [self.cash, self.staked, self.unbonding];
        let owed = [self.due, self.fees, self.bond, self.active, self.vesting, self.exiting];
        let sum = |parts: &[Balance]| parts.iter().try_fold(0u128, |sum, part| sum.checked_add(*part));
        sum(&there).is_some() && sum(&there) == sum(&owed) && self.idle().is_ok()
    }

    /// Cash that is not promised to anybody at once: it pays exits when they are ready, or is staked.
    ///
    /// # Errors
    /// `Overflow` if there is less than what is promised, which no function here leads to.
    pub fn idle(&self) -> Result<Balance> {
        sub(self.cash, add(self.due, self.fees)?)
    }

    /// Idle cash that exits will not need: to be staked. Nothing in a pool that is closing.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn spare(&self) -> Result<Balance> {
        let needed = self.exiting.saturating_sub(self.unbonding);
        Ok(if self.stage == Stage::Open { self.idle()?.saturating_sub(needed) } else { 0 })
    }

    /// The terms in force.
    pub fn terms_at(&self, now: Millis) -> Terms {
        if now >= self.next_from {
            self.next
        } else {
            self.terms
        }
    }

    /// What so many shares of `supply` would be exited for.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn value_of(&self, shares: Balance, supply: Balance) -> Result<Balance> {
        // With shares ≤ supply: shares · (active + 1) / (supply + 10⁶) < active + 1, hence at most `active` rounded down.
        mul_div(shares, add(self.active, VIRTUAL_ASSETS)?, add(supply, VIRTUAL_SHARES)?)
            .ok_or(PoolError::Overflow)
    }

    /// What so many points of an era that has not been paid are worth now.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn value_of_points(&self, points: Balance) -> Result<Balance> {
        if self.points == 0 {
            return Ok(0);
        }
        mul_div(points, self.exiting, self.points).ok_or(PoolError::Overflow)
    }

    /// Brings the books up to date: income vests, slashes are shared out, rewards are booked, announced terms begin. To be called
    /// first in every message.
    ///
    /// A slash takes the bond first; then exits that wait and shares in proportion, of these first what has not vested. A reward is
    /// charged the lower of the commissions at the last sync and now: no change of terms reaches back.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn sync(
        mut self,
        supply: Balance,
        seen: Seen,
        now: Millis,
        rules: &Rules,
    ) -> Result<(Ledger, Synced)> {
        let mut synced = Synced::default();
        self.vest(now)?;

        let before = add(self.staked, self.unbonding)?;
        let after = add(add(seen.staked, seen.unbonding)?, seen.withdrawn)?;
        self.cash = add(self.cash, add(seen.withdrawn, seen.claimed)?)?;
        (self.staked, self.unbonding) = (seen.staked, seen.unbonding);
        self.slash(before.saturating_sub(after), supply, now, &mut synced)?;

        let commission = self.terms.commission.min(self.terms_at(now).commission).of(seen.claimed);
        self.fees = add(self.fees, commission)?;
        // Stake that nobody here put in is income too; its commission would not be there in cash.
        let income = add(seen.claimed, after.saturating_sub(before))?;
        self.earn(sub(income, commission)?, supply, now, rules, &mut synced)?;
        synced.commission = commission;

        if now >= self.next_from {
            (self.terms, self.next_from) = (self.next, NEVER);
        }
        self.synced_at = now.max(self.synced_at);
        Ok((self, synced))
    }

    fn vest(&mut self, now: Millis) -> Result<()> {
        let vested = if now >= self.vests_at {
            self.vesting
        } else {
            let (passed, whole) =
                (now.saturating_sub(self.synced_at), self.vests_at.saturating_sub(self.synced_at));
            mul_div(self.vesting, u128::from(passed), u128::from(whole)).ok_or(PoolError::Overflow)?
        };
        self.vesting = sub(self.vesting, vested)?;
        self.active = add(self.active, vested)?;
        Ok(())
    }

    fn slash(&mut self, lost: Balance, supply: Balance, now: Millis, synced: &mut Synced) -> Result<()> {
        if lost == 0 {
            return Ok(());
        }
        let from_bond = lost.min(self.bond);
        self.bond = sub(self.bond, from_bond)?;
        let lost = sub(lost, from_bond)?;
        // Stake is at most bond + active + vesting + exiting, because cash covers what is due. So the rest is at most the last three,
        // and each part at most what it is taken from.
        let shares = add(self.active, self.vesting)?;
        let from_exits = match add(shares, self.exiting)? {
            0 => 0,
            whole => mul_div(lost, self.exiting, whole).ok_or(PoolError::Overflow)?,
        };
        self.exiting = sub(self.exiting, from_exits)?;
        let from_shares = sub(lost, from_exits)?;
        let from_vesting = from_shares.min(self.vesting);
        self.vesting = sub(self.vesting, from_vesting)?;
        self.active = sub(self.active, sub(from_shares, from_vesting)?)?;
        (synced.bond_slashed, synced.shares_slashed, synced.exits_slashed) =
            (from_bond, from_shares, from_exits);

        // So that a point always has a price that another exit can be counted in.
        if self.exiting.saturating_mul(WORTHLESS) < self.points {
            // Eras before `oldest` that were never paid have an empty pot: their exits are worth nothing.
            let left = core::mem::take(&mut self.exiting);
            self.give(left, supply)?;
            self.points = 0;
            self.era = self.era.checked_add(1).ok_or(PoolError::Overflow)?;
            (self.oldest, self.era_from) = (self.era, now);
            synced.written_off = true;
        }
        Ok(())
    }

    fn earn(
        &mut self,
        income: Balance,
        supply: Balance,
        now: Millis,
        rules: &Rules,
        synced: &mut Synced,
    ) -> Result<()> {
        if income == 0 {
            return Ok(());
        }
        let whole = add(self.bond, add(self.active, self.vesting)?)?;
        let to_bond = if supply == 0 || whole == 0 {
            income
        } else {
            mul_div(income, self.bond, whole).ok_or(PoolError::Overflow)?
        };
        self.bond = add(self.bond, to_bond)?;
        let more = sub(income, to_bond)?;
        let vesting = add(self.vesting, more)?;
        if let Some(waits) = mul_div(self.vesting, u128::from(self.vests_at.saturating_sub(now)), vesting) {
            let waits_more = mul_div(more, u128::from(rules.era_ms), vesting).ok_or(PoolError::Overflow)?;
            let waits = u64::try_from(add(waits, waits_more)?).map_err(|_| PoolError::Overflow)?;
            self.vests_at = now.saturating_add(waits);
        }
        self.vesting = vesting;
        (synced.bond_earned, synced.shares_earned) = (to_bond, more);
        Ok(())
    }

    /// Gives what is left over to the shares, or, where there are none, to the bond.
    fn give(&mut self, amount: Balance, supply: Balance) -> Result<()> {
        let to = if supply > 0 { &mut self.active } else { &mut self.bond };
        *to = add(*to, amount)?;
        Ok(())
    }

    /// Whether the shares are worth next to nothing: below [`WIPED_OUT`] of their first price.
    pub fn is_wiped_out(&self, supply: Balance) -> bool {
        let worth = self.active.saturating_add(self.vesting).saturating_add(VIRTUAL_ASSETS);
        worth.saturating_mul(VIRTUAL_SHARES).saturating_mul(WIPED_OUT) < supply
    }

    /// How much the pool would take as a deposit now, in planck.
    ///
    /// # Errors
    /// `Closing`, `WipedOut`, `Overflow`.
    pub fn room(&self, supply: Balance, rules: &Rules) -> Result<Balance> {
        self.takes_deposits(supply)?;
        let whole = add(self.bond, add(self.active, self.vesting)?)?;
        // The largest w with first_loss · w ≤ bond, rounded down.
        let backed = mul_div(self.bond, u128::from(Ratio::ONE.ppb()), u128::from(rules.first_loss.ppb()));
        Ok(self.terms.capacity.min(backed.unwrap_or(Balance::MAX)).saturating_sub(whole))
    }

    fn takes_deposits(&self, supply: Balance) -> Result<()> {
        if self.stage != Stage::Open {
            return Err(PoolError::Closing);
        }
        if self.is_wiped_out(supply) {
            return Err(PoolError::WipedOut);
        }
        Ok(())
    }

    /// Takes a deposit that has come in; returns the shares to mint.
    ///
    /// It buys at the price of all that belongs to the shares, vested or not, and what it pays for what has not vested vests with it: a
    /// deposit changes nobody's value, and who leaves at once has earned nothing.
    ///
    /// # Errors
    /// `Closing`, `NoAmount`, `WipedOut`, `OverCapacity`, `TooLittleBond`, `Overflow`.
    pub fn deposit(mut self, supply: Balance, amount: Balance, rules: &Rules) -> Result<(Ledger, Balance)> {
        self.takes_deposits(supply)?;
        let worth = add(self.active, self.vesting)?;
        let whole = add(add(self.bond, worth)?, amount)?;
        if whole > self.terms.capacity {
            return Err(PoolError::OverCapacity);
        }
        if self.bond < rules.first_loss.of(whole) {
            return Err(PoolError::TooLittleBond);
        }
        let price = add(worth, VIRTUAL_ASSETS)?;
        let shares = mul_div(amount, add(supply, VIRTUAL_SHARES)?, price).ok_or(PoolError::Overflow)?;
        if shares == 0 {
            return Err(PoolError::NoAmount);
        }
        add(supply, shares)?;
        let vests = mul_div(amount, self.vesting, price).ok_or(PoolError::Overflow)?;
        self.cash = add(self.cash, amount)?;
        self.vesting = add(self.vesting, vests)?;
        self.active = add(self.active, sub(amount, vests)?)?;
        Ok((self, shares))
    }

    /// Adds what the manager has sent to its bond.
    ///
    /// # Errors
    /// `Closing`, `NoAmount`, `Overflow`.
    pub fn add_bond(mut self, amount: Balance) -> Result<Ledger> {
        if self.stage != Stage::Open {
            return Err(PoolError::Closing);
        }
        if amount == 0 {
            return Err(PoolError::NoAmount);
        }
        self.cash = add(self.cash, amount)?;
        self.bond = add(self.bond, amount)?;
        Ok(self)
    }

    /// Takes `shares` of `supply` out: into the open era's record, or, where the pool is closed, to be paid at once. What the last one
    /// leaves goes to the bond.
    ///
    /// # Errors
    /// `NoAmount`, `NotEnoughShares`, `Overflow`.
    pub fn exit(mut self, supply: Balance, shares: Balance, mut open: Era) -> Result<(Ledger, Era, Exited)> {
        if shares == 0 {
            return Err(PoolError::NoAmount);
        }
        let left = supply.checked_sub(shares).ok_or(PoolError::NotEnoughShares)?;
        let value = self.value_of(shares, supply)?;
        self.active = sub(self.active, value)?;
        if left == 0 {
            let rest = add(core::mem::take(&mut self.active), core::mem::take(&mut self.vesting))?;
            self.bond = add(self.bond, rest)?;
        }
        let mut points = 0;
        if self.stage == Stage::Closed {
            self.cash = sub(self.cash, value)?;
        } else if value > 0 {
            points = match self.points {
                0 => value,
                // At least `value`, because a point is worth at most a planck.
                all => mul_div(value, all, self.exiting).ok_or(PoolError::Overflow)?,
            };
            self.exiting = add(self.exiting, value)?;
            self.points = add(self.points, points)?;
            open.points = add(open.points, points)?;
            open.unclaimed = add(open.unclaimed, points)?;
        }
        Ok((self, open, Exited { value, points }))
    }

    /// What to unstake now, if the time has come for that: what exits need beyond what is on its way or idle, or everything when the
    /// pool is closing; at most what is staked. `Some(0)` where only the era ends. `waits` tells whether the open era has exits.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn unstake_due(&self, waits: bool, now: Millis, rules: &Rules) -> Result<Option<Balance>> {
        if now < self.era_from.saturating_add(rules.era_ms) || self.stage == Stage::Closed {
            return Ok(None);
        }
        let needed = match self.stage {
            Stage::Open => self.exiting.saturating_sub(self.unbonding).saturating_sub(self.idle()?),
            _ => self.staked,
        };
        let amount = needed.min(self.staked);
        Ok((amount > 0 || waits).then_some(amount))
    }

    /// Ends the open era: `unstaked` is on its way out until `ends`, and the era's exits, if there are any, are at risk until then, but
    /// at least for the rules' exit time.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn turn(
        mut self,
        unstaked: Balance,
        ends: Millis,
        open: Option<Era>,
        now: Millis,
        rules: &Rules,
    ) -> Result<(Ledger, Option<Era>)> {
        self.staked = sub(self.staked, unstaked)?;
        self.unbonding = add(self.unbonding, unstaked)?;
        self.era_from = now;
        let ended = match open {
            None => None,
            Some(era) => {
                self.era = self.era.checked_add(1).ok_or(PoolError::Overflow)?;
                Some(Era { ends: ends.max(now.saturating_add(rules.exit_ms)), ..era })
            }
        };
        Ok((self, ended))
    }

    /// Stakes idle cash: it has gone to the node.
    ///
    /// # Errors
    /// `Overflow` for more than is idle.
    pub fn stake(mut self, amount: Balance) -> Result<Ledger> {
        sub(self.idle()?, amount)?;
        self.cash = sub(self.cash, amount)?;
        self.staked = add(self.staked, amount)?;
        Ok(self)
    }

    /// Whether there is an era to pay: its record is that of [`Ledger::oldest`].
    pub fn has_ended_era(&self) -> bool {
        self.oldest < self.era
    }

    /// Pays the oldest ended era, if its time has come and the cash is there: from now on its exits are fixed. `None` if not yet.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn mature(mut self, mut era: Era, now: Millis) -> Result<Option<(Ledger, Era)>> {
        if now < era.ends && self.stage != Stage::Closed {
            return Ok(None);
        }
        let pot = match self.points {
            0 => 0,
            // At most `exiting`, and all of it only for all points, because era.points ≤ points.
            all => mul_div(era.points, self.exiting, all).ok_or(PoolError::Overflow)?,
        };
        if self.idle()? < pot {
            return Ok(None);
        }
        self.exiting = sub(self.exiting, pot)?;
        self.points = sub(self.points, era.points)?;
        self.due = add(self.due, pot)?;
        self.oldest = self.oldest.checked_add(1).ok_or(PoolError::Overflow)?;
        (era.pot, era.rest) = (pot, pot);
        Ok(Some((self, era)))
    }

    /// Pays an exit of `points` from its era's pot, which is there: returns the amount to send, and the era's record unless this was
    /// its last exit.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn pay(
        mut self,
        supply: Balance,
        mut era: Era,
        points: Balance,
    ) -> Result<(Ledger, Option<Era>, Balance)> {
        let amount = era.part(points)?;
        era.unclaimed = sub(era.unclaimed, points)?;
        era.rest = sub(era.rest, amount)?;
        self.due = sub(self.due, amount)?;
        self.cash = sub(self.cash, amount)?;
        if era.unclaimed > 0 {
            return Ok((self, Some(era), amount));
        }
        self.due = sub(self.due, era.rest)?;
        self.give(era.rest, supply)?;
        Ok((self, None, amount))
    }

    /// Announces terms; they replace what was announced before and has not begun. Returns when they begin.
    ///
    /// # Errors
    /// `Closing`, `BadTerms`.
    pub fn announce(mut self, terms: Terms, now: Millis, rules: &Rules) -> Result<(Ledger, Millis)> {
        if self.stage != Stage::Open {
            return Err(PoolError::Closing);
        }
        if terms.commission > rules.commission_max {
            return Err(PoolError::BadTerms);
        }
        (self.next, self.next_from) = (terms, now.saturating_add(rules.notice_ms()));
        Ok((self, self.next_from))
    }

    /// Pays the manager: its commission, and the bond when the pool is closed. Returns the amount to send.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn collect(mut self) -> Result<(Ledger, Balance)> {
        let mut amount = core::mem::take(&mut self.fees);
        if self.stage == Stage::Closed {
            amount = add(amount, core::mem::take(&mut self.bond))?;
        }
        self.cash = sub(self.cash, amount)?;
        Ok((self, amount))
    }

    /// Begins to close: no deposits any more, and all stake goes out, era by era.
    ///
    /// # Errors
    /// `Closing` if it has begun before.
    pub fn close(mut self) -> Result<Ledger> {
        if self.stage != Stage::Open {
            return Err(PoolError::Closing);
        }
        (self.stage, self.next_from) = (Stage::Closing, NEVER);
        Ok(self)
    }

    /// The node is gone, and nothing can be credited to it or taken from it any more.
    ///
    /// # Errors
    /// `NotClosed` if the pool has not begun to close, or has stake.
    pub fn closed(mut self) -> Result<Ledger> {
        if self.stage != Stage::Closing || self.staked > 0 || self.unbonding > 0 {
            return Err(PoolError::NotClosed);
        }
        self.active = add(self.active, core::mem::take(&mut self.vesting))?;
        self.stage = Stage::Closed;
        Ok(self)
    }
}

fn add(a: Balance, b: Balance) -> Result<Balance> {
    a.checked_add(b).ok_or(PoolError::Overflow)
}

fn sub(a: Balance, b: Balance) -> Result<Balance> {
    a.checked_sub(b).ok_or(PoolError::Overflow)
}
