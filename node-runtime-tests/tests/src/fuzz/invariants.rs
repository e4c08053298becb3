//! What must hold of the contract's records after every message, and of what a message may change: DESIGN's invariants, and the rules of
//! docs/protocol.md that they rest on.

use super::ledger::{phase_at, Accepted};
use super::message::Message;
use super::state::{is_of_constant_size, Diff, State};
use super::{ensure, Failure};
use crate::blake2;
use ink::primitives::AccountId;
use parity_scale_codec::Encode;
use poq_contract::storage::{
    ACCOUNTS, AUDITORS, BOOKS, CHANGES, INFOS, KINDS, KIND_IDS, LEVERS, MEMBERS, NODES, POOLS, TASKS,
    VERSIONS,
};
use poq_contract::types::{
    Counts, KindParams, Lever, Node, NodeStatus, OutputState, PoolId, Reveal, Role, Seat, SeatState, Task,
    Ver, MAX_NODES_PER_OWNER, MAX_OPEN, MAX_PENDING, MAX_TASKS_PER_REQUESTER,
};
use poq_core::commitment;
use poq_core::registry::{Epoch, CLASSES};
use poq_core::units::{Balance, NodeId, TaskId};
use poq_core::Phase;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that must hold after an accepted call, the money apart ([`super::ledger`]).
///
/// # Errors
/// The first violation.
pub fn check(call: &Accepted<'_>) -> Result<(), Failure> {
    if let Some(message) = call.message {
        authorised(call, message)?;
        cells(call, message)?;
        tasks(call, message)?;
        nodes(call, message)?;
    }
    past(call)?;
    locks(call.state)?;
    if !call.diff.pools.is_empty() || !call.diff.members.is_empty() || !call.diff.nodes.is_empty() {
        places(call)?;
    }
    governance(call.state)
}

/// The epoch of a call.
fn epoch(call: &Accepted<'_>) -> Result<Epoch, Failure> {
    Epoch::try_from(call.now / call.state.root()?.epoch_ms).map_err(|_| Failure::broken("the epochs run out"))
}

/// Who may do what.
fn authorised(call: &Accepted<'_>, message: &Message) -> Result<(), Failure> {
    let state = call.state;
    let owner = match &call.diff.root {
        Some((before, _)) => before.owner,
        None => state.root()?.owner,
    };
    let node_before = |id: &NodeId| {
        let changed = call.diff.nodes.iter().find(|(node, ..)| node == id);
        changed.map_or_else(|| state.nodes.get(id).cloned(), |(_, before, _)| before.clone())
    };
    let may = match message {
        Message::Configure(id, _)
        | Message::Stake(id)
        | Message::Unstake(id, _)
        | Message::WithdrawUnbonded(id)
        | Message::Drain(id)
        | Message::Resume(id)
        | Message::Deregister(id) => node_before(id).is_some_and(|node| node.owner == call.sender),
        Message::Claim(id) => {
            node_before(id).is_some_and(|node| [node.owner, node.payee].contains(&call.sender))
        }
        Message::Propose(_)
        | Message::ProposeCode(_)
        | Message::Cancel(_)
        | Message::SetPaused(_)
        | Message::DismissAuditor(_)
        | Message::ProposeOwner(_)
        | Message::WithdrawTreasury(..) => call.sender == owner,
        Message::AcceptOwnership() => {
            call.diff.root.as_ref().is_some_and(|(before, _)| before.proposed == Some(call.sender))
        }
        Message::Bond() | Message::WithdrawBond() | Message::OpenReference(..) => {
            let changed = call.diff.auditors.iter().find(|(id, ..)| *id == call.sender);
            changed.is_some_and(|(_, before, _)| before.is_some())
        }
        Message::RequestTasks(_) => !state.root()?.paused,
        // It was called by the contract itself in `set_code`, or not at all.
        Message::Migrate() => false,
        // Items have their own owners: see `tasks`.
        _ => true,
    };
    ensure(may, || format!("{} by somebody who may not: {message:?}", message.name()))?;
    // The root is the owner's alone.
    if let Some((before, after)) = &call.diff.root {
        let may = matches!(
            message,
            Message::Propose(_)
                | Message::Enact(_)
                | Message::SetPaused(_)
                | Message::ProposeOwner(_)
                | Message::AcceptOwnership()
        );
        let same = (before.genesis, before.network, before.epoch_ms)
            == (after.genesis, after.network, after.epoch_ms);
        ensure(may && same, || format!("{} changes the root: {before:?}, {after:?}", message.name()))?;
    }
    Ok(())
}

