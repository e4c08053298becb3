//! What a language model can be asked, whatever runs it.

use crate::{
    error::{Error, Result},
    manifest::ModelDigest,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::Instant,
};

/// The largest prompt that is even tokenised, in bytes: far above what fits any context here, far below what hurts.
pub const MAX_PROMPT_BYTES: usize = 256 * 1024;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Instructions above the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl ChatRole {
    /// The role as chat templates spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: ChatRole,
    /// What is said. Text that spells a model's control tokens stays text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What a model continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text as it is, without a chat template; control tokens in it stay text.
    Text(String),
    /// A conversation, put into the model's own chat template; the model's answer follows.
    Chat(Vec<Message>),
}

impl Prompt {
    /// Its size in bytes, before any template.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Chat(messages) => messages.iter().map(|m| m.content.len()).sum(),
        }
    }
}

/// Set from another thread to end a generation early.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the generation to end after the token it is at.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`CancelFlag::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where an answer's text goes while it is made.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(&str) + Send + Sync>);

impl Sink {
    /// Calls `tell` with every further part of the text; all parts together are the answer's text. It is called on the thread that
    /// generates and holds that up while it works.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells it a part.
    pub fn tell(&self, text: &str) {
        (self.0)(text);
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// Tells a sink what of a growing text is sure to be part of the answer: not the space around it, which is cut off at the end,
/// and not what may be the beginning of a text that ends it.
pub(crate) struct Teller<'a> {
    sink: Option<&'a Sink>,
    stop: &'a [String],
    /// What was told.
    told: String,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(request: &'a GenerateRequest) -> Self {
        Self { sink: request.sink.as_ref(), stop: &request.stop, told: String::new() }
    }

    /// Whether nothing was told yet.
    #[cfg(feature = "endpoint")]
    pub(crate) fn is_silent(&self) -> bool {
        self.told.is_empty()
    }

    /// `text` is all that was generated so far.
    pub(crate) fn grown(&mut self, text: &str) {
        if self.sink.is_none() {
            return;
        }
        let text = text.trim_start();
        let begins = |stop: &String| {
            let lengths = (1..=stop.len().min(text.len())).filter(|length| stop.is_char_boundary(*length));
            lengths.filter(|length| text.ends_with(&stop[..*length])).max().unwrap_or(0)
        };
        let held = self.stop.iter().map(begins).max().unwrap_or(0);
        self.tell(text[..text.len() - held].trim_end());
    }

    /// `text` is the whole answer.
    pub(crate) fn done(&mut self, text: &str) {
        self.tell(text);
    }

    fn tell(&mut self, text: &str) {
        let Some(sink) = self.sink else { return };
        // What was told cannot be taken back.
        if let Some(new) = text.strip_prefix(self.told.as_str()).filter(|new| !new.is_empty()) {
            sink.tell(new);
            self.told.push_str(new);
        }
    }
}

/// One request to a language model.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// The most tokens to generate, at least 1; together with the prompt within the model's context.
    pub max_tokens: usize,
    /// Seed of the sampling; the same request with the same seed gives the same text on the same machine and build.
    pub seed: u64,
    /// 0 takes the most likely token each time (greedy); above, the distribution is flattened. In [0, 5].
    pub temperature: f64,
    /// Sample from the smallest set of tokens that holds this much probability, in (0, 1].
    pub top_p: Option<f64>,
    /// The text ends before the first of these that appears.
    pub stop: Vec<String>,
    /// When to give up; what was generated until then is returned.
    pub deadline: Option<Instant>,
    /// Ends the generation early.
    pub cancel: CancelFlag,
    /// Whether to return the answer's tokens and their probabilities.
    pub trace: bool,
    /// Where the text goes while it is made, as far as whatever runs the model can tell it before the end.
    pub sink: Option<Sink>,
}

