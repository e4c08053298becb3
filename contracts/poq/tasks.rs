//! The life of tasks: what `poq_core::task` says, applied to what is stored.

use crate::errors::{Error, Result};
use crate::events::*;
use crate::memory::room;
use crate::money::{add, blake2, check_batch, sub};
use crate::mutant::{self, Mutant};
use crate::poq::Poq;
use crate::storage::Session;
use crate::types::*;
use core::cell::RefCell;
use ink::codegen::Env;
use ink::prelude::{string::String, vec, vec::Vec};
use ink::primitives::AccountId;
use poq_core::formulas::settlement::{settle, Ending};
use poq_core::node::Outcome;
use poq_core::registry::{self, inference_seed, Registry};
use poq_core::task::penalties::evaluator_penalty;
use poq_core::task::Refusal;
use poq_core::units::{Balance, NodeId, Ratio, TaskId};

/// What steps have paid to their keeper in this message.
type Paid = Vec<(TaskId, Balance)>;

/// What a drawn node brings: its number and record.
type Loaded = (NodeId, Node);

/// A batch's results: refused where no item was accepted.
pub(crate) fn batch<T>(results: Vec<Result<T>>) -> Result<Vec<Result<T>>> {
    match results.first() {
        Some(Err(error)) if results.iter().all(Result::is_err) => Err(*error),
        _ => Ok(results),
    }
}

/// The parameters that a task runs under where they are not the newest, which are in its kind's own cell.
#[inline(never)]
pub(crate) fn older_params(session: &Session, task: &Task, kind: &Kind) -> Result<Option<KindParams>> {
    if kind.version == task.terms.version {
        return Ok(None);
    }
    session.version(task.kind, task.terms.version).map(Some)
}

/// Takes an item of a batch on its task. Whether it is new.
type Take<'a> = &'a dyn Fn(&Session, usize, &mut Task) -> Result<bool>;

impl Poq {
    // --- requests ------------------------------------------------------------------------------------------------

    #[inline(never)]
    pub(crate) fn request_all(&self, requests: Vec<Request>) -> Result<Vec<TaskId>> {
        check_batch(requests.len())?;
        if self.paused {
            return Err(Error::Paused);
        }
        let requester = self.env().caller();
        let session = self.session();
        let mut account = session.account(requester);
        if account.tasks.len().saturating_add(requests.len()) > MAX_TASKS_PER_REQUESTER {
            return Err(Error::TooMany);
        }
        let mut books = session.books();
        let mut fees: Balance = 0;
        let mut ids = Vec::with_capacity(requests.len());
        for request in requests {
            let id = books.last_task.checked_add(1).ok_or(Error::Overflow)?;
            books.last_task = id;
            fees = add(fees, request.fee)?;
            remember(&mut account, &request)?;
            account.tasks.push(id);
            self.request_one(&session, id, requester, request)?;
            ids.push(id);
        }
        if fees != self.env().transferred_value() {
            return Err(Error::WrongValue);
        }
        if !mutant::has(Mutant::Fee) {
            books.liabilities.escrow = add(books.liabilities.escrow, fees)?;
        }
        session.set_books(&books);
        session.set_account(requester, &account);
        session.finish();
        Ok(ids)
    }

    #[inline(never)]
    fn request_one(
        &self,
        session: &Session,
        id: TaskId,
        requester: AccountId,
        request: Request,
    ) -> Result<()> {
        room()?;
        let kind = session.kind(request.kind)?;
        let params = &kind.params;
        let outputs = match request.nodes.len() {
            0 => request.outputs,
            named => u8::try_from(named).map_err(|_| Error::PanelSize)?,
        };
        if outputs == 0
            || outputs > params.outputs_max
            || request.panel < params.panel_min
            || request.panel > params.panel_max
        {
            return Err(Error::PanelSize);
        }
        let split = params.split(request.fee, outputs, request.panel).ok_or(Error::BadFee)?;
        let counts = session.counts(PoolId { kind: request.kind, role: Role::Evaluator });
        let latest = counts.latest().len();
        // What a draw would read if the outputs were sealed now, and what it will read in the next epoch.
        let present = counts.at(session.epoch).map_or(0, Counts::len);
        if latest.min(if present == 0 { latest } else { present }) < u32::from(request.panel) {
            return Err(Error::TooFewNodes);
        }
        let (input, data) = input_of(&request.input)?;
        let terms = Terms::new(params, kind.version, &split, request.panel);
        let assigned = self.assign(session, id, &requester, &request, outputs, &terms)?;
        let mut nodes = Vec::with_capacity(assigned.len());
        for (node, mut record) in assigned {
            record.take(id, terms.inference_at_risk)?;
            session.save(node, &record);
            nodes.push((node, record.price));
        }
        let task = Task::new(requester, &request, input, terms, params.inference_ms, &nodes, session.now);
        emit(&TaskRequested {
            task: id,
            requester,
            kind: request.kind,
            version: kind.version,
            fee: request.fee,
            nodes: nodes.iter().map(|(node, _)| *node).collect(),
            panel: request.panel,
            deadline: task.deadline,
            early: request.early,
            input: task.input.clone(),
            data,
        });
        session.set_task(id, &task);
        Ok(())
    }

