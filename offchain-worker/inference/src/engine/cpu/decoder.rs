//! A decoder of the Llama family on the processor.
//!
//! Several sequences are decoded at once, each with a slot of the cache. A pass sees tokens of several slots, pieces of prompts
//! and single tokens of answers side by side, and reads the weights once for all of them. What a sequence gives does not depend
//! on what is seen beside it, to the last bit: every row goes through the same operations in the same order.

use super::super::decoder::{Logits, Piece, Slots};
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

/// Keys and values of the tokens seen so far, of one layer of one slot.
struct Cache {
    /// Per head, per 32 tokens: `head_dim` times 32 values, a token's below each other.
    keys: Vec<f32>,
    /// Per head, per token: `head_dim` values.
    values: Vec<f32>,
}

/// What one sequence has seen.
#[derive(Default)]
struct Slot {
    /// By layer.
    caches: Vec<Cache>,
    /// Tokens there is room for, a multiple of 32.
    room: usize,
}

/// Queries that are answered out of one slot: of some tokens that follow each other.
struct Queries {
    slot: usize,
    /// The first token's.
    position: usize,
    /// Where their rows begin, and how many they are.
    row: usize,
    count: usize,
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
    slots: Vec<Slot>,
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
        Ok(Self { shape, embedding, layers, norm, head, cos, sin, slots: Vec::new(), isa: Isa::detect() })
    }

    /// Computes with other instructions than the best.
    #[cfg(test)]
    pub(crate) fn set_isa(&mut self, isa: Isa) {
        self.isa = isa;
    }

    /// Forgets what it has seen and makes room for `tokens` of one sequence.
    #[cfg(test)]
    pub(crate) fn reset(&mut self, tokens: usize) {
        self.release();
        self.make_room(0, 1, tokens).unwrap();
    }

    /// Sees tokens of one sequence.
    #[cfg(test)]
    pub(crate) fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>> {
        self.pass(&[&Piece { slot: 0, tokens, position, last: true }])
    }

    /// Positions that can be seen.
    fn context(&self) -> usize {
        self.cos.len() / (self.shape.head_dim / 2).max(1)
    }

    /// Sees pieces, each of another slot. Returns the logits that were wanted, one row after the other.
    ///
    /// # Errors
    /// When there is no room for the tokens, or one is not in the vocabulary.
    fn pass(&mut self, pieces: &[&Piece<'_>]) -> candle_core::Result<Vec<f32>> {
        let context = self.context();
        let Self { shape, embedding, layers, norm, head, slots, isa, .. } = self;
        let (shape, isa) = (*shape, *isa);
        let (hidden, queries, keys) = (shape.hidden, shape.queries(), shape.keys());
        let mut positions = Vec::new();
        let mut x = Vec::new();
        let mut work = Vec::with_capacity(pieces.len());
        let mut wanted = Vec::new();
        for piece in pieces {
            let Piece { slot, tokens, position, last } = **piece;
            let seen = position + tokens.len();
            if tokens.is_empty() || seen > context || slots.get(slot).is_none_or(|slot| seen > slot.room) {
                candle_core::bail!(
                    "there is no room for {} tokens after {position} in slot {slot}",
                    tokens.len()
                )
            }
            work.push(Queries { slot, position, row: positions.len(), count: tokens.len() });
            positions.extend(position..seen);
            for token in tokens {
                if *token as usize >= embedding.rows() {
                    candle_core::bail!("there is no token {token}")
                }
                let at = x.len();
                x.resize(at + hidden, 0f32);
                embedding.row(*token as usize, &mut x[at..]);
            }
            if last {
                wanted.push(positions.len() - 1);
            }
        }
        let pool = Pool::global();
        let rotation = Rotation {
            cos: &self.cos,
            sin: &self.sin,
            positions: &positions,
            neighbours: shape.rope_neighbours,
            head_dim: shape.head_dim,
        };

        let mut count = positions.len();
        let mut normed = vec![0f32; count * hidden];
        let mut query = vec![0f32; count * queries];
        let mut key = vec![0f32; count * keys];
        let mut value = vec![0f32; count * keys];
        let (mut gate, mut up) = (Vec::new(), Vec::new());
        let mut vectors = Vectors::default();
        let last_layer = layers.len().saturating_sub(1);
        for (index, layer) in layers.iter().enumerate() {
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
            for piece in &work {
                let slot = &mut slots[piece.slot];
                let rows = piece.row * keys..(piece.row + piece.count) * keys;
                slot.caches[index].append(
                    &shape,
                    slot.room,
                    piece.position,
                    &key[rows.clone()],
                    &value[rows],
                );
            }
            if index == last_layer && wanted.len() < count {
                // Nobody asks for what follows the others.
                let slot_of = |row: usize| {
                    let of = work.iter().rev().find(|piece| piece.row <= row);
                    of.map_or(0, |piece| piece.slot)
                };
                work = (0..)
                    .zip(&wanted)
                    .map(|(row, from)| Queries {
                        slot: slot_of(*from),
                        position: positions[*from],
                        row,
                        count: 1,
                    })
                    .collect();
                // Rows move to the front, past none that is still to be moved.
                for (to, from) in wanted.iter().enumerate() {
                    x.copy_within(from * hidden..(from + 1) * hidden, to * hidden);
                    query.copy_within(from * queries..(from + 1) * queries, to * queries);
                }
                count = wanted.len();
                x.truncate(count * hidden);
                query.truncate(count * queries);
                normed.truncate(count * hidden);
                if count == 0 {
                    return Ok(Vec::new());
                }
            }
            // The queries are not needed any more once they are answered: answers take their place.
            attend(pool, isa, &shape, slots, index, &work, &mut query);
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

        normalise(pool, &mut normed, &x, norm, shape.epsilon);
        vectors.round(pool, &normed, hidden);
        let head = head.as_ref().unwrap_or(embedding);
        let mut logits = vec![0f32; count * head.rows()];
        let product = Product { matrix: head, bias: None, out: &mut logits, add: false };
        multiply(pool, isa, &vectors, &mut [product]);
        Ok(logits)
    }
}

impl Slots for CpuDecoder {
    fn budget(&self) -> usize {
        usize::MAX
    }

    fn keeps(&self) -> usize {
        self.context()
    }

    fn prompt_tokens(&self) -> usize {
        PROMPT_TOKENS
    }

    fn room(&self, slots: usize, tokens: usize) -> usize {
        slots.saturating_mul(tokens)
    }

    fn make_room(&mut self, slot: usize, _ample: usize, tokens: usize) -> candle_core::Result<()> {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Slot::default);
        }
        let room = tokens.next_multiple_of(WIDTH);
        if self.slots[slot].room < room {
            let mut larger = Slot::new(&self.shape, self.layers.len(), room);
            larger.copy(&self.shape, &self.slots[slot], self.slots[slot].room);
            self.slots[slot] = larger;
        }
        Ok(())
    }

    fn release(&mut self) {
        self.slots = Vec::new();
    }

    fn free(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Slot::default();
        }
    }

    fn move_slot(&mut self, from: usize, to: usize) -> candle_core::Result<()> {
        self.slots.swap(from, to);
        Ok(())
    }

    fn copy_prefix(&mut self, from: usize, to: usize, tokens: usize) -> candle_core::Result<()> {
        let (low, high) = (from.min(to), from.max(to));
        let (before, after) = self.slots.split_at_mut(high);
        let (from, to) =
            if from < to { (&before[low], &mut after[0]) } else { (&after[0], &mut before[low]) };
        to.copy(&self.shape, from, tokens);
        Ok(())
    }

    fn see(
        &mut self,
        prompts: &[Piece<'_>],
        answers: &[Piece<'_>],
        _seen: &[usize],
    ) -> candle_core::Result<Logits> {
        let pieces: Vec<&Piece<'_>> = prompts.iter().chain(answers).collect();
        let values = self.pass(&pieces)?;
        let width = self.head.as_ref().unwrap_or(&self.embedding).rows();
        Ok(Logits::Host { values, width })
    }
}

/// Tokens of prompts that are seen beside one token of each answer under way: as many as make good use of the arithmetic, few
/// enough that nobody waits long.
const PROMPT_TOKENS: usize = 128;

impl Slot {
    fn new(shape: &Shape, layers: usize, room: usize) -> Self {
        let size = room * shape.keys();
        // Zeros, so that columns beyond the last token are numbers.
        let cache = |_| Cache { keys: vec![0.0; size], values: vec![0.0; size] };
        Self { caches: (0..layers).map(cache).collect(), room }
    }

    /// Takes over the first `tokens` of another slot.
    fn copy(&mut self, shape: &Shape, from: &Slot, tokens: usize) {
        let dim = shape.head_dim;
        let tokens = tokens.min(from.room).min(self.room);
        // Whole blocks of keys: what lies behind the tokens is overwritten, or masked.
        let block = tokens.next_multiple_of(WIDTH).min(from.room).min(self.room);
        for (to, source) in self.caches.iter_mut().zip(&from.caches) {
            for head in 0..shape.kv_heads {
                let (at, of) = (head * self.room * dim, head * from.room * dim);
                to.keys[at..][..block * dim].copy_from_slice(&source.keys[of..][..block * dim]);
                to.values[at..][..tokens * dim].copy_from_slice(&source.values[of..][..tokens * dim]);
            }
        }
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

/// The rotary embedding of rows at some positions.
struct Rotation<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    positions: &'a [usize],
    neighbours: bool,
    head_dim: usize,
}

impl Rotation<'_> {
    /// Turns the heads of every row.
    fn apply(&self, pool: &Pool, values: &mut [f32], width: usize) {
        let half = self.head_dim / 2;
        by_rows(pool, values, width, &|row, values| {
            let position = self.positions[row];
            let cos = &self.cos[position * half..][..half];
            let sin = &self.sin[position * half..][..half];
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

/// Replaces queries by the answers to them, out of one layer's cache; each token sees itself and what came before it.
fn attend(
    pool: &Pool,
    isa: Isa,
    shape: &Shape,
    slots: &[Slot],
    layer: usize,
    work: &[Queries],
    query: &mut [f32],
) {
    let group = shape.group();
    // A step's rows are the heads of one token that share keys, or some tokens of one head. The last tiles have the most to look
    // at: they come first.
    let mut pieces = Vec::new();
    for (index, queries) in work.iter().enumerate() {
        let (heads, tiles) = match queries.count {
            1 => (shape.kv_heads, group.div_ceil(HEIGHT)),
            count => (shape.heads, count.div_ceil(HEIGHT)),
        };
        pieces
            .extend((0..tiles).rev().flat_map(|tile| (0..heads).map(move |head| (index, head, tile, tiles))));
    }
    let all = Parts::new(query);
    pool.run(pieces.len(), &|piece| {
        let (index, head, tile, tiles) = pieces[piece];
        let queries = &work[index];
        let slot = &slots[queries.slot];
        answer(isa, shape, slot, layer, queries, (head, tile, tiles), &all);
    });
}

/// One tile of [`attend`].
fn answer(
    isa: Isa,
    shape: &Shape,
    slot: &Slot,
    layer: usize,
    queries: &Queries,
    (head, tile, tiles): (usize, usize, usize),
    all: &Parts<'_, f32>,
) {
    let (dim, width, group) = (shape.head_dim, shape.queries(), shape.group());
    let (cache, room, position) = (&slot.caches[layer], slot.room, queries.position);
    let scale = 1.0 / (dim as f32).sqrt();
    let single = queries.count == 1;
    let (from, to) = balanced(if single { group } else { queries.count }, tiles, tile);
    let rows = to - from;
    let (kv_head, start, stride) = if single {
        (head, queries.row * width + (head * group + from) * dim, dim)
    } else {
        (head / group, (queries.row + from) * width + head * dim, width)
    };
    let mut vectors = vec![0f32; rows * dim];
    for (r, to) in vectors.chunks_exact_mut(dim).enumerate() {
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
            a: &vectors,
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
}
