//! `poq node`: registering, staking, changing and showing nodes.

use crate::cli::amount::Amount;
use crate::cli::args::{hash, ReadArgs, SendArgs, Who};
use crate::cli::connect::Session;
use crate::cli::exit::{Refused, Usage};
use crate::cli::order::Desk;
use crate::cli::output::{pairs, table, time};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use poq_chain::json::ToJson;
use poq_chain::stake::Unstake;
use poq_chain::types::{Millis, NodeId, NodeStatus, NodeUpdate, NodeView, Registration, Role};
use poq_chain::{messages, to_account32, to_ink, AccountId32, Message};
use poq_inference::Manifest;
use poq_worker::endpoint::Checked;
use serde_json::{json, Value};

/// `poq node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Registers a node; the key's account becomes the node's owner.
    Register(RegisterArgs),
    /// Adds stake to a node of the key's account.
    Stake(NodeAmountArgs),
    /// Starts to take stake out of a node; it can be withdrawn when the unbonding period is over. What is on its way out already
    /// then waits anew.
    Unstake(UnstakeArgs),
    /// Withdraws stake whose unbonding period is over, to the node's owner.
    Withdraw(NodeKeyArgs),
    /// Stops a node from being drawn; it finishes what it has.
    Drain(NodeKeyArgs),
    /// Lets a drained node be drawn again.
    Resume(NodeKeyArgs),
    /// Removes a node that has no stake, duties or rewards left.
    Deregister(NodeKeyArgs),
    /// Changes a node's operator, payee, endpoint or price.
    Configure(ConfigureArgs),
    /// Shows one node.
    Show(NodeShowArgs),
    /// Lists nodes.
    List(NodeListArgs),
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs a language model and answers.
    Inference,
    /// Scores answers.
    Evaluator,
}

/// `poq node register`.
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    send: SendArgs,
    /// What the node does.
    #[arg(long, env = "POQ_NODE_ROLE", hide_env_values = true, value_enum)]
    role: RoleArg,
    /// The number of the task kind that it serves.
    #[arg(long, env = "POQ_KIND", hide_env_values = true, value_name = "N", default_value_t = 1)]
    kind: u16,
    /// The hot account that does the node's duties: an address, or the path of its key file.
    #[arg(long, env = "POQ_NODE_OPERATOR", hide_env_values = true, value_name = "ACCOUNT|FILE")]
    operator: Who,
    /// The account that rewards are paid to (an address or a key file); the node owner's where it is not given.
    #[arg(long, env = "POQ_NODE_PAYEE", hide_env_values = true, value_name = "ACCOUNT|FILE")]
    payee: Option<Who>,
    /// The name of the model that the node runs.
    #[arg(long, env = "POQ_NODE_MODEL", hide_env_values = true, value_name = "NAME")]
    model: String,
    /// The model's digest (0x and 64 hexadecimal digits). Where it is not given, it is that of the installed manifest's
    /// model of that name.
    #[arg(long, env = "POQ_NODE_MODEL_DIGEST", hide_env_values = true, value_name = "HASH", value_parser = hash)]
    model_digest: Option<[u8; 32]>,
    /// The URL under which the node's worker serves its blobs (its `blobs.public_url`).
    #[arg(long, env = "POQ_NODE_ENDPOINT", hide_env_values = true, value_name = "URL")]
    endpoint: String,
    /// What the node asks per task: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(long, env = "POQ_NODE_PRICE", hide_env_values = true, value_name = "AMOUNT", default_value = "0")]
    price: Amount,
    /// The stake that goes in with the registration; a node below its kind's minimum is not drawn.
    #[arg(long, env = "POQ_NODE_STAKE", hide_env_values = true, value_name = "AMOUNT", default_value = "0")]
    stake: Amount,
}

