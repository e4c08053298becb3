//! A life of a network: its set-up, its acts, and its end. After every call all that must hold is looked at; at the end everybody leaves
//! and is paid, so that nothing was only promised.

use super::act::{random, Act, Script, Verb};
use super::invariants::{self, untouched};
use super::ledger::{ashes, Accepted, Ledger};
use super::machine::{
    people, Call, Machine, Payload, Refused, AUDITORS, HEIRS, HOLDERS, KEEPERS, MANAGER, OPERATORS, OWNER,
    OWNERS, PAYEES, PEOPLE, POOL_OPERATOR,
};
use super::message::Message;
use super::people::{
    due_times, far_times, first_owner, opened_of, person_of, poor, secret_of, varied, Intent, Minds, Plan,
    View,
};
use super::state::{Diff, State};
use super::{ensure, raw, Failure};
use crate::pool::Act as PoolAct;
use crate::{blake2, EPOCH_MS};
use ink::primitives::AccountId;
use parity_scale_codec::Decode;
use poq_contract::errors::Error;
use poq_contract::types::{Change, Draw, KindParams, Node, PoolId, Registration, Role, Step, Task};
use poq_core::params::{MeritRule, TrustRule};
use poq_core::registry::{self, Registered, Registry};
use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, TaskId};
use poq_core::{Aggregation, Ending, Phase};
use poq_sandbox::UNIT;
use rand::Rng;
use std::collections::{BTreeMap, VecDeque};

/// A block takes so many acts at most.
const BLOCK: usize = 24;
/// So many calls are remembered for the report of a failure.
const REMEMBERED: usize = 12;
/// What a person has at least who can pay for whatever it does.
const RICH: Balance = 1_000 * UNIT;

/// How often a call was accepted and refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Accepted.
    pub accepted: u64,
    /// Refused.
    pub refused: u64,
    /// Why.
    pub reasons: BTreeMap<String, u64>,
    /// The most computing that an accepted one was charged.
    pub ref_time: u64,
}

/// What has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Networks that came to their end.
    pub runs: u64,
    /// Calls sent.
    pub calls: u64,
    /// By messages.
    pub messages: BTreeMap<&'static str, Count>,
    /// How tasks ended, and what else happened to them.
    pub tasks: BTreeMap<String, u64>,
}

impl Tally {
    fn note(&mut self, what: impl Into<String>) {
        *self.tasks.entry(what.into()).or_default() += 1;
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Tally) {
        self.runs += other.runs;
        self.calls += other.calls;
        for (name, count) in &other.messages {
            let sum = self.messages.entry(name).or_default();
            sum.accepted += count.accepted;
            sum.refused += count.refused;
            sum.ref_time = sum.ref_time.max(count.ref_time);
            for (reason, times) in &count.reasons {
                *sum.reasons.entry(reason.clone()).or_default() += times;
            }
        }
        for (what, times) in &other.tasks {
            *self.tasks.entry(what.clone()).or_default() += times;
        }
    }
}

/// A panel as it was to be drawn when it could first be, and who could take a seat then.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Foreseen {
    panel: Vec<NodeId>,
    fit: Vec<(NodeId, bool)>,
}

/// A network in its life.
pub struct Run<'a> {
    machine: &'a mut dyn Machine,
    state: State,
    ledger: Ledger,
    minds: Minds,
    /// What accounts have outside the contract; the pool's is the last one, where there is a pool.
    accounts: Vec<AccountId>,
    wealth: Vec<Balance>,
    foreseen: BTreeMap<TaskId, Foreseen>,
    in_block: usize,
    pool: Option<AccountId>,
    /// What happened so far.
    pub tally: Tally,
    /// The last calls, as text.
    pub log: VecDeque<String>,
    /// Whether all calls are remembered.
    pub verbose: bool,
}

/// How a run ended: what happened in it, its last calls, and what went wrong.
pub type Outcome = (Tally, VecDeque<String>, Result<(), Failure>);

/// Runs a script on a machine from the beginning to the end.
pub fn run(machine: &mut dyn Machine, script: &Script, verbose: bool) -> Outcome {
    let mut run = Run::new(machine, verbose);
    let outcome = run.live(script, 0);
    (run.tally, run.log, outcome)
}

/// The same, with so many calls of any bytes to every selector after its acts.
pub fn storm(machine: &mut dyn Machine, script: &Script, per_selector: u32) -> Outcome {
    let mut run = Run::new(machine, false);
    let outcome = run.live(script, per_selector);
    (run.tally, run.log, outcome)
}

