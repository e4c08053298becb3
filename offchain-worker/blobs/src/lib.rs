//! Prompts, outputs and reports: where they are kept, who may have them, and how they travel.
//!
//! The chain holds hashes; the bytes live here. A blob's name is the blake2b-256 hash of its bytes, so whoever fetches one
//! can check it and nobody has to trust the server. An output's hash is itself hidden in a commitment until the panel is
//! drawn: the requester, who needs it for the draw, is served the opening as soon as the outputs are sealed for good.
//!
//! * [`BlobStore`]: content-addressed storage on a local disk (default), in an S3-compatible store (feature `s3`) or in
//!   memory.
//! * [`BlobServer`]: serves a store over HTTP to those whom an [`Access`] lets have it. Requests are signed.
//! * [`endpoint`]: whether an address can be one that others reach a server at, and whether one answers there.
//! * [`BlobClient`]: fetches from other people's servers, trusting nothing: sizes and times are limited, hashes and
//!   commitments verified.
//!
//! # The protocol
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/blobs/{hash}?task=ID` | the blob's bytes |
//! | `GET /v1/tasks/{task}/openings/{node}` | what opens an inference node's commitment: `{"hash":…,"salt":…}` |
//! | `GET /v1/tasks/{task}/outputs/{node}` | the output's bytes |
//! | `GET /v1/tasks/{task}/reveals/{node}` | an evaluator's reveal, a [`RevealBlob`] |
//! | `GET /v1/tasks/{task}/reports/{node}` | the report's bytes |
//! | `GET /health` | unsigned: `{"status":"ok","network":…,"time":…}` |
//!
//! Each but the last carries `x-poq-account` (SS58 or 0x-hex), `x-poq-time` (milliseconds since 1970) and
//! `x-poq-signature` (sr25519, hex) over the lines `poq-blob-v2`, method, path with query, time, network in hex (the hash
//! of the chain's genesis and the contract, `poq_core::commitment::network`), joined by
//! newlines. The path is the server's own, from `/v1` on: a proxy may put a prefix before it and take it off again. The
//! network binds a request to one deployment on one chain, the path to one task and node, the time to a window (±60 s); a signature is
//! accepted once.
//!
//! Errors are JSON `{"code":"…","message":"…"}`: 400 malformed, 401 not signed properly, 403 not entitled, 404 not there,
//! 413 request too large, 425 too early, 503 overloaded or unable to tell.
//!
//! Signatures authenticate, they do not encrypt: put a TLS terminator before a server on a public network.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod auth;
mod client;
mod documents;
pub mod endpoint;
mod id;
mod network;
mod server;
mod store;

pub use access::{Access, AccessError, AccessRequest, Decision, Resource};
pub use auth::{message, RequestSigner, Sr25519Verifier, Verifier};
pub use client::{BlobClient, ClientConfig, FetchClass, FetchError};
pub use documents::{DocumentError, OpeningBlob, PromptBlob, ReportBlob, RevealBlob, MAX_PROMPT, MAX_REPORT};
pub use id::{blake2_256, BlobId, BlobIdError};
pub use network::is_public;
pub use server::{router, BlobServer, ServerConfig, ServerError};
pub use store::{shown_store, BlobStore, Slot, StoreError, StoreLimits, Swept};

pub use poq_core::commitment::{Hash, Salt};
pub use poq_core::units::{NodeId, TaskId};
pub use subxt_utils_accountid32::AccountId32;

/// The account that a request is made for, in SS58 or 0x-hex.
pub const ACCOUNT_HEADER: &str = "x-poq-account";
/// When a request was signed, in milliseconds since 1970.
pub const TIME_HEADER: &str = "x-poq-time";
/// A request's signature, in hex.
pub const SIGNATURE_HEADER: &str = "x-poq-signature";

/// The largest blob by default, in bytes (1 MiB).
pub const DEFAULT_MAX_BLOB: usize = 1024 * 1024;

/// The system's clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
