//! Threads that a model computes with.
//!
//! By default all models of a process share the process's: one at a time has them all, and another that computes meanwhile does so
//! on its caller's thread alone. A model with threads of its own shares none: several small models beside each other, each on
//! a part of a big machine's cores.

use super::cpu::pool::Pool;
use crate::error::{Error, Result};
use std::sync::Arc;

/// A model's own threads, or the process's.
#[derive(Clone, Default)]
pub(crate) struct Threads(Option<Arc<Own>>);

struct Own {
    /// Of our own code.
    pool: Arc<Pool>,
    /// Of candle's operations.
    rayon: rayon::ThreadPool,
}

impl Threads {
    /// So many of its own; with `None`, those of the process.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(crate) fn new(count: Option<usize>) -> Result<Self> {
        let Some(count) = count else { return Ok(Self(None)) };
        let rayon = rayon::ThreadPoolBuilder::new().num_threads(count.max(1)).build();
        let rayon =
            rayon.map_err(|e| Error::InvalidRequest(format!("{count} threads cannot be started: {e}")))?;
        Ok(Self(Some(Arc::new(Own { pool: Arc::new(Pool::new(count)), rayon }))))
    }

    /// Does this with them.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0 {
            None => work(),
            Some(own) => own.rayon.install(|| Pool::with(own.pool.clone(), work)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_computes_with_its_own_threads() {
        let own = Threads::new(Some(3)).unwrap();
        assert_eq!(own.run(|| (Pool::current().threads(), rayon::current_num_threads())), (3, 3));
        let shared = Threads::new(None).unwrap();
        let process = Pool::current().threads();
        assert_eq!(shared.run(|| Pool::current().threads()), process);
        // Also after a panic.
        let panics = || own.run(|| panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(own.run(|| Pool::current().threads()), 3);
        assert_eq!(Pool::current().threads(), process);
    }
}
