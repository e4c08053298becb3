//! Models with random weights, as files: every architecture and format that the engine loads, in any size.

use candle_core::{
    quantized::{
        gguf_file::{self, Value as Meta},
        GgmlDType, QTensor,
    },
    DType, Device, Tensor,
};
use poq_inference::{Error, Manifest, ModelStore};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Read},
    path::{Path, PathBuf},
};

/// What ends an answer.
const END: &str = "<|endoftext|>";

/// The first words of an encoder's vocabulary.
const CONTROL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A decoder's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecoderShape {
    /// `llama` or `qwen2`.
    pub(crate) model_type: &'static str,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) feed: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
}

impl DecoderShape {
    pub(crate) fn json(&self) -> Value {
        json!({
            "model_type": self.model_type, "layers": self.layers, "hidden": self.hidden, "heads": self.heads,
            "kv_heads": self.kv_heads, "feed": self.feed, "vocabulary": self.vocabulary, "context": self.context,
            "parameters": self.parameters(),
        })
    }

    fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    fn parameters(&self) -> usize {
        let keys = self.kv_heads * self.head_dim();
        let layer = 2 * self.hidden * self.hidden + 2 * self.hidden * keys + 3 * self.hidden * self.feed;
        self.layers * layer + 2 * self.vocabulary * self.hidden
    }

    fn has_bias(&self) -> bool {
        self.model_type == "qwen2"
    }
}

/// An encoder's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderShape {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
    /// Whether it scores pairs.
    pub(crate) cross: bool,
    /// `mean` or `cls`.
    pub(crate) pooling: &'static str,
}

impl EncoderShape {
    pub(crate) fn json(&self) -> Value {
        json!({
            "model_type": "bert", "layers": self.layers, "hidden": self.hidden, "heads": self.heads,
            "vocabulary": self.vocabulary, "pooling": self.pooling, "cross": self.cross,
        })
    }
}

/// Tensors by their Hugging Face names.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// A folder that is being filled with models.
pub(crate) struct Maker {
    dir: PathBuf,
    device: Device,
    manifest: String,
}

fn failed(what: impl std::fmt::Display) -> impl Fn(candle_core::Error) -> Error {
    move |error| Error::Install(format!("{what}: {error}"))
}

/// Numbers around `mean`.
fn random(
    mean: f64,
    deviation: f64,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let tensor = Tensor::randn(mean as f32, deviation as f32, shape, device)?;
    tensor.to_dtype(dtype)?.to_device(&Device::Cpu)
}

impl Maker {
    /// Random numbers are drawn on `device`.
    pub(crate) fn new(dir: &Path, device: Device) -> Self {
        Self { dir: dir.to_path_buf(), device, manifest: String::new() }
    }

    /// What was made, to load from.
    pub(crate) fn store(&self) -> Result<ModelStore, Error> {
        let path = self.dir.join("manifest.toml");
        std::fs::write(&path, &self.manifest).map_err(|e| Error::Io { path: path.clone(), source: e })?;
        Ok(ModelStore::new(Manifest::from_path(&path)?, &self.dir))
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.dir.join(name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::Io { path: folder.clone(), source: e })?;
        Ok(folder)
    }

    fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), Error> {
        let path = folder.join(name);
        std::fs::write(&path, value.to_string()).map_err(|e| Error::Io { path: path.clone(), source: e })
    }

    /// Adds the files of a folder to the manifest.
    fn enter(
        &mut self,
        name: &str,
        role: &str,
        architecture: &str,
        context: usize,
        more: &str,
    ) -> Result<(), Error> {
        let folder = self.dir.join(name);
        let entry = &mut self.manifest;
        let _ = write!(
            entry,
            "[[model]]\nname = \"{name}\"\ntitle = \"random weights\"\nrole = \"{role}\"\narchitecture = \"{architecture}\"\n\
             licence = \"Apache-2.0\"\ncontext_tokens = {context}\nmemory_bytes = 0\n{more}"
        );
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>())
            .map_err(|e| Error::Io { path: folder.clone(), source: e })?;
        files.sort();
        for path in files {
            let (size, sha256) = hash(&path).map_err(|e| Error::Io { path: path.clone(), source: e })?;
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let _ = write!(
                entry,
                "[[model.file]]\npath = \"{file}\"\nsize = {size}\nsha256 = \"{sha256}\"\n\
                 source = [{{ kind = \"inline\", content = \"\" }}]\n"
            );
        }
        Ok(())
    }

    /// A decoder's weights. Logits come out with a deviation of about 4, which leaves the likeliest token a lead that rounding
    /// does not take.
    pub(crate) fn decoder_weights(&self, shape: &DecoderShape, dtype: DType) -> Result<Tensors, Error> {
        let make = || -> candle_core::Result<Tensors> {
            let mut tensors = Tensors::new();
            let keys = shape.kv_heads * shape.head_dim();
            let mut add = |name: String, mean: f64, deviation: f64, dims: &[usize]| {
                tensors.insert(name, random(mean, deviation, dims, dtype, &self.device)?);
                candle_core::Result::Ok(())
            };
            let width = |inputs: usize| 1.0 / (inputs as f64).sqrt();
            let hidden = shape.hidden;
            add("model.embed_tokens.weight".into(), 0.0, 1.0, &[shape.vocabulary, hidden])?;
            add("lm_head.weight".into(), 0.0, 4.0 * width(hidden), &[shape.vocabulary, hidden])?;
            add("model.norm.weight".into(), 1.0, 0.1, &[hidden])?;
            for layer in 0..shape.layers {
                let name = |name: &str| format!("model.layers.{layer}.{name}");
                add(name("input_layernorm.weight"), 1.0, 0.1, &[hidden])?;
                add(name("post_attention_layernorm.weight"), 1.0, 0.1, &[hidden])?;
                for (matrix, rows, inputs) in [
                    ("self_attn.q_proj", hidden, hidden),
                    ("self_attn.k_proj", keys, hidden),
                    ("self_attn.v_proj", keys, hidden),
                    ("self_attn.o_proj", hidden, hidden),
                    ("mlp.gate_proj", shape.feed, hidden),
                    ("mlp.up_proj", shape.feed, hidden),
                    ("mlp.down_proj", hidden, shape.feed),
                ] {
                    add(name(&format!("{matrix}.weight")), 0.0, width(inputs), &[rows, inputs])?;
                    let biased = shape.has_bias()
                        && ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&matrix);
                    if biased {
                        add(name(&format!("{matrix}.bias")), 0.0, 0.5, &[rows])?;
                    }
                }
            }
            Ok(tensors)
        };
        make().map_err(failed("random weights"))
    }

    /// A decoder as Hugging Face's libraries store it.
    pub(crate) fn decoder(
        &mut self,
        name: &str,
        shape: &DecoderShape,
        tensors: &Tensors,
    ) -> Result<(), Error> {
        let folder = self.folder(name)?;
        let dtype = tensors.values().next().map_or("float32", |tensor| match tensor.dtype() {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        });
        let mut config = json!({
            "architectures": [if shape.model_type == "llama" { "LlamaForCausalLM" } else { "Qwen2ForCausalLM" }],
            "model_type": shape.model_type, "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
            "intermediate_size": shape.feed, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads, "rms_norm_eps": 1e-6, "max_position_embeddings": shape.context,
            "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": dtype, "bos_token_id": 0, "eos_token_id": 0,
            "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 }, "rope_theta": 10000.0,
        });
        if shape.model_type == "qwen2" {
            config["use_sliding_window"] = json!(false);
            config["sliding_window"] = json!(shape.context);
            config["max_window_layers"] = json!(shape.layers);
        }
        Self::write_json(&folder, "config.json", &config)?;
        let vocabulary: HashMap<String, usize> =
            alphabet().into_iter().enumerate().map(|(id, token)| (token, id)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": [control(0, END)],
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [],
            },
        });
        Self::write_json(&folder, "tokenizer.json", &tokenizer)?;
        let config =
            json!({ "eos_token": END, "bos_token": END, "tokenizer_class": "PreTrainedTokenizerFast" });
        Self::write_json(&folder, "tokenizer_config.json", &config)?;
        let tensors: HashMap<String, Tensor> = tensors.clone().into_iter().collect();
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).map_err(failed(name))?;
        self.enter(name, "generator", "safetensors", shape.context, "")
    }

    /// The same as a GGUF file with matrices of this format.
    pub(crate) fn gguf(
        &mut self,
        name: &str,
        shape: &DecoderShape,
        tensors: &Tensors,
        format: GgmlDType,
    ) -> Result<(), Error> {
        let folder = self.folder(name)?;
        let architecture = shape.model_type;
        let number = |n: usize| Meta::U32(n as u32);
        let mut tokens = alphabet();
        tokens.extend((tokens.len()..shape.vocabulary).map(|id| format!("<{id}>")));
        let types = (0..tokens.len()).map(|id| Meta::I32(if id == 0 { 3 } else { 1 })).collect();
        let key = |key: &str| format!("{architecture}.{key}");
        let metadata: Vec<(String, Meta)> = vec![
            ("general.architecture".into(), Meta::String(architecture.into())),
            (key("block_count"), number(shape.layers)),
            (key("context_length"), number(shape.context)),
            (key("embedding_length"), number(shape.hidden)),
            (key("feed_forward_length"), number(shape.feed)),
            (key("attention.head_count"), number(shape.heads)),
            (key("attention.head_count_kv"), number(shape.kv_heads)),
            (key("attention.layer_norm_rms_epsilon"), Meta::F32(1e-6)),
            (key("rope.freq_base"), Meta::F32(10_000.0)),
            (key("rope.dimension_count"), number(shape.head_dim())),
            (key("vocab_size"), number(shape.vocabulary)),
            ("tokenizer.ggml.model".into(), Meta::String("gpt2".into())),
            ("tokenizer.ggml.pre".into(), Meta::String("qwen2".into())),
            ("tokenizer.ggml.tokens".into(), Meta::Array(tokens.into_iter().map(Meta::String).collect())),
            ("tokenizer.ggml.token_type".into(), Meta::Array(types)),
            // An array must not be empty: this merge is of two bytes' tokens into one that is never asked for.
            ("tokenizer.ggml.merges".into(), Meta::Array(vec![Meta::String("! !".into())])),
            ("tokenizer.ggml.eos_token_id".into(), number(0)),
        ];
        let write = || -> candle_core::Result<()> {
            let mut quantised = Vec::new();
            for (name, tensor) in tensors {
                let tensor = tensor.to_dtype(DType::F32)?;
                let interleaved = shape.model_type == "llama";
                let tensor = match name.rsplit('.').nth(1) {
                    Some("q_proj") if interleaved => interleave(&tensor, shape.heads)?,
                    Some("k_proj") if interleaved => interleave(&tensor, shape.kv_heads)?,
                    _ => tensor,
                };
                let dtype = if tensor.rank() == 2 { format } else { GgmlDType::F32 };
                quantised.push((gguf_name(name), QTensor::quantize(&tensor, dtype)?));
            }
            let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
            let quantised: Vec<_> = quantised.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let mut out = BufWriter::new(File::create(folder.join("model.gguf"))?);
            gguf_file::write(&mut out, &metadata, &quantised)
        };
        write().map_err(failed(name))?;
        self.enter(name, "generator", "gguf", shape.context, "")
    }

    /// A BERT with random weights.
    pub(crate) fn encoder(&mut self, name: &str, shape: &EncoderShape) -> Result<(), Error> {
        let folder = self.folder(name)?;
        let feed = 4 * shape.hidden;
        let mut config = json!({
            "architectures": [if shape.cross { "BertForSequenceClassification" } else { "BertModel" }],
            "model_type": "bert", "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "intermediate_size": feed,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
            "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
            "pad_token_id": 0, "position_embedding_type": "absolute", "use_cache": true,
        });
        if shape.cross {
            config["id2label"] = json!({ "0": "relevance" });
            config["label2id"] = json!({ "relevance": 0 });
        }
        Self::write_json(&folder, "config.json", &config)?;
        let words =
            CONTROL.iter().map(ToString::to_string).chain((CONTROL.len()..shape.vocabulary).map(word));
        let vocabulary: HashMap<String, usize> = words.enumerate().map(|(id, word)| (word, id)).collect();
        let piece = |id: &str, kind: usize| json!({ "SpecialToken": { "id": id, "type_id": kind } });
        let text = |id: &str, kind: usize| json!({ "Sequence": { "id": id, "type_id": kind } });
        let special = |token: &str, id: usize| json!({ "id": token, "ids": [id], "tokens": [token] });
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "decoder": null,
            "added_tokens": CONTROL.iter().enumerate().map(|(id, token)| control(id, token)).collect::<Vec<_>>(),
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": true,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)],
                "pair": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1)],
                "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) },
            },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary,
            },
        });
        Self::write_json(&folder, "tokenizer.json", &tokenizer)?;
        let make = || -> candle_core::Result<HashMap<String, Tensor>> {
            let mut tensors = HashMap::new();
            let mut add = |name: String, mean: f64, deviation: f64, dims: &[usize]| {
                tensors.insert(name, random(mean, deviation, dims, DType::F32, &self.device)?);
                candle_core::Result::Ok(())
            };
            let prefix = if shape.cross { "bert." } else { "" };
            let hidden = shape.hidden;
            for (table, rows) in [("word", shape.vocabulary), ("position", 512), ("token_type", 2)] {
                add(format!("{prefix}embeddings.{table}_embeddings.weight"), 0.0, 0.5, &[rows, hidden])?;
            }
            let mut norms = vec![format!("{prefix}embeddings.LayerNorm")];
            let mut matrices = Vec::new();
            for layer in 0..shape.layers {
                let name = |name: &str| format!("{prefix}encoder.layer.{layer}.{name}");
                norms.extend([name("attention.output.LayerNorm"), name("output.LayerNorm")]);
                for part in ["query", "key", "value"] {
                    matrices.push((name(&format!("attention.self.{part}")), hidden, hidden));
                }
                matrices.push((name("attention.output.dense"), hidden, hidden));
                matrices.push((name("intermediate.dense"), feed, hidden));
                matrices.push((name("output.dense"), hidden, feed));
            }
            if shape.cross {
                matrices.push((format!("{prefix}pooler.dense"), hidden, hidden));
                matrices.push(("classifier".into(), 1, hidden));
            }
            for norm in norms {
                add(format!("{norm}.weight"), 1.0, 0.1, &[hidden])?;
                add(format!("{norm}.bias"), 0.0, 0.1, &[hidden])?;
            }
            for (matrix, rows, inputs) in matrices {
                add(format!("{matrix}.weight"), 0.0, 1.0 / (inputs as f64).sqrt(), &[rows, inputs])?;
                add(format!("{matrix}.bias"), 0.0, 0.1, &[rows])?;
            }
            Ok(tensors)
        };
        let tensors = make().map_err(failed(name))?;
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).map_err(failed(name))?;
        let role = if shape.cross { "cross-encoder" } else { "bi-encoder" };
        self.enter(name, role, "bert", 512, &format!("pooling = \"{}\"\n", shape.pooling))
    }
}

