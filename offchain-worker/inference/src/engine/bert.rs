//! BERT encoders: sentence vectors and relevance of pairs.

use super::{
    cpu::{
        encoder::{CpuEncoder, EncoderConfig, Kind, Sequence},
        math,
        pool::{Parts, Pool},
        quant::Isa,
    },
    LoadOptions, Precision,
};
use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    manifest::{ModelDigest, Pooling},
    store::VerifiedModel,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    bert::{BertModel, Config},
    debertav2::{Config as DebertaConfig, DebertaV2Model},
    modernbert::{Config as ModernConfig, ModernBert},
};
use serde_json::Value as Json;
use tokenizers::{EncodeInput, Encoding, Tokenizer, TruncationParams, TruncationStrategy};

/// Text beyond this is not even tokenised. No word piece is longer than 100 bytes, so no context here reaches further.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Tokens that are computed at once: enough to use every weight often, little enough to stay in a core's cache.
const BATCH_TOKENS: usize = 256;

/// Tokens, padding included, that candle computes at once: on processors, and on GPUs, which only many keep busy.
const PADDED_TOKENS: usize = 2048;
const PADDED_TOKENS_GPU: usize = 32 * 1024;

/// What runs the network.
enum Network {
    /// Our own code, on the processor.
    Cpu(CpuEncoder),
    /// candle, on other devices.
    Candle(BertModel),
    /// candle-transformers, text by text.
    Deberta(Box<DebertaV2Model>, Device),
    Modern(Box<ModernBert>, Device),
}

/// Which family an encoder is of: where its head is, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Bert(Kind),
    /// DeBERTa of the second and third version (arXiv 2006.03654, 2111.09543).
    Deberta,
    /// ModernBERT (arXiv 2412.13663).
    Modern,
}

/// What both kinds share.
struct Bert {
    name: String,
    digest: ModelDigest,
    tokenizer: Tokenizer,
    network: Network,
    hidden: usize,
    family: Family,
    /// `config.json`.
    json: Json,
}

/// What is made of a text's vectors: of the first where only that was asked for, else of all of them or of their sum.
type Head<'a> = &'a (dyn Fn(&[f32]) -> Vec<f32> + Sync);

