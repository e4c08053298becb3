//! What the books say, as rows of the derived tables.

use crate::db::schema as t;
use crate::db::schema::Table;
use crate::db::Cell;
use crate::ledger::{Block, End, Id, Ledger, TaskBook, Touched};
use crate::row;
use poq_chain::explain::node_lines;
use poq_chain::json::ToJson;
use poq_chain::pool::PoolEvent;
use poq_chain::types::{
    Change, Ending, Lever, NodeId, NodeStatus, OutputState, Phase, Role, SeatState, TaskId,
};
use poq_chain::{to_account32, AccountId32};
use serde_json::Value;

/// Rows of one table.
pub(crate) type Rows = Vec<Vec<Cell>>;

/// An account, as it stands in the tables.
pub fn address(account: &Id) -> String {
    AccountId32(*account).to_string()
}

/// A hash, as it stands in the tables.
pub(crate) fn hex(hash: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(hash))
}

/// A name that serde has for something.
fn name<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// What a role is called.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Inference => "inference",
        Role::Evaluator => "evaluator",
    }
}

/// What a lever is called, with what it is about.
pub(crate) fn lever_name(lever: &Lever) -> String {
    match lever {
        Lever::Kind(kind) => format!("kind {kind}"),
        Lever::Global => "global".into(),
        Lever::Appoint(account) => format!("appoint {}", to_account32(account)),
        Lever::SlashAuditor(account) => format!("slash {}", to_account32(account)),
        Lever::Code => "code".into(),
    }
}

/// What ended tasks were for each of their nodes.
pub(crate) fn line_rows(end: &End) -> Rows {
    let Some(params) = &end.params else { return Rows::new() };
    let event = &end.event;
    let outputs = event.output_nodes.iter().enumerate().map(|(place, node)| (place, *node));
    let seats = event.panel_nodes.iter().enumerate().filter(|(_, node)| **node != 0);
    let first = event.output_nodes.len();
    let places = outputs.chain(seats.map(|(place, node)| (first.saturating_add(place), *node)));
    node_lines(params, event, None)
        .into_iter()
        .zip(places)
        .map(|(line, (place, _))| {
            let seat = place.checked_sub(first).and_then(|seat| event.settlement.panel.get(seat));
            row![
                event.task,
                place,
                line.node,
                line.role,
                line.conduct,
                end.block.number,
                end.block.at,
                line.quality_or_merit,
                line.cost,
                line.net,
                line.latency_ms,
                line.price,
                line.slot,
                line.payout,
                line.slashed,
                line.deviation,
                line.gain,
                line.trust.map(|(trust, _)| trust),
                seat.map(|seat| seat.due),
            ]
        })
        .collect()
}

/// A task's row.
pub(crate) fn task_row(id: TaskId, book: &TaskBook) -> Vec<Cell> {
    let task = &book.task;
    let ended = task.phase.is_final();
    let clock = task.clock();
    let totals = book.totals.as_ref();
    let amount = |pick: fn(&poq_chain::explain::Totals) -> u128| totals.map_or(0, pick);
    row![
        id,
        task.kind,
        task.terms.version,
        to_account32(&task.requester).to_string(),
        task.fee,
        task.outputs.len(),
        task.panel.len(),
        task.early,
        task.input.inline,
        hex(&task.input.hash),
        task.input.url.as_str(),
        book.requested,
        task.requested_at,
        name(&task.phase),
        task.deadline,
        clock.committed,
        clock.revealed,
        ended.then(|| name::<Ending>(&task.ending)),
        ended.then_some(task.final_block),
        ended.then_some(task.deadline),
        book.quality,
        amount(|totals| totals.paid),
        task.keepers,
        amount(|totals| totals.treasury),
        amount(|totals| totals.burned),
        amount(|totals| totals.slashed),
        amount(|totals| totals.refund),
        book.audited,
        book.collected,
    ]
}

/// What nodes have to do in a task.
fn duty_rows(id: TaskId, book: &TaskBook) -> Rows {
    let task = &book.task;
    if task.phase.is_final() {
        return Rows::new();
    }
    let outputs = task.outputs.iter().enumerate().map(|(place, slot)| {
        let state = match slot.state {
            OutputState::Assigned => "assigned",
            OutputState::Declined => "declined",
            OutputState::Committed => "committed",
            OutputState::Opened => "opened",
        };
        (place, slot.node, Role::Inference, state)
    });
    let first = task.outputs.len();
    let seats = task.panel.iter().enumerate().filter(|(_, seat)| seat.node != 0).map(|(place, seat)| {
        let state = match seat.state {
            SeatState::Drawn => "drawn",
            SeatState::Committed => "committed",
            SeatState::Revealed => "revealed",
        };
        (first.saturating_add(place), seat.node, Role::Evaluator, state)
    });
    let due = match task.phase {
        Phase::Settled | Phase::Refunded => 0,
        _ => task.deadline,
    };
    outputs
        .chain(seats)
        .map(|(place, node, role, state)| row![id, place, node, role_name(role), state, due])
        .collect()
}

