//! Made-up histories: tasks of every ending, lived through `poq-core`'s own transitions and settled by it, as blocks of events. For tests
//! and measurements; nobody earned any of it.
//!
//! This is a second, independent use of the transitions: it commits, opens and reveals with real hashes, as a contract does, where
//! [`crate::ledger`] only reads what was emitted. What the two disagree on shows as a difference in a replay.

use crate::ledger::{Birth, Block, Fact, Facts, Id, PoolRead};
use crate::store::Identity;
use ink::env::Event;
use parity_scale_codec::Encode;
use poq_chain::commit::blake2;
use poq_chain::events as e;
use poq_chain::pool::{self, PoolView, Rules, Terms as PoolTerms, Token, VIRTUAL_SHARES};
use poq_chain::types::{
    epoch_of, token_f1, Auditor, Balance, BondChange, Change, Conduct, Decline, DeclineReason, Draw, Ending,
    GlobalParams, KindParams, Liabilities, Node, NodeId, NodeInfo, NodeStatus, NodeView, Open, Opened,
    Opening, OutputState, Overview, Penalty, Population, Ratio, Request, Reveal, Role, Score, Source, Stake,
    Standing, Step, Task, TaskId, TaskInput, Terms, TrustState, MAX_OPEN,
};
use poq_chain::{to_ink, AccountId32, Network, H256};
use poq_core::node::Outcome;
use poq_core::settlement::{audit, settle};
use poq_core::task::penalties::evaluator_penalty;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

const UNIT: Balance = poq_core::params::UNIT;
const EPOCH_MS: u64 = 600_000;

/// What is to be made up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything: the same seed, the same history.
    pub seed: u64,
    /// Inference nodes.
    pub inference: u32,
    /// Evaluators.
    pub evaluators: u32,
    /// Tasks.
    pub tasks: u64,
    /// How many tasks are requested in one block.
    pub group: u64,
    /// From one such block to the next; at least 400 seconds.
    pub every_ms: u64,
    /// Of a thousand tasks, how many end otherwise than by consensus.
    pub failing: u32,
    /// How many tasks are still open at the end.
    pub open: u64,
    /// Whether names and addresses are such as try to break whoever shows them.
    pub hostile: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            seed: 1,
            inference: 12,
            evaluators: 24,
            tasks: 1_000,
            group: 8,
            every_ms: 600_000,
            failing: 60,
            open: 0,
            hostile: false,
        }
    }
}

/// Whose history it is.
pub fn identity() -> Identity {
    Identity {
        genesis: H256([7; 32]),
        contract: account("contract", 0),
        chain: "Made up".into(),
        symbol: "UNIT".into(),
        decimals: 12,
        ss58_prefix: 42,
    }
}

fn account(what: &str, number: u32) -> AccountId32 {
    AccountId32(blake2(format!("poq synthetic {what} {number}").as_bytes()))
}

fn global() -> GlobalParams {
    GlobalParams::default()
}

/// When it begins: 2026-01-01.
const START: u64 = 1_767_225_600_000;

/// Where it begins.
pub fn birth() -> Birth {
    let Identity { genesis, contract, .. } = identity();
    Birth {
        block: block(1, START),
        contract,
        genesis,
        overview: Overview {
            owner: to_ink(&account("owner", 0)),
            proposed: None,
            paused: false,
            genesis: genesis.0,
            network: Network::new(genesis, contract, EPOCH_MS).hash,
            epoch_ms: EPOCH_MS,
            global: global(),
            kinds: Vec::new(),
            nodes: 0,
            tasks: 0,
            layout: 2,
            balance: 0,
            liabilities: Liabilities::default(),
        },
    }
}

fn block(number: u32, at: u64) -> Block {
    Block { number, hash: H256(blake2(format!("poq synthetic block {number}").as_bytes())), at }
}

/// Names of models, as nodes give them.
const MODELS: [&str; 6] = [
    "qwen2.5-0.5b-instruct",
    "qwen2.5-1.5b-instruct",
    "llama-3.2-1b-instruct",
    "llama-3.2-3b-instruct",
    "smollm2-1.7b-instruct",
    "tinyllama-1.1b-chat",
];
const SCORERS: [&str; 4] = ["sts-distilroberta-base", "ce-minilm-l6", "minilm-l6-v2", "deberta-v3-small"];
/// What somebody may put on the chain to harm whoever shows it.
pub const HOSTILE: [&str; 6] = [
    "<img src=x onerror=\"document.body.dataset.pwned=1\">",
    "\"><script>document.body.dataset.pwned=1</script>",
    "\u{202e}txet desrever\u{202c} \u{200f}\u{2066}",
    "null\0tab\tbell\u{7}line\nend\u{1b}[31m",
    "javascript:document.body.dataset.pwned=1",
    "=HYPERLINK(\"http://evil.example\",\"click\")",
];

