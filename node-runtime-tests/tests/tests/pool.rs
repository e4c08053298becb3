//! Staking pools: the pool's Wasm beside the protocol's on the real runtime. The books' rules are tested in `poq-core`; here is what a
//! contract adds: money that really moves, the calls between the two contracts, who may do what, the token, and what it costs.
#![allow(clippy::unwrap_used, missing_docs)]

use parity_scale_codec::{Decode, Encode};
use poq_core::pool::{PoolError, Rules, Stage, Terms, VIRTUAL_SHARES};
use poq_core::registry::Role;
use poq_core::units::{Balance, Ratio};
use poq_pool_contract::errors::Error;
use poq_pool_contract::types::PoolNodeUpdate;
use poq_runtime_tests::pool::{call, Act, Actors, PSP22_TRANSFER, RULES, TERMS};
use poq_runtime_tests::{ink_account, ink_of, Pair, World, EPOCH_MS, UNBONDING_MS};
use poq_sandbox::{account_of, dev, UNIT};
use psp22::PSP22Error;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What an exit waits for at the longest: the rest of an era, the unbonding, and the quarter of it by which tranches are rounded up.
const EXIT_MS: u64 = EPOCH_MS + UNBONDING_MS + UNBONDING_MS / 4;

fn value(actors: &Actors, who: usize) -> Res<Balance> {
    Ok(actors.world.member(&actors.pool, &actors.holder(who))?.value)
}

/// Waits until an account's exits are paid; returns what came.
fn leave(actors: &mut Actors, who: usize) -> Res<Balance> {
    let holder = actors.holder(who);
    let before = actors.world.free(&holder)?;
    for _ in 0..EXIT_MS / EPOCH_MS + 3 {
        actors.act(&Act::Pass(EPOCH_MS))??;
        actors.act(&Act::Advance)??;
        actors.act(&Act::Claim(who))??;
    }
    assert!(actors.world.member(&actors.pool, &holder)?.exits.is_empty());
    // The account's index is not 0, which sends `advance`, nor does it claim for itself.
    Ok(actors.world.free(&holder)? - before)
}

#[test]
fn holders_join_earn_and_leave_with_the_money() -> Res {
    let mut actors = Actors::new(200 * UNIT, 3)?;
    let view = actors.world.pool_view(&actors.pool)?;
    assert_eq!((view.ledger.bond, view.supply, view.manager), (200 * UNIT, 0, ink_of(&actors.pool.manager)));
    assert_eq!(view.room, 100_000 * UNIT - 200 * UNIT);
    assert_eq!(actors.world.view(actors.pool.node)?.node.stake.bonded, 200 * UNIT);

    actors.act(&Act::Deposit(1, 600 * UNIT))??;
    let member = actors.world.member(&actors.pool, &actors.holder(1))?;
    assert_eq!((member.shares, member.value), (600 * UNIT * VIRTUAL_SHARES, 600 * UNIT));
    assert_eq!(actors.world.view(actors.pool.node)?.node.stake.bonded, 800 * UNIT, "it is staked at once");

    assert!(actors.task(true)?);
    let reward = actors.world.view(actors.pool.node)?.node.claimable;
    assert!(reward > 0);
    actors.act(&Act::Advance)??;
    let at_once = value(&actors, 1)? - 600 * UNIT;
    assert!(at_once < reward / 1_000, "what was earned vests in an era, not in a few blocks: {at_once}");
    actors.act(&Act::Pass(EPOCH_MS))??;
    let net = reward - reward / 10;
    let earned = value(&actors, 1)? - 600 * UNIT;
    assert!(earned.abs_diff(net * 3 / 4) < 1_000, "three quarters of it: {earned} of {net}");

    actors.act(&Act::Exit(1, 1_000))??;
    let worth = actors.world.member(&actors.pool, &actors.holder(1))?.exits[0].value;
    assert!(worth.abs_diff(600 * UNIT + earned) < 10);
    assert_eq!(leave(&mut actors, 1)?, worth);
    // The commission is the manager's, whole.
    let before = actors.world.free(&actors.pool.manager.clone())?;
    let manager = actors.pool.manager.clone();
    let pool = actors.pool.clone();
    let collected = actors.world.send_to(&pool, &manager, 0, call().collect())??;
    assert_eq!(collected.value, reward / 10);
    assert!(actors.world.free(&manager)? > before, "it pays its own fee");
    Ok(())
}

