//! Tokenizers, from inside a GGUF file or from Hugging Face's files, with what belongs to them: control tokens and the
//! chat template.

use super::{
    chat::{ChatTemplate, Piece},
    gguf_header::Header,
    gguf_tokenizer::{self, GgufTokenizer},
};
use crate::{
    error::{Error, Result},
    generate::Prompt,
    store::VerifiedModel,
};
use serde_json::Value as Json;
use std::path::Path;
use tokenizers::{pre_tokenizers::metaspace::PrependScheme, AddedToken, PreTokenizerWrapper, Tokenizer};

/// Control tokens that end an answer wherever a vocabulary has them, whatever else its files say: end of a turn, of a message
/// or of the text.
const END_TOKENS: [&str; 16] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<|endofturn|>",
    "<|return|>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "</s>",
    "[/EOT]",
];

/// The tokenizer in a `tokenizer.json`.
///
/// # Errors
/// When there is none. The library panics on some files that are cut off or made up; here that is an error too.
pub(super) fn read_tokenizer(path: &Path) -> std::result::Result<Tokenizer, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match std::panic::catch_unwind(|| Tokenizer::from_file(path)) {
        Ok(read) => read.map_err(|e| format!("{name}: {e}")),
        Err(_) => Err(format!("{name} is no tokenizer: it is cut off, or made up")),
    }
}

/// Text to tokens and back.
pub(crate) struct TextCodec {
    model: String,
    /// Takes everything as text but for tokens that users defined. Its first segment of a prompt, and the later ones.
    first: Tokenizer,
    later: Option<Tokenizer>,
    /// Control tokens, the longest first: seen in templates only.
    control: Vec<(u32, AddedToken)>,
    chat: Option<ChatTemplate>,
    /// Put in front of plain text, and of a conversation whose template does not write it.
    bos: Option<u32>,
    chat_bos: bool,
    end: Vec<u32>,
}

/// What belongs to a tokenizer.
#[derive(Default)]
struct Parts {
    template: Option<String>,
    bos_token: String,
    eos_token: String,
    bos: Option<u32>,
    chat_bos: bool,
    end: Vec<u32>,
}

fn read_json(path: &Path) -> Result<Json> {
    let text = crate::data::read_text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::Data {
        path: path.to_path_buf(),
        line: e.line(),
        reason: format!("not JSON: {e}"),
    })
}

/// A token is a string, or an object with one.
fn token_of(config: &Json, key: &str) -> String {
    let value = &config[key];
    value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_string()
}

/// Numbers of tokens: one, or a list.
fn ids_of(config: &Json, key: &str) -> Vec<u32> {
    let number = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &config[key] {
        Json::Array(values) => values.iter().filter_map(number).collect(),
        value => number(value).into_iter().collect(),
    }
}

/// The chat template of a configuration: one, or the default of a named list.
fn template_of(config: &Json) -> Option<String> {
    match &config["chat_template"] {
        Json::String(source) => Some(source.clone()),
        Json::Array(named) => {
            let source = |name: &str| {
                named.iter().find(|entry| entry["name"] == name).and_then(|entry| entry["template"].as_str())
            };
            source("default").map(str::to_string)
        }
        _ => None,
    }
}

impl TextCodec {
    /// Out of a GGUF file's metadata; a `tokenizer.json` beside the file wins over the tokenizer in it.
    pub(crate) fn from_gguf(model: &VerifiedModel, gguf: &Header) -> Result<Self> {
        let name = &model.entry().name;
        let fail = |e: &dyn std::fmt::Display| Error::model(name, format!("its tokenizer: {e}"));
        if let Some(path) = model.optional_file("tokenizer.json") {
            let tokenizer = read_tokenizer(&path).map_err(|e| fail(&e))?;
            let in_file = gguf.count("tokenizer.ggml.tokens");
            let own = tokenizer.get_vocab_size(true);
            if in_file.is_some_and(|count| count < own) {
                return Err(fail(&format!(
                    "the tokenizer.json beside the file has {own} tokens and the file {}: it is another model's",
                    in_file.unwrap_or(0)
                )));
            }
            let mut parts = Self::parts_from_files(model, &tokenizer)?;
            parts.template = parts.template.or_else(|| gguf_template(gguf));
            parts.end.extend(gguf_ends(gguf));
            return Self::new(name, tokenizer, parts);
        }
        let GgufTokenizer { tokenizer, bos } = gguf_tokenizer::load(gguf).map_err(|e| fail(&e))?;
        let token = |key: &str| {
            gguf_tokenizer::id(gguf, key).and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default()
        };
        let parts = Parts {
            template: gguf_template(gguf),
            bos_token: token("tokenizer.ggml.bos_token_id"),
            eos_token: token("tokenizer.ggml.eos_token_id"),
            bos,
            chat_bos: true,
            end: gguf_ends(gguf),
        };
        Self::new(name, tokenizer, parts)
    }

