//! What the preference types have in common: fields under their names, turns, answers, and rows made of them.

use super::{Fields, required, text, wrong_kind};
use crate::format::chat_template::{Chat, Names, ROLES};
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Answer, Boundary, Labelled, Message, Origin, Pair, Preference, Prompt};
use serde_json::{Map, Value};

/// A prompt, an answer or a conversation as a field holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Text(String),
    Turns(Vec<Message>),
}

/// Reads fields of a row under the names the entry gives them.
pub(super) struct Reader {
    pub(super) chat: Chat,
    pub(super) prompt: Option<String>,
    pub(super) chosen: Option<String>,
    pub(super) rejected: Option<String>,
    pub(super) completion: Option<String>,
    pub(super) label: Option<String>,
}

/// The row with renamed fields under the names this type knows them by.
pub(super) fn usual_names(spec: &DatasetSpec, row: &Fields) -> Fields {
    let f = &spec.preference;
    let mut out = row.clone();
    for (given, usual) in [
        (&f.field_prompt, "prompt"),
        (&f.field_chosen, "chosen"),
        (&f.field_rejected, "rejected"),
        (&f.field_completion, "completion"),
        (&f.field_label, "label"),
    ] {
        if let Some(value) = given.as_ref().and_then(|g| row.get(g)) {
            out.insert(usual.to_owned(), value.clone());
        }
    }
    out
}

impl Reader {
    pub(super) fn new(spec: &DatasetSpec) -> Self {
        let f = spec.preference.clone();
        Self {
            chat: Chat::new(spec, &Names { field: None, role: "role", content: "content", roles: ROLES }),
            prompt: f.field_prompt,
            chosen: f.field_chosen,
            rejected: f.field_rejected,
            completion: f.field_completion,
            label: f.field_label,
        }
    }

