//! Text from tokens as they come, whole characters only.

use super::Tokenizer;
use galen_types::TextEncoder;
use std::ops::Deref;

/// Longest run of tokens held back for an unfinished character before it is given out as it is.
const MAX_HELD: usize = 16;

/// Turns ids into text one by one: each gives the text it completes, never part of a character. `T` is a reference to the
/// tokenizer, counted or not.
#[derive(Debug)]
pub struct TextStream<T> {
    tokenizer: T,
    skip_special: bool,
    /// Ids that may still change how the next ones read (a few, not the whole text).
    ids: Vec<u32>,
    /// How many of `ids` have been given out.
    done: usize,
}

impl<T: Deref<Target = Tokenizer>> TextStream<T> {
    /// At the beginning of a text.
    pub fn new(tokenizer: T, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), done: 0 }
    }

    /// After `ids`, which are given out already: what follows keeps its leading space.
    pub fn after(tokenizer: T, skip_special: bool, ids: &[u32]) -> Self {
        let ids = ids[ids.len().saturating_sub(MAX_HELD)..].to_vec();
        Self { tokenizer, skip_special, done: ids.len(), ids }
    }

    /// The text that `id` completes; empty while a character is unfinished.
    pub fn push(&mut self, id: u32) -> Result<String, String> {
        self.ids.push(id);
        self.take(self.ids.len() - self.done > MAX_HELD)
    }

    /// What was held back, at the end of the text.
    pub fn finish(mut self) -> Result<String, String> {
        self.take(true)
    }

    fn take(&mut self, all: bool) -> Result<String, String> {
        // Decoded with the ids before them, because a first token may lose its leading space.
        let before = self.tokenizer.decode(&self.ids[..self.done], self.skip_special)?;
        let now = self.tokenizer.decode(&self.ids, self.skip_special)?;
        if !all && now.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        // Bytes that are no text change how those before them read, which are given out: the rest follows all the same.
        let same = |(a, b): &(char, char)| a == b;
        let common = before.chars().zip(now.chars()).take_while(same).map(|(c, _)| c.len_utf8()).sum();
        let new = now[common..].to_owned();
        if !new.is_empty() {
            self.ids.drain(..self.done);
        }
        self.done = self.ids.len();
        Ok(new)
    }
}
