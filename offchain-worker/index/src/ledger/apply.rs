//! What each event does to the books.

use super::books::{add, sub};
use super::{
    AccountBook, Announced, Block, Body, DayBook, End, Entry, Fact, Facts, Finding, Id, KindBook, Ledger,
    NodeBook, NodeDay, Opened, Out, Record, TaskBook, DAY_MS,
};
use parity_scale_codec::Encode;
use poq_chain::events::{
    Administration, NodeChange, NodeRegistered, PanelDrawn, TaskAudited, TaskClosed, TaskRequested,
};
use poq_chain::explain::Totals;
use poq_chain::json::ToJson;
use poq_chain::types::{
    epoch_of, token_f1, Answer, Balance, BondChange, Change, Conduct, Draw, Ending, Node, NodeId, NodeInfo,
    NodeStatus, OutputState, Phase, Population, Ratio, Request, Role, Source, Stake, Standing, Step, Task,
    TaskId, Terms, TrustState, MAX_OPEN,
};
use poq_chain::{to_account32, PoqEvent};
use poq_core::node::Outcome;
use poq_core::task::penalties::evaluator_penalty;
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What stands for every commitment: no event tells them. The hash function that opens them answers the same, because the contract has
/// checked what is opened before it emitted the event.
const COMMITTED: [u8; 32] = [1; 32];

fn opens(_: &[u8]) -> [u8; 32] {
    COMMITTED
}

/// Where an event is.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) block: Block,
    pub(super) index: u32,
    pub(super) extrinsic: Option<u32>,
}

impl Spot {
    pub(super) fn finding(
        &self,
        task: Option<TaskId>,
        check: &str,
        what: &str,
        expected: Value,
        found: Value,
    ) -> Finding {
        Finding {
            block: self.block.number,
            index: self.index,
            task,
            check: check.to_owned(),
            what: what.to_owned(),
            expected,
            found,
        }
    }
}

/// What a message's steps must have paid to their keepers, in order, until the event that says so.
type Expected = HashMap<(Option<u32>, TaskId), Vec<Balance>>;

/// A block being applied.
pub(super) struct Course<'a> {
    pub(super) out: &'a mut Out,
    facts: &'a Facts,
    /// The steps that were a keeper's, by extrinsic and task.
    kept: BTreeSet<(Option<u32>, TaskId)>,
    /// The last event of the block that configured a node.
    configured: BTreeMap<NodeId, u32>,
    fees: Expected,
    part: (u32, u32),
}

impl Course<'_> {
    pub(super) fn strange(&mut self, finding: Finding) {
        self.out.strange.push(finding);
    }

    fn compare(
        &mut self,
        spot: &Spot,
        task: Option<TaskId>,
        check: &str,
        what: &str,
        expected: Value,
        found: Value,
    ) {
        if expected != found {
            self.out.strange.push(spot.finding(task, check, what, expected, found));
        }
    }

    fn refused(&mut self, spot: &Spot, task: Option<TaskId>, event: &str, why: impl ToString) {
        self.strange(spot.finding(
            task,
            "what the protocol allows",
            event,
            json!("what the protocol allows"),
            json!(why.to_string()),
        ));
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn entry(
        &mut self,
        spot: &Spot,
        account: Id,
        what: &'static str,
        amount: Balance,
        node: Option<NodeId>,
        task: Option<TaskId>,
        pool: Option<Id>,
    ) {
        if amount == 0 {
            return;
        }
        self.part = match self.part {
            (index, part) if index == spot.index => (index, part.saturating_add(1)),
            _ => (spot.index, 0),
        };
        self.out.touched.entries.push(Entry {
            account,
            block: spot.block.number,
            index: spot.index,
            part: self.part.1,
            at: spot.block.at,
            what,
            amount,
            node,
            task,
            pool,
        });
    }
}

impl Ledger {
    /// Moves the books on by a block.
    pub fn apply(&mut self, facts: &Facts, out: &mut Out) {
        let mut kept = BTreeSet::new();
        let mut configured = BTreeMap::new();
        for fact in &facts.events {
            match &fact.body {
                Body::Core(PoqEvent::KeeperPaid(e)) => {
                    kept.extend(e.items.iter().map(|(task, _)| (fact.extrinsic, *task)));
                }
                Body::Core(PoqEvent::NodeChanged(e)) if e.change == NodeChange::Configured => {
                    configured.insert(e.node, fact.index);
                }
                _ => {}
            }
        }
        let part = (u32::MAX, 0);
        let mut course = Course { out, facts, kept, configured, fees: Expected::new(), part };
        self.begin_day(facts.block.at);
        for fact in &facts.events {
            let spot = Spot { block: facts.block, index: fact.index, extrinsic: fact.extrinsic };
            self.sums.events = self.sums.events.saturating_add(1);
            match &fact.body {
                Body::Core(event) => {
                    let tasks = event.tasks().into_iter();
                    let (block, index) = (facts.block.number, fact.index);
                    course.out.touched.task_events.extend(tasks.map(|task| (task, block, index)));
                    self.core(&mut course, &spot, event);
                }
                Body::Pool(event) => self.pool(&mut course, &spot, fact, event),
                Body::Strange(why) => course.refused(&spot, None, fact.name(), why),
            }
        }
        for (pool, read) in &facts.pools {
            if let Some(book) = self.pools.get_mut(pool) {
                book.state = Some((read.clone(), facts.block.number));
                course.out.touched.pools.insert(*pool);
            }
        }
        if !facts.events.is_empty() {
            course.out.touched.days.insert(self.day.day, self.day);
        }
    }

