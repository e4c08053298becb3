//! `poq node`: registering, staking, changing and showing nodes.

use crate::cli::amount::{Amount, Unit};
use crate::cli::args::{hash, ReadArgs, SendArgs, Who};
use crate::cli::connect::Session;
use crate::cli::exit::{Refused, Usage};
use crate::cli::order::{Desk, Order};
use crate::cli::output::{pairs, table, time};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use poq_chain::json::ToJson;
use poq_chain::stake::Unstake;
use poq_chain::types::{
    epoch_of, Balance, Hash, KindId, KindParams, Millis, NodeId, NodeStatus, NodeUpdate, NodeView, Ratio,
    Registration, Role, Tranche, MAX_BATCH,
};
use poq_chain::{messages, to_account32, to_ink, AccountId32, Message};
use poq_core::params::MISSES_MAX;
use poq_core::registry::class_of;
use poq_inference::Manifest;
use poq_worker::endpoint::{Checked, Endpoint, Probe};
use serde_json::{json, Value};

/// `poq node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Registers a node; the key's account becomes the node's owner.
    Register(RegisterArgs),
    /// Adds stake to a node of the key's account; it counts from the next epoch on.
    Stake(NodeAmountArgs),
    /// Starts to take stake out of a node; it can be withdrawn when the unbonding period is over. What is on its way out already
    /// does not wait for it.
    Unstake(UnstakeArgs),
    /// Withdraws stake whose unbonding period is over, to the node's owner.
    Withdraw(NodeKeyArgs),
    /// Stops a node from being drawn from the next epoch on; it finishes what it has.
    Drain(NodeKeyArgs),
    /// Lets a node be drawn again from the next epoch on that its owner drained, or that missed two duties in a row.
    Resume(NodeKeyArgs),
    /// Gives nodes the place in the draws that their present stake and trust earn. Anybody may.
    Refresh(RefreshArgs),
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

/// A node that comes to be: its owner's, or a pool's.
#[derive(Args, Debug)]
pub(crate) struct NewNodeArgs {
    /// What the node does.
    #[arg(long, env = "POQ_NODE_ROLE", hide_env_values = true, value_enum)]
    role: RoleArg,
    /// The number of the task kind that it serves.
    #[arg(long, env = "POQ_KIND", hide_env_values = true, value_name = "N", default_value_t = 1)]
    kind: u16,
    /// The hot account that does the node's duties: an address, or the path of its key file.
    #[arg(long, env = "POQ_NODE_OPERATOR", hide_env_values = true, value_name = "ACCOUNT|FILE")]
    operator: Who,
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
}

/// It, held to the chain and asked where it is to be found.
pub(crate) struct NewNode {
    /// What it does.
    pub(crate) role: Role,
    /// The kind that it serves.
    pub(crate) kind: KindId,
    /// The kind's parameters.
    pub(crate) params: KindParams,
    /// Does its duties.
    pub(crate) operator: AccountId32,
    /// Its model's name.
    pub(crate) model: String,
    /// Its model's digest.
    pub(crate) model_digest: Hash,
    /// Where its blobs are served.
    pub(crate) endpoint: Endpoint,
    /// What there is to say about that.
    pub(crate) warning: Option<String>,
    /// What answers there.
    pub(crate) probe: Probe,
    /// What it asks.
    pub(crate) price: Balance,
}

impl NewNodeArgs {
    /// The digest that was given, or that of the manifest's model of the name.
    pub(crate) fn digest(&self) -> anyhow::Result<Hash> {
        self.model_digest.map_or_else(|| digest_of(&self.model), Ok)
    }

    /// Looks the kind up, checks the endpoint, and asks what answers there.
    pub(crate) async fn resolved(&self, desk: &Desk, model_digest: Hash) -> anyhow::Result<NewNode> {
        let session = &desk.session;
        let operator = desk.who(&self.operator)?;
        let price = session.raw(&self.price)?;
        let kind = session.client.view().await?.kind(self.kind).await?.ok_or_else(|| {
            Refused(format!("there is no task kind {}; `poq params show` lists them", self.kind))
        })?;
        let Checked { endpoint, warning } = session.endpoint("--endpoint", &self.endpoint)?;
        let probe = session.probe(&endpoint).await?;
        Ok(NewNode {
            role: role_of(self.role),
            kind: self.kind,
            params: kind.kind.params,
            operator,
            model: self.model.clone(),
            model_digest,
            endpoint,
            warning,
            probe,
            price,
        })
    }
}