/// A node and an amount.
#[derive(Args, Debug)]
pub(crate) struct NodeAmountArgs {
    /// The node's number.
    pub(crate) node: NodeId,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    pub(crate) amount: Amount,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq node unstake`.
#[derive(Args, Debug)]
pub(crate) struct UnstakeArgs {
    /// The node's number.
    node: NodeId,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(required_unless_present = "all")]
    amount: Option<Amount>,
    /// Takes out all of the free stake.
    #[arg(long, conflicts_with = "amount")]
    all: bool,
    #[command(flatten)]
    send: SendArgs,
}

/// A node and a key.
#[derive(Args, Debug)]
pub(crate) struct NodeKeyArgs {
    /// The node's number.
    node: NodeId,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq node configure`.
#[derive(Args, Debug)]
#[group(id = "change", multiple = true)]
pub(crate) struct ConfigureArgs {
    /// The node's number.
    node: NodeId,
    #[command(flatten)]
    change: NodeChangeArgs,
    #[command(flatten)]
    send: SendArgs,
}

/// What `poq node configure` changes; at least one of it.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct NodeChangeArgs {
    /// The hot account that does the node's duties from now on: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    operator: Option<Who>,
    /// The account that rewards are paid to from now on: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    payee: Option<Who>,
    /// The URL under which the node's worker serves its blobs from now on.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// What the node asks per task from the next draw on.
    #[arg(long, value_name = "AMOUNT")]
    price: Option<Amount>,
}

