//! `poq deploy`: puts the contract on a chain.

use crate::cli::args::{duration, SendArgs, DEPLOYMENT_FILE};
use crate::cli::connect::Session;
use crate::cli::deployment::Deployment;
use crate::cli::exit::Usage;
use crate::cli::output::pairs;
use crate::cli::params::{defaults, Plan, DEFAULT_KIND};
use crate::cli::params_file::{check_global, ParamsFile};
use anyhow::Context;
use clap::Args;
use poq_chain::deploy::{address_of, deploy, find_or_deploy, Artifact, Setup};
use poq_chain::types::{GlobalParams, KindParams, Millis};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the repository keeps the built contract.
const ARTIFACT: &str = "contracts/artifacts/poq.contract";
/// Where it keeps the built pool contract.
pub(crate) const POOL_ARTIFACT: &str = "contracts/artifacts/pool.contract";

/// `poq deploy`.
#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    send: SendArgs,
    /// The built contract: a .contract bundle, or the .wasm file. Where it is not given, contracts/artifacts/poq.contract
    /// is looked for in the current folder and the folders above it.
    #[arg(long, env = "POQ_ARTIFACT", hide_env_values = true, value_name = "FILE")]
    artifact: Option<PathBuf>,
    /// A file with the global parameters and the task kinds to set (see `poq params show --defaults`). Where it is not
    /// given, kind 1 is set with the shipped defaults: questions, scored by the rubric for them.
    #[arg(long, env = "POQ_PARAMS_FILE", hide_env_values = true, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Sets the defaults for a network that has no auditors: everybody has full trust for good, and stake alone weighs.
    #[arg(long, env = "POQ_WITHOUT_AUDITORS", hide_env_values = true, conflicts_with = "params")]
    without_auditors: bool,
    /// How long an epoch is, for good: what node owners do acts in the next one. At least 2 draw_ms + commit_ms of every kind.
    #[arg(long, env = "POQ_EPOCH", hide_env_values = true, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    epoch: Duration,
    /// Milliseconds from unstaking to withdrawal; overrides the file.
    #[arg(long, env = "POQ_UNBONDING_MS", hide_env_values = true, value_name = "MS")]
    unbonding_ms: Option<u64>,
    /// Milliseconds from a task's end until anyone may collect it for its requester; overrides the file.
    #[arg(long, env = "POQ_ARCHIVE_MS", hide_env_values = true, value_name = "MS")]
    archive_ms: Option<u64>,
    /// A text that tells several deployments of the same code by the same account apart.
    #[arg(long, env = "POQ_SALT", hide_env_values = true, value_name = "TEXT", default_value = "")]
    salt: String,
    /// Takes the contract that is already there when the same account has deployed the same code with the same salt.
    #[arg(long, env = "POQ_REUSE", hide_env_values = true)]
    reuse: bool,
    /// Where to write the deployment file.
    #[arg(long, env = "POQ_DEPLOYMENT", hide_env_values = true, value_name = "FILE", default_value = DEPLOYMENT_FILE)]
    out: PathBuf,
    /// Replaces the deployment file if it is there.
    #[arg(long)]
    force: bool,
}

/// The built contract: the file that was named, or the repository's from the current folder upwards.
pub(crate) fn artifact(named: Option<&Path>) -> anyhow::Result<Artifact> {
    find_artifact(named, ARTIFACT, "--artifact")
}

/// A built contract: the file that was named with `flag`, or the repository's from the current folder upwards.
pub(crate) fn find_artifact(named: Option<&Path>, usual: &str, flag: &str) -> anyhow::Result<Artifact> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => find_upwards(Path::new(usual)).ok_or_else(|| {
            Usage(format!(
                "the built contract was not found: there is no {usual} in this folder or above it; build it with \
                 scripts/build-contract.sh, or name the file with {flag}"
            ))
        })?,
    };
    Artifact::load(&path).with_context(|| format!("the built contract {}", path.display()))
}

/// The file of that relative path in the current folder or the nearest folder above it that has it.
pub(crate) fn find_upwards(relative: &Path) -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    current.ancestors().map(|folder| folder.join(relative)).find(|path| path.is_file())
}

