//! The typed client against the real contract's code on the in-process chain.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use futures::StreamExt;
use poq_chain::deploy::{address_of, check_code, deploy, find_or_deploy, Artifact};
use poq_chain::explain::{explain, explain_at, explain_event, Ending};
use poq_chain::json::ToJson;
use poq_chain::types::{Commit, Opening, Phase, Ratio, Role, Score, Step};
use poq_chain::{commit, messages, At, Class, Confirm, ContractError, Error, Outcome, PoqEvent, SendOptions};
use poq_sandbox::{Finality, SandboxConfig};
use std::time::Duration;

const FEE: u128 = 10 * UNIT;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_from_request_to_claim() {
    let world = World::new().await;
    let inference = world.nodes(Role::Inference, 2).await;
    let evaluators = world.nodes(Role::Evaluator, 4).await;
    let requester = world.sender("//Requester").await;
    let contract = world.contract();

    let quote = world.client.view().await.unwrap().quote(KIND, 2, 3).await.unwrap().unwrap();
    assert!(quote.fee_min <= FEE);
    let requested = requester.send(messages::request_task(KIND, 2, 3, input(), [7; 32], FEE)).await.unwrap();
    let task = requested.value;
    assert_eq!(task, 1);
    assert!(matches!(&requested.events[..], [PoqEvent::TaskRequested(event)] if event.fee == FEE));
    assert!(requested.fee.unwrap() > 0);

    let view = world.client.view().await.unwrap();
    let drawn: Vec<u32> =
        view.task(task).await.unwrap().unwrap().task.outputs.iter().map(|slot| slot.node).collect();
    assert_eq!(drawn.len(), 2);
    assert_eq!(view.open_tasks(drawn[0]).await.unwrap(), [task]);
    assert_eq!(view.duties(drawn[0]).await.unwrap()[0].id, task);

    world.node.advance_ms(3_000).unwrap();
    for node in &drawn {
        let sender = sender_of(&inference, *node);
        let salt = sender.keys().salt(&contract, task, *node, poq_chain::types::Purpose::Output);
        let commitment = commit::output(&contract, task, *node, &commit::blake2(b"output"), &salt);
        sender.send(messages::commit_output(task, *node, commitment)).await.unwrap();
        // A worker that lost the answer sends the same again.
        let again = sender.send(messages::commit_output(task, *node, commitment)).await.unwrap();
        assert!(again.events.is_empty());
        let other = sender.send(messages::commit_output(task, *node, [9; 32])).await.unwrap_err();
        assert_eq!(other.class(), Class::Rejected(ContractError::AlreadyCommitted));
    }

    // The best block is the one of the last commitment: only the next may draw. Nobody but us makes blocks here.
    let best = world.client.best().await.unwrap();
    let record = world.client.view().await.unwrap().task(task).await.unwrap().unwrap();
    assert_eq!(record.step, Step::Draw);
    assert!(best.number > 0);
    world.owner.send(messages::draw_panel(task)).await.unwrap();

    let panel: Vec<u32> = {
        let view = world.client.view().await.unwrap();
        view.task(task).await.unwrap().unwrap().task.panel.iter().map(|seat| seat.node).collect()
    };
    world.node.advance_ms(2_000).unwrap();
    let mut reveals = Vec::new();
    for (place, node) in (0u32..).zip(&panel) {
        let sender = sender_of(&evaluators, *node);
        let scores =
            vec![Score::of(Ratio::from_permille(800 + 10 * place)), Score::of(Ratio::from_permille(400))];
        let (reveal, commitment) = reveal(sender, task, *node, scores);
        let items = vec![Commit { task, node: *node, commitment }];
        let sent = sender.send(messages::commit_scores_batch(items)).await.unwrap();
        assert_eq!(sent.value, [None]);
        reveals.push((sender, reveal));
    }
    for (sender, reveal) in reveals {
        sender.send(messages::reveal_scores(reveal)).await.unwrap();
    }
    let settled = requester.send(messages::settle(task)).await.unwrap();
    assert!(matches!(&settled.events[..], [PoqEvent::TaskSettled(event)] if event.task == task));

    // What happened, three ways.
    let ended = world.client.final_event(task).await.unwrap();
    assert_eq!(ended.block, settled.block);
    let Outcome::Settled(event) = &ended.outcome else { panic!("it was settled") };
    assert!(event.settlement.outputs[0].payout > event.settlement.outputs[1].payout);
    let explanation = explain(&world.client, task).await.unwrap();
    assert!(explanation.agrees(), "{:#?}", explanation.differences);
    assert_eq!(explanation.skipped().count(), 0, "{:?}", explanation.checks);
    assert_eq!(explanation.ending, Ending::Settled);
    assert_eq!(explanation.nodes.len(), 5);
    assert_eq!(explanation.totals.fee, FEE);
    assert_eq!(explanation.recomputed.as_ref(), Some(&event.settlement));
    let totals = explanation.totals;
    assert_eq!(totals.paid + totals.protocol_fee + totals.refund, FEE);
    assert!(serde_json::to_string(&explanation).unwrap().contains("\"ending\":\"settled\""));

    // An event that lies is caught, whatever it lies about.
    let mut lie = world.client.final_event(task).await.unwrap();
    let Outcome::Settled(false_event) = &mut lie.outcome else { panic!("it was settled") };
    false_event.settlement.outputs[1].payout += 1;
    false_event.settlement.panel[0].trust = Ratio::ONE;
    false_event.input.panel[1].trust = Ratio::from_permille(1);
    false_event.input.outputs[0].latency_ms = Some(1);
    let explanation = explain_event(&world.client, lie).await.unwrap();
    assert!(!explanation.agrees());
    let wrong: Vec<String> = explanation.differences.iter().map(|d| d.what.clone()).collect();
    for what in ["outputs[1].payout", "panel[0].trust", "panel[1].trust", "outputs[0].latency_ms", "fee"] {
        assert!(wrong.iter().any(|path| path == what), "{what} is not among {wrong:?}");
    }

    // Money out.
    let earner = event.output_nodes[0];
    let payout = event.settlement.outputs[0].payout;
    let sender = sender_of(&inference, earner);
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
    let explanation = explain_at(&world.client, task, settled.block.number).await.unwrap();
    assert!(explanation.agrees(), "{:#?}", explanation.differences);
    let solvency = world.client.view().await.unwrap().solvency().await.unwrap();
    assert!(solvency.solvent, "{solvency:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_explained_too() {
    let world = World::new().await;
    world.nodes(Role::Inference, 1).await;
    world.nodes(Role::Evaluator, 3).await;
    let requester = world.sender("//Requester").await;
    let task = requester.send(messages::request_task(KIND, 1, 3, input(), [7; 32], FEE)).await.unwrap().value;
    let open = explain(&world.client, task).await.unwrap_err();
    assert!(matches!(open, Error::NotFinal { .. }), "{open}");

    world.node.advance_ms(params().inference_ms + 1_000).unwrap();
    let sent = requester.send(messages::advance(vec![task])).await.unwrap();
    assert_eq!(sent.value, [Ok(Step::RefundUndelivered)]);
    let explanation = explain(&world.client, task).await.unwrap();
    assert_eq!(explanation.ending, Ending::RefundedUndelivered);
    assert!(explanation.agrees(), "{:#?}", explanation.differences);
    assert_eq!(explanation.totals.refund, FEE);
    assert!(explanation.totals.slashed > 0);
    assert_eq!(explanation.nodes[0].slashed, explanation.totals.slashed);
}

#[tokio::test(flavor = "multi_thread")]
async fn deploying_twice_finds_the_first() {
    let (_node, client) = chain(SandboxConfig::default()).await;
    let alice = client.submitter(keys("//Alice"));
    let artifact = artifact();
    let foretold = address_of(&alice.account(), artifact.code_hash, global(), b"a");
    assert_eq!(client.code_hash_of(&foretold).await.unwrap(), None);
    let first = find_or_deploy(&alice, &artifact, global(), b"a").await.unwrap();
    assert!(first.created);
    assert_eq!(first.address, foretold);
    let second = find_or_deploy(&alice, &artifact, global(), b"a").await.unwrap();
    assert!(!second.created);
    assert_eq!(second.address, first.address);
    // The code is there by now: this one takes the other call. It is another contract.
    let third = find_or_deploy(&alice, &artifact, global(), b"b").await.unwrap();
    assert!(third.created);
    assert_ne!(third.address, first.address);
    let twice = deploy(&alice, &artifact, global(), b"a").await.unwrap_err();
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

    let refused = deploy(
        &alice,
        &artifact,
        poq_chain::types::GlobalParams { unbonding_ms: u64::MAX, archive_ms: 1, audit_bond: 1 },
        b"c",
    )
    .await;
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
    assert_eq!(node.node.free, 100 * UNIT + 20 * UNIT + 190);
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
async fn taking_out_more_stake_makes_what_waits_wait_again() {
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
    let text = |unstake: &poq_chain::stake::Unstake| unstake.warning(|a| a.to_string(), |t| t.to_string());
    let first = foretell(10 * UNIT).await;
    assert_eq!((first.waiting, first.ready, first.earlier, text(&first)), (0, 0, None, None));
    sender.send(messages::unstake(node, 10 * UNIT)).await.unwrap();
    let begun = world.client.view().await.unwrap().node(node).await.unwrap().unwrap().node.unbonds_at;
    world.node.advance_ms(global().unbonding_ms / 2).unwrap();
    let second = foretell(5 * UNIT).await;
    assert_eq!((second.waiting, second.ready, second.earlier), (10 * UNIT, 0, Some(begun)));
    assert!(second.unbonds_at > begun);
    let warning = text(&second).unwrap();
    assert!(
        warning.contains("wait again from the beginning") && warning.contains(&begun.to_string()),
        "{warning}"
    );
    // So it is.
    sender.send(messages::unstake(node, 5 * UNIT)).await.unwrap();
    let found = world.client.view().await.unwrap().node(node).await.unwrap().unwrap().node;
    assert_eq!(found.unbonding, 15 * UNIT);
    assert!(found.unbonds_at > begun);
    // What could be withdrawn is not to be thrown back.
    world.node.advance_ms(global().unbonding_ms + 1_000).unwrap();
    let third = foretell(UNIT).await;
    assert_eq!((third.waiting, third.ready), (0, 15 * UNIT));
    assert!(text(&third).unwrap().contains("withdraw it first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_says_whether_it_is_for_development() {
    for (kind, development) in [("Development", true), ("Local", true), ("Live", false)] {
        let (_node, client) = chain(SandboxConfig { chain_type: kind, ..SandboxConfig::default() }).await;
        assert_eq!((client.chain().kind.as_str(), client.chain().is_development()), (kind, development));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draw_right_after_the_last_commitment_waits_for_the_next_block() {
    let world = World::new().await;
    let inference = world.nodes(Role::Inference, 1).await;
    world.nodes(Role::Evaluator, 3).await;
    let task =
        world.owner.send(messages::request_task(KIND, 1, 3, input(), [7; 32], FEE)).await.unwrap().value;
    let (node, sender) = &inference[0];
    let committed = sender.send(messages::commit_output(task, *node, [1; 32])).await.unwrap();
    // The commitment's block is the best one, in which a panel must not be drawn; no other will come by itself.
    assert_eq!(world.client.best().await.unwrap(), committed.block);
    let refused = world.owner.dry_run(&messages::draw_panel(task)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(ContractError::TooEarly));
    assert_eq!(world.client.upcoming().number, committed.block.number + 1);
    let drawn = world.owner.send(messages::draw_panel(task)).await.unwrap();
    assert!(drawn.block.number > committed.block.number);
    let record = world.client.view().await.unwrap().task(task).await.unwrap().unwrap();
    assert_eq!(record.task.phase, Phase::Scoring);
    // What is early whatever the block is stays refused.
    let refused = world.owner.send(messages::settle(task)).await.unwrap_err();
    assert!(
        matches!(refused.rejection(), Some(ContractError::TooEarly | ContractError::WrongPhase)),
        "{refused}"
    );
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
    assert_eq!(new.kind(KIND).await.unwrap().unwrap().params, params());
    assert_eq!(new.params(KIND, 1).await.unwrap(), Some(params()));
    assert_eq!(new.params(KIND, 2).await.unwrap(), None);
    assert_eq!(new.global_params().await.unwrap(), global());
    assert!(!new.paused().await.unwrap());
    assert_eq!(new.proposed_owner().await.unwrap(), None);
    assert_eq!(new.liabilities().await.unwrap().stakes, 100 * UNIT);
    assert_eq!(new.task_count().await.unwrap(), 0);
    assert!(new.all_tasks(1).await.unwrap().is_empty());
    let owner = keys("//Evaluator//0").account();
    let balances = new.balances(&owner).await.unwrap();
    assert_eq!(balances.staked_free, 100 * UNIT);
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
        ("request_task", selector(messages::request_task(1, 1, 3, input(), [0; 32], 1).data())),
        ("collect", selector(messages::collect(vec![]).data())),
        ("commit_output", selector(messages::commit_output(1, 1, [0; 32]).data())),
        ("commit_outputs", selector(messages::commit_outputs(vec![]).data())),
        ("commit_scores", selector(messages::commit_scores(1, 1, [0; 32]).data())),
        ("commit_scores_batch", selector(messages::commit_scores_batch(vec![]).data())),
        ("reveal_scores_batch", selector(messages::reveal_scores_batch(vec![]).data())),
        ("draw_panel", selector(messages::draw_panel(1).data())),
        ("settle", selector(messages::settle(1).data())),
        ("advance", selector(messages::advance(vec![]).data())),
        ("set_kind", selector(messages::set_kind(1, params()).data())),
        ("set_global", selector(messages::set_global(global()).data())),
        ("set_paused", selector(messages::set_paused(true).data())),
        ("propose_owner", selector(messages::propose_owner(&account).data())),
        ("accept_ownership", selector(messages::accept_ownership().data())),
        ("withdraw_treasury", selector(messages::withdraw_treasury(&account, 1).data())),
        ("bond", selector(messages::bond(1).data())),
        ("withdraw_bond", selector(messages::withdraw_bond().data())),
        ("set_auditor", selector(messages::set_auditor(&account, true, 0).data())),
        ("settle_audited", selector(messages::settle_audited(1, opening).data())),
    ];
    for (name, selector) in &writes {
        assert_eq!(messages.get(*name), Some(selector), "{name}");
    }
    // Nothing in the artifact that this crate does not know.
    let reads =
        ["overview", "kind", "params", "node", "nodes", "task", "tasks", "duties", "balances", "auditor"];
    let known: std::collections::BTreeSet<&str> =
        writes.iter().map(|(name, _)| *name).chain(reads).chain(["reveal_scores"]).collect();
    let unknown: Vec<&String> = messages.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "messages without a typed form: {unknown:?}");
    assert_eq!(messages.len(), known.len());
    assert_eq!(listed("constructors").len(), 1);
}
