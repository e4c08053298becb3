//! The registry by epochs and the draw: versions, places, proportionality, and what an attacker gets.
//!
//! h4 and h5 are the numbers of an audit's findings: that a draw can be ground, and that declaring models buys seats.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use poq_core::registry::*;
use poq_core::units::{Millis, NodeId, ONE};
use poq_core::Ratio;
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

const POOL: PoolId = PoolId { kind: 1, role: Role::Evaluator };

#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    owner: Account,
    standing: Standing,
    stake: u128,
    trust: Ratio,
    active: bool,
    /// What it says that its model is: nothing reads it.
    model: u32,
}

impl Registered for Node {
    fn standing(&self) -> &Standing {
        &self.standing
    }
    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
    fn owner(&self) -> Account {
        self.owner
    }
}

/// A storage that counts its accesses.
#[derive(Clone, Default)]
struct Store {
    counts: HashMap<PoolId, Ver<Counts>>,
    members: HashMap<(PoolId, u8, u32), Ver<NodeId>>,
    nodes: BTreeMap<NodeId, Node>,
    last: NodeId,
    reads: Cell<u32>,
    writes: u32,
}

impl Registry for Store {
    type Node = Node;
    fn counts(&self, pool: PoolId) -> Ver<Counts> {
        self.reads.set(self.reads.get() + 1);
        self.counts.get(&pool).copied().unwrap_or_default()
    }
    fn member(&self, pool: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        self.reads.set(self.reads.get() + 1);
        self.members.get(&(pool, class, index)).copied().unwrap_or_default()
    }
    fn node(&self, id: NodeId) -> Option<Node> {
        self.reads.set(self.reads.get() + 1);
        self.nodes.get(&id).cloned()
    }
}

impl RegistryMut for Store {
    fn set_counts(&mut self, pool: PoolId, counts: &Ver<Counts>) {
        self.writes += 1;
        self.counts.insert(pool, *counts);
    }
    fn set_member(&mut self, pool: PoolId, class: u8, index: u32, member: &Ver<NodeId>) {
        self.writes += 1;
        self.members.insert((pool, class, index), *member);
    }
    fn set_node(&mut self, id: NodeId, node: &Node) {
        self.writes += 1;
        self.nodes.insert(id, node.clone());
    }
}

const MIN: u128 = 10;
const CAP: u128 = 1_000;

impl Store {
    fn weight(&self, node: &Node) -> Ratio {
        weight_of(node.active, node.stake, node.trust, MIN, CAP)
    }

    /// An owner's act.
    fn act(&mut self, now: Epoch, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = self.nodes[&id].clone();
        change(&mut node);
        let weight = self.weight(&node);
        place(self, POOL, now, id, &mut node, weight).unwrap();
        self.nodes.insert(id, node);
    }

    fn register(&mut self, now: Epoch, owner: u32, stake: u128, trust: Ratio) -> NodeId {
        self.last += 1;
        let node = Node {
            owner: account(owner),
            standing: Standing::default(),
            stake,
            trust,
            active: true,
            model: self.last,
        };
        self.nodes.insert(self.last, node);
        self.act(now, self.last, |_| {});
        self.last
    }

    /// A settlement.
    fn settle(&mut self, now: Epoch, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = self.nodes[&id].clone();
        change(&mut node);
        let weight = self.weight(&node);
        node.standing.reweigh(now, weight);
        self.nodes.insert(id, node);
    }

    /// Everything that a draw of an epoch can see: places, members, weights clipped to the class.
    fn view(&self, epoch: Epoch) -> Vec<(u8, u32, NodeId, Ratio)> {
        let counts = self.counts.get(&POOL).copied().unwrap_or_default();
        let counts = *counts.at(epoch).expect("an epoch that is kept");
        counts
            .places()
            .map(|(class, index)| {
                let id = *self.members[&(POOL, class, index)].at(epoch).expect("a place that is kept");
                // A node may go while an older epoch still has a place for it, without weight.
                let weight =
                    self.nodes.get(&id).map_or(Ratio::ZERO, |node| *node.standing.weight.at(epoch).unwrap());
                (class, index, id, weight.min(pool::bound(class)))
            })
            .collect()
    }

    fn panel(&self, draw: &Draw<'_>) -> Vec<NodeId> {
        poq_core::registry::draw(self, draw, blake2, |_, _| true)
            .unwrap()
            .seats
            .iter()
            .map(|(id, _)| *id)
            .collect()
    }
}

