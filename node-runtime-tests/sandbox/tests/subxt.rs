//! Real subxt on the sandbox, in-process and by websocket.
//!
//! `on_the_node_the_same_holds` runs the same checks against a real node; `scripts/test.sh` starts one and runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{probe, FLIP, GET, NOW};
use futures::future::join_all;
use parity_scale_codec::{Decode, Encode};
use poq_sandbox::{
    account_of, dev as sandbox_dev, AccountId32, Code, ContractExecResult, Finality, SandboxConfig,
    SandboxNode, Sealing, TimeMode, Weight, UNIT,
};
use subxt::{
    config::DefaultExtrinsicParamsBuilder,
    dynamic::{self, Value},
    ext::scale_decode::DecodeAsType,
    OnlineClient, PolkadotConfig,
};
use subxt_rpcs::{client::rpc_params, RpcClient};
use subxt_signer::sr25519::dev;

type Client = OnlineClient<PolkadotConfig>;

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct AccountInfo {
    nonce: u32,
    data: AccountData,
}

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct AccountData {
    free: u128,
}

async fn account(api: &Client, id: [u8; 32]) -> AccountInfo {
    let address = dynamic::storage::<([u8; 32],), AccountInfo>("System", "Account");
    api.at_current_block().await.unwrap().storage().fetch(address, (id,)).await.unwrap().decode().unwrap()
}

fn transfer(to: [u8; 32], amount: u128) -> impl subxt::transactions::Payload {
    dynamic::transaction(
        "Balances",
        "transfer_keep_alive",
        (Value::unnamed_variant("Id", [Value::from_bytes(to)]), Value::u128(amount)),
    )
}

async fn within<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("took more than a minute")
}

/// The code of the pool's refusal of a call that is outdated.
const POOL_CODE: &str = "1010";

/// What every chain must do for a subxt client.
async fn exercise(rpc: RpcClient, refusal: &str) {
    let api = within(Client::from_rpc_client(rpc.clone())).await.unwrap();
    let alice = dev::alice();
    let bob = dev::bob().public_key().0;
    let before = account(&api, bob).await;

    // A transfer, watched until it is final.
    let progress = api
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&transfer(bob, 3 * UNIT), &alice)
        .await
        .unwrap();
    let in_block = within(progress.wait_for_finalized()).await.unwrap();
    let events = in_block.wait_for_success().await.unwrap();
    let transfers: Vec<_> = events
        .iter()
        .map(Result::unwrap)
        .filter(|event| event.pallet_name() == "Balances" && event.event_name() == "Transfer")
        .collect();
    assert_eq!(transfers.len(), 1);
    assert_eq!(account(&api, bob).await.data.free, before.data.free + 3 * UNIT);

    // All events of the block, read at its hash.
    let at = in_block.at().await.unwrap();
    assert!(at.events().fetch().await.unwrap().len() > events.iter().count() as u32);
    let timestamp = dynamic::storage::<(), u64>("Timestamp", "Now");
    assert!(at.storage().fetch(timestamp, ()).await.unwrap().decode().unwrap() > 1_700_000_000_000);

    // Many at once, nonces given by hand.
    let nonce: u64 = rpc
        .request("system_accountNextIndex", rpc_params![dev::charlie().public_key().to_account_id()])
        .await
        .unwrap();
    let submissions = (0..10).rev().map(|offset| {
        let api = api.clone();
        async move {
            let params = DefaultExtrinsicParamsBuilder::<PolkadotConfig>::new().nonce(nonce + offset).build();
            let mut tx = api.tx().await.unwrap();
            let progress =
                tx.sign_and_submit_then_watch(&transfer(bob, UNIT), &dev::charlie(), params).await.unwrap();
            progress.wait_for_finalized_success().await.unwrap()
        }
    });
    within(join_all(submissions)).await;
    let charlie = account(&api, dev::charlie().public_key().0).await;
    assert_eq!(u64::from(charlie.nonce), nonce + 10);

    // A call that fails in its block: an account cannot come to be with less than the existential deposit.
    let error = api
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&transfer([7; 32], 1), &alice)
        .await
        .unwrap()
        .wait_for_finalized_success()
        .await
        .unwrap_err();
    assert!(format!("{error}").contains("Token error"), "{error}");

    // The pool's refusal keeps its reason.
    let stale = DefaultExtrinsicParamsBuilder::<PolkadotConfig>::new().nonce(0).build();
    let refused =
        api.tx().await.unwrap().sign_and_submit(&transfer(bob, UNIT), &alice, stale).await.unwrap_err();
    let refused = format!("{refused:?}");
    assert!(refused.contains(refusal), "{refused}");

    contract(&api).await;
    heads(&api).await;
}

