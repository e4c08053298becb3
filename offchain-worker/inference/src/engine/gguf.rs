//! Decoders of the Llama family (Llama, SmolLM2, Qwen2) out of a GGUF file.
//!
//! On x86 processors our own code runs them ([`cpu::decoder`](super::cpu::decoder)), in the formats of the file. Elsewhere
//! candle's operations do. candle-transformers has these models too; the decoder here is for long-running workers and small
//! machines. It keeps the token table quantised (candle-transformers' copy in f32 takes 0.5 GB for a Qwen2.5 of 0.5 B), keeps
//! no attention masks (theirs are kept for every prompt length ever seen), and sees long prompts in pieces. A test holds both
//! to the numbers of candle-transformers.

use super::cpu::{
    decoder::{self as cpu, CpuDecoder},
    memory::Arena,
    pool::Pool,
    quant::{Format, Isa, QuantMatrix},
};
use crate::convert::gguf::{is_slow, to_q8_0};
use candle_core::{
    quantized::{gguf_file::Content, QMatMul, QTensor},
    DType, Device, Module, Tensor,
};
use candle_nn::{kv_cache::KvCache, ops, rotary_emb};
use std::{
    cell::RefCell,
    io::{Read, Seek, SeekFrom},
    sync::Arc,
};

/// A quantised matrix that vectors are multiplied by.
struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    fn new(weight: QTensor, bias: Option<Tensor>) -> candle_core::Result<Self> {
        let weight = if is_slow(weight.dtype()) { to_q8_0(&weight)? } else { weight };
        Ok(Self { weight: QMatMul::from_arc(Arc::new(weight))?, bias })
    }

    /// The rows that belong to these ids: the matrix as a token table.
    fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.weight.embedding(ids)?.to_dtype(DType::F32)
    }
}

impl Module for Linear {
    /// `x` is (tokens, columns).
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = self.weight.forward(x)?;
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

/// What a file says about its network.
#[derive(Debug, Clone, Copy)]
struct Hyper {
    rope: Rope,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
    rope_base: f32,
}

impl Hyper {
    /// Reads it; positions up to `context` are to be seen.
    fn read(gguf: &Content, context: usize) -> candle_core::Result<Self> {
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
        Ok(Self {
            rope,
            layers: number("block_count")?,
            hidden,
            heads,
            kv_heads,
            head_dim: hidden / heads,
            epsilon: get("attention.layer_norm_rms_epsilon")?.to_f32()?,
            rope_base: get("rope.freq_base").and_then(|v| v.to_f32()).unwrap_or(10_000.0),
        })
    }

