//! Language models, encoders and quality scores for Proof of Quality nodes. Knows nothing of chains.
//!
//! - [`manifest`]: which models there are and what their files must hash to; [`store`]: verified files on disk;
//!   [`install`](mod@install): where files come from.
//! - [`Generator`], [`Encoder`], [`CrossEncoder`]: what a model can do, whatever runs it; feature `candle` runs them.
//! - [`endpoint`]: the same of models that a server runs, this project's or anybody's.
//! - [`quality`]: scores in [0, 1] for the outputs of a task.
//! - [`ModelThread`]: a model on a thread of its own, asked from async code.

pub mod convert;
pub mod data;
pub mod encode;
#[cfg(feature = "endpoint")]
pub mod endpoint;
#[cfg(feature = "candle")]
pub mod engine;
mod error;
pub mod generate;
pub mod install;
pub mod manifest;
pub mod quality;
pub mod store;
pub mod thread;

pub use data::{load_prompts, load_qa, read_text, Item, LeftOut, Prompts, QaItem, TaskKind};
pub use encode::{CrossEncoder, Encoder};
#[cfg(feature = "candle")]
pub use engine::{
    configure_threads, load_cross_encoder, load_encoder, load_generator, load_scorer, DeviceSpec,
    GeneratorSource, LoadOptions, Precision, ScorerSource,
};
pub use error::{Error, Result, INSTALL_SCRIPT};
pub use generate::{
    CancelFlag, ChatRole, FinishReason, GenerateRequest, Generation, Generator, Message, Prompt, Sink, Trace,
};
pub use manifest::{Architecture, Manifest, ModelDigest, ModelEntry, Role};
pub use quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer, Query};
pub use store::{data_dir, default_models_dir, ModelStore, VerifiedModel};
pub use thread::{Health, ModelHandle, ModelThread, ThreadOptions};
