//! A pool's books against a node that earns, loses and unbonds, and people who do anything in any order.
//!
//! [`Model`] does what the pool contract does around the books: it syncs first, moves money, keeps shares and exits. After every act
//! it checks that the books balance, that every claim is covered and that nothing moved that should not have.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use poq_core::pool::*;
use poq_core::units::{mul_div, Balance, Millis, Ratio, ONE};
use proptest::prelude::*;
use std::collections::BTreeMap;

const UNIT: Balance = 1_000_000_000_000;
const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;

const RULES: Rules = Rules {
    commission_max: Ratio::from_permille(500),
    first_loss: Ratio::from_permille(10),
    era_ms: DAY,
    exit_ms: 7 * DAY,
};

const TERMS: Terms = Terms { commission: Ratio::from_permille(100), capacity: 1 << 100 };

/// The stake of a node, as its contract keeps it.
#[derive(Clone, Debug, Default)]
struct Node {
    staked: Balance,
    tranches: Vec<(Millis, Balance)>,
    claimable: Balance,
}

impl Node {
    fn unbonding(&self) -> Balance {
        self.tranches.iter().map(|(_, amount)| amount).sum()
    }

    fn withdraw(&mut self, now: Millis) -> Balance {
        let ripe = self.tranches.iter().filter(|(ends, _)| *ends <= now).map(|(_, amount)| amount).sum();
        self.tranches.retain(|(ends, _)| *ends > now);
        ripe
    }

    /// Bonded stake first, then the youngest tranche.
    fn slash(&mut self, amount: Balance) {
        let mut left = amount.min(self.staked + self.unbonding());
        let from_staked = left.min(self.staked);
        self.staked -= from_staked;
        left -= from_staked;
        for (_, tranche) in self.tranches.iter_mut().rev() {
            let part = left.min(*tranche);
            *tranche -= part;
            left -= part;
        }
        self.tranches.retain(|(_, amount)| *amount > 0);
    }
}

#[derive(Clone, Debug)]
struct Model {
    now: Millis,
    rules: Rules,
    ledger: Ledger,
    node: Node,
    /// What the pool's account holds.
    account: Balance,
    supply: Balance,
    shares: BTreeMap<u8, Balance>,
    eras: BTreeMap<EraId, Era>,
    exits: BTreeMap<u8, Exits>,
    /// What each exit was worth when it was asked for, by account and era.
    asked: BTreeMap<(u8, EraId), Balance>,
    /// What accounts have put in and got out.
    put: BTreeMap<u8, Balance>,
    got: BTreeMap<u8, Balance>,
    /// What the manager has got out.
    collected: Balance,
    unstakes: Vec<Millis>,
    /// How many exits there were.
    exited: Balance,
}

type Res<T> = Result<T, PoolError>;

impl Model {
    fn new(bond: Balance) -> Model {
        Model::with(bond, RULES, TERMS)
    }

    fn with(bond: Balance, rules: Rules, terms: Terms) -> Model {
        let now = 1_000_000;
        Model {
            now,
            rules,
            ledger: Ledger::new(bond, terms, now, &rules).unwrap(),
            node: Node { staked: bond, ..Node::default() },
            account: 0,
            supply: 0,
            shares: BTreeMap::new(),
            eras: BTreeMap::new(),
            exits: BTreeMap::new(),
            asked: BTreeMap::new(),
            put: BTreeMap::new(),
            got: BTreeMap::new(),
            collected: 0,
            unstakes: vec![],
            exited: 0,
        }
    }

    fn sync(&mut self) -> Res<Synced> {
        let withdrawn = self.node.withdraw(self.now);
        let claimed = std::mem::take(&mut self.node.claimable);
        self.account += withdrawn + claimed;
        let seen = Seen { staked: self.node.staked, unbonding: self.node.unbonding(), withdrawn, claimed };
        let (ledger, synced) = self.ledger.sync(self.supply, seen, self.now, &self.rules)?;
        self.ledger = ledger;
        if self.ledger.has_ended_era() {
            let oldest = self.ledger.oldest;
            let era = self.eras[&oldest];
            if let Some((ledger, era)) = self.ledger.mature(era, self.now)? {
                self.ledger = ledger;
                self.eras.insert(oldest, era);
            }
        }
        Ok(synced)
    }

    fn turn(&mut self) -> Res<()> {
        let open = self.eras.get(&self.ledger.era).copied();
        let Some(amount) = self.ledger.unstake_due(open.is_some(), self.now, &self.rules)? else {
            return Ok(());
        };
        let mut ends = 0;
        if amount > 0 {
            ends = self.now + self.rules.exit_ms;
            self.node.staked -= amount;
            self.node.tranches.push((ends, amount));
            if let Some(last) = self.unstakes.last() {
                assert!(self.now - last >= self.rules.era_ms, "one unstake per era");
            }
            self.unstakes.push(self.now);
        }
        let number = self.ledger.era;
        let (ledger, ended) = self.ledger.turn(amount, ends, open, self.now, &self.rules)?;
        self.ledger = ledger;
        if let Some(era) = ended {
            self.eras.insert(number, era);
        }
        Ok(())
    }

