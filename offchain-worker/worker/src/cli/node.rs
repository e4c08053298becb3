//! `poq node`: registering, staking, changing and showing nodes.

use crate::cli::args::{
    ConfigureArgs, NodeAmountArgs, NodeCommand, NodeKeyArgs, NodeListArgs, NodeShowArgs, RegisterArgs,
    RoleArg, UnstakeArgs,
};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::{Refused, Usage};
use crate::cli::output::{pairs, table, time};
use crate::cli::send::sent;
use anyhow::Context;
use poq_chain::json::ToJson;
use poq_chain::signer::parse_account;
use poq_chain::types::{Millis, NodeStatus, NodeUpdate, NodeView, Registration, Role};
use poq_chain::{messages, to_account32, to_ink, AccountId32, Message};
use poq_inference::Manifest;
use serde_json::{json, Value};
use std::path::Path;

/// Runs `poq node`.
pub(crate) async fn run(command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Register(args) => register(args).await,
        NodeCommand::Stake(args) => stake(args).await,
        NodeCommand::Unstake(args) => unstake(args).await,
        NodeCommand::Withdraw(args) => withdraw(args).await,
        NodeCommand::Drain(args) => {
            change(args, messages::drain, "is drawn no more once its open duties are done").await
        }
        NodeCommand::Resume(args) => change(args, messages::resume, "is drawn again").await,
        NodeCommand::Deregister(args) => change(args, messages::deregister, "is gone").await,
        NodeCommand::Configure(args) => configure(args).await,
        NodeCommand::Show(args) => show(args).await,
        NodeCommand::List(args) => list(args).await,
    }
}

/// What a role is called.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Inference => "inference",
        Role::Evaluator => "evaluator",
    }
}

fn role_of(role: RoleArg) -> Role {
    match role {
        RoleArg::Inference => Role::Inference,
        RoleArg::Evaluator => Role::Evaluator,
    }
}

/// An account by its address, or by a key file that holds it.
fn account_or_file(text: &str, password_file: Option<&Path>) -> anyhow::Result<AccountId32> {
    if let Ok(account) = parse_account(text) {
        return Ok(account);
    }
    let path = Path::new(text);
    if path.is_file() {
        return Ok(load_keys(path, password_file)?.account());
    }
    Err(Usage(format!("--operator {text} is neither an account's address nor a key file that is there"))
        .into())
}

/// The digest of a model of the manifest that the worker goes by.
fn digest_of(model: &str) -> anyhow::Result<[u8; 32]> {
    let manifest = Manifest::builtin();
    let entry = manifest
        .get(model)
        .context("give --model-digest for a model that is not in the manifest")
        .map_err(|e| Usage(format!("{e:#}")))?;
    Ok(entry.digest().0)
}

async fn register(args: RegisterArgs) -> anyhow::Result<()> {
    let model_digest = match args.model_digest {
        Some(digest) => digest,
        None => digest_of(&args.model)?,
    };
    let operator = account_or_file(&args.operator, args.signer.password_file.as_deref())?;
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let owner = submitter.account();
    let (stake, price) = (session.raw(&args.stake)?, session.raw(&args.price)?);
    let view = session.client.view().await?;
    let kind = view.kind(args.kind).await?.ok_or_else(|| {
        Refused(format!("there is no task kind {}; `poq params show` lists them", args.kind))
    })?;
    let registration = Registration {
        role: role_of(args.role),
        kind: args.kind,
        operator: to_ink(&operator),
        payee: to_ink(&args.payee.unwrap_or(owner)),
        model: args.model,
        model_digest,
        endpoint: args.endpoint,
        price,
    };
    let receipt = submitter.send(messages::register(registration, stake)).await?;
    let node = receipt.value;
    let minimum = kind.params.stake_min;
    let advice = if stake < minimum {
        format!(
            "It is not drawn before it has {}: `poq node stake {node} AMOUNT`.",
            session.unit.show(minimum)
        )
    } else {
        "It can be drawn from now on: run its worker (`poq worker run`).".into()
    };
    sent(
        &session,
        args.output,
        &receipt,
        json!({ "node": node }),
        format!("node {node} is registered. {advice}"),
    )
}

