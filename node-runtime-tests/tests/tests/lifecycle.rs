//! The whole life of a task, with every amount.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::types::{Commit, NodeStatus, Role};
use poq_core::phase::Phase;
use poq_core::units::{Ratio, Score};
use poq_runtime_tests::{call, ink_of, World};
use poq_sandbox::{dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;

#[test]
fn one_answer_three_evaluators_from_request_to_claim() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let before = world.free(&requester)?;

    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let task = world.task(id)?.task;
    assert_eq!(task.phase, Phase::Inferring);
    assert_eq!(task.outputs.len(), 1);
    assert_eq!(world.balances(&requester)?.pending, 10 * UNIT);
    assert_eq!(world.view(nodes.0[0].id)?.node.locked, UNIT);
    // 2 % to the treasury, 60 % of the rest for inference, the remainder in three parts.
    assert_eq!(task.inference_slot, 9_800_000_000_000 * 6 / 10);
    assert_eq!(task.evaluator_slot, 9_800_000_000_000 * 4 / 10 / 3);

    world.commit_outputs(id, &nodes.0)?;
    assert_eq!(world.task(id)?.task.phase, Phase::Drawing);
    let mut panel = world.draw(id)?;
    panel.sort_unstable();
    assert_eq!(panel, nodes.1.iter().map(|node| node.id).collect::<Vec<_>>());
    world.score(id, &nodes.1, |_| vec![800])?;
    world.settle(id)?;

    let task = world.task(id)?.task;
    assert_eq!(task.phase, Phase::Settled);
    assert_eq!(task.outputs[0].quality, Score::of(Ratio::from_permille(800)));
    let owed = world.overview()?.liabilities;
    assert_eq!(owed.treasury, 200_000_000_000);
    assert_eq!(owed.escrow, 0);
    assert_eq!(owed.claimable + owed.refunds + owed.treasury, 10 * UNIT);

    // Everybody is paid what was credited, to the unit.
    for node in nodes.0.iter().chain(&nodes.1) {
        let credited = world.view(node.id)?.node.claimable;
        assert!(credited > 0);
        let before = world.free(&node.payee)?;
        let paid = world.send(&node.owner, 0, call().claim(node.id))??.value;
        assert_eq!(paid, credited);
        assert_eq!(world.free(&node.payee)?, before + credited);
        assert_eq!(world.balances(&node.owner)?.withdrawn, credited);
        assert_eq!(world.balances(&node.owner)?.claimable, 0);
    }
    let refund = world.task(id)?.task.refund;
    assert_eq!(world.balances(&requester)?.claimable, refund);
    let collected = world.send(&requester, 0, call().collect(vec![id]))??;
    assert_eq!(collected.value, refund);
    assert!(collected.deposit < 0, "collecting returns the storage deposit");
    assert!(world.read(call().task(id))?.is_none());
    assert!(world.free(&requester)? < before - 10 * UNIT + refund, "fees of extrinsics were paid");

    // Nothing is left but the treasury and the stakes.
    let owed = world.overview()?.liabilities;
    assert_eq!((owed.escrow, owed.refunds, owed.claimable), (0, 0, 0));
    let owner = world.owner.clone();
    let to = world.account()?;
    world.send(&owner, 0, call().withdraw_treasury(ink_of(&to), owed.treasury))??;
    assert_eq!(world.overview()?.liabilities.treasury, 0);
    Ok(())
}

#[test]
fn better_and_cheaper_answers_earn_more() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(3, 5)?;
    let requester = world.account()?;
    let id = world.request(&requester, 3, 5, 20 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![900, 500, 100])?;
    world.settle(id)?;
    let task = world.task(id)?.task;
    let earned = |place: usize| world.view(task.outputs[place].node).map(|view| view.node.claimable);
    assert!(earned(0)? > earned(1)?);
    assert!(earned(1)? > earned(2)?);
    Ok(())
}

