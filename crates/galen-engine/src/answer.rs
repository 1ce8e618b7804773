//! What an engine answers: events as they come.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token or a stop text.
    Stop,
    /// It has as many tokens as it may have.
    Length,
}

impl Finish {
    /// OpenAI's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A token with its log-probability: natural logarithm under the model itself (temperature 1, no filter, no penalty).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub id: u32,
    /// The bytes it stands for; perhaps part of a character.
    pub bytes: Vec<u8>,
    /// `ln p`.
    pub logprob: f32,
    /// The likeliest tokens at its place, likeliest first: id, bytes, `ln p`.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

/// Text that is certain, and the tokens that begin in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// Whole characters; may be empty.
    pub text: String,
    /// Empty where log-probabilities were not asked for.
    pub tokens: Vec<TokenLogprobs>,
}

impl Piece {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// Something that happened to a choice of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More of its text.
    Piece {
        /// Which choice.
        choice: usize,
        /// What was added.
        piece: Piece,
    },
    /// Its end.
    End {
        /// Which choice.
        choice: usize,
        /// Why.
        finish: Finish,
        /// Tokens drawn, a stop token included.
        tokens: usize,
    },
    /// How many tokens an input has, where that is known with its answer only: an endpoint's.
    Prompt {
        /// Of one input.
        tokens: usize,
    },
    /// The request failed: no event follows.
    Failed(String),
    /// It failed as every other would: the engine refuses access. No event follows.
    Refused(String),
}

/// A stream of events. Dropping it ends the request: its sequences leave the batch before the next step.
#[derive(Debug)]
pub struct Answer {
    /// Tokens of all inputs; what [`Event::Prompt`] says comes on top.
    pub prompt_tokens: usize,
    /// Choices that end before the stream does.
    pub choices: usize,
    events: UnboundedReceiver<Event>,
}

impl Answer {
    /// An answer and where its events go. The channel has no bound of its own: an answer has one, its tokens.
    pub fn new(prompt_tokens: usize, choices: usize) -> (UnboundedSender<Event>, Self) {
        let (sender, events) = unbounded_channel();
        (sender, Self { prompt_tokens, choices, events })
    }

    /// The next event; `None` once every choice has ended, or where the engine stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same, outside of asynchronous code.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}
