//! Every refusal: what is wrong is said by name, and nothing has changed.
//!
//! Not here, because nothing reaches them: `Overflow` (nobody has 2^128 units), and `Registry`, which only a storage that is not
//! the registry's could show. `TransferFailed` and `Insolvent` are in `lifecycle.rs`; `BadCode` and `NotItself` in `code.rs`;
//! `NotDue` in `chain_findings.rs` too.

use super::Res;
use ink::primitives::AccountId;
use parity_scale_codec::Encode;
use poq_contract::errors::Error;
use poq_contract::types::{
    Change, Commit, Decline, DeclineReason, GlobalParams, Lever, NodeUpdate, Opening, Registration, Request,
    Role, Source, MAX_BATCH,
};
use poq_core::params::ParamsError;
use poq_core::task::Refusal;
use poq_core::units::Balance;
use poq_core::{KindParams, Phase, Ratio, Score};
use poq_runtime_tests::{call, global, ink_of, Pair, World, KIND};
use poq_sandbox::{dev, UNIT};

const FEE: Balance = 10 * UNIT;

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
    let me = ink_of(&stranger);
    let refused = Err(Error::NotContractOwner);
    let propose = call().propose(Change::Kind(2, KindParams::without_auditors()));
    assert_eq!(world.send(&stranger, 0, propose)?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().propose(Change::Global(global())))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().propose(Change::Appoint(me)))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().cancel(Lever::Kind(KIND)))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().set_paused(true))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().dismiss_auditor(me))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().propose_owner(me))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().withdraw_treasury(me, 1))?.map(|_| ()), refused);
    assert_eq!(world.send(&stranger, 0, call().accept_ownership())?.unwrap_err(), Error::NotProposed);
    Ok(())
}

#[test]
fn ownership_moves_in_two_steps() -> Res {
    let mut world = World::new()?;
    let (owner, next) = (world.owner.clone(), world.account()?);
    world.send(&owner, 0, call().propose_owner(ink_of(&next)))??;
    assert_eq!(world.overview()?.owner, ink_of(&owner));
    assert_eq!(world.send(&dev::bob(), 0, call().accept_ownership())?.unwrap_err(), Error::NotProposed);
    world.send(&next, 0, call().accept_ownership())??;
    assert_eq!((world.overview()?.owner, world.overview()?.proposed), (ink_of(&next), None));
    assert_eq!(world.send(&owner, 0, call().set_paused(true))?.unwrap_err(), Error::NotContractOwner);
    Ok(())
}

