//! The JSON-RPC of a Substrate node over a sandbox: the methods that subxt's legacy backend, polkadot.js and
//! `cargo-contract` use, with the error codes of the real ones.

mod author;
mod chain;
mod state;
mod system;

use std::sync::Arc;

use jsonrpsee::{
    core::{server::SubscriptionSink, RegisterMethodError},
    server::PendingSubscriptionSink,
    types::{ErrorObjectOwned, Params},
    Methods, RpcModule,
};
use polkadot_sdk::sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use poq_runtime::Hash;
use serde::Serialize;
use tokio::sync::broadcast::{error::RecvError, Receiver};

use crate::{
    chain::{ChainEvent, Sandbox},
    node::Shared,
    SandboxError,
};

/// What a method returns.
type Answer<T> = Result<T, ErrorObjectOwned>;

/// All methods.
pub(crate) fn module(shared: Arc<Shared>) -> Result<Methods, SandboxError> {
    build(shared).map_err(|error| SandboxError::Config(format!("cannot register an RPC method: {error}")))
}

fn build(shared: Arc<Shared>) -> Result<Methods, RegisterMethodError> {
    let mut module = RpcModule::from_arc(shared);
    author::register(&mut module)?;
    chain::register(&mut module)?;
    state::register(&mut module)?;
    system::register(&mut module)?;
    let mut names: Vec<&'static str> = module.method_names().chain(["rpc_methods"]).collect();
    names.sort_unstable();
    module.register_method("rpc_methods", move |_, _, _| serde_json::json!({ "methods": names }))?;
    Ok(module.into())
}

/// Runs `f` on the chain, with the errors of a node.
fn with<T>(shared: &Shared, f: impl FnOnce(&mut Sandbox) -> Result<T, SandboxError>) -> Answer<T> {
    shared.with(f).map_err(into_rpc_error)
}

/// The hash given, or the best block's.
fn or_best(sandbox: &Sandbox, at: Option<Hash>) -> Hash {
    at.unwrap_or_else(|| sandbox.best().hash)
}

/// Codes and texts as sc-rpc has them, so that clients sort errors here as they do with a node.
fn into_rpc_error(error: SandboxError) -> ErrorObjectOwned {
    let owned = |code, message: String, data: Option<String>| ErrorObjectOwned::owned(code, message, data);
    match error {
        SandboxError::BadExtrinsic(source) => {
            owned(1001, format!("Extrinsic has invalid format: {source}"), None)
        }
        SandboxError::InvalidTransaction(TransactionValidityError::Invalid(reason)) => {
            let data = match reason {
                InvalidTransaction::Custom(code) => format!("Custom error: {code}"),
                other => <&'static str>::from(other).to_owned(),
            };
            owned(1010, "Invalid Transaction".to_owned(), Some(data))
        }
        SandboxError::InvalidTransaction(TransactionValidityError::Unknown(reason)) => {
            owned(1011, "Unknown Transaction Validity".to_owned(), Some(format!("{reason:?}")))
        }
        SandboxError::AlreadyInPool(hash) => {
            owned(1013, "Transaction Already Imported".to_owned(), Some(format!("{hash:?}")))
        }
        SandboxError::TooLowPriority { old, new } => owned(
            1014,
            format!("Priority is too low: ({old} vs {new})"),
            Some(
                "The transaction has too low priority to replace another transaction already in the pool."
                    .to_owned(),
            ),
        ),
        SandboxError::UnknownBlock(hash) => owned(
            4003,
            format!("Client error: UnknownBlock: Header was not found in the database: {hash:?}"),
            None,
        ),
        SandboxError::StatePruned { hash, .. } => {
            owned(4003, format!("Client error: UnknownBlock: State already discarded for {hash:?}"), None)
        }
        SandboxError::UnknownRuntimeApi(_)
        | SandboxError::RuntimePanic { .. }
        | SandboxError::Decode { .. }
        | SandboxError::State(_) => owned(4003, format!("Client error: Execution failed: {error}"), None),
        other => owned(jsonrpsee::types::error::INTERNAL_ERROR_CODE, other.to_string(), None),
    }
}

fn invalid_params(message: impl std::fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(jsonrpsee::types::error::INVALID_PARAMS_CODE, message.to_string(), None::<()>)
}

/// `0x` and hexadecimal digits, as bytes.
#[derive(Clone, Debug, serde::Deserialize, Serialize)]
#[serde(transparent)]
struct Hex(#[serde(with = "polkadot_sdk::sp_core::bytes")] Vec<u8>);

/// A number, or the same in hexadecimal text.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum NumberOrHex {
    Number(u64),
    Hex(String),
}

impl NumberOrHex {
    fn value(self) -> Answer<u64> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Hex(text) => text
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| invalid_params(format!("`{text}` is not a hexadecimal number"))),
        }
    }
}

/// The optional block hash that is a method's only parameter.
fn optional_hash(params: &Params<'_>) -> Answer<Option<Hash>> {
    params.sequence().optional_next()
}

/// Sends `message`; `false` when the subscriber is gone.
async fn send(sink: &SubscriptionSink, message: &impl Serialize) -> bool {
    match serde_json::value::to_raw_value(message) {
        Ok(message) => sink.send(message).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "cannot serialise a notification");
            false
        }
    }
}

/// Serves a subscription: first what `first` makes of the chain, then what `next` makes of each of its events.
async fn follow<T: Serialize>(
    pending: PendingSubscriptionSink,
    shared: Arc<Shared>,
    first: impl FnOnce(&mut Sandbox) -> Option<T>,
    mut next: impl FnMut(ChainEvent) -> Option<T>,
) {
    let mut generation = shared.generation();
    // Before the subscription is confirmed: a block sealed right after the confirmation must not be missed.
    let (initial, mut heads) = shared.with_heads(first);
    // The subscription alone must not keep the chain alive.
    drop(shared);
    let Ok(sink) = pending.accept().await else { return };
    if let Some(initial) = initial {
        if !send(&sink, &initial).await {
            return;
        }
    }
    loop {
        let event = tokio::select! {
            event = receive(&mut heads) => event,
            _ = generation.changed() => return,
            () = sink.closed() => return,
        };
        let Some(event) = event else { return };
        if let Some(message) = next(event) {
            if !send(&sink, &message).await {
                return;
            }
        }
    }
}

/// The next event; skips what a slow subscriber has missed.
async fn receive(heads: &mut Receiver<ChainEvent>) -> Option<ChainEvent> {
    loop {
        match heads.recv().await {
            Ok(event) => return Some(event),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a subscriber fell behind"),
            Err(RecvError::Closed) => return None,
        }
    }
}
