//! No two rows that say the same.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::text::{FIELD, TextOf};
use galen_data::dedup::{Dedup, Duplicate, Options};
use galen_data::reader::{Limits, data_files, open_files};
use galen_reward::{ConfigError, Kind, Param};
use std::path::PathBuf;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "dedup",
    about: "no exact and no near duplicates (MinHash, confirmed by the words)",
    doc: "The first of rows that say the same stays. Exact: the same words, without case and punctuation. Near: the sets of word n-grams have \
          a Jaccard similarity of at least `threshold`; candidates come from MinHash signatures, and each is compared by the sets \
          themselves. `against` names files whose rows count as there before.",
    params: &[&[FIELD], PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with(
        "threshold",
        Kind::Number,
        "0.8",
        "similarity of near duplicates, above 0; above 1: exact ones only",
    ),
    Param::with("ngram", Kind::Count, "3", "words of an n-gram"),
    Param::optional("against", Kind::Texts, "data files whose rows are there already"),
    Param::optional("against_field", Kind::Text, "the field of those rows; default: every text in them"),
];

struct DedupStep {
    text: TextOf,
    options: Options,
    against: Vec<PathBuf>,
    against_field: Option<String>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let threshold = o.number("threshold")?;
    if threshold <= 0.0 {
        return Err(o.wrong("threshold", "takes a number above 0"));
    }
    let against: Vec<PathBuf> = o.texts("against")?.into_iter().map(PathBuf::from).collect();
    for path in &against {
        super::contamination::uses_files(setup, "against", data_files(path, "train"))?;
    }
    Ok(Box::new(DedupStep {
        text: setup.must_text_of("field")?,
        options: Options { threshold, ngram: o.positive("ngram")? },
        against_field: if against.is_empty() { None } else { o.maybe_text("against_field")? },
        against,
    }))
}

impl Step for DedupStep {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        let mut dedup = Dedup::new(self.options);
        let mut there = 0;
        for path in &self.against {
            for row in open_files(data_files(path, "train")?, None, Limits::default()) {
                let row = row?;
                for text in super::contamination::texts(&row.fields, self.against_field.as_deref()) {
                    dedup.add(&text);
                    there += 1;
                }
            }
        }
        let mut found: Vec<Option<Duplicate>> = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            // A row without the text is none's duplicate; it fails below.
            let text = match self.text.of(cx, &row?) {
                Ok(text) => text,
                Err(Stop::Run(e)) => return Err(e),
                Err(_) => String::new(),
            };
            found.push(dedup.add(&text));
        }
        Ok(each(move |_, at, row| {
            let text = self.text.of(cx, &row)?;
            let Some(duplicate) = found[at] else { return Ok(vec![row]) };
            let of = match duplicate.of.checked_sub(there) {
                Some(of) => {
                    let other = rows.get(of)?;
                    format!("{}: {}", other.id, super::generate::beginning(&self.text.of(cx, &other)?))
                }
                None => "a row of `against`".to_owned(),
            };
            let detail =
                format!("{:.2} like {of} | {}", duplicate.similarity, super::generate::beginning(&text));
            Err(Stop::filtered(if duplicate.exact { "duplicate" } else { "near duplicate" }, detail))
        }))
    }
}
