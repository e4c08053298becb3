//! The weighted random draw, in constant time whatever the registry's size.
//!
//! Nodes are kept in sixteen classes by weight: class c holds weights in (2^−(c+1), 2^−c]. A draw picks a class in
//! proportion to its number of members times its upper bound 2^−c, a member of it at random, and accepts the member with
//! probability weight / 2^−c, at least one half: rejection sampling from an envelope, which is exactly proportional to the
//! weights (Matias, Vitter, Ni: *Dynamic generation of discrete random variates*, 2003) and never needs a sum of weights
//! to be kept up to date. Only a node whose weight crosses a power of two moves.

use crate::units::{Balance, Ratio, ONE};
use alloc::vec::Vec;
use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// How many weight classes there are. What is lighter than the last one's bound stays in it and is accepted less often.
pub const CLASSES: usize = 16;

/// How many members each weight class of a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pool {
    /// Members per class.
    pub counts: [u32; CLASSES],
}

/// Where a draw landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// The weight class.
    pub class: u8,
    /// The member's place in that class.
    pub index: u32,
    /// The member is accepted when its weight is above this.
    pub threshold: Ratio,
}

/// A node's draw weight: min(stake, cap)/cap · trust. In [0, 1].
pub fn weight(stake: Balance, cap: Balance, trust: Ratio) -> Ratio {
    Ratio::from_fraction(stake, cap).mul(trust)
}

/// The class of a weight; `None` for a weight of zero, which is never drawn.
pub fn class_of(weight: Ratio) -> Option<u8> {
    if weight == Ratio::ZERO {
        return None;
    }
    let last = CLASSES.saturating_sub(1);
    let class = (0..last).find(|c| weight.ppb() > envelope(c.saturating_add(1))).unwrap_or(last);
    u8::try_from(class).ok()
}

/// The upper bound of a class, in parts per billion.
fn envelope(class: usize) -> u32 {
    ONE.checked_shr(u32::try_from(class).unwrap_or(u32::MAX)).unwrap_or(0)
}

impl Pool {
    /// How many members there are in all.
    pub fn len(&self) -> u32 {
        self.counts.iter().fold(0u32, |sum, c| sum.saturating_add(*c))
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|c| *c == 0)
    }

    /// Turns 128 random bits into a pick; `None` from an empty pool.
    ///
    /// The modulus is below 2^66, so the bias of taking it is below 2^−62.
    #[allow(clippy::arithmetic_side_effects)] // 16 · 2^32 · 10^9 < 2^66: u128; divisors are checked
    pub fn pick(&self, random: u128) -> Option<Pick> {
        let total: u128 =
            self.counts.iter().enumerate().map(|(c, n)| u128::from(*n) * u128::from(envelope(c))).sum();
        if total == 0 {
            return None;
        }
        let mut rest = random % total;
        for (class, count) in self.counts.iter().enumerate() {
            let bound = u128::from(envelope(class));
            let span = u128::from(*count) * bound;
            if rest < span {
                return Some(Pick {
                    class: u8::try_from(class).unwrap_or(u8::MAX),
                    index: u32::try_from(rest / bound).unwrap_or(u32::MAX),
                    threshold: Ratio::from_ppb(u32::try_from(rest % bound).unwrap_or(u32::MAX)),
                });
            }
            rest -= span;
        }
        None
    }

    /// Every place in the pool, starting at `class`/`index` and wrapping once around; at most `limit` of them. For small
    /// pools, where a random draw without replacement may miss the last eligible node for long.
    pub fn walk(&self, class: u8, index: u32, limit: usize) -> Vec<(u8, u32)> {
        let mut places = Vec::new();
        let members = usize::try_from(self.len()).unwrap_or(usize::MAX).min(limit);
        let (mut c, mut i) = (usize::from(class), index);
        // At most CLASSES empty classes are skipped between two members.
        for _ in 0..members.saturating_mul(2).saturating_add(CLASSES.saturating_mul(2)) {
            if places.len() >= members {
                break;
            }
            match self.counts.get(c) {
                Some(count) if i < *count => {
                    places.push((u8::try_from(c).unwrap_or(u8::MAX), i));
                    i = i.saturating_add(1);
                }
                Some(_) => {
                    c = c.saturating_add(1);
                    i = 0;
                }
                None => {
                    c = 0;
                    i = 0;
                }
            }
        }
        places
    }
}

/// A stream of random numbers from a seed: number i is the first 16 bytes of hash(seed ‖ i). The hash function is the
/// caller's (on chain, the host's).
pub struct Stream {
    block: [u8; 36],
}

impl Stream {
    /// Starts a stream.
    pub fn new(seed: [u8; 32]) -> Stream {
        let mut block = [0u8; 36];
        block[..32].copy_from_slice(&seed);
        Stream { block }
    }

    /// The next number.
    #[allow(clippy::indexing_slicing)] // constant ranges of constant arrays
    pub fn next(&mut self, hash: impl Fn(&[u8]) -> [u8; 32]) -> u128 {
        let digest = hash(&self.block);
        let mut counter = [0u8; 4];
        counter.copy_from_slice(&self.block[32..]);
        self.block[32..].copy_from_slice(&u32::from_le_bytes(counter).wrapping_add(1).to_le_bytes());
        let mut number = [0u8; 16];
        number.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(number)
    }
}
