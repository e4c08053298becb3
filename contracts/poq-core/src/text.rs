//! Token F1 of short texts, in integers: what an opened reference makes of an output.
//!
//! The measure of the SQuAD benchmark (Rajpurkar et al. 2016, `evaluate-v1.1.py`), which arXiv 2512.16317 takes for the truth:
//! lower case, punctuation and articles off, then the harmonic mean of precision and recall over the multiset of tokens. On ASCII
//! text it equals the official script's. Beyond ASCII nothing is folded and nothing is punctuation: tables of Unicode would be
//! larger than the contract.

use crate::units::Ratio;
use alloc::vec;
use alloc::vec::Vec;

/// The longest reference that the contract opens, in bytes.
pub const MAX_REFERENCE: usize = 256;
/// The longest output that the contract compares with a reference, in bytes.
pub const MAX_AUDITED: usize = 2_048;

/// Token F1 of `output` against `reference`, rounded down: 2·common / (tokens of the one + tokens of the other). Zero where they
/// have no token in common.
///
/// Work grows with the product of the two lengths; callers bound them ([`MAX_REFERENCE`], [`MAX_AUDITED`]).
pub fn token_f1(reference: &[u8], output: &[u8]) -> Ratio {
    let (reference, output) = (normalised(reference), normalised(output));
    let expected: Vec<&[u8]> = tokens(&reference).collect();
    let mut used = vec![false; expected.len()];
    let (mut common, mut given) = (0u128, 0u128);
    for token in tokens(&output) {
        given = given.saturating_add(1);
        let place = expected.iter().zip(&used).position(|(other, used)| !used && *other == token);
        if let Some(used) = place.and_then(|place| used.get_mut(place)) {
            *used = true;
            common = common.saturating_add(1);
        }
    }
    Ratio::from_fraction(common.saturating_mul(2), given.saturating_add(expected.len() as u128))
}

/// Lower case without punctuation. Punctuation goes without leaving a gap, as in the official script: `it's` is `its`.
fn normalised(text: &[u8]) -> Vec<u8> {
    text.iter().filter(|byte| !byte.is_ascii_punctuation()).map(u8::to_ascii_lowercase).collect()
}

/// The words of a normalised text, articles left out. White space is what Python's `str.split` takes for it within ASCII.
fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, 0x09..=0x0d | 0x1c..=0x1f | b' '))
        .filter(|token| !matches!(*token, b"" | b"a" | b"an" | b"the"))
}
