//! `chat_template`: `messages` before the answer, `chosen` and `rejected` as text, a turn, or turns of which the last
//! counts (Axolotl's `chat_template.default`, with its `field_*` keys).

use super::reader::{Reader, Said, labelled, last_turn, pair, turn};
use super::single_turn::has;
use super::{PreferenceFormat, PreferenceType};
use crate::DataError;
use galen_types::{Preference, RawRow};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "chat_template",
    aliases: &["chat_template.default"],
    about: "`messages`, `chosen` and `rejected` (or `completion` and `label`); the names can be changed with `field_*`",
    detect: |row| {
        has(row, &["messages", "chosen", "rejected"]) || has(row, &["messages", "completion", "label"])
    },
    build: |spec, _| {
        let messages = spec.field_messages.clone().unwrap_or_else(|| "messages".to_owned());
        Ok(Box::new(ChatTemplatePairs { messages, reader: Reader::new(spec) }))
    },
};

struct ChatTemplatePairs {
    messages: String,
    reader: Reader,
}

impl PreferenceFormat for ChatTemplatePairs {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let prompt = match reader.said(&fields, &self.messages, &origin)? {
            Said::Text(text) => vec![turn("user", &text)],
            Said::Turns(turns) => turns,
        };
        let prompt = reader.chat_prompt(&mut fields, prompt, &origin)?;
        let answer = |name: &str| last_turn(reader.said(&fields, name, &origin)?, name, &origin);
        let chosen = Reader::field(reader.chosen.as_ref(), &["chosen"], &fields);
        let completion = Reader::field(reader.completion.as_ref(), &["completion"], &fields);
        if fields.contains_key(chosen) || !fields.contains_key(completion) {
            let rejected = Reader::field(reader.rejected.as_ref(), &["rejected"], &fields);
            let (chosen, rejected) = (answer(chosen)?, answer(rejected)?);
            return pair(&fields, origin, prompt, chosen, rejected);
        }
        let (answer, label) = (answer(completion)?, reader.labelled(&fields, &origin)?);
        Ok(labelled(origin, prompt, answer, label))
    }
}
