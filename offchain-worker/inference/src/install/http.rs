//! Downloads over HTTP that survive interruptions.

use crate::{
    error::{Error, Result},
    install::Progress,
};
use reqwest::{
    blocking::{Client, RequestBuilder, Response},
    header, StatusCode,
};
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    time::Duration,
};

/// Tries after the first.
const RETRIES: u32 = 4;

/// An HTTP client with this project's timeouts.
///
/// # Errors
/// When a certificate file cannot be read, or the TLS library cannot be set up.
pub(crate) fn client(extra_certificates: Option<&Path>) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("poq-models/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        // reqwest's blocking client counts this per read: a gigabyte may take its time, silence may not.
        .timeout(Duration::from_secs(60))
        .tcp_keepalive(Duration::from_secs(30));
    if let Some(path) = extra_certificates {
        let pem = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|e| Error::Install(format!("{}: {e}", path.display())))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|e| Error::Install(format!("no HTTP client: {}", chain(&e))))
}

/// An error with its causes: reqwest's own message hides what happened.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message
}

/// Why a request failed, as far as the next step depends on it.
pub(crate) enum Failure {
    /// Another try may succeed.
    Transient(String),
    /// The server could not be reached at all.
    Unreachable(String),
    /// The server, of this name, said no with this status.
    Refused(u16, String),
    /// Another try would end the same way.
    Final(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Transient(m) | Failure::Unreachable(m) | Failure::Final(m) => Self::Install(m),
            Failure::Refused(status, host) => Self::Install(format!("{host} answered {status}")),
        }
    }
}

fn send(request: RequestBuilder) -> std::result::Result<Response, Failure> {
    let response = request.send().map_err(|e| {
        let message = chain(&e);
        if e.is_connect() {
            Failure::Unreachable(message)
        } else {
            Failure::Transient(message)
        }
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let host = response.url().host_str().unwrap_or("the server").to_string();
    let again = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(match again {
        true => Failure::Transient(format!("{host} answered {status}")),
        false => Failure::Refused(status.as_u16(), host),
    })
}

fn pause(attempt: u32) {
    std::thread::sleep(Duration::from_secs(1 << attempt.min(5)));
}

/// A small answer, whole, with its content type.
pub(crate) fn get(
    client: &Client,
    url: &str,
    accept: &str,
) -> std::result::Result<(String, String), Failure> {
    get_with(|| client.get(url), accept)
}

/// As [`get`], with a request of the caller's own making.
pub(crate) fn get_with(
    request: impl Fn() -> RequestBuilder,
    accept: &str,
) -> std::result::Result<(String, String), Failure> {
    let mut attempt = 0;
    loop {
        let request = request().header(header::ACCEPT, accept).timeout(Duration::from_secs(60));
        let result = send(request).and_then(|response| {
            let kind = response
                .headers()
                .get(header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_string();
            response.text().map(|text| (kind, text)).map_err(|e| Failure::Transient(chain(&e)))
        });
        match result {
            Err(Failure::Transient(message)) if attempt < RETRIES => {
                tracing::debug!(attempt, message, "trying again");
                pause(attempt);
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Downloads `url` into `path`, going on where an earlier attempt stopped.
pub(crate) fn download(
    client: &Client,
    request: impl Fn(&Client) -> RequestBuilder,
    path: &Path,
    what: &str,
    progress: &dyn Progress,
) -> std::result::Result<(), Failure> {
    let partial = path.with_extension("part");
    let io = |e: std::io::Error| Failure::Final(format!("{}: {e}", partial.display()));
    let mut attempt = 0;
    loop {
        let mut file = File::options().create(true).append(true).open(&partial).map_err(io)?;
        let have = file.metadata().map_err(io)?.len();
        let mut builder = request(client);
        if have > 0 {
            builder = builder.header(header::RANGE, format!("bytes={have}-"));
        }
        let result = send(builder).and_then(|mut response| {
            let mut done = have;
            if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                // This server does not resume.
                file.set_len(0).map_err(io)?;
                done = 0;
            }
            let total = response.content_length().map(|rest| rest + done);
            progress.step(&format!("downloading {what}"), total);
            progress.advance(done);
            let mut buffer = vec![0; 1 << 17];
            loop {
                let read = response.read(&mut buffer).map_err(|e| Failure::Transient(chain(&e)))?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read]).map_err(io)?;
                done += read as u64;
                progress.advance(read as u64);
            }
            progress.step_done();
            match total {
                Some(total) if done < total => {
                    Err(Failure::Transient(format!("the connection ended after {done} of {total} bytes")))
                }
                _ => Ok(()),
            }
        });
        match result {
            Ok(()) => {
                file.sync_all().map_err(io)?;
                std::fs::rename(&partial, path).map_err(io)?;
                return Ok(());
            }
            // What lies in the partial file is not a beginning of this file: start over, once.
            Err(Failure::Final(_) | Failure::Refused(..)) if have > 0 && attempt == 0 => {
                tracing::debug!(what, "not resumable, starting over");
                drop(file);
                std::fs::remove_file(&partial).map_err(io)?;
            }
            Err(Failure::Transient(message)) if attempt < RETRIES => {
                tracing::debug!(what, attempt, message, "trying again");
                pause(attempt);
            }
            Err(failure) => return Err(failure),
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::Silent;
    use std::net::TcpListener;

    /// Answers one connection after the other with the next of `responses`; the requests come back.
    fn server(responses: Vec<&'static str>) -> (String, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let (requests, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap();
                requests.send(String::from_utf8_lossy(&buffer[..read]).to_lowercase()).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        (url, seen)
    }

    fn fetch(url: &str, path: &Path) -> std::result::Result<(), Failure> {
        let client = client(None).unwrap();
        download(&client, |c| c.get(url), path, "file", &Silent)
    }

    #[test]
    fn a_broken_download_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.whl");
        let (url, seen) = server(vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n0123",
            "HTTP/1.1 206 Partial Content\r\ncontent-length: 6\r\nconnection: close\r\n\r\n456789",
        ]);
        assert!(fetch(&url, &path).is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
        assert!(!seen.recv().unwrap().contains("range:"));
        assert!(seen.recv().unwrap().contains("range: bytes=4-"));
    }

    #[test]
    fn a_server_that_does_not_resume_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.whl");
        std::fs::write(path.with_extension("part"), b"stale").unwrap();
        let (url, _seen) =
            server(vec!["HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnew!"]);
        assert!(fetch(&url, &path).is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), b"new!");
    }
}
