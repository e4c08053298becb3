//! Models that a server runs: vLLM, llama.cpp, TGI, SGLang, Ollama or whoever else speaks OpenAI's API, and whoever speaks that of
//! text-embeddings-inference (TEI).
//!
//! [`Endpoint`] is where such a server is and what it should run; it gives a [`Generator`](crate::Generator), an
//! [`Encoder`](crate::Encoder) or a [`CrossEncoder`](crate::CrossEncoder). What is asked is asked until the request's deadline, again
//! where a failure may pass; who gives up closes the connection, which ends the work at the other end.
//!
//! A model that is named as a manifest names it is that model's stand-in: the caller sets [`Endpoint::digest`] to the manifest's.
//!
//! No secret is ever shown: addresses that carry one are refused, and the key is cut out of what servers say.

mod client;
mod form;
mod openai;
mod tei;

use client::Failure;
pub(crate) use client::{Client, Limits};
pub(crate) use form::{Form, Reply};
pub use openai::{EndpointGenerator, OpenAiEncoder};
pub use tei::{TeiCrossEncoder, TeiEncoder};

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    generate::{CancelFlag, Generator},
    manifest::ModelDigest,
};
use blake2::{
    digest::{consts::U32, Digest},
    Blake2b,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};
use url::Url;

/// Domain separation of [`Served::digest`].
const DIGEST_DOMAIN: &[u8] = b"poq/endpoint/v1";

/// Tokens of prompt and answer together where neither configuration nor server says how many there may be.
const CONTEXT: usize = 4096;

/// How long a look at a server may take.
const LOOK: Duration = Duration::from_secs(10);

/// How long a first token may take.
const FIRST: Duration = Duration::from_secs(60);

/// How long a server that has not said a word may take for its first one, where no deadline is set: it may have a queue.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which API a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// OpenAI's: `/chat/completions`, `/completions`, `/embeddings`, `/models` behind the address.
    OpenAi,
    /// text-embeddings-inference's: `/embed`, `/rerank`, `/info`.
    Tei,
}

/// Where a server is, without anything secret: addresses that carry a password or a query are refused, for keys in addresses end
/// up in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl TryFrom<Url> for Address {
    type Error = String;

    fn try_from(url: Url) -> std::result::Result<Self, String> {
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            Err("an http:// or https:// address is expected".to_string())
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("the address carries a user name or a password: put the key into key_file".to_string())
        } else if url.query().is_some() || url.fragment().is_some() {
            Err("the address carries a query or a fragment: put the key into key_file".to_string())
        } else {
            Ok(Self(url))
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        // What it is not is not repeated: it may hold a key.
        Url::parse(text.trim()).map_err(|e| format!("no address: {e}"))?.try_into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a server runs, as it names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// The name by which the server knows the model.
    pub model: String,
    /// Which of its versions, where that is said: a commit of its repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Served {
    /// The 32 bytes that name it on chain, where it is no model of a manifest: the blake2b-256 of the domain `poq/endpoint/v1` and
    /// the canonical JSON (RFC 8785) of name and revision, `{"model":"Qwen/Qwen2.5-7B-Instruct"}` without a revision.
    ///
    /// Nobody can check the weights behind it: it is the owner's word. It depends neither on where the server is nor on which
    /// program it is.
    pub fn digest(&self) -> ModelDigest {
        // A struct of texts is always JSON.
        let json = serde_json_canonicalizer::to_vec(self).unwrap_or_default();
        let mut hasher = Blake2b::<U32>::new();
        hasher.update(DIGEST_DOMAIN);
        hasher.update(&json);
        ModelDigest(hasher.finalize().into())
    }
}

