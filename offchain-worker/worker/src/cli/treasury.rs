//! `poq treasury`: what the protocol has earned beyond what it owes, and what nobody gets.

use crate::cli::amount::Amount;
use crate::cli::args::{ReadArgs, SendArgs, Who};
use crate::cli::output::pairs;
use clap::{Args, Subcommand};
use poq_chain::json::ToJson;
use poq_chain::messages;
use serde_json::json;

/// `poq treasury …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TreasuryCommand {
    /// Shows what the contract holds and owes.
    Show(ReadArgs),
    /// Withdraws from the treasury. Only the contract's owner may.
    Withdraw(WithdrawArgs),
    /// Sends what is burned (slashes, half of the protocol fees, what was not earned) to the account that nobody has. Anybody may.
    Burn(SendArgs),
}

/// `poq treasury withdraw`.
#[derive(Args, Debug)]
pub(crate) struct WithdrawArgs {
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(required_unless_present = "all")]
    amount: Option<Amount>,
    /// Withdraws all of the treasury.
    #[arg(long, conflicts_with = "amount")]
    all: bool,
    /// The account that gets it (an address or a key file); the key's where it is not given.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    to: Option<Who>,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq treasury`.
pub(crate) async fn run(command: TreasuryCommand) -> anyhow::Result<()> {
    match command {
        TreasuryCommand::Show(args) => show(args).await,
        TreasuryCommand::Withdraw(args) => withdraw(args).await,
        TreasuryCommand::Burn(args) => burn(args).await,
    }
}

async fn show(args: ReadArgs) -> anyhow::Result<()> {
    let session = args.contract().await?;
    let solvency = session.client.view().await?.solvency().await?;
    let unit = &session.unit;
    args.printer().print(
        || solvency.to_json(),
        || {
            let owed = &solvency.liabilities;
            pairs(&[
                ("balance", unit.show(solvency.balance)),
                ("stakes", unit.show(owed.stakes)),
                ("escrow", unit.show(owed.escrow)),
                ("refunds", unit.show(owed.refunds)),
                ("claimable", unit.show(owed.claimable)),
                ("bonds", unit.show(owed.bonds)),
                ("treasury", unit.show(owed.treasury)),
                (
                    "burned",
                    format!("{}, nobody's: `poq treasury burn` sends it away", unit.show(owed.burned)),
                ),
                ("owed in all", unit.show(owed.total())),
                ("surplus", unit.show(solvency.surplus)),
                ("solvent", if solvency.solvent { "yes" } else { "NO" }.into()),
            ])
        },
    )
}

async fn withdraw(args: WithdrawArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let treasury = session.client.view().await?.liabilities().await?.treasury;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => treasury,
    };
    let to = args.to.as_ref().map_or_else(|| Ok(desk.account()), |who| desk.who(who))?;
    let address = session.address(&to);
    let mut order =
        desk.order(format!("withdraw {} from the treasury to {address}", session.unit.show(amount)));
    order.effect("in the treasury", session.unit.show(treasury));
    let Some(receipt) = desk.send(order, messages::withdraw_treasury(&to, amount)).await? else {
        return Ok(());
    };
    let text = format!("{} went from the treasury to {address}", session.unit.show(amount));
    desk.done(&receipt, json!({ "to": address, "amount": amount.to_string() }), text)
}

async fn burn(args: SendArgs) -> anyhow::Result<()> {
    let desk = args.contract().await?;
    let unit = &desk.session.unit;
    let burned = desk.session.client.view().await?.liabilities().await?.burned;
    let mut order = desk.order("send what is burned to the account that nobody has");
    order.effect("burned", unit.show(burned));
    let Some(receipt) = desk.send(order, messages::burn()).await? else { return Ok(()) };
    let text = format!("{} is out of everybody's reach", unit.show(receipt.value));
    desk.done(&receipt, json!({ "burned": receipt.value.to_string() }), text)
}
