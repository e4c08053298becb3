//! What OpenAI-compatible servers take, and where they put what they say: no two are alike.

use crate::generate::{ChatRole, GenerateRequest, Message, Prompt};
use regex::Regex;
use serde_json::{json, Value};
use std::sync::LazyLock;

/// What a server takes. It is learnt from what it refuses, and kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Form {
    /// `max_tokens`, or what models that think want in its place: `max_completion_tokens`.
    limit: &'static str,
    temperature: bool,
    seed: bool,
    /// Whether there is a role for instructions; else they stand in front of the question.
    system: bool,
    /// Whether it can be told that a model is not to think aloud.
    thinking: bool,
    /// Whether it can be asked for the last event to say how many tokens there were.
    usage: bool,
    /// Whether it can be asked for the numbers of tokens, and for their probabilities.
    token_ids: bool,
    logprobs: bool,
}

impl Form {
    /// What everybody takes but for models that think.
    pub(crate) const USUAL: Self = Self {
        limit: "max_tokens",
        temperature: true,
        seed: true,
        system: true,
        thinking: true,
        usage: true,
        token_ids: true,
        logprobs: true,
    };

    /// Whether the server thinks before it answers, as far as its form tells.
    pub(crate) fn thinks(&self) -> bool {
        self.limit == "max_completion_tokens"
    }

    /// Where a prompt goes, and the request for it.
    pub(crate) fn request(&self, model: &str, request: &GenerateRequest) -> (&'static str, Value) {
        let (path, mut body) = match &request.prompt {
            Prompt::Chat(messages) => ("chat/completions", self.chat(model, messages)),
            Prompt::Text(text) => ("completions", json!({ "model": model, "prompt": text })),
        };
        let limit = if path == "completions" { "max_tokens" } else { self.limit };
        body[limit] = request.max_tokens.into();
        if self.temperature {
            body["temperature"] = request.temperature.into();
            if let Some(top_p) = request.top_p {
                body["top_p"] = top_p.into();
            }
        }
        if self.seed {
            // Seeds are signed in this API.
            body["seed"] = (request.seed & i64::MAX as u64).into();
        }
        if !request.stop.is_empty() {
            body["stop"] = json!(request.stop);
        }
        body["stream"] = true.into();
        if self.usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        if request.trace && self.token_ids {
            // vLLM's name and llama.cpp's.
            body["return_token_ids"] = true.into();
            body["return_tokens"] = true.into();
        }
        if request.trace && self.logprobs {
            body["logprobs"] = if path == "completions" { 1.into() } else { true.into() };
        }
        if path == "chat/completions" && self.thinking {
            body["chat_template_kwargs"] = json!({ "enable_thinking": false });
        }
        (path, body)
    }

    /// A conversation, without limits.
    pub(crate) fn chat(&self, model: &str, messages: &[Message]) -> Value {
        let merged = if self.system { messages.to_vec() } else { without_system(messages) };
        json!({ "model": model, "messages": merged })
    }

    /// Greedy, of so many tokens, in one piece: what a judge is asked for.
    pub(crate) fn verdict(&self, model: &str, messages: &[Message], tokens: usize) -> Value {
        let mut body = self.chat(model, messages);
        body[self.limit] = tokens.into();
        if self.temperature {
            body["temperature"] = 0.0.into();
        }
        if self.seed {
            body["seed"] = 0.into();
        }
        body
    }

