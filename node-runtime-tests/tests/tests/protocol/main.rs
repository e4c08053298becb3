//! The protocol on the chain: a task's life with every amount, its deadlines, every refusal, other code, gas.
//! `chain_findings.rs` has what could once be taken, blocked or steered; `registry.rs` the draws.
#![allow(clippy::unwrap_used, missing_docs)]

mod code;
mod deadlines;
mod gas;
mod lifecycle;
mod refusals;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;
