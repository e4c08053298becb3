//! The real contracts' code on the in-process chain, indexed, and compared with what they say themselves.

use crate::common::*;
use crate::made_up::digest;
use poq_chain::deploy::Artifact;
use poq_chain::explain::{explain_at, Explanation};
use poq_chain::pool::{self, NewPool, PoolNode, Rules, Terms, Token};
use poq_chain::types::{
    Change, Decline, DeclineReason, KindParams, Lever, NodeId, NodeUpdate, Opening, Ratio, Request, Role,
    Source, Step,
};
use poq_chain::{commit, messages, to_ink, Client, Said, Submitter, H256};
use poq_index::db::{Access, Conn, Target};
use poq_index::follow::{Follower, Options, Picker};
use poq_index::ledger::Ledger;
use poq_index::read::{HistoryFilter, LineFilter, Reads, TaskFilter};
use poq_index::replay::{against_chain, replay, Report};
use poq_index::{explain, Error, Identity, Store};
use poq_sandbox::{Finality, SandboxConfig};
use std::path::Path;

const PATIENT: Options =
    Options { concurrency: 8, batch: 64, patience: std::time::Duration::from_millis(50) };

fn config() -> SandboxConfig {
    SandboxConfig { history_blocks: 100_000, ..SandboxConfig::default() }
}

fn target(folder: &Path, name: &str) -> Target {
    Target::Sqlite(folder.join(name))
}

/// Reads everything that is final into an index.
async fn index(client: &Client, target: &Target) -> Result<(), Error> {
    let mut follower = Follower::open(client.clone(), target, PATIENT).await?;
    follower.once(&mut |_| {}).await.map(drop)
}

/// Opens what an index says, for reading.
fn reading(client: &Client, target: &Target) -> (Conn, Identity) {
    let identity = Identity::of(client.chain(), client.contract().unwrap());
    (Conn::open(target, Access::Read).unwrap(), identity)
}

fn replayed(client: &Client, target: &Target) -> (Report, Ledger) {
    let (mut conn, identity) = reading(client, target);
    replay(&mut conn, &identity, 20, |_, _| {}).unwrap()
}

/// A network in which nearly everything has happened once.
struct Lived {
    world: World,
    inference: Vec<(NodeId, Submitter)>,
    evaluators: Vec<(NodeId, Submitter)>,
    requester: Submitter,
    keeper: Submitter,
    holder: Submitter,
    manager: Submitter,
    pool: poq_chain::AccountId32,
    /// Ended tasks.
    ended: Vec<u64>,
}

impl Lived {
    async fn new() -> Lived {
        let params = KindParams { trust_initial: Ratio::from_permille(500), ..KindParams::default() };
        let world = World::with_params(config(), params.clone()).await;
        let auditor = world.sender("//Auditor").await;
        let account = to_ink(&auditor.account());
        world.owner.send(messages::propose(Change::Appoint(account))).await.unwrap();
        auditor.send(messages::bond(UNIT)).await.unwrap();
        let inference = world.nodes(Role::Inference, 2).await;
        let evaluators = world.nodes(Role::Evaluator, 5).await;
        let requester = world.sender("//Requester").await;
        let keeper = world.sender("//Keeper").await;
        let holder = world.sender("//Holder").await;
        let manager = world.sender("//Manager").await;
        let pool = make_pool(&world, &manager).await;
        holder.send(pool::deposit(&pool, 300 * UNIT)).await.unwrap();
        world.next_epoch();
        let mut lived = Lived {
            world,
            inference,
            evaluators,
            requester,
            keeper,
            holder,
            manager,
            pool,
            ended: Vec::new(),
        };
        // The pool's node is operated by its manager.
        let pooled = lived.world.client.view().await.unwrap().pool(&lived.pool).await.unwrap().node;
        lived.evaluators.push((pooled, lived.manager.clone()));

        let task = lived.settle(2, 3).await;
        lived.ended.push(task);
        lived.gold(&auditor).await;
        lived.nobody_answers().await;
        lived.seats_are_filled().await;
        lived.one_declines_and_the_secret_stays_away().await;
        lived.money_and_changes(&params).await;
        // And one that is open.
        lived.world.request(&lived.requester, 1, 3).await;
        lived
    }

