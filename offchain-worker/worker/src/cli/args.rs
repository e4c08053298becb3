//! Every command and flag of `poq`. Secrets are never argument values: flags take the path of a file that holds them.

use crate::cli::amount::Amount;
use clap::{Args, Parser, Subcommand, ValueEnum};
use poq_chain::{signer::parse_account, AccountId32};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a node answers by default: where `substrate-contracts-node`, `poq devnet` and the development node listen.
pub(crate) const DEFAULT_URL: &str = "ws://127.0.0.1:9944";
/// What `poq deploy` writes and every other command reads by default.
pub(crate) const DEPLOYMENT_FILE: &str = "deployment.json";

/// Proof of Quality: ask, answer, score, settle and claim on a pallet-contracts chain.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the contract, 4 the node cannot be reached or the failure
/// will pass, 5 what the chain paid differs from what the formulas say.
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
    #[arg(long, global = true, env = "POQ_LOG", value_name = "FILTER", help_heading = "Output")]
    pub(crate) log: Option<String>,
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the chain and the contract.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Chain")]
pub(crate) struct Connection {
    /// The chain node's websocket address, or several separated by commas, of which the first that answers is used.
    /// Where it is not given, the deployment file's is used, and without one ws://127.0.0.1:9944.
    #[arg(long, env = "POQ_URL", value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address (SS58 or 0x and 64 hexadecimal digits), or the path of a deployment file written by
    /// `poq deploy`. Where it is not given, deployment.json in the current folder is used if there is one.
    #[arg(long, env = "POQ_CONTRACT", value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// When a transaction counts as done: as soon as it is in a best block, or once that block is final.
    #[arg(long, env = "POQ_CONFIRM", value_enum, default_value_t = Confirm::Best)]
    pub(crate) confirm: Confirm,
    /// How long to try to reach the node before giving up.
    #[arg(long, env = "POQ_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = duration)]
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
    #[arg(long, env = "POQ_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// The file with the keystore's password; without it the password is asked for on the terminal.
    #[arg(long, env = "POQ_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// How results are written.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Writes the result to standard output as one JSON document, with amounts as decimal strings in the smallest unit.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Uploads and instantiates the contract and sets its task kinds; writes a deployment file.
    Deploy(DeployArgs),
    /// Registers, stakes, changes and shows nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Runs nodes: answers and scores tasks, and moves late tasks on.
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Requests, follows and collects tasks.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Appoints auditors, bonds, and opens the references of gold tasks.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Recomputes every number of every reward of a task from chain data and compares it with what the chain paid.
    Explain(ExplainArgs),
    /// Shows an account's money: free, staked, locked, unbonding, pending, claimable and withdrawn. Needs no key.
    Balance(BalanceArgs),
    /// Pays out what nodes have earned.
    Claim(ClaimArgs),
    /// Shows and sets the contract's parameters.
    #[command(subcommand)]
    Params(ParamsCommand),
    /// Shows and withdraws what the protocol has earned beyond what it owes.
    #[command(subcommand)]
    Treasury(TreasuryCommand),
    /// Shows and hands over the contract's ownership, and pauses new tasks.
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Does whatever step is due for tasks once, as a keeper does: draws panels, settles, refunds.
    Advance(AdvanceArgs),
    /// Checks what a worker needs before it starts, and says what is missing.
    Check(CheckArgs),
    /// Makes and inspects key files.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Runs a development chain in this process and serves it on a websocket. Its state is gone when it stops.
    #[cfg(feature = "embedded")]
    Devnet(DevnetArgs),
    /// Lists, checks and names rubrics: how evaluators score.
    #[command(subcommand)]
    Rubric(RubricCommand),
    /// Measures quality signals: runs models, scores what they answer, reports which score can be trusted.
    Experiment(poq_experiments::cli::ExperimentArgs),
    /// Simulates networks, honest and attacked, on the contract's own arithmetic.
    Simulate(poq_simulator::cli::SimulateArgs),
    /// Runs a whole network with real models: request, answer, score, settle, claim; then checks every unit of money.
    Demo(DemoArgs),
}

