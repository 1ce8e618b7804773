//! A model judges a row by a rubric.

use super::{each, shown};
use crate::ask::{Ask, ENGINE, Reply};
use crate::context::{Context, Tally};
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, json};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "judge",
    about: "a model's score by a rubric, or its choice among options held against the known one",
    doc: "With `choices` the judge is asked which of them it is: its answer is the first of them that stands in the reply as a word of its \
          own; where `known` names a field with the right one, `agrees` is written, the report has the judge's agreement with known \
          answers and how often it chooses which, and a row on which it disagrees is filtered unless `filter: none`. Without `choices` the template `judge` sees \
          `rubric` and `text`, the first number from `low` to `high` in the reply is the score, the mean over `samples` replies goes into \
          `to`, and a row below `min` is filtered. A reply without a choice or number counts for nothing; a row without any fails.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the text judged: a field's name, or a template"),
    Param::with("rubric", Kind::Text, "\"Is the text correct, clear and useful?\"", "what is judged"),
    Param::with("low", Kind::Number, "1", "the lowest score"),
    Param::with("high", Kind::Number, "5", "the highest score"),
    Param::optional("min", Kind::Number, "rows with a lower score are filtered"),
    Param::with("samples", Kind::Count, "1", "replies asked for"),
    Param::with("to", Kind::Text, "\"score\"", "the field that takes the score, or the choice"),
    Param::optional("choices", Kind::Texts, "what the judge chooses from, in place of a score"),
    Param::optional("known", Kind::Text, "the field with the right choice"),
    Param::with(
        "filter",
        Kind::OneOf(&["disagrees", "none"]),
        "\"disagrees\"",
        "of choices: what takes a row out",
    ),
];

struct Judge {
    prompt: Prompt,
    ask: Ask,
    text: crate::text::TextOf,
    rubric: String,
    range: (f64, f64),
    min: Option<f64>,
    samples: usize,
    to: String,
    choices: Vec<String>,
    known: Option<String>,
    filters: bool,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let (low, high) = (o.number("low")?, o.number("high")?);
    if low >= high {
        return Err(o.wrong("high", format!("`{high}` is not above `low`, `{low}`")));
    }
    let min = o.value("min")?.and_then(|v| v.as_f64());
    let (choices, known) = (o.texts("choices")?, o.maybe_text("known")?);
    if choices.len() == 1 {
        return Err(o.wrong("choices", "takes two or more"));
    }
    if known.is_some() && choices.is_empty() {
        return Err(o.wrong("known", "needs `choices`"));
    }
    if min.is_some() && !choices.is_empty() {
        return Err(o.wrong("min", "is of scores, and there are `choices`"));
    }
    Ok(Box::new(Judge {
        prompt: Prompt::new(setup, Some("judge"))?,
        ask: Ask::new(setup)?,
        text: setup.must_text_of("field")?,
        rubric: o.filled("rubric")?,
        range: (low, high),
        min,
        samples: o.positive("samples")?,
        to: o.filled("to")?,
        filters: known.is_some() && o.text("filter")? == "disagrees",
        choices,
        known,
    }))
}

/// The first number within the range in a reply: `Score: 4/5` is 4.
pub(crate) fn score(reply: &str, (low, high): (f64, f64)) -> Option<f64> {
    let mut rest = reply;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let negative = rest[..at].ends_with('-');
        let end = rest[at..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |n| at + n);
        let number = rest[at..end].trim_end_matches('.').parse::<f64>().ok();
        let number = number.map(|n| if negative { -n } else { n });
        if let Some(number) = number.filter(|n| (low..=high).contains(n)) {
            return Some(number);
        }
        rest = &rest[end..];
    }
    None
}

/// The choice that stands first in a reply as words of its own, the longest of those that begin there.
pub(crate) fn choice<'c>(reply: &str, choices: &'c [String]) -> Option<&'c str> {
    // A single letter is compared as it is written: `a` is a word, `A` a choice.
    let letters = choices.iter().all(|c| c.chars().count() == 1);
    let fold = |text: &str| if letters { text.to_owned() } else { text.to_lowercase() };
    let reply = fold(reply);
    let found = |choice: &'c String| {
        let wanted = fold(choice);
        let at = reply.match_indices(&wanted).map(|(at, _)| at).find(|at| {
            let before = reply[..*at].chars().next_back();
            let after = reply[at + wanted.len()..].chars().next();
            !wanted.is_empty() && [before, after].iter().flatten().all(|c| !c.is_alphanumeric())
        })?;
        Some((at, std::cmp::Reverse(wanted.len()), choice.as_str()))
    };
    choices.iter().filter_map(found).min().map(|(.., choice)| choice)
}

