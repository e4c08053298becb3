//! The whole life of a task, with every amount.

use super::Res;
use poq_contract::errors::Error;
use poq_contract::types::{Change, Commit, NodeStatus, NodeUpdate, Request, Reveal, Role, Source};
use poq_core::reward::RewardWeights;
use poq_core::task::Refusal;
use poq_core::units::{Balance, Ratio};
use poq_core::{Ending, KindParams, Phase, Score};
use poq_runtime_tests::{call, ink_of, World, KIND};
use poq_sandbox::{account_of, dev, runtime, RuntimeCall, UNIT};

const FEE: Balance = 10 * UNIT;

#[test]
fn one_answer_three_evaluators_from_request_to_claim() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let task = world.task(id)?.task;
    assert_eq!((task.phase, task.outputs.len()), (Phase::Inferring, 1));
    assert_eq!(world.balances(&requester)?.pending, FEE);
    assert_eq!(world.view(nodes.0[0].id)?.node.stake.locked, task.terms.inference_at_risk);
    // 2 % for the protocol, four keepers' fees of 0.01, 60 % of the rest for inference, the remainder in three parts.
    assert_eq!(task.terms.inference_slot, 9_760_000_000_000 * 6 / 10);
    assert_eq!(task.terms.evaluator_slot, 9_760_000_000_000 * 4 / 10 / 3);

    world.commit_outputs(id, &nodes.0)?;
    assert_eq!(world.task(id)?.task.phase, Phase::Drawing);
    let mut panel = world.draw(id)?;
    panel.sort_unstable();
    assert_eq!(panel, nodes.1.iter().map(|node| node.id).collect::<Vec<_>>());
    world.score(id, &nodes.1, |_| vec![800])?;

    // The last reveal has settled it.
    let task = world.task(id)?.task;
    assert_eq!((task.phase, task.ending), (Phase::Settled, Ending::Consensus));
    let owed = world.overview()?.liabilities;
    assert_eq!((owed.treasury, owed.escrow), (FEE / 100, 0));
    assert_eq!(owed.claimable + owed.refunds + owed.treasury + owed.burned, FEE);
    // Half of the protocol's fee, and what neither keepers nor evaluators earned.
    assert!(owed.burned + task.keepers >= FEE / 100 + 4 * UNIT / 100, "{owed:?}");

    for node in nodes.0.iter().chain(&nodes.1) {
        let credited = world.view(node.id)?.node.claimable;
        assert!(credited > 0);
        let before = world.free(&node.payee)?;
        assert_eq!(world.send(&node.owner, 0, call().claim(node.id))??.value, credited);
        assert_eq!(world.free(&node.payee)?, before + credited);
        let record = world.view(node.id)?.node.record;
        assert!(record.tasks == 1 && record.earned > 0, "{record:?}");
    }
    let refund = world.task(id)?.task.refund;
    let collected = world.send(&requester, 0, call().collect(vec![id]))??;
    assert_eq!(collected.value, refund);
    assert!(collected.deposit < 0, "collecting returns the storage deposit");
    assert!(world.read(call().task(id))?.is_none());
    assert_eq!(world.send(&dev::bob(), 0, call().burn())??.value, owed.burned);
    let owner = world.owner.clone();
    let to = world.account()?;
    world.send(&owner, 0, call().withdraw_treasury(ink_of(&to), owed.treasury))??;
    // Who drew the panel for the requester, a moment after that was due.
    assert_eq!(world.send(&dev::bob(), 0, call().withdraw())??.value, task.keepers);
    let owed = world.overview()?.liabilities;
    assert_eq!((owed.escrow, owed.refunds, owed.claimable, owed.treasury, owed.burned), (0, 0, 0, 0, 0));
    Ok(())
}

#[test]
fn better_answers_earn_more() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(3, 5)?;
    let requester = world.account()?;
    let id = world.round(&requester, &nodes, 3, 5, |_| vec![900, 500, 100])?;
    let task = world.task(id)?.task;
    let earned = |place: usize| world.view(task.outputs[place].node).map(|view| view.node.claimable);
    assert!(earned(0)? > earned(1)?);
    assert!(earned(1)? > earned(2)?);
    Ok(())
}

