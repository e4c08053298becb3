//! The threats of the design, each with what the contract does about it.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{NodeUpdate, Role, SeatState};
use poq_core::params::{MeritRule, TrustRule};
use poq_core::{Aggregation, KindParams, Ratio};
use poq_runtime_tests::{call, ink_of, TestNode, World, KIND};
use poq_sandbox::{account_of, call_of, dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;

/// Requests, answers and draws; returns the task with its panel.
fn drawn(
    world: &mut World,
    nodes: &(Vec<TestNode>, Vec<TestNode>),
    panel: u8,
) -> Result<(u64, Vec<TestNode>), Box<dyn std::error::Error>> {
    let requester = world.account()?;
    let id = world.request(&requester, 1, panel, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let members = world.draw(id)?;
    let members =
        members.iter().map(|id| World::find(&nodes.1, *id).cloned()).collect::<Result<Vec<_>, _>>()?;
    Ok((id, members))
}

#[test]
fn score_copying_a_copied_commitment_does_not_open() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let (id, panel) = drawn(&mut world, &nodes, 3)?;
    let reveal = world.reveal_of(id, panel[0].id, &[800]);
    let commitment = world.scores_commitment(&reveal);
    world.commit_scores(id, &panel[0], &[800])??;
    // The copier commits to the very same hash, waits for the reveal, and repeats it.
    world.send(&panel[1].operator, 0, call().commit_scores(id, panel[1].id, commitment))??;
    world.commit_scores(id, &panel[2], &[800])??;
    world.reveal(id, &panel[0], &[800])??;
    world.reveal(id, &panel[2], &[800])??;
    let copied = poq_contract::types::Reveal { node: panel[1].id, ..reveal };
    world.send(&panel[1].operator, 0, call().reveal_scores(copied))??;
    assert_eq!(
        world.task(id)?.task.panel.iter().find(|s| s.node == panel[1].id).unwrap().state,
        SeatState::Mismatched
    );
    world.settle(id)?;
    let copier = world.view(panel[1].id)?.node;
    assert_eq!((copier.claimable, copier.slashed), (0, UNIT), "it lost all that was at risk");
    Ok(())
}

#[test]
fn a_commitment_replayed_in_another_task_does_not_open() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let (first, panel) = drawn(&mut world, &nodes, 3)?;
    let reveal = world.reveal_of(first, panel[0].id, &[800]);
    let commitment = world.scores_commitment(&reveal);
    let (second, _) = drawn(&mut world, &nodes, 3)?;
    world.send(&panel[0].operator, 0, call().commit_scores(second, panel[0].id, commitment))??;
    for node in &panel[1..] {
        world.commit_scores(second, node, &[800])??;
    }
    let replayed = poq_contract::types::Reveal { task: second, ..reveal };
    world.send(&panel[0].operator, 0, call().reveal_scores(replayed))??;
    let task = world.task(second)?.task;
    assert_eq!(task.panel.iter().find(|s| s.node == panel[0].id).unwrap().state, SeatState::Mismatched);
    Ok(())
}

#[test]
fn a_commitment_made_for_another_contract_does_not_open() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let (id, panel) = drawn(&mut world, &nodes, 3)?;
    let reveal = world.reveal_of(id, panel[0].id, &[800]);
    let elsewhere = poq_runtime_tests::blake2(&poq_core::commitment::scores(
        &[42; 32],
        id,
        panel[0].id,
        &reveal.scores,
        &reveal.report_hash,
        &reveal.salt,
    ));
    world.send(&panel[0].operator, 0, call().commit_scores(id, panel[0].id, elsewhere))??;
    for node in &panel[1..] {
        world.commit_scores(id, node, &[800])??;
    }
    world.send(&panel[0].operator, 0, call().reveal_scores(reveal))??;
    assert_eq!(
        world.task(id)?.task.panel.iter().find(|s| s.node == panel[0].id).unwrap().state,
        SeatState::Mismatched
    );
    Ok(())
}

