//! BERT encoders: sentence vectors and relevance of pairs.

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    manifest::{ModelDigest, Pooling},
    store::VerifiedModel,
};
use candle_core::{DType, Device, IndexOp, Tensor, D};
use candle_nn::{linear, Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::{EncodeInput, Encoding, Tokenizer, TruncationParams, TruncationStrategy};

/// Text beyond this is not even tokenised. No word piece is longer than 100 bytes, so no context here reaches further.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Tokens, padding included, that are computed at once: enough to keep the processor busy, little enough to stay in its cache.
const BATCH_TOKENS: usize = 2048;

/// What both kinds share.
struct Bert {
    name: String,
    digest: ModelDigest,
    tokenizer: Tokenizer,
    model: BertModel,
    hidden: usize,
}

/// One batch: the rows of its tensors belong to the inputs `indices`.
struct Batch {
    indices: Vec<usize>,
    ids: Tensor,
    types: Tensor,
    mask: Tensor,
}

impl Bert {
    /// Loads the encoder; also returns the rest of the weights for a head.
    fn load<'a>(model: &VerifiedModel, device: &Device) -> Result<(Self, VarBuilder<'a>)> {
        let entry = model.entry();
        let fail = |e: &dyn std::fmt::Display| Error::model(&entry.name, e);
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
        // SAFETY: see `Decoder::from_safetensors`: installed files are never written to, only replaced.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, device) }
            .map_err(|e| fail(&e))?;
        let bert = BertModel::load(weights.clone(), &config).map_err(|e| fail(&e))?;
        let this = Self {
            name: entry.name.clone(),
            digest: entry.digest(),
            tokenizer,
            model: bert,
            hidden: config.hidden_size,
        };
        Ok((this, weights))
    }

    fn fail(&self, error: impl std::fmt::Display) -> Error {
        Error::model(&self.name, error)
    }

    fn tokenise(&self, input: EncodeInput<'_>) -> Result<Encoding> {
        self.tokenizer.encode(input, true).map_err(|e| self.fail(e))
    }

    /// Inputs of like length together, each batch padded to its longest.
    fn batches(&self, encodings: &[Encoding]) -> Result<Vec<Batch>> {
        let mut order: Vec<usize> = (0..encodings.len()).collect();
        order.sort_by_key(|i| encodings[*i].len());
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let mut count = 1;
            while count < rest.len() && encodings[rest[count]].len() * (count + 1) <= BATCH_TOKENS {
                count += 1;
            }
            let (indices, later) = rest.split_at(count);
            batches.push(self.batch(indices, encodings).map_err(|e| self.fail(e))?);
            rest = later;
        }
        Ok(batches)
    }

    fn batch(&self, indices: &[usize], encodings: &[Encoding]) -> candle_core::Result<Batch> {
        let width = indices.iter().map(|i| encodings[*i].len()).max().unwrap_or(0).max(1);
        let padded = |field: fn(&Encoding) -> &[u32]| {
            let mut rows = vec![0u32; indices.len() * width];
            for (row, index) in rows.chunks_exact_mut(width).zip(indices) {
                let values = field(&encodings[*index]);
                row[..values.len()].copy_from_slice(values);
            }
            Tensor::from_vec(rows, (indices.len(), width), &self.model.device)
        };
        Ok(Batch {
            indices: indices.to_vec(),
            ids: padded(Encoding::get_ids)?,
            types: padded(Encoding::get_type_ids)?,
            mask: padded(Encoding::get_attention_mask)?,
        })
    }

    /// The vectors of all tokens of a batch.
    fn forward(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        self.model.forward(&batch.ids, &batch.types, Some(&batch.mask))
    }
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
    pub fn load(model: &VerifiedModel, device: &Device) -> Result<Self> {
        let (bert, _) = Bert::load(model, device)?;
        let entry = model.entry();
        Ok(Self { bert, pooling: entry.pooling, query_prefix: entry.query_prefix.clone() })
    }

    fn pool(&self, batch: &Batch) -> candle_core::Result<Vec<Vec<f32>>> {
        let tokens = self.bert.forward(batch)?;
        let pooled = match self.pooling {
            Pooling::Cls => tokens.i((.., 0))?,
            Pooling::Mean => {
                let mask = batch.mask.to_dtype(DType::F32)?;
                let sum = tokens.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                // [CLS] and [SEP] are always there: never zero.
                sum.broadcast_div(&mask.sum_keepdim(1)?)?
            }
        };
        let norm = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
        pooled.broadcast_div(&norm)?.to_vec2::<f32>()
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
        let encodings: Vec<_> =
            texts.iter().map(|text| self.bert.tokenise(bounded(text).into())).collect::<Result<_>>()?;
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in self.bert.batches(&encodings)? {
            let rows = self.pool(&batch).map_err(|e| self.bert.fail(e))?;
            for (index, row) in batch.indices.iter().zip(rows) {
                vectors[*index] = row;
            }
        }
        Ok(vectors)
    }
}

/// A relevance model.
pub struct BertCrossEncoder {
    bert: Bert,
    pooler: Linear,
    classifier: Linear,
}

impl BertCrossEncoder {
    /// Loads a model whose files have been checked.
    ///
    /// # Errors
    /// When the files are not those of a BERT with a pooler and a classifier of one output.
    pub fn load(model: &VerifiedModel, device: &Device) -> Result<Self> {
        let (bert, weights) = Bert::load(model, device)?;
        let fail = |e: candle_core::Error| Error::model(&model.entry().name, e);
        let pooler = linear(bert.hidden, bert.hidden, weights.pp("bert.pooler.dense")).map_err(fail)?;
        let classifier = linear(bert.hidden, 1, weights.pp("classifier")).map_err(fail)?;
        Ok(Self { bert, pooler, classifier })
    }

    fn logits(&self, batch: &Batch) -> candle_core::Result<Vec<f32>> {
        let first = self.bert.forward(batch)?.i((.., 0))?.contiguous()?;
        let pooled = self.pooler.forward(&first)?.tanh()?;
        self.classifier.forward(&pooled)?.squeeze(1)?.to_vec1()
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
        let encodings: Vec<_> = pairs
            .iter()
            .map(|(a, b)| self.bert.tokenise((bounded(a), bounded(b)).into()))
            .collect::<Result<_>>()?;
        let mut scores = vec![0.0; pairs.len()];
        for batch in self.bert.batches(&encodings)? {
            let logits = self.logits(&batch).map_err(|e| self.bert.fail(e))?;
            for (index, logit) in batch.indices.iter().zip(logits) {
                scores[*index] = logit;
            }
        }
        Ok(scores)
    }
}