#[test]
fn pool_slashes_take_the_bond_first_then_shares_and_exits_alike() -> Res {
    let mut actors = Actors::new(UNIT, 4)?;
    actors.act(&Act::Deposit(1, 300 * UNIT))??;
    actors.act(&Act::Deposit(2, 300 * UNIT))??;
    actors.world.next_epoch()?;
    actors.act(&Act::Exit(1, 1_000))??;
    // Missed deadlines. The second in a row drains the node, which its manager may put back.
    let mut lost = 0;
    while lost < 2 * UNIT {
        if !actors.task(false)? {
            actors.act(&Act::Drain(false))??;
            actors.world.next_epoch()?;
            continue;
        }
        lost = actors.world.view(actors.pool.node)?.node.slashed;
    }
    actors.act(&Act::Advance)??;
    let view = actors.world.pool_view(&actors.pool)?;
    assert_eq!(view.ledger.bond, 0, "the bond went first");
    let rest = lost - UNIT;
    let (left, stays) =
        (actors.world.member(&actors.pool, &actors.holder(1))?.exits[0].value, value(&actors, 2)?);
    assert!(left.abs_diff(stays) < 10, "{left} and {stays}: who asked first loses what the other loses");
    assert!((600 * UNIT - left - stays).abs_diff(rest) < 10);
    // Nobody comes in behind a bond that is gone, but who is in leaves.
    let refused = actors.act(&Act::Deposit(3, UNIT))?;
    assert_eq!(refused, Err(Error::Pool(PoolError::TooLittleBond)));
    assert_eq!(leave(&mut actors, 1)?, left);
    actors.act(&Act::Exit(2, 1_000))??;
    assert!(leave(&mut actors, 2)?.abs_diff(stays) < 10);
    Ok(())
}

#[test]
fn pool_commission_rises_an_exit_after_it_was_announced() -> Res {
    let mut actors = Actors::new(200 * UNIT, 3)?;
    actors.act(&Act::Deposit(1, 200 * UNIT))??;
    assert_eq!(
        actors.act(&Act::Announce(301))?,
        Err(Error::Pool(PoolError::BadTerms)),
        "more than was promised"
    );
    actors.act(&Act::Announce(300))??;
    let from = actors.world.pool_view(&actors.pool)?.ledger.next_from;
    // Who asks to leave now is out when it begins, and pays the old one until then.
    actors.act(&Act::Exit(1, 1_000))??;
    let (pool, manager) = (actors.pool.clone(), actors.pool.manager.clone());
    let mut rates = Vec::new();
    for at in [from - 1_000_000, from + 1, from + 1_000_000] {
        let now = actors.world.chain.now_ms();
        actors.world.pass(at.saturating_sub(now))?;
        assert!(actors.task(true)?);
        let reward = actors.world.view(pool.node)?.node.claimable;
        let collected = actors.world.send_to(&pool, &manager, 0, call().collect())??.value;
        rates.push(Ratio::from_fraction(collected, reward).ppb().div_ceil(1_000_000));
    }
    // The second reward was booked by the first sync after the change: at the lower of both.
    assert_eq!(rates, [100, 100, 300]);
    Ok(())
}

#[test]
fn pool_gifts_to_its_account_are_nobodys() -> Res {
    let mut actors = Actors::new(200 * UNIT, 3)?;
    actors.act(&Act::Deposit(1, UNIT))??;
    let before = actors.world.pool_view(&actors.pool)?;
    actors.act(&Act::Gift(1_000_000 * UNIT))??;
    actors.act(&Act::Advance)??;
    let after = actors.world.pool_view(&actors.pool)?;
    assert_eq!(after.ledger.active, before.ledger.active);
    assert_eq!(after.ledger.cash, before.ledger.cash);
    actors.act(&Act::Deposit(2, UNIT))??;
    assert_eq!(value(&actors, 2)?, UNIT);
    Ok(())
}

