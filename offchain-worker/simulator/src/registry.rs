//! The draw, as the contract does it: `poq_core::draw` picks, the registry says who fits.
//!
//! The loop over picks, the walk through small pools and the spare members are the contract's (`Poq::draw`), which needs its
//! storage for them and so cannot share the code.

use poq_core::draw::{class_of, Pool, CLASSES};
use poq_core::Ratio;
use rand::Rng as _;

/// Whether a candidate fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does.
    Yes,
    /// Only where nobody else is to be had: its model already has half of the panel.
    Spare,
    /// It does not.
    No,
}

/// Where a node is in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    class: u8,
    index: u32,
}

/// The nodes of one role by weight class.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pool: Pool,
    members: Vec<Vec<u32>>,
    /// By node.
    places: Vec<Option<Place>>,
    weights: Vec<Ratio>,
    seen: Vec<u32>,
    spare: Vec<u32>,
}

/// How many places of a pool are walked when random picks did not fill a draw; the contract's number.
const WALK: usize = 16;

impl Registry {
    /// An empty registry for nodes numbered below `nodes`.
    pub(crate) fn new(nodes: usize) -> Registry {
        Registry {
            pool: Pool::default(),
            members: vec![Vec::new(); CLASSES],
            places: vec![None; nodes],
            weights: vec![Ratio::ZERO; nodes],
            seen: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Puts a node where its weight belongs; a weight of zero takes it out.
    pub(crate) fn place(&mut self, node: u32, weight: Ratio) {
        let at = node as usize;
        self.weights[at] = weight;
        let class = class_of(weight);
        let old = self.places[at];
        if class == old.map(|place| place.class) {
            return;
        }
        if let Some(Place { class, index }) = old {
            let members = &mut self.members[usize::from(class)];
            members.swap_remove(index as usize);
            self.pool.counts[usize::from(class)] -= 1;
            if let Some(moved) = members.get(index as usize) {
                self.places[*moved as usize] = Some(Place { class, index });
            }
        }
        self.places[at] = class.map(|class| {
            let members = &mut self.members[usize::from(class)];
            members.push(node);
            let count = &mut self.pool.counts[usize::from(class)];
            *count += 1;
            Place { class, index: *count - 1 }
        });
    }

    /// Draws `count` nodes that fit into `chosen`, in proportion to their weights. Whether there were enough.
    pub(crate) fn draw(
        &mut self,
        count: usize,
        rng: &mut crate::rng::Rng,
        chosen: &mut Vec<u32>,
        fit: impl Fn(u32, &[u32]) -> Fit,
    ) -> bool {
        chosen.clear();
        self.seen.clear();
        self.spare.clear();
        let mut place = (0u8, 0u32);
        for _ in 0..count * 4 + 8 {
            if chosen.len() == count {
                return true;
            }
            let Some(pick) = self.pool.pick(rng.random()) else { return false };
            place = (pick.class, pick.index);
            let node = self.members[usize::from(pick.class)][pick.index as usize];
            if self.weights[node as usize] > pick.threshold {
                self.consider(node, chosen, &fit);
            }
        }
        for (class, index) in self.pool.walk(place.0, place.1, WALK) {
            if chosen.len() == count {
                break;
            }
            let node = self.members[usize::from(class)][index as usize];
            self.consider(node, chosen, &fit);
        }
        for index in 0..self.spare.len() {
            let node = self.spare[index];
            // One of its owner's other nodes may have been chosen since.
            if chosen.len() < count && fit(node, chosen) != Fit::No {
                chosen.push(node);
            }
        }
        chosen.len() == count
    }

    fn consider(&mut self, node: u32, chosen: &mut Vec<u32>, fit: impl Fn(u32, &[u32]) -> Fit) {
        if self.seen.contains(&node) {
            return;
        }
        self.seen.push(node);
        match fit(node, chosen) {
            Fit::Yes => chosen.push(node),
            Fit::Spare => self.spare.push(node),
            Fit::No => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};

    #[test]
    fn nodes_are_drawn_in_proportion_to_their_weights_wherever_they_have_moved() {
        let mut registry = Registry::new(6);
        for (node, permille) in [(0, 1_000), (1, 500), (2, 130), (3, 900), (4, 40), (5, 1_000)] {
            registry.place(node, Ratio::from_permille(permille));
        }
        // Moved, and moved out.
        registry.place(3, Ratio::from_permille(250));
        registry.place(5, Ratio::ZERO);
        registry.place(0, Ratio::from_permille(800));
        let weights = [800.0, 500.0, 130.0, 250.0, 40.0, 0.0];
        let total: f64 = weights.iter().sum();
        let mut counts = [0u32; 6];
        let streams = Streams::new(5, 0);
        let mut chosen = Vec::new();
        const DRAWS: u32 = 40_000;
        for round in 0..u64::from(DRAWS) {
            let mut rng = streams.round(round, Purpose::Draw);
            assert!(registry.draw(1, &mut rng, &mut chosen, |_, _| Fit::Yes));
            counts[chosen[0] as usize] += 1;
        }
        for (count, weight) in counts.iter().zip(weights) {
            let share = f64::from(*count) / f64::from(DRAWS);
            assert!((share - weight / total).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn who_does_not_fit_is_never_drawn_and_spare_members_fill_up() {
        let mut registry = Registry::new(8);
        for node in 0..8 {
            registry.place(node, Ratio::ONE);
        }
        let mut rng = Streams::new(6, 0).round(0, Purpose::Draw);
        let mut chosen = Vec::new();
        assert!(registry.draw(7, &mut rng, &mut chosen, |node, _| if node == 3 {
            Fit::No
        } else {
            Fit::Yes
        }));
        assert!(!chosen.contains(&3));
        assert!(!registry.draw(8, &mut rng, &mut chosen, |node, _| if node == 3 {
            Fit::No
        } else {
            Fit::Yes
        }));
        let half = |_: u32, chosen: &[u32]| if chosen.len() < 2 { Fit::Yes } else { Fit::Spare };
        assert!(registry.draw(5, &mut rng, &mut chosen, half));
        assert_eq!(chosen.len(), 5);
    }
}
