//! What clients ask: everything that they are known to send, or why it is refused.

use super::error::ApiError;
use axum::{
    body::Bytes,
    extract::rejection::BytesRejection,
    http::{header, HeaderMap, StatusCode},
};
use poq_inference::{CancelFlag, ChatRole, GenerateRequest, Message, Prompt};
use serde_json::{json, Value};

/// Larger requests are refused: far above what fits a context.
pub(super) const MAX_BODY_BYTES: usize = 512 * 1024;

/// A request, as far as it is looked at; what is not known is let pass, as other servers do.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) request: GenerateRequest,
    /// How many answers; each with the next seed.
    pub(super) count: u64,
    /// Whether the answer is to come in parts.
    pub(super) stream: bool,
    /// Whether the last part is to say how many tokens there were.
    pub(super) usage: bool,
}

impl Asked {
    /// The request of one of the answers. Each ends by itself.
    pub(super) fn one(&self, index: u64) -> GenerateRequest {
        let seed = self.request.seed.wrapping_add(index);
        GenerateRequest { seed, cancel: CancelFlag::default(), ..self.request.clone() }
    }
}

/// The most answers of one request.
const MOST_ANSWERS: u64 = 8;

/// The body as JSON. A client that names no type is believed; one that names another is told.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !(essence == "application/json" || essence.ends_with("+json")) {
            let message = format!("the content type is `{kind}`: send `content-type: application/json`");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    }
    let body = body.map_err(|rejection| {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the request has more than {MAX_BODY_BYTES} bytes"),
            _ => rejection.body_text(),
        };
        ApiError::new(rejection.status(), message)
    })?;
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
    serde_json::from_slice(body)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")))
}

/// A field; `null` is what a client writes that has no value.
fn field<'v>(body: &'v Value, name: &str) -> Option<&'v Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn number(body: &Value, name: &str) -> Result<Option<f64>, ApiError> {
    match field(body, name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|n| n.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::field(name, format!("a number is expected, not {value}"))),
        },
    }
}

fn whole(body: &Value, name: &str) -> Result<Option<i64>, ApiError> {
    let wrong = |value: &Value| ApiError::field(name, format!("a whole number is expected, not {value}"));
    let Some(value) = field(body, name) else { return Ok(None) };
    // Some clients have no whole numbers and write 16.0.
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64);
    value.as_i64().or_else(float).map(Some).ok_or_else(|| wrong(value))
}

pub(super) fn truth(body: &Value, name: &str) -> Result<bool, ApiError> {
    match field(body, name) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(other) => Err(ApiError::field(name, format!("true or false is expected, not {other}"))),
    }
}

/// What a message says: a text, or parts that are texts.
fn content(message: &Value, at: &str) -> Result<String, ApiError> {
    let at = format!("{at}.content");
    let parts = match field(message, "content") {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(ApiError::field(at, "a text, or a list of parts, is expected")),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let kind = part["type"].as_str();
        let text = match (part, kind) {
            (Value::String(text), _) => Some(text.as_str()),
            (_, Some("text" | "input_text" | "output_text")) => part["text"].as_str(),
            (_, Some("refusal")) => part["refusal"].as_str(),
            (_, Some(kind)) => {
                let message = format!("parts of type `{kind}` are not supported: this model reads text only");
                return Err(ApiError::unsupported(at, message));
            }
            (_, None) => None,
        };
        match text {
            Some(text) => texts.push(text),
            None => return Err(ApiError::field(at, "a part is an object with `type` and `text`")),
        }
    }
    Ok(texts.join("\n"))
}

fn message(message: &Value, index: usize) -> Result<Message, ApiError> {
    let at = format!("messages[{index}]");
    if !message.is_object() {
        return Err(ApiError::field(at, "an object with `role` and `content` is expected"));
    }
    let role_at = format!("{at}.role");
    let role = match message["role"].as_str() {
        // What models that think call their instructions.
        Some("system" | "developer") => ChatRole::System,
        Some("user") => ChatRole::User,
        Some("assistant") => ChatRole::Assistant,
        Some(role @ ("tool" | "function")) => {
            let text = format!("the role `{role}` is not supported: this server calls no tools");
            return Err(ApiError::unsupported(role_at, text));
        }
        Some(role) => {
            let text = format!("`{role}` is none of system, developer, user, assistant");
            return Err(ApiError::field(role_at, text));
        }
        None => return Err(ApiError::field(role_at, "it is missing, or no text")),
    };
    for name in ["tool_calls", "function_call"] {
        if field(message, name).is_some_and(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty())) {
            return Err(ApiError::unsupported(format!("{at}.{name}"), "this server calls no tools"));
        }
    }
    let content = content(message, &at)?;
    if content.is_empty() && role == ChatRole::User {
        return Err(ApiError::field(format!("{at}.content"), "it is missing or empty"));
    }
    Ok(Message::new(role, content))
}

fn stop(body: &Value) -> Result<Vec<String>, ApiError> {
    let texts = match field(body, "stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .filter(|text| !text.is_null())
            .map(|text| text.as_str().map(str::to_string))
            .collect::<Option<_>>()
            .ok_or_else(|| ApiError::field("stop", "a text, or a list of texts, is expected"))?,
        Some(_) => return Err(ApiError::field("stop", "a text, or a list of texts, is expected")),
    };
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "an empty text would end every answer at once"));
    }
    Ok(texts)
}

