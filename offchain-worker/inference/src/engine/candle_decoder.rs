//! Decoders of the Llama family (Llama, Mistral, SmolLM2, Qwen2, Qwen3, Gemma 2 and 3, Phi-3, mixtures of experts) on candle's
//! operations: on GPUs, and on processors that our
//! own code has no kernels for. Weights come out of GGUF or safetensors files.
//!
//! Several sequences are decoded at once. Each has a *slot* of the cache: the keys and values of its tokens. Prompts are seen
//! in pieces, those of several slots together ([`CandleDecoder::pieces`]); a step ([`CandleDecoder::step`]) then sees one token of
//! each of the first slots, however long their sequences are. Slots are as long as the longest sequence needs; what lies behind a
//! sequence's end is masked.
//!
//! candle-transformers has these models too. What is kept here it has not: several sequences of different lengths, quantised
//! token tables, prompts in pieces on every path, positions that are exact in every precision.

use super::device::{free_bytes, Numbers};
use candle_core::{
    quantized::{GgmlDType, QMatMul, QTensor},
    DType, Device, Tensor, D,
};
use candle_nn::{ops, rotary_emb};

/// Slots grow by this many tokens, so that a growing batch is not copied for each request.
const GRAIN: usize = 256;

/// What is added to the score of a token that may not be looked at: its weight is 0 in every precision, and a sum with it
/// stays finite.
const HIDDEN: f64 = -60_000.0;

/// Of a card's free memory, the part that weights may take, in percent: the rest is for keys, values and intermediate
/// results.
const WEIGHTS_PERCENT: usize = 85;

/// How the rotary embedding pairs the components of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rope {
    /// Neighbours: 2i with 2i+1. Llama's GGUF files are permuted for it.
    Interleaved,
    /// Halves: i with i + d/2.
    Halves,
}

/// How positions turn the components of a head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Positions {
    /// Radians per position of each pair of components. Components beyond twice as many do not turn.
    pub(crate) frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub(crate) magnitude: f32,
}

impl From<Vec<f32>> for Positions {
    fn from(frequencies: Vec<f32>) -> Self {
        Self { frequencies, magnitude: 1.0 }
    }
}

/// Layers that look at the last tokens only.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// How many, the token itself included.
    pub(crate) window: usize,
    /// Which layers do.
    pub(crate) layers: Vec<bool>,
    /// Theirs; the others' where there are none.
    pub(crate) positions: Option<Positions>,
}

/// What bends the gate of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bend {
    Silu,
    /// By the hyperbolic tangent.
    GeluTanh,
}

/// Several feed-forward parts, of which each token uses some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    pub(crate) used: usize,
    /// Whether the weights of those that are used add up to 1.
    pub(crate) normalise: bool,
}

/// What a network is, besides its weights.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) rope: Rope,
    pub(crate) positions: Positions,
    pub(crate) local: Option<Local>,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Of the norms.
    pub(crate) epsilon: f32,
    /// What scores are multiplied by: mostly 1/√d.
    pub(crate) score_scale: f32,
    /// What token vectors are multiplied by: mostly 1.
    pub(crate) embedding_scale: f32,
    /// c · tanh(x / c) of scores.
    pub(crate) score_cap: Option<f32>,
    /// c · tanh(x / c) of logits.
    pub(crate) logit_cap: Option<f32>,
    pub(crate) bend: Bend,
    pub(crate) experts: Option<Experts>,
}

impl Network {
    /// A network as Llama's, without any of what others added.
    pub(crate) fn plain(
        rope: Rope,
        positions: impl Into<Positions>,
        layers: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        epsilon: f32,
    ) -> Self {
        Self {
            rope,
            positions: positions.into(),
            local: None,
            layers,
            heads,
            kv_heads,
            head_dim,
            epsilon,
            score_scale: (head_dim as f32).powf(-0.5),
            embedding_scale: 1.0,
            score_cap: None,
            logit_cap: None,
            bend: Bend::Silu,
            experts: None,
        }
    }

    /// Whether a layer looks at the last tokens only.
    fn is_local(&self, layer: usize) -> bool {
        self.local.as_ref().is_some_and(|local| local.layers.get(layer).copied().unwrap_or(false))
    }
}

/// One tensor of a file, on the device.
pub(crate) enum Weight {
    Dense(Tensor),
    Quantised(QTensor),
}

