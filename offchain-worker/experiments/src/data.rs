//! The prompts of an experiment: files in SQuAD's format, the summarisation sets that set-up installs, files of one's own.

use crate::error::{Error, Result};
use poq_inference::{data_dir, load_items, Item, TaskKind};
use rand::{seq::SliceRandom, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::{collections::HashSet, path::Path};

/// The summarisation sets that `poq-models install` provides, by name; each is a file `NAME.jsonl`.
pub const SUMMARISATION_SETS: [&str; 2] = ["aclsum", "consensus-summary"];

/// The questions that `poq-models install squad` provides.
pub const SQUAD_FILE: &str = "squad-dev-v1.1.json";

#[derive(Deserialize)]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// Reads a file in the format of SQuAD v1.1. Questions without an answer (SQuAD 2.0 has some) are left out.
///
/// # Errors
/// When the file cannot be read or is of another format.
pub fn load_squad(path: &Path) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let squad: Squad = serde_json::from_str(&text)
        .map_err(|e| Error::format(path, format!("not a file in SQuAD v1.1 format: {e}")))?;
    let paragraphs = squad.data.into_iter().flat_map(|article| article.paragraphs);
    let mut items = Vec::new();
    for Paragraph { context, qas } in paragraphs {
        for question in qas {
            let mut references: Vec<String> = question.answers.into_iter().map(|a| a.text).collect();
            references.dedup();
            if references.is_empty() {
                continue;
            }
            items.push(Item {
                id: question.id,
                kind: TaskKind::Qa,
                context: context.clone(),
                question: question.question,
                references,
            });
        }
    }
    Ok(items)
}

/// Reads an installed summarisation set.
///
/// # Errors
/// When it is not installed; the error names the script that installs it.
pub fn load_summarisation(models_dir: &Path, name: &str) -> Result<Vec<Item>> {
    Ok(load_items(&data_dir(models_dir).join(format!("{name}.jsonl")))?)
}

/// `count` of the items, drawn without replacement, in an order that the seed decides. With fewer items, all of them.
pub fn draw(mut items: Vec<Item>, count: usize, seed: u64) -> Vec<Item> {
    items.sort_by(|a, b| a.id.cmp(&b.id));
    items.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    items.truncate(count);
    items
}

/// Refuses sets in which an item's name appears twice: outputs are filed under it.
///
/// # Errors
/// [`Error::Usage`] with the name.
pub fn check_unique(items: &[Item]) -> Result<()> {
    let mut seen = HashSet::new();
    match items.iter().find(|item| !seen.insert(item.id.as_str())) {
        Some(item) => Err(Error::Usage(format!(
            "two items are named `{}`: item names must be unique in an experiment",
            item.id
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: usize) -> Item {
        Item {
            id: format!("{id:03}"),
            kind: TaskKind::Qa,
            context: String::new(),
            question: String::new(),
            references: Vec::new(),
        }
    }

    #[test]
    fn squad_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        let text = r#"{"data":[{"title":"t","paragraphs":[{"context":"c","qas":[
            {"id":"1","question":"q","answers":[{"answer_start":0,"text":"x"},{"answer_start":0,"text":"x"}]},
            {"id":"2","question":"q","answers":[],"is_impossible":true}]}]}],"version":"1.1"}"#;
        std::fs::write(&path, text).unwrap();
        let items = load_squad(&path).unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].references, ["x"]);
        std::fs::write(&path, "[]").unwrap();
        assert!(load_squad(&path).unwrap_err().to_string().contains("SQuAD"));
    }

    #[test]
    fn a_draw_depends_on_the_seed_alone() {
        let items: Vec<_> = (0..50).map(item).collect();
        let reversed: Vec<_> = items.iter().rev().cloned().collect();
        let one = draw(items.clone(), 10, 7);
        assert_eq!(one, draw(reversed, 10, 7));
        assert_ne!(one, draw(items.clone(), 10, 8));
        // A smaller draw is the beginning of a larger one: experiments can be extended.
        assert_eq!(one[..5], draw(items, 5, 7));
    }

    #[test]
    fn a_name_twice_is_refused() {
        assert!(check_unique(&[item(1), item(2)]).is_ok());
        assert!(check_unique(&[item(1), item(1)]).unwrap_err().to_string().contains("`001`"));
    }
}
