//! The first `k` answers.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "take_first_k",
    about: "the first k answers (of at least k repeats)",
    build: |kwargs| {
        known_options(kwargs, &["k"])?;
        let k = kwargs
            .get("k")
            .and_then(serde_json::Value::as_u64)
            .filter(|k| *k > 0)
            .ok_or("`k` is to be at least 1")?;
        Ok(Box::new(TakeFirstK { k: usize::try_from(k).unwrap_or(usize::MAX) }) as Box<dyn Filter>)
    },
};

#[derive(Debug)]
struct TakeFirstK {
    k: usize,
}

impl Filter for TakeFirstK {
    fn apply(&self, mut answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        if answers.len() < self.k {
            return Err(format!(
                "filter `take_first_k` needs {} answers of {}\nhint: raise `repeats`",
                self.k,
                answers.len()
            ));
        }
        answers.truncate(self.k);
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn first_two() {
        let options = serde_json::json!({"function": "take_first_k", "k": 2});
        super::super::check(options, serde_json::json!({}), &["a", "b", "c"], &["a", "b"]);
    }
}
