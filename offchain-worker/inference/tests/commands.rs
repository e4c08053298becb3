//! `poq-models` on models of one's own and on a hub: the commands of `poq models`, as an operator runs them.
#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An operator's machine: a folder with a configuration and a models folder.
struct Machine {
    dir: tempfile::TempDir,
    hub: Option<String>,
    token: Option<&'static str>,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), hub: None, token: None }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("poq.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poq-models"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("RAYON_NUM_THREADS", "1")
            .env("POQ_CONFIG", self.config())
            .env("POQ_MODELS_DIR", self.dir.path().join("models"))
            .env("HF_ENDPOINT", self.hub.as_deref().unwrap_or("http://127.0.0.1:9"));
        if let Some(token) = self.token {
            command.env("HF_TOKEN", token);
        }
        if !self.config().exists() {
            std::fs::write(self.config(), "").unwrap();
        }
        command.output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.good(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_file_of_ones_own_is_added_shown_checked_measured_and_removed() {
    let machine = Machine::new();
    let before = "# Mine.\n[limits]\nmax_tokens = 5 # few\n";
    std::fs::write(machine.config(), before).unwrap();
    let file = machine.dir.path().join("My Llama.gguf");
    std::fs::copy(fixture("llama3-gguf-q8_0/model.gguf"), &file).unwrap();
    let path = file.to_str().unwrap();

    let shown = machine.json(&["show", path]);
    assert_eq!((shown["network"].as_str(), shown["digest"].as_str()), (Some("llama"), None));
    let added = machine.json(&["add", path, "--licence", "MIT", "--threads", "1"]);
    assert_eq!(added["name"], "my-llama");
    assert_eq!((added["role"].as_str(), added["licence"].as_str()), (Some("generator"), Some("MIT")));
    assert!(added["trial"]["completion_tokens"].as_u64().unwrap() > 0, "{added}");
    // The rest of the file is as it was written.
    assert!(
        machine.text().starts_with(before) && machine.text().contains("threads = 1"),
        "{}",
        machine.text()
    );
    let pinned = hex::encode(Sha256::digest(std::fs::read(&file).unwrap()));
    assert!(machine.text().contains(&pinned));
    // A digest is that of the files, whatever they are called and wherever they lie.
    let again = machine.json(&["add", fixture("llama3-gguf-q8_0").to_str().unwrap(), "--name", "other"]);
    assert_eq!(again["digest"], added["digest"]);

    let error = machine.bad(&["add", path]);
    assert!(error.contains("--replace") && error.contains("--name"), "{error}");
    machine.good(&["add", path, "--replace", "--context", "64"]);
    let shown = machine.json(&["show", "my-llama"]);
    assert_eq!((shown["context"].as_u64(), &shown["digest"]), (Some(64), &added["digest"]));
    assert!(machine
        .good(&["list"])
        .lines()
        .any(|line| line.starts_with("my-llama") && line.contains("added")));
    assert_eq!(machine.json(&["check", "my-llama"])["ok"], true);
    let bench =
        machine.json(&["bench", "my-llama", "--prompt-tokens", "16", "--tokens", "4", "--beside-candle"]);
    for part in bench["parts"].as_array().unwrap() {
        assert!(
            part["per_second"].as_f64().unwrap() > 0.0 && part["candle"]["ratio"].as_f64().unwrap() > 0.0,
            "{bench}"
        );
    }

    // Another file in its place is another model, and is not run as this one.
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let output = machine.run(&["check", "my-llama"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && told.contains("BAD") && told.contains("not the file that was added"),
        "{told}"
    );

    // Who runs it must let go of it first.
    let without = machine.text();
    std::fs::write(
        machine.config(),
        format!("{without}\n[[nodes]]\nid = 7\nrole = \"inference\"\nmodel = \"my-llama\"\n"),
    )
    .unwrap();
    assert!(machine.bad(&["remove", "my-llama"]).contains("node 7"));
    std::fs::write(machine.config(), without).unwrap();
    machine.good(&["remove", "my-llama"]);
    assert!(file.exists() && machine.text().starts_with(before), "{}", machine.text());
    machine.good(&["add", path, "--name", "my-llama"]);
    machine.good(&["remove", "my-llama", "--files"]);
    assert!(!file.exists() && machine.dir.path().exists());
    assert!(machine.bad(&["remove", "my-llama"]).contains("no such section"));
}

#[test]
fn encoders_are_added_from_their_folders() {
    let machine = Machine::new();
    let path = |name: &str| fixture(name).to_str().unwrap().to_string();
    let dense = machine.json(&["add", &path("xlm-roberta-dense")]);
    assert_eq!(
        (dense["role"].as_str(), dense["trial"]["dimension"].as_u64()),
        (Some("bi-encoder"), Some(32))
    );
    let nli = machine.json(&["add", &path("deberta-nli"), "--name", "nli"]);
    assert_eq!(nli["role"], "cross-encoder");
    assert!(nli["trial"]["like"].is_f64(), "{nli}");
    assert_eq!(machine.json(&["check"])["models"].as_array().unwrap().len(), 2);
    let bench = machine.json(&["bench", "nli", "--tokens", "3", "--prompt-tokens", "8", "--rounds", "1"]);
    assert_eq!(bench["parts"][0]["of"], "pairs");
    // What is asked of it and what it is do not fit.
    assert!(machine.bad(&["add", &path("bert"), "--role", "generator"]).contains("not a generator"));
    assert!(machine.bad(&["add", &path("bert"), "--role", "judge"]).contains("cross-encoder"));
    let error = machine.bad(&["add", &path("bert"), "--name", "all-minilm-l6-v2"]);
    assert!(error.contains("--name"), "{error}");
    assert!(machine.bad(&["add", "nothing-here"]).contains("neither a file"));
    assert!(machine.bad(&["show", "nothing-here"]).contains("nothing-here"));
    #[cfg(not(feature = "cuda"))]
    assert!(machine.bad(&["add", &path("bert"), "--device", "cuda:0"]).contains("scripts/build-cuda.sh"));
    let error = machine.bad(&["add", &path("bert"), "--memory-limit", "1000"]);
    assert!(error.contains("memory_limit_bytes"), "{error}");
    assert!(!machine.text().contains("\"bert\""), "{}", machine.text());
}

/// A hub with one repository, `tiny/model`, at one commit, with the URL layout of huggingface.co.
struct Hub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Default)]
struct Repository {
    files: BTreeMap<String, Vec<u8>>,
    /// Files that the hub lists with another hash than they have.
    broken: Vec<String>,
    /// Only who has this token is answered.
    token: Option<&'static str>,
    /// The first download of each file ends in its middle.
    fragile: bool,
}

impl Repository {
    fn of(folder: &Path) -> Self {
        fn walk(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
                match path.is_dir() {
                    true => walk(&path, &format!("{name}/"), files),
                    false => drop(files.insert(name, std::fs::read(path).unwrap())),
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(folder, "", &mut files);
        files.insert(".gitattributes".into(), b"*.safetensors filter=lfs".to_vec());
        files.insert("pytorch_model.bin".into(), b"pickled".to_vec());
        Self { files, ..Self::default() }
    }

    fn listing(&self) -> String {
        let siblings: Vec<_> = self
            .files
            .iter()
            .map(|(name, bytes)| {
                let mut file = serde_json::json!({ "rfilename": name, "size": bytes.len(), "blobId": "0" });
                if name.ends_with(".safetensors") || name.ends_with(".gguf") {
                    let broken = self.broken.contains(name);
                    let hash = if broken { "0".repeat(64) } else { hex::encode(Sha256::digest(bytes)) };
                    file["lfs"] =
                        serde_json::json!({ "sha256": hash, "size": bytes.len(), "pointerSize": 134 });
                }
                file
            })
            .collect();
        serde_json::json!({
            "id": "tiny/model", "sha": COMMIT, "siblings": siblings, "gated": false,
            "cardData": { "license": "apache-2.0" },
        })
        .to_string()
    }
}

impl Hub {
    fn start(repository: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (path, headers) = request(&mut stream);
                let range = headers
                    .get("range")
                    .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
                let before = log.lock().unwrap().iter().filter(|asked| **asked == path).count();
                log.lock().unwrap().push(path.clone());
                let authorised = repository.token.is_none_or(|token| {
                    headers.get("authorization").is_some_and(|h| *h == format!("Bearer {token}"))
                });
                let file = path
                    .strip_prefix(&format!("/tiny/model/resolve/{COMMIT}/"))
                    .and_then(|name| repository.files.get(name));
                let known = ["main", "v1", COMMIT]
                    .iter()
                    .any(|r| path == format!("/api/models/tiny/model/revision/{r}?blobs=true"));
                match file {
                    _ if !authorised => answer(&mut stream, "401 Unauthorized", b"{}"),
                    _ if known => answer(&mut stream, "200 OK", repository.listing().as_bytes()),
                    Some(bytes) if repository.fragile && before == 0 => {
                        // All is promised, half is sent.
                        let head = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                            bytes.len()
                        );
                        let _ = stream.write_all(head.as_bytes());
                        let _ = stream.write_all(&bytes[..bytes.len() / 2]);
                    }
                    Some(bytes) => match range {
                        Some(from) => {
                            answer(&mut stream, "206 Partial Content", &bytes[from.min(bytes.len())..])
                        }
                        None => answer(&mut stream, "200 OK", bytes),
                    },
                    None => answer(&mut stream, "404 Not Found", b"{}"),
                }
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn request(stream: &mut TcpStream) -> (String, BTreeMap<String, String>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line.trim().is_empty() {
            return (path, headers);
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

fn with_hub(repository: Repository) -> (Machine, Hub) {
    let hub = Hub::start(repository);
    let machine = Machine { hub: Some(hub.url.clone()), ..Machine::new() };
    (machine, hub)
}

#[test]
fn a_model_of_the_hub_is_fetched_pinned_and_said_so() {
    let (machine, hub) = with_hub(Repository::of(&fixture("qwen2")));
    let told = machine.good(&["add", "hub:tiny/model"]);
    assert!(told.contains("pinned") && told.contains(COMMIT) && told.contains("apache-2.0"), "{told}");
    let text = machine.text();
    assert!(
        text.contains(&format!("source = \"hub:tiny/model@{COMMIT}\"")) && text.contains("name = \"model\""),
        "{text}"
    );
    // Only what a loader opens is fetched.
    let asked = hub.asked();
    assert!(asked.iter().all(|path| !path.ends_with(".bin") && !path.contains("gitattributes")), "{asked:?}");
    // Its digest is that of the same files added from a folder.
    let shown = machine.json(&["show", "model"]);
    let own = machine.json(&["add", fixture("qwen2").to_str().unwrap(), "--name", "own"]);
    assert_eq!(shown["digest"], own["digest"]);
    assert_eq!(machine.json(&["check", "model"])["ok"], true);
    // What is there already is not fetched again; the hub is asked what the branch is.
    hub.asked();
    machine.good(&["add", "hub:tiny/model@v1", "--replace"]);
    assert_eq!(hub.asked().len(), 1);
    machine.good(&["remove", "model", "--files"]);
    assert!(!machine.dir.path().join("models/model").exists());
}

#[test]
fn a_model_that_the_manifest_knows_at_the_hub_is_added_by_its_name() {
    let (machine, _hub) = with_hub(Repository::of(&fixture("roberta-cross")));
    let manifest = machine.dir.path().join("manifest.toml");
    let text = "[[hub]]\nname = \"judge\"\ntitle = \"A judge\"\nrole = \"cross-encoder\"\nlicence = \"MIT\"\nrepo = \"tiny/model\"\n\
                revision = \"main\"\ncontext_tokens = 64\nneeds = \"patience\"\n";
    std::fs::write(&manifest, text).unwrap();
    let with = |arguments: &[&'static str]| {
        let manifest = manifest.to_str().unwrap().to_string();
        [arguments.iter().map(|a| a.to_string()).collect::<Vec<_>>(), vec!["--manifest".into(), manifest]]
            .concat()
    };
    let good = |arguments: &[&'static str]| {
        machine.good(&with(arguments).iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(good(&["list"]).contains("`models add judge` fetches it"));
    assert!(good(&["show", "judge"]).contains("patience"));
    let told = good(&["add", "judge"]);
    assert!(told.contains(&format!("`main` of tiny/model is the commit {COMMIT} now")), "{told}");
    let text = machine.text();
    assert!(
        text.contains("name = \"judge\"")
            && text.contains("context = 64")
            && text.contains("licence = \"MIT\""),
        "{text}"
    );
    assert!(good(&["list"]).lines().any(|line| line.starts_with("judge") && line.contains("added")));
    assert!(good(&["check", "judge"]).starts_with("ok   judge"));
}

#[test]
fn one_file_of_several_is_fetched_and_a_broken_download_goes_on() {
    let mut repository = Repository::default();
    for (name, fixture_name) in [("m.Q8_0.gguf", "qwen3-gguf-q8_0"), ("m.BF16.gguf", "qwen2-yarn-gguf-bf16")]
    {
        repository
            .files
            .insert(name.into(), std::fs::read(fixture(fixture_name).join("model.gguf")).unwrap());
    }
    repository.fragile = true;
    let (machine, hub) = with_hub(repository);
    let error = machine.bad(&["add", "hub:tiny/model"]);
    assert!(
        error.contains("m.BF16.gguf") && error.contains("m.Q8_0.gguf") && error.contains(":FILE"),
        "{error}"
    );
    let added = machine.json(&["add", "hub:tiny/model:m.Q8_0.gguf"]);
    assert_eq!((added["name"].as_str(), added["network"].as_str()), (Some("m.q8_0"), Some("qwen3")));
    assert!(machine.text().contains(&format!("hub:tiny/model@{COMMIT}:m.Q8_0.gguf")), "{}", machine.text());
    let downloads = hub.asked().into_iter().filter(|path| path.ends_with("m.Q8_0.gguf")).count();
    assert_eq!(downloads, 2, "it was not resumed");
    assert_eq!(machine.json(&["check"])["ok"], true);
}

#[test]
fn what_the_hub_refuses_is_told_with_what_to_do() {
    let mut repository = Repository::of(&fixture("bert"));
    repository.token = Some("hf_right");
    let (mut machine, _hub) = with_hub(repository);
    let error = machine.bad(&["add", "hub:tiny/model"]);
    assert!(error.contains("HF_TOKEN") && error.contains("accept its licence"), "{error}");
    machine.token = Some("hf_wrong");
    let error = machine.bad(&["add", "hub:tiny/model"]);
    assert!(error.contains("may have to be accepted") && !error.contains("hf_wrong"), "{error}");
    machine.token = Some("hf_right");
    machine.good(&["add", "hub:tiny/model"]);
    let error = machine.bad(&["add", "hub:tiny/other"]);
    assert!(error.contains("tiny/other") && error.contains("private"), "{error}");
    let error = machine.bad(&["add", "hub:tiny/model@v9", "--replace"]);
    assert!(error.contains("revision v9"), "{error}");
    assert!(machine.bad(&["add", "hub:nonsense"]).contains("hub:OWNER/NAME@REVISION"));
    machine.hub = None;
    let error = machine.bad(&["add", "hub:tiny/more"]);
    assert!(error.contains("not reachable") && error.contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn a_file_that_is_not_what_the_hub_lists_is_refused() {
    let mut repository = Repository::of(&fixture("bert"));
    repository.broken.push("model.safetensors".into());
    let (machine, _hub) = with_hub(repository);
    let error = machine.bad(&["add", "hub:tiny/model"]);
    assert!(error.contains("model.safetensors") && error.contains("the hub says"), "{error}");
    assert!(!machine.dir.path().join("models/model/model.safetensors").exists());
    assert!(!machine.text().contains("[[models]]"));
    let (machine, _hub) = with_hub(Repository {
        files: [("config.json".to_string(), b"{}".to_vec()), ("pytorch_model.bin".to_string(), vec![1])]
            .into(),
        ..Repository::default()
    });
    assert!(machine.bad(&["add", "hub:tiny/model"]).contains("pickled"));
}