/// What would change the answer and is not offered.
fn refuse_unsupported(body: &Value) -> Result<(), ApiError> {
    if truth(body, "logprobs")? || whole(body, "top_logprobs")?.is_some_and(|n| n != 0) {
        return Err(ApiError::unsupported("logprobs", "log-probabilities are not offered"));
    }
    let calls_none = body["tool_choice"] == "none" || body["function_call"] == "none";
    for name in ["tools", "functions"] {
        let some = field(body, name).is_some_and(|tools| tools.as_array().is_none_or(|t| !t.is_empty()));
        if some && !calls_none {
            return Err(ApiError::unsupported(name, "this server calls no tools: leave it out"));
        }
    }
    if let Some(format) = field(body, "response_format") {
        if format["type"] != "text" {
            let text = format!("{} is not offered: answers are text", format["type"]);
            return Err(ApiError::unsupported("response_format", text));
        }
    }
    for name in ["presence_penalty", "frequency_penalty"] {
        if number(body, name)?.is_some_and(|penalty| penalty != 0.0) {
            return Err(ApiError::unsupported(name, "penalties are not offered: 0, or leave it out"));
        }
    }
    if field(body, "logit_bias").is_some_and(|bias| bias.as_object().is_none_or(|bias| !bias.is_empty())) {
        return Err(ApiError::unsupported("logit_bias", "it is not offered: leave it out"));
    }
    if field(body, "modalities").is_some_and(|kinds| *kinds != json!(["text"]))
        || field(body, "audio").is_some()
    {
        return Err(ApiError::unsupported("modalities", "this model writes text only"));
    }
    Ok(())
}

/// A conversation to be continued.
pub(super) fn chat(body: &Value) -> Result<Asked, ApiError> {
    object(body, "messages")?;
    refuse_unsupported(body)?;
    let messages = match field(body, "messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(ApiError::field("messages", "it is empty")),
        Some(_) => return Err(ApiError::field("messages", "a list is expected")),
        None => return Err(ApiError::field("messages", "it is missing")),
    };
    let messages = messages.iter().enumerate().map(|(i, m)| message(m, i)).collect::<Result<_, _>>()?;
    let mut request = GenerateRequest::new(Prompt::Chat(messages));
    // The newer name counts where a client sends both.
    limit(body, &["max_tokens", "max_completion_tokens"], &mut request)?;
    asked(body, request)
}

/// A text to be continued.
pub(super) fn completion(body: &Value) -> Result<Asked, ApiError> {
    object(body, "prompt")?;
    refuse_unsupported(body)?;
    for name in ["suffix", "best_of"] {
        if field(body, name).is_some_and(|value| *value != json!(1)) {
            return Err(ApiError::unsupported(name, "it is not offered: leave it out"));
        }
    }
    if truth(body, "echo")? {
        return Err(ApiError::unsupported("echo", "it is not offered: leave it out"));
    }
    let prompt = match texts(body, "prompt")?.as_slice() {
        [prompt] if !prompt.is_empty() => prompt.clone(),
        [_] => return Err(ApiError::field("prompt", "it is empty")),
        _ => return Err(ApiError::unsupported("prompt", "one text at a time is offered")),
    };
    let mut request = GenerateRequest::new(Prompt::Text(prompt)).with_max_tokens(COMPLETION_TOKENS);
    limit(body, &["max_tokens"], &mut request)?;
    asked(body, request)
}

/// Tokens of a completion where the client does not say: this API's default.
const COMPLETION_TOKENS: usize = 16;

pub(super) fn object(body: &Value, needs: &str) -> Result<(), ApiError> {
    if body.is_object() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body must be an object with `{needs}`")))
}

/// A text, or a list of texts.
pub(super) fn texts(body: &Value, name: &str) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field(name, "a text, or a list of texts, is expected");
    match field(body, name) {
        None => Err(ApiError::field(name, "it is missing")),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) if !list.is_empty() => {
            list.iter().map(|text| text.as_str().map(str::to_string)).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// The model that is asked for, if one is.
pub(super) fn model(body: &Value) -> Result<Option<String>, ApiError> {
    match field(body, "model") {
        None => Ok(None),
        Some(Value::String(model)) => Ok(Some(model.clone()).filter(|model| !model.is_empty())),
        Some(_) => Err(ApiError::field("model", "a text is expected")),
    }
}

fn limit(body: &Value, names: &[&str], request: &mut GenerateRequest) -> Result<(), ApiError> {
    for name in names {
        if let Some(tokens) = whole(body, name)? {
            request.max_tokens = usize::try_from(tokens)
                .ok()
                .filter(|tokens| *tokens > 0)
                .ok_or_else(|| ApiError::field(*name, format!("it must be at least 1, not {tokens}")))?;
        }
    }
    Ok(())
}

fn asked(body: &Value, mut request: GenerateRequest) -> Result<Asked, ApiError> {
    request.temperature = number(body, "temperature")?.unwrap_or(1.0);
    request.top_p = number(body, "top_p")?;
    // Seeds are signed in this API.
    request.seed = whole(body, "seed")?.unwrap_or(0) as u64;
    request.stop = stop(body)?;
    request.trace = truth(body, "return_token_ids")?;
    let count = whole(body, "n")?.unwrap_or(1);
    let count = u64::try_from(count).ok().filter(|n| (1..=MOST_ANSWERS).contains(n)).ok_or_else(|| {
        ApiError::unsupported("n", format!("1 to {MOST_ANSWERS} answers are offered, not {count}"))
    })?;
    let stream = truth(body, "stream")?;
    let usage = match field(body, "stream_options") {
        Some(options) if options.is_object() => truth(options, "include_usage")?,
        Some(_) => return Err(ApiError::field("stream_options", "an object is expected")),
        None => false,
    };
    Ok(Asked { model: model(body)?, request, count, stream, usage })
}
