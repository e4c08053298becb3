//! Decoders out of a folder as Hugging Face's libraries write it: `config.json` and safetensors files.
//!
//! What the configuration says and nothing here does is refused by name: to pass over it would give other answers.

use super::{
    candle_decoder::{Bend, CandleDecoder, Experts, Local, Network, Positions, Rope, Weight},
    device::{Numbers, Precision},
    rope::{self, Scaling},
};
use candle_core::{safetensors::MmapedSafetensors, DType, Device};
use serde::Deserialize;
use serde_json::Value as Json;
use std::{collections::BTreeSet, path::PathBuf};

/// The types of models that there is code for.
const MODEL_TYPES: [&str; 9] =
    ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3"];

/// What of `config.json` the computation depends on.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f32,
    max_position_embeddings: usize,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    /// What Gemma calls it.
    hidden_activation: Option<String>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    query_pre_attn_scalar: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    partial_rotary_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    num_experts: Option<usize>,
    /// What Mixtral calls it.
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    norm_topk_prob: Option<bool>,
    mlp_only_layers: Option<Vec<usize>>,
    decoder_sparse_step: Option<usize>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<RopeParameters>,
    /// Where transformers 5 has both; of networks with two kinds of layers one for each kind.
    rope_parameters: Option<Json>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    /// What it was called first.
    r#type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    partial_rotary_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    attention_factor: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
}

const EVERYWHERE: &str = "full_attention";
const NEARBY: &str = "sliding_attention";

impl Config {
    /// How positions turn, of layers of this kind.
    fn rope(&self, kind: &str) -> candle_core::Result<RopeParameters> {
        let bad =
            |e: serde_json::Error| candle_core::Error::Msg(format!("config.json: rope_parameters: {e}"));
        let mut rope = match &self.rope_parameters {
            Some(all) if all.is_object() => {
                let own = Some(&all[kind]).filter(|own| own.is_object()).unwrap_or(all);
                serde_json::from_value(own.clone()).map_err(bad)?
            }
            _ => match &self.rope_scaling {
                // Gemma's scaling was of the layers that see everything.
                Some(scaling) if kind == EVERYWHERE || !self.is_gemma() => scaling.clone(),
                _ => RopeParameters::default(),
            },
        };
        if rope.rope_theta.is_none() {
            let local = self.rope_local_base_freq.filter(|_| kind == NEARBY);
            rope.rope_theta = local.or(self.rope_theta);
        }
        Ok(rope)
    }

    /// Radians per position of each pair of components of a head of `dim`, used for up to `context` tokens.
    fn positions(&self, kind: &str, dim: usize, context: usize) -> candle_core::Result<Positions> {
        let rope = self.rope(kind)?;
        let base = rope.rope_theta.unwrap_or(10_000.0);
        let partial = rope.partial_rotary_factor.or(self.partial_rotary_factor).unwrap_or(1.0);
        let turning = (dim as f32 * partial) as usize;
        if !(partial > 0.0 && partial <= 1.0) || turning == 0 || !turning.is_multiple_of(2) {
            candle_core::bail!(
                "config.json: partial_rotary_factor {partial} of heads of {dim} is not supported"
            )
        }
        let trained = self.max_position_embeddings as f32;
        let original = rope.original_max_position_embeddings.or(self.original_max_position_embeddings);
        let need = |value: Option<f32>, name: &str| match value {
            Some(value) => Ok(value),
            None => candle_core::bail!("config.json: the scaling of rotary embeddings lacks `{name}`"),
        };
        let scaling = match rope.rope_type.as_deref().or(rope.r#type.as_deref()) {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear(need(rope.factor, "factor")?),
            Some("llama3") => Scaling::llama3(
                turning,
                base,
                need(rope.factor, "factor")?,
                need(rope.low_freq_factor, "low_freq_factor")?,
                need(rope.high_freq_factor, "high_freq_factor")?,
                need(original, "original_max_position_embeddings")?,
            ),
            Some("yarn") => {
                if rope.mscale.is_some() || rope.mscale_all_dim.is_some() {
                    candle_core::bail!("config.json: yarn scaling with `mscale` is not supported")
                }
                let original = original.unwrap_or(trained);
                Scaling::Yarn {
                    factor: rope.factor.unwrap_or(trained / original),
                    original,
                    beta_fast: rope.beta_fast.unwrap_or(32.0),
                    beta_slow: rope.beta_slow.unwrap_or(1.0),
                    attention: rope.attention_factor,
                    truncate: rope.truncate.unwrap_or(true),
                }
            }
            Some("longrope" | "su") => {
                let original = need(original, "original_max_position_embeddings")?;
                let long = context as f32 > original;
                let divisors = if long { &rope.long_factor } else { &rope.short_factor };
                let Some(divisors) = divisors else {
                    candle_core::bail!(
                        "config.json: the longrope scaling of rotary embeddings lacks its factors"
                    )
                };
                let own = rope.attention_factor;
                let magnitude = own.unwrap_or_else(|| Scaling::long_magnitude(original, trained));
                Scaling::Divisors { divisors: divisors.clone(), magnitude }
            }
            Some(other) => {
                candle_core::bail!("config.json: `{other}` scaling of rotary embeddings is not supported")
            }
        };
        let (frequencies, magnitude) = rope::scaled(turning, base, &scaling).map_err(|reason| {
            candle_core::Error::Msg(format!("config.json: the rotary embedding has {reason}"))
        })?;
        Ok(Positions { frequencies, magnitude })
    }

