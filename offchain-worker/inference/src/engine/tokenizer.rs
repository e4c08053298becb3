//! Tokenizers, from inside a GGUF file or from Hugging Face's files, with what belongs to them: control tokens and the
//! chat template.

use super::chat::{ChatTemplate, Piece};
use crate::{
    error::{Error, Result},
    generate::Prompt,
    store::VerifiedModel,
};
use candle_core::quantized::{
    gguf_file::{Content, Value},
    tokenizer::TokenizerFromGguf,
};
use serde_json::Value as Json;
use tokenizers::{
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence},
    Tokenizer,
};

/// Tokens that end an answer in the models this crate loads, whatever their metadata say.
const END_TOKENS: [&str; 5] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"];

/// Text to tokens and back.
pub(crate) struct TextCodec {
    model: String,
    /// Sees control tokens in text.
    template: Tokenizer,
    /// Takes everything as text.
    content: Tokenizer,
    chat: Option<ChatTemplate>,
    bos: Option<u32>,
    end: Vec<u32>,
}

impl TextCodec {
    /// Out of a GGUF file's metadata.
    pub(crate) fn from_gguf(model: &VerifiedModel, gguf: &Content) -> Result<Self> {
        let name = &model.entry().name;
        let fail = |e: &dyn std::fmt::Display| Error::model(name, format!("its tokenizer: {e}"));
        let mut tokenizer = Tokenizer::from_gguf(gguf).map_err(|e| fail(&e))?;
        let text = |key: &str| match gguf.metadata.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        if text("tokenizer.ggml.pre").as_deref() == Some("smollm") {
            // candle has no case for it and takes GPT-2's, which splits no digits and puts a space in front.
            let steps = vec![Digits::new(true).into(), ByteLevel::new(false, false, true).into()];
            tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
        }
        let id = |key: &str| gguf.metadata.get(key).and_then(|v| v.to_u32().ok());
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default();
        let bos = id("tokenizer.ggml.bos_token_id");
        let eos = id("tokenizer.ggml.eos_token_id");
        let add_bos = matches!(gguf.metadata.get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true)));
        let chat = match text("tokenizer.chat_template") {
            Some(source) => {
                Some(ChatTemplate::new(source, token(bos), token(eos)).map_err(|e| fail(&format!("{e:#}")))?)
            }
            None => None,
        };
        let end = [eos, id("tokenizer.ggml.eot_token_id")].into_iter().flatten().collect();
        Self::new(name, tokenizer, chat, bos.filter(|_| add_bos), end)
    }

    /// Out of `tokenizer.json` and `tokenizer_config.json`.
    pub(crate) fn from_files(model: &VerifiedModel) -> Result<Self> {
        let name = &model.entry().name;
        let fail = |e: &dyn std::fmt::Display| Error::model(name, format!("its tokenizer: {e}"));
        let tokenizer = Tokenizer::from_file(model.file("tokenizer.json")?).map_err(|e| fail(&e))?;
        let path = model.file("tokenizer_config.json")?;
        let config = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let config: Json = serde_json::from_slice(&config).map_err(|e| fail(&e))?;
        // A token is a string, or an object with one.
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_string()
        };
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        let add_bos = config["add_bos_token"].as_bool().unwrap_or(false);
        let end = tokenizer.token_to_id(&eos).into_iter().collect();
        let bos_id = tokenizer.token_to_id(&bos).filter(|_| add_bos);
        let chat = match config["chat_template"].as_str() {
            Some(source) => {
                Some(ChatTemplate::new(source.to_string(), bos, eos).map_err(|e| fail(&format!("{e:#}")))?)
            }
            None => None,
        };
        Self::new(name, tokenizer, chat, bos_id, end)
    }

    fn new(
        model: &str,
        mut template: Tokenizer,
        chat: Option<ChatTemplate>,
        bos: Option<u32>,
        mut end: Vec<u32>,
    ) -> Result<Self> {
        template.with_padding(None);
        template.with_truncation(None).map_err(|e| Error::model(model, format!("its tokenizer: {e}")))?;
        end.extend(END_TOKENS.iter().filter_map(|token| template.token_to_id(token)));
        end.sort_unstable();
        end.dedup();
        if end.is_empty() {
            return Err(Error::model(model, "its tokenizer names no token that ends an answer"));
        }
        let mut content = template.clone();
        content.set_encode_special_tokens(true);
        Ok(Self { model: model.to_string(), template, content, chat, bos, end })
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
        let pieces = match prompt {
            Prompt::Text(text) => vec![Piece::Content(text.clone())],
            Prompt::Chat(messages) => {
                let chat = self.chat.as_ref().ok_or_else(|| {
                    Error::InvalidRequest(format!(
                        "model `{}` has no chat template: ask it with a plain text prompt",
                        self.model
                    ))
                })?;
                chat.render(messages)?
            }
        };
        let mut tokens = Vec::new();
        for piece in pieces {
            let (tokenizer, text) = match &piece {
                Piece::Template(text) => (&self.template, text),
                Piece::Content(text) => (&self.content, text),
            };
            let encoding = tokenizer
                .encode_fast(text.as_str(), false)
                .map_err(|e| Error::model(&self.model, format!("its tokenizer: {e}")))?;
            tokens.extend_from_slice(encoding.get_ids());
        }
        // Most templates write it themselves.
        if let Some(bos) = self.bos {
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
            .template
            .decode(tokens, true)
            .map_err(|e| Error::model(&self.model, format!("its tokenizer: {e}")))?;
        while text.ends_with('\u{FFFD}') {
            text.pop();
        }
        Ok(text)
    }
}
