//! The program: runs, refusals, logs, and a whole quick report.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_poq-simulate")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn refuse(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    assert!(!output.status.success(), "{arguments:?} should be refused");
    text(&output.stderr)
}

/// A log of 30 items, two models, two evaluators: the second model is worse, the second evaluator sees little.
fn log(folder: &Path) -> PathBuf {
    let mut lines = String::new();
    for item in 0..30u32 {
        for (model, base) in [("good", 0.7), ("poor", 0.4)] {
            let truth = base + 0.25 * (f64::from(item) * 0.7).sin();
            let near = truth + 0.05 * (f64::from(item) * 1.3).cos();
            let flat = 0.5 + 0.1 * (f64::from(item) * 2.1).cos();
            lines += &format!(
                r#"{{"item":"i{item:02}","kind":"qa","model":"{model}","output":"x","f1":{truth},"rouge_l":{truth},"wall_ms":{},"cpu_ms":500,"prompt_tokens":9,"completion_tokens":4,"scores":{{"bi":{{"score":{near},"wall_ms":20}},"ce":{{"score":{flat},"wall_ms":60}}}}}}"#,
                2_000 + 50 * item
            );
            lines.push('\n');
        }
    }
    let path = folder.join("experiment.jsonl");
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn a_run_prints_measures_and_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let arguments = [
        "run",
        "--rounds",
        "100",
        "--replications",
        "2",
        "--attack",
        "boosting=0.3",
        "--ratio",
        "0.2",
        "--panel",
        "5",
        "--trust",
        "anchored",
        "--gold",
        "0.2",
        "--json",
        json.to_str().unwrap(),
    ];
    let first = succeed(&arguments);
    assert!(first.contains("profit_ratio") && first.contains("break_even_at_risk"));
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(value["rounds"], 100);
    assert_eq!(value["crowd"]["attack"]["boosting"], 0.3);
    assert_eq!(value["nodes"].as_array().unwrap().len(), 2 * 72);
    let threads: Vec<&str> = arguments.iter().copied().chain(["--threads", "1"]).collect();
    assert_eq!(first, succeed(&threads));
}

#[test]
fn a_log_is_replayed_and_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path());
    let world = folder.path().join("world.json");
    let effort = ["--rounds", "200", "--replications", "2", "--panel", "3", "--evaluators", "12"];
    let replay = [&["run", "--replay", log.to_str().unwrap()], &effort[..]].concat();
    assert!(succeed(&replay).contains("absolute_error"));
    succeed(&["fit", log.to_str().unwrap(), "--out", world.to_str().unwrap()]);
    let fitted: serde_json::Value = serde_json::from_slice(&std::fs::read(&world).unwrap()).unwrap();
    assert_eq!(fitted["models"][0]["name"], "good");
    assert!(fitted["evaluators"][0]["slope"].as_f64().unwrap() > 0.8);
    assert!(fitted["evaluators"][1]["slope"].as_f64().unwrap().abs() < 0.2);
    let run = [&["run", "--world", world.to_str().unwrap()], &effort[..]].concat();
    assert!(succeed(&run).contains("absolute_error"));
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.jsonl");
    std::fs::write(&bad, "{\"item\": 3}\n").unwrap();
    assert!(refuse(&["run", "--replay", bad.to_str().unwrap()]).contains("line 1: not a record"));
    assert!(refuse(&["run", "--attack", "bosting"]).contains("no attack is named `bosting`"));
    assert!(refuse(&["run", "--panel", "40"]).contains("the panel (K) must be in [3, 15]"));
    assert!(refuse(&["run", "--world", "nowhere.json"]).contains("nowhere.json"));
    assert!(refuse(&["run", "--aggregation", "mode"]).contains("there are: mean"));
    assert!(refuse(&["scenario", "nothing"]).contains("there are: cost-aware-ranking"));
    assert!(refuse(&["run", "--rounds", "0"]).contains("rounds"));
}

#[test]
fn a_sweep_writes_a_row_per_combination() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep.csv");
    succeed(&[
        "sweep",
        "--attacks",
        "boosting,constant",
        "--ratios",
        "0.1,0.3",
        "--panels",
        "3,5",
        "--rounds",
        "50",
        "--replications",
        "2",
        "--trusts",
        "relative-merit,centred",
        "--gold",
        "0.1",
        "--out",
        out.to_str().unwrap(),
    ]);
    let table = std::fs::read_to_string(&out).unwrap();
    // Two worlds, attacks, ratios, panels and trust rules.
    assert_eq!(table.lines().count(), 1 + 32);
    assert!(table.starts_with("spread,attack,ratio,panel,aggregation,merit,trust,gold,break_even_at_risk,"));
}

#[test]
fn failures_are_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("failures.json");
    let text = succeed(&["failures", "--outputs", "1", "--panel", "3", "--json", json.to_str().unwrap()]);
    assert!(text.contains("withholds the secret") && text.contains("no_secret"));
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(value[0]["failure"], "none");
    assert!(succeed(&["failures", "--markdown"]).starts_with("| who | what |"));
    assert!(refuse(&["failures", "--fee", "0.01"]).contains("too small"));
}

/// Smoke test of the whole report; what is in it is tested elsewhere.
#[test]
fn a_short_report_has_all_its_tables_and_plots() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("economics");
    succeed(&["report", "--quick", "--rounds", "40", "--out", out.to_str().unwrap()]);
    for name in [
        "scenarios.json",
        "attacks.csv",
        "attacks.json",
        "strength.csv",
        "strength.svg",
        "deviation.csv",
        "panel.csv",
        "trust.csv",
        "rewards.csv",
        "gold.csv",
        "failures.csv",
        "steering.csv",
        "raids.csv",
        "sweep.csv",
        "rules.csv",
        "attacks-profit-wide.svg",
        "attacks-profit-narrow.svg",
        "attacks-error-wide.svg",
        "attacks-error-narrow.svg",
        "panel.svg",
        "trust.svg",
        "rewards.svg",
        "rewards-papers.svg",
        "gold.svg",
    ] {
        let length = std::fs::metadata(out.join(name)).unwrap().len();
        assert!(length > 700, "{name} has {length} bytes");
    }
}
