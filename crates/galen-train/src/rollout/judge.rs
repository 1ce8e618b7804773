//! What sampled answers are worth: asked of whoever knows rows and rewards.

use galen_model::End;
use std::fmt;

pub use crate::preference::Part;

/// One sampled answer.
#[derive(Debug, Clone, Copy)]
pub struct JudgedAnswer<'a> {
    /// Its prompt's row.
    pub row: usize,
    /// The answer's tokens, the stop token included.
    pub ids: &'a [u32],
    /// Why it ended.
    pub end: End,
}

/// What a judge says of answers.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    /// For each answer the value of each reward function; `None` where it does not apply.
    pub values: Vec<Vec<Option<f64>>>,
    /// Their weighted sum; `None` where no function applies.
    pub totals: Vec<Option<f64>>,
    /// Each answer as text, without special tokens.
    pub texts: Vec<String>,
}

/// Judges answers.
pub trait Judge: Sync {
    /// Names and weights of the reward functions.
    fn functions(&self) -> Vec<(String, f64)>;

    /// One entry an answer. Errors: what a reward program or endpoint could not do, in words.
    fn score(&self, part: Part, answers: &[JudgedAnswer]) -> Result<Scores, String>;

    /// A row's prompt as text, for the journal.
    fn prompt(&self, part: Part, row: usize) -> String;
}

impl fmt::Debug for dyn Judge + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.functions()).finish()
    }
}
