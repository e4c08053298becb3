//! The `poq` program as its users meet it: what it is told, what it says, and its exit status, against a real runtime with
//! the real contract behind a real websocket.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, missing_docs)]

use assert_cmd::Command;
use poq_sandbox::{SandboxConfig, SandboxNode, TimeMode, WsServer};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An hour in milliseconds: an epoch, as `poq deploy` sets it.
const HOUR: u64 = 60 * 60 * 1_000;

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const UNREACHABLE: i32 = 4;

/// A folder of its own, and `poq` started in it with nothing of this machine's configuration.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A key file that only its owner can read.
    fn key(&self, name: &str, secret: &str) -> PathBuf {
        let path = self.write(name, secret);
        restrict(&path, 0o600);
        path
    }

    fn poq(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("poq").unwrap();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POQ_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME");
        // What asks before it sends is answered beforehand; `Desk::unasked` is for tests of the question itself.
        command.env_remove("XDG_DATA_HOME").env("POQ_YES", "1").args(arguments);
        command.timeout(std::time::Duration::from_secs(120));
        command
    }

    /// `poq` without an answer given beforehand.
    fn unasked(&self, arguments: &[&str]) -> Command {
        let mut command = self.poq(arguments);
        command.env_remove("POQ_YES");
        command
    }

    /// What `poq` prints, which must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.poq(arguments).assert().success().get_output().stdout.clone();
        String::from_utf8(output).unwrap()
    }

    /// The error that `poq --json` writes to standard error, with its exit status.
    fn error(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.poq(arguments).assert().failure().get_output().clone();
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap();
        let value: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(value["error"]["exit"].as_i64(), output.status.code().map(i64::from), "{text}");
        (output.status.code().unwrap(), value["error"].clone())
    }

    fn address(&self, key: &str) -> String {
        self.json(&["keys", "inspect", key, "--json"])["address"].as_str().unwrap().to_owned()
    }

    /// Runs `poq`, which must succeed, and reads the JSON that it prints.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.poq(arguments).assert().success().get_output().stdout.clone();
        serde_json::from_slice(&output).unwrap()
    }

    /// Runs `poq`, which must fail with this status and say this on standard error.
    fn refuses(&self, arguments: &[&str], status: i32, says: &[&str]) {
        let mut assert = self.poq(arguments).assert().failure().code(status);
        for text in says {
            assert = assert.stderr(contains(*text));
        }
        // Nothing that went wrong looks like a crash.
        assert.stderr(contains("panicked").not());
    }
}

fn restrict(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
}

fn artifact() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/artifacts/poq.contract");
    path.canonicalize().unwrap().display().to_string()
}

/// A chain behind a websocket.
struct Chain {
    // Before the runtime that it runs on.
    server: Option<WsServer>,
    node: SandboxNode,
    runtime: Runtime,
    address: SocketAddr,
}

impl Chain {
    fn new() -> Chain {
        Chain::at(([127, 0, 0, 1], 0).into())
    }

    fn at(address: SocketAddr) -> Chain {
        Chain::with(address, SandboxConfig::default())
    }

    /// The chain goes by the machine's clock: a command that has not heard of a new block goes by it too.
    fn with(address: SocketAddr, config: SandboxConfig) -> Chain {
        let runtime = Runtime::new().unwrap();
        let node = SandboxNode::start(SandboxConfig { time: TimeMode::System, ..config }).unwrap();
        let server = runtime.block_on(node.serve_ws(address)).unwrap();
        Chain { address: server.address(), server: Some(server), node, runtime }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends the chain and starts another one, with nothing of the old one's state, at the same address.
    fn wiped(mut self) -> Chain {
        let address = self.address;
        if let Some(server) = self.server.take() {
            drop(server);
        }
        let Chain { runtime, node, .. } = self;
        drop(node);
        runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        Chain::at(address)
    }
}

/// A chain with the contract on it, Alice being its owner.
struct Network {
    chain: Chain,
    desk: Desk,
}

impl Network {
    fn new() -> Network {
        Network::on(Chain::new())
    }

    fn on(chain: Chain) -> Network {
        let desk = Desk::new();
        desk.key("alice.key", "//Alice");
        desk.key("bob.key", "//Bob");
        desk.key("charlie.key", "//Charlie");
        let (url, artifact) = (chain.url(), artifact());
        let arguments = ["deploy", "--url", &url, "--key-file", "alice.key", "--artifact", &artifact];
        desk.poq(&arguments).assert().success();
        Network { chain, desk }
    }

    /// A whole small network of nodes that nobody works for: Dave answers at a price, Eve, Ferdie and Bob score.
    fn populate(&self, price: &str) {
        for (number, secret) in ["//Dave", "//Eve", "//Ferdie", "//Bob"].into_iter().enumerate() {
            let key = format!("node{number}.key");
            self.desk.key(&key, secret);
            let (role, model, price) = match number {
                0 => ("inference", "smollm2-135m-instruct", price),
                _ => ("evaluator", "all-minilm-l6-v2", "0"),
            };
            let endpoint = "http://127.0.0.1:1";
            let mut arguments =
                vec!["node", "register", "--key-file", &key, "--role", role, "--model", model];
            arguments.extend(["--operator", "charlie.key", "--endpoint", endpoint, "--stake", "200"]);
            arguments.extend(["--price", price]);
            self.desk.poq(&arguments).assert().success();
        }
    }