#[test]
fn changes_are_refused_by_rule() -> Res {
    let mut world = World::new()?;
    let owner = world.owner.clone();
    let good = KindParams::default;
    for (params, rule) in [
        (KindParams { trust_floor: Ratio::ZERO, ..good() }, ParamsError::TrustFloor),
        (KindParams { price_cap: 0, ..good() }, ParamsError::PriceCap),
        (KindParams { stake_min: 0, ..good() }, ParamsError::Stake),
        (KindParams { reveal_ms: 0, ..good() }, ParamsError::Deadlines),
        (KindParams { panel_max: 16, ..good() }, ParamsError::PanelSize),
        (KindParams { unrevealed_penalty: Ratio::ZERO, ..good() }, ParamsError::Penalties),
        (KindParams { inference_risk: 3, ..good() }, ParamsError::AtRisk),
        (KindParams { commit_ms: 500_000, ..good() }, ParamsError::Epoch),
    ] {
        let refused = world.send(&owner, 0, call().propose(Change::Kind(KIND, params)))?.unwrap_err();
        assert_eq!(refused, Error::BadParams(rule));
    }
    assert_eq!(world.kind()?.kind.version, 1);
    for global in
        [GlobalParams { unbonding_ms: 1, ..global() }, GlobalParams { params_delay_ms: 1, ..global() }]
    {
        let refused = world.send(&owner, 0, call().propose(Change::Global(global)))?.unwrap_err();
        assert_eq!(refused, Error::BadAmount);
    }
    let slash = call().propose(Change::SlashAuditor(AccountId::from([1; 32]), UNIT));
    assert_eq!(world.send(&owner, 0, slash)?.unwrap_err(), Error::NotAuditor);
    let nobody = call().dismiss_auditor(AccountId::from([1; 32]));
    assert_eq!(world.send(&owner, 0, nobody)?.unwrap_err(), Error::NotAuditor);

    // From the first node on everything waits, one of each, so many in all.
    world.node(Role::Inference, 1, 0, 0)?;
    assert_eq!(world.send(&owner, 0, call().enact(Lever::Global))?.unwrap_err(), Error::NotPending);
    assert_eq!(world.send(&owner, 0, call().cancel(Lever::Global))?.unwrap_err(), Error::NotPending);
    for number in 0..16u8 {
        world.send(&owner, 0, call().propose(Change::Appoint(AccountId::from([number + 2; 32]))))??;
    }
    let again = call().propose(Change::Appoint(AccountId::from([2; 32])));
    assert_eq!(world.send(&owner, 0, again)?.unwrap_err(), Error::AlreadyPending);
    let more = call().propose(Change::Global(global()));
    assert_eq!(world.send(&owner, 0, more)?.unwrap_err(), Error::TooMany);
    let early = call().enact(Lever::Appoint(AccountId::from([2; 32])));
    assert_eq!(world.send(&dev::bob(), 0, early)?.unwrap_err(), Error::NotDue);
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
    let refused = Err(Error::NotNodeOwner);
    for who in [&stranger, &node.operator, &node.payee] {
        assert_eq!(world.send(who, UNIT, call().stake(node.id))?.map(|_| ()), refused);
        assert_eq!(world.send(who, 0, call().unstake(node.id, UNIT))?.map(|_| ()), refused);
        assert_eq!(world.send(who, 0, call().withdraw_unbonded(node.id))?.map(|_| ()), refused);
        assert_eq!(world.send(who, 0, call().drain(node.id))?.map(|_| ()), refused);
        assert_eq!(world.send(who, 0, call().resume(node.id))?.map(|_| ()), refused);
        assert_eq!(world.send(who, 0, call().deregister(node.id))?.map(|_| ()), refused);
        let update = NodeUpdate { payee: Some(ink_of(&stranger)), ..NodeUpdate::default() };
        assert_eq!(world.send(who, 0, call().configure(node.id, update))?.map(|_| ()), refused);
    }
    for who in [&stranger, &node.operator] {
        assert_eq!(world.send(who, 0, call().claim(node.id))?.unwrap_err(), Error::NotPayee);
    }
    let owner = &node.owner;
    assert_eq!(world.send(owner, 0, call().claim(node.id))?.unwrap_err(), Error::NothingToWithdraw);
    assert_eq!(world.send(owner, 0, call().claim(99))?.unwrap_err(), Error::NoNode);
    assert_eq!(world.send(owner, 0, call().refresh(vec![99]))?.unwrap_err(), Error::NoNode);
    assert_eq!(world.send(owner, 0, call().stake(node.id))?.unwrap_err(), Error::BadAmount);
    assert_eq!(world.send(owner, 0, call().unstake(node.id, 0))?.unwrap_err(), Error::BadAmount);
    assert_eq!(world.send(owner, 0, call().unstake(node.id, 21 * UNIT))?.unwrap_err(), Error::BadAmount);
    let nothing = world.send(owner, 0, call().withdraw_unbonded(node.id))?.unwrap_err();
    assert_eq!(nothing, Error::NothingToWithdraw);
    world.send(owner, 0, call().unstake(node.id, UNIT))??;
    let waiting = world.send(owner, 0, call().withdraw_unbonded(node.id))?.unwrap_err();
    assert_eq!(waiting, Error::StillUnbonding);
    assert_eq!(world.send(owner, 0, call().deregister(node.id))?.unwrap_err(), Error::NodeInUse);
    let update = NodeUpdate { endpoint: Some("x".repeat(257)), ..NodeUpdate::default() };
    assert_eq!(world.send(owner, 0, call().configure(node.id, update))?.unwrap_err(), Error::TextTooLong);
    assert_eq!(world.send(&stranger, 0, call().withdraw())?.unwrap_err(), Error::NothingToWithdraw);
    assert_eq!(world.send(&stranger, 0, call().burn())?.unwrap_err(), Error::NothingToWithdraw);
    let (boss, nobody) = (world.owner.clone(), ink_of(&stranger));
    let nothing = call().withdraw_treasury(nobody, 0);
    assert_eq!(world.send(&boss, 0, nothing)?.unwrap_err(), Error::BadAmount);
    Ok(())
}

