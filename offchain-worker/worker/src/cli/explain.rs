//! `poq explain`: every number of every reward of a task, computed again and compared with what the chain paid.

use crate::cli::amount::Unit;
use crate::cli::args::ReadArgs;
use crate::cli::exit::Difference;
use crate::cli::history;
use crate::cli::indexed::IndexArg;
use crate::cli::output::{pairs, table, time};
use crate::cli::task::{ending_text, score};
use clap::Args;
use poq_chain::explain::{explain_at, Audited, Explanation, Found, NodeLine};
use poq_chain::types::{token_f1, Conduct, TaskId};
use poq_core::units::ONE;
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
    index: IndexArg,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `poq explain`.
pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let (explanation, unit) = explained(&args).await?;
    args.read.printer().print(
        || {
            let mut value = json!(explanation);
            value["agrees"] = json!(explanation.agrees());
            value
        },
        || text(&explanation, &unit),
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

/// From the index where one is named and has the task's end, else from the chain.
async fn explained(args: &ExplainArgs) -> anyhow::Result<(Explanation, Unit)> {
    let task = args.task;
    if let Some(index) = args.index.open().await? {
        match index.ask(move |reads, conn| reads.explanation(conn, task)).await {
            Ok(explanation) => return Ok((explanation, index.unit)),
            Err(error) => match error.downcast_ref::<poq_index::Error>() {
                Some(poq_index::Error::Absent(why)) => {
                    tracing::warn!("the index does not have it ({why}): asking the chain");
                }
                _ => return Err(error),
            },
        }
    }
    let session = args.read.contract().await?;
    let block = match args.block {
        Some(block) => block,
        None => history::end_of(&session, task).await?,
    };
    Ok((explain_at(&session.client, task, block).await?, session.unit))
}

/// Parts per billion as a number with all its digits.
fn ratio(ppb: u32) -> String {
    signed(i64::from(ppb))
}

fn signed(ppb: i64) -> String {
    let sign = if ppb < 0 { "-" } else { "" };
    let size = ppb.unsigned_abs();
    format!("{sign}{}.{:09}", size / u64::from(ONE), size % u64::from(ONE))
}

fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

fn text(explanation: &Explanation, unit: &Unit) -> String {
    let totals = &explanation.totals;
    let head = pairs(&[
        ("task", explanation.task.to_string()),
        ("outcome", ending_text(explanation.ending).into()),
        ("in block", format!("{}, {}", explanation.block.number, time(explanation.block.timestamp_ms))),
        ("kind", format!("{}, parameters' version {}", explanation.kind, explanation.version)),
    ]);
    let mut parts = vec![head];
    if let Some(params) = &explanation.params {
        parts.push(format!(
            "R = alpha * quality - beta * cost;  R >= 0 pays R/alpha of the slot, R < 0 costs |R|/beta of the stake at risk, as much as \
             a missed duty at the most.\naggregation {:?}, merit {:?}, trust {:?}",
            params.aggregation, params.merit, params.trust
        ));
    }
    parts.push(scores(explanation));
    parts.push(nodes(&explanation.nodes, unit));
    parts.extend(evaluators(&explanation.nodes));
    parts.extend(explanation.audit.as_ref().map(|audit| audited(explanation, audit)));
    parts.push(pairs(&[
        ("fee", unit.show(totals.fee)),
        ("  to nodes", unit.show(totals.paid)),
        ("  to keepers", unit.show(totals.keepers)),
        ("  to the treasury", unit.show(totals.treasury)),
        ("  burned", unit.show(totals.burned)),
        ("  back to the requester", unit.show(totals.refund)),
        ("slashed, burned", unit.show(totals.slashed)),
    ]));
    parts.push(checks(explanation));
    parts.join("\n\n")
}

/// Who scored what.
fn scores(explanation: &Explanation) -> String {
    let (input, recorded) = (&explanation.input, &explanation.recorded);
    let role = |role: &'static str| explanation.nodes.iter().filter(move |line| line.role == role);
    let outputs: Vec<u32> = role("inference").map(|line| line.node).collect();
    let mut rows = table(
        std::iter::once("scores by".to_owned()).chain(outputs.iter().map(|node| format!("of node {node}"))),
        &(1..=outputs.len()).collect::<Vec<_>>(),
    );
    // Vacant seats have no line.
    let seats = input.panel.iter().filter(|seat| seat.conduct != Conduct::Vacant);
    for (line, evaluator) in role("evaluator").zip(seats) {
        let all = |text: &str| vec![text.to_owned(); outputs.len()];
        let scores: Vec<String> = match &evaluator.conduct {
            Conduct::Vacant => all("vacant"),
            Conduct::Missed => all("did not commit"),
            Conduct::Waited => all("too few committed"),
            Conduct::Unrevealed => all("did not reveal"),
            Conduct::Revealed(scores) => scores.iter().map(|given| score(*given)).collect(),
        };
        rows.add_row(std::iter::once(format!("node {}", line.node)).chain(scores));
    }
    let consensus =
        recorded.outputs.iter().map(|output| or_dash(output.quality, |quality| quality.to_string()));
    rows.add_row(std::iter::once("consensus".to_owned()).chain(consensus));
    rows.to_string()
}

/// The opened reference, and what the outputs are worth against it.
fn audited(explanation: &Explanation, audit: &Audited) -> String {
    let opening = &audit.opening;
    let outputs = explanation.nodes.iter().filter(|line| line.role == "inference");
    let mut lines = vec![
        ("reference".to_owned(), String::from_utf8_lossy(&opening.reference).into_owned()),
        ("opened in block".to_owned(), format!("{}, by {}", audit.block.number, audit.auditor)),
    ];
    for (line, output) in outputs.zip(&opening.outputs) {
        let truth = output.as_ref().map(|output| token_f1(&opening.reference, output).to_string());
        lines.push((format!("token F1 of node {}", line.node), truth.unwrap_or_else(|| "-".into())));
    }
    pairs(&lines)
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
