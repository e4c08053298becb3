//! Strategies of nodes that run no model at all: what a score is worth shows in what it gives to them.
//!
//! Each costs nothing. Some look like an answer and take their words from the context; others are none by anybody's standard. A
//! rubric that was learnt from honest outputs alone has never seen one, and may pay it as well as an answer.

use poq_inference::{Item, TaskKind};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};

/// What cheats are filed under, in place of a model's name.
pub const CHEAT: &str = "cheat/";

/// What cheats answer to a prompt: (name, answer). Every strategy that looks like an answer, and one at random of those that
/// do not: so there are fewer cheats than honest outputs to learn from. The seed decides what is random.
pub fn cheats(item: &Item, seed: u64) -> Vec<(String, String)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ fold(&item.id));
    let words: Vec<&str> = item.context.split_whitespace().collect();
    if words.is_empty() {
        return Vec::new();
    }
    let mut answers: Vec<(&str, String)> = match item.kind {
        TaskKind::Qa => {
            let length = random.random_range(1..=4).min(words.len());
            let start = random.random_range(0..=words.len() - length);
            let sentence = nearest_sentence(item);
            vec![
                ("any words", words[start..start + length].join(" ")),
                ("words near the question's", news(&sentence, &item.question)),
                ("nearest sentence", sentence),
            ]
        }
        TaskKind::Summarisation => {
            let sentences = sentences(&item.context);
            let first = sentences.first().cloned().unwrap_or_default();
            let any = sentences[random.random_range(0..sentences.len())].clone();
            let bag: Vec<&str> = (0..25).map(|_| words[random.random_range(0..words.len())]).collect();
            vec![("first sentence", first), ("any sentence", any), ("25 words at random", bag.join(" "))]
        }
    };
    let nothing = no_answers(item, &words);
    answers.push(nothing[random.random_range(0..nothing.len())].clone());
    answers.into_iter().map(|(name, answer)| (format!("{CHEAT}{name}"), answer)).collect()
}

/// Answers that are none.
fn no_answers(item: &Item, words: &[&str]) -> Vec<(&'static str, String)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(plain(word)).or_default() += 1;
    }
    let commonest =
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(word, _)| word).unwrap_or_default();
    vec![
        ("the commonest word", commonest),
        ("the question back", item.question.clone()),
        ("the prompt back", format!("{} {}", item.context, item.question)),
        ("a word repeated", vec![words[0]; 40].join(" ")),
        ("a number", "42".to_string()),
        ("no answer", "I am unable to help with this request.".to_string()),
        ("no answer, another language", "No puedo responder, consulte otra fuente.".to_string()),
    ]
}

/// A number that depends on all of the text.
pub(crate) fn fold(text: &str) -> u64 {
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
            assert_eq!(answers.len(), 4);
            assert_eq!(answers, cheats(&item(kind), 1));
            assert!(answers.iter().all(|(name, answer)| name.starts_with(CHEAT) && !answer.is_empty()));
            for (_, answer) in &answers[..3] {
                assert!(answer.split_whitespace().all(|w| item(kind).context.contains(w)), "{answer}");
            }
        }
        let answers = cheats(&item(TaskKind::Qa), 1);
        assert_eq!(answers[1].1, "in a big barn");
        assert_eq!(answers[2].1, "The dog slept in a big barn all day.");
        let empty = Item { context: " ".into(), ..item(TaskKind::Qa) };
        assert!(cheats(&empty, 1).is_empty());
    }

    #[test]
    fn every_kind_of_no_answer_is_tried_on_some_prompt() {
        let item = item(TaskKind::Qa);
        let words: Vec<&str> = item.context.split_whitespace().collect();
        let all: HashSet<String> =
            no_answers(&item, &words).into_iter().map(|(name, _)| format!("{CHEAT}{name}")).collect();
        let prompt = |i: usize| Item { id: i.to_string(), ..item.clone() };
        let tried: HashSet<String> = (0..80).filter_map(|i| Some(cheats(&prompt(i), 1).pop()?.0)).collect();
        assert_eq!(tried, all);
        assert_eq!(no_answers(&item, &words)[0].1, "the");
    }
}
