//! Products of quantised matrices and vectors.
//!
//! A GGUF file keeps a row's 32 (or 256) values in a block: a scale, perhaps a minimum, and a few bits per value. Vectors are
//! rounded to 8 bits in blocks of 32, as llama.cpp does for most formats; products of blocks are sums of integers, which the
//! dot-product instructions of x86 (VNNI, or AVX2's `maddubs`) compute four at a time.
//!
//! For these instructions the weights are laid out anew, without changing a bit of what they mean: 16 rows together, for each
//! four columns the 16 × 4 values side by side. So a row has a lane to itself, nothing has to be summed across lanes, and
//! several vectors (the tokens of a prompt) use the same unpacked weights.
//!
//! Codes are unsigned. What formats subtract from a code (16 of five bits) is taken out of the whole block at once, since the
//! sum of the vector's block is known.

mod pack;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use pack::QuantMatrix;

use super::pool::{Parts, Pool};
use candle_core::quantized::GgmlDType;

/// Values that share a scale in a vector, and in most formats.
pub(crate) const BLOCK: usize = 32;

/// Rows that are computed side by side.
pub(crate) const ROWS: usize = 16;

/// The most vectors that are multiplied by the same unpacked weights.
pub(crate) const TILE: usize = 8;

/// The formats there are products for, named as GGUF names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(non_camel_case_types)]
pub(crate) enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// How scales are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scales {
    /// Per block a 16-bit float.
    Plain,
    /// Per block a 16-bit float, and another that is added to each value.
    PlainMin,
    /// Per 8 blocks two 16-bit floats, per block an integer factor of each: of the values, and of what is subtracted.
    SuperMin,
    /// Per 8 blocks a 16-bit float, per half of a block an integer factor of it.
    SuperHalves,
}

impl Format {
    const ALL: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4_K, Self::Q5_K, Self::Q6_K];

    /// candle's name for it.
    pub(crate) fn of(dtype: GgmlDType) -> Option<Self> {
        Some(match dtype {
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K => Self::Q4_K,
            GgmlDType::Q5K => Self::Q5_K,
            GgmlDType::Q6K => Self::Q6_K,
            _ => return None,
        })
    }

    /// Bits of a code.
    const fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q6_K => 6,
            Self::Q8_0 => 8,
        }
    }

    const fn scales(self) -> Scales {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => Scales::Plain,
            Self::Q4_1 | Self::Q5_1 => Scales::PlainMin,
            Self::Q4_K | Self::Q5_K => Scales::SuperMin,
            Self::Q6_K => Scales::SuperHalves,
        }
    }

    /// What is subtracted from every code.
    const fn offset(self) -> i32 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6_K => 32,
            Self::Q8_0 => 128,
            _ => 0,
        }
    }

    /// Whether a tensor of this shape is a matrix of this format.
    pub(crate) fn fits(self, shape: &[usize]) -> bool {
        matches!(shape, [rows, columns] if *rows > 0 && *columns > 0 && columns.is_multiple_of(self.columns()))
    }

    /// Bytes of such a matrix in a GGUF file.
    pub(crate) fn file_size(self, rows: usize, columns: usize) -> usize {
        rows * (columns / self.columns() * self.file_bytes())
    }

    /// Columns are a multiple of this.
    const fn columns(self) -> usize {
        match self.scales() {
            Scales::Plain | Scales::PlainMin => BLOCK,
            Scales::SuperMin | Scales::SuperHalves => 8 * BLOCK,
        }
    }

    /// Bytes of the codes of 16 rows of a block.
    const fn code_bytes(self) -> usize {
        ROWS * BLOCK * self.bits() / 8
    }

    /// Bytes of the scales of 16 rows of [`Format::columns`] columns.
    const fn scale_bytes(self) -> usize {
        match self.scales() {
            Scales::Plain => 2 * ROWS,
            Scales::PlainMin => 4 * ROWS,
            Scales::SuperMin => (4 + 16) * ROWS,
            Scales::SuperHalves => (2 + 16) * ROWS,
        }
    }
}

