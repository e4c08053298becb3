//! What a dimension is.

use super::{Output, Query, SharedEncoder};
use crate::{data::TaskKind, error::Result};
use serde::{Deserialize, Serialize};

/// Everything a dimension may look at: one prompt with all its outputs.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// What kind of answer is asked for.
    pub kind: TaskKind,
    /// What is asked.
    pub query: &'a Query,
    /// The answers.
    pub outputs: &'a [Output],
    /// Right answers; empty for a live request.
    pub references: &'a [String],
}

/// The families of arXiv 2603.04028, table 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// How good the model was before.
    ModelPrior,
    /// How cheap the model was for what it gave.
    CostPrior,
    /// How the answer is written.
    Structure,
    /// What the answer means, beside a reference or the other answers.
    Semantic,
    /// Whether the answer belongs to the question and is borne out by the context.
    Alignment,
    /// Whether evaluators, or outputs, agree.
    Agreement,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [
        Self::ModelPrior,
        Self::CostPrior,
        Self::Structure,
        Self::Semantic,
        Self::Alignment,
        Self::Agreement,
    ];

    /// The paper's default weight of the family (arXiv 2603.04028, table 3); they add up to 1.
    pub fn default_weight(self) -> f64 {
        match self {
            Self::ModelPrior | Self::Alignment | Self::Agreement => 0.15,
            Self::CostPrior => 0.10,
            Self::Structure => 0.20,
            Self::Semantic => 0.25,
        }
    }

    /// The family as tables spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelPrior => "model prior",
            Self::CostPrior => "cost prior",
            Self::Structure => "structure",
            Self::Semantic => "semantic",
            Self::Alignment => "alignment",
            Self::Agreement => "agreement",
        }
    }
}

/// One aspect of quality.
pub trait Dimension: Send {
    /// Its name, unique in a suite: what it measures, and after a slash with which model, where it has one.
    fn name(&self) -> &str;

    /// The family it belongs to.
    fn family(&self) -> Family;

    /// Whether it compares with a reference answer, which a live request does not have.
    fn needs_reference(&self) -> bool {
        false
    }

    /// The encoder it asks, and the texts it will ask for: they are embedded in one batch before anything is scored.
    fn texts(&self, _case: &Case<'_>) -> Option<(SharedEncoder, Vec<String>)> {
        None
    }

    /// One value in [0, 1] per output; `None` where it has nothing to say: no reference, no other output, a model that
    /// nobody has measured.
    ///
    /// # Errors
    /// When its model fails. No text is an error.
    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>>;
}
