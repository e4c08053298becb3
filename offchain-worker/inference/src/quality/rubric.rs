//! A rubric: how the outputs of one kind of task are scored, as a file with a hash.
//!
//! The hash is a parameter of the task kind on chain, so that all evaluators of a task score by the same rule. A rubric has
//! one profile per evaluator model: a panel is worth more votes when its models differ, and each model's raw scores lie on
//! another scale, which the profile's calibration undoes.

use super::{
    agreement::AmongOutputs,
    alignment::{Evidence, Relevance, RelevantEvidence},
    calibration::Calibration,
    composite::composite,
    language,
    priors::{Prior, PriorTable},
    semantic::{ToPeers, ToQuery},
    structure::{structure, Length, Structure, UsualLength},
    support::Support,
    unit, Case, Dimension, Output, QualityScorer, Query, SharedCrossEncoder, SharedEncoder, Suite,
};
use crate::{
    data::{read_text, TaskKind},
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    manifest::ModelDigest,
};
use blake2::{
    digest::{consts::U32, Digest},
    Blake2b,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::Path, str::FromStr, sync::Arc};

/// The form that this program reads and writes.
const FORMAT: &str = "poq/rubric/v1";

/// A rubric's name on chain: the blake2b-256 of its canonical JSON (RFC 8785).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RubricHash(pub [u8; 32]);

impl fmt::Display for RubricHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl FromStr for RubricHash {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        parse_hex(s).map(Self)
    }
}

fn parse_hex(s: &str) -> std::result::Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(s.strip_prefix("0x").unwrap_or(s), &mut bytes)
        .map_err(|e| format!("`{s}` is not 0x and 64 hexadecimal digits: {e}"))?;
    Ok(bytes)
}

/// The dimensions that a rubric can weigh: those that need no reference answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// [`Prior::model`].
    ModelPrior,
    /// [`Prior::cost`].
    CostPrior,
    /// [`Structure`].
    Structure,
    /// [`Length`].
    Length,
    /// [`ToPeers`]; of a bi-encoder.
    SemanticPeers,
    /// [`ToQuery`]; of a bi-encoder.
    SemanticQuery,
    /// [`Relevance`]; of a cross-encoder.
    Relevance,
    /// [`Evidence`] or [`RelevantEvidence`].
    Evidence,
    /// [`Support`].
    Support,
    /// [`AmongOutputs`].
    AgreementOutputs,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 10] = [
        Self::ModelPrior,
        Self::CostPrior,
        Self::Structure,
        Self::Length,
        Self::SemanticPeers,
        Self::SemanticQuery,
        Self::Relevance,
        Self::Evidence,
        Self::Support,
        Self::AgreementOutputs,
    ];

    /// The signal's name in files and tables; a dimension's name is this, and after a slash the model.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelPrior => "model-prior",
            Self::CostPrior => "cost-prior",
            Self::Structure => "structure",
            Self::Length => "length",
            Self::SemanticPeers => "semantic-peers",
            Self::SemanticQuery => "semantic-query",
            Self::Relevance => "relevance",
            Self::Evidence => "evidence",
            Self::Support => "support",
            Self::AgreementOutputs => "agreement-outputs",
        }
    }

    /// Whether an evaluator that runs a cross-encoder (else: a bi-encoder) can measure it.
    pub fn fits(self, cross_encoder: bool) -> bool {
        match self {
            Self::SemanticPeers | Self::SemanticQuery => !cross_encoder,
            Self::Relevance => cross_encoder,
            _ => true,
        }
    }
}

/// What is known of one answering model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPriors {
    /// Its name, for people.
    pub model: String,
    /// Its name on chain: 0x and 64 hexadecimal digits.
    pub digest: String,
    /// Its chance, in [0, 1], of winning against the mean model.
    pub quality: f64,
    /// Its quality per cost relative to the most efficient model, in [0, 1].
    pub cost: f64,
}

