//! The Proof-of-Quality protocol as pure functions.
//!
//! One arithmetic and one life of a task, four users: the ink! contract stores what these functions return, the workers
//! replay every settlement with them (`poq explain`) and ask the same clock, and the simulator drives the same records by the
//! million. There is no floating point, no clock and no hash function in here: callers pass what they read from the chain.
//!
//! | module | what | where it comes from |
//! |---|---|---|
//! | [`units`] | parts per billion, money, exact rounding | – |
//! | [`params`] | the parameters of a task kind | ours |
//! | [`task`] | a task's record, its clock, what moves it on, what missed duties cost | ours |
//! | [`node`] | a node's record, and what duties do to it | ours |
//! | [`kind`] | what a kind remembers between its tasks | ours |
//! | [`registry`] | nodes by epochs, stakes, and the weighted random draw | Matias, Vitter, Ni: Dynamic generation of discrete random variates |
//! | [`governance`] | what the owner may change, and when | ours |
//! | [`commitment`] | what a commitment commits to | ours |
//! | [`formulas::aggregate`] | consensus of several scores | arXiv 2601.21189, abstract (mean, median, trimmed mean, trust-weighted) |
//! | [`formulas::cost`] | normalised cost of a node | arXiv 2512.16317: latency; ours: price |
//! | [`formulas::reward`] | the linear quality-cost reward | arXiv 2512.16317: R = α·quality − β·cost |
//! | [`formulas::merit`] | how good an evaluator was | closeness: arXiv 2512.16317; information: multi-task peer prediction |
//! | [`formulas::trust`] | how an evaluator's weight moves | arXiv 2601.21189 (multiplicative); ours: centred, relative merit |
//! | [`formulas::settlement`] | a task's end, conserved to the last unit; what an opened reference moves | ours |
//! | [`pool`] | the books of a staking pool: shares, exits, slashes, commission | ERC-4626 with virtual shares; ours: exits, first loss |
//! | [`text`] | token F1 of an output and a reference | Rajpurkar et al. 2016 (SQuAD), as arXiv 2512.16317 uses it |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(clippy::float_arithmetic)]
#![deny(clippy::arithmetic_side_effects)]

extern crate alloc;

pub mod commitment;
pub mod formulas;
pub mod governance;
pub mod kind;
pub mod node;
pub mod params;
pub mod pool;
pub mod registry;
pub mod task;
pub mod text;
pub mod units;

pub use formulas::aggregate::Aggregation;
pub use formulas::settlement::{settle, Ending, Settlement, SettlementInput};
pub use formulas::{aggregate, cost, merit, reward, settlement, trust};
pub use kind::Population;
pub use node::Node;
pub use params::{KindParams, MeritRule, ParamsError, TrustRule};
pub use registry::Role;
pub use task::{Phase, Step, Task};
pub use units::{AccountId, Balance, KindId, Millis, NodeId, Ratio, Score, Signed, TaskId};