#[test]
fn the_last_revealer_gains_nothing_by_hiding() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let (id, panel) = drawn(&mut world, &nodes, 3)?;
    world.commit_scores(id, &panel[0], &[800])??;
    world.commit_scores(id, &panel[1], &[800])??;
    world.commit_scores(id, &panel[2], &[0])??; // sees the others and regrets
    world.reveal(id, &panel[0], &[800])??;
    world.reveal(id, &panel[1], &[800])??;
    world.pass(KindParams::without_auditors().reveal_ms + 1)?;
    world.settle(id)?;
    let hidden = world.view(panel[2].id)?.node;
    let defaults = KindParams::without_auditors();
    assert_eq!(hidden.slashed, defaults.unrevealed_penalty.of(UNIT));
    assert!(
        defaults.unrevealed_penalty >= defaults.outlier_penalty,
        "hiding costs at least what being wrong costs"
    );
    Ok(())
}

#[test]
fn boosting_and_sabotage_are_slashed_alike_and_do_not_move_the_median() -> Res {
    for attack in [1_000u32, 0] {
        let mut world = World::new()?;
        let nodes = world.nodes(1, 5)?;
        let (id, panel) = drawn(&mut world, &nodes, 5)?;
        let honest = if attack == 0 { 900 } else { 100 };
        let scores =
            |node: u32| if panel[..2].iter().any(|n| n.id == node) { vec![attack] } else { vec![honest] };
        world.score(id, &nodes.1, scores)?;
        world.settle(id)?;
        assert_eq!(world.task(id)?.task.outputs[0].quality.quality(), Some(Ratio::from_permille(honest)));
        for attacker in &panel[..2] {
            let node = world.view(attacker.id)?.node;
            assert_eq!(
                (node.claimable, node.slashed),
                (0, KindParams::without_auditors().outlier_penalty.of(UNIT))
            );
        }
    }
    Ok(())
}

/// Earnings of a constant scorer and of the honest over tasks of varying quality.
fn constant_against_honest(params: &KindParams) -> Result<(u128, u128), Box<dyn std::error::Error>> {
    let mut world = World::with(params)?;
    let nodes = world.nodes(1, 5)?;
    let requester = world.account()?;
    let lazy = nodes.1[0].id;
    let rounds = |qualities: &[u32], world: &mut World| -> Res {
        for quality in qualities {
            world.round(&requester, &nodes, 1, 5, |node| vec![if node == lazy { 620 } else { *quality }])?;
        }
        Ok(())
    };
    let earned = |world: &World, id: u32| world.view(id).map(|view| view.node.claimable);
    // A kind without history has nothing unrelated to compare with, and closeness stands in.
    rounds(&[950, 300, 800, 450, 900], &mut world)?;
    let mut before = Vec::new();
    for node in &nodes.1 {
        before.push(earned(&world, node.id)?);
    }
    rounds(&[350, 900, 250, 850, 300, 920, 280, 950], &mut world)?;
    let mut gained = Vec::new();
    for (node, before) in nodes.1.iter().zip(before) {
        gained.push(earned(&world, node.id)? - before);
    }
    let honest = gained[1..].iter().sum::<u128>() / 4;
    Ok((gained[0], honest))
}

#[test]
fn constant_scorers_earn_next_to_nothing_under_the_information_rule() -> Res {
    let params = KindParams { aggregation: Aggregation::Median, ..KindParams::without_auditors() };
    let (lazy, honest) = constant_against_honest(&params)?;
    assert!(lazy * 4 < honest, "the constant scorer earned {lazy}, an honest one {honest}");
    let papers = KindParams {
        merit: MeritRule::Closeness,
        trust: TrustRule::Multiplicative { eta: Ratio::from_permille(100) },
        ..params
    };
    let (lazy, honest) = constant_against_honest(&papers)?;
    assert!(lazy * 2 > honest, "under the papers' rule it earned {lazy}, an honest one {honest}");
    Ok(())
}

#[test]
fn nobody_scores_their_own_answer_or_their_own_request() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    // The answering node's owner has an evaluator, and so has the requester; both with most of the stake.
    let owner = nodes.0[0].owner.clone();
    let (operator, payee) = (world.account()?, world.account()?);
    let own = world.node_of(Role::Evaluator, 77, 0, 900 * UNIT, owner, operator, payee)?;
    let requester = world.account()?;
    let (operator, payee) = (world.account()?, world.account()?);
    let asked = world.node_of(Role::Evaluator, 78, 0, 900 * UNIT, requester.clone(), operator, payee)?;
    for _ in 0..6 {
        let id = world.request(&requester, 1, 3, 10 * UNIT)??;
        world.commit_outputs(id, &nodes.0)?;
        let panel = world.draw(id)?;
        assert!(!panel.contains(&own.id) && !panel.contains(&asked.id));
        world.score(id, &nodes.1, |_| vec![600])?;
        world.settle(id)?;
    }
    Ok(())
}

