//! What an engine is.

use crate::answer::Answer;
use crate::request::Request;

/// A model that requests can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// Its served name.
    pub name: String,
    /// For an adapter: the name of its base.
    pub parent: Option<String>,
    /// Seconds since 1970 when it began to be served.
    pub created: u64,
    /// Most tokens of prompt and answer together.
    pub max_tokens: usize,
}

/// What an engine did and is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences in the batch.
    pub running: u64,
    /// Requests in the queue.
    pub waiting: u64,
    /// Tokens whose keys and values the running requests may come to hold, and the most there may be.
    pub reserved_tokens: u64,
    /// The bound of `reserved_tokens`.
    pub most_reserved_tokens: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens drawn.
    pub generated_tokens: u64,
    /// Steps of the batch.
    pub steps: u64,
    /// Requests whose client went away before the end.
    pub cancelled: u64,
}

/// Why an engine does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No model of that name.
    #[error("the model `{0}` does not exist")]
    UnknownModel(String),
    /// An adapter of that name is there already.
    #[error("a model `{0}` is being served already")]
    Exists(String),
    /// The request cannot be answered as it is.
    #[error("{what}")]
    Invalid {
        /// The field at fault, by OpenAI's name.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Prompt and answer do not fit.
    #[error(
        "the prompt has {prompt} tokens and the answer may have {answer}, and the model takes {limit} together"
    )]
    TooLong {
        /// The field at fault, by OpenAI's name.
        field: &'static str,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        answer: usize,
        /// Most of both.
        limit: usize,
    },
    /// As many requests wait as may.
    #[error("too many requests are waiting")]
    QueueFull,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopping,
    /// The service behind the engine refuses access: no request can succeed.
    #[error("{0}")]
    Refused(String),
    /// An adapter cannot be read.
    #[error("{0}")]
    Adapter(String),
}

/// Generation for many at a time.
pub trait Engine: Send + Sync {
    /// What can be named in a request: the base first, then its adapters by name.
    fn models(&self) -> Vec<ModelCard>;

    /// Takes a request into the queue, at once or not at all. The answer's text depends on the request alone, never on
    /// what is computed beside it. May tokenise a long text: not for a thread that must not be held up.
    fn generate(&self, request: Request) -> Result<Answer, EngineError>;

    /// Reads an adapter and serves it under `name`. Blocks until it is there.
    fn load_adapter(&self, name: &str, path: &str) -> Result<(), EngineError>;

    /// Serves an adapter no longer. Requests under way keep it.
    fn unload_adapter(&self, name: &str) -> Result<(), EngineError>;

    /// Takes no further requests; the worker ends once those it has are answered.
    fn stop(&self);

    /// The same, and drops those it has.
    fn abort(&self);

    /// What it is doing.
    fn stats(&self) -> Stats;
}
