//! BERT encoders: sentence vectors and relevance of pairs.

use super::{
    cpu::{
        encoder::{CpuEncoder, Sequence},
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
use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
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
}

/// What both kinds share.
struct Bert {
    name: String,
    digest: ModelDigest,
    tokenizer: Tokenizer,
    network: Network,
    hidden: usize,
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
        let config: Config =
            serde_json::from_slice(&config).map_err(|e| fail(&format!("config.json: {e}")))?;
        if entry.context_tokens > config.max_position_embeddings {
            return Err(fail(&format!(
                "the manifest gives it {} tokens of context, it has positions for {}",
                entry.context_tokens, config.max_position_embeddings
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
        let own = device.is_cpu()
            && options.precision == Precision::Auto
            && Isa::detect() != Isa::Portable
            && CpuEncoder::supports(&config);
        let network = if own {
            CpuEncoder::load(&weights, &config).map(Network::Cpu)
        } else {
            BertModel::load(weights.clone(), &config).map(Network::Candle)
        };
        let this = Self {
            name: entry.name.clone(),
            digest: entry.digest(),
            tokenizer,
            network: network.map_err(|e| fail(&e))?,
            hidden: config.hidden_size,
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
        }
        .map_err(|e| self.fail(e))
    }
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
        Ok(Self { bert, pooling: entry.pooling, query_prefix: entry.query_prefix.clone() })
    }

    /// A text's vector, of length 1, out of those of its tokens.
    fn pool(&self, tokens: &[f32]) -> Vec<f32> {
        let hidden = self.bert.hidden;
        let mut pooled = vec![0f32; hidden];
        let rows = match self.pooling {
            Pooling::Cls => 1,
            Pooling::Mean => tokens.len() / hidden,
        };
        for row in tokens.chunks_exact(hidden).take(rows) {
            for (sum, value) in pooled.iter_mut().zip(row) {
                *sum += value;
            }
        }
        // Dividing by the number of tokens would change nothing: its length becomes 1 anyway.
        let norm = pooled.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        pooled.iter_mut().for_each(|v| *v /= norm);
        pooled
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
        self.bert.hidden
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
    pooler: Dense,
    classifier: Dense,
}

/// A small dense layer.
struct Dense {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Dense {
    fn load(weights: &VarBuilder<'_>, inputs: usize, outputs: usize) -> candle_core::Result<Self> {
        Ok(Self {
            weights: weights.get((outputs, inputs), "weight")?.flatten_all()?.to_vec1()?,
            bias: weights.get(outputs, "bias")?.to_vec1()?,
        })
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weights.chunks_exact(x.len());
        rows.zip(&self.bias)
            .map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias)
            .collect()
    }
}

impl BertCrossEncoder {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not those of a BERT with a pooler and a classifier of one output.
    pub fn load(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let (bert, weights) = Bert::load(model, options)?;
        let fail = |e: candle_core::Error| Error::model(&model.entry().name, e);
        let hidden = bert.hidden;
        let pooler = Dense::load(&weights.pp("bert.pooler.dense"), hidden, hidden).map_err(fail)?;
        let classifier = Dense::load(&weights.pp("classifier"), hidden, 1).map_err(fail)?;
        Ok(Self { bert, pooler, classifier })
    }

    /// A pair's logit, out of its first token's vector.
    fn logit(&self, tokens: &[f32]) -> Vec<f32> {
        let mut pooled = self.pooler.apply(&tokens[..self.bert.hidden]);
        pooled.iter_mut().for_each(|v| *v = v.tanh());
        self.classifier.apply(&pooled)
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