    /// `poq node register` of an evaluator of Bob's.
    fn register(&self, stake: &str) -> Value {
        self.desk.json(&[
            "node",
            "register",
            "--json",
            "--key-file",
            "bob.key",
            "--role",
            "evaluator",
            "--operator",
            "charlie.key",
            "--model",
            "all-minilm-l6-v2",
            "--endpoint",
            "http://127.0.0.1:1",
            "--stake",
            stake,
        ])
    }
}

// ---------------------------------------------------------------------------------------------------- usage and keys

#[test]
fn without_arguments_it_tells_how_it_is_used() {
    let desk = Desk::new();
    desk.poq(&[]).assert().failure().code(USAGE).stderr(contains("Usage: poq"));
    desk.poq(&["--help"]).assert().success().stdout(contains("Exit status"));
    desk.refuses(&["mine"], USAGE, &["unrecognized subcommand 'mine'"]);
    desk.refuses(&["--log", "a=b=c", "params", "show", "--defaults"], USAGE, &["log filter"]);
}

#[test]
fn an_amount_that_is_none_is_refused_before_anything_is_sent() {
    let desk = Desk::new();
    for (amount, says) in [("1,5", "is not an amount"), ("1.5u", "cannot be divided"), ("", "is empty")] {
        desk.refuses(&["node", "stake", "1", amount, "--key-file", "k"], USAGE, &[says]);
    }
    let far = "0.0000000000000000001";
    let network = Network::new();
    network.desk.refuses(&["node", "stake", "1", far, "--key-file", "bob.key"], USAGE, &["decimals (12)"]);
}

#[test]
fn a_generated_key_is_private_and_never_printed() {
    let desk = Desk::new();
    let output = desk.poq(&["keys", "generate", "new.key", "--json"]).assert().success().get_output().clone();
    let secret = std::fs::read_to_string(desk.path("new.key")).unwrap();
    assert!(secret.split_whitespace().count() >= 12, "a mnemonic");
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(!printed.contains(secret.split_whitespace().next().unwrap()) || !printed.contains(secret.trim()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(desk.path("new.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let generated: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(desk.json(&["keys", "inspect", "new.key", "--json"])["address"], generated["address"]);
    desk.refuses(&["keys", "generate", "new.key"], FAILURE, &["new.key"]);
    assert_eq!(std::fs::read_to_string(desk.path("new.key")).unwrap(), secret, "it was not overwritten");
}

#[test]
fn a_wrong_key_file_is_refused_with_its_reason_and_without_its_content() {
    let desk = Desk::new();
    desk.refuses(&["keys", "inspect", "absent.key"], FAILURE, &["absent.key"]);
    desk.key("noise.key", "what mnemonic is this supposed to be");
    desk.refuses(&["keys", "inspect", "noise.key"], FAILURE, &["noise.key"]);
    let output = desk.poq(&["keys", "inspect", "noise.key"]).assert().failure().get_output().clone();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("supposed"), "the content is not repeated");
    desk.key("broken.json", "{\"encoded\": 1}");
    desk.refuses(&["keys", "inspect", "broken.json"], FAILURE, &["broken.json", "without a secret"]);
    let encoding = r#"{"content":["pkcs8","sr25519"],"type":["scrypt","xsalsa20-poly1305"],"version":"3"}"#;
    let backup =
        format!(r#"{{"encoded":"{}","encoding":{encoding},"address":"x","meta":{{}}}}"#, "A".repeat(400));
    desk.key("backup.json", &backup);
    desk.refuses(&["keys", "inspect", "backup.json"], USAGE, &["backup.json", "--password-file"]);
    desk.key("password", "secret");
    desk.refuses(
        &["keys", "inspect", "backup.json", "--password-file", "password"],
        FAILURE,
        &["backup.json", "password is wrong"],
    );
    #[cfg(unix)]
    {
        restrict(&desk.key("open.key", "//Alice"), 0o644);
        desk.refuses(&["keys", "inspect", "open.key"], FAILURE, &["open.key", "600"]);
    }
}

// ------------------------------------------------------------------------------------------------ chain and contract

#[test]
fn an_unreachable_node_is_told_with_its_address() {
    let desk = Desk::new();
    desk.key("alice.key", "//Alice");
    let contract = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let at = ["--url", "ws://127.0.0.1:1", "--contract", contract, "--connect-timeout", "2s"];
    for command in [vec!["node", "list"], vec!["balance", contract], vec!["claim", "--key-file", "alice.key"]]
    {
        desk.refuses(&[command, at.to_vec()].concat(), UNREACHABLE, &["127.0.0.1:1"]);
    }
    desk.refuses(&["node", "list", "--contract", contract, "--url", "not a url"], FAILURE, &["not a url"]);
}

#[test]
fn a_contract_that_is_not_named_is_asked_for() {
    let desk = Desk::new();
    desk.refuses(&["node", "list"], USAGE, &["--contract", "poq deploy"]);
    desk.refuses(&["node", "list", "--contract", "nowhere.json"], USAGE, &["nowhere.json"]);
    desk.write("odd.json", "{\"contract\": 5}");
    desk.refuses(&["node", "list", "--contract", "odd.json"], USAGE, &["odd.json", "poq deploy"]);
}

#[test]
fn deploying_writes_a_file_that_other_commands_read() {
    let network = Network::new();
    let desk = &network.desk;
    assert_eq!(desk.json(&["node", "list", "--json"]), Value::Array(vec![]));
    let deployment: Value =
        serde_json::from_str(&std::fs::read_to_string(desk.path("deployment.json")).unwrap()).unwrap();
    assert_eq!(deployment["kinds"], serde_json::json!([1]));
    let owner = desk.json(&["owner", "show", "--json"]);
    assert_eq!(
        (&owner["contract_owner"], &owner["paused"]),
        (&deployment["contract_owner"], &Value::Bool(false))
    );

    let (url, artifact) = (network.chain.url(), artifact());
    let again = ["deploy", "--url", &url, "--key-file", "alice.key", "--artifact", &artifact];
    desk.refuses(&again, USAGE, &["deployment.json", "--force"]);
    let reused = desk.json(&[&again[..], &["--out", "second.json", "--reuse", "--json"]].concat());
    assert_eq!((&reused["contract"], &reused["created"]), (&deployment["contract"], &Value::Bool(false)));
    let other = desk.json(&[&again[..], &["--out", "third.json", "--salt", "another", "--json"]].concat());
    assert_ne!(other["contract"], deployment["contract"]);
}

#[test]
fn deploying_something_that_is_no_contract_is_refused() {
    let (chain, desk) = (Chain::new(), Desk::new());
    desk.key("alice.key", "//Alice");
    let url = chain.url();
    let deploy = ["deploy", "--url", &url, "--key-file", "alice.key"];
    desk.refuses(&deploy, USAGE, &["contracts/artifacts/poq.contract", "build-contract.sh"]);
    desk.write("poq.contract", "{}");
    desk.refuses(&[&deploy[..], &["--artifact", "poq.contract"]].concat(), FAILURE, &["poq.contract"]);
    desk.write("poor.key", "");
    desk.key("poor.key", "//Nobody//Has//Money");
    let artifact = artifact();
    let poor = ["deploy", "--url", &url, "--key-file", "poor.key", "--artifact", &artifact];
    desk.refuses(&poor, FAILURE, &["Send it money"]);
    assert!(!desk.path("deployment.json").exists());
}

#[test]
fn a_wiped_chain_is_told_from_a_lost_contract() {
    let Network { chain, desk } = Network::new();
    let deployment: Value =
        serde_json::from_str(&std::fs::read_to_string(desk.path("deployment.json")).unwrap()).unwrap();
    let contract = deployment["contract"].as_str().unwrap().to_owned();
    let chain = chain.wiped();
    // The new chain has not even got as far as the old one, ...
    desk.refuses(&["node", "list"], FAILURE, &["there is no contract at", "poq deploy"]);
    // ... and when it has, the deployment's block is another one.
    for _ in 0..20 {
        chain.node.advance_ms(1_000).unwrap();
    }
    desk.refuses(&["node", "list"], FAILURE, &["was wiped", "poq deploy"]);
    let url = chain.url();
    let by_address = ["node", "list", "--contract", &contract, "--url", &url];
    desk.refuses(&by_address, FAILURE, &["there is no contract at", &contract]);
}

// -------------------------------------------------------------------------------------------------------------- nodes

#[test]
fn a_node_is_registered_staked_changed_and_removed() {
    let network = Network::new();
    let desk = &network.desk;
    assert_eq!(network.register("5")["node"], 1);
    let show = || desk.json(&["node", "show", "1", "--json"]);
    assert_eq!(show()["node"]["stake"]["bonded"], "5000000000000");
    desk.poq(&["node", "show", "1"]).assert().success().stdout(contains("not drawn: its stake is below"));
    desk.poq(&["node", "stake", "1", "257.5", "--key-file", "bob.key"]).assert().success();
    assert_eq!(show()["node"]["stake"]["bonded"], "262500000000000");
    desk.poq(&["node", "show", "1"]).assert().success().stdout(contains("active from the next epoch on"));

    desk.poq(&["node", "configure", "1", "--endpoint", "http://h:2", "--key-file", "bob.key"])
        .assert()
        .success();
    assert_eq!(show()["info"]["endpoint"], "http://h:2");
    network.chain.node.advance_ms(HOUR).unwrap();
    desk.poq(&["node", "list"])
        .assert()
        .success()
        .stdout(contains("active").and(contains("next epoch").not()));
    desk.poq(&["node", "drain", "1", "--key-file", "bob.key"])
        .assert()
        .success()
        .stdout(contains("drawn no more"));
    desk.poq(&["node", "show", "1"]).assert().success().stdout(contains("draining"));
    desk.poq(&["node", "resume", "1", "--key-file", "bob.key"]).assert().success();
    // It has the place that it has earned, whoever asks.
    desk.poq(&["node", "refresh", "--key-file", "charlie.key"])
        .assert()
        .success()
        .stdout(contains("no node"));
    desk.poq(&["node", "refresh", "1", "--key-file", "charlie.key"]).assert().success();

    let bob = desk.json(&["keys", "inspect", "bob.key", "--json"])["address"].as_str().unwrap().to_owned();
    let balance = desk.json(&["balance", &bob, "--json"]);
    assert_eq!((&balance["stake"], &balance["claimable"]), (&"262500000000000".into(), &"0".into()));
    desk.poq(&["balance", &bob]).assert().success().stdout(contains("262.5 UNIT"));

    desk.refuses(&["node", "deregister", "1", "--key-file", "bob.key"], REFUSED, &["deregister was refused"]);
    desk.refuses(
        &["node", "unstake", "1", "500", "--key-file", "bob.key"],
        REFUSED,
        &["unstake was refused"],
    );
    desk.poq(&["node", "unstake", "1", "--all", "--key-file", "bob.key"]).assert().success();
    desk.refuses(&["node", "withdraw", "1", "--key-file", "bob.key"], REFUSED, &["unbonding period"]);
    network.chain.node.advance_ms(30 * HOUR).unwrap();
    let withdrawn = desk.json(&["node", "withdraw", "1", "--key-file", "bob.key", "--json"]);
    assert_eq!(withdrawn["amount"], "262500000000000");
    desk.poq(&["node", "deregister", "1", "--key-file", "bob.key"]).assert().success();
    desk.refuses(&["node", "show", "1"], REFUSED, &["there is no node 1"]);
}

/// Each amount leaves by itself: none that is taken out later makes an earlier one wait.
#[test]
fn what_leaves_later_does_not_hold_up_what_left_before() {
    let network = Network::new();
    let desk = &network.desk;
    network.register("300");
    let unstake = |amount: &'static str| {
        desk.json(&["node", "unstake", "1", amount, "--key-file", "bob.key", "--json"])["until"]
            .as_u64()
            .unwrap()
    };
    let withdraw = ["node", "withdraw", "1", "--key-file", "bob.key"];
    let first = unstake("5");
    network.chain.node.advance_ms(7 * HOUR).unwrap();
    let shown = desk.text(&["node", "unstake", "1", "7", "--key-file", "bob.key", "--dry-run"]);
    assert!(shown.contains("5 UNIT from ") && shown.contains("7 UNIT from "), "{shown}");
    assert!(!shown.contains("again"), "{shown}");
    let second = unstake("7");
    assert!(second > first, "{second} {first}");
    desk.refuses(&withdraw, REFUSED, &["not over yet", "5 UNIT from "]);
    network.chain.node.advance_to_ms(first).unwrap();
    assert_eq!(desk.json(&["balance", "bob.key", "--json"])["withdrawable"], "5000000000000");
    let shown = desk.text(&["node", "unstake", "1", "1", "--key-file", "bob.key", "--dry-run"]);
    assert!(shown.contains("5 UNIT can be withdrawn already"), "{shown}");
    assert_eq!(desk.json(&[&withdraw[..], &["--json"]].concat())["amount"], "5000000000000");
    desk.refuses(&withdraw, REFUSED, &["not over yet", "7 UNIT from "]);
    network.chain.node.advance_to_ms(second).unwrap();
    assert_eq!(desk.json(&[&withdraw[..], &["--json"]].concat())["amount"], "7000000000000");
}

#[test]
fn what_a_stranger_may_not_do_with_a_node_is_refused() {
    let network = Network::new();
    network.register("10");
    let desk = &network.desk;
    for command in ["unstake", "withdraw", "drain", "deregister"] {
        let mut arguments = vec!["node", command, "1"];
        arguments.extend((command == "unstake").then_some("--all"));
        arguments.extend(["--key-file", "charlie.key"]);
        desk.refuses(&arguments, REFUSED, &["only the node's owner"]);
    }
    desk.refuses(&["claim", "1", "--key-file", "alice.key"], REFUSED, &["owner or payee"]);
    desk.refuses(&["claim", "1", "--key-file", "bob.key"], REFUSED, &["nothing to withdraw"]);
    desk.poq(&["claim", "--key-file", "bob.key"]).assert().success().stdout(contains("nothing to claim"));
    desk.refuses(&["node", "drain", "7", "--key-file", "bob.key"], REFUSED, &["no node of that number"]);
    desk.refuses(&["node", "stake", "1", "900_000_000", "--key-file", "bob.key"], FAILURE, &["cannot pay"]);
}

#[test]
fn a_registration_that_cannot_work_is_refused() {
    let network = Network::new();
    let register = |changes: &[&str]| {
        let mut arguments = vec!["node", "register", "--key-file", "bob.key", "--role", "evaluator"];
        for (flag, value) in [
            ("--operator", "charlie.key"),
            ("--model", "all-minilm-l6-v2"),
            ("--endpoint", "http://127.0.0.1:1"),
        ] {
            if !changes.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(changes);
        arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<String>>()
    };
    let refuses = |changes: &[&str], status, says: &[&str]| {
        let arguments = register(changes);
        network.desk.refuses(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), status, says);
    };
    refuses(&["--kind", "9"], REFUSED, &["no task kind 9"]);
    refuses(&["--model", "gpt-17"], USAGE, &["gpt-17", "--model-digest"]);
    refuses(&["--model-digest", "0x12"], USAGE, &["64 hexadecimal"]);
    refuses(&["--operator", "nobody"], USAGE, &["nobody"]);
    refuses(&["--endpoint", &format!("http://h.net/{}", "x".repeat(257))], USAGE, &["--endpoint", "256"]);
    refuses(&["--endpoint", "0.0.0.0:9955"], USAGE, &["--endpoint", "no scheme", "http://"]);
    refuses(&["--key-file", "alice.key"], USAGE, &["cannot be used multiple times"]);
}

/// Somebody who answers every request at an address of this machine with the same JSON.
fn answering(body: String) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// Addresses are looked at, and asked, before anything is paid for.
#[test]
fn an_address_is_checked_and_asked_before_money_moves() {
    let network = Network::new();
    let desk = &network.desk;
    let deployment: Value =
        serde_json::from_str(&std::fs::read_to_string(desk.path("deployment.json")).unwrap()).unwrap();
    let contract = poq_chain::signer::parse_account(deployment["contract"].as_str().unwrap()).unwrap();
    let genesis: poq_chain::H256 = deployment["genesis"].as_str().unwrap().parse().unwrap();
    let network_hash = poq_chain::Network::new(genesis, contract, HOUR).hash;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let health = |network: &str| {
        answering(format!(r#"{{"status":"ok","network":"{network}","time":{now}}}"#)).to_string()
    };
    let register = |endpoint: &str, more: &[&str]| {
        let start = ["node", "register", "--key-file", "bob.key", "--role", "evaluator", "--stake", "10"];
        let rest = ["--operator", "charlie.key", "--model", "all-minilm-l6-v2", "--endpoint", endpoint];
        desk.poq(&[&start[..], &rest, more].concat())
    };
    // A worker of this contract, of another one, and none: told, and no reason to refuse.
    let good = format!("http://{}", health(&hex::encode(network_hash)));
    let shown = register(&good, &["--dry-run"]).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(shown).unwrap().contains("a blob server of this contract answers there"));
    register(&good, &[]).assert().success().stderr(contains("nothing could be reached").not());
    let other = format!("http://{}", health(&"12".repeat(32)));
    register(&other, &[]).assert().success().stderr(contains("another contract or chain"));
    register("http://127.0.0.1:1", &[]).assert().success().stderr(contains("Is the worker running"));
    // `poq check` asks through the registered address.
    worker_config(&network, "charlie.key", "");
    let check = ["check", "--contract", "deployment.json"];
    desk.poq(&check).assert().failure().stdout(contains("a blob server of this contract answers there"));

    let configure = ["node", "configure", "1", "--key-file", "bob.key", "--endpoint"];
    desk.refuses(&[&configure[..], &["ftp://h.net"]].concat(), USAGE, &["--endpoint", "ftp"]);
    let ask = ["task", "request", "--question", "Why?", "--key-file", "alice.key"];
    desk.refuses(&[&ask[..], &["--blob-url", "h.net:80"]].concat(), USAGE, &["--blob-url", "no scheme"]);
    desk.refuses(&[&ask[..], &["--listen", "localhost:80"]].concat(), USAGE, &["127.0.0.1:80"]);
}

/// What only this machine can reach is warned about on a development chain, and refused on others.
#[test]
fn an_address_of_this_machine_is_refused_on_a_public_chain() {
    let config = SandboxConfig { chain_type: "Live", ..SandboxConfig::default() };
    let network = Network::on(Chain::with(([127, 0, 0, 1], 0).into(), config));
    let desk = &network.desk;
    let register = ["node", "register", "--key-file", "bob.key", "--role", "evaluator", "--stake", "10"];
    let rest =
        ["--operator", "charlie.key", "--model", "all-minilm-l6-v2", "--endpoint", "http://127.0.0.1:1"];
    desk.refuses(&[&register[..], &rest].concat(), USAGE, &["loopback", "public name"]);
    let ask = ["task", "request", "--question", "Why?", "--key-file", "alice.key", "--listen", "127.0.0.1:0"];
    desk.refuses(&ask, USAGE, &["loopback", "--blob-url"]);
    assert_eq!(desk.json(&["node", "list", "--json"]), Value::Array(vec![]));
}

// -------------------------------------------------------------------------------------------------------------- tasks

#[test]
fn a_request_that_cannot_be_drawn_or_paid_is_refused() {
    let network = Network::new();
    let desk = &network.desk;
    let request = |more: &[&str]| {
        let mut arguments =
            vec!["task", "request", "--key-file", "alice.key", "--blob-url", "http://127.0.0.1:1"];
        arguments.extend(more);
        arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<String>>()
    };
    let refuses = |more: &[&str], status, says: &[&str]| {
        let arguments = request(more);
        desk.refuses(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), status, says);
    };
    let question = ["--question", "Why?"];
    refuses(&question, REFUSED, &["too few independent nodes"]);
    refuses(&[&question[..], &["--fee", "1u"]].concat(), REFUSED, &["the fee does not fill every slot"]);
    refuses(&[&question[..], &["--kind", "5"]].concat(), REFUSED, &["no task kind 5"]);
    refuses(&[&question[..], &["-n", "200"]].concat(), REFUSED, &["1 to 4 answers"]);
    refuses(&[&question[..], &["-k", "2"]].concat(), REFUSED, &["3 to 15 evaluators"]);
    refuses(&["--question", " "], USAGE, &["question is empty"]);
    refuses(&["--file", "absent.json"], FAILURE, &["absent.json"]);
    desk.write("odd.json", "{\"question\": 5}");
    refuses(&["--file", "odd.json"], USAGE, &["odd.json"]);
    refuses(&["--question", &"x".repeat(100_000)], USAGE, &["65536"]);
    refuses(
        &[&question[..], &["--fee", "1000"]].concat(),
        REFUSED,
        &["above the kind's largest", "at most 10 UNIT"],
    );
    refuses(&[&question[..], &["--node", "1"]].concat(), REFUSED, &["inference: 1 wanted, 0 registered"]);
    let inline =
        ["task", "request", "--inline", "--key-file", "alice.key", "--question", &"x ".repeat(1_100)];
    desk.refuses(&inline, USAGE, &["a request carries 2048 at the most"]);
    refuses(&[&question[..], &["--reference", "absent.txt"]].concat(), FAILURE, &["absent.txt"]);
    // Nothing could be compared with these: every answer would score 0.
    for (text, says) in [("A", "score 0"), ("\u{feff}…", "score 0"), ("肖特", "spaces")] {
        desk.write("nothing.txt", text);
        refuses(&[&question[..], &["--reference", "nothing.txt"]].concat(), USAGE, &["nothing.txt", says]);
    }
    // The kind's rubric was calibrated for English.
    refuses(&["--question", "谁在擒杀中领先全队？"], REFUSED, &["question", "Mandarin", "English"]);
    for command in ["show", "wait", "answers"] {
        let mut arguments = vec!["task", command, "1"];
        arguments.extend((command == "answers").then_some(["--key-file", "alice.key"]).into_iter().flatten());
        desk.refuses(&arguments, REFUSED, &["there is no task 1"]);
    }
    desk.refuses(&["explain", "1"], REFUSED, &["no task of that number"]);
    desk.refuses(&["task", "collect", "1", "--key-file", "alice.key"], REFUSED, &["no task of that number"]);
    assert_eq!(desk.json(&["task", "list", "--json"]), Value::Array(vec![]));
    desk.poq(&["advance", "--key-file", "alice.key"])
        .assert()
        .success()
        .stdout(contains("no task has a step due"));
}

/// A task that nobody works on: its requester follows it to its refund with the command line alone.
#[test]
fn a_task_that_nobody_answers_is_refunded_explained_and_collected() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0");
    let arguments = [
        "task",
        "request",
        "--question",
        "Why?",
        "--blob-url",
        "http://127.0.0.1:1",
        "--key-file",
        "alice.key",
        "--detach",
        "--json",
    ];
    let requested = desk.json(&arguments);
    assert_eq!((&requested["task"], &requested["nodes"]), (&1.into(), &serde_json::json!([1])));
    desk.poq(&["task", "show", "1"]).assert().success().stdout(contains("inferring"));
    desk.refuses(&["task", "wait", "1", "--timeout", "1s"], UNREACHABLE, &["was not final within 1s"]);
    desk.refuses(&["explain", "1"], UNREACHABLE, &["not final"]);
    desk.refuses(
        &["task", "collect", "1", "--key-file", "alice.key"],
        REFUSED,
        &["neither settled nor refunded"],
    );
    desk.refuses(&["task", "answers", "1", "--key-file", "alice.key"], FAILURE, &["no answer"]);

    desk.refuses(&["task", "follow", "1", "--key-file", "bob.key"], REFUSED, &["only that account's key"]);

    network.chain.node.advance_ms(30 * 60 * 1_000).unwrap();
    let steps = desk.json(&["advance", "--key-file", "bob.key", "--json"]);
    assert_eq!(steps["steps"][0]["step"], "end: refunded: nobody delivered");
    // So long after it was due the step pays all that a step can pay.
    assert_eq!(steps["keeper_fees"], "10000000000");
    let view = desk.json(&["task", "wait", "1", "--json"]);
    // All comes back but what four keepers' steps could have cost.
    let fee: u128 = requested["fee_paid"].as_str().unwrap().parse().unwrap();
    let refund = (fee - 40_000_000_000).to_string();
    assert_eq!(view["task"]["refund"], refund);
    let explained = desk.json(&["explain", "1", "--json"]);
    assert_eq!(explained["ending"], "undelivered");
    assert_eq!(explained["differences"], serde_json::json!([]));
    desk.poq(&["explain", "1"]).assert().success();
    let collected = desk.json(&["task", "collect", "--all", "--key-file", "alice.key", "--json"]);
    assert_eq!(collected["refunds"], refund);
    // The contract has forgotten the task, and blocks have gone by since: the chain has not.
    for _ in 0..30 {
        network.chain.node.advance_ms(1_000).unwrap();
    }
    desk.refuses(&["task", "show", "1"], REFUSED, &["there is no task 1"]);
    assert_eq!(desk.json(&["explain", "1", "--json"]), explained, "after its collection too");
    desk.refuses(&["explain", "2"], REFUSED, &["no task of that number (2)", "newest one is 1"]);
    // The missed duty cost the node, and nobody has it; without a delivery the protocol earns nothing.
    let owed = desk.json(&["treasury", "show", "--json"])["liabilities"].clone();
    assert_eq!(owed["treasury"], "0");
    let slashed: u128 = explained["totals"]["slashed"].as_str().unwrap().parse().unwrap();
    // A fifth of two slots: 0.6 of the fee less 2 % and the keepers' reserve.
    let slot = (fee - fee / 50 - 40_000_000_000) * 6 / 10;
    assert!(slashed.abs_diff(slot * 2 / 5) <= 1, "{slashed} of slots of {slot}");
    assert_eq!(owed["burned"], (slashed + 30_000_000_000).to_string(), "3 unused steps");
    desk.refuses(&["treasury", "withdraw", "1", "--key-file", "bob.key"], REFUSED, &["contract's owner"]);
    desk.refuses(
        &["treasury", "withdraw", "1000", "--key-file", "alice.key"],
        REFUSED,
        &["withdraw_treasury"],
    );
    // Anybody can put it out of reach.
    let burned = desk.json(&["treasury", "burn", "--key-file", "charlie.key", "--json"]);
    assert_eq!(burned["burned"], owed["burned"]);
    desk.refuses(&["treasury", "burn", "--key-file", "charlie.key"], REFUSED, &["nothing to withdraw"]);
    // The keeper's fee is a credit, which claiming pays.
    assert_eq!(desk.json(&["balance", "bob.key", "--json"])["credit"], "10000000000");
    let claimed = desk.json(&["claim", "--key-file", "bob.key", "--json"]);
    assert_eq!((&claimed["credit"], &claimed["total"]), (&"10000000000".into(), &"10000000000".into()));
    desk.poq(&["claim", "--key-file", "bob.key"]).assert().success().stdout(contains("nothing to claim"));
}

/// A request can carry its input and name its node; what it carries is on chain for everybody.
#[test]
fn a_short_public_input_needs_no_server_and_nodes_can_be_named() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0");
    let start = ["task", "request", "--question", "Why?", "--inline", "--key-file", "alice.key", "--json"];
    let requested = desk.json(&[&start[..], &["--node", "1", "--early", "--detach"]].concat());
    assert_eq!((&requested["nodes"], &requested["input"]["inline"]), (&serde_json::json!([1]), &true.into()));
    let view = desk.json(&["task", "show", "1", "--json"]);
    assert_eq!((&view["task"]["early"], &view["task"]["input"]["url"]), (&true.into(), &"".into()));
    let shown = desk.text(&["task", "show", "1"]);
    assert!(shown.contains("in the request itself") && shown.contains("early"), "{shown}");
    // An evaluator answers nothing, whoever names it.
    let (status, error) = desk.error(&[&start[..], &["--node", "2", "--detach"]].concat());
    assert_eq!((status, &error["code"]), (REFUSED, &"too_few_nodes".into()));
}

// ------------------------------------------------------------------------------------------------- parameters, owner

#[test]
fn parameters_are_shown_set_and_refused() {
    let network = Network::new();
    let desk = &network.desk;
    desk.poq(&["params", "show", "--defaults"]).assert().success().stdout(contains("stake_min = \"200\""));
    // With auditors trust is anchored to what they open, and they get time; without, everybody has all of it. What is deployed
    // is what is shown.
    let defaults = desk.json(&["params", "show", "--defaults", "--json"]);
    assert_eq!(defaults["kinds"], desk.json(&["params", "show", "--json"])["kinds"]);
    assert!(
        defaults["kinds"]["1"]["trust"]["anchored"].is_object()
            && defaults["kinds"]["1"]["audit_ms"] == 60_000
    );
    let rubrics = desk.json(&["rubric", "list", "--json"]);
    let qa = rubrics.as_array().unwrap().iter().find(|rubric| rubric["task"] == "qa").unwrap();
    assert_eq!(qa["hash"], defaults["kinds"]["1"]["rubric_hash"]);
    let without = desk.json(&["params", "show", "--defaults", "--without-auditors", "--json"]);
    assert!(without["kinds"]["1"]["trust_initial"] == 1.0 && without["kinds"]["1"]["audit_ms"] == 0);
    let shown = desk.poq(&["params", "show"]).assert().success().get_output().stdout.clone();
    desk.write("same.toml", &String::from_utf8(shown).unwrap());
    let set = |file: &str, key: &str, more: &[&str]| {
        let mut arguments = vec!["params", "set", file, "--key-file", key];
        arguments.extend(more);
        desk.poq(&arguments)
    };
    set("same.toml", "alice.key", &[]).assert().success().stdout(contains("nothing differs"));

    desk.write("new.toml", "[kinds.1]\ntolerance = 0.02\n[kinds.7]\npanel_min = 5\n[global]\nunbonding_ms = 90_000_000\narchive_ms = 1000\n");
    set("new.toml", "alice.key", &["--dry-run"])
        .assert()
        .success()
        .stdout(contains("tolerance: 0.01 -> 0.02"));
    set("new.toml", "bob.key", &[]).assert().failure().code(REFUSED).stderr(contains("contract's owner"));
    set("new.toml", "alice.key", &[]).assert().success().stdout(contains("kind 1 now at version 2"));
    let shown = desk.json(&["params", "show", "--json"]);
    assert_eq!(shown["kinds"]["1"]["tolerance"], 0.02);
    assert_eq!(shown["kinds"]["7"]["panel_min"], 5);
    assert_eq!(shown["global"]["unbonding_ms"], 90_000_000);
    assert_eq!(shown["global"]["audits_per_epoch"], 64, "what a file leaves out stays");
    let old = desk.json(&["params", "show", "--kind", "1", "--version", "1", "--json"]);
    assert_eq!(old["kinds"]["1"]["tolerance"], 0.01);
    desk.refuses(&["params", "show", "--kind", "3"], REFUSED, &["no task kind 3"]);
    desk.refuses(&["params", "show", "--kind", "1", "--version", "9"], REFUSED, &["version 9"]);

    for (text, says) in [
        ("[kinds.1\n", "not valid TOML"),
        ("[kinds.1]\ntolerence = 0.1", "tolerence"),
        ("[kinds.1]\ntolerance = 3", "between 0 and 1"),
        ("[kinds.1]\nstake_min = \"5000\"", "stake_min must be"),
        ("[kinds.1]\nfee_max = \"5000\"", "stake_min / 16"),
        ("[kinds.1]\ncommit_ms = 4_000_000", "epoch_ms"),
        ("[global]\nunbonding_ms = 1000", "unbonding_ms must be at least"),
        ("[global]\nparams_delay_ms = 1000", "params_delay_ms at least unbonding_ms +"),
        ("", "sets nothing"),
    ] {
        desk.write("bad.toml", text);
        set("bad.toml", "alice.key", &[]).assert().failure().code(USAGE).stderr(contains(says));
    }
    set("absent.toml", "alice.key", &[]).assert().failure().stderr(contains("absent.toml"));
}

/// Once somebody has something in the contract, nothing that its owner changes acts before everybody could be out.
#[test]
fn what_the_owner_changes_waits_until_everybody_could_leave() {
    const DAY: u64 = 24 * HOUR;
    let network = Network::new();
    let desk = &network.desk;
    network.register("200");
    desk.write("new.toml", "[kinds.1]\ntolerance = 0.02\n");
    let set = ["params", "set", "new.toml", "--key-file", "alice.key"];
    let tolerance = || desk.json(&["params", "show", "--json"])["kinds"]["1"]["tolerance"].clone();
    let shown = desk.text(&[&set[..], &["--dry-run"]].concat());
    assert!(shown.contains("tolerance: 0.01 -> 0.02") && shown.contains("poq owner enact kind:1"), "{shown}");
    let sent = desk.json(&[&set[..], &["--json"]].concat());
    let acts_at = sent["changes"][0]["acts_at"].as_u64().unwrap();
    assert_eq!((&sent["changes"][0]["version"], tolerance()), (&Value::Null, 0.01.into()));
    desk.refuses(&set, REFUSED, &["announced already"]);
    // Whoever looks is told: at the parameters, at the owner, and before a worker starts.
    let shown = desk.text(&["params", "show"]);
    assert!(
        shown.contains("# announced: kind:1") && shown.contains("#   tolerance: 0.01 -> 0.02"),
        "{shown}"
    );
    let pending = desk.json(&["owner", "show", "--json"])["pending"].clone();
    assert_eq!((&pending[0]["name"], &pending[0]["due"]), (&"kind:1".into(), &false.into()));
    assert_eq!(pending[0]["acts_at"], acts_at);
    desk.poq(&["check", "--url", &network.chain.url()])
        .assert()
        .success()
        .stdout(contains("announced: kind:1"));
    desk.poq(&["owner", "enact", "--all", "--key-file", "bob.key"])
        .assert()
        .success()
        .stdout(contains("nothing that is announced can act yet"));
    network.chain.node.advance_ms(4 * DAY).unwrap();
    let enacted = desk.json(&["owner", "enact", "--all", "--key-file", "bob.key", "--json"]);
    assert_eq!((&enacted["enacted"], tolerance()), (&serde_json::json!(["kind:1"]), 0.02.into()));

    // What is withdrawn never acts, and only its owner withdraws it.
    desk.write("new.toml", "[global]\narchive_ms = 5000\n");
    desk.poq(&set).assert().success().stdout(contains("announced"));
    desk.refuses(&["owner", "cancel", "global", "--key-file", "bob.key"], REFUSED, &["contract's owner"]);
    desk.poq(&["owner", "cancel", "global", "--key-file", "alice.key"]).assert().success();
    desk.refuses(
        &["owner", "enact", "global", "--key-file", "bob.key"],
        REFUSED,
        &["no such change is announced"],
    );
    // A new kind takes nothing from anybody: it acts at once.
    desk.write("new.toml", "[kinds.7]\npanel_min = 5\n");
    desk.poq(&set).assert().success().stdout(contains("kind 7 now at version 1"));

    // Auditors come as slowly, and go at once; their bonds are burned as slowly.
    let charlie = desk.address("charlie.key");
    let appointed = desk.json(&["audit", "appoint", &charlie, "--key-file", "alice.key", "--json"]);
    assert_eq!(appointed["appointed"], false);
    desk.refuses(&["audit", "bond", "--key-file", "charlie.key"], REFUSED, &["bond was refused"]);
    network.chain.node.advance_ms(4 * DAY).unwrap();
    let lever = format!("auditor:{charlie}");
    desk.poq(&["owner", "enact", &lever, "--key-file", "bob.key"]).assert().success();
    desk.poq(&["audit", "bond", "--key-file", "charlie.key"]).assert().success();
    desk.poq(&["audit", "show", &charlie]).assert().success().stdout(contains("can open references"));
    desk.poq(&["audit", "dismiss", &charlie, "--key-file", "alice.key"]).assert().success();
    desk.poq(&["audit", "show", &charlie]).assert().success().stdout(contains("not appointed"));
    desk.poq(&["audit", "slash", &charlie, "5", "--key-file", "alice.key"])
        .assert()
        .success()
        .stdout(contains("slash:").and(contains("5 UNIT")));
}

#[test]
fn ownership_and_pause_are_the_owners() {
    let network = Network::new();
    let desk = &network.desk;
    let bob = desk.json(&["keys", "inspect", "bob.key", "--json"])["address"].as_str().unwrap().to_owned();
    desk.refuses(&["owner", "propose", &bob, "--key-file", "bob.key"], REFUSED, &["contract's owner"]);
    desk.refuses(&["owner", "accept", "--key-file", "bob.key"], REFUSED, &["not been proposed"]);
    desk.poq(&["owner", "propose", &bob, "--key-file", "alice.key"]).assert().success();
    desk.poq(&["owner", "accept", "--key-file", "bob.key"]).assert().success();
    assert_eq!(desk.json(&["owner", "show", "--json"])["contract_owner"], bob);
    desk.refuses(&["owner", "pause", "--key-file", "alice.key"], REFUSED, &["contract's owner"]);
    desk.poq(&["owner", "pause", "--key-file", "bob.key"]).assert().success();
    let request = ["task", "request", "--question", "Why?", "--inline", "--key-file", "alice.key"];
    desk.refuses(&request, REFUSED, &["paused"]);
    desk.poq(&["owner", "unpause", "--key-file", "bob.key"]).assert().success();
}

// ------------------------------------------------------------------------------------------------------------- worker

#[test]
fn the_example_configuration_is_one() {
    let desk = Desk::new();
    let example = desk.poq(&["worker", "example-config"]).assert().success().get_output().stdout.clone();
    let example = String::from_utf8(example).unwrap();
    assert!(toml::from_str::<toml::Table>(&example).unwrap().contains_key("chain"));
}

#[test]
fn a_malformed_configuration_is_told_with_file_and_key() {
    let desk = Desk::new();
    desk.refuses(&["worker", "run"], USAGE, &["no configuration was found", "example-config"]);
    desk.refuses(&["worker", "run", "--config", "absent.toml"], USAGE, &["absent.toml"]);
    for (text, says) in [
        ("[chain\n", "poq.toml"),
        ("[chain]\nurl = \"ws://h:1\"", "url"),
        ("[limits]\nmax_tokens = \"many\"", "max_tokens"),
        ("[chain]\npoll_interval = \"often\"", "poll_interval"),
        ("[[nodes]]\nid = 1\nrole = \"oracle\"\nmodel = \"m\"", "oracle"),
        ("[[nodes]]\nid = 1\nrole = \"evaluator\"\nmodel = \"m\"", "chain.contract"),
    ] {
        desk.write("poq.toml", text);
        desk.refuses(&["worker", "run"], USAGE, &[says]);
        desk.refuses(&["check", "--connect-timeout", "1s"], USAGE, &[]);
    }
}

/// A worker's configuration for node 1 of a network.
fn worker_config(network: &Network, key: &str, more: &str) {
    let text = format!(
        "data_dir = \"data\"\nmodels_dir = \"models\"\n[chain]\nurls = [\"{}\"]\n[keys]\noperator = \"{key}\"\n\
         [[nodes]]\nid = 1\nrole = \"evaluator\"\nmodel = \"all-minilm-l6-v2\"\n{more}",
        network.chain.url()
    );
    network.desk.write("poq.toml", &text);
}

#[test]
fn a_worker_without_its_model_its_key_or_its_contract_does_not_start() {
    let network = Network::new();
    network.register("20");
    let desk = &network.desk;
    let run = ["worker", "run", "--contract", "deployment.json"];

    worker_config(&network, "charlie.key", "");
    desk.refuses(&run, FAILURE, &["all-minilm-l6-v2", "models"]);
    worker_config(&network, "absent.key", "");
    desk.refuses(&run, USAGE, &["absent.key"]);
    worker_config(
        &network,
        "charlie.key",
        "[[nodes]]\nid = 1\nrole = \"evaluator\"\nmodel = \"all-minilm-l6-v2\"",
    );
    desk.refuses(&run, USAGE, &["nodes[1].id"]);

    let nowhere = format!("0x{}", "12".repeat(32));
    worker_config(&network, "charlie.key", "");
    desk.refuses(&["worker", "run", "--contract", &nowhere], FAILURE, &["there is no contract at"]);
    desk.refuses(&["worker", "run", "--contract", "nothing"], USAGE, &["nothing"]);
}

#[test]
fn check_finds_what_is_missing_and_goes_on() {
    let network = Network::new();
    network.register("5");
    let desk = &network.desk;
    worker_config(&network, "bob.key", "");
    let check = ["check", "--contract", "deployment.json"];
    let output = desk.poq(&[&check[..], &["--json"]].concat()).assert().failure().get_output().stdout.clone();
    let found: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(found["ok"], false);
    let result = |name: &str| {
        let all = found["checks"].as_array().unwrap();
        let line =
            all.iter().find(|line| line["check"] == name).unwrap_or_else(|| panic!("{name} in {found:#}"));
        line["result"].as_str().unwrap().to_owned()
    };
    for (name, expected) in [
        ("configuration", "ok"),
        ("node", "ok"),
        ("contract", "ok"),
        ("network", "ok"),
        ("epochs", "ok"),
        ("journal folder", "ok"),
        ("model all-minilm-l6-v2", "failed"),
        ("node 1: role", "ok"),
        ("node 1: model", "ok"),
        ("node 1: stake", "failed"),
        ("node 1: key", "failed"),
        ("node 1: funds", "ok"),
    ] {
        assert_eq!(result(name), expected, "{name}");
    }
    desk.poq(&check).assert().failure().stdout(contains("FAILED")).stdout(contains("poq node stake 1"));
    let nowhere = ["check", "--url", "ws://127.0.0.1:1", "--connect-timeout", "2s"];
    std::fs::remove_file(desk.path("poq.toml")).unwrap();
    desk.refuses(&nowhere, UNREACHABLE, &["127.0.0.1:1"]);
    desk.poq(&["check", "--url", &network.chain.url()]).assert().success().stdout(contains("only the chain"));
}

// ------------------------------------------------------------------------------------------------- devnet and demo

#[cfg(unix)]
#[test]
fn the_development_chain_serves_until_it_is_told_to_stop() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command as Process, Stdio};
    let desk = Desk::new();
    let program = assert_cmd::cargo::cargo_bin("poq");
    let mut child = Process::new(program)
        .args(["devnet", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().rsplit(' ').next().unwrap().to_owned();
    desk.key("alice.key", "//Alice");
    let artifact = artifact();
    let deploy = ["deploy", "--url", &url, "--key-file", "alice.key", "--artifact", &artifact];
    desk.poq(&deploy).assert().success();
    desk.poq(&["params", "show"]).assert().success();
    Process::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(child.wait().unwrap().success());
    desk.refuses(&["params", "show", "--connect-timeout", "2s"], UNREACHABLE, &[&url]);
}

#[test]
fn the_demonstration_says_what_it_lacks() {
    let desk = Desk::new();
    desk.refuses(&["demo"], USAGE, &["poq.contract"]);
    let artifact = artifact();
    desk.refuses(
        &["demo", "--artifact", &artifact],
        FAILURE,
        &["install-models.sh", "smollm2-135m-instruct"],
    );
    desk.write("work", "");
    desk.refuses(&["demo", "--artifact", &artifact, "--work-dir", "."], FAILURE, &["not empty"]);
    desk.refuses(&["demo", "--url", "ws://h:1", "--node"], USAGE, &["cannot be used with"]);
}

// ------------------------------------------------------------------------------------------------- files and formats

/// Every table, number and text as any TOML editor has it, and nothing else: a snapshot of the text itself, made by this build,
/// in which other crates turn on serde_json's `arbitrary_precision`.
#[test]
fn parameters_are_written_as_plain_toml_that_a_person_can_edit() {
    let desk = Desk::new();
    let text = desk.text(&["params", "show", "--defaults"]);
    let expected = include_str!("snapshots/params.toml");
    assert_eq!(text, expected, "tests/snapshots/params.toml is what `poq params show --defaults` wrote");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let plain = match line.split_once(" = ") {
            None => line.starts_with('[') && line.ends_with(']') && !line.contains('"'),
            Some((_, value)) => value.starts_with('"') || value.parse::<f64>().is_ok(),
        };
        assert!(plain, "{line}");
    }
    assert!(text.contains("\naudit_ms = 60000\n") && text.contains("\ntolerance = 0.01\n"));

    // One number changed by hand, as a person would.
    let network = Network::new();
    let desk = &network.desk;
    let shown = desk.text(&["params", "show"]);
    assert!(shown.contains("\naudit_ms = 60000\n"), "{shown}");
    desk.write("kinds.toml", &shown.replace("audit_ms = 60000", "audit_ms = 120_000"));
    let set = ["params", "set", "kinds.toml", "--key-file", "alice.key"];
    desk.poq(&set).assert().success().stdout(contains("audit_ms: 60000 -> 120000"));
    assert!(desk.text(&["params", "show"]).contains("\naudit_ms = 120000\n"));
    // What is written as JSON is read as JSON.
    desk.write("kinds.json", &desk.text(&["params", "show", "--json"]).replace("120000", "90000"));
    desk.poq(&["params", "set", "kinds.json", "--key-file", "alice.key"]).assert().success();
    assert_eq!(desk.json(&["params", "show", "--json"])["kinds"]["1"]["audit_ms"], 90_000);
}

/// Every command that writes JSON writes plain JSON, which reads back as what it was.
#[test]
fn whatever_is_written_as_json_is_plain() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0.5");
    let alice = desk.address("alice.key");
    let request = ["task", "request", "--question", "Why?", "--inline", "--detach"];
    desk.poq(&[&request[..], &["--key-file", "alice.key"]].concat()).assert().success();
    network.chain.node.advance_ms(30 * 60 * 1_000).unwrap();
    desk.poq(&["advance", "--key-file", "bob.key"]).assert().success();
    for arguments in [
        &["balance", &alice][..],
        &["explain", "1"],
        &["node", "list"],
        &["node", "show", "1"],
        &["task", "list"],
        &["task", "show", "1"],
        &["treasury", "show"],
        &["owner", "show"],
        &["params", "show"],
        &["rubric", "list"],
        &["rubric", "show", "qa"],
        &["keys", "inspect", "alice.key"],
        &["node", "stake", "4", "1", "--dry-run", "--key-file", "bob.key"],
        &["task", "collect", "1", "--key-file", "alice.key"],
        &["claim", "--key-file", "bob.key"],
        &["node", "unstake", "4", "1", "--key-file", "bob.key"],
    ] {
        let text = desk.text(&[arguments, &["--json"]].concat());
        plain_json(&text, &arguments.join(" "));
    }
    let file = std::fs::read_to_string(desk.path("deployment.json")).unwrap();
    plain_json(&file, "deployment.json");
}

