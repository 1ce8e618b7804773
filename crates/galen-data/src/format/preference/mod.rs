//! Preference dataset types: what a row's fields mean where answers are compared. A new one is one file here and one
//! line in [`PREFERENCE_TYPES`].
//!
//! A type may be named with a frame before it, as Axolotl does: `chatml.intel` and `llama3.intel` write the turns as
//! text in that frame whatever the model; `chat_template.intel` and `intel` leave them to the run's chat template.
//! Axolotl's types of reward models carry `bradley_terry.` before that.

mod argilla;
mod argilla_chat;
mod chat_template;
mod frame;
mod icr;
mod intel;
mod prompt;
mod prompt_pairs;
mod ranked;
mod reader;
mod single_turn;
mod standard;
mod ultra;
mod unpaired;
mod user_defined;

use super::most;
use super::{Fields, required, text, wrong_kind};
use crate::dataset::TypeSpec;
use crate::error::nearest;
use crate::{DataError, DatasetSpec};
use frame::Frame;
use galen_types::{Preference, RawRow};
use single_turn::has;

/// Reads rows of one preference type.
pub trait PreferenceFormat: Send + Sync {
    /// The row understood. Errors are `DataError::Row`s.
    fn preference(&self, row: RawRow) -> Result<Preference, DataError>;
}

type Built = Result<Box<dyn PreferenceFormat>, DataError>;
/// A preference type's name and its reader.
pub type NamedPreferenceReader = (&'static str, Box<dyn PreferenceFormat>);

/// What prompts and answers given as text are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Texts {
    /// Text, as TRL takes them.
    Plain,
    /// What a turn says.
    Turns,
}

/// A preference type: how it is named, recognised and read.
pub struct PreferenceType {
    /// Its name in `type:`.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// One line for `--help` and the docs.
    pub about: &'static str,
    /// Whether a row's fields look like it.
    detect: fn(&Fields) -> bool,
    /// The reader for an entry; [`Texts::Turns`] where a frame was named.
    build: fn(&DatasetSpec, Texts) -> Built,
}

/// Every preference type, in the order in which detection tries them.
pub static PREFERENCE_TYPES: &[PreferenceType] = &[
    ranked::TYPE,
    chat_template::TYPE,
    argilla_chat::TYPE,
    argilla::TYPE,
    intel::TYPE,
    icr::TYPE,
    ultra::TYPE,
    prompt_pairs::TYPE,
    standard::TYPE,
    unpaired::TYPE,
    user_defined::TYPE,
    prompt::TYPE,
];

/// The first type most of these rows look like: one that does not is a bad row.
pub fn detect(rows: &[&Fields]) -> Option<&'static PreferenceType> {
    PREFERENCE_TYPES.iter().find(|t| most(rows, t.detect))
}

/// Whether most of these rows hold answers that are compared: two of them, or one with a label beside `messages`. Such rows may look like
/// a chat or a prompt and its completion as well, whose reader would not see those answers.
pub(crate) fn compares(rows: &[&Fields]) -> bool {
    let two = |row: &Fields| {
        has(row, &["chosen", "rejected"]) || has(row, &["chosen_response", "rejected_response"])
    };
    most(rows, |row| two(row) || has(row, &["messages", "completion", "label"]))
}

/// The type called so, by name or alias, and the frame before it.
fn type_by_name(name: &str) -> Option<(&'static PreferenceType, Option<Frame>)> {
    // Axolotl's `bradley_terry.chat_template` reads the fields of `icr`.
    let name = match name.strip_prefix("bradley_terry.") {
        Some("chat_template") => "chat_template.icr",
        Some(rest) => rest,
        None => name,
    };
    let by = |name: &str| PREFERENCE_TYPES.iter().find(|t| t.name == name || t.aliases.contains(&name));
    let (first, shape) = name.split_once(['.', ':']).unwrap_or((name, ""));
    let frame = Frame::by_name(first);
    match (by(name), frame) {
        (Some(found), _) => Some((found, frame)),
        (None, Some(_)) => by(shape).map(|found| (found, frame)),
        (None, None) => None,
    }
}

/// Checks what an entry says of its type without reading data: the reader of a named or custom type.
pub fn build(spec: &DatasetSpec) -> Result<Option<NamedPreferenceReader>, DataError> {
    match &spec.kind {
        None => Ok(None),
        Some(TypeSpec::Custom(_)) => {
            Ok(Some((user_defined::TYPE.name, (user_defined::TYPE.build)(spec, Texts::Plain)?)))
        }
        Some(TypeSpec::Named(name)) => {
            let Some((found, frame)) = type_by_name(name) else {
                let known = PREFERENCE_TYPES.iter().flat_map(|t| t.aliases.iter().copied().chain([t.name]));
                let e = DataError::spec(&spec.path, format!("unknown preference `type: {name}`"));
                return Err(match nearest(name, known) {
                    Some(near) => e.with_hint(format!("did you mean `{near}`?")),
                    None => e.with_hint(format!("known types: {}", names())),
                });
            };
            let texts = if frame.is_some() { Texts::Turns } else { Texts::Plain };
            let inner = (found.build)(spec, texts)?;
            let reader = match frame {
                Some(frame) => frame.around(spec, inner)?,
                None => inner,
            };
            Ok(Some((found.name, reader)))
        }
    }
}

/// The reader of an entry, detected by its first rows where it does not say.
pub(crate) fn choose(spec: &DatasetSpec, sample: &[&Fields]) -> Result<NamedPreferenceReader, DataError> {
    if let Some(built) = build(spec)? {
        return Ok(built);
    }
    let fields = &spec.preference;
    let formats =
        [&fields.prompt_format, &fields.chosen_format, &fields.rejected_format, &fields.completion_format];
    let found = if formats.iter().any(|f| f.is_some()) {
        Some(&user_defined::TYPE)
    } else if spec.field_messages.is_some() {
        Some(&chat_template::TYPE)
    } else {
        // Renamed fields are looked for under their usual names.
        let renamed: Vec<Fields> = sample.iter().map(|row| reader::usual_names(spec, row)).collect();
        detect(&renamed.iter().collect::<Vec<_>>())
    };
    if let Some(found) = found {
        return Ok((found.name, (found.build)(spec, Texts::Plain)?));
    }
    let Some(first) = sample.first() else {
        return Err(DataError::spec(&spec.path, "no readable row to tell the preference type by"));
    };
    let there: Vec<_> = first.keys().map(String::as_str).collect();
    let what = format!("cannot tell the preference type from the fields `{}`", there.join("`, `"));
    Err(DataError::spec(&spec.path, what).with_hint(format!(
        "name the fields with `field_prompt:`, `field_chosen:`, `field_rejected:` (or `field_completion:`, \
         `field_label:`), or set `type:` to one of {}",
        names()
    )))
}

fn names() -> String {
    PREFERENCE_TYPES.iter().map(|t| format!("`{}`", t.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
