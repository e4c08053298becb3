//! Encoders of BERT's family on the processor: BERT, RoBERTa (XLM-R, CamemBERT), DistilBERT and MPNet.
//!
//! Texts lie one after the other without padding: every token that is computed is one of somebody's.

use super::{
    math::{self, Activation},
    matrix::{balanced, DenseMatrix, Finish, Step, HEIGHT, NO_SUMS, WIDTH},
    memory::Arena,
    pool::{Parts, Pool},
    quant::Isa,
};
use candle_nn::VarBuilder;
use serde_json::Value as Json;

/// Which of the family; they differ in names, in where positions begin, and in what is added to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bert,
    /// Also XLM-R and CamemBERT: positions count from after the padding's number.
    Roberta,
    /// Without types of tokens.
    DistilBert,
    /// As RoBERTa, with a number added to scores for each distance of two tokens (arXiv 2004.09297).
    MpNet,
}

/// What `config.json` says of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncoderConfig {
    pub(crate) kind: Kind,
    vocabulary: usize,
    pub(crate) hidden: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
    epsilon: f64,
    /// Rows of the table of positions.
    rows: usize,
    /// The row of the first token.
    first: usize,
    types: usize,
    /// Ranges of distances, of [`Kind::MpNet`].
    buckets: usize,
    /// What names begin with in files that hold more than the encoder.
    pub(crate) prefix: &'static str,
}

impl EncoderConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When it is of another network: loaded as one of these it would give vectors, quietly wrong ones.
    pub(crate) fn read(config: &Json) -> Result<Self, String> {
        let (kind, prefix) = match config["model_type"].as_str() {
            None | Some("bert") => (Kind::Bert, "bert"),
            Some("roberta" | "xlm-roberta" | "camembert") => (Kind::Roberta, "roberta"),
            Some("distilbert") => (Kind::DistilBert, "distilbert"),
            Some("mpnet") => (Kind::MpNet, "mpnet"),
            Some(other) => {
                return Err(format!(
                    "the model is of type `{other}`; supported are bert, roberta, xlm-roberta, camembert, distilbert and mpnet"
                ))
            }
        };
        match config["position_embedding_type"].as_str() {
            None | Some("absolute") => {}
            Some(other) => {
                return Err(format!(
                    "`position_embedding_type` is `{other}`, and only `absolute` is supported"
                ))
            }
        }
        if config["sinusoidal_pos_embds"].as_bool() == Some(true) && kind != Kind::DistilBert {
            return Err("`sinusoidal_pos_embds` is not supported".to_string());
        }
        if config["is_decoder"].as_bool() == Some(true)
            || config["add_cross_attention"].as_bool() == Some(true)
        {
            return Err("it is a decoder (`is_decoder`), not an encoder".to_string());
        }
        let number = |name: &str| {
            let value = config[name].as_u64().and_then(|value| usize::try_from(value).ok());
            value.ok_or_else(|| format!("`{name}` is missing, or no number"))
        };
        let named = |usual: &'static str, distil: &'static str| {
            number(if kind == Kind::DistilBert { distil } else { usual })
        };
        let activation = if kind == Kind::DistilBert { "activation" } else { "hidden_act" };
        let activation = match config[activation].as_str() {
            None | Some("gelu" | "gelu_python") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => return Err(format!("`{activation}` is `{other}`, which is not supported")),
        };
        let first = match kind {
            Kind::Roberta | Kind::MpNet => number("pad_token_id").unwrap_or(1).saturating_add(1),
            Kind::Bert | Kind::DistilBert => 0,
        };
        let this = Self {
            kind,
            vocabulary: number("vocab_size")?,
            hidden: named("hidden_size", "dim")?,
            layers: named("num_hidden_layers", "n_layers")?,
            heads: named("num_attention_heads", "n_heads")?,
            inner: named("intermediate_size", "hidden_dim")?,
            activation,
            epsilon: config["layer_norm_eps"].as_f64().unwrap_or(1e-12),
            rows: number("max_position_embeddings")?,
            first,
            types: match kind {
                Kind::Bert | Kind::Roberta => number("type_vocab_size")?,
                Kind::DistilBert | Kind::MpNet => 0,
            },
            buckets: match kind {
                Kind::MpNet => number("relative_attention_num_buckets").unwrap_or(32),
                _ => 0,
            },
            prefix,
        };
        if this.heads == 0 || !this.hidden.is_multiple_of(this.heads) || this.rows <= this.first {
            return Err(format!(
                "{} heads, {} wide, {} positions: these do not fit together",
                this.heads, this.hidden, this.rows
            ));
        }
        if kind == Kind::MpNet && (this.buckets < 4 || !this.buckets.is_multiple_of(4)) {
            return Err(format!(
                "`relative_attention_num_buckets` is {}, which is not supported",
                this.buckets
            ));
        }
        Ok(this)
    }

    /// The most tokens of a text.
    pub(crate) fn context(&self) -> usize {
        self.rows - self.first
    }
}

