//! `completion` (alias `text`): plain text, all of it under the loss. Texts longer than `sequence_len` are cut into
//! several rows at tokenization, never dropped.

use super::{DatasetType, RowFormat, no_style, not_empty, text};
use crate::{DataError, DatasetSpec};
use galen_types::{Conversation, RawRow};

pub(super) const TYPE: DatasetType = DatasetType {
    name: "completion",
    aliases: &["text"],
    about: "plain text in the field `text` (or `field:`), all of it trained",
    detect: |row| row.get("text").is_some_and(serde_json::Value::is_string),
    build: |spec, style| {
        no_style(spec, "completion", style)?;
        Ok(Box::new(Completion::new(spec)))
    },
};

struct Completion {
    field: String,
}

impl Completion {
    fn new(spec: &DatasetSpec) -> Self {
        Self { field: spec.field.clone().unwrap_or_else(|| "text".to_owned()) }
    }
}

impl RowFormat for Completion {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let text = not_empty(text(&row.fields, &self.field, &row.origin)?, &self.field, &row.origin)?;
        Ok(Conversation::Pieces { origin: row.origin, pieces: vec![(text, true)], append_eos: true })
    }
}
