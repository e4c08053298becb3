//! What the demonstration says at the end.

use super::lab::Comparison;
use super::ledger::Money;
use super::pool::Fruits;
use crate::cli::amount::Unit;
use crate::cli::output::{pairs, table};
use crate::cli::task::ending_text;
use poq_chain::events::TaskClosed;
use poq_chain::types::{Ending, NodeId, Ratio, Role};
use poq_simulator::live::Purse;
use poq_simulator::Attack;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// What a node did and got, from the contract's events.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeTally {
    tasks: u32,
    qualities: Vec<Ratio>,
    costs: Vec<Ratio>,
    reward: u128,
}

/// All nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(BTreeMap<NodeId, NodeTally>);

impl Tally {
    /// Adds a task that is over: what everybody got; where there is a consensus, per inference node quality and cost of its output,
    /// per evaluator merit and cost.
    pub(super) fn add(&mut self, event: &TaskClosed) {
        let settlement = &event.settlement;
        let scored = settlement.ending == Ending::Consensus;
        for (node, output) in event.output_nodes.iter().zip(&settlement.outputs) {
            let tally = self.0.entry(*node).or_default();
            tally.tasks += 1;
            tally.reward += output.payout;
            if scored {
                tally.qualities.extend(output.quality);
                tally.costs.push(output.cost);
            }
        }
        let seats = event.panel_nodes.iter().zip(&settlement.panel).filter(|(node, _)| **node != 0);
        for (node, evaluator) in seats {
            let tally = self.0.entry(*node).or_default();
            tally.tasks += 1;
            tally.reward += evaluator.payout;
            if scored {
                tally.qualities.push(evaluator.merit);
                tally.costs.push(evaluator.cost);
            }
        }
    }

    /// What a node did and got.
    pub(super) fn of(&self, node: NodeId) -> NodeTally {
        self.0.get(&node).cloned().unwrap_or_default()
    }
}

/// One line of the table of nodes.
pub(super) struct NodeRow {
    /// The owner's address.
    pub(super) account: String,
    /// What it does.
    pub(super) role: Role,
    /// Its model.
    pub(super) model: String,
    /// What it did and got.
    pub(super) tally: NodeTally,
    /// Whether it was dishonest.
    pub(super) dishonest: bool,
    /// What it got by the simulator's books.
    pub(super) simulated: Purse,
    /// What it lost, in settlements and outside of them.
    pub(super) slashed: u128,
    /// What its payee was paid.
    pub(super) claimed: u128,
}

/// One line of the table of tasks.
pub(super) struct TaskRow {
    /// Its number.
    pub(super) id: u64,
    /// Its kind.
    pub(super) kind: u16,
    /// How it ended.
    pub(super) ending: Ending,
    /// The mean consensus of its outputs that have one.
    pub(super) quality: Option<Ratio>,
    /// What was paid for it.
    pub(super) fee: u128,
    /// What came back.
    pub(super) refund: u128,
    /// Whether every number was recomputed without a difference.
    pub(super) explain_ok: bool,
    /// How many answered.
    pub(super) answers: usize,
    /// The question.
    pub(super) question: String,
}

/// Everything that is said.
pub(super) struct Report {
    /// Nodes.
    pub(super) nodes: Vec<NodeRow>,
    /// Tasks.
    pub(super) tasks: Vec<TaskRow>,
    /// The money check.
    pub(super) money: Money,
    /// What came of the pool.
    pub(super) pool: Fruits,
    /// What the dishonest nodes did.
    pub(super) attack: Option<Attack>,
    /// The simulator's account of the run.
    pub(super) comparison: Comparison,
}

/// The mean of what there is, rounded down.
pub(super) fn mean_ratio(values: impl Iterator<Item = Ratio>) -> Option<Ratio> {
    let (sum, count) =
        values.fold((0u128, 0u128), |(sum, count), ratio| (sum + u128::from(ratio.ppb()), count + 1));
    u32::try_from(sum.checked_div(count)?).ok().map(Ratio::from_ppb)
}

fn mean(values: &[Ratio]) -> Option<f64> {
    let count = u32::try_from(values.len()).ok().filter(|count| *count > 0)?;
    Some(values.iter().map(|ratio| ratio.to_f64()).sum::<f64>() / f64::from(count))
}

