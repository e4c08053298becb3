//! An audit's findings on the chain, by their numbers: each is what somebody could take, block or steer in the first version.
//! `registry.rs` has those of the registry.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{Change, Commit, GlobalParams, Lever, NodeUpdate, Opening, Reveal, Role, Step};
use poq_core::commitment;
use poq_core::governance::LAPSE_MS;
use poq_core::params::DAY;
use poq_core::settlement::Ending;
use poq_core::units::{Balance, Score, TaskId};
use poq_core::{KindParams, Phase};
use poq_runtime_tests::{
    blake2, call, global, ink_of, Pair, TestNode, World, EPOCH_MS, KIND, TEXT, UNBONDING_MS,
};
use poq_sandbox::{account_of, dev, runtime, RuntimeCall, UNIT};

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Nodes = (Vec<TestNode>, Vec<TestNode>);

const FEE: Balance = 10 * UNIT;
const REFERENCE: &[u8] = b"the Denver Broncos";
const SALT: [u8; 32] = [6; 32];

/// A task whose only output is committed to.
fn answered(world: &mut World, requester: &Pair, nodes: &Nodes) -> Res<TaskId> {
    let id = world.request(requester, 1, 3, FEE)??;
    world.commit_outputs(id, &nodes.0)?;
    Ok(id)
}

/// Lets a task run until it ends, with nobody doing anything but what anybody can.
fn run_out(world: &mut World, id: TaskId) -> Res<Ending> {
    for _ in 0..12 {
        if world.task(id)?.task.phase.is_final() {
            break;
        }
        world.pass(130_000)?;
        world.advance(id)?.ok();
    }
    let task = world.task(id)?.task;
    assert!(task.phase.is_final(), "{:?}", task.phase);
    Ok(task.ending)
}

/// What the requester of a final task has lost, and what its inference node has got.
fn settled(world: &World, id: TaskId, node: &TestNode) -> Res<(Balance, Balance)> {
    let task = world.task(id)?.task;
    Ok((task.fee - task.refund, world.view(node.id)?.node.claimable))
}

#[test]
fn h1a_answers_are_not_free_when_no_panel_can_be_drawn() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    // More evaluators than there are: nothing is paid, nothing is answered.
    assert_eq!(world.request(&requester, 1, 5, FEE)?.unwrap_err(), Error::TooFewNodes);
    // As many as there are, but of fewer owners: that shows only in the draw.
    let mut world = World::new()?;
    let one = world.account()?;
    let inference = vec![world.node(Role::Inference, 1, 0, 200 * UNIT)?];
    for model in 0..3 {
        let (operator, payee) = (world.account()?, world.account()?);
        world.node_of(Role::Evaluator, model, 0, 200 * UNIT, one.clone(), operator, payee)?;
    }
    let requester = world.account()?;
    let id = answered(&mut world, &requester, &(inference.clone(), nodes.1))?;
    let plan = world.draw_of(id)?;
    assert_eq!(world.one(&requester, call().draw_panels(vec![plan]))??.value, Ok(false));
    assert_eq!(run_out(&mut world, id)?, Ending::NoPanel);
    let (lost, got) = settled(&world, id, &inference[0])?;
    let task = world.task(id)?.task;
    let params = world.kind()?.kind.params;
    assert_eq!(got, params.delivery_share.of(task.terms.inference_slot));
    assert!(lost >= task.terms.inference_slot, "an answer cost {lost}");
    Ok(())
}

