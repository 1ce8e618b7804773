//! Everything that can go wrong between a task's name and its report.

use std::path::PathBuf;

/// An evaluation failed. Texts begin with where; a remedy, where there is one, follows `\nhint: `.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A task's YAML is not what galen can run: syntax, unknown or refused keys, wrong types.
    #[error("{origin}: {what}")]
    Task {
        /// `file:line`, or `file`.
        origin: String,
        /// What is wrong, and a hint.
        what: String,
    },
    /// No task of this name or file.
    #[error("task `{name}` not found{hint}")]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// Nearest name or what to do, beginning with `\nhint: `.
        hint: String,
    },
    /// A row of the data does not fit the task.
    #[error("{origin}: {what}")]
    Row {
        /// `file:line` of the row.
        origin: String,
        /// What is wrong, and a hint.
        what: String,
    },
    /// The model's side failed.
    #[error("task `{task}`: {source}")]
    Scorer {
        /// The task being scored.
        task: String,
        /// What the scorer said.
        source: crate::ScoreError,
    },
    /// A scorer broke its contract (wrong number of answers, or a log-probability that is not one).
    #[error("task `{task}`, item {item}: {what}")]
    Score {
        /// The task being scored.
        task: String,
        /// 0-based item.
        item: usize,
        /// What is wrong.
        what: String,
    },
    /// A report or samples file is not one.
    #[error("{origin}: {what}")]
    Report {
        /// `file:line`, or `file`.
        origin: String,
        /// What is wrong, and a hint.
        what: String,
    },
}

impl EvalError {
    #[expect(clippy::needless_pass_by_value, reason = "`path.display()` and the like are temporaries")]
    pub(crate) fn task(origin: impl ToString, what: impl Into<String>) -> Self {
        Self::Task { origin: origin.to_string(), what: what.into() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "`path.display()` and the like are temporaries")]
    pub(crate) fn row(origin: impl ToString, what: impl Into<String>) -> Self {
        Self::Row { origin: origin.to_string(), what: what.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// `; did you mean `x`?` for the known name nearest to `name`, or nothing when none is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
