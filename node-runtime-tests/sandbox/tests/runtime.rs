//! The runtime's settings are those of substrate-contracts-node 0.42, and its genesis preset works.

#![allow(clippy::unwrap_used)]

use parity_scale_codec::{Decode, Encode};
use polkadot_sdk::sp_runtime::MultiAddress;
use polkadot_sdk::{
    frame_support::{
        dispatch::DispatchClass,
        traits::{Contains, Get, PalletInfoAccess},
    },
    frame_system, pallet_balances, pallet_contracts, pallet_timestamp, sp_genesis_builder,
};
use poq_sandbox::{
    account_of, dev,
    runtime::{
        self, configs::RuntimeBlockWeights, Balances, BalancesCall, Contracts, Runtime, RuntimeCall, Sudo,
        System, SystemCall, Timestamp, TransactionPayment, Utility,
    },
    Sandbox, MILLIUNIT, UNIT,
};

#[test]
fn deposits_and_limits_are_those_of_a_contracts_node() {
    assert_eq!(<<Runtime as pallet_contracts::Config>::DepositPerItem as Get<u128>>::get(), UNIT / 10);
    assert_eq!(<<Runtime as pallet_contracts::Config>::DepositPerByte as Get<u128>>::get(), MILLIUNIT / 200);
    assert_eq!(<<Runtime as pallet_contracts::Config>::MaxCodeLen as Get<u32>>::get(), 256 * 1024);
    assert_eq!(<<Runtime as pallet_contracts::Config>::MaxStorageKeyLen as Get<u32>>::get(), 128);
    assert!(<<Runtime as pallet_contracts::Config>::UnsafeUnstableInterface as Get<bool>>::get());
    assert!(<Runtime as pallet_contracts::Config>::CodeHashLockupDepositPercent::get().is_zero());
    assert_eq!(<<Runtime as pallet_balances::Config>::ExistentialDeposit as Get<u128>>::get(), MILLIUNIT);
    assert_eq!(<<Runtime as pallet_timestamp::Config>::MinimumPeriod as Get<u64>>::get(), 5);
    assert_eq!(<<Runtime as frame_system::Config>::BlockHashCount as Get<u32>>::get(), 2400);
    assert_eq!(u16::from(<<Runtime as frame_system::Config>::SS58Prefix as Get<u8>>::get()), 42);
    let normal = RuntimeBlockWeights::get().get(DispatchClass::Normal).max_total.unwrap();
    assert_eq!(normal.ref_time(), 1_500_000_000_000, "1.5 s of compute per block for users");
}

#[test]
fn pallets_have_the_indices_of_a_contracts_node() {
    let indices = [
        System::index(),
        Utility::index(),
        Timestamp::index(),
        Balances::index(),
        TransactionPayment::index(),
        Sudo::index(),
        Contracts::index(),
    ];
    assert_eq!(indices, [0, 2, 3, 4, 6, 7, 8]);
}

#[test]
fn a_contract_may_dispatch_nothing_but_a_transfer() {
    type Filter = <Runtime as pallet_contracts::Config>::CallFilter;
    let dest = MultiAddress::Id(account_of(&dev::bob()));
    let transfer = RuntimeCall::Balances(BalancesCall::transfer_allow_death { dest: dest.clone(), value: 1 });
    let transfer_all = RuntimeCall::Balances(BalancesCall::transfer_all { dest, keep_alive: false });
    let remark = RuntimeCall::System(SystemCall::remark { remark: vec![] });
    assert!(Filter::contains(&transfer));
    assert!(!Filter::contains(&transfer_all));
    assert!(!Filter::contains(&remark));
}

#[test]
fn the_development_preset_builds_the_sandboxs_genesis() {
    let chain = Sandbox::new().unwrap();
    let at = chain.best().hash;
    let call = |function: &str, arguments: &[u8]| chain.runtime_call(at, function, arguments).unwrap();

    let names = Vec::<String>::decode(&mut &call("GenesisBuilder_preset_names", &[])[..]).unwrap();
    assert_eq!(names, [sp_genesis_builder::DEV_RUNTIME_PRESET]);
    let patch = call("GenesisBuilder_get_preset", &Some("development".to_owned()).encode());
    let patch: serde_json::Value =
        serde_json::from_slice(&Option::<Vec<u8>>::decode(&mut &patch[..]).unwrap().unwrap()).unwrap();
    assert_eq!(patch["balances"]["balances"].as_array().unwrap().len(), 12);

    // A chain specification merges the preset into the defaults; so does this.
    let defaults = call("GenesisBuilder_get_preset", &None::<String>.encode());
    let mut config: serde_json::Value =
        serde_json::from_slice(&Option::<Vec<u8>>::decode(&mut &defaults[..]).unwrap().unwrap()).unwrap();
    config["balances"]["balances"] = patch["balances"]["balances"].clone();
    config["sudo"] = patch["sudo"].clone();
    let config: runtime::RuntimeGenesisConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.sudo.key, Some(account_of(&dev::alice())));
    for (account, amount) in config.balances.balances {
        assert_eq!(amount, 1 << 60);
        assert_eq!(chain.balance(&account).unwrap(), amount);
    }
}

#[test]
fn metadata_comes_in_the_versions_that_clients_know() {
    let chain = Sandbox::new().unwrap();
    for version in [14, 15, 16] {
        let metadata = chain.metadata(version).unwrap().unwrap();
        assert_eq!(&metadata[..4], b"meta");
        assert_eq!(u32::from(metadata[4]), version);
    }
    assert!(chain.metadata(99).unwrap().is_none());
}
