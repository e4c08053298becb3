//! What can go wrong with an index.

use poq_chain::Class;

/// What went wrong with an index, or with the chain that it is made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database's address is neither a file's nor PostgreSQL's.
    #[error("{url:?} is no database: give a file (index.sqlite), sqlite:FILE, or postgres://USER@HOST/NAME")]
    Url {
        /// What was given, as it may be shown.
        url: String,
    },
    /// The database could not be opened.
    #[error("cannot open the database {database}: {reason}")]
    Open {
        /// Which, as it may be shown.
        database: String,
        /// Why.
        reason: String,
    },
    /// The database refused a statement.
    #[error("the database failed while {what}: {reason}")]
    Database {
        /// What was to be done.
        what: String,
        /// Why it was not.
        reason: String,
    },
    /// The database is there and empty, or is no index.
    #[error("the database {database} has no index: `poq index --db …` makes one")]
    Empty {
        /// Which, as it may be shown.
        database: String,
    },
    /// The database was made by another version.
    #[error("the index has layout {found}, this program knows {known}: {hint}")]
    Layout {
        /// The layout that was found.
        found: i64,
        /// The layout of this version.
        known: i64,
        /// What to do.
        hint: &'static str,
    },
    /// The database holds another contract's history.
    #[error("the database holds the history of {found}, not of {expected}: use another database for another contract")]
    OtherNetwork {
        /// Contract and genesis of the index.
        found: String,
        /// Contract and genesis that were asked for.
        expected: String,
    },
    /// Somebody else writes to the database.
    #[error(
        "another `poq index` writes to this database: its last block changed from {expected} to {found}"
    )]
    Contended {
        /// The block that this one had written.
        expected: String,
        /// The block that was there.
        found: String,
    },
    /// What is stored cannot be read.
    #[error("block {block}, event {index}: {reason}")]
    Stored {
        /// The block.
        block: u32,
        /// The event within it.
        index: u32,
        /// What is wrong.
        reason: String,
    },
    /// The node no longer has the blocks that are to be read.
    #[error(
        "the node no longer has the state of block {block}, where events are: give --url an archive node \
         (`--state-pruning archive`) once; an index that keeps up needs none"
    )]
    Pruned {
        /// The block.
        block: u32,
    },
    /// The node has not come as far as the index.
    #[error("the node's last final block is {head}, the index is at block {tip} already: wait, or use a node that has caught up")]
    Behind {
        /// The node's last final block.
        head: u32,
        /// The index's last block.
        tip: u32,
    },
    /// There is no such thing in the index.
    #[error("{0}")]
    Absent(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] poq_chain::Error),
    /// A thread of the database is gone.
    #[error("the database's threads have ended")]
    Stopped,
}

impl Error {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Chain(error) => error.class() == Class::Transient,
            Error::Database { .. } | Error::Open { .. } | Error::Behind { .. } => true,
            _ => false,
        }
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
