//! Where a row came from.

use std::fmt;
use std::sync::Arc;

/// The file and 1-based line (or record) number of a row; prints as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    file: Arc<str>,
    line: u64,
}

impl Origin {
    /// `line` counts from 1; for formats without lines (Parquet, a JSON array) it is the record number.
    pub fn new(file: impl Into<Arc<str>>, line: u64) -> Self {
        Self { file: file.into(), line }
    }

    /// The file as the user named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// 1-based line or record number.
    pub fn line(&self) -> u64 {
        self.line
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One record of a data file, not yet interpreted.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// Where it stands.
    pub origin: Origin,
    /// Its fields, in file order.
    pub fields: serde_json::Map<String, serde_json::Value>,
}
