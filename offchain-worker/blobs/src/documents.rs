//! The documents that travel as blobs.

use crate::{BlobId, NodeId, TaskId};
use bytes::Bytes;
use poq_core::task::{Opened, Reveal};
use poq_core::units::Score;
use serde::{Deserialize, Serialize};

/// The largest prompt, in bytes (64 KiB).
pub const MAX_PROMPT: usize = 64 * 1024;
/// The largest opening or reveal, in bytes (16 KiB): some numbers and hashes.
const MAX_PROOF: usize = 16 * 1024;
/// The largest report, in bytes (64 KiB).
pub const MAX_REPORT: usize = 64 * 1024;

const VERSION: u32 = 1;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is too large.
    #[error("the {what} has {length} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It is not the JSON that was expected.
    #[error("the {what} is not of the expected form")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a version that this software does not know.
    #[error("the {what} is of version {found}; this software reads version {VERSION}")]
    Version {
        /// Which document.
        what: &'static str,
        /// Its version.
        found: u32,
    },
    /// It asks nothing.
    #[error("the prompt's question is empty")]
    NoQuestion,
}

/// A task's input.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PromptBlob {
    /// 1.
    pub version: u32,
    /// A text that the question is about; may be empty.
    #[serde(default)]
    pub context: String,
    /// The question.
    pub question: String,
    /// How many tokens the answer may have; `None` leaves it to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

impl PromptBlob {
    /// A question about a text.
    pub fn new(context: impl Into<String>, question: impl Into<String>) -> PromptBlob {
        PromptBlob { version: VERSION, context: context.into(), question: question.into(), max_tokens: None }
    }

    /// As bytes to store; the same prompt gives the same bytes.
    ///
    /// # Errors
    /// [`DocumentError::TooLarge`], [`DocumentError::NoQuestion`].
    pub fn encode(&self) -> Result<Bytes, DocumentError> {
        self.check()?;
        encode("prompt", self, MAX_PROMPT)
    }

    /// From a stranger's bytes.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn decode(bytes: &[u8]) -> Result<PromptBlob, DocumentError> {
        let prompt: PromptBlob = decode("prompt", bytes, MAX_PROMPT)?;
        prompt.check()?;
        Ok(prompt)
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.question.trim().is_empty() {
            return Err(DocumentError::NoQuestion);
        }
        Ok(())
    }
}

/// An evaluator's report on a task: which model said what. Its hash is revealed with the scores.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportBlob {
    /// 1.
    pub version: u32,
    /// The task.
    pub task: u64,
    /// The evaluator node.
    pub node: u32,
    /// The scoring model's name.
    pub model: String,
    /// The scoring model's digest, as registered on chain, in hex.
    pub model_digest: crate::BlobId,
    /// One per output, in the task's order: parts per billion, `null` for an unavailable one, `"no_input"` for all of them where
    /// the input could not be had.
    pub scores: Vec<Score>,
    /// What the evaluator has to say about single outputs (why one was unavailable, say).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ReportBlob {
    /// The version that this software writes.
    pub const VERSION: u32 = VERSION;

    /// As bytes to store; the same report gives the same bytes.
    ///
    /// # Errors
    /// [`DocumentError::TooLarge`].
    pub fn encode(&self) -> Result<Bytes, DocumentError> {
        encode("report", self, MAX_REPORT)
    }

    /// From a stranger's bytes.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn decode(bytes: &[u8]) -> Result<ReportBlob, DocumentError> {
        decode("report", bytes, MAX_REPORT)
    }
}

/// What opens an inference node's commitment. Whoever has all of a task's can draw its panel with the requester's secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningBlob {
    /// 1.
    pub version: u32,
    /// blake2b-256 of the output.
    pub hash: BlobId,
    /// The salt of the commitment.
    pub salt: BlobId,
}

impl OpeningBlob {
    /// Of an opening.
    pub fn new(opened: &Opened) -> OpeningBlob {
        OpeningBlob { version: VERSION, hash: BlobId(opened.hash), salt: BlobId(opened.salt) }
    }

    /// The opening.
    pub fn opened(&self) -> Opened {
        Opened { hash: self.hash.0, salt: self.salt.0 }
    }

    /// As bytes to send.
    ///
    /// # Errors
    /// None in practice: its size is fixed.
    pub fn encode(&self) -> Result<Bytes, DocumentError> {
        encode("opening", self, MAX_PROOF)
    }

    /// From a stranger's bytes.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn decode(bytes: &[u8]) -> Result<OpeningBlob, DocumentError> {
        decode("opening", bytes, MAX_PROOF)
    }
}

/// An evaluator's reveal. It authenticates itself: whoever has it may send it to the chain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevealBlob {
    /// 1.
    pub version: u32,
    /// The task.
    pub task: TaskId,
    /// The evaluator node.
    pub node: NodeId,
    /// One per output, in the task's order: parts per billion, `null` for unavailable, `"no_input"`.
    pub scores: Vec<Score>,
    /// Hash of the report; all zero for none.
    pub report_hash: BlobId,
    /// The salt of the commitment.
    pub salt: BlobId,
}

