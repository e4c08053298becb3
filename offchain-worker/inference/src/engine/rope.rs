//! Rotary position embeddings: the frequencies that positions turn by, with the scalings that models were trained or stretched
//! with.
//!
//! θ_i = base^(−2i/d) for i < d/2 (RoFormer, arXiv 2104.09864). Linear scaling divides all of them; Llama 3's divides the slow
//! ones (its file has the divisors, one per i); YaRN (arXiv 2309.00071) divides the slow ones, keeps the fast ones, blends
//! between and scales the attention; LongRoPE (arXiv 2402.13753) has a divisor per i for short and one for long contexts.

/// How frequencies are scaled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    /// Not at all.
    None,
    /// All divided by this.
    Linear(f32),
    /// YaRN.
    Yarn {
        /// How many times longer contexts become.
        factor: f32,
        /// The context that the model was trained with, in tokens.
        original: f32,
        /// Turns within the original context above which a frequency is kept.
        beta_fast: f32,
        /// Turns within the original context below which a frequency is divided by the factor.
        beta_slow: f32,
        /// What attention is scaled by, beyond the paper's 0.1 ln(factor) + 1.
        attention: Option<f32>,
        /// Whether the two ends of the blend are rounded to whole frequencies.
        truncate: bool,
    },
    /// Divisors, one per frequency: Llama 3's, or LongRoPE's for the context that is used.
    Divisors {
        /// One per frequency.
        divisors: Vec<f32>,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
    },
}

impl Scaling {
    /// Llama 3's divisors from the configuration of its safetensors (`rope_type` `llama3`).
    pub(crate) fn llama3(dim: usize, base: f32, factor: f32, low: f32, high: f32, original: f32) -> Self {
        let divisors = frequencies(dim, base)
            .into_iter()
            .map(|frequency| {
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength < original / high {
                    1.0
                } else if wavelength > original / low {
                    factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            })
            .collect();
        Self::Divisors { divisors, magnitude: 1.0 }
    }

    /// LongRoPE's magnitude (arXiv 2402.13753, section 3.2) for a context stretched from `original` to `trained` tokens.
    pub(crate) fn long_magnitude(original: f32, trained: f32) -> f32 {
        let factor = trained / original;
        if factor <= 1.0 {
            1.0
        } else {
            (1.0 + factor.ln() / original.ln()).sqrt()
        }
    }
}

/// base^(−2i/d).
fn frequencies(dim: usize, base: f32) -> Vec<f32> {
    (0..dim).step_by(2).map(|i| base.powf(i as f32 / dim as f32).recip()).collect()
}

/// The scaled frequencies, and what cosines and sines are multiplied by.
///
/// # Errors
/// When divisors are not one per frequency, or not positive numbers.
pub(crate) fn scaled(dim: usize, base: f32, scaling: &Scaling) -> Result<(Vec<f32>, f32), String> {
    let mut frequencies = frequencies(dim, base);
    let magnitude = match scaling {
        Scaling::None => 1.0,
        Scaling::Linear(factor) => {
            if !(*factor > 0.0 && factor.is_finite()) {
                return Err(format!("a factor of {factor} for positions"));
            }
            frequencies.iter_mut().for_each(|f| *f /= factor);
            1.0
        }
        Scaling::Divisors { divisors, magnitude } => {
            if divisors.len() != frequencies.len() {
                return Err(format!("{} divisors for {} frequencies", divisors.len(), frequencies.len()));
            }
            if !divisors.iter().all(|d| *d > 0.0 && d.is_finite()) {
                return Err("divisors of frequencies that are not positive".to_string());
            }
            frequencies.iter_mut().zip(divisors).for_each(|(f, d)| *f /= d);
            *magnitude
        }
        Scaling::Yarn { factor, original, beta_fast, beta_slow, attention, truncate } => {
            if !(*factor >= 1.0 && factor.is_finite() && *original > 0.0) {
                return Err(format!("a factor of {factor} over {original} tokens"));
            }
            // The frequency that turns so often within the original context.
            let at = |turns: f32| {
                dim as f32 * (original / (turns * 2.0 * std::f32::consts::PI)).ln() / (2.0 * base.ln())
            };
            let (mut low, mut high) = (at(*beta_fast), at(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(dim as f32 - 1.0));
            if low == high {
                high += 0.001;
            }
            for (i, frequency) in frequencies.iter_mut().enumerate() {
                let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                *frequency *= (1.0 - ramp) + ramp / factor;
            }
            attention.unwrap_or(if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 })
        }
    };
    Ok((frequencies, magnitude))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalings_do_what_they_are_for() {
        let (plain, one) = scaled(64, 10_000.0, &Scaling::None).unwrap();
        assert_eq!((plain.len(), plain[0], one), (32, 1.0, 1.0));
        let (half, _) = scaled(64, 10_000.0, &Scaling::Linear(2.0)).unwrap();
        assert!(half.iter().zip(&plain).all(|(a, b)| *a == b / 2.0));
        // Llama 3.2: fast frequencies stay, slow ones are divided by 32.
        let llama = Scaling::llama3(64, 500_000.0, 32.0, 1.0, 4.0, 8192.0);
        let (found, _) = scaled(64, 500_000.0, &llama).unwrap();
        let (plain, _) = scaled(64, 500_000.0, &Scaling::None).unwrap();
        assert_eq!(found[0], plain[0]);
        assert!((found[31] - plain[31] / 32.0).abs() < 1e-12);
        let yarn = Scaling::Yarn {
            factor: 4.0,
            original: 32_768.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention: None,
            truncate: true,
        };
        let (found, magnitude) = scaled(64, 500_000.0, &yarn).unwrap();
        assert_eq!(found[0], plain[0]);
        assert!((found[31] - plain[31] / 4.0).abs() < 1e-12);
        assert!((magnitude - 1.138_629_4).abs() < 1e-6);
        for bad in [
            Scaling::Linear(0.0),
            Scaling::Divisors { divisors: vec![1.0; 3], magnitude: 1.0 },
            Scaling::Divisors { divisors: vec![f32::NAN; 32], magnitude: 1.0 },
        ] {
            assert!(scaled(64, 10_000.0, &bad).is_err());
        }
    }
}
