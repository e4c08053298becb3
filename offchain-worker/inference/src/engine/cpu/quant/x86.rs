//! The product with the dot-product instructions of x86.
//!
//! Kernels are compiled once per format and number of vectors, so that a vector's sums stay in registers.

// Loops go by the number of a register: several arrays of them belong together.
#![allow(clippy::needless_range_loop)]

use super::{Format, Scales, Sums, Task, BLOCK, ROWS, TILE};
use std::arch::x86_64::*;

/// Where a kernel reads and writes. Everything that is read was checked by `compute` to be there.
#[derive(Clone, Copy)]
struct Pointers {
    blocks: usize,
    /// Vectors in the tile: how far one block's scales are from the next one's.
    count: usize,
    codes: *const u8,
    scales: *const u8,
    vectors: *const i8,
    vector_scales: *const f32,
    vector_sums: *const f32,
    starts: *const i32,
    out: *mut f32,
}

impl Pointers {
    fn of(task: &Task<'_>, out: &mut Sums) -> Self {
        Self {
            blocks: task.blocks,
            count: task.count,
            codes: task.codes.as_ptr(),
            scales: task.scales.as_ptr(),
            vectors: task.vectors.as_ptr(),
            vector_scales: task.vector_scales.as_ptr(),
            vector_sums: task.vector_sums.as_ptr(),
            starts: task.starts.as_ptr(),
            out: out.as_mut_ptr().cast(),
        }
    }

    /// The same tile from vector `t` on.
    ///
    /// # Safety
    /// `t` must be less than `count`.
    unsafe fn starting_at(self, t: usize) -> Self {
        // SAFETY: the first `count` of each lie side by side.
        unsafe {
            Self {
                vectors: self.vectors.add(t * BLOCK),
                vector_scales: self.vector_scales.add(t),
                vector_sums: self.vector_sums.add(t),
                starts: self.starts.add(t),
                out: self.out.add(t * ROWS),
                ..self
            }
        }
    }
}

/// How many bytes ahead codes are asked for.
const PREFETCH: usize = 32 << 10;

type Kernel = unsafe fn(Pointers);

/// The kernels of all formats for 1 to N vectors.
macro_rules! kernels {
    ($kernel:ident, $($n:literal),+) => {
        [
            kernels!(@format $kernel, Q4_0, $($n),+),
            kernels!(@format $kernel, Q4_1, $($n),+),
            kernels!(@format $kernel, Q5_0, $($n),+),
            kernels!(@format $kernel, Q5_1, $($n),+),
            kernels!(@format $kernel, Q8_0, $($n),+),
            kernels!(@format $kernel, Q4_K, $($n),+),
            kernels!(@format $kernel, Q5_K, $($n),+),
            kernels!(@format $kernel, Q6_K, $($n),+),
        ]
    };
    (@format $kernel:ident, $format:ident, $($n:literal),+) => {
        [$($kernel::<{ Format::$format as u8 }, $n> as Kernel),+]
    };
}

static AVX512: [[Kernel; TILE]; Format::ALL.len()] = kernels!(kernel512, 1, 2, 3, 4, 5, 6, 7, 8);
static AVX2: [[Kernel; 4]; Format::ALL.len()] = kernels!(kernel256, 1, 2, 3, 4);

/// # Safety
/// The processor must have AVX-512 F, BW, VL and VNNI, and the task must have been checked.
pub(super) unsafe fn avx512(task: &Task<'_>, out: &mut Sums) {
    let kernel = AVX512[task.format as usize][task.count - 1];
    // SAFETY: as the caller promises.
    unsafe { kernel(Pointers::of(task, out)) }
}

/// # Safety
/// The processor must have AVX2, FMA and F16C, and the task must have been checked.
pub(super) unsafe fn avx2(task: &Task<'_>, out: &mut Sums) {
    let pointers = Pointers::of(task, out);
    let mut t = 0;
    while t < task.count {
        // There are 16 registers: no more than 4 vectors fit.
        let n = (task.count - t).min(4);
        let kernel = AVX2[task.format as usize][n - 1];
        // SAFETY: as the caller promises.
        unsafe { kernel(pointers.starting_at(t)) };
        t += n;
    }
}

const fn format(number: u8) -> Format {
    Format::ALL[number as usize]
}

