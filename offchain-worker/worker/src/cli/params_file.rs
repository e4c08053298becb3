//! The contract's parameters as a file for people: TOML or JSON, ratios as numbers in [0, 1], money in the chain's unit.
//!
//! ```toml
//! [global]
//! unbonding_ms = 86_400_000
//!
//! [kinds.1]
//! tolerance = 0.01
//! stake_min = "10"
//! aggregation = "median"
//! ```
//! A kind may leave parameters out: they stay what they are on chain, or are the shipped defaults for a new kind.
//!
//! Every parameter has a type of its own here, and is read and written by it. A detour by `serde_json::Value` would do the same
//! with less code and would not work: as soon as any crate of a build turns on serde_json's `arbitrary_precision`, its numbers
//! are maps to every other format.

use crate::cli::amount::{Amount, AmountError, Unit};
use poq_core::aggregate::Aggregation;
use poq_core::cost::LatencyRange;
use poq_core::governance::{GlobalParams, LEAVE_MS, PERIOD_MAX};
use poq_core::params::KindParams;
use poq_core::reward::RewardWeights;
use poq_core::units::{KindId, Millis, Ratio, ONE};
use poq_core::{MeritRule, TrustRule};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

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
    /// Neither TOML nor JSON, or not these parameters.
    #[error("{path} is not valid {format}: {message}\n`poq params show --defaults` lists all parameters")]
    Syntax {
        /// The file.
        path: String,
        /// TOML or JSON.
        format: &'static str,
        /// The parser's words, with the line.
        message: String,
    },
    /// An amount that is none on this chain.
    #[error("{name}: {source}")]
    NotAnAmount {
        /// The parameter.
        name: String,
        /// Why.
        source: AmountError,
    },
    /// Refused by the protocol's own rules.
    #[error("kinds.{kind}: {source}")]
    Invalid {
        /// The kind.
        kind: KindId,
        /// The rule.
        source: poq_core::ParamsError,
    },
    /// Global parameters that the protocol's own rules refuse beside what tasks can last.
    #[error(
        "global: with epochs of {epoch_ms} ms and tasks that live up to {life_ms} ms, unbonding_ms must be at least {unbonding_ms}, \
         params_delay_ms at least unbonding_ms + {leave_ms}, and archive_ms and audit_bond above 0; no period is longer than {longest_ms} ms"
    )]
    Global {
        /// The network's epoch.
        epoch_ms: Millis,
        /// The longest that a task of any kind lives.
        life_ms: Millis,
        /// The shortest unbonding period beside these.
        unbonding_ms: Millis,
        /// What the delay of changes must leave beyond unbonding.
        leave_ms: Millis,
        /// The longest period.
        longest_ms: Millis,
    },
    /// Neither global parameters nor a kind.
    #[error("{0} sets nothing: give it a [global] table or a [kinds.N] table")]
    Empty(String),
}

// ---------------------------------------------------------------------------------------------------- single values

/// How a parameter of the contract stands in a file.
trait Form<T>: Sized {
    /// The form of a value.
    fn show(value: &T, unit: &Unit) -> Self;
    /// Puts what the file says over what there is; `name` is for the error.
    fn put(&self, slot: &mut T, name: &str, unit: &Unit) -> Result<(), ParamsFileError>;
}

/// A ratio: a number in [0, 1] with at most nine digits after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(Ratio);

impl Form<Ratio> for Share {
    fn show(value: &Ratio, _: &Unit) -> Share {
        Share(*value)
    }

    fn put(&self, slot: &mut Ratio, _: &str, _: &Unit) -> Result<(), ParamsFileError> {
        *slot = self.0;
        Ok(())
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The nearest double of a decimal of nine digits; its shortest decimal form is that decimal again.
        serializer.serialize_f64(f64::from(self.0.ppb()) / f64::from(ONE))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        // Asked for by its type: what serde_json hands out for "any" number depends on its features.
        let text =
            deserializer.deserialize_f64(NumberText("a ratio, a number between 0 and 1 such as 0.05"))?;
        let refused = || {
            D::Error::custom(format!(
                "{text}: a ratio is a number between 0 and 1 with at most 9 digits after the point, for example 0.05"
            ))
        };
        ratio(&text).map(Share).ok_or_else(refused)
    }
}

