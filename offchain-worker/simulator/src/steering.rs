//! Who can steer a panel, and how far it gets: the contract's draw against everybody who takes part in its seed.
//!
//! A panel's seed is made of the requester's secret and a salt of every inference node, each committed to before any is shown. Here one
//! party, or some together, owns a part of the evaluators and chooses what is its to choose as well as it can: it tries many sets, with
//! a guess in place of what it cannot know, and keeps the one that would seat most of its own.

use crate::attack::Attack;
use crate::economy::{blake2_256, Setting, NETWORK};
use crate::error::{Error, Result};
use crate::population::{Crowd, Role};
use crate::rng::{Purpose, Rng, Streams};
use crate::run::Effort;
use crate::stats::{estimate, Estimate};
use crate::store::{account, bytes, index_of, Store, KIND};
use crate::world::World;
use poq_core::commitment::Hash;
use poq_core::node::NodeStatus;
use poq_core::registry::{draw, panel_seed, Account, Draw, Epoch, PoolId};
use poq_core::units::{NodeId, TaskId};
use rand::Rng as _;
use rayon::prelude::*;
use serde::Serialize;

/// Who tries to steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Steerer {
    /// Nobody.
    Nobody,
    /// The requester: it chooses among so many secrets before any node has committed.
    Requester(u32),
    /// The node that commits last: it chooses among so many salts, when everybody else is committed.
    LastNode(u32),
    /// All inference nodes of the task, of one hand: they choose among so many sets of salts.
    Nodes(u32),
    /// The requester and all inference nodes, of one hand: nobody honest is left. It chooses among so many seeds.
    Everybody(u32),
    /// The evaluators' owners, who know the seed before the draw: they stake, drain, resume and register so many times, in this epoch and
    /// the next, and have the panel drawn when it suits them.
    Owners(u32),
}

impl Steerer {
    /// Everyone that the report has, with as many tries as it has.
    pub const ALL: [Steerer; 7] = [
        Steerer::Nobody,
        Steerer::Requester(64),
        Steerer::LastNode(64),
        Steerer::Nodes(64),
        Steerer::Owners(8),
        Steerer::Everybody(16),
        Steerer::Everybody(64),
    ];

    /// How tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Steerer::Nobody => "nobody",
            Steerer::Requester(_) => "requester",
            Steerer::LastNode(_) => "last node",
            Steerer::Nodes(_) => "all nodes",
            Steerer::Everybody(_) => "requester and all nodes",
            Steerer::Owners(_) => "evaluators' owners",
        }
    }

    /// How often it tries.
    pub const fn tries(self) -> u32 {
        match self {
            Steerer::Nobody => 1,
            Steerer::Requester(tries)
            | Steerer::LastNode(tries)
            | Steerer::Nodes(tries)
            | Steerer::Everybody(tries)
            | Steerer::Owners(tries) => tries,
        }
    }

    /// Whether it chooses the secret (party 0) or the salt of a node.
    const fn chooses(self, party: usize, parties: usize) -> bool {
        match self {
            Steerer::Nobody | Steerer::Owners(_) => false,
            Steerer::Requester(_) => party == 0,
            Steerer::LastNode(_) => party + 1 == parties,
            Steerer::Nodes(_) => party > 0,
            Steerer::Everybody(_) => true,
        }
    }
}

/// How far it got.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Steered {
    /// Its share of the evaluators' weight.
    pub weight: f64,
    /// Its share of the seats.
    pub seats: Estimate,
    /// The share of panels in which it has more than half of the seats.
    pub majority: Estimate,
    /// How many panels what owners did after the seal has changed.
    pub changed: u64,
}

struct Contest<'a> {
    setting: &'a Setting,
    nodes: Vec<crate::population::Node>,
    store: Store,
    sealed: Epoch,
}

