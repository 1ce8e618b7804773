//! OpenAI's interface: requests read strictly, answers in its shapes. Knows nothing of HTTP.

mod answer;
mod chunks;
mod error;
mod fields;
#[cfg(test)]
mod fuzz;
mod logprobs;
mod models;
mod read;

pub use answer::{Collected, Head, collect, collect_blocking};
pub use chunks::Chunks;
pub use error::ApiError;
pub use fields::Fields;
pub use models::{model, models};
pub use read::{Call, MAX_PROMPTS, read};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

impl Kind {
    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Text => "/v1/completions",
        }
    }

    /// The beginning of an answer's id.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl-",
            Self::Text => "cmpl-",
        }
    }
}