/// Vectors rounded to 8 bits.
///
/// They lie in tiles of up to [`TILE`]; in a tile, the blocks of its vectors with the same columns lie side by side.
#[derive(Default)]
pub(crate) struct Vectors {
    columns: usize,
    tiles: Vec<Tile>,
    codes: Vec<i8>,
    /// Per block: what its codes are multiplied by.
    scales: Vec<f32>,
    /// Per block: the sum of its values.
    sums: Vec<f32>,
    /// Per half of a block: the sum of its codes.
    code_sums: Vec<i32>,
}

#[derive(Debug, Clone, Copy)]
struct Tile {
    first: usize,
    count: usize,
}

impl Vectors {
    /// Rounds `values`, vectors of `columns` one after the other. What was here is forgotten, its memory used again.
    ///
    /// # Panics
    /// When `columns` is not a multiple of [`BLOCK`], or `values` not one of `columns`.
    pub(crate) fn round(&mut self, pool: &Pool, values: &[f32], columns: usize) {
        assert!(columns > 0 && columns.is_multiple_of(BLOCK) && values.len().is_multiple_of(columns));
        let count = values.len() / columns;
        let blocks = columns / BLOCK;
        let number = count.div_ceil(TILE);
        self.columns = columns;
        // Of like size: nine are five and four, not eight and one.
        self.tiles.clear();
        self.tiles.extend((0..number).map(|i| {
            let first = i * count / number;
            Tile { first, count: (i + 1) * count / number - first }
        }));
        self.codes.resize(count * columns, 0);
        self.scales.resize(count * blocks, 0.0);
        self.sums.resize(count * blocks, 0.0);
        self.code_sums.resize(count * blocks * 2, 0);
        let tiles = &self.tiles;
        let codes = Parts::new(&mut self.codes);
        let scales = Parts::new(&mut self.scales);
        let sums = Parts::new(&mut self.sums);
        let code_sums = Parts::new(&mut self.code_sums);
        pool.run(number, &|i| {
            let Tile { first, count } = tiles[i];
            // SAFETY: tiles do not overlap, and each is one piece of work.
            let (codes, scales, sums, code_sums) = unsafe {
                (
                    codes.slice(first * columns, count * columns),
                    scales.slice(first * blocks, count * blocks),
                    sums.slice(first * blocks, count * blocks),
                    code_sums.slice(first * blocks * 2, count * blocks * 2),
                )
            };
            for t in 0..count {
                let vector = &values[(first + t) * columns..][..columns];
                for (b, block) in vector.chunks_exact(BLOCK).enumerate() {
                    let at = b * count + t;
                    let (scale, halves) = round_block(block, &mut codes[at * BLOCK..][..BLOCK]);
                    scales[at] = scale;
                    sums[at] = scale * (halves[0] + halves[1]) as f32;
                    code_sums[2 * b * count + t] = halves[0];
                    code_sums[(2 * b + 1) * count + t] = halves[1];
                }
            }
        });
    }

    /// How many vectors.
    fn count(&self) -> usize {
        self.codes.len() / self.columns
    }

    /// What the sums of products begin with: minus the format's offset times the sum of codes, per block or half of a block.
    fn starts(&self, format: Format) -> Vec<i32> {
        let blocks = self.columns / BLOCK;
        let offset = -format.offset();
        if format.scales() == Scales::SuperHalves {
            return self.code_sums.iter().map(|sum| offset * sum).collect();
        }
        let mut starts = Vec::with_capacity(self.scales.len());
        for Tile { first, count } in &self.tiles {
            let sums = &self.code_sums[first * blocks * 2..][..count * blocks * 2];
            for both in sums.chunks_exact(2 * count) {
                let (one, other) = both.split_at(*count);
                starts.extend(one.iter().zip(other).map(|(a, b)| offset * (a + b)));
            }
        }
        starts
    }
}

/// Rounds a block to integers in ±127; returns what they are to be multiplied by and the sums of both halves.
fn round_block(block: &[f32], codes: &mut [i8]) -> (f32, [i32; 2]) {
    const MAGIC: f32 = 12_582_912.0;
    let largest = super::math::largest(block);
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut halves = [0; 2];
    for ((block, codes), sum) in
        block.chunks_exact(BLOCK / 2).zip(codes.chunks_exact_mut(BLOCK / 2)).zip(&mut halves)
    {
        for (value, code) in block.iter().zip(codes) {
            // Adding 1.5 · 2²³ leaves the nearest integer in the lowest bits.
            let rounded = (value * inverse + MAGIC).to_bits() as i8;
            *code = rounded;
            *sum += i32::from(rounded);
        }
    }
    (scale, halves)
}

