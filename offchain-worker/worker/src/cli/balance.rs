//! `poq balance`: an account's money. Needs no key.

use crate::cli::args::{ReadArgs, Who};
use crate::cli::connect::Session;
use crate::cli::indexed::IndexArg;
use crate::cli::output::{pairs, table, time};
use clap::Args;
use poq_chain::json::ToJson;
use poq_chain::pool::MemberView;
use poq_chain::types::{Balances, NodeView};
use poq_chain::{to_account32, AccountId32, Funds, View};
use poq_index::read::HistoryFilter;
use serde_json::{json, Value};
use std::path::PathBuf;

/// `poq balance`.
#[derive(Args, Debug)]
pub(crate) struct BalanceArgs {
    /// The account: its address (SS58 or 0x and 64 hexadecimal digits), or the path of its key file.
    #[arg(value_name = "ACCOUNT|FILE")]
    account: Who,
    /// The file with the keystore's password, where the account is named by an encrypted one.
    #[arg(long, env = "POQ_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Shows what moved, the newest first, instead of what there is: fees, refunds, rewards, stakes, slashes, pools. From the index.
    #[arg(long)]
    history: bool,
    /// Shows at most so many movements.
    #[arg(long, value_name = "COUNT", default_value_t = 50, requires = "history")]
    limit: u32,
    #[command(flatten)]
    index: IndexArg,
    #[command(flatten)]
    read: ReadArgs,
}

/// An account's money, everywhere, each unit of it once.
pub(crate) struct Money {
    /// On the chain.
    pub(crate) funds: Funds,
    /// In the contract, as it sums it up.
    pub(crate) contract: Balances,
    /// Of what is claimable, its nodes' rewards; the rest is credit and refunds.
    pub(crate) rewards: u128,
    /// Of what is pending, its own fees in escrow; the rest is what its nodes can still earn.
    pub(crate) escrow: u128,
    /// What it has in staking pools.
    pub(crate) pools: Vec<Pooled>,
}

/// What an account has in a pool.
pub(crate) struct Pooled {
    /// The pool.
    pub(crate) pool: AccountId32,
    /// What its shares and its exits are worth.
    pub(crate) member: MemberView,
    /// The bond, and commission that was not claimed, if it manages the pool.
    pub(crate) managed: Option<(u128, u128)>,
}

impl Pooled {
    /// What an account has in every pool of the contract in which it has anything.
    async fn read(view: &View, account: &AccountId32) -> anyhow::Result<Vec<Pooled>> {
        let mut all = Vec::new();
        for (pool, state) in view.pools().await? {
            let member = view.pool_member(&pool, account).await?;
            let managed =
                (to_account32(&state.manager) == *account).then_some((state.ledger.bond, state.ledger.fees));
            if member.shares > 0 || !member.exits.is_empty() || managed.is_some() {
                all.push(Pooled { pool, member, managed });
            }
        }
        Ok(all)
    }

    fn exits(&self) -> u128 {
        self.member.exits.iter().fold(0u128, |sum, exit| sum.saturating_add(exit.value))
    }

    fn total(&self) -> u128 {
        let (bond, fees) = self.managed.unwrap_or_default();
        [self.exits(), bond, fees].into_iter().fold(self.member.value, u128::saturating_add)
    }
}

impl Money {
    /// What an account has at a block, with its nodes.
    pub(crate) async fn read(
        session: &Session,
        view: &View,
        account: &AccountId32,
    ) -> anyhow::Result<(Money, Vec<NodeView>)> {
        let funds = session.client.funds(account, view.block()).await?;
        let contract = view.balances(account).await?;
        let mut nodes = Vec::new();
        for id in &contract.nodes {
            nodes.extend(view.node(*id).await?);
        }
        let rewards = nodes.iter().fold(0u128, |sum, view| sum.saturating_add(view.node.claimable));
        let mut escrow = 0u128;
        // Without nodes of its own everything that is pending is its fees; without tasks, nothing is.
        if nodes.is_empty() {
            escrow = contract.pending;
        } else {
            for id in &contract.tasks {
                let open = view.task(*id).await?.filter(|view| !view.task.phase.is_final());
                escrow = escrow.saturating_add(open.map_or(0, |view| view.task.fee));
            }
        }
        let pools = Pooled::read(view, account).await?;
        Ok((Money { funds, contract, rewards, escrow, pools }, nodes))
    }