#[test]
fn h1b_an_input_withheld_from_the_panel_saves_nothing() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = answered(&mut world, &requester, &nodes)?;
    let panel = world.draw(id)?;
    let reveals: Vec<Reveal> = panel
        .iter()
        .map(|node| Reveal { scores: vec![Score::NO_INPUT], ..world.reveal_of(id, *node, &[0]) })
        .collect();
    for reveal in &reveals {
        let operator = World::find(&nodes.1, reveal.node)?.operator.clone();
        let commitment = world.scores_commitment(reveal);
        world.one(
            &operator,
            call().commit_scores(vec![Commit { task: id, node: reveal.node, commitment }]),
        )??;
    }
    world.send(&dev::bob(), 0, call().reveal_scores(reveals))??;
    assert_eq!(run_out(&mut world, id)?, Ending::InputUnavailable);
    let (lost, got) = settled(&world, id, &nodes.0[0])?;
    let task = world.task(id)?.task;
    assert!(got > 0 && FEE - lost < 10, "{lost} of {FEE}");
    assert_eq!(got, world.kind()?.kind.params.delivery_share.of(task.terms.inference_slot));
    // The node that delivered loses nothing.
    assert_eq!(world.view(nodes.0[0].id)?.node.slashed, 0);
    Ok(())
}

#[test]
fn h1c_evaluators_that_do_not_show_up_return_no_fee() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = answered(&mut world, &requester, &nodes)?;
    world.draw(id)?;
    assert_eq!(run_out(&mut world, id)?, Ending::BelowQuorum);
    let (lost, got) = settled(&world, id, &nodes.0[0])?;
    assert!(got > 0 && FEE - lost < 10, "{lost} of {FEE}");
    assert!(nodes.1.iter().all(|node| world.view(node.id).unwrap().node.slashed > 0));
    Ok(())
}

#[test]
fn h2_no_lever_acts_before_everybody_can_leave() -> Res {
    let mut world = World::new()?;
    let node = world.node(Role::Inference, 1, 0, 200 * UNIT)?;
    let owner = world.owner.clone();
    let old = world.kind()?.kind.params;
    let harsh = KindParams { missed_penalty: poq_core::Ratio::ONE, ..old.clone() };
    let acts_at = world.send(&owner, 0, call().propose(Change::Kind(KIND, harsh.clone())))??.value;
    let now = world.chain.now_ms();
    assert_eq!(acts_at - now, global().params_delay_ms);
    assert!(acts_at - now > UNBONDING_MS * 5 / 4 + old.life_ms());
    // Neither at once, nor a second time in its stead, nor a moment early; by nobody.
    assert_eq!(world.send(&owner, 0, call().enact(Lever::Kind(KIND)))?.unwrap_err(), Error::NotDue);
    let again = call().propose(Change::Kind(KIND, old.clone()));
    assert_eq!(world.send(&owner, 0, again)?.unwrap_err(), Error::AlreadyPending);
    // Whoever does not like it is out before it acts.
    let out = world.send(&node.owner, 0, call().unstake(node.id, 200 * UNIT))??.value;
    assert!(out < acts_at);
    world.pass(out - world.chain.now_ms())?;
    assert_eq!(world.send(&node.owner, 0, call().withdraw_unbonded(node.id))??.value, 200 * UNIT);
    assert_eq!(world.send(&dev::bob(), 0, call().enact(Lever::Kind(KIND)))?.unwrap_err(), Error::NotDue);
    assert_eq!(world.kind()?.kind.params, old);
    // Then anybody enacts it.
    world.pass(acts_at - world.chain.now_ms())?;
    world.send(&dev::bob(), 0, call().enact(Lever::Kind(KIND)))??;
    assert_eq!(world.kind()?.kind.params, harsh);
    assert_eq!(world.kind()?.kind.version, 2);

    // What nobody enacts in a week never acts.
    let shorter = GlobalParams { params_delay_ms: UNBONDING_MS + 3 * DAY - DAY / 2, ..global() };
    let acts_at = world.send(&owner, 0, call().propose(Change::Global(shorter)))??.value;
    assert!(
        acts_at - world.chain.now_ms() >= global().params_delay_ms,
        "a short delay is not had by announcing it"
    );
    world.pass(acts_at - world.chain.now_ms() + LAPSE_MS + 1_000)?;
    assert_eq!(world.send(&owner, 0, call().enact(Lever::Global))?.unwrap_err(), Error::NotPending);
    assert_eq!(world.overview()?.global, global());
    // And a stranger announces nothing.
    let stranger = call().propose(Change::Global(shorter));
    assert_eq!(world.send(&dev::bob(), 0, stranger)?.unwrap_err(), Error::NotContractOwner);
    Ok(())
}

