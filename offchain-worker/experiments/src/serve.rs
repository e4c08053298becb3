//! A local model behind an OpenAI-compatible endpoint: enough of it for a judge, and for any program that speaks
//! `/v1/chat/completions` without streaming.

use crate::{
    cli::ServeArgs,
    error::{Error, Result},
};
use axum::{
    body::Bytes,
    extract::{rejection::BytesRejection, DefaultBodyLimit, Path, State},
    http::{header, HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
    Json, Router,
};
use poq_inference::{
    load_generator, ChatRole, FinishReason, GenerateRequest, Generator, Health, Message, ModelHandle,
    ModelThread, Prompt, ThreadOptions,
};
use serde_json::{json, Value};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpListener;

/// Larger requests are refused: far above what fits a context.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// Answers requests until interrupted.
///
/// # Errors
/// When the model cannot be loaded or the address cannot be listened at.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let store = args.store.open()?;
    let (name, load) = (args.model.clone(), args.store.options(&store, &args.model));
    let thread = ModelThread::spawn(&args.model, ThreadOptions::default(), move || {
        load_generator(&store, &name, &load)
    })?;
    let io = |e| Error::io(std::path::Path::new(&args.listen.to_string()), e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(io)?;
        eprintln!("{} answers at http://{}/v1", args.model, listener.local_addr().map_err(io)?);
        let stop = async {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "no signal will end this");
                std::future::pending::<()>().await;
            }
        };
        axum::serve(listener, router(thread.handle())).with_graceful_shutdown(stop).await.map_err(io)
    })
}

/// A model as a service.
pub fn router(model: ModelHandle<Box<dyn Generator>>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        // Names of models may have slashes.
        .route("/v1/models/{*name}", get(one_model))
        .route("/v1/chat/completions", post(complete))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(model)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is no `{}` here; there are /v1/chat/completions and /v1/models", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("`{}` does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

fn no_such_model(model: &ModelHandle<Box<dyn Generator>>, asked: &str) -> ApiError {
    ApiError {
        param: Some("model".to_string()),
        code: Some("model_not_found"),
        ..ApiError::new(StatusCode::NOT_FOUND, format!("the model here is `{}`, not `{asked}`", model.name()))
    }
}

async fn health(State(model): State<ModelHandle<Box<dyn Generator>>>) -> Result<Json<Value>, ApiError> {
    match model.health() {
        Health::Healthy => Ok(Json(json!({ "status": "ok" }))),
        other => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the model is {other:?}"))),
    }
}

fn description(model: &ModelHandle<Box<dyn Generator>>) -> Value {
    json!({ "id": model.name(), "object": "model", "created": 0, "owned_by": "local" })
}

async fn models(State(model): State<ModelHandle<Box<dyn Generator>>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [description(&model)] }))
}

async fn one_model(
    State(model): State<ModelHandle<Box<dyn Generator>>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if name == model.name() {
        Ok(Json(description(&model)))
    } else {
        Err(no_such_model(&model, &name))
    }
}

/// A request, as far as it is looked at; what is not known is let pass, as other servers do.
#[derive(Debug)]
struct Chat {
    model: Option<String>,
    request: GenerateRequest,
    /// How many answers; each with the next seed.
    count: u64,
}

/// The most answers of one request.
const MOST_ANSWERS: u64 = 8;

/// Why a request is refused, in the form that clients of this API read.
#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    message: String,
    /// The field at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field that is not of the form it must have.
    fn field(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("`{param}`: {message}"),
            param: Some(param),
            code: Some("invalid_value"),
        }
    }

    /// A field that asks for what is not offered: to pass over it would answer another question.
    fn unsupported(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let error = json!({ "message": self.message, "type": kind, "param": self.param, "code": self.code });
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}

impl From<poq_inference::Error> for ApiError {
    fn from(error: poq_inference::Error) -> Self {
        let too_long = matches!(
            error,
            poq_inference::Error::PromptTooLong { .. } | poq_inference::Error::PromptTooLarge { .. }
        );
        let status = if error.is_bad_request() {
            StatusCode::BAD_REQUEST
        } else if error.is_transient() {
            // A full queue or a model that is being loaded again: the client is to come back.
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let code = too_long.then_some("context_length_exceeded");
        Self { status, message: error.to_string(), param: too_long.then(|| "messages".to_string()), code }
    }
}

/// The body as JSON. A client that names no type is believed; one that names another is told.
fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !(essence == "application/json" || essence.ends_with("+json")) {
            let message = format!("the content type is `{kind}`: send `content-type: application/json`");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    }
    let body = body.map_err(|rejection| {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the request has more than {MAX_BODY_BYTES} bytes"),
            _ => rejection.body_text(),
        };
        ApiError::new(rejection.status(), message)
    })?;
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
    serde_json::from_slice(body)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")))
}

