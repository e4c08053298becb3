//! Models that a server runs: `endpoint` in `[[models]]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use poq_inference::encode::cosine;
use poq_inference::endpoint::{read_key, Address, Api, Endpoint, EndpointGenerator, Served};
use poq_inference::quality::rubric::{RubricScorer, ScoringEncoder};
use poq_inference::quality::{BiEncoderScorer, CrossEncoderScorer, QualityScorer, Rubric};
use poq_inference::{
    load_cross_encoder, load_encoder, Generator, LoadOptions, Manifest, ModelDigest, ModelEntry, ModelStore,
    ModelThread, Role, ThreadOptions,
};
use serde::{Deserialize, Serialize};

use crate::config::RoleName;
use crate::models::{NodeModel, Thread, QUEUE};

/// Requests that a server is asked at once, where nothing else is said.
const PARALLEL: usize = 8;

/// The pause before a server that is away is asked again.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// What a stand-in's vectors must have in common with the installed model's, as a cosine: sixteen-bit numbers and other code stay
/// far above, another model far below.
const LIKENESS: f64 = 0.99;

/// How far apart logits of the same pair may be.
const LOGITS_APART: f32 = 0.25;

/// Texts that tell one encoder from another, and pairs of them.
const PROBES: [&str; 4] = [
    "The Amazon rainforest covers most of the Amazon basin of South America.",
    "Which country contains most of the Amazon rainforest?",
    "Brazil, with sixty percent of it.",
    "The committee postponed its decision until the next meeting.",
];

/// Where a server runs a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Which API it speaks: `openai` or `tei`.
    pub kind: Api,
    /// Its address: with OpenAI's API what stands before `/chat/completions`, with TEI's what stands before `/embed`.
    pub url: Address,
    /// What it must run, as it names it.
    pub model: String,
    /// Of which version, where the server says one: a commit of the model's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The file with the key, where one is asked for.
    #[serde(
        default,
        deserialize_with = "crate::config::relative_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub key_file: Option<PathBuf>,
    /// Tokens of prompt and answer together, where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<usize>,
}

impl EndpointConfig {
    fn served(&self) -> Served {
        Served { model: self.model.clone(), revision: self.revision.clone() }
    }

    /// What a node that runs the model of this name is registered with: the digest of the manifest's model of that name, whose
    /// stand-in the server then is; else that of what the server runs, as it names it.
    pub fn digest(&self, name: &str, manifest: &Manifest) -> ModelDigest {
        manifest.get(name).map_or_else(|_| self.served().digest(), ModelEntry::digest)
    }

    /// The endpoint.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn open(&self, name: &str, manifest: &Manifest) -> poq_inference::Result<Endpoint> {
        let mut endpoint = Endpoint::new(name, self.kind, self.url.clone(), self.served());
        endpoint.digest = self.digest(name, manifest);
        endpoint.key = self.key_file.as_deref().map(read_key).transpose()?;
        endpoint.context_tokens = self.context_tokens;
        if let Ok(entry) = manifest.get(name) {
            endpoint.query_prefix = entry.query_prefix.clone();
        }
        Ok(endpoint)
    }

    /// What is wrong with it, if anything: the key, the problem, what to do.
    pub(crate) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        if self.model.trim().is_empty() {
            return Some((
                "model",
                "is empty".into(),
                "name the model as the server does: GET /v1/models, or /info",
            ));
        }
        if self.context_tokens == Some(0) {
            return Some(("context_tokens", "is 0".into(), "leave it out to take what the server says"));
        }
        let path = self.key_file.as_deref()?;
        let error = read_key(path).err()?;
        Some(("key_file", format!("cannot be used: {error}"), "write the key into it, or leave it out"))
    }
}

/// What is to be started.
pub(crate) struct Start {
    pub(crate) role: RoleName,
    pub(crate) endpoint: Endpoint,
    pub(crate) rubric: Option<Arc<Rubric>>,
    pub(crate) parallel: Option<usize>,
    pub(crate) store: ModelStore,
}

/// Connects to a server and starts the threads that ask it. Blocks until it has answered, or failed to.
///
/// # Errors
/// Those of [`Endpoint`]; a transient one where the server is away.
pub(crate) fn start(start: &Start) -> poq_inference::Result<(Thread, NodeModel)> {
    let Start { role, endpoint, parallel, .. } = start;
    let parallel = parallel.unwrap_or(PARALLEL).max(1);
    let options = ThreadOptions { queue: QUEUE, parallel, ..ThreadOptions::default() };
    match role {
        RoleName::Inference => {
            let model: EndpointGenerator = endpoint.generator()?;
            let thread = ModelThread::spawn(&endpoint.name, options, move || {
                Ok(Box::new(model.clone()) as Box<dyn Generator>)
            })?;
            let model = NodeModel::Generator(thread.handle());
            Ok((Thread::Generator(thread), model))
        }
        RoleName::Evaluator => {
            let cross = start.is_cross()?;
            start.compare(cross)?;
            let (endpoint, rubric) = (endpoint.clone(), start.rubric.clone());
            let thread = ModelThread::spawn(&start.endpoint.name, options, move || {
                scorer(&endpoint, cross, rubric.clone())
            })?;
            let model = NodeModel::Scorer(thread.handle());
            Ok((Thread::Scorer(thread), model))
        }
    }
}

