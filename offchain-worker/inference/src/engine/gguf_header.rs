//! What stands before the weights of a GGUF file: its metadata, and where which tensor lies.
//!
//! candle has a reader of its own. This one is for files that anybody may hand over: every length is held against what is left of
//! the file before anything is allocated, lists stay the bytes that they are until somebody asks for them, and what cannot be
//! (tensors beyond the end, an alignment of 0, a name that stands twice) is an error that names it. So no file makes it panic, and no
//! allocation is larger than the file. The format: ggml's `docs/gguf.md`.

use candle_core::{
    quantized::{
        gguf_file::{TensorInfo, Value, DEFAULT_ALIGNMENT},
        GgmlDType, QTensor,
    },
    Device, Shape,
};
use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Seek, SeekFrom},
};

/// Lists of lists deeper than this are refused: each level is a call.
const DEPTH: usize = 4;

/// The most dimensions of a tensor (`GGML_MAX_DIMS`).
const DIMENSIONS: u32 = 4;

/// The longest key (the format's own limit) or name of a tensor.
const NAME_BYTES: u64 = 65_535;

/// Bytes of a text that need not be UTF-8.
const SHORT: usize = 4096;

type Result<T> = std::result::Result<T, String>;

/// The metadata and the tensors of a file.
#[derive(Debug)]
pub(crate) struct Header {
    values: BTreeMap<String, Value>,
    lists: BTreeMap<String, List>,
    /// Where which tensor lies, by name.
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    /// Where the first tensor begins.
    pub(crate) data: u64,
}

/// A list, as its bytes in the file.
#[derive(Debug)]
struct List {
    kind: Kind,
    count: usize,
    bytes: Vec<u8>,
    /// Of the length before a text: 4 in the first version of the format, then 8.
    prefix: usize,
}

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of(number: u32) -> Result<Self> {
        const ALL: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::List,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let found = usize::try_from(number).ok().and_then(|number| ALL.get(number).copied());
        found.ok_or_else(|| format!("{number} is no type of a value"))
    }

    /// Bytes of a value of this type; `None` of texts and lists, which tell.
    const fn size(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Text | Self::List => return None,
        })
    }

    /// The value in these bytes, of a type that has a size.
    fn value(self, bytes: &[u8]) -> Option<Value> {
        macro_rules! number {
            ($type:ty) => {
                <$type>::from_le_bytes(bytes.try_into().ok()?)
            };
        }
        Some(match self {
            Self::U8 => Value::U8(number!(u8)),
            Self::I8 => Value::I8(number!(i8)),
            Self::U16 => Value::U16(number!(u16)),
            Self::I16 => Value::I16(number!(i16)),
            Self::U32 => Value::U32(number!(u32)),
            Self::I32 => Value::I32(number!(i32)),
            Self::F32 => Value::F32(number!(f32)),
            Self::Bool => Value::Bool(number!(u8) != 0),
            Self::U64 => Value::U64(number!(u64)),
            Self::I64 => Value::I64(number!(i64)),
            Self::F64 => Value::F64(number!(f64)),
            Self::Text | Self::List => return None,
        })
    }
}

/// A whole number, of whatever type.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    Some(match value {
        Value::U8(v) => i64::from(*v),
        Value::I8(v) => i64::from(*v),
        Value::U16(v) => i64::from(*v),
        Value::I16(v) => i64::from(*v),
        Value::U32(v) => i64::from(*v),
        Value::I32(v) => i64::from(*v),
        Value::U64(v) => i64::try_from(*v).ok()?,
        Value::I64(v) => *v,
        _ => return None,
    })
}

/// A value in a message.
pub(crate) fn told(value: &Value) -> String {
    match value {
        Value::String(text) => format!("a text of {} bytes", text.len()),
        other => format!("{other:?}"),
    }
}

/// A text as the format has it. Some files end theirs with zeros, and short ones (tokens) are not always UTF-8: what is none becomes
/// three bytes for each, so long ones must be.
fn text(bytes: &[u8]) -> Result<String> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_string()),
        Err(_) if bytes.len() <= SHORT => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Err(_) => Err(format!("a text of {} bytes that is no UTF-8", bytes.len())),
    }
}

