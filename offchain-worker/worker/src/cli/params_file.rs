//! The contract's parameters as a file for people: TOML or JSON, ratios as numbers in [0, 1], money in the chain's unit.
//!
//! ```toml
//! [global]
//! unbonding_ms = 86400000
//!
//! [kinds.1]
//! tolerance = 0.01
//! stake_min = "10"
//! aggregation = "median"
//! ```
//! A kind may leave parameters out: they stay what they are on chain, or are the shipped defaults for a new kind.

use crate::cli::amount::{Amount, AmountError, Unit};
use poq_core::params::KindParams;
use poq_core::units::{KindId, Ratio};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Parameters that are ratios, wherever they stand. The test `every_parameter_is_known` fails when the protocol gets one
/// that is missing here.
const RATIOS: &[&str] = &[
    "trust_initial",
    "trust_floor",
    "tolerance",
    "outlier_bound",
    "alpha",
    "beta",
    "latency_weight",
    "price_weight",
    "protocol_fee",
    "inference_share",
    "missed_penalty",
    "unrevealed_penalty",
    "outlier_penalty",
    "quorum",
    "trim",
    "step",
    "floor",
    "eta",
    "up",
    "down",
    "rate",
];
/// Parameters that are money.
const MONEY: &[&str] = &[
    "price_cap",
    "inference_slot_min",
    "evaluator_slot_min",
    "stake_min",
    "stake_cap",
    "inference_at_risk",
    "evaluator_at_risk",
];
/// Parameters that are one of several alternatives: a new value replaces the old one as a whole.
const ALTERNATIVES: &[&str] = &["aggregation", "merit", "trust"];
/// Parameters that are hashes.
const HASHES: &[&str] = &["rubric_hash"];

/// Why a parameter file is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParamsFileError {
    /// Cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Neither TOML nor JSON.
    #[error("{path} is not valid {format}: {message}")]
    Syntax {
        /// The file.
        path: String,
        /// TOML or JSON.
        format: &'static str,
        /// The parser's words, with the line.
        message: String,
    },
    /// Not a parameter.
    #[error("there is no parameter `{0}`; `poq params show --defaults` lists them all")]
    Unknown(String),
    /// A ratio outside its range, or not a number.
    #[error("{name} = {value}: a ratio is a number between 0 and 1 with at most 9 digits after the point, for example 0.05")]
    NotARatio {
        /// The parameter.
        name: String,
        /// What was written.
        value: String,
    },
    /// An amount that cannot be read.
    #[error("{name}: {source}")]
    NotAnAmount {
        /// The parameter.
        name: String,
        /// Why.
        source: AmountError,
    },
    /// A hash that cannot be read.
    #[error("{name} = {value}: a hash is 64 hexadecimal digits, with or without 0x")]
    NotAHash {
        /// The parameter.
        name: String,
        /// What was written.
        value: String,
    },
    /// A value of another type.
    #[error("kinds.{kind}: {message}")]
    Shape {
        /// The kind.
        kind: KindId,
        /// What is wrong.
        message: String,
    },
    /// Refused by the protocol's own rules.
    #[error("kinds.{kind}: {source}")]
    Invalid {
        /// The kind.
        kind: KindId,
        /// The rule.
        source: poq_core::ParamsError,
    },
    /// Neither global parameters nor a kind.
    #[error("{0} sets nothing: give it a [global] table or a [kinds.N] table")]
    Empty(String),
}

/// The contract's global parameters, in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GlobalFile {
    /// Milliseconds from unstaking to withdrawal.
    pub(crate) unbonding_ms: u64,
    /// Milliseconds from a task's end until anyone may collect it for its requester.
    pub(crate) archive_ms: u64,
    /// What an auditor must have bonded, in the chain's unit; the shipped default where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit_bond: Option<String>,
}

/// A whole parameter file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParamsFile {
    /// The contract's global parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) global: Option<GlobalFile>,
    /// Per kind, what it sets.
    #[serde(default)]
    pub(crate) kinds: BTreeMap<KindId, Map<String, Value>>,
}