impl GenerateRequest {
    /// A greedy request of at most 128 tokens.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: 128,
            seed: 0,
            temperature: 0.0,
            top_p: None,
            stop: Vec::new(),
            deadline: None,
            cancel: CancelFlag::default(),
            trace: false,
            sink: None,
        }
    }

    /// Asks for a short answer to a question about a context (which may be empty).
    pub fn question(context: &str, question: &str) -> Self {
        let (instruction, content) = if context.trim().is_empty() {
            ("Answer the question briefly.", question.trim().to_string())
        } else {
            (
                "Answer the question briefly, using only the context.",
                format!("Context: {}\n\nQuestion: {}", context.trim(), question.trim()),
            )
        };
        Self::new(Prompt::Chat(vec![
            Message::new(ChatRole::System, instruction),
            Message::new(ChatRole::User, content),
        ]))
    }

    /// Sets [`GenerateRequest::max_tokens`].
    pub fn with_max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    /// Sets [`GenerateRequest::seed`] and [`GenerateRequest::temperature`].
    pub fn with_sampling(mut self, seed: u64, temperature: f64) -> Self {
        self.seed = seed;
        self.temperature = temperature;
        self
    }

    /// Sets [`GenerateRequest::deadline`].
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Checks everything that does not need a tokenizer.
    ///
    /// # Errors
    /// [`Error::PromptTooLarge`], [`Error::InvalidRequest`].
    pub fn validate(&self, context_tokens: usize) -> Result<()> {
        let invalid = |reason: String| Err(Error::InvalidRequest(reason));
        let bytes = self.prompt.bytes();
        if bytes > MAX_PROMPT_BYTES {
            return Err(Error::PromptTooLarge { bytes, limit: MAX_PROMPT_BYTES });
        }
        if self.max_tokens == 0 || self.max_tokens >= context_tokens {
            return invalid(format!(
                "max_tokens is {}, it must be at least 1 and below the model's context of {context_tokens}",
                self.max_tokens
            ));
        }
        if !(0.0..=5.0).contains(&self.temperature) {
            return invalid(format!("temperature is {}, it must be in [0, 5]", self.temperature));
        }
        if self.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return invalid(format!("top_p is {:?}, it must be in (0, 1]", self.top_p));
        }
        if self.stop.iter().any(String::is_empty) {
            return invalid("an empty stop text would end every answer at once".to_string());
        }
        Ok(())
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model said it was done, or a stop text appeared.
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The deadline passed.
    Deadline,
    /// The request was cancelled.
    Cancelled,
}

/// The tokens of an answer, as far as whatever runs the model tells them: one that is behind an endpoint may tell their
/// probabilities only, or nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Trace {
    /// Their numbers in the model's vocabulary.
    pub tokens: Vec<u32>,
    /// The natural logarithm of the probability that the model gave to each, at temperature 1.
    pub logprobs: Vec<f32>,
}

/// What a language model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The text, without control tokens and without the stop text.
    pub text: String,
    /// Tokens of the prompt, with its template.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Milliseconds spent on the prompt.
    pub prompt_ms: u64,
    /// Milliseconds spent on generating.
    pub decode_ms: u64,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Its tokens, where they were asked for.
    pub trace: Option<Trace>,
}

/// A language model.
pub trait Generator: Send {
    /// Its name in the manifest.
    fn name(&self) -> &str;

    /// What it is on chain.
    fn digest(&self) -> ModelDigest;

    /// The most tokens of prompt and answer together.
    fn context_tokens(&self) -> usize;

    /// Answers a request.
    ///
    /// # Errors
    /// [`Error::is_bad_request`] ones when the request cannot be answered by this model; others when the model fails.
    fn generate(&mut self, request: &GenerateRequest) -> Result<Generation>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerateRequest {
        GenerateRequest::new(Prompt::Text("x".into()))
    }

    #[test]
    fn what_is_told_is_the_answer_and_nothing_that_is_cut_off() {
        let told = Arc::new(parking_lot::Mutex::new(Vec::<String>::new()));
        let heard = told.clone();
        let request = GenerateRequest {
            stop: vec!["END".into(), "\n\nQ:".into()],
            sink: Some(Sink::new(move |text| heard.lock().push(text.to_string()))),
            ..request()
        };
        let mut teller = Teller::new(&request);
        for text in [" ", " a", " a b ", " a b E", " a b Eé", " a b Eé\n", " a b Eé\n\n", " a b Eé\n\nQ"]
        {
            teller.grown(text);
        }
        assert_eq!(told.lock().concat(), "a b Eé");
        teller.done("a b Eé");
        assert_eq!(*told.lock(), ["a", " b", " Eé"]);
        teller.grown("a b Eé and more");
        teller.done("a b Eé and more.");
        assert_eq!(told.lock().concat(), "a b Eé and more.");
    }

    #[test]
    fn bounds_are_checked() {
        assert!(request().validate(4096).is_ok());
        for bad in [
            request().with_max_tokens(0),
            request().with_max_tokens(4096),
            request().with_sampling(0, f64::NAN),
            request().with_sampling(0, -1.0),
            GenerateRequest { top_p: Some(0.0), ..request() },
            GenerateRequest { stop: vec![String::new()], ..request() },
            GenerateRequest { prompt: Prompt::Text("x".repeat(MAX_PROMPT_BYTES + 1)), ..request() },
        ] {
            assert!(bad.validate(4096).unwrap_err().is_bad_request());
        }
    }
}
