//! `poq claim`: pays out what nodes have earned.

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
    /// The nodes' numbers; where none is given, every node that the key's account owns or is paid for.
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
    if args.nodes.is_empty() {
        // Of nodes that others own too: whoever is paid for them may claim.
        nodes = view.all_nodes().await?;
        nodes.retain(|view| {
            view.node.claimable > 0
                && [&view.node.owner, &view.node.payee].into_iter().any(|a| to_account32(a) == account)
        });
    } else {
        for id in args.nodes {
            let missing = || Refused(format!("there is no node of that number ({id})"));
            nodes.push(view.node(id).await?.ok_or_else(missing)?);
        }
    }
    if !nodes.is_empty() {
        let mut order = desk.order(format!("pay out the rewards of {}", names(&nodes)));
        for view in &nodes {
            let earned = order.add(&messages::claim(view.id)).await?.unwrap_or(view.node.claimable);
            let payee = session.address(&to_account32(&view.node.payee));
            order.effect(format!("node {}", view.id), format!("{} to {payee}", session.unit.show(earned)));
        }
        if !order.agreed().await? {
            return Ok(());
        }
    }

    let (mut claims, mut total, mut fees) = (Vec::new(), 0u128, 0u128);
    for view in nodes {
        let receipt = desk.submitter.send(messages::claim(view.id)).await?;
        total = total.saturating_add(receipt.value);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
        claims.push((view.id, receipt.value, receipt.block.number));
    }
    desk.printer.print(
        || {
            let claims: Vec<_> = claims
                .iter()
                .map(|(node, amount, block)| json!({ "node": node, "amount": amount.to_string(), "block": block }))
                .collect();
            json!({ "claims": claims, "total": total.to_string(), "fees": fees.to_string() })
        },
        || {
            if claims.is_empty() {
                return format!("{} has nothing to claim", session.address(&account));
            }
            let mut rows = table(["node", "claimed", "block"], &[0, 1, 2]);
            for (node, amount, block) in &claims {
                rows.add_row([node.to_string(), session.unit.number(*amount), block.to_string()]);
            }
            let sums = [("claimed", session.unit.show(total)), ("transaction fees", session.unit.show(fees))];
            format!("{rows}\n{}", pairs(&sums))
        },
    )
}

fn names(nodes: &[NodeView]) -> String {
    let list = nodes.iter().map(|view| view.id.to_string()).collect::<Vec<_>>().join(", ");
    format!("node{} {list}", if nodes.len() == 1 { "" } else { "s" })
}