impl ParamsFile {
    /// Reads a file: JSON if its name ends in `.json`, else TOML.
    pub(crate) fn read(path: &Path) -> Result<ParamsFile, ParamsFileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ParamsFileError::Read { path: name.clone(), source })?;
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let file = Self::parse(&text, json).map_err(|message| ParamsFileError::Syntax {
            path: name.clone(),
            format: if json { "JSON" } else { "TOML" },
            message,
        })?;
        if file.global.is_none() && file.kinds.is_empty() {
            return Err(ParamsFileError::Empty(name));
        }
        Ok(file)
    }

    /// Reads TOML or JSON; the error is the parser's, with its line.
    pub(crate) fn parse(text: &str, json: bool) -> Result<ParamsFile, String> {
        if json {
            serde_json::from_str(text).map_err(|e| e.to_string())
        } else {
            toml::from_str(text).map_err(|e| e.to_string())
        }
    }

    /// The kind's parameters: what the file says, over `base` where it says nothing; checked by the protocol's rules.
    pub(crate) fn kind(
        &self,
        kind: KindId,
        base: &KindParams,
        unit: &Unit,
    ) -> Result<KindParams, ParamsFileError> {
        let mut whole = raw(base);
        if let Some(patch) = self.kinds.get(&kind) {
            overlay(&mut whole, patch, &format!("kinds.{kind}"), unit)?;
        }
        let params: KindParams = serde_json::from_value(Value::Object(whole))
            .map_err(|e| ParamsFileError::Shape { kind, message: e.to_string() })?;
        params.validate().map_err(|source| ParamsFileError::Invalid { kind, source })?;
        Ok(params)
    }
}

/// A kind's parameters in the file's form.
pub(crate) fn show(params: &KindParams, unit: &Unit) -> Map<String, Value> {
    raw(params).into_iter().map(|(name, value)| (name.clone(), for_people(&name, value, unit))).collect()
}

fn raw(params: &KindParams) -> Map<String, Value> {
    match serde_json::to_value(params) {
        Ok(Value::Object(fields)) => fields,
        // A plain struct of numbers, strings and arrays always serialises to an object.
        _ => Map::new(),
    }
}

fn for_people(name: &str, value: Value, unit: &Unit) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(n, v)| (n.clone(), for_people(&n, v, unit))).collect())
        }
        Value::Number(ppb) if RATIOS.contains(&name) => {
            Value::from(ppb.as_f64().unwrap_or_default() / f64::from(poq_core::units::ONE))
        }
        Value::String(amount) if MONEY.contains(&name) => match amount.parse() {
            Ok(amount) => Value::from(unit.number(amount)),
            Err(_) => Value::from(amount),
        },
        Value::Array(bytes) if HASHES.contains(&name) => {
            let bytes: Vec<u8> =
                bytes.iter().filter_map(Value::as_u64).filter_map(|b| u8::try_from(b).ok()).collect();
            Value::from(format!("0x{}", hex::encode(bytes)))
        }
        other => other,
    }
}

fn overlay(
    base: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
    unit: &Unit,
) -> Result<(), ParamsFileError> {
    for (name, value) in patch {
        let path = format!("{path}.{name}");
        let slot = base.get_mut(name).ok_or_else(|| ParamsFileError::Unknown(path.clone()))?;
        match (slot, value) {
            (Value::Object(slot), Value::Object(value)) if !ALTERNATIVES.contains(&name.as_str()) => {
                overlay(slot, value, &path, unit)?;
            }
            (slot, value) => *slot = for_chain(name, value, &path, unit)?,
        }
    }
    Ok(())
}

fn for_chain(name: &str, value: &Value, path: &str, unit: &Unit) -> Result<Value, ParamsFileError> {
    if RATIOS.contains(&name) {
        let refused = || ParamsFileError::NotARatio { name: path.into(), value: value.to_string() };
        return Ok(Value::from(ratio(&plain(value)).ok_or_else(refused)?.ppb()));
    }
    if MONEY.contains(&name) {
        let refused = |source| ParamsFileError::NotAnAmount { name: path.into(), source };
        let amount: Amount = plain(value).parse().map_err(refused)?;
        return Ok(Value::from(amount.resolve(unit.decimals).map_err(refused)?.to_string()));
    }
    if HASHES.contains(&name) {
        let text = plain(value);
        let bytes = hex::decode(text.trim_start_matches("0x")).ok().filter(|b| b.len() == 32);
        let refused = || ParamsFileError::NotAHash { name: path.into(), value: value.to_string() };
        return Ok(Value::from(bytes.ok_or_else(refused)?));
    }
    Ok(match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    Ok((name.clone(), for_chain(name, value, &format!("{path}.{name}"), unit)?))
                })
                .collect::<Result<_, ParamsFileError>>()?,
        ),
        other => other.clone(),
    })
}

/// A number or a string as the text that was written.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Rust's own formatting of a float is its shortest decimal form and never has an exponent.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    }
}

