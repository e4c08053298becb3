//! The files of an experiment: its settings, its prompts, and one line per output.
//!
//! All of them are JSON Lines or JSON in one folder, so that an experiment can be interrupted at any line and go on.

use crate::error::{Error, Result};
use poq_inference::{read_text, FinishReason, Item, TaskKind};
use serde::{
    de::{DeserializeOwned, Error as _},
    Deserialize, Deserializer, Serialize,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The prompts.
pub const ITEMS: &str = "items.jsonl";
/// What the models answered.
pub const OUTPUTS: &str = "outputs.jsonl";
/// [`OUTPUTS`] with the evaluators' scores merged in.
pub const SCORES: &str = "scores.jsonl";
/// What evaluators make of answers that no model gave; see [`crate::cheats`].
pub const CHEATS: &str = "cheats.jsonl";
/// [`OUTPUTS`] of held-out prompts with what every evaluator gives by the calibrated rubric; `poq simulate` replays it.
pub const RUBRIC_SCORES: &str = "rubric-scores.jsonl";
/// What judges said.
pub const VERDICTS: &str = "verdicts.jsonl";
/// The settings that all outputs of one folder share.
pub const SETTINGS: &str = "experiment.json";

/// What must be equal for outputs to be comparable; fixed when an experiment begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Decides which prompts are drawn, and sampling where the temperature is above zero.
    pub seed: u64,
    /// 0 for greedy decoding.
    pub temperature: f64,
    /// The most tokens of an answer, by kind.
    pub max_tokens: BTreeMap<TaskKind, usize>,
}

/// One model's answer to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// The prompt's name; see [`ITEMS`].
    pub item: String,
    /// What kind of answer it asks for.
    pub kind: TaskKind,
    /// The model's name.
    pub model: String,
    /// The model on chain: 0x and 64 hexadecimal digits.
    pub model_digest: String,
    /// What it answered; empty where it refused.
    pub output: String,
    /// Token F1 against the references, in [0, 1]; absent where there is no reference.
    pub f1: Option<f64>,
    /// ROUGE-L against the references, in [0, 1]; absent where there is no reference.
    pub rouge_l: Option<f64>,
    /// Milliseconds from request to answer.
    pub wall_ms: f64,
    /// Milliseconds of processor time of the whole process; on a shared machine the better measure.
    pub cpu_ms: f64,
    /// Milliseconds of [`OutputRecord::wall_ms`] until the prompt was read.
    pub prompt_ms: f64,
    /// Tokens of the prompt, with the model's template.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Why the answer ended.
    pub finish: Option<FinishReason>,
    /// The most memory the process had in use since this model was loaded, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Why the model refused, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What one evaluator said of one output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// In [0, 1].
    pub score: f64,
    /// Milliseconds this output's share of the work took.
    pub wall_ms: f64,
    /// Milliseconds of processor time of this output's share, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
}

/// An output with its scores: an [`OutputRecord`] with one more field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoredRecord {
    /// The output.
    #[serde(flatten)]
    pub output: OutputRecord,
    /// By evaluator or dimension.
    pub scores: BTreeMap<String, ScoreRecord>,
}

/// By hand: serde reads what is flattened through a form of its own, in which serde_json's numbers are maps as soon as any crate
/// of the program asks for `arbitrary_precision`. The chain's crates do.
impl<'de> Deserialize<'de> for ScoredRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut record = serde_json::Map::deserialize(deserializer)?;
        let scores = record.remove("scores").ok_or_else(|| D::Error::missing_field("scores"))?;
        Ok(Self {
            output: serde_json::from_value(record.into()).map_err(D::Error::custom)?,
            scores: serde_json::from_value(scores).map_err(D::Error::custom)?,
        })
    }
}

/// The folder of an experiment, held by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// When it cannot be made, or another process works in it.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock_path = path.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| Error::io(&lock_path, e))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::Usage(format!(
                "another process works in {}: wait for it, or use another folder",
                path.display()
            ))
        })?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Fixes the settings, or checks that they are those of the outputs that are already there.
    ///
    /// # Errors
    /// [`Error::Usage`] where they differ: outputs under two settings must not be mixed.
    pub fn settle(&self, settings: &Settings) -> Result<()> {
        let path = self.file(SETTINGS);
        if !path.exists() {
            let text = serde_json::to_string_pretty(settings).map_err(|e| Error::format(&path, e))?;
            return std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e));
        }
        let found: Settings = read_json(&path)?;
        if found == *settings {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} was begun with other settings ({found:?} there, {settings:?} now): use another folder",
            self.path.display()
        )))
    }

    /// The items of the folder with `items` added.
    ///
    /// # Errors
    /// When an item of the same name has another text.
    pub fn add_items(&self, items: &[Item]) -> Result<Vec<Item>> {
        let path = self.file(ITEMS);
        let mut lines = Lines::<Item>::open(&path)?;
        let mut all = std::mem::take(&mut lines.found);
        for item in items {
            match all.iter().find(|known| known.id == item.id) {
                Some(known) if known == item => {}
                Some(_) => {
                    return Err(Error::Usage(format!(
                        "item `{}` has another text in {}: use another folder",
                        item.id,
                        path.display()
                    )))
                }
                None => {
                    lines.append(item)?;
                    all.push(item.clone());
                }
            }
        }
        Ok(all)
    }
}

