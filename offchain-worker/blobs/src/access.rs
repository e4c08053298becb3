use crate::{AccountId32, BlobId, NodeId, TaskId};
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// A blob by its name: a task's input.
    Blob(BlobId),
    /// What opens this inference node's commitment: its output's hash and salt.
    Opening(NodeId),
    /// The output of this inference node.
    Output(NodeId),
    /// The reveal of this evaluator node.
    Reveal(NodeId),
    /// The report of this evaluator node.
    Report(NodeId),
}

/// A request whose signature is good: `account` has asked for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRequest {
    /// Who asks.
    pub account: AccountId32,
    /// For which task.
    pub task: TaskId,
    /// For what.
    pub resource: Resource,
}

/// What to do with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Serve it.
    Allow,
    /// The account may have it, but not yet.
    TooEarly {
        /// When to try again, where that is known.
        retry_after: Option<Duration>,
    },
    /// The account has no business with it.
    Forbidden,
    /// There is no such task, or the thing is no part of it.
    NotFound,
}

/// Why nothing could be decided: the chain cannot be reached, say. The caller is told to try again.
#[derive(Debug, thiserror::Error)]
#[error("cannot decide who may have it: {0}")]
pub struct AccessError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl AccessError {
    /// From whatever failed.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AccessError {
        AccessError(error.into())
    }
}

/// Decides who may have what. Called for every request with a good signature, before the store is looked at, so that a
/// stranger does not even learn what is there.
#[async_trait::async_trait]
pub trait Access: Send + Sync + 'static {
    /// Whether `request.account` may have `request.resource` of `request.task` now.
    ///
    /// # Errors
    /// Where that cannot be told now.
    async fn decide(&self, request: &AccessRequest) -> Result<Decision, AccessError>;
}