    fn begin_day(&mut self, at: u64) {
        let day = at.checked_div(DAY_MS).unwrap_or(0);
        if day != self.day.day {
            self.day = DayBook { day, ..DayBook::default() };
        }
    }

    fn core(&mut self, course: &mut Course<'_>, spot: &Spot, event: &PoqEvent) {
        match event {
            PoqEvent::NodeRegistered(e) => self.registered(course, spot, e),
            PoqEvent::NodeChanged(e) => self.changed(course, spot, e.node, e.change),
            PoqEvent::Staked(e) => {
                add(&mut self.owes.stakes, e.amount);
                let owner = self.with(course, spot, e.node, |node| node.stake.stake(e.amount));
                if let Some(owner) = owner {
                    self.account(course, spot, owner, |account| add(&mut account.staked, e.amount));
                    course.entry(spot, owner, "stake", e.amount, Some(e.node), None, None);
                }
            }
            PoqEvent::Unstaked(e) => {
                let unbonding_ms = self.global.unbonding_ms;
                let now = spot.block.at;
                let mut until = None;
                let owner = self.with(course, spot, e.node, |node| {
                    until = Some(node.stake.unstake(e.amount, now, unbonding_ms)?);
                    Ok(())
                });
                course.compare(spot, None, "when unbonding ends", "until", json!(until), json!(e.until));
                if let Some(owner) = owner {
                    course.entry(spot, owner, "unstake", e.amount, Some(e.node), None, None);
                }
            }
            PoqEvent::StakeWithdrawn(e) => {
                sub(&mut self.owes.stakes, e.amount);
                let (now, mut amount) = (spot.block.at, 0);
                let owner = self.with(course, spot, e.node, |node| {
                    amount = node.stake.withdraw(now);
                    Ok(())
                });
                let (expected, found) = (amount.to_json(), e.amount.to_json());
                course.compare(spot, None, "what has unbonded", "amount", expected, found);
                let to = to_account32(&e.to).0;
                course.compare(spot, None, "whose stake it is", "to", json!(owner), json!(Some(to)));
                self.account(course, spot, to, |account| add(&mut account.unstaked, e.amount));
                course.entry(spot, to, "stake_returned", e.amount, Some(e.node), None, None);
            }
            PoqEvent::Claimed(e) => {
                sub(&mut self.owes.claimable, e.amount);
                let mut claimable = 0;
                self.with(course, spot, e.node, |node| {
                    claimable = std::mem::take(&mut node.claimable);
                    add(&mut node.withdrawn, e.amount);
                    Ok(())
                });
                let (expected, found) = (claimable.to_json(), e.amount.to_json());
                course.compare(spot, None, "what was claimable", "amount", expected, found);
                let to = to_account32(&e.to).0;
                self.account(course, spot, to, |account| add(&mut account.claimed, e.amount));
                course.entry(spot, to, "claim", e.amount, Some(e.node), None, None);
            }
            PoqEvent::TaskRequested(e) => self.requested(course, spot, e),
            PoqEvent::OutputsCommitted(e) => {
                let epoch_ms = self.network.epoch_ms;
                for (task, node) in &e.items {
                    self.move_on(course, spot, *task, event.name(), |task| {
                        task.commit_output(*node, COMMITTED, spot.block.at, epoch_ms).map(drop)
                    });
                }
            }
            PoqEvent::Declined(e) => {
                let epoch_ms = self.network.epoch_ms;
                for item in &e.items {
                    self.move_on(course, spot, item.task, event.name(), |task| {
                        task.decline(item.node, spot.block.at, epoch_ms).map(drop)
                    });
                }
            }
            PoqEvent::OutputsOpened(e) => {
                let network = self.network;
                for item in &e.items {
                    self.move_on(course, spot, item.task, event.name(), |task| {
                        let (id, now) = (item.task, spot.block.at);
                        task.open_output(
                            id,
                            item.node,
                            &item.opened,
                            now,
                            network.epoch_ms,
                            &network.hash,
                            opens,
                        )
                        .map(drop)
                    });
                }
            }
            PoqEvent::PanelDrawn(e) => self.drawn(course, spot, e),
            PoqEvent::PanelShort(e) => {
                let network = self.network;
                self.move_on(course, spot, e.task, event.name(), |task| {
                    // The event does not tell what the message opened.
                    let openings = unknown_openings(task);
                    let draw = Draw { task: e.task, secret: [0; 32], openings };
                    task.unseal(&draw, spot.block.at, network.epoch_ms, &network.hash, opens)?;
                    task.seed = [0; 32];
                    task.short = true;
                    Ok(())
                });
                if let Some(book) = self.tasks.get_mut(&e.task) {
                    book.hashed = book.task.outputs.iter().all(|slot| slot.hash != [0; 32]);
                }
            }
            PoqEvent::ScoresCommitted(e) => {
                for (task, node) in &e.items {
                    self.move_on(course, spot, *task, event.name(), |task| {
                        task.commit_scores(*node, COMMITTED, spot.block.at).map(drop)
                    });
                }
            }
            PoqEvent::ScoresRevealed(e) => {
                let network = self.network;
                for item in &e.items {
                    self.move_on(course, spot, item.task, event.name(), |task| {
                        task.reveal(item, spot.block.at, &network.hash, opens).map(drop)
                    });
                }
            }
            PoqEvent::TaskClosed(e) => self.closed(course, spot, e),
            PoqEvent::TaskAudited(e) => self.audited(course, spot, e),
            PoqEvent::KeeperPaid(e) => {
                let keeper = to_account32(&e.keeper).0;
                for (task, amount) in &e.items {
                    let fees = course.fees.entry((spot.extrinsic, *task)).or_default();
                    let due = if fees.is_empty() { 0 } else { fees.remove(0) };
                    let (expected, found) = (due.to_json(), amount.to_json());
                    course.compare(spot, Some(*task), "what the step pays", "amount", expected, found);
                    add(&mut self.sums.keepers, *amount);
                    add(&mut self.day.keepers, *amount);
                    sub(&mut self.owes.escrow, *amount);
                    add(&mut self.owes.claimable, *amount);
                    self.account(course, spot, keeper, |account| {
                        add(&mut account.keeper, *amount);
                        add(&mut account.credit, *amount);
                    });
                    course.entry(spot, keeper, "keeper_fee", *amount, None, Some(*task), None);
                }
            }
            PoqEvent::AuditorChanged(e) => {
                let account = to_account32(&e.account).0;
                match e.change {
                    BondChange::None => {}
                    BondChange::Added(amount) => {
                        add(&mut self.owes.bonds, amount);
                        course.entry(spot, account, "bond", amount, None, None, None);
                    }
                    BondChange::Slashed(amount) => {
                        sub(&mut self.owes.bonds, amount);
                        add(&mut self.owes.burned, amount);
                        add(&mut self.sums.burned, amount);
                        add(&mut self.sums.slashed, amount);
                        course.entry(spot, account, "bond_slashed", amount, None, None, None);
                    }
                    BondChange::Paid(amount) => {
                        sub(&mut self.owes.bonds, amount);
                        course.entry(spot, account, "bond_returned", amount, None, None, None);
                    }
                }
                self.account(course, spot, account, |book| book.bond = e.auditor.bond);
                self.auditors.insert(account, (e.auditor, spot.block.number));
                course.out.touched.auditors.insert(account);
            }
            PoqEvent::Collected(e) => {
                sub(&mut self.owes.refunds, e.amount);
                let to = to_account32(&e.to).0;
                if let Some(book) = self.tasks.get_mut(&e.task) {
                    book.collected = Some(spot.block.number);
                    let expected = json!({
                        "to": to_account32(&book.task.requester).to_json(),
                        "amount": book.task.refund.to_json(),
                    });
                    let found = json!({ "to": to_account32(&e.to).to_json(), "amount": e.amount.to_json() });
                    course.compare(spot, Some(e.task), "what was to be collected", "refund", expected, found);
                } else {
                    course.refused(spot, Some(e.task), event.name(), "there is no such task");
                }
                course.out.touched.tasks.insert(e.task);
                self.account(course, spot, to, |account| add(&mut account.refunds, e.amount));
                course.entry(spot, to, "refund", e.amount, None, Some(e.task), None);
            }
            PoqEvent::Withdrawn(e) => {
                sub(&mut self.owes.claimable, e.amount);
                let to = to_account32(&e.to).0;
                // A refund that could not be paid became credit, which no event tells: then this is more than there was.
                self.account(course, spot, to, |account| account.credit = 0);
                course.entry(spot, to, "withdrawal", e.amount, None, None, None);
            }
            PoqEvent::Burned(e) => {
                sub(&mut self.owes.burned, e.amount);
                add(&mut self.sums.sent, e.amount);
            }
            PoqEvent::Proposed(e) => {
                let announced = Announced {
                    placed: (spot.block.number, spot.index, spot.block.at),
                    change: e.change.clone(),
                    acts_at: e.acts_at,
                    state: "pending",
                    state_at: None,
                };
                self.announced(course, announced);
            }
            PoqEvent::Enacted(e) => {
                if let Change::Global(global) = &e.change {
                    self.global = *global;
                }
                let placed = (spot.block.number, spot.index, spot.block.at);
                let announced = match self.pending.remove(&e.change.lever().encode()) {
                    Some(announced) if announced.change == e.change => Announced {
                        state: "enacted",
                        state_at: Some((spot.block.number, spot.block.at)),
                        ..announced
                    },
                    _ => Announced {
                        placed,
                        change: e.change.clone(),
                        acts_at: spot.block.at,
                        state: "at_once",
                        state_at: Some((spot.block.number, spot.block.at)),
                    },
                };
                course.out.touched.changes.insert((announced.placed.0, announced.placed.1), announced);
            }
            PoqEvent::Cancelled(e) => {
                if let Some(announced) = self.pending.remove(&e.lever.encode()) {
                    let state_at = Some((spot.block.number, spot.block.at));
                    let announced = Announced { state: "cancelled", state_at, ..announced };
                    course.out.touched.changes.insert((announced.placed.0, announced.placed.1), announced);
                }
            }
            PoqEvent::TreasuryWithdrawn(e) => {
                sub(&mut self.owes.treasury, e.amount);
                add(&mut self.sums.withdrawn, e.amount);
                let to = to_account32(&e.to).0;
                self.account(course, spot, to, |_| {});
                course.entry(spot, to, "treasury", e.amount, None, None, None);
            }
            PoqEvent::KindSet(e) => {
                let params = Arc::new(e.params.clone());
                let kind = self.kinds.entry(e.kind).or_insert_with(|| KindBook {
                    version: 0,
                    versions: BTreeMap::new(),
                    population: Population::new(&e.params),
                });
                let expected = kind.version.saturating_add(1);
                kind.version = e.version;
                kind.versions.insert(e.version, params.clone());
                course.compare(spot, None, "a kind's version", "version", json!(expected), json!(e.version));
                let touched = &mut course.out.touched;
                touched.kinds.insert(e.kind);
                touched.versions.push((e.kind, e.version, spot.block.number, spot.block.at, params));
            }
            PoqEvent::Administered(e) => match e.what {
                Administration::Paused(paused) => self.paused = paused,
                Administration::Proposed(_) => {}
                Administration::Owner(owner) => self.owner = to_account32(&owner),
            },
            other => course.refused(spot, None, other.name(), "an event that this version does not know"),
        }
    }