impl Judge {
    fn text(&self, cx: &Context<'_>, rows: &Rows, at: usize, row: &Row) -> Result<String, Stop> {
        let more = Map::from_iter([
            ("text".to_owned(), self.text.of(cx, row)?.into()),
            ("rubric".to_owned(), self.rubric.as_str().into()),
            ("low".to_owned(), json!(self.range.0)),
            ("high".to_owned(), json!(self.range.1)),
            ("choices".to_owned(), self.choices.clone().into()),
        ]);
        self.prompt.of(cx, rows, at, row, more)
    }

    fn scored(&self, tally: &mut Tally, row: Row, replies: &[Reply]) -> Result<Vec<Row>, Stop> {
        let scores: Vec<f64> = replies.iter().filter_map(|r| score(&r.text, self.range)).collect();
        tally.figure("replies with a score", scores.len() as f64 / replies.len().max(1) as f64);
        if scores.is_empty() {
            return Err(Stop::failed("no score in the reply", said(replies)));
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        tally.figure("score", mean);
        match self.min {
            Some(min) if mean < min => Err(Stop::filtered("score too low", format!("{mean} below {min}"))),
            _ => Ok(vec![row.with(&self.to, json!(mean))]),
        }
    }

    fn chosen(&self, tally: &mut Tally, row: Row, replies: &[Reply]) -> Result<Vec<Row>, Stop> {
        let mut counts: Vec<(&str, usize)> = self.choices.iter().map(|c| (c.as_str(), 0)).collect();
        for found in replies.iter().filter_map(|r| choice(&r.text, &self.choices)) {
            counts.iter_mut().filter(|(c, _)| *c == found).for_each(|(_, n)| *n += 1);
        }
        let votes: usize = counts.iter().map(|(_, n)| n).sum();
        tally.figure("replies with a choice", votes as f64 / replies.len().max(1) as f64);
        // How often each is chosen: a judge that always says `A` is seen.
        for (choice, n) in counts.iter().filter(|_| votes > 0 && counts.len() <= 8) {
            tally.figure(&format!("chooses {choice}"), *n as f64 / votes as f64);
        }
        // The first of equals, in the order of `choices`.
        let Some((judged, _)) = counts.iter().rev().max_by_key(|(_, n)| *n).filter(|(_, n)| *n > 0) else {
            return Err(Stop::failed("no choice in the reply", said(replies)));
        };
        let row = row.with(&self.to, *judged);
        let Some(known) = &self.known else { return Ok(vec![row]) };
        let known = row.text(known)?;
        let agrees = galen_data::normalized(&known) == galen_data::normalized(judged);
        tally.figure("agrees with the known answer", f64::from(u8::from(agrees)));
        if self.filters && !agrees {
            return Err(Stop::filtered("judge disagrees", format!("judged `{judged}`, known `{known}`")));
        }
        Ok(vec![row.with("agrees", agrees)])
    }
}

fn said(replies: &[Reply]) -> String {
    replies.first().map_or(String::new(), |r| super::generate::beginning(&r.text))
}

impl Step for Judge {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let prompt = self.text(cx, rows, at, &row)?;
            let replies = self.ask.run(cx, tally, &row, &prompt, self.samples)?;
            if self.choices.is_empty() {
                self.scored(tally, row, &replies)
            } else {
                self.chosen(tally, row, &replies)
            }
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| self.text(cx, rows, at, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_in_replies() {
        for (reply, expect) in [
            ("4", Some(4.0)),
            ("Score: 4/5 because", Some(4.0)),
            ("I would give it 3.5.", Some(3.5)),
            ("Out of 10, a 2", Some(2.0)),
            ("-1 or 9", None),
            ("none", None),
            ("1.2.3 then 5", Some(5.0)),
        ] {
            assert_eq!(score(reply, (1.0, 5.0)), expect, "{reply}");
        }
        assert_eq!(score("-1", (-2.0, 5.0)), Some(-1.0));
    }

    #[test]
    fn choices_in_replies() {
        let letters: Vec<String> = ["A", "B", "I"].map(str::to_owned).to_vec();
        assert_eq!(choice("The answer is B.", &letters), Some("B"));
        assert_eq!(choice("a bad answer", &letters), None);
        assert_eq!(choice("(A) or B", &letters), Some("A"));
        let words: Vec<String> = ["type 1", "type 1 diabetes", "flu"].map(str::to_owned).to_vec();
        assert_eq!(choice("Type 1 diabetes, not flu", &words), Some("type 1 diabetes"));
        assert_eq!(choice("influenza", &words), None);
    }
}
