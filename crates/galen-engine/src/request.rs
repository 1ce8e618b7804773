//! What is asked of an engine.

use galen_model::Sampling;
use serde_json::Value;

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// Plain text; gets what the tokenizer adds.
    Text(String),
    /// Messages, objects with `role` and `content`: through the chat template, up to the answer's beginning.
    Chat(Vec<Value>),
}

impl Input {
    /// Whether what is generated goes on from the input's text: an answer in a chat begins anew.
    pub fn goes_on(&self) -> bool {
        !matches!(self, Self::Chat(_))
    }
}

/// How inputs become token ids under one model or adapter: its tokenizer and chat template.
pub trait Encode: Send + Sync {
    /// Ids of a text or of messages. Errors, in words for the one who asked: no chat template, or one that refuses.
    fn encode(&self, input: &Input) -> Result<Vec<u32>, String>;
}

/// How far and how to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How tokens are drawn. The seed is the first completion's; further ones follow from it.
    pub sampling: Sampling,
    /// Subtracted from a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit once it was generated.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// At most so many new tokens; `None`: as many as fit.
    pub max_tokens: Option<usize>,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Give each token's log-probability, and those of so many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// Completions of each input.
    pub n: usize,
    /// A token that ends sequences is taken like another.
    pub ignore_eos: bool,
    /// A JSON schema that answers are to satisfy.
    pub schema: Option<Value>,
}

impl Default for Options {
    /// One greedy completion as long as fits.
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            n: 1,
            ignore_eos: false,
            schema: None,
        }
    }
}

impl Options {
    /// How completion `i` of an input draws: completion 0 as `sampling` says, so that it is what one alone would be.
    pub(crate) fn sampling_of(&self, i: usize) -> Sampling {
        let seed = self.sampling.seed.wrapping_add((i as u64).wrapping_mul(0xd134_2543_de82_ef95));
        Sampling { seed, ..self.sampling.clone() }
    }
}

/// A request: completion `j` of input `i` is choice `i n + j` of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The base, or an adapter over it, by its served name.
    pub model: String,
    /// At least one.
    pub inputs: Vec<Input>,
    /// For all of them.
    pub options: Options,
}
