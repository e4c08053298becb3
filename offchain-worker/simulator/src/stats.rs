//! Statistics: moments as numbers come in, correlation, ranks, confidence intervals.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::statistics::{Data, OrderStatistics, RankTieBreaker};

/// Mean and variance of numbers as they come in (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes a number in.
    pub fn add(&mut self, x: f64) {
        self.count += 1;
        let off = x - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (x - self.mean);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` where there were none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Their sample variance; `None` for fewer than two.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }
}

/// Pearson's correlation of pairs as they come in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Correlation {
    x: Moments,
    y: Moments,
    products: f64,
}

impl Correlation {
    /// Takes a pair in.
    pub fn add(&mut self, x: f64, y: f64) {
        self.x.add(x);
        let off = y - self.y.mean;
        self.y.add(y);
        self.products += off * (x - self.x.mean);
    }

    /// The correlation; `None` for fewer than two pairs, or where one side does not vary.
    pub fn pearson(&self) -> Option<f64> {
        let scale = (self.x.squares * self.y.squares).sqrt();
        (self.x.count > 1 && scale > 0.0).then(|| (self.products / scale).clamp(-1.0, 1.0))
    }
}

/// Ranks from 1; ties share their mean rank.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    Data::new(values.to_vec()).ranks(RankTieBreaker::Average)
}

/// Spearman's rank correlation; `None` where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let mut correlation = Correlation::default();
    for (x, y) in ranks(x).into_iter().zip(ranks(y)) {
        correlation.add(x, y);
    }
    correlation.pearson()
}

/// A mean over replications with its 95 % confidence interval (Student's t).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Where the interval starts; the mean itself where there is only one replication.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// How many replications have a value.
    pub count: u64,
}

/// The mean of `values` with its 95 % confidence interval; `None` where there are none.
pub fn estimate(values: impl IntoIterator<Item = f64>) -> Option<Estimate> {
    let mut moments = Moments::default();
    for value in values {
        moments.add(value);
    }
    let (mean, count) = (moments.mean()?, moments.count());
    let half = moments
        .variance()
        .and_then(|variance| {
            let t = StudentsT::new(0.0, 1.0, (count - 1) as f64).ok()?.inverse_cdf(0.975);
            Some(t * (variance / count as f64).sqrt())
        })
        .unwrap_or(0.0);
    Some(Estimate { mean, low: mean - half, high: mean + half, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_correlation_of_known_numbers() {
        let mut moments = Moments::default();
        assert_eq!((moments.mean(), moments.variance()), (None, None));
        for x in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.add(x);
        }
        assert_eq!(moments.mean(), Some(5.0));
        assert!((moments.variance().unwrap() - 32.0 / 7.0).abs() < 1e-12);
        let mut correlation = Correlation::default();
        for (x, y) in [(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0)] {
            correlation.add(x, y);
        }
        assert!((correlation.pearson().unwrap() - 0.6).abs() < 1e-12);
        let mut flat = Correlation::default();
        flat.add(1.0, 2.0);
        flat.add(1.0, 3.0);
        assert_eq!(flat.pearson(), None);
    }

    #[test]
    fn ranks_share_ties() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1_000.0]), Some(1.0));
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn intervals_are_students() {
        // t(0.975, 3) = 3.182446
        let estimate = estimate([1.0, 2.0, 3.0, 4.0]).unwrap();
        let half = 3.182_446 * (5.0f64 / 3.0 / 4.0).sqrt();
        assert!((estimate.mean - 2.5).abs() < 1e-12 && (estimate.high - 2.5 - half).abs() < 1e-4);
        assert_eq!(super::estimate([7.0]).unwrap().low, 7.0);
        assert_eq!(super::estimate([]), None);
    }
}
