//! Consensus: several evaluators' scores of one output become one quality.
//!
//! The mean is the papers' baseline (arXiv 2512.16317); median, trimmed mean and trust weighting are the robust rules of
//! arXiv 2601.21189. A median has a breakdown point of one half: fewer than half of the scores, whatever they are, cannot
//! move it outside the range of the others.

use crate::units::Ratio;
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How scores become a consensus.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Aggregation {
    /// The arithmetic mean.
    Mean,
    /// The middle score; of an even number, the mean of the two middle ones.
    Median,
    /// The mean of what is left when floor(trim · K) scores are dropped at either end.
    TrimmedMean {
        /// The share dropped at either end; below one half.
        trim: Ratio,
    },
    /// The mean weighted by the evaluators' trust.
    TrustWeightedMean,
    /// The score at which half of the total trust is reached; the mean of two where it is reached exactly between them.
    TrustWeightedMedian,
}

/// One evaluator's score of one output with the evaluator's trust.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weighted {
    /// The score, in [0, 1].
    pub score: Ratio,
    /// The evaluator's trust, in [0, 1]; only the trust-weighted rules look at it.
    pub trust: Ratio,
}

/// The consensus of `scores` under `rule`, rounded down to a part per billion; `None` where there are no scores.
///
/// Does not depend on the order of the scores. Where all trust is zero the trust-weighted rules fall back to their
/// unweighted forms.
// Sums of at most 2^32 products below 10^18 fit u128 and no divisor here is zero: `scores` is not empty, what a trim
// leaves is not empty, and a zero total weight is handled first.
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
pub fn aggregate(rule: Aggregation, scores: &[Weighted]) -> Option<Ratio> {
    if scores.is_empty() {
        return None;
    }
    let mut sorted: Vec<Weighted> = scores.to_vec();
    sort(&mut sorted);
    let total: u128 = sorted.iter().map(|w| u128::from(w.trust.ppb())).sum();
    let rule = match rule {
        Aggregation::TrustWeightedMean if total == 0 => Aggregation::Mean,
        Aggregation::TrustWeightedMedian if total == 0 => Aggregation::Median,
        rule => rule,
    };
    let ppb = match rule {
        Aggregation::Mean => mean(&sorted),
        Aggregation::Median => {
            let middle = sorted.len() / 2;
            if sorted.len() % 2 == 1 {
                u128::from(sorted[middle].score.ppb())
            } else {
                mean(&sorted[middle - 1..=middle])
            }
        }
        Aggregation::TrimmedMean { trim } => {
            let len = sorted.len();
            let most = (len - 1) / 2;
            let drop = usize::try_from(trim.of(len as u128)).unwrap_or(most).min(most);
            mean(&sorted[drop..len - drop])
        }
        Aggregation::TrustWeightedMean => {
            let sum: u128 =
                sorted.iter().map(|w| u128::from(w.score.ppb()) * u128::from(w.trust.ppb())).sum();
            sum / total
        }
        Aggregation::TrustWeightedMedian => weighted_median(&sorted, total),
    };
    Some(Ratio::from_ppb(u32::try_from(ppb).unwrap_or(u32::MAX)))
}

/// Shell's sort: a few hundred bytes of WebAssembly where the standard library's sort is several thousand, and as fast on
/// the fifteen scores of a panel.
// Every index is below the length: gap <= j <= i < len.
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
fn sort(items: &mut [Weighted]) {
    let mut gap = items.len() / 2;
    while gap > 0 {
        for i in gap..items.len() {
            let mut j = i;
            while j >= gap && (items[j - gap].score, items[j - gap].trust) > (items[j].score, items[j].trust)
            {
                items.swap(j - gap, j);
                j -= gap;
            }
        }
        gap /= 2;
    }
}

// `part` is never empty (see `aggregate`).
#[allow(clippy::arithmetic_side_effects)]
fn mean(part: &[Weighted]) -> u128 {
    part.iter().map(|w| u128::from(w.score.ppb())).sum::<u128>() / (part.len() as u128).max(1)
}

#[allow(clippy::arithmetic_side_effects)] // sums of 32-bit numbers
fn weighted_median(sorted: &[Weighted], total: u128) -> u128 {
    let mut below = 0u128;
    let mut lower: Option<u128> = None;
    for w in sorted.iter().filter(|w| w.trust > Ratio::ZERO) {
        let score = u128::from(w.score.ppb());
        if let Some(lower) = lower {
            return (lower + score) / 2;
        }
        below += u128::from(w.trust.ppb());
        if below * 2 > total {
            return score;
        }
        if below * 2 == total {
            lower = Some(score);
        }
    }
    lower.unwrap_or(0)
}

/// The median of `values`; of an even number the mean of the two middle ones, rounded down. `None` where there are none.
pub fn median(values: &[Ratio]) -> Option<Ratio> {
    let scores: Vec<Weighted> = values.iter().map(|v| Weighted { score: *v, trust: Ratio::ZERO }).collect();
    aggregate(Aggregation::Median, &scores)
}