#[test]
fn one_owner_sits_once_on_a_panel_however_many_nodes_it_has() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let sybil = world.account()?;
    let mut ids = Vec::new();
    for model in 0..6 {
        let (operator, payee) = (world.account()?, world.account()?);
        ids.push(
            world.node_of(Role::Evaluator, 50 + model, 0, 1_000 * UNIT, sybil.clone(), operator, payee)?.id,
        );
    }
    for _ in 0..6 {
        let requester = world.account()?;
        let id = world.request(&requester, 1, 3, 10 * UNIT)??;
        world.commit_outputs(id, &nodes.0)?;
        let panel = world.draw(id)?;
        assert!(panel.iter().filter(|node| ids.contains(node)).count() <= 1);
    }
    Ok(())
}

#[test]
fn no_model_has_more_than_half_of_a_panel_where_others_are_to_be_had() -> Res {
    let mut world = World::new()?;
    let inference = world.node(Role::Inference, 1, 0, 100 * UNIT)?;
    for _ in 0..6 {
        world.node(Role::Evaluator, 200, 0, 1_000 * UNIT)?; // one model, most of the weight
    }
    for model in 0..3 {
        world.node(Role::Evaluator, 100 + model, 0, 20 * UNIT)?;
    }
    for _ in 0..5 {
        let requester = world.account()?;
        let id = world.request(&requester, 1, 4, 10 * UNIT)??;
        world.commit_outputs(id, std::slice::from_ref(&inference))?;
        let panel = world.draw(id)?;
        let mut same = 0;
        for node in panel {
            same += usize::from(world.view(node)?.node.model_digest == [200; 32]);
        }
        assert!(same <= 2, "{same} of 4 have one model");
    }
    Ok(())
}

#[test]
fn the_panel_is_drawn_in_a_later_block_than_the_last_output() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let node = nodes.0[0].clone();
    let commitment = world.output_commitment(id, node.id);
    // Both in one block: the second fails whatever it was dry-run as.
    let contract = world.contract.clone();
    let commit = poq_runtime_tests::encode(call().commit_output(id, node.id, commitment));
    let draw = poq_runtime_tests::encode(call().draw_panel(id));
    let gas = poq_sandbox::Weight::from_parts(100_000_000_000, 10_000_000);
    let calls = vec![call_of(&contract, 0, gas, None, commit), call_of(&contract, 0, gas, None, draw)];
    let batch = poq_sandbox::RuntimeCall::Utility(poq_sandbox::runtime::UtilityCall::batch { calls });
    world.chain.submit_call(&node.operator, batch)?;
    let task = world.task(id)?.task;
    assert_eq!(task.phase, poq_core::Phase::Drawing, "the commitment went in, the draw did not");
    world.draw(id)?;
    Ok(())
}

#[test]
fn unbonding_does_not_escape_a_slash() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let (id, panel) = drawn(&mut world, &nodes, 3)?;
    let cheat = panel[0].clone();
    // Everything that is free leaves; what is at risk cannot.
    assert_eq!(
        world.send(&cheat.owner, 0, call().unstake(cheat.id, 100 * UNIT))?.unwrap_err(),
        Error::BadAmount
    );
    assert_eq!(
        world.send(&cheat.owner, 0, call().unstake(cheat.id, 99 * UNIT))?.unwrap_err(),
        Error::StakeBelowMinimum
    );
    world.commit_scores(id, &cheat, &[800])??;
    world.commit_scores(id, &panel[1], &[800])??;
    world.commit_scores(id, &panel[2], &[800])??;
    world.reveal(id, &panel[1], &[800])??;
    world.reveal(id, &panel[2], &[800])??;
    world.pass(KindParams::without_auditors().reveal_ms + 1)?;
    world.settle(id)?;
    assert_eq!(world.view(cheat.id)?.node.slashed, UNIT);
    assert_eq!(world.send(&cheat.owner, 0, call().deregister(cheat.id))?.unwrap_err(), Error::NodeInUse);
    Ok(())
}

