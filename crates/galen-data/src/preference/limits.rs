//! How long a prompt and its answer may be, and what became of the rows.

use crate::DataError;
use crate::tokenize::ExcessLength;
use galen_types::Origin;
use serde::Serialize;

/// Longest sequences, in tokens, and what becomes of longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimits {
    /// Prompt and answer together (TRL's `max_length`).
    pub sequence_len: usize,
    /// The prompt alone.
    pub max_prompt_length: Option<usize>,
    /// The answer alone.
    pub max_completion_length: Option<usize>,
    /// `Drop`: the row is left out. `Raise`: it is an error. `Truncate`: a prompt over its own limit loses its
    /// beginning, an answer its end, then the whole its end (TRL's `keep_start`); a row whose prompt alone fills
    /// `sequence_len` is left out.
    pub excess: ExcessLength,
}

/// What became of the rows of preference data. Every row given is kept or counted under one of the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PreferenceReport {
    /// Rows given: pairs, labelled answers, prompts.
    pub rows: u64,
    /// Rows that are trained on.
    pub kept: u64,
    /// Kept rows of which something was cut off.
    pub truncated: u64,
    /// Rows left out because they, their prompt or an answer is too long.
    pub dropped_too_long: u64,
    /// Rows left out because truncation left nothing of an answer.
    pub dropped_by_truncation: u64,
    /// Kept pairs whose two answers have the same tokens (also: since truncation cut the difference away). They say
    /// nothing about preference.
    pub identical: u64,
    /// Tokens of all kept sequences (a pair has two; a prompt counts once in each).
    pub tokens: u64,
    /// Tokens of answers among them.
    pub answer_tokens: u64,
    /// Tokens of the longest sequence given.
    pub longest: u64,
    /// Tokens of the longest prompt given.
    pub longest_prompt: u64,
    /// The first rows left out, each as `file:line: reason`.
    pub dropped_rows: Vec<String>,
    /// The first identical pairs, as `file:line`.
    pub identical_rows: Vec<String>,
}

/// Rows that a list of the report names.
const NAMED: usize = 20;

impl PreferenceReport {
    pub(super) fn drop_row(&mut self, origin: &Origin, reason: &Drop) {
        match reason {
            Drop::TooLong(_) => self.dropped_too_long += 1,
            Drop::CutAway(_) => self.dropped_by_truncation += 1,
        }
        if self.dropped_rows.len() < NAMED {
            let (Drop::TooLong(what) | Drop::CutAway(what)) = reason;
            self.dropped_rows.push(format!("{origin}: {what}"));
        }
    }

    pub(super) fn identical(&mut self, origin: &Origin) {
        self.identical += 1;
        if self.identical_rows.len() < NAMED {
            self.identical_rows.push(origin.to_string());
        }
    }

    /// The error of a data set of which nothing is left.
    pub(super) fn none_left(&self) -> DataError {
        let first = self.dropped_rows.first().map(|r| format!("\nfirst: {r}")).unwrap_or_default();
        let what = format!(
            "no row is left to train on: of `{}`, `{}` are too long, `{}` lost an answer to truncation{first}",
            self.rows, self.dropped_too_long, self.dropped_by_truncation
        );
        let hint = (self.rows > 0).then(|| "raise `sequence_len`".to_owned());
        DataError::Empty { what, hint }
    }
}

/// Why a row is left out, in words.
#[derive(Debug)]
pub(super) enum Drop {
    TooLong(String),
    CutAway(String),
}

/// A prompt and its answer within the limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) ids: Vec<u32>,
    pub(super) prompt_tokens: usize,
    pub(super) truncated: bool,
}

impl LengthLimits {
    /// Applies the limits to `ids`, of which the first `prompt_tokens` are the prompt. The outer error is that of
    /// `Raise`; the inner one says why the row is left out.
    pub(super) fn cut(
        &self,
        origin: &Origin,
        mut ids: Vec<u32>,
        mut prompt_tokens: usize,
    ) -> Result<Result<Cut, Drop>, DataError> {
        let answer_tokens = ids.len() - prompt_tokens;
        let over = [
            ("max_prompt_length", "prompt", prompt_tokens, self.max_prompt_length),
            ("max_completion_length", "answer", answer_tokens, self.max_completion_length),
            ("sequence_len", "prompt and answer", ids.len(), Some(self.sequence_len)),
        ]
        .into_iter()
        .find_map(|(key, what, len, max)| {
            let max = max.filter(|max| len > *max)?;
            Some((key, format!("`{len}` tokens of {what} are more than `{key}: {max}`")))
        });
        let Some((key, what)) = over else { return Ok(Ok(Cut { ids, prompt_tokens, truncated: false })) };
        match self.excess {
            ExcessLength::Drop => return Ok(Err(Drop::TooLong(what))),
            ExcessLength::Raise => {
                return Err(DataError::file(origin.to_string(), what).with_hint(format!(
                    "raise `{key}`, or set `excess_length_strategy` to `drop` or `truncate`"
                )));
            }
            ExcessLength::Truncate => {}
        }
        if let Some(max) = self.max_prompt_length.filter(|max| prompt_tokens > *max) {
            ids.drain(..prompt_tokens - max);
            prompt_tokens = max;
        }
        let answer = self.max_completion_length.unwrap_or(usize::MAX);
        ids.truncate(prompt_tokens.saturating_add(answer).min(self.sequence_len));
        // The first token of all has nothing before it to be predicted from.
        if ids.len() <= prompt_tokens.max(1) {
            let what = format!("its `{prompt_tokens}` tokens of prompt leave no room for an answer");
            return Ok(Err(Drop::CutAway(what)));
        }
        Ok(Ok(Cut { ids, prompt_tokens, truncated: true }))
    }
    /// The same for a prompt without an answer: a longer one loses its beginning under `Truncate`.
    pub(super) fn cut_prompt(
        &self,
        origin: &Origin,
        mut ids: Vec<u32>,
    ) -> Result<Result<(Vec<u32>, bool), Drop>, DataError> {
        let (len, max) = (ids.len(), self.sequence_len);
        if len <= max {
            return Ok(Ok((ids, false)));
        }
        let what = format!("`{len}` tokens of prompt are more than the `{max}` there is room for");
        match self.excess {
            ExcessLength::Drop => Ok(Err(Drop::TooLong(what))),
            ExcessLength::Raise => Err(DataError::file(origin.to_string(), what).with_hint(
                "raise `max_prompt_length` or `sequence_len`, or set `excess_length_strategy: drop`",
            )),
            ExcessLength::Truncate => Ok(Ok((ids.split_off(len - max), true))),
        }
    }
}
