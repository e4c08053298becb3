//! Typed client of the Proof-of-Quality contract, on any `pallet-contracts` chain.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | [`Client`]: a connection that survives its node, blocks, balances |
//! | [`view`] | [`View`]: every query of the contract, at one block |
//! | [`messages`] | every message of the contract, typed by the contract's own call builders |
//! | [`submit`] | [`Submitter`]: dry run, nonce, signature, inclusion, outcome |
//! | [`pool`] | staking pools: every query and message of the pool contract |
//! | [`events`] | [`PoqEvent`]: what the contract says happened |
//! | [`cost`] | what a call would cost, before it is sent |
//! | [`deploy`] | putting the contract on a chain |
//! | [`signer`] | [`Keys`]: an account's secret, and the files that hold one |
//! | [`url`] | [`NodeUrl`]: a node's address, never shown with its key |
//! | [`stake`] | what taking stake out does |
//! | [`commit`] | the hashes of commitments |
//! | [`explain`] | replaying how a task ended from what the chain shows |
//! | [`json`] | a JSON form for everything above |
//! | [`error`] | [`Error`] and its [`Class`] |
//!
//! Every call of the chain is one of the node's plain JSON-RPC methods (`state_call`, `author_submitAndWatchExtrinsic`, …), which
//! every Substrate node has served for years; pallets, calls and events are found by name in the metadata. So one build
//! of this crate talks to `substrate-contracts-node` 0.42 and to nodes on today's SDK.

pub mod account;
pub mod client;
pub mod commit;
pub mod cost;
pub mod deploy;
mod dry_run;
pub mod error;
pub mod events;
pub mod explain;
pub mod json;
mod keyfile;
pub mod messages;
pub mod options;
pub mod pool;
mod redraw;
mod replay;
mod runtime;
pub mod signer;
pub mod stake;
pub mod submit;
mod transport;
pub mod types;
pub mod url;
pub mod view;

pub use account::{to_account32, to_ink, InkAccountId};
pub use client::{AccountInfo, At, Block, ChainInfo, Client, Funds, Hold, Upcoming};
pub use commit::Network;
pub use cost::{Cost, Quote};
pub use dry_run::{Deposit, Weight};
pub use error::{Class, Error};
pub use events::{Emitted, FinalEvent, PoqEvent, Said};
pub use messages::Message;
pub use options::{Confirm, Mortality, Options};
pub use poq_contract::errors::Error as ContractError;
pub use poq_core as core;
pub use signer::{Keys, KeysError};
pub use submit::{DryRun, Receipt, SendOptions, Submitter};
pub use subxt::utils::{AccountId32, H256};
pub use subxt_rpcs::RpcClient;
pub use url::{redacted, NodeUrl, NodeUrls};
pub use view::View;
