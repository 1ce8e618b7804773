//! Answers without the white space before them, as the harness has it.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "remove_whitespace",
    about: "without the white space before the answer",
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(RemoveWhitespace) as Box<dyn Filter>),
};

#[derive(Debug)]
struct RemoveWhitespace;

impl Filter for RemoveWhitespace {
    fn apply(&self, answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        Ok(answers.iter().map(|a| a.trim_start().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn trimmed() {
        let options = serde_json::json!({"function": "remove_whitespace"});
        super::super::check(options, serde_json::json!({}), &[" a b\n", "c"], &["a b\n", "c"]);
    }
}
