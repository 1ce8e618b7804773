//! Generation as text, piece by piece.

use galen_model::tokenizer::{TextStream, Tokenizer};
use galen_model::{Model, Sampling, Session};
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

/// Where pieces of text go.
type Sink<'a> = &'a mut dyn FnMut(&str) -> std::io::Result<()>;

/// A text on its way from logits to pieces that can be shown.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a GenerateOptions<'a>,
    stream: TextStream<'a>,
    prompt_tokens: usize,
    seen: Vec<u32>,
    /// Text that may be the beginning of a stop text.
    held: String,
    drawn: usize,
}

impl<'a> Writer<'a> {
    fn new(
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        options: &'a GenerateOptions<'a>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(!prompt.is_empty(), "the prompt has no token\nhint: write a prompt, or use `--chat`");
        let (stream, seen) = (tokenizer.stream(true), prompt.to_vec());
        Ok(Self {
            tokenizer,
            options,
            stream,
            prompt_tokens: seen.len(),
            seen,
            held: String::new(),
            drawn: 0,
        })
    }

    /// Draws the next token from the logits after what is there, and hands out what text is certain. Gives the token
    /// to append to the model's sequence; `None` at the end.
    fn take(&mut self, logits: &[f32], out: Sink) -> anyhow::Result<Option<u32>> {
        let options = self.options;
        if self.drawn < options.max_tokens {
            let id = options.sampling.next(logits, &self.seen, self.drawn as u64);
            self.drawn += 1;
            if !self.tokenizer.eos_ids().contains(&id) {
                self.seen.push(id);
                self.held.push_str(&self.stream.push(id).map_err(anyhow::Error::msg)?);
                if let Some(end) = first_stop(&self.held, options.stop) {
                    out(&self.held[..end])?;
                    return Ok(None);
                }
                let keep = self.held.len() - may_stop(&self.held, options.stop);
                out(&self.held[..keep])?;
                self.held.drain(..keep);
                if self.drawn < options.max_tokens {
                    return Ok(Some(id));
                }
            }
        }
        let stream = std::mem::replace(&mut self.stream, self.tokenizer.stream(true));
        self.held.push_str(&stream.finish().map_err(anyhow::Error::msg)?);
        out(&self.held[..first_stop(&self.held, options.stop).unwrap_or(self.held.len())])?;
        Ok(None)
    }

    /// The new tokens, without an end-of-sequence token.
    fn tokens(mut self) -> Vec<u32> {
        self.seen.split_off(self.prompt_tokens)
    }
}

/// Continues `prompt` (at least one token) and hands out text as it comes, held back where it may be the beginning of
/// a stop text. Returns the new tokens, without an end-of-sequence token.
pub fn generate(
    model: &Model,
    hook: Option<&dyn ProjectionHook>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions<'_>,
    out: Sink,
) -> anyhow::Result<Vec<u32>> {
    let mut writer = Writer::new(tokenizer, prompt, options)?;
    let mut session = Session::new(model, hook);
    let mut logits = session.feed(prompt)?;
    while let Some(id) = writer.take(&logits, out)? {
        logits = session.feed(&[id])?;
    }
    Ok(writer.tokens())
}

/// Sequences decoded together: so many rows share one reading of the weights.
const TOGETHER: usize = 8;

/// A sequence among others.
struct Live<'a> {
    request: usize,
    session: Session<'a>,
    writer: Writer<'a>,
    next: u32,
}

/// Continues several prompts, some of them at a time; gives text and new tokens of each, in order: the same as
/// [`generate`] for each alone.
pub fn generate_all<'a>(
    model: &'a Model,
    hook: Option<&'a dyn ProjectionHook>,
    tokenizer: &'a Tokenizer,
    requests: &'a [(Vec<u32>, GenerateOptions<'a>)],
) -> anyhow::Result<Vec<(String, Vec<u32>)>> {
    let mut results = vec![(String::new(), Vec::new()); requests.len()];
    let family = Session::new(model, hook);
    let mut live: Vec<Live> = Vec::new();
    let mut waiting = requests.iter().enumerate();
    // Repeats of a prompt come one after another.
    let mut last: Option<(&[u32], Session, Vec<f32>)> = None;
    loop {
        while live.len() < TOGETHER
            && let Some((request, (prompt, options))) = waiting.next()
        {
            let mut writer = Writer::new(tokenizer, prompt, options)?;
            let (session, logits) = match &last {
                Some((same, session, logits)) if *same == prompt.as_slice() => {
                    (session.clone(), logits.clone())
                }
                _ => {
                    let mut session = family.sibling();
                    let logits = session.feed(prompt)?;
                    last = Some((prompt, session.clone(), logits.clone()));
                    (session, logits)
                }
            };
            let next = writer.take(&logits, &mut into(&mut results[request].0))?;
            match next {
                Some(next) => live.push(Live { request, session, writer, next }),
                None => results[request].1 = writer.tokens(),
            }
        }
        if live.is_empty() {
            return Ok(results);
        }
        let ids: Vec<u32> = live.iter().map(|l| l.next).collect();
        let mut sessions: Vec<&mut Session> = live.iter_mut().map(|l| &mut l.session).collect();
        let logits = Session::step(&mut sessions, &ids)?;
        let mut rows = logits.chunks_exact(logits.len() / ids.len());
        let mut going = Vec::with_capacity(live.len());
        for mut l in live {
            let row = rows.next().unwrap_or_default();
            let next = l.writer.take(row, &mut into(&mut results[l.request].0))?;
            match next {
                Some(next) => going.push(Live { next, ..l }),
                None => results[l.request].1 = l.writer.tokens(),
            }
        }
        live = going;
    }
}

/// Appends pieces to a text.
fn into(text: &mut String) -> impl FnMut(&str) -> std::io::Result<()> {
    |piece| {
        text.push_str(piece);
        Ok(())
    }
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
