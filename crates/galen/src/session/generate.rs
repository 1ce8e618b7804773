//! Generation as text, piece by piece.

use galen_model::{Model, Sampling, Session, tokenizer::Tokenizer};
use galen_ops::hook::ProjectionHook;

/// How far and how to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions<'a> {
    /// At most so many new tokens.
    pub max_tokens: usize,
    /// Ends before the first of these texts.
    pub stop: &'a [String],
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// Continues `prompt` (at least one token) and hands out text as it comes, held back where it may be the beginning of
/// a stop text. Returns the new tokens, without an end-of-sequence token.
pub fn generate(
    model: &Model,
    hook: Option<&dyn ProjectionHook>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions<'_>,
    out: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Vec<u32>> {
    anyhow::ensure!(!prompt.is_empty(), "the prompt has no token\nhint: write a prompt, or use `--chat`");
    let mut session = Session::new(model, hook);
    let mut logits = session.feed(prompt)?;
    let mut stream = tokenizer.stream(true);
    let mut seen = prompt.to_vec();
    let mut held = String::new();
    for n in 0..options.max_tokens {
        let id = options.sampling.next(&logits, &seen, n as u64);
        if tokenizer.eos_ids().contains(&id) {
            break;
        }
        seen.push(id);
        held.push_str(&stream.push(id).map_err(anyhow::Error::msg)?);
        if let Some(end) = first_stop(&held, options.stop) {
            out(&held[..end])?;
            return Ok(seen.split_off(prompt.len()));
        }
        let keep = held.len() - may_stop(&held, options.stop);
        out(&held[..keep])?;
        held.drain(..keep);
        if n + 1 < options.max_tokens {
            logits = session.feed(&[id])?;
        }
    }
    held.push_str(&stream.finish().map_err(anyhow::Error::msg)?);
    out(&held[..first_stop(&held, options.stop).unwrap_or(held.len())])?;
    Ok(seen.split_off(prompt.len()))
}

fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min()
}

/// Bytes at the end of `text` that may be the beginning of a stop text.
fn may_stop(text: &str, stops: &[String]) -> usize {
    let begins = |s: &String| (1..s.len()).rev().find(|n| s.is_char_boundary(*n) && text.ends_with(&s[..*n]));
    stops.iter().filter_map(begins).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_are_found_and_held_back() {
        let stops = ["\n\nQ".to_owned(), "END".to_owned()];
        assert_eq!(first_stop("ab\n\nQ: END", &stops), Some(2));
        assert_eq!(may_stop("ab\n", &stops), 1);
        assert_eq!(may_stop("ab\n\n", &stops), 2);
        assert_eq!(may_stop("abEN", &stops), 2);
        assert_eq!(may_stop("ab", &stops), 0);
    }
}
