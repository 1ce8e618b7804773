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
                // What was drawn is among them, as a further one where it is not likely enough.
                if !t.top.is_empty() {
                    map.entry(name(&t.bytes)).or_insert_with(|| finite(t.logprob).into());
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

    /// A client looks the drawn token up among the likeliest, where it need not be.
    #[test]
    fn what_was_drawn_is_among_the_likeliest() {
        let token =
            TokenLogprobs { id: 7, bytes: b"x".to_vec(), logprob: -3.0, top: vec![(1, b"a".to_vec(), -0.1)] };
        let said = shape(Kind::Text, std::slice::from_ref(&token), 0);
        assert_eq!(said["top_logprobs"][0], json!({"a": -0.1f32, "x": -3.0}));
        let said = shape(Kind::Text, &[TokenLogprobs { top: vec![], ..token }], 0);
        assert_eq!(said["top_logprobs"][0], json!({}), "none were asked for");
    }

    #[test]
    fn parts_of_characters_have_names_and_count_once() {
        assert_eq!(name(&[0xe2, 0x82]), "bytes:\\xe2\\x82");
        assert_eq!(characters("a\u{20ac}".as_bytes()), 2);
        assert_eq!(characters(&[0x82, 0xac]), 0);
    }
}