impl<'a> Run<'a> {
    fn new(machine: &'a mut dyn Machine, verbose: bool) -> Run<'a> {
        Run {
            machine,
            state: State::default(),
            ledger: Ledger::default(),
            minds: Minds::default(),
            accounts: Vec::new(),
            wealth: Vec::new(),
            foreseen: BTreeMap::new(),
            in_block: 0,
            pool: None,
            tally: Tally::default(),
            log: VecDeque::new(),
            verbose,
        }
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} calls on {})", self.tally.calls, self.machine.name())
    }
}

impl Run<'_> {
    fn live(&mut self, script: &Script, raw: u32) -> Result<(), Failure> {
        self.set_up(script.seed).map_err(|error| at("in the set-up", error))?;
        for (number, act) in script.acts.iter().enumerate() {
            self.act(act).map_err(|error| at(&format!("act {number}, {act}"), error))?;
        }
        if raw > 0 {
            self.rain(script.seed, raw).map_err(|error| at("raw bytes", error))?;
        }
        self.finish().map_err(|error| at("when everybody leaves", error))?;
        self.tally.runs += 1;
        Ok(())
    }

    // --- set-up --------------------------------------------------------------------------------------------------

    fn set_up(&mut self, seed: u64) -> Result<(), Failure> {
        self.machine.reset()?;
        let cells = self.machine.cells()?;
        self.state.take(cells)?;
        self.accounts = people().to_vec();
        self.accounts.push(ashes());
        self.look()?;
        let owner = first_owner();
        let [first, second] = kinds(seed);
        for change in [
            Change::Kind(1, first.clone()),
            Change::Kind(2, second.clone()),
            Change::Appoint(people()[AUDITORS.start]),
            Change::Appoint(people()[AUDITORS.start + 1]),
        ] {
            self.right(owner, 0, Message::Propose(change))?;
        }
        if let Some(pool) = self.machine.found_pool()? {
            let cells = self.machine.cells()?;
            self.state.take(cells)?;
            self.ledger.adopt(&self.state.nodes);
            self.pool = Some(pool);
            self.accounts.push(pool);
            self.look()?;
        }
        for auditor in [AUDITORS.start, AUDITORS.start + 1] {
            self.right(auditor, 100 * UNIT, Message::Bond())?;
        }
        let mut random = random(seed ^ 0x5eed);
        // Kind 2 has few owners, so that panels come up short.
        let plan = [(1, Role::Inference, 0..5), (1, Role::Evaluator, 3..12), (2, Role::Inference, 0..3)];
        let mut nodes: Vec<(KindId, Role, usize)> = Vec::new();
        for (kind, role, owners) in plan {
            nodes.extend(owners.map(|owner| (kind, role, owner)));
        }
        nodes.extend([4, 4, 5, 5, 6].map(|owner| (2, Role::Evaluator, owner)));
        for (kind, role, owner) in nodes {
            let params = if kind == 1 { &first } else { &second };
            let owner = OWNERS.start + owner;
            let stake =
                params.stake_min + params.stake_min / 8 * Balance::from(random.random_range(0..16u32));
            let registration = Registration {
                role,
                kind,
                operator: people()[random.random_range(OPERATORS)],
                payee: people()[if random.random() { owner } else { random.random_range(PAYEES) }],
                model: "a model".into(),
                model_digest: [kind as u8; 32],
                endpoint: "http://127.0.0.1:9".into(),
                price: params.inference_slot_min / 10,
            };
            self.right(owner, stake, Message::Register(registration))?;
        }
        let next = (self.machine.now() / EPOCH_MS + 1) * EPOCH_MS;
        self.wait(next)
    }

    // --- acts ----------------------------------------------------------------------------------------------------

    fn view(&self) -> Result<View<'_>, Failure> {
        Ok(View {
            state: &self.state,
            now: self.machine.now(),
            network: self.state.root()?.network,
            instances: self.machine.instances(),
            spare: self.ledger.spare(),
        })
    }

    fn wait(&mut self, until: Millis) -> Result<(), Failure> {
        self.in_block = 0;
        if self.verbose {
            let now = self.machine.now();
            self.log.push_back(format!("  … {} ms", until.saturating_sub(now)));
        }
        self.machine.wait_until(until)
    }

    fn act(&mut self, act: &Act) -> Result<(), Failure> {
        let now = self.machine.now();
        let n = act.n;
        if self.in_block >= BLOCK {
            self.wait(now)?;
        }
        self.in_block += 1;
        match act.verb {
            Verb::Wait => {
                let most = [300, 300, 2_000, 2_000, 5_000, 9_000, 9_000, 40_000][n[0] as usize % 8];
                self.wait(now + u64::from(n[1]) % most)
            }
            Verb::Until | Verb::Leap => {
                let view = self.view()?;
                // What is due soonest, mostly.
                let (times, of) = match act.verb {
                    Verb::Until => (due_times(&view), 4),
                    _ => (far_times(&view), usize::MAX),
                };
                let Some(at) = times.get((n[0] as usize).checked_rem(times.len().min(of)).unwrap_or(0))
                else {
                    return Ok(());
                };
                let beside = (at + u64::from(n[1] % 3)).saturating_sub(1);
                self.wait(beside)
            }
            Verb::Gift => {
                let amount = Balance::from(n[0]) + 1;
                self.machine.give(amount)?;
                self.ledger.give(amount);
                self.solvent()
            }
            Verb::Starve => {
                let person = poor(n);
                let rich = self.wealth.get(person).is_some_and(|has| *has >= RICH);
                self.machine.starve(person, rich)?;
                self.look()
            }
            _ => {
                let mut minds = std::mem::take(&mut self.minds);
                let plan = self.view().map(|view| minds.plan(&view, act));
                self.minds = minds;
                match plan? {
                    Some(plan) => self.send(&plan),
                    None => Ok(()),
                }
            }
        }
    }

    /// Any bytes to every selector.
    fn rain(&mut self, seed: u64, per_selector: u32) -> Result<(), Failure> {
        let mut random = random(seed ^ 0xb17e5);
        for selector in raw::selectors()? {
            for number in 0..per_selector {
                if number % 16 == 0 {
                    let now = self.machine.now();
                    self.wait(now)?;
                }
                self.send(&raw::call(selector, &mut random))?;
            }
        }
        Ok(())
    }

    /// Sends what must be accepted.
    fn right(&mut self, from: usize, value: Balance, message: Message) -> Result<(), Failure> {
        let call = Call { from, value, payload: Payload::Message(message) };
        self.send(&Plan { call, intent: Intent::Right })
    }

    fn send(&mut self, plan: &Plan) -> Result<(), Failure> {
        let call = &plan.call;
        if !self.machine.can(&call.payload) {
            return Ok(());
        }
        self.foresee()?;
        let drawn = self.to_be_drawn(call)?;
        let sent = self.machine.send(call);
        let now = self.machine.now();
        let outcome = match &sent {
            Ok(sent) => match &sent.answer {
                Ok(_) => "accepted".to_owned(),
                Err(refused) => format!("refused, {}", refused.name()),
            },
            Err(error) => error.to_string(),
        };
        self.log.push_back(format!("{now} {}{}: {outcome}", who(call.from), text(call)));
        if !self.verbose && self.log.len() > REMEMBERED {
            self.log.pop_front();
        }
        let sent = sent?;
        self.tally.calls += 1;
        let count = self.tally.messages.entry(call.payload.name()).or_default();
        let diff = self.state.take(sent.written)?;
        let answer = match sent.answer {
            Err(refused) => {
                count.refused += 1;
                *count.reasons.entry(refused.name()).or_default() += 1;
                untouched(&diff)?;
                if sent.fee > 0 {
                    self.paid(call, sent.fee, Some(0), &[], 0)?;
                }
                return self.excused(plan, &refused);
            }
            Ok(answer) => answer,
        };
        count.accepted += 1;
        count.ref_time = count.ref_time.max(sent.ref_time);
        let read;
        let (message, answer) = match &call.payload {
            Payload::Message(message) => (Some(message), &answer[..]),
            Payload::Pool(_) => (None, &answer[..]),
            Payload::Raw(bytes) => match (Message::decode(bytes), &answer[..]) {
                (Some(message), [0, 0, answer @ ..]) => {
                    read = message;
                    (Some(&read), answer)
                }
                // A query, which costs its fee.
                (None, [0, ..]) => {
                    untouched(&diff)?;
                    return self.paid(call, sent.fee, sent.deposit, &[], call.value);
                }
                (_, other) => return Err(Failure::violation(format!("accepted with the answer {other:?}"))),
            },
        };
        let (accounts, wealth) = (&self.accounts, &self.wealth);
        let of = |account: &AccountId| {
            let at = accounts.iter().position(|other| other == account);
            at.and_then(|at| wealth.get(at)).copied().unwrap_or(0)
        };
        let accepted = Accepted {
            now,
            sender: people()[call.from],
            call,
            message,
            answer,
            diff: &diff,
            state: &self.state,
            wealth: &of,
            existential: self.machine.existential(),
            deposit: sent.deposit,
        };
        let payments = self.ledger.book(&accepted)?;
        invariants::check(&accepted)?;
        if let Some(message) = message {
            if plan.intent == Intent::Right {
                all_items(message, answer)?;
            }
            self.drawn(message, &diff, drawn)?;
        }
        self.count_tasks(&diff);
        self.paid(call, sent.fee, sent.deposit, &payments, call.value)?;
        self.solvent()
    }

    /// Whether a refusal of what should have been accepted has a reason that is nobody's fault.
    fn excused(&self, plan: &Plan, refused: &Refused) -> Result<(), Failure> {
        if plan.intent != Intent::Right {
            return Ok(());
        }
        let rich = |account: &AccountId, least: Balance| {
            let at = self.accounts.iter().position(|other| other == account);
            at.and_then(|at| self.wealth.get(at)).is_some_and(|has| *has >= least)
        };
        let excused = match (refused, &plan.call.payload) {
            (Refused::Framework(_), _) => !rich(&people()[plan.call.from], RICH),
            // The chain pays no account that is gone less than it can live on.
            (Refused::Contract(Error::TransferFailed), Payload::Message(Message::Claim(id))) => {
                let payee = self.state.nodes.get(id).map(|node| node.payee);
                payee.is_none_or(|payee| !rich(&payee, self.machine.existential()))
            }
            _ => false,
        };
        ensure(excused, || format!("what must be accepted is refused, {refused:?}: {}", text(&plan.call)))
    }

    // --- money outside -------------------------------------------------------------------------------------------

    /// Looks at what everybody has.
    fn look(&mut self) -> Result<(), Failure> {
        self.wealth = self.machine.wealth(&self.accounts)?;
        Ok(())
    }

    /// Everybody's money has moved as it must, and nobody else's.
    fn paid(
        &mut self,
        call: &Call,
        fee: Balance,
        deposit: Option<i128>,
        payments: &[(AccountId, Balance)],
        value: Balance,
    ) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.wealth);
        self.look()?;
        let is_pool = matches!(call.payload, Payload::Pool(_));
        let others = |account: &AccountId| {
            let person = person_of(account);
            Some(*account) == self.pool
                || person.is_some_and(|person| HOLDERS.contains(&person) || person == MANAGER)
        };
        for ((account, before), after) in self.accounts.iter().zip(&before).zip(&self.wealth) {
            if is_pool && others(account) {
                // What moves between a pool and its holders is the pool's own affair.
                continue;
            }
            let got: Balance =
                payments.iter().filter(|(to, _)| to == account).map(|(_, amount)| amount).sum();
            let mut must = i128::try_from(before + got).map_err(|_| Failure::broken("too much money"))?;
            if !is_pool && *account == people()[call.from] {
                let spent = i128::try_from(value + fee).map_err(|_| Failure::broken("too much money"))?;
                must -= spent + deposit.unwrap_or(0);
            }
            ensure(i128::try_from(*after).ok() == Some(must), || {
                let who = person_of(account).map_or_else(|| format!("{account:?}"), who);
                format!("{who}had {before}, must have {must} and has {after}")
            })?;
        }
        Ok(())
    }

    /// The contract has what it owes, and what was given to it.
    fn solvent(&mut self) -> Result<(), Failure> {
        let (has, must) = (self.machine.purse()?, self.ledger.purse());
        ensure(has == must, || {
            format!("the contract has {has} and must have {must}: {:?}", self.ledger.owed())
        })
    }

    // --- panels --------------------------------------------------------------------------------------------------

    /// Remembers, when a task's outputs are sealed, what its panel will be: nothing that anybody does from then on may change that, but for
    /// who can take a seat at all.
    fn foresee(&mut self) -> Result<(), Failure> {
        let now = self.machine.now();
        let tasks = &self.state.tasks;
        self.foreseen.retain(|id, _| tasks.get(id).is_some_and(|task| !task.phase.is_final()));
        let mut new = Vec::new();
        for (id, task) in tasks {
            let drawing = matches!(task.clock().step(now), Step::Draw { .. });
            if drawing && !self.foreseen.contains_key(id) {
                new.extend(self.foreseen_panel(*id, task)?.map(|panel| (*id, panel)));
            }
        }
        self.foreseen.extend(new);
        Ok(())
    }

    /// What a task's panel would be if it were drawn now by its requester; nothing where it cannot be.
    fn foreseen_panel(&self, id: TaskId, task: &Task) -> Result<Option<Foreseen>, Failure> {
        let root = self.state.root()?;
        let now = self.machine.now();
        let opened: Vec<_> = task
            .outputs
            .iter()
            .map(|slot| match slot.state {
                poq_contract::types::OutputState::Committed => Some(opened_of(id, slot.node)),
                _ => None,
            })
            .collect();
        let secret = secret_of(&task.reference_commitment);
        let mut task = task.clone();
        let draw = Draw { task: id, secret, openings: opened };
        if task.unseal(&draw, now, root.epoch_ms, &root.network, blake2).is_err() {
            return Ok(None);
        }
        let owner = |node: NodeId| self.state.nodes.get(&node).map(Registered::owner);
        let excluded: Vec<[u8; 32]> = std::iter::once(*task.requester.as_ref())
            .chain(task.outputs.iter().filter_map(|slot| owner(slot.node)))
            .collect();
        let pool = PoolId { kind: task.kind, role: Role::Evaluator };
        let epoch = registry::epoch_of(now, root.epoch_ms);
        // A pool that was empty then is drawn from as it is now.
        if self.state.counts(pool).at(task.sealed_epoch).is_none_or(registry::Counts::is_empty) {
            return Ok(None);
        }
        let risk = task.terms.evaluator_at_risk;
        let seats = u8::try_from(task.panel.len()).unwrap_or(u8::MAX);
        let draw = registry::Draw {
            pool,
            sealed: task.sealed_epoch,
            now: epoch,
            seed: task.seed,
            round: 0,
            seats,
            seated: &[],
            excluded: &excluded,
        };
        let fits = |node: &Node| node.can_take(risk);
        let drawn = registry::draw(&self.state, &draw, blake2, |_, node| fits(node))
            .map_err(|error| Failure::violation(format!("task {id} cannot be drawn: {error}")))?;
        let panel = if drawn.full { drawn.seats.iter().map(|(node, _)| *node).collect() } else { Vec::new() };
        let of_pool = |node: &&Node| PoolId { kind: node.kind, role: node.role } == pool;
        let fit =
            self.state.nodes.iter().filter(|(_, node)| of_pool(node)).map(|(id, node)| (*id, fits(node)));
        Ok(Some(Foreseen { panel, fit: fit.collect() }))
    }

    /// What a call will draw if it draws a single panel.
    fn to_be_drawn(&self, call: &Call) -> Result<Option<(TaskId, Foreseen)>, Failure> {
        let Payload::Message(Message::DrawPanels(draws)) = &call.payload else { return Ok(None) };
        let [draw] = &draws[..] else { return Ok(None) };
        let Some(task) = self.state.tasks.get(&draw.task) else { return Ok(None) };
        Ok(self.foreseen_panel(draw.task, task)?.map(|panel| (draw.task, panel)))
    }

    /// The panel that was drawn is the one that was to be since the outputs were sealed.
    fn drawn(&self, message: &Message, diff: &Diff, now: Option<(TaskId, Foreseen)>) -> Result<(), Failure> {
        let (Message::DrawPanels(_), Some((id, now))) = (message, now) else { return Ok(()) };
        let Some((_, _, Some(after))) = diff.tasks.iter().find(|(task, ..)| *task == id) else {
            return Ok(());
        };
        let seats: Vec<NodeId> = after.panel.iter().map(|seat| seat.node).filter(|node| *node != 0).collect();
        ensure(seats == now.panel, || format!("task {id} has the panel {seats:?}, not {:?}", now.panel))?;
        match self.foreseen.get(&id) {
            Some(then) if then.fit == now.fit => ensure(then.panel == now.panel, || {
                format!(
                    "task {id} has the panel {seats:?}; when it was sealed it was to have {:?}",
                    then.panel
                )
            }),
            _ => Ok(()),
        }
    }

    // --- counting ------------------------------------------------------------------------------------------------

    fn count_tasks(&mut self, diff: &Diff) {
        for (_, before, after) in &diff.tasks {
            let Some(after) = after else { continue };
            let Some(before) = before else {
                self.tally.note("requested");
                continue;
            };
            if !before.phase.is_final() && after.phase.is_final() {
                self.tally.note(match after.ending {
                    Ending::Consensus => "ended: consensus",
                    Ending::Undelivered => "ended: undelivered",
                    Ending::Unopened => "ended: unopened",
                    Ending::NoSecret => "ended: no_secret",
                    Ending::NoPanel => "ended: no_panel",
                    Ending::BelowQuorum => "ended: below_quorum",
                    Ending::InputUnavailable => "ended: input_unavailable",
                });
            }
            if !before.filled && after.filled {
                self.tally.note("seats filled");
            }
            if !before.short && after.short {
                self.tally.note("panel short");
            }
            if !before.audited && after.audited {
                self.tally.note("gold opened");
            }
            if before.seed != after.seed && after.phase != Phase::Drawing {
                self.tally.note("panel drawn");
            }
            if before.keepers < after.keepers {
                self.tally.note("keeper paid");
            }
        }
        for (_, before, after) in &diff.nodes {
            if let (Some(before), Some(after)) = (before, after) {
                if before.slashed < after.slashed {
                    self.tally.note("node slashed");
                }
                if before.status != after.status && after.misses >= 2 {
                    self.tally.note("node drained by two misses");
                }
            }
        }
    }

    // --- the end -------------------------------------------------------------------------------------------------

    /// Everything runs out, everybody takes what is theirs and leaves.
    fn finish(&mut self) -> Result<(), Failure> {
        for person in 0..PEOPLE {
            if self.wealth.get(person).is_some_and(|has| *has < RICH) {
                self.machine.starve(person, false)?;
            }
        }
        self.look()?;
        self.run_out()?;
        self.cancel_all()?;
        self.leave()?;
        self.audit_no_more()?;
        self.take_all()
    }

    fn owner(&self) -> Result<usize, Failure> {
        let owner = self.state.root()?.owner;
        person_of(&owner).ok_or_else(|| Failure::violation("nobody owns the contract"))
    }

    /// Every state has a deadline, past which anybody can move the task on.
    fn run_out(&mut self) -> Result<(), Failure> {
        for _ in 0..8 {
            let open: Vec<TaskId> = self
                .state
                .tasks
                .iter()
                .filter(|(_, task)| !task.phase.is_final())
                .map(|(id, _)| *id)
                .collect();
            if open.is_empty() {
                break;
            }
            let last = due_times(&self.view()?).last().copied().unwrap_or(0);
            self.wait(last + 1)?;
            let now = self.machine.now();
            let due = |id: &TaskId| {
                self.state.tasks.get(id).is_some_and(|task| {
                    !matches!(task.clock().step(now), Step::Wait { .. } | Step::Draw { .. })
                })
            };
            let due: Vec<TaskId> = open.into_iter().filter(due).collect();
            for ids in due.chunks(8) {
                self.right(KEEPERS.start, 0, Message::Advance(ids.to_vec()))?;
            }
        }
        let open = self.state.tasks.iter().find(|(_, task)| !task.phase.is_final());
        ensure(open.is_none(), || format!("a task never ends: {open:?}"))?;
        let mut of: BTreeMap<AccountId, Vec<TaskId>> = BTreeMap::new();
        for (id, task) in &self.state.tasks {
            of.entry(task.requester).or_default().push(*id);
        }
        for (requester, ids) in of {
            let person = person_of(&requester).ok_or_else(|| Failure::broken("a task of nobody"))?;
            for ids in ids.chunks(16) {
                self.right(person, 0, Message::Collect(ids.to_vec()))?;
            }
        }
        Ok(())
    }

    fn cancel_all(&mut self) -> Result<(), Failure> {
        let owner = self.owner()?;
        for lever in self.state.levers.clone() {
            self.right(owner, 0, Message::Cancel(lever))?;
        }
        Ok(())
    }

    /// Nodes whose owners are people.
    fn owned(&self) -> Vec<(NodeId, usize, Node)> {
        let of = |node: &Node| person_of(&node.owner);
        self.state.nodes.iter().filter_map(|(id, node)| Some((*id, of(node)?, node.clone()))).collect()
    }

    fn leave(&mut self) -> Result<(), Failure> {
        self.pool_act(PoolAct::Close)?;
        for (id, owner, node) in self.owned() {
            if node.claimable > 0 {
                self.right(owner, 0, Message::Claim(id))?;
            }
            if node.stake.bonded > 0 {
                self.right(owner, 0, Message::Unstake(id, node.stake.bonded))?;
            }
        }
        let tranches = self.state.nodes.values().flat_map(|node| node.stake.tranches);
        let last = tranches.filter(|tranche| tranche.amount > 0).map(|tranche| tranche.until).max();
        // Two epochs after a node has left the draws no draw can meet it.
        let gone = self.machine.now() + 3 * EPOCH_MS;
        self.wait(gone.max(last.unwrap_or(0)))?;
        for (id, owner, node) in self.owned() {
            if node.stake.total() > 0 {
                self.right(owner, 0, Message::WithdrawUnbonded(id))?;
            }
            self.right(owner, 0, Message::Deregister(id))?;
        }
        // A pool's last stake leaves at the end of an era, and unbonding may have become longer.
        for _ in 0..24 {
            if self.state.nodes.is_empty() {
                break;
            }
            let now = self.machine.now();
            self.wait(now + EPOCH_MS)?;
            self.pool_act(PoolAct::Advance)?;
        }
        ensure(self.state.nodes.is_empty(), || format!("who never leaves: {:?}", self.state.nodes))?;
        for holder in 0..HOLDERS.len() {
            self.pool_act(PoolAct::Exit(holder, 1_000))?;
            self.pool_act(PoolAct::Claim(holder))?;
        }
        self.pool_act(PoolAct::Collect)
    }

    fn pool_act(&mut self, act: PoolAct) -> Result<(), Failure> {
        let call = Call { from: POOL_OPERATOR, value: 0, payload: Payload::Pool(act) };
        self.send(&Plan { call, intent: Intent::Any })
    }

    fn audit_no_more(&mut self) -> Result<(), Failure> {
        // Who was dismissed and appointed anew gets its old bond, and resigns once more.
        for _ in 0..4 {
            let now = self.machine.now();
            let auditors = self.state.auditors.iter();
            let auditors: Vec<(usize, Millis)> =
                auditors.filter_map(|(id, auditor)| Some((person_of(id)?, auditor.unbonds_at))).collect();
            for (auditor, unbonds_at) in auditors {
                if unbonds_at <= now {
                    self.right(auditor, 0, Message::WithdrawBond())?;
                }
            }
            let last = self.state.auditors.values().map(|auditor| auditor.unbonds_at).max();
            self.wait(last.unwrap_or(0))?;
        }
        Ok(())
    }

    fn take_all(&mut self) -> Result<(), Failure> {
        let credits = self.state.accounts.iter().filter(|(_, account)| account.credit > 0);
        let credits: Vec<usize> = credits.filter_map(|(id, _)| person_of(id)).collect();
        for person in credits {
            self.right(person, 0, Message::Withdraw())?;
        }
        if self.state.books.liabilities.burned > 0 {
            self.right(KEEPERS.start, 0, Message::Burn())?;
        }
        let (treasury, gifts) = self.ledger.spare();
        if treasury + gifts > 0 {
            let owner = self.owner()?;
            self.right(owner, 0, Message::WithdrawTreasury(people()[HEIRS.start], treasury + gifts))?;
        }
        ensure(self.machine.purse()? == 0, || "everybody is paid, and something is left".into())?;
        let left = self.state.tasks.len() + self.state.nodes.len() + self.state.auditors.len();
        ensure(left == 0, || format!("{left} records are left"))?;
        self.ledger.closed()
    }
}

