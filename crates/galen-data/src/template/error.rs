//! What can go wrong with a chat template, each with its origin and, where there is one, a remedy.

use super::env::RAISED;
use super::mask::Problem;
use galen_types::{InvariantError, Origin};
use minijinja::ErrorKind;

/// A template could not be compiled, or not rendered for a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is not a template.
    #[error("chat template: {what}")]
    Syntax {
        /// What is wrong, with its line.
        what: String,
    },
    /// Rendering messages that belong to no data row failed.
    #[error("chat template: {what}")]
    Prompt {
        /// What is wrong.
        what: String,
    },
    /// Rendering a row failed (also when the template itself refuses it).
    #[error("{origin}: chat template: {what}")]
    Row {
        /// The row.
        origin: Origin,
        /// What is wrong.
        what: String,
    },
    /// Something of the row does not appear in the rendered text.
    #[error(
        "{origin}: the chat template leaves out {what}\nhint: take a template that renders it (`chat_template:` or \
         `chat_template_jinja:`), or remove it from the data"
    )]
    LeftOut {
        /// The row.
        origin: Origin,
        /// What is missing.
        what: String,
    },
    /// Where a trained turn begins or ends in the rendered text cannot be told for certain.
    #[error(
        "{origin}: cannot tell exactly which text of turn {turn} (`{role}`) to train: {what}\nhint: mark it in the \
         template with `{{% generation %}}` ... `{{% endgeneration %}}`, or name the end-of-turn token in `eot_tokens`"
    )]
    Inexact {
        /// The row.
        origin: Origin,
        /// The turn, counted from 1.
        turn: usize,
        /// Its role.
        role: String,
        /// Why.
        what: String,
    },
    /// The row is a chat and there is no template.
    #[error(
        "{origin}: a chat needs a chat template\nhint: set `chat_template:` to a built-in name or a file"
    )]
    NoTemplate {
        /// The row.
        origin: Origin,
    },
    /// The rendering thread could not be started.
    #[error(
        "chat template: cannot start a rendering thread\nhint: raise the limit on address space or threads"
    )]
    Thread,
    /// Rendered text and spans did not fit together.
    #[error(transparent)]
    Invariant(#[from] InvariantError),
}

impl TemplateError {
    pub(super) fn of_row(origin: Origin, problem: Problem) -> Self {
        match problem {
            Problem::Render(e) => Self::Row { origin, what: describe(&e) },
            Problem::LeftOut(what) => Self::LeftOut { origin, what },
            Problem::Inexact { turn, role, what } => Self::Inexact { origin, turn: turn + 1, role, what },
            Problem::Text(what) => Self::Row { origin, what },
            Problem::Thread => Self::Thread,
        }
    }
}

/// One line for a minijinja error: its cause, its line, and the template's own words where it raised.
pub(super) fn describe(e: &minijinja::Error) -> String {
    let detail = e.detail().unwrap_or_default();
    let what = if let Some(at) = detail.find(RAISED) {
        format!("it refuses these messages: `{}`", &detail[at + RAISED.len()..])
    } else {
        match e.kind() {
            ErrorKind::OutOfFuel => "it runs too long (instruction limit)".to_string(),
            kind if detail.is_empty() => kind.to_string(),
            kind => format!("{kind}: {detail}"),
        }
    };
    let cause = std::error::Error::source(e).map(|s| format!(": {s}")).unwrap_or_default();
    match e.line() {
        Some(line) => format!("line {line}: {what}{cause}"),
        None => format!("{what}{cause}"),
    }
}
