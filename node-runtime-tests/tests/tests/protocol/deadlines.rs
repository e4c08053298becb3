//! Every state that is not final has a deadline, and past it anybody can move the task on.

use super::Res;
use poq_contract::errors::Error;
use poq_contract::types::{Commit, Decline, DeclineReason, Open, Step};
use poq_core::task::Refusal;
use poq_core::units::{Balance, TaskId};
use poq_core::{Ending, KindParams, Phase};
use poq_runtime_tests::{call, TestNode, World};
use poq_sandbox::{dev, UNIT};

const FEE: Balance = 10 * UNIT;

fn params() -> KindParams {
    KindParams::without_auditors()
}

/// The first of a task's inference nodes commits, the others do not.
fn first_commits(world: &mut World, id: TaskId, nodes: &[TestNode]) -> Res<TestNode> {
    let first = world.task(id)?.task.outputs[0].node;
    let node = World::find(nodes, first)?.clone();
    let commitment = world.output_commitment(id, first);
    world
        .one(&node.operator, call().commit_outputs(vec![Commit { task: id, node: first, commitment }]))??;
    Ok(node)
}

#[test]
fn nobody_delivers_the_fee_goes_back_and_the_node_loses_a_little() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    assert_eq!(world.advance(id)?, Err(Error::Task(Refusal::TooEarly)));
    world.pass(params().inference_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::End(Ending::Undelivered)));
    let task = world.task(id)?.task;
    assert_eq!((task.phase, task.refund), (Phase::Refunded, FEE - 4 * params().keeper_fee));
    let node = world.view(nodes.0[0].id)?.node;
    assert_eq!(node.slashed, params().missed_penalty.of(task.terms.inference_at_risk));
    assert_eq!((node.stake.locked, node.open_count()), (0, 0));
    assert_eq!(world.overview()?.liabilities.treasury, 0, "a slash is nobody's income");
    assert_eq!(world.advance(id)?, Err(Error::Task(Refusal::WrongPhase)));
    Ok(())
}

#[test]
fn all_decline_and_it_ends_at_once() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, FEE)??;
    for node in &nodes.0 {
        let item = Decline { task: id, node: node.id, reason: DeclineReason::TooLong };
        world.one(&node.operator, call().decline(vec![item]))??;
    }
    assert_eq!(world.advance(id)?, Ok(Step::End(Ending::Undelivered)));
    assert!(nodes.0.iter().all(|node| world.view(node.id).unwrap().node.slashed == 0));
    Ok(())
}

#[test]
fn a_panel_is_drawn_for_those_who_delivered_in_time() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, FEE)??;
    first_commits(&mut world, id, &nodes.0)?;
    let plan = world.draw_of(id)?;
    let early = world.one(&dev::bob(), call().draw_panels(vec![plan]))?.unwrap_err();
    assert_eq!(early, Error::Task(Refusal::TooEarly));
    world.pass(params().inference_ms + 1)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![800, 2_000])?;
    let task = world.task(id)?.task;
    assert_eq!(task.ending, Ending::Consensus);
    let absent = world.view(task.outputs[1].node)?.node;
    let missed = params().missed_penalty.of(task.terms.inference_at_risk);
    assert_eq!((absent.claimable, absent.slashed), (0, missed));
    // The absent node's slot went back to the requester.
    assert!(task.refund >= task.terms.inference_slot);
    Ok(())
}

#[test]
fn a_commitment_that_is_not_opened_by_half_time_ends_the_task() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    let [honest, hiding] = [0, 1].map(|at| world.task(id).unwrap().task.outputs[at].node);
    let open = Open { task: id, node: honest, opened: world.opened(id, honest) };
    world.one(&dev::bob(), call().open_outputs(vec![open]))??;
    world.pass(params().draw_ms / 2 + 1)?;
    let late = Open { task: id, node: hiding, opened: world.opened(id, hiding) };
    let late = world.one(&dev::bob(), call().open_outputs(vec![late]))?.unwrap_err();
    assert_eq!(late, Error::Task(Refusal::WrongPhase));
    assert_eq!(world.advance(id)?, Ok(Step::End(Ending::Unopened)));
    let terms = world.task(id)?.task.terms;
    assert_eq!(world.view(honest)?.node.claimable, params().delivery_share.of(terms.inference_slot));
    assert_eq!(world.view(hiding)?.node.slashed, terms.inference_at_risk);
    Ok(())
}

#[test]
fn below_quorum_the_empty_seats_are_filled_once_then_it_ends() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 6)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    let first = world.draw(id)?;
    world.pass(params().commit_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::Fill));
    let missed = params().missed_penalty.of(world.task(id)?.task.terms.evaluator_at_risk);
    for node in &first {
        assert_eq!(world.view(*node)?.node.slashed, missed);
        assert_eq!(world.view(*node)?.node.stake.locked, 0);
    }
    let second = world.panel(id)?;
    assert!(second.len() == 3 && second.iter().all(|node| !first.contains(node)), "nobody sits twice");
    world.pass(params().commit_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::End(Ending::BelowQuorum)));
    assert!(world.task(id)?.task.refund < 10, "what rounding leaves");
    assert_eq!(world.view(nodes.0[0].id)?.node.slashed, 0, "it had delivered");
    Ok(())
}

#[test]
fn a_quorum_settles_without_those_who_are_missing() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 5)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 5, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    let member = |at: usize| World::find(&nodes.1, panel[at]).unwrap().clone();
    for at in 0..4 {
        world.commit_scores(id, &member(at), &[750])??;
    }
    // One never committed: revealing starts at the commit deadline, without anybody having to say so.
    assert_eq!(world.reveal(id, &member(0), &[750])?, Err(Error::Task(Refusal::WrongPhase)));
    world.pass(params().commit_ms + 1)?;
    assert_eq!(world.commit_scores(id, &member(4), &[750])?, Err(Error::Task(Refusal::WrongPhase)));
    for at in 0..3 {
        world.reveal(id, &member(at), &[750])??;
    }
    assert_eq!(world.advance(id)?, Err(Error::Task(Refusal::TooEarly)), "one may still reveal");
    world.pass(params().reveal_ms + 1)?;
    assert_eq!(world.reveal(id, &member(3), &[750])?, Err(Error::Task(Refusal::WrongPhase)));
    assert_eq!(world.advance(id)?, Ok(Step::Settle));
    let at_risk = world.task(id)?.task.terms.evaluator_at_risk;
    assert_eq!(world.view(panel[3])?.node.slashed, params().unrevealed_penalty.of(at_risk));
    assert_eq!(world.view(panel[4])?.node.slashed, params().missed_penalty.of(at_risk));
    assert!(world.view(panel[0])?.node.claimable > 0);
    Ok(())
}

#[test]
fn whoever_is_forgotten_can_be_collected_by_anybody_later() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.round(&requester, &nodes, 1, 3, |_| vec![700])?;
    let collect = || call().collect(vec![id]);
    assert_eq!(world.send(&dev::bob(), 0, collect())?.unwrap_err(), Error::NotRequester);
    world.pass(3_600_001)?;
    let before = world.free(&requester)?;
    let refund = world.send(&dev::bob(), 0, collect())??.value;
    assert_eq!(world.free(&requester)?, before + refund);
    Ok(())
}
