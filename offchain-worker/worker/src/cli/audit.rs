//! `poq audit`: auditors, their bonds, and the references that they open.

use crate::cli::amount::Amount;
use crate::cli::args::{duration, ReadArgs, SendArgs, Who};
use crate::cli::change::{acts, announce, name};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::{Refused, TimedOut, Usage};
use crate::cli::output::{pairs, time};
use crate::cli::task::{ending_text, phase_name, task_of, Fetcher};
use anyhow::Context;
use clap::{Args, Subcommand};
use poq_chain::json::ToJson;
use poq_chain::signer::parse_account;
use poq_chain::types::{
    token_f1, Change, Ending, Lever, Opening, OutputState, Phase, TaskId, TaskView, MAX_AUDITED,
    MAX_REFERENCE,
};
use poq_chain::{commit, messages, to_ink};
use poq_inference::quality::reference::check_reference;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `poq audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Shows an auditor: appointed or not, its bond, how many references it has opened.
    Show(AuditorArgs),
    /// Announces an auditor's appointment; once that acts it has to bond. The contract's owner does.
    Appoint(AppointArgs),
    /// Dismisses an auditor at once; its bond waits for the unbonding period. The contract's owner does.
    Dismiss(DismissArgs),
    /// Announces that part of a dismissed auditor's bond is to be burned, while the bond waits. The contract's owner does.
    Slash(SlashArgs),
    /// Adds to the key's bond as an auditor; without an amount, what is missing.
    Bond(BondArgs),
    /// Resigns as an auditor; given again once the unbonding period is over, pays the bond back.
    Unbond(SendArgs),
    /// Opens a gold task's reference once the task is settled: fetches the outputs, and moves the trust of whoever scored them.
    Open(OpenArgs),
}

/// `poq audit show`.
#[derive(Args, Debug)]
pub(crate) struct AuditorArgs {
    /// The auditor's account: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq audit appoint`.
