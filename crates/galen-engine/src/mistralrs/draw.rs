//! Drawing in place of mistralrs-core's sampler: it is shown the one token that was drawn.

use crate::answer::Event;
use crate::continuation::{Continuation, Next};
use candle_core::{Result, Tensor};
use galen_model::tokenizer::Tokenizer;
use mistralrs_core::CustomLogitsProcessor;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

/// What the engine did and is doing.
#[derive(Default)]
pub(super) struct Counts {
    /// Completions taken and not ended.
    pub open: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    pub cancelled: AtomicU64,
    pub stopping: AtomicBool,
    pub aborted: AtomicBool,
}

/// One completion.
pub(super) struct Draw {
    state: Mutex<State>,
    choice: usize,
    prompt_tokens: usize,
    /// What ends a sequence for mistralrs-core.
    end: u32,
    counts: Arc<Counts>,
}

struct State {
    continuation: Continuation<Arc<Tokenizer>>,
    /// `None` once the answer has ended.
    events: Option<UnboundedSender<Event>>,
}

impl Draw {
    pub fn new(
        continuation: Continuation<Arc<Tokenizer>>,
        choice: usize,
        prompt_tokens: usize,
        events: UnboundedSender<Event>,
        end: u32,
        counts: Arc<Counts>,
    ) -> Self {
        let state = Mutex::new(State { continuation, events: Some(events) });
        Self { state, choice, prompt_tokens, end, counts }
    }

    /// Where events go, as long as the answer has not ended.
    pub fn events(&self) -> Option<WeakUnboundedSender<Event>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events.as_ref().map(UnboundedSender::downgrade)
    }

    /// The token that follows.
    fn next(&self, logits: &[f32]) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(events) = state.events.take() else { return self.end };
        if self.counts.aborted.load(Relaxed) {
            return self.end;
        }
        if events.is_closed() {
            self.counts.cancelled.fetch_add(1, Relaxed);
            return self.end;
        }
        if state.continuation.drawn() == 0 {
            self.counts.prompt_tokens.fetch_add(self.prompt_tokens as u64, Relaxed);
        }
        // Whoever does not listen any longer is found at the next token.
        let send = |event| _ = events.send(event);
        let choice = self.choice;
        match state.continuation.take(logits) {
            Ok((piece, next)) => {
                self.counts.generated_tokens.fetch_add(1, Relaxed);
                if !piece.is_empty() {
                    send(Event::Piece { choice, piece });
                }
                match next {
                    Next::Token(id) => {
                        state.events = Some(events);
                        return id;
                    }
                    Next::End(finish) => {
                        send(Event::End { choice, finish, tokens: state.continuation.drawn() });
                    }
                }
            }
            Err(what) => send(Event::Failed(what)),
        }
        self.end
    }
}

impl CustomLogitsProcessor for Draw {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        let values: Vec<f32> = logits.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        let id = self.next(&values) as usize;
        let mut only = vec![f32::NEG_INFINITY; values.len()];
        match only.get_mut(id) {
            Some(at) => *at = 0.0,
            None => candle_core::bail!("token {id} is not among the {} logits", values.len()),
        }
        Tensor::from_vec(only, logits.shape(), logits.device())
    }
}
