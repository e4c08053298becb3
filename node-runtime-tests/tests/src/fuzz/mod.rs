//! A fuzzer of the contract: random people send random messages, and after each of them everything holds that must hold.
//!
//! | file | what |
//! |---|---|
//! | [`act`] | what people do, as numbers: drawn at random, shrunk, printed and read again |
//! | [`people`] | what an act is at the moment: a message of somebody's, with a task's life in mind |
//! | [`message`] | every message of the contract, as a value |
//! | [`machine`] | what it runs on: [`Chain`] (the Wasm on the real runtime) or [`Native`] (the contract's own code in this process) |
//! | [`state`] | the contract's storage, decoded, and what a message has changed of it |
//! | [`ledger`] | the books beside the contract's: who paid what, who got what, what a task's end may cost whom |
//! | [`invariants`] | what must hold of the records |
//! | [`run`] | a life of a network: its set-up, its acts, and its end, at which everybody is paid |
//! | [`shrink`] | the shortest sequence that still fails |
//! | [`raw`] | any bytes to every selector |
//!
//! The books and the invariants are written from docs/protocol.md, not from the contract: they know no settlement, draw or clock of
//! `poq-core`. `scripts/bench.sh fuzz` runs it for as long as one likes.

pub mod act;
pub mod chain;
pub mod invariants;
pub mod ledger;
pub mod machine;
pub mod message;
pub mod native;
pub mod people;
pub mod raw;
pub mod run;
pub mod shrink;
pub mod state;

pub use act::Act;
pub use chain::Chain;
pub use machine::Machine;
pub use native::Native;
pub use run::{Run, Tally};

/// Why a run has ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether the contract did what it must not, rather than what it runs on.
    pub is_violation: bool,
    /// What happened.
    pub text: String,
}

impl Failure {
    /// The contract did what it must not.
    pub fn violation(text: impl Into<String>) -> Failure {
        Failure { is_violation: true, text: text.into() }
    }

    /// What the contract runs on is broken, or the fuzzer.
    pub fn broken(text: impl Into<String>) -> Failure {
        Failure { is_violation: false, text: text.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// A violation unless it holds.
fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::violation(text()))
    }
}
