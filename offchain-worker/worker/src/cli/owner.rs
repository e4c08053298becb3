//! `poq owner`: the contract's ownership, and the pause of new tasks.

use crate::cli::args::{ReadArgs, SendArgs, Who};
use crate::cli::output::pairs;
use clap::{Args, Subcommand};
use poq_chain::{messages, to_account32, Message};
use serde_json::json;

/// `poq owner …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Shows the contract's owner, who has been proposed as the next one, and whether new tasks are paused.
    Show(ReadArgs),
    /// Proposes the contract's next owner, who then has to accept.
    Propose(ProposeArgs),
    /// Accepts the contract's ownership, which the key's account has been proposed for.
    Accept(SendArgs),
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

/// Runs `poq owner`.
pub(crate) async fn run(command: OwnerCommand) -> anyhow::Result<()> {
    match command {
        OwnerCommand::Show(args) => show(args).await,
        OwnerCommand::Propose(args) => propose(args).await,
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
    let overview = session.client.view().await?.overview().await?;
    let owner = session.address(&to_account32(&overview.owner));
    let proposed = overview.proposed.map(|account| session.address(&to_account32(&account)));
    let paused = overview.paused;
    args.printer().print(
        || json!({ "contract_owner": owner, "proposed_contract_owner": proposed, "paused": paused }),
        || {
            pairs(&[
                ("contract owner", owner.clone()),
                ("proposed", proposed.clone().unwrap_or_else(|| "nobody".into())),
                ("new tasks", if paused { "refused: paused" } else { "taken" }.into()),
            ])
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

async fn change(args: SendArgs, message: Message<()>, what: &str, done: &str) -> anyhow::Result<()> {
    let desk = args.contract().await?;
    let Some(receipt) = desk.send(desk.order(what), message).await? else { return Ok(()) };
    desk.done(&receipt, json!({}), done)
}
