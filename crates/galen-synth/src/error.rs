//! What can go wrong.

use galen_data::DataError;
use galen_reward::ConfigError;
use std::path::Path;

/// A pipeline cannot run, or has to stop. What befalls a single row is no error: it is written into the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// The configuration is not what galen can run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Seeds or evaluation sets cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// A journal is not what this pipeline wrote.
    #[error("{file}: {what}\nhint: {hint}")]
    Journal {
        /// The file, perhaps with its line.
        file: String,
        /// What is wrong.
        what: String,
        /// The remedy.
        hint: String,
    },
    /// A step cannot go on.
    #[error("step `{step}`: {what}")]
    Step {
        /// Its label.
        step: String,
        /// What happened, perhaps with a hint.
        what: String,
    },
    /// The run was asked to stop. What is in the journal stays.
    #[error("stopped; `--resume` goes on")]
    Stopped,
}

impl SynthError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { file: path.display().to_string(), source }
    }

    pub(crate) fn step(step: &str, what: impl Into<String>) -> Self {
        Self::Step { step: step.to_owned(), what: what.into() }
    }
}

/// Why a row goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A filter took it out.
    Filtered {
        /// A few words, the same for all rows of that kind.
        reason: String,
        /// What is to be said of this row.
        detail: String,
    },
    /// Something went wrong with it.
    Failed {
        /// A few words, the same for all rows of that kind.
        reason: &'static str,
        /// What is to be said of this row.
        detail: String,
    },
    /// It is the whole run that cannot go on.
    Run(SynthError),
}

impl Stop {
    pub fn filtered(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Filtered { reason: reason.into(), detail: detail.into() }
    }

    pub fn failed(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::Failed { reason, detail: detail.into() }
    }
}

impl From<SynthError> for Stop {
    fn from(e: SynthError) -> Self {
        Self::Run(e)
    }
}
