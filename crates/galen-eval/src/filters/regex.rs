//! The part of an answer that a pattern finds.

use super::{Filter, FilterEntry, Row, find_match, regex_options};
use crate::metrics::known_options;
use fancy_regex::Regex;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "regex",
    about: "what regex_pattern finds (match number group_select, -1 the last), else fallback",
    build: |kwargs| {
        known_options(kwargs, &["regex_pattern", "group_select", "fallback"])?;
        let (regex, select, fallback) = regex_options(kwargs)?;
        Ok(Box::new(RegexFilter { regex, select, fallback }) as Box<dyn Filter>)
    },
};

#[derive(Debug)]
struct RegexFilter {
    regex: Regex,
    select: i64,
    fallback: String,
}

impl Filter for RegexFilter {
    fn apply(&self, answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        let found =
            |a: &String| find_match(&self.regex, a, self.select).unwrap_or_else(|| self.fallback.clone());
        Ok(answers.iter().map(found).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use serde_json::json;

    #[test]
    fn as_python_findall() {
        let regex = |pattern: &str, select: i64| json!({"function": "regex", "regex_pattern": pattern, "group_select": select});
        check(json!({"function": "regex"}), json!({}), &["so #### 1,2 #### 3", "no"], &["1,2", "[invalid]"]);
        check(regex("(\\-?[$0-9.,]{2,})|(-?[0-9]+)", -1), json!({}), &["12 then 7"], &["7"]);
        check(regex("[0-9]+", -1), json!({}), &["12 then 7"], &["7"]);
        check(regex("[0-9]+", 5), json!({}), &["12 then 7"], &["[invalid]"]);
        check(regex("(?<=is )\\w+(?=\\.)", 0), json!({}), &["it is so."], &["so"]);
        check(regex("(a*)(b*)", 0), json!({}), &["c"], &["[invalid]"]);
    }
}
