//! A text of a row: one of its fields, or a template over them.

use crate::context::{Context, variables};
use crate::error::Stop;
use crate::row::Row;
use galen_reward::Param;

/// Where a step's text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextOf {
    /// A field.
    Field(String),
    /// A template, by name.
    Template(String),
}

impl TextOf {
    pub fn of(&self, cx: &Context<'_>, row: &Row) -> Result<String, Stop> {
        match self {
            Self::Field(name) => row.text(name),
            Self::Template(name) => cx.render(name, &variables(row)),
        }
    }
}

/// The parameter of steps that look at one field.
pub(crate) const FIELD: Param = Param::with(
    "field",
    galen_reward::Kind::Text,
    "\"text\"",
    "the text: a field's name, or a template with `{{ row.x }}` in it",
);
