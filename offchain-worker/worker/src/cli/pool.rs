//! `poq pool`: staking pools, for those who run a node with other people's stake and for those whose stake it is.

use crate::cli::amount::Amount;
use crate::cli::args::{duration, ReadArgs, SendArgs, Who};
use crate::cli::connect::Session;
use crate::cli::deploy::{find_artifact, POOL_ARTIFACT};
use crate::cli::exit::{Refused, Usage};
use crate::cli::node::{role_name, NewNodeArgs};
use crate::cli::order::Desk;
use crate::cli::output::{pairs, table, time};
use crate::cli::params_file::ratio;
use clap::{Args, Subcommand};
use poq_chain::json::ToJson;
use poq_chain::pool::{
    self, ExitView, MemberView, NewPool, PoolEvent, PoolNode, PoolNodeUpdate, PoolView, Rules, Stage, Terms,
    Token, NEVER, VIRTUAL_SHARES,
};
use poq_chain::types::Ratio;
use poq_chain::{to_account32, to_ink, AccountId32, Message, View};
use poq_core::units::mul_div;
use poq_worker::endpoint::Checked;
use serde_json::{json, Value};
use std::path::PathBuf;
use std::time::Duration;

/// `poq pool …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Makes a pool with a node of its own; the key's account becomes its manager and pays the bond, which is the first to lose.
    Create(Box<CreateArgs>),
    /// Deposits money into a pool, for shares.
    Deposit(DepositArgs),
    /// Takes money out of a pool: it stays at risk while the stake unbonds, and can be claimed after that.
    Exit(ExitArgs),
    /// Pays out exits that are ready, and to a pool's manager its commission (and the bond of a closed pool).
    Claim(ClaimArgs),
    /// Shows a pool, and what the named accounts have in it.
    Show(ShowArgs),
    /// Lists the pools of the contract.
    List(ListArgs),
    /// Announces another commission or capacity; it begins after an era and an exit time, so that nobody has to pay it.
    Commission(CommissionArgs),
    /// Adds to the manager's bond.
    Bond(BondArgs),
    /// Changes the hot key, the endpoint or the price of the pool's node.
    Configure(ConfigureArgs),
    /// Stops the pool's node from being drawn.
    Drain(PoolKeyArgs),
    /// Lets the pool's node be drawn again.
    Resume(PoolKeyArgs),
    /// Does what is due in a pool: books rewards and slashes, unstakes for exits, stakes deposits. Anybody may.
    Advance(PoolKeyArgs),
    /// Closes a pool: its stake goes out, and then everybody is paid at once, the bond last.
    Close(PoolKeyArgs),
}

/// `poq pool create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    node: NewNodeArgs,
    /// The manager's bond: the node's first stake, the first to lose, and there until the pool is closed.
    #[arg(long, env = "POQ_POOL_BOND", hide_env_values = true, value_name = "AMOUNT")]
    bond: Amount,
    /// The manager's part of the rewards, between 0 and 1.
    #[arg(long, env = "POQ_POOL_COMMISSION", hide_env_values = true, value_name = "RATIO", value_parser = share)]
    commission: Ratio,
    /// The highest commission that can ever be announced: a promise for ever.
    #[arg(long, env = "POQ_POOL_COMMISSION_MAX", hide_env_values = true, value_name = "RATIO", value_parser = share)]
    commission_max: Ratio,
    /// The least part of the pool that the bond must be for a deposit to be taken, between 0 and 1: a promise for ever.
    #[arg(long, env = "POQ_POOL_FIRST_LOSS", hide_env_values = true, value_name = "RATIO", value_parser = share, default_value = "0.05")]
    first_loss: Ratio,
    /// The most that bond and deposits may come to; the kind's `stake_cap` where it is not given, above which stake earns nothing.
    #[arg(long, env = "POQ_POOL_CAPACITY", hide_env_values = true, value_name = "AMOUNT")]
    capacity: Option<Amount>,
    /// The least time between two unstakes, and the time over which rewards vest: a promise for ever. A day, or the contract's epoch
    /// where that is longer.
    #[arg(long, env = "POQ_POOL_ERA", hide_env_values = true, value_name = "DURATION", value_parser = duration)]
    era: Option<Duration>,
    /// How long an exit stays at risk: a promise for ever. The contract's unbonding time where it is not given; no less.
    #[arg(long, env = "POQ_POOL_EXIT", hide_env_values = true, value_name = "DURATION", value_parser = duration)]
    exit: Option<Duration>,
    /// The name of the pool's token.
    #[arg(
        long,
        env = "POQ_POOL_NAME",
        hide_env_values = true,
        value_name = "TEXT",
        default_value = "Shares of a PoQ pool"
    )]
    name: String,
    /// The symbol of the pool's token.
    #[arg(
        long,
        env = "POQ_POOL_SYMBOL",
        hide_env_values = true,
        value_name = "TEXT",
        default_value = "sPOQ"
    )]
    symbol: String,
    /// The built pool contract: a .contract bundle, or the .wasm file. Where it is not given, contracts/artifacts/pool.contract is
    /// looked for in the current folder and the folders above it.
    #[arg(long, env = "POQ_POOL_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    artifact: Option<PathBuf>,
    /// A text that tells several pools of the same account apart.
    #[arg(long, env = "POQ_SALT", hide_env_values = true, value_name = "TEXT", default_value = "")]
    salt: String,
}

