//! Text held back where it may be the beginning of a stop text.

use crate::answer::{Piece, TokenLogprobs};
use galen_model::tokenizer::{TextStream, Tokenizer};
use std::collections::VecDeque;
use std::ops::Deref;

/// Text on its way from tokens to pieces that are certain, each with the tokens that begin in it.
pub(crate) struct StopText<T> {
    stream: Option<TextStream<T>>,
    held: String,
    /// Bytes given out.
    given: usize,
    /// Tokens not given out, with the byte at which each begins.
    pending: VecDeque<(usize, TokenLogprobs)>,
}

impl<T: Deref<Target = Tokenizer>> StopText<T> {
    pub fn new(stream: TextStream<T>) -> Self {
        Self { stream: Some(stream), held: String::new(), given: 0, pending: VecDeque::new() }
    }

    /// The text that became certain by this token, and whether a stop text ends it.
    pub fn push(
        &mut self,
        id: u32,
        logprobs: Option<TokenLogprobs>,
        stops: &[String],
    ) -> Result<(Piece, bool), String> {
        self.pending.extend(logprobs.map(|l| (self.given + self.held.len(), l)));
        if let Some(stream) = &mut self.stream {
            self.held.push_str(&stream.push(id)?);
        }
        if let Some(end) = first_stop(&self.held, stops) {
            return Ok((self.give(end), true));
        }
        let certain = self.held.len() - may_stop(&self.held, stops);
        Ok((self.give(certain), false))
    }

    /// What was held back, at the end; and whether a stop text is in it after all.
    pub fn finish(&mut self, stops: &[String]) -> Result<(Piece, bool), String> {
        if let Some(stream) = self.stream.take() {
            self.held.push_str(&stream.finish()?);
        }
        if let Some(end) = first_stop(&self.held, stops) {
            return Ok((self.give(end), true));
        }
        let mut piece = self.give(self.held.len());
        piece.tokens.extend(self.pending.drain(..).map(|(_, t)| t));
        Ok((piece, false))
    }

    fn give(&mut self, bytes: usize) -> Piece {
        let text: String = self.held.drain(..bytes).collect();
        self.given += bytes;
        let tokens = self.pending.iter().take_while(|(start, _)| *start < self.given).count();
        Piece { text, tokens: self.pending.drain(..tokens).map(|(_, t)| t).collect() }
    }
}

fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min()
}

/// Bytes at the end of `text` that may be the beginning of a stop text.
fn may_stop(text: &str, stops: &[String]) -> usize {
    let begins = |s: &String| {
        (1..s.len().min(text.len() + 1)).rev().find(|n| s.is_char_boundary(*n) && text.ends_with(&s[..*n]))
    };
    stops.iter().filter_map(begins).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_are_found_and_held_back() {
        let stops = ["\n\nQ".to_owned(), "END".to_owned()];
        assert_eq!(first_stop("ab\n\nQ: END", &stops), Some(2));
        assert_eq!(may_stop("ab\n", &stops), 1);
        assert_eq!(may_stop("ab\n\n", &stops), 2);
        assert_eq!(may_stop("abEN", &stops), 2);
        assert_eq!(may_stop("ab", &stops), 0);
    }
}
