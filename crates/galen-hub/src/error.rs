//! Everything that can go wrong on the way to a file.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, HubError>;

/// Why a model, adapter or data set could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that looks like a path, and nothing is there.
    #[error("`{0}`: no such file or folder")]
    NoSuchPath(String),
    /// Neither a path, nor a hub id, nor a catalogue name.
    #[error("`{name}` is no local path, hub id or catalogue name\nhint: {hint}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The nearest catalogue names and the accepted forms.
        hint: String,
    },
    /// A repository id, revision or file name that could leave the cache folder or is malformed.
    #[error("`{name}`: {why}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Offline, and not in a cache.
    #[error("`{what}` is not in the cache, and offline mode opens no socket\nhint: {hint}")]
    Offline {
        /// What was asked for.
        what: String,
        /// What to fetch and where to put it.
        hint: String,
    },
    /// No usable answer came.
    #[error(
        "{url}: {why}\nhint: check the network and `HF_ENDPOINT`; a download goes on where it stopped when you run this again"
    )]
    Unreachable {
        /// The address asked.
        url: String,
        /// What happened.
        why: String,
    },
    /// Access refused.
    #[error("{url}: access refused (status {status}{detail})\nhint: {hint}")]
    Denied {
        /// The address asked.
        url: String,
        /// 401 or 403.
        status: u16,
        /// The server's own error code, with a leading `, `, or nothing.
        detail: String,
        /// About the token.
        hint: String,
    },
    /// The server does not have it.
    #[error(
        "{what}: not found on the hub ({detail})\nhint: check the spelling; a private repository needs `HF_TOKEN`"
    )]
    NotOnHub {
        /// Repository, revision or file.
        what: String,
        /// Status, and the server's own error code.
        detail: String,
    },
    /// Any other status.
    #[error("{url}: the server answered status {status}")]
    Status {
        /// The address asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// The bytes are not the ones promised.
    #[error("{what}: sha256 is `{actual}`, expected `{expected}`")]
    Checksum {
        /// The file.
        what: String,
        /// Promised digest, hex.
        expected: String,
        /// Digest found, hex.
        actual: String,
    },
    /// More or fewer bytes than promised.
    #[error("{what}: {actual} bytes, expected {expected}")]
    Size {
        /// The file.
        what: String,
        /// Promised size.
        expected: u64,
        /// Size found (or the limit that was passed).
        actual: u64,
    },
    /// The disk is full.
    #[error("{}: no space left to write it\nhint: free some space, or point {variable} to a larger disk", path.display())]
    NoSpace {
        /// The file being written.
        path: PathBuf,
        /// The environment variable that moves the folder.
        variable: &'static str,
    },
    /// A file system error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A wheel could not be downloaded or read.
    #[error("pip wheel `{requirement}`: {why}\nhint: {hint}")]
    Wheel {
        /// `package==version`.
        requirement: String,
        /// What happened.
        why: String,
        /// What to do.
        hint: String,
    },
    /// A repository or folder does not hold what is needed.
    #[error("{what}: {why}")]
    Contents {
        /// The repository or folder.
        what: String,
        /// What is missing or ambiguous.
        why: String,
    },
    /// A data set whose files are of other splits than the one that is wanted.
    #[error("{what}: no split `{split}`{}", splits_hint(there))]
    NoSplit {
        /// The repository or folder.
        what: String,
        /// The split asked for.
        split: String,
        /// Those there are; empty where no name speaks of splits.
        there: Vec<&'static str>,
    },
    /// A document from the server or the catalogue that cannot be understood.
    #[error("{what}: {why}")]
    Format {
        /// The document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Every source was tried.
    #[error("`{name}`: no source delivered it{tried}\nhint: {hint}")]
    Exhausted {
        /// What was asked for.
        name: String,
        /// One line a source, each beginning with a line break.
        tried: String,
        /// Where a file fetched by hand would go.
        hint: String,
    },
}

impl HubError {
    /// A file system error at `path`; a full disk gets its own variant.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return Self::NoSpace { path: path.into(), variable: "`GALEN_CACHE` (or `HF_HOME`)" };
        }
        Self::Io { path: path.into(), source }
    }

    /// The text before the hint: for one line in a list of tried sources.
    pub(crate) fn headline(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// Whether the server could not be asked at all: what is cached may be used instead.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Offline { .. })
            || matches!(self, Self::Status { status, .. } if *status == 429 || *status >= 500)
    }
}

fn splits_hint(there: &[&str]) -> String {
    match there {
        [] => ": no file's name speaks of splits".to_owned(),
        there => format!("\nhint: there are {}", there.join(", ")),
    }
}
