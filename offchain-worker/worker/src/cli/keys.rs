//! `poq keys`: key files.

use crate::cli::args::Output;
use crate::cli::connect::load_keys;
use crate::cli::output::{pairs, Printer};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use poq_chain::signer::{ss58, Keys};
use poq_chain::AccountId32;
use serde_json::json;
use std::path::{Path, PathBuf};

/// SS58 addresses of any Substrate chain: a key is of no chain in particular.
const GENERIC_PREFIX: u16 = 42;

/// `poq keys …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes a new key and writes its mnemonic to a file that only its owner can read. Prints the address, never the
    /// secret.
    Generate(GenerateArgs),
    /// Writes the well-known key of a development account, which has money on every development chain. Everybody knows these
    /// keys: money of any worth must never go to one.
    Dev(DevArgs),
    /// Prints the address of a key file.
    Inspect(InspectArgs),
}

/// `poq keys generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// The file to write; refused if it is there.
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// `poq keys dev`.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// The file to write; refused if it is there.
    file: PathBuf,
    /// Whose key: one of the accounts that development chains endow.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Name::Alice)]
    name: Name,
    #[command(flatten)]
    output: Output,
}

/// The accounts that development chains endow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Alice,
    Bob,
    Charlie,
    Dave,
    Eve,
    Ferdie,
}

/// `poq keys inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The key file whose address is to be printed.
    file: PathBuf,
    /// The file with the keystore's password; without it the password is asked for on the terminal.
    #[arg(long, env = "POQ_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs `poq keys`.
pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(&args),
        KeysCommand::Dev(args) => dev(&args),
        KeysCommand::Inspect(args) => inspect(&args),
    }
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let (keys, secret) = Keys::generate()?;
    Keys::write_new(&args.file, &secret).with_context(|| format!("the key file {}", args.file.display()))?;
    let advice = format!(
        "Back the file up: nobody can recover it.\n\
         It has no money yet. Send it some: `poq transfer {} AMOUNT --key-file FILE`, from a key that has money; on a\n\
         development chain `poq keys dev alice.key` writes one.",
        args.file.display()
    );
    print(args.output.printer(), &args.file, &keys.account(), Some(&advice))
}

fn dev(args: &DevArgs) -> anyhow::Result<()> {
    let uri = format!("//{:?}", args.name).into();
    let keys = Keys::from_uri(&uri)?;
    Keys::write_new(&args.file, &uri).with_context(|| format!("the key file {}", args.file.display()))?;
    let advice = "Everybody knows this key: for development chains only.";
    print(args.output.printer(), &args.file, &keys.account(), Some(advice))
}

fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let keys = load_keys(&args.file, args.password_file.as_deref())?;
    print(args.output.printer(), &args.file, &keys.account(), None)
}

fn print(out: Printer, file: &Path, account: &AccountId32, advice: Option<&str>) -> anyhow::Result<()> {
    let address = ss58(account, GENERIC_PREFIX);
    let hex = format!("0x{}", hex::encode(account.0));
    out.print(
        || json!({ "file": file.display().to_string(), "address": address, "account": hex }),
        || {
            let lines = pairs(&[
                ("file", file.display().to_string()),
                ("address", address.clone()),
                ("account", hex.clone()),
            ]);
            advice.map_or_else(|| lines.clone(), |advice| format!("{lines}\n{advice}"))
        },
    )
}
