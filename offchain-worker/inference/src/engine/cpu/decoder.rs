//! A decoder of the Llama family on the processor.

use super::{
    math,
    matrix::{balanced, Step, HEIGHT, NO_SUMS, WIDTH},
    pool::{Parts, Pool},
    quant::{multiply, Isa, Product, QuantMatrix, Vectors},
};

/// The shape of a network, and its constants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Whether the rotary embedding turns neighbours (2i with 2i + 1), or halves of a head (i with i + d/2).
    pub(crate) rope_neighbours: bool,
    /// Heads of queries.
    pub(crate) heads: usize,
    /// Heads of keys and values.
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Width of the network.
    pub(crate) hidden: usize,
    /// What keeps the norms from dividing by zero.
    pub(crate) epsilon: f32,
}

impl Shape {
    /// Whether there is code for it: heads are computed 32 columns at a time.
    pub(crate) fn is_supported(&self) -> bool {
        self.head_dim.is_multiple_of(WIDTH) && self.head_dim > 0 && self.hidden > 0
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn queries(&self) -> usize {
        self.heads * self.head_dim
    }

    fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// A matrix, and what is added to its product.
pub(crate) struct Linear {
    pub(crate) matrix: QuantMatrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    fn product<'a>(&'a self, out: &'a mut [f32]) -> Product<'a> {
        Product { matrix: &self.matrix, bias: self.bias.as_deref(), out, add: false }
    }
}

/// The weights of one layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) feed_norm: Vec<f32>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// Keys and values of the tokens seen so far, of one layer.
#[derive(Default)]
struct Cache {
    /// Per head, per 32 tokens: `head_dim` times 32 values, a token's below each other.
    keys: Vec<f32>,
    /// Per head, per token: `head_dim` values.
    values: Vec<f32>,
}

/// The decoder.
pub(crate) struct CpuDecoder {
    pub(crate) shape: Shape,
    pub(crate) embedding: QuantMatrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Vec<f32>,
    /// `None` when the token table is also the output matrix.
    pub(crate) head: Option<QuantMatrix>,
    /// Cosines and sines of the rotary embedding, `head_dim / 2` per position.
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    caches: Vec<Cache>,
    /// Tokens there is room for, a multiple of 32.
    room: usize,
    isa: Isa,
}

impl CpuDecoder {
    /// The decoder of these weights.
    ///
    /// # Errors
    /// When their sizes do not fit together.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        shape: Shape,
        embedding: QuantMatrix,
        layers: Vec<Layer>,
        norm: Vec<f32>,
        head: Option<QuantMatrix>,
        cos: Vec<f32>,
        sin: Vec<f32>,
    ) -> candle_core::Result<Self> {
        if !shape.is_supported() {
            candle_core::bail!("heads of {} are not a multiple of {WIDTH}", shape.head_dim)
        }
        let linear = |name: &str, linear: &Linear, rows: usize, columns: usize| {
            let found = (linear.matrix.rows(), linear.matrix.columns());
            if found != (rows, columns) || linear.bias.as_ref().is_some_and(|bias| bias.len() != rows) {
                candle_core::bail!("{name} is {found:?}, not ({rows}, {columns})")
            }
            Ok(())
        };
        let (hidden, queries, keys) = (shape.hidden, shape.queries(), shape.keys());
        for layer in &layers {
            linear("a query matrix", &layer.query, queries, hidden)?;
            linear("a key matrix", &layer.key, keys, hidden)?;
            linear("a value matrix", &layer.value, keys, hidden)?;
            linear("an attention output matrix", &layer.output, hidden, queries)?;
            let inner = layer.gate.matrix.rows();
            linear("a gate matrix", &layer.gate, inner, hidden)?;
            linear("an up matrix", &layer.up, inner, hidden)?;
            linear("a down matrix", &layer.down, hidden, inner)?;
        }
        let norms = layers.iter().flat_map(|l| [&l.attention_norm, &l.feed_norm]).chain([&norm]);
        if norms.into_iter().any(|norm| norm.len() != hidden)
            || embedding.columns() != hidden
            || head.as_ref().is_some_and(|head| head.columns() != hidden)
            || cos.len() != sin.len()
        {
            candle_core::bail!("a norm, the token table or the output matrix is not {hidden} wide")
        }
        Ok(Self {
            shape,
            embedding,
            layers,
            norm,
            head,
            cos,
            sin,
            caches: Vec::new(),
            room: 0,
            isa: Isa::detect(),
        })
    }

    /// Computes with other instructions than the best.
    pub(crate) fn set_isa(&mut self, isa: Isa) {
        self.isa = isa;
    }

    /// Forgets what it has seen and makes room for `tokens`.
    pub(crate) fn reset(&mut self, tokens: usize) {
        self.room = tokens.next_multiple_of(WIDTH);
        let size = self.room * self.shape.keys();
        // Zeros, so that columns beyond the last token are numbers.
        let cache = || Cache { keys: vec![0.0; size], values: vec![0.0; size] };
        self.caches = if tokens > 0 { self.layers.iter().map(|_| cache()).collect() } else { Vec::new() };
    }

    /// Sees `tokens`, which follow the `position` tokens seen before; returns the logits of the next one.
    ///
    /// # Errors
    /// When there is no room for the tokens, or one is not in the vocabulary.
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>> {
        let Self { shape, embedding, layers, norm, head, caches, isa, .. } = self;
        let (shape, isa) = (*shape, *isa);
        let half = shape.head_dim / 2;
        let seen = position + tokens.len();
        if tokens.is_empty() || seen > self.room || seen * half > self.cos.len() {
            candle_core::bail!("there is no room for {} tokens after {position}", tokens.len())
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= embedding.rows()) {
            candle_core::bail!("there is no token {token}")
        }
        let pool = &*Pool::current();
        let rotation = Rotation {
            cos: &self.cos[position * half..seen * half],
            sin: &self.sin[position * half..seen * half],
            neighbours: shape.rope_neighbours,
            head_dim: shape.head_dim,
        };

        let (hidden, queries, keys) = (shape.hidden, shape.queries(), shape.keys());
        let mut count = tokens.len();
        let mut x = vec![0f32; count * hidden];
        for (row, token) in x.chunks_exact_mut(hidden).zip(tokens) {
            embedding.row(*token as usize, row);
        }
        let mut normed = vec![0f32; count * hidden];
        let mut query = vec![0f32; count * queries];
        let mut key = vec![0f32; count * keys];
        let mut value = vec![0f32; count * keys];
        let (mut gate, mut up) = (Vec::new(), Vec::new());
        let mut vectors = Vectors::default();
        let last_layer = layers.len().saturating_sub(1);
        for (index, (layer, cache)) in layers.iter().zip(caches).enumerate() {
            normalise(pool, &mut normed, &x, &layer.attention_norm, shape.epsilon);
            vectors.round(pool, &normed, hidden);
            multiply(
                pool,
                isa,
                &vectors,
                &mut [
                    layer.query.product(&mut query),
                    layer.key.product(&mut key),
                    layer.value.product(&mut value),
                ],
            );
            rotation.apply(pool, &mut query, queries);
            rotation.apply(pool, &mut key, keys);
            cache.append(&shape, self.room, position, &key, &value);
            let mut first = position;
            if index == last_layer && count > 1 {
                // Nobody asks for what follows the others.
                first = seen - 1;
                x.drain(..(count - 1) * hidden);
                query.drain(..(count - 1) * queries);
                normed.truncate(hidden);
                count = 1;
            }
            // The queries are not needed any more once they are answered: answers take their place.
            attend(pool, isa, &shape, cache, self.room, first, &mut query);
            vectors.round(pool, &query, queries);
            let product = Product { add: true, ..layer.output.product(&mut x) };
            multiply(pool, isa, &vectors, &mut [product]);

            normalise(pool, &mut normed, &x, &layer.feed_norm, shape.epsilon);
            vectors.round(pool, &normed, hidden);
            let inner = layer.gate.matrix.rows();
            gate.resize(count * inner, 0.0);
            up.resize(count * inner, 0.0);
            let mut products = [layer.gate.product(&mut gate), layer.up.product(&mut up)];
            multiply(pool, isa, &vectors, &mut products);
            by_rows(pool, &mut gate, inner, &|row, gate| {
                math::swiglu(gate, &up[row * inner..][..inner]);
            });
            vectors.round(pool, &gate, inner);
            let product = Product { add: true, ..layer.down.product(&mut x) };
            multiply(pool, isa, &vectors, &mut [product]);
        }

        let last = &x[(count - 1) * hidden..];
        math::rms_norm(&mut normed[..hidden], last, norm, shape.epsilon);
        vectors.round(pool, &normed[..hidden], hidden);
        let head = head.as_ref().unwrap_or(embedding);
        let mut logits = vec![0f32; head.rows()];
        let product = Product { matrix: head, bias: None, out: &mut logits, add: false };
        multiply(pool, isa, &vectors, &mut [product]);
        Ok(logits)
    }
}

/// Calls `job` with every row of `values` and its number, some rows per piece of work.
fn by_rows(pool: &Pool, values: &mut [f32], width: usize, job: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = values.len() / width;
    let pieces = rows.div_ceil(8);
    let parts = Parts::new(values);
    pool.run(pieces, &|piece| {
        let (from, to) = balanced(rows, pieces, piece);
        for row in from..to {
            // SAFETY: every row belongs to one piece of work.
            job(row, unsafe { parts.slice(row * width, width) });
        }
    });
}

fn normalise(pool: &Pool, out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    by_rows(pool, out, width, &|row, out| {
        math::rms_norm(out, &x[row * width..][..width], weight, epsilon);
    });
}

/// The rotary embedding of some positions.
struct Rotation<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    neighbours: bool,
    head_dim: usize,
}

