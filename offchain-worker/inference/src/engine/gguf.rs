//! Decoders out of a GGUF file.
//!
//! On x86 processors our own code runs those of the Llama family ([`cpu::decoder`](super::cpu::decoder)), in the formats of the
//! file. Everything else candle's operations do ([`candle_decoder`](super::candle_decoder)). What a file says and nothing here
//! does is refused by name: to pass over it would give other answers.

use super::{
    candle_decoder::{
        fits_dense, rotations, Bend, CandleDecoder, Experts, Local, Network, Positions, Rope, Weight,
    },
    cpu::{
        decoder::{self as cpu, CpuDecoder},
        memory::Arena,
        pool::Pool,
        quant::{Format, Isa, QuantMatrix},
    },
    device::{Numbers, Precision},
    gguf_header::{told, whole, Header},
    limit::Limit,
    rope::{self, Scaling},
};
use crate::convert::gguf::{is_slow, to_q8_0};
use candle_core::{
    quantized::{gguf_file::Value, QStorage, QTensor},
    Device,
};
use std::{
    borrow::Cow,
    cell::RefCell,
    io::{Read, Seek, SeekFrom},
};

/// What a file says about its network.
#[derive(Debug, Clone)]
struct Hyper {
    network: Network,
    hidden: usize,
    /// Whether it has nothing that Llama has not.
    plain: bool,
}

/// What tells the architectures of a family from each other.
struct Family {
    rope: Rope,
    /// Keys of its namespace beyond [`KNOWN_KEYS`].
    keys: &'static [&'static str],
    /// Tensors of a layer beyond [`LAYER_TENSORS`].
    tensors: &'static [&'static str],
}

/// The architecture of this name, where it is supported.
fn family(architecture: &str) -> Option<Family> {
    let of = |rope, keys, tensors| Some(Family { rope, keys, tensors });
    const HEAD_NORMS: &[&str] = &["attn_q_norm.weight", "attn_k_norm.weight"];
    const EXPERTS: &[&str] =
        &["ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"];
    const EXPERTS_AND_HEAD_NORMS: &[&str] = &[
        "attn_q_norm.weight",
        "attn_k_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_exps.weight",
        "ffn_up_exps.weight",
        "ffn_down_exps.weight",
    ];
    const POST_NORMS: &[&str] = &["post_attention_norm.weight", "post_ffw_norm.weight"];
    const ALL_NORMS: &[&str] =
        &["attn_q_norm.weight", "attn_k_norm.weight", "post_attention_norm.weight", "post_ffw_norm.weight"];
    match architecture {
        "llama" => of(Rope::Interleaved, &[], EXPERTS),
        "qwen2" => of(Rope::Halves, &[], &[]),
        "qwen3" => of(Rope::Halves, &[], HEAD_NORMS),
        "qwen3moe" => of(Rope::Halves, &["expert_feed_forward_length"], EXPERTS_AND_HEAD_NORMS),
        "phi3" => of(Rope::Halves, &[], &["attn_qkv.weight"]),
        "gemma2" => of(Rope::Halves, &["attn_logit_softcapping", "final_logit_softcapping"], POST_NORMS),
        "gemma3" => of(
            Rope::Halves,
            &["final_logit_softcapping", "attention.sliding_window_pattern", "rope.freq_base_swa"],
            ALL_NORMS,
        ),
        _ => None,
    }
}

/// The names that [`family`] knows, for messages.
const ARCHITECTURES: &str = "llama, qwen2, qwen3, qwen3moe, phi3, gemma2, gemma3";

/// Keys of an architecture's own namespace that are honoured, or that change nothing in the values that are checked.
const KNOWN_KEYS: [&str; 24] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.key_length",
    "attention.value_length",
    "attention.causal",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "expert_count",
    "expert_used_count",
];

/// Tensors of a layer.
const LAYER_TENSORS: [&str; 16] = [
    "attn_norm.weight",
    "ffn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_output.bias",
    "ffn_gate.bias",
    "ffn_up.bias",
    "ffn_down.bias",
];

/// The divisors of frequencies, where a file has them.
const ROPE_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