    /// Which layers see the last tokens only, and how many of them.
    fn windows(&self) -> candle_core::Result<Option<(usize, Vec<bool>)>> {
        let layers = self.num_hidden_layers;
        let Some(window) = self.sliding_window.filter(|window| *window > 0) else { return Ok(None) };
        let by_switch = matches!(self.model_type.as_str(), "qwen2" | "qwen3" | "qwen3_moe");
        if by_switch && self.use_sliding_window != Some(true) {
            return Ok(None);
        }
        let local: Vec<bool> = match (&self.layer_types, self.model_type.as_str()) {
            (Some(types), _) => {
                let mut local = Vec::with_capacity(types.len());
                for kind in types {
                    local.push(match kind.as_str() {
                        NEARBY => true,
                        EVERYWHERE => false,
                        other => {
                            candle_core::bail!("config.json: layers of type `{other}` are not supported")
                        }
                    });
                }
                local
            }
            (None, "gemma2") => (0..layers).map(|layer| layer % 2 == 0).collect(),
            (None, "gemma3_text") => {
                let pattern = self.sliding_window_pattern.unwrap_or(6).max(1);
                (0..layers).map(|layer| (layer + 1) % pattern != 0).collect()
            }
            (None, "mistral" | "mixtral" | "phi3") => vec![true; layers],
            (None, _) if by_switch => {
                candle_core::bail!("config.json: `use_sliding_window` without `layer_types` is not supported")
            }
            (None, _) => return Ok(None),
        };
        Ok(local.contains(&true).then_some((window, local)))
    }

    fn network(&self, context: usize) -> candle_core::Result<Network> {
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            candle_core::bail!(
                "config.json: {heads} heads, {kv_heads} for keys, {} wide: these do not fit together",
                self.hidden_size
            )
        }
        if context > self.max_position_embeddings {
            candle_core::bail!(
                "the manifest gives it {context} tokens of context, it was trained for {}",
                self.max_position_embeddings
            )
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            candle_core::bail!("config.json: heads are {head_dim} wide: an even number is needed")
        }
        let mut network = Network::plain(
            Rope::Halves,
            self.positions(EVERYWHERE, head_dim, context)?,
            self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            self.rms_norm_eps,
        );
        if let Some((window, layers)) = self.windows()? {
            let positions = Some(self.positions(NEARBY, head_dim, context)?);
            network.local = Some(Local { window, layers, positions });
        }
        network.bend = match self.hidden_activation.as_deref().or(self.hidden_act.as_deref()) {
            None | Some("silu") => Bend::Silu,
            Some("gelu_pytorch_tanh" | "gelu_new") => Bend::GeluTanh,
            Some(other) => candle_core::bail!("config.json: the activation `{other}` is not supported"),
        };
        if let Some(scalar) = self.query_pre_attn_scalar {
            network.score_scale = scalar.powf(-0.5);
        }
        network.score_cap = self.attn_logit_softcapping;
        network.logit_cap = self.final_logit_softcapping;
        if self.is_gemma() {
            network.embedding_scale = (self.hidden_size as f32).sqrt();
        }
        if let Some(count) = self.num_experts.or(self.num_local_experts).filter(|count| *count > 0) {
            let others = self.mlp_only_layers.as_ref().is_some_and(|layers| !layers.is_empty());
            if others || self.decoder_sparse_step.is_some_and(|step| step != 1) {
                candle_core::bail!(
                    "config.json: layers without experts among others with them are not supported"
                )
            }
            let used = self.num_experts_per_tok.unwrap_or(2);
            if used == 0 || used > count {
                candle_core::bail!(
                    "config.json: {used} of {count} experts are used: these do not fit together"
                )
            }
            let normalise = self.norm_topk_prob.unwrap_or(self.model_type == "mixtral");
            network.experts = Some(Experts { count, used, normalise });
        }
        Ok(network)
    }

    fn is_gemma(&self) -> bool {
        self.model_type.starts_with("gemma")
    }

    /// Whether the token table is also the output matrix.
    fn is_tied(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(self.is_gemma())
    }
}

