//! The papers' claims, each beside what was measured here.
//!
//! A verdict is computed, not written: it says *reproduced* or *not reproduced* only where the interval decides it.

use crate::{
    calibrate::best_single,
    dataset::Part,
    report::{mean_correlation, shown, Correlation, Panel, Regime, Study, Variant},
    stats::{effective_votes, Interval},
    tables::{self, mean},
};
use poq_inference::{
    quality::calibration::{pearson, spearman},
    TaskKind,
};

const REPRODUCED: &str = "reproduced";
const NOT_REPRODUCED: &str = "not reproduced";
const UNDECIDED: &str = "undecided: the interval allows both";
const NOT_TESTABLE: &str = "not testable here";

/// What an interval says of the claim that a quantity is positive.
fn positive(interval: Option<Interval>) -> &'static str {
    match interval {
        Some(interval) if interval.is_positive() => REPRODUCED,
        Some(interval) if interval.is_negative() => NOT_REPRODUCED,
        Some(_) => UNDECIDED,
        None => NOT_TESTABLE,
    }
}

/// What an interval says of the claim that a quantity is negative.
fn negative(interval: Option<Interval>) -> &'static str {
    match interval {
        Some(interval) if interval.is_negative() => REPRODUCED,
        Some(interval) if interval.is_positive() => NOT_REPRODUCED,
        Some(_) => UNDECIDED,
        None => NOT_TESTABLE,
    }
}

/// What an interval says of the claim that a quantity is "near zero or negative": not above 0.2.
fn near_zero_or_negative(interval: Option<Interval>) -> &'static str {
    match interval {
        Some(interval) if interval.high <= 0.2 => REPRODUCED,
        Some(interval) if interval.low > 0.2 => NOT_REPRODUCED,
        Some(_) => UNDECIDED,
        None => NOT_TESTABLE,
    }
}

struct Claim {
    source: &'static str,
    claim: &'static str,
    theirs: &'static str,
    ours: String,
    verdict: String,
}

const QA: Option<TaskKind> = Some(TaskKind::Qa);
const SUMMARIES: Option<TaskKind> = Some(TaskKind::Summarisation);

