//! Amounts of money as people write them: `1.5` is in the chain's display unit, `1500u` in its smallest one.

use std::fmt;
use std::str::FromStr;

/// An amount as written on the command line or in a file. How many decimals the display unit has is the chain's to say,
/// so the number stays as written until [`Amount::resolve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// In the smallest unit: digits with a trailing `u`.
    Raw(u128),
    /// In the display unit: the part before the point, and the digits after it without trailing zeros.
    Units {
        /// The part before the point.
        whole: u128,
        /// The digits after the point; no trailing zeros.
        fraction: String,
    },
}

/// Why an amount is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmountError {
    /// Nothing there.
    #[error("the amount is empty; write 1.5 (in the chain's unit) or 1500u (in its smallest unit)")]
    Empty,
    /// Not a number.
    #[error("'{0}' is not an amount; write 1.5 (in the chain's unit) or 1500u (in its smallest unit)")]
    NotANumber(String),
    /// Below zero.
    #[error("'{0}' is negative; amounts start at zero")]
    Negative(String),
    /// The smallest unit cannot be divided.
    #[error("'{0}' has a fraction of the smallest unit, which cannot be divided")]
    FractionOfSmallest(String),
    /// More digits after the point than the chain's unit has.
    #[error("{amount} has more digits after the point than the chain's unit has decimals ({decimals})")]
    TooPrecise {
        /// What was written.
        amount: String,
        /// What the chain's unit has.
        decimals: u8,
    },
    /// Above 2^128 − 1 smallest units.
    #[error("{0} is more than any balance can hold")]
    TooLarge(String),
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(AmountError::Empty);
        }
        if trimmed.starts_with('-') {
            return Err(AmountError::Negative(trimmed.into()));
        }
        let (number, raw) = match trimmed.strip_suffix('u') {
            Some(number) => (number, true),
            None => (trimmed, false),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if raw && number.contains('.') {
            return Err(AmountError::FractionOfSmallest(trimmed.into()));
        }
        // `1.` and `.5` are typing errors more often than amounts.
        if number.contains('.') && (whole.is_empty() || fraction.is_empty()) {
            return Err(AmountError::NotANumber(trimmed.into()));
        }
        let fraction = digits(fraction).ok_or_else(|| AmountError::NotANumber(trimmed.into()))?;
        let whole =
            digits(whole).filter(|d| !d.is_empty()).ok_or_else(|| AmountError::NotANumber(trimmed.into()))?;
        let whole: u128 = whole.parse().map_err(|_| AmountError::TooLarge(trimmed.into()))?;
        Ok(if raw {
            Amount::Raw(whole)
        } else {
            Amount::Units { whole, fraction: fraction.trim_end_matches('0').to_owned() }
        })
    }
}