/// Where a model is served, and what it must be.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What this project calls the model.
    pub name: String,
    /// Which API is spoken there.
    pub api: Api,
    /// The address: with OpenAI's API what stands before `/chat/completions`, mostly `http://host:port/v1`; with TEI's what stands
    /// before `/embed`.
    pub url: Address,
    /// What must run there.
    pub served: Served,
    /// What it is on chain.
    pub digest: ModelDigest,
    /// The key, where one is asked for.
    pub key: Option<SecretString>,
    /// Tokens of prompt and answer together; what the server says, or 4096, where it is not set.
    pub context_tokens: Option<usize>,
    /// The length of a bi-encoder's vectors, where that is known.
    pub dimension: Option<usize>,
    /// What the model wants in front of a text that asks; see [`Encoder::query_prefix`].
    pub query_prefix: String,
}

/// What was found at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// What the server says it runs; `None` where it does not say.
    pub model: Option<String>,
    /// Of which version.
    pub revision: Option<String>,
    /// Tokens that it takes, prompt and answer together.
    pub context_tokens: Option<usize>,
    /// Texts that it takes in one request.
    pub texts: Option<usize>,
    /// Whether it scores pairs, where it says what it does.
    pub reranker: Option<bool>,
}

impl Endpoint {
    /// A server of this model, by its own name there, with the digest of [`Served::digest`].
    pub fn new(name: impl Into<String>, api: Api, url: Address, served: Served) -> Self {
        let digest = served.digest();
        Self {
            name: name.into(),
            api,
            url,
            served,
            digest,
            key: None,
            context_tokens: None,
            dimension: None,
            query_prefix: String::new(),
        }
    }

