//! Asking a server over HTTP, from a thread that waits.

use super::{without_key, CancelFlag};
use crate::generate::FinishReason;
use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{header, redirect, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::{
    error::Error as _,
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use url::Url;

/// The longest answer that is read: vectors of a hundred texts have some megabytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What is read of an answer that is an error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What is shown of it.
const SHOWN_ERROR: usize = 400;

/// The longest pause between two tries, whatever the server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often one who waits looks whether anybody still wants the answer.
const LOOK_UP: Duration = Duration::from_millis(25);

/// How long, how often and for whom something is asked.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// When to give up.
    pub(crate) deadline: Option<Instant>,
    /// Whether nobody wants it any more.
    pub(crate) cancel: CancelFlag,
    /// How long a server may be silent in one try.
    pub(crate) silence: Duration,
    /// Tries after the first, for failures that may pass.
    pub(crate) retries: usize,
    /// The pause before the first of these; it doubles each time, up to half a minute, with jitter.
    pub(crate) pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: None,
            cancel: CancelFlag::default(),
            silence: Duration::from_secs(60),
            retries: 4,
            pause: Duration::from_millis(500),
        }
    }
}

/// Why something could not be had.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Whether another try may succeed.
    pub(crate) passes: bool,
    /// How long the server asks to be left alone.
    pub(crate) pause: Option<Duration>,
    /// What the server said of a request that it does not take.
    pub(crate) refusal: Option<String>,
    pub(crate) status: Option<StatusCode>,
    /// Who asked gave up, and why.
    pub(crate) interrupted: Option<FinishReason>,
    /// How often it was tried.
    pub(crate) attempts: u32,
}

impl Failure {
    fn new(reason: String, passes: bool) -> Self {
        Self { reason, passes, pause: None, refusal: None, status: None, interrupted: None, attempts: 0 }
    }

    /// One that may pass.
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self::new(reason.into(), true)
    }

    /// One that stays.
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self::new(reason.into(), false)
    }

    fn interrupted(reason: FinishReason) -> Self {
        let text = match reason {
            FinishReason::Cancelled => "nobody wants the answer any more",
            _ => "it did not answer in time",
        };
        Self { interrupted: Some(reason), ..Self::passing(text) }
    }
}

/// What is made of the parts of an answer.
pub(crate) trait Events {
    /// An event's data. A failure ends the answer.
    fn event(&mut self, data: &str) -> Result<(), Failure>;

    /// An answer in one piece, of a server that does not stream.
    fn whole(&mut self, answer: Value) -> Result<(), Failure>;

    /// Whether asking again would do no harm: nothing of this answer was used.
    fn may_repeat(&mut self) -> bool;
}

/// One server, and the key for it.
#[derive(Clone)]
pub(crate) struct Client {
    base: Url,
    key: Option<SecretString>,
    http: reqwest::Client,
}

/// Where all of them wait: one thread that turns the wheels of all connections.
fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("endpoints").enable_all().build().map_err(|e| e.to_string())
    };
    RUNTIME.get_or_init(start).as_ref().map_err(Clone::clone)
}

