//! The chains that the node knows.

use polkadot_sdk::sp_genesis_builder::DEV_RUNTIME_PRESET;
use sc_chain_spec::Properties;
use sc_service::{ChainType, GenericChainSpec};

/// The chain specification.
pub(crate) type ChainSpec = GenericChainSpec;

/// The runtime that `build.rs` found; empty if there was none.
const RUNTIME_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/poq_runtime.wasm"));

/// The development chain: Alice to Ferdie and their stashes endowed, Alice is sudo.
pub(crate) fn development() -> Result<ChainSpec, String> {
    if RUNTIME_WASM.is_empty() {
        return Err(
            "this node was built without a runtime: build it with scripts/build-node.sh, or give it a chain \
                    specification that contains one (--chain FILE)"
                .to_owned(),
        );
    }
    let mut properties = Properties::new();
    properties.insert("ss58Format".into(), 42.into());
    properties.insert("tokenDecimals".into(), 12.into());
    properties.insert("tokenSymbol".into(), "UNIT".into());
    Ok(ChainSpec::builder(RUNTIME_WASM, None)
        .with_name("Development")
        .with_id("dev")
        .with_chain_type(ChainType::Development)
        .with_properties(properties)
        .with_genesis_config_preset_name(DEV_RUNTIME_PRESET)
        .build())
}
