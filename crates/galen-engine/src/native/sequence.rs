//! Sequences of the batch, and the prompt on its way into it.

use super::queue::Job;
use crate::answer::Event;
use crate::continuation::{Continuation, Next};
use crate::grammar::Constraint;
use galen_model::Session;
use galen_model::tokenizer::Tokenizer;
use std::sync::Arc;

/// A prompt that goes through the model part by part.
pub(super) struct Prefill<'a> {
    pub job: Arc<Job>,
    pub session: Session<'a>,
    pub done: usize,
}

/// A completion that is being extended.
pub(super) struct Live<'a> {
    pub job: Arc<Job>,
    choice: usize,
    pub session: Session<'a>,
    continuation: Continuation<&'a Tokenizer>,
    /// What the model sees next.
    pub next: u32,
}

/// The completions of a prompt that go on after their first token. Each gets a copy of what the prompt left.
pub(super) fn begin<'a>(
    tokenizer: &'a Tokenizer,
    job: &Arc<Job>,
    session: Session<'a>,
    logits: &[f32],
) -> Vec<Live<'a>> {
    let n = job.options.n;
    let mut session = Some(session);
    let mut live = Vec::with_capacity(n);
    for i in 0..n {
        let options = job.options.clone();
        let continuation = Continuation::new(tokenizer, &job.prompt, options, i, job.max_tokens)
            .going_on(job.goes_on)
            .constrained(job.constraint.as_ref().map(Constraint::again));
        let own = if i + 1 == n { session.take() } else { session.clone() };
        let Some(session) = own else { continue };
        let choice = job.first_choice + i;
        let mut one = Live { job: job.clone(), choice, session, continuation, next: 0 };
        if one.take(logits) {
            live.push(one);
        }
    }
    live
}

impl Live<'_> {
    /// Draws a token and hands out what follows from it. False at the end.
    pub fn take(&mut self, logits: &[f32]) -> bool {
        // Whoever does not listen any longer is found before the next step.
        let send = |event| _ = self.job.events.send(event);
        let choice = self.choice;
        match self.continuation.take(logits) {
            Ok((piece, next)) => {
                if !piece.is_empty() {
                    send(Event::Piece { choice, piece });
                }
                match next {
                    Next::Token(id) => {
                        self.next = id;
                        return true;
                    }
                    Next::End(finish) => {
                        send(Event::End { choice, finish, tokens: self.continuation.drawn() });
                    }
                }
            }
            Err(what) => send(Event::Failed(what)),
        }
        false
    }
}
