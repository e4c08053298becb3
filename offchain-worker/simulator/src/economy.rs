//! The economy: tasks one after the other, from request to their end.
//!
//! A task's record, its clock and everything that moves it on are `poq-core`'s, the very functions that the contract calls; the
//! commitments, the seeds and the draws are real. What is here is what people do: answer, open, score, reveal, or not. One task
//! runs at a time: tasks in parallel would only matter through the limit of open tasks per node.

use crate::attack::{plan, Attack, Collusion, Reveal, View};
use crate::error::{Error, Result};
use crate::ledger::{Ledger, Purse};
use crate::population::{Node, Role};
use crate::rng::{normal, Purpose, Rng, Streams};
use crate::store::{account, bytes, id_of, index_of, newcomers_trust, Store, KIND};
use crate::world::{Answer, SharedErrors, World};
use blake2::{digest::consts::U32, Blake2b, Digest};
use poq_core::aggregate::median;
use poq_core::commitment::{self, Hash, Salt};
use poq_core::node::Outcome;
use poq_core::params::{FeeSplit, UNIT};
use poq_core::registry::{draw, epoch_of, inference_seed, Account, Draw, Drawn, PoolId};
use poq_core::settlement::{audit, has_no_input, Conduct, Ending, TrustState};
use poq_core::task::{self, Opened, Request, Source, Step, Task, TaskInput, Terms};
use poq_core::units::{Balance, Millis, TaskId};
use poq_core::{settle, KindParams, Population, Ratio, Score, Settlement, SettlementInput, Signed};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// The hash function of the chain.
pub(crate) fn blake2_256(bytes: &[u8]) -> Hash {
    Blake2b::<U32>::digest(bytes).into()
}

/// The simulated network: its genesis and its contract.
pub(crate) const NETWORK: Hash = *b"the simulated chain and contract";

/// Gold tasks: tasks whose reference is opened after the scores were revealed, so that evaluators are measured by the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gold {
    /// The share of tasks that are gold, in [0, 1]. Nobody can tell before the opening.
    pub share: f64,
    /// The standard deviation of what an opened reference makes of an output around its true quality: token F1 is not quality.
    pub noise: f64,
    /// The share of gold tasks whose auditor abuses its role: it plants a reference that no output matches, so that the truth
    /// of every output is zero. It tells attackers, who then score zero.
    pub abused: f64,
}

impl Gold {
    fn check(&self) -> Result<()> {
        let fits = (0.0..=1.0).contains(&self.share)
            && (0.0..=1.0).contains(&self.abused)
            && self.noise.is_finite()
            && self.noise >= 0.0;
        if fits {
            Ok(())
        } else {
            Err(Error::Setting("gold: share and abused must be in [0, 1], noise at least 0".into()))
        }
    }
}

/// What a task's auditor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// There is no reference.
    None,
    /// It opens the reference.
    Honest,
    /// It has planted a reference that nothing matches.
    Abusive,
}

/// The rules of a simulated task kind, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The kind's parameters.
    pub params: KindParams,
    /// N: inference nodes per task.
    pub outputs: u8,
    /// K: evaluators per task.
    pub panel: u8,
    /// What every task pays, in the chain's smallest unit.
    #[serde(with = "poq_core::units::decimal")]
    pub fee: Balance,
    /// How far apart blocks are: latencies are seen in steps of this.
    pub block_ms: Millis,
    /// How often an honest node fails to do its duty.
    pub fault_rate: f64,
    /// Gold tasks.
    pub gold: Gold,
    /// What the requester does.
    #[serde(default)]
    pub requester: Requester,
}

/// What a requester does with its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Requester {
    /// What it should.
    #[default]
    Honest,
    /// Never shows its secret, so that no panel can be drawn.
    WithholdsSecret,
    /// Serves the input to the nodes that answer and not to the panel, and nobody relays it.
    WithholdsInput,
    /// Serves the input to nobody: every node declines.
    WithholdsAll,
}

impl Default for Setting {
    /// The shipped parameters of a network without auditors: two answers, a panel of nine, 10 UNIT per task, blocks of one
    /// second, one fault in 200 duties.
    fn default() -> Setting {
        Setting {
            params: KindParams::without_auditors(),
            outputs: 2,
            panel: 9,
            fee: 10 * UNIT,
            block_ms: 1_000,
            fault_rate: 0.005,
            gold: Gold::default(),
            requester: Requester::Honest,
        }
    }
}

impl Setting {
    /// How long an epoch of the registry is: the shortest that the parameters allow.
    pub fn epoch_ms(&self) -> Millis {
        2 * self.params.draw_ms + self.params.commit_ms
    }

    /// How the fee is split.
    ///
    /// # Errors
    /// Parameters that the contract would refuse, more outputs or evaluators than they allow, a fee that is too small.
    pub fn split(&self) -> Result<FeeSplit> {
        let params = &self.params;
        params.validate()?;
        if self.outputs == 0 || self.outputs > params.outputs_max {
            return Err(Error::Setting(format!(
                "outputs must be in [1, {}], not {}",
                params.outputs_max, self.outputs
            )));
        }
        if self.panel < params.panel_min || self.panel > params.panel_max {
            return Err(Error::Setting(format!(
                "the panel (K) must be in [{}, {}], not {}",
                params.panel_min, params.panel_max, self.panel
            )));
        }
        if self.fee > params.fee_max {
            return Err(Error::Setting(format!(
                "a fee of {} is too large: the contract wants {} at most",
                self.fee, params.fee_max
            )));
        }
        if self.block_ms == 0 {
            return Err(Error::Setting("block_ms must be above zero".into()));
        }
        if !(0.0..1.0).contains(&self.fault_rate) {
            return Err(Error::Setting(format!("fault_rate must be in [0, 1), not {}", self.fault_rate)));
        }
        self.gold.check()?;
        params.split(self.fee, self.outputs, self.panel).ok_or_else(|| {
            let least = params.fee_min(self.outputs, self.panel).unwrap_or(Balance::MAX);
            Error::Setting(format!("a fee of {} is too small: the contract wants {least}", self.fee))
        })
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the panel's scores.
    Settled,
    /// Without a consensus.
    Refunded(Ending),
    /// It was not even accepted: too few inference nodes could be drawn.
    Refused,
}

/// What a node got out of one duty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The node.
    pub node: u32,
    /// Out of the fee.
    pub payout: Balance,
    /// Out of its stake.
    pub slashed: Balance,
    /// What its work cost it off the chain, in the chain's smallest unit.
    pub expense: f64,
    /// R = α · quality − β · cost; `None` where it has none (a missed duty, a task not settled).
    pub net: Option<Signed>,
}