#[test]
fn requests_come_in_batches_and_name_their_nodes_or_have_them_drawn() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(3, 3)?;
    let requester = world.account()?;
    let named = vec![nodes.0[2].id, nodes.0[0].id];
    let first = world.request_of(&requester, 0, 3, FEE);
    let first = Request { nodes: named.clone(), ..first };
    let second = world.request_of(&requester, 2, 3, FEE);
    let second = Request { input: Source::Inline(b"a question".to_vec()), ..second };
    let ids = world.send(&requester, 2 * FEE, call().request_tasks(vec![first, second]))??.value;
    let of = |world: &World, id| -> Res<Vec<u32>> {
        Ok(world.task(id)?.task.outputs.iter().map(|slot| slot.node).collect())
    };
    assert_eq!(of(&world, ids[0])?, named);
    assert_eq!(of(&world, ids[1])?.len(), 2);
    assert!(world.task(ids[1])?.task.input.url.is_empty());
    Ok(())
}

#[test]
fn batches_do_what_single_messages_do_and_skip_what_is_wrong() -> Res {
    let mut world = World::new()?;
    let (operator, payee) = (world.account()?, world.account()?);
    let (owner, other) = (world.account()?, world.account()?);
    let first = world.node_of(Role::Inference, 1, 0, 200 * UNIT, owner, operator.clone(), payee.clone())?;
    let second = world.node_of(Role::Inference, 2, 0, 200 * UNIT, other, operator.clone(), payee)?;
    world.nodes(0, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, 3, FEE)??;
    let item = |node, world: &World| Commit { task: id, node, commitment: world.output_commitment(id, node) };
    let mut items = vec![item(first.id, &world), item(99, &world), item(second.id, &world)];
    items[1].task = 77;
    let results = world.send(&operator, 0, call().commit_outputs(items.clone()))??.value;
    assert_eq!((results[0], results[2]), (None, None));
    assert!(results[1].is_some());
    assert_eq!(world.task(id)?.task.phase, Phase::Drawing);
    // Again: accepted, and nothing happens.
    let again = world.send(&operator, 0, call().commit_outputs(vec![items[0]]))??;
    assert_eq!(again.value, vec![None]);
    Ok(())
}

#[test]
fn a_draining_node_finishes_its_duty_and_is_drawn_no_more() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    world.next_epoch()?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let node = nodes.0[0].clone();
    world.send(&node.owner, 0, call().drain(node.id))??;
    assert_eq!(world.view(node.id)?.node.status, NodeStatus::Draining);
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![700])?;
    assert!(world.view(node.id)?.node.claimable > 0);
    world.next_epoch()?;
    assert_eq!(world.request(&requester, 1, 3, FEE)?, Err(Error::TooFewNodes));
    world.send(&node.owner, 0, call().resume(node.id))??;
    world.next_epoch()?;
    world.request(&requester, 1, 3, FEE)??;
    Ok(())
}

#[test]
fn settled_tasks_feed_the_kinds_memory() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    for (round, quality) in [900u32, 300, 600, 200, 950].into_iter().enumerate() {
        world.round(&requester, &nodes, 1, 3, |_| vec![quality])?;
        let ring = world.kind()?.kind.population.ring;
        assert_eq!(usize::from(ring.next), round + 1);
        assert_eq!(ring.entries[round].quality, Ratio::from_permille(quality));
    }
    Ok(())
}

#[test]
fn the_owner_touches_neither_tasks_in_flight_nor_other_peoples_money() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let owner = world.owner.clone();
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let old = world.kind()?.kind.params;
    world.send(&owner, 0, call().set_paused(true))??;
    let stolen = world.send(&owner, 0, call().withdraw_treasury(ink_of(&owner), 1))?;
    assert_eq!(stolen.unwrap_err(), Error::Insolvent, "there is escrow and stake, none of it the treasury's");
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![800])?;
    assert_eq!(world.overview()?.liabilities.treasury, FEE / 100);
    for node in &nodes.1 {
        world.send(&node.owner, 0, call().claim(node.id))??;
    }
    // New parameters are those of later requests.
    world.send(&owner, 0, call().set_paused(false))??;
    let id = world.request(&requester, 1, 3, FEE)??;
    world.change(Change::Kind(KIND, KindParams { delivery_share: Ratio::ZERO, ..old }))?;
    assert_eq!((world.task(id)?.task.terms.version, world.kind()?.kind.version), (1, 2));
    Ok(())
}