/// Loads `files` by what `config` says; it must be of a model of type `model_type`, where one is given.
///
/// # Errors
/// When the files cannot be read, do not fit together, or ask for what there is no code for.
pub(crate) fn load(
    config: &[u8],
    model_type: Option<&str>,
    files: &[PathBuf],
    context: usize,
    device: &Device,
    precision: Precision,
) -> candle_core::Result<CandleDecoder> {
    let bad = |e: serde_json::Error| candle_core::Error::Msg(format!("config.json: {e}"));
    let json: Json = serde_json::from_slice(config).map_err(bad)?;
    let found = json["model_type"].as_str().unwrap_or_default().to_string();
    if let Some(expected) = model_type.filter(|expected| *expected != found) {
        candle_core::bail!("config.json is of a `{found}`, the manifest says {expected}")
    }
    if !MODEL_TYPES.contains(&found.as_str()) {
        candle_core::bail!("config.json is of a `{found}`; supported are {}", MODEL_TYPES.join(", "))
    }
    if !json["quantization_config"].is_null() {
        candle_core::bail!(
            "config.json: the weights are quantised (`{}`), which is not supported in safetensors files: take a GGUF file",
            json["quantization_config"]["quant_method"].as_str().unwrap_or("quantization_config")
        )
    }
    let config: Config = serde_json::from_value(json).map_err(bad)?;
    // SAFETY: mapping a file is sound as long as nobody changes it meanwhile. Model files are written once, beside their
    // place, and renamed into it; nothing here or in the installer opens an installed file for writing.
    let weights = unsafe { MmapedSafetensors::multi(files) }?;
    let mut unused: BTreeSet<String> = weights.tensors().into_iter().map(|(name, _)| name).collect();
    let numbers = Numbers::new(precision, device);
    let (names, gemma) = (Names::of(&config), config.is_gemma());
    let decoder = CandleDecoder::new(config.network(context)?, numbers, context, device, |name| {
        let Some((name, part)) = names.find(name, |name| weights.get(name).is_ok()) else { return Ok(None) };
        unused.remove(&name);
        let mut tensor = weights.load(&name, device)?;
        if let Some((number, half)) = part {
            tensor = tensor.get(number)?;
            if let Some(half) = half {
                // Gate and up, one below the other.
                let rows = tensor.dim(0)? / 2;
                tensor = tensor.narrow(0, half * rows, rows)?;
            }
            tensor = tensor.contiguous()?;
        }
        if gemma && name.ends_with("norm.weight") {
            // Gemma's norms multiply by 1 + w.
            tensor = (tensor.to_dtype(DType::F32)? + 1.0)?;
        }
        Ok(Some(Weight::Dense(tensor)))
    })?;
    if config.is_tied() {
        unused.remove("lm_head.weight");
    }
    // Old files keep what can be computed.
    unused.retain(|name| !name.ends_with("rotary_emb.inv_freq"));
    if let Some(first) = unused.first() {
        candle_core::bail!(
            "the files have {} tensors that are not supported, such as `{first}`: to pass over them would give other answers",
            unused.len()
        )
    }
    Ok(decoder)
}

/// What Hugging Face's libraries call tensors.
struct Names {
    tied: bool,
    gemma: bool,
    mixtral: bool,
    phi: bool,
}

/// Which expert's matrix of several, and which half of it.
type Part = Option<(usize, Option<usize>)>;

impl Names {
    fn of(config: &Config) -> Self {
        Self {
            tied: config.is_tied(),
            gemma: config.is_gemma(),
            mixtral: config.model_type == "mixtral",
            phi: config.model_type == "phi3",
        }
    }

