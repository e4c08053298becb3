//! The Proof-of-Quality worker: everything that runs inference nodes, evaluators and a keeper, as a library. The `poq`
//! command in this package puts a command line on it.
//!
//! ```text
//!   chain ──► watcher ──► operator loop (one per operator account) ──► transactions, several duties in one
//!               │            │  what is due is decided from the chain's state alone (`duty`)
//!               │            ├─► inference work: input → model → journal → blob store
//!               │            └─► evaluator work: outputs → model → journal
//!               ├──────► keeper: fills panels, settles, ends what failed
//!               └──────► blob server: serves openings, outputs and reveals to whom the chain says
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | file, environment, command line; checked once |
//! | [`worker`] | [`Worker`]: start, readiness, shutdown |
//! | [`duty`] | what a node has to do, as a pure function of the chain's state |
//! | [`requester`] | the other side: draws panels, relays reveals, fetches outputs |
//! | [`models`] | models loaded, behind endpoints, or handed in |
//! | [`metrics`] | every metric's name, meaning and verb |
//! | [`health`] | liveness and readiness |
//! | [`time`] | the chain's time |
//! | [`failpoint`] | where tests kill the process |

pub mod config;
pub mod duty;
pub mod error;
pub mod failpoint;
pub mod health;
pub mod metrics;
pub mod models;
pub mod requester;
mod served;
mod services;
mod supervisor;
pub mod time;
pub mod worker;

pub use config::{ConfigError, WorkerConfig};
pub use error::{Error, Result};
pub use health::Readiness;
pub use models::Models;
pub use poq_blobs::endpoint;
pub use requester::{Requester, RequesterOptions};
pub use worker::{identity, open_blob_store, run_until_signal, Deps, Worker, WorkerHandle};