impl Bert {
    /// Loads the encoder; also returns the rest of the weights for a head.
    fn load<'a>(model: &VerifiedModel, options: &LoadOptions) -> Result<(Self, VarBuilder<'a>)> {
        let entry = model.entry();
        let fail = |e: &dyn std::fmt::Display| Error::model(&entry.name, e);
        // Scores are compared with those of other nodes, and in sixteen bits candle's mask of padding is not a number.
        if matches!(options.precision, Precision::F16 | Precision::Bf16) {
            return Err(fail(&format!(
                "encoders compute in f32, not in {}: leave dtype out",
                options.precision
            )));
        }
        let device = &options.device.open()?;
        let path = model.file("config.json")?;
        let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let json: Json = serde_json::from_slice(&config).map_err(|e| fail(&format!("config.json: {e}")))?;
        let (family, hidden, context, config) = match json["model_type"].as_str() {
            Some(name @ ("deberta-v2" | "modernbert")) => {
                let number = |name: &str| json[name].as_u64().unwrap_or(0) as usize;
                let family = if name == "modernbert" { Family::Modern } else { Family::Deberta };
                (family, number("hidden_size"), number("max_position_embeddings"), None)
            }
            _ => {
                let config = EncoderConfig::read(&json).map_err(|e| fail(&format!("config.json: {e}")))?;
                (Family::Bert(config.kind), config.hidden, config.context(), Some(config))
            }
        };
        if entry.context_tokens > context {
            return Err(fail(&format!(
                "the manifest gives it {} tokens of context, it has positions for {context}",
                entry.context_tokens
            )));
        }
        let mut tokenizer = Tokenizer::from_file(model.file("tokenizer.json")?).map_err(|e| fail(&e))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: entry.context_tokens,
                strategy: TruncationStrategy::LongestFirst,
                ..Default::default()
            }))
            .map_err(|e| fail(&e))?;
        let weights = [model.file("model.safetensors")?];
        // SAFETY: see `safetensors::load`: installed files are never written to, only replaced.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, device) }
            .map_err(|e| fail(&e))?;
        let network = match (family, config) {
            (Family::Bert(kind), Some(config)) => {
                let own = device.is_cpu()
                    && options.precision == Precision::Auto
                    && (Isa::detect() != Isa::Portable || kind != Kind::Bert)
                    && CpuEncoder::supports(&config);
                if own {
                    CpuEncoder::load(&weights, &config).map(Network::Cpu)
                } else if kind == Kind::Bert {
                    let config: Config = serde_json::from_value(json.clone())
                        .map_err(|e| fail(&format!("config.json: {e}")))?;
                    BertModel::load(weights.clone(), &config).map(Network::Candle)
                } else {
                    return Err(fail(&format!(
                        "a {kind:?} encoder runs on processors only (device cpu, dtype left out), with heads of a multiple of 32"
                    )));
                }
            }
            (Family::Modern, _) => {
                let config = modern_config(&json).map_err(|e| fail(&format!("config.json: {e}")))?;
                // Files of the encoder alone leave the first part of the names out.
                let weights = match weights.contains_tensor("model.final_norm.weight") {
                    true => weights.clone(),
                    false => weights
                        .clone()
                        .rename_f(|name| name.strip_prefix("model.").unwrap_or(name).to_string()),
                };
                ModernBert::load(weights, &config)
                    .map(|model| Network::Modern(Box::new(model), device.clone()))
            }
            _ => {
                let config: DebertaConfig =
                    serde_json::from_value(json.clone()).map_err(|e| fail(&format!("config.json: {e}")))?;
                let weights = match weights.contains_tensor("deberta.embeddings.word_embeddings.weight") {
                    true => weights.pp("deberta"),
                    false => weights.clone(),
                };
                DebertaV2Model::load(weights, &config)
                    .map(|model| Network::Deberta(Box::new(model), device.clone()))
            }
        };
        let this = Self {
            name: entry.name.clone(),
            digest: entry.digest(),
            tokenizer,
            network: network.map_err(|e| fail(&e))?,
            hidden,
            family,
            json,
        };
        Ok((this, weights))
    }

    fn fail(&self, error: impl std::fmt::Display) -> Error {
        Error::model(&self.name, error)
    }

    fn tokenise(&self, inputs: &[EncodeInput<'_>]) -> Result<Vec<Encoding>> {
        let mut encodings: Vec<Option<tokenizers::Result<Encoding>>> = inputs.iter().map(|_| None).collect();
        let parts = Parts::new(&mut encodings);
        Pool::global().run(inputs.len(), &|i| {
            // SAFETY: every input is one piece of work.
            let encoding = unsafe { parts.slice(i, 1) };
            encoding[0] = Some(self.tokenizer.encode(inputs[i].clone(), true));
        });
        let missing = || self.fail("a text was not tokenised");
        encodings.into_iter().map(|e| e.ok_or_else(missing)?.map_err(|e| self.fail(e))).collect()
    }

    /// What `head` makes of each input.
    fn run(&self, inputs: &[EncodeInput<'_>], only_first: bool, head: Head<'_>) -> Result<Vec<Vec<f32>>> {
        let encodings = self.tokenise(inputs)?;
        match &self.network {
            Network::Cpu(network) => run_on_cpu(network, &encodings, only_first, self.hidden, head),
            Network::Candle(network) => run_on_candle(network, &encodings, only_first, self.hidden, head),
            Network::Deberta(network, device) => one_by_one(&encodings, only_first, self.hidden, head, |e| {
                let row = |values: &[u32]| Tensor::new(values, device)?.unsqueeze(0);
                network.forward(
                    &row(e.get_ids())?,
                    Some(row(e.get_type_ids())?),
                    Some(row(e.get_attention_mask())?),
                )
            }),
            Network::Modern(network, device) => one_by_one(&encodings, only_first, self.hidden, head, |e| {
                let row = |values: &[u32]| Tensor::new(values, device)?.unsqueeze(0);
                network.forward(&row(e.get_ids())?, &row(e.get_attention_mask())?)
            }),
        }
        .map_err(|e| self.fail(e))
        .and_then(|outputs| {
            // A vector with NaN is like nothing, so that every score would be 0 without a word.
            match outputs.iter().flatten().all(|value| value.is_finite()) {
                true => Ok(outputs),
                false => Err(self.fail("its output has numbers that are not finite: its weights are broken")),
            }
        })
    }
}

/// What ModernBERT's configuration says, also as transformers 5 writes it.
fn modern_config(config: &Json) -> std::result::Result<ModernConfig, String> {
    let number = |name: &str| {
        let value = config[name].as_u64().and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| format!("`{name}` is missing, or no number"))
    };
    let theta = |kind: &str, old: &str| {
        let own = &config["rope_parameters"][kind];
        if own["rope_type"].as_str().is_some_and(|kind| kind != "default") {
            return Err(format!("`{}` scaling of rotary embeddings is not supported", own["rope_type"]));
        }
        let theta = own["rope_theta"].as_f64().or(config[old].as_f64());
        theta.ok_or_else(|| format!("`{old}` is missing"))
    };
    for name in ["attention_bias", "mlp_bias", "norm_bias"] {
        if config[name].as_bool() == Some(true) {
            return Err(format!("`{name}` is not supported"));
        }
    }
    if let Some(other) = config["hidden_activation"].as_str().filter(|name| *name != "gelu") {
        return Err(format!("`hidden_activation` is `{other}`, which is not supported"));
    }
    // Which layers see a window only; transformers 5 lists them.
    let every = match config["layer_types"].as_array() {
        None => number("global_attn_every_n_layers")?,
        Some(types) => {
            let global = |kind: &Json| kind == "full_attention";
            let every = types.iter().skip(1).position(global).map_or(types.len(), |at| at + 1);
            if types.iter().enumerate().any(|(i, kind)| global(kind) != (i % every == 0)) {
                return Err("`layer_types` without a period is not supported".to_string());
            }
            every
        }
    };
    Ok(ModernConfig {
        vocab_size: number("vocab_size")?,
        hidden_size: number("hidden_size")?,
        num_hidden_layers: number("num_hidden_layers")?,
        num_attention_heads: number("num_attention_heads")?,
        intermediate_size: number("intermediate_size")?,
        max_position_embeddings: number("max_position_embeddings")?,
        layer_norm_eps: config["norm_eps"].as_f64().or(config["layer_norm_eps"].as_f64()).unwrap_or(1e-5),
        pad_token_id: number("pad_token_id").unwrap_or(0) as u32,
        global_attn_every_n_layers: every.max(1),
        global_rope_theta: theta("full_attention", "global_rope_theta")?,
        local_attention: number("local_attention")?,
        local_rope_theta: theta("sliding_attention", "local_rope_theta")?,
        classifier_config: None,
    })
}

