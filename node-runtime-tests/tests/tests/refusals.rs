//! Every refusal: what is wrong is said by name, and nothing has changed.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{GlobalParams, NodeUpdate, Registration, Role, MAX_BATCH};
use poq_core::params::ParamsError;
use poq_core::{KindParams, Ratio};
use poq_runtime_tests::{call, ink_of, input, World, KIND};
use poq_sandbox::{dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;

fn registration(world: &World, kind: u16) -> Registration {
    Registration {
        role: Role::Inference,
        kind,
        operator: ink_of(&world.owner),
        payee: ink_of(&world.owner),
        model: "m".into(),
        model_digest: [1; 32],
        endpoint: "http://127.0.0.1".into(),
        price: 0,
    }
}

#[test]
fn strangers_may_not_do_the_owners_work() -> Res {
    let mut world = World::new()?;
    let stranger = world.account()?;
    let global = GlobalParams { unbonding_ms: 1, archive_ms: 1, audit_bond: 1 };
    let refused = Error::NotContractOwner;
    assert_eq!(
        world.send(&stranger, 0, call().set_kind(2, KindParams::without_auditors()))?.unwrap_err(),
        refused
    );
    assert_eq!(world.send(&stranger, 0, call().set_global(global))?.unwrap_err(), refused);
    assert_eq!(world.send(&stranger, 0, call().set_paused(true))?.unwrap_err(), refused);
    assert_eq!(world.send(&stranger, 0, call().propose_owner(ink_of(&stranger)))?.unwrap_err(), refused);
    assert_eq!(
        world.send(&stranger, 0, call().withdraw_treasury(ink_of(&stranger), 1))?.unwrap_err(),
        refused
    );
    assert_eq!(world.send(&stranger, 0, call().accept_ownership())?.unwrap_err(), Error::NotProposed);
    Ok(())
}

#[test]
fn ownership_moves_in_two_steps() -> Res {
    let mut world = World::new()?;
    let (owner, next) = (world.owner.clone(), world.account()?);
    world.send(&owner, 0, call().propose_owner(ink_of(&next)))??;
    assert_eq!(world.overview()?.owner, ink_of(&owner));
    world.send(&next, 0, call().accept_ownership())??;
    assert_eq!(world.overview()?.owner, ink_of(&next));
    assert_eq!(world.overview()?.proposed, None);
    assert_eq!(world.send(&owner, 0, call().set_paused(true))?.unwrap_err(), Error::NotContractOwner);
    Ok(())
}

#[test]
fn bad_parameters_are_refused_by_rule() -> Res {
    let mut world = World::new()?;
    let owner = world.owner.clone();
    let mut refuse = |params: KindParams, rule: ParamsError| -> Res {
        assert_eq!(
            world.send(&owner, 0, call().set_kind(KIND, params))?.unwrap_err(),
            Error::BadParams(rule)
        );
        Ok(())
    };
    let good = KindParams::default;
    refuse(KindParams { trust_floor: Ratio::ZERO, ..good() }, ParamsError::TrustFloor)?;
    refuse(KindParams { price_cap: 0, ..good() }, ParamsError::PriceCap)?;
    refuse(KindParams { stake_min: 0, ..good() }, ParamsError::Stake)?;
    refuse(KindParams { reveal_ms: 0, ..good() }, ParamsError::Deadlines)?;
    refuse(KindParams { panel_max: 16, ..good() }, ParamsError::PanelSize)?;
    refuse(KindParams { unrevealed_penalty: Ratio::ZERO, ..good() }, ParamsError::Penalties)?;
    assert_eq!(world.kind()?.version, 1);
    let global = GlobalParams { unbonding_ms: 0, archive_ms: 1, audit_bond: 1 };
    assert_eq!(world.send(&owner, 0, call().set_global(global))?.unwrap_err(), Error::BadAmount);
    Ok(())
}

#[test]
fn registering() -> Res {
    let mut world = World::new()?;
    let somebody = world.account()?;
    let message = call().register(registration(&world, 9));
    assert_eq!(world.send(&somebody, 0, message)?.unwrap_err(), Error::NoKind);
    let long = Registration { endpoint: "x".repeat(257), ..registration(&world, KIND) };
    assert_eq!(world.send(&somebody, 0, call().register(long))?.unwrap_err(), Error::TextTooLong);
    for _ in 0..32 {
        let message = call().register(registration(&world, KIND));
        world.send(&somebody, 0, message)??;
    }
    let message = call().register(registration(&world, KIND));
    assert_eq!(world.send(&somebody, 0, message)?.unwrap_err(), Error::TooMany);
    Ok(())
}

#[test]
fn nodes_belong_to_their_owners() -> Res {
    let mut world = World::new()?;
    let node = world.node(Role::Inference, 1, 0, 20 * UNIT)?;
    let stranger = world.account()?;
    for who in [&stranger, &node.operator, &node.payee] {
        assert_eq!(world.send(who, 0, call().unstake(node.id, UNIT))?.unwrap_err(), Error::NotNodeOwner);
        assert_eq!(world.send(who, 0, call().withdraw_unbonded(node.id))?.unwrap_err(), Error::NotNodeOwner);
        assert_eq!(world.send(who, 0, call().drain(node.id))?.unwrap_err(), Error::NotNodeOwner);
        assert_eq!(world.send(who, 0, call().deregister(node.id))?.unwrap_err(), Error::NotNodeOwner);
        let update = NodeUpdate { payee: Some(ink_of(&stranger)), ..NodeUpdate::default() };
        assert_eq!(world.send(who, 0, call().configure(node.id, update))?.unwrap_err(), Error::NotNodeOwner);
    }
    assert_eq!(world.send(&stranger, 0, call().claim(node.id))?.unwrap_err(), Error::NotPayee);
    assert_eq!(
        world.send(&node.operator, 0, call().claim(node.id))?.unwrap_err(),
        Error::NotPayee,
        "the hot key cannot claim"
    );
    assert_eq!(world.send(&node.owner, 0, call().claim(node.id))?.unwrap_err(), Error::NothingToWithdraw);
    assert_eq!(world.send(&node.owner, 0, call().claim(99))?.unwrap_err(), Error::NoNode);
    assert_eq!(world.send(&node.owner, 0, call().stake(node.id))?.unwrap_err(), Error::BadAmount);
    assert_eq!(
        world.send(&node.owner, 0, call().unstake(node.id, 21 * UNIT))?.unwrap_err(),
        Error::BadAmount
    );
    assert_eq!(
        world.send(&node.owner, 0, call().unstake(node.id, 15 * UNIT))?.unwrap_err(),
        Error::StakeBelowMinimum
    );
    assert_eq!(
        world.send(&node.owner, 0, call().withdraw_unbonded(node.id))?.unwrap_err(),
        Error::NothingToWithdraw
    );
    assert_eq!(world.send(&node.owner, 0, call().deregister(node.id))?.unwrap_err(), Error::NodeInUse);
    Ok(())
}

#[test]
fn requesting() -> Res {
    let mut world = World::new()?;
    let requester = world.account()?;
    assert_eq!(world.request(&requester, 1, 3, 10 * UNIT)?, Err(Error::TooFewNodes));
    world.nodes(1, 3)?;
    let quote = world.quote(1, 3)?;
    assert_eq!(world.request(&requester, 1, 3, quote.fee_min - 1)?, Err(Error::FeeTooSmall));
    assert_eq!(world.request(&requester, 0, 3, 10 * UNIT)?, Err(Error::PanelSize));
    assert_eq!(world.request(&requester, 5, 3, 10 * UNIT)?, Err(Error::PanelSize));
    assert_eq!(world.request(&requester, 1, 2, 10 * UNIT)?, Err(Error::PanelSize));
    assert_eq!(world.request(&requester, 1, 16, 10 * UNIT)?, Err(Error::PanelSize));
    let nowhere = call().request_task(7, 1, 3, input(), [7; 32]);
    assert_eq!(world.send(&requester, 10 * UNIT, nowhere)?.unwrap_err(), Error::NoKind);
    let long = poq_contract::types::TaskInput { url: "x".repeat(257), ..input() };
    let long = call().request_task(KIND, 1, 3, long, [7; 32]);
    assert_eq!(world.send(&requester, 10 * UNIT, long)?.unwrap_err(), Error::TextTooLong);
    let owner = world.owner.clone();
    world.send(&owner, 0, call().set_paused(true))??;
    assert_eq!(world.request(&requester, 1, 3, 10 * UNIT)?, Err(Error::Paused));
    world.send(&owner, 0, call().set_paused(false))??;
    world.request(&requester, 1, 3, quote.fee_min)??;
    Ok(())
}

#[test]
fn duties_are_refused_out_of_turn() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 4)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let drawn = world.task(id)?.task.outputs[0].node;
    let node = World::find(&nodes.0, drawn)?.clone();
    let other = nodes.0.iter().find(|n| n.id != drawn).unwrap().clone();
    let commitment = world.output_commitment(id, drawn);
    let commit = |task, node| call().commit_output(task, node, commitment);
    assert_eq!(world.send(&node.operator, 0, commit(99, drawn))?.unwrap_err(), Error::NoTask);
    assert_eq!(world.send(&other.operator, 0, commit(id, other.id))?.unwrap_err(), Error::NotAssigned);
    assert_eq!(world.send(&other.operator, 0, commit(id, drawn))?.unwrap_err(), Error::NotOperator);
    assert_eq!(world.send(&node.owner, 0, commit(id, drawn))?.unwrap_err(), Error::NotOperator);
    let zero = call().commit_output(id, drawn, [0; 32]);
    assert_eq!(world.send(&node.operator, 0, zero)?.unwrap_err(), Error::BadCommitment);
    assert_eq!(world.send(&dev::bob(), 0, call().draw_panel(id))?.unwrap_err(), Error::TooEarly);
    assert_eq!(world.send(&dev::bob(), 0, call().settle(id))?.unwrap_err(), Error::TooEarly);
    let evaluator = nodes.1[0].clone();
    assert_eq!(world.commit_scores(id, &evaluator, &[500])?, Err(Error::NotAssigned));
    world.send(&node.operator, 0, commit(id, drawn))??;
    world.send(&node.operator, 0, commit(id, drawn))??;
    let different = call().commit_output(id, drawn, [1; 32]);
    assert_eq!(world.send(&node.operator, 0, different)?.unwrap_err(), Error::AlreadyCommitted);

    let panel = world.draw(id)?;
    let member = World::find(&nodes.1, panel[0])?.clone();
    assert_eq!(world.reveal(id, &member, &[500])?, Err(Error::NotCommitted));
    world.commit_scores(id, &member, &[500])??;
    world.commit_scores(id, &member, &[500])??;
    assert_eq!(world.commit_scores(id, &member, &[501])?, Err(Error::AlreadyCommitted));
    assert_eq!(
        world.reveal(id, &member, &[500])?,
        Err(Error::WrongPhase),
        "not before everybody has committed"
    );
    for seat in &panel[1..] {
        let node = World::find(&nodes.1, *seat)?.clone();
        world.commit_scores(id, &node, &[500])??;
    }
    assert_eq!(world.reveal(id, &member, &[500, 500])?, Err(Error::BadScores));
    world.reveal(id, &member, &[500])??;
    assert_eq!(world.reveal(id, &member, &[500])?, Err(Error::AlreadyRevealed));
    let outsider = nodes.1.iter().find(|n| !panel.contains(&n.id)).unwrap().clone();
    assert_eq!(world.reveal(id, &outsider, &[500])?, Err(Error::NotAssigned));
    assert_eq!(world.send(&requester, 0, call().collect(vec![id]))?.unwrap_err(), Error::NotFinal);
    Ok(())
}

