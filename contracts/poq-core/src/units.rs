//! Units: parts per billion for everything in [0, 1], `u128` for money, milliseconds for time.

use core::fmt;
use parity_scale_codec::{Decode, Encode, Error as CodecError, Input};
use scale_info::TypeInfo;

/// An account of the chain.
pub use ink_primitives::AccountId;

/// An amount of money in the chain's smallest unit.
pub type Balance = u128;
/// Money owed, or below zero held back, in the chain's smallest unit.
pub type SignedBalance = i128;
/// A task's number; they count up from 1. 0 is no task.
pub type TaskId = u64;
/// A node's number; they count up from 1. 0 is no node.
pub type NodeId = u32;
/// A task kind's number (say, short question answering), chosen by the contract's owner.
pub type KindId = u16;
/// A time or a duration in milliseconds, as the chain's block timestamps show it.
pub type Millis = u64;
/// A signed number in parts per billion: a net reward (in [−1, 1]) or an information gain (in [−1, 1]).
pub type Signed = i64;

/// One, in parts per billion.
pub const ONE: u32 = 1_000_000_000;
const ONE_U64: u64 = ONE as u64;
const ONE_U128: u128 = ONE as u128;

/// A number in [0, 1] in parts per billion: a quality, a cost, a trust weight, a share.
///
/// Decoding refuses anything above one, so a value of this type is always in range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Encode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u32", into = "u32"))]
pub struct Ratio(u32);

impl Ratio {
    /// Zero.
    pub const ZERO: Ratio = Ratio(0);
    /// One.
    pub const ONE: Ratio = Ratio(ONE);

    /// From parts per billion; what is above one becomes one.
    pub const fn from_ppb(ppb: u32) -> Ratio {
        if ppb > ONE {
            Ratio(ONE)
        } else {
            Ratio(ppb)
        }
    }

    /// From thousandths; what is above one becomes one.
    pub const fn from_permille(permille: u32) -> Ratio {
        Ratio::from_ppb(permille.saturating_mul(1_000_000))
    }

    /// `part / whole` rounded down, exact for every pair, clipped to [0, 1]. A `whole` of zero gives one for any positive
    /// `part`, else zero.
    pub fn from_fraction(part: u128, whole: u128) -> Ratio {
        if part == 0 {
            return Ratio::ZERO;
        }
        if part >= whole {
            return Ratio::ONE;
        }
        let ppb = mul_div(part, ONE_U128, whole).and_then(|ppb| u32::try_from(ppb).ok());
        Ratio::from_ppb(ppb.unwrap_or(ONE))
    }

    /// Parts per billion.
    pub const fn ppb(self) -> u32 {
        self.0
    }

    /// `self · other`, rounded down.
    // The product of two numbers up to 10⁹ fits 64 bits, and 10⁹ is not zero.
    #[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
    pub const fn mul(self, other: Ratio) -> Ratio {
        Ratio(((self.0 as u64 * other.0 as u64) / ONE_U64) as u32)
    }

    /// `self · amount`, rounded down, exact for every amount: with a = q·10⁹ + r, floor(a·p/10⁹) = q·p + floor(r·p/10⁹).
    // q·p ≤ amount because p ≤ 10⁹; r·p < 10¹⁸; their sum is at most `amount`.
    #[allow(clippy::arithmetic_side_effects)]
    pub const fn of(self, amount: Balance) -> Balance {
        (amount / ONE_U128) * self.0 as u128 + ((amount % ONE_U128) * self.0 as u128) / ONE_U128
    }

    /// `1 − self`.
    #[allow(clippy::arithmetic_side_effects)] // self ≤ 1 by type
    pub const fn complement(self) -> Ratio {
        Ratio(ONE - self.0)
    }

    /// `|self − other|`.
    pub const fn abs_diff(self, other: Ratio) -> Ratio {
        Ratio(self.0.abs_diff(other.0))
    }

    /// `max(0, self − other)`.
    pub const fn saturating_sub(self, other: Ratio) -> Ratio {
        Ratio(self.0.saturating_sub(other.0))
    }

    /// `min(1, self + other)`.
    pub const fn saturating_add(self, other: Ratio) -> Ratio {
        Ratio::from_ppb(self.0.saturating_add(other.0))
    }

    /// As a signed number of parts per billion.
    pub const fn signed(self) -> Signed {
        self.0 as Signed
    }

    /// The nearest part per billion; what is not in [0, 1] is clipped, and what is no number is zero. For tools: nothing on
    /// chain knows floating point.
    #[cfg(feature = "std")]
    #[allow(clippy::float_arithmetic, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn from_f64(value: f64) -> Ratio {
        // A cast saturates, and makes zero of what is no number.
        Ratio::from_ppb((value * f64::from(ONE)).round() as u32)
    }

    /// As a floating-point number, for tools.
    #[cfg(feature = "std")]
    #[allow(clippy::float_arithmetic)]
    pub fn to_f64(self) -> f64 {
        f64::from(self.0) / f64::from(ONE)
    }

    /// Clips a signed number of parts per billion to [0, 1].
    pub fn clip(signed: Signed) -> Ratio {
        Ratio(u32::try_from(signed.clamp(0, ONE_U64 as i64)).unwrap_or(ONE))
    }
}

impl Decode for Ratio {
    fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
        let ppb = u32::decode(input)?;
        if ppb > ONE {
            return Err(CodecError::from("a ratio is at most one billion parts per billion"));
        }
        Ok(Ratio(ppb))
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.wrapping_div(ONE);
        let rest = self.0.wrapping_rem(ONE);
        write!(f, "{whole}.{rest:09}")
    }
}

