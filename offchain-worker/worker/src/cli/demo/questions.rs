//! Which questions are asked.

use anyhow::{ensure, Context};
use poq_inference::QaItem;
use rand::seq::SliceRandom;
use rand::SeedableRng;
use std::collections::HashSet;
use std::path::Path;

/// Passages longer than this are left out: on a processor, a small model reads some hundred tokens a second.
const MAX_CONTEXT: usize = 600;

/// `count` questions of the file, of different passages, the same ones for the same seed.
pub(super) fn choose(path: &Path, count: usize, seed: u64) -> anyhow::Result<Vec<QaItem>> {
    let all =
        poq_inference::load_qa(path).context("the questions; scripts/install-models.sh installs them")?;
    let mut fitting: Vec<QaItem> = all.into_iter().filter(|item| item.context.len() <= MAX_CONTEXT).collect();
    fitting.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
    // One question per passage, until there are no more passages.
    let mut passages = HashSet::new();
    let (mut chosen, rest): (Vec<_>, Vec<_>) =
        fitting.into_iter().partition(|item| passages.insert(item.context.clone()));
    chosen.extend(rest);
    ensure!(
        chosen.len() >= count,
        "{} has {} questions about passages of at most {MAX_CONTEXT} bytes, fewer than the {count} asked for",
        path.display(),
        chosen.len()
    );
    chosen.truncate(count);
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn a_seed_chooses_the_same_questions_of_different_passages() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for number in 0..20 {
            let item = QaItem {
                id: number.to_string(),
                context: format!("passage {}", number / 2),
                question: format!("question {number}?"),
            };
            writeln!(file, "{}", serde_json::to_string(&item).unwrap()).unwrap();
        }
        let ten = choose(file.path(), 10, 7).unwrap();
        assert_eq!(ten, choose(file.path(), 10, 7).unwrap());
        assert_ne!(ten, choose(file.path(), 10, 8).unwrap());
        assert_eq!(ten.iter().map(|item| &item.context).collect::<HashSet<_>>().len(), 10);
        assert_eq!(choose(file.path(), 20, 7).unwrap().len(), 20);
        assert!(choose(file.path(), 21, 7).is_err());
    }
}
