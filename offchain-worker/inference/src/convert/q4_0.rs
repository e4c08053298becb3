//! A second, coarser quantisation of a language model: what a node that saves memory would run.
//!
//! Experiments on quality and cost need answers that really differ in both. The matrices of the layers become Q4_0 (4.5
//! bits a value); the token table, the output matrix and the norms stay as they are.

use super::gguf::{by_blocks, is_slow, push_scale, rewrite, to_q8_0, BLOCK};
use candle_core::quantized::{GgmlDType, QTensor};
use std::io::{Read, Seek, Write};

/// Copies a GGUF file with the matrices of its layers in Q4_0. Metadata and tensors are written in order of their names.
///
/// # Errors
/// When `input` is not a GGUF file that candle reads, or `out` cannot be written.
pub fn requantise<R: Read + Seek, W: Write + Seek>(input: &mut R, out: W) -> candle_core::Result<()> {
    rewrite(input, out, |name, tensor| {
        if name.starts_with("blk.") && tensor.shape().rank() == 2 {
            to_q4_0(&tensor)
        } else if is_slow(tensor.dtype()) {
            to_q8_0(&tensor)
        } else {
            Ok(tensor)
        }
    })
}

/// Quantises to Q4_0 as ggml's reference does: the value of largest magnitude in each block becomes -8 steps. Nothing but
/// IEEE operations in a fixed order, as the file's hash is pinned (see [`to_q8_0`]).
fn to_q4_0(tensor: &QTensor) -> candle_core::Result<QTensor> {
    by_blocks(tensor, GgmlDType::Q4_0, |block, bytes| {
        let largest = block.iter().fold(0f32, |a, v| if v.abs() > a.abs() { *v } else { a });
        let inverse = push_scale(largest / -8.0, bytes);
        let step = |v: f32| ((v * inverse + 8.5) as u8).min(15);
        let (low, high) = block.split_at(BLOCK / 2);
        bytes.extend(low.iter().zip(high).map(|(l, h)| step(*l) | step(*h) << 4));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{quantized::gguf_file, Device, Tensor};

    #[test]
    fn q4_0_agrees_with_candles_own() {
        let values: Vec<f32> = (0..192).map(|i| ((i * 37 % 101) as f32 - 50.0) / 13.0).collect();
        let tensor = Tensor::from_vec(values, (2, 96), &Device::Cpu).unwrap();
        let source = QTensor::quantize(&tensor, GgmlDType::F32).unwrap();
        let ours = to_q4_0(&source).unwrap();
        let theirs = QTensor::quantize(&tensor, GgmlDType::Q4_0).unwrap();
        assert_eq!(ours.data().unwrap(), theirs.data().unwrap());
    }

    #[test]
    fn only_layers_are_quantised() {
        let matrix = Tensor::randn(0f32, 1.0, (4, 64), &Device::Cpu).unwrap();
        let whole = QTensor::quantize(&matrix, GgmlDType::F32).unwrap();
        let norm = Tensor::randn(0f32, 1.0, 64, &Device::Cpu).unwrap();
        let norm = QTensor::quantize(&norm, GgmlDType::F32).unwrap();
        let tensors =
            [("blk.0.attn_q.weight", &whole), ("blk.0.attn_norm.weight", &norm), ("output.weight", &whole)];
        let mut file = std::io::Cursor::new(Vec::new());
        gguf_file::write(&mut file, &[], &tensors).unwrap();
        file.set_position(0);
        let mut out = std::io::Cursor::new(Vec::new());
        requantise(&mut file, &mut out).unwrap();
        out.set_position(0);
        let content = gguf_file::Content::read(&mut out).unwrap();
        let dtype = |name: &str| content.tensor_infos[name].ggml_dtype;
        assert_eq!(dtype("blk.0.attn_q.weight"), GgmlDType::Q4_0);
        assert_eq!(dtype("blk.0.attn_norm.weight"), GgmlDType::F32);
        assert_eq!(dtype("output.weight"), GgmlDType::F32);
    }
}
