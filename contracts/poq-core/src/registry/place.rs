//! Where a node is in its pool, and what changes that.

use super::epoch::{Epoch, Ver};
use super::pool::class_of;
use super::{Error, PoolId, Registered, RegistryMut};
use crate::units::{NodeId, Ratio};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// A node's place in its pool from the next epoch on. Of constant size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Place {
    /// The weight class; 255 for not in the pool.
    pub class: u8,
    /// The index within the class.
    pub index: u32,
}

impl Place {
    /// Not in the pool.
    pub const NONE: Place = Place { class: u8::MAX, index: 0 };

    /// The class, if the node is in the pool.
    pub fn class(&self) -> Option<u8> {
        (*self != Place::NONE).then_some(self.class)
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::NONE
    }
}

/// A node's weight by epochs, and its place: what the registry keeps in a node's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Standing {
    /// Its draw weight.
    pub weight: Ver<Ratio>,
    /// Where it is.
    pub place: Place,
}

impl Standing {
    /// What a settlement or a slash does: the weight of the next epoch, and nothing else. The place stays: below its class's
    /// bound the weight is exact, above it counts as the bound until [`place`] is called for the node. A node without a place
    /// weighs nothing.
    pub fn reweigh(&mut self, now: Epoch, weight: Ratio) {
        let weight = if self.place == Place::NONE { Ratio::ZERO } else { weight };
        self.weight.set(now, weight);
    }

    /// Whether no draw can meet the node any more, so that its record may go: without a place, and without weight in every
    /// epoch that a draw can read.
    pub fn is_out(&self, now: Epoch) -> bool {
        let zero = |epoch: Epoch| self.weight.at(epoch).is_some_and(|weight| *weight == Ratio::ZERO);
        self.place == Place::NONE && [now.saturating_sub(1), now, now.saturating_add(1)].into_iter().all(zero)
    }

    /// Whether [`place`] under `weight` would change anything from the next epoch on.
    pub fn is_stale(&self, weight: Ratio) -> bool {
        *self.weight.latest() != weight || self.place.class() != class_of(weight)
    }
}

/// What an owner's act does: from the epoch after `now` on the node has this weight and the place that belongs to it.
///
/// Pools stay dense: the last member of the class that is left moves into the hole. Cells beyond a class's count stay, for
/// whoever comes next. `node` is held by the caller, who stores it before another act.
///
/// Accesses: none where the class stays; else the pool (read, write); on leaving, unless it was the last, the last place
/// (read), the hole (read, write) and the node that moves (read, write); on entering, the new place (read, write).
///
/// # Errors
/// `Overflow` where the class is full, `Inconsistent` where the storage is not the registry's. Nothing may be stored then.
pub fn place<R: RegistryMut>(
    registry: &mut R,
    pool: PoolId,
    now: Epoch,
    id: NodeId,
    node: &mut R::Node,
    weight: Ratio,
) -> Result<(), Error> {
    let standing = node.standing_mut();
    standing.weight.set(now, weight);
    let (old, class) = (standing.place, class_of(weight));
    if old.class() == class {
        return Ok(());
    }
    let mut counts = registry.counts(pool);
    let mut live = *counts.latest();
    if let Some(left) = old.class() {
        let count = live.0.get_mut(usize::from(left)).ok_or(Error::Inconsistent)?;
        let last = count.checked_sub(1).ok_or(Error::Inconsistent)?;
        *count = last;
        if old.index != last {
            let moved = *registry.member(pool, left, last).latest();
            let mut other = registry.node(moved).ok_or(Error::Inconsistent)?;
            other.standing_mut().place.index = old.index;
            registry.set_node(moved, &other);
            let mut hole = registry.member(pool, left, old.index);
            hole.set(now, moved);
            registry.set_member(pool, left, old.index, &hole);
        }
    }
    standing.place = match class {
        None => Place::NONE,
        Some(class) => {
            let count = live.0.get_mut(usize::from(class)).ok_or(Error::Inconsistent)?;
            let index = *count;
            *count = index.checked_add(1).ok_or(Error::Overflow)?;
            let mut cell = registry.member(pool, class, index);
            cell.set(now, id);
            registry.set_member(pool, class, index, &cell);
            Place { class, index }
        }
    };
    counts.set(now, live);
    registry.set_counts(pool, &counts);
    Ok(())
}