impl Hyper {
    /// Reads it; positions up to `context` are to be seen. What would change the computation and is not known is refused.
    fn read<R: Read + Seek>(gguf: &Header, reader: &mut R, context: usize) -> candle_core::Result<Self> {
        let Some(architecture) = gguf.text("general.architecture").map(str::to_string) else {
            candle_core::bail!("the file names no architecture")
        };
        let Some(family) = family(&architecture) else {
            candle_core::bail!("architecture `{architecture}` is not one of {ARCHITECTURES}")
        };
        if gguf.whole("split.count").is_some_and(|parts| parts > 1) {
            candle_core::bail!("the file is one part of several: join them first (llama-gguf-split --merge)")
        }
        let namespace = format!("{architecture}.");
        for key in gguf.keys().filter_map(|key| key.strip_prefix(&namespace)) {
            if !KNOWN_KEYS.contains(&key) && !family.keys.contains(&key) {
                candle_core::bail!("the file has `{architecture}.{key}`, which is not supported: to pass over it would give other answers")
            }
        }
        // Some files have a list, a number per layer, where others have one number.
        let optional = |key: &str| -> candle_core::Result<Option<&Value>> {
            let key = format!("{namespace}{key}");
            match gguf.count(&key) {
                None => Ok(gguf.value(&key)),
                Some(count) => candle_core::bail!("`{key}` is no number, but a list of {count}"),
            }
        };
        let float = |key: &str| -> candle_core::Result<Option<f32>> {
            match optional(key)? {
                None => Ok(None),
                Some(value) => match value.to_f32() {
                    Ok(value) if value.is_finite() => Ok(Some(value)),
                    _ => candle_core::bail!("`{architecture}.{key}` is no number: {}", told(value)),
                },
            }
        };
        let count = |key: &str| -> candle_core::Result<Option<usize>> {
            match optional(key)? {
                None => Ok(None),
                Some(value) => match whole(value).and_then(|v| usize::try_from(v).ok()) {
                    Some(value) => Ok(Some(value)),
                    None => candle_core::bail!("`{architecture}.{key}` is no number: {}", told(value)),
                },
            }
        };
        let number = |key: &str| match count(key)? {
            Some(value) => Ok(value),
            None => candle_core::bail!("the file has no `{architecture}.{key}`"),
        };
        if optional("attention.causal")?.is_some_and(|v| matches!(v.to_bool(), Ok(false))) {
            candle_core::bail!(
                "`{architecture}.attention.causal` is false: the model sees ahead, so it writes no text"
            )
        }
        let heads = number("attention.head_count")?;
        let kv_heads = count("attention.head_count_kv")?.unwrap_or(heads);
        let hidden = number("embedding_length")?;
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            candle_core::bail!("{heads} heads, {kv_heads} for keys: these do not fit together")
        }
        let head_dim = match count("attention.key_length")? {
            Some(width) => width,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => candle_core::bail!("{heads} heads, {hidden} wide: these do not fit together"),
        };
        if let Some(width) = count("attention.value_length")?.filter(|width| *width != head_dim) {
            candle_core::bail!("keys are {head_dim} wide and values {width}: this is not supported")
        }
        if head_dim == 0 || head_dim % 2 != 0 {
            candle_core::bail!("heads are {head_dim} wide: an even number is needed")
        }
        // All components of a head turn with the position, or the first so many.
        let turning = count("rope.dimension_count")?.unwrap_or(head_dim);
        if turning == 0 || turning > head_dim || turning % 2 != 0 {
            candle_core::bail!(
                "{turning} of a head's {head_dim} components turn with the position: this is not supported"
            )
        }
        let trained = number("context_length")?;
        if context > trained {
            candle_core::bail!(
                "the manifest gives it {context} tokens of context, it was trained for {trained}"
            )
        }
        let layers = number("block_count")?;
        refuse_unknown_tensors(gguf, layers, family.tensors)?;
        // What is made from here on is as large as these say: they must be those of the tensors.
        if layers == 0 || layers > gguf.tensors.len() {
            candle_core::bail!(
                "`{architecture}.block_count` is {layers}, of a file of {} tensors",
                gguf.tensors.len()
            )
        }
        let queries = heads.saturating_mul(head_dim);
        let all = queries.saturating_add(kv_heads.saturating_mul(head_dim).saturating_mul(2));
        let (apart, joined) = ("blk.0.attn_q.weight", "blk.0.attn_qkv.weight");
        let (name, rows) = if gguf.tensors.contains_key(joined) { (joined, all) } else { (apart, queries) };
        match gguf.tensors.get(name).map(|info| info.shape.dims()) {
            None => candle_core::bail!("the file has no tensor `{name}`"),
            Some(shape) if shape != [rows, hidden] => candle_core::bail!(
                "{heads} heads of {head_dim} in a network {hidden} wide do not fit `{name}`, which is {shape:?}"
            ),
            Some(_) => {}
        }

