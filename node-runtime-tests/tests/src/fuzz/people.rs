//! What an act is at the moment: a call of somebody's. Whoever works does what its task needs next, in the mind that the task was given
//! at its request, so that tasks end in every way; and any call can be spoilt on its way.

use super::act::{Act, Verb};
use super::machine::{
    people, Call, Payload, AUDITORS, HEIRS, KEEPERS, OPERATORS, OUTSIDER, OWNER, OWNERS, PAYEES, PEOPLE,
    POOR, REQUESTERS,
};
use super::message::{selector_of, Message};
use super::state::State;
use crate::pool::Act as PoolAct;
use crate::{blake2, salt};
use ink::primitives::AccountId;
use parity_scale_codec::Encode;
use poq_contract::types::{
    Change, Commit, Decline, DeclineReason, Draw, GlobalParams, KindParams, Lever, Node, NodeStatus,
    NodeUpdate, Open, Opened, Opening, OutputState, Registration, Request, Reveal, Role, SeatState, Source,
    Step, Task, MAX_BATCH, MAX_INLINE, MAX_TEXT,
};
use poq_core::commitment::{self, Hash};
use poq_core::params::DAY;
use poq_core::units::{Balance, KindId, Millis, NodeId, Ratio, Score, TaskId};
use poq_core::{Ending, Phase};
use poq_sandbox::UNIT;
use std::collections::BTreeMap;
use std::ops::Range;

/// So many tasks are open or uncollected at most, so that a network stays small enough to be looked at whole after every message.
const MAX_TASKS: usize = 40;
/// So many nodes are registered at most.
const MAX_NODES: usize = 40;

/// What a call is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It is somebody's good right: it must be accepted, every item of it.
    Right,
    /// Whatever.
    Any,
}

/// A call, and what it is expected to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The call.
    pub call: Call,
    /// What it is expected to do.
    pub intent: Intent,
}

/// What a task's people have in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mind {
    /// Everybody does everything.
    Smooth,
    /// No inference node answers.
    Silent,
    /// Only the first one answers.
    Missing,
    /// All decline.
    Declining,
    /// The first one declines.
    OneDeclines,
    /// The first one does not open.
    Unopened,
    /// Nobody opens.
    Hidden,
    /// The requester does not show its secret.
    NoSecret,
    /// One evaluator fewer than the quorum commits, and nobody of those who fill the seats.
    FewCommit,
    /// One fewer commits, and everybody who fills a seat.
    Filled,
    /// One fewer than the quorum reveals.
    FewReveal,
    /// All but one commit and reveal.
    OneMissing,
    /// All but one reveal.
    OneHides,
    /// Everybody says that there was no input.
    NoInput,
    /// One says that there was no input.
    OneNoInput,
    /// Some abstain.
    Abstaining,
    /// One is far off.
    Outlier,
    /// The answer is bad.
    Bad,
}

impl Mind {
    const ALL: [Mind; 18] = [
        Mind::Smooth,
        Mind::Silent,
        Mind::Missing,
        Mind::Declining,
        Mind::OneDeclines,
        Mind::Unopened,
        Mind::Hidden,
        Mind::NoSecret,
        Mind::FewCommit,
        Mind::Filled,
        Mind::FewReveal,
        Mind::OneMissing,
        Mind::OneHides,
        Mind::NoInput,
        Mind::OneNoInput,
        Mind::Abstaining,
        Mind::Outlier,
        Mind::Bad,
    ];

    fn of(number: u32) -> Mind {
        // Most tasks go well.
        match number % 54 {
            n if (n as usize) < Mind::ALL.len() => Mind::ALL[n as usize],
            18..=20 => Mind::NoInput,
            _ => Mind::Smooth,
        }
    }
}

/// A gold task's reference, which its auditor knows.
#[derive(Clone, Debug)]
struct Gold {
    auditor: AccountId,
    reference: Vec<u8>,
    salt: Hash,
}

/// What people know that the contract does not.
#[derive(Clone, Debug, Default)]
pub struct Minds {
    /// By tasks' reference commitments.
    tasks: BTreeMap<Hash, Mind>,
    gold: BTreeMap<Hash, Gold>,
    requests: u32,
}

/// Everything that a person looks at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The contract's storage.
    pub state: &'a State,
    /// The time of the block that calls go into.
    pub now: Millis,
    /// What every commitment starts with.
    pub network: Hash,
    /// Contracts whose code the contract could be given, and not.
    pub instances: Option<[AccountId; 2]>,
    /// What is in the treasury, and what of the contract's money is nobody's.
    pub spare: (Balance, Balance),
}

/// The account of a person.
fn id(person: usize) -> AccountId {
    people()[person]
}

/// The person of an account; the outsider where it is nobody's.
pub fn person_of(account: &AccountId) -> Option<usize> {
    people().iter().position(|other| other == account)
}

fn one_of(range: Range<usize>, number: u32) -> usize {
    range.start + number as usize % range.len()
}

fn pick<T>(items: &[T], number: u32) -> Option<&T> {
    items.get((number as usize).checked_rem(items.len())?)
}

/// A number that depends on two, for whoever needs another one.
fn mix(a: u32, b: u32) -> u32 {
    let [w, x, y, z, ..] = blake2(&(a, b).encode());
    u32::from_le_bytes([w, x, y, z])
}

/// What an inference node answers.
pub fn text_of(task: TaskId, node: NodeId) -> Vec<u8> {
    let words = ["denver", "broncos", "won", "the", "super", "bowl", "in", "2016"];
    let first = (task as usize).wrapping_mul(7).wrapping_add(node as usize);
    (0..4).map(|n| words[(first + n * 3) % words.len()]).collect::<Vec<_>>().join(" ").into_bytes()
}

/// The opening of an inference node's commitment.
pub fn opened_of(task: TaskId, node: NodeId) -> Opened {
    Opened { hash: blake2(&text_of(task, node)), salt: salt(task, node) }
}

/// The secret of a request.
pub fn secret_of(reference_commitment: &Hash) -> Hash {
    blake2(&("secret", reference_commitment).encode())
}