/// What happened in a round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// How it ended; `None` before the first.
    pub ended: Option<Ended>,
    /// Whether empty seats were filled.
    pub filled: bool,
    /// The inference nodes that were drawn.
    pub outputs: Vec<u32>,
    /// Their answers; `None` where one was not delivered in time.
    pub answers: Vec<Option<Answer>>,
    /// The panel at the end; `None` for a seat that stayed empty.
    pub panel: Vec<Option<u32>>,
    /// What everybody who had a duty got, those who lost their seats too.
    pub entries: Vec<Entry>,
    /// What the auditor did.
    pub audit: Option<Audit>,
    /// How it ended in numbers, whatever the ending.
    pub closed: Option<(SettlementInput, Settlement)>,
}

/// A simulated network.
#[derive(Debug)]
pub struct Economy<'a> {
    world: &'a World,
    setting: &'a Setting,
    split: FeeSplit,
    terms: Terms,
    nodes: Vec<Node>,
    attack: Option<Attack>,
    /// The model that a swapping node runs instead.
    weakest: usize,
    store: Store,
    ledger: Ledger,
    population: Population,
    last: Option<f64>,
    now: Millis,
    streams: Streams,
    round: u64,
    report: Round,
    /// What each node's work in this round cost it.
    expenses: Vec<f64>,
    // Buffers, so that a round allocates little.
    collusion: Collusion,
    errors: SharedErrors,
    ring: Vec<f64>,
    seen: Vec<Option<f64>>,
    own: Vec<bool>,
    scores: Vec<Option<f64>>,
    members: Vec<Member>,
}

/// What an inference node does about its duty.
#[derive(Clone, Debug)]
struct Delivery {
    /// When; past the deadline it comes to nothing.
    at: Millis,
    declines: bool,
    opens: bool,
    hash: Hash,
    salt: Salt,
}

/// What a member of the panel does about its duty.
#[derive(Clone, Debug)]
struct Member {
    node: u32,
    commits: bool,
    at: Millis,
    reveal: Reveal,
    scores: Vec<Score>,
    salt: Salt,
}

/// A quality as the chain has it: clipped to [0, 1], rounded down to a part per billion.
pub fn quantise(x: f64) -> Ratio {
    Ratio::from_f64(x)
}

/// A ratio as a float.
pub fn float(ratio: Ratio) -> f64 {
    ratio.to_f64()
}

impl<'a> Economy<'a> {
    /// A network at its start. `rounds` is how many tasks the requester has the money for; refunds buy more.
    ///
    /// # Errors
    /// A setting that the contract would refuse.
    pub fn new(
        world: &'a World,
        setting: &'a Setting,
        nodes: Vec<Node>,
        attack: Option<Attack>,
        rounds: u64,
        streams: Streams,
    ) -> Result<Economy<'a>> {
        let split = setting.split()?;
        let params = &setting.params;
        let weakest = (0..world.models().len())
            .min_by(|a, b| world.model_quality(*a).total_cmp(&world.model_quality(*b)))
            .unwrap_or(0);
        let mut store = Store::default();
        for node in &nodes {
            store.register(node, params, 0);
        }
        let budget = setting.fee.saturating_mul(Balance::from(rounds));
        Ok(Economy {
            world,
            setting,
            terms: Terms::new(params, 1, &split, setting.panel),
            split,
            ledger: Ledger::new(store.owned(), budget),
            population: Population::new(params),
            expenses: vec![0.0; nodes.len()],
            nodes,
            attack,
            weakest,
            store,
            last: None,
            // What owners have done counts from the first epoch on.
            now: setting.epoch_ms().next_multiple_of(setting.block_ms),
            streams,
            round: 0,
            report: Round::default(),
            collusion: Collusion::default(),
            errors: SharedErrors::default(),
            ring: Vec::new(),
            seen: Vec::new(),
            own: Vec::new(),
            scores: Vec::new(),
            members: Vec::new(),
        })
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes' records, in the same order.
    pub fn records(&self) -> &[poq_core::Node] {
        self.store.nodes()
    }

    /// What a node owns.
    pub fn purse(&self, node: u32) -> Purse {
        let record = self.store.get(node);
        Purse { free: record.stake.lockable(), locked: record.stake.locked, claimable: record.claimable }
    }

    /// The kind's parameters.
    pub fn params(&self) -> &KindParams {
        &self.setting.params
    }

    /// What happened in the round that ended last.
    pub fn last_round(&self) -> &Round {
        &self.report
    }

    /// The accounts that are no node's.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Counts all money.
    ///
    /// # Errors
    /// [`Error::Money`] where some was made or lost.
    pub fn count(&self) -> Result<()> {
        self.ledger.count(self.store.owned())
    }