fn account(owner: u32) -> Account {
    let mut account = [0; 32];
    account[..4].copy_from_slice(&owner.to_le_bytes());
    account
}

fn blake2(bytes: &[u8]) -> [u8; 32] {
    use blake2::digest::consts::U32;
    use blake2::Digest;
    blake2::Blake2b::<U32>::digest(bytes).into()
}

fn of(sealed: Epoch, now: Epoch, seed: [u8; 32], seats: u8) -> Draw<'static> {
    Draw { pool: POOL, sealed, now, seed, round: 0, seats, seated: &[], excluded: &[] }
}

// ---- epochs

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Against a model that remembers every epoch.
    #[test]
    fn a_value_is_known_as_it_was(steps in prop::collection::vec((0u32..4, any::<u8>()), 1..60)) {
        let mut value = Ver::<u8>::default();
        let mut known = vec![0u8; 400];
        let mut now = 0u32;
        for (pass, new) in steps {
            now += pass;
            value.set(now, new);
            known[now as usize + 1..].fill(new);
            for epoch in now.saturating_sub(1)..now + 4 {
                prop_assert_eq!(value.at(epoch), Some(&known[epoch as usize]), "epoch {} in {}", epoch, now);
            }
            prop_assert_eq!(*value.latest(), new);
        }
    }
}

#[test]
fn what_is_forgotten_is_not_guessed() {
    let mut value = Ver::new(7u8);
    value.set(10, 8);
    assert_eq!(value.at(11), Some(&8));
    assert_eq!(value.at(9), Some(&7));
    assert_eq!(value.at(8), None);
    assert_eq!(epoch_of(599_999, 300_000), 1);
    assert_eq!(epoch_of(u64::MAX, 1), Epoch::MAX);
    assert_eq!(epoch_of(5, 0), 0);
    let store = Store::default();
    let refused = draw(&store, &of(3, 5, [0; 32], 3), blake2, |_, _| true);
    assert_eq!(refused.unwrap_err(), Error::Forgotten);
}

// ---- classes and picks

#[test]
fn classes_hold_a_power_of_two_each() {
    assert_eq!(class_of(Ratio::ZERO), None);
    assert_eq!(class_of(Ratio::ONE), Some(0));
    assert_eq!(class_of(Ratio::from_ppb(ONE / 2 + 1)), Some(0));
    assert_eq!(class_of(Ratio::from_ppb(ONE / 2)), Some(1));
    assert_eq!(class_of(Ratio::from_ppb(ONE >> 15)), Some(15));
    assert_eq!(class_of(Ratio::from_ppb(1)), Some(15));
    for ppb in (1..=ONE).step_by(999_983) {
        let (weight, class) = (Ratio::from_ppb(ppb), class_of(Ratio::from_ppb(ppb)).unwrap());
        assert!(weight <= pool::bound(class) && (class == 15 || weight > pool::bound(class + 1)), "{weight}");
    }
    assert!(Counts::default().pick(5, pool::By::Weight).is_none());
    let full = Counts([u32::MAX; CLASSES]);
    for by in [pool::By::Weight, pool::By::Square] {
        assert!(full.pick(u128::MAX, by).is_some());
    }
}

/// The chi-square statistic of counts against what is expected of them.
fn chi_square(counts: &[(f64, f64)]) -> f64 {
    counts.iter().map(|(seen, expected)| (seen - expected).powi(2) / expected).sum()
}

/// A bound that chi-square exceeds less than once in a thousand times (Wilson and Hilferty).
fn chi_bound(degrees: f64) -> f64 {
    let v = 2.0 / (9.0 * degrees);
    degrees * (1.0 - v + 3.09 * v.sqrt()).powi(3)
}

/// Sixty nodes of all weights, some of them settled far below or above their class since they were placed.
fn mixed(rng: &mut ChaCha8Rng) -> Store {
    let mut store = Store::default();
    for owner in 0..60 {
        let trust = Ratio::from_ppb(rng.random_range(ONE / 20..=ONE));
        store.register(0, owner, rng.random_range(MIN..=2 * CAP), trust);
    }
    for id in 1..=20 {
        store.settle(0, id, |node| node.trust = Ratio::from_ppb(rng.random_range(ONE / 20..=ONE)));
    }
    store
}

