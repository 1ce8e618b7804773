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

/// Text of the row and the spans the loss covers.
pub(super) fn render(
    renderer: &Renderer,
    messages: &[Message],
    options: &RenderOptions,
) -> Result<(String, Vec<Range<usize>>), Problem> {
    let full = renderer.plain(renderer.messages(), false)?;
    let places = markers::locate(renderer, messages, &full);
    check_nothing_left_out(renderer, messages, &places)?;
    let masker = Masker { renderer, messages, full: &full, places: &places };
    let mut turns: Vec<(usize, Turn)> = Vec::new();
    let blocks = masker.generation_blocks();
    for i in (0..messages.len()).filter(|&i| messages[i].train) {
        let turn = match blocks.as_ref().and_then(|b| b.get(i)).filter(|b| !b.is_empty()) {
            Some(blocks) => masker.marked_turn(i, blocks),
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

/// Tools, turns and tool calls must be in the text: what is silently dropped is silently not learnt.
fn check_nothing_left_out(
    renderer: &Renderer,
    messages: &[Message],
    places: &[Place],
) -> Result<(), Problem> {
    if renderer.has_tools() && !renderer.template().uses_tools() {
        return Err(Problem::LeftOut("the tool definitions (`tools`)".into()));
    }
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

    /// A turn whose text the template marked: its blocks as they are, with the end-of-turn token if it is in the last
    /// one or follows it at once.
    fn marked_turn(&self, i: usize, blocks: &[Range<usize>]) -> Turn {
        let end = blocks.last().map_or(0, |b| b.end);
        let start = blocks.last().map_or(0, |b| b.start);
        let from = self.places[i].content_end.unwrap_or(start).clamp(start, end);
        let bound = self.next_inside(i).max(end);
        let eot = self
            .end_of_turn(from..bound, false)
            .filter(|eot| eot.start < end || self.full[end..eot.start].trim().is_empty());
        Turn { parts: blocks.to_vec(), eot }
    }

    fn turn(&self, i: usize) -> Result<Turn, Problem> {
        let start = self.start(i)?;
        let place = &self.places[i];
        let (bound, exact) = self.bound(i, start);
        let own = if place.has_calls { place.inside.map(|p| p.1) } else { place.content_end };
        let own = own.unwrap_or(start).clamp(start, bound);
        if let Some(eot) = self.end_of_turn(own..bound, exact && place.has_calls) {
            return Ok(Turn { parts: vec![start..eot.start], eot: Some(eot) });
        }
        // No control token ends the turn: its text ends where only white space is left.
        let end = if exact { bound } else { own + self.agreed_tail(i, own)? };
        let end = own + self.full[own..end].trim_end().len();
        let written = if self.full[own..end].trim().is_empty() { None } else { Some(own..end) };
        let own = if written.is_some() { own } else { end };
        Ok(Turn { parts: vec![start..own], eot: written })
    }

    /// Where the model begins to write turn `i`.
    fn start(&self, i: usize) -> Result<usize, Problem> {
        let before = &self.renderer.messages()[..i];
        let place = &self.places[i];
        let first = place.inside.map_or(self.full.len(), |p| p.0.min(place.content_start.unwrap_or(p.0)));
        let asks = self.renderer.template().names.contains("add_generation_prompt");
        let prompt = self.renderer.plain(before, true).ok();
        let bare = if asks { self.renderer.plain(before, false).ok() } else { prompt.clone() };
        if let Some(prompt) = prompt.as_deref().filter(|p| p.len() <= first && self.full.starts_with(*p)) {
            // A template that ignores `add_generation_prompt` leaves the turn's header to be told apart.
            if bare.as_deref() != Some(prompt) || self.full[prompt.len()..first].trim().is_empty() {
                return Ok(prompt.len());
            }
            if place.inside.is_some()
                && let Some(header) = self.header_without_prompt(i, prompt)
            {
                return Ok(prompt.len() + header);
            }
        }
        // The generation prompt's own text, last before the turn's own text and after the turn before.
        let after = (0..i).rev().find_map(|j| self.places[j].inside).map_or(0, |p| p.1);
        if let (Some(prompt), Some(bare)) = (&prompt, &bare)
            && let Some(header) = prompt.strip_prefix(bare.as_str()).filter(|h| !h.is_empty())
            && place.inside.is_some()
            && after <= first
        {
            for header in beginnings(header) {
                if let Some(at) = self.full[after..first].rfind(header) {
                    return Ok(after + at + header.len());
                }
            }
        }
        let plain = !place.has_calls && !self.messages[i].fields.contains_key("reasoning_content");
        match place.content_start.filter(|_| plain) {
            Some(start) => Ok(start),
            None => Err(self.inexact(i, "its beginning is not where the generation prompt ends")),
        }
    }

    /// Length of the header that a template which ignores `add_generation_prompt` writes after `prompt`.
    fn header_without_prompt(&self, i: usize, prompt: &str) -> Option<usize> {
        let (open, close) = self.renderer.mark_sigils()?;
        let probe = format!("{open}{close}");
        let role = Value::from(self.messages[i].role.as_str());
        let dummy: Value = [("role", role), ("content", Value::from(probe.as_str()))]
            .into_iter()
            .map(|(k, v)| (Value::from(k), v))
            .collect();
        let mut messages = self.renderer.messages()[..i].to_vec();
        messages.push(dummy);
        let text = self.renderer.plain(&messages, false).ok()?;
        let header = text.strip_prefix(prompt)?.split_once(probe.as_str())?.0;
        self.full[prompt.len()..].starts_with(header).then_some(header.len())
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

    /// The end-of-turn token within `range`. `last`: what is between tool calls may be control tokens too, so the
    /// last one ends the turn.
    fn end_of_turn(&self, range: Range<usize>, last: bool) -> Option<Range<usize>> {
        let tail = &self.full[range.clone()];
        let special = &self.renderer.template().special;
        let earliest = |tokens: &mut dyn Iterator<Item = &String>| {
            tokens
                .filter(|t| !t.is_empty())
                .filter_map(|t| tail.find(t.as_str()).map(|at| (at, std::cmp::Reverse(t.len()))))
                .min()
                .map(|(at, len)| at..at + len.0)
        };
        let place = |r: Range<usize>| range.start + r.start..range.start + r.end;
        if let Some(found) = earliest(&mut special.eot.iter()) {
            return Some(place(found));
        }
        let eos = special.named.get("eos_token");
        if last {
            let eos = earliest(&mut eos.into_iter());
            let latest = || {
                let found = special.control.iter().filter(|t| !t.is_empty());
                found.filter_map(|t| tail.rfind(t.as_str()).map(|at| at..at + t.len())).max_by_key(|r| r.end)
            };
            return eos.or_else(latest).map(place);
        }
        let first = earliest(&mut special.control.iter().chain(eos))?;
        // `<|END_RESPONSE|><|END_OF_TURN|>`: control tokens in one run up to the end-of-sequence token.
        let mut end = first.end;
        while let Some(eos) = eos {
            if tail[..end].ends_with(eos.as_str()) {
                return Some(place(first.start..end));
            }
            let next = special.control.iter().chain([eos]).filter(|t| !t.is_empty());
            match next.filter(|t| tail[end..].starts_with(t.as_str())).map(String::len).max() {
                Some(length) => end += length,
                None => break,
            }
        }
        Some(place(first))
    }

    /// Bytes after `own` that turn `i` has both here and as the last turn of its own rendering.
    fn agreed_tail(&self, i: usize, own: usize) -> Result<usize, Problem> {
        let unclear =
            || self.inexact(i, "no control token follows its text, and later turns change its rendering");
        let alone = self.renderer.plain(&self.renderer.messages()[..=i], false).map_err(|_| unclear())?;
        let alone_places = {
            let renderer = self.renderer.beginning(&self.messages[..=i]);
            markers::locate(&renderer, &self.messages[..=i], &alone)
        };
        let place = alone_places.get(i).ok_or_else(unclear)?;
        let end = if place.has_calls { place.inside.map(|p| p.1) } else { place.content_end };
        let end = end.ok_or_else(unclear)?;
        let same = alone[end..].chars().zip(self.full[own..].chars()).take_while(|(a, b)| a == b);
        Ok(same.map(|(c, _)| c.len_utf8()).sum())
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
                let own = place.content_end.or(place.inside.map(|p| p.1));
                let Some(own) = own else { continue };
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
