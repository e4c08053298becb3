//! Products of dense matrices, in f32.
//!
//! Everything is made of one step: up to 12 rows times 32 columns, whose sums stay in registers. The rows are read where they
//! lie; the columns must lie side by side, 32 at a time, which weights are packed for once.

use super::{
    math::{self, Activation},
    memory::{Arena, Memory},
    pool::{Parts, Pool},
    quant::Isa,
};

/// Columns of a step.
pub(crate) const WIDTH: usize = 32;

/// The most rows of a step.
pub(crate) const HEIGHT: usize = 12;

/// The sums of a step.
pub(crate) type Sums = [[f32; WIDTH]; HEIGHT];

/// No sums yet.
pub(crate) const NO_SUMS: Sums = [[0.0; WIDTH]; HEIGHT];

/// The operands of a step.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    /// Rows of `depth` values.
    pub(crate) a: &'a [f32],
    /// How far one row is from the next.
    pub(crate) a_stride: usize,
    /// At most [`HEIGHT`].
    pub(crate) rows: usize,
    /// `depth` times [`WIDTH`] values.
    pub(crate) b: &'a [f32],
    /// How far one of these is from the next.
    pub(crate) b_stride: usize,
    /// How many products each sum is of.
    pub(crate) depth: usize,
}

impl Step<'_> {
    /// Replaces the first `rows` rows of `sums`.
    ///
    /// # Panics
    /// When the operands are shorter than the numbers say.
    #[inline]
    pub(crate) fn compute(&self, isa: Isa, sums: &mut Sums) {
        let Self { a, a_stride, rows, b, b_stride, depth } = *self;
        // The kernels go by pointers: all that they read is checked here.
        assert!((1..=HEIGHT).contains(&rows) && depth > 0);
        assert!(a.len() >= (rows - 1) * a_stride + depth, "rows beyond their matrix");
        assert!(b.len() >= (depth - 1) * b_stride + WIDTH, "columns beyond their matrix");
        match isa {
            Isa::Portable => portable(self, sums),
            // SAFETY: this processor has the instructions (see `Isa`), and the lengths were checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::avx2(self, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::avx512(self, sums) },
        }
    }
}

fn portable(step: &Step<'_>, sums: &mut Sums) {
    for (r, sums) in sums.iter_mut().take(step.rows).enumerate() {
        let mut lanes = [0f32; WIDTH];
        for (k, a) in step.a[r * step.a_stride..][..step.depth].iter().enumerate() {
            let b = &step.b[k * step.b_stride..][..WIDTH];
            for (lane, b) in lanes.iter_mut().zip(b) {
                *lane += a * b;
            }
        }
        *sums = lanes;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Step, Sums, HEIGHT, WIDTH};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    struct Pointers {
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        b_stride: usize,
        depth: usize,
        sums: *mut f32,
    }

    impl Pointers {
        fn of(step: &Step<'_>, sums: &mut Sums) -> Self {
            Self {
                a: step.a.as_ptr(),
                a_stride: step.a_stride,
                b: step.b.as_ptr(),
                b_stride: step.b_stride,
                depth: step.depth,
                sums: sums.as_mut_ptr().cast(),
            }
        }
    }

    type Kernel = unsafe fn(Pointers);

    macro_rules! kernels {
        ($kernel:ident, $($n:literal),+) => { [$($kernel::<$n> as Kernel),+] };
    }

    static AVX512: [Kernel; HEIGHT] = kernels!(kernel512, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    static AVX2: [Kernel; 6] = kernels!(kernel256, 1, 2, 3, 4, 5, 6);

    /// # Safety
    /// The processor must have AVX-512 F, and the step must have been checked.
    pub(super) unsafe fn avx512(step: &Step<'_>, sums: &mut Sums) {
        // SAFETY: the caller's.
        unsafe { AVX512[step.rows - 1](Pointers::of(step, sums)) }
    }

    /// # Safety
    /// The processor must have AVX2 and FMA, and the step must have been checked.
    pub(super) unsafe fn avx2(step: &Step<'_>, sums: &mut Sums) {
        let whole = Pointers::of(step, sums);
        // There are 16 registers: 6 rows times 16 columns fit.
        for first in (0..step.rows).step_by(6) {
            let kernel = AVX2[(step.rows - first).min(6) - 1];
            for column in [0, WIDTH / 2] {
                // SAFETY: rows and columns within those that were checked.
                unsafe {
                    kernel(Pointers {
                        a: whole.a.add(first * whole.a_stride),
                        b: whole.b.add(column),
                        sums: whole.sums.add(first * WIDTH + column),
                        ..whole
                    });
                }
            }
        }
    }

    /// `N` rows times 32 columns.
    ///
    /// # Safety
    /// The processor must have AVX-512 F; operands must be as long as a checked step says.
    #[target_feature(enable = "avx512f")]
    unsafe fn kernel512<const N: usize>(p: Pointers) {
        let mut sums = [[_mm512_setzero_ps(); 2]; N];
        // SAFETY: rows below N and depths below `p.depth`.
        unsafe {
            for k in 0..p.depth {
                let b = p.b.add(k * p.b_stride);
                let b = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*p.a.add(r * p.a_stride + k));
                    sums[0] = _mm512_fmadd_ps(a, b[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, b[1], sums[1]);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(p.sums.add(r * WIDTH), sums[0]);
                _mm512_storeu_ps(p.sums.add(r * WIDTH + 16), sums[1]);
            }
        }
    }

    /// `N` rows times 16 columns.
    ///
    /// # Safety
    /// The processor must have AVX2 and FMA; operands must be as long as a checked step says.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn kernel256<const N: usize>(p: Pointers) {
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        // SAFETY: rows below N and depths below `p.depth`.
        unsafe {
            for k in 0..p.depth {
                let b = p.b.add(k * p.b_stride);
                let b = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_set1_ps(*p.a.add(r * p.a_stride + k));
                    sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                _mm256_storeu_ps(p.sums.add(r * WIDTH), sums[0]);
                _mm256_storeu_ps(p.sums.add(r * WIDTH + 8), sums[1]);
            }
        }
    }
}

