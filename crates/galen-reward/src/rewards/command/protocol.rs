//! Requests and answers of a batch.

use super::super::answers::{self, Answers};
use super::quoted;
use crate::Completion;
use serde_json::Value;

/// What a program wrote that ends the run.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) hint: Option<&'static str>,
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

impl Refusal {
    fn not_json(line: &[u8], error: &serde_json::Error) -> Self {
        let text = String::from_utf8_lossy(line);
        let hint = if text.contains("NaN") || text.contains("Infinity") {
            "JSON has no such number; a completion that cannot be judged gets `null`"
        } else {
            "standard output is for answers alone; print anything else to standard error"
        };
        Self { what: format!("wrote {}, which is not JSON: {error}", quoted(line)), hint: Some(hint) }
    }
}

/// Completions and the answers so far. Ids go on from batch to batch, so that an answer given twice never counts for
/// another batch's completion.
pub(super) struct Batch<'b> {
    first_id: u64,
    completions: &'b [Completion<'b>],
    answers: Answers,
}

impl<'b> Batch<'b> {
    pub(super) fn new(completions: &'b [Completion<'b>], first_id: u64) -> Self {
        Self { first_id, completions, answers: Answers::new(completions.len()) }
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.answers.missing()
    }

    /// The unanswered requests, a line each.
    pub(super) fn requests(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let unanswered = self.completions.iter().enumerate().filter(|(i, _)| !self.answers.has(*i));
        for (i, completion) in unanswered {
            out.extend_from_slice(completion.to_request(self.first_id + i as u64).to_string().as_bytes());
            out.push(b'\n');
        }
        out
    }

    /// Takes one line of the program's.
    pub(super) fn accept(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(line).map_err(|e| Refusal::not_json(line, &e))?;
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| id.checked_sub(self.first_id));
        let Some(i) = id.and_then(|id| usize::try_from(id).ok()).filter(|i| *i < self.len()) else {
            return Err(format!("wrote {}: its `id` is of no request", quoted(line)).into());
        };
        if self.answers.has(i) {
            return Err(format!("answered one request twice, the second time {}", quoted(line)).into());
        }
        if let Some(why) = answer.get("error").filter(|e| !e.is_null()) {
            let why = why.as_str().map_or_else(|| why.to_string(), str::to_owned);
            return Err(format!(
                "cannot judge a completion of {}: {}",
                self.completions[i].origin,
                quoted(why.as_bytes())
            )
            .into());
        }
        let reward = answers::reward(answer.get("reward"))
            .map_err(|why| format!("wrote {}: its `reward` {why}", quoted(line)))?;
        self.answers.set(i, reward);
        Ok(())
    }

    pub(super) fn into_rewards(self) -> Vec<Option<f64>> {
        self.answers.into_rewards()
    }
}