fn plain_json(text: &str, what: &str) {
    assert!(!text.contains("serde_json"), "{what}: {text}");
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{what}: {e}: {text}"));
    let again: Value = serde_json::from_str(&value.to_string()).unwrap();
    assert_eq!(value, again, "{what}");
}

#[test]
fn what_the_simulator_writes_is_plain() {
    let desk = Desk::new();
    let quick = ["--rounds", "30", "--replications", "2"];
    let run = ["simulate", "run", "--json", "run.json"];
    desk.poq(&[&run[..], &quick].concat()).assert().success();
    let text = std::fs::read_to_string(desk.path("run.json")).unwrap();
    plain_json(&text, "run.json");
    let run: Value = serde_json::from_str(&text).unwrap();
    assert!(run["rounds"] == 30 && run["metrics"].as_object().unwrap().len() > 3, "{run}");

    let sweep = ["simulate", "sweep", "--out", "sweep.csv", "--attacks", "boosting=0.4", "--ratios", "0.2"];
    let narrow = ["--panels", "3", "--worlds", "wide", "--aggregations", "median", "--merits", "information"];
    desk.poq(&[&sweep[..], &narrow, &["--trusts", "relative-merit", "--gold", "0"], &quick].concat())
        .assert()
        .success();
    let text = std::fs::read_to_string(desk.path("sweep.csv")).unwrap();
    assert!(!text.contains("serde_json") && !text.contains('{'), "{text}");
    let mut table = csv::Reader::from_reader(text.as_bytes());
    let header = table.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert!(!rows.is_empty(), "{text}");
    for row in &rows {
        let numbers = row.iter().filter(|cell| cell.parse::<f64>().is_ok()).count();
        assert!(numbers * 2 > header.len(), "mostly numbers: {row:?}");
    }
}

