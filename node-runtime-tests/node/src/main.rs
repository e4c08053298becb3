//! `poq-node`: a development node for contracts, used like substrate-contracts-node.
//!
//! One node, no peers: blocks are sealed as extrinsics arrive and are final a moment later. Everything that a production
//! node has beside that (block authoring by turns, finality by vote, parachains) is absent.

// The SDK's own error types, once per start.
#![allow(clippy::result_large_err)]

mod chain_spec;
mod cli;
mod command;
mod rpc;
mod service;

fn main() -> sc_cli::Result<()> {
    command::run()
}
