//! The books beside the contract's: every account's money in and out, and what each task's end may pay and cost whom. Written from
//! docs/protocol.md (R20 to R29), with integers of its own; it calls no function of `poq-core`.

use super::machine::Call;
use super::message::Message;
use super::state::{Diff, State};
use super::{ensure, Failure};
use crate::blake2;
use ink::primitives::AccountId;
use parity_scale_codec::Decode;
use poq_contract::types::{
    Change, KindParams, Liabilities, Node, OutputState, Request, Seat, SeatState, Task, MAX_OPEN,
};
use poq_core::units::{Balance, Millis, NodeId, Ratio, Score, TaskId};
use poq_core::{Ending, Phase};
use std::collections::BTreeMap;

/// An accepted call with everything that it did.
#[derive(Clone, Copy)]
pub struct Accepted<'a> {
    /// When.
    pub now: Millis,
    /// Who sent it.
    pub sender: AccountId,
    /// With how much money.
    pub call: &'a Call,
    /// The message, unless it was an act on the pool.
    pub message: Option<&'a Message>,
    /// What it returned.
    pub answer: &'a [u8],
    /// What it changed.
    pub diff: &'a Diff,
    /// Everything after it.
    pub state: &'a State,
    /// What accounts had before, outside the contract.
    pub wealth: &'a dyn Fn(&AccountId) -> Balance,
    /// Below how much an account that is gone cannot be paid.
    pub existential: Balance,
    /// The storage deposit that the sender paid, where there are deposits; negative for what it got back.
    pub deposit: Option<i128>,
}

impl Accepted<'_> {
    fn value(&self) -> Balance {
        self.call.value
    }

    fn returned<T: Decode>(&self) -> Result<T, Failure> {
        T::decode(&mut &self.answer[..])
            .map_err(|error| Failure::violation(format!("the answer does not decode: {error}")))
    }
}

/// A node's money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeBook {
    /// Bonded and on its way out.
    pub stake: Balance,
    /// Lost of it.
    pub slashed: Balance,
    /// Earned and not claimed.
    pub claimable: Balance,
    /// Claimed.
    pub claimed: Balance,
}

/// A task's money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskBook {
    /// What was paid for it.
    pub fee: Balance,
    /// What keepers have got of that.
    pub keepers: Balance,
    /// Once it has ended: what comes back.
    pub refund: Option<Balance>,
}

/// What an account has paid and got, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Sent with messages.
    pub paid: Balance,
    /// Come out of the contract.
    pub got: Balance,
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    nodes: BTreeMap<NodeId, NodeBook>,
    tasks: BTreeMap<TaskId, TaskBook>,
    credit: BTreeMap<AccountId, Balance>,
    bonds: BTreeMap<AccountId, Balance>,
    people: BTreeMap<AccountId, Person>,
    treasury: Balance,
    burned: Balance,
    /// Sent to the contract past its messages, less what its owner has taken of it.
    gifts: Balance,
    /// All that was ever sent so.
    given: Balance,
    /// What the pool has paid and got.
    pool: Person,
}

/// How the fee of a task is cut (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// To the protocol.
    pub protocol: Balance,
    /// Reserved for keepers.
    pub reserve: Balance,
    /// The most for each inference node.
    pub inference: Balance,
    /// The most for each evaluator.
    pub evaluator: Balance,
    /// What dividing left.
    pub rest: Balance,
}

fn part(share: Ratio, of: Balance) -> Balance {
    of * Balance::from(share.ppb()) / 1_000_000_000
}

/// Cuts a fee for `n` outputs and `k` evaluators; nothing where it is too small for the reserve.
pub fn cut(params: &KindParams, fee: Balance, n: usize, k: usize) -> Option<Cut> {
    let (n, k) = (n as Balance, k as Balance);
    let protocol = part(params.protocol_fee, fee);
    let reserve = 4 * params.keeper_fee;
    let net = fee.checked_sub(protocol)?.checked_sub(reserve)?;
    let for_outputs = part(params.inference_share, net);
    let inference = for_outputs / n;
    let evaluator = (net - for_outputs) / k;
    let rest = net - n * inference - k * evaluator;
    Some(Cut { protocol, reserve, inference, evaluator, rest })
}

