//! `poq task request`: what a task costs, who can be drawn for it, and the request itself.

use super::follow::{follow, Answer};
use super::market::Market;
use super::{describe, names, task_of};
use crate::cli::amount::Amount;
use crate::cli::args::{duration, SendArgs, Who};
use crate::cli::audit::{read_reference, Ticket};
use crate::cli::connect::Session;
use crate::cli::exit::{Refused, Usage};
use crate::cli::host::Host;
use crate::cli::order::Desk;
use crate::cli::output::write_out;
use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use poq_blobs::{BlobStore, PromptBlob, StoreLimits};
use poq_chain::json::ToJson;
use poq_chain::types::{Balance, Hash, KindParams, Role, TaskId, TaskInput};
use poq_chain::{commit, messages, AccountId32, ContractError, Message};
use poq_inference::quality::{Query, Rubric, RubricHash};
use poq_worker::endpoint::{check_listen, Checked};
use rand::RngCore;
use serde_json::{json, Value};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How many fees are tried, from the least one on, where a large pool's draw misses the few nodes that fit.
const TRIES: usize = 4;

/// `poq task request`.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// The passage that the question is about.
    #[arg(long, value_name = "TEXT", conflicts_with = "file", default_value = "")]
    pub(crate) context: String,
    /// The number of the task kind.
    #[arg(long, env = "POQ_KIND", hide_env_values = true, value_name = "N", default_value_t = 1)]
    pub(crate) kind: u16,
    /// How many inference nodes are to answer.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) outputs: u8,
    /// How many evaluators are to score; the kind's smallest panel where it is not given.
    #[arg(long, short = 'k', value_name = "K", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) panel: Option<u8>,
    /// The fee: 1.5 in the chain's unit, or 1500u in the smallest one; where it is not given, the least at which enough nodes can
    /// be drawn now.
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) fee: Option<Amount>,
    /// A file with a reference answer (a gold task). Only its salted hash goes to the chain; what opens it is written to the
    /// ticket. Without it the request carries random bytes, which nobody can tell apart.
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: Option<PathBuf>,
    /// The auditor that will open the reference (an address or a key file); the key's account where it is not given. A request
    /// that is to be told from others by nobody comes from another account than the auditor's.
    #[arg(long, value_name = "ACCOUNT|FILE", requires = "reference")]
    pub(crate) auditor: Option<Who>,
    /// Where to write what opens the reference, for `poq audit open`; gold-task-N.json where it is not given. Only its owner
    /// can read it.
    #[arg(long, value_name = "FILE", requires = "reference")]
    pub(crate) ticket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hosting: HostingArgs,
    /// Waits until the task is final, and prints each answer as soon as it may be had, then the scores, then the settlement.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// A task's input; one of it.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct InputArgs {
    /// The question that is to be answered.
    #[arg(long, value_name = "TEXT")]
    pub(crate) question: Option<String>,
    /// A file with the input as JSON (`{"version": 1, "context": "…", "question": "…"}`), or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Where the drawn nodes fetch a task's input; one of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hosting the input")]
#[group(required = true, multiple = true)]
pub(crate) struct HostingArgs {
    /// The URL of a blob server that has the input or reads the folder given with --blob-dir, for example a worker's.
    #[arg(long, env = "POQ_BLOB_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) blob_url: Option<String>,
    /// A blob store to put the input into: a folder, or an object store's URL that the server at --blob-url serves.
    #[arg(
        long,
        env = "POQ_BLOB_DIR",
        hide_env_values = true,
        value_name = "FOLDER|URL",
        requires = "blob_url"
    )]
    pub(crate) blob_dir: Option<String>,
    /// Serves the input from this process at this address for as long as it waits (implies --wait). The nodes must be able
    /// to reach it; where they see it under another address, give that with --blob-url.
    #[arg(long, env = "POQ_BLOB_LISTEN", hide_env_values = true, value_name = "IP:PORT", value_parser = check_listen)]
    pub(crate) listen: Option<SocketAddr>,
}

/// The input as its bytes: what was asked for on the command line, or the file's, checked.
fn input_bytes(args: &RequestArgs) -> anyhow::Result<Bytes> {
    let blob = match (&args.input.question, &args.input.file) {
        (Some(question), _) => PromptBlob::new(args.context.as_str(), question.as_str()),
        (None, Some(path)) => {
            let mut bytes = Vec::new();
            if path.as_os_str() == "-" {
                std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
            } else {
                bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            }
            PromptBlob::decode(&bytes).map_err(|e| Usage(format!("{}: {e}", path.display())))?
        }
        (None, None) => return Err(Usage("give the question with --question, or --file".into()).into()),
    };
    Ok(blob.encode().map_err(|e| Usage(e.to_string()))?)
}

