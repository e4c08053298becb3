//! Answering prompts, token by token.

use super::{
    batch::{Engine, Job},
    cpu::math::argmax,
    decoder::Decoder,
    gguf_header::Header,
    limit::Limit,
    threads::Threads,
    tokenizer::TextCodec,
    LoadOptions,
};
use crate::{
    error::{Error, Result},
    generate::{FinishReason, GenerateRequest, Generation, Generator, Prompt, MAX_PROMPT_BYTES},
    manifest::{Architecture, ModelDigest, ModelEntry, Role},
    store::{ModelStore, VerifiedModel},
};
use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use parking_lot::Mutex;
use std::{
    fs::File,
    sync::{mpsc, Arc},
    time::{Duration, Instant},
};

/// Tokens of a prompt that are computed between two looks at the deadline.
const PROMPT_CHUNK: usize = 256;

/// How often one who waits for a token of a batch looks at the deadline.
const PATIENCE: Duration = Duration::from_millis(50);

/// Text to tokens and the network, of a model whose files have been checked.
fn open(model: &VerifiedModel, options: &LoadOptions, threads: &Threads) -> Result<(TextCodec, Decoder)> {
    threads.run(|| open_here(model, options))
}

fn open_here(model: &VerifiedModel, options: &LoadOptions) -> Result<(TextCodec, Decoder)> {
    let entry = model.entry();
    let limit = Limit::of(model, options)?;
    let fail = |e: candle_core::Error| Error::model(&entry.name, e);
    let device = options.device.open()?;
    match entry.architecture {
        Architecture::Gguf => {
            let path = model.file("model.gguf")?;
            let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
            let gguf = Header::read(&mut file).map_err(fail)?;
            let codec = TextCodec::from_gguf(model, &gguf)?;
            let context = entry.context_tokens;
            Ok((codec, Decoder::from_gguf(&gguf, &mut file, context, &device, options, limit).map_err(fail)?))
        }
        Architecture::Safetensors => Ok((
            TextCodec::from_files(model)?,
            Decoder::from_safetensors(model, &device, options.precision, limit)?,
        )),
        Architecture::Bert => Err(Error::model(&entry.name, "a BERT encoder cannot generate text")),
    }
}

/// What a generator is, and how it reads and writes.
struct About {
    name: String,
    digest: ModelDigest,
    context_tokens: usize,
    codec: TextCodec,
}

impl About {
    fn new(entry: &ModelEntry, codec: TextCodec) -> Self {
        Self { name: entry.name.clone(), digest: entry.digest(), context_tokens: entry.context_tokens, codec }
    }

    fn count_tokens(&self, prompt: &Prompt) -> Result<usize> {
        let bytes = prompt.bytes();
        if bytes > MAX_PROMPT_BYTES {
            return Err(Error::PromptTooLarge { bytes, limit: MAX_PROMPT_BYTES });
        }
        Ok(self.codec.encode(prompt)?.len())
    }

    /// The tokens of a request that this model can answer.
    fn prompt(&self, request: &GenerateRequest) -> Result<Vec<u32>> {
        request.validate(self.context_tokens)?;
        let prompt = self.codec.encode(&request.prompt)?;
        self.fits(&prompt, request.max_tokens)?;
        Ok(prompt)
    }

    fn fits(&self, prompt: &[u32], count: usize) -> Result<()> {
        let limit = self.context_tokens.saturating_sub(count);
        if prompt.len() > limit {
            return Err(Error::PromptTooLong { tokens: prompt.len(), limit });
        }
        if prompt.is_empty() || count == 0 {
            return Err(Error::InvalidRequest("a continuation needs a prompt and a length".to_string()));
        }
        Ok(())
    }

