//! Answers of a language model, whole or in parts.

use super::{
    error::ApiError,
    health,
    request::{self, json_body, Asked},
    GeneratorHandle, Served,
};
use axum::{
    body::Bytes,
    extract::{rejection::BytesRejection, Path, State},
    http::HeaderMap,
    response::{
        sse::{Event, KeepAlive},
        IntoResponse, Response, Sse,
    },
    routing::{get, post},
    Json, Router,
};
use futures::stream;
use parking_lot::Mutex;
use poq_inference::{FinishReason, Generation, Sink};
use serde_json::{json, Value};
use std::{
    convert::Infallible,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, task::JoinHandle};

type Generators = Arc<Served<GeneratorHandle>>;

pub(super) fn routes(model: Generators) -> Router {
    Router::new()
        .route("/health", get(|State(s): State<Generators>| async move { health(&s.model.health()) }))
        .route("/v1/models", get(|State(s): State<Generators>| async move { s.about.list() }))
        // Names of models may have slashes.
        .route(
            "/v1/models/{*name}",
            get(|State(s): State<Generators>, Path(name): Path<String>| async move { s.about.one(&name) }),
        )
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(complete))
        .with_state(model)
}

async fn chat(
    State(served): State<Generators>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(served, Kind::Chat, request::chat(&json_body(&headers, body)?)?).await
}

async fn complete(
    State(served): State<Generators>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(served, Kind::Text, request::completion(&json_body(&headers, body)?)?).await
}

/// Which of the two forms an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Text,
}

/// What all parts of an answer say.
#[derive(Clone)]
struct Frame {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
}

impl Frame {
    fn new(kind: Kind, model: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{created:x}-{:x}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { kind, id, created, model: model.to_string() }
    }

    fn object(&self, part: bool, choices: &[Value], usage: Option<Value>) -> Value {
        let object = match (self.kind, part) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        };
        let mut object = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
        });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }

    /// A choice that says this much.
    fn choice(&self, part: bool, index: u64, text: Option<&str>, finish: Option<&Generation>) -> Value {
        let mut choice = json!({
            "index": index,
            "logprobs": null,
            "finish_reason": finish.map(|generation| match generation.finish_reason {
                FinishReason::Stop => "stop",
                _ => "length",
            }),
        });
        match (self.kind, part) {
            (Kind::Text, _) => choice["text"] = text.unwrap_or_default().into(),
            (Kind::Chat, false) => {
                choice["message"] =
                    json!({ "role": "assistant", "content": text.unwrap_or_default(), "refusal": null });
            }
            (Kind::Chat, true) => {
                choice["delta"] = text.map_or_else(|| json!({}), |text| json!({ "content": text }))
            }
        }
        if let Some(trace) = finish.and_then(|generation| generation.trace.as_ref()) {
            choice["token_ids"] = json!(trace.tokens);
        }
        choice
    }
}

/// Tokens that were read and written.
#[derive(Default)]
struct Usage {
    prompt: usize,
    completion: usize,
}

impl Usage {
    fn add(&mut self, generation: &Generation) {
        self.prompt = generation.prompt_tokens;
        self.completion += generation.completion_tokens;
    }

    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

async fn answer(served: Generators, kind: Kind, asked: Asked) -> Result<Response, ApiError> {
    served.about.check(asked.model.as_deref())?;
    let frame = Frame::new(kind, &served.about.name);
    let mut asked = asked;
    asked.request.deadline = Some(Instant::now() + served.about.time_limit);
    if asked.stream {
        return stream_answer(served, frame, asked).await;
    }
    let (mut choices, mut usage) = (Vec::new(), Usage::default());
    for index in 0..asked.count {
        let generation = served.model.generate(asked.one(index)).await?;
        usage.add(&generation);
        choices.push(frame.choice(false, index, Some(&generation.text), Some(&generation)));
    }
    Ok(Json(frame.object(false, &choices, Some(usage.json()))).into_response())
}

/// The parts of an answer. When the client hangs up this is dropped, and the generation with it.
struct Parts {
    first: Option<Value>,
    rest: mpsc::UnboundedReceiver<Result<Value, ApiError>>,
    generating: JoinHandle<()>,
    ended: bool,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.generating.abort();
    }
}

impl Parts {
    async fn next(&mut self) -> Option<Event> {
        let data = match self.first.take() {
            Some(first) => first.to_string(),
            None => match self.rest.recv().await {
                Some(Ok(part)) => part.to_string(),
                // Too late for a status: clients look for this.
                Some(Err(error)) => error.json().to_string(),
                None if self.ended => return None,
                None => {
                    self.ended = true;
                    "[DONE]".to_string()
                }
            },
        };
        Some(Event::default().data(data))
    }
}

async fn stream_answer(served: Generators, frame: Frame, asked: Asked) -> Result<Response, ApiError> {
    let (parts, mut rest) = mpsc::unbounded_channel();
    let generating = tokio::spawn(generate(served, frame, asked, parts));
    // What is refused is refused with its status, before anything was said.
    let first = match rest.recv().await {
        Some(Ok(first)) => Some(first),
        Some(Err(error)) => return Err(error),
        None => None,
    };
    let parts = Parts { first, rest, generating, ended: false };
    let events = stream::unfold(parts, |mut parts| async move {
        let event = parts.next().await?;
        Some((Ok::<_, Infallible>(event), parts))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

async fn generate(
    served: Generators,
    frame: Frame,
    asked: Asked,
    parts: mpsc::UnboundedSender<Result<Value, ApiError>>,
) {
    let mut usage = Usage::default();
    for index in 0..asked.count {
        let mut request = asked.one(index);
        let (sender, of) = (parts.clone(), frame.clone());
        let told = Arc::new(Mutex::new(String::new()));
        let tell = {
            let told = told.clone();
            move |text: &str| {
                told.lock().push_str(text);
                // Where nobody listens any more, the generation is about to be ended.
                let _ = sender.send(Ok(of.object(true, &[of.choice(true, index, Some(text), None)], None)));
            }
        };
        request.sink = Some(Sink::new(tell.clone()));
        match served.model.generate(request).await {
            Ok(generation) => {
                usage.add(&generation);
                // Not every model tells its answer while it makes it.
                let rest = generation.text.strip_prefix(told.lock().as_str()).unwrap_or_default().to_string();
                if !rest.is_empty() {
                    tell(&rest);
                }
                let last = frame.choice(true, index, None, Some(&generation));
                let _ = parts.send(Ok(frame.object(true, &[last], None)));
            }
            Err(error) => {
                let _ = parts.send(Err(error.into()));
                return;
            }
        }
    }
    if asked.usage {
        let _ = parts.send(Ok(frame.object(true, &[], Some(usage.json()))));
    }
}
