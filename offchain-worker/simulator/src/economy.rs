//! The economy: tasks one after the other, from request to settlement or refund, on `poq-core`'s own arithmetic.
//!
//! What the contract does around a settlement (locking, deadlines, the second panel, penalties, the ring) is done here in
//! the same order. One task runs at a time: tasks in parallel would only matter through the limit of open tasks per node.

use crate::attack::{plan, Attack, Collusion, Reveal, View};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::population::{Node, Role};
use crate::registry::{Fit, Registry};
use crate::rng::{normal, Purpose, Rng, Streams};
use crate::world::{Answer, SharedErrors, Task, World};
use poq_core::aggregate::median;
use poq_core::draw::weight;
use poq_core::merit::RingEntry;
use poq_core::params::{FeeSplit, UNIT};
use poq_core::phase::{Clock, Phase, Step};
use poq_core::settlement::{unsettled_penalty, Conduct, EvaluatorInput, OutputInput, Population};
use poq_core::units::{Balance, Millis, ONE};
use poq_core::{settle, KindParams, MeritRule, Ratio, Score, Settlement, SettlementInput, Signed};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// How many consensus values a kind remembers: the contract's number.
pub const RING: usize = 16;

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
        }
    }
}

impl Setting {
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
    /// It was settled.
    Settled,
    /// The fee went back: nobody delivered, no panel could be drawn, or two panels stayed below quorum.
    Refunded,
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
    /// Whether a second panel was drawn.
    pub redrawn: bool,
    /// The inference nodes that were drawn.
    pub outputs: Vec<u32>,
    /// Their answers; `None` where one was not delivered in time.
    pub answers: Vec<Option<Answer>>,
    /// The panel that was drawn last.
    pub panel: Vec<u32>,
    /// When it was drawn.
    pub drawn_at: Millis,
    /// What everybody who had a duty got, members of a released panel too.
    pub entries: Vec<Entry>,
    /// What the auditor did.
    pub audit: Option<Audit>,
    /// What was settled.
    pub settled: Option<(SettlementInput, Settlement)>,
}

/// A node's standing.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its trust.
    pub trust: Ratio,
    /// Its moving average of information gains.
    pub gain_average: Signed,
}

/// A simulated network.
#[derive(Debug)]
pub struct Economy<'a> {
    world: &'a World,
    setting: &'a Setting,
    split: FeeSplit,
    nodes: Vec<Node>,
    attack: Option<Attack>,
    /// The model that a swapping node runs instead.
    weakest: usize,
    standings: Vec<Standing>,
    inference: Registry,
    evaluators: Registry,
    ledger: Ledger,
    population: Population,
    ring_next: usize,
    last: Option<f64>,
    now: Millis,
    streams: Streams,
    round: u64,
    report: Round,
    // Buffers, so that a round allocates little.
    collusion: Collusion,
    errors: SharedErrors,
    ring: Vec<f64>,
    seen: Vec<Option<f64>>,
    own: Vec<bool>,
    scores: Vec<Option<f64>>,
    released: Vec<u32>,
    members: Vec<Member>,
}

/// A member of the panel during its duty.
#[derive(Clone, Debug)]
struct Member {
    node: u32,
    committed_at: Millis,
    committed: bool,
    reveal: Reveal,
    revealed: bool,
    scores: Vec<Score>,
    expense: f64,
}

/// A quality as the chain has it: clipped to [0, 1], rounded down to a part per billion.
pub fn quantise(x: f64) -> Ratio {
    Ratio::from_ppb((x.clamp(0.0, 1.0) * f64::from(ONE)) as u32)
}