pub(crate) fn tabulate(study: &Study<'_>) -> String {
    let mut claims = Vec::new();
    let mut add = |source, claim, theirs, ours: String, verdict: &str| {
        claims.push(Claim { source, claim, theirs, ours, verdict: verdict.to_string() });
    };
    let column = |name: &str, kind, of: Correlation| study.of_column(name, kind, Part::Whole, of);
    let best = |prefix: &str, kind| {
        let columns: Vec<_> = study
            .single_columns(Regime::Reference)
            .into_iter()
            .chain(study.single_columns(Regime::Free))
            .filter(|column| column.name.starts_with(prefix))
            .collect();
        best_single(study.data, &columns, kind).map(|column| column.name.clone())
    };
    let minus = |variant: Variant, other: Variant| {
        let one = study.variant(variant, Regime::Reference, None);
        let two = study.variant(other, Regime::Reference, None);
        study.difference(None, pearson, one, two)
    };

    // arXiv 2512.16317
    if let Some(name) = best("semantic-reference/", None) {
        let with_f1 = column(&name, None, pearson);
        add(
            "2512.16317",
            "a bi-encoder beside the reference follows token F1",
            "0.66",
            format!("{} ({name})", shown(with_f1)),
            positive(with_f1),
        );
        let with_judge = study.judge().and_then(|judge| {
            study.interval(
                None,
                Part::Whole,
                pearson,
                |row| study.data.value(&name, row),
                |row| study.data.value(judge, row),
            )
        });
        let difference = study.judge().and_then(|judge| {
            let score = |row: usize| study.data.value(&name, row);
            let clusters = study.data.clusters(None, Part::Whole);
            crate::stats::bootstrap(&clusters, study.seed, |rows| {
                let of = |target: &dyn Fn(usize) -> Option<f64>| {
                    let (x, y): (Vec<f64>, Vec<f64>) = rows
                        .iter()
                        .filter(|row| study.data.value(judge, **row).is_some())
                        .filter_map(|row| Some((score(*row)?, target(*row)?)))
                        .unzip();
                    pearson(&x, &y)
                };
                Some(of(&|row| Some(study.data.rows[row].f1))? - of(&|row| study.data.value(judge, row))?)
            })
        });
        add(
            "2512.16317",
            "it follows an LLM judge less than token F1",
            "0.29 against 0.66",
            format!("{} with the judge; F1 minus judge {}", shown(with_judge), shown(difference)),
            positive(difference),
        );
    }
    for (prefix, what) in [("relevance/", "the question"), ("relevance-reference/", "the reference")] {
        if let Some(name) = best(prefix, None) {
            let r = column(&name, None, pearson);
            let claim = if prefix == "relevance/" {
                "a cross-encoder beside the question: near zero or negative"
            } else {
                "a cross-encoder beside the reference: near zero or negative"
            };
            debug_assert!(claim.contains(what));
            add("2512.16317", claim, "near zero or negative", shown(r), near_zero_or_negative(r));
        }
    }
    for kind in study.data.kinds() {
        let (ours, verdict) = efficiency(study, kind);
        let claim = match kind {
            TaskKind::Qa => "questions: the largest models give most quality per latency",
            TaskKind::Summarisation => "summaries: the largest models give most quality per latency",
        };
        add("2512.16317", claim, "Llama-3.2-3B, Gemma-2-2B: 7 times Qwen2-1.5B", ours, verdict);
    }
    add(
        "2512.16317",
        "mean rewards 0.62 (Llama-3.2-3B) to 0.13 (Phi-3-mini)",
        "0.62, 0.13",
        "these models do not fit here".into(),
        NOT_TESTABLE,
    );

    // arXiv 2601.21189
    let inverted: Vec<String> = study
        .data
        .columns
        .keys()
        .filter(|name| {
            let (qa, summaries) = (column(name, QA, pearson), column(name, SUMMARIES, pearson));
            match (qa, summaries) {
                (Some(a), Some(b)) => {
                    (a.is_positive() && b.is_negative()) || (a.is_negative() && b.is_positive())
                }
                _ => false,
            }
        })
        .cloned()
        .collect();
    add(
        "2601.21189",
        "a signal's correlation can invert between kinds of task",
        "some evaluators",
        if inverted.is_empty() {
            "no signal does so with both intervals clear of zero".into()
        } else {
            inverted.join(", ")
        },
        if inverted.is_empty() { NOT_REPRODUCED } else { REPRODUCED },
    );
    add(
        "2601.21189",
        "robust consensus withstands noise, boosting, sabotage",
        "figures",
        "see the simulator".into(),
        NOT_TESTABLE,
    );

    // arXiv 2603.04028
    let default = study.variant(Variant::Default, Regime::Reference, None);
    let singles = study.single_columns(Regime::Reference);
    if let Some(single) = best_single(study.data, &singles, None) {
        let single_score = |row: usize| study.data.value(&single.name, row);
        let behind = study.difference(None, pearson, &default, single_score);
        add(
            "2603.04028, table 6",
            "the default composite is behind the best single evaluator",
            "0.513 against 0.754",
            shown(behind),
            negative(behind),
        );
        for (claim, theirs, of) in [
            (
                "calibrated composite minus best single evaluator, Pearson",
                "0.760 − 0.754",
                pearson as Correlation,
            ),
            (
                "calibrated composite minus best single evaluator, Spearman",
                "0.800 − 0.806",
                spearman as Correlation,
            ),
        ] {
            let calibrated = study.variant(Variant::Calibrated, Regime::Reference, None);
            let ahead = study.difference(None, of, calibrated, single_score);
            add("2603.04028, table 8", claim, theirs, shown(ahead), positive(ahead));
        }
        let median = study.consensus(Regime::Reference, crate::tables::median);
        let behind = study.difference(None, pearson, median, single_score);
        add(
            "2603.04028, table 6",
            "the median of evaluators comes close to the best single one",
            "0.749 − 0.754",
            shown(behind),
            match behind {
                Some(i) if i.low > -0.05 => REPRODUCED,
                Some(i) if i.high < -0.05 => NOT_REPRODUCED,
                Some(_) => UNDECIDED,
                None => NOT_TESTABLE,
            },
        );
    }
    let structure = column("structure", None, pearson);
    add("2603.04028, table 6", "structure follows token F1", "0.466", shown(structure), positive(structure));
    for (claim, theirs, name, kind, sign) in [
        (
            "alignment misleads on questions",
            "−0.571",
            "relevance/",
            QA,
            negative as fn(Option<Interval>) -> &'static str,
        ),
        ("alignment helps a little on summaries", "0.102", "relevance/", SUMMARIES, positive),
        ("agreement misleads on questions", "−0.553", "agreement-reference", QA, negative),
        ("agreement helps a little on summaries", "0.188", "agreement-reference", SUMMARIES, positive),
    ] {
        let name = if name.ends_with('/') { best(name, kind) } else { Some(name.to_string()) };
        let r = name.and_then(|name| column(&name, kind, pearson));
        add("2603.04028, table 7", claim, theirs, shown(r), sign(r));
    }
    if let (Some(qa), Some(summaries)) =
        (best("semantic-reference/", QA), best("semantic-reference/", SUMMARIES))
    {
        let (a, b) = (column(&qa, QA, pearson), column(&summaries, SUMMARIES, pearson));
        let verdict = match (a, b) {
            (Some(a), Some(b)) if a.low > b.high => REPRODUCED,
            (Some(a), Some(b)) if a.high < b.low => NOT_REPRODUCED,
            (Some(_), Some(_)) => UNDECIDED,
            _ => NOT_TESTABLE,
        };
        add(
            "2603.04028, table 7",
            "semantic quality is stronger on questions than on summaries",
            "0.863 against 0.433",
            format!("{} against {}", shown(a), shown(b)),
            verdict,
        );
    }
    for (claim, theirs, variant, sign) in [
        (
            "equal weights are worse than the default",
            "0.447 − 0.513",
            Variant::Equal,
            negative as fn(Option<Interval>) -> &'static str,
        ),
        ("without priors it is worse", "0.341 − 0.513", Variant::NoPriors, negative),
        ("without structure it is worse", "0.457 − 0.513", Variant::NoStructure, negative),
        ("without alignment it is better", "0.677 − 0.513", Variant::NoAlignment, positive),
        ("without agreement it is better", "0.626 − 0.513", Variant::NoAgreement, positive),
        ("semantic quality alone is better", "0.733 − 0.513", Variant::SemanticOnly, positive),
        ("the paper's calibrated weights are better", "0.760 − 0.513", Variant::PaperCalibrated, positive),
    ] {
        let difference = minus(variant, Variant::Default);
        add("2603.04028, table 8", claim, theirs, shown(difference), sign(difference));
    }

    // arXiv 2606.11196
    if let Some(reference) = best_single(study.data, &study.single_columns(Regime::Reference), None) {
        let free = study.variant(Variant::Fitted, Regime::Free, None);
        let difference = study.difference(None, pearson, free, |row| study.data.value(&reference.name, row));
        add(
            "2606.11196",
            "a composite without a reference matches the best evaluator with one",
            "0.645 against 0.629",
            shown(difference),
            match difference {
                Some(i) if i.high < 0.0 => NOT_REPRODUCED,
                Some(i) if i.low > -0.05 => REPRODUCED,
                Some(_) => UNDECIDED,
                None => NOT_TESTABLE,
            },
        );
    }
    add(
        "2606.11196",
        "an NLI cross-encoder without a reference misleads",
        "−0.363",
        "no NLI model is to be had from a registry".into(),
        NOT_TESTABLE,
    );

    // arXiv 2605.29800
    for kind in study.data.kinds() {
        if let Some((names, errors)) =
            study.errors(kind, if study.judge().is_some() { Panel::WithJudge } else { Panel::Plain })
        {
            let rho = mean_correlation(&errors);
            let claim = match kind {
                TaskKind::Qa => "questions: judges err together; nine are worth about two votes",
                TaskKind::Summarisation => "summaries: judges err together; nine are worth about two votes",
            };
            let nine = effective_votes(9, rho);
            add(
                "2605.29800",
                claim,
                "9 → 2",
                format!("ρ = {rho:.2} between {} evaluators: 9 → {nine:.2}", names.len()),
                if nine < 4.5 { REPRODUCED } else { NOT_REPRODUCED },
            );
        }
    }

    let mut out = table_of(&["paper", "claim", "theirs", "ours", "verdict"]);
    for Claim { source, claim, theirs, ours, verdict } in claims {
        out.add_row([source, claim, theirs, &ours, &verdict]);
    }
    format!(
        "Theirs are Pearson correlations unless said otherwise, on SQuAD and CNN/DailyMail with five models of 1.1 to 3.8 B \
         parameters. Ours are other prompts, other and smaller models: a verdict is about whether the finding carries over. \
         Differences are on held-out prompts, correlations of single signals on all.\n\n{out}"
    )
}

