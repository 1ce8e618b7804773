//! `alpaca`: `instruction`, optional `input`, `output`. Prompts are those of Stanford Alpaca as Axolotl writes them;
//! `alpaca:chat`, `alpaca:chatml` and `alpaca:phi` write the same sentences in other frames.

use super::fill::FormatText;
use super::{DatasetType, RowFormat, not_empty, optional_text, prompt_and_answer, text};
use crate::error::nearest;
use crate::{DataError, DatasetSpec};
use galen_types::{Conversation, RawRow};
use serde_json::Value;

pub(super) const TYPE: DatasetType = DatasetType {
    name: "alpaca",
    aliases: &[],
    about: "`instruction`, optional `input`, `output` (also `alpaca:chat`, `alpaca:chatml`, `alpaca:phi`)",
    detect: |row| ["instruction", "output"].iter().all(|f| row.get(*f).is_some_and(Value::is_string)),
    build,
};

const WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides \
    further context. Write a response that appropriately completes the request.";
const WITHOUT_INPUT: &str = "Below is an instruction that describes a task. Write a response that appropriately \
    completes the request.";

struct Style {
    name: &'static str,
    system: &'static str,
    with_input: &'static str,
    without_input: &'static str,
}

static STYLES: &[Style] = &[
    Style {
        name: "instruct",
        system: "{system}\n\n",
        with_input: "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        without_input: "### Instruction:\n{instruction}\n\n### Response:\n",
    },
    Style {
        name: "chat",
        system: "SYSTEM: {system}\n",
        with_input: "USER: {instruction}\n{input}\nASSISTANT:",
        without_input: "USER: {instruction}\nASSISTANT:",
    },
    Style {
        name: "chatml",
        system: "<|im_start|>system\n{system}<|im_end|>\n",
        with_input: "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
        without_input: "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    },
    Style {
        name: "phi",
        system: "<|system|>\n{system}<|end|>\n",
        with_input: "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
        without_input: "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    },
];

struct Alpaca {
    with_input: FormatText,
    without_input: FormatText,
}

fn build(spec: &DatasetSpec, style: Option<&str>) -> Result<Box<dyn RowFormat>, DataError> {
    let wanted = style.unwrap_or("instruct");
    let Some(style) = STYLES.iter().find(|s| s.name == wanted) else {
        let e = DataError::spec(&spec.path, format!("`type: alpaca` has no variant `{wanted}`"));
        let known: Vec<_> = STYLES.iter().map(|s| s.name).collect();
        let near = nearest(wanted, known.iter().copied());
        return Err(e.with_hint(match near {
            Some(near) => format!("did you mean `alpaca:{near}`?"),
            None => format!("variants: `{}`", known.join("`, `")),
        }));
    };
    let parse = |system: &str, turn: &str| {
        let text = style.system.replace("{system}", system) + turn;
        FormatText::parse(&text, &["instruction", "input"]).map_err(|e| DataError::spec(&spec.path, e))
    };
    Ok(Box::new(Alpaca {
        with_input: parse(WITH_INPUT, style.with_input)?,
        without_input: parse(WITHOUT_INPUT, style.without_input)?,
    }))
}

impl RowFormat for Alpaca {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let instruction = text(&row.fields, "instruction", &row.origin)?;
        let instruction = not_empty(instruction, "instruction", &row.origin)?;
        let input = optional_text(&row.fields, "input", &row.origin)?;
        let output = not_empty(text(&row.fields, "output", &row.origin)?, "output", &row.origin)?;
        let format = if input.is_empty() { &self.without_input } else { &self.with_input };
        let prompt = format.fill(&[("instruction", &instruction), ("input", &input)]);
        Ok(prompt_and_answer(row.origin, prompt, output))
    }
}
