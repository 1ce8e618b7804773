//! Which bytes of a rendered conversation the loss covers, exactly.
//!
//! For a trained turn the loss covers what the model would write: from where the generation prompt ends to the
//! end-of-turn token. Both ends are taken from renderings, in this order, each accepted only where it is provably right:
//!
//! ```text
//! text     <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user ...
//! start    |--- rendering of the turns before, with generation prompt --->|
//! end      |--- rendering up to and with the turn ------------------------------------------->|
//! marked                                                                 Hel#lo
//! loss                                                                   ^^^^^^^^^^^^^^^
//! ```
//!
//! 1. `{% generation %}` blocks, where the template has them.
//! 2. Renderings of the conversation's beginnings, where they are beginnings of the whole text.
//! 3. Else (a template that changes earlier turns): marks inside the messages (`markers.rs`), the text of the
//!    generation prompt before the first, and the end-of-turn token after the last.
//!
//! What none of them can settle is an error.

use super::markers::{self, Missing, Place};
use super::renderer::Renderer;
use super::{RenderOptions, TrainOnEos};
use galen_types::Message;
use minijinja::{Error, Value};
use std::ops::Range;

/// Why a row has no exact rendering.
#[derive(Debug)]
pub(super) enum Problem {
    Render(Error),
    LeftOut(String),
    Inexact { turn: usize, role: String, what: String },
    Text(String),
    Thread,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self::Render(e)
    }
}

/// A trained turn: what the model writes, and the end-of-turn token after (or as) its last part.
#[derive(Debug)]
struct Turn {
    parts: Vec<Range<usize>>,
    eot: Option<Range<usize>>,
}

impl Turn {
    fn new(part: Range<usize>, eot: Option<Range<usize>>) -> Self {
        Self { parts: std::iter::once(part).collect(), eot }
    }
}

/// Text of the row and the spans the loss covers.
pub(super) fn render(
    renderer: &Renderer,
    messages: &[Message],
    options: &RenderOptions,
) -> Result<(String, Vec<Range<usize>>), Problem> {
    let full = renderer.plain(renderer.messages(), false)?;
    let places = markers::locate(renderer, messages, &full, false);
    check_nothing_left_out(messages, &places)?;
    let masker = Masker { renderer, messages, full: &full, places: &places };
    let mut turns: Vec<(usize, Turn)> = Vec::new();
    let blocks = masker.generation_blocks();
    for i in (0..messages.len()).filter(|&i| messages[i].train) {
        let turn = match blocks.as_ref().and_then(|b| b.get(i)).filter(|b| !b.is_empty()) {
            Some(blocks) => masker.marked_turn(blocks),
            None => masker.turn(i)?,
        };
        turns.push((i, turn));
    }
    let spans = masker.spans(turns, options.train_on_eos);
    if !options.add_generation_prompt {
        return Ok((full, spans));
    }
    let text = renderer.plain(renderer.messages(), true)?;
    if !text.starts_with(&full) {
        return Err(Problem::Text("the generation prompt changes the text before it".into()));
    }
    Ok((text, spans))
}

/// Text of a row whose turns from `from` on answer those before, and where the answer begins: behind the generation
/// prompt, as for a trained turn.
pub(super) fn answer(
    renderer: &Renderer,
    messages: &[Message],
    from: usize,
) -> Result<(String, usize), Problem> {
    let full = renderer.plain(renderer.messages(), false)?;
    let places = markers::locate(renderer, messages, &full, false);
    check_nothing_left_out(messages, &places)?;
    let masker = Masker { renderer, messages, full: &full, places: &places };
    let (start, _) = masker.start(from)?;
    Ok((full, start))
}

/// Turns and tool calls must be in the text: what is silently dropped is silently not learnt. (Whether a template looks
/// at tool definitions is told by `ChatTemplate::uses_tools`.)
fn check_nothing_left_out(messages: &[Message], places: &[Place]) -> Result<(), Problem> {
    for (i, (message, place)) in messages.iter().zip(places).enumerate() {
        for missing in &place.missing {
            let turn = i + 1;
            match missing {
                Missing::Call(call) => {
                    let what = format!("tool call {} of turn {turn} (`{}`)", call + 1, message.role);
                    return Err(Problem::LeftOut(what));
                }
                // Beside tool calls, text is a remark that several published templates leave out on purpose.
                Missing::Content if place.has_calls => {}
                Missing::Content => {
                    return Err(Problem::LeftOut(format!("the content of turn {turn} (`{}`)", message.role)));
                }
            }
        }
    }
    Ok(())
}