#[test]
fn a_pick_is_proportional_to_the_weight_of_the_epoch() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut store = mixed(&mut rng);
    let view = store.view(1);
    // The present epoch moves on; the draw does not.
    for id in 1..=60 {
        store.act(1, id, |node| node.stake = MIN + u128::from(id));
    }
    let total: f64 = view.iter().map(|(.., weight)| f64::from(weight.ppb())).sum();
    let mut seats = HashMap::<NodeId, f64>::new();
    let draws = 200_000;
    for i in 0u32..draws {
        let first = store.panel(&of(1, 1 + i % 2, blake2(&i.to_le_bytes()), 1));
        *seats.entry(first[0]).or_default() += 1.0;
    }
    let counts: Vec<(f64, f64)> = view
        .iter()
        .map(|(_, _, id, weight)| {
            (seats.get(id).copied().unwrap_or(0.0), f64::from(draws) * f64::from(weight.ppb()) / total)
        })
        .collect();
    let statistic = chi_square(&counts);
    assert!(statistic < chi_bound(59.0), "chi-square {statistic} at 59 degrees of freedom");
}

/// What a seat's law is said to be: by weight, and where that hits a seated owner, by its square among the others. Every ordered
/// panel of three of five is as frequent as that, whether picks or the scan found it.
#[test]
fn picks_and_scan_follow_one_law() {
    let weights = [1_000u32, 500, 300, 120, 90].map(Ratio::from_permille);
    for below in [1u32, 40] {
        let mut store = Store::default();
        for (owner, weight) in (0..).zip(weights) {
            store.register(0, owner, CAP, weight);
        }
        // Far below their class: most picks are refused, and the scan has to finish.
        for id in 1..=5 {
            store.settle(0, id, |node| node.trust = Ratio::from_ppb(node.trust.ppb() / below));
        }
        let w = weights.map(|weight| f64::from(weight.ppb()));
        let all: f64 = w.iter().sum();
        let law = |seated: &[usize], next: usize| {
            let free: f64 = (0..5).filter(|i| !seated.contains(i)).map(|i| w[i] * w[i]).sum();
            let hit: f64 = seated.iter().map(|i| w[*i]).sum::<f64>() / all;
            w[next] / all + hit * w[next] * w[next] / free
        };
        let mut seen = HashMap::<Vec<NodeId>, f64>::new();
        let draws = 60_000u32;
        for i in 0..draws {
            let panel = store.panel(&of(1, 1, blake2(&(i, below).encode_bytes()), 3));
            assert_eq!(panel.len(), 3);
            *seen.entry(panel).or_default() += 1.0;
        }
        let mut counts = Vec::new();
        for a in 0..5 {
            for b in (0..5).filter(|b| *b != a) {
                for c in (0..5).filter(|c| *c != a && *c != b) {
                    let p = law(&[], a) * law(&[a], b) * law(&[a, b], c);
                    let panel = [a, b, c].map(|i| i as NodeId + 1).to_vec();
                    counts.push((seen.get(&panel).copied().unwrap_or(0.0), p * f64::from(draws)));
                }
            }
        }
        let statistic = chi_square(&counts);
        assert!(statistic < chi_bound(59.0), "below {below}: chi-square {statistic} at 59 degrees");
    }
}

trait EncodeBytes {
    fn encode_bytes(&self) -> Vec<u8>;
}
impl EncodeBytes for (u32, u32) {
    fn encode_bytes(&self) -> Vec<u8> {
        [self.0.to_le_bytes(), self.1.to_le_bytes()].concat()
    }
}

#[test]
fn a_stream_numbers_its_blocks_by_round() {
    for round in [0u8, 1] {
        let mut stream = Stream::new([9; 32], round);
        for i in 0u32..300 {
            let mut block = vec![9u8; 32];
            block.push(round);
            block.extend(i.to_le_bytes());
            let number = u128::from_le_bytes(blake2(&block)[..16].try_into().unwrap());
            assert_eq!(stream.next(blake2), number);
        }
    }
}

#[test]
fn a_seed_binds_every_part() {
    let base = panel_seed(&[1; 32], 3, &[4; 32], &[[5; 32], [6; 32]]);
    let others = [
        panel_seed(&[0; 32], 3, &[4; 32], &[[5; 32], [6; 32]]),
        panel_seed(&[1; 32], 0, &[4; 32], &[[5; 32], [6; 32]]),
        panel_seed(&[1; 32], 3, &[0; 32], &[[5; 32], [6; 32]]),
        panel_seed(&[1; 32], 3, &[4; 32], &[[6; 32], [5; 32]]),
        panel_seed(&[1; 32], 3, &[4; 32], &[[5; 32]]),
        inference_seed(&[1; 32], 3, &[4; 32]),
    ];
    assert!(others.iter().all(|other| *other != base));
}

