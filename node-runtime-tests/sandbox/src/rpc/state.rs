//! `state_*` and `childstate_*`.

use std::sync::Arc;

use jsonrpsee::{core::RegisterMethodError, types::Params, RpcModule};
use polkadot_sdk::{sp_core::OpaqueMetadata, sp_crypto_hashing::blake2_256, sp_version::RuntimeVersion};
use poq_runtime::Hash;
use serde::Serialize;

use super::{follow, invalid_params, optional_hash, or_best, send, with, Answer, Hex};
use crate::{
    chain::{decode, ChainEvent, Sandbox},
    node::Shared,
    SandboxError,
};

/// Most keys that one page may have, as in sc-rpc.
const MAX_PAGE: u32 = 1000;
/// In front of a child trie's id in the top trie.
const CHILD_PREFIX: &[u8] = b":child_storage:default:";

/// Values that a block changed.
#[derive(Clone, Serialize)]
struct StorageChangeSet {
    block: Hash,
    changes: Vec<(Hex, Option<Hex>)>,
}

pub(super) fn register(module: &mut RpcModule<Shared>) -> Result<(), RegisterMethodError> {
    module.register_method("state_getStorage", |params, shared, _| {
        value(&params, shared).map(|value| value.map(Hex))
    })?;
    module.register_method("state_getStorageHash", |params, shared, _| {
        value(&params, shared).map(|value| value.map(|value| Hash::from(blake2_256(&value))))
    })?;
    module.register_method("state_getStorageSize", |params, shared, _| {
        value(&params, shared).map(|value| value.map(|value| value.len() as u64))
    })?;
    for (alias, method) in [
        ("state_getStorageAt", "state_getStorage"),
        ("state_getStorageHashAt", "state_getStorageHash"),
        ("state_getStorageSizeAt", "state_getStorageSize"),
    ] {
        module.register_alias(alias, method)?;
    }

    module.register_method("state_getKeysPaged", |params, shared, _| {
        let mut sequence = params.sequence();
        let prefix: Option<Hex> = sequence.optional_next()?;
        let count: u32 = sequence.next()?;
        let start: Option<Hex> = sequence.optional_next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        keys(shared, None, prefix, count, start, at)
    })?;
    module.register_alias("state_getKeysPagedAt", "state_getKeysPaged")?;

    module.register_method("childstate_getKeysPaged", |params, shared, _| {
        let mut sequence = params.sequence();
        let child: Hex = sequence.next()?;
        let prefix: Option<Hex> = sequence.optional_next()?;
        let count: u32 = sequence.next()?;
        let start: Option<Hex> = sequence.optional_next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        keys(shared, Some(child_id(&child)?), prefix, count, start, at)
    })?;
    module.register_method("childstate_getStorage", |params, shared, _| {
        let mut sequence = params.sequence();
        let child: Hex = sequence.next()?;
        let key: Hex = sequence.next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        let child = child_id(&child)?;
        with(shared, |sandbox| sandbox.child_storage(or_best(sandbox, at), child, &key.0))
            .map(|value| value.map(Hex))
    })?;
    module.register_method("childstate_getStorageEntries", |params, shared, _| {
        let mut sequence = params.sequence();
        let child: Hex = sequence.next()?;
        let keys: Vec<Hex> = sequence.next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        let child = child_id(&child)?;
        with(shared, |sandbox| {
            let at = or_best(sandbox, at);
            keys.iter()
                .map(|key| sandbox.child_storage(at, child, &key.0).map(|value| value.map(Hex)))
                .collect::<Result<Vec<_>, _>>()
        })
    })?;

    module.register_method("state_queryStorageAt", |params, shared, _| {
        let mut sequence = params.sequence();
        let keys: Vec<Hex> = sequence.next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        with(shared, |sandbox| {
            let at = or_best(sandbox, at);
            Ok(vec![StorageChangeSet { block: at, changes: read_all(sandbox, at, &keys)? }])
        })
    })?;

    module.register_method("state_call", |params, shared, _| {
        let mut sequence = params.sequence();
        let function: String = sequence.next()?;
        let arguments: Hex = sequence.next()?;
        let at: Option<Hash> = sequence.optional_next()?;
        with(shared, |sandbox| sandbox.runtime_call(or_best(sandbox, at), &function, &arguments.0)).map(Hex)
    })?;
    module.register_alias("state_callAt", "state_call")?;

    module.register_method("state_getMetadata", |params, shared, _| {
        let at = optional_hash(&params)?;
        with(shared, |sandbox| {
            let encoded = sandbox.runtime_call(or_best(sandbox, at), "Metadata_metadata", &[])?;
            let metadata: OpaqueMetadata = decode("the runtime's metadata", &encoded)?;
            Ok(Hex(metadata.to_vec()))
        })
    })?;

    module.register_method("state_getRuntimeVersion", |params, shared, _| {
        let at = optional_hash(&params)?;
        with(shared, |sandbox| runtime_version(sandbox, or_best(sandbox, at)))
    })?;
    module.register_alias("chain_getRuntimeVersion", "state_getRuntimeVersion")?;

    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, pending, shared: Arc<Shared>, _| async move {
            follow(
                pending,
                shared,
                |sandbox| runtime_version(sandbox, sandbox.best().hash).ok(),
                // A sandbox never changes its runtime.
                |_| None,
            )
            .await;
        },
    )?;
    module.register_alias("chain_subscribeRuntimeVersion", "state_subscribeRuntimeVersion")?;
    module.register_alias("chain_unsubscribeRuntimeVersion", "state_unsubscribeRuntimeVersion")?;

    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, shared: Arc<Shared>, _| async move {
            let keys = match params.sequence().next::<Vec<Hex>>() {
                Ok(keys) => keys,
                Err(error) => {
                    pending.reject(error).await;
                    return;
                }
            };
            subscribe_storage(pending, shared, keys).await;
        },
    )?;
    Ok(())
}

