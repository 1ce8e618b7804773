//! What can go wrong between a file and a token.

use galen_types::{InvariantError, Origin};

/// The kind of fault a row has; `galen data check` counts by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Not a record of its file format (bad JSON, a CSV line of another width, a line too long ...).
    Syntax,
    /// A field the dataset type needs is absent or null.
    MissingField,
    /// A field has another kind of value than the dataset type needs.
    WrongKind,
    /// A turn or text that says nothing.
    EmptyTurn,
    /// The chat template or the tokenizer could not take the row.
    Template,
    /// The answers of a preference row do not answer the same prompt.
    PromptMismatch,
}

impl Fault {
    /// Two or three words for a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Syntax => "not of the format",
            Self::MissingField => "field missing",
            Self::WrongKind => "wrong kind of value",
            Self::EmptyTurn => "empty turn",
            Self::Template => "template problem",
            Self::PromptMismatch => "prompts differ",
        }
    }
}

/// Failures of data preparation. Texts name their origin first and end with a `hint:` line where a remedy exists.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io {
        /// The file as the user named it.
        file: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// A file that cannot be read any further.
    #[error("{file}: {what}{}", hint_line(.hint.as_deref()))]
    File {
        /// The file as the user named it.
        file: String,
        /// What is wrong with it.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// One bad row; reading can go on behind it (`on_bad_row: skip`).
    #[error("{origin}: {what}{}", hint_line(.hint.as_deref()))]
    Row {
        /// `file:line`.
        origin: Origin,
        /// Its kind.
        fault: Fault,
        /// What is wrong.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// A dataset entry of the configuration that cannot be honoured.
    #[error("{dataset}: {what}{}", hint_line(.hint.as_deref()))]
    Spec {
        /// The entry's `path`.
        dataset: String,
        /// What is wrong.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// Nothing is left to train on.
    #[error("{what}{}", hint_line(.hint.as_deref()))]
    Empty {
        /// What became of the rows.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// The tokenizer failed on a text.
    #[error("{origin}: the tokenizer failed: {what}")]
    Tokenizer {
        /// `file:line`.
        origin: Origin,
        /// What it said.
        what: String,
    },
    /// A door type refused its values.
    #[error(transparent)]
    Invariant(#[from] InvariantError),
}

impl DataError {
    pub(crate) fn io(file: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { file: file.into(), source }
    }

    pub(crate) fn file(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::File { file: file.into(), what: what.into(), hint: None }
    }

    pub(crate) fn row(origin: &Origin, fault: Fault, what: impl Into<String>) -> Self {
        Self::Row { origin: origin.clone(), fault, what: what.into(), hint: None }
    }

    pub(crate) fn spec(dataset: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Spec { dataset: dataset.into(), what: what.into(), hint: None }
    }

    /// The same error with a remedy (kinds without room for one are returned unchanged).
    pub(crate) fn with_hint(mut self, remedy: impl Into<String>) -> Self {
        match &mut self {
            Self::File { hint, .. }
            | Self::Row { hint, .. }
            | Self::Spec { hint, .. }
            | Self::Empty { hint, .. } => {
                *hint = Some(remedy.into());
            }
            Self::Io { .. } | Self::Tokenizer { .. } | Self::Invariant(_) => {}
        }
        self
    }

    /// The fault of a bad row; `None` where the error ends the reading.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Row { fault, .. } => Some(*fault),
            _ => None,
        }
    }
}

fn hint_line(hint: Option<&str>) -> String {
    hint.map(|h| format!("\nhint: {h}")).unwrap_or_default()
}

/// The candidate nearest to `name` in edit distance, if near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::levenshtein(&name.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= 1 + name.chars().count().max(c.chars().count()) / 3)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_or_nothing() {
        let names = ["messages", "conversations", "text"];
        for (given, expect) in [("mesages", Some("messages")), ("Text", Some("text")), ("zzzzzzzz", None)] {
            assert_eq!(nearest(given, names), expect, "{given}");
        }
    }

    #[test]
    fn texts_have_origin_and_hint() {
        let e = DataError::row(&Origin::new("a.jsonl", 17), Fault::EmptyTurn, "assistant turn is empty")
            .with_hint("fill it");
        assert_eq!(e.to_string(), "a.jsonl:17: assistant turn is empty\nhint: fill it");
    }
}