/// A file of JSON Lines that is read once and then grows. A last line that a crash cut short is removed.
#[derive(Debug)]
pub struct Lines<T> {
    path: PathBuf,
    file: File,
    /// What was in it when it was opened.
    pub found: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Lines<T> {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When a line that ends is not of this form.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            tracing::warn!(file = %path.display(), "the last line was cut short and is made again");
            file.set_len(whole as u64).map_err(io)?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(io)?;
        let found = parse_lines(path, &text[..whole])?;
        Ok(Self { path: path.to_path_buf(), file, found })
    }

    /// Adds a line; it is in the file when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, record: &T) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| Error::format(&self.path, e))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }
}

fn parse_lines<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<Vec<T>> {
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|e| Error::format(path, format!("line {}: {e}", i + 1)))
        })
        .collect()
}

/// Reads a file of JSON Lines.
///
/// # Errors
/// When it is missing or a line is not of this form; the error names the line.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    parse_lines(path, read_text(path)?.as_bytes())
}

/// Writes a file of JSON Lines, all or nothing.
///
/// # Errors
/// When the disk refuses.
pub fn write_lines<T: Serialize>(path: &Path, records: &[T]) -> Result<()> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).map_err(|e| Error::format(path, e))?;
        text.push(b'\n');
    }
    let beside = path.with_extension("partial");
    std::fs::write(&beside, text).map_err(|e| Error::io(&beside, e))?;
    std::fs::rename(&beside, path).map_err(|e| Error::io(path, e))
}

/// Reads a JSON file.
///
/// # Errors
/// When it is missing or not of this form.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::format(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, "1\n2\n3").unwrap();
        let mut lines = Lines::<u32>::open(&path).unwrap();
        assert_eq!(lines.found, [1, 2]);
        lines.append(&4).unwrap();
        assert_eq!(read_lines::<u32>(&path).unwrap(), [1, 2, 4]);
        std::fs::write(&path, "1\nx\n3\n").unwrap();
        assert!(Lines::<u32>::open(&path).unwrap_err().to_string().contains("line 2"));
    }

    /// In the workspace's build `arbitrary_precision` is on; see [`ScoredRecord`].
    #[test]
    fn a_scored_output_reads_as_it_was_written() {
        let text = r#"{"item":"q","kind":"qa","model":"m","model_digest":"0x","output":"Paris","f1":0.25,"rouge_l":null,
            "wall_ms":1551.379763,"cpu_ms":1.0e3,"prompt_ms":686.0,"prompt_tokens":173,"completion_tokens":25,"finish":"stop",
            "peak_memory_bytes":917270528,"scores":{"e":{"score":0.9983895254843727,"wall_ms":6.5,"cpu_ms":null}}}"#
            .replace('\n', " ");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, &text).unwrap();
        let read: Vec<ScoredRecord> = read_lines(&path).unwrap();
        assert_eq!((read[0].output.f1, read[0].output.wall_ms), (Some(0.25), 1551.379763));
        assert_eq!(read[0].scores["e"].score, 0.9983895254843727);
        write_lines(&path, &read).unwrap();
        assert_eq!(read_lines::<ScoredRecord>(&path).unwrap(), read);
        std::fs::write(&path, text.replace("\"f1\":0.25", "\"f1\":\"much\"")).unwrap();
        assert!(read_lines::<ScoredRecord>(&path).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn settings_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let settings = Settings { seed: 1, temperature: 0.0, max_tokens: [(TaskKind::Qa, 48)].into() };
        folder.settle(&settings).unwrap();
        folder.settle(&settings).unwrap();
        let other = Settings { seed: 2, ..settings };
        assert!(folder.settle(&other).unwrap_err().to_string().contains("another folder"));
    }

    #[test]
    fn a_folder_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Folder::open(dir.path()).unwrap();
        assert!(Folder::open(dir.path()).is_err());
    }
}