/// One text after the other, without padding.
fn one_by_one(
    encodings: &[Encoding],
    only_first: bool,
    hidden: usize,
    head: Head<'_>,
    forward: impl Fn(&Encoding) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Vec<Vec<f32>>> {
    let mut outputs = Vec::with_capacity(encodings.len());
    for encoding in encodings {
        let vectors = forward(encoding)?.flatten_all()?.to_vec1::<f32>()?;
        outputs.push(head(if only_first { &vectors[..hidden] } else { &vectors }));
    }
    Ok(outputs)
}

/// In batches, each on a thread of its own; a single batch on all threads.
fn run_on_cpu(
    network: &CpuEncoder,
    encodings: &[Encoding],
    only_first: bool,
    hidden: usize,
    head: Head<'_>,
) -> candle_core::Result<Vec<Vec<f32>>> {
    let pool = Pool::global();
    let tokens: usize = encodings.iter().map(Encoding::len).sum();
    // Enough batches that no thread waits long for the last.
    let limit = tokens.div_ceil(pool.threads() * 4).clamp(BATCH_TOKENS / 4, BATCH_TOKENS);
    let mut batches = Vec::new();
    let mut rest = encodings;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = |encoding: &&Encoding| {
            size += encoding.len();
            size <= limit
        };
        let (batch, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        batches.push((encodings.len() - rest.len(), batch));
        rest = later;
    }
    let mut outputs = vec![Vec::new(); encodings.len()];
    let mut failures: Vec<Option<candle_core::Error>> = batches.iter().map(|_| None).collect();
    {
        let outputs = Parts::new(&mut outputs);
        let failures = Parts::new(&mut failures);
        pool.run(batches.len(), &|i| {
            let (first, batch) = batches[i];
            // SAFETY: every batch, and so every text, belongs to one piece of work.
            let (outputs, failure) =
                unsafe { (outputs.slice(first, batch.len()), &mut failures.slice(i, 1)[0]) };
            let sequences: Vec<_> =
                batch.iter().map(|e| Sequence { ids: e.get_ids(), types: e.get_type_ids() }).collect();
            let vectors = match network.forward(pool, &sequences, only_first) {
                Ok(vectors) => vectors,
                Err(error) => {
                    *failure = Some(error);
                    return;
                }
            };
            let mut rest = vectors.as_slice();
            for (output, sequence) in outputs.iter_mut().zip(&sequences) {
                let rows = if only_first { 1 } else { sequence.ids.len() };
                let (own, later) = rest.split_at(rows * hidden);
                *output = head(own);
                rest = later;
            }
        });
    }
    match failures.into_iter().flatten().next() {
        Some(error) => Err(error),
        None => Ok(outputs),
    }
}

/// Inputs of like length together, each batch padded to its longest. Only one vector of each leaves the device: its first, or
/// the sum of all of them.
fn run_on_candle(
    network: &BertModel,
    encodings: &[Encoding],
    only_first: bool,
    hidden: usize,
    head: Head<'_>,
) -> candle_core::Result<Vec<Vec<f32>>> {
    let limit = if network.device.is_cpu() { PADDED_TOKENS } else { PADDED_TOKENS_GPU };
    let mut order: Vec<usize> = (0..encodings.len()).collect();
    order.sort_by_key(|i| encodings[*i].len());
    let mut outputs = vec![Vec::new(); encodings.len()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let mut count = 1;
        while count < rest.len() && encodings[rest[count]].len() * (count + 1) <= limit {
            count += 1;
        }
        let (indices, later) = rest.split_at(count);
        rest = later;
        let width = indices.iter().map(|i| encodings[*i].len()).max().unwrap_or(0).max(1);
        let padded = |field: fn(&Encoding) -> &[u32]| {
            let mut rows = vec![0u32; indices.len() * width];
            for (row, index) in rows.chunks_exact_mut(width).zip(indices) {
                let values = field(&encodings[*index]);
                row[..values.len()].copy_from_slice(values);
            }
            Tensor::from_vec(rows, (indices.len(), width), &network.device)
        };
        let mask = padded(Encoding::get_attention_mask)?;
        let vectors =
            network.forward(&padded(Encoding::get_ids)?, &padded(Encoding::get_type_ids)?, Some(&mask))?;
        let vectors = if only_first {
            vectors.narrow(1, 0, 1)?.squeeze(1)?
        } else {
            vectors.broadcast_mul(&mask.to_dtype(DType::F32)?.unsqueeze(2)?)?.sum(1)?
        };
        let vectors = vectors.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        for (vector, index) in vectors.chunks_exact(hidden).zip(indices) {
            outputs[*index] = head(vector);
        }
    }
    Ok(outputs)
}

/// The longest beginning of a text that is looked at.
fn bounded(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    let mut end = MAX_TEXT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A sentence encoder.
pub struct BertEncoder {
    bert: Bert,
    pooling: Pooling,
    /// Dense layers that follow.
    layers: Vec<Dense>,
    dimension: usize,
    query_prefix: String,
}

impl BertEncoder {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not those of a BERT.
    pub fn load(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let (bert, _) = Bert::load(model, options)?;
        let entry = model.entry();
        let modules = Modules::read(model, bert.hidden)?;
        let pooling = modules.pooling.unwrap_or(entry.pooling);
        if matches!(bert.network, Network::Candle(_)) && !matches!(pooling, Pooling::Mean | Pooling::Cls) {
            return Err(bert.fail(format!("{pooling:?} pooling runs on processors only")));
        }
        let query_prefix = match entry.query_prefix.as_str() {
            "" => modules.query_prefix.unwrap_or_default(),
            own => own.to_string(),
        };
        let dimension = modules.layers.last().map_or(bert.hidden, |layer| layer.bias.len());
        Ok(Self { bert, pooling, layers: modules.layers, dimension, query_prefix })
    }

    /// A text's vector, of length 1, out of those of its tokens.
    fn pool(&self, tokens: &[f32]) -> Vec<f32> {
        let hidden = self.bert.hidden;
        let mut pooled = vec![0f32; hidden];
        let rows = tokens.chunks_exact(hidden);
        match self.pooling {
            Pooling::Cls => pooled.copy_from_slice(&tokens[..hidden]),
            Pooling::LastToken => pooled.copy_from_slice(&tokens[tokens.len() - hidden..]),
            Pooling::Max => {
                pooled.fill(f32::NEG_INFINITY);
                for row in rows {
                    pooled.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(*value));
                }
            }
            // Dividing by the number of tokens, or its root, would change nothing: its length becomes 1 anyway, unless a dense
            // layer follows.
            Pooling::Mean | Pooling::MeanSqrt | Pooling::WeightedMean => {
                let count = rows.len();
                for (position, row) in rows.enumerate() {
                    let weight =
                        if self.pooling == Pooling::WeightedMean { (position + 1) as f32 } else { 1.0 };
                    pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
                }
                let divisor = match self.pooling {
                    Pooling::MeanSqrt => (count as f32).sqrt(),
                    Pooling::WeightedMean => (count * (count + 1)) as f32 / 2.0,
                    _ => count as f32,
                };
                pooled.iter_mut().for_each(|v| *v /= divisor);
            }
        }
        for layer in &self.layers {
            pooled = layer.apply(&pooled);
        }
        let norm = pooled.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        pooled.iter_mut().for_each(|v| *v /= norm);
        pooled
    }
}

/// What follows the network in a folder of sentence-transformers.
#[derive(Default)]
struct Modules {
    pooling: Option<Pooling>,
    layers: Vec<Dense>,
    query_prefix: Option<String>,
}

impl Modules {
    /// Reads `modules.json` and what it names, where the model has it.
    fn read(model: &VerifiedModel, hidden: usize) -> Result<Self> {
        let entry = model.entry();
        let fail = |what: String| Error::model(&entry.name, what);
        let read = |name: &str| -> Result<Option<Json>> {
            let Some(path) = model.optional_file(name) else { return Ok(None) };
            let text = crate::data::read_text(&path)?;
            serde_json::from_str(&text).map(Some).map_err(|e| fail(format!("{name}: {e}")))
        };
        let mut this = Self::default();
        if let Some(config) = read("config_sentence_transformers.json")? {
            let prompts = &config["prompts"];
            this.query_prefix =
                prompts["query"].as_str().filter(|prompt| !prompt.is_empty()).map(str::to_string);
            for name in ["document", "passage"] {
                if prompts[name].as_str().is_some_and(|prompt| !prompt.is_empty()) {
                    return Err(fail(format!(
                        "it puts a prompt before texts (`prompts.{name}`), which is not supported"
                    )));
                }
            }
        }
        let Some(Json::Array(modules)) = read("modules.json")? else { return Ok(this) };
        let mut width = hidden;
        for module in &modules {
            let path = module["path"].as_str().unwrap_or_default();
            let kind = module["type"].as_str().unwrap_or_default();
            let config = format!("{path}/config.json");
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Normalize" => {}
                "Pooling" => {
                    let config =
                        read(&config)?.ok_or_else(|| fail(format!("modules.json: {config} is missing")))?;
                    this.pooling = Some(pooling(&config).map_err(fail)?);
                }
                "Dense" => {
                    let about =
                        read(&config)?.ok_or_else(|| fail(format!("modules.json: {config} is missing")))?;
                    let outputs = about["out_features"].as_u64().unwrap_or(0) as usize;
                    let weights = [model.file(&format!("{path}/model.safetensors"))?];
                    // SAFETY: see `safetensors::load`: installed files are never written to, only replaced.
                    let weights =
                        unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &Device::Cpu) }
                            .map_err(|e| fail(e.to_string()))?;
                    let mut dense = Dense::load(&weights.pp("linear"), width, outputs)
                        .map_err(|e| fail(e.to_string()))?;
                    dense.bend = match about["activation_function"]
                        .as_str()
                        .and_then(|f| f.rsplit('.').next())
                    {
                        None | Some("Identity") => None,
                        Some("Tanh") => Some(f32::tanh),
                        Some(other) => {
                            return Err(fail(format!("{config}: the activation `{other}` is not supported")))
                        }
                    };
                    this.layers.push(dense);
                    width = outputs;
                }
                other => return Err(fail(format!("modules.json: a module `{other}` is not supported"))),
            }
        }
        Ok(this)
    }
}

