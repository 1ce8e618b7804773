//! A model chooses among options, each of which stands once in every place: what it prefers by place cancels (Zheng et al.:
//! Large Language Models Are Not Robust Multiple Choice Selectors, 2024).

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::{Context, Tally};
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use crate::steps::judge::choice;
use crate::text::TextOf;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value, json};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "judge_options",
    about: "a model finds the right one of several options again, asked with each option in every place",
    doc: "The template `judge_options` sees `text`, `options` and their `letters`. It is asked as often as there are options, turned by one place \
          each time. `by: votes` counts the options that the replies name; `by: logprobs` (engines on this machine) adds up the \
          log-probability of each option's letter as the first token, which tells something even of a judge that always names one \
          place. The option with strictly most is the judge's; without one the row is filtered as undecided. Where it is not the text \
          in `known` the row is filtered, unless `filter: none`. The report has the agreement, and how often each place is named.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the text judged: a field's name, or a template"),
    Param::with(
        "options",
        Kind::Text,
        "\"options\"",
        "the field with the list of options, 2 to 26, as `distractors` makes it",
    ),
    Param::required("known", Kind::Text, "the field with the right option's text"),
    Param::with("by", Kind::OneOf(&["votes", "logprobs"]), "\"votes\"", "what counts"),
    Param::with("to", Kind::Text, "\"judged\"", "the field that takes the judge's option"),
    Param::with("filter", Kind::OneOf(&["disagrees", "none"]), "\"disagrees\"", "what takes a row out"),
];

/// Points of two options that differ by less are the same.
const TIE: f64 = 1e-9;

struct JudgeOptions {
    prompt: Prompt,
    ask: Ask,
    text: TextOf,
    options: String,
    known: String,
    logprobs: bool,
    to: String,
    filters: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let ask = Ask::new(setup)?;
    let logprobs = o.text("by")? == "logprobs";
    if logprobs && !setup.gives_logprobs(&ask.engine) {
        let what = format!("`logprobs` are not given by engine `{}`", ask.engine);
        return Err(o.wrong("by", what).hint("an engine of `type: native`, or another `by`"));
    }
    Ok(Box::new(JudgeOptions {
        prompt: Prompt::new(setup, Some("judge_options"))?,
        ask,
        text: setup.must_text_of("field")?,
        options: o.filled("options")?,
        known: o.filled("known")?,
        logprobs,
        to: o.filled("to")?,
        filters: o.text("filter")? == "disagrees",
    }))
}

/// Log-probability of each letter among the first tokens; of one that is not there, a little less than the least.
fn of_letters(letters: &[String], tokens: &[(String, f64)]) -> Vec<f64> {
    let floor = tokens.iter().map(|(_, p)| *p).fold(0.0, f64::min) - 1.0;
    let of = |letter: &String| {
        // `A` and ` A` are the same answer.
        let sum: f64 = tokens.iter().filter(|(t, _)| t.trim() == letter).map(|(_, p)| p.exp()).sum();
        if sum > 0.0 { sum.ln() } else { floor }
    };
    letters.iter().map(of).collect()
}

impl JudgeOptions {
    fn text(&self, cx: &Context<'_>, rows: &Rows, at: usize, row: &Row, turn: usize) -> Result<String, Stop> {
        let mut options = row.texts(&self.options)?;
        let n = options.len();
        if !(2..=26).contains(&n) {
            return Err(Stop::failed("options", format!("{n} options, and 2 to 26 can be judged")));
        }
        options.rotate_left(turn % n);
        let more = Map::from_iter([
            ("text".to_owned(), self.text.of(cx, row)?.into()),
            ("options".to_owned(), options.into()),
            ("letters".to_owned(), letters(n).into()),
        ]);
        self.prompt.of(cx, rows, at, row, more)
    }

    /// Points of each option, in their own order.
    fn points(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        rows: &Rows,
        at: usize,
        row: &Row,
    ) -> Result<Vec<f64>, Stop> {
        let n = row.texts(&self.options)?.len();
        let letters = letters(n);
        let mut points = vec![0.0; n];
        for turn in 0..n {
            let prompt = self.text(cx, rows, at, row, turn)?;
            let of_places: Vec<f64> = if self.logprobs {
                of_letters(&letters, &self.ask.first_tokens(cx, tally, row, &prompt)?)
            } else {
                let reply = self.ask.one(cx, tally, row, &prompt)?;
                let said = choice(&reply.text, &letters);
                letters.iter().map(|l| f64::from(u8::from(said == Some(l)))).collect()
            };
            let best = of_places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for (place, value) in of_places.iter().enumerate() {
                points[(turn + place) % n] += value;
                let named = *value == best && (self.logprobs || *value > 0.0);
                tally.figure(&format!("names place {}", letters[place]), f64::from(u8::from(named)));
            }
        }
        Ok(points)
    }
}

fn letters(n: usize) -> Vec<String> {
    ('A'..='Z').take(n).map(String::from).collect()
}

impl Step for JudgeOptions {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let options = row.texts(&self.options)?;
            let known = row.text(&self.known)?;
            let points = self.points(cx, tally, rows, at, &row)?;
            let best = points.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let first: Vec<usize> = (0..points.len()).filter(|i| points[*i] > best - TIE).collect();
            let decided = first.len() == 1;
            tally.figure("decides", f64::from(u8::from(decided)));
            let judged = if decided { options[first[0]].as_str() } else { "" };
            let agrees = decided && galen_data::normalized(judged) == galen_data::normalized(&known);
            tally.figure("agrees with the known answer", f64::from(u8::from(agrees)));
            if self.filters && !decided {
                return Err(Stop::filtered("judge undecided", format!("{points:?}")));
            }
            if self.filters && !agrees {
                return Err(Stop::filtered("judge disagrees", format!("judged `{judged}`, known `{known}`")));
            }
            let judged = if decided { Value::from(judged) } else { Value::Null };
            Ok(vec![row.with(&self.to, judged).with("agrees", json!(agrees))])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.text(cx, rows, at, row, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_among_first_tokens() {
        let tokens =
            [("A".to_owned(), 0.25_f64.ln()), (" A".to_owned(), 0.25_f64.ln()), ("x".to_owned(), -3.0)];
        let found = of_letters(&letters(2), &tokens);
        assert!((found[0] - 0.5_f64.ln()).abs() < 1e-12 && (found[1] + 4.0).abs() < 1e-12, "{found:?}");
    }
}
