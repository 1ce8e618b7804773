//! `user_defined`: fields and formats spelt out in the configuration, beside `type:` or under it.

use super::reader::{Reader, labelled, pair, text_answer};
use super::{PreferenceFormat, PreferenceType, text};
use crate::dataset::{PreferenceFields, TypeSpec};
use crate::format::fill::FormatText;
use crate::format::optional_text;
use crate::{DataError, DatasetSpec};
use galen_types::{Answer, Boundary, Preference, Prompt, RawRow};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "user_defined",
    aliases: &["user_defined.default"],
    about: "`field_prompt`, `field_chosen`, `field_rejected` (or `field_completion`, `field_label`) with their `*_format`",
    detect: |_| false,
    build: |spec, _| Ok(Box::new(UserDefined::new(spec)?)),
};

struct UserDefined {
    reader: Reader,
    names: Names,
    prompt: FormatText,
    chosen: FormatText,
    rejected: FormatText,
    completion: FormatText,
}

struct Names {
    prompt: String,
    system: String,
    chosen: String,
    rejected: String,
    completion: String,
}

impl UserDefined {
    fn new(spec: &DatasetSpec) -> Result<Self, DataError> {
        let (own, system) = match &spec.kind {
            Some(TypeSpec::Custom(custom)) => (Some(&custom.preference), custom.field_system.clone()),
            _ => (None, None),
        };
        let beside = &spec.preference;
        let either = |key: fn(&PreferenceFields) -> &Option<String>| {
            own.and_then(|own| key(own).clone()).or_else(|| key(beside).clone())
        };
        let name = |key, default: &str| either(key).unwrap_or_else(|| default.to_owned());
        let format = |key, default: &str, places: &[&str]| {
            let text = either(key).filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned());
            FormatText::parse(&text, places).map_err(|e| DataError::spec(&spec.path, e))
        };
        let merged =
            PreferenceFields { field_label: either(|f| &f.field_label), ..PreferenceFields::default() };
        let entry = DatasetSpec { preference: merged, ..spec.clone() };
        Ok(Self {
            reader: Reader::new(&entry),
            names: Names {
                prompt: name(|f| &f.field_prompt, "prompt"),
                system: system.unwrap_or_else(|| "system".to_owned()),
                chosen: name(|f| &f.field_chosen, "chosen"),
                rejected: name(|f| &f.field_rejected, "rejected"),
                completion: name(|f| &f.field_completion, "completion"),
            },
            prompt: format(|f| &f.prompt_format, "{prompt}", &["system", "prompt"])?,
            chosen: format(|f| &f.chosen_format, "{chosen}", &["chosen"])?,
            rejected: format(|f| &f.rejected_format, "{rejected}", &["rejected"])?,
            completion: format(|f| &f.completion_format, "{completion}", &["completion"])?,
        })
    }
}

impl PreferenceFormat for UserDefined {
    fn preference(&self, row: RawRow) -> Result<Preference, DataError> {
        let RawRow { origin, fields } = row;
        let system = optional_text(&fields, &self.names.system, &origin)?;
        let prompt = text(&fields, &self.names.prompt, &origin)?;
        let filled = self.prompt.fill(&[("system", &system), ("prompt", &prompt)]);
        let prompt = Prompt::Text { text: filled, boundary: Boundary::Cut };
        let answer = |name: &str, place: &str, format: &FormatText| {
            let said = text_answer(text(&fields, name, &origin)?, name, &origin)?;
            Ok::<_, DataError>(match said {
                Answer::Text(said) => Answer::Text(format.fill(&[(place, &said)])),
                turns @ Answer::Turns(_) => turns,
            })
        };
        let names = &self.names;
        if fields.contains_key(&names.chosen) || !fields.contains_key(&names.completion) {
            let chosen = answer(&names.chosen, "chosen", &self.chosen)?;
            let rejected = answer(&names.rejected, "rejected", &self.rejected)?;
            return pair(&fields, origin, prompt, chosen, rejected);
        }
        let completion = answer(&names.completion, "completion", &self.completion)?;
        let label = self.reader.labelled(&fields, &origin)?;
        Ok(labelled(origin, prompt, completion, label))
    }
}