impl From<Ratio> for u32 {
    fn from(r: Ratio) -> u32 {
        r.0
    }
}

impl TryFrom<u32> for Ratio {
    type Error = &'static str;
    fn try_from(ppb: u32) -> Result<Ratio, Self::Error> {
        if ppb > ONE {
            Err("a ratio is at most 1000000000 (parts per billion)")
        } else {
            Ok(Ratio(ppb))
        }
    }
}

/// What an evaluator says of one output: a quality in [0, 1]; that the output could not be had (its blob was missing or did
/// not hash to its commitment); or that the task's input could not be had, which is said of every output or of none. Fixed
/// width on the wire and in storage (4 bytes), so that a revealed score never changes the size of a task's record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "json::Score", into = "json::Score"))]
pub struct Score(u32);

impl Score {
    /// The output could not be had.
    pub const UNAVAILABLE: Score = Score(u32::MAX);
    /// The task's input could not be had, so no output can be judged.
    pub const NO_INPUT: Score = Score(u32::MAX - 1);

    /// A quality.
    pub const fn of(quality: Ratio) -> Score {
        Score(quality.0)
    }

    /// The quality, if the output could be had.
    pub const fn quality(self) -> Option<Ratio> {
        if self.0 > ONE {
            None
        } else {
            Some(Ratio(self.0))
        }
    }
}

impl Default for Score {
    fn default() -> Score {
        Score::UNAVAILABLE
    }
}

impl Decode for Score {
    fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
        match u32::decode(input)? {
            raw if raw <= ONE || raw >= Score::NO_INPUT.0 => Ok(Score(raw)),
            _ => Err(CodecError::from(
                "a score is at most one billion parts per billion, 2^32-1 for unavailable or 2^32-2 for no input",
            )),
        }
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.quality(), *self) {
            (Some(q), _) => fmt::Display::fmt(&q, f),
            (None, Score::NO_INPUT) => f.write_str("no input"),
            (None, _) => f.write_str("unavailable"),
        }
    }
}

impl From<Option<Ratio>> for Score {
    fn from(q: Option<Ratio>) -> Score {
        q.map_or(Score::UNAVAILABLE, Score::of)
    }
}

impl From<Score> for Option<Ratio> {
    fn from(s: Score) -> Option<Ratio> {
        s.quality()
    }
}

/// `a · b / c` rounded down, exact for every product; `None` where `c` is zero or the quotient exceeds 128 bits.
pub fn mul_div(a: u128, b: u128, c: u128) -> Option<u128> {
    match a.checked_mul(b) {
        Some(product) => product.checked_div(c),
        None => long_division(a, b, c),
    }
}

/// [`mul_div`] where the product exceeds 128 bits: multiplies by `b` bit by bit and divides on the way. After every step
/// a · (the bits of b so far) = quotient · c + rest, rest < c.
#[cold]
// rest < c, hence `c - rest` is positive; `rest + more` is computed only where it is below `c`.
#[allow(clippy::arithmetic_side_effects)]
fn long_division(a: u128, b: u128, c: u128) -> Option<u128> {
    let (whole, part) = (a.checked_div(c)?, a.checked_rem(c)?);
    let (mut quotient, mut rest) = (0u128, 0u128);
    let add = |quotient: &mut u128, rest: &mut u128, more: u128| -> Option<()> {
        let room = c - *rest;
        if more >= room {
            *quotient = quotient.checked_add(1)?;
            *rest = more - room;
        } else {
            *rest += more;
        }
        Some(())
    };
    for bit in (0..u128::BITS - b.leading_zeros()).rev() {
        quotient = quotient.checked_mul(2)?;
        let twice = rest;
        add(&mut quotient, &mut rest, twice)?;
        if (b >> bit) & 1 == 1 {
            quotient = quotient.checked_add(whole)?;
            add(&mut quotient, &mut rest, part)?;
        }
    }
    Some(quotient)
}

/// A score in JSON: parts per billion, `null` for unavailable, `"no_input"`.
#[cfg(feature = "serde")]
mod json {
    use super::Ratio;

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    pub(super) enum Score {
        Quality(Ratio),
        Word(Word),
        Unavailable(()),
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Word {
        NoInput,
    }

    impl From<super::Score> for Score {
        fn from(score: super::Score) -> Score {
            match (score.quality(), score) {
                (Some(quality), _) => Score::Quality(quality),
                (None, super::Score::NO_INPUT) => Score::Word(Word::NoInput),
                (None, _) => Score::Unavailable(()),
            }
        }
    }

    impl From<Score> for super::Score {
        fn from(score: Score) -> super::Score {
            match score {
                Score::Quality(quality) => super::Score::of(quality),
                Score::Word(Word::NoInput) => super::Score::NO_INPUT,
                Score::Unavailable(()) => super::Score::UNAVAILABLE,
            }
        }
    }
}

/// Money as a decimal string in JSON: amounts exceed what JSON numbers can carry exactly.
#[cfg(feature = "serde")]
pub mod decimal {
    use core::{fmt::Display, str::FromStr};
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    /// Writes an amount as a decimal string.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<T: Display, S: Serializer>(amount: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(amount)
    }

    /// Reads an amount from a decimal string.
    ///
    /// # Errors
    /// Where the string is no decimal number of 128 bits.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        alloc::string::String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
