//! Files of rows in the shapes that training reads. A new one is one line in [`OUTPUTS`].

use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::row::Row;
use crate::text::TextOf;
use galen_data::template::prompt::Prompts;
use galen_reward::{ConfigError, Kind, Network, Options, Param, nearest};
use serde_json::{Map, Value, json};
use std::cell::RefCell;

/// A kind of output.
#[derive(Debug)]
pub struct OutputKind {
    /// Its name in `type`; that of the dataset type which reads it.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Its texts: each a field's name, or a template.
    pub texts: &'static [Param],
    /// A row's object from its texts, in their order.
    shape: fn(&[Option<String>]) -> Value,
}

/// The keys that every output has.
pub const COMMON: &[Param] = &[
    Param::required("path", Kind::Text, "the file within `output_dir`; ends with `.jsonl`"),
    Param::optional("when", Kind::Text, "an expression: only rows of which it holds"),
];

const TEXT: &str = "a field's name, or a template with `{{ row.x }}` in it";

const fn must(name: &'static str) -> Param {
    Param::required(name, Kind::Text, TEXT)
}

const fn may(name: &'static str) -> Param {
    Param::optional(name, Kind::Text, TEXT)
}

fn turn(role: &str, text: Option<&String>) -> Option<Value> {
    text.map(|t| json!({"role": role, "content": t}))
}

/// Every kind of output.
pub static OUTPUTS: &[OutputKind] = &[
    OutputKind { name: "row", about: "all fields of the rows as they are", texts: &[], shape: |_| json!({}) },
    OutputKind {
        name: "chat_template",
        about: "`{\"messages\": [...]}`: a question and its answer, for `galen train`",
        texts: &[must("user"), must("assistant"), may("system")],
        shape: |t| {
            let turns = [
                turn("system", t[2].as_ref()),
                turn("user", t[0].as_ref()),
                turn("assistant", t[1].as_ref()),
            ];
            json!({"messages": turns.into_iter().flatten().collect::<Vec<_>>()})
        },
    },
    OutputKind {
        name: "alpaca",
        about: "`{\"instruction\", \"input\", \"output\"}`, for `galen train`",
        texts: &[must("instruction"), must("output"), may("input")],
        shape: |t| json!({"instruction": t[0], "input": t[2].clone().unwrap_or_default(), "output": t[1]}),
    },
    OutputKind {
        name: "prompt_completion",
        about: "`{\"prompt\", \"completion\"}`, for `galen train`",
        texts: &[must("prompt"), must("completion")],
        shape: |t| json!({"prompt": t[0], "completion": t[1]}),
    },
    OutputKind {
        name: "completion",
        about: "`{\"text\"}`: plain text, for `galen train`",
        texts: &[must("text")],
        shape: |t| json!({"text": t[0]}),
    },
    OutputKind {
        name: "preference",
        about: "`{\"prompt\", \"chosen\", \"rejected\"}` as turns, for `galen align`",
        texts: &[must("prompt"), must("chosen"), must("rejected"), may("system")],
        shape: |t| {
            let prompt: Vec<_> =
                [turn("system", t[3].as_ref()), turn("user", t[0].as_ref())].into_iter().flatten().collect();
            json!({"prompt": prompt, "chosen": [turn("assistant", t[1].as_ref())], "rejected": [turn("assistant", t[2].as_ref())]})
        },
    },
    OutputKind {
        name: "unpaired",
        about: "`{\"prompt\", \"completion\", \"label\"}` for `galen align` with `rl: kto`; `label` is true or false",
        texts: &[must("prompt"), must("completion"), must("label")],
        shape: |t| {
            let label = t[2].as_deref().is_some_and(|l| matches!(l.trim(), "true" | "True" | "1" | "yes"));
            json!({"prompt": [turn("user", t[0].as_ref())], "completion": [turn("assistant", t[1].as_ref())], "label": label})
        },
    },
];

/// An output, built.
pub(crate) struct Output {
    pub path: String,
    pub kind: &'static OutputKind,
    when: Option<String>,
    texts: Vec<Option<TextOf>>,
}

pub(crate) fn build(
    kind: &str,
    given: &Map<String, Value>,
    place: &str,
    network: Network,
    prompts: &RefCell<Prompts>,
) -> Result<Output, ConfigError> {
    let Some(kind) = OUTPUTS.iter().find(|k| k.name == kind) else {
        let hint = match nearest(kind, OUTPUTS.iter().map(|k| k.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                format!("there are `{}`", OUTPUTS.iter().map(|k| k.name).collect::<Vec<_>>().join("`, `"))
            }
        };
        return Err(ConfigError::new(place, format!("there is no output `{kind}`")).hint(hint));
    };
    let mut own = Map::new();
    let mut texts = Map::new();
    for (key, value) in given {
        let is_text = kind.texts.iter().any(|p| p.name == key);
        if is_text { &mut texts } else { &mut own }.insert(key.clone(), value.clone());
    }
    let o = Options::new(kind.name, network, place, &own, &[COMMON])?;
    let path = o.filled("path")?;
    let plain =
        path.strip_suffix(".jsonl").is_some() && !path.starts_with('.') && !path.contains(['/', '\\', '\0']);
    if !plain {
        let what = format!("`{path}` is no name of a file within `output_dir` that ends with `.jsonl`");
        return Err(o.wrong("path", what));
    }
    let when = o.maybe_text("when")?;
    if let Some(when) = &when {
        let check = prompts.borrow().check_expression(when);
        check.map_err(|e| o.wrong("when", format!("`{when}`: {e}")))?;
    }
    let mut out = Vec::new();
    for param in kind.texts {
        out.push(match texts.get(param.name) {
            Some(Value::String(text)) if text.contains("{{") || text.contains("{%") => {
                let name = format!("<{path}.{}>", param.name);
                prompts.borrow_mut().add(&name, text);
                let found = prompts.borrow().find(&name);
                Some(TextOf::Template(found.map_err(|e| o.wrong(param.name, e.to_string()))?))
            }
            Some(Value::String(field)) => Some(TextOf::Field(field.clone())),
            Some(other) => {
                return Err(o.wrong(param.name, format!("takes text, not {}", galen_reward::shown(other))));
            }
            None if matches!(param.absent, galen_reward::Absent::Required) => {
                return Err(o.wrong(param.name, "is required").hint(param.about));
            }
            None => None,
        });
    }
    Ok(Output { path, kind, when, texts: out })
}

impl Output {
    /// The object of a row; `None` where the output is not of such rows. Errors: it lacks a text.
    pub fn of(&self, cx: &Context<'_>, row: &Row, provenance: Value) -> Result<Option<Value>, SynthError> {
        let said = |stop: Stop| match stop {
            Stop::Run(e) => e,
            Stop::Failed { detail, .. } | Stop::Filtered { detail, .. } => SynthError::Step {
                step: self.path.clone(),
                what: format!(
                    "row `{}`: {detail}\nhint: `when:` leaves rows out; `--resume` writes the outputs again",
                    row.id
                ),
            },
        };
        if let Some(when) = &self.when
            && !cx.holds(when, row).map_err(said)?
        {
            return Ok(None);
        }
        let texts: Vec<Option<String>> = self
            .texts
            .iter()
            .map(|text| text.as_ref().map(|t| t.of(cx, row)).transpose())
            .collect::<Result<_, _>>()
            .map_err(said)?;
        let mut object = (self.kind.shape)(&texts);
        if let Value::Object(map) = &mut object {
            if self.kind.texts.is_empty() {
                map.extend(row.fields.clone());
            }
            map.insert("provenance".into(), provenance);
        }
        Ok(Some(object))
    }
}
