//! Encoders that several dimensions share.

use crate::{
    encode::{CrossEncoder, Encoder},
    error::Result,
    manifest::ModelDigest,
};
use blake2::{
    digest::{consts::U32, Digest},
    Blake2b,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Vectors kept at most; a case needs some dozens, so that a text is encoded once however many dimensions look at it.
const REMEMBERED: usize = 4096;

/// A bi-encoder that remembers what it has embedded. Clones are the same encoder.
#[derive(Clone)]
pub struct SharedEncoder(Arc<Inner>);

struct Inner {
    name: String,
    digest: ModelDigest,
    dimension: usize,
    query_prefix: String,
    memory: Mutex<Memory>,
}

struct Memory {
    encoder: Box<dyn Encoder>,
    /// By blake2b-256 of the text: a hostile text can be large.
    vectors: HashMap<[u8; 32], Remembered>,
}

#[derive(Clone)]
struct Remembered {
    vector: Arc<[f32]>,
    /// This text's share of the time its batch took.
    cost: Duration,
}

impl SharedEncoder {
    /// Shares an encoder.
    pub fn new(encoder: Box<dyn Encoder>) -> Self {
        Self(Arc::new(Inner {
            name: encoder.name().to_string(),
            digest: encoder.digest(),
            dimension: encoder.dimension(),
            query_prefix: encoder.query_prefix().to_string(),
            memory: Mutex::new(Memory { encoder, vectors: HashMap::new() }),
        }))
    }

    /// Whether both are the same encoder.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the model is on chain.
    pub fn digest(&self) -> ModelDigest {
        self.0.digest
    }

    /// See [`Encoder::query_prefix`].
    pub fn query_prefix(&self) -> &str {
        &self.0.query_prefix
    }

    /// One vector of length 1 per text. Texts that it has not seen lately are encoded in one batch.
    ///
    /// # Errors
    /// When the model fails.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Arc<[f32]>>> {
        Ok(self.lookup(texts)?.into_iter().map(|found| found.vector).collect())
    }

    /// What embedding these texts costs, had nobody else asked for them.
    ///
    /// # Errors
    /// When the model fails.
    pub fn cost<T: AsRef<str>>(&self, texts: &[T]) -> Result<Duration> {
        Ok(self.lookup(texts)?.into_iter().map(|found| found.cost).sum())
    }

    fn lookup<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Remembered>> {
        let mut memory = self.0.memory.lock();
        let keys: Vec<[u8; 32]> =
            texts.iter().map(|text| Blake2b::<U32>::digest(text.as_ref().as_bytes()).into()).collect();
        if memory.vectors.len() + texts.len() > REMEMBERED {
            memory.vectors.clear();
        }
        let mut missing: Vec<(usize, [u8; 32])> = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if !memory.vectors.contains_key(key) && !missing.iter().any(|(_, known)| known == key) {
                missing.push((index, *key));
            }
        }
        if !missing.is_empty() {
            let batch: Vec<&str> = missing.iter().map(|(index, _)| texts[*index].as_ref()).collect();
            let started = Instant::now();
            let vectors = memory.encoder.embed(&batch)?;
            let spent = started.elapsed();
            // A text's tokens, which decide what it costs, grow with its bytes; the overhead is everybody's.
            let weight = |text: &str| text.len().min(2048) as f64 + 16.0;
            let total: f64 = batch.iter().map(|text| weight(text)).sum();
            let costs: Vec<Duration> = batch.iter().map(|text| spent.mul_f64(weight(text) / total)).collect();
            for (((_, key), vector), cost) in missing.iter().zip(vectors).zip(costs) {
                memory.vectors.insert(*key, Remembered { vector: vector.into(), cost });
            }
        }
        Ok(keys.iter().filter_map(|key| memory.vectors.get(key).cloned()).collect())
    }
}

/// So that a scorer which owns its encoder can share one.
impl Encoder for SharedEncoder {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn digest(&self) -> ModelDigest {
        self.0.digest
    }

    fn dimension(&self) -> usize {
        self.0.dimension
    }

    fn query_prefix(&self) -> &str {
        &self.0.query_prefix
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(SharedEncoder::embed(self, texts)?.iter().map(|vector| vector.to_vec()).collect())
    }
}

/// A cross-encoder. Clones are the same encoder.
#[derive(Clone)]
pub struct SharedCrossEncoder(Arc<Mutex<Box<dyn CrossEncoder>>>);

impl SharedCrossEncoder {
    /// Shares an encoder.
    pub fn new(encoder: Box<dyn CrossEncoder>) -> Self {
        Self(Arc::new(Mutex::new(encoder)))
    }

    /// The model's name.
    pub fn name(&self) -> String {
        self.0.lock().name().to_string()
    }

    /// What the model is on chain.
    pub fn digest(&self) -> ModelDigest {
        self.0.lock().digest()
    }

    /// See [`CrossEncoder::score`].
    ///
    /// # Errors
    /// When the model fails.
    pub fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>> {
        self.0.lock().score(pairs)
    }
}

#[cfg(test)]
pub(crate) mod fakes {
    use super::*;

    /// Embeds a text as its letters' counts; counts how many texts it was given.
    pub(crate) struct Letters(pub(crate) Arc<Mutex<usize>>);

    impl Encoder for Letters {
        fn name(&self) -> &str {
            "letters"
        }

        fn digest(&self) -> ModelDigest {
            ModelDigest([1; 32])
        }

        fn dimension(&self) -> usize {
            27
        }

        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            *self.0.lock() += texts.len();
            let embed = |text: &&str| {
                let mut vector = [0f32; 27];
                for byte in text.bytes() {
                    let index =
                        if byte.is_ascii_alphabetic() { byte.to_ascii_lowercase() - b'a' } else { 26 };
                    vector[index as usize] += 1.0;
                }
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
                vector.iter().map(|x| x / norm).collect()
            };
            Ok(texts.iter().map(embed).collect())
        }
    }

    /// Relevance is the number of words in common.
    pub(crate) struct CommonWords;

    impl CrossEncoder for CommonWords {
        fn name(&self) -> &str {
            "common-words"
        }

        fn digest(&self) -> ModelDigest {
            ModelDigest([2; 32])
        }

        fn score(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<f32>> {
            let common = |(a, b): &(&str, &str)| {
                let other: Vec<&str> = b.split_whitespace().collect();
                a.split_whitespace().filter(|word| other.contains(word)).count() as f32
            };
            Ok(pairs.iter().map(common).collect())
        }
    }

    pub(crate) fn letters() -> SharedEncoder {
        SharedEncoder::new(Box::new(Letters(Arc::default())))
    }
}

#[cfg(test)]
mod tests {
    use super::{fakes::Letters, *};

    #[test]
    fn a_text_is_embedded_once() {
        let count = Arc::new(Mutex::new(0));
        let encoder = SharedEncoder::new(Box::new(Letters(count.clone())));
        let first = encoder.embed(&["a", "b", "a"]).unwrap();
        assert_eq!(first[0], first[2]);
        assert_eq!(*count.lock(), 2);
        encoder.clone().embed(&["b", "c"]).unwrap();
        assert_eq!(*count.lock(), 3);
        assert!(encoder.cost(&["a", "b", "c"]).unwrap() >= encoder.cost(&["a"]).unwrap());
        assert_eq!(*count.lock(), 3);
    }
}
