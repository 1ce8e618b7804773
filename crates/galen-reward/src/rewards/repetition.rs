//! Penalty for repeated n-grams (Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs",
//! arXiv:2502.03373, appendix C.2).

use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};
use std::collections::HashSet;
use std::hash::Hash;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "repetition",
    about: "penalty for the share of n-grams that are repeats",
    doc: "`(1 - distinct / all) max_penalty` over the n-grams of the completion; 0 for one shorter than an n-gram \
          (Yeo et al. 2025, arXiv:2502.03373, appendix C.2).",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("ngram_size", Kind::Count, "3", "n"),
    Param::with(
        "max_penalty",
        Kind::Number,
        "-1",
        "reward approached by one n-gram over and over; 0 or less",
    ),
    Param::with(
        "unit",
        Kind::OneOf(&["tokens", "words"]),
        "\"tokens\"",
        "what an n-gram is made of; words are parted by white space and compared in lower case",
    ),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let max_penalty = options.number("max_penalty")?;
    if max_penalty > 0.0 {
        return Err(options.wrong("max_penalty", format!("takes 0 or less, not `{max_penalty}`")));
    }
    let unit = if options.text("unit")? == "tokens" { Unit::Tokens } else { Unit::Words };
    Ok(Box::new(Repetition { n: options.positive("ngram_size")?, max_penalty, unit }))
}

enum Unit {
    Tokens,
    Words,
}

struct Repetition {
    n: usize,
    max_penalty: f64,
    unit: Unit,
}

impl Repetition {
    fn reward<T: Eq + Hash>(&self, parts: &[T]) -> f64 {
        let all = parts.windows(self.n).len();
        if all == 0 {
            return 0.0;
        }
        let distinct = parts.windows(self.n).collect::<HashSet<_>>().len();
        if distinct == all { 0.0 } else { (1.0 - distinct as f64 / all as f64) * self.max_penalty }
    }
}

impl Reward for Repetition {
    fn reads_tokens(&self) -> bool {
        matches!(self.unit, Unit::Tokens)
    }

    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let one = |c: &Completion<'_>| match self.unit {
            Unit::Tokens => self.reward(c.token_ids),
            Unit::Words => {
                let text = c.text.to_lowercase();
                self.reward(&text.split_whitespace().collect::<Vec<_>>())
            }
        };
        Ok(completions.iter().map(|c| Some(one(c))).collect())
    }
}