/// An amount of money: text in the chain's unit (`"1.5"`) or in its smallest one (`"1500u"`); in TOML a number will do too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Money(Amount);

impl Form<u128> for Money {
    fn show(value: &u128, unit: &Unit) -> Money {
        // What the unit shows is an amount; the fallback is one too.
        Money(unit.number(*value).parse().unwrap_or(Amount::Raw(*value)))
    }

    fn put(&self, slot: &mut u128, name: &str, unit: &Unit) -> Result<(), ParamsFileError> {
        *slot = self
            .0
            .resolve(unit.decimals)
            .map_err(|source| ParamsFileError::NotAnAmount { name: name.into(), source })?;
        Ok(())
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let text = deserializer.deserialize_str(NumberText("an amount such as \"1.5\""))?;
        text.parse().map(Money).map_err(D::Error::custom)
    }
}

/// A number or a text as it was written.
struct NumberText(&'static str);

impl Visitor<'_> for NumberText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<String, E> {
        // Rust's own formatting of a float is its shortest decimal form and never has an exponent.
        Ok(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

/// A hash: 64 hexadecimal digits, with or without 0x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

impl Form<[u8; 32]> for Hash {
    fn show(value: &[u8; 32], _: &Unit) -> Hash {
        Hash(*value)
    }

    fn put(&self, slot: &mut [u8; 32], _: &str, _: &Unit) -> Result<(), ParamsFileError> {
        *slot = self.0;
        Ok(())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("0x{}", hex::encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::cli::args::hash(&text).map(Hash).map_err(|e| D::Error::custom(format!("{text}: {e}")))
    }
}

/// Values that stand in a file as they are.
macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Form<$type> for $type {
            fn show(value: &$type, _: &Unit) -> $type {
                *value
            }

            fn put(&self, slot: &mut $type, _: &str, _: &Unit) -> Result<(), ParamsFileError> {
                *slot = *self;
                Ok(())
            }
        }
    )*};
}

plain!(Millis, u8, u16);

// ------------------------------------------------------------------------------------------------- one of several

