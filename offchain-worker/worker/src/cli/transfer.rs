//! `poq transfer`: money from one account to another, for keys that are new.

use crate::cli::amount::Amount;
use crate::cli::args::{SendArgs, Who};
use crate::cli::exit::{Coded, Exit};
use clap::Args;
use poq_chain::At;
use serde_json::json;

/// `poq transfer`.
#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// The account that gets it: an address, or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    to: Who,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    amount: Amount,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq transfer`.
pub(crate) async fn run(args: TransferArgs) -> anyhow::Result<()> {
    let desk = args.send.chain().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let to = desk.who(&args.to)?;
    let amount = session.raw(&args.amount)?;
    let address = session.address(&to);
    let has = session.client.funds(&to, At::Best).await?.free;
    let least = session.client.chain().existential_deposit;
    if has.saturating_add(amount) < least {
        let text = format!(
            "{address} would have {}, and an account on this chain exists from {} on: send at least {}",
            unit.show(has.saturating_add(amount)),
            unit.show(least),
            unit.show(least.saturating_sub(has)),
        );
        return Err(
            Coded { exit: Exit::Refused, code: "below_existential_deposit", text, details: None }.into()
        );
    }
    let mut order = desk.order(format!("send {} to {address}", unit.show(amount)));
    order.effect("it has", unit.show(has));
    order.add_cost(desk.submitter.quote_transfer(&to, amount).await).await?;
    if !order.agreed().await? {
        return Ok(());
    }
    let receipt = desk.submitter.transfer(&to, amount).await?;
    let text = format!("{address} has {} more", unit.show(amount));
    desk.done(&receipt, json!({ "to": address, "amount": amount.to_string() }), text)
}