/// The codes of columns `4 j` to `4 j + 3` of a block.
///
/// # Safety
/// As [`kernel512`]; `codes` points to a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn codes512<const FORMAT: u8>(codes: *const u8, j: usize) -> __m512i {
    // SAFETY: within the block, see `pack`.
    unsafe {
        let bits = const { format(FORMAT).bits() };
        if bits == 8 {
            return _mm512_loadu_si512(codes.add(64 * j).cast());
        }
        let pair = _mm512_loadu_si512(codes.add(64 * (j / 2)).cast());
        let four = if j.is_multiple_of(2) { pair } else { _mm512_srli_epi16::<4>(pair) };
        let four = _mm512_and_si512(four, _mm512_set1_epi8(15));
        match bits {
            5 => {
                let fifth = codes.add(256 + 8 * j).cast::<u64>().read_unaligned();
                _mm512_mask_add_epi8(four, fifth, four, _mm512_set1_epi8(16))
            }
            6 => {
                let quarters = _mm512_loadu_si512(codes.add(256 + 64 * (j / 4)).cast());
                let two = match j % 4 {
                    0 => _mm512_slli_epi16::<4>(quarters),
                    1 => _mm512_slli_epi16::<2>(quarters),
                    2 => quarters,
                    _ => _mm512_srli_epi16::<2>(quarters),
                };
                // four | (two & 0x30)
                _mm512_ternarylogic_epi32::<0xEA>(two, _mm512_set1_epi8(0x30), four)
            }
            _ => four,
        }
    }
}

/// Sixteen 16-bit floats.
///
/// # Safety
/// As [`kernel512`]; 32 bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn floats512(from: *const u8) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
}

/// The sums of products of the codes from column `4 FROM` to `4 TO`, in integers.
///
/// # Safety
/// As [`kernel512`]; `starts` points to `N` numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dots512<const FORMAT: u8, const N: usize, const FROM: usize, const TO: usize>(
    p: &Pointers,
    starts: *const i32,
) -> [__m512; N] {
    let mut dots = [_mm512_setzero_si512(); N];
    // SAFETY: the caller's.
    unsafe {
        if const { format(FORMAT).offset() } != 0 {
            for t in 0..N {
                dots[t] = _mm512_set1_epi32(*starts.add(t));
            }
        }
        for j in FROM..TO {
            let weights = codes512::<FORMAT>(p.codes, j);
            for t in 0..N {
                let four = p.vectors.add(t * BLOCK + 4 * j).cast::<i32>().read_unaligned();
                dots[t] = _mm512_dpbusd_epi32(dots[t], weights, _mm512_set1_epi32(four));
            }
        }
    }
    dots.map(|dot| _mm512_cvtepi32_ps(dot))
}

/// Asks for a block's codes some blocks ahead: with a single vector, memory is what a product waits for.
///
/// # Safety
/// None is needed but the instruction, which every x86-64 has: an address that is not there is no error.
#[inline]
unsafe fn prefetch(codes: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        let ahead = codes.wrapping_add(PREFETCH + line);
        // SAFETY: see above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.cast()) };
    }
}

/// Sixteen floats, each times an integer factor.
///
/// # Safety
/// As [`kernel512`]; 32 bytes at `scales`, 16 at `factors`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn scaled512<const SIGNED: bool>(scales: *const u8, factors: *const u8) -> __m512 {
    // SAFETY: the caller's.
    unsafe {
        let factors = _mm_loadu_si128(factors.cast());
        let factors = if SIGNED { _mm512_cvtepi8_epi32(factors) } else { _mm512_cvtepu8_epi32(factors) };
        _mm512_mul_ps(floats512(scales), _mm512_cvtepi32_ps(factors))
    }
}