/// Tells the values of `keys`, then at each new block those that it changed.
async fn subscribe_storage(
    pending: jsonrpsee::server::PendingSubscriptionSink,
    shared: Arc<Shared>,
    keys: Vec<Hex>,
) {
    let mut generation = shared.generation();
    let (initial, mut heads) = shared.with_heads(|sandbox| {
        let block = sandbox.best().hash;
        read_all(sandbox, block, &keys).map(|changes| StorageChangeSet { block, changes })
    });
    // Weak: the subscription alone must not keep the chain alive.
    let shared = Arc::downgrade(&shared);
    let mut last = match initial {
        Ok(initial) => initial,
        Err(error) => {
            pending.reject(super::into_rpc_error(error)).await;
            return;
        }
    };
    let Ok(sink) = pending.accept().await else { return };
    if !send(&sink, &last).await {
        return;
    }
    loop {
        let event = tokio::select! {
            event = super::receive(&mut heads) => event,
            _ = generation.changed() => return,
            () = sink.closed() => return,
        };
        let header = match event {
            Some(ChainEvent::NewBest(header)) => header,
            Some(ChainEvent::Finalized(_)) => continue,
            None => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        let block = header.hash();
        let Ok(now) = shared.with(|sandbox| read_all(sandbox, block, &keys)) else { continue };
        drop(shared);
        let changes: Vec<_> = now
            .iter()
            .zip(&last.changes)
            .filter(|((_, new), (_, old))| new.as_ref().map(|hex| &hex.0) != old.as_ref().map(|hex| &hex.0))
            .map(|(change, _)| change.clone())
            .collect();
        last = StorageChangeSet { block, changes: now };
        if !changes.is_empty() && !send(&sink, &StorageChangeSet { block, changes }).await {
            return;
        }
    }
}

fn runtime_version(sandbox: &Sandbox, at: Hash) -> Result<RuntimeVersion, SandboxError> {
    decode("the runtime's version", &sandbox.runtime_call(at, "Core_version", &[])?)
}

fn value(params: &Params<'_>, shared: &Shared) -> Answer<Option<Vec<u8>>> {
    let mut sequence = params.sequence();
    let key: Hex = sequence.next()?;
    let at: Option<Hash> = sequence.optional_next()?;
    with(shared, |sandbox| sandbox.storage(or_best(sandbox, at), &key.0))
}

fn read_all(sandbox: &Sandbox, at: Hash, keys: &[Hex]) -> Result<Vec<(Hex, Option<Hex>)>, SandboxError> {
    keys.iter().map(|key| Ok((key.clone(), sandbox.storage(at, &key.0)?.map(Hex)))).collect()
}

fn keys(
    shared: &Shared,
    child: Option<&[u8]>,
    prefix: Option<Hex>,
    count: u32,
    start: Option<Hex>,
    at: Option<Hash>,
) -> Answer<Vec<Hex>> {
    if count > MAX_PAGE {
        return Err(invalid_params(format!("count exceeds maximum value. value: {count}, max: {MAX_PAGE}")));
    }
    let prefix = prefix.map(|prefix| prefix.0).unwrap_or_default();
    let start = start.as_ref().map(|start| &start.0[..]);
    with(shared, |sandbox| sandbox.keys(or_best(sandbox, at), child, &prefix, start, count as usize))
        .map(|keys| keys.into_iter().map(Hex).collect())
}

/// The id of a child trie, from its key in the top trie.
fn child_id(key: &Hex) -> Answer<&[u8]> {
    key.0
        .strip_prefix(CHILD_PREFIX)
        .ok_or_else(|| invalid_params("a child storage key must start with `:child_storage:default:`"))
}
