//! A local model behind an OpenAI-compatible endpoint: enough of it for a judge, and for any program that speaks
//! `/v1/chat/completions` without streaming.

use crate::{
    cli::ServeArgs,
    error::{Error, Result},
};
use axum::{
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    Json, Router,
};
use poq_inference::{
    load_generator, FinishReason, GenerateRequest, Generator, LoadOptions, Message, ModelHandle, ModelThread,
    Prompt, ThreadOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use tokio::net::TcpListener;

/// Larger requests are refused: far above what fits a context.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// Answers requests until interrupted.
///
/// # Errors
/// When the model cannot be loaded or the address cannot be listened at.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let store = args.store.open()?;
    let (name, load) = (args.model.clone(), LoadOptions::on(args.store.device));
    let thread = ModelThread::spawn(&args.model, ThreadOptions::default(), move || {
        load_generator(&store, &name, &load)
    })?;
    let io = |e| Error::io(Path::new(&args.listen.to_string()), e);
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
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(complete))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(model)
}

async fn models(State(model): State<ModelHandle<Box<dyn Generator>>>) -> Json<serde_json::Value> {
    Json(
        json!({ "object": "list", "data": [{ "id": model.name(), "object": "model", "owned_by": "local" }] }),
    )
}

#[derive(Deserialize)]
struct ChatRequest {
    #[serde(default)]
    model: Option<String>,
    messages: Vec<Message>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default, alias = "max_completion_tokens")]
    max_tokens: Option<usize>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    stop: Stop,
    #[serde(default)]
    stream: bool,
}

/// The API allows both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Default for Stop {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Serialize)]
struct ApiError {
    error: ApiErrorBody,
}

#[derive(Serialize)]
struct ApiErrorBody {
    message: String,
    r#type: &'static str,
}

fn refuse(status: StatusCode, message: String) -> Response {
    let kind = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
    (status, Json(ApiError { error: ApiErrorBody { message, r#type: kind } })).into_response()
}

async fn complete(
    State(model): State<ModelHandle<Box<dyn Generator>>>,
    Json(request): Json<ChatRequest>,
) -> Response {
    if request.stream {
        return refuse(StatusCode::BAD_REQUEST, "streaming is not offered: leave `stream` out".to_string());
    }
    if request.messages.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "`messages` is empty".to_string());
    }
    if let Some(asked) = request.model.filter(|asked| asked != model.name()) {
        return refuse(StatusCode::NOT_FOUND, format!("the model here is `{}`, not `{asked}`", model.name()));
    }
    let mut generate = GenerateRequest::new(Prompt::Chat(request.messages));
    generate.max_tokens = request.max_tokens.unwrap_or(generate.max_tokens);
    generate.temperature = request.temperature.unwrap_or(1.0);
    generate.top_p = request.top_p;
    generate.seed = request.seed.unwrap_or(0);
    generate.stop = match request.stop {
        Stop::One(text) => vec![text],
        Stop::Several(texts) => texts,
    };
    match model.generate(generate).await {
        Ok(generation) => Json(json!({
            "object": "chat.completion",
            "model": model.name(),
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": generation.text },
                "finish_reason": match generation.finish_reason {
                    FinishReason::Stop => "stop",
                    _ => "length",
                },
            }],
            "usage": {
                "prompt_tokens": generation.prompt_tokens,
                "completion_tokens": generation.completion_tokens,
                "total_tokens": generation.prompt_tokens + generation.completion_tokens,
            },
        }))
        .into_response(),
        Err(error) if error.is_bad_request() => refuse(StatusCode::BAD_REQUEST, error.to_string()),
        // A full queue or a model that is being loaded again: the client is to come back.
        Err(error) if error.is_transient() => refuse(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
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

    #[test]
    fn a_judge_can_be_a_model_served_here() {
        let thread = ModelThread::spawn("eight", ThreadOptions::default(), || {
            Ok(Box::new(Eight) as Box<dyn Generator>)
        })
        .unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let base: url::Url = format!("http://{}/v1", listener.local_addr().unwrap()).parse().unwrap();
        let server = runtime.spawn(async move { axum::serve(listener, router(thread.handle())).await });

        let query = Query { context: "c".into(), question: "q".into() };
        let mut judge = EndpointJudge::new(EndpointOptions::new(base.clone(), "eight")).unwrap();
        let verdict = judge.judge(TaskKind::Qa, &query, "an answer").unwrap();
        assert_eq!((verdict.score, verdict.completion_tokens), (Some(0.8), 1));

        let mut other = EndpointJudge::new(EndpointOptions::new(base, "nine")).unwrap();
        let error = other.judge(TaskKind::Qa, &query, "an answer").unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("eight"), "{error}");
        server.abort();
    }
}
