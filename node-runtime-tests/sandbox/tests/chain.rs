//! The chain itself: blocks, time, pool, states, finality, snapshots.

#![allow(clippy::unwrap_used)]

use polkadot_sdk::sp_runtime::{
    traits::Header as _, transaction_validity::InvalidTransaction, DispatchError, MultiAddress,
};
use poq_runtime::{Balances, BalancesCall, RuntimeCall, RuntimeEvent, Timestamp};
use poq_sandbox::{
    account_of, dev, runtime as poq_runtime, AccountId32, Finality, Pair, Sandbox, SandboxConfig,
    SandboxError, Sealing, TimeMode, TransactionStatus, MILLIUNIT, UNIT,
};

fn transfer(to: &AccountId32, value: u128) -> RuntimeCall {
    RuntimeCall::Balances(BalancesCall::transfer_keep_alive { dest: MultiAddress::Id(to.clone()), value })
}

#[test]
fn blocks_are_chained_and_carry_their_extrinsics_and_events() {
    let mut chain = Sandbox::new().unwrap();
    let bob = account_of(&dev::bob());
    let before = chain.balance(&bob).unwrap();
    let report = chain.submit_call(&dev::alice(), transfer(&bob, 5 * UNIT)).unwrap().ok().unwrap();
    assert_eq!(chain.balance(&bob).unwrap(), before + 5 * UNIT);
    assert!(report.fee > 0);
    assert!(report.events.iter().any(|event| matches!(
        event,
        RuntimeEvent::Balances(polkadot_sdk::pallet_balances::Event::Transfer { amount, .. }) if *amount == 5 * UNIT
    )));
    chain.new_blocks(3).unwrap();
    for number in 1..=chain.best().number {
        let block = chain.block(chain.block_hash(number).unwrap()).unwrap();
        assert_eq!(*block.header.parent_hash(), chain.block_hash(number - 1).unwrap());
        assert_eq!(block.header.hash(), chain.block_hash(number).unwrap());
    }
    let block = chain.block(report.block.hash).unwrap();
    assert_eq!(block.extrinsics.len(), 2, "timestamp and transfer");
}

#[test]
fn a_block_built_here_passes_the_runtimes_own_import_check() {
    let mut chain = Sandbox::new().unwrap();
    let genesis = chain.snapshot();
    chain.submit_call(&dev::alice(), transfer(&account_of(&dev::bob()), UNIT)).unwrap();
    let best = chain.best();
    let block = chain.block(best.hash).unwrap();
    chain.restore(&genesis);
    // `execute_block` re-runs everything and panics if a root, a weight or a digest differs.
    let at = chain.best().hash;
    chain.query(at, || poq_runtime::Executive::execute_block(block.into())).unwrap();
}

