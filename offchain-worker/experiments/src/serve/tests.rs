#![allow(clippy::unwrap_used)]

use super::{request::MAX_BODY_BYTES, *};
use poq_inference::{
    endpoint::{Address, Api, Endpoint, Served},
    quality::{
        judge::{EndpointJudge, EndpointOptions, Judge},
        Query,
    },
    CrossEncoder, Encoder, FinishReason, GenerateRequest, Generation, Message, ModelDigest, Prompt, Sink,
    TaskKind, Trace,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

/// Grades everything with an 8, and remembers nothing.
struct Eight;

impl Generator for Eight {
    fn name(&self) -> &str {
        "eight"
    }

    fn digest(&self) -> ModelDigest {
        ModelDigest([8; 32])
    }

    fn context_tokens(&self) -> usize {
        1000
    }

    fn generate(&mut self, request: &GenerateRequest) -> poq_inference::Result<Generation> {
        request.validate(1000)?;
        assert_eq!(request.temperature, 0.0);
        Ok(Generation {
            text: "8".into(),
            prompt_tokens: request.prompt.bytes(),
            completion_tokens: 1,
            prompt_ms: 0,
            decode_ms: 0,
            finish_reason: FinishReason::Stop,
            trace: None,
        })
    }
}

/// Tells what it was asked.
struct Echo;

impl Generator for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn digest(&self) -> ModelDigest {
        ModelDigest([9; 32])
    }

    fn context_tokens(&self) -> usize {
        1000
    }

    fn generate(&mut self, request: &GenerateRequest) -> poq_inference::Result<Generation> {
        request.validate(1000)?;
        let messages = match &request.prompt {
            Prompt::Chat(messages) => messages.clone(),
            Prompt::Text(text) => vec![Message::new(poq_inference::ChatRole::System, text.clone())],
        };
        let messages: Vec<_> =
            messages.iter().map(|m| format!("{}:{}", m.role.as_str(), m.content)).collect();
        let text = format!(
            "{} max={} t={} p={:?} seed={} stop={:?}",
            messages.join("|"),
            request.max_tokens,
            request.temperature,
            request.top_p,
            request.seed,
            request.stop
        );
        Ok(Generation {
            text,
            prompt_tokens: 1,
            completion_tokens: 1,
            prompt_ms: 0,
            decode_ms: 0,
            finish_reason: FinishReason::Stop,
            trace: None,
        })
    }
}

fn about(name: &str) -> About {
    About {
        name: name.into(),
        digest: "0x0808".into(),
        context_tokens: 1000,
        time_limit: Duration::from_millis(400),
    }
}

/// A server of a model, until it is dropped.
struct Server {
    runtime: tokio::runtime::Runtime,
    address: std::net::SocketAddr,
}

impl Server {
    fn of<G: Generator + 'static>(name: &str, model: fn() -> G) -> Self {
        let thread = ModelThread::spawn(name, ThreadOptions::default(), move || {
            Ok(Box::new(model()) as Box<dyn Generator>)
        })
        .unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let about = About { time_limit: Duration::from_secs(20), ..about(name) };
        runtime.spawn(async move { axum::serve(listener, generator(thread.handle(), about)).await });
        Self { runtime, address }
    }

    /// A request as it goes over the wire; the status and the body as JSON.
    fn send(&self, head: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = body.len();
        write!(stream, "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").unwrap();
        // A server that refuses a body may close before it has read it.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    fn chat(&self, body: &str) -> (u16, Value) {
        self.send("POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json", body)
    }
}