struct Masker<'a> {
    renderer: &'a Renderer<'a>,
    messages: &'a [Message],
    full: &'a str,
    places: &'a [Place],
}

impl Masker<'_> {
    fn inexact(&self, i: usize, what: &str) -> Problem {
        Problem::Inexact { turn: i, role: self.messages[i].role.clone(), what: what.to_string() }
    }

    /// `{% generation %}` blocks of each message. `None`: the template has none, or they cannot be assigned.
    fn generation_blocks(&self) -> Option<Vec<Vec<Range<usize>>>> {
        if !self.renderer.template().has_generation {
            return None;
        }
        let (text, blocks) = self.renderer.generation_blocks()?.ok()?;
        if text != self.full {
            return None;
        }
        let mut of = vec![Vec::new(); self.messages.len()];
        let assistants: Vec<usize> =
            (0..self.messages.len()).filter(|&i| self.messages[i].role == "assistant").collect();
        for (k, block) in blocks.iter().enumerate() {
            let inside = |p: &Place| p.inside.is_some_and(|(a, b)| a <= block.end && b >= block.start);
            let owner = self.places.iter().position(inside);
            let in_order = (blocks.len() == assistants.len()).then(|| assistants[k]);
            of[owner.or(in_order)?].push(block.clone());
        }
        Some(of)
    }

    /// A turn whose text the template marked: its blocks as they are, with the end-of-turn token if the last block
    /// ends with one or one follows at once.
    fn marked_turn(&self, blocks: &[Range<usize>]) -> Turn {
        let end = blocks.last().map_or(0, |b| b.end);
        let (inside, after) = (self.full[..end].trim_end(), &self.full[end..]);
        let gap = after.len() - after.trim_start().len();
        let tokens = || self.ends().filter(|t| !t.is_empty());
        let last = tokens().filter(|t| inside.ends_with(*t)).map(str::len).max();
        let next = || tokens().filter(|t| after[gap..].starts_with(*t)).map(str::len).max();
        let eot = match last {
            Some(length) => Some(inside.len() - length..inside.len()),
            None => next().map(|length| end + gap..end + gap + length),
        };
        Turn { parts: blocks.to_vec(), eot }
    }

    fn turn(&self, i: usize) -> Result<Turn, Problem> {
        let (start, silent) = self.start(i)?;
        let (bound, exact) = self.bound(i, start);
        let own = self.places[i].end().unwrap_or(start).clamp(start, bound);
        let (tail, eot) = if exact {
            let tail = &self.full[own..bound];
            (tail, self.last_token(tail, silent))
        } else {
            self.agreed_tail(i, own..bound, silent)?
        };
        if let Some(eot) = eot {
            let eot = own + eot.start..own + eot.end;
            return Ok(Turn::new(start..eot.start, Some(eot)));
        }
        // No control token: what is written after the text ends the turn, but for the white space that separates turns.
        let end = own + tail.trim_end().len();
        Ok(Turn::new(start..own, (own < end).then_some(own..end)))
    }

    /// Where the model begins to write turn `i`, and whether the template ignores `add_generation_prompt`.
    fn start(&self, i: usize) -> Result<(usize, bool), Problem> {
        let before = &self.renderer.messages()[..i];
        let place = &self.places[i];
        let first = place.inside.map_or(self.full.len(), |p| p.0.min(place.content_start.unwrap_or(p.0)));
        let asks = self.renderer.template().names.contains("add_generation_prompt");
        let prompt = self.renderer.plain(before, true).ok();
        let bare = if asks { self.renderer.plain(before, false).ok() } else { prompt.clone() };
        // A template that ignores `add_generation_prompt` leaves the turn's header to be told apart.
        let silent = bare.is_some() && bare == prompt;
        if let Some(prompt) = &prompt {
            let at = self.full.starts_with(prompt.as_str()).then_some(prompt.len());
            // A prompt may write the beginning of the turn's own text (`<think>`), never all of it.
            let last = place.end().unwrap_or(self.full.len()).max(first);
            let at = at.or_else(|| self.after_same_tail(i, prompt)).filter(|at| *at <= last);
            if let Some(at) = at {
                let header = if silent {
                    self.header_without_prompt(i, prompt, self.full.get(at..first).unwrap_or_default())
                } else {
                    Some(0)
                };
                if let Some(header) = header {
                    return Ok((at + header, silent));
                }
            }
        }
        // The generation prompt without what it adds for generating only, last before the turn's own text.
        let after = i.checked_sub(1).map_or(Some(0), |j| self.places[j].end());
        if let (Some(prompt), Some(bare), Some(after)) = (&prompt, &bare, after)
            && place.inside.is_some()
            && after <= first
        {
            let same = prompt.bytes().zip(bare.bytes()).take_while(|(a, b)| a == b).count();
            let same = (0..=same).rev().find(|at| prompt.is_char_boundary(*at)).unwrap_or(0);
            for header in beginnings(&prompt[same..]).filter(|h| !h.is_empty()) {
                if let Some(at) = self.full[after..first].rfind(header) {
                    return Ok((after + at + header.len(), silent));
                }
            }
        }
        let plain = !place.has_calls && !self.messages[i].fields.contains_key("reasoning_content");
        match place.content_start.filter(|_| plain) {
            Some(start) => Ok((start, silent)),
            None => Err(self.inexact(i, "its beginning is not where the generation prompt ends")),
        }
    }

    /// Where turn `i` begins if the text from the end of the turn before it is the same here as in its prompt: right
    /// also where the template changes something further up.
    fn after_same_tail(&self, i: usize, prompt: &str) -> Option<usize> {
        let j = i.checked_sub(1)?;
        let here = self.places[j].end()?;
        let renderer = self.renderer.beginning(i);
        let places = markers::locate(&renderer, &self.messages[..i], prompt, true);
        let tail = &prompt[places.get(j)?.end()?..];
        (!tail.is_empty() && self.full[here..].starts_with(tail)).then_some(here + tail.len())
    }

    /// Length of the header that a template which ignores `add_generation_prompt` writes after `prompt`; `text` is what
    /// stands there before the turn's own text.
    fn header_without_prompt(&self, i: usize, prompt: &str, text: &str) -> Option<usize> {
        if text.trim().is_empty() {
            return Some(0);
        }
        let (open, close) = self.renderer.mark_sigils()?;
        let probe = format!("{open}{close}");
        let role = Value::from(self.messages[i].role.as_str());
        let dummy: Value = [("role", role), ("content", Value::from(probe.as_str()))]
            .into_iter()
            .map(|(k, v)| (Value::from(k), v))
            .collect();
        let mut messages = self.renderer.messages()[..i].to_vec();
        messages.push(dummy);
        let with = self.renderer.plain(&messages, false).ok()?;
        let header = with.strip_prefix(prompt)?.split_once(probe.as_str())?.0;
        match (text.starts_with(header), header.trim().is_empty()) {
            // Only white space, which a turn of another kind (tool calls) need not write.
            (_, true) => Some(0),
            (true, _) => Some(header.len()),
            _ => None,
        }
    }

    /// How far turn `i` can reach, and whether that is exactly its end.
    fn bound(&self, i: usize, start: usize) -> (usize, bool) {
        if i + 1 == self.messages.len() {
            return (self.full.len(), true);
        }
        let next = self.next_inside(i).max(start);
        match self.renderer.plain(&self.renderer.messages()[..=i], false) {
            Ok(upto) if upto.len() >= start && upto.len() <= next && self.full.starts_with(&upto) => {
                (upto.len(), true)
            }
            _ => (next, false),
        }
    }

    /// First position known to belong to a later message.
    fn next_inside(&self, i: usize) -> usize {
        let later =
            self.places[i + 1..].iter().filter_map(|p| p.inside.map(|x| p.content_start.unwrap_or(x.0)));
        later.min().unwrap_or(self.full.len())
    }

    /// Tokens that can end a turn, the configured ones first.
    fn ends(&self) -> impl Iterator<Item = &str> {
        let special = &self.renderer.template().special;
        let named = special.named.get("eos_token").into_iter();
        special.eot.iter().chain(named).chain(&special.control).map(String::as_str)
    }

    /// The end-of-turn token in `tail`, all of which the turn writes: a configured one, else the end-of-sequence
    /// token, else the last control token (there may be others, between tool calls say). A template that ignores
    /// `add_generation_prompt` may have written the next turn's header already: of its control tokens the first.
    fn last_token(&self, tail: &str, silent: bool) -> Option<Range<usize>> {
        let special = &self.renderer.template().special;
        let earliest = |tokens: &mut dyn Iterator<Item = &String>| {
            let found = tokens
                .filter(|t| !t.is_empty())
                .filter_map(|t| tail.find(t.as_str()).map(|at| at..at + t.len()));
            found.min_by_key(|r| (r.start, std::cmp::Reverse(r.end)))
        };
        let latest = || {
            let found = special.control.iter().filter(|t| !t.is_empty());
            found
                .filter_map(|t| tail.rfind(t.as_str()).map(|at| at..at + t.len()))
                .max_by_key(|r| (r.end, r.len()))
        };
        earliest(&mut special.eot.iter())
            .or_else(|| earliest(&mut special.named.get("eos_token").into_iter()))
            .or_else(|| if silent { earliest(&mut special.control.iter()) } else { latest() })
    }

    /// What follows turn `i`'s text (up to the next turn's, `range`) for certain, and its end-of-turn token, where the
    /// turn is rendered differently as the last one: only what both renderings have is believed.
    fn agreed_tail(
        &self,
        i: usize,
        range: Range<usize>,
        silent: bool,
    ) -> Result<(&str, Option<Range<usize>>), Problem> {
        let unclear = || self.inexact(i, "its end cannot be told from the turns after it");
        let renderer = self.renderer.beginning(i + 1);
        let alone = renderer.plain(renderer.messages(), false).map_err(|_| unclear())?;
        let places = markers::locate(&renderer, &self.messages[..=i], &alone, false);
        let end = places.get(i).and_then(Place::end).ok_or_else(unclear)?;
        let (here, there) = (&self.full[range], &alone[end..]);
        let same: usize =
            here.chars().zip(there.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
        let agreed = &here[..same];
        if let Some(token) = self.last_token(agreed, silent) {
            return Ok((agreed, Some(token)));
        }
        // Another control token at the same place: `<|end|>` here, `<|return|>` there.
        let token_at = |text: &str, at: usize| {
            self.ends().filter(|t| !t.is_empty() && text[at..].starts_with(*t)).map(str::len).max()
        };
        let variant = (0..=same).rev().take(64).filter(|at| here.is_char_boundary(*at)).find_map(|at| {
            let length = token_at(here, at).filter(|length| at + length > same)?;
            token_at(there, at)?;
            Some(at..at + length)
        });
        if variant.is_some() || there[same..].trim().is_empty() {
            return Ok((agreed, variant));
        }
        // The same token, but not at the same distance.
        let token = self.last_token(there, silent).and_then(|t| {
            let text = &there[t];
            here.find(text).map(|at| at..at + text.len())
        });
        token.map(|token| (here, Some(token))).ok_or_else(unclear)
    }

    /// All spans, sorted and merged.
    fn spans(&self, turns: Vec<(usize, Turn)>, train_on_eos: TrainOnEos) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        let count = turns.len();
        let mut ends: Vec<&str> = turns.iter().filter_map(|(_, t)| self.full.get(t.eot.clone()?)).collect();
        ends.extend(self.renderer.template().special.named.get("eos_token").map(String::as_str));
        ends.extend(self.renderer.template().special.eot.iter().map(String::as_str));
        if train_on_eos == TrainOnEos::All {
            for i in (0..self.messages.len()).filter(|&i| !self.messages[i].train) {
                let place = &self.places[i];
                let Some(own) = place.end() else { continue };
                let tail = &self.full[own..self.next_inside(i).max(own)];
                let found = ends.iter().filter(|e| !e.is_empty());
                let found = found.filter_map(|e| tail.find(e).map(|at| (at, e.len()))).min();
                spans.extend(found.map(|(at, len)| own + at..own + at + len));
            }
        }
        for (n, (_, turn)) in turns.into_iter().enumerate() {
            let with_eot = match train_on_eos {
                TrainOnEos::All | TrainOnEos::Turn => true,
                TrainOnEos::Last => n + 1 == count,
                TrainOnEos::None => false,
            };
            for part in turn.parts {
                match &turn.eot {
                    Some(eot) if !with_eot && eot.start < part.end => spans.push(part.start..eot.start),
                    _ => spans.push(part),
                }
            }
            if with_eot && let Some(eot) = turn.eot {
                // What is between the turn's text and its end token is written by the model too.
                let from = spans.last().map_or(eot.start, |s| s.end.min(eot.start));
                spans.push(from..eot.end);
            }
        }
        spans.retain(|s| s.start < s.end);
        spans.sort_by_key(|s| (s.start, s.end));
        let mut merged: Vec<Range<usize>> = Vec::new();
        for span in spans {
            match merged.last_mut().filter(|last| last.end >= span.start) {
                Some(last) => last.end = last.end.max(span.end),
                None => merged.push(span),
            }
        }
        merged
    }
}

/// Beginnings of a generation prompt, longest first: all of it, and all before a tag inside it (`<think>`), which a
/// template adds for generating but takes out of earlier turns.
fn beginnings(header: &str) -> impl Iterator<Item = &str> {
    let tag = |&(i, c): &(usize, char)| i > 0 && (c == '<' || c == '[');
    let cuts: Vec<usize> = header.char_indices().filter(tag).map(|(i, _)| i).collect();
    std::iter::once(header).chain(cuts.into_iter().rev().map(move |i| &header[..i]))
}
