//! Metrics. A new one is one file here and one line in [`METRICS`].

mod acc;
mod acc_bytes;
mod acc_norm;
mod exact_match;

use crate::ChoiceScore;
use crate::error::nearest;
use crate::task::OutputType;
use serde_json::{Map, Value};

/// What one item came to, for a metric to judge.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Of a `multiple_choice` item.
    Choices {
        /// One score a choice.
        scores: &'a [ChoiceScore],
        /// The choices' texts, without delimiter.
        choices: &'a [String],
        /// Indices of the right choices, at least one.
        gold: &'a [usize],
    },
    /// Of a `generate_until` item.
    Text {
        /// The filtered answer.
        answer: &'a str,
        /// Right answers, at least one.
        gold: &'a [String],
    },
}

/// Judges one item; a task's value is the mean over its items.
pub trait Metric: Send + Sync + std::fmt::Debug {
    /// 1 for right, 0 for wrong, or anything between.
    fn score(&self, outcome: Outcome<'_>) -> f64;

    /// The choice the metric takes for the model's answer, where there are choices.
    fn pred(&self, _outcome: Outcome<'_>) -> Option<usize> {
        None
    }
}

/// Makes a metric from its options.
pub type Build = fn(&Map<String, Value>) -> Result<Box<dyn Metric>, String>;

/// A metric's registration.
#[derive(Debug)]
pub struct MetricEntry {
    /// Its name in `metric_list`.
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub about: &'static str,
    /// What it can judge.
    pub outputs: &'static [OutputType],
    /// Whether more is better.
    pub higher_is_better: bool,
    /// From the other keys of its `metric_list` entry.
    pub build: Build,
}

/// Every metric.
pub static METRICS: &[MetricEntry] = &[acc::ENTRY, acc_norm::ENTRY, acc_bytes::ENTRY, exact_match::ENTRY];

/// A metric as a task uses it.
#[derive(Debug)]
pub struct MetricSpec {
    /// Its registration.
    pub entry: &'static MetricEntry,
    /// The built metric.
    pub metric: Box<dyn Metric>,
}

/// What a task without `metric_list` is judged by.
pub(crate) fn defaults(output: OutputType) -> Vec<MetricSpec> {
    let names: &[&str] = match output {
        OutputType::MultipleChoice => &["acc", "acc_norm"],
        OutputType::GenerateUntil => &["exact_match"],
    };
    METRICS
        .iter()
        .filter(|e| names.contains(&e.name))
        .filter_map(|entry| Some(MetricSpec { entry, metric: (entry.build)(&Map::new()).ok()? }))
        .collect()
}

/// One entry of `metric_list`.
pub(crate) fn build(item: &Value, output: OutputType) -> Result<MetricSpec, String> {
    let Value::Object(map) = item else { return Err(format!("`{item}` is not a mapping with `metric:`")) };
    let name = map.get("metric").and_then(Value::as_str).ok_or("an entry has no `metric:`")?;
    let Some(entry) = METRICS.iter().find(|e| e.name == name) else {
        let known: Vec<_> = METRICS.iter().map(|e| e.name).collect();
        let hint = nearest(name, known.iter().copied()).map_or_else(
            || format!("known: `{}`", known.join("` `")),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(format!("unknown metric `{name}`\nhint: {hint}"));
    };
    if !entry.outputs.contains(&output) {
        return Err(format!("metric `{name}` does not go with this `output_type`"));
    }
    if let Some(aggregation) = map.get("aggregation").filter(|a| a.as_str() != Some("mean") && !a.is_null()) {
        return Err(format!("metric `{name}`: aggregation `{aggregation}` is unknown\nhint: only `mean`"));
    }
    let mut kwargs = map.clone();
    for key in ["metric", "aggregation", "higher_is_better", "hf_evaluate", "weight_by_size"] {
        kwargs.remove(key);
    }
    let metric = (entry.build)(&kwargs).map_err(|e| format!("metric `{name}`: {e}"))?;
    Ok(MetricSpec { entry, metric })
}

/// Refuses options a metric or filter does not have.
pub(crate) fn known_options(kwargs: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match kwargs.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) if known.is_empty() => Err(format!("unknown option `{key}`: there are none")),
        Some(key) => Err(format!("unknown option `{key}`\nhint: known are `{}`", known.join("` `"))),
    }
}

pub(crate) fn flag(kwargs: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match kwargs.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(format!("`{key}` is `{other}`, expected `true` or `false`")),
    }
}

/// The first largest of `values`; numpy's `argmax`. `None` when empty.
pub(crate) fn argmax(values: impl IntoIterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, value) in values.into_iter().enumerate() {
        if best.is_none_or(|(_, b)| value > b) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// Scores a choice metric: whether the choice with the largest `value` is right.
fn likeliest(outcome: Outcome<'_>, value: impl Fn(&ChoiceScore, &str) -> f64) -> Option<usize> {
    match outcome {
        Outcome::Choices { scores, choices, .. } => {
            argmax(scores.iter().zip(choices).map(|(s, c)| value(s, c)))
        }
        Outcome::Text { .. } => None,
    }
}

fn is_gold(outcome: Outcome<'_>, pred: Option<usize>) -> f64 {
    match (outcome, pred) {
        (Outcome::Choices { gold, .. }, Some(pred)) => f64::from(u8::from(gold.contains(&pred))),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_metric_builds_and_tells_right_from_wrong() {
        let score = |logprob| ChoiceScore { logprob, n_tokens: 1, is_greedy: logprob > -1.0 };
        let (scores, choices) = ([score(-3.0), score(-0.5)], ["yes".to_owned(), "no".to_owned()]);
        for entry in METRICS {
            let metric = (entry.build)(&Map::new()).unwrap();
            for output in entry.outputs {
                let (right, wrong) = match output {
                    OutputType::MultipleChoice => (
                        metric.score(Outcome::Choices { scores: &scores, choices: &choices, gold: &[1] }),
                        metric.score(Outcome::Choices { scores: &scores, choices: &choices, gold: &[0] }),
                    ),
                    OutputType::GenerateUntil => (
                        metric.score(Outcome::Text { answer: "no", gold: &choices }),
                        metric.score(Outcome::Text { answer: "maybe", gold: &choices }),
                    ),
                };
                assert_eq!((right, wrong), (1.0, 0.0), "{}", entry.name);
            }
            assert!((entry.build)(json!({"nonsense": 1}).as_object().unwrap()).is_err(), "{}", entry.name);
        }
    }

    #[test]
    fn a_tie_goes_to_the_first() {
        assert_eq!(argmax([-1.0, -1.0]), Some(0));
        assert_eq!(argmax([f64::NEG_INFINITY, -1.0]), Some(1));
        assert_eq!(argmax([]), None);
    }
}
