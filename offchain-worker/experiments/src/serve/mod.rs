//! An installed model behind an endpoint: a language model behind OpenAI's API, an encoder behind that of
//! text-embeddings-inference and OpenAI's `/embeddings`. Any program that speaks one of these can use it: a judge, another
//! worker, a client library.
//!
//! Requests are answered at once, as many as the model takes (`--parallel`); others wait. A client that hangs up ends its
//! generation, and so does the time limit.

mod answer;
mod encoder;
mod error;
mod request;
#[cfg(test)]
mod tests;

use crate::{
    cli::ServeArgs,
    error::{Error, Result},
};
use axum::{
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    Json, Router,
};
use error::ApiError;
use poq_inference::{
    load_cross_encoder, load_encoder, Generator, GeneratorSource, Health, LoadOptions, ModelHandle,
    ModelThread, Role, ThreadOptions,
};
use serde_json::{json, Value};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

pub use encoder::{bi as bi_encoder, cross as cross_encoder, CrossEncoderHandle, EncoderHandle};

/// A language model on its threads.
pub type GeneratorHandle = ModelHandle<Box<dyn Generator>>;

/// Requests that may wait; who comes then is told to come back.
const QUEUE: usize = 256;

/// Answers requests until interrupted.
///
/// # Errors
/// When the model cannot be loaded or the address cannot be listened at.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let store = args.store.open()?;
    let (name, device) = (args.model.clone(), args.store.device);
    let load = LoadOptions { parallel: args.parallel, ..LoadOptions::on(device) };
    let entry = store.manifest().get(&name)?;
    let about = About {
        name: name.clone(),
        digest: entry.digest().to_string(),
        context_tokens: entry.context_tokens,
        time_limit: Duration::from_secs(args.time_limit),
    };
    let options = ThreadOptions { queue: QUEUE, ..ThreadOptions::default() };
    match entry.role {
        Role::Generator => {
            let source = GeneratorSource::new(store, name.clone(), load);
            let options = ThreadOptions { parallel: source.parallel(), ..options };
            let thread = ModelThread::spawn(&name, options, move || source.open())?;
            listen(args, generator(thread.handle(), about))
        }
        Role::BiEncoder => {
            let thread =
                ModelThread::spawn(&name.clone(), options, move || load_encoder(&store, &name, &load))?;
            listen(args, encoder::bi(thread.handle(), about))
        }
        Role::CrossEncoder => {
            let thread =
                ModelThread::spawn(&name.clone(), options, move || load_cross_encoder(&store, &name, &load))?;
            listen(args, encoder::cross(thread.handle(), about))
        }
    }
}

fn listen(args: &ServeArgs, router: Router) -> Result<()> {
    let io = |e| Error::io(std::path::Path::new(&args.listen.to_string()), e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        eprintln!("{} answers at http://{address}, for OpenAI's clients at http://{address}/v1", args.model);
        let stop = async {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "no signal will end this");
                std::future::pending::<()>().await;
            }
        };
        axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(io)
    })
}

/// What is said of a model, and how long its clients may wait.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub name: String,
    /// What it is on chain.
    pub digest: String,
    /// Tokens of prompt and answer together, or of a text.
    pub context_tokens: usize,
    /// How long an answer may take; what was generated until then is given.
    pub time_limit: Duration,
}

impl About {
    /// What an entry of `/v1/models` says. `max_model_len` and `revision` are what clients of vLLM and of this project look for.
    fn description(&self) -> Value {
        json!({
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "poq",
            "max_model_len": self.context_tokens,
            "revision": self.digest,
        })
    }

    fn list(&self) -> Json<Value> {
        Json(json!({ "object": "list", "data": [self.description()] }))
    }

    fn one(&self, name: &str) -> Result<Json<Value>, ApiError> {
        self.check(Some(name)).map(|()| Json(self.description()))
    }

    /// Refuses a request for another model.
    fn check(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match asked {
            Some(asked) if asked != self.name => Err(ApiError {
                param: Some("model".to_string()),
                code: Some("model_not_found"),
                ..ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!("the model here is `{}`, not `{asked}`", self.name),
                )
            }),
            _ => Ok(()),
        }
    }
}

/// A model and what is said of it.
struct Served<H> {
    model: H,
    about: About,
}

/// A language model as a service.
pub fn generator(model: GeneratorHandle, about: About) -> Router {
    finish(
        answer::routes(Arc::new(Served { model, about })),
        "/v1/chat/completions, /v1/completions and /v1/models",
    )
}

/// What all of them have.
fn finish(routes: Router, there: &'static str) -> Router {
    routes
        .fallback(move |uri: Uri| async move {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("there is no `{}` here; there are {there}", uri.path()),
            )
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{}` does not take {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(request::MAX_BODY_BYTES))
}

fn health(health: &Health) -> Result<Json<Value>, ApiError> {
    match health {
        Health::Healthy => Ok(Json(json!({ "status": "ok" }))),
        other => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the model is {other:?}"))),
    }
}
