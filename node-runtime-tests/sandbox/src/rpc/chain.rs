//! `chain_*` and the methods that seal and finalise by hand.

use std::sync::Arc;

use jsonrpsee::{core::RegisterMethodError, RpcModule};
use poq_runtime::Hash;
use serde_json::json;

use super::{follow, invalid_params, optional_hash, with, Answer, Hex, NumberOrHex};
use crate::{chain::ChainEvent, node::Shared, SandboxError};

pub(super) fn register(module: &mut RpcModule<Shared>) -> Result<(), RegisterMethodError> {
    module.register_method("chain_getHeader", |params, shared, _| {
        let at = optional_hash(&params)?;
        shared.with(|sandbox| {
            let block = match at {
                Some(hash) => sandbox.stored(hash).ok(),
                None => Some(sandbox.best_block()),
            };
            Answer::Ok(block.map(|block| (*block.header).clone()))
        })
    })?;

    module.register_method("chain_getBlock", |params, shared, _| {
        let at = optional_hash(&params)?;
        shared.with(|sandbox| {
            let block = match at {
                Some(hash) => sandbox.stored(hash).ok(),
                None => Some(sandbox.best_block()),
            };
            Answer::Ok(block.map(|block| {
                let extrinsics: Vec<Hex> = block.body.iter().cloned().map(Hex).collect();
                json!({
                    "block": { "header": *block.header, "extrinsics": extrinsics },
                    "justifications": null,
                })
            }))
        })
    })?;

    module.register_method("chain_getBlockHash", |params, shared, _| {
        // A number, a list of numbers, or nothing.
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Numbers {
            One(NumberOrHex),
            Many(Vec<NumberOrHex>),
        }
        let hash_of = |number: NumberOrHex| -> Answer<Option<Hash>> {
            let number = u32::try_from(number.value()?)
                .map_err(|_| invalid_params("the block number must be at most 4294967295"))?;
            Ok(shared.with(|sandbox| sandbox.block_hash(number)))
        };
        match params.sequence().optional_next::<Numbers>()? {
            None => Answer::Ok(json!(shared.with(|sandbox| sandbox.best().hash))),
            Some(Numbers::One(number)) => Ok(json!(hash_of(number)?)),
            Some(Numbers::Many(numbers)) => {
                Ok(json!(numbers.into_iter().map(hash_of).collect::<Result<Vec<_>, _>>()?))
            }
        }
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;

    module.register_method("chain_getFinalizedHead", |_, shared, _| {
        Answer::Ok(shared.with(|sandbox| sandbox.finalized().hash))
    })?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;

    for (name, notification, unsubscribe) in [
        ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads"),
        // There are no forks: every head is a best head.
        ("chain_subscribeAllHeads", "chain_allHead", "chain_unsubscribeAllHeads"),
    ] {
        module.register_subscription(
            name,
            notification,
            unsubscribe,
            |_, pending, shared: Arc<Shared>, _| async move {
                follow(
                    pending,
                    shared,
                    |sandbox| Some(sandbox.best_block().header.clone()),
                    |event| match event {
                        ChainEvent::NewBest(header) => Some(header),
                        ChainEvent::Finalized(_) => None,
                    },
                )
                .await;
            },
        )?;
    }
    module.register_alias("chain_subscribeNewHead", "chain_subscribeNewHeads")?;
    module.register_alias("chain_unsubscribeNewHead", "chain_unsubscribeNewHeads")?;

    module.register_subscription(
        "chain_subscribeFinalizedHeads",
        "chain_finalizedHead",
        "chain_unsubscribeFinalizedHeads",
        |_, pending, shared: Arc<Shared>, _| async move {
            follow(
                pending,
                shared,
                |sandbox| Some(sandbox.finalized_block().header.clone()),
                |event| match event {
                    ChainEvent::Finalized(header) => Some(header),
                    ChainEvent::NewBest(_) => None,
                },
            )
            .await;
        },
    )?;
    module.register_alias("chain_subscribeFinalisedHeads", "chain_subscribeFinalizedHeads")?;
    module.register_alias("chain_unsubscribeFinalisedHeads", "chain_unsubscribeFinalizedHeads")?;

    // As a node with manual seal has it: (create_empty, finalize, parent_hash).
    module.register_method("engine_createBlock", |params, shared, _| {
        let mut sequence = params.sequence();
        let create_empty: bool = sequence.next()?;
        let finalize: bool = sequence.next()?;
        with(shared, |sandbox| {
            if !create_empty && sandbox.pending_extrinsics().is_empty() {
                return Err(SandboxError::Config(
                    "the pool is empty and an empty block was not wanted".into(),
                ));
            }
            let block = sandbox.new_block()?;
            if finalize {
                sandbox.finalize_to(block.number);
            }
            Ok(json!({ "hash": block.hash, "aux": {
                "header_only": false,
                "clear_justification_requests": false,
                "needs_justification": false,
                "bad_justification": false,
                "is_new_best": true,
            } }))
        })
    })?;
    module.register_method("engine_finalizeBlock", |params, shared, _| {
        let hash: Hash = params.sequence().next()?;
        with(shared, |sandbox| {
            let number = sandbox.block_info(hash)?.number;
            sandbox.finalize_to(number);
            Ok(true)
        })
    })?;

    // Time under control, for other processes: (milliseconds); answers with the timestamp of the block that it seals.
    module.register_method("sandbox_advanceTime", |params, shared, _| {
        let ms: u64 = params.sequence().next()?;
        with(shared, |sandbox| {
            sandbox.advance_ms(ms);
            Ok(sandbox.new_block()?.timestamp_ms)
        })
    })?;
    Ok(())
}
