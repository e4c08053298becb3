//! The Hugging Face hub, and the cache other tools keep of it on this machine.

use super::{http, persist_as, HashingWriter, HubRef, Progress};
use crate::{
    error::{Error, Result},
    manifest::Sha256Hex,
    store::sha256_file,
};
use http::Failure;
use serde::Deserialize;
use serde_json::Value as Json;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The hub, configured as its own tools are: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
pub(crate) struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: Option<PathBuf>,
    client: Option<reqwest::blocking::Client>,
    /// Why nothing is asked of it (any more).
    closed: Option<String>,
}

impl Hub {
    pub(crate) fn from_env(offline: bool) -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let home = var("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = var("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| var("HOME").map(|h| Path::new(&h).join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let offline = offline || var("HF_HUB_OFFLINE").is_some_and(|v| v != "0");
        // Where `hf auth login` puts it.
        let token_file =
            var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| home.as_ref().map(|h| h.join("token")));
        let kept = || std::fs::read_to_string(token_file?).ok().map(|token| token.trim().to_string());
        Self {
            endpoint: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string()),
            token: var("HF_TOKEN").or_else(kept).filter(|token| !token.is_empty()),
            cache: var("HF_HUB_CACHE").map(PathBuf::from).or_else(|| home.map(|h| h.join("hub"))),
            client: None,
            closed: offline.then(|| "not asked (offline)".to_string()),
        }
    }

    fn client(&mut self) -> Result<reqwest::blocking::Client> {
        if let Some(reason) = &self.closed {
            return Err(Error::Install(reason.clone()));
        }
        Ok(match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(http::client(None)?).clone(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.trim_end_matches('/'))
    }

    fn authorised(&self, request: reqwest::blocking::RequestBuilder) -> reqwest::blocking::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// What a failure means. A missing hub is asked once, not once per file.
    fn failed(&mut self, failure: Failure, repo: &str, revision: &str) -> Error {
        let message = match failure {
            Failure::Unreachable(message) => {
                let closed = format!(
                    "the hub at {} is not reachable: {message}; HF_ENDPOINT names another one, and a folder that was \
                     downloaded elsewhere can be added as it is",
                    self.endpoint
                );
                self.closed = Some(closed.clone());
                closed
            }
            Failure::Refused(401 | 403, _) => {
                let page = self.url(repo);
                match &self.token {
                    Some(_) => format!(
                        "the hub does not give {repo} to the account of this token: its licence may have to be accepted at {page}"
                    ),
                    None => format!(
                        "the hub gives {repo} to known accounts only: accept its licence at {page}, then set HF_TOKEN to a \
                         token of that account (or `hf auth login`)"
                    ),
                }
            }
            Failure::Refused(404, _) => format!(
                "the hub has no {repo} at revision {revision} (it says the same of a repository that is private): {}",
                self.url(repo)
            ),
            Failure::Refused(status, _) => format!("the hub answered {status} for {repo}"),
            Failure::Transient(message) | Failure::Final(message) => message,
        };
        Error::Install(message)
    }

    /// Writes one file of one revision to `output`.
    pub(crate) fn fetch(
        &mut self,
        repo: &str,
        revision: &str,
        path: &str,
        output: &mut HashingWriter<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        if let Some(cached) = self.cached(repo, revision, path) {
            return copy(&cached, output, progress);
        }
        let target = output.file.get_ref().path().with_extension("hub");
        let fetched = self.download(repo, revision, path, &target, progress);
        if fetched.is_err() {
            let _ = std::fs::remove_file(target.with_extension("part"));
            return fetched;
        }
        let copied = copy(&target, output, progress);
        let _ = std::fs::remove_file(&target);
        copied
    }

    fn download(
        &mut self,
        repo: &str,
        revision: &str,
        path: &str,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let client = self.client()?;
        let url = self.url(&format!("{repo}/resolve/{revision}/{path}"));
        let request = |client: &reqwest::blocking::Client| self.authorised(client.get(&url));
        let downloaded = http::download(&client, request, target, path, progress);
        downloaded.map_err(|failure| self.failed(failure, repo, revision))
    }

    /// What the hub has of a revision.
    pub(crate) fn list(&mut self, hub: &HubRef) -> Result<Listing> {
        if let Some(listing) = self.cached_listing(hub).filter(|_| self.closed.is_some()) {
            return Ok(listing);
        }
        let client = self.client()?;
        let url = self.url(&format!("api/models/{}/revision/{}?blobs=true", hub.repo, hub.revision));
        let request = || self.authorised(client.get(&url));
        let answer = http::get_with(request, "application/json");
        let (_, text) = answer.map_err(|failure| self.failed(failure, &hub.repo, &hub.revision))?;
        let bad =
            |reason: String| Error::Install(format!("{url}: the hub's answer cannot be used: {reason}"));
        let said: Said = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if !is_commit(&said.sha) {
            return Err(bad(format!("`{}` is no commit", said.sha)));
        }
        let mut files = Vec::with_capacity(said.siblings.len());
        for sibling in said.siblings {
            let sha256 = sibling.lfs.map(|lfs| lfs.sha256.parse()).transpose().map_err(bad)?;
            files.push(Listed { path: sibling.rfilename, size: sibling.size, sha256 });
        }
        let card = &said.card;
        let licence = ["license", "license_name"]
            .iter()
            .filter_map(|key| card[*key].as_str())
            .find(|licence| *licence != "other")
            .map(str::to_string);
        Ok(Listing { commit: said.sha, licence, files })
    }

    /// Puts one listed file into `dir`, unless it is there already. What was interrupted goes on where it stopped.
    pub(crate) fn put(
        &mut self,
        repo: &str,
        commit: &str,
        file: &Listed,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let destination = dir.join(&file.path);
        let folder = destination.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        if destination.is_file() && check(&destination, file).is_ok() {
            return Ok(());
        }
        let name = destination.file_name().unwrap_or_default().to_string_lossy();
        // Of this revision alone: what is left of another one is no beginning of this file.
        let target = folder.join(format!(".{}-{name}.hub", commit.get(..12).unwrap_or(commit)));
        match self.cached(repo, commit, &file.path) {
            Some(cached) => std::fs::copy(&cached, &target).map(drop).map_err(|e| Error::io(&cached, e))?,
            None => self.download(repo, commit, &file.path, &target, progress)?,
        }
        if let Err(reason) = check(&target, file) {
            let _ = std::fs::remove_file(&target);
            return Err(Error::Install(format!("{} of {repo}: {reason}: refused; try again", file.path)));
        }
        persist_as(&target, &destination)
    }

    /// A revision as the hub's own tools have kept it.
    fn cached_listing(&self, hub: &HubRef) -> Option<Listing> {
        let repo = self.cache.as_ref()?.join(format!("models--{}", hub.repo.replace('/', "--")));
        let commit = match is_commit(&hub.revision) {
            true => hub.revision.clone(),
            false => std::fs::read_to_string(repo.join("refs").join(&hub.revision)).ok()?.trim().to_string(),
        };
        fn walk(folder: &Path, prefix: &str, files: &mut Vec<Listed>) -> Option<()> {
            for entry in std::fs::read_dir(folder).ok()? {
                let entry = entry.ok()?;
                let path = format!("{prefix}{}", entry.file_name().to_str()?);
                match entry.path().is_dir() {
                    true => walk(&entry.path(), &format!("{path}/"), files)?,
                    false => files.push(Listed { path, size: None, sha256: None }),
                }
            }
            Some(())
        }
        let mut files = Vec::new();
        walk(&repo.join("snapshots").join(&commit), "", &mut files)?;
        Some(Listing { commit, licence: None, files })
    }

    /// Where the hub's own tools would have put it.
    fn cached(&self, repo: &str, revision: &str, path: &str) -> Option<PathBuf> {
        let file = self
            .cache
            .as_ref()?
            .join(format!("models--{}", repo.replace('/', "--")))
            .join("snapshots")
            .join(revision)
            .join(path);
        file.is_file().then_some(file)
    }
}