    /// What its nodes can still earn in open tasks at the most.
    fn pending(&self) -> u128 {
        self.contract.pending.saturating_sub(self.escrow)
    }

    /// What it has in pools.
    fn pooled(&self) -> u128 {
        self.pools.iter().fold(0u128, |sum, pooled| sum.saturating_add(pooled.total()))
    }

    /// Refunds of its final tasks.
    fn refunds(&self) -> u128 {
        self.contract.claimable.saturating_sub(self.rewards).saturating_sub(self.contract.credit)
    }

    /// Amounts as decimal strings in the smallest unit.
    pub(crate) fn json(&self) -> Value {
        let contract = &self.contract;
        json!({
            "spendable": self.funds.spendable.to_string(),
            "held": self.funds.reserved.to_string(),
            "holds": self.funds.held.iter().map(|hold| json!({ "reason": hold.reason, "amount": hold.amount.to_string() })).collect::<Vec<_>>(),
            "frozen": self.funds.frozen.to_string(),
            "total": self.funds.free.saturating_add(self.funds.reserved).to_string(),
            "existential_deposit": self.funds.existential_deposit.to_string(),
            "stake": contract.staked.to_string(),
            "at_risk": contract.locked.to_string(),
            "unbonding": contract.unbonding.to_string(),
            "withdrawable": contract.withdrawable.to_string(),
            "escrow": self.escrow.to_string(),
            "pending": self.pending().to_string(),
            "rewards": self.rewards.to_string(),
            "refunds": self.refunds().to_string(),
            "credit": contract.credit.to_string(),
            "claimable": contract.claimable.to_string(),
            "withdrawn": contract.withdrawn.to_string(),
            "slashed": contract.slashed.to_string(),
            "pooled": self.pooled().to_string(),
            "pools": self.pools.iter().map(|pooled| json!({
                "pool": pooled.pool.to_json(),
                "shares": pooled.member.shares.to_string(),
                "value": pooled.member.value.to_string(),
                "exits": pooled.member.exits.to_json(),
                "bond": pooled.managed.map(|(bond, _)| bond.to_string()),
                "commission": pooled.managed.map(|(_, fees)| fees.to_string()),
            })).collect::<Vec<_>>(),
            "nodes": contract.nodes,
            "tasks": contract.tasks,
        })
    }
}

/// Runs `poq balance`.
pub(crate) async fn run(args: BalanceArgs) -> anyhow::Result<()> {
    let account = args.account.account(args.password_file.as_deref())?;
    if args.history {
        return history(&args, &account).await;
    }
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let (money, nodes) = Money::read(&session, &view, &account).await?;
    let address = session.address(&account);
    args.read.printer().print(
        || {
            let mut value = money.json();
            value["account"] = json!(address);
            value["block"] = json!(view.block().number);
            value["unit"] = json!({ "symbol": session.unit.symbol, "decimals": session.unit.decimals });
            value
        },
        || text(&session, &account, &money, &nodes),
    )
}

