//! Indexes of made-up and of real histories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chain;
#[path = "../../../chain/tests/common/mod.rs"]
mod common;
mod made_up;
mod postgres;
