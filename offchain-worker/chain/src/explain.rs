//! Replaying how a task ended, from what the chain shows.
//!
//! A settlement's event carries all that went in and all that came out. Trusting nobody, [`explain`] computes the outcome again
//! with `poq-core`, compares what went in with the task's, the nodes' and the kind's records of the blocks before and at the
//! settlement and with what evaluators revealed, and what came out with how those records changed.

use crate::account::to_account32;
use crate::client::{At, Block, Client};
use crate::commit;
use crate::error::{Error, Result};
use crate::events::{Emitted, FinalEvent, Outcome, PoqEvent, TaskRefunded, TaskSettled};
use crate::json::ToJson;
use crate::types::{
    token_f1, Balance, Conduct, EvaluatorInput, KindId, KindParams, NodeId, NodeView, OutputInput,
    Population, RefundReason, Role, Salt, Score, Seat, SeatState, Settlement, SettlementInput, Task, TaskId,
    RING,
};
use crate::view::View;
use poq_core::commitment::Hash;
use poq_core::merit::RingEntry;
use poq_core::settlement::unsettled_penalty;
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use subxt::utils::AccountId32;

/// How many blocks before the settlement are searched for reveals, at the most.
const SEARCH: u32 = 2_000;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Settled.
    Settled,
    /// Refunded: no inference node delivered.
    RefundedUndelivered,
    /// Refunded: no panel could be drawn in time.
    RefundedUndrawn,
    /// Refunded: two panels in turn were below quorum.
    RefundedBelowQuorum,
}

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
    /// What it did: `delivered`, `missed`, `revealed`, `unrevealed`.
    pub conduct: &'static str,
    /// α in parts per billion.
    pub alpha: u32,
    /// x: the consensus quality of its output, or its merit; in parts per billion.
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
    /// What it earned: max(0, R)/α of its slot.
    #[serde(serialize_with = "decimal")]
    pub payout: Balance,
    /// What it lost of its stake.
    #[serde(serialize_with = "decimal")]
    pub slashed: Balance,
    /// Its deviation from the others in parts per billion, of an evaluator.
    pub deviation: Option<u32>,
    /// Its information gain in signed parts per billion, of an evaluator where there was anything to compare with.
    pub gain: Option<i64>,
    /// Its trust before and after in parts per billion, of an evaluator.
    pub trust: Option<(u32, u32)>,
}

/// Where the fee went. Σ payouts + protocol fee + forfeited + refund = fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// What was paid into escrow.
    #[serde(serialize_with = "decimal")]
    pub fee: Balance,
    /// To nodes.
    #[serde(serialize_with = "decimal")]
    pub paid: Balance,
    /// To the treasury, out of the fee.
    #[serde(serialize_with = "decimal")]
    pub protocol_fee: Balance,
    /// To the treasury, out of a gold task's fee: what its evaluators did not earn.
    #[serde(serialize_with = "decimal")]
    pub forfeited: Balance,
    /// Back to the requester.
    #[serde(serialize_with = "decimal")]
    pub refund: Balance,
    /// To the treasury, out of stakes.
    #[serde(serialize_with = "decimal")]
    pub slashed: Balance,
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
    /// The kind; unknown of a refunded task whose record is gone.
    pub kind: Option<KindId>,
    /// The version of the kind's parameters.
    pub version: Option<u32>,
    /// The block that it ended in.
    pub block: Block,
    /// How.
    pub ending: Ending,
    /// The parameters that it ran under.
    pub params: Option<KindParams>,
    /// What went into the settlement, as its event says.
    pub input: Option<SettlementInput>,
    /// What came out of it, as its event says.
    pub recorded: Option<Settlement>,
    /// What comes out when it is computed again.
    pub recomputed: Option<Settlement>,
    /// What each node got.
    pub nodes: Vec<NodeLine>,
    /// Where the fee went.
    pub totals: Totals,
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