/// Which cells a message may make, free or resize: no duty, draw or settlement moves anybody's storage deposit (R9), but for the record
/// of a keeper's own credit.
fn cells(call: &Accepted<'_>, message: &Message) -> Result<(), Failure> {
    for cell in &call.diff.resized {
        let sized = match (cell.before, cell.after) {
            (Some(before), Some(after)) if before == after => continue,
            (Some(_), Some(_)) => "resized",
            (None, _) => "made",
            (_, None) => "freed",
        };
        let map = cell.map;
        let own = cell.key == call.sender.encode();
        let acts = matches!(
            message,
            Message::Register(_)
                | Message::Stake(_)
                | Message::Unstake(..)
                | Message::Drain(_)
                | Message::Resume(_)
                | Message::Refresh(_)
        );
        let governs = matches!(
            message,
            Message::Propose(_)
                | Message::ProposeCode(_)
                | Message::Enact(_)
                | Message::Cancel(_)
                | Message::SetCode()
        );
        let may = match message {
            // A place in a pool, for whoever needs it first.
            _ if map == MEMBERS.prefix() || map == POOLS.prefix() => acts && sized == "made",
            Message::Register(_) => {
                sized == "made" && [NODES.prefix(), INFOS.prefix()].contains(&map)
                    || map == ACCOUNTS.prefix() && own
            }
            Message::Configure(..) => map == INFOS.prefix() && sized == "resized",
            Message::Deregister(_) => {
                sized == "freed" && [NODES.prefix(), INFOS.prefix()].contains(&map)
                    || map == ACCOUNTS.prefix() && own && sized == "resized"
            }
            Message::RequestTasks(_) => {
                map == TASKS.prefix() && sized == "made"
                    || map == ACCOUNTS.prefix() && own
                    || map == BOOKS.prefix() && sized == "made"
            }
            Message::Collect(_) => {
                map == TASKS.prefix() && sized == "freed" || map == ACCOUNTS.prefix() && sized == "resized"
            }
            Message::DrawPanels(_) | Message::Advance(_) => {
                map == ACCOUNTS.prefix() && own && sized == "made"
            }
            Message::WithdrawBond() => map == AUDITORS.prefix() && own && sized == "freed",
            _ if governs => {
                [CHANGES.prefix(), LEVERS.prefix(), KINDS.prefix(), VERSIONS.prefix(), KIND_IDS.prefix()]
                    .contains(&map)
                    || map == AUDITORS.prefix() && sized == "made"
                    || map == 0 && sized == "resized"
            }
            Message::ProposeOwner(_) | Message::AcceptOwnership() => map == 0 && sized == "resized",
            _ => false,
        } || map == BOOKS.prefix() && sized == "made";
        ensure(may && !(is_of_constant_size(map) && sized == "resized"), || {
            format!("{}: a cell of mapping {map:#x} is {sized}: {cell:?}", message.name())
        })?;
    }
    if let Some(deposit) = call.deposit {
        let duty = matches!(
            message,
            Message::CommitOutputs(_)
                | Message::Decline(_)
                | Message::OpenOutputs(_)
                | Message::CommitScores(_)
                | Message::RevealScores(_)
        );
        ensure(!duty || deposit == 0, || format!("{} moves a deposit of {deposit}", message.name()))?;
    }
    Ok(())
}

