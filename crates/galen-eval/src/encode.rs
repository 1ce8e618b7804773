//! Prompt and choice to token ids, as lm-evaluation-harness splits them.

use crate::{ChoiceRequest, Prompt, ScoreError};
use galen_types::TextEncoder;

/// A question's token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedChoices {
    /// The prompt's tokens, shared by all choices; at least one.
    pub prompt: Vec<u32>,
    /// Each choice's tokens; at least one a choice.
    pub choices: Vec<Vec<u32>>,
}

/// Token ids of a prompt. Plain text gets what the tokenizer adds, unless it is written in the text already.
pub fn encode_prompt(encoder: &dyn TextEncoder, prompt: &Prompt) -> Result<Vec<u32>, ScoreError> {
    encode(encoder, prompt.text(), adds_special(encoder, prompt))
}

/// Encodes every choice jointly with the prompt: spaces that end the prompt move to the front of the choice (so that
/// `" yes"` is one token), prompt and choice are encoded as one text, and what follows the prompt's own number of
/// tokens is the choice. An empty prompt becomes the BOS (else EOS) token.
///
/// Errors: the tokenizer's own, an empty prompt without BOS and EOS, a choice that has no token of its own.
pub fn encode_choices(
    encoder: &dyn TextEncoder,
    request: &ChoiceRequest,
) -> Result<EncodedChoices, ScoreError> {
    let add_special = adds_special(encoder, &request.prompt);
    let text = request.prompt.text();
    let head = text.trim_end();
    let spaces = &text[head.len()..];
    let prompt =
        if head.is_empty() { vec![start_token(encoder)?] } else { encode(encoder, head, add_special)? };

    let mut choices = Vec::with_capacity(request.choices.len());
    for choice in &request.choices {
        let ids = if head.is_empty() {
            encode(encoder, &format!("{spaces}{choice}"), false)?
        } else {
            let whole = encode(encoder, &format!("{head}{spaces}{choice}"), add_special)?;
            whole.get(prompt.len()..).unwrap_or_default().to_vec()
        };
        if ids.is_empty() {
            return Err(format!("choice `{choice}` adds no token to the prompt").into());
        }
        choices.push(ids);
    }
    Ok(EncodedChoices { prompt, choices })
}

fn encode(encoder: &dyn TextEncoder, text: &str, add_special: bool) -> Result<Vec<u32>, ScoreError> {
    Ok(encoder.encode(text, add_special)?.into_iter().map(|(id, _)| id).collect())
}

fn adds_special(encoder: &dyn TextEncoder, prompt: &Prompt) -> bool {
    match prompt {
        Prompt::Chat(_) => false,
        Prompt::Plain(text) => {
            !encoder.bos().is_some_and(|(_, bos)| !bos.is_empty() && text.starts_with(bos))
        }
    }
}

fn start_token(encoder: &dyn TextEncoder) -> Result<u32, ScoreError> {
    let (id, _) = encoder
        .bos()
        .or_else(|| encoder.eos())
        .ok_or("an empty prompt needs a BOS or EOS token, and the model has neither")?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    /// Words with their leading space are tokens; `aa` merges across the boundary of `a` and `a`.
    struct Words;

    impl TextEncoder for Words {
        fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<(u32, Range<usize>)>, String> {
            let mut ids: Vec<_> = add_special_tokens.then_some((1, 0..0)).into_iter().collect();
            let text = if let Some(rest) = text.strip_prefix("<s>") {
                ids.push((1, 0..3));
                rest
            } else {
                text
            };
            for word in text.split_inclusive(|c| c != ' ').map(str::to_owned).fold(
                Vec::<String>::new(),
                |mut words, c| {
                    match words.last_mut() {
                        Some(last) if !c.starts_with(' ') => last.push_str(&c),
                        _ => words.push(c),
                    }
                    words
                },
            ) {
                let id = word.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
                ids.push((id, 0..0));
            }
            Ok(ids)
        }
        fn decode(&self, _: &[u32], _: bool) -> Result<String, String> {
            Err("not needed".into())
        }
        fn token_id(&self, _: &str) -> Option<u32> {
            None
        }
        fn bos(&self) -> Option<(u32, &str)> {
            Some((1, "<s>"))
        }
        fn eos(&self) -> Option<(u32, &str)> {
            None
        }
        fn vocab_size(&self) -> usize {
            usize::MAX
        }
    }

    fn request(prompt: Prompt, choices: &[&str]) -> EncodedChoices {
        let choices = choices.iter().map(ToString::to_string).collect();
        encode_choices(&Words, &ChoiceRequest { prompt, choices }).unwrap()
    }

    #[test]
    fn trailing_spaces_move_to_the_choice() {
        let with = request(Prompt::Plain("Is it ".into()), &["so", "not so"]);
        let without = request(Prompt::Plain("Is it".into()), &[" so", " not so"]);
        assert_eq!(with, without);
        assert_eq!(with.prompt.len(), 3);
        assert_eq!(with.choices.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn bos_is_added_once_and_never_to_chat() {
        assert_eq!(request(Prompt::Plain("<s>a".into()), &[" b"]).prompt.len(), 2);
        assert_eq!(request(Prompt::Plain("a".into()), &[" b"]).prompt.len(), 2);
        assert_eq!(request(Prompt::Chat("a".into()), &[" b"]).prompt.len(), 1);
        assert_eq!(request(Prompt::Plain(String::new()), &["b"]).prompt, [1]);
    }

    #[test]
    fn a_choice_without_tokens_is_refused() {
        let request = ChoiceRequest { prompt: Prompt::Plain("a".into()), choices: vec!["a".into()] };
        assert!(encode_choices(&Words, &request).is_err());
    }
}