// -------------------------------------------------------------------------------------------------------- the market

fn request<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let start = ["task", "request", "--question", "Why?", "--blob-url", "http://127.0.0.1:1", "--detach"];
    [&start[..], &["--key-file", "alice.key"], more].concat()
}

#[test]
fn the_default_fee_is_the_least_at_which_enough_nodes_can_be_drawn() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0.5");
    let shown = desk.json(&request(&["--dry-run", "--json"]));
    let fee: u128 = shown["amount"].as_str().unwrap().parse().unwrap();
    assert_eq!(shown["dry_run"], true);
    // A unit less is refused, and the refusal names the fee that would do.
    let less = format!("{}u", fee - 1);
    let (status, error) = desk.error(&request(&["--fee", &less, "--json"]));
    assert_eq!((status, &error["code"]), (REFUSED, &"too_few_nodes".into()));
    assert_eq!(error["details"]["inference"]["filtered"]["price"], 1);
    let unit = format!("{}.{:012}", fee / 1_000_000_000_000, fee % 1_000_000_000_000);
    assert!(error["message"].as_str().unwrap().contains(unit.trim_end_matches('0')), "{unit}: {error}");
    let requested = desk.json(&request(&["--json"]));
    assert_eq!(requested["fee_paid"], fee.to_string());
    assert_eq!(requested["nodes"], serde_json::json!([1]));
}

