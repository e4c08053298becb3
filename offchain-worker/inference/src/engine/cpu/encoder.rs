//! A BERT encoder on the processor.
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
use candle_transformers::models::bert::{Config, HiddenAct, PositionEmbeddingType};

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
    types: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    activation: Activation,
    hidden: usize,
    heads: usize,
    isa: Isa,
}

impl CpuEncoder {
    /// Whether there is code for a network of this shape.
    pub(crate) fn supports(config: &Config) -> bool {
        config.num_attention_heads > 0
            && config.hidden_size.is_multiple_of(config.num_attention_heads * WIDTH)
            && config.position_embedding_type == PositionEmbeddingType::Absolute
    }

    /// Packs the weights.
    ///
    /// # Errors
    /// When one is missing or of another shape than the configuration says.
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &Config) -> candle_core::Result<Self> {
        let arena = Arena::default();
        let hidden = config.hidden_size;
        let weights = match &config.model_type {
            Some(name) if !weights.contains_tensor("embeddings.word_embeddings.weight") => weights.pp(name),
            _ => weights.clone(),
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
        let inner = config.intermediate_size;
        let epsilon = config.layer_norm_eps;
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            let layer = weights.pp(format!("encoder.layer.{index}"));
            let own = layer.pp("attention.self");
            let parts: Vec<_> = ["query", "key", "value"]
                .into_iter()
                .map(|name| raw(&own.pp(name), hidden, hidden))
                .collect::<candle_core::Result<_>>()?;
            let parts: Vec<_> = parts.iter().map(|(matrix, bias)| (&matrix[..], &bias[..])).collect();
            layers.push(Layer {
                attention: DenseMatrix::pack(&arena, &parts, hidden)?,
                output: dense(layer.pp("attention.output.dense"), hidden, hidden)?,
                output_norm: Norm::load(&layer.pp("attention.output.LayerNorm"), hidden, epsilon)?,
                up: dense(layer.pp("intermediate.dense"), hidden, inner)?,
                down: dense(layer.pp("output.dense"), inner, hidden)?,
                down_norm: Norm::load(&layer.pp("output.LayerNorm"), hidden, epsilon)?,
            });
        }
        Ok(Self {
            words: table("word_embeddings.weight", config.vocab_size)?,
            positions: table("position_embeddings.weight", config.max_position_embeddings)?,
            types: table("token_type_embeddings.weight", config.type_vocab_size)?,
            norm: Norm::load(&weights.pp("embeddings.LayerNorm"), hidden, epsilon)?,
            layers,
            activation: match config.hidden_act {
                HiddenAct::Gelu => Activation::Gelu,
                HiddenAct::GeluApproximate => Activation::GeluTanh,
                HiddenAct::Relu => Activation::Relu,
            },
            hidden,
            heads: config.num_attention_heads,
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
                let position = &self.positions[row(&self.positions, position)?];
                let of = &self.types[row(&self.types, *of as usize)?];
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
