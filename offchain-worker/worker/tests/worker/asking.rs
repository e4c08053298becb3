//! `poq task request` against working nodes: what whoever asks gets to see, and when.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};

use poq_chain::types::Phase;

use crate::support::{free_port, Net, Scripts, PATIENCE};

/// The lines that a running `poq` writes.
struct Asking {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Asking {
    fn start(net: &Net, url: &str, arguments: &[&str]) -> Asking {
        let key = net.dir.path().join("requester.key");
        std::fs::write(&key, "//requester").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_poq"))
            .args(arguments)
            .args(["--url", url, "--contract", &format!("0x{}", hex::encode(net.contract.0))])
            .arg("--key-file")
            .arg(&key)
            .env("POQ_YES", "1")
            .current_dir(net.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Asking { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that begins so.
    fn until(&mut self, begins: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no line begins with {begins:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.starts_with(begins) {
                return line;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_shown_before_it_is_scored_and_scores_before_they_are_paid() {
    let net = Net::start().await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = net.chain.serve_ws(address).await.unwrap();
    let scripts = Scripts::new();
    let answering = net.scripted(1, 0, "//answering").await;
    let first = net.work("answering", &answering, &scripts).await;
    let scoring = net.scripted(0, 3, "//scoring").await;

    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = ["task", "request", "--question", "Which city?", "--listen", &listen, "--early"];
    let mut asking = Asking::start(&net, &server.url(), &arguments);
    assert!(asking.until("task 1 is requested").contains("goes to node 1"));
    // Nobody scores yet, and the answer is there: the request asks for it at once.
    let answer = asking.until("answer of node 1:");
    assert!(answer.contains("The answer is"), "{answer}");
    assert!(!net.task(1).await.task.phase.is_final());
    assert!(!asking.seen.iter().any(|line| line.starts_with("scores of")), "{:#?}", asking.seen);

    let second = net.work("scoring", &scoring, &scripts).await;
    for _ in &scoring {
        let scores = asking.until("scores of node");
        assert!(scores.contains("node 1 0."), "{scores}");
    }
    assert!(asking.child.wait().unwrap().success());
    assert_eq!(net.task(1).await.task.phase, Phase::Settled);
    for worker in [first, second] {
        worker.shutdown();
        worker.wait().await.unwrap();
    }
}