#[test]
fn batches_do_what_single_messages_do_and_skip_what_is_wrong() -> Res {
    let mut world = World::new()?;
    let operator = world.account()?;
    let (owner, payee) = (world.account()?, world.account()?);
    // Two inference nodes of one operator; the second owner keeps the draw from refusing one owner twice.
    let other = world.account()?;
    let first = world.node_of(Role::Inference, 1, 0, 100 * UNIT, owner, operator.clone(), payee.clone())?;
    let second = world.node_of(Role::Inference, 2, 0, 100 * UNIT, other, operator.clone(), payee)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, 10 * UNIT)??;
    let item =
        |node: u32, world: &World| Commit { task: id, node, commitment: world.output_commitment(id, node) };
    let items = vec![item(first.id, &world), item(99, &world), item(second.id, &world)];
    let results = world.send(&operator, 0, call().commit_outputs(items.clone()))??.value;
    assert_eq!(results[0], None);
    assert_eq!(results[1], Some(poq_contract::errors::Error::NotAssigned));
    assert_eq!(results[2], None);
    assert_eq!(world.task(id)?.task.phase, Phase::Drawing);
    // Again: accepted, and nothing happens.
    let again = world.send(&operator, 0, call().commit_outputs(vec![items[0].clone()]))??;
    assert_eq!(again.value, vec![None]);
    Ok(())
}

#[test]
fn stake_comes_and_goes_with_its_unbonding_period() -> Res {
    let mut world = World::new()?;
    let node = world.node(Role::Evaluator, 1, 0, 100 * UNIT)?;
    assert_eq!(world.kind()?.evaluators.len(), 1);
    world.send(&node.owner, 0, call().unstake(node.id, 40 * UNIT))??;
    let money = world.balances(&node.owner)?;
    assert_eq!((money.staked_free, money.unbonding), (60 * UNIT, 40 * UNIT));
    let early = world.send(&node.owner, 0, call().withdraw_unbonded(node.id))?;
    assert_eq!(early.unwrap_err(), poq_contract::errors::Error::StillUnbonding);
    world.pass(60_000)?;
    assert_eq!(world.send(&node.owner, 0, call().withdraw_unbonded(node.id))??.value, 40 * UNIT);
    // The rest leaves the pool with the stake.
    world.send(&node.owner, 0, call().unstake(node.id, 60 * UNIT))??;
    assert_eq!(world.kind()?.evaluators.len(), 0);
    world.pass(60_000)?;
    world.send(&node.owner, 0, call().withdraw_unbonded(node.id))??;
    let gone = world.send(&node.owner, 0, call().deregister(node.id))??;
    assert!(gone.deposit < 0, "deregistering returns the storage deposit");
    assert!(world.read(call().node(node.id))?.is_none());
    Ok(())
}

#[test]
fn a_draining_node_finishes_its_duty_and_is_drawn_no_more() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let node = nodes.0[0].clone();
    world.send(&node.owner, 0, call().drain(node.id))??;
    assert_eq!(world.view(node.id)?.node.status, NodeStatus::Draining);
    assert_eq!(world.request(&requester, 1, 3, 10 * UNIT)?, Err(poq_contract::errors::Error::TooFewNodes));
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![700])?;
    world.settle(id)?;
    assert!(world.view(node.id)?.node.claimable > 0);
    world.send(&node.owner, 0, call().resume(node.id))??;
    world.request(&requester, 1, 3, 10 * UNIT)??;
    Ok(())
}

#[test]
fn settled_tasks_feed_the_kinds_memory() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    for (round, quality) in [900u32, 300, 600, 200, 950, 250].into_iter().enumerate() {
        world.round(&requester, &nodes, 1, 3, |_| vec![quality])?;
        let kind = world.kind()?;
        assert_eq!(usize::from(kind.ring_next), round + 1);
        assert_eq!(kind.population.ring[round].quality, Ratio::from_permille(quality));
    }
    // Evaluators that tell tasks apart gain.
    assert!(world.kind()?.population.gain_average > 0);
    Ok(())
}

#[test]
fn anybody_reads_everything_without_a_key() -> Res {
    let world = World::new()?;
    assert_eq!(world.overview()?.owner, ink_of(&dev::alice()));
    assert_eq!(world.overview()?.kinds, vec![poq_runtime_tests::KIND]);
    let quote = world.quote(1, 3)?;
    assert!(quote.fee_min > 0);
    assert!(world.overview()?.solvency().solvent);
    assert_eq!(world.balances(&dev::ferdie())?, Default::default());
    Ok(())
}