#[test]
fn money_sent_without_a_message_is_surplus() -> Res {
    let mut world = World::new()?;
    world.nodes(1, 3)?;
    let owner = world.owner.clone();
    let gift = RuntimeCall::Balances(runtime::BalancesCall::transfer_keep_alive {
        dest: world.contract.clone().into(),
        value: 3 * UNIT,
    });
    world.chain.submit_call(&dev::bob(), gift)?.ok()?;
    assert_eq!(world.overview()?.solvency().surplus, 3 * UNIT);
    let take = |amount| call().withdraw_treasury(ink_of(&dev::alice()), amount);
    assert_eq!(world.send(&owner, 0, take(3 * UNIT + 1))?.unwrap_err(), Error::Insolvent);
    world.send(&owner, 0, take(3 * UNIT))??;
    Ok(())
}

#[test]
fn changing_the_operator_hands_over_the_duty() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let node = nodes.0[0].clone();
    let fresh = world.account()?;
    let update = NodeUpdate { operator: Some(ink_of(&fresh)), ..NodeUpdate::default() };
    world.send(&node.owner, 0, call().configure(node.id, update))??;
    let commitment = world.output_commitment(id, node.id);
    let commit = || call().commit_outputs(vec![Commit { task: id, node: node.id, commitment }]);
    assert_eq!(world.one(&node.operator, commit())?.unwrap_err(), Error::NotOperator);
    world.one(&fresh, commit())??;
    Ok(())
}

#[test]
fn a_commitment_copied_from_another_node_or_task_never_opens() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    let [victim, thief, last] = [0, 1, 2].map(|at| World::find(&nodes.1, panel[at]).unwrap().clone());
    let stolen = world.scores_commitment(&world.reveal_of(id, victim.id, &[700]));
    world.commit_scores(id, &victim, &[700])??;
    world.one(
        &thief.operator,
        call().commit_scores(vec![Commit { task: id, node: thief.id, commitment: stolen }]),
    )??;
    world.commit_scores(id, &last, &[700])??;
    world.reveal(id, &victim, &[700])??;
    // The victim's scores and salt are public now, and open nothing.
    let mut copied = world.reveal_of(id, victim.id, &[700]);
    copied.node = thief.id;
    let refused = world.one(&thief.operator, call().reveal_scores(vec![copied]))?.unwrap_err();
    assert_eq!(refused, Error::Task(Refusal::Mismatch));
    world.reveal(id, &last, &[700])??;
    world.pass(world.kind()?.kind.params.reveal_ms + 1)?;
    world.advance(id)??;
    let view = world.view(thief.id)?.node;
    assert_eq!((view.claimable, view.slashed), (0, world.task(id)?.task.terms.evaluator_at_risk));
    Ok(())
}

#[test]
fn a_payee_below_the_existential_deposit_keeps_its_claim() -> Res {
    let weights = RewardWeights { alpha: Ratio::ONE, beta: Ratio::ZERO };
    let mut world =
        World::with(&KindParams { inference_weights: weights, ..KindParams::without_auditors() })?;
    let (owner, operator) = (world.account()?, world.account()?);
    let ghost = dev::numbered(9_999);
    let mut nodes = world.nodes(0, 3)?;
    nodes.0.push(world.node_of(Role::Inference, 1, 0, 200 * UNIT, owner.clone(), operator, ghost.clone())?);
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    // An answer worth next to nothing earns next to nothing.
    let worth = Score::of(Ratio::from_ppb(2));
    let panel = world.draw(id)?;
    let reveal = |node| Reveal { scores: vec![worth], ..world.reveal_of(id, node, &[0]) };
    let reveals: Vec<Reveal> = panel.into_iter().map(reveal).collect();
    for reveal in &reveals {
        let item = Commit { task: id, node: reveal.node, commitment: world.scores_commitment(reveal) };
        let operator = World::find(&nodes.1, reveal.node)?.operator.clone();
        world.one(&operator, call().commit_scores(vec![item]))??;
    }
    world.send(&dev::bob(), 0, call().reveal_scores(reveals))??;
    let node = nodes.0[0].id;
    let credited = world.view(node)?.node.claimable;
    assert_eq!(credited, Ratio::from_ppb(2).of(world.task(id)?.task.terms.inference_slot));
    assert_eq!(world.send(&owner, 0, call().claim(node))?.unwrap_err(), Error::TransferFailed);
    assert_eq!(world.view(node)?.node.claimable, credited, "nothing is lost");
    assert_eq!(world.chain.balance(&account_of(&ghost))?, 0);
    Ok(())
}
