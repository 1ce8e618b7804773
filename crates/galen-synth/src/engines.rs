//! The models that steps ask.

use galen_engine::Engine;
use galen_reward::Param;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A kind of engine, as configurations name it. Who opens it lies outside of this crate.
#[derive(Debug)]
pub struct EngineKind {
    /// Its name in `type`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it is in full, Markdown.
    pub doc: &'static str,
    /// Its parameters, in groups that several share.
    pub params: &'static [&'static [Param]],
    /// Whether it gives log-probabilities.
    pub logprobs: bool,
}

/// An engine of a configuration, not opened.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSpec {
    /// Its name under `engines`.
    pub name: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// Whether that gives log-probabilities.
    pub logprobs: bool,
    /// Its parameters, checked against the kind's.
    pub given: Map<String, Value>,
}

/// An engine, opened.
#[derive(Clone)]
pub struct Teacher {
    /// Answers.
    pub engine: Arc<dyn Engine>,
    /// The name of its kind.
    pub kind: &'static str,
    /// The model's name in requests.
    pub model: String,
    /// What stands for the model's weights: their SHA-256, or an endpoint's address and model.
    pub identity: String,
    /// Rows asked about at a time.
    pub concurrency: usize,
    /// Whether it holds answers to a JSON schema.
    pub constrains: bool,
    /// Whether the same request gives the same answer: asking again for it is of no use.
    pub repeats: bool,
    /// Price of a million tokens: of prompts, of answers.
    pub prices: [f64; 2],
}
