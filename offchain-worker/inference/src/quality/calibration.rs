//! Calibration: which dimensions to trust, and how much, learnt from outputs whose quality is known.
//!
//! Following arXiv 2603.04028, section 7: audit every dimension against a reference signal, drop those that do not
//! correlate, renormalise the weights. Beyond the paper: everything is learnt on a training split and must be reported on
//! outputs of *other* prompts, and a monotone map puts the composite onto the reference signal's own scale, so that it
//! can be compared with the token F1 that an opened reference gives.

use super::unit;
use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, OrderStatistics, RankTieBreaker};

/// What the dimensions said of one output, and what the reference signal says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// One value per dimension, in a fixed order.
    pub values: Vec<Option<f64>>,
    /// The reference signal, in [0, 1].
    pub target: f64,
}

/// Pearson's correlation, in [-1, 1]; `None` of fewer than three pairs or where a side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len();
    if n < 3 || y.len() != n {
        return None;
    }
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        let (dx, dy) = (a - mean_x, b - mean_y);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    // A constant column has a variance of rounding errors only.
    let floor = 1e-24 * n as f64;
    let r = xy / (xx * yy).sqrt();
    (xx > floor && yy > floor && r.is_finite()).then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, ties sharing their mean rank; `None` as for [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() < 3 || x.len() != y.len() {
        return None;
    }
    let ranks = |v: &[f64]| Data::new(v.to_vec()).ranks(RankTieBreaker::Average);
    pearson(&ranks(x), &ranks(y))
}

/// How a dimension goes with the reference signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Outputs of which it had something to say.
    pub count: usize,
    /// Pearson's correlation with the reference signal.
    pub pearson: Option<f64>,
    /// Spearman's.
    pub spearman: Option<f64>,
}

/// Audits every dimension.
pub fn audit(samples: &[Sample]) -> Vec<Audit> {
    let width = samples.first().map_or(0, |sample| sample.values.len());
    let of = |k: usize| {
        let (values, targets): (Vec<f64>, Vec<f64>) =
            samples.iter().filter_map(|s| Some((s.values[k]?, s.target))).unzip();
        Audit {
            count: values.len(),
            pearson: pearson(&values, &targets),
            spearman: spearman(&values, &targets),
        }
    };
    (0..width).map(of).collect()
}

/// `weights` with those of dimensions at or below `threshold` (Pearson; an unknown correlation counts as 0) set to zero, and
/// the others renormalised to add up to 1. All zero where no dimension passes.
pub fn gate(weights: &[f64], audits: &[Audit], threshold: f64) -> Vec<f64> {
    let kept: Vec<f64> = weights
        .iter()
        .zip(audits)
        .map(|(weight, audit)| if audit.pearson.unwrap_or(0.0) > threshold { *weight } else { 0.0 })
        .collect();
    normalised(kept)
}

fn normalised(weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        weights.into_iter().map(|weight| weight / sum).collect()
    } else {
        weights
    }
}

/// Sweeps of the coordinate descent in [`fit_weights`]; it settles in far fewer.
const SWEEPS: usize = 2_000;

/// The non-negative weights, adding up to 1, whose composite is nearest to the target up to scale and offset (non-negative
/// least squares on centred values by coordinate descent, with `ridge` × samples on the diagonal against overfitting).
///
/// Samples in which a dimension has nothing to say are left out. All zero where nothing helps.
pub fn fit_weights(samples: &[Sample], ridge: f64) -> Vec<f64> {
    let width = samples.first().map_or(0, |sample| sample.values.len());
    let rows: Vec<(Vec<f64>, f64)> = samples
        .iter()
        .filter_map(|s| Some((s.values.iter().copied().collect::<Option<Vec<f64>>>()?, s.target)))
        .collect();
    if rows.is_empty() {
        return vec![0.0; width];
    }
    let n = rows.len() as f64;
    let means: Vec<f64> = (0..width).map(|k| rows.iter().map(|row| row.0[k]).sum::<f64>() / n).collect();
    let target = rows.iter().map(|row| row.1).sum::<f64>() / n;
    // The normal equations: every sweep costs width² whatever the number of samples.
    let product =
        |i: usize, j: usize| rows.iter().map(|r| (r.0[i] - means[i]) * (r.0[j] - means[j])).sum::<f64>();
    let gram: Vec<Vec<f64>> = (0..width).map(|i| (0..width).map(|j| product(i, j)).collect()).collect();
    let right: Vec<f64> =
        (0..width).map(|k| rows.iter().map(|r| (r.0[k] - means[k]) * (r.1 - target)).sum()).collect();
    let mut weights = vec![0.0; width];
    for _ in 0..SWEEPS {
        let mut moved = 0f64;
        for k in 0..width {
            let diagonal = gram[k][k] + ridge * n;
            if gram[k][k] <= 1e-12 * n {
                continue;
            }
            let others: f64 = (0..width).filter(|j| *j != k).map(|j| gram[k][j] * weights[j]).sum();
            let new = ((right[k] - others) / diagonal).max(0.0);
            moved = moved.max((new - weights[k]).abs());
            weights[k] = new;
        }
        if moved < 1e-12 {
            break;
        }
    }
    normalised(weights)
}

