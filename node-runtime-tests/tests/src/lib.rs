//! A world for contract tests: the built Wasm on the real runtime, accounts with money, nodes, and a clock.
//!
//! After every accepted message the world checks the contract's books against its records and its balance
//! ([`World::check_books`]), so every test is a test of solvency too.

pub mod fuzz;
pub mod pool;

use ink::env::call::utils::{ReturnType, Set};
use ink::env::call::{Call, CallBuilder, ExecutionInput, FromAccountId};
use ink::env::DefaultEnvironment;
use parity_scale_codec::{Decode, Encode};
use poq_contract::errors::Error;
use poq_contract::types::{
    Auditor, Balances, Change, Commit, Draw, GlobalParams, KindView, Lever, Liabilities, NodeView, Opened,
    OutputState, Overview, Quote, Registration, Request, Reveal, Role, Solvency, Source, Step, TaskView,
};
use poq_core::commitment::{self, Hash};
use poq_core::params::DAY;
use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, Score, TaskId};
use poq_core::KindParams;
use poq_sandbox::{
    account_of, dev, signed_deposit, AccountId32, Called, Code, ExtrinsicReport, Sandbox, SandboxError, UNIT,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use poq_sandbox::sr25519::Pair;

/// A built call of the contract that returns `R`.
pub type Built<Args, R> = CallBuilder<
    DefaultEnvironment,
    Set<Call<DefaultEnvironment>>,
    Set<ExecutionInput<Args>>,
    Set<ReturnType<R>>,
>;

/// The contract's generated call builder.
pub type Builder = <poq_contract::Poq as ink::codegen::ContractCallBuilder>::Type;

/// The kind that tests use.
pub const KIND: KindId = 1;
/// What every inference node answers.
pub const TEXT: &[u8] = b"It was the Denver Broncos who won Super Bowl 50.";
/// How long an epoch of the test network is: the default parameters need six minutes.
pub const EPOCH_MS: Millis = 600_000;
/// From unstaking to withdrawal: two epochs and the longest task of the default parameters, and some more.
pub const UNBONDING_MS: Millis = 2_400_000;

/// A contract that takes everything, says nothing and migrates nothing.
pub const MUTE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\
    \x02\x10\x01\x03env\x06memory\x02\x01\x01\x10\x03\x03\x02\0\0\
    \x07\x11\x02\x06deploy\0\0\x04call\0\x01\x0a\x07\x02\x02\0\x0b\x02\0\x0b";

/// The contract's call builder: `call().stake(node)` and so on.
pub fn call() -> Builder {
    <Builder as FromAccountId<DefaultEnvironment>>::from_account_id([0; 32].into())
}

/// Selector and arguments of a built call.
pub fn encode<Args: Encode, R>(call: Built<Args, R>) -> Vec<u8> {
    call.params().exec_input().encode()
}

/// An account in the contract's type.
pub fn ink_account(account: &AccountId32) -> ink::primitives::AccountId {
    let bytes: [u8; 32] = *account.as_ref();
    bytes.into()
}

/// An account in the contract's type, of a key.
pub fn ink_of(pair: &Pair) -> ink::primitives::AccountId {
    ink_account(&account_of(pair))
}

/// The built contract.
///
/// # Panics
/// Where it has not been built; the message names the script.
#[allow(clippy::panic)]
pub fn wasm() -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.wasm");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/build-contract.sh", path.display()))
}

/// What a message did.
#[derive(Debug)]
pub struct Sent<T> {
    /// What it returned.
    pub value: T,
    /// The extrinsic.
    pub report: ExtrinsicReport,
    /// Storage deposit charged to the caller, negative for a refund.
    pub deposit: i128,
}

/// A chain with the contract on it.
pub struct World {
    /// The chain.
    pub chain: Sandbox,
    /// The contract's account.
    pub contract: AccountId32,
    /// Hash of the chain's genesis and the contract's account: what every preimage starts with.
    pub network: Hash,
    /// The contract's owner.
    pub owner: Pair,
    /// Who may have bonds.
    pub auditors: Vec<Pair>,
    /// Everybody who has sent a message: who may have credit.
    senders: BTreeMap<[u8; 32], AccountId32>,
    keys: u64,
    requests: u64,
}