    /// What the kind remembers.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// How the fee is split.
    pub fn fee_split(&self) -> FeeSplit {
        self.split
    }

    /// What an inference node has at risk.
    pub fn inference_at_risk(&self) -> Balance {
        self.terms.inference_at_risk
    }

    /// What an evaluator has at risk.
    pub fn evaluator_at_risk(&self) -> Balance {
        self.terms.evaluator_at_risk
    }

    /// Runs one task from its request to its end.
    ///
    /// # Errors
    /// Only bugs: money that is made or lost, accounts below zero, a settlement that is refused.
    pub fn round(&mut self) -> Result<&Round> {
        self.report.ended = None;
        self.report.filled = false;
        self.report.closed = None;
        self.report.entries.clear();
        self.report.panel.clear();
        self.members.clear();
        self.expenses.fill(0.0);
        let ended = self.task()?;
        self.report.ended = Some(ended);
        self.come_back();
        self.ledger.end_round(self.store.owned())?;
        self.round += 1;
        // The next request comes some blocks later.
        self.now += 5 * self.setting.block_ms;
        Ok(&self.report)
    }

    /// The first block at or after `time`.
    fn block(&self, time: Millis) -> Millis {
        time.div_ceil(self.setting.block_ms) * self.setting.block_ms
    }

    fn bug(&self) -> Error {
        Error::Unsettled { round: self.round }
    }

    fn task(&mut self) -> Result<Ended> {
        let setting = self.setting;
        let epoch_ms = setting.epoch_ms();
        let id: TaskId = self.round + 1;
        let mut world_rng = self.streams.round(self.round, Purpose::World);
        let mut draw_rng = self.streams.round(self.round, Purpose::Draw);
        let mut perception = self.streams.round(self.round, Purpose::Perception);
        let mut attack_rng = self.streams.round(self.round, Purpose::Attack);
        let audit = self.audit();
        self.report.audit = Some(audit);

        // Request: draw inference nodes, escrow the fee, lock their stake.
        let question = self.world.task(&mut world_rng);
        let requester = account(2, 0);
        let secret: Hash = draw_rng.random();
        let request = Request {
            kind: KIND,
            fee: setting.fee,
            nodes: Vec::new(),
            outputs: setting.outputs,
            panel: setting.panel,
            input: Source::Url { hash: draw_rng.random(), url: String::new() },
            reference_commitment: draw_rng.random(),
            secret_hash: blake2_256(&commitment::secret(&NETWORK, &bytes(&requester), &secret)),
            early: false,
        };
        let epoch = epoch_of(self.now, epoch_ms);
        let seed = blake2_256(&inference_seed(&NETWORK, id, &request.secret_hash));
        let (at_risk, slot) = (self.terms.inference_at_risk, self.terms.inference_slot);
        let excluded = [bytes(&requester)];
        let drawn = draw(
            &self.store,
            &Draw {
                pool: PoolId { kind: KIND, role: Role::Inference },
                sealed: epoch,
                now: epoch,
                seed,
                round: 0,
                seats: setting.outputs,
                seated: &[],
                excluded: &excluded,
            },
            blake2_256,
            |_, node| node.can_take(at_risk) && node.price <= slot,
        )
        .map_err(|_| self.bug())?;
        if !drawn.full {
            return Ok(Ended::Refused);
        }
        let assigned: Vec<_> = drawn.seats.iter().map(|(id, node)| (*id, node.price)).collect();
        self.report.outputs = assigned.iter().map(|(id, _)| index_of(*id)).collect();
        self.ledger.escrow_fee(setting.fee)?;
        for index in 0..self.report.outputs.len() {
            let node = self.report.outputs[index];
            self.store.get_mut(node).take(id, at_risk).map_err(|_| self.bug())?;
        }
        let input = TaskInput { hash: [0; 32], url: String::new(), inline: false };
        let inference_ms = setting.params.inference_ms;
        let mut task = Task::new(requester, &request, input, self.terms, inference_ms, &assigned, self.now);
        if let Some(attack) = self.attack {
            self.collusion.prepare(attack, self.world, usize::from(setting.outputs), &mut attack_rng);
        }

        // Answers, in the order in which they come.
        let deliveries =
            self.answer(&question, self.now, task.deadline, &mut world_rng, &mut perception, &mut draw_rng);
        let mut order: Vec<usize> = (0..deliveries.len()).collect();
        order.sort_by_key(|slot| deliveries[*slot].at);
        for slot in order {
            let (delivery, node) = (&deliveries[slot], assigned[slot].0);
            if delivery.at > task.deadline && task.phase == task::Phase::Inferring {
                continue;
            }
            self.now = delivery.at;
            if delivery.declines {
                task.decline(node, self.now, epoch_ms)
            } else {
                let preimage = commitment::output(&NETWORK, id, node, &delivery.hash, &delivery.salt);
                task.commit_output(node, blake2_256(&preimage), self.now, epoch_ms)
            }
            .map_err(|_| self.bug())?;
        }
        self.now += setting.block_ms;

        // From here on the clock says what is to be done. A task lives through a few steps; more would be a bug.
        for _ in 0..16 {
            match task.clock().step(self.now) {
                Step::Wait { until } => self.now = self.block(until + 1),
                Step::Draw { until } => {
                    let drawn = self.draw_panel(&mut task, id, &secret, &deliveries)?;
                    if drawn {
                        self.panel(
                            &mut task,
                            id,
                            &question,
                            &mut perception,
                            &mut attack_rng,
                            &mut draw_rng,
                        )?;
                    } else {
                        // Nobody changes its mind, and nobody new comes while nothing else happens.
                        self.now = self.block(until + 1);
                    }
                }
                Step::Fill => {
                    self.vacate(&mut task, id)?;
                    self.seat(&mut task, id, 1)?;
                    self.panel(&mut task, id, &question, &mut perception, &mut attack_rng, &mut draw_rng)?;
                }
                Step::Settle => return self.close(task, id, Ending::Consensus, audit),
                Step::End(ending) => return self.close(task, id, ending, audit),
                Step::Done => return Err(self.bug()),
            }
        }
        Err(self.bug())
    }

