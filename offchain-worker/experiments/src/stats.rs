//! Intervals by resampling whole prompts.
//!
//! Outputs of one prompt are not independent: an easy question is easy for every model. Resampling outputs would therefore
//! give intervals that are too narrow; prompts are resampled instead, with all their outputs (the cluster bootstrap).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

/// Resamples of every interval.
pub const RESAMPLES: usize = 1000;

/// An estimate with its 95 % percentile bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// On the outputs as they are.
    pub estimate: f64,
    /// The 2.5th percentile over resamples.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Whether the whole interval is above zero.
    pub fn is_positive(&self) -> bool {
        self.low > 0.0
    }

    /// Whether the whole interval is below zero.
    pub fn is_negative(&self) -> bool {
        self.high < 0.0
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.estimate, self.low, self.high)
    }
}

/// The interval of a statistic over rows that come in clusters. `statistic` gets row numbers, with repetitions, and may
/// be undefined (a constant column has no correlation); such resamples are left out, and the interval with them where they
/// are more than a tenth.
///
/// The same seed gives the same interval on every machine, whatever the number of threads.
pub fn bootstrap(
    clusters: &[Vec<usize>],
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Option<Interval> {
    let all: Vec<usize> = clusters.iter().flatten().copied().collect();
    let estimate = statistic(&all)?;
    let resample = |number: u64| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        let mut rows = Vec::with_capacity(all.len());
        for _ in 0..clusters.len() {
            rows.extend_from_slice(&clusters[random.random_range(0..clusters.len())]);
        }
        statistic(&rows)
    };
    let mut values: Vec<f64> = (0..RESAMPLES as u64).into_par_iter().filter_map(resample).collect();
    if values.len() < RESAMPLES * 9 / 10 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    Some(Interval { estimate, low: at(0.025), high: at(0.975) })
}

/// Kish's effective size of a panel of `size` whose errors correlate by `correlation` on average: k / (1 + (k − 1) ρ). For
/// ρ = 0 all votes count, for ρ = 1 they are one. Negative correlation is counted as none.
pub fn effective_votes(size: usize, correlation: f64) -> f64 {
    let k = size as f64;
    k / (1.0 + (k - 1.0) * correlation.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(values: &[f64]) -> impl Fn(&[usize]) -> Option<f64> + Sync + '_ {
        |rows| Some(rows.iter().map(|row| values[*row]).sum::<f64>() / rows.len() as f64)
    }

    #[test]
    fn an_interval_covers_and_is_repeatable() {
        let values: Vec<f64> = (0..100).map(|i| (i % 10) as f64).collect();
        let alone: Vec<Vec<usize>> = (0..100).map(|i| vec![i]).collect();
        let interval = bootstrap(&alone, 1, mean_of(&values)).unwrap();
        assert!(interval.low < 4.5 && 4.5 < interval.high);
        // The standard error of the mean is 2.87 / 10.
        assert!((interval.high - interval.low - 4.0 * 0.287).abs() < 0.2, "{interval}");
        assert_eq!(interval, bootstrap(&alone, 1, mean_of(&values)).unwrap());
    }

    #[test]
    fn clusters_widen_an_interval() {
        // Ten clusters of ten equal values are ten observations, not a hundred.
        let values: Vec<f64> = (0..100).map(|i| (i / 10) as f64).collect();
        let alone: Vec<Vec<usize>> = (0..100).map(|i| vec![i]).collect();
        let clusters: Vec<Vec<usize>> = (0..10).map(|c| (c * 10..c * 10 + 10).collect()).collect();
        let width = |i: Interval| i.high - i.low;
        let narrow = bootstrap(&alone, 1, mean_of(&values)).unwrap();
        let wide = bootstrap(&clusters, 1, mean_of(&values)).unwrap();
        assert!(width(wide) > 2.0 * width(narrow), "{wide} {narrow}");
    }

    #[test]
    fn what_is_undefined_has_no_interval() {
        assert!(bootstrap(&[vec![0]], 1, |_| None).is_none());
        assert!(bootstrap(&[vec![0], vec![1]], 1, |rows| rows.contains(&0).then_some(1.0)).is_none());
    }

    #[test]
    fn correlated_votes_are_worth_less() {
        assert_eq!(effective_votes(9, 0.0), 9.0);
        assert_eq!(effective_votes(9, 1.0), 1.0);
        assert!((effective_votes(9, 0.4375) - 2.0).abs() < 1e-12);
    }
}
