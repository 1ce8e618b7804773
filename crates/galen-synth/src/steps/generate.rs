//! A model answers a prompt.

use super::{each, shown};
use crate::ask::{Ask, ENGINE, Reply, SCHEMA};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use fancy_regex::Regex;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "generate",
    about: "a model's answers to a prompt",
    doc: "Renders the template, asks the engine, and writes the answer into the field `to`; with `n` above 1 a row becomes `n` rows. \
          With `schema` the answer is JSON: engines that can are held to it, others are asked again where it is not, and an object's \
          fields become the row's. `extract` keeps what its group 1 matches.",
    params: &[PROMPT, ENGINE, SCHEMA, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("to", Kind::Text, "\"response\"", "the field that takes the answer"),
    Param::with("n", Kind::Count, "1", "answers, each a row of its own"),
    Param::with("gather", Kind::Flag, "false", "the row stays one, and `to` takes the list of answers"),
    Param::optional(
        "extract",
        Kind::Text,
        "a pattern: of the answer only its group 1, or all of it, is kept",
    ),
    Param::with(
        "cut",
        Kind::OneOf(&["keep", "filter"]),
        "\"keep\"",
        "what becomes of answers that `max_tokens` cut",
    ),
];

/// What a step makes of an answer.
pub(crate) struct Take {
    pub to: String,
    extract: Option<Regex>,
    filter_cut: bool,
}

/// Group 1 of the first match, of a pattern without groups the whole; nothing where that took no part in it.
pub(super) fn extracted(pattern: &Regex, text: &str) -> Option<String> {
    let group = usize::from(pattern.captures_len() > 1);
    let found = pattern.captures(text).ok().flatten()?;
    found.get(group).map(|m| m.as_str().trim().to_owned())
}

impl Take {
    pub fn new(setup: &Setup<'_>) -> Result<Self, ConfigError> {
        let o = setup.options;
        let extract = o.maybe_text("extract")?.map(|p| o.regex("extract", &p)).transpose()?;
        Ok(Self { to: o.filled("to")?, extract, filter_cut: o.text("cut")? == "filter" })
    }

    /// The text that is kept of an answer.
    fn text(&self, reply: &Reply) -> Result<String, Stop> {
        if reply.cut && self.filter_cut {
            return Err(Stop::filtered("answer cut", beginning(&reply.text)));
        }
        let Some(pattern) = &self.extract else { return Ok(reply.text.clone()) };
        match extracted(pattern, &reply.text) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Stop::filtered("nothing extracted", beginning(&reply.text))),
        }
    }

    fn row(&self, row: &Row, reply: &Reply) -> Result<Row, Stop> {
        let row = row.clone().with(&self.to, self.text(reply)?);
        Ok(match &reply.json {
            Some(Value::Object(map)) => map.iter().fold(row, |row, (k, v)| row.with(k, v.clone())),
            Some(other) => row.with(&self.to, other.clone()),
            None => row,
        })
    }

    /// A row for every answer; why there is none, where there is none.
    pub fn rows(&self, row: &Row, replies: &[Reply]) -> Result<Vec<Row>, Stop> {
        let mut out = Vec::new();
        let mut why = None;
        for reply in replies {
            match self.row(row, reply) {
                Ok(row) => out.push(row),
                Err(stop) => why = Some(stop),
            }
        }
        match why {
            Some(stop) if out.is_empty() => Err(stop),
            _ => Ok(out),
        }
    }
}

/// The beginning of a text, to show which one is meant.
pub(crate) fn beginning(text: &str) -> String {
    galen_data::beginning(text, 200)
}

struct Generate {
    prompt: Prompt,
    ask: Ask,
    take: Take,
    n: usize,
    gather: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let gather = setup.options.flag("gather")?;
    if gather && setup.options.given("schema") {
        return Err(setup.options.wrong("gather", "stands beside `schema`, whose fields would be nowhere"));
    }
    Ok(Box::new(Generate {
        prompt: Prompt::new(setup, None)?,
        ask: Ask::with_schema(setup)?,
        take: Take::new(setup)?,
        n: setup.options.positive("n")?,
        gather,
    }))
}

impl Step for Generate {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let prompt = self.prompt.of(cx, rows, at, &row, Map::new())?;
            let replies = self.ask.run(cx, tally, &row, &prompt, self.n)?;
            if self.gather {
                let texts: Vec<Value> =
                    replies.iter().map(|r| self.take.text(r).map(Value::from)).collect::<Result<_, _>>()?;
                return Ok(vec![row.with(&self.take.to, texts)]);
            }
            self.take.rows(&row, &replies)
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.prompt.of(cx, rows, at, row, Map::new()))
    }
}
