//! Experiments on quality signals: which score of an output can be trusted, and what it costs.
//!
//! Three stages, each reading what the one before wrote into the experiment's folder:
//!
//! - [`run`](mod@run): models × prompts → outputs, latencies, tokens, memory;
//! - [`score`](mod@score): outputs × evaluators → scores;
//! - `report`: scores → tables, plots and a calibrated rubric.
//!
//! [`cli`] has the commands, for this crate's own program `poq-experiment` and for `poq experiment`.

pub mod cli;
pub mod data;
mod error;
pub mod host;
pub mod log;
mod progress;
pub mod run;
pub mod score;
mod tables;

pub use error::{Error, Result};
