//! The text a model sees, and its tokens, each with what is supervised.

use crate::{InvariantError, Origin};
use std::ops::Range;

/// Text with the byte ranges the loss covers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    origin: Origin,
    text: String,
    spans: Vec<Range<usize>>,
    append_eos: bool,
}

impl Rendered {
    /// `spans` are byte ranges of `text`: sorted, disjoint, non-empty, on character boundaries.
    /// `append_eos`: the end-of-sequence token follows the text (plain-text data only; templates write their own).
    pub fn new(
        origin: Origin,
        text: String,
        spans: Vec<Range<usize>>,
        append_eos: bool,
    ) -> Result<Self, InvariantError> {
        let mut end = 0;
        for span in &spans {
            let sound = span.start >= end
                && span.start < span.end
                && span.end <= text.len()
                && text.is_char_boundary(span.start)
                && text.is_char_boundary(span.end);
            if !sound {
                let what = format!("supervised span `{span:?}` of {} bytes is not sound", text.len());
                return Err(InvariantError::new(origin, what));
            }
            end = span.end;
        }
        Ok(Self { origin, text, spans, append_eos })
    }

    /// Where the row stands.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Byte ranges of the text that the loss covers.
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// Whether the end-of-sequence token follows the text.
    pub fn append_eos(&self) -> bool {
        self.append_eos
    }
}

/// Token ids with, for each, whether the loss covers its prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenized {
    origin: Origin,
    row: u64,
    ids: Vec<u32>,
    mask: Vec<bool>,
}

impl Tokenized {
    /// `mask[t]`: token `t` is predicted under the loss. The first token has no prediction, so `mask[0]` is
    /// cleared. `row` is the row's number in its data set (keys dropout masks). Errors: lengths differ, no
    /// token, or no supervised token.
    pub fn new(origin: Origin, row: u64, ids: Vec<u32>, mut mask: Vec<bool>) -> Result<Self, InvariantError> {
        if ids.len() != mask.len() {
            let what = format!("mask of {} for {} tokens", mask.len(), ids.len());
            return Err(InvariantError::new(origin, what));
        }
        if let Some(first) = mask.first_mut() {
            *first = false;
        }
        if !mask.contains(&true) {
            return Err(InvariantError::new(origin, format!("none of {} tokens is supervised", ids.len())));
        }
        Ok(Self { origin, row, ids, mask })
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

    /// Supervision, one a token; the first is always false.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Number of supervised tokens (at least one).
    pub fn supervised_tokens(&self) -> usize {
        self.mask.iter().filter(|m| **m).count()
    }
}