/// One of several rules, with its own numbers: what the file says replaces the old rule as a whole.
macro_rules! alternatives {
    ($(#[$doc:meta])* $file:ident for $rule:ident {
        $($variant:ident $({ $($field:ident),* })?),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub(crate) enum $file {
            $(#[allow(missing_docs)] $variant $({ $($field: Share),* })?),*
        }

        impl Form<$rule> for $file {
            fn show(value: &$rule, _: &Unit) -> $file {
                match *value {
                    $($rule::$variant $({ $($field),* })? => {
                        $file::$variant $({ $($field: Share($field)),* })?
                    })*
                }
            }

            fn put(&self, slot: &mut $rule, _: &str, _: &Unit) -> Result<(), ParamsFileError> {
                *slot = match *self {
                    $($file::$variant $({ $($field),* })? => {
                        $rule::$variant $({ $($field: $field.0),* })?
                    })*
                };
                Ok(())
            }
        }
    };
}

alternatives! {
    /// How scores become a consensus.
    AggregationFile for Aggregation { Mean, Median, TrimmedMean { trim }, TrustWeightedMean, TrustWeightedMedian }
}
alternatives! {
    /// How merit is measured.
    MeritFile for MeritRule { Closeness, Information { step, floor } }
}
alternatives! {
    /// How trust moves.
    TrustFile for TrustRule {
        Multiplicative { eta }, Centred { up, down }, RelativeMerit { rate }, Anchored { rate }
    }
}

// ------------------------------------------------------------------------------------------------- tables of values

/// A struct of parameters, each of which a file may leave out, with a sentence on each for whoever edits the file. What the
/// protocol gets and this lacks does not compile.
macro_rules! table_of {
    ($(#[$doc:meta])* $file:ident for $params:ident { $($name:ident: $form:ty = $about:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $file {
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $name: Option<$form>),*
        }

        impl Form<$params> for $file {
            fn show(value: &$params, unit: &Unit) -> $file {
                let $params { $($name),* } = value;
                $file { $($name: Some(Form::show($name, unit))),* }
            }

            fn put(&self, slot: &mut $params, path: &str, unit: &Unit) -> Result<(), ParamsFileError> {
                $(if let Some(value) = &self.$name {
                    value.put(&mut slot.$name, &format!("{path}.{}", stringify!($name)), unit)?;
                })*
                Ok(())
            }
        }

        impl $file {
            /// Name and meaning of each.
            const ABOUT: &'static [(&'static str, &'static str)] = &[$((stringify!($name), $about)),*];
        }
    };
}

table_of! {
    /// α and β of a role.
    WeightsFile for RewardWeights {
        alpha: Share = "what quality counts",
        beta: Share = "what cost counts",
    }
}
table_of! {
    /// Latencies that cost nothing and all.
    LatencyFile for LatencyRange {
        min_ms: Millis = "up to this latency the latency part of the cost is 0",
        max_ms: Millis = "from this latency on it is 1",
    }
}
table_of! {
    /// A task kind.
    KindFile for KindParams {
        outputs_max: u8 = "the most inference nodes of one task",
        panel_min: u8 = "the fewest evaluators of one task",
        panel_max: u8 = "the most evaluators of one task",
        quorum: Share = "share of the panel that must reveal for a settlement",
        inference_ms: Millis = "from request to the last answer",
        draw_ms: Millis = "from there until a panel must have been drawn; in its first half every answer must be opened",
        commit_ms: Millis = "from the draw to the last score commitment; again for seats that are filled",
        reveal_ms: Millis = "from there to the last reveal",
        audit_ms: Millis = "from the settlement: how long a reference may be opened; no task waits for it; 0 without auditors",
        protocol_fee: Share = "share of the fee that goes half to the treasury and half is burned",
        inference_share: Share = "share of the rest for the inference nodes; the evaluators get what remains",
        inference_slot_min: Money = "the least that a fee must offer each inference node",
        evaluator_slot_min: Money = "the least that a fee must offer each evaluator",
        fee_max: Money = "the largest fee of a task: what a panel decides must not be worth more than it has at risk",
        delivery_share: Share = "share of its slot that a node which delivered gets without a consensus; kept of an early answer's",
        unavailable_share: Share = "share of its slot that an evaluator gets for saying rightly that the input cannot be had",
        keeper_fee: Money = "the most that a step pays to whoever sends it; four of them are kept of every fee",
        ring_burn: Money = "what settlements must burn for one of the sixteen consensus values that merit compares with",
        price_cap: Money = "the asked price at which the price part of the cost is 1",
        price_weight: Share = "share of the asked price in an inference node's cost",
        latency_weight: Share = "share of latency in an inference node's cost",
        stake_min: Money = "a node with less stake is not drawn; slashes leave it in the draws down to a half of this",
        stake_cap: Money = "stake above this adds no chance to be drawn",
        inference_risk: u8 = "how many times its slot an inference node has at risk per task; at fee_max at most a sixteenth of stake_min",
        evaluator_risk: u8 = "how many times its slot an evaluator has at risk per task; at fee_max at most a sixteenth of stake_min",
        missed_penalty: Share = "share of the stake at risk that a missed duty costs, and the most that bad work costs",
        unrevealed_penalty: Share = "share that a commitment costs which is not opened or not revealed",
        outlier_penalty: Share = "share that a deviation beyond outlier_bound costs",
        outlier_bound: Share = "a mean deviation from the consensus above this is punished",
        bad_penalty: Share = "share that an answer of quality 0 costs, falling to nothing at quality_floor, and declining beside a delivery",
        quality_floor: Share = "answers below this quality are punished",
        decline_penalty: Share = "share that declining costs where nobody delivered, unless several were asked and all declined",
        tolerance: Share = "deviations up to this are none",
        trust_initial: Share = "the trust of a new evaluator",
        trust_floor: Share = "trust never falls below this",
        rubric_hash: Hash = "what evaluators score by (`poq rubric list`); all zero for anything",
        aggregation: AggregationFile = "mean, median, trust_weighted_mean, trust_weighted_median, or { trimmed_mean = { trim = 0.2 } }",
        merit: MeritFile = "\"closeness\", or { information = { step = …, floor = … } }",
        trust: TrustFile = "how opened references move trust: { anchored = { rate = … } }, { relative_merit = { rate = … } }, …",
        inference_weights: WeightsFile = "R = alpha * quality - beta * cost, of inference nodes",
        evaluator_weights: WeightsFile = "the same, of evaluators (merit for quality)",
        inference_latency: LatencyFile = "of an answer, from the request",
        evaluator_latency: LatencyFile = "of a score, from the draw of the panel",
    }
}
table_of! {
    /// What is not a kind's.
    GlobalFile for GlobalParams {
        unbonding_ms: Millis = "from unstaking to withdrawal; at least two epochs and the longest task",
        archive_ms: Millis = "from a task's end until anyone may collect it for its requester",
        audit_bond: Money = "what an auditor must have bonded",
        audits_per_epoch: u16 = "how many references an auditor may open in an epoch",
        params_delay_ms: Millis = "from an announced change until it can act; at least unbonding_ms, the longest task and two days",
    }
}

/// A table's parameters as lines, by name.
fn lines<T: Serialize>(file: &T) -> Vec<(String, String)> {
    let text = toml::to_string(file).unwrap_or_default();
    let mut lines = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((name, value)) = line.split_once(" = ") {
            lines.push((format!("{section}{name}"), value.to_owned()));
        }
    }
    lines
}

