//! Texts of some languages.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::text::{FIELD, TextOf};
use galen_reward::{ConfigError, Kind, Param};
use whatlang::{Lang, detect};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "language",
    about: "texts of the languages named",
    doc: "Detects the language by its script and its trigrams (whatlang). Names are ISO 639-3 codes: `eng`, `deu`, `fra`, `spa` ... A text that \
          is shorter than `min_chars`, or of which the detection is less certain than `min_confidence`, passes.",
    params: &[&[FIELD], PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("languages", Kind::Texts, "[\"eng\"]", "those that pass"),
    Param::with(
        "min_confidence",
        Kind::Number,
        "0.9",
        "certainty from which a text of another language is filtered",
    ),
    Param::with("min_chars", Kind::Count, "40", "shorter texts pass: they tell too little"),
];

struct Language {
    text: TextOf,
    languages: Vec<Lang>,
    min_confidence: f64,
    min_chars: usize,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let language = |code: String| {
        Lang::from_code(&code).ok_or_else(|| {
            let all: Vec<&str> = Lang::all().iter().map(Lang::code).collect();
            o.wrong("languages", format!("there is no language `{code}`"))
                .hint(galen_reward::suggestion(&code, &all))
        })
    };
    Ok(Box::new(Language {
        text: setup.must_text_of("field")?,
        languages: o.texts("languages")?.into_iter().map(language).collect::<Result<_, _>>()?,
        min_confidence: o.number("min_confidence")?,
        min_chars: o.count("min_chars")?,
    }))
}

impl Step for Language {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |_, _, row| {
            let text = self.text.of(cx, &row)?;
            if text.chars().count() >= self.min_chars
                && let Some(found) = detect(&text)
                && found.confidence() >= self.min_confidence
                && !self.languages.contains(&found.lang())
            {
                let detail = format!("{}: {}", found.lang().code(), super::generate::beginning(&text));
                return Err(Stop::filtered("other language", detail));
            }
            Ok(vec![row])
        }))
    }
}
