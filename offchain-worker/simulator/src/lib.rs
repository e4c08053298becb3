//! The adversary lab: Monte Carlo Proof-of-Quality rounds on `poq-core`, the contract's own arithmetic.
//!
//! A [`world::World`] says where qualities, latencies and scores come from; a [`population::Crowd`] who takes part and who
//! attacks; a [`economy::Setting`] what the rules are. An [`economy::Economy`] runs tasks through them from request to
//! settlement, with every unit of money accounted for after every round; [`measure`] turns what happened into numbers,
//! [`run`] repeats it with confidence intervals, [`sweep`], [`scenario`] and [`report`] ask the questions.
//!
//! Floats exist here, on the side of the world: qualities, noise, statistics. Whatever the protocol computes, it computes in
//! `poq-core`'s integers.

pub mod attack;
pub mod bench;
pub mod cli;
pub mod economy;
pub mod error;
pub mod failures;
pub mod fit;
pub mod ledger;
pub mod live;
pub mod log;
pub mod measure;
pub mod papers;
mod plot;
pub mod population;
pub mod raids;
pub mod report;
pub mod rng;
pub mod rules;
pub mod run;
pub mod scenario;
pub mod stats;
pub mod steering;
pub mod sweep;
pub mod world;

mod store;

pub use attack::Attack;
pub use economy::{Economy, Setting};
pub use error::{Error, Result};
pub use measure::{Metric, Outcome, Summary};
pub use population::Crowd;
pub use run::{Effort, Job};
pub use world::{Spread, World};