/// An evaluator's reveal: around the task's quality, as its mind says.
fn reveal_of(mind: Mind, id: TaskId, task: &Task, at: usize, node: NodeId) -> Reveal {
    let quality = if mind == Mind::Bad { 20 } else { 400 + mix(id as u32, 1) % 500 };
    let scores = (0..task.outputs.len())
        .map(|output| {
            let noise = mix(mix(id as u32, node), output as u32) % 100;
            match mind {
                Mind::NoInput => Score::NO_INPUT,
                Mind::OneNoInput if at == 0 => Score::NO_INPUT,
                Mind::Abstaining if (at + output).is_multiple_of(2) => Score::UNAVAILABLE,
                Mind::Outlier if at == 0 => Score::of(Ratio::ZERO),
                _ => Score::of(Ratio::from_permille((quality + noise).min(1_000))),
            }
        })
        .collect();
    Reveal { task: id, node, scores, report_hash: [3; 32], salt: salt(id, node) }
}

/// An honest inference node's commitment.
fn output_of(view: &View<'_>, task: TaskId, node: NodeId) -> Hash {
    let opened = opened_of(task, node);
    blake2(&commitment::output(&view.network, task, node, &opened.hash, &opened.salt))
}

/// The commitment to a reveal.
fn scores_of(view: &View<'_>, reveal: &Reveal) -> Hash {
    let Reveal { task, node, scores, report_hash, salt } = reveal;
    blake2(&commitment::scores(&view.network, *task, *node, scores, report_hash, salt))
}

/// A duty that somebody has now.
enum Duty {
    Commit(Commit),
    Decline(Decline),
    Open(Open),
    Draw(Draw),
    Score(Commit),
    Reveal(Reveal),
    Advance(TaskId),
}

impl Duty {
    fn kind(&self) -> u8 {
        match self {
            Duty::Commit(_) => 0,
            Duty::Decline(_) => 1,
            Duty::Open(_) => 2,
            Duty::Draw(_) => 3,
            Duty::Score(_) => 4,
            Duty::Reveal(_) => 5,
            Duty::Advance(_) => 6,
        }
    }
}

/// Duties of one kind, as one message.
fn message_of(duties: Vec<Duty>) -> Option<Message> {
    let mut message = match duties.first()? {
        Duty::Commit(_) => Message::CommitOutputs(Vec::new()),
        Duty::Decline(_) => Message::Decline(Vec::new()),
        Duty::Open(_) => Message::OpenOutputs(Vec::new()),
        Duty::Draw(_) => Message::DrawPanels(Vec::new()),
        Duty::Score(_) => Message::CommitScores(Vec::new()),
        Duty::Reveal(_) => Message::RevealScores(Vec::new()),
        Duty::Advance(_) => Message::Advance(Vec::new()),
    };
    for duty in duties {
        match (&mut message, duty) {
            (Message::CommitOutputs(items), Duty::Commit(item)) => items.push(item),
            (Message::Decline(items), Duty::Decline(item)) => items.push(item),
            (Message::OpenOutputs(items), Duty::Open(item)) => items.push(item),
            (Message::DrawPanels(items), Duty::Draw(item)) => items.push(item),
            (Message::CommitScores(items), Duty::Score(item)) => items.push(item),
            (Message::RevealScores(items), Duty::Reveal(item)) => items.push(item),
            (Message::Advance(items), Duty::Advance(item)) => items.push(item),
            _ => {}
        }
    }
    Some(message)
}

impl Minds {
    fn mind(&self, task: &Task) -> Mind {
        self.tasks.get(&task.reference_commitment).copied().unwrap_or(Mind::Smooth)
    }

    /// What can be done for a task now, and by which account it must be done; `None` for anybody.
    fn duties(&self, view: &View<'_>, id: TaskId, task: &Task) -> Vec<(Option<AccountId>, Duty)> {
        let mind = self.mind(task);
        let operator = |node: NodeId| view.state.nodes.get(&node).map(|node| node.operator);
        let (phase, _) = task.clock().at(view.now);
        let step = task.clock().step(view.now);
        let mut duties = Vec::new();
        match (phase, step) {
            (_, Step::Fill | Step::Settle | Step::End(_)) => duties.push((None, Duty::Advance(id))),
            (Phase::Inferring, _) => {
                for (at, slot) in task.outputs.iter().enumerate() {
                    let silent = match mind {
                        Mind::Silent => true,
                        Mind::Missing => at > 0,
                        _ => false,
                    };
                    if slot.state != OutputState::Assigned || silent {
                        continue;
                    }
                    let node = slot.node;
                    let declines = mind == Mind::Declining || mind == Mind::OneDeclines && at == 0;
                    let duty = if declines {
                        Duty::Decline(Decline { task: id, node, reason: DeclineReason::TooLong })
                    } else {
                        Duty::Commit(Commit { task: id, node, commitment: output_of(view, id, node) })
                    };
                    duties.push((operator(node), duty));
                }
            }
            (Phase::Drawing, Step::Draw { until }) => {
                let committed = |state: OutputState| state == OutputState::Committed;
                // What was spoilt on its way opens nothing.
                let hidden = |at: usize| {
                    let slot = &task.outputs[at];
                    mind == Mind::Hidden
                        || mind == Mind::Unopened && at == 0
                        || slot.commitment != output_of(view, id, slot.node)
                };
                // `until` is half time where something is not opened.
                for (at, slot) in task.outputs.iter().enumerate() {
                    if committed(slot.state) && !hidden(at) && view.now <= until {
                        let open = Open { task: id, node: slot.node, opened: opened_of(id, slot.node) };
                        duties.push((None, Duty::Open(open)));
                    }
                }
                let waits =
                    task.outputs.iter().enumerate().any(|(at, slot)| committed(slot.state) && hidden(at));
                let secret = secret_of(&task.reference_commitment);
                // A request that somebody else has sent has a secret that nobody knows.
                let known = task.secret_hash
                    == blake2(&commitment::secret(&view.network, task.requester.as_ref(), &secret));
                // Where there were too few, it is tried again, but not all the time.
                let again = !task.short || view.now.is_multiple_of(8);
                if mind != Mind::NoSecret && !waits && known && again {
                    let openings = task
                        .outputs
                        .iter()
                        .map(|slot| committed(slot.state).then(|| opened_of(id, slot.node)));
                    let draw = Draw { task: id, secret, openings: openings.collect() };
                    // Normally nothing is opened on the chain.
                    duties.insert(0, (None, Duty::Draw(draw)));
                }
            }
            (Phase::Scoring, _) => {
                let quorum = usize::from(task.terms.quorum);
                for (at, seat) in task.panel.iter().enumerate() {
                    let silent = match mind {
                        Mind::FewCommit => at + 1 >= quorum || task.filled,
                        Mind::Filled => at + 1 >= quorum && !task.filled,
                        Mind::OneMissing => at == 0,
                        _ => false,
                    };
                    if seat.node == 0 || seat.state != SeatState::Drawn || silent {
                        continue;
                    }
                    let commitment = scores_of(view, &reveal_of(mind, id, task, at, seat.node));
                    let item = Commit { task: id, node: seat.node, commitment };
                    duties.push((operator(seat.node), Duty::Score(item)));
                }
            }
            (Phase::Revealing, Step::Wait { .. }) => {
                let quorum = usize::from(task.terms.quorum);
                for (at, seat) in task.panel.iter().enumerate() {
                    let silent = match mind {
                        Mind::FewReveal => {
                            task.panel.iter().filter(|seat| seat.state == SeatState::Revealed).count() + 1
                                >= quorum
                        }
                        Mind::OneHides => at == 0,
                        _ => false,
                    };
                    let reveal = reveal_of(mind, id, task, at, seat.node);
                    if seat.state == SeatState::Committed
                        && !silent
                        && seat.commitment == scores_of(view, &reveal)
                    {
                        duties.push((None, Duty::Reveal(reveal)));
                    }
                }
            }
            _ => {}
        }
        duties
    }