/// A registered node with its keys.
#[derive(Clone)]
pub struct TestNode {
    /// Its number.
    pub id: NodeId,
    /// Its cold key.
    pub owner: Pair,
    /// Its hot key.
    pub operator: Pair,
    /// Who is paid.
    pub payee: Pair,
}

/// Whatever goes wrong in building a world is a test's failure.
type Res<T> = Result<T, Box<dyn std::error::Error>>;

/// The global parameters of the test network.
pub fn global() -> GlobalParams {
    GlobalParams {
        unbonding_ms: UNBONDING_MS,
        archive_ms: 3_600_000,
        audit_bond: 100 * UNIT,
        audits_per_epoch: 64,
        params_delay_ms: 3 * DAY,
    }
}

impl World {
    /// A contract with one kind of these parameters.
    pub fn with(params: &KindParams) -> Res<World> {
        World::with_global(params, global())
    }

    /// A contract with one kind of the default parameters.
    pub fn new() -> Res<World> {
        World::with(&KindParams::without_auditors())
    }

    /// A contract with one kind and these global parameters.
    pub fn with_global(params: &KindParams, global: GlobalParams) -> Res<World> {
        let mut chain = Sandbox::new()?;
        let owner = dev::alice();
        let genesis: Hash = chain.block_hash(0).ok_or("the chain has no genesis block")?.into();
        let data = [ink::selector_bytes!("new").to_vec(), (genesis, EPOCH_MS, global).encode()].concat();
        let placed = chain.instantiate(&owner, 0, Code::Upload(wasm()), data, vec![])?;
        let mut world = World::around(chain, placed.address, owner.clone())?;
        world.send(&owner, 0, call().propose(Change::Kind(KIND, params.clone())))??;
        Ok(world)
    }

    /// The world around a contract that is on this chain already.
    pub fn around(chain: Sandbox, contract: AccountId32, owner: Pair) -> Res<World> {
        let genesis: Hash = chain.block_hash(0).ok_or("the chain has no genesis block")?.into();
        Ok(World {
            chain,
            network: blake2(&commitment::network(&genesis, contract.as_ref())),
            contract,
            owner,
            auditors: Vec::new(),
            senders: BTreeMap::new(),
            keys: 100,
            requests: 0,
        })
    }

    /// Announces a change, waits as long as everybody may who does not like it, and enacts it.
    pub fn change(&mut self, change: Change) -> Res<()> {
        let owner = self.owner.clone();
        let lever: Lever = change.lever();
        let acts_at = self.send(&owner, 0, call().propose(change))??.value;
        let now = self.chain.now_ms();
        if acts_at > now {
            self.pass(acts_at - now)?;
            self.send(&dev::bob(), 0, call().enact(lever))??;
        }
        Ok(())
    }

    /// Begins the next epoch: what owners have done acts from now on.
    pub fn next_epoch(&mut self) -> Res<()> {
        self.pass(EPOCH_MS - self.chain.now_ms() % EPOCH_MS)
    }

    /// A new account with 100,000 UNIT.
    pub fn account(&mut self) -> Res<Pair> {
        self.keys += 1;
        let pair = dev::numbered(self.keys);
        self.chain.fund(&account_of(&pair), 100_000 * UNIT)?;
        Ok(pair)
    }

    /// Sends a message: a dry run, then the extrinsic. The contract's refusal is the inner error, and the books are checked.
    pub fn send<Args: Encode, T: Decode>(
        &mut self,
        signer: &Pair,
        value: Balance,
        message: Built<Args, Result<T, Error>>,
    ) -> Res<Result<Sent<T>, Error>> {
        let contract = self.contract.clone();
        self.senders.insert(*account_of(signer).as_ref(), account_of(signer));
        match self.chain.call(signer, &contract, value, encode(message)) {
            Ok(Called { dry, report }) => {
                let data = dry.result.as_ref().map(|answer| answer.data.clone()).unwrap_or_default();
                let value = answer::<Result<T, Error>>(&data)??;
                self.check_books()?;
                Ok(Ok(Sent { value, deposit: signed_deposit(&dry.storage_deposit), report }))
            }
            Err(SandboxError::Reverted { data, .. }) => match answer::<Result<T, Error>>(&data)? {
                Err(error) => Ok(Err(error)),
                Ok(_) => Err("the contract reverted with a value that says it accepted".into()),
            },
            Err(other) => Err(other.into()),
        }
    }

