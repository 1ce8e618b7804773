//! `prompt_completion`: `prompt` and `completion`, both text or both lists of turns (TRL's shape).

use super::chat_template::{Chat, Names};
use super::{DatasetType, RowFormat, no_style, not_empty, prompt_and_answer, required, text, wrong_kind};
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Conversation, RawRow};
use serde_json::Value;

pub(super) const TYPE: DatasetType = DatasetType {
    name: "prompt_completion",
    aliases: &[],
    about: "`prompt` and `completion`, texts or turns; the completion is trained",
    detect: |row| ["prompt", "completion"].iter().all(|f| row.get(*f).is_some_and(|v| !v.is_null())),
    build: |spec, style| {
        no_style(spec, "prompt_completion", style)?;
        Ok(Box::new(PromptCompletion::new(spec)))
    },
};

struct PromptCompletion {
    chat: Chat,
}

impl PromptCompletion {
    fn new(spec: &DatasetSpec) -> Self {
        let names = Names { field: None, role: "role", content: "content", roles: &[] };
        Self { chat: Chat::new(spec, &names) }
    }
}

impl RowFormat for PromptCompletion {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let RawRow { origin, mut fields } = row;
        let prompt = required(&fields, "prompt", &origin)?.clone();
        let completion = required(&fields, "completion", &origin)?.clone();
        let (Value::Array(prompt), Value::Array(completion)) = (&prompt, &completion) else {
            for (name, value) in [("prompt", &prompt), ("completion", &completion)] {
                if value.is_array() {
                    return Err(wrong_kind(name, "a string, as its other half is", value, &origin));
                }
            }
            let prompt = text(&fields, "prompt", &origin)?;
            let answer = not_empty(text(&fields, "completion", &origin)?, "completion", &origin)?;
            return Ok(prompt_and_answer(origin, prompt, answer));
        };
        if completion.is_empty() {
            return Err(DataError::row(&origin, Fault::EmptyTurn, "`completion` has no turns"));
        }
        let mut messages = Vec::with_capacity(prompt.len() + completion.len());
        for (i, turn) in prompt.iter().chain(completion).enumerate() {
            let mut message = self.chat.message(turn.clone(), i, &origin)?;
            // The halves say what is trained; a role other than the assistant's in the completion is not.
            message.train &= i >= prompt.len();
            messages.push(message);
        }
        self.chat.system_turn(&fields, &mut messages, false);
        self.chat.finish(&mut fields, messages, origin)
    }
}