/// An encoder's word by its number.
pub(crate) fn word(id: usize) -> String {
    format!("w{id}")
}

fn control(id: usize, token: &str) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}

/// The end token and the 256 bytes, as byte-level tokenizers spell them.
fn alphabet() -> Vec<String> {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut moved = 256;
    let spelled = (0..256u32).map(|byte| {
        let code = if plain(byte) {
            byte
        } else {
            moved += 1;
            moved - 1
        };
        char::from_u32(code).unwrap_or('?').to_string()
    });
    let mut tokens = vec![END.to_string()];
    tokens.extend(spelled);
    // What the one merge of a GGUF file gives.
    tokens.push("!!".to_string());
    tokens
}

/// Rows as llama's GGUF files have them: what is rotated together lies side by side.
fn interleave(tensor: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, columns) = tensor.dims2()?;
    let half = rows / heads / 2;
    tensor.reshape((heads, 2, half, columns))?.transpose(1, 2)?.reshape((rows, columns))
}

fn gguf_name(name: &str) -> String {
    let replaced = match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_string(),
        "model.norm.weight" => "output_norm.weight".to_string(),
        "lm_head.weight" => "output.weight".to_string(),
        name => name.replace("model.layers.", "blk."),
    };
    [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ]
    .iter()
    .fold(replaced, |name, (from, to)| name.replace(from, to))
}

fn hash(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        size += read as u64;
        hasher.update(&buffer[..read]);
    }
}
