//! Decoders of the Llama family out of a folder as Hugging Face's libraries write it: `config.json` and safetensors files.

use super::{
    candle_decoder::{CandleDecoder, Network, Rope, Weight},
    device::{Numbers, Precision},
};
use candle_core::{safetensors::MmapedSafetensors, Device};
use serde::Deserialize;
use serde_json::Value as Json;
use std::{f32::consts::TAU, path::PathBuf};

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
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default)]
    use_sliding_window: bool,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeParameters>,
    /// Where transformers 5 has both.
    rope_parameters: Option<RopeParameters>,
}

#[derive(Debug, Clone, Deserialize)]
struct RopeParameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

impl Config {
    fn rope(&self) -> Option<&RopeParameters> {
        self.rope_parameters.as_ref().or(self.rope_scaling.as_ref())
    }

    /// Radians per position of each pair of components of a head of `dim`.
    fn frequencies(&self, dim: usize) -> candle_core::Result<Vec<f32>> {
        let base = self.rope().and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let plain = (0..dim).step_by(2).map(|i| base.powf(i as f32 / dim as f32).recip());
        let Some(rope) = self.rope() else { return Ok(plain.collect()) };
        match rope.rope_type.as_deref() {
            None | Some("default") => Ok(plain.collect()),
            Some("llama3") => {
                let (Some(factor), Some(low), Some(high), Some(trained)) = (
                    rope.factor,
                    rope.low_freq_factor,
                    rope.high_freq_factor,
                    rope.original_max_position_embeddings,
                ) else {
                    candle_core::bail!(
                        "config.json: the llama3 scaling of rotary embeddings lacks one of its numbers"
                    )
                };
                // transformers' modeling_rope_utils.py: long waves are stretched, short ones are not, between them both.
                Ok(plain
                    .map(|frequency| {
                        let turns = trained * frequency / TAU;
                        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    })
                    .collect())
            }
            Some(other) => {
                candle_core::bail!("config.json: `{other}` scaling of rotary embeddings is not supported")
            }
        }
    }

    fn network(&self, context: usize) -> candle_core::Result<Network> {
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if heads == 0
            || kv_heads == 0
            || !heads.is_multiple_of(kv_heads)
            || !self.hidden_size.is_multiple_of(heads)
        {
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
        if self.use_sliding_window {
            candle_core::bail!("config.json: sliding windows of attention are not supported")
        }
        if let Some(other) = self.hidden_act.as_deref().filter(|name| *name != "silu") {
            candle_core::bail!("config.json: the activation `{other}` is not supported")
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        Ok(Network {
            rope: Rope::Halves,
            frequencies: self.frequencies(head_dim)?,
            layers: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            epsilon: self.rms_norm_eps,
        })
    }
}

/// Loads `files` by what `config` says, which must be of a model of type `model_type`.
///
/// # Errors
/// When the files cannot be read, do not fit together, or ask for what there is no code for.
pub(crate) fn load(
    config: &[u8],
    model_type: &str,
    files: &[PathBuf],
    context: usize,
    device: &Device,
    precision: Precision,
) -> candle_core::Result<CandleDecoder> {
    let bad = |e: serde_json::Error| candle_core::Error::Msg(format!("config.json: {e}"));
    let json: Json = serde_json::from_slice(config).map_err(bad)?;
    let config: Config = serde_json::from_value(json).map_err(bad)?;
    if config.model_type != model_type {
        candle_core::bail!("config.json is of a `{}`, the manifest says {model_type}", config.model_type)
    }
    // SAFETY: mapping a file is sound as long as nobody changes it meanwhile. Model files are written once, beside their
    // place, and renamed into it; nothing here or in the installer opens an installed file for writing.
    let weights = unsafe { MmapedSafetensors::multi(files) }?;
    let numbers = Numbers::new(precision, device);
    CandleDecoder::new(config.network(context)?, numbers, context, device, |name| {
        let Some(name) = hugging_face_name(name, config.tie_word_embeddings) else { return Ok(None) };
        match weights.get(&name) {
            Ok(_) => weights.load(&name, device).map(|tensor| Some(Weight::Dense(tensor))),
            Err(_) => Ok(None),
        }
    })
}

/// What Hugging Face's libraries call a tensor that GGUF files call `name`.
fn hugging_face_name(name: &str, tied: bool) -> Option<String> {
    let name = match name {
        "token_embd.weight" => "model.embed_tokens.weight".to_string(),
        "output_norm.weight" => "model.norm.weight".to_string(),
        "output.weight" if tied => return None,
        "output.weight" => "lm_head.weight".to_string(),
        _ => {
            let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
            let (module, kind) = rest.rsplit_once('.')?;
            let module = match module {
                "attn_norm" => "input_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_norm" => "post_attention_layernorm",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            format!("model.layers.{layer}.{module}.{kind}")
        }
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{super::candle_decoder::Piece, *};
    use candle_core::{DType, Tensor};
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
        load(&config, model_type, &files, CONTEXT, &Device::Cpu, precision).unwrap()
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
            match load(&config, "qwen2", &files, CONTEXT, &Device::Cpu, Precision::Auto) {
                Ok(_) => panic!("{key} was accepted"),
                Err(error) => error.to_string(),
            }
        };
        assert!(refused("use_sliding_window", true.into()).contains("sliding windows"));
        assert!(
            refused("rope_scaling", serde_json::json!({ "type": "yarn", "factor": 4.0 })).contains("`yarn`")
        );
        assert!(
            refused("rope_parameters", serde_json::json!({ "rope_type": "longrope" })).contains("`longrope`")
        );
        assert!(refused("hidden_act", "gelu".into()).contains("`gelu`"));
        assert!(refused("model_type", "llama".into()).contains("`llama`"));
        assert!(refused("max_position_embeddings", 128.into()).contains("128"));
    }
}
