//! `system_*`.

use jsonrpsee::{core::RegisterMethodError, RpcModule};
use poq_runtime::{AccountId, Hash};
use serde_json::json;

use super::{with, Hex};
use crate::{chain::decode, node::Shared, SandboxError};

pub(super) fn register(module: &mut RpcModule<Shared>) -> Result<(), RegisterMethodError> {
    module.register_method("system_name", |_, _, _| "PoQ sandbox")?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method("system_chain", |_, _, _| "Development")?;
    module.register_method("system_chainType", |_, shared, _| {
        shared.with(|sandbox| sandbox.config().chain_type)
    })?;
    module.register_method(
        "system_properties",
        |_, _, _| json!({ "ss58Format": 42, "tokenDecimals": 12, "tokenSymbol": "UNIT" }),
    )?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;
    module.register_method("system_peers", |_, _, _| json!([]))?;
    module.register_method("system_nodeRoles", |_, _, _| json!(["Authority"]))?;
    module.register_method("system_syncState", |_, shared, _| {
        let best = shared.with(|sandbox| sandbox.best().number);
        json!({ "startingBlock": 0, "currentBlock": best, "highestBlock": best })
    })?;

    module.register_method("system_accountNextIndex", |params, shared, _| {
        let account: AccountId = params.sequence().next()?;
        with(shared, |sandbox| sandbox.next_nonce(&account))
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;

    // The runtime's answer to applying the extrinsic in the next block, encoded.
    module.register_method("system_dryRun", |params, shared, _| {
        let mut sequence = params.sequence();
        let bytes: Hex = sequence.next()?;
        let _at: Option<Hash> = sequence.optional_next()?;
        with(shared, |sandbox| {
            let extrinsic: poq_runtime::UncheckedExtrinsic =
                decode("the extrinsic", &bytes.0).map_err(|error| match error {
                    SandboxError::Decode { source, .. } => SandboxError::BadExtrinsic(source),
                    other => other,
                })?;
            let outcome = sandbox.query_next_block(|| poq_runtime::Executive::apply_extrinsic(extrinsic))?;
            Ok(Hex(parity_scale_codec::Encode::encode(&outcome)))
        })
    })?;
    Ok(())
}
