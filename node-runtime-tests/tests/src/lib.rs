//! A world for contract tests: the built Wasm on the real runtime, accounts with money, nodes, and a clock.
//!
//! After every accepted message the world checks the contract's books against its records and its balance
//! ([`World::check_books`]), so every test is a test of solvency too.

use ink::env::call::utils::{ReturnType, Set};
use ink::env::call::{Call, CallBuilder, ExecutionInput, FromAccountId};
use ink::env::DefaultEnvironment;
use parity_scale_codec::{Decode, Encode};
use poq_contract::errors::Error;
use poq_contract::types::{
    Auditor, Balances, GlobalParams, Kind, Liabilities, NodeView, Overview, Quote, Registration, Reveal,
    Role, Solvency, TaskInput, TaskView,
};
use poq_core::commitment::{self, Hash};
use poq_core::phase::Step;
use poq_core::units::{Balance, KindId, NodeId, Ratio, Score, TaskId};
use poq_core::KindParams;
use poq_sandbox::{
    account_of, dev, signed_deposit, AccountId32, Called, Code, ExtrinsicReport, Sandbox, SandboxError, UNIT,
};
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
    /// The contract's owner.
    pub owner: Pair,
    /// Who may have bonds.
    pub auditors: Vec<Pair>,
    keys: u64,
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

impl World {
    /// A contract with one kind of these parameters.
    pub fn with(params: &KindParams) -> Res<World> {
        World::with_global(
            params,
            GlobalParams { unbonding_ms: 60_000, archive_ms: 3_600_000, audit_bond: 100 * UNIT },
        )
    }

    /// A contract with one kind of the default parameters.
    pub fn new() -> Res<World> {
        World::with(&KindParams::without_auditors())
    }