/// A ratio from decimal digits, exactly: no floating point, so that what is written is what the chain gets.
pub(crate) fn ratio(text: &str) -> Option<Ratio> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return None;
    }
    let ppb: u64 = format!("{whole}{fraction:0<9}").parse().ok()?;
    u32::try_from(ppb).ok().and_then(|ppb| Ratio::try_from(ppb).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use poq_core::aggregate::Aggregation;
    use poq_core::{MeritRule, TrustRule};

    fn parse(toml: &str) -> Result<KindParams, ParamsFileError> {
        let file = ParamsFile::parse(toml, false).map_err(|message| ParamsFileError::Syntax {
            path: "test".into(),
            format: "TOML",
            message,
        })?;
        file.kind(1, &KindParams::default(), &Unit::default())
    }

    /// Every leaf is known as a ratio, money or hash, or is a time or a count by its name.
    #[test]
    fn every_parameter_is_known() {
        fn walk(name: &str, value: &Value) {
            match value {
                Value::Object(fields) => fields.iter().for_each(|(n, v)| walk(n, v)),
                _ if RATIOS.contains(&name) || MONEY.contains(&name) || HASHES.contains(&name) => {}
                _ => assert!(
                    name.ends_with("_ms")
                        || ["outputs_max", "panel_min", "panel_max", "aggregation"].contains(&name),
                    "say in params_file.rs what kind of number `{name}` is"
                ),
            }
        }
        let with =
            |merit, trust, aggregation| KindParams { merit, trust, aggregation, ..KindParams::default() };
        let r = Ratio::ONE;
        for params in [
            KindParams::default(),
            with(
                MeritRule::Closeness,
                TrustRule::Multiplicative { eta: r },
                Aggregation::TrimmedMean { trim: Ratio::ZERO },
            ),
            with(MeritRule::Closeness, TrustRule::Centred { up: r, down: r }, Aggregation::Mean),
        ] {
            for (name, value) in raw(&params) {
                if !(ALTERNATIVES.contains(&name.as_str()) && value.is_string()) {
                    walk(&name, &value);
                }
            }
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let unit = Unit::default();
        let params =
            KindParams { rubric_hash: [7; 32], tolerance: Ratio::from_ppb(1), ..KindParams::default() };
        let file = ParamsFile { global: None, kinds: [(1, show(&params, &unit))].into() };
        for json in [true, false] {
            let text = if json {
                serde_json::to_string(&file).unwrap()
            } else {
                toml::to_string_pretty(&file).unwrap()
            };
            let read = ParamsFile::parse(&text, json).unwrap();
            assert_eq!(read.kind(1, &KindParams::default(), &unit).unwrap(), params, "{text}");
        }
    }

    #[test]
    fn a_kind_may_leave_parameters_out() {
        let params = parse(
            "[kinds.1]\ntolerance = 0.05\nstake_min = \"12.5\"\nquorum = 1\nmerit = \"closeness\"\n\
             inference_weights.beta = 0.25\naggregation = { trimmed_mean = { trim = 0.2 } }",
        )
        .unwrap();
        let default = KindParams::default();
        assert_eq!(params.tolerance, Ratio::from_permille(50));
        assert_eq!(params.stake_min, 12_500_000_000_000);
        assert_eq!(params.quorum, Ratio::ONE);
        assert_eq!(params.merit, MeritRule::Closeness);
        assert_eq!(params.inference_weights.alpha, default.inference_weights.alpha);
        assert_eq!(params.inference_weights.beta, Ratio::from_permille(250));
        assert_eq!(params.aggregation, Aggregation::TrimmedMean { trim: Ratio::from_permille(200) });
        assert_eq!(params.stake_cap, default.stake_cap);
    }

    #[test]
    fn wrong_parameters_are_named() {
        let message = |toml: &str| parse(toml).unwrap_err().to_string();
        assert!(message("[kinds.1]\ntolerence = 0.05").contains("`kinds.1.tolerence`"));
        assert!(message("[kinds.1]\ntolerance = 5").contains("between 0 and 1"));
        assert!(message("[kinds.1]\ntolerance = -0.1").contains("between 0 and 1"));
        assert!(message("[kinds.1]\ntolerance = 0.12345678901").contains("9 digits"));
        assert!(message("[kinds.1]\nstake_min = \"ten\"").contains("kinds.1.stake_min"));
        assert!(message("[kinds.1]\nrubric_hash = \"0x12\"").contains("64 hexadecimal"));
        assert!(message("[kinds.1]\nmerit = \"best\"").contains("best"));
        assert!(message("[kinds.1]\ninference_ms = \"long\"").contains("kinds.1"));
        assert!(message("[kinds.1]\nstake_min = \"2000\"").contains("stake_min must be"));
        assert!(message("[kind.1]\n").contains("kind"));
        assert!(message("[kinds.1\n").contains("line 1"));
    }

    #[test]
    fn ratios_are_exact() {
        assert_eq!(ratio("0.1").map(Ratio::ppb), Some(100_000_000));
        assert_eq!(ratio("0.000000001").map(Ratio::ppb), Some(1));
        assert_eq!(ratio("1"), Some(Ratio::ONE));
        assert_eq!(ratio("1.0"), Some(Ratio::ONE));
        for text in ["1.000000001", "2", "", ".", "1.", ".1", "-0", "1e-3", "NaN"] {
            assert_eq!(ratio(text), None, "{text}");
        }
    }
}