/// An input that the drawn nodes can fetch.
struct Hosted {
    input: TaskInput,
    /// Why only this machine can fetch it, where that is allowed.
    warning: Option<String>,
    /// The server in this process that has it.
    server: Option<Host>,
}

/// Puts the input where the drawn nodes can fetch it, and says where that is.
async fn host(session: &Session, hosting: &HostingArgs, bytes: Bytes) -> anyhow::Result<Hosted> {
    let hash = commit::blake2(&bytes);
    if let Some(listen) = hosting.listen {
        let server = Host::start(session.client.clone(), listen).await?;
        server.put(bytes).await?;
        let (flag, url) = match &hosting.blob_url {
            Some(url) => ("--blob-url", url.clone()),
            None => ("--listen (give the address that others see with --blob-url)", server.url().to_owned()),
        };
        let Checked { endpoint, warning } = session.endpoint(flag, &url)?;
        return Ok(Hosted {
            input: TaskInput { hash, url: endpoint.to_string() },
            warning,
            server: Some(server),
        });
    }
    let Some(url) = hosting.blob_url.clone() else {
        return Err(Usage("say where the input can be fetched: --listen, or --blob-url".into()).into());
    };
    let Checked { endpoint, warning } = session.endpoint("--blob-url", &url)?;
    if let Some(store) = &hosting.blob_dir {
        let store = BlobStore::open(store, StoreLimits::default()).context("--blob-dir")?;
        store.put(bytes).await.context("--blob-dir")?;
    }
    Ok(Hosted { input: TaskInput { hash, url: endpoint.to_string() }, warning, server: None })
}

/// What is asked for, apart from the fee.
struct Asked<'a> {
    args: &'a RequestArgs,
    panel: u8,
    input: TaskInput,
    reference_commitment: [u8; 32],
}

impl Asked<'_> {
    fn message(&self, fee: Balance) -> Message<TaskId> {
        let Asked { args, panel, input, reference_commitment } = self;
        messages::request_task(args.kind, args.outputs, *panel, input.clone(), *reference_commitment, fee)
    }
}

/// The fee that was given, or the least at which the draw, run without sending it, finds enough nodes.
async fn fee(desk: &Desk, asked: &Asked<'_>, params: &KindParams) -> anyhow::Result<Balance> {
    let Asked { args, panel, .. } = asked;
    let session = &desk.session;
    let view = session.client.view().await?;
    let market =
        Market { kind: args.kind, params, nodes: view.all_nodes().await?, requester: desk.account() };
    let given = args.fee.as_ref().map(|fee| session.raw(fee)).transpose()?;
    let fees = given.map_or_else(|| market.fees(args.outputs, *panel), |fee| vec![fee]);
    let least =
        *fees.first().ok_or_else(|| Refused(format!("kind {} quotes no fee for that many", args.kind)))?;
    let slot = |fee| params.split(fee, args.outputs, *panel).map(|split| split.inference_slot);
    if slot(least).is_none() {
        let needed = params.fee_min(args.outputs, *panel).unwrap_or(u128::MAX);
        return Err(anyhow::Error::from(poq_chain::Error::Rejected {
            message: "request_task",
            error: ContractError::FeeTooSmall,
        })
        .context(format!(
            "the fee is {}, and the least for {} and {panel} evaluators is {}",
            session.unit.show(least),
            super::count(args.outputs.into(), "answer"),
            session.unit.show(needed)
        )));
    }
    let outputs = market.supply(Role::Inference, args.outputs, slot(least));
    let seats = market.supply(Role::Evaluator, *panel, None);
    if !view.paused().await? && !(outputs.enough() && seats.enough()) {
        return Err(market.too_few(&outputs, &seats, &session.unit, false).into());
    }
    for fee in fees.iter().copied().take(TRIES) {
        match desk.submitter.dry_run(&asked.message(fee)).await {
            Err(error) if error.rejection() == Some(ContractError::TooFewNodes) => {}
            // Whatever else is wrong is told where its cost is counted.
            _ => return Ok(fee),
        }
    }
    Err(market.too_few(&outputs, &seats, &session.unit, true).into())
}

/// Refuses a prompt in a language that the kind's rubric was not calibrated for: its scores, and so the payment, would mean
/// nothing. Of a rubric that this build does not know nothing can be said.
fn check_language(rubric: Hash, input: &[u8]) -> anyhow::Result<()> {
    let Some(rubric) = Rubric::builtin_with_hash(RubricHash(rubric)) else { return Ok(()) };
    let prompt = PromptBlob::decode(input).map_err(|e| Usage(e.to_string()))?;
    let query = Query { context: prompt.context, question: prompt.question };
    Ok(rubric.supports(&query).map_err(|e| Refused(e.to_string()))?)
}