    /// A contract with one kind and these global parameters.
    pub fn with_global(params: &KindParams, global: GlobalParams) -> Res<World> {
        let mut chain = Sandbox::new()?;
        let owner = dev::alice();
        let data = [ink::selector_bytes!("new").to_vec(), global.encode()].concat();
        let placed = chain.instantiate(&owner, 0, Code::Upload(wasm()), data, vec![])?;
        let mut world =
            World { chain, contract: placed.address, owner: owner.clone(), auditors: Vec::new(), keys: 100 };
        world.send(&owner, 0, call().set_kind(KIND, params.clone()))??;
        Ok(world)
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

    /// Inference nodes and evaluators, each with an owner and a model of its own and 100 UNIT staked.
    pub fn nodes(&mut self, inference: u8, evaluators: u8) -> Res<(Vec<TestNode>, Vec<TestNode>)> {
        let mut all = (Vec::new(), Vec::new());
        for model in 0..inference {
            all.0.push(self.node(Role::Inference, model, UNIT / 100, 100 * UNIT)?);
        }
        for model in 0..evaluators {
            all.1.push(self.node(Role::Evaluator, 100 + model, 0, 100 * UNIT)?);
        }
        Ok(all)
    }

    /// Requests a task of the test kind.
    pub fn request(
        &mut self,
        requester: &Pair,
        outputs: u8,
        panel: u8,
        fee: Balance,
    ) -> Res<Result<TaskId, Error>> {
        let message = call().request_task(KIND, outputs, panel, input(), [7; 32]);
        Ok(self.send(requester, fee, message)?.map(|sent| sent.value))
    }

    /// What the contract is and owes.
    pub fn overview(&self) -> Res<Overview> {
        self.read(call().overview())
    }

    /// The smallest fee of the test kind.
    pub fn quote(&self, outputs: u8, panel: u8) -> Res<Quote> {
        let params = self.read(call().kind(KIND))?.ok_or("the kind is gone")?.params;
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

    /// The kind's record.
    pub fn kind(&self) -> Res<Kind> {
        Ok(self.read(call().kind(KIND))?.ok_or("the kind is gone")?.kind)
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

    /// Every drawn inference node commits, in the order of the draw.
    pub fn commit_outputs(&mut self, id: TaskId, nodes: &[TestNode]) -> Res<()> {
        for slot in self.task(id)?.task.outputs {
            let node = World::find(nodes, slot.node)?.clone();
            let commitment = self.output_commitment(id, node.id);
            self.send(&node.operator, 0, call().commit_output(id, node.id, commitment))??;
        }
        Ok(())
    }

    /// The commitment to a node's output in a task.
    pub fn output_commitment(&self, id: TaskId, node: NodeId) -> Hash {
        blake2(&commitment::output(self.contract.as_ref(), id, node, &[1; 32], &salt(id, node)))
    }

    /// What an evaluator would reveal.
    pub fn reveal_of(&self, id: TaskId, node: NodeId, scores: &[u32]) -> Reveal {
        let scores = scores.iter().map(|permille| score(*permille)).collect();
        Reveal { task: id, node, scores, report_hash: [3; 32], salt: salt(id, node) }
    }

    /// The commitment to a reveal.
    pub fn scores_commitment(&self, reveal: &Reveal) -> Hash {
        blake2(&commitment::scores(
            self.contract.as_ref(),
            reveal.task,
            reveal.node,
            &reveal.scores,
            &reveal.report_hash,
            &reveal.salt,
        ))
    }

    /// Draws the panel in the next block. Returns its nodes.
    pub fn draw(&mut self, id: TaskId) -> Res<Vec<NodeId>> {
        let anybody = dev::bob();
        self.send(&anybody, 0, call().draw_panel(id))??;
        Ok(self.task(id)?.task.panel.iter().map(|seat| seat.node).collect())
    }

    /// One evaluator commits to scores in thousandths.
    pub fn commit_scores(&mut self, id: TaskId, node: &TestNode, scores: &[u32]) -> Res<Result<(), Error>> {
        let commitment = self.scores_commitment(&self.reveal_of(id, node.id, scores));
        Ok(self
            .send(&node.operator, 0, call().commit_scores(id, node.id, commitment))?
            .map(|sent| sent.value))
    }

    /// One evaluator reveals scores in thousandths.
    pub fn reveal(&mut self, id: TaskId, node: &TestNode, scores: &[u32]) -> Res<Result<(), Error>> {
        let reveal = self.reveal_of(id, node.id, scores);
        Ok(self.send(&node.operator, 0, call().reveal_scores(reveal))?.map(|sent| sent.value))
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
        let panel: Vec<NodeId> = self.task(id)?.task.panel.iter().map(|seat| seat.node).collect();
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

    /// Anybody settles.
    pub fn settle(&mut self, id: TaskId) -> Res<Sent<()>> {
        Ok(self.send(&dev::bob(), 0, call().settle(id))??)
    }

    /// Anybody does what is due.
    pub fn advance(&mut self, id: TaskId) -> Res<Result<Step, Error>> {
        let mut done = self.send(&dev::bob(), 0, call().advance(vec![id]))??.value;
        done.pop().ok_or_else(|| "advance returned nothing".into())
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
        self.settle(id)?;
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

    /// An auditor with a full bond.
    pub fn auditor(&mut self) -> Res<Pair> {
        let auditor = self.account()?;
        self.auditors.push(auditor.clone());
        let owner = self.owner.clone();
        self.send(&owner, 0, call().set_auditor(ink_of(&auditor), true, 0))??;
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
        let records = Liabilities {
            stakes: sum(&mut nodes.iter().map(|n| n.node.free + n.node.locked + n.node.unbonding)),
            escrow: sum(&mut tasks.iter().filter(|t| !t.task.phase.is_final()).map(|t| t.task.fee)),
            refunds: sum(&mut tasks.iter().filter(|t| t.task.phase.is_final()).map(|t| t.task.refund)),
            claimable: sum(&mut nodes.iter().map(|n| n.node.claimable)),
            bonds: self.bonds()?,
            treasury: owed.treasury,
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
                    Role::Inference => task.task.inference_at_risk,
                    Role::Evaluator => task.task.evaluator_at_risk,
                };
            }
            if locked != view.node.locked {
                return Err(
                    format!("node {} has {} locked, {locked} at risk", view.id, view.node.locked).into()
                );
            }
        }
        Ok(())
    }
}

/// What a call returned.
fn answer<R: Decode>(mut data: &[u8]) -> Res<R> {
    match Result::<R, ink::LangError>::decode(&mut data)? {
        Ok(value) => Ok(value),
        Err(error) => Err(format!("the contract did not understand the call: {error:?}").into()),
    }
}

/// An input.
pub fn input() -> TaskInput {
    TaskInput { hash: [5; 32], url: "http://127.0.0.1:9/v1/blobs/05".into() }
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