    /// The name of a tensor that GGUF files call `name`, and of experts that lie in one tensor the part of it; `None` where
    /// there is none.
    fn find(&self, name: &str, has: impl Fn(&str) -> bool) -> Option<(String, Part)> {
        let found = match name {
            "token_embd.weight" => "model.embed_tokens.weight".to_string(),
            "output_norm.weight" => "model.norm.weight".to_string(),
            "output.weight" if self.tied => return None,
            "output.weight" => "lm_head.weight".to_string(),
            _ => {
                let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
                if let Some((matrix, rest)) = rest.split_once("_exps.") {
                    return self.expert(layer, matrix, rest, has);
                }
                let (module, kind) = rest.rsplit_once('.')?;
                let module = match module {
                    "attn_norm" => "input_layernorm",
                    "attn_q" => "self_attn.q_proj",
                    "attn_k" => "self_attn.k_proj",
                    "attn_v" => "self_attn.v_proj",
                    "attn_qkv" => "self_attn.qkv_proj",
                    "attn_q_norm" => "self_attn.q_norm",
                    "attn_k_norm" => "self_attn.k_norm",
                    "attn_output" => "self_attn.o_proj",
                    "ffn_norm" if self.gemma => "pre_feedforward_layernorm",
                    "ffn_norm" => "post_attention_layernorm",
                    "post_attention_norm" if self.gemma => "post_attention_layernorm",
                    "post_ffw_norm" if self.gemma => "post_feedforward_layernorm",
                    "ffn_gate_inp" if has(&format!("model.layers.{layer}.mlp.gate.weight")) => "mlp.gate",
                    "ffn_gate_inp" => "block_sparse_moe.gate",
                    "ffn_gate" => "mlp.gate_proj",
                    // Phi's gate and up are one matrix.
                    "ffn_up" if self.phi => "mlp.gate_up_proj",
                    "ffn_up" => "mlp.up_proj",
                    "ffn_down" => "mlp.down_proj",
                    _ => return None,
                };
                format!("model.layers.{layer}.{module}.{kind}")
            }
        };
        has(&found).then_some((found, None))
    }

    /// Experts: one tensor each, or all of a layer in one.
    fn expert(
        &self,
        layer: &str,
        matrix: &str,
        rest: &str,
        has: impl Fn(&str) -> bool,
    ) -> Option<(String, Part)> {
        let number = rest.strip_suffix(".weight")?;
        let module = format!("model.layers.{layer}.mlp.experts");
        let (joined, half) = match matrix {
            "ffn_gate" => ("gate_up_proj", Some(0)),
            "ffn_up" => ("gate_up_proj", Some(1)),
            _ => ("down_proj", None),
        };
        let joined = format!("{module}.{joined}");
        if has(&joined) {
            return Some((joined, Some((number.parse().ok()?, half))));
        }
        let own = match (matrix, self.mixtral) {
            ("ffn_gate", false) => "gate_proj",
            ("ffn_up", false) => "up_proj",
            ("ffn_down", false) => "down_proj",
            ("ffn_gate", true) => "w1",
            ("ffn_up", true) => "w3",
            ("ffn_down", true) => "w2",
            _ => return None,
        };
        let old = format!("model.layers.{layer}.block_sparse_moe.experts.{number}.{own}.weight");
        let new = format!("{module}.{number}.{own}.weight");
        [new, old].into_iter().find(|name| has(name)).map(|name| (name, None))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::candle_decoder::Piece, *};
    use candle_core::Tensor;
    use candle_nn::{VarBuilder, VarMap};
    use candle_transformers::models::{llama, qwen2};

    const VOCABULARY: usize = 97;
    const CONTEXT: usize = 700;

    fn config(model_type: &str) -> Json {
        serde_json::json!({
            "model_type": model_type, "hidden_size": 64, "intermediate_size": 160, "vocab_size": VOCABULARY,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": false, "hidden_act": "silu",
            "sliding_window": 4096, "max_window_layers": 0, "use_sliding_window": false,
        })
    }

    /// The logits that a prompt and one more token give.
    type Reference = Box<dyn FnMut(&[u32]) -> Tensor>;

