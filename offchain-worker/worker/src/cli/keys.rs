//! `poq keys`: key files.

use crate::cli::args::{GenerateArgs, InspectArgs, KeysCommand};
use crate::cli::connect::load_keys;
use crate::cli::output::{pairs, Printer};
use anyhow::Context;
use poq_chain::signer::{ss58, Keys};
use poq_chain::AccountId32;
use serde_json::json;
use std::path::Path;

/// SS58 addresses of any Substrate chain: a key is of no chain in particular.
const GENERIC_PREFIX: u16 = 42;

/// Runs `poq keys`.
pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(&args),
        KeysCommand::Inspect(args) => inspect(&args),
    }
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let (keys, secret) = Keys::generate()?;
    Keys::write_new(&args.file, &secret).with_context(|| format!("the key file {}", args.file.display()))?;
    print(
        args.output.printer(),
        &args.file,
        &keys.account(),
        Some("Back the file up: nobody can recover it."),
    )
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
            let mut lines = vec![
                ("file", file.display().to_string()),
                ("address", address.clone()),
                ("account", hex.clone()),
            ];
            lines.extend(advice.map(|advice| ("", advice.to_owned())));
            pairs(&lines)
        },
    )
}