/// How a module of sentence-transformers pools.
fn pooling(config: &Json) -> std::result::Result<Pooling, String> {
    const MODES: [(&str, Pooling); 6] = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrt),
        ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
        ("pooling_mode_lasttoken", Pooling::LastToken),
    ];
    if let Some(mode) = config["pooling_mode"].as_str() {
        let names = ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"];
        let found = names.iter().zip(MODES).find(|(name, _)| **name == mode);
        return found
            .map(|(_, (_, pooling))| pooling)
            .ok_or_else(|| format!("pooling: the mode `{mode}` is not supported"));
    }
    let on: Vec<_> = MODES.iter().filter(|(name, _)| config[*name].as_bool() == Some(true)).collect();
    match on.as_slice() {
        [(_, pooling)] => Ok(*pooling),
        [] => Err("pooling: no mode is on".to_string()),
        _ => Err("pooling: several modes at once are not supported".to_string()),
    }
}

impl Encoder for BertEncoder {
    fn name(&self) -> &str {
        &self.bert.name
    }

    fn digest(&self) -> ModelDigest {
        self.bert.digest
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn query_prefix(&self) -> &str {
        &self.query_prefix
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let inputs: Vec<EncodeInput<'_>> = texts.iter().map(|text| bounded(text).into()).collect();
        self.bert.run(&inputs, self.pooling == Pooling::Cls, &|tokens| self.pool(tokens))
    }
}

/// A relevance model.
pub struct BertCrossEncoder {
    bert: Bert,
    /// What the first token's vector goes through.
    head: Vec<Dense>,
    /// The class that says that the second text follows from the first, of a model with several.
    entailment: Option<usize>,
}

/// A small dense layer.
struct Dense {
    weights: Vec<f32>,
    bias: Vec<f32>,
    bend: Option<fn(f32) -> f32>,
    /// The weights of a norm that follows.
    norm: Option<Vec<f32>>,
}

/// x · Φ(x)
fn gelu(x: f32) -> f32 {
    math::gelu_erf(x)
}

impl Dense {
    fn load(weights: &VarBuilder<'_>, inputs: usize, outputs: usize) -> candle_core::Result<Self> {
        Ok(Self {
            weights: weights.get((outputs, inputs), "weight")?.flatten_all()?.to_vec1()?,
            bias: match weights.contains_tensor("bias") {
                true => weights.get(outputs, "bias")?.to_vec1()?,
                false => vec![0.0; outputs],
            },
            bend: None,
            norm: None,
        })
    }

