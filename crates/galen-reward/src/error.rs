//! What can go wrong with rewards.

pub(crate) use galen_endpoint::shorten;
use serde_json::Value;

/// `reward_funcs` or `reward_weights` is not what galen can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {what}{}", hint_line(hint.as_deref()))]
pub struct ConfigError {
    /// The key, with its place: `reward_funcs[1].field`.
    pub key: String,
    /// What is wrong, values in backticks.
    pub what: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Something wrong with a key.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Rewards could not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A data row does not fit the reward.
    #[error("{origin}: reward `{reward}`: {what}{}", hint_line(hint.as_deref()))]
    Row {
        /// `file:line`.
        origin: String,
        /// The reward's label.
        reward: String,
        /// What is wrong.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// A reward answered something that is no reward.
    #[error("reward `{reward}`: {what}")]
    Answer {
        /// The reward's label.
        reward: String,
        /// What is wrong.
        what: String,
    },
    /// The reward program could not be run, died, ran out of time or broke the protocol.
    #[error("reward `{reward}`: `{program}` {what}{stderr}{}", hint_line(hint.as_deref()))]
    Command {
        /// The reward's label.
        reward: String,
        /// The program.
        program: String,
        /// What happened.
        what: String,
        /// The last lines it wrote to stderr, each on a line of its own; empty when there were none.
        stderr: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// The reward endpoint gave no usable answer.
    #[error("reward `{reward}`: {url}: {what}{}", hint_line(hint.as_deref()))]
    Http {
        /// The reward's label.
        reward: String,
        /// The address, without its query.
        url: String,
        /// What happened.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// A reward handed in from outside failed.
    #[error("reward `{reward}`: {source}")]
    Outside {
        /// The reward's label.
        reward: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn hint_line(hint: Option<&str>) -> String {
    hint.map(|h| format!("\nhint: {h}")).unwrap_or_default()
}

/// A value in an error: its kind and, cut short, itself.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map".into(),
        other => format!("`{}`", shorten(&other.to_string(), 80)),
    }
}

/// The name most like `word`, where one is.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let folded = word.to_ascii_lowercase().replace(['-', ' '], "_");
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&folded, name), name))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `did you mean ...` or the list of what there is.
pub fn suggestion(word: &str, names: &[&str]) -> String {
    nearest(word, names.iter().copied()).map_or_else(
        || format!("there are `{}`", names.join("`, `")),
        |near| format!("did you mean `{near}`?"),
    )
}
