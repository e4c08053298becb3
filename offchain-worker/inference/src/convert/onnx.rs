//! The weights of a BERT out of an ONNX graph, as safetensors.
//!
//! Only what exporters of BERT produce is understood: f32 initialisers, and int8 ones as onnxruntime's dynamic
//! quantisation leaves them (`X_quantized`, `X_scale`, `X_zero_point`). Linear layers lose their names on export
//! (`onnx::MatMul_1662`); the path of the node that uses them still tells which they are. The format is protobuf; of its
//! hundreds of fields this needs nine, so it is read directly.

use std::{collections::BTreeMap, io::Write};

/// Why an ONNX file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are not protobuf of this form.
    #[error("not a readable ONNX file: {0}")]
    Malformed(&'static str),
    /// A tensor that the conversion needs is not in it or has an unexpected form.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The output could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads `model` and writes its weights in f32 under their Hugging Face names.
///
/// # Errors
/// When the file is not an ONNX export of a BERT, or `out` cannot be written.
pub fn bert_to_safetensors(model: &[u8], out: &mut impl Write) -> Result<(), OnnxError> {
    let weights = bert_weights(model)?;
    write_safetensors(&weights, out)
}

/// A dense tensor of f32 in row-major order.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    dims: Vec<usize>,
    values: Vec<f32>,
}

impl Tensor {
    /// The transpose of a matrix.
    fn transposed(&self, name: &str) -> Result<Self, OnnxError> {
        let [rows, columns] = self.dims[..] else {
            return Err(OnnxError::Tensor {
                name: name.to_string(),
                reason: format!("a weight matrix was expected, not shape {:?}", self.dims),
            });
        };
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend((0..rows).map(|row| self.values[row * columns + column]));
        }
        Ok(Self { dims: vec![columns, rows], values })
    }
}

// ---- protobuf

/// The value of one field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of one message.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(OnnxError::Malformed("ends inside a number"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(OnnxError::Malformed("a number has more than 64 bits"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], OnnxError> {
        let len = usize::try_from(len).map_err(|_| OnnxError::Malformed("a length does not fit memory"))?;
        if len > self.0.len() {
            return Err(OnnxError::Malformed("ends inside a field"));
        }
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, OnnxError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                return Ok(Some((key >> 3, Field::Number(0))));
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Field::Fixed32(bytes)
            }
            _ => return Err(OnnxError::Malformed("unknown wire type")),
        };
        Ok(Some((key >> 3, field)))
    }
}

fn text(bytes: &[u8]) -> Result<String, OnnxError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| OnnxError::Malformed("a name is not UTF-8"))
}

/// An initialiser as it is stored.
#[derive(Default)]
struct RawTensor<'a> {
    name: String,
    dims: Vec<usize>,
    data_type: u64,
    raw: &'a [u8],
    floats: Vec<f32>,
    ints: Vec<i32>,
}

/// `TensorProto.DataType` values used here.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;

