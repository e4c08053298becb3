//! candle behind the traits.

mod bert;
mod chat;
mod cpu;
mod decoder;
mod generator;
mod gguf;
mod gguf_tokenizer;
mod rope;
mod tokenizer;

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    generate::Generator,
    manifest::Role,
    quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer},
    store::ModelStore,
};
use candle_core::Device;
use std::{fmt, str::FromStr};

pub use bert::{BertCrossEncoder, BertEncoder};
pub use generator::{CandleGenerator, Continuation};

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number; needs feature `cuda`.
    Cuda(usize),
    /// An Apple GPU, by its number; needs feature `metal`.
    Metal(usize),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(i) => write!(f, "cuda:{i}"),
            Self::Metal(i) => write!(f, "metal:{i}"),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = Error;

    /// `cpu`, `cuda`, `cuda:1`, `metal`, `metal:0`.
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::Device {
            device: s.to_string(),
            reason: "it must be cpu, cuda, cuda:N, metal or metal:N".to_string(),
        };
        let (kind, number) = s.split_once(':').unwrap_or((s, "0"));
        let number = number.parse().map_err(|_| bad())?;
        match kind {
            "cpu" if !s.contains(':') => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(number)),
            "metal" => Ok(Self::Metal(number)),
            _ => Err(bad()),
        }
    }
}

impl DeviceKind {
    fn open(self) -> Result<Device> {
        let device = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number),
            Self::Metal(number) => Device::new_metal(number),
        };
        device.map_err(|e| Error::Device { device: self.to_string(), reason: e.to_string() })
    }
}

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

/// How to load a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: DeviceKind,
}

/// Loads a language model, after checking its files.
///
/// # Errors
/// Those of [`ModelStore::verify`]; [`Error::WrongRole`]; [`Error::Device`]; [`Error::Model`] when the files cannot be used.
pub fn load_generator(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Box<dyn Generator>> {
    store.manifest().get(name)?.expect_role(Role::Generator)?;
    let model = store.verify(name)?;
    Ok(Box::new(CandleGenerator::load(&model, &options.device.open()?)?))
}

/// Loads a bi-encoder, after checking its files.
///
/// # Errors
/// As [`load_generator`].
pub fn load_encoder(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Box<dyn Encoder>> {
    store.manifest().get(name)?.expect_role(Role::BiEncoder)?;
    let model = store.verify(name)?;
    Ok(Box::new(BertEncoder::load(&model, &options.device.open()?)?))
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
    Ok(Box::new(BertCrossEncoder::load(&model, &options.device.open()?)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed_and_printed() {
        for (text, device) in [
            ("cpu", DeviceKind::Cpu),
            ("cuda:0", DeviceKind::Cuda(0)),
            ("cuda:3", DeviceKind::Cuda(3)),
            ("metal:0", DeviceKind::Metal(0)),
        ] {
            assert_eq!(text.parse::<DeviceKind>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceKind>().unwrap(), DeviceKind::Cuda(0));
        for bad in ["", "gpu", "cuda:x", "cpu:1"] {
            assert!(bad.parse::<DeviceKind>().is_err(), "{bad}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_in_the_build_is_an_error() {
        assert!(matches!(DeviceKind::Cuda(0).open(), Err(Error::Device { .. })));
    }
}