impl Client {
    /// Nothing is sent yet.
    pub(crate) fn new(base: Url, key: Option<SecretString>) -> Result<Self, String> {
        runtime()?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("poq/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // A key is for the server that was named.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(describe)?;
        Ok(Self { base, key, http })
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RequestBuilder, Failure> {
        let mut address = self.base.clone();
        address
            .path_segments_mut()
            .map_err(|()| Failure::lasting("its address can have no path"))?
            .pop_if_empty()
            .extend(path.split('/').filter(|part| !part.is_empty()));
        let mut request = self.http.request(method, address);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        Ok(request)
    }

    /// Asks for JSON. With a body it is posted.
    pub(crate) fn json(&self, path: &str, body: Option<&Value>, limits: &Limits) -> Result<Value, Failure> {
        self.counted(path, body, limits).map(|(answer, _)| answer)
    }

    /// As [`Client::json`]; also how often it asked.
    pub(crate) fn counted(
        &self,
        path: &str,
        body: Option<&Value>,
        limits: &Limits,
    ) -> Result<(Value, u32), Failure> {
        struct Once(Option<Value>);
        impl Events for Once {
            fn event(&mut self, _: &str) -> Result<(), Failure> {
                Err(Failure::lasting("it streams what was asked for in one piece"))
            }
            fn whole(&mut self, answer: Value) -> Result<(), Failure> {
                self.0 = Some(answer);
                Ok(())
            }
            fn may_repeat(&mut self) -> bool {
                true
            }
        }
        let mut once = Once(None);
        let attempts = self.ask(path, body, limits, &mut once)?;
        once.0.map(|answer| (answer, attempts)).ok_or_else(|| Failure::passing("it gave no answer"))
    }

    /// Asks, again where a failure may pass, and gives what comes to `events`. Returns how often it asked.
    pub(crate) fn ask(
        &self,
        path: &str,
        body: Option<&Value>,
        limits: &Limits,
        events: &mut dyn Events,
    ) -> Result<u32, Failure> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(limits.pause)
            .with_max_delay(MAX_PAUSE)
            .with_max_times(limits.retries)
            .with_jitter()
            .build();
        let runtime = runtime().map_err(Failure::lasting)?;
        let mut attempts = 0;
        runtime.block_on(async {
            loop {
                attempts += 1;
                let outcome = patiently(limits, self.once(path, body, limits, events)).await;
                let Err(mut failure) = outcome.and_then(|inner| inner) else { return Ok(attempts) };
                failure.reason = without_key(failure.reason, self.key.as_ref());
                failure.attempts = attempts;
                let again = failure.passes && failure.interrupted.is_none() && events.may_repeat();
                let Some(pause) = pauses.next().filter(|_| again) else { return Err(failure) };
                let pause = failure.pause.unwrap_or(pause).min(MAX_PAUSE);
                if limits.deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                    return Err(failure);
                }
                tracing::warn!(address = %self.base.origin().ascii_serialization(), reason = %failure.reason, ?pause, "asking again");
                if let Err(interrupted) = patiently(limits, tokio::time::sleep(pause)).await {
                    return Err(Failure { attempts, ..interrupted });
                }
            }
        })
    }

    async fn once(
        &self,
        path: &str,
        body: Option<&Value>,
        limits: &Limits,
        events: &mut dyn Events,
    ) -> Result<(), Failure> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let request = self.request(method, path, body)?;
        let mut response =
            within(limits.silence, request.send()).await?.map_err(|e| Failure::passing(describe(e)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response, limits).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let mut stream = EventStream::default();
            while let Some(chunk) =
                within(limits.silence, response.chunk()).await?.map_err(|e| Failure::passing(describe(e)))?
            {
                stream.add(&chunk, &mut |data| events.event(data))?;
            }
            return stream.end(&mut |data| events.event(data));
        }
        let bytes = read(&mut response, MAX_ANSWER_BYTES, limits).await?;
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(Failure::lasting(format!("its answer has more than {MAX_ANSWER_BYTES} bytes")));
        }
        let answer: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Failure::lasting(format!("its answer is not JSON ({e}): is this the right address?"))
        })?;
        // Some gateways answer 200 with an error.
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(Failure::lasting(without_key(shown(&error.to_string()), self.key.as_ref())));
        }
        events.whole(answer)
    }

    async fn refused(&self, mut response: Response, limits: &Limits) -> Failure {
        let status = response.status();
        let pause = retry_after(&response);
        let moved = response.headers().get(header::LOCATION).is_some() && status.is_redirection();
        let text = match read(&mut response, MAX_ERROR_BYTES, limits).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(failure) => failure.reason,
        };
        let text = without_key(text, self.key.as_ref());
        let passes = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let said =
            if moved { "it sends elsewhere: write that address".to_string() } else { shown(&message(&text)) };
        // TGI says 424 and TEI 413 of what they cannot take.
        let refusal = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::UNPROCESSABLE_ENTITY
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::FAILED_DEPENDENCY
        );
        let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        Failure {
            pause,
            status: Some(status),
            refusal: refusal.then_some(text),
            ..Failure::new(reason, passes)
        }
    }
}