impl<'a> RawTensor<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        let mut tensor = Self::default();
        let mut message = Message(bytes);
        while let Some(field) = message.next()? {
            match field {
                (1, Field::Number(dim)) => tensor.dims.push(dim as usize),
                (1, Field::Bytes(packed)) => {
                    let mut packed = Message(packed);
                    while !packed.0.is_empty() {
                        tensor.dims.push(packed.varint()? as usize);
                    }
                }
                (2, Field::Number(data_type)) => tensor.data_type = data_type,
                (4, Field::Fixed32(float)) => tensor.floats.push(f32::from_le_bytes(float)),
                (4, Field::Bytes(packed)) => tensor.floats.extend(le_f32(packed)),
                (5, Field::Number(int)) => tensor.ints.push(int as i32),
                (5, Field::Bytes(packed)) => {
                    let mut packed = Message(packed);
                    while !packed.0.is_empty() {
                        tensor.ints.push(packed.varint()? as i32);
                    }
                }
                (8, Field::Bytes(name)) => tensor.name = text(name)?,
                (9, Field::Bytes(raw)) => tensor.raw = raw,
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn error(&self, reason: impl Into<String>) -> OnnxError {
        OnnxError::Tensor { name: self.name.clone(), reason: reason.into() }
    }

    /// Checks that as many values are there as the shape says.
    fn checked(&self, values: Vec<f32>) -> Result<Tensor, OnnxError> {
        let expected = self.dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if expected != Some(values.len()) {
            return Err(self.error(format!("shape {:?} but {} values", self.dims, values.len())));
        }
        Ok(Tensor { dims: self.dims.clone(), values })
    }

    fn as_f32(&self) -> Result<Tensor, OnnxError> {
        if self.data_type != FLOAT {
            return Err(self.error(format!("data type {} where f32 was expected", self.data_type)));
        }
        let values = if self.raw.is_empty() { self.floats.clone() } else { le_f32(self.raw).collect() };
        self.checked(values)
    }

    /// The integers of an int8 or uint8 tensor.
    fn as_int(&self) -> Result<Tensor, OnnxError> {
        let values = match (self.data_type, self.raw.is_empty()) {
            (UINT8, false) => self.raw.iter().map(|b| f32::from(*b)).collect(),
            (INT8, false) => self.raw.iter().map(|b| f32::from(*b as i8)).collect(),
            (UINT8 | INT8, true) => self.ints.iter().map(|i| *i as f32).collect(),
            (other, _) => return Err(self.error(format!("data type {other} where int8 was expected"))),
        };
        self.checked(values)
    }
}

fn le_f32(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

/// The nodes that multiply by a weight: (path of the node, name of the weight).
fn linear_node(bytes: &[u8]) -> Result<Option<(String, String)>, OnnxError> {
    let (mut inputs, mut name, mut op) = (Vec::new(), String::new(), String::new());
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(input)) => inputs.push(text(input)?),
            (3, Field::Bytes(bytes)) => name = text(bytes)?,
            (4, Field::Bytes(bytes)) => op = text(bytes)?,
            _ => {}
        }
    }
    let is_linear = matches!(op.as_str(), "MatMul" | "MatMulInteger") && inputs.len() >= 2;
    Ok(is_linear.then(|| (name, inputs.swap_remove(1))))
}

// ---- names

const QUANTIZED: &str = "_quantized";

/// The Hugging Face name of what an exporter called `name`: wrappers such as sentence-transformers' are dropped.
fn canonical(name: &str) -> Option<String> {
    const ROOTS: [&str; 5] = ["bert.", "embeddings.", "encoder.", "pooler.", "classifier."];
    ROOTS
        .iter()
        .filter_map(|root| {
            let at = name.find(root)?;
            (at == 0 || name[..at].ends_with('.')).then_some(at)
        })
        .min()
        .map(|at| name[at..].to_string())
}

fn bert_weights(model: &[u8]) -> Result<BTreeMap<String, Tensor>, OnnxError> {
    let mut graph = None;
    let mut message = Message(model);
    while let Some(field) = message.next()? {
        if let (7, Field::Bytes(bytes)) = field {
            graph = Some(bytes);
        }
    }
    let mut message = Message(graph.ok_or(OnnxError::Malformed("it has no graph"))?);
    let mut initialisers = BTreeMap::new();
    let mut linears = Vec::new();
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(node)) => linears.extend(linear_node(node)?),
            (5, Field::Bytes(bytes)) => {
                let tensor = RawTensor::parse(bytes)?;
                initialisers.insert(tensor.name.clone(), tensor);
            }
            _ => {}
        }
    }

    let mut weights = BTreeMap::new();
    let mut is_linear = std::collections::BTreeSet::new();
    // Linear layers. ONNX multiplies x·W, Hugging Face keeps Wᵀ.
    for (node, weight) in &linears {
        // Attention multiplies two activations: those have no initialiser.
        let Some(raw) = initialisers.get(weight) else { continue };
        is_linear.insert(weight.clone());
        let module = node.trim_start_matches('/').rsplit_once('/').map_or("", |(module, _)| module);
        let path = format!("{}.weight", module.replace('/', "."));
        let name = canonical(&path).ok_or_else(|| OnnxError::Tensor {
            name: weight.clone(),
            reason: format!("used by node `{node}`, which is no part of a BERT"),
        })?;
        let value = dequantized(raw, &initialisers)?.transposed(&name)?;
        weights.insert(name, value);
    }
    // Everything else is already named, and already lies as Hugging Face has it.
    for (name, raw) in &initialisers {
        let plain = name.strip_suffix(QUANTIZED).unwrap_or(name);
        let is_parameter = plain.ends_with(".weight") || plain.ends_with(".bias");
        if is_linear.contains(name) || !is_parameter {
            continue;
        }
        if let Some(canonical) = canonical(plain) {
            weights.insert(canonical, dequantized(raw, &initialisers)?);
        }
    }
    if !weights.keys().any(|k| k.ends_with("embeddings.word_embeddings.weight")) {
        return Err(OnnxError::Malformed("it has no BERT word embeddings"));
    }
    Ok(weights)
}

