//! What an encoder can be asked, whatever runs it.

use crate::{error::Result, manifest::ModelDigest};

/// A bi-encoder: one text in, one vector out.
pub trait Encoder: Send {
    /// Its name in the manifest.
    fn name(&self) -> &str;

    /// What it is on chain.
    fn digest(&self) -> ModelDigest;

    /// The length of its vectors.
    fn dimension(&self) -> usize;

    /// What this model wants in front of a text that asks, before it is compared with texts that answer; often nothing.
    fn query_prefix(&self) -> &str {
        ""
    }

    /// One vector of length 1 per text. A text longer than the model's context is cut off at its end.
    ///
    /// The result for a text does not depend, but for rounding, on what else is in the batch.
    ///
    /// # Errors
    /// When the model fails.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;
}

/// A cross-encoder: a pair of texts in, one number out.
pub trait CrossEncoder: Send {
    /// Its name in the manifest.
    fn name(&self) -> &str;

    /// What it is on chain.
    fn digest(&self) -> ModelDigest;

    /// One logit per pair: how well the second text answers the first; see [`sigmoid`]. Where a pair is longer than the
    /// model's context, the longer of the two is cut off at its end.
    ///
    /// # Errors
    /// When the model fails.
    fn score(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<f32>>;
}

/// The cosine of two vectors of length 1, in [-1, 1]; 0 when their lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    if dot.is_finite() {
        dot.clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// A logit as a probability.
pub fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + f64::from(-logit).exp())
}