/// Explains a task that has not been collected yet.
///
/// # Errors
/// `Rejected(NoTask)`, `NotFinal`, `Pruned` where the node no longer has the block of its end, or where the node cannot be
/// asked.
pub async fn explain(client: &Client, task: TaskId) -> Result<Explanation> {
    let record = client
        .view()
        .await?
        .task(task)
        .await?
        .ok_or(Error::Rejected { message: "task", error: crate::ContractError::NoTask })?;
    if !record.task.phase.is_final() {
        return Err(Error::NotFinal { task, phase: format!("{:?}", record.task.phase).to_lowercase() });
    }
    explain_at(client, task, record.task.final_block).await
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
    let task = match &ended.outcome {
        Outcome::Settled(event) => event.task,
        Outcome::Refunded(event) => event.task,
    };
    let replay = Replay::new(client, task, ended.block, ended.index).await?;
    match ended.outcome {
        Outcome::Settled(event) => replay.settled(*event).await,
        Outcome::Refunded(event) => replay.refunded(*event).await,
    }
}

/// What an evaluator revealed.
struct Opening {
    scores: Vec<Score>,
    report_hash: Hash,
    salt: Salt,
}

struct Replay<'a> {
    client: &'a Client,
    task: TaskId,
    /// The block of the end.
    after: View,
    /// The one before, where the chain still has its state.
    before: Option<View>,
    /// All events of the block.
    events: Vec<Emitted>,
    /// The place of the final event among the block's.
    index: u32,
    /// The task's record after its end, unless it was collected in the same block.
    record: Option<Task>,
    checks: Vec<Check>,
    differences: Vec<Difference>,
}