    /// What a message of tasks' duties is now: one duty, and others of its kind with it.
    fn work(&self, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
        let open: Vec<(&TaskId, &Task)> =
            view.state.tasks.iter().filter(|(_, task)| !task.phase.is_final()).collect();
        // From one task on, until one has something to do.
        let first = (n[0] as usize).checked_rem(open.len())?;
        let ordered = open.iter().cycle().skip(first).take(open.len());
        let mut all: Vec<(Option<AccountId>, Duty)> =
            ordered.flat_map(|(id, task)| self.duties(view, **id, task)).collect();
        if all.is_empty() {
            return None;
        }
        // One of the first task's, mostly the first.
        let at = if n[1] % 4 == 0 { (n[1] as usize / 4) % all.len().min(4) } else { 0 };
        let (by, duty) = all.swap_remove(at);
        let kind = duty.kind();
        let size = match n[1] / 16 % 8 {
            0..=3 => 1,
            4..=6 => 4,
            _ => 24,
        };
        let mut duties = vec![duty];
        // In whatever order they come: a block's author or a relayer decides that.
        let mut rest: Vec<Duty> = all
            .into_iter()
            .filter(|(other, duty)| duty.kind() == kind && *other == by)
            .map(|(_, duty)| duty)
            .collect();
        if n[1] / 128 % 2 == 1 {
            rest.reverse();
        }
        duties.extend(rest.into_iter().take(size - 1));
        if let Duty::Draw(_) = duties[0] {
            // Panels compete for evaluators: what a draw finds depends on the draws before it.
            duties.truncate(4);
        }
        let from = match by {
            Some(account) => person_of(&account)?,
            // Whoever likes: the requester, a keeper, an operator, anybody.
            None => match n[2] % 8 {
                0..=3 => {
                    let (_, task) = open.get(first)?;
                    person_of(&task.requester)?
                }
                4..=5 => one_of(KEEPERS, n[2]),
                6 => one_of(OPERATORS, n[2]),
                _ => n[2] as usize % PEOPLE,
            },
        };
        right(from, 0, message_of(duties)?)
    }

    fn keep(&self, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
        let due =
            |task: &Task| matches!(task.clock().step(view.now), Step::Fill | Step::Settle | Step::End(_));
        let mut ids: Vec<TaskId> =
            view.state.tasks.iter().filter(|(_, task)| due(task)).map(|(id, _)| *id).collect();
        let first = (n[0] as usize).checked_rem(ids.len())?;
        ids.rotate_left(first);
        ids.truncate(1 + n[1] as usize % 16);
        right(one_of(KEEPERS, n[2]), 0, Message::Advance(ids))
    }

    fn collect(&self, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
        let over: Vec<(&TaskId, &Task)> =
            view.state.tasks.iter().filter(|(_, task)| task.phase.is_final()).collect();
        let (_, task) = pick(&over, n[0])?;
        let requester = task.requester;
        let ids: Vec<TaskId> = over
            .iter()
            .filter(|(_, task)| task.requester == requester)
            .map(|(id, _)| **id)
            .take(1 + n[1] as usize % 6)
            .collect();
        // Gold tasks wait for their auditors, mostly.
        if n[2] % 4 != 0 && ids.iter().any(|id| self.is_gold(view, *id)) {
            return None;
        }
        let archive = view.state.root().ok()?.global.archive_ms;
        let archived =
            |id: &TaskId| view.state.tasks.get(id).is_some_and(|task| view.now > task.deadline + archive);
        // Tidying up behind others, where one may and where one may not.
        if n[3] % 4 == 0 {
            let plan = right(one_of(KEEPERS, n[3]), 0, Message::Collect(ids.clone()));
            return if ids.iter().all(archived) { plan } else { plan.map(any) };
        }
        right(person_of(&requester)?, 0, Message::Collect(ids))
    }

    /// Whether an auditor could still open a task's reference.
    fn is_gold(&self, view: &View<'_>, id: TaskId) -> bool {
        view.state.tasks.get(&id).is_some_and(|task| {
            task.can_audit(view.now) && self.gold.contains_key(&task.reference_commitment)
        })
    }

    /// A request, or several.
    fn request(&mut self, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
        if view.state.tasks.len() >= MAX_TASKS {
            return None;
        }
        let requester = one_of(REQUESTERS, n[0]);
        let count = if n[1] % 8 == 0 { 1 + n[1] / 8 % 3 } else { 1 };
        let mut requests = Vec::new();
        for at in 0..count {
            let how = mix(n[2], at);
            requests.push(self.request_one(view, requester, how, mix(n[3], at))?);
        }
        let fees = requests.iter().map(|request| request.fee).sum();
        right(requester, fees, Message::RequestTasks(requests)).map(any)
    }