/// `poq deploy`.
#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
    /// The built contract: a .contract bundle, or the .wasm file. Where it is not given, contracts/artifacts/poq.contract
    /// is looked for in the current folder and the folders above it.
    #[arg(long, env = "POQ_ARTIFACT", value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
    /// A file with the global parameters and the task kinds to set (see `poq params show --defaults`). Where it is not
    /// given, kind 1 is set with the shipped defaults: questions, scored by the rubric for them.
    #[arg(long, env = "POQ_PARAMS_FILE", value_name = "FILE")]
    pub(crate) params: Option<PathBuf>,
    /// Sets the defaults for a network that has no auditors: trust follows from agreeing scores instead of opened references,
    /// and no task waits for an opening.
    #[arg(long, env = "POQ_WITHOUT_AUDITORS", conflicts_with = "params")]
    pub(crate) without_auditors: bool,
    /// Milliseconds from unstaking to withdrawal; overrides the file.
    #[arg(long, env = "POQ_UNBONDING_MS", value_name = "MS")]
    pub(crate) unbonding_ms: Option<u64>,
    /// Milliseconds from a task's end until anyone may collect it for its requester; overrides the file.
    #[arg(long, env = "POQ_ARCHIVE_MS", value_name = "MS")]
    pub(crate) archive_ms: Option<u64>,
    /// A text that tells several deployments of the same code by the same account apart.
    #[arg(long, env = "POQ_SALT", value_name = "TEXT", default_value = "")]
    pub(crate) salt: String,
    /// Takes the contract that is already there when the same account has deployed the same code with the same salt.
    #[arg(long, env = "POQ_REUSE")]
    pub(crate) reuse: bool,
    /// Where to write the deployment file.
    #[arg(long, env = "POQ_DEPLOYMENT", value_name = "FILE", default_value = DEPLOYMENT_FILE)]
    pub(crate) out: PathBuf,
    /// Replaces the deployment file if it is there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `poq node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Registers a node; the key's account becomes its owner.
    Register(RegisterArgs),
    /// Adds stake to a node.
    Stake(NodeAmountArgs),
    /// Starts to take stake out of a node; it can be withdrawn when the unbonding period is over.
    Unstake(UnstakeArgs),
    /// Withdraws stake whose unbonding period is over.
    Withdraw(NodeKeyArgs),
    /// Stops a node from being drawn; it finishes what it has.
    Drain(NodeKeyArgs),
    /// Lets a drained node be drawn again.
    Resume(NodeKeyArgs),
    /// Removes a node that has no stake, duties or rewards left.
    Deregister(NodeKeyArgs),
    /// Changes a node's operator, payee, endpoint or price.
    Configure(ConfigureArgs),
    /// Shows one node.
    Show(NodeShowArgs),
    /// Lists nodes.
    List(NodeListArgs),
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs a language model and answers.
    Inference,
    /// Scores answers.
    Evaluator,
}

/// `poq node register`.
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
    /// What the node does.
    #[arg(long, env = "POQ_NODE_ROLE", value_enum)]
    pub(crate) role: RoleArg,
    /// The number of the task kind that it serves.
    #[arg(long, env = "POQ_KIND", value_name = "N", default_value_t = 1)]
    pub(crate) kind: u16,
    /// The hot account that does the node's duties: an address, or the path of its key file.
    #[arg(long, env = "POQ_NODE_OPERATOR", value_name = "ACCOUNT|FILE")]
    pub(crate) operator: String,
    /// The account that rewards are paid to; the owner's where it is not given.
    #[arg(long, env = "POQ_NODE_PAYEE", value_name = "ACCOUNT", value_parser = account)]
    pub(crate) payee: Option<AccountId32>,
    /// The name of the model that the node runs.
    #[arg(long, env = "POQ_NODE_MODEL", value_name = "NAME")]
    pub(crate) model: String,
    /// The model's digest (0x and 64 hexadecimal digits). Where it is not given, it is that of the installed manifest's
    /// model of that name.
    #[arg(long, env = "POQ_NODE_MODEL_DIGEST", value_name = "HASH", value_parser = hash)]
    pub(crate) model_digest: Option<[u8; 32]>,
    /// The URL under which the node's worker serves its blobs (its `blobs.public_url`).
    #[arg(long, env = "POQ_NODE_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: String,
    /// What the node asks per task: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(long, env = "POQ_NODE_PRICE", value_name = "AMOUNT", default_value = "0")]
    pub(crate) price: Amount,
    /// The stake that goes in with the registration; a node below its kind's minimum is not drawn.
    #[arg(long, env = "POQ_NODE_STAKE", value_name = "AMOUNT", default_value = "0")]
    pub(crate) stake: Amount,
}