    /// The inference nodes of a request: those that it names, or as many as it asks for, drawn by the requester's secret's hash
    /// (it could have named them).
    #[inline(never)]
    fn assign(
        &self,
        session: &Session,
        id: TaskId,
        requester: &AccountId,
        request: &Request,
        outputs: u8,
        terms: &Terms,
    ) -> Result<Vec<Loaded>> {
        let can = |node: &Node| node.can_take(terms.inference_at_risk) && node.price <= terms.inference_slot;
        if request.nodes.is_empty() {
            let seed = blake2(&inference_seed(&session.network, id, &request.secret_hash));
            let draw = registry::Draw {
                pool: PoolId { kind: request.kind, role: Role::Inference },
                sealed: session.epoch,
                now: session.epoch,
                seed,
                round: 0,
                seats: outputs,
                seated: &[],
                excluded: &[*requester.as_ref()],
            };
            let drawn = registry::draw(session, &draw, blake2, |_, node| can(node))?;
            return if drawn.full { Ok(drawn.seats) } else { Err(Error::TooFewNodes) };
        }
        let mut chosen: Vec<Loaded> = Vec::with_capacity(request.nodes.len());
        for id in &request.nodes {
            let node = session.load(*id).map_err(|_| Error::NodeUnavailable(*id))?;
            // Whoever is to be in the draws can be named: who registers now, from now on.
            let serves = node.kind == request.kind
                && node.role == Role::Inference
                && *node.standing.weight.latest() > Ratio::ZERO;
            let other = |owner: &AccountId| chosen.iter().all(|(_, other)| other.owner != *owner);
            if !serves || !can(&node) || node.owner == *requester || !other(&node.owner) {
                return Err(Error::NodeUnavailable(*id));
            }
            chosen.push((*id, node));
        }
        Ok(chosen)
    }

    // --- duties --------------------------------------------------------------------------------------------------

    /// Checks that the caller operates the node.
    #[inline(never)]
    fn only_operator(&self, session: &Session, node: NodeId) -> Result<()> {
        if session.accounts_of(node)?.1 == self.env().caller() {
            Ok(())
        } else {
            Err(Error::NotOperator)
        }
    }

    /// Takes the items of a batch, each on its task. Per item whether it is new.
    #[inline(never)]
    fn take(&self, session: &Session, tasks: Vec<TaskId>, take: Take<'_>) -> Result<Vec<Result<bool>>> {
        check_batch(tasks.len())?;
        let mut results = Vec::with_capacity(tasks.len());
        for (at, id) in tasks.into_iter().enumerate() {
            let result = room().and_then(|()| session.task(id)).and_then(|mut task| {
                let new = take(session, at, &mut task)?;
                if new {
                    session.set_task(id, &task);
                }
                Ok(new)
            });
            results.push(result);
        }
        batch(results)
    }

    /// The same for commitments and declines of nodes that the caller operates.
    #[inline(never)]
    fn take_duties(
        &self,
        items: &[(TaskId, NodeId)],
        duty: Take<'_>,
    ) -> Result<(Vec<usize>, Vec<Option<Error>>)> {
        let session = self.session();
        let tasks = items.iter().map(|(task, _)| *task).collect();
        let results = self.take(&session, tasks, &|session, at, task| {
            let (_, node) = items.get(at).ok_or(Error::BatchSize)?;
            self.only_operator(session, *node)?;
            duty(session, at, task)
        })?;
        session.finish();
        Ok(split(results))
    }