/// What becomes of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Consensus,
    OneDeclines,
    Undelivered,
    Unopened,
    NoSecret,
    NoPanel,
    BelowQuorum,
    NoInput,
}

struct Live {
    id: TaskId,
    task: Task,
    fate: Fate,
    secret: [u8; 32],
    /// The reference, where it is a gold task.
    reference: Option<Vec<u8>>,
    /// How good each output is.
    truth: Vec<f64>,
    texts: Vec<Vec<u8>>,
    reveals: Vec<Reveal>,
    ended: Option<u64>,
}

/// A pool, made up with `poq-core`'s own books.
struct Pond {
    address: Id,
    node: NodeId,
    ledger: poq_core::pool::Ledger,
    supply: Balance,
    holders: Vec<u32>,
}

/// A made-up history, block by block.
pub struct Synthetic {
    plan: Plan,
    rng: StdRng,
    network: Network,
    params: KindParams,
    population: Population,
    nodes: BTreeMap<NodeId, Node>,
    /// Quality of answers, or how near scores are to it.
    skills: BTreeMap<NodeId, f64>,
    models: BTreeMap<NodeId, NodeInfo>,
    pond: Option<Pond>,
    next_task: TaskId,
    number: u32,
    ready: VecDeque<Facts>,
    /// The block being made.
    events: Vec<(Id, Vec<H256>, Vec<u8>)>,
    reads: BTreeMap<NodeId, NodeView>,
    pools: BTreeMap<Id, PoolRead>,
    at: u64,
    group: u64,
}

const KIND: u16 = 1;

impl Iterator for Synthetic {
    type Item = Facts;

    fn next(&mut self) -> Option<Facts> {
        while self.ready.is_empty() && self.next_task <= self.plan.tasks {
            self.make_group();
        }
        if self.ready.is_empty() && self.plan.open > 0 {
            self.leave_open();
        }
        self.ready.pop_front()
    }
}

impl Synthetic {
    /// Begins to make one up.
    pub fn new(plan: Plan) -> Synthetic {
        let Birth { contract, genesis, .. } = birth();
        let params = KindParams { trust_initial: Ratio::from_permille(500), ..KindParams::default() };
        let mut made = Synthetic {
            rng: StdRng::seed_from_u64(plan.seed),
            network: Network::new(genesis, contract, EPOCH_MS),
            population: Population::new(&params),
            params,
            nodes: BTreeMap::new(),
            skills: BTreeMap::new(),
            models: BTreeMap::new(),
            pond: None,
            next_task: 1,
            number: 1,
            ready: VecDeque::new(),
            events: Vec::new(),
            reads: BTreeMap::new(),
            pools: BTreeMap::new(),
            at: START,
            group: 0,
            plan,
        };
        made.set_up();
        made
    }

    fn emit<E: Event + Encode>(&mut self, event: &E) {
        self.emit_of(self.network.contract.0, event);
    }

    fn emit_of<E: Event + Encode>(&mut self, contract: Id, event: &E) {
        let topics = E::SIGNATURE_TOPIC.map(H256).into_iter().collect();
        self.events.push((contract, topics, event.encode()));
    }

    /// Seals what was emitted into a block at a time.
    fn seal(&mut self, at: u64) {
        self.at = at;
        if self.events.is_empty() {
            return;
        }
        self.number = self.number.saturating_add(1);
        let contract = self.network.contract;
        let events = std::mem::take(&mut self.events);
        let events = (0..).zip(events).map(|(index, (said, topics, data))| {
            Fact::decode(&contract, AccountId32(said), (Some(1), index), topics, data)
        });
        self.ready.push_back(Facts {
            block: block(self.number, at),
            events: events.collect(),
            nodes: std::mem::take(&mut self.reads),
            pools: std::mem::take(&mut self.pools),
        });
    }

    fn name(&mut self, names: &[&str], number: u32) -> String {
        if self.plan.hostile && number % 2 == 0 {
            let at = usize::try_from(number / 2).unwrap_or(0) % HOSTILE.len();
            return HOSTILE.get(at).copied().unwrap_or_default().to_owned();
        }
        let at = usize::try_from(number).unwrap_or(0) % names.len();
        names.get(at).copied().unwrap_or_default().to_owned()
    }