// ---- places

/// Sixty thousand acts, settlements and passing epochs. After each: what could be read of this epoch and the one before reads the
/// same, each node has one place, and it is where its weight belongs; drawn panels stay what they were.
#[test]
fn nothing_of_this_epoch_or_earlier_ever_changes() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut store = Store::default();
    let mut now: Epoch = 5;
    let mut known: BTreeMap<Epoch, Vec<(u8, u32, NodeId, Ratio)>> = BTreeMap::new();
    let mut panels: Vec<(Epoch, [u8; 32], Vec<NodeId>)> = Vec::new();
    let mut cells = 0;
    let (mut as_of, mut done) = (0u32, [0u32; 9]);
    known.extend([(now - 1, Vec::new()), (now, Vec::new())]);
    for step in 0u32..60_000 {
        if rng.random_bool(0.02) {
            let next = now + rng.random_range(1..4);
            let latest = store.view(now + 1);
            known.extend((now + 1..=next).map(|epoch| (epoch, latest.clone())));
            now = next;
            known = known.split_off(&(now - 1));
            panels.retain(|(sealed, ..)| sealed + 1 >= now);
            if !known[&now].is_empty() {
                let seed = blake2(&step.to_le_bytes());
                panels.push((now, seed, store.panel(&of(now, now, seed, 5))));
            }
        }
        let ids: Vec<NodeId> = store.nodes.keys().copied().collect();
        let what = if ids.len() < 40 { 0 } else { rng.random_range(0..9usize) };
        done[what] += 1;
        let id = ids.choose(&mut rng).copied().unwrap_or(0);
        let trust = Ratio::from_ppb(rng.random_range(ONE / 20..=ONE));
        let amount = rng.random_range(1..CAP);
        match what {
            0 if ids.len() < 90 => {
                // One in three with less than the minimum.
                let stake = if rng.random_bool(0.3) { 0 } else { rng.random_range(MIN..2 * CAP) };
                store.register(now, rng.random_range(0..50), stake, trust);
            }
            1 => store.act(now, id, |node| node.stake += amount),
            2 => store.act(now, id, |node| node.stake = node.stake.saturating_sub(amount)),
            3 => store.act(now, id, |node| node.active = false),
            4 => store.act(now, id, |node| node.active = true),
            5 => store.act(now, id, |_| {}),
            6 => store.settle(now, id, |node| node.trust = trust),
            7 => store.settle(now, id, |node| node.stake = node.stake.saturating_sub(amount)),
            8 => {
                store.act(now, id, |node| node.stake = 0);
                store.nodes.retain(|_, node| !node.standing.is_out(now) || rng.random_bool(0.9));
            }
            _ => {}
        }
        for (epoch, view) in &known {
            assert_eq!(store.view(*epoch), *view, "step {step}: epoch {epoch} in {now}");
            as_of += 1;
        }
        for (sealed, seed, panel) in &panels {
            assert_eq!(store.panel(&of(*sealed, now, *seed, 5)), *panel, "step {step}");
        }
        let next = store.view(now + 1);
        let mut members: Vec<NodeId> = next.iter().map(|(_, _, id, _)| *id).collect();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), next.len(), "step {step}: a node has two places");
        for (class, index, id, _) in next {
            assert_eq!(store.nodes[&id].standing.place, Place { class, index }, "step {step}");
        }
        let placed = store.nodes.values().filter(|node| node.standing.place != Place::NONE).count();
        assert_eq!(placed, members.len());
        // No cell is ever removed.
        assert!(store.members.len() >= cells);
        cells = store.members.len();
    }
    assert!(as_of >= 120_000 && done.iter().all(|n| *n > 3_000), "{as_of} {done:?}");
}

#[test]
fn a_settlement_touches_no_pool() {
    let mut store = mixed(&mut ChaCha8Rng::seed_from_u64(3));
    let before = (store.counts.clone(), store.members.clone());
    let weight = |store: &Store, id: NodeId, epoch| *store.nodes[&id].standing.weight.at(epoch).unwrap();
    let was = weight(&store, 30, 5);
    store.settle(5, 30, |node| node.trust = Ratio::from_ppb(1_000));
    assert_eq!(weight(&store, 30, 5), was);
    assert!(weight(&store, 30, 6).ppb() <= 1_000);
    assert_eq!((store.counts.clone(), store.members.clone()), before);
    // Above its class it counts as the class's bound until it is placed anew.
    store.settle(5, 30, |node| (node.stake, node.trust) = (CAP, Ratio::ONE));
    let seen = store.view(6).into_iter().find(|(_, _, id, _)| *id == 30).unwrap();
    assert_eq!(seen.3, pool::bound(seen.0));
    assert!(store.nodes[&30].standing.is_stale(Ratio::ONE));
    store.act(6, 30, |_| {});
    assert!(!store.nodes[&30].standing.is_stale(Ratio::ONE));
    assert_eq!(store.nodes[&30].standing.place.class, 0);
}

