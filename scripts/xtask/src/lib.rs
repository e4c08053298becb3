//! Build steps and checks that are too long for a shell script.
//!
//! `scripts/build-contract.sh` calls them in this order: [`strip`] removes the exports that the pallet refuses,
//! [`validate`] asks the pallet's own WebAssembly engine, in the pallet's own configuration, whether it would take the
//! code, and [`bundle`] joins code and metadata into the `.contract` file that wallets and explorers read. [`artifacts`]
//! checks the result as it is committed.
//!
//! [`walkthrough`] runs the commands of the docs, [`parameters`] compares the docs' table with the program (both for
//! `scripts/walkthrough.sh`), [`rules`] checks that the protocol's rules name code and tests that there are, and [`picture`]
//! draws what a program prints.

pub mod artifacts;
pub mod budget;
pub mod bundle;
pub mod canonical;
pub mod host_functions;
pub mod parameters;
pub mod picture;
pub mod rules;
pub mod strip;
pub mod validate;
pub mod walkthrough;
