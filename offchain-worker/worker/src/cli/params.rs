//! `poq params`: the contract's parameters.

use crate::cli::amount::{Amount, Unit};
use crate::cli::args::{ParamsCommand, ParamsSetArgs, ParamsShowArgs};
use crate::cli::connect::Session;
use crate::cli::exit::Refused;
use crate::cli::output::write_out;
use crate::cli::params_file::{show as kind_for_people, GlobalFile, ParamsFile, ParamsFileError};
use anyhow::Context;
use poq_chain::types::{GlobalParams, KindId, KindParams};
use poq_chain::{messages, Submitter};
use poq_inference::quality::Rubric;
use poq_inference::TaskKind;
use serde_json::json;
use std::fmt::Write as _;

/// The kind that `poq deploy` and `poq params show --defaults` set where nothing else is said.
pub(crate) const DEFAULT_KIND: KindId = 1;

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
        global: Some(global_for_people(GlobalParams::default(), unit)),
        kinds: [(kind, kind_for_people(&params, unit))].into(),
    })
}

fn global_for_people(params: GlobalParams, unit: &Unit) -> GlobalFile {
    GlobalFile {
        unbonding_ms: params.unbonding_ms,
        archive_ms: params.archive_ms,
        audit_bond: Some(unit.number(params.audit_bond)),
    }
}

/// The contract's form of the file's.
pub(crate) fn global_for_chain(file: &GlobalFile, unit: &Unit) -> Result<GlobalParams, ParamsFileError> {
    let refused = |source| ParamsFileError::NotAnAmount { name: "global.audit_bond".into(), source };
    let audit_bond = match &file.audit_bond {
        Some(amount) => amount.parse::<Amount>().and_then(|a| a.resolve(unit.decimals)).map_err(refused)?,
        None => GlobalParams::default().audit_bond,
    };
    Ok(GlobalParams { unbonding_ms: file.unbonding_ms, archive_ms: file.archive_ms, audit_bond })
}

async fn show(args: ParamsShowArgs) -> anyhow::Result<()> {
    if args.defaults {
        let file = defaults(args.kind.unwrap_or(DEFAULT_KIND), !args.without_auditors, &Unit::default())?;
        return print(&file, args.output.json, "");
    }
    let session = args.connection.contract().await?;
    let view = session.client.view().await?;
    let mut file = ParamsFile { global: None, kinds: Default::default() };
    let mut notes = String::new();
    let kinds = match args.kind {
        Some(kind) => vec![kind],
        None => {
            let overview = view.overview().await?;
            file.global = Some(global_for_people(overview.global, &session.unit));
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
        file.kinds.insert(kind, kind_for_people(&params, &session.unit));
    }
    print(&file, args.output.json, &notes)
}

fn print(file: &ParamsFile, json: bool, notes: &str) -> anyhow::Result<()> {
    if json {
        return write_out(&serde_json::to_string_pretty(file)?);
    }
    let header =
        "# Ratios are numbers between 0 and 1, amounts are in the chain's unit, times are in milliseconds.\n";
    write_out(&format!("{header}{notes}\n{}", toml::to_string_pretty(file)?))
}

/// What a file changes on chain.
pub(crate) struct Plan {
    /// The new global parameters, where they differ from the present ones.
    global: Option<GlobalParams>,
    /// New parameters per kind, where they differ, with how many single values do.
    kinds: Vec<(KindId, KindParams, Vec<String>)>,
}

impl Plan {
    /// Compares the file with the chain. Nothing is sent.
    pub(crate) async fn new(session: &Session, file: &ParamsFile) -> anyhow::Result<Plan> {
        let view = session.client.view().await?;
        let global =
            file.global.as_ref().map(|global| global_for_chain(global, &session.unit)).transpose()?;
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
                    Some(present) => changes(&present, &new, &session.unit),
                    None => vec!["a new kind".into()],
                };
                kinds.push((*kind, new, changes));
            }
        }
        Ok(Plan { global, kinds })
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

/// Every value that differs, as a line.
fn changes(old: &KindParams, new: &KindParams, unit: &Unit) -> Vec<String> {
    let new = kind_for_people(new, unit);
    kind_for_people(old, unit)
        .into_iter()
        .filter_map(|(name, old)| {
            let new = new.get(&name)?;
            (*new != old).then(|| format!("{name}: {old} -> {new}"))
        })
        .collect()
}

async fn set(args: ParamsSetArgs) -> anyhow::Result<()> {
    let file = ParamsFile::read(&args.file)?;
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let plan = Plan::new(&session, &file).await?;
    let versions = if args.dry_run { Vec::new() } else { plan.send(&submitter).await? };
    args.output.printer().print(
        || {
            let kinds: Vec<_> = plan
                .kinds
                .iter()
                .map(|(kind, _, changes)| {
                    let version = versions.iter().find(|(k, _)| k == kind).map(|(_, version)| version);
                    json!({ "kind": kind, "version": version, "changes": changes })
                })
                .collect();
            json!({ "sent": !args.dry_run, "global": plan.global.is_some(), "kinds": kinds })
        },
        || {
            let mut lines = Vec::new();
            for (kind, _, changes) in &plan.kinds {
                let version = versions.iter().find(|(k, _)| k == kind);
                let version =
                    version.map_or_else(|| "would change".into(), |(_, v)| format!("now at version {v}"));
                lines.push(format!("kind {kind} {version}:\n  {}", changes.join("\n  ")));
            }
            if let Some(global) = plan.global {
                let verb = if args.dry_run { "would be" } else { "are" };
                lines.push(format!(
                    "global parameters {verb} unbonding_ms = {}, archive_ms = {}, audit_bond = {}",
                    global.unbonding_ms,
                    global.archive_ms,
                    session.unit.show(global.audit_bond)
                ));
            }
            if lines.is_empty() {
                lines.push("nothing differs from what is on chain".into());
            }
            lines.join("\n")
        },
    )
}
