//! `icr`: input, chosen, rejected, read as turns.

use super::PreferenceType;
use super::single_turn::{SingleTurn, texts};

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "icr",
    aliases: &[],
    about: "`input`, optional `system`, `chosen` and `rejected` (or `completion` and `label`)",
    detect: |row| {
        texts(row, &["input", "chosen", "rejected"])
            || texts(row, &["input", "completion"]) && row.contains_key("label")
    },
    build: |spec, _| Ok(NAMES.reader(spec)),
};

static NAMES: SingleTurn = SingleTurn { question: &["input"], chosen: &["chosen"], rejected: &["rejected"] };