/// Sends one request, paid in full.
fn ask(world: &mut World, requester: &Pair, request: Request) -> Res<Result<(), Error>> {
    let fee = request.fee;
    Ok(world.send(requester, fee, call().request_tasks(vec![request]))?.map(|_| ()))
}

#[test]
fn requesting() -> Res {
    let mut world = World::new()?;
    let requester = world.account()?;
    assert_eq!(world.request(&requester, 1, 3, FEE)?, Err(Error::TooFewNodes));
    let nodes = world.nodes(2, 3)?;
    let quote = world.quote(1, 3)?;
    assert_eq!(world.request(&requester, 1, 3, quote.fee_min - 1)?, Err(Error::BadFee));
    let dearest = world.kind()?.kind.params.fee_max;
    assert_eq!(world.request(&requester, 1, 3, dearest + 1)?, Err(Error::BadFee));
    for (outputs, panel) in [(0, 3), (5, 3), (1, 2), (1, 16)] {
        assert_eq!(world.request(&requester, outputs, panel, FEE)?, Err(Error::PanelSize));
    }
    let good = world.request_of(&requester, 1, 3, FEE);
    let mut refuse = |request: Request, error: Error| -> Res {
        assert_eq!(ask(&mut world, &requester, request)?, Err(error));
        Ok(())
    };
    refuse(Request { kind: 7, ..good.clone() }, Error::NoKind)?;
    let long = Source::Url { hash: [5; 32], url: "x".repeat(257) };
    refuse(Request { input: long, ..good.clone() }, Error::BadInput)?;
    let none = Source::Url { hash: [5; 32], url: String::new() };
    refuse(Request { input: none, ..good.clone() }, Error::BadInput)?;
    refuse(Request { input: Source::Inline(vec![b'x'; 2_049]), ..good.clone() }, Error::BadInput)?;
    refuse(Request { input: Source::Inline(vec![]), ..good.clone() }, Error::BadInput)?;
    refuse(Request { reference_commitment: [0; 32], ..good.clone() }, Error::BadCommitment)?;
    refuse(Request { secret_hash: [0; 32], ..good.clone() }, Error::BadCommitment)?;
    let evaluator = nodes.1[0].id;
    refuse(Request { nodes: vec![evaluator], ..good.clone() }, Error::NodeUnavailable(evaluator))?;
    refuse(Request { nodes: vec![99], ..good.clone() }, Error::NodeUnavailable(99))?;
    let twice = nodes.0[0].id;
    refuse(Request { nodes: vec![twice; 2], ..good.clone() }, Error::NodeUnavailable(twice))?;
    let request = || call().request_tasks(vec![good.clone()]);
    assert_eq!(world.send(&requester, FEE - 1, request())?.unwrap_err(), Error::WrongValue);
    assert_eq!(world.send(&requester, FEE + 1, request())?.unwrap_err(), Error::WrongValue);
    let owner = world.owner.clone();
    world.send(&owner, 0, call().set_paused(true))??;
    assert_eq!(world.send(&requester, FEE, request())?.unwrap_err(), Error::Paused);
    world.send(&owner, 0, call().set_paused(false))??;
    world.send(&requester, FEE, request())??;
    assert_eq!(world.send(&requester, FEE, request())?.unwrap_err(), Error::BadCommitment);
    Ok(())
}