    /// Asks the contract as an account that does not exist: no key, no money.
    pub fn read<Args: Encode, R: Decode>(&self, query: Built<Args, R>) -> Res<R> {
        let nobody = AccountId32::new([9; 32]);
        let dry = self.chain.dry_call(&nobody, &self.contract, 0, None, None, encode(query))?;
        let value = dry.result.map_err(|error| format!("the query failed: {error:?}"))?;
        answer::<R>(&value.data)
    }

    /// Registers a node with its own owner, operator and payee, and stakes for it.
    pub fn node(&mut self, role: Role, model: u8, price: Balance, stake: Balance) -> Res<TestNode> {
        let (owner, operator, payee) = (self.account()?, self.account()?, self.account()?);
        self.node_of(role, model, price, stake, owner, operator, payee)
    }

    /// Registers a node with these keys.
    #[allow(clippy::too_many_arguments)]
    pub fn node_of(
        &mut self,
        role: Role,
        model: u8,
        price: Balance,
        stake: Balance,
        owner: Pair,
        operator: Pair,
        payee: Pair,
    ) -> Res<TestNode> {
        let registration = Registration {
            role,
            kind: KIND,
            operator: ink_of(&operator),
            payee: ink_of(&payee),
            model: format!("model {model}"),
            model_digest: [model; 32],
            endpoint: "http://127.0.0.1:9".into(),
            price,
        };
        let id = self.send(&owner, stake, call().register(registration))??.value;
        Ok(TestNode { id, owner, operator, payee })
    }

    /// Inference nodes and evaluators, each with an owner and a model of its own and twice the least stake.
    pub fn nodes(&mut self, inference: u8, evaluators: u8) -> Res<(Vec<TestNode>, Vec<TestNode>)> {
        let mut all = (Vec::new(), Vec::new());
        for model in 0..inference {
            all.0.push(self.node(Role::Inference, model, UNIT / 100, 200 * UNIT)?);
        }
        for model in 0..evaluators {
            all.1.push(self.node(Role::Evaluator, 100 + model, 0, 200 * UNIT)?);
        }
        Ok(all)
    }

    /// A request of the test kind with a reference commitment of its own.
    pub fn request_of(&mut self, requester: &Pair, outputs: u8, panel: u8, fee: Balance) -> Request {
        self.requests += 1;
        let commitment = blake2(&("reference", self.requests).encode());
        self.request_with(requester, outputs, panel, fee, commitment)
    }

    /// A request of the test kind with this reference commitment, and the secret that the requester's key derives from it.
    pub fn request_with(
        &self,
        requester: &Pair,
        outputs: u8,
        panel: u8,
        fee: Balance,
        reference_commitment: Hash,
    ) -> Request {
        let secret = self.secret(&reference_commitment);
        Request {
            kind: KIND,
            fee,
            nodes: Vec::new(),
            outputs,
            panel,
            input: input(),
            reference_commitment,
            secret_hash: blake2(&commitment::secret(&self.network, account_of(requester).as_ref(), &secret)),
            early: false,
        }
    }

    /// The secret that belongs to a request.
    pub fn secret(&self, reference_commitment: &Hash) -> Hash {
        blake2(&commitment::request_secret(&[8; 32], &self.network, reference_commitment))
    }

    /// Requests a task of the test kind.
    pub fn request(
        &mut self,
        requester: &Pair,
        outputs: u8,
        panel: u8,
        fee: Balance,
    ) -> Res<Result<TaskId, Error>> {
        let request = self.request_of(requester, outputs, panel, fee);
        let sent = self.send(requester, fee, call().request_tasks(vec![request]))?;
        Ok(match sent {
            Ok(sent) => Ok(*sent.value.first().ok_or("no task was requested")?),
            Err(error) => Err(error),
        })
    }