#[test]
fn a_node_can_go_once_no_draw_can_meet_it() {
    let mut store = Store::default();
    let id = store.register(0, 1, CAP, Ratio::ONE);
    store.act(4, id, |node| node.stake = 0);
    let out = |store: &Store, now| store.nodes[&id].standing.is_out(now);
    assert!(!out(&store, 4) && !out(&store, 5) && out(&store, 6));
    // A draw of the last epoch in which it counted still finds it, until then.
    assert_eq!(store.panel(&of(4, 5, [1; 32], 1)), vec![id]);
}

/// A new kind's first nodes are drawn at once; they take no part in older draws as soon as there are any.
#[test]
fn an_empty_pool_draws_from_the_present() {
    let mut store = Store::default();
    for owner in 0..5 {
        store.register(7, owner, CAP, Ratio::ONE);
    }
    for sealed in [6, 7] {
        assert_eq!(store.panel(&of(sealed, 7, [1; 32], 3)).len(), 3);
    }
    for owner in 5..9 {
        store.register(8, owner, CAP, Ratio::ONE);
    }
    for i in 0u32..200 {
        assert!(store.panel(&of(8, 9, blake2(&i.to_le_bytes()), 5)).iter().all(|id| *id <= 5));
    }
}

/// Owners that answer or ask have no seat; one owner has one; who cannot take a duty has none; seats left empty are filled once, by
/// others.
#[test]
fn seats_go_to_those_who_fit() {
    let mut store = Store::default();
    for owner in 0..20 {
        for _ in 0..3 {
            store.register(0, owner, CAP, Ratio::ONE);
        }
    }
    let excluded = [account(3), account(4)];
    for i in 0u32..300 {
        let mut first = of(1, 1, blake2(&i.to_le_bytes()), 9);
        first.excluded = &excluded;
        let drawn = draw(&store, &first, blake2, |id, _| id % 3 != 0).unwrap();
        assert!(drawn.full);
        let owners: Vec<Account> = drawn.seats.iter().map(|(_, node)| node.owner).collect();
        let mut unique = owners.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 9);
        assert!(owners.iter().all(|owner| !excluded.contains(owner)));
        assert!(drawn.seats.iter().all(|(id, node)| id % 3 != 0 && store.nodes[id] == *node));
        // Four are missing: the same seed's next round.
        let refill = Draw { round: 1, seats: 4, seated: &owners, now: 2, ..first };
        let more = draw(&store, &refill, blake2, |_, _| true).unwrap();
        assert!(more.full);
        assert!(more.seats.iter().all(|(_, node)| !owners.contains(&node.owner)));
        assert!(more.seats.iter().all(|(_, node)| !excluded.contains(&node.owner)));
        assert_eq!(more, draw(&store, &refill, blake2, |_, _| true).unwrap());
    }
    // Eighteen owners are left: nineteen seats stay short by one, and say so.
    let wide = Draw { excluded: &excluded, ..of(1, 1, [5; 32], 19) };
    let drawn = draw(&store, &wide, blake2, |_, _| true).unwrap();
    assert!(!drawn.full && drawn.seats.len() == 18);
}

/// The work of a draw and of an act, in accesses, whatever the registry's size.
#[test]
fn a_draw_costs_the_same_in_a_large_registry() {
    let mean = |nodes: u32| {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut store = Store::default();
        for owner in 0..nodes {
            let (stake, trust) =
                (rng.random_range(CAP / 2..CAP), Ratio::from_permille(rng.random_range(500..=1_000)));
            store.register(0, owner, stake, trust);
            assert!(store.reads.take() <= 2 && std::mem::take(&mut store.writes) <= 2);
        }
        for id in 1..=nodes.min(500) {
            store.act(0, id, |node| node.stake = rng.random_range(MIN..CAP));
            let cost = (store.reads.take(), std::mem::take(&mut store.writes));
            assert!(cost.0 <= 5 && cost.1 <= 4, "{cost:?}");
        }
        let draws = 2_000u32;
        let mut most = 0;
        let mut sum = 0;
        for i in 0..draws {
            assert_eq!(store.panel(&of(1, 1, blake2(&i.to_le_bytes()), 3)).len(), 3);
            let reads = store.reads.take();
            most = most.max(reads);
            sum += reads;
        }
        assert!(most <= 1 + 2 * 20, "{most}");
        f64::from(sum) / f64::from(draws)
    };
    let (small, large) = (mean(10), mean(10_000));
    assert!((large / small - 1.0).abs() < 0.2, "{small} accesses of 10 nodes, {large} of 10,000");
}