    fn stake_spare(&mut self) -> Res<()> {
        let spare = self.ledger.spare()?;
        self.ledger = self.ledger.stake(spare)?;
        self.account -= spare;
        self.node.staked += spare;
        Ok(())
    }

    fn advance(&mut self) -> Res<()> {
        self.sync()?;
        self.turn()?;
        self.stake_spare()?;
        if self.ledger.stage == Stage::Closing && self.ledger.staked == 0 && self.ledger.unbonding == 0 {
            self.ledger = self.ledger.closed()?;
        }
        Ok(())
    }

    fn deposit(&mut self, who: u8, amount: Balance) -> Res<Balance> {
        self.sync()?;
        let (ledger, shares) = self.ledger.deposit(self.supply, amount, &self.rules)?;
        self.ledger = ledger;
        self.account += amount;
        self.supply += shares;
        *self.shares.entry(who).or_default() += shares;
        *self.put.entry(who).or_default() += amount;
        self.stake_spare()?;
        Ok(shares)
    }

    fn exit(&mut self, who: u8, shares: Balance) -> Res<Exited> {
        self.sync()?;
        let held = self.shares.get(&who).copied().unwrap_or_default();
        if shares > held {
            return Err(PoolError::NotEnoughShares);
        }
        let number = self.ledger.era;
        let open = self.eras.get(&number).copied().unwrap_or_default();
        let (ledger, era, exited) = self.ledger.exit(self.supply, shares, open)?;
        if exited.points > 0 {
            let exits = self.exits.get(&who).copied().unwrap_or_default().add(number, exited.points)?;
            self.exits.insert(who, exits);
            self.eras.insert(number, era);
            *self.asked.entry((who, number)).or_default() += exited.value;
        } else if self.ledger.stage == Stage::Closed {
            self.account -= exited.value;
            *self.got.entry(who).or_default() += exited.value;
        }
        self.ledger = ledger;
        self.supply -= shares;
        self.exited += 1;
        self.shares.insert(who, held - shares);
        self.turn()?;
        Ok(exited)
    }

    fn exit_all(&mut self, who: u8) -> Res<Exited> {
        self.exit(who, self.shares.get(&who).copied().unwrap_or_default())
    }

    fn claim(&mut self, who: u8) -> Res<Balance> {
        self.sync()?;
        self.turn()?;
        let mut exits = self.exits.get(&who).copied().unwrap_or_default();
        let mut paid = 0;
        while let Some((number, points)) = exits.take_ready(self.ledger.oldest) {
            let (ledger, left, amount) = self.ledger.pay(self.supply, self.eras[&number], points)?;
            self.ledger = ledger;
            match left {
                Some(era) => self.eras.insert(number, era),
                None => self.eras.remove(&number),
            };
            let asked = self.asked.remove(&(who, number)).unwrap();
            // But for the part of a planck that each other exit rounds off.
            assert!(
                amount <= asked + self.exited,
                "an exit is paid at most what it was worth when asked for"
            );
            paid += amount;
        }
        self.exits.insert(who, exits);
        self.account -= paid;
        *self.got.entry(who).or_default() += paid;
        Ok(paid)
    }

    fn collect(&mut self) -> Res<Balance> {
        self.sync()?;
        let (ledger, amount) = self.ledger.collect()?;
        self.ledger = ledger;
        self.account -= amount;
        self.collected += amount;
        Ok(amount)
    }

    fn add_bond(&mut self, amount: Balance) -> Res<()> {
        self.sync()?;
        self.ledger = self.ledger.add_bond(amount)?;
        self.account += amount;
        self.stake_spare()
    }

    fn announce(&mut self, terms: Terms) -> Res<Millis> {
        self.sync()?;
        let (ledger, from) = self.ledger.announce(terms, self.now, &self.rules)?;
        self.ledger = ledger;
        Ok(from)
    }

    fn reward(&mut self, amount: Balance) {
        self.node.claimable += amount;
    }

    fn pass(&mut self, ms: Millis) {
        self.now += ms;
    }

    /// What a holder could exit for, as of the last sync.
    fn value(&self, who: u8) -> Balance {
        self.ledger.value_of(self.shares.get(&who).copied().unwrap_or_default(), self.supply).unwrap()
    }

    /// Exits everything, waits as long as it takes and claims. Returns what came out for all that was ever put in.
    fn leave(&mut self, who: u8) -> Balance {
        if self.shares.get(&who).copied().unwrap_or_default() > 0 {
            self.exit_all(who).unwrap();
        }
        for _ in 0..40 {
            self.pass(self.rules.era_ms);
            self.advance().unwrap();
            self.claim(who).unwrap();
        }
        assert!(self.exits.get(&who).is_none_or(Exits::is_empty), "everything was paid");
        self.got.get(&who).copied().unwrap_or_default()
    }

