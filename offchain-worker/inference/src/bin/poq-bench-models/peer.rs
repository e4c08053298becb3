//! The other side: a Python program that runs a model when asked to, one line of JSON at a time.

use poq_inference::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running peer. It ends when this is dropped.
pub(crate) struct Peer {
    program: String,
    child: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `program` with `python`.
    pub(crate) fn start(python: &Path, program: &Path, threads: usize) -> Result<Self, Error> {
        let threads = threads.to_string();
        let mut child = Command::new(python)
            .arg(program)
            // What the libraries read at their start.
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads)
            .env("RAYON_NUM_THREADS", &threads)
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::Io { path: python.to_path_buf(), source: e })?;
        let program = program.display().to_string();
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Install(format!("{program} was started without its pipes")));
        };
        Ok(Self { program, child, requests: Some(requests), replies: BufReader::new(replies) })
    }

    /// Asks for something and waits for the reply.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T, Error> {
        let failed = |reason: String| Error::Install(format!("{}: {reason}", self.program));
        let Some(requests) = &mut self.requests else { return Err(failed("it has been stopped".into())) };
        writeln!(requests, "{request}").map_err(|e| failed(format!("it takes no requests: {e}")))?;
        requests.flush().map_err(|e| failed(e.to_string()))?;
        let mut line = String::new();
        let read = self.replies.read_line(&mut line).map_err(|e| failed(e.to_string()))?;
        if read == 0 {
            return Err(failed("it ended; see above for why".into()));
        }
        let reply: Value = serde_json::from_str(&line).map_err(|e| failed(format!("its reply: {e}")))?;
        if let Some(error) = reply.get("error") {
            return Err(failed(error.to_string()));
        }
        serde_json::from_value(reply).map_err(|e| failed(format!("its reply: {e}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}