// ---- what an attacker gets

/// How the attacker cuts its stake.
#[derive(Clone, Copy, Debug)]
enum Split {
    /// Nodes as large as the honest ones.
    Equal,
    /// As small as the minimum allows.
    Dust,
    /// Nodes four times as heavy as the honest ones.
    Heavy,
}

const HONEST: u32 = 60;

/// Sixty honest owners, and an attacker with about `percent` of the weight. The share that it really has, in the epochs from 1 on.
fn contested(split: Split, percent: u32) -> (Store, Vec<NodeId>) {
    let mut store = Store::default();
    let honest = match split {
        Split::Heavy => CAP / 4,
        _ => CAP,
    };
    for owner in 0..HONEST {
        store.register(0, owner, honest, Ratio::ONE);
    }
    let stake = u128::from(HONEST) * honest * u128::from(percent) / u128::from(100 - percent);
    let each = match split {
        Split::Equal => honest,
        Split::Dust => MIN,
        Split::Heavy => CAP,
    };
    let nodes = u32::try_from(stake.div_ceil(each)).unwrap();
    let ids = (0..nodes).map(|i| store.register(0, 1_000 + i, each, Ratio::ONE)).collect();
    (store, ids)
}

/// The part of an epoch's weight that some nodes have.
fn share(store: &Store, epoch: Epoch, from: NodeId) -> f64 {
    let view = store.view(epoch);
    let sum = |those: &dyn Fn(NodeId) -> bool| -> f64 {
        view.iter().filter(|(_, _, id, _)| those(*id)).map(|(.., weight)| f64::from(weight.ppb())).sum()
    };
    sum(&|id| id >= from) / sum(&|_| true)
}

/// What one honest party leaves to the others: salts (the requester's secret first) that they choose as well as they can.
///
/// They try `tries` sets, with the honest one's salt guessed, and keep what would seat most of their own.
fn ground(
    store: &Store,
    rng: &mut ChaCha8Rng,
    draw: &Draw<'_>,
    task: u64,
    parties: usize,
    tries: u32,
) -> [u8; 32] {
    let seed = |salts: &[[u8; 32]]| blake2(&panel_seed(&[1; 32], task, &salts[0], &salts[1..]));
    let honest = rng.random_range(0..parties);
    let own = |panel: Vec<NodeId>| panel.iter().filter(|id| **id > HONEST).count();
    let best = (0..tries)
        .map(|_| (0..parties).map(|_| rng.random()).collect::<Vec<[u8; 32]>>())
        .max_by_key(|salts| own(store.panel(&Draw { seed: seed(salts), ..*draw })))
        .unwrap();
    let mut salts = best;
    salts[honest] = rng.random();
    seed(&salts)
}

/// Seats that an attacker gets in `draws` draws, and those that are its share, with the standard deviation of that many independent
/// seats.
///
/// Between sealing and draw, when everything but the honest salt is known and at last that too, it toggles, stakes, unstakes,
/// registers; it tries every moment (both epochs) and keeps the best panel.
fn attacked(split: Split, percent: u32, seats: u8, draws: u32) -> (f64, f64, f64) {
    let (pristine, own) = contested(split, percent);
    let (first, sealed) = (own[0], 1);
    let part = share(&pristine, sealed, first);
    let counts = |panel: &[NodeId]| panel.iter().filter(|id| **id >= first).count();
    let mut store = pristine.clone();
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(percent) << 8 | u64::from(seats));
    let mut got = 0;
    for task in 0..draws {
        if task % 50 == 0 {
            store = pristine.clone();
        }
        let plan = of(sealed, sealed, [0; 32], seats);
        let parties = rng.random_range(2..=5);
        let seed = ground(&store, &mut rng, &plan, u64::from(task), parties, 2);
        let panel = store.panel(&Draw { seed, ..plan });
        let mut best = panel.clone();
        for _ in 0..3 {
            // Time does not go back: first in the epoch of the sealing, then in the one after it.
            let moment = if task % 50 < 25 { sealed } else { sealed + 1 };
            let id = *own.choose(&mut rng).unwrap();
            match rng.random_range(0..5) {
                0 => store.act(moment, id, |node| node.active = !node.active),
                1 => store.act(moment, id, |node| node.stake = rng.random_range(MIN..=CAP)),
                2 => store.settle(moment, id, |node| node.trust = Ratio::from_permille(500)),
                3 => store.act(moment, id, |_| {}),
                _ => {
                    store.register(moment, 10_000 + task, CAP, Ratio::ONE);
                }
            }
            let tried = store.panel(&Draw { seed, now: moment, ..plan });
            if counts(&tried) > counts(&best) {
                best = tried;
            }
        }
        assert_eq!(best, panel, "the panel of a sealed task has changed");
        assert_eq!(best.len(), usize::from(seats));
        got += counts(&best);
    }
    let due = part * f64::from(seats) * f64::from(draws);
    (got as f64, due, (due * (1.0 - part)).sqrt())
}