    /// Shows the secret and the openings and draws the panel, where everybody whose part it is takes part.
    fn draw_panel(
        &mut self,
        task: &mut Task,
        id: TaskId,
        secret: &Hash,
        deliveries: &[Delivery],
    ) -> Result<bool> {
        let committed = |slot: &task::OutputSlot| slot.state == task::OutputState::Committed;
        let openings: Vec<Option<Opened>> = task
            .outputs
            .iter()
            .zip(deliveries)
            .map(|(slot, delivery)| {
                let opens = committed(slot) && delivery.opens;
                opens.then_some(Opened { hash: delivery.hash, salt: delivery.salt })
            })
            .collect();
        let withheld =
            task.outputs.iter().zip(&openings).any(|(slot, open)| committed(slot) && open.is_none());
        if withheld || self.setting.requester == Requester::WithholdsSecret {
            // Those who were not asked for their openings show them on chain.
            for (slot, opened) in task.outputs.clone().iter().zip(&openings) {
                let Some(opened) = opened else { continue };
                let epoch_ms = self.setting.epoch_ms();
                task.open_output(id, slot.node, opened, self.now, epoch_ms, &NETWORK, blake2_256)
                    .map_err(|_| self.bug())?;
            }
            return Ok(false);
        }
        let shown = task::Draw { task: id, secret: *secret, openings };
        task.unseal(&shown, self.now, self.setting.epoch_ms(), &NETWORK, blake2_256)
            .map_err(|_| self.bug())?;
        let drawn = self.seat(task, id, 0)?;
        task.short = !drawn;
        Ok(drawn)
    }

    /// Draws evaluators for the vacant seats and gives them to them: for a panel all or nobody, for empty seats whoever there
    /// is. Whether it did.
    fn seat(&mut self, task: &mut Task, id: TaskId, round: u8) -> Result<bool> {
        let owner = |node: poq_core::NodeId| bytes(&self.store.get(index_of(node)).owner);
        let seated: Vec<Account> =
            task.panel.iter().filter(|seat| seat.node != 0).map(|seat| owner(seat.node)).collect();
        let mut excluded: Vec<Account> = task.outputs.iter().map(|slot| owner(slot.node)).collect();
        excluded.push(bytes(&task.requester));
        // Who has just lost a seat does not get another one.
        excluded.extend(self.report.entries.iter().map(|entry| owner(id_of(entry.node))));
        let at_risk = task.terms.evaluator_at_risk;
        let vacant = task.panel.len() - seated.len();
        let Drawn { seats, full } = draw(
            &self.store,
            &Draw {
                pool: PoolId { kind: KIND, role: Role::Evaluator },
                sealed: task.sealed_epoch,
                now: epoch_of(self.now, self.setting.epoch_ms()),
                seed: task.seed,
                round,
                seats: vacant as u8,
                seated: &seated,
                excluded: &excluded,
            },
            blake2_256,
            |_, node| node.can_take(at_risk),
        )
        .map_err(|_| self.bug())?;
        if round == 0 && !full {
            return Ok(false);
        }
        for (node, _) in &seats {
            self.store.get_mut(index_of(*node)).take(id, at_risk).map_err(|_| self.bug())?;
        }
        task.seat(seats.into_iter().map(|(node, _)| node), self.now);
        Ok(true)
    }

    /// Takes the seats of those who did not commit.
    fn vacate(&mut self, task: &mut Task, id: TaskId) -> Result<()> {
        self.report.filled = true;
        let at_risk = task.terms.evaluator_at_risk;
        let slot = task.terms.evaluator_slot;
        let slashed =
            poq_core::task::penalties::evaluator_penalty(&self.setting.params, slot, &Conduct::Missed);
        for node in task.vacate() {
            self.finish(
                index_of(node),
                Outcome { task: id, at_risk, payout: 0, slashed, missed: true, record: None, due: 0 },
                None,
            )?;
        }
        Ok(())
    }

    /// Ends a node's duty.
    fn finish(&mut self, node: u32, outcome: Outcome, net: Option<Signed>) -> Result<()> {
        let epoch = epoch_of(self.now, self.setting.epoch_ms());
        let params = &self.setting.params;
        self.store.get_mut(node).finish(&outcome, params, epoch).map_err(|_| self.bug())?;
        self.ledger.slash(outcome.slashed);
        let expense = std::mem::take(&mut self.expenses[node as usize]);
        let Outcome { payout, slashed, .. } = outcome;
        self.report.entries.push(Entry { node, payout, slashed, expense, net });
        Ok(())
    }