/// From and to, both included.
type Range = (Balance, Balance);

/// What a task's end may do to its nodes' money.
#[derive(Default)]
struct Expected {
    nodes: BTreeMap<NodeId, (Range, Range)>,
}

impl Expected {
    fn add(&mut self, node: NodeId, pay: Range, slash: Range) {
        let (p, s) = self.nodes.entry(node).or_default();
        *p = (p.0 + pay.0, p.1 + pay.1);
        *s = (s.0 + slash.0, s.1 + slash.1);
    }
}

fn exactly(amount: Balance) -> Range {
    (amount, amount)
}

fn committed(seat: &&Seat) -> bool {
    seat.node != 0 && seat.state != SeatState::Drawn
}

fn revealed(seat: &&Seat) -> bool {
    seat.node != 0 && seat.state == SeatState::Revealed
}

/// The phase of a task at a time, with its deadline (R14, R16): two begin without anybody having to say so.
pub fn phase_at(task: &Task, now: Millis) -> (Phase, Millis) {
    let answered =
        task.outputs.iter().any(|s| matches!(s.state, OutputState::Committed | OutputState::Opened));
    let commitments = task.panel.iter().filter(committed).count();
    match task.phase {
        Phase::Inferring if now > task.deadline && answered => {
            (Phase::Drawing, task.deadline + task.terms.draw_ms)
        }
        Phase::Scoring if now > task.deadline && commitments >= usize::from(task.terms.quorum) => {
            (Phase::Revealing, task.deadline + task.terms.reveal_ms)
        }
        phase => (phase, task.deadline),
    }
}

/// How a task must have ended that a message at `now` found as `before` and left as `after` (R14 to R18, R24).
fn ending(before: &Task, after: &Task, now: Millis) -> Result<Ending, Failure> {
    let early = |why: &str| Failure::violation(format!("a task ends {why} at {now}: {before:?}"));
    let (phase, deadline) = phase_at(before, now);
    let late = now > deadline;
    let quorum = usize::from(before.terms.quorum);
    match phase {
        Phase::Inferring => {
            let declined = before.outputs.iter().all(|slot| slot.state == OutputState::Declined);
            if late || declined {
                Ok(Ending::Undelivered)
            } else {
                Err(early("while its nodes have time to answer"))
            }
        }
        Phase::Drawing => {
            let open = before.outputs.iter().any(|slot| slot.state == OutputState::Committed);
            if open && now > deadline - before.terms.draw_ms / 2 {
                Ok(Ending::Unopened)
            } else if !late {
                Err(early("while its panel can be drawn"))
            } else if before.short {
                Ok(Ending::NoPanel)
            } else {
                Ok(Ending::NoSecret)
            }
        }
        Phase::Scoring => {
            if late && (before.filled || now > deadline + before.terms.draw_ms) {
                Ok(Ending::BelowQuorum)
            } else {
                Err(early("while its panel has time to commit"))
            }
        }
        Phase::Revealing => {
            let all = after.panel.iter().filter(committed).count();
            let shown = after.panel.iter().filter(revealed).count();
            let without = after
                .panel
                .iter()
                .filter(|seat| revealed(seat) && seat.scores.first() == Some(&Score::NO_INPUT))
                .count();
            if shown < all && !late {
                Err(early("while its panel has time to reveal"))
            } else if shown < quorum {
                Ok(Ending::BelowQuorum)
            } else if !before.input.inline && without * 2 > shown {
                Ok(Ending::InputUnavailable)
            } else if shown - without < quorum {
                Ok(Ending::BelowQuorum)
            } else {
                Ok(Ending::Consensus)
            }
        }
        Phase::Settled | Phase::Refunded => Err(early("again")),
    }
}

/// What an inference node that did not deliver owes (R29).
fn undelivered_penalty(params: &KindParams, task: &Task, own: OutputState) -> Balance {
    let risk = task.terms.inference_at_risk;
    let tried = |state: OutputState| matches!(state, OutputState::Committed | OutputState::Opened);
    match own {
        OutputState::Opened => 0,
        OutputState::Committed => part(params.unrevealed_penalty, risk),
        OutputState::Assigned => part(params.missed_penalty, risk),
        OutputState::Declined if task.outputs.iter().any(|slot| tried(slot.state)) => {
            part(params.bad_penalty, risk)
        }
        OutputState::Declined => {
            let all = task.outputs.iter().all(|slot| slot.state == OutputState::Declined);
            if all && task.outputs.len() > 1 {
                0
            } else {
                part(params.decline_penalty, risk)
            }
        }
    }
}

