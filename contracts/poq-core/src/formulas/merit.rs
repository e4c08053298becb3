//! Merit: how good an evaluator's scores of one task were, in [0, 1].
//!
//! Every evaluator is compared with the consensus of the *others* (leave one out): arXiv 2512.16317 compares it with a
//! consensus that it is part of, which rewards whoever weighs most.
//!
//! - **Closeness** (the papers'): 1 − the mean deviation. A constant score near the usual quality earns nearly
//!   everything without looking.
//! - **Information** (ours): how much nearer the score is to this task's consensus than to that of unrelated tasks of the
//!   same kind: correlated agreement (multi-task peer prediction: Dasgupta and Ghosh 2013, Shnayder et al. 2016) for
//!   continuous scores. A score that does not depend on the output gains nothing in expectation. Pay is never below zero, so
//!   it is spread over [`SPAN`] tasks ([`spread`]): paid task by task, noise around nothing would earn its better half.

use crate::units::{Balance, Millis, Ratio, Signed, SignedBalance};
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The fewest unrelated values that an information gain is measured against.
pub const RING_MIN: usize = 4;

/// Over how many tasks an evaluator's merit by information is spread.
pub const SPAN: SignedBalance = 8;
/// How many slots one task can earn, or take of what is due.
pub const SWING: Balance = 2;

/// The consensus of one output of a settled task, kept in a short ring per kind as the unrelated comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RingEntry {
    /// When that task was settled; 0 for an entry never written.
    pub settled_at: Millis,
    /// The consensus of its first output that had one. Of one output, not the mean of several: a ring narrower than what is
    /// compared with it would reward exaggeration.
    pub quality: Ratio,
}

/// How far an evaluator was from the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deviation {
    /// Mean over the outputs of |s − Q^(−m)|, the tolerance taken off. In [0, 1].
    pub tolerated: Ratio,
    /// The same with nothing taken off: what the outlier bound looks at.
    pub raw: Ratio,
    /// Over how many outputs.
    pub outputs: u32,
}

/// One evaluator's score of one output beside the consensus of the others on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The evaluator's own score.
    pub own: Ratio,
    /// The consensus of the others.
    pub others: Ratio,
}

/// The mean deviation from the others.
pub fn deviation(comparisons: &[Comparison], tolerance: Ratio) -> Deviation {
    let distances = || comparisons.iter().map(|c| c.own.abs_diff(c.others));
    Deviation {
        raw: mean(distances(), comparisons.len()),
        tolerated: mean(distances().map(|d| d.saturating_sub(tolerance)), comparisons.len()),
        outputs: u32::try_from(comparisons.len()).unwrap_or(u32::MAX),
    }
}

/// The closeness rule: 1 − the tolerated deviation. Zero where nothing was compared.
pub fn closeness(deviation: &Deviation) -> Ratio {
    if deviation.outputs == 0 {
        Ratio::ZERO
    } else {
        deviation.tolerated.complement()
    }
}

/// The information gain x_m = mean_f(|s − Q°| − |s − Q_f^(−m)|) in signed parts per billion, in [−1, 1]: how much nearer to
/// this task's consensus than to that of unrelated tasks. `None` where there is nothing to compare with (fewer than
/// [`RING_MIN`] entries in the ring, or no output compared).
///
/// The tolerance is taken off both distances. Off one alone it would be a gift to scores that do not depend on the output,
/// whose two distances are exchangeable: they would gain up to the tolerance on average instead of nothing.
///
/// Q° is averaged over the whole ring, known to the evaluator or not. A single unrelated value would do on average, but
/// whoever foresees it reports the extreme on its other side: in simulation 30 % of the evaluators who did so earned 14 to
/// 24 times the honest pay and took the consensus with them. Foreseeing is easy, whatever the order of commitment and
/// settlement: revealed scores are public before their task is settled, and anyone can settle it. The whole ring is as wide
/// as the kind's usual quality, which everybody knows anyway; against it exaggerating earns some 15 % more.
// At most 2^16 numbers of at most 10^9: all fits i64. Divisors are at least one.
#[allow(clippy::arithmetic_side_effects)]
pub fn information_gain(comparisons: &[Comparison], tolerance: Ratio, ring: &[RingEntry]) -> Option<Signed> {
    let unrelated: Vec<Ratio> = ring.iter().filter(|e| e.settled_at > 0).map(|e| e.quality).collect();
    if comparisons.is_empty() || unrelated.len() < RING_MIN {
        return None;
    }
    let mut gain: i64 = 0;
    for c in comparisons {
        let distance = |q: Ratio| c.own.abs_diff(q).saturating_sub(tolerance).signed();
        let apart: i64 = unrelated.iter().map(|q| distance(*q)).sum::<i64>()
            / i64::try_from(unrelated.len()).unwrap_or(1).max(1);
        gain += apart - distance(c.others);
    }
    Some(gain.div_euclid(i64::try_from(comparisons.len()).unwrap_or(1).max(1)))
}

/// The information rule's merit, and what is due to the evaluator after it.
///
/// A task earns x / x_ref of its slot, two slots at most either way, where x_ref follows the population ([`next_reference`]). What is
/// earned is due, and each task pays an eighth of what is due, at most its own slot: with equal slots the merit is the moving average
/// a ← a + (clip(x / x_ref, −2, 2) − a)/8, clipped to [0, 1]. What is due is money, not a share, or an average that was earned in
/// tasks of the least fee would be paid in dear ones. Where it is below zero as much of it is forgiven.
pub fn spread(gain: Signed, reference: Ratio, due: SignedBalance, slot: Balance) -> (Ratio, SignedBalance) {
    let most = slot.saturating_mul(SWING);
    let size = Ratio::from_fraction(
        u128::from(gain.unsigned_abs()),
        u128::from(reference.ppb()).saturating_mul(SWING),
    );
    let signed = |amount: Balance| SignedBalance::try_from(amount).unwrap_or(SignedBalance::MAX);
    let earned = signed(size.of(most));
    let due = if gain < 0 { due.saturating_sub(earned) } else { due.saturating_add(earned) };
    let part = due.checked_div(SPAN).unwrap_or(0);
    let part = part.max(signed(most).saturating_neg()).min(signed(most));
    let merit = Balance::try_from(part).map_or(Ratio::ZERO, |part| Ratio::from_fraction(part, slot));
    (merit, due.saturating_sub(part))
}

/// Moves x_ref towards the population's median gain: up by `step` of itself when a gain is above it, down by as much when
/// it is not (a streaming median in constant memory). Never below `floor`, never above one.
pub fn next_reference(reference: Ratio, gain: Signed, step: Ratio, floor: Ratio) -> Ratio {
    // At least one part per billion, or a small reference would never move.
    let move_by = Ratio::from_ppb(reference.mul(step).ppb().max(1));
    let moved = if gain > reference.signed() {
        reference.saturating_add(move_by)
    } else {
        reference.saturating_sub(move_by)
    };
    moved.max(floor)
}

// Sums of at most 2^32 numbers below 2^32 fit u64; the divisor is at least one.
#[allow(clippy::arithmetic_side_effects)]
fn mean(values: impl Iterator<Item = Ratio>, len: usize) -> Ratio {
    let sum: u64 = values.map(|v| u64::from(v.ppb())).sum();
    Ratio::from_ppb(u32::try_from(sum / (len as u64).max(1)).unwrap_or(u32::MAX))
}
