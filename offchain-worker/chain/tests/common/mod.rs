//! A chain in this process with the built contract on it, and a typed client of both.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use poq_chain::deploy::{self, Artifact};
use poq_chain::types::{
    GlobalParams, KindParams, NodeId, Registration, Reveal, Role, Score, TaskId, TaskInput,
};
use poq_chain::{commit, messages, to_ink, AccountId32, Client, Keys, Options, Submitter};
use poq_sandbox::{SandboxConfig, SandboxNode};
use secrecy::SecretString;
use std::path::Path;
use std::time::Duration;

/// One unit of the chain's money.
pub(crate) const UNIT: u128 = 1_000_000_000_000;
/// The task kind of the tests.
pub(crate) const KIND: u16 = 1;

/// The built contract.
pub(crate) fn artifact() -> Artifact {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.contract");
    Artifact::load(&path).unwrap()
}

/// A development key.
pub(crate) fn keys(uri: &str) -> Keys {
    Keys::from_uri(&SecretString::from(uri)).unwrap()
}

/// Options under which tests do not wait long.
pub(crate) fn options() -> Options {
    Options {
        inclusion_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

/// A chain without the contract.
pub(crate) async fn chain(config: SandboxConfig) -> (SandboxNode, Client) {
    let node = SandboxNode::start(config).unwrap();
    let client = Client::from_rpc(node.rpc_client(), None, options()).await.unwrap();
    (node, client)
}

/// The parameters of the tests' kind.
pub(crate) fn params() -> KindParams {
    KindParams::without_auditors()
}

/// A contract on a chain, with one kind, owned by Alice.
pub(crate) struct World {
    pub(crate) node: SandboxNode,
    pub(crate) client: Client,
    pub(crate) owner: Submitter,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(SandboxConfig::default()).await
    }

    pub(crate) async fn with(config: SandboxConfig) -> World {
        let (node, client) = chain(config).await;
        let alice = client.submitter(keys("//Alice"));
        let deployed = deploy::deploy(&alice, &artifact(), global(), b"test").await.unwrap();
        let client = client.with_contract(deployed.address);
        let owner = client.submitter(keys("//Alice"));
        owner.send(messages::set_kind(KIND, params())).await.unwrap();
        World { node, client, owner }
    }

    pub(crate) fn contract(&self) -> AccountId32 {
        self.client.contract().unwrap()
    }

    /// A sender whose account has money.
    pub(crate) async fn sender(&self, uri: &str) -> Submitter {
        let sender = self.client.submitter(keys(uri));
        self.owner.transfer(&sender.account(), 10_000 * UNIT).await.unwrap();
        sender
    }

    /// Registers a node that one key owns, operates and is paid for.
    pub(crate) async fn node(&self, role: Role, index: u8) -> (NodeId, Submitter) {
        let sender = self.sender(&format!("//{role:?}//{index}")).await;
        let id = sender
            .send(messages::register(registration(role, index, &sender.account()), 100 * UNIT))
            .await
            .unwrap();
        (id.value, sender)
    }

    pub(crate) async fn nodes(&self, role: Role, count: u8) -> Vec<(NodeId, Submitter)> {
        let mut all = Vec::new();
        for index in 0..count {
            all.push(self.node(role, index).await);
        }
        all
    }
}

pub(crate) fn global() -> GlobalParams {
    GlobalParams { unbonding_ms: 60_000, archive_ms: 3_600_000, audit_bond: 1_000_000_000_000 }
}

pub(crate) fn registration(role: Role, index: u8, account: &AccountId32) -> Registration {
    Registration {
        role,
        kind: KIND,
        operator: to_ink(account),
        payee: to_ink(account),
        model: format!("model {index}"),
        model_digest: [index; 32],
        endpoint: "http://127.0.0.1:9".into(),
        price: if role == Role::Inference { UNIT / 100 } else { 0 },
    }
}

pub(crate) fn input() -> TaskInput {
    TaskInput { hash: commit::blake2(b"input"), url: "http://127.0.0.1:9/input".into() }
}

/// The sender of a drawn node.
pub(crate) fn sender_of(nodes: &[(NodeId, Submitter)], id: NodeId) -> &Submitter {
    &nodes.iter().find(|(node, _)| *node == id).expect("a drawn node is registered").1
}

/// A reveal with this node's derived salt, and its commitment.
pub(crate) fn reveal(
    sender: &Submitter,
    task: TaskId,
    node: NodeId,
    scores: Vec<Score>,
) -> (Reveal, [u8; 32]) {
    let contract = sender.client().contract().unwrap();
    let salt = sender.keys().salt(&contract, task, node, poq_chain::types::Purpose::Scores);
    let report_hash = commit::blake2(b"report");
    let commitment = commit::scores(&contract, task, node, &scores, &report_hash, &salt);
    (Reveal { task, node, scores, report_hash, salt }, commitment)
}