/// A task that has ended.
struct Ended<'a> {
    before: &'a Task,
    after: &'a Task,
    params: &'a KindParams,
    cut: Cut,
}

impl Ended<'_> {
    fn delivered(&self) -> bool {
        self.after.outputs.iter().any(|slot| slot.state == OutputState::Opened)
    }

    /// Half of the protocol's fee, where it is due.
    fn treasury(&self) -> Balance {
        match self.after.ending {
            Ending::Undelivered => 0,
            Ending::Unopened if !self.delivered() => 0,
            _ => self.cut.protocol / 2,
        }
    }

    /// What comes back of the slots of its outputs, each having been paid so much.
    fn refund(&self, paid: &[Balance]) -> Range {
        let Cut { reserve, inference, evaluator, rest, .. } = self.cut;
        let seats = self.after.panel.len() as Balance;
        match self.after.ending {
            Ending::Consensus => {
                let slots = self.after.outputs.iter();
                let kept = |delivered: bool| {
                    if self.after.early && delivered {
                        part(self.params.delivery_share, inference)
                    } else {
                        0
                    }
                };
                let back = |paid: Balance, delivered: bool| inference - paid.max(kept(delivered));
                let opened = |state: OutputState| state == OutputState::Opened;
                if paid.is_empty() {
                    // Not known who got how much of it.
                    return (rest, rest + slots.map(|slot| back(0, opened(slot.state))).sum::<Balance>());
                }
                let sum: Balance = slots.zip(paid).map(|(slot, paid)| back(*paid, opened(slot.state))).sum();
                exactly(rest + sum)
            }
            Ending::Undelivered => exactly(self.after.fee - reserve),
            Ending::Unopened if !self.delivered() => exactly(self.after.fee - reserve),
            Ending::NoPanel => exactly(rest + seats * evaluator),
            Ending::Unopened | Ending::NoSecret | Ending::BelowQuorum | Ending::InputUnavailable => {
                exactly(rest)
            }
        }
    }

    /// What each of its nodes may get and lose.
    fn expect(&self, now: Millis, expected: &mut Expected) {
        let Ended { after, params, cut, .. } = self;
        let consensus = after.ending == Ending::Consensus;
        let missed = part(params.missed_penalty, after.terms.inference_at_risk);
        for slot in &after.outputs {
            let (pay, slash) = match (slot.state, after.ending) {
                (OutputState::Opened, Ending::Consensus) => ((0, cut.inference), (0, missed)),
                // The requester alone is to blame.
                (OutputState::Opened, Ending::NoSecret) => (exactly(cut.inference), exactly(0)),
                (OutputState::Opened, _) => (exactly(part(params.delivery_share, cut.inference)), exactly(0)),
                (state, _) => (exactly(0), exactly(undelivered_penalty(params, after, state))),
            };
            expected.add(slot.node, pay, slash);
        }
        let risk = after.terms.evaluator_at_risk;
        let missed = part(params.missed_penalty, risk);
        let revealing = phase_at(self.before, now).0 == Phase::Revealing;
        for seat in after.panel.iter().filter(|seat| seat.node != 0) {
            let no_input = seat.scores.first() == Some(&Score::NO_INPUT);
            let (pay, slash) = match seat.state {
                SeatState::Drawn => (exactly(0), exactly(missed)),
                SeatState::Committed if revealing => {
                    (exactly(0), exactly(part(params.unrevealed_penalty, risk)))
                }
                SeatState::Committed => (exactly(0), exactly(0)),
                SeatState::Revealed if consensus && no_input => (exactly(0), exactly(missed)),
                SeatState::Revealed if consensus => ((0, cut.evaluator), (0, missed)),
                SeatState::Revealed if no_input && after.ending == Ending::InputUnavailable => {
                    (exactly(part(params.unavailable_share, cut.evaluator)), exactly(0))
                }
                SeatState::Revealed => (exactly(0), exactly(0)),
            };
            expected.add(seat.node, pay, slash);
        }
    }
}

