//! `type: {field_instruction: ..., field_output: ..., format: ...}`: a prompt format spelt out in the configuration.

use super::fill::FormatText;
use super::{RowFormat, not_empty, optional_text, prompt_and_answer, text};
use crate::dataset::{CustomType, PreferenceFields};
use crate::{DataError, DatasetSpec};
use galen_types::{Conversation, RawRow};

struct Custom {
    field_system: String,
    field_instruction: String,
    field_input: String,
    field_output: String,
    system_prompt: String,
    system: FormatText,
    with_input: FormatText,
    without_input: FormatText,
}

pub(super) fn build(spec: &DatasetSpec, custom: &CustomType) -> Result<Box<dyn RowFormat>, DataError> {
    if custom.preference != PreferenceFields::default() {
        let what = "`type:` names fields of preference data, which training on conversations has no use for";
        return Err(DataError::spec(&spec.path, what)
            .with_hint("name the question with `field_instruction:` and the answer with `field_output:`"));
    }
    let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    let parse = |text: &str, places: &[&str]| {
        FormatText::parse(text, places).map_err(|e| DataError::spec(&spec.path, e))
    };
    let turn = &["instruction", "input"];
    Ok(Box::new(Custom {
        field_system: or(&custom.field_system, "system"),
        field_instruction: or(&custom.field_instruction, "instruction"),
        field_input: or(&custom.field_input, "input"),
        field_output: or(&custom.field_output, "output"),
        system_prompt: or(&custom.system_prompt, ""),
        system: parse(&or(&custom.system_format, "{system}"), &["system"])?,
        with_input: parse(&or(&custom.format, "{instruction} {input} "), turn)?,
        without_input: parse(&or(&custom.no_input_format, "{instruction} "), &turn[..1])?,
    }))
}

impl RowFormat for Custom {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let (fields, origin) = (&row.fields, &row.origin);
        let instruction = text(fields, &self.field_instruction, origin)?;
        let input = optional_text(fields, &self.field_input, origin)?;
        let output = not_empty(text(fields, &self.field_output, origin)?, &self.field_output, origin)?;
        let mut system = optional_text(fields, &self.field_system, origin)?;
        if system.is_empty() {
            system.clone_from(&self.system_prompt);
        }
        let mut prompt =
            if system.is_empty() { String::new() } else { self.system.fill(&[("system", &system)]) };
        let format = if input.is_empty() { &self.without_input } else { &self.with_input };
        prompt += &format.fill(&[("instruction", &instruction), ("input", &input)]);
        Ok(prompt_and_answer(row.origin, prompt, output))
    }
}