        let original = count("rope.scaling.original_context_length")?;
        let factor = float("rope.scaling.factor")?.filter(|factor| *factor > 0.0);
        let kind = match optional("rope.scaling.type")? {
            Some(value) => value.to_string()?.as_str(),
            None if gguf.tensors.contains_key(ROPE_TENSORS[1]) => "longrope",
            None => "none",
        };
        let mut divisors = |name: &str| -> candle_core::Result<Vec<f32>> {
            gguf.tensor(reader, name, &Device::Cpu)?.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()
        };
        let has = |name: &str| gguf.tensors.contains_key(name);
        let scaling = match kind {
            "longrope" => {
                let Some(original) = original else {
                    candle_core::bail!("longrope without `{architecture}.rope.scaling.original_context_length`")
                };
                let name = if context > original { ROPE_TENSORS[1] } else { ROPE_TENSORS[2] };
                if !has(name) {
                    candle_core::bail!("longrope without the tensor `{name}`")
                }
                let magnitude = match float("rope.scaling.attn_factor")? {
                    Some(factor) => factor,
                    None => Scaling::long_magnitude(original as f32, trained as f32),
                };
                Scaling::Divisors { divisors: divisors(name)?, magnitude }
            }
            "yarn" => Scaling::Yarn {
                factor: factor.unwrap_or(1.0),
                original: original.unwrap_or(trained) as f32,
                beta_fast: float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                attention: float("rope.scaling.attn_factor")?
                    .map(|own| own * (1.0 + 0.1 * factor.unwrap_or(1.0).max(1.0).ln())),
                truncate: true,
            },
            // Llama 3.1 and later: the divisors are in a tensor.
            "none" | "linear" | "llama3" if has(ROPE_TENSORS[0]) => {
                if kind == "linear" && factor.is_some_and(|factor| factor != 1.0) {
                    candle_core::bail!("its positions are scaled twice: by a factor and by `rope_freqs.weight`")
                }
                Scaling::Divisors { divisors: divisors(ROPE_TENSORS[0])?, magnitude: 1.0 }
            }
            "linear" => match factor.or(float("rope.scale_linear")?) {
                Some(factor) => Scaling::Linear(factor),
                None => candle_core::bail!("linear scaling without `{architecture}.rope.scaling.factor`"),
            },
            "none" => match float("rope.scale_linear")? {
                Some(factor) if factor != 1.0 && factor != 0.0 => Scaling::Linear(factor),
                _ => Scaling::None,
            },
            other => candle_core::bail!("`{architecture}.rope.scaling.type` is `{other}`: supported are none, linear, yarn, longrope and `rope_freqs.weight`"),
        };
        if kind != "longrope" && (has(ROPE_TENSORS[1]) || has(ROPE_TENSORS[2])) {
            candle_core::bail!("it has divisors for long contexts, and its scaling is `{kind}`, not longrope")
        }
        if kind != "none" && kind != "linear" && kind != "llama3" && has(ROPE_TENSORS[0]) {
            candle_core::bail!("its positions are scaled twice: by {kind} and by `rope_freqs.weight`")
        }
        let base = float("rope.freq_base")?.unwrap_or(10_000.0);
        let positions = |base: f32, scaling: &Scaling| -> candle_core::Result<Positions> {
            let (frequencies, magnitude) = rope::scaled(turning, base, scaling)
                .map_err(|reason| candle_core::Error::Msg(format!("its rotary embedding has {reason}")))?;
            Ok(Positions { frequencies, magnitude })
        };
        let Some(epsilon) = float("attention.layer_norm_rms_epsilon")? else {
            candle_core::bail!("the file has no `{architecture}.attention.layer_norm_rms_epsilon`")
        };
        let global = positions(base, &scaling)?;
        let mut network = Network::plain(family.rope, global, layers, heads, kv_heads, head_dim, epsilon);
        let window = count("attention.sliding_window")?.filter(|window| *window > 0);
        // llama.cpp: which layers see a window only is part of the architecture, as is what scores are multiplied by.
        let by_heads = (hidden as f32 / heads as f32).powf(-0.5);
        match architecture.as_str() {
            "gemma2" => {
                network.local = window.map(|window| Local {
                    window,
                    layers: (0..layers).map(|layer| layer % 2 == 0).collect(),
                    positions: None,
                });
                network.score_cap = float("attn_logit_softcapping")?;
                network.logit_cap = float("final_logit_softcapping")?;
                if layers == 46 {
                    network.score_scale = by_heads;
                }
            }
            "gemma3" => {
                let pattern = count("attention.sliding_window_pattern")?.unwrap_or(6).max(1);
                let local = positions(float("rope.freq_base_swa")?.unwrap_or(10_000.0), &Scaling::None)?;
                network.local = window.map(|window| Local {
                    window,
                    layers: (0..layers).map(|layer| (layer + 1) % pattern != 0).collect(),
                    positions: Some(local),
                });
                network.logit_cap = float("final_logit_softcapping")?;
                if layers == 62 {
                    network.score_scale = by_heads;
                }
            }
            _ => {
                network.local = window.filter(|window| *window < context).map(|window| Local {
                    window,
                    layers: vec![true; layers],
                    positions: None,
                });
            }
        }
        if architecture.starts_with("gemma") {
            network.bend = Bend::GeluTanh;
            network.embedding_scale = (hidden as f32).sqrt();
        }
        if let Some(experts) = count("expert_count")?.filter(|experts| *experts > 0) {
            let used = number("expert_used_count")?;
            if used == 0 || used > experts {
                candle_core::bail!("{used} of {experts} experts are used: these do not fit together")
            }
            // Mixtral's and Qwen3's: the weights of those that are used add up to 1.
            network.experts = Some(Experts { count: experts, used, normalise: true });
        }
        let plain = matches!(architecture.as_str(), "llama" | "qwen2")
            && network.local.is_none()
            && network.experts.is_none()
            && turning == head_dim;
        Ok(Self { network, hidden, plain })
    }

    fn shape(&self) -> cpu::Shape {
        let network = &self.network;
        cpu::Shape {
            rope_neighbours: network.rope == Rope::Interleaved,
            heads: network.heads,
            kv_heads: network.kv_heads,
            head_dim: network.head_dim,
            hidden: self.hidden,
            epsilon: network.epsilon,
        }
    }

    /// Cosines and sines of the rotary embedding, positions · d/2 each.
    fn rotations(&self, positions: usize) -> candle_core::Result<(Vec<f32>, Vec<f32>)> {
        let Positions { frequencies, magnitude } = &self.network.positions;
        let (cos, sin) = rotations(frequencies, positions, &Device::Cpu)?;
        let magnitude = f64::from(*magnitude);
        let flat = |tensor: candle_core::Tensor| (tensor * magnitude)?.flatten_all()?.to_vec1();
        Ok((flat(cos)?, flat(sin)?))
    }
}

