//! `poq deploy`: puts the contract on a chain.

use crate::cli::args::DeployArgs;
use crate::cli::connect::Session;
use crate::cli::deployment::Deployment;
use crate::cli::exit::Usage;
use crate::cli::output::pairs;
use crate::cli::params::{defaults, global_for_chain, Plan, DEFAULT_KIND};
use crate::cli::params_file::ParamsFile;
use anyhow::Context;
use poq_chain::deploy::{deploy, find_or_deploy, Artifact};
use poq_chain::types::GlobalParams;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Where the repository keeps the built contract.
const ARTIFACT: &str = "contracts/artifacts/poq.contract";

/// The built contract: the file that was named, or the repository's from the current folder upwards.
pub(crate) fn artifact(named: Option<&Path>) -> anyhow::Result<Artifact> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => find_upwards(Path::new(ARTIFACT)).ok_or_else(|| {
            Usage(format!(
                "the built contract was not found: there is no {ARTIFACT} in this folder or above it; build it with \
                 scripts/build-contract.sh, or name the file with --artifact"
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
    let session = args.connection.chain().await?;
    let submitter = session.submitter(&args.signer)?;
    let file = match from_file {
        Some(file) => file,
        None => defaults(DEFAULT_KIND, !args.without_auditors, &session.unit)?,
    };
    let mut global = match &file.global {
        Some(global) => global_for_chain(global, &session.unit)?,
        None => GlobalParams::default(),
    };
    global.unbonding_ms = args.unbonding_ms.unwrap_or(global.unbonding_ms);
    global.archive_ms = args.archive_ms.unwrap_or(global.archive_ms);
    // Everything that can be wrong with the file is found before anything is paid for.
    for kind in file.kinds.keys() {
        file.kind(*kind, &Default::default(), &session.unit)?;
    }

    let salt = args.salt.as_bytes();
    let deployed = if args.reuse {
        find_or_deploy(&submitter, &artifact, global, salt).await?
    } else {
        deploy(&submitter, &artifact, global, salt).await?
    };
    let session = Session::new(session.client.with_contract(deployed.address));
    let submitter = session.submitter(&args.signer)?;
    // Written before the kinds are set: should that fail, the contract is not lost.
    let mut deployment = Deployment {
        contract: session.address(&deployed.address),
        code_hash: format!("{:?}", deployed.code_hash),
        owner: session.address(&submitter.account()),
        kinds: Vec::new(),
        url: session.client.endpoint(),
        chain: session.client.chain().name.clone(),
        genesis: format!("{:?}", session.client.chain().genesis_hash),
        block: deployed.block.number,
        block_hash: format!("{:?}", deployed.block.hash),
    };
    deployment.write(&args.out, args.force)?;
    let kinds_only = ParamsFile { global: None, kinds: file.kinds };
    Plan::new(&session, &kinds_only).await?.send(&submitter).await?;
    deployment.kinds = session.client.view().await?.kinds().await?;
    deployment.write(&args.out, true)?;

    args.output.printer().print(
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
                ("owner", deployment.owner.clone()),
                ("task kinds", kinds.join(", ")),
                ("chain", format!("{} at {}", deployment.chain, deployment.url)),
                ("written to", args.out.display().to_string()),
            ])
        },
    )
}
