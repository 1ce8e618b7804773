//! `unpaired`: `prompt`, `completion` and `label`, texts or turns (TRL's shape for KTO).

use super::reader::{Reader, Said, labelled, plain, text_answer, turn, turns_answer};
use super::single_turn::has;
use super::{PreferenceFormat, PreferenceType, Texts};
use crate::{DataError, Fault};
use galen_types::{Answer, Preference, RawRow};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "unpaired",
    aliases: &["kto"],
    about: "`prompt`, `completion`, texts or turns, and `label` (true: a good answer)",
    detect: |row| has(row, &["prompt", "completion", "label"]),
    build: |spec, texts| Ok(Box::new(Unpaired { texts, reader: Reader::new(spec) })),
};

struct Unpaired {
    texts: Texts,
    reader: Reader,
}

impl PreferenceFormat for Unpaired {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let prompt_name = Reader::field(reader.prompt.as_ref(), &["prompt"], &fields).to_owned();
        let name = Reader::field(reader.completion.as_ref(), &["completion"], &fields).to_owned();
        let label = reader.labelled(&fields, &origin)?;
        let prompt = reader.said(&fields, &prompt_name, &origin)?;
        let completion = reader.said(&fields, &name, &origin)?;
        let (prompt, completion) = match (prompt, completion, self.texts) {
            (Said::Text(prompt), Said::Text(answer), Texts::Plain) => {
                (plain(&fields, prompt, &origin)?, text_answer(answer, &name, &origin)?)
            }
            (Said::Text(prompt), Said::Text(answer), Texts::Turns) => {
                text_answer(answer.clone(), &name, &origin)?;
                let prompt = reader.chat_prompt(&mut fields, vec![turn("user", &prompt)], &origin)?;
                (prompt, Answer::Turns(vec![turn("assistant", &answer)]))
            }
            (Said::Turns(prompt), completion, _) => {
                let turns = match completion {
                    Said::Turns(turns) => turns,
                    Said::Text(answer) => {
                        text_answer(answer.clone(), &name, &origin)?;
                        vec![turn("assistant", &answer)]
                    }
                };
                let from = if turns.starts_with(&prompt) { prompt.len() } else { 0 };
                let answer = turns_answer(turns[from..].to_vec(), &name, &origin)?;
                (reader.chat_prompt(&mut fields, prompt, &origin)?, answer)
            }
            (Said::Text(_), Said::Turns(_), _) => {
                let what = format!("`{prompt_name}` is text and `{name}` is turns: both must be of one kind");
                return Err(DataError::row(&origin, Fault::WrongKind, what));
            }
        };
        Ok(labelled(origin, prompt, completion, label))
    }
}