/// How an evaluator that runs one model scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The evaluator's model, for people.
    pub model: String,
    /// Its name on chain: 0x and 64 hexadecimal digits.
    pub digest: String,
    /// The weights; they need not add up to 1.
    pub weights: BTreeMap<Signal, f64>,
    /// Puts the composite onto the scale of the reference signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// How the outputs of one kind of task are scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    /// `poq/rubric/v1`.
    pub format: String,
    /// A name for people.
    pub name: String,
    /// What kind of answer it is for.
    pub task: TaskKind,
    /// The languages it was calibrated for, as ISO 639-3 has them; English where the file does not say. A prompt in another
    /// one is not scored.
    #[serde(default = "english", skip_serializing_if = "is_english")]
    pub languages: Vec<String>,
    /// What it was calibrated on, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// An output whose structure is below this gets proportionally less, whatever its other dimensions say: an echo of the
    /// prompt has all its words borne out by the context. In (0, 1].
    pub gate: f64,
    /// How long answers usually are; `length` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_length: Option<UsualLength>,
    /// What is known of answering models; the priors need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prior: Vec<ModelPriors>,
    /// One per evaluator model.
    pub profile: Vec<Profile>,
}

fn english() -> Vec<String> {
    vec![language::ENGLISH.to_string()]
}

fn is_english(languages: &[String]) -> bool {
    languages == [language::ENGLISH]
}

impl Rubric {
    /// An empty rubric of the present form; it needs profiles.
    pub fn new(name: impl Into<String>, task: TaskKind) -> Self {
        Self {
            format: FORMAT.to_string(),
            name: name.into(),
            task,
            languages: english(),
            origin: String::new(),
            gate: 0.5,
            usual_length: None,
            prior: Vec::new(),
            profile: Vec::new(),
        }
    }

    /// The rubric that ships with this build for a kind of task: what measured best, see `docs/experiments.md`.
    pub fn builtin(task: TaskKind) -> Self {
        let text = match task {
            TaskKind::Qa => include_str!("../../rubrics/qa.toml"),
            TaskKind::Summarisation => include_str!("../../rubrics/summarisation.toml"),
        };
        match Self::parse(text, "built in") {
            Ok(rubric) => rubric,
            // The text is part of the program and a test parses it: this cannot be reached from outside.
            Err(error) => unreachable!("the built-in rubric does not parse: {error}"),
        }
    }

    /// The rubric that ships with this build and has this hash, if one has: what a task kind on chain names.
    pub fn builtin_with_hash(hash: RubricHash) -> Option<Self> {
        TaskKind::ALL.into_iter().map(Self::builtin).find(|rubric| rubric.hash().is_ok_and(|own| own == hash))
    }

