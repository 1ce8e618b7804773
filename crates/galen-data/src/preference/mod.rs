//! Preference data after reading: what an objective needs of it, and its tokens.
//!
//! ```text
//! load_preferences -> into_pairs     -> render_pair       -> tokenize_pairs    -> pack_sequences
//!                     into_labelled  -> render_labelled   -> tokenize_labelled -> pack_sequences (and `mismatched`)
//!                     into_prompts   -> render_prompt_row -> tokenize_prompts  -> (rollouts) -> pack_sequences
//! ```

mod convert;
mod limits;
mod mismatch;
mod tokenize;

pub use convert::{PairsMade, RankedPairs, into_labelled, into_pairs, into_prompts};
pub use limits::{LengthLimits, PreferenceReport};
pub use mismatch::mismatched;
pub(crate) use tokenize::encoded;
pub use tokenize::{encode_answer, tokenize_labelled, tokenize_pairs, tokenize_prompts};

#[cfg(test)]
mod tests;
