//! Epochs, and values of the last three of them.

use crate::units::Millis;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// An epoch's number: they count up with the chain's time.
pub type Epoch = u32;

/// The epoch of a block timestamp. `epoch_ms` never changes in a contract's life, so epochs never go back; it is at least
/// 2·`draw_ms` + `commit_ms` of every kind, so that a task is drawn, and its empty seats are filled, within an epoch of its
/// sealing. An `epoch_ms` of zero is one long epoch.
pub fn epoch_of(now: Millis, epoch_ms: Millis) -> Epoch {
    Epoch::try_from(now.checked_div(epoch_ms).unwrap_or(0)).unwrap_or(Epoch::MAX)
}

/// A value by epochs. What is set in epoch c holds from c + 1 on; what held in c and c − 1 stays as it was. The encoding's
/// size is constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ver<T> {
    since: Epoch,
    values: [T; 3],
}

impl<T: Copy> Ver<T> {
    /// A value that has always held.
    pub fn new(value: T) -> Ver<T> {
        Ver { since: 0, values: [value; 3] }
    }

    /// What holds in `epoch`; `None` where that is forgotten: more than two epochs before the newest value's first. Never so
    /// for the present epoch and the one before.
    pub fn at(&self, epoch: Epoch) -> Option<&T> {
        self.values.get(usize::try_from(self.since.saturating_sub(epoch)).ok()?)
    }

    /// What was set last: it holds from the next epoch on, or already does.
    pub fn latest(&self) -> &T {
        let [latest, _, _] = &self.values;
        latest
    }

    /// Sets what holds from the epoch after `now` on.
    pub fn set(&mut self, now: Epoch, value: T) {
        let from = now.saturating_add(1);
        let [latest, before, oldest] = self.values;
        self.values = match from.saturating_sub(self.since) {
            0 => [value, before, oldest],
            1 => [value, latest, before],
            _ => [value, latest, latest],
        };
        self.since = self.since.max(from);
    }
}