/// Waits for something as long as somebody wants it and there is time. What is dropped closes its connection.
async fn patiently<T>(limits: &Limits, work: impl Future<Output = T>) -> Result<T, Failure> {
    let given_up = async {
        loop {
            if limits.cancel.is_cancelled() {
                return FinishReason::Cancelled;
            }
            let left = limits.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return FinishReason::Deadline;
            }
            tokio::time::sleep(left.map_or(LOOK_UP, |left| left.min(LOOK_UP))).await;
        }
    };
    tokio::select! {
        biased;
        reason = given_up => Err(Failure::interrupted(reason)),
        done = work => Ok(done),
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    let silent = |_| Failure::passing(format!("it was silent for {} s", time.as_secs()));
    tokio::time::timeout(time, work).await.map_err(silent)
}

/// At most a little more than `most` bytes.
async fn read(response: &mut Response, most: usize, limits: &Limits) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        match within(limits.silence, response.chunk()).await?.map_err(|e| Failure::passing(describe(e)))? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(bytes)
}

/// What went wrong with a connection, down to its cause, without the address, which may carry a key.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// How long the server asks to be left alone, where it says so in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The words of an error, wherever they stand.
fn message(text: &str) -> String {
    let Ok(body) = serde_json::from_str::<Value>(text) else { return text.trim().to_string() };
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let found = places.into_iter().find_map(Value::as_str);
    found.unwrap_or(text).trim().to_string()
}

fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_ERROR).collect()
}

/// Server-sent events, as far as their data go (the HTML standard, 9.2.6).
#[derive(Default)]
struct EventStream {
    line: Vec<u8>,
    data: String,
    /// Whether there is data, though it may be empty.
    some: bool,
}

impl EventStream {
    fn add(
        &mut self,
        bytes: &[u8],
        told: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.data.len() > MAX_ANSWER_BYTES {
                    return Err(Failure::lasting(format!(
                        "one of its events has more than {MAX_ANSWER_BYTES} bytes"
                    )));
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
            if line.is_empty() {
                self.dispatch(told)?;
            } else if let Some(data) = line.strip_prefix("data:") {
                if self.some {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
                self.some = true;
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, told: &mut dyn FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        if std::mem::take(&mut self.some) {
            told(&std::mem::take(&mut self.data))?;
        }
        Ok(())
    }

    /// Some servers end without the empty line that ends an event.
    fn end(&mut self, told: &mut dyn FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        self.add(b"\n\n", told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = "data: {\"a\":1}\r\n\r\n: comment\n\nevent: x\ndata:two\ndata: lines\n\nid: 7\n\ndata: é\n\ndata: [DONE]";
        for size in [1, 2, 3, 7, 1000] {
            let mut stream = EventStream::default();
            let mut found = Vec::new();
            let mut told = |data: &str| {
                found.push(data.to_string());
                Ok(())
            };
            for piece in text.as_bytes().chunks(size) {
                stream.add(piece, &mut told).unwrap();
            }
            stream.end(&mut told).unwrap();
            assert_eq!(found, [r#"{"a":1}"#, "two\nlines", "é", "[DONE]"], "in pieces of {size}");
        }
    }

    #[test]
    fn errors_are_told_in_the_servers_words() {
        for (body, words) in [
            (r#"{"error":{"message":"no such model","type":"x"}}"#, "no such model"),
            (r#"{"error":"overloaded","error_type":"overloaded"}"#, "overloaded"),
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"{"detail":[{"loc":["body"]}]}"#),
            ("<html>502</html>\n", "<html>502</html>"),
        ] {
            assert_eq!(message(body), words);
        }
    }
}
