//! `poq audit`: auditors, their bonds, and the references that they open.

use crate::cli::amount::Amount;
use crate::cli::args::{duration, ReadArgs, SendArgs, Who};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::{Refused, TimedOut, Usage};
use crate::cli::output::{pairs, time};
use crate::cli::task::{phase_name, task_of, Fetcher};
use anyhow::Context;
use clap::{Args, Subcommand};
use poq_chain::json::ToJson;
use poq_chain::signer::parse_account;
use poq_chain::types::{token_f1, Opening, TaskId, TaskView, MAX_AUDITED, MAX_REFERENCE};
use poq_chain::{commit, messages};
use poq_inference::quality::reference::check_reference;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `poq audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Shows an auditor: appointed or not, its bond, how many tasks it has settled.
    Show(AuditorArgs),
    /// Appoints an auditor; it then has to bond. The contract's owner does.
    Appoint(AppointArgs),
    /// Dismisses an auditor, and takes part of its bond to the treasury where it abused its role. The contract's owner does.
    Dismiss(DismissArgs),
    /// Adds to the key's bond as an auditor; without an amount, what is missing.
    Bond(BondArgs),
    /// Resigns as an auditor; given again once the unbonding period is over, pays the bond back.
    Unbond(SendArgs),
    /// Opens a gold task's reference: fetches the outputs and settles the task by it.
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
    /// What to take from its bond: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    slash: Amount,
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
    /// Waits until the task's scores are revealed.
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
                ("tasks audited", auditor.audits.to_string()),
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
    let Some(receipt) = desk.send(order, messages::set_auditor(&account, true, 0)).await? else {
        return Ok(());
    };
    let text = format!("{address} is an auditor once it has bonded (`poq audit bond`)");
    desk.done(&receipt, json!({ "auditor": address, "appointed": true }), text)
}

async fn dismiss(args: DismissArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let account = desk.who(&args.account)?;
    let slash = session.raw(&args.slash)?;
    let address = session.address(&account);
    let bond = session.client.view().await?.auditor(&account).await?.map_or(0, |auditor| auditor.bond);
    let mut order = desk.order(format!("dismiss the auditor {address}"));
    order.effect(
        "of its bond",
        format!("{} of {} to the treasury", session.unit.show(slash), session.unit.show(bond)),
    );
    let Some(receipt) = desk.send(order, messages::set_auditor(&account, false, slash)).await? else {
        return Ok(());
    };
    let text = format!(
        "{address} is no auditor any more; {} of its bond went to the treasury",
        session.unit.show(slash)
    );
    let value = json!({ "auditor": address, "appointed": false, "slashed": slash.to_string() });
    desk.done(&receipt, value, text)
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
    let contract = session.client.contract()?;
    let foreign = |what: &str, of: &str, here: String| {
        Usage(format!("{} is of the {what} {of}, this one is {here}", args.ticket.display()))
    };
    if parse_account(&ticket.contract).ok() != Some(contract) {
        return Err(foreign("contract", &ticket.contract, session.address(&contract)).into());
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
    if commit::reference(&contract, &keys.account(), &reference, &salt) != view.task.reference_commitment {
        let text =
            format!("{} does not open task {}: another chain's ticket?", args.ticket.display(), ticket.task);
        return Err(Refused(text).into());
    }
    let outputs: Vec<_> = Fetcher::new(session, &requester)?
        .all(&view)
        .await?
        .into_iter()
        .map(|output| match output {
            Ok(output) if output.bytes.len() > MAX_AUDITED => {
                Err(format!("it has {} bytes, {MAX_AUDITED} can be compared", output.bytes.len()))
            }
            Ok(output) => Ok((output.bytes.to_vec(), output.salt)),
            Err(error) => Err(error),
        })
        .collect();
    let mut lines = Vec::new();
    let mut truth = Vec::new();
    for (slot, output) in view.task.outputs.iter().zip(&outputs) {
        let (line, measured) = match output {
            Ok((bytes, _)) => {
                let f1 = token_f1(ticket.reference.as_bytes(), bytes);
                (format!("token F1 {f1}"), Some(f1))
            }
            Err(why) => (format!("left out: {why}"), None),
        };
        lines.push(format!("node {}: {line}", slot.node));
        truth.push(json!({ "node": slot.node, "f1": measured }));
    }
    if outputs.iter().all(Result::is_err) {
        let text = format!(
            "no output of task {} can be held against the reference\n{}",
            ticket.task,
            lines.join("\n")
        );
        return Err(Refused(text).into());
    }
    let opening = Opening {
        reference: ticket.reference.into_bytes(),
        salt,
        outputs: outputs.into_iter().map(Result::ok).collect(),
    };
    let mut order = desk.order(format!("settle task {} by its reference", ticket.task));
    order.effect("answers", lines.join("\n"));
    let Some(receipt) = desk.send(order, messages::settle_audited(ticket.task, opening)).await? else {
        return Ok(());
    };
    let text = format!("task {} is settled by its reference\n{}", ticket.task, lines.join("\n"));
    desk.done(&receipt, json!({ "task": ticket.task, "truth": truth }), text)
}

/// The task once its scores are revealed.
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
            let block = *blocks.borrow();
            let phase = view.task.clock().at(block.timestamp_ms).0;
            if phase.is_final() {
                let text =
                    format!("task {task} is {} already: it is too late to audit it", phase_name(phase));
                return Err(Refused(text).into());
            }
            if view.task.clock().can_audit(block.timestamp_ms, block.number) {
                return Ok(view);
            }
            if !wait {
                let text = format!(
                    "task {task} is {}: its reference can be opened once the scores are revealed; --wait waits for that",
                    phase_name(phase)
                );
                return Err(Refused(text).into());
            }
            if progress && last != Some(phase) {
                eprintln!("{}  task {task}: {}", time(block.timestamp_ms), phase_name(phase));
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