/// The account that burned money goes to.
pub fn ashes() -> AccountId {
    blake2(b"poq/v2/burn").into()
}

impl Ledger {
    /// The books of a contract whose nodes brought their stake past this fuzzer's people: a pool's.
    pub fn adopt(&mut self, nodes: &BTreeMap<NodeId, Node>) {
        for (id, node) in nodes {
            let stake = node.stake.total();
            self.nodes.insert(*id, NodeBook { stake, ..NodeBook::default() });
            self.pool.paid += stake;
        }
    }

    /// Money came to the contract's account past its messages.
    pub fn give(&mut self, amount: Balance) {
        self.gifts += amount;
        self.given += amount;
    }

    /// What the contract owes, by these books.
    pub fn owed(&self) -> Liabilities {
        let open = self.tasks.values().filter(|task| task.refund.is_none());
        Liabilities {
            stakes: self.nodes.values().map(|node| node.stake).sum(),
            escrow: open.map(|task| task.fee - task.keepers).sum(),
            refunds: self.tasks.values().filter_map(|task| task.refund).sum(),
            claimable: self.nodes.values().map(|node| node.claimable).sum::<Balance>()
                + self.credit.values().sum::<Balance>(),
            bonds: self.bonds.values().sum(),
            treasury: self.treasury,
            burned: self.burned,
        }
    }

    /// What the contract must have: what it owes, and gifts.
    pub fn purse(&self) -> Balance {
        let owed = self.owed();
        owed.stakes
            + owed.escrow
            + owed.refunds
            + owed.claimable
            + owed.bonds
            + owed.treasury
            + owed.burned
            + self.gifts
    }

    /// What is in the treasury, and what of the contract's money is nobody's.
    pub fn spare(&self) -> (Balance, Balance) {
        (self.treasury, self.gifts)
    }

    /// What an account has in credit.
    pub fn credit(&self, account: &AccountId) -> Balance {
        self.credit.get(account).copied().unwrap_or(0)
    }

    /// All accounts that have paid or got anything.
    pub fn people(&self) -> &BTreeMap<AccountId, Person> {
        &self.people
    }

    fn node(&mut self, id: NodeId) -> Result<&mut NodeBook, Failure> {
        self.nodes.get_mut(&id).ok_or_else(|| Failure::violation(format!("node {id} comes from nowhere")))
    }

    /// Books an accepted call. Who must have got how much by it.
    ///
    /// # Errors
    /// A violation where it did something that it must not.
    pub fn book(&mut self, call: &Accepted<'_>) -> Result<Vec<(AccountId, Balance)>, Failure> {
        let paid = match call.message {
            Some(message) => {
                self.people.entry(call.sender).or_default().paid += call.value();
                self.book_message(call, message)?
            }
            None => {
                self.book_pool(call)?;
                Vec::new()
            }
        };
        for (account, amount) in &paid {
            self.people.entry(*account).or_default().got += amount;
        }
        self.compare(call)?;
        Ok(paid)
    }

    /// The records that the call has changed say what these books say.
    fn compare(&self, call: &Accepted<'_>) -> Result<(), Failure> {
        for (id, _, after) in &call.diff.nodes {
            let Some(node) = after else { continue };
            let record = NodeBook {
                stake: node.stake.total(),
                slashed: node.slashed,
                claimable: node.claimable,
                claimed: node.withdrawn,
            };
            let book = self.nodes.get(id).copied().unwrap_or_default();
            ensure(record == book, || format!("node {id} has {record:?} where the books have {book:?}"))?;
        }
        for (id, before, after) in &call.diff.nodes {
            // A pool takes the last and goes in the same message.
            if after.is_none() && call.message.is_some() {
                ensure(
                    before.as_ref().is_some_and(|node| node.stake.total() == 0 && node.claimable == 0),
                    || format!("node {id} is gone with its money: {before:?}"),
                )?;
            }
        }
        for (id, _, after) in &call.diff.accounts {
            let credit = after.as_ref().map_or(0, |account| account.credit);
            let book = self.credit(id);
            ensure(credit == book, || {
                format!("an account has {credit} of credit, the books {book}: {id:?}")
            })?;
        }
        for (id, _, after) in &call.diff.auditors {
            let bond = after.map_or(0, |auditor| auditor.bond);
            let book = self.bonds.get(id).copied().unwrap_or(0);
            ensure(bond == book, || format!("an auditor has a bond of {bond}, the books {book}"))?;
        }
        let (contract, books) = (call.state.books.liabilities, self.owed());
        ensure(contract == books, || format!("the contract owes {contract:?}, by the books {books:?}"))
    }