    /// Leaves out, or puts otherwise, what a refusal names. Whether there was something.
    pub(crate) fn adapt(&mut self, refusal: &str) -> bool {
        let named = |name: &str| match serde_json::from_str::<Value>(refusal) {
            Ok(body) => match body["error"]["param"].as_str() {
                Some(param) => param.contains(name) || (name == "system" && param.contains("messages")),
                None => refusal.contains(name),
            },
            Err(_) => refusal.contains(name),
        };
        for (flag, names) in [
            (&mut self.thinking, ["chat_template_kwargs", "enable_thinking"].as_slice()),
            (&mut self.usage, &["stream_options", "include_usage"]),
            (&mut self.token_ids, &["return_token_ids", "return_tokens"]),
            (&mut self.logprobs, &["logprobs"]),
        ] {
            if *flag && names.iter().any(|name| named(name)) {
                *flag = false;
                return true;
            }
        }
        if self.limit == "max_tokens" && named("max_tokens") {
            self.limit = "max_completion_tokens";
        } else if self.temperature && named("temperature") {
            self.temperature = false;
        } else if self.seed && named("seed") {
            self.seed = false;
        } else if self.system && named("system") && refusal.to_lowercase().contains("role") {
            self.system = false;
        } else {
            return false;
        }
        true
    }
}

/// Instructions in front of the first question.
fn without_system(messages: &[Message]) -> Vec<Message> {
    let mut instructions = String::new();
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match message.role {
            ChatRole::System => {
                instructions += &message.content;
                instructions += "\n\n";
            }
            role => merged.push(Message::new(role, std::mem::take(&mut instructions) + &message.content)),
        }
    }
    if !instructions.is_empty() {
        merged.push(Message::new(ChatRole::User, instructions.trim_end()));
    }
    merged
}

fn regex(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        // The patterns are part of the program and every test uses them.
        Err(error) => unreachable!("{error}"),
    }
}

/// How servers say that a prompt is too long: OpenAI, vLLM, SGLang, llama.cpp, TGI, TEI, Ollama, this project.
static TOO_LONG: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)context_length_exceeded|exceed_context_size|(?:context|sequence|input|prompt|inputs?).{0,40}(?:length|size|window|tokens).{0,80}(?:exceed|too (?:long|large)|longer|maximum|limit|at most|must be)|maximum context length|too many tokens|(?:prompt|input|inputs) (?:is|are) too (?:long|large)|must have less than \d+ tokens",
    )
});

/// The tokens of a prompt, where a refusal tells them.
static PROMPT_TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)"n_prompt_tokens"\s*:\s*(\d+)|(\d+) (?:tokens )?in the (?:messages|prompt)|(?:has|have|passed|contains|given:?|resulted in) (\d+) (?:input |prompt )?`?(?:input |prompt )?(?:tokens|inputs)"#,
    )
});

/// The tokens that fit, prompt and answer together.
static CONTEXT_TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)"n_ctx"\s*:\s*(\d+)|(?:maximum context length is|max_new_tokens` must be <=|context size \(?|model's context length \(?) ?(\d+)"#,
    )
});

/// The tokens of a prompt that fit beside the answer.
static ROOM: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)at most (\d+) fit"));

/// Whether a refusal says that the prompt is too long: its tokens, and how many would have fitted. Where it does not tell, the tokens are
/// estimated and half of them are to be cut.
pub(crate) fn too_long(refusal: &str, bytes: usize, max_tokens: usize) -> Option<(usize, usize)> {
    if !TOO_LONG.is_match(refusal) {
        return None;
    }
    let number = |pattern: &Regex| {
        let found = pattern.captures(refusal)?;
        let digits = found.iter().skip(1).flatten().next()?.as_str();
        digits.parse::<usize>().ok()
    };
    let tokens = number(&PROMPT_TOKENS);
    let limit =
        number(&ROOM).or_else(|| number(&CONTEXT_TOKENS).map(|context| context.saturating_sub(max_tokens)));
    match (tokens, limit) {
        (Some(tokens), Some(limit)) if limit < tokens => Some((tokens, limit)),
        _ => {
            // Four bytes a token are English; two are enough for most else.
            let tokens = (bytes / 3).max(2);
            Some((tokens, tokens / 2))
        }
    }
}

/// What a completion says, wherever its server puts it.
pub(crate) struct Reply {
    /// The text, without thoughts that stand in a field of their own.
    pub(crate) text: String,
    /// Thoughts in a field of their own.
    pub(crate) thoughts: String,
    /// What it said in place of an answer.
    pub(crate) refusal: Option<String>,
    /// Whether it was cut off.
    pub(crate) cut_off: bool,
}