#[test]
fn pool_exits_need_nobody_but_their_owner() -> Res {
    // The manager never sends anything again; a stranger keeps depositing and exiting a planck.
    let mut actors = Actors::new(200 * UNIT, 4)?;
    actors.act(&Act::Deposit(1, 100 * UNIT))??;
    actors.act(&Act::Deposit(2, 100))??;
    actors.act(&Act::Exit(1, 1_000))??;
    let asked = actors.world.chain.now_ms();
    let holder = actors.holder(1);
    let before = actors.world.free(&holder)?;
    while actors.world.free(&holder)? == before {
        actors.act(&Act::Pass(EPOCH_MS / 3))??;
        actors.act(&Act::Deposit(2, 1))??;
        // It may run into the bound on its own exits, which is its own affair.
        let _ = actors.act(&Act::Exit(2, 10))?;
        let _ = actors.act(&Act::Claim(2))?;
        actors.act(&Act::Claim(1))??;
        assert!(actors.world.chain.now_ms() <= asked + EXIT_MS + EPOCH_MS);
    }
    assert_eq!(actors.world.free(&holder)? - before, 100 * UNIT);
    Ok(())
}

#[test]
fn a_pool_closes_and_everybody_is_paid() -> Res {
    let mut actors = Actors::new(200 * UNIT, 4)?;
    for who in 1..4 {
        actors.act(&Act::Deposit(who, 100 * UNIT))??;
    }
    assert!(actors.task(true)?);
    actors.act(&Act::Exit(1, 1_000))??;
    actors.act(&Act::Close)??;
    assert_eq!(actors.act(&Act::Deposit(2, UNIT))?, Err(Error::Pool(PoolError::Closing)));
    assert_eq!(actors.act(&Act::Drain(false))?, Err(Error::Pool(PoolError::Closing)), "its node stays out");
    assert_eq!(actors.act(&Act::Close)?, Err(Error::Pool(PoolError::Closing)));
    let paid = leave(&mut actors, 1)?;
    assert!(paid.abs_diff(100 * UNIT) < 10);
    for _ in 0..4 {
        actors.act(&Act::Pass(EPOCH_MS))??;
        actors.act(&Act::Advance)??;
    }
    let view = actors.world.pool_view(&actors.pool)?;
    assert_eq!(view.ledger.stage, Stage::Closed);
    for who in [2, 3] {
        let (holder, worth) = (actors.holder(who), value(&actors, who)?);
        assert!(worth > 100 * UNIT);
        let before = actors.world.free(&holder)?;
        actors.act(&Act::Exit(who, 1_000))??;
        // At once, less the fee of the message, and with the deposit for the balance's cell.
        assert!((before + worth).abs_diff(actors.world.free(&holder)?) < UNIT);
    }
    actors.act(&Act::Collect)??;
    let view = actors.world.pool_view(&actors.pool)?;
    assert_eq!((view.ledger.cash, view.supply), (0, 0), "the last planck has an owner");
    Ok(())
}

#[test]
fn pool_rules_must_fit_the_contract_that_the_node_is_in() -> Res {
    let mut world = World::new()?;
    let bad = Err(Error::Pool(PoolError::BadRules));
    let role = Role::Evaluator;
    let made = |result: Result<_, Error>| result.map(|_: poq_runtime_tests::pool::TestPool| ());
    let short_era = Rules { era_ms: EPOCH_MS - 1, ..RULES };
    assert_eq!(made(world.pool(role, UNIT, short_era, TERMS)?), bad);
    let short_exit = Rules { exit_ms: UNBONDING_MS - 1, ..RULES };
    assert_eq!(made(world.pool(role, UNIT, short_exit, TERMS)?), bad);
    let dear = Terms { commission: Ratio::from_permille(301), ..TERMS };
    assert_eq!(made(world.pool(role, UNIT, RULES, dear)?), Err(Error::Pool(PoolError::BadTerms)));
    assert_eq!(made(world.pool(role, 0, RULES, TERMS)?), Err(Error::Pool(PoolError::NoAmount)));
    assert_eq!(made(world.pool(role, UNIT, RULES, TERMS)?), Ok(()));
    // An address where there is no contract.
    world.contract = account_of(&dev::bob());
    assert_eq!(made(world.pool(role, UNIT, RULES, TERMS)?), Err(Error::NoAnswer));
    Ok(())
}

