//! Trust: the weight w in [w_min, 1] that an evaluator has in the draw and, where the aggregation asks for it, in the
//! consensus.

use crate::units::{Ratio, Signed, ONE};

/// The multiplicative rule of arXiv 2601.21189 as reconstructed: w ← clip(w·(1 + η·(1 − 2d)), w_min, 1), d the deviation.
///
/// Its break-even is d = 0.5, so nearly everybody drifts up to the cap, after which the trust-weighted mean is the plain
/// mean. Kept selectable to show just that.
// 1 − 2d is in [−10^9, 10^9]; η of it too; w times that is at most 2·10^18.
#[allow(clippy::arithmetic_side_effects)]
pub fn multiplicative(trust: Ratio, deviation: Ratio, eta: Ratio, floor: Ratio) -> Ratio {
    let one = i64::from(ONE);
    let drift = (one - 2 * deviation.signed()) * eta.signed() / one;
    Ratio::clip(trust.signed() * (one + drift) / one).max(floor)
}

/// The centred rule (ours): against the round's median deviation, slowly up and fast down.
/// w ← clip(w·(1 + up·(d̃ − d)), w_min, 1) where d ≤ d̃, else w ← clip(w·(1 − down·(d − d̃)), w_min, 1).
pub fn centred(
    trust: Ratio,
    deviation: Ratio,
    median_deviation: Ratio,
    up: Ratio,
    down: Ratio,
    floor: Ratio,
) -> Ratio {
    let moved = if deviation <= median_deviation {
        trust.saturating_add(trust.mul(up.mul(median_deviation.abs_diff(deviation))))
    } else {
        trust.saturating_sub(trust.mul(down.mul(deviation.abs_diff(median_deviation))))
    };
    moved.max(floor)
}

/// An exponential moving average of information gains, in signed parts per billion: e + rate·(x − e).
// Both are in [−10^9, 10^9], the product fits i64.
#[allow(clippy::arithmetic_side_effects)]
pub fn moving_average(average: Signed, gain: Signed, rate: Ratio) -> Signed {
    let one = i64::from(ONE);
    let average = average.clamp(-one, one);
    average + (gain.clamp(-one, one) - average) * rate.signed() / one
}

/// The average that an evaluator starts from at its first information gain: the one at which the relative-merit rule gives
/// the trust that it has. Starting from zero instead would throw every newcomer down to the floor after one task, however
/// good it was, and it would take some 1/rate tasks to recover. Zero where the population gains nothing.
pub fn starting_average(trust: Ratio, population: Signed) -> Signed {
    trust.mul(Ratio::clip(population)).signed()
}

/// The relative-merit rule (ours, the partner of the information rule): w = clip(own average gain / population's average
/// gain, w_min, 1). Where the population gains nothing there is nothing to be relative to, and `trust` stays.
pub fn relative_merit(trust: Ratio, own: Signed, population: Signed, floor: Ratio) -> Ratio {
    match (u64::try_from(own), u64::try_from(population)) {
        (_, Ok(0) | Err(_)) => trust.max(floor),
        (Err(_), Ok(_)) => floor,
        (Ok(own), Ok(population)) => Ratio::from_fraction(u128::from(own), u128::from(population)).max(floor),
    }
}