    fn book_pool(&mut self, call: &Accepted<'_>) -> Result<(), Failure> {
        // The pool stakes, unstakes, withdraws and claims for its own node, several of them at once.
        for (id, before, after) in &call.diff.nodes {
            let (Some(before), Some(after)) = (before, after) else { continue };
            // Another node may have moved to another place of its class.
            let claimed = after.withdrawn - before.withdrawn;
            let stake = after.stake.total();
            self.pool.paid += stake.saturating_sub(before.stake.total());
            self.pool.got += before.stake.total().saturating_sub(stake) + claimed;
            let book = self.node(*id)?;
            book.stake = stake;
            book.claimable = book
                .claimable
                .checked_sub(claimed)
                .ok_or_else(|| Failure::violation("the pool claims more than its node has earned"))?;
            book.claimed += claimed;
            let moves = before.stake.total() != after.stake.total() || claimed > 0;
            ensure(!moves || before.owner == before.payee, || {
                format!("a pool moves the money of node {id}")
            })?;
        }
        for (id, before, after) in &call.diff.nodes {
            if let (Some(_), None) = (before, after) {
                let book = self.nodes.remove(id).unwrap_or_default();
                self.pool.got += book.stake + book.claimable;
            }
        }
        Ok(())
    }

    fn book_message(
        &mut self,
        call: &Accepted<'_>,
        message: &Message,
    ) -> Result<Vec<(AccountId, Balance)>, Failure> {
        let mut out = Vec::new();
        match message {
            Message::Register(_) => {
                let id: NodeId = call.returned()?;
                let new = NodeBook { stake: call.value(), ..NodeBook::default() };
                ensure(self.nodes.insert(id, new).is_none(), || format!("node {id} is registered twice"))?;
            }
            Message::Stake(id) => self.node(*id)?.stake += call.value(),
            Message::Unstake(id, amount) => {
                let changed = call.diff.nodes.iter().find(|(node, ..)| node == id);
                let Some((_, Some(before), Some(after))) = changed else {
                    return Err(Failure::violation("unstaking changed no node"));
                };
                let moved = before.stake.bonded.checked_sub(after.stake.bonded) == Some(*amount)
                    && after.stake.unbonding() == before.stake.unbonding() + amount;
                ensure(moved, || format!("unstaking {amount}: {before:?}, {after:?}"))?;
            }
            Message::WithdrawUnbonded(id) => {
                let amount: Balance = call.returned()?;
                let changed = call.diff.nodes.iter().find(|(node, ..)| node == id);
                let Some((_, Some(before), _)) = changed else {
                    return Err(Failure::violation("withdrawing changed no node"));
                };
                let over = before.stake.tranches.iter().filter(|tranche| tranche.until <= call.now);
                let over: Balance = over.map(|tranche| tranche.amount).sum();
                let free = before.stake.total() - before.stake.locked;
                ensure(amount > 0 && amount == over.min(free), || {
                    format!("{amount} of stake withdrawn at {}: {before:?}", call.now)
                })?;
                let book = self.node(*id)?;
                book.stake = book
                    .stake
                    .checked_sub(amount)
                    .ok_or_else(|| Failure::violation("more stake is withdrawn than there was"))?;
                out.push((before.owner, amount));
            }
            Message::Deregister(id) => {
                self.nodes.remove(id);
            }
            Message::Claim(id) => {
                let amount: Balance = call.returned()?;
                let book = self.node(*id)?;
                ensure(amount == book.claimable && amount > 0, || format!("{amount} claimed: {book:?}"))?;
                book.claimed += std::mem::take(&mut book.claimable);
                let node = call.state.nodes.get(id);
                let payee = node.ok_or_else(|| Failure::violation("who claims has no node"))?.payee;
                out.push((payee, amount));
            }
            Message::RequestTasks(requests) => self.book_requests(call, requests)?,
            Message::Collect(ids) => out.extend(self.book_collected(call, ids)?),
            Message::Withdraw() => {
                let amount: Balance = call.returned()?;
                let credit = self.credit.remove(&call.sender).unwrap_or(0);
                ensure(amount == credit && amount > 0, || {
                    format!("{amount} withdrawn of {credit} of credit")
                })?;
                out.push((call.sender, amount));
            }
            Message::Bond() => *self.bonds.entry(call.sender).or_default() += call.value(),
            Message::WithdrawBond() => {
                let amount: Balance = call.returned()?;
                if amount > 0 {
                    let bond = self.bonds.remove(&call.sender).unwrap_or(0);
                    ensure(amount == bond, || format!("{amount} withdrawn of a bond of {bond}"))?;
                    out.push((call.sender, amount));
                }
            }
            Message::Propose(Change::SlashAuditor(account, amount))
                if call.diff.auditors.iter().any(|(id, ..)| id == account) =>
            {
                self.slash_bond(account, *amount)?;
            }
            Message::Enact(_) => {
                for (account, before, after) in &call.diff.auditors {
                    let bond = |auditor: &Option<poq_contract::types::Auditor>| auditor.map_or(0, |a| a.bond);
                    let lost = bond(before).saturating_sub(bond(after));
                    if lost > 0 {
                        self.slash_bond(account, lost)?;
                    }
                }
            }
            Message::WithdrawTreasury(to, amount) => {
                let taken = self.treasury.min(*amount);
                self.treasury -= taken;
                self.gifts = self
                    .gifts
                    .checked_sub(amount - taken)
                    .ok_or_else(|| Failure::violation(format!("the owner takes {amount} that is owed")))?;
                out.push((*to, *amount));
            }
            Message::Burn() => {
                let amount: Balance = call.returned()?;
                let burned = std::mem::take(&mut self.burned);
                ensure(amount == burned && amount > 0, || format!("{amount} sent away of {burned} burned"))?;
                out.push((ashes(), amount));
            }
            _ => self.book_duties(call, message)?,
        }
        Ok(out)
    }

