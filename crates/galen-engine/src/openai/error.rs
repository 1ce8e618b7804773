//! Errors in OpenAI's shape.

use crate::engine::EngineError;
use serde_json::{Value, json};

/// What a client is told when it does not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP's status.
    pub status: u16,
    /// In words.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<&'static str>,
}

impl ApiError {
    /// An error without a field.
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    /// A field that cannot be honoured as it is.
    pub fn field(name: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), param: Some(name.to_owned()), code: Some(code) }
    }

    /// A field that has another type or value than it may.
    pub fn value(name: &str, message: impl Into<String>) -> Self {
        Self::field(name, "invalid_value", message)
    }

    /// Something went wrong in the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, None, message)
    }

    /// Seconds after which to ask again, where that helps.
    pub fn retry_after(&self) -> Option<u32> {
        matches!(self.status, 429 | 503).then_some(1)
    }

    /// The body.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let Self { message, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::UnknownModel(_) => {
                Self { status: 404, message, param: Some("model".into()), code: Some("model_not_found") }
            }
            EngineError::Invalid { field, .. } => Self::value(field, message),
            EngineError::TooLong { field, .. } => Self {
                status: 400,
                message,
                param: Some(field.into()),
                code: Some("context_length_exceeded"),
            },
            EngineError::Exists(_) => Self::new(400, Some("model_exists"), message),
            EngineError::Adapter(_) => Self::new(400, Some("invalid_adapter"), message),
            EngineError::Refused(_) => Self::new(502, Some("upstream_refused"), message),
            EngineError::QueueFull => Self::new(429, Some("queue_full"), message),
            EngineError::Stopping => Self::new(503, Some("shutting_down"), message),
        }
    }
}
