//! Agreement: how far outputs, or evaluators, say the same.

use super::{reference::token_f1, unit, Case, Dimension, Family};
use crate::error::Result;

/// The mean token F1 of an answer with the other answers: self-consistency without a model. A lone answer has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct AmongOutputs;

/// Characters of an answer that are compared: a hostile one must not cost more than it earns.
const LOOKED_AT: usize = 4096;

impl Dimension for AmongOutputs {
    fn name(&self) -> &str {
        "agreement-outputs"
    }

    fn family(&self) -> Family {
        Family::Agreement
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        if case.outputs.len() < 2 {
            return Ok(vec![None; case.outputs.len()]);
        }
        let texts: Vec<String> =
            case.outputs.iter().map(|output| output.text.chars().take(LOOKED_AT).collect()).collect();
        let score = |i: usize| {
            let others = texts.iter().enumerate().filter(|(j, _)| *j != i);
            let sum: f64 = others.map(|(_, other)| token_f1(&texts[i], std::slice::from_ref(other))).sum();
            Some(unit(sum / (texts.len() - 1) as f64))
        };
        Ok((0..texts.len()).map(score).collect())
    }
}

/// The paper's agreement between evaluators, of one output: 1 − 2σ, with σ the population standard deviation of their
/// scores, which lies in [0, 1/2] for scores in [0, 1]. `None` of fewer than two.
pub fn among_evaluators(scores: &[f64]) -> Option<f64> {
    if scores.len() < 2 {
        return None;
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / scores.len() as f64;
    Some(unit(1.0 - 2.0 * variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::TaskKind,
        quality::{Output, Query},
    };

    #[test]
    fn outputs_that_say_the_same_agree() {
        let outputs: Vec<_> =
            ["Kawann Short", "kawann short.", "Miller"].map(|t| Output::from(t.to_string())).into();
        let query = Query::default();
        let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
        assert_eq!(AmongOutputs.score(&case).unwrap(), [Some(0.5), Some(0.5), Some(0.0)]);
        assert_eq!(AmongOutputs.score(&Case { outputs: &outputs[..1], ..case }).unwrap(), [None]);
    }

    #[test]
    fn evaluators_that_say_the_same_agree() {
        assert_eq!(among_evaluators(&[0.3, 0.3]), Some(1.0));
        assert_eq!(among_evaluators(&[0.0, 1.0]), Some(0.0));
        assert_eq!(among_evaluators(&[0.3]), None);
    }
}
