//! Answers in lower or upper case.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;

pub(super) const LOWERCASE: FilterEntry = FilterEntry {
    name: "lowercase",
    about: "in lower case",
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(Case(str::to_lowercase)) as Box<dyn Filter>),
};

pub(super) const UPPERCASE: FilterEntry = FilterEntry {
    name: "uppercase",
    about: "in upper case",
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(Case(str::to_uppercase)) as Box<dyn Filter>),
};

#[derive(Debug)]
struct Case(fn(&str) -> String);

impl Filter for Case {
    fn apply(&self, answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        Ok(answers.iter().map(|a| (self.0)(a)).collect())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_ways() {
        let options = |name: &str| serde_json::json!({"function": name});
        super::super::check(options("lowercase"), serde_json::json!({}), &["ÄB"], &["äb"]);
        super::super::check(options("uppercase"), serde_json::json!({}), &["äb"], &["ÄB"]);
    }
}
