//! What another program answered to a list of requests.

use serde_json::Value;

/// One place a request.
#[derive(Debug)]
pub(super) struct Answers {
    given: Vec<bool>,
    rewards: Vec<Option<f64>>,
    missing: usize,
}

impl Answers {
    pub(super) fn new(n: usize) -> Self {
        Self { given: vec![false; n], rewards: vec![None; n], missing: n }
    }

    pub(super) fn len(&self) -> usize {
        self.given.len()
    }

    /// Requests without an answer.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Whether request `i` has its answer.
    pub(super) fn has(&self, i: usize) -> bool {
        self.given[i]
    }

    /// Takes the answer to request `i`.
    pub(super) fn set(&mut self, i: usize, reward: Option<f64>) {
        self.missing -= usize::from(!self.given[i]);
        self.given[i] = true;
        self.rewards[i] = reward;
    }

    pub(super) fn into_rewards(self) -> Vec<Option<f64>> {
        self.rewards
    }
}

/// A reward as JSON: null for none. `Err` says what it is not.
pub(super) fn reward(value: Option<&Value>) -> Result<Option<f64>, &'static str> {
    match value {
        Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => n.as_f64().filter(|r| r.is_finite()).map(Some).ok_or("is not finite"),
        Some(_) => Err("is neither a number nor null"),
        None => Err("is missing"),
    }
}
