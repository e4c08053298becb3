//! The question-and-answer data set that set-up installs: inputs for demonstrations, tests and calibration.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

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
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::MissingFile { model: "qa".to_string(), path: path.to_path_buf() })
        }
        Err(e) => return Err(Error::io(path, e)),
    };
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::Install(format!("{} line {}: {e}", path.display(), i + 1)))
        })
        .collect()
}
