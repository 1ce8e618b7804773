//! One question, an optional `system` text and its answers: what `intel`, `argilla`, `icr`, `prompt_pairs` and `ultra`
//! have in common. With `completion` and `label` instead of a pair, the same names are KTO data.

use super::reader::{Reader, Said, labelled, last_turn, pair, turn};
use super::{Fields, PreferenceFormat, text};
use crate::format::not_empty;
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Preference, RawRow};
use serde_json::Value;

/// Names of a type's fields; of several the first that a row has.
pub(super) struct SingleTurn {
    pub(super) question: &'static [&'static str],
    pub(super) chosen: &'static [&'static str],
    pub(super) rejected: &'static [&'static str],
}

struct SingleTurnReader {
    names: &'static SingleTurn,
    reader: Reader,
}

impl SingleTurn {
    pub(super) fn reader(&'static self, spec: &DatasetSpec) -> Box<dyn PreferenceFormat> {
        Box::new(SingleTurnReader { names: self, reader: Reader::new(spec) })
    }
}

/// Whether a row of such names has an `instruction` beside its `input`.
fn names_both(fields: &Fields, names: &SingleTurn) -> bool {
    names.question.contains(&"instruction") && texts(fields, &["instruction", "input"])
}

/// Whether the row holds text in these fields.
pub(super) fn texts(row: &Fields, names: &[&str]) -> bool {
    names.iter().all(|f| row.get(*f).is_some_and(Value::is_string))
}

/// Whether the row has these fields, whatever they hold.
pub(super) fn has(row: &Fields, names: &[&str]) -> bool {
    names.iter().all(|f| row.get(*f).is_some_and(|v| !v.is_null()))
}

impl PreferenceFormat for SingleTurnReader {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let name = Reader::field(reader.prompt.as_ref(), self.names.question, &fields);
        let prompt = match reader.said(&fields, name, &origin)? {
            Said::Text(input)
                if name == "input" && reader.prompt.is_none() && names_both(&fields, self.names) =>
            {
                // As Alpaca's rows: what is to be done, and with what.
                let instruction = not_empty(text(&fields, "instruction", &origin)?, "instruction", &origin)?;
                let both =
                    if input.trim().is_empty() { instruction } else { format!("{instruction}\n{input}") };
                vec![turn("user", &both)]
            }
            Said::Text(question) => vec![turn("user", &not_empty(question, name, &origin)?)],
            Said::Turns(turns) => turns,
        };
        let prompt = reader.chat_prompt(&mut fields, prompt, &origin)?;
        let chosen = Reader::field(reader.chosen.as_ref(), self.names.chosen, &fields);
        let completion = Reader::field(reader.completion.as_ref(), &["completion"], &fields);
        if fields.contains_key(chosen) || !fields.contains_key(completion) {
            let rejected = Reader::field(reader.rejected.as_ref(), self.names.rejected, &fields);
            let better = reader.said(&fields, chosen, &origin)?;
            let worse = reader.said(&fields, rejected, &origin)?;
            same_prompt(&better, &worse, &origin)?;
            let better = last_turn(better, chosen, &origin)?;
            let worse = last_turn(worse, rejected, &origin)?;
            return pair(&fields, origin, prompt, better, worse);
        }
        let answer = last_turn(reader.said(&fields, completion, &origin)?, completion, &origin)?;
        let label = reader.labelled(&fields, &origin)?;
        Ok(labelled(origin, prompt, answer, label))
    }
}

/// The turns before the answer, where `chosen` and `rejected` hold them too.
pub(super) fn same_prompt(
    chosen: &Said,
    rejected: &Said,
    origin: &galen_types::Origin,
) -> Result<(), DataError> {
    let (Said::Turns(chosen), Said::Turns(rejected)) = (chosen, rejected) else { return Ok(()) };
    let before = |turns: &[galen_types::Message]| turns.len().saturating_sub(1);
    let (a, b) = (&chosen[..before(chosen)], &rejected[..before(rejected)]);
    let differ = a.len().min(b.len());
    let first = a.iter().zip(b).position(|(x, y)| x != y).or((a.len() != b.len()).then_some(differ));
    match first {
        None => Ok(()),
        Some(turn) => {
            let what =
                format!("`chosen` and `rejected` answer different prompts: they differ in turn {}", turn + 1);
            Err(DataError::row(origin, Fault::PromptMismatch, what))
        }
    }
}
