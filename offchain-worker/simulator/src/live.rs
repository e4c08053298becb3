//! The same attacks on a real chain, and the same arithmetic over what the chain recorded.
//!
//! A worker of a test network asks [`act`] what a dishonest evaluator does with what it sees: the very functions that the
//! simulator runs. [`Book`] then plays a recorded run through the simulator's side of the economy (its own trust, ring and
//! purses, never the chain's), so that both can be compared to the last unit.

use crate::attack::{plan, Attack, Collusion, View};
use crate::economy::{Standing, RING};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Streams};
use poq_core::merit::RingEntry;
use poq_core::settlement::{Conduct, EvaluatorInput, OutputInput, Population};
use poq_core::units::{Balance, Millis, NodeId, TaskId};
use poq_core::{settle, KindParams, Ratio, Settlement, SettlementInput};
use rand::seq::IndexedRandom;
use rand::Rng as _;
use std::collections::BTreeMap;

pub use crate::attack::{Plan, Reveal};

/// What a dishonest evaluator sees of a task.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What its model makes of every output, in [0, 1]; `None` for one that could not be had.
    pub seen: &'a [Option<f64>],
    /// By output, whether a colluder's node wrote it.
    pub own: &'a [bool],
    /// The kind's past consensus values, in [0, 1], the newest last.
    pub ring: &'a [f64],
    /// How many of the panel collude, itself counted.
    pub colluders: usize,
    /// How many sit on the panel.
    pub panel: usize,
    /// What the first colluder of this panel saw, where one has looked already.
    pub shared: Option<&'a [Option<f64>]>,
}

/// What it does: its plan, and its scores in [0, 1], one per output.
///
/// Colluders toss the same coins for the same task, whatever process they run in; what one tosses alone depends on its node.
pub fn act(
    attack: Attack,
    seed: u64,
    task: TaskId,
    node: NodeId,
    sight: &Sight<'_>,
) -> (Plan, Vec<Option<f64>>) {
    let mut coins = Streams::new(seed, 0).round(task, Purpose::Attack);
    let usual = match sight.ring {
        [] => 0.5,
        ring => ring.iter().sum::<f64>() / ring.len() as f64,
    };
    let signal = |factor: f64, coins: &mut _| {
        let drawn = sight.ring.choose(coins).copied().unwrap_or(usual);
        (usual + factor * (drawn - usual)).clamp(0.0, 1.0)
    };
    let mut collusion = Collusion {
        attacking: match attack {
            Attack::Intermittent(probability) => coins.random::<f64>() < probability,
            _ => false,
        },
        signal: match attack {
            Attack::SharedSignal(factor) => sight.seen.iter().map(|_| signal(factor, &mut coins)).collect(),
            _ => Vec::new(),
        },
        seen: sight.shared.map(<[_]>::to_vec).unwrap_or_default(),
        majority: sight.colluders * 2 > sight.panel,
    };
    let view =
        View { seen: sight.seen, own: sight.own, ring: sight.ring, last: sight.ring.last().copied(), usual };
    let mut own_coins = Streams::new(seed, node).round(task, Purpose::Perception);
    let mut scores = Vec::new();
    let plan = plan(attack, &view, &mut collusion, &mut own_coins, &mut scores);
    (plan, scores.into_iter().map(|score| score.map(|s| s.clamp(0.0, 1.0))).collect())
}

/// A settled task as a chain recorded it: who did what and when. No trust, no ring: the book has its own.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The task.
    pub task: TaskId,
    /// What was paid.
    pub fee: Balance,
    /// When its panel was drawn.
    pub drawn_at: Millis,
    /// When it was settled.
    pub settled_at: Millis,
    /// The inference nodes in the order of their draw.
    pub outputs: Vec<(NodeId, OutputInput)>,
    /// The evaluators in the order of their draw: what they did, and when they committed (0 for never).
    pub panel: Vec<(NodeId, Conduct, Millis)>,
    /// The audited truth, of a gold task.
    pub truth: Option<Vec<Option<Ratio>>>,
}