/// Digits without their separators (`1_000`); `None` where there is anything else.
fn digits(text: &str) -> Option<String> {
    if text.starts_with('_') || text.ends_with('_') {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    digits.chars().all(|c| c.is_ascii_digit()).then_some(digits)
}

impl Amount {
    /// In the smallest unit of a chain whose display unit has `decimals` decimals.
    pub(crate) fn resolve(&self, decimals: u8) -> Result<u128, AmountError> {
        match self {
            Amount::Raw(raw) => Ok(*raw),
            Amount::Units { whole, fraction } => {
                let missing = usize::from(decimals)
                    .checked_sub(fraction.len())
                    .ok_or_else(|| AmountError::TooPrecise { amount: self.to_string(), decimals })?;
                // The digits of whole and fraction side by side are the number of smallest units.
                format!("{whole}{fraction}{:0<missing$}", "")
                    .parse()
                    .map_err(|_| AmountError::TooLarge(self.to_string()))
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Raw(raw) => write!(f, "{raw}u"),
            Amount::Units { whole, fraction } if fraction.is_empty() => write!(f, "{whole}"),
            Amount::Units { whole, fraction } => write!(f, "{whole}.{fraction}"),
        }
    }
}

/// A chain's display unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its name.
    pub(crate) symbol: String,
    /// How many decimals it has.
    pub(crate) decimals: u8,
}

impl Default for Unit {
    /// That of `substrate-contracts-node` and of every chain that says nothing.
    fn default() -> Self {
        Unit { symbol: "UNIT".into(), decimals: 12 }
    }
}

impl Unit {
    /// The amount in display units, exact, without trailing zeros: `1.5`.
    pub(crate) fn number(&self, raw: u128) -> String {
        let decimals = usize::from(self.decimals);
        let digits = format!("{raw:0>width$}", width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        }
    }

    /// The amount in display units with the unit's name, exact: `1.5 UNIT`.
    pub(crate) fn show(&self, raw: u128) -> String {
        format!("{} {}", self.number(raw), self.symbol)
    }

    /// The amount rounded down to at most `digits` digits after the point, for tables; an ellipsis where digits are left
    /// out.
    pub(crate) fn short(&self, raw: u128, digits: usize) -> String {
        let number = self.number(raw);
        match number.split_once('.') {
            Some((whole, fraction)) if fraction.len() > digits => {
                format!("{whole}.{}…", fraction.chars().take(digits).collect::<String>())
            }
            _ => number,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn raw(text: &str) -> Result<u128, AmountError> {
        text.parse::<Amount>()?.resolve(12)
    }

    #[test]
    fn display_units_and_smallest_units_are_told_apart() {
        assert_eq!(raw("1"), Ok(1_000_000_000_000));
        assert_eq!(raw("1.5"), Ok(1_500_000_000_000));
        assert_eq!(raw("0.000000000001"), Ok(1));
        assert_eq!(raw("1_000.250"), Ok(1_000_250_000_000_000));
        assert_eq!(raw("123456u"), Ok(123_456));
        assert_eq!(raw("0"), Ok(0));
        assert_eq!(raw(&format!("{}u", u128::MAX)), Ok(u128::MAX));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_reason() {
        assert_eq!(raw(""), Err(AmountError::Empty));
        assert_eq!(raw(" "), Err(AmountError::Empty));
        assert_eq!(raw("-1"), Err(AmountError::Negative("-1".into())));
        assert_eq!(raw("1.5u"), Err(AmountError::FractionOfSmallest("1.5u".into())));
        for text in ["u", ".", "1.", ".5", "1,5", "1e3", "0x10", "1.2.3", "_1", "1 000", "+1", "١"] {
            assert!(matches!(raw(text), Err(AmountError::NotANumber(_))), "{text}: {:?}", raw(text));
        }
        assert_eq!(
            raw("0.0000000000001"),
            Err(AmountError::TooPrecise { amount: "0.0000000000001".into(), decimals: 12 })
        );
        assert!(matches!(raw(&u128::MAX.to_string()), Err(AmountError::TooLarge(_))));
        assert!(matches!(raw(&format!("{}0u", u128::MAX)), Err(AmountError::TooLarge(_))));
    }

    #[test]
    fn a_chain_without_decimals_takes_whole_units_only() {
        assert_eq!("7".parse::<Amount>().unwrap().resolve(0), Ok(7));
        assert_eq!("7.0".parse::<Amount>().unwrap().resolve(0), Ok(7));
        assert!("7.1".parse::<Amount>().unwrap().resolve(0).is_err());
        assert_eq!(Unit { symbol: "X".into(), decimals: 0 }.number(70), "70");
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let unit = Unit::default();
        for amount in [0, 1, 10, 999_999_999_999, 1_000_000_000_000, 1_500_000_000_000, u128::MAX] {
            assert_eq!(raw(&unit.number(amount)), Ok(amount));
        }
        assert_eq!(unit.show(1_500_000_000_000), "1.5 UNIT");
        assert_eq!(unit.short(1_234_567_000_000, 3), "1.234…");
        assert_eq!(unit.short(1_230_000_000_000, 3), "1.23");
    }
}
