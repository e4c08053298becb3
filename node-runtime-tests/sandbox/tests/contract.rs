//! Contracts in the sandbox: upload, instantiate, call, revert, events, gas and deposits.

#![allow(clippy::unwrap_used)]

mod common;

use common::{probe, FLIP, GET, NOW, REVERT, TRAP};
use poq_sandbox::{
    account_of, dev, dispatch_error_name, signed_deposit, Code, Sandbox, SandboxError, Weight, UNIT,
};

#[test]
fn upload_instantiate_and_call() {
    let mut chain = Sandbox::new().unwrap();
    let (code_hash, upload) = chain.upload_code(&dev::alice(), probe()).unwrap();
    assert_eq!(upload.block.number, 1);
    let contract = chain.instantiate(&dev::alice(), 0, Code::Existing(code_hash), vec![], vec![1]).unwrap();
    assert_eq!(contract.report.block.number, 2);

    let flipped = chain.call(&dev::bob(), &contract.address, 0, vec![FLIP]).unwrap();
    assert_eq!(flipped.data(), [1]);
    let block = flipped.report.block;
    assert!(flipped.report.weight.ref_time() > 0);
    assert!(block.weight.all_gte(flipped.report.weight));
    let events = chain.contract_events(block.hash, &contract.address).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].data, [1]);

    let read = chain.dry_call(&account_of(&dev::eve()), &contract.address, 0, None, None, vec![GET]).unwrap();
    assert_eq!(read.result.unwrap().data, [1]);
    assert_eq!(chain.best(), block, "a dry run seals nothing");
}

#[test]
fn a_second_instance_of_the_same_code_needs_another_salt() {
    let mut chain = Sandbox::new().unwrap();
    let first = chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![1]).unwrap();
    let again = chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![1]);
    assert!(matches!(again, Err(SandboxError::DryRun { .. })), "{again:?}");
    let second = chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![2]).unwrap();
    assert_ne!(first.address, second.address);
}

#[test]
fn a_revert_undoes_and_is_told_apart_from_a_trap() {
    let mut chain = Sandbox::new().unwrap();
    let contract =
        chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![]).unwrap().address;
    let before = chain.best();
    match chain.call(&dev::bob(), &contract, 0, vec![REVERT]) {
        Err(SandboxError::Reverted { data, .. }) => assert_eq!(data, [0xff]),
        other => panic!("{other:?}"),
    }
    match chain.call(&dev::bob(), &contract, 0, vec![TRAP]) {
        Err(SandboxError::DryRun { error, .. }) => {
            assert_eq!(dispatch_error_name(&error), "Contracts::ContractTrapped");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.best(), before, "nothing is sent that a dry run shows to fail");

    let gas = Weight::from_parts(10_000_000_000, 1_000_000);
    let report = chain.call_with(&dev::bob(), &contract, 0, gas, None, vec![REVERT]).unwrap();
    assert_eq!(dispatch_error_name(&report.result.unwrap_err()), "Contracts::ContractReverted");
    let read = chain.dry_call(&account_of(&dev::bob()), &contract, 0, None, None, vec![GET]).unwrap();
    assert_eq!(read.result.unwrap().data, [0], "the flip before the revert is undone");
}

#[test]
fn too_little_gas_fails_in_the_block() {
    let mut chain = Sandbox::new().unwrap();
    let contract =
        chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![]).unwrap().address;
    let report = chain
        .call_with(&dev::bob(), &contract, 0, Weight::from_parts(1_000, 1_000), None, vec![FLIP])
        .unwrap();
    assert_eq!(dispatch_error_name(&report.result.unwrap_err()), "Contracts::OutOfGas");
}

#[test]
fn a_contract_sees_the_time_in_milliseconds() {
    let mut chain = Sandbox::new().unwrap();
    let contract =
        chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![]).unwrap().address;
    let read = |chain: &Sandbox| {
        let answer = chain.dry_call(&account_of(&dev::bob()), &contract, 0, None, None, vec![NOW]).unwrap();
        u64::from_le_bytes(answer.result.unwrap().data.try_into().unwrap())
    };
    let now = chain.now_ms();
    assert_eq!(read(&chain), now + chain.config().block_time_ms, "a dry run is part of the next block");
    chain.advance_ms(60_000);
    assert_eq!(read(&chain), now + 60_000);
    let called = chain.call(&dev::bob(), &contract, 0, vec![NOW]).unwrap();
    assert_eq!(called.report.block.timestamp_ms, now + 60_000);
    assert_eq!(called.data(), (now + 60_000).to_le_bytes());
}

#[test]
fn storage_deposits_are_those_of_a_contracts_node() {
    let mut chain = Sandbox::new().unwrap();
    let contract =
        chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![]).unwrap().address;
    let first = chain.call(&dev::bob(), &contract, 0, vec![FLIP]).unwrap();
    let deposit = signed_deposit(&first.dry.storage_deposit);
    // One item (0.1 UNIT) and a few bytes (0.005 MILLIUNIT each).
    assert!(deposit >= UNIT as i128 / 10 && deposit < UNIT as i128 / 10 + 1_000_000_000, "{deposit}");
    let second = chain.call(&dev::bob(), &contract, 0, vec![FLIP]).unwrap();
    assert_eq!(signed_deposit(&second.dry.storage_deposit), 0, "the item is there already");
}

#[test]
fn code_larger_than_256_kib_is_refused() {
    let mut chain = Sandbox::new().unwrap();
    let mut code = probe();
    // A custom section of the size of the limit.
    let payload = vec![0u8; 256 * 1024];
    code.push(0);
    let mut length = payload.len() as u32 + 2;
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        code.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    code.extend([1, b'x']);
    code.extend(payload);
    let refused = chain.upload_code(&dev::alice(), code);
    assert!(
        matches!(refused, Err(SandboxError::DryRun { .. } | SandboxError::RuntimePanic { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_old_block_keeps_the_contracts_old_state() {
    let mut chain = Sandbox::new().unwrap();
    let contract =
        chain.instantiate(&dev::alice(), 0, Code::Upload(probe()), vec![], vec![]).unwrap().address;
    let before = chain.best().hash;
    chain.call(&dev::bob(), &contract, 0, vec![FLIP]).unwrap();
    let get = |at| {
        chain
            .query(at, || {
                poq_sandbox::runtime::Contracts::bare_call(
                    account_of(&dev::bob()),
                    contract.clone(),
                    0,
                    Weight::from_parts(10_000_000_000, 1_000_000),
                    None,
                    vec![GET],
                    polkadot_sdk::pallet_contracts::DebugInfo::Skip,
                    polkadot_sdk::pallet_contracts::CollectEvents::Skip,
                    polkadot_sdk::pallet_contracts::Determinism::Enforced,
                )
            })
            .unwrap()
            .result
            .unwrap()
            .data
    };
    assert_eq!(get(before), [0]);
    assert_eq!(get(chain.best().hash), [1]);
}
