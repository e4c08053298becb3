//! The same attacks on a real chain, and the same arithmetic over what the chain recorded.
//!
//! A worker of a test network asks [`act`] what a dishonest evaluator does with what it sees: the very functions that the
//! simulator runs. [`Book`] then plays a recorded run through the simulator's side of the economy (its own trust, ring and
//! purses, never the chain's), so that both can be compared to the last unit.

use crate::attack::{plan, Attack, Collusion, View};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Streams};
use poq_core::commitment::Hash;
use poq_core::settlement::{audit, Audit, AuditInput, TrustState};
use poq_core::units::{Balance, Millis, NodeId, SignedBalance, TaskId};
use poq_core::{settle, KindParams, Population, Ratio, Settlement, SettlementInput};
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

/// A task's end as a chain recorded it: who did what and when. Its trust and its ring are not used: the book has its own.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The task.
    pub task: TaskId,
    /// When it ended.
    pub at: Millis,
    /// The seed of its panel.
    pub seed: &'a Hash,
    /// What the chain gave to `settle`.
    pub input: &'a SettlementInput,
    /// The inference nodes, in the task's order.
    pub output_nodes: &'a [NodeId],
    /// The panel, in the order of its seats; 0 for an empty one.
    pub panel_nodes: &'a [NodeId],
}

/// What a node has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Tasks that ended with it.
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
    standings: BTreeMap<NodeId, TrustState>,
    dues: BTreeMap<NodeId, SignedBalance>,
    purses: BTreeMap<NodeId, Purse>,
    treasury: Balance,
    burned: Balance,
}

impl Book {
    /// A kind of these parameters in which nothing has been settled.
    ///
    /// # Errors
    /// Parameters that the contract would refuse.
    pub fn new(params: KindParams) -> Result<Book> {
        params.validate()?;
        Ok(Book {
            population: Population::new(&params),
            params,
            standings: BTreeMap::new(),
            dues: BTreeMap::new(),
            purses: BTreeMap::new(),
            treasury: 0,
            burned: 0,
        })
    }

    fn standing(&self, node: NodeId) -> TrustState {
        let fresh = TrustState { trust: self.params.trust_initial, gain_average: 0 };
        self.standings.get(&node).copied().unwrap_or(fresh)
    }

    /// Ends a recorded task, with the trust and the ring that this book has come to.
    ///
    /// # Errors
    /// A fee that does not fill the slots.
    pub fn settle(&mut self, recorded: &Recorded<'_>) -> Result<Settlement> {
        let mut input = recorded.input.clone();
        input.population = self.population.clone();
        for (given, node) in input.panel.iter_mut().zip(recorded.panel_nodes) {
            given.trust = if *node == 0 { Ratio::ZERO } else { self.standing(*node).trust };
            given.due = self.dues.get(node).copied().unwrap_or(0);
        }
        let settlement = settle(&self.params, &input).ok_or(Error::Unsettled { round: recorded.task })?;
        for (node, settled) in recorded.output_nodes.iter().zip(&settlement.outputs) {
            self.book(*node, settled.payout, settled.slashed);
        }
        for (node, settled) in
            recorded.panel_nodes.iter().zip(&settlement.panel).filter(|(node, _)| **node != 0)
        {
            self.book(*node, settled.payout, settled.slashed);
            self.dues.insert(*node, settled.due);
        }
        self.treasury += settlement.treasury;
        self.burned += settlement.burned + settlement.slashed;
        self.population.absorb(&self.params, &settlement, recorded.seed, recorded.at);
        Ok(settlement)
    }

    /// Opens a recorded reference: moves the trust that this book has come to.
    pub fn audit(&mut self, given: &AuditInput, panel_nodes: &[NodeId]) -> Audit {
        let standing = |node: &NodeId| if *node == 0 { TrustState::default() } else { self.standing(*node) };
        let input = AuditInput {
            panel: panel_nodes.iter().map(standing).collect(),
            population: self.population.clone(),
            ..given.clone()
        };
        let audited = audit(&self.params, &input);
        for (node, next) in panel_nodes.iter().zip(&audited.panel).filter(|(node, _)| **node != 0) {
            self.standings.insert(*node, *next);
        }
        self.population.gain_average = audited.gain_average;
        audited
    }

    fn book(&mut self, node: NodeId, earned: Balance, slashed: Balance) {
        let purse = self.purses.entry(node).or_default();
        purse.settled += 1;
        purse.earned += earned;
        purse.slashed += slashed;
    }

    /// Takes the penalty of one that lost its seat.
    pub fn penalise(&mut self, node: NodeId, amount: Balance) {
        self.purses.entry(node).or_default().slashed += amount;
        self.burned += amount;
    }

    /// What a node has got.
    pub fn purse(&self, node: NodeId) -> Purse {
        self.purses.get(&node).copied().unwrap_or_default()
    }

    /// An evaluator's trust, once a reference was opened with it.
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

    /// What was burned, of fees and of stakes.
    pub fn burned(&self) -> Balance {
        self.burned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poq_core::settlement::{Answer, Conduct, Ending, EvaluatorInput, OutputInput};

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
        let params = KindParams::without_auditors();
        let mut book = Book::new(params.clone()).unwrap();
        let unit = poq_core::params::UNIT;
        let mut refunds = 0;
        let panel_nodes: Vec<NodeId> = (2..=6).collect();
        for task in 1..=20u64 {
            let quality = Ratio::from_permille((task as u32 * 137) % 1_000);
            let input = SettlementInput {
                ending: Ending::Consensus,
                fee: 10 * unit,
                keepers: 0,
                early: false,
                inline: false,
                outputs: vec![OutputInput {
                    answer: Answer::Delivered { latency_ms: 2_000 },
                    price: unit / 100,
                }],
                panel: panel_nodes
                    .iter()
                    .map(|node| EvaluatorInput {
                        conduct: Conduct::Revealed(vec![poq_core::Score::of(
                            quality.saturating_add(Ratio::from_permille(*node)),
                        )]),
                        latency_ms: 1_000,
                        // The book knows better.
                        trust: Ratio::ZERO,
                        due: 0,
                    })
                    .collect(),
                population: Population::default(),
            };
            let settlement = book
                .settle(&Recorded {
                    task,
                    at: task * 10_000,
                    seed: &[task as u8; 32],
                    input: &input,
                    output_nodes: &[1],
                    panel_nodes: &panel_nodes,
                })
                .unwrap();
            refunds += settlement.refund;
        }
        let earned: Balance = (1..=6).map(|node| book.purse(node).earned).sum();
        let slashed: Balance = (1..=6).map(|node| book.purse(node).slashed).sum();
        assert_eq!(earned + refunds + book.treasury() + book.burned(), 200 * unit + slashed);
        assert_eq!(book.purse(2).settled, 20);
    }
}