#[test]
fn manual_time_moves_only_as_told() {
    let start_ms = 1_800_000_000_000;
    let config = SandboxConfig { time: TimeMode::Manual { start_ms }, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    assert_eq!(chain.now_ms(), start_ms);
    assert_eq!(chain.new_block().unwrap().timestamp_ms, start_ms);
    assert_eq!(chain.new_block().unwrap().timestamp_ms, start_ms + 10);
    chain.advance_ms(60_000);
    assert_eq!(chain.now_ms(), start_ms + 10, "no block, no time");
    let block = chain.new_block().unwrap();
    assert_eq!(block.timestamp_ms, start_ms + 60_010);
    assert_eq!(chain.query(block.hash, Timestamp::get).unwrap(), start_ms + 60_010);
    chain.advance_to_ms(start_ms + 100_000);
    assert_eq!(chain.new_block().unwrap().timestamp_ms, start_ms + 100_000);
    chain.advance_to_ms(start_ms);
    assert_eq!(chain.new_block().unwrap().timestamp_ms, start_ms + 100_010);
}

#[test]
fn system_time_follows_the_wall_clock() {
    let config = SandboxConfig { time: TimeMode::System, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let first = chain.new_block().unwrap().timestamp_ms;
    assert!(first.abs_diff(wall) < 5_000);
    // Blocks sealed within a millisecond still differ by what the runtime wants.
    let second = chain.new_block().unwrap().timestamp_ms;
    assert!(second >= first + 5);
    chain.advance_ms(3_600_000);
    assert!(chain.new_block().unwrap().timestamp_ms >= second + 3_600_000);
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut chain = Sandbox::new().unwrap();
    let mut bytes = chain.sign(&dev::alice(), transfer(&account_of(&dev::bob()), UNIT)).unwrap();
    // Somewhere in the amount, which the signature covers.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = chain.submit(bytes).unwrap_err();
    assert_eq!(error.invalid_transaction(), Some(&InvalidTransaction::BadProof), "{error}");
}

#[test]
fn a_used_nonce_is_stale() {
    let mut chain = Sandbox::new().unwrap();
    let call = transfer(&account_of(&dev::bob()), UNIT);
    chain.submit_call(&dev::alice(), call.clone()).unwrap();
    let error = chain.submit(chain.sign_with(&dev::alice(), call, 0, 0)).unwrap_err();
    assert_eq!(error.invalid_transaction(), Some(&InvalidTransaction::Stale), "{error}");
}

#[test]
fn an_account_without_funds_cannot_pay_fees() {
    let mut chain = Sandbox::new().unwrap();
    let poor = dev::numbered(1);
    let error = chain.submit_call(&poor, transfer(&account_of(&dev::bob()), 1)).unwrap_err();
    assert_eq!(error.invalid_transaction(), Some(&InvalidTransaction::Payment), "{error}");
}

#[test]
fn garbage_is_not_an_extrinsic() {
    let mut chain = Sandbox::new().unwrap();
    assert!(matches!(chain.submit(vec![1, 2, 3]), Err(SandboxError::BadExtrinsic(_))));
}

#[test]
fn a_gap_in_the_nonces_waits_until_it_is_filled() {
    let mut chain = Sandbox::new().unwrap();
    let alice = account_of(&dev::alice());
    let call = transfer(&account_of(&dev::bob()), UNIT);
    let third = chain.sign_with(&dev::alice(), call.clone(), 2, 0);
    let second = chain.sign_with(&dev::alice(), call.clone(), 1, 0);
    let first = chain.sign_with(&dev::alice(), call, 0, 0);
    let (third_hash, mut third_status) = chain.submit_and_watch(third).unwrap();
    assert_eq!(third_status.try_recv().unwrap(), TransactionStatus::Future);
    chain.submit(second).unwrap();
    assert_eq!(chain.best().number, 0);
    assert_eq!(chain.next_nonce(&alice).unwrap(), 0);
    assert!(matches!(chain.report(third_hash), Err(SandboxError::NotIncluded(_))));
    chain.submit(first).unwrap();
    assert_eq!(chain.next_nonce(&alice).unwrap(), 3);
    assert!(chain.pending_extrinsics().is_empty());
    let report = chain.report(third_hash).unwrap();
    assert_eq!(report.block.number, 1, "all three fit into one block");
    assert_eq!(third_status.try_recv().unwrap(), TransactionStatus::InBlock(report.block.hash));
    assert_eq!(third_status.try_recv().unwrap(), TransactionStatus::Finalized(report.block.hash));
}

#[test]
fn a_higher_tip_replaces_a_waiting_extrinsic() {
    let config = SandboxConfig { sealing: Sealing::Manual, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    let call = transfer(&account_of(&dev::bob()), UNIT);
    let cheap = chain.sign_with(&dev::alice(), call.clone(), 0, 0);
    let dear = chain.sign_with(&dev::alice(), call, 0, UNIT);
    let (_, mut status) = chain.submit_and_watch(cheap.clone()).unwrap();
    assert!(matches!(chain.submit(cheap.clone()), Err(SandboxError::AlreadyInPool(_))));
    let hash = chain.submit(dear).unwrap();
    assert!(matches!(chain.submit(cheap), Err(SandboxError::TooLowPriority { .. })));
    assert_eq!(status.try_recv().unwrap(), TransactionStatus::Ready);
    assert_eq!(status.try_recv().unwrap(), TransactionStatus::Usurped(hash));
    assert_eq!(chain.new_block().unwrap().extrinsics, 2);
}

#[test]
fn a_block_that_is_full_leaves_the_rest_for_the_next() {
    let config = SandboxConfig { sealing: Sealing::Manual, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    // Remarks of 1 MiB: the normal class has 3.75 MiB of a block.
    for nonce in 0..5 {
        let call = RuntimeCall::System(poq_runtime::SystemCall::remark { remark: vec![0; 1 << 20] });
        chain.submit(chain.sign_with(&dev::alice(), call, nonce, 0)).unwrap();
    }
    assert_eq!(chain.new_block().unwrap().extrinsics, 1 + 3);
    assert_eq!(chain.new_block().unwrap().extrinsics, 1 + 2);
    assert!(chain.pending_extrinsics().is_empty());
}

#[test]
fn a_failed_call_is_reported_and_changes_nothing_but_the_fee() {
    let mut chain = Sandbox::new().unwrap();
    let nobody = account_of(&dev::numbered(7));
    let report = chain.submit_call(&dev::alice(), transfer(&nobody, MILLIUNIT / 2)).unwrap();
    assert!(matches!(report.result, Err(DispatchError::Token(_))), "{:?}", report.result);
    assert_eq!(chain.balance(&nobody).unwrap(), 0);
    assert!(matches!(report.ok(), Err(SandboxError::Dispatch(_))));
}

#[test]
fn funding_sets_a_balance_by_a_block() {
    let mut chain = Sandbox::new().unwrap();
    let account = account_of(&dev::numbered(3));
    chain.fund(&account, 42 * UNIT).unwrap();
    assert_eq!(chain.balance(&account).unwrap(), 42 * UNIT);
    let best = chain.best();
    assert_eq!(best.number, 1);
    assert!(chain.query(best.hash, Balances::total_issuance).unwrap() > 42 * UNIT);
}

#[test]
fn endowments_are_there_from_genesis() {
    let account = account_of(&dev::numbered(9));
    let config = SandboxConfig::default().endow(account.clone(), 7 * UNIT);
    assert_eq!(Sandbox::with_config(config).unwrap().balance(&account).unwrap(), 7 * UNIT);
}

#[test]
fn old_states_are_readable_until_they_are_pruned() {
    let config = SandboxConfig { history_blocks: 8, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    let bob = account_of(&dev::bob());
    let mut balances = vec![(chain.best().hash, chain.balance(&bob).unwrap())];
    for _ in 0..20 {
        let report = chain.submit_call(&dev::alice(), transfer(&bob, UNIT)).unwrap();
        balances.push((report.block.hash, chain.balance(&bob).unwrap()));
    }
    for (number, (hash, balance)) in balances.iter().enumerate() {
        let read = chain.query(*hash, || Balances::free_balance(&bob));
        if number < 12 {
            assert!(matches!(read, Err(SandboxError::StatePruned { .. })), "block {number}");
        } else {
            assert_eq!(read.unwrap(), *balance, "block {number}");
            assert!(!chain.events(*hash).unwrap().is_empty());
        }
    }
}

#[test]
fn pruning_frees_what_old_states_held() {
    let config = SandboxConfig { history_blocks: 4, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    chain.new_blocks(100).unwrap();
    let (nodes, _) = chain.state_size();
    chain.new_blocks(200).unwrap();
    let (later, bytes) = chain.state_size();
    // System::BlockHash grows by an entry per block; nothing else may.
    assert!(later < nodes + 2 * 200, "{nodes} nodes after 100 blocks, {later} after 300 ({bytes} bytes)");
}

#[test]
fn a_snapshot_restores_everything() {
    let mut chain = Sandbox::new().unwrap();
    let bob = account_of(&dev::bob());
    chain.submit_call(&dev::alice(), transfer(&bob, UNIT)).unwrap();
    let snapshot = chain.snapshot();
    let (best, balance, time) = (chain.best(), chain.balance(&bob).unwrap(), chain.now_ms());
    for _ in 0..2 {
        chain.advance_ms(1_000_000);
        let later = chain.submit_call(&dev::alice(), transfer(&bob, UNIT)).unwrap().block;
        assert_ne!(chain.balance(&bob).unwrap(), balance);
        chain.restore(&snapshot);
        assert_eq!((chain.best(), chain.balance(&bob).unwrap(), chain.now_ms()), (best, balance, time));
        assert!(matches!(chain.block(later.hash), Err(SandboxError::UnknownBlock(_))));
    }
}

#[test]
fn the_same_calls_make_the_same_chain() {
    let run = || {
        let mut chain = Sandbox::new().unwrap();
        chain.fund(&account_of(&dev::numbered(1)), UNIT).unwrap();
        chain.advance_ms(5_000);
        chain.new_blocks(3).unwrap()
    };
    let (first, second) = (run(), run());
    // Signatures are random, so hashes differ; nothing else may.
    assert_eq!(
        (first.number, first.timestamp_ms, first.weight),
        (second.number, second.timestamp_ms, second.weight)
    );
}

#[test]
fn finality_can_lag_behind() {
    let config = SandboxConfig { finality: Finality::Blocks(2), ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    chain.new_blocks(5).unwrap();
    assert_eq!(chain.finalized().number, 3);
    let config = SandboxConfig { finality: Finality::Manual, ..SandboxConfig::default() };
    let mut chain = Sandbox::with_config(config).unwrap();
    chain.new_blocks(5).unwrap();
    assert_eq!(chain.finalized().number, 0);
    chain.finalize_to(4);
    assert_eq!(chain.finalized().number, 4);
    chain.finalize_to(1);
    assert_eq!(chain.finalized().number, 4, "finality is not taken back");
}

#[test]
fn numbered_accounts_differ_and_are_stable() {
    assert_ne!(dev::numbered(1).public(), dev::numbered(2).public());
    assert_eq!(dev::numbered(5).public(), dev::numbered(5).public());
}

#[test]
fn settings_that_the_runtime_would_refuse_are_refused() {
    let config = SandboxConfig { block_time_ms: 1, ..SandboxConfig::default() };
    assert!(matches!(Sandbox::with_config(config), Err(SandboxError::Config(_))));
}
