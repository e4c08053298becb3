//! What messages cost, as ratios and bounds that must hold on any machine: weights are the chain's, not the clock's.
//! `scripts/bench.sh gas` prints them all.

use super::Res;
use poq_contract::types::{Commit, Role};
use poq_runtime_tests::{call, encode, World};
use poq_sandbox::{dev, AccountId32, UNIT};

/// A block's weight for ordinary transactions, in ref_time.
const BLOCK: u64 = 1_500_000_000_000;

#[test]
fn duties_draws_and_settlements_move_no_storage_deposit() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 5)?;
    let requester = world.account()?;
    // An account's own record is written with its first request, and stays.
    world.round(&requester, &nodes, 2, 5, |_| vec![700, 400])?;
    let request = world.request_of(&requester, 2, 5, 10 * UNIT);
    let asked = world.send(&requester, 10 * UNIT, call().request_tasks(vec![request]))??;
    let id = asked.value[0];
    assert!(asked.deposit > 0);
    for slot in world.task(id)?.task.outputs {
        let node = World::find(&nodes.0, slot.node)?.clone();
        let item = Commit { task: id, node: node.id, commitment: world.output_commitment(id, node.id) };
        assert_eq!(world.one(&node.operator, call().commit_outputs(vec![item]))??.deposit, 0);
    }
    let plan = world.draw_of(id)?;
    assert_eq!(world.one(&requester, call().draw_panels(vec![plan]))??.deposit, 0);
    for reveals in [false, true] {
        for member in world.panel(id)? {
            let node = World::find(&nodes.1, member)?.clone();
            let reveal = world.reveal_of(id, member, &[700, 400]);
            let deposit = if reveals {
                world.one(&node.operator, call().reveal_scores(vec![reveal]))??.deposit
            } else {
                let item = Commit { task: id, node: member, commitment: world.scores_commitment(&reveal) };
                world.one(&node.operator, call().commit_scores(vec![item]))??.deposit
            };
            assert_eq!(deposit, 0);
        }
    }
    for node in nodes.0.iter().chain(&nodes.1) {
        if world.view(node.id)?.node.claimable > 0 {
            assert_eq!(world.send(&node.owner, 0, call().claim(node.id))??.deposit, 0);
        }
    }
    let back = world.send(&requester, 0, call().collect(vec![id]))??.deposit;
    // The pallet returns a share of the contract's whole deposit, rounded.
    assert!((asked.deposit + back).abs() < 1_000_000, "{} went in, {back} came back", asked.deposit);
    Ok(())
}

#[test]
fn a_draw_costs_the_same_in_a_large_registry() -> Res {
    let cost = |evaluators: u8| -> Res<u64> {
        let mut world = World::new()?;
        let (inference, _) = world.nodes(1, 0)?;
        for number in 0..evaluators {
            world.node(Role::Evaluator, number, 0, (200 + 7 * u128::from(number)) * UNIT)?;
        }
        let requester = world.account()?;
        let mut total = 0;
        for _ in 0..6 {
            let id = world.request(&requester, 1, 3, 10 * UNIT)??;
            world.commit_outputs(id, &inference)?;
            let plan = world.draw_of(id)?;
            total += world.one(&dev::bob(), call().draw_panels(vec![plan]))??.report.weight.ref_time();
        }
        Ok(total)
    };
    let (small, large) = (cost(12)?, cost(72)?);
    assert!(large * 10 < small * 13, "six draws cost {small} of twelve nodes, {large} of 72");
    Ok(())
}

#[test]
fn a_query_needs_little_gas() -> Res {
    let world = World::new()?;
    let nobody = AccountId32::new([9; 32]);
    let dry = world.chain.dry_call(&nobody, &world.contract, 0, None, None, encode(call().overview()))?;
    assert!(dry.gas_consumed.ref_time() < BLOCK / 500, "{:?}", dry.gas_consumed);
    Ok(())
}
