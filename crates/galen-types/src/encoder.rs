//! The one thing data preparation needs of a tokenizer.

use std::ops::Range;

/// Text to token ids and back. `galen-model` implements it for real tokenizers.
pub trait TextEncoder: Send + Sync {
    /// Token ids with the byte range of `text` each covers. Special tokens written in the text become their
    /// ids. `add_special_tokens` also adds what the tokenizer itself would add (a BOS, for some families),
    /// with an empty range.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<(u32, Range<usize>)>, String>;

    /// Token ids to text. Special tokens are left out when `skip_special` is true.
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String>;

    /// The id of a token by its exact text (`<|im_end|>`).
    fn token_id(&self, token: &str) -> Option<u32>;

    /// The beginning-of-sequence token and its text, where the model has one.
    fn bos(&self) -> Option<(u32, &str)>;

    /// The end-of-sequence token and its text, where the model has one.
    fn eos(&self) -> Option<(u32, &str)>;

    /// Number of ids: every id is below it.
    fn vocab_size(&self) -> usize;
}
