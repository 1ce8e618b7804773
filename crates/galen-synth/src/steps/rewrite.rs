//! A model rewrites a field.

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::Map;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "rewrite",
    about: "a model writes a field anew",
    doc: "The template `rewrite` sees the field's text as `text` and `instruction`. The new text takes the field's place; the old one \
          stays in `FIELD_before`. A text that comes back as it was is filtered.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the field to write anew"),
    Param::with(
        "instruction",
        Kind::Text,
        "\"Make it clearer and more natural without changing what it says.\"",
        "what is to become of it",
    ),
];

struct Rewrite {
    prompt: Prompt,
    ask: Ask,
    field: String,
    instruction: String,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    Ok(Box::new(Rewrite {
        prompt: Prompt::new(setup, Some("rewrite"))?,
        ask: Ask::new(setup)?,
        field: setup.options.filled("field")?,
        instruction: setup.options.filled("instruction")?,
    }))
}

impl Rewrite {
    fn text(&self, cx: &Context<'_>, rows: &Rows, at: usize, row: &Row) -> Result<String, Stop> {
        let more = Map::from_iter([
            ("text".to_owned(), row.text(&self.field)?.into()),
            ("instruction".to_owned(), self.instruction.as_str().into()),
        ]);
        self.prompt.of(cx, rows, at, row, more)
    }
}

impl Step for Rewrite {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let before = row.text(&self.field)?;
            let prompt = self.text(cx, rows, at, &row)?;
            let reply = self.ask.one(cx, tally, &row, &prompt)?;
            if galen_data::normalized(&reply.text) == galen_data::normalized(&before) {
                return Err(Stop::filtered("unchanged", before));
            }
            let kept = format!("{}_before", self.field);
            Ok(vec![row.with(&kept, before).with(&self.field, reply.text)])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.text(cx, rows, at, row))
    }
}
