//! Generation as text, piece by piece.

use galen_engine::{Continuation, Next, Options};
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, Sampling, Session};
use galen_ops::hook::ProjectionHook;
use std::sync::Arc;

/// How far and how to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions<'a> {
    /// At most so many new tokens.
    pub max_tokens: usize,
    /// Ends before the first of these texts.
    pub stop: &'a [String],
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Whether the text goes on from the prompt's and keeps a leading space; an answer begins anew.
    pub goes_on: bool,
}

/// Where pieces of text go.
type Sink<'a> = &'a mut dyn FnMut(&str) -> std::io::Result<()>;

fn begin<'a>(
    tokenizer: &'a Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions<'_>,
) -> anyhow::Result<Continuation<&'a Tokenizer>> {
    anyhow::ensure!(!prompt.is_empty(), "the prompt has no token\nhint: write a prompt, or use `--chat`");
    let GenerateOptions { max_tokens, stop, sampling, goes_on } = options;
    let options = Options { sampling: sampling.clone(), stop: stop.to_vec(), ..Options::default() };
    Ok(Continuation::new(tokenizer, prompt, Arc::new(options), 0, *max_tokens).going_on(*goes_on))
}

/// Draws the next token from the logits after what is there, and hands out what text is certain. Gives the token to
/// append to the model's sequence; `None` at the end.
fn take(
    continuation: &mut Continuation<&Tokenizer>,
    logits: &[f32],
    out: Sink,
) -> anyhow::Result<Option<u32>> {
    let (piece, next) = continuation.take(logits).map_err(anyhow::Error::msg)?;
    out(&piece.text)?;
    Ok(match next {
        Next::Token(id) => Some(id),
        Next::End(_) => None,
    })
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
    let mut writer = begin(tokenizer, prompt, options)?;
    let mut session = Session::new(model, hook);
    let mut logits = session.feed(prompt)?;
    while let Some(id) = take(&mut writer, &logits, out)? {
        logits = session.feed(&[id])?;
    }
    Ok(writer.tokens())
}

/// Sequences decoded together: so many rows share one reading of the weights.
const TOGETHER: usize = 8;
/// The same on a card.
const TOGETHER_ON_A_CARD: usize = 64;

/// A sequence among others.
struct Live<'a> {
    request: usize,
    session: Session<'a>,
    writer: Continuation<&'a Tokenizer>,
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
    let together = if model.device().is_some() { TOGETHER_ON_A_CARD } else { TOGETHER };
    let mut live: Vec<Live> = Vec::new();
    let mut waiting = requests.iter().enumerate();
    // Repeats of a prompt come one after another.
    let mut last: Option<(&[u32], Session, Vec<f32>)> = None;
    loop {
        while live.len() < together
            && let Some((request, (prompt, options))) = waiting.next()
        {
            let mut writer = begin(tokenizer, prompt, options)?;
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
            let next = take(&mut writer, &logits, &mut into(&mut results[request].0))?;
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
            let next = take(&mut l.writer, row, &mut into(&mut results[l.request].0))?;
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