    fn request_one(&mut self, view: &View<'_>, requester: usize, how: u32, more: u32) -> Option<Request> {
        let kinds: Vec<KindId> = view.state.kinds.keys().copied().collect();
        let kind = if how % 4 == 0 { *pick(&kinds, how / 4)? } else { *kinds.first()? };
        let params = &view.state.kinds.get(&kind)?.params;
        let outputs = 1 + (how >> 4) as u8 % params.outputs_max.min(3);
        let panel = params.panel_min + (how >> 8) as u8 % (params.panel_max.min(5) - params.panel_min + 1);
        let least = params.fee_min(outputs, panel)?;
        let fee = match (how >> 12) % 8 {
            0 => least,
            1 => params.fee_max,
            2 => least + Balance::from(more) % 1_000,
            _ => least + (params.fee_max - least) / 100 * Balance::from(more % 101),
        };
        let names = (how >> 16) % 4 == 0;
        let nodes: Vec<NodeId> = if names {
            let of_kind = |node: &Node| node.kind == kind && node.role == Role::Inference;
            let mut all: Vec<NodeId> =
                view.state.nodes.iter().filter(|(_, node)| of_kind(node)).map(|(id, _)| *id).collect();
            let first = (more as usize).checked_rem(all.len())?;
            all.rotate_left(first);
            all.truncate(usize::from(outputs));
            all
        } else {
            Vec::new()
        };
        self.requests += 1;
        // Mostly one that is appointed.
        let appointed: Vec<AccountId> =
            view.state.auditors.iter().filter(|(_, auditor)| auditor.appointed).map(|(id, _)| *id).collect();
        let auditor = pick(&appointed, more >> 3).filter(|_| more % 8 > 0).copied();
        let auditor = auditor.unwrap_or_else(|| id(one_of(AUDITORS, more >> 3)));
        let reference = text_of(u64::from(self.requests), 1);
        let secret_salt = blake2(&("gold", self.requests).encode());
        let gold = Gold { auditor, reference, salt: secret_salt };
        let reference_commitment = if (how >> 18) % 3 == 0 {
            let hash = blake2(&gold.reference);
            let commitment =
                blake2(&commitment::reference(&view.network, auditor.as_ref(), &hash, &gold.salt));
            self.gold.insert(commitment, gold);
            commitment
        } else {
            blake2(&("no gold", self.requests).encode())
        };
        self.tasks.insert(reference_commitment, Mind::of(more));
        let secret = secret_of(&reference_commitment);
        let secret_hash = blake2(&commitment::secret(&view.network, id(requester).as_ref(), &secret));
        let input = if (how >> 20) % 4 == 0 { Source::Inline(vec![1; 40]) } else { crate::input() };
        let early = (how >> 22) % 4 == 0;
        Some(Request { kind, fee, nodes, outputs, panel, input, reference_commitment, secret_hash, early })
    }

    /// An auditor's act.
    fn audit(&self, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
        let auditor = one_of(AUDITORS, n[0]);
        let record = view.state.auditors.get(&id(auditor));
        let global = view.state.root().ok()?.global;
        if n[1] % 64 == 0 {
            return right(auditor, 0, Message::WithdrawBond()).map(any);
        }
        match record {
            Some(record) if record.unbonds_at > 0 && view.now >= record.unbonds_at => {
                let slash = view.state.announced(&Lever::SlashAuditor(id(auditor)));
                let free = slash.is_none_or(|pending| pending.has_lapsed(view.now));
                let plan = right(auditor, 0, Message::WithdrawBond());
                if free {
                    plan
                } else {
                    plan.map(any)
                }
            }
            Some(record) if record.appointed && record.unbonds_at == 0 && record.bond < global.audit_bond => {
                right(auditor, global.audit_bond - record.bond, Message::Bond())
            }
            _ => {
                let gold: Vec<(&TaskId, &Gold)> = view
                    .state
                    .tasks
                    .iter()
                    .filter(|(_, task)| task.can_audit(view.now))
                    .filter_map(|(id, task)| Some((id, self.gold.get(&task.reference_commitment)?)))
                    .collect();
                let (task_id, gold) = pick(&gold, n[1])?;
                let task = view.state.tasks.get(task_id)?;
                let outputs = task
                    .outputs
                    .iter()
                    .map(|slot| (slot.state == OutputState::Opened).then(|| text_of(**task_id, slot.node)))
                    .collect();
                let opening = Opening { reference: gold.reference.clone(), salt: gold.salt, outputs };
                let record = view.state.auditors.get(&gold.auditor);
                let epoch = view.now / view.state.root().ok()?.epoch_ms;
                let free = record.is_some_and(|record| {
                    let opened = if u64::from(record.epoch) == epoch { record.audits_in_epoch } else { 0 };
                    record.appointed
                        && record.unbonds_at == 0
                        && record.bond >= global.audit_bond
                        && opened < global.audits_per_epoch
                });
                let plan = right(person_of(&gold.auditor)?, 0, Message::OpenReference(**task_id, opening));
                // One that owns a node of the task opens nothing; auditors own none here.
                if free {
                    plan
                } else {
                    plan.map(any)
                }
            }
        }
    }

    /// What an act is now; nothing where there is nothing to be done.
    pub fn plan(&mut self, view: &View<'_>, act: &Act) -> Option<Plan> {
        let n = act.n;
        let plan = match act.verb {
            Verb::Request => self.request(view, n),
            Verb::Work => self.work(view, n),
            Verb::Keep => self.keep(view, n),
            Verb::Collect => self.collect(view, n),
            Verb::Own => own(view, n),
            Verb::Take => take(view, n),
            Verb::Govern => govern(view, n),
            Verb::Audit => self.audit(view, n),
            Verb::Noise => noise(self, view, n),
            Verb::Pool => Some(pool(n)),
            Verb::Raw => {
                let valid = noise(self, view, [n[1], n[2], n[3], 1])?;
                Some(raw(&valid, n))
            }
            Verb::Wait | Verb::Until | Verb::Leap | Verb::Gift | Verb::Starve => None,
        }?;
        // One in eight goes wrong on its way.
        if n[3] % 8 == 5
            && matches!(
                act.verb,
                Verb::Work
                    | Verb::Keep
                    | Verb::Collect
                    | Verb::Request
                    | Verb::Own
                    | Verb::Take
                    | Verb::Audit
            )
        {
            return Some(spoil(plan, mix(n[3], n[2])));
        }
        Some(plan)
    }
}

