//! `poq task request`: what a task costs, who can be drawn for it, and the request itself.

use super::follow::see_through;
use super::market::Market;
use super::{followed_text, later_costs, names, task_of};
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
use poq_chain::types::{
    epoch_of, Balance, Hash, KindParams, NodeId, Request, Role, Source, TaskId, MAX_INLINE,
};
use poq_chain::{commit, messages, AccountId32, ContractError, Message};
use poq_inference::quality::{Query, Rubric, RubricHash};
use poq_worker::endpoint::{check_listen, Checked};
use poq_worker::requester::{random_commitment, Requester, RequesterOptions};
use serde_json::json;
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
    /// How many inference nodes are to answer; they are drawn.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) outputs: u8,
    /// The inference nodes that are to answer, by their numbers, instead of drawn ones (`poq node list --role inference`).
    #[arg(long = "node", value_name = "NODE", num_args = 1.., conflicts_with = "outputs")]
    pub(crate) nodes: Vec<NodeId>,
    /// Has the answers served as soon as the panel is drawn, not only once it has committed to its scores. Then a share of each
    /// answer's slot does not come back, whatever the answer turns out to be worth.
    #[arg(long)]
    pub(crate) early: bool,
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
    /// Returns once the task is requested. Its panel must still be drawn with this key, and in time, or everything is paid for
    /// nothing: `poq task follow` goes on from here.
    #[arg(long, conflicts_with = "listen")]
    pub(crate) detach: bool,
    /// How long to see the task through at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration, conflicts_with = "detach")]
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

/// Where the nodes get a task's input from; one of it.
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
    /// Serves the input from this process at this address for as long as it sees the task through. The nodes must be able to
    /// reach it; where they see it under another address, give that with --blob-url.
    #[arg(long, env = "POQ_BLOB_LISTEN", hide_env_values = true, value_name = "IP:PORT", value_parser = check_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Puts the input into the request itself: public for everybody, for good, and short (2048 bytes with what is around it).
    #[arg(long, conflicts_with_all = ["blob_url", "blob_dir", "listen"])]
    pub(crate) inline: bool,
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

/// An input that the nodes can have.
struct Hosted {
    input: Source,
    /// Where it is, in words.
    place: String,
    /// Why only this machine can fetch it, where that is allowed.
    warning: Option<String>,
    /// The server in this process that has it.
    server: Option<Host>,
}

/// Puts the input where the nodes can have it, and says where that is.
async fn host(session: &Session, hosting: &HostingArgs, bytes: Bytes) -> anyhow::Result<Hosted> {
    let hash = commit::blake2(&bytes);
    let at = |url: String, warning, server| {
        let place = format!("0x{} at {url}", hex::encode(hash));
        Hosted { input: Source::Url { hash, url }, place, warning, server }
    };
    if hosting.inline {
        if bytes.len() > MAX_INLINE {
            let text = format!(
                "the input has {} bytes, and a request carries {MAX_INLINE} at the most: serve it, with --listen or --blob-url",
                bytes.len()
            );
            return Err(Usage(text).into());
        }
        let place = format!("0x{}, in the request: public for good", hex::encode(hash));
        return Ok(Hosted { input: Source::Inline(bytes.to_vec()), place, warning: None, server: None });
    }
    if let Some(listen) = hosting.listen {
        let server = Host::start(session.client.clone(), listen).await?;
        server.put(bytes).await?;
        let (flag, url) = match &hosting.blob_url {
            Some(url) => ("--blob-url", url.clone()),
            None => ("--listen (give the address that others see with --blob-url)", server.url().to_owned()),
        };
        let Checked { endpoint, warning } = session.endpoint(flag, &url)?;
        return Ok(at(endpoint.to_string(), warning, Some(server)));
    }
    let Some(url) = hosting.blob_url.clone() else {
        let text =
            "say where the input can be had: --listen, --blob-url, or --inline where anybody may read it";
        return Err(Usage(text.into()).into());
    };
    let Checked { endpoint, warning } = session.endpoint("--blob-url", &url)?;
    if let Some(store) = &hosting.blob_dir {
        let store = BlobStore::open(store, StoreLimits::default()).context("--blob-dir")?;
        store.put(bytes).await.context("--blob-dir")?;
    }
    Ok(at(endpoint.to_string(), warning, None))
}

