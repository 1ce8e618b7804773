//! `prompt`: what to sample answers for (GRPO, RLOO). Every other field of the row is kept for reward functions.

use super::reader::{Reader, Said, plain, turn};
use super::single_turn::has;
use super::{PreferenceFormat, PreferenceType, Texts};
use crate::format::not_empty;
use crate::{DataError, Fault};
use galen_types::{Preference, PromptRow, RawRow};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "prompt",
    aliases: &["prompt_only"],
    about: "`prompt`, text or turns (or `messages` without their last answer); other fields go to reward functions",
    detect: |row| has(row, &["prompt"]) || has(row, &["messages"]),
    build: |spec, texts| {
        let messages = spec.field_messages.clone().unwrap_or_else(|| "messages".to_owned());
        Ok(Box::new(PromptOnly { texts, messages, reader: Reader::new(spec) }))
    },
};

struct PromptOnly {
    texts: Texts,
    messages: String,
    reader: Reader,
}

impl PreferenceFormat for PromptOnly {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let name = Reader::field(reader.prompt.as_ref(), &[&self.messages, "prompt"], &fields);
        // Where a row has both, `prompt` says what is asked.
        let name =
            if reader.prompt.is_none() && has(&fields, &["prompt"]) { "prompt" } else { name }.to_owned();
        let prompt = match (reader.said(&fields, &name, &origin)?, self.texts) {
            (Said::Text(text), Texts::Plain) => plain(&fields, not_empty(text, &name, &origin)?, &origin)?,
            (Said::Text(text), Texts::Turns) => {
                let text = not_empty(text, &name, &origin)?;
                reader.chat_prompt(&mut fields, vec![turn("user", &text)], &origin)?
            }
            (Said::Turns(mut turns), _) => {
                let asked = turns.iter().rposition(|m| m.role != "assistant").map_or(0, |last| last + 1);
                if asked == 0 {
                    let what = format!("`{name}` holds answers only");
                    return Err(DataError::row(&origin, Fault::MissingField, what));
                }
                turns.truncate(asked);
                reader.chat_prompt(&mut fields, turns, &origin)?
            }
        };
        fields.shift_remove(&name);
        Ok(Preference::Prompt(PromptRow { origin, prompt, fields }))
    }
}
