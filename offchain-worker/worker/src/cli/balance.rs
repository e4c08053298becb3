//! `poq balance`: an account's money. Needs no key.

use crate::cli::args::BalanceArgs;
use crate::cli::connect::Session;
use crate::cli::output::{pairs, table};
use poq_chain::types::{Balances, NodeView};
use poq_chain::{AccountId32, At};
use serde_json::{json, Value};

/// An account's money, everywhere.
pub(crate) struct Money {
    /// What the account can spend on the chain.
    pub(crate) free: u128,
    /// What it has in the contract.
    pub(crate) contract: Balances,
}

/// Runs `poq balance`.
pub(crate) async fn run(args: BalanceArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let view = session.client.view().await?;
    let block = view.block();
    let money = Money {
        free: session.client.account(&args.account, At::Hash(block.hash)).await?.free,
        contract: view.balances(&args.account).await?,
    };
    let mut nodes = Vec::new();
    for id in &money.contract.nodes {
        nodes.extend(view.node(*id).await?);
    }
    let address = session.address(&args.account);
    args.output.printer().print(
        || {
            let mut value = money.json();
            value["account"] = json!(address);
            value["block"] = json!(block.number);
            value["unit"] = json!({ "symbol": session.unit.symbol, "decimals": session.unit.decimals });
            value
        },
        || text(&session, &args.account, &money, &nodes),
    )
}

impl Money {
    /// Amounts as decimal strings in the smallest unit.
    pub(crate) fn json(&self) -> Value {
        let contract = &self.contract;
        json!({
            "free": self.free.to_string(),
            "staked": contract.staked_free.to_string(),
            "locked": contract.staked_locked.to_string(),
            "unbonding": contract.unbonding.to_string(),
            "pending": contract.pending.to_string(),
            "claimable": contract.claimable.to_string(),
            "withdrawn": contract.withdrawn.to_string(),
            "slashed": contract.slashed.to_string(),
            "nodes": contract.nodes,
            "tasks": contract.tasks,
        })
    }
}

fn text(session: &Session, account: &AccountId32, money: &Money, nodes: &[NodeView]) -> String {
    let unit = &session.unit;
    let contract = &money.contract;
    let mut text = pairs(&[
        ("account", session.address(account)),
        ("free", unit.show(money.free)),
        ("staked", format!("{}   free stake of its nodes", unit.show(contract.staked_free))),
        ("locked", format!("{}   stake at risk in open tasks", unit.show(contract.staked_locked))),
        ("unbonding", format!("{}   stake on its way out", unit.show(contract.unbonding))),
        (
            "pending",
            format!(
                "{}   fees in escrow, and the most that open tasks can earn",
                unit.show(contract.pending)
            ),
        ),
        ("claimable", format!("{}   rewards and refunds to be had now", unit.show(contract.claimable))),
        ("withdrawn", format!("{}   rewards and refunds so far", unit.show(contract.withdrawn))),
        ("slashed", unit.show(contract.slashed)),
    ]);
    if !nodes.is_empty() {
        let mut rows =
            table(["node", "role", "model", "free stake", "locked", "claimable", "withdrawn"], &[3, 4, 5, 6]);
        for view in nodes {
            let node = &view.node;
            rows.add_row([
                view.id.to_string(),
                crate::cli::node::role_name(node.role).into(),
                view.info.model.clone(),
                unit.number(node.free),
                unit.number(node.locked),
                unit.number(node.claimable),
                unit.number(node.withdrawn),
            ]);
        }
        text = format!("{text}\n\n{rows}");
    }
    if !contract.tasks.is_empty() {
        let tasks = contract.tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        text = format!("{text}\n\nopen or uncollected tasks: {tasks}");
    }
    text
}
