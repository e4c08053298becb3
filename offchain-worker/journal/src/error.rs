use crate::types::{CallId, Duty, Record};
use poq_core::commitment::Hash;
use std::path::{Path, PathBuf};

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the journal open.
    #[error(
        "the journal {} is in use by {}: two workers with one journal could commit twice. Stop the other one first",
        path.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The journal.
        path: PathBuf,
        /// Who holds it, where the lock file tells.
        pid: Option<u32>,
    },
    /// The file is damaged. It is never replaced by an empty one, since that would forget commitments.
    #[error(
        "the journal {} is damaged ({detail}). Restore the newest copy of it. If there is none, let every open task of \
         this node pass its deadline (or check on chain that it has none), then move the file away",
        path.display()
    )]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file is a database of something else.
    #[error("{} is not a journal but another program's database. Choose another path", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of this software.
    #[error(
        "the journal {} has schema version {found}, and this version of the software reads {supported}. Run the version \
         that wrote it, or upgrade",
        path.display()
    )]
    Schema {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// What this software reads.
        supported: u32,
    },
    /// The file or its folder could not be created, opened or protected.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A write or a read failed after the journal was opened: the disk is full or failing.
    #[error(
        "the journal {} failed to {action}. Nothing may be signed until it works again: check the disk, then restart",
        path.display()
    )]
    Storage {
        /// What was tried.
        action: &'static str,
        /// The journal.
        path: PathBuf,
        /// What the database says.
        #[source]
        source: Box<redb::Error>,
    },
    /// No such duty is recorded.
    #[error("the journal has no record of the {duty}: insert it before anything is signed for it")]
    NoSuchDuty {
        /// The duty.
        duty: Duty,
    },
    /// No such call is recorded.
    #[error("the journal has no call number {}", id.0)]
    NoSuchCall {
        /// The call.
        id: CallId,
    },
    /// A call's name is too long to store.
    #[error("the call's name has {length} bytes; at most {limit} are stored")]
    CallName {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Error {
    /// Whether the process should stop, because nothing durable can be promised any more.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Error::NoSuchDuty { .. } | Error::NoSuchCall { .. } | Error::CallName { .. })
    }

    pub(crate) fn storage(action: &'static str, path: &Path, source: impl Into<redb::Error>) -> Error {
        match source.into() {
            redb::Error::Corrupted(detail) => Error::Corrupt { path: path.to_owned(), detail },
            source => Error::Storage { action, path: path.to_owned(), source: Box::new(source) },
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source }
    }
}

/// Why a commitment must not be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSafe {
    /// The node has promised something else for this duty. What it has promised is what it has to send.
    #[error(
        "the {duty} is already promised with commitment 0x{}, so 0x{} is refused: send the existing one",
        hex::encode(existing.commitment),
        hex::encode(refused)
    )]
    Conflict {
        /// The duty.
        duty: Duty,
        /// What it has promised.
        existing: Box<Record>,
        /// What it was about to promise.
        refused: Hash,
    },
    /// The payload does not open the commitment, so revealing it would fail.
    #[error("the payload for the {duty} does not belong to its commitment: {reason}")]
    Payload {
        /// The duty.
        duty: Duty,
        /// What does not fit.
        reason: String,
    },
    /// The journal itself failed.
    #[error(transparent)]
    Journal(#[from] Error),
}