#[test]
fn batches_are_bounded() -> Res {
    let mut world = World::new()?;
    let somebody = world.account()?;
    assert_eq!(world.send(&somebody, 0, call().advance(vec![]))?.unwrap_err(), Error::BatchSize);
    let many = vec![1; MAX_BATCH + 1];
    assert_eq!(world.send(&somebody, 0, call().advance(many.clone()))?.unwrap_err(), Error::BatchSize);
    assert_eq!(world.send(&somebody, 0, call().collect(many))?.unwrap_err(), Error::BatchSize);
    assert_eq!(world.send(&somebody, 0, call().commit_outputs(vec![]))?.unwrap_err(), Error::BatchSize);
    assert_eq!(world.send(&somebody, 0, call().collect(vec![5]))?.unwrap_err(), Error::NoTask);
    Ok(())
}

#[test]
fn a_score_above_one_is_not_understood() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    // A raw reveal whose score is 1,000,000,001 parts per billion.
    use parity_scale_codec::Encode;
    let data = [
        ink::selector_bytes!("reveal_scores").to_vec(),
        (id, 1u32, vec![1_000_000_001u32], [0u8; 32], [0u8; 32]).encode(),
    ]
    .concat();
    let contract = world.contract.clone();
    assert!(world.chain.call(&nodes.1[0].operator, &contract, 0, data).is_err());
    Ok(())
}
