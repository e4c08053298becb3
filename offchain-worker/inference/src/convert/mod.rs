//! Conversions done once, at installation, for files that no source has in the form the loaders want.
//!
//! Each is deterministic: the manifest pins the hash of what comes out, so a machine that computed anything else would
//! refuse its own file.

#[cfg(feature = "candle")]
pub mod gguf;
pub mod items;
pub mod onnx;
#[cfg(feature = "candle")]
pub mod q4_0;
pub mod qa;

/// Why a data set could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A line is not of the form this data set has.
    #[error("sample {line}: {reason}")]
    Sample {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The output could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