    fn set_up(&mut self) {
        self.at = START + 6_000;
        let params = self.params.clone();
        self.emit(&e::KindSet { kind: KIND, version: 1, params: params.clone() });
        self.emit(&e::Enacted { change: Change::Kind(KIND, params) });
        let auditor = to_ink(&account("auditor", 0));
        let appointed = Auditor { appointed: true, ..Auditor::default() };
        self.emit(&e::AuditorChanged { account: auditor, auditor: appointed, change: BondChange::None });
        let bonded = Auditor { bond: global().audit_bond, ..appointed };
        let change = BondChange::Added(global().audit_bond);
        self.emit(&e::AuditorChanged { account: auditor, auditor: bonded, change });
        self.seal(START + 6_000);
        for number in 0..self.plan.inference {
            self.at = START + 12_000;
            self.register(Role::Inference, number, None);
        }
        self.seal(START + 12_000);
        for number in 0..self.plan.evaluators {
            self.at = START + 18_000;
            self.register(Role::Evaluator, number, None);
        }
        self.seal(START + 18_000);
        self.at = START + 24_000;
        self.make_pool();
        self.seal(START + 24_000);
        self.at = START + 30_000;
        let mut announced = self.params.clone();
        announced.protocol_fee = Ratio::from_permille(30);
        let acts_at = self.at + global().params_delay_ms;
        self.emit(&e::Proposed { change: Change::Kind(KIND, announced), acts_at });
        self.seal(START + 30_000);
    }

    fn register(&mut self, role: Role, number: u32, owner: Option<AccountId32>) -> NodeId {
        let id = u32::try_from(self.nodes.len()).unwrap_or(0) + 1;
        // Some own several.
        let owner = owner.unwrap_or_else(|| account("owner of nodes", id - id % 3 % 2));
        let (names, price): (&[&str], Balance) = match role {
            Role::Inference => (&MODELS, UNIT / 100 * Balance::from(1 + number % 9)),
            Role::Evaluator => (&SCORERS, 0),
        };
        let model = self.name(names, number);
        let endpoint = match self.plan.hostile && number % 2 == 1 {
            true => "javascript:document.body.dataset.pwned=1".to_owned(),
            false => format!("https://node-{id}.example:8443"),
        };
        let stake = UNIT * self.rng.random_range(250..1_000);
        let digest = blake2(model.as_bytes());
        let trust = if role == Role::Inference { Ratio::ONE } else { self.params.trust_initial };
        let node = Node {
            owner: to_ink(&owner),
            operator: to_ink(&account("operator", id)),
            payee: to_ink(&owner),
            role,
            kind: KIND,
            status: NodeStatus::Active,
            model_digest: digest,
            price,
            stake: Stake { bonded: stake, ..Stake::default() },
            claimable: 0,
            withdrawn: 0,
            slashed: 0,
            record: Default::default(),
            trust,
            gain_average: 0,
            due: 0,
            misses: 0,
            standing: Standing::default(),
            open: [0; MAX_OPEN],
        };
        let skill = match role {
            Role::Inference => 0.35 + 0.6 * f64::from(number % 7) / 6.0,
            Role::Evaluator => self.rng.random_range(0.6..0.98),
        };
        self.skills.insert(id, skill);
        let info = NodeInfo { model: model.clone(), endpoint, registered_at: self.at };
        self.reads.insert(id, NodeView { id, node: node.clone(), info: info.clone() });
        self.models.insert(id, info);
        self.emit(&e::NodeRegistered {
            node: id,
            owner: node.owner,
            operator: node.operator,
            role,
            kind: KIND,
            model,
            model_digest: digest,
        });
        self.emit(&e::Staked { node: id, amount: stake });
        self.nodes.insert(id, node);
        id
    }

    fn rules() -> Rules {
        Rules {
            commission_max: Ratio::from_permille(200),
            first_loss: Ratio::from_permille(50),
            era_ms: EPOCH_MS,
            exit_ms: global().unbonding_ms,
        }
    }

    fn make_pool(&mut self) {
        let address = account("pool", 0);
        let number = self.plan.evaluators;
        let node = self.register(Role::Evaluator, number, Some(address));
        let bond = self.nodes.get(&node).map_or(0, |node| node.stake.bonded);
        let terms = PoolTerms { commission: Ratio::from_permille(80), capacity: 100_000 * UNIT };
        let Ok(ledger) = poq_core::pool::Ledger::new(bond, terms, self.at, &Synthetic::rules()) else {
            return;
        };
        let manager = to_ink(&account("manager", 0));
        let poq = to_ink(&self.network.contract);
        let created = pool::PoolCreated { poq, node, manager, bond, rules: Synthetic::rules(), terms };
        self.emit_of(address.0, &created);
        self.pond = Some(Pond { address: address.0, node, ledger, supply: 0, holders: Vec::new() });
        for holder in 0..5 {
            self.deposit(holder, 40 * UNIT * Balance::from(holder + 1));
        }
        self.read_pool();
    }

