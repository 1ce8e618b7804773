//! The rewards there are. A new one is one file under `rewards/` and one line in [`REWARDS`].

use crate::rewards;
use crate::{Completion, ConfigError, Options, Param, RewardError};

/// Where a reward is computed when there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// On the calling thread, one after the other: what computes itself, in the caller's thread pool.
    Caller,
    /// On a thread of its own, beside the others: what waits for somebody else.
    Beside,
}

/// Judges completions.
pub trait Reward: Send + Sync {
    /// One value a completion, in their order; `None` where the reward does not apply. [`crate::RewardSet`] checks
    /// that there are as many as completions and that each is finite.
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError>;

    /// Starts what takes time to start, so that what cannot start is known before anything is sampled.
    fn start(&self) -> Result<(), RewardError> {
        Ok(())
    }

    /// Whether it looks at a completion's tokens: a text without them cannot be judged.
    fn reads_tokens(&self) -> bool {
        false
    }

    /// Where it is computed.
    fn turn(&self) -> Turn {
        Turn::Caller
    }
}

/// Makes a reward from its parameters.
pub type Build = fn(&Options<'_>) -> Result<Box<dyn Reward>, ConfigError>;

/// A reward's registration.
#[derive(Debug)]
pub struct RewardEntry {
    /// Its name in `reward_funcs`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it does in full, Markdown.
    pub doc: &'static str,
    /// Its parameters, in groups that several rewards share.
    pub params: &'static [&'static [Param]],
    /// From parameters to the reward.
    pub build: Build,
}

impl RewardEntry {
    /// Its parameters, in order.
    pub fn params(&self) -> impl Iterator<Item = &'static Param> {
        self.params.iter().copied().flatten()
    }
}

/// Every reward.
pub static REWARDS: &[RewardEntry] = &[
    rewards::exact_match::ENTRY,
    rewards::choice::ENTRY,
    rewards::numeric::ENTRY,
    rewards::regex::ENTRY,
    rewards::json_schema::ENTRY,
    rewards::format::ENTRY,
    rewards::length::ENTRY,
    rewards::soft_overlong_punishment::ENTRY,
    rewards::repetition::ENTRY,
    rewards::command::ENTRY,
    rewards::http::ENTRY,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use serde_json::{Value, json};

    fn least(name: &str) -> Value {
        match name {
            "regex" => json!({"pattern": "x"}),
            "length" => json!({"target": 1}),
            "soft_overlong_punishment" => json!({"max_completion_len": 2, "soft_punish_cache": 1}),
            "command" => json!({"command": "true"}),
            "http" => json!({"url": "http://localhost/"}),
            _ => json!({}),
        }
    }

    #[test]
    fn every_declared_parameter_is_read_and_every_default_is_of_its_kind() {
        for entry in REWARDS {
            let Value::Object(given) = least(entry.name) else { panic!() };
            let options =
                Options::new("x", Network::Allowed, "reward_funcs[0]", &given, entry.params).unwrap();
            (entry.build)(&options).unwrap();
            let read = options.read.borrow();
            for param in entry.params() {
                assert!(read.contains(&param.name), "{}: `{}` is never read", entry.name, param.name);
                if let crate::Absent::Json(text) = param.absent {
                    let given = json!({param.name: serde_json::from_str::<Value>(text).unwrap()});
                    let given = given.as_object().unwrap();
                    assert!(
                        Options::new("x", Network::Allowed, "p", given, entry.params).is_ok(),
                        "{}",
                        param.name
                    );
                }
            }
        }
    }
}