    /// Lets the drawn inference nodes answer.
    fn answer(
        &mut self,
        question: &crate::world::Task,
        requested_at: Millis,
        deadline: Millis,
        world_rng: &mut Rng,
        perception: &mut Rng,
        draw_rng: &mut Rng,
    ) -> Vec<Delivery> {
        let mut first_copy: Option<(Answer, Hash)> = None;
        self.report.answers.clear();
        let mut deliveries = Vec::with_capacity(self.report.outputs.len());
        for id in &self.report.outputs {
            let node = &self.nodes[*id as usize];
            let attack = self.attack.filter(|_| node.malicious);
            let mut expense = self.world.model_effort(node.model);
            // Always drawn, so that the same tasks and answers come whatever the attack is.
            let honest = self.world.answer(question, node.model, world_rng);
            let mut answer = honest;
            let (mut hash, salt): (Hash, Salt) = (draw_rng.random(), draw_rng.random());
            let mut declines = self.setting.requester == Requester::WithholdsAll;
            let mut opens = true;
            match attack {
                Some(Attack::SlowDelivery(seconds)) => {
                    answer.latency_ms = answer.latency_ms.max(seconds * 1_000.0);
                }
                Some(Attack::OutputCopying) => match first_copy {
                    Some(copy) => {
                        (answer, hash) = copy;
                        expense = 0.0;
                    }
                    None => first_copy = Some((answer, hash)),
                },
                Some(Attack::ModelSwap(share)) => {
                    answer = self.world.answer(question, self.weakest, perception);
                    expense *= share;
                }
                Some(Attack::Decline) => {
                    declines = true;
                    expense = 0.0;
                }
                Some(Attack::WithholdOpening) => opens = false,
                _ => {}
            }
            if declines {
                answer.latency_ms = 0.0;
            }
            let missed = attack.is_none() && perception.random::<f64>() < self.setting.fault_rate;
            let latency = answer.latency_ms.clamp(0.0, 1e12) as Millis;
            let mut at = self.block(requested_at + latency.max(1));
            if missed {
                at = at.max(self.block(deadline + 1));
            }
            self.expenses[*id as usize] = expense * self.split.inference_slot as f64;
            self.report.answers.push((at <= deadline && !declines).then_some(answer));
            deliveries.push(Delivery { at, declines, opens, hash, salt });
        }
        deliveries
    }

    /// The duties of those who have a seat and have not committed, and what the panel reveals.
    fn panel(
        &mut self,
        task: &mut Task,
        id: TaskId,
        question: &crate::world::Task,
        perception: &mut Rng,
        attack_rng: &mut Rng,
        draw_rng: &mut Rng,
    ) -> Result<()> {
        let drawn_at = self.now;
        self.world.shared_errors(self.report.outputs.len(), perception, &mut self.errors);
        self.ring.clear();
        let written = self.population.ring.entries.iter().filter(|entry| entry.settled_at > 0);
        self.ring.extend(written.map(|entry| float(entry.quality)));
        self.own.clear();
        self.own.extend(self.report.outputs.iter().map(|id| self.nodes[*id as usize].malicious));
        let members = || task.panel.iter().filter(|seat| seat.node != 0).map(|seat| index_of(seat.node));
        let colluders = members().filter(|node| self.nodes[*node as usize].malicious).count();
        self.collusion.majority = colluders * 2 > task.panel.len();
        self.collusion.seen.clear();
        self.report.panel =
            task.panel.iter().map(|seat| (seat.node != 0).then(|| index_of(seat.node))).collect();

        let due: Vec<u32> = task
            .panel
            .iter()
            .filter(|seat| seat.node != 0 && seat.state == task::SeatState::Drawn)
            .map(|seat| index_of(seat.node))
            .collect();
        let mut duties: Vec<Member> = Vec::with_capacity(due.len());
        for node in due {
            let salt = draw_rng.random();
            duties.push(self.duty(node, question, drawn_at, salt, perception, attack_rng));
        }
        // Commitments, in the order in which they come.
        duties.sort_by_key(|duty| duty.at);
        let deadline = task.deadline;
        for duty in duties.iter().filter(|duty| duty.commits && duty.at <= deadline) {
            self.now = duty.at;
            let node = id_of(duty.node);
            let preimage = commitment::scores(&NETWORK, id, node, &duty.scores, &[0; 32], &duty.salt);
            task.commit_scores(node, blake2_256(&preimage), self.now).map_err(|_| self.bug())?;
        }
        self.members.extend(duties);
        if task.phase == task::Phase::Scoring {
            self.now = self.block(task.deadline + 1);
        }
        if task.clock().at(self.now).0 == task::Phase::Revealing {
            self.reveal(task, id)?;
            self.now += self.setting.block_ms;
        }
        Ok(())
    }

    /// One evaluator's scores.
    fn duty(
        &mut self,
        id: u32,
        question: &crate::world::Task,
        drawn_at: Millis,
        salt: Salt,
        perception: &mut Rng,
        attack_rng: &mut Rng,
    ) -> Member {
        let node = self.nodes[id as usize];
        let attack = self.attack.filter(|_| node.malicious);
        self.seen.clear();
        let mut scoring_ms = 0.0;
        for (output, answer) in self.report.answers.iter().enumerate() {
            self.seen.push(answer.as_ref().and_then(|answer| {
                scoring_ms += self.world.scoring_ms(question, answer, node.model, perception);
                self.world.perceive(question, output, answer, node.model, &self.errors, perception)
            }));
        }
        let mut expense = self.world.evaluator_effort(node.model) * self.split.evaluator_slot as f64;
        let mut member = Member {
            node: id,
            commits: true,
            at: drawn_at,
            reveal: Reveal::Always,
            scores: Vec::with_capacity(self.seen.len()),
            salt,
        };
        let mut latency = scoring_ms.clamp(1.0, 1e12) as Millis;
        let of = |scores: &[Option<f64>]| -> Vec<Score> {
            scores.iter().map(|score| Score::from(score.map(quantise))).collect()
        };
        let no_input = vec![Score::NO_INPUT; self.seen.len()];
        match attack {
            _ if self.setting.requester == Requester::WithholdsInput => {
                member.scores = no_input;
                expense = 0.0;
            }
            None => {
                member.scores = of(&self.seen);
                member.commits = perception.random::<f64>() >= self.setting.fault_rate;
            }
            // They know that nothing will match.
            Some(attack) if self.report.audit == Some(Audit::Abusive) && attack.evaluators() => {
                member.scores = of(&vec![Some(0.0); self.seen.len()]);
                expense = 0.0;
            }
            Some(attack) => {
                let view = View {
                    seen: &self.seen,
                    own: &self.own,
                    ring: &self.ring,
                    last: self.last,
                    usual: self.world.usual_quality(),
                };
                let plan = plan(attack, &view, &mut self.collusion, attack_rng, &mut self.scores);
                member.scores = if plan.no_input { no_input } else { of(&self.scores) };
                member.commits = plan.commits;
                member.reveal = plan.reveal;
                latency = latency.max(plan.at_least_ms);
                if !plan.looked {
                    expense = 0.0;
                }
            }
        }
        self.expenses[id as usize] = expense;
        member.at = self.block(drawn_at + latency);
        member
    }

