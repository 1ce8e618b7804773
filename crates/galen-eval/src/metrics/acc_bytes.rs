//! Accuracy with log-probabilities divided by the choices' lengths in bytes.

use super::{Metric, MetricEntry, Outcome, is_gold, known_options, likeliest};
use crate::task::OutputType;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "acc_bytes",
    about: "like acc, log-probabilities divided by the choice's length in UTF-8 bytes",
    outputs: &[OutputType::MultipleChoice],
    higher_is_better: true,
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(AccBytes) as Box<dyn Metric>),
};

#[derive(Debug)]
struct AccBytes;

impl Metric for AccBytes {
    fn score(&self, outcome: Outcome<'_>) -> f64 {
        is_gold(outcome, self.pred(outcome))
    }

    fn pred(&self, outcome: Outcome<'_>) -> Option<usize> {
        likeliest(outcome, |score, choice| score.logprob / choice.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChoiceScore;

    #[test]
    fn bytes_not_characters() {
        let score = |logprob| ChoiceScore { logprob, n_tokens: 1, is_greedy: false };
        let (scores, choices) = ([score(-4.0), score(-5.0)], ["ää".to_owned(), "ああ".to_owned()]);
        let outcome = Outcome::Choices { scores: &scores, choices: &choices, gold: &[1] };
        assert_eq!(AccBytes.pred(outcome), Some(1));
    }
}