impl Rotation<'_> {
    /// Turns the heads of every row.
    fn apply(&self, pool: &Pool, values: &mut [f32], width: usize) {
        let half = self.head_dim / 2;
        by_rows(pool, values, width, &|row, values| {
            let cos = &self.cos[row * half..][..half];
            let sin = &self.sin[row * half..][..half];
            for head in values.chunks_exact_mut(self.head_dim) {
                if self.neighbours {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = a * sin + b * cos;
                    }
                } else {
                    let (first, second) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
            }
        });
    }
}

impl Cache {
    /// Keeps the keys and values of tokens that follow `position` others.
    fn append(&mut self, shape: &Shape, room: usize, position: usize, keys: &[f32], values: &[f32]) {
        let dim = shape.head_dim;
        let rows = keys.chunks_exact(shape.keys()).zip(values.chunks_exact(shape.keys()));
        for (token, (keys, values)) in (position..).zip(rows) {
            for head in 0..shape.kv_heads {
                let at = (head * room + token / WIDTH * WIDTH) * dim + token % WIDTH;
                let column = self.keys[at..].iter_mut().step_by(WIDTH);
                for (to, from) in column.zip(&keys[head * dim..][..dim]) {
                    *to = *from;
                }
                self.values[(head * room + token) * dim..][..dim]
                    .copy_from_slice(&values[head * dim..][..dim]);
            }
        }
    }
}