fn table_of(header: &[&str]) -> comfy_table::Table {
    let mut table = tables::table(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    table
}

/// Whether the model with most quality per processor second is the one with the highest quality.
fn efficiency(study: &Study<'_>, kind: TaskKind) -> (String, &'static str) {
    let measured = study.data.by_model(kind).into_iter().map(|(name, rows)| {
        let f1 = mean(rows.iter().map(|row| row.f1));
        (name, f1, f1 / mean(rows.iter().map(|row| row.output.cpu_ms / 1e3)).max(1e-9))
    });
    let measured: Vec<_> = measured.collect();
    let top = |of: fn(&(&str, f64, f64)) -> f64| measured.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
    match (top(|m| m.1), top(|m| m.2)) {
        (Some(best), Some(cheapest)) => (
            format!(
                "best quality {} ({:.2} F1/s), most per second {} ({:.2} F1/s)",
                best.0, best.2, cheapest.0, cheapest.2
            ),
            if best.0 == cheapest.0 { REPRODUCED } else { NOT_REPRODUCED },
        ),
        _ => (String::new(), NOT_TESTABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_an_interval_that_decides() {
        let interval = |low, high| Some(Interval { estimate: (low + high) / 2.0, low, high });
        assert_eq!(positive(interval(0.1, 0.3)), REPRODUCED);
        assert_eq!(positive(interval(-0.1, 0.3)), UNDECIDED);
        assert_eq!(positive(interval(-0.3, -0.1)), NOT_REPRODUCED);
        assert_eq!(negative(interval(-0.3, -0.1)), REPRODUCED);
        assert_eq!(negative(None), NOT_TESTABLE);
        assert_eq!(near_zero_or_negative(interval(-0.3, 0.1)), REPRODUCED);
        assert_eq!(near_zero_or_negative(interval(0.1, 0.3)), UNDECIDED);
    }
}
