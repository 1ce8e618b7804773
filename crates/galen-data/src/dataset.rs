//! One entry of `datasets:`, and its rows as conversations.

mod preference;
mod slice;

use crate::format;
use crate::reader::{self, Format, Limits};
use crate::template::TrainOnEos;
use crate::{DataError, Fault};
use galen_types::{Conversation, Preference, RawRow};
pub use preference::{PREFERENCE_KEYS, PreferenceFields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use slice::Slice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A dataset entry, by Axolotl's keys and defaults. Deviations: `type` may be left out, it is then detected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// A file, a folder, a hub data set, or `json` / `csv` / `parquet` / `text` with `data_files`.
    #[serde(default)]
    pub path: String,
    /// The dataset type: a name of [`format::TYPES`], or a custom format. `None`: detected from the first rows.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<TypeSpec>,
    /// Files to read, relative to `path` where that is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_files: Option<OneOrMany>,
    /// The hub data set's configuration: a subfolder of that name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Commit, tag or branch on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `train` (default), any other split's name, or a slice: `train[:500]`, `train[10%:20%]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// File format, where the ending does not tell: a name of [`reader::FORMATS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ds_type: Option<String>,
    /// Field of the turns (default `messages`; `conversations` for `sharegpt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_messages: Option<String>,
    /// Field of the tool definitions (default `tools`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_tools: Option<String>,
    /// Field of a turn that holds its reasoning (default `reasoning_content`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_thinking: Option<String>,
    /// What the template calls that field (default `reasoning_content`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_thinking_key: Option<String>,
    /// Template property -> field of the turn, `{role: from, content: value}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_property_mappings: Option<BTreeMap<String, String>>,
    /// Older spelling of `message_property_mappings: {role: ...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_field_role: Option<String>,
    /// Older spelling of `message_property_mappings: {content: ...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_field_content: Option<String>,
    /// Boolean field of a turn that overrides `roles_to_train` (beside it `train` and `weight` are always read).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_field_training: Option<String>,
    /// Role -> the names it has in the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeMap<String, Vec<String>>>,
    /// Roles under the loss (default `[assistant]`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_to_train: Option<Vec<String>>,
    /// Which end-of-sequence tokens are trained: `all`, `turn` (default), `last`, `none`. Read by the template door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_on_eos: Option<TrainOnEos>,
    /// The same for end-of-turn tokens (default: as `train_on_eos`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_on_eot: Option<TrainOnEos>,
    /// Leave the system turn out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_system_message: Option<bool>,
    /// Chat template of this entry (default: the run's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Chat template of this entry as text or file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_jinja: Option<String>,
    /// Field of the text, type `completion` (default `text`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What only preference data has.
    #[serde(flatten)]
    pub preference: PreferenceFields,
}

/// Every key of a dataset entry that [`DatasetSpec`] honours, but for [`PREFERENCE_KEYS`].
pub const DATASET_KEYS: &[&str] = &[
    "path",
    "type",
    "data_files",
    "name",
    "revision",
    "split",
    "ds_type",
    "field_messages",
    "field_tools",
    "field_thinking",
    "template_thinking_key",
    "message_property_mappings",
    "message_field_role",
    "message_field_content",
    "message_field_training",
    "roles",
    "roles_to_train",
    "train_on_eos",
    "train_on_eot",
    "drop_system_message",
    "chat_template",
    "chat_template_jinja",
    "field",
];

/// Every key of a custom `type:` that [`CustomType`] honours.
pub const CUSTOM_TYPE_KEYS: &[&str] = &[
    "system_prompt",
    "system_format",
    "field_system",
    "field_instruction",
    "field_input",
    "field_output",
    "format",
    "no_input_format",
    "field_prompt",
    "field_chosen",
    "field_rejected",
    "field_completion",
    "field_label",
    "prompt_format",
    "chosen_format",
    "rejected_format",
    "completion_format",
];

/// `type:` by name or spelt out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TypeSpec {
    /// `alpaca`, `chat_template`, `alpaca:chatml` ...
    Named(String),
    /// `{field_instruction: ..., field_output: ..., format: ...}`.
    Custom(Box<CustomType>),
}

