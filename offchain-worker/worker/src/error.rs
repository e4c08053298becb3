//! What can go wrong in a worker, by nature.

use crate::config::ConfigError;

/// What can go wrong in a worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The chain, or the contract on it.
    #[error(transparent)]
    Chain(#[from] Box<poq_chain::Error>),
    /// A key file.
    #[error("the key of {what}: {source}")]
    Key {
        /// Whose key.
        what: String,
        /// What is wrong with it.
        source: poq_chain::signer::KeysError,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] poq_journal::Error),
    /// The blob store.
    #[error("the blob store {at}: {source}")]
    Store {
        /// Where it is.
        at: String,
        /// What is wrong with it.
        source: poq_blobs::StoreError,
    },
    /// The blob server.
    #[error(transparent)]
    Server(#[from] poq_blobs::ServerError),
    /// The blob client cannot be built.
    #[error("the blob client: {0}")]
    Fetch(#[from] poq_blobs::FetchError),
    /// A model.
    #[error("the model `{model}`: {source}")]
    Model {
        /// Its name.
        model: String,
        /// What is wrong with it.
        source: poq_inference::Error,
    },
    /// A configured node is not what the contract knows under that number.
    #[error("node {node}: {problem}")]
    Node {
        /// The node.
        node: u32,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// An address that the worker listens at, or another thing of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A service failed again and again, or for good: the worker stopped.
    #[error("the service `{service}` failed for good: {reason}")]
    Service {
        /// Which one.
        service: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether starting the service again cannot help: nothing durable can be promised, or a person has to change
    /// something.
    pub fn is_fatal(&self) -> bool {
        match self {
            Error::Journal(error) => error.is_fatal(),
            Error::Chain(error) => matches!(error.class(), poq_chain::Class::Fatal),
            Error::Config(_) | Error::Key { .. } | Error::Node { .. } => true,
            Error::Model { source, .. } => !source.is_transient(),
            Error::Store { .. }
            | Error::Server(_)
            | Error::Fetch(_)
            | Error::Io { .. }
            | Error::Service { .. } => false,
        }
    }
}

impl From<poq_chain::Error> for Error {
    fn from(error: poq_chain::Error) -> Self {
        Error::Chain(Box::new(error))
    }
}

/// The result of what a worker does.
pub type Result<T> = std::result::Result<T, Error>;
