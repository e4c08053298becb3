//! How much memory a model may take.

use super::{
    device::Numbers,
    inspect::{inspect, Details},
    DeviceSpec, LoadOptions, Precision,
};
use crate::{
    error::{Error, Result},
    store::VerifiedModel,
};

/// What a model may take, where its configuration bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limit {
    /// Of all weights.
    weights: Option<u64>,
    /// Of keys and values.
    cache: Option<u64>,
}

/// Of the limit, what weights may take at most, in percent: an answer needs room too.
const WEIGHTS_PERCENT: u64 = 85;

impl Limit {
    /// What this model may take with these options.
    ///
    /// # Errors
    /// When it cannot do with that: its weights, and keys and values of one request at its full context, take more.
    pub(crate) fn of(model: &VerifiedModel, options: &LoadOptions) -> Result<Self> {
        let Some(limit) = options.memory_limit else { return Ok(Self::default()) };
        let entry = model.entry();
        let details = inspect(model, Some(entry.context_tokens))?;
        Self::within(limit, &details, entry.context_tokens, options).map_err(|least| Error::ModelConfig {
            name: entry.name.clone(),
            reason: format!(
                "it needs about {} MB with a context of {} tokens, and `memory_limit_bytes` gives it {}: take a smaller \
                 quantisation, or give it less context or more memory",
                least / 1_000_000,
                entry.context_tokens,
                limit / 1_000_000
            ),
        })
    }

    /// As [`Limit::of`]; the error is what it needs at least.
    fn within(
        limit: u64,
        details: &Details,
        context: usize,
        options: &LoadOptions,
    ) -> std::result::Result<Self, u64> {
        let cpu = options.device == DeviceSpec::Cpu;
        let size = match options.precision {
            Precision::F32 => 4,
            Precision::Auto if cpu => 4,
            _ => 2,
        };
        // Sixteen bits of keys and values where the weights have them.
        let cache = details.memory_bytes(context) - details.memory_bytes(0);
        let cache = if size == 2 { cache / 2 } else { cache };
        let rest = details.memory_bytes(0) - details.resident_bytes();
        let dense = details.parameters.saturating_mul(size);
        let weights = match options.precision {
            Precision::Auto if cpu => details.resident_bytes(),
            // Quantised ones stay so where they would not fit otherwise.
            Precision::Auto if dense > limit / 100 * WEIGHTS_PERCENT => details.weight_bytes.min(dense),
            _ => dense,
        };
        let least = weights.saturating_add(rest).saturating_add(cache);
        if least > limit {
            return Err(least);
        }
        Ok(Self { weights: Some(limit / 100 * WEIGHTS_PERCENT), cache: Some(limit - weights - rest) })
    }

    /// Whether so many weights may be made dense.
    pub(crate) fn allows_dense(self, numbers: Numbers, elements: usize) -> bool {
        let bytes = (elements as u64).saturating_mul(numbers.matrix.size_in_bytes() as u64);
        self.weights.is_none_or(|limit| bytes <= limit)
    }

    /// Bytes that keys and values may take.
    pub(crate) fn cache(self) -> usize {
        self.cache.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{look, Wanted};
    use std::path::Path;

    #[test]
    fn a_model_is_held_to_its_memory() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-gguf-q8_0");
        let found = look(&path, "x", &Wanted::default()).unwrap();
        let model = VerifiedModel::unverified(found.entry.clone(), path);
        let of =
            |limit, options: LoadOptions| Limit::of(&model, &LoadOptions { memory_limit: limit, ..options });
        assert_eq!(of(None, LoadOptions::default()).unwrap(), Limit::default());
        assert_eq!(Limit::default().cache(), usize::MAX);
        let least = found.details.memory_bytes(512);
        let limit = of(Some(least), LoadOptions::default()).unwrap();
        // Exactly what the context takes is left for it.
        assert_eq!(limit.cache() as u64, least - found.details.memory_bytes(0));
        let error = of(Some(least - 1), LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("memory_limit_bytes") && error.contains("512 tokens"), "{error}");
        // Sixteen bits take less than thirty-two.
        let on = |precision| LoadOptions { device: DeviceSpec::Cuda(0), precision, ..LoadOptions::default() };
        let (small, large) = (of(Some(1 << 40), on(Precision::F16)), of(Some(1 << 40), on(Precision::F32)));
        assert!(small.unwrap().cache() > large.unwrap().cache());
    }
}
