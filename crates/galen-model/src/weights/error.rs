//! What can be wrong with a model's files.

use std::path::Path;

use galen_ops::mmap::MapError;

/// A model's files cannot be used. Every message begins with the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file cannot be opened.
    #[error(transparent)]
    Open(#[from] MapError),
    /// Not a model this crate knows how to open.
    #[error("{path}: {what}\nhint: give a directory with `config.json` and safetensors, or a `.gguf` file")]
    NotAModel {
        /// What was given.
        path: String,
        /// Why not.
        what: String,
    },
    /// A file breaks its own format.
    #[error("{path}: {what}\nhint: the file is damaged, cut short or not what its name says; fetch it again")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong, and where.
        what: String,
    },
    /// A configuration that is not valid or not complete.
    #[error("{path}: {what}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A sound model that needs something galen does not do.
    #[error("{path}: {what} is not supported{}", hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default())]
    Unsupported {
        /// The file.
        path: String,
        /// The feature, with its name in backticks.
        what: String,
        /// A remedy, where there is one.
        hint: Option<String>,
    },
    /// The model lacks a tensor.
    #[error("{path}: there is no tensor `{name}`{}", stored.as_ref().map(|s| format!(" (stored as `{s}`)")).unwrap_or_default())]
    Missing {
        /// The model.
        path: String,
        /// Hugging Face name.
        name: String,
        /// The name in the file, where it is another.
        stored: Option<String>,
    },
    /// A tensor of the wrong shape.
    #[error("{path}: tensor `{name}` has shape {got:?} instead of {want:?}")]
    Shape {
        /// The model.
        path: String,
        /// Hugging Face name.
        name: String,
        /// Shape in the file.
        got: Vec<usize>,
        /// Shape the configuration asks for.
        want: Vec<usize>,
    },
}

impl WeightsError {
    pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.display().to_string(), what: what.into() }
    }

    pub(super) fn config(path: &Path, what: impl Into<String>) -> Self {
        Self::Config { path: path.display().to_string(), what: what.into() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.display().to_string(), what: what.into(), hint: None }
    }
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, WeightsError>;
