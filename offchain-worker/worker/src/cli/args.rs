//! The command line's root, and the groups of flags that commands share; each command's own are in its module. Secrets are never
//! argument values: flags take the path of a file that holds them.

use crate::cli::{
    advance, audit, balance, check, claim, completions, demo, deploy, explain, explorer, index, keys, node,
    owner, params, pool, replay, rubric, task, transfer, treasury, worker,
};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use poq_chain::{signer::parse_account, AccountId32};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where a node answers by default: where `substrate-contracts-node`, `poq devnet` and the development node listen.
pub(crate) const DEFAULT_URL: &str = "ws://127.0.0.1:9944";
/// What `poq deploy` writes and every other command reads by default.
pub(crate) const DEPLOYMENT_FILE: &str = "deployment.json";

/// Proof of Quality: ask, answer, score, settle and claim on a pallet-contracts chain.
///
/// Every command that sends something shows first what it does and costs, and asks; --yes (or POQ_YES=1) does without the
/// question, --dry-run only shows.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the contract, 4 the node cannot be reached or the failure
/// will pass, 5 what the chain paid differs from what the formulas say. With --json an error is one JSON document, the last
/// line of standard error, with a `code` that does not change.
#[derive(Debug, Parser)]
#[command(
    name = "poq",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// Which log lines are written to standard error, in the syntax of tracing's EnvFilter (for example `info` or
    /// `poq_chain=debug`); `poq worker run` takes it from its configuration instead unless this is given.
    #[arg(
        long,
        global = true,
        env = "POQ_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        help_heading = "Output"
    )]
    pub(crate) log: Option<String>,
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Uploads and instantiates the contract and sets its task kinds; writes a deployment file.
    Deploy(deploy::DeployArgs),
    /// Registers, stakes, changes and shows nodes.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Makes staking pools, and stakes through them.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Runs nodes: answers and scores tasks, and moves late tasks on.
    #[command(subcommand)]
    Worker(worker::WorkerCommand),
    /// Requests tasks, sees them through, and collects them.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Appoints auditors, bonds, and opens the references of gold tasks.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Recomputes every number of every reward of a task from chain data and compares it with what the chain paid.
    Explain(explain::ExplainArgs),
    /// Keeps the network's whole history in a database: every event since the contract's birth, and what follows from it.
    Index(index::IndexArgs),
    /// Recomputes every settlement of an index and compares it, to the unit, with what the chain paid.
    Replay(replay::ReplayArgs),
    /// Serves an index as pages for people and as an API for programs.
    Explorer(explorer::ExplorerArgs),
    /// Shows an account's money: spendable, held and frozen on the chain; staked, pending and claimable in the contract. Needs
    /// no key.
    Balance(balance::BalanceArgs),
    /// Sends money from the key's account to another one.
    Transfer(transfer::TransferArgs),
    /// Pays out what nodes have earned, and the account's credit.
    Claim(claim::ClaimArgs),
    /// Shows the contract's parameters and announces others.
    #[command(subcommand)]
    Params(params::ParamsCommand),
    /// Shows what the contract holds and owes, withdraws the treasury, and sends what is burned away.
    #[command(subcommand)]
    Treasury(treasury::TreasuryCommand),
    /// Shows the contract's owner and what is announced, enacts it, hands the contract over, and pauses new tasks.
    #[command(subcommand)]
    Owner(owner::OwnerCommand),
    /// Does whatever step is due for tasks once, as a keeper does: fills panels, settles, ends what failed.
    Advance(advance::AdvanceArgs),
    /// Checks what a worker needs before it starts, and says what is missing.
    Check(check::CheckArgs),
    /// Makes and inspects key files.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Runs a development chain in this process and serves it on a websocket. Its state is gone when it stops.
    #[cfg(feature = "embedded")]
    Devnet(crate::cli::devnet::DevnetArgs),
    /// Lists, checks and names rubrics: how evaluators score.
    #[command(subcommand)]
    Rubric(rubric::RubricCommand),
    /// Measures quality signals: runs models, scores what they answer, reports which score can be trusted.
    Experiment(poq_experiments::cli::ExperimentArgs),
    /// Simulates networks, honest and attacked, on the contract's own arithmetic.
    Simulate(poq_simulator::cli::SimulateArgs),
    /// Runs a whole network with real models: request, answer, score, settle, claim; then checks every unit of money.
    Demo(demo::DemoArgs),
    /// Writes what makes a shell complete `poq` and its flags to standard output.
    Completions(completions::CompletionsArgs),
    /// Writes the manual pages of `poq` and of each of its commands into a folder.
    Man(completions::ManArgs),
}

