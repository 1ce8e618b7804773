//! What can go wrong on the way out.

use galen_model::WeightsError;
use galen_model::tokenizer::TokenizerError;
use galen_ops::quant::QuantError;
use std::path::Path;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The base cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer cannot be read or written.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An adapter cannot be made or written.
    #[error(transparent)]
    Adapter(#[from] galen_adapter::Error),
    /// An operation refused.
    #[error(transparent)]
    Ops(#[from] galen_ops::Error),
    /// A merged model cannot be loaded again.
    #[error(transparent)]
    Load(#[from] galen_model::LoadError),
    /// A tensor does not go into its type.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// Its name in the new file.
        name: String,
        /// Why not.
        source: QuantError,
    },
    /// Something the format cannot hold.
    #[error("{what}\nhint: {hint}")]
    Cannot {
        /// What, values in backticks.
        what: String,
        /// The remedy.
        hint: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn cannot<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T> {
    Err(Error::Cannot { what: what.into(), hint: hint.into() })
}

/// Adds the file to a system's complaint.
pub(crate) fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { path: path.clone(), source }
}

/// Adds the tensor to a complaint about its values.
pub(crate) fn of_tensor(name: &str) -> impl Fn(QuantError) -> Error {
    let name = name.to_owned();
    move |source| Error::Tensor { name: name.clone(), source }
}