    /// Reveals: first those who always do, then those who look at them before they decide.
    fn reveal(&mut self, task: &mut Task, id: TaskId) -> Result<()> {
        let committed = |node: u32| {
            task.panel.iter().any(|seat| seat.node == id_of(node) && seat.state == task::SeatState::Committed)
        };
        let members: Vec<Member> =
            std::mem::take(&mut self.members).into_iter().filter(|member| committed(member.node)).collect();
        let always: Vec<&Member> = members.iter().filter(|m| m.reveal == Reveal::Always).collect();
        let medians: Vec<Option<f64>> = (0..self.report.outputs.len())
            .map(|output| {
                let shown: Vec<Ratio> =
                    always.iter().filter_map(|m| m.scores.get(output)?.quality()).collect();
                median(&shown).map(float)
            })
            .collect();
        for member in &members {
            let reveals = match member.reveal {
                Reveal::Always => true,
                Reveal::Never => false,
                Reveal::IfWithin(within) => {
                    let distances: Vec<f64> = member
                        .scores
                        .iter()
                        .zip(&medians)
                        .filter_map(|(own, others)| Some((float(own.quality()?) - (*others)?).abs()))
                        .collect();
                    let mean = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
                    mean < within
                }
            };
            if reveals {
                let reveal = task::Reveal {
                    task: id,
                    node: id_of(member.node),
                    scores: member.scores.clone(),
                    report_hash: [0; 32],
                    salt: member.salt,
                };
                task.reveal(&reveal, self.now, &NETWORK, blake2_256).map_err(|_| self.bug())?;
            }
        }
        Ok(())
    }

    /// Whether this round's task is gold, and by whom: its own stream, so that the share of gold tasks changes nothing else.
    fn audit(&self) -> Audit {
        let gold = &self.setting.gold;
        if gold.share == 0.0 {
            return Audit::None;
        }
        let mut rng = self.streams.round(self.round, Purpose::Audit);
        match (rng.random::<f64>() < gold.share, rng.random::<f64>() < gold.abused) {
            (false, _) => Audit::None,
            (true, false) => Audit::Honest,
            (true, true) => Audit::Abusive,
        }
    }

    /// What the opened reference makes of every output.
    fn truth(&self, audit: Audit) -> Vec<Option<Ratio>> {
        let mut rng = self.streams.round(self.round, Purpose::Audit);
        // The two tosses of `audit`.
        let _: (f64, f64) = (rng.random(), rng.random());
        self.report
            .answers
            .iter()
            .map(|answer| {
                let answer = answer.as_ref()?;
                Some(match audit {
                    Audit::Abusive => Ratio::ZERO,
                    _ => quantise(answer.quality + self.setting.gold.noise * normal(&mut rng)),
                })
            })
            .collect()
    }

    /// Ends a task, and opens its reference if it is gold.
    fn close(&mut self, mut task: Task, id: TaskId, ending: Ending, gold: Audit) -> Result<Ended> {
        let params = &self.setting.params;
        let standing = |node| {
            let node = self.store.get(index_of(node));
            (node.trust, node.due)
        };
        let input = task.settlement_input(ending, standing, &self.population, self.now);
        let settlement = settle(params, &input).ok_or_else(|| self.bug())?;
        let consensus = settlement.ending == Ending::Consensus;
        let mut paid = 0;
        for (node, outcome) in task.outcomes(id, &input, &settlement) {
            paid += outcome.payout;
            let net = match task.outputs.iter().position(|slot| slot.node == node) {
                Some(slot) => settlement.outputs.get(slot).and_then(|s| s.quality.map(|_| s.net)),
                None => {
                    let seat = task.panel.iter().position(|seat| seat.node == node).filter(|_| consensus);
                    let scored = |seat: &usize| {
                        let conduct = &input.panel[*seat].conduct;
                        matches!(conduct, Conduct::Revealed(scores) if !has_no_input(scores))
                    };
                    seat.filter(scored).map(|seat| settlement.panel[seat].net)
                }
            };
            self.finish(index_of(node), outcome, net)?;
        }
        self.ledger.settle(&settlement, paid)?;
        self.population.absorb(params, &settlement, &task.seed, self.now);
        self.last = settlement.consensus.map(float).or(self.last);
        task.close(&settlement, self.now, 0);
        if gold != Audit::None && task.can_audit(self.now) {
            self.open_reference(&mut task, gold);
        }
        self.report.panel =
            task.panel.iter().map(|seat| (seat.node != 0).then(|| index_of(seat.node))).collect();
        let ended = match settlement.ending {
            Ending::Consensus => Ended::Settled,
            ending => Ended::Refunded(ending),
        };
        self.report.closed = Some((input, settlement));
        Ok(ended)
    }