/// Sixteen rows times `N` vectors.
///
/// # Safety
/// The processor must have the features, and `p` must point to what a checked task says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn kernel512<const FORMAT: u8, const N: usize>(mut p: Pointers) {
    let format = const { format(FORMAT) };
    let mut sums = [_mm512_setzero_ps(); N];
    // SAFETY: all offsets are those of the layout, for blocks below `p.blocks` and vectors below N, which is at most `p.count`.
    // Pointers are moved on instead of computed from a block's number, which costs an overflow check each.
    unsafe {
        let end = p.codes.add(p.blocks.wrapping_mul(format.code_bytes()));
        while p.codes != end {
            for b in 0..format.columns() / BLOCK {
                if N == 1 {
                    prefetch(p.codes, format.code_bytes());
                }
                let mut minimum = _mm512_setzero_ps();
                let products = match format.scales() {
                    Scales::Plain | Scales::PlainMin => {
                        let mut dots = dots512::<FORMAT, N, 0, 8>(&p, p.starts);
                        let scale = floats512(p.scales);
                        if let Scales::PlainMin = format.scales() {
                            minimum = floats512(p.scales.add(2 * ROWS));
                        }
                        for t in 0..N {
                            dots[t] = _mm512_mul_ps(dots[t], scale);
                        }
                        dots
                    }
                    Scales::SuperMin => {
                        let mut dots = dots512::<FORMAT, N, 0, 8>(&p, p.starts);
                        let factors = p.scales.add((4 + 2 * b) * ROWS);
                        let scale = scaled512::<false>(p.scales, factors);
                        minimum = scaled512::<false>(p.scales.add(2 * ROWS), factors.add(ROWS));
                        for t in 0..N {
                            dots[t] = _mm512_mul_ps(dots[t], scale);
                        }
                        dots
                    }
                    Scales::SuperHalves => {
                        let factors = p.scales.add((2 + 2 * b) * ROWS);
                        let mut products = dots512::<FORMAT, N, 0, 4>(&p, p.starts);
                        let scale = scaled512::<true>(p.scales, factors);
                        for t in 0..N {
                            products[t] = _mm512_mul_ps(products[t], scale);
                        }
                        p.starts = p.starts.add(p.count);
                        let dots = dots512::<FORMAT, N, 4, 8>(&p, p.starts);
                        let scale = scaled512::<true>(p.scales, factors.add(ROWS));
                        for t in 0..N {
                            products[t] = _mm512_fmadd_ps(dots[t], scale, products[t]);
                        }
                        products
                    }
                };
                for t in 0..N {
                    let scale = _mm512_set1_ps(*p.vector_scales.add(t));
                    sums[t] = _mm512_fmadd_ps(products[t], scale, sums[t]);
                }
                if let Scales::PlainMin | Scales::SuperMin = format.scales() {
                    for t in 0..N {
                        let sum = _mm512_set1_ps(*p.vector_sums.add(t));
                        sums[t] = match format.scales() {
                            Scales::PlainMin => _mm512_fmadd_ps(minimum, sum, sums[t]),
                            _ => _mm512_fnmadd_ps(minimum, sum, sums[t]),
                        };
                    }
                    p.vector_sums = p.vector_sums.add(p.count);
                }
                p.starts = p.starts.add(p.count);
                p.vector_scales = p.vector_scales.add(p.count);
                p.vectors = p.vectors.add(p.count.wrapping_mul(BLOCK));
                p.codes = p.codes.add(format.code_bytes());
            }
            p.scales = p.scales.add(format.scale_bytes());
        }
        for t in 0..N {
            _mm512_storeu_ps(p.out.add(t * ROWS), sums[t]);
        }
    }
}

/// As [`codes512`], of 8 rows.
///
/// # Safety
/// As [`kernel256`]; `codes` points to a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn codes256<const FORMAT: u8>(codes: *const u8, j: usize, side: usize) -> __m256i {
    // SAFETY: within the block, see `pack`.
    unsafe {
        let bits = const { format(FORMAT).bits() };
        if bits == 8 {
            return _mm256_loadu_si256(codes.add(64 * j + 32 * side).cast());
        }
        let pair = _mm256_loadu_si256(codes.add(64 * (j / 2) + 32 * side).cast());
        let four = if j.is_multiple_of(2) { pair } else { _mm256_srli_epi16::<4>(pair) };
        let four = _mm256_and_si256(four, _mm256_set1_epi8(15));
        match bits {
            5 => {
                // Every byte gets the byte of bits that its own is in, then keeps that bit only.
                let fifth = codes.add(256 + 8 * j + 4 * side).cast::<i32>().read_unaligned();
                let spread = _mm256_shuffle_epi8(
                    _mm256_set1_epi32(fifth),
                    _mm256_setr_epi64x(
                        0,
                        0x0101_0101_0101_0101,
                        0x0202_0202_0202_0202,
                        0x0303_0303_0303_0303,
                    ),
                );
                let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
                _mm256_or_si256(four, _mm256_and_si256(set, _mm256_set1_epi8(16)))
            }
            6 => {
                let quarters = _mm256_loadu_si256(codes.add(256 + 64 * (j / 4) + 32 * side).cast());
                let two = match j % 4 {
                    0 => _mm256_slli_epi16::<4>(quarters),
                    1 => _mm256_slli_epi16::<2>(quarters),
                    2 => quarters,
                    _ => _mm256_srli_epi16::<2>(quarters),
                };
                _mm256_or_si256(four, _mm256_and_si256(two, _mm256_set1_epi8(0x30)))
            }
            _ => four,
        }
    }
}

/// Four products of codes and a vector's values, summed, for each of 8 rows.
///
/// # Safety
/// As [`kernel256`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot256<const FORMAT: u8>(weights: __m256i, values: __m256i) -> __m256i {
    let pairs = if const { format(FORMAT).bits() } == 8 {
        // `maddubs` sums two products in 16 bits, for which codes up to 255 are too large: signs change sides, so that it
        // multiplies magnitudes up to 128 by values in ±127.
        let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
        _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(values, signed))
    } else {
        _mm256_maddubs_epi16(weights, values)
    };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// Eight 16-bit floats.
