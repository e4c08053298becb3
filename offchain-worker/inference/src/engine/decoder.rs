//! The networks that predict the next token.

use super::{
    cpu::decoder::CpuDecoder,
    gguf::{load_for_cpu, GgufDecoder},
};
use crate::{
    error::{Error, Result},
    manifest::Architecture,
    store::VerifiedModel,
};
use candle_core::{quantized::gguf_file, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2};

/// A decoder with its cache of what it has already seen.
#[allow(clippy::large_enum_variant)] // there is one of it per loaded model
pub(crate) enum Decoder {
    Cpu(CpuDecoder),
    Gguf(GgufDecoder),
    Llama { model: llama::Llama, cache: llama::Cache, config: llama::Config },
    Qwen2(qwen2::ModelForCausalLM),
}

impl Decoder {
    /// The weights out of a GGUF file.
    pub(crate) fn from_gguf(
        gguf: &gguf_file::Content,
        file: &mut std::fs::File,
        context: usize,
        device: &Device,
    ) -> candle_core::Result<Self> {
        if device.is_cpu() {
            if let Some(decoder) = load_for_cpu(gguf, file, context)? {
                return Ok(Self::Cpu(decoder));
            }
        }
        GgufDecoder::load(gguf, file, context, device).map(Self::Gguf)
    }

    /// The weights out of safetensors files.
    pub(crate) fn from_safetensors(model: &VerifiedModel, device: &Device) -> Result<Self> {
        let entry = model.entry();
        let fail = |e: candle_core::Error| Error::model(&entry.name, e);
        let config_path = model.file("config.json")?;
        let config = std::fs::read(&config_path).map_err(|e| Error::io(&config_path, e))?;
        let bad_config = |e: serde_json::Error| Error::model(&entry.name, format!("config.json: {e}"));
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let files = model.files_ending_in(".safetensors");
        // SAFETY: mapping a file is sound as long as nobody changes it meanwhile. Model files are written once, beside their
        // place, and renamed into it; nothing here or in the installer opens an installed file for writing.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, dtype, device) }.map_err(fail)?;
        match entry.architecture {
            Architecture::LlamaSafetensors => {
                let config: llama::LlamaConfig = serde_json::from_slice(&config).map_err(bad_config)?;
                let config = config.into_config(false);
                let cache = llama::Cache::new(true, dtype, &config, device).map_err(fail)?;
                let model = llama::Llama::load(weights, &config).map_err(fail)?;
                Ok(Self::Llama { model, cache, config })
            }
            _ => {
                let config: qwen2::Config = serde_json::from_slice(&config).map_err(bad_config)?;
                qwen2::ModelForCausalLM::new(&config, weights).map(Self::Qwen2).map_err(fail)
            }
        }
    }

    /// Forgets what it has seen and makes room for `tokens`, if any.
    pub(crate) fn reset(&mut self, tokens: usize, device: &Device) -> candle_core::Result<()> {
        match self {
            Self::Cpu(model) => model.reset(tokens),
            Self::Gguf(model) => model.reset(tokens),
            Self::Llama { cache, config, .. } => {
                let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
                *cache = llama::Cache::new(true, dtype, config, device)?;
            }
            Self::Qwen2(model) => model.clear_kv_cache(),
        }
        Ok(())
    }

    /// Sees `tokens`, which follow the `position` tokens seen before; returns the logits of the next one.
    pub(crate) fn forward(
        &mut self,
        tokens: &[u32],
        position: usize,
        device: &Device,
    ) -> candle_core::Result<Vec<f32>> {
        let input = || Tensor::new(tokens, device)?.unsqueeze(0);
        let logits = match self {
            Self::Cpu(model) => return model.forward(tokens, position),
            Self::Gguf(model) => model.forward(tokens, position)?,
            Self::Llama { model, cache, .. } => model.forward(&input()?, position, cache)?,
            Self::Qwen2(model) => model.forward(&input()?, position)?,
        };
        logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }
}