    fn shape(&self) -> cpu::Shape {
        cpu::Shape {
            rope_neighbours: self.rope == Rope::Interleaved,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            hidden: self.hidden,
            epsilon: self.epsilon,
        }
    }
}

/// Loads the file for our own code; `None` where candle is to run it: on processors that there are no kernels for, and for
/// formats and shapes that there is no code for.
///
/// # Errors
/// When the file cannot be read, or its tensors do not fit together.
pub(crate) fn load_for_cpu<R: Read + Seek>(
    gguf: &Content,
    reader: &mut R,
    context: usize,
) -> candle_core::Result<Option<CpuDecoder>> {
    if Isa::detect() == Isa::Portable {
        return Ok(None);
    }
    load_own(gguf, reader, context)
}

fn load_own<R: Read + Seek>(
    gguf: &Content,
    reader: &mut R,
    context: usize,
) -> candle_core::Result<Option<CpuDecoder>> {
    let hyper = Hyper::read(gguf, context)?;
    let is_matrix = |name: &str| name.ends_with(".weight") && !name.ends_with("norm.weight");
    let unknown = gguf.tensor_infos.iter().find(|(name, info)| {
        is_matrix(name) && Format::of(info.ggml_dtype).is_none_or(|f| !f.fits(info.shape.dims()))
    });
    if let Some((name, info)) = unknown {
        tracing::info!(tensor = name, format = ?info.ggml_dtype, "no kernels for this format: candle runs the model");
        return Ok(None);
    }
    if !hyper.shape().is_supported() {
        tracing::info!(
            head_dim = hyper.head_dim,
            "no kernels for heads of this width: candle runs the model"
        );
        return Ok(None);
    }
    let pool = Pool::global();
    let arena = Arena::default();
    // One buffer for all tensors: fresh memory would be cleared by the system each time.
    let source = RefCell::new((reader, Vec::new()));
    let matrix = |name: &str| -> candle_core::Result<QuantMatrix> {
        let Some(info) = gguf.tensor_infos.get(name) else {
            candle_core::bail!("the file has no tensor `{name}`")
        };
        let (rows, columns) = info.shape.dims2()?;
        let Some(format) = Format::of(info.ggml_dtype) else {
            candle_core::bail!("`{name}` is not quantised")
        };
        let (reader, data) = &mut *source.borrow_mut();
        data.resize(format.file_size(rows, columns), 0);
        reader.seek(SeekFrom::Start(gguf.tensor_data_offset + info.offset))?;
        reader.read_exact(data)?;
        QuantMatrix::pack(pool, &arena, format, rows, columns, data)
    };
    let vector = |name: &str| -> candle_core::Result<Vec<f32>> {
        gguf.tensor(source.borrow_mut().0, name, &Device::Cpu)?
            .dequantize(&Device::Cpu)?
            .flatten_all()?
            .to_vec1()
    };
    let mut layers = Vec::with_capacity(hyper.layers);
    for index in 0..hyper.layers {
        let name = |name: &str| format!("blk.{index}.{name}");
        let linear = |tensor: &str| {
            let bias = name(&format!("{tensor}.bias"));
            candle_core::Result::Ok(cpu::Linear {
                matrix: matrix(&name(&format!("{tensor}.weight")))?,
                bias: gguf.tensor_infos.contains_key(&bias).then(|| vector(&bias)).transpose()?,
            })
        };
        layers.push(cpu::Layer {
            attention_norm: vector(&name("attn_norm.weight"))?,
            query: linear("attn_q")?,
            key: linear("attn_k")?,
            value: linear("attn_v")?,
            output: linear("attn_output")?,
            feed_norm: vector(&name("ffn_norm.weight"))?,
            gate: linear("ffn_gate")?,
            up: linear("ffn_up")?,
            down: linear("ffn_down")?,
        });
    }
    let head =
        gguf.tensor_infos.contains_key("output.weight").then(|| matrix("output.weight")).transpose()?;
    let (cos, sin) = rotations(hyper.head_dim, hyper.rope_base, context, &Device::Cpu)?;
    CpuDecoder::new(
        hyper.shape(),
        matrix("token_embd.weight")?,
        layers,
        vector("output_norm.weight")?,
        head,
        cos.flatten_all()?.to_vec1()?,
        sin.flatten_all()?.to_vec1()?,
    )
    .map(Some)
}

/// The decoder on candle.
pub(crate) struct GgufDecoder {
    device: Device,
    embedding: Linear,
    layers: Vec<Layer>,
    norm: Tensor,
    /// `None` when the token table is also the output matrix.
    head: Option<Linear>,
    cos: Tensor,
    sin: Tensor,
    hyper: Hyper,
}

impl GgufDecoder {
    /// Loads the weights; positions up to `context` can be seen.
    pub(crate) fn load<R: Read + Seek>(
        gguf: &Content,
        reader: &mut R,
        context: usize,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let hyper = Hyper::read(gguf, context)?;
        let (cos, sin) = rotations(hyper.head_dim, hyper.rope_base, context, device)?;
        let mut tensor = |name: &str| gguf.tensor(reader, name, device);
        let embedding = Linear::new(tensor("token_embd.weight")?, None)?;
        let norm = tensor("output_norm.weight")?.dequantize(device)?;
        let head = match gguf.tensor_infos.contains_key("output.weight") {
            true => Some(Linear::new(tensor("output.weight")?, None)?),
            false => None,
        };
        let mut layers = Vec::new();
        for index in 0..hyper.layers {
            let mut vector = |name: &str| tensor(&format!("blk.{index}.{name}"))?.dequantize(device);
            let attention_norm = vector("attn_norm.weight")?;
            let feed_norm = vector("ffn_norm.weight")?;
            let mut linear = |name: &str| {
                let bias = format!("blk.{index}.{name}.bias");
                let bias = match gguf.tensor_infos.contains_key(&bias) {
                    true => Some(tensor(&bias)?.dequantize(device)?),
                    false => None,
                };
                Linear::new(tensor(&format!("blk.{index}.{name}.weight"))?, bias)
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
        Ok(Self { device: device.clone(), embedding, layers, norm, head, cos, sin, hyper })
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
        let hyper = self.hyper;
        let mask = causal_mask(count, position, &self.device)?;
        for layer in &mut self.layers {
            let normed = ops::rms_norm(&x, &layer.attention_norm, hyper.epsilon)?;
            x = (x + layer.attention(&normed, mask.as_ref(), &cos, &sin, hyper)?)?;
            let normed = ops::rms_norm(&x, &layer.feed_norm, hyper.epsilon)?;
            let gated = (ops::silu(&layer.gate.forward(&normed)?)? * layer.up.forward(&normed)?)?;
            x = (x + layer.down.forward(&gated)?)?;
        }
        let last = ops::rms_norm(&x.narrow(0, count - 1, 1)?.contiguous()?, &self.norm, hyper.epsilon)?;
        self.head.as_ref().unwrap_or(&self.embedding).forward(&last)?.squeeze(0)
    }
}

impl Layer {
    fn attention(
        &mut self,
        x: &Tensor,
        mask: Option<&Tensor>,
        cos: &Tensor,
        sin: &Tensor,
        hyper: Hyper,
    ) -> candle_core::Result<Tensor> {
        let Hyper { rope, heads, kv_heads, head_dim, .. } = hyper;
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
        let mut on_candle = GgufDecoder::load(&gguf, &mut file, 64, &device).unwrap();
        let mut own = load_own(&gguf, &mut file, 64).unwrap().unwrap();
        let mut theirs = quantized_llama::ModelWeights::from_gguf(gguf, &mut file, &device).unwrap();
        let mut reference = |tokens: &[u32], position: usize| {
            let input = Tensor::new(tokens, &device).unwrap().unsqueeze(0).unwrap();
            theirs.forward(&input, position).unwrap().squeeze(0).unwrap()
        };
        let prompt = reference(&tokens, 0);
        let next = reference(&[500], tokens.len());

        on_candle.reset(tokens.len() + 1);
        // In two pieces, as a long prompt is.
        on_candle.forward(&tokens[..25], 0).unwrap();
        assert_agree(&on_candle.forward(&tokens[25..], 25).unwrap(), &prompt);
        assert_agree(&on_candle.forward(&[500], tokens.len()).unwrap(), &next);

        for isa in Isa::available() {
            own.set_isa(*isa);
            own.reset(tokens.len() + 1);
            own.forward(&tokens[..25], 0).unwrap();
            let mut forward = |tokens: &[u32], position: usize| {
                let logits = own.forward(tokens, position).unwrap();
                Tensor::new(logits, &device).unwrap()
            };
            assert_agree(&forward(&tokens[25..], 25), &prompt);
            assert_agree(&forward(&[500], tokens.len()), &next);
            // There is no room for more than was asked for, up to 32 tokens.
            assert!(own.forward(&[1; 24], tokens.len() + 1).is_err());
            assert!(own.forward(&[u32::MAX], 0).is_err());
        }
    }
}
