//! What lies between the matrix products: loops that the compiler turns into vector code, without branches or library calls.

/// Values that are worked on side by side: two registers of AVX2, one of AVX-512.
const LANES: usize = 16;

/// The sum of `f` over all values.
#[inline(always)]
fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f(*value);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest of all values; −∞ of none.
#[inline(always)]
fn max_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, v| a.max(f(*v)));
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let value = f(*value);
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().fold(rest, |a, v| a.max(*v))
}

/// The largest absolute value; 0 of none.
pub(crate) fn largest(values: &[f32]) -> f32 {
    max_of(values, f32::abs).max(0.0)
}

/// Whether all values are finite.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    // What is not finite does not vanish in a sum with zeros.
    sum_of(values, |v| v * 0.0) == 0.0
}

/// The position of the largest value, the first of equals; 0 of none.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let largest = max_of(values, |v| v);
    values.iter().position(|v| *v == largest).unwrap_or(0)
}

/// a · b + c, in one instruction where the build has it; elsewhere, the library's would take a hundred.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// The polynomial with these coefficients, the highest power's first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.into_iter().fold(0.0, |sum, c| fma(sum, x, c))
}

/// e^x, to within 2 units of the last place between −87 and 88; held to that range outside.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 · 2²³ leaves a number's nearest integer in its lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = fma(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x));
    // Cephes' polynomial for e^r on ±ln 2 / 2.
    let p = polynomial(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    let p = fma(p, r * r, r) + 1.0;
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// x / (1 + e^−x)
#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The error function, to within 3e-7: Eigen's ratio of polynomials.
#[inline(always)]
fn erf(x: f32) -> f32 {
    // Beyond this it is ±1 in single precision.
    const END: f32 = 3.832_507;
    let x = if x < -END { -END } else { x };
    let x = if x > END { END } else { x };
    let square = x * x;
    let above = polynomial(
        square,
        [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_4e-5,
            -7.349_906_4e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let below =
        polynomial(square, [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2]);
    x * above / below
}

/// x · Φ(x)
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// x · Φ(x) by the hyperbolic tangent: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    // (1 + tanh u) / 2 = 1 / (1 + e^−2u)
    x / (1.0 + exp(-2.0 * inner))
}

/// What a feed-forward layer bends its values with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// By the error function.
    Gelu,
    /// By the hyperbolic tangent.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    pub(crate) fn apply(self, values: &mut [f32]) {
        match self {
            Self::Gelu => values.iter_mut().for_each(|v| *v = gelu_erf(*v)),
            Self::GeluTanh => values.iter_mut().for_each(|v| *v = gelu_tanh(*v)),
            Self::Relu => values.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { 0.0 }),
        }
    }
}

/// gate ← silu(gate) · up
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = silu(*gate) * *up;
    }
}

/// to ← to + from
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
}

/// out ← x / √(mean x² + ε) · weight
pub(crate) fn rms_norm(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let scale = 1.0 / (sum_of(x, |v| v * v) / x.len().max(1) as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = *x * scale * *weight;
    }
}

/// x ← (x − mean) / √(variance + ε) · weight + bias
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let count = x.len().max(1) as f32;
    let mean = sum_of(x, |v| v) / count;
    let scale = 1.0 / (sum_of(x, |v| (v - mean) * (v - mean)) / count + epsilon).sqrt();
    for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * *weight + *bias;
    }
}

/// scores ← e^(scale · (score − largest)); returns the inverse of their sum, which the caller multiplies by later.
pub(crate) fn softmax_unscaled(scores: &mut [f32], scale: f32) -> f32 {
    let largest = max_of(scores, |v| v) * scale;
    for score in scores.iter_mut() {
        *score = exp(*score * scale - largest);
    }
    1.0 / sum_of(scores, |v| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f32, expected: f64, tolerance: f64) {
        let error = (f64::from(found) - expected).abs() / expected.abs().max(1.0);
        assert!(error < tolerance, "{found} for {expected}");
    }

    #[test]
    fn exponentials() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 3e-7, "e^{x}: {} for {expected}", exp(x));
        }
        assert!(exp(-1e9) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn bent_values() {
        // Φ by its series: Σ (−1)ⁿ x^(2n+1) / (n! 2ⁿ (2n+1)), good enough for |x| ≤ 4 in double precision.
        let normal = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..120 {
                term *= -x * x / (2.0 * f64::from(n));
                sum += term / f64::from(2 * n + 1);
            }
            0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
        };
        for i in -400..=400 {
            let x = i as f32 / 100.0;
            let wide = f64::from(x);
            let mut values = [x; 3];
            Activation::Gelu.apply(&mut values[..1]);
            close(values[0], wide * normal(wide), 1e-6);
            Activation::GeluTanh.apply(&mut values[1..2]);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            close(values[1], 0.5 * wide * (1.0 + inner.tanh()), 1e-6);
            Activation::Relu.apply(&mut values[2..]);
            assert_eq!(values[2], x.max(0.0));
            let mut gate = [x];
            swiglu(&mut gate, &[2.0]);
            close(gate[0], 2.0 * wide / (1.0 + (-wide).exp()), 1e-6);
        }
        let mut far = [-100.0, 100.0, 1e30];
        Activation::Gelu.apply(&mut far);
        assert!(far[0].abs() < 1e-4, "{far:?}");
        close(far[1] / 100.0, 1.0, 3e-7);
        close(far[2] / 1e30, 1.0, 3e-7);
    }

    #[test]
    fn norms_and_sums() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 3.0 + 1.0).collect();
        let (weight, bias): (Vec<f32>, Vec<f32>) = (0..37).map(|i| (0.5 + i as f32, -(i as f32))).unzip();
        let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let mean = wide.iter().sum::<f64>() / 37.0;
        let square = wide.iter().map(|v| v * v).sum::<f64>() / 37.0;
        let variance = square - mean * mean;

        let mut out = vec![0.0; 37];
        rms_norm(&mut out, &x, &weight, 1e-5);
        let mut normed = x.clone();
        layer_norm(&mut normed, &weight, &bias, 1e-12);
        for i in 0..37 {
            close(out[i], wide[i] / (square + 1e-5).sqrt() * f64::from(weight[i]), 1e-5);
            let expected = (wide[i] - mean) / variance.sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
            close(normed[i], expected, 1e-5);
        }

        let mut scores = x.clone();
        let inverse = softmax_unscaled(&mut scores, 0.5);
        let total: f64 = wide.iter().map(|v| (0.5 * v).exp()).sum();
        for (score, v) in scores.iter().zip(&wide) {
            close(score * inverse, (0.5 * v).exp() / total, 1e-6);
        }
        assert_eq!(largest(&[1.0, -3.0, 2.0]), 3.0);
        assert_eq!(largest(&[]), 0.0);
        assert_eq!(argmax(&[1.0, 5.0, 5.0, 2.0]), 1);
        assert_eq!(argmax(&[]), 0);
        assert!(all_finite(&[]) && all_finite(&[f32::MAX; 40]) && all_finite(&[-0.0, 1e-40]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 17, 39] {
                let mut values = [1.0; 40];
                values[place] = bad;
                assert!(!all_finite(&values));
            }
        }
    }
}
