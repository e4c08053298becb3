//! `poq completions` and `poq man`: the command line's own description of itself, for shells and for `man`.

use crate::cli::args::Cli;
use crate::cli::output::write_out;
use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// `poq completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete; for bash, `poq completions bash > ~/.local/share/bash-completion/completions/poq`.
    shell: Shell,
}

/// `poq man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder for poq.1, poq-node.1, poq-node-register.1, …; it is made if it is not there.
    folder: PathBuf,
}

/// Runs `poq completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "poq", &mut text);
    write_out(&String::from_utf8(text).context("the completions are no text")?)
}

/// Runs `poq man`.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let folder = &args.folder;
    let context = || format!("cannot write the manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(context)?;
    let pages = std::fs::read_dir(folder).with_context(context)?.count();
    write_out(&format!("{pages} manual pages are in {}: `man -l {0}/poq.1`", folder.display()))
}