fn decimals(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

impl Report {
    /// For scripts; amounts as decimal strings in the smallest unit.
    pub(super) fn json(&self) -> Value {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                json!({
                    "account": node.account,
                    "role": crate::cli::node::role_name(node.role),
                    "model": node.model,
                    "tasks": node.tally.tasks,
                    "mean_quality": mean(&node.tally.qualities),
                    "mean_cost": mean(&node.tally.costs),
                    "reward": node.tally.reward.to_string(),
                    "dishonest": node.dishonest,
                    "simulated_reward": node.simulated.earned.to_string(),
                    "simulated_slashed": node.simulated.slashed.to_string(),
                    "slashed": node.slashed.to_string(),
                    "claimed": node.claimed.to_string(),
                })
            })
            .collect();
        let tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|task| {
                json!({
                    "id": task.id,
                    "kind": task.kind,
                    "ending": task.ending,
                    "quality": task.quality.map(Ratio::to_f64),
                    "fee": task.fee.to_string(),
                    "refund": task.refund.to_string(),
                    "explain_ok": task.explain_ok,
                })
            })
            .collect();
        json!({
            "nodes": nodes,
            "tasks": tasks,
            "money": {
                "deposited": self.money.deposited.to_string(),
                "burned": self.money.liabilities.burned.to_string(),
                "balances": self.money.balances.to_string(),
                "difference": self.money.difference().to_string(),
            },
            "pool": {
                "bond": self.pool.bond.to_string(),
                "deposited": self.pool.deposited.to_string(),
                "commission": self.pool.commission.to_string(),
                "bond_income": self.pool.managers.to_string(),
                "shares_income": self.pool.holders.to_string(),
                "paid_to_manager": self.pool.paid.map(|(manager, _)| manager.to_string()),
                "paid_to_holder": self.pool.paid.map(|(_, holder)| holder.to_string()),
                "difference": self.pool.error.to_string(),
            },
            "attack": self.attack.map(|attack| attack.to_string()),
            "simulator_agrees": self.comparison.agrees(),
        })
    }

    /// For people.
    pub(super) fn text(&self, unit: &Unit) -> String {
        let mut tasks = table(
            ["task", "answers", "outcome", "quality", "fee", "refund", "explained", "question"],
            &[0, 1, 3, 4, 5],
        );
        for task in &self.tasks {
            tasks.add_row([
                task.id.to_string(),
                task.answers.to_string(),
                ending_text(task.ending).into(),
                decimals(task.quality.map(Ratio::to_f64)),
                unit.short(task.fee, 6),
                unit.short(task.refund, 6),
                if task.explain_ok { "yes" } else { "NO" }.into(),
                shorten(&task.question, 48),
            ]);
        }
        let mut nodes = table(
            [
                "account",
                "role",
                "model",
                "tasks",
                "mean quality",
                "mean cost",
                "reward",
                "slashed",
                "claimed",
            ],
            &[3, 4, 5, 6, 7, 8],
        );
        for node in &self.nodes {
            nodes.add_row([
                shorten(&node.account, 12),
                crate::cli::node::role_name(node.role).into(),
                node.model.clone(),
                node.tally.tasks.to_string(),
                decimals(mean(&node.tally.qualities)),
                decimals(mean(&node.tally.costs)),
                unit.short(node.tally.reward, 6),
                unit.short(node.slashed, 6),
                unit.short(node.claimed, 6),
            ]);
        }
        format!(
            "{tasks}\n\n{nodes}\nAn evaluator's quality is its merit. Amounts are in {}.\n\n{}\n\n{}\n\n{}",
            unit.symbol,
            self.simulator_text(unit),
            pairs(&self.pool.lines(unit)),
            self.money_text(unit)
        )
    }

    /// The run in the simulator's books, and what cheating came to.
    fn simulator_text(&self, unit: &Unit) -> String {
        let mut lines = vec![(
            "simulator's books",
            if self.comparison.agrees() {
                "agree with the chain to the last unit".to_owned()
            } else {
                "DIFFER from the chain".to_owned()
            },
        )];
        let Some(attack) = self.attack else { return pairs(&lines) };
        // What one node got per task, less what it lost.
        let per_task = |dishonest: bool| {
            let of = |node: &&NodeRow| {
                let role = if attack.evaluators() { Role::Evaluator } else { Role::Inference };
                node.role == role && node.dishonest == dishonest
            };
            let (net, tasks) = self.nodes.iter().filter(of).fold((0i128, 0i128), |(net, tasks), node| {
                let reward = i128::try_from(node.tally.reward).unwrap_or(i128::MAX);
                let slashed = i128::try_from(node.slashed).unwrap_or(i128::MAX);
                (net.saturating_add(reward).saturating_sub(slashed), tasks + i128::from(node.tally.tasks))
            });
            let net = net.checked_div(tasks).unwrap_or(0);
            let sign = if net < 0 { "-" } else { "" };
            format!("{sign}{} per task", unit.show(net.unsigned_abs()))
        };
        lines.push(("attack", attack.to_string()));
        lines.push(("honest nodes of the role got", per_task(false)));
        lines.push(("dishonest ones got", per_task(true)));
        pairs(&lines)
    }

    fn money_text(&self, unit: &Unit) -> String {
        let money = &self.money;
        let flows = &money.flows;
        pairs(&[
            ("MONEY CHECK", String::new()),
            ("went into the contract", unit.show(money.deposited)),
            ("  stakes", unit.show(flows.stakes)),
            ("  task fees", unit.show(flows.fees)),
            ("came out, or is owed", unit.show(money.balances)),
            ("  rewards claimed", unit.show(flows.claims)),
            ("  refunds collected", unit.show(flows.refunds)),
            ("  stakes withdrawn", unit.show(flows.unstaked)),
            ("  treasury withdrawn", unit.show(flows.treasury)),
            ("  keepers' fees withdrawn", unit.show(flows.credit)),
            ("  burned: nobody's", unit.show(money.liabilities.burned + flows.gone)),
            ("  stakes still on their way out", unit.show(money.liabilities.stakes)),
            ("  owed besides", unit.show(money.owed - money.liabilities.burned - money.liabilities.stakes)),
            ("difference", even(money.contract_error)),
            ("contract's balance, less what it owes, changed by", even(money.balance_error)),
            ("payees hold what they were paid, but for", even(money.payee_error)),
            (
                "held before",
                format!("{} by {} accounts, deposits included", unit.show(money.before), money.accounts),
            ),
            ("held after", unit.show(money.after)),
            ("transaction fees", unit.show(money.transaction_fees)),
            ("difference", even(money.chain_error)),
        ])
    }
}

/// An error of a money check.
pub(super) fn even(error: i128) -> String {
    if error == 0 {
        "0".to_owned()
    } else {
        format!("{error} smallest units: WRONG")
    }
}

/// A text of at most so many characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= most {
        return text;
    }
    format!("{}…", text.chars().take(most.saturating_sub(1)).collect::<String>())
}
