//! What travels through a pipeline.

use crate::error::Stop;
use galen_data::order::SplitMix64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A row: its fields, and where they come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// Of its seed (`file:line`, or the field that names it); a row that is one of several has its number behind it.
    pub id: String,
    /// Ids of the seeds that it is made of, its own first.
    pub seeds: Vec<String>,
    /// What templates see as `row`.
    pub fields: Map<String, Value>,
    /// The steps that made something of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<Trail>,
}

/// A step that made something of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// Its place among the pipeline's steps.
    pub step: usize,
    /// What its random numbers follow from.
    pub seed: u64,
    /// Which of its rows this is.
    pub k: usize,
}

impl Row {
    /// A field as text: text as it is, numbers and truth values as JSON has them. A row without it fails.
    pub(crate) fn text(&self, field: &str) -> Result<String, Stop> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(Value::Null) | None => {
                Err(Stop::failed("field missing", format!("the row has no field `{field}`")))
            }
            Some(_) => Err(Stop::failed("field of another kind", format!("`{field}` is no text"))),
        }
    }

    /// A field that holds a list of texts.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<String>, Stop> {
        let wrong = || Stop::failed("field of another kind", format!("`{field}` is no list of texts"));
        match self.fields.get(field) {
            Some(Value::Array(list)) => {
                list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(Value::Null) | None => {
                Err(Stop::failed("field missing", format!("the row has no field `{field}`")))
            }
            Some(_) => Err(wrong()),
        }
    }

    /// The same with a field set.
    #[must_use]
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }
}

/// What the random numbers of a step for a row follow from: nothing else, so that rows may be computed in any order.
pub(crate) fn seed_of(seed: u64, step: &str, row: &str) -> u64 {
    let digest = Sha256::digest(format!("{seed}\n{step}\n{row}"));
    let mut bytes = [0_u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// Random numbers for one purpose within a step's row.
pub(crate) fn random(seed: u64, purpose: u64) -> SplitMix64 {
    SplitMix64::keyed(&[seed, purpose])
}