    /// A model with random weights in a folder, and candle-transformers' logits of every token of a text.
    fn random(model_type: &str, config: &Json, folder: &std::path::Path) -> Reference {
        let weights = VarMap::new();
        let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let reference: Reference = if model_type == "llama" {
            let config: llama::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
            let config = config.into_config(false);
            let model = llama::Llama::load(builder, &config).unwrap();
            Box::new(move |tokens| {
                let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
                let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                model.forward(&input, 0, &mut cache).unwrap().flatten_all().unwrap()
            })
        } else {
            let config: qwen2::Config = serde_json::from_value(config.clone()).unwrap();
            let mut model = qwen2::ModelForCausalLM::new(&config, builder).unwrap();
            Box::new(move |tokens| {
                model.clear_kv_cache();
                let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                model.forward(&input, 0).unwrap().flatten_all().unwrap()
            })
        };
        // The initial values of norms and biases are ones and zeros: as if they were not there.
        for (index, var) in weights.data().lock().unwrap().values().enumerate() {
            let noise = Tensor::randn(0f32, 0.05, var.shape(), &Device::Cpu).unwrap();
            let grown = if var.rank() == 1 {
                (var.as_tensor() + noise).unwrap()
            } else {
                (noise * (2.0 + (index % 3) as f64)).unwrap()
            };
            var.set(&grown).unwrap();
        }
        weights.save(folder.join("model.safetensors")).unwrap();
        reference
    }

    fn open(
        config: &Json,
        model_type: &str,
        folder: &std::path::Path,
        precision: Precision,
    ) -> CandleDecoder {
        let files = [folder.join("model.safetensors")];
        let config = serde_json::to_vec(config).unwrap();
        load(&config, Some(model_type), &files, CONTEXT, &Device::Cpu, precision).unwrap()
    }

