//! `poq params`: the contract's parameters.

use crate::cli::amount::Unit;
use crate::cli::args::{ReadArgs, SendArgs};
use crate::cli::connect::Session;
use crate::cli::exit::Refused;
use crate::cli::order::Order;
use crate::cli::output::write_out;
use crate::cli::params_file::{GlobalFile, KindFile, ParamsFile};
use anyhow::Context;
use clap::{Args, Subcommand};
use poq_chain::types::{GlobalParams, KindId, KindParams};
use poq_chain::{messages, Submitter};
use poq_inference::quality::Rubric;
use poq_inference::TaskKind;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The kind that `poq deploy` and `poq params show --defaults` set where nothing else is said.
pub(crate) const DEFAULT_KIND: KindId = 1;

/// `poq params …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ParamsCommand {
    /// Writes parameters as a file that `poq params set` and `poq deploy` read.
    Show(ParamsShowArgs),
    /// Sets global parameters and task kinds from a file; running tasks keep theirs. Only the contract's owner may.
    Set(ParamsSetArgs),
}

/// `poq params show`.
#[derive(Args, Debug)]
pub(crate) struct ParamsShowArgs {
    /// Shows this task kind only.
    #[arg(long, value_name = "N")]
    kind: Option<u16>,
    /// Shows this version of the kind's parameters; the newest where it is not given.
    #[arg(long, value_name = "VERSION", requires = "kind")]
    version: Option<u32>,
    /// Shows the shipped defaults instead of what is on chain; needs no chain.
    #[arg(long, conflicts_with_all = ["version"])]
    defaults: bool,
    /// With --defaults: those for a network that has no auditors.
    #[arg(long, requires = "defaults")]
    without_auditors: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq params set`.
#[derive(Args, Debug)]
pub(crate) struct ParamsSetArgs {
    /// The file: TOML, or JSON if its name ends in .json. What it leaves out stays as it is.
    file: PathBuf,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq params`.
pub(crate) async fn run(command: ParamsCommand) -> anyhow::Result<()> {
    match command {
        ParamsCommand::Show(args) => show(args).await,
        ParamsCommand::Set(args) => set(args).await,
    }
}

/// The shipped defaults, for a network with auditors or without: one kind, for questions, that prescribes the rubric for them.
///
/// # Errors
/// When the built-in rubric has no hash, which would be a bug.
pub(crate) fn defaults(kind: KindId, audited: bool, unit: &Unit) -> anyhow::Result<ParamsFile> {
    let mut params = if audited { KindParams::default() } else { KindParams::without_auditors() };
    params.rubric_hash = Rubric::builtin(TaskKind::Qa).hash()?.0;
    Ok(ParamsFile {
        global: Some(GlobalFile::of(&GlobalParams::default(), unit)),
        kinds: [(kind, KindFile::of(&params, unit))].into(),
    })
}

async fn show(args: ParamsShowArgs) -> anyhow::Result<()> {
    let json = args.read.output.json;
    if args.defaults {
        let file = defaults(args.kind.unwrap_or(DEFAULT_KIND), !args.without_auditors, &Unit::default())?;
        return print(&file, json, "");
    }
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let mut file = ParamsFile::default();
    let mut notes = String::new();
    let kinds = match args.kind {
        Some(kind) => vec![kind],
        None => {
            let overview = view.overview().await?;
            file.global = Some(GlobalFile::of(&overview.global, &session.unit));
            overview.kinds
        }
    };
    for kind in kinds {
        let missing = || Refused(format!("there is no task kind {kind}; `poq params show` lists them"));
        let newest = view.kind(kind).await?.ok_or_else(missing)?;
        let (version, params) = match args.version {
            Some(version) => {
                let missing =
                    || Refused(format!("task kind {kind} has no version {version} of its parameters"));
                (version, view.params(kind, version).await?.ok_or_else(missing)?)
            }
            None => (newest.kind.version, newest.params),
        };
        let panel = params.panel_min;
        let fee = params.fee_min(1, panel).map_or_else(|| "none".into(), |fee| session.unit.show(fee));
        writeln!(
            notes,
            "# kind {kind}, version {version}; smallest fee for one answer and {panel} evaluators: {fee}"
        )?;
        file.kinds.insert(kind, KindFile::of(&params, &session.unit));
    }
    print(&file, json, &notes)
}

fn print(file: &ParamsFile, json: bool, notes: &str) -> anyhow::Result<()> {
    if json {
        return write_out(&serde_json::to_string_pretty(file)?);
    }
    let header =
        "# Ratios are numbers between 0 and 1, amounts are in the chain's unit, times are in milliseconds.\n\
                  # What is left out of a file stays as it is on chain: `poq params set FILE`.\n";
    write_out(&format!("{header}{notes}\n{}", file.toml()?))
}

/// What a file changes on chain.
pub(crate) struct Plan {
    /// The new global parameters, where they differ from the present ones.
    global: Option<GlobalParams>,
    /// New parameters per kind, where they differ, with the values that do.
    kinds: Vec<(KindId, KindParams, Vec<String>)>,
}

impl Plan {
    /// Compares the file with the chain. Nothing is sent.
    pub(crate) async fn new(session: &Session, file: &ParamsFile) -> anyhow::Result<Plan> {
        let view = session.client.view().await?;
        let global = file.global.as_ref().map(|global| global.params(&session.unit)).transpose()?;
        let global = match global {
            Some(new) if view.global_params().await? != new => Some(new),
            _ => None,
        };
        let mut kinds = Vec::new();
        for kind in file.kinds.keys() {
            let present = view.kind(*kind).await?.map(|view| view.params);
            let base = present.clone().unwrap_or_default();
            let new = file.kind(*kind, &base, &session.unit)?;
            if present.as_ref() != Some(&new) {
                let changes = match present {
                    Some(present) => {
                        KindFile::of(&present, &session.unit).changes(&KindFile::of(&new, &session.unit))
                    }
                    None => vec!["a new kind".into()],
                };
                kinds.push((*kind, new, changes));
            }
        }
        Ok(Plan { global, kinds })
    }

