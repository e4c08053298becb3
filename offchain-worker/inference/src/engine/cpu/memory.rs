//! Memory for weights.

use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Zeroed bytes that begin at a page. Large ones are asked for in large pages: with small ones a processor spends much of a
/// token's time looking up addresses.
pub(crate) struct Memory(MmapMut);

impl Memory {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(len.max(1))?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "no large pages");
        }
        Ok(Self(map))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
