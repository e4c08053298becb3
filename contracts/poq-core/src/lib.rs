//! The Proof-of-Quality protocol as pure functions.
//!
//! One arithmetic, three users: the ink! contract settles with these functions, the workers replay every settlement with
//! them (`poq explain`), and the simulator runs them by the million. There is no floating point, no clock, no hash
//! function and no account type in here: callers pass what they read from the chain.
//!
//! | module | what | where it comes from |
//! |---|---|---|
//! | [`units`] | parts per billion, money, exact rounding | – |
//! | [`aggregate`] | consensus of several scores | arXiv 2601.21189, abstract (mean, median, trimmed mean, trust-weighted) |
//! | [`cost`] | normalised cost of a node | arXiv 2512.16317, section 1.2 of our notes: latency; ours: price |
//! | [`reward`] | the linear quality-cost reward | arXiv 2512.16317: R = α·quality − β·cost |
//! | [`merit`] | how good an evaluator was | closeness: arXiv 2512.16317; information: multi-task peer prediction |
//! | [`trust`] | how an evaluator's weight moves | arXiv 2601.21189 (multiplicative); ours: centred, relative merit |
//! | [`settlement`] | a whole task, conserved to the last unit | ours |
//! | [`commitment`] | what a commitment commits to | ours |
//! | [`draw`] | weighted random draw in constant time | Matias, Vitter, Ni: Dynamic generation of discrete random variates |
//! | [`phase`] | the life of a task, every state with a deadline | ours |
//! | [`text`] | token F1 of an output and a reference | Rajpurkar et al. 2016 (SQuAD), as arXiv 2512.16317 uses it |
//! | [`pool`] | the books of a staking pool: shares, exits, slashes, commission | ERC-4626 with virtual shares; ours: exits, first loss |
//! | [`params`] | the parameters of a task kind | ours |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(clippy::float_arithmetic)]
#![deny(clippy::arithmetic_side_effects)]

extern crate alloc;

pub mod aggregate;
pub mod commitment;
pub mod cost;
pub mod draw;
pub mod merit;
pub mod params;
pub mod phase;
pub mod pool;
pub mod reward;
pub mod settlement;
pub mod text;
pub mod trust;
pub mod units;

pub use aggregate::Aggregation;
pub use params::{KindParams, MeritRule, ParamsError, TrustRule};
pub use phase::{Phase, Step};
pub use settlement::{settle, Settlement, SettlementInput};
pub use units::{Balance, KindId, Millis, NodeId, Ratio, Score, Signed, TaskId};
