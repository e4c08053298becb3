//! A judge behind an OpenAI-compatible endpoint.

use super::{at_once, cut, parse_reply, prompt, Judge, Verdict, REPLY_TOKENS};
use crate::{
    data::TaskKind,
    error::{Error, Result},
    quality::Query,
};
use backon::{BlockingRetryable, ExponentialBuilder};
use reqwest::{
    blocking::{Client, Response},
    header, StatusCode,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    io::Read,
    rc::Rc,
    time::{Duration, Instant},
};
use url::Url;

/// What tokens cost, per million, in whatever currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// A million tokens read.
    pub prompt: f64,
    /// A million tokens written.
    pub completion: f64,
}

/// Where a judge is and how it is asked.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// The address before `/chat/completions`, for example `https://api.openai.com/v1` or `http://127.0.0.1:8080/v1`.
    pub base: Url,
    /// The model's name there.
    pub model: String,
    /// The key, where one is asked for.
    pub key: Option<SecretString>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries after the first, for failures that may pass.
    pub retries: usize,
    /// The pause before the first retry; it doubles each time, up to half a minute, with jitter.
    pub pause: Duration,
    /// What tokens cost, where that is to be recorded.
    pub prices: Option<Prices>,
}

impl EndpointOptions {
    /// A minute a try, four retries.
    pub fn new(base: Url, model: impl Into<String>) -> Self {
        Self {
            base,
            model: model.into(),
            key: None,
            timeout: Duration::from_secs(60),
            retries: 4,
            pause: Duration::from_millis(500),
            prices: None,
        }
    }
}

/// Longer answers than this are not read: a verdict is some hundred bytes.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;

/// The longest pause between two tries, whatever the server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A judge behind an endpoint. It blocks while it waits: from async code use it through `spawn_blocking`.
pub struct EndpointJudge {
    name: String,
    options: EndpointOptions,
    address: Url,
    client: Client,
}

impl EndpointJudge {
    /// A judge; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Judge`] where the address cannot be one, or TLS cannot be set up.
    pub fn new(options: EndpointOptions) -> Result<Self> {
        let name = format!("judge/{}", options.model);
        let fail = |reason: String| Error::Judge { judge: name.clone(), reason };
        let mut address = options.base.clone();
        address
            .path_segments_mut()
            .map_err(|()| fail(format!("{} cannot be an endpoint's address", options.base)))?
            .pop_if_empty()
            .extend(["chat", "completions"]);
        let client = Client::builder()
            .user_agent(concat!("poq/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.timeout.min(Duration::from_secs(15)))
            .timeout(options.timeout)
            .build()
            .map_err(|e| fail(e.to_string()))?;
        Ok(Self { name, options, address, client })
    }

    fn ask(&self, body: &Request<'_>) -> std::result::Result<Answer, Failure> {
        let mut request = self.client.post(self.address.clone()).json(body);
        if let Some(key) = &self.options.key {
            request = request.bearer_auth(key.expose_secret());
        }
        // Without the address: it may carry a key.
        let response = request.send().map_err(|e| Failure::passing(e.without_url().to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let pause = retry_after(&response);
            let text = read(response).unwrap_or_default();
            let reason = format!("{status}: {}", cut(&text));
            let passes = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
            return Err(Failure { reason, passes, pause });
        }
        let text = read(response).map_err(Failure::passing)?;
        serde_json::from_str(&text).map_err(|e| Failure {
            reason: format!("the answer is not a chat completion: {e}"),
            passes: false,
            pause: None,
        })
    }
}

fn read(response: Response) -> std::result::Result<String, String> {
    let mut bytes = Vec::new();
    response.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long the server asks to be left alone, where it says so in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

struct Failure {
    reason: String,
    /// Whether another try may succeed.
    passes: bool,
    pause: Option<Duration>,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self { reason, passes: true, pause: None }
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [crate::generate::Message],
    temperature: f64,
    max_tokens: usize,
    seed: u64,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Choice {
    message: Reply,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Judge for EndpointJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&mut self, kind: TaskKind, query: &Query, output: &str) -> Result<Verdict> {
        if let Some(verdict) = at_once(query, output) {
            return Ok(verdict);
        }
        let started = Instant::now();
        let messages = prompt(kind, query, output);
        let body = Request {
            model: &self.options.model,
            messages: &messages,
            temperature: 0.0,
            max_tokens: REPLY_TOKENS,
            seed: 0,
        };
        let attempts = Cell::new(0);
        let asked_pause = Rc::new(Cell::new(None));
        let wished = asked_pause.clone();
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.options.pause)
            .with_max_delay(MAX_PAUSE)
            .with_max_times(self.options.retries)
            .with_jitter();
        let answer = (|| {
            attempts.set(attempts.get() + 1);
            let answer = self.ask(&body);
            asked_pause.set(answer.as_ref().err().and_then(|failure| failure.pause));
            answer
        })
        .retry(backoff)
        .sleep(move |pause: Duration| std::thread::sleep(wished.get().unwrap_or(pause).min(MAX_PAUSE)))
        .when(|failure: &Failure| failure.passes)
        .notify(|failure: &Failure, pause| {
            tracing::warn!(judge = %self.name, reason = %failure.reason, ?pause, "asking again");
        })
        .call()
        .map_err(|failure| Error::Judge {
            judge: self.name.clone(),
            reason: format!("{} (asked {} times)", failure.reason, attempts.get()),
        })?;
        let reply =
            answer.choices.into_iter().next().and_then(|choice| choice.message.content).unwrap_or_default();
        let usage = answer.usage;
        let cost = |prices: Prices| {
            (usage.prompt_tokens as f64 * prices.prompt + usage.completion_tokens as f64 * prices.completion)
                / 1e6
        };
        Ok(Verdict {
            score: parse_reply(&reply),
            reply: cut(&reply),
            wall_ms: started.elapsed().as_secs_f64() * 1e3,
            attempts: attempts.get(),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cost: self.options.prices.map(cost),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread::JoinHandle,
    };

    /// Answers one request after the other with these (status line and headers, body), and returns what was asked.
    fn serve(answers: Vec<(&'static str, String)>) -> (Url, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = Url::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut headers, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    headers += &line;
                }
                let mut content = vec![0; length];
                reader.read_exact(&mut content).unwrap();
                asked.push(headers + &String::from_utf8(content).unwrap());
                write!(
                    stream,
                    "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
            asked
        });
        (base, thread)
    }

    fn completion(text: &str) -> String {
        format!(
            r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}],"usage":{{"prompt_tokens":200,"completion_tokens":2}}}}"#
        )
    }

