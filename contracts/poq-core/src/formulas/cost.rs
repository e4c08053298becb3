//! Cost: what a node's answer cost, normalised to [0, 1].
//!
//! arXiv 2512.16317 normalises measured latency between the population's extremes. Here the latency is what the chain's
//! own block timestamps show between assignment and commitment, so it cannot be self-reported, and the bounds are
//! parameters of the task kind, so one slow node cannot shift everybody else's cost.

use crate::units::{Balance, Millis, Ratio};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The latencies between which cost rises from zero to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LatencyRange {
    /// At or below this many milliseconds the cost is zero.
    pub min_ms: Millis,
    /// At or above this many milliseconds the cost is one. Above `min_ms`.
    pub max_ms: Millis,
}

impl LatencyRange {
    /// clip((latency − min) / (max − min)), rounded down. In [0, 1].
    pub fn cost(&self, latency_ms: Millis) -> Ratio {
        let over = latency_ms.saturating_sub(self.min_ms);
        Ratio::from_fraction(u128::from(over), u128::from(self.max_ms.saturating_sub(self.min_ms)))
    }
}

/// The cost of an inference node's answer: clip((L − L_min)/(L_max − L_min)) · ω_latency + clip(price/price_cap) · ω_price.
///
/// In [0, 1] because the two weights sum to at most one (checked when parameters are set).
pub fn inference_cost(
    latency_ms: Millis,
    range: &LatencyRange,
    latency_weight: Ratio,
    price: Balance,
    price_cap: Balance,
    price_weight: Ratio,
) -> Ratio {
    let latency = range.cost(latency_ms).mul(latency_weight);
    let price = Ratio::from_fraction(price, price_cap).mul(price_weight);
    latency.saturating_add(price)
}
