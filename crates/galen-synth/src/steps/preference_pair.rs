//! A better answer over a worse one.

use super::{each, shown};
use crate::ask::{Ask, ENGINE, Reply};
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::{Row, random};
use crate::steps::verify::{CHECKS, Checks};
use galen_reward::{ConfigError, Finish, Kind, Param};
use serde_json::{Map, Value, json};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "preference_pair",
    about: "the best of N answers against the worst, or the right option against a wrong one",
    doc: "`by: options` (what `distractors` made): `chosen` is the right option, `rejected` a wrong one drawn by the seed; `as: letter` takes \
          their letters. `by: samples` asks the engine, best the model that is to be aligned, for `n` answers to the prompt and has \
          `checks` judge them: the best against the worst, where their sums differ by `min_margin`; with `right` that field's text is \
          `chosen` where no answer passes. `by: candidates` takes the list in `candidates` with its `scores`, as `rank` leaves them. \
          Writes `prompt`, `chosen`, `rejected`, `margin`.",
    params: &[PROMPT, ENGINE, CHECKS, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::required(
        "by",
        Kind::OneOf(&["options", "samples", "candidates"]),
        "where the two answers come from",
    ),
    Param::with("n", Kind::Count, "4", "answers asked for"),
    Param::with("min_margin", Kind::Number, "0.000001", "how much better the better one must be"),
    Param::optional("right", Kind::Text, "a field with an answer known to be right"),
    Param::with("as", Kind::OneOf(&["text", "letter"]), "\"text\"", "of options: what answers are"),
    Param::with("candidates", Kind::Text, "\"candidates\"", "the field with the list of answers"),
    Param::with("scores", Kind::Text, "\"scores\"", "the field with the list of their scores"),
];

enum By {
    Options { letters: bool },
    Samples { ask: Box<Ask>, checks: Checks, n: usize, right: Option<String> },
    Candidates { candidates: String, scores: String },
}

struct PreferencePair {
    prompt: Prompt,
    by: By,
    min_margin: f64,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let by = match o.text("by")?.as_str() {
        "options" => By::Options { letters: o.text("as")? == "letter" },
        "candidates" => By::Candidates { candidates: o.filled("candidates")?, scores: o.filled("scores")? },
        _ => {
            let Some(checks) = Checks::new(setup)? else {
                let hint = "`checks: [{exact_match: {field: answer}}]`";
                return Err(o.wrong("checks", "is required with `by: samples`").hint(hint));
            };
            let n = o.positive("n")?;
            if n < 2 {
                return Err(o.wrong("n", "takes 2 or more"));
            }
            By::Samples { ask: Box::new(Ask::new(setup)?), checks, n, right: o.maybe_text("right")? }
        }
    };
    Ok(Box::new(PreferencePair {
        prompt: Prompt::new(setup, None)?,
        by,
        min_margin: o.number("min_margin")?,
    }))
}

impl PreferencePair {
    /// Chosen, rejected, margin.
    fn pair(
        &self,
        cx: &Context<'_>,
        tally: &mut crate::context::Tally,
        row: &Row,
        prompt: &str,
    ) -> Result<(String, String, f64), Stop> {
        match &self.by {
            By::Options { letters } => {
                let options = row.texts(if *letters { "letters" } else { "options" })?;
                let at = row.fields.get("answer_index").and_then(Value::as_u64).map(|i| i as usize);
                let Some(at) = at.filter(|i| *i < options.len() && options.len() > 1) else {
                    return Err(Stop::failed("field missing", "`answer_index` names no option"));
                };
                let wrong = random(cx.seed_of(row), 3).below(options.len() as u64 - 1) as usize;
                let wrong = if wrong < at { wrong } else { wrong + 1 };
                Ok((options[at].clone(), options[wrong].clone(), 1.0))
            }
            By::Samples { ask, checks, n, right } => {
                let replies = ask.run(cx, tally, row, prompt, *n)?;
                let finish = |r: &Reply| if r.cut { Finish::Length } else { Finish::Stop };
                let texts: Vec<_> = replies.iter().map(|r| (r.text.as_str(), finish(r))).collect();
                let scores = checks.score(cx, row, prompt, &texts)?;
                let mean =
                    scores.iter().flatten().sum::<f64>() / scores.iter().flatten().count().max(1) as f64;
                tally.figure("score", mean);
                let mut scored: Vec<(String, f64)> =
                    replies.into_iter().zip(scores).filter_map(|(r, s)| Some((r.text, s?))).collect();
                if let Some(field) = right {
                    let known = row.text(field)?;
                    let best = scored.iter().map(|(_, s)| *s).fold(f64::NEG_INFINITY, f64::max);
                    let sum = checks.score(cx, row, prompt, &[(&known, Finish::Stop)])?;
                    if let Some(sum) = sum.into_iter().next().flatten().filter(|s| *s > best) {
                        scored.push((known, sum));
                    }
                }
                best_and_worst(scored)
            }
            By::Candidates { candidates, scores } => {
                let texts = row.texts(candidates)?;
                let scores = row.fields.get(scores).and_then(Value::as_array).cloned().unwrap_or_default();
                if scores.len() != texts.len() {
                    return Err(Stop::failed("field missing", "as many scores as candidates are needed"));
                }
                best_and_worst(
                    texts.into_iter().zip(scores).filter_map(|(t, s)| Some((t, s.as_f64()?))).collect(),
                )
            }
        }
    }
}

/// The first of the best and the first of the worst.
fn best_and_worst(scored: Vec<(String, f64)>) -> Result<(String, String, f64), Stop> {
    let better = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
    let best = scored.iter().rev().max_by(better);
    let worst = scored.iter().min_by(better);
    match (best, worst) {
        (Some(best), Some(worst)) => Ok((best.0.clone(), worst.0.clone(), best.1 - worst.1)),
        _ => Err(Stop::filtered("no answer is judged", "")),
    }
}

impl Step for PreferencePair {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        if let By::Samples { checks, .. } = &self.by {
            checks.start(cx.label)?;
        }
        Ok(each(move |tally, at, row| {
            let prompt = self.prompt.of(cx, rows, at, &row, Map::new())?.trim().to_owned();
            let (chosen, rejected, margin) = self.pair(cx, tally, &row, &prompt)?;
            if margin < self.min_margin
                || galen_data::normalized(&chosen) == galen_data::normalized(&rejected)
            {
                return Err(Stop::filtered("no better and worse", chosen));
            }
            tally.figure("margin", margin);
            let row = row.with("prompt", prompt).with("chosen", chosen).with("rejected", rejected);
            Ok(vec![row.with("margin", json!(margin))])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.prompt.of(cx, rows, at, row, Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_and_of_the_worst() {
        let list = |l: &[(&str, f64)]| l.iter().map(|(t, s)| ((*t).to_owned(), *s)).collect::<Vec<_>>();
        let (best, worst, margin) =
            best_and_worst(list(&[("a", 0.0), ("b", 1.0), ("c", 1.0), ("d", 0.0)])).unwrap();
        assert_eq!((best.as_str(), worst.as_str(), margin), ("b", "a", 1.0));
        assert!(best_and_worst(Vec::new()).is_err());
    }
}
