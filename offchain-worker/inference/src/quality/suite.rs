//! Several dimensions at once.

use super::{Case, Dimension, SharedEncoder};
use crate::error::Result;
use std::time::{Duration, Instant};

/// What one dimension said of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The dimension's name.
    pub name: String,
    /// One value in [0, 1] per output, where it has something to say.
    pub values: Vec<Option<f64>>,
    /// What it takes to measure it alone, embeddings included.
    pub cost: Duration,
}

/// Dimensions that are measured together: each text is embedded once, all texts of an encoder in one batch.
pub struct Suite {
    dimensions: Vec<Box<dyn Dimension>>,
}

impl Suite {
    /// A suite of these dimensions, in this order.
    pub fn new(dimensions: Vec<Box<dyn Dimension>>) -> Self {
        Self { dimensions }
    }

    /// The dimensions.
    pub fn dimensions(&self) -> impl Iterator<Item = &dyn Dimension> {
        self.dimensions.iter().map(|dimension| &**dimension)
    }

    /// Measures every dimension.
    ///
    /// # Errors
    /// When a model fails. No text is an error.
    pub fn measure(&mut self, case: &Case<'_>) -> Result<Vec<Measured>> {
        let mut wanted: Vec<(SharedEncoder, Vec<String>)> = Vec::new();
        for dimension in &self.dimensions {
            let Some((encoder, texts)) = dimension.texts(case) else { continue };
            match wanted.iter_mut().find(|(known, _)| known.same_as(&encoder)) {
                Some((_, all)) => all.extend(texts),
                None => wanted.push((encoder, texts)),
            }
        }
        for (encoder, texts) in &wanted {
            encoder.embed(texts)?;
        }
        let measure = |dimension: &mut Box<dyn Dimension>| {
            let started = Instant::now();
            let values = dimension.score(case)?;
            let own = started.elapsed();
            let embedding = match dimension.texts(case) {
                Some((encoder, mut texts)) => {
                    texts.sort();
                    texts.dedup();
                    encoder.cost(&texts)?
                }
                None => Duration::ZERO,
            };
            Ok(Measured { name: dimension.name().to_string(), values, cost: own + embedding })
        };
        self.dimensions.iter_mut().map(measure).collect()
    }
}