/// `poq node show`.
#[derive(Args, Debug)]
pub(crate) struct NodeShowArgs {
    /// The node's number.
    node: NodeId,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq node list`.
#[derive(Args, Debug)]
pub(crate) struct NodeListArgs {
    /// Lists the nodes of this task kind only.
    #[arg(long, value_name = "N")]
    kind: Option<u16>,
    /// Lists the nodes of this role only.
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Lists the nodes of this owner, operator or payee only: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    account: Option<Who>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `poq node`.
pub(crate) async fn run(command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Register(args) => register(args).await,
        NodeCommand::Stake(args) => stake(args).await,
        NodeCommand::Unstake(args) => unstake(args).await,
        NodeCommand::Withdraw(args) => withdraw(args).await,
        NodeCommand::Drain(args) => {
            change(args, messages::drain, "drain", "is drawn no more once its open duties are done").await
        }
        NodeCommand::Resume(args) => change(args, messages::resume, "resume", "is drawn again").await,
        NodeCommand::Deregister(args) => change(args, messages::deregister, "remove", "is gone").await,
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

/// The role of an argument.
pub(crate) fn role_of(role: RoleArg) -> Role {
    match role {
        RoleArg::Inference => Role::Inference,
        RoleArg::Evaluator => Role::Evaluator,
    }
}

/// The digest of a model of the manifest that the worker goes by.
pub(crate) fn digest_of(model: &str) -> anyhow::Result<[u8; 32]> {
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
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let owner = desk.account();
    let operator = desk.who(&args.operator)?;
    let payee = args.payee.as_ref().map_or(Ok(owner), |who| desk.who(who))?;
    let (stake, price) = (session.raw(&args.stake)?, session.raw(&args.price)?);
    let view = session.client.view().await?;
    let kind = view.kind(args.kind).await?.ok_or_else(|| {
        Refused(format!("there is no task kind {}; `poq params show` lists them", args.kind))
    })?;
    let minimum = kind.params.stake_min;
    let role = role_of(args.role);
    let Checked { endpoint, warning } = session.endpoint("--endpoint", &args.endpoint)?;
    let probe = session.probe(&endpoint).await?;
    let message = messages::register(
        Registration {
            role,
            kind: args.kind,
            operator: to_ink(&operator),
            payee: to_ink(&payee),
            model: args.model.clone(),
            model_digest,
            endpoint: endpoint.to_string(),
            price,
        },
        stake,
    );
    let mut order = desk.order(format!("register an {} node for kind {}", role_name(role), args.kind));
    order.effect("model", format!("{} (0x{})", args.model, hex::encode(model_digest)));
    order.effect("endpoint", format!("{endpoint}: {probe}"));
    order.effect("operator", session.address(&operator));
    order.effect("payee", session.address(&payee));
    order.effect("price", unit.show(price));
    order.effect("stake", unit.show(stake));
    if let Some(warning) = &warning {
        order.note(warning);
    }
    if !probe.is_good() {
        order.note("start its worker soon: what cannot be fetched from the endpoint earns nothing");
    }
    if stake < minimum {
        order.note(format!("it is not drawn before it has {} of stake", unit.show(minimum)));
    }
    if price > 0 && role == Role::Evaluator {
        order.note("evaluators ask no price: it is left out");
    }
    let Some(receipt) = desk.send(order, message).await? else { return Ok(()) };
    let node = receipt.value;
    let advice = if stake < minimum {
        format!("It is not drawn before it has {}: `poq node stake {node} AMOUNT`.", unit.show(minimum))
    } else {
        "It can be drawn from now on: run its worker (`poq worker run`).".into()
    };
    // A worker that is not started yet is no mistake, and one that cannot be reached is: both look like this.
    if !probe.is_good() {
        eprintln!("warning: {endpoint}: {probe}");
    }
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
    let value = json!({ "node": node, "endpoint": endpoint.to_string(), "health": probe.to_string() });
    desk.done(&receipt, value, format!("node {node} is registered. {advice}"))
}

async fn stake(args: NodeAmountArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let amount = session.raw(&args.amount)?;
    let Some(view) = session.client.view().await?.node(args.node).await? else {
        return Err(Refused(format!("there is no node of that number ({})", args.node)).into());
    };
    // Only its owner can take stake out again: what anybody else puts in is a gift.
    let owner = to_account32(&view.node.owner);
    if owner != desk.account() {
        let text = format!(
            "node {} belongs to {}: only the node's owner gets stake back, so only the owner should put it in",
            args.node,
            session.address(&owner)
        );
        return Err(Refused(text).into());
    }
    let mut order = desk.order(format!("stake {} on node {}", session.unit.show(amount), args.node));
    let then = view.node.bonded().saturating_add(amount);
    order.effect(
        "its stake",
        format!("{} now, {} then", session.unit.show(view.node.bonded()), session.unit.show(then)),
    );
    let Some(receipt) = desk.send(order, messages::stake(args.node, amount)).await? else { return Ok(()) };
    let text = format!("node {} has {} more stake", args.node, session.unit.show(amount));
    desk.done(&receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

async fn unstake(args: UnstakeArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let view = node_of(session, args.node).await?;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => view.node.free,
    };
    let global = session.client.view().await?.global_params().await?;
    let effect = Unstake::of(&view, &global, amount, session.client.upcoming().timestamp_ms);
    let mut order = desk.order(format!("take {} of stake out of node {}", unit.show(amount), args.node));
    order.effect(
        "free stake",
        format!(
            "{} now, {} then",
            unit.show(view.node.free),
            unit.show(view.node.free.saturating_sub(amount))
        ),
    );
    order.effect("withdrawable", format!("about {}", time(effect.unbonds_at)));
    let waits = effect.warning(|amount| unit.show(amount), time);
    if let Some(waits) = &waits {
        order.note(waits);
    }
    let Some(receipt) = desk.send(order, messages::unstake(args.node, amount)).await? else { return Ok(()) };
    let node = node_of(session, args.node).await?.node;
    let again = if waits.is_some() { " (with what was on its way out before)" } else { "" };
    let text = format!(
        "{} of node {} is on its way out; withdraw {}{again} with `poq node withdraw {}` after {}",
        unit.show(amount),
        args.node,
        unit.show(node.unbonding),
        args.node,
        time(node.unbonds_at)
    );
    let value = json!({
        "node": args.node,
        "amount": amount.to_string(),
        "unbonding": node.unbonding.to_string(),
        "unbonds_at": node.unbonds_at,
    });
    desk.done(&receipt, value, text)
}

async fn withdraw(args: NodeKeyArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let node = node_of(session, args.node).await?.node;
    // Told before anything is paid for: the chain itself would only say so in a block.
    if node.unbonding > 0 && to_account32(&node.owner) == desk.account() {
        let now = session.client.upcoming().timestamp_ms.max(session.client.best().await?.timestamp_ms);
        if node.unbonds_at > now {
            let text = format!(
                "the unbonding period of {} of node {} is over at {}, not yet",
                unit.show(node.unbonding),
                args.node,
                time(node.unbonds_at)
            );
            return Err(Refused(text).into());
        }
    }
    let mut order = desk.order(format!("withdraw the unbonded stake of node {}", args.node));
    order.effect(
        "to the owner",
        format!("{} to {}", unit.show(node.unbonding), session.address(&to_account32(&node.owner))),
    );
    let Some(receipt) = desk.send(order, messages::withdraw_unbonded(args.node)).await? else {
        return Ok(());
    };
    let amount = receipt.value;
    let text = format!("{} of node {}'s stake went to its owner", unit.show(amount), args.node);
    desk.done(&receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

async fn change(
    args: NodeKeyArgs,
    message: fn(u32) -> Message<()>,
    what: &str,
    done: &str,
) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let order = desk.order(format!("{what} node {}", args.node));
    let Some(receipt) = desk.send(order, message(args.node)).await? else { return Ok(()) };
    desk.done(&receipt, json!({ "node": args.node }), format!("node {} {done}", args.node))
}

async fn configure(args: ConfigureArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let (change, id) = (&args.change, args.node);
    let present = session.client.view().await?.node(id).await?;
    let present = present.ok_or_else(|| Refused(format!("there is no node of that number ({id})")))?;
    let mut order = desk.order(format!("change node {id}"));
    let account = |desk: &Desk, who: &Option<Who>| -> anyhow::Result<Option<AccountId32>> {
        who.as_ref().map(|who| desk.who(who)).transpose()
    };
    let (operator, payee) = (account(&desk, &change.operator)?, account(&desk, &change.payee)?);
    let price = change.price.as_ref().map(|price| session.raw(price)).transpose()?;
    let from = |old: String, new: String| format!("{old} -> {new}");
    let address = |account: &_| session.address(&to_account32(account));
    if let Some(operator) = &operator {
        order.effect("operator", from(address(&present.node.operator), session.address(operator)));
    }
    if let Some(payee) = &payee {
        order.effect("payee", from(address(&present.node.payee), session.address(payee)));
    }
    let mut endpoint = None;
    if let Some(text) = &change.endpoint {
        let checked = session.endpoint("--endpoint", text)?;
        let probe = session.probe(&checked.endpoint).await?;
        if let Some(warning) = &checked.warning {
            order.note(warning);
        }
        order.note(format!("{}: {probe}", checked.endpoint));
        endpoint = Some(checked.endpoint.to_string());
    }
    if let Some(endpoint) = &endpoint {
        order.effect("endpoint", from(present.info.endpoint.clone(), endpoint.clone()));
    }
    if let Some(price) = price {
        order.effect("price", from(session.unit.show(present.node.price), session.unit.show(price)));
    }
    let update = NodeUpdate {
        operator: operator.as_ref().map(to_ink),
        payee: payee.as_ref().map(to_ink),
        endpoint,
        price,
    };
    let Some(receipt) = desk.send(order, messages::configure(id, update)).await? else { return Ok(()) };
    desk.done(&receipt, json!({ "node": id }), format!("node {id} is changed"))
}

/// A node by its number.
pub(crate) async fn node_of(session: &Session, id: u32) -> anyhow::Result<NodeView> {
    let node = session.client.view().await?.node(id).await?;
    Ok(node.ok_or_else(|| Refused(format!("there is no node {id}; `poq node list` lists them")))?)
}

async fn show(args: NodeShowArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let view = node_of(&session, args.node).await?;
    let now = session.client.best().await?.timestamp_ms;
    args.read.printer().print(|| view.to_json(), || text(&session, &view, now))
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
        ("node owner", address(&node.owner)),
        ("operator", address(&node.operator)),
        ("payee", address(&node.payee)),
        ("free stake", unit.show(node.free)),
        ("locked stake", unit.show(node.locked)),
        ("unbonding", unbonding),
        ("rewards", format!("{}, claimable", unit.show(node.claimable))),
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
    let session = args.read.contract().await?;
    let mut nodes = session.client.view().await?.all_nodes().await?;
    let account = args.account.as_ref().map(|who| who.account(None)).transpose()?;
    nodes.retain(|view| {
        let node = &view.node;
        let concerned = |account: &AccountId32| {
            [&node.owner, &node.operator, &node.payee].into_iter().any(|a| to_account32(a) == *account)
        };
        args.kind.is_none_or(|kind| node.kind == kind)
            && args.role.is_none_or(|role| node.role == role_of(role))
            && account.as_ref().is_none_or(concerned)
    });
    args.read.printer().print(
        || Value::Array(nodes.iter().map(ToJson::to_json).collect()),
        || {
            let mut rows = table(
                [
                    "node",
                    "role",
                    "kind",
                    "model",
                    "status",
                    "stake",
                    "trust",
                    "tasks",
                    "rewards",
                    "node owner",
                ],
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
