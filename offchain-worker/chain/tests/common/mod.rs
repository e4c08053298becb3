//! A chain in this process with the built contract on it, and a typed client of both.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use poq_chain::deploy::{self, Artifact, Setup};
use poq_chain::types::{
    Change, Draw, GlobalParams, KindParams, NodeId, Opened, OutputState, Purpose, Ratio, Registration,
    Request, Reveal, Role, Score, Source, Task, TaskId,
};
use poq_chain::{commit, messages, to_ink, AccountId32, Client, Keys, Network, Options, Submitter};
use poq_sandbox::{SandboxConfig, SandboxNode};
use secrecy::SecretString;
use std::path::Path;
use std::time::Duration;

/// One unit of the chain's money.
pub(crate) const UNIT: u128 = 1_000_000_000_000;
/// The task kind of the tests.
pub(crate) const KIND: u16 = 1;
/// What the tests' tasks pay.
pub(crate) const FEE: u128 = 10 * UNIT;

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
pub(crate) struct World<N = SandboxNode> {
    pub(crate) node: N,
    pub(crate) client: Client,
    pub(crate) owner: Submitter,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(SandboxConfig::default()).await
    }

    pub(crate) async fn with(config: SandboxConfig) -> World {
        World::with_params(config, params()).await
    }

    pub(crate) async fn with_params(config: SandboxConfig, params: KindParams) -> World {
        let (node, client) = chain(config).await;
        World::on(node, client, setup(), params).await
    }

    /// Begins the next epoch: what owners have done counts from now on.
    pub(crate) fn next_epoch(&self) {
        let now = self.node.now_ms();
        self.node.advance_ms(setup().epoch_ms - now % setup().epoch_ms).unwrap();
    }
}

impl<N> World<N> {
    /// A contract on the chain that the client is connected to.
    pub(crate) async fn on(node: N, client: Client, setup: Setup, params: KindParams) -> World<N> {
        let alice = client.submitter(keys("//Alice"));
        let deployed = deploy::deploy(&alice, &artifact(), &setup, b"test").await.unwrap();
        let client = client.with_contract(deployed.address);
        let owner = client.submitter(keys("//Alice"));
        owner.send(messages::propose(Change::Kind(KIND, params))).await.unwrap();
        World { node, client, owner }
    }

    pub(crate) async fn network(&self) -> Network {
        self.client.network().await.unwrap()
    }

    pub(crate) async fn task(&self, task: TaskId) -> Task {
        self.client.view().await.unwrap().task(task).await.unwrap().unwrap().task
    }

    /// Requests a task of drawn nodes.
    pub(crate) async fn request(&self, requester: &Submitter, outputs: u8, panel: u8) -> TaskId {
        let request = request(&self.network().await, requester.keys(), outputs, panel);
        requester.send(messages::request_task(request)).await.unwrap().value
    }

    /// Has an assigned node deliver [`output`].
    pub(crate) async fn deliver(&self, sender: &Submitter, task: TaskId, node: NodeId) {
        let opened = opened(&self.network().await, sender, task, node);
        let commitment = self.network().await.output(task, node, &opened.hash, &opened.salt);
        sender.send(messages::commit_output(task, node, commitment)).await.unwrap();
    }

    /// What it takes to draw a task's panel.
    pub(crate) async fn drawing(
        &self,
        requester: &Submitter,
        inference: &[(NodeId, Submitter)],
        id: TaskId,
    ) -> Draw {
        let (network, task) = (self.network().await, self.task(id).await);
        let openings = task.outputs.iter().map(|slot| {
            let committed = slot.state == OutputState::Committed;
            committed.then(|| opened(&network, sender_of(inference, slot.node), id, slot.node))
        });
        let secret = requester.keys().request_secret(&network, &task.reference_commitment);
        Draw { task: id, secret, openings: openings.collect() }
    }

    /// Has a task's panel commit and reveal: the scores of each seat are a little above those of the one before.
    pub(crate) async fn score(&self, evaluators: &[(NodeId, Submitter)], id: TaskId) {
        let task = self.task(id).await;
        let mut reveals = Vec::new();
        for (place, seat) in (0u32..).zip(&task.panel) {
            let sender = sender_of(evaluators, seat.node);
            let scores = (0u32..).zip(&task.outputs);
            let scores =
                scores.map(|(at, _)| Score::of(Ratio::from_permille(800 - 400 * at + 10 * place))).collect();
            let (reveal, commitment) = reveal(&self.network().await, sender, id, seat.node, scores);
            sender.send(messages::commit_score(id, seat.node, commitment)).await.unwrap();
            reveals.push(reveal);
        }
        // Anybody relays them.
        let sent = self.owner.send(messages::reveal_scores(reveals)).await.unwrap();
        assert!(sent.value.iter().all(Option::is_none), "{:?}", sent.value);
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
            .send(messages::register(registration(role, index, &sender.account()), 200 * UNIT))
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

/// What the contracts of the tests are told.
pub(crate) fn setup() -> Setup {
    Setup {
        epoch_ms: 600_000,
        global: GlobalParams {
            unbonding_ms: 2_400_000,
            archive_ms: 3_600_000,
            audit_bond: UNIT,
            audits_per_epoch: 64,
            params_delay_ms: 3 * 86_400_000,
        },
    }
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

/// A request of a key, with random bytes for a reference commitment.
pub(crate) fn request(network: &Network, keys: &Keys, outputs: u8, panel: u8) -> Request {
    let reference_commitment: [u8; 32] = rand::random();
    let secret = keys.request_secret(network, &reference_commitment);
    Request {
        kind: KIND,
        fee: FEE,
        nodes: vec![],
        outputs,
        panel,
        input: Source::Url { hash: commit::blake2(b"input"), url: "http://127.0.0.1:9/input".into() },
        reference_commitment,
        secret_hash: network.secret(&keys.account(), &secret),
        early: false,
    }
}

/// What a node answers.
pub(crate) fn output(node: NodeId) -> Vec<u8> {
    format!("the answer of node {node}").into_bytes()
}

/// The opening of a node's output, with its derived salt.
pub(crate) fn opened(network: &Network, sender: &Submitter, task: TaskId, node: NodeId) -> Opened {
    let salt = sender.keys().salt(network, task, node, Purpose::Output);
    Opened { hash: commit::blake2(&output(node)), salt }
}

/// The sender of a drawn node.
pub(crate) fn sender_of(nodes: &[(NodeId, Submitter)], id: NodeId) -> &Submitter {
    &nodes.iter().find(|(node, _)| *node == id).expect("a drawn node is registered").1
}

/// A reveal with this node's derived salt, and its commitment.
pub(crate) fn reveal(
    network: &Network,
    sender: &Submitter,
    task: TaskId,
    node: NodeId,
    scores: Vec<Score>,
) -> (Reveal, [u8; 32]) {
    let salt = sender.keys().salt(network, task, node, Purpose::Scores);
    let report_hash = commit::blake2(b"report");
    let commitment = network.scores(task, node, &scores, &report_hash, &salt);
    (Reveal { task, node, scores, report_hash, salt }, commitment)
}
