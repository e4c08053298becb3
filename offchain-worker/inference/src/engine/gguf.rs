//! A decoder of the Llama family (Llama, SmolLM2, Qwen2) out of a GGUF file.
//!
//! candle-transformers has these models too; this one is for long-running workers and small machines. It keeps the token
//! table quantised (candle-transformers' copy in f32 takes 0.5 GB for a Qwen2.5 of 0.5 B), keeps no attention masks (theirs
//! are kept for every prompt length ever seen), sees long prompts in pieces, and lays its weights out so that candle's
//! fast kernels take them ([`Linear`]). A test holds it to the numbers of candle-transformers.

use crate::convert::gguf::{is_slow, pad_rows, to_q8_0};
use candle_core::{
    quantized::{gguf_file::Content, GgmlDType, QMatMul, QTensor},
    DType, Device, Module, Tensor, D,
};
use candle_nn::{kv_cache::KvCache, ops, rotary_emb};
use std::{
    io::{Read, Seek},
    sync::Arc,
};

/// Rows of candle's packed x86 kernels are a multiple of this.
const KERNEL_BLOCK: usize = 256;

/// From this many tokens on, multiplying by dequantised weights is faster than candle's token-by-token loop.
const GEMM_TOKENS: usize = 8;

/// How this processor multiplies by Q8_0 weights best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// As they are: candle has kernels for every shape (ARM, GPUs), or there is nothing better.
    Native,
    /// candle's VNNI kernels want rows of a multiple of 256. Padding rows with zeros makes them fit, which is worth a
    /// factor of 4 for one token and of 28 for a prompt of 128 (measured on Zen 5, rows of 896).
    Padded,
    /// No VNNI: candle computes a prompt token by token; a dense multiplication is several times faster.
    DequantisedPrompt,
}

