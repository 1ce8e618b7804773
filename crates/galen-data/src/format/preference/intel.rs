//! `intel`: the fields of Intel's Orca pairs, read as turns.

use super::PreferenceType;
use super::single_turn::{SingleTurn, texts};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "intel",
    aliases: &[],
    about: "`question`, optional `system`, `chosen` and `rejected` (or `completion` and `label`)",
    detect: |row| {
        texts(row, &["question", "chosen", "rejected"])
            || texts(row, &["question", "completion"]) && row.contains_key("label")
    },
    build: |spec, _| Ok(NAMES.reader(spec)),
};

static NAMES: SingleTurn =
    SingleTurn { question: &["question"], chosen: &["chosen"], rejected: &["rejected"] };