    /// Everything that must hold after every act.
    fn check(&self) {
        let l = &self.ledger;
        assert!(l.is_balanced(), "{l:?}");
        assert_eq!(l.cash, self.account, "the account has what the books say");
        assert_eq!(self.supply, self.shares.values().sum::<Balance>());
        // All claims of all people, at today's prices.
        let shares: Balance = self.shares.keys().map(|who| self.value(*who)).sum();
        assert!(shares <= l.active, "{shares} > {}", l.active);
        let mut waiting = 0;
        let mut fixed = 0;
        for exits in self.exits.values() {
            for (number, points) in exits.iter() {
                let era = &self.eras[&number];
                if number < l.oldest {
                    fixed += mul_div(era.pot, points, era.points).unwrap();
                } else {
                    waiting += l.value_of_points(points).unwrap();
                }
            }
        }
        assert!(waiting <= l.exiting && fixed <= l.due, "{waiting} {fixed} {l:?}");
        // No point is worth more than a planck, and every era's points are those of its exits.
        assert!(l.exiting <= l.points);
        for (number, era) in &self.eras {
            let points: Balance = self
                .exits
                .values()
                .flat_map(Exits::iter)
                .filter(|(other, _)| other == number)
                .map(|(_, points)| points)
                .sum();
            assert_eq!(points, era.unclaimed);
        }
        let open: Balance =
            self.eras.iter().filter(|(n, _)| **n >= l.oldest).map(|(_, era)| era.points).sum();
        assert_eq!(open, l.points);
        if self.supply == 0 {
            assert_eq!((l.active, l.vesting), (0, 0));
        }
    }
}

fn close_to(a: Balance, b: Balance, by: Balance) -> bool {
    a.abs_diff(b) <= by
}

// ---- arithmetic

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_product_is_divided_exactly(a in any::<u128>(), b in any::<u128>(), c in any::<u128>(), sa in 0u32..128, sb in 0u32..128, sc in 0u32..128) {
        let (a, b, c) = (a >> sa, b >> sb, (c >> sc).max(1));
        match mul_div(a, b, c) {
            // quotient · c ≤ a · b < (quotient + 1) · c
            Some(quotient) => {
                let product = wide(a, b, 0);
                prop_assert!(wide(quotient, c, 0) <= product);
                prop_assert!(wide(quotient, c, c) > product);
            }
            None => prop_assert!(wide(u128::MAX, c, c - 1) < wide(a, b, 0)),
        }
    }
}

/// a · b + d in 256 bits, as (high, low).
fn wide(a: u128, b: u128, d: u128) -> (u128, u128) {
    let mask = u128::from(u64::MAX);
    let (ah, al, bh, bl) = (a >> 64, a & mask, b >> 64, b & mask);
    let low = al * bl;
    let (m1, m2) = (ah * bl, al * bh);
    let middle = (low >> 64) + (m1 & mask) + (m2 & mask);
    let (low, carry) = ((middle << 64) | (low & mask)).overflowing_add(d);
    (ah * bh + (m1 >> 64) + (m2 >> 64) + (middle >> 64) + u128::from(carry), low)
}

#[test]
fn nothing_is_divided_by_nothing() {
    assert_eq!(mul_div(1, 1, 0), None);
    assert_eq!(mul_div(u128::MAX, u128::MAX, 0), None);
    assert_eq!(mul_div(u128::MAX, u128::MAX, u128::MAX), Some(u128::MAX));
    assert_eq!(mul_div(u128::MAX, u128::MAX, u128::MAX - 1), None);
}

// ---- the ordinary life of a pool

#[test]
fn deposits_earn_and_leave() {
    let mut m = Model::new(100 * UNIT);
    assert_eq!(m.deposit(1, 300 * UNIT).unwrap(), 300 * UNIT * VIRTUAL_SHARES);
    assert_eq!(m.node.staked, 400 * UNIT);
    m.reward(40 * UNIT);
    let synced = m.sync().unwrap();
    // A tenth is commission; a quarter of the rest is the bond's, three quarters the shares'.
    assert_eq!(
        (synced.commission, synced.bond_earned, synced.shares_earned),
        (4 * UNIT, 9 * UNIT, 27 * UNIT)
    );
    assert_eq!(m.value(1), 300 * UNIT);
    m.pass(DAY / 2);
    m.sync().unwrap();
    assert!(close_to(m.value(1), 300 * UNIT + 27 * UNIT / 2, 1));
    m.pass(DAY / 2);
    m.advance().unwrap();
    assert!(close_to(m.value(1), 327 * UNIT, 1));
    assert_eq!(m.node.staked, 436 * UNIT, "income that is not commission is staked");
    let value = m.exit_all(1).unwrap().value;
    m.pass(7 * DAY - 1);
    assert_eq!(m.claim(1), Ok(0));
    m.pass(1);
    assert_eq!(m.claim(1), Ok(value));
    assert_eq!(m.collect(), Ok(4 * UNIT));
    m.check();
}

#[test]
fn income_without_shares_is_the_bonds() {
    let mut m = Model::new(100 * UNIT);
    m.reward(10 * UNIT);
    let synced = m.sync().unwrap();
    assert_eq!((synced.commission, synced.bond_earned, synced.shares_earned), (UNIT, 9 * UNIT, 0));
    m.check();
}