fn node_row(ledger: &Ledger, id: NodeId) -> Option<Vec<Cell>> {
    let book = ledger.nodes.get(&id)?;
    let node = &book.node;
    let status = match (book.gone, node.status) {
        (true, _) => "gone",
        (false, NodeStatus::Active) => "active",
        (false, NodeStatus::Draining) => "draining",
    };
    Some(row![
        id,
        to_account32(&node.owner).to_string(),
        to_account32(&node.operator).to_string(),
        to_account32(&node.payee).to_string(),
        role_name(node.role),
        node.kind,
        book.info.model.as_str(),
        hex(&node.model_digest),
        book.info.endpoint.as_str(),
        node.price,
        status,
        book.registered,
        book.info.registered_at,
        node.stake.bonded,
        node.stake.locked,
        node.stake.unbonding(),
        node.claimable,
        node.withdrawn,
        node.slashed,
        book.earned,
        node.record.tasks,
        book.missed,
        node.misses,
        book.scored,
        book.quality_sum,
        book.cost_sum,
        book.answered,
        book.latency_sum,
        node.record.burned,
        node.record.earned,
        node.trust.ppb(),
        node.gain_average,
        node.due,
        node.open_count(),
        book.last.0,
        book.last.1,
    ])
}

fn account_row(ledger: &Ledger, id: &Id) -> Option<Vec<Cell>> {
    let book = ledger.accounts.get(id)?;
    let (first, last) = book.blocks.unwrap_or_default();
    Some(row![
        address(id),
        book.tasks,
        book.fees,
        book.refunds,
        book.rewards,
        book.claimed,
        book.keeper,
        book.credit,
        book.slashed,
        book.staked,
        book.unstaked,
        book.pooled,
        book.unpooled,
        book.bond,
        first,
        last,
    ])
}

fn pool_row(ledger: &Ledger, id: &Id) -> Option<Vec<Cell>> {
    let book = ledger.pools.get(id)?;
    // One that does not answer as a pool is none.
    let (read, block) = book.state.as_ref()?;
    let view = &read.view;
    Some(row![
        address(id),
        book.node,
        book.created.0,
        book.created.1,
        hex(&read.code),
        to_account32(&view.manager).to_string(),
        view.token.name.clone().unwrap_or_default(),
        view.token.symbol.clone().unwrap_or_default(),
        view.ledger.stage.to_json().as_str().unwrap_or_default(),
        view.ledger.active,
        view.ledger.bond,
        view.supply,
        view.to_json().to_string(),
        *block,
    ])
}

/// The change itself, without the lever, as JSON.
fn change_json(change: &Change) -> String {
    change.to_json().to_string()
}

/// The one row of the network's sums.
fn totals_row(ledger: &Ledger) -> Vec<Cell> {
    let (sums, owes) = (&ledger.sums, &ledger.owes);
    row![
        1u8,
        ledger.owner.to_string(),
        ledger.paused,
        ledger.global.to_json().to_string(),
        sums.requested,
        sums.settled,
        sums.refunded,
        sums.nodes,
        sums.fees,
        sums.paid,
        sums.keepers,
        sums.burned,
        sums.sent,
        sums.slashed,
        sums.treasury,
        sums.withdrawn,
        owes.stakes,
        owes.escrow,
        owes.refunds,
        owes.claimable,
        owes.bonds,
        owes.treasury,
        owes.burned,
        sums.events,
    ]
}

