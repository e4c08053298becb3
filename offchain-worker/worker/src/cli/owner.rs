//! `poq owner`: the contract's ownership, what its owner has announced, and the pause of new tasks.

use crate::cli::args::{ReadArgs, SendArgs, Who};
use crate::cli::change::{announce, name, LeverArg, Row};
use crate::cli::exit::Refused;
use crate::cli::output::{pairs, table};
use clap::{Args, Subcommand};
use poq_chain::types::Lever;
use poq_chain::{messages, to_account32, Message};
use serde_json::{json, Value};

/// `poq owner …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Shows the contract's owner, who has been proposed as the next one, whether new tasks are paused, and every change that is
    /// announced, with the time from which it can act.
    Show(ReadArgs),
    /// Proposes the contract's next owner, who then has to accept.
    Propose(ProposeArgs),
    /// Accepts the contract's ownership, which the key's account has been proposed for.
    Accept(SendArgs),
    /// Announces that the contract is to run the code of another contract that is on the chain.
    Code(CodeArgs),
    /// Makes announced changes act whose time has come. Anybody may.
    Enact(EnactArgs),
    /// Withdraws what was announced.
    Cancel(CancelArgs),
    /// Refuses new tasks. Claims, refunds and settlements go on.
    Pause(SendArgs),
    /// Takes new tasks again.
    Unpause(SendArgs),
}

/// `poq owner propose`.
#[derive(Args, Debug)]
pub(crate) struct ProposeArgs {
    /// The account that is to become the contract's owner: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq owner code`.
#[derive(Args, Debug)]
pub(crate) struct CodeArgs {
    /// The contract whose code is to be run: its address.
    #[arg(value_name = "ADDRESS")]
    instance: Who,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq owner enact`.
#[derive(Args, Debug)]
pub(crate) struct EnactArgs {
    /// What is to act, as `poq owner show` names it: kind:N, global, auditor:ACCOUNT, slash:ACCOUNT, code.
    #[arg(value_name = "CHANGE", required_unless_present = "all")]
    changes: Vec<LeverArg>,
    /// Enacts every change whose time has come.
    #[arg(long, conflicts_with = "changes")]
    all: bool,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq owner cancel`.
#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// What is to be withdrawn, as `poq owner show` names it: kind:N, global, auditor:ACCOUNT, slash:ACCOUNT, code.
    #[arg(value_name = "CHANGE")]
    change: LeverArg,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq owner`.
pub(crate) async fn run(command: OwnerCommand) -> anyhow::Result<()> {
    match command {
        OwnerCommand::Show(args) => show(args).await,
        OwnerCommand::Propose(args) => propose(args).await,
        OwnerCommand::Code(args) => code(args).await,
        OwnerCommand::Enact(args) => enact(args).await,
        OwnerCommand::Cancel(args) => cancel(args).await,
        OwnerCommand::Accept(args) => {
            change(
                args,
                messages::accept_ownership(),
                "become the contract's owner",
                "the contract has a new owner",
            )
            .await
        }
        OwnerCommand::Pause(args) => {
            change(args, messages::set_paused(true), "refuse new tasks", "new tasks are refused").await
        }
        OwnerCommand::Unpause(args) => {
            change(args, messages::set_paused(false), "take new tasks again", "new tasks are taken").await
        }
    }
}

async fn show(args: ReadArgs) -> anyhow::Result<()> {
    let session = args.contract().await?;
    let view = session.client.view().await?;
    let overview = view.overview().await?;
    let owner = session.address(&to_account32(&overview.owner));
    let proposed = overview.proposed.map(|account| session.address(&to_account32(&account)));
    let paused = overview.paused;
    let rows = Row::all(&session, &view).await?;
    args.printer().print(
        || {
            json!({
                "contract_owner": owner,
                "proposed_contract_owner": proposed,
                "paused": paused,
                "pending": rows.iter().map(Row::json).collect::<Vec<_>>(),
            })
        },
        || {
            let mut text = pairs(&[
                ("contract owner", owner.clone()),
                ("proposed", proposed.clone().unwrap_or_else(|| "nobody".into())),
                ("new tasks", if paused { "refused: paused" } else { "taken" }.into()),
                ("announced", if rows.is_empty() { "nothing" } else { "see below" }.into()),
            ]);
            if !rows.is_empty() {
                let mut announced = table(["announced", "changes", "acts"], &[]);
                for row in &rows {
                    announced.add_row([row.name.clone(), row.what.clone(), row.when()]);
                }
                text = format!("{text}\n\n{announced}");
            }
            text
        },
    )
}

async fn propose(args: ProposeArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let account = desk.who(&args.account)?;
    let address = desk.session.address(&account);
    let order = desk.order(format!("propose {address} as the contract's owner"));
    let Some(receipt) = desk.send(order, messages::propose_owner(&account)).await? else { return Ok(()) };
    let text = format!("{address} becomes the contract's owner once it accepts (`poq owner accept`)");
    desk.done(&receipt, json!({ "proposed_contract_owner": address }), text)
}

async fn code(args: CodeArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let instance = desk.who(&args.instance)?;
    let address = desk.session.address(&instance);
    let found = desk.session.client.code_hash_of(&instance).await?;
    let found = found.ok_or_else(|| Refused(format!("there is no contract at {address}")))?;
    let mut order = desk.order(format!("run the code of {address}"));
    order.effect("code", format!("{found:?}"));
    let announced = announce(&desk, order, messages::propose_code(&instance), &Lever::Code).await?;
    let Some(announced) = announced else { return Ok(()) };
    let value = json!({ "code": format!("{found:?}"), "acts_at": announced.later });
    desk.done(&announced.receipt, value, format!("the contract runs the code {found:?} {}", announced.acts))
}

async fn enact(args: EnactArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let view = session.client.view().await?;
    let rows = Row::all(session, &view).await?;
    let levers: Vec<Lever> = if args.all {
        rows.iter().filter(|row| row.is_due()).map(|row| row.pending.change.lever()).collect()
    } else {
        args.changes.iter().map(|change| change.0).collect()
    };
    let names: Vec<String> = levers.iter().map(|lever| name(session, lever)).collect();
    if !levers.is_empty() {
        let mut order = desk.order(format!("enact {}", names.join(", ")));
        for (lever, name) in levers.iter().zip(&names) {
            order.add(&messages::enact(*lever)).await?;
            if let Some(row) = rows.iter().find(|row| row.name == *name) {
                order.effect(name.as_str(), row.what.as_str());
            }
        }
        if !order.agreed().await? {
            return Ok(());
        }
    }
    for lever in levers {
        desk.submitter.send(messages::enact(lever)).await?;
    }
    desk.printer.print(
        || json!({ "enacted": names }),
        || match names.as_slice() {
            [] => "nothing that is announced can act yet".into(),
            names => format!("enacted: {}", names.join(", ")),
        },
    )
}

async fn cancel(args: CancelArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let lever = args.change.0;
    let name = name(&desk.session, &lever);
    let order = desk.order(format!("withdraw the announcement {name}"));
    let Some(receipt) = desk.send(order, messages::cancel(lever)).await? else { return Ok(()) };
    desk.done(&receipt, json!({ "cancelled": name }), format!("{name} is withdrawn"))
}

async fn change(args: SendArgs, message: Message<()>, what: &str, done: &str) -> anyhow::Result<()> {
    let desk = args.contract().await?;
    let Some(receipt) = desk.send(desk.order(what), message).await? else { return Ok(()) };
    desk.done(&receipt, Value::Object(Default::default()), done)
}
