//! `ultra`: `prompt` as text, `chosen` and `rejected` as conversations whose last turn is the answer.

use super::PreferenceType;
use super::single_turn::SingleTurn;

pub(super) const TYPE: PreferenceType = PreferenceType {
    name: "ultra",
    aliases: &[],
    about: "`prompt`, optional `system`, `chosen` and `rejected` as turns, the last the answer (or `completion` and `label`)",
    // The same rows are `preference`, where the turns before the answers are the prompt.
    detect: |_| false,
    build: |spec, _| Ok(NAMES.reader(spec)),
};

static NAMES: SingleTurn = SingleTurn { question: &["prompt"], chosen: &["chosen"], rejected: &["rejected"] };