    /// What the contract is and owes.
    pub fn overview(&self) -> Res<Overview> {
        self.read(call().overview())
    }

    /// The smallest fee of the test kind.
    pub fn quote(&self, outputs: u8, panel: u8) -> Res<Quote> {
        let params = self.kind()?.kind.params;
        Quote::of(&params, outputs, panel).ok_or_else(|| "no fee is enough".into())
    }

    /// A task that must be there.
    pub fn task(&self, id: TaskId) -> Res<TaskView> {
        self.read(call().task(id))?.ok_or_else(|| format!("task {id} is gone").into())
    }

    /// A node that must be there.
    pub fn view(&self, id: NodeId) -> Res<NodeView> {
        self.read(call().node(id))?.ok_or_else(|| format!("node {id} is gone").into())
    }

    /// The kind.
    pub fn kind(&self) -> Res<KindView> {
        self.read(call().kind(KIND))?.ok_or_else(|| "the kind is gone".into())
    }

    /// An account's money in the contract.
    pub fn balances(&self, pair: &Pair) -> Res<Balances> {
        self.read(call().balances(ink_of(pair)))
    }

    /// An account's money on the chain.
    pub fn free(&self, pair: &Pair) -> Res<Balance> {
        Ok(self.chain.balance(&account_of(pair))?)
    }

    /// The node of `nodes` with that number.
    pub fn find(nodes: &[TestNode], id: NodeId) -> Res<&TestNode> {
        nodes
            .iter()
            .find(|node| node.id == id)
            .ok_or_else(|| format!("node {id} is not one of the test's").into())
    }

    /// Sends a batch of one: what the contract says of that item.
    pub fn one<Args: Encode, T: Decode>(
        &mut self,
        signer: &Pair,
        message: Built<Args, Result<Vec<T>, Error>>,
    ) -> Res<Result<Sent<T>, Error>> {
        Ok(match self.send(signer, 0, message)? {
            Ok(mut sent) => {
                let value = sent.value.pop().ok_or("the batch returned nothing")?;
                Ok(Sent { value, report: sent.report, deposit: sent.deposit })
            }
            Err(error) => Err(error),
        })
    }

    /// Every assigned inference node commits, in the order of the slots.
    pub fn commit_outputs(&mut self, id: TaskId, nodes: &[TestNode]) -> Res<()> {
        for slot in self.task(id)?.task.outputs {
            let node = World::find(nodes, slot.node)?.clone();
            let commitment = self.output_commitment(id, node.id);
            self.one(
                &node.operator,
                call().commit_outputs(vec![Commit { task: id, node: node.id, commitment }]),
            )??;
        }
        Ok(())
    }

    /// What a node's commitment in a task commits to.
    pub fn opened(&self, id: TaskId, node: NodeId) -> Opened {
        Opened { hash: blake2(TEXT), salt: salt(id, node) }
    }

    /// The commitment to a node's output in a task.
    pub fn output_commitment(&self, id: TaskId, node: NodeId) -> Hash {
        let opened = self.opened(id, node);
        blake2(&commitment::output(&self.network, id, node, &opened.hash, &opened.salt))
    }

    /// What an evaluator would reveal.
    pub fn reveal_of(&self, id: TaskId, node: NodeId, scores: &[u32]) -> Reveal {
        let scores = scores.iter().map(|permille| score(*permille)).collect();
        Reveal { task: id, node, scores, report_hash: [3; 32], salt: salt(id, node) }
    }

    /// The commitment to a reveal.
    pub fn scores_commitment(&self, reveal: &Reveal) -> Hash {
        blake2(&commitment::scores(
            &self.network,
            reveal.task,
            reveal.node,
            &reveal.scores,
            &reveal.report_hash,
            &reveal.salt,
        ))
    }

