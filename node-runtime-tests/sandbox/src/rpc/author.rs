//! `author_*` and `payment_*`.

use std::sync::Arc;

use jsonrpsee::{core::RegisterMethodError, types::Params, RpcModule};
use parity_scale_codec::Encode;
use polkadot_sdk::pallet_transaction_payment::{FeeDetails, RuntimeDispatchInfo};
use poq_runtime::{Balance, Hash};
use serde_json::json;

use super::{into_rpc_error, or_best, send, with, Answer, Hex};
use crate::{chain::decode, node::Shared, pool::TransactionStatus};

pub(super) fn register(module: &mut RpcModule<Shared>) -> Result<(), RegisterMethodError> {
    module.register_method("author_submitExtrinsic", |params, shared, _| {
        let bytes: Hex = params.sequence().next()?;
        with(shared, |sandbox| sandbox.submit(bytes.0))
    })?;
    module.register_method("author_pendingExtrinsics", |_, shared, _| {
        shared.with(|sandbox| sandbox.pending_extrinsics().into_iter().map(Hex).collect::<Vec<_>>())
    })?;

    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, shared: Arc<Shared>, _| async move {
            let submitted = params.sequence().next::<Hex>().and_then(|bytes| {
                shared.with(|sandbox| sandbox.submit_and_watch(bytes.0)).map_err(into_rpc_error)
            });
            let mut generation = shared.generation();
            drop(shared);
            let (_, mut statuses) = match submitted {
                Ok(submitted) => submitted,
                Err(error) => {
                    pending.reject(error).await;
                    return;
                }
            };
            let Ok(sink) = pending.accept().await else { return };
            loop {
                let status = tokio::select! {
                    status = statuses.recv() => status,
                    _ = generation.changed() => return,
                    () = sink.closed() => return,
                };
                let Some(status) = status else { return };
                let last = !matches!(
                    status,
                    TransactionStatus::Future | TransactionStatus::Ready | TransactionStatus::InBlock(_)
                );
                if !send(&sink, &status).await || last {
                    return;
                }
            }
        },
    )?;

    module.register_method("payment_queryInfo", |params, shared, _| {
        let encoded = fee_query(&params, shared, "TransactionPaymentApi_query_info")?;
        decode::<RuntimeDispatchInfo<Balance>>("the dispatch info", &encoded).map_err(into_rpc_error)
    })?;
    module.register_method("payment_queryFeeDetails", |params, shared, _| {
        let encoded = fee_query(&params, shared, "TransactionPaymentApi_query_fee_details")?;
        let details: FeeDetails<Balance> = decode("the fee details", &encoded).map_err(into_rpc_error)?;
        Answer::Ok(json!({
            "inclusionFee": details.inclusion_fee.map(|fee| json!({
                "baseFee": format!("{:#x}", fee.base_fee),
                "lenFee": format!("{:#x}", fee.len_fee),
                "adjustedWeightFee": format!("{:#x}", fee.adjusted_weight_fee),
            })),
        }))
    })?;
    Ok(())
}

/// Calls a runtime API function that takes an extrinsic and its length.
fn fee_query(params: &Params<'_>, shared: &Shared, function: &str) -> Answer<Vec<u8>> {
    let mut sequence = params.sequence();
    let extrinsic: Hex = sequence.next()?;
    let at: Option<Hash> = sequence.optional_next()?;
    let mut arguments = extrinsic.0;
    (arguments.len() as u32).encode_to(&mut arguments);
    with(shared, |sandbox| sandbox.runtime_call(or_best(sandbox, at), function, &arguments))
}
