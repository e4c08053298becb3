//! The typed client against the real contract's code on the in-process chain.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use futures::StreamExt;
use poq_chain::deploy::{address_of, check_code, deploy, find_or_deploy, Artifact, Setup};
use poq_chain::explain::{explain, explain_at, explain_event, Ending, Explanation};
use poq_chain::json::ToJson;
use poq_chain::types::{
    Answer, Change, Decline, DeclineReason, Draw, Lever, NodeId, Open, Opening, Phase, Ratio, Refusal,
    Request, Role, Step,
};
use poq_chain::{
    commit, messages, At, Class, Confirm, ContractError, Error, Options, PoqEvent, SendOptions, Submitter,
};
use poq_sandbox::{Finality, SandboxConfig};
use std::time::Duration;

/// What was compared agrees, and nothing was left out.
fn whole(explanation: &Explanation) {
    assert!(explanation.agrees(), "{:#?}", explanation.differences);
    assert_eq!(explanation.skipped().count(), 0, "{:?}", explanation.checks);
    let totals = &explanation.totals;
    let sum = totals.paid + totals.keepers + totals.treasury + totals.burned + totals.refund;
    assert_eq!((sum, totals.fee), (FEE, FEE));
}

/// The checks that were made, by how their names begin.
fn checked(explanation: &Explanation, what: &str) -> usize {
    explanation.checks.iter().filter(|check| check.what.starts_with(what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_from_request_to_claim() {
    let world = World::new().await;
    let inference = world.nodes(Role::Inference, 2).await;
    let evaluators = world.nodes(Role::Evaluator, 4).await;
    let requester = world.sender("//Requester").await;
    world.next_epoch();
    let network = world.network().await;

    let quote = world.client.view().await.unwrap().quote(KIND, 2, 3).await.unwrap().unwrap();
    assert!(quote.fee_min <= FEE && FEE <= quote.fee_max);
    let asked = request(&network, requester.keys(), 2, 3);
    let requested = requester.send(messages::request_task(asked.clone())).await.unwrap();
    let task = requested.value;
    assert_eq!(task, 1);
    assert!(matches!(&requested.events[..], [PoqEvent::TaskRequested(event)] if event.fee == FEE));
    assert!(requested.fee.unwrap() > 0);
    // A commitment that is used again tells something.
    let again = requester.send(messages::request_tasks(vec![asked])).await.unwrap_err();
    assert_eq!(again.rejection(), Some(ContractError::BadCommitment));

    let view = world.client.view().await.unwrap();
    let drawn: Vec<u32> =
        view.task(task).await.unwrap().unwrap().task.outputs.iter().map(|slot| slot.node).collect();
    assert_eq!(drawn.len(), 2);
    assert_eq!(view.open_tasks(drawn[0]).await.unwrap(), [task]);
    assert_eq!(view.duties(drawn[0]).await.unwrap()[0].id, task);

    world.node.advance_ms(3_000).unwrap();
    for node in &drawn {
        let sender = sender_of(&inference, *node);
        world.deliver(sender, task, *node).await;
        // A worker that lost the answer sends the same again.
        let commitment =
            world.task(task).await.outputs.iter().find(|slot| slot.node == *node).unwrap().commitment;
        let again = sender.send(messages::commit_output(task, *node, commitment)).await.unwrap();
        assert!(again.events.is_empty());
        let other = sender.send(messages::commit_output(task, *node, [9; 32])).await.unwrap_err();
        assert_eq!(other.class(), Class::Rejected(ContractError::Task(Refusal::AlreadyCommitted)));
        assert_eq!(other.refusal(), Some(Refusal::AlreadyCommitted));
    }

    let record = world.client.view().await.unwrap().task(task).await.unwrap().unwrap();
    assert!(matches!(record.step, Step::Draw { .. }));
    let draw = world.drawing(&requester, &inference, task).await;
    let wrong = Draw { secret: [9; 32], ..draw.clone() };
    let refused = requester.send(messages::draw_panel(wrong)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::BadSecret));
    let drawn = requester.send(messages::draw_panel(draw)).await.unwrap();
    assert!(drawn.value);

    world.node.advance_ms(2_000).unwrap();
    world.score(&evaluators, task).await;
    let settled = world.client.best().await.unwrap();
    assert_eq!(world.task(task).await.phase, Phase::Settled);

    // What happened, three ways.
    let ended = world.client.final_event(task).await.unwrap();
    assert_eq!(ended.block, settled);
    let event = &ended.event;
    assert!(event.settlement.outputs[0].payout > event.settlement.outputs[1].payout);
    let explanation = explain(&world.client, task).await.unwrap();
    whole(&explanation);
    assert_eq!(explanation.ending, Ending::Consensus);
    assert_eq!(explanation.nodes.len(), 5);
    assert_eq!(explanation.recomputed.as_ref(), Some(&event.settlement));
    assert_eq!(checked(&explanation, "the panel, drawn again"), 1);
    assert_eq!(checked(&explanation, "the seed of the panel"), 1);
    assert_eq!(checked(&explanation, "the scores, against the reveals"), 1);
    assert!(serde_json::to_string(&explanation).unwrap().contains("\"ending\":\"consensus\""));

    // An event that lies is caught, whatever it lies about.
    let mut lie = world.client.final_event(task).await.unwrap();
    let told = &mut lie.event;
    told.settlement.outputs[1].payout += 1;
    told.settlement.panel[0].merit = Ratio::ONE;
    told.input.panel[1].trust = Ratio::from_permille(1);
    told.input.outputs[0].answer = Answer::Delivered { latency_ms: 1 };
    told.seed = [1; 32];
    let explanation = explain_event(&world.client, lie).await.unwrap();
    assert!(!explanation.agrees());
    let wrong: Vec<String> = explanation.differences.iter().map(|d| d.what.clone()).collect();
    for what in [
        "outputs[1].payout",
        "panel[0].merit",
        "panel[1].trust",
        "outputs[0].answer.delivered.latency_ms",
        "task.seed",
        "fee",
    ] {
        assert!(wrong.iter().any(|path| path == what), "{what} is not among {wrong:?}");
    }

    // Money out.
    let earner = event.output_nodes[0];
    let payout = event.settlement.outputs[0].payout;
    let sender = sender_of(&inference, earner);
    let holding = world.client.view().await.unwrap().holding(earner).await.unwrap().unwrap();
    assert_eq!((holding.bonded, holding.claimable), (200 * UNIT, payout));
    let before = world.client.free_balance(&sender.account()).await.unwrap();
    let claimed = sender.send(messages::claim(earner)).await.unwrap();
    assert_eq!(claimed.value, payout);
    let after = world.client.free_balance(&sender.account()).await.unwrap();
    assert_eq!(after, before + payout - claimed.fee.unwrap());
    let again = sender.send(messages::claim(earner)).await.unwrap_err();
    assert_eq!(again.rejection(), Some(ContractError::NothingToWithdraw));

    let collected = requester.send(messages::collect(vec![task])).await.unwrap();
    assert_eq!(collected.value, event.settlement.refund);
    let gone = explain(&world.client, task).await.unwrap_err();
    assert_eq!(gone.rejection(), Some(ContractError::NoTask));
    whole(&explain_at(&world.client, task, settled.number).await.unwrap());
    let burned = world.client.view().await.unwrap().liabilities().await.unwrap().burned;
    assert_eq!(burned, event.settlement.burned + event.settlement.slashed);
    let sent = world.owner.send(messages::burn()).await.unwrap();
    assert_eq!(sent.value, burned);
    let solvency = world.client.view().await.unwrap().solvency().await.unwrap();
    assert!(solvency.solvent, "{solvency:?}");
}

/// A world with one of each kind of people, in the epoch in which its nodes count.
async fn peopled(
    inference: u8,
    evaluators: u8,
) -> (World, Vec<(NodeId, Submitter)>, Vec<(NodeId, Submitter)>, Submitter, Submitter) {
    let world = World::new().await;
    let inference = world.nodes(Role::Inference, inference).await;
    let evaluators = world.nodes(Role::Evaluator, evaluators).await;
    let requester = world.sender("//Requester").await;
    let keeper = world.sender("//Keeper").await;
    world.next_epoch();
    (world, inference, evaluators, requester, keeper)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_answers_is_explained_with_its_keeper() {
    let (world, _, _, requester, keeper) = peopled(1, 3).await;
    let task = world.request(&requester, 1, 3).await;
    let open = explain(&world.client, task).await.unwrap_err();
    assert!(matches!(open, Error::NotFinal { .. }), "{open}");
    let early = keeper.send(messages::advance_one(task)).await.unwrap_err();
    assert_eq!(early.refusal(), Some(Refusal::TooEarly));

    world.node.advance_ms(params().inference_ms + params().draw_ms / 2).unwrap();
    let sent = keeper.send(messages::advance(vec![task])).await.unwrap();
    assert_eq!(sent.value, [Ok(Step::End(Ending::Undelivered))]);
    let explanation = explain(&world.client, task).await.unwrap();
    whole(&explanation);
    let totals = &explanation.totals;
    assert_eq!((explanation.ending, totals.paid, totals.treasury), (Ending::Undelivered, 0, 0));
    assert_eq!(explanation.nodes.len(), 1, "vacant seats have no line");
    assert_eq!((explanation.nodes[0].conduct, explanation.nodes[0].slashed), ("missed", totals.slashed));
    assert!(totals.slashed > 0 && totals.keepers > 0);
    let withdrawn = keeper.send(messages::withdraw()).await.unwrap();
    assert_eq!(withdrawn.value, totals.keepers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_secret_is_explained() {
    let (world, inference, _, requester, keeper) = peopled(2, 3).await;
    let task = world.request(&requester, 2, 3).await;
    let nodes: Vec<u32> = world.task(task).await.outputs.iter().map(|slot| slot.node).collect();
    world.deliver(sender_of(&inference, nodes[0]), task, nodes[0]).await;
    let reason = DeclineReason::TooLong;
    let item = Decline { task, node: nodes[1], reason };
    let sent = sender_of(&inference, nodes[1]).send(messages::decline(vec![item])).await.unwrap();
    assert_eq!(sent.value, [None]);
    let opened = opened(&world.network().await, sender_of(&inference, nodes[0]), task, nodes[0]);
    let wrong = Open { task, node: nodes[0], opened: poq_chain::types::Opened { salt: [1; 32], ..opened } };
    let refused = keeper.send(messages::open_output(wrong)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Mismatch));
    keeper.send(messages::open_output(Open { task, node: nodes[0], opened })).await.unwrap();
    world.node.advance_ms(params().draw_ms).unwrap();
    let sent = requester.send(messages::advance_one(task)).await.unwrap();
    assert_eq!(sent.value, Step::End(Ending::NoSecret));
    let explanation = explain(&world.client, task).await.unwrap();
    whole(&explanation);
    assert_eq!(explanation.ending, Ending::NoSecret);
    let line = |node: u32| explanation.nodes.iter().find(|line| line.node == node).unwrap();
    assert_eq!((line(nodes[0]).conduct, line(nodes[0]).payout), ("delivered", line(nodes[0]).slot));
    assert_eq!((line(nodes[1]).conduct, line(nodes[1]).payout), ("declined", 0));
    assert!(line(nodes[1]).slashed > 0, "somebody delivered, so it could be done");
    assert!(explanation.totals.burned > 0 && explanation.totals.treasury > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_is_filled_and_fails_again_is_explained_with_both_draws() {
    let (world, inference, _, requester, keeper) = peopled(1, 7).await;
    let task = world.request(&requester, 1, 3).await;
    world.deliver(&inference[0].1, task, inference[0].0).await;
    let draw = world.drawing(&requester, &inference, task).await;
    // Whoever has the secret and the openings may draw.
    assert_eq!(keeper.send(messages::draw_panels(vec![draw])).await.unwrap().value, [Ok(true)]);
    let first: Vec<u32> = world.task(task).await.panel.iter().map(|seat| seat.node).collect();
    world.node.advance_ms(params().commit_ms + 1_000).unwrap();
    assert_eq!(keeper.send(messages::advance_one(task)).await.unwrap().value, Step::Fill);
    let second: Vec<u32> = world.task(task).await.panel.iter().map(|seat| seat.node).collect();
    assert!(second.iter().all(|node| *node != 0 && !first.contains(node)), "{first:?} {second:?}");
    world.node.advance_ms(params().commit_ms + 1_000).unwrap();
    assert_eq!(keeper.send(messages::advance_one(task)).await.unwrap().value, Step::End(Ending::BelowQuorum));
    let explanation = explain(&world.client, task).await.unwrap();
    whole(&explanation);
    assert_eq!(explanation.ending, Ending::BelowQuorum);
    assert_eq!(checked(&explanation, "the panel, drawn again"), 1);
    assert_eq!(checked(&explanation, "who filled the empty seats"), 1);
    assert!(explanation.nodes.iter().filter(|line| line.role == "evaluator").all(|line| line.slashed > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opened_reference_is_explained() {
    let params = poq_chain::types::KindParams::default();
    let world = World::with_params(SandboxConfig::default(), params).await;
    let auditor = world.sender("//Auditor").await;
    world
        .owner
        .send(messages::propose(Change::Appoint(poq_chain::to_ink(&auditor.account()))))
        .await
        .unwrap();
    auditor.send(messages::bond(UNIT)).await.unwrap();
    let inference = world.nodes(Role::Inference, 1).await;
    let evaluators = world.nodes(Role::Evaluator, 3).await;
    let requester = world.sender("//Requester").await;
    world.next_epoch();

    let network = world.network().await;
    let (reference, salt) = (b"the answer".to_vec(), [5; 32]);
    let reference_commitment = network.reference(&auditor.account(), &commit::blake2(&reference), &salt);
    let secret = requester.keys().request_secret(&network, &reference_commitment);
    let asked = Request {
        reference_commitment,
        secret_hash: network.secret(&requester.account(), &secret),
        ..request(&network, requester.keys(), 1, 3)
    };
    let task = requester.send(messages::request_task(asked)).await.unwrap().value;
    let node = inference[0].0;
    world.deliver(&inference[0].1, task, node).await;
    let draw = world.drawing(&requester, &inference, task).await;
    requester.send(messages::draw_panel(draw)).await.unwrap();
    world.score(&evaluators, task).await;
    let opening = Opening { reference, salt, outputs: vec![Some(output(node))] };
    let wrong = Opening { salt: [6; 32], ..opening.clone() };
    let refused = auditor.send(messages::open_reference(task, wrong)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(ContractError::BadOpening));
    auditor.send(messages::open_reference(task, opening.clone())).await.unwrap();

    let explanation = explain(&world.client, task).await.unwrap();
    whole(&explanation);
    let audit = explanation.audit.as_ref().unwrap();
    assert_eq!((audit.auditor, &audit.opening), (auditor.account(), &opening));
    assert_eq!(checked(&explanation, "what the opened reference moves"), 1);
    assert_eq!(checked(&explanation, "what the auditor opened"), 1);
    let view = world.client.view().await.unwrap();
    for line in explanation.nodes.iter().filter(|line| line.role == "evaluator") {
        let after = view.node(line.node).await.unwrap().unwrap().node.trust;
        assert_eq!(line.trust.unwrap().1, after.ppb());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_of_another_chain_is_refused() {
    let (node, client) = chain(SandboxConfig::default()).await;
    // A copy of the contract that was told the genesis of another chain.
    let Setup { epoch_ms, global } = setup();
    let data =
        [&[0x9b, 0xae, 0x9d, 0x5e][..], &parity_scale_codec::Encode::encode(&([7u8; 32], epoch_ms, global))]
            .concat();
    let code = poq_sandbox::Code::Upload(artifact().code);
    let placed =
        node.with(|chain| chain.instantiate(&poq_sandbox::dev::alice(), 0, code, data, vec![])).unwrap();
    let address: [u8; 32] = *placed.address.as_ref();
    let client = client.with_contract(poq_chain::AccountId32(address));
    let alice = client.submitter(keys("//Alice"));
    let nonce = client.account(&alice.account(), At::Best).await.unwrap().nonce;
    let asked = client.network().await.unwrap_err();
    let sent = alice.send(messages::set_paused(true)).await.unwrap_err();
    for error in [asked, sent] {
        assert!(matches!(&error, Error::WrongNetwork { found, .. } if found.0 == [7; 32]), "{error}");
        assert_eq!(error.class(), Class::Fatal);
    }
    assert_eq!(client.account(&alice.account(), At::Best).await.unwrap().nonce, nonce, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_changes_is_announced() {
    let world = World::new().await;
    let changed = poq_chain::types::GlobalParams { audit_bond: 7 * UNIT, ..setup().global };
    // Nobody has a stake yet.
    let sent = world.owner.send(messages::propose(Change::Global(changed))).await.unwrap();
    assert!(matches!(&sent.events[..], [PoqEvent::Enacted(e)] if e.change == Change::Global(changed)));
    world.node(Role::Evaluator, 0).await;
    let back = Change::Global(setup().global);
    let acts_at = world.owner.send(messages::propose(back.clone())).await.unwrap().value;
    let view = world.client.view().await.unwrap();
    let pending = view.pending().await.unwrap();
    assert_eq!((&pending[0].change, pending[0].acts_at, pending.len()), (&back, acts_at, 1));
    assert!(acts_at >= view.block().timestamp_ms + setup().global.params_delay_ms);
    assert_eq!(pending.to_json()[0]["change"]["global"]["audit_bond"], UNIT.to_string());
    let anybody = world.sender("//Anybody").await;
    let refused = anybody.send(messages::enact(Lever::Global)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(ContractError::NotDue));
    world.node.advance_to_ms(acts_at).unwrap();
    anybody.send(messages::enact(Lever::Global)).await.unwrap();
    assert_eq!(world.client.view().await.unwrap().global_params().await.unwrap(), setup().global);
    world.owner.send(messages::propose(Change::Global(changed))).await.unwrap();
    world.owner.send(messages::cancel(Lever::Global)).await.unwrap();
    assert!(world.client.view().await.unwrap().pending().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn deploying_twice_finds_the_first() {
    let (_node, client) = chain(SandboxConfig::default()).await;
    let alice = client.submitter(keys("//Alice"));
    let artifact = artifact();
    let foretold =
        address_of(&alice.account(), client.chain().genesis_hash, artifact.code_hash, &setup(), b"a");
    assert_eq!(client.code_hash_of(&foretold).await.unwrap(), None);
    let first = find_or_deploy(&alice, &artifact, &setup(), b"a").await.unwrap();
    assert!(first.created);
    assert_eq!(first.address, foretold);
    let second = find_or_deploy(&alice, &artifact, &setup(), b"a").await.unwrap();
    assert!(!second.created);
    assert_eq!(second.address, first.address);
    // The code is there by now: this one takes the other call. It is another contract.
    let third = find_or_deploy(&alice, &artifact, &setup(), b"b").await.unwrap();
    assert!(third.created);
    assert_ne!(third.address, first.address);
    let twice = deploy(&alice, &artifact, &setup(), b"a").await.unwrap_err();
    assert!(
        matches!(&twice, Error::Dispatch { failure, .. } if failure.is("Contracts", "DuplicateContract")),
        "{twice}"
    );

    let client = client.with_contract(first.address);
    assert_eq!(client.code_hash().await.unwrap(), artifact.code_hash);
    assert!(check_code(&client, &artifact).await.unwrap());
    let other = Artifact::from_wasm(b"\0asm\x01\0\0\0".to_vec()).unwrap();
    assert!(!check_code(&client, &other).await.unwrap());
    assert_eq!(client.view().await.unwrap().owner().await.unwrap(), alice.account());

    let never = poq_chain::types::GlobalParams { unbonding_ms: u64::MAX, ..setup().global };
    let refused = deploy(&alice, &artifact, &Setup { global: never, ..setup() }, b"c").await;
    assert!(matches!(&refused, Err(Error::ConstructorRejected { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_calls_of_one_account_at_once_all_land() {
    let world = World::new().await;
    let (node, sender) = world.node(Role::Inference, 0).await;
    let before = world.client.account(&sender.account(), At::Best).await.unwrap().nonce;
    let calls = (0..20u128).map(|index| {
        // Each with a submitter of its own, as services have.
        let sender = world.client.submitter(sender.keys().clone());
        tokio::spawn(async move { sender.send(messages::stake(node, UNIT + index)).await })
    });
    let mut extrinsics = std::collections::BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        extrinsics.insert(call.await.unwrap().unwrap().extrinsic);
    }
    assert_eq!(extrinsics.len(), 20);
    let after = world.client.account(&sender.account(), At::Best).await.unwrap().nonce;
    assert_eq!(after, before + 20);
    let node = world.client.view().await.unwrap().node(node).await.unwrap().unwrap();
    assert_eq!(node.node.stake.bonded, 200 * UNIT + 20 * UNIT + 190);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_contract_refuses_is_typed_and_never_sent() {
    let world = World::new().await;
    let mallory = world.sender("//Mallory").await;
    let nonce = |account| world.client.account(account, At::Best);
    let account = mallory.account();
    let before = nonce(&account).await.unwrap().nonce;
    let error = mallory.send(messages::set_paused(true)).await.unwrap_err();
    assert!(
        matches!(error, Error::Rejected { message: "set_paused", error: ContractError::NotContractOwner }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Rejected(ContractError::NotContractOwner));
    let error = mallory.dry_run(&messages::claim(5)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(ContractError::NoNode));
    assert_eq!(nonce(&account).await.unwrap().nonce, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_contract_says_how_to_get_one() {
    let (_node, client) = chain(SandboxConfig::default()).await;
    assert!(matches!(client.view().await, Err(Error::NoContract)));
    let client = client.with_contract(keys("//Nobody").account());
    let view = client.view().await.unwrap();
    let read = view.owner().await.unwrap_err();
    let alice = client.submitter(keys("//Alice"));
    let sent = alice.send(messages::claim(1)).await.unwrap_err();
    let code = client.code_hash().await.unwrap_err();
    for error in [read, sent, code] {
        assert!(matches!(error, Error::ContractAbsent { .. }), "{error}");
        assert!(error.to_string().contains("poq deploy"));
        assert_eq!(error.class(), Class::Fatal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lack_of_money_is_said_with_the_amounts() {
    let world = World::new().await;
    let poor = world.client.submitter(keys("//Poor"));
    world.owner.transfer(&poor.account(), UNIT).await.unwrap();
    let too_much =
        poor.send(messages::register(registration(Role::Inference, 0, &poor.account()), 50 * UNIT)).await;
    match too_much.unwrap_err() {
        Error::InsufficientFunds { account, free, needed, existential_deposit, .. } => {
            assert_eq!(account, poor.account());
            assert_eq!(free, UNIT);
            assert!(needed >= 50 * UNIT);
            assert!(existential_deposit > 0);
        }
        other => panic!("{other}"),
    }
    // Nothing at all: not even the fee.
    let nobody = world.client.submitter(keys("//Nobody"));
    let error = nobody.transfer(&poor.account(), 1).await.unwrap_err();
    assert!(matches!(error, Error::InsufficientFunds { free: 0, .. }), "{error}");
    let error = poor.transfer(&keys("//Bob").account(), 2 * UNIT).await.unwrap_err();
    assert!(matches!(error, Error::InsufficientFunds { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_told_free_held_and_spendable_apart() {
    let world = World::new().await;
    let alice = world.owner.account();
    let funds = world.client.funds(&alice, At::Best).await.unwrap();
    let account = world.client.account(&alice, At::Best).await.unwrap();
    // The code that she uploaded is paid for with a deposit.
    assert_eq!((funds.free, funds.reserved, funds.frozen), (account.free, account.reserved, account.frozen));
    assert!(funds.held.iter().any(|hold| hold.reason == "Contracts::CodeUploadDepositReserve"), "{funds:?}");
    assert_eq!(funds.held.iter().map(|hold| hold.amount).sum::<u128>(), funds.reserved);
    assert_eq!(funds.spendable, funds.free - funds.existential_deposit);
    assert_eq!(funds.to_json()["held"][0]["reason"], "Contracts::CodeUploadDepositReserve");
    // What can be spent can be spent, save the fee; a unit more cannot.
    let spender = world.sender("//Spender").await;
    let funds = world.client.funds(&spender.account(), At::Best).await.unwrap();
    let error = spender.transfer(&alice, funds.spendable + 1).await.unwrap_err();
    assert!(matches!(error, Error::InsufficientFunds { .. }), "{error}");
    spender.transfer(&alice, funds.spendable - UNIT).await.unwrap();
    let nobody = world.client.funds(&keys("//Nobody").account(), At::Best).await.unwrap();
    assert_eq!((nobody.free, nobody.spendable, nobody.held.len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_out_more_stake_moves_nothing_that_waits() {
    let world = World::new().await;
    let (node, sender) = world.node(Role::Evaluator, 0).await;
    let foretell = |amount| {
        let client = world.client.clone();
        async move {
            let view = client.view().await.unwrap();
            let found = view.node(node).await.unwrap().unwrap();
            let now = client.upcoming().timestamp_ms.max(view.block().timestamp_ms);
            poq_chain::stake::Unstake::of(&found, &view.global_params().await.unwrap(), amount, now)
        }
    };
    assert!(foretell(0).await.is_err());
    assert!(foretell(201 * UNIT).await.is_err());
    let first = foretell(10 * UNIT).await.unwrap();
    assert_eq!((first.withdrawable, first.tranches.len()), (0, 1));
    let begun = sender.send(messages::unstake(node, 10 * UNIT)).await.unwrap().value;
    assert_eq!(begun, first.until);
    world.node.advance_ms(setup().global.unbonding_ms / 2).unwrap();
    let second = foretell(5 * UNIT).await.unwrap();
    assert!(second.until > begun);
    let waits: Vec<_> = second.tranches.iter().map(|tranche| (tranche.amount, tranche.until)).collect();
    assert_eq!(waits, [(10 * UNIT, begun), (5 * UNIT, second.until)]);
    // So it is.
    let sent = sender.send(messages::unstake(node, 5 * UNIT)).await.unwrap();
    assert_eq!(sent.value, second.until);
    let early = sender.send(messages::withdraw_unbonded(node)).await.unwrap_err();
    assert_eq!(early.rejection(), Some(ContractError::StillUnbonding));
    world.node.advance_to_ms(begun).unwrap();
    assert_eq!(foretell(UNIT).await.unwrap().withdrawable, 10 * UNIT);
    assert_eq!(sender.send(messages::withdraw_unbonded(node)).await.unwrap().value, 10 * UNIT);
    let holding = world.client.view().await.unwrap().holding(node).await.unwrap().unwrap();
    assert_eq!((holding.bonded, holding.unbonding, holding.withdrawable), (185 * UNIT, 5 * UNIT, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_says_whether_it_is_for_development() {
    for (kind, development) in [("Development", true), ("Local", true), ("Live", false)] {
        let (_node, client) = chain(SandboxConfig { chain_type: kind, ..SandboxConfig::default() }).await;
        assert_eq!((client.chain().kind.as_str(), client.chain().is_development()), (kind, development));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_only_too_early_for_the_best_block_waits_for_the_next() {
    let (world, _, _, requester, _) = peopled(1, 3).await;
    let task = world.request(&requester, 1, 3).await;
    let deadline = world.task(task).await.deadline;
    // The next block will be late enough; no other comes by itself.
    world.node.with(|chain| chain.advance_to_ms(deadline + 1));
    let best = world.client.best().await.unwrap();
    let refused = requester.dry_run(&messages::advance_one(task)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::TooEarly));
    let sent = requester.send(messages::advance_one(task)).await.unwrap();
    assert_eq!(sent.value, Step::End(Ending::Undelivered));
    assert!(sent.block.number > best.number + 1, "a block was made for it");
    // Who does not want to pay for that is told no.
    let task = world.request(&requester, 1, 3).await;
    let deadline = world.task(task).await.deadline;
    world.node.with(|chain| chain.advance_to_ms(deadline + 1));
    let patient = poq_chain::Client::from_rpc(
        world.node.rpc_client(),
        Some(world.contract()),
        Options { nudge: false, ..options() },
    )
    .await
    .unwrap();
    let refused =
        patient.submitter(requester.keys().clone()).send(messages::advance_one(task)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::TooEarly));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_of_one_block() {
    let world = World::new().await;
    let old = world.client.view().await.unwrap();
    let (node, _) = world.node(Role::Evaluator, 0).await;
    assert_eq!(old.node(node).await.unwrap(), None);
    assert_eq!(old.node_count().await.unwrap(), 0);
    let new = world.client.view().await.unwrap();
    assert_eq!(new.node(node).await.unwrap().unwrap().node.role, Role::Evaluator);
    assert_eq!(new.all_nodes().await.unwrap().len(), 1);
    assert_eq!(new.kinds().await.unwrap(), [KIND]);
    assert_eq!(new.kind(KIND).await.unwrap().unwrap().kind.params, params());
    assert_eq!(new.params(KIND, 1).await.unwrap(), Some(params()));
    assert_eq!(new.params(KIND, 2).await.unwrap(), None);
    assert_eq!(new.global_params().await.unwrap(), setup().global);
    assert!(!new.paused().await.unwrap());
    assert_eq!(new.proposed_owner().await.unwrap(), None);
    assert_eq!(new.liabilities().await.unwrap().stakes, 200 * UNIT);
    assert_eq!(new.task_count().await.unwrap(), 0);
    assert!(new.all_tasks(1).await.unwrap().is_empty());
    let owner = keys("//Evaluator//0").account();
    let balances = new.balances(&owner).await.unwrap();
    assert_eq!((balances.staked, balances.locked), (200 * UNIT, 0));
    assert_eq!(balances.to_json()["nodes"], serde_json::json!([node]));
    assert_eq!(world.client.view_at(old.block().hash).await.unwrap().block(), old.block());
    assert_eq!(world.client.block(old.block().number).await.unwrap(), old.block());
    assert!(matches!(world.client.block(1_000_000u32).await, Err(Error::NoBlock { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_nodes_come_page_by_page() {
    let world = World::new().await;
    // Three owners, since one can have thirty-two.
    for index in 0..3u8 {
        let sender = world.sender(&format!("//Owner//{index}")).await;
        for _ in 0..14 {
            let message =
                messages::register(registration(Role::Evaluator, index, &sender.account()), 10 * UNIT);
            sender.send(message).await.unwrap();
        }
    }
    let all = world.client.view().await.unwrap().all_nodes().await.unwrap();
    assert_eq!(all.iter().map(|node| node.id).collect::<Vec<_>>(), (1..=42).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_by_block_and_range() {
    let world = World::new().await;
    let (node, sender) = world.node(Role::Evaluator, 0).await;
    let from = world.client.best().await.unwrap().number;
    let staked = sender.send(messages::stake(node, UNIT)).await.unwrap();
    sender.send(messages::drain(node)).await.unwrap();
    let to = world.client.best().await.unwrap().number;
    let at = world.client.events_at(staked.block).await.unwrap();
    assert_eq!(at.len(), 1);
    assert_eq!(at[0].block, staked.block);
    assert_eq!(at[0].event, staked.events[0]);
    assert!(at[0].extrinsic.is_some());
    let names: Vec<&str> =
        world.client.events(from + 1, to).map(|emitted| emitted.unwrap().event.name()).collect().await;
    assert_eq!(names, ["Staked", "NodeChanged"]);
    assert!(matches!(world.client.final_event_at(1, to).await, Err(Error::NoFinalEvent { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_can_wait_for_finality() {
    let config = SandboxConfig { finality: Finality::Manual, ..SandboxConfig::default() };
    let world = World::with(config).await;
    let bob = keys("//Bob").account();
    // Nothing is final yet: this times out, and says that it may still happen.
    let options = SendOptions {
        confirm: Some(Confirm::Finalized),
        inclusion_timeout: Some(Duration::from_millis(700)),
        retries: Some(0),
        ..SendOptions::default()
    };
    let error = world.owner.send_with(messages::set_paused(true), options).await.unwrap_err();
    assert!(matches!(error, Error::Unresolved { .. }), "{error}");
    assert_eq!(error.class(), Class::Stale);
    assert!(world.client.view().await.unwrap().paused().await.unwrap());

    let owner = world.owner.clone();
    let options = SendOptions { confirm: Some(Confirm::Finalized), ..SendOptions::default() };
    let sending = tokio::spawn(async move { owner.send_with(messages::set_paused(false), options).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished());
    let best = world.client.best().await.unwrap().number;
    world.node.with(|chain| chain.finalize_to(best));
    let receipt = sending.await.unwrap().unwrap();
    assert!(world.client.finalized().await.unwrap().number >= receipt.block.number);
    world.owner.transfer(&bob, UNIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn finalized_blocks_come_without_gaps() {
    let (node, client) = chain(SandboxConfig::default()).await;
    for _ in 0..5 {
        node.new_block().unwrap();
    }
    let mut blocks = Box::pin(client.finalized_blocks(2));
    for number in 2..=5 {
        assert_eq!(blocks.next().await.unwrap().unwrap().number, number);
    }
    node.with(|chain| {
        for _ in 0..3 {
            chain.new_block().unwrap();
        }
    });
    for number in 6..=8 {
        let next = tokio::time::timeout(Duration::from_secs(10), blocks.next()).await.unwrap();
        assert_eq!(next.unwrap().unwrap().number, number);
    }
}

/// Selectors and arguments come from the contract's crate; this is the check that the artifact was built from it.
#[test]
fn the_artifacts_interface_is_the_crates() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.json");
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let listed = |what: &str| -> std::collections::BTreeMap<String, String> {
        metadata["spec"][what]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                (entry["label"].as_str().unwrap().to_owned(), entry["selector"].as_str().unwrap().to_owned())
            })
            .collect()
    };
    let messages = listed("messages");
    let selector = |data: &[u8]| format!("0x{}", hex::encode(&data[..4]));
    let account = poq_chain::AccountId32([1; 32]);
    let opening = Opening { reference: Vec::new(), salt: [0; 32], outputs: Vec::new() };
    let draw = Draw { task: 1, secret: [0; 32], openings: Vec::new() };
    let writes: Vec<(&str, String)> = vec![
        ("register", selector(messages::register(registration(Role::Evaluator, 0, &account), 0).data())),
        ("configure", selector(messages::configure(1, Default::default()).data())),
        ("stake", selector(messages::stake(1, 1).data())),
        ("unstake", selector(messages::unstake(1, 1).data())),
        ("withdraw_unbonded", selector(messages::withdraw_unbonded(1).data())),
        ("drain", selector(messages::drain(1).data())),
        ("resume", selector(messages::resume(1).data())),
        ("deregister", selector(messages::deregister(1).data())),
        ("refresh", selector(messages::refresh(vec![]).data())),
        ("claim", selector(messages::claim(1).data())),
        ("request_tasks", selector(messages::request_tasks(vec![]).data())),
        ("collect", selector(messages::collect(vec![]).data())),
        ("withdraw", selector(messages::withdraw().data())),
        ("commit_outputs", selector(messages::commit_outputs(vec![]).data())),
        ("decline", selector(messages::decline(vec![]).data())),
        ("open_outputs", selector(messages::open_outputs(vec![]).data())),
        ("draw_panels", selector(messages::draw_panel(draw).data())),
        ("commit_scores", selector(messages::commit_scores(vec![]).data())),
        ("reveal_scores", selector(messages::reveal_scores(vec![]).data())),
        ("advance", selector(messages::advance(vec![]).data())),
        ("bond", selector(messages::bond(1).data())),
        ("withdraw_bond", selector(messages::withdraw_bond().data())),
        ("open_reference", selector(messages::open_reference(1, opening).data())),
        ("propose", selector(messages::propose(Change::Global(setup().global)).data())),
        ("propose_code", selector(messages::propose_code(&account).data())),
        ("enact", selector(messages::enact(Lever::Global).data())),
        ("set_code", selector(messages::enact(Lever::Code).data())),
        ("cancel", selector(messages::cancel(Lever::Global).data())),
        ("set_paused", selector(messages::set_paused(true).data())),
        ("dismiss_auditor", selector(messages::dismiss_auditor(&account).data())),
        ("propose_owner", selector(messages::propose_owner(&account).data())),
        ("accept_ownership", selector(messages::accept_ownership().data())),
        ("withdraw_treasury", selector(messages::withdraw_treasury(&account, 1).data())),
        ("burn", selector(messages::burn().data())),
    ];
    for (name, selector) in &writes {
        assert_eq!(messages.get(*name), Some(selector), "{name}");
    }
    // Nothing in the artifact that this crate does not know.
    let reads = [
        "overview", "kind", "params", "node", "holding", "nodes", "task", "tasks", "duties", "balances",
        "auditor", "pending",
    ];
    // Only the contract itself sends `migrate`.
    let known: std::collections::BTreeSet<&str> =
        writes.iter().map(|(name, _)| *name).chain(reads).chain(["migrate"]).collect();
    let unknown: Vec<&String> = messages.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "messages without a typed form: {unknown:?}");
    assert_eq!(messages.len(), known.len());
    assert_eq!(listed("constructors").len(), 1);
}