#[test]
fn a_closed_pool_pays_everybody_and_the_bond_last() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 50 * UNIT).unwrap();
    m.deposit(2, 50 * UNIT).unwrap();
    m.exit_all(2).unwrap();
    m.sync().unwrap();
    m.ledger = m.ledger.close().unwrap();
    assert_eq!(m.ledger.close(), Err(PoolError::Closing));
    assert_eq!(m.deposit(3, UNIT), Err(PoolError::Closing));
    assert_eq!(m.add_bond(UNIT), Err(PoolError::Closing));
    assert_eq!(m.announce(TERMS), Err(PoolError::Closing));
    assert_eq!(m.ledger.closed(), Err(PoolError::NotClosed));
    m.pass(DAY);
    m.advance().unwrap();
    assert_eq!(m.node.staked, 0, "all of it is on its way out");
    assert_eq!(m.collect(), Ok(0), "the bond stays at risk as long as the shares do");
    m.node.slash(30 * UNIT);
    m.sync().unwrap();
    assert_eq!((m.ledger.bond, m.value(1)), (70 * UNIT, 50 * UNIT));
    m.pass(7 * DAY);
    m.advance().unwrap();
    assert_eq!(m.ledger.stage, Stage::Closed);
    assert_eq!(m.collect(), Ok(70 * UNIT));
    assert_eq!(m.exit_all(1).unwrap(), Exited { value: 50 * UNIT, points: 0 }, "paid at once");
    assert_eq!(m.claim(2), Ok(50 * UNIT));
    m.check();
    assert_eq!(m.account, 0);
}

#[test]
fn deposits_are_refused_above_capacity_and_beyond_what_the_bond_backs() {
    let terms = Terms { capacity: 1_000 * UNIT, ..TERMS };
    let mut m = Model::with(5 * UNIT, RULES, terms);
    // One part in a hundred must be the bond: 500 in all.
    assert_eq!(m.ledger.room(0, &m.rules), Ok(495 * UNIT));
    assert_eq!(m.deposit(1, 496 * UNIT), Err(PoolError::TooLittleBond));
    m.deposit(1, 495 * UNIT).unwrap();
    assert_eq!(m.ledger.room(m.supply, &m.rules), Ok(0));
    m.add_bond(95 * UNIT).unwrap();
    assert_eq!(m.ledger.room(m.supply, &m.rules), Ok(405 * UNIT));
    assert_eq!(m.deposit(1, 406 * UNIT), Err(PoolError::OverCapacity));
    m.deposit(1, 405 * UNIT).unwrap();
    m.check();
}

#[test]
fn rules_and_terms_have_bounds() {
    assert_eq!(RULES.check(DAY, 7 * DAY), Ok(()));
    assert_eq!(RULES.check(DAY + 1, 7 * DAY), Err(PoolError::BadRules));
    assert_eq!(RULES.check(DAY, 7 * DAY + 1), Err(PoolError::BadRules));
    assert_eq!(Rules { first_loss: Ratio::ZERO, ..RULES }.check(0, 0), Err(PoolError::BadRules));
    assert_eq!(Rules { era_ms: 0, ..RULES }.check(0, 0), Err(PoolError::BadRules));
    assert_eq!(Rules { exit_ms: LONGEST_MS + 1, ..RULES }.check(0, 0), Err(PoolError::BadRules));
    let dear = Terms { commission: Ratio::from_permille(501), ..TERMS };
    assert_eq!(Ledger::new(UNIT, dear, 0, &RULES), Err(PoolError::BadTerms));
    assert_eq!(Ledger::new(0, TERMS, 0, &RULES), Err(PoolError::NoAmount));
    assert_eq!(Model::new(UNIT).announce(dear), Err(PoolError::BadTerms));
}

#[test]
fn an_account_has_exits_in_so_many_eras() {
    let mut exits = Exits::default();
    for era in 1..=MAX_EXITS as EraId {
        exits = exits.add(era, 5).unwrap();
    }
    assert_eq!(exits.add(99, 1), Err(PoolError::TooManyExits));
    exits = exits.add(3, 2).unwrap();
    assert_eq!(exits.iter().map(|(_, points)| points).sum::<Balance>(), 5 * MAX_EXITS as Balance + 2);
    assert_eq!(exits.take_ready(1), None);
    assert_eq!(exits.take_ready(2), Some((1, 5)));
    assert_eq!(exits.take_ready(2), None);
    exits.add(99, 1).unwrap();
    assert!(Exits::default().is_empty());
}

// ---- attacks

#[test]
fn pool_inflation_by_the_first_depositor_costs_the_attacker() {
    // The attacker is the manager too, so that a bond of a planck does not take most of what it gives away.
    for (dust, deposit) in [(1, 499_999), (7, 399_999), (1_000, 600_000), (1, 1_000)] {
        let mut m = Model::new(1);
        m.rules.first_loss = Ratio::from_ppb(1);
        let (attacker, victim) = (1, 2);
        m.deposit(attacker, dust).unwrap();
        // As stake that somebody gave, and as a reward.
        m.node.staked += 500_000 * UNIT;
        m.reward(500_000 * UNIT);
        m.sync().unwrap();
        m.pass(DAY);
        m.sync().unwrap();
        let before = m.value(attacker);
        m.deposit(victim, deposit * UNIT).unwrap();
        m.check();
        assert!(m.value(victim) >= deposit * UNIT - 2 * UNIT, "{} UNIT: {}", deposit, m.value(victim));
        assert!(m.value(attacker) <= before + 2 * UNIT, "nothing to speak of is the attacker's");
    }
}

