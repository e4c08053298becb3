//! OpenAI's API: answers and vectors.

use super::{
    client::Events,
    form::{self, text_of, thoughts_of},
    Client, Endpoint, Failure, Form, Identity, Limits,
};
use crate::{
    encode::Encoder,
    error::{Error, Result},
    generate::{FinishReason, GenerateRequest, Generation, Generator, Teller, Trace},
    manifest::ModelDigest,
};
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde_json::{json, Value};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Changes of form in one request: each of the parts that a server may refuse.
const CHANGES: usize = 10;

/// How often texts that are too long are cut in half.
const CUTS: usize = 8;

/// Texts that are asked for at once: servers have limits, most of them larger.
const TEXTS: usize = 32;

/// What a server says it runs.
pub(super) fn identify(client: &Client, model: &str, limits: &Limits) -> Result<Identity, Failure> {
    let list = match client.json("models", None, limits) {
        Ok(list) => list,
        // Some gateways have no list: whether they know the model they say when it is asked.
        Err(failure)
            if matches!(
                failure.status,
                Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
            ) =>
        {
            return Ok(Identity::default())
        }
        Err(failure) => return Err(failure),
    };
    let Some(models) = list["data"].as_array().or(list.as_array()) else {
        return Err(Failure::lasting(
            "its /models is no list of models: is this the address before /chat/completions?",
        ));
    };
    let id = |entry: &Value| entry["id"].as_str().map(str::to_string);
    let same = |entry: &&Value| {
        let id = entry["id"].as_str().unwrap_or_default();
        id == model || id.strip_suffix(":latest") == Some(model)
    };
    let Some(entry) = models.iter().find(same) else {
        let mut known: Vec<String> = models.iter().filter_map(id).collect();
        let more = known.len().saturating_sub(8);
        known.truncate(8);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let known =
            if known.is_empty() { "nothing".to_string() } else { format!("{}{more}", known.join(", ")) };
        return Err(Failure::lasting(format!(
            "it serves {known}, not `{model}`: start the right model there, or correct `model`"
        )));
    };
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    // vLLM and SGLang, llama.cpp, gateways.
    let context = ["max_model_len", "context_length", "context_window"]
        .into_iter()
        .find_map(|name| number(&entry[name]))
        .or_else(|| number(&entry["meta"]["n_ctx"]));
    Ok(Identity {
        model: id(entry),
        revision: entry["revision"].as_str().map(str::to_string),
        context_tokens: context,
        texts: None,
        reranker: None,
    })
}

/// What all who ask one language model share.
struct Shared {
    endpoint: Endpoint,
    client: Client,
    context_tokens: usize,
    form: Mutex<Form>,
}

/// A language model behind an endpoint. Clones ask the same server, each one thing at a time.
#[derive(Clone)]
pub struct EndpointGenerator(Arc<Shared>);

impl EndpointGenerator {
    pub(super) fn new(endpoint: Endpoint, client: Client, context_tokens: usize) -> Self {
        Self(Arc::new(Shared { endpoint, client, context_tokens, form: Mutex::new(Form::USUAL) }))
    }
}

/// An answer that comes.
struct Answer<'a> {
    request: &'a GenerateRequest,
    teller: Teller<'a>,
    started: Instant,
    /// When the first text came.
    first: Option<Instant>,
    text: String,
    thoughts: bool,
    refusal: String,
    finish: Option<String>,
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    /// Parts in which text came: what counts as tokens where the server does not say.
    parts: usize,
    trace: Trace,
    done: bool,
}

impl<'a> Answer<'a> {
    fn new(request: &'a GenerateRequest) -> Self {
        Self {
            request,
            teller: Teller::new(request),
            started: Instant::now(),
            first: None,
            text: String::new(),
            thoughts: false,
            refusal: String::new(),
            finish: None,
            prompt_tokens: None,
            completion_tokens: None,
            parts: 0,
            trace: Trace::default(),
            done: false,
        }
    }

    fn usage(&mut self, usage: &Value) {
        let number = |name: &str| usage[name].as_u64().and_then(|n| usize::try_from(n).ok());
        self.prompt_tokens = number("prompt_tokens").or(self.prompt_tokens);
        self.completion_tokens = number("completion_tokens").or(self.completion_tokens);
    }

