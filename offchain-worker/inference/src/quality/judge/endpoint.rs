//! A judge behind an OpenAI-compatible endpoint.

use super::{
    at_once, cut, grade::without_thoughts, parse_reply, prompt, Judge, Verdict, REPLY_TOKENS, THINKING_TOKENS,
};
use crate::{
    data::TaskKind,
    error::{Error, Result},
    generate::{ChatRole, Message},
    quality::Query,
};
use backon::{BlockingRetryable, ExponentialBuilder};
use reqwest::{
    blocking::{Client, Response},
    header, StatusCode,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{json, Value};
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

/// Tokens beyond which a model that still thinks is given up.
const MOST_TOKENS: usize = 8_192;

/// Changes of form in one verdict: each of the parts that a server may refuse, and more room twice.
const CHANGES: usize = 6;

/// What a server takes. It is learnt from what it refuses, and kept.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// `max_tokens`, or what models that think want in its place: `max_completion_tokens`.
    limit: &'static str,
    tokens: usize,
    temperature: bool,
    seed: bool,
    /// Whether there is a role for instructions; else they stand in front of the question.
    system: bool,
}

impl Form {
    /// What everybody takes but for models that think.
    const USUAL: Self =
        Self { limit: "max_tokens", tokens: REPLY_TOKENS, temperature: true, seed: true, system: true };

    fn body(&self, model: &str, messages: &[Message]) -> Value {
        let merged;
        let messages = if self.system {
            messages
        } else {
            let text: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
            merged = [Message::new(ChatRole::User, text.join("\n\n"))];
            &merged
        };
        let mut body = json!({ "model": model, "messages": messages });
        body[self.limit] = self.tokens.into();
        if self.temperature {
            body["temperature"] = 0.0.into();
        }
        if self.seed {
            body["seed"] = 0.into();
        }
        body
    }

    /// Leaves out, or puts otherwise, what a refusal names. Whether there was something.
    fn adapt(&mut self, refusal: &str) -> bool {
        let named = |name: &str| match serde_json::from_str::<Value>(refusal) {
            Ok(body) => match body["error"]["param"].as_str() {
                Some(param) => param.contains(name) || (name == "system" && param.contains("messages")),
                None => refusal.contains(name),
            },
            Err(_) => refusal.contains(name),
        };
        if self.limit == "max_tokens" && named("max_tokens") {
            self.limit = "max_completion_tokens";
            self.tokens = self.tokens.max(THINKING_TOKENS);
        } else if self.temperature && named("temperature") {
            self.temperature = false;
        } else if self.seed && named("seed") {
            self.seed = false;
        } else if self.system && named("system") && refusal.to_lowercase().contains("role") {
            self.system = false;
        } else {
            return false;
        }
        true
    }
}

