//! A text made by a template alone.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use galen_reward::{ConfigError, Kind, Param};
use serde_json::Map;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "render",
    about: "a text made by a template, without a model",
    doc: "Writes the template's text into the field `to`. Several templates in `variants` give a row one of them, drawn by the seed.",
    params: &[PROMPT, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("to", Kind::Text, "\"text\"", "the field that takes the text"),
    Param::optional(
        "variants",
        Kind::Texts,
        "texts of templates in place of `template`: each row is given one of them",
    ),
];

struct Render {
    prompts: Vec<Prompt>,
    to: String,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let variants = o.texts("variants")?;
    let given = o.maybe_text("template")?.is_some() || o.maybe_text("prompt")?.is_some();
    if !variants.is_empty() && given {
        return Err(o.wrong("variants", "stands beside a template: one of them"));
    }
    let prompts = if variants.is_empty() {
        vec![Prompt::new(setup, None)?]
    } else {
        let names = variants.iter().enumerate().map(|(i, v)| setup.inline(&format!("variants-{i}"), v));
        names.map(|t| Prompt::named(setup, t?.name)).collect::<Result<_, _>>()?
    };
    Ok(Box::new(Render { prompts, to: o.filled("to")? }))
}

impl Render {
    fn text(&self, cx: &Context<'_>, rows: &Rows, at: usize, row: &crate::Row) -> Result<String, Stop> {
        let which = crate::row::random(cx.seed_of(row), 1).below(self.prompts.len() as u64) as usize;
        self.prompts[which].of(cx, rows, at, row, Map::new())
    }
}

impl Step for Render {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |_, at, row| {
            let text = self.text(cx, rows, at, &row)?;
            Ok(vec![row.with(&self.to, text.trim())])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        super::shown(rows, at, |row| self.text(cx, rows, at, row))
    }
}