/// What MPNet adds to scores: a number for each distance, as far as the table of positions reaches.
struct Distances {
    /// Per head: from the token furthest behind to that furthest ahead.
    values: Vec<f32>,
    /// Tokens there are numbers for on either side.
    reach: usize,
}

impl Distances {
    /// Near distances have a number each, far ones share one with others, on a logarithmic scale up to 128 (T5's rule).
    fn new(table: &[f32], heads: usize, buckets: usize, reach: usize) -> Self {
        let bucket = |ahead: i64| {
            let half = buckets / 2;
            // Of what lies before the token the first half, of what follows the second.
            let side = if ahead > 0 { half } else { 0 };
            let (distance, exact) = (ahead.unsigned_abs() as usize, half / 2);
            if distance < exact {
                return side + distance;
            }
            let scale = (distance as f32 / exact as f32).ln() / (128.0 / exact as f32).ln();
            side + (exact + (scale * (half - exact) as f32) as usize).min(half - 1)
        };
        let mut values = Vec::with_capacity(heads * (2 * reach + 1));
        for head in 0..heads {
            for ahead in -(reach as i64)..=reach as i64 {
                values.push(table[bucket(ahead) * heads + head]);
            }
        }
        Self { values, reach }
    }

    /// Of what the token at `position` looks at, from the first token on.
    fn of(&self, head: usize, position: usize) -> &[f32] {
        let width = 2 * self.reach + 1;
        &self.values[head * width..][..width][self.reach - position.min(self.reach)..]
    }
}

/// A norm's weights and biases.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    fn load(weights: &VarBuilder<'_>, width: usize, epsilon: f64) -> candle_core::Result<Self> {
        // Old checkpoints have the names of TensorFlow.
        let (weight, bias) =
            if weights.contains_tensor("weight") { ("weight", "bias") } else { ("gamma", "beta") };
        Ok(Self {
            weight: weights.get(width, weight)?.to_vec1()?,
            bias: weights.get(width, bias)?.to_vec1()?,
            epsilon: epsilon as f32,
        })
    }

    /// Normalises every row.
    fn apply(&self, pool: &Pool, rows: &mut [f32]) {
        let width = self.weight.len();
        let count = rows.len() / width;
        let pieces = count.div_ceil(16);
        let parts = Parts::new(rows);
        pool.run(pieces, &|piece| {
            let (from, to) = balanced(count, pieces, piece);
            for row in from..to {
                // SAFETY: every row belongs to one piece of work.
                let row = unsafe { parts.slice(row * width, width) };
                math::layer_norm(row, &self.weight, &self.bias, self.epsilon);
            }
        });
    }
}

