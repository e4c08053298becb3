//! Our own arithmetic on the processor: quantised and dense matrix products, what lies between them, and the networks made of
//! both.
//!
//! candle's products of quantised matrices have no form for many tokens on most processors and formats, its tensors are
//! allocated anew for every operation, and its threads sleep between two of them. Here weights are laid out once, at loading,
//! in the order in which the instructions want them; what a processor can do is asked at run time.

pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod quant;