    fn announced(&mut self, course: &mut Course<'_>, announced: Announced) {
        course.out.touched.changes.insert((announced.placed.0, announced.placed.1), announced.clone());
        let lapsed = self.pending.insert(announced.change.lever().encode(), announced);
        // The one that it takes the place of had lapsed: else it would have been refused.
        if let Some(lapsed) = lapsed {
            let lapsed = Announced { state: "lapsed", ..lapsed };
            course.out.touched.changes.insert((lapsed.placed.0, lapsed.placed.1), lapsed);
        }
    }

    /// An account's book, which the event touches.
    pub(super) fn account(
        &mut self,
        course: &mut Course<'_>,
        spot: &Spot,
        account: Id,
        change: impl FnOnce(&mut AccountBook),
    ) {
        let book = self.accounts.entry(account).or_default();
        change(book);
        let number = spot.block.number;
        let first = book.blocks.map_or(number, |(first, _)| first);
        book.blocks = Some((first, number));
        course.out.touched.accounts.insert(account);
    }

    /// Changes a node; who owns it.
    fn with(
        &mut self,
        course: &mut Course<'_>,
        spot: &Spot,
        id: NodeId,
        change: impl FnOnce(&mut Node) -> Result<(), poq_core::registry::Error>,
    ) -> Option<Id> {
        let Some(book) = self.nodes.get_mut(&id) else {
            course.refused(spot, None, &format!("node {id}"), "it was never registered");
            return None;
        };
        let result = change(&mut book.node);
        book.last = (spot.block.number, spot.block.at);
        let owner = to_account32(&book.node.owner).0;
        course.out.touched.nodes.insert(id);
        if let Err(error) = result {
            course.refused(spot, None, &format!("node {id}"), error);
        }
        Some(owner)
    }

