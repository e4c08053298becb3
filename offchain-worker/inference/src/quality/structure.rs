//! How an output is written: what needs no model, and what no model sees.

use super::{text::words, unit, Case, Dimension, Family, Query};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// [`structure`] as a dimension.
#[derive(Debug, Clone, Copy, Default)]
pub struct Structure;

impl Dimension for Structure {
    fn name(&self) -> &str {
        "structure"
    }

    fn family(&self) -> Family {
        Family::Structure
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        Ok(case.outputs.iter().map(|output| Some(structure(case.query, &output.text))).collect())
    }
}

/// How many words answers of a kind have: what most human answers lie between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsualLength {
    /// Fewer are short.
    pub low: f64,
    /// More are long.
    pub high: f64,
}

/// An answer this many times too long or too short is worth nothing for its length.
const LENGTH_RANGE: f64 = 8.0;

impl UsualLength {
    /// From the 10th to the 90th percentile of the words of these answers; `None` of no answers.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut counts: Vec<usize> = answers.into_iter().map(|answer| words(answer).len()).collect();
        counts.sort_unstable();
        let last = counts.len().checked_sub(1)?;
        let at = |share: f64| counts[(share * last as f64).round() as usize].max(1) as f64;
        Some(Self { low: at(0.1), high: at(0.9) })
    }

    /// 1 from `low` to `high` words, falling with the logarithm of the excess to 0 at eight times too many or too few.
    pub fn fit(&self, output: &str) -> f64 {
        let count = words(output).len() as f64;
        if count == 0.0 {
            return 0.0;
        }
        let excess = (count / self.high).max(self.low / count).max(1.0);
        unit(1.0 - excess.ln() / LENGTH_RANGE.ln())
    }
}

/// Whether an answer is about as long as answers of its kind are. What is usual is learnt from reference answers.
#[derive(Debug, Clone, Copy)]
pub struct Length(pub UsualLength);

impl Dimension for Length {
    fn name(&self) -> &str {
        "length"
    }

    fn family(&self) -> Family {
        Family::Structure
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        Ok(case.outputs.iter().map(|output| Some(self.0.fit(&output.text))).collect())
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
    if !question.is_empty() && output.windows(question.len()).any(|w| w == question) {
        new_words = output.len() - question.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_judged_by_ratio() {
        let usual = UsualLength::of(["a b", "a b c", "a b c d"]).unwrap();
        assert_eq!(usual, UsualLength { low: 2.0, high: 4.0 });
        assert_eq!(usual.fit("x y z"), 1.0);
        assert!((usual.fit("x") - (1.0 - 2f64.ln() / 8f64.ln())).abs() < 1e-12);
        assert_eq!(usual.fit(&"x ".repeat(32)), 0.0);
        assert_eq!(usual.fit("…"), 0.0);
        assert_eq!(UsualLength::of([]), None);
    }
}