#[test]
fn duties_are_refused_out_of_turn() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(2, 4)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let drawn = world.task(id)?.task.outputs[0].node;
    let node = World::find(&nodes.0, drawn)?.clone();
    let other = nodes.0.iter().find(|n| n.id != drawn).unwrap().clone();
    let task = |refusal| Err(Error::Task(refusal));
    let commit = |world: &mut World, who: &Pair, id, node, commitment| -> Res<Result<(), Error>> {
        let items = vec![Commit { task: id, node, commitment }];
        Ok(world.one(who, call().commit_outputs(items))?.map(|_| ()))
    };
    let right = world.output_commitment(id, drawn);
    let w = &mut world;
    assert_eq!(commit(w, &node.operator, 99, drawn, right)?, Err(Error::NoTask));
    assert_eq!(commit(w, &other.operator, id, other.id, right)?, task(Refusal::NotAssigned));
    assert_eq!(commit(w, &other.operator, id, drawn, right)?, Err(Error::NotOperator));
    assert_eq!(commit(w, &node.owner, id, drawn, right)?, Err(Error::NotOperator));
    assert_eq!(commit(w, &node.operator, id, drawn, [0; 32])?, task(Refusal::BadCommitment));
    assert_eq!(w.commit_scores(id, &nodes.1[0], &[500])?, task(Refusal::NotAssigned));
    assert_eq!(w.advance(id)?.map(|_| ()), task(Refusal::TooEarly));
    commit(w, &node.operator, id, drawn, right)??;
    commit(w, &node.operator, id, drawn, right)??;
    assert_eq!(commit(w, &node.operator, id, drawn, [1; 32])?, task(Refusal::AlreadyCommitted));
    let decline = Decline { task: id, node: drawn, reason: DeclineReason::Other };
    let declined = w.one(&node.operator, call().decline(vec![decline]))?.map(|_| ());
    assert_eq!(declined, task(Refusal::AlreadyCommitted));

    let plan = w.draw_of(id)?;
    let mut wrong = plan.clone();
    wrong.secret = [4; 32];
    assert_eq!(w.one(&dev::bob(), call().draw_panels(vec![wrong]))?.map(|_| ()), task(Refusal::BadSecret));
    let mut wrong = plan.clone();
    wrong.openings = vec![None];
    assert_eq!(w.one(&dev::bob(), call().draw_panels(vec![wrong]))?.map(|_| ()), task(Refusal::NotOpened));
    let mut wrong = plan;
    wrong.openings[0].as_mut().unwrap().salt = [4; 32];
    assert_eq!(w.one(&dev::bob(), call().draw_panels(vec![wrong]))?.map(|_| ()), task(Refusal::Mismatch));

    let panel = w.draw(id)?;
    let member = World::find(&nodes.1, panel[0])?.clone();
    // Nothing is revealed before all have committed, or the time is over.
    assert!(w.reveal(id, &member, &[500])?.is_err());
    w.commit_scores(id, &member, &[500])??;
    w.commit_scores(id, &member, &[500])??;
    assert_eq!(w.commit_scores(id, &member, &[501])?, task(Refusal::AlreadyCommitted));
    assert_eq!(w.reveal(id, &member, &[500])?, task(Refusal::WrongPhase));
    for seat in &panel[1..] {
        let node = World::find(&nodes.1, *seat)?.clone();
        w.commit_scores(id, &node, &[500])??;
    }
    assert_eq!(w.task(id)?.task.phase, Phase::Revealing);
    assert_eq!(w.reveal(id, &member, &[500, 500])?, task(Refusal::BadScores));
    assert_eq!(w.reveal(id, &member, &[499])?, task(Refusal::Mismatch));
    let outsider = nodes.1.iter().find(|n| !panel.contains(&n.id)).unwrap().clone();
    assert_eq!(w.reveal(id, &outsider, &[500])?, task(Refusal::NotAssigned));
    w.reveal(id, &member, &[500])??;
    assert_eq!(w.reveal(id, &member, &[500])?, task(Refusal::AlreadyRevealed));
    assert_eq!(w.send(&requester, 0, call().collect(vec![id]))?.unwrap_err(), Error::NotFinal);
    Ok(())
}

#[test]
fn who_did_not_commit_has_nothing_to_reveal() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    let member = |at: usize| World::find(&nodes.1, panel[at]).unwrap().clone();
    for at in 0..2 {
        world.commit_scores(id, &member(at), &[500])??;
    }
    world.pass(world.kind()?.kind.params.commit_ms + 1)?;
    assert_eq!(world.reveal(id, &member(2), &[500])?, Err(Error::Task(Refusal::NotCommitted)));
    Ok(())
}

