//! `poq owner`: the contract's ownership, and the pause of new tasks.

use crate::cli::args::{OwnerCommand, ProposeArgs, ReadArgs, SignArgs};
use crate::cli::output::pairs;
use crate::cli::send::sent;
use poq_chain::{messages, to_account32, Message};
use serde_json::json;

/// Runs `poq owner`.
pub(crate) async fn run(command: OwnerCommand) -> anyhow::Result<()> {
    match command {
        OwnerCommand::Show(args) => show(args).await,
        OwnerCommand::Propose(args) => propose(args).await,
        OwnerCommand::Accept(args) => {
            change(args, messages::accept_ownership(), "the contract has a new owner").await
        }
        OwnerCommand::Pause(args) => change(args, messages::set_paused(true), "new tasks are refused").await,
        OwnerCommand::Unpause(args) => change(args, messages::set_paused(false), "new tasks are taken").await,
    }
}

async fn show(args: ReadArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let overview = session.client.view().await?.overview().await?;
    let owner = session.address(&to_account32(&overview.owner));
    let proposed = overview.proposed.map(|account| session.address(&to_account32(&account)));
    let paused = overview.paused;
    args.output.printer().print(
        || json!({ "owner": owner, "proposed_owner": proposed, "paused": paused }),
        || {
            pairs(&[
                ("owner", owner.clone()),
                ("proposed", proposed.clone().unwrap_or_else(|| "nobody".into())),
                ("new tasks", if paused { "refused: paused" } else { "taken" }.into()),
            ])
        },
    )
}

async fn propose(args: ProposeArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let receipt = session.submitter(&args.signer)?.send(messages::propose_owner(&args.account)).await?;
    let address = session.address(&args.account);
    let text = format!("{address} becomes the owner once it accepts (`poq owner accept`)");
    sent(&session, args.output, &receipt, json!({ "proposed_owner": address }), text)
}

async fn change(args: SignArgs, message: Message<()>, done: &str) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let receipt = session.submitter(&args.signer)?.send(message).await?;
    sent(&session, args.output, &receipt, json!({}), done.into())
}