/// The phases that a message may take a task from and to (R14 to R19): forwards, and never out of an end.
fn moved(message: &Message, before: Phase, after: Phase) -> bool {
    use Phase::{Drawing, Inferring, Refunded, Revealing, Scoring, Settled};
    before == after
        || match message {
            Message::CommitOutputs(_) | Message::Decline(_) | Message::OpenOutputs(_) => {
                (before, after) == (Inferring, Drawing)
            }
            Message::DrawPanels(_) => {
                matches!((before, after), (Inferring | Drawing, Scoring) | (Inferring, Drawing))
            }
            Message::CommitScores(_) => (before, after) == (Scoring, Revealing),
            Message::RevealScores(_) => {
                matches!((before, after), (Scoring, Revealing) | (Scoring | Revealing, Settled | Refunded))
            }
            Message::Advance(_) => {
                !before.is_final()
                    && (after == Refunded || matches!((before, after), (Scoring | Revealing, Settled)))
            }
            _ => false,
        }
}

fn operates(call: &Accepted<'_>, node: NodeId) -> bool {
    call.state.nodes.get(&node).is_some_and(|node| node.operator == call.sender)
}

/// What a message has done to tasks.
fn tasks(call: &Accepted<'_>, message: &Message) -> Result<(), Failure> {
    for (id, before, after) in &call.diff.tasks {
        match (before, after) {
            (None, Some(task)) => {
                let asked = matches!(message, Message::RequestTasks(_)) && task.phase == Phase::Inferring;
                ensure(asked, || format!("task {id} comes out of {}", message.name()))?;
                requested(call, *id, task)?;
            }
            (Some(task), None) => {
                let collected = matches!(message, Message::Collect(_)) && task.phase.is_final();
                ensure(collected, || format!("task {id} is gone by {}: {task:?}", message.name()))?;
            }
            (Some(before), Some(after)) => {
                changed_task(call, message, *id, before, after).map_err(|error| Failure {
                    text: format!("task {id}, {}: {error}", message.name()),
                    ..error
                })?;
            }
            (None, None) => {}
        }
    }
    Ok(())
}

/// A new task's inference nodes: of the kind, of different owners, none of them the requester's.
fn requested(call: &Accepted<'_>, id: TaskId, task: &Task) -> Result<(), Failure> {
    let mut owners = BTreeSet::from([task.requester]);
    for slot in &task.outputs {
        let node = call
            .state
            .nodes
            .get(&slot.node)
            .ok_or_else(|| Failure::violation("an assigned node is not there"))?;
        let fits = node.role == Role::Inference
            && node.kind == task.kind
            && node.price == slot.price
            && node.price <= task.terms.inference_slot
            && owners.insert(node.owner);
        ensure(fits, || format!("task {id} has node {}: {node:?}", slot.node))?;
    }
    Ok(())
}

