//! What rows say, for tools that compare rows with each other: the texts of a row without what its dataset type, its
//! chat template or its system turn put around all of them alike.
//!
//! Which texts those are follows from the fields one names; else from the dataset type, preference types included;
//! else from common names of a question and its answer; else it is every text of the row.

mod turns;

use crate::dataset::{DETECT_ROWS, open_raw};
use crate::dataset::{PreferenceFields, TypeSpec};
use crate::format::preference::NamedPreferenceReader;
use crate::format::{self, detect_pair, kind, preference};
use crate::reader::{Limits, RowIter};
use crate::{DataError, DatasetSpec, Fault, words};
use galen_types::{Origin, RawRow};
use serde_json::{Map, Value};
use std::path::PathBuf;

type Fields = Map<String, Value>;

/// One text of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowText {
    /// What it says.
    pub text: String,
    /// Whether it answers another text of the row.
    pub answer: bool,
}

/// A row with its texts; made by [`TextRow::checked`], at least one of them has a word.
#[derive(Debug, Clone, PartialEq)]
pub struct TextRow {
    /// The row as it was read.
    pub row: RawRow,
    /// What it says, in order.
    pub texts: Vec<RowText>,
}

impl TextRow {
    /// A row that says something. Where nothing is asked, nothing is an answer.
    ///
    /// Errors: none of the texts has a word.
    pub fn checked(row: RawRow, mut texts: Vec<RowText>) -> Result<Self, DataError> {
        if texts.iter().all(|t| t.answer) {
            texts.iter_mut().for_each(|t| t.answer = false);
        }
        if texts.iter().all(|t| words(&t.text).is_empty()) {
            return Err(DataError::row(&row.origin, Fault::EmptyTurn, "the row has no text to compare"));
        }
        Ok(Self { row, texts })
    }

