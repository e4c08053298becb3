//! The networks that predict the next token.

use super::{
    candle_decoder::{likeliest, CandleDecoder},
    cpu::{decoder::CpuDecoder, math, pool::Pool},
    device::Precision,
    gguf::{load_for_candle, load_for_cpu},
    safetensors,
};
use crate::{
    error::{Error, Result},
    manifest::Architecture,
    store::VerifiedModel,
};
use candle_core::{quantized::gguf_file, Device, Tensor};
use parking_lot::Mutex;

/// Tokens of one slot, which follow the `position` tokens that it has seen.
pub(crate) struct Piece<'a> {
    pub(crate) slot: usize,
    pub(crate) tokens: &'a [u32],
    pub(crate) position: usize,
    /// Whether the logits of the next token are wanted.
    pub(crate) last: bool,
}

/// Logits, one row for each piece that wanted them.
pub(crate) enum Logits {
    /// (rows, vocabulary), where the network is.
    Device(Tensor),
    /// One row after the other.
    Host { values: Vec<f32>, width: usize },
}

impl Logits {
    /// No rows.
    pub(crate) fn none() -> Self {
        Self::Host { values: Vec::new(), width: 1 }
    }

    /// The likeliest token of each row; `None` for a row that holds a number that is not finite.
    pub(crate) fn likeliest(&self) -> candle_core::Result<Vec<Option<u32>>> {
        let (values, width) = match self {
            Self::Device(logits) => return likeliest(logits),
            Self::Host { values, width } => (values, *width),
        };
        let best = Mutex::new(vec![None; values.len() / width]);
        Pool::global().run(values.len() / width, &|row| {
            let logits = &values[row * width..][..width];
            let found = math::all_finite(logits).then(|| math::argmax(logits) as u32);
            best.lock()[row] = found;
        });
        Ok(best.into_inner())
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> candle_core::Result<Vec<f32>> {
        match self {
            Self::Device(logits) => logits.get(row)?.to_device(&Device::Cpu)?.to_vec1(),
            Self::Host { values, width } => Ok(values[row * width..][..*width].to_vec()),
        }
    }
}

/// The logarithm of the probability that logits give to a token.
pub(crate) fn logprob(logits: &[f32], token: u32) -> f32 {
    let Some(logit) = logits.get(token as usize) else { return f32::NEG_INFINITY };
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    (f64::from(logit - largest) - sum.ln()) as f32
}

/// A decoder with a cache of several slots, each of which holds what one sequence has seen. Slots are numbered from 0.
pub(crate) trait Slots: Send {
    /// Tokens that there is memory for, in all slots together, where none is reserved.
    fn budget(&self) -> usize;

    /// Tokens whose keys and values may stay while nobody needs them. Where it is 0, sequences must be in the first slots.
    fn keeps(&self) -> usize;

    /// Tokens of prompts that are seen between two tokens of an answer.
    fn prompt_tokens(&self) -> usize;

    /// Tokens of the budget that are taken when `slots` of them are to hold `tokens` each.
    fn room(&self, slots: usize, tokens: usize) -> usize;

    /// Makes room for so many tokens in a slot; there may be `ample` slots soon. What is in the cache stays.
    fn make_room(&mut self, slot: usize, ample: usize, tokens: usize) -> candle_core::Result<()>;

    /// Forgets everything and frees the cache.
    fn release(&mut self);

    /// Forgets what a slot holds and frees it.
    fn free(&mut self, slot: usize);

    /// Puts what slot `from` holds into slot `to`; what was there, and what is in `from` afterwards, is of no use.
    fn move_slot(&mut self, from: usize, to: usize) -> candle_core::Result<()>;

    /// Copies the first tokens that a slot holds to another one.
    fn copy_prefix(&mut self, from: usize, to: usize, tokens: usize) -> candle_core::Result<()>;

    /// Sees pieces of prompts and single tokens of answers, each of another slot. `seen` is how many tokens every slot up to the last
    /// that answers holds once the prompts are seen, the tokens of answers not counted. Returns the logits that were wanted: those
    /// of prompts, then those of answers.
    fn see(
        &mut self,
        prompts: &[Piece<'_>],
        answers: &[Piece<'_>],
        seen: &[usize],
    ) -> candle_core::Result<Logits>;
}

/// A decoder, with its cache of what it has already seen.
#[allow(clippy::large_enum_variant)] // there is one of it per loaded model
pub(crate) enum Decoder {
    /// Our own code, on the processor.
    Cpu(CpuDecoder),
    /// candle's operations.
    Candle(CandleDecoder),
}

impl Decoder {
    /// The weights out of a GGUF file.
    pub(crate) fn from_gguf(
        gguf: &gguf_file::Content,
        file: &mut std::fs::File,
        context: usize,
        device: &Device,
        precision: Precision,
    ) -> candle_core::Result<Self> {
        if device.is_cpu() && precision == Precision::Auto {
            if let Some(decoder) = load_for_cpu(gguf, file, context)? {
                return Ok(Self::Cpu(decoder));
            }
        }
        load_for_candle(gguf, file, context, device, precision).map(Self::Candle)
    }

    /// The weights out of safetensors files.
    pub(crate) fn from_safetensors(
        model: &VerifiedModel,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        let entry = model.entry();
        let path = model.file("config.json")?;
        let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let model_type = match entry.architecture {
            Architecture::LlamaSafetensors => Some("llama"),
            Architecture::Qwen2Safetensors => Some("qwen2"),
            // What the folder says it is.
            _ => None,
        };
        let files = model.files_ending_in(".safetensors");
        safetensors::load(&config, model_type, &files, entry.context_tokens, device, precision)
            .map(Self::Candle)
            .map_err(|e| Error::model(&entry.name, e))
    }

    /// As a decoder of several sequences.
    pub(crate) fn into_slots(self) -> Box<dyn Slots> {
        match self {
            Self::Cpu(decoder) => Box::new(decoder),
            Self::Candle(decoder) => Box::new(decoder),
        }
    }

    fn slots(&mut self) -> &mut dyn Slots {
        match self {
            Self::Cpu(decoder) => decoder,
            Self::Candle(decoder) => decoder,
        }
    }

    /// Forgets what it has seen and makes room for `tokens` of one sequence, if any.
    pub(crate) fn reset(&mut self, tokens: usize) -> candle_core::Result<()> {
        self.slots().release();
        match tokens {
            0 => Ok(()),
            tokens => self.slots().make_room(0, 1, tokens),
        }
    }

    /// Sees `tokens`, which follow the `position` tokens seen before; returns the logits of the next one.
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>> {
        let piece = Piece { slot: 0, tokens, position, last: true };
        self.slots().see(&[piece], &[], &[position + tokens.len()])?.row(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_the_host_are_looked_at_row_by_row() {
        let logits =
            Logits::Host { values: vec![0.0, 2.0, 1.0, 5.0, f32::NAN, 1.0, 3.0, 3.0, 0.0], width: 3 };
        assert_eq!(logits.likeliest().unwrap(), [Some(1), None, Some(0)]);
        assert_eq!(logits.row(2).unwrap(), [3.0, 3.0, 0.0]);
        assert!(Logits::none().likeliest().unwrap().is_empty());
    }

    #[test]
    fn probabilities_add_up_to_one() {
        let logits = [0.5f32, 700.0, 699.0, -3.0];
        let sum: f64 = (0..4).map(|token| f64::from(logprob(&logits, token)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!((logprob(&logits, 1) - -(1.0f32 + (-1f32).exp()).ln()).abs() < 1e-6);
        assert_eq!(logprob(&logits, 9), f32::NEG_INFINITY);
    }
}