    /// Moves a task on.
    fn move_on(
        &mut self,
        course: &mut Course<'_>,
        spot: &Spot,
        id: TaskId,
        event: &str,
        step: impl FnOnce(&mut Task) -> Result<(), poq_core::task::Refusal>,
    ) {
        course.out.touched.tasks.insert(id);
        let result = match self.tasks.get_mut(&id) {
            Some(book) => step(&mut book.task).map_err(|refusal| refusal.to_string()),
            None => Err("there is no such task".to_owned()),
        };
        if let Err(why) = result {
            course.refused(spot, Some(id), event, why);
        }
    }

    /// Pays the keeper of a step that is about to be taken, if it was one's.
    fn keep(&mut self, course: &mut Course<'_>, spot: &Spot, id: TaskId) {
        let key = (spot.extrinsic, id);
        if course.kept.contains(&key) {
            if let Some(book) = self.tasks.get_mut(&id) {
                let fee = book.task.pay_keeper(spot.block.at);
                if fee > 0 {
                    course.fees.entry(key).or_default().push(fee);
                }
            }
        }
    }

    fn registered(&mut self, course: &mut Course<'_>, spot: &Spot, e: &NodeRegistered) {
        let view = course.facts.nodes.get(&e.node);
        let price = view.map(|view| view.node.price);
        let trust = match e.role {
            Role::Inference => Ratio::ONE,
            Role::Evaluator => {
                let newest = self.kinds.get(&e.kind).and_then(KindBook::newest);
                newest.map_or(Ratio::ZERO, |params| params.trust_initial)
            }
        };
        let node = Node {
            owner: e.owner,
            operator: e.operator,
            payee: view.map_or(e.owner, |view| view.node.payee),
            role: e.role,
            kind: e.kind,
            status: NodeStatus::Active,
            model_digest: e.model_digest,
            price: price.unwrap_or(0),
            stake: Stake::default(),
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
        let book = NodeBook {
            node,
            info: NodeInfo {
                model: e.model.clone(),
                endpoint: view.map(|view| view.info.endpoint.clone()).unwrap_or_default(),
                registered_at: spot.block.at,
            },
            // What was read is as of the block's end.
            priced: price.is_some() && !course.configured.contains_key(&e.node),
            gone: false,
            registered: spot.block.number,
            earned: 0,
            missed: 0,
            scored: 0,
            quality_sum: 0,
            cost_sum: 0,
            answered: 0,
            latency_sum: 0,
            last: (spot.block.number, spot.block.at),
            day: Default::default(),
        };
        self.sums.nodes = self.sums.nodes.saturating_add(1);
        let owner = to_account32(&e.owner).0;
        self.account(course, spot, owner, |_| {});
        self.nodes.insert(e.node, book);
        course.out.touched.nodes.insert(e.node);
        course.compare(spot, None, "a node's number", "node", json!(self.sums.nodes), json!(e.node));
    }

    fn changed(&mut self, course: &mut Course<'_>, spot: &Spot, id: NodeId, change: NodeChange) {
        self.with(course, spot, id, |node| {
            match change {
                NodeChange::Draining => node.status = NodeStatus::Draining,
                NodeChange::Resumed => (node.status, node.misses) = (NodeStatus::Active, 0),
                NodeChange::Configured | NodeChange::Deregistered => {}
            }
            Ok(())
        });
        let Some(book) = self.nodes.get_mut(&id) else { return };
        match (change, course.facts.nodes.get(&id)) {
            (NodeChange::Deregistered, _) => book.gone = true,
            (NodeChange::Configured, Some(view)) => {
                book.node.operator = view.node.operator;
                book.node.payee = view.node.payee;
                book.node.price = view.node.price;
                book.info.endpoint.clone_from(&view.info.endpoint);
                book.priced = course.configured.get(&id) == Some(&spot.index);
            }
            (NodeChange::Configured, None) => book.priced = false,
            _ => {}
        }
    }

    fn requested(&mut self, course: &mut Course<'_>, spot: &Spot, e: &TaskRequested) {
        let requester = to_account32(&e.requester).0;
        self.sums.requested = self.sums.requested.saturating_add(1);
        add(&mut self.sums.fees, e.fee);
        self.day.requested = self.day.requested.saturating_add(1);
        add(&mut self.day.fees, e.fee);
        add(&mut self.owes.escrow, e.fee);
        self.account(course, spot, requester, |account| {
            account.tasks = account.tasks.saturating_add(1);
            add(&mut account.fees, e.fee);
        });
        course.entry(spot, requester, "fee", e.fee, None, Some(e.task), None);
        let (number, due) = (json!(e.task), json!(self.sums.requested));
        course.compare(spot, None, "a task's number", "task", due, number);
        let outputs = u8::try_from(e.nodes.len()).unwrap_or(u8::MAX);
        let params = self.params(e.kind, e.version).cloned();
        let split = params.as_ref().and_then(|params| params.split(e.fee, outputs, e.panel));
        let (Some(params), Some(split)) = (params, split) else {
            let why = "the kind has no such parameters, or the fee does not fill their slots";
            return course.refused(spot, Some(e.task), "TaskRequested", why);
        };
        let terms = Terms::new(&params, e.version, &split, e.panel);
        let mut priced = true;
        let assigned: Vec<(NodeId, Balance)> = e
            .nodes
            .iter()
            .map(|node| {
                let book = self.nodes.get(node);
                priced &= book.is_some_and(|book| book.priced);
                (*node, book.map_or(0, |book| book.node.price))
            })
            .collect();
        let request = Request {
            kind: e.kind,
            fee: e.fee,
            nodes: e.nodes.clone(),
            outputs,
            panel: e.panel,
            input: Source::Inline(Vec::new()),
            reference_commitment: COMMITTED,
            secret_hash: COMMITTED,
            early: e.early,
        };
        let input = e.input.clone();
        let task =
            Task::new(e.requester, &request, input, terms, params.inference_ms, &assigned, spot.block.at);
        let (expected, found) = (json!(task.deadline), json!(e.deadline));
        course.compare(spot, Some(e.task), "until when outputs must be there", "deadline", expected, found);
        for (node, _) in &assigned {
            self.with(course, spot, *node, |node| node.take(e.task, terms.inference_at_risk));
        }
        let book = TaskBook {
            task,
            requested: spot.block.number,
            priced,
            hashed: true,
            totals: None,
            quality: None,
            collected: None,
            audited: None,
        };
        self.tasks.insert(e.task, book);
        course.out.touched.tasks.insert(e.task);
    }

    fn drawn(&mut self, course: &mut Course<'_>, spot: &Spot, e: &PanelDrawn) {
        let network = self.network;
        let now = spot.block.at;
        self.keep(course, spot, e.task);
        let Some(book) = self.tasks.get_mut(&e.task) else {
            return course.refused(spot, Some(e.task), "PanelDrawn", "there is no such task");
        };
        course.out.touched.tasks.insert(e.task);
        let task = &mut book.task;
        let mut vacated = Vec::new();
        if e.filled {
            let params = self.kinds.get(&task.kind).and_then(|kind| kind.versions.get(&task.terms.version));
            let missed = params
                .map(|params| evaluator_penalty(params, task.terms.evaluator_slot, &Conduct::Missed))
                .unwrap_or_default();
            vacated = task.vacate().into_iter().map(|node| (node, missed)).collect();
        } else {
            let draw = Draw { task: e.task, secret: e.secret, openings: e.outputs.clone() };
            if let Err(refusal) = task.unseal(&draw, now, network.epoch_ms, &network.hash, opens) {
                course.refused(spot, Some(e.task), "PanelDrawn", refusal);
            }
            task.seed = e.seed;
            if book.hashed {
                let opened = task.outputs.iter().filter(|slot| slot.state == OutputState::Opened);
                let salts: Vec<_> = opened.map(|slot| slot.salt).collect();
                let seed = network.panel_seed(e.task, &e.secret, &salts);
                let check = "the seed of the panel, from the secret and the salts";
                course.compare(spot, Some(e.task), check, "seed", seed.to_json(), e.seed.to_json());
            }
        }
        task.seat(e.nodes.iter().copied(), now);
        let check = "until when scores must be committed to";
        course.compare(spot, Some(e.task), check, "deadline", json!(task.deadline), json!(e.deadline));
        let terms = task.terms;
        let gone: Vec<Value> = vacated.iter().map(|(node, lost)| json!([node, lost.to_json()])).collect();
        let told: Vec<Value> =
            e.vacated.iter().map(|lost| json!([lost.node, lost.amount.to_json()])).collect();
        let check = "who lost a seat, and what it cost";
        course.compare(spot, Some(e.task), check, "vacated", json!(gone), json!(told));
        for lost in &e.vacated {
            let outcome = Outcome {
                task: e.task,
                at_risk: terms.evaluator_at_risk,
                payout: 0,
                slashed: lost.amount,
                missed: true,
                record: None,
                due: 0,
            };
            self.finish(course, spot, e.task, lost.node, &outcome, None);
            add(&mut self.owes.burned, lost.amount);
            sub(&mut self.owes.stakes, lost.amount);
            add(&mut self.sums.burned, lost.amount);
            add(&mut self.sums.slashed, lost.amount);
            add(&mut self.day.slashed, lost.amount);
        }
        for node in &e.nodes {
            self.with(course, spot, *node, |node| node.take(e.task, terms.evaluator_at_risk));
        }
    }

    /// Ends a node's duty. `measured` is its cost, and its latency where it committed.
    fn finish(
        &mut self,
        course: &mut Course<'_>,
        spot: &Spot,
        task: TaskId,
        id: NodeId,
        outcome: &Outcome,
        measured: Option<(u32, Option<u64>)>,
    ) {
        let epoch = epoch_of(spot.block.at, self.network.epoch_ms);
        let kind = self.nodes.get(&id).map(|book| book.node.kind);
        // What a node weighs from the next epoch on is not kept.
        let params = kind.and_then(|kind| self.kinds.get(&kind)?.newest().cloned()).unwrap_or_default();
        let Some(owner) = self.with(course, spot, id, |node| node.finish(outcome, &params, epoch)) else {
            return;
        };
        if let Some(book) = self.nodes.get_mut(&id) {
            let day = spot.block.at.checked_div(DAY_MS).unwrap_or(0);
            if book.day.0 != day {
                book.day = (day, NodeDay::default());
            }
            let today = &mut book.day.1;
            add(&mut book.earned, outcome.payout);
            add(&mut today.earned, outcome.payout);
            add(&mut today.slashed, outcome.slashed);
            today.tasks = today.tasks.saturating_add(1);
            if outcome.missed {
                book.missed = book.missed.saturating_add(1);
                today.missed = today.missed.saturating_add(1);
            }
            if let (Some((_, value)), Some((cost, _))) = (outcome.record, measured) {
                let (value, cost) = (u64::from(value.ppb()), u64::from(cost));
                book.scored = book.scored.saturating_add(1);
                today.scored = today.scored.saturating_add(1);
                book.quality_sum = book.quality_sum.saturating_add(value);
                today.quality_sum = today.quality_sum.saturating_add(value);
                book.cost_sum = book.cost_sum.saturating_add(cost);
                today.cost_sum = today.cost_sum.saturating_add(cost);
            }
            if let Some((_, Some(latency))) = measured {
                book.answered = book.answered.saturating_add(1);
                book.latency_sum = book.latency_sum.saturating_add(latency);
            }
            course.out.touched.node_days.insert((id, day), book.day.1);
        }
        self.account(course, spot, owner, |account| {
            add(&mut account.rewards, outcome.payout);
            add(&mut account.slashed, outcome.slashed);
        });
        course.entry(spot, owner, "reward", outcome.payout, Some(id), Some(task), None);
        course.entry(spot, owner, "slash", outcome.slashed, Some(id), Some(task), None);
    }

    fn closed(&mut self, course: &mut Course<'_>, spot: &Spot, e: &TaskClosed) {
        let now = spot.block.at;
        self.keep(course, spot, e.task);
        let params = self.params(e.kind, e.version).cloned();
        let (mut expected, mut record, mut outcomes) = (None, None, Vec::new());
        if let (Some(book), Some(kind)) = (self.tasks.get_mut(&e.task), self.kinds.get(&e.kind)) {
            let task = &mut book.task;
            if !book.priced {
                // A price that nobody can tell from the events is taken as the event has it.
                task.outputs
                    .iter_mut()
                    .zip(&e.input.outputs)
                    .for_each(|(slot, told)| slot.price = told.price);
            }
            let ending = match task.clock().step(now) {
                Step::End(ending) => ending,
                _ => Ending::Consensus,
            };
            let nodes = &self.nodes;
            let standing =
                |node| nodes.get(&node).map_or((Ratio::ZERO, 0), |book| (book.node.trust, book.node.due));
            expected = Some(task.settlement_input(ending, standing, &kind.population, now));
            if task.short && task.panel.iter().all(|seat| seat.node == 0) {
                // Of a draw that found too few, no event tells the seed.
                task.seed = e.seed;
            }
            record = Some(Record {
                requester: to_account32(&task.requester),
                kind: task.kind,
                version: task.terms.version,
                seed: task.seed,
                outputs: task.outputs.iter().map(|slot| slot.node).collect(),
                panel: task.panel.iter().map(|seat| seat.node).collect(),
            });
            outcomes = task.outcomes(e.task, &e.input, &e.settlement);
            task.close(&e.settlement, now, spot.block.number);
            let totals = totals(e);
            book.quality = e.settlement.consensus.map(Ratio::ppb);
            book.totals = Some(totals);
            self.final_tasks.push_back(e.task);
            course.out.touched.tasks.insert(e.task);
        } else {
            course.refused(spot, Some(e.task), "TaskClosed", "there is no such task, or no such kind");
        }
        // Costs and latencies, in the order of the outcomes: outputs, then seats that are not vacant.
        let outputs = e.input.outputs.iter().zip(&e.settlement.outputs).map(|(input, out)| {
            let latency = match input.answer {
                Answer::Delivered { latency_ms } => Some(latency_ms),
                _ => None,
            };
            (out.cost.ppb(), latency)
        });
        let panel = e.input.panel.iter().zip(&e.settlement.panel);
        let panel = panel
            .filter(|(input, _)| input.conduct != Conduct::Vacant)
            .map(|(input, out)| (out.cost.ppb(), (input.latency_ms > 0).then_some(input.latency_ms)));
        let measured: Vec<_> = outputs.chain(panel).collect();
        for (place, (node, outcome)) in outcomes.into_iter().enumerate() {
            self.finish(course, spot, e.task, node, &outcome, measured.get(place).copied());
        }
        let totals = totals(e);
        let sums = &mut self.sums;
        match e.settlement.ending {
            Ending::Consensus => {
                sums.settled = sums.settled.saturating_add(1);
                self.day.settled = self.day.settled.saturating_add(1);
            }
            _ => {
                sums.refunded = sums.refunded.saturating_add(1);
                self.day.refunded = self.day.refunded.saturating_add(1);
            }
        }
        let lost = totals.burned.saturating_add(totals.slashed);
        add(&mut sums.paid, totals.paid);
        add(&mut sums.burned, lost);
        add(&mut sums.slashed, totals.slashed);
        add(&mut sums.treasury, totals.treasury);
        add(&mut self.day.paid, totals.paid);
        add(&mut self.day.burned, totals.burned);
        add(&mut self.day.slashed, totals.slashed);
        add(&mut self.day.treasury, totals.treasury);
        let owes = &mut self.owes;
        sub(&mut owes.escrow, e.input.fee.saturating_sub(e.input.keepers));
        add(&mut owes.claimable, totals.paid);
        add(&mut owes.refunds, totals.refund);
        add(&mut owes.treasury, totals.treasury);
        sub(&mut owes.stakes, totals.slashed);
        add(&mut owes.burned, lost);
        if let (Some(kind), Some(params)) = (self.kinds.get_mut(&e.kind), &params) {
            kind.population.absorb(params, &e.settlement, &e.seed, now);
            course.out.touched.kinds.insert(e.kind);
        }
        course.out.ends.push(End {
            block: spot.block,
            index: spot.index,
            event: copy_of_end(e),
            params,
            expected,
            record,
        });
    }

    fn audited(&mut self, course: &mut Course<'_>, spot: &Spot, e: &TaskAudited) {
        let now = spot.block.at;
        let opening = &e.opening;
        let (mut expected, mut hashes, mut panel, mut params) = (None, Vec::new(), Vec::new(), None);
        let found = self.tasks.get_mut(&e.task).filter(|book| book.task.phase == Phase::Settled);
        if let Some(book) = found {
            let task = &mut book.task;
            let state = |node| {
                self.nodes.get(&node).map_or(TrustState::default(), |book| TrustState {
                    trust: book.node.trust,
                    gain_average: book.node.gain_average,
                })
            };
            let truth = opening
                .outputs
                .iter()
                .map(|text| text.as_ref().map(|text| token_f1(&opening.reference, text)))
                .collect();
            if let Some(kind) = self.kinds.get(&task.kind) {
                expected = Some(task.audit_input(truth, state, &kind.population));
                params = kind.versions.get(&task.terms.version).cloned();
            }
            panel = task.panel.iter().map(|seat| seat.node).collect();
            hashes = task
                .outputs
                .iter()
                .map(|slot| (book.hashed && slot.hash != [0; 32]).then_some(slot.hash))
                .collect();
            if !task.can_audit(now) {
                let why = "its time was over, or it was opened before";
                course.refused(spot, Some(e.task), "TaskAudited", why);
            }
            task.audited = true;
            book.audited = Some(spot.block.number);
            if let Some(kind) = self.kinds.get_mut(&task.kind) {
                kind.population.gain_average = e.audit.gain_average;
                course.out.touched.kinds.insert(task.kind);
            }
            course.out.touched.tasks.insert(e.task);
        } else {
            course.refused(spot, Some(e.task), "TaskAudited", "there is no such settled task");
        }
        for (node, after) in e.panel_nodes.iter().zip(&e.audit.panel).filter(|(node, _)| **node != 0) {
            let mut moved = false;
            self.with(course, spot, *node, |node| {
                moved = (node.trust, node.gain_average) != (after.trust, after.gain_average);
                (node.trust, node.gain_average) = (after.trust, after.gain_average);
                Ok(())
            });
            if moved {
                let (block, at) = (spot.block.number, spot.block.at);
                let state = (after.trust.ppb(), after.gain_average);
                course.out.touched.trust.push((*node, block, spot.index, at, e.task, state.0, state.1));
            }
        }
        course.out.opened.push(Opened {
            block: spot.block,
            index: spot.index,
            event: copy_of_opening(e),
            params,
            expected,
            hashes,
            panel,
        });
    }

    fn pool(&mut self, course: &mut Course<'_>, spot: &Spot, fact: &Fact, event: &super::PoolEventBox) {
        super::pools::apply(self, course, spot, fact.contract.0, event);
    }
}

/// Openings that nobody knows, of the outputs that were committed to.
fn unknown_openings(task: &Task) -> Vec<Option<poq_chain::types::Opened>> {
    let unknown = poq_chain::types::Opened { hash: [0; 32], salt: [0; 32] };
    task.outputs.iter().map(|slot| (slot.state == OutputState::Committed).then_some(unknown)).collect()
}

/// Where a task's money went.
pub(crate) fn totals(e: &TaskClosed) -> Totals {
    let outputs = e.settlement.outputs.iter().map(|output| output.payout);
    let payouts = outputs.chain(e.settlement.panel.iter().map(|seat| seat.payout));
    Totals {
        fee: e.input.fee,
        paid: payouts.fold(0, Balance::saturating_add),
        keepers: e.input.keepers,
        treasury: e.settlement.treasury,
        burned: e.settlement.burned,
        refund: e.settlement.refund,
        slashed: e.settlement.slashed,
    }
}

// ink!'s events do not clone themselves.
fn copy_of_end(e: &TaskClosed) -> Box<TaskClosed> {
    let TaskClosed { task, requester, kind, version, seed, output_nodes, panel_nodes, input, settlement } = e;
    Box::new(TaskClosed {
        task: *task,
        requester: *requester,
        kind: *kind,
        version: *version,
        seed: *seed,
        output_nodes: output_nodes.clone(),
        panel_nodes: panel_nodes.clone(),
        input: input.clone(),
        settlement: settlement.clone(),
    })
}

fn copy_of_opening(e: &TaskAudited) -> Box<TaskAudited> {
    let TaskAudited { task, auditor, opening, panel_nodes, input, audit } = e;
    Box::new(TaskAudited {
        task: *task,
        auditor: *auditor,
        opening: opening.clone(),
        panel_nodes: panel_nodes.clone(),
        input: input.clone(),
        audit: audit.clone(),
    })
}
