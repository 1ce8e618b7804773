//! What a step has at hand while it runs.

use crate::engines::Teacher;
use crate::error::{Stop, SynthError};
use crate::row::{Row, seed_of};
use galen_data::template::prompt::Prompts;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Beside its own parameters.
pub struct Context<'a> {
    /// Every template.
    pub prompts: &'a Prompts,
    /// Every engine, by name.
    pub teachers: &'a BTreeMap<String, Teacher>,
    /// The pipeline's seed.
    pub seed: u64,
    /// The step's label.
    pub label: &'a str,
    /// Whether the run is to end.
    pub stop: &'a AtomicBool,
}

impl Context<'_> {
    /// What the random numbers for a row follow from.
    pub(crate) fn seed_of(&self, row: &Row) -> u64 {
        seed_of(self.seed, self.label, &row.id)
    }

    pub(crate) fn teacher(&self, name: &str) -> Result<&Teacher, SynthError> {
        self.teachers
            .get(name)
            .ok_or_else(|| SynthError::step(self.label, format!("engine `{name}` is not open")))
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A template's text.
    pub(crate) fn render(&self, name: &str, variables: &Map<String, Value>) -> Result<String, Stop> {
        self.prompts.render(name, variables).map_err(|e| Stop::failed("template", e.to_string()))
    }

    /// Whether an expression holds of a row.
    pub(crate) fn holds(&self, expression: &str, row: &Row) -> Result<bool, Stop> {
        self.prompts.holds(expression, &variables(row)).map_err(|e| Stop::failed("expression", e.to_string()))
    }
}

/// What templates and expressions see of a row.
pub(crate) fn variables(row: &Row) -> Map<String, Value> {
    Map::from_iter([
        ("row".to_owned(), Value::Object(row.fields.clone())),
        ("id".to_owned(), Value::from(row.id.as_str())),
    ])
}

/// What a step measured of one row, and what it spent.
#[derive(Debug, Default)]
pub struct Tally {
    /// By name; the report has their means.
    pub figures: Map<String, Value>,
    /// Tokens of prompts, tokens of answers, requests.
    pub usage: [u64; 3],
}

impl Tally {
    /// A figure of the row; of several under one name the mean counts.
    pub fn figure(&mut self, name: &str, value: f64) {
        let list = self.figures.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value.into());
        }
    }
}
