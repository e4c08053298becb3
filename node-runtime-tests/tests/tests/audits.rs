//! Gold tasks: auditors, their bonds, what an opened reference does, and what it cannot do.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{Auditor, Opening};
use poq_core::commitment;
use poq_core::params::{MeritRule, TrustRule};
use poq_core::phase::Phase;
use poq_core::text::{token_f1, MAX_AUDITED, MAX_REFERENCE};
use poq_core::units::TaskId;
use poq_core::{KindParams, Ratio, Score};
use poq_runtime_tests::{blake2, call, ink_of, input, salt, Pair, TestNode, World, KIND};
use poq_sandbox::{account_of, dev, UNIT};

type Res = Result<(), Box<dyn std::error::Error>>;
type Nodes = (Vec<TestNode>, Vec<TestNode>);

const REFERENCE: &[u8] = b"Denver Broncos";
const SALT: [u8; 32] = [6; 32];
const AUDIT_MS: u64 = 60_000;

fn params() -> KindParams {
    KindParams {
        audit_ms: AUDIT_MS,
        merit: MeritRule::Information { step: Ratio::from_permille(20), floor: Ratio::from_permille(100) },
        trust: TrustRule::Anchored { rate: Ratio::from_permille(500) },
        ..KindParams::without_auditors()
    }
}

/// A gold task of `auditor`, requested by an account that has nothing to do with it, whose outputs are these texts and whose
/// panel has revealed what `scores` says.
fn revealed(
    world: &mut World,
    auditor: &Pair,
    nodes: &Nodes,
    texts: &[&[u8]],
    panel: u8,
    scores: impl Fn(u32) -> Vec<u32>,
) -> Result<TaskId, Box<dyn std::error::Error>> {
    let requester = world.account()?;
    let auditor: [u8; 32] = *account_of(auditor).as_ref();
    let reference = commitment::reference(world.contract.as_ref(), &auditor, &blake2(REFERENCE), &SALT);
    let outputs = u8::try_from(texts.len())?;
    let message = call().request_task(KIND, outputs, panel, input(), blake2(&reference));
    let id = world.send(&requester, 10 * UNIT, message)??.value;
    for (slot, text) in world.task(id)?.task.outputs.iter().zip(texts) {
        let node = World::find(&nodes.0, slot.node)?.clone();
        let preimage =
            commitment::output(world.contract.as_ref(), id, node.id, &blake2(text), &salt(id, node.id));
        world.send(&node.operator, 0, call().commit_output(id, node.id, blake2(&preimage)))??;
    }
    world.draw(id)?;
    world.score(id, &nodes.1, scores)?;
    Ok(id)
}

fn opening(world: &World, id: TaskId, texts: &[&[u8]]) -> Result<Opening, Box<dyn std::error::Error>> {
    let slots = world.task(id)?.task.outputs;
    let outputs =
        slots.iter().zip(texts).map(|(slot, text)| Some((text.to_vec(), salt(id, slot.node)))).collect();
    Ok(Opening { reference: REFERENCE.to_vec(), salt: SALT, outputs })
}

/// Ordinary settled tasks of a quality that differs, so that there is something to compare with.
fn history(world: &mut World, nodes: &Nodes) -> Res {
    let requester = world.account()?;
    for quality in [100, 900, 300, 700, 500] {
        let id = world.request(&requester, 1, 3, 10 * UNIT)??;
        world.commit_outputs(id, &nodes.0)?;
        world.draw(id)?;
        world.score(id, &nodes.1, |_| vec![quality])?;
        world.pass(AUDIT_MS + 1)?;
        world.settle(id)?;
    }
    Ok(())
}

