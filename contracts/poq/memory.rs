//! How much memory is left. A contract has a mebibyte, and ink!'s allocator takes nothing back (one that does costs six kilobytes of
//! code): a dozen tasks of four answers and fifteen evaluators are all that can be settled in a message. So a batch stops in time, and
//! the items that found no room say so, instead of a trap that takes the others with it.

use crate::errors::{Error, Result};

/// So many of the sixteen pages (64 KiB each) may be in use when an item begins. The largest one takes three, filling fifteen seats;
/// what is left is for writing what has changed.
#[cfg(target_arch = "wasm32")]
const PAGES: usize = 11;

/// Whether there is room for another item of a batch.
///
/// # Errors
/// `BatchSize` where there is not.
#[cfg(target_arch = "wasm32")]
pub(crate) fn room() -> Result<()> {
    if core::arch::wasm32::memory_size(0) > PAGES {
        Err(Error::BatchSize)
    } else {
        Ok(())
    }
}

/// Whether there is room for another item of a batch: always, where there is no Wasm.
///
/// # Errors
/// None.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn room() -> Result<()> {
    Ok::<(), Error>(())
}