/// How to reach the chain and the contract.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Chain")]
pub(crate) struct Connection {
    /// The chain node's websocket address, or several separated by commas, of which the first that answers is used.
    /// Where it is not given, the deployment file's is used, and without one ws://127.0.0.1:9944.
    #[arg(long, env = "POQ_URL", hide_env_values = true, value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address (SS58 or 0x and 64 hexadecimal digits), or the path of a deployment file written by
    /// `poq deploy`. Where it is not given, deployment.json in the current folder is used if there is one.
    #[arg(long, env = "POQ_CONTRACT", hide_env_values = true, value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// When a transaction counts as done: as soon as it is in a best block, or once that block is final.
    #[arg(long, env = "POQ_CONFIRM", hide_env_values = true, value_enum, default_value_t = Confirm::Best)]
    pub(crate) confirm: Confirm,
    /// How long to try to reach the node before giving up.
    #[arg(long, env = "POQ_CONNECT_TIMEOUT", hide_env_values = true, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) connect_timeout: Duration,
}

/// When a transaction counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Confirm {
    /// As soon as it is in a best block.
    Best,
    /// Once that block is final.
    Finalized,
}

/// Whose key signs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Key")]
pub(crate) struct Signer {
    /// The file with the key that signs: a polkadot-js keystore (JSON), or a text file with a mnemonic, a secret URI or a
    /// 0x seed that only its owner can read (mode 0600). `poq keys generate` writes one.
    #[arg(long, env = "POQ_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// The file with the keystore's password; without it the password is asked for on the terminal.
    #[arg(long, env = "POQ_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Whether and how to ask before something is sent.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Before it is sent")]
pub(crate) struct Consent {
    /// Sends without asking. Where there is no terminal to ask on, nothing is sent without it.
    #[arg(long, short = 'y', env = "POQ_YES", hide_env_values = true, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    /// Shows what would be done and what it would cost, and sends nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How results are written.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Writes the result to standard output as one JSON document, with amounts as decimal strings in the smallest unit; an error
    /// goes to standard error as one.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What every command that only reads takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What every command that sends something takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// An account as people name it: by its address, or by a key file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// By its address.
    Address(AccountId32),
    /// By a key file that is there.
    File(PathBuf),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Who, String> {
        match parse_account(text) {
            Ok(account) => Ok(Who::Address(account)),
            Err(_) if PathBuf::from(text).is_file() => Ok(Who::File(text.into())),
            Err(error) => Err(format!("{error}; nor is there a key file {text}")),
        }
    }
}

/// A duration such as `20s` or `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write 20s, 5m or 1h"))
}