/// The heart of it: a colluding majority agrees on a number, one evaluator looks. By consensus the majority is right; by the
/// reference it is not.
#[test]
fn an_opened_reference_overrules_a_colluding_majority() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 5)?;
    history(&mut world, &nodes)?;
    let auditor = world.auditor()?;
    let before: Vec<Ratio> =
        nodes.1.iter().map(|n| world.view(n.id).map(|v| v.node.trust)).collect::<Result<_, _>>()?;
    let honest = nodes.1[0].id;
    // The answer is right, so token F1 is one. Four of five say 0.2.
    let texts: &[&[u8]] = &[b"The Denver Broncos."];
    let id = revealed(&mut world, &auditor, &nodes, texts, 5, |node| {
        vec![if node == honest { 980 } else { 200 }]
    })?;
    let claimable = |world: &World, node: u32| world.view(node).map(|v| v.node.claimable);
    let paid_before = claimable(&world, honest)?;
    let others_before = claimable(&world, nodes.1[1].id)?;
    let treasury = world.overview()?.liabilities.treasury;

    world.send(&auditor, 0, call().settle_audited(id, opening(&world, id, texts)?))??;
    let task = world.task(id)?.task;
    assert_eq!(task.phase, Phase::Settled);
    // What the answer is paid by is the consensus, whatever the reference says.
    assert_eq!(task.outputs[0].quality, Score::of(Ratio::from_permille(200)));
    let slot = task.evaluator_slot;
    assert_eq!(claimable(&world, honest)? - paid_before, slot, "its merit is full");
    assert_eq!(claimable(&world, nodes.1[1].id)?, others_before, "further off than unrelated tasks are");
    for (node, before) in nodes.1.iter().zip(before) {
        let after = world.view(node.id)?.node;
        assert_eq!(after.slashed, 0, "no word of an auditor takes stake");
        if node.id == honest {
            assert!(after.trust >= before, "{before} to {}", after.trust);
        } else {
            assert!(after.trust < before, "{before} to {}", after.trust);
        }
    }
    // What they did not earn is nobody's gain: neither the requester's nor the auditor's.
    let fee = KindParams::without_auditors().protocol_fee.of(10 * UNIT);
    assert_eq!(world.overview()?.liabilities.treasury - treasury, fee + 4 * slot);
    assert_eq!(world.read(call().auditor(ink_of(&auditor)))?.unwrap().audits, 1);
    Ok(())
}

#[test]
fn trust_of_the_anchored_rule_stays_without_an_opening() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 3)?;
    history(&mut world, &nodes)?;
    for node in &nodes.1 {
        let node = world.view(node.id)?.node;
        assert_eq!((node.trust, node.gain_average), (params().trust_initial, 0));
    }
    Ok(())
}

#[test]
fn anybody_settles_after_the_audit_window_and_not_before() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 3)?;
    let auditor = world.auditor()?;
    let texts: &[&[u8]] = &[b"Denver Broncos"];
    let early = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![900])?;
    assert_eq!(world.task(early)?.task.phase, Phase::Auditing);
    assert_eq!(world.send(&dev::bob(), 0, call().settle(early))?.unwrap_err(), Error::TooEarly);
    assert_eq!(world.advance(early)?.unwrap_err(), Error::TooEarly);
    world.pass(AUDIT_MS + 1)?;
    world.settle(early)?;
    // An auditor who is late may still come, until somebody has settled.
    let late = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![900])?;
    world.pass(AUDIT_MS + 1)?;
    world.send(&auditor, 0, call().settle_audited(late, opening(&world, late, texts)?))??;
    let again = call().settle_audited(early, opening(&world, early, texts)?);
    assert_eq!(world.send(&auditor, 0, again)?.unwrap_err(), Error::WrongPhase);
    Ok(())
}

#[test]
fn an_audit_window_opens_too_when_some_never_reveal() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let panel = world.draw(id)?;
    world.score_and_reveal_some(id, &nodes.1, 2, |_| vec![700])?;
    world.pass(params().reveal_ms + 1)?;
    assert_eq!(world.send(&dev::bob(), 0, call().settle(id))?.unwrap_err(), Error::TooEarly);
    world.pass(AUDIT_MS + 1)?;
    world.settle(id)?;
    assert_eq!(world.view(panel[2])?.node.slashed, UNIT);
    Ok(())
}

