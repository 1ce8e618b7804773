//! A model says the same in other words.

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
    name: "paraphrase",
    about: "a model says a field in other words, several times",
    doc: "The template `paraphrase` sees the text as `text` and `style`. Each answer's first line becomes a row; answers that are the \
          same as the text or as each other are dropped. With `keep_original` the row itself goes on too.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the field to say in other words"),
    Param::optional("to", Kind::Text, "the field that takes the new text; default: `field` itself"),
    Param::with("n", Kind::Count, "3", "answers asked for"),
    Param::with("style", Kind::Text, "\"\"", "how it is to be said: for the template"),
    Param::with("keep_original", Kind::Flag, "false", "the row with its own text goes on beside the others"),
];

struct Paraphrase {
    prompt: Prompt,
    ask: Ask,
    field: String,
    to: String,
    n: usize,
    style: String,
    keep_original: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let field = setup.options.filled("field")?;
    Ok(Box::new(Paraphrase {
        prompt: Prompt::new(setup, Some("paraphrase"))?,
        ask: Ask::new(setup)?,
        to: setup.options.maybe_text("to")?.unwrap_or_else(|| field.clone()),
        field,
        n: setup.options.positive("n")?,
        style: setup.options.text("style")?,
        keep_original: setup.options.flag("keep_original")?,
    }))
}

impl Paraphrase {
    fn text(&self, cx: &Context<'_>, rows: &Rows, at: usize, row: &Row) -> Result<String, Stop> {
        let more = Map::from_iter([
            ("text".to_owned(), row.text(&self.field)?.into()),
            ("style".to_owned(), self.style.as_str().into()),
        ]);
        self.prompt.of(cx, rows, at, row, more)
    }
}

impl Step for Paraphrase {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let text = row.text(&self.field)?;
            let prompt = self.text(cx, rows, at, &row)?;
            let replies = self.ask.run(cx, tally, &row, &prompt, self.n)?;
            let mut seen = vec![galen_data::normalized(&text)];
            let mut out = Vec::new();
            if self.keep_original {
                out.push(row.clone().with(&self.to, text.clone()));
            }
            for reply in replies {
                let line = reply.text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
                let line = line.trim_matches(['"', '“', '”']).trim();
                let normal = galen_data::normalized(line);
                if !normal.is_empty() && !seen.contains(&normal) {
                    seen.push(normal);
                    out.push(row.clone().with(&self.to, line));
                }
            }
            tally.figure("new texts", (seen.len() - 1) as f64);
            if out.is_empty() { Err(Stop::filtered("no new words", text)) } else { Ok(out) }
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.text(cx, rows, at, row))
    }
}