impl Recorded {
    /// What a chain settled, by the input that it emits and the nodes in the order of their draws.
    pub fn of(
        task: TaskId,
        settled_at: Millis,
        input: &SettlementInput,
        output_nodes: &[NodeId],
        panel_nodes: &[NodeId],
    ) -> Recorded {
        let panel = panel_nodes.iter().zip(&input.panel);
        Recorded {
            task,
            fee: input.fee,
            drawn_at: input.drawn_at,
            settled_at,
            outputs: output_nodes.iter().copied().zip(input.outputs.iter().cloned()).collect(),
            panel: panel.map(|(node, given)| (*node, given.conduct.clone(), given.committed_at)).collect(),
            truth: input.truth.clone(),
        }
    }
}

/// What a node has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Tasks settled with it.
    pub settled: u32,
    /// Out of fees, in the chain's smallest unit.
    pub earned: Balance,
    /// Out of its stake.
    pub slashed: Balance,
}

/// The simulator's account of a recorded run.
#[derive(Clone, Debug)]
pub struct Book {
    params: KindParams,
    population: Population,
    ring_next: usize,
    standings: BTreeMap<NodeId, Standing>,
    purses: BTreeMap<NodeId, Purse>,
    treasury: Balance,
}

impl Book {
    /// A kind of these parameters in which nothing has been settled.
    ///
    /// # Errors
    /// Parameters that the contract would refuse.
    pub fn new(params: KindParams) -> Result<Book> {
        params.validate()?;
        let reference = match params.merit {
            poq_core::MeritRule::Information { floor, .. } => floor,
            poq_core::MeritRule::Closeness => Ratio::ZERO,
        };
        Ok(Book {
            population: Population {
                ring: vec![RingEntry::default(); RING],
                reference,
                ..Population::default()
            },
            params,
            ring_next: 0,
            standings: BTreeMap::new(),
            purses: BTreeMap::new(),
            treasury: 0,
        })
    }

    /// Settles a recorded task, with the trust, the averages and the ring that this book has come to.
    ///
    /// # Errors
    /// A fee that does not fill the slots.
    pub fn settle(&mut self, recorded: &Recorded) -> Result<Settlement> {
        let fresh = Standing { trust: self.params.trust_initial, gain_average: 0 };
        let input = SettlementInput {
            fee: recorded.fee,
            drawn_at: recorded.drawn_at,
            outputs: recorded.outputs.iter().map(|(_, output)| output.clone()).collect(),
            panel: recorded
                .panel
                .iter()
                .map(|(node, conduct, committed_at)| {
                    let standing = self.standings.get(node).copied().unwrap_or(fresh);
                    EvaluatorInput {
                        conduct: conduct.clone(),
                        committed_at: *committed_at,
                        trust: standing.trust,
                        gain_average: standing.gain_average,
                    }
                })
                .collect(),
            population: self.population.clone(),
            truth: recorded.truth.clone(),
        };
        let settlement = settle(&self.params, &input).ok_or(Error::Unsettled { round: recorded.task })?;
        for ((node, _), settled) in recorded.outputs.iter().zip(&settlement.outputs) {
            self.book(*node, settled.payout, settled.slashed);
        }
        for ((node, ..), settled) in recorded.panel.iter().zip(&settlement.panel) {
            self.book(*node, settled.payout, settled.slashed);
            let standing = Standing { trust: settled.trust, gain_average: settled.gain_average };
            self.standings.insert(*node, standing);
        }
        self.treasury += settlement.protocol_fee + settlement.forfeited + settlement.slashed;
        if let Some(quality) = settlement.consensus {
            if let Some(entry) = self.population.ring.get_mut(self.ring_next) {
                *entry = RingEntry { settled_at: recorded.settled_at, quality };
            }
            self.ring_next = (self.ring_next + 1) % RING;
        }
        self.population.reference = settlement.reference;
        self.population.gain_average = settlement.gain_average;
        Ok(settlement)
    }

    fn book(&mut self, node: NodeId, earned: Balance, slashed: Balance) {
        let purse = self.purses.entry(node).or_default();
        purse.settled += 1;
        purse.earned += earned;
        purse.slashed += slashed;
    }

