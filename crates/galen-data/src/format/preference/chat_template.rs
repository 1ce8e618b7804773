//! `chat_template`: `messages` before the answer, `chosen` and `rejected` as text, a turn, or turns of which the last
//! counts (Axolotl's `chat_template.default`, with its `field_*` keys).

use super::reader::{Reader, Said, labelled, last_turn, pair, turn};
use super::single_turn::has;
use super::{Fields, PreferenceFormat, PreferenceType};
use crate::{DataError, Fault};
use galen_types::{Preference, RawRow};
use serde_json::Value;

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "chat_template",
    aliases: &["chat_template.default"],
    about: "`messages`, `chosen` and `rejected` (or `completion` and `label`); the names can be changed with `field_*`",
    detect: |row| {
        has(row, &["messages", "chosen", "rejected"]) && !repeats_chosen(row)
            || has(row, &["messages", "completion", "label"])
    },
    build: |spec, _| {
        let messages = spec.field_messages.clone().unwrap_or_else(|| "messages".to_owned());
        Ok(Box::new(ChatTemplatePairs { messages, reader: Reader::new(spec) }))
    },
};

/// Whether `messages` is the whole conversation of `chosen`, its answer too, as UltraFeedback's binarised rows have it: no prompt.
fn repeats_chosen(row: &Fields) -> bool {
    let turns = |name: &str| row.get(name).and_then(Value::as_array).filter(|turns| turns.len() > 1);
    turns("chosen").is_some() && turns("chosen") == turns("messages")
}

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
        let chosen = Reader::field(reader.chosen.as_ref(), &["chosen"], &fields);
        if fields.contains_key(chosen)
            && let Said::Turns(turns) = reader.said(&fields, chosen, &origin)?
            && turns.len() > 1
            && prompt.ends_with(&turns[turns.len() - 1..])
        {
            let what = format!(
                "`{}` ends with the answer of `{chosen}` itself: `type: preference` takes what both answers begin with for the prompt",
                self.messages
            );
            return Err(DataError::row(&origin, Fault::PromptMismatch, what));
        }
        let prompt = reader.chat_prompt(&mut fields, prompt, &origin)?;
        let answer = |name: &str| last_turn(reader.said(&fields, name, &origin)?, name, &origin);
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
