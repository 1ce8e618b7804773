//! The one door to a model: whoever implements [`Scorer`] knows weights and tokens, this crate does not.

/// What a scorer's failure is carried in.
pub type ScoreError = Box<dyn std::error::Error + Send + Sync>;

/// One turn given to a chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The turn's text.
    pub content: String,
}

/// A prompt as the model is to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Plain text: the tokenizer adds what it always adds (a BOS, for some families).
    Plain(String),
    /// Text the chat template rendered: it holds its own special tokens; nothing is added.
    Chat(String),
}

impl Prompt {
    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Chat(text) => text,
        }
    }
}

/// One question: which of `choices` is the likeliest continuation of `prompt`?
///
/// Choices carry their delimiter (`" yes"`). Encode with [`crate::encode_choices`]: prompt and choice jointly, so that
/// the prompt's tokens are the same for every choice and can be computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceRequest {
    /// What comes before every choice.
    pub prompt: Prompt,
    /// At least one continuation, none empty.
    pub choices: Vec<String>,
}

/// How likely one continuation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChoiceScore {
    /// Sum over the choice's tokens of `ln p(token | prompt, earlier tokens)`; at most 0.
    pub logprob: f64,
    /// Tokens summed over.
    pub n_tokens: usize,
    /// Whether every token is the most likely one at its place.
    pub is_greedy: bool,
}

/// The token ids a question was scored with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuestionTokens {
    /// The shared prompt.
    pub ids: Vec<u32>,
    /// Each choice's own tokens.
    pub choices_ids: Vec<Vec<u32>>,
}

/// The scores of one [`ChoiceRequest`], one a choice, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionScore {
    /// One score a choice.
    pub choices: Vec<ChoiceScore>,
    /// Token ids, where the scorer gives them (for `--log_samples`).
    pub tokens: Option<QuestionTokens>,
}

/// One text to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// Generation stops before the first of these texts; they are not part of the answer. The end-of-sequence token
    /// always stops.
    pub until: Vec<String>,
    /// At most this many tokens.
    pub max_gen_toks: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// 0 keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f64,
    /// Keys the random numbers: differs between items and between repeats of an item.
    pub seed: u64,
}

/// The answer to one [`GenerateRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    /// The text, cut before the stop string. [`crate::evaluate`] cuts again, so a scorer may leave that out.
    pub text: String,
    /// The prompt's token ids, where the scorer gives them.
    pub ids: Option<Vec<u32>>,
    /// The generated tokens, where the scorer gives them.
    pub gen_ids: Option<Vec<u32>>,
}

/// A model under evaluation.
///
/// Called with chunks of [`crate::EvalOptions::chunk`] requests, so that progress can be shown between calls and the
/// scorer can batch what it is given. Answers come in the order of the requests.
pub trait Scorer {
    /// Scores every choice of every question.
    fn score_choices(&mut self, requests: &[ChoiceRequest]) -> Result<Vec<QuestionScore>, ScoreError>;

    /// Continues every prompt.
    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<Generation>, ScoreError>;

    /// Renders turns with the model's chat template. `add_generation_prompt`: the assistant's header follows the last
    /// turn; otherwise the last turn is the assistant's and stays open for continuation.
    fn apply_chat_template(
        &mut self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ScoreError>;
}