    /// The name of a field: the entry's, else the first of `usual` that the row has, else the last of them.
    pub(super) fn field<'a>(given: Option<&'a String>, usual: &[&'a str], fields: &Fields) -> &'a str {
        let there = || usual.iter().copied().find(|f| fields.get(*f).is_some_and(|v| !v.is_null()));
        given.map(String::as_str).or_else(there).or(usual.last().copied()).unwrap_or_default()
    }

    /// Text, or turns: a list of them, one alone, or JSON text of a list.
    pub(super) fn said(&self, fields: &Fields, name: &str, origin: &Origin) -> Result<Said, DataError> {
        let turns = match required(fields, name, origin)? {
            Value::Array(turns) => turns.clone(),
            one @ Value::Object(_) => vec![one.clone()],
            Value::String(json) if is_json_turns(json) => serde_json::from_str(json).map_err(|e| {
                DataError::row(origin, Fault::WrongKind, format!("`{name}` is not a JSON list of turns: {e}"))
            })?,
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {
                return Ok(Said::Text(text(fields, name, origin)?));
            }
            other => return Err(wrong_kind(name, "text or a list of turns", other, origin)),
        };
        if turns.is_empty() {
            return Err(DataError::row(origin, Fault::EmptyTurn, format!("`{name}` has no turns")));
        }
        let turn = |(i, turn)| {
            self.chat.message(turn, i, origin).map_err(|e| match e {
                DataError::Row { origin, fault, what, hint } => {
                    DataError::Row { origin, fault, what: format!("`{name}`, {what}"), hint }
                }
                other => other,
            })
        };
        Ok(Said::Turns(turns.into_iter().enumerate().map(turn).collect::<Result<_, _>>()?))
    }

    /// A prompt of turns, with the row's `system` field before them where they have no system turn, and its tools.
    pub(super) fn chat_prompt(
        &self,
        fields: &mut Fields,
        mut messages: Vec<Message>,
        origin: &Origin,
    ) -> Result<Prompt, DataError> {
        if let Some(Value::String(system)) = fields.get("system")
            && !system.is_empty()
            && messages.first().is_none_or(|m| m.role != "system")
        {
            messages.insert(0, turn("system", system));
        }
        let drops = self.chat.drops_system() && messages.len() > 1 && messages[0].role == "system";
        if drops {
            messages.remove(0);
        }
        if messages.is_empty() {
            return Err(DataError::row(origin, Fault::MissingField, "the prompt has no turns"));
        }
        let (tools, template_kwargs) = self.chat.extras(fields, origin)?;
        Ok(Prompt::Chat { messages, tools, template_kwargs })
    }

    /// Whether a labelled answer is a good one: a boolean, 0 or 1, also as text.
    pub(super) fn labelled(&self, fields: &Fields, origin: &Origin) -> Result<bool, DataError> {
        let name = Self::field(self.label.as_ref(), &["label"], fields);
        match required(fields, name, origin)? {
            Value::Bool(label) => Ok(*label),
            Value::Number(n) if n.as_f64() == Some(1.0) => Ok(true),
            Value::Number(n) if n.as_f64() == Some(0.0) => Ok(false),
            Value::String(s) if matches!(s.trim(), "1" | "true" | "True") => Ok(true),
            Value::String(s) if matches!(s.trim(), "0" | "false" | "False") => Ok(false),
            other => {
                let what = format!("`{name}` should be true, false, 0 or 1, found `{other}`");
                Err(DataError::row(origin, Fault::WrongKind, what))
            }
        }
    }
}

fn is_json_turns(text: &str) -> bool {
    text.trim_start().starts_with('[')
        && serde_json::from_str::<Vec<Map<String, Value>>>(text).is_ok_and(|t| !t.is_empty())
}

pub(super) fn turn(role: &str, content: &str) -> Message {
    let fields = [("role".to_owned(), role.into()), ("content".to_owned(), content.into())];
    Message { role: role.to_owned(), fields: Map::from_iter(fields), train: role == "assistant" }
}

/// An answer of turns: the first must be the model's, since its text begins behind the generation prompt.
pub(super) fn turns_answer(turns: Vec<Message>, name: &str, origin: &Origin) -> Result<Answer, DataError> {
    match turns.first() {
        Some(first) if first.role == "assistant" => Ok(Answer::Turns(turns)),
        Some(first) => {
            let what =
                format!("the answer `{name}` begins with a turn of `{}`, not of the assistant", first.role);
            Err(DataError::row(origin, Fault::PromptMismatch, what))
        }
        None => Err(DataError::row(origin, Fault::EmptyTurn, format!("`{name}` holds no answer"))),
    }
}

pub(super) fn text_answer(text: String, name: &str, origin: &Origin) -> Result<Answer, DataError> {
    Ok(Answer::Text(super::super::not_empty(text, name, origin)?))
}

/// An answer in one turn: text, or the last of turns.
pub(super) fn last_turn(said: Said, name: &str, origin: &Origin) -> Result<Answer, DataError> {
    match said {
        Said::Text(text) => {
            let text = super::super::not_empty(text, name, origin)?;
            Ok(Answer::Turns(vec![turn("assistant", &text)]))
        }
        Said::Turns(mut turns) => {
            let last = turns.pop();
            turns_answer(last.into_iter().collect(), name, origin)
        }
    }
}

/// A prompt of text as it stands. Errors: a `system` text beside it, which has no place there.
pub(super) fn plain(fields: &Fields, text: String, origin: &Origin) -> Result<Prompt, DataError> {
    if fields.get("system").and_then(Value::as_str).is_some_and(|system| !system.trim().is_empty()) {
        let what = "`system` has no place before a prompt of plain text: a `type` that begins with `chat_template.` (`chat_template.preference`) makes turns of both";
        return Err(DataError::row(origin, Fault::WrongKind, what));
    }
    Ok(Prompt::Text { text, boundary: Boundary::Cut })
}

/// A pair, with the `margin` of a row that has one: a number, also as text. Errors: it is something else.
pub(super) fn pair(
    fields: &Fields,
    origin: Origin,
    prompt: Prompt,
    chosen: Answer,
    rejected: Answer,
) -> Result<Preference, DataError> {
    let given =
        fields.get("margin").filter(|v| !v.is_null() && v.as_str().is_none_or(|s| !s.trim().is_empty()));
    let number = |v: &Value| v.as_f64().or_else(|| v.as_str()?.trim().parse().ok()).filter(|n| n.is_finite());
    let margin = given.map(|v| {
        let what = || format!("`margin` should be a number, found `{v}`");
        number(v).ok_or_else(|| DataError::row(&origin, Fault::WrongKind, what()))
    });
    let margin = margin.transpose()?;
    Ok(Preference::Pair(Pair { origin, prompt, chosen, rejected, margin }))
}

pub(super) fn labelled(origin: Origin, prompt: Prompt, completion: Answer, label: bool) -> Preference {
    Preference::Labelled(Labelled { origin, prompt, completion, label })
}