impl Weight {
    /// A tensor of a GGUF file. Where `keep` is false, what is quantised becomes numbers of the device.
    pub(crate) fn from_gguf(tensor: QTensor, keep: bool) -> candle_core::Result<Self> {
        let plain = matches!(tensor.dtype(), GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
        if keep && !plain {
            return Ok(Self::Quantised(tensor));
        }
        tensor.dequantize(&tensor.device()).map(Self::Dense)
    }
}

/// Whether weights of so many numbers, made dense, leave room on the device for the rest.
pub(crate) fn fits_dense(device: &Device, numbers: Numbers, elements: usize) -> bool {
    let bytes = elements.saturating_mul(numbers.matrix.size_in_bytes());
    free_bytes(device).is_none_or(|free| bytes <= free / 100 * WEIGHTS_PERCENT)
}

/// The tensor of this name, which must be there.
fn need(
    get: &mut impl FnMut(&str) -> candle_core::Result<Option<Weight>>,
    name: &str,
) -> candle_core::Result<Weight> {
    match get(name)? {
        Some(weight) => Ok(weight),
        None => candle_core::bail!("the file has no tensor `{name}`"),
    }
}

/// A matrix that vectors are multiplied by.
enum Matrix {
    /// (rows, columns)
    Dense(Tensor),
    Quantised(QMatMul),
}

impl Matrix {
    fn new(weight: Weight, dtype: DType) -> candle_core::Result<Self> {
        match weight {
            Weight::Dense(tensor) => tensor.to_dtype(dtype).map(Self::Dense),
            Weight::Quantised(tensor) => QMatMul::from_qtensor(tensor).map(Self::Quantised),
        }
    }

    /// `x` is (tokens, columns); the product has the type of the matrix's numbers, f32 where they are quantised.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(matrix) => x.to_dtype(matrix.dtype())?.matmul(&matrix.t()?),
            Self::Quantised(matrix) => candle_core::Module::forward(matrix, &x.to_dtype(DType::F32)?),
        }
    }

    /// The rows that belong to these ids: the matrix as a token table.
    fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(matrix) => matrix.index_select(ids, 0)?.to_dtype(DType::F32),
            Self::Quantised(matrix) => matrix.embedding(ids)?.to_dtype(DType::F32),
        }
    }
}

/// A matrix and what is added to the product.
struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