#[test]
fn a_draw_that_cannot_be_filled_says_what_filters_how_many() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0");
    desk.poq(&["node", "drain", "2", "--key-file", "node1.key"]).assert().success();
    desk.poq(&["node", "unstake", "3", "--all", "--key-file", "node2.key"]).assert().success();
    let (_, error) = desk.error(&request(&["--json"]));
    assert_eq!(error["code"], "too_few_nodes");
    let evaluators = &error["details"]["evaluators"];
    assert_eq!((&evaluators["registered"], &evaluators["can_be_drawn"]), (&3.into(), &1.into()));
    assert_eq!(
        (&evaluators["filtered"]["draining"], &evaluators["filtered"]["stake"]),
        (&1.into(), &1.into())
    );
    let says = [
        "evaluator: 3 wanted, 3 registered, 1 can be drawn",
        "1 draining",
        "1 with less stake than 200 UNIT",
    ];
    desk.refuses(&request(&[]), REFUSED, &says);
    // One's own nodes do not answer one's own questions.
    let own = ["task", "request", "--question", "Why?", "--blob-url", "http://127.0.0.1:1"];
    desk.refuses(&[&own[..], &["--key-file", "node0.key"]].concat(), REFUSED, &["1 your own"]);
    assert_eq!(desk.json(&["task", "list", "--json"]), Value::Array(vec![]), "nothing was paid for");
}