#[test]
fn the_owner_cannot_touch_tasks_in_flight_nor_other_peoples_money() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let owner = world.owner.clone();
    let (id, _) = drawn(&mut world, &nodes, 3)?;
    let greedy = KindParams { protocol_fee: Ratio::ONE, reveal_ms: 1_000, ..KindParams::without_auditors() };
    world.send(&owner, 0, call().set_kind(KIND, greedy))??;
    world.send(&owner, 0, call().set_paused(true))??;
    let stolen = world.send(&owner, 0, call().withdraw_treasury(ink_of(&owner), 1))?;
    assert_eq!(
        stolen.unwrap_err(),
        Error::Insolvent,
        "there is escrow and stake, and none of it is the treasury's"
    );
    world.score(id, &nodes.1, |_| vec![800])?;
    world.settle(id)?;
    assert_eq!(world.overview()?.liabilities.treasury, 200_000_000_000, "2 %, as when it was requested");
    for node in &nodes.1 {
        world.send(&node.owner, 0, call().claim(node.id))??;
    }
    Ok(())
}

#[test]
fn money_sent_without_a_message_is_surplus_and_the_only_thing_beyond_the_treasury_to_withdraw() -> Res {
    let mut world = World::new()?;
    world.nodes(1, 3)?;
    let owner = world.owner.clone();
    let contract = world.contract.clone();
    let gift = poq_sandbox::RuntimeCall::Balances(poq_sandbox::runtime::BalancesCall::transfer_keep_alive {
        dest: contract.into(),
        value: 3 * UNIT,
    });
    world.chain.submit_call(&dev::bob(), gift)?.ok()?;
    assert_eq!(world.overview()?.solvency().surplus, 3 * UNIT);
    let too_much = world.send(&owner, 0, call().withdraw_treasury(ink_of(&owner), 3 * UNIT + 1))?;
    assert_eq!(too_much.unwrap_err(), Error::Insolvent);
    world.send(&owner, 0, call().withdraw_treasury(ink_of(&owner), 3 * UNIT))??;
    Ok(())
}

#[test]
fn dust_fees_are_refused_and_rounding_has_an_owner() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let fee = world.quote(1, 3)?.fee_min + 7;
    assert_eq!(world.request(&requester, 1, 3, 1)?, Err(Error::FeeTooSmall));
    let id = world.request(&requester, 1, 3, fee)??;
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |node| vec![333 + node])?;
    world.settle(id)?;
    let owed = world.overview()?.liabilities;
    assert_eq!(owed.claimable + owed.refunds + owed.treasury, fee);
    Ok(())
}

#[test]
fn changing_the_operator_hands_over_the_duty() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let node = nodes.0[0].clone();
    let fresh = world.account()?;
    let update = NodeUpdate { operator: Some(ink_of(&fresh)), ..NodeUpdate::default() };
    world.send(&node.owner, 0, call().configure(node.id, update))??;
    let commitment = world.output_commitment(id, node.id);
    let stolen = world.send(&node.operator, 0, call().commit_output(id, node.id, commitment))?;
    assert_eq!(stolen.unwrap_err(), Error::NotOperator);
    world.send(&fresh, 0, call().commit_output(id, node.id, commitment))??;
    Ok(())
}

#[test]
fn a_payee_below_the_existential_deposit_keeps_its_claim() -> Res {
    let tiny = KindParams { inference_slot_min: 1, evaluator_slot_min: 1, ..KindParams::without_auditors() };
    let mut world = World::with(&tiny)?;
    let mut nodes = world.nodes(0, 3)?;
    let (owner, operator) = (world.account()?, world.account()?);
    let ghost = dev::numbered(9_999);
    nodes.0.push(world.node_of(Role::Inference, 1, 0, 100 * UNIT, owner, operator, ghost.clone())?);
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 1_000)??;
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![900])?;
    world.settle(id)?;
    let node = nodes.0[0].clone();
    let credited = world.view(node.id)?.node.claimable;
    assert!(credited > 0 && credited < 1_000);
    assert_eq!(world.send(&node.owner, 0, call().claim(node.id))?.unwrap_err(), Error::TransferFailed);
    assert_eq!(world.view(node.id)?.node.claimable, credited, "nothing is lost");
    assert_eq!(world.chain.balance(&account_of(&ghost))?, 0);
    Ok(())
}
