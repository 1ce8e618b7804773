//! `ranked`: `prompt` and a list of answers, with a list of `ranks` (1 is best) or `scores` (the highest is best) beside
//! it or within each answer.

use super::reader::{Reader, Said, plain, text_answer, turn, turns_answer};
use super::single_turn::has;
use super::{PreferenceFormat, PreferenceType, Texts, required, wrong_kind};
use crate::{DataError, Fault};
use galen_types::{Answer, Origin, Preference, Ranked, RawRow};
use serde_json::{Map, Value};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "ranked",
    aliases: &[],
    about: "`prompt`, `responses` (`completions`, `answers`) and their `ranks` (1 is best) or `scores` (the highest is best)",
    detect: |row| {
        let answers = ANSWERS.iter().find_map(|f| row.get(*f)?.as_array());
        let inside = |a: &Value| MERITS.iter().any(|m| a.get(m.one).is_some());
        has(row, &["prompt"])
            && answers.is_some_and(|a| {
                MERITS.iter().any(|m| row.get(m.many).is_some_and(Value::is_array))
                    || a.first().is_some_and(inside)
            })
    },
    build: |spec, texts| Ok(Box::new(RankedLists { texts, reader: Reader::new(spec) })),
};

const ANSWERS: &[&str] = &["responses", "completions", "answers"];
/// Names an answer's text has where an answer is an object.
const TEXTS: &[&str] = &["text", "response", "completion", "answer", "content"];

struct Merit {
    many: &'static str,
    one: &'static str,
    /// What makes the higher the better.
    sign: f64,
}

const MERITS: &[Merit] = &[
    Merit { many: "ranks", one: "rank", sign: -1.0 },
    Merit { many: "scores", one: "score", sign: 1.0 },
    Merit { many: "ratings", one: "rating", sign: 1.0 },
];

struct RankedLists {
    texts: Texts,
    reader: Reader,
}

impl PreferenceFormat for RankedLists {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, mut fields } = row;
        let reader = &self.reader;
        let prompt_name = Reader::field(reader.prompt.as_ref(), &["prompt"], &fields).to_owned();
        let name = ANSWERS.iter().copied().find(|f| has(&fields, &[f])).unwrap_or(ANSWERS[0]);
        let list = match required(&fields, name, &origin)? {
            Value::Array(list) => list.clone(),
            other => return Err(wrong_kind(name, "a list of answers", other, &origin)),
        };
        if list.len() < 2 {
            let what = format!("`{name}` has `{}` answers; a ranking needs two", list.len());
            return Err(DataError::row(&origin, Fault::MissingField, what));
        }
        let scores = scores(&fields, name, &list, &origin)?;
        let said = reader.said(&fields, &prompt_name, &origin)?;
        let as_turns = self.texts == Texts::Turns || matches!(said, Said::Turns(_));
        let prompt = match said {
            Said::Turns(turns) => reader.chat_prompt(&mut fields, turns, &origin)?,
            Said::Text(text) if as_turns => {
                reader.chat_prompt(&mut fields, vec![turn("user", &text)], &origin)?
            }
            Said::Text(text) => plain(&fields, text, &origin)?,
        };
        let mut answers = Vec::with_capacity(list.len());
        for (i, (value, score)) in list.into_iter().zip(scores).enumerate() {
            let name = format!("{name}[{i}]");
            let answer = self.answer(value, &name, as_turns, &origin)?;
            answers.push((answer, score));
        }
        Ok(Preference::Ranked(Ranked { origin, prompt, answers }))
    }
}

impl RankedLists {
    fn answer(&self, value: Value, name: &str, as_turns: bool, origin: &Origin) -> Result<Answer, DataError> {
        let bare = match value {
            Value::Object(object) if !object.contains_key("role") => {
                let text = TEXTS.iter().find_map(|t| object.get(*t).cloned());
                let missing = || format!("`{name}` has none of `{}`", TEXTS.join("`, `"));
                text.ok_or_else(|| DataError::row(origin, Fault::MissingField, missing()))?
            }
            other => other,
        };
        let one = Map::from_iter([(name.to_owned(), bare)]);
        match self.reader.said(&one, name, origin)? {
            Said::Turns(turns) if as_turns => turns_answer(turns, name, origin),
            Said::Turns(_) => {
                let what = format!("`{name}` is turns and the prompt is text: both must be of one kind");
                Err(DataError::row(origin, Fault::WrongKind, what))
            }
            Said::Text(text) => match text_answer(text, name, origin)? {
                Answer::Text(text) if as_turns => Ok(Answer::Turns(vec![turn("assistant", &text)])),
                answer => Ok(answer),
            },
        }
    }
}

/// One score an answer, the higher the better.
fn scores(
    fields: &Map<String, Value>,
    name: &str,
    list: &[Value],
    origin: &Origin,
) -> Result<Vec<f64>, DataError> {
    let bad = |what: String| DataError::row(origin, Fault::WrongKind, what);
    let number = |merit: &Merit, value: &Value| {
        let text = || value.as_str().and_then(|s| s.trim().parse().ok());
        let number: Option<f64> = value.as_f64().or_else(text).filter(|n: &f64| n.is_finite());
        let wrong = || bad(format!("a `{}` should be a number, found `{value}`", merit.one));
        number.map(|n| n * merit.sign).ok_or_else(wrong)
    };
    for merit in MERITS {
        if let Some(Value::Array(values)) = fields.get(merit.many) {
            if values.len() != list.len() {
                let (have, want) = (values.len(), list.len());
                return Err(bad(format!("`{}` has `{have}` entries for `{want}` of `{name}`", merit.many)));
            }
            return values.iter().map(|v| number(merit, v)).collect();
        }
        let inside: Vec<&Value> = list.iter().filter_map(|a| a.get(merit.one)).collect();
        if inside.len() == list.len() {
            return inside.into_iter().map(|v| number(merit, v)).collect();
        }
    }
    let what = format!("`{name}` has neither `ranks` nor `scores`");
    Err(DataError::row(origin, Fault::MissingField, what))
}