    fn is_empty(&self) -> bool {
        self.global.is_none() && self.kinds.is_empty()
    }

    /// What it does and costs.
    pub(crate) async fn add_to(&self, order: &mut Order<'_>, unit: &Unit) -> anyhow::Result<()> {
        for (kind, params, changes) in &self.kinds {
            order
                .add(&messages::set_kind(*kind, params.clone()))
                .await
                .with_context(|| format!("kind {kind}"))?;
            order.effect(format!("kind {kind}"), changes.join("\n"));
        }
        if let Some(global) = self.global {
            order.add(&messages::set_global(global)).await.context("global")?;
            order.effect("global", describe(&global, unit));
        }
        Ok(())
    }

    /// Sends it: the kinds first, so that a file that the contract refuses leaves the global parameters alone. Returns the
    /// new versions.
    pub(crate) async fn send(&self, submitter: &Submitter) -> anyhow::Result<Vec<(KindId, u32)>> {
        let mut versions = Vec::new();
        for (kind, params, _) in &self.kinds {
            let receipt = submitter.send(messages::set_kind(*kind, params.clone())).await;
            versions.push((*kind, receipt.with_context(|| format!("kind {kind}"))?.value));
        }
        if let Some(global) = self.global {
            submitter.send(messages::set_global(global)).await.context("global")?;
        }
        Ok(versions)
    }
}

fn describe(global: &GlobalParams, unit: &Unit) -> String {
    format!(
        "unbonding_ms = {}, archive_ms = {}, audit_bond = {}",
        global.unbonding_ms,
        global.archive_ms,
        unit.show(global.audit_bond)
    )
}

async fn set(args: ParamsSetArgs) -> anyhow::Result<()> {
    let file = ParamsFile::read(&args.file)?;
    let desk = args.send.contract().await?;
    let unit = &desk.session.unit;
    let plan = Plan::new(&desk.session, &file).await?;
    if !plan.is_empty() {
        let mut order = desk.order(format!("set the parameters of {}", args.file.display()));
        plan.add_to(&mut order, unit).await?;
        if !order.agreed().await? {
            return Ok(());
        }
    }
    let versions = plan.send(&desk.submitter).await?;
    desk.printer.print(
        || {
            let kinds: Vec<_> = plan
                .kinds
                .iter()
                .map(|(kind, _, changes)| {
                    let version = versions.iter().find(|(k, _)| k == kind).map(|(_, version)| version);
                    json!({ "kind": kind, "version": version, "changes": changes })
                })
                .collect();
            json!({ "global": plan.global.is_some(), "kinds": kinds })
        },
        || {
            let mut lines = Vec::new();
            for ((kind, _, changes), (_, version)) in plan.kinds.iter().zip(&versions) {
                lines.push(format!("kind {kind} now at version {version}:\n  {}", changes.join("\n  ")));
            }
            if let Some(global) = plan.global {
                lines.push(format!("global parameters are {}", describe(&global, unit)));
            }
            if lines.is_empty() {
                lines.push("nothing differs from what is on chain".into());
            }
            lines.join("\n")
        },
    )
}