///
/// # Safety
/// As [`kernel256`]; 16 bytes at `from`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn floats256(from: *const u8) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
}

/// Sixteen rows times `N` vectors, one half of the rows after the other.
///
/// # Safety
/// The processor must have the features, and `p` must point to what a checked task says.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel256<const FORMAT: u8, const N: usize>(p: Pointers) {
    let format = const { format(FORMAT) };
    // Codes of 8 bits are made signed again, so nothing has to be taken out.
    let starts_at_zero = format.offset() == 0 || format.bits() == 8;
    for side in 0..2 {
        let mut sums = [_mm256_setzero_ps(); N];
        // SAFETY: all offsets are those of the layout, for blocks below `p.blocks` and vectors below N, which is at most
        // `p.count`.
        unsafe {
            for b in 0..p.blocks {
                let codes = p.codes.add(b * format.code_bytes());
                let vectors = p.vectors.add(b * p.count * BLOCK);
                let vector_scales = p.vector_scales.add(b * p.count);
                let four = |t: usize, j: usize| {
                    _mm256_set1_epi32(vectors.add(t * BLOCK + 4 * j).cast::<i32>().read_unaligned())
                };
                let halves = if let Scales::SuperHalves = format.scales() { 2 } else { 1 };
                let mut products = [_mm256_setzero_ps(); N];
                for half in 0..halves {
                    let mut dots = [_mm256_setzero_si256(); N];
                    if !starts_at_zero {
                        let starts = p.starts.add((halves * b + half) * p.count);
                        for (t, dot) in dots.iter_mut().enumerate() {
                            *dot = _mm256_set1_epi32(*starts.add(t));
                        }
                    }
                    for j in 8 / halves * half..8 / halves * (half + 1) {
                        let weights = codes256::<FORMAT>(codes, j, side);
                        for (t, dot) in dots.iter_mut().enumerate() {
                            *dot = _mm256_add_epi32(*dot, dot256::<FORMAT>(weights, four(t, j)));
                        }
                    }
                    let scale = match format.scales() {
                        Scales::Plain => floats256(p.scales.add(b * 2 * ROWS + 16 * side)),
                        Scales::PlainMin => floats256(p.scales.add(b * 4 * ROWS + 16 * side)),
                        Scales::SuperMin => {
                            let scales = p.scales.add(b / 8 * format.scale_bytes());
                            let factors = scales.add((4 + b % 8 * 2) * ROWS + 8 * side);
                            let factor = _mm256_cvtepu8_epi32(_mm_loadl_epi64(factors.cast()));
                            _mm256_mul_ps(floats256(scales.add(16 * side)), _mm256_cvtepi32_ps(factor))
                        }
                        Scales::SuperHalves => {
                            let scales = p.scales.add(b / 8 * format.scale_bytes());
                            let factors = scales.add((2 + b % 8 * 2 + half) * ROWS + 8 * side);
                            let factor = _mm256_cvtepi8_epi32(_mm_loadl_epi64(factors.cast()));
                            _mm256_mul_ps(floats256(scales.add(16 * side)), _mm256_cvtepi32_ps(factor))
                        }
                    };
                    for (product, dot) in products.iter_mut().zip(&dots) {
                        *product = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*dot), scale, *product);
                    }
                }
                for (t, (sum, product)) in sums.iter_mut().zip(&products).enumerate() {
                    *sum = _mm256_fmadd_ps(*product, _mm256_set1_ps(*vector_scales.add(t)), *sum);
                }
                let minimum = match format.scales() {
                    Scales::Plain | Scales::SuperHalves => continue,
                    Scales::PlainMin => floats256(p.scales.add((b * 4 + 2) * ROWS + 16 * side)),
                    Scales::SuperMin => {
                        let scales = p.scales.add(b / 8 * format.scale_bytes());
                        let factors = scales.add((5 + b % 8 * 2) * ROWS + 8 * side);
                        let least = _mm256_cvtepu8_epi32(_mm_loadl_epi64(factors.cast()));
                        let least = _mm256_cvtepi32_ps(least);
                        let scale = floats256(scales.add(2 * ROWS + 16 * side));
                        _mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(scale, least))
                    }
                };
                let vector_sums = p.vector_sums.add(b * p.count);
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(minimum, _mm256_set1_ps(*vector_sums.add(t)), *sum);
                }
            }
            for (t, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(p.out.add(t * ROWS + 8 * side), *sum);
            }
        }
    }
}