/// How this processor computes best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust.
    Portable,
    /// 8 lanes, `maddubs`.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 lanes, VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::Portable)
    }

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// All that this processor has, the best last.
    pub(crate) fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 {
                return &[Self::Portable, Self::Avx2, Self::Avx512];
            }
            if avx2 {
                return &[Self::Portable, Self::Avx2];
            }
        }
        &[Self::Portable]
    }
}

/// What a kernel is given: 16 rows of a matrix and a tile of vectors.
struct Task<'a> {
    format: Format,
    blocks: usize,
    /// The codes of all blocks, [`Format::code_bytes`] each.
    codes: &'a [u8],
    /// The scales of all blocks.
    scales: &'a [u8],
    /// Vectors in the tile.
    count: usize,
    vectors: &'a [i8],
    vector_scales: &'a [f32],
    vector_sums: &'a [f32],
    starts: &'a [i32],
}

/// 16 sums for each vector of a tile.
type Sums = [[f32; ROWS]; TILE];

fn compute(isa: Isa, task: &Task<'_>, out: &mut Sums) {
    let halves = if task.format.scales() == Scales::SuperHalves { 2 } else { 1 };
    // The kernels go by pointers: all that they read is checked here.
    assert!((1..=TILE).contains(&task.count));
    assert_eq!(task.codes.len(), task.blocks * task.format.code_bytes());
    assert_eq!(task.scales.len(), task.blocks * BLOCK / task.format.columns() * task.format.scale_bytes());
    assert_eq!(task.vectors.len(), task.blocks * BLOCK * task.count);
    assert_eq!(task.vector_scales.len(), task.blocks * task.count);
    assert_eq!(task.vector_sums.len(), task.blocks * task.count);
    assert_eq!(task.starts.len(), task.blocks * task.count * halves);
    match isa {
        Isa::Portable => portable::compute(task, out),
        // SAFETY: `Isa::available` gives these only where the processor has the instructions; lengths were checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(task, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::avx512(task, out) },
    }
}

/// A product to be computed.
pub(crate) struct Product<'a> {
    /// The matrix.
    pub(crate) matrix: &'a QuantMatrix,
    /// Added to every result.
    pub(crate) bias: Option<&'a [f32]>,
    /// Where results go, one vector after the other.
    pub(crate) out: &'a mut [f32],
    /// Add to what is there instead of replacing it.
    pub(crate) add: bool,
}

