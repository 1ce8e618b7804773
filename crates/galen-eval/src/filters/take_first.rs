//! The first answer.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "take_first",
    about: "the first answer",
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(TakeFirst) as Box<dyn Filter>),
};

#[derive(Debug)]
struct TakeFirst;

impl Filter for TakeFirst {
    fn apply(&self, mut answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        answers.truncate(1);
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn first() {
        super::super::check(
            serde_json::json!({"function": "take_first"}),
            serde_json::json!({}),
            &["a", "b"],
            &["a"],
        );
    }
}