    #[inline(never)]
    pub(crate) fn take_commits(&self, items: &[Commit], outputs: bool) -> Result<Vec<Option<Error>>> {
        let pairs: Vec<(TaskId, NodeId)> = items.iter().map(|item| (item.task, item.node)).collect();
        let (new, results) = self.take_duties(&pairs, &|session, at, task| {
            let item = items.get(at).ok_or(Error::BatchSize)?;
            let (node, commitment) = (item.node, item.commitment);
            Ok(if outputs {
                task.commit_output(node, commitment, session.now, session.epoch_ms)?
            } else {
                task.commit_scores(node, commitment, session.now)?
            })
        })?;
        let items: Vec<(TaskId, NodeId)> = new.iter().filter_map(|at| pairs.get(*at).copied()).collect();
        match (items.is_empty(), outputs) {
            (true, _) => {}
            (false, true) => emit(&OutputsCommitted { items }),
            (false, false) => emit(&ScoresCommitted { items }),
        }
        Ok(results)
    }

    #[inline(never)]
    pub(crate) fn take_declines(&self, items: &[Decline]) -> Result<Vec<Option<Error>>> {
        let pairs: Vec<(TaskId, NodeId)> = items.iter().map(|item| (item.task, item.node)).collect();
        let (new, results) = self.take_duties(&pairs, &|session, at, task| {
            let (_, node) = pairs.get(at).ok_or(Error::BatchSize)?;
            Ok(task.decline(*node, session.now, session.epoch_ms)?)
        })?;
        let items: Vec<Decline> = new.iter().filter_map(|at| items.get(*at).copied()).collect();
        if !items.is_empty() {
            emit(&Declined { items });
        }
        Ok(results)
    }

    #[inline(never)]
    pub(crate) fn take_openings(&self, items: &[Open]) -> Result<Vec<Option<Error>>> {
        let session = self.session();
        let tasks = items.iter().map(|item| item.task).collect();
        let results = self.take(&session, tasks, &|session, at, task| {
            let item = items.get(at).ok_or(Error::BatchSize)?;
            let (now, epoch_ms, network) = (session.now, session.epoch_ms, &session.network);
            Ok(task.open_output(item.task, item.node, &item.opened, now, epoch_ms, network, blake2)?)
        })?;
        session.finish();
        let (new, results) = split(results);
        let items: Vec<Open> = new.iter().filter_map(|at| items.get(*at).copied()).collect();
        if !items.is_empty() {
            emit(&OutputsOpened { items });
        }
        Ok(results)
    }

    /// Takes reveals, and settles the tasks whose last one it was.
    #[inline(never)]
    pub(crate) fn take_reveals(&self, items: Vec<Reveal>) -> Result<Vec<Option<Error>>> {
        let session = self.session();
        let tasks = items.iter().map(|item| item.task).collect();
        let closed: RefCell<Vec<TaskClosed>> = RefCell::new(Vec::new());
        // What fails after a reveal was taken fails as a whole.
        let failed: core::cell::Cell<Option<Error>> = core::cell::Cell::new(None);
        let results = self.take(&session, tasks, &|session, at, task| {
            let item = items.get(at).ok_or(Error::BatchSize)?;
            if task.reveal(item, session.now, &session.network, blake2)? {
                match self.close(session, item.task, task, Ending::Consensus) {
                    Ok(event) => closed.borrow_mut().push(event),
                    Err(error) => failed.set(Some(error)),
                }
            }
            Ok(true)
        })?;
        if let Some(error) = failed.get() {
            return Err(error);
        }
        session.finish();
        let (new, results) = split(results);
        emit(&ScoresRevealed { items: new.iter().filter_map(|at| items.get(*at).cloned()).collect() });
        closed.into_inner().iter().for_each(emit);
        Ok(results)
    }

    // --- steps ---------------------------------------------------------------------------------------------------

    #[inline(never)]
    pub(crate) fn draw_all(&self, draws: Vec<Draw>) -> Result<Vec<Result<bool>>> {
        check_batch(draws.len())?;
        let caller = self.env().caller();
        let session = self.session();
        let mut paid = Paid::new();
        let results =
            batch(draws.iter().map(|draw| self.draw_one(&session, draw, &caller, &mut paid)).collect())?;
        self.pay_keeper(&session, caller, paid)?;
        session.finish();
        Ok(results)
    }