/// A full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a file is what the hub listed.
fn check(path: &Path, file: &Listed) -> std::result::Result<(), String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if let Some(expected) = file.size.filter(|expected| *expected != size) {
        return Err(format!("it has {size} bytes, the hub says {expected}"));
    }
    if let Some(expected) = file.sha256 {
        let found = sha256_file(path).map_err(|e| e.to_string())?;
        if found != expected {
            return Err(format!("it has sha256 {found}, the hub says {expected}"));
        }
    }
    Ok(())
}

/// What the hub has of a revision.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The commit that the revision stands for.
    pub(crate) commit: String,
    /// The licence that the repository names.
    pub(crate) licence: Option<String>,
    pub(crate) files: Vec<Listed>,
}

/// A file that the hub has.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) path: String,
    /// In bytes, where the hub says.
    pub(crate) size: Option<u64>,
    /// Of large files.
    pub(crate) sha256: Option<Sha256Hex>,
}

/// The hub's words.
#[derive(Deserialize)]
struct Said {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Json,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

fn copy(from: &Path, output: &mut HashingWriter<'_>, progress: &dyn Progress) -> Result<()> {
    let mut file = File::open(from).map_err(|e| Error::io(from, e))?;
    let size = file.metadata().map_err(|e| Error::io(from, e))?.len();
    progress.step("checking", Some(size));
    std::io::copy(&mut file, output).map_err(|e| Error::io(from, e))?;
    progress.step_done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{temporary, Silent};
    use std::io::{Read, Write};

    fn hub(endpoint: String, cache: &Path) -> Hub {
        Hub { endpoint, token: None, cache: Some(cache.to_path_buf()), client: None, closed: None }
    }

    /// Answers every request on a port of its own with `response`; returns the endpoint.
    fn server(response: &'static [u8]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(response);
            }
        });
        endpoint
    }

    #[test]
    fn a_file_is_fetched_over_http() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = server(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nweights");
        let mut output = HashingWriter::new(temporary(dir.path()).unwrap(), &Silent);
        hub(endpoint, dir.path()).fetch("o/n", "abc", "model.gguf", &mut output, &Silent).unwrap();
        let (file, size, _) = output.finish().unwrap();
        assert_eq!((std::fs::read(file.path()).unwrap().as_slice(), size), (&b"weights"[..], 7));
    }

    #[test]
    fn a_refusal_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let mut output = HashingWriter::new(temporary(dir.path()).unwrap(), &Silent);
        let error = hub(endpoint, dir.path()).fetch("o/n", "abc", "m", &mut output, &Silent).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }

    #[test]
    fn an_unreachable_hub_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut hub = hub(format!("http://{port}"), dir.path());
        for _ in 0..2 {
            let mut output = HashingWriter::new(temporary(dir.path()).unwrap(), &Silent);
            assert!(hub.fetch("o/n", "abc", "m", &mut output, &Silent).is_err());
        }
        assert!(hub.closed.unwrap().contains("not reachable"));
    }

    #[test]
    fn the_hubs_own_cache_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("models--o--n/snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("m"), b"weights").unwrap();
        let mut output = HashingWriter::new(temporary(dir.path()).unwrap(), &Silent);
        let mut hub = hub("http://127.0.0.1:1".into(), dir.path());
        hub.fetch("o/n", "abc", "m", &mut output, &Silent).unwrap();
        assert_eq!(output.finish().unwrap().1, 7);
    }
}