#[test]
fn pool_donation_vests_and_is_everybodys() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.node.staked += 20 * UNIT;
    let synced = m.sync().unwrap();
    assert_eq!((synced.commission, synced.bond_earned, synced.shares_earned), (0, 10 * UNIT, 10 * UNIT));
    assert_eq!(m.value(1), 100 * UNIT);
    // Whoever comes now pays for it.
    m.deposit(2, 110 * UNIT).unwrap();
    assert!(close_to(m.value(2), 100 * UNIT, 10));
    m.pass(DAY);
    m.sync().unwrap();
    assert!(close_to(m.value(1), 110 * UNIT, 10) && close_to(m.value(2), 110 * UNIT, 10));
    m.check();
}

#[test]
fn pool_sandwich_of_a_reward_gains_nothing() {
    // A reward that the pool has not seen yet, and one that it has: in and out around it.
    for seen in [false, true] {
        let mut m = Model::new(100 * UNIT);
        m.deposit(1, 100 * UNIT).unwrap();
        m.reward(50 * UNIT);
        if seen {
            m.sync().unwrap();
        }
        m.deposit(2, 800 * UNIT).unwrap();
        m.check();
        let out = m.exit_all(2).unwrap().value;
        assert!(out <= 800 * UNIT, "{out}");
        m.pass(DAY);
        m.sync().unwrap();
        assert!(m.value(1) >= 122 * UNIT, "the other has all of its part: {}", m.value(1));
        m.check();
    }
    // One that is settled in between: what it gains is what a day's stay gives, by the time that it stayed.
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.deposit(2, 800 * UNIT).unwrap();
    m.reward(50 * UNIT);
    assert_eq!(m.exit_all(2).unwrap().value, 800 * UNIT);
}