    fn slash_bond(&mut self, account: &AccountId, amount: Balance) -> Result<(), Failure> {
        let bond = self.bonds.entry(*account).or_default();
        *bond = bond
            .checked_sub(amount)
            .ok_or_else(|| Failure::violation(format!("{amount} slashed of a bond of {bond}")))?;
        self.burned += amount;
        Ok(())
    }

    fn book_requests(&mut self, call: &Accepted<'_>, requests: &[Request]) -> Result<(), Failure> {
        let ids: Vec<TaskId> = call.returned()?;
        ensure(ids.len() == requests.len(), || format!("{} requests, tasks {ids:?}", requests.len()))?;
        let fees: Balance = requests.iter().map(|request| request.fee).sum();
        ensure(fees == call.value(), || format!("fees of {fees}, {} paid", call.value()))?;
        for (id, request) in ids.iter().zip(requests) {
            let book = TaskBook { fee: request.fee, ..TaskBook::default() };
            ensure(self.tasks.insert(*id, book).is_none(), || format!("task {id} is requested twice"))?;
            let task = call.state.tasks.get(id).ok_or_else(|| Failure::violation("a task is not there"))?;
            let params = call.state.params(task.kind, task.terms.version)?;
            let (n, k) = (task.outputs.len(), task.panel.len());
            let fits = cut(params, request.fee, n, k).filter(|cut| {
                let terms = &task.terms;
                let most = params.stake_min / MAX_OPEN as Balance;
                cut.inference == terms.inference_slot
                    && cut.evaluator == terms.evaluator_slot
                    && cut.inference >= params.inference_slot_min
                    && cut.evaluator >= params.evaluator_slot_min
                    && request.fee <= params.fee_max
                    && terms.evaluator_at_risk == cut.evaluator * Balance::from(params.evaluator_risk)
                    && terms.inference_at_risk == cut.inference * Balance::from(params.inference_risk)
                    && terms.evaluator_at_risk.max(terms.inference_at_risk) <= most
            });
            ensure(fits.is_some(), || format!("task {id} takes {request:?} under {:?}", task.terms))?;
            let kind = call.state.kinds.get(&task.kind);
            ensure(
                task.requester == call.sender
                    && task.fee == request.fee
                    && kind.is_some_and(|kind| kind.version == task.terms.version)
                    && k == usize::from(request.panel),
                || format!("task {id} is not what was requested: {task:?}"),
            )?;
        }
        Ok(())
    }