    /// Takes a penalty outside a settlement: of a released panel, or of a task that was refunded.
    pub fn penalise(&mut self, node: NodeId, amount: Balance) {
        self.purses.entry(node).or_default().slashed += amount;
        self.treasury += amount;
    }

    /// What a node has got.
    pub fn purse(&self, node: NodeId) -> Purse {
        self.purses.get(&node).copied().unwrap_or_default()
    }

    /// An evaluator's trust, once it has been settled with.
    pub fn trust(&self, node: NodeId) -> Option<Ratio> {
        self.standings.get(&node).map(|standing| standing.trust)
    }

    /// What the kind remembers.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// What has come to the treasury.
    pub fn treasury(&self) -> Balance {
        self.treasury
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: [Option<f64>; 2] = [Some(0.5), Some(0.9)];

    fn sight<'a>(ring: &'a [f64], shared: Option<&'a [Option<f64>]>) -> Sight<'a> {
        Sight { seen: &SEEN, own: &[true, false], ring, colluders: 2, panel: 5, shared }
    }

    #[test]
    fn colluders_agree_without_talking_and_others_do_not() {
        let ring = [0.2, 0.5, 0.8, 0.4];
        let at = |attack, seed, task, node| act(attack, seed, task, node, &sight(&ring, None)).1;
        let signal = Attack::SharedSignal(1.0);
        assert_eq!(at(signal, 1, 7, 3), at(signal, 1, 7, 4));
        assert_ne!(at(signal, 1, 7, 3), at(signal, 2, 7, 3));
        let noise = Attack::Noise(0.3);
        assert_ne!(at(noise, 1, 7, 3), at(noise, 1, 7, 4));
        assert_eq!(at(noise, 1, 7, 3), at(noise, 1, 7, 3));
    }

    #[test]
    fn scores_stay_in_range_whatever_the_attack() {
        for attack in Attack::ALL {
            for ring in [&[][..], &[0.9, 0.95, 1.0, 0.0]] {
                for task in 0..50 {
                    let (_, scores) = act(attack, 3, task, 1, &sight(ring, None));
                    assert_eq!(scores.len(), SEEN.len());
                    assert!(scores.iter().flatten().all(|s| (0.0..=1.0).contains(s)), "{attack}: {scores:?}");
                }
            }
        }
    }

    #[test]
    fn a_free_rider_repeats_what_was_shared() {
        let shared = [Some(0.1), None];
        let (plan, scores) = act(Attack::FreeRide, 1, 1, 1, &sight(&[], Some(&shared)));
        assert_eq!((scores.as_slice(), plan.looked), (&shared[..], false));
        let (plan, scores) = act(Attack::FreeRide, 1, 1, 1, &sight(&[], None));
        assert_eq!((scores.as_slice(), plan.looked), (&SEEN[..], true));
    }

    #[test]
    fn a_book_conserves_every_fee() {
        let mut book = Book::new(KindParams::without_auditors()).unwrap();
        let unit = poq_core::params::UNIT;
        let mut refunds = 0;
        for task in 1..=20u64 {
            let quality = Ratio::from_permille((task as u32 * 137) % 1_000);
            let settlement = book
                .settle(&Recorded {
                    task,
                    fee: 10 * unit,
                    drawn_at: task * 10_000,
                    settled_at: task * 10_000 + 5_000,
                    outputs: vec![(1, OutputInput { latency_ms: Some(2_000), price: unit / 100 })],
                    panel: (2..=6)
                        .map(|node| {
                            let score =
                                poq_core::Score::of(quality.saturating_add(Ratio::from_permille(node)));
                            (node, Conduct::Revealed(vec![score]), task * 10_000 + 1_000)
                        })
                        .collect(),
                    truth: None,
                })
                .unwrap();
            refunds += settlement.refund;
        }
        let earned: Balance = (1..=6).map(|node| book.purse(node).earned).sum();
        let slashed: Balance = (1..=6).map(|node| book.purse(node).slashed).sum();
        assert_eq!(earned + refunds + book.treasury(), 200 * unit + slashed);
        assert_eq!(book.purse(2).settled, 20);
    }
}
