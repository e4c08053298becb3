//! Query–output alignment: whether an answer belongs to the question and is borne out by the context.

use super::{
    semantic::{outputs, said},
    support::contained,
    text::{index, terms},
    Case, Dimension, Family, SharedCrossEncoder, SharedEncoder,
};
use crate::{
    data::TaskKind,
    encode::{cosine, sigmoid},
    error::Result,
};
use std::{collections::HashSet, sync::Arc};
use unicode_segmentation::UnicodeSegmentation;

/// Relevance logits lie between about −11 and 11; a plain sigmoid is 0 or 1 nearly everywhere and gives a right answer of
/// one word (−5: it is no passage) as little as nonsense (−11). Divided by this, the whole range tells.
pub(super) const RELEVANCE_SPREAD: f32 = 4.0;

/// Relevance of the answer to the question, or to a reference answer, by a cross-encoder: the sigmoid of a quarter of its
/// logit.
pub struct Relevance {
    name: String,
    encoder: SharedCrossEncoder,
    to_reference: bool,
}

impl Relevance {
    /// To the question, by this encoder.
    pub fn new(encoder: SharedCrossEncoder) -> Self {
        Self { name: format!("relevance/{}", encoder.name()), encoder, to_reference: false }
    }

    /// To the nearest reference answer, by this encoder. Needs a reference.
    pub fn to_reference(encoder: SharedCrossEncoder) -> Self {
        Self { name: format!("relevance-reference/{}", encoder.name()), encoder, to_reference: true }
    }
}

impl Dimension for Relevance {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        if self.to_reference {
            Family::Semantic
        } else {
            Family::Alignment
        }
    }

    fn needs_reference(&self) -> bool {
        self.to_reference
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        let question = [case.query.question.clone()];
        let firsts = if self.to_reference { case.references } else { &question };
        if firsts.is_empty() {
            return Ok(vec![None; case.outputs.len()]);
        }
        let pairs: Vec<_> = case
            .outputs
            .iter()
            .flat_map(|output| firsts.iter().map(|first| (first.as_str(), output.text.as_str())))
            .collect();
        let logits = self.encoder.score(&pairs)?;
        let score = |(output, logits): (&super::Output, &[f32])| {
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            Some(said(&output.text, sigmoid(best / RELEVANCE_SPREAD)))
        };
        Ok(case.outputs.iter().zip(logits.chunks(firsts.len())).map(score).collect())
    }
}

/// Sentences of a context that are looked at: at sixty words each far more than any context here holds.
const SENTENCES: usize = 64;

fn sentences(text: &str) -> Vec<String> {
    text.unicode_sentences()
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .take(SENTENCES)
        .map(str::to_string)
        .collect()
}