/// Replaces queries by the answers to them. The first row of `query` belongs to the token at `position`; each sees itself and
/// what came before it.
fn attend(
    pool: &Pool,
    isa: Isa,
    shape: &Shape,
    cache: &Cache,
    room: usize,
    position: usize,
    query: &mut [f32],
) {
    let (dim, width, group) = (shape.head_dim, shape.queries(), shape.group());
    let count = query.len() / width;
    let scale = 1.0 / (dim as f32).sqrt();
    // A step's rows are the heads of one token that share keys, or some tokens of one head.
    let single = count == 1;
    let (tiles, rows_in_all) =
        if single { (group.div_ceil(HEIGHT), group) } else { (count.div_ceil(HEIGHT), count) };
    let pieces = if single { shape.kv_heads * tiles } else { shape.heads * tiles };
    let all = Parts::new(query);
    pool.run(pieces, &|piece| {
        // The last tiles have the most to look at: they come first.
        let (head, tile) = (piece % (pieces / tiles), tiles - 1 - piece / (pieces / tiles));
        let (from, to) = balanced(rows_in_all, tiles, tile);
        let rows = to - from;
        let (kv_head, start, stride) = if single {
            (head, (head * group + from) * dim, dim)
        } else {
            (head / group, from * width + head * dim, width)
        };
        let mut queries = vec![0f32; rows * dim];
        for (r, to) in queries.chunks_exact_mut(dim).enumerate() {
            // SAFETY: every pair of row and head belongs to one piece of work.
            to.copy_from_slice(unsafe { all.slice(start + r * stride, dim) });
        }
        // How many tokens a row sees.
        let sees = |r: usize| if single { position + 1 } else { position + from + r + 1 };
        let most = sees(rows - 1);
        let padded = most.next_multiple_of(WIDTH);
        let mut scores = vec![0f32; rows * padded];
        let mut sums = NO_SUMS;
        for first in (0..padded).step_by(WIDTH) {
            let step = Step {
                a: &queries,
                a_stride: dim,
                rows,
                b: &cache.keys[(kv_head * room + first) * dim..][..dim * WIDTH],
                b_stride: WIDTH,
                depth: dim,
            };
            step.compute(isa, &mut sums);
            for (scores, sums) in scores.chunks_exact_mut(padded).zip(&sums) {
                scores[first..first + WIDTH].copy_from_slice(sums);
            }
        }
        let mut inverse = [0f32; HEIGHT];
        for (r, (scores, inverse)) in scores.chunks_exact_mut(padded).zip(&mut inverse).enumerate() {
            let (seen, beyond) = scores.split_at_mut(sees(r));
            *inverse = math::softmax_unscaled(seen, scale);
            beyond.fill(0.0);
        }
        let values = &cache.values[kv_head * room * dim..][..room * dim];
        for column in (0..dim).step_by(WIDTH) {
            let step =
                Step { a: &scores, a_stride: padded, rows, b: &values[column..], b_stride: dim, depth: most };
            step.compute(isa, &mut sums);
            for (r, (sums, inverse)) in sums.iter().take(rows).zip(&inverse).enumerate() {
                // SAFETY: every pair of row and head belongs to one piece of work.
                let out = unsafe { all.slice(start + r * stride + column, WIDTH) };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum * inverse;
                }
            }
        }
    });
}