fn right(from: usize, value: Balance, message: Message) -> Option<Plan> {
    let call = Call { from, value, payload: Payload::Message(message) };
    Some(Plan { call, intent: Intent::Right })
}

fn any(mut plan: Plan) -> Plan {
    plan.intent = Intent::Any;
    plan
}

/// What a node's owner does.
fn own(view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
    let nodes: Vec<(&NodeId, &Node)> = view.state.nodes.iter().collect();
    let mine: Vec<&(&NodeId, &Node)> =
        nodes.iter().filter(|(_, node)| person_of(&node.owner).is_some()).collect();
    let what = n[1] % 32;
    if what < 3 || mine.is_empty() {
        return register(view, n);
    }
    let (node_id, node) = pick(&mine, n[0])?;
    let owner = person_of(&node.owner)?;
    let node_id = **node_id;
    let params = &view.state.kinds.get(&node.kind)?.params;
    let some = Balance::from(n[2]) * UNIT / 100_000_000;
    match what {
        3..=8 => {
            right(owner, 1 + some + if n[2] % 4 == 0 { params.stake_min } else { 0 }, Message::Stake(node_id))
        }
        9..=10 => {
            let bonded = node.stake.bonded;
            let amount = match n[2] % 8 {
                0 => bonded,
                1 => bonded.saturating_sub(params.stake_min / 2),
                2 => (bonded / 1_000) * Balance::from(n[2] / 8 % 1_000),
                _ => (bonded / 1_000) * Balance::from(n[2] / 8 % 100),
            };
            let plan = right(owner, 0, Message::Unstake(node_id, amount));
            if amount > 0 {
                plan
            } else {
                plan.map(any)
            }
        }
        11..=14 => {
            let ripe = node.stake.withdrawable(view.now) > 0;
            let plan = right(owner, 0, Message::WithdrawUnbonded(node_id));
            if ripe {
                plan
            } else {
                plan.map(any)
            }
        }
        15 => right(owner, 0, Message::Drain(node_id)),
        16..=22 => {
            // Those that stay drained are of no use to anybody.
            let drained: Vec<_> =
                mine.iter().filter(|(_, node)| node.status == NodeStatus::Draining).collect();
            let (other, node) = pick(&drained, n[0]).map_or((&node_id, *node), |(id, node)| (*id, node));
            right(person_of(&node.owner)?, 0, Message::Resume(*other))
        }
        23 => right(owner, 0, Message::Deregister(node_id)).map(any),
        24..=25 => {
            let update = NodeUpdate {
                operator: (n[2] % 2 == 0).then(|| id(one_of(OPERATORS, n[2] >> 8))),
                payee: (n[2] / 2 % 2 == 0).then(|| id(one_of(PAYEES, n[2] >> 12))),
                endpoint: (n[2] / 4 % 4 == 0).then(|| "http://127.0.0.1:8".into()),
                price: (n[2] / 16 % 4 == 0).then_some(some / 10),
            };
            right(owner, 0, Message::Configure(node_id, update))
        }
        _ => {
            let ids = nodes
                .iter()
                .map(|(id, _)| **id)
                .skip(n[2] as usize % nodes.len())
                .take(1 + n[2] as usize / 64 % 8);
            right(n[3] as usize % PEOPLE, 0, Message::Refresh(ids.collect()))
        }
    }
}

fn register(view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
    if view.state.nodes.len() >= MAX_NODES {
        return None;
    }
    let kinds: Vec<KindId> = view.state.kinds.keys().copied().collect();
    let kind = *pick(&kinds, n[2] >> 3)?;
    let params = &view.state.kinds.get(&kind)?.params;
    let role = if n[2] % 3 == 0 { Role::Inference } else { Role::Evaluator };
    let owner = one_of(OWNERS, n[0]);
    let stake = match n[1] / 32 % 8 {
        0 => 0,
        1 => params.stake_min - 1,
        2 => params.stake_min,
        _ => params.stake_min + (params.stake_cap - params.stake_min) / 64 * Balance::from(n[1] / 256 % 80),
    };
    let registration = Registration {
        role,
        kind,
        operator: id(one_of(OPERATORS, n[2] >> 8)),
        payee: if n[2] / 64 % 2 == 0 { id(owner) } else { id(one_of(PAYEES, n[2] >> 16)) },
        model: format!("model {}", n[2] % 7),
        model_digest: [(n[2] % 7) as u8; 32],
        endpoint: "http://127.0.0.1:9".into(),
        price: params.inference_slot_min / 8 * Balance::from(n[3] % 8),
    };
    right(owner, stake, Message::Register(registration))
}

/// Somebody takes what is theirs.
fn take(view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
    if n[0] % 3 == 0 {
        let rich: Vec<&AccountId> =
            view.state.accounts.iter().filter(|(_, account)| account.credit > 0).map(|(id, _)| id).collect();
        return right(person_of(pick(&rich, n[1])?)?, 0, Message::Withdraw());
    }
    let paid: Vec<(&NodeId, &Node)> =
        view.state.nodes.iter().filter(|(_, node)| node.claimable > 0).collect();
    let (node_id, node) = pick(&paid, n[1])?;
    let by = if n[2] % 2 == 0 { &node.owner } else { &node.payee };
    right(person_of(by)?, 0, Message::Claim(**node_id))
}