    /// A gold task's reference is opened: the trust of its panel moves.
    fn open_reference(&mut self, task: &mut Task, gold: Audit) {
        let params = &self.setting.params;
        let epoch = epoch_of(self.now, self.setting.epoch_ms());
        let state = |node| {
            let record = self.store.get(index_of(node));
            TrustState { trust: record.trust, gain_average: record.gain_average }
        };
        let input = task.audit_input(self.truth(gold), state, &self.population);
        let audited = audit(params, &input);
        self.population.gain_average = audited.gain_average;
        task.audited = true;
        for (seat, next) in task.panel.iter().zip(&audited.panel).filter(|(seat, _)| seat.node != 0) {
            let node = self.store.get_mut(index_of(seat.node));
            node.trust = next.trust;
            node.gain_average = next.gain_average;
            let weight = node.settled_weight(params);
            node.standing.reweigh(epoch, weight);
        }
    }

    /// What owners do after a round: workers come back that missed duties had taken out, and ask for the class that their weight
    /// has grown into. Attackers that have lost their trust come back under a new name, with the stake that they have left;
    /// the unbonding period, which would keep them waiting, is not simulated: that favours them.
    fn come_back(&mut self) {
        let params = &self.setting.params;
        let epoch = epoch_of(self.now, self.setting.epoch_ms());
        let below =
            self.attack.and_then(Attack::registers_anew_below).map(|b| b * float(params.trust_initial));
        let panel = self.report.panel.iter().flatten().copied();
        let concerned: Vec<u32> = self.report.entries.iter().map(|entry| entry.node).chain(panel).collect();
        for id in concerned {
            let node = self.nodes[id as usize];
            if let Some(below) = below.filter(|_| node.malicious) {
                let record = self.store.get_mut(id);
                if float(record.trust) < below {
                    record.trust = newcomers_trust(node.role, params);
                    record.gain_average = 0;
                    record.due = 0;
                }
            }
            self.store.refresh(id, params, epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::Crowd;
    use crate::world::Spread;

    fn economy<'a>(world: &'a World, setting: &'a Setting, crowd: Crowd, seed: u64) -> Economy<'a> {
        let nodes = crowd.nodes(world).unwrap();
        Economy::new(world, setting, nodes, crowd.attack, 1_000, Streams::new(seed, 0)).unwrap()
    }

    #[test]
    fn who_never_reveals_loses_its_stake_at_risk_and_the_task_settles_without_it() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::NeverReveal, 0.3);
        let mut economy = economy(&world, &setting, crowd, 3);
        let mut seen = 0;
        for _ in 0..200 {
            let round = economy.round().unwrap().clone();
            if round.filled || round.ended != Some(Ended::Settled) {
                continue;
            }
            for entry in &round.entries {
                if economy.nodes()[entry.node as usize].malicious {
                    assert_eq!((entry.payout, entry.slashed), (0, economy.evaluator_at_risk()));
                    seen += 1;
                }
            }
        }
        assert!(seen > 100);
    }

    #[test]
    fn below_quorum_empty_seats_are_filled_once_and_then_who_delivered_gets_its_share() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::NoShow, 0.9);
        let mut economy = economy(&world, &setting, crowd, 4);
        let round = economy.round().unwrap().clone();
        assert!(round.filled);
        assert_eq!(round.ended, Some(Ended::Refunded(Ending::BelowQuorum)));
        let missed = setting.params.missed_penalty.of(economy.evaluator_at_risk());
        let share = setting.params.delivery_share.of(economy.fee_split().inference_slot);
        for entry in &round.entries {
            let node = &economy.nodes()[entry.node as usize];
            let expected = if node.role == Role::Inference {
                (share, 0)
            } else if node.malicious {
                (0, missed)
            } else {
                (0, 0)
            };
            assert_eq!((entry.payout, entry.slashed), expected);
        }
        // Nobody sat on the panel twice.
        let mut members: Vec<u32> = round.entries.iter().map(|e| e.node).collect();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), round.entries.len());
    }

    #[test]
    fn late_answers_are_refunded_and_penalised() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::SlowDelivery(500.0), 0.9);
        let mut economy = economy(&world, &setting, crowd, 5);
        let mut refunded = 0;
        for _ in 0..30 {
            let round = economy.round().unwrap().clone();
            if round.ended == Some(Ended::Refunded(Ending::Undelivered)) {
                refunded += 1;
                assert!(round.answers.iter().all(Option::is_none));
                let missed = setting.params.missed_penalty.of(economy.inference_at_risk());
                assert!(round.entries.iter().all(|e| e.slashed == missed));
            }
        }
        assert!(refunded > 15);
    }

    #[test]
    fn nobody_scores_with_an_owner_twice_or_for_its_own_answer() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting::default();
        let mut economy = economy(&world, &setting, Crowd::default(), 6);
        for _ in 0..300 {
            let round = economy.round().unwrap().clone();
            let nodes = economy.nodes();
            let mut owners: Vec<u32> = round
                .panel
                .iter()
                .flatten()
                .chain(&round.outputs)
                .map(|id| nodes[*id as usize].owner)
                .collect();
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), round.panel.iter().flatten().count() + round.outputs.len());
        }
    }

    /// A requester that makes its task fail pays for what was delivered and gets nothing for it but its own remainder.
    #[test]
    fn nobody_gains_from_a_failure_of_its_own_making() {
        let world = World::standard(Spread::Wide).unwrap();
        let run = |requester, outputs| {
            let setting = Setting { fault_rate: 0.0, requester, outputs, ..Setting::default() };
            let mut economy = economy(&world, &setting, Crowd::default(), 11);
            economy.round().unwrap().clone()
        };
        let refund = |round: &Round| round.closed.as_ref().unwrap().1.refund;
        let paid = |round: &Round| round.entries.iter().map(|entry| entry.payout).sum::<Balance>();
        let slashed = |round: &Round| round.entries.iter().map(|entry| entry.slashed).sum::<Balance>();
        let split = Setting::default().split().unwrap();

        let round = run(Requester::WithholdsSecret, 2);
        assert_eq!(round.ended, Some(Ended::Refunded(Ending::NoSecret)));
        assert_eq!((paid(&round), slashed(&round)), (2 * split.inference_slot, 0));
        assert!(refund(&round) < UNIT / 1_000, "{}", refund(&round));

        let round = run(Requester::WithholdsInput, 2);
        assert_eq!(round.ended, Some(Ended::Refunded(Ending::InputUnavailable)));
        let share = KindParams::default().delivery_share.of(split.inference_slot);
        assert!(paid(&round) >= 2 * share && slashed(&round) == 0);
        assert!(refund(&round) < UNIT / 1_000, "{}", refund(&round));

        // Nodes that were given nothing to work on lose next to nothing, and it is not free.
        let alone = Setting { outputs: 1, ..Setting::default() };
        let at_risk = alone.params.inference_at_risk(alone.split().unwrap().inference_slot);
        for (outputs, owed) in [(1, alone.params.decline_penalty.of(at_risk)), (2, 0)] {
            let round = run(Requester::WithholdsAll, outputs);
            assert_eq!(round.ended, Some(Ended::Refunded(Ending::Undelivered)));
            assert_eq!((paid(&round), slashed(&round)), (0, owed));
            assert!(10 * UNIT - refund(&round) > owed);
        }
    }

    #[test]
    fn who_hides_its_output_owes_the_most_and_whoever_opened_gets_its_share() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::WithholdOpening, 0.5);
        let mut economy = economy(&world, &setting, crowd, 12);
        let share = setting.params.delivery_share.of(economy.fee_split().inference_slot);
        let mut seen = 0;
        for _ in 0..40 {
            let round = economy.round().unwrap().clone();
            let bad = |id: &u32| economy.nodes()[*id as usize].malicious;
            let hidden = round.outputs.iter().any(bad);
            assert_eq!(hidden, round.ended == Some(Ended::Refunded(Ending::Unopened)));
            for entry in round.entries.iter().filter(|_| hidden) {
                let expected = match bad(&entry.node) {
                    true => (0, economy.inference_at_risk()),
                    false => (share, 0),
                };
                assert_eq!((entry.payout, entry.slashed), expected);
                seen += 1;
            }
        }
        assert!(seen > 10);
    }

    #[test]
    fn copied_outputs_are_the_same_and_paid_work_is_done_once() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::OutputCopying, 0.5);
        let mut economy = economy(&world, &setting, crowd, 7);
        let mut both = 0;
        for _ in 0..100 {
            let round = economy.round().unwrap().clone();
            let bad = |id: &u32| economy.nodes()[*id as usize].malicious;
            if round.outputs.iter().all(bad) {
                both += 1;
                assert_eq!(round.answers[0], round.answers[1]);
                let spent = |id: u32| round.entries.iter().find(|e| e.node == id).unwrap().expense;
                assert!(spent(round.outputs[0]) > 0.0);
                assert_eq!(spent(round.outputs[1]), 0.0);
            }
        }
        assert!(both > 5);
    }

    #[test]
    fn swapped_models_deliver_what_the_weakest_would() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::ModelSwap(0.25), 0.5);
        let mut economy = economy(&world, &setting, crowd, 8);
        let mut swapped = 0;
        for _ in 0..100 {
            let round = economy.round().unwrap().clone();
            for (id, answer) in round.outputs.iter().zip(&round.answers) {
                let node = economy.nodes()[*id as usize];
                let Some(answer) = answer else { continue };
                if node.malicious {
                    swapped += 1;
                    assert_eq!(answer.model, 4, "quick-poor is the weakest");
                } else {
                    assert_eq!(answer.model, node.model);
                }
            }
        }
        assert!(swapped > 50);
    }

    #[test]
    fn gold_tasks_are_as_many_as_said() {
        let world = World::standard(Spread::Wide).unwrap();
        let gold = Gold { share: 0.3, noise: 0.05, abused: 0.5 };
        let mut setting = Setting { gold, ..Setting::default() };
        setting.params.audit_ms = 60_000;
        let crowd = Crowd::default().attacked(Attack::Boosting(0.4), 0.3);
        let mut economy = economy(&world, &setting, crowd, 9);
        let (mut honest, mut abusive) = (0, 0);
        for _ in 0..1_000 {
            let round = economy.round().unwrap().clone();
            if round.ended != Some(Ended::Settled) {
                continue;
            }
            match round.audit {
                Some(Audit::Honest) => honest += 1,
                Some(Audit::Abusive) => abusive += 1,
                _ => {}
            }
        }
        assert!((100..200).contains(&honest) && (100..200).contains(&abusive));
    }

    #[test]
    fn whoever_registers_anew_has_the_trust_of_a_newcomer() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting::default();
        let crowd = Crowd::default().attacked(Attack::Whitewash(0.9), 0.3);
        let mut economy = economy(&world, &setting, crowd, 10);
        for _ in 0..500 {
            economy.round().unwrap();
        }
        let floor = 0.9 * float(setting.params.trust_initial);
        for (node, standing) in economy.nodes().iter().zip(economy.records()) {
            if node.malicious {
                assert!(float(standing.trust) >= floor);
            }
        }
    }
}