    /// All texts as one, a line break between them.
    pub fn joined(&self) -> String {
        self.texts.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

type Reader = Box<dyn Fn(&RawRow) -> Result<Vec<RowText>, DataError> + Send>;

/// Rows of a dataset entry with their texts, read as they are asked for. After an error other than
/// [`DataError::Row`] it ends.
pub struct TextRows {
    head: std::vec::IntoIter<Result<RawRow, DataError>>,
    rest: RowIter,
    reader: Reader,
    about: String,
}

impl TextRows {
    /// Opens an entry. `fields`: the fields that are meant (`a.b`: a field of a field); none: as the rows' type has it.
    ///
    /// Errors: what cannot be opened, an entry without rows, an unknown type.
    pub fn open(
        spec: &DatasetSpec,
        fields: &[String],
        resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
        limits: Limits,
    ) -> Result<Self, DataError> {
        let mut rest = open_raw(spec, resolve, limits)?;
        let head: Vec<_> = rest.by_ref().take(DETECT_ROWS).collect();
        if head.is_empty() {
            let what = format!("{}: it has no rows", spec.path);
            return Err(DataError::Empty { what, hint: None });
        }
        let sample: Vec<&Fields> = head.iter().flatten().map(|r| &r.fields).collect();
        let (about, reader) =
            if fields.is_empty() { by_type(spec, &sample)? } else { by_fields(fields.to_vec()) };
        Ok(Self { head: head.into_iter(), rest, reader, about })
    }

    /// Which texts they are, in words.
    pub fn about(&self) -> &str {
        &self.about
    }
}

impl Iterator for TextRows {
    type Item = Result<TextRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.head.next().or_else(|| self.rest.next())?;
        Some(row.and_then(|row| {
            let texts = (self.reader)(&row)?;
            TextRow::checked(row, texts)
        }))
    }
}

fn by_type(spec: &DatasetSpec, sample: &[&Fields]) -> Result<(String, Reader), DataError> {
    let named = |name: &str| format!("the texts of type `{name}`, without system turns");
    let compared = |(name, reader): NamedPreferenceReader| -> (String, Reader) {
        let read = move |row: &RawRow| Ok(turns::preference(&reader.preference(row.clone())?));
        (named(name), Box::new(read))
    };
    let supervised = match (format::bare(spec, sample), preference::build(spec)) {
        // A name that is none of one kind may be one of the other.
        (Err(e), Err(_) | Ok(None)) => return Err(e),
        (Err(_), Ok(Some(found))) => return Ok(compared(found)),
        // A name that is of both is what the rows are.
        (Ok(_), Ok(Some(found))) if are_compared(spec, found.0, sample) => return Ok(compared(found)),
        (Ok(found), _) => found,
    };
    // Read as a chat, rows that differ in their answers alone would say the same.
    let answers = spec.kind.is_none() && preference::compares(sample);
    if answers {
        let found = preference::choose(spec, sample)?;
        // Of these only `prompt` is read beside the answers: what else the row asks must not be lost.
        let asks = found.0 != "preference" || sample.iter().all(|row| row.contains_key("prompt"));
        if asks || supervised.is_none() {
            return Ok(compared(found));
        }
        return Ok(all_texts());
    }
    if let Some((name, reader)) = supervised {
        return Ok((
            named(name),
            Box::new(move |row| Ok(turns::conversation(&reader.conversation(row.clone())?))),
        ));
    }
    if let Some((question, answer)) = detect_pair(sample) {
        let read = move |row: &RawRow| {
            let of = |name, answer| of_field(row, name).map(|text| RowText { text, answer });
            Ok(vec![of(question, false)?, of(answer, true)?])
        };
        return Ok((format!("the fields `{question}` and `{answer}`"), Box::new(read)));
    }
    if preference::detect(sample).is_some() {
        return Ok(compared(preference::choose(spec, sample)?));
    }
    Ok(all_texts())
}

/// Whether a type that is known by this name to both kinds is meant as one of preferences: by the fields it names, or by the rows.
fn are_compared(spec: &DatasetSpec, name: &str, sample: &[&Fields]) -> bool {
    match &spec.kind {
        Some(TypeSpec::Custom(custom)) => custom.preference != PreferenceFields::default(),
        _ => preference::compares(sample) && preference::detect(sample).is_some_and(|t| t.name == name),
    }
}

fn all_texts() -> (String, Reader) {
    let read = |row: &RawRow| {
        let mut texts = Vec::new();
        row.fields.values().for_each(|v| every_text(v, &mut texts));
        Ok(texts.into_iter().map(|text| RowText { text, answer: false }).collect())
    };
    ("every text of a row, since the fields are of no known type".to_owned(), Box::new(read))
}

fn by_fields(fields: Vec<String>) -> (String, Reader) {
    let about = format!("the field{} `{}`", if fields.len() == 1 { "" } else { "s" }, fields.join("`, `"));
    (about, Box::new(move |row| of_fields(row, &fields)))
}

/// The texts of these fields of a row. Errors: a field that is missing, or holds no text.
pub fn of_fields(row: &RawRow, fields: &[String]) -> Result<Vec<RowText>, DataError> {
    fields.iter().map(|name| Ok(RowText { text: of_field(row, name)?, answer: false })).collect()
}

/// The text of a field; of a list or a map all texts in it. A field that is null says nothing.
fn of_field(row: &RawRow, name: &str) -> Result<String, DataError> {
    match field(&row.fields, name) {
        None => Err(missing_field(&row.origin, &row.fields, name)),
        Some(Value::Null) => Ok(String::new()),
        Some(v @ (Value::Number(_) | Value::Bool(_))) => Ok(v.to_string()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(v) => {
            let mut texts = Vec::new();
            every_text(v, &mut texts);
            if texts.is_empty() {
                let what = format!("`{name}` should hold text, found {} without any", kind(v));
                return Err(DataError::row(&row.origin, Fault::WrongKind, what));
            }
            Ok(texts.join("\n"))
        }
    }
}

/// A field by its name, or `a.b`: a field of a field.
pub(crate) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| {
        let mut parts = name.split('.');
        let outer = fields.get(parts.next()?)?;
        parts.try_fold(outer, |v, part| v.get(part))
    })
}

/// Says which fields there are.
pub(crate) fn missing_field(origin: &Origin, fields: &Fields, name: &str) -> DataError {
    let there: Vec<_> = fields.keys().map(String::as_str).collect();
    let e = DataError::row(origin, Fault::MissingField, format!("field `{name}` is missing"));
    e.with_hint(format!("the row has `{}`", there.join("`, `")))
}

/// Adds every text within a value to `out`, in order.
pub fn every_text(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|v| every_text(v, out)),
        Value::Object(map) => map.values().for_each(|v| every_text(v, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