    /// `message` is what holds the text: a delta, a message, or the choice itself.
    fn choice(&mut self, choice: &Value, message: &Value) {
        let text = if message.is_object() && message.get("content").is_some() {
            text_of(&message["content"])
        } else {
            text_of(&choice["text"])
        };
        self.thoughts |= !thoughts_of(message).is_empty();
        self.refusal += &text_of(&message["refusal"]);
        if !text.is_empty() {
            self.first.get_or_insert_with(Instant::now);
            self.parts += 1;
            self.text += &text;
            self.teller.grown(said(&self.text));
        }
        self.trace(choice);
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_string());
        }
    }

    fn trace(&mut self, choice: &Value) {
        let ids = [&choice["token_ids"], &choice["tokens"]];
        let ids = ids.into_iter().find_map(Value::as_array);
        let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let content = choice["logprobs"]["content"].as_array();
        match ids {
            Some(ids) => self.trace.tokens.extend(ids.iter().filter_map(number)),
            // llama.cpp puts them beside the probabilities.
            None => {
                self.trace.tokens.extend(content.into_iter().flatten().filter_map(|one| number(&one["id"])))
            }
        }
        let probabilities: Vec<f32> = match content {
            Some(content) => {
                content.iter().filter_map(|one| one["logprob"].as_f64()).map(|p| p as f32).collect()
            }
            None => choice["logprobs"]["token_logprobs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| p.as_f64().map(|p| p as f32))
                .collect(),
        };
        self.trace.logprobs.extend(probabilities);
    }
}

/// What of a text is no thought: nothing before thoughts that stand in it have ended.
fn said(text: &str) -> &str {
    const BEGIN: &str = "<think>";
    const END: &str = "</think>";
    if let Some(end) = text.rfind(END) {
        return &text[end + END.len()..];
    }
    let begun = text.trim_start();
    let length = begun.len().min(BEGIN.len());
    if begun.get(..length) == BEGIN.get(..length) {
        ""
    } else {
        text
    }
}

impl Events for Answer<'_> {
    fn event(&mut self, data: &str) -> Result<(), Failure> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let event: Value = serde_json::from_str(data)
            .map_err(|e| Failure::passing(format!("an event of its answer is not JSON: {e}")))?;
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            let text = error["message"].as_str().map_or_else(|| error.to_string(), str::to_string);
            return Err(Failure::passing(text.chars().take(400).collect::<String>()));
        }
        self.usage(&event["usage"]);
        if let Some(choice) = event["choices"].get(0) {
            self.choice(choice, &choice["delta"]);
        }
        Ok(())
    }

    fn whole(&mut self, answer: Value) -> Result<(), Failure> {
        self.usage(&answer["usage"]);
        let Some(choice) = answer["choices"].get(0) else {
            return Err(Failure::lasting("its answer has no choices: is this the right address?"));
        };
        self.choice(choice, &choice["message"]);
        self.finish.get_or_insert_with(|| "stop".to_string());
        self.done = true;
        Ok(())
    }

    fn may_repeat(&mut self) -> bool {
        if !self.teller.is_silent() {
            return false;
        }
        *self = Answer { started: self.started, ..Answer::new(self.request) };
        true
    }
}

impl Generator for EndpointGenerator {
    fn name(&self) -> &str {
        &self.0.endpoint.name
    }

    fn digest(&self) -> ModelDigest {
        self.0.endpoint.digest
    }

