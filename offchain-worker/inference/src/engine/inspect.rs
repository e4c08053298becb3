//! What a model's files say of it, before anything is computed: every check that loading makes of them, without the weights.

use super::{
    bert, gguf,
    gguf_header::Header,
    safetensors::{self, tensors_of},
    tokenizer::{read_tokenizer, TextCodec},
};
use crate::{
    data::read_text,
    error::{Error, Result},
    manifest::{Architecture, Role},
    store::VerifiedModel,
};
use serde_json::Value as Json;
use std::{collections::BTreeMap, fs::File};
use tokenizers::{ModelWrapper, Tokenizer};

/// The most tokens of context that a model is given where nothing else is said: what tasks need, and what fits.
const USUAL_CONTEXT: usize = 4096;
const USUAL_TEXT: usize = 512;

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// The architecture, as its files spell it.
    pub network: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes of weights as they lie in the files.
    pub weight_bytes: u64,
    /// How many weights are kept in which format, the most first.
    pub formats: Vec<(String, u64)>,
    /// The most tokens that it can see.
    pub trained_context: usize,
    /// The tokens that it is given to see, where nothing else was said.
    pub context: usize,
    /// The kind of its tokenizer.
    pub tokenizer: String,
    /// Tokens that its tokenizer knows.
    pub vocabulary: usize,
    /// Whether it says how a conversation is written.
    pub chat_template: bool,
    /// What its files say of the licence of its weights.
    pub licence: Option<String>,
    /// What runs it on this machine's processor.
    pub engine: &'static str,
    /// Bytes that weights take in memory on the processor.
    resident_bytes: u64,
    /// Bytes of keys and values per token of context, on the processor.
    token_bytes: u64,
}

impl Details {
    /// Bytes of memory that it needs on the processor at a full context: weights, keys and values, its tokenizer, and what it
    /// computes with. An estimate; it is within a seventh of what was measured on the models of the manifest.
    pub fn memory_bytes(&self, context: usize) -> u64 {
        // Tokenizers take most of a kilobyte per token.
        let tokenizer = self.vocabulary as u64 * 900;
        let cache = self.token_bytes.saturating_mul(context as u64);
        (self.resident_bytes + 60_000_000 + tokenizer).saturating_add(cache)
    }

    /// Bytes that weights take in memory on the processor.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// The formats, for people: the one that most weights have, and how many have it.
    pub fn quantisation(&self) -> String {
        let Some((first, count)) = self.formats.first() else { return "nothing".to_string() };
        match self.formats.as_slice() {
            [_] => first.clone(),
            all => {
                let others: Vec<&str> = all[1..].iter().map(|(name, _)| name.as_str()).collect();
                let percent = *count as f64 * 100.0 / self.parameters.max(1) as f64;
                format!("{first} ({percent:.0} % of the weights), {}", others.join(", "))
            }
        }
    }
}

/// What the files of a model say, before their hashes are known.
///
/// # Errors
/// What loading them would say: what is missing, what does not fit together, what there is no code for.
pub(crate) fn inspect(model: &VerifiedModel, context: Option<usize>) -> Result<Details> {
    let entry = model.entry();
    match entry.architecture {
        Architecture::Gguf => of_gguf(model, context),
        Architecture::Safetensors => of_safetensors(model, context),
        Architecture::Bert => of_encoder(model),
    }
}

fn counted(tensors: impl Iterator<Item = (String, u64)>) -> (u64, Vec<(String, u64)>) {
    let mut formats: BTreeMap<String, u64> = BTreeMap::new();
    for (format, count) in tensors {
        *formats.entry(format).or_default() += count;
    }
    let mut formats: Vec<_> = formats.into_iter().collect();
    formats.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    (formats.iter().map(|(_, count)| count).sum(), formats)
}

fn of_gguf(model: &VerifiedModel, context: Option<usize>) -> Result<Details> {
    let name = &model.entry().name;
    let fail = |e: candle_core::Error| Error::model(name, e);
    let path = model.file("model.gguf")?;
    let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
    let header = Header::read(&mut file).map_err(fail)?;
    let network = header.text("general.architecture").unwrap_or_default().to_string();
    let trained = header.whole(&format!("{network}.context_length"));
    let trained_context = trained.and_then(|trained| usize::try_from(trained).ok()).unwrap_or(0);
    let context = context.unwrap_or(trained_context.min(USUAL_CONTEXT));
    let about = gguf::inspect(&header, &mut file, context).map_err(fail)?;
    let codec = TextCodec::from_gguf(model, &header)?;
    let elements = |info: &candle_core::quantized::gguf_file::TensorInfo| info.shape.elem_count() as u64;
    let (parameters, formats) =
        counted(header.tensors.values().map(|info| (format!("{:?}", info.ggml_dtype), elements(info))));
    let bytes = |info: &candle_core::quantized::gguf_file::TensorInfo| {
        elements(info) / info.ggml_dtype.block_size() as u64 * info.ggml_dtype.type_size() as u64
    };
    // What is not quantised is f32 on processors.
    let resident = |info: &candle_core::quantized::gguf_file::TensorInfo| match info.ggml_dtype.block_size() {
        1 => elements(info) * 4,
        _ => bytes(info),
    };
    let pre = header.text("tokenizer.ggml.pre").map(|pre| format!(" ({pre})")).unwrap_or_default();
    Ok(Details {
        network,
        parameters,
        weight_bytes: header.tensors.values().map(bytes).sum(),
        formats,
        trained_context,
        context,
        tokenizer: format!("{}{pre}", codec.kind()),
        vocabulary: codec.vocabulary(),
        chat_template: codec.has_chat_template(),
        licence: header.text("general.license").map(str::to_string),
        engine: if about.own { OWN } else { CANDLE },
        resident_bytes: header.tensors.values().map(resident).sum(),
        token_bytes: about.token_bytes,
    })
}