    fn book_collected(
        &mut self,
        call: &Accepted<'_>,
        ids: &[TaskId],
    ) -> Result<Vec<(AccountId, Balance)>, Failure> {
        let mut total = 0;
        let mut to = None;
        for id in ids {
            let refund = self.tasks.remove(id).and_then(|book| book.refund);
            total +=
                refund.ok_or_else(|| Failure::violation(format!("task {id} is collected unfinished")))?;
            let gone = call.diff.tasks.iter().find(|(task, ..)| task == id);
            let Some((_, Some(task), None)) = gone else {
                return Err(Failure::violation(format!("task {id} is collected and still there")));
            };
            ensure(*to.get_or_insert(task.requester) == task.requester, || {
                "the refunds of two are collected at once".into()
            })?;
            let archived = call.now > task.deadline + call.state.root()?.global.archive_ms;
            ensure(call.sender == task.requester || archived, || {
                format!("somebody else collects task {id}")
            })?;
        }
        let amount: Balance = call.returned()?;
        ensure(amount == total, || format!("{amount} collected of {total}"))?;
        let to = to.ok_or_else(|| Failure::violation("nothing is collected"))?;
        // What the chain cannot pay becomes credit.
        if total > 0 && (call.wealth)(&to) + total < call.existential {
            *self.credit.entry(to).or_default() += total;
            return Ok(Vec::new());
        }
        Ok(if total > 0 { vec![(to, total)] } else { Vec::new() })
    }

    /// Books what a task's nodes and keepers get and lose, in messages that bring no money.
    fn book_duties(&mut self, call: &Accepted<'_>, message: &Message) -> Result<(), Failure> {
        let mut expected = Expected::default();
        let mut ended = Vec::new();
        let mut vacated = 0;
        for (id, before, after) in &call.diff.tasks {
            let (Some(before), Some(after)) = (before, after) else { continue };
            self.book_keeper(call, message, *id, before, after)?;
            let params = call.state.params(after.kind, after.terms.version)?;
            if !before.filled && after.filled {
                let missed = part(params.missed_penalty, after.terms.evaluator_at_risk);
                for seat in before.panel.iter().filter(|s| s.node != 0 && s.state == SeatState::Drawn) {
                    expected.add(seat.node, exactly(0), exactly(missed));
                    vacated += 1;
                }
            }
            if !before.phase.is_final() && after.phase.is_final() {
                let (n, k) = (after.outputs.len(), after.panel.len());
                let cut =
                    cut(params, after.fee, n, k).ok_or_else(|| Failure::violation("a fee without slots"))?;
                let must = ending(before, after, call.now)?;
                ensure(after.ending == must, || {
                    format!("task {id} ends as {:?}, not {must:?}", after.ending)
                })?;
                let ended_task = Ended { before, after, params, cut };
                ended_task.expect(call.now, &mut expected);
                ended.push((*id, ended_task));
            }
        }
        let (mut earned, mut slashed) = (0, 0);
        let mut pays = BTreeMap::new();
        for (id, before, after) in &call.diff.nodes {
            let (Some(before), Some(after)) = (before, after) else { continue };
            let pay = after.claimable.checked_sub(before.claimable);
            let lost = after.slashed.checked_sub(before.slashed);
            let gone = before.stake.total().checked_sub(after.stake.total());
            let (Some(pay), Some(lost), Some(gone)) = (pay, lost, gone) else {
                return Err(Failure::violation(format!("node {id} from {before:?} to {after:?}")));
            };
            let (may_pay, may_lose) = expected.nodes.remove(id).unwrap_or_default();
            let within = |amount: Balance, range: Range| (range.0..=range.1).contains(&amount);
            ensure(within(pay, may_pay) && within(lost, may_lose) && gone == lost, || {
                format!(
                    "node {id} gets {pay} (may {may_pay:?}), loses {lost} (may {may_lose:?}) and {gone} of stake by {}",
                    message.name()
                )
            })?;
            let book = self.node(*id)?;
            book.claimable += pay;
            book.slashed += lost;
            book.stake -= lost;
            earned += pay;
            slashed += lost;
            pays.insert(*id, pay);
        }
        let left = expected.nodes.iter().find(|(_, (pay, slash))| pay.0 > 0 || slash.0 > 0);
        ensure(left.is_none(), || format!("node and what it should get and lose, untouched: {left:?}"))?;
        self.book_ends(&ended, &pays, earned, slashed, vacated)
    }