impl RevealBlob {
    /// Of a reveal.
    pub fn new(reveal: &Reveal) -> RevealBlob {
        RevealBlob {
            version: VERSION,
            task: reveal.task,
            node: reveal.node,
            scores: reveal.scores.clone(),
            report_hash: BlobId(reveal.report_hash),
            salt: BlobId(reveal.salt),
        }
    }

    /// The reveal.
    pub fn into_reveal(self) -> Reveal {
        let RevealBlob { task, node, scores, report_hash, salt, .. } = self;
        Reveal { task, node, scores, report_hash: report_hash.0, salt: salt.0 }
    }

    /// As bytes to store.
    ///
    /// # Errors
    /// [`DocumentError::TooLarge`].
    pub fn encode(&self) -> Result<Bytes, DocumentError> {
        encode("reveal", self, MAX_PROOF)
    }

    /// From a stranger's bytes.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn decode(bytes: &[u8]) -> Result<RevealBlob, DocumentError> {
        decode("reveal", bytes, MAX_PROOF)
    }
}

fn encode(what: &'static str, document: &impl Serialize, limit: usize) -> Result<Bytes, DocumentError> {
    let bytes = serde_json::to_vec(document).map_err(|source| DocumentError::Malformed { what, source })?;
    check_length(what, bytes.len(), limit)?;
    Ok(bytes.into())
}

fn decode<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    check_length(what, bytes.len(), limit)?;
    let malformed = |source| DocumentError::Malformed { what, source };
    // The version first: a later version may have another form altogether.
    let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version != VERSION {
        return Err(DocumentError::Version { what, found: version });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

fn check_length(what: &'static str, length: usize, limit: usize) -> Result<(), DocumentError> {
    if length > limit {
        return Err(DocumentError::TooLarge { what, length, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use poq_core::units::Ratio;

    #[test]
    fn prompts_keep_their_form() {
        let prompt = PromptBlob::new("Paris is in France.", "Where is Paris?");
        let bytes = prompt.encode().unwrap();
        assert_eq!(
            &bytes[..],
            br#"{"version":1,"context":"Paris is in France.","question":"Where is Paris?"}"#
        );
        assert_eq!(PromptBlob::decode(&bytes).unwrap(), prompt);
        let asked = PromptBlob { max_tokens: Some(64), ..prompt };
        assert_eq!(PromptBlob::decode(&asked.encode().unwrap()).unwrap(), asked);
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        assert!(matches!(PromptBlob::decode(b"hello"), Err(DocumentError::Malformed { .. })));
        assert!(matches!(
            PromptBlob::decode(br#"{"version":2,"q":[]}"#),
            Err(DocumentError::Version { found: 2, .. })
        ));
        assert!(matches!(
            PromptBlob::decode(br#"{"version":1,"question":" "}"#),
            Err(DocumentError::NoQuestion)
        ));
        let huge = PromptBlob::new("x".repeat(MAX_PROMPT), "why?");
        assert!(matches!(huge.encode(), Err(DocumentError::TooLarge { .. })));
        assert!(matches!(
            PromptBlob::decode(&vec![b' '; MAX_PROMPT + 1]),
            Err(DocumentError::TooLarge { .. })
        ));
    }

    #[test]
    fn openings_and_reveals_keep_their_form() {
        let opened = Opened { hash: [1; 32], salt: [2; 32] };
        let bytes = OpeningBlob::new(&opened).encode().unwrap();
        assert_eq!(OpeningBlob::decode(&bytes).unwrap().opened(), opened);
        let scores = vec![Score::NO_INPUT, Score::UNAVAILABLE, Score::of(Ratio::from_ppb(7))];
        let reveal = Reveal { task: 7, node: 3, scores, report_hash: [0; 32], salt: [2; 32] };
        let bytes = RevealBlob::new(&reveal).encode().unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(r#""scores":["no_input",null,7]"#), "{bytes:?}");
        assert_eq!(RevealBlob::decode(&bytes).unwrap().into_reveal(), reveal);
        assert!(RevealBlob::decode(&vec![b' '; MAX_PROOF + 1]).is_err());
    }

    #[test]
    fn reports_keep_their_form() {
        let report = ReportBlob {
            version: 1,
            task: 7,
            node: 3,
            model: "all-minilm-l6-v2".to_owned(),
            model_digest: crate::BlobId([5; 32]),
            scores: vec![Score::of(Ratio::from_ppb(123_456_789)), Score::UNAVAILABLE],
            notes: Vec::new(),
        };
        let bytes = report.encode().unwrap();
        assert_eq!(ReportBlob::decode(&bytes).unwrap(), report);
        assert!(String::from_utf8_lossy(&bytes).contains(r#""scores":[123456789,null]"#));
    }
}
