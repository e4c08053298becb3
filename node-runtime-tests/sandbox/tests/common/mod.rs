//! Shared by the tests.

#![allow(dead_code, unreachable_pub)] // each test crate uses a part
#![allow(clippy::unwrap_used)]

/// The test contract.
pub fn probe() -> Vec<u8> {
    wat::parse_str(include_str!("probe.wat")).unwrap()
}

pub const GET: u8 = 0;
pub const FLIP: u8 = 1;
pub const NOW: u8 = 2;
pub const REVERT: u8 = 3;
pub const TRAP: u8 = 4;
