//! Owns: the door types a row of data passes through on its way from a file to a gradient.
//! Takes: plain values.
//! Gives: types whose constructors check their invariants; fields are private where an invariant binds them.
//! Never: reads files, touches tensors, or knows a model.
//!
//! `RawRow -> Conversation -> Rendered -> Tokenized -> PackedBatch -> TokenLogProbs -> StepReport`, and beside it
//! `RawRow -> Preference -> RenderedPair -> TokenizedPair -> SequenceBatch -> TokenLogProbs`.

mod adamw;
mod batch;
mod conversation;
mod encoder;
mod origin;
mod preference;
mod rendered;
mod report;
mod sequences;

pub use adamw::AdamWStep;
pub use batch::{PackedBatch, Segment, Target, TokenLogProbs};
pub use conversation::{Conversation, Message};
pub use encoder::TextEncoder;
pub use origin::{Origin, RawRow};
pub use preference::{
    Answer, Boundary, Labelled, Pair, Preference, Prompt, PromptRow, Ranked, RenderedAnswer,
    RenderedLabelled, RenderedPair, RenderedPrompt, TokenizedAnswer, TokenizedLabelled, TokenizedPair,
    TokenizedPrompt,
};
pub use rendered::{Rendered, Tokenized};
pub use report::StepReport;
pub use sequences::SequenceBatch;

/// A door type was given values that break its invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {what}")]
pub struct InvariantError {
    /// Where the data came from (`file:line`), or the name of the door for data made in memory.
    pub origin: String,
    /// What is wrong, with the values in backticks.
    pub what: String,
}

impl InvariantError {
    pub(crate) fn new(origin: impl ToString, what: impl Into<String>) -> Self {
        Self { origin: origin.to_string(), what: what.into() }
    }
}
