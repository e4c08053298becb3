//! Replaying how a task ended, from what the chain shows.
//!
//! A task's last event carries all that went into its end and all that came out. Trusting nobody, [`explain`] computes the outcome
//! again, draws the panel again, and moves the records of the block before on by what the block's events say, all with `poq-core`'s
//! own functions: what went in, and every record after the block, must be what comes out of that.

use crate::account::to_account32;
use crate::client::{At, Block, Client};
use crate::commit::{self, Network};
use crate::error::{Error, Result};
use crate::events::{Emitted, FinalEvent, PanelDrawn, PoqEvent, TaskAudited, TaskClosed};
use crate::json::ToJson;
use crate::redraw::redraw;
use crate::replay::{standing, Records, Stuck};
use crate::types::{
    epoch_of, token_f1, Answer, Balance, BondChange, Conduct, KindId, KindParams, Liabilities, NodeId,
    Opening, OutputState, PoolId, Reveal, Role, SeatState, Settlement, SettlementInput, Task, TaskId,
};
use crate::view::View;
use poq_core::registry::{self, Account};
use poq_core::settlement::{audit, has_no_input, settle};
use poq_core::task::penalties::evaluator_penalty;
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use subxt::utils::AccountId32;

pub use crate::types::Ending;

/// How many blocks are searched for what led to an end, or came after it, at the most.
const SEARCH: u32 = 2_000;

/// What one comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Both sides are the same.
    Agrees,
    /// They are not; see [`Explanation::differences`].
    Differs,
    /// It could not be made.
    Skipped(String),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was compared with what.
    pub what: String,
    /// What was found.
    pub found: Found,
}

/// A number that is not what it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The comparison.
    pub check: String,
    /// Which number.
    pub what: String,
    /// What it should be.
    pub expected: Value,
    /// What it is.
    pub found: Value,
}

/// What one node got out of the task, with every number of its formula R = α·x − β·C.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeLine {
    /// The node.
    pub node: NodeId,
    /// `inference` or `evaluator`.
    pub role: &'static str,
    /// What it did: `delivered`, `declined`, `unopened`, `missed`; of an evaluator `revealed`, `no_input`, `unrevealed`, `waited`,
    /// `missed`.
    pub conduct: &'static str,
    /// α in parts per billion.
    pub alpha: u32,
    /// x: the consensus quality of its output, or its merit; in parts per billion. `None` where the scores decided nothing.
    pub quality_or_merit: Option<u32>,
    /// β in parts per billion.
    pub beta: u32,
    /// C: its cost in parts per billion.
    pub cost: u32,
    /// R in signed parts per billion.
    pub net: i64,
    /// From assignment to commitment in milliseconds, where it committed.
    pub latency_ms: Option<u64>,
    /// What it asked for, of an inference node.
    #[serde(serialize_with = "decimal")]
    pub price: Balance,
    /// The most that it could earn.
    #[serde(serialize_with = "decimal")]
    pub slot: Balance,
    /// What it earned.
    #[serde(serialize_with = "decimal")]
    pub payout: Balance,
    /// What it lost of its stake.
    #[serde(serialize_with = "decimal")]
    pub slashed: Balance,
    /// Its deviation from the others in parts per billion, of an evaluator.
    pub deviation: Option<u32>,
    /// Its information gain in signed parts per billion, of an evaluator where there was anything to compare with.
    pub gain: Option<i64>,
    /// Its trust in parts per billion, of an evaluator: what its scores counted by, and what an opened reference has made of it.
    pub trust: Option<(u32, u32)>,
}

/// Where the fee went. Paid + keepers + treasury + burned + refund = fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// What was paid into escrow.
    #[serde(serialize_with = "decimal")]
    pub fee: Balance,
    /// To nodes.
    #[serde(serialize_with = "decimal")]
    pub paid: Balance,
    /// To those who took the task's steps.
    #[serde(serialize_with = "decimal")]
    pub keepers: Balance,
    /// To the treasury.
    #[serde(serialize_with = "decimal")]
    pub treasury: Balance,
    /// To nobody.
    #[serde(serialize_with = "decimal")]
    pub burned: Balance,
    /// Back to the requester.
    #[serde(serialize_with = "decimal")]
    pub refund: Balance,
    /// Out of stakes, to nobody.
    #[serde(serialize_with = "decimal")]
    pub slashed: Balance,
}