impl Reply {
    /// `None` where there is no choice in it.
    pub(crate) fn of(answer: &Value) -> Option<Self> {
        let choice = answer["choices"].get(0)?;
        let message = &choice["message"];
        Some(Self {
            // Completions of the old kind have `text`.
            text: if message.is_null() { text_of(&choice["text"]) } else { text_of(&message["content"]) },
            thoughts: thoughts_of(message),
            refusal: Some(text_of(&message["refusal"])).filter(|text| !text.is_empty()),
            cut_off: choice["finish_reason"] == "length",
        })
    }
}

/// Thoughts in a field of their own.
pub(crate) fn thoughts_of(message: &Value) -> String {
    ["reasoning_content", "reasoning", "thinking", "reasoning_text"]
        .into_iter()
        .map(|name| text_of(&message[name]))
        .find(|text| !text.trim().is_empty())
        .unwrap_or_default()
}

/// A content: a text, or parts of which some are texts.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter(|part| part["type"].as_str().is_none_or(|kind| kind.ends_with("text")))
            .filter_map(|part| part.as_str().or(part["text"].as_str()))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_known_in_every_servers_words() {
        for (words, found) in [
            // OpenAI, vLLM
            (
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5100 tokens (5000 in the messages, 100 in the completion). Please reduce the length of the messages or completion.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                (5000, 3996),
            ),
            (
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages.","type":"BadRequestError","code":400}"#,
                (5000, 3996),
            ),
            // llama.cpp
            (
                r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#,
                (5000, 3996),
            ),
            // TGI
            (
                r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`","error_type":"validation"}"#,
                (5000, 3996),
            ),
            // this project
            (
                r#"{"error":{"message":"the prompt has 5000 tokens, but at most 3996 fit beside the answer that was asked for","code":"context_length_exceeded"}}"#,
                (5000, 3996),
            ),
            // without numbers
            (r#"{"error":"prompt is too long"}"#, (3000, 1500)),
        ] {
            assert_eq!(too_long(words, 9_000, 100), Some(found), "{words}");
        }
        for words in [
            r#"{"error":{"message":"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.","param":"max_tokens"}}"#,
            r#"{"error":{"message":"no such model"}}"#,
            r#"{"error":{"message":"temperature must be at most 2"}}"#,
        ] {
            assert_eq!(too_long(words, 9_000, 100), None, "{words}");
        }
    }

    #[test]
    fn what_is_refused_is_left_out_one_thing_after_the_other() {
        let mut form = Form::USUAL;
        let mut request = GenerateRequest::new(Prompt::Chat(vec![
            Message::new(ChatRole::System, "Briefly."),
            Message::new(ChatRole::User, "Hi?"),
        ]));
        request.trace = true;
        for name in [
            "chat_template_kwargs",
            "stream_options",
            "return_token_ids",
            "logprobs",
            "max_tokens",
            "temperature",
            "seed",
        ] {
            let (path, body) = form.request("m", &request);
            assert_eq!(path, "chat/completions");
            assert!(!body[name].is_null(), "{name}: {body}");
            assert!(
                form.adapt(&format!(r#"{{"error":{{"message":"Unrecognized: {name}","param":null}}}}"#)),
                "{name}"
            );
            assert!(form.request("m", &request).1[name].is_null(), "{name}");
        }
        assert!(form.adapt("System role not supported, sorry: system"));
        let (_, body) = form.request("m", &request);
        assert_eq!(body["messages"], json!([{ "role": "user", "content": "Briefly.\n\nHi?" }]));
        assert_eq!(body["max_completion_tokens"], 128);
        assert!(!form.adapt("anything else"));
        let (path, body) = form.request("m", &GenerateRequest::new(Prompt::Text("once".into())));
        assert_eq!(
            (path, &body["prompt"], &body["max_tokens"]),
            ("completions", &json!("once"), &json!(128))
        );
    }
}
