//! Language models, encoders and quality scores for Proof of Quality nodes. Knows nothing of chains.
//!
//! - [`manifest`]: which models there are and what their files must hash to; [`store`]: verified files on disk;
//!   [`install`](mod@install): where files come from.
//! - [`Generator`], [`Encoder`], [`CrossEncoder`]: what a model can do, whatever runs it; feature `candle` runs them.
//! - [`quality`]: scores in [0, 1] for the outputs of a task.
//! - [`ModelThread`]: a model on a thread of its own, asked from async code.

#[cfg(feature = "candle")]
pub mod cli;
pub mod convert;
pub mod data;
pub mod encode;
#[cfg(feature = "candle")]
pub mod engine;
mod error;
pub mod generate;
pub mod install;
#[cfg(feature = "candle")]
mod local;
pub mod manifest;
#[cfg(feature = "candle")]
pub mod models;
pub mod quality;
pub mod store;
pub mod thread;

pub use data::{load_prompts, load_qa, read_text, Item, LeftOut, Prompts, QaItem, TaskKind};
pub use encode::{CrossEncoder, Encoder};
#[cfg(feature = "candle")]
pub use engine::{
    configure_threads, load_cross_encoder, load_encoder, load_generator, load_scorer, Details, DeviceSpec,
    GeneratorSource, Kernels, LoadOptions, Precision,
};
pub use error::{Error, Result, INSTALL_SCRIPT};
pub use generate::{
    CancelFlag, ChatRole, FinishReason, GenerateRequest, Generation, Generator, Message, Prompt,
};
pub use manifest::{Architecture, Manifest, ModelDigest, ModelEntry, Role};
#[cfg(feature = "candle")]
pub use models::ModelConfig;
pub use quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer, Query};
pub use store::{data_dir, default_models_dir, ModelStore, VerifiedModel};
pub use thread::{Health, ModelHandle, ModelThread, ThreadOptions};