/// Deploys the test contract and calls it, by dry runs and by extrinsics.
async fn contract(api: &Client) {
    let alice = dev::alice();
    let salt: Vec<u8> = std::process::id().encode();
    let weight = |ref_time: u64, proof_size: u64| {
        Value::named_composite([
            ("ref_time", Value::u128(ref_time.into())),
            ("proof_size", Value::u128(proof_size.into())),
        ])
    };
    let instantiate = dynamic::transaction(
        "Contracts",
        "instantiate_with_code",
        vec![
            Value::u128(0),
            weight(50_000_000_000, 1_000_000),
            Value::unnamed_variant("None", []),
            Value::from_bytes(probe()),
            Value::from_bytes([]),
            Value::from_bytes(salt),
        ],
    );
    let events = within(async {
        let progress =
            api.tx().await.unwrap().sign_and_submit_then_watch_default(&instantiate, &alice).await.unwrap();
        progress.wait_for_finalized_success().await.unwrap()
    })
    .await;
    let contract = events
        .iter()
        .map(Result::unwrap)
        .find(|event| event.pallet_name() == "Contracts" && event.event_name() == "Instantiated")
        .map(|event| <([u8; 32], [u8; 32])>::decode(&mut event.field_bytes()).unwrap().1)
        .unwrap();

    let flip = dynamic::transaction(
        "Contracts",
        "call",
        vec![
            Value::unnamed_variant("Id", [Value::from_bytes(contract)]),
            Value::u128(0),
            weight(50_000_000_000, 1_000_000),
            Value::unnamed_variant("None", []),
            Value::from_bytes([FLIP]),
        ],
    );
    within(async {
        let progress =
            api.tx().await.unwrap().sign_and_submit_then_watch_default(&flip, &alice).await.unwrap();
        progress.wait_for_finalized_success().await.unwrap()
    })
    .await;
    assert_eq!(dry_call(api, contract, GET).await, [1]);
}

async fn dry_call(api: &Client, contract: [u8; 32], order: u8) -> Vec<u8> {
    let arguments =
        (dev::alice().public_key().0, contract, 0u128, None::<Weight>, None::<u128>, vec![order]).encode();
    let at = api.at_current_block().await.unwrap();
    let answer = at.runtime_apis().call_raw("ContractsApi_call", Some(&arguments)).await.unwrap();
    ContractExecResult::decode(&mut &answer[..]).unwrap().result.unwrap().data
}

/// Finalised blocks come in order and without a gap.
async fn heads(api: &Client) {
    let mut blocks = api.stream_blocks().await.unwrap();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        within(async {
            let progress = api
                .tx()
                .await
                .unwrap()
                .sign_and_submit_then_watch_default(&transfer(dev::bob().public_key().0, UNIT), &dev::dave())
                .await
                .unwrap();
            progress.wait_for_finalized_success().await.unwrap();
            numbers.push(blocks.next().await.unwrap().unwrap().number());
        })
        .await;
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subxt_works_in_process() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    exercise(node.rpc_client(), POOL_CODE).await;
}

