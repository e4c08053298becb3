//! Requantising a GGUF file to block formats that candle computes fast.
//!
//! candle has vectorised kernels for Q8_0 and the K-quants, but runs Q4_1 and Q5_0 through scalar code: a prompt through
//! SmolLM2 takes three times as long in Q4_1 as in Q8_0. The K-quants need rows that are a multiple of 256, which rows of
//! 576 and 896 are not, so Q8_0 it is. The values are those of the original file, rounded to within 1/254 of each block's largest.

use candle_core::{
    quantized::{gguf_file, GgmlDType, QStorage, QTensor},
    Device,
};
use std::{
    borrow::Cow,
    io::{BufWriter, Read, Seek, Write},
};

/// Values in a block of Q8_0, and of Q4_0.
pub(crate) const BLOCK: usize = 32;

/// Whether candle computes this format with scalar code only.
pub(crate) fn is_slow(dtype: GgmlDType) -> bool {
    matches!(dtype, GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1)
}

/// Copies a GGUF file, with its slow tensors requantised to Q8_0. Metadata and tensors are written in order of their names.
///
/// # Errors
/// When `input` is not a GGUF file that candle reads, or `out` cannot be written.
pub fn requantise<R: Read + Seek, W: Write + Seek>(input: &mut R, out: W) -> candle_core::Result<()> {
    rewrite(input, out, |_, tensor| if is_slow(tensor.dtype()) { to_q8_0(&tensor) } else { Ok(tensor) })
}

/// Copies a GGUF file, its tensors as `convert` gives them by name and content, in order of their names.
pub(crate) fn rewrite<R: Read + Seek, W: Write + Seek>(
    input: &mut R,
    out: W,
    convert: impl Fn(&str, QTensor) -> candle_core::Result<QTensor>,
) -> candle_core::Result<()> {
    let content = gguf_file::Content::read(input)?;
    let mut names: Vec<_> = content.tensor_infos.keys().cloned().collect();
    names.sort();
    let mut tensors = Vec::with_capacity(names.len());
    for name in &names {
        tensors.push(convert(name, content.tensor(input, name, &Device::Cpu)?)?);
    }
    let mut metadata: Vec<_> = content.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    metadata.sort_by_key(|(key, _)| *key);
    let tensors: Vec<_> = names.iter().map(String::as_str).zip(&tensors).collect();
    let mut out = BufWriter::new(out);
    gguf_file::write(&mut out, &metadata, &tensors)?;
    out.flush()?;
    Ok(())
}

/// Quantises to Q8_0.
///
/// candle has its own quantiser, but on ARM it is another piece of code than on x86, which may round differently; the
/// file's hash is pinned, so this one uses nothing but IEEE operations in a fixed order.
pub(crate) fn to_q8_0(tensor: &QTensor) -> candle_core::Result<QTensor> {
    by_blocks(tensor, GgmlDType::Q8_0, |block, bytes| {
        let largest = block.iter().fold(0f32, |a, v| a.max(v.abs()));
        let inverse = push_scale(largest / 127.0, bytes);
        bytes.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    })
}

/// Quantises to a format of blocks of [`BLOCK`] values, whose bytes `write` appends.
pub(crate) fn by_blocks(
    tensor: &QTensor,
    dtype: GgmlDType,
    write: impl Fn(&[f32], &mut Vec<u8>),
) -> candle_core::Result<QTensor> {
    let values = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    if !values.len().is_multiple_of(BLOCK) {
        candle_core::bail!("{} values do not fill blocks of {BLOCK}", values.len())
    }
    let mut bytes = Vec::with_capacity(values.len() / BLOCK * dtype.type_size());
    values.chunks_exact(BLOCK).for_each(|block| write(block, &mut bytes));
    let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)?;
    QTensor::new(storage, tensor.shape().clone())
}

/// Writes a block's scale, and returns what values are multiplied by: 0 where all are 0.
pub(crate) fn push_scale(scale: f32, bytes: &mut Vec<u8>) -> f32 {
    bytes.extend_from_slice(&half::f16::from_f32(scale).to_le_bytes());
    if scale == 0.0 {
        0.0
    } else {
        1.0 / scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    #[test]
    fn q8_0_agrees_with_candles_own() {
        let values: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 13.0).collect();
        let tensor = Tensor::from_vec(values, (2, 64), &Device::Cpu).unwrap();
        let source = QTensor::quantize(&tensor, GgmlDType::F32).unwrap();
        let ours = to_q8_0(&source).unwrap();
        let theirs = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        assert_eq!(ours.data().unwrap(), theirs.data().unwrap());
    }

    #[test]
    fn not_a_gguf_file_is_an_error() {
        let mut input = std::io::Cursor::new(b"PK\x03\x04 certainly not".to_vec());
        assert!(requantise(&mut input, std::io::Cursor::new(Vec::new())).is_err());
    }
}