impl<'a> Contest<'a> {
    fn new(setting: &'a Setting, nodes: Vec<crate::population::Node>) -> Contest<'a> {
        let mut store = Store::default();
        for node in &nodes {
            store.register(node, &setting.params, 0);
        }
        // What they did in epoch 0 counts from epoch 1 on.
        Contest { setting, nodes, store, sealed: 1 }
    }

    fn is_own(&self, id: NodeId) -> bool {
        // Those that registered later are the attacker's.
        self.nodes.get(index_of(id) as usize).is_none_or(|node| node.malicious)
    }

    fn panel(&self, seed: Hash, now: Epoch) -> Result<Vec<NodeId>> {
        let requester: Account = bytes(&account(2, 0));
        let at_risk = self.setting.params.evaluator_at_risk(self.setting.split()?.evaluator_slot);
        let what = Draw {
            pool: PoolId { kind: KIND, role: Role::Evaluator },
            sealed: self.sealed,
            now,
            seed,
            round: 0,
            seats: self.setting.panel,
            seated: &[],
            excluded: &[requester],
        };
        let drawn = draw(&self.store, &what, blake2_256, |_, node| node.can_take(at_risk))
            .map_err(|_| Error::Unsettled { round: 0 })?;
        Ok(drawn.seats.into_iter().map(|(id, _)| id).collect())
    }

    fn own(&self, panel: &[NodeId]) -> usize {
        panel.iter().filter(|id| self.is_own(**id)).count()
    }

    /// The panel of a task whose seed was chosen as well as the steerer can.
    fn steered(&self, by: Steerer, task: TaskId, rng: &mut Rng) -> Result<(Hash, Vec<NodeId>)> {
        let parties = 1 + usize::from(self.setting.outputs);
        let seed = |salts: &[Hash]| {
            let (secret, salts) = salts.split_first().unwrap_or((&NETWORK, &[]));
            blake2_256(&panel_seed(&NETWORK, task, secret, salts))
        };
        let mut best: Option<(usize, Vec<Hash>)> = None;
        let chooses = (0..parties).any(|party| by.chooses(party, parties));
        for _ in 0..if chooses { by.tries() } else { 1 } {
            let salts: Vec<Hash> = (0..parties).map(|_| rng.random()).collect();
            let own = if chooses { self.own(&self.panel(seed(&salts), self.sealed)?) } else { 0 };
            if best.as_ref().is_none_or(|(most, _)| own > *most) {
                best = Some((own, salts));
            }
        }
        let mut salts = best.map(|(_, salts)| salts).unwrap_or_default();
        for (party, salt) in salts.iter_mut().enumerate() {
            if !by.chooses(party, parties) {
                *salt = rng.random();
            }
        }
        let seed = seed(&salts);
        Ok((seed, self.panel(seed, self.sealed)?))
    }

    /// What the attacker's owners do at `now`, one act.
    fn act(&mut self, now: Epoch, number: u32, rng: &mut Rng) {
        let own: Vec<u32> =
            (0u32..).zip(&self.nodes).filter(|(_, node)| node.malicious).map(|(index, _)| index).collect();
        let params = &self.setting.params;
        let index = own[rng.random_range(0..own.len())];
        let (least, most) = (params.stake_min, params.stake_cap);
        match rng.random_range(0..3) {
            0 => self.store.act(index, params, now, |node| {
                node.status = match node.status {
                    NodeStatus::Active => NodeStatus::Draining,
                    NodeStatus::Draining => NodeStatus::Active,
                };
            }),
            1 => {
                self.store.act(index, params, now, |node| node.stake.bonded = rng.random_range(least..=most))
            }
            _ => {
                let new = crate::population::Node { owner: 10_000 + number, ..self.nodes[index as usize] };
                self.store.register(&new, params, now);
            }
        }
    }
}

/// Lets `by`, who owns `ratio` of the evaluators of the default crowd, steer `effort.rounds` panels in every replication.
///
/// # Errors
/// A setting that the contract would refuse; a ratio outside (0, 1).
pub fn steer(world: &World, setting: &Setting, by: Steerer, ratio: f64, effort: Effort) -> Result<Steered> {
    // Honest in everything but this; what it does with its scores is not asked.
    let crowd = Crowd::default().attacked(Attack::FreeRide, ratio);
    let nodes: Vec<_> = crowd.nodes(world)?.into_iter().filter(|node| node.role == Role::Evaluator).collect();
    let own = nodes.iter().filter(|node| node.malicious).count();
    if own == 0 {
        return Err(Error::Setting(format!("{ratio} of the evaluators is nobody: nobody to steer")));
    }
    let weight = own as f64 / nodes.len() as f64;
    let seats = f64::from(setting.panel) * effort.rounds as f64;
    let replication = |number: u32| -> Result<(f64, f64, u64)> {
        let streams = Streams::new(effort.seed, number);
        let mut contest = Contest::new(setting, nodes.clone());
        let (mut got, mut majorities, mut changed) = (0usize, 0u64, 0u64);
        for round in 0..effort.rounds {
            let mut rng = streams.round(round, Purpose::Draw);
            let (seed, mut panel) = contest.steered(by, round + 1, &mut rng)?;
            if let Steerer::Owners(tries) = by {
                for attempt in 0..tries {
                    let now = contest.sealed + Epoch::from(attempt >= tries / 2);
                    contest.act(now, attempt, &mut rng);
                    let other = contest.panel(seed, now)?;
                    changed += u64::from(other != panel);
                    if contest.own(&other) > contest.own(&panel) {
                        panel = other;
                    }
                }
                got += contest.own(&panel);
                majorities += u64::from(2 * contest.own(&panel) > panel.len());
                contest = Contest::new(setting, contest.nodes);
                continue;
            }
            got += contest.own(&panel);
            majorities += u64::from(2 * contest.own(&panel) > panel.len());
        }
        Ok((got as f64 / seats, majorities as f64 / effort.rounds as f64, changed))
    };
    let all: Vec<_> = (0..effort.replications).into_par_iter().map(replication).collect::<Result<_>>()?;
    let missing = || Error::Setting("no replications: nothing was steered".into());
    Ok(Steered {
        weight,
        seats: estimate(all.iter().map(|of| of.0)).ok_or_else(missing)?,
        majority: estimate(all.iter().map(|of| of.1)).ok_or_else(missing)?,
        changed: all.iter().map(|of| of.2).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RECOMMENDED;
    use crate::world::Spread;

    fn of(by: Steerer) -> Steered {
        let world = World::standard(Spread::Wide).unwrap();
        steer(&world, &RECOMMENDED.setting(), by, 0.3, Effort { rounds: 1_000, replications: 4, seed: 3 })
            .unwrap()
    }

    /// Four standard deviations of 36,000 independent seats at 30 %: 0.0097.
    const NOISE: f64 = 0.01;

    #[test]
    fn whoever_leaves_one_honest_party_gets_its_share_of_the_seats() {
        for by in [Steerer::Nobody, Steerer::Requester(16), Steerer::LastNode(16), Steerer::Nodes(16)] {
            let got = of(by);
            assert!((got.seats.mean - got.weight).abs() < NOISE, "{by:?}: {got:?}");
        }
    }

    #[test]
    fn nothing_that_owners_do_after_the_seal_changes_a_panel() {
        let got = of(Steerer::Owners(8));
        assert_eq!(got.changed, 0);
        assert!((got.seats.mean - got.weight).abs() < NOISE, "{got:?}");
    }

    /// What stays open, and shows that the tries above would be seen: with nobody honest left the seed is chosen.
    #[test]
    fn a_requester_that_owns_all_nodes_chooses_its_panel() {
        let got = of(Steerer::Everybody(16));
        assert!(got.seats.mean > 1.5 * got.weight && got.majority.mean > 0.5, "{got:?}");
    }
}