/// ggml's number of a format of tensors.
fn format(number: u32) -> std::result::Result<GgmlDType, &'static str> {
    Ok(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        16 => return Err("IQ2_XXS"),
        17 => return Err("IQ2_XS"),
        18 => return Err("IQ3_XXS"),
        19 => return Err("IQ1_S"),
        20 => return Err("IQ4_NL"),
        21 => return Err("IQ3_S"),
        22 => return Err("IQ2_S"),
        23 => return Err("IQ4_XS"),
        29 => return Err("IQ1_M"),
        34 => return Err("TQ1_0"),
        35 => return Err("TQ2_0"),
        39 => return Err("MXFP4"),
        _ => return Err("unknown"),
    })
}

/// The bytes that a tensor takes; `None` where its shape is none.
fn bytes_of(shape: &[usize], dtype: GgmlDType) -> Option<u64> {
    let elements = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side))?;
    // Rows are whole blocks.
    let fits = shape.last().is_none_or(|columns| columns.is_multiple_of(dtype.block_size()));
    if elements == 0 || !fits || !elements.is_multiple_of(dtype.block_size()) {
        return None;
    }
    u64::try_from((elements / dtype.block_size()).checked_mul(dtype.type_size())?).ok()
}

/// A file, read from its beginning; knows what is left of it.
struct Source<R> {
    reader: BufReader<R>,
    left: u64,
    prefix: usize,
}

impl<R: Read + Seek> Source<R> {
    /// Whether so much is left.
    fn need(&self, bytes: u64) -> Result<()> {
        if bytes > self.left {
            return Err(format!("it asks for {bytes} bytes where the file has {} more", self.left));
        }
        Ok(())
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        self.need(count)?;
        let mut bytes = vec![0; usize::try_from(count).map_err(|e| e.to_string())?];
        self.reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        self.left -= count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.need(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        self.left -= N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<u64> {
        match self.prefix {
            4 => self.u32().map(u64::from),
            _ => self.u64(),
        }
    }

    fn name(&mut self) -> Result<String> {
        let length = self.length()?;
        if length > NAME_BYTES {
            return Err(format!("a name of {length} bytes"));
        }
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes).map_err(|_| "a name that is no UTF-8".to_string())
    }

    /// Passes over a list's elements, and tells how many bytes they are.
    fn pass(&mut self, kind: Kind, count: u64, depth: usize) -> Result<u64> {
        let before = self.left;
        let least = kind.size().unwrap_or(self.prefix) as u64;
        self.need(count.saturating_mul(least))?;
        if kind.size().is_some() {
            self.skip(count * least)?;
            return Ok(before - self.left);
        }
        if kind == Kind::List && depth == 0 {
            return Err("lists in lists in lists".to_string());
        }
        for _ in 0..count {
            if kind == Kind::Text {
                let length = self.length()?;
                self.skip(length)?;
            } else {
                let kind = Kind::of(self.u32()?)?;
                let count = self.length()?;
                self.pass(kind, count, depth - 1)?;
            }
        }
        Ok(before - self.left)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.need(bytes)?;
        let offset = i64::try_from(bytes).map_err(|e| e.to_string())?;
        self.reader.seek_relative(offset).map_err(|e| e.to_string())?;
        self.left -= bytes;
        Ok(())
    }

    /// A list's elements, as their bytes. They are passed over first, so that what is allocated is what they take.
    fn list(&mut self, kind: Kind, count: u64) -> Result<Vec<u8>> {
        let bytes = self.pass(kind, count, DEPTH)?;
        // Nothing that is known here is a list of lists.
        if kind == Kind::List {
            return Ok(Vec::new());
        }
        let back = i64::try_from(bytes).map_err(|e| e.to_string())?;
        self.reader.seek_relative(-back).map_err(|e| e.to_string())?;
        self.left += bytes;
        self.bytes(bytes)
    }
}

impl Header {
    /// Reads it from the beginning of a file.
    ///
    /// # Errors
    /// When it is no GGUF file, or one that cannot be.
    pub(crate) fn read(file: &mut (impl Read + Seek)) -> candle_core::Result<Self> {
        Self::parse(file)
            .map_err(|reason| candle_core::Error::Msg(format!("the GGUF file's header: {reason}")))
    }