// ------------------------------------------------------------------------------------------------------------- money

#[test]
fn an_account_that_cannot_pay_is_told_what_is_needed_and_what_is_there() {
    let (chain, desk) = (Chain::new(), Desk::new());
    desk.key("poor.key", "//Nobody//Has//Money");
    let (url, artifact) = (chain.url(), artifact());
    let deploy = ["deploy", "--url", &url, "--artifact", &artifact, "--key-file", "poor.key"];
    desk.refuses(&deploy, FAILURE, &["at least ", "can spend 0 UNIT", "0.001 UNIT must remain"]);
    let (_, error) = desk.error(&[&deploy[..], &["--json"]].concat());
    assert_eq!(error["code"], "insufficient_funds");
    let needed: u128 = error["details"]["needed"].as_str().unwrap().parse().unwrap();
    assert!(needed > 200_000_000_000, "the code's deposit is counted: {error}");

    let network = Network::new();
    let desk = &network.desk;
    desk.key("poor.key", "//Nobody//Has//Money");
    // Enough for the amount, not for the fee and the deposit on top of it.
    desk.poq(&["transfer", "poor.key", "5", "--key-file", "alice.key"]).assert().success();
    let register = ["node", "register", "--key-file", "poor.key", "--role", "evaluator", "--stake", "4.99"];
    let rest =
        ["--operator", "charlie.key", "--model", "all-minilm-l6-v2", "--endpoint", "http://127.0.0.1:1"];
    let says = ["at least 4.99 UNIT, and fees and deposits on top", "can spend 4.999 UNIT"];
    desk.refuses(&[&register[..], &rest].concat(), FAILURE, &says);
    desk.refuses(&["node", "list", "--account", "nobody.key"], USAGE, &["nobody.key"]);
    assert_eq!(desk.json(&["node", "list", "--json"]), Value::Array(vec![]));
}