/// A tensor that nothing here uses does something in the network that wrote it.
fn refuse_unknown_tensors(gguf: &Header, layers: usize, more: &[&str]) -> candle_core::Result<()> {
    let known = |name: &str| {
        if let Some((index, tensor)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            return index.parse::<usize>().is_ok_and(|index| index < layers)
                && (LAYER_TENSORS.contains(&tensor) || more.contains(&tensor));
        }
        matches!(name, "token_embd.weight" | "output_norm.weight" | "output.weight")
            || ROPE_TENSORS.contains(&name)
    };
    let mut unknown: Vec<&str> =
        gguf.tensors.keys().map(String::as_str).filter(|name| !known(name)).collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(first) => candle_core::bail!(
            "the file has {} tensors that are not supported, such as `{first}`: to pass over them would give other answers",
            unknown.len()
        ),
    }
}

/// What a file says of its network.
pub(super) struct About {
    /// Whether our own code runs it on this processor.
    pub(super) own: bool,
    /// Bytes of keys and values per token, on the processor.
    pub(super) token_bytes: u64,
}

/// Makes every check of loading that needs no weights.
///
/// # Errors
/// As [`load_for_cpu`].
pub(super) fn inspect<R: Read + Seek>(
    gguf: &Header,
    reader: &mut R,
    context: usize,
) -> candle_core::Result<About> {
    let hyper = Hyper::read(gguf, reader, context)?;
    let Network { layers, kv_heads, head_dim, .. } = hyper.network;
    let token_bytes = (2 * layers * kv_heads * head_dim * size_of::<f32>()) as u64;
    Ok(About { own: Isa::detect() != Isa::Portable && has_own_code(gguf, &hyper), token_bytes })
}

