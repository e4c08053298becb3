//! `poq explain`: every number of every reward of a task, computed again and compared with what the chain paid.

use crate::cli::amount::Unit;
use crate::cli::args::ReadArgs;
use crate::cli::exit::Difference;
use crate::cli::history;
use crate::cli::output::{pairs, table, time};
use clap::Args;
use poq_chain::explain::{explain_at, Ending, Explanation, Found, NodeLine};
use poq_chain::types::{Conduct, Score, TaskId};
use serde_json::json;

/// `poq explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The task's number; of a task that has been collected too, as long as the node has the blocks of its time.
    task: TaskId,
    /// The block in which the task ended, where it is known: it need not be looked for then.
    #[arg(long, value_name = "BLOCK")]
    block: Option<u32>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `poq explain`.
pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let block = match args.block {
        Some(block) => block,
        None => history::end_of(&session, args.task).await?,
    };
    let explanation = explain_at(&session.client, args.task, block).await?;
    args.read.printer().print(
        || {
            let mut value = json!(explanation);
            value["agrees"] = json!(explanation.agrees());
            value
        },
        || text(&explanation, &session.unit),
    )?;
    if explanation.agrees() {
        return Ok(());
    }
    let text = format!(
        "task {}: {} of its numbers are not what the formulas and the chain's records say",
        args.task,
        explanation.differences.len()
    );
    Err(Difference(text).into())
}

fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Settled => "settled",
        Ending::RefundedUndelivered => "refunded: no inference node delivered",
        Ending::RefundedUndrawn => "refunded: no panel could be drawn in time",
        Ending::RefundedBelowQuorum => "refunded: two panels in turn were below quorum",
    }
}

/// Parts per billion as a number with all its digits.
fn ratio(ppb: u32) -> String {
    signed(i64::from(ppb))
}

fn signed(ppb: i64) -> String {
    let sign = if ppb < 0 { "-" } else { "" };
    let size = ppb.unsigned_abs();
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

fn text(explanation: &Explanation, unit: &Unit) -> String {
    let totals = &explanation.totals;
    let head = pairs(&[
        ("task", explanation.task.to_string()),
        ("outcome", ending(explanation.ending).into()),
        ("in block", format!("{}, {}", explanation.block.number, time(explanation.block.timestamp_ms))),
        (
            "kind",
            or_dash(explanation.kind, |kind| {
                format!("{kind}, parameters' version {}", or_dash(explanation.version, |v| v.to_string()))
            }),
        ),
    ]);
    let mut parts = vec![head];
    if let Some(params) = &explanation.params {
        parts.push(format!(
            "R = alpha * quality - beta * cost;  R >= 0 pays R/alpha of the slot, R < 0 costs |R|/beta of the stake at risk.\n\
             aggregation {:?}, merit {:?}, trust {:?}",
            params.aggregation, params.merit, params.trust
        ));
    }
    if let Some(scores) = scores(explanation) {
        parts.push(scores);
    }
    if !explanation.nodes.is_empty() {
        parts.push(nodes(&explanation.nodes, unit));
        parts.extend(evaluators(&explanation.nodes));
    }
    parts.push(pairs(&[
        ("fee", unit.show(totals.fee)),
        ("  to nodes", unit.show(totals.paid)),
        ("  to the treasury", unit.show(totals.protocol_fee)),
        ("  to the treasury, of a gold task's scores", unit.show(totals.forfeited)),
        ("  back to the requester", unit.show(totals.refund)),
        ("slashed, to the treasury", unit.show(totals.slashed)),
    ]));
    parts.push(checks(explanation));
    parts.join("\n\n")
}

/// Who scored what.
fn scores(explanation: &Explanation) -> Option<String> {
    let (input, recorded) = (explanation.input.as_ref()?, explanation.recorded.as_ref()?);
    let role = |role: &'static str| explanation.nodes.iter().filter(move |line| line.role == role);
    let outputs: Vec<u32> = role("inference").map(|line| line.node).collect();
    let mut rows = table(
        std::iter::once("scores by".to_owned()).chain(outputs.iter().map(|node| format!("of node {node}"))),
        &(1..=outputs.len()).collect::<Vec<_>>(),
    );
    let score =
        |score: &Score| score.quality().map_or_else(|| "unavailable".into(), |quality| quality.to_string());
    for (line, evaluator) in role("evaluator").zip(&input.panel) {
        let scores: Vec<String> = match &evaluator.conduct {
            Conduct::Missed => vec!["did not commit".into(); outputs.len()],
            Conduct::Unrevealed => vec!["did not reveal".into(); outputs.len()],
            Conduct::Revealed(scores) => scores.iter().map(score).collect(),
        };
        rows.add_row(std::iter::once(format!("node {}", line.node)).chain(scores));
    }
    let consensus =
        recorded.outputs.iter().map(|output| or_dash(output.quality, |quality| quality.to_string()));
    rows.add_row(std::iter::once("consensus".to_owned()).chain(consensus));
    Some(rows.to_string())
}

/// Every number of every reward.
fn nodes(lines: &[NodeLine], unit: &Unit) -> String {
    let mut rows = table(
        [
            "node",
            "role",
            "conduct",
            "alpha",
            "quality or merit",
            "beta",
            "cost",
            "latency",
            "price",
            "R",
            "slot",
            "payout",
            "slashed",
        ],
        &[0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    );
    for line in lines {
        rows.add_row([
            line.node.to_string(),
            line.role.into(),
            line.conduct.into(),
            ratio(line.alpha),
            or_dash(line.quality_or_merit, ratio),
            ratio(line.beta),
            ratio(line.cost),
            or_dash(line.latency_ms, |ms| format!("{ms} ms")),
            unit.number(line.price),
            signed(line.net),
            unit.number(line.slot),
            unit.number(line.payout),
            unit.number(line.slashed),
        ]);
    }
    rows.to_string()
}

/// How evaluators' merit and trust came about.
fn evaluators(lines: &[NodeLine]) -> Option<String> {
    let mut rows = table(
        ["evaluator", "deviation", "information gain", "trust before", "trust after"],
        &[0, 1, 2, 3, 4],
    );
    let mut any = false;
    for line in lines.iter().filter(|line| line.role == "evaluator") {
        any = true;
        rows.add_row([
            line.node.to_string(),
            or_dash(line.deviation, ratio),
            or_dash(line.gain, signed),
            or_dash(line.trust, |(before, _)| ratio(before)),
            or_dash(line.trust, |(_, after)| ratio(after)),
        ]);
    }
    any.then(|| rows.to_string())
}

fn checks(explanation: &Explanation) -> String {
    let mut lines = Vec::new();
    for check in &explanation.checks {
        lines.push(match &check.found {
            Found::Agrees => format!("  agrees   {}", check.what),
            Found::Differs => format!("  DIFFERS  {}", check.what),
            Found::Skipped(why) => format!("  skipped  {}: {why}", check.what),
        });
    }
    for difference in &explanation.differences {
        lines.push(format!(
            "{} ({}): should be {}, is {}",
            difference.what, difference.check, difference.expected, difference.found
        ));
    }
    let verdict =
        if explanation.agrees() { "Every number agrees with the chain." } else { "NUMBERS DIFFER." };
    format!("{verdict}\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_per_billion_keep_every_digit() {
        assert_eq!(ratio(1), "0.000000001");
        assert_eq!(ratio(1_000_000_000), "1.000000000");
        assert_eq!(signed(-300_000_000), "-0.300000000");
    }
}
