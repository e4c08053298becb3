//! Memory for weights.

use memmap2::{MmapMut, MmapRaw};
use parking_lot::Mutex;
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Large pages are of this size on x86.
const LARGE_PAGE: usize = 2 << 20;

/// How much is asked of the system at once, at least.
const REGION: usize = 64 << 20;

/// All of a model's weights, side by side in large pages: with small ones, a token's time goes by looking up addresses, and
/// processors do not read ahead beyond the end of a page.
#[derive(Default)]
pub(crate) struct Arena {
    current: Mutex<Option<Region>>,
}

struct Region {
    map: Arc<MmapRaw>,
    /// Where the part begins that nobody has been given yet.
    free: usize,
}

impl Region {
    fn new(len: usize) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(len + LARGE_PAGE)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "no large pages");
        }
        let free = map.as_ptr().align_offset(LARGE_PAGE).min(LARGE_PAGE);
        Ok(Self { map: Arc::new(MmapRaw::from(map)), free })
    }
}

impl Arena {
    /// `len` zeros, at a multiple of a cache line.
    ///
    /// # Errors
    /// When the system gives no more memory.
    pub(crate) fn zeroed(&self, len: usize) -> std::io::Result<Memory> {
        let mut current = self.current.lock();
        let len_in_lines = len.next_multiple_of(64);
        let region = match &mut *current {
            Some(region) if region.map.len() - region.free >= len_in_lines => region,
            full => full.insert(Region::new(len_in_lines.max(REGION))?),
        };
        let memory = Memory { map: region.map.clone(), start: region.free, len };
        region.free += len_in_lines;
        Ok(memory)
    }
}

/// A part of an [`Arena`], which stays as long as one of its parts does.
pub(crate) struct Memory {
    map: Arc<MmapRaw>,
    start: usize,
    len: usize,
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: within the map, which this keeps alive, and initialised by the system; `Arena::zeroed` gives no byte to two
        // owners, so nobody else writes here.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zero_apart_and_outlive_their_arena() {
        let arena = Arena::default();
        let mut parts: Vec<Memory> =
            [100, 0, 1, 64, REGION + 1, 100].map(|len| arena.zeroed(len).unwrap()).into();
        drop(arena);
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(part.iter().all(|byte| *byte == 0));
            assert_eq!(part.as_ptr().align_offset(64), 0);
            part.fill(i as u8 + 1);
        }
        for (i, part) in parts.iter().enumerate() {
            assert!(part.iter().all(|byte| *byte == i as u8 + 1));
        }
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), REGION + 266);
    }
}
