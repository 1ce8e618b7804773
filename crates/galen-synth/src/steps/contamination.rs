//! No rows that repeat what a model is to be examined on.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use galen_data::DataError;
use galen_data::contamination::{Index, Options};
use galen_data::reader::{Limits, evaluation_files, open_files};
use galen_data::texts::every_text;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value};
use std::path::PathBuf;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "contamination",
    about: "no rows that repeat evaluation sets (13-grams, normalised equality)",
    doc: "A row is taken out when one of its texts is the same as a text of a set in `against` but for case, spacing and punctuation, or shares \
          `ngram` words in a row with one. Evaluation texts with fewer words, but `whole_from` at least, count where they occur whole in a \
          row. `fields` says which fields of rows are looked at (default: every text, lists and maps included), `against_fields` which of \
          the evaluation sets. The report has the counts and examples.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::required(
        "against",
        Kind::Texts,
        "evaluation sets: data files, or folders of them (their `test` files, else `validation`, where names speak of splits)",
    ),
    Param::optional("against_fields", Kind::Texts, "the fields of their rows; default: every text"),
    Param::optional("fields", Kind::Texts, "the fields of rows; default: every text"),
    Param::with("ngram", Kind::Count, "13", "words in a row that must not be shared"),
    Param::with(
        "whole_from",
        Kind::Count,
        "13",
        "fewest words of a short evaluation text that must not occur whole",
    ),
];

struct Contamination {
    against: Vec<PathBuf>,
    against_fields: Vec<String>,
    fields: Vec<String>,
    options: Options,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let against: Vec<PathBuf> = o.texts("against")?.into_iter().map(PathBuf::from).collect();
    if against.is_empty() {
        return Err(o.wrong("against", "names no file"));
    }
    for path in &against {
        uses_files(setup, "against", evaluation_files(path).map(|(files, _)| files))?;
    }
    let (ngram, whole_from) = (o.positive("ngram")?, o.positive("whole_from")?);
    if o.given("whole_from") && whole_from > ngram {
        return Err(o.wrong("whole_from", "is above `ngram`: it speaks of texts with fewer words than that"));
    }
    let options = Options { ngram, whole_from: whole_from.min(ngram), ..Options::default() };
    Ok(Box::new(Contamination {
        against,
        against_fields: o.texts("against_fields")?,
        fields: o.texts("fields")?,
        options,
    }))
}

/// Notes the hash of each of these files, so that a step is made anew where they change.
pub(super) fn uses_files(
    setup: &Setup<'_>,
    param: &str,
    files: Result<Vec<PathBuf>, DataError>,
) -> Result<(), ConfigError> {
    for file in files.map_err(|e| setup.options.wrong(param, e.to_string()))? {
        let hash = crate::seeds::hash_of(&file).map_err(|e| setup.options.wrong(param, e.to_string()))?;
        setup.used.borrow_mut().files.push((file.display().to_string(), hash));
    }
    Ok(())
}

/// Texts of a row: of one field, or all there are.
pub(super) fn texts(fields: &Map<String, Value>, field: Option<&str>) -> Vec<String> {
    let mut out = Vec::new();
    for (_, value) in fields.iter().filter(|(name, _)| field.is_none_or(|f| f == *name)) {
        every_text(value, &mut out);
    }
    out
}

fn of_fields(row: &Map<String, Value>, fields: &[String]) -> Vec<String> {
    if fields.is_empty() {
        return texts(row, None);
    }
    fields.iter().flat_map(|f| texts(row, Some(f))).collect()
}

impl Step for Contamination {
    fn start<'a>(&'a self, _: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        let mut index = Index::new(self.options);
        for path in &self.against {
            let set = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            for row in open_files(evaluation_files(path)?.0, None, Limits::default()) {
                let row = row?;
                let origin = row.origin.to_string();
                for text in of_fields(&row.fields, &self.against_fields) {
                    index.add(&set, &origin, &text);
                }
            }
        }
        Ok(each(move |_, _, row| {
            for text in of_fields(&row.fields, &self.fields) {
                if let Some(hit) = index.find(&text) {
                    let detail = format!(
                        "{} with {} (`{}`): {}",
                        hit.kind.words(),
                        hit.origin,
                        hit.shared,
                        super::generate::beginning(&text)
                    );
                    return Err(Stop::filtered(format!("contaminated by {}", hit.set), detail));
                }
            }
            Ok(vec![row])
        }))
    }
}
