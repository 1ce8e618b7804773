//! OpenAI's batch files: a request a line in, an answer a line out.

use crate::engine::{Engine, EngineError};
use crate::openai::{ApiError, Collected, Fields, Head, Kind, collect_blocking, read};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a request waits that the queue had no place for.
const PAUSE: Duration = Duration::from_millis(20);

/// A line of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its own name, which no other has.
    pub custom_id: String,
    kind: Kind,
    body: Value,
}

impl Line {
    /// Errors, in words: not a request of a batch.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let message = |e: ApiError| e.message;
        let mut fields = Fields::new(value).map_err(|_| "not a JSON object".to_owned())?;
        let mut required = |name: &str| match fields.text(name).map_err(message)? {
            Some(text) => Ok(text),
            None => Err(format!("`{name}` is missing")),
        };
        let (custom_id, method, url) = (required("custom_id")?, required("method")?, required("url")?);
        if method != "POST" {
            return Err(format!("`method` is `{method}`, and requests are `POST`"));
        }
        let Some(kind) = [Kind::Chat, Kind::Text].into_iter().find(|k| k.path() == url) else {
            let (chat, text) = (Kind::Chat.path(), Kind::Text.path());
            return Err(format!("`url` is `{url}`\nhint: `{chat}` or `{text}`"));
        };
        let body = fields.take("body").ok_or("`body` is missing")?;
        fields.done().map_err(message)?;
        Ok(Self { custom_id, kind, body })
    }

    /// The line of the output: a function of this line and what is served, but for the time it names. `None` where the
    /// engine stopped before the end.
    pub fn answer(&self, engine: &dyn Engine) -> Option<Value> {
        let digest = Sha256::digest(format!("{}\n{}", self.custom_id, self.body));
        let mut seed = [0u8; 8];
        seed.copy_from_slice(&digest[..8]);
        let id: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
        let (status, body) = match self.body(engine, u64::from_be_bytes(seed), &id) {
            Ok(body) => (200, body),
            Err(e) if e.status == 503 => return None,
            Err(e) => (e.status, e.body()),
        };
        Some(json!({
            "id": format!("batch_req_{id}"),
            "custom_id": self.custom_id,
            "response": {"status_code": status, "request_id": id, "body": body},
            "error": null,
        }))
    }

    fn body(&self, engine: &dyn Engine, seed: u64, id: &str) -> Result<Value, ApiError> {
        let mut call = read(self.kind, self.body.clone())?;
        if call.stream {
            return Err(ApiError::value("stream", "an answer in a file comes whole"));
        }
        call.seed(seed);
        let collected = collected(engine, &call.request)?;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        collected.body(&call, &Head { id: format!("{}{id}", self.kind.prefix()), created })
    }
}

/// Waits for a place in the queue and then for the whole answer.
fn collected(engine: &dyn Engine, request: &crate::Request) -> Result<Collected, ApiError> {
    loop {
        match engine.generate(request.clone()) {
            Err(EngineError::QueueFull) => sleep(PAUSE),
            answer => return collect_blocking(answer?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused() {
        let line = |more: &str| {
            format!("{{\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/completions\"{more}}}")
        };
        assert_eq!(Line::parse(&line(", \"body\": {}")).unwrap().custom_id, "a");
        for (text, said) in [
            ("x".to_owned(), "not JSON"),
            ("[]".to_owned(), "not a JSON object"),
            ("{}".to_owned(), "`custom_id`"),
            (line(""), "`body`"),
            (line(", \"body\": {}, \"more\": 1"), "`more`"),
            (line(", \"body\": {}").replace("POST", "GET"), "`GET`"),
            (line(", \"body\": {}").replace("completions", "embeddings"), "hint: `/v1/chat"),
        ] {
            let error = Line::parse(&text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
