//! Prompts with, where there are any, reference answers: inputs for demonstrations, tests, experiments and calibration.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

mod prompts;

pub use prompts::{load_prompts, LeftOut, Prompts};

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

/// Reads questions, in any of the forms that [`load_prompts`] knows; answers are not looked at.
///
/// # Errors
/// As [`load_prompts`].
pub fn load_qa(path: &Path) -> Result<Vec<QaItem>> {
    let items = load_prompts(path)?.items.into_iter();
    Ok(items.map(|Item { id, context, question, .. }| QaItem { id, context, question }).collect())
}

/// A text file that a person or another program wrote: UTF-8, with or without a byte order mark, or UTF-16 with one.
///
/// # Errors
/// [`Error::NoFile`]; [`Error::Data`] with the line at which it is no text; [`Error::Io`].
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoFile { path: path.to_path_buf() })
        }
        Err(e) => return Err(Error::io(path, e)),
    };
    let wrong = |line: usize, reason: &str| Error::Data {
        path: path.to_path_buf(),
        line,
        reason: reason.to_string(),
    };
    let utf16 = |bytes: &[u8], from: fn([u8; 2]) -> u16| {
        let units = bytes.chunks(2).map(|pair| from([pair[0], pair.get(1).copied().unwrap_or(0)]));
        char::decode_utf16(units).collect::<std::result::Result<String, _>>()
    };
    match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes).map_err(|_| wrong(1, "not valid UTF-16")),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes).map_err(|_| wrong(1, "not valid UTF-16")),
        _ => {
            let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").map(<[u8]>::to_vec).unwrap_or(bytes);
            String::from_utf8(bytes).map_err(|e| {
                let valid = e.utf8_error().valid_up_to();
                let line = e.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
                wrong(line, "not UTF-8: save it as UTF-8 (`iconv -t UTF-8`)")
            })
        }
    }
}
