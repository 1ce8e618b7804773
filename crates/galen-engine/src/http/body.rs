//! Bodies of requests, within limits.

use super::App;
use crate::openai::ApiError;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use serde_json::Value;
use std::error::Error as _;

/// A JSON body. Errors: another type, larger or slower than may be, not JSON.
pub(super) async fn json(app: &App, request: Request) -> Result<Value, ApiError> {
    let (parts, body) = request.into_parts();
    // A browser sends JSON to another site only after asking, and is told no: so pages elsewhere cannot use the server.
    if !is_json(&parts.headers) {
        let what = "the body's type is not `Content-Type: application/json`";
        return Err(ApiError::new(415, Some("unsupported_media_type"), what));
    }
    let most = app.options.max_body_bytes;
    let too_large =
        || ApiError::new(413, Some("request_too_large"), format!("the body is larger than {most} bytes"));
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if length.is_some_and(|n: u64| n > most as u64) {
        return Err(too_large());
    }
    let bytes = receive(app, body).await?.ok_or_else(too_large)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::new(400, Some("invalid_json"), format!("the body is not JSON: {e}")))
}

/// The bytes; `None` where there are too many.
async fn receive(app: &App, body: Body) -> Result<Option<Bytes>, ApiError> {
    let limit = app.options.receive_timeout;
    let Ok(received) = tokio::time::timeout(limit, to_bytes(body, app.options.max_body_bytes)).await else {
        let what = format!("the body took longer than {} s", limit.as_secs());
        return Err(ApiError::new(408, Some("request_timeout"), what));
    };
    match received {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.source().is_some_and(|e| e.to_string() == "length limit exceeded") => Ok(None),
        Err(_) => Err(ApiError::new(400, None, "the body does not come whole")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json"))
}