/// The fee that was given, or the least at which the request, run without sending it, finds enough nodes.
async fn fee(
    desk: &Desk,
    args: &RequestArgs,
    request: &Request,
    params: &KindParams,
) -> anyhow::Result<Balance> {
    let (outputs, panel) = (request.outputs, request.panel);
    let session = &desk.session;
    let view = session.client.view().await?;
    let epoch_ms = session.client.network().await?.epoch_ms;
    let market = Market {
        kind: args.kind,
        params,
        nodes: view.all_nodes().await?,
        requester: desk.account(),
        epoch: epoch_of(session.client.upcoming().timestamp_ms, epoch_ms),
        named: args.nodes.clone(),
    };
    let given = args.fee.as_ref().map(|fee| session.raw(fee)).transpose()?;
    let fees = given.map_or_else(|| market.fees(outputs, panel), |fee| vec![fee]);
    let least =
        *fees.first().ok_or_else(|| Refused(format!("kind {} quotes no fee for that many", args.kind)))?;
    let Some(split) = params.split(least, outputs, panel) else {
        let needed = params.fee_min(outputs, panel).unwrap_or(u128::MAX);
        return Err(anyhow::Error::from(poq_chain::Error::Rejected {
            message: "request_tasks",
            error: ContractError::BadFee,
        })
        .context(format!(
            "the fee is {}; for {} and {panel} evaluators it is at least {} and at most {}",
            session.unit.show(least),
            super::count(outputs.into(), "answer"),
            session.unit.show(needed),
            session.unit.show(params.fee_max)
        )));
    };
    let answering = market.supply(Role::Inference, outputs, &split);
    let seats = market.supply(Role::Evaluator, panel, &split);
    let enough = answering.enough() && seats.enough();
    if !enough && !view.paused().await? {
        return Err(market.too_few(&answering, &seats, &session.unit, false).into());
    }
    for fee in fees.iter().copied().take(TRIES) {
        match desk.submitter.dry_run(&messages::request_task(Request { fee, ..request.clone() })).await {
            Err(error) if error.rejection() == Some(ContractError::TooFewNodes) => {}
            // Whatever else is wrong is told where its cost is counted.
            _ => return Ok(fee),
        }
    }
    Err(market.too_few(&answering, &seats, &session.unit, true).into())
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
    let params = &kind.kind.params;
    let panel = args.panel.unwrap_or(params.panel_min);
    let outputs = match args.nodes.len() {
        0 => args.outputs,
        named => u8::try_from(named).unwrap_or(u8::MAX),
    };
    if outputs > params.outputs_max || !(params.panel_min..=params.panel_max).contains(&panel) {
        let text = format!(
            "kind {} takes 1 to {} answers and {} to {} evaluators, not {outputs} and {panel}",
            args.kind, params.outputs_max, params.panel_min, params.panel_max
        );
        return Err(Refused(text).into());
    }
    check_language(params.rubric_hash, &bytes)?;
    let auditor: AccountId32 =
        args.auditor.as_ref().map_or_else(|| Ok(desk.account()), |who| desk.who(who))?;
    let network = session.client.network().await?;
    let requester = Requester::new(desk.submitter.clone(), RequesterOptions::default()).await?;
    let Hosted { input, place, warning, server } = host(session, &args.hosting, bytes).await?;
    let salt = random_commitment();
    // Without a reference the commitment is random bytes: nobody can tell the two apart.
    let reference_commitment = reference
        .as_ref()
        .map_or(salt, |reference| network.reference(&auditor, &commit::blake2(reference.as_bytes()), &salt));
    let request = requester.sealed(Request {
        kind: args.kind,
        fee: 0,
        nodes: args.nodes.clone(),
        outputs,
        panel,
        input,
        reference_commitment,
        secret_hash: [0; 32],
        early: args.early,
    });
    let fee = fee(&desk, &args, &request, params).await?;
    let request = Request { fee, ..request };

    let mut order = desk.order(format!(
        "request a task of kind {}: {}, scored by {panel}",
        args.kind,
        super::count(outputs.into(), "answer")
    ));
    if let Some(split) = params.split(fee, outputs, panel) {
        order.effect(
            "of the fee",
            format!(
                "at most {} to each who answers, {} to each who scores, {} to keepers, {} to the treasury and as much burned; what \
                 answers do not earn comes back",
                unit.show(split.inference_slot),
                unit.show(split.evaluator_slot),
                unit.show(split.keepers),
                unit.show(split.protocol_fee >> 1)
            ),
        );
        if args.early {
            let kept = params.delivery_share.of(split.inference_slot);
            order.effect("early", format!("{} of each answer's slot does not come back", unit.show(kept)));
        }
    }
    order.effect("input", place.clone());
    if let Some(warning) = warning {
        order.note(warning);
    }
    let draw_by = humantime::format_duration(Duration::from_millis(params.draw_ms >> 1));
    if args.detach {
        order.note(format!(
            "within {draw_by} of the answers this key must draw the panel, or everything is paid for nothing: `poq task follow` does"
        ));
    } else {
        order.effect("sends later", "the panel's draw, and the reveals in one batch");
        order.add_cost(Ok(later_costs())).await?;
    }
    let message: Message<TaskId> = messages::request_task(request.clone());
    let Some(receipt) = desk.send(order, message).await? else { return Ok(()) };

    let task = receipt.value;
    let view = task_of(session, task).await?;
    let nodes: Vec<NodeId> = view.task.outputs.iter().map(|slot| slot.node).collect();
    let mut value = json!({
        "task": task,
        "fee_paid": fee.to_string(),
        "input": view.task.input.to_json(),
        "nodes": nodes,
        "deadline": view.task.deadline,
    });
    let mut text =
        format!("task {task} is requested for {}; it goes to {}", unit.show(fee), names("node", &nodes));
    if let Some(reference) = reference {
        let path = args.ticket.clone().unwrap_or_else(|| format!("gold-task-{task}.json").into());
        let ticket = Ticket {
            contract: session.address(&network.contract),
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
    if args.detach {
        return desk.done(&receipt, value, format!("{text}\nsee it through: `poq task follow {task}`"));
    }

    let aloud = !args.send.output.json;
    if aloud {
        write_out(&text)?;
    }
    let followed = see_through(desk.submitter.clone(), &[task], args.timeout, aloud).await;
    if let Some(server) = server {
        server.stop().await;
    }
    let followed = followed?;
    desk.printer.print(
        || {
            for followed in &followed {
                value["outcome"] = json!(followed.view.as_ref().map(ToJson::to_json));
                value["answers"] = followed.answers_json();
            }
            value
        },
        || followed.iter().map(|followed| followed_text(session, followed)).collect::<Vec<_>>().join("\n\n"),
    )
}
