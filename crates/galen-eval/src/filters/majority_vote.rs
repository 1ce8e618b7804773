//! The answer given most often; of equally many the earliest.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "majority_vote",
    about: "the answer given most often over the repeats, the earliest of equals",
    build: |kwargs| known_options(kwargs, &[]).map(|()| Box::new(MajorityVote) as Box<dyn Filter>),
};

#[derive(Debug)]
struct MajorityVote;

impl Filter for MajorityVote {
    fn apply(&self, answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        let votes = |a: &String| answers.iter().filter(|b| *b == a).count();
        let mut best: Option<(&String, usize)> = None;
        for answer in &answers {
            let n = votes(answer);
            if best.is_none_or(|(_, most)| n > most) {
                best = Some((answer, n));
            }
        }
        Ok(best.map(|(answer, _)| answer.clone()).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn most_votes() {
        let options = serde_json::json!({"function": "majority_vote"});
        super::super::check(options.clone(), serde_json::json!({}), &["a", "b", "b", "c"], &["b"]);
        super::super::check(options, serde_json::json!({}), &["c", "b", "b", "c"], &["c"]);
    }
}