fn changed_task(
    call: &Accepted<'_>,
    message: &Message,
    id: TaskId,
    before: &Task,
    after: &Task,
) -> Result<(), Failure> {
    ensure(moved(message, before.phase, after.phase), || {
        format!("from {:?} to {:?}", before.phase, after.phase)
    })?;
    let fixed = |task: &Task| {
        let input = (task.input.clone(), task.reference_commitment, task.secret_hash, task.early);
        (task.requester, task.kind, task.terms, task.fee, input, task.requested_at)
    };
    ensure(fixed(before) == fixed(after), || format!("what was asked for is another thing: {after:?}"))?;
    if before.phase.is_final() {
        let mut opened = before.clone();
        opened.audited = true;
        let audited = !before.audited && *after == opened && matches!(message, Message::OpenReference(..));
        let in_time = call.now <= before.deadline + before.terms.audit_ms && before.phase == Phase::Settled;
        return ensure(audited && in_time, || "something happens to it after its end".into());
    }
    let (phase, deadline) = phase_at(before, call.now);
    for (old, new) in before.outputs.iter().zip(&after.outputs) {
        ensure((old.node, old.price) == (new.node, new.price), || "another node answers".into())?;
        if old.state == new.state {
            let same = (old.commitment, old.hash, old.salt) == (new.commitment, new.hash, new.salt);
            ensure(same, || format!("an answer is another one: {old:?}, {new:?}"))?;
            continue;
        }
        let own = operates(call, old.node);
        let open = before.phase == Phase::Inferring && call.now <= before.deadline;
        let half = deadline.saturating_sub(before.terms.draw_ms / 2);
        let may = match (old.state, new.state, message) {
            (OutputState::Assigned, OutputState::Committed, Message::CommitOutputs(items)) => {
                let sent = items
                    .iter()
                    .any(|item| (item.task, item.node, item.commitment) == (id, old.node, new.commitment));
                own && open && sent && new.commitment != [0; 32] && new.committed_at == call.now
            }
            (OutputState::Assigned, OutputState::Declined, Message::Decline(_)) => own && open,
            (
                OutputState::Committed,
                OutputState::Opened,
                Message::OpenOutputs(_) | Message::DrawPanels(_),
            ) => {
                let network = &call.state.root()?.network;
                let preimage = commitment::output(network, id, old.node, &new.hash, &new.salt);
                blake2(&preimage) == old.commitment && phase == Phase::Drawing && call.now <= half
            }
            _ => false,
        };
        ensure(may, || format!("at {} an answer from {old:?} to {new:?}", call.now))?;
    }
    seats(call, message, id, before, after)?;
    let draws = before.seed != after.seed;
    if draws {
        let shown =
            matches!(message, Message::DrawPanels(_)) && phase == Phase::Drawing && call.now <= deadline;
        let all = after.outputs.iter().all(|slot| slot.state != OutputState::Committed);
        ensure(shown && all && before.panel.iter().all(|seat| seat.node == 0), || {
            format!("drawn at {}: {before:?}", call.now)
        })?;
    }
    if before.sealed_epoch != after.sealed_epoch {
        // The outputs are sealed by the last answer, or by the deadline.
        let sealed = if call.now > before.deadline { before.deadline } else { call.now };
        let epoch_ms = call.state.root()?.epoch_ms;
        ensure(
            u64::from(after.sealed_epoch) == sealed / epoch_ms && before.phase == Phase::Inferring,
            || format!("sealed in epoch {} at {}", after.sealed_epoch, call.now),
        )?;
    }
    Ok(())
}

/// What happens to a panel.
fn seats(
    call: &Accepted<'_>,
    message: &Message,
    id: TaskId,
    before: &Task,
    after: &Task,
) -> Result<(), Failure> {
    let filled = !before.filled && after.filled;
    let (phase, deadline) = phase_at(before, call.now);
    let mut owners = BTreeSet::from([after.requester]);
    let of_answers =
        after.outputs.iter().filter_map(|slot| call.state.nodes.get(&slot.node)).map(|node| node.owner);
    owners.extend(of_answers);
    for (old, new) in before.panel.iter().zip(&after.panel) {
        if new.node != 0 && before.panel.iter().all(|seat| seat.node != new.node) {
            // Newly drawn.
            let fresh = Seat { node: new.node, drawn_at: call.now, ..Seat::vacant(after.outputs.len()) };
            let drawn = matches!(message, Message::DrawPanels(_)) && old.node == 0
                || matches!(message, Message::Advance(_)) && filled && old.state == SeatState::Drawn;
            let node = call.state.nodes.get(&new.node);
            let fits = node.is_some_and(|node| node.role == Role::Evaluator && node.kind == after.kind);
            ensure(drawn && fits && *new == fresh, || format!("a seat from {old:?} to {new:?}"))?;
        } else if new.node == 0 {
            let vacated = filled && old.state == SeatState::Drawn && matches!(message, Message::Advance(_));
            ensure(old.node == 0 || vacated, || format!("a seat is vacated: {old:?}"))?;
        } else if old.state != new.state {
            ensure(old.node == new.node, || format!("a seat from {old:?} to {new:?}"))?;
            let may = match (old.state, new.state, message) {
                (SeatState::Drawn, SeatState::Committed, Message::CommitScores(items)) => {
                    let sent = items.iter().any(|item| {
                        (item.task, item.node, item.commitment) == (id, old.node, new.commitment)
                    });
                    let open = before.phase == Phase::Scoring && call.now <= before.deadline;
                    operates(call, old.node)
                        && open
                        && sent
                        && new.commitment != [0; 32]
                        && new.committed_at == call.now
                }
                (SeatState::Committed, SeatState::Revealed, Message::RevealScores(items)) => {
                    let matching = |item: &&Reveal| {
                        item.task == id && item.node == old.node && item.scores == new.scores
                    };
                    let network = &call.state.root()?.network;
                    let opens = |item: &Reveal| {
                        let preimage = commitment::scores(
                            network,
                            id,
                            item.node,
                            &item.scores,
                            &item.report_hash,
                            &item.salt,
                        );
                        blake2(&preimage) == old.commitment
                    };
                    phase == Phase::Revealing
                        && call.now <= deadline
                        && items.iter().filter(matching).any(opens)
                }
                // Two messages' worth cannot be in one.
                _ => false,
            };
            ensure(may, || format!("at {} a seat from {old:?} to {new:?}", call.now))?;
        }
        if new.node != 0 && new.drawn_at == call.now && new.state == SeatState::Drawn {
            // One seat an owner, never the requester's nor an answer's. Checked when the seat is taken.
            let owner = call.state.nodes.get(&new.node).map(|node| node.owner);
            ensure(owner.is_some_and(|owner| owners.insert(owner)), || {
                format!("a second seat of an owner: {new:?}")
            })?;
        }
    }
    if filled {
        let may =
            phase == Phase::Scoring && call.now > deadline && call.now <= deadline + before.terms.draw_ms;
        ensure(may, || format!("seats are filled at {}", call.now))?;
    }
    Ok(())
}