/// A prompt format spelt out in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CustomType {
    /// System text of rows that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// How the system text is written; `{system}` stands for it (default `{system}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_format: Option<String>,
    /// Field of the system text (default `system`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_system: Option<String>,
    /// Field of the instruction (default `instruction`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_instruction: Option<String>,
    /// Field of the input (default `input`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_input: Option<String>,
    /// Field of the answer (default `output`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_output: Option<String>,
    /// Prompt with an input (default `{instruction} {input} `).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Prompt without one (default `{instruction} `).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_input_format: Option<String>,
    /// What only preference data has (`user_defined`).
    #[serde(flatten)]
    pub preference: PreferenceFields,
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What a bad row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Ends the loading.
    #[default]
    Error,
    /// Is left out and counted.
    Skip,
}

/// The rows of one dataset entry: conversations, or [`galen_types::Preference`]s.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<R = Conversation> {
    /// Name of the dataset type that read them.
    pub kind: &'static str,
    /// The rows understood, in file order.
    pub rows: Vec<R>,
    /// The rows left out, each as `file:line: reason`.
    pub bad_rows: Vec<BadRow>,
}

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BadRow {
    /// Its kind of fault.
    pub fault: Fault,
    /// `file:line: reason`.
    pub text: String,
}

/// Rows looked at to detect the dataset type.
pub(crate) const DETECT_ROWS: usize = 8;
/// Bad rows whose text is kept; further ones keep their fault alone.
const KEPT_TEXTS: usize = 1000;

/// Reads a dataset entry. `resolve` turns its `path` (a path, or a hub name) into a local file or folder.
///
/// Errors: a file that cannot be read, a type that cannot be told, and, under [`OnBadRow::Error`], the first bad row.
pub fn load(
    spec: &DatasetSpec,
    resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
    on_bad_row: OnBadRow,
    limits: Limits,
) -> Result<Loaded, DataError> {
    let choose = |sample: &[&Fields]| {
        let (kind, reader) = format::choose(spec, sample)?;
        Ok((kind, Box::new(move |row| reader.conversation(row)) as RowReader<Conversation>))
    };
    load_rows(spec, resolve, on_bad_row, limits, &choose)
}

/// The same for preference data ([`format::preference`]).
pub fn load_preferences(
    spec: &DatasetSpec,
    resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
    on_bad_row: OnBadRow,
    limits: Limits,
) -> Result<Loaded<Preference>, DataError> {
    let choose = |sample: &[&Fields]| {
        let (kind, reader) = format::preference::choose(spec, sample)?;
        Ok((kind, Box::new(move |row| reader.preference(row)) as RowReader<Preference>))
    };
    load_rows(spec, resolve, on_bad_row, limits, &choose)
}