    async fn settle(&self, outputs: u8, panel: u8) -> u64 {
        let world = &self.world;
        let task = world.request(&self.requester, outputs, panel).await;
        self.answer(task).await;
        let draw = world.drawing(&self.requester, &self.inference, task).await;
        self.requester.send(messages::draw_panel(draw)).await.unwrap();
        world.node.advance_ms(2_000).unwrap();
        world.score(&self.evaluators, task).await;
        task
    }

    async fn answer(&self, task: u64) {
        self.world.node.advance_ms(3_000).unwrap();
        let nodes: Vec<u32> = self.world.task(task).await.outputs.iter().map(|slot| slot.node).collect();
        for node in nodes {
            self.world.deliver(sender_of(&self.inference, node), task, node).await;
        }
    }

    async fn gold(&mut self, auditor: &Submitter) {
        let network = self.world.network().await;
        let (reference, salt) = (b"the answer".to_vec(), [5; 32]);
        let reference_commitment = network.reference(&auditor.account(), &commit::blake2(&reference), &salt);
        let keys = self.requester.keys();
        let secret = keys.request_secret(&network, &reference_commitment);
        let asked = Request {
            reference_commitment,
            secret_hash: network.secret(&self.requester.account(), &secret),
            input: Source::Inline(b"what is the answer?".to_vec()),
            ..request(&network, keys, 1, 3)
        };
        let task = self.requester.send(messages::request_task(asked)).await.unwrap().value;
        self.answer(task).await;
        let draw = self.world.drawing(&self.requester, &self.inference, task).await;
        self.requester.send(messages::draw_panel(draw)).await.unwrap();
        self.world.score(&self.evaluators, task).await;
        let node = self.world.task(task).await.outputs[0].node;
        let opening = Opening { reference, salt, outputs: vec![Some(output(node))] };
        auditor.send(messages::open_reference(task, opening)).await.unwrap();
        self.ended.push(task);
    }

    async fn nobody_answers(&mut self) {
        let task = self.world.request(&self.requester, 1, 3).await;
        self.world.node.advance_ms(params().inference_ms + params().draw_ms / 2).unwrap();
        self.keeper.send(messages::advance(vec![task])).await.unwrap();
        self.ended.push(task);
    }

    async fn seats_are_filled(&mut self) {
        let task = self.world.request(&self.requester, 1, 3).await;
        self.answer(task).await;
        let draw = self.world.drawing(&self.requester, &self.inference, task).await;
        self.keeper.send(messages::draw_panels(vec![draw])).await.unwrap();
        self.world.node.advance_ms(params().commit_ms + 1_000).unwrap();
        assert_eq!(self.keeper.send(messages::advance_one(task)).await.unwrap().value, Step::Fill);
        self.world.node.advance_ms(params().commit_ms + 1_000).unwrap();
        self.keeper.send(messages::advance_one(task)).await.unwrap();
        self.ended.push(task);
        // Who missed is out of the draws only after two in a row; all are back.
        for (node, sender) in &self.evaluators {
            let view = self.world.client.view().await.unwrap();
            if view.node(*node).await.unwrap().unwrap().node.misses > 0
                && sender.account() != self.manager.account()
            {
                sender.send(messages::resume(*node)).await.unwrap();
            }
        }
        self.world.next_epoch();
    }

