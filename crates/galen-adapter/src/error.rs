//! What can go wrong with an adapter.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of an adapter directory is missing, unreadable or not what it says.
    #[error("{origin}: {what}")]
    File {
        /// The file.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// The configuration does not fit the model or this program.
    #[error("{0}")]
    Config(String),
    /// An operation refused.
    #[error(transparent)]
    Ops(#[from] galen_ops::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn file_error<T>(origin: impl ToString, what: impl Into<String>) -> Result<T> {
    Err(Error::File { origin: origin.to_string(), what: what.into() })
}
