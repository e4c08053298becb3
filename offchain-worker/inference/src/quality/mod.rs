//! Quality: numbers in [0, 1] for the outputs of a task.
//!
//! - [`Dimension`]: one aspect of quality, one file each: [`priors`], [`mod@structure`], [`semantic`], [`alignment`],
//!   [`agreement`], [`support`]. [`Suite`] measures several at once and embeds every text once.
//! - [`composite`]: a weighted mean of dimensions; [`calibration`]: which weights, learnt from examples with answers.
//! - [`rubric`]: those choices as a file with a hash, and [`RubricScorer`], which scores by it.
//! - [`reference`](mod@reference) and [`judge`]: what scores are calibrated against.
//!
//! A live request has no reference answer. Dimensions that compare with one serve experiments and audits; a rubric for live
//! traffic has none of them.

pub mod agreement;
pub mod alignment;
pub mod calibration;
pub mod composite;
mod dimension;
mod embed;
pub mod judge;
mod language;
pub mod priors;
pub mod reference;
pub mod rubric;
pub mod semantic;
mod single;
pub mod structure;
mod suite;
pub mod support;
mod text;

pub use dimension::{Case, Dimension, Family};
pub use embed::{SharedCrossEncoder, SharedEncoder};
pub use rubric::{Rubric, RubricHash, RubricScorer};
pub use single::{BiEncoderScorer, CrossEncoderScorer};
pub use structure::structure;
pub use suite::{Measured, Suite};

use crate::{error::Result, manifest::ModelDigest};
use serde::{Deserialize, Serialize};

/// What the outputs answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Query {
    /// The text the question is about; may be empty.
    pub context: String,
    /// The question.
    pub question: String,
}

/// One answer, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The answer.
    pub text: String,
    /// The model that its node is registered with, where that is known. It is a claim, not a measurement.
    pub model: Option<ModelDigest>,
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self { text, model: None }
    }
}

/// Scores the outputs of a task.
pub trait QualityScorer: Send {
    /// The name of the model behind it.
    fn name(&self) -> &str;

    /// What that model is on chain.
    fn digest(&self) -> ModelDigest;

    /// One score per output: finite and in [0, 1], whatever the texts are.
    ///
    /// # Errors
    /// When the model fails. No text is an error.
    fn score(&mut self, query: &Query, outputs: &[String]) -> Result<Vec<f64>>;

    /// As [`QualityScorer::score`], for a scorer that also has an opinion on who answers. The others look at the texts only.
    ///
    /// # Errors
    /// When the model fails.
    fn score_outputs(&mut self, query: &Query, outputs: &[Output]) -> Result<Vec<f64>> {
        let texts: Vec<String> = outputs.iter().map(|output| output.text.clone()).collect();
        self.score(query, &texts)
    }

    /// The hash of the rubric that it scores by, where it does.
    fn rubric_hash(&self) -> Option<RubricHash> {
        None
    }

    /// Whether its scores mean something for this prompt: to be asked before a task is taken on.
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`](crate::Error::UnsupportedLanguage).
    fn supports(&self, _query: &Query) -> Result<()> {
        Ok(())
    }
}

impl<S: QualityScorer + ?Sized> QualityScorer for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn digest(&self) -> ModelDigest {
        (**self).digest()
    }

    fn score(&mut self, query: &Query, outputs: &[String]) -> Result<Vec<f64>> {
        (**self).score(query, outputs)
    }

    fn score_outputs(&mut self, query: &Query, outputs: &[Output]) -> Result<Vec<f64>> {
        (**self).score_outputs(query, outputs)
    }

    fn rubric_hash(&self) -> Option<RubricHash> {
        (**self).rubric_hash()
    }

    fn supports(&self, query: &Query) -> Result<()> {
        (**self).supports(query)
    }
}

/// A number that may be anything as a score.
pub(crate) fn unit(value: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    }
}