#[test]
fn h2_a_slash_is_nobodys_income() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let treasury = world.overview()?.liabilities.treasury;
    assert_eq!(run_out(&mut world, id)?, Ending::Undelivered);
    let slashed = world.view(nodes.0[0].id)?.node.slashed;
    let owed = world.overview()?.liabilities;
    assert!(slashed > 0 && owed.burned >= slashed);
    assert_eq!(owed.treasury, treasury);
    let owner = world.owner.clone();
    assert_eq!(
        world.send(&owner, 0, call().withdraw_treasury(ink_of(&owner), slashed))?.unwrap_err(),
        Error::Insolvent
    );
    assert!(world.send(&dev::bob(), 0, call().burn())??.value >= slashed);
    assert_eq!(world.overview()?.liabilities.burned, 0);
    Ok(())
}

/// A settled gold task of the auditor's.
fn gold(world: &mut World, auditor: &Pair, requester: &Pair, nodes: &Nodes, salt: [u8; 32]) -> Res<TaskId> {
    let account: [u8; 32] = *account_of(auditor).as_ref();
    let committed = blake2(&commitment::reference(&world.network, &account, &blake2(REFERENCE), &salt));
    let request = world.request_with(requester, 1, 3, FEE, committed);
    let id = world.send(requester, FEE, call().request_tasks(vec![request]))??.value[0];
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![600])?;
    assert_eq!(world.task(id)?.task.phase, Phase::Settled);
    Ok(id)
}

fn opening(salt: [u8; 32]) -> Opening {
    Opening { reference: REFERENCE.to_vec(), salt, outputs: vec![Some(TEXT.to_vec())] }
}

#[test]
fn h3_nobody_vetoes_an_audit_by_naming_the_auditor() -> Res {
    let mut world = World::with(&KindParams::default())?;
    let auditor = world.auditor()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = gold(&mut world, &auditor, &requester, &nodes, SALT)?;
    for node in nodes.0.iter().chain(&nodes.1) {
        let update = NodeUpdate {
            operator: Some(ink_of(&auditor)),
            payee: Some(ink_of(&auditor)),
            ..NodeUpdate::default()
        };
        world.send(&node.owner, 0, call().configure(node.id, update))??;
    }
    world.send(&auditor, 0, call().open_reference(id, opening(SALT)))??;
    assert!(world.task(id)?.task.audited);
    // Once.
    assert_eq!(
        world.send(&auditor, 0, call().open_reference(id, opening(SALT)))?.unwrap_err(),
        Error::NotAuditable
    );

    // Whoever owns a node of the task has a stake in it.
    let mut world = World::with(&KindParams::default())?;
    let auditor = world.auditor()?;
    let mut nodes = world.nodes(1, 2)?;
    let (operator, payee) = (world.account()?, world.account()?);
    nodes.1.push(world.node_of(Role::Evaluator, 9, 0, 200 * UNIT, auditor.clone(), operator, payee)?);
    let requester = world.account()?;
    let id = gold(&mut world, &auditor, &requester, &nodes, SALT)?;
    assert_eq!(
        world.send(&auditor, 0, call().open_reference(id, opening(SALT)))?.unwrap_err(),
        Error::NotAuditor
    );
    Ok(())
}

#[test]
fn m2_an_auditor_opens_all_outputs_and_so_many_an_epoch() -> Res {
    let few = GlobalParams { audits_per_epoch: 1, ..global() };
    let mut world = World::with_global(&KindParams::default(), few)?;
    let auditor = world.auditor()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    world.next_epoch()?;
    let first = gold(&mut world, &auditor, &requester, &nodes, SALT)?;
    let second = gold(&mut world, &auditor, &requester, &nodes, [7; 32])?;
    let without = Opening { outputs: vec![None], ..opening(SALT) };
    assert_eq!(
        world.send(&auditor, 0, call().open_reference(first, without))?.unwrap_err(),
        Error::BadOpening
    );
    let other = Opening { outputs: vec![Some(b"something else".to_vec())], ..opening(SALT) };
    assert_eq!(world.send(&auditor, 0, call().open_reference(first, other))?.unwrap_err(), Error::BadOpening);
    let money: Vec<Balance> =
        nodes.1.iter().map(|node| world.view(node.id).unwrap().node.claimable).collect();
    world.send(&auditor, 0, call().open_reference(first, opening(SALT)))??;
    // It moves trust, and nobody's money.
    assert_eq!(
        money,
        nodes.1.iter().map(|node| world.view(node.id).unwrap().node.claimable).collect::<Vec<_>>()
    );
    let next = call().open_reference(second, opening([7; 32]));
    assert_eq!(world.send(&auditor, 0, next)?.unwrap_err(), Error::NotAuditor);
    Ok(())
}