    fn with_bend(mut self, bend: fn(f32) -> f32) -> Self {
        self.bend = Some(bend);
        self
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weights.chunks_exact(x.len());
        let sums =
            rows.zip(&self.bias).map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias);
        let mut out: Vec<f32> = match self.bend {
            Some(bend) => sums.map(bend).collect(),
            None => sums.collect(),
        };
        if let Some(weights) = &self.norm {
            math::layer_norm(&mut out, weights, &vec![0.0; weights.len()], 1e-5);
        }
        out
    }
}

/// The class of this configuration that stands for entailment, of several.
fn entailment(config: &Json, classes: usize) -> std::result::Result<usize, String> {
    let labels = config["id2label"].as_object().into_iter().flatten();
    let found = labels
        .filter(|(_, label)| label.as_str().is_some_and(|l| l.to_lowercase().starts_with("entail")))
        .find_map(|(id, _)| id.parse::<usize>().ok().filter(|id| *id < classes));
    found.ok_or_else(|| {
        format!("config.json: it tells {classes} classes apart and none is called `entailment` (`id2label`): which is to be the score?")
    })
}

impl BertCrossEncoder {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not those of an encoder with a head of one output, or of several classes of which one is called
    /// entailment.
    pub fn load(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let (bert, weights) = Bert::load(model, options)?;
        let hidden = bert.hidden;
        let classes = match (&bert.json["id2label"], bert.json["num_labels"].as_u64()) {
            (Json::Object(labels), _) => labels.len(),
            (_, Some(count)) => count as usize,
            // A head of one output, or the loading fails.
            _ => 1,
        };
        let entailment = if classes == 1 {
            None
        } else {
            Some(entailment(&bert.json, classes).map_err(|e| bert.fail(e))?)
        };
        let load = |name: &str, outputs: usize| Dense::load(&weights.pp(name), hidden, outputs);
        // What the first token's vector goes through, where the last part is, and whether a norm lies between.
        type Bend = fn(f32) -> f32;
        let (first, bend, last, norm): (&str, Bend, &str, Option<&str>) = match bert.family {
            Family::Bert(Kind::Bert) => ("bert.pooler.dense", f32::tanh, "classifier", None),
            Family::Bert(Kind::Roberta | Kind::MpNet) => {
                ("classifier.dense", f32::tanh, "classifier.out_proj", None)
            }
            Family::Bert(Kind::DistilBert) => ("pre_classifier", |x| x.max(0.0), "classifier", None),
            Family::Deberta => ("pooler.dense", gelu, "classifier", None),
            Family::Modern => ("head.dense", gelu, "classifier", Some("head.norm")),
        };
        if bert.family == Family::Deberta
            && bert.json["pooler_hidden_act"].as_str().is_some_and(|name| name != "gelu")
        {
            return Err(
                bert.fail(format!("config.json: `pooler_hidden_act` is {}", bert.json["pooler_hidden_act"]))
            );
        }
        if bert.family == Family::Modern && bert.json["classifier_pooling"].as_str() != Some("cls") {
            return Err(bert.fail("config.json: a `classifier_pooling` other than cls is not supported"));
        }
        let head = || {
            let mut first = load(first, hidden)?.with_bend(bend);
            if let Some(norm) = norm {
                first.norm = Some(weights.pp(norm).get(hidden, "weight")?.to_vec1()?);
            }
            Ok(vec![first, load(last, classes)?])
        };
        let head = head().map_err(|e: candle_core::Error| bert.fail(e))?;
        Ok(Self { bert, head, entailment })
    }