/// A map from a composite onto the scale of the reference signal. Never decreasing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Calibration {
    /// clip(slope · x + intercept, 0, 1).
    Linear {
        /// At least 0.
        slope: f64,
        /// The value at 0.
        intercept: f64,
    },
    /// Straight lines between knots, level before the first and after the last.
    Monotone {
        /// (composite, reference signal), both rising.
        knots: Vec<(f64, f64)>,
    },
}

/// Bins of [`Calibration::fit_monotone`], at most: each is to hold enough outputs for its mean to be worth something.
const BINS: usize = 12;

/// Outputs in a bin, at least.
const BIN_SIZE: usize = 20;

impl Calibration {
    /// The mapped value, in [0, 1].
    pub fn apply(&self, x: f64) -> f64 {
        let y = match self {
            Self::Linear { slope, intercept } => slope * x + intercept,
            Self::Monotone { knots } => interpolate(knots, x),
        };
        unit(y)
    }

    /// Why it cannot be used, if it cannot.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Linear { slope, intercept }
                if !(*slope >= 0.0 && slope.is_finite() && intercept.is_finite()) =>
            {
                Some(format!("slope {slope} and intercept {intercept}: finite, and the slope at least 0"))
            }
            Self::Monotone { knots } if knots.is_empty() => Some("there are no knots".to_string()),
            Self::Monotone { knots } => {
                let in_range = |v: f64| (0.0..=1.0).contains(&v);
                if !knots.iter().all(|(x, y)| in_range(*x) && in_range(*y)) {
                    return Some("knots must lie in [0, 1]".to_string());
                }
                let rising = knots.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
                (!rising).then(|| "knots must rise".to_string())
            }
            Self::Linear { .. } => None,
        }
    }

    /// The straight line of least squares through (composite, target), level where it would fall. `None` of no pairs.
    pub fn fit_linear(pairs: &[(f64, f64)]) -> Option<Self> {
        let n = pairs.len() as f64;
        if pairs.is_empty() {
            return None;
        }
        let mean_x = pairs.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = pairs.iter().map(|p| p.1).sum::<f64>() / n;
        let xy: f64 = pairs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
        let xx: f64 = pairs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
        let slope = if xx > 1e-12 { (xy / xx).max(0.0) } else { 0.0 };
        Some(Self::Linear { slope, intercept: mean_y - slope * mean_x })
    }

    /// Isotonic regression (pool adjacent violators) on the means of bins of equal size, joined by straight lines. `None` of
    /// no pairs.
    pub fn fit_monotone(pairs: &[(f64, f64)]) -> Option<Self> {
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let bins = (sorted.len() / BIN_SIZE).clamp(1, BINS);
        // (sum of x, sum of y, count): a pool of bins.
        let mut pools: Vec<(f64, f64, f64)> = Vec::new();
        for bin in 0..bins {
            let members = &sorted[bin * sorted.len() / bins..(bin + 1) * sorted.len() / bins];
            if members.is_empty() {
                continue;
            }
            let mut pool = members.iter().fold((0.0, 0.0, 0.0), |p, m| (p.0 + m.0, p.1 + m.1, p.2 + 1.0));
            while let Some(last) = pools.last() {
                // Violators share a value, and so do bins that lie at one place.
                let falls = last.1 / last.2 >= pool.1 / pool.2 || last.0 / last.2 >= pool.0 / pool.2;
                if !falls {
                    break;
                }
                pool = (pool.0 + last.0, pool.1 + last.1, pool.2 + last.2);
                pools.pop();
            }
            pools.push(pool);
        }
        let knots: Vec<_> = pools.iter().map(|p| (unit(p.0 / p.2), unit(p.1 / p.2))).collect();
        (!knots.is_empty()).then_some(Self::Monotone { knots })
    }
}

