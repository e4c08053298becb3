//! Encoders: text-embeddings-inference's `/embed`, `/rerank` and `/info`, OpenAI's `/v1/embeddings`.

use super::{
    error::ApiError,
    finish, health,
    request::{self, json_body, object, texts, truth},
    About, Served,
};
use axum::{
    body::Bytes,
    extract::{rejection::BytesRejection, Path, State},
    http::HeaderMap,
    routing::{get, post},
    Json, Router,
};
use poq_inference::{encode::sigmoid, CrossEncoder, Encoder, ModelHandle};
use serde_json::{json, Value};
use std::sync::Arc;

/// A bi-encoder on its thread.
pub type EncoderHandle = ModelHandle<Box<dyn Encoder>>;
/// A cross-encoder on its thread.
pub type CrossEncoderHandle = ModelHandle<Box<dyn CrossEncoder>>;

/// Texts in one request: TEI's default.
const TEXTS: usize = 32;

type Bi = Arc<Served<EncoderHandle>>;
type Cross = Arc<Served<CrossEncoderHandle>>;
type Body = Result<Bytes, BytesRejection>;

fn info(about: &About, kind: Value) -> Json<Value> {
    Json(json!({
        "model_id": about.name,
        "model_sha": about.digest,
        "model_dtype": "float32",
        "model_type": kind,
        "max_input_length": about.context_tokens,
        "max_client_batch_size": TEXTS,
        "auto_truncate": true,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn few(texts: &[String], name: &str) -> Result<(), ApiError> {
    if texts.len() > TEXTS {
        return Err(ApiError::field(name, format!("{} texts are too many: {TEXTS} at most", texts.len())));
    }
    Ok(())
}

/// A bi-encoder as a service.
pub fn bi(model: EncoderHandle, about: About) -> Router {
    let routes = Router::new()
        .route("/health", get(|State(s): State<Bi>| async move { health(&s.model.health()) }))
        .route("/info", get(|State(s): State<Bi>| async move { info(&s.about, json!({ "embedding": {} })) }))
        .route("/v1/models", get(|State(s): State<Bi>| async move { s.about.list() }))
        .route(
            "/v1/models/{*name}",
            get(|State(s): State<Bi>, Path(name): Path<String>| async move { s.about.one(&name) }),
        )
        .route("/embed", post(embed))
        .route("/v1/embeddings", post(embeddings))
        .with_state(Arc::new(Served { model, about }));
    finish(routes, "/embed, /info, /v1/embeddings and /v1/models")
}

/// A cross-encoder as a service.
pub fn cross(model: CrossEncoderHandle, about: About) -> Router {
    let routes = Router::new()
        .route("/health", get(|State(s): State<Cross>| async move { health(&s.model.health()) }))
        .route(
            "/info",
            get(|State(s): State<Cross>| async move { info(&s.about, json!({ "reranker": {} })) }),
        )
        .route("/rerank", post(rerank))
        .with_state(Arc::new(Served { model, about }));
    finish(routes, "/rerank and /info")
}

async fn embed(State(served): State<Bi>, headers: HeaderMap, body: Body) -> Result<Json<Value>, ApiError> {
    let body = json_body(&headers, body)?;
    object(&body, "inputs")?;
    if !truth(&json!({ "normalize": body.get("normalize").unwrap_or(&json!(true)) }), "normalize")? {
        return Err(ApiError::unsupported("normalize", "vectors are of length 1: leave it out"));
    }
    let texts = texts(&body, "inputs")?;
    few(&texts, "inputs")?;
    Ok(Json(json!(served.model.embed(texts).await?)))
}

async fn embeddings(
    State(served): State<Bi>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = json_body(&headers, body)?;
    object(&body, "input")?;
    served.about.check(request::model(&body)?.as_deref())?;
    if body.get("encoding_format").is_some_and(|format| *format != json!("float") && !format.is_null()) {
        return Err(ApiError::unsupported("encoding_format", "`float` is offered"));
    }
    if body.get("dimensions").is_some_and(|n| !n.is_null()) {
        return Err(ApiError::unsupported("dimensions", "vectors have the model's own length: leave it out"));
    }
    let texts = texts(&body, "input")?;
    few(&texts, "input")?;
    let vectors = served.model.embed(texts).await?;
    let one = |(index, vector): (usize, Vec<f32>)| json!({ "object": "embedding", "index": index, "embedding": vector });
    let data: Vec<Value> = vectors.into_iter().enumerate().map(one).collect();
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": served.about.name,
        // What a text has in tokens is not told by the encoder.
        "usage": { "prompt_tokens": 0, "total_tokens": 0 },
    })))
}

async fn rerank(
    State(served): State<Cross>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = json_body(&headers, body)?;
    object(&body, "query")?;
    let query = match texts(&body, "query")?.as_slice() {
        [query] => query.clone(),
        _ => return Err(ApiError::field("query", "one text is expected")),
    };
    let texts = texts(&body, "texts")?;
    few(&texts, "texts")?;
    let (raw, with_text) = (truth(&body, "raw_scores")?, truth(&body, "return_text")?);
    let pairs = texts.iter().map(|text| (query.clone(), text.clone())).collect();
    let scores = served.model.score_pairs(pairs).await?;
    let mut ranks: Vec<(usize, f64)> = scores
        .into_iter()
        .map(|logit| if raw { f64::from(logit) } else { sigmoid(logit) })
        .enumerate()
        .collect();
    ranks.sort_by(|a, b| b.1.total_cmp(&a.1));
    let one = |(index, score): (usize, f64)| {
        let mut rank = json!({ "index": index, "score": score });
        if with_text {
            rank["text"] = texts[index].as_str().into();
        }
        rank
    };
    Ok(Json(ranks.into_iter().map(one).collect()))
}