/// A ratio as a float.
pub fn float(ratio: Ratio) -> f64 {
    f64::from(ratio.ppb()) / f64::from(ONE)
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
        let reference = match params.merit {
            MeritRule::Information { floor, .. } => floor,
            MeritRule::Closeness => Ratio::ZERO,
        };
        let weakest = (0..world.models().len())
            .min_by(|a, b| world.model_quality(*a).total_cmp(&world.model_quality(*b)))
            .unwrap_or(0);
        let ledger = Ledger::new(
            nodes.iter().map(|node| node.stake),
            setting.fee.saturating_mul(Balance::from(rounds)),
        );
        let standings = nodes
            .iter()
            .map(|node| Standing {
                trust: if node.role == Role::Inference { Ratio::ONE } else { params.trust_initial },
                gain_average: 0,
            })
            .collect();
        let count = nodes.len();
        let mut economy = Economy {
            world,
            setting,
            split,
            nodes,
            attack,
            weakest,
            standings,
            inference: Registry::new(count),
            evaluators: Registry::new(count),
            ledger,
            population: Population { ring: vec![RingEntry::default(); RING], reference, gain_average: 0 },
            ring_next: 0,
            last: None,
            now: setting.block_ms,
            streams,
            round: 0,
            report: Round::default(),
            collusion: Collusion::default(),
            errors: SharedErrors::default(),
            ring: Vec::new(),
            seen: Vec::new(),
            own: Vec::new(),
            scores: Vec::new(),
            released: Vec::new(),
            members: Vec::new(),
        };
        for node in 0..count {
            economy.relocate(node as u32);
        }
        Ok(economy)
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The kind's parameters.
    pub fn params(&self) -> &KindParams {
        &self.setting.params
    }

    /// What happened in the round that ended last.
    pub fn last_round(&self) -> &Round {
        &self.report
    }

    /// The nodes' standings.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// The accounts.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the kind remembers.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// How the fee is split.
    pub fn fee_split(&self) -> FeeSplit {
        self.split
    }

    /// Runs one task from its request to its end.
    ///
    /// # Errors
    /// Only bugs: money that is made or lost, accounts below zero, a settlement that is refused.
    pub fn round(&mut self) -> Result<&Round> {
        self.report.ended = None;
        self.report.redrawn = false;
        self.report.settled = None;
        self.report.entries.clear();
        self.report.panel.clear();
        let ended = self.task()?;
        self.report.ended = Some(ended);
        self.register_anew();
        self.ledger.end_round()?;
        self.round += 1;
        // The next request comes some blocks later.
        self.now += 5 * self.setting.block_ms;
        Ok(&self.report)
    }

    /// The first block at or after `time`.
    fn block(&self, time: Millis) -> Millis {
        time.div_ceil(self.setting.block_ms) * self.setting.block_ms
    }

    fn number(&self, time: Millis) -> u32 {
        u32::try_from(time / self.setting.block_ms).unwrap_or(u32::MAX)
    }

    fn task(&mut self) -> Result<Ended> {
        let setting = self.setting;
        let params = &setting.params;
        let outputs = usize::from(setting.outputs);
        let mut world_rng = self.streams.round(self.round, Purpose::World);
        let mut draw_rng = self.streams.round(self.round, Purpose::Draw);
        let mut perception = self.streams.round(self.round, Purpose::Perception);
        let mut attack_rng = self.streams.round(self.round, Purpose::Attack);
        let audit = self.audit();
        self.report.audit = Some(audit);

        // Request: escrow the fee, draw inference nodes, lock their stake.
        let task = self.world.task(&mut world_rng);
        if !self.draw_inference(&mut draw_rng) {
            return Ok(Ended::Refused);
        }
        self.ledger.escrow_fee(setting.fee)?;
        for node in &self.report.outputs {
            self.ledger.lock(*node as usize, params.inference_at_risk)?;
        }
        let requested_at = self.now;
        let deadline = requested_at + params.inference_ms;
        if let Some(attack) = self.attack {
            self.collusion.prepare(attack, self.world, outputs, &mut attack_rng);
        }

        // Answers.
        let delivered = self.answer(&task, requested_at, deadline, &mut world_rng, &mut perception);
        let all = delivered.iter().all(|d| d.committed_at > 0);
        let fixed_at = match all {
            true => delivered.iter().map(|d| d.committed_at).max().unwrap_or(requested_at),
            false => self.block(deadline + 1),
        };
        self.now = fixed_at + if all { setting.block_ms } else { 0 };
        let mut clock = Clock {
            phase: if all { Phase::Drawing } else { Phase::Inferring },
            deadline: if all { fixed_at + params.draw_ms } else { deadline },
            draw_ms: params.draw_ms,
            reveal_ms: params.reveal_ms,
            audit_ms: params.audit_ms,
            outputs: setting.outputs,
            delivered: delivered.iter().filter(|d| d.committed_at > 0).count() as u8,
            panel: setting.panel,
            committed: 0,
            revealed: 0,
            mismatched: 0,
            quorum: params.quorum_of(setting.panel),
            redrawn: false,
            fixed_at_block: self.number(delivered.iter().map(|d| d.committed_at).max().unwrap_or(0)),
        };

        self.released.clear();
        loop {
            match clock.step(self.now, self.number(self.now)) {
                Step::Draw => {
                    let (_, until) = clock.at(self.now);
                    if self.draw_panel(&mut draw_rng) {
                        self.panel(&task, &mut clock, &mut perception, &mut attack_rng)?;
                    } else {
                        // Nobody new can come while nothing else happens: wait for the deadline.
                        self.now = self.block(until + 1);
                    }
                }
                // An auditor does not wait for the end of the time that it has.
                _ if audit != Audit::None && clock.can_audit(self.now, self.number(self.now)) => {
                    let truth = self.truth(audit);
                    self.settle(&delivered, Some(truth))?;
                    return Ok(Ended::Settled);
                }
                Step::Settle => {
                    self.settle(&delivered, None)?;
                    return Ok(Ended::Settled);
                }
                // The time that an auditor would have.
                Step::Wait { until } if until >= self.now => self.now = self.block(until + 1),
                Step::Redraw => {
                    self.release_panel(&clock)?;
                    clock.phase = Phase::Drawing;
                    clock.deadline = self.now + params.draw_ms;
                    clock.fixed_at_block = self.number(self.now);
                    clock.redrawn = true;
                    self.report.redrawn = true;
                    self.now += setting.block_ms;
                }
                step @ (Step::RefundUndelivered | Step::RefundUndrawn | Step::RefundBelowQuorum) => {
                    if step == Step::RefundBelowQuorum {
                        self.release_panel(&clock)?;
                    }
                    self.refund(&delivered)?;
                    return Ok(Ended::Refunded);
                }
                // Nothing that has been done can be due again.
                Step::Wait { .. } | Step::WaitForBlock | Step::Done => {
                    return Err(Error::Unsettled { round: self.round })
                }
            }
        }
    }

    fn draw_inference(&mut self, rng: &mut Rng) -> bool {
        let (nodes, ledger, split) = (&self.nodes, &self.ledger, &self.split);
        let at_risk = self.setting.params.inference_at_risk;
        self.inference.draw(usize::from(self.setting.outputs), rng, &mut self.report.outputs, |id, chosen| {
            let node = &nodes[id as usize];
            let fits = ledger.purse(id as usize).free >= at_risk
                && node.price <= split.inference_slot
                && chosen.iter().all(|other| nodes[*other as usize].owner != node.owner);
            if fits {
                Fit::Yes
            } else {
                Fit::No
            }
        })
    }

    fn draw_panel(&mut self, rng: &mut Rng) -> bool {
        let (nodes, ledger, released, outputs) =
            (&self.nodes, &self.ledger, &self.released, &self.report.outputs);
        let at_risk = self.setting.params.evaluator_at_risk;
        let per_model = usize::from((self.setting.panel / 2).max(1));
        self.evaluators.draw(usize::from(self.setting.panel), rng, &mut self.report.panel, |id, chosen| {
            let node = &nodes[id as usize];
            let others = || chosen.iter().map(|other| &nodes[*other as usize]);
            if ledger.purse(id as usize).free < at_risk
                || released.contains(&id)
                || outputs.iter().any(|output| nodes[*output as usize].owner == node.owner)
                || others().any(|other| other.owner == node.owner)
            {
                Fit::No
            } else if others().filter(|other| other.model == node.model).count() < per_model {
                Fit::Yes
            } else {
                Fit::Spare
            }
        })
    }

    /// Lets the drawn inference nodes answer.
    fn answer(
        &mut self,
        task: &Task,
        requested_at: Millis,
        deadline: Millis,
        world_rng: &mut Rng,
        perception: &mut Rng,
    ) -> Vec<Delivery> {
        let mut first_copy: Option<Answer> = None;
        self.report.answers.clear();
        let mut deliveries = Vec::with_capacity(self.report.outputs.len());
        for id in &self.report.outputs {
            let node = &self.nodes[*id as usize];
            let attack = self.attack.filter(|_| node.malicious);
            let mut expense = self.world.model_effort(node.model);
            // Always drawn, so that the same tasks and answers come whatever the attack is.
            let honest = self.world.answer(task, node.model, world_rng);
            let mut answer = honest;
            match attack {
                Some(Attack::SlowDelivery(seconds)) => {
                    answer.latency_ms = answer.latency_ms.max(seconds * 1_000.0);
                }
                Some(Attack::OutputCopying) => match first_copy {
                    Some(copy) => {
                        answer = copy;
                        expense = 0.0;
                    }
                    None => first_copy = Some(answer),
                },
                Some(Attack::ModelSwap(share)) => {
                    answer = self.world.answer(task, self.weakest, perception);
                    expense *= share;
                }
                _ => {}
            }
            let missed = attack.is_none() && perception.random::<f64>() < self.setting.fault_rate;
            let latency = answer.latency_ms.clamp(0.0, 1e12) as Millis;
            let committed_at = self.block(requested_at + latency.max(1));
            let in_time = !missed && committed_at <= deadline;
            deliveries.push(Delivery {
                committed_at: if in_time { committed_at } else { 0 },
                latency: committed_at - requested_at,
                expense: expense * self.split.inference_slot as f64,
            });
            self.report.answers.push(in_time.then_some(answer));
        }
        deliveries
    }

    /// The panel's duties, from its draw to the last reveal.
    fn panel(
        &mut self,
        task: &Task,
        clock: &mut Clock,
        perception: &mut Rng,
        attack_rng: &mut Rng,
    ) -> Result<()> {
        let setting = self.setting;
        let params = &setting.params;
        let drawn_at = self.now;
        let deadline = drawn_at + params.commit_ms;
        for node in &self.report.panel {
            self.ledger.lock(*node as usize, params.evaluator_at_risk)?;
        }
        self.world.shared_errors(self.report.outputs.len(), perception, &mut self.errors);
        self.ring.clear();
        self.ring.extend(
            self.population
                .ring
                .iter()
                .filter(|entry| entry.settled_at > 0)
                .map(|entry| float(entry.quality)),
        );
        self.own.clear();
        self.own.extend(self.report.outputs.iter().map(|id| self.nodes[*id as usize].malicious));
        let colluders = self.report.panel.iter().filter(|id| self.nodes[**id as usize].malicious).count();
        self.collusion.majority = colluders * 2 > self.report.panel.len();
        self.collusion.seen.clear();

        let panel = std::mem::take(&mut self.report.panel);
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        for id in &panel {
            members.push(self.duty(*id, task, drawn_at, deadline, perception, attack_rng));
        }
        self.report.panel = panel;

        // Commitments, as the contract counts them.
        clock.committed = members.iter().filter(|m| m.committed).count() as u8;
        clock.phase = Phase::Scoring;
        clock.deadline = deadline;
        clock.revealed = 0;
        let reveal_from = if clock.committed == clock.panel {
            let last = members.iter().map(|m| m.committed_at).max().unwrap_or(drawn_at);
            clock.phase = Phase::Revealing;
            clock.deadline = last + params.reveal_ms;
            last
        } else {
            self.block(deadline + 1)
        };
        self.now = reveal_from;
        let (phase, reveal_until) = clock.at(self.now);
        if phase == Phase::Revealing {
            self.reveal(&mut members);
            clock.revealed = members.iter().filter(|m| m.revealed).count() as u8;
            clock.phase = phase;
            clock.deadline = reveal_until;
            if clock.revealed == clock.committed {
                (clock.phase, clock.deadline) = clock.after_reveal(self.now);
            }
            self.now = if clock.revealed == clock.committed {
                reveal_from + setting.block_ms
            } else {
                self.block(reveal_until + 1)
            };
        }
        self.members = members;
        self.report.drawn_at = drawn_at;
        Ok(())
    }

    /// One evaluator's scores.
    fn duty(
        &mut self,
        id: u32,
        task: &Task,
        drawn_at: Millis,
        deadline: Millis,
        perception: &mut Rng,
        attack_rng: &mut Rng,
    ) -> Member {
        let node = self.nodes[id as usize];
        let attack = self.attack.filter(|_| node.malicious);
        self.seen.clear();
        let mut scoring_ms = 0.0;
        for (output, answer) in self.report.answers.iter().enumerate() {
            self.seen.push(answer.as_ref().and_then(|answer| {
                scoring_ms += self.world.scoring_ms(task, answer, node.model, perception);
                self.world.perceive(task, output, answer, node.model, &self.errors, perception)
            }));
        }
        let mut member = Member {
            node: id,
            committed_at: 0,
            committed: true,
            reveal: Reveal::Always,
            revealed: false,
            scores: Vec::with_capacity(self.seen.len()),
            expense: self.world.evaluator_effort(node.model) * self.split.evaluator_slot as f64,
        };
        let mut latency = scoring_ms.clamp(1.0, 1e12) as Millis;
        let of = |scores: &[Option<f64>]| -> Vec<Score> {
            scores.iter().map(|score| Score::from(score.map(quantise))).collect()
        };
        match attack {
            None => {
                member.scores = of(&self.seen);
                member.committed = perception.random::<f64>() >= self.setting.fault_rate;
            }
            // They know that nothing will match.
            Some(attack) if self.report.audit == Some(Audit::Abusive) && attack.evaluators() => {
                member.scores = of(&vec![Some(0.0); self.seen.len()]);
                member.expense = 0.0;
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
                member.scores = of(&self.scores);
                member.committed = plan.commits;
                member.reveal = plan.reveal;
                latency = latency.max(plan.at_least_ms);
                if !plan.looked {
                    member.expense = 0.0;
                }
            }
        }
        let committed_at = self.block(drawn_at + latency);
        member.committed &= committed_at <= deadline;
        if member.committed {
            member.committed_at = committed_at;
        }
        member
    }

    /// Reveals: first those who always do, then those who look at them before they decide.
    fn reveal(&self, members: &mut [Member]) {
        for member in members.iter_mut().filter(|m| m.committed) {
            member.revealed = member.reveal == Reveal::Always;
        }
        let medians: Vec<Option<f64>> = (0..self.report.outputs.len())
            .map(|output| {
                let shown: Vec<Ratio> = members
                    .iter()
                    .filter(|m| m.revealed)
                    .filter_map(|m| m.scores.get(output)?.quality())
                    .collect();
                median(&shown).map(float)
            })
            .collect();
        for member in members.iter_mut().filter(|m| m.committed) {
            let Reveal::IfWithin(within) = member.reveal else { continue };
            let distances: Vec<f64> = member
                .scores
                .iter()
                .zip(&medians)
                .filter_map(|(own, others)| Some((float(own.quality()?) - (*others)?).abs()))
                .collect();
            let mean = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
            member.revealed = mean < within;
        }
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

    fn settle(&mut self, delivered: &[Delivery], truth: Option<Vec<Option<Ratio>>>) -> Result<()> {
        let params = &self.setting.params;
        let input = SettlementInput {
            fee: self.setting.fee,
            drawn_at: self.report.drawn_at,
            outputs: delivered
                .iter()
                .zip(&self.report.outputs)
                .map(|(delivery, node)| OutputInput {
                    latency_ms: (delivery.committed_at > 0).then_some(delivery.latency),
                    price: self.nodes[*node as usize].price,
                })
                .collect(),
            panel: self
                .members
                .iter_mut()
                .map(|member| EvaluatorInput {
                    committed_at: member.committed_at,
                    trust: self.standings[member.node as usize].trust,
                    gain_average: self.standings[member.node as usize].gain_average,
                    conduct: conduct(member),
                })
                .collect(),
            population: std::mem::take(&mut self.population),
            truth,
        };
        let settlement = settle(params, &input).ok_or(Error::Unsettled { round: self.round })?;
        self.apply(delivered, &input, &settlement)?;
        self.report.settled = Some((input, settlement));
        Ok(())
    }

    /// Does with a settlement what the contract does with it.
    fn apply(
        &mut self,
        delivered: &[Delivery],
        input: &SettlementInput,
        settlement: &Settlement,
    ) -> Result<()> {
        let params = &self.setting.params;
        for ((node, delivery), settled) in self.report.outputs.iter().zip(delivered).zip(&settlement.outputs)
        {
            self.ledger.release(*node as usize, params.inference_at_risk, settled.slashed)?;
            self.ledger.reward(*node as usize, settled.payout)?;
            self.report.entries.push(Entry {
                node: *node,
                payout: settled.payout,
                slashed: settled.slashed,
                expense: delivery.expense,
                net: settled.quality.map(|_| settled.net),
            });
        }
        for ((member, settled), given) in self.members.iter().zip(&settlement.panel).zip(&input.panel) {
            let node = member.node as usize;
            self.ledger.release(node, params.evaluator_at_risk, settled.slashed)?;
            self.ledger.reward(node, settled.payout)?;
            self.standings[node] = Standing { trust: settled.trust, gain_average: settled.gain_average };
            self.report.entries.push(Entry {
                node: member.node,
                payout: settled.payout,
                slashed: settled.slashed,
                expense: member.expense,
                net: matches!(given.conduct, Conduct::Revealed(_)).then_some(settled.net),
            });
        }
        self.ledger.levy(settlement.protocol_fee)?;
        self.ledger.levy(settlement.forfeited)?;
        self.ledger.refund(settlement.refund)?;

        let mut ring = input.population.ring.clone();
        if let Some(quality) = settlement.consensus {
            ring[self.ring_next] = RingEntry { settled_at: self.now, quality };
            self.ring_next = (self.ring_next + 1) % RING;
            self.last = Some(float(quality));
        }
        self.population =
            Population { ring, reference: settlement.reference, gain_average: settlement.gain_average };
        for index in 0..self.report.entries.len() {
            self.relocate(self.report.entries[index].node);
        }
        Ok(())
    }

    /// Releases a panel below its quorum: those who did their duty lose nothing.
    fn release_panel(&mut self, clock: &Clock) -> Result<()> {
        let params = &self.setting.params;
        let revealing = clock.phase == Phase::Revealing;
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let slashed = match (&conduct_of(member), revealing) {
                // Nobody could reveal: the quorum of commitments was never there.
                (Conduct::Unrevealed, false) => 0,
                (conduct, _) => unsettled_penalty(params, conduct),
            };
            let (node, expense) = (member.node, member.expense);
            self.ledger.release(node as usize, params.evaluator_at_risk, slashed)?;
            self.report.entries.push(Entry { node, payout: 0, slashed, expense, net: None });
            self.released.push(node);
            self.relocate(node);
        }
        Ok(())
    }

    /// Returns the fee; inference nodes that delivered lose nothing.
    fn refund(&mut self, delivered: &[Delivery]) -> Result<()> {
        let params = &self.setting.params;
        for (index, delivery) in delivered.iter().enumerate() {
            let node = self.report.outputs[index];
            let missed = params.missed_penalty.of(params.inference_at_risk);
            let slashed = if delivery.committed_at > 0 { 0 } else { missed };
            self.ledger.release(node as usize, params.inference_at_risk, slashed)?;
            self.report.entries.push(Entry {
                node,
                payout: 0,
                slashed,
                expense: delivery.expense,
                net: None,
            });
            self.relocate(node);
        }
        self.ledger.refund(self.setting.fee)
    }

    /// Puts a node where its stake and trust belong.
    fn relocate(&mut self, id: u32) {
        let params = &self.setting.params;
        let bonded = self.ledger.purse(id as usize).bonded();
        let heavy = if bonded >= params.stake_min {
            weight(bonded, params.stake_cap, self.standings[id as usize].trust)
        } else {
            Ratio::ZERO
        };
        match self.nodes[id as usize].role {
            Role::Inference => self.inference.place(id, heavy),
            Role::Evaluator => self.evaluators.place(id, heavy),
        }
    }

    /// Attackers that have lost their trust come back under a new name, with the stake that they have left. The unbonding
    /// period, which would keep them waiting, is not simulated: that favours them.
    fn register_anew(&mut self) {
        let Some(below) = self.attack.and_then(Attack::registers_anew_below) else { return };
        let below = below * float(self.setting.params.trust_initial);
        for index in 0..self.report.entries.len() {
            let id = self.report.entries[index].node;
            let node = self.nodes[id as usize];
            if node.malicious && float(self.standings[id as usize].trust) < below {
                self.standings[id as usize] =
                    Standing { trust: self.setting.params.trust_initial, gain_average: 0 };
                self.relocate(id);
            }
        }
    }
}