#[test]
fn what_is_held_is_shown_apart_from_what_can_be_spent() {
    let network = Network::new();
    let desk = &network.desk;
    let amount = |value: &Value, name: &str| value[name].as_str().unwrap().parse::<u128>().unwrap();
    // Alice uploaded the contract's code: its deposit is held on her account, and is not hers to spend.
    let alice = desk.json(&["balance", "alice.key", "--json"]);
    assert!(amount(&alice, "held") > 0, "the code's deposit: {alice}");
    let held: u128 = alice["holds"].as_array().unwrap().iter().map(|hold| amount(hold, "amount")).sum();
    assert_eq!(held, amount(&alice, "held"));
    let existential = amount(&alice, "existential_deposit");
    assert_eq!(amount(&alice, "total"), amount(&alice, "held") + amount(&alice, "spendable") + existential);
    network.register("5");
    assert_eq!(amount(&desk.json(&["balance", "bob.key", "--json"]), "stake"), 5_000_000_000_000);
    let text = desk.text(&["balance", "alice.key"]);
    for name in [
        "spendable",
        "held",
        "frozen",
        "stake",
        "unbonding",
        "escrow",
        "pending",
        "rewards",
        "credit",
        "refunds",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
}

#[test]
fn stake_is_not_given_away_by_mistake() {
    let network = Network::new();
    network.register("10");
    let stake = ["node", "stake", "1", "5", "--key-file", "alice.key"];
    network.desk.refuses(&stake, REFUSED, &["node 1 belongs to", "only the node's owner gets stake back"]);
}

#[test]
fn a_new_key_gets_its_money_from_a_development_key() {
    let network = Network::new();
    let desk = &network.desk;
    let generated = desk.text(&["keys", "generate", "new.key"]);
    assert!(generated.contains("poq transfer new.key") && generated.contains("poq keys dev"), "{generated}");
    let dev = desk.text(&["keys", "dev", "rich.key", "--name", "Eve"]);
    assert!(dev.contains("Everybody knows this key"), "{dev}");
    assert_eq!(std::fs::read_to_string(desk.path("rich.key")).unwrap().trim(), "//Eve");
    let sent = desk.json(&["transfer", "new.key", "12.5", "--key-file", "rich.key", "--json"]);
    assert_eq!(sent["amount"], "12500000000000");
    assert_eq!(desk.json(&["balance", "new.key", "--json"])["total"], "12500000000000");
    desk.key("other.key", "//Nobody//Has//Money");
    let (status, error) = desk.error(&["transfer", "other.key", "1u", "--key-file", "rich.key", "--json"]);
    assert_eq!((status, &error["code"]), (REFUSED, &"below_existential_deposit".into()));
    let back = ["transfer", &desk.address("rich.key"), "12.5", "--key-file", "new.key"];
    desk.refuses(&back, FAILURE, &["cannot pay", "of transaction fees", "can spend 12.499 UNIT"]);
}

// ---------------------------------------------------------------------------------------------------- before it is sent

/// Every command that sends, in a state in which it would do something.
fn sending() -> Vec<Vec<&'static str>> {
    [
        "node stake 4 1 --key-file bob.key",
        "node unstake 4 1 --key-file bob.key",
        "node drain 4 --key-file bob.key",
        "node configure 4 --endpoint http://127.0.0.1:2 --key-file bob.key",
        "node register --key-file bob.key --role evaluator --operator charlie.key --model all-minilm-l6-v2 \
         --endpoint http://127.0.0.1:1 --stake 10",
        "task request --question Why? --blob-url http://127.0.0.1:1 --detach --key-file alice.key",
        "transfer bob.key 1 --key-file alice.key",
        "audit appoint bob.key --key-file alice.key",
        "owner propose bob.key --key-file alice.key",
        "owner pause --key-file alice.key",
        "params set new.toml --key-file alice.key",
    ]
    .into_iter()
    .map(|line| line.split_whitespace().collect())
    .collect()
}

