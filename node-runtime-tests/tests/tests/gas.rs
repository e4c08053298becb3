//! What messages cost, as ratios and bounds that must hold on any machine: weights are the chain's, not the clock's.
//! `scripts/bench.sh gas` prints them all.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::types::Role;
use poq_runtime_tests::{call, encode, input, World, KIND};
use poq_sandbox::{dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;

/// A block's weight for ordinary transactions, in ref_time.
const BLOCK: u64 = 1_500_000_000_000;

#[test]
fn duties_draws_and_settlements_move_no_storage_deposit() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 5)?;
    let requester = world.account()?;
    // An account's own record is written with its first request, and stays.
    world.round(&requester, &nodes, 2, 5, |_| vec![700, 400])?;
    let asked = world.send(&requester, 20 * UNIT, call().request_task(KIND, 2, 5, input(), [7; 32]))??;
    let id = asked.value;
    assert!(asked.deposit > 0);
    for slot in world.task(id)?.task.outputs {
        let node = World::find(&nodes.0, slot.node)?.clone();
        let commitment = world.output_commitment(id, node.id);
        assert_eq!(world.send(&node.operator, 0, call().commit_output(id, node.id, commitment))??.deposit, 0);
    }
    assert_eq!(world.send(&dev::bob(), 0, call().draw_panel(id))??.deposit, 0);
    for reveal in [false, true] {
        for seat in world.task(id)?.task.panel {
            let node = World::find(&nodes.1, seat.node)?.clone();
            let r = world.reveal_of(id, node.id, &[700, 400]);
            let deposit = if reveal {
                world.send(&node.operator, 0, call().reveal_scores(r))??.deposit
            } else {
                let commitment = world.scores_commitment(&r);
                world.send(&node.operator, 0, call().commit_scores(id, node.id, commitment))??.deposit
            };
            assert_eq!(deposit, 0);
        }
    }
    assert_eq!(world.settle(id)?.deposit, 0);
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
    let cost = |evaluators: u8| -> Result<u64, Box<dyn std::error::Error>> {
        let mut world = World::new()?;
        let (inference, _) = world.nodes(1, 0)?;
        for number in 0..evaluators {
            world.node(Role::Evaluator, number, 0, (20 + 7 * u128::from(number)) * UNIT)?;
        }
        let requester = world.account()?;
        let mut total = 0;
        for _ in 0..6 {
            let id = world.request(&requester, 1, 3, 10 * UNIT)??;
            world.commit_outputs(id, &inference)?;
            total += world.send(&dev::bob(), 0, call().draw_panel(id))??.report.weight.ref_time();
        }
        Ok(total)
    };
    let (small, large) = (cost(10)?, cost(120)?);
    assert!(large * 10 < small * 13, "six draws cost {small} of ten nodes, {large} of 120");
    Ok(())
}

#[test]
fn a_query_needs_little_gas() -> Res {
    let world = World::new()?;
    let nobody = poq_sandbox::AccountId32::new([9; 32]);
    let dry = world.chain.dry_call(&nobody, &world.contract, 0, None, None, encode(call().overview()))?;
    let ref_time = dry.gas_consumed.ref_time();
    println!("owner(): {ref_time} ref_time");
    assert!(ref_time < BLOCK / 500);
    Ok(())
}