    async fn one_declines_and_the_secret_stays_away(&mut self) {
        let task = self.world.request(&self.requester, 2, 3).await;
        let nodes: Vec<u32> = self.world.task(task).await.outputs.iter().map(|slot| slot.node).collect();
        let item = Decline { task, node: nodes[1], reason: DeclineReason::TooLong };
        sender_of(&self.inference, nodes[1]).send(messages::decline(vec![item])).await.unwrap();
        self.world.deliver(sender_of(&self.inference, nodes[0]), task, nodes[0]).await;
        let network = self.world.network().await;
        let opened = opened(&network, sender_of(&self.inference, nodes[0]), task, nodes[0]);
        let open = poq_chain::types::Open { task, node: nodes[0], opened };
        self.keeper.send(messages::open_output(open)).await.unwrap();
        self.world.node.advance_ms(params().draw_ms + 1).unwrap();
        self.requester.send(messages::advance_one(task)).await.unwrap();
        self.ended.push(task);
    }

    async fn money_and_changes(&self, params: &KindParams) {
        let (world, (node, sender)) = (&self.world, &self.inference[0]);
        let _ = sender.send(messages::claim(*node)).await;
        let price = NodeUpdate { price: Some(UNIT / 50), ..NodeUpdate::default() };
        sender.send(messages::configure(*node, price)).await.unwrap();
        sender.send(messages::unstake(*node, 10 * UNIT)).await.unwrap();
        sender.send(messages::stake(*node, 3 * UNIT)).await.unwrap();
        self.keeper.send(messages::withdraw()).await.unwrap();
        self.requester.send(messages::collect(self.ended[..2].to_vec())).await.unwrap();
        world.owner.send(messages::burn()).await.unwrap();
        let treasury = world.client.view().await.unwrap().liabilities().await.unwrap().treasury;
        let to = world.owner.account();
        world.owner.send(messages::withdraw_treasury(&to, treasury / 2)).await.unwrap();
        let changed = KindParams { protocol_fee: Ratio::from_permille(30), ..params.clone() };
        world.owner.send(messages::propose(Change::Kind(KIND, changed))).await.unwrap();
        world.owner.send(messages::propose(Change::Global(setup().global))).await.unwrap();
        world.owner.send(messages::cancel(Lever::Global)).await.unwrap();
        // The pool: its node's rewards, an exit, and shares that go to somebody else.
        self.holder.send(pool::advance(&self.pool)).await.unwrap();
        let view = world.client.view().await.unwrap();
        let shares = view.pool_member(&self.pool, &self.holder.account()).await.unwrap().shares;
        self.holder.send(pool::exit(&self.pool, shares / 3)).await.unwrap();
        world.node.advance_ms(setup().epoch_ms).unwrap();
        self.holder.send(pool::advance(&self.pool)).await.unwrap();
        world.node.advance_ms(setup().global.unbonding_ms + setup().epoch_ms).unwrap();
        for _ in 0..6 {
            world.node.advance_ms(setup().epoch_ms).unwrap();
            self.holder.send(pool::advance(&self.pool)).await.unwrap();
        }
        self.holder.send(pool::claim(&self.pool, &self.holder.account())).await.unwrap();
        sender.send(messages::withdraw_unbonded(*node)).await.unwrap();
        sender.send(messages::drain(*node)).await.unwrap();
        sender.send(messages::resume(*node)).await.unwrap();
        world.next_epoch();
    }
}

