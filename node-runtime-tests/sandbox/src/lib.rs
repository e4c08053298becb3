//! The development chain in this process.
//!
//! Blocks are real ones: the runtime's own `Executive` builds them, signatures are checked, headers are chained, and the
//! state of the last few hundred blocks can be read. What a node adds to that (networking, a database, wall-clock time) is
//! absent, so that a test can have a chain of its own in milliseconds and move its clock as it likes.
//!
//! - [`Sandbox`] is the chain itself, synchronous, for tests of contracts:
//!   ```no_run
//!   # fn main() -> Result<(), poq_sandbox::SandboxError> {
//!   use poq_sandbox::{dev, Code, Sandbox};
//!   let mut chain = Sandbox::new()?;
//!   let code = std::fs::read("contract.wasm").unwrap_or_default();
//!   let contract = chain.instantiate(&dev::alice(), 0, Code::Upload(code), vec![0x9b, 0xae, 0x9d, 0x5e], vec![])?;
//!   chain.advance_ms(60_000);
//!   let called = chain.call(&dev::bob(), &contract.address, 0, vec![0x63, 0x3a, 0xa5, 0x51])?;
//!   println!("{} of gas", called.report.weight);
//!   # Ok(())
//!   # }
//!   ```
//! - [`SandboxNode`] shares it between clients: subxt without a socket ([`SandboxNode::rpc_client`]) or by websocket
//!   ([`SandboxNode::serve_ws`]), while the test holds the clock.
//!
//! The runtime runs natively, not as Wasm. That is the same code with the same weights; only a fault of the Wasm build
//! itself (`scripts/build-runtime.sh`) cannot show here.

mod chain;
mod client;
mod config;
mod contracts;
pub mod dev;
mod error;
mod node;
mod pool;
mod rpc;
mod state;
mod ws;

pub use chain::{AccountInfo, Applied, BlockInfo, Draft, ExtrinsicReport, Sandbox, Snapshot};
pub use client::SandboxRpc;
pub use config::{Finality, SandboxConfig, Sealing, TimeMode};
pub use contracts::{
    call_of, signed_deposit, Called, Code, ContractEvent, ContractExecResult, ContractInstantiateResult,
    Instantiated,
};
pub use error::{dispatch_error_name, SandboxError};
pub use node::SandboxNode;
pub use pool::TransactionStatus;
pub use ws::WsServer;

pub use dev::account_of;
pub use polkadot_sdk::{
    frame_support::weights::Weight,
    sp_core::{sr25519, Pair, H256},
    sp_runtime::{AccountId32, DispatchError},
};
pub use poq_runtime::{self as runtime, EventRecord, RuntimeCall, RuntimeEvent, MILLIUNIT, UNIT};
