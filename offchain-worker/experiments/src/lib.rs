//! Experiments on quality signals: which score of an output can be trusted, and what it costs.
//!
//! Three stages, each reading what the one before wrote into the experiment's folder:
//!
//! - [`run`](mod@run): models × prompts → outputs, latencies, tokens, memory;
//! - [`score`](mod@score): outputs × evaluators → scores;
//! - [`report`](mod@report): scores → tables, plots and a calibrated rubric.
//!
//! [`hostile`](mod@hostile) shows what evaluators make of outputs that want a score without earning one.
//!
//! [`serve`](mod@serve) puts an installed model behind an endpoint.
//!
//! [`cli`] has the commands, for this crate's own program `poq-experiment` and for `poq experiment`.

pub mod calibrate;
pub mod cheats;
mod claims;
pub mod cli;
mod compare;
pub mod data;
pub mod dataset;
mod error;
pub mod host;
pub mod hostile;
pub mod log;
mod plots;
mod progress;
pub mod report;
pub mod run;
pub mod score;
pub mod serve;
pub mod stats;
mod tables;

pub use error::{Error, Result};