fn interpolate(knots: &[(f64, f64)], x: f64) -> f64 {
    let after = knots.partition_point(|knot| knot.0 <= x);
    match (after.checked_sub(1).map(|i| knots[i]), knots.get(after)) {
        (Some(low), Some(high)) => low.1 + (high.1 - low.1) * (x - low.0) / (high.0 - low.0),
        (Some(last), None) => last.1,
        (None, Some(first)) => first.1,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rows: &[(&[f64], f64)]) -> Vec<Sample> {
        rows.iter()
            .map(|(values, target)| Sample {
                values: values.iter().copied().map(Some).collect(),
                target: *target,
            })
            .collect()
    }

    /// A fixed sequence that looks random.
    fn noise(i: usize) -> f64 {
        ((i as f64 * 12.9898).sin() * 43_758.545_3).fract().abs()
    }

    #[test]
    fn correlations_are_the_textbooks() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        let y = [2.0, 1.0, 4.0, 3.0, 5.0];
        assert!((pearson(&x, &y).unwrap() - 0.8).abs() < 1e-12);
        assert!((spearman(&x, &y).unwrap() - 0.8).abs() < 1e-12);
        // Monotone but not straight; ties share a rank.
        assert_eq!(spearman(&x, &x.map(|v| v.powi(3))), Some(1.0));
        let tied = spearman(&[1.0, 1.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((tied - 0.948_683_298_050_513_8).abs() < 1e-12, "{tied}");
        assert_eq!(pearson(&x, &[1.0; 5]), None);
        assert_eq!(pearson(&[0.1; 5], &y), None);
        assert_eq!(pearson(&x[..2], &y[..2]), None);
    }

    #[test]
    fn what_misleads_is_dropped() {
        let rows: Vec<_> =
            (0..30).map(|i| ([i as f64 / 30.0, 1.0 - i as f64 / 30.0, 0.5], i as f64 / 30.0)).collect();
        let rows: Vec<(&[f64], f64)> = rows.iter().map(|(v, t)| (v.as_slice(), *t)).collect();
        let audits = audit(&samples(&rows));
        assert!((audits[0].pearson.unwrap() - 1.0).abs() < 1e-12);
        assert!((audits[1].pearson.unwrap() + 1.0).abs() < 1e-12);
        assert_eq!(audits[2].pearson, None);
        assert_eq!(gate(&[0.25, 0.5, 0.25], &audits, 0.0), [1.0, 0.0, 0.0]);
        assert_eq!(gate(&[0.0, 0.5, 0.5], &audits, 0.0), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn fitted_weights_find_the_mixture() {
        let rows: Vec<_> = (0..200)
            .map(|i| {
                let (a, b, c) = (noise(i), noise(i + 1000), noise(i + 2000));
                ([a, b, c], 0.6 * a + 0.2 * b - 0.1 * c + 0.1)
            })
            .collect();
        let rows: Vec<(&[f64], f64)> = rows.iter().map(|(v, t)| (v.as_slice(), *t)).collect();
        let weights = fit_weights(&samples(&rows), 0.0);
        assert!((weights[0] - 0.75).abs() < 0.03 && (weights[1] - 0.25).abs() < 0.03, "{weights:?}");
        assert_eq!(weights[2], 0.0);
        assert_eq!(fit_weights(&[], 0.0), Vec::<f64>::new());
    }

    #[test]
    fn a_line_is_fitted_and_never_falls() {
        let pairs: Vec<_> = (0..10).map(|i| (i as f64 / 10.0, 0.2 + 0.5 * i as f64 / 10.0)).collect();
        let line = Calibration::fit_linear(&pairs).unwrap();
        assert!((line.apply(0.4) - 0.4).abs() < 1e-12);
        assert_eq!(line.apply(100.0), 1.0);
        let falling: Vec<_> = pairs.iter().map(|(x, y)| (*x, 1.0 - y)).collect();
        let level = Calibration::fit_linear(&falling).unwrap();
        assert_eq!(level.apply(0.0), level.apply(1.0));
    }

    #[test]
    fn a_monotone_map_follows_a_curve_and_never_falls() {
        let pairs: Vec<_> = (0..400)
            .map(|i| {
                let x = i as f64 / 400.0;
                (x, (x * x + 0.2 * (noise(i) - 0.5)).clamp(0.0, 1.0))
            })
            .collect();
        let map = Calibration::fit_monotone(&pairs).unwrap();
        assert_eq!(map.problem(), None);
        let mut last = 0.0;
        for i in 0..=100 {
            let y = map.apply(i as f64 / 100.0);
            assert!(y >= last, "{i}");
            last = y;
        }
        assert!((map.apply(0.5) - 0.25).abs() < 0.08, "{}", map.apply(0.5));
        assert!(Calibration::fit_monotone(&[]).is_none());
        let constant = Calibration::fit_monotone(&[(0.5, 0.3); 100]).unwrap();
        assert!((constant.apply(0.9) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn bad_maps_are_told() {
        for bad in [
            Calibration::Linear { slope: -1.0, intercept: 0.0 },
            Calibration::Linear { slope: f64::NAN, intercept: 0.0 },
            Calibration::Monotone { knots: vec![] },
            Calibration::Monotone { knots: vec![(0.0, 0.5), (0.5, 0.4)] },
            Calibration::Monotone { knots: vec![(0.0, 0.5), (0.0, 0.6)] },
            Calibration::Monotone { knots: vec![(0.0, 1.5)] },
        ] {
            assert!(bad.problem().is_some(), "{bad:?}");
        }
    }
}