/// The contract's owner does something.
fn govern(view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
    let root = view.state.root().ok()?;
    let owner = if n[0] % 8 == 0 { n[0] as usize / 8 % PEOPLE } else { person_of(&root.owner)? };
    let levers = &view.state.levers;
    // Who can send it must be able to.
    let plan = |message: Message| right(owner, 0, message).map(any);
    match n[1] % 32 {
        // What is due is enacted, mostly.
        _ if n[3] % 2 == 0 && levers.iter().any(|lever| is_due(view, lever)) => {
            let due: Vec<Lever> = levers.iter().copied().filter(|lever| is_due(view, lever)).collect();
            let lever = *pick(&due, n[2])?;
            let message = if lever == Lever::Code { Message::SetCode() } else { Message::Enact(lever) };
            let plan = right(n[3] as usize / 2 % PEOPLE, 0, message);
            // Parameters may fit no more, a bond may be gone, the code may not migrate.
            if matches!(lever, Lever::Appoint(_)) {
                plan
            } else {
                plan.map(any)
            }
        }
        // Nobody can do without new tasks for long.
        _ if root.paused && n[3] % 4 != 0 => plan(Message::SetPaused(false)),
        0..=1 => {
            let (kind, record) =
                view.state.kinds.iter().nth(n[2] as usize % view.state.kinds.len().max(1))?;
            let kind = if n[2] / 16 % 8 == 0 { kind + 1 } else { *kind };
            plan(Message::Propose(Change::Kind(kind, varied(&record.params, mix(n[2], n[3])))))
        }
        2..=3 => {
            let longer = Millis::from(n[2] % 5) * DAY / 2;
            let global = GlobalParams {
                unbonding_ms: crate::UNBONDING_MS + Millis::from(n[2] / 8 % 4) * 600_000,
                archive_ms: 3_600_000 + longer,
                audit_bond: (50 + Balance::from(n[2] / 64 % 100)) * UNIT,
                audits_per_epoch: (n[2] / 256 % 4) as u16 * 16,
                params_delay_ms: 2 * DAY + longer,
            };
            plan(Message::Propose(Change::Global(global)))
        }
        4..=7 => plan(Message::Propose(Change::Appoint(id(one_of(AUDITORS, n[2]))))),
        8 => {
            let amount = UNIT * Balance::from(n[2] % 120);
            plan(Message::Propose(Change::SlashAuditor(id(one_of(AUDITORS, n[3])), amount)))
        }
        9..=10 => {
            let lever = *pick(levers, n[2])?;
            let message = if lever == Lever::Code { Message::SetCode() } else { Message::Enact(lever) };
            right(n[3] as usize % PEOPLE, 0, message).map(any)
        }
        11..=13 => plan(Message::Propose(Change::Appoint(id(one_of(AUDITORS, n[2]))))),
        14..=16 => plan(Message::Cancel(*pick(levers, n[2])?)),
        17..=18 => plan(Message::SetPaused(!root.paused && n[2] % 2 == 0)),
        19 => plan(Message::DismissAuditor(id(one_of(AUDITORS, n[2])))),
        20 => plan(Message::ProposeOwner(id(one_of(HEIRS, n[2])))),
        21..=22 => right(one_of(HEIRS, n[2]), 0, Message::AcceptOwnership()).map(any),
        23..=24 => {
            let (treasury, gifts) = view.spare;
            let amount = match n[2] % 4 {
                0 => treasury,
                1 => treasury + gifts,
                2 => treasury + gifts + 1,
                _ => treasury / 3,
            };
            plan(Message::WithdrawTreasury(id(one_of(HEIRS, n[3])), amount))
        }
        25..=27 => {
            let burned = view.state.books.liabilities.burned > 0;
            let plan = right(n[3] as usize % PEOPLE, 0, Message::Burn());
            if burned {
                plan
            } else {
                plan.map(any)
            }
        }
        28..=29 => {
            let [later, mute] = view.instances?;
            plan(Message::ProposeCode(if n[2] % 4 == 0 { mute } else { later }))
        }
        30 => right(n[2] as usize % PEOPLE, 0, Message::SetCode()).map(any),
        _ => right(n[2] as usize % PEOPLE, 0, Message::Migrate()).map(any),
    }
}

fn is_due(view: &View<'_>, lever: &Lever) -> bool {
    view.state.announced(lever).is_some_and(|pending| pending.is_due(view.now))
}

/// Parameters like these with something changed, mostly still valid.
pub fn varied(params: &KindParams, how: u32) -> KindParams {
    let mut new = params.clone();
    let by = how >> 8;
    let share = Ratio::from_permille(by % 1_001);
    match how % 16 {
        0 => new.protocol_fee = Ratio::from_permille(by % 200),
        1 => new.inference_share = Ratio::from_permille(300 + by % 500),
        2 => new.delivery_share = share,
        3 => new.keeper_fee = params.keeper_fee / 100 * Balance::from(50 + by % 60),
        4 => new.missed_penalty = Ratio::from_permille(100 + by % 400),
        5 => new.unrevealed_penalty = Ratio::from_permille(600 + by % 500),
        6 => new.bad_penalty = Ratio::from_permille(by % 300),
        7 => new.quorum = Ratio::from_permille(300 + by % 700),
        8 => new.stake_min = params.stake_min / 100 * Balance::from(80 + by % 80),
        9 => new.stake_cap = params.stake_cap / 100 * Balance::from(50 + by % 150),
        10 => new.outlier_bound = share,
        11 => new.fee_max = params.fee_max / 100 * Balance::from(50 + by % 100),
        12 => new.draw_ms = 30_000 + Millis::from(by % 200) * 1_000,
        13 => new.unavailable_share = Ratio::from_permille(by % 20),
        14 => new.trust_floor = share,
        _ => new.inference_risk = 1 + (by % 3) as u8,
    }
    new
}

/// Somebody does something on the pool.
fn pool(n: [u32; 4]) -> Plan {
    let who = n[1] as usize % 4;
    let part = [1, 10, 333, 999, 1_000][n[2] as usize % 5];
    let money = Balance::from(n[3]) * Balance::from(n[3]) / 1_000 + 1;
    let act = match n[0] % 32 {
        0..=8 => PoolAct::Deposit(who, money),
        9..=15 => PoolAct::Exit(who, part),
        16..=20 => PoolAct::Claim(who),
        21 => PoolAct::Give(who, (who + 1) % 4, part),
        22..=25 => PoolAct::Advance,
        26 => PoolAct::AddBond(money),
        27 => PoolAct::Collect,
        28 => PoolAct::Announce((n[2] % 400) as u16),
        29..=30 => PoolAct::Drain(n[2] % 4 == 0),
        _ => PoolAct::Usurp(n[2] as usize % 20),
    };
    Plan { call: Call { from: OUTSIDER, value: 0, payload: Payload::Pool(act) }, intent: Intent::Any }
}