#[tokio::test]
async fn subxt_works_in_process_on_one_thread() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    exercise(node.rpc_client(), POOL_CODE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subxt_works_by_websocket() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    exercise(RpcClient::from_insecure_url(server.url()).await.unwrap(), POOL_CODE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subxt_works_with_wall_clock_and_late_finality() {
    let config =
        SandboxConfig { finality: Finality::Delay(Duration::from_millis(100)), ..SandboxConfig::live() };
    let node = SandboxNode::start(config).unwrap();
    exercise(node.rpc_client(), POOL_CODE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subxt_works_with_interval_sealing() {
    let config = SandboxConfig {
        time: TimeMode::System,
        sealing: Sealing::Interval(Duration::from_millis(50)),
        finality: Finality::Blocks(1),
        ..SandboxConfig::default()
    };
    let node = SandboxNode::start(config).unwrap();
    let api = Client::from_rpc_client(node.rpc_client()).await.unwrap();
    let bob = dev::bob().public_key().0;
    let before = account(&api, bob).await.data.free;
    let progress = api
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&transfer(bob, UNIT), &dev::alice())
        .await
        .unwrap();
    within(progress.wait_for_finalized_success()).await.unwrap();
    assert_eq!(account(&api, bob).await.data.free, before + UNIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a node, whose address POQ_TEST_NODE_URL tells"]
async fn on_the_node_the_same_holds() {
    let url = std::env::var("POQ_TEST_NODE_URL").unwrap();
    // subxt reads it out of the submission's progress there, as a text.
    exercise(RpcClient::from_insecure_url(url).await.unwrap(), "Transaction is outdated").await;
}

#[tokio::test]
async fn time_moves_while_a_client_is_connected() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let contract = node
        .with(|chain| chain.instantiate(&sandbox_dev::alice(), 0, Code::Upload(probe()), vec![], vec![]))
        .unwrap()
        .address;
    let api = Client::from_rpc_client(node.rpc_client()).await.unwrap();
    let mut heads = api.stream_best_blocks().await.unwrap();
    let first = within(heads.next()).await.unwrap().unwrap().number();
    let contract: [u8; 32] = contract.into();
    let now = |data: Vec<u8>| u64::from_le_bytes(data.try_into().unwrap());

    let before = now(dry_call(&api, contract, NOW).await);
    let block = node.advance_ms(3_600_000).unwrap();
    assert_eq!(block.timestamp_ms, before + 3_600_000);
    assert_eq!(now(dry_call(&api, contract, NOW).await), block.timestamp_ms);
    assert_eq!(within(heads.next()).await.unwrap().unwrap().number(), first + 1);
    assert_eq!(node.advance_to_ms(block.timestamp_ms).unwrap(), block, "it is that late already");
}

#[tokio::test]
async fn a_lost_connection_ends_subscriptions_and_nothing_else() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let rpc = node.rpc_client();
    let mut heads = rpc
        .subscribe::<serde_json::Value>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
        .await
        .unwrap();
    assert!(within(heads.next()).await.unwrap().is_ok());
    node.drop_subscriptions();
    assert!(within(heads.next()).await.is_none());
    let mut again = rpc
        .subscribe::<serde_json::Value>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
        .await
        .unwrap();
    assert!(within(again.next()).await.unwrap().is_ok());
}

#[tokio::test]
async fn failures_can_be_ordered() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let rpc = node.rpc_client();
    let ask = || rpc.request::<String>("system_chain", rpc_params![]);
    node.fail_next("system_chain", 2);
    assert!(ask().await.is_err());
    assert!(ask().await.is_err());
    assert_eq!(ask().await.unwrap(), "Development");
    node.set_offline(true);
    assert!(ask().await.is_err());
    node.set_offline(false);
    assert!(ask().await.is_ok());
    assert!(rpc.request::<()>("no_such_method", rpc_params![]).await.is_err());
}

#[tokio::test]
async fn the_chain_outlives_its_handle_as_long_as_a_client_does() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let api = Client::from_rpc_client(node.rpc_client()).await.unwrap();
    drop(node);
    let alice: AccountId32 = account_of(&sandbox_dev::alice());
    assert!(account(&api, alice.into()).await.data.free > 0);
}