/// An opened reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audited {
    /// The block.
    pub block: Block,
    /// Who opened it.
    pub auditor: AccountId32,
    /// What was opened.
    #[serde(serialize_with = "as_json")]
    pub opening: Opening,
}

/// How a task ended and whether it ended rightly.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The task.
    pub task: TaskId,
    /// The contract.
    pub contract: AccountId32,
    /// Who paid.
    pub requester: AccountId32,
    /// The kind.
    pub kind: KindId,
    /// The version of the kind's parameters.
    pub version: u32,
    /// The block that it ended in.
    pub block: Block,
    /// How.
    pub ending: Ending,
    /// The parameters that it ran under.
    pub params: Option<KindParams>,
    /// What went in, as the event says.
    pub input: SettlementInput,
    /// What came out of it, as the event says.
    pub recorded: Settlement,
    /// What comes out when it is computed again.
    pub recomputed: Option<Settlement>,
    /// What each node got.
    pub nodes: Vec<NodeLine>,
    /// Where the fee went.
    pub totals: Totals,
    /// Its opened reference, where there is one. Not looked for once the task is collected.
    pub audit: Option<Audited>,
    /// Every comparison that was tried.
    pub checks: Vec<Check>,
    /// Every number that is not what it should be; empty where all agrees.
    pub differences: Vec<Difference>,
}

impl Explanation {
    /// Whether nothing that could be compared differs.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }

    /// The comparisons that could not be made, each with the reason.
    pub fn skipped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().filter_map(|check| match &check.found {
            Found::Skipped(why) => Some((check.what.as_str(), why.as_str())),
            Found::Agrees | Found::Differs => None,
        })
    }
}

fn decimal<S: serde::Serializer>(amount: &Balance, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(amount)
}

fn as_json<T: ToJson, S: serde::Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    value.to_json().serialize(s)
}

/// Explains a task that has not been collected yet.
///
/// # Errors
/// `Rejected(NoTask)`, `NotFinal`, `Pruned` where the node no longer has the block of its end, or where the node cannot be
/// asked.
pub async fn explain(client: &Client, task: TaskId) -> Result<Explanation> {
    explain_event(client, client.final_event(task).await?).await
}

/// Explains a task that ended in a known block, collected or not.
///
/// # Errors
/// `NoFinalEvent` where the block does not have its end; `Pruned`; or where the node cannot be asked.
pub async fn explain_at(client: &Client, task: TaskId, block: u32) -> Result<Explanation> {
    explain_event(client, client.final_event_at(task, block).await?).await
}

/// Explains an end that is known from its event, against what the chain shows around the event's block.
///
/// # Errors
/// `Pruned` where the node no longer has the block's state, or where the node cannot be asked.
pub async fn explain_event(client: &Client, ended: FinalEvent) -> Result<Explanation> {
    let event = *ended.event;
    let spot = Spot::new(client, ended.block, ended.index).await?;
    let explainer = Explainer {
        client,
        network: client.network().await?,
        task: event.task,
        checks: Vec::new(),
        differences: Vec::new(),
    };
    explainer.end(&spot, event).await
}

/// An event's block.
struct Spot {
    /// The block before, where the chain still has its state.
    before: Option<View>,
    /// The block.
    after: View,
    /// All events of the block.
    events: Vec<Emitted>,
    /// The place of the event among the block's.
    index: u32,
}

impl Spot {
    async fn new(client: &Client, block: Block, index: u32) -> Result<Spot> {
        Ok(Spot {
            before: parent(client, block).await?,
            after: client.view_at(block).await?,
            events: client.events_at(block).await?,
            index,
        })
    }
}

