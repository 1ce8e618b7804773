//! Dataset types: what a row's fields mean. A new one is one file here and one line in [`TYPES`].

mod alpaca;
mod chat_template;
mod completion;
mod custom;
mod fill;
mod input_output;
pub mod preference;
mod prompt_completion;
mod sharegpt;

use crate::dataset::{CustomType, TypeSpec};
use crate::error::nearest;
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Conversation, Origin, RawRow};
use serde_json::{Map, Value};

/// Reads rows of one dataset type.
pub trait RowFormat: Send + Sync {
    /// The row understood. Errors are `DataError::Row`s.
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError>;
}

type Fields = Map<String, Value>;
type Built = Result<Box<dyn RowFormat>, DataError>;
/// A dataset type's name and its reader.
pub type NamedReader = (&'static str, Box<dyn RowFormat>);

/// A dataset type: how it is named, recognised and read.
pub struct DatasetType {
    /// Its name in `type:`.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// One line for `--help` and the docs.
    pub about: &'static str,
    /// Whether a row's fields look like it.
    detect: fn(&Fields) -> bool,
    /// The reader for an entry; the text is what follows the name in `type: alpaca:chat`.
    build: fn(&DatasetSpec, Option<&str>) -> Built,
}

/// Every dataset type, in the order in which detection tries them.
pub static TYPES: &[DatasetType] = &[
    chat_template::TYPE,
    sharegpt::TYPE,
    input_output::TYPE,
    alpaca::TYPE,
    prompt_completion::TYPE,
    completion::TYPE,
];

/// The first type most of these rows look like: one that does not is a bad row.
pub fn detect(rows: &[&Fields]) -> Option<&'static DatasetType> {
    TYPES.iter().find(|t| most(rows, t.detect))
}

/// Whether more than half of the rows are such.
fn most(rows: &[&Fields], such: impl Fn(&Fields) -> bool) -> bool {
    2 * rows.iter().filter(|r| such(r)).count() > rows.len()
}

/// Names under which rows commonly hold a question and its answer, outside any dataset type.
const PAIRS: &[(&str, &str)] = &[
    ("question", "answer"),
    ("question", "response"),
    ("query", "answer"),
    ("query", "response"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("instruction", "response"),
    ("input", "output"),
    ("input", "target"),
    ("problem", "solution"),
];

/// The fields that all of these rows hold a question and its answer in as text, where they have common names.
pub fn detect_pair(rows: &[&Fields]) -> Option<(&'static str, &'static str)> {
    let text = |row: &Fields, name: &str| row.get(name).is_some_and(Value::is_string);
    let both = |(q, a): &&(&str, &str)| rows.iter().all(|row| text(row, q) && text(row, a));
    PAIRS.iter().find(both).copied().filter(|_| !rows.is_empty())
}

/// The type called so (without what follows a `:`), by name or alias.
pub fn type_by_name(name: &str) -> Option<&'static DatasetType> {
    TYPES.iter().find(|t| t.name == name || t.aliases.contains(&name))
}

/// Checks what an entry says of its type without reading data: the reader of a named or custom type.
pub fn build(spec: &DatasetSpec) -> Result<Option<NamedReader>, DataError> {
    match &spec.kind {
        None => Ok(None),
        Some(TypeSpec::Custom(custom)) => Ok(Some(("custom", custom::build(spec, custom)?))),
        Some(TypeSpec::Named(text)) => {
            let (name, style) = match text.split_once([':', '.']) {
                Some((name, style)) => (name, Some(style)),
                None => (text.as_str(), None),
            };
            let Some(found) = type_by_name(name) else {
                let known = TYPES.iter().flat_map(|t| t.aliases.iter().copied().chain([t.name]));
                let e = DataError::spec(&spec.path, format!("unknown dataset `type: {text}`"));
                return Err(match nearest(name, known) {
                    Some(near) => e.with_hint(format!("did you mean `{near}`?")),
                    None => e.with_hint(format!("known types: {}", names())),
                });
            };
            Ok(Some((found.name, (found.build)(spec, style)?)))
        }
    }
}

/// The reader of an entry: that of its type, else of the first type its rows look like.
fn known(spec: &DatasetSpec, sample: &[&Fields]) -> Result<Option<NamedReader>, DataError> {
    if let Some(built) = build(spec)? {
        return Ok(Some(built));
    }
    let found = if spec.field_messages.is_some() {
        Some(&chat_template::TYPE)
    } else if spec.field.is_some() {
        Some(&completion::TYPE)
    } else {
        detect(sample)
    };
    found.map(|found| Ok((found.name, (found.build)(spec, None)?))).transpose()
}