fn gets_its_share(split: Split) {
    for percent in [10, 20, 30] {
        for seats in [3, 5, 9] {
            let (got, due, deviation) = attacked(split, percent, seats, 10_000);
            assert!(
                got <= due + 3.0 * deviation,
                "{split:?}, {percent} %, K = {seats}: {got} seats, its share is {due} (σ {deviation})"
            );
        }
    }
}

#[test]
fn h4_an_attacker_as_large_as_others_gets_its_share() {
    gets_its_share(Split::Equal);
}

#[test]
fn h4_an_attacker_split_into_dust_gets_its_share() {
    gets_its_share(Split::Dust);
}

#[test]
fn h4_an_attacker_of_heavy_nodes_gets_its_share() {
    gets_its_share(Split::Heavy);
}

/// Why no committed output may be left out of a seed: a requester with three of its own inference nodes beside an honest one
/// would know eight seeds, and choose.
#[test]
fn h4_a_withheld_opening_would_be_another_try() {
    let (store, own) = contested(Split::Equal, 20);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let part = share(&store, 1, own[0]);
    let (draws, seats) = (10_000u64, 3u8);
    let (mut all, mut chosen) = (0, 0);
    for task in 0..draws {
        let salts: Vec<[u8; 32]> = (0..4).map(|_| rng.random()).collect();
        let secret = rng.random();
        let counts = |withheld: u32| {
            let opened: Vec<[u8; 32]> =
                (0..4u32).filter(|i| withheld >> i & 1 == 0).map(|i| salts[i as usize]).collect();
            let seed = blake2(&panel_seed(&[1; 32], task, &secret, &opened));
            store.panel(&of(1, 1, seed, seats)).iter().filter(|id| **id >= own[0]).count()
        };
        all += counts(0);
        chosen += (0..8).map(counts).max().unwrap();
    }
    let due = part * f64::from(seats) * draws as f64;
    let deviation = (due * (1.0 - part)).sqrt();
    assert!((all as f64) < due + 3.0 * deviation, "{all} of {due}");
    assert!(chosen as f64 > 2.0 * due, "{chosen} of {due}");
}

/// Models are not read: honest nodes that share one digest, or have nine, are drawn as if nobody had said anything.
#[test]
fn h5_declared_models_do_not_enter_a_draw() {
    for percent in [10, 20, 30] {
        let (one, own) = contested(Split::Equal, percent);
        let mut nine = one.clone();
        let mut same = one.clone();
        for (id, node) in nine.nodes.iter_mut() {
            node.model = id % 9;
        }
        for node in same.nodes.values_mut().take(HONEST as usize) {
            node.model = 1;
        }
        let part = share(&one, 1, own[0]);
        for seats in [3u8, 5, 9] {
            let mut got = 0.0;
            for task in 0u32..10_000 {
                let plan = of(1, 1, blake2(&task.to_le_bytes()), seats);
                let panel = one.panel(&plan);
                assert_eq!(panel, same.panel(&plan));
                assert_eq!(panel, nine.panel(&plan));
                got += panel.iter().filter(|id| **id >= own[0]).count() as f64;
            }
            let due = part * f64::from(seats) * 10_000.0;
            assert!(
                got <= due + 3.0 * (due * (1.0 - part)).sqrt(),
                "{percent} %, K = {seats}: {got} of {due}"
            );
        }
    }
}

// ---- stake