/// The items of a batch that must all be accepted.
fn all_items(message: &Message, answer: &[u8]) -> Result<(), Failure> {
    fn read<T: Decode>(mut answer: &[u8]) -> Result<T, Failure> {
        T::decode(&mut answer)
            .map_err(|error| Failure::violation(format!("the answer does not decode: {error}")))
    }
    // An item that found no memory left is sent again.
    let fault = |error: &Error| *error != Error::BatchSize;
    let wrong: Option<Error> = match message {
        Message::CommitOutputs(_)
        | Message::Decline(_)
        | Message::OpenOutputs(_)
        | Message::CommitScores(_)
        | Message::RevealScores(_) => read::<Vec<Option<Error>>>(answer)?.into_iter().flatten().find(fault),
        Message::DrawPanels(_) => {
            read::<Vec<Result<bool, Error>>>(answer)?.into_iter().filter_map(Result::err).find(fault)
        }
        Message::Advance(_) => {
            read::<Vec<Result<Step, Error>>>(answer)?.into_iter().filter_map(Result::err).find(fault)
        }
        _ => None,
    };
    ensure(wrong.is_none(), || format!("an item that must be accepted is refused: {wrong:?}"))
}

fn at(place: &str, error: Failure) -> Failure {
    Failure { text: format!("{place}: {}", error.text), ..error }
}