/// Every value that differs, as a line.
fn changes<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    let (old, new) = (lines(old), lines(new));
    let find = |lines: &[(String, String)], name: &str| {
        lines.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let gone = old.iter().filter(|(name, _)| find(&new, name).is_none());
    let mut changes: Vec<String> = gone.map(|(name, value)| format!("{name}: {value} -> none")).collect();
    for (name, value) in &new {
        match find(&old, name) {
            Some(before) if before == *value => {}
            Some(before) => changes.push(format!("{name}: {before} -> {value}")),
            None => changes.push(format!("{name}: none -> {value}")),
        }
    }
    changes
}

impl KindFile {
    /// A kind's parameters in the file's form.
    pub(crate) fn of(params: &KindParams, unit: &Unit) -> KindFile {
        Form::show(params, unit)
    }

    /// Every value that differs, as a line.
    pub(crate) fn changes(&self, new: &KindFile) -> Vec<String> {
        changes(self, new)
    }
}

impl GlobalFile {
    /// The global parameters in the file's form.
    pub(crate) fn of(params: &GlobalParams, unit: &Unit) -> GlobalFile {
        Form::show(params, unit)
    }

    /// Every value that differs, as a line.
    pub(crate) fn changes(&self, new: &GlobalFile) -> Vec<String> {
        changes(self, new)
    }
}

/// Names and meanings of what stands in the rules' own tables.
const ABOUT_RULES: &[(&str, &str)] = &[
    ("trim", "share of the scores dropped at either end"),
    ("step", "how fast the reference gain follows the population's median"),
    ("floor", "the reference gain never falls below this"),
    ("eta", "the rate of the papers' rule"),
    ("up", "the rate upwards"),
    ("down", "the rate downwards"),
    ("rate", "the rate of the moving averages"),
];

