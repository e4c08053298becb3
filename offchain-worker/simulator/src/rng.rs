//! Random numbers that do not depend on threads: one ChaCha stream per seed, replication, round and purpose.
//!
//! Two configurations that are simulated with one seed see the same tasks and the same answers round by round (common
//! random numbers), so what differs between them is the rules, not the luck.

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The generator of one purpose in one round.
pub type Rng = ChaCha8Rng;

/// What random numbers are for. A purpose that draws more often in one configuration than in another does not shift the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The task and the answers to it.
    World = 0,
    /// Who is drawn.
    Draw = 1,
    /// What evaluators see, and how fast everybody is.
    Perception = 2,
    /// What attackers toss coins for.
    Attack = 3,
    /// Which tasks are gold, and what the truth is taken for.
    Audit = 4,
}

/// How many streams a round has: a power of two at least the number of purposes.
const PURPOSES: u64 = 8;

/// The streams of one replication.
#[derive(Clone, Debug)]
pub struct Streams {
    base: ChaCha8Rng,
}

impl Streams {
    /// The streams of replication number `replication` under `seed`.
    pub fn new(seed: u64, replication: u32) -> Streams {
        let mut key = [0u8; 32];
        let (numbers, domain) = key.split_at_mut(12);
        numbers[..8].copy_from_slice(&seed.to_le_bytes());
        numbers[8..].copy_from_slice(&replication.to_le_bytes());
        domain.copy_from_slice(b"poq-simulator/stream");
        Streams { base: ChaCha8Rng::from_seed(key) }
    }

    /// The generator of a purpose in a round: always the same one, whatever was drawn before.
    pub fn round(&self, round: u64, purpose: Purpose) -> Rng {
        let mut rng = self.base.clone();
        rng.set_stream(round.wrapping_mul(PURPOSES).wrapping_add(purpose as u64));
        rng
    }
}

/// A standard normal number.
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    rng.sample(StandardNormal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_distinct() {
        let first = |streams: &Streams, round, purpose| streams.round(round, purpose).random::<u64>();
        let streams = Streams::new(7, 0);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..50 {
            for purpose in
                [Purpose::World, Purpose::Draw, Purpose::Perception, Purpose::Attack, Purpose::Audit]
            {
                let number = first(&streams, round, purpose);
                assert_eq!(number, first(&Streams::new(7, 0), round, purpose));
                assert!(seen.insert(number));
            }
        }
        for other in [Streams::new(7, 1), Streams::new(8, 0)] {
            assert!(seen.insert(first(&other, 0, Purpose::World)));
        }
    }
}