/// A judge behind an endpoint. It blocks while it waits: from async code use it through `spawn_blocking`.
pub struct EndpointJudge {
    name: String,
    options: EndpointOptions,
    address: Url,
    client: Client,
    form: Form,
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
        Ok(Self { name, options, address, client, form: Form::USUAL })
    }

    fn ask(&self, body: &Value) -> std::result::Result<Value, Failure> {
        let mut request = self.client.post(self.address.clone()).json(body);
        if let Some(key) = &self.options.key {
            request = request.bearer_auth(key.expose_secret());
        }
        // Without the address: it may carry a key.
        let response = request.send().map_err(|e| Failure::passing(e.without_url().to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let pause = retry_after(&response);
            let text = self.without_key(read(response).unwrap_or_default());
            let passes = status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
            let refusal = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
            let reason = format!("{status}: {}", cut(&text));
            return Err(Failure { reason, passes, pause, refusal: refusal.then_some(text) });
        }
        let text = read(response).map_err(Failure::passing)?;
        let answer: Value = serde_json::from_str(&text)
            .map_err(|e| Failure::lasting(format!("the answer is not a chat completion: {e}")))?;
        // Some gateways answer 200 with an error.
        match &answer["error"] {
            Value::Null => Ok(answer),
            error => Err(Failure::lasting(self.without_key(cut(&error.to_string())))),
        }
    }

    /// Servers quote wrong keys.
    fn without_key(&self, text: String) -> String {
        match &self.options.key {
            Some(key) if !key.expose_secret().is_empty() => text.replace(key.expose_secret(), "(key)"),
            _ => text,
        }
    }

    /// Asks, again where a failure may pass, and counts how often.
    fn ask_patiently(&self, body: &Value, attempts: &Cell<u32>) -> std::result::Result<Value, Failure> {
        let asked_pause = Rc::new(Cell::new(None));
        let wished = asked_pause.clone();
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.options.pause)
            .with_max_delay(MAX_PAUSE)
            .with_max_times(self.options.retries)
            .with_jitter();
        (|| {
            attempts.set(attempts.get() + 1);
            let answer = self.ask(body);
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
    /// What the server said of a request that it does not take.
    refusal: Option<String>,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self { reason, passes: true, pause: None, refusal: None }
    }

    fn lasting(reason: String) -> Self {
        Self { reason, passes: false, pause: None, refusal: None }
    }
}

/// What a completion says, wherever its server puts it.
struct Reply {
    /// The text, without thoughts that stand in a field of their own.
    text: String,
    /// Thoughts in a field of their own.
    thoughts: String,
    /// What it said in place of an answer.
    refusal: Option<String>,
    /// Whether it was cut off.
    cut_off: bool,
}

impl Reply {
    /// `None` where there is no choice in it.
    fn of(answer: &Value) -> Option<Self> {
        let choice = answer["choices"].get(0)?;
        let message = &choice["message"];
        let thoughts = ["reasoning_content", "reasoning", "thinking", "reasoning_text"]
            .into_iter()
            .map(|name| text_of(&message[name]))
            .find(|text| !text.trim().is_empty());
        Some(Self {
            // Completions of the old kind have `text`.
            text: if message.is_null() { text_of(&choice["text"]) } else { text_of(&message["content"]) },
            thoughts: thoughts.unwrap_or_default(),
            refusal: Some(text_of(&message["refusal"])).filter(|text| !text.is_empty()),
            cut_off: choice["finish_reason"] == "length",
        })
    }

    /// Whether more tokens may give it a grade.
    fn wants_room(&self) -> bool {
        let thinks = !self.thoughts.is_empty() || without_thoughts(&self.text).is_none();
        self.cut_off && (thinks || self.text.trim().is_empty())
    }

    fn grade(&self) -> std::result::Result<f64, String> {
        if let Some(refusal) = &self.refusal {
            return Err(format!("it refused: {}", cut(refusal)));
        }
        if !self.text.trim().is_empty() {
            return parse_reply(&self.text).map_err(str::to_string);
        }
        if self.thoughts.is_empty() {
            return Err("the content of its answer is empty".to_string());
        }
        if self.cut_off {
            return Err(format!("it thought for more than {MOST_TOKENS} tokens and said nothing"));
        }
        // Servers that do not find the end of the thoughts take all for thoughts: the last line is what was said.
        let last = self.thoughts.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        parse_reply(last)
            .map_err(|why| format!("its answer is empty and all it said is in its reasoning, where {why}"))
    }
}

/// A content: a text, or parts of which some are texts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter(|part| part["type"].as_str().is_none_or(|kind| kind.ends_with("text")))
            .filter_map(|part| part.as_str().or(part["text"].as_str()))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
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
        let attempts = Cell::new(0);
        let (mut read, mut written) = (0u64, 0u64);
        let mut changes = 0;
        let reply = loop {
            let body = self.form.body(&self.options.model, &messages);
            let answer = match self.ask_patiently(&body, &attempts) {
                Ok(answer) => answer,
                Err(failure) => {
                    let refusal = failure.refusal.as_deref().unwrap_or_default();
                    if changes < CHANGES && self.form.adapt(refusal) {
                        changes += 1;
                        tracing::info!(judge = %self.name, form = ?self.form, "the endpoint wants another form");
                        continue;
                    }
                    return Err(Error::Judge {
                        judge: self.name.clone(),
                        reason: format!("{} (asked {} times)", failure.reason, attempts.get()),
                    });
                }
            };
            read += answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
            written += answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
            let reply = Reply::of(&answer);
            if changes < CHANGES
                && self.form.tokens < MOST_TOKENS
                && reply.as_ref().is_some_and(Reply::wants_room)
            {
                changes += 1;
                self.form.tokens =
                    if self.form.tokens < THINKING_TOKENS { THINKING_TOKENS } else { MOST_TOKENS };
                continue;
            }
            break reply;
        };
        let grade = match &reply {
            Some(reply) => reply.grade(),
            None => Err("the answer has no choices".to_string()),
        };
        let said = reply.map(|reply| if reply.text.trim().is_empty() { reply.thoughts } else { reply.text });
        let cost = |prices: Prices| (read as f64 * prices.prompt + written as f64 * prices.completion) / 1e6;
        Ok(Verdict {
            score: grade.as_ref().ok().copied(),
            problem: grade.err(),
            reply: cut(&said.unwrap_or_default()),
            wall_ms: started.elapsed().as_secs_f64() * 1e3,
            attempts: attempts.get(),
            prompt_tokens: read,
            completion_tokens: written,
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

    fn answer(message: &str, finish: &str) -> (&'static str, String) {
        (
            "200 OK",
            format!(
                r#"{{"choices":[{{"index":0,"message":{message},"finish_reason":"{finish}"}}],"usage":null}}"#
            ),
        )
    }

    #[test]
    fn what_is_no_grade_is_no_verdict_and_says_why() {
        for (given, why) in [
            (answer(r#"{"content":"I cannot judge that"}"#, "stop"), "no number"),
            (("200 OK", r#"{"choices":[]}"#.into()), "no choices"),
            (answer(r#"{"content":null}"#, "stop"), "empty"),
            (answer(r#"{"content":null,"refusal":"I will not"}"#, "stop"), "I will not"),
            (answer(r#"{"content":"","reasoning_content":"It has 3 facts."}"#, "stop"), "reasoning"),
            (answer(r#"{"content":"<think>3</think>"}"#, "stop"), "said nothing"),
        ] {
            let (base, server) = serve(vec![given]);
            let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
            assert_eq!(verdict.score, None);
            let problem = verdict.problem.unwrap();
            assert!(problem.contains(why), "{problem}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_grade_is_found_wherever_the_server_puts_it() {
        for given in [
            answer(r#"{"content":[{"type":"text","text":"8"}]}"#, "stop"),
            answer(r#"{"content":"8","reasoning_content":"perhaps 2"}"#, "stop"),
            answer(r#"{"content":"<think>2</think>8"}"#, "stop"),
            answer(r#"{"content":null,"reasoning_content":"perhaps 2\nScore: 8"}"#, "stop"),
            answer(r#"{"content":"","reasoning":"perhaps 2\n8"}"#, "stop"),
            ("200 OK", r#"{"choices":[{"text":"8"}]}"#.into()),
        ] {
            let (base, server) = serve(vec![given.clone()]);
            let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
            assert_eq!((verdict.score, verdict.problem), (Some(0.8), None), "{given:?}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_model_that_thinks_is_asked_in_its_form_and_given_the_room() {
        let refuse = |param: &str| {
            let text = format!(
                r#"{{"error":{{"message":"Unsupported: '{param}'. Use 'max_completion_tokens'.","param":"{param}","code":"unsupported_parameter"}}}}"#
            );
            ("400 Bad Request", text)
        };
        let (base, server) = serve(vec![
            refuse("max_tokens"),
            refuse("temperature"),
            answer(r#"{"content":"","reasoning_content":"hm"}"#, "length"),
            answer(r#"{"content":"8"}"#, "stop"),
            answer(r#"{"content":"7"}"#, "stop"),
        ]);
        let mut judge = judge(base, 0);
        let verdict = judge.judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert_eq!((verdict.score, verdict.attempts), (Some(0.8), 4));
        // What was learnt is kept.
        assert_eq!(judge.judge(TaskKind::Qa, &query(), "another").unwrap().attempts, 1);
        let asked = server.join().unwrap();
        assert!(asked[0].contains("\"max_tokens\":24") && !asked[0].contains("max_completion_tokens"));
        assert!(asked[1].contains("\"max_completion_tokens\":2048") && asked[1].contains("temperature"));
        assert!(!asked[2].contains("\"max_tokens\"") && !asked[2].contains("temperature"));
        assert!(asked[3].contains("\"max_completion_tokens\":8192"), "{}", asked[3]);
    }

    #[test]
    fn a_server_without_a_system_role_gets_one_message() {
        let (base, server) = serve(vec![
            ("400 Bad Request", r#"{"error":{"message":"System role not supported"}}"#.to_lowercase()),
            answer(r#"{"content":"8"}"#, "stop"),
        ]);
        assert_eq!(judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap().score, Some(0.8));
        let asked = server.join().unwrap();
        assert!(asked[0].contains("\"system\"") && !asked[1].contains("\"system\""));
        assert!(asked[1].contains("You grade answers strictly"));
    }

    #[test]
    fn thinking_without_end_is_said_and_an_error_in_a_200_is_one() {
        let endless = || answer(r#"{"content":"","reasoning_content":"hm"}"#, "length");
        let (base, server) = serve(vec![endless(), endless(), endless()]);
        let verdict = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap();
        assert!(verdict.score.is_none() && verdict.problem.unwrap().contains("8192"));
        server.join().unwrap();
        let (base, server) =
            serve(vec![("200 OK", r#"{"error":{"message":"no credit for sesame"}}"#.into())]);
        let error = judge(base, 0).judge(TaskKind::Qa, &query(), "an answer").unwrap_err().to_string();
        assert!(error.contains("no credit") && !error.contains("sesame"), "{error}");
        server.join().unwrap();
    }
}
