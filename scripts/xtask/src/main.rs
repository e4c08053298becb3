//! `xtask`: see `xtask --help` and `scripts/build-contract.sh`.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use semver::Version;
use xtask::{
    artifacts::{self, Agreement, Expected},
    budget::Budget,
    bundle, parameters, picture, strip, validate, walkthrough,
};

/// Build steps and checks that scripts/ call.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Remove every export but `call` and `deploy`, and the custom sections.
    StripExports {
        /// The linked module.
        input: PathBuf,
        /// Where to write the stripped one.
        output: PathBuf,
    },
    /// Ask the pallet's own engine, in the pallet's own configuration, whether it would take this code.
    Validate {
        /// The code.
        wasm: PathBuf,
        /// File with the most bytes that the code may have.
        #[arg(long)]
        budget: PathBuf,
    },
    /// Join code and metadata into NAME.contract, and write all of the contract's artifacts.
    Bundle(BundleArgs),
    /// Write the checksums of these contracts' artifacts.
    Checksums {
        /// The folder with the artifacts.
        folder: PathBuf,
        /// The contracts' names, in the order of the sums.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Check that the artifacts in a folder fit together, and optionally that a fresh build gives the same.
    CheckArtifacts {
        /// The folder, usually contracts/artifacts.
        folder: PathBuf,
        /// A contract and the file with the most bytes that its code may have, as NAME=FILE.
        #[arg(long = "contract", value_parser = key_value, required = true)]
        contracts: Vec<(String, String)>,
        /// A folder with freshly built artifacts to compare with.
        #[arg(long)]
        fresh: Option<PathBuf>,
    },
    /// Run the commands of Markdown pages in order, as their reader would (scripts/walkthrough.sh).
    Walkthrough {
        /// The pages.
        #[arg(required = true)]
        pages: Vec<PathBuf>,
        /// The folder that the commands run in.
        #[arg(long)]
        folder: PathBuf,
        /// How many seconds one command may take.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
        /// Only list the commands.
        #[arg(long)]
        list: bool,
    },
    /// Compare a page's table of parameters with what `poq params show --defaults` writes (on standard input).
    CheckParameters {
        /// The page.
        page: PathBuf,
    },
    /// Draw what a program printed (on standard input) as an SVG (on standard output).
    Picture {
        /// The command that printed it.
        command: String,
    },
}

#[derive(clap::Args)]
struct BundleArgs {
    /// The final code.
    #[arg(long)]
    wasm: PathBuf,
    /// What contract-metadata printed.
    #[arg(long)]
    metadata: PathBuf,
    /// The folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Name of the contract.
    #[arg(long)]
    name: String,
    /// Version of the contract.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    contract_version: Version,
    /// An author of the contract.
    #[arg(long = "author", default_value = "The Proof of Quality authors")]
    authors: Vec<String>,
    /// Version of ink!.
    #[arg(long)]
    ink: Version,
    /// Version of rustc.
    #[arg(long)]
    rustc: Version,
    /// What else decides the bytes of the code, as KEY=VALUE.
    #[arg(long = "info", value_parser = key_value)]
    info: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::StripExports { input, output } => {
            let stripped =
                strip::strip_exports(&read(&input)?).with_context(|| input.display().to_string())?;
            write(&output, &stripped)
        }
        Command::Validate { wasm, budget } => {
            let budget = Budget::read(&budget)?;
            let report =
                validate::validate(&read(&wasm)?, &budget).with_context(|| wasm.display().to_string())?;
            println!("{report}");
            println!("budget     {} bytes ({} free)", budget.bytes, budget.bytes - report.size);
            Ok(())
        }
        Command::Bundle(args) => {
            let abi = String::from_utf8(read(&args.metadata)?)
                .with_context(|| format!("{} is not text", args.metadata.display()))?;
            let build = bundle::Build {
                name: args.name,
                version: args.contract_version,
                authors: args.authors,
                ink: args.ink,
                rustc: args.rustc,
                info: args.info.into_iter().collect::<BTreeMap<_, _>>(),
            };
            artifacts::write(&args.out, &bundle::bundle(&read(&args.wasm)?, &abi, &build)?)?;
            Ok(())
        }
        Command::Checksums { folder, names } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Ok(artifacts::write_checksums(&folder, &names)?)
        }
        Command::CheckArtifacts { folder, contracts, fresh } => {
            let expected = contracts
                .into_iter()
                .map(|(name, file)| Ok(Expected { name, budget: Budget::read(Path::new(&file))? }))
                .collect::<Result<Vec<_>>>()?;
            let committed = artifacts::check(&folder, &expected)?;
            for contract in &committed {
                println!(
                    "{}: consistent, {} bytes of code, code hash 0x{}",
                    folder.join(&contract.bundle.contract.name).display(),
                    contract.report.size,
                    hex::encode(contract.report.code_hash)
                );
            }
            let Some(fresh) = fresh else { return Ok(()) };
            for (committed, fresh) in committed.iter().zip(artifacts::check(&fresh, &expected)?) {
                let name = &committed.bundle.contract.name;
                match artifacts::compare(committed, &fresh)? {
                    Agreement::Identical => println!("{name}: a fresh build gives the same bytes"),
                    Agreement::OtherToolchain { committed: old, fresh: new } => println!(
                        "{name}: a fresh build gives the same interface and code that the pallet takes ({} bytes). Its bytes were \
                         not compared, because the toolchain differs:\n  committed  {old}\n  here       {new}",
                        fresh.report.size
                    ),
                }
            }
            Ok(())
        }
        Command::Walkthrough { pages, folder, timeout, list } => {
            let mut blocks = Vec::new();
            for page in &pages {
                let text = String::from_utf8(read(page)?)
                    .with_context(|| format!("{} is not text", page.display()))?;
                blocks.extend(walkthrough::parse(&page.display().to_string(), &text)?);
            }
            if list {
                for (block, step) in blocks.iter().flat_map(|b| b.steps.iter().map(move |step| (b, step))) {
                    println!("{}:{} {:?}\n{}\n", block.page, step.line, block.how, step.text);
                }
                return Ok(());
            }
            let scratch = tempfile::tempdir().context("a folder for the commands' output")?;
            let options = walkthrough::Options {
                folder,
                scratch: scratch.path().to_owned(),
                timeout: Duration::from_secs(timeout),
            };
            let summary = walkthrough::run(&blocks, options)?;
            println!("\n{} skipped, {} not run", summary.skipped, summary.not_run);
            println!("{} passed, {} failed", summary.passed, summary.failed);
            anyhow::ensure!(summary.failed == 0, "the pages do not do what they say");
            Ok(())
        }
        Command::CheckParameters { page } => {
            let text =
                String::from_utf8(read(&page)?).with_context(|| format!("{} is not text", page.display()))?;
            let shipped = parameters::shipped(&standard_input()?).map_err(anyhow::Error::msg)?;
            let told = parameters::documented(&text)
                .map_err(anyhow::Error::msg)
                .with_context(|| page.display().to_string())?;
            let lines = parameters::differences(&shipped, &told);
            anyhow::ensure!(lines.is_empty(), "{}:\n  {}", page.display(), lines.join("\n  "));
            println!("{}: {} parameters, as shipped", page.display(), told.len());
            Ok(())
        }
        Command::Picture { command } => {
            print!("{}", picture::terminal(&command, &standard_input()?));
            Ok(())
        }
    }
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