/// Runs `poq deploy`.
pub(crate) async fn run(args: DeployArgs) -> anyhow::Result<()> {
    if args.out.exists() && !args.force {
        let text = format!(
            "{} is already there and tells where a contract is; give another file with --out, or --force to replace it",
            args.out.display()
        );
        return Err(Usage(text).into());
    }
    let artifact = artifact(args.artifact.as_deref())?;
    let from_file = args.params.as_deref().map(ParamsFile::read).transpose()?;
    let desk = args.send.chain().await?;
    let unit = &desk.session.unit;
    let file = match from_file {
        Some(file) => file,
        None => defaults(DEFAULT_KIND, !args.without_auditors, unit)?,
    };
    let mut global = file.global(&GlobalParams::default(), unit)?;
    global.unbonding_ms = args.unbonding_ms.unwrap_or(global.unbonding_ms);
    global.archive_ms = args.archive_ms.unwrap_or(global.archive_ms);
    let epoch_ms = Millis::try_from(args.epoch.as_millis()).unwrap_or(Millis::MAX);
    let setup = Setup { epoch_ms, global };
    // Everything that can be wrong with the file is found before anything is paid for.
    let mut life_ms = 0;
    for kind in file.kinds.keys() {
        life_ms = file.kind(*kind, &KindParams::default(), epoch_ms, unit)?.life_ms().max(life_ms);
    }
    check_global(&global, epoch_ms, life_ms)?;

    let salt = args.salt.as_bytes();
    let chain = desk.session.client.chain();
    let there = address_of(&desk.account(), chain.genesis_hash, artifact.code_hash, &setup, salt);
    let reused = args.reuse && desk.session.client.code_hash_of(&there).await?.is_some();
    let mut order = desk.order(if reused {
        format!("set the task kinds of the contract {}", desk.session.address(&there))
    } else {
        format!("deploy the contract on {}", chain.name)
    });
    let kinds: Vec<String> = file.kinds.keys().map(ToString::to_string).collect();
    order.effect("code", format!("{:?}, {} bytes", artifact.code_hash, artifact.code.len()));
    order.effect("contract", desk.session.address(&there));
    order.effect("contract owner", desk.session.address(&desk.account()));
    order.effect("epochs", humantime::format_duration(args.epoch).to_string());
    order.effect("task kinds", kinds.join(", "));
    let kinds_only = ParamsFile { global: None, kinds: file.kinds };
    if reused {
        let session = Session::new(desk.session.client.with_contract(there));
        Plan::new(&session, &kinds_only).await?.add_to(&mut order, &session).await?;
    } else {
        order.add_cost(desk.submitter.quote_deploy(&artifact, &setup, salt).await).await?;
        order.note(
            "the task kinds are set afterwards, in one transaction each, with a fee and a deposit of its own, and act at once; once the \
             first node is registered every change is announced days before it acts",
        );
    }
    if !order.agreed().await? {
        return Ok(());
    }
    let deployed = if args.reuse {
        find_or_deploy(&desk.submitter, &artifact, &setup, salt).await?
    } else {
        deploy(&desk.submitter, &artifact, &setup, salt).await?
    };
    let session = Session::new(desk.session.client.with_contract(deployed.address));
    let submitter = session.client.submitter(desk.submitter.keys().clone());
    // Written before the kinds are set: should that fail, the contract is not lost.
    let mut deployment = Deployment {
        contract: session.address(&deployed.address),
        code_hash: format!("{:?}", deployed.code_hash),
        contract_owner: session.address(&submitter.account()),
        kinds: Vec::new(),
        url: (!session.client.endpoint_has_secret()).then(|| session.client.endpoint()),
        chain: session.client.chain().name.clone(),
        genesis: format!("{:?}", session.client.chain().genesis_hash),
        block: deployed.block.number,
        block_hash: format!("{:?}", deployed.block.hash),
    };
    deployment.write(&args.out, args.force)?;
    let plan = Plan::new(&session, &kinds_only).await?;
    plan.send(&session, &submitter).await.with_context(|| {
        format!(
            "the contract is there and {} says where, but its task kinds are not set (`poq params set`)",
            args.out.display()
        )
    })?;
    deployment.kinds = session.client.view().await?.kinds().await?;
    deployment.write(&args.out, true)?;

    let secret = match deployment.url {
        Some(_) => "",
        None => {
            "\nThe node's address has a key in it and was not written down: give --url (or POQ_URL) to later commands."
        }
    };
    desk.printer.print(
        || {
            let mut value = json!(deployment);
            value["created"] = json!(deployed.created);
            value["file"] = json!(args.out.display().to_string());
            value
        },
        || {
            let kinds: Vec<String> = deployment.kinds.iter().map(ToString::to_string).collect();
            let made = if deployed.created { "deployed" } else { "was already there" };
            pairs(&[
                ("contract", format!("{} ({made})", deployment.contract)),
                ("code hash", deployment.code_hash.clone()),
                ("contract owner", deployment.contract_owner.clone()),
                ("task kinds", kinds.join(", ")),
                ("chain", format!("{} at {}", deployment.chain, session.client.endpoint())),
                ("written to", args.out.display().to_string()),
            ]) + secret
        },
    )
}