#[test]
fn every_refusal_of_an_opening() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(2, 3)?;
    let auditor = world.auditor()?;
    let texts: &[&[u8]] = &[b"Denver Broncos", b"Carolina Panthers"];
    let id = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![900, 100])?;
    let good = opening(&world, id, texts)?;
    let refused = |world: &mut World, who: &Pair, opening: Opening, why: Error| -> Res {
        assert_eq!(world.send(who, 0, call().settle_audited(id, opening))?.unwrap_err(), why);
        Ok(())
    };
    // Who.
    let stranger = world.account()?;
    refused(&mut world, &stranger, good.clone(), Error::NotAuditor)?;
    let owner = world.owner.clone();
    let poor = world.account()?;
    world.auditors.push(poor.clone());
    world.send(&owner, 0, call().set_auditor(ink_of(&poor), true, 0))??;
    world.send(&poor, 100 * UNIT - 1, call().bond())??;
    refused(&mut world, &poor, good.clone(), Error::NotAuditor)?;
    // Another auditor's commitment does not open for this one.
    let other = world.auditor()?;
    refused(&mut world, &other, good.clone(), Error::BadOpening)?;
    // What.
    refused(
        &mut world,
        &auditor,
        Opening { reference: b"Denver".to_vec(), ..good.clone() },
        Error::BadOpening,
    )?;
    refused(&mut world, &auditor, Opening { salt: [7; 32], ..good.clone() }, Error::BadOpening)?;
    refused(&mut world, &auditor, Opening { outputs: vec![None, None], ..good.clone() }, Error::BadOpening)?;
    let one = Opening { outputs: good.outputs[..1].to_vec(), ..good.clone() };
    refused(&mut world, &auditor, one, Error::BadOpening)?;
    let mut swapped = good.clone();
    swapped.outputs.swap(0, 1);
    refused(&mut world, &auditor, swapped, Error::BadOpening)?;
    let mut edited = good.clone();
    edited.outputs[1] = Some((b"Denver Broncos".to_vec(), salt(id, 2)));
    refused(&mut world, &auditor, edited, Error::BadOpening)?;
    let long = Opening { reference: vec![b'x'; MAX_REFERENCE + 1], ..good.clone() };
    refused(&mut world, &auditor, long, Error::BadOpening)?;
    let mut long = good.clone();
    long.outputs[0] = Some((vec![b'x'; MAX_AUDITED + 1], [0; 32]));
    refused(&mut world, &auditor, long, Error::BadOpening)?;
    // Nothing of all that has changed anything; and an output may be left out.
    let partial = Opening { outputs: vec![good.outputs[0].clone(), None], ..good };
    world.send(&auditor, 0, call().settle_audited(id, partial))??;
    let nothing = call().settle_audited(99, opening(&world, id, texts)?);
    assert_eq!(world.send(&auditor, 0, nothing)?.unwrap_err(), Error::NoTask);
    Ok(())
}

#[test]
fn a_reference_cannot_be_opened_before_the_scores_are_revealed() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 3)?;
    let auditor = world.auditor()?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let text: &[&[u8]] = &[b"Denver"];
    let too_early = |world: &mut World| -> Res {
        let message = call().settle_audited(id, opening(world, id, text)?);
        assert_eq!(world.send(&auditor, 0, message)?.unwrap_err(), Error::TooEarly);
        Ok(())
    };
    too_early(&mut world)?;
    world.commit_outputs(id, &nodes.0)?;
    too_early(&mut world)?;
    let panel = world.draw(id)?;
    too_early(&mut world)?;
    for member in &panel {
        let node = World::find(&nodes.1, *member)?.clone();
        world.commit_scores(id, &node, &[700])??;
    }
    for member in &panel[..2] {
        let node = World::find(&nodes.1, *member)?.clone();
        world.reveal(id, &node, &[700])??;
        too_early(&mut world)?;
    }
    Ok(())
}

#[test]
fn an_auditor_does_not_judge_a_panel_that_it_sits_on() -> Res {
    let mut world = World::with(&params())?;
    let mut nodes = world.nodes(1, 2)?;
    let auditor = world.auditor()?;
    let (owner, operator) = (world.account()?, world.account()?);
    // Its own account is only the payee of a node that somebody else fronts.
    let node = world.node_of(
        poq_contract::types::Role::Evaluator,
        77,
        0,
        100 * UNIT,
        owner,
        operator,
        auditor.clone(),
    )?;
    nodes.1.push(node);
    let texts: &[&[u8]] = &[b"Denver Broncos"];
    let id = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![900])?;
    let message = call().settle_audited(id, opening(&world, id, texts)?);
    assert_eq!(world.send(&auditor, 0, message)?.unwrap_err(), Error::NotAuditor);
    Ok(())
}

/// An auditor who opens lies: it pays for every score that it spoils, takes no stake, and its bond can be taken.
#[test]
fn what_an_abusive_auditor_can_do_is_bounded_and_costs_it() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(1, 3)?;
    history(&mut world, &nodes)?;
    let auditor = world.auditor()?;
    let (rate, floor) = (Ratio::from_permille(500), params().trust_floor);
    // The answer is wrong and everybody says so; the reference claims it is right.
    let texts: &[&[u8]] = &[b"Denver Broncos"];
    for round in 0..6 {
        let before: Vec<Ratio> =
            nodes.1.iter().map(|n| world.view(n.id).map(|v| v.node.trust)).collect::<Result<_, _>>()?;
        let id = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![10])?;
        let treasury = world.overview()?.liabilities.treasury;
        world.send(&auditor, 0, call().settle_audited(id, opening(&world, id, texts)?))??;
        let task = world.task(id)?.task;
        let paid = world.overview()?.liabilities.treasury - treasury;
        assert_eq!(paid, params().protocol_fee.of(task.fee) + 3 * task.evaluator_slot, "round {round}");
        assert!(task.refund < task.fee - paid + task.inference_slot);
        for (node, before) in nodes.1.iter().zip(before) {
            let after = world.view(node.id)?.node;
            assert_eq!(after.slashed, 0);
            assert!(after.trust >= floor);
            // One opening moves an average by no more than the rate allows.
            assert!(after.trust.ppb() + 1 >= before.mul(rate.complement()).ppb().min(floor.ppb()));
        }
    }
    let owner = world.owner.clone();
    let treasury = world.overview()?.liabilities.treasury;
    world.send(&owner, 0, call().set_auditor(ink_of(&auditor), false, 40 * UNIT))??;
    assert_eq!(world.overview()?.liabilities.treasury - treasury, 40 * UNIT);
    let id = revealed(&mut world, &auditor, &nodes, texts, 3, |_| vec![10])?;
    let message = call().settle_audited(id, opening(&world, id, texts)?);
    assert_eq!(world.send(&auditor, 0, message)?.unwrap_err(), Error::NotAuditor);
    Ok(())
}