#[derive(Args, Debug)]
pub(crate) struct AppointArgs {
    /// The account that is to be an auditor: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq audit dismiss`.
#[derive(Args, Debug)]
pub(crate) struct DismissArgs {
    /// The auditor's account: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq audit slash`.
#[derive(Args, Debug)]
pub(crate) struct SlashArgs {
    /// The dismissed auditor's account: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    /// What to burn of its bond: 1.5 in the chain's unit, or 1500u in the smallest one.
    amount: Amount,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq audit bond`.
#[derive(Args, Debug)]
pub(crate) struct BondArgs {
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    amount: Option<Amount>,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq audit open`.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// The ticket that `poq task request --reference` wrote.
    ticket: PathBuf,
    /// The key file of the account that requested the task, which nodes serve its outputs to; the auditor's own where it is
    /// not given.
    #[arg(long, value_name = "FILE")]
    requester_key_file: Option<PathBuf>,
    /// The file with the requester's keystore's password.
    #[arg(long, value_name = "FILE", requires = "requester_key_file")]
    requester_password_file: Option<PathBuf>,
    /// Waits until the task is settled.
    #[arg(long)]
    wait: bool,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq audit`.
pub(crate) async fn run(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Show(args) => show(args).await,
        AuditCommand::Appoint(args) => appoint(args).await,
        AuditCommand::Dismiss(args) => dismiss(args).await,
        AuditCommand::Slash(args) => slash(args).await,
        AuditCommand::Bond(args) => bond(args).await,
        AuditCommand::Unbond(args) => unbond(args).await,
        AuditCommand::Open(args) => open(args).await,
    }
}

/// What opens a gold task's reference. Whoever has it before the scores are revealed can score perfectly: it is a secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ticket {
    /// The contract's address.
    pub(crate) contract: String,
    /// The task.
    pub(crate) task: TaskId,
    /// The account that can open it.
    pub(crate) auditor: String,
    /// The reference answer.
    pub(crate) reference: String,
    /// The commitment's salt, in hexadecimal digits.
    pub(crate) salt: String,
}

impl Ticket {
    /// As it is written.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes it into a new file that only its owner can read.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let write = || -> anyhow::Result<()> {
            let mut file = options.open(path)?;
            file.write_all(self.text()?.as_bytes())?;
            Ok(file.sync_all()?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn read(path: &Path) -> anyhow::Result<Ticket> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = |what: &dyn std::fmt::Display| {
            Usage(format!("{} is no ticket of `poq task request --reference`: {what}", path.display()))
        };
        let ticket: Ticket = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
        ticket.salt().ok_or_else(|| wrong(&"its salt is not 64 hexadecimal digits"))?;
        Ok(ticket)
    }

    fn salt(&self) -> Option<[u8; 32]> {
        hex::decode(self.salt.trim_start_matches("0x")).ok()?.try_into().ok()
    }
}

/// A reference answer out of a file: text, without the white space around it.
pub(crate) fn read_reference(path: &Path) -> anyhow::Result<String> {
    let text = poq_inference::read_text(path).context("the reference answer")?;
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_REFERENCE {
        let found = text.len();
        let text = format!(
            "{}: a reference answer has 1 to {MAX_REFERENCE} bytes, this one has {found}",
            path.display()
        );
        return Err(Usage(text).into());
    }
    // Who commits to a reference that nothing can match costs honest nodes their trust.
    check_reference(text).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    Ok(text.into())
}

async fn show(args: AuditorArgs) -> anyhow::Result<()> {
    let account = args.account.account(None)?;
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let needed = view.global_params().await?.audit_bond;
    let address = session.address(&account);
    let auditor = view
        .auditor(&account)
        .await?
        .ok_or_else(|| Refused(format!("{address} is no auditor: `poq audit appoint` makes it one")))?;
    args.read.printer().print(
        || auditor.to_json(),
        || {
            let standing = match (auditor.appointed, auditor.bond >= needed) {
                (true, true) => "can open references".into(),
                (true, false) => format!(
                    "appointed, {} of bond missing (`poq audit bond`)",
                    session.unit.show(needed.saturating_sub(auditor.bond))
                ),
                (false, _) => format!("not appointed; the bond is free from {}", time(auditor.unbonds_at)),
            };
            pairs(&[
                ("auditor", address.clone()),
                ("standing", standing),
                ("bond", session.unit.show(auditor.bond)),
                (
                    "references opened",
                    format!("{}, in its last epoch {}", auditor.audits, auditor.audits_in_epoch),
                ),
            ])
        },
    )
}

async fn appoint(args: AppointArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let account = desk.who(&args.account)?;
    let address = session.address(&account);
    let needed = session.client.view().await?.global_params().await?.audit_bond;
    let mut order = desk.order(format!("appoint {address} as an auditor"));
    order.effect("it has to bond", session.unit.show(needed));
    let lever = Lever::Appoint(to_ink(&account));
    let message = messages::propose(Change::Appoint(to_ink(&account)));
    let Some(announced) = announce(&desk, order, message, &lever).await? else { return Ok(()) };
    let text = match announced.later {
        None => format!("{address} is an auditor once it has bonded (`poq audit bond`)"),
        Some(_) => format!("{address} becomes an auditor {}; then it has to bond", announced.acts),
    };
    let value = json!({
        "auditor": address,
        "appointed": announced.later.is_none(),
        "acts_at": announced.later,
    });
    desk.done(&announced.receipt, value, text)
}

async fn dismiss(args: DismissArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let account = desk.who(&args.account)?;
    let address = session.address(&account);
    let mut order = desk.order(format!("dismiss the auditor {address}"));
    if let Some(auditor) = session.client.view().await?.auditor(&account).await? {
        order.effect("its bond", format!("{}, after the unbonding period", session.unit.show(auditor.bond)));
    }
    let Some(receipt) = desk.send(order, messages::dismiss_auditor(&account)).await? else {
        return Ok(());
    };
    let text = format!("{address} is no auditor any more");
    desk.done(&receipt, json!({ "auditor": address, "appointed": false }), text)
}

async fn slash(args: SlashArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let account = desk.who(&args.account)?;
    let amount = session.raw(&args.amount)?;
    let address = session.address(&account);
    let bond = session.client.view().await?.auditor(&account).await?.map_or(0, |auditor| auditor.bond);
    let mut order = desk.order(format!("burn {} of the bond of {address}", session.unit.show(amount)));
    order.effect("its bond", session.unit.show(bond));
    let lever = Lever::SlashAuditor(to_ink(&account));
    let message = messages::propose(Change::SlashAuditor(to_ink(&account), amount));
    let Some(announced) = announce(&desk, order, message, &lever).await? else { return Ok(()) };
    let text = format!(
        "{} of the bond of {address} is burned {}",
        session.unit.show(amount),
        acts(&name(session, &lever), announced.later)
    );
    let value = json!({ "auditor": address, "amount": amount.to_string(), "acts_at": announced.later });
    desk.done(&announced.receipt, value, text)
}

async fn bond(args: BondArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let view = session.client.view().await?;
    let bonded = view.auditor(&desk.account()).await?.map_or(0, |auditor| auditor.bond);
    let needed = view.global_params().await?.audit_bond;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => needed.saturating_sub(bonded),
    };
    if amount == 0 {
        return Err(Refused("the bond is full already".into()).into());
    }
    let mut order = desk.order(format!("bond {} as an auditor", session.unit.show(amount)));
    order.effect(
        "the bond",
        format!(
            "{} now, {} then, {} needed",
            session.unit.show(bonded),
            session.unit.show(bonded.saturating_add(amount)),
            session.unit.show(needed)
        ),
    );
    let Some(receipt) = desk.send(order, messages::bond(amount)).await? else { return Ok(()) };
    let text = format!("{} bonded", session.unit.show(amount));
    desk.done(&receipt, json!({ "bonded": amount.to_string() }), text)
}

async fn unbond(args: SendArgs) -> anyhow::Result<()> {
    let desk = args.contract().await?;
    let session = &desk.session;
    let view = session.client.view().await?;
    let mut order = desk.order("resign as an auditor, or take the bond back once that is due");
    if let Some(auditor) = view.auditor(&desk.account()).await? {
        order.effect("the bond", session.unit.show(auditor.bond));
        order.effect(
            "paid back",
            if auditor.appointed {
                let period = Duration::from_millis(view.global_params().await?.unbonding_ms);
                format!("{} after the resignation", humantime::format_duration(period))
            } else {
                format!("from {} on", time(auditor.unbonds_at))
            },
        );
    }
    let Some(receipt) = desk.send(order, messages::withdraw_bond()).await? else { return Ok(()) };
    let text = match receipt.value {
        0 => "resigned; give this command again once the unbonding period is over".into(),
        paid => format!("{} of bond paid back", session.unit.show(paid)),
    };
    let value = json!({ "paid": receipt.value.to_string() });
    desk.done(&receipt, value, text)
}

async fn open(args: OpenArgs) -> anyhow::Result<()> {
    let ticket = Ticket::read(&args.ticket)?;
    let salt = ticket.salt().unwrap_or_default();
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let keys = desk.submitter.keys();
    let network = session.client.network().await?;
    let foreign = |what: &str, of: &str, here: String| {
        Usage(format!("{} is of the {what} {of}, this one is {here}", args.ticket.display()))
    };
    if parse_account(&ticket.contract).ok() != Some(network.contract) {
        return Err(foreign("contract", &ticket.contract, session.address(&network.contract)).into());
    }
    if parse_account(&ticket.auditor).ok() != Some(keys.account()) {
        return Err(foreign("auditor", &ticket.auditor, session.address(&keys.account())).into());
    }
    let requester = match &args.requester_key_file {
        Some(path) => load_keys(path, args.requester_password_file.as_deref())?,
        None => keys.clone(),
    };

    let progress = !args.send.output.json;
    let view = until_auditable(session, ticket.task, args.wait, args.timeout, progress).await?;
    let reference = commit::blake2(ticket.reference.as_bytes());
    if network.reference(&keys.account(), &reference, &salt) != view.task.reference_commitment {
        let text =
            format!("{} does not open task {}: another chain's ticket?", args.ticket.display(), ticket.task);
        return Err(Refused(text).into());
    }
    // All that were delivered and are not too long must be there: no auditor picks what it likes.
    let fetched = Fetcher::new(session, &requester).await?.all(&view).await?;
    let (mut lines, mut truth, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for (slot, output) in view.task.outputs.iter().zip(fetched) {
        let (line, measured, output) = match output {
            _ if slot.state != OutputState::Opened => ("not delivered".to_owned(), None, None),
            Ok(bytes) if bytes.len() > MAX_AUDITED => {
                let text = format!("left out: it has {} bytes, {MAX_AUDITED} can be compared", bytes.len());
                (text, None, None)
            }
            Ok(bytes) => {
                let f1 = token_f1(ticket.reference.as_bytes(), &bytes);
                (format!("token F1 {f1}"), Some(f1), Some(bytes.to_vec()))
            }
            Err(why) => {
                let text = format!(
                    "the answer of node {} cannot be had, and a reference is opened beside all answers or none: {why}",
                    slot.node
                );
                return Err(Refused(text).into());
            }
        };
        lines.push(format!("node {}: {line}", slot.node));
        truth.push(json!({ "node": slot.node, "f1": measured }));
        outputs.push(output);
    }
    if outputs.iter().all(Option::is_none) {
        let text = format!(
            "no output of task {} can be held against the reference\n{}",
            ticket.task,
            lines.join("\n")
        );
        return Err(Refused(text).into());
    }
    let opening = Opening { reference: ticket.reference.into_bytes(), salt, outputs };
    let mut order = desk.order(format!("open the reference of task {}", ticket.task));
    order.effect("answers", lines.join("\n"));
    let Some(receipt) = desk.send(order, messages::open_reference(ticket.task, opening)).await? else {
        return Ok(());
    };
    let text = format!(
        "the reference of task {} is opened; it has moved the panel's trust\n{}",
        ticket.task,
        lines.join("\n")
    );
    desk.done(&receipt, json!({ "task": ticket.task, "truth": truth }), text)
}

/// The task once its reference can be opened.
async fn until_auditable(
    session: &Session,
    task: TaskId,
    wait: bool,
    timeout: Duration,
    progress: bool,
) -> anyhow::Result<TaskView> {
    let following = async {
        let mut blocks = session.client.best_watch();
        let mut last = None;
        loop {
            let view = task_of(session, task).await?;
            let now = session.client.upcoming().timestamp_ms;
            let phase = view.task.clock().at(now).0;
            if view.task.can_audit(now) {
                return Ok(view);
            }
            if phase.is_final() {
                let why = if view.task.audited {
                    "its reference is opened already".to_owned()
                } else if phase == Phase::Refunded || view.task.ending != Ending::Consensus {
                    format!("it ended without a consensus: {}", ending_text(view.task.ending))
                } else {
                    let until = view.task.deadline.saturating_add(view.task.terms.audit_ms);
                    format!("its reference could be opened until {}", time(until))
                };
                return Err(Refused(format!("task {task} cannot be audited: {why}")).into());
            }
            if !wait {
                let text = format!(
                    "task {task} is {}: its reference can be opened once it is settled; --wait waits for that",
                    phase_name(phase)
                );
                return Err(Refused(text).into());
            }
            if progress && last != Some(phase) {
                eprintln!("{}  task {task}: {}", time(now), phase_name(phase));
            }
            last = Some(phase);
            let _ = tokio::time::timeout(Duration::from_secs(1), blocks.changed()).await;
        }
    };
    match tokio::time::timeout(timeout, following).await {
        Ok(result) => result,
        Err(_) => {
            let text =
                format!("task {task} could not be audited within {}", humantime::format_duration(timeout));
            Err(TimedOut(text).into())
        }
    }
}