#[test]
fn only_the_manager_manages_and_hands_over_in_two_steps() -> Res {
    let mut actors = Actors::new(200 * UNIT, 2)?;
    let (pool, stranger, manager) = (actors.pool.clone(), actors.holder(0), actors.pool.manager.clone());
    let world = &mut actors.world;
    let update = PoolNodeUpdate { price: Some(7), ..PoolNodeUpdate::default() };
    let refused = Err(Error::NotManager);
    assert_eq!(world.send_to(&pool, &stranger, 1, call().add_bond())?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().collect())?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().announce(TERMS))?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().configure(update.clone()))?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().drain())?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().resume())?.map(|_| ()), refused);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().close())?.map(|_| ()), refused);
    let own = ink_of(&stranger);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().propose_manager(own))?.map(|_| ()), refused);
    let nobody = Err(Error::NotProposed);
    assert_eq!(world.send_to(&pool, &stranger, 0, call().accept_management())?.map(|_| ()), nobody);
    assert_eq!(world.send_to(&pool, &manager, 0, call().accept_management())?.map(|_| ()), nobody);

    world.send_to(&pool, &manager, 0, call().configure(update))??;
    let node = world.view(pool.node)?.node;
    assert_eq!(
        (node.price, node.payee, node.owner),
        (7, ink_account(&pool.address), ink_account(&pool.address))
    );
    world.send_to(&pool, &manager, 0, call().propose_manager(own))??;
    world.send_to(&pool, &stranger, 0, call().accept_management())??;
    assert_eq!(world.pool_view(&pool)?.manager, own);
    assert_eq!(world.send_to(&pool, &manager, 0, call().drain())?.map(|_| ()), refused);
    // Nor can anybody go past the pool: the node's owner is a contract.
    let past = world.send(&stranger, 0, poq_runtime_tests::call().unstake(pool.node, UNIT))?;
    assert_eq!(past.map(|_| ()).unwrap_err(), poq_contract::errors::Error::NotNodeOwner);
    Ok(())
}

/// A PSP22 message by its standard selector.
fn psp22(
    actors: &mut Actors,
    signer: &Pair,
    selector: [u8; 4],
    arguments: impl Encode,
) -> Res<Result<(), PSP22Error>> {
    let data = [selector.to_vec(), arguments.encode()].concat();
    let pool = actors.pool.clone();
    Ok(actors.world.send_raw::<(), PSP22Error>(&pool, signer, 0, data)?.map(|_| ()))
}

fn ask<R: Decode>(actors: &Actors, selector: [u8; 4], arguments: impl Encode) -> Res<R> {
    actors.world.read_raw(&actors.pool, [selector.to_vec(), arguments.encode()].concat())
}