impl NewNode {
    /// Says what it is.
    pub(crate) fn tell(&self, session: &Session, order: &mut Order<'_>) {
        order.effect("model", format!("{} (0x{})", self.model, hex::encode(self.model_digest)));
        order.effect("endpoint", format!("{}: {}", self.endpoint, self.probe));
        order.effect("operator", session.address(&self.operator));
        if let Some(warning) = &self.warning {
            order.note(warning);
        }
    }
}

/// `poq node register`.
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    node: NewNodeArgs,
    /// The account that rewards are paid to (an address or a key file); the node owner's where it is not given.
    #[arg(long, env = "POQ_NODE_PAYEE", hide_env_values = true, value_name = "ACCOUNT|FILE")]
    payee: Option<Who>,
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
    /// Takes out all that is bonded.
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

/// `poq node refresh`.
#[derive(Args, Debug)]
pub(crate) struct RefreshArgs {
    /// The nodes' numbers; where none is given, every node that weighs more than its place counts.
    nodes: Vec<NodeId>,
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
    /// What the node asks per task from the next assignment on.
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
            change(args, messages::drain, "drain", "is drawn no more from the next epoch on").await
        }
        NodeCommand::Resume(args) => {
            change(args, messages::resume, "resume", "is drawn again from the next epoch on").await
        }
        NodeCommand::Refresh(args) => refresh(args).await,
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
fn role_of(role: RoleArg) -> Role {
    match role {
        RoleArg::Inference => Role::Inference,
        RoleArg::Evaluator => Role::Evaluator,
    }
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
    let model_digest = args.node.digest()?;
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let payee = args.payee.as_ref().map_or_else(|| Ok(desk.account()), |who| desk.who(who))?;
    let stake = session.raw(&args.stake)?;
    let new = args.node.resolved(&desk, model_digest).await?;
    let minimum = new.params.stake_min;
    let NewNode { role, kind, price, endpoint, probe, .. } = &new;
    let message = messages::register(
        Registration {
            role: *role,
            kind: *kind,
            operator: to_ink(&new.operator),
            payee: to_ink(&payee),
            model: new.model.clone(),
            model_digest,
            endpoint: endpoint.to_string(),
            price: *price,
        },
        stake,
    );
    let mut order = desk.order(format!("register an {} node for kind {kind}", role_name(*role)));
    new.tell(session, &mut order);
    order.effect("payee", session.address(&payee));
    order.effect("price", unit.show(*price));
    order.effect("stake", unit.show(stake));
    if !probe.is_good() {
        order.note("start its worker soon: what cannot be fetched from the endpoint earns nothing");
    }
    if stake < minimum {
        order.note(format!("it is not drawn before it has {} of stake", unit.show(minimum)));
    }
    if *price > 0 && *role == Role::Evaluator {
        order.note("evaluators ask no price: it is left out");
    }
    let Some(receipt) = desk.send(order, message).await? else { return Ok(()) };
    let node = receipt.value;
    let advice = if stake < minimum {
        format!("It is not drawn before it has {}: `poq node stake {node} AMOUNT`.", unit.show(minimum))
    } else {
        format!(
            "It can be named by requests from now on, and is drawn from the next epoch on ({}): run its worker (`poq worker run`).",
            time(session.next_epoch().await?)
        )
    };
    // A worker that is not started yet is no mistake, and one that cannot be reached is: both look like this.
    if !probe.is_good() {
        eprintln!("warning: {endpoint}: {probe}");
    }
    if let Some(warning) = &new.warning {
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
    let bonded = view.node.stake.bonded;
    let then = bonded.saturating_add(amount);
    order.effect("its stake", format!("{} now, {} then", session.unit.show(bonded), session.unit.show(then)));
    order.effect("counts", format!("from the next epoch on ({})", time(session.next_epoch().await?)));
    let Some(receipt) = desk.send(order, messages::stake(args.node, amount)).await? else { return Ok(()) };
    let text = format!("node {} has {} more stake", args.node, session.unit.show(amount));
    desk.done(&receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

async fn unstake(args: UnstakeArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let view = node_of(session, args.node).await?;
    let bonded = view.node.stake.bonded;
    let amount = match &args.amount {
        Some(amount) => session.raw(amount)?,
        None => bonded,
    };
    let global = session.client.view().await?.global_params().await?;
    let mut order = desk.order(format!("take {} of stake out of node {}", unit.show(amount), args.node));
    order.effect(
        "its stake",
        format!("{} now, {} then", unit.show(bonded), unit.show(bonded.saturating_sub(amount))),
    );
    // What cannot be taken out the contract refuses, with its reason.
    if let Ok(effect) = Unstake::of(&view, &global, amount, session.client.upcoming().timestamp_ms) {
        order.effect("on its way out then", tranches(&effect.tranches, unit));
        if effect.withdrawable > 0 {
            order.note(format!(
                "{} can be withdrawn already: `poq node withdraw {}`",
                unit.show(effect.withdrawable),
                args.node
            ));
        }
        order.note("until then tasks that are drawn meanwhile can put it at risk");
    }
    let Some(receipt) = desk.send(order, messages::unstake(args.node, amount)).await? else { return Ok(()) };
    let stake = node_of(session, args.node).await?.node.stake;
    let text = format!(
        "{} of node {} is on its way out: withdraw it with `poq node withdraw {}` from {} on",
        unit.show(amount),
        args.node,
        args.node,
        time(receipt.value)
    );
    let value = json!({
        "node": args.node,
        "amount": amount.to_string(),
        "until": receipt.value,
        "unbonding": stake.unbonding().to_string(),
    });
    desk.done(&receipt, value, text)
}

/// Amounts on their way out, each with its time.
fn tranches(tranches: &[Tranche], unit: &Unit) -> String {
    let mut ahead: Vec<&Tranche> = tranches.iter().filter(|tranche| tranche.amount > 0).collect();
    ahead.sort_by_key(|tranche| tranche.until);
    let line = |tranche: &&Tranche| format!("{} from {} on", unit.show(tranche.amount), time(tranche.until));
    match ahead.as_slice() {
        [] => "nothing".into(),
        ahead => ahead.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

async fn withdraw(args: NodeKeyArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let node = node_of(session, args.node).await?.node;
    let now = session.client.upcoming().timestamp_ms.max(session.client.best().await?.timestamp_ms);
    let ready = node.stake.withdrawable(now);
    let waiting = || {
        Refused(format!(
            "the unbonding period of the stake of node {} is not over yet:\n{}",
            args.node,
            tranches(&node.stake.tranches, unit)
        ))
    };
    // Told before anything is paid for: the chain itself would only say so in a block.
    if ready == 0 && node.stake.unbonding() > 0 && to_account32(&node.owner) == desk.account() {
        return Err(waiting().into());
    }
    let mut order = desk.order(format!("withdraw the unbonded stake of node {}", args.node));
    order.effect(
        "to the owner",
        format!("{} to {}", unit.show(ready), session.address(&to_account32(&node.owner))),
    );
    let sent = desk.send(order, messages::withdraw_unbonded(args.node)).await;
    // The chain's clock may be behind this machine's.
    let early = |error: &anyhow::Error| {
        let refused = error.downcast_ref::<poq_chain::Error>().and_then(poq_chain::Error::rejection);
        refused == Some(poq_chain::ContractError::StillUnbonding)
    };
    let Some(receipt) = sent.map_err(|error| if early(&error) { waiting().into() } else { error })? else {
        return Ok(());
    };
    let amount = receipt.value;
    let text = format!("{} of node {}'s stake went to its owner", unit.show(amount), args.node);
    desk.done(&receipt, json!({ "node": args.node, "amount": amount.to_string() }), text)
}

/// Whether a node weighs more than the place that it has in the draws counts: a refresh gives it the place that it has earned. (What
/// weighs less than its place's bound is drawn by its exact weight.)
pub(crate) fn has_outgrown(view: &NodeView, params: &KindParams) -> bool {
    let node = &view.node;
    match node.standing.place.class() {
        // Who has a place keeps one down to a half of the minimum; who has none needs all of it.
        Some(place) => class_of(node.settled_weight(params)).is_some_and(|earned| earned < place),
        None => class_of(node.weight(params)).is_some(),
    }
}

async fn refresh(args: RefreshArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let nodes = if args.nodes.is_empty() {
        let view = desk.session.client.view().await?;
        let mut kinds = std::collections::BTreeMap::new();
        for kind in view.kinds().await? {
            kinds.extend(view.kind(kind).await?.map(|view| (kind, view.kind.params)));
        }
        let mut all = view.all_nodes().await?;
        all.retain(|view| kinds.get(&view.node.kind).is_some_and(|params| has_outgrown(view, params)));
        all.into_iter().map(|view| view.id).collect()
    } else {
        args.nodes
    };
    let batches: Vec<_> = nodes.chunks(MAX_BATCH).map(|batch| messages::refresh(batch.to_vec())).collect();
    let list = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !batches.is_empty() {
        let mut order = desk.order(format!("give nodes the place that they have earned: {list}"));
        for message in &batches {
            order.add(message).await?;
        }
        if !order.agreed().await? {
            return Ok(());
        }
    }
    for message in batches {
        desk.submitter.send(message).await?;
    }
    desk.printer.print(
        || json!({ "refreshed": nodes }),
        || match nodes.is_empty() {
            true => "no node weighs more than its place counts".into(),
            false => format!("refreshed, from the next epoch on: {list}"),
        },
    )
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
    let epoch_ms = session.client.network().await?.epoch_ms;
    let kind = session.client.view().await?.kind(view.node.kind).await?;
    let outgrown = kind.is_some_and(|kind| has_outgrown(&view, &kind.kind.params));
    args.read.printer().print(|| view.to_json(), || text(&session, &view, outgrown, now, epoch_ms))
}

fn text(session: &Session, view: &NodeView, outgrown: bool, now: Millis, epoch_ms: Millis) -> String {
    let unit = &session.unit;
    let node = &view.node;
    let address = |account| session.address(&to_account32(account));
    let stake = &node.stake;
    let record = &node.record;
    let mean = Ratio::from_fraction(record.earned, record.burned);
    let refresh = match outgrown {
        true => format!("; weighs more than its place counts: `poq node refresh {}`", view.id),
        false => String::new(),
    };
    let open: Vec<String> = node.open.iter().filter(|task| **task != 0).map(ToString::to_string).collect();
    pairs(&[
        ("node", view.id.to_string()),
        ("role", role_name(node.role).into()),
        ("kind", node.kind.to_string()),
        ("status", format!("{}{refresh}", status(view, now, epoch_ms))),
        ("model", format!("{} (0x{})", view.info.model, hex::encode(node.model_digest))),
        ("endpoint", view.info.endpoint.clone()),
        ("price", unit.show(node.price)),
        ("node owner", address(&node.owner)),
        ("operator", address(&node.operator)),
        ("payee", address(&node.payee)),
        ("stake", unit.show(stake.bonded)),
        ("on its way out", tranches(&stake.tranches, unit)),
        ("withdrawable", unit.show(stake.withdrawable(now))),
        ("at risk", format!("{} in open tasks", unit.show(stake.locked))),
        ("rewards", format!("{}, claimable", unit.show(node.claimable))),
        ("withdrawn", unit.show(node.withdrawn)),
        ("slashed", unit.show(node.slashed)),
        ("trust", node.trust.to_string()),
        ("tasks", record.tasks.to_string()),
        (
            "mean quality",
            if record.burned == 0 { "-".into() } else { format!("{mean}, weighed by what its tasks burned") },
        ),
        ("missed in a row", node.misses.to_string()),
        ("open tasks", if open.is_empty() { "none".into() } else { open.join(", ") }),
        ("registered", time(view.info.registered_at)),
    ])
}

/// What a node is doing, and why it is not drawn where it is not.
fn status(view: &NodeView, now: Millis, epoch_ms: Millis) -> String {
    let node = &view.node;
    let drawn_now = node.standing.weight.at(epoch_of(now, epoch_ms)).is_some_and(|w| *w > Ratio::ZERO);
    match (node.status, node.standing.place.class()) {
        (NodeStatus::Draining, _) if node.misses >= MISSES_MAX => {
            "draining: it missed two duties in a row, and is drawn no more until its owner resumes it".into()
        }
        (NodeStatus::Draining, _) => "draining: drawn no more".into(),
        (NodeStatus::Active, None) => "not drawn: its stake is below the kind's minimum".into(),
        (NodeStatus::Active, Some(_)) if !drawn_now => "active from the next epoch on".into(),
        (NodeStatus::Active, Some(_)) => "active".into(),
    }
}

async fn list(args: NodeListArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let (now, epoch_ms) = (view.block().timestamp_ms, session.client.network().await?.epoch_ms);
    let mut nodes = view.all_nodes().await?;
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
                    status(view, now, epoch_ms),
                    session.unit.number(node.stake.bonded),
                    format!("{:.3}", node.trust.to_f64()),
                    node.record.tasks.to_string(),
                    session.unit.number(node.claimable),
                    session.address(&to_account32(&node.owner)),
                ]);
            }
            rows.to_string()
        },
    )
}