/// What moved.
async fn history(args: &BalanceArgs, account: &AccountId32) -> anyhow::Result<()> {
    let index = args.index.required("an account's history").await?;
    let (address, most) = (account.to_string(), args.limit);
    let entries =
        index.ask(move |reads, conn| reads.entries(conn, &address, &HistoryFilter::default(), most)).await?;
    args.read.printer().print(
        || json!(entries),
        || {
            let mut rows =
                table(["time", "block", "movement", "in", "out", "neither", "about"], &[1, 3, 4, 5]);
            for entry in &entries {
                let amount = index.unit.number(entry.amount.parse().unwrap_or(0));
                let (mut inward, mut outward, mut other) = (String::new(), String::new(), String::new());
                *match entry.cash {
                    1 => &mut inward,
                    -1 => &mut outward,
                    _ => &mut other,
                } = amount;
                let about = [
                    entry.task.map(|task| format!("task {task}")),
                    entry.node.map(|node| format!("node {node}")),
                    entry.pool.as_ref().map(|pool| format!("pool {pool}")),
                ];
                let about = about.into_iter().flatten().collect::<Vec<_>>().join(", ");
                let (when, block) = (time(entry.at), entry.block.to_string());
                rows.add_row([when, block, entry.what.replace('_', " "), inward, outward, other, about]);
            }
            rows.to_string()
        },
    )
}

fn text(session: &Session, account: &AccountId32, money: &Money, nodes: &[NodeView]) -> String {
    let unit = &session.unit;
    let (funds, contract) = (&money.funds, &money.contract);
    let reasons: Vec<String> =
        funds.held.iter().map(|hold| format!("{} {}", unit.number(hold.amount), hold.reason)).collect();
    let held = match reasons.is_empty() {
        true => "on the chain: storage deposits and the like, which come back".to_owned(),
        false => format!("on the chain: {}", reasons.join(", ")),
    };
    let lines: Vec<(&str, u128, &str)> = vec![
        ("spendable", funds.spendable, "on the chain, to send or to pay with"),
        ("held", funds.reserved, held.as_str()),
        ("frozen", funds.frozen, "on the chain: of the whole, what must not be spent"),
        ("stake", contract.staked, "of its nodes"),
        ("unbonding", contract.unbonding, "stake on its way out"),
        ("  at risk", contract.locked, "of both, in open tasks"),
        ("  withdrawable", contract.withdrawable, "of what is on its way out, now (`poq node withdraw`)"),
        ("escrow", money.escrow, "fees of its open tasks"),
        ("pending", money.pending(), "the most that its nodes can earn in open tasks"),
        ("rewards", money.rewards, "claimable with `poq claim`"),
        (
            "credit",
            contract.credit,
            "keepers' fees and refunds that could not be paid: claimable with `poq claim`",
        ),
        ("refunds", money.refunds(), "claimable with `poq task collect`"),
        ("in pools", money.pooled(), "shares, exits, bonds and commission (`poq pool show`)"),
        ("withdrawn", contract.withdrawn, "rewards, refunds and credit so far"),
        ("slashed", contract.slashed, "stake lost so far"),
    ];
    let amounts: Vec<String> = lines.iter().map(|(_, amount, _)| unit.show(*amount)).collect();
    let width = amounts.iter().map(|amount| amount.chars().count()).max().unwrap_or(0);
    let mut shown = vec![("account", session.address(account))];
    for ((name, _, what), amount) in lines.iter().zip(&amounts) {
        shown.push((name, format!("{amount:>width$}   {what}")));
    }
    let mut text = pairs(&shown);
    if !nodes.is_empty() {
        let mut rows =
            table(["node", "role", "model", "stake", "at risk", "rewards", "withdrawn"], &[0, 3, 4, 5, 6]);
        for view in nodes {
            let node = &view.node;
            rows.add_row([
                view.id.to_string(),
                crate::cli::node::role_name(node.role).into(),
                view.info.model.clone(),
                unit.number(node.stake.bonded),
                unit.number(node.stake.locked),
                unit.number(node.claimable),
                unit.number(node.withdrawn),
            ]);
        }
        text = format!("{text}\n\n{rows}");
    }
    if !money.pools.is_empty() {
        let mut rows = table(["pool", "shares' worth", "exits", "bond", "commission"], &[1, 2, 3, 4]);
        for pooled in &money.pools {
            let (bond, fees) = pooled.managed.unwrap_or_default();
            rows.add_row([
                session.address(&pooled.pool),
                unit.number(pooled.member.value),
                unit.number(pooled.exits()),
                unit.number(bond),
                unit.number(fees),
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
