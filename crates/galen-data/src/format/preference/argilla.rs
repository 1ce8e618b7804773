//! `argilla`: the fields of Argilla's pairs, read as turns.

use super::PreferenceType;
use super::single_turn::{SingleTurn, texts};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "argilla",
    aliases: &["chatml.default", "llama3.default"],
    about: "`instruction` (`prompt`, `input`, `question`), optional `system`, `chosen_response` and `rejected_response` (`chosen`, `rejected`; or `completion` and `label`)",
    detect: |row| {
        texts(row, &["chosen_response", "rejected_response"])
            || texts(row, &["instruction", "chosen", "rejected"])
            || texts(row, &["instruction", "completion"]) && row.contains_key("label")
    },
    build: |spec, _| Ok(NAMES.reader(spec)),
};

static NAMES: SingleTurn = SingleTurn {
    question: &["prompt", "input", "question", "instruction"],
    chosen: &["chosen", "chosen_response"],
    rejected: &["rejected", "rejected_response"],
};
