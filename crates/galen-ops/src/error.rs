//! What can go wrong in an operation.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes, dtypes or devices that do not fit the operation.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit, with the sizes in backticks.
        what: String,
    },
    /// A device, its driver or its memory, with what to do about it.
    #[error("{0}")]
    Device(String),
    /// The tensor library refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn shape_error<T>(op: &'static str, what: impl Into<String>) -> Result<T> {
    Err(Error::Shape { op, what: what.into() })
}