/// Multiplies the same vectors by several matrices.
///
/// # Panics
/// When sizes do not fit.
pub(crate) fn multiply(pool: &Pool, isa: Isa, vectors: &Vectors, products: &mut [Product<'_>]) {
    struct Part<'a> {
        matrix: &'a QuantMatrix,
        bias: Option<&'a [f32]>,
        out: Parts<'a, f32>,
        add: bool,
        starts: Vec<i32>,
        first_group: usize,
    }
    let blocks = vectors.columns / BLOCK;
    let mut groups = 0;
    let mut bytes = 0;
    let mut parts = Vec::with_capacity(products.len());
    for product in products {
        let matrix = product.matrix;
        assert_eq!(matrix.columns(), vectors.columns, "a matrix of other vectors");
        assert_eq!(product.out.len(), matrix.rows() * vectors.count(), "a result of another size");
        assert!(product.bias.is_none_or(|bias| bias.len() == matrix.rows()), "a bias of another size");
        parts.push(Part {
            matrix,
            bias: product.bias,
            out: Parts::new(product.out),
            add: product.add,
            starts: vectors.starts(matrix.format()),
            first_group: groups,
        });
        groups += matrix.groups();
        bytes += matrix.bytes();
    }
    // Small enough that no thread waits long for the last, large enough to be worth handing out.
    let least = (groups * (16 << 10)).div_ceil(bytes.max(1) * vectors.tiles.len().max(1)).max(1);
    let chunk = groups.div_ceil(pool.threads() * 8).max(least);
    pool.run(groups.div_ceil(chunk), &|piece| {
        let mut sums = [[0f32; ROWS]; TILE];
        for index in piece * chunk..((piece + 1) * chunk).min(groups) {
            let Some(part) = parts.iter().rev().find(|part| part.first_group <= index) else { continue };
            let matrix = part.matrix;
            let halves = if matrix.format().scales() == Scales::SuperHalves { 2 } else { 1 };
            let group = index - part.first_group;
            let (codes, scales) = matrix.group(group);
            let rows = ROWS.min(matrix.rows() - group * ROWS);
            for Tile { first, count } in &vectors.tiles {
                let task = Task {
                    format: matrix.format(),
                    blocks,
                    codes,
                    scales,
                    count: *count,
                    vectors: &vectors.codes[first * vectors.columns..][..count * vectors.columns],
                    vector_scales: &vectors.scales[first * blocks..][..count * blocks],
                    vector_sums: &vectors.sums[first * blocks..][..count * blocks],
                    starts: &part.starts[first * blocks * halves..][..count * blocks * halves],
                };
                compute(isa, &task, &mut sums);
                for (t, sums) in sums.iter().take(*count).enumerate() {
                    // SAFETY: every pair of vector and group of rows belongs to one piece of work.
                    let out = unsafe { part.out.slice((first + t) * matrix.rows() + group * ROWS, rows) };
                    if part.add {
                        super::math::add(out, sums);
                    } else {
                        out.copy_from_slice(&sums[..rows]);
                    }
                    if let Some(bias) = part.bias {
                        super::math::add(out, &bias[group * ROWS..]);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{super::memory::Arena, *};
    use candle_core::{quantized::QTensor, Device, Tensor};

    const DTYPES: [GgmlDType; 8] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    fn rounded(pool: &Pool, values: &[f32], columns: usize) -> Vectors {
        let mut vectors = Vectors::default();
        vectors.round(pool, values, columns);
        vectors
    }

    fn random(dtype: GgmlDType, rows: usize, columns: usize) -> (QTensor, QuantMatrix) {
        let dense = Tensor::randn(0.1f32, 1.0, (rows, columns), &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&dense, dtype).unwrap();
        let format = Format::of(dtype).unwrap();
        let matrix = QuantMatrix::pack(
            &Pool::new(2),
            &Arena::default(),
            format,
            rows,
            columns,
            &tensor.data().unwrap(),
        )
        .unwrap();
        (tensor, matrix)
    }

    /// What the weights are is read by candle; the product is computed here, from the rounded vectors.
    #[test]
    fn products_are_those_of_the_dequantised_matrix() {
        let pool = Pool::new(2);
        for dtype in DTYPES {
            // 40 rows: the last of three groups is half empty.
            let (rows, columns) = (40, 512);
            let (tensor, matrix) = random(dtype, rows, columns);
            let dense = tensor.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            for count in [1, 2, 3, 4, 5, 7, 8, 9, 16, 19] {
                let values = Tensor::randn(0.2f32, 1.0, count * columns, &Device::Cpu)
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                let vectors = rounded(&pool, &values, columns);
                let rounded = |v: usize, c: usize| {
                    let tile =
                        vectors.tiles.iter().find(|t| (t.first..t.first + t.count).contains(&v)).unwrap();
                    let at = tile.first * (columns / BLOCK) + c / BLOCK * tile.count + (v - tile.first);
                    let value =
                        f64::from(vectors.codes[at * BLOCK + c % BLOCK]) * f64::from(vectors.scales[at]);
                    // Rounded to the nearest of 255 steps.
                    let original = values[v * columns + c];
                    assert!((value - f64::from(original)).abs() <= f64::from(vectors.scales[at]) * 0.501);
                    value
                };
                for isa in Isa::available() {
                    let mut out = vec![1f32; rows * count];
                    let bias: Vec<f32> = (0..rows).map(|i| i as f32).collect();
                    multiply(
                        &pool,
                        *isa,
                        &vectors,
                        &mut [Product { matrix: &matrix, bias: Some(&bias), out: &mut out, add: true }],
                    );
                    for v in 0..count {
                        for (r, row) in dense.iter().enumerate() {
                            let product: f64 =
                                row.iter().enumerate().map(|(c, w)| f64::from(*w) * rounded(v, c)).sum();
                            let expected = product + 1.0 + r as f64;
                            let found = f64::from(out[v * rows + r]);
                            assert!(
                                (found - expected).abs() < 2e-3,
                                "{dtype:?} {isa:?}, {count} vectors, row {r}: {found}, expected {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// The largest codes and vectors that there can be: nothing overflows on the way.
    #[test]
    fn extremes_do_not_overflow() {
        let pool = Pool::new(1);
        for sign in [1.0f32, -1.0] {
            let dense = Tensor::new(vec![vec![sign * 3.0; 256]; 16], &Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&dense, GgmlDType::Q8_0).unwrap();
            let mut data = tensor.data().unwrap().to_vec();
            // −128 too, which no quantiser writes but a file may hold.
            for block in data.chunks_exact_mut(34) {
                block[2..].fill(if sign > 0.0 { 127 } else { -128i8 as u8 });
            }
            let matrix = QuantMatrix::pack(&pool, &Arena::default(), Format::Q8_0, 16, 256, &data).unwrap();
            let scale = f64::from(half::f16::from_f32(3.0 / 127.0).to_f32());
            let code = if sign > 0.0 { 127.0 } else { -128.0 };
            for value in [5.0f32, -5.0] {
                let vectors = rounded(&pool, &vec![value; 256 * 3], 256);
                let expected = 256.0 * code * scale * f64::from(value);
                for isa in Isa::available() {
                    let mut out = vec![0f32; 16 * 3];
                    multiply(
                        &pool,
                        *isa,
                        &vectors,
                        &mut [Product { matrix: &matrix, bias: None, out: &mut out, add: false }],
                    );
                    for found in out {
                        assert!(
                            (f64::from(found) / expected - 1.0).abs() < 1e-5,
                            "{isa:?}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn several_matrices_at_once() {
        let pool = Pool::new(3);
        let matrices: Vec<_> = [(GgmlDType::Q5_0, 64), (GgmlDType::Q8_0, 16), (GgmlDType::Q6K, 48)]
            .map(|(t, r)| random(t, r, 256))
            .into();
        let values = vec![0.5f32; 256 * 2];
        let vectors = rounded(&pool, &values, 256);
        let mut alone: Vec<Vec<f32>> = matrices.iter().map(|(_, m)| vec![0f32; m.rows() * 2]).collect();
        for ((_, matrix), out) in matrices.iter().zip(&mut alone) {
            multiply(&pool, Isa::detect(), &vectors, &mut [Product { matrix, bias: None, out, add: false }]);
        }
        let mut together: Vec<Vec<f32>> = matrices.iter().map(|(_, m)| vec![0f32; m.rows() * 2]).collect();
        let mut products: Vec<_> = matrices
            .iter()
            .zip(&mut together)
            .map(|((_, matrix), out)| Product { matrix, bias: None, out, add: false })
            .collect();
        multiply(&pool, Isa::detect(), &vectors, &mut products);
        drop(products);
        assert_eq!(alone, together);
    }

    #[test]
    fn rows_are_those_of_the_file() {
        for dtype in DTYPES {
            let (tensor, matrix) = random(dtype, 24, 256);
            let dense = tensor.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            for (r, expected) in dense.iter().enumerate() {
                let mut row = vec![0f32; 256];
                matrix.row(r, &mut row);
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5, "{dtype:?}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_that_is_too_short_is_refused() {
        let pool = Pool::new(1);
        assert!(QuantMatrix::pack(&pool, &Arena::default(), Format::Q8_0, 16, 32, &[0; 16 * 34 - 1]).is_err());
        assert!(QuantMatrix::pack(&pool, &Arena::default(), Format::Q4_K, 16, 32, &[0; 16 * 18]).is_err());
        assert_eq!(Format::of(GgmlDType::F16), None);
        assert_eq!(DTYPES.map(|d| Format::of(d).unwrap()), Format::ALL);
    }
}