/// A message of any kind from anybody, with arguments that fit what there is, more or less.
fn noise(minds: &mut Minds, view: &View<'_>, n: [u32; 4]) -> Option<Plan> {
    let from = n[1] as usize % PEOPLE;
    let node = 1 + n[2] % (view.state.books.last_node + 2);
    let task = 1 + u64::from(n[2]) % (view.state.books.last_task + 2);
    let amount = Balance::from(n[3]) * UNIT / 10_000_000;
    let commit = |kind: &str| vec![Commit { task, node, commitment: blake2(&(kind, n[3]).encode()) }];
    let person = id(n[3] as usize % PEOPLE);
    let kinds: Vec<KindId> = view.state.kinds.keys().copied().collect();
    let lever = match n[3] % 5 {
        0 => Lever::Kind(*pick(&kinds, n[3] / 5)?),
        1 => Lever::Global,
        2 => Lever::Appoint(id(one_of(AUDITORS, n[3] / 5))),
        3 => Lever::SlashAuditor(id(one_of(AUDITORS, n[3] / 5))),
        _ => Lever::Code,
    };
    let seats = view.state.tasks.get(&task).map_or(1, |task| task.outputs.len());
    let some_node = view.state.nodes.get(&node);
    let message = match n[0] as usize % Message::NAMES.len() {
        0 => return register(view, [n[1], n[2], n[3], n[0]]).map(|plan| any(at_value(plan, n[3]))),
        1 => Message::Configure(node, NodeUpdate { payee: Some(person), ..NodeUpdate::default() }),
        2 => Message::Stake(node),
        3 => Message::Unstake(node, amount),
        4 => Message::WithdrawUnbonded(node),
        5 => Message::Drain(node),
        6 => Message::Resume(node),
        7 => {
            // Whoever could go goes, sometimes.
            let empty = |node: &Node| node.stake.total() == 0 && node.claimable == 0;
            let empties: Vec<(&NodeId, &Node)> =
                view.state.nodes.iter().filter(|(_, node)| empty(node)).collect();
            match pick(&empties, n[2]) {
                Some((id, node)) => {
                    return right(person_of(&node.owner)?, 0, Message::Deregister(**id)).map(any)
                }
                None => Message::Deregister(node),
            }
        }
        8 => Message::Refresh(vec![node, node.saturating_add(1)]),
        9 => Message::Claim(node),
        10 => return minds.request(view, n).map(|plan| any(at_value(plan, n[3]))),
        11 => Message::Collect(vec![task]),
        12 => Message::Withdraw(),
        13 => Message::CommitOutputs(commit("output")),
        14 => Message::Decline(vec![Decline { task, node, reason: DeclineReason::Other }]),
        15 => Message::OpenOutputs(vec![Open { task, node, opened: opened_of(task, node) }]),
        16 => {
            let secret =
                view.state.tasks.get(&task).map_or([0; 32], |task| secret_of(&task.reference_commitment));
            Message::DrawPanels(vec![Draw { task, secret, openings: vec![None; seats] }])
        }
        17 => Message::CommitScores(commit("scores")),
        18 => {
            let scores = vec![Score::of(Ratio::from_permille(n[3] % 1_001)); seats];
            Message::RevealScores(vec![Reveal {
                task,
                node,
                scores,
                report_hash: [0; 32],
                salt: salt(task, node),
            }])
        }
        19 => Message::Advance(vec![task]),
        20 => Message::Bond(),
        21 => Message::WithdrawBond(),
        22 => {
            let outputs = vec![Some(text_of(task, node)); seats];
            Message::OpenReference(task, Opening { reference: vec![1, 2], salt: [n[3] as u8; 32], outputs })
        }
        23 => Message::Propose(Change::Appoint(person)),
        24 => Message::ProposeCode(person),
        25 => Message::Enact(lever),
        26 => Message::SetCode(),
        27 => Message::Migrate(),
        28 => Message::Cancel(lever),
        29 => Message::SetPaused(n[3] % 2 == 0),
        30 => Message::DismissAuditor(person),
        31 => Message::ProposeOwner(person),
        32 => Message::AcceptOwnership(),
        33 => Message::WithdrawTreasury(person, amount),
        _ => Message::Burn(),
    };
    // Now and then by whom it belongs to.
    let from = match (&message, some_node) {
        (Message::CommitOutputs(_) | Message::CommitScores(_) | Message::Decline(_), Some(node))
            if n[1] % 2 == 0 =>
        {
            person_of(&node.operator)?
        }
        (_, Some(node)) if n[1] % 3 == 0 => person_of(&node.owner).unwrap_or(from),
        _ => from,
    };
    let value = if message.is_payable() { amount } else { Balance::from(n[1] % 64 == 7) };
    right(from, value, message).map(any)
}

/// The same with other money, sometimes.
fn at_value(mut plan: Plan, how: u32) -> Plan {
    match how % 4 {
        0 => plan.call.value += 1,
        1 => plan.call.value = plan.call.value.saturating_sub(1),
        _ => {}
    }
    plan
}

/// A call that goes wrong on its way: another sender, another item, one item twice, too many, none, other money.
fn spoil(mut plan: Plan, how: u32) -> Plan {
    plan.intent = Intent::Any;
    let Payload::Message(message) = &mut plan.call.payload else { return plan };
    match how % 4 {
        0 => plan.call.from = (how >> 8) as usize % PEOPLE,
        1 if how / 4 % 4 == 0 => plan.call.value += 1,
        1 if how / 4 % 4 == 1 => plan.call.value = plan.call.value.saturating_sub(1),
        _ => spoil_message(message, how / 4),
    }
    plan
}

fn spoil_items<T: Clone>(items: &mut Vec<T>, how: u32, spoil: impl Fn(&mut T, u32)) {
    match how % 16 {
        0 => items.clear(),
        1 => {
            if let Some(first) = items.first().cloned() {
                items.resize(MAX_BATCH + 1, first);
            }
        }
        2 => {
            if let Some(first) = items.first().cloned() {
                items.resize(MAX_BATCH, first);
            }
        }
        3..=6 => items.extend(items.first().cloned()),
        _ => {
            let at = how as usize / 16 % items.len().max(1);
            if let Some(item) = items.get_mut(at) {
                spoil(item, how / 64);
            }
        }
    }
}