/// `poq pool deposit`.
#[derive(Args, Debug)]
pub(crate) struct DepositArgs {
    /// The pool's address.
    pool: Who,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    amount: Amount,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq pool exit`.
#[derive(Args, Debug)]
pub(crate) struct ExitArgs {
    /// The pool's address.
    pool: Who,
    /// The amount to take out, at today's price of a share: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(required_unless_present = "all")]
    amount: Option<Amount>,
    /// Takes out all that the key's account has in the pool.
    #[arg(long, conflicts_with = "amount")]
    all: bool,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq pool claim`.
#[derive(Args, Debug)]
pub(crate) struct ClaimArgs {
    /// The pool's address.
    pool: Who,
    /// The account whose exits are paid (an address or a key file), to that account; the key's where it is not given.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    account: Option<Who>,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq pool show`.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The pool's address.
    pool: Who,
    /// An account of which to show what it has in the pool (an address or a key file); can be given several times.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    account: Vec<Who>,
    /// The file with the keystore's password, where an account is named by an encrypted one.
    #[arg(long, env = "POQ_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq pool list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    read: ReadArgs,
}

/// `poq pool commission`.
#[derive(Args, Debug)]
pub(crate) struct CommissionArgs {
    /// The pool's address.
    pool: Who,
    /// The manager's part of the rewards, between 0 and 1; at most what the pool promised.
    #[arg(value_name = "RATIO", value_parser = share)]
    commission: Ratio,
    /// The most that bond and deposits may come to from then on; as it is where it is not given.
    #[arg(long, value_name = "AMOUNT")]
    capacity: Option<Amount>,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq pool bond`.
#[derive(Args, Debug)]
pub(crate) struct BondArgs {
    /// The pool's address.
    pool: Who,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    amount: Amount,
    #[command(flatten)]
    send: SendArgs,
}

/// `poq pool configure`.
#[derive(Args, Debug)]
pub(crate) struct ConfigureArgs {
    /// The pool's address.
    pool: Who,
    #[command(flatten)]
    change: PoolChangeArgs,
    #[command(flatten)]
    send: SendArgs,
}

/// What `poq pool configure` changes; at least one of it.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct PoolChangeArgs {
    /// The hot account that does the node's duties from now on: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    operator: Option<Who>,
    /// The URL under which the node's worker serves its blobs from now on.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// What the node asks per task from now on.
    #[arg(long, value_name = "AMOUNT")]
    price: Option<Amount>,
}

/// A pool and a key.
#[derive(Args, Debug)]
pub(crate) struct PoolKeyArgs {
    /// The pool's address.
    pool: Who,
    #[command(flatten)]
    send: SendArgs,
}

/// A ratio between 0 and 1.
fn share(text: &str) -> Result<Ratio, String> {
    ratio(text).ok_or_else(|| {
        "a number between 0 and 1 with at most nine digits after the point, 0.05 for example".into()
    })
}

/// Runs `poq pool`.
pub(crate) async fn run(command: PoolCommand) -> anyhow::Result<()> {
    match command {
        PoolCommand::Create(args) => create(*args).await,
        PoolCommand::Deposit(args) => deposit(args).await,
        PoolCommand::Exit(args) => exit(args).await,
        PoolCommand::Claim(args) => claim(args).await,
        PoolCommand::Show(args) => show(args).await,
        PoolCommand::List(args) => list(args).await,
        PoolCommand::Commission(args) => commission(args).await,
        PoolCommand::Bond(args) => bond(args).await,
        PoolCommand::Configure(args) => configure(args).await,
        PoolCommand::Drain(args) => simple(args, pool::drain, "stop drawing the node of", "its node is drawn no more once its open duties are done").await,
        PoolCommand::Resume(args) => simple(args, pool::resume, "draw again the node of", "its node is drawn again").await,
        PoolCommand::Advance(args) => simple(args, pool::advance, "do what is due in", "what was due is done").await,
        PoolCommand::Close(args) => {
            simple(
                args,
                pool::close,
                "close",
                "it is closing: `poq pool advance` takes its stake out, era by era; then everybody is paid at once",
            )
            .await
        }
    }
}

/// What the whole of a share's price is made of: 1.02 means that a deposit of 1 at the first price is worth 1.02.
fn price(view: &PoolView) -> f64 {
    let whole = view.ledger.active.saturating_add(view.ledger.vesting);
    if view.supply == 0 {
        return 1.0;
    }
    whole as f64 * VIRTUAL_SHARES as f64 / view.supply as f64
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Open => "open",
        Stage::Closing => "closing",
        Stage::Closed => "closed",
    }
}

fn percent(ratio: Ratio) -> String {
    format!("{} %", f64::from(ratio.ppb()) / 10_000_000.0)
}

fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let artifact = find_artifact(args.artifact.as_deref(), POOL_ARTIFACT, "--artifact")?;
    let model_digest = args.node.digest()?;
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let overview = session.client.view().await?.overview().await?;
    let bond = session.raw(&args.bond)?;
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let rules = Rules {
        commission_max: args.commission_max,
        first_loss: args.first_loss,
        era_ms: args.era.map_or(overview.epoch_ms.max(DAY_MS.min(overview.global.unbonding_ms)), ms),
        exit_ms: args.exit.map_or(overview.global.unbonding_ms, ms),
    };
    rules.check(overview.epoch_ms, overview.global.unbonding_ms).map_err(|error| {
        Usage(format!(
            "{error}; this contract's epoch is {} and its unbonding time {}",
            span(overview.epoch_ms),
            span(overview.global.unbonding_ms)
        ))
    })?;
    let node = args.node.resolved(&desk, model_digest).await?;
    let capacity = args.capacity.as_ref().map_or(Ok(node.params.stake_cap), |amount| session.raw(amount))?;
    let new = NewPool {
        poq: session.client.contract()?,
        node: PoolNode {
            role: node.role,
            kind: node.kind,
            operator: to_ink(&node.operator),
            model: node.model.clone(),
            model_digest,
            endpoint: node.endpoint.to_string(),
            price: node.price,
        },
        rules,
        terms: Terms { commission: args.commission, capacity },
        bond,
        token: Token { name: Some(args.name.clone()), symbol: Some(args.symbol.clone()) },
    };
    let salt = args.salt.as_bytes();
    let mut order =
        desk.order(format!("make a pool with an {} node for kind {}", role_name(node.role), node.kind));
    order.effect("pool", session.address(&new.address(&desk.account(), &artifact, salt)));
    node.tell(session, &mut order);
    order.effect("bond", unit.show(bond));
    order.effect(
        "commission",
        format!("{}, never above {}", percent(args.commission), percent(rules.commission_max)),
    );
    order.effect("capacity", unit.show(capacity));
    order.effect(
        "first loss",
        format!("deposits are taken while the bond is {} of the pool", percent(rules.first_loss)),
    );
    order.effect("era, exit", format!("{}, {}", span(rules.era_ms), span(rules.exit_ms)));
    order.note("the bond is the first to lose, and stays until the pool is closed; highest commission, first loss, era and exit time never change");
    order.add_cost(new.quote(&desk.submitter, &artifact, salt).await).await?;
    if !order.agreed().await? {
        return Ok(());
    }
    let made = new.create(&desk.submitter, &artifact, salt).await?;
    let pool = session.client.view().await?.pool(&made.address).await?;
    let address = session.address(&made.address);
    if let Some(warning) = &node.warning {
        eprintln!("warning: {warning}");
    }
    desk.printer.print(
        || {
            json!({
                "pool": address, "node": pool.node, "code_hash": format!("{:?}", made.code_hash),
                "block": made.block.number, "endpoint": node.endpoint.to_string(), "health": node.probe.to_string(),
            })
        },
        || {
            format!(
                "{}\nRun its worker (`poq worker run`); others deposit with `poq pool deposit {address} AMOUNT`.",
                pairs(&[
                    ("pool", address.clone()),
                    ("node", pool.node.to_string()),
                    ("block", made.block.number.to_string()),
                ])
            )
        },
    )
}

/// A pool's address, and the pool.
async fn pool_of(desk: &Desk, pool: &Who) -> anyhow::Result<(AccountId32, PoolView, View)> {
    let address = desk.who(pool)?;
    let view = desk.session.client.view().await?;
    let pool = there(&desk.session, &view, &address).await?;
    Ok((address, pool, view))
}

/// A pool of this contract's.
async fn there(session: &Session, view: &View, address: &AccountId32) -> anyhow::Result<PoolView> {
    let pool = match view.pool(address).await {
        Err(poq_chain::Error::NotOurContract { .. } | poq_chain::Error::ContractAbsent { .. }) => {
            let text = format!("{} is no pool; `poq pool list` lists them", session.address(address));
            return Err(Refused(text).into());
        }
        other => other?,
    };
    let poq = to_account32(&pool.poq);
    if poq != session.client.contract()? {
        let text = format!(
            "the pool's node is in another contract, {}; name that with --contract",
            session.address(&poq)
        );
        return Err(Refused(text).into());
    }
    Ok(pool)
}

async fn deposit(args: DepositArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let (address, pool, _) = pool_of(&desk, &args.pool).await?;
    let amount = session.raw(&args.amount)?;
    let mut order = desk.order(format!("deposit {} in the pool of node {}", unit.show(amount), pool.node));
    order.effect("pool", session.address(&address));
    order.effect("it takes", format!("{} at the most", unit.show(pool.room)));
    order.effect("commission", commission_text(&pool));
    order.note(format!(
        "it is at risk with the node's stake, after the manager's bond of {}; out again takes up to {}",
        unit.show(pool.ledger.bond),
        span(pool.rules.notice_ms())
    ));
    let Some(receipt) = desk.send(order, pool::deposit(&address, amount)).await? else { return Ok(()) };
    let value = json!({
        "pool": session.address(&address), "amount": amount.to_string(), "shares": receipt.value.to_string(),
    });
    let text = format!("{} is in the pool of node {}", unit.show(amount), pool.node);
    desk.done(&receipt, value, text)
}

async fn exit(args: ExitArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let (address, pool, view) = pool_of(&desk, &args.pool).await?;
    let member = view.pool_member(&address, &desk.account()).await?;
    if member.shares == 0 {
        return Err(Refused("the key's account has no shares of this pool".into()).into());
    }
    let shares = match &args.amount {
        None => member.shares,
        Some(amount) => {
            let amount = session.raw(amount)?;
            if amount > member.value {
                let text = format!("the key's account has {} in this pool", unit.show(member.value));
                return Err(Refused(text).into());
            }
            // As many as are worth that much, rounded up to a share; the contract rounds their worth down.
            let supply = pool.supply.saturating_add(VIRTUAL_SHARES);
            let shares =
                mul_div(amount, supply, pool.ledger.active.saturating_add(1)).unwrap_or(member.shares);
            shares.saturating_add(1).min(member.shares)
        }
    };
    let mut order = desk.order(format!("take money out of the pool of node {}", pool.node));
    order.effect("pool", session.address(&address));
    order.effect("in the pool", format!("{} now", unit.show(member.value)));
    if pool.ledger.stage == Stage::Closed {
        order.note("the pool is closed: it pays at once");
    } else {
        order.note(format!(
            "it earns nothing more and stays at risk while the stake unbonds; it can be claimed in up to {}, and is paid what it is \
             worth then, at the most what it is worth now",
            span(pool.rules.notice_ms())
        ));
    }
    let Some(receipt) = desk.send(order, pool::exit(&address, shares)).await? else { return Ok(()) };
    let era = receipt.events.iter().find_map(|event| match PoolEvent::of(event) {
        Some(PoolEvent::ExitRequested(event)) => Some(event.era),
        _ => None,
    });
    let value = json!({
        "pool": session.address(&address), "shares": shares.to_string(), "value": receipt.value.to_string(), "era": era,
    });
    let text = match era {
        Some(0) | None => format!("{} was paid", unit.show(receipt.value)),
        Some(_) => format!(
            "{} is on its way out: `poq pool show {} --account {}` tells when it can be claimed",
            unit.show(receipt.value),
            session.address(&address),
            session.address(&desk.account())
        ),
    };
    desk.done(&receipt, value, text)
}

async fn claim(args: ClaimArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let (address, pool, view) = pool_of(&desk, &args.pool).await?;
    let account = args.account.as_ref().map_or(Ok(desk.account()), |who| desk.who(who))?;
    let ready = |member: &MemberView| member.exits.iter().any(|exit| exit.ready);
    let member = view.pool_member(&address, &account).await?;
    let manages = to_account32(&pool.manager) == desk.account();
    let owed = match pool.ledger.stage {
        Stage::Closed => pool.ledger.fees.saturating_add(pool.ledger.bond),
        Stage::Open | Stage::Closing => pool.ledger.fees,
    };
    let collects = manages && owed > 0;
    let mut paid = 0u128;
    let mut collected = 0u128;
    if ready(&member) || collects {
        let mut order = desk.order(format!("claim from the pool of node {}", pool.node));
        let (claim, collect) = (pool::claim(&address, &account), pool::collect(&address));
        if ready(&member) {
            let amount = order.add(&claim).await?.unwrap_or_default();
            order.effect("exits", format!("{} to {}", unit.show(amount), session.address(&account)));
        }
        if collects {
            let amount = order.add(&collect).await?.unwrap_or_default();
            order.effect(
                "the manager's",
                format!("{} to {}", unit.show(amount), session.address(&desk.account())),
            );
        }
        if !order.agreed().await? {
            return Ok(());
        }
        // Every message fixes one more era that has waited: so as many as the account has exits in.
        let mut open = member;
        for _ in 0..poq_core::pool::MAX_EXITS {
            if !ready(&open) {
                break;
            }
            let receipt = desk.submitter.send(claim.clone()).await?;
            paid = receipt.events.iter().filter_map(PoolEvent::of).fold(paid, |sum, event| match event {
                PoolEvent::ExitPaid(event) => sum.saturating_add(event.amount),
                _ => sum,
            });
            open = session.client.view().await?.pool_member(&address, &account).await?;
        }
        if collects {
            collected = desk.submitter.send(collect).await?.value;
        }
    }
    let rest = session.client.view().await?.pool_member(&address, &account).await?;
    desk.printer.print(
        || {
            json!({
                "pool": session.address(&address), "account": session.address(&account), "exits": paid.to_string(),
                "manager": collected.to_string(), "waiting": rest.exits.to_json(),
            })
        },
        || {
            let mut lines = vec![("exits paid", unit.show(paid))];
            if manages {
                lines.push(("the manager's", unit.show(collected)));
            }
            let text = pairs(&lines);
            match rest.exits.is_empty() {
                true => text,
                false => format!("{text}\n\n{}", exits(session, &rest.exits)),
            }
        },
    )
}

fn exits(session: &Session, exits: &[ExitView]) -> String {
    let mut rows = table(["era", "worth", "can be claimed"], &[0, 1]);
    for exit in exits {
        let when = match (exit.ready, exit.ends) {
            (true, _) => "now".to_owned(),
            (false, 0) => "when its era has ended, and the stake has unbonded".to_owned(),
            (false, ends) => format!("from {}", time(ends)),
        };
        rows.add_row([exit.era.to_string(), session.unit.number(exit.value), when]);
    }
    rows.to_string()
}

fn commission_text(pool: &PoolView) -> String {
    let ledger = &pool.ledger;
    let now = percent(ledger.terms.commission);
    match ledger.next_from {
        NEVER => format!("{now} of rewards, never above {}", percent(pool.rules.commission_max)),
        from => format!(
            "{now} of rewards, {} from {}, never above {}",
            percent(ledger.next.commission),
            time(from),
            percent(pool.rules.commission_max)
        ),
    }
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let password = args.password_file.as_deref();
    let address = args.pool.account(password)?;
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let pool = there(&session, &view, &address).await?;
    let mut members = Vec::new();
    for who in &args.account {
        let account = who.account(password)?;
        members.push((account, view.pool_member(&address, &account).await?));
    }
    let unit = &session.unit;
    args.read.printer().print(
        || {
            let members: Vec<Value> = members
                .iter()
                .map(|(account, member)| {
                    let mut value = member.to_json();
                    value["account"] = json!(session.address(account));
                    value
                })
                .collect();
            json!({
                "pool": session.address(&address), "block": view.block().number, "state": pool.to_json(), "members": members,
            })
        },
        || {
            let ledger = &pool.ledger;
            let token = pool.token.symbol.clone().unwrap_or_default();
            let mut lines = vec![
                ("pool", session.address(&address)),
                ("state", if pool.wiped_out { "wiped out: it takes no deposits".into() } else { stage(ledger.stage).to_owned() }),
                ("node", pool.node.to_string()),
                ("manager", session.address(&to_account32(&pool.manager))),
                ("bond", format!("{}, the first to lose", unit.show(ledger.bond))),
                ("shares", format!("{} {token}, worth {}", share_count(&pool), unit.show(ledger.active))),
                ("vesting", format!("{}, the shares' by {}", unit.show(ledger.vesting), time(ledger.vests_at))),
                ("price", format!("{:.6} of the first", price(&pool))),
                ("takes", format!("{} more", unit.show(pool.room))),
                ("commission", commission_text(&pool)),
                ("first loss", format!("deposits are taken while the bond is {} of the pool", percent(pool.rules.first_loss))),
                ("era, exit", format!("{}, {}", span(pool.rules.era_ms), span(pool.rules.exit_ms))),
                ("staked", unit.show(ledger.staked)),
                ("unbonding", unit.show(ledger.unbonding)),
                ("exits", format!("{} waits, {} can be claimed", unit.show(ledger.exiting), unit.show(ledger.due))),
                ("fees", format!("{} for the manager to claim", unit.show(ledger.fees))),
            ];
            if let Some(proposed) = &pool.proposed {
                lines.insert(4, ("proposed", session.address(&to_account32(proposed))));
            }
            let mut text = pairs(&lines);
            for (account, member) in &members {
                text = format!("{text}\n\n{} has {}", session.address(account), unit.show(member.value));
                if !member.exits.is_empty() {
                    text = format!("{text}\n{}", exits(&session, &member.exits));
                }
            }
            text
        },
    )
}

/// The shares that there are, in the token's unit: a million is a smallest unit of the chain at the first price.
fn share_count(pool: &PoolView) -> String {
    format!("{:.3}", pool.supply as f64 / VIRTUAL_SHARES as f64 / 1e12)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let session = args.read.contract().await?;
    let view = session.client.view().await?;
    let pools = view.pools().await?;
    let unit = &session.unit;
    args.read.printer().print(
        || {
            let pools: Vec<Value> = pools
                .iter()
                .map(|(address, pool)| json!({ "pool": session.address(address), "state": pool.to_json() }))
                .collect();
            json!({ "block": view.block().number, "pools": pools })
        },
        || {
            if pools.is_empty() {
                return "there is no pool; `poq pool create` makes one".into();
            }
            let mut rows = table(
                ["pool", "node", "state", "bond", "shares", "takes", "commission", "price"],
                &[1, 3, 4, 5, 6, 7],
            );
            for (address, pool) in &pools {
                let ledger = &pool.ledger;
                rows.add_row([
                    session.address(address),
                    pool.node.to_string(),
                    if pool.wiped_out { "wiped out" } else { stage(ledger.stage) }.into(),
                    unit.number(ledger.bond),
                    unit.number(ledger.active.saturating_add(ledger.vesting)),
                    unit.number(pool.room),
                    percent(ledger.terms.commission),
                    format!("{:.6}", price(pool)),
                ]);
            }
            rows.to_string()
        },
    )
}

async fn commission(args: CommissionArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let (address, pool, _) = pool_of(&desk, &args.pool).await?;
    let present = pool.ledger.terms;
    let capacity = args.capacity.as_ref().map_or(Ok(present.capacity), |amount| session.raw(amount))?;
    let terms = Terms { commission: args.commission, capacity };
    let mut order = desk.order(format!("announce terms of the pool of node {}", pool.node));
    order.effect("commission", format!("{} -> {}", percent(present.commission), percent(terms.commission)));
    order.effect("capacity", format!("{} -> {}", unit.show(present.capacity), unit.show(capacity)));
    order.note(format!(
        "they begin in {}: who does not want them can leave before",
        span(pool.rules.notice_ms())
    ));
    if pool.ledger.next_from != NEVER {
        order.note("terms that were announced before and have not begun are dropped");
    }
    let Some(receipt) = desk.send(order, pool::announce(&address, terms)).await? else { return Ok(()) };
    let value = json!({ "pool": session.address(&address), "terms": terms.to_json(), "from": receipt.value });
    let text = format!("a commission of {} begins at {}", percent(terms.commission), time(receipt.value));
    desk.done(&receipt, value, text)
}

async fn bond(args: BondArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (session, unit) = (&desk.session, &desk.session.unit);
    let (address, pool, _) = pool_of(&desk, &args.pool).await?;
    let amount = session.raw(&args.amount)?;
    let mut order =
        desk.order(format!("add {} to the bond of the pool of node {}", unit.show(amount), pool.node));
    let then = pool.ledger.bond.saturating_add(amount);
    order.effect("bond", format!("{} now, {} then", unit.show(pool.ledger.bond), unit.show(then)));
    order.note("it is the first to lose, and stays until the pool is closed");
    let Some(receipt) = desk.send(order, pool::add_bond(&address, amount)).await? else { return Ok(()) };
    let value = json!({ "pool": session.address(&address), "amount": amount.to_string() });
    desk.done(&receipt, value, format!("the bond is {}", unit.show(then)))
}

async fn configure(args: ConfigureArgs) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let (address, pool, _) = pool_of(&desk, &args.pool).await?;
    let mut order = desk.order(format!("change node {}", pool.node));
    let operator = args.change.operator.as_ref().map(|who| desk.who(who)).transpose()?;
    let price = args.change.price.as_ref().map(|price| session.raw(price)).transpose()?;
    let endpoint =
        args.change.endpoint.as_ref().map(|text| session.endpoint("--endpoint", text)).transpose()?;
    if let Some(operator) = &operator {
        order.effect("operator", session.address(operator));
    }
    if let Some(price) = price {
        order.effect("price", session.unit.show(price));
    }
    if let Some(Checked { endpoint, warning }) = &endpoint {
        order.effect("endpoint", format!("{endpoint}: {}", session.probe(endpoint).await?));
        if let Some(warning) = warning {
            order.note(warning);
        }
    }
    let update = PoolNodeUpdate {
        operator: operator.as_ref().map(to_ink),
        endpoint: endpoint.map(|checked| checked.endpoint.to_string()),
        price,
    };
    let Some(receipt) = desk.send(order, pool::configure(&address, update)).await? else { return Ok(()) };
    let value = json!({ "pool": session.address(&address), "node": pool.node });
    desk.done(&receipt, value, format!("node {} is changed", pool.node))
}

async fn simple(
    args: PoolKeyArgs,
    message: fn(&AccountId32) -> Message<()>,
    what: &str,
    done: &str,
) -> anyhow::Result<()> {
    let desk = args.send.contract().await?;
    let (address, pool, _) = pool_of(&desk, &args.pool).await?;
    let address_text = desk.session.address(&address);
    let mut order = desk.order(format!("{what} the pool {address_text}"));
    order.effect("node", pool.node.to_string());
    let Some(receipt) = desk.send(order, message(&address)).await? else { return Ok(()) };
    let now = desk.session.client.view().await?.pool(&address).await?;
    let value = json!({ "pool": address_text, "node": pool.node, "stage": stage(now.ledger.stage) });
    desk.done(&receipt, value, format!("the pool of node {}: {done}", pool.node))
}
