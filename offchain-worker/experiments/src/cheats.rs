//! Strategies of nodes that run no model at all: what a score is worth shows in what it gives to them.
//!
//! Each takes its words from the context, looks like an answer and costs nothing. A rubric that was learnt from honest
//! outputs alone has never seen one, and may pay it as well as an answer.

use poq_inference::{Item, TaskKind};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

/// What cheats are filed under, in place of a model's name.
pub const CHEAT: &str = "cheat/";

/// What every strategy answers to a prompt: (name, answer). The seed decides what is random.
pub fn cheats(item: &Item, seed: u64) -> Vec<(String, String)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ fold(&item.id));
    let words: Vec<&str> = item.context.split_whitespace().collect();
    if words.is_empty() {
        return Vec::new();
    }
    let named = |name: &str, answer: String| (format!("{CHEAT}{name}"), answer);
    match item.kind {
        TaskKind::Qa => {
            let length = random.random_range(1..=4).min(words.len());
            let start = random.random_range(0..=words.len() - length);
            let sentence = nearest_sentence(item);
            vec![
                named("any words", words[start..start + length].join(" ")),
                named("words near the question's", news(&sentence, &item.question)),
                named("nearest sentence", sentence),
            ]
        }
        TaskKind::Summarisation => {
            let sentences = sentences(&item.context);
            let first = sentences.first().cloned().unwrap_or_default();
            let any = sentences[random.random_range(0..sentences.len())].clone();
            let bag: Vec<&str> = (0..25).map(|_| words[random.random_range(0..words.len())]).collect();
            vec![
                named("first sentence", first),
                named("any sentence", any),
                named("25 words at random", bag.join(" ")),
            ]
        }
    }
}

/// A number that depends on all of the text.
fn fold(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Never empty for a text that is not.
fn sentences(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut current = String::new();
    for word in text.split_whitespace() {
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
        if word.ends_with(['.', '!', '?']) {
            found.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        found.push(current);
    }
    found
}

fn plain(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn nearest_sentence(item: &Item) -> String {
    let asked: HashSet<String> = item.question.split_whitespace().map(plain).collect();
    let common =
        |sentence: &String| sentence.split_whitespace().filter(|w| asked.contains(&plain(w))).count();
    let all = sentences(&item.context);
    // The first of the best.
    all.iter().rev().max_by_key(|sentence| common(sentence)).cloned().unwrap_or_default()
}

/// The longest run of words that the question does not have, four words at most: where an answer often stands.
fn news(sentence: &str, question: &str) -> String {
    let asked: HashSet<String> = question.split_whitespace().map(plain).collect();
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let mut best: &[&str] = &[];
    for run in words.split(|word| asked.contains(&plain(word))) {
        if run.len() > best.len() {
            best = run;
        }
    }
    best.iter().take(4).copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: TaskKind) -> Item {
        Item {
            id: "1".into(),
            kind,
            context: "The fox led. The dog slept in a big barn all day. End".into(),
            question: "Where slept the dog?".into(),
            references: vec!["a barn".into()],
        }
    }

    #[test]
    fn cheats_use_the_contexts_words_and_are_repeatable() {
        for kind in TaskKind::ALL {
            let answers = cheats(&item(kind), 1);
            assert_eq!(answers.len(), 3);
            assert_eq!(answers, cheats(&item(kind), 1));
            for (name, answer) in &answers {
                assert!(name.starts_with(CHEAT) && !answer.is_empty(), "{name}: {answer}");
                assert!(answer.split_whitespace().all(|w| item(kind).context.contains(w)), "{answer}");
            }
        }
        let answers = cheats(&item(TaskKind::Qa), 1);
        assert_eq!(answers[1].1, "in a big barn");
        assert_eq!(answers[2].1, "The dog slept in a big barn all day.");
        let empty = Item { context: " ".into(), ..item(TaskKind::Qa) };
        assert!(cheats(&empty, 1).is_empty());
    }
}