/// The weight of a node by R2, by its owner's act (`least` is the kind's least stake) or by a settlement (half of it, R8), in parts per
/// billion.
fn weight(node: &Node, params: &KindParams, least: Balance) -> Balance {
    if node.status != NodeStatus::Active || node.stake.bonded < least.max(1) {
        return 0;
    }
    let billion = 1_000_000_000;
    let share = node.stake.bonded.min(params.stake_cap) * billion / params.stake_cap;
    share.min(billion) * Balance::from(node.trust.ppb()) / billion
}

/// What a message has done to nodes.
fn nodes(call: &Accepted<'_>, message: &Message) -> Result<(), Failure> {
    for (id, before, after) in &call.diff.nodes {
        let Some(after) = after else {
            let gone = matches!(message, Message::Deregister(other) if other == id);
            ensure(gone, || format!("node {id} is gone by {}", message.name()))?;
            continue;
        };
        let params = &call
            .state
            .kinds
            .get(&after.kind)
            .ok_or_else(|| Failure::violation(format!("node {id} is of no kind")))?
            .params;
        let Some(before) = before else {
            let new = matches!(message, Message::Register(_)) && after.owner == call.sender;
            ensure(new, || format!("node {id} comes out of {}", message.name()))?;
            continue;
        };
        let fixed = |node: &Node| (node.owner, node.role, node.kind, node.model_digest);
        ensure(fixed(before) == fixed(after), || format!("node {id} is another one: {after:?}"))?;
        let set = |node: &Node| (node.operator, node.payee, node.price);
        let configured = matches!(message, Message::Configure(..));
        ensure(configured || set(before) == set(after), || {
            format!("{} configures node {id}", message.name())
        })?;
        let trust = (before.trust, before.gain_average) == (after.trust, after.gain_average);
        let audits = matches!(message, Message::OpenReference(..));
        ensure(trust || audits, || format!("{} moves the trust of node {id}", message.name()))?;
        let settles = matches!(message, Message::Advance(_) | Message::RevealScores(_));
        ensure(before.due == after.due || settles, || {
            format!("{} moves what is due to node {id}", message.name())
        })?;
        ensure(after.trust >= params.trust_floor.min(before.trust), || {
            format!("node {id} has {:?}", after.trust)
        })?;
        if before.status != after.status {
            let may = match message {
                Message::Drain(other) => other == id,
                Message::Resume(other) => other == id && after.misses == 0,
                // Two missed duties in a row; and perhaps one that was done, in the same message.
                Message::Advance(_) | Message::RevealScores(_) => {
                    let ended = after.record.tasks - before.record.tasks;
                    after.status == NodeStatus::Draining && (after.misses >= 2 || ended >= 2)
                }
                _ => false,
            };
            ensure(may, || format!("{} makes node {id} {:?}", message.name(), after.status))?;
        }
        // Who has no place weighs nothing; who has one, never more than its stake and trust are worth.
        let latest = Balance::from(after.standing.weight.latest().ppb());
        let most = weight(after, params, params.stake_min / 2);
        let placed = after.standing.place.class().is_some();
        if before.standing != after.standing {
            ensure(latest <= if placed { most } else { 0 }, || {
                format!("node {id} weighs {latest} where {most} is its due: {after:?}")
            })?;
        }
        let owners_act = match message {
            Message::Stake(other) | Message::Drain(other) | Message::Resume(other) => other == id,
            Message::Refresh(others) => others.contains(id),
            _ => false,
        };
        if owners_act {
            let least =
                if before.standing.place.class().is_some() { params.stake_min / 2 } else { params.stake_min };
            let due = weight(after, params, least);
            ensure(latest == due, || format!("node {id} weighs {latest} after its owner's act, not {due}"))?;
        }
        if matches!(message, Message::Unstake(other, _) if other == id) {
            let due = weight(after, params, params.stake_min);
            ensure(latest == due, || format!("node {id} weighs {latest} after unstaking, not {due}"))?;
        }
    }
    Ok(())
}

