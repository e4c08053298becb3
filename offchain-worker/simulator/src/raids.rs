//! Raids on a staking pool: who comes for what others have earned, or leaves before what others will lose.
//!
//! `poq-core`'s books of a pool, the contract's own, beside a node that earns, is slashed and unbonds. Others have 900 UNIT in it, its
//! manager a bond; the raider comes with 900 UNIT. What it gains is compared with what the same money would have come to honestly.

use crate::error::{Error, Result};
use poq_core::params::UNIT;
use poq_core::pool::{Era, EraId, Exits, Ledger, PoolError, Rules, Seen, Terms};
use poq_core::units::{Balance, Millis, Ratio};
use serde::Serialize;
use std::collections::BTreeMap;

const HOUR: Millis = 60 * 60 * 1_000;
const DAY: Millis = 24 * HOUR;

/// The rules that `poq pool create` proposes on a network with a day of unbonding.
const RULES: Rules = Rules {
    commission_max: Ratio::from_permille(200),
    first_loss: Ratio::from_permille(50),
    era_ms: DAY,
    exit_ms: 7 * DAY,
};
const TERMS: Terms = Terms { commission: Ratio::from_permille(100), capacity: 1_000_000 * UNIT };
const BOND: Balance = 100 * UNIT;
const OTHERS: Balance = 900 * UNIT;
const RAIDER: Balance = 900 * UNIT;
/// What the node earns in a day.
const REWARD: Balance = 10 * UNIT;
/// What it loses at once: more than the bond.
const SLASH: Balance = 300 * UNIT;

/// A raid and what it came to, in UNIT.
#[derive(Clone, Debug, Serialize)]
pub struct Raid {
    /// What the raider does.
    pub raid: &'static str,
    /// What it gets back beyond what it put in.
    pub gain: f64,
    /// What it would have got back had nobody been able to gain at another's expense, and why.
    pub due: f64,
    /// Where that comes from.
    pub because: &'static str,
    /// What the others' 900 UNIT gained in the same time.
    pub others: f64,
    /// What they would have gained without the raider.
    pub others_without: f64,
}

/// A pool, its node, and two holders: the others and the raider.
#[derive(Clone, Debug)]
struct Pool {
    ledger: Ledger,
    now: Millis,
    staked: Balance,
    leaving: Vec<(Millis, Balance)>,
    claimable: Balance,
    shares: [Balance; 2],
    exits: [Exits; 2],
    eras: BTreeMap<EraId, Era>,
}

const HOLDERS: usize = 0;
const RAIDS: usize = 1;

type Done<T> = std::result::Result<T, PoolError>;

impl Pool {
    fn new() -> Done<Pool> {
        Ok(Pool {
            ledger: Ledger::new(BOND, TERMS, 0, &RULES)?,
            now: 0,
            staked: BOND,
            leaving: Vec::new(),
            claimable: 0,
            shares: [0; 2],
            exits: [Exits::default(); 2],
            eras: BTreeMap::new(),
        })
    }

    /// A pool after some ordinary days, all of whose income has vested, so that all that follows is the raid's.
    fn in_use() -> Done<Pool> {
        let mut pool = Pool::new()?;
        pool.deposit(HOLDERS, OTHERS)?;
        for _ in 0..3 {
            pool.day()?;
        }
        pool.wait(DAY)?;
        Ok(pool)
    }

    /// What the others' shares are worth, in planck.
    fn others(&self) -> Done<Balance> {
        self.ledger.value_of(self.shares[HOLDERS], self.supply())
    }

    fn supply(&self) -> Balance {
        self.shares.iter().sum()
    }

    /// What every message does first, and the steps that fall due.
    fn sync(&mut self) -> Done<()> {
        let ripe = |(ends, _): &(Millis, Balance)| *ends <= self.now;
        let withdrawn = self.leaving.iter().filter(|of| ripe(of)).map(|of| of.1).sum();
        let now = self.now;
        self.leaving.retain(|(ends, _)| *ends > now);
        let unbonding = self.leaving.iter().map(|of| of.1).sum();
        let claimed = std::mem::take(&mut self.claimable);
        let seen = Seen { staked: self.staked, unbonding, withdrawn, claimed };
        self.ledger = self.ledger.sync(self.supply(), seen, self.now, &RULES)?.0;
        while self.ledger.has_ended_era() {
            let oldest = self.ledger.oldest;
            let era = self.eras.get(&oldest).copied().unwrap_or_default();
            let Some((ledger, era)) = self.ledger.mature(era, self.now)? else { break };
            self.ledger = ledger;
            self.eras.insert(oldest, era);
        }
        let number = self.ledger.era;
        let open = self.eras.get(&number).copied();
        if let Some(amount) = self.ledger.unstake_due(open.is_some(), self.now, &RULES)? {
            let ends = self.now + RULES.exit_ms;
            if amount > 0 {
                self.staked -= amount;
                self.leaving.push((ends, amount));
            }
            let (ledger, ended) = self.ledger.turn(amount, ends, open, self.now, &RULES)?;
            self.ledger = ledger;
            if let Some(era) = ended {
                self.eras.insert(number, era);
            }
        }
        let spare = self.ledger.spare()?;
        self.ledger = self.ledger.stake(spare)?;
        self.staked += spare;
        Ok(())
    }