#[test]
fn a_bond_goes_in_and_comes_back() -> Res {
    let mut world = World::with(&params())?;
    let auditor = world.account()?;
    assert_eq!(world.send(&auditor, UNIT, call().bond())?.unwrap_err(), Error::NotAuditor);
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())?.unwrap_err(), Error::NotAuditor);
    let appointed = call().set_auditor(ink_of(&auditor), true, 0);
    assert_eq!(world.send(&auditor, 0, appointed)?.unwrap_err(), Error::NotContractOwner);
    let owner = world.owner.clone();
    world.auditors.push(auditor.clone());
    world.send(&owner, 0, call().set_auditor(ink_of(&auditor), true, 0))??;
    world.send(&auditor, 60 * UNIT, call().bond())??;
    world.send(&auditor, 40 * UNIT, call().bond())??;
    assert_eq!(world.overview()?.liabilities.bonds, 100 * UNIT);
    let slash = call().set_auditor(ink_of(&auditor), false, 100 * UNIT + 1);
    assert_eq!(world.send(&owner, 0, slash)?.unwrap_err(), Error::Overflow);

    let unbonding = world.overview()?.global.unbonding_ms;
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())??.value, 0);
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())?.unwrap_err(), Error::StillUnbonding);
    // Resigning does not escape: the bond can be reached until it is out.
    world.send(&owner, 0, call().set_auditor(ink_of(&auditor), false, 10 * UNIT))??;
    world.pass(unbonding + 1)?;
    let free = world.free(&auditor)?;
    assert_eq!(world.send(&auditor, 0, call().withdraw_bond())??.value, 90 * UNIT);
    assert!(world.free(&auditor)? > free + 89 * UNIT);
    assert_eq!(world.overview()?.liabilities.bonds, 0);
    let gone: Option<Auditor> = world.read(call().auditor(ink_of(&auditor)))?;
    assert_eq!(gone, None);
    Ok(())
}

/// The largest opening that the contract takes: four outputs and a panel of fifteen, texts of the greatest length whose words
/// nearly all differ. `scripts/bench.sh gas` prints an ordinary one.
#[test]
fn the_largest_opening_fits_a_block_many_times() -> Res {
    let mut world = World::with(&params())?;
    let nodes = world.nodes(4, 15)?;
    let auditor = world.auditor()?;
    let words = |from: u32, bytes: usize| {
        let text: String = (from..).map(|n| format!("{n} ")).take(bytes).collect();
        text.as_bytes()[..bytes].to_vec()
    };
    let long = words(100, MAX_AUDITED);
    let texts: Vec<&[u8]> = vec![&long; 4];
    let reference = words(900, MAX_REFERENCE);
    assert!(token_f1(&reference, &long) < Ratio::from_permille(300));
    let requester = world.account()?;
    let account: [u8; 32] = *account_of(&auditor).as_ref();
    let committed =
        blake2(&commitment::reference(world.contract.as_ref(), &account, &blake2(&reference), &SALT));
    let id = world.send(&requester, 50 * UNIT, call().request_task(KIND, 4, 15, input(), committed))??.value;
    for slot in world.task(id)?.task.outputs {
        let node = World::find(&nodes.0, slot.node)?.clone();
        let preimage =
            commitment::output(world.contract.as_ref(), id, node.id, &blake2(&long), &salt(id, node.id));
        world.send(&node.operator, 0, call().commit_output(id, node.id, blake2(&preimage)))??;
    }
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![300; 4])?;
    let largest = Opening { reference, ..opening(&world, id, &texts)? };
    let sent = world.send(&auditor, 0, call().settle_audited(id, largest))??;
    let ref_time = sent.report.weight.ref_time();
    println!("the largest opening: {ref_time} ref_time");
    assert!(ref_time < 1_500_000_000_000 / 10, "{ref_time}");
    Ok(())
}