impl<'a> Replay<'a> {
    async fn new(client: &'a Client, task: TaskId, block: Block, index: u32) -> Result<Replay<'a>> {
        let after = client.view_at(block).await?;
        let parent = client.header(block.hash).await?.parent_hash;
        let before = match client.view_at(parent).await {
            Ok(view) => Some(view),
            Err(Error::Pruned { .. } | Error::NoBlock { .. }) => None,
            Err(error) => return Err(error),
        };
        let events = client.events_at(block).await?;
        let record = after.task(task).await?.map(|view| view.task);
        Ok(Replay {
            client,
            task,
            after,
            before,
            events,
            index,
            record,
            checks: Vec::new(),
            differences: Vec::new(),
        })
    }

    fn compare(&mut self, check: &str, expected: &Value, found: &Value) {
        let from = self.differences.len();
        diff(check, "", expected, found, &mut self.differences);
        let found = if self.differences.len() == from { Found::Agrees } else { Found::Differs };
        self.checks.push(Check { what: check.to_owned(), found });
    }

    fn skip(&mut self, check: &str, why: impl Into<String>) {
        self.checks.push(Check { what: check.to_owned(), found: Found::Skipped(why.into()) });
    }

    async fn settled(mut self, event: TaskSettled) -> Result<Explanation> {
        let params = self.after.params(event.kind, event.version).await?;
        let recomputed = params.as_ref().and_then(|params| poq_core::settle(params, &event.input));
        match &recomputed {
            Some(recomputed) => self.compare(
                "the outcome, computed again from what went in",
                &recomputed.to_json(),
                &event.settlement.to_json(),
            ),
            None if params.is_none() => self.differences.push(Difference {
                check: "the parameters".into(),
                what: format!("version {} of kind {}", event.version, event.kind),
                expected: json!("parameters"),
                found: Value::Null,
            }),
            None => self.differences.push(Difference {
                check: "the outcome, computed again from what went in".into(),
                what: "settlement".into(),
                expected: json!("none: the fee does not fill the slots"),
                found: event.settlement.to_json(),
            }),
        }
        let paid = self.conservation(&event);
        self.input_against_task(&event);
        self.input_against_standing(&event).await?;
        self.input_against_reveals().await?;
        self.truth_against_opening(&event)?;
        self.outcome_against_nodes(event.output_nodes.iter().chain(&event.panel_nodes).copied().collect())
            .await?;
        self.outcome_against_kind(&event).await?;
        self.outcome_against_task(&event);

        let nodes = params.as_ref().map(|params| node_lines(params, &event)).unwrap_or_default();
        let totals = Totals {
            fee: event.input.fee,
            paid,
            protocol_fee: event.settlement.protocol_fee,
            forfeited: event.settlement.forfeited,
            refund: event.settlement.refund,
            slashed: event.settlement.slashed,
        };
        Ok(Explanation {
            task: self.task,
            contract: self.client.contract()?,
            requester: to_account32(&event.requester),
            kind: Some(event.kind),
            version: Some(event.version),
            block: self.after.block(),
            ending: Ending::Settled,
            params,
            input: Some(event.input),
            recorded: Some(event.settlement),
            recomputed,
            nodes,
            totals,
            checks: self.checks,
            differences: self.differences,
        })
    }

    /// Σ payouts + protocol fee + forfeited + refund = fee, and Σ slashed = slashed. Returns what was paid to nodes.
    fn conservation(&mut self, event: &TaskSettled) -> Balance {
        let outputs = event.settlement.outputs.iter().map(|o| (o.payout, o.slashed));
        let panel = event.settlement.panel.iter().map(|e| (e.payout, e.slashed));
        let (paid, slashed) =
            outputs.chain(panel).fold((0u128, 0u128), |(paid, slashed), (payout, slash)| {
                (paid.saturating_add(payout), slashed.saturating_add(slash))
            });
        let spent = paid
            .saturating_add(event.settlement.protocol_fee)
            .saturating_add(event.settlement.forfeited)
            .saturating_add(event.settlement.refund);
        self.compare(
            "the sums",
            &json!({ "fee": event.input.fee.to_json(), "slashed": slashed.to_json() }),
            &json!({ "fee": spent.to_json(), "slashed": event.settlement.slashed.to_json() }),
        );
        paid
    }

    /// What went in against the task's record.
    fn input_against_task(&mut self, event: &TaskSettled) {
        let check = "what went in, against the task's record";
        let Some(task) = &self.record else {
            return self.skip(check, "the task was collected in the block that it was settled in");
        };
        let outputs: Vec<OutputInput> = task
            .outputs
            .iter()
            .map(|slot| OutputInput {
                latency_ms: (slot.committed_at > 0)
                    .then(|| slot.committed_at.saturating_sub(task.requested_at)),
                price: slot.price,
            })
            .collect();
        let panel: Vec<Value> = task
            .panel
            .iter()
            .map(|seat| json!({ "node": seat.node, "conduct": conduct(seat), "committed_at": seat.committed_at }))
            .collect();
        let expected = json!({
            "requester": task.requester.to_json(),
            "kind": task.kind,
            "version": task.version,
            "fee": task.fee.to_json(),
            "drawn_at": task.drawn_at,
            "output_nodes": task.outputs.iter().map(|slot| slot.node).collect::<Vec<_>>(),
            "outputs": outputs,
            "panel": panel,
        });
        let found = json!({
            "requester": event.requester.to_json(),
            "kind": event.kind,
            "version": event.version,
            "fee": event.input.fee.to_json(),
            "drawn_at": event.input.drawn_at,
            "output_nodes": event.output_nodes,
            "outputs": event.input.outputs,
            "panel": event.panel_nodes.iter().zip(&event.input.panel).map(|(node, evaluator)| {
                json!({ "node": node, "conduct": evaluator.conduct, "committed_at": evaluator.committed_at })
            }).collect::<Vec<_>>(),
        });
        self.compare(check, &expected, &found);
    }

    /// Trust, average gains and the kind's population as they stood just before.
    async fn input_against_standing(&mut self, event: &TaskSettled) -> Result<()> {
        let check = "what went in, against the evaluators' and the kind's records before";
        let Some(before) = self.before.clone() else {
            self.skip(check, "the node no longer has the state of the block before");
            return Ok(());
        };
        let earlier: Vec<(Block, TaskSettled)> = self
            .events
            .iter()
            .filter(|emitted| emitted.index < self.index)
            .filter_map(|emitted| match &emitted.event {
                PoqEvent::TaskSettled(_) => match emitted.event.clone() {
                    PoqEvent::TaskSettled(event) => Some((emitted.block, *event)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let mut standing = Vec::new();
        for node in &event.panel_nodes {
            let Some(view) = before.node(*node).await? else {
                standing.push(json!({ "node": node, "missing": true }));
                continue;
            };
            let (mut trust, mut gain_average) = (view.node.trust, view.node.gain_average);
            for (_, settled) in &earlier {
                if let Some(place) = settled.panel_nodes.iter().position(|other| other == node) {
                    if let Some(evaluator) = settled.settlement.panel.get(place) {
                        (trust, gain_average) = (evaluator.trust, evaluator.gain_average);
                    }
                }
            }
            standing.push(json!({ "node": node, "trust": trust, "gain_average": gain_average }));
        }
        let population = match before.kind(event.kind).await? {
            Some(view) => {
                let mut population = view.kind.population;
                let mut next = usize::from(view.kind.ring_next);
                for (block, settled) in earlier.iter().filter(|(_, settled)| settled.kind == event.kind) {
                    remember(&mut population, &mut next, *block, &settled.settlement);
                }
                serde_json::to_value(population).unwrap_or_default()
            }
            None => Value::Null,
        };
        let found: Vec<Value> = event
            .panel_nodes
            .iter()
            .zip(&event.input.panel)
            .map(|(node, e)| json!({ "node": node, "trust": e.trust, "gain_average": e.gain_average }))
            .collect();
        self.compare(
            check,
            &json!({ "panel": standing, "population": population }),
            &json!({ "panel": found, "population": event.input.population }),
        );
        Ok(())
    }

    /// The scores that were counted against what was revealed, and the commitments that they open.
    async fn input_against_reveals(&mut self) -> Result<()> {
        let check = "the scores, against the reveals and the commitments that they open";
        let Some(task) = self.record.clone() else {
            self.skip(check, "the task was collected in the block that it was settled in");
            return Ok(());
        };
        let opened = |seat: &&Seat| matches!(seat.state, SeatState::Revealed | SeatState::Mismatched);
        let wanted: BTreeSet<NodeId> = task.panel.iter().filter(opened).map(|seat| seat.node).collect();
        let openings = match self.openings(&task, &wanted).await {
            Ok(openings) => openings,
            Err(Error::Pruned { .. }) => {
                self.skip(check, "the node no longer has the blocks of the reveals");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let contract = self.client.contract()?;
        let (mut expected, mut found, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for seat in task.panel.iter().filter(opened) {
            let Some(opening) = openings.get(&seat.node) else {
                missing.push(seat.node);
                continue;
            };
            let opens = commit::scores(
                &contract,
                self.task,
                seat.node,
                &opening.scores,
                &opening.report_hash,
                &opening.salt,
            ) == seat.commitment;
            expected.push(json!({ "node": seat.node, "opens": opens, "scores": opening.scores }));
            // The scores of a reveal that opens nothing are not kept.
            let matched = seat.state == SeatState::Revealed;
            let scores = if matched { &seat.scores } else { &opening.scores };
            found.push(json!({ "node": seat.node, "opens": matched, "scores": scores }));
        }
        self.compare(check, &Value::Array(expected), &Value::Array(found));
        if !missing.is_empty() {
            self.skip("some reveals", format!("no reveal of nodes {missing:?} in the last {SEARCH} blocks"));
        }
        Ok(())
    }

    /// Searches backwards for the reveals of `wanted`, until the panel's draw.
    async fn openings(&self, task: &Task, wanted: &BTreeSet<NodeId>) -> Result<BTreeMap<NodeId, Opening>> {
        let mut openings = BTreeMap::new();
        let mut number = self.after.block().number;
        for _ in 0..SEARCH {
            if openings.len() == wanted.len() {
                break;
            }
            let emitted = if number == self.after.block().number {
                self.events.clone()
            } else {
                let block = self.client.block(At::Number(number)).await?;
                if block.timestamp_ms < task.drawn_at {
                    break;
                }
                self.client.events_at(block).await?
            };
            for item in emitted {
                let PoqEvent::ScoresRevealed(event) = item.event else { continue };
                for reveal in event.items {
                    if reveal.task == self.task && wanted.contains(&reveal.node) {
                        openings.entry(reveal.node).or_insert(Opening {
                            scores: reveal.scores,
                            report_hash: reveal.report_hash,
                            salt: reveal.salt,
                        });
                    }
                }
            }
            let Some(earlier) = number.checked_sub(1) else { break };
            number = earlier;
        }
        Ok(openings)
    }

    /// The truth that a gold task was settled by, against what the auditor opened, and that against the commitments.
    fn truth_against_opening(&mut self, event: &TaskSettled) -> Result<()> {
        let Some(truth) = &event.input.truth else { return Ok(()) };
        let check = "the truth, computed again from the reference and the outputs that the auditor opened";
        let contract = self.client.contract()?;
        let audited = self.events.iter().find_map(|emitted| match &emitted.event {
            PoqEvent::TaskAudited(audited) if audited.task == self.task => {
                Some((to_account32(&audited.auditor), audited.opening.clone()))
            }
            _ => None,
        });
        let Some((auditor, opening)) = audited else {
            self.differences.push(Difference {
                check: check.into(),
                what: "opening".into(),
                expected: json!("an event that tells what was opened, in the block of the settlement"),
                found: Value::Null,
            });
            return Ok(());
        };
        let measured: Vec<_> = opening
            .outputs
            .iter()
            .map(|opened| opened.as_ref().map(|(output, _)| token_f1(&opening.reference, output)))
            .collect();
        let (mut expected, mut found) = (json!({ "truth": measured }), json!({ "truth": truth }));
        match &self.record {
            None => self.skip(
                "the auditor's opening, against the task's commitments",
                "the task was collected in the block that it was settled in",
            ),
            Some(task) => {
                let reference = commit::blake2(&opening.reference);
                let commitments: Vec<_> = task
                    .outputs
                    .iter()
                    .zip(&opening.outputs)
                    .map(|(slot, opened)| {
                        let (output, salt) = opened.as_ref()?;
                        Some(commit::output(&contract, self.task, slot.node, &commit::blake2(output), salt))
                    })
                    .collect();
                let kept: Vec<_> = task
                    .outputs
                    .iter()
                    .zip(&opening.outputs)
                    .map(|(slot, opened)| opened.as_ref().map(|_| slot.commitment))
                    .collect();
                expected["reference"] =
                    commit::reference(&contract, &auditor, &reference, &opening.salt).to_json();
                found["reference"] = task.reference_commitment.to_json();
                expected["outputs"] = commitments.to_json();
                found["outputs"] = kept.to_json();
            }
        }
        self.compare(check, &expected, &found);
        Ok(())
    }

    /// How the nodes' records changed over the block, against all that the block's events say of them.
    async fn outcome_against_nodes(&mut self, nodes: Vec<NodeId>) -> Result<()> {
        let check = "the changes of the nodes' records over the block";
        let Some(before) = self.before.clone() else {
            self.skip(check, "the node no longer has the state of the block before");
            return Ok(());
        };
        let (mut expected, mut found) = (serde_json::Map::new(), serde_json::Map::new());
        for node in nodes {
            let (Some(old), Some(new)) = (before.node(node).await?, self.after.node(node).await?) else {
                self.skip(
                    &format!("the record of node {node}"),
                    "it was registered or deregistered in the block",
                );
                continue;
            };
            let mut foretold = Standing::of(&old);
            for emitted in &self.events {
                foretold.apply(node, &emitted.event);
            }
            expected.insert(node.to_string(), foretold.to_json());
            found.insert(node.to_string(), Standing::of(&new).to_json());
        }
        self.compare(check, &Value::Object(expected), &Value::Object(found));
        Ok(())
    }

    /// The kind's memory after the block.
    async fn outcome_against_kind(&mut self, event: &TaskSettled) -> Result<()> {
        let check = "the kind's memory after the block";
        let before = match &self.before {
            Some(before) => before.kind(event.kind).await?,
            None => None,
        };
        let (Some(old), Some(new)) = (before, self.after.kind(event.kind).await?) else {
            self.skip(check, "the node no longer has the state of the block before");
            return Ok(());
        };
        let mut population = old.kind.population;
        let mut next = usize::from(old.kind.ring_next);
        for emitted in &self.events {
            if let PoqEvent::TaskSettled(settled) = &emitted.event {
                if settled.kind == event.kind {
                    remember(&mut population, &mut next, emitted.block, &settled.settlement);
                }
            }
        }
        self.compare(
            check,
            &serde_json::to_value(population).unwrap_or_default(),
            &serde_json::to_value(new.kind.population).unwrap_or_default(),
        );
        Ok(())
    }

    /// What the task's record keeps of the outcome.
    fn outcome_against_task(&mut self, event: &TaskSettled) {
        let check = "the outcome, against the task's record";
        let Some(task) = &self.record else {
            return self.skip(check, "the task was collected in the block that it was settled in");
        };
        let qualities: Vec<Score> = event.settlement.outputs.iter().map(|o| Score::from(o.quality)).collect();
        let kept: Vec<Score> = task.outputs.iter().map(|slot| slot.quality).collect();
        let expected = json!({
            "phase": "settled",
            "refund": event.settlement.refund.to_json(),
            "final_block": self.after.block().number,
            "qualities": qualities,
        });
        let found = json!({
            "phase": task.phase,
            "refund": task.refund.to_json(),
            "final_block": task.final_block,
            "qualities": kept,
        });
        self.compare(check, &expected, &found);
    }

    async fn refunded(mut self, event: TaskRefunded) -> Result<Explanation> {
        let ending = match event.reason {
            RefundReason::Undelivered => Ending::RefundedUndelivered,
            RefundReason::Undrawn => Ending::RefundedUndrawn,
            RefundReason::BelowQuorum => Ending::RefundedBelowQuorum,
        };
        let record = self.record.clone();
        let params = match &record {
            Some(task) => self.after.params(task.kind, task.version).await?,
            None => None,
        };
        let check = "the refund and the penalties, against the task's record";
        match (&record, &params) {
            (Some(task), Some(params)) => {
                let expected = json!({
                    "requester": task.requester.to_json(),
                    "refund": task.fee.to_json(),
                    "kept": task.fee.to_json(),
                    "penalties": owed(params, task, event.reason),
                });
                let found = json!({
                    "requester": event.requester.to_json(),
                    "refund": event.refund.to_json(),
                    "kept": task.refund.to_json(),
                    "penalties": event.penalties.iter().map(|p| (p.node, p.amount.to_string()))
                        .collect::<BTreeMap<_, _>>(),
                });
                self.compare(check, &expected, &found);
            }
            _ => self.skip(check, "the task was collected in the block that it was refunded in"),
        }
        let mut nodes: BTreeSet<NodeId> = event.penalties.iter().map(|penalty| penalty.node).collect();
        if let Some(task) = &record {
            nodes.extend(task.outputs.iter().map(|slot| slot.node));
        }
        self.outcome_against_nodes(nodes.into_iter().collect()).await?;
        let slashed = event.penalties.iter().fold(0u128, |sum, penalty| sum.saturating_add(penalty.amount));
        let lines =
            event.penalties.iter().map(|penalty| penalty_line(record.as_ref(), penalty.node, penalty.amount));
        Ok(Explanation {
            task: self.task,
            contract: self.client.contract()?,
            requester: to_account32(&event.requester),
            kind: record.as_ref().map(|task| task.kind),
            version: record.as_ref().map(|task| task.version),
            block: self.after.block(),
            ending,
            params,
            input: None,
            recorded: None,
            recomputed: None,
            nodes: lines.collect(),
            totals: Totals {
                fee: event.refund,
                paid: 0,
                protocol_fee: 0,
                forfeited: 0,
                refund: event.refund,
                slashed,
            },
            checks: self.checks,
            differences: self.differences,
        })
    }
}

/// What a seat counts as in a settlement.
fn conduct(seat: &Seat) -> Conduct {
    match seat.state {
        SeatState::Drawn => Conduct::Missed,
        SeatState::Committed | SeatState::Mismatched => Conduct::Unrevealed,
        SeatState::Revealed => Conduct::Revealed(seat.scores.clone()),
    }
}

/// What nodes owe when a task is refunded, by node.
fn owed(params: &KindParams, task: &Task, reason: RefundReason) -> BTreeMap<NodeId, String> {
    let missed = params.missed_penalty.of(task.inference_at_risk);
    let outputs = task
        .outputs
        .iter()
        .map(|slot| (slot.node, if slot.committed_at > 0 { 0 } else { missed }))
        .collect::<Vec<_>>();
    let panel = task
        .panel
        .iter()
        .filter(|_| reason == RefundReason::BelowQuorum)
        .map(|seat| (seat.node, unsettled_penalty(params, &conduct(seat))));
    outputs
        .into_iter()
        .chain(panel)
        .filter(|(_, amount)| *amount > 0)
        .map(|(n, a)| (n, a.to_string()))
        .collect()
}

/// What a kind remembers after a settlement.
fn remember(population: &mut Population, next: &mut usize, block: Block, settlement: &Settlement) {
    if let Some(quality) = settlement.consensus {
        if let Some(entry) = population.ring.get_mut(*next) {
            *entry = RingEntry { settled_at: block.timestamp_ms, quality };
        }
        *next = next.saturating_add(1) % RING;
    }
    population.reference = settlement.reference;
    population.gain_average = settlement.gain_average;
}

/// The part of a node's record that events tell all about.
struct Standing {
    /// Free, locked and unbonding together.
    stake: Balance,
    claimable: Balance,
    withdrawn: Balance,
    slashed: Balance,
    settled: u32,
    trust: poq_core::Ratio,
    gain_average: i64,
}

impl Standing {
    fn of(view: &NodeView) -> Standing {
        let node = &view.node;
        Standing {
            stake: node.free.saturating_add(node.locked).saturating_add(node.unbonding),
            claimable: node.claimable,
            withdrawn: node.withdrawn,
            slashed: node.slashed,
            settled: node.settled,
            trust: node.trust,
            gain_average: node.gain_average,
        }
    }

    fn slash(&mut self, amount: Balance) {
        self.stake = self.stake.saturating_sub(amount);
        self.slashed = self.slashed.saturating_add(amount);
    }

    fn apply(&mut self, node: NodeId, event: &PoqEvent) {
        match event {
            PoqEvent::Staked(e) if e.node == node => self.stake = self.stake.saturating_add(e.amount),
            PoqEvent::StakeWithdrawn(e) if e.node == node => self.stake = self.stake.saturating_sub(e.amount),
            PoqEvent::Claimed(e) if e.node == node => {
                self.claimable = self.claimable.saturating_sub(e.amount);
                self.withdrawn = self.withdrawn.saturating_add(e.amount);
            }
            PoqEvent::TaskRefunded(e) => {
                e.penalties.iter().filter(|p| p.node == node).for_each(|p| self.slash(p.amount));
            }
            PoqEvent::PanelReleased(e) => {
                e.penalties.iter().filter(|p| p.node == node).for_each(|p| self.slash(p.amount));
            }
            PoqEvent::TaskSettled(e) => {
                let output =
                    e.output_nodes.iter().position(|n| *n == node).and_then(|i| e.settlement.outputs.get(i));
                if let Some(output) = output {
                    self.claimable = self.claimable.saturating_add(output.payout);
                    self.slash(output.slashed);
                    self.settled = self.settled.saturating_add(1);
                }
                let seat =
                    e.panel_nodes.iter().position(|n| *n == node).and_then(|i| e.settlement.panel.get(i));
                if let Some(seat) = seat {
                    self.claimable = self.claimable.saturating_add(seat.payout);
                    self.slash(seat.slashed);
                    self.settled = self.settled.saturating_add(1);
                    self.trust = seat.trust;
                    self.gain_average = seat.gain_average;
                }
            }
            _ => {}
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "stake": self.stake.to_json(),
            "claimable": self.claimable.to_json(),
            "withdrawn": self.withdrawn.to_json(),
            "slashed": self.slashed.to_json(),
            "settled": self.settled,
            "trust": self.trust,
            "gain_average": self.gain_average,
        })
    }
}

fn node_lines(params: &KindParams, event: &TaskSettled) -> Vec<NodeLine> {
    let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    let split =
        params.split(event.input.fee, count(event.input.outputs.len()), count(event.input.panel.len()));
    let slots = split.map_or((0, 0), |split| (split.inference_slot, split.evaluator_slot));
    let outputs =
        event.output_nodes.iter().zip(event.input.outputs.iter().zip(&event.settlement.outputs)).map(
            |(node, (input, out))| NodeLine {
                node: *node,
                role: "inference",
                conduct: if input.latency_ms.is_some() { "delivered" } else { "missed" },
                alpha: params.inference_weights.alpha.ppb(),
                quality_or_merit: out.quality.map(|q| q.ppb()),
                beta: params.inference_weights.beta.ppb(),
                cost: out.cost.ppb(),
                net: out.net,
                latency_ms: input.latency_ms,
                price: input.price,
                slot: slots.0,
                payout: out.payout,
                slashed: out.slashed,
                deviation: None,
                gain: None,
                trust: None,
            },
        );
    let drawn_at = event.input.drawn_at;
    let panel = event.panel_nodes.iter().zip(event.input.panel.iter().zip(&event.settlement.panel)).map(
        |(node, (input, out))| NodeLine {
            node: *node,
            role: "evaluator",
            conduct: match input.conduct {
                Conduct::Missed => "missed",
                Conduct::Unrevealed => "unrevealed",
                Conduct::Revealed(_) => "revealed",
            },
            alpha: params.evaluator_weights.alpha.ppb(),
            quality_or_merit: Some(out.merit.ppb()),
            beta: params.evaluator_weights.beta.ppb(),
            cost: out.cost.ppb(),
            net: out.net,
            latency_ms: latency(input, drawn_at),
            price: 0,
            slot: slots.1,
            payout: out.payout,
            slashed: out.slashed,
            deviation: Some(out.deviation.ppb()),
            gain: out.gain,
            trust: Some((input.trust.ppb(), out.trust.ppb())),
        },
    );
    outputs.chain(panel).collect()
}

fn latency(evaluator: &EvaluatorInput, drawn_at: u64) -> Option<u64> {
    (evaluator.committed_at > 0).then(|| evaluator.committed_at.saturating_sub(drawn_at))
}

/// A node's line in a refund: all it has is a penalty.
fn penalty_line(task: Option<&Task>, node: NodeId, slashed: Balance) -> NodeLine {
    let seat = task.and_then(|task| task.panel.iter().find(|seat| seat.node == node));
    let role = if seat.is_some() { Role::Evaluator } else { Role::Inference };
    NodeLine {
        node,
        role: match role {
            Role::Inference => "inference",
            Role::Evaluator => "evaluator",
        },
        conduct: match seat.map(conduct) {
            Some(Conduct::Unrevealed) => "unrevealed",
            Some(Conduct::Revealed(_)) => "revealed",
            Some(Conduct::Missed) | None => "missed",
        },
        alpha: 0,
        quality_or_merit: None,
        beta: 0,
        cost: 0,
        net: 0,
        latency_ms: None,
        price: 0,
        slot: 0,
        payout: 0,
        slashed,
        deviation: None,
        gain: None,
        trust: None,
    }
}

/// Every leaf that differs, by its path.
fn diff(check: &str, path: &str, expected: &Value, found: &Value, out: &mut Vec<Difference>) {
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

    #[test]
    fn the_ring_goes_round() {
        let mut population = Population { ring: vec![RingEntry::default(); RING], ..Population::default() };
        let mut next = RING - 1;
        let block = Block { number: 1, hash: subxt::utils::H256::zero(), timestamp_ms: 5 };
        let settlement = Settlement {
            outputs: Vec::new(),
            panel: Vec::new(),
            protocol_fee: 0,
            slashed: 0,
            forfeited: 0,
            refund: 0,
            consensus: Some(poq_core::Ratio::ONE),
            reference: poq_core::Ratio::from_permille(7),
            gain_average: -3,
        };
        remember(&mut population, &mut next, block, &settlement);
        assert_eq!(next, 0);
        assert_eq!(population.ring[RING - 1], RingEntry { settled_at: 5, quality: poq_core::Ratio::ONE });
        assert_eq!((population.reference, population.gain_average), (poq_core::Ratio::from_permille(7), -3));
    }
}
