//! Where a model computes, and with what numbers.

use crate::error::{Error, Result};
use candle_core::{DType, Device};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceSpec {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number; needs feature `cuda`.
    Cuda(usize),
    /// An Apple GPU, by its number; needs feature `metal`.
    Metal(usize),
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(i) => write!(f, "cuda:{i}"),
            Self::Metal(i) => write!(f, "metal:{i}"),
        }
    }
}

impl FromStr for DeviceSpec {
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

impl Serialize for DeviceSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl DeviceSpec {
    fn unusable(self, reason: impl fmt::Display) -> Error {
        Error::Device { device: self.to_string(), reason: reason.to_string() }
    }

    /// Whether a model could be loaded there: a cheap question, to be asked before anything is promised. Returns what the
    /// device is.
    ///
    /// # Errors
    /// [`Error::Device`]: this build or this machine does not have it.
    pub fn check(self) -> Result<String> {
        match self {
            Self::Cpu => Ok("the processor".to_string()),
            Self::Cuda(number) => cuda::card(number).map_err(|reason| self.unusable(reason)),
            Self::Metal(_) if cfg!(feature = "metal") => self.open().map(|_| "an Apple GPU".to_string()),
            Self::Metal(_) => {
                Err(self.unusable("this build has no Metal (it was built without the feature `metal`)"))
            }
        }
    }

    /// The device itself: a new one each time, with its own queue of work.
    ///
    /// # Errors
    /// As [`DeviceSpec::check`].
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => {
                cuda::card(number).map_err(|reason| self.unusable(reason))?;
                cuda::open(number).map_err(|reason| self.unusable(reason))
            }
            Self::Metal(number) => Device::new_metal(number).map_err(|e| self.unusable(e)),
        }
    }
}

/// What a device's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What is safe and fast there: on GPUs sixteen bits (see [`Numbers`]), on processors quantised weights as they are
    /// and thirty-two bits for the rest.
    #[default]
    Auto,
    /// Thirty-two bits throughout: for comparisons.
    F32,
    /// IEEE half precision throughout. Some models outgrow its range: their logits are then an error.
    F16,
    /// Brain floats throughout: the range of f32 with three digits.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        [Self::Auto, Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|p| p.to_string() == s)
            .ok_or_else(|| format!("`{s}` is not one of auto, f32, f16, bf16"))
    }
}

/// The types of a decoder's numbers. Sums, norms, rotations and what is passed from layer to layer are f32 always.
///
/// On GPUs matrices, and the keys and values that are kept, are f16, which has eight times the resolution of bf16: products
/// of normalised vectors stay far inside its range. The one exception are a feed-forward network's hidden values and what
/// they add to: in real models single ones exceed 65,504, so the matrix that takes them is bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Of all matrices but `down`.
    pub(crate) matrix: DType,
    /// Of the matrix that takes the hidden values.
    pub(crate) down: DType,
    /// Of keys and values, and of what is computed with them.
    pub(crate) cache: DType,
}

impl Numbers {
    pub(crate) fn new(precision: Precision, device: &Device) -> Self {
        let all = |dtype| Self { matrix: dtype, down: dtype, cache: dtype };
        match precision {
            Precision::Auto if device.is_cpu() => all(DType::F32),
            // Before Ampere there is no arithmetic in bf16.
            Precision::Auto if !has_bf16(device) => Self { down: DType::F32, ..all(DType::F16) },
            Precision::Auto => Self { down: DType::BF16, ..all(DType::F16) },
            Precision::F32 => all(DType::F32),
            Precision::F16 => all(DType::F16),
            Precision::Bf16 => all(DType::BF16),
        }
    }
}

fn has_bf16(device: &Device) -> bool {
    match device {
        Device::Cuda(_) => cuda::compute_capability(device).is_some_and(|(major, _)| major >= 8),
        _ => true,
    }
}

/// Bytes of memory that are free on a device; `None` where it does not tell, or shares the machine's.
pub(crate) fn free_bytes(device: &Device) -> Option<usize> {
    cuda::free_bytes(device)
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::{cuda_backend::cudarc::driver::CudaContext, Device};

    /// The name of a card.
    pub(super) fn card(number: usize) -> Result<String, String> {
        let count = CudaContext::device_count().map_err(|e| {
            format!("no NVIDIA driver answers: {e}; `nvidia-smi` tells whether one is installed")
        })?;
        let count = usize::try_from(count).unwrap_or(0);
        let name = |number| -> Result<String, String> {
            CudaContext::new(number).and_then(|card| card.name()).map_err(|e| e.to_string())
        };
        if number >= count {
            let known: Vec<String> =
                (0..count).map(|i| format!("cuda:{i} {}", name(i).unwrap_or_default())).collect();
            return Err(match known.as_slice() {
                [] => "no such card: this machine has none that CUDA sees".to_string(),
                known => format!("no such card: this machine has {}", known.join(", ")),
            });
        }
        name(number)
    }

    pub(super) fn open(number: usize) -> Result<Device, String> {
        // A stream of its own: a model may be loaded on one thread and asked on another, and two models on one card
        // compute beside each other.
        let device = Device::new_cuda_with_stream(number).map_err(|e| e.to_string())?;
        if let Device::Cuda(cuda) = &device {
            // SAFETY: events would order uses of one tensor on several streams. Every tensor here is made and used on its
            // model's one stream: no tensor is handed from one model to another.
            unsafe { cuda.disable_event_tracking() };
        }
        Ok(device)
    }

    pub(super) fn compute_capability(device: &Device) -> Option<(i32, i32)> {
        device.as_cuda_device().ok()?.cuda_stream().context().compute_capability().ok()
    }

    pub(super) fn free_bytes(device: &Device) -> Option<usize> {
        let (free, _) = device.as_cuda_device().ok()?.cuda_stream().context().mem_get_info().ok()?;
        Some(free)
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::Device;

    fn missing() -> String {
        "this build has no CUDA (it was built without the feature `cuda`; scripts/build-cuda.sh builds one that has it)"
            .to_string()
    }

    pub(super) fn card(_: usize) -> Result<String, String> {
        Err(missing())
    }

    pub(super) fn open(_: usize) -> Result<Device, String> {
        Err(missing())
    }

    pub(super) fn compute_capability(_: &Device) -> Option<(i32, i32)> {
        None
    }

    pub(super) fn free_bytes(_: &Device) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed_and_printed() {
        for (text, device) in [
            ("cpu", DeviceSpec::Cpu),
            ("cuda:0", DeviceSpec::Cuda(0)),
            ("cuda:3", DeviceSpec::Cuda(3)),
            ("metal:0", DeviceSpec::Metal(0)),
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(0));
        for bad in ["", "gpu", "cuda:x", "cpu:1"] {
            assert!(bad.parse::<DeviceSpec>().is_err(), "{bad}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_in_the_build_is_told_with_what_to_do() {
        let error = DeviceSpec::Cuda(0).check().unwrap_err().to_string();
        assert!(
            error.contains("cuda:0") && error.contains("no CUDA") && error.contains("scripts/build-cuda.sh"),
            "{error}"
        );
        assert!(DeviceSpec::Cuda(0).open().is_err());
        assert!(DeviceSpec::Cpu.check().is_ok());
    }

    #[test]
    fn precisions_are_parsed_and_printed() {
        for precision in [Precision::Auto, Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert!("int8".parse::<Precision>().is_err());
        assert_eq!(Numbers::new(Precision::Auto, &Device::Cpu).cache, DType::F32);
    }
}
