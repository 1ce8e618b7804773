//! `argilla_chat`: `chosen` and `rejected` (or `completion` with `label`) are whole conversations; the last turn is the
//! answer, all before it the prompt.

use super::reader::{Reader, Said, labelled, last_turn, pair};
use super::single_turn::same_prompt;
use super::{PreferenceFormat, PreferenceType};
use crate::{DataError, Fault};
use galen_types::{Message, Origin, Preference, RawRow};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "argilla_chat",
    aliases: &["chat_template.argilla"],
    about: "`chosen` and `rejected` (or `completion` and `label`) as whole conversations, the last turn the answer",
    // The same rows are `preference`, where the answer is all that differs.
    detect: |_| false,
    build: |spec, _| Ok(Box::new(ArgillaChat { reader: Reader::new(spec) })),
};

struct ArgillaChat {
    reader: Reader,
}

/// The turns before the last.
fn prompt(said: &Said, name: &str, origin: &Origin) -> Result<Vec<Message>, DataError> {
    match said {
        Said::Turns(turns) => Ok(turns[..turns.len().saturating_sub(1)].to_vec()),
        Said::Text(_) => Err(DataError::row(
            origin,
            Fault::WrongKind,
            format!("`{name}` should be a list of turns, found text"),
        )),
    }
}

impl PreferenceFormat for ArgillaChat {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let chosen = Reader::field(reader.chosen.as_ref(), &["chosen"], &fields).to_owned();
        let completion = Reader::field(reader.completion.as_ref(), &["completion"], &fields).to_owned();
        if fields.contains_key(&chosen) || !fields.contains_key(&completion) {
            let rejected = Reader::field(reader.rejected.as_ref(), &["rejected"], &fields).to_owned();
            let better = reader.said(&fields, &chosen, &origin)?;
            let worse = reader.said(&fields, &rejected, &origin)?;
            let turns = prompt(&better, &chosen, &origin)?;
            prompt(&worse, &rejected, &origin)?;
            same_prompt(&better, &worse, &origin)?;
            let prompt = reader.chat_prompt(&mut fields, turns, &origin)?;
            let better = last_turn(better, &chosen, &origin)?;
            let worse = last_turn(worse, &rejected, &origin)?;
            return pair(&fields, origin, prompt, better, worse);
        }
        let said = reader.said(&fields, &completion, &origin)?;
        let turns = prompt(&said, &completion, &origin)?;
        let prompt = reader.chat_prompt(&mut fields, turns, &origin)?;
        let answer = last_turn(said, &completion, &origin)?;
        let label = reader.labelled(&fields, &origin)?;
        Ok(labelled(origin, prompt, answer, label))
    }
}