    /// Whether scores by it mean something for this prompt: to be asked before a task is paid for, and before it is scored.
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`], which names the language of the question or the context.
    pub fn supports(&self, query: &Query) -> Result<()> {
        language::check(&self.name, query, &self.languages)
    }

    /// Reads a rubric and checks it.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML of this form, or could not be scored by.
    pub fn from_path(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`Rubric::from_path`], of a text; `origin` is named in errors.
    ///
    /// # Errors
    /// When it is no TOML of this form, or could not be scored by.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Rubric { origin: origin.to_string(), reason };
        let rubric: Self = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        match rubric.problem() {
            Some(problem) => Err(invalid(problem)),
            None => Ok(rubric),
        }
    }

    /// The file's text, its hash in a comment.
    ///
    /// # Errors
    /// When it could not be scored by.
    pub fn to_toml(&self) -> Result<String> {
        let invalid = |reason: String| Error::Rubric { origin: self.name.clone(), reason };
        if let Some(problem) = self.problem() {
            return Err(invalid(problem));
        }
        let text = toml::to_string(self).map_err(|e| invalid(e.to_string()))?;
        Ok(format!("# rubric_hash = \"{}\"\n{text}", self.hash()?))
    }

    /// Its canonical bytes: JSON by RFC 8785, which any language can make (comments, order and spelling of the file do not
    /// count).
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>> {
        serde_json_canonicalizer::to_vec(self)
            .map_err(|e| Error::Rubric { origin: self.name.clone(), reason: e.to_string() })
    }

    /// Its name on chain.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn hash(&self) -> Result<RubricHash> {
        Ok(RubricHash(Blake2b::<U32>::digest(self.canonical_bytes()?).into()))
    }

    /// Refuses to score by this rubric where the chain prescribes another.
    ///
    /// # Errors
    /// [`Error::OtherRubric`], which names both.
    pub fn expect_hash(&self, prescribed: RubricHash) -> Result<()> {
        let found = self.hash()?;
        if found == prescribed {
            return Ok(());
        }
        Err(Error::OtherRubric {
            name: self.name.clone(),
            found: found.to_string(),
            prescribed: prescribed.to_string(),
        })
    }

    /// The profile of an evaluator that runs this model.
    pub fn profile_of(&self, digest: ModelDigest) -> Option<&Profile> {
        self.profile.iter().find(|p| parse_hex(&p.digest).is_ok_and(|known| known == digest.0))
    }

    fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("format is `{}`, this program reads `{FORMAT}`", self.format));
        }
        if !(self.gate > 0.0 && self.gate <= 1.0) {
            return Some(format!("gate is {}, it must be in (0, 1]", self.gate));
        }
        if let Some(unknown) = self.languages.iter().find(|code| !language::is_known(code)) {
            return Some(format!("languages: `{unknown}` is no language of ISO 639-3 that can be told"));
        }
        if self.languages.is_empty() {
            return Some("languages is empty, so it could score nothing".to_string());
        }
        if let Some(UsualLength { low, high }) = self.usual_length {
            if !(low >= 1.0 && high >= low && high.is_finite()) {
                return Some(format!("usual_length is {low} to {high}: at least 1 and rising"));
            }
        }
        if self.profile.is_empty() {
            return Some("it has no profile, so no evaluator could score by it".to_string());
        }
        let in_range = |v: f64| (0.0..=1.0).contains(&v);
        for prior in &self.prior {
            if let Err(reason) = parse_hex(&prior.digest) {
                return Some(format!("prior of {}: {reason}", prior.model));
            }
            if !in_range(prior.quality) || !in_range(prior.cost) {
                return Some(format!("prior of {}: values must lie in [0, 1]", prior.model));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for profile in &self.profile {
            let digest = match parse_hex(&profile.digest) {
                Ok(digest) => digest,
                Err(reason) => return Some(format!("profile {}: {reason}", profile.model)),
            };
            if !seen.insert(digest) {
                return Some(format!("profile {}: its digest appears twice", profile.model));
            }
            if let Some(problem) = self.problem_of(profile) {
                return Some(format!("profile {}: {problem}", profile.model));
            }
        }
        None
    }

    fn problem_of(&self, profile: &Profile) -> Option<String> {
        let weighed = |signal: Signal| profile.weights.get(&signal).is_some_and(|w| *w > 0.0);
        if !profile.weights.values().all(|w| w.is_finite() && *w >= 0.0) {
            return Some("weights must be finite and at least 0".to_string());
        }
        if !profile.weights.values().any(|w| *w > 0.0) {
            return Some("no weight is above 0".to_string());
        }
        if weighed(Signal::Length) && self.usual_length.is_none() {
            return Some("it weighs `length`, but the rubric has no usual_length".to_string());
        }
        if (weighed(Signal::ModelPrior) || weighed(Signal::CostPrior)) && self.prior.is_empty() {
            return Some("it weighs a prior, but the rubric has none".to_string());
        }
        profile.calibration.as_ref().and_then(Calibration::problem).map(|p| format!("calibration: {p}"))
    }

    fn priors(&self, of: fn(&ModelPriors) -> f64) -> PriorTable {
        PriorTable(self.prior.iter().filter_map(|p| Some((parse_hex(&p.digest).ok()?, of(p)))).collect())
    }
}

/// An evaluator's encoder.
pub enum ScoringEncoder {
    /// One vector per text.
    Bi(Box<dyn Encoder>),
    /// One number per pair.
    Cross(Box<dyn CrossEncoder>),
}

enum Shared {
    Bi(SharedEncoder),
    Cross(SharedCrossEncoder),
}

/// Scores by a rubric.
pub struct RubricScorer {
    rubric: Arc<Rubric>,
    hash: RubricHash,
    name: String,
    digest: ModelDigest,
    weights: Vec<f64>,
    calibration: Option<Calibration>,
    suite: Suite,
}

impl RubricScorer {
    /// A scorer on this encoder.
    ///
    /// # Errors
    /// [`Error::Rubric`] where the rubric has no profile for the encoder's model, or one that this encoder cannot measure.
    pub fn new(rubric: Arc<Rubric>, encoder: ScoringEncoder) -> Result<Self> {
        let encoder = match encoder {
            ScoringEncoder::Bi(encoder) => Shared::Bi(SharedEncoder::new(encoder)),
            ScoringEncoder::Cross(encoder) => Shared::Cross(SharedCrossEncoder::new(encoder)),
        };
        let (name, digest, cross) = match &encoder {
            Shared::Bi(encoder) => (encoder.name().to_string(), encoder.digest(), false),
            Shared::Cross(encoder) => (encoder.name(), encoder.digest(), true),
        };
        let invalid = |reason: String| Error::Rubric { origin: rubric.name.clone(), reason };
        let profile = rubric.profile_of(digest).ok_or_else(|| {
            let known: Vec<&str> = rubric.profile.iter().map(|p| p.model.as_str()).collect();
            invalid(format!(
                "it has no profile for the evaluator model {name} ({digest}); it has: {}",
                known.join(", ")
            ))
        })?;
        if let Some(problem) = rubric.problem() {
            return Err(invalid(problem));
        }
        let mut weights = Vec::new();
        let mut dimensions = Vec::new();
        for (signal, weight) in profile.weights.iter().filter(|(_, weight)| **weight > 0.0) {
            let dimension = dimension(*signal, &encoder, &rubric).ok_or_else(|| {
                let kind = if cross { "cross-encoder" } else { "bi-encoder" };
                invalid(format!("profile {name}: `{}` cannot be measured with a {kind}", signal.as_str()))
            })?;
            weights.push(*weight);
            dimensions.push(dimension);
        }
        let calibration = profile.calibration.clone();
        let hash = rubric.hash()?;
        Ok(Self { rubric, hash, name, digest, weights, calibration, suite: Suite::new(dimensions) })
    }

    /// The rubric.
    pub fn rubric(&self) -> &Rubric {
        &self.rubric
    }
}

/// The dimension behind a signal; `None` where this encoder cannot measure it.
fn dimension(signal: Signal, encoder: &Shared, rubric: &Rubric) -> Option<Box<dyn Dimension>> {
    Some(match (signal, encoder) {
        (Signal::ModelPrior, _) => Box::new(Prior::model(rubric.priors(|p| p.quality))),
        (Signal::CostPrior, _) => Box::new(Prior::cost(rubric.priors(|p| p.cost))),
        (Signal::Structure, _) => Box::new(Structure),
        (Signal::Length, _) => Box::new(Length(rubric.usual_length?)),
        (Signal::Support, _) => Box::new(Support),
        (Signal::AgreementOutputs, _) => Box::new(AmongOutputs),
        (Signal::SemanticPeers, Shared::Bi(encoder)) => Box::new(ToPeers::new(encoder.clone())),
        (Signal::SemanticQuery, Shared::Bi(encoder)) => Box::new(ToQuery::new(encoder.clone())),
        (Signal::Evidence, Shared::Bi(encoder)) => Box::new(Evidence::new(encoder.clone())),
        (Signal::Evidence, Shared::Cross(encoder)) => Box::new(RelevantEvidence::new(encoder.clone())),
        (Signal::Relevance, Shared::Cross(encoder)) => Box::new(Relevance::new(encoder.clone())),
        (Signal::SemanticPeers | Signal::SemanticQuery, Shared::Cross(_))
        | (Signal::Relevance, Shared::Bi(_)) => return None,
    })
}

/// The factor by which an output's structure cuts its score: 1 from `gate` on, below in proportion.
pub fn gate_factor(query: &Query, output: &str, gate: f64) -> f64 {
    unit(structure(query, output) / gate)
}

impl QualityScorer for RubricScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> ModelDigest {
        self.digest
    }

    fn score(&mut self, query: &Query, outputs: &[String]) -> Result<Vec<f64>> {
        let outputs: Vec<Output> = outputs.iter().cloned().map(Output::from).collect();
        self.score_outputs(query, &outputs)
    }

    fn score_outputs(&mut self, query: &Query, outputs: &[Output]) -> Result<Vec<f64>> {
        let case = Case { kind: self.rubric.task, query, outputs, references: &[] };
        let measured = self.suite.measure(&case)?;
        let score = |i: usize| {
            let parts = self.weights.iter().zip(&measured).map(|(weight, m)| (*weight, m.values[i]));
            let raw = composite(parts).unwrap_or(0.0);
            let quality = self.calibration.as_ref().map_or(raw, |calibration| calibration.apply(raw));
            unit(quality * gate_factor(query, &outputs[i].text, self.rubric.gate))
        };
        Ok((0..outputs.len()).map(score).collect())
    }

    fn rubric_hash(&self) -> Option<RubricHash> {
        Some(self.hash)
    }

    fn supports(&self, query: &Query) -> Result<()> {
        self.rubric.supports(query)
    }
}

/// Loads an evaluator's model as a scorer by a rubric.
///
/// # Errors
/// Those of [`crate::load_encoder`]; [`Error::Rubric`] where the rubric has no profile for the model.
#[cfg(feature = "candle")]
pub fn load_rubric_scorer(
    store: &crate::ModelStore,
    rubric: Arc<Rubric>,
    name: &str,
    options: &crate::LoadOptions,
) -> Result<RubricScorer> {
    let entry = store.manifest().get(name)?;
    let encoder = match entry.role {
        crate::Role::BiEncoder => ScoringEncoder::Bi(crate::load_encoder(store, name, options)?),
        crate::Role::CrossEncoder => ScoringEncoder::Cross(crate::load_cross_encoder(store, name, options)?),
        crate::Role::Generator => {
            return Err(Error::WrongRole {
                name: name.to_string(),
                found: entry.role.as_str(),
                expected: "bi-encoder or cross-encoder",
            })
        }
    };
    RubricScorer::new(rubric, encoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::embed::fakes::{CommonWords, Letters};

    fn letters() -> ScoringEncoder {
        ScoringEncoder::Bi(Box::new(Letters(Arc::default())))
    }

    fn rubric() -> Rubric {
        let hex = |byte: u8| format!("0x{}", hex::encode([byte; 32]));
        Rubric {
            usual_length: Some(UsualLength { low: 1.0, high: 8.0 }),
            prior: vec![ModelPriors { model: "m".into(), digest: hex(7), quality: 1.0, cost: 0.5 }],
            profile: vec![
                Profile {
                    model: "letters".into(),
                    digest: hex(1),
                    weights: [
                        (Signal::SemanticPeers, 0.5),
                        (Signal::Structure, 0.25),
                        (Signal::ModelPrior, 0.25),
                    ]
                    .into(),
                    calibration: Some(Calibration::Linear { slope: 0.5, intercept: 0.25 }),
                },
                Profile {
                    model: "common-words".into(),
                    digest: hex(2),
                    weights: [(Signal::Relevance, 1.0), (Signal::Length, 1.0)].into(),
                    calibration: None,
                },
            ],
            ..Rubric::new("test", TaskKind::Qa)
        }
    }

    #[test]
    fn a_file_gives_the_same_rubric_and_hash() {
        let rubric = rubric();
        let text = rubric.to_toml().unwrap();
        let read = Rubric::parse(&text, "test").unwrap();
        assert_eq!(read, rubric);
        assert_eq!(read.hash().unwrap(), rubric.hash().unwrap());
        assert!(text.contains(&rubric.hash().unwrap().to_string()));
        let mut other = rubric.clone();
        other.profile[0].weights.insert(Signal::Structure, 0.250_000_1);
        assert_ne!(other.hash().unwrap(), rubric.hash().unwrap());
        assert_eq!(rubric.hash().unwrap().to_string().parse::<RubricHash>().unwrap(), rubric.hash().unwrap());
    }

    #[test]
    fn the_built_in_rubrics_are_for_models_of_the_manifest() {
        let manifest = crate::Manifest::builtin();
        for task in TaskKind::ALL {
            let rubric = Rubric::builtin(task);
            assert_eq!(rubric.task, task);
            for profile in &rubric.profile {
                let entry = manifest.get(&profile.model).unwrap();
                assert_eq!(profile.digest, entry.digest().to_string(), "{}", profile.model);
            }
        }
    }

    #[test]
    fn the_canonical_bytes_are_fixed() {
        // Another implementation must come to the same bytes: keys sorted, numbers as ECMAScript writes them.
        let mut rubric = Rubric::new("n", TaskKind::Qa);
        rubric.profile = vec![Profile {
            model: "m".into(),
            digest: format!("0x{}", "01".repeat(32)),
            weights: [(Signal::Structure, 1.0), (Signal::Evidence, 0.1)].into(),
            calibration: None,
        }];
        let expected = format!(
            r#"{{"format":"poq/rubric/v1","gate":0.5,"name":"n","profile":[{{"digest":"0x{}","model":"m","weights":{{"evidence":0.1,"structure":1}}}}],"task":"qa"}}"#,
            "01".repeat(32)
        );
        assert_eq!(String::from_utf8(rubric.canonical_bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_prompt_in_another_language_is_refused_by_name() {
        let foreign = Query { context: String::new(), question: "法国的首都是哪里？".into() };
        let native = Query { context: String::new(), question: "What is the capital of France?".into() };
        let shipped = Rubric::builtin(TaskKind::Qa);
        assert_eq!(Rubric::builtin_with_hash(shipped.hash().unwrap()).unwrap(), shipped);
        assert!(Rubric::builtin_with_hash(RubricHash([9; 32])).is_none());
        shipped.supports(&native).unwrap();
        let error = shipped.supports(&foreign).unwrap_err();
        assert!(error.is_bad_request());
        let error = error.to_string();
        assert!(["question", "Mandarin", "qa", "English"].iter().all(|w| error.contains(w)), "{error}");
        let scorer = RubricScorer::new(Arc::new(rubric()), letters()).unwrap();
        assert!(scorer.supports(&native).is_ok() && scorer.supports(&foreign).is_err());

        let chinese = Rubric { languages: vec!["cmn".into()], ..rubric() };
        chinese.supports(&foreign).unwrap();
        // What a rubric is for is part of its hash; files from before say nothing and are for English.
        assert_ne!(chinese.hash().unwrap(), rubric().hash().unwrap());
        assert_eq!(Rubric::parse(&chinese.to_toml().unwrap(), "x").unwrap(), chinese);
        let unknown = Rubric { languages: vec!["klingon".into()], ..rubric() };
        assert!(unknown.to_toml().unwrap_err().to_string().contains("klingon"));
    }

    #[test]
    fn another_rubric_is_refused_by_name() {
        let rubric = rubric();
        rubric.expect_hash(rubric.hash().unwrap()).unwrap();
        let error = rubric.expect_hash(RubricHash([9; 32])).unwrap_err().to_string();
        assert!(error.contains("0x0909") && error.contains(&rubric.hash().unwrap().to_string()), "{error}");
    }

    #[test]
    fn what_cannot_be_scored_by_is_refused() {
        let broken = |change: fn(&mut Rubric)| {
            let mut rubric = rubric();
            change(&mut rubric);
            let text = toml::to_string(&rubric).unwrap();
            Rubric::parse(&text, "file.toml").unwrap_err().to_string()
        };
        for (message, change) in [
            ("format", (|r| r.format = "v0".into()) as fn(&mut Rubric)),
            ("gate", |r| r.gate = 0.0),
            ("no profile", |r| r.profile.clear()),
            ("usual_length", |r| r.usual_length = None),
            ("prior", |r| r.prior.clear()),
            ("at least 0", |r| r.profile[0].weights.values_mut().for_each(|w| *w = -1.0)),
            ("no weight", |r| r.profile[0].weights.clear()),
            ("twice", |r| r.profile[1].digest = r.profile[0].digest.clone()),
            ("hexadecimal", |r| r.profile[1].digest = "0x12".into()),
            ("calibration", |r| r.profile[0].calibration = Some(Calibration::Monotone { knots: vec![] })),
        ] {
            let error = broken(change);
            assert!(error.contains(message) && error.contains("file.toml"), "{message}: {error}");
        }
        assert!(Rubric::parse("name = 1", "x").is_err());
        let unknown = rubric().to_toml().unwrap() + "\nsurprise = 1\n";
        assert!(Rubric::parse(&unknown, "x").is_err());
    }

    #[test]
    fn an_encoder_without_a_profile_is_told_so() {
        let mut without = rubric();
        without.profile.remove(0);
        let error = RubricScorer::new(Arc::new(without), letters()).err().unwrap().to_string();
        assert!(error.contains("letters") && error.contains("common-words"), "{error}");
        let mut wrong = rubric();
        wrong.profile[0].weights.insert(Signal::Relevance, 1.0);
        let error = RubricScorer::new(Arc::new(wrong), letters()).err().unwrap().to_string();
        assert!(error.contains("relevance") && error.contains("bi-encoder"), "{error}");
    }

    #[test]
    fn scores_are_the_weighted_dimensions_calibrated_and_gated() {
        let rubric = Arc::new(rubric());
        let mut scorer = RubricScorer::new(rubric.clone(), letters()).unwrap();
        assert_eq!(scorer.rubric_hash(), Some(rubric.hash().unwrap()));
        let query = Query { context: String::new(), question: "which".into() };
        let known = Some(ModelDigest([7; 32]));
        let outputs = [
            Output { text: "abc".into(), model: known },
            Output { text: "cab".into(), model: None },
            Output { text: String::new(), model: known },
        ];
        let scores = scorer.score_outputs(&query, &outputs).unwrap();
        // Likeness to peers is (1 + 0) / 2, structure 1, prior 1; then 0.25 + 0.5 x.
        let expected = 0.25 + 0.5 * (0.5 * 0.5 + 0.25 + 0.25);
        assert!((scores[0] - expected).abs() < 1e-6, "{scores:?}");
        // No prior: its weight goes to the others.
        let expected = 0.25 + 0.5 * (0.5 * 0.5 + 0.25) / 0.75;
        assert!((scores[1] - expected).abs() < 1e-6, "{scores:?}");
        // Nothing was said: the offset of the calibration is not for it.
        assert_eq!(scores[2], 0.0);

        let mut scorer = RubricScorer::new(rubric, ScoringEncoder::Cross(Box::new(CommonWords))).unwrap();
        let scores = scorer.score(&query, &["which one".into(), "x".repeat(100)]).unwrap();
        assert!(scores[0] > scores[1], "{scores:?}");
        assert!(scorer.score(&query, &[]).unwrap().is_empty());
    }
}