/// A field; `null` is what a client writes that has no value.
fn field<'v>(body: &'v Value, name: &str) -> Option<&'v Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn number(body: &Value, name: &str) -> Result<Option<f64>, ApiError> {
    match field(body, name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|n| n.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::field(name, format!("a number is expected, not {value}"))),
        },
    }
}

fn whole(body: &Value, name: &str) -> Result<Option<i64>, ApiError> {
    let wrong = |value: &Value| ApiError::field(name, format!("a whole number is expected, not {value}"));
    let Some(value) = field(body, name) else { return Ok(None) };
    // Some clients have no whole numbers and write 16.0.
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64);
    value.as_i64().or_else(float).map(Some).ok_or_else(|| wrong(value))
}

fn truth(body: &Value, name: &str) -> Result<bool, ApiError> {
    match field(body, name) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(other) => Err(ApiError::field(name, format!("true or false is expected, not {other}"))),
    }
}

/// What a message says: a text, or parts that are texts.
fn content(message: &Value, at: &str) -> Result<String, ApiError> {
    let at = format!("{at}.content");
    let parts = match field(message, "content") {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(ApiError::field(at, "a text, or a list of parts, is expected")),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let kind = part["type"].as_str();
        let text = match (part, kind) {
            (Value::String(text), _) => Some(text.as_str()),
            (_, Some("text" | "input_text" | "output_text")) => part["text"].as_str(),
            (_, Some("refusal")) => part["refusal"].as_str(),
            (_, Some(kind)) => {
                let message = format!("parts of type `{kind}` are not supported: this model reads text only");
                return Err(ApiError::unsupported(at, message));
            }
            (_, None) => None,
        };
        match text {
            Some(text) => texts.push(text),
            None => return Err(ApiError::field(at, "a part is an object with `type` and `text`")),
        }
    }
    Ok(texts.join("\n"))
}

fn message(message: &Value, index: usize) -> Result<Message, ApiError> {
    let at = format!("messages[{index}]");
    if !message.is_object() {
        return Err(ApiError::field(at, "an object with `role` and `content` is expected"));
    }
    let role_at = format!("{at}.role");
    let role = match message["role"].as_str() {
        // What models that think call their instructions.
        Some("system" | "developer") => ChatRole::System,
        Some("user") => ChatRole::User,
        Some("assistant") => ChatRole::Assistant,
        Some(role @ ("tool" | "function")) => {
            let text = format!("the role `{role}` is not supported: this server calls no tools");
            return Err(ApiError::unsupported(role_at, text));
        }
        Some(role) => {
            let text = format!("`{role}` is none of system, developer, user, assistant");
            return Err(ApiError::field(role_at, text));
        }
        None => return Err(ApiError::field(role_at, "it is missing, or no text")),
    };
    for name in ["tool_calls", "function_call"] {
        if field(message, name).is_some_and(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty())) {
            return Err(ApiError::unsupported(format!("{at}.{name}"), "this server calls no tools"));
        }
    }
    let content = content(message, &at)?;
    if content.is_empty() && role == ChatRole::User {
        return Err(ApiError::field(format!("{at}.content"), "it is missing or empty"));
    }
    Ok(Message::new(role, content))
}

fn stop(body: &Value) -> Result<Vec<String>, ApiError> {
    let texts = match field(body, "stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .filter(|text| !text.is_null())
            .map(|text| text.as_str().map(str::to_string))
            .collect::<Option<_>>()
            .ok_or_else(|| ApiError::field("stop", "a text, or a list of texts, is expected"))?,
        Some(_) => return Err(ApiError::field("stop", "a text, or a list of texts, is expected")),
    };
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "an empty text would end every answer at once"));
    }
    Ok(texts)
}

/// What would change the answer and is not offered.
fn refuse_unsupported(body: &Value) -> Result<(), ApiError> {
    if truth(body, "stream")? {
        return Err(ApiError::unsupported("stream", "streaming is not offered: leave it out"));
    }
    if truth(body, "logprobs")? || whole(body, "top_logprobs")?.is_some_and(|n| n != 0) {
        return Err(ApiError::unsupported("logprobs", "log-probabilities are not offered"));
    }
    let calls_none = body["tool_choice"] == "none" || body["function_call"] == "none";
    for name in ["tools", "functions"] {
        let some = field(body, name).is_some_and(|tools| tools.as_array().is_none_or(|t| !t.is_empty()));
        if some && !calls_none {
            return Err(ApiError::unsupported(name, "this server calls no tools: leave it out"));
        }
    }
    if let Some(format) = field(body, "response_format") {
        if format["type"] != "text" {
            let text = format!("{} is not offered: answers are text", format["type"]);
            return Err(ApiError::unsupported("response_format", text));
        }
    }
    for name in ["presence_penalty", "frequency_penalty"] {
        if number(body, name)?.is_some_and(|penalty| penalty != 0.0) {
            return Err(ApiError::unsupported(name, "penalties are not offered: 0, or leave it out"));
        }
    }
    if field(body, "logit_bias").is_some_and(|bias| bias.as_object().is_none_or(|bias| !bias.is_empty())) {
        return Err(ApiError::unsupported("logit_bias", "it is not offered: leave it out"));
    }
    if field(body, "modalities").is_some_and(|kinds| *kinds != json!(["text"]))
        || field(body, "audio").is_some()
    {
        return Err(ApiError::unsupported("modalities", "this model writes text only"));
    }
    Ok(())
}

