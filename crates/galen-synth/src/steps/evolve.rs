//! Instructions made harder or broader, round by round (Xu et al.: WizardLM: Empowering Large Language Models to Follow
//! Complex Instructions, 2023).

use super::each;
use crate::ask::{Ask, ENGINE};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::{Row, random};
use galen_reward::{ConfigError, Kind, Param};
use serde_json::Map;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "evolve",
    about: "instructions made harder or broader, round by round (Evol-Instruct)",
    doc: "In each round one of `operations` is drawn by the seed, and its template `evolve/NAME` sees the instruction as `text`. A round \
          fails when the model gives back what it was given, hardly any words, or words of the prompt itself; the row then goes on \
          with what it had, and a row of which no round succeeded is filtered. With `keep_rounds` every round's instruction is a row, \
          the first one included; `evolved` lists the operations.",
    params: &[&[PROMPT[2], PROMPT[3]], ENGINE, PARAMS],
    build,
};

const OPERATIONS: [&str; 5] = ["deepen", "constrain", "concretize", "reason", "broaden"];

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"instruction\"", "the instruction"),
    Param::with("rounds", Kind::Count, "2", "rounds"),
    Param::optional(
        "operations",
        Kind::Texts,
        "what is drawn from: `deepen`, `constrain`, `concretize`, `reason`, `broaden`, or templates of one's own under `evolve/`; default: these five",
    ),
    Param::with("keep_rounds", Kind::Flag, "false", "a row for the instruction of every round"),
];

struct Evolve {
    operations: Vec<(String, Prompt)>,
    ask: Ask,
    field: String,
    rounds: usize,
    keep_rounds: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let mut names = o.texts("operations")?;
    if names.is_empty() {
        names = OPERATIONS.map(str::to_owned).to_vec();
    }
    let operation = |name: String| {
        let template = setup.template("operations", &format!("evolve/{name}"))?;
        Ok((name, Prompt::named(setup, template.name)?))
    };
    Ok(Box::new(Evolve {
        operations: names.into_iter().map(operation).collect::<Result<_, ConfigError>>()?,
        ask: Ask::new(setup)?,
        field: o.filled("field")?,
        rounds: o.positive("rounds")?,
        keep_rounds: o.flag("keep_rounds")?,
    }))
}

/// Words of the prompts that an instruction has no use for: the model repeats what it was told.
const OF_THE_PROMPT: &[&str] =
    &["given instruction", "new instruction", "rewritten instruction", "given prompt"];

/// Why a new instruction is no use.
fn refuse(before: &str, after: &str) -> Option<&'static str> {
    let (before, after) = (galen_data::normalized(before), galen_data::normalized(after));
    if before == after {
        return Some("unchanged");
    }
    if after.split(' ').count() < 3 {
        return Some("hardly any words");
    }
    OF_THE_PROMPT.iter().any(|p| after.contains(p) && !before.contains(p)).then_some("repeats the prompt")
}

impl Evolve {
    fn round(
        &self,
        cx: &Context<'_>,
        rows: &Rows,
        at: usize,
        row: &Row,
        round: usize,
    ) -> Result<(usize, String), Stop> {
        let which = random(cx.seed_of(row), round as u64).below(self.operations.len() as u64) as usize;
        let more = Map::from_iter([("text".to_owned(), row.text(&self.field)?.into())]);
        Ok((which, self.operations[which].1.of(cx, rows, at, row, more)?))
    }
}

impl Step for Evolve {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let first = row.text(&self.field)?;
            let mut now = row.clone();
            let mut done: Vec<String> = Vec::new();
            let mut why = "unchanged";
            let mut out = if self.keep_rounds { vec![row.clone()] } else { Vec::new() };
            for round in 0..self.rounds {
                let (which, prompt) = self.round(cx, rows, at, &now, round)?;
                let reply = self.ask.one(cx, tally, &now, &prompt)?;
                let refused = refuse(&now.text(&self.field)?, &reply.text);
                tally.figure("rounds that succeed", f64::from(u8::from(refused.is_none())));
                if let Some(reason) = refused {
                    why = reason;
                    continue;
                }
                done.push(self.operations[which].0.clone());
                now = now.with(&self.field, reply.text).with("evolved", done.clone());
                if self.keep_rounds {
                    out.push(now.clone());
                }
            }
            if done.is_empty() {
                return Err(Stop::filtered(why, first));
            }
            if !self.keep_rounds {
                out.push(now);
            }
            Ok(out)
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        super::shown(rows, at, |row| self.round(cx, rows, at, row, 0).map(|(_, prompt)| prompt))
    }
}

#[cfg(test)]
mod tests {
    use super::refuse;

    #[test]
    fn what_is_no_evolution() {
        let before = "Name a cause of fever.";
        assert_eq!(refuse(before, "Name three causes of fever in infants."), None);
        assert_eq!(refuse(before, "name a cause of FEVER"), Some("unchanged"));
        assert_eq!(refuse(before, "Fever?"), Some("hardly any words"));
        assert_eq!(refuse(before, "#New Instruction#: name a cause"), Some("repeats the prompt"));
    }
}
