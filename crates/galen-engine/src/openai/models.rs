//! `/v1/models`.

use super::ApiError;
use crate::engine::ModelCard;
use serde_json::{Value, json};

/// All of them.
pub fn models(cards: &[ModelCard]) -> Value {
    json!({"object": "list", "data": cards.iter().map(one).collect::<Vec<_>>()})
}

/// One of them.
pub fn model(cards: &[ModelCard], name: &str) -> Result<Value, ApiError> {
    match cards.iter().find(|c| c.name == name) {
        Some(card) => Ok(one(card)),
        None => Err(crate::EngineError::UnknownModel(name.to_owned()).into()),
    }
}

/// With vLLM's additions: an adapter's base, and the context.
fn one(card: &ModelCard) -> Value {
    let ModelCard { name, parent, created, max_tokens } = card;
    json!({
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "galen",
        "root": name,
        "parent": parent,
        "max_model_len": max_tokens,
    })
}
