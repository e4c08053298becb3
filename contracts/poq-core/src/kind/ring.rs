//! The ring: consensus values of tasks settled before, what the information rule compares with.
//!
//! An entry costs what it takes to replace it. Every settlement adds what it *burned* to the ring's scale; each time that the
//! scale reaches the kind's `ring_burn`, one of the tasks on it, drawn in proportion to what each burned (a weighted reservoir
//! of one: Chao 1982), replaces the oldest entry. So sixteen entries cost sixteen times `ring_burn` in burned money, whether
//! as one task or as a thousand: tasks of the least fee cannot flood it. Entries never written are filled one a task.

use crate::formulas::merit::RingEntry;
use crate::units::{Balance, Millis, Ratio};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How many consensus values a kind remembers.
pub const RING: usize = 16;

/// The ring of a kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ring {
    /// The consensus values; entries with a time of zero were never written.
    pub entries: [RingEntry; RING],
    /// Where the next entry goes.
    pub next: u8,
    /// What the tasks on the scale burned.
    #[cfg_attr(feature = "serde", serde(with = "crate::units::decimal"))]
    pub scale: Balance,
    /// The consensus of the one of them that is written next.
    pub candidate: Ratio,
}

impl Ring {
    /// A settled task: its consensus, what it burned, and 128 random bits that nobody who was paid could choose.
    pub fn push(&mut self, quality: Ratio, burned: Balance, ring_burn: Balance, random: u128, now: Millis) {
        let empty = self.entries.get(usize::from(self.next)).is_some_and(|entry| entry.settled_at == 0);
        if empty {
            self.write(quality, now);
            return;
        }
        self.scale = self.scale.saturating_add(burned);
        // With probability burned / scale; the first on the scale always.
        if self.scale > 0 && random.checked_rem(self.scale).is_some_and(|place| place < burned) {
            self.candidate = quality;
        }
        if self.scale >= ring_burn {
            self.scale = 0;
            self.write(self.candidate, now);
        }
    }

    fn write(&mut self, quality: Ratio, now: Millis) {
        if let Some(entry) = self.entries.get_mut(usize::from(self.next)) {
            *entry = RingEntry { settled_at: now, quality };
        }
        let after = usize::from(self.next).saturating_add(1);
        self.next = if after < RING { u8::try_from(after).unwrap_or(0) } else { 0 };
    }
}
