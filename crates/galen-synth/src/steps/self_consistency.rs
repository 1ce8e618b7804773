//! Several answers to one question: what most of them say (Wang et al.: Self-Consistency Improves Chain of Thought
//! Reasoning in Language Models, 2023).

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use fancy_regex::Regex;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, json};
use std::collections::HashMap;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "self_consistency",
    about: "k answers to a question; rows on which they do not agree are filtered",
    doc: "Asks for `k` answers, takes of each what `extract` matches (without it the last line), and compares them without case and \
          punctuation. The commonest goes into `to`, its share into `agreement`; a row below `min_agreement` is filtered. With `known` the \
          report has how often the commonest is the known answer.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("k", Kind::Count, "5", "answers"),
    Param::optional("extract", Kind::Text, "a pattern: of an answer its group 1, or all of it, is compared"),
    Param::with("min_agreement", Kind::Number, "0.6", "share of the answers that must agree"),
    Param::with("to", Kind::Text, "\"answer\"", "the field that takes the commonest answer"),
    Param::optional("known", Kind::Text, "the field with the known answer"),
];

struct SelfConsistency {
    prompt: Prompt,
    ask: Ask,
    k: usize,
    extract: Option<Regex>,
    min_agreement: f64,
    to: String,
    known: Option<String>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    Ok(Box::new(SelfConsistency {
        prompt: Prompt::new(setup, None)?,
        ask: Ask::new(setup)?,
        k: o.positive("k")?,
        extract: o.maybe_text("extract")?.map(|p| o.regex("extract", &p)).transpose()?,
        min_agreement: o.number("min_agreement")?,
        to: o.filled("to")?,
        known: o.maybe_text("known")?,
    }))
}

impl SelfConsistency {
    fn answer(&self, reply: &str) -> Option<String> {
        match &self.extract {
            Some(pattern) => super::generate::extracted(pattern, reply),
            None => reply.lines().map(str::trim).rfind(|l| !l.is_empty()).map(str::to_owned),
        }
    }
}

/// The commonest by what it says, the first of equals, with its share of `n`.
fn commonest(answers: Vec<String>, n: usize) -> Option<(String, f64)> {
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    for (i, answer) in answers.iter().enumerate() {
        let normal = galen_data::normalized(answer);
        // An answer of signs alone is compared as it is.
        let key = if normal.is_empty() { answer.clone() } else { normal };
        counts.entry(key).or_insert((0, i)).0 += 1;
    }
    let (count, first) =
        counts.into_values().max_by_key(|(count, first)| (*count, std::cmp::Reverse(*first)))?;
    Some((answers[first].clone(), count as f64 / n.max(1) as f64))
}

impl Step for SelfConsistency {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let prompt = self.prompt.of(cx, rows, at, &row, Map::new())?;
            let replies = self.ask.run(cx, tally, &row, &prompt, self.k)?;
            let answers = replies.iter().filter_map(|r| self.answer(&r.text)).collect();
            let Some((answer, share)) = commonest(answers, self.k) else {
                return Err(Stop::filtered(
                    "nothing extracted",
                    super::generate::beginning(&replies[0].text),
                ));
            };
            tally.figure("agreement", share);
            if let Some(known) = &self.known {
                let right = galen_data::normalized(&row.text(known)?) == galen_data::normalized(&answer);
                tally.figure("is the known answer", f64::from(u8::from(right)));
            }
            if share < self.min_agreement {
                return Err(Stop::filtered("answers disagree", format!("{share:.2} say `{answer}`")));
            }
            Ok(vec![row.with(&self.to, answer).with("agreement", json!(share))])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.prompt.of(cx, rows, at, row, Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::commonest;

    #[test]
    fn the_first_of_the_commonest() {
        let of = |list: &[&str]| commonest(list.iter().map(|s| (*s).to_owned()).collect(), 5);
        assert_eq!(of(&["B", "a.", "b", "A"]), Some(("B".to_owned(), 0.4)));
        assert_eq!(of(&["x", "Y!", "y"]), Some(("Y!".to_owned(), 0.4)));
        assert_eq!(of(&[]), None);
    }
}