    /// A pair's logit, out of its first token's vector: of several classes the log-odds of entailment.
    fn logit(&self, tokens: &[f32]) -> Vec<f32> {
        let mut x = tokens[..self.bert.hidden].to_vec();
        for layer in &self.head {
            x = layer.apply(&x);
        }
        match self.entailment {
            None => x,
            Some(class) => {
                let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let others: f32 =
                    x.iter().enumerate().filter(|(i, _)| *i != class).map(|(_, v)| (v - largest).exp()).sum();
                vec![x[class] - largest - others.ln()]
            }
        }
    }
}

impl CrossEncoder for BertCrossEncoder {
    fn name(&self) -> &str {
        &self.bert.name
    }

    fn digest(&self) -> ModelDigest {
        self.bert.digest
    }

    fn score(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<f32>> {
        let inputs: Vec<EncodeInput<'_>> =
            pairs.iter().map(|(a, b)| (bounded(a), bounded(b)).into()).collect();
        let logits = self.bert.run(&inputs, true, &|tokens| self.logit(tokens))?;
        Ok(logits.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        use serde_json::json;
        let known = |model_type: &str| {
            json!({
                "model_type": model_type, "vocab_size": 8, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 8, "max_position_embeddings": 16, "type_vocab_size": 1, "pad_token_id": 1,
            })
        };
        assert_eq!(EncoderConfig::read(&known("bert")).unwrap().context(), 16);
        // Two rows of its table are no positions.
        assert_eq!(EncoderConfig::read(&known("roberta")).unwrap().context(), 14);
        for (key, value, name) in [
            ("model_type", "electra", "`electra`"),
            ("position_embedding_type", "relative_key", "`relative_key`"),
            ("hidden_act", "silu", "`silu`"),
        ] {
            let mut config = known("bert");
            config[key] = value.into();
            let error = EncoderConfig::read(&config).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let labels = json!({ "id2label": { "0": "contradiction", "1": "entailment", "2": "neutral" } });
        assert_eq!(entailment(&labels, 3).unwrap(), 1);
        assert!(entailment(&json!({ "id2label": { "0": "LABEL_0", "1": "LABEL_1" } }), 2).is_err());
        assert_eq!(pooling(&json!({ "pooling_mode_lasttoken": true })).unwrap(), Pooling::LastToken);
        assert!(pooling(&json!({ "pooling_mode_cls_token": true, "pooling_mode_max_tokens": true })).is_err());
    }
}
