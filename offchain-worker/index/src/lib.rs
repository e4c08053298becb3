//! The history of a Proof-of-Quality network in a database, and what can be told from it without a chain.
//!
//! | module | what |
//! |---|---|
//! | [`follow`] | finalised blocks, from the contract's birth on, into the database |
//! | [`store`] | the database as its one writer has it |
//! | [`ledger`] | what events mean: the books, moved on by `poq-core`'s own transitions |
//! | [`mod@replay`] | every settlement computed again, and compared to the unit |
//! | [`mod@explain`] | one settlement with every number of its formula |
//! | [`read`] | accounts, nodes, tasks, pools, parameters as applications want them |
//! | [`dump`] | an index as text, for comparing two |
//! | [`db`] | SQLite and PostgreSQL |
//! | [`synthetic`] | made-up histories, for tests and measurements |
//!
//! What the chain said is stored as it said it: blocks, events, and the few records that no event tells. Every other table follows from
//! these alone ([`db::schema`]), so it can be made anew at any time, two indexes of one chain are the same row by row, and whoever
//! doubts a number computes it again.

pub mod db;
pub mod dump;
pub mod error;
pub mod explain;
pub mod follow;
pub mod ledger;
pub mod read;
pub mod replay;
mod rows;
pub mod store;
pub mod synthetic;

pub use db::{Conn, Pool, Target};
pub use error::{Error, Result};
pub use follow::Follower;
pub use rows::{address, role_name};
pub use store::{Identity, Store};
