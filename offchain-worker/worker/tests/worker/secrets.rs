//! A node's address with a key in it, through every command and the worker: nothing that `poq` writes, says, logs or serves holds the
//! key.
#![cfg(feature = "embedded")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use poq_sandbox::{SandboxConfig, SandboxNode};

use crate::support::{free_port, repository};

const SECRET: &str = "Xk29SECRETvq";

struct Desk {
    folder: tempfile::TempDir,
    url: String,
}

impl Desk {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("poq"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POQ_") {
                command.env_remove(name);
            }
        }
        let home = self.folder.path();
        // There is no terminal to ask on.
        command.env("POQ_YES", "1");
        command.current_dir(home).env("HOME", home).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        // There is no terminal to ask on.
        command.env("POQ_YES", "1");
        command.args(arguments);
        command
    }

    async fn poq(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains(SECRET), "{arguments:?}: {text}");
        }
        output
    }

    /// Runs `poq`, which must succeed.
    async fn works(&self, arguments: &[&str]) -> String {
        let output = self.poq(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Runs `poq`, which must fail, and returns what it says.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.poq(arguments).await;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !err.contains("panicked"), "{arguments:?}: {err}");
        err
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_poq_writes_says_logs_or_serves_holds_a_nodes_key() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("ws://{SECRET}:{SECRET}@{}/v3/{SECRET}?apikey={SECRET}", server.address());
    let desk = Desk { folder: tempfile::tempdir().unwrap(), url };
    desk.file("alice.key", "//Alice");
    let (url, artifact) = (desk.url.as_str(), repository().join("contracts/artifacts/poq.wasm"));
    let artifact = artifact.display().to_string();

    let deploy =
        ["--log", "debug", "deploy", "--url", url, "--key-file", "alice.key", "--artifact", &artifact];
    let said = desk.works(&[&deploy[..], &["--json"]].concat()).await;
    assert!(said.contains("contract"), "{said}");
    desk.works(&["node", "list", "--url", url, "--contract", "deployment.json"]).await;
    desk.works(&["params", "show", "--url", url, "--contract", "deployment.json"]).await;
    desk.works(&["check", "--url", url, "--contract", "deployment.json"]).await;
    // Without the address nothing is connected to by chance, and the advice helps.
    let said = desk.fails(&["node", "list", "--contract", "deployment.json"]).await;
    assert!(said.contains("--url"), "{said}");
    // Mistakes in the address.
    for wrong in [
        url.replace("ws://", "http://"),
        url.replace("ws://", ""),
        url.replace(&server.address().to_string(), "127.0.0.1:1"),
    ] {
        desk.fails(&[
            "node",
            "list",
            "--url",
            &wrong,
            "--contract",
            "deployment.json",
            "--connect-timeout",
            "1s",
        ])
        .await;
    }

    // A worker that only keeps: its log at its most talkative, its probes and its metrics.
    let port = free_port();
    let settings = format!(
        "data_dir = \"data\"\n[keys]\noperator = \"alice.key\"\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n[chain]\n\
         poll_interval = \"200ms\"\nstall_after = \"1s\"\n"
    );
    desk.file("poq.toml", &settings);
    let mut command = desk.command(&["--log", "debug", "worker", "run", "--contract", "deployment.json"]);
    let log = std::fs::File::create(desk.folder.path().join("worker.log")).unwrap();
    command.env("POQ_CHAIN__URLS", url).stdout(Stdio::null()).stderr(log);
    // The flag's file names an address without its key; the variable is not to lose to it.
    let mut child = command.args(["--url", url]).spawn().unwrap();
    let probe = |path: &'static str| async move {
        let text = match reqwest::get(format!("http://127.0.0.1:{port}{path}")).await {
            Ok(response) => response.text().await.unwrap(),
            Err(_) => String::new(),
        };
        assert!(!text.contains(SECRET), "{path}: {text}");
        text
    };
    let until = |what: &'static str, wanted: fn(&str) -> bool| async move {
        let begun = Instant::now();
        loop {
            let text = probe("/ready").await;
            if wanted(&text) {
                return;
            }
            assert!(begun.elapsed() < crate::support::PATIENCE, "{what}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until("ready", |text| text.contains("\"ready\":true")).await;
    assert!(probe("/metrics").await.contains("poq_ready"));
    // The node goes away: what is said now names the address.
    drop(server);
    until("unready", |text| text.contains("has not answered")).await;
    probe("/health").await;
    let _ = child.kill();
    let _ = child.wait();

    let mut found = Vec::new();
    files(desk.folder.path(), &mut found);
    assert!(found.iter().any(|path| path.ends_with("deployment.json")));
    assert!(std::fs::read_to_string(desk.folder.path().join("worker.log")).unwrap().contains("connected"));
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        let holds = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!holds, "{} holds the key", path.display());
    }
}

/// `poq` at a node that refuses every third call, as one with a rate limit does.
#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_for_a_node_that_refuses_each_third_call() {
    let node = SandboxNode::start(SandboxConfig::default()).unwrap();
    let server = node.serve_ws("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let desk = Desk { folder: tempfile::tempdir().unwrap(), url: server.url() };
    desk.file("alice.key", "//Alice");
    node.refuse_every(3, -32_999, "RPC rate limit exceeded");
    let artifact = repository().join("contracts/artifacts/poq.wasm").display().to_string();
    desk.works(&["deploy", "--url", &desk.url, "--key-file", "alice.key", "--artifact", &artifact]).await;
    let register = [
        "node",
        "register",
        "--key-file",
        "alice.key",
        "--role",
        "evaluator",
        "--operator",
        "alice.key",
        "--model",
        "all-minilm-l6-v2",
        "--endpoint",
        "http://127.0.0.1:1",
        "--stake",
        "100",
    ];
    desk.works(&register).await;
    assert!(desk.works(&["node", "list"]).await.contains("all-minilm-l6-v2"));
    desk.works(&["params", "show"]).await;
    assert!(node.refuse_every(0, 0, "") > 10);
}