    fn error(&self, reason: impl fmt::Display, passes: bool) -> Error {
        Error::Endpoint {
            model: self.name.clone(),
            address: self.url.to_string(),
            reason: reason.to_string(),
            passes,
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        if failure.status == Some(reqwest::StatusCode::NOT_FOUND) {
            let before = if self.api == Api::OpenAi { "/chat/completions" } else { "/embed" };
            let text = format!(
                "{} (is this the address before {before}, and `{}` the model's name there?)",
                failure.reason, self.served.model
            );
            return self.error(text, false);
        }
        self.error(failure.reason, failure.passes)
    }

    fn client(&self) -> Result<Client> {
        Client::new(self.url.0.clone(), self.key.clone()).map_err(|reason| self.error(reason, false))
    }

    /// Whether the server is there and runs what it should. Nothing is generated. Blocks for ten seconds at most.
    ///
    /// # Errors
    /// [`Error::Endpoint`]: it is away, or runs something else.
    pub fn look(&self) -> Result<Identity> {
        let client = self.client()?;
        let limits = Limits { deadline: Some(Instant::now() + LOOK), ..Limits::default() };
        let identity = match self.api {
            Api::OpenAi => openai::identify(&client, &self.served.model, &limits),
            Api::Tei => tei::identify(&client, &limits),
        }
        .map_err(|failure| self.failed(failure))?;
        let same = |asked: &str, found: &str| asked == found || found.strip_suffix(":latest") == Some(asked);
        if let Some(found) = identity.model.as_deref().filter(|found| !same(&self.served.model, found)) {
            return Err(self.error(
                format!(
                    "it serves `{found}`, not `{}`: start the right model there, or correct `model`",
                    self.served.model
                ),
                false,
            ));
        }
        match (&self.served.revision, &identity.revision) {
            (Some(asked), Some(found)) if asked != found => Err(self
                .error(format!("it serves `{}` of revision {found}, not {asked}", self.served.model), false)),
            _ => Ok(identity),
        }
    }

    /// The language model there, after a first token.
    ///
    /// # Errors
    /// As [`Endpoint::look`]; when it does not generate.
    pub fn generator(&self) -> Result<EndpointGenerator> {
        if self.api != Api::OpenAi {
            return Err(
                self.error("text-embeddings-inference's API has no answers: use kind = \"openai\"", false)
            );
        }
        let identity = self.look()?;
        let context = self.context_tokens.or(identity.context_tokens).unwrap_or(CONTEXT);
        let mut model = EndpointGenerator::new(self.clone(), self.client()?, context);
        let mut request = crate::GenerateRequest::new(crate::Prompt::Chat(vec![crate::Message::new(
            crate::ChatRole::User,
            "Say yes.",
        )]));
        request.max_tokens = 1;
        request.deadline = Some(Instant::now() + FIRST);
        let first = model.generate(&request)?;
        if first.finish_reason == crate::FinishReason::Deadline {
            let text = format!("it did not give a first token within {} s", FIRST.as_secs());
            return Err(self.error(text, true));
        }
        Ok(model)
    }

    /// The bi-encoder there, after a first text.
    ///
    /// # Errors
    /// As [`Endpoint::look`]; when it does not embed.
    pub fn encoder(&self) -> Result<Box<dyn Encoder>> {
        let identity = self.look()?;
        let limits = Limits::default();
        match self.api {
            Api::OpenAi => Ok(Box::new(OpenAiEncoder::connect(self.clone(), self.client()?, &limits)?)),
            Api::Tei => Ok(Box::new(TeiEncoder::connect(self.clone(), self.client()?, &identity)?)),
        }
    }

    /// The cross-encoder there, after a first pair.
    ///
    /// # Errors
    /// As [`Endpoint::look`]; when it does not rerank.
    pub fn cross_encoder(&self) -> Result<Box<dyn CrossEncoder>> {
        if self.api != Api::Tei {
            return Err(self.error(
                "OpenAI's API has no cross-encoders: use kind = \"tei\" with a server that has /rerank",
                false,
            ));
        }
        let identity = self.look()?;
        Ok(Box::new(TeiCrossEncoder::connect(self.clone(), self.client()?, &identity)?))
    }

    /// Whether the server says that it runs a cross-encoder.
    ///
    /// # Errors
    /// As [`Endpoint::look`].
    pub fn is_reranker(&self) -> Result<bool> {
        Ok(self.look()?.reranker.unwrap_or(false))
    }

    /// The error of a server that gives something else than the model that it should run.
    pub fn other(&self, what: impl fmt::Display) -> Error {
        self.error(format!("it does not run `{}`: {what}", self.name), false)
    }

    /// Checks and normalises the vectors that a server gave for as many texts.
    fn vectors(&self, vectors: Vec<Vec<f32>>, texts: usize, dimension: usize) -> Result<Vec<Vec<f32>>> {
        if vectors.len() != texts {
            return Err(self.error(format!("it gave {} vectors for {texts} texts", vectors.len()), false));
        }
        vectors
            .into_iter()
            .map(|mut vector| {
                let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                if vector.len() != dimension || !norm.is_finite() || norm == 0.0 {
                    let found = vector.len();
                    let text = format!(
                        "it gave a vector of {found} numbers and length {norm}, not one of {dimension}"
                    );
                    return Err(self.error(text, false));
                }
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
                Ok(vector)
            })
            .collect()
    }
}

/// Reads the key out of a file: its only line.
///
/// # Errors
/// When the file cannot be read, or is empty or has several lines.
pub fn read_key(path: &std::path::Path) -> Result<SecretString> {
    let text = crate::data::read_text(path)?;
    let key = text.trim();
    let problem = match key.lines().count() {
        0 => "the file is empty: it must hold the endpoint's key",
        1 if key.chars().any(|c| c.is_whitespace() || c.is_control()) => "a key has no spaces",
        1 => return Ok(SecretString::from(key.to_string())),
        _ => "the file has several lines: it must hold the endpoint's key and nothing else",
    };
    Err(Error::Data { path: path.to_path_buf(), line: 1, reason: problem.to_string() })
}

/// A key in what a server says: servers quote wrong ones.
fn without_key(text: String, key: Option<&SecretString>) -> String {
    match key.map(|key| key.expose_secret()) {
        Some(key) if !key.is_empty() => text.replace(key, "(key)"),
        _ => text,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
