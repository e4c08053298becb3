//! Commands about models, for this crate's own program and for `poq models`.

mod add;
mod bench;
mod file;
mod install;
mod list;
mod progress;
mod show;
mod trial;

use crate::{
    error::{Error, Result},
    manifest::Manifest,
    models::find_config,
    store::ModelStore,
};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;

/// What to do about models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Lists the models: those of the manifest, those of the configuration, and those that the hub can be asked for.
    List(list::ListArgs),
    /// Makes a model one that nodes can run: a GGUF file, a folder, a repository of the Hugging Face hub, or a model that the
    /// manifest names. It is looked at, hashed and tried, and its [[models]] section is written into the configuration.
    Add(add::AddArgs),
    /// Shows what a model is: architecture, weights, context, tokenizer, licence, memory, files and digest.
    Show(show::ShowArgs),
    /// Hashes the files of models anew and has each of them compute something.
    #[command(visible_alias = "verify")]
    Check(show::CheckArgs),
    /// Measures how fast a model is on this machine, and how much memory it takes.
    Bench(bench::BenchArgs),
    /// Takes a model's [[models]] section out of the configuration; its files stay unless --files says otherwise.
    Remove(add::RemoveArgs),
    /// Installs models and data sets of the manifest; with no names, all of the usual ones. Does nothing for what is already there.
    Install(install::InstallArgs),
}

impl ModelsCommand {
    /// Does it. Blocks for as long as models compute or files are fetched: from async code call it through `spawn_blocking`.
    ///
    /// # Errors
    /// What went wrong, in words that say what to do.
    pub fn execute(&self) -> Result<()> {
        match self {
            Self::List(args) => list::list(args),
            Self::Add(args) => add::add(args),
            Self::Show(args) => show::show(args),
            Self::Check(args) => show::check(args),
            Self::Bench(args) => bench::bench(args),
            Self::Remove(args) => add::remove(args),
            Self::Install(args) => install::install(args),
        }
    }
}

/// Where models are.
#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// The models folder; without it, the configuration's models_dir. Data sets go into the folder `data` beside it.
    #[arg(long, env = "POQ_MODELS_DIR", hide_env_values = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// A manifest of your own in place of the built-in one.
    #[arg(long, env = "POQ_MODELS_MANIFEST", hide_env_values = true, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// The configuration with the [[models]] sections, found as `poq worker run` finds it.
    #[arg(long, short, env = "POQ_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl PlaceArgs {
    /// The configuration, where there is one.
    ///
    /// # Errors
    /// When one is named that is not there.
    pub(crate) fn config(&self) -> Result<Option<PathBuf>> {
        match &self.config {
            Some(path) if !path.is_file() => Err(Error::NoFile { path: path.clone() }),
            Some(path) => Ok(Some(path.clone())),
            None => Ok(find_config()),
        }
    }

    pub(crate) fn manifest(&self) -> Result<Manifest> {
        match &self.manifest {
            Some(path) => Manifest::from_path(path),
            None => Ok(Manifest::builtin()),
        }
    }

    /// The store of models, those of the configuration included.
    ///
    /// # Errors
    /// When manifest or configuration cannot be read.
    pub fn store(&self) -> Result<ModelStore> {
        ModelStore::configured(self.manifest()?, self.dir.as_deref(), self.config()?.as_deref())
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// Writes the result to standard output as one JSON document.
    #[arg(long)]
    pub json: bool,
}

impl OutputArgs {
    fn print(self, json: &Value, text: impl FnOnce() -> String) {
        match self.json {
            true => println!("{json:#}"),
            false => println!("{}", text()),
        }
    }
}

/// Bytes, for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", (bytes as f64 / 1e3).ceil()),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Numbers of weights, for people.
fn count(number: u64) -> String {
    match number {
        0..1_000_000 => format!("{} thousand", number.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.0} million", number as f64 / 1e6),
        _ => format!("{:.2} billion", number as f64 / 1e9),
    }
}
