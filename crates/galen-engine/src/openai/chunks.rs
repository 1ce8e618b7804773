//! Answers in chunks, as `stream: true` has them.

use super::answer::usage;
use super::{ApiError, Call, Head, Kind, logprobs};
use crate::answer::{Answer, Event, Piece};
use serde_json::{Value, json};

/// Makes events chunks. One event may give several: a chat's choice begins with its role.
#[derive(Debug)]
pub struct Chunks {
    call: Call,
    head: Head,
    prompt_tokens: usize,
    /// Tokens drawn.
    pub completion_tokens: usize,
    /// For each choice: whether it has begun, its characters so far, whether it has ended.
    choices: Vec<(bool, usize, bool)>,
}

impl Chunks {
    /// For an answer that is to come.
    pub fn new(call: Call, head: Head, answer: &Answer) -> Self {
        let (prompt_tokens, choices) = (answer.prompt_tokens, vec![(false, 0, false); answer.choices]);
        Self { call, head, prompt_tokens, completion_tokens: 0, choices }
    }

    /// The chunks of an event.
    pub fn of(&mut self, event: Event) -> Result<Vec<Value>, ApiError> {
        match event {
            Event::Piece { choice, piece } => {
                let mut chunks = self.begin(choice);
                chunks.push(self.piece(choice, &piece));
                Ok(chunks)
            }
            Event::End { choice, finish, tokens } => {
                self.completion_tokens += tokens;
                let mut chunks = self.begin(choice);
                if let Some((.., ended)) = self.choices.get_mut(choice) {
                    *ended = true;
                }
                chunks.push(self.chunk(choice, "", Value::Null, finish.as_str().into(), json!({})));
                Ok(chunks)
            }
            Event::Prompt { tokens } => {
                self.prompt_tokens += tokens;
                Ok(Vec::new())
            }
            Event::Failed(what) | Event::Refused(what) => Err(ApiError::internal(what)),
        }
    }

    /// What ends the stream. Errors: a choice has not ended.
    pub fn end(&self) -> Result<Option<Value>, ApiError> {
        if self.choices.iter().any(|(.., ended)| !ended) {
            return Err(ApiError::new(503, Some("shutting_down"), "the server stopped before the end"));
        }
        Ok(self.call.include_usage.then(|| {
            let mut body = self.head.body(&self.call, self.object());
            body["choices"] = json!([]);
            body["usage"] = usage(self.prompt_tokens, self.completion_tokens);
            body
        }))
    }

    fn object(&self) -> &'static str {
        if self.call.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn begin(&mut self, choice: usize) -> Vec<Value> {
        match self.choices.get_mut(choice) {
            Some((begun, ..)) if !*begun && self.call.kind == Kind::Chat => {
                *begun = true;
                let delta = json!({"role": "assistant", "content": ""});
                vec![self.chunk(choice, "", Value::Null, Value::Null, delta)]
            }
            _ => Vec::new(),
        }
    }

    fn piece(&mut self, choice: usize, piece: &Piece) -> Value {
        let (kind, wanted) = (self.call.kind, self.call.request.options.logprobs.is_some());
        let mut logprobs = Value::Null;
        if let Some((_, offset, _)) = self.choices.get_mut(choice) {
            if wanted {
                logprobs = logprobs::shape(kind, &piece.tokens, *offset);
            }
            // Where the next token begins, which need not be where the text ends.
            *offset += piece.tokens.iter().map(|t| logprobs::characters(&t.bytes)).sum::<usize>();
        }
        self.chunk(choice, &piece.text, logprobs, Value::Null, json!({"content": piece.text}))
    }

    fn chunk(&self, choice: usize, text: &str, logprobs: Value, finish: Value, delta: Value) -> Value {
        let mut body = self.head.body(&self.call, self.object());
        let mut one = json!({"index": choice});
        match self.call.kind {
            Kind::Chat => one["delta"] = delta,
            Kind::Text => one["text"] = text.into(),
        }
        one["logprobs"] = logprobs;
        one["finish_reason"] = finish;
        body["choices"] = json!([one]);
        if self.call.include_usage {
            body["usage"] = Value::Null;
        }
        body
    }
}
