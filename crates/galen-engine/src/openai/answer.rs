//! Whole answers.

use super::{ApiError, Call, Kind, logprobs};
use crate::answer::{Answer, Event, Finish, Piece};
use serde_json::{Value, json};

/// What every answer and chunk begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `chatcmpl-...`.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
}

impl Head {
    pub(super) fn body(&self, call: &Call, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": call.request.model,
            "system_fingerprint": concat!("galen-", env!("CARGO_PKG_VERSION")),
        })
    }
}

/// Tokens of a request and its answer.
pub(super) fn usage(prompt_tokens: usize, completion_tokens: usize) -> Value {
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// The choices of an answer, put together from events.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    prompt_tokens: usize,
    choices: Vec<(Piece, Option<Finish>)>,
    /// Tokens drawn.
    pub completion_tokens: usize,
}

impl Collected {
    /// Nothing yet.
    pub fn new(answer: &Answer) -> Self {
        let choices = vec![(Piece::default(), None); answer.choices];
        Self { prompt_tokens: answer.prompt_tokens, choices, completion_tokens: 0 }
    }

    /// Errors: the request failed.
    pub fn add(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Piece { choice, piece } => {
                if let Some((whole, _)) = self.choices.get_mut(choice) {
                    whole.text.push_str(&piece.text);
                    whole.tokens.extend(piece.tokens);
                }
            }
            Event::End { choice, finish, tokens } => {
                if let Some((_, end)) = self.choices.get_mut(choice) {
                    *end = Some(finish);
                }
                self.completion_tokens += tokens;
            }
            Event::Prompt { tokens } => self.prompt_tokens += tokens,
            Event::Failed(what) | Event::Refused(what) => return Err(ApiError::internal(what)),
        }
        Ok(())
    }

    /// The answer. Errors: events stopped before every choice had ended.
    pub fn body(&self, call: &Call, head: &Head) -> Result<Value, ApiError> {
        let choice = |(index, (whole, finish)): (usize, &(Piece, Option<Finish>))| {
            let Some(finish) = finish else {
                return Err(ApiError::new(503, Some("shutting_down"), "the server stopped before the end"));
            };
            let logprobs =
                call.request.options.logprobs.map(|_| logprobs::shape(call.kind, &whole.tokens, 0));
            let mut choice = json!({"index": index});
            match call.kind {
                Kind::Chat => {
                    let text = &whole.text;
                    choice["message"] = json!({"role": "assistant", "content": text, "refusal": null});
                }
                Kind::Text => choice["text"] = whole.text.clone().into(),
            }
            choice["logprobs"] = logprobs.unwrap_or_default();
            choice["finish_reason"] = finish.as_str().into();
            Ok(choice)
        };
        let choices = self.choices.iter().enumerate().map(choice).collect::<Result<Vec<_>, _>>()?;
        let object = if call.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let mut body = head.body(call, object);
        body["choices"] = choices.into();
        body["usage"] = usage(self.prompt_tokens, self.completion_tokens);
        Ok(body)
    }
}

/// Waits for the whole answer.
pub async fn collect(mut answer: Answer) -> Result<Collected, ApiError> {
    let mut collected = Collected::new(&answer);
    while let Some(event) = answer.next().await {
        collected.add(event)?;
    }
    Ok(collected)
}

/// The same, outside of asynchronous code.
pub fn collect_blocking(mut answer: Answer) -> Result<Collected, ApiError> {
    let mut collected = Collected::new(&answer);
    while let Some(event) = answer.next_blocking() {
        collected.add(event)?;
    }
    Ok(collected)
}