#[test]
fn shares_are_a_psp22_token() -> Res {
    // The selectors are the standard's (PSP22, "Interface"), so that any wallet can move shares.
    const TOTAL_SUPPLY: [u8; 4] = [0x16, 0x2d, 0xf8, 0xc2];
    const BALANCE_OF: [u8; 4] = [0x65, 0x68, 0x38, 0x2f];
    const ALLOWANCE: [u8; 4] = [0x4d, 0x47, 0xd9, 0x21];
    const TRANSFER_FROM: [u8; 4] = [0x54, 0xb3, 0xc7, 0x6e];
    const APPROVE: [u8; 4] = [0xb2, 0x0f, 0x1b, 0xbd];
    const INCREASE_ALLOWANCE: [u8; 4] = [0x96, 0xd6, 0xb5, 0x7a];
    const DECREASE_ALLOWANCE: [u8; 4] = [0xfe, 0xcb, 0x57, 0xd5];
    const TOKEN_NAME: [u8; 4] = [0x3d, 0x26, 0x1b, 0xd4];
    const TOKEN_SYMBOL: [u8; 4] = [0x34, 0x20, 0x5b, 0xe5];
    const TOKEN_DECIMALS: [u8; 4] = [0x72, 0x71, 0xb7, 0x82];

    let mut actors = Actors::new(200 * UNIT, 3)?;
    actors.act(&Act::Deposit(0, UNIT))??;
    let shares = UNIT * VIRTUAL_SHARES;
    let (owner, spender, other) = (actors.holder(0), actors.holder(1), actors.holder(2));
    let (owner_id, spender_id, other_id) = (ink_of(&owner), ink_of(&spender), ink_of(&other));
    assert_eq!(ask::<u128>(&actors, TOTAL_SUPPLY, ())?, shares);
    assert_eq!(ask::<u128>(&actors, BALANCE_OF, owner_id)?, shares);
    assert_eq!(ask::<Option<String>>(&actors, TOKEN_NAME, ())?, Some("Pool of tests".into()));
    assert_eq!(ask::<Option<String>>(&actors, TOKEN_SYMBOL, ())?, Some("sPOQ".into()));
    assert_eq!(ask::<u8>(&actors, TOKEN_DECIMALS, ())?, 18);

    let none = Vec::<u8>::new();
    psp22(&mut actors, &owner, PSP22_TRANSFER, (other_id, shares / 4, none.clone()))?.unwrap();
    let too_much = psp22(&mut actors, &owner, PSP22_TRANSFER, (other_id, shares, none.clone()))?;
    assert_eq!(too_much, Err(PSP22Error::InsufficientBalance));
    psp22(&mut actors, &owner, APPROVE, (spender_id, shares / 4))?.unwrap();
    psp22(&mut actors, &owner, INCREASE_ALLOWANCE, (spender_id, shares / 4))?.unwrap();
    psp22(&mut actors, &owner, DECREASE_ALLOWANCE, (spender_id, shares / 4))?.unwrap();
    assert_eq!(ask::<u128>(&actors, ALLOWANCE, (owner_id, spender_id))?, shares / 4);
    psp22(&mut actors, &spender, TRANSFER_FROM, (owner_id, other_id, shares / 4, none.clone()))?.unwrap();
    let again = psp22(&mut actors, &spender, TRANSFER_FROM, (owner_id, other_id, 1u128, none))?;
    assert_eq!(again, Err(PSP22Error::InsufficientAllowance));
    assert_eq!(ask::<u128>(&actors, BALANCE_OF, other_id)?, shares / 2);
    // Shares are worth the same whoever has them, and can be exited by whoever has them.
    assert_eq!(value(&actors, 2)?, UNIT / 2);
    actors.act(&Act::Exit(2, 1_000))??;
    let events = actors.world.chain.contract_events(actors.world.chain.best().hash, &actors.pool.address)?;
    // The standard's events, by their signature.
    let signature = poq_runtime_tests::blake2(b"Transfer(Option<AccountId>,Option<AccountId>,u128)");
    let burned = events.iter().find(|event| event.topics.first().is_some_and(|topic| topic.0 == signature));
    let data = burned.expect("a burn is a transfer to nobody").data.clone();
    let (from, to, amount) = <(Option<[u8; 32]>, Option<[u8; 32]>, u128)>::decode(&mut &data[..]).unwrap();
    assert_eq!((from, to, amount), (Some(*account_of(&other).as_ref()), None, shares / 2));
    Ok(())
}

