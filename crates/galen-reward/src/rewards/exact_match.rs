//! Whether the answer is the row's.

use crate::answer::{ANSWER, Answer, COMPARISON, Comparison, GOLD, Gold, one_if, plain_text};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "exact_match",
    about: "1 where the answer equals the row's field, else 0",
    doc: "The whole completion, or the part that `after` and `extract` pick, is compared with the field (text, a \
          number or a truth value; of a list any).",
    params: &[GOLD, ANSWER, COMPARISON],
    build,
};

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let (gold, answer) = (Gold::new(options)?, Answer::new(options)?);
    Ok(Box::new(ExactMatch { gold, answer, comparison: Comparison::new(options)? }))
}

struct ExactMatch {
    gold: Gold,
    answer: Answer,
    comparison: Comparison,
}

impl Reward for ExactMatch {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let one = |c: &Completion<'_>| {
            let Some(golds) = self.gold.read(c, "text or a number", plain_text)? else { return Ok(None) };
            let answer = self.answer.of(c.text);
            let right = answer.is_some_and(|a| golds.iter().any(|g| self.comparison.equal(a, g)));
            Ok(Some(one_if(right)))
        };
        completions.iter().map(one).collect()
    }
}