    /// An answer out of the tokens that `next` gives, one after the other.
    fn answer(
        &self,
        request: &GenerateRequest,
        prompt_tokens: usize,
        mut next: impl FnMut() -> Result<Next>,
    ) -> Result<Generation> {
        let started = Instant::now();
        let mut step = next()?;
        let prompt_ms = started.elapsed().as_millis() as u64;
        let decoding = Instant::now();
        let mut answer: Vec<u32> = Vec::new();
        let mut stopped_at = None;
        let finish_reason = loop {
            let token = match step {
                Next::Token(token) => token,
                Next::Interrupted(reason) => break reason,
            };
            if self.codec.is_end(token) {
                break FinishReason::Stop;
            }
            answer.push(token);
            if !request.stop.is_empty() {
                stopped_at = find_stop(&self.codec.decode(&answer)?, &request.stop);
            }
            if stopped_at.is_some() {
                break FinishReason::Stop;
            }
            if answer.len() >= request.max_tokens {
                break FinishReason::Length;
            }
            if let Some(reason) = interrupted(request) {
                break reason;
            }
            step = next()?;
        };
        let mut text = self.codec.decode(&answer)?;
        if let Some(at) = stopped_at {
            text.truncate(at);
        }
        Ok(Generation {
            text: text.trim().to_string(),
            prompt_tokens,
            completion_tokens: answer.len(),
            prompt_ms,
            decode_ms: decoding.elapsed().as_millis() as u64,
            finish_reason,
        })
    }
}

/// What comes next in an answer.
enum Next {
    Token(u32),
    /// Nothing: the deadline passed, or nobody wants it any more.
    Interrupted(FinishReason),
}

/// How a request's tokens are chosen; `None` takes the likeliest each time.
fn sampler(request: &GenerateRequest) -> Option<LogitsProcessor> {
    let sampling = match (request.temperature, request.top_p) {
        (temperature, _) if temperature < 1e-7 => return None,
        (temperature, None) => Sampling::All { temperature },
        (temperature, Some(p)) => Sampling::TopP { p, temperature },
    };
    Some(LogitsProcessor::from_sampling(request.seed, sampling))
}

/// A language model on candle that answers one request after the other.
pub struct CandleGenerator {
    about: About,
    decoder: Decoder,
    threads: Threads,
}

impl CandleGenerator {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not of the architecture that the manifest says, or there is no such device.
    pub fn load(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let threads = Threads::new(options.threads)?;
        let (codec, decoder) = open(model, options, &threads)?;
        Ok(Self { about: About::new(model.entry(), codec), decoder, threads })
    }

    fn fail(&self, error: candle_core::Error) -> Error {
        Error::model(&self.about.name, error)
    }

    /// The tokens of a prompt, as the model sees them.
    ///
    /// # Errors
    /// When the prompt is empty, or a conversation and the model has no chat template.
    pub fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        self.about.codec.encode(prompt)
    }

    /// Continues `prompt` by exactly `count` of the likeliest tokens, past any that would end an answer: what benchmarks
    /// compare.
    ///
    /// # Errors
    /// When prompt and answer together are longer than the model's context, or one of them is empty.
    pub fn continue_tokens(&mut self, prompt: &[u32], count: usize) -> Result<Continuation> {
        self.about.fits(prompt, count)?;
        self.threads.clone().run(|| self.continue_here(prompt, count))
    }

    fn continue_here(&mut self, prompt: &[u32], count: usize) -> Result<Continuation> {
        let mut run = || {
            let started = Instant::now();
            self.decoder.reset(prompt.len() + count)?;
            let mut position = 0;
            let mut logits = None;
            for chunk in prompt.chunks(PROMPT_CHUNK) {
                logits = Some(finite(self.decoder.forward(chunk, position)?)?);
                position += chunk.len();
            }
            let prompt_time = started.elapsed();
            let first_logits = logits.clone().unwrap_or_default();
            let decoding = Instant::now();
            let mut tokens = Vec::with_capacity(count);
            while let Some(current) = logits.take() {
                let token = argmax(&current) as u32;
                tokens.push(token);
                if tokens.len() < count {
                    logits = Some(finite(self.decoder.forward(&[token], position)?)?);
                    position += 1;
                }
            }
            let decode_time = decoding.elapsed();
            self.decoder.reset(0)?;
            Ok(Continuation { tokens, first_logits, prompt_time, decode_time })
        };
        run().map_err(|e| self.fail(e))
    }
}

/// What [`CandleGenerator::continue_tokens`] gives.
#[derive(Debug, Clone)]
pub struct Continuation {
    /// The tokens that follow the prompt.
    pub tokens: Vec<u32>,
    /// What the first of them was chosen by: one number per token of the vocabulary.
    pub first_logits: Vec<f32>,
    /// Time until the first of them could be chosen.
    pub prompt_time: Duration,
    /// Time from there until the last was chosen, which the network has not seen.
    pub decode_time: Duration,
}

