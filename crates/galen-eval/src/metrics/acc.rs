//! Accuracy: the likeliest choice is right.

use super::{Metric, MetricEntry, Outcome, is_gold, known_options, likeliest};
use crate::task::OutputType;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "acc",
    about: "share of items whose likeliest choice is right",
    outputs: &[OutputType::MultipleChoice],
    higher_is_better: true,
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(Acc) as Box<dyn Metric>),
};

#[derive(Debug)]
struct Acc;

impl Metric for Acc {
    fn score(&self, outcome: Outcome<'_>) -> f64 {
        is_gold(outcome, self.pred(outcome))
    }

    fn pred(&self, outcome: Outcome<'_>) -> Option<usize> {
        likeliest(outcome, |score, _| score.logprob)
    }
}