/// Weights packed for [`Step`]: for every 32 rows of the original (outputs), its columns one after the other.
pub(crate) struct DenseMatrix {
    outputs: usize,
    inputs: usize,
    memory: Memory,
    bias: Vec<f32>,
}

/// What happens to a product before it is written.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a> {
    /// Nothing.
    Plain,
    /// It is bent.
    Bend(Activation),
    /// These values, as many as there are results, are added.
    Add(&'a [f32]),
}

impl DenseMatrix {
    /// Packs rows of `inputs` weights, one row per output; several matrices of the same inputs become one.
    ///
    /// # Errors
    /// When lengths do not fit, or there is no memory.
    pub(crate) fn pack(
        arena: &Arena,
        parts: &[(&[f32], &[f32])],
        inputs: usize,
    ) -> candle_core::Result<Self> {
        let outputs: usize = parts.iter().map(|(_, bias)| bias.len()).sum();
        if inputs == 0 || outputs == 0 || parts.iter().any(|(w, bias)| w.len() != bias.len() * inputs) {
            candle_core::bail!("weights and biases of {inputs} inputs do not fit together")
        }
        let panels = outputs.div_ceil(WIDTH);
        let mut memory = arena.zeroed(panels * WIDTH * inputs * size_of::<f32>())?;
        let (_, to, _) = floats_mut(&mut memory);
        let rows = parts.iter().flat_map(|(weights, _)| weights.chunks_exact(inputs));
        for (output, row) in rows.enumerate() {
            let panel = &mut to[output / WIDTH * WIDTH * inputs..][..WIDTH * inputs];
            for (columns, weight) in panel.chunks_exact_mut(WIDTH).zip(row) {
                columns[output % WIDTH] = *weight;
            }
        }
        let bias = parts.iter().flat_map(|(_, bias)| bias.iter().copied()).collect();
        Ok(Self { outputs, inputs, memory, bias })
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// out ← finish(x · weights + bias), for each of the rows of `x`.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub(crate) fn multiply(&self, pool: &Pool, isa: Isa, x: &[f32], out: &mut [f32], finish: Finish<'_>) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "rows of another length");
        assert_eq!(out.len(), rows * self.outputs, "a result of another size");
        if let Finish::Add(other) = finish {
            assert_eq!(other.len(), out.len(), "values to add of another size");
        }
        let panels = self.outputs.div_ceil(WIDTH);
        let tiles = rows.div_ceil(HEIGHT);
        // Some tiles together, so that a panel is read from memory once for all of them; few enough for all threads.
        let tiles_together = tiles.div_ceil(pool.threads()).clamp(1, 16);
        let blocks = tiles.div_ceil(tiles_together);
        let panels_together = (panels * blocks).div_ceil(pool.threads() * 4).clamp(1, 8);
        let strips = panels.div_ceil(panels_together);
        let weights = floats(&self.memory);
        let parts = Parts::new(out);
        pool.run(blocks * strips, &|piece| {
            let (block, strip) = (piece / strips, piece % strips);
            let mut sums = NO_SUMS;
            for panel in strip * panels_together..((strip + 1) * panels_together).min(panels) {
                let column = panel * WIDTH;
                let width = WIDTH.min(self.outputs - column);
                let bias = &self.bias[column..column + width];
                for tile in block * tiles_together..((block + 1) * tiles_together).min(tiles) {
                    let (from, to) = balanced(rows, tiles, tile);
                    let step = Step {
                        a: &x[from * self.inputs..],
                        a_stride: self.inputs,
                        rows: to - from,
                        b: &weights[panel * WIDTH * self.inputs..],
                        b_stride: WIDTH,
                        depth: self.inputs,
                    };
                    step.compute(isa, &mut sums);
                    for (row, sums) in (from..to).zip(&mut sums) {
                        let sums = &mut sums[..width];
                        math::add(sums, bias);
                        match finish {
                            Finish::Plain => {}
                            Finish::Bend(activation) => activation.apply(sums),
                            Finish::Add(other) => math::add(sums, &other[row * self.outputs + column..]),
                        }
                        // SAFETY: every pair of tile and panel belongs to one piece of work.
                        unsafe { parts.slice(row * self.outputs + column, width) }.copy_from_slice(sums);
                    }
                }
            }
        });
    }
}

