//! A row understood: turns for a chat template, or pieces of plain text.

use crate::Origin;
use serde_json::Value;

/// One turn of a chat. `fields` is what the chat template sees (`role`, `content`, `tool_calls`, `name` ...).
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The role after `roles` mapping: `system`, `user`, `assistant`, `tool` ...
    pub role: String,
    /// The whole message as a JSON object, given to the template unchanged (it contains `role` too).
    pub fields: serde_json::Map<String, Value>,
    /// Whether the loss covers this turn (by `roles_to_train`, or a per-message `train`/`weight` field).
    pub train: bool,
}

/// What a row says, before any template.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversation {
    /// Rendered by the chat template.
    Chat {
        /// Where the row stands.
        origin: Origin,
        /// At least one turn.
        messages: Vec<Message>,
        /// Tool definitions handed to the template as `tools`.
        tools: Option<Value>,
        /// Further template variables of this row (for example `enable_thinking`).
        template_kwargs: serde_json::Map<String, Value>,
    },
    /// Laid end to end without a template: (text, supervised). Types `completion`, `input_output`, `alpaca` ...
    Pieces {
        /// Where the row stands.
        origin: Origin,
        /// Text pieces in order, each with whether the loss covers it.
        pieces: Vec<(String, bool)>,
        /// Whether the tokenizer's end-of-sequence token is appended, supervised iff the last piece is.
        append_eos: bool,
    },
}

impl Conversation {
    /// Where the row stands.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Chat { origin, .. } | Self::Pieces { origin, .. } => origin,
        }
    }
}