    /// All that it takes to draw a task's panel: the secret, and the openings of what is not opened on chain.
    pub fn draw_of(&self, id: TaskId) -> Res<Draw> {
        let task = self.task(id)?.task;
        let openings = task
            .outputs
            .iter()
            .map(|slot| (slot.state == OutputState::Committed).then(|| self.opened(id, slot.node)))
            .collect();
        Ok(Draw { task: id, secret: self.secret(&task.reference_commitment), openings })
    }

    /// Draws the panel in the next block. Returns its nodes.
    pub fn draw(&mut self, id: TaskId) -> Res<Vec<NodeId>> {
        let draw = self.draw_of(id)?;
        let drawn = self.one(&dev::bob(), call().draw_panels(vec![draw]))??.value?;
        if !drawn {
            return Err(format!("too few evaluators could be drawn for task {id}").into());
        }
        self.panel(id)
    }

    /// The nodes of a task's panel.
    pub fn panel(&self, id: TaskId) -> Res<Vec<NodeId>> {
        Ok(self.task(id)?.task.panel.iter().map(|seat| seat.node).filter(|node| *node != 0).collect())
    }

    /// One evaluator commits to scores in thousandths.
    pub fn commit_scores(&mut self, id: TaskId, node: &TestNode, scores: &[u32]) -> Res<Result<(), Error>> {
        let commitment = self.scores_commitment(&self.reveal_of(id, node.id, scores));
        let item = Commit { task: id, node: node.id, commitment };
        Ok(self.one(&node.operator, call().commit_scores(vec![item]))?.map(|_| ()))
    }

    /// One evaluator reveals scores in thousandths. The last one settles the task.
    pub fn reveal(&mut self, id: TaskId, node: &TestNode, scores: &[u32]) -> Res<Result<(), Error>> {
        let reveal = self.reveal_of(id, node.id, scores);
        Ok(self.one(&node.operator, call().reveal_scores(vec![reveal]))?.map(|_| ()))
    }

    /// The whole panel commits and reveals what `scores` says of each member, in thousandths.
    pub fn score(&mut self, id: TaskId, nodes: &[TestNode], scores: impl Fn(NodeId) -> Vec<u32>) -> Res<()> {
        self.score_and_reveal_some(id, nodes, usize::MAX, scores)
    }

    /// As [`World::score`], but only so many of the panel reveal, the first ones.
    pub fn score_and_reveal_some(
        &mut self,
        id: TaskId,
        nodes: &[TestNode],
        revealing: usize,
        scores: impl Fn(NodeId) -> Vec<u32>,
    ) -> Res<()> {
        let panel = self.panel(id)?;
        for member in &panel {
            let node = World::find(nodes, *member)?.clone();
            self.commit_scores(id, &node, &scores(*member))??;
        }
        for member in panel.iter().take(revealing) {
            let node = World::find(nodes, *member)?.clone();
            self.reveal(id, &node, &scores(*member))??;
        }
        Ok(())
    }

    /// Anybody does what is due.
    pub fn advance(&mut self, id: TaskId) -> Res<Result<Step, Error>> {
        Ok(match self.one(&dev::bob(), call().advance(vec![id]))? {
            Ok(sent) => sent.value,
            Err(error) => Err(error),
        })
    }

    /// A whole round in which everybody does its duty; all evaluators score the same in thousandths.
    pub fn round(
        &mut self,
        requester: &Pair,
        nodes: &(Vec<TestNode>, Vec<TestNode>),
        outputs: u8,
        panel: u8,
        scores: impl Fn(NodeId) -> Vec<u32>,
    ) -> Res<TaskId> {
        let id = self.request(requester, outputs, panel, 10 * UNIT)??;
        self.commit_outputs(id, &nodes.0)?;
        self.draw(id)?;
        self.score(id, &nodes.1, scores)?;
        Ok(id)
    }

    /// Lets time pass, and a block with it.
    pub fn pass(&mut self, ms: u64) -> Res<()> {
        self.chain.advance_ms(ms);
        self.chain.new_block()?;
        Ok(())
    }

