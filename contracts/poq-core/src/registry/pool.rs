//! The members of a pool by weight, and a pick among them in constant time whatever their number.
//!
//! Class c holds weights in (2^−(c+1), 2^−c]. A pick takes a class in proportion to its number of members times its bound
//! 2^−c, a member of it at random, and accepts the member with probability weight / 2^−c: rejection from an envelope, exactly
//! proportional to the weights (Matias, Vitter, Ni: *Dynamic generation of discrete random variates*, 2003), without a sum of
//! weights to keep. A weight that has fallen below its class is accepted less often and stays exact; one that has grown above
//! counts as the bound until its node is placed anew.

use crate::units::{Balance, Ratio, ONE};
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How many weight classes there are. What is lighter than the last one's bound stays in it and is accepted less often.
pub const CLASSES: usize = 16;

/// How many members each weight class of a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counts(pub [u32; CLASSES]);

/// By what a pick is proportional.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The weight.
    Weight,
    /// Its square: see [`crate::registry::select`].
    Square,
}

impl By {
    /// `weight`, or its square, in units that are the same for all of a pick's numbers.
    // (10⁹)² < 2^60.
    #[allow(clippy::arithmetic_side_effects)]
    pub fn of(self, weight: Ratio) -> u128 {
        let weight = u128::from(weight.ppb());
        match self {
            By::Weight => weight,
            By::Square => weight * weight,
        }
    }
}

/// Where a pick landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// The weight class.
    pub class: u8,
    /// The member's place in that class.
    pub index: u32,
    by: By,
    threshold: u128,
}

impl Pick {
    /// Whether the member there is accepted, given its weight. A weight above the class's bound counts as the bound.
    pub fn accepts(&self, weight: Ratio) -> bool {
        self.by.of(weight) > self.threshold
    }
}

/// The weight that belongs to a node: min(bonded, cap)/cap · trust, and zero where it takes no part or has less than the
/// minimum bonded. In [0, 1].
pub fn weight_of(
    active: bool,
    bonded: Balance,
    trust: Ratio,
    stake_min: Balance,
    stake_cap: Balance,
) -> Ratio {
    if active && bonded >= stake_min {
        Ratio::from_fraction(bonded, stake_cap).mul(trust)
    } else {
        Ratio::ZERO
    }
}

/// The class of a weight; `None` for a weight of zero, which is never drawn.
pub fn class_of(weight: Ratio) -> Option<u8> {
    if weight == Ratio::ZERO {
        return None;
    }
    (0u8..).zip(0..CLASSES).map(|(class, _)| class).take_while(|class| weight <= bound(*class)).last()
}

/// The upper bound of a class: 2^−class.
pub fn bound(class: u8) -> Ratio {
    Ratio::from_ppb(ONE.checked_shr(u32::from(class)).unwrap_or(0))
}

impl Counts {
    /// How many members there are in all.
    pub fn len(&self) -> u32 {
        self.0.iter().fold(0u32, |sum, count| sum.saturating_add(*count))
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }

    /// Turns 128 random bits into a pick; `None` from an empty pool.
    ///
    /// The modulus is below 2^66 by weight and below 2^96 by its square, so the bias of taking it is below 2^−62 or 2^−32.
    #[allow(clippy::arithmetic_side_effects)] // 16 · 2^32 · 10^18 < 2^96; divisors are above zero where there is a member
    pub fn pick(&self, random: u128, by: By) -> Option<Pick> {
        let classes = || {
            let filled = (0u8..).zip(self.0).filter(|(_, count)| *count > 0);
            filled.map(|(class, count)| (class, u128::from(count), by.of(bound(class))))
        };
        let total: u128 = classes().map(|(_, count, bound)| count * bound).sum();
        if total == 0 {
            return None;
        }
        let mut rest = random % total;
        for (class, count, bound) in classes() {
            if rest < count * bound {
                return Some(Pick {
                    class,
                    index: u32::try_from(rest / bound).ok()?,
                    by,
                    threshold: rest % bound,
                });
            }
            rest -= count * bound;
        }
        None
    }

    /// Every place: (class, index).
    pub fn places(&self) -> impl Iterator<Item = (u8, u32)> {
        (0u8..).zip(self.0).flat_map(|(class, count)| (0..count).map(move |index| (class, index)))
    }
}