#[derive(Clone, Debug)]
enum Money {
    Stake(u128),
    Unstake(u128),
    Lock(u128),
    Release(u128),
    Withdraw,
    Wait(Millis),
}

fn money() -> impl Strategy<Value = Money> {
    prop_oneof![
        (1u128..1_000).prop_map(Money::Stake),
        (1u128..1_000).prop_map(Money::Unstake),
        (1u128..60).prop_map(Money::Lock),
        (0u128..60).prop_map(Money::Release),
        Just(Money::Withdraw),
        (0u64..200_000).prop_map(Money::Wait),
    ]
}

const UNBONDING: Millis = 400_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// No unit appears or is lost, what is at risk is always there, and every amount that was sent on its way out is out a quarter
    /// of the period after the period at the latest, whatever came after it, except for what tasks have at risk or have taken.
    #[test]
    fn m3_nothing_delays_what_is_on_its_way_out(steps in prop::collection::vec(money(), 1..80)) {
        let mut stake = Stake::default();
        let mut tasks: Vec<u128> = Vec::new();
        let (mut now, mut put, mut out, mut slashed) = (1_000u64, 0u128, 0u128, 0u128);
        let mut due: Vec<(Millis, u128)> = Vec::new();
        for step in steps {
            match step {
                Money::Stake(amount) => { stake.stake(amount).unwrap(); put += amount; }
                Money::Unstake(amount) => match stake.unstake(amount, now, UNBONDING) {
                    Ok(until) => {
                        prop_assert!(until >= now + UNBONDING && until < now + UNBONDING * 5 / 4);
                        due.push((until, amount));
                    }
                    Err(error) => prop_assert!(amount > stake.bonded, "{}", error),
                },
                Money::Lock(amount) => match stake.lock(amount) {
                    Ok(()) => tasks.push(amount),
                    Err(error) => prop_assert!(amount > stake.lockable(), "{}", error),
                },
                Money::Release(lost) => if let Some(at_risk) = tasks.pop() {
                    let lost = lost.min(at_risk);
                    stake.release(at_risk, lost).unwrap();
                    slashed += lost;
                },
                Money::Withdraw => out += stake.withdraw(now),
                Money::Wait(ms) => now += ms,
            }
            prop_assert_eq!(stake.total() + out + slashed, put);
            prop_assert_eq!(stake.locked, tasks.iter().sum::<u128>());
            prop_assert!(stake.locked <= stake.total());
            let over: u128 = due.iter().filter(|(until, _)| *until <= now).map(|(_, amount)| amount).sum();
            let held = stake.locked.saturating_sub(stake.bonded) + slashed;
            prop_assert!(out + stake.withdrawable(now) + held >= over, "{:?} at {}", stake, now);
            let early: u128 = due.iter().map(|(_, amount)| amount).sum::<u128>();
            prop_assert!(out + stake.withdrawable(now) <= over.min(early));
        }
    }
}

#[test]
fn stake_refuses_what_is_not_there() {
    let mut stake = Stake::default();
    assert_eq!(stake.unstake(1, 0, UNBONDING), Err(Error::Amount));
    stake.stake(100).unwrap();
    assert_eq!(stake.unstake(0, 0, UNBONDING), Err(Error::Amount));
    assert_eq!(stake.stake(u128::MAX), Err(Error::Overflow));
    assert_eq!(stake.lock(101), Err(Error::Amount));
    stake.lock(40).unwrap();
    // What is at risk may be on its way out, and stays at risk there.
    let until = stake.unstake(100, 0, UNBONDING).unwrap();
    assert_eq!((stake.bonded, stake.lockable(), stake.withdrawable(until)), (0, 60, 60));
    assert_eq!(stake.release(40, 41), Err(Error::Amount));
    stake.release(40, 30).unwrap();
    assert_eq!((stake.withdraw(until - 1), stake.withdraw(until), stake.total()), (0, 70, 0));
    assert_eq!(stake.release(1, 0), Err(Error::Amount));
}

/// The unbonding period changes between two exits again and again: there are never more tranches than slots, and each is out after
/// the longer period at the latest.
#[test]
fn tranches_never_run_out() {
    let mut stake = Stake::default();
    stake.stake(1_000_000).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut now = 0;
    for _ in 0..5_000 {
        let period = rng.random_range(1..1_000_000);
        stake.unstake(10, now, period).unwrap();
        now += rng.random_range(0..100_000);
    }
    assert_eq!(stake.withdrawable(now + 1_250_000), 50_000);
}
