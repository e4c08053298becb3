//! Who takes part: inference nodes and evaluators, honest and not.

use crate::attack::Attack;
use crate::error::{Error, Result};
use crate::world::World;
use poq_core::params::UNIT;
use poq_core::units::Balance;
pub use poq_core::Role;
use serde::{Deserialize, Serialize};

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it does.
    pub role: Role,
    /// The language or scoring model that it claims, by its number in the world.
    pub model: usize,
    /// Its owner account: two nodes of one owner never serve one task.
    pub owner: u32,
    /// What an inference node asks per task, in the chain's smallest unit.
    pub price: Balance,
    /// Its stake.
    pub stake: Balance,
    /// Whether it attacks.
    pub malicious: bool,
}

/// How many nodes there are, and how many of them attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    /// Inference nodes. At least one.
    pub inference: u32,
    /// Evaluators, counting an attacker that splits its stake once. At least two.
    pub evaluators: u32,
    /// The stake of every node in the chain's smallest unit.
    pub stake: Balance,
    /// What attackers do; `None` for a network without any.
    pub attack: Option<Attack>,
    /// The share of attackers among the nodes that the attack corrupts, in [0, 1).
    pub ratio: f64,
}

impl Default for Crowd {
    /// Twelve inference nodes and sixty evaluators with 1,000 UNIT each, the most that counts, all honest.
    fn default() -> Crowd {
        Crowd { inference: 12, evaluators: 60, stake: 1_000 * UNIT, attack: None, ratio: 0.0 }
    }
}

impl Crowd {
    /// The same crowd under attack.
    pub fn attacked(self, attack: Attack, ratio: f64) -> Crowd {
        Crowd { attack: Some(attack), ratio, ..self }
    }

    /// The nodes: inference nodes first. Models go round, so every model has honest and malicious nodes where there are
    /// enough.
    ///
    /// # Errors
    /// Too few nodes, or a ratio outside [0, 1).
    pub fn nodes(&self, world: &World) -> Result<Vec<Node>> {
        if self.inference == 0 || self.evaluators < 2 {
            return Err(Error::Setting(
                "a crowd needs at least one inference node and two evaluators".into(),
            ));
        }
        if !(0.0..1.0).contains(&self.ratio) {
            return Err(Error::Setting(format!(
                "the ratio of attackers must be in [0, 1), not {}",
                self.ratio
            )));
        }
        let (models, scorers) = (world.models().len(), world.evaluators().len());
        let mut nodes = Vec::new();
        let mut owner = 0;
        let mut add = |role: Role, model: usize, malicious: bool| {
            let identities = match self.attack {
                Some(attack) if malicious && role == Role::Evaluator => attack.identities(),
                _ => 1,
            };
            for _ in 0..identities {
                let stake = self.stake / Balance::from(identities);
                nodes.push(Node { role, model, owner, price: UNIT / 10, stake, malicious });
                owner += 1;
            }
        };
        let corrupts = |of: fn(Attack) -> bool| if self.attack.is_some_and(of) { self.ratio } else { 0.0 };
        let malicious = spread(self.inference as usize, models, corrupts(Attack::inference));
        for (index, malicious) in malicious.into_iter().enumerate() {
            add(Role::Inference, index % models, malicious);
        }
        let malicious = spread(self.evaluators as usize, scorers, corrupts(Attack::evaluators));
        for (index, malicious) in malicious.into_iter().enumerate() {
            add(Role::Evaluator, index % scorers, malicious);
        }
        Ok(nodes)
    }
}

/// Which of `count` nodes, whose models go round, attack: the nearest whole number to `ratio` of them, spread evenly over the
/// models.
fn spread(count: usize, models: usize, ratio: f64) -> Vec<bool> {
    let mut by_model: Vec<usize> = (0..count).collect();
    by_model.sort_by_key(|index| (index % models, index / models));
    let mut malicious = vec![false; count];
    let up_to = |place: usize| (place as f64 * ratio + 0.5).floor();
    for (place, index) in by_model.into_iter().enumerate() {
        malicious[index] = up_to(place + 1) > up_to(place);
    }
    malicious
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Spread;

    fn count(nodes: &[Node], which: impl Fn(&Node) -> bool) -> usize {
        nodes.iter().filter(|node| which(node)).count()
    }

    #[test]
    fn attackers_are_as_many_as_asked_for_and_spread_over_the_models() {
        let world = World::standard(Spread::Wide).unwrap();
        for (ratio, expected) in [(0.0, 0), (0.1, 6), (0.3, 18), (0.45, 27), (0.5, 30)] {
            let nodes = Crowd::default().attacked(Attack::Boosting(0.4), ratio).nodes(&world).unwrap();
            assert_eq!(count(&nodes, |n| n.malicious), expected);
            assert_eq!(count(&nodes, |n| n.malicious && n.role == Role::Inference), 0);
            let models: Vec<usize> = (0..6)
                .map(|m| count(&nodes, |n| n.malicious && n.model == m && n.role == Role::Evaluator))
                .collect();
            let (least, most) = (models.iter().min().unwrap(), models.iter().max().unwrap());
            assert!(most - least <= 1, "{ratio}: {models:?}");
        }
    }

    #[test]
    fn a_coalition_of_both_roles_and_a_split_stake() {
        let world = World::standard(Spread::Wide).unwrap();
        let both = Crowd::default().attacked(Attack::BoostOwn(0.4), 0.25).nodes(&world).unwrap();
        assert_eq!(count(&both, |n| n.malicious && n.role == Role::Inference), 3);
        assert_eq!(count(&both, |n| n.malicious && n.role == Role::Evaluator), 15);
        let split = Crowd::default().attacked(Attack::SybilSplit(4.0), 0.25).nodes(&world).unwrap();
        assert_eq!(count(&split, |n| n.malicious), 60);
        let staked: Balance = split.iter().filter(|n| n.malicious).map(|n| n.stake).sum();
        assert_eq!(staked, 15 * Crowd::default().stake);
        let mut owners: Vec<u32> = split.iter().map(|n| n.owner).collect();
        owners.dedup();
        assert_eq!(owners.len(), split.len());
    }

    #[test]
    fn impossible_crowds_are_refused() {
        let world = World::standard(Spread::Wide).unwrap();
        assert!(Crowd { evaluators: 1, ..Crowd::default() }.nodes(&world).is_err());
        assert!(Crowd { inference: 0, ..Crowd::default() }.nodes(&world).is_err());
        assert!(Crowd::default().attacked(Attack::CopyCat, 1.0).nodes(&world).is_err());
    }
}
