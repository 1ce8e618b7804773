//! New instructions in the manner of those that are there (Wang et al.: Self-Instruct: Aligning Language Models with
//! Self-Generated Instructions, 2023).

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt, others};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "self_instruct",
    about: "new instructions from sampled ones (Self-Instruct)",
    doc: "For every row the template `self_instruct` sees its instruction and `shots - 1` others, drawn by the seed, as `instructions`; each \
          of the answer's lines that is none of them becomes a row. The seeds of all that were shown are the new row's. With \
          `keep_seeds` the rows themselves go on too. `dedup` behind it compares the new ones with each other.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"instruction\"", "the instruction"),
    Param::with("shots", Kind::Count, "6", "instructions shown"),
    Param::with("n", Kind::Count, "1", "new instructions of an answer at most"),
    Param::with("keep_seeds", Kind::Flag, "true", "the rows that were shown go on too"),
];

struct SelfInstruct {
    prompt: Prompt,
    ask: Ask,
    field: String,
    shots: usize,
    n: usize,
    keep_seeds: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    Ok(Box::new(SelfInstruct {
        prompt: Prompt::new(setup, Some("self_instruct"))?,
        ask: Ask::new(setup)?,
        field: o.filled("field")?,
        shots: o.positive("shots")?,
        n: o.positive("n")?,
        keep_seeds: o.flag("keep_seeds")?,
    }))
}

impl SelfInstruct {
    /// The prompt, the instructions in it, and their rows' seeds.
    fn shown(
        &self,
        cx: &Context<'_>,
        rows: &Rows,
        at: usize,
        row: &Row,
    ) -> Result<(String, Vec<String>, Vec<String>), Stop> {
        let mut instructions = vec![row.text(&self.field)?];
        let mut seeds = row.seeds.clone();
        for other in others(rows, at, self.shots - 1, cx.seed_of(row))? {
            instructions.push(other.text(&self.field)?);
            seeds.extend(other.seeds.into_iter().filter(|s| !row.seeds.contains(s)));
        }
        let list: Vec<Value> = instructions.iter().map(|i| i.as_str().into()).collect();
        let more =
            Map::from_iter([("instructions".to_owned(), list.into()), ("n".to_owned(), self.n.into())]);
        Ok((self.prompt.of(cx, rows, at, row, more)?, instructions, seeds))
    }
}

/// Lines of an answer without their numbers and bullets.
pub(crate) fn items(text: &str) -> impl Iterator<Item = &str> {
    let item = |line: &'_ str| -> Option<usize> {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let numbered = rest.len() < line.len() && rest.starts_with(['.', ')', ':']);
        Some(if numbered { line.len() - rest.len() + 1 } else { 0 })
    };
    text.lines()
        .map(str::trim)
        .map(move |line| line[item(line).unwrap_or(0)..].trim_start_matches(['-', '*', '•']).trim())
        .filter(|line| !line.is_empty())
}

impl Step for SelfInstruct {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let (prompt, shown, seeds) = self.shown(cx, rows, at, &row)?;
            let reply = self.ask.one(cx, tally, &row, &prompt)?;
            let mut seen: Vec<String> = shown.iter().map(|i| galen_data::normalized(i)).collect();
            let mut out = Vec::new();
            for item in items(&reply.text) {
                let normal = galen_data::normalized(item);
                if out.len() < self.n && normal.split(' ').count() >= 3 && !seen.contains(&normal) {
                    seen.push(normal);
                    let fields = Map::from_iter([(self.field.clone(), item.into())]);
                    out.push(Row { fields, seeds: seeds.clone(), ..row.clone() });
                }
            }
            tally.figure("new instructions", out.len() as f64);
            if self.keep_seeds {
                out.insert(0, row);
            }
            if out.is_empty() { Err(Stop::filtered("nothing new", reply.text)) } else { Ok(out) }
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.shown(cx, rows, at, row).map(|(prompt, ..)| prompt))
    }
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn lines_without_their_numbers() {
        let found: Vec<&str> =
            items("1. Name a sign.\n\n 2) List two drugs\n- What is 3.5 mg?\n12 months?").collect();
        assert_eq!(found, ["Name a sign.", "List two drugs", "What is 3.5 mg?", "12 months?"]);
    }
}