    /// Draws a task's panel. Whether there was one.
    #[inline(never)]
    fn draw_one(&self, session: &Session, draw: &Draw, caller: &AccountId, paid: &mut Paid) -> Result<bool> {
        room()?;
        let mut task = session.task(draw.task)?;
        let mut drawn_task = session.task(draw.task)?;
        drawn_task.unseal(draw, session.now, session.epoch_ms, &session.network, blake2)?;
        let seats = u8::try_from(task.panel.len()).map_err(|_| Error::PanelSize)?;
        let drawn = self.evaluators(session, &drawn_task, 0, seats, &[], &[])?;
        // Nothing is refused from here on.
        let outputs = task
            .outputs
            .iter()
            .zip(&drawn_task.outputs)
            .map(|(before, after)| {
                (before.state != after.state).then_some(Opened { hash: after.hash, salt: after.salt })
            })
            .collect();
        if task.requester != *caller && drawn.full {
            let fee = task.pay_keeper(session.now);
            (drawn_task.keepers, drawn_task.keeper_steps) = (task.keepers, task.keeper_steps);
            if fee > 0 {
                paid.push((draw.task, fee));
            }
        }
        if !drawn.full {
            drawn_task.short = true;
            let found = u8::try_from(drawn.seats.len()).unwrap_or(u8::MAX);
            session.set_task(draw.task, &drawn_task);
            emit(&PanelShort { task: draw.task, found });
            return Ok(false);
        }
        let event = self.seat(session, draw.task, &mut drawn_task, drawn.seats)?;
        emit(&PanelDrawn { secret: draw.secret, outputs, ..event });
        session.set_task(draw.task, &drawn_task);
        Ok(true)
    }

    /// Draws evaluators for a task: nobody scores an answer of their own, or one that they asked for.
    #[inline(never)]
    fn evaluators(
        &self,
        session: &Session,
        task: &Task,
        round: u8,
        seats: u8,
        seated: &[registry::Account],
        gone: &[registry::Account],
    ) -> Result<registry::Drawn<Node>> {
        let mut excluded: Vec<registry::Account> = Vec::with_capacity(task.outputs.len().saturating_add(1));
        excluded.push(*task.requester.as_ref());
        excluded.extend_from_slice(gone);
        for slot in &task.outputs {
            excluded.push(*session.accounts_of(slot.node)?.0.as_ref());
        }
        let draw = registry::Draw {
            pool: PoolId { kind: task.kind, role: Role::Evaluator },
            sealed: task.sealed_epoch,
            now: session.epoch,
            seed: task.seed,
            round,
            seats,
            seated,
            excluded: &excluded,
        };
        let at_risk = task.terms.evaluator_at_risk;
        Ok(registry::draw(session, &draw, blake2, |_, node| node.can_take(at_risk))?)
    }

    /// Seats drawn evaluators and puts their stake at risk.
    #[inline(never)]
    fn seat(&self, session: &Session, id: TaskId, task: &mut Task, drawn: Vec<Loaded>) -> Result<PanelDrawn> {
        let mut nodes = Vec::with_capacity(drawn.len());
        let mut weights = Vec::with_capacity(drawn.len());
        for (node, mut record) in drawn {
            let at_risk = if mutant::has(Mutant::Lock) { 0 } else { task.terms.evaluator_at_risk };
            record.take(id, at_risk)?;
            let weight = &record.standing.weight;
            weights.push(*weight.at(task.sealed_epoch).unwrap_or(weight.latest()));
            session.save(node, &record);
            nodes.push(node);
        }
        task.seat(nodes.iter().copied(), session.now);
        Ok(PanelDrawn {
            task: id,
            filled: task.filled,
            seed: task.seed,
            secret: [0; 32],
            outputs: Vec::new(),
            nodes,
            weights,
            vacated: Vec::new(),
            deadline: task.deadline,
        })
    }

