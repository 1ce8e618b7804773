//! Log-probabilities in the two shapes OpenAI gives them.

use super::Kind;
use crate::answer::TokenLogprobs;
use serde_json::{Map, Value, json};

/// Of tokens beginning at `offset` (bytes of the answer's text so far, counted in characters).
pub(super) fn shape(kind: Kind, tokens: &[TokenLogprobs], offset: usize) -> Value {
    match kind {
        Kind::Chat => {
            let one = |bytes: &[u8], logprob: f32| json!({"token": name(bytes), "logprob": finite(logprob), "bytes": bytes});
            let content: Vec<Value> = tokens
                .iter()
                .map(|t| {
                    let mut value = one(&t.bytes, t.logprob);
                    value["top_logprobs"] = t.top.iter().map(|(_, bytes, l)| one(bytes, *l)).collect();
                    value
                })
                .collect();
            json!({"content": content, "refusal": null})
        }
        Kind::Text => {
            let mut at = offset;
            let mut offsets = Vec::with_capacity(tokens.len());
            for t in tokens {
                offsets.push(at);
                at += characters(&t.bytes);
            }
            let top = |t: &TokenLogprobs| -> Value {
                let mut map = Map::new();
                for (_, bytes, logprob) in &t.top {
                    // Tokens that read alike: the likeliest stays.
                    map.entry(name(bytes)).or_insert_with(|| finite(*logprob).into());
                }
                Value::Object(map)
            };
            json!({
                "tokens": tokens.iter().map(|t| name(&t.bytes)).collect::<Vec<_>>(),
                "token_logprobs": tokens.iter().map(|t| finite(t.logprob)).collect::<Vec<_>>(),
                "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
                "text_offset": offsets,
            })
        }
    }
}

/// Characters that begin in these bytes.
pub(super) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b & 0xc0 != 0x80).count()
}

/// JSON has no infinity: OpenAI writes -9999 for what cannot be.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// A token as text; part of a character as OpenAI writes it.
fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("bytes:{}", bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_have_names_and_count_once() {
        assert_eq!(name(&[0xe2, 0x82]), "bytes:\\xe2\\x82");
        assert_eq!(characters("a\u{20ac}".as_bytes()), 2);
        assert_eq!(characters(&[0x82, 0xac]), 0);
    }
}
