//! Other code: announced, run from then on by whoever says so, and migrated in the same message.

use super::Res;
use parity_scale_codec::Encode;
use poq_contract::errors::Error;
use poq_contract::types::{Change, Lever, LAYOUT};
use poq_core::params::DAY;
use poq_core::{Ending, Phase};
use poq_runtime_tests::{call, global, ink_account, wasm, World, EPOCH_MS, MUTE};
use poq_sandbox::{dev, AccountId32, Code, UNIT};

/// The contract's own code under another hash: with a custom section behind it.
fn successor() -> Vec<u8> {
    [wasm(), b"\0\x06\x05later".to_vec()].concat()
}

fn instance(world: &mut World, code: Vec<u8>) -> Res<AccountId32> {
    let genesis: [u8; 32] = world.chain.block_hash(0).unwrap().into();
    let data = [ink::selector_bytes!("new").to_vec(), (genesis, EPOCH_MS, global()).encode()].concat();
    Ok(world.chain.instantiate(&dev::bob(), 0, Code::Upload(code), data, b"later".to_vec())?.address)
}

#[test]
fn code_is_announced_as_any_change_and_migrates_in_the_same_message() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let owner = world.owner.clone();
    let later = instance(&mut world, successor())?;

    let stranger = world.account()?;
    let propose = |to: &AccountId32| call().propose_code(ink_account(to));
    assert_eq!(world.send(&stranger, 0, propose(&later))?.unwrap_err(), Error::NotContractOwner);
    let nobody = AccountId32::new([7; 32]);
    assert_eq!(world.send(&owner, 0, propose(&nobody))?.unwrap_err(), Error::BadCode);
    let raw = call().propose(Change::Code([1; 32]));
    assert_eq!(world.send(&owner, 0, raw)?.unwrap_err(), Error::BadCode);
    assert_eq!(world.send(&owner, 0, call().set_code())?.unwrap_err(), Error::NotPending);

    let acts_at = world.send(&owner, 0, propose(&later))??.value;
    assert!(acts_at >= world.chain.now_ms() + 3 * DAY - 60_000);
    assert_eq!(world.send(&owner, 0, call().set_code())?.unwrap_err(), Error::NotDue);
    assert_eq!(world.send(&owner, 0, call().enact(Lever::Code))?.unwrap_err(), Error::BadCode);
    let announced = world.read(call().pending())?;
    world.pass(acts_at - world.chain.now_ms())?;

    // A task is under way while the code changes.
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    world.send(&dev::bob(), 0, call().set_code())??;
    assert_eq!(world.overview()?.layout, LAYOUT);
    assert!(world.read(call().pending())?.is_empty());
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![700])?;
    let task = world.task(id)?.task;
    assert_eq!((task.phase, task.ending), (Phase::Settled, Ending::Consensus));
    world.send(&requester, 0, call().collect(vec![id]))??;

    // It is the announced code that runs now.
    let contract = world.contract.clone();
    world.send(&owner, 0, propose(&contract))??;
    let now = world.read(call().pending())?;
    assert_eq!(now[0].change, announced[0].change);
    Ok(())
}

#[test]
fn code_that_does_not_migrate_is_refused_and_nothing_has_changed() -> Res {
    let mut world = World::new()?;
    let owner = world.owner.clone();
    let mute = world.chain.instantiate(&dev::bob(), 0, Code::Upload(MUTE.to_vec()), vec![], vec![])?.address;
    let before = world.overview()?;
    // No node is registered: even then code waits, so that everybody can look at it.
    let acts_at = world.send(&owner, 0, call().propose_code(ink_account(&mute)))??.value;
    assert!(acts_at > world.chain.now_ms());
    world.pass(acts_at - world.chain.now_ms())?;
    assert_eq!(world.send(&dev::bob(), 0, call().set_code())?.unwrap_err(), Error::BadCode);
    assert_eq!(world.overview()?, before);
    assert_eq!(world.read(call().pending())?.len(), 1);
    world.send(&owner, 0, call().cancel(Lever::Code))??;
    Ok(())
}

#[test]
fn only_the_contract_migrates_itself() -> Res {
    let mut world = World::new()?;
    let owner = world.owner.clone();
    assert_eq!(world.send(&owner, 0, call().migrate())?.unwrap_err(), Error::NotItself);
    Ok(())
}