pub(super) async fn request(args: RequestArgs) -> anyhow::Result<()> {
    let bytes = input_bytes(&args)?;
    let reference = args.reference.as_deref().map(read_reference).transpose()?;
    let desk = args.send.contract().await?;
    let session = &desk.session;
    let unit = &session.unit;
    let view = session.client.view().await?;
    let kind = view.kind(args.kind).await?.ok_or_else(|| {
        Refused(format!("there is no task kind {}; `poq params show` lists them", args.kind))
    })?;
    let params = &kind.params;
    let panel = args.panel.unwrap_or(params.panel_min);
    if args.outputs > params.outputs_max || !(params.panel_min..=params.panel_max).contains(&panel) {
        let text = format!(
            "kind {} takes 1 to {} answers and {} to {} evaluators, not {} and {panel}",
            args.kind, params.outputs_max, params.panel_min, params.panel_max, args.outputs
        );
        return Err(Refused(text).into());
    }
    check_language(params.rubric_hash, &bytes)?;
    let auditor: AccountId32 =
        args.auditor.as_ref().map_or_else(|| Ok(desk.account()), |who| desk.who(who))?;
    let Hosted { input, warning, server } = host(session, &args.hosting, bytes).await?;
    let mut salt = [0u8; 32];
    rand::rng().fill_bytes(&mut salt);
    // Without a reference the commitment is random bytes: nobody can tell the two apart.
    let reference_commitment = match &reference {
        Some(reference) => {
            let contract = session.client.contract()?;
            commit::reference(&contract, &auditor, &commit::blake2(reference.as_bytes()), &salt)
        }
        None => salt,
    };
    let asked = Asked { args: &args, panel, input, reference_commitment };
    let fee = fee(&desk, &asked, params).await?;

    let mut order = desk.order(format!(
        "request a task of kind {}: {}, scored by {panel}",
        args.kind,
        super::count(args.outputs.into(), "answer")
    ));
    if let Some(split) = params.split(fee, args.outputs, panel) {
        order.effect(
            "of the fee",
            format!(
                "at most {} to each who answers, {} to each who scores, {} to the treasury; what is not earned comes back",
                unit.show(split.inference_slot),
                unit.show(split.evaluator_slot),
                unit.show(split.protocol_fee)
            ),
        );
    }
    order.effect("input", format!("0x{} at {}", hex::encode(asked.input.hash), asked.input.url));
    if let Some(warning) = warning {
        order.note(warning);
    }
    if params.audit_ms > 0 {
        let wait = humantime::format_duration(Duration::from_millis(params.audit_ms));
        order.note(format!(
            "after the scores an auditor has {wait} to open a reference before the task is settled; answers are there earlier"
        ));
    }
    let Some(receipt) = desk.send(order, asked.message(fee)).await? else { return Ok(()) };

    let task = receipt.value;
    let view = task_of(session, task).await?;
    let nodes: Vec<u32> = view.task.outputs.iter().map(|slot| slot.node).collect();
    let mut value = json!({
        "task": task,
        "fee_paid": fee.to_string(),
        "input": { "hash": format!("0x{}", hex::encode(asked.input.hash)), "url": asked.input.url },
        "nodes": nodes,
        "deadline": view.task.deadline,
    });
    let mut text =
        format!("task {task} is requested for {}; it was drawn to {}", unit.show(fee), names("node", &nodes));
    if let Some(reference) = reference {
        let path = args.ticket.clone().unwrap_or_else(|| format!("gold-task-{task}.json").into());
        let ticket = Ticket {
            contract: session.address(&session.client.contract()?),
            task,
            auditor: session.address(&auditor),
            reference,
            salt: format!("0x{}", hex::encode(salt)),
        };
        // The task is requested and paid for: what opens it must not be lost with a file that cannot be written.
        match ticket.write(&path) {
            Ok(()) => {
                text = format!("{text}\n{} opens its reference: `poq audit open {0}`", path.display());
                value["ticket"] = json!(path);
            }
            Err(error) => {
                let text = format!("{error:#}; this is what opens the reference:\n{}", ticket.text()?);
                eprintln!("error: {text}");
                value["ticket_text"] = serde_json::to_value(&ticket)?;
            }
        }
    }
    if !args.wait && server.is_none() {
        return desk.done(&receipt, value, text);
    }

    let aloud = !args.send.output.json;
    if aloud {
        write_out(&text)?;
    }
    let outcome = follow(session, Some(desk.submitter.keys()), task, args.timeout, aloud).await;
    if let Some(server) = server {
        server.stop().await;
    }
    let (view, answers) = outcome?;
    desk.printer.print(
        || {
            value["outcome"] = view.to_json();
            value["answers"] = Value::Array(answers.iter().map(Answer::json).collect());
            value
        },
        || {
            let lost: Vec<String> = answers
                .iter()
                .filter_map(|answer| {
                    let error = answer.result.as_ref().err()?;
                    Some(format!("\nanswer of node {}: not to be had: {error}", answer.node))
                })
                .collect();
            format!("{}{}", describe(session, &view), lost.concat())
        },
    )
}
