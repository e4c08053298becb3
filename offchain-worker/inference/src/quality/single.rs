//! Scorers on one encoder, without a rubric: what a node runs where its kind prescribes none. For English prompts: a node that
//! scores other languages needs a rubric that was calibrated for them.

use super::{alignment::RELEVANCE_SPREAD, language, structure, unit, QualityScorer, Query};
use crate::{
    encode::{cosine, sigmoid, CrossEncoder, Encoder},
    error::Result,
    manifest::ModelDigest,
};

/// Scores by likeness: to the question with its context, and to the other outputs.
pub struct BiEncoderScorer {
    encoder: Box<dyn Encoder>,
}

impl BiEncoderScorer {
    /// A scorer on this encoder.
    pub fn new(encoder: Box<dyn Encoder>) -> Self {
        Self { encoder }
    }
}

impl QualityScorer for BiEncoderScorer {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn digest(&self) -> ModelDigest {
        self.encoder.digest()
    }

    fn score(&mut self, query: &Query, outputs: &[String]) -> Result<Vec<f64>> {
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let asked = format!("{}{} {}", self.encoder.query_prefix(), query.question, query.context);
        let mut texts = vec![asked.as_str()];
        texts.extend(outputs.iter().map(String::as_str));
        let vectors = self.encoder.embed(&texts)?;
        let (asked, answers) = (&vectors[0], &vectors[1..]);
        let scores = outputs.iter().enumerate().map(|(i, output)| {
            let mut likeness = cosine(asked, &answers[i]).max(0.0);
            if answers.len() > 1 {
                let others = answers.iter().enumerate().filter(|(j, _)| *j != i);
                let sum: f64 = others.map(|(_, other)| cosine(other, &answers[i]).max(0.0)).sum();
                likeness = (likeness + sum / (answers.len() - 1) as f64) / 2.0;
            }
            unit(likeness * structure(query, output))
        });
        Ok(scores.collect())
    }

    fn supports(&self, query: &Query) -> Result<()> {
        language::check(self.name(), query, &[language::ENGLISH.to_string()])
    }
}

/// Scores by relevance of the output to the question.
pub struct CrossEncoderScorer {
    encoder: Box<dyn CrossEncoder>,
}

impl CrossEncoderScorer {
    /// A scorer on this encoder.
    pub fn new(encoder: Box<dyn CrossEncoder>) -> Self {
        Self { encoder }
    }
}

impl QualityScorer for CrossEncoderScorer {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn digest(&self) -> ModelDigest {
        self.encoder.digest()
    }

    fn score(&mut self, query: &Query, outputs: &[String]) -> Result<Vec<f64>> {
        let pairs: Vec<_> = outputs.iter().map(|o| (query.question.as_str(), o.as_str())).collect();
        let logits = self.encoder.score(&pairs)?;
        let score = |(output, logit): (&String, f32)| {
            unit(sigmoid(logit / RELEVANCE_SPREAD) * structure(query, output))
        };
        Ok(outputs.iter().zip(logits).map(score).collect())
    }

    fn supports(&self, query: &Query) -> Result<()> {
        language::check(self.name(), query, &[language::ENGLISH.to_string()])
    }
}