/// The f32 values of a tensor, dequantised where it is quantised: `(q − zero_point) · scale`, per tensor or per column.
fn dequantized(
    raw: &RawTensor<'_>,
    initialisers: &BTreeMap<String, RawTensor<'_>>,
) -> Result<Tensor, OnnxError> {
    let Some(base) = raw.name.strip_suffix(QUANTIZED) else { return raw.as_f32() };
    let companion = |suffix: &str| {
        let name = format!("{base}{suffix}");
        initialisers.get(&name).ok_or_else(|| OnnxError::Tensor { name, reason: "is missing".to_string() })
    };
    let scale = companion("_scale")?.as_f32()?;
    let zero_point = companion("_zero_point")?.as_int()?;
    let mut tensor = raw.as_int()?;
    let columns = tensor.dims.last().copied().unwrap_or(1);
    let per = scale.values.len();
    if zero_point.values.len() != per || (per != 1 && per != columns) {
        return Err(raw.error(format!("{per} scales for {columns} columns")));
    }
    for (i, value) in tensor.values.iter_mut().enumerate() {
        let at = if per == 1 { 0 } else { i % columns };
        *value = (*value - zero_point.values[at]) * scale.values[at];
    }
    Ok(tensor)
}

/// Writes safetensors with tensors in order of their names, so that equal weights give equal bytes.
fn write_safetensors(weights: &BTreeMap<String, Tensor>, out: &mut impl Write) -> Result<(), OnnxError> {
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        dtype: &'static str,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }
    let mut header = BTreeMap::new();
    let mut offset = 0;
    for (name, tensor) in weights {
        let end = offset + tensor.values.len() * 4;
        header.insert(name, Entry { dtype: "F32", shape: &tensor.dims, data_offsets: [offset, end] });
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
    // The format wants the data aligned to eight bytes; spaces are valid JSON padding.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut bytes = Vec::new();
    for tensor in weights.values() {
        bytes.clear();
        bytes.extend(tensor.values.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_wrappers() {
        assert_eq!(
            canonical("model.model.0.auto_model.encoder.layer.0.output.dense.weight").as_deref(),
            Some("encoder.layer.0.output.dense.weight")
        );
        assert_eq!(canonical("bert.pooler.dense.bias").as_deref(), Some("bert.pooler.dense.bias"));
        assert_eq!(canonical("onnx::MatMul_12"), None);
    }

    #[test]
    fn hostile_bytes_are_an_error() {
        for bytes in [&b"\x3a\xff\xff\xff\xff\x0f"[..], b"\xff", b"", b"\x3a\x02\x0a\x7f", b"\x07"] {
            assert!(bert_weights(bytes).is_err());
        }
    }

    #[test]
    fn transpose_swaps_rows_and_columns() {
        let matrix = Tensor { dims: vec![2, 3], values: vec![1., 2., 3., 4., 5., 6.] };
        let transposed = matrix.transposed("m").unwrap();
        assert_eq!(transposed, Tensor { dims: vec![3, 2], values: vec![1., 4., 2., 5., 3., 6.] });
    }
}
