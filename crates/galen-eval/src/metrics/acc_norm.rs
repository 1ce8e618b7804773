//! Accuracy with log-probabilities divided by the choices' lengths in characters.

use super::{Metric, MetricEntry, Outcome, is_gold, known_options, likeliest};
use crate::task::OutputType;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "acc_norm",
    about: "like acc, log-probabilities divided by the choice's length in characters",
    outputs: &[OutputType::MultipleChoice],
    higher_is_better: true,
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(AccNorm) as Box<dyn Metric>),
};

/// The harness divides by Python's `len` of the choice without its delimiter: characters, not bytes (`acc_bytes`).
#[derive(Debug)]
struct AccNorm;

impl Metric for AccNorm {
    fn score(&self, outcome: Outcome<'_>) -> f64 {
        is_gold(outcome, self.pred(outcome))
    }

    fn pred(&self, outcome: Outcome<'_>) -> Option<usize> {
        likeliest(outcome, |score, choice| score.logprob / choice.chars().count() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChoiceScore;

    #[test]
    fn characters_not_bytes() {
        // By characters -4/2 beats -5/2; by bytes ("ää" has 4, "ああ" 6) -4/4 would lose to -5/6.
        let score = |logprob| ChoiceScore { logprob, n_tokens: 1, is_greedy: false };
        let (scores, choices) = ([score(-4.0), score(-5.0)], ["ää".to_owned(), "ああ".to_owned()]);
        let outcome = Outcome::Choices { scores: &scores, choices: &choices, gold: &[0] };
        assert_eq!(AccNorm.pred(outcome), Some(0));
    }
}