/// A node and an amount.
#[derive(Args, Debug)]
pub(crate) struct NodeAmountArgs {
    /// The node's number.
    pub(crate) node: u32,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    pub(crate) amount: Amount,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq node unstake`.
#[derive(Args, Debug)]
pub(crate) struct UnstakeArgs {
    /// The node's number.
    pub(crate) node: u32,
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(required_unless_present = "all")]
    pub(crate) amount: Option<Amount>,
    /// Takes out all of the free stake.
    #[arg(long, conflicts_with = "amount")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A node and a key.
#[derive(Args, Debug)]
pub(crate) struct NodeKeyArgs {
    /// The node's number.
    pub(crate) node: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq node configure`.
#[derive(Args, Debug)]
#[group(id = "change", multiple = true)]
pub(crate) struct ConfigureArgs {
    /// The node's number.
    pub(crate) node: u32,
    #[command(flatten)]
    pub(crate) change: NodeChangeArgs,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What `poq node configure` changes; at least one of it.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct NodeChangeArgs {
    /// The hot account that does the node's duties from now on: an address, or the path of its key file.
    #[arg(long, value_name = "ACCOUNT|FILE")]
    pub(crate) operator: Option<String>,
    /// The account that rewards are paid to from now on.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) payee: Option<AccountId32>,
    /// The URL under which the node's worker serves its blobs from now on.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// What the node asks per task from the next draw on.
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) price: Option<Amount>,
}

/// `poq node show`.
#[derive(Args, Debug)]
pub(crate) struct NodeShowArgs {
    /// The node's number.
    pub(crate) node: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq node list`.
#[derive(Args, Debug)]
pub(crate) struct NodeListArgs {
    /// Lists the nodes of this task kind only.
    #[arg(long, value_name = "N")]
    pub(crate) kind: Option<u16>,
    /// Lists the nodes of this role only.
    #[arg(long, value_enum)]
    pub(crate) role: Option<RoleArg>,
    /// Lists the nodes of this owner, operator or payee only.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) account: Option<AccountId32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq worker …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Runs the configured nodes until it is told to stop: once gracefully (SIGINT or SIGTERM), twice at once.
    Run(WorkerRunArgs),
    /// Writes a documented example of the configuration to standard output.
    ExampleConfig,
}

/// `poq worker run`.
#[derive(Args, Debug)]
pub(crate) struct WorkerRunArgs {
    /// The configuration file. Where it is not given, ./poq.toml, $XDG_CONFIG_HOME/poq/poq.toml and /etc/poq/poq.toml are
    /// tried in turn. Environment variables POQ_<SECTION>__<KEY> override it, and the flags below override both.
    #[arg(long, short, env = "POQ_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The chain node's websocket address, or several separated by commas; overrides the configuration.
    #[arg(long, env = "POQ_URL", value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address, or the path of a deployment file; overrides the configuration.
    #[arg(long, env = "POQ_CONTRACT", value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// The file with the operator's key; overrides the configuration.
    #[arg(long, env = "POQ_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The file with the keystore's password; overrides the configuration.
    #[arg(long, env = "POQ_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The folder of the journal and the blobs; overrides the configuration.
    #[arg(long, env = "POQ_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The folder of the models; overrides the configuration.
    #[arg(long, env = "POQ_MODELS_DIR", value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
}

/// `poq task …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Requests a task: pays the fee into escrow and offers the input to the nodes that are drawn.
    Request(Box<RequestArgs>),
    /// Shows a task.
    Show(TaskShowArgs),
    /// Lists tasks that have not been collected.
    List(TaskListArgs),
    /// Waits until a task is settled or refunded.
    Wait(TaskWaitArgs),
    /// Fetches a task's answers from the nodes that gave them, checks them against their commitments and prints them.
    Answers(AnswersArgs),
    /// Takes the refunds of final tasks and frees their storage.
    Collect(CollectArgs),
}

/// `poq task request`.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// The passage that the question is about.
    #[arg(long, value_name = "TEXT", conflicts_with = "file", default_value = "")]
    pub(crate) context: String,
    /// The number of the task kind.
    #[arg(long, env = "POQ_KIND", value_name = "N", default_value_t = 1)]
    pub(crate) kind: u16,
    /// How many inference nodes are to answer.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) outputs: u8,
    /// How many evaluators are to score; the kind's smallest panel where it is not given.
    #[arg(long, short = 'k', value_name = "K", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) panel: Option<u8>,
    /// The fee: 1.5 in the chain's unit, or 1500u in the smallest one; the smallest that is accepted where it is not given.
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) fee: Option<Amount>,
    /// A file with a reference answer (a gold task). Only its salted hash goes to the chain; what opens it is written to the
    /// ticket. Without it the request carries random bytes, which nobody can tell apart.
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: Option<PathBuf>,
    /// The auditor that will open the reference; the key's account where it is not given. A request that is to be told from
    /// others by nobody comes from another account than the auditor's.
    #[arg(long, value_name = "ACCOUNT", value_parser = account, requires = "reference")]
    pub(crate) auditor: Option<AccountId32>,
    /// Where to write what opens the reference, for `poq audit open`; gold-task-N.json where it is not given. Only its owner
    /// can read it.
    #[arg(long, value_name = "FILE", requires = "reference")]
    pub(crate) ticket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hosting: HostingArgs,
    /// Waits until the task is final, then prints its answers.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A task's input; one of it.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct InputArgs {
    /// The question that is to be answered.
    #[arg(long, value_name = "TEXT")]
    pub(crate) question: Option<String>,
    /// A file with the input as JSON (`{"version": 1, "context": "…", "question": "…"}`), or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Where the drawn nodes fetch a task's input; one of it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hosting the input")]
