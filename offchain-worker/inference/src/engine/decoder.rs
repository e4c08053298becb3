//! The networks that predict the next token.

use super::{
    candle_decoder::{CandleDecoder, Piece},
    cpu::{decoder::CpuDecoder, quant::Isa},
    device::Precision,
    gguf::{load_for_candle, load_for_cpu},
    gguf_header::Header,
    limit::Limit,
    safetensors, Kernels, LoadOptions,
};
use crate::{
    error::{Error, Result},
    store::VerifiedModel,
};
use candle_core::Device;

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
        gguf: &Header,
        file: &mut std::fs::File,
        context: usize,
        device: &Device,
        options: &LoadOptions,
        limit: Limit,
    ) -> candle_core::Result<Self> {
        let precision = options.precision;
        if device.is_cpu() && precision == Precision::Auto && options.kernels != Kernels::Candle {
            let isa = options.kernels.isa().map_err(|e| candle_core::Error::Msg(e.to_string()))?;
            // Where there are no kernels, candle's are faster than plain Rust.
            if isa != Isa::Portable || options.kernels == Kernels::Portable {
                if let Some(mut decoder) = load_for_cpu(gguf, file, context)? {
                    decoder.set_isa(isa);
                    return Ok(Self::Cpu(decoder));
                }
            }
        }
        load_for_candle(gguf, file, context, device, precision, limit).map(Self::Candle)
    }

    /// The weights out of safetensors files.
    pub(crate) fn from_safetensors(
        model: &VerifiedModel,
        device: &Device,
        precision: Precision,
        limit: Limit,
    ) -> Result<Self> {
        let entry = model.entry();
        let path = model.file("config.json")?;
        let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let files = model.files_ending_in(".safetensors");
        safetensors::load(&config, &files, entry.context_tokens, device, precision)
            .map(|decoder| Self::Candle(decoder.with_cache_limit(limit.cache())))
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
