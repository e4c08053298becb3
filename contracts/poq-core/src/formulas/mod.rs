//! The protocol's formulas, each a pure function of integers.

pub mod aggregate;
pub mod cost;
pub mod merit;
pub mod reward;
pub mod settlement;
pub mod trust;
