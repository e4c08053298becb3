//! What can go wrong in a simulation, in words that say what to change.

use poq_core::ParamsError;
use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Parameters that the contract would refuse.
    #[error("the contract would refuse these parameters: {0}")]
    Params(#[from] ParamsError),

    /// A setting that cannot be simulated.
    #[error("{0}")]
    Setting(String),

    /// The books do not add up: a bug in the simulator or in poq-core, never a property of a setting.
    #[error("round {round}: the accounts sum to {found}, not to {expected}: money was made or lost, which is a bug")]
    Money {
        /// The round after which it was found.
        round: u64,
        /// What there was at the start.
        expected: u128,
        /// What there is.
        found: u128,
    },

    /// An account would have gone below zero: a bug likewise.
    #[error("round {round}: {what} would go below zero, which is a bug")]
    Overdrawn {
        /// The round in which it happened.
        round: u64,
        /// Which account.
        what: &'static str,
    },

    /// The settlement refused its input: a bug likewise, because the fee had been checked.
    #[error("round {round}: poq-core would not settle a task whose fee had been accepted, which is a bug")]
    Unsettled {
        /// The round in which it happened.
        round: u64,
    },

    /// A line of an experiment's log that is no record.
    #[error("{}, line {line}: {problem}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// A log without enough in it.
    #[error("{}: {problem}", path.display())]
    LogTooSmall {
        /// The log.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },

    /// A file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// A plot that cannot be drawn.
    #[error("{}: the plot cannot be drawn: {problem}", path.display())]
    Plot {
        /// Where it was to be written.
        path: PathBuf,
        /// The library's error.
        problem: String,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