/// How likely each sentence holds the answer: the softmax of these, divided by the temperature.
fn softmax(values: &[f64], temperature: f64) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = values.iter().map(|v| ((v - largest) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// How much of each answer stands in the sentences that answer the question: the share of its words that a sentence has,
/// averaged over the sentences by how relevant they are to the question.
fn evidence(case: &Case<'_>, sentences: &[String], relevance: &[f64]) -> Vec<Option<f64>> {
    let known: Vec<HashSet<String>> = sentences.iter().map(|s| index(s)).collect();
    let asked: HashSet<String> = terms(&case.query.question).into_iter().collect();
    let score = |output: &super::Output| {
        let share: f64 =
            known.iter().zip(relevance).map(|(k, weight)| weight * contained(&output.text, k, &asked)).sum();
        Some(said(&output.text, share))
    };
    case.outputs.iter().map(score).collect()
}

/// Whether the context bears out an answer, by a bi-encoder.
///
/// For questions: how much of the answer stands in the sentences nearest to the question. For summaries: how near each
/// sentence of the summary is to its nearest sentence of the context, on average (the zero-shot form of SummaC, arXiv
/// 2111.09525, with likeness in place of entailment).
pub struct Evidence {
    name: String,
    encoder: SharedEncoder,
}

impl Evidence {
    /// By this encoder.
    pub fn new(encoder: SharedEncoder) -> Self {
        Self { name: format!("evidence/{}", encoder.name()), encoder }
    }

    fn asked(&self, case: &Case<'_>) -> String {
        format!("{}{}", self.encoder.query_prefix(), case.query.question)
    }
}

/// Cosines of a question with sentences differ by about 0.2 between the one that answers it and the others.
const COSINE_TEMPERATURE: f64 = 0.05;

/// Relevance logits differ by about 10.
const LOGIT_TEMPERATURE: f64 = 2.0;

impl Dimension for Evidence {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Alignment
    }

    fn texts(&self, case: &Case<'_>) -> Option<(SharedEncoder, Vec<String>)> {
        let mut texts = sentences(&case.query.context);
        match case.kind {
            TaskKind::Qa => texts.push(self.asked(case)),
            TaskKind::Summarisation => texts.extend(outputs(case).iter().flat_map(|o| sentences(o))),
        }
        (!case.query.context.trim().is_empty()).then(|| (self.encoder.clone(), texts))
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        let context = sentences(&case.query.context);
        if context.is_empty() {
            return Ok(vec![None; case.outputs.len()]);
        }
        let vectors = self.encoder.embed(&context)?;
        if case.kind == TaskKind::Qa {
            let asked = self.encoder.embed(&[self.asked(case)])?;
            let likeness: Vec<f64> = vectors.iter().map(|v| cosine(&asked[0], v)).collect();
            return Ok(evidence(case, &context, &softmax(&likeness, COSINE_TEMPERATURE)));
        }
        let mut values = Vec::with_capacity(case.outputs.len());
        for output in case.outputs {
            let said_sentences = self.encoder.embed(&sentences(&output.text))?;
            let nearest = |v: &Arc<[f32]>| vectors.iter().map(|c| cosine(c, v)).fold(0.0, f64::max);
            let sum: f64 = said_sentences.iter().map(nearest).sum();
            values.push(Some(said(&output.text, sum / said_sentences.len().max(1) as f64)));
        }
        Ok(values)
    }
}

/// Whether the context bears out an answer, by a cross-encoder: how much of the answer stands in the sentences that are
/// relevant to the question.
pub struct RelevantEvidence {
    name: String,
    encoder: SharedCrossEncoder,
}

impl RelevantEvidence {
    /// By this encoder.
    pub fn new(encoder: SharedCrossEncoder) -> Self {
        Self { name: format!("evidence/{}", encoder.name()), encoder }
    }
}

impl Dimension for RelevantEvidence {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Alignment
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        let context = sentences(&case.query.context);
        if context.is_empty() {
            return Ok(vec![None; case.outputs.len()]);
        }
        let pairs: Vec<_> = context.iter().map(|s| (case.query.question.as_str(), s.as_str())).collect();
        let logits: Vec<f64> = self.encoder.score(&pairs)?.into_iter().map(f64::from).collect();
        Ok(evidence(case, &context, &softmax(&logits, LOGIT_TEMPERATURE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::{
        embed::fakes::{letters, CommonWords},
        Output, Query,
    };

    fn outputs(texts: &[&str]) -> Vec<Output> {
        texts.iter().map(|text| Output::from(text.to_string())).collect()
    }

    #[test]
    fn relevance_is_the_encoders() {
        let query = Query { context: String::new(), question: "red fox".into() };
        let outputs = outputs(&["red fox", "dog", " "]);
        let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
        let values = Relevance::new(SharedCrossEncoder::new(Box::new(CommonWords))).score(&case).unwrap();
        assert_eq!(values, [Some(sigmoid(0.5)), Some(0.5), Some(0.0)]);
    }

    #[test]
    fn evidence_is_sought_where_the_question_points() {
        let query = Query {
            context: "The fox led with 11. The zzz slept in a barn.".into(),
            question: "zzz zz zyz".into(),
        };
        let outputs = outputs(&["barn", "11", "moon"]);
        let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
        for values in [
            RelevantEvidence::new(SharedCrossEncoder::new(Box::new(CommonWords))).score(&case).unwrap(),
            Evidence::new(letters()).score(&case).unwrap(),
        ] {
            assert!(values[0] > values[1] && values[1] > values[2], "{values:?}");
            assert_eq!(values[2], Some(0.0));
        }
    }

    #[test]
    fn a_summary_is_borne_out_sentence_by_sentence() {
        let query = Query { context: "Aab aab. Ccd ccd.".into(), question: "Sum up.".into() };
        let outputs = outputs(&["Aab aab. Ccd ccd.", "Aab aab. Xyz xyz.", "Xyz xyz."]);
        let case = Case { kind: TaskKind::Summarisation, query: &query, outputs: &outputs, references: &[] };
        let values = Evidence::new(letters()).score(&case).unwrap();
        assert!(values[0] > values[1] && values[1] > values[2], "{values:?}");
    }

    #[test]
    fn without_a_context_there_is_no_evidence() {
        let query = Query::default();
        let outputs = outputs(&["x"]);
        let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
        assert_eq!(Evidence::new(letters()).score(&case).unwrap(), [None]);
    }
}
