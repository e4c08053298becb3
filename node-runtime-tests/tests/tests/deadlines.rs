//! Every state that is not final has a deadline, and past it anybody can move the task on.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{GlobalParams, SeatState};
use poq_core::phase::{Phase, Step};
use poq_core::{KindParams, Ratio};
use poq_runtime_tests::{call, World};
use poq_sandbox::{dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;

fn params() -> KindParams {
    KindParams::without_auditors()
}

#[test]
fn nobody_delivers_the_fee_goes_back_and_the_node_loses_a_little() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    assert_eq!(world.advance(id)?, Err(Error::TooEarly));
    world.pass(params().inference_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::RefundUndelivered));
    let task = world.task(id)?.task;
    assert_eq!((task.phase, task.refund), (Phase::Refunded, 10 * UNIT));
    let node = world.view(nodes.0[0].id)?.node;
    assert_eq!(node.slashed, params().missed_penalty.of(UNIT));
    assert_eq!((node.locked, node.open_count()), (0, 0));
    assert_eq!(world.overview()?.liabilities.treasury, node.slashed);
    assert_eq!(world.advance(id)?, Err(Error::WrongPhase));
    Ok(())
}

#[test]
fn a_panel_is_drawn_for_those_who_delivered_in_time() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, 10 * UNIT)??;
    let first = world.task(id)?.task.outputs[0].node;
    let node = World::find(&nodes.0, first)?.clone();
    let commitment = world.output_commitment(id, first);
    world.send(&node.operator, 0, call().commit_output(id, first, commitment))??;
    assert_eq!(world.send(&dev::bob(), 0, call().draw_panel(id))?.unwrap_err(), Error::TooEarly);
    world.pass(params().inference_ms + 1)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![800, 2_000])?;
    world.settle(id)?;
    let task = world.task(id)?.task;
    assert!(task.outputs[0].quality.quality().is_some());
    assert!(task.outputs[1].quality.quality().is_none());
    let absent = world.view(task.outputs[1].node)?.node;
    assert_eq!((absent.claimable, absent.slashed), (0, params().missed_penalty.of(UNIT)));
    // The absent node's slot went back to the requester.
    assert!(task.refund >= task.inference_slot);
    Ok(())
}

#[test]
fn no_panel_can_be_drawn_those_who_delivered_lose_nothing() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 2)?; // two evaluators for a panel of three
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    assert_eq!(world.advance(id)?, Err(Error::TooFewNodes));
    world.pass(params().draw_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::RefundUndrawn));
    assert_eq!(world.view(nodes.0[0].id)?.node.slashed, 0);
    assert_eq!(world.task(id)?.task.refund, 10 * UNIT);
    Ok(())
}

#[test]
fn late_outputs_and_no_panel_still_end() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 0)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, 10 * UNIT)??;
    let first = world.task(id)?.task.outputs[0].node;
    let node = World::find(&nodes.0, first)?.clone();
    let commitment = world.output_commitment(id, first);
    world.send(&node.operator, 0, call().commit_output(id, first, commitment))??;
    world.pass(params().inference_ms + params().draw_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::RefundUndrawn));
    Ok(())
}

#[test]
fn below_quorum_a_second_panel_then_a_refund() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 6)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let first = world.draw(id)?;
    world.pass(params().commit_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::Redraw));
    for node in &first {
        assert_eq!(world.view(*node)?.node.slashed, params().missed_penalty.of(UNIT));
        assert_eq!(world.view(*node)?.node.locked, 0);
    }
    world.pass(1)?;
    assert_eq!(world.advance(id)?, Ok(Step::Draw));
    let second: Vec<u32> = world.task(id)?.task.panel.iter().map(|seat| seat.node).collect();
    assert!(second.iter().all(|node| !first.contains(node)), "nobody sits on both panels");
    world.pass(params().commit_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::RefundBelowQuorum));
    assert_eq!(world.task(id)?.task.refund, 10 * UNIT);
    assert_eq!(world.view(nodes.0[0].id)?.node.slashed, 0, "it had delivered");
    Ok(())
}