fn scorer(
    endpoint: &Endpoint,
    cross: bool,
    rubric: Option<Arc<Rubric>>,
) -> poq_inference::Result<Box<dyn QualityScorer>> {
    Ok(match (rubric, cross) {
        (Some(rubric), true) => {
            Box::new(RubricScorer::new(rubric, ScoringEncoder::Cross(endpoint.cross_encoder()?))?)
        }
        (Some(rubric), false) => {
            Box::new(RubricScorer::new(rubric, ScoringEncoder::Bi(endpoint.encoder()?))?)
        }
        (None, true) => Box::new(CrossEncoderScorer::new(endpoint.cross_encoder()?)),
        (None, false) => Box::new(BiEncoderScorer::new(endpoint.encoder()?)),
    })
}

impl Start {
    /// Whether the server runs a cross-encoder: as the manifest says of the model, else as the server does.
    fn is_cross(&self) -> poq_inference::Result<bool> {
        match self.store.manifest().get(&self.endpoint.name) {
            Ok(entry) => Ok(entry.role == Role::CrossEncoder),
            Err(_) => self.endpoint.is_reranker(),
        }
    }

    /// Holds a stand-in to the model that it stands for, where that is installed here.
    fn compare(&self, cross: bool) -> poq_inference::Result<()> {
        let name = &self.endpoint.name;
        if self.store.manifest().get(name).is_err() {
            return Ok(());
        }
        if !self.store.is_installed(name) {
            tracing::warn!(
                model = name,
                "the endpoint is taken at its word that it runs this model: it is not installed here to compare with"
            );
            return Ok(());
        }
        let options = LoadOptions::default();
        if cross {
            let pairs: Vec<(&str, &str)> = PROBES.iter().skip(1).map(|text| (PROBES[1], *text)).collect();
            let (mut own, mut there) =
                (load_cross_encoder(&self.store, name, &options)?, self.endpoint.cross_encoder()?);
            let (own, there) = (own.score(&pairs)?, there.score(&pairs)?);
            let apart = own.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if apart > LOGITS_APART {
                return Err(self
                    .endpoint
                    .other(format!("its logits are {apart} apart from those of the installed model")));
            }
            return Ok(());
        }
        let (mut own, mut there) = (load_encoder(&self.store, name, &options)?, self.endpoint.encoder()?);
        let (own, there) = (own.embed(&PROBES)?, there.embed(&PROBES)?);
        let alike = own.iter().zip(&there).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        if alike < LIKENESS {
            let text = format!("the cosine of its vectors with those of the installed model is {alike:.3}");
            return Err(self.endpoint.other(text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(text: &str) -> Result<EndpointConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stand_in_has_the_digest_of_what_it_stands_for() {
        let manifest = Manifest::builtin();
        let config = config("kind = \"tei\"\nurl = \"http://h:1\"\nmodel = \"org/name\"").unwrap();
        let known = manifest.models()[0].name.clone();
        assert_eq!(config.digest(&known, &manifest), manifest.models()[0].digest());
        let served = Served { model: "org/name".into(), revision: None };
        assert_eq!(config.digest("mine", &manifest), served.digest());
        assert_eq!(config.open("mine", &manifest).unwrap().digest, served.digest());
    }

    #[test]
    fn what_is_no_endpoint_is_refused_and_shows_no_secret() {
        for (text, says) in [
            ("kind = \"grpc\"\nurl = \"http://h\"\nmodel = \"m\"", "openai"),
            ("kind = \"openai\"\nurl = \"http://u:hunter2@h\"\nmodel = \"m\"", "key_file"),
            ("kind = \"openai\"\nurl = \"http://h?k=hunter2\"\nmodel = \"m\"", "key_file"),
            ("kind = \"openai\"\nurl = \"http://h\"", "model"),
            ("kind = \"openai\"\nurl = \"http://h\"\nmodel = \"m\"\nkey = \"hunter2\"", "unknown field"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let empty = config("kind = \"openai\"\nurl = \"http://h\"\nmodel = \" \"").unwrap();
        assert_eq!(empty.problem().unwrap().0, "model");
    }
}