/// What an inference node delivered.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    /// 0 where it did not in time.
    committed_at: Millis,
    latency: Millis,
    expense: f64,
}

fn conduct_of(member: &Member) -> Conduct {
    if !member.committed {
        Conduct::Missed
    } else if !member.revealed {
        Conduct::Unrevealed
    } else {
        Conduct::Revealed(member.scores.clone())
    }
}

fn conduct(member: &mut Member) -> Conduct {
    if member.committed && member.revealed {
        Conduct::Revealed(std::mem::take(&mut member.scores))
    } else {
        conduct_of(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::Crowd;
    use crate::world::Spread;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        params: KindParams,
        input: SettlementInput,
        expected: Option<Settlement>,
    }

    /// poq-core's golden settlements, booked as a simulated round books them: the same numbers, and every account moves by
    /// what they say.
    #[test]
    fn a_simulated_settlement_is_the_golden_one() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/poq-core/tests/vectors/settlement.json");
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() >= 31);
        let world = World::standard(Spread::Wide).unwrap();
        for case in cases {
            let Some(expected) = case.expected else { continue };
            let (n, k) = (case.input.outputs.len(), case.input.panel.len());
            let stake = case.params.stake_cap;
            let node = |role, price, owner| Node { role, model: 0, owner, price, stake, malicious: false };
            let mut nodes: Vec<Node> =
                (0..n).map(|i| node(Role::Inference, case.input.outputs[i].price, i as u32)).collect();
            nodes.extend((0..k).map(|i| node(Role::Evaluator, 0, (n + i) as u32)));
            let setting = Setting {
                params: case.params.clone(),
                outputs: n as u8,
                panel: k as u8,
                fee: case.input.fee,
                ..Setting::default()
            };
            // Some cases have panels that a request would refuse: what is tested is the booking.
            let wide = Setting {
                params: KindParams { panel_min: 2, panel_max: 15, outputs_max: 4, ..case.params.clone() },
                ..setting.clone()
            };
            let mut economy = Economy::new(&world, &wide, nodes, None, 1, Streams::new(1, 0)).unwrap();
            economy.ledger.escrow_fee(case.input.fee).unwrap();
            economy.report.outputs = (0..n as u32).collect();
            economy.report.drawn_at = case.input.drawn_at;
            economy.population = case.input.population.clone();
            economy.population.ring.resize(RING, RingEntry::default());
            economy.members.clear();
            for (index, evaluator) in case.input.panel.iter().enumerate() {
                let node = n + index;
                economy.standings[node] =
                    Standing { trust: evaluator.trust, gain_average: evaluator.gain_average };
                let scores = match &evaluator.conduct {
                    Conduct::Revealed(scores) => scores.clone(),
                    _ => Vec::new(),
                };
                economy.members.push(Member {
                    node: node as u32,
                    committed_at: evaluator.committed_at,
                    committed: evaluator.conduct != Conduct::Missed,
                    reveal: Reveal::Always,
                    revealed: matches!(evaluator.conduct, Conduct::Revealed(_)),
                    scores,
                    expense: 0.0,
                });
            }
            for index in 0..n + k {
                let at_risk = match index < n {
                    true => case.params.inference_at_risk,
                    false => case.params.evaluator_at_risk,
                };
                economy.ledger.lock(index, at_risk).unwrap();
            }
            let delivered: Vec<Delivery> = case
                .input
                .outputs
                .iter()
                .map(|output| Delivery {
                    committed_at: output.latency_ms.map_or(0, |_| 1),
                    latency: output.latency_ms.unwrap_or(0),
                    expense: 0.0,
                })
                .collect();

            economy.settle(&delivered, case.input.truth.clone()).unwrap();
            let (_, settlement) = economy.report.settled.clone().unwrap();
            assert_eq!(settlement, expected, "{}", case.name);
            economy.ledger.end_round().unwrap();
            let outcomes = expected
                .outputs
                .iter()
                .map(|o| (o.payout, o.slashed))
                .chain(expected.panel.iter().map(|e| (e.payout, e.slashed)));
            for (index, (payout, slashed)) in outcomes.enumerate() {
                let purse = economy.ledger.purse(index);
                assert_eq!(purse.claimable, payout, "{}", case.name);
                assert_eq!((purse.free, purse.locked), (stake - slashed, 0), "{}", case.name);
            }
            let treasury = expected.protocol_fee + expected.slashed + expected.forfeited;
            assert_eq!(economy.ledger.treasury(), treasury, "{}", case.name);
            assert_eq!(economy.ledger.requester(), expected.refund, "{}", case.name);
        }
    }

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
            if round.redrawn || round.ended != Some(Ended::Settled) {
                continue;
            }
            for entry in &round.entries {
                if economy.nodes()[entry.node as usize].malicious {
                    assert_eq!((entry.payout, entry.slashed), (0, setting.params.evaluator_at_risk));
                    seen += 1;
                }
            }
        }
        assert!(seen > 100);
    }

    #[test]
    fn below_quorum_a_second_panel_is_drawn_and_then_the_fee_goes_back() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting { fault_rate: 0.0, ..Setting::default() };
        let crowd = Crowd::default().attacked(Attack::NoShow, 0.9);
        let mut economy = economy(&world, &setting, crowd, 4);
        let round = economy.round().unwrap().clone();
        assert!(round.redrawn);
        assert_eq!(round.ended, Some(Ended::Refunded));
        let missed = setting.params.missed_penalty.of(setting.params.evaluator_at_risk);
        for entry in &round.entries {
            let node = &economy.nodes()[entry.node as usize];
            let expected = if node.malicious { missed } else { 0 };
            assert_eq!((entry.payout, entry.slashed), (0, expected));
        }
        // Nobody sat on both panels.
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
            if round.ended == Some(Ended::Refunded) {
                refunded += 1;
                assert!(round.answers.iter().all(Option::is_none));
                let missed = setting.params.missed_penalty.of(setting.params.inference_at_risk);
                assert!(round.entries.iter().all(|e| e.slashed == missed));
            }
        }
        assert!(refunded > 15);
    }

    #[test]
    fn nobody_scores_with_an_owner_twice_or_for_its_own_answer_and_no_model_dominates() {
        let world = World::standard(Spread::Wide).unwrap();
        let setting = Setting::default();
        let mut economy = economy(&world, &setting, Crowd::default(), 6);
        for _ in 0..300 {
            let round = economy.round().unwrap().clone();
            let nodes = economy.nodes();
            let mut owners: Vec<u32> =
                round.panel.iter().chain(&round.outputs).map(|id| nodes[*id as usize].owner).collect();
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), round.panel.len() + round.outputs.len());
            for model in 0..6 {
                let of = round.panel.iter().filter(|id| nodes[**id as usize].model == model).count();
                assert!(of <= usize::from(setting.panel / 2));
            }
        }
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
    fn gold_tasks_are_as_many_as_said_and_an_abusive_reference_matches_nothing() {
        let world = World::standard(Spread::Wide).unwrap();
        let gold = Gold { share: 0.3, noise: 0.05, abused: 0.5 };
        let mut setting = Setting { gold, ..Setting::default() };
        setting.params.audit_ms = 60_000;
        let crowd = Crowd::default().attacked(Attack::Boosting(0.4), 0.3);
        let mut economy = economy(&world, &setting, crowd, 9);
        let (mut honest, mut abusive) = (0, 0);
        for _ in 0..1_000 {
            let round = economy.round().unwrap().clone();
            let Some((input, settlement)) = &round.settled else { continue };
            match round.audit {
                Some(Audit::Honest) => {
                    honest += 1;
                    for (truth, answer) in input.truth.iter().flatten().zip(&round.answers) {
                        if let (Some(truth), Some(answer)) = (truth, answer) {
                            assert!((float(*truth) - answer.quality).abs() < 0.3);
                        }
                    }
                }
                Some(Audit::Abusive) => {
                    abusive += 1;
                    assert!(input.truth.iter().flatten().flatten().all(|t| *t == Ratio::ZERO));
                    assert!(settlement.forfeited > 0);
                }
                _ => assert!(input.truth.is_none() && settlement.forfeited == 0),
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
        for (node, standing) in economy.nodes().iter().zip(economy.standings()) {
            if node.malicious {
                assert!(float(standing.trust) >= floor);
            }
        }
    }
}
