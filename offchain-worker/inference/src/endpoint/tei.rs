//! text-embeddings-inference's API: vectors of texts, and logits of pairs.

use super::{Client, Endpoint, Failure, Identity, Limits};
use crate::{
    encode::{CrossEncoder, Encoder},
    error::Result,
    manifest::ModelDigest,
};
use reqwest::StatusCode;
use serde_json::{json, Value};

/// Texts in one request, where the server does not say how many it takes: its own default.
const TEXTS: usize = 32;

/// What a server says it runs.
pub(super) fn identify(client: &Client, limits: &Limits) -> Result<Identity, Failure> {
    let info = match client.json("info", None, limits) {
        Ok(info) => info,
        // llama.cpp's server has /embed-like routes, and no /info.
        Err(failure) if failure.status == Some(StatusCode::NOT_FOUND) => return Ok(Identity::default()),
        Err(failure) => return Err(failure),
    };
    let kind = info["model_type"].as_object();
    let text = |name: &str| info[name].as_str().map(str::to_string);
    Ok(Identity {
        model: text("model_id"),
        revision: text("model_sha"),
        context_tokens: info["max_input_length"].as_u64().and_then(|n| usize::try_from(n).ok()),
        texts: info["max_client_batch_size"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0),
        reranker: kind.map(|kind| kind.contains_key("reranker")),
    })
}

/// Numbers of an answer; NaN for what is none.
fn numbers(values: &Value) -> Vec<f32> {
    values.as_array().into_iter().flatten().map(|x| x.as_f64().map_or(f32::NAN, |x| x as f32)).collect()
}

/// A bi-encoder behind `/embed`.
pub struct TeiEncoder {
    endpoint: Endpoint,
    client: Client,
    dimension: usize,
    texts: usize,
}

impl TeiEncoder {
    pub(super) fn connect(endpoint: Endpoint, client: Client, identity: &Identity) -> Result<Self> {
        let texts = identity.texts.unwrap_or(TEXTS).min(TEXTS);
        let mut this = Self { dimension: 0, endpoint, client, texts };
        let found = this.ask(&["a first text"])?.first().map_or(0, Vec::len);
        if let Some(expected) = this.endpoint.dimension.filter(|expected| *expected != found) {
            let text = format!(
                "its vectors have {found} numbers, those of `{}` have {expected}",
                this.endpoint.name
            );
            return Err(this.endpoint.error(text, false));
        }
        this.dimension = found;
        Ok(this)
    }

    fn ask(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let body = json!({ "inputs": texts, "normalize": true, "truncate": true });
        let answer = self.client.json("embed", Some(&body), &Limits::default());
        let answer = answer.map_err(|failure| self.endpoint.failed(failure))?;
        Ok(answer.as_array().into_iter().flatten().map(numbers).collect())
    }
}

impl Encoder for TeiEncoder {
    fn name(&self) -> &str {
        &self.endpoint.name
    }

    fn digest(&self) -> ModelDigest {
        self.endpoint.digest
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn query_prefix(&self) -> &str {
        &self.endpoint.query_prefix
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        // It refuses empty texts.
        let asked: Vec<&str> = texts.iter().map(|text| if text.is_empty() { " " } else { *text }).collect();
        for part in asked.chunks(self.texts) {
            let answer = self.ask(part)?;
            vectors.extend(self.endpoint.vectors(answer, part.len(), self.dimension)?);
        }
        Ok(vectors)
    }
}

/// A cross-encoder behind `/rerank`.
pub struct TeiCrossEncoder {
    endpoint: Endpoint,
    client: Client,
    texts: usize,
}

impl TeiCrossEncoder {
    pub(super) fn connect(endpoint: Endpoint, client: Client, identity: &Identity) -> Result<Self> {
        let texts = identity.texts.unwrap_or(TEXTS).min(TEXTS);
        let this = Self { endpoint, client, texts };
        this.ask("a first question", &["a first answer"])?;
        Ok(this)
    }

    /// The logits of one query's texts.
    fn ask(&self, query: &str, texts: &[&str]) -> Result<Vec<f32>> {
        let body = json!({ "query": query, "texts": texts, "raw_scores": true, "truncate": true });
        let answer = self.client.json("rerank", Some(&body), &Limits::default());
        let answer = answer.map_err(|failure| self.endpoint.failed(failure))?;
        let mut scores = vec![f32::NAN; texts.len()];
        for one in answer.as_array().into_iter().flatten() {
            let place = one["index"].as_u64().and_then(|i| usize::try_from(i).ok());
            if let (Some(slot), Some(score)) =
                (place.and_then(|place| scores.get_mut(place)), one["score"].as_f64())
            {
                *slot = score as f32;
            }
        }
        if scores.iter().any(|score| !score.is_finite()) {
            let text =
                format!("it did not give a score for each of {} texts: does it run a reranker?", texts.len());
            return Err(self.endpoint.error(text, false));
        }
        Ok(scores)
    }
}

impl CrossEncoder for TeiCrossEncoder {
    fn name(&self) -> &str {
        &self.endpoint.name
    }

    fn digest(&self) -> ModelDigest {
        self.endpoint.digest
    }

    fn score(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(pairs.len());
        let mut rest = pairs;
        while let Some((query, _)) = rest.first() {
            // Pairs of one query that stand side by side are asked for together.
            let same = rest.iter().take_while(|(other, _)| other == query).count().min(self.texts);
            let (part, others) = rest.split_at(same);
            // It refuses empty texts.
            let texts: Vec<&str> =
                part.iter().map(|(_, text)| if text.is_empty() { " " } else { *text }).collect();
            scores.extend(self.ask(if query.is_empty() { " " } else { query }, &texts)?);
            rest = others;
        }
        Ok(scores)
    }
}