#[test]
fn a_quorum_settles_without_those_who_are_missing() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 5)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 5, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    for member in &panel[..4] {
        let node = World::find(&nodes.1, *member)?.clone();
        world.commit_scores(id, &node, &[750])??;
    }
    // One never committed: revealing starts at the commit deadline, without anybody having to say so.
    let early = World::find(&nodes.1, panel[0])?.clone();
    assert_eq!(world.reveal(id, &early, &[750])?, Err(Error::WrongPhase));
    world.pass(params().commit_ms + 1)?;
    let late = World::find(&nodes.1, panel[4])?.clone();
    assert_eq!(world.commit_scores(id, &late, &[750])?, Err(Error::WrongPhase));
    for member in &panel[..3] {
        let node = World::find(&nodes.1, *member)?.clone();
        world.reveal(id, &node, &[750])??;
    }
    assert_eq!(world.advance(id)?, Err(Error::TooEarly), "one may still reveal");
    world.pass(params().reveal_ms + 1)?;
    assert_eq!(world.advance(id)?, Ok(Step::Settle));
    assert_eq!(world.view(panel[3])?.node.slashed, params().unrevealed_penalty.of(UNIT));
    assert_eq!(world.view(panel[4])?.node.slashed, params().missed_penalty.of(UNIT));
    assert!(world.view(panel[0])?.node.claimable > 0);
    Ok(())
}

#[test]
fn a_late_reveal_is_refused_and_costs_the_stake_at_risk() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    world.score_and_reveal_some(id, &nodes.1, 2, |_| vec![500])?;
    world.pass(params().reveal_ms + 1)?;
    let node = World::find(&nodes.1, panel[2])?.clone();
    assert_eq!(world.reveal(id, &node, &[500])?, Err(Error::WrongPhase));
    world.settle(id)?;
    assert_eq!(world.task(id)?.task.panel[2].state, SeatState::Committed);
    assert_eq!(world.view(panel[2])?.node.slashed, params().unrevealed_penalty.of(UNIT));
    Ok(())
}

#[test]
fn an_output_after_its_deadline_is_refused() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.pass(params().inference_ms + 1)?;
    let commitment = world.output_commitment(id, nodes.0[0].id);
    let late = world.send(&nodes.0[0].operator, 0, call().commit_output(id, nodes.0[0].id, commitment))?;
    assert_eq!(late.unwrap_err(), Error::WrongPhase);
    Ok(())
}

#[test]
fn uncollected_tasks_can_be_cleaned_up_by_anybody_after_the_archive_time() -> Res {
    let mut world = World::with_global(
        &params(),
        GlobalParams { unbonding_ms: 1_000, archive_ms: 50_000, audit_bond: 1 },
    )?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.round(&requester, &nodes, 1, 3, |_| vec![800])?;
    let stranger = world.account()?;
    assert_eq!(world.send(&stranger, 0, call().collect(vec![id]))?.unwrap_err(), Error::NotRequester);
    world.pass(50_001)?;
    let before = world.free(&requester)?;
    let refund = world.send(&stranger, 0, call().collect(vec![id]))??.value;
    assert_eq!(world.free(&requester)?, before + refund, "the refund is still the requester's");
    Ok(())
}

#[test]
fn no_phase_is_a_dead_end() -> Res {
    // Nobody but the keeper moves; whatever state a task is left in, it ends.
    for stop_after in 0..4 {
        let mut world = World::with(&KindParams { quorum: Ratio::ONE, ..params() })?;
        let nodes = world.nodes(1, 6)?;
        let requester = world.account()?;
        let id = world.request(&requester, 1, 3, 10 * UNIT)??;
        if stop_after > 0 {
            world.commit_outputs(id, &nodes.0)?;
        }
        if stop_after > 1 {
            world.draw(id)?;
        }
        if stop_after > 2 {
            let first = world.task(id)?.task.panel[0].node;
            let node = World::find(&nodes.1, first)?.clone();
            world.commit_scores(id, &node, &[500])??;
        }
        let mut steps = 0;
        while !world.task(id)?.task.phase.is_final() {
            world.pass(10 * 60_000)?;
            let _ = world.advance(id)?;
            steps += 1;
            assert!(steps < 12, "the task hangs in {:?}", world.task(id)?.task.phase);
        }
    }
    Ok(())
}