    fn see(model: &mut CandleDecoder, slot: usize, tokens: &[u32], position: usize) -> Tensor {
        let piece = Piece { slot, tokens, position, last: true };
        model.pieces(&[piece]).unwrap().unwrap().squeeze(0).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    fn text(length: usize, seed: usize) -> Vec<u32> {
        (0..length).map(|i| ((i * 31 + seed * 17 + i * i % 7) % VOCABULARY) as u32).collect()
    }

    /// Also past the 512th token, which was an error on GPUs for Qwen2.
    #[test]
    fn agrees_with_candle_transformers() {
        let scaled = serde_json::json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        });
        for (model_type, scaling) in [("llama", None), ("qwen2", None), ("llama", Some(scaled))] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = config(model_type);
            if let Some(scaling) = scaling {
                config["rope_scaling"] = scaling;
            }
            let mut reference = random(model_type, &config, folder.path());
            let mut ours = open(&config, model_type, folder.path(), Precision::Auto);
            let tokens = text(640, 1);
            ours.reserve(1, 641).unwrap();
            see(&mut ours, 0, &tokens[..256], 0);
            see(&mut ours, 0, &tokens[256..512], 256);
            let logits = see(&mut ours, 0, &tokens[512..], 512);
            let expected = reference(&tokens);
            assert!(
                difference(&logits, &expected) < 1e-3,
                "{model_type}: {}",
                difference(&logits, &expected)
            );
            assert!(
                difference(&expected, &expected.mean_all().unwrap().broadcast_as(VOCABULARY).unwrap()) > 0.1
            );
        }
    }

    /// Sequences of different lengths beside each other give what each gives alone; slots may move meanwhile.
    #[test]
    fn sequences_in_one_batch_do_not_see_each_other() {
        for model_type in ["llama", "qwen2"] {
            let folder = tempfile::tempdir().unwrap();
            let config = config(model_type);
            let mut reference = random(model_type, &config, folder.path());
            let mut ours = open(&config, model_type, folder.path(), Precision::Auto);
            let mut sequences = [text(5, 2), text(300, 3), text(64, 4)];
            for (slot, sequence) in sequences.iter().enumerate() {
                // The cache grows in both directions while it holds something.
                ours.reserve(slot + 1, sequence.len() + 8).unwrap();
                let logits = see(&mut ours, slot, sequence, 0);
                assert!(difference(&logits, &reference(sequence)) < 1e-3);
            }
            let step = |ours: &mut CandleDecoder, sequences: &mut [Vec<u32>], next: u32| {
                let next: Vec<u32> =
                    (0..sequences.len() as u32).map(|i| (next + i * 7) % VOCABULARY as u32).collect();
                let positions: Vec<usize> = sequences.iter().map(Vec::len).collect();
                let logits = ours.step(&next, &positions).unwrap();
                for (slot, sequence) in sequences.iter_mut().enumerate() {
                    sequence.push(next[slot]);
                    let expected = reference(sequence);
                    let logits = logits.get(slot).unwrap();
                    assert!(difference(&logits, &expected) < 1e-3, "{model_type} slot {slot}");
                    let best =
                        super::super::candle_decoder::likeliest(&logits.unsqueeze(0).unwrap()).unwrap();
                    assert_eq!(best, [Some(expected.argmax(0).unwrap().to_scalar::<u32>().unwrap())]);
                }
            };
            let mut step = step;
            step(&mut ours, &mut sequences, 11);
            step(&mut ours, &mut sequences, 12);
            // The first ends; the last takes its place.
            ours.move_slot(2, 0).unwrap();
            let [_, second, third] = sequences;
            let mut sequences = [third, second];
            step(&mut ours, &mut sequences, 13);
            step(&mut ours, &mut sequences, 14);
            assert!(ours.step(&[1], &[CONTEXT]).is_err(), "there is no room");
            // Pieces of several prompts at once, one of them the rest of a prompt, one with nobody waiting for its logits.
            let (whole, rest, more) = (text(9, 6), text(40, 7), text(12, 8));
            see(&mut ours, 1, &rest[..25], 0);
            let pieces = [
                Piece { slot: 0, tokens: &whole, position: 0, last: true },
                Piece { slot: 1, tokens: &rest[25..], position: 25, last: true },
                Piece { slot: 2, tokens: &more[..11], position: 0, last: false },
            ];
            let logits = ours.pieces(&pieces).unwrap().unwrap();
            assert_eq!(logits.dims(), [2, VOCABULARY]);
            assert!(difference(&logits.get(0).unwrap(), &reference(&whole)) < 1e-3);
            assert!(difference(&logits.get(1).unwrap(), &reference(&rest)) < 1e-3);
            assert!(difference(&see(&mut ours, 2, &more[11..], 11), &reference(&more)) < 1e-3);
            ours.release();
            assert!(ours.step(&[1], &[0]).is_err(), "there is no room at all");
        }
    }

    #[test]
    fn sixteen_bits_are_near_thirty_two() {
        let folder = tempfile::tempdir().unwrap();
        let config = config("qwen2");
        let mut reference = random("qwen2", &config, folder.path());
        let tokens = text(100, 5);
        let expected = reference(&tokens);
        for (precision, limit) in [(Precision::F16, 0.02), (Precision::Bf16, 0.15)] {
            let mut ours = open(&config, "qwen2", folder.path(), precision);
            ours.reserve(1, 100).unwrap();
            let logits = see(&mut ours, 0, &tokens, 0);
            assert!(
                difference(&logits, &expected) < limit,
                "{precision}: {}",
                difference(&logits, &expected)
            );
        }
    }

    #[test]
    fn what_changes_the_computation_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let plain = config("qwen2");
        drop(random("qwen2", &plain, folder.path()));
        let refused = |key: &str, value: Json| {
            let mut config = config("qwen2");
            config[key] = value;
            let files = [folder.path().join("model.safetensors")];
            let config = serde_json::to_vec(&config).unwrap();
            match load(&config, Some("qwen2"), &files, CONTEXT, &Device::Cpu, Precision::Auto) {
                Ok(_) => panic!("{key} was accepted"),
                Err(error) => error.to_string(),
            }
        };
        let dynamic = serde_json::json!({ "type": "dynamic", "factor": 4.0 });
        assert!(refused("rope_scaling", dynamic).contains("`dynamic`"));
        let mscale = serde_json::json!({ "type": "yarn", "factor": 4.0, "mscale": 0.7 });
        assert!(refused("rope_scaling", mscale).contains("`mscale`"));
        assert!(
            refused("quantization_config", serde_json::json!({ "quant_method": "gptq" })).contains("`gptq`")
        );
        assert!(refused("rope_parameters", serde_json::json!({ "rope_type": "longrope" }))
            .contains("original_max_position_embeddings"));
        assert!(refused("hidden_act", "gelu".into()).contains("`gelu`"));
        assert!(refused("model_type", "llama".into()).contains("`llama`"));
        assert!(refused("max_position_embeddings", 128.into()).contains("128"));
    }
}