    fn context_tokens(&self) -> usize {
        self.0.context_tokens
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Generation> {
        let Shared { endpoint, client, context_tokens, form } = &*self.0;
        request.validate(*context_tokens)?;
        if request.prompt.bytes() == 0 {
            return Err(Error::InvalidRequest("the prompt is empty".to_string()));
        }
        let limits = Limits {
            deadline: request.deadline,
            cancel: request.cancel.clone(),
            silence: request.deadline.map_or(super::PATIENCE, |deadline| {
                deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
            }),
            ..Limits::default()
        };
        let mut answer = Answer::new(request);
        for _ in 0..=CHANGES {
            let now = *form.lock();
            let (path, body) = now.request(&endpoint.served.model, request);
            let failure = match client.ask(path, Some(&body), &limits, &mut answer) {
                // A stream that is cut off looks like one that ended: whoever ends it says so.
                Ok(_) if answer.finish.is_none() && !answer.done => {
                    return Err(endpoint.error("its answer broke off", true))
                }
                Ok(_) => return finished(endpoint, request, answer, None),
                Err(failure) => failure,
            };
            if let Some(reason) = failure.interrupted {
                return finished(endpoint, request, answer, Some(reason));
            }
            let refusal = failure.refusal.as_deref().unwrap_or_default();
            if let Some((tokens, limit)) = form::too_long(refusal, request.prompt.bytes(), request.max_tokens)
            {
                return Err(Error::PromptTooLong { tokens, limit });
            }
            let mut adapted = now;
            if !adapted.adapt(refusal) {
                return Err(endpoint.failed(failure));
            }
            tracing::info!(model = endpoint.name, form = ?adapted, "the endpoint wants another form");
            *form.lock() = adapted;
        }
        Err(endpoint.error("it refuses every form of the request", false))
    }
}

fn finished(
    endpoint: &Endpoint,
    request: &GenerateRequest,
    mut answer: Answer<'_>,
    interrupted: Option<FinishReason>,
) -> Result<Generation> {
    let finish_reason = match (interrupted, answer.finish.as_deref()) {
        (Some(reason), _) => reason,
        (None, Some("length" | "max_tokens")) => FinishReason::Length,
        (None, Some("content_filter")) => {
            return Err(endpoint.error("it withholds the answer (content_filter)", false))
        }
        (None, Some("tool_calls" | "function_call")) => {
            return Err(
                endpoint.error("it calls a tool in place of an answer: serve the model without tools", false)
            )
        }
        (None, _) => FinishReason::Stop,
    };
    if answer.text.trim().is_empty() && !answer.refusal.is_empty() {
        answer.text = std::mem::take(&mut answer.refusal);
    }
    let mut text = said(&answer.text);
    // Servers that let a stop text through are known.
    if let Some(at) = request.stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        text = &text[..at];
    }
    let text = text.trim().to_string();
    if text.is_empty() && answer.thoughts && finish_reason == FinishReason::Length {
        tracing::warn!(
            model = endpoint.name,
            max_tokens = request.max_tokens,
            "the model thought until its tokens were used up and said nothing: serve it with thinking switched off"
        );
    }
    answer.teller.done(&text);
    let now = Instant::now();
    let first = answer.first.unwrap_or(now);
    Ok(Generation {
        text,
        prompt_tokens: answer.prompt_tokens.unwrap_or(0),
        completion_tokens: answer.completion_tokens.unwrap_or(answer.parts),
        prompt_ms: (first - answer.started).as_millis() as u64,
        decode_ms: (now - first).as_millis() as u64,
        finish_reason,
        trace: request.trace.then_some(answer.trace),
    })
}

/// A bi-encoder behind `/embeddings`.
pub struct OpenAiEncoder {
    endpoint: Endpoint,
    client: Client,
    dimension: usize,
}

impl OpenAiEncoder {
    pub(super) fn connect(endpoint: Endpoint, client: Client, limits: &Limits) -> Result<Self> {
        let mut this = Self { dimension: 0, endpoint, client };
        let vectors = this.ask(&["a first text"], limits)?;
        let found = vectors.first().map_or(0, Vec::len);
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

    fn ask(&self, texts: &[&str], limits: &Limits) -> Result<Vec<Vec<f32>>> {
        let mut texts: Vec<&str> = texts.to_vec();
        for _ in 0..=CUTS {
            let body =
                json!({ "model": self.endpoint.served.model, "input": texts, "encoding_format": "float" });
            let failure = match self.client.json("embeddings", Some(&body), limits) {
                Ok(answer) => return self.read(&answer, texts.len()),
                Err(failure) => failure,
            };
            let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
            let refusal = failure.refusal.as_deref().unwrap_or_default();
            if form::too_long(refusal, longest, 0).is_none() || longest < 64 {
                return Err(self.endpoint.failed(failure));
            }
            // A text that is longer than the model's context is cut off at its end.
            for text in &mut texts {
                if text.len() > longest / 2 {
                    let mut end = longest / 2;
                    while !text.is_char_boundary(end) {
                        end -= 1;
                    }
                    *text = &text[..end];
                }
            }
        }
        Err(self.endpoint.error("it refuses every length of the texts", false))
    }

    fn read(&self, answer: &Value, count: usize) -> Result<Vec<Vec<f32>>> {
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
        for (place, one) in answer["data"].as_array().into_iter().flatten().enumerate() {
            let index = one["index"].as_u64().and_then(|i| usize::try_from(i).ok()).unwrap_or(place);
            let numbers = one["embedding"].as_array().into_iter().flatten();
            let vector = numbers.map(|x| x.as_f64().map_or(f32::NAN, |x| x as f32)).collect();
            if let Some(slot) = vectors.get_mut(index) {
                *slot = Some(vector);
            }
        }
        vectors.into_iter().collect::<Option<_>>().ok_or_else(|| {
            self.endpoint.error(format!("it did not give a vector for each of {count} texts"), false)
        })
    }
}

impl Encoder for OpenAiEncoder {
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
        // Servers refuse texts without a letter.
        let asked: Vec<&str> =
            texts.iter().map(|text| if text.trim().is_empty() { " ." } else { *text }).collect();
        for part in asked.chunks(TEXTS) {
            let part_vectors = self.ask(part, &Limits::default())?;
            vectors.extend(self.endpoint.vectors(part_vectors, part.len(), self.dimension)?);
        }
        Ok(vectors)
    }
}