impl Linear {
    /// As [`Matrix::forward`]; in f32 where something is added.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = self.matrix.forward(x)?;
        match &self.bias {
            Some(bias) => product.to_dtype(DType::F32)?.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

/// Matrices that the same vectors are multiplied by; their products lie side by side. Dense ones are one.
struct Joined(Vec<Linear>);

impl Joined {
    fn new(parts: Vec<Linear>) -> candle_core::Result<Self> {
        let dense: Option<Vec<&Tensor>> = parts
            .iter()
            .map(|part| match &part.matrix {
                Matrix::Dense(matrix) => Some(matrix),
                Matrix::Quantised(_) => None,
            })
            .collect();
        let Some(matrices) = dense else { return Ok(Self(parts)) };
        let bias = if parts.iter().any(|part| part.bias.is_some()) {
            let biases = parts.iter().zip(&matrices).map(|(part, matrix)| match &part.bias {
                Some(bias) => Ok(bias.clone()),
                None => Tensor::zeros(matrix.dim(0)?, DType::F32, matrix.device()),
            });
            Some(Tensor::cat(&biases.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        } else {
            None
        };
        let matrix = if matrices.len() == 1 { matrices[0].clone() } else { Tensor::cat(&matrices, 0)? };
        Ok(Self(vec![Linear { matrix: Matrix::Dense(matrix), bias }]))
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.0.as_slice() {
            [part] => part.forward(x),
            parts => {
                let products = parts.iter().map(|part| part.forward(x));
                Tensor::cat(&products.collect::<candle_core::Result<Vec<_>>>()?, 1)
            }
        }
    }
}

/// A feed-forward part: gate, up and down. Where a file has gate and up in one, they are `up`.
struct Feed {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl Feed {
    /// What may outgrow f16 does so here: the product is made in `down`, the numbers of the matrix that takes it.
    fn forward(&self, x: &Tensor, bend: Bend, down: DType) -> candle_core::Result<Tensor> {
        let up = self.up.forward(x)?.to_dtype(down)?;
        let (gate, up) = match &self.gate {
            Some(gate) => (gate.forward(x)?.to_dtype(down)?, up),
            None => {
                let halves = up.chunk(2, D::Minus1)?;
                (halves[0].contiguous()?, halves[1].contiguous()?)
            }
        };
        let gate = match bend {
            Bend::Silu => gate.silu(),
            Bend::GeluTanh => gate.gelu(),
        }?;
        self.down.forward(&(gate * up)?)?.to_dtype(DType::F32)
    }
}

/// The feed-forward part of a layer.
enum FeedForward {
    One(Feed),
    /// What weighs the experts, and they.
    Several(Linear, Vec<Feed>, Experts),
}

impl FeedForward {
    /// `x` is (tokens, width) in f32, and so is what comes out.
    fn forward(&self, x: &Tensor, bend: Bend, numbers: Numbers) -> candle_core::Result<Tensor> {
        let (router, feeds, experts) = match self {
            Self::One(feed) => return feed.forward(&x.to_dtype(numbers.matrix)?, bend, numbers.down),
            Self::Several(router, feeds, experts) => (router, feeds, experts),
        };
        let chances = ops::softmax_last_dim(&router.forward(x)?.to_dtype(DType::F32)?)?.to_vec2::<f32>()?;
        // By expert: the tokens that use it, and with which weight.
        let mut uses: Vec<(Vec<u32>, Vec<f32>)> = feeds.iter().map(|_| Default::default()).collect();
        for (token, chances) in (0u32..).zip(&chances) {
            let mut order: Vec<usize> = (0..chances.len()).collect();
            order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
            order.truncate(experts.used);
            let sum: f32 = if experts.normalise { order.iter().map(|e| chances[*e]).sum() } else { 1.0 };
            for expert in order {
                uses[expert].0.push(token);
                uses[expert].1.push(chances[expert] / sum);
            }
        }
        let mut out = x.zeros_like()?;
        let x = x.to_dtype(numbers.matrix)?;
        for (feed, (tokens, weights)) in feeds.iter().zip(uses) {
            if tokens.is_empty() {
                continue;
            }
            let count = tokens.len();
            let tokens = Tensor::from_vec(tokens, count, x.device())?;
            let weights = Tensor::from_vec(weights, (count, 1), x.device())?;
            let own = feed.forward(&x.index_select(&tokens, 0)?, bend, numbers.down)?;
            out = out.index_add(&tokens, &own.broadcast_mul(&weights)?, 0)?;
        }
        Ok(out)
    }
}

struct Layer {
    attention_norm: Tensor,
    /// Query, key, value.
    qkv: Joined,
    /// Of each head's query and key, where the network has them.
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    output: Linear,
    /// Of what attention and the feed-forward part give, where the network has them.
    attention_post_norm: Option<Tensor>,
    feed_post_norm: Option<Tensor>,
    feed_norm: Tensor,
    feed: FeedForward,
    /// (slots, key heads, tokens, d) each.
    cache: Option<(Tensor, Tensor)>,
}

/// Tokens of one slot's prompt, which follow the `position` tokens that it has seen.
pub(crate) struct Piece<'a> {
    pub(crate) slot: usize,
    pub(crate) tokens: &'a [u32],
    pub(crate) position: usize,
    /// Whether the logits of the next token are wanted.
    pub(crate) last: bool,
}

/// The tokens that a pass sees.
enum Pass<'a> {
    /// Pieces of prompts, one after the other, with their masks.
    Pieces(&'a [(&'a Piece<'a>, Masks)]),
    /// The next token of each of the first slots.
    Step(&'a Step),
}

/// What all layers of a step share.
struct Step {
    /// Where each slot's key goes: its position, (slots, key heads, 1, d).
    index: Tensor,
    masks: Masks,
    /// The longest sequence, with the token that is seen now.
    seen: usize,
}

/// Cosines and sines of the rotary embedding, (positions, turning components / 2) each. Both are multiplied by the root of the
/// scale of scores: scores then need none.
struct Turns {
    cos: Tensor,
    sin: Tensor,
}

impl Turns {
    fn new(positions: &Positions, count: usize, scale: f64, device: &Device) -> candle_core::Result<Self> {
        let (cos, sin) = rotations(&positions.frequencies, count, device)?;
        let scale = scale * f64::from(positions.magnitude);
        Ok(Self { cos: (cos * scale)?, sin: (sin * scale)? })
    }
}

/// What is added to scores: of layers that look at everything before, and of those that look at the last tokens only.
struct Masks {
    everywhere: Option<Tensor>,
    nearby: Option<Tensor>,
}

/// The cosines and sines of the positions that a pass sees: of layers that look at everything, and of the others.
struct Turned {
    everywhere: (Tensor, Tensor),
    nearby: Option<(Tensor, Tensor)>,
}

/// What one layer is told.
struct Told<'a> {
    /// Whether it looks at the last tokens only.
    nearby: bool,
    cos: &'a Tensor,
    sin: &'a Tensor,
}

impl Told<'_> {
    fn mask<'m>(&self, masks: &'m Masks) -> Option<&'m Tensor> {
        if self.nearby { &masks.nearby } else { &masks.everywhere }.as_ref()
    }
}

/// The decoder.
pub(crate) struct CandleDecoder {
    device: Device,
    numbers: Numbers,
    network: Network,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    /// `None` when the token table is also the output matrix.
    head: Option<Matrix>,
    turns: Turns,
    local_turns: Option<Turns>,
    slots: usize,
    capacity: usize,
}

impl CandleDecoder {
    /// Puts the network together out of the tensors that `get` has, by their GGUF names; positions up to `context` can be
    /// seen.
    pub(crate) fn new(
        network: Network,
        numbers: Numbers,
        context: usize,
        device: &Device,
        mut get: impl FnMut(&str) -> candle_core::Result<Option<Weight>>,
    ) -> candle_core::Result<Self> {
        let vector = |weight: Weight| match weight {
            Weight::Dense(tensor) => tensor.to_dtype(DType::F32),
            Weight::Quantised(tensor) => tensor.dequantize(&tensor.device()),
        };
        let embedding = Matrix::new(need(&mut get, "token_embd.weight")?, numbers.matrix)?;
        let norm = vector(need(&mut get, "output_norm.weight")?)?;
        let mut layers = Vec::with_capacity(network.layers);
        for index in 0..network.layers {
            let name = |name: &str| format!("blk.{index}.{name}");
            let attention_norm = vector(need(&mut get, &name("attn_norm.weight"))?)?;
            let feed_norm = vector(need(&mut get, &name("ffn_norm.weight"))?)?;
            let mut optional = |tensor: &str| get(&name(tensor))?.map(vector).transpose();
            let query_norm = optional("attn_q_norm.weight")?;
            let key_norm = optional("attn_k_norm.weight")?;
            let attention_post_norm = optional("post_attention_norm.weight")?;
            let feed_post_norm = optional("post_ffw_norm.weight")?;
            for norm in [&query_norm, &key_norm].into_iter().flatten() {
                if norm.elem_count() != network.head_dim {
                    candle_core::bail!(
                        "a norm of {} numbers for heads of {}",
                        norm.elem_count(),
                        network.head_dim
                    )
                }
            }
            let mut linear = |tensor: &str, dtype: DType| -> candle_core::Result<Option<Linear>> {
                let Some(weight) = get(&name(&format!("{tensor}.weight")))? else { return Ok(None) };
                let bias = get(&name(&format!("{tensor}.bias")))?.map(vector).transpose()?;
                Ok(Some(Linear { matrix: Matrix::new(weight, dtype)?, bias }))
            };
            let there = |tensor: &str, found: Option<Linear>| match found {
                Some(linear) => Ok(linear),
                None => candle_core::bail!("the file has no tensor `{}`", name(&format!("{tensor}.weight"))),
            };
            let matrix = numbers.matrix;
            // Some files have them joined already.
            let qkv = match linear("attn_qkv", matrix)? {
                Some(joined) => vec![joined],
                None => ["attn_q", "attn_k", "attn_v"]
                    .into_iter()
                    .map(|tensor| there(tensor, linear(tensor, matrix)?))
                    .collect::<candle_core::Result<_>>()?,
            };
            let output = there("attn_output", linear("attn_output", matrix)?)?;
            let mut feed = |expert: Option<usize>| -> candle_core::Result<Feed> {
                let full = |tensor: &str| match expert {
                    Some(expert) => format!("{tensor}_exps.{expert}"),
                    None => tensor.to_string(),
                };
                let [gate, up, down] = ["ffn_gate", "ffn_up", "ffn_down"].map(full);
                Ok(Feed {
                    gate: linear(&gate, matrix)?,
                    up: there(&up, linear(&up, matrix)?)?,
                    down: there(&down, linear(&down, numbers.down)?)?,
                })
            };
            let feed = match network.experts {
                None => FeedForward::One(feed(None)?),
                Some(experts) => {
                    let feeds =
                        (0..experts.count).map(|e| feed(Some(e))).collect::<candle_core::Result<_>>()?;
                    // Which experts a token uses must not hang on rounding.
                    let router = there("ffn_gate_inp", linear("ffn_gate_inp", DType::F32)?)?;
                    FeedForward::Several(router, feeds, experts)
                }
            };
            layers.push(Layer {
                attention_norm,
                qkv: Joined::new(qkv)?,
                query_norm,
                key_norm,
                output,
                attention_post_norm,
                feed_post_norm,
                feed_norm,
                feed,
                cache: None,
            });
        }
        let head = get("output.weight")?.map(|weight| Matrix::new(weight, numbers.matrix)).transpose()?;
        let scale = f64::from(network.score_scale).sqrt();
        let turns = Turns::new(&network.positions, context, scale, device)?;
        let local = network.local.as_ref().and_then(|local| local.positions.as_ref());
        let local_turns = local.map(|own| Turns::new(own, context, scale, device)).transpose()?;
        Ok(Self {
            device: device.clone(),
            numbers,
            embedding,
            layers,
            norm,
            head,
            turns,
            local_turns,
            slots: 0,
            capacity: 0,
            network,
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that a token takes in the cache.
    pub(crate) fn token_bytes(&self) -> usize {
        let Network { layers, kv_heads, head_dim, .. } = self.network;
        2 * layers * kv_heads * head_dim * self.numbers.cache.size_in_bytes()
    }

    /// Tokens that the cache has room for when `slots` of them are to hold `tokens` each.
    pub(crate) fn room(&self, slots: usize, tokens: usize) -> usize {
        slots.max(self.slots) * tokens.next_multiple_of(GRAIN).max(self.capacity)
    }

    /// Makes room for so many slots of so many tokens. What is in the cache stays.
    pub(crate) fn reserve(&mut self, slots: usize, tokens: usize) -> candle_core::Result<()> {
        let slots = slots.max(self.slots);
        let capacity = if tokens > self.capacity { tokens.next_multiple_of(GRAIN) } else { self.capacity };
        if (slots, capacity) == (self.slots, self.capacity) {
            return Ok(());
        }
        let shape = (slots, self.network.kv_heads, capacity, self.network.head_dim);
        let grown = |old: Option<&Tensor>| {
            // Zeros: what was never written must not be NaN, even where its weight is 0.
            let new = Tensor::zeros(shape, self.numbers.cache, &self.device)?;
            if let Some(old) = old {
                new.narrow(0, 0, old.dim(0)?)?.slice_set(old, 2, 0)?;
            }
            candle_core::Result::Ok(new)
        };
        for layer in &mut self.layers {
            // One layer after the other, so that never more than one is there twice.
            let keys = grown(layer.cache.as_ref().map(|(keys, _)| keys))?;
            let values = grown(layer.cache.as_ref().map(|(_, values)| values))?;
            layer.cache = Some((keys, values));
        }
        (self.slots, self.capacity) = (slots, capacity);
        Ok(())
    }

    /// Forgets everything and frees the cache.
    pub(crate) fn release(&mut self) {
        for layer in &mut self.layers {
            layer.cache = None;
        }
        (self.slots, self.capacity) = (0, 0);
    }

    /// Puts what slot `from` holds into slot `to`.
    pub(crate) fn move_slot(&mut self, from: usize, to: usize) -> candle_core::Result<()> {
        for (keys, values) in self.layers.iter().filter_map(|layer| layer.cache.as_ref()) {
            for cache in [keys, values] {
                cache.slice_set(&cache.narrow(0, from, 1)?.copy()?, 0, to)?;
            }
        }
        Ok(())
    }

    /// Sees pieces of prompts, each of another slot. Returns the logits that were wanted, (wanted, vocabulary), in order.
    pub(crate) fn pieces(&mut self, pieces: &[Piece<'_>]) -> candle_core::Result<Option<Tensor>> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut wanted = Vec::new();
        let mut masked = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Piece { slot, position, .. } = *piece;
            let end = position + piece.tokens.len();
            if slot >= self.slots || end > self.capacity {
                candle_core::bail!("no room was made for {end} tokens in slot {slot}")
            }
            tokens.extend_from_slice(piece.tokens);
            positions.extend(position as u32..end as u32);
            if piece.last {
                wanted.push(tokens.len().saturating_sub(1) as u32);
            }
            let rows = Tensor::arange(position as u32, end as u32, &self.device)?;
            let rows = rows.reshape((piece.tokens.len(), 1))?;
            masked.push((piece, self.masks(&rows, end, piece.tokens.len() == 1)?));
        }
        if tokens.is_empty() {
            candle_core::bail!("there are no tokens to see")
        }
        let positions = Tensor::new(positions, &self.device)?;
        let turned = self.turned(|turns| {
            Ok((turns.cos.index_select(&positions, 0)?, turns.sin.index_select(&positions, 0)?))
        })?;
        let x = self.layers(self.embed(&tokens)?, &turned, &Pass::Pieces(&masked))?;
        if wanted.is_empty() {
            return Ok(None);
        }
        self.logits(&x.index_select(&Tensor::new(wanted, &self.device)?, 0)?).map(Some)
    }

    /// Sees one token of each of the first slots, which follows the `positions` tokens that each has seen; returns the logits
    /// of the next ones, (slots, vocabulary).
    pub(crate) fn step(&mut self, tokens: &[u32], positions: &[usize]) -> candle_core::Result<Tensor> {
        let count = tokens.len();
        let seen = positions.iter().max().map_or(0, |longest| longest + 1);
        if positions.len() != count || count > self.slots || seen > self.capacity {
            candle_core::bail!("no room was made for {count} slots of {seen} tokens")
        }
        let Network { kv_heads, head_dim, .. } = self.network;
        let alike = positions.iter().all(|position| position + 1 == seen);
        let positions: Vec<u32> = positions.iter().map(|position| *position as u32).collect();
        let positions = Tensor::new(positions, &self.device)?;
        let rows = positions.reshape((count, 1, 1, 1))?;
        let masks = self.masks(&rows, seen, alike)?;
        let index = rows.broadcast_as((count, kv_heads, 1, head_dim))?.contiguous()?;
        let turned = self.turned(|turns| {
            Ok((
                turns.cos.index_select(&positions, 0)?.unsqueeze(1)?,
                turns.sin.index_select(&positions, 0)?.unsqueeze(1)?,
            ))
        })?;
        let x = self.layers(self.embed(tokens)?, &turned, &Pass::Step(&Step { index, masks, seen }))?;
        self.logits(&x)
    }

    fn embed(&self, tokens: &[u32]) -> candle_core::Result<Tensor> {
        let x = self.embedding.rows(&Tensor::new(tokens, &self.device)?)?;
        let scale = self.network.embedding_scale;
        if scale == 1.0 {
            Ok(x)
        } else {
            x * f64::from(scale)
        }
    }

    /// The cosines and sines that `turn` takes out of the tables.
    fn turned(
        &self,
        turn: impl Fn(&Turns) -> candle_core::Result<(Tensor, Tensor)>,
    ) -> candle_core::Result<Turned> {
        Ok(Turned {
            everywhere: turn(&self.turns)?,
            nearby: self.local_turns.as_ref().map(turn).transpose()?,
        })
    }

    /// The masks of tokens at the positions `rows`; where `last` says so they are the last ones of what was seen.
    fn masks(&self, rows: &Tensor, seen: usize, last: bool) -> candle_core::Result<Masks> {
        let everywhere = if last { None } else { Some(self.mask(rows, seen, None)?) };
        let nearby = match &self.network.local {
            Some(local) if seen > local.window => Some(self.mask(rows, seen, Some(local.window))?),
            _ => everywhere.clone(),
        };
        Ok(Masks { everywhere, nearby })
    }

    /// What is added to scores so that a token at a position of `rows` looks at no later one, nor at one that lies a window or
    /// more behind: (…, seen).
    fn mask(&self, rows: &Tensor, seen: usize, window: Option<usize>) -> candle_core::Result<Tensor> {
        let columns = Tensor::arange(0, seen as u32, &self.device)?;
        let mut hidden = columns.broadcast_gt(rows)?;
        if let Some(window) = window {
            let ends = Tensor::arange(window as u32, (seen + window) as u32, &self.device)?;
            hidden = (hidden + ends.broadcast_le(rows)?)?;
        }
        hidden.to_dtype(self.numbers.cache)?.affine(HIDDEN, 0.0)
    }

    fn layers(&self, mut x: Tensor, turned: &Turned, pass: &Pass<'_>) -> candle_core::Result<Tensor> {
        let epsilon = self.network.epsilon;
        let normed = |x: Tensor, norm: &Option<Tensor>| match norm {
            Some(norm) => ops::rms_norm(&x, norm, epsilon),
            None => Ok(x),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let nearby = self.network.is_local(index);
            let (cos, sin) = match &turned.nearby {
                Some(own) if nearby => own,
                _ => &turned.everywhere,
            };
            let told = Told { nearby, cos, sin };
            let qkv = layer
                .qkv
                .forward(&ops::rms_norm(&x, &layer.attention_norm, epsilon)?)?
                .to_dtype(DType::F32)?;
            let mixed = match pass {
                Pass::Pieces(pieces) => self.attend_pieces(layer, &qkv, &told, pieces),
                Pass::Step(step) => self.attend_step(layer, &qkv, &told, step),
            }?;
            let mixed = layer.output.forward(&mixed)?.to_dtype(DType::F32)?;
            x = (x + normed(mixed, &layer.attention_post_norm)?)?;
            let fed = ops::rms_norm(&x, &layer.feed_norm, epsilon)?;
            let fed = layer.feed.forward(&fed, self.network.bend, self.numbers)?;
            x = (x + normed(fed, &layer.feed_post_norm)?)?;
        }
        Ok(x)
    }

    fn logits(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = ops::rms_norm(x, &self.norm, self.network.epsilon)?;
        let logits = self.head.as_ref().unwrap_or(&self.embedding).forward(&x)?.to_dtype(DType::F32)?;
        capped(logits, self.network.logit_cap)
    }

    /// Query, key and value of each head, (tokens, heads, d), the first two normed where the network does.
    fn heads(&self, layer: &Layer, qkv: &Tensor) -> candle_core::Result<Tensor> {
        let Network { heads, kv_heads, head_dim, epsilon, .. } = self.network;
        let qkv = qkv.reshape((qkv.dim(0)?, heads + 2 * kv_heads, head_dim))?;
        let (Some(query), Some(key)) = (&layer.query_norm, &layer.key_norm) else { return Ok(qkv) };
        let part = |from: usize, count: usize| qkv.narrow(1, from, count)?.contiguous();
        Tensor::cat(
            &[
                ops::rms_norm(&part(0, heads)?, query, epsilon)?,
                ops::rms_norm(&part(heads, kv_heads)?, key, epsilon)?,
                part(heads + kv_heads, kv_heads)?,
            ],
            1,
        )
    }

    /// `x` is (batch, heads, tokens, d).
    fn rotate(&self, x: &Tensor, told: &Told<'_>) -> candle_core::Result<Tensor> {
        let turn = |x: &Tensor| match self.network.rope {
            Rope::Interleaved => rotary_emb::rope_i(x, told.cos, told.sin),
            Rope::Halves => rotary_emb::rope(x, told.cos, told.sin),
        };
        let (dim, turning) = (self.network.head_dim, 2 * told.cos.dim(D::Minus1)?);
        if turning == dim {
            return turn(x)?.to_dtype(self.numbers.cache);
        }
        let rest = x.narrow(D::Minus1, turning, dim - turning)?;
        let rest = (rest * f64::from(self.network.score_scale).sqrt())?;
        let turned = turn(&x.narrow(D::Minus1, 0, turning)?.contiguous()?)?;
        Tensor::cat(&[turned, rest], D::Minus1)?.to_dtype(self.numbers.cache)
    }

    fn cache<'a>(&self, layer: &'a Layer) -> candle_core::Result<(&'a Tensor, &'a Tensor)> {
        match &layer.cache {
            Some((keys, values)) => Ok((keys, values)),
            None => candle_core::bail!("no room was made for tokens"),
        }
    }

    fn attend_pieces(
        &self,
        layer: &Layer,
        qkv: &Tensor,
        told: &Told<'_>,
        pieces: &[(&Piece<'_>, Masks)],
    ) -> candle_core::Result<Tensor> {
        let Network { heads, kv_heads, head_dim, .. } = self.network;
        // (tokens, heads · d) → (heads, tokens, d)
        let qkv = self.heads(layer, qkv)?.transpose(0, 1)?;
        let rotated = self
            .rotate(&qkv.narrow(0, 0, heads + kv_heads)?.contiguous()?.unsqueeze(0)?, told)?
            .squeeze(0)?;
        let value = qkv.narrow(0, heads + kv_heads, kv_heads)?.contiguous()?.to_dtype(self.numbers.cache)?;
        let (keys, values) = self.cache(layer)?;
        let mut offset = 0;
        let mut mixed = Vec::with_capacity(pieces.len());
        for (piece, masks) in pieces {
            let count = piece.tokens.len();
            let seen = piece.position + count;
            let own = |cache: &Tensor, new: &Tensor| -> candle_core::Result<Tensor> {
                let own = cache.narrow(0, piece.slot, 1)?;
                own.slice_set(&new.narrow(1, offset, count)?.contiguous()?.unsqueeze(0)?, 2, piece.position)?;
                own.squeeze(0)?.narrow(1, 0, seen)
            };
            let keys = own(keys, &rotated.narrow(0, heads, kv_heads)?)?;
            let values = own(values, &value)?;
            // The heads that share keys are laid one below the other, so that keys need not be repeated.
            let group = heads / kv_heads;
            let query = rotated.narrow(0, 0, heads)?.narrow(1, offset, count)?;
            let query = query.reshape((kv_heads, group * count, head_dim))?;
            let scores = capped(query.matmul(&keys.transpose(1, 2)?)?, self.network.score_cap)?;
            let scores = match told.mask(masks) {
                Some(mask) => scores.reshape((heads, count, seen))?.broadcast_add(mask)?.reshape((
                    kv_heads,
                    group * count,
                    seen,
                ))?,
                None => scores,
            };
            let seen = ops::softmax_last_dim(&scores)?.matmul(&values)?;
            let seen = seen.reshape((heads, count, head_dim))?.transpose(0, 1)?;
            mixed.push(seen.reshape((count, heads * head_dim))?);
            offset += count;
        }
        match mixed.as_slice() {
            [mixed] => Ok(mixed.clone()),
            mixed => Tensor::cat(mixed, 0),
        }
    }

    fn attend_step(
        &self,
        layer: &Layer,
        qkv: &Tensor,
        told: &Told<'_>,
        step: &Step,
    ) -> candle_core::Result<Tensor> {
        let Network { heads, kv_heads, head_dim, .. } = self.network;
        let count = qkv.dim(0)?;
        let qkv = self.heads(layer, qkv)?.unsqueeze(2)?;
        let rotated = self.rotate(&qkv.narrow(1, 0, heads + kv_heads)?.contiguous()?, told)?;
        let value = qkv.narrow(1, heads + kv_heads, kv_heads)?.contiguous()?.to_dtype(self.numbers.cache)?;
        let (keys, values) = self.cache(layer)?;
        let own = |cache: &Tensor, new: &Tensor| -> candle_core::Result<Tensor> {
            let own = cache.narrow(0, 0, count)?;
            own.scatter_set(&step.index, new, 2)?;
            own.narrow(2, 0, step.seen)
        };
        let keys = own(keys, &rotated.narrow(1, heads, kv_heads)?.contiguous()?)?;
        let values = own(values, &value)?;
        let query = rotated.narrow(1, 0, heads)?.reshape((count, kv_heads, heads / kv_heads, head_dim))?;
        let scores = capped(query.matmul(&keys.transpose(2, 3)?)?, self.network.score_cap)?;
        let scores = match told.mask(&step.masks) {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        ops::softmax_last_dim(&scores)?.matmul(&values)?.reshape((count, heads * head_dim))
    }
}

/// c · tanh(x / c), where there is a c.
fn capped(x: Tensor, cap: Option<f32>) -> candle_core::Result<Tensor> {
    match cap.map(f64::from) {
        Some(cap) => (x / cap)?.tanh()? * cap,
        None => Ok(x),
    }
}

/// The likeliest token of each row of logits, (rows, vocabulary); `None` for a row that holds a number that is not finite.
pub(crate) fn likeliest(logits: &Tensor) -> candle_core::Result<Vec<Option<u32>>> {
    // One transfer for both; f32 counts exactly to 2^24, and no vocabulary is larger. What is not finite does not vanish in a
    // sum.
    let best = logits.argmax(D::Minus1)?.to_dtype(DType::F32)?;
    let sum = logits.sum(D::Minus1)?;
    let rows = Tensor::stack(&[best, sum], 1)?.to_vec2::<f32>()?;
    Ok(rows.into_iter().map(|row| row[1].is_finite().then_some(row[0] as u32)).collect())
}

/// Cosines and sines of the rotary embedding, (positions, d/2) each.
pub(crate) fn rotations(
    frequencies: &[f32],
    positions: usize,
    device: &Device,
) -> candle_core::Result<(Tensor, Tensor)> {
    let frequencies = Tensor::new(frequencies, device)?.unsqueeze(0)?;
    let positions = Tensor::arange(0, positions as u32, device)?.to_dtype(DType::F32)?.unsqueeze(1)?;
    let angles = positions.matmul(&frequencies)?;
    Ok((angles.cos()?, angles.sin()?))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Tokens that [`random`] knows.
    pub(crate) const VOCABULARY: usize = 61;

    /// A small decoder with the same random weights each time; `broken` makes its logits something else than numbers.
    pub(crate) fn random(context: usize, broken: bool) -> CandleDecoder {
        let (hidden, heads, kv_heads, feed) = (32, 4, 2, 48);
        let frequencies: Vec<f32> = (0..4).map(|i| 10_000f32.powf(-(i as f32) / 4.0)).collect();
        let network = Network::plain(Rope::Halves, frequencies, 2, heads, kv_heads, 8, 1e-6);
        let numbers = Numbers { matrix: DType::F32, down: DType::F32, cache: DType::F32 };
        let mut state = 7u64;
        let mut tensor = |dims: &[usize], around: f32, scale: f32| {
            let values: Vec<f32> = (0..dims.iter().product())
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    around + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
                })
                .collect();
            Tensor::from_vec(values, dims, &Device::Cpu).map(|tensor| Some(Weight::Dense(tensor)))
        };
        CandleDecoder::new(network, numbers, context, &Device::Cpu, |name| {
            let part = name.strip_suffix(".weight").map(|name| name.rsplit('.').next().unwrap_or_default());
            match part {
                Some("token_embd" | "output") => tensor(&[VOCABULARY, hidden], 0.0, 1.0),
                Some("output_norm") if broken => tensor(&[hidden], f32::NAN, 0.1),
                Some("output_norm" | "attn_norm" | "ffn_norm") => tensor(&[hidden], 1.0, 0.1),
                Some("attn_q" | "attn_output") => tensor(&[hidden, hidden], 0.0, 0.4),
                Some("attn_k" | "attn_v") => tensor(&[kv_heads * 8, hidden], 0.0, 0.4),
                Some("ffn_gate" | "ffn_up") => tensor(&[feed, hidden], 0.0, 0.4),
                Some("ffn_down") => tensor(&[hidden, feed], 0.0, 0.4),
                _ => Ok(None),
            }
        })
        .unwrap()
    }
}
