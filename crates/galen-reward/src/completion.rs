//! What a reward judges.

use galen_types::{Message, Origin};
use serde_json::{Map, Value, json};

/// The prompt a completion continues.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Plain text.
    Text(&'a str),
    /// The turns before the completion.
    Messages(&'a [Message]),
}

impl Prompt<'_> {
    /// As JSON: a string, or a list of message objects.
    pub fn to_json(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Messages(turns) => turns.iter().map(|m| Value::Object(m.fields.clone())).collect(),
        }
    }
}

/// Why generation of a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The limit on new tokens cut it.
    Length,
}

impl Finish {
    /// `stop` or `length`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// One sampled completion and the data row it answers.
#[derive(Debug, Clone, Copy)]
pub struct Completion<'a> {
    /// What it continues.
    pub prompt: Prompt<'a>,
    /// Its text, without special tokens.
    pub text: &'a str,
    /// Its tokens as sampled, the end-of-sequence token included; empty for a text that comes from elsewhere.
    pub token_ids: &'a [u32],
    /// Why it ended.
    pub finish: Finish,
    /// Where the row stands.
    pub origin: &'a Origin,
    /// The row's fields.
    pub row: &'a Map<String, Value>,
}

impl Completion<'_> {
    /// The object a reward program or endpoint is sent:
    /// `{"id", "prompt", "completion", "tokens", "finish_reason", "row"}`; `tokens` is null where they are not known.
    pub fn to_request(&self, id: u64) -> Value {
        json!({
            "id": id,
            "prompt": self.prompt.to_json(),
            "completion": self.text,
            "tokens": (!self.token_ids.is_empty()).then_some(self.token_ids.len()),
            "finish_reason": self.finish.name(),
            "row": self.row,
        })
    }
}
