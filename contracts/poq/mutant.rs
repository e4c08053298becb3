//! Faults on purpose, for a test of the fuzzer: it must find each of them. Without the feature `mutants`, which nothing that is shipped
//! is built with, none of them is in the code.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The fees of a request are taken and not booked.
    Fee,
    /// What is slashed in filling seats is booked twice.
    Slash,
    /// Who is drawn into a panel puts no stake at risk.
    Lock,
}

impl Mutant {
    /// All of them, with the names that the fuzzer and `POQ_MUTANT` know them by.
    pub const ALL: [(&'static str, Mutant); 3] =
        [("fee", Mutant::Fee), ("slash", Mutant::Slash), ("lock", Mutant::Lock)];
}

/// Whether the code has this fault.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn has(_: Mutant) -> bool {
    false
}

/// Whether the code has this fault: a Wasm has the one that `POQ_MUTANT` named when it was compiled.
#[cfg(all(feature = "mutants", not(feature = "std")))]
pub(crate) fn has(mutant: Mutant) -> bool {
    const NAME: &str = match option_env!("POQ_MUTANT") {
        Some(name) => name,
        None => "",
    };
    Mutant::ALL.iter().any(|(name, other)| *name == NAME && *other == mutant)
}

#[cfg(all(feature = "mutants", feature = "std"))]
thread_local! {
    static MUTANT: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Whether the code has this fault: the one that this thread has [`set`].
#[cfg(all(feature = "mutants", feature = "std"))]
pub(crate) fn has(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Gives the code a fault, in this thread; or none.
#[cfg(all(feature = "mutants", feature = "std"))]
pub fn set(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}