    fn parse(file: &mut (impl Read + Seek)) -> Result<Self> {
        let length = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
        file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
        let mut source = Source { reader: BufReader::new(file), left: length, prefix: 8 };
        match source.u32() {
            Ok(0x4655_4747) => {}
            _ => return Err("it does not begin with `GGUF`: it is another kind of file".to_string()),
        }
        match source.u32()? {
            1 => source.prefix = 4,
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => return Err("it is of a big-endian machine".to_string()),
            version => return Err(format!("version {version} of the format is not supported")),
        }
        let tensor_count = source.length()?;
        let value_count = source.length()?;
        // What each takes at least: a length, a type and a byte; a length, a number of dimensions, a format and an offset.
        let least = value_count
            .saturating_mul(source.prefix as u64 + 5)
            .saturating_add(tensor_count.saturating_mul(source.prefix as u64 + 16));
        source.need(least)?;
        let mut this =
            Self { values: BTreeMap::new(), lists: BTreeMap::new(), tensors: BTreeMap::new(), data: 0 };
        for _ in 0..value_count {
            let key = source.name()?;
            this.read_value(&mut source, &key).map_err(|reason| format!("`{key}`: {reason}"))?;
        }
        for _ in 0..tensor_count {
            let name = source.name()?;
            let info =
                Self::read_tensor(&mut source).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            if this.tensors.contains_key(&name) {
                return Err(format!("tensor `{name}` stands there twice"));
            }
            this.tensors.insert(name, info);
        }
        let alignment = match this.values.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => whole(value)
                .and_then(|alignment| u64::try_from(alignment).ok())
                .filter(|alignment| alignment.is_power_of_two() && *alignment <= 1 << 20)
                .ok_or_else(|| format!("`general.alignment` is {}, which is no power of two", told(value)))?,
        };
        this.data = (length - source.left).next_multiple_of(alignment);
        for (name, info) in &this.tensors {
            let end = bytes_of(info.shape.dims(), info.ggml_dtype)
                .and_then(|bytes| this.data.checked_add(info.offset)?.checked_add(bytes));
            if end.is_none_or(|end| end > length) {
                return Err(format!(
                    "tensor `{name}` reaches beyond the file's {length} bytes: it is cut off"
                ));
            }
        }
        Ok(this)
    }

    fn read_value<R: Read + Seek>(&mut self, source: &mut Source<R>, key: &str) -> Result<()> {
        let kind = Kind::of(source.u32()?)?;
        if self.values.contains_key(key) || self.lists.contains_key(key) {
            return Err("stands there twice".to_string());
        }
        let value = match kind {
            Kind::List => {
                let kind = Kind::of(source.u32()?)?;
                let count = source.length()?;
                let bytes = source.list(kind, count)?;
                let count = usize::try_from(count).map_err(|e| e.to_string())?;
                self.lists.insert(key.to_string(), List { kind, count, bytes, prefix: source.prefix });
                return Ok(());
            }
            Kind::Text => {
                let length = source.length()?;
                Value::String(text(&source.bytes(length)?)?)
            }
            _ => {
                let bytes = source.bytes(kind.size().unwrap_or(0) as u64)?;
                kind.value(&bytes).ok_or("its value cannot be read")?
            }
        };
        self.values.insert(key.to_string(), value);
        Ok(())
    }

    fn read_tensor<R: Read + Seek>(source: &mut Source<R>) -> Result<TensorInfo> {
        let dimensions = source.u32()?;
        if dimensions > DIMENSIONS {
            return Err(format!("it has {dimensions} dimensions"));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(usize::try_from(source.length()?).map_err(|e| e.to_string())?);
        }
        shape.reverse();
        let number = source.u32()?;
        let ggml_dtype = format(number)
            .map_err(|name| format!("its format is {name} (number {number}), which is not supported"))?;
        let offset = source.u64()?;
        if bytes_of(&shape, ggml_dtype).is_none() {
            return Err(format!("{shape:?} is no shape of a {ggml_dtype:?} tensor"));
        }
        Ok(TensorInfo { ggml_dtype, shape: Shape::from(shape), offset })
    }