impl Strategy {
    fn of(device: &Device) -> Self {
        if !device.is_cpu() {
            return Self::Native;
        }
        #[cfg(target_arch = "x86_64")]
        {
            let vnni = is_x86_feature_detected!("avxvnni")
                || (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"));
            if vnni {
                Self::Padded
            } else {
                Self::DequantisedPrompt
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::Native
    }
}

/// A quantised matrix that vectors are multiplied by.
struct Linear {
    weight: QMatMul,
    quantised: Arc<QTensor>,
    bias: Option<Tensor>,
    /// Zeros to append to a vector.
    padding: usize,
    /// Multiply by dequantised weights from [`GEMM_TOKENS`] on.
    gemm: bool,
}

impl Linear {
    fn new(weight: QTensor, bias: Option<Tensor>, strategy: Strategy) -> candle_core::Result<Self> {
        let weight = if is_slow(weight.dtype()) { to_q8_0(&weight)? } else { weight };
        let (rows, columns) = weight.shape().dims2()?;
        let is_q8_0 = weight.dtype() == GgmlDType::Q8_0;
        let fits = columns.is_multiple_of(KERNEL_BLOCK) && rows.is_multiple_of(16);
        let weight = if strategy == Strategy::Padded && is_q8_0 && !fits && rows.is_multiple_of(16) {
            pad_rows(&weight, KERNEL_BLOCK)?
        } else {
            weight
        };
        let padding = weight.shape().dims2()?.1 - columns;
        // K-quants have packed kernels on every x86 that this crate is compiled for.
        let packed = fits && matches!(weight.dtype(), GgmlDType::Q4K | GgmlDType::Q6K);
        let quantised = Arc::new(weight);
        Ok(Self {
            weight: QMatMul::from_arc(quantised.clone())?,
            quantised,
            bias,
            padding,
            gemm: strategy == Strategy::DequantisedPrompt && !packed,
        })
    }

    /// The rows that belong to these ids: the matrix as a token table.
    fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let rows = self.weight.embedding(ids)?.to_dtype(DType::F32)?;
        let columns = rows.dim(D::Minus1)? - self.padding;
        rows.narrow(D::Minus1, 0, columns)?.contiguous()
    }
}

impl Module for Linear {
    /// `x` is (tokens, columns).
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = if self.gemm && x.dim(0)? >= GEMM_TOKENS {
            x.matmul(&self.quantised.dequantize(x.device())?.t()?)?
        } else if self.padding > 0 {
            self.weight.forward(&x.pad_with_zeros(1, 0, self.padding)?)?
        } else {
            self.weight.forward(x)?
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
    cache: Option<KvCache>,
}

/// How the rotary embedding pairs the components of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rope {
    /// Neighbours: 2i with 2i+1. Llama's GGUF files are permuted for it.
    Interleaved,
    /// Halves: i with i + d/2.
    Halves,
}

/// The decoder.
pub(crate) struct GgufDecoder {
    device: Device,
    embedding: Linear,
    layers: Vec<Layer>,
    norm: Tensor,
    /// `None` when the token table is also the output matrix.
    head: Option<Linear>,
    cos: Tensor,
    sin: Tensor,
    rope: Rope,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
}

impl GgufDecoder {
    /// Loads the weights; positions up to `context` can be seen.
    pub(crate) fn load<R: Read + Seek>(
        gguf: &Content,
        reader: &mut R,
        context: usize,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let architecture = match gguf.metadata.get("general.architecture") {
            Some(value) => value.to_string()?.clone(),
            None => candle_core::bail!("the file names no architecture"),
        };
        let rope = match architecture.as_str() {
            "llama" => Rope::Interleaved,
            "qwen2" => Rope::Halves,
            other => candle_core::bail!("architecture `{other}` is not one of llama, qwen2"),
        };
        let get = |key: &str| {
            let key = format!("{architecture}.{key}");
            match gguf.metadata.get(&key) {
                Some(value) => Ok(value),
                None => candle_core::bail!("the file has no `{key}`"),
            }
        };
        if get("expert_count").and_then(|v| v.to_u32()).unwrap_or(0) > 1 {
            candle_core::bail!("mixtures of experts are not supported")
        }
        if get("rope.scaling.type").and_then(|v| v.to_string().cloned()).is_ok_and(|t| t != "none") {
            candle_core::bail!("scaled rotary embeddings are not supported")
        }
        let number = |key: &str| get(key).and_then(|v| v.to_u32()).map(|v| v as usize);
        let heads = number("attention.head_count")?;
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let hidden = number("embedding_length")?;
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !hidden.is_multiple_of(heads) {
            candle_core::bail!("{heads} heads, {kv_heads} for keys, {hidden} wide: these do not fit together")
        }
        let trained = number("context_length")?;
        if context > trained {
            candle_core::bail!(
                "the manifest gives it {context} tokens of context, it was trained for {trained}"
            )
        }
        let head_dim = hidden / heads;
        let base = get("rope.freq_base").and_then(|v| v.to_f32()).unwrap_or(10_000.0);
        let (cos, sin) = rotations(head_dim, base, context, device)?;

        let strategy = Strategy::of(device);
        let mut tensor = |name: &str| gguf.tensor(reader, name, device);
        let embedding = Linear::new(tensor("token_embd.weight")?, None, strategy)?;
        let norm = tensor("output_norm.weight")?.dequantize(device)?;
        let head = match gguf.tensor_infos.contains_key("output.weight") {
            true => Some(Linear::new(tensor("output.weight")?, None, strategy)?),
            false => None,
        };
        let mut layers = Vec::new();
        for index in 0..number("block_count")? {
            let mut vector = |name: &str| tensor(&format!("blk.{index}.{name}"))?.dequantize(device);
            let attention_norm = vector("attn_norm.weight")?;
            let feed_norm = vector("ffn_norm.weight")?;
            let mut linear = |name: &str| {
                let bias = format!("blk.{index}.{name}.bias");
                let bias = match gguf.tensor_infos.contains_key(&bias) {
                    true => Some(tensor(&bias)?.dequantize(device)?),
                    false => None,
                };
                Linear::new(tensor(&format!("blk.{index}.{name}.weight"))?, bias, strategy)
            };
            layers.push(Layer {
                attention_norm,
                query: linear("attn_q")?,
                key: linear("attn_k")?,
                value: linear("attn_v")?,
                output: linear("attn_output")?,
                feed_norm,
                gate: linear("ffn_gate")?,
                up: linear("ffn_up")?,
                down: linear("ffn_down")?,
                cache: None,
            });
        }
        let epsilon = get("attention.layer_norm_rms_epsilon")?.to_f32()?;
        Ok(Self {
            device: device.clone(),
            embedding,
            layers,
            norm,
            head,
            cos,
            sin,
            rope,
            heads,
            kv_heads,
            head_dim,
            epsilon,
        })
    }

    /// Forgets what it has seen and makes room for `tokens`.
    pub(crate) fn reset(&mut self, tokens: usize) {
        for layer in &mut self.layers {
            layer.cache = (tokens > 0).then(|| KvCache::new(1, tokens));
        }
    }

    /// Sees `tokens`, which follow the `position` tokens seen before; returns the logits of the next one.
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Tensor> {
        let ids = Tensor::new(tokens, &self.device)?;
        let count = tokens.len();
        let mut x = self.embedding.rows(&ids)?;
        let cos = self.cos.narrow(0, position, count)?;
        let sin = self.sin.narrow(0, position, count)?;
        let shape =
            Shape { rope: self.rope, heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim };
        let mask = causal_mask(count, position, &self.device)?;
        for layer in &mut self.layers {
            let normed = ops::rms_norm(&x, &layer.attention_norm, self.epsilon)?;
            x = (x + layer.attention(&normed, mask.as_ref(), &cos, &sin, shape)?)?;
            let normed = ops::rms_norm(&x, &layer.feed_norm, self.epsilon)?;
            let gated = (ops::silu(&layer.gate.forward(&normed)?)? * layer.up.forward(&normed)?)?;
            x = (x + layer.down.forward(&gated)?)?;
        }
        let last = ops::rms_norm(&x.narrow(0, count - 1, 1)?.contiguous()?, &self.norm, self.epsilon)?;
        self.head.as_ref().unwrap_or(&self.embedding).forward(&last)?.squeeze(0)
    }
}

#[derive(Clone, Copy)]
struct Shape {
    rope: Rope,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Layer {
    fn attention(
        &mut self,
        x: &Tensor,
        mask: Option<&Tensor>,
        cos: &Tensor,
        sin: &Tensor,
        shape: Shape,
    ) -> candle_core::Result<Tensor> {
        let Shape { rope, heads, kv_heads, head_dim } = shape;
        let count = x.dim(0)?;
        // (tokens, heads · d) → (heads, tokens, d)
        let split =
            |x: Tensor, heads: usize| x.reshape((count, heads, head_dim))?.transpose(0, 1)?.contiguous();
        let rotate = |x: Tensor| {
            let x = x.unsqueeze(0)?;
            match rope {
                Rope::Interleaved => rotary_emb::rope_i(&x, cos, sin),
                Rope::Halves => rotary_emb::rope(&x, cos, sin),
            }?
            .squeeze(0)
        };
        let query = rotate(split(self.query.forward(x)?, heads)?)?;
        let key = rotate(split(self.key.forward(x)?, kv_heads)?)?;
        let value = split(self.value.forward(x)?, kv_heads)?;
        let Some(cache) = &mut self.cache else { candle_core::bail!("no room was made for tokens") };
        let (keys, values) = cache.append(&key, &value)?;
        let seen = keys.dim(1)?;

        // The heads that share keys are laid one below the other, so that keys need not be repeated.
        let group = heads / kv_heads;
        let query =
            (query * (1.0 / (head_dim as f64).sqrt()))?.reshape((kv_heads, group * count, head_dim))?;
        let scores = query.matmul(&keys.transpose(1, 2)?)?;
        let scores = match mask {
            Some(mask) => scores.reshape((kv_heads, group, count, seen))?.broadcast_add(mask)?.reshape((
                kv_heads,
                group * count,
                seen,
            ))?,
            None => scores,
        };
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&values)?;
        let mixed =
            mixed.reshape((heads, count, head_dim))?.transpose(0, 1)?.reshape((count, heads * head_dim))?;
        self.output.forward(&mixed)
    }
}

/// Cosines and sines of the rotary embedding, (positions, d/2) each.
fn rotations(
    head_dim: usize,
    base: f32,
    positions: usize,
    device: &Device,
) -> candle_core::Result<(Tensor, Tensor)> {
    let frequencies: Vec<f32> =
        (0..head_dim).step_by(2).map(|i| base.powf(i as f32 / head_dim as f32).recip()).collect();
    let frequencies = Tensor::new(frequencies, device)?.unsqueeze(0)?;
    let positions = Tensor::arange(0, positions as u32, device)?.to_dtype(DType::F32)?.unsqueeze(1)?;
    let angles = positions.matmul(&frequencies)?;
    Ok((angles.cos()?, angles.sin()?))
}

/// What is added to the scores: nothing where a token may look, −∞ where it would look ahead. One token looks everywhere.
fn causal_mask(count: usize, position: usize, device: &Device) -> candle_core::Result<Option<Tensor>> {
    if count == 1 {
        return Ok(None);
    }
    let seen = position + count;
    let mask: Vec<f32> = (0..count)
        .flat_map(|row| {
            (0..seen).map(move |column| if column > position + row { f32::NEG_INFINITY } else { 0.0 })
        })
        .collect();
    Tensor::from_vec(mask, (count, seen), device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encode::cosine, ModelStore};
    use candle_core::Tensor;
    use candle_transformers::models::quantized_llama;
    use std::fs::File;

    fn unit(logits: &Tensor) -> Vec<f32> {
        let norm = logits.sqr().unwrap().sum_all().unwrap().sqrt().unwrap();
        logits.broadcast_div(&norm).unwrap().to_vec1().unwrap()
    }

    fn assert_agree(ours: &Tensor, theirs: &Tensor) {
        let (ours, theirs) = (unit(ours), unit(theirs));
        assert!(cosine(&ours, &theirs) > 0.999, "{}", cosine(&ours, &theirs));
        let best = (0..theirs.len()).max_by(|a, b| theirs[*a].total_cmp(&theirs[*b])).unwrap();
        let better = ours.iter().filter(|logit| **logit > ours[best]).count();
        assert!(better < 5, "their likeliest token is our number {better}");
    }

    /// Same weights, other code: the logits agree but for the rounding of activations to eight bits.
    #[test]
    fn agrees_with_candle_transformers() {
        let store = ModelStore::open_default();
        let model = store.verify("smollm2-135m-instruct").unwrap_or_else(|e| panic!("{e}"));
        let path = model.file("model.gguf").unwrap();
        let device = Device::Cpu;
        let tokens: Vec<u32> = (0..40).map(|i| 300 + i * 31).collect();

        let mut file = File::open(&path).unwrap();
        let gguf = Content::read(&mut file).unwrap();
        let mut ours = GgufDecoder::load(&gguf, &mut file, 64, &device).unwrap();
        let mut theirs = quantized_llama::ModelWeights::from_gguf(gguf, &mut file, &device).unwrap();
        let mut reference = |tokens: &[u32], position: usize| {
            let input = Tensor::new(tokens, &device).unwrap().unsqueeze(0).unwrap();
            theirs.forward(&input, position).unwrap().squeeze(0).unwrap()
        };

        ours.reset(tokens.len() + 1);
        // In two pieces, as a long prompt is.
        ours.forward(&tokens[..25], 0).unwrap();
        let prompt = ours.forward(&tokens[25..], 25).unwrap();
        assert_agree(&prompt, &reference(&tokens, 0));

        let next = ours.forward(&[500], tokens.len()).unwrap();
        assert_agree(&next, &reference(&[500], tokens.len()));
    }

    /// Whatever the processor, each way of multiplying gives the same product.
    #[test]
    fn strategies_agree() {
        let device = Device::Cpu;
        let dense = Tensor::randn(0f32, 1.0, (64, 96), &device).unwrap();
        let bias = Tensor::randn(0f32, 1.0, 64, &device).unwrap();
        for tokens in [1, GEMM_TOKENS] {
            let x = Tensor::randn(0f32, 1.0, (tokens, 96), &device).unwrap();
            let product = |strategy| {
                let weight = QTensor::quantize(&dense, GgmlDType::Q8_0).unwrap();
                let linear = Linear::new(weight, Some(bias.clone()), strategy).unwrap();
                linear.forward(&x).unwrap().flatten_all().unwrap()
            };
            let native = product(Strategy::Native);
            for other in [Strategy::Padded, Strategy::DequantisedPrompt] {
                assert!(cosine(&unit(&native), &unit(&product(other))) > 0.999, "{other:?}");
            }
        }
    }

    #[test]
    fn tables_give_back_rows_without_padding() {
        let dense = Tensor::randn(0f32, 1.0, (32, 96), &Device::Cpu).unwrap();
        let table = QTensor::quantize(&dense, GgmlDType::Q8_0).unwrap();
        let expected = table.dequantize(&Device::Cpu).unwrap();
        let table = Linear::new(table, None, Strategy::Padded).unwrap();
        let row = table.rows(&Tensor::new(&[7u32], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(
            row.to_vec2::<f32>().unwrap(),
            expected.narrow(0, 7, 1).unwrap().to_vec2::<f32>().unwrap()
        );
    }
}
