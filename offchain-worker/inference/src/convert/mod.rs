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