    /// A value that is no list.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Whether there is anything under this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key) || self.lists.contains_key(key)
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().chain(self.lists.keys()).map(String::as_str)
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A boolean.
    pub(crate) fn truth(&self, key: &str) -> Option<bool> {
        self.values.get(key).and_then(|value| value.to_bool().ok())
    }

    /// A whole number.
    pub(crate) fn whole(&self, key: &str) -> Option<i64> {
        self.values.get(key).and_then(whole)
    }

    /// How many elements a list has.
    pub(crate) fn count(&self, key: &str) -> Option<usize> {
        self.lists.get(key).map(|list| list.count)
    }

    fn list(&self, key: &str) -> Result<&List> {
        match self.lists.get(key) {
            Some(list) => Ok(list),
            None if self.values.contains_key(key) => Err(format!("`{key}` is no list")),
            None => Err(format!("the file has no `{key}`")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let list = self.list(key)?;
        if list.kind != Kind::Text && list.count > 0 {
            return Err(format!("`{key}` is no list of texts"));
        }
        let mut rest = list.bytes.as_slice();
        let mut texts = Vec::with_capacity(list.count);
        while texts.len() < list.count {
            let next = rest.split_at_checked(list.prefix).and_then(|(length, after)| {
                let mut whole = [0; 8];
                whole[..list.prefix].copy_from_slice(length);
                after.split_at_checked(usize::try_from(u64::from_le_bytes(whole)).ok()?)
            });
            let Some((own, after)) = next else { return Err(format!("`{key}` is cut off")) };
            texts.push(text(own).map_err(|reason| format!("`{key}`: {reason}"))?);
            rest = after;
        }
        Ok(texts)
    }

    fn numbers<T>(&self, key: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let list = self.list(key)?;
        let bad = || format!("`{key}` is no list of numbers");
        let Some(size) = list.kind.size() else {
            return if list.count == 0 { Ok(Vec::new()) } else { Err(bad()) };
        };
        let value = |bytes: &[u8]| list.kind.value(bytes).as_ref().and_then(&convert).ok_or_else(bad);
        list.bytes.chunks_exact(size).map(value).collect()
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn wholes(&self, key: &str) -> Result<Vec<i64>> {
        self.numbers(key, whole)
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn floats(&self, key: &str) -> Result<Vec<f64>> {
        self.numbers(key, |value| match value {
            Value::F32(value) => Some(f64::from(*value)),
            Value::F64(value) => Some(*value),
            _ => None,
        })
    }

    /// A tensor, on a device.
    ///
    /// # Errors
    /// When there is none of this name, or the file cannot be read.
    pub(crate) fn tensor(
        &self,
        file: &mut (impl Read + Seek),
        name: &str,
        device: &Device,
    ) -> candle_core::Result<QTensor> {
        match self.tensors.get(name) {
            Some(info) => info.read(file, self.data, device),
            None => candle_core::bail!("the file has no tensor `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file;
    use std::io::Cursor;

    fn file(pairs: &[(&str, Value)], tensors: &[(&str, QTensor)]) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        gguf_file::write(&mut out, &pairs, &tensors).unwrap();
        out.into_inner()
    }

    fn read(bytes: &[u8]) -> candle_core::Result<Header> {
        Header::read(&mut Cursor::new(bytes))
    }

    fn tensor(values: &[f32]) -> QTensor {
        let tensor = candle_core::Tensor::new(values, &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
    }

    #[test]
    fn what_candle_wrote_is_read() {
        let pairs = [
            ("a.text", Value::String("x\0".into())),
            ("a.number", Value::U16(7)),
            ("a.truth", Value::Bool(true)),
            ("a.texts", Value::Array(vec![Value::String("é".into()), Value::String(String::new())])),
            ("a.wholes", Value::Array(vec![Value::I8(-1), Value::I8(2)])),
            ("a.floats", Value::Array(vec![Value::F32(0.5)])),
            ("a.lists", Value::Array(vec![Value::Array(vec![Value::U64(1)])])),
            ("a.none", Value::Array(vec![])),
        ];
        let bytes = file(&pairs, &[("t", tensor(&[1.0, 2.0])), ("u", tensor(&[3.0]))]);
        let header = read(&bytes).unwrap();
        assert_eq!((header.text("a.text"), header.whole("a.number")), (Some("x"), Some(7)));
        assert_eq!((header.truth("a.truth"), header.truth("a.number")), (Some(true), None));
        assert_eq!(header.texts("a.texts").unwrap(), ["é", ""]);
        assert_eq!(header.wholes("a.wholes").unwrap(), [-1, 2]);
        assert_eq!(header.floats("a.floats").unwrap(), [0.5]);
        assert_eq!((header.texts("a.none").unwrap().len(), header.wholes("a.none").unwrap().len()), (0, 0));
        assert!(header.texts("a.wholes").is_err() && header.wholes("a.lists").is_err());
        assert!(header.has("a.lists") && header.value("a.lists").is_none() && !header.has("b"));
        assert_eq!((header.keys().count(), header.count("a.texts")), (8, Some(2)));
        // As candle reads it.
        let theirs = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap();
        assert_eq!(header.data, theirs.tensor_data_offset);
        for name in ["t", "u"] {
            let mut file = Cursor::new(&bytes);
            let own = header.tensor(&mut file, name, &Device::Cpu).unwrap();
            let other = theirs.tensor(&mut file, name, &Device::Cpu).unwrap();
            assert_eq!(own.data().unwrap(), other.data().unwrap());
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let good = file(&[("general.alignment", Value::U32(32))], &[("t", tensor(&[1.0, 2.0]))]);
        assert!(read(&good).is_ok());
        for alignment in [Value::U32(0), Value::U32(24), Value::I32(-32), Value::String("32".into())] {
            let error = read(&file(&[("general.alignment", alignment)], &[])).unwrap_err().to_string();
            assert!(error.contains("general.alignment"), "{error}");
        }
        let refused = |change: &dyn Fn(&mut Vec<u8>), says: &str| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        };
        refused(&|bytes| bytes[0] = b'X', "another kind of file");
        refused(&|bytes| bytes.clear(), "another kind of file");
        refused(&|bytes| bytes[4] = 9, "version 9");
        refused(&|bytes| bytes[4..8].copy_from_slice(&[0, 0, 0, 3]), "big-endian");
        refused(&|bytes| bytes[15] = 1, "asks for");
        refused(&|bytes| bytes.truncate(bytes.len() - 26), "`t` reaches beyond");
        let at = good.windows(1).position(|window| window == b"t").unwrap();
        assert_eq!(&good[at..at + 5], b"t\x01\0\0\0");
        refused(&|bytes| bytes[at + 1] = 5, "5 dimensions");
        refused(&|bytes| bytes[at + 5] = 0, "no shape");
        refused(&|bytes| bytes[at + 12] = 0xff, "no shape");
        refused(&|bytes| bytes[at + 13] = 23, "IQ4_XS");
        refused(&|bytes| bytes[at + 23] = 0x7f, "`t` reaches beyond");
        let twice = file(&[("a", Value::U8(1)), ("a", Value::U8(1))], &[]);
        assert!(read(&twice).unwrap_err().to_string().contains("twice"));
        let twice = file(&[], &[("t", tensor(&[1.0])), ("t", tensor(&[1.0]))]);
        assert!(read(&twice).unwrap_err().to_string().contains("twice"));
        let mut deep = Value::Array(vec![Value::U8(1)]);
        for _ in 0..20 {
            deep = Value::Array(vec![deep]);
        }
        assert!(read(&file(&[("a", deep)], &[])).unwrap_err().to_string().contains("lists in lists"));
    }
}
