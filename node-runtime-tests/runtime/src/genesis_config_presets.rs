//! Genesis states that the runtime itself knows.

use alloc::{string::ToString, vec, vec::Vec};

use polkadot_sdk::*;

use frame_support::build_struct_json_patch;
use serde_json::Value;
use sp_genesis_builder::PresetId;
use sp_keyring::Sr25519Keyring;

use crate::{AccountId, Balance, BalancesConfig, RuntimeGenesisConfig, SudoConfig};

/// What every account of the development genesis starts with: 2^60, as on a substrate-contracts-node (about 1.15
/// million tokens).
pub const DEV_ENDOWMENT: Balance = 1 << 60;

/// The accounts that the development genesis endows: Alice to Ferdie, and their stashes.
pub fn dev_accounts() -> Vec<AccountId> {
    use Sr25519Keyring::*;
    [
        Alice,
        AliceStash,
        Bob,
        BobStash,
        Charlie,
        CharlieStash,
        Dave,
        DaveStash,
        Eve,
        EveStash,
        Ferdie,
        FerdieStash,
    ]
    .into_iter()
    .map(|key| key.to_account_id())
    .collect()
}

/// Genesis with the given balances and sudo key.
pub fn genesis(balances: Vec<(AccountId, Balance)>, sudo: AccountId) -> Value {
    build_struct_json_patch!(RuntimeGenesisConfig {
        balances: BalancesConfig { balances },
        sudo: SudoConfig { key: Some(sudo) },
    })
}

/// The development genesis: [`dev_accounts`] endowed, Alice is sudo.
pub fn development() -> Value {
    genesis(
        dev_accounts().into_iter().map(|account| (account, DEV_ENDOWMENT)).collect(),
        Sr25519Keyring::Alice.to_account_id(),
    )
}

/// The JSON of the preset `id`, if there is such a preset.
pub fn get_preset(id: &PresetId) -> Option<Vec<u8>> {
    (id.as_str() == sp_genesis_builder::DEV_RUNTIME_PRESET).then(|| development().to_string().into_bytes())
}

/// Names of all presets.
pub fn preset_names() -> Vec<PresetId> {
    vec![PresetId::from(sp_genesis_builder::DEV_RUNTIME_PRESET)]
}