    #[inline(never)]
    pub(crate) fn advance_all(&self, tasks: Vec<TaskId>) -> Result<Vec<Result<Step>>> {
        check_batch(tasks.len())?;
        let caller = self.env().caller();
        let session = self.session();
        let mut paid = Paid::new();
        let mut results = Vec::with_capacity(tasks.len());
        for id in tasks {
            results.push(match self.due(&session, id) {
                // What fails from here on fails as a whole: something is changed already.
                Ok((task, step)) => Ok(self.perform(&session, id, task, step, &caller, &mut paid)?),
                Err(error) => Err(error),
            });
        }
        let results = batch(results)?;
        self.pay_keeper(&session, caller, paid)?;
        session.finish();
        Ok(results)
    }

    /// A task with the step that is due and that anybody can take.
    #[inline(never)]
    fn due(&self, session: &Session, id: TaskId) -> Result<(Task, Step)> {
        room()?;
        let task = session.task(id)?;
        match task.clock().step(session.now) {
            Step::Wait { .. } | Step::Draw { .. } => Err(Error::Task(Refusal::TooEarly)),
            Step::Done => Err(Error::Task(Refusal::WrongPhase)),
            step => Ok((task, step)),
        }
    }

    #[inline(never)]
    fn perform(
        &self,
        session: &Session,
        id: TaskId,
        mut task: Task,
        step: Step,
        caller: &AccountId,
        paid: &mut Paid,
    ) -> Result<Step> {
        if task.requester != *caller {
            let fee = task.pay_keeper(session.now);
            if fee > 0 {
                paid.push((id, fee));
            }
        }
        match step {
            Step::Fill => self.fill(session, id, &mut task)?,
            Step::End(ending) => {
                let event = self.close(session, id, &mut task, ending)?;
                emit(&event);
            }
            _ => {
                let event = self.close(session, id, &mut task, Ending::Consensus)?;
                emit(&event);
            }
        }
        session.set_task(id, &task);
        Ok(step)
    }

    /// Credits a keeper with what its steps have paid: out of the tasks' escrow.
    #[inline(never)]
    fn pay_keeper(&self, session: &Session, keeper: AccountId, items: Paid) -> Result<()> {
        let total = items.iter().fold(0, |sum: Balance, (_, fee)| sum.saturating_add(*fee));
        if total == 0 {
            return Ok(());
        }
        session.credit(keeper, total)?;
        session.book(&|owed| {
            owed.escrow = sub(owed.escrow, total)?;
            owed.claimable = add(owed.claimable, total)?;
            Ok(())
        })?;
        emit(&KeeperPaid { keeper, items });
        Ok(())
    }

    /// Releases those who did not commit and fills their seats, as far as there is anybody.
    #[inline(never)]
    fn fill(&self, session: &Session, id: TaskId, task: &mut Task) -> Result<()> {
        let kind = session.kind(task.kind)?;
        let older = older_params(session, task, &kind)?;
        let newest = kind.params;
        let missed = evaluator_penalty(
            older.as_ref().unwrap_or(&newest),
            task.terms.evaluator_slot,
            &poq_core::settlement::Conduct::Missed,
        );
        let owner = |node: NodeId| session.accounts_of(node).map(|(owner, _)| *owner.as_ref());
        let gone = task.vacate();
        let gone_owners = gone.iter().map(|node| owner(*node)).collect::<Result<Vec<_>>>()?;
        let seated = task.panel.iter().filter(|seat| seat.node != 0).map(|seat| owner(seat.node));
        let seated = seated.collect::<Result<Vec<_>>>()?;
        let seats = u8::try_from(gone.len()).map_err(|_| Error::PanelSize)?;
        let mut vacated = Vec::with_capacity(gone.len());
        for node in gone {
            let mut record = session.load(node)?;
            let outcome = Outcome {
                task: id,
                at_risk: task.terms.evaluator_at_risk,
                payout: 0,
                slashed: missed,
                missed: true,
                record: None,
                due: 0,
            };
            record.finish(&outcome, &newest, session.epoch)?;
            session.save(node, &record);
            vacated.push(Penalty { node, amount: missed });
        }
        let burned = missed.checked_mul(Balance::from(seats)).ok_or(Error::Overflow)?;
        session.book(&|owed| {
            owed.stakes = sub(owed.stakes, burned)?;
            owed.burned = add(owed.burned, burned)?;
            if mutant::has(Mutant::Slash) {
                owed.burned = add(owed.burned, burned)?;
            }
            Ok(())
        })?;
        let drawn = self.evaluators(session, task, 1, seats, &seated, &gone_owners)?;
        let event = self.seat(session, id, task, drawn.seats)?;
        let outputs = vec![None; task.outputs.len()];
        emit(&PanelDrawn { outputs, vacated, ..event });
        Ok(())
    }

