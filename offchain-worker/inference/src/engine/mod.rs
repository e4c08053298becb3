//! candle behind the traits.

mod batch;
mod bert;
mod candle_decoder;
mod chat;
mod cpu;
mod decoder;
mod device;
mod generator;
mod gguf;
mod gguf_tokenizer;
mod merge;
mod rope;
mod safetensors;
mod tokenizer;

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    generate::Generator,
    manifest::Role,
    quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer},
    store::ModelStore,
};
use serde::{Deserialize, Serialize};

pub use bert::{BertCrossEncoder, BertEncoder};
pub use device::{DeviceSpec, Precision};
pub use generator::{BatchGenerator, CandleGenerator, Continuation, GeneratorSource};
pub use merge::ScorerSource;

/// Sets how many threads models compute with, all models of this process together; call it first thing in `main`.
///
/// Threads wait for each other actively, ours and candle's: where cores are shared with other work, more threads than free
/// cores make a model slower, not faster. Nothing is changed when `RAYON_NUM_THREADS` is set already: the
/// operator has the last word.
///
/// It sets an environment variable, which must not happen while other threads read the environment, and has no effect
/// once a model has computed.
pub fn configure_threads(threads: usize) {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        std::env::set_var("RAYON_NUM_THREADS", threads.max(1).to_string());
    }
}

/// Requests that a GPU answers at once, where nothing else is said: they take hardly longer than one, and a card of 8 GB has
/// room for them beside a model of 3 billion weights.
const PARALLEL: usize = 8;

/// The same of a processor: they share the reading of the weights, and each needs memory of its own.
const CPU_PARALLEL: usize = 4;

/// How to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: DeviceSpec,
    /// With what numbers.
    #[serde(rename = "dtype")]
    pub precision: Precision,
    /// Requests that a language model answers at once; where it is not set, 8 on GPUs and 4 on processors.
    pub parallel: Option<usize>,
}

impl LoadOptions {
    /// On a device, everything else as it is by default.
    pub fn on(device: DeviceSpec) -> Self {
        Self { device, ..Self::default() }
    }

    /// Requests that are answered at once with these options, at least 1.
    pub fn parallel(&self) -> usize {
        let usual = if self.device == DeviceSpec::Cpu { CPU_PARALLEL } else { PARALLEL };
        self.parallel.unwrap_or(usual).max(1)
    }
}

/// Loads a language model, after checking its files.
///
/// # Errors
/// Those of [`ModelStore::verify`]; [`Error::WrongRole`]; [`Error::Device`]; [`Error::Model`] when the files cannot be used.
pub fn load_generator(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Box<dyn Generator>> {
    store.manifest().get(name)?.expect_role(Role::Generator)?;
    let model = store.verify(name)?;
    Ok(Box::new(CandleGenerator::load(&model, options)?))
}

/// Loads a bi-encoder, after checking its files.
///
/// # Errors
/// As [`load_generator`].
pub fn load_encoder(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Box<dyn Encoder>> {
    store.manifest().get(name)?.expect_role(Role::BiEncoder)?;
    let model = store.verify(name)?;
    Ok(Box::new(BertEncoder::load(&model, options)?))
}

/// Loads a cross-encoder, after checking its files.
///
/// # Errors
/// As [`load_generator`].
pub fn load_cross_encoder(
    store: &ModelStore,
    name: &str,
    options: &LoadOptions,
) -> Result<Box<dyn CrossEncoder>> {
    store.manifest().get(name)?.expect_role(Role::CrossEncoder)?;
    let model = store.verify(name)?;
    Ok(Box::new(BertCrossEncoder::load(&model, options)?))
}

/// Loads an encoder of either kind as a scorer of outputs.
///
/// # Errors
/// As [`load_generator`].
pub fn load_scorer(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Box<dyn QualityScorer>> {
    match store.manifest().get(name)?.role {
        Role::BiEncoder => Ok(Box::new(BiEncoderScorer::new(load_encoder(store, name, options)?))),
        Role::CrossEncoder => {
            Ok(Box::new(CrossEncoderScorer::new(load_cross_encoder(store, name, options)?)))
        }
        Role::Generator => Err(Error::WrongRole {
            name: name.to_string(),
            found: Role::Generator.as_str(),
            expected: "bi-encoder or cross-encoder",
        }),
    }
}