/// No message changes what held in this epoch or the one before: of that panels are drawn (R1).
fn past(call: &Accepted<'_>) -> Result<(), Failure> {
    let now = epoch(call)?;
    let same = |what: &str, kept: [bool; 2]| {
        ensure(kept == [true; 2], || format!("{what}: the past changes, in epoch {now}"))
    };
    fn held<T: Copy + PartialEq + Default>(before: Option<&Ver<T>>, after: &Ver<T>, now: Epoch) -> [bool; 2] {
        let nothing = Ver::default();
        let before = before.unwrap_or(&nothing);
        [now, now.saturating_sub(1)].map(|epoch| before.at(epoch) == after.at(epoch))
    }
    for (pool, before, after) in &call.diff.pools {
        let after = after.as_ref().ok_or_else(|| Failure::violation("a pool is gone"))?;
        same(&format!("pool {pool:?}"), held(before.as_ref(), after, now))?;
    }
    for (place, before, after) in &call.diff.members {
        let after = after.as_ref().ok_or_else(|| Failure::violation("a place is gone"))?;
        same(&format!("place {place:?}"), held(before.as_ref(), after, now))?;
    }
    for (id, before, after) in &call.diff.nodes {
        if let (before, Some(after)) = (before, after) {
            let weight = before.as_ref().map(|node| &node.standing.weight);
            same(&format!("weight of node {id}"), held(weight, &after.standing.weight, now))?;
        }
    }
    Ok(())
}

/// Stake is at risk exactly for open tasks, every open task has its nodes bound, and accounts know what is theirs.
fn locks(state: &State) -> Result<(), Failure> {
    let mut owned: BTreeMap<AccountId, BTreeSet<NodeId>> = BTreeMap::new();
    for (id, node) in &state.nodes {
        owned.entry(node.owner).or_default().insert(*id);
        let open: Vec<TaskId> = node.open.iter().copied().filter(|task| *task != 0).collect();
        let mut at_risk = 0;
        for task_id in &open {
            let task = state.tasks.get(task_id).filter(|task| !task.phase.is_final());
            let task = task.ok_or_else(|| {
                Failure::violation(format!("node {id} is bound by task {task_id}, which is over"))
            })?;
            let (named, risk) = match node.role {
                Role::Inference => (
                    task.outputs.iter().filter(|slot| slot.node == *id).count(),
                    task.terms.inference_at_risk,
                ),
                Role::Evaluator => {
                    (task.panel.iter().filter(|seat| seat.node == *id).count(), task.terms.evaluator_at_risk)
                }
            };
            ensure(named == 1, || {
                format!("node {id} is bound by task {task_id}, which has {named} places for it")
            })?;
            at_risk += risk;
        }
        let twice = open.iter().collect::<BTreeSet<_>>().len() != open.len();
        let stake = node.stake;
        ensure(
            !twice && open.len() <= MAX_OPEN && stake.locked == at_risk && at_risk <= stake.total(),
            || format!("node {id} has {at_risk} at risk for {open:?}, and {stake:?}"),
        )?;
    }
    let mut asked: BTreeMap<AccountId, BTreeSet<TaskId>> = BTreeMap::new();
    for (id, task) in &state.tasks {
        asked.entry(task.requester).or_default().insert(*id);
        if task.phase.is_final() {
            continue;
        }
        let seats = task.panel.iter().map(|seat| seat.node).filter(|node| *node != 0);
        for node in task.outputs.iter().map(|slot| slot.node).chain(seats) {
            let bound = state.nodes.get(&node).is_some_and(|node| node.open.contains(id));
            ensure(bound, || format!("task {id} has node {node}, which is not bound by it"))?;
        }
    }
    for (id, account) in &state.accounts {
        let nodes: BTreeSet<NodeId> = account.nodes.iter().copied().collect();
        let tasks: BTreeSet<TaskId> = account.tasks.iter().copied().collect();
        let whole = nodes.len() == account.nodes.len()
            && tasks.len() == account.tasks.len()
            && nodes.len() <= MAX_NODES_PER_OWNER
            && tasks.len() <= MAX_TASKS_PER_REQUESTER
            && owned.remove(id).unwrap_or_default() == nodes
            && asked.remove(id).unwrap_or_default() == tasks;
        ensure(whole, || format!("an account does not know what is its own: {account:?}"))?;
    }
    ensure(owned.is_empty() && asked.is_empty(), || format!("nobody's: nodes {owned:?}, tasks {asked:?}"))
}