/// Why to end now, if there is a reason.
fn interrupted(request: &GenerateRequest) -> Option<FinishReason> {
    if request.cancel.is_cancelled() {
        Some(FinishReason::Cancelled)
    } else if request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        Some(FinishReason::Deadline)
    } else {
        None
    }
}

/// Logits of which one is no number tell nothing, and the likeliest of them would be any token.
fn finite(logits: Vec<f32>) -> candle_core::Result<Vec<f32>> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(logits),
        Some(at) => candle_core::bail!(
            "the logit of token {at} is {}: its weights or its arithmetic are broken (a precision that is too small for it?)",
            logits[at]
        ),
    }
}

/// Where the earliest of the stop texts begins.
fn find_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|s| text.find(s.as_str())).min()
}

impl Generator for CandleGenerator {
    fn name(&self) -> &str {
        &self.about.name
    }

    fn digest(&self) -> ModelDigest {
        self.about.digest
    }

    fn context_tokens(&self) -> usize {
        self.about.context_tokens
    }

    fn count_tokens(&self, prompt: &Prompt) -> Result<usize> {
        self.about.count_tokens(prompt)
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Generation> {
        self.threads.clone().run(|| self.generate_here(request))
    }
}

impl CandleGenerator {
    fn generate_here(&mut self, request: &GenerateRequest) -> Result<Generation> {
        let prompt = self.about.prompt(request)?;
        let mut sampler = sampler(request);
        self.decoder.reset(prompt.len() + request.max_tokens).map_err(|e| self.fail(e))?;
        let (about, decoder) = (&self.about, &mut self.decoder);
        let mut seen = 0;
        let mut last = None;
        let generation = about.answer(request, prompt.len(), || {
            let fail = |e: candle_core::Error| Error::model(&about.name, e);
            let mut logits = Vec::new();
            if let Some(token) = last {
                logits = decoder.forward(&[token], seen).and_then(finite).map_err(fail)?;
                seen += 1;
            } else {
                for chunk in prompt.chunks(PROMPT_CHUNK) {
                    if let Some(reason) = interrupted(request) {
                        return Ok(Next::Interrupted(reason));
                    }
                    logits = decoder.forward(chunk, seen).and_then(finite).map_err(fail)?;
                    seen += chunk.len();
                }
            }
            let token = match &mut sampler {
                None => argmax(&logits) as u32,
                Some(sampler) => {
                    let count = logits.len();
                    let logits = Tensor::from_vec(logits, count, &Device::Cpu);
                    logits.and_then(|logits| sampler.sample(&logits)).map_err(fail)?
                }
            };
            last = Some(token);
            Ok(Next::Token(token))
        });
        // What this request left behind is of no use to the next one.
        self.decoder.reset(0).map_err(|e| self.fail(e))?;
        generation
    }
}

/// What the threads that ask one loaded model share.
struct Shared {
    about: About,
    engine: Engine,
}

/// A language model that answers several requests at once: each caller has one of these, and all ask the same loaded model.
///
/// What else is being answered changes an answer no more than rounding does.
pub struct BatchGenerator(Arc<Shared>);

impl BatchGenerator {
    /// Loads a model whose files have been checked, for at most `options.parallel` requests at a time.
    ///
    /// # Errors
    /// As [`CandleGenerator::load`]; when the model is one that our own code runs, which answers one request at a time.
    pub fn load(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let entry = model.entry();
        let threads = Threads::new(options.threads)?;
        let (codec, decoder) = open(model, options, &threads)?;
        let Decoder::Candle(decoder) = decoder else {
            return Err(Error::model(&entry.name, "on this device it answers one request after the other"));
        };
        let ends = codec.ends().to_vec();
        let is_end = move |token: u32| ends.binary_search(&token).is_ok();
        let engine = Engine::start(
            &entry.name,
            options.parallel.unwrap_or(super::PARALLEL).max(1),
            is_end,
            decoder,
            threads,
        )
        .map_err(|e| Error::model(&entry.name, format!("no thread could be started for it: {e}")))?;
        Ok(Self(Arc::new(Shared { about: About::new(entry, codec), engine })))
    }

    /// Another one, for another caller.
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }

    fn is_alive(&self) -> bool {
        self.0.engine.is_alive()
    }

