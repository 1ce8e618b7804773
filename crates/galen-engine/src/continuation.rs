//! A prompt's continuation, from logits to text: drawing, stop tokens, stop texts, log-probabilities.

use crate::answer::{Finish, Piece, TokenLogprobs};
use crate::grammar::Constraint;
use crate::request::Options;
use crate::text::StopText;
use galen_model::tokenizer::{TextStream, Tokenizer};
use galen_model::{Sampling, log_prob};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// What follows a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The model is to see this token.
    Token(u32),
    /// Nothing.
    End(Finish),
}

/// One continuation on its way. `T` is a reference to the tokenizer, counted or not.
pub struct Continuation<T> {
    tokenizer: T,
    options: Arc<Options>,
    sampling: Sampling,
    max_tokens: usize,
    prompt_tokens: usize,
    /// The prompt, then what was drawn, without an end-of-sequence token.
    seen: Vec<u32>,
    drawn: usize,
    text: StopText<T>,
    constraint: Option<Constraint>,
}

impl<T: Deref<Target = Tokenizer> + Clone> Continuation<T> {
    /// Completion `which` of a prompt, of at most `max_tokens` tokens (`options.max_tokens` is not asked).
    pub fn new(tokenizer: T, prompt: &[u32], options: Arc<Options>, which: usize, max_tokens: usize) -> Self {
        let sampling = options.sampling_of(which);
        let (seen, text) = (prompt.to_vec(), StopText::new(TextStream::new(tokenizer.clone(), true)));
        Self {
            tokenizer,
            options,
            sampling,
            max_tokens,
            prompt_tokens: seen.len(),
            seen,
            drawn: 0,
            text,
            constraint: None,
        }
    }

    /// The same; where it `goes_on` from the prompt's text, and does not begin as an answer does, a leading space is kept.
    #[must_use]
    pub fn going_on(self, goes_on: bool) -> Self {
        if !goes_on {
            return self;
        }
        let text = StopText::new(TextStream::after(self.tokenizer.clone(), true, &self.seen));
        Self { text, ..self }
    }

    /// The same, held to a schema.
    #[must_use]
    pub(crate) fn constrained(self, constraint: Option<Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// Tokens drawn, a stop token included.
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// Draws the next token from the logits `[V]` after what is there. Gives the text that became certain and what is
    /// next. Errors: the tokenizer's own; a schema whose grammar grows beyond its limits.
    pub fn take(&mut self, logits: &[f32]) -> Result<(Piece, Next), String> {
        if self.drawn >= self.max_tokens {
            return self.end(Finish::Length);
        }
        let mut changed = self.changed(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.restrict(changed.get_or_insert_with(|| logits.to_vec()))?;
        }
        let id = self.sampling.next(changed.as_deref().unwrap_or(logits), &self.seen, self.drawn as u64);
        self.drawn += 1;
        if !self.options.ignore_eos && self.tokenizer.eos_ids().contains(&id) {
            return self.end(Finish::Stop);
        }
        self.seen.push(id);
        let logprobs = self.options.logprobs.map(|top| self.logprobs(logits, id, top));
        let (mut piece, stopped) = self.text.push(id, logprobs, &self.options.stop)?;
        if stopped {
            return Ok((piece, Next::End(Finish::Stop)));
        }
        let complete = self.constraint.as_mut().map_or(Ok(false), |c| c.accept(id))?;
        if !complete && self.drawn < self.max_tokens {
            return Ok((piece, Next::Token(id)));
        }
        let (rest, end) = self.end(if complete { Finish::Stop } else { Finish::Length })?;
        piece.text.push_str(&rest.text);
        piece.tokens.extend(rest.tokens);
        Ok((piece, end))
    }

    /// The new tokens, without an end-of-sequence token.
    pub fn tokens(mut self) -> Vec<u32> {
        self.seen.split_off(self.prompt_tokens)
    }

    fn end(&mut self, finish: Finish) -> Result<(Piece, Next), String> {
        let (piece, stopped) = self.text.finish(&self.options.stop)?;
        Ok((piece, Next::End(if stopped { Finish::Stop } else { finish })))
    }

    /// Logits with biases and penalties, where there are any.
    fn changed(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let Options { frequency_penalty, presence_penalty, logit_bias, .. } = &*self.options;
        let penalised = *frequency_penalty != 0.0 || *presence_penalty != 0.0;
        if !penalised && logit_bias.is_empty() {
            return None;
        }
        let mut logits = logits.to_vec();
        for (id, bias) in logit_bias {
            if let Some(l) = logits.get_mut(*id as usize) {
                *l += bias;
            }
        }
        if penalised {
            let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
            self.seen[self.prompt_tokens..].iter().for_each(|id| *counts.entry(*id).or_default() += 1.0);
            for (id, count) in counts {
                if let Some(l) = logits.get_mut(id as usize) {
                    *l -= presence_penalty + frequency_penalty * count;
                }
            }
        }
        Some(logits)
    }

    fn logprobs(&self, logits: &[f32], id: u32, top: usize) -> TokenLogprobs {
        let bytes = |id: u32| self.tokenizer.token_bytes(id).unwrap_or_default();
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let logprob = log_prob(logits, id);
        // A difference of logits is one of log-probabilities.
        let of = |other: u32| if other == id { logprob } else { logprob + (at(other) - at(id)) };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let before = |a: &u32, b: &u32| at(*b).total_cmp(&at(*a)).then(a.cmp(b));
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top, before);
        }
        order.truncate(top);
        order.sort_unstable_by(before);
        let top = order.into_iter().map(|id| (id, bytes(id), of(id))).collect();
        TokenLogprobs { id, bytes: bytes(id), logprob, top }
    }
}
