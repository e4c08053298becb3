//! `poq treasury`: what the protocol has earned beyond what it owes.

use crate::cli::args::{ReadArgs, TreasuryCommand, WithdrawArgs};
use crate::cli::output::pairs;
use crate::cli::send::sent;
use poq_chain::json::ToJson;
use poq_chain::messages;
use serde_json::json;

/// Runs `poq treasury`.
pub(crate) async fn run(command: TreasuryCommand) -> anyhow::Result<()> {
    match command {
        TreasuryCommand::Show(args) => show(args).await,
        TreasuryCommand::Withdraw(args) => withdraw(args).await,
    }
}

async fn show(args: ReadArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let solvency = session.client.view().await?.solvency().await?;
    let unit = &session.unit;
    args.output.printer().print(
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
                ("owed in all", unit.show(owed.total())),
                ("surplus", unit.show(solvency.surplus)),
                ("solvent", if solvency.solvent { "yes" } else { "NO" }.into()),
            ])
        },
    )
}

async fn withdraw(args: WithdrawArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => session.client.view().await?.liabilities().await?.treasury,
    };
    let to = args.to.unwrap_or_else(|| submitter.account());
    let receipt = submitter.send(messages::withdraw_treasury(&to, amount)).await?;
    let address = session.address(&to);
    let text = format!("{} went from the treasury to {address}", session.unit.show(amount));
    sent(&session, args.output, &receipt, json!({ "to": address, "amount": amount.to_string() }), text)
}