#[test]
fn l3_an_auditors_bond_waits_once() -> Res {
    let mut world = World::with(&KindParams::default())?;
    let auditor = world.auditor()?;
    world.nodes(1, 3)?;
    let (owner, account) = (world.owner.clone(), ink_of(&auditor));
    let slash = |amount| call().propose(Change::SlashAuditor(account, amount));
    // Not while it serves.
    assert_eq!(world.send(&owner, 0, slash(UNIT))?.unwrap_err(), Error::BadAmount);
    world.send(&owner, 0, call().dismiss_auditor(account))??;
    let record = |world: &World| -> Res<_> { Ok(world.read(call().auditor(account))?.unwrap()) };
    let waits = record(&world)?.unbonds_at;
    // Appointed and dismissed again: the wait is the same.
    world.send(&owner, 0, call().propose(Change::Appoint(account)))??;
    world.pass(1_000)?;
    world.send(&owner, 0, call().dismiss_auditor(account))??;
    assert_eq!(record(&world)?.unbonds_at, waits);
    // A slash is announced while the bond waits, acts as late as any change, and is burned.
    let acts_at = world.send(&owner, 0, slash(30 * UNIT))??.value;
    world.pass(waits - world.chain.now_ms())?;
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())?.unwrap_err(), Error::StillUnbonding);
    world.pass(acts_at - world.chain.now_ms())?;
    let (treasury, burned) = (world.overview()?.liabilities.treasury, world.overview()?.liabilities.burned);
    world.send(&dev::bob(), 0, call().enact(Lever::SlashAuditor(account)))??;
    let owed = world.overview()?.liabilities;
    assert_eq!((owed.treasury, owed.burned), (treasury, burned + 30 * UNIT));
    // The wait is over: no further slash can be announced to hold the rest.
    assert_eq!(world.send(&owner, 0, slash(UNIT))?.unwrap_err(), Error::BadAmount);
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())??.value, 70 * UNIT);
    Ok(())
}

#[test]
fn l5_a_refund_that_cannot_be_paid_becomes_credit() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    // A fee that leaves something to rounding: less than an account can live on.
    let params = world.kind()?.kind.params;
    let rest = |fee: Balance| {
        let split = params.split(fee, 1, 3).unwrap();
        fee - split.protocol_fee - split.keepers - split.inference_slot - 3 * split.evaluator_slot
    };
    let fee = (FEE..FEE + 50).find(|fee| rest(*fee) > 0).unwrap();
    let id = world.request(&requester, 1, 3, fee)??;
    world.commit_outputs(id, &nodes.0)?;
    let opened = vec![poq_contract::types::Open {
        task: id,
        node: nodes.0[0].id,
        opened: world.opened(id, nodes.0[0].id),
    }];
    world.one(&dev::bob(), call().open_outputs(opened))??;
    assert_eq!(run_out(&mut world, id)?, Ending::NoSecret);
    let refund = world.task(id)?.task.refund;
    assert!(refund > 0 && refund < UNIT / 1_000, "{refund}");
    // The requester's account is gone.
    let empty = RuntimeCall::Balances(runtime::BalancesCall::transfer_all {
        dest: account_of(&dev::bob()).into(),
        keep_alive: false,
    });
    world.chain.submit_call(&requester, empty)?.ok()?;
    assert_eq!(world.free(&requester)?, 0);
    world.pass(3_600_001)?;
    world.send(&dev::bob(), 0, call().collect(vec![id]))??;
    assert_eq!(world.balances(&requester)?.credit, refund);
    // It takes it once it lives again.
    world.chain.fund(&account_of(&requester), 10 * UNIT)?;
    assert_eq!(world.send(&requester, 0, call().withdraw())??.value, refund);
    Ok(())
}

