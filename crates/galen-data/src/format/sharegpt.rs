//! `sharegpt`: `conversations` of `from` and `value`. The same reader as `chat_template`, with ShareGPT's names.

use super::chat_template::{Chat, Names, turns_have};
use super::{DatasetType, no_style};

pub(super) const TYPE: DatasetType = DatasetType {
    name: "sharegpt",
    aliases: &[],
    about: "`conversations` of `from` (human, gpt, system, tool ...) and `value`",
    detect: |row| turns_have(row.get("conversations"), "from"),
    build: |spec, style| {
        no_style(spec, "sharegpt", style)?;
        let names =
            Names { field: Some("conversations"), role: "from", content: "value", roles: SHAREGPT_ROLES };
        Ok(Box::new(Chat::new(spec, &names)))
    },
};

const SHAREGPT_ROLES: &[(&str, &str)] = &[
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bard", "assistant"),
    ("bing", "assistant"),
    ("model", "assistant"),
    ("function_response", "tool"),
    ("observation", "tool"),
];