#[test]
fn auditing() -> Res {
    let mut world = World::with(&KindParams::default())?;
    let auditor = world.auditor()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.round(&requester, &nodes, 1, 3, |_| vec![700])?;
    let opening = |outputs| Opening { reference: b"r".to_vec(), salt: [1; 32], outputs };
    let open = |id, outputs| call().open_reference(id, opening(outputs));
    let text = || vec![Some(poq_runtime_tests::TEXT.to_vec())];
    assert_eq!(world.send(&requester, 0, open(id, text()))?.unwrap_err(), Error::NotAuditor);
    assert_eq!(world.send(&requester, UNIT, call().bond())?.unwrap_err(), Error::NotAuditor);
    assert_eq!(world.send(&requester, 0, call().withdraw_bond())?.unwrap_err(), Error::NotAuditor);
    assert_eq!(world.send(&auditor, 0, open(99, text()))?.unwrap_err(), Error::NoTask);
    // Not the reference that the task committed to; no output; one too many.
    assert_eq!(world.send(&auditor, 0, open(id, text()))?.unwrap_err(), Error::BadOpening);
    assert_eq!(world.send(&auditor, 0, open(id, vec![None]))?.unwrap_err(), Error::BadOpening);
    assert_eq!(world.send(&auditor, 0, open(id, vec![None; 2]))?.unwrap_err(), Error::BadOpening);
    let other = world.request(&requester, 1, 3, FEE)??;
    assert_eq!(world.send(&auditor, 0, open(other, text()))?.unwrap_err(), Error::NotAuditable);
    world.pass(world.kind()?.kind.params.audit_ms + 1)?;
    assert_eq!(world.send(&auditor, 0, open(id, text()))?.unwrap_err(), Error::NotAuditable);
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())??.value, 0);
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())?.unwrap_err(), Error::StillUnbonding);
    Ok(())
}

#[test]
fn batches_are_bounded() -> Res {
    let mut world = World::new()?;
    let somebody = world.account()?;
    let refused = Err(Error::BatchSize);
    for count in [0, MAX_BATCH + 1] {
        let tasks = vec![1; count];
        let nodes = vec![1; count];
        let commits = vec![Commit { task: 1, node: 1, commitment: [1; 32] }; count];
        assert_eq!(world.send(&somebody, 0, call().advance(tasks.clone()))?.map(|_| ()), refused);
        assert_eq!(world.send(&somebody, 0, call().collect(tasks))?.map(|_| ()), refused);
        assert_eq!(world.send(&somebody, 0, call().refresh(nodes))?.map(|_| ()), refused);
        assert_eq!(world.send(&somebody, 0, call().commit_outputs(commits.clone()))?.map(|_| ()), refused);
        assert_eq!(world.send(&somebody, 0, call().commit_scores(commits))?.map(|_| ()), refused);
    }
    for empty in [
        world.send(&somebody, 0, call().decline(vec![]))?.map(|_| ()),
        world.send(&somebody, 0, call().open_outputs(vec![]))?.map(|_| ()),
        world.send(&somebody, 0, call().reveal_scores(vec![]))?.map(|_| ()),
        world.send(&somebody, 0, call().draw_panels(vec![]))?.map(|_| ()),
        world.send(&somebody, 0, call().request_tasks(vec![]))?.map(|_| ()),
    ] {
        assert_eq!(empty, refused);
    }
    assert_eq!(world.send(&somebody, 0, call().collect(vec![5]))?.unwrap_err(), Error::NoTask);
    Ok(())
}

#[test]
fn a_score_above_one_is_not_understood() -> Res {
    let mut world = World::new()?;
    let somebody = world.account()?;
    // A raw reveal whose score is 1,000,000,001 parts per billion; and one that is not.
    let contract = world.contract.clone();
    let mut reveal = |score: u32| {
        let item = (1u64, 1u32, vec![score], [0u8; 32], [0u8; 32]);
        let data = [ink::selector_bytes!("reveal_scores").to_vec(), vec![item].encode()].concat();
        world.chain.call(&somebody, &contract, 0, data).unwrap_err().to_string()
    };
    assert_ne!(reveal(1_000_000_001), reveal(1_000_000_000));
    assert_eq!(Score::of(Ratio::ONE).encode(), 1_000_000_000u32.encode());
    Ok(())
}