fn who(person: usize) -> String {
    let role = match person {
        OWNER => "owner",
        _ if HEIRS.contains(&person) => "heir",
        _ if AUDITORS.contains(&person) => "auditor",
        _ if super::machine::REQUESTERS.contains(&person) => "requester",
        _ if PAYEES.contains(&person) => "payee",
        _ if OWNERS.contains(&person) => "node owner",
        _ if OPERATORS.contains(&person) => "operator",
        _ if KEEPERS.contains(&person) => "keeper",
        _ if HOLDERS.contains(&person) => "holder",
        MANAGER | POOL_OPERATOR => "pool",
        _ => "outsider",
    };
    format!("{role} #{person} ")
}

/// A call as text.
fn text(call: &Call) -> String {
    let value = if call.value > 0 { format!(" with {}", call.value) } else { String::new() };
    match &call.payload {
        Payload::Message(message) => format!("{}{value}", short(&format!("{message:?}"))),
        Payload::Pool(act) => format!("pool: {act:?}"),
        Payload::Raw(bytes) => {
            let bytes: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("raw 0x{bytes}{value}")
        }
    }
}

/// The same text with every hash cut to its first four bytes.
fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(from) = rest.find('[') {
        let (before, list) = rest.split_at(from);
        out.push_str(before);
        let end = list.find(']').unwrap_or(list.len());
        let bytes: Vec<u8> =
            list.get(1..end).unwrap_or_default().split(", ").map_while(|word| word.parse().ok()).collect();
        if bytes.len() >= 16 {
            out.extend(
                std::iter::once("0x".to_owned())
                    .chain(bytes.iter().take(4).map(|byte| format!("{byte:02x}"))),
            );
            rest = list.get(end + 1..).unwrap_or_default();
        } else {
            out.push('[');
            rest = &list[1..];
        }
    }
    out + rest
}

