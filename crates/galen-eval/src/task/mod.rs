//! A task: where its rows are, how a row becomes a prompt, what counts as right.

mod build;
mod dataset;
mod find;
mod keys;
mod read;
mod yaml;

pub use dataset::Dataset;
pub use find::{TaskEntry, list};
pub use keys::{KEYS, KeyState};
pub(crate) use read::shorten;

use crate::EvalError;
use crate::filters::Pipeline;
use crate::metrics::MetricSpec;
use std::path::PathBuf;

/// What the model is asked to do with a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputType {
    /// Say which of the given continuations is the likeliest.
    MultipleChoice,
    /// Continue the text.
    GenerateUntil,
}

/// How a row gives a text, a choice list or a target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DocTo {
    /// A field's name, or a template.
    Text(String),
    /// The same number for every row.
    Int(i64),
    /// The same list for every row.
    List(Vec<String>),
}

/// How the text of an answer is generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Stop texts.
    pub until: Vec<String>,
    /// At most this many tokens.
    pub max_gen_toks: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// 0 keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f64,
}

/// How the examples before a question are made; each field falls back to the task's own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fewshot {
    pub sampler: Sampler,
    pub split: Option<String>,
    pub samples: Vec<serde_json::Map<String, serde_json::Value>>,
    pub indices: Option<Vec<usize>>,
    pub doc_to_text: DocTo,
    pub doc_to_choice: Option<DocTo>,
    pub doc_to_target: DocTo,
    pub gen_prefix: Option<String>,
    pub target_delimiter: String,
    pub delimiter: String,
}

/// Which examples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampler {
    /// Drawn anew for every question, as Python's `random.Random(seed).sample` draws.
    Random,
    /// The first ones.
    FirstN,
}

/// A task, checked: every key known, every template compiled, every metric and filter built.
#[derive(Debug)]
pub struct Task {
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) alias: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) output_type: OutputType,
    pub(crate) dataset: Dataset,
    pub(crate) doc_to_text: DocTo,
    pub(crate) doc_to_target: DocTo,
    pub(crate) doc_to_choice: Option<DocTo>,
    pub(crate) description: String,
    pub(crate) target_delimiter: String,
    pub(crate) gen_prefix: Option<String>,
    pub(crate) num_fewshot: Option<usize>,
    pub(crate) fewshot: Fewshot,
    pub(crate) generation: Generation,
    pub(crate) metrics: Vec<MetricSpec>,
    pub(crate) filters: Vec<Pipeline>,
    pub(crate) repeats: usize,
    pub(crate) notes: Vec<String>,
}

impl Task {
    /// Finds `name` and reads it: a path ending in `.yaml`/`.yml`, a task of `include_path` (by its `task:` key), or a
    /// built-in one. Reads no data yet.
    pub fn load(name: &str, include_path: Option<&std::path::Path>) -> Result<Self, EvalError> {
        let source = find::find(name, include_path)?;
        build::task(&source)
    }

    /// The task of a YAML text; relative data files are looked up in `folder`, then in the working directory.
    pub fn from_yaml(text: &str, origin: &str, folder: impl Into<PathBuf>) -> Result<Self, EvalError> {
        build::from_entries(yaml::parse(text, origin)?, origin, folder.into())
    }

    /// The `task:` key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `metadata.version`, as text.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What the model is asked to do.
    pub fn output_type(&self) -> OutputType {
        self.output_type
    }

    /// Where its rows are.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Keys without effect here, each with the reason (for `galen eval validate` and a summary line).
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests;