    /// Ends a task: what `settle` says, applied to nodes, kind and books.
    #[inline(never)]
    fn close(&self, session: &Session, id: TaskId, task: &mut Task, ending: Ending) -> Result<TaskClosed> {
        let mut kind = session.kind(task.kind)?;
        let older = older_params(session, task, &kind)?;
        let params = older.as_ref().unwrap_or(&kind.params);
        let output_nodes: Vec<NodeId> = task.outputs.iter().map(|slot| slot.node).collect();
        let panel_nodes: Vec<NodeId> = task.panel.iter().map(|seat| seat.node).collect();
        let standing = |node| session.load(node).map_or((Ratio::ZERO, 0), |node| (node.trust, node.due));
        let input = task.settlement_input(ending, standing, &kind.population, session.now);
        let settlement = settle(params, &input).ok_or(Error::Overflow)?;
        let outcomes = task.outcomes(id, &input, &settlement);
        let mut credited: Balance = 0;
        for (node, outcome) in outcomes {
            let mut record = session.load(node)?;
            record.finish(&outcome, &kind.params, session.epoch)?;
            session.save(node, &record);
            credited = add(credited, outcome.payout)?;
        }
        kind.population.absorb(params, &settlement, &task.seed, session.now);
        session.set_kind(task.kind, &kind);
        session.book(&|owed| {
            owed.escrow = sub(owed.escrow, sub(task.fee, task.keepers)?)?;
            owed.claimable = add(owed.claimable, credited)?;
            owed.refunds = add(owed.refunds, settlement.refund)?;
            owed.treasury = add(owed.treasury, settlement.treasury)?;
            owed.stakes = sub(owed.stakes, settlement.slashed)?;
            owed.burned = add(add(owed.burned, settlement.burned)?, settlement.slashed)?;
            Ok(())
        })?;
        task.close(&settlement, session.now, session.block);
        Ok(TaskClosed {
            task: id,
            requester: task.requester,
            kind: task.kind,
            version: task.terms.version,
            seed: task.seed,
            output_nodes,
            panel_nodes,
            input,
            settlement,
        })
    }
}

/// Splits a batch's results: which items were new, and per item the error that kept it out.
fn split(results: Vec<Result<bool>>) -> (Vec<usize>, Vec<Option<Error>>) {
    let mut new = Vec::new();
    let mut errors = Vec::with_capacity(results.len());
    for (at, result) in results.into_iter().enumerate() {
        if result == Ok(true) {
            new.push(at);
        }
        errors.push(result.err());
    }
    (new, errors)
}

/// Refuses a reference commitment that tells something: none, or one that the account has used lately.
fn remember(account: &mut Account, request: &Request) -> Result<()> {
    let mut first = [0; 8];
    first.copy_from_slice(request.reference_commitment.get(..8).unwrap_or(&[0; 8]));
    let first = u64::from_le_bytes(first);
    let zero = [0; 32];
    if request.reference_commitment == zero
        || request.secret_hash == zero
        || account.references.contains(&first)
    {
        return Err(Error::BadCommitment);
    }
    let next = usize::from(account.next_reference);
    if let Some(place) = account.references.get_mut(next) {
        *place = first;
    }
    let after = next.saturating_add(1);
    account.next_reference = u8::try_from(if after < REFERENCES { after } else { 0 }).unwrap_or(0);
    Ok(())
}

/// Where a task's input is, and the input itself if the request carries it.
fn input_of(source: &Source) -> Result<(TaskInput, Vec<u8>)> {
    match source {
        Source::Url { hash, url } if !url.is_empty() && url.len() <= MAX_TEXT => {
            Ok((TaskInput { hash: *hash, url: url.clone(), inline: false }, Vec::new()))
        }
        Source::Inline(data) if !data.is_empty() && data.len() <= MAX_INLINE => {
            Ok((TaskInput { hash: blake2(data), url: String::new(), inline: true }, data.clone()))
        }
        _ => Err(Error::BadInput),
    }
}