#[test]
fn pool_exit_before_a_slash_loses_what_staying_loses() {
    let mut m = Model::new(10 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.deposit(2, 100 * UNIT).unwrap();
    m.exit_all(1).unwrap();
    m.node.slash(60 * UNIT);
    m.sync().unwrap();
    assert_eq!(m.ledger.bond, 0, "the bond went first");
    assert_eq!(m.value(2), 75 * UNIT);
    m.check();
    assert_eq!(m.leave(1), 75 * UNIT);
}

#[test]
fn pool_an_exit_that_is_paid_is_beyond_any_slash() {
    let mut m = Model::new(10 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.deposit(2, 100 * UNIT).unwrap();
    m.pass(DAY);
    m.exit_all(1).unwrap();
    m.pass(7 * DAY);
    m.sync().unwrap();
    m.node.slash(110 * UNIT);
    m.sync().unwrap();
    assert_eq!((m.ledger.bond, m.value(2)), (0, 0));
    assert_eq!(m.claim(1), Ok(100 * UNIT));
    m.check();
}

#[test]
fn pool_an_exit_earns_nothing_more() {
    let mut m = Model::new(10 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.deposit(2, 100 * UNIT).unwrap();
    m.exit_all(1).unwrap();
    m.reward(50 * UNIT);
    m.sync().unwrap();
    assert_eq!(m.leave(1), 100 * UNIT);
    m.check();
}

#[test]
fn pool_a_deposit_after_a_slash_pays_for_nobody() {
    let mut m = Model::new(10 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.node.slash(60 * UNIT);
    m.add_bond(10 * UNIT).unwrap();
    // The slash is seen before the deposit is priced.
    m.deposit(2, 100 * UNIT).unwrap();
    assert!(close_to(m.value(1), 50 * UNIT, 2) && close_to(m.value(2), 100 * UNIT, 2));
    m.check();
}

#[test]
fn pool_commission_cannot_jump() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    let dear = Terms { commission: Ratio::from_permille(500), ..TERMS };
    let from = m.announce(dear).unwrap();
    assert_eq!(from, m.now + 8 * DAY);
    // Who leaves when it is announced is out before it acts.
    assert!(m.now + RULES.exit_ms < from);
    m.pass(8 * DAY);
    // Earned before: charged as before, though nobody synced.
    m.reward(10 * UNIT);
    assert_eq!(m.sync().unwrap().commission, UNIT);
    assert_eq!(m.ledger.terms, dear);
    m.reward(10 * UNIT);
    assert_eq!(m.sync().unwrap().commission, 5 * UNIT);
    // One change at a time: another announcement starts the clock anew.
    let first = m.announce(TERMS).unwrap();
    m.pass(DAY);
    let second = m.announce(dear).unwrap();
    assert_eq!(second, first + DAY);
    // A lower one reaches back: nobody is hurt by it.
    let cheap = Terms { commission: Ratio::ZERO, ..TERMS };
    m.announce(cheap).unwrap();
    m.pass(8 * DAY);
    m.reward(10 * UNIT);
    assert_eq!(m.sync().unwrap().commission, 0);
    m.check();
}

#[test]
fn pool_the_bond_is_the_first_to_lose_and_the_last_to_leave() {
    let mut m = Model::new(50 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.node.slash(50 * UNIT);
    assert_eq!(m.sync().unwrap(), Synced { bond_slashed: 50 * UNIT, ..Synced::default() });
    assert_eq!(m.value(1), 100 * UNIT);
    assert_eq!(
        m.deposit(2, UNIT),
        Err(PoolError::TooLittleBond),
        "nobody comes in behind a bond that is gone"
    );
    assert_eq!(m.collect(), Ok(0));
    m.check();
}

#[test]
fn pool_exits_are_not_blocked_by_a_planck_of_deposits() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.deposit(2, UNIT).unwrap();
    m.exit_all(1).unwrap();
    let asked = m.now;
    // Another deposits a planck and exits a planck's worth, all the time.
    while m.claim(1).unwrap() == 0 {
        m.pass(HOUR);
        m.deposit(2, 1).unwrap();
        if m.exits.get(&2).is_none_or(|exits| exits.iter().count() < MAX_EXITS) {
            m.exit(2, VIRTUAL_SHARES).unwrap();
        }
        m.claim(2).unwrap();
        m.check();
        assert!(m.now <= asked + RULES.notice_ms());
    }
    assert_eq!(m.got[&1], 100 * UNIT);
}

#[test]
fn pool_dust_exits_and_a_slash_of_a_planck_block_nobody() {
    let mut m = Model::new(1);
    m.rules.first_loss = Ratio::from_ppb(1);
    m.deposit(1, 1).unwrap();
    m.deposit(2, 1).unwrap();
    m.exit_all(1).unwrap();
    m.pass(DAY);
    m.exit_all(2).unwrap();
    // Bond and half of what two exits of a planck wait for: a point is worth half a planck.
    m.node.slash(2);
    m.pass(6 * DAY);
    m.sync().unwrap();
    m.check();
    m.add_bond(100 * UNIT).unwrap();
    m.deposit(3, 100 * UNIT).unwrap();
    assert!(m.exit_all(3).is_ok(), "{:?}", m.ledger);
    m.check();
    assert_eq!(m.leave(3), 100 * UNIT);
    assert!(m.leave(1) + m.leave(2) <= 1);
}

#[test]
fn pool_exits_of_a_slashed_queue_are_counted_anew() {
    let mut m = Model::new(UNIT);
    m.deposit(1, 99 * UNIT).unwrap();
    m.exit_all(1).unwrap();
    m.node.slash(100 * UNIT);
    assert!(m.sync().unwrap().written_off);
    m.check();
    m.add_bond(100 * UNIT).unwrap();
    m.deposit(2, 10 * UNIT).unwrap();
    m.exit_all(2).unwrap();
    m.check();
    assert_eq!(m.leave(2), 10 * UNIT);
    assert_eq!(m.leave(1), 0);
    assert!(m.eras.is_empty());
}

#[test]
fn pool_a_wiped_out_pool_takes_no_deposits() {
    let mut m = Model::new(10 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.node.slash(110 * UNIT - 1_000);
    m.sync().unwrap();
    m.add_bond(100 * UNIT).unwrap();
    assert_eq!(m.deposit(2, UNIT), Err(PoolError::WipedOut));
    assert_eq!(m.ledger.room(m.supply, &m.rules), Err(PoolError::WipedOut));
    // The others still can leave, and then there is nobody who lost anything.
    m.exit_all(1).unwrap();
    m.deposit(2, UNIT).unwrap();
    assert_eq!(m.value(2), UNIT);
    m.check();
}

#[test]
fn pool_dust_income_does_not_put_off_what_vests() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.reward(20 * UNIT);
    m.sync().unwrap();
    for _ in 0..24 {
        m.pass(HOUR);
        m.reward(1_000);
        m.sync().unwrap();
    }
    assert!(m.value(1) > 109 * UNIT - UNIT / 1_000, "{}", m.value(1));
    m.check();
}

#[test]
fn pool_cash_of_others_does_not_pay_an_exit_early() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    m.exit_all(1).unwrap();
    // Money for it is there at once, but it stays at risk as long as the stake that it had.
    m.deposit(2, 500 * UNIT).unwrap();
    m.pass(DAY);
    assert_eq!(m.claim(1), Ok(0));
    m.pass(7 * DAY - 1);
    assert_eq!((m.claim(1), m.ledger.due), (Ok(0), 0));
    m.node.slash(150 * UNIT);
    assert!(m.leave(1) < 100 * UNIT);
    m.check();
}

#[test]
fn pool_more_shares_than_one_has_are_refused() {
    let mut m = Model::new(100 * UNIT);
    m.deposit(1, 100 * UNIT).unwrap();
    assert_eq!(m.exit(1, m.supply + 1), Err(PoolError::NotEnoughShares));
    assert_eq!(m.exit(2, 1), Err(PoolError::NotEnoughShares));
    assert_eq!(m.exit(1, 0), Err(PoolError::NoAmount));
    assert_eq!(m.ledger.exit(m.supply, m.supply + 1, Era::default()), Err(PoolError::NotEnoughShares));
    assert_eq!(m.deposit(1, 0), Err(PoolError::NoAmount));
}

// ---- anybody does anything

#[derive(Clone, Debug)]
enum Act {
    Deposit(u8, Balance),
    Exit(u8, u32),
    Claim(u8),
    Give(u8, u8, u32),
    Reward(Balance),
    Gift(Balance),
    Slash(u32),
    Pass(Millis),
    Advance,
    Bond(Balance),
    Announce(u32),
    Collect,
    Close,
}

fn money() -> impl Strategy<Value = Balance> {
    (0u32..=60).prop_flat_map(|bits| 0..=(1u128 << bits))
}

fn act() -> impl Strategy<Value = Act> {
    let who = 1..5u8;
    prop_oneof![
        6 => (who.clone(), money()).prop_map(|(who, amount)| Act::Deposit(who, amount)),
        5 => (who.clone(), prop_oneof![1..=ONE, Just(ONE), 1..100u32]).prop_map(|(who, part)| Act::Exit(who, part)),
        4 => who.clone().prop_map(Act::Claim),
        1 => (who.clone(), who, 1..=ONE).prop_map(|(from, to, part)| Act::Give(from, to, part)),
        4 => money().prop_map(Act::Reward),
        1 => money().prop_map(Act::Gift),
        2 => prop_oneof![1..=ONE / 10, 1..=ONE, Just(ONE), Just(ONE - 1), 1..100u32].prop_map(Act::Slash),
        6 => prop_oneof![0..DAY, Just(DAY), 0..10 * DAY].prop_map(Act::Pass),
        4 => Just(Act::Advance),
        2 => money().prop_map(Act::Bond),
        1 => (0..=500u32).prop_map(Act::Announce),
        1 => Just(Act::Collect),
    ]
}

fn part(whole: Balance, ppb: u32) -> Balance {
    Ratio::from_ppb(ppb).of(whole)
}

impl Model {
    fn act(&mut self, act: &Act) -> Res<()> {
        let before = self.clone();
        let done = self.try_act(act);
        if done.is_err() {
            // As a reverted message.
            *self = before;
        }
        self.check();
        done
    }

    fn try_act(&mut self, act: &Act) -> Res<()> {
        let held = |m: &Model, who: u8| m.shares.get(&who).copied().unwrap_or_default();
        match *act {
            Act::Deposit(who, amount) => self.deposit(who, amount).map(drop),
            Act::Exit(who, ppb) => self.exit(who, part(held(self, who), ppb)).map(drop),
            Act::Claim(who) => self.claim(who).map(drop),
            Act::Give(from, to, ppb) => {
                let amount = part(held(self, from), ppb);
                *self.shares.entry(from).or_default() -= amount;
                *self.shares.entry(to).or_default() += amount;
                Ok(())
            }
            Act::Reward(amount) => {
                self.reward(amount);
                Ok(())
            }
            Act::Gift(amount) => {
                self.node.staked += amount;
                Ok(())
            }
            Act::Slash(ppb) => {
                self.node.slash(part(self.node.staked + self.node.unbonding(), ppb));
                Ok(())
            }
            Act::Pass(ms) => {
                self.pass(ms);
                Ok(())
            }
            Act::Advance => self.advance(),
            Act::Bond(amount) => self.add_bond(amount),
            Act::Announce(permille) => {
                self.announce(Terms { commission: Ratio::from_permille(permille), ..TERMS }).map(drop)
            }
            Act::Collect => self.collect().map(drop),
            Act::Close => {
                self.sync()?;
                self.ledger = self.ledger.close()?;
                Ok(())
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Whatever happens, the books balance after every act, every claim is covered, nothing fails that a holder needs, and in the end
    /// everybody is out and nothing is left.
    #[test]
    fn pool_books_balance_whatever_happens(bond in 1..1_000_000 * UNIT, acts in prop::collection::vec(act(), 1..60), close in any::<bool>()) {
        let mut m = Model::new(bond);
        for act in &acts {
            match m.act(act) {
                Ok(()) => {}
                Err(PoolError::Overflow) => prop_assert!(false, "{:?} overflows in {:?}", act, m.ledger),
                // These only for the reasons that they state.
                Err(error) => match act {
                    Act::Deposit(..) => {}
                    Act::Bond(0) => prop_assert_eq!(error, PoolError::NoAmount),
                    Act::Exit(..) => prop_assert!(matches!(error, PoolError::NoAmount | PoolError::TooManyExits)),
                    _ => prop_assert!(false, "{:?}: {:?}", act, error),
                },
            }
        }
        if close {
            m.act(&Act::Close).unwrap();
            for _ in 0..12 {
                m.pass(RULES.era_ms);
                m.act(&Act::Advance).unwrap();
            }
            prop_assert_eq!(m.ledger.stage, Stage::Closed);
        }
        for who in 1..5 {
            while m.exits.get(&who).is_some_and(|exits| exits.iter().count() == MAX_EXITS) {
                m.pass(RULES.era_ms);
                m.act(&Act::Claim(who)).unwrap();
            }
            if m.shares.get(&who).is_some_and(|shares| *shares > 0) {
                m.exit_all(who).unwrap();
                m.check();
            }
        }
        for _ in 0..40 {
            m.pass(RULES.era_ms);
            m.act(&Act::Advance).unwrap();
            for who in 1..5 {
                m.act(&Act::Claim(who)).unwrap();
            }
        }
        prop_assert!(m.exits.values().all(Exits::is_empty) && m.eras.is_empty(), "{:?}", m.ledger);
        prop_assert_eq!((m.supply, m.ledger.due, m.ledger.exiting, m.ledger.points), (0, 0, 0, 0));
        m.collect().unwrap();
        if close {
            prop_assert_eq!(m.account, 0, "the last planck has an owner");
        }
    }

    /// Nobody gains by what others do with their own money: a bystander's exit value is at least what it was, unless there was a slash.
    #[test]
    fn pool_a_bystander_loses_by_slashes_only(acts in prop::collection::vec(act(), 1..50)) {
        let mut m = Model::new(1_000 * UNIT);
        m.deposit(9, 50 * UNIT).unwrap();
        for act in &acts {
            if matches!(act, Act::Slash(_)) {
                continue;
            }
            m.sync().unwrap();
            let before = m.value(9);
            let _ = m.act(act);
            m.sync().unwrap();
            prop_assert!(m.value(9) >= before, "{:?}: {} < {}", act, m.value(9), before);
        }
    }

    /// In and out gives back at most what was put in, whatever happens in between but what gives to all that stay: rewards, gifts, and
    /// what others leave that has not vested.
    #[test]
    fn pool_in_and_out_makes_no_money(acts in prop::collection::vec(act(), 0..30), amount in 1..1_000_000 * UNIT, later in prop::collection::vec(act(), 0..10)) {
        let mut m = Model::new(1_000_000 * UNIT);
        for act in &acts {
            let _ = m.act(act);
        }
        if m.deposit(9, amount).is_err() {
            return Ok(());
        }
        for act in later.iter().filter(|act| !matches!(act, Act::Reward(_) | Act::Gift(_) | Act::Exit(..))) {
            let _ = m.act(act);
        }
        m.sync().unwrap();
        // Each act rounds in favour of who stays, by less than a planck or the price of one share.
        let grain = 1 + (m.ledger.active + m.ledger.vesting).checked_div(m.supply).unwrap_or_default();
        let most = amount + grain * (1 + later.len() as Balance);
        prop_assert!(m.value(9) <= most, "{} of {}", m.value(9), amount);
    }

    /// Two with the same shares: one exits before a slash, the other stays. They lose the same.
    #[test]
    fn pool_exit_timing_does_not_matter_to_a_slash(stake in 1_000..1_000_000 * UNIT, bond in 1..1_000_000 * UNIT, slash in 0..=ONE, wait in 0..7 * DAY) {
        let mut m = Model::new(bond);
        m.rules.first_loss = Ratio::from_ppb(1);
        m.deposit(1, stake).unwrap();
        m.deposit(2, stake).unwrap();
        m.exit_all(1).unwrap();
        m.pass(wait);
        m.sync().unwrap();
        let stays = m.value(2);
        m.node.slash(part(m.node.staked + m.node.unbonding(), slash));
        m.sync().unwrap();
        let left = m.value(2);
        let got = m.leave(1);
        prop_assert!(left <= stays);
        prop_assert!(close_to(got, left, 4 + stake / 100_000_000), "{} and {}", got, left);
    }

    /// Commission is never above what the terms said when it was earned, whoever syncs when.
    #[test]
    fn pool_commission_is_at_most_what_was_announced(times in prop::collection::vec((0..5 * DAY, 0..=500u32, any::<bool>(), 1..UNIT), 1..20)) {
        let mut m = Model::new(UNIT);
        // (from, commission): the terms as anybody could have read them.
        let mut history = vec![(0, TERMS.commission)];
        let mut earned = 0;
        for (wait, permille, announces, reward) in times {
            m.pass(wait);
            let since = m.ledger.synced_at;
            let highest = history
                .iter()
                .enumerate()
                .filter(|(i, (from, _))| *from <= m.now && history.get(i + 1).is_none_or(|(to, _)| *to > since))
                .map(|(_, (_, commission))| *commission)
                .max()
                .unwrap();
            m.reward(reward);
            let synced = m.sync().unwrap();
            earned += reward;
            prop_assert!(synced.commission <= highest.of(reward));
            if announces {
                let commission = Ratio::from_permille(permille);
                let from = m.announce(Terms { commission, ..TERMS }).unwrap();
                history.retain(|(start, _)| *start <= m.now);
                history.push((from, commission));
            }
        }
        prop_assert!(m.ledger.fees <= earned / 2, "the highest is a half");
    }
}
