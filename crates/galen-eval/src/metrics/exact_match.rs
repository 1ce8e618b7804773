//! Exact match: the answer is one of the right ones, letter by letter, after what is to be ignored.

use super::{Metric, MetricEntry, Outcome, flag, known_options};
use crate::python_regex::python_regex;
use crate::task::OutputType;
use fancy_regex::Regex;
use serde_json::{Map, Value};

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "exact_match",
    about: "share of answers equal to a right one (options ignore_case, ignore_punctuation, ignore_numbers, regexes_to_ignore)",
    outputs: &[OutputType::GenerateUntil, OutputType::MultipleChoice],
    higher_is_better: true,
    build,
};

#[derive(Debug)]
struct ExactMatch {
    regexes: Vec<Regex>,
    case: bool,
    punctuation: bool,
    numbers: bool,
}

fn build(kwargs: &Map<String, Value>) -> Result<Box<dyn Metric>, String> {
    known_options(kwargs, &["ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore"])?;
    let regexes = match kwargs.get("regexes_to_ignore") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| {
                let pattern =
                    item.as_str().ok_or_else(|| format!("`regexes_to_ignore`: `{item}` is not text"))?;
                python_regex(pattern).map_err(|e| format!("`regexes_to_ignore`: `{pattern}`: {e}"))
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("`regexes_to_ignore` is `{other}`, expected a list")),
    };
    Ok(Box::new(ExactMatch {
        regexes,
        case: flag(kwargs, "ignore_case")?,
        punctuation: flag(kwargs, "ignore_punctuation")?,
        numbers: flag(kwargs, "ignore_numbers")?,
    }))
}

impl ExactMatch {
    /// The order is the harness's: regexes, case, punctuation (ASCII), digits (ASCII).
    fn normal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for regex in &self.regexes {
            // A pattern that runs out of backtracking removes nothing.
            text =
                regex.try_replacen(&text, 0, "").map_or_else(|_| text.clone(), std::borrow::Cow::into_owned);
        }
        if self.case {
            text = text.to_lowercase();
        }
        text.retain(|c| {
            !(self.punctuation && c.is_ascii_punctuation() || self.numbers && c.is_ascii_digit())
        });
        text
    }
}

impl Metric for ExactMatch {
    fn score(&self, outcome: Outcome<'_>) -> f64 {
        let right = match outcome {
            Outcome::Text { answer, gold } => {
                let answer = self.normal(answer);
                gold.iter().any(|g| self.normal(g) == answer)
            }
            // Greedy decoding would have written the choice.
            Outcome::Choices { scores, gold, .. } => {
                gold.iter().any(|g| scores.get(*g).is_some_and(|s| s.is_greedy))
            }
        };
        f64::from(u8::from(right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_ignored() {
        let check = |kwargs: Value, answer: &str, gold: &str, expect: f64| {
            let metric = build(kwargs.as_object().unwrap()).unwrap();
            let score = metric.score(Outcome::Text { answer, gold: &[gold.to_owned()] });
            assert_eq!(score, expect, "{kwargs} {answer:?} {gold:?}");
        };
        check(json!({}), "Yes", "yes", 0.0);
        check(json!({"ignore_case": true}), "Yes", "yes", 1.0);
        check(json!({"ignore_punctuation": true}), "yes.", "yes", 1.0);
        check(json!({"ignore_numbers": true}), "a1", "a2", 1.0);
        check(
            json!({"regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}),
            "so #### $1,000.",
            "1000",
            1.0,
        );
        check(json!({"regexes_to_ignore": null}), "a", "a", 1.0);
        assert!(build(json!({"regexes_to_ignore": ["("]}).as_object().unwrap()).is_err());
        assert!(build(json!({"ignore_case": "yes"}).as_object().unwrap()).is_err());
    }
}
