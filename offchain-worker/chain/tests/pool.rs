//! Staking pools through the typed client: made, found, used, and their refusals.
#![allow(clippy::unwrap_used)]

use poq_chain::deploy::{self, Artifact, Setup};
use poq_chain::pool::{
    self, NewPool, PoolError, PoolEvent, PoolNode, Refusal, Rules, Stage, Terms, Token, VIRTUAL_SHARES,
};
use poq_chain::types::{Change, GlobalParams, KindParams, Ratio, Role};
use poq_chain::{messages, to_account32, to_ink, AccountId32, Client, Error, Keys, Options, Submitter};
use poq_sandbox::{SandboxConfig, SandboxNode};
use secrecy::SecretString;
use std::path::Path;

const UNIT: u128 = 1_000_000_000_000;
const EPOCH_MS: u64 = 600_000;
const UNBONDING_MS: u64 = 2_400_000;

fn artifact(name: &str) -> Artifact {
    Artifact::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts").join(name))
        .unwrap()
}

/// A chain with the contract and a task kind, and its owner.
async fn world() -> (SandboxNode, Client, Submitter) {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let client = Client::from_rpc(node.rpc_client(), None, Options::default()).await.unwrap();
    let keys = Keys::from_uri(&SecretString::from("//Alice")).unwrap();
    let global = GlobalParams { unbonding_ms: UNBONDING_MS, ..GlobalParams::default() };
    let setup = Setup { epoch_ms: EPOCH_MS, global };
    let deployed =
        deploy::deploy(&client.submitter(keys.clone()), &artifact("poq.contract"), &setup, b"pools")
            .await
            .unwrap();
    let client = client.with_contract(deployed.address);
    let owner = client.submitter(keys);
    owner.send(messages::propose(Change::Kind(1, KindParams::without_auditors()))).await.unwrap();
    (node, client, owner)
}

async fn sender(client: &Client, owner: &Submitter, uri: &str) -> Submitter {
    let sender = client.submitter(Keys::from_uri(&SecretString::from(uri)).unwrap());
    owner.transfer(&sender.account(), 10_000 * UNIT).await.unwrap();
    sender
}

fn new_pool(poq: AccountId32, operator: &AccountId32) -> NewPool {
    NewPool {
        poq,
        node: PoolNode {
            role: Role::Evaluator,
            kind: 1,
            operator: to_ink(operator),
            model: "a model".into(),
            model_digest: [1; 32],
            endpoint: "http://127.0.0.1:9".into(),
            price: 0,
        },
        rules: Rules {
            commission_max: Ratio::from_permille(200),
            first_loss: Ratio::from_permille(50),
            era_ms: EPOCH_MS,
            exit_ms: UNBONDING_MS,
        },
        terms: Terms { commission: Ratio::from_permille(50), capacity: 10_000 * UNIT },
        bond: 200 * UNIT,
        token: Token { name: Some("Shares".into()), symbol: Some("sPOQ".into()) },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_made_found_and_used() {
    let (node, client, owner) = world().await;
    let manager = sender(&client, &owner, "//Manager").await;
    let holder = sender(&client, &owner, "//Holder").await;
    let code = artifact("pool.contract");
    let new = new_pool(client.contract().unwrap(), &owner.account());

    // What is promised must fit the contract, and is refused before anything is paid for.
    let hasty = NewPool { rules: Rules { exit_ms: UNBONDING_MS - 1, ..new.rules }, ..new.clone() };
    let refused = hasty.create(&manager, &code, b"").await.unwrap_err();
    assert!(
        matches!(refused, Error::PoolRejected { error: Refusal::Pool(PoolError::BadRules), .. }),
        "{refused}"
    );

    let cost = new.quote(&manager, &code, b"").await.unwrap();
    assert_eq!(cost.value, 200 * UNIT);
    let made = new.create(&manager, &code, b"").await.unwrap();
    assert_eq!(made.address, new.address(&manager.account(), &code, b""));
    let address = made.address;

    let view = client.view().await.unwrap();
    let found = view.pools().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, address);
    let state = &found[0].1;
    assert_eq!(to_account32(&state.manager), manager.account());
    assert_eq!((state.ledger.bond, state.supply, state.ledger.stage), (200 * UNIT, 0, Stage::Open));
    // A contract that is no pool, and an account that is no contract.
    assert!(matches!(view.pool(&client.contract().unwrap()).await, Err(Error::NotOurContract { .. })));
    assert!(matches!(view.pool(&holder.account()).await, Err(Error::ContractAbsent { .. })));

    let receipt = holder.send(pool::deposit(&address, 100 * UNIT)).await.unwrap();
    assert_eq!(receipt.value, 100 * UNIT * VIRTUAL_SHARES);
    let too_much = holder.send(pool::deposit(&address, 9_800 * UNIT)).await.unwrap_err();
    assert!(matches!(too_much, Error::PoolRejected { .. } | Error::InsufficientFunds { .. }), "{too_much}");

    let from = manager
        .send(pool::announce(&address, Terms { commission: Ratio::from_permille(200), ..new.terms }))
        .await
        .unwrap()
        .value;
    assert!(from >= node.now_ms() + EPOCH_MS + UNBONDING_MS - 60_000);
    let usurped = holder.send(pool::collect(&address)).await.unwrap_err();
    assert!(matches!(usurped, Error::PoolRejected { error: Refusal::NotManager, .. }), "{usurped}");

    let exit = holder.send(pool::exit(&address, receipt.value / 2)).await.unwrap();
    assert_eq!(exit.value, 50 * UNIT);
    let era = exit.events.iter().find_map(|event| match PoolEvent::of(event) {
        Some(PoolEvent::ExitRequested(event)) => Some(event.era),
        _ => None,
    });
    assert_eq!(era, Some(1));
    let member = client.view().await.unwrap().pool_member(&address, &holder.account()).await.unwrap();
    assert_eq!((member.shares, member.value, member.exits.len()), (receipt.value / 2, 50 * UNIT, 1));
    for _ in 0..6 {
        node.advance_ms(EPOCH_MS).unwrap();
        holder.send(pool::advance(&address)).await.unwrap();
    }
    let paid = holder.send(pool::claim(&address, &holder.account())).await.unwrap();
    assert_eq!(paid.value, 50 * UNIT);
    assert!(client
        .view()
        .await
        .unwrap()
        .pool_member(&address, &holder.account())
        .await
        .unwrap()
        .exits
        .is_empty());
}
