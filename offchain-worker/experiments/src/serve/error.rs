//! Refusals.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
    Json,
};
use serde_json::{json, Value};

/// Why a request is refused, in the form that clients of this API read.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field at fault.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field that is not of the form it must have.
    pub(super) fn field(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("`{param}`: {message}"),
            param: Some(param),
            code: Some("invalid_value"),
        }
    }

    /// A field that asks for what is not offered: to pass over it would answer another question.
    pub(super) fn unsupported(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }
}

impl ApiError {
    /// The error object.
    pub(super) fn json(&self) -> Value {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.json())).into_response()
    }
}

impl From<poq_inference::Error> for ApiError {
    fn from(error: poq_inference::Error) -> Self {
        let too_long = matches!(
            error,
            poq_inference::Error::PromptTooLong { .. } | poq_inference::Error::PromptTooLarge { .. }
        );
        let status = if error.is_bad_request() {
            StatusCode::BAD_REQUEST
        } else if error.is_transient() {
            // A full queue or a model that is being loaded again: the client is to come back.
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let code = too_long.then_some("context_length_exceeded");
        Self { status, message: error.to_string(), param: too_long.then(|| "messages".to_string()), code }
    }
}
