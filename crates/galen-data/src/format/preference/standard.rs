//! `preference`: `chosen` and `rejected`, with `prompt` or with the prompt in both of them (TRL's shapes). All texts, or
//! all turns.
//!
//! An implicit prompt is what both begin with: whole turns, or characters, one less where the last is a space
//! (the space belongs to the answer's first token). Of two equal conversations the last turn is the answer.

use super::reader::{Reader, Said, pair, plain, text_answer, turn, turns_answer};
use super::single_turn::has;
use super::{PreferenceFormat, PreferenceType, Texts};
use crate::{DataError, Fault};
use galen_types::{Boundary, Message, Origin, Preference, Prompt, RawRow};
use serde_json::Value;

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "preference",
    aliases: &["passthrough", "passthrough.default"],
    about: "`prompt`, `chosen`, `rejected`, texts or turns; without `prompt`, it is what both answers begin with",
    detect: |row| has(row, &["chosen", "rejected"]),
    build: |spec, texts| Ok(Box::new(Standard { texts, reader: Reader::new(spec) })),
};

struct Standard {
    texts: Texts,
    reader: Reader,
}

impl PreferenceFormat for Standard {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let name = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
        let (chosen, rejected) = (name(&reader.chosen, "chosen"), name(&reader.rejected, "rejected"));
        let better = reader.said(&fields, &chosen, &origin)?;
        let worse = reader.said(&fields, &rejected, &origin)?;
        let prompt_name = name(&reader.prompt, "prompt");
        let prompt = match fields.get(&prompt_name) {
            // An empty text is a prompt; a missing one is implicit.
            None | Some(Value::Null) if reader.prompt.is_none() => None,
            _ => Some(reader.said(&fields, &prompt_name, &origin)?),
        };
        let (prompt, better, worse) = match (prompt, better, worse) {
            (Some(Said::Text(prompt)), Said::Text(a), Said::Text(b)) => {
                let (a, b) = (text_answer(a, &chosen, &origin)?, text_answer(b, &rejected, &origin)?);
                return match self.texts {
                    Texts::Plain => {
                        let prompt = plain(&fields, prompt, &origin)?;
                        pair(&fields, origin, prompt, a, b)
                    }
                    Texts::Turns => {
                        let prompt = reader.chat_prompt(&mut fields, vec![turn("user", &prompt)], &origin)?;
                        pair(&fields, origin, prompt, as_turn(a), as_turn(b))
                    }
                };
            }
            (None, Said::Text(a), Said::Text(b)) => {
                let (prompt, a, b) = split_texts(&a, &b);
                let (a, b) = (text_answer(a, &chosen, &origin)?, text_answer(b, &rejected, &origin)?);
                let prompt = Prompt::Text { text: prompt, boundary: Boundary::Merged };
                return pair(&fields, origin, prompt, a, b);
            }
            (Some(Said::Turns(prompt)), Said::Text(a), Said::Text(b)) => {
                let (a, b) = (text_answer(a, &chosen, &origin)?, text_answer(b, &rejected, &origin)?);
                let prompt = reader.chat_prompt(&mut fields, prompt, &origin)?;
                return pair(&fields, origin, prompt, as_turn(a), as_turn(b));
            }
            (Some(Said::Turns(prompt)), Said::Turns(a), Said::Turns(b)) => {
                // Some data sets repeat the prompt within the answers.
                let repeated = a.starts_with(&prompt) && b.starts_with(&prompt);
                let from = if repeated { prompt.len() } else { 0 };
                (prompt, a[from..].to_vec(), b[from..].to_vec())
            }
            (prompt, Said::Turns(a), Said::Turns(b)) => {
                let (mut turns, a, b) = split_turns(&a, &b, &origin)?;
                // A prompt of text is the question that the turns answer, or repeats it.
                if let Some(Said::Text(text)) = prompt {
                    let mut asked = turns.iter().filter(|m| m.role == "user").peekable();
                    if asked.peek().is_none() {
                        turns.push(turn("user", &text));
                    } else if !asked.any(|m| {
                        m.fields.get("content").and_then(Value::as_str).map(str::trim) == Some(text.trim())
                    }) {
                        let what = "`prompt` is none of the `user` turns before the answers";
                        return Err(DataError::row(&origin, Fault::PromptMismatch, what));
                    }
                }
                (turns, a, b)
            }
            (_, a, b) => return Err(mixed(&a, &b, &origin)),
        };
        let better = turns_answer(better, &chosen, &origin)?;
        let worse = turns_answer(worse, &rejected, &origin)?;
        let prompt = reader.chat_prompt(&mut fields, prompt, &origin)?;
        pair(&fields, origin, prompt, better, worse)
    }
}

fn as_turn(answer: galen_types::Answer) -> galen_types::Answer {
    match answer {
        galen_types::Answer::Text(text) => galen_types::Answer::Turns(vec![turn("assistant", &text)]),
        turns @ galen_types::Answer::Turns(_) => turns,
    }
}

fn mixed(a: &Said, b: &Said, origin: &Origin) -> DataError {
    let kind = |said: &Said| match said {
        Said::Text(_) => "text",
        Said::Turns(_) => "turns",
    };
    let what = format!("`chosen` is {} and `rejected` is {}: both must be of one kind", kind(a), kind(b));
    DataError::row(origin, Fault::WrongKind, what)
}

type Split<T> = (T, T, T);

/// The turns both begin with, and what follows in each.
fn split_turns(a: &[Message], b: &[Message], origin: &Origin) -> Result<Split<Vec<Message>>, DataError> {
    let last = a.len().min(b.len()).saturating_sub(1);
    let at = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(last);
    for rest in [&a[at..], &b[at..]] {
        if rest.first().is_some_and(|m| m.role != "assistant") {
            let what = format!(
                "`chosen` and `rejected` answer different prompts: they differ first in turn {} (`{}`)",
                at + 1,
                rest[0].role
            );
            return Err(DataError::row(origin, Fault::PromptMismatch, what));
        }
    }
    Ok((a[..at].to_vec(), a[at..].to_vec(), b[at..].to_vec()))
}

/// The characters both begin with, and what follows in each.
fn split_texts(a: &str, b: &str) -> Split<String> {
    let pairs = || a.char_indices().zip(b.chars());
    let differ = pairs().find(|((_, x), y)| x != y).map(|((at, _), _)| at);
    let at = match differ {
        Some(at) => a[..at].strip_suffix(' ').map_or(at, str::len),
        // One begins with the other: its last character is left to it.
        None => pairs().last().map_or(0, |((at, _), _)| at),
    };
    (a[..at].to_owned(), a[at..].to_owned(), b[at..].to_owned())
}