    /// Out of `tokenizer.json` and what stands beside it.
    pub(crate) fn from_files(model: &VerifiedModel) -> Result<Self> {
        let name = &model.entry().name;
        let tokenizer = read_tokenizer(&model.file("tokenizer.json")?)
            .map_err(|e| Error::model(name, format!("its tokenizer: {e}")))?;
        let parts = Self::parts_from_files(model, &tokenizer)?;
        Self::new(name, tokenizer, parts)
    }

    /// What `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json` and `config.json` say, as far as the model
    /// has them.
    fn parts_from_files(model: &VerifiedModel, tokenizer: &Tokenizer) -> Result<Parts> {
        let mut parts = Parts::default();
        let read = |name: &str| model.optional_file(name).map(|path| read_json(&path)).transpose();
        let config = read("tokenizer_config.json")?.unwrap_or_default();
        (parts.bos_token, parts.eos_token) = (token_of(&config, "bos_token"), token_of(&config, "eos_token"));
        parts.template = match model.optional_file("chat_template.jinja") {
            Some(path) => Some(crate::data::read_text(&path)?),
            None => template_of(&config),
        };
        parts.end.extend(tokenizer.token_to_id(&parts.eos_token));
        for name in ["generation_config.json", "config.json"] {
            if let Some(config) = read(name)? {
                parts.end.extend(ids_of(&config, "eos_token_id"));
            }
        }
        // What `transformers` puts in front of plain text is what the tokenizer's own post-processor does.
        let encoding = tokenizer
            .encode("x", true)
            .map_err(|e| Error::model(&model.entry().name, format!("its tokenizer: {e}")))?;
        let bos = tokenizer.token_to_id(&parts.bos_token);
        let writes_bos = bos.is_some() && encoding.get_ids().first() == bos.as_ref();
        let add_bos = config["add_bos_token"].as_bool().unwrap_or(writes_bos);
        parts.bos = bos.filter(|_| add_bos);
        Ok(parts)
    }