/// All that an account has, and how often it has sent anything.
fn standing(desk: &Desk) -> Value {
    let accounts = ["alice.key", "bob.key"].map(|key| desk.json(&["balance", key, "--json"]));
    let mut accounts = accounts.to_vec();
    for account in &mut accounts {
        account["block"] = Value::Null;
    }
    serde_json::json!({
        "accounts": accounts,
        "nodes": desk.json(&["node", "list", "--json"]),
        "owner": desk.json(&["owner", "show", "--json"]),
        "kinds": desk.json(&["params", "show", "--json"]),
    })
}

#[test]
fn nothing_is_sent_unasked() {
    let network = Network::new();
    let desk = &network.desk;
    network.populate("0");
    desk.write("new.toml", "[kinds.1]\ntolerance = 0.02\n");
    let before = standing(desk);
    for arguments in sending() {
        let line = arguments.join(" ");
        // Without a terminal and without --yes: at once, in one line that says what to do.
        let output = desk.unasked(&arguments).assert().failure().code(USAGE).get_output().clone();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("--yes") && text.contains("POQ_YES=1") && text.lines().count() == 1,
            "{line}: {text}"
        );
        // --dry-run shows what it does and costs, whether --yes is there or not.
        for command in [desk.unasked(&arguments), desk.poq(&arguments)] {
            let mut command = command;
            let output = command.arg("--dry-run").assert().success().get_output().stdout.clone();
            let text = String::from_utf8(output).unwrap();
            for says in ["signed by", "transaction fee", "spendable"] {
                assert!(text.contains(says), "{line}: {text}");
            }
        }
        let shown = desk.json(&[&arguments[..], &["--dry-run", "--json"]].concat());
        assert_eq!(shown["dry_run"], true, "{line}");
        let fee: u128 = shown["fee_max"].as_str().unwrap().parse().unwrap();
        assert!(fee > 0 && shown["action"].as_str().unwrap().len() > 4, "{line}: {shown}");
    }
    assert_eq!(standing(desk), before);
    // And what is shown is what it costs: no more than that, and exactly the deposit.
    let stake = ["node", "stake", "4", "1", "--key-file", "bob.key", "--json"];
    let shown = desk.json(&[&stake[..], &["--dry-run"]].concat());
    let sent = desk.json(&stake);
    let number = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
    assert!(number(&sent["fee"]) <= number(&shown["fee_max"]), "{shown} {sent}");
    assert_eq!(sent["deposit"], shown["deposit"]);
}

/// The question on a terminal: a pseudoterminal, on which somebody types.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_is_asked() {
    let network = Network::new();
    let desk = &network.desk;
    network.register("10");
    let stake = || {
        desk.json(&["node", "show", "1", "--json"])["node"]["stake"]["bonded"].as_str().unwrap().to_owned()
    };
    for (typed, status, then) in [("n\n", FAILURE, "10000000000000"), ("y\n", 0, "12000000000000")] {
        let arguments = ["node", "stake", "1", "2", "--key-file", "bob.key"];
        let (code, shown) = on_a_terminal(desk, &arguments, typed);
        for says in ["stake 2 UNIT on node 1", "transaction fee", "Send it? [y/N]"] {
            assert!(shown.contains(says), "{says}: {shown}");
        }
        assert_eq!((code, stake()), (status, then.to_owned()), "{shown}");
    }
}

/// Runs `poq` with a pseudoterminal as its input and error output, and types `typed` once it asks. Returns the exit status and
/// what the terminal showed.
#[cfg(target_os = "linux")]
fn on_a_terminal(desk: &Desk, arguments: &[&str], typed: &str) -> (i32, String) {
    use std::io::{Read, Write};
    use std::os::fd::{FromRawFd, OwnedFd};
    let (mut master, mut slave) = (0, 0);
    // SAFETY: both places outlive the call; names, settings and sizes may be null.
    let opened = unsafe {
        libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty returned two descriptors that nobody else owns.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let mut master = std::fs::File::from(master);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("poq"));
    command.args(arguments).current_dir(desk.folder.path()).env("HOME", desk.folder.path());
    command
        .env_remove("POQ_YES")
        .stdin(slave.try_clone().unwrap())
        .stderr(slave)
        .stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    // The command holds the terminal's other end; without this the reading below would never end.
    drop(command);
    let (mut shown, mut answered) = (Vec::new(), false);
    let mut buffer = [0; 4096];
    // Reading from a terminal whose other end is closed is an error: the end.
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        shown.extend(&buffer[..read]);
        if !answered && String::from_utf8_lossy(&shown).contains("[y/N]") {
            answered = true;
            master.write_all(typed.as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().code().unwrap(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn errors_are_json_where_results_are() {
    let network = Network::new();
    let desk = &network.desk;
    let code = |arguments: &[&str]| {
        let (status, error) = desk.error(&[arguments, &["--json"]].concat());
        assert!(!error["message"].as_str().unwrap().is_empty());
        (status, error["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(code(&["node", "show", "7"]), (REFUSED, "refused".into()));
    assert_eq!(code(&["node", "drain", "7", "--key-file", "bob.key"]), (REFUSED, "no_node".into()));
    assert_eq!(code(&["node", "show", "seven"]), (USAGE, "usage".into()));
    assert_eq!(code(&["node", "list", "--contract", "nowhere.json"]), (USAGE, "usage".into()));
    assert_eq!(code(&["explain", "1", "--block", "1"]), (FAILURE, "no_final_event".into()));
    let far = ["node", "list", "--url", "ws://127.0.0.1:1", "--connect-timeout", "1s"];
    assert_eq!(code(&far), (UNREACHABLE, "unreachable".into()));
    desk.write("bad.toml", "[kinds.1]\ntolerence = 0.1");
    let set = ["params", "set", "bad.toml", "--key-file", "alice.key"];
    assert_eq!(code(&set), (USAGE, "parameter_file".into()));
    let output = desk.unasked(&["node", "drain", "1", "--key-file", "bob.key", "--json"]).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "confirmation_required");
}

// ------------------------------------------------------------------------------------------------ shells and manuals

#[test]
fn shells_complete_and_man_knows_every_command() {
    let desk = Desk::new();
    for (shell, says) in [("bash", "complete -F"), ("zsh", "#compdef poq"), ("fish", "complete -c poq")] {
        let text = desk.text(&["completions", shell]);
        assert!(text.contains(says) && text.contains("unstake"), "{shell}");
    }
    desk.refuses(&["completions", "cmd.exe"], USAGE, &["cmd.exe"]);
    desk.poq(&["man", "pages"]).assert().success();
    for (page, says) in [
        ("poq.1", "Exit status"),
        ("poq-node-unstake.1", "unbonding period"),
        ("poq-task-request.1", "dry\\-run"),
    ] {
        let text = std::fs::read_to_string(desk.path("pages").join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(says), "{page}: {text}");
    }
}