    fn deposit(&mut self, holder: u32, amount: Balance) {
        let who = to_ink(&account("holder", holder));
        let Some(pond) = &mut self.pond else { return };
        let shares = amount * VIRTUAL_SHARES;
        pond.ledger.active += amount;
        pond.ledger.staked += amount;
        pond.supply += shares;
        pond.holders.push(holder);
        let (address, node) = (pond.address, pond.node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.stake.bonded += amount;
        }
        self.emit(&e::Staked { node, amount });
        self.emit_of(address, &pool::Transfer { from: None, to: Some(who), value: shares });
        self.emit_of(address, &pool::Deposited { account: who, amount, shares });
    }

    fn read_pool(&mut self) {
        let Some(pond) = &self.pond else { return };
        let name = if self.plan.hostile { HOSTILE[0] } else { "Evergreen evaluators" };
        let view = PoolView {
            poq: to_ink(&self.network.contract),
            node: pond.node,
            manager: to_ink(&account("manager", 0)),
            proposed: None,
            token: Token { name: Some(name.into()), symbol: Some("sEVER".into()) },
            rules: Synthetic::rules(),
            ledger: pond.ledger,
            supply: pond.supply,
            room: pond.ledger.room(pond.supply, &Synthetic::rules()).unwrap_or(0),
            wiped_out: false,
        };
        self.pools.insert(pond.address, PoolRead { code: blake2(b"pool"), view });
    }

    /// What a sync of the pool finds: what its node has earned since the last one.
    fn account_pool(&mut self, at: u64) {
        let Some(pond) = &self.pond else { return };
        let (address, node) = (pond.address, pond.node);
        let Some(record) = self.nodes.get_mut(&node) else { return };
        let claimed = std::mem::take(&mut record.claimable);
        if claimed == 0 {
            return;
        }
        record.withdrawn += claimed;
        let seen = poq_core::pool::Seen {
            staked: record.stake.bonded,
            unbonding: record.stake.unbonding(),
            withdrawn: 0,
            claimed,
        };
        self.emit(&e::Claimed { node, to: to_ink(&AccountId32(address)), amount: claimed });
        let Some(pond) = &mut self.pond else { return };
        let Ok((ledger, synced)) = pond.ledger.sync(pond.supply, seen, at, &Synthetic::rules()) else {
            return;
        };
        pond.ledger = ledger;
        self.emit_of(
            address,
            &pool::Accounted {
                bond_slashed: synced.bond_slashed,
                shares_slashed: synced.shares_slashed,
                exits_slashed: synced.exits_slashed,
                commission: synced.commission,
                bond_earned: synced.bond_earned,
                shares_earned: synced.shares_earned,
                written_off: synced.written_off,
            },
        );
        self.read_pool();
    }

