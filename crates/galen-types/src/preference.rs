//! Preference data: a prompt with answers of which some are better, from row to tokens.
//!
//! `RawRow -> Preference -> RenderedPair -> TokenizedPair -> SequenceBatch`, and the same way for labelled answers
//! (KTO) and for prompts alone (GRPO, RLOO).

use crate::{InvariantError, Message, Origin, Rendered, Tokenized};
use serde_json::{Map, Value};

/// How a text prompt and its answer meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// A token never holds bytes of both: the prompt is encoded alone, as it is when the answer is generated.
    #[default]
    Cut,
    /// Prompt and answer are encoded as one text; the answer begins where the tokens of the prompt alone and of both
    /// part. For prompts that are the common beginning of two texts, which may end within a word.
    Merged,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Turns, rendered by the chat template with its generation prompt behind them.
    Chat {
        /// The turns before the answer.
        messages: Vec<Message>,
        /// Tool definitions handed to the template as `tools`.
        tools: Option<Value>,
        /// Further template variables of this row.
        template_kwargs: Map<String, Value>,
    },
    /// Text as it is, also empty.
    Text {
        /// The text.
        text: String,
        /// How it meets its answer.
        boundary: Boundary,
    },
}

/// One answer, of the prompt's kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Turns behind the prompt's, at least one, the first the model's.
    Turns(Vec<Message>),
    /// Text behind the prompt's, not empty. The tokenizer's end-of-sequence token follows it.
    Text(String),
}

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Where the row stands.
    pub origin: Origin,
    /// What both answer.
    pub prompt: Prompt,
    /// The better answer.
    pub chosen: Answer,
    /// The worse answer.
    pub rejected: Answer,
    /// By how much it is better, where the row says so (reward models).
    pub margin: Option<f64>,
}

/// A prompt with one answer, good or bad (KTO).
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// Where the row stands.
    pub origin: Origin,
    /// What is answered.
    pub prompt: Prompt,
    /// The answer.
    pub completion: Answer,
    /// Whether it is a good one.
    pub label: bool,
}

/// A prompt with several answers in an order of merit.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Where the row stands.
    pub origin: Origin,
    /// What all answer.
    pub prompt: Prompt,
    /// At least two answers, each with its score: the higher the better.
    pub answers: Vec<(Answer, f64)>,
}

/// A prompt to sample answers for (GRPO, RLOO).
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// Where the row stands.
    pub origin: Origin,
    /// What is answered.
    pub prompt: Prompt,
    /// Every other field of the row, for reward functions.
    pub fields: Map<String, Value>,
}

/// A row of preference data understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Preference {
    /// A better and a worse answer.
    Pair(Pair),
    /// One answer with its label.
    Labelled(Labelled),
    /// Several answers in order.
    Ranked(Ranked),
    /// No answer.
    Prompt(PromptRow),
}

impl Preference {
    /// Where the row stands.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Pair(row) => &row.origin,
            Self::Labelled(row) => &row.origin,
            Self::Ranked(row) => &row.origin,
            Self::Prompt(row) => &row.origin,
        }
    }

    /// What is answered.
    pub fn prompt(&self) -> &Prompt {
        match self {
            Self::Pair(row) => &row.prompt,
            Self::Labelled(row) => &row.prompt,
            Self::Ranked(row) => &row.prompt,
            Self::Prompt(row) => &row.prompt,
        }
    }
}

/// Text of a prompt with one answer. Its one span is the answer: everything behind the prompt, whatever the template
/// writes there (end-of-turn token, the newline after it).
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedAnswer {
    /// Text and span.
    pub rendered: Rendered,
    /// How prompt and answer meet.
    pub boundary: Boundary,
}

/// A pair as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedPair {
    /// Prompt and better answer.
    pub chosen: RenderedAnswer,
    /// Prompt and worse answer.
    pub rejected: RenderedAnswer,
    /// See [`Pair::margin`].
    pub margin: Option<f64>,
}

/// A labelled answer as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedLabelled {
    /// Prompt and answer.
    pub answer: RenderedAnswer,
    /// Whether it is a good one.
    pub label: bool,
}