    /// Every node that there is.
    pub fn all_nodes(&self) -> Res<Vec<NodeView>> {
        let mut all: Vec<NodeView> = Vec::new();
        loop {
            let from = all.last().map_or(1, |view| view.id + 1);
            let page = self.read(call().nodes(from, 12))?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Every task that there is.
    pub fn all_tasks(&self) -> Res<Vec<TaskView>> {
        let last = self.overview()?.tasks;
        let mut all = Vec::new();
        for id in 1..=last {
            all.extend(self.read(call().task(id))?);
        }
        Ok(all)
    }

    /// An auditor with a full bond. Once there are nodes, its appointment takes as long as any change.
    pub fn auditor(&mut self) -> Res<Pair> {
        let auditor = self.account()?;
        self.auditors.push(auditor.clone());
        self.change(Change::Appoint(ink_of(&auditor)))?;
        self.send(&auditor, 100 * UNIT, call().bond())??;
        Ok(auditor)
    }

    fn bonds(&self) -> Res<Balance> {
        let mut sum = 0;
        for auditor in &self.auditors {
            let record: Option<Auditor> = self.read(call().auditor(ink_of(auditor)))?;
            sum += record.map_or(0, |record| record.bond);
        }
        Ok(sum)
    }

    /// The contract's books: liabilities by name equal what the records say, and the balance covers them.
    pub fn check_books(&self) -> Res<()> {
        let solvency: Solvency = self.overview()?.solvency();
        let owed = solvency.liabilities;
        if !solvency.solvent {
            return Err(format!("the contract is insolvent: {solvency:?}").into());
        }
        let nodes = self.all_nodes()?;
        let tasks = self.all_tasks()?;
        let sum = |amounts: &mut dyn Iterator<Item = Balance>| amounts.sum::<Balance>();
        let mut credit = 0;
        for account in self.senders.values() {
            credit += self.read(call().balances(ink_account(account)))?.credit;
        }
        let records = Liabilities {
            stakes: sum(&mut nodes.iter().map(|n| n.node.stake.total())),
            escrow: sum(&mut tasks
                .iter()
                .filter(|t| !t.task.phase.is_final())
                .map(|t| t.task.fee - t.task.keepers)),
            refunds: sum(&mut tasks.iter().filter(|t| t.task.phase.is_final()).map(|t| t.task.refund)),
            claimable: sum(&mut nodes.iter().map(|n| n.node.claimable)) + credit,
            bonds: self.bonds()?,
            treasury: owed.treasury,
            burned: owed.burned,
        };
        if records != owed {
            return Err(format!("the books say {owed:?}, the records {records:?}").into());
        }
        // Stake is locked exactly for the open tasks, and every open slot is a task that names the node.
        for view in &nodes {
            let mut locked = 0;
            for id in view.node.open.iter().filter(|id| **id != 0) {
                let task = tasks.iter().find(|t| t.id == *id).ok_or("an open slot names no task")?;
                locked += match view.node.role {
                    Role::Inference => task.task.terms.inference_at_risk,
                    Role::Evaluator => task.task.terms.evaluator_at_risk,
                };
            }
            let stake = view.node.stake;
            if locked != stake.locked || locked > stake.total() {
                return Err(format!("node {} has {stake:?}, {locked} at risk", view.id).into());
            }
        }
        Ok(())
    }
}

/// What a call returned.
pub(crate) fn answer<R: Decode>(mut data: &[u8]) -> Res<R> {
    match Result::<R, ink::LangError>::decode(&mut data)? {
        Ok(value) => Ok(value),
        Err(error) => Err(format!("the contract did not understand the call: {error:?}").into()),
    }
}

/// An input.
pub fn input() -> Source {
    Source::Url { hash: [5; 32], url: "http://127.0.0.1:9/v1/blobs/05".into() }
}

/// A score in thousandths; above 1000 stands for unavailable.
pub fn score(permille: u32) -> Score {
    if permille > 1_000 {
        Score::UNAVAILABLE
    } else {
        Score::of(Ratio::from_permille(permille))
    }
}

/// A salt of a node in a task.
pub fn salt(task: TaskId, node: NodeId) -> [u8; 32] {
    blake2(&("salt", task, node).encode())
}

/// blake2b-256.
pub fn blake2(bytes: &[u8]) -> Hash {
    sp_crypto_hashing::blake2_256(bytes)
}