/// A hash of 32 bytes.
pub(crate) fn hash(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_| "a hash is 64 hexadecimal digits, with or without 0x".to_owned())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::amount::Amount;
    use crate::cli::node::NodeCommand;
    use crate::cli::task::TaskCommand;
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    fn refused(line: &str) -> ErrorKind {
        Cli::try_parse_from(line.split(' ')).unwrap_err().kind()
    }

    fn accepted(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap()
    }

    /// Every command without commands of its own, with its path.
    fn leaves(command: &clap::Command, path: &str, out: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        if command.get_subcommands().next().is_none() {
            out.push((path, command.clone()));
            return;
        }
        command.get_subcommands().for_each(|c| leaves(c, &path, out));
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every flag of every command says in a full sentence what it does.
    #[test]
    fn every_flag_is_documented_in_a_sentence() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            for arg in command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
            {
                let help =
                    arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
                assert!(help.split(' ').count() >= 3, "{path} {}: {help:?}", arg.get_id());
            }
            command.get_subcommands().for_each(|c| walk(c, &path));
        }
        walk(&Cli::command(), "");
    }

    /// A secret on the command line shows in the process list and in the shell's history.
    #[test]
    fn no_flag_takes_a_secret_as_its_value() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                let secret = ["seed_phrase", "mnemonic", "suri", "secret", "password", "private_key"];
                assert!(!secret.contains(&name), "--{name} would take a secret as its value");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    /// What a variable holds may be a node's address with a key in it, and --help is what people paste.
    #[test]
    fn help_does_not_show_what_variables_hold() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                assert!(arg.is_hide_env_values_set(), "{path} --{}", arg.get_id());
            }
            command.get_subcommands().for_each(|c| walk(c, &path));
        }
        for command in Cli::command().get_subcommands() {
            // The other crates' own commands take no addresses from the environment.
            if !["simulate", "experiment"].contains(&command.get_name()) {
                walk(command, "");
            }
        }
    }

    /// Whatever signs with a key on this machine asks first, can be told not to, and can be tried without sending. The
    /// exceptions send nothing with it (they sign requests for blobs), or are a service or a demonstration.
    #[test]
    fn every_command_that_sends_can_be_tried_and_asks() {
        let silent = ["poq task answers", "poq worker run", "poq demo"];
        let mut all = Vec::new();
        leaves(&Cli::command(), "", &mut all);
        let mut sending = 0;
        for (path, command) in all {
            let has = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
            if has("key_file") && !silent.contains(&path.trim()) {
                sending += 1;
                assert!(has("yes") && has("dry_run") && has("json"), "{path}");
            } else {
                assert!(!has("yes") && !has("dry_run"), "{path}");
            }
        }
        assert!(sending >= 20, "{sending}");
    }

    #[test]
    fn commands_parse() {
        let Command::Node(NodeCommand::Stake(args)) = accepted("poq node stake 3 1.5 --key-file k").command
        else {
            panic!("another command");
        };
        assert_eq!((args.node, args.amount.resolve(12)), (3, Ok(1_500_000_000_000)));

        let Command::Task(TaskCommand::Request(args)) = accepted(
            "poq task request --question Why? --blob-url http://h:1 --key-file k --fee 1500u -n 3 -k 5 --early --detach",
        )
        .command
        else {
            panic!("another command");
        };
        assert_eq!((args.outputs, args.panel, args.early, args.detach), (3, Some(5), true, true));
        assert_eq!(args.fee, Some(Amount::Raw(1500)));

        let Command::Task(TaskCommand::Request(args)) =
            accepted("poq task request --question Why? --inline --node 3 7 --key-file k").command
        else {
            panic!("another command");
        };
        assert_eq!((args.nodes, args.hosting.inline), (vec![3, 7], true));

        let Command::Demo(args) = accepted("poq demo --questions 3 --json out.json").command else {
            panic!("another command");
        };
        assert_eq!((args.questions, args.json), (3, Some("out.json".into())));
    }

    #[test]
    fn wrong_usage_is_refused() {
        assert_eq!(refused("poq node stake 3 1,5 --key-file k"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq node stake x 1 --key-file k"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq node unstake 3 --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("poq node unstake 3 1 --all --key-file k"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("poq node configure 3 --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("poq balance nobody"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq task request --blob-url u --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("poq task request --question q --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(
            refused("poq task request --question q --file f --blob-url u --key-file k"),
            ErrorKind::ArgumentConflict
        );
        for both in ["--inline --blob-url u", "--blob-url u -n 2 --node 1", "--listen 127.0.0.1:1 --detach"] {
            let line = format!("poq task request --question q --key-file k {both}");
            assert_eq!(refused(&line), ErrorKind::ArgumentConflict, "{both}");
        }
        assert_eq!(refused("poq owner enact --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("poq owner cancel kinds --key-file k"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq demo --url ws://h:1 --key-file k"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("poq demo --node --url ws://h:1"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("poq demo --questions 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq mine"), ErrorKind::InvalidSubcommand);
    }
}
