//! Answering prompts, token by token.

use super::{cpu::math::argmax, decoder::Decoder, tokenizer::TextCodec};
use crate::{
    error::{Error, Result},
    generate::{FinishReason, GenerateRequest, Generation, Generator, Prompt, MAX_PROMPT_BYTES},
    manifest::{Architecture, ModelDigest},
    store::VerifiedModel,
};
use candle_core::{quantized::gguf_file, Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use std::{
    fs::File,
    io::BufReader,
    time::{Duration, Instant},
};

/// Tokens of a prompt that are computed between two looks at the deadline.
const PROMPT_CHUNK: usize = 256;

/// A language model on candle.
pub struct CandleGenerator {
    name: String,
    digest: ModelDigest,
    context_tokens: usize,
    codec: TextCodec,
    decoder: Decoder,
    device: Device,
}

impl CandleGenerator {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not of the architecture that the manifest says.
    pub fn load(model: &VerifiedModel, device: &Device) -> Result<Self> {
        let entry = model.entry();
        let fail = |e: candle_core::Error| Error::model(&entry.name, e);
        let (codec, decoder) = match entry.architecture {
            Architecture::LlamaGguf | Architecture::Qwen2Gguf => {
                let path = model.file("model.gguf")?;
                let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
                let gguf = gguf_file::Content::read(&mut BufReader::new(&file)).map_err(fail)?;
                let codec = TextCodec::from_gguf(model, &gguf)?;
                let context = entry.context_tokens;
                (codec, Decoder::from_gguf(&gguf, &mut file, context, device).map_err(fail)?)
            }
            Architecture::LlamaSafetensors | Architecture::Qwen2Safetensors => {
                (TextCodec::from_files(model)?, Decoder::from_safetensors(model, device)?)
            }
            Architecture::Bert => {
                return Err(Error::model(&entry.name, "a BERT encoder cannot generate text"))
            }
        };
        Ok(Self {
            name: entry.name.clone(),
            digest: entry.digest(),
            context_tokens: entry.context_tokens,
            codec,
            decoder,
            device: device.clone(),
        })
    }

    fn fail(&self, error: candle_core::Error) -> Error {
        Error::model(&self.name, error)
    }

    /// The tokens of a prompt, as the model sees them.
    ///
    /// # Errors
    /// When the prompt is empty, or a conversation and the model has no chat template.
    pub fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        self.codec.encode(prompt)
    }

    /// Continues `prompt` by exactly `count` of the likeliest tokens, past any that would end an answer: what benchmarks
    /// compare.
    ///
    /// # Errors
    /// When prompt and answer together are longer than the model's context, or one of them is empty.
    pub fn continue_tokens(&mut self, prompt: &[u32], count: usize) -> Result<Continuation> {
        let limit = self.context_tokens.saturating_sub(count);
        if prompt.len() > limit {
            return Err(Error::PromptTooLong { tokens: prompt.len(), limit });
        }
        if prompt.is_empty() || count == 0 {
            return Err(Error::InvalidRequest("a continuation needs a prompt and a length".to_string()));
        }
        let device = self.device.clone();
        let mut run = || {
            let started = Instant::now();
            self.decoder.reset(prompt.len() + count, &device)?;
            let mut position = 0;
            let mut logits = None;
            for chunk in prompt.chunks(PROMPT_CHUNK) {
                logits = Some(finite(self.decoder.forward(chunk, position, &device)?)?);
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
                    logits = Some(finite(self.decoder.forward(&[token], position, &device)?)?);
                    position += 1;
                }
            }
            let decode_time = decoding.elapsed();
            self.decoder.reset(0, &device)?;
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
        &self.name
    }

    fn digest(&self) -> ModelDigest {
        self.digest
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn count_tokens(&self, prompt: &Prompt) -> Result<usize> {
        let bytes = prompt.bytes();
        if bytes > MAX_PROMPT_BYTES {
            return Err(Error::PromptTooLarge { bytes, limit: MAX_PROMPT_BYTES });
        }
        Ok(self.codec.encode(prompt)?.len())
    }

    fn generate(&mut self, request: &GenerateRequest) -> Result<Generation> {
        request.validate(self.context_tokens)?;
        let prompt = self.codec.encode(&request.prompt)?;
        let limit = self.context_tokens - request.max_tokens;
        if prompt.len() > limit {
            return Err(Error::PromptTooLong { tokens: prompt.len(), limit });
        }
        let sampling = match (request.temperature, request.top_p) {
            // The likeliest token each time needs no sampler.
            (temperature, _) if temperature < 1e-7 => None,
            (temperature, None) => Some(Sampling::All { temperature }),
            (temperature, Some(p)) => Some(Sampling::TopP { p, temperature }),
        };
        let mut sampler = sampling.map(|sampling| LogitsProcessor::from_sampling(request.seed, sampling));

        let device = self.device.clone();
        let started = Instant::now();
        self.decoder.reset(prompt.len() + request.max_tokens, &device).map_err(|e| self.fail(e))?;
        let mut position = 0;
        let mut logits = None;
        let mut finish = None;
        for chunk in prompt.chunks(PROMPT_CHUNK) {
            finish = interrupted(request);
            if finish.is_some() {
                break;
            }
            let next = self.decoder.forward(chunk, position, &device).and_then(finite);
            logits = Some(next.map_err(|e| self.fail(e))?);
            position += chunk.len();
        }
        let prompt_ms = started.elapsed().as_millis() as u64;

        let decoding = Instant::now();
        let mut answer: Vec<u32> = Vec::new();
        let mut stopped_at = None;
        while let (None, Some(current)) = (finish, logits.take()) {
            let token = match &mut sampler {
                None => argmax(&current) as u32,
                Some(sampler) => {
                    let count = current.len();
                    let logits = Tensor::from_vec(current, count, &Device::Cpu);
                    logits.and_then(|logits| sampler.sample(&logits)).map_err(|e| self.fail(e))?
                }
            };
            if self.codec.is_end(token) {
                finish = Some(FinishReason::Stop);
                break;
            }
            answer.push(token);
            if !request.stop.is_empty() {
                stopped_at = find_stop(&self.codec.decode(&answer)?, &request.stop);
            }
            finish = if stopped_at.is_some() {
                Some(FinishReason::Stop)
            } else if answer.len() >= request.max_tokens {
                Some(FinishReason::Length)
            } else {
                interrupted(request)
            };
            if finish.is_none() {
                let next = self.decoder.forward(&[token], position, &device).and_then(finite);
                logits = Some(next.map_err(|e| self.fail(e))?);
                position += 1;
            }
        }
        // What this request left behind is of no use to the next one.
        self.decoder.reset(0, &device).map_err(|e| self.fail(e))?;

        let mut text = self.codec.decode(&answer)?;
        if let Some(at) = stopped_at {
            text.truncate(at);
        }
        Ok(Generation {
            text: text.trim().to_string(),
            prompt_tokens: prompt.len(),
            completion_tokens: answer.len(),
            prompt_ms,
            decode_ms: decoding.elapsed().as_millis() as u64,
            finish_reason: finish.unwrap_or(FinishReason::Length),
        })
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