fn chat(body: &Value) -> Result<Chat, ApiError> {
    if !body.is_object() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "the body must be an object with `messages`"));
    }
    refuse_unsupported(body)?;
    let messages = match field(body, "messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(ApiError::field("messages", "it is empty")),
        Some(_) => return Err(ApiError::field("messages", "a list is expected")),
        None => return Err(ApiError::field("messages", "it is missing")),
    };
    let messages = messages.iter().enumerate().map(|(i, m)| message(m, i)).collect::<Result<_, _>>()?;
    let mut request = GenerateRequest::new(Prompt::Chat(messages));
    // The newer name counts where a client sends both.
    for name in ["max_tokens", "max_completion_tokens"] {
        if let Some(tokens) = whole(body, name)? {
            request.max_tokens = usize::try_from(tokens)
                .ok()
                .filter(|tokens| *tokens > 0)
                .ok_or_else(|| ApiError::field(name, format!("it must be at least 1, not {tokens}")))?;
        }
    }
    request.temperature = number(body, "temperature")?.unwrap_or(1.0);
    request.top_p = number(body, "top_p")?;
    // Seeds are signed in this API.
    request.seed = whole(body, "seed")?.unwrap_or(0) as u64;
    request.stop = stop(body)?;
    let count = whole(body, "n")?.unwrap_or(1);
    let count = u64::try_from(count).ok().filter(|n| (1..=MOST_ANSWERS).contains(n)).ok_or_else(|| {
        ApiError::unsupported("n", format!("1 to {MOST_ANSWERS} answers are offered, not {count}"))
    })?;
    let model = match field(body, "model") {
        None => None,
        Some(Value::String(model)) => Some(model.clone()).filter(|model| !model.is_empty()),
        Some(_) => return Err(ApiError::field("model", "a text is expected")),
    };
    Ok(Chat { model, request, count })
}

async fn complete(
    State(model): State<ModelHandle<Box<dyn Generator>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Chat { model: asked, request, count } = chat(&json_body(&headers, body)?)?;
    if let Some(asked) = asked.filter(|asked| asked != model.name()) {
        return Err(no_such_model(&model, &asked));
    }
    let (mut choices, mut prompt_tokens, mut completion_tokens) = (Vec::new(), 0, 0);
    for index in 0..count {
        let mut request = request.clone();
        request.seed = request.seed.wrapping_add(index);
        let generation = model.generate(request).await?;
        prompt_tokens = generation.prompt_tokens;
        completion_tokens += generation.completion_tokens;
        choices.push(json!({
            "index": index,
            "message": { "role": "assistant", "content": generation.text, "refusal": null },
            "logprobs": null,
            "finish_reason": match generation.finish_reason {
                FinishReason::Stop => "stop",
                _ => "length",
            },
        }));
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Json(json!({
        "id": format!("chatcmpl-{created:x}-{:x}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        "object": "chat.completion",
        "created": created,
        "model": model.name(),
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use poq_inference::{
        quality::{
            judge::{EndpointJudge, EndpointOptions, Judge},
            Query,
        },
        Generation, ModelDigest, TaskKind,
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

        fn count_tokens(&self, prompt: &Prompt) -> poq_inference::Result<usize> {
            Ok(prompt.bytes())
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

        fn count_tokens(&self, prompt: &Prompt) -> poq_inference::Result<usize> {
            Ok(prompt.bytes())
        }

        fn generate(&mut self, request: &GenerateRequest) -> poq_inference::Result<Generation> {
            request.validate(1000)?;
            let Prompt::Chat(messages) = &request.prompt else { panic!("a chat") };
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
            })
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
            runtime.spawn(async move { axum::serve(listener, router(thread.handle())).await });
            Self { runtime, address }
        }

        /// A request as it goes over the wire; the status and the body as JSON.
        fn send(&self, head: &str, body: &str) -> (u16, Value) {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(self.address).unwrap();
            let length = body.len();
            write!(stream, "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
                .unwrap();
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
            (post, with(r#""stream":true"#), 400, Some("stream"), "streaming"),
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
            ("POST /v1/completions HTTP/1.1", String::new(), 404, None, "/v1/completions"),
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
}