type Fields = Map<String, Value>;
/// A type's name and the reader of its rows.
type Chosen<R> = Result<(&'static str, RowReader<R>), DataError>;
type RowReader<R> = Box<dyn Fn(RawRow) -> Result<R, DataError>>;

/// Reads rows; `choose` finds the type's name and reader by the first of them.
fn load_rows<R>(
    spec: &DatasetSpec,
    resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
    on_bad_row: OnBadRow,
    limits: Limits,
    choose: &dyn Fn(&[&Fields]) -> Chosen<R>,
) -> Result<Loaded<R>, DataError> {
    let slice = Slice::parse(spec)?;
    let mut raw = open(spec, &slice, resolve, limits)?;
    let mut head = Vec::new();
    while head.len() < DETECT_ROWS {
        let Some(row) = raw.next() else { break };
        head.push(passable(row, on_bad_row)?);
    }
    let sample: Vec<&Fields> = head.iter().flatten().map(|r| &r.fields).collect();
    if head.is_empty() {
        let what = format!("{}: it has no rows", spec.path);
        return Err(DataError::Empty { what, hint: None });
    }
    // Where no row can be read, why is worth more than that their type cannot be told.
    if sample.is_empty() && spec.kind.is_none() && spec.field_messages.is_none() && spec.field.is_none() {
        if let Some(Err(first)) = head.into_iter().next() {
            return Err(first);
        }
        return Err(DataError::spec(&spec.path, "no readable row to tell the dataset type by"));
    }
    let (kind, reader) = choose(&sample)?;
    let mut out = Loaded { kind, rows: Vec::new(), bad_rows: Vec::new() };
    let mut rows = head;
    while !slice.enough(rows.len()) {
        let Some(row) = raw.next() else { break };
        rows.push(passable(row, on_bad_row)?);
    }
    for row in slice.cut(spec, rows)? {
        understand(row, &reader, on_bad_row, &mut out)?;
    }
    Ok(out)
}

/// The raw rows of a dataset entry and no more: for tools that keep rows as they are.
pub fn open_raw(
    spec: &DatasetSpec,
    resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
    limits: Limits,
) -> Result<reader::RowIter, DataError> {
    open(spec, &Slice::parse(spec)?, resolve, limits)
}

/// A row to go on with: a good one, or one to be counted as bad.
fn passable(
    row: Result<RawRow, DataError>,
    on_bad_row: OnBadRow,
) -> Result<Result<RawRow, DataError>, DataError> {
    match row {
        Err(e) if e.fault().is_none() || on_bad_row == OnBadRow::Error => Err(e),
        row => Ok(row),
    }
}

fn understand<R>(
    row: Result<RawRow, DataError>,
    reader: &RowReader<R>,
    on_bad_row: OnBadRow,
    out: &mut Loaded<R>,
) -> Result<(), DataError> {
    match row.and_then(reader) {
        Ok(row) => out.rows.push(row),
        Err(e) => match e.fault() {
            Some(fault) if on_bad_row == OnBadRow::Skip => {
                let text = if out.bad_rows.len() < KEPT_TEXTS { e.to_string() } else { String::new() };
                out.bad_rows.push(BadRow { fault, text });
            }
            _ => return Err(e),
        },
    }
    Ok(())
}

fn open(
    spec: &DatasetSpec,
    slice: &Slice,
    resolve: &dyn Fn(&DatasetSpec) -> Result<PathBuf, String>,
    limits: Limits,
) -> Result<reader::RowIter, DataError> {
    let named = |name: &str| {
        reader::format_by_name(name).ok_or_else(|| {
            let known: Vec<_> = reader::FORMATS.iter().map(|f| f.name).collect();
            DataError::spec(&spec.path, format!("unknown `ds_type: {name}`"))
                .with_hint(format!("known: `{}`", known.join("`, `")))
        })
    };
    let mut format: Option<&'static Format> = spec.ds_type.as_deref().map(named).transpose()?;
    let mut files = Vec::new();
    let wanted = spec.data_files.as_ref().map(OneOrMany::as_slice).unwrap_or_default();
    // `path: json` with `data_files`: the name of a format in the place of a path.
    let path_is_format = !wanted.is_empty() && reader::format_by_name(&spec.path).is_some();
    if path_is_format {
        format = Some(format.map_or_else(|| named(&spec.path), Ok)?);
        files.extend(wanted.iter().map(PathBuf::from));
    } else {
        let mut base = resolve(spec).map_err(|what| {
            let named = what.strip_prefix(&format!("`{}`", spec.path));
            let what = named.map_or(what.as_str(), |rest| rest.trim_start_matches([':', ' ']));
            DataError::spec(&spec.path, what)
        })?;
        if wanted.is_empty() {
            if let Some(sub) = spec.name.as_ref().map(|n| base.join(n)).filter(|p| p.is_dir()) {
                base = sub;
            }
            files = reader::data_files(&base, &slice.split)?;
        } else {
            files.extend(wanted.iter().map(|f| beside(&base, f)));
        }
    }
    // A format named `json` may well be lines: the JSON reader takes both.
    Ok(reader::open_files(files, format, limits))
}

fn beside(base: &Path, file: &str) -> PathBuf {
    if base.is_dir() { base.join(file) } else { PathBuf::from(file) }
}

#[cfg(test)]
mod tests;
