//! Texts neither too short nor too long.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::text::{FIELD, TextOf};
use galen_reward::{ConfigError, Kind, Param};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "length",
    about: "texts neither too short nor too long",
    doc: "Counts characters and words (as `dedup` counts words).",
    params: &[&[FIELD], PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::optional("min_chars", Kind::Count, "fewest characters"),
    Param::optional("max_chars", Kind::Count, "most characters"),
    Param::optional("min_words", Kind::Count, "fewest words"),
    Param::optional("max_words", Kind::Count, "most words"),
];

struct Length {
    text: TextOf,
    chars: (usize, usize),
    words: (usize, usize),
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let range = |min: &str, max: &str| {
        let (low, high) = (o.maybe_count(min)?.unwrap_or(0), o.maybe_count(max)?.unwrap_or(usize::MAX));
        if low > high {
            Err(o.wrong(max, format!("`{high}` is below `{min}`, `{low}`")))
        } else {
            Ok((low, high))
        }
    };
    let (chars, words) = (range("min_chars", "max_chars")?, range("min_words", "max_words")?);
    if chars == (0, usize::MAX) && words == (0, usize::MAX) {
        return Err(o
            .wrong("max_words", "no bound is given")
            .hint("`min_words`, `max_words`, `min_chars` or `max_chars`"));
    }
    Ok(Box::new(Length { text: setup.must_text_of("field")?, chars, words }))
}

impl Step for Length {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, _, row| {
            let text = self.text.of(cx, &row)?;
            let (chars, words) = (text.chars().count(), galen_data::words(&text).len());
            tally.figure("words", words as f64);
            let detail =
                || format!("{words} words, {chars} characters: {}", super::generate::beginning(&text));
            if chars < self.chars.0 || words < self.words.0 {
                return Err(Stop::filtered("too short", detail()));
            }
            if chars > self.chars.1 || words > self.words.1 {
                return Err(Stop::filtered("too long", detail()));
            }
            Ok(vec![row])
        }))
    }
}