const OWN: &str = "its own kernels";
const CANDLE: &str = "candle";

fn of_safetensors(model: &VerifiedModel, context: Option<usize>) -> Result<Details> {
    let name = &model.entry().name;
    let path = model.file("config.json")?;
    let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let files = model.files_ending_in(".safetensors");
    let fail = |e: candle_core::Error| Error::model(name, e);
    let trained_context = safetensors::trained_context(&config).map_err(fail)?;
    let context = context.unwrap_or(trained_context.min(USUAL_CONTEXT));
    let about = safetensors::inspect(&config, &files, context).map_err(fail)?;
    let codec = TextCodec::from_files(model)?;
    let (parameters, formats) =
        counted(about.tensors.iter().map(|(format, count, _)| (format.clone(), *count)));
    Ok(Details {
        network: about.model_type,
        parameters,
        weight_bytes: about.tensors.iter().map(|(_, _, bytes)| bytes).sum(),
        formats,
        trained_context,
        context,
        tokenizer: codec.kind().to_string(),
        vocabulary: codec.vocabulary(),
        chat_template: codec.has_chat_template(),
        licence: licence(model),
        engine: CANDLE,
        resident_bytes: parameters * 4,
        token_bytes: about.token_bytes,
    })
}

fn of_encoder(model: &VerifiedModel) -> Result<Details> {
    let entry = model.entry();
    let fail = |e: &dyn std::fmt::Display| Error::model(&entry.name, e);
    let path = model.file("config.json")?;
    let text = read_text(&path)?;
    let json: Json = serde_json::from_str(&text).map_err(|e| fail(&format!("config.json: {e}")))?;
    let about = bert::inspect(&json).map_err(|e| fail(&format!("config.json: {e}")))?;
    let tensors = tensors_of(&[model.file("model.safetensors")?]).map_err(|e| fail(&e))?;
    let (parameters, formats) = counted(tensors.iter().map(|(format, count, _)| (format.clone(), *count)));
    let tokenizer = read_tokenizer(&model.file("tokenizer.json")?).map_err(|e| fail(&e))?;
    // What the folder says of the longest text that it was trained with.
    let said = |name: &str, key: &str| -> Option<usize> {
        let json: Json = serde_json::from_str(&read_text(&path.with_file_name(name)).ok()?).ok()?;
        json[key].as_u64().and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0)
    };
    let own = [
        said("sentence_bert_config.json", "max_seq_length"),
        said("tokenizer_config.json", "model_max_length"),
        tokenizer.get_truncation().map(|truncation| truncation.max_length),
    ];
    let trained_context = about.context;
    let context = own.into_iter().flatten().fold(trained_context, usize::min).min(USUAL_TEXT);
    Ok(Details {
        network: about.model_type,
        parameters,
        weight_bytes: tensors.iter().map(|(_, _, bytes)| bytes).sum(),
        formats,
        trained_context,
        context,
        tokenizer: kind_of(&tokenizer).to_string(),
        vocabulary: tokenizer.get_vocab_size(true),
        chat_template: false,
        licence: licence(model),
        engine: if about.own { OWN } else { CANDLE },
        // The file, mapped, and the same weights as they are computed with.
        resident_bytes: parameters * 8,
        token_bytes: 0,
    })
}

/// What a model with this configuration is for, where it is known.
pub(crate) fn role_of(config: &Json) -> Option<Role> {
    let classes = || {
        let names = config["architectures"].as_array().into_iter().flatten();
        names.filter_map(Json::as_str).any(|name| name.ends_with("ForSequenceClassification"))
    };
    let model_type = config["model_type"].as_str().unwrap_or("bert");
    if safetensors::MODEL_TYPES.contains(&model_type) {
        Some(Role::Generator)
    } else if bert::inspect(config).is_ok() {
        Some(if classes() { Role::CrossEncoder } else { Role::BiEncoder })
    } else {
        None
    }
}

/// The kind of a tokenizer.
pub(super) fn kind_of(tokenizer: &Tokenizer) -> &'static str {
    match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) if bpe.byte_fallback => "BPE with bytes",
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::WordPiece(_) => "WordPiece",
        ModelWrapper::WordLevel(_) => "words",
        ModelWrapper::Unigram(_) => "Unigram",
    }
}

/// What the folder's README says of its licence, as the hub has it: between two lines of dashes at its beginning.
fn licence(model: &VerifiedModel) -> Option<String> {
    let folder = model.file("config.json").ok()?.parent()?.to_path_buf();
    let readme = read_text(&folder.join("README.md")).ok()?;
    let front = readme.strip_prefix("---\n")?.split_once("\n---")?.0;
    let said = |key: &str| {
        let line = front.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().trim_matches(['"', '\'']).to_string()).filter(|licence| !licence.is_empty())
    };
    match said("license").as_deref() {
        Some("other") => said("license_name").or_else(|| Some("other".to_string())),
        Some(licence) => Some(licence.to_string()),
        None => None,
    }
}
