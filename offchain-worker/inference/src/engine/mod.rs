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
mod gguf_header;
mod gguf_tokenizer;
pub(crate) mod inspect;
mod limit;
mod rope;
mod safetensors;
mod threads;
mod tokenizer;

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    generate::Generator,
    manifest::Role,
    quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer},
    store::ModelStore,
};
use cpu::quant::Isa;
use serde::{Deserialize, Serialize};

pub use bert::{BertCrossEncoder, BertEncoder};
pub use device::{DeviceSpec, Precision};
pub use generator::{BatchGenerator, CandleGenerator, Continuation, GeneratorSource};
pub use inspect::Details;

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

/// Which code computes, on a processor. All but the first are for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// Our own where there is some for the model, with the best instructions that the processor has; else candle's.
    #[default]
    Best,
    /// candle's operations.
    Candle,
    /// Our own in plain Rust.
    Portable,
    /// Our own with AVX2.
    Avx2,
    /// Our own with AVX-512 and VNNI.
    Avx512,
}

impl Kernels {
    /// All that run on this processor, beside [`Kernels::Best`].
    pub fn available() -> Vec<Self> {
        let all = [Self::Candle, Self::Portable, Self::Avx2, Self::Avx512];
        all.into_iter().filter(|kernels| *kernels == Self::Candle || kernels.isa().is_ok()).collect()
    }

    /// The instructions of our own code.
    fn isa(self) -> Result<Isa> {
        let name = match self {
            Self::Best | Self::Candle => return Ok(Isa::detect()),
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        };
        let found = Isa::available().iter().find(|isa| isa.as_str() == name).copied();
        found.ok_or_else(|| Error::InvalidRequest(format!("this processor does not have {name}")))
    }
}

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Best => "best",
            Self::Candle => "candle",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// Makes every check of a GGUF file that needs neither its weights nor its tokenizer, for a context of so many tokens.
///
/// # Errors
/// What loading it would say.
pub fn check_gguf(file: &mut (impl std::io::Read + std::io::Seek), context: usize) -> Result<()> {
    let mut check = || {
        let header = gguf_header::Header::read(file)?;
        gguf::inspect(&header, file, context)
    };
    check().map(drop).map_err(|e| Error::model("file", e))
}

/// Makes every check of a language model's `config.json` and its safetensors files that needs neither weights nor tokenizer, for a
/// context of so many tokens.
///
/// # Errors
/// What loading them would say.
pub fn check_safetensors(config: &[u8], files: &[std::path::PathBuf], context: usize) -> Result<()> {
    safetensors::inspect(config, files, context).map(drop).map_err(|e| Error::model("files", e))
}

/// What the model in a GGUF file or a folder is, before anything of it is hashed or computed.
///
/// # Errors
/// When there is none, or one that there is no code for.
pub fn inspect_path(path: &std::path::Path) -> Result<Details> {
    crate::local::look(path, "model", &crate::local::Wanted::default()).map(|found| found.details)
}

/// How to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: DeviceSpec,
    /// With what numbers.
    #[serde(rename = "dtype")]
    pub precision: Precision,
    /// Which code computes, on the processor.
    pub kernels: Kernels,
    /// Threads of its own, on the processor; without it, those that all models of the process share.
    pub threads: Option<usize>,
    /// The most bytes of memory that it may take, the card's where it computes on one.
    pub memory_limit: Option<u64>,
    /// Requests that a language model answers at once; 8 where it is not set. On processors they are answered one after the
    /// other, whatever is set: one answer uses all cores.
    pub parallel: Option<usize>,
}

impl LoadOptions {
    /// On a device, everything else as it is by default.
    pub fn on(device: DeviceSpec) -> Self {
        Self { device, ..Self::default() }
    }

    /// Requests that are answered at once with these options, at least 1.
    pub fn parallel(&self) -> usize {
        match self.device {
            DeviceSpec::Cpu => 1,
            _ => self.parallel.unwrap_or(PARALLEL).max(1),
        }
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