#[group(required = true, multiple = true)]
pub(crate) struct HostingArgs {
    /// The URL of a blob server that has the input or reads the folder given with --blob-dir, for example a worker's.
    #[arg(long, env = "POQ_BLOB_URL", value_name = "URL")]
    pub(crate) blob_url: Option<String>,
    /// A blob store to put the input into: a folder, or an object store's URL that the server at --blob-url serves.
    #[arg(long, env = "POQ_BLOB_DIR", value_name = "FOLDER|URL", requires = "blob_url")]
    pub(crate) blob_dir: Option<String>,
    /// Serves the input from this process at this address for as long as it waits (implies --wait). The nodes must be able
    /// to reach it; where they see it under another address, give that with --blob-url.
    #[arg(long, env = "POQ_BLOB_LISTEN", value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `poq task show`.
#[derive(Args, Debug)]
pub(crate) struct TaskShowArgs {
    /// The task's number.
    pub(crate) task: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq task list`.
#[derive(Args, Debug)]
pub(crate) struct TaskListArgs {
    /// Lists the tasks of this requester only.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) requester: Option<AccountId32>,
    /// Lists the tasks from this number on.
    #[arg(long, value_name = "TASK", default_value_t = 1)]
    pub(crate) from: u64,
    /// Lists at most so many tasks.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq task wait`.
#[derive(Args, Debug)]
pub(crate) struct TaskWaitArgs {
    /// The task's number.
    pub(crate) task: u64,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq task answers`.
#[derive(Args, Debug)]
pub(crate) struct AnswersArgs {
    /// The task's number.
    pub(crate) task: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq task collect`.
#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// The tasks' numbers.
    #[arg(required_unless_present = "all")]
    pub(crate) tasks: Vec<u64>,
    /// Collects every final task of the key's account.
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The task's number.
    pub(crate) task: u64,
    /// The block in which the task became final; needed for a task that has been collected, because the contract then no
    /// longer remembers it.
    #[arg(long, value_name = "BLOCK")]
    pub(crate) block: Option<u32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq balance`.
#[derive(Args, Debug)]
pub(crate) struct BalanceArgs {
    /// The account's address (SS58 or 0x and 64 hexadecimal digits).
    #[arg(value_parser = account)]
    pub(crate) account: AccountId32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq claim`.
#[derive(Args, Debug)]
pub(crate) struct ClaimArgs {
    /// The nodes' numbers; where none is given, every node that the key's account owns or is paid for.
    pub(crate) nodes: Vec<u32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq params …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ParamsCommand {
    /// Writes parameters as a file that `poq params set` and `poq deploy` read.
    Show(ParamsShowArgs),
    /// Sets global parameters and task kinds from a file; running tasks keep theirs. Only the contract's owner may.
    Set(ParamsSetArgs),
}

/// `poq params show`.
#[derive(Args, Debug)]
pub(crate) struct ParamsShowArgs {
    /// Shows this task kind only.
    #[arg(long, value_name = "N")]
    pub(crate) kind: Option<u16>,
    /// Shows this version of the kind's parameters; the newest where it is not given.
    #[arg(long, value_name = "VERSION", requires = "kind")]
    pub(crate) version: Option<u32>,
    /// Shows the shipped defaults instead of what is on chain; needs no chain.
    #[arg(long, conflicts_with_all = ["version"])]
    pub(crate) defaults: bool,
    /// With --defaults: those for a network that has no auditors.
    #[arg(long, requires = "defaults")]
    pub(crate) without_auditors: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq params set`.
#[derive(Args, Debug)]
pub(crate) struct ParamsSetArgs {
    /// The file: TOML, or JSON if its name ends in .json. What it leaves out stays as it is.
    pub(crate) file: PathBuf,
    /// Checks the file and shows what would change, and sends nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq treasury …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TreasuryCommand {
    /// Shows what the contract holds and owes.
    Show(ReadArgs),
    /// Withdraws from the treasury. Only the contract's owner may.
    Withdraw(WithdrawArgs),
}

/// A read command without arguments of its own.
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A command that signs, without arguments of its own.
#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq treasury withdraw`.
#[derive(Args, Debug)]
pub(crate) struct WithdrawArgs {
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(required_unless_present = "all")]
    pub(crate) amount: Option<Amount>,
    /// Withdraws all of the treasury.
    #[arg(long, conflicts_with = "amount")]
    pub(crate) all: bool,
    /// The account that gets it; the key's where it is not given.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) to: Option<AccountId32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq rubric …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RubricCommand {
    /// Lists the rubrics that ship with this build, with the hashes that a task kind names them by.
    List(RubricListArgs),
    /// Checks a rubric's file and shows its hash, its profiles and its weights.
    Show(RubricShowArgs),
}

/// `poq rubric list`.
#[derive(Args, Debug)]
pub(crate) struct RubricListArgs {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq rubric show`.
#[derive(Args, Debug)]
pub(crate) struct RubricShowArgs {
    /// The rubric's file, or `qa` or `summarisation` for one that ships with this build.
    #[arg(value_name = "FILE|KIND")]
    pub(crate) rubric: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Shows an auditor: appointed or not, its bond, how many tasks it has settled.
    Show(AuditorArgs),
    /// Appoints an auditor; it then has to bond. The contract's owner does.
    Appoint(AppointArgs),
    /// Dismisses an auditor, and takes part of its bond to the treasury where it abused its role. The contract's owner does.
    Dismiss(DismissArgs),
    /// Adds to the key's bond as an auditor; without an amount, what is missing.
    Bond(BondArgs),
    /// Resigns as an auditor; given again once the unbonding period is over, pays the bond back.
    Unbond(SignArgs),
    /// Opens a gold task's reference: fetches the outputs and settles the task by it.
    Open(OpenArgs),
}

/// `poq audit show`.
#[derive(Args, Debug)]
pub(crate) struct AuditorArgs {
    /// The auditor's account.
    #[arg(value_parser = account)]
    pub(crate) account: AccountId32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq audit appoint`.
#[derive(Args, Debug)]
pub(crate) struct AppointArgs {
    /// The account that is to be an auditor.
    #[arg(value_parser = account)]
    pub(crate) account: AccountId32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq audit dismiss`.
#[derive(Args, Debug)]
pub(crate) struct DismissArgs {
    /// The auditor's account.
    #[arg(value_parser = account)]
    pub(crate) account: AccountId32,
    /// What to take from its bond: 1.5 in the chain's unit, or 1500u in the smallest one.
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    pub(crate) slash: Amount,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq audit bond`.
#[derive(Args, Debug)]
pub(crate) struct BondArgs {
    /// The amount: 1.5 in the chain's unit, or 1500u in the smallest one.
    pub(crate) amount: Option<Amount>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq audit open`.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// The ticket that `poq task request --reference` wrote.
    pub(crate) ticket: PathBuf,
    /// The key file of the account that requested the task, which nodes serve its outputs to; the auditor's own where it is
    /// not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) requester_key_file: Option<PathBuf>,
    /// The file with the requester's keystore's password.
    #[arg(long, value_name = "FILE", requires = "requester_key_file")]
    pub(crate) requester_password_file: Option<PathBuf>,
    /// Waits until the task's scores are revealed.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq owner …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Shows the owner, who has been proposed as the next one, and whether new tasks are paused.
    Show(ReadArgs),
    /// Proposes the next owner, who then has to accept.
    Propose(ProposeArgs),
    /// Accepts the ownership that the key's account has been proposed for.
    Accept(SignArgs),
    /// Refuses new tasks. Claims, refunds and settlements go on.
    Pause(SignArgs),
    /// Takes new tasks again.
    Unpause(SignArgs),
}

/// `poq owner propose`.
#[derive(Args, Debug)]
pub(crate) struct ProposeArgs {
    /// The account that is to become the owner.
    #[arg(value_parser = account)]
    pub(crate) account: AccountId32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq advance`.
#[derive(Args, Debug)]
pub(crate) struct AdvanceArgs {
    /// The tasks' numbers; where none is given, every task that has a step due.
    pub(crate) tasks: Vec<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) signer: Signer,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The worker's configuration file, found as `poq worker run` finds it. Without one only the chain is checked.
    #[arg(long, short, env = "POQ_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The chain node's websocket address; overrides the configuration.
    #[arg(long, env = "POQ_URL", value_name = "URL[,URL…]")]
    pub(crate) url: Option<String>,
    /// The contract: its address, or the path of a deployment file; overrides the configuration.
    #[arg(long, env = "POQ_CONTRACT", value_name = "ADDRESS|FILE")]
    pub(crate) contract: Option<String>,
    /// The built contract that the one on chain should be, to compare their code hashes.
    #[arg(long, env = "POQ_ARTIFACT", value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
    /// How long to try to reach the node before giving up.
    #[arg(long, env = "POQ_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) connect_timeout: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq keys …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes a new key and writes its mnemonic to a file that only its owner can read. Prints the address, never the
    /// secret.
    Generate(GenerateArgs),
    /// Prints the address of a key file.
    Inspect(InspectArgs),
}

/// `poq keys generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// The file to write; refused if it is there.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq keys inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The key file whose address is to be printed.
    pub(crate) file: PathBuf,
    /// The file with the keystore's password; without it the password is asked for on the terminal.
    #[arg(long, env = "POQ_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `poq devnet`.
#[cfg(feature = "embedded")]
#[derive(Args, Debug)]
pub(crate) struct DevnetArgs {
    /// Where to serve the chain; port 0 takes a free one.
    #[arg(long, env = "POQ_DEVNET_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:9944")]
    pub(crate) listen: SocketAddr,
    /// Seals a block every so often instead of whenever there is a transaction.
    #[arg(long, env = "POQ_DEVNET_BLOCK_TIME", value_name = "DURATION", value_parser = duration)]
    pub(crate) block_time: Option<Duration>,
    /// How many blocks of old state can be read.
    #[arg(long, env = "POQ_DEVNET_HISTORY", value_name = "BLOCKS", default_value_t = 4096)]
    pub(crate) history: u32,
}

/// `poq demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Runs on this chain node instead of on a chain in this process: any node with pallet-contracts.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Spawns the development node and runs on it over a websocket. scripts/build-node.sh builds the node.
    #[arg(long, conflicts_with = "url")]
    pub(crate) node: bool,
    /// The development node's program; where it is not given, it is looked for where scripts/build-node.sh puts it.
    #[arg(long, env = "POQ_NODE", value_name = "FILE")]
    pub(crate) node_bin: Option<PathBuf>,
    /// The file with the key of the account that pays for everything; on a development chain it is //Alice, which has money
    /// there. What is left goes back to it.
    // Not from the environment: what another command signs with must not pay for a demonstration by accident.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) key_file: Option<PathBuf>,
    /// The file with the keystore's password.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub(crate) password_file: Option<PathBuf>,
    /// How many questions to ask.
    #[arg(long, env = "POQ_DEMO_QUESTIONS", value_name = "COUNT", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) questions: u16,
    /// Decides which questions are asked.
    #[arg(long, env = "POQ_DEMO_SEED", value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Makes some of the nodes dishonest, as `poq simulate` spells it (boosting, noise=0.3, never-reveal, slow-delivery=30, …), and
    /// shows what cheating came to. Two evaluators are added where evaluators are attacked, and five score each task.
    #[arg(long, value_name = "ATTACK")]
    pub(crate) attack: Option<poq_simulator::Attack>,
    /// How many of the five evaluators are dishonest; two of five are more than the rules are made to stand.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "attack", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) dishonest: u8,
    /// The built contract; found as `poq deploy` finds it.
    #[arg(long, env = "POQ_ARTIFACT", value_name = "FILE")]
    pub(crate) artifact: Option<PathBuf>,
    /// The folder of the models that scripts/install-models.sh has installed.
    #[arg(long, env = "POQ_MODELS_DIR", value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
    /// The questions, as JSON lines with id, context and question; the installed ones where it is not given.
    #[arg(long, env = "POQ_DEMO_DATA", value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Keeps keys, journals and blobs in this folder instead of in a temporary one that is deleted at the end.
    #[arg(long, env = "POQ_DEMO_WORK_DIR", value_name = "FOLDER")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Writes nodes, tasks and the money check to this file as JSON.
    #[arg(long, env = "POQ_DEMO_JSON", value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// How long the whole run may take before it counts as failed.
    #[arg(long, env = "POQ_DEMO_TIMEOUT", value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// A duration such as `20s` or `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write 20s, 5m or 1h"))
}

/// An account's address.
fn account(text: &str) -> Result<AccountId32, String> {
    parse_account(text).map_err(|e| e.to_string())
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
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    fn refused(line: &str) -> ErrorKind {
        Cli::try_parse_from(line.split(' ')).unwrap_err().kind()
    }

    fn accepted(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap()
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

    #[test]
    fn commands_parse() {
        let Command::Node(NodeCommand::Stake(args)) = accepted("poq node stake 3 1.5 --key-file k").command
        else {
            panic!("another command");
        };
        assert_eq!((args.node, args.amount.resolve(12)), (3, Ok(1_500_000_000_000)));

        let Command::Task(TaskCommand::Request(args)) = accepted(
            "poq task request --question Why? --blob-url http://h:1 --key-file k --fee 1500u -n 3 -k 5 --wait",
        )
        .command
        else {
            panic!("another command");
        };
        assert_eq!((args.outputs, args.panel, args.wait), (3, Some(5), true));
        assert_eq!(args.fee, Some(Amount::Raw(1500)));

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
        assert_eq!(refused("poq demo --node --url ws://h:1"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("poq demo --questions 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("poq mine"), ErrorKind::InvalidSubcommand);
    }
}