    fn judge(base: Url, retries: usize) -> EndpointJudge {
        EndpointJudge::new(EndpointOptions {
            key: Some("sesame".into()),
            pause: Duration::from_millis(1),
            retries,
            prices: Some(Prices { prompt: 1.0, completion: 10.0 }),
            ..EndpointOptions::new(base, "m")
        })
        .unwrap()
    }

    fn query() -> Query {
        Query { context: "c".into(), question: "q".into() }
    }

    #[test]
    fn a_busy_endpoint_is_asked_again_and_the_cost_is_recorded() {
        let (base, server) = serve(vec![
            ("429 Too Many Requests\r\nretry-after: 0", String::new()),
            ("503 Service Unavailable", "later".into()),
            ("200 OK", completion("8")),
        ]);
        let verdict = judge(base, 4).judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert_eq!(verdict.score, Some(0.8));
        assert_eq!(verdict.attempts, 3);
        assert!((verdict.cost.unwrap() - 220e-6).abs() < 1e-12);
        let asked = server.join().unwrap();
        assert!(
            asked[2].contains("POST /v1/chat/completions") && asked[2].contains("Bearer sesame"),
            "{}",
            asked[2]
        );
        assert!(asked[2].contains("an answer") && asked[2].contains(r#""temperature":0.0"#), "{}", asked[2]);
    }

    #[test]
    fn a_refusal_is_final_and_says_why() {
        let (base, server) = serve(vec![("401 Unauthorized", "no such key".into())]);
        let error = judge(base, 4).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(
            error.contains("401") && error.contains("no such key") && !error.contains("sesame"),
            "{error}"
        );
        assert_eq!(server.join().unwrap().len(), 1);
    }

    #[test]
    fn an_endpoint_that_stays_down_is_given_up() {
        let down = || ("500 Internal Server Error", String::new());
        let (base, server) = serve(vec![down(), down()]);
        let error = judge(base, 1).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(error.contains("asked 2 times"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn what_is_no_grade_is_no_verdict() {
        let (base, server) = serve(vec![
            ("200 OK", completion("I cannot judge that")),
            ("200 OK", r#"{"choices":[]}"#.into()),
        ]);
        let mut judge = judge(base, 0);
        assert_eq!(judge.judge(TaskKind::Qa, &query(), "an answer").unwrap().score, None);
        assert_eq!(judge.judge(TaskKind::Qa, &query(), "an answer").unwrap().score, None);
        server.join().unwrap();
    }
}
