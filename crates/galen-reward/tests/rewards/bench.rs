//! Completions to judge.

use galen_reward::{Completion, Finish, Network, Prompt, RewardError, RewardSet, parse};
use galen_types::Origin;
use serde_json::{Map, Value, json};

/// A completion that owns what it borrows.
pub struct Sample {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub finish: Finish,
    origin: Origin,
    row: Map<String, Value>,
}

impl Sample {
    /// `text` of a row with the field `answer`.
    pub fn new(text: &str, answer: impl Into<Value>) -> Self {
        Self::of_row(text, json!({"answer": answer.into()}))
    }

    pub fn of_row(text: &str, row: Value) -> Self {
        let Value::Object(row) = row else { panic!("{row} is no row") };
        Self {
            text: text.into(),
            token_ids: Vec::new(),
            finish: Finish::Stop,
            origin: Origin::new("datasets/a.jsonl", 17),
            row,
        }
    }

    pub fn of_tokens(token_ids: Vec<u32>) -> Self {
        Self { token_ids, ..Self::of_row("", json!({})) }
    }

    pub fn completion(&self) -> Completion<'_> {
        Completion {
            prompt: Prompt::Text("2 + 2?"),
            text: &self.text,
            token_ids: &self.token_ids,
            finish: self.finish,
            origin: &self.origin,
            row: &self.row,
        }
    }
}

/// `n` completions `c0`, `c1` ...
pub fn samples(n: usize) -> Vec<Sample> {
    (0..n).map(|i| Sample::new(&format!("c{i}"), i)).collect()
}

pub fn completions(samples: &[Sample]) -> Vec<Completion<'_>> {
    samples.iter().map(Sample::completion).collect()
}

/// The set of one entry of `reward_funcs`.
pub fn one(entry: &Value) -> RewardSet<'static> {
    parse(&json!([entry]), &Value::Null, Network::Allowed, &mut []).unwrap_or_else(|e| panic!("{entry}: {e}"))
}

/// What one reward gives.
pub fn score(entry: &Value, samples: &[Sample]) -> Result<Vec<Option<f64>>, RewardError> {
    one(entry).score(&completions(samples)).map(|mut r| r.functions.remove(0).values)
}
