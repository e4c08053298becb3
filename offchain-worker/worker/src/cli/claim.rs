//! `poq claim`: pays out what nodes have earned, and the account's credit.

use crate::cli::args::SendArgs;
use crate::cli::exit::Refused;
use crate::cli::output::{pairs, table};
use clap::Args;
use poq_chain::types::{NodeId, NodeView};
use poq_chain::{messages, to_account32};
use serde_json::json;

/// `poq claim`.
#[derive(Args, Debug)]
pub(crate) struct ClaimArgs {
    /// The nodes' numbers; where none is given, every node that the key's account owns or is paid for, and the account's credit:
    /// keepers' fees, and refunds that could not be paid.
    nodes: Vec<NodeId>,
    #[command(flatten)]
    send: SendArgs,
}

/// Runs `poq claim`.
pub(crate) async fn run(args: ClaimArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, account) = (&desk.session, desk.account());
    let view = session.client.view().await?;
    let mut nodes: Vec<NodeView> = Vec::new();
    let mut credit = 0;
    if args.nodes.is_empty() {
        // Of nodes that others own too: whoever is paid for them may claim.
        nodes = view.all_nodes().await?;
        nodes.retain(|view| {
            view.node.claimable > 0
                && [&view.node.owner, &view.node.payee].into_iter().any(|a| to_account32(a) == account)
        });
        credit = view.balances(&account).await?.credit;
    } else {
        for id in args.nodes {
            let missing = || Refused(format!("there is no node of that number ({id})"));
            nodes.push(view.node(id).await?.ok_or_else(missing)?);
        }
    }
    if !nodes.is_empty() || credit > 0 {
        let mut order = desk.order(what(&nodes, credit > 0));
        for view in &nodes {
            let earned = order.add(&messages::claim(view.id)).await?.unwrap_or(view.node.claimable);
            let payee = session.address(&to_account32(&view.node.payee));
            order.effect(format!("node {}", view.id), format!("{} to {payee}", session.unit.show(earned)));
        }
        if credit > 0 {
            order.add(&messages::withdraw()).await?;
            order.effect("credit", format!("{} to {}", session.unit.show(credit), session.address(&account)));
        }
        if !order.agreed().await? {
            return Ok(());
        }
    }

    let (mut claims, mut total, mut fees, mut withdrawn) = (Vec::new(), 0u128, 0u128, 0);
    for view in nodes {
        let receipt = desk.submitter.send(messages::claim(view.id)).await?;
        total = total.saturating_add(receipt.value);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
        claims.push((view.id, receipt.value, receipt.block.number));
    }
    if credit > 0 {
        let receipt = desk.submitter.send(messages::withdraw()).await?;
        withdrawn = receipt.value;
        total = total.saturating_add(withdrawn);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
    }
    desk.printer.print(
        || {
            let claims: Vec<_> = claims
                .iter()
                .map(|(node, amount, block)| json!({ "node": node, "amount": amount.to_string(), "block": block }))
                .collect();
            json!({
                "claims": claims,
                "credit": withdrawn.to_string(),
                "total": total.to_string(),
                "fees": fees.to_string(),
            })
        },
        || {
            if total == 0 {
                return format!("{} has nothing to claim", session.address(&account));
            }
            let mut sums = Vec::new();
            if withdrawn > 0 {
                sums.push(("of it credit", session.unit.show(withdrawn)));
            }
            sums.insert(0, ("claimed", session.unit.show(total)));
            sums.push(("transaction fees", session.unit.show(fees)));
            if claims.is_empty() {
                return pairs(&sums);
            }
            let mut rows = table(["node", "claimed", "block"], &[0, 1, 2]);
            for (node, amount, block) in &claims {
                rows.add_row([node.to_string(), session.unit.number(*amount), block.to_string()]);
            }
            format!("{rows}\n{}", pairs(&sums))
        },
    )
}

fn what(nodes: &[NodeView], credit: bool) -> String {
    let list = nodes.iter().map(|view| view.id.to_string()).collect::<Vec<_>>().join(", ");
    let rewards = match nodes {
        [] => return "pay out the account's credit".into(),
        [_] => format!("pay out the rewards of node {list}"),
        _ => format!("pay out the rewards of nodes {list}"),
    };
    if credit {
        format!("{rewards}, and the account's credit")
    } else {
        rewards
    }
}
