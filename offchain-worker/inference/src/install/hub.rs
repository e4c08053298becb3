//! The Hugging Face hub, and the cache other tools keep of it on this machine.

use super::{http, HashingWriter, Progress};
use crate::error::{Error, Result};
use http::Failure;
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
        Self {
            endpoint: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string()),
            token: var("HF_TOKEN"),
            cache: var("HF_HUB_CACHE").map(PathBuf::from).or_else(|| home.map(|h| h.join("hub"))),
            client: None,
            closed: offline.then(|| "not asked (offline)".to_string()),
        }
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
        if let Some(reason) = &self.closed {
            return Err(Error::Install(reason.clone()));
        }
        let client = match self.client.clone() {
            Some(client) => client,
            None => self.client.insert(http::client(None)?).clone(),
        };
        let url = format!("{}/{repo}/resolve/{revision}/{path}", self.endpoint.trim_end_matches('/'));
        let target = output.file.get_ref().path().with_extension("hub");
        let request = |client: &reqwest::blocking::Client| {
            let request = client.get(&url);
            match &self.token {
                Some(token) => request.bearer_auth(token),
                None => request,
            }
        };
        let result = http::download(&client, request, &target, path, progress);
        if let Err(failure) = result {
            // A missing hub is asked once, not once per file.
            if let Failure::Unreachable(message) = &failure {
                self.closed = Some(format!("not reachable: {message}"));
            }
            let _ = std::fs::remove_file(target.with_extension("part"));
            return Err(failure.into());
        }
        let copied = copy(&target, output, progress);
        let _ = std::fs::remove_file(&target);
        copied
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