/// Rows of the derived tables, table by table, and the tasks whose duties they replace.
pub(crate) struct Written {
    /// The rows.
    pub(crate) rows: Vec<(&'static Table, Rows)>,
    /// Tasks whose duties are written anew.
    pub(crate) duties_of: Vec<TaskId>,
}

/// What blocks have changed, as rows.
pub(crate) fn written(ledger: &Ledger, touched: &Touched, ends: &[End], strange: &Rows) -> Written {
    let books = || touched.tasks.iter().filter_map(|id| Some((*id, ledger.tasks.get(id)?)));
    let tasks: Rows = books().map(|(id, book)| task_row(id, book)).collect();
    let duties: Rows = books().flat_map(|(id, book)| duty_rows(id, book)).collect();
    let lines: Rows = ends.iter().flat_map(line_rows).collect();
    let entries = touched.entries.iter().map(|entry| {
        row![
            address(&entry.account),
            entry.block,
            entry.index,
            entry.part,
            entry.at,
            entry.what,
            entry.amount,
            entry.node,
            entry.task,
            entry.pool.as_ref().map(address),
        ]
    });
    let kinds = touched.versions.iter().map(|(kind, version, block, at, params)| {
        row![*kind, *version, *block, *at, params.to_json().to_string()]
    });
    let populations = touched.kinds.iter().filter_map(|kind| {
        let population = &ledger.kinds.get(kind)?.population;
        let ring = serde_json::to_string(&population.ring).unwrap_or_default();
        Some(row![*kind, population.reference.ppb(), population.gain_average, ring])
    });
    let changes = touched.changes.values().map(|announced| {
        let (block, index, at) = announced.placed;
        row![
            block,
            index,
            at,
            lever_name(&announced.change.lever()),
            change_json(&announced.change),
            announced.acts_at,
            announced.state,
            announced.state_at.map(|(block, _)| block),
            announced.state_at.map(|(_, at)| at),
        ]
    });
    let auditors = touched.auditors.iter().filter_map(|id| {
        let (auditor, block) = ledger.auditors.get(id)?;
        Some(row![address(id), auditor.appointed, auditor.bond, auditor.unbonds_at, auditor.audits, *block,])
    });
    let members = touched.members.iter().filter_map(|(pool, account)| {
        let member = ledger.pools.get(pool)?.members.get(account)?;
        Some(row![
            address(pool),
            address(account),
            member.shares,
            member.deposited,
            member.exited,
            member.paid,
        ])
    });
    let income = touched.income.iter().filter_map(|(pool, block, index, at, event, active)| {
        let PoolEvent::Accounted(e) = &*event.0 else { return None };
        Some(row![
            address(pool),
            *block,
            *index,
            *at,
            e.shares_earned,
            e.shares_slashed,
            e.bond_earned,
            e.bond_slashed,
            e.commission,
            *active,
        ])
    });
    let days = touched.days.values().map(|day| {
        row![
            day.day,
            day.requested,
            day.settled,
            day.refunded,
            day.fees,
            day.paid,
            day.keepers,
            day.treasury,
            day.burned,
            day.slashed,
        ]
    });
    let node_days = touched.node_days.iter().map(|((node, number), day)| {
        row![
            *node,
            *number,
            day.tasks,
            day.missed,
            day.scored,
            day.earned,
            day.slashed,
            day.quality_sum,
            day.cost_sum,
        ]
    });
    let trust = touched.trust.iter().map(|(node, block, index, at, task, trust, gain)| {
        row![*node, *block, *index, *at, *task, *trust, *gain]
    });
    let rows: Vec<(&'static Table, Rows)> = vec![
        (&t::TASK_EVENTS, touched.task_events.iter().map(|(a, b, c)| row![*a, *b, *c]).collect()),
        (&t::TASKS, tasks),
        (&t::LINES, lines),
        (&t::DUTIES, duties),
        (&t::NODES, touched.nodes.iter().filter_map(|id| node_row(ledger, *id)).collect()),
        (&t::TRUST, trust.collect()),
        (&t::NODE_DAYS, node_days.collect()),
        (&t::ENTRIES, entries.collect()),
        (&t::ACCOUNTS, touched.accounts.iter().filter_map(|id| account_row(ledger, id)).collect()),
        (&t::KINDS, kinds.collect()),
        (&t::POPULATIONS, populations.collect()),
        (&t::CHANGES, changes.collect()),
        (&t::AUDITORS, auditors.collect()),
        (&t::POOLS, touched.pools.iter().filter_map(|id| pool_row(ledger, id)).collect()),
        (&t::POOL_INCOME, income.collect()),
        (&t::MEMBERS, members.collect()),
        (&t::DAYS, days.collect()),
        (&t::TOTALS, vec![totals_row(ledger)]),
        (&t::STRANGE, strange.clone()),
    ];
    let duties_of = touched.tasks.iter().copied().collect();
    Written { rows: rows.into_iter().filter(|(_, rows)| !rows.is_empty()).collect(), duties_of }
}

/// Everything that the books hold and that has one row of its own for good, as rows: what a database must have at the end.
pub(crate) fn present(ledger: &Ledger) -> Written {
    let pools = &ledger.pools;
    let touched = Touched {
        nodes: ledger.nodes.keys().copied().collect(),
        accounts: ledger.accounts.keys().copied().collect(),
        kinds: ledger.kinds.keys().copied().collect(),
        auditors: ledger.auditors.keys().copied().collect(),
        pools: pools.keys().copied().collect(),
        members: pools
            .iter()
            .flat_map(|(pool, book)| book.members.keys().map(|account| (*pool, *account)))
            .collect(),
        ..Touched::default()
    };
    written(ledger, &touched, &[], &Rows::new())
}

/// A block's row.
pub(crate) fn block_row(block: &Block) -> Vec<Cell> {
    row![block.number, hex(&block.hash.0), block.at]
}
