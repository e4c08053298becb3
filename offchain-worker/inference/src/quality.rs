//! Scores in [0, 1] for the outputs of a task, without a reference answer.
//!
//! A live request has no reference, so an output is judged by how it is written ([`structure`]), by what an encoder makes
//! of it beside the question, and, for a bi-encoder, by how far it agrees with the other outputs.

use crate::{
    encode::{cosine, sigmoid, CrossEncoder, Encoder},
    error::Result,
    manifest::ModelDigest,
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// What the outputs answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Query {
    /// The text the question is about; may be empty.
    pub context: String,
    /// The question.
    pub question: String,
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
}

/// A number that may be anything as a score.
fn unit(value: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

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
}

/// Relevance logits lie between about −11 and 11; a plain sigmoid is 0 or 1 nearly everywhere and gives a right answer of
/// one word (−5: it is no passage) as little as nonsense (−11). Divided by this, the whole range tells.
const RELEVANCE_SPREAD: f32 = 4.0;

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
}

/// The most characters of an output, and of a context, that [`structure`] looks at.
const LOOKED_AT: usize = 8192;

/// Words an answer may have before it counts as too long.
const GENEROUS_WORDS: usize = 250;

/// How an output is written, in [0, 1]: 1 for anything that could be an answer, less for repetition, excessive length,
/// copies of the prompt and characters that are no text, 0 for nothing. It knows nothing of whether the answer is right.
pub fn structure(query: &Query, output: &str) -> f64 {
    let trimmed = output.trim();
    if trimmed.is_empty() {
        return 0.0;
    }
    let head: String = trimmed.chars().take(LOOKED_AT).collect();
    let words = words(&head);
    if words.is_empty() {
        // Punctuation only.
        return 0.05;
    }
    unit(
        length_factor(trimmed)
            * repetition_factor(&words, &head)
            * echo_factor(query, &words)
            * readable_factor(&head),
    )
}

/// Lower-case words: runs of letters and digits.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// 1 up to [`GENEROUS_WORDS`], then falling with the length; counts all of the text.
fn length_factor(text: &str) -> f64 {
    let words = text.split_whitespace().count();
    // A script without spaces has few "words": six characters count as one.
    let words = words.max(text.len() / 24);
    if words <= GENEROUS_WORDS {
        1.0
    } else {
        GENEROUS_WORDS as f64 / words as f64
    }
}

/// The share of distinct items, and how many items there are.
fn distinct<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> (f64, usize) {
    let (mut seen, mut total) = (HashSet::new(), 0);
    for item in items {
        seen.insert(item);
        total += 1;
    }
    (if total == 0 { 1.0 } else { seen.len() as f64 / total as f64 }, total)
}

/// `value` as a factor: 1 from `enough` on, falling to 0 in proportion below.
fn ramp(value: f64, enough: f64) -> f64 {
    unit(value / enough)
}

/// 1 for prose; low for loops such as "the the the" or "hahaha…".
fn repetition_factor(words: &[String], head: &str) -> f64 {
    let (trigrams, count) = distinct(words.windows(3));
    let by_words = if count < 6 { 1.0 } else { ramp(trigrams, 0.7) };
    let (single, count) = distinct(words.iter());
    let by_vocabulary = if count < 8 { 1.0 } else { ramp(single, 0.25) };
    let characters: Vec<char> = head.chars().take(1024).collect();
    let (grams, count) = distinct(characters.windows(4));
    let by_characters = if count < 24 { 1.0 } else { ramp(grams, 0.35) };
    by_words.min(by_vocabulary).min(by_characters)
}

/// Low for an output that only gives the prompt back. Answers may quote a sentence of their context, and repeat the
/// question before they answer it.
fn echo_factor(query: &Query, output: &[String]) -> f64 {
    let question = words(&query.question);
    let mut new_words = output.len();
    if !question.is_empty() && output.len() >= question.len() {
        if let Some(at) = output.windows(question.len()).position(|w| w == question) {
            let _ = at;
            new_words = output.len() - question.len();
        }
    }
    let by_question = if new_words == 0 { 0.05 } else { 1.0 };

    let context: String = query.context.chars().take(LOOKED_AT).collect();
    let context = words(&context);
    const RUN: usize = 5;
    // In a context this short, quoting all of it can be the answer.
    if context.len() < 24 || output.len() < RUN {
        return by_question;
    }
    let copied: HashSet<&[String]> = output.windows(RUN).collect();
    let covered = context.windows(RUN).filter(|run| copied.contains(run)).count();
    let share = covered as f64 / (context.len() + 1 - RUN) as f64;
    // Half of the context may be quoted; all of it is no answer.
    let by_context = unit(1.0 - (share - 0.5).max(0.0) * 1.8);
    by_question * by_context
}

/// Low for control characters, replacement characters and a model's control tokens.
fn readable_factor(head: &str) -> f64 {
    let (mut bad, mut total) = (0usize, 0usize);
    for c in head.chars() {
        total += 1;
        let allowed = matches!(c, '\n' | '\r' | '\t');
        bad += usize::from(
            (c.is_control() && !allowed) || c == '\u{FFFD}' || ('\u{E000}'..='\u{F8FF}').contains(&c),
        );
    }
    let share = bad as f64 / total.max(1) as f64;
    let leaked = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[INST]", "<s>"];
    let leak = if leaked.iter().any(|token| head.contains(token)) { 0.5 } else { 1.0 };
    unit(1.0 - 5.0 * share) * leak
}