/// A whole parameter file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParamsFile {
    /// The contract's global parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) global: Option<GlobalFile>,
    /// Per kind, what it sets.
    #[serde(default)]
    pub(crate) kinds: BTreeMap<KindId, KindFile>,
}

impl ParamsFile {
    /// Reads a file: JSON if its name ends in `.json`, else TOML.
    pub(crate) fn read(path: &Path) -> Result<ParamsFile, ParamsFileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ParamsFileError::Read { path: name.clone(), source })?;
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        // Editors of some systems put a mark before the text that is no part of it.
        let file = Self::parse(text.trim_start_matches('\u{feff}'), json).map_err(|message| {
            ParamsFileError::Syntax {
                path: name.clone(),
                format: if json { "JSON" } else { "TOML" },
                message,
            }
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

    /// As TOML that a person can edit: every number plain, with what it means above it.
    pub(crate) fn toml(&self) -> anyhow::Result<String> {
        let mut out = String::new();
        for line in toml::to_string(self)?.lines() {
            let name = line.split_once(" = ").map(|(name, _)| name);
            if let Some(about) = name.and_then(about) {
                out.push_str(&format!("# {about}\n"));
            }
            out.push_str(line);
            out.push('\n');
        }
        Ok(out)
    }

    /// The kind's parameters: what the file says, over `base` where it says nothing; checked by the protocol's rules for a network
    /// with this epoch.
    pub(crate) fn kind(
        &self,
        kind: KindId,
        base: &KindParams,
        epoch_ms: Millis,
        unit: &Unit,
    ) -> Result<KindParams, ParamsFileError> {
        let mut params = base.clone();
        if let Some(file) = self.kinds.get(&kind) {
            file.put(&mut params, &format!("kinds.{kind}"), unit)?;
        }
        let valid = params.validate().and_then(|()| params.fits_epoch(epoch_ms));
        valid.map_err(|source| ParamsFileError::Invalid { kind, source })?;
        Ok(params)
    }

    /// The global parameters: what the file says, over `base` where it says nothing.
    pub(crate) fn global(&self, base: &GlobalParams, unit: &Unit) -> Result<GlobalParams, ParamsFileError> {
        let mut params = *base;
        if let Some(file) = &self.global {
            file.put(&mut params, "global", unit)?;
        }
        Ok(params)
    }
}

/// Checks by the protocol's rules that global parameters suit a network with this epoch, whose tasks live up to `life_ms`.
pub(crate) fn check_global(
    global: &GlobalParams,
    epoch_ms: Millis,
    life_ms: Millis,
) -> Result<(), ParamsFileError> {
    if global.is_valid(epoch_ms, life_ms) {
        Ok(())
    } else {
        Err(ParamsFileError::Global {
            epoch_ms,
            life_ms,
            unbonding_ms: epoch_ms.saturating_mul(2).saturating_add(life_ms),
            leave_ms: life_ms.saturating_add(LEAVE_MS),
            longest_ms: PERIOD_MAX,
        })
    }
}

/// What a parameter of that name means.
fn about(name: &str) -> Option<&'static str> {
    [GlobalFile::ABOUT, KindFile::ABOUT, WeightsFile::ABOUT, LatencyFile::ABOUT, ABOUT_RULES]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == name)
        .map(|(_, about)| *about)
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

    /// The default epoch of a deployment.
    const EPOCH: Millis = 3_600_000;

    fn parse(toml: &str) -> Result<KindParams, ParamsFileError> {
        let file = ParamsFile::parse(toml, false).map_err(|message| ParamsFileError::Syntax {
            path: "test".into(),
            format: "TOML",
            message,
        })?;
        file.kind(1, &KindParams::default(), EPOCH, &Unit::default())
    }

    fn file(params: &KindParams) -> ParamsFile {
        let unit = Unit::default();
        ParamsFile {
            global: Some(GlobalFile::of(&GlobalParams::default(), &unit)),
            kinds: [(1, KindFile::of(params, &unit))].into(),
        }
    }

    /// Parameters in which every rule that has numbers of its own is some kind's.
    fn various() -> Vec<KindParams> {
        let with =
            |merit, trust, aggregation| KindParams { merit, trust, aggregation, ..KindParams::default() };
        let r = Ratio::from_ppb(123_456_789);
        vec![
            KindParams { rubric_hash: [7; 32], tolerance: Ratio::from_ppb(1), ..KindParams::default() },
            KindParams::without_auditors(),
            with(
                MeritRule::Closeness,
                TrustRule::Multiplicative { eta: r },
                Aggregation::TrimmedMean { trim: r },
            ),
            with(
                MeritRule::Information { step: r, floor: r },
                TrustRule::Centred { up: r, down: r },
                Aggregation::Mean,
            ),
            with(MeritRule::Closeness, TrustRule::Anchored { rate: r }, Aggregation::TrustWeightedMean),
            with(MeritRule::Closeness, TrustRule::Anchored { rate: r }, Aggregation::TrustWeightedMedian),
        ]
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for params in various() {
            let written = file(&params);
            for json in [true, false] {
                let text =
                    if json { serde_json::to_string(&written).unwrap() } else { written.toml().unwrap() };
                assert!(!text.contains("serde_json"), "{text}");
                let read = ParamsFile::parse(&text, json).unwrap();
                assert_eq!(read, written, "{text}");
                let unit = Unit::default();
                assert_eq!(read.kind(1, &KindParams::default(), EPOCH, &unit).unwrap(), params, "{text}");
                let other = GlobalParams { unbonding_ms: 1, audit_bond: 1, ..GlobalParams::default() };
                assert_eq!(read.global(&other, &unit).unwrap(), GlobalParams::default());
            }
        }
    }

    /// Whatever is shown is explained: no line with a value stands without a comment above it.
    #[test]
    fn every_parameter_is_explained() {
        for params in various() {
            let text = file(&params).toml().unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (above, line) in lines.iter().zip(&lines[1..]) {
                if line.contains(" = ") && !line.starts_with('#') {
                    assert!(above.starts_with("# "), "{line} of\n{text}");
                }
            }
        }
    }

    #[test]
    fn a_kind_may_leave_parameters_out() {
        let params = parse(
            "[kinds.1]\ntolerance = 0.05\nstake_min = \"225\"\nquorum = 1\nmerit = \"closeness\"\n\
             inference_weights.beta = 0.25\naudit_ms = 120_000\nstake_cap = 2000\nprice_cap = 0.5\n\
             aggregation = { trimmed_mean = { trim = 0.2 } }",
        )
        .unwrap();
        let default = KindParams::default();
        assert_eq!(params.tolerance, Ratio::from_permille(50));
        assert_eq!(params.stake_min, 225_000_000_000_000);
        assert_eq!(params.stake_cap, 2_000_000_000_000_000);
        assert_eq!(params.price_cap, 500_000_000_000);
        assert_eq!(params.audit_ms, 120_000);
        assert_eq!(params.quorum, Ratio::ONE);
        assert_eq!(params.merit, MeritRule::Closeness);
        assert_eq!(params.inference_weights.alpha, default.inference_weights.alpha);
        assert_eq!(params.inference_weights.beta, Ratio::from_permille(250));
        assert_eq!(params.aggregation, Aggregation::TrimmedMean { trim: Ratio::from_permille(200) });
        assert_eq!(params.panel_min, default.panel_min);
    }

    #[test]
    fn wrong_parameters_are_named() {
        let message = |toml: &str| parse(toml).unwrap_err().to_string();
        assert!(message("[kinds.1]\ntolerence = 0.05").contains("unknown field `tolerence`"));
        assert!(message("[kinds.1]\ntolerance = 5").contains("between 0 and 1"));
        assert!(message("[kinds.1]\ntolerance = -0.1").contains("between 0 and 1"));
        assert!(message("[kinds.1]\ntolerance = 0.12345678901").contains("9 digits"));
        assert!(message("[kinds.1]\nstake_min = \"ten\"").contains("stake_min"));
        assert!(message("[kinds.1]\nstake_min = \"0.0000000000001\"").contains("kinds.1.stake_min"));
        assert!(message("[kinds.1]\nrubric_hash = \"0x12\"").contains("64 hexadecimal"));
        assert!(message("[kinds.1]\nmerit = \"best\"").contains("best"));
        assert!(message("[kinds.1]\ninference_ms = \"long\"").contains("inference_ms"));
        assert!(message("[kinds.1]\nstake_min = \"2000\"").contains("stake_min must be"));
        assert!(message("[kinds.1]\nfee_max = 1000").contains("stake_min / 16"));
        assert!(message("[kinds.1]\ncommit_ms = 3_600_000").contains("epoch_ms"));
        assert!(message("[kind.1]\n").contains("kind"));
        assert!(message("[kinds.1\n").contains("line 1"));
        let json = |text: &str| ParamsFile::parse(text, true).unwrap_err();
        assert!(json(r#"{"kinds": {"1": {"tolerance": 3}}}"#).contains("between 0 and 1"));
        assert!(json(r#"{"kinds": {"1": {"stake_min": 3}}}"#).contains("an amount such as"));
    }

    #[test]
    fn changes_are_told_by_value() {
        let unit = Unit::default();
        let old = KindFile::of(&KindParams::default(), &unit);
        let new = KindParams {
            tolerance: Ratio::from_permille(20),
            merit: MeritRule::Closeness,
            ..KindParams::default()
        };
        let changes = old.changes(&KindFile::of(&new, &unit));
        assert!(changes.contains(&"tolerance: 0.01 -> 0.02".to_owned()), "{changes:?}");
        assert!(changes.contains(&"merit: none -> \"closeness\"".to_owned()), "{changes:?}");
        assert!(changes.contains(&"merit.information.step: 0.02 -> none".to_owned()), "{changes:?}");
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert_eq!(old.changes(&old), Vec::<String>::new());
    }

    /// What a [global] table leaves out stays as it is, and what cannot be is told with the bounds.
    #[test]
    fn global_parameters_are_checked_beside_the_longest_task() {
        let unit = Unit::default();
        let file =
            ParamsFile::parse("[global]\nunbonding_ms = 7_200_000\naudits_per_epoch = 3\n", false).unwrap();
        let default = GlobalParams::default();
        let global = file.global(&default, &unit).unwrap();
        assert_eq!(global, GlobalParams { unbonding_ms: 7_200_000, audits_per_epoch: 3, ..default });
        assert_eq!(
            GlobalFile::of(&default, &unit).changes(&GlobalFile::of(&global, &unit)),
            ["unbonding_ms: 86400000 -> 7200000", "audits_per_epoch: 64 -> 3"]
        );
        check_global(&default, EPOCH, KindParams::default().life_ms()).unwrap();
        let error = check_global(&global, EPOCH, 1_000).unwrap_err().to_string();
        assert!(error.contains("unbonding_ms must be at least 7201000"), "{error}");
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
        // The shortest decimal form of the nearest double is the decimal: for these, and for a sample of all.
        for ppb in
            [0, 1, 3, 333_333_333, 999_999_999, 1_000_000_000].into_iter().chain((0..ONE).step_by(7_919_111))
        {
            let text = (f64::from(ppb) / f64::from(ONE)).to_string();
            assert_eq!(ratio(&text).map(Ratio::ppb), Some(ppb), "{text}");
        }
    }
}