    fn new(model: &str, mut tokenizer: Tokenizer, parts: Parts) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| Error::model(model, format!("its tokenizer: {e}"));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| fail(&e))?;
        let added = tokenizer.get_added_tokens_decoder();
        let mut end = parts.end;
        end.extend(added.iter().filter(|(_, t)| END_TOKENS.contains(&t.content.as_str())).map(|(id, _)| *id));
        end.sort_unstable();
        end.dedup();
        if end.is_empty() {
            return Err(Error::model(model, "its tokenizer names no token that ends an answer"));
        }
        let mut control: Vec<(u32, AddedToken)> =
            added.into_iter().filter(|(_, token)| token.special && !token.content.is_empty()).collect();
        control
            .sort_by(|(_, a), (_, b)| b.content.len().cmp(&a.content.len()).then(a.content.cmp(&b.content)));
        let chat = match parts.template {
            Some(source) => Some(
                ChatTemplate::new(source, parts.bos_token, parts.eos_token)
                    .map_err(|e| Error::model(model, format!("its chat template: {e:#}")))?,
            ),
            None => None,
        };
        tokenizer.set_encode_special_tokens(true);
        // Some put a space in front of the very first text only.
        let later = match tokenizer.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::Metaspace(space)) if space.prepend_scheme == PrependScheme::First => {
                let mut space = space.clone();
                space.set_prepend_scheme(PrependScheme::Never);
                let mut later = tokenizer.clone();
                later.with_pre_tokenizer(Some(space));
                Some(later)
            }
            _ => None,
        };
        let model = model.to_string();
        Ok(Self {
            model,
            first: tokenizer,
            later,
            control,
            chat,
            bos: parts.bos,
            chat_bos: parts.chat_bos,
            end,
        })
    }

    /// The kind of the tokenizer.
    pub(crate) fn kind(&self) -> &'static str {
        super::inspect::kind_of(&self.first)
    }

    /// Tokens that it knows.
    pub(crate) fn vocabulary(&self) -> usize {
        self.first.get_vocab_size(true)
    }

    /// Whether the model says how a conversation is written.
    pub(crate) fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// The tokens that end an answer, in order.
    pub(crate) fn ends(&self) -> &[u32] {
        &self.end
    }

    /// Whether this token ends an answer.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.end.binary_search(&token).is_ok()
    }

    /// The tokens of a prompt.
    pub(crate) fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let (pieces, bos) = match prompt {
            Prompt::Text(text) => (vec![Piece::Content(text.clone())], self.bos),
            Prompt::Chat(messages) => {
                let chat = self.chat.as_ref().ok_or_else(|| {
                    Error::InvalidRequest(format!(
                        "model `{}` has no chat template: ask it with a plain text prompt",
                        self.model
                    ))
                })?;
                (chat.render(messages)?, self.bos.filter(|_| self.chat_bos))
            }
        };
        let mut tokens = Vec::new();
        let mut segments = Segments { codec: self, tokens: &mut tokens, text: String::new(), strip: false };
        for piece in &pieces {
            match piece {
                Piece::Template(text) => segments.template(text)?,
                Piece::Content(text) => segments.push(text),
            }
        }
        segments.flush()?;
        // Most templates write it themselves.
        if let Some(bos) = bos {
            if tokens.first() != Some(&bos) {
                tokens.insert(0, bos);
            }
        }
        if tokens.is_empty() {
            return Err(Error::InvalidRequest("the prompt is empty".to_string()));
        }
        Ok(tokens)
    }

    /// The text of an answer's tokens. A character that is not complete yet is left out.
    pub(crate) fn decode(&self, tokens: &[u32]) -> Result<String> {
        let mut text = self
            .first
            .decode(tokens, true)
            .map_err(|e| Error::model(&self.model, format!("its tokenizer: {e}")))?;
        while text.ends_with('\u{FFFD}') {
            text.pop();
        }
        Ok(text)
    }
}

/// A prompt on its way to tokens: control tokens of the template, and between them text. Text of the template and of messages
/// is put together before it is split, as if it had been one text, for that is how the model was trained.
struct Segments<'a> {
    codec: &'a TextCodec,
    tokens: &'a mut Vec<u32>,
    text: String,
    /// Whether the last control token takes the white space after it.
    strip: bool,
}

impl Segments<'_> {
    fn push(&mut self, text: &str) {
        let text = if self.strip && self.text.is_empty() { text.trim_start() } else { text };
        self.text.push_str(text);
    }

    fn template(&mut self, mut rest: &str) -> Result<()> {
        while !rest.is_empty() {
            let next = self
                .codec
                .control
                .iter()
                .filter_map(|(id, token)| Some((rest.find(token.content.as_str())?, *id, token)))
                // Of those that begin at one place the longest comes first in the list.
                .min_by_key(|(at, _, _)| *at);
            let Some((at, id, token)) = next else {
                self.push(rest);
                return Ok(());
            };
            self.push(&rest[..at]);
            if token.lstrip {
                let kept = self.text.trim_end().len();
                self.text.truncate(kept);
            }
            self.flush()?;
            self.tokens.push(id);
            self.strip = token.rstrip;
            rest = &rest[at + token.content.len()..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            let tokenizer = match &self.codec.later {
                Some(later) if !self.tokens.is_empty() => later,
                _ => &self.codec.first,
            };
            let encoding = tokenizer
                .encode_fast(self.text.as_str(), false)
                .map_err(|e| Error::model(&self.codec.model, format!("its tokenizer: {e}")))?;
            self.tokens.extend_from_slice(encoding.get_ids());
            self.text.clear();
        }
        self.strip = false;
        Ok(())
    }
}

fn gguf_template(gguf: &Header) -> Option<String> {
    gguf.text("tokenizer.chat_template").map(str::to_string)
}

fn gguf_ends(gguf: &Header) -> Vec<u32> {
    let names = ["eos", "eot", "eom"];
    let mut ends: Vec<u32> = names
        .iter()
        .filter_map(|n| gguf_tokenizer::id(gguf, &format!("tokenizer.ggml.{n}_token_id")))
        .collect();
    let more = gguf.wholes("tokenizer.ggml.eog_token_ids").unwrap_or_default();
    ends.extend(more.into_iter().filter_map(|id| u32::try_from(id).ok()));
    ends
}