/// Whether there is code of our own for what the file has.
fn has_own_code(gguf: &Header, hyper: &Hyper) -> bool {
    let is_matrix = |name: &str| {
        name.ends_with(".weight") && !name.ends_with("norm.weight") && !ROPE_TENSORS.contains(&name)
    };
    let unknown = gguf.tensors.iter().find(|(name, info)| {
        is_matrix(name) && Format::of(info.ggml_dtype).is_none_or(|f| !f.fits(info.shape.dims()))
    });
    if let Some((name, info)) = unknown {
        tracing::info!(tensor = name, format = ?info.ggml_dtype, "no kernels for this format: candle runs the model");
        return false;
    }
    if !hyper.plain {
        return false;
    }
    if !hyper.shape().is_supported() {
        tracing::info!(
            head_dim = hyper.network.head_dim,
            "no kernels for heads of this width: candle runs the model"
        );
        return false;
    }
    true
}

/// Loads the file for our own code; `None` where candle is to run it: for formats and shapes that there is no code for.
///
/// # Errors
/// When the file cannot be read, or its tensors do not fit together.
pub(crate) fn load_for_cpu<R: Read + Seek>(
    gguf: &Header,
    reader: &mut R,
    context: usize,
) -> candle_core::Result<Option<CpuDecoder>> {
    let hyper = Hyper::read(gguf, reader, context)?;
    if !has_own_code(gguf, &hyper) {
        return Ok(None);
    }
    let pool = &*Pool::current();
    let arena = Arena::default();
    // One buffer for all tensors: fresh memory would be cleared by the system each time.
    let source = RefCell::new((reader, Vec::new()));
    let matrix = |name: &str| -> candle_core::Result<QuantMatrix> {
        let Some(info) = gguf.tensors.get(name) else {
            candle_core::bail!("the file has no tensor `{name}`")
        };
        let (rows, columns) = info.shape.dims2()?;
        let Some(format) = Format::of(info.ggml_dtype) else {
            candle_core::bail!("`{name}` is not quantised")
        };
        let (reader, data) = &mut *source.borrow_mut();
        data.resize(format.file_size(rows, columns), 0);
        reader.seek(SeekFrom::Start(gguf.data + info.offset))?;
        reader.read_exact(data)?;
        QuantMatrix::pack(pool, &arena, format, rows, columns, data)
    };
    let vector = |name: &str| -> candle_core::Result<Vec<f32>> {
        gguf.tensor(source.borrow_mut().0, name, &Device::Cpu)?
            .dequantize(&Device::Cpu)?
            .flatten_all()?
            .to_vec1()
    };
    let mut layers = Vec::with_capacity(hyper.network.layers);
    for index in 0..hyper.network.layers {
        let name = |name: &str| format!("blk.{index}.{name}");
        let linear = |tensor: &str| {
            let bias = name(&format!("{tensor}.bias"));
            candle_core::Result::Ok(cpu::Linear {
                matrix: matrix(&name(&format!("{tensor}.weight")))?,
                bias: gguf.tensors.contains_key(&bias).then(|| vector(&bias)).transpose()?,
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
    let head = gguf.tensors.contains_key("output.weight").then(|| matrix("output.weight")).transpose()?;
    let (cos, sin) = hyper.rotations(context)?;
    CpuDecoder::new(
        hyper.shape(),
        matrix("token_embd.weight")?,
        layers,
        vector("output_norm.weight")?,
        head,
        cos,
        sin,
    )
    .map(Some)
}

/// Loads the file for candle's operations.
///
/// # Errors
/// When the file cannot be read, or its tensors do not fit together.
pub(crate) fn load_for_candle<R: Read + Seek>(
    gguf: &Header,
    reader: &mut R,
    context: usize,
    device: &Device,
    precision: Precision,
    limit: Limit,
) -> candle_core::Result<CandleDecoder> {
    let hyper = Hyper::read(gguf, reader, context)?;
    let numbers = Numbers::new(precision, device);
    let elements = gguf.tensors.values().map(|info| info.shape.elem_count()).sum();
    // Processors multiply by quantised matrices fast, GPUs by dense ones: theirs stay quantised only where memory is short.
    let dense = fits_dense(device, numbers, elements) && limit.allows_dense(numbers, elements);
    let keep = precision == Precision::Auto && (device.is_cpu() || !dense);
    if keep && !device.is_cpu() {
        tracing::info!(elements, "the weights stay quantised: dense they would not fit");
    }
    // The experts of a layer are one tensor, which is read once.
    let mut stacked: Option<(String, QTensor)> = None;
    let decoder = CandleDecoder::new(hyper.network, numbers, context, device, |name| {
        let tensor = match expert(name) {
            Some((whole, number)) => {
                if !gguf.tensors.contains_key(&whole) {
                    return Ok(None);
                }
                if stacked.as_ref().is_none_or(|(name, _)| *name != whole) {
                    stacked = None;
                    let tensor = gguf.tensor(reader, &whole, &Device::Cpu)?;
                    stacked = Some((whole, tensor));
                }
                match &stacked {
                    Some((_, tensor)) => slice(tensor, number, device)?,
                    None => return Ok(None),
                }
            }
            None if !gguf.tensors.contains_key(name) => return Ok(None),
            None => gguf.tensor(reader, name, device)?,
        };
        // Of these formats candle has only scalar code for processors.
        let tensor =
            if keep && device.is_cpu() && is_slow(tensor.dtype()) { to_q8_0(&tensor)? } else { tensor };
        Weight::from_gguf(tensor, keep).map(Some)
    })?;
    Ok(decoder.with_cache_limit(limit.cache()))
}

/// `blk.0.ffn_up_exps.3.weight` is the fourth part of `blk.0.ffn_up_exps.weight`.
fn expert(name: &str) -> Option<(String, usize)> {
    let (front, rest) = name.split_once("_exps.")?;
    let (number, kind) = rest.split_once('.')?;
    Some((format!("{front}_exps.{kind}"), number.parse().ok()?))
}

/// One matrix of a tensor of several.
fn slice(tensor: &QTensor, number: usize, device: &Device) -> candle_core::Result<QTensor> {
    let (count, rows, columns) = tensor.shape().dims3()?;
    let data = tensor.data()?;
    if number >= count || data.len() % count != 0 {
        candle_core::bail!("there is no expert {number} of {count}")
    }
    let size = data.len() / count;
    let part = data[number * size..][..size].to_vec();
    let storage = QStorage::from_data(Cow::Owned(part), device, tensor.dtype())?;
    QTensor::new(storage, (rows, columns))
}

#[cfg(test)]
mod tests {
    use super::{super::candle_decoder::Piece, *};
    use crate::{encode::cosine, ModelStore};
    use candle_core::{
        quantized::{gguf_file, GgmlDType},
        Tensor,
    };
    use candle_transformers::models::quantized_llama;
    use std::{collections::BTreeMap, fs::File};

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

    /// A tiny network with weights out of a formula, and what `change` does to its metadata and tensors.
    fn tiny(
        change: impl FnOnce(&mut BTreeMap<String, Value>, &mut BTreeMap<String, QTensor>),
    ) -> std::io::Cursor<Vec<u8>> {
        const HIDDEN: usize = 64;
        let mut state = 1u32;
        let mut values = |count: usize| -> Vec<f32> {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            std::iter::repeat_with(next).take(count).collect()
        };
        let mut tensors = BTreeMap::new();
        let mut matrix = |name: &str, rows: usize, columns: usize| {
            let tensor = Tensor::from_vec(values(rows * columns), (rows, columns), &Device::Cpu).unwrap();
            tensors.insert(name.to_string(), QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap());
        };
        matrix("token_embd.weight", 32, HIDDEN);
        for (name, rows, columns) in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", HIDDEN / 2, HIDDEN),
            ("attn_v", HIDDEN / 2, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", 96, HIDDEN),
            ("ffn_up", 96, HIDDEN),
            ("ffn_down", HIDDEN, 96),
        ] {
            matrix(&format!("blk.0.{name}.weight"), rows, columns);
        }
        for name in ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"] {
            tensors.insert(name.to_string(), vector(&[1.0; HIDDEN]));
        }
        let mut metadata: BTreeMap<String, Value> = [
            ("context_length", 64),
            ("embedding_length", HIDDEN as u32),
            ("block_count", 1),
            ("feed_forward_length", 96),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ]
        .map(|(key, value)| (format!("llama.{key}"), Value::U32(value)))
        .into();
        metadata.insert("general.architecture".into(), Value::String("llama".into()));
        metadata.insert("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5));
        change(&mut metadata, &mut tensors);
        let mut out = std::io::Cursor::new(Vec::new());
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        candle_core::quantized::gguf_file::write(&mut out, &metadata, &tensors).unwrap();
        out
    }

    fn vector(values: &[f32]) -> QTensor {
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
    }

    /// The logits after six tokens, by candle and by our own code on each instruction set; they agree.
    fn logits(mut file: std::io::Cursor<Vec<u8>>) -> candle_core::Result<Vec<f32>> {
        let gguf = Header::read(&mut file)?;
        let tokens = [3, 1, 4, 1, 5, 9];
        let mut on_candle =
            load_for_candle(&gguf, &mut file, 32, &Device::Cpu, Precision::Auto, Limit::default())?;
        on_candle.reserve(1, 8)?;
        let piece = Piece { slot: 0, tokens: &tokens, position: 0, last: true };
        let Some(found) = on_candle.pieces(&[piece])? else { panic!("no logits") };
        let found = found.squeeze(0)?;
        if let Some(mut own) = load_for_cpu(&gguf, &mut file, 32)? {
            for isa in Isa::available() {
                own.set_isa(*isa);
                own.reset(8);
                assert_agree(&Tensor::new(own.forward(&tokens, 0)?, &Device::Cpu)?, &found);
            }
        }
        found.to_vec1()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn what_a_file_says_of_positions_is_done() {
        let plain = logits(tiny(|_, _| {})).unwrap();
        let ones = logits(tiny(|_, tensors| {
            tensors.insert("rope_freqs.weight".into(), vector(&[1.0; 16]));
        }));
        assert!(distance(&plain, &ones.unwrap()) < 1e-6);
        let scaled = |kind: &'static str, factor: f32| {
            logits(tiny(move |metadata, _| {
                metadata.insert("llama.rope.scaling.type".into(), Value::String(kind.into()));
                metadata.insert("llama.rope.scaling.factor".into(), Value::F32(factor));
            }))
            .unwrap()
        };
        assert!(distance(&plain, &scaled("linear", 1.0)) < 1e-6);
        assert!(distance(&plain, &scaled("none", 8.0)) < 1e-6);
        let linear = scaled("linear", 8.0);
        assert!(distance(&plain, &linear) > 1e-3 && distance(&linear, &scaled("yarn", 8.0)) > 1e-3);
        // Divisors that are all the same are a linear scaling.
        let same = logits(tiny(|_, tensors| {
            tensors.insert("rope_freqs.weight".into(), vector(&[8.0; 16]));
        }));
        assert!(distance(&linear, &same.unwrap()) < 1e-5);
        // As Llama 3.2 has them: only slow frequencies are divided.
        let some = logits(tiny(|_, tensors| {
            let divisors: Vec<f32> = (0..16).map(|i| if i < 4 { 1.0 } else { 32.0 }).collect();
            tensors.insert("rope_freqs.weight".into(), vector(&divisors));
        }))
        .unwrap();
        assert!(distance(&plain, &some) > 1e-3 && distance(&linear, &some) > 1e-3);
    }

    #[test]
    fn heads_are_as_wide_as_the_file_says() {
        // Two heads of 64 in a network 64 wide.
        let wide = logits(tiny(|metadata, tensors| {
            for key in ["key_length", "value_length"] {
                metadata.insert(format!("llama.attention.{key}"), Value::U32(64));
            }
            for (name, rows, columns) in
                [("attn_q", 128, 64), ("attn_k", 64, 64), ("attn_v", 64, 64), ("attn_output", 64, 128)]
            {
                let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
                let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
                let tensor = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
                tensors.insert(format!("blk.0.{name}.weight"), tensor);
            }
        }));
        assert!(wide.unwrap().iter().all(|logit| logit.is_finite()));
        // The same heads with matrices of another width do not load.
        let narrow = tiny(|metadata, _| {
            metadata.insert("llama.attention.key_length".into(), Value::U32(64));
            metadata.insert("llama.attention.value_length".into(), Value::U32(64));
        });
        assert!(logits(narrow).is_err());
    }

    #[test]
    fn what_would_change_the_computation_is_refused_by_name() {
        let refused =
            |name: &str, change: fn(&mut BTreeMap<String, Value>, &mut BTreeMap<String, QTensor>)| {
                let error = logits(tiny(change)).unwrap_err().to_string();
                assert!(error.contains(name), "{name}: {error}");
            };
        refused("`gemma9`", |m, _| {
            m.insert("general.architecture".into(), Value::String("gemma9".into()));
        });
        refused("`llama.attn_logit_softcapping`", |m, _| {
            m.insert("llama.attn_logit_softcapping".into(), Value::F32(50.0));
        });
        refused("`llama.logit_scale`", |m, _| {
            m.insert("llama.logit_scale".into(), Value::F32(8.0));
        });
        refused("values 16", |m, _| {
            m.insert("llama.attention.value_length".into(), Value::U32(16));
        });
        refused("34 of a head's 32", |m, _| {
            m.insert("llama.rope.dimension_count".into(), Value::U32(34));
        });
        refused("`su`", |m, _| {
            m.insert("llama.rope.scaling.type".into(), Value::String("su".into()));
        });
        refused("9 of 8 experts", |m, _| {
            m.insert("llama.expert_count".into(), Value::U32(8));
            m.insert("llama.expert_used_count".into(), Value::U32(9));
        });
        refused("_exps.0.weight", |m, _| {
            m.insert("llama.expert_count".into(), Value::U32(8));
            m.insert("llama.expert_used_count".into(), Value::U32(2));
        });
        refused("head_count_kv", |m, _| {
            m.insert("llama.attention.head_count_kv".into(), Value::Array(vec![Value::U32(1); 1]));
        });
        refused("join them", |m, _| {
            m.insert("split.count".into(), Value::U16(2));
        });
        refused("`blk.0.attn_q_norm.weight`", |_, t| {
            t.insert("blk.0.attn_q_norm.weight".into(), vector(&[1.0; 32]));
        });
        refused("`blk.1.attn_norm.weight`", |_, t| {
            t.insert("blk.1.attn_norm.weight".into(), vector(&[1.0; 64]));
        });
        refused("8 divisors for 16", |_, t| {
            t.insert("rope_freqs.weight".into(), vector(&[1.0; 8]));
        });
        refused("not positive", |_, t| {
            t.insert("rope_freqs.weight".into(), vector(&[0.0; 16]));
        });
        refused("longrope", |_, t| {
            t.insert("rope_factors_long.weight".into(), vector(&[1.0; 16]));
        });
        refused("twice", |m, t| {
            m.insert("llama.rope.scaling.type".into(), Value::String("yarn".into()));
            t.insert("rope_freqs.weight".into(), vector(&[1.0; 16]));
        });
        refused("sees ahead", |m, _| {
            m.insert("llama.attention.causal".into(), Value::Bool(false));
        });
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
        let gguf = Header::read(&mut file).unwrap();
        let mut on_candle = [Precision::Auto, Precision::F32].map(|precision| {
            load_for_candle(&gguf, &mut file, 64, &device, precision, Limit::default()).unwrap()
        });
        let mut own = load_for_cpu(&gguf, &mut file, 64).unwrap().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let theirs = gguf_file::Content::read(&mut file).unwrap();
        let mut theirs = quantized_llama::ModelWeights::from_gguf(theirs, &mut file, &device).unwrap();
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
