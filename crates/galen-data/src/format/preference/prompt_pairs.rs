//! `prompt_pairs`: texts read as turns. Never detected: the same fields are `preference`, where text stays text.

use super::PreferenceType;
use super::single_turn::SingleTurn;

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "prompt_pairs",
    aliases: &[],
    about: "`prompt`, optional `system`, `chosen` and `rejected` (or `completion` and `label`), read as turns",
    detect: |_| false,
    build: |spec, _| Ok(NAMES.reader(spec)),
};

static NAMES: SingleTurn = SingleTurn { question: &["prompt"], chosen: &["chosen"], rejected: &["rejected"] };