    fn book_keeper(
        &mut self,
        call: &Accepted<'_>,
        message: &Message,
        id: TaskId,
        before: &Task,
        after: &Task,
    ) -> Result<(), Failure> {
        let fee = after
            .keepers
            .checked_sub(before.keepers)
            .ok_or_else(|| Failure::violation(format!("task {id}: a keeper's fee is taken back")))?;
        if fee == 0 {
            return Ok(());
        }
        let step = matches!(message, Message::Advance(_) | Message::DrawPanels(_));
        let allowed = step
            && call.sender != after.requester
            && fee <= after.terms.keeper_fee
            && after.keeper_steps == before.keeper_steps + 1
            && after.keeper_steps <= 4;
        ensure(allowed, || {
            format!("task {id}: {fee} for {} as step {}", message.name(), after.keeper_steps)
        })?;
        *self.credit.entry(call.sender).or_default() += fee;
        if let Some(book) = self.tasks.get_mut(&id) {
            book.keepers += fee;
        }
        Ok(())
    }

    /// What is left of fees is burned, as is what is slashed.
    fn book_ends(
        &mut self,
        ended: &[(TaskId, Ended<'_>)],
        pays: &BTreeMap<NodeId, Balance>,
        earned: Balance,
        slashed: Balance,
        vacated: usize,
    ) -> Result<(), Failure> {
        let mut rest: Balance = 0;
        for (id, task) in ended {
            let after = task.after;
            // Where several tasks end at once nobody can see from outside which one paid what.
            let alone = ended.len() == 1 && vacated == 0;
            let paid: Vec<Balance> = if alone {
                after.outputs.iter().map(|slot| pays.get(&slot.node).copied().unwrap_or(0)).collect()
            } else {
                Vec::new()
            };
            let (least, most) = task.refund(&paid);
            ensure((least..=most).contains(&after.refund), || {
                format!("task {id}, {:?}: {} comes back, must {least} to {most}", after.ending, after.refund)
            })?;
            let book = self.tasks.get_mut(id).ok_or_else(|| Failure::violation("an ended task of nobody"))?;
            ensure(book.keepers == after.keepers, || format!("task {id}: keepers have {}", book.keepers))?;
            book.refund = Some(after.refund);
            self.treasury += task.treasury();
            rest += after.fee - after.keepers - after.refund - task.treasury();
        }
        let burned = rest.checked_sub(earned).ok_or_else(|| {
            Failure::violation(format!("nodes get {earned} of {rest} that is left of fees"))
        })?;
        self.burned += burned + slashed;
        Ok(())
    }

    /// At the very end: nobody has anything in the contract any more, and what came in went out.
    ///
    /// # Errors
    /// A violation where something is left, or money came from nowhere.
    pub fn closed(&self) -> Result<(), Failure> {
        let owed = self.owed();
        ensure(owed == Liabilities::default(), || format!("everybody has left, and {owed:?} is owed"))?;
        let paid: Balance = self.people.values().map(|person| person.paid).sum();
        let got: Balance = self.people.values().map(|person| person.got).sum();
        ensure(paid + self.pool.paid + self.given == got + self.pool.got + self.gifts, || {
            format!(
                "{paid} came in by messages, {got} went out, and {:?} of the pool, {} are left",
                self.pool, self.gifts
            )
        })
    }
}