#[test]
fn requests_of_every_client_are_understood() {
    let server = Server::of("echo", || Echo);
    let rest = "max=128 t=1 p=None seed=0 stop=[]";
    let user = r#""messages":[{"role":"user","content":"hi"}]"#;
    for (body, said) in [
        (format!("{{{user}}}"), format!("user:hi {rest}")),
        (
            r#"{"messages":[{"role":"developer","content":"d"},{"role":"user","name":"n","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#.into(),
            format!("system:d|user:a\nb {rest}"),
        ),
        (
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[]},{"role":"user","content":["x"]}]}"#.into(),
            format!("user:q|assistant:|user:x {rest}"),
        ),
        (
            format!(r#"{{{user},"model":"echo","stop":null,"stream":null,"stream_options":null,"temperature":null,"top_p":null,"n":null,"seed":null,"max_tokens":null,"logprobs":null,"tools":null,"response_format":null,"logit_bias":null,"user":"u","metadata":{{}},"service_tier":"auto","unheard_of":[1.5]}}"#),
            format!("user:hi {rest}"),
        ),
        (
            format!(r#"{{{user},"stop":"x","temperature":0,"top_p":1,"seed":-1,"max_tokens":5,"n":1,"stream":false,"tools":[],"presence_penalty":0,"response_format":{{"type":"text"}}}}"#),
            "user:hi max=5 t=0 p=Some(1.0) seed=18446744073709551615 stop=[\"x\"]".into(),
        ),
        (
            format!(r#"{{{user},"stop":["x","y"],"max_tokens":5,"max_completion_tokens":7.0,"temperature":0.5}}"#),
            "user:hi max=7 t=0.5 p=None seed=0 stop=[\"x\", \"y\"]".into(),
        ),
    ] {
        let (status, answer) = server.chat(&body);
        assert_eq!((status, answer["choices"][0]["message"]["content"].as_str()), (200, Some(said.as_str())), "{body}: {answer}");
        assert!(answer["id"].is_string() && answer["created"].is_u64(), "{answer}");
    }
    let (_, answer) = server.chat(&format!(r#"{{{user},"n":2}}"#));
    let seeds: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["message"]["content"].as_str().unwrap().contains("seed=1"))
        .collect();
    assert_eq!((seeds, answer["usage"]["completion_tokens"].as_u64()), (vec![false, true], Some(2)));
    assert_eq!(server.send("GET /v1/models/echo HTTP/1.1", "").1["id"], "echo");
    assert_eq!(server.send("GET /health HTTP/1.1", ""), (200, json!({ "status": "ok" })));
    // Without a type, as some clients send it; and with a parameter.
    let post = "POST /v1/chat/completions HTTP/1.1";
    assert_eq!(server.send(post, &format!("{{{user}}}")).0, 200);
    assert_eq!(
        server
            .send(
                &format!("{post}\r\ncontent-type: Application/JSON; charset=utf-8"),
                &format!("\u{feff}{{{user}}}")
            )
            .0,
        200
    );
    drop(server.runtime);
}

#[test]
fn every_refusal_is_an_error_object() {
    let server = Server::of("echo", || Echo);
    let user = r#""messages":[{"role":"user","content":"hi"}]"#;
    let with = |more: &str| format!("{{{user},{more}}}");
    let one = |message: &str| format!(r#"{{"messages":[{message}]}}"#);
    let post = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json";
    let form = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded";
    for (head, body, status, param, words) in [
        (post, "{".to_string(), 400, None, "not JSON"),
        (post, String::new(), 400, None, "not JSON"),
        (post, "[]".into(), 400, None, "object"),
        (post, "{}".into(), 400, Some("messages"), "missing"),
        (post, r#"{"messages":[]}"#.into(), 400, Some("messages"), "empty"),
        (post, r#"{"messages":"hi"}"#.into(), 400, Some("messages"), "list"),
        (post, one("7"), 400, Some("messages[0]"), "object"),
        (post, one(r#"{"content":"x"}"#), 400, Some("messages[0].role"), "missing"),
        (post, one(r#"{"role":"poet","content":"x"}"#), 400, Some("messages[0].role"), "poet"),
        (
            post,
            one(r#"{"role":"tool","tool_call_id":"1","content":"x"}"#),
            400,
            Some("messages[0].role"),
            "`tool`",
        ),
        (post, one(r#"{"role":"user"}"#), 400, Some("messages[0].content"), "missing"),
        (post, one(r#"{"role":"user","content":7}"#), 400, Some("messages[0].content"), "parts"),
        (
            post,
            one(r#"{"role":"assistant","tool_calls":[{"id":"1"}]}"#),
            400,
            Some("messages[0].tool_calls"),
            "tools",
        ),
        (
            post,
            one(r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}"#),
            400,
            Some("messages[0].content[0]"),
            "`image_url`",
        ),
        (
            post,
            one(r#"{"role":"user","content":[{"type":"input_audio"}]}"#),
            400,
            Some("messages[0].content[0]"),
            "`input_audio`",
        ),
        (
            post,
            one(r#"{"role":"user","content":[{"text":"x"}]}"#),
            400,
            Some("messages[0].content[0]"),
            "`type`",
        ),
        (post, with(r#""stream":"yes""#), 400, Some("stream"), "true or false"),
        (post, with(r#""n":9"#), 400, Some("n"), "1 to 8"),
        (post, with(r#""n":0"#), 400, Some("n"), "1 to 8"),
        (post, with(r#""stop":7"#), 400, Some("stop"), "text"),
        (post, with(r#""stop":["a",7]"#), 400, Some("stop"), "text"),
        (post, with(r#""stop":"""#), 400, Some("stop"), "empty"),
        (post, with(r#""temperature":"hot""#), 400, Some("temperature"), "number"),
        (post, with(r#""temperature":9"#), 400, None, "temperature"),
        (post, with(r#""max_tokens":-1"#), 400, Some("max_tokens"), "at least 1"),
        (post, with(r#""max_completion_tokens":0"#), 400, Some("max_completion_tokens"), "at least 1"),
        (post, with(r#""max_tokens":1.5"#), 400, Some("max_tokens"), "whole"),
        (post, with(r#""max_tokens":100000"#), 400, None, "context"),
        (post, with(r#""logprobs":true"#), 400, Some("logprobs"), "not offered"),
        (post, with(r#""tools":[{"type":"function"}]"#), 400, Some("tools"), "tools"),
        (
            post,
            with(r#""response_format":{"type":"json_object"}"#),
            400,
            Some("response_format"),
            "json_object",
        ),
        (post, with(r#""frequency_penalty":0.5"#), 400, Some("frequency_penalty"), "not offered"),
        (post, with(r#""logit_bias":{"1":5}"#), 400, Some("logit_bias"), "not offered"),
        (post, with(r#""model":"gpt-4""#), 404, Some("model"), "`echo`"),
        (form, with(r#""n":1"#), 415, None, "application/json"),
        ("GET /v1/chat/completions HTTP/1.1", String::new(), 405, None, "GET"),
        ("DELETE /v1/models HTTP/1.1", String::new(), 405, None, "DELETE"),
        ("GET /v1/models/org/other HTTP/1.1", String::new(), 404, Some("model"), "org/other"),
        ("POST /v1/embeddings HTTP/1.1", String::new(), 404, None, "/v1/completions"),
        ("POST /v1/completions HTTP/1.1", "{}".into(), 400, Some("prompt"), "missing"),
        ("POST /v1/completions HTTP/1.1", r#"{"prompt":""}"#.into(), 400, Some("prompt"), "empty"),
        ("POST /v1/completions HTTP/1.1", r#"{"prompt":["a","b"]}"#.into(), 400, Some("prompt"), "one text"),
        (
            "POST /v1/completions HTTP/1.1",
            r#"{"prompt":"a","echo":true}"#.into(),
            400,
            Some("echo"),
            "not offered",
        ),
        (post, with(r#""stream":true,"stream_options":7"#), 400, Some("stream_options"), "object"),
        // What is refused is refused before anything is streamed.
        (post, with(r#""stream":true,"max_tokens":100000"#), 400, None, "context"),
        (post, with(&format!(r#""user":"{}""#, "x".repeat(MAX_BODY_BYTES))), 413, None, "bytes"),
    ] {
        let (found, answer) = server.send(head, &body);
        let error = &answer["error"];
        let shown: String = body.chars().take(120).collect();
        assert_eq!((found, error["param"].as_str()), (status, param), "{shown}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(words), "{shown}: {answer}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error.as_object().unwrap().contains_key("code"), "{answer}");
    }
    drop(server.runtime);
}

#[test]
fn a_judge_can_be_a_model_served_here() {
    let server = Server::of("eight", || Eight);
    let base: url::Url = format!("http://{}/v1", server.address).parse().unwrap();
    let query = Query { context: "c".into(), question: "q".into() };
    let mut judge = EndpointJudge::new(EndpointOptions::new(base.clone(), "eight")).unwrap();
    let verdict = judge.judge(TaskKind::Qa, &query, "an answer").unwrap();
    assert_eq!((verdict.score, verdict.completion_tokens), (Some(0.8), 1));

    let mut other = EndpointJudge::new(EndpointOptions::new(base, "nine")).unwrap();
    let error = other.judge(TaskKind::Qa, &query, "an answer").unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("eight"), "{error}");
}

/// Says one word every ten milliseconds, through a sink if it is asked to, until it is told to stop; counts those who ask it.
struct Slow;

static ASKING: AtomicUsize = AtomicUsize::new(0);

impl Generator for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn digest(&self) -> ModelDigest {
        ModelDigest([9; 32])
    }

    fn context_tokens(&self) -> usize {
        100_000
    }

    fn generate(&mut self, request: &GenerateRequest) -> poq_inference::Result<Generation> {
        ASKING.fetch_add(1, Ordering::SeqCst);
        let (mut words, mut reason) = (0, FinishReason::Length);
        while words < request.max_tokens {
            std::thread::sleep(Duration::from_millis(10));
            words += 1;
            if let Some(sink) = &request.sink {
                sink.tell("word ");
            }
            if request.cancel.is_cancelled() {
                reason = FinishReason::Cancelled;
                break;
            }
            if request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                reason = FinishReason::Deadline;
                break;
            }
        }
        ASKING.fetch_sub(1, Ordering::SeqCst);
        Ok(Generation {
            text: "word ".repeat(words),
            prompt_tokens: 3,
            completion_tokens: words,
            prompt_ms: 0,
            decode_ms: 0,
            finish_reason: reason,
            trace: request.trace.then(|| Trace { tokens: vec![7; words], logprobs: Vec::new() }),
        })
    }
}

/// Serves until its runtime is dropped; the address, and how long answers may take.
fn slow(parallel: usize, time_limit: Duration) -> (tokio::runtime::Runtime, std::net::SocketAddr) {
    let options = ThreadOptions { queue: 64, parallel, ..ThreadOptions::default() };
    let thread = ModelThread::spawn("slow", options, || Ok(Box::new(Slow) as Box<dyn Generator>)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let about = About { time_limit, context_tokens: 100_000, ..about("slow") };
    runtime.spawn(async move { axum::serve(listener, generator(thread.handle(), about)).await });
    (runtime, address)
}

fn post(address: std::net::SocketAddr, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

/// The events of a streamed answer, and its head.
fn events(address: std::net::SocketAddr, path: &str, body: &str) -> (String, Vec<String>) {
    let mut text = String::new();
    post(address, path, body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let data = body.lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_string));
    (head.to_lowercase(), data.collect())
}

/// Waits until so many ask the slow model.
fn wait_until_asking(count: usize) {
    let begun = Instant::now();
    while ASKING.load(Ordering::SeqCst) != count {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} are asking", ASKING.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One after the other: they count who asks the one slow model.
#[test]
fn answers_are_streamed_to_many_and_end_with_whoever_asked() {
    let (_runtime, address) = slow(3, Duration::from_secs(30));
    let user = r#""messages":[{"role":"user","content":"hi"}]"#;
    let chat = "/v1/chat/completions";
    let body = format!(
        r#"{{{user},"stream":true,"n":2,"max_tokens":3,"return_token_ids":true,"stream_options":{{"include_usage":true}}}}"#
    );
    let (head, parts) = events(address, chat, &body);
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert_eq!(parts.last().unwrap(), "[DONE]");
    let parts: Vec<Value> =
        parts[..parts.len() - 1].iter().map(|part| serde_json::from_str(part).unwrap()).collect();
    let text = |index: u64| -> String {
        let of = parts.iter().filter(|part| part["choices"][0]["index"] == index);
        of.filter_map(|part| part["choices"][0]["delta"]["content"].as_str()).collect()
    };
    assert_eq!((text(0).as_str(), text(1).as_str()), ("word word word ", "word word word "));
    assert!(parts
        .iter()
        .all(|part| part["object"] == "chat.completion.chunk" && part["id"] == parts[0]["id"]));
    let ends: Vec<&Value> =
        parts.iter().filter(|part| part["choices"][0]["finish_reason"] == "length").collect();
    assert_eq!((ends.len(), &ends[0]["choices"][0]["token_ids"]), (2, &json!([7, 7, 7])));
    assert_eq!(
        parts.last().unwrap()["usage"],
        json!({ "prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9 })
    );

    let (_, parts) = events(address, "/v1/completions", r#"{"prompt":"a","stream":true,"max_tokens":2}"#);
    let first: Value = serde_json::from_str(&parts[0]).unwrap();
    assert_eq!(
        (&first["object"], &first["choices"][0]["text"]),
        (&json!("text_completion"), &json!("word "))
    );

    // Three at once, each for a second and a half: not one after the other.
    let begun = Instant::now();
    let asked: Vec<_> = (0..3)
        .map(|_| {
            let body = format!(r#"{{{user},"stream":true,"max_tokens":100}}"#);
            std::thread::spawn(move || events(address, chat, &body))
        })
        .collect();
    wait_until_asking(3);
    for thread in asked {
        assert_eq!(thread.join().unwrap().1.len(), 102);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    wait_until_asking(0);

    // Who hangs up ends the generation, streamed or not, and also before its turn has come.
    for stream in [true, false] {
        let body = format!(r#"{{{user},"stream":{stream},"max_tokens":100000}}"#);
        let mut clients: Vec<TcpStream> = (0..5).map(|_| post(address, chat, &body)).collect();
        wait_until_asking(3);
        if stream {
            let mut part = [0; 64];
            clients[0].read_exact(&mut part).unwrap();
        }
        drop(clients);
        wait_until_asking(0);
    }

    let (_limited, address) = slow(1, Duration::from_millis(300));
    let (_, parts) = events(address, chat, &format!(r#"{{{user},"stream":true,"max_tokens":100000}}"#));
    let last: Value = serde_json::from_str(&parts[parts.len() - 2]).unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert!(parts.len() < 100, "{}", parts.len());
    wait_until_asking(0);
}

/// The other side of it: a model behind an endpoint, as a worker has one.
#[test]
fn an_endpoint_can_be_a_model_served_here() {
    let server = Server::of("echo", || Echo);
    let url: Address = format!("http://{}/v1", server.address).parse().unwrap();
    let served =
        |model: &str, revision: &str| Served { model: model.into(), revision: Some(revision.into()) };
    let endpoint = Endpoint::new("ours", Api::OpenAi, url.clone(), served("echo", "0x0808"));
    assert_eq!(endpoint.look().unwrap().context_tokens, Some(1000));
    let mut model = endpoint.generator().unwrap();
    assert_eq!((model.context_tokens(), model.name()), (1000, "ours"));
    let mut request = GenerateRequest::question("", "hi?").with_max_tokens(5).with_sampling(7, 0.0);
    let told = Arc::new(std::sync::Mutex::new(String::new()));
    let heard = told.clone();
    request.sink = Some(Sink::new(move |text| heard.lock().unwrap().push_str(text)));
    let generation = model.generate(&request).unwrap();
    assert_eq!(
        generation.text,
        "system:Answer the question briefly.|user:hi? max=5 t=0 p=None seed=7 stop=[]"
    );
    let error = model.generate(&request.clone().with_max_tokens(2000)).unwrap_err();
    assert!(error.is_bad_request(), "{error}");
    for other in [served("other", "0x0808"), served("echo", "0x0909")] {
        let error = Endpoint::new("ours", Api::OpenAi, url.clone(), other).look().unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("not"), "{error}");
    }
    drop(server.runtime);
}

/// Embeds a text as its length and one; scores a pair by its second text's length.
struct Lengths;

impl Encoder for Lengths {
    fn name(&self) -> &str {
        "lengths"
    }

    fn digest(&self) -> ModelDigest {
        ModelDigest([3; 32])
    }

    fn dimension(&self) -> usize {
        2
    }

    fn embed(&mut self, texts: &[&str]) -> poq_inference::Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
    }
}

impl CrossEncoder for Lengths {
    fn name(&self) -> &str {
        "lengths"
    }

    fn digest(&self) -> ModelDigest {
        ModelDigest([3; 32])
    }

    fn score(&mut self, pairs: &[(&str, &str)]) -> poq_inference::Result<Vec<f32>> {
        Ok(pairs.iter().map(|(_, text)| text.len() as f32 - 2.0).collect())
    }
}

#[test]
fn encoders_are_served_as_tei_and_openai_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = |router: Router| {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        address
    };
    let options = ThreadOptions::default();
    let bi = ModelThread::spawn("lengths", options, || Ok(Box::new(Lengths) as Box<dyn Encoder>)).unwrap();
    let cross =
        ModelThread::spawn("lengths", options, || Ok(Box::new(Lengths) as Box<dyn CrossEncoder>)).unwrap();
    let (bi_at, cross_at) = (
        start(encoder::bi(bi.handle(), about("lengths"))),
        start(encoder::cross(cross.handle(), about("lengths"))),
    );
    let url = |at: std::net::SocketAddr, path: &str| format!("http://{at}{path}").parse::<Address>().unwrap();
    let served = || Served { model: "lengths".into(), revision: None };
    for (api, path) in [(Api::Tei, ""), (Api::OpenAi, "/v1")] {
        let mut encoder = Endpoint::new("ours", api, url(bi_at, path), served()).encoder().unwrap();
        let vectors = encoder.embed(&["abc"; 40]).unwrap();
        assert_eq!(vectors.len(), 40);
        assert!((vectors[39][0] - 3.0 / 10f32.sqrt()).abs() < 1e-6, "{vectors:?}");
    }
    let endpoint = Endpoint::new("ours", Api::Tei, url(cross_at, ""), served());
    assert!(endpoint.is_reranker().unwrap());
    let mut encoder = endpoint.cross_encoder().unwrap();
    assert_eq!(encoder.score(&[("q", "abc"), ("q", "a"), ("r", "abcd")]).unwrap(), [1.0, -1.0, 2.0]);
    assert!(Endpoint::new("ours", Api::Tei, url(bi_at, ""), served()).cross_encoder().is_err());

    let ask = |at: std::net::SocketAddr, path: &str, body: &str| {
        let mut text = String::new();
        post(at, path, body).read_to_string(&mut text).unwrap();
        let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str::<Value>(text.split_once("\r\n\r\n").unwrap().1).unwrap())
    };
    let (status, ranks) =
        ask(cross_at, "/rerank", r#"{"query":"q","texts":["ab","abcd"],"return_text":true}"#);
    assert_eq!(
        (status, &ranks[0]["index"], &ranks[0]["text"], &ranks[1]["score"]),
        (200, &json!(1), &json!("abcd"), &json!(0.5))
    );
    for (at, path, body, param) in [
        (bi_at, "/embed", r#"{}"#, "inputs"),
        (bi_at, "/embed", r#"{"inputs":[7]}"#, "inputs"),
        (bi_at, "/embed", r#"{"inputs":"a","normalize":false}"#, "normalize"),
        (bi_at, "/v1/embeddings", r#"{"input":"a","encoding_format":"base64"}"#, "encoding_format"),
        (bi_at, "/v1/embeddings", r#"{"input":"a","dimensions":7}"#, "dimensions"),
        (cross_at, "/rerank", r#"{"texts":["a"]}"#, "query"),
        (cross_at, "/rerank", r#"{"query":"q"}"#, "texts"),
    ] {
        let (status, answer) = ask(at, path, body);
        assert_eq!(
            (status, answer["error"]["param"].as_str()),
            (400, Some(param)),
            "{path} {body}: {answer}"
        );
    }
    let many = format!(r#"{{"inputs":[{}]}}"#, vec!["\"a\""; 33].join(","));
    assert!(ask(bi_at, "/embed", &many).1["error"]["message"].as_str().unwrap().contains("33 texts"));
}