async fn make_pool(world: &World, manager: &Submitter) -> poq_chain::AccountId32 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/pool.contract");
    let code = Artifact::load(&path).unwrap();
    let new = NewPool {
        poq: world.contract(),
        node: PoolNode {
            role: Role::Evaluator,
            kind: KIND,
            operator: to_ink(&manager.account()),
            model: "pooled <b>model</b>".into(),
            model_digest: [1; 32],
            endpoint: "http://127.0.0.1:9".into(),
            price: 0,
        },
        rules: Rules {
            commission_max: Ratio::from_permille(200),
            first_loss: Ratio::from_permille(50),
            era_ms: setup().epoch_ms,
            exit_ms: setup().global.unbonding_ms,
        },
        terms: Terms { commission: Ratio::from_permille(50), capacity: 10_000 * UNIT },
        bond: 200 * UNIT,
        token: Token { name: Some("Shares".into()), symbol: Some("sPOQ".into()) },
    };
    new.create(manager, &code, b"").await.unwrap().address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_history_is_the_chains_to_the_unit() {
    let lived = Lived::new().await;
    let client = &lived.world.client;
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    index(client, &path).await.unwrap();

    // Every settlement agrees, nothing is strange, and the books are the contract's own.
    let (report, ledger) = replayed(client, &path);
    assert!(report.agrees(), "{:#?}", report.differences);
    assert_eq!(report.settlements, lived.ended.len() as u64);
    assert_eq!(report.references, 1);
    let tip: poq_index::ledger::Block = client.finalized().await.unwrap().into();
    let differences = against_chain(client, &ledger, tip).await.unwrap();
    assert!(differences.is_empty(), "{differences:#?}");

    // The same database in one go and in pieces, resumed, and derived anew.
    let identity = Identity::of(client.chain(), client.contract().unwrap());
    let again = target(folder.path(), "again");
    let small = Options { batch: 7, concurrency: 3, ..PATIENT };
    Follower::open(client.clone(), &again, small).await.unwrap().once(&mut |_| {}).await.unwrap();
    let expected = digest(&mut Store::open(&path, &identity).unwrap());
    let mut store = Store::open(&again, &identity).unwrap();
    assert_eq!(digest(&mut store), expected);
    store.rebuild().unwrap();
    assert_eq!(digest(&mut store), expected);
    drop(store);

    // What is explained without a chain is what the chain explains.
    let (mut conn, identity) = reading(client, &path);
    for task in &lived.ended {
        let ours = explain::explain(&mut conn, &identity, *task).unwrap();
        assert!(ours.agrees(), "{:#?}", ours.differences);
        let theirs = explain_at(client, *task, ours.block.number).await.unwrap();
        let essence = |e: &Explanation| {
            let numbers = (e.input.clone(), e.recorded.clone(), e.recomputed.clone(), e.totals);
            (e.requester, e.kind, e.version, e.block, e.ending, numbers)
        };
        assert_eq!(essence(&ours), essence(&theirs));
        assert_eq!(ours.params, theirs.params);
        // A collected task's opened reference is not looked for on the chain.
        if ours.audit.is_none() || theirs.audit.is_some() {
            assert_eq!(ours.nodes, theirs.nodes);
        }
    }

    // And as people ask.
    let reads = Reads::of(&mut conn, "index").unwrap();
    let view = client.view().await.unwrap();
    let holder = lived.holder.account();
    let member = view.pool_member(&lived.pool, &holder).await.unwrap();
    let detail = reads.account_detail(&mut conn, &holder.to_string()).unwrap();
    assert_eq!(detail.pools[0].shares, member.shares.to_string());
    assert_eq!(detail.pools[0].deposited, (300 * UNIT).to_string());
    assert_ne!(detail.pools[0].paid, "0");
    let balances = view.balances(&lived.requester.account()).await.unwrap();
    let asked = reads.account_info(&mut conn, &lived.requester.account().to_string()).unwrap();
    let claimable: u128 = asked.collectable.parse::<u128>().unwrap() + asked.credit.parse::<u128>().unwrap();
    assert_eq!((claimable, &asked.escrow), (balances.claimable, &FEE.to_string()));
    let history =
        reads.history(&mut conn, &lived.requester.account().to_string(), &HistoryFilter::default()).unwrap();
    let fees = history.items.iter().filter(|entry| entry.what == "fee").count();
    assert_eq!(fees, lived.ended.len() + 1);
    let (node, _) = &lived.inference[0];
    let info = reads.node_detail(&mut conn, *node).unwrap();
    assert_eq!(info.node.price, (UNIT / 50).to_string());
    let lines = reads.lines(&mut conn, *node, &LineFilter::default()).unwrap();
    assert_eq!(lines.items.len(), usize::try_from(info.node.tasks).unwrap());
    assert!(lines.items.iter().all(|line| !line.reason.is_empty()));
    let open = TaskFilter { state: Some("open".into()), ..TaskFilter::default() };
    assert_eq!(reads.tasks(&mut conn, &open).unwrap().items.len(), 1);
    let pending = reads.changes(&mut conn, true).unwrap();
    assert_eq!((pending.len(), pending[0].lever.as_str()), (1, "kind 1"));
    assert_eq!(pending[0].change["params"]["protocol_fee"], 30_000_000);
    assert_eq!(pending[0].present["protocol_fee"], 20_000_000);
    let pools = reads.pools(&mut conn).unwrap();
    assert_eq!((pools.len(), pools[0].symbol.as_str()), (1, "sPOQ"));
    let found = reads.search(&mut conn, "POOLED <b>").unwrap();
    assert_eq!((found.len(), found[0].what), (1, "node"));
    let mut mistyped = holder.to_string();
    mistyped.replace_range(10..11, if &mistyped[10..11] == "a" { "b" } else { "a" });
    let refused = reads.search(&mut conn, &mistyped).unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_no_longer_the_chains_are_forgotten() {
    let world = World::with(config()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let (node, sender) = world.node(Role::Evaluator, 0).await;
    let before = world.node.snapshot();
    sender.send(messages::stake(node, UNIT)).await.unwrap();
    world.node.new_block().unwrap();
    let mut follower = Follower::open(world.client.clone(), &path, PATIENT).await.unwrap();
    follower.once(&mut |_| {}).await.unwrap();
    let bonded = |path: &Target| {
        let (mut conn, _) = reading(&world.client, path);
        conn.query("SELECT bonded FROM nodes", &[]).unwrap()[0].amount(0)
    };
    assert_eq!(bonded(&path), 101 * UNIT);

    // Another future from there: shorter first, then longer than what was read.
    world.node.restore(&before);
    let behind = follower.once(&mut |_| {}).await.unwrap_err();
    assert!(matches!(behind, Error::Behind { .. }) && behind.is_transient(), "{behind}");
    assert_eq!(bonded(&path), 101 * UNIT, "a node that is behind takes nothing away");
    world.node.advance_ms(1_000).unwrap();
    let sender = world.client.submitter(sender.keys().clone());
    sender.send(messages::stake(node, 5 * UNIT)).await.unwrap();
    for _ in 0..3 {
        world.node.new_block().unwrap();
    }
    follower.once(&mut |_| {}).await.unwrap();
    assert_eq!(bonded(&path), 105 * UNIT);
    drop(follower);
    let fresh = target(folder.path(), "fresh");
    index(&world.client, &fresh).await.unwrap();
    let identity = Identity::of(world.client.chain(), world.contract());
    assert_eq!(
        digest(&mut Store::open(&path, &identity).unwrap()),
        digest(&mut Store::open(&fresh, &identity).unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_final_blocks_are_read_and_an_index_that_keeps_up_needs_no_archive() {
    let config = SandboxConfig { finality: Finality::Manual, history_blocks: 10, ..SandboxConfig::default() };
    let world = World::with(config).await;
    let finalize = |world: &World| {
        let best = world.node.best().number;
        world.node.with(|chain| chain.finalize_to(best));
    };
    finalize(&world);
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let mut follower = Follower::open(world.client.clone(), &path, PATIENT).await.unwrap();
    let first = follower.once(&mut |_| {}).await.unwrap();
    let (node, sender) = world.node(Role::Evaluator, 0).await;
    // Not final: not read.
    assert_eq!(follower.once(&mut |_| {}).await.unwrap().number, first.number);
    for _ in 0..8 {
        finalize(&world);
        follower.once(&mut |_| {}).await.unwrap();
        for _ in 0..6 {
            world.node.new_block().unwrap();
        }
        sender.send(messages::stake(node, UNIT)).await.unwrap();
    }
    finalize(&world);
    follower.once(&mut |_| {}).await.unwrap();
    let (report, ledger) = replayed(&world.client, &path);
    assert!(report.agrees(), "{:#?}", report.differences);
    assert_eq!(ledger.nodes[&node].node.stake.bonded, 108 * UNIT);
    // One that begins now needs what the node no longer has, and says so.
    let late = index(&world.client, &target(folder.path(), "late")).await.unwrap_err();
    assert!(matches!(late, Error::Pruned { .. }) && late.to_string().contains("archive"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_while_the_node_is_away() {
    let world = World::with(config()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = target(folder.path(), "index");
    let mut follower = Follower::open(world.client.clone(), &path, PATIENT).await.unwrap();
    let store = follower.store().clone();
    let following = tokio::spawn(async move { follower.follow(|_| {}).await });
    let until = |wanted: u32| {
        let store = store.clone();
        async move {
            for _ in 0..200 {
                let tip = store.run(|store| Ok(store.tip())).await.unwrap();
                if tip.is_some_and(|tip| tip.number >= wanted) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            panic!("block {wanted} was not read");
        }
    };
    world.node(Role::Evaluator, 0).await;
    until(world.node.best().number).await;
    world.node.set_offline(true);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    world.node.set_offline(false);
    world.node(Role::Evaluator, 1).await;
    until(world.node.best().number).await;
    following.abort();
    let (mut conn, _) = reading(&world.client, &path);
    let status = Reads::of(&mut conn, "index").unwrap().status(&mut conn).unwrap();
    assert!(status.heard_at > 0 && status.head > 0, "{status:?}");
}

/// Anybody can emit what pools emit.
#[test]
fn a_strangers_events_are_not_history() {
    use ink::env::Event;
    use parity_scale_codec::Encode;
    let (poq, stranger) = (keys("//Contract").account(), keys("//Stranger").account());
    let said = |contract, signature: Option<[u8; 32]>, data: Vec<u8>| Said {
        contract,
        extrinsic: Some(1),
        index: 0,
        topics: vec![H256(signature.unwrap())],
        data,
    };
    let terms = Terms { commission: Ratio::ZERO, capacity: UNIT };
    let rules = Rules { commission_max: Ratio::ZERO, first_loss: Ratio::ONE, era_ms: 1, exit_ms: 1 };
    let created = |node| {
        pool::PoolCreated { poq: to_ink(&poq), node, manager: to_ink(&stranger), bond: UNIT, rules, terms }
            .encode()
    };
    let signature = <pool::PoolCreated as Event>::SIGNATURE_TOPIC;
    let mut picker = Picker::default();
    // It owns no node.
    assert!(picker.pick(&poq, &[said(stranger, signature, created(1))]).is_empty());
    let registered = poq_chain::events::NodeRegistered {
        node: 1,
        owner: to_ink(&stranger),
        operator: to_ink(&stranger),
        role: Role::Evaluator,
        kind: 1,
        model: String::new(),
        model_digest: [0; 32],
    };
    let first = said(poq, <poq_chain::events::NodeRegistered as Event>::SIGNATURE_TOPIC, registered.encode());
    // It owns one, and names another.
    assert_eq!(picker.pick(&poq, &[first.clone(), said(stranger, signature, created(2))]).len(), 1);
    // Now it is one, and what it says from here on belongs to the history.
    assert_eq!(picker.pick(&poq, &[said(stranger, signature, created(1))]).len(), 1);
    assert_eq!(picker.pick(&poq, &[said(stranger, Some([9; 32]), vec![1])]).len(), 1);
    // Another contract's word is worth nothing.
    assert!(picker.pick(&poq, &[said(keys("//Other").account(), signature, created(1))]).is_empty());
}