    fn wait(&mut self, time: Millis) -> Done<()> {
        self.now += time;
        self.sync()
    }

    /// A day's reward, at its end.
    fn day(&mut self) -> Done<()> {
        self.now += DAY;
        self.claimable += REWARD;
        self.sync()
    }

    fn deposit(&mut self, who: usize, amount: Balance) -> Done<()> {
        self.sync()?;
        let (ledger, shares) = self.ledger.deposit(self.supply(), amount, &RULES)?;
        self.ledger = ledger;
        self.shares[who] += shares;
        self.sync()
    }

    fn exit(&mut self, who: usize) -> Done<()> {
        self.sync()?;
        let number = self.ledger.era;
        let open = self.eras.get(&number).copied().unwrap_or_default();
        let (ledger, era, exited) = self.ledger.exit(self.supply(), self.shares[who], open)?;
        self.ledger = ledger;
        self.shares[who] = 0;
        if exited.points > 0 {
            self.exits[who] = self.exits[who].add(number, exited.points)?;
            self.eras.insert(number, era);
        }
        self.sync()
    }

    /// Stake that is taken from the node: what has not left yet is taken last.
    fn slash(&mut self, amount: Balance) {
        let from_staked = amount.min(self.staked);
        self.staked -= from_staked;
        let mut left = amount - from_staked;
        for (_, tranche) in self.leaving.iter_mut().rev() {
            let part = left.min(*tranche);
            *tranche -= part;
            left -= part;
        }
    }

    /// Exits what is left and waits until everything is paid: what came out.
    fn leave(&mut self, who: usize) -> Done<Balance> {
        if self.shares[who] > 0 {
            self.exit(who)?;
        }
        let mut paid = 0;
        // An exit waits for the end of its era, the unbonding and the step after it.
        for _ in 0..12 {
            self.wait(DAY)?;
            while let Some((number, points)) = self.exits[who].take_ready(self.ledger.oldest) {
                let era = self.eras.get(&number).copied().unwrap_or_default();
                let (ledger, era, amount) = self.ledger.pay(self.supply(), era, points)?;
                self.ledger = ledger;
                match era {
                    Some(era) => self.eras.insert(number, era),
                    None => self.eras.remove(&number),
                };
                paid += amount;
            }
        }
        Ok(paid)
    }
}

fn units(amount: Balance) -> f64 {
    amount as f64 / UNIT as f64
}

