//! Prompts with, where there are any, reference answers: inputs for demonstrations, tests, experiments and calibration.

use crate::error::{Error, Result};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use std::{fmt, path::Path};

/// What kind of answer a prompt asks for. Quality means something else for each, so everything is calibrated per kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// A short answer that stands in the context.
    Qa,
    /// A text that says the same as the context in fewer words.
    Summarisation,
}

impl TaskKind {
    /// Every kind there is.
    pub const ALL: [Self; 2] = [Self::Qa, Self::Summarisation];

    /// The kind as files and tables spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qa => "qa",
            Self::Summarisation => "summarisation",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A prompt, and what people would have answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Where it is from, unique in its set.
    pub id: String,
    /// What kind of answer it asks for.
    pub kind: TaskKind,
    /// The text that the question is about; may be empty.
    pub context: String,
    /// The question, or what is to be done with the context.
    pub question: String,
    /// Right answers, any of which is as good as the others; empty where nobody wrote one.
    #[serde(default)]
    pub references: Vec<String>,
}

/// Reads a file of [`Item`]s, one JSON object a line.
///
/// # Errors
/// When the file is missing or a line has another form; the error names the line.
pub fn load_items(path: &Path) -> Result<Vec<Item>> {
    load_lines(path)
}

/// A question and a paragraph that answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QaItem {
    /// Where it is from, unique in the set.
    pub id: String,
    /// The paragraph.
    pub context: String,
    /// The question.
    pub question: String,
}

/// Reads `qa.jsonl`.
///
/// # Errors
/// When the file is missing (the error names the script that installs it) or a line has another form.
pub fn load_qa(path: &Path) -> Result<Vec<QaItem>> {
    load_lines(path)
}

fn load_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(Error::MissingFile { model: name, path: path.to_path_buf() });
        }
        Err(e) => return Err(Error::io(path, e)),
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::Install(format!("{} line {}: {e}", path.display(), i + 1)))
        })
        .collect()
}
