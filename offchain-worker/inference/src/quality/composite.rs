//! The composite: one number out of several dimensions.

use super::unit;

/// clip(Σ w·z / Σ w, 0, 1) over the dimensions that have a value (arXiv 2603.04028, table 4: "weighted sum with
/// normalization and clipping"); `None` where none with a weight has one.
///
/// Leaving out what has nothing to say and renormalising is what the paper does when it removes a dimension.
pub fn composite(parts: impl IntoIterator<Item = (f64, Option<f64>)>) -> Option<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (weight, value) in parts {
        if let Some(value) = value {
            sum += weight * value;
            weights += weight;
        }
    }
    (weights > 0.0).then(|| unit(sum / weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_renormalised_over_what_is_there() {
        assert_eq!(composite([(0.25, Some(1.0)), (0.75, Some(0.0))]), Some(0.25));
        assert_eq!(composite([(0.25, Some(1.0)), (0.75, None)]), Some(1.0));
        assert_eq!(composite([(0.25, None)]), None);
        assert_eq!(composite([(0.0, Some(1.0))]), None);
        assert_eq!(composite([]), None);
    }

    #[test]
    fn the_papers_calibrated_weights_come_out() {
        // Alignment and agreement removed: 0.15, 0.10, 0.20, 0.25 over 0.70.
        let only = |k: usize| {
            let value = |i: usize| Some(if i == k { 1.0 } else { 0.0 });
            let weights = [0.15, 0.10, 0.20, 0.25];
            composite(weights.iter().enumerate().map(|(i, w)| (*w, value(i)))).unwrap()
        };
        for (k, expected) in [0.2143, 0.1429, 0.2857, 0.3571].iter().enumerate() {
            assert!((only(k) - expected).abs() < 5e-5);
        }
    }
}
