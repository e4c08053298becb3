//! What can go wrong with a model, in words an operator can act on.

use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The script that installs models; errors about missing files name it.
pub const INSTALL_SCRIPT: &str = "scripts/install-models.sh";

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest has no model of this name.
    #[error("no model is named `{name}`; the manifest has: {}", known.join(", "))]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// The names the manifest has.
        known: Vec<String>,
    },

    /// The manifest knows where the model is, and nobody has fetched it.
    #[error("`{name}` is at the Hugging Face hub ({repo}) and not on this machine: run `poq models add {name}`, which fetches it, pins its hashes and writes its [[models]] section")]
    NotAdded {
        /// The name that was asked for.
        name: String,
        /// The repository that has it.
        repo: String,
    },

    /// A model is configured in a way that it cannot be used.
    #[error("[[models]] `{name}`: {reason}")]
    ModelConfig {
        /// The model's name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },

    /// What was named is no model that can be run.
    #[error("{}: {reason}", path.display())]
    NoModel {
        /// The file or folder.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },

    /// A configuration file cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The model exists but cannot do what was asked of it.
    #[error("model `{name}` is a {found}, but a {expected} is needed here")]
    WrongRole {
        /// The model's name.
        name: String,
        /// What it is.
        found: &'static str,
        /// What was needed.
        expected: &'static str,
    },

    /// A model's file is not on disk.
    #[error("`{model}` is not installed: {} does not exist; run `{INSTALL_SCRIPT} {model}` (it installs into POQ_MODELS_DIR when that is set)", path.display())]
    MissingFile {
        /// The model's name.
        model: String,
        /// The file that was looked for.
        path: PathBuf,
    },

    /// A file that somebody named is not there.
    #[error("{}: no such file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },

    /// A file of texts or prompts is not of a form that can be read.
    #[error("{} line {line}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, and with which field.
        reason: String,
    },

    /// A reference answer that no output could be compared with.
    #[error("the reference answer `{reference}` cannot be used: {reason}")]
    Reference {
        /// The answer.
        reference: String,
        /// Why not.
        reason: String,
    },

    /// A prompt in a language that scores mean nothing in.
    #[error("the {part} is in {found}, but `{rubric}` was calibrated for {calibrated}: its scores would mean nothing; use a task kind with a rubric for the language")]
    UnsupportedLanguage {
        /// The rubric, or the scorer, that was asked.
        rubric: String,
        /// Which part of the prompt: the question, or the context.
        part: &'static str,
        /// The language it is in.
        found: String,
        /// The languages that scores were calibrated for.
        calibrated: String,
    },

    /// A file is shorter or longer than the manifest says.
    #[error("{} has {found} bytes where the manifest says {expected}: it is truncated or not the file it claims to be; delete it and run `{INSTALL_SCRIPT}` again", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The size the manifest says, in bytes.
        expected: u64,
        /// The size found, in bytes.
        found: u64,
    },

    /// A file's content is not what the manifest pins.
    #[error("{} has sha256 {found} where the manifest pins {expected}: refused; delete it and run `{INSTALL_SCRIPT}` again", path.display())]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The hash the manifest pins, hexadecimal.
        expected: String,
        /// The hash found, hexadecimal.
        found: String,
    },

    /// The manifest itself cannot be used.
    #[error("the model manifest {origin} is not valid: {reason}")]
    Manifest {
        /// Where the manifest came from.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A rubric cannot be scored by.
    #[error("the rubric {origin} cannot be used: {reason}")]
    Rubric {
        /// Its file or name.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The chain prescribes another rubric than the one at hand.
    #[error("the rubric `{name}` has the hash {found}, but the chain prescribes {prescribed} for this kind of task: scores by another rubric would be wrong; get the rubric with that hash from whoever runs the contract")]
    OtherRubric {
        /// The rubric at hand.
        name: String,
        /// Its hash.
        found: String,
        /// The hash on chain.
        prescribed: String,
    },

    /// A judge could not be asked, or gave no usable answer.
    #[error("judge `{judge}`: {reason}")]
    Judge {
        /// The judge's name.
        judge: String,
        /// What failed.
        reason: String,
    },

    /// A prompt, with the answer it asks for, does not fit into the model's context.
    #[error("the prompt has {tokens} tokens, but at most {limit} fit beside the answer that was asked for")]
    PromptTooLong {
        /// The prompt's length in tokens.
        tokens: usize,
        /// The most tokens a prompt may have with this `max_tokens`.
        limit: usize,
    },

    /// A prompt is refused before it is tokenised.
    #[error("the prompt has {bytes} bytes, the limit is {limit}")]
    PromptTooLarge {
        /// The prompt's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// A request makes no sense, whatever the model.
    #[error("invalid request: {0}")]
    InvalidRequest(String),

    /// The model's queue is full: try again later.
    #[error("model `{model}` has {queue} requests waiting, which is its limit: try again later")]
    Overloaded {
        /// The model's name.
        model: String,
        /// The queue's length.
        queue: usize,
    },

    /// The model's thread has ended.
    #[error("model `{model}` has been stopped")]
    Stopped {
        /// The model's name.
        model: String,
    },

    /// The model panicked while it served this request; it is loaded again for the next one.
    #[error("model `{model}` panicked: {message}")]
    Panicked {
        /// The model's name.
        model: String,
        /// What the panic said.
        message: String,
    },

    /// The model could not be loaded again after it failed.
    #[error("model `{model}` is unhealthy and serves nothing: {reason}")]
    Unhealthy {
        /// The model's name.
        model: String,
        /// Why.
        reason: String,
    },

    /// A model's file has the right hash but cannot be loaded, or a computation failed.
    #[error("model `{model}`: {reason}")]
    Model {
        /// The model's name.
        model: String,
        /// What failed.
        reason: String,
    },

    /// The device asked for is not in this build or not in this machine.
    #[error("device `{device}` cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why not.
        reason: String,
    },

    /// None of a file's sources could provide it.
    #[error("{file} of `{model}` could not be installed from any source:\n{}", attempts.iter().map(|a| format!("  - {a}")).collect::<Vec<_>>().join("\n"))]
    NoSource {
        /// The model's (or data set's) name.
        model: String,
        /// The file.
        file: String,
        /// Each source and why it failed.
        attempts: Vec<String>,
    },

    /// Something went wrong while a model was fetched or converted.
    #[error("{0}")]
    Install(String),

    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed later, on this model, unchanged.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::Panicked { .. })
    }

    /// Whether what is at fault is what somebody wrote or named: a command, a configuration, a file that is no model.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::UnknownModel { .. }
                | Self::NotAdded { .. }
                | Self::ModelConfig { .. }
                | Self::NoModel { .. }
                | Self::NoFile { .. }
                | Self::Config { .. }
                | Self::Device { .. }
                | Self::InvalidRequest(_)
        )
    }

    /// Whether the request itself is at fault: no model state and no retry would help.
    pub fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::PromptTooLong { .. }
                | Self::PromptTooLarge { .. }
                | Self::InvalidRequest(_)
                | Self::UnsupportedLanguage { .. }
        )
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    #[cfg(feature = "candle")]
    pub(crate) fn model(model: &str, reason: impl std::fmt::Display) -> Self {
        Self::Model { model: model.to_string(), reason: reason.to_string() }
    }
}
