//! Semantic quality: what an answer means, beside a reference or beside the other answers, by a bi-encoder.

use super::{unit, Case, Dimension, Family, SharedEncoder};
use crate::{encode::cosine, error::Result};
use std::sync::Arc;

/// Likeness to the nearest reference answer: max over references of the cosine, below 0 counted as 0. Needs a reference.
pub struct ToReference {
    name: String,
    encoder: SharedEncoder,
}

impl ToReference {
    /// By this encoder.
    pub fn new(encoder: SharedEncoder) -> Self {
        Self { name: format!("semantic-reference/{}", encoder.name()), encoder }
    }
}

impl Dimension for ToReference {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Semantic
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn texts(&self, case: &Case<'_>) -> Option<(SharedEncoder, Vec<String>)> {
        let texts = outputs(case).into_iter().chain(case.references.iter().cloned());
        (!case.references.is_empty()).then(|| (self.encoder.clone(), texts.collect()))
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        if case.references.is_empty() {
            return Ok(vec![None; case.outputs.len()]);
        }
        let references = self.encoder.embed(case.references)?;
        let answers = self.encoder.embed(&outputs(case))?;
        let nearest = |answer: &Arc<[f32]>| references.iter().map(|r| cosine(answer, r)).fold(0.0, f64::max);
        Ok(answers.iter().zip(case.outputs).map(|(a, o)| Some(said(&o.text, nearest(a)))).collect())
    }
}

/// Likeness to the other answers of the task: the mean of the cosines, below 0 counted as 0. An answer that others gave, too,
/// is rarely wrong where models err independently. A lone answer has none.
pub struct ToPeers {
    name: String,
    encoder: SharedEncoder,
}

impl ToPeers {
    /// By this encoder.
    pub fn new(encoder: SharedEncoder) -> Self {
        Self { name: format!("semantic-peers/{}", encoder.name()), encoder }
    }
}

impl Dimension for ToPeers {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Semantic
    }

    fn texts(&self, case: &Case<'_>) -> Option<(SharedEncoder, Vec<String>)> {
        (case.outputs.len() > 1).then(|| (self.encoder.clone(), outputs(case)))
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        if case.outputs.len() < 2 {
            return Ok(vec![None; case.outputs.len()]);
        }
        let answers = self.encoder.embed(&outputs(case))?;
        let score = |i: usize| {
            let others = answers.iter().enumerate().filter(|(j, _)| *j != i);
            let sum: f64 = others.map(|(_, other)| cosine(other, &answers[i]).max(0.0)).sum();
            Some(said(&case.outputs[i].text, sum / (answers.len() - 1) as f64))
        };
        Ok((0..answers.len()).map(score).collect())
    }
}

/// Likeness to what was asked: the cosine with the question and its context, below 0 counted as 0.
pub struct ToQuery {
    name: String,
    encoder: SharedEncoder,
}

impl ToQuery {
    /// By this encoder.
    pub fn new(encoder: SharedEncoder) -> Self {
        Self { name: format!("semantic-query/{}", encoder.name()), encoder }
    }

    fn asked(&self, case: &Case<'_>) -> String {
        format!("{}{} {}", self.encoder.query_prefix(), case.query.question, case.query.context)
    }
}

impl Dimension for ToQuery {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Alignment
    }

    fn texts(&self, case: &Case<'_>) -> Option<(SharedEncoder, Vec<String>)> {
        let mut texts = outputs(case);
        texts.push(self.asked(case));
        Some((self.encoder.clone(), texts))
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        let asked = self.encoder.embed(&[self.asked(case)])?;
        let answers = self.encoder.embed(&outputs(case))?;
        let like = |(answer, output): (&Arc<[f32]>, &super::Output)| {
            Some(said(&output.text, cosine(&asked[0], answer)))
        };
        Ok(answers.iter().zip(case.outputs).map(like).collect())
    }
}

pub(super) fn outputs(case: &Case<'_>) -> Vec<String> {
    case.outputs.iter().map(|output| output.text.clone()).collect()
}

/// Nothing said is like nothing: an encoder gives the empty text a vector like any other.
pub(super) fn said(output: &str, score: f64) -> f64 {
    if output.trim().is_empty() {
        0.0
    } else {
        unit(score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::TaskKind,
        quality::{embed::fakes::letters, Output, Query},
    };

    fn case_of<'a>(query: &'a Query, outputs: &'a [Output], references: &'a [String]) -> Case<'a> {
        Case { kind: TaskKind::Qa, query, outputs, references }
    }

    fn outputs(texts: &[&str]) -> Vec<Output> {
        texts.iter().map(|text| Output::from(text.to_string())).collect()
    }

    #[test]
    fn the_nearest_reference_counts() {
        let outputs = outputs(&["abc", "xyz", ""]);
        let references = ["cab".to_string(), "mmm".to_string()];
        let query = Query::default();
        let mut dimension = ToReference::new(letters());
        let values = dimension.score(&case_of(&query, &outputs, &references)).unwrap();
        assert!((values[0].unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(values[1..], [Some(0.0), Some(0.0)]);
        assert_eq!(dimension.score(&case_of(&query, &outputs, &[])).unwrap(), [None, None, None]);
    }

    #[test]
    fn an_outlier_is_unlike_its_peers_and_a_lone_answer_has_none() {
        let query = Query::default();
        let three = outputs(&["abc", "acb", "xyz"]);
        let mut dimension = ToPeers::new(letters());
        let values = dimension.score(&case_of(&query, &three, &[])).unwrap();
        assert!((values[0].unwrap() - 0.5).abs() < 1e-6 && values[2] == Some(0.0), "{values:?}");
        assert_eq!(dimension.score(&case_of(&query, &three[..1], &[])).unwrap(), [None]);
    }

    #[test]
    fn what_is_said_beside_what_was_asked() {
        let query = Query { context: "aab".into(), question: "b".into() };
        let values = ToQuery::new(letters()).score(&case_of(&query, &outputs(&["ab", "z"]), &[])).unwrap();
        assert!(values[0] > values[1], "{values:?}");
    }
}
