//! Frames: turns written as text in a fixed form, whatever the model's template (`chatml.intel`, `llama3.ultra` ...).

use super::{Built, PreferenceFormat};
use crate::format::kind;
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Answer, Boundary, Message, Origin, Preference, Prompt, RawRow};
use serde_json::Value;

/// Who writes the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// The run's chat template.
    ChatTemplate,
    /// This form.
    Written(&'static Form),
}

/// A turn is `head`, its role, `neck`, its text, `end`, `gap`; the generation prompt a head with the assistant's role.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    name: &'static str,
    head: &'static str,
    neck: &'static str,
    end: &'static str,
    gap: &'static str,
}

static FORMS: &[Form] = &[
    Form { name: "chatml", head: "<|im_start|>", neck: "\n", end: "<|im_end|>", gap: "\n" },
    Form {
        name: "llama3",
        head: "<|start_header_id|>",
        neck: "<|end_header_id|>\n\n",
        end: "<|eot_id|>",
        gap: "",
    },
];

impl Frame {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        let written = || FORMS.iter().find(|f| f.name == name).map(Self::Written);
        if name == "chat_template" { Some(Self::ChatTemplate) } else { written() }
    }

    /// A reader whose turns this frame writes.
    pub(super) fn around(self, spec: &DatasetSpec, inner: Box<dyn PreferenceFormat>) -> Built {
        match self {
            Self::ChatTemplate => Ok(inner),
            Self::Written(form) if spec.chat_template.is_some() || spec.chat_template_jinja.is_some() => {
                let what = format!(
                    "`type: {}.*` writes its own turns: the entry's chat template has no effect",
                    form.name
                );
                Err(DataError::spec(&spec.path, what).with_hint("write `type: chat_template.*` to use it"))
            }
            Self::Written(form) => Ok(Box::new(Framed { form, inner })),
        }
    }
}

struct Framed {
    form: &'static Form,
    inner: Box<dyn PreferenceFormat>,
}

impl PreferenceFormat for Framed {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let mut row = self.inner.preference(row)?;
        let origin = row.origin().clone();
        let answer = |answer: &mut Answer| self.form.answer(answer, &origin);
        match &mut row {
            Preference::Pair(row) => {
                self.form.prompt(&mut row.prompt, &origin)?;
                answer(&mut row.chosen)?;
                answer(&mut row.rejected)?;
            }
            Preference::Labelled(row) => {
                self.form.prompt(&mut row.prompt, &origin)?;
                answer(&mut row.completion)?;
            }
            Preference::Ranked(row) => {
                self.form.prompt(&mut row.prompt, &origin)?;
                row.answers.iter_mut().try_for_each(|(a, _)| answer(a))?;
            }
            Preference::Prompt(row) => self.form.prompt(&mut row.prompt, &origin)?,
        }
        Ok(row)
    }
}

impl Form {
    fn turns(&self, turns: &[Message], origin: &Origin) -> Result<Vec<String>, DataError> {
        let turn = |m: &Message| match m.fields.get("content") {
            Some(Value::String(content)) if !m.fields.contains_key("tool_calls") => Ok(content.clone()),
            other => {
                let found = other.map_or("tool calls", kind);
                let what = format!("a {} turn of {found} has no place in the frame `{}`", m.role, self.name);
                Err(DataError::row(origin, Fault::WrongKind, what).with_hint("write `type: chat_template.*`"))
            }
        };
        turns.iter().map(turn).collect()
    }

    fn prompt(&self, prompt: &mut Prompt, origin: &Origin) -> Result<(), DataError> {
        let Prompt::Chat { messages, .. } = prompt else { return Ok(()) };
        let mut text = String::new();
        for (message, content) in messages.iter().zip(self.turns(messages, origin)?) {
            text += &[self.head, &message.role, self.neck, &content, self.end, self.gap].concat();
        }
        text += &[self.head, "assistant", self.neck].concat();
        *prompt = Prompt::Text { text, boundary: Boundary::Cut };
        Ok(())
    }

    fn answer(&self, answer: &mut Answer, origin: &Origin) -> Result<(), DataError> {
        let Answer::Turns(turns) = answer else { return Ok(()) };
        let [content] = &self.turns(turns, origin)?[..] else {
            let what =
                format!("an answer of `{}` turns has no place in the frame `{}`", turns.len(), self.name);
            return Err(
                DataError::row(origin, Fault::WrongKind, what).with_hint("write `type: chat_template.*`")
            );
        };
        *answer = Answer::Text([content, self.end].concat());
        Ok(())
    }
}
