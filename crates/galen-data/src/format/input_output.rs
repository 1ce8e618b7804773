//! `input_output`: the user's own pieces, `{"segments": [{"label": true, "text": "..."}]}`. Nothing is added, no end
//! token either: the texts hold what the model should see.

use super::{DatasetType, RowFormat, no_style, required, text, wrong_kind};
use crate::{DataError, Fault};
use galen_types::{Conversation, RawRow};
use serde_json::Value;

pub(super) const TYPE: DatasetType = DatasetType {
    name: "input_output",
    aliases: &[],
    about: "template-free: `segments` of `text` with a `label` that says whether it is trained",
    detect: |row| matches!(row.get("segments"), Some(Value::Array(s)) if s.iter().all(|s| s.get("label").is_some())),
    build: |spec, style| {
        no_style(spec, "input_output", style)?;
        Ok(Box::new(InputOutput))
    },
};

struct InputOutput;

impl RowFormat for InputOutput {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let origin = row.origin;
        let segments = match required(&row.fields, "segments", &origin)? {
            Value::Array(segments) => segments,
            other => return Err(wrong_kind("segments", "a list", other, &origin)),
        };
        let mut pieces = Vec::with_capacity(segments.len());
        for segment in segments {
            let Value::Object(segment) = segment else {
                return Err(wrong_kind("segments", "a list of objects", segment, &origin));
            };
            let label = match required(segment, "label", &origin)? {
                Value::Bool(label) => *label,
                other => return Err(wrong_kind("label", "a boolean", other, &origin)),
            };
            let text = text(segment, "text", &origin)?;
            if !text.is_empty() {
                pieces.push((text, label));
            }
        }
        if pieces.is_empty() {
            return Err(DataError::row(&origin, Fault::EmptyTurn, "all `segments` are empty"));
        }
        Ok(Conversation::Pieces { origin, pieces, append_eos: false })
    }
}