/// The kinds of a network: the shipped parameters with some of them changed, and rules of every sort; a second one with small panels.
pub fn kinds(seed: u64) -> [KindParams; 2] {
    let mut random = random(seed ^ 0x0b5e55ed);
    [KindParams::default(), small()].map(|base| {
        let mut params = base;
        for _ in 0..random.random_range(0..6) {
            let next = ruled(&varied(&params, random.random()), random.random());
            if next.validate().is_ok() && next.fits_epoch(EPOCH_MS).is_ok() && next.life_ms() <= 1_080_000 {
                params = next;
            }
        }
        params
    })
}

/// Small panels of nodes with little stake.
fn small() -> KindParams {
    KindParams {
        panel_min: 2,
        panel_max: 5,
        outputs_max: 2,
        trust_initial: Ratio::ONE,
        ..KindParams::default()
    }
}

/// The same with other rules.
fn ruled(params: &KindParams, how: u32) -> KindParams {
    let part = |n: u32| Ratio::from_permille(n % 400);
    let mut new = params.clone();
    match how % 4 {
        0 => {
            new.aggregation = match how / 4 % 5 {
                0 => Aggregation::Mean,
                1 => Aggregation::Median,
                2 => Aggregation::TrimmedMean { trim: part(how >> 8) },
                3 => Aggregation::TrustWeightedMean,
                _ => Aggregation::TrustWeightedMedian,
            };
        }
        1 => {
            new.merit = match how / 4 % 2 {
                0 => MeritRule::Closeness,
                _ => MeritRule::Information { step: part(how >> 8), floor: Ratio::from_permille(10) },
            };
        }
        2 => {
            new.trust = match how / 4 % 4 {
                0 => TrustRule::Multiplicative { eta: part(how >> 8) },
                1 => TrustRule::Centred { up: part(how >> 8), down: Ratio::from_permille(500) },
                2 => TrustRule::RelativeMerit { rate: part(how >> 8) },
                _ => TrustRule::Anchored { rate: part(how >> 8) },
            };
        }
        _ => {}
    }
    new
}