#[test]
fn l6_only_owners_are_excluded() -> Res {
    // Operator and payee of an evaluator asks: the evaluator is drawn.
    let mut world = World::new()?;
    let requester = world.account()?;
    let mut nodes = world.nodes(1, 2)?;
    let owner = world.account()?;
    nodes.1.push(world.node_of(
        Role::Evaluator,
        9,
        0,
        200 * UNIT,
        owner,
        requester.clone(),
        requester.clone(),
    )?);
    let id = answered(&mut world, &requester, &nodes)?;
    assert_eq!(world.draw(id)?.len(), 3);

    // Its owner asks: it is not, whoever operates it.
    let mut world = World::new()?;
    let requester = world.account()?;
    let mut nodes = world.nodes(1, 2)?;
    let (operator, payee) = (world.account()?, world.account()?);
    nodes.1.push(world.node_of(Role::Evaluator, 9, 0, 200 * UNIT, requester.clone(), operator, payee)?);
    let id = answered(&mut world, &requester, &nodes)?;
    let plan = world.draw_of(id)?;
    assert_eq!(world.one(&requester, call().draw_panels(vec![plan]))??.value, Ok(false));
    Ok(())
}

#[test]
fn l7_a_reference_commitment_is_neither_zero_nor_used_twice() -> Res {
    let mut world = World::new()?;
    world.nodes(1, 3)?;
    let requester = world.account()?;
    let ask = |world: &mut World, commitment: [u8; 32]| -> Res<Result<Vec<TaskId>, Error>> {
        let request = world.request_with(&requester, 1, 3, FEE, commitment);
        Ok(world.send(&requester, FEE, call().request_tasks(vec![request]))?.map(|sent| sent.value))
    };
    assert_eq!(ask(&mut world, [0; 32])?.unwrap_err(), Error::BadCommitment);
    let first = [9; 32];
    ask(&mut world, first)??;
    assert_eq!(ask(&mut world, first)?.unwrap_err(), Error::BadCommitment);
    for other in 10..20u8 {
        ask(&mut world, [other; 32])??;
        assert_eq!(ask(&mut world, first)?.unwrap_err(), Error::BadCommitment);
    }
    // Within one batch neither.
    let twice = vec![
        world.request_with(&requester, 1, 3, FEE, [77; 32]),
        world.request_with(&requester, 1, 3, FEE, [77; 32]),
    ];
    let sent = world.send(&requester, 2 * FEE, call().request_tasks(twice))?;
    assert_eq!(sent.unwrap_err(), Error::BadCommitment);
    Ok(())
}

/// A step that is due is any keeper's, and pays nothing to whoever is there first.
#[test]
fn a_keeper_earns_by_waiting_not_by_racing() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, FEE)??;
    let fork = world.chain.snapshot();
    let deadline = world.task(id)?.task.deadline;
    let mut earned = Vec::new();
    for late in [10, 60_000, 120_000, EPOCH_MS] {
        world.chain.restore(&fork);
        let keeper = world.account()?;
        world.pass(deadline - world.chain.now_ms() + late)?;
        assert_eq!(world.one(&keeper, call().advance(vec![id]))??.value, Ok(Step::End(Ending::Undelivered)));
        earned.push(world.balances(&keeper)?.credit);
    }
    let most = world.kind()?.kind.params.keeper_fee;
    assert!(earned[0] < most / 1_000 && earned[0] < earned[1] && earned[1] < earned[2], "{earned:?}");
    assert!(earned[2] <= most && earned[3] == most, "{earned:?}");
    assert!(world.view(nodes.0[0].id)?.node.slashed > 0);
    Ok(())
}
