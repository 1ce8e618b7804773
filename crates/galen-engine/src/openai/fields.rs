//! A JSON object read field by field, so that none is left unread.

use super::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields not yet read. `null` is as good as absent.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Errors: not an object.
    pub fn new(value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ApiError::new(400, None, "the body is not a JSON object")),
        }
    }

    /// A field, whatever it holds.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|v| !v.is_null())
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::value(name, format!("`{name}` is not a string"))),
        }
    }

    /// True or false.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(ApiError::value(name, format!("`{name}` is not true or false"))),
        }
    }

    /// A number within a range.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        if let Some(n) = value.as_f64().filter(|n| range.contains(n)) {
            return Ok(Some(n as f32));
        }
        let (low, high) = range.into_inner();
        Err(ApiError::value(name, format!("`{name}` is not a number from {low} to {high}")))
    }

    /// A whole number within a range.
    pub fn count(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        if let Some(n) = value.as_u64().filter(|n| range.contains(n)) {
            return Ok(Some(n));
        }
        let (low, high) = range.into_inner();
        Err(ApiError::value(name, format!("`{name}` is not a whole number from {low} to {high}")))
    }

    /// A text or several.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let wrong = || ApiError::value(name, format!("`{name}` is neither a string nor a list of strings"));
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) => {
                list.into_iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A field that this server honours only where it asks for what is done anyway.
    pub fn only(&mut self, name: &str, harmless: impl Fn(&Value) -> bool, why: &str) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !harmless(&value) => {
                Err(ApiError::field(name, "unsupported_parameter", format!("`{name}`: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Fields that never change an answer.
    pub fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.0.shift_remove(*name);
        }
    }

    /// Whether nothing is left. Errors: the first field nobody read.
    pub fn done(self) -> Result<(), ApiError> {
        match self.0.into_iter().find(|(_, v)| !v.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("unknown field `{name}`: this server would not honour it");
                Err(ApiError::field(&name, "unknown_parameter", message))
            }
        }
    }
}
