//! What can go wrong with a tokenizer's files.

/// A tokenizer could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory without a tokenizer.
    #[error("{dir}: no `tokenizer.json`\nhint: {hint}")]
    Missing {
        /// The directory.
        dir: String,
        /// What else is there, and what to do about it.
        hint: &'static str,
    },
    /// A file does not hold what it should.
    #[error("{origin}: {what}")]
    Malformed {
        /// The file, or the GGUF key.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// A kind of tokenizer that is not supported.
    #[error("{origin}: {what} is not supported\nhint: {hint}")]
    Unsupported {
        /// The GGUF key.
        origin: String,
        /// The kind, by its name.
        what: String,
        /// What to do.
        hint: String,
    },
}

pub(super) type Result<T> = std::result::Result<T, TokenizerError>;

#[expect(clippy::needless_pass_by_value, reason = "errors and texts are handed over as they come")]
pub(super) fn malformed(origin: &str, what: impl ToString) -> TokenizerError {
    TokenizerError::Malformed { origin: origin.to_string(), what: what.to_string() }
}