/// The same without the sentences that a type or its format puts around the texts of every row; `None` where no type fits.
pub(crate) fn bare(spec: &DatasetSpec, sample: &[&Fields]) -> Result<Option<NamedReader>, DataError> {
    let found = known(spec, sample)?;
    let custom = match (&found, &spec.kind) {
        (Some(("alpaca", _)), _) => CustomType::default(),
        (Some(_), Some(TypeSpec::Custom(custom))) => CustomType::clone(custom),
        _ => return Ok(found),
    };
    let unframed = CustomType {
        system_format: Some(String::new()),
        format: Some("{instruction}\n{input}\n".into()),
        no_input_format: Some("{instruction}\n".into()),
        ..custom
    };
    found.map(|(name, _)| Ok((name, custom::build(spec, &unframed)?))).transpose()
}

pub(crate) fn choose(spec: &DatasetSpec, sample: &[&Fields]) -> Result<NamedReader, DataError> {
    if let Some(found) = known(spec, sample)? {
        return Ok(found);
    }
    let Some(first) = sample.first() else {
        return Err(DataError::spec(&spec.path, "no readable row to tell the dataset type by"));
    };
    let fields: Vec<_> = first.keys().map(String::as_str).collect();
    let one_field = fields.len() == 1 && fields.iter().any(|f| f.contains([';', '\t']));
    let (question, answer) = detect_pair(sample).unwrap_or(("...", "..."));
    let hint = if one_field {
        "the columns look separated by `;` or tabs: separate them by commas".to_owned()
    } else {
        format!(
            "set `type:` to `{{field_instruction: {question}, field_output: {answer}, no_input_format: \"{{instruction}}\\n\"}}` or to one of {}",
            names()
        )
    };
    let what = format!("cannot tell the dataset type from the fields `{}`", fields.join("`, `"));
    Err(DataError::spec(&spec.path, what).with_hint(hint))
}

fn names() -> String {
    TYPES.iter().map(|t| format!("`{}`", t.name)).collect::<Vec<_>>().join(", ")
}

fn no_style(spec: &DatasetSpec, name: &str, style: Option<&str>) -> Result<(), DataError> {
    match style {
        None | Some("default") => Ok(()),
        Some(style) => Err(DataError::spec(&spec.path, format!("`type: {name}` has no variant `{style}`"))),
    }
}

/// `a string`, `a number` ... for error texts.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The field's value; missing or null is an error that names the nearest field there is.
fn required<'a>(fields: &'a Fields, name: &str, origin: &Origin) -> Result<&'a Value, DataError> {
    match fields.get(name) {
        Some(Value::Null) => {
            Err(DataError::row(origin, Fault::MissingField, format!("field `{name}` is null")))
        }
        Some(value) => Ok(value),
        None => {
            let e = DataError::row(origin, Fault::MissingField, format!("field `{name}` is missing"));
            let there: Vec<_> = fields.keys().map(String::as_str).collect();
            Err(match nearest(name, there.iter().copied()) {
                Some(near) => e.with_hint(format!("did you mean `{near}`?")),
                None if there.is_empty() => e,
                None => e.with_hint(format!("the row has `{}`", there.join("`, `"))),
            })
        }
    }
}

fn wrong_kind(name: &str, expected: &str, found: &Value, origin: &Origin) -> DataError {
    let what = format!("`{name}` should be {expected}, found {}", kind(found));
    DataError::row(origin, Fault::WrongKind, what)
}

/// A field that must hold a string (numbers and booleans are written out: CSV and Parquet infer them).
fn text(fields: &Fields, name: &str, origin: &Origin) -> Result<String, DataError> {
    match required(fields, name, origin)? {
        Value::String(s) => Ok(s.clone()),
        v @ (Value::Number(_) | Value::Bool(_)) => Ok(v.to_string()),
        other => Err(wrong_kind(name, "a string", other, origin)),
    }
}

/// The same for a field that may be missing or null: an empty string.
fn optional_text(fields: &Fields, name: &str, origin: &Origin) -> Result<String, DataError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(_) => text(fields, name, origin),
    }
}

fn not_empty(text: String, name: &str, origin: &Origin) -> Result<String, DataError> {
    if text.trim().is_empty() {
        return Err(DataError::row(origin, Fault::EmptyTurn, format!("`{name}` is empty")));
    }
    Ok(text)
}

/// A prompt without and an answer with supervision, the end token behind it.
fn prompt_and_answer(origin: Origin, prompt: String, answer: String) -> Conversation {
    let mut pieces = vec![(prompt, false), (answer, true)];
    pieces.retain(|(text, _)| !text.is_empty());
    Conversation::Pieces { origin, pieces, append_eos: true }
}

#[cfg(test)]
mod tests;