async fn stake(args: NodeAmountArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let amount = session.raw(&args.amount)?;
    let receipt = session.submitter(&args.signer)?.send(messages::stake(args.node, amount)).await?;
    let text = format!("node {} has {} more stake", args.node, session.unit.show(amount));
    sent(&session, args.output, &receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

async fn unstake(args: UnstakeArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let submitter = session.submitter(&args.signer)?;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => node_of(&session, args.node).await?.node.free,
    };
    let receipt = submitter.send(messages::unstake(args.node, amount)).await?;
    let until = node_of(&session, args.node).await?.node.unbonds_at;
    let text = format!(
        "{} of node {} is on its way out; withdraw it with `poq node withdraw {}` after {}",
        session.unit.show(amount),
        args.node,
        args.node,
        time(until)
    );
    let value = json!({ "node": args.node, "amount": amount.to_string(), "unbonds_at": until });
    sent(&session, args.output, &receipt, value, text)
}

async fn withdraw(args: NodeKeyArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let receipt = session.submitter(&args.signer)?.send(messages::withdraw_unbonded(args.node)).await?;
    let amount = receipt.value;
    let text = format!("{} of node {}'s stake went to its owner", session.unit.show(amount), args.node);
    sent(&session, args.output, &receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

async fn change(args: NodeKeyArgs, message: fn(u32) -> Message<()>, done: &str) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let receipt = session.submitter(&args.signer)?.send(message(args.node)).await?;
    sent(&session, args.output, &receipt, json!({ "node": args.node }), format!("node {} {done}", args.node))
}

async fn configure(args: ConfigureArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let change = &args.change;
    let operator = match &change.operator {
        Some(operator) => Some(to_ink(&account_or_file(operator, args.signer.password_file.as_deref())?)),
        None => None,
    };
    let update = NodeUpdate {
        operator,
        payee: change.payee.as_ref().map(to_ink),
        endpoint: change.endpoint.clone(),
        price: change.price.as_ref().map(|price| session.raw(price)).transpose()?,
    };
    let receipt = session.submitter(&args.signer)?.send(messages::configure(args.node, update)).await?;
    sent(
        &session,
        args.output,
        &receipt,
        json!({ "node": args.node }),
        format!("node {} is changed", args.node),
    )
}

/// A node by its number.
pub(crate) async fn node_of(session: &Session, id: u32) -> anyhow::Result<NodeView> {
    let node = session.client.view().await?.node(id).await?;
    Ok(node.ok_or_else(|| Refused(format!("there is no node {id}; `poq node list` lists them")))?)
}

async fn show(args: NodeShowArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let view = node_of(&session, args.node).await?;
    let now = session.client.best().await?.timestamp_ms;
    args.output.printer().print(|| view.to_json(), || text(&session, &view, now))
}

fn text(session: &Session, view: &NodeView, now: Millis) -> String {
    let unit = &session.unit;
    let node = &view.node;
    let address = |account| session.address(&to_account32(account));
    let unbonding = match node.unbonding {
        0 => unit.show(0),
        amount if node.unbonds_at <= now => format!("{}, can be withdrawn", unit.show(amount)),
        amount => format!("{}, until {}", unit.show(amount), time(node.unbonds_at)),
    };
    let open: Vec<String> = node.open.iter().filter(|task| **task != 0).map(ToString::to_string).collect();
    pairs(&[
        ("node", view.id.to_string()),
        ("role", role_name(node.role).into()),
        ("kind", node.kind.to_string()),
        ("status", status(view)),
        ("model", format!("{} (0x{})", view.info.model, hex::encode(node.model_digest))),
        ("endpoint", view.info.endpoint.clone()),
        ("price", unit.show(node.price)),
        ("owner", address(&node.owner)),
        ("operator", address(&node.operator)),
        ("payee", address(&node.payee)),
        ("free stake", unit.show(node.free)),
        ("locked", unit.show(node.locked)),
        ("unbonding", unbonding),
        ("claimable", unit.show(node.claimable)),
        ("withdrawn", unit.show(node.withdrawn)),
        ("slashed", unit.show(node.slashed)),
        ("trust", node.trust.to_string()),
        ("settled tasks", node.settled.to_string()),
        ("open tasks", if open.is_empty() { "none".into() } else { open.join(", ") }),
        ("registered", time(view.info.registered_at)),
    ])
}

/// What a node is doing, and why it is not drawn where it is not.
fn status(view: &NodeView) -> String {
    match (view.node.status, view.node.place.class()) {
        (NodeStatus::Draining, _) => "draining: drawn no more".into(),
        (NodeStatus::Active, None) => "not drawn: its stake is below the kind's minimum".into(),
        (NodeStatus::Active, Some(_)) => "active".into(),
    }
}

async fn list(args: NodeListArgs) -> anyhow::Result<()> {
    let session = args.connection.contract().await?;
    let mut nodes = session.client.view().await?.all_nodes().await?;
    nodes.retain(|view| {
        let node = &view.node;
        let concerned = |account: &AccountId32| {
            [&node.owner, &node.operator, &node.payee].into_iter().any(|a| to_account32(a) == *account)
        };
        args.kind.is_none_or(|kind| node.kind == kind)
            && args.role.is_none_or(|role| node.role == role_of(role))
            && args.account.as_ref().is_none_or(concerned)
    });
    args.output.printer().print(
        || Value::Array(nodes.iter().map(ToJson::to_json).collect()),
        || {
            let mut rows = table(
                ["node", "role", "kind", "model", "status", "stake", "trust", "tasks", "claimable", "owner"],
                &[0, 5, 6, 7, 8],
            );
            for view in &nodes {
                let node = &view.node;
                rows.add_row([
                    view.id.to_string(),
                    role_name(node.role).into(),
                    node.kind.to_string(),
                    view.info.model.clone(),
                    status(view),
                    session.unit.number(node.bonded()),
                    format!("{:.3}", f64::from(node.trust.ppb()) / 1e9),
                    node.settled.to_string(),
                    session.unit.number(node.claimable),
                    session.address(&to_account32(&node.owner)),
                ]);
            }
            rows.to_string()
        },
    )
}