#[test]
fn what_a_message_costs_does_not_depend_on_how_many_are_in_the_pool() -> Res {
    let mut actors = Actors::new(200 * UNIT, 12)?;
    let mut costs = Vec::new();
    let pool = actors.pool.clone();
    for who in 0..12 {
        let holder = actors.holder(who);
        let sent = actors.world.send_to(&pool, &holder, UNIT, call().deposit())??;
        // Its balance is a new cell of its own.
        assert!(sent.deposit > 0 && sent.deposit < i128::try_from(UNIT / 2)?, "{}", sent.deposit);
        costs.push(sent.report.weight.ref_time());
        let half = actors.world.member(&pool, &holder)?.shares / 2;
        actors.world.send_to(&pool, &holder, 0, call().exit(half))??;
    }
    let (least, most) = (costs[1..].iter().min().unwrap(), costs[1..].iter().max().unwrap());
    assert!(most - least < least / 10, "{costs:?}");
    // A message that does everything at once: rewards, unbonded stake, an era to pay, one to end, one to stake.
    actors.task(true)?;
    actors.act(&Act::Pass(EXIT_MS))??;
    let holder = actors.holder(0);
    let sent = actors.world.send_to(&pool, &holder, 0, call().advance())??;
    let block: u64 = 1_500_000_000_000;
    assert!(sent.report.weight.ref_time() < block / 50, "{}", sent.report.weight.ref_time());
    Ok(())
}

// ---- anybody does anything

/// Numbers for the fuzz: any sequence of the same seed is the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn money(&mut self) -> Balance {
        let bits = self.next(50);
        Balance::from(self.next(1 << bits)) + 1
    }

    fn act(&mut self) -> Act {
        let who = self.next(4) as usize;
        let part = [1, 10, 333, 999, 1_000][self.next(5) as usize];
        match self.next(40) {
            0..=8 => Act::Deposit(who, self.money()),
            9..=15 => Act::Exit(who, part),
            16..=20 => Act::Claim(who),
            21 => Act::Give(who, self.next(4) as usize, part),
            22..=25 => Act::Advance,
            26 => Act::AddBond(self.money()),
            27 => Act::Collect,
            28 => Act::Announce(self.next(400) as u16),
            29 => Act::Drain(self.next(2) == 0),
            30 => Act::Usurp(self.next(20) as usize),
            31 => Act::Gift(self.money()),
            32..=33 => Act::Task(self.next(2) == 0),
            _ => Act::Pass([1_000, EPOCH_MS / 2, EPOCH_MS, UNBONDING_MS][self.next(4) as usize]),
        }
    }
}

/// Random acts of random actors; after each the pool's books, its money, its node and the protocol's books are checked. In the end
/// everybody leaves. `POQ_FUZZ_ACTS` says how many acts (150), `POQ_FUZZ_SEED` which.
#[test]
fn pool_fuzz_keeps_every_invariant() -> Res {
    let number =
        |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (acts, seed) = (number("POQ_FUZZ_ACTS", 150), number("POQ_FUZZ_SEED", 9));
    let mut numbers = Numbers(seed);
    let mut actors = Actors::new(150 * UNIT, 4)?;
    let (mut accepted, mut refused) = (0, 0);
    for step in 0..acts {
        let act = numbers.act();
        let done = actors.act(&act).map_err(|error| format!("seed {seed}, act {step}, {act:?}: {error}"))?;
        match done {
            Ok(()) => accepted += 1,
            Err(Error::Pool(PoolError::Overflow)) => return Err(format!("{act:?} overflows").into()),
            // The rest of a planck, what nobody has, what only the manager may: refused for the reason that it states.
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > acts / 2, "{accepted} accepted, {refused} refused: that shows nothing");
    actors.act(&Act::Close)??;
    for who in 0..4 {
        let _ = actors.act(&Act::Exit(who, 1_000))?;
    }
    for _ in 0..16 {
        actors.act(&Act::Pass(EPOCH_MS))??;
        actors.act(&Act::Advance)??;
        for who in 0..4 {
            // What is too little for a new account is theirs for ever; these accounts live.
            actors.act(&Act::Claim(who))??;
        }
    }
    assert_eq!(actors.world.pool_view(&actors.pool)?.ledger.stage, Stage::Closed);
    for who in 0..4 {
        let _ = actors.act(&Act::Exit(who, 1_000))?;
    }
    actors.act(&Act::Collect)??;
    let view = actors.world.pool_view(&actors.pool)?;
    assert_eq!((view.supply, view.ledger.cash), (0, 0), "everybody is out: {view:?}");
    Ok(())
}
