//! `poq claim`: pays out what nodes have earned.

use crate::cli::args::ClaimArgs;
use crate::cli::output::{pairs, table};
use poq_chain::{messages, to_account32};
use serde_json::json;

/// Runs `poq claim`.
pub(crate) async fn run(args: ClaimArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let account = submitter.account();
    let nodes = if args.nodes.is_empty() {
        // Of nodes that others own too: whoever is paid for them may claim.
        let all = session.client.view().await?.all_nodes().await?;
        all.into_iter()
            .filter(|view| view.node.claimable > 0)
            .filter(|view| {
                [&view.node.owner, &view.node.payee].into_iter().any(|a| to_account32(a) == account)
            })
            .map(|view| view.id)
            .collect()
    } else {
        args.nodes
    };

    let (mut claims, mut total, mut fees) = (Vec::new(), 0u128, 0u128);
    for node in nodes {
        let receipt = submitter.send(messages::claim(node)).await?;
        total = total.saturating_add(receipt.value);
        fees = fees.saturating_add(receipt.fee.unwrap_or(0));
        claims.push((node, receipt.value, receipt.block.number));
    }
    args.output.printer().print(
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