/// Runs a raid and the same days without it. `days` gets the pool after some ordinary days, and whether the raider is there.
fn raid(
    raid: &'static str,
    (due, because): (f64, &'static str),
    put: Balance,
    days: impl Fn(&mut Pool, bool) -> Done<()>,
) -> Result<Raid> {
    let run = |raider: bool| -> Done<(f64, f64)> {
        let mut pool = Pool::in_use()?;
        let before = pool.others()?;
        days(&mut pool, raider)?;
        let got = pool.leave(RAIDS)?;
        pool.wait(DAY)?;
        let others = pool.leave(HOLDERS)?;
        Ok((units(got) - if raider { units(put) } else { 0.0 }, units(others) - units(before)))
    };
    let failed = |e: PoolError| Error::Setting(format!("the raid '{raid}' was refused: {e}"));
    let (gain, others) = run(true).map_err(failed)?;
    let (_, others_without) = run(false).map_err(failed)?;
    Ok(Raid { raid, gain, due, because, others, others_without })
}

/// All raids.
///
/// # Errors
/// Only bugs: a raid that the books refuse.
pub fn all() -> Result<Vec<Raid>> {
    let come = |pool: &mut Pool, raider: bool| if raider { pool.deposit(RAIDS, RAIDER) } else { Ok(()) };
    let go = |pool: &mut Pool, raider: bool| if raider { pool.exit(RAIDS) } else { Ok(()) };
    // A slash takes the bond, then everybody's in proportion.
    let slashed = || -> Done<f64> {
        let pool = Pool::in_use()?;
        let beyond = units(SLASH.saturating_sub(pool.ledger.bond));
        Ok(-beyond * units(RAIDER) / units(RAIDER + pool.others()?))
    };
    let slashed = slashed().map_err(|e| Error::Setting(format!("a pool in use was refused: {e}")))?;
    Ok(vec![
        raid(
            "comes before a day's reward is booked and leaves after it",
            (0.0, "it was not there while that was earned"),
            RAIDER,
            |pool, raider| {
                pool.now += DAY;
                pool.claimable += REWARD;
                // The contract books what the node has earned before it takes a deposit.
                come(pool, raider)?;
                go(pool, raider)?;
                pool.wait(2 * DAY)
            },
        )?,
        raid(
            "comes a block before a day's reward is credited and leaves a block after it",
            (0.0, "it was there for two blocks of a day"),
            RAIDER,
            |pool, raider| {
                pool.wait(DAY - 12_000)?;
                come(pool, raider)?;
                pool.now += 12_000;
                pool.claimable += REWARD;
                go(pool, raider)?;
                pool.wait(2 * DAY)
            },
        )?,
        raid(
            "comes a block before a day's reward is credited and leaves a day later",
            (
                units(REWARD) * 0.9 * units(RAIDER) / (units(BOND) + units(OTHERS) + units(RAIDER)),
                "a day of its part of the stake",
            ),
            RAIDER,
            |pool, raider| {
                pool.wait(DAY - 12_000)?;
                come(pool, raider)?;
                pool.now += 12_000;
                pool.claimable += REWARD;
                pool.sync()?;
                pool.wait(DAY)?;
                go(pool, raider)?;
                pool.wait(2 * DAY)
            },
        )?,
        raid(
            "leaves a block before a slash of 300 UNIT",
            (slashed, "its part of what the bond does not cover"),
            RAIDER,
            |pool, raider| {
                come(pool, raider)?;
                pool.wait(DAY)?;
                go(pool, raider)?;
                pool.now += 12_000;
                pool.slash(SLASH);
                pool.wait(2 * DAY)
            },
        )?,
        raid(
            "comes a block after a slash of 300 UNIT",
            (0.0, "it pays what the shares are worth then"),
            RAIDER,
            |pool, raider| {
                pool.slash(SLASH - BOND);
                pool.sync()?;
                // The manager makes up for its part, or the pool would take no deposits.
                pool.ledger = pool.ledger.add_bond(BOND)?;
                pool.sync()?;
                come(pool, raider)?;
                go(pool, raider)?;
                pool.wait(2 * DAY)
            },
        )?,
        inflation()?,
    ])
}

/// The first depositor's: buys next to nothing, then makes its shares dear by what it gives to the node, so that the next deposit
/// rounds to less than it is.
fn inflation() -> Result<Raid> {
    let gift = 1_000 * UNIT;
    let run = |raider: bool| -> Done<(Balance, Balance)> {
        let mut pool = Pool::new()?;
        // A bond that leaves room for what comes.
        if raider {
            pool.deposit(RAIDS, 1)?;
            pool.staked += gift;
            pool.wait(DAY)?;
            pool.wait(DAY)?;
        }
        pool.deposit(HOLDERS, OTHERS)?;
        let got = pool.leave(RAIDS)?;
        Ok((got, pool.leave(HOLDERS)?))
    };
    let failed = |e: PoolError| Error::Setting(format!("the raid by inflation was refused: {e}"));
    let ((got, others), (_, without)) = (run(true).map_err(failed)?, run(false).map_err(failed)?);
    Ok(Raid {
        raid: "buys the first share for a planck and gives the node 1,000 UNIT, so that the next deposit rounds down",
        gain: units(got) - units(gift + 1),
        due: -units(gift),
        because: "a gift is a gift",
        others: units(others) - units(OTHERS),
        others_without: units(without) - units(OTHERS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// But for a planck or two that rounding leaves, in UNIT.
    const ROUNDING: f64 = 1e-9;

    #[test]
    fn a_raid_gains_no_more_than_its_due_and_takes_nothing_from_the_others() {
        let all = all().unwrap();
        assert_eq!(all.len(), 6);
        for of in all {
            println!("{of:?}");
            assert!(of.gain <= of.due + ROUNDING, "{of:?}");
        }
    }

    #[test]
    fn who_leaves_before_a_slash_pays_its_part_of_it() {
        let of = all().unwrap().into_iter().find(|of| of.raid.contains("before a slash")).unwrap();
        assert!((of.gain - of.due).abs() < 1e-6 && of.due < -90.0, "{of:?}");
    }

    #[test]
    fn an_inflated_share_costs_the_next_depositor_next_to_nothing() {
        let of = all().unwrap().into_iter().find(|of| of.raid.contains("first share")).unwrap();
        assert!(of.others.abs() < 0.01 && of.gain < -900.0, "{of:?}");
    }
}
