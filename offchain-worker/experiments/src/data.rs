//! The prompts of an experiment: files in SQuAD's format, the summarisation sets that set-up installs, files of one's own.

use crate::error::{Error, Result};
use poq_inference::{data_dir, load_prompts, Item};
use rand::{seq::SliceRandom, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{collections::HashSet, path::Path};

/// The summarisation sets that `poq-models install` provides, by name; each is a file `NAME.jsonl`.
pub const SUMMARISATION_SETS: [&str; 2] = ["aclsum", "consensus-summary"];

/// The questions that `poq-models install squad` provides.
pub const SQUAD_FILE: &str = "squad-dev-v1.1.json";

/// Reads prompts of any form that [`load_prompts`] knows, and says how many questions it left out because nobody answered
/// them.
///
/// # Errors
/// As [`load_prompts`].
pub fn load(path: &Path) -> Result<Vec<Item>> {
    let prompts = load_prompts(path)?;
    if let Some(note) = prompts.left_out_note(path) {
        eprintln!("{note}");
    }
    Ok(prompts.items)
}

/// Reads an installed summarisation set.
///
/// # Errors
/// When it is not installed; the error names the script that installs it.
pub fn load_summarisation(models_dir: &Path, name: &str) -> Result<Vec<Item>> {
    match load_prompts(&data_dir(models_dir).join(format!("{name}.jsonl"))) {
        Ok(prompts) => Ok(prompts.items),
        Err(poq_inference::Error::NoFile { path }) => {
            Err(poq_inference::Error::MissingFile { model: name.to_string(), path }.into())
        }
        Err(error) => Err(error.into()),
    }
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
    use poq_inference::TaskKind;

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
    fn a_file_of_ones_own_is_told_apart_from_one_that_is_not_installed() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(&dir.path().join("mine.json")).unwrap_err().to_string();
        assert!(error.contains("no such file") && !error.contains("install"), "{error}");
        let error = load_summarisation(dir.path(), "aclsum").unwrap_err().to_string();
        assert!(error.contains("`aclsum` is not installed") && error.contains("install-models"), "{error}");
    }

    #[test]
    fn squad_with_numbers_for_names_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        let text = r#"{"data":[{"title":"t","paragraphs":[{"context":"c","qas":[
            {"id":1,"question":"q","answers":[{"answer_start":0,"text":"x"},{"answer_start":0,"text":"x"}]},
            {"id":2,"question":"q","answers":[{"answer_start":0,"text":""}]}]}]}],"version":"1.1"}"#;
        std::fs::write(&path, text).unwrap();
        let items = load(&path).unwrap();
        assert_eq!((items.len(), items[0].id.as_str()), (1, "1"));
        assert_eq!(items[0].references, ["x"]);
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
