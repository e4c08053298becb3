//! What a task kind remembers between its tasks.

pub mod population;
pub mod ring;

pub use population::Population;
pub use ring::Ring;