/// The block before another, where the chain still has its state.
async fn parent(client: &Client, block: Block) -> Result<Option<View>> {
    match client.view_at(client.header(block.hash).await?.parent_hash).await {
        Ok(view) => Ok(Some(view)),
        Err(Error::Pruned { .. } | Error::NoBlock { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

const PRUNED: &str = "the node no longer has the state of the block before";

struct Explainer<'a> {
    client: &'a Client,
    network: Network,
    task: TaskId,
    checks: Vec<Check>,
    differences: Vec<Difference>,
}

impl Explainer<'_> {
    fn compare(&mut self, check: &str, expected: &Value, found: &Value) {
        let from = self.differences.len();
        diff(check, "", expected, found, &mut self.differences);
        let found = if self.differences.len() == from { Found::Agrees } else { Found::Differs };
        self.checks.push(Check { what: check.to_owned(), found });
    }

    fn skip(&mut self, check: &str, why: impl Into<String>) {
        self.checks.push(Check { what: check.to_owned(), found: Found::Skipped(why.into()) });
    }

    fn differ(&mut self, check: &str, what: &str, expected: Value, found: Value) {
        self.differences.push(Difference { check: check.to_owned(), what: what.to_owned(), expected, found });
        self.checks.push(Check { what: check.to_owned(), found: Found::Differs });
    }

    async fn end(mut self, spot: &Spot, event: TaskClosed) -> Result<Explanation> {
        let params = spot.after.params(event.kind, event.version).await?;
        let recomputed = params.as_ref().and_then(|params| settle(params, &event.input));
        self.compare(
            "the outcome, computed again from what went in",
            &recomputed.to_json(),
            &event.settlement.to_json(),
        );
        let totals = self.sums(&event);
        let nodes = event.output_nodes.iter().chain(&event.panel_nodes).copied().filter(|node| *node != 0);
        let moment = self.replay(spot, event.kind, nodes.collect(), "it ended").await?;
        self.input(&event, moment.as_ref());
        self.books(spot).await?;
        // As it was stored, or would have been had it not been collected.
        let record = match spot.after.task(self.task).await? {
            Some(view) => Some(view.task),
            None => moment.and_then(|(_, task)| task),
        };
        match (&record, &params) {
            (Some(record), Some(params)) => self.history(spot, record, params).await?,
            _ => self.skip(
                "the panel and its reveals",
                "the chain shows the task's record at no block of its end",
            ),
        }
        let audited = self.audit(spot, record.as_ref(), params.as_ref()).await?;
        let trusted = audited.as_ref().map(|(_, event)| &event.audit.panel[..]);
        Ok(Explanation {
            task: self.task,
            contract: self.network.contract,
            requester: to_account32(&event.requester),
            kind: event.kind,
            version: event.version,
            block: spot.after.block(),
            ending: event.settlement.ending,
            nodes: params.as_ref().map(|params| node_lines(params, &event, trusted)).unwrap_or_default(),
            params,
            input: event.input,
            recorded: event.settlement,
            recomputed,
            totals,
            audit: audited.map(|(block, event)| Audited {
                block,
                auditor: to_account32(&event.auditor),
                opening: event.opening,
            }),
            checks: self.checks,
            differences: self.differences,
        })
    }

    /// Paid + keepers + treasury + burned + refund = fee, and Σ slashed = slashed.
    fn sums(&mut self, event: &TaskClosed) -> Totals {
        let Settlement { outputs, panel, treasury, burned, slashed, refund, .. } = &event.settlement;
        let outputs = outputs.iter().map(|o| (o.payout, o.slashed));
        let all = outputs.chain(panel.iter().map(|e| (e.payout, e.slashed)));
        let (paid, lost) = all.fold((0u128, 0u128), |(paid, lost), (payout, slashed)| {
            (paid.saturating_add(payout), lost.saturating_add(slashed))
        });
        let totals = Totals {
            fee: event.input.fee,
            paid,
            keepers: event.input.keepers,
            treasury: *treasury,
            burned: *burned,
            refund: *refund,
            slashed: *slashed,
        };
        let spent = [paid, totals.keepers, *treasury, *burned, *refund];
        let spent = spent.into_iter().fold(0, Balance::saturating_add);
        self.compare(
            "the sums",
            &json!({ "fee": totals.fee.to_json(), "slashed": lost.to_json() }),
            &json!({ "fee": spent.to_json(), "slashed": slashed.to_json() }),
        );
        totals
    }

    /// Moves the records of the block before on by the block's events, and compares them with those after it. Returns the records as
    /// the event found them, and the task's as it would be kept.
    async fn replay(
        &mut self,
        spot: &Spot,
        kind: KindId,
        nodes: BTreeSet<NodeId>,
        when: &str,
    ) -> Result<Option<(Records, Option<Task>)>> {
        let check =
            format!("the records of the task, its nodes and its kind after the block in which {when}");
        let Some(before) = &spot.before else {
            self.skip(&check, PRUNED);
            return Ok(None);
        };
        let views = (before, &spot.after);
        let mut records = Records::load(views, &spot.events, self.network, kind, self.task, &nodes).await?;
        let (mut moment, mut kept) = (None, None);
        for (at, emitted) in spot.events.iter().enumerate() {
            if emitted.index == spot.index {
                let mut found = records.clone();
                found.tasks.extend(records.task(self.task, &spot.events, at).map(|task| (self.task, task)));
                moment = Some(found);
            }
            let result = records.apply(&spot.events, at);
            if emitted.index == spot.index {
                kept = records.tasks.get(&self.task).cloned();
            }
            match result {
                Ok(()) => {}
                Err(Stuck::Unknown(why)) => {
                    self.skip(&check, why);
                    return Ok(moment.map(|moment| (moment, kept)));
                }
                Err(Stuck::Refused(why)) => {
                    self.differ(&check, emitted.event.name(), json!("what the protocol allows"), json!(why));
                    return Ok(moment.map(|moment| (moment, kept)));
                }
            }
        }
        let (mut expected, mut found) = (serde_json::Map::new(), serde_json::Map::new());
        for id in &nodes {
            let (Some(foretold), Some(view)) = (records.nodes.get(id), spot.after.node(*id).await?) else {
                self.skip(
                    &format!("the record of node {id}"),
                    "it was registered or deregistered in the block",
                );
                continue;
            };
            expected.insert(format!("node {id}"), standing(foretold));
            found.insert(format!("node {id}"), standing(&view.node));
        }
        expected.insert("task".into(), records.tasks.get(&self.task).cloned().to_json());
        found.insert("task".into(), spot.after.task(self.task).await?.map(|view| view.task).to_json());
        expected.insert("kind".into(), records.population.to_json());
        found.insert("kind".into(), spot.after.kind(kind).await?.map(|view| view.kind.population).to_json());
        self.compare(&check, &Value::Object(expected), &Value::Object(found));
        Ok(moment.map(|moment| (moment, kept)))
    }

    /// What went in, against the records as they were just before.
    fn input(&mut self, event: &TaskClosed, moment: Option<&(Records, Option<Task>)>) {
        let check = "what went in, against the records of the block before and what has happened since";
        let found = moment.and_then(|(records, _)| {
            let task = records.tasks.get(&self.task)?;
            Some((task, records.settlement_input(task)?))
        });
        let Some((task, input)) = found else {
            let why = if moment.is_some() {
                "the task was requested in the block that it ended in"
            } else {
                PRUNED
            };
            return self.skip(check, why);
        };
        let mut expected = input.to_json();
        expected["task"] = json!({
            "requester": task.requester.to_json(),
            "kind": task.kind,
            "version": task.terms.version,
            "seed": task.seed.to_json(),
            "output_nodes": task.outputs.iter().map(|slot| slot.node).collect::<Vec<_>>(),
            "panel_nodes": task.panel.iter().map(|seat| seat.node).collect::<Vec<_>>(),
        });
        let mut found = event.input.to_json();
        found["task"] = json!({
            "requester": event.requester.to_json(),
            "kind": event.kind,
            "version": event.version,
            "seed": event.seed.to_json(),
            "output_nodes": event.output_nodes,
            "panel_nodes": event.panel_nodes,
        });
        self.compare(check, &expected, &found);
    }

    /// What treasury and fire have got in the block.
    async fn books(&mut self, spot: &Spot) -> Result<()> {
        let check = "what is the treasury's and what is burned after the block";
        let Some(before) = &spot.before else {
            self.skip(check, PRUNED);
            return Ok(());
        };
        let Liabilities { mut treasury, mut burned, .. } = before.liabilities().await?;
        for emitted in &spot.events {
            let add = |sum: &mut Balance, amount: Balance| *sum = sum.saturating_add(amount);
            match &emitted.event {
                PoqEvent::TaskClosed(e) => {
                    add(&mut treasury, e.settlement.treasury);
                    add(&mut burned, e.settlement.burned);
                    add(&mut burned, e.settlement.slashed);
                }
                PoqEvent::PanelDrawn(e) => e.vacated.iter().for_each(|lost| add(&mut burned, lost.amount)),
                PoqEvent::AuditorChanged(e) => {
                    if let BondChange::Slashed(amount) = e.change {
                        add(&mut burned, amount);
                    }
                }
                // What somebody sent without a message can be withdrawn too, and was never booked.
                PoqEvent::TreasuryWithdrawn(e) => treasury = treasury.saturating_sub(e.amount),
                PoqEvent::Burned(e) => burned = burned.saturating_sub(e.amount),
                _ => {}
            }
        }
        let after = spot.after.liabilities().await?;
        self.compare(
            check,
            &json!({ "treasury": treasury.to_json(), "burned": burned.to_json() }),
            &json!({ "treasury": after.treasury.to_json(), "burned": after.burned.to_json() }),
        );
        Ok(())
    }

    /// What led to the end: the draws and the reveals.
    async fn history(&mut self, spot: &Spot, record: &Task, params: &KindParams) -> Result<()> {
        if record.panel.iter().all(|seat| seat.node == 0) && !record.filled {
            return Ok(());
        }
        let (draws, reveals) = match self.search(spot, record).await {
            Ok(found) => found,
            Err(Error::Pruned { .. } | Error::NoBlock { .. }) => {
                self.skip("the panel and its reveals", "the node no longer has the blocks since the draw");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let check = "the scores, against the reveals and the commitments that they open";
        let revealed: Vec<_> = record.panel.iter().filter(|seat| seat.state == SeatState::Revealed).collect();
        let (mut expected, mut found, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for seat in &revealed {
            let Some(reveal) = reveals.get(&seat.node) else {
                missing.push(seat.node);
                continue;
            };
            let Reveal { task, node, scores, report_hash, salt } = reveal;
            let commitment = self.network.scores(*task, *node, scores, report_hash, salt);
            expected.push(json!({ "node": node, "scores": scores, "commitment": commitment.to_json() }));
            found.push(json!({
                "node": seat.node,
                "scores": seat.scores,
                "commitment": seat.commitment.to_json(),
            }));
        }
        if !revealed.is_empty() {
            self.compare(check, &Value::Array(expected), &Value::Array(found));
        }
        if !missing.is_empty() {
            self.skip("some reveals", format!("no reveal of nodes {missing:?} in the last {SEARCH} blocks"));
        }
        for (emitted, event) in &draws {
            self.seed(record, event);
            self.panel(record, params, emitted, event).await?;
        }
        if !draws.iter().any(|(_, event)| !event.filled) {
            self.skip("the draw of the panel", format!("it is not in the last {SEARCH} blocks"));
        }
        Ok(())
    }

    /// Searches backwards for the draws and the reveals of the task, until its panel's draw.
    async fn search(&self, spot: &Spot, record: &Task) -> Result<(Draws, BTreeMap<NodeId, Reveal>)> {
        let (mut draws, mut reveals) = (Draws::new(), BTreeMap::new());
        let last = spot.after.block().number;
        for number in (0..=last).rev().take(SEARCH as usize) {
            let emitted = if number == last {
                spot.events.clone()
            } else {
                let block = self.client.block(At::Number(number)).await?;
                if block.timestamp_ms < record.requested_at {
                    break;
                }
                self.client.events_at(block).await?
            };
            for item in emitted {
                match &item.event {
                    PoqEvent::ScoresRevealed(event) => {
                        for reveal in event.items.iter().filter(|reveal| reveal.task == self.task) {
                            reveals.entry(reveal.node).or_insert_with(|| reveal.clone());
                        }
                    }
                    PoqEvent::PanelDrawn(_) => {
                        if let PoqEvent::PanelDrawn(event) = item.event.clone() {
                            if event.task == self.task {
                                draws.push((item, *event));
                            }
                        }
                    }
                    _ => {}
                }
            }
            if draws.iter().any(|(_, event)| !event.filled) {
                break;
            }
        }
        Ok((draws, reveals))
    }

    /// The seed of a panel: the requester's secret and the outputs' salts, each against what was committed to.
    fn seed(&mut self, record: &Task, event: &PanelDrawn) {
        if event.filled {
            return;
        }
        let opened = || record.outputs.iter().filter(|slot| slot.state == OutputState::Opened);
        let salts: Vec<_> = opened().map(|slot| slot.salt).collect();
        let outputs: Vec<_> =
            opened().map(|slot| self.network.output(self.task, slot.node, &slot.hash, &slot.salt)).collect();
        let committed: Vec<_> = opened().map(|slot| slot.commitment).collect();
        let requester = to_account32(&record.requester);
        let seed = self.network.panel_seed(self.task, &event.secret, &salts);
        self.compare(
            "the seed of the panel, from the secret and the salts, and what each party had committed to",
            &json!({
                "seed": seed.to_json(),
                "record": seed.to_json(),
                "secret": self.network.secret(&requester, &event.secret).to_json(),
                "outputs": outputs.to_json(),
            }),
            &json!({
                "seed": event.seed.to_json(),
                "record": record.seed.to_json(),
                "secret": record.secret_hash.to_json(),
                "outputs": committed.to_json(),
            }),
        );
    }

    /// A panel, or those who filled its empty seats, drawn again.
    async fn panel(
        &mut self,
        record: &Task,
        params: &KindParams,
        emitted: &Emitted,
        event: &PanelDrawn,
    ) -> Result<()> {
        let check = match event.filled {
            false => "the panel, drawn again from the registry of the block before",
            true => "who filled the empty seats, drawn again from the registry of the block before",
        };
        let Some(before) = parent(self.client, emitted.block).await? else {
            self.skip(check, PRUNED);
            return Ok(());
        };
        let mut excluded: Vec<Account> = vec![to_account32(&record.requester).0];
        let mut seated: Vec<Account> = Vec::new();
        let answering = record.outputs.iter().map(|slot| slot.node);
        let stayed = record.panel.iter().map(|seat| seat.node);
        let stayed = stayed.filter(|node| event.filled && *node != 0 && !event.nodes.contains(node));
        let gone = event.vacated.iter().map(|lost| lost.node);
        for (node, sits) in
            answering.chain(gone).map(|node| (node, false)).chain(stayed.map(|node| (node, true)))
        {
            let Some(view) = before.node(node).await? else {
                self.skip(check, format!("node {node} was registered in the block of the draw"));
                return Ok(());
            };
            if sits { &mut seated } else { &mut excluded }.push(to_account32(&view.node.owner).0);
        }
        let seats = if event.filled { event.vacated.len() } else { record.panel.len() };
        let draw = registry::Draw {
            pool: PoolId { kind: record.kind, role: Role::Evaluator },
            sealed: record.sealed_epoch,
            now: epoch_of(emitted.block.timestamp_ms, self.network.epoch_ms),
            seed: event.seed,
            round: u8::from(event.filled),
            seats: u8::try_from(seats).unwrap_or(u8::MAX),
            seated: &seated,
            excluded: &excluded,
        };
        let drawn = match redraw(&before, &draw, record.terms.evaluator_at_risk).await? {
            Ok(drawn) => drawn.seats,
            Err(error) => {
                self.differ(check, "draw", json!("a draw"), json!(error.to_string()));
                return Ok(());
            }
        };
        let missed = evaluator_penalty(params, record.terms.evaluator_slot, &Conduct::Missed);
        let weight = |node: &crate::types::Node| {
            let weight = &node.standing.weight;
            *weight.at(record.sealed_epoch).unwrap_or(weight.latest())
        };
        let expected = json!({
            "nodes": drawn.iter().map(|(node, _)| node).collect::<Vec<_>>(),
            "weights": drawn.iter().map(|(_, node)| weight(node)).collect::<Vec<_>>(),
            "vacated": vec![missed; event.vacated.len()].to_json(),
        });
        let found = json!({
            "nodes": event.nodes,
            "weights": event.weights,
            "vacated": event.vacated.iter().map(|lost| lost.amount).collect::<Vec<_>>().to_json(),
        });
        let earlier = self.client.events_at(emitted.block).await?.iter().any(|e| e.index < emitted.index);
        if expected != found && earlier {
            self.skip(check, "other messages earlier in the same block have changed who could be drawn");
        } else {
            self.compare(check, &expected, &found);
        }
        Ok(())
    }

    /// What the opening of the task's reference has moved, where it was opened.
    async fn audit(
        &mut self,
        spot: &Spot,
        record: Option<&Task>,
        params: Option<&KindParams>,
    ) -> Result<Option<(Block, TaskAudited)>> {
        let latest = self.client.view().await?.task(self.task).await?.map(|view| view.task);
        let (Some(task), Some(record), Some(params)) = (latest, record, params) else { return Ok(None) };
        if !task.audited {
            return Ok(None);
        }
        let check = "the opened reference";
        let from = spot.after.block().number;
        let tip = self.client.best().await?.number.min(from.saturating_add(SEARCH));
        for number in from..=tip {
            let events = self.client.events_at(At::Number(number)).await?;
            for emitted in events {
                let Emitted { block, index, .. } = emitted;
                if let PoqEvent::TaskAudited(event) = emitted.event {
                    if event.task == self.task {
                        self.reference(&Spot::new(self.client, block, index).await?, record, params, &event)
                            .await?;
                        return Ok(Some((block, *event)));
                    }
                }
            }
        }
        self.skip(check, format!("it was opened, but not in the {SEARCH} blocks after the end"));
        Ok(None)
    }

    async fn reference(
        &mut self,
        spot: &Spot,
        record: &Task,
        params: &KindParams,
        event: &TaskAudited,
    ) -> Result<()> {
        self.compare(
            "what the opened reference moves, computed again from what went in",
            &audit(params, &event.input).to_json(),
            &event.audit.to_json(),
        );
        let Opening { reference, salt, outputs } = &event.opening;
        let delivered =
            |at: usize| record.outputs.get(at).map(|slot| slot.hash).filter(|hash| *hash != [0; 32]);
        let hashes: Vec<_> =
            outputs.iter().map(|text| text.as_ref().map(|text| commit::blake2(text))).collect();
        let auditor = to_account32(&event.auditor);
        let opened = self.network.reference(&auditor, &commit::blake2(reference), salt);
        self.compare(
            "what the auditor opened, against what was committed to",
            &json!({ "reference": opened.to_json(), "outputs": hashes.to_json() }),
            &json!({
                "reference": record.reference_commitment.to_json(),
                "outputs": (0..outputs.len()).map(delivered).collect::<Vec<_>>().to_json(),
            }),
        );
        let nodes = event.panel_nodes.iter().copied().filter(|node| *node != 0).collect();
        let moment = self.replay(spot, record.kind, nodes, "its reference was opened").await?;
        let check =
            "what went into that, against the records of the block before and what has happened since";
        let truth = outputs.iter().map(|text| text.as_ref().map(|text| token_f1(reference, text))).collect();
        let expected = moment.as_ref().and_then(|(records, _)| {
            let task = records.tasks.get(&self.task)?;
            Some(task.audit_input(truth, |node| records.trust(node), records.population.as_ref()?))
        });
        match expected {
            Some(expected) => self.compare(check, &expected.to_json(), &event.input.to_json()),
            None => self.skip(check, PRUNED),
        }
        Ok(())
    }
}

/// The draws of a task, the last one first.
type Draws = Vec<(Emitted, PanelDrawn)>;

/// What each node got out of a task, in the order of its outputs and seats; vacant seats have no line. `trusted` is what an opened
/// reference has made of the panel's trust.
pub fn node_lines(
    params: &KindParams,
    event: &TaskClosed,
    trusted: Option<&[crate::types::TrustState]>,
) -> Vec<NodeLine> {
    let TaskClosed { input, settlement, .. } = event;
    let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    let split = params.split(input.fee, count(input.outputs.len()), count(input.panel.len()));
    let slots = split.map_or((0, 0), |split| (split.inference_slot, split.evaluator_slot));
    let scored = settlement.ending == Ending::Consensus;
    let outputs = event.output_nodes.iter().zip(input.outputs.iter().zip(&settlement.outputs)).map(
        |(node, (input, out))| {
            let (conduct, latency_ms) = match input.answer {
                Answer::Delivered { latency_ms } => ("delivered", Some(latency_ms)),
                Answer::Declined => ("declined", None),
                Answer::Unopened => ("unopened", None),
                Answer::Missed => ("missed", None),
            };
            NodeLine {
                node: *node,
                role: "inference",
                conduct,
                alpha: params.inference_weights.alpha.ppb(),
                quality_or_merit: out.quality.map(|quality| quality.ppb()),
                beta: params.inference_weights.beta.ppb(),
                cost: out.cost.ppb(),
                net: out.net,
                latency_ms,
                price: input.price,
                slot: slots.0,
                payout: out.payout,
                slashed: out.slashed,
                deviation: None,
                gain: None,
                trust: None,
            }
        },
    );
    let seats = event.panel_nodes.iter().zip(input.panel.iter().zip(&settlement.panel)).enumerate();
    let panel = seats.filter(|(_, (node, _))| **node != 0).map(|(place, (node, (input, out)))| {
        let conduct = match &input.conduct {
            Conduct::Vacant => "vacant",
            Conduct::Missed => "missed",
            Conduct::Waited => "waited",
            Conduct::Unrevealed => "unrevealed",
            Conduct::Revealed(scores) if has_no_input(scores) => "no_input",
            Conduct::Revealed(_) => "revealed",
        };
        let revealed = scored && conduct == "revealed";
        let after = trusted.and_then(|states| states.get(place)).map_or(input.trust, |state| state.trust);
        NodeLine {
            node: *node,
            role: "evaluator",
            conduct,
            alpha: params.evaluator_weights.alpha.ppb(),
            quality_or_merit: revealed.then_some(out.merit.ppb()),
            beta: params.evaluator_weights.beta.ppb(),
            cost: out.cost.ppb(),
            net: out.net,
            latency_ms: (input.latency_ms > 0).then_some(input.latency_ms),
            price: 0,
            slot: slots.1,
            payout: out.payout,
            slashed: out.slashed,
            deviation: revealed.then_some(out.deviation.ppb()),
            gain: out.gain,
            trust: Some((input.trust.ppb(), after.ppb())),
        }
    });
    outputs.chain(panel).collect()
}

/// Every leaf that differs, by its path.
pub fn diff(check: &str, path: &str, expected: &Value, found: &Value, out: &mut Vec<Difference>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let missing = Value::Null;
                diff(check, &path, a.get(key).unwrap_or(&missing), b.get(key).unwrap_or(&missing), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (place, (a, b)) in a.iter().zip(b).enumerate() {
                diff(check, &format!("{path}[{place}]"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push(Difference {
            check: check.to_owned(),
            what: path.to_owned(),
            expected: a.clone(),
            found: b.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_number() {
        let mut out = Vec::new();
        let a = json!({ "panel": [{ "payout": "1" }, { "payout": "2" }], "refund": "0" });
        let b = json!({ "panel": [{ "payout": "1" }, { "payout": "3" }], "refund": "0" });
        diff("c", "", &a, &a, &mut out);
        assert!(out.is_empty());
        diff("c", "", &a, &b, &mut out);
        assert_eq!(
            out,
            [Difference {
                check: "c".into(),
                what: "panel[1].payout".into(),
                expected: json!("2"),
                found: json!("3")
            }]
        );
        out.clear();
        diff("c", "", &json!([1]), &json!([1, 2]), &mut out);
        diff("c", "x", &json!({ "a": 1 }), &json!({}), &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].what, "x.a");
    }
}
