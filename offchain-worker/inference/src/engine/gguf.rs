//! Decoders of the Llama family (Llama, SmolLM2, Qwen2) out of a GGUF file.
//!
//! On x86 processors our own code runs them ([`cpu::decoder`](super::cpu::decoder)), in the formats of the file. Elsewhere
//! candle's operations do ([`candle_decoder`](super::candle_decoder)). A test holds both to the numbers of
//! candle-transformers.

use super::{
    candle_decoder::{fits_dense, rotations, CandleDecoder, Network, Rope, Weight},
    cpu::{
        decoder::{self as cpu, CpuDecoder},
        memory::Arena,
        pool::Pool,
        quant::{Format, Isa, QuantMatrix},
    },
    device::{Numbers, Precision},
};
use crate::convert::gguf::{is_slow, to_q8_0};
use candle_core::{quantized::gguf_file::Content, Device};
use std::{
    cell::RefCell,
    io::{Read, Seek, SeekFrom},
};

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

    fn frequencies(&self) -> Vec<f32> {
        let dim = self.head_dim;
        (0..dim).step_by(2).map(|i| self.rope_base.powf(i as f32 / dim as f32).recip()).collect()
    }

    fn network(&self) -> Network {
        Network {
            rope: self.rope,
            frequencies: self.frequencies(),
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            epsilon: self.epsilon,
        }
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
    let (cos, sin) = rotations(&hyper.frequencies(), context, &Device::Cpu)?;
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

/// Loads the file for candle's operations.
///
/// # Errors
/// When the file cannot be read, or its tensors do not fit together.
pub(crate) fn load_for_candle<R: Read + Seek>(
    gguf: &Content,
    reader: &mut R,
    context: usize,
    device: &Device,
    precision: Precision,
) -> candle_core::Result<CandleDecoder> {
    let hyper = Hyper::read(gguf, context)?;
    let numbers = Numbers::new(precision, device);
    let elements = gguf.tensor_infos.values().map(|info| info.shape.elem_count()).sum();
    // Processors multiply by quantised matrices fast, GPUs by dense ones: theirs stay quantised only where memory is short.
    let keep = precision == Precision::Auto && (device.is_cpu() || !fits_dense(device, numbers, elements));
    if keep && !device.is_cpu() {
        tracing::info!(elements, "the weights stay quantised: dense they would not fit");
    }
    CandleDecoder::new(hyper.network(), numbers, context, device, |name| {
        if !gguf.tensor_infos.contains_key(name) {
            return Ok(None);
        }
        let tensor = gguf.tensor(reader, name, device)?;
        // Of these formats candle has only scalar code for processors.
        let tensor =
            if keep && device.is_cpu() && is_slow(tensor.dtype()) { to_q8_0(&tensor)? } else { tensor };
        Weight::from_gguf(tensor, keep).map(Some)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::candle_decoder::Piece, *};
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
        let mut on_candle = [Precision::Auto, Precision::F32]
            .map(|precision| load_for_candle(&gguf, &mut file, 64, &device, precision).unwrap());
        let mut own = load_own(&gguf, &mut file, 64).unwrap().unwrap();
        let mut theirs = quantized_llama::ModelWeights::from_gguf(gguf, &mut file, &device).unwrap();
        let mut reference = |tokens: &[u32], position: usize| {
            let input = Tensor::new(tokens, &device).unwrap().unsqueeze(0).unwrap();
            theirs.forward(&input, position).unwrap().squeeze(0).unwrap()
        };
        let prompt = reference(&tokens, 0);
        let next = reference(&[500], tokens.len());

        for on_candle in &mut on_candle {
            let mut see = |tokens, position, last, room| {
                if room {
                    on_candle.reserve(1, 41).unwrap();
                }
                on_candle.pieces(&[Piece { slot: 0, tokens, position, last }])
            };
            assert!(see(&tokens[..25], 0, false, false).is_err(), "no room was made");
            // In two pieces, as a long prompt is.
            assert!(see(&tokens[..25], 0, false, true).unwrap().is_none());
            let logits = see(&tokens[25..], 25, true, true).unwrap().unwrap();
            assert_agree(&logits.squeeze(0).unwrap(), &prompt);
            let step = on_candle.step(&[500], &[tokens.len()]).unwrap();
            assert_agree(&step.squeeze(0).unwrap(), &next);
        }

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