/// The rows of tile `tile` of `tiles`, when all are of like size.
pub(crate) fn balanced(rows: usize, tiles: usize, tile: usize) -> (usize, usize) {
    (tile * rows / tiles, (tile + 1) * rows / tiles)
}

fn floats(bytes: &[u8]) -> &[f32] {
    // SAFETY: every pattern of bits is an f32; the split takes care of alignment (a page's).
    unsafe { bytes.align_to::<f32>().1 }
}

fn floats_mut(bytes: &mut [u8]) -> (&mut [u8], &mut [f32], &mut [u8]) {
    // SAFETY: as above, in both directions.
    unsafe { bytes.align_to_mut::<f32>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 * 12.9898 + seed).sin() * 43_758.547).fract()).collect()
    }

    #[test]
    fn steps_agree_with_plain_sums() {
        let (a, b) = (numbers(12 * 80, 1.0), numbers(70 * 40, 2.0));
        for rows in 1..=HEIGHT {
            for isa in Isa::available() {
                let mut sums = NO_SUMS;
                let step = Step { a: &a, a_stride: 80, rows, b: &b, b_stride: 40, depth: 70 };
                step.compute(*isa, &mut sums);
                for r in 0..rows {
                    for c in 0..WIDTH {
                        let expected: f64 =
                            (0..70).map(|k| f64::from(a[r * 80 + k]) * f64::from(b[k * 40 + c])).sum();
                        assert!((f64::from(sums[r][c]) - expected).abs() < 1e-4, "{isa:?}, {rows} rows");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "columns beyond")]
    fn a_step_beyond_its_operands_is_refused() {
        let (a, b) = (numbers(10, 1.0), numbers(10 * WIDTH - 1, 2.0));
        let step = Step { a: &a, a_stride: 10, rows: 1, b: &b, b_stride: WIDTH, depth: 10 };
        step.compute(Isa::detect(), &mut NO_SUMS.clone());
    }

    #[test]
    fn products_of_two_matrices_in_one() {
        let inputs = 24;
        // 40 + 30 outputs: the last panel is not full.
        let (first, second) = (numbers(40 * inputs, 1.0), numbers(30 * inputs, 2.0));
        let (bias, other_bias) = (numbers(40, 3.0), numbers(30, 4.0));
        let matrix =
            DenseMatrix::pack(&Arena::default(), &[(&first, &bias), (&second, &other_bias)], inputs).unwrap();
        assert_eq!(matrix.outputs(), 70);
        for rows in [1, 12, 13, 100] {
            let x = numbers(rows * inputs, 5.0);
            let add = numbers(rows * 70, 6.0);
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                for isa in Isa::available() {
                    for finish in [Finish::Plain, Finish::Bend(Activation::Relu), Finish::Add(&add)] {
                        let mut out = vec![f32::NAN; rows * 70];
                        matrix.multiply(&pool, *isa, &x, &mut out, finish);
                        for (i, found) in out.iter().enumerate() {
                            let (r, o) = (i / 70, i % 70);
                            let (weights, bias) = if o < 40 {
                                (&first[o * inputs..], bias[o])
                            } else {
                                (&second[(o - 40) * inputs..], other_bias[o - 40])
                            };
                            let plain: f32 =
                                (0..inputs).map(|k| x[r * inputs + k] * weights[k]).sum::<f32>() + bias;
                            let expected = match finish {
                                Finish::Plain => plain,
                                Finish::Bend(_) => plain.max(0.0),
                                Finish::Add(add) => plain + add[i],
                            };
                            assert!(
                                (found - expected).abs() < 1e-4,
                                "{isa:?} {rows} rows: {found} {expected}"
                            );
                        }
                    }
                }
            }
        }
        assert!(DenseMatrix::pack(&Arena::default(), &[(&first, &other_bias)], inputs).is_err());
    }
}