    fn submit(&self, job: Job) -> Result<()> {
        if self.0.engine.submit(job) {
            return Ok(());
        }
        // The thread that decodes panicked, and says so in its own words. To whoever runs this model it is the model that
        // panicked: it is loaded again.
        std::panic::resume_unwind(Box::new("the thread that decodes has ended".to_string()))
    }

    /// Continues `prompt` by exactly `count` of the likeliest tokens, past any that would end an answer: what benchmarks
    /// compare. Other callers' requests are answered meanwhile.
    ///
    /// # Errors
    /// As [`CandleGenerator::continue_tokens`].
    pub fn continue_tokens(&mut self, prompt: &[u32], count: usize) -> Result<Vec<u32>> {
        let about = &self.0.about;
        about.fits(prompt, count)?;
        let (tokens, answer) = mpsc::channel();
        self.submit(Job {
            prompt: prompt.to_vec(),
            max_tokens: count,
            sampler: None,
            ends: false,
            deadline: None,
            cancel: Default::default(),
            tokens,
        })?;
        answer.iter().map(|token| token.map_err(|e| Error::model(&about.name, e))).collect()
    }
}

impl Generator for BatchGenerator {
    fn name(&self) -> &str {
        &self.0.about.name
    }

    fn digest(&self) -> ModelDigest {
        self.0.about.digest
    }

    fn context_tokens(&self) -> usize {
        self.0.about.context_tokens
    }

    fn count_tokens(&self, prompt: &Prompt) -> Result<usize> {
        self.0.about.count_tokens(prompt)
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Generation> {
        let about = &self.0.about;
        let prompt = about.prompt(request)?;
        let prompt_tokens = prompt.len();
        let (tokens, answer) = mpsc::channel();
        self.submit(Job {
            prompt,
            max_tokens: request.max_tokens,
            sampler: sampler(request),
            ends: true,
            deadline: request.deadline,
            cancel: request.cancel.clone(),
            tokens,
        })?;
        about.answer(request, prompt_tokens, || loop {
            match answer.recv_timeout(PATIENCE) {
                Ok(Ok(token)) => return Ok(Next::Token(token)),
                Ok(Err(reason)) => return Err(Error::model(&about.name, reason)),
                Err(error) => match (interrupted(request), error) {
                    (Some(reason), _) => return Ok(Next::Interrupted(reason)),
                    (None, mpsc::RecvTimeoutError::Timeout) => {}
                    (None, mpsc::RecvTimeoutError::Disconnected) => {
                        std::panic::resume_unwind(Box::new("the thread that decodes has ended".to_string()))
                    }
                },
            }
        })
    }
}

/// Where the threads of a [`ModelThread`](crate::ModelThread) get a language model from: one loaded model for all of them,
/// where requests are answered at once.
pub struct GeneratorSource {
    store: ModelStore,
    name: String,
    options: LoadOptions,
    shared: Mutex<Option<BatchGenerator>>,
}

impl GeneratorSource {
    /// Nothing is loaded yet.
    pub fn new(store: ModelStore, name: impl Into<String>, options: LoadOptions) -> Self {
        Self { store, name: name.into(), options, shared: Mutex::new(None) }
    }

    /// How many requests are answered at once: how many threads should ask.
    pub fn parallel(&self) -> usize {
        self.options.parallel()
    }

    /// A model to ask. It is loaded when nobody asked before, or when the one that was loaded has panicked.
    ///
    /// # Errors
    /// As [`load_generator`](super::load_generator).
    pub fn open(&self) -> Result<Box<dyn Generator>> {
        if self.parallel() == 1 {
            return super::load_generator(&self.store, &self.name, &self.options);
        }
        let mut shared = self.shared.lock();
        if let Some(model) = shared.as_ref().filter(|model| model.is_alive()) {
            return Ok(Box::new(model.share()));
        }
        // The old one's memory first.
        *shared = None;
        self.store.manifest().get(&self.name)?.expect_role(Role::Generator)?;
        let model = BatchGenerator::load(&self.store.verify(&self.name)?, &self.options)?;
        let first = model.share();
        *shared = Some(model);
        Ok(Box::new(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        assert_eq!(finite(vec![1.0, -2.0]).unwrap(), [1.0, -2.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = finite(vec![1.0, bad]).unwrap_err().to_string();
            assert!(error.contains("token 1"), "{error}");
        }
    }
}