/// Pools are dense, and each node has at most one place in each version of them (R2).
fn places(call: &Accepted<'_>) -> Result<(), Failure> {
    let state = call.state;
    let now = epoch(call)?;
    let mut placed = 0;
    for (pool, counts) in &state.pools {
        for (which, held) in [
            ("next", Some(*counts.latest())),
            ("present", counts.at(now).copied()),
            ("last", counts.at(now.saturating_sub(1)).copied()),
        ] {
            let Some(Counts(held)) = held else { continue };
            let mut seen = BTreeSet::new();
            for class in 0..CLASSES {
                for index in 0..held[class] {
                    let key = (pool.kind, pool.role, u8::try_from(class).unwrap_or(u8::MAX), index);
                    let member = state.members.get(&key).copied().unwrap_or_default();
                    let id = match which {
                        "next" => Some(*member.latest()),
                        "present" => member.at(now).copied(),
                        _ => member.at(now.saturating_sub(1)).copied(),
                    };
                    let Some(id) = id else {
                        return Err(Failure::violation(format!(
                            "place {key:?} is forgotten in its {which} version"
                        )));
                    };
                    ensure(id != 0 && seen.insert(id), || {
                        format!("node {id} has two places, {which}, or none is at {key:?}")
                    })?;
                    if which == "next" {
                        placed += 1;
                        let node = state.nodes.get(&id);
                        let here = node.is_some_and(|node| {
                            let place = node.standing.place;
                            usize::from(place.class) == class
                                && place.index == index
                                && PoolId { kind: node.kind, role: node.role } == *pool
                        });
                        ensure(here, || format!("{key:?} has node {id}, which thinks it is elsewhere"))?;
                    }
                }
            }
        }
    }
    let think = state.nodes.values().filter(|node| node.standing.place.class().is_some()).count();
    ensure(think == placed, || format!("{placed} places, {think} nodes think they have one"))
}

/// What is announced is on the list, once each.
fn governance(state: &State) -> Result<(), Failure> {
    let listed: BTreeSet<Vec<u8>> = state.levers.iter().map(Lever::encode).collect();
    let same = listed.len() == state.levers.len()
        && listed.len() <= MAX_PENDING
        && listed.iter().eq(state.changes.keys());
    ensure(same, || format!("{:?} are listed, {} are announced", state.levers, state.changes.len()))
}

/// What has been changed by the diff of a call that was refused: nothing.
///
/// # Errors
/// A violation where something has.
pub fn untouched(diff: &Diff) -> Result<(), Failure> {
    ensure(diff.resized.is_empty(), || format!("a refused call writes: {:?}", diff.resized))
}
