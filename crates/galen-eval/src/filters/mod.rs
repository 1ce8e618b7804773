//! Filters: from what the model wrote to what is judged. A new one is one file here and one line in [`FILTERS`].

mod case;
mod majority_vote;
mod map;
mod multi_choice_regex;
mod regex;
mod remove_whitespace;
mod take_first;
mod take_first_k;

use crate::error::nearest;
use crate::python_regex::python_regex;
use crate::task::OutputType;
use serde_json::{Map, Value};

/// A row's fields, for filters that look at them.
pub type Row = Map<String, Value>;

/// One step of a pipeline.
pub trait Filter: Send + Sync + std::fmt::Debug {
    /// From an item's answers (one a repeat) to those that go on. `Err` says why the row or the answers do not fit.
    fn apply(&self, answers: Vec<String>, row: &Row) -> Result<Vec<String>, String>;
}

/// Makes a filter from its options.
pub type Build = fn(&Map<String, Value>) -> Result<Box<dyn Filter>, String>;

/// A filter's registration.
#[derive(Debug)]
pub struct FilterEntry {
    /// Its name as `function:`.
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub about: &'static str,
    /// From the other keys of its entry.
    pub build: Build,
}

/// Every filter.
pub static FILTERS: &[FilterEntry] = &[
    regex::ENTRY,
    multi_choice_regex::ENTRY,
    take_first::ENTRY,
    take_first_k::ENTRY,
    majority_vote::ENTRY,
    remove_whitespace::ENTRY,
    case::LOWERCASE,
    case::UPPERCASE,
    map::ENTRY,
];

/// A named chain of filters; its name is part of a result's key (`exact_match,strict-match`).
#[derive(Debug)]
pub struct Pipeline {
    /// The name.
    pub name: String,
    steps: Vec<Box<dyn Filter>>,
}

impl Pipeline {
    /// What a task without `filter_list` has: the first answer as it is.
    pub fn none() -> Self {
        Self { name: "none".into(), steps: Vec::new() }
    }

    /// The answer that is judged: the first that the last step lets through.
    pub fn answer(&self, answers: &[String], row: &Row) -> Result<String, String> {
        let mut answers = answers.to_vec();
        for step in &self.steps {
            answers = step.apply(answers, row)?;
        }
        answers.into_iter().next().ok_or_else(|| format!("filter `{}` let no answer through", self.name))
    }
}

/// One entry of `filter_list`: `{name:, filter: [{function:, ...}]}`.
pub(crate) fn pipeline(item: &Value, output: OutputType) -> Result<Pipeline, String> {
    let name = item.get("name").and_then(Value::as_str).ok_or("an entry has no `name:`")?;
    let steps = item
        .get("filter")
        .and_then(Value::as_array)
        .ok_or_else(|| format!("`{name}` has no list `filter:`"))?;
    let mut built = Vec::new();
    for step in steps {
        let function = step
            .get("function")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("`{name}`: a step has no `function:`"))?;
        let Some(entry) = FILTERS.iter().find(|e| e.name == function) else {
            let known: Vec<_> = FILTERS.iter().map(|e| e.name).collect();
            let hint = nearest(function, known.iter().copied()).map_or_else(
                || format!("known: `{}`", known.join("` `")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(format!("unknown filter `{function}`\nhint: {hint}"));
        };
        if output == OutputType::MultipleChoice && function != "take_first" {
            return Err(format!("filter `{function}` does not go with `output_type: multiple_choice`"));
        }
        let mut kwargs = step.as_object().cloned().unwrap_or_default();
        kwargs.remove("function");
        built.push((entry.build)(&kwargs).map_err(|e| format!("filter `{function}`: {e}"))?);
    }
    Ok(Pipeline { name: name.to_owned(), steps: built })
}

/// Python's `re.findall(...)[select]`, of several groups the first that is not empty, trimmed.
/// `None`: no match, no such match, or only empty groups.
fn find_match(regex: &fancy_regex::Regex, text: &str, select: i64) -> Option<String> {
    let matches: Vec<String> = regex
        .captures_iter(text)
        // A pattern that runs out of backtracking finds nothing more.
        .map_while(Result::ok)
        .map(|captures| {
            let group = |i: usize| captures.get(i).map_or("", |m| m.as_str());
            match captures.len() {
                1 => group(0).to_owned(),
                2 => group(1).to_owned(),
                n => (1..n).map(group).find(|g| !g.is_empty()).unwrap_or_default().to_owned(),
            }
        })
        .collect();
    let index =
        if select < 0 { matches.len().checked_sub(select.unsigned_abs() as usize)? } else { select as usize };
    let found = matches.get(index)?;
    (regex.captures_len() <= 2 || !found.is_empty()).then(|| found.trim().to_owned())
}

/// `regex_pattern`, `group_select`, `fallback` with the harness's defaults.
fn regex_options(kwargs: &Map<String, Value>) -> Result<(fancy_regex::Regex, i64, String), String> {
    let text = |key: &str, default: &str| match kwargs.get(key) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{key}` is `{other}`, expected text")),
    };
    let pattern = text("regex_pattern", r"#### (\-?[0-9\.\,]+)")?;
    let regex = python_regex(&pattern).map_err(|e| format!("`{pattern}`: {e}"))?;
    let select = match kwargs.get("group_select") {
        None | Some(Value::Null) => 0,
        Some(value) => {
            value.as_i64().ok_or_else(|| format!("`group_select` is `{value}`, expected a whole number"))?
        }
    };
    Ok((regex, select, text("fallback", "[invalid]")?))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "tests write their JSON in place")]
fn check(options: Value, row: Value, answers: &[&str], expect: &[&str]) {
    let entry = FILTERS.iter().find(|e| Some(e.name) == options["function"].as_str()).expect("a filter");
    let mut kwargs = options.as_object().expect("options").clone();
    kwargs.remove("function");
    let filter = (entry.build)(&kwargs).expect("the filter builds");
    let row = row.as_object().expect("a row").clone();
    let out =
        filter.apply(answers.iter().map(ToString::to_string).collect(), &row).expect("the filter applies");
    assert_eq!(out, expect, "{options} {answers:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_filter_refuses_options_it_does_not_know() {
        for entry in FILTERS {
            assert!((entry.build)(json!({"nonsense": 1}).as_object().unwrap()).is_err(), "{}", entry.name);
        }
    }

    #[test]
    fn a_pipeline_of_a_published_task() {
        let item = json!({"name": "maj", "filter": [
            {"function": "regex", "regex_pattern": "The answer is (\\-?[0-9\\.\\,]*[0-9]+)"},
            {"function": "majority_vote"}, {"function": "take_first"}]});
        let pipeline = pipeline(&item, OutputType::GenerateUntil).unwrap();
        let answers =
            ["The answer is 2.", "The answer is 1,000", "so The answer is 1,000!", "none"].map(str::to_owned);
        assert_eq!(pipeline.answer(&answers, &Row::new()).as_deref(), Ok("1,000"));
        let wrong = json!({"name": "x", "filter": [{"function": "take_frist"}]});
        let error = super::pipeline(&wrong, OutputType::GenerateUntil).unwrap_err();
        assert!(error.contains("did you mean `take_first`?"), "{error}");
        assert!(super::pipeline(&item, OutputType::MultipleChoice).is_err());
    }
}
