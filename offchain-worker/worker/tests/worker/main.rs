//! Whole workers against the real contract on the sandbox chain.
//!
//! One program, so that the runtime is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adversary;
mod asking;
mod crash;
mod endpoints;
mod faults;
mod life;
mod models;
mod secrets;
mod stop;
mod support;
