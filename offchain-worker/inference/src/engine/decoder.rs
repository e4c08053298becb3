//! The networks that predict the next token.

use super::{
    candle_decoder::{CandleDecoder, Piece},
    cpu::decoder::CpuDecoder,
    device::Precision,
    gguf::{load_for_candle, load_for_cpu},
    safetensors,
};
use crate::{
    error::{Error, Result},
    manifest::Architecture,
    store::VerifiedModel,
};
use candle_core::{quantized::gguf_file, Device};

/// A decoder of one sequence, with its cache of what it has already seen.
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

    /// Forgets what it has seen and makes room for `tokens`, if any.
    pub(crate) fn reset(&mut self, tokens: usize) -> candle_core::Result<()> {
        match self {
            Self::Cpu(model) => model.reset(tokens),
            Self::Candle(model) if tokens == 0 => model.release(),
            Self::Candle(model) => model.reserve(1, tokens)?,
        }
        Ok(())
    }

    /// Sees `tokens`, which follow the `position` tokens seen before; returns the logits of the next one.
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>> {
        match self {
            Self::Cpu(model) => model.forward(tokens, position),
            Self::Candle(model) => match model.pieces(&[Piece { slot: 0, tokens, position, last: true }])? {
                Some(logits) => logits.squeeze(0)?.to_vec1(),
                None => candle_core::bail!("the network gave no logits"),
            },
        }
    }
}
