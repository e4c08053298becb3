//! `poq params`: the contract's parameters.

use crate::cli::amount::Unit;
use crate::cli::args::{ReadArgs, SendArgs};
use crate::cli::change::{acts, later, name, Row};
use crate::cli::connect::Session;
use crate::cli::exit::Refused;
use crate::cli::order::Order;
use crate::cli::output::write_out;
use crate::cli::params_file::{check_global, GlobalFile, KindFile, ParamsFile};
use anyhow::Context;
use clap::{Args, Subcommand};
use poq_chain::types::{Change, GlobalParams, KindId, KindParams, Lever, Millis};
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
    /// Writes parameters as a file that `poq params set` and `poq deploy` read, with what is announced as comments.
    Show(ParamsShowArgs),
    /// Announces global parameters and task kinds from a file; running tasks keep theirs. What is configured before the first node
    /// registers, and a new kind, acts at once. Only the contract's owner may.
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
            writeln!(notes, "# epochs of {} ms, for good", overview.epoch_ms)?;
            overview.kinds
        }
    };
    for kind in &kinds {
        let missing = || Refused(format!("there is no task kind {kind}; `poq params show` lists them"));
        let newest = view.kind(*kind).await?.ok_or_else(missing)?.kind;
        let (version, params) = match args.version {
            Some(version) => {
                let missing =
                    || Refused(format!("task kind {kind} has no version {version} of its parameters"));
                (version, view.params(*kind, version).await?.ok_or_else(missing)?)
            }
            None => (newest.version, newest.params),
        };
        let panel = params.panel_min;
        let fee = params.fee_min(1, panel).map_or_else(|| "none".into(), |fee| session.unit.show(fee));
        writeln!(
            notes,
            "# kind {kind}, version {version}; smallest fee for one answer and {panel} evaluators: {fee}"
        )?;
        file.kinds.insert(*kind, KindFile::of(&params, &session.unit));
    }
    for row in Row::all(&session, &view).await? {
        let concerned = match row.pending.change.lever() {
            Lever::Kind(kind) => args.kind.is_none_or(|shown| shown == kind),
            Lever::Global => args.kind.is_none(),
            Lever::Appoint(_) | Lever::SlashAuditor(_) | Lever::Code => false,
        };
        if concerned {
            writeln!(notes, "# announced: {}, acts {}", row.name, row.when())?;
            for line in row.what.lines() {
                writeln!(notes, "#   {line}")?;
            }
        }
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

/// One change of a file.
struct Planned {
    change: Change,
    /// Every value that differs, as a line.
    changes: Vec<String>,
}

/// What a file changes on chain.
pub(crate) struct Plan(Vec<Planned>);

/// A change of a file that has been sent.
pub(crate) struct Sent {
    name: String,
    changes: Vec<String>,
    /// From when it can be enacted; `None` where it has acted.
    later: Option<Millis>,
    /// The kind's version, where it has acted.
    version: Option<(KindId, u32)>,
}

impl Plan {
    /// Compares the file with the chain. Nothing is sent.
    pub(crate) async fn new(session: &Session, file: &ParamsFile) -> anyhow::Result<Plan> {
        let view = session.client.view().await?;
        let overview = view.overview().await?;
        let unit = &session.unit;
        let mut planned = Vec::new();
        let mut life_ms = 0;
        for kind in &overview.kinds {
            life_ms = view.kind(*kind).await?.map_or(0, |view| view.kind.params.life_ms()).max(life_ms);
        }
        for kind in file.kinds.keys() {
            let present = view.kind(*kind).await?.map(|view| view.kind.params);
            let base = present.clone().unwrap_or_default();
            let new = file.kind(*kind, &base, overview.epoch_ms, unit)?;
            life_ms = life_ms.max(new.life_ms());
            if present.as_ref() == Some(&new) {
                continue;
            }
            // What holds now decides: other global parameters act later, if ever.
            check_global(&overview.global, overview.epoch_ms, life_ms)
                .with_context(|| format!("kind {kind}"))?;
            let changes = match present {
                Some(present) => KindFile::of(&present, unit).changes(&KindFile::of(&new, unit)),
                None => vec!["a new kind".into()],
            };
            planned.push(Planned { change: Change::Kind(*kind, new), changes });
        }
        let global = file.global(&overview.global, unit)?;
        if global != overview.global {
            check_global(&global, overview.epoch_ms, life_ms)?;
            let changes = GlobalFile::of(&overview.global, unit).changes(&GlobalFile::of(&global, unit));
            planned.push(Planned { change: Change::Global(global), changes });
        }
        Ok(Plan(planned))
    }

    /// What it does and costs, and from when it acts.
    pub(crate) async fn add_to(&self, order: &mut Order<'_>, session: &Session) -> anyhow::Result<()> {
        for Planned { change, changes } in &self.0 {
            let name = name(session, &change.lever());
            let acts_at =
                order.add(&messages::propose(change.clone())).await.with_context(|| name.clone())?;
            // By the chain's clock, which the answer is by: this machine's may be ahead of it.
            let now = session.client.best().await?.timestamp_ms;
            let acts =
                acts_at.map_or_else(String::new, |at| format!("\nacts {}", acts(&name, later(at, now))));
            order.effect(name, format!("{}{acts}", changes.join("\n")));
        }
        Ok(())
    }

    /// Sends it: the kinds first, so that a file that the contract refuses leaves the global parameters alone.
    pub(crate) async fn send(self, session: &Session, submitter: &Submitter) -> anyhow::Result<Vec<Sent>> {
        let mut sent = Vec::new();
        for Planned { change, changes } in self.0 {
            let lever = change.lever();
            let name = name(session, &lever);
            let receipt = submitter.send(messages::propose(change)).await.with_context(|| name.clone())?;
            let later = later(receipt.value, receipt.block.timestamp_ms);
            let version = match (lever, later) {
                (Lever::Kind(kind), None) => {
                    let found = session.client.view_at(receipt.block).await?.kind(kind).await?;
                    found.map(|view| (kind, view.kind.version))
                }
                _ => None,
            };
            sent.push(Sent { name, changes, later, version });
        }
        Ok(sent)
    }
}

impl Sent {
    fn text(&self) -> String {
        let what = match (self.version, self.later) {
            (Some((kind, version)), _) => format!("kind {kind} now at version {version}"),
            (None, None) => format!("{} set", self.name),
            (None, later) => format!("{} announced, acts {}", self.name, acts(&self.name, later)),
        };
        format!("{what}:\n  {}", self.changes.join("\n  "))
    }
}

async fn set(args: ParamsSetArgs) -> anyhow::Result<()> {
    let file = ParamsFile::read(&args.file)?;
    let desk = args.send.contract().await?;
    let plan = Plan::new(&desk.session, &file).await?;
    if !plan.0.is_empty() {
        let mut order = desk.order(format!("set the parameters of {}", args.file.display()));
        plan.add_to(&mut order, &desk.session).await?;
        if !order.agreed().await? {
            return Ok(());
        }
    }
    let sent = plan.send(&desk.session, &desk.submitter).await?;
    desk.printer.print(
        || {
            let changes: Vec<_> = sent
                .iter()
                .map(|sent| {
                    json!({
                        "name": sent.name,
                        "changes": sent.changes,
                        "acts_at": sent.later,
                        "version": sent.version.map(|(_, version)| version),
                    })
                })
                .collect();
            json!({ "changes": changes })
        },
        || match sent.as_slice() {
            [] => "nothing differs from what is on chain".into(),
            sent => sent.iter().map(Sent::text).collect::<Vec<_>>().join("\n"),
        },
    )
}
