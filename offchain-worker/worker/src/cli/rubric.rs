//! `poq rubric`: how evaluators score, and what a task kind names it by.

use crate::cli::args::Output;
use crate::cli::exit::Usage;
use crate::cli::output::{pairs, table};
use clap::{Args, Subcommand};
use poq_inference::data::TaskKind;
use poq_inference::quality::Rubric;
use serde_json::json;
use std::path::Path;

/// `poq rubric …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RubricCommand {
    /// Lists the rubrics that ship with this build, with the hashes that a task kind names them by.
    List(RubricListArgs),
    /// Checks a rubric's file and shows its hash, its profiles and its weights.
    Show(RubricShowArgs),
}

/// `poq rubric list`.
#[derive(Args, Debug)]
pub(crate) struct RubricListArgs {
    #[command(flatten)]
    output: Output,
}

/// `poq rubric show`.
#[derive(Args, Debug)]
pub(crate) struct RubricShowArgs {
    /// The rubric's file, or `qa` or `summarisation` for one that ships with this build.
    #[arg(value_name = "FILE|KIND")]
    rubric: String,
    #[command(flatten)]
    output: Output,
}

/// Runs `poq rubric`.
pub(crate) fn run(command: RubricCommand) -> anyhow::Result<()> {
    match command {
        RubricCommand::List(args) => list(&args),
        RubricCommand::Show(args) => show(&args),
    }
}

fn list(args: &RubricListArgs) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for kind in TaskKind::ALL {
        let rubric = Rubric::builtin(kind);
        rows.push((kind, rubric.hash()?.to_string(), rubric.name));
    }
    args.output.printer().print(
        || {
            let row = |(kind, hash, name): &(TaskKind, String, String)| {
                json!({ "task": kind, "name": name, "hash": hash })
            };
            json!(rows.iter().map(row).collect::<Vec<_>>())
        },
        || {
            let mut shown = table(["rubric", "name", "hash (rubric_hash of a task kind)"], &[]);
            for (kind, hash, name) in &rows {
                shown.add_row([kind.to_string(), name.clone(), hash.clone()]);
            }
            shown.to_string()
        },
    )
}

fn show(args: &RubricShowArgs) -> anyhow::Result<()> {
    let builtin = TaskKind::ALL.into_iter().find(|kind| kind.as_str() == args.rubric);
    let rubric = match builtin {
        Some(kind) => Rubric::builtin(kind),
        None => Rubric::from_path(Path::new(&args.rubric)).map_err(|error| Usage(error.to_string()))?,
    };
    let hash = rubric.hash()?;
    args.output.printer().print(
        || json!({ "hash": hash.to_string(), "rubric": rubric }),
        || {
            let mut lines = vec![
                ("rubric", rubric.name.clone()),
                ("for", rubric.task.to_string()),
                ("hash", hash.to_string()),
            ];
            if !rubric.origin.is_empty() {
                lines.push(("origin", rubric.origin.clone()));
            }
            let mut profiles = table(["evaluator", "weights", "calibrated"], &[]);
            for profile in &rubric.profile {
                let weights: Vec<String> =
                    profile.weights.iter().map(|(signal, w)| format!("{} {w}", signal.as_str())).collect();
                let calibrated = if profile.calibration.is_some() { "yes" } else { "no" };
                profiles.add_row([profile.model.clone(), weights.join(", "), calibrated.into()]);
            }
            format!("{}\n\n{profiles}", pairs(&lines))
        },
    )
}
