//! A kind's population of evaluators, as its settlements have seen it.

use crate::formulas::settlement::Settlement;
use crate::kind::ring::Ring;
use crate::params::{KindParams, MeritRule};
use crate::units::{Millis, Ratio, Signed};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// What a kind remembers between its tasks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Population {
    /// The consensus of tasks settled before.
    pub ring: Ring,
    /// x_ref: follows the median information gain.
    pub reference: Ratio,
    /// The population's moving average of information gains in gold tasks, in signed parts per billion; 0 before the first
    /// positive one.
    pub gain_average: Signed,
}

impl Population {
    /// A new kind's.
    pub fn new(params: &KindParams) -> Population {
        let reference = match params.merit {
            MeritRule::Information { floor, .. } => floor,
            MeritRule::Closeness => Ratio::ZERO,
        };
        Population { reference, ..Population::default() }
    }

    /// What a settlement leaves behind. `seed` is the task's, of its panel.
    pub fn absorb(&mut self, params: &KindParams, settlement: &Settlement, seed: &[u8; 32], now: Millis) {
        self.reference = settlement.reference;
        if let Some(quality) = settlement.consensus {
            let mut random = [0; 16];
            random.copy_from_slice(seed.get(16..).unwrap_or(&[0; 16]));
            self.ring.push(quality, settlement.weight, params.ring_burn, u128::from_le_bytes(random), now);
        }
    }
}