struct Layer {
    /// Queries, keys and values in one.
    attention: DenseMatrix,
    output: DenseMatrix,
    output_norm: Norm,
    up: DenseMatrix,
    down: DenseMatrix,
    down_norm: Norm,
}

/// One text, as tokens.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    /// The tokens; at least one.
    pub(crate) ids: &'a [u32],
    /// Which of two texts each belongs to.
    pub(crate) types: &'a [u32],
}

/// The encoder.
pub(crate) struct CpuEncoder {
    words: Vec<f32>,
    positions: Vec<f32>,
    /// Empty where tokens have no types.
    types: Vec<f32>,
    /// The row of the first position.
    first: usize,
    distances: Option<Distances>,
    norm: Norm,
    layers: Vec<Layer>,
    activation: Activation,
    hidden: usize,
    heads: usize,
    isa: Isa,
}

impl CpuEncoder {
    /// Whether there is code for a network of this shape.
    pub(crate) fn supports(config: &EncoderConfig) -> bool {
        config.hidden.is_multiple_of(config.heads * WIDTH)
    }

    /// With these instructions.
    pub(crate) fn with_isa(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// Packs the weights.
    ///
    /// # Errors
    /// When one is missing or of another shape than the configuration says.
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &EncoderConfig) -> candle_core::Result<Self> {
        let arena = Arena::default();
        let (hidden, inner, epsilon, kind) = (config.hidden, config.inner, config.epsilon, config.kind);
        if !Self::supports(config) {
            candle_core::bail!("heads of {} are not a multiple of {WIDTH} wide", hidden / config.heads)
        }
        let weights = match weights.contains_tensor("embeddings.word_embeddings.weight") {
            true => weights.clone(),
            false => weights.pp(config.prefix),
        };
        let table = |name: &str, rows: usize| -> candle_core::Result<Vec<f32>> {
            weights.pp("embeddings").get((rows, hidden), name)?.flatten_all()?.to_vec1()
        };
        let raw = |weights: &VarBuilder<'_>, inputs: usize, outputs: usize| {
            let matrix: Vec<f32> = weights.get((outputs, inputs), "weight")?.flatten_all()?.to_vec1()?;
            let bias: Vec<f32> = weights.get(outputs, "bias")?.to_vec1()?;
            candle_core::Result::Ok((matrix, bias))
        };
        let dense = |weights: VarBuilder<'_>, inputs: usize, outputs: usize| {
            let (matrix, bias) = raw(&weights, inputs, outputs)?;
            DenseMatrix::pack(&arena, &[(&matrix, &bias)], inputs)
        };
        // Where the parts of a layer are, from a layer on.
        let [stem, query, key, value, output, output_norm, up, down, down_norm] = match kind {
            Kind::Bert | Kind::Roberta => [
                "encoder.layer",
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ],
            Kind::DistilBert => [
                "transformer.layer",
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
            Kind::MpNet => [
                "encoder.layer",
                "attention.attn.q",
                "attention.attn.k",
                "attention.attn.v",
                "attention.attn.o",
                "attention.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ],
        };
        let mut layers = Vec::new();
        for index in 0..config.layers {
            let layer = weights.pp(format!("{stem}.{index}"));
            let parts: Vec<_> = [query, key, value]
                .into_iter()
                .map(|name| raw(&layer.pp(name), hidden, hidden))
                .collect::<candle_core::Result<_>>()?;
            let parts: Vec<_> = parts.iter().map(|(matrix, bias)| (&matrix[..], &bias[..])).collect();
            layers.push(Layer {
                attention: DenseMatrix::pack(&arena, &parts, hidden)?,
                output: dense(layer.pp(output), hidden, hidden)?,
                output_norm: Norm::load(&layer.pp(output_norm), hidden, epsilon)?,
                up: dense(layer.pp(up), hidden, inner)?,
                down: dense(layer.pp(down), inner, hidden)?,
                down_norm: Norm::load(&layer.pp(down_norm), hidden, epsilon)?,
            });
        }
        let distances = match kind {
            Kind::MpNet => {
                let shape = (config.buckets, config.heads);
                let table = weights.pp("encoder.relative_attention_bias").get(shape, "weight")?;
                let table: Vec<f32> = table.flatten_all()?.to_vec1()?;
                Some(Distances::new(&table, config.heads, config.buckets, config.context()))
            }
            _ => None,
        };
        let types = match config.types {
            0 => Vec::new(),
            rows => table("token_type_embeddings.weight", rows)?,
        };
        Ok(Self {
            words: table("word_embeddings.weight", config.vocabulary)?,
            positions: table("position_embeddings.weight", config.rows)?,
            types,
            first: config.first,
            distances,
            norm: Norm::load(&weights.pp("embeddings.LayerNorm"), hidden, epsilon)?,
            layers,
            activation: config.activation,
            hidden,
            heads: config.heads,
            isa: Isa::detect(),
        })
    }

    /// The vectors of all tokens of all sequences, one after the other; with `only_first`, those of each sequence's first
    /// token.
    ///
    /// # Errors
    /// When a sequence is empty or too long, or a token is not in the vocabulary.
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        sequences: &[Sequence<'_>],
        only_first: bool,
    ) -> candle_core::Result<Vec<f32>> {
        let hidden = self.hidden;
        let mut x = self.embed(sequences)?;
        self.norm.apply(pool, &mut x);
        // Where each sequence begins.
        let mut starts = Vec::with_capacity(sequences.len());
        let mut tokens = 0;
        for sequence in sequences {
            starts.push((tokens, sequence.ids.len()));
            tokens += sequence.ids.len();
        }
        let mut qkv = vec![0f32; tokens * 3 * hidden];
        let mut mixed = vec![0f32; tokens * hidden];
        let mut y = vec![0f32; tokens * hidden];
        let mut inner = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            layer.attention.multiply(pool, self.isa, &x, &mut qkv, Finish::Plain);
            let first = only_first && index + 1 == self.layers.len();
            if first {
                mixed.truncate(sequences.len() * hidden);
                y.truncate(sequences.len() * hidden);
            }
            self.attend(pool, &qkv, &starts, first, &mut mixed);
            if first {
                x = starts.iter().flat_map(|(start, _)| &x[start * hidden..][..hidden]).copied().collect();
                tokens = sequences.len();
            }
            layer.output.multiply(pool, self.isa, &mixed, &mut y, Finish::Add(&x));
            layer.output_norm.apply(pool, &mut y);
            inner.resize(tokens * layer.up.outputs(), 0.0);
            layer.up.multiply(pool, self.isa, &y, &mut inner, Finish::Bend(self.activation));
            layer.down.multiply(pool, self.isa, &inner, &mut x, Finish::Add(&y));
            layer.down_norm.apply(pool, &mut x);
        }
        Ok(x)
    }

    /// The sums of the three embeddings.
    fn embed(&self, sequences: &[Sequence<'_>]) -> candle_core::Result<Vec<f32>> {
        let hidden = self.hidden;
        let row = |table: &'_ [f32], index: usize| -> candle_core::Result<std::ops::Range<usize>> {
            if index >= table.len() / hidden {
                candle_core::bail!("there is no row {index} in a table of {}", table.len() / hidden)
            }
            Ok(index * hidden..(index + 1) * hidden)
        };
        let mut x = Vec::with_capacity(sequences.iter().map(|s| s.ids.len()).sum::<usize>() * hidden);
        for sequence in sequences {
            if sequence.ids.is_empty() || sequence.types.len() != sequence.ids.len() {
                candle_core::bail!("a text without tokens, or without their types")
            }
            for (position, (id, of)) in sequence.ids.iter().zip(sequence.types).enumerate() {
                let word = &self.words[row(&self.words, *id as usize)?];
                let position = &self.positions[row(&self.positions, position + self.first)?];
                if self.types.is_empty() {
                    x.extend(word.iter().zip(position).map(|(a, b)| a + b));
                    continue;
                }
                // Networks with one type are given texts of two all the same.
                let of = if self.types.len() == hidden { 0 } else { *of as usize };
                let of = &self.types[row(&self.types, of)?];
                x.extend(word.iter().zip(position).zip(of).map(|((a, b), c)| a + b + c));
            }
        }
        Ok(x)
    }

    /// Writes every token's mixture of the values of its sequence to `mixed`; or only that of each first token.
    fn attend(&self, pool: &Pool, qkv: &[f32], starts: &[(usize, usize)], first: bool, mixed: &mut [f32]) {
        let (hidden, width) = (self.hidden, 3 * self.hidden);
        let dim = hidden / self.heads;
        let scale = 1.0 / (dim as f32).sqrt();
        let all = Parts::new(mixed);
        pool.run(starts.len() * self.heads, &|piece| {
            let (sequence, head) = (piece / self.heads, piece % self.heads);
            let (start, length) = starts[sequence];
            let out_start = if first { sequence } else { start };
            let qkv = &qkv[start * width..][..length * width];
            let padded = length.next_multiple_of(WIDTH);
            // Keys below each other, 32 tokens at a time, as a step wants its columns.
            let mut keys = vec![0f32; padded * dim];
            for (token, row) in qkv.chunks_exact(width).enumerate() {
                let at = token / WIDTH * WIDTH * dim + token % WIDTH;
                let column = keys[at..].iter_mut().step_by(WIDTH);
                for (to, from) in column.zip(&row[hidden + head * dim..][..dim]) {
                    *to = *from;
                }
            }
            let rows = if first { 1 } else { length };
            let tiles = rows.div_ceil(HEIGHT);
            let mut scores = vec![0f32; HEIGHT * padded];
            let mut sums = NO_SUMS;
            for tile in 0..tiles {
                let (from, to) = balanced(rows, tiles, tile);
                let count = to - from;
                for column in (0..padded).step_by(WIDTH) {
                    let step = Step {
                        a: &qkv[from * width + head * dim..],
                        a_stride: width,
                        rows: count,
                        b: &keys[column * dim..],
                        b_stride: WIDTH,
                        depth: dim,
                    };
                    step.compute(self.isa, &mut sums);
                    for (scores, sums) in scores.chunks_exact_mut(padded).zip(sums.iter().take(count)) {
                        scores[column..column + WIDTH].copy_from_slice(sums);
                    }
                }
                let mut inverse = [0f32; HEIGHT];
                if let Some(distances) = &self.distances {
                    // Scores are multiplied by the scale yet; these are not to be.
                    for (scores, row) in scores.chunks_exact_mut(padded).zip(from..to) {
                        let own = distances.of(head, row);
                        scores
                            .iter_mut()
                            .zip(own)
                            .take(length)
                            .for_each(|(score, own)| *score += own / scale);
                    }
                }
                for (scores, inverse) in scores.chunks_exact_mut(padded).zip(&mut inverse).take(count) {
                    *inverse = math::softmax_unscaled(&mut scores[..length], scale);
                }
                for column in (0..dim).step_by(WIDTH) {
                    let step = Step {
                        a: &scores,
                        a_stride: padded,
                        rows: count,
                        b: &qkv[2 * hidden + head * dim + column..],
                        b_stride: width,
                        depth: length,
                    };
                    step.compute(self.isa, &mut sums);
                    for (row, (sums, inverse)) in (from..to).zip(sums.iter().zip(&inverse)) {
                        let at = (out_start + row) * hidden + head * dim + column;
                        // SAFETY: every pair of row and head belongs to one piece of work.
                        let out = unsafe { all.slice(at, WIDTH) };
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out = sum * inverse;
                        }
                    }
                }
            }
        });
    }
}