/// A prompt as the model sees it, ready to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedPrompt {
    /// Where the row stands.
    pub origin: Origin,
    /// The text, generation prompt included.
    pub text: String,
}

/// Tokens of a prompt with one answer; the mask covers the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedAnswer {
    tokens: Tokenized,
    prompt_tokens: usize,
}

impl TokenizedAnswer {
    /// The first `prompt_tokens` ids are the prompt, all others the answer. Errors: no answer, or nothing before it
    /// to predict its only token from.
    pub fn new(
        origin: Origin,
        row: u64,
        ids: Vec<u32>,
        prompt_tokens: usize,
    ) -> Result<Self, InvariantError> {
        let mask = (0..ids.len()).map(|t| t >= prompt_tokens).collect();
        Ok(Self { tokens: Tokenized::new(origin, row, ids, mask)?, prompt_tokens })
    }

    /// Ids and mask.
    pub fn tokens(&self) -> &Tokenized {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Ids of the prompt.
    pub fn prompt_ids(&self) -> &[u32] {
        &self.tokens.ids()[..self.prompt_tokens]
    }

    /// Ids of the answer.
    pub fn answer_ids(&self) -> &[u32] {
        &self.tokens.ids()[self.prompt_tokens..]
    }
}

/// A pair's tokens. Both have the pair's row number, so that dropout treats what they have in common alike.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedPair {
    chosen: TokenizedAnswer,
    rejected: TokenizedAnswer,
    margin: Option<f64>,
}

impl TokenizedPair {
    /// Errors: the halves have different row numbers or origins.
    pub fn new(
        chosen: TokenizedAnswer,
        rejected: TokenizedAnswer,
        margin: Option<f64>,
    ) -> Result<Self, InvariantError> {
        let (a, b) = (chosen.tokens(), rejected.tokens());
        if a.row() != b.row() || a.origin() != b.origin() {
            let what = format!("row `{}` is paired with row `{}` ({})", a.row(), b.row(), b.origin());
            return Err(InvariantError::new(a.origin(), what));
        }
        Ok(Self { chosen, rejected, margin })
    }

    /// Prompt and better answer.
    pub fn chosen(&self) -> &TokenizedAnswer {
        &self.chosen
    }

    /// Prompt and worse answer.
    pub fn rejected(&self) -> &TokenizedAnswer {
        &self.rejected
    }

    /// See [`Pair::margin`].
    pub fn margin(&self) -> Option<f64> {
        self.margin
    }

    /// Where the row stands.
    pub fn origin(&self) -> &Origin {
        self.chosen.tokens.origin()
    }

    /// The row's number in its data set.
    pub fn row(&self) -> u64 {
        self.chosen.tokens.row()
    }

    /// Chosen, then rejected: the order in which the pair's sequences enter a batch.
    pub fn sequences(&self) -> [&Tokenized; 2] {
        [&self.chosen.tokens, &self.rejected.tokens]
    }
}

/// A labelled answer's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedLabelled {
    /// Prompt and answer.
    pub answer: TokenizedAnswer,
    /// Whether it is a good one.
    pub label: bool,
}

/// A prompt's tokens, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedPrompt {
    origin: Origin,
    row: u64,
    ids: Vec<u32>,
}

impl TokenizedPrompt {
    /// Errors: no token.
    pub fn new(origin: Origin, row: u64, ids: Vec<u32>) -> Result<Self, InvariantError> {
        if ids.is_empty() {
            return Err(InvariantError::new(origin, "the prompt has no tokens"));
        }
        Ok(Self { origin, row, ids })
    }

    /// Where the row stands.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The row's number in its data set.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// Token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The prompt followed by a sampled answer. Errors: an empty answer.
    pub fn answered(&self, answer: &[u32]) -> Result<TokenizedAnswer, InvariantError> {
        let ids = [&self.ids[..], answer].concat();
        TokenizedAnswer::new(self.origin.clone(), self.row, ids, self.ids.len())
    }
}