    fn pick(&mut self, role: Role, count: usize, at_risk: Balance, without: &[NodeId]) -> Vec<NodeId> {
        let able: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(id, node)| {
                node.role == role
                    && node.status == NodeStatus::Active
                    && node.can_take(at_risk)
                    && !without.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        able.choose_multiple(&mut self.rng, count).copied().collect()
    }

    fn take(&mut self, task: TaskId, nodes: &[NodeId], at_risk: Balance) {
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id) {
                // They were picked because they can.
                let _ = node.take(task, at_risk);
            }
        }
    }

    fn finish(&mut self, node: NodeId, outcome: &Outcome) {
        let epoch = epoch_of(self.at, EPOCH_MS);
        if let Some(node) = self.nodes.get_mut(&node) {
            let _ = node.finish(outcome, &self.params, epoch);
        }
    }

    fn request(&mut self) -> Option<Live> {
        let id = self.next_task;
        let outputs = self.rng.random_range(1..=2u8);
        let panel = *[3u8, 5].choose(&mut self.rng)?;
        let fee = UNIT * self.rng.random_range(2..10);
        let split = self.params.split(fee, outputs, panel)?;
        let terms = Terms::new(&self.params, 1, &split, panel);
        let nodes = self.pick(Role::Inference, outputs.into(), terms.inference_at_risk, &[]);
        if nodes.len() < usize::from(outputs) {
            return None;
        }
        let requester = account("requester", self.rng.random_range(0..7));
        let fates = [
            Fate::OneDeclines,
            Fate::Undelivered,
            Fate::Unopened,
            Fate::NoSecret,
            Fate::NoPanel,
            Fate::BelowQuorum,
            Fate::NoInput,
        ];
        let fate = match self.rng.random_range(0..1_000) < self.plan.failing {
            true => *fates.choose(&mut self.rng)?,
            false => Fate::Consensus,
        };
        let secret: [u8; 32] = self.rng.random();
        let question = format!("question {id}: what is the capital of the country number {}?", id % 200);
        let inline = id % 3 == 0;
        let url = match self.plan.hostile {
            true => "javascript:document.body.dataset.pwned=1".to_owned(),
            false => format!("https://requester.example/inputs/{id}"),
        };
        let input = TaskInput {
            hash: blake2(question.as_bytes()),
            url: if inline { String::new() } else { url },
            inline,
        };
        let gold = id % 10 == 1;
        let reference = gold.then(|| format!("the answer to question {id} is {}", id % 97).into_bytes());
        let salt = blake2(&id.to_le_bytes());
        let auditor = account("auditor", 0);
        let reference_commitment = match &reference {
            Some(text) => self.network.reference(&auditor, &blake2(text), &salt),
            None => self.rng.random(),
        };
        let request = Request {
            kind: KIND,
            fee,
            nodes: nodes.clone(),
            outputs,
            panel,
            input: Source::Inline(Vec::new()),
            reference_commitment,
            secret_hash: self.network.secret(&requester, &secret),
            early: id % 5 == 0,
        };
        let price = |id: &NodeId| self.nodes.get(id).map_or(0, |node| node.price);
        let assigned: Vec<(NodeId, Balance)> = nodes.iter().map(|id| (*id, price(id))).collect();
        let requester = to_ink(&requester);
        let task = Task::new(
            requester,
            &request,
            input.clone(),
            terms,
            self.params.inference_ms,
            &assigned,
            self.at,
        );
        self.take(id, &nodes, terms.inference_at_risk);
        self.emit(&e::TaskRequested {
            task: id,
            requester,
            kind: KIND,
            version: 1,
            fee,
            nodes: nodes.clone(),
            panel,
            deadline: task.deadline,
            early: request.early,
            input,
            data: if inline { question.into_bytes() } else { Vec::new() },
        });
        self.next_task = self.next_task.saturating_add(1);
        let truth: Vec<f64> = nodes
            .iter()
            .map(|node| {
                let skill = self.skills.get(node).copied().unwrap_or(0.5);
                (skill + self.rng.random_range(-0.15..0.15)).clamp(0.02, 0.99)
            })
            .collect();
        let texts = nodes
            .iter()
            .map(|node| format!("the answer to question {id} by node {node} is {}", id % 97).into_bytes())
            .collect();
        Some(Live { id, task, fate, secret, reference, truth, texts, reveals: Vec::new(), ended: None })
    }

    fn opened(&self, live: &Live, place: usize) -> Opened {
        let node = live.task.outputs.get(place).map_or(0, |slot| slot.node);
        let text = live.texts.get(place).cloned().unwrap_or_default();
        let salt = blake2(format!("salt {} {node}", live.id).as_bytes());
        Opened { hash: blake2(&text), salt }
    }

    fn answer(&mut self, live: &mut Live) -> (Vec<(TaskId, NodeId)>, Vec<Decline>) {
        let (mut committed, mut declined) = (Vec::new(), Vec::new());
        let nodes: Vec<NodeId> = live.task.outputs.iter().map(|slot| slot.node).collect();
        for (place, node) in nodes.into_iter().enumerate() {
            match live.fate {
                Fate::Undelivered => continue,
                Fate::OneDeclines if place == 0 => {
                    if live.task.decline(node, self.at, EPOCH_MS) == Ok(true) {
                        declined.push(Decline { task: live.id, node, reason: DeclineReason::TooLong });
                    }
                    continue;
                }
                _ => {}
            }
            let opened = self.opened(live, place);
            let commitment = self.network.output(live.id, node, &opened.hash, &opened.salt);
            if live.task.commit_output(node, commitment, self.at, EPOCH_MS) == Ok(true) {
                committed.push((live.id, node));
            }
        }
        (committed, declined)
    }

    /// Draws a panel, by the requester or by a keeper.
    fn draw(&mut self, live: &mut Live) {
        let openings = (0..live.task.outputs.len())
            .map(|place| {
                let slot = live.task.outputs.get(place)?;
                (slot.state == OutputState::Committed).then(|| self.opened(live, place))
            })
            .collect::<Vec<_>>();
        let draw = Draw { task: live.id, secret: live.secret, openings: openings.clone() };
        let network = self.network.hash;
        if live.task.unseal(&draw, self.at, EPOCH_MS, &network, blake2).is_err() {
            return;
        }
        if live.fate == Fate::NoPanel {
            live.task.short = true;
            return self.emit(&e::PanelShort { task: live.id, found: 1 });
        }
        let nodes = self.seat(live, live.task.panel.len(), &[]);
        self.emit(&e::PanelDrawn {
            task: live.id,
            filled: false,
            seed: live.task.seed,
            secret: live.secret,
            outputs: openings,
            weights: vec![Ratio::from_permille(100); nodes.len()],
            nodes,
            vacated: Vec::new(),
            deadline: live.task.deadline,
        });
    }

    fn seat(&mut self, live: &mut Live, seats: usize, without: &[NodeId]) -> Vec<NodeId> {
        let at_risk = live.task.terms.evaluator_at_risk;
        let nodes = self.pick(Role::Evaluator, seats, at_risk, without);
        self.take(live.id, &nodes, at_risk);
        live.task.seat(nodes.iter().copied(), self.at);
        nodes
    }

    fn fill(&mut self, live: &mut Live) {
        let params = &self.params;
        let missed = evaluator_penalty(params, live.task.terms.evaluator_slot, &Conduct::Missed);
        let gone = live.task.vacate();
        let at_risk = live.task.terms.evaluator_at_risk;
        for node in &gone {
            let outcome = Outcome {
                task: live.id,
                at_risk,
                payout: 0,
                slashed: missed,
                missed: true,
                record: None,
                due: 0,
            };
            self.finish(*node, &outcome);
        }
        let nodes = self.seat(live, gone.len(), &gone);
        self.emit(&e::PanelDrawn {
            task: live.id,
            filled: true,
            seed: live.task.seed,
            secret: [0; 32],
            outputs: vec![None; live.task.outputs.len()],
            weights: vec![Ratio::from_permille(100); nodes.len()],
            nodes,
            vacated: gone.iter().map(|node| Penalty { node: *node, amount: missed }).collect(),
            deadline: live.task.deadline,
        });
    }

    /// Has a panel commit; what it will reveal.
    fn score(&mut self, live: &mut Live) -> Vec<(TaskId, NodeId)> {
        let mut committed = Vec::new();
        let seats: Vec<NodeId> = live.task.panel.iter().map(|seat| seat.node).collect();
        for node in seats.into_iter().filter(|node| *node != 0) {
            // One in fifty stays away.
            if self.rng.random_range(0..50) == 0 {
                continue;
            }
            let noise = 1.0 - self.skills.get(&node).copied().unwrap_or(0.5);
            let scores: Vec<Score> = live
                .truth
                .iter()
                .zip(&live.task.outputs)
                .map(|(truth, slot)| match (live.fate, slot.state) {
                    (Fate::NoInput, _) => Score::NO_INPUT,
                    (_, OutputState::Opened) => {
                        let shift = self.rng.random_range(-noise..noise) * 0.4;
                        Score::of(Ratio::from_f64((truth + shift).clamp(0.0, 1.0)))
                    }
                    _ => Score::UNAVAILABLE,
                })
                .collect();
            let salt = blake2(format!("scores {} {node}", live.id).as_bytes());
            let report_hash = [0; 32];
            let commitment = self.network.scores(live.id, node, &scores, &report_hash, &salt);
            if live.task.commit_scores(node, commitment, self.at) == Ok(true) {
                committed.push((live.id, node));
                live.reveals.push(Reveal { task: live.id, node, scores, report_hash, salt });
            }
        }
        committed
    }

    /// Ends a task now, if that is what its clock says; pays its keeper, if it is one's.
    fn end(&mut self, live: &mut Live, keeper: bool) -> Option<(TaskId, Balance)> {
        let ending = match live.task.clock().step(self.at) {
            Step::End(ending) => ending,
            Step::Settle => Ending::Consensus,
            _ => return None,
        };
        let paid = if keeper { live.task.pay_keeper(self.at) } else { 0 };
        self.close(live, ending)?;
        (paid > 0).then_some((live.id, paid))
    }

    fn close(&mut self, live: &mut Live, ending: Ending) -> Option<()> {
        let nodes = &self.nodes;
        let standing = |node| nodes.get(&node).map_or((Ratio::ZERO, 0), |node| (node.trust, node.due));
        let input = live.task.settlement_input(ending, standing, &self.population, self.at);
        let settlement = settle(&self.params, &input)?;
        for (node, outcome) in live.task.outcomes(live.id, &input, &settlement) {
            self.finish(node, &outcome);
        }
        self.population.absorb(&self.params, &settlement, &live.task.seed, self.at);
        let event = e::TaskClosed {
            task: live.id,
            requester: live.task.requester,
            kind: KIND,
            version: 1,
            seed: live.task.seed,
            output_nodes: live.task.outputs.iter().map(|slot| slot.node).collect(),
            panel_nodes: live.task.panel.iter().map(|seat| seat.node).collect(),
            input,
            settlement,
        };
        live.task.close(&event.settlement, self.at, self.number.saturating_add(1));
        live.ended = Some(self.at);
        self.emit(&event);
        Some(())
    }

    fn open_reference(&mut self, live: &mut Live) {
        let Some(reference) = live.reference.clone().filter(|_| live.task.can_audit(self.at)) else { return };
        let outputs: Vec<Option<Vec<u8>>> = live
            .task
            .outputs
            .iter()
            .zip(&live.texts)
            .map(|(slot, text)| (slot.state == OutputState::Opened).then(|| text.clone()))
            .collect();
        let truth = outputs.iter().map(|text| text.as_ref().map(|text| token_f1(&reference, text))).collect();
        let nodes = &self.nodes;
        let state = |node| {
            nodes.get(&node).map_or(TrustState::default(), |node| TrustState {
                trust: node.trust,
                gain_average: node.gain_average,
            })
        };
        let input = live.task.audit_input(truth, state, &self.population);
        let audit = audit(&self.params, &input);
        let panel_nodes: Vec<NodeId> = live.task.panel.iter().map(|seat| seat.node).collect();
        for (node, after) in panel_nodes.iter().zip(&audit.panel).filter(|(node, _)| **node != 0) {
            if let Some(node) = self.nodes.get_mut(node) {
                (node.trust, node.gain_average) = (after.trust, after.gain_average);
            }
        }
        self.population.gain_average = audit.gain_average;
        live.task.audited = true;
        let salt = blake2(&live.id.to_le_bytes());
        let opening = Opening { reference, salt, outputs };
        let auditor = to_ink(&account("auditor", 0));
        self.emit(&e::TaskAudited { task: live.id, auditor, opening, panel_nodes, input, audit });
    }

    fn make_group(&mut self) {
        let start = START + 60_000 + self.group.saturating_mul(self.plan.every_ms);
        self.group += 1;
        self.at = start;
        let mut group = Vec::new();
        while (group.len() as u64) < self.plan.group && self.next_task <= self.plan.tasks {
            match self.request() {
                Some(live) => group.push(live),
                None => break,
            }
        }
        if group.is_empty() {
            // Too few nodes are free: the rest is not made up.
            self.next_task = self.plan.tasks.saturating_add(1);
            return;
        }
        self.seal(start);
        self.live(&mut group, start);
        self.pay_out(&group, start + 380_000);
    }

    /// Requests tasks that get only so far: the first to their request, the next to their answers, draws, scores.
    fn leave_open(&mut self) {
        let count = std::mem::take(&mut self.plan.open);
        let start = START + 60_000 + self.group.saturating_mul(self.plan.every_ms);
        (self.plan.failing, self.at) = (0, start);
        let mut group: Vec<Live> = (0..count).filter_map(|_| self.request()).collect();
        self.seal(start);
        self.at = start + 6_000;
        let mut items = Vec::new();
        for live in group.iter_mut().filter(|live| live.id % 4 > 0) {
            items.extend(self.answer(live).0);
        }
        if !items.is_empty() {
            self.emit(&e::OutputsCommitted { items });
        }
        self.seal(start + 6_000);
        self.at = start + 12_000;
        for live in group.iter_mut().filter(|live| live.id % 4 > 1) {
            self.draw(live);
        }
        self.seal(start + 12_000);
        self.at = start + 18_000;
        let mut items = Vec::new();
        for live in group.iter_mut().filter(|live| live.id % 4 > 2) {
            items.extend(self.score(live));
        }
        if !items.is_empty() {
            self.emit(&e::ScoresCommitted { items });
        }
        self.seal(start + 18_000);
    }

    /// Lets a group of tasks live; the times are of their deadlines.
    fn live(&mut self, group: &mut [Live], start: u64) {
        // Answers, in three blocks.
        for round in 0..3u64 {
            self.at = start + 6_000 + round * 6_000;
            let (mut committed, mut declined) = (Vec::new(), Vec::new());
            for live in group.iter_mut().filter(|live| live.id % 3 == round) {
                let (new, no) = self.answer(live);
                committed.extend(new);
                declined.extend(no);
            }
            if !committed.is_empty() {
                self.emit(&e::OutputsCommitted { items: committed });
            }
            if !declined.is_empty() {
                self.emit(&e::Declined { items: declined });
            }
            self.seal(start + 6_000 + round * 6_000);
        }
        // Some nodes open on chain before the draw.
        self.at = start + 24_000;
        let mut items = Vec::new();
        for live in group.iter_mut().filter(|live| live.id % 4 == 0) {
            for place in 0..live.task.outputs.len() {
                let Some(slot) = live.task.outputs.get(place) else { continue };
                let (id, node) = (live.id, slot.node);
                if live.fate == Fate::Unopened || slot.state != OutputState::Committed {
                    continue;
                }
                let opened = self.opened(live, place);
                let network = self.network.hash;
                if live.task.open_output(id, node, &opened, self.at, EPOCH_MS, &network, blake2) == Ok(true) {
                    items.push(Open { task: id, node, opened });
                }
            }
        }
        if !items.is_empty() {
            self.emit(&e::OutputsOpened { items });
        }
        self.seal(start + 24_000);
        self.at = start + 30_000;
        for live in group.iter_mut() {
            if !matches!(live.fate, Fate::Undelivered | Fate::Unopened | Fate::NoSecret) {
                self.draw(live);
            }
        }
        self.seal(start + 30_000);
        for round in 0..2u64 {
            self.at = start + 36_000 + round * 6_000;
            let mut committed = Vec::new();
            for live in group.iter_mut().filter(|live| live.id % 2 == round) {
                if live.fate != Fate::BelowQuorum {
                    committed.extend(self.score(live));
                }
            }
            if !committed.is_empty() {
                self.emit(&e::ScoresCommitted { items: committed });
            }
            self.seal(start + 36_000 + round * 6_000);
        }
        // Whoever's panel has committed as a whole reveals; the last one settles.
        self.reveal(group, start + 48_000);
        self.at = start + 54_000;
        for live in group.iter_mut() {
            self.open_reference(live);
        }
        self.seal(start + 54_000);
        // What did not go well, by keepers, when it is due; with a panel of which somebody stayed away, after its deadline.
        for after in [100_000, 160_000, 170_000, 235_000, 300_000] {
            let at = start + after;
            self.reveal(group, at);
            let mut paid = Vec::new();
            for live in group.iter_mut().filter(|live| live.ended.is_none()) {
                if live.task.clock().step(at) == Step::Fill {
                    let fee = live.task.pay_keeper(at);
                    paid.extend((fee > 0).then_some((live.id, fee)));
                    self.fill(live);
                } else {
                    paid.extend(self.end(live, true));
                }
            }
            if !paid.is_empty() {
                let keeper = to_ink(&account("keeper", 0));
                self.emit(&e::KeeperPaid { keeper, items: paid });
            }
            self.seal(at);
        }
    }

    /// Reveals what can be revealed, and settles what that completes.
    fn reveal(&mut self, group: &mut [Live], at: u64) {
        self.at = at;
        let mut items = Vec::new();
        let mut last = Vec::new();
        for (place, live) in group.iter_mut().enumerate().filter(|(_, live)| live.ended.is_none()) {
            for reveal in std::mem::take(&mut live.reveals) {
                match live.task.reveal(&reveal, at, &self.network.hash, blake2) {
                    Ok(done) => {
                        items.push(reveal);
                        if done {
                            last.push(place);
                        }
                    }
                    Err(_) => live.reveals.push(reveal),
                }
            }
        }
        if items.is_empty() {
            return;
        }
        for chunk in items.chunks(64) {
            self.emit(&e::ScoresRevealed { items: chunk.to_vec() });
        }
        for place in last {
            if let Some(live) = group.get_mut(place) {
                self.close(live, Ending::Consensus);
            }
        }
        self.seal(at);
    }

    /// Collects, and claims now and then.
    fn pay_out(&mut self, group: &[Live], at: u64) {
        self.at = at;
        for live in group.iter().filter(|live| live.ended.is_some()) {
            // Some are never collected.
            if live.id % 11 != 0 {
                self.emit(&e::Collected { task: live.id, to: live.task.requester, amount: live.task.refund });
            }
        }
        if self.group % 10 == 0 {
            let owned = self.pond.as_ref().map(|pond| pond.node);
            let claims: Vec<(NodeId, Balance)> = self
                .nodes
                .iter_mut()
                .filter(|(id, node)| node.claimable > 0 && Some(**id) != owned)
                .map(|(id, node)| {
                    let amount = std::mem::take(&mut node.claimable);
                    node.withdrawn += amount;
                    (*id, amount)
                })
                .collect();
            for (node, amount) in claims {
                let to = self.nodes.get(&node).map(|node| node.payee);
                if let Some(to) = to {
                    self.emit(&e::Claimed { node, to, amount });
                }
            }
            self.account_pool(at);
        }
        // Who missed two in a row comes back.
        let drained: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.status == NodeStatus::Draining)
            .map(|(id, _)| *id)
            .collect();
        for node in drained {
            if let Some(node) = self.nodes.get_mut(&node) {
                (node.status, node.misses) = (NodeStatus::Active, 0);
            }
            self.emit(&e::NodeChanged { node, change: e::NodeChange::Resumed });
        }
        self.seal(at);
    }

    /// The account of a made-up requester, owner, holder, …, for whoever asks about one.
    pub fn account(what: &str, number: u32) -> AccountId32 {
        account(what, number)
    }
}