fn spoil_message(message: &mut Message, how: u32) {
    match message {
        Message::CommitOutputs(items) | Message::CommitScores(items) => {
            spoil_items(items, how, |item, how| match how % 4 {
                0 => item.commitment = [0; 32],
                1 => item.commitment[how as usize / 4 % 32] ^= 1,
                2 => item.node += 1,
                _ => item.task += 1,
            })
        }
        Message::Decline(items) => spoil_items(items, how, |item, how| match how % 2 {
            0 => item.node += 1,
            _ => item.task += 1,
        }),
        Message::OpenOutputs(items) => spoil_items(items, how, |item, how| match how % 4 {
            0 => item.opened.hash[0] ^= 1,
            1 => item.opened.salt[31] ^= 1,
            2 => item.node += 1,
            _ => item.task += 1,
        }),
        Message::DrawPanels(items) => spoil_items(items, how, |item, how| match how % 5 {
            0 => item.secret[7] ^= 1,
            1 => item.openings.clear(),
            2 => item.openings = vec![None; item.openings.len()],
            3 => item.openings.iter_mut().flatten().for_each(|opened| opened.salt[0] ^= 1),
            _ => item.task += 1,
        }),
        Message::RevealScores(items) => spoil_items(items, how, |item, how| match how % 6 {
            0 => item.salt[3] ^= 1,
            1 => item.scores.push(Score::NO_INPUT),
            2 => item.scores.clear(),
            3 => item.scores.iter_mut().for_each(|score| *score = Score::of(Ratio::ONE)),
            4 => item.report_hash[0] ^= 1,
            _ => item.node += 1,
        }),
        Message::Advance(items) | Message::Collect(items) => spoil_items(items, how, |item, _| *item += 1),
        Message::Refresh(items) => spoil_items(items, how, |item, _| *item += 1_000),
        Message::RequestTasks(items) => spoil_items(items, how, |item, how| match how % 12 {
            0 => item.fee -= 1,
            1 => item.fee = item.fee.saturating_mul(1_000),
            2 => item.reference_commitment = [0; 32],
            3 => item.secret_hash = [0; 32],
            4 => item.panel = 0,
            5 => item.panel = 15,
            6 => item.outputs = 5,
            7 => item.nodes = vec![1, 1],
            8 => item.nodes = vec![999],
            9 => item.input = Source::Inline(vec![7; MAX_INLINE + 1]),
            10 => item.input = Source::Url { hash: [1; 32], url: String::new() },
            _ => item.kind += 77,
        }),
        Message::Register(registration) => match how % 3 {
            0 => registration.kind += 77,
            1 => registration.model = "m".repeat(MAX_TEXT + 1),
            _ => registration.price = Balance::MAX,
        },
        Message::Unstake(_, amount) => *amount = if how % 2 == 0 { 0 } else { Balance::MAX },
        Message::OpenReference(_, opening) => match how % 4 {
            0 => opening.salt[0] ^= 1,
            1 => opening.reference.push(7),
            2 => opening.outputs.clear(),
            _ => opening.outputs.iter_mut().for_each(|output| *output = None),
        },
        Message::Stake(node)
        | Message::WithdrawUnbonded(node)
        | Message::Drain(node)
        | Message::Resume(node)
        | Message::Claim(node)
        | Message::Deregister(node) => *node += 1,
        _ => {}
    }
}

/// Bytes that were a call: cut off, with more behind, with some changed; or a message's selector with anything behind.
fn raw(valid: &Plan, n: [u32; 4]) -> Plan {
    let Payload::Message(message) = &valid.call.payload else { return any(valid.clone()) };
    let mut bytes = message.encode();
    let noise = |length: usize| (0..length).map(|at| mix(n[3], at as u32) as u8).collect::<Vec<u8>>();
    match n[0] % 4 {
        0 => bytes.truncate(n[2] as usize % bytes.len()),
        1 => bytes.extend(noise(1 + n[2] as usize % 40)),
        2 => {
            for at in 0..1 + n[2] % 3 {
                let place = mix(n[3], 1_000 + at) as usize % bytes.len();
                bytes[place] ^= 1 << (n[2] / 8 % 8);
            }
        }
        _ => {
            let name = Message::NAMES[n[2] as usize % Message::NAMES.len()];
            bytes = [selector_of(name).to_vec(), noise(n[3] as usize % 200)].concat();
        }
    }
    Plan { call: Call { payload: Payload::Raw(bytes), ..valid.call.clone() }, intent: Intent::Any }
}

/// Times at which something of an open task changes.
pub fn due_times(view: &View<'_>) -> Vec<Millis> {
    let mut times: Vec<Millis> = Vec::new();
    for task in view.state.tasks.values().filter(|task| !task.phase.is_final()) {
        let (phase, deadline) = task.clock().at(view.now);
        times.push(deadline);
        match phase {
            Phase::Drawing => times.push(deadline.saturating_sub(task.terms.draw_ms / 2)),
            Phase::Scoring => times.push(deadline + task.terms.draw_ms),
            _ => {}
        }
    }
    for task in
        view.state.tasks.values().filter(|task| task.ending == Ending::Consensus && task.phase.is_final())
    {
        times.push(task.deadline + task.terms.audit_ms);
    }
    times.retain(|time| *time >= view.now);
    times.sort_unstable();
    times
}

/// Times at which something changes that takes long.
pub fn far_times(view: &View<'_>) -> Vec<Millis> {
    let Ok(root) = view.state.root() else { return Vec::new() };
    let mut times = vec![(view.now / root.epoch_ms + 1) * root.epoch_ms];
    for node in view.state.nodes.values() {
        times.extend(
            node.stake.tranches.iter().filter(|tranche| tranche.amount > 0).map(|tranche| tranche.until),
        );
    }
    times.extend(view.state.auditors.values().map(|auditor| auditor.unbonds_at));
    for pending in view.state.changes.values() {
        times.extend([pending.acts_at, pending.acts_at + 7 * DAY]);
    }
    let over = view.state.tasks.values().filter(|task| task.phase.is_final());
    times.extend(over.map(|task| task.deadline + root.global.archive_ms));
    times.retain(|time| *time >= view.now);
    times.sort_unstable();
    times.dedup();
    times
}

/// Whose account an act empties or fills.
pub fn poor(n: [u32; 4]) -> usize {
    one_of(POOR, n[0])
}

/// Nobody but the contract's first owner governs at first.
pub fn first_owner() -> usize {
    OWNER
}
