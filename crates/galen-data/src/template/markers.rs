//! Where a message's own text lands in the rendered text: unique marks put inside it, found, and taken out again.
//!
//! A mark is only believed if the marked rendering without its marks is the real rendering, byte for byte.

use super::filters::is_space;
use super::renderer::{Renderer, message_value};
use galen_types::Message;
use minijinja::Value;
use serde_json::{Map, Value as Json};
use std::ops::Range;

/// Where in a text a mark is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Middle,
    End,
    Start,
}

/// A string of a message that can carry a mark.
#[derive(Debug, Clone)]
struct Spot {
    /// JSON pointer within the message.
    pointer: String,
    text: String,
    /// Part of this tool call; `None` for content.
    call: Option<usize>,
}

/// What is known of one message's place in the rendered text.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Its content's own bytes; each end only where it could be verified.
    pub content_start: Option<usize>,
    /// End of the content.
    pub content_end: Option<usize>,
    /// First and last byte position known to lie inside the message's text.
    pub inside: Option<(usize, usize)>,
    /// What the message says that the rendered text does not: the content, or a tool call's number.
    pub missing: Vec<Missing>,
    /// Whether the message holds tool calls.
    pub has_calls: bool,
}

/// A part of a message that is not in the rendered text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Content,
    Call(usize),
}

/// Finds every message of the row in `full`, its rendering with or without generation prompt.
pub(super) fn locate(renderer: &Renderer, messages: &[Message], full: &str, prompt: bool) -> Vec<Place> {
    let spots: Vec<Vec<Spot>> = messages.iter().map(|m| spots(&m.fields)).collect();
    let mut places: Vec<Place> = messages
        .iter()
        .map(|m| Place { has_calls: !calls(&m.fields).is_empty(), ..Place::default() })
        .collect();
    let Some(sigils) = renderer.mark_sigils() else { return places };
    // Everything marked at once: right for nearly every template, and one rendering.
    let all: Vec<usize> = (0..messages.len()).collect();
    if let Some(found) = marked(renderer, messages, &spots, &all, Cut::Middle, prompt, sigils)
        && found.text == full
    {
        for (i, place) in places.iter_mut().enumerate() {
            place.note(full, &spots[i], found.of(i), Cut::Middle);
            place.missing = missing(&spots[i], &[found.of(i)]);
        }
        return places;
    }
    // Some text is looked into by the template: one message at a time, in several places.
    for (i, place) in places.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for cut in [Cut::Middle, Cut::End, Cut::Start] {
            let Some(found) = marked(renderer, messages, &spots, &[i], cut, prompt, sigils) else { continue };
            let marks: Vec<(usize, usize)> = found.of(i).to_vec();
            let exact = found.text == full;
            if exact && !marks.is_empty() {
                place.note(full, &spots[i], &marks, cut);
            }
            seen.push(marks);
            if exact && place.inside.is_some() && missing(&spots[i], &as_slices(&seen)).is_empty() {
                break;
            }
        }
        if !seen.is_empty() {
            place.missing = missing(&spots[i], &as_slices(&seen));
        }
    }
    places
}

fn as_slices(seen: &[Vec<(usize, usize)>]) -> Vec<&[(usize, usize)]> {
    seen.iter().map(Vec::as_slice).collect()
}

/// Parts with a spot that no rendering shows.
fn missing(spots: &[Spot], renderings: &[&[(usize, usize)]]) -> Vec<Missing> {
    let mut parts: Vec<Option<usize>> = spots.iter().map(|s| s.call).collect();
    parts.dedup();
    let shown = |part: Option<usize>| {
        let of_part = |(spot, _): &(usize, usize)| spots.get(*spot).is_some_and(|s| s.call == part);
        renderings.iter().any(|marks| marks.iter().any(of_part))
    };
    let hidden = parts.into_iter().filter(|part| !shown(*part));
    hidden.map(|part| part.map_or(Missing::Content, Missing::Call)).collect()
}

impl Place {
    /// Where its own text ends: the content, or the last that is known of a tool call.
    pub(super) fn end(&self) -> Option<usize> {
        if self.has_calls { self.inside.map(|p| p.1) } else { self.content_end }
    }

    /// Takes over marks `(spot, position in full)` of a verified rendering.
    fn note(&mut self, full: &str, spots: &[Spot], marks: &[(usize, usize)], cut: Cut) {
        for &(spot, at) in marks {
            let (first, last) = self.inside.unwrap_or((at, at));
            self.inside = Some((first.min(at), last.max(at)));
            let once = marks.iter().filter(|(s, _)| *s == spot).count() == 1;
            let Some(spot) = spots.get(spot).filter(|s| s.call.is_none() && once) else { continue };
            let Some(cut_at) = cut_position(&spot.text, cut) else { continue };
            let (before, after) = spot.text.split_at(cut_at);
            let (head, tail) = full.split_at(at);
            let start = [before, before.trim_start_matches(is_space)].into_iter().find(|b| head.ends_with(b));
            let end = [after, after.trim_end_matches(is_space)].into_iter().find(|a| tail.starts_with(a));
            if let Some(start) = start {
                let start = at - start.len();
                self.content_start = Some(self.content_start.map_or(start, |s| s.min(start)));
            }
            if let Some(end) = end {
                let end = at + end.len();
                self.content_end = Some(self.content_end.map_or(end, |e| e.max(end)));
            }
        }
    }
}

/// A marked rendering without its marks, and where they were.
struct Found {
    text: String,
    /// (message, spot, position)
    marks: Vec<Vec<(usize, usize)>>,
}

impl Found {
    fn of(&self, message: usize) -> &[(usize, usize)] {
        self.marks.get(message).map_or(&[], Vec::as_slice)
    }
}

/// Renders with marks in the messages `which`. `None`: that cannot be rendered.
fn marked(
    renderer: &Renderer,
    messages: &[Message],
    spots: &[Vec<Spot>],
    which: &[usize],
    cut: Cut,
    prompt: bool,
    (open, close): (char, char),
) -> Option<Found> {
    let mut values: Vec<Value> = renderer.messages().to_vec();
    for &m in which {
        let mut json = Json::Object(messages[m].fields.clone());
        let mut any = false;
        for (s, spot) in spots[m].iter().enumerate() {
            let Some(at) = cut_position(&spot.text, cut) else { continue };
            let (before, after) = spot.text.split_at(at);
            if let Some(slot) = json.pointer_mut(&spot.pointer) {
                *slot = Json::String(format!("{before}{open}{m},{s}{close}{after}"));
                any = true;
            }
        }
        if let (true, Json::Object(map)) = (any, json) {
            values[m] = message_value(&map);
        }
    }
    let rendered = renderer.plain(&values, prompt).ok()?;
    let mut found =
        Found { text: String::with_capacity(rendered.len()), marks: vec![Vec::new(); messages.len()] };
    let mut rest = rendered.as_str();
    while let Some((before, after)) = rest.split_once(open) {
        found.text.push_str(before);
        let (mark, after) = after.split_once(close)?;
        let (m, s) = mark.split_once(',')?;
        found.marks.get_mut(m.parse::<usize>().ok()?)?.push((s.parse().ok()?, found.text.len()));
        rest = after;
    }
    found.text.push_str(rest);
    Some(found)
}

/// Strings of a message that a template is expected to show.
fn spots(fields: &Map<String, Json>) -> Vec<Spot> {
    let mut out = Vec::new();
    let mut add = |pointer: String, text: &str, call: Option<usize>| {
        if cut_position(text, Cut::Middle).is_some() {
            out.push(Spot { pointer, text: text.to_string(), call });
        }
    };
    match fields.get("content") {
        Some(Json::String(text)) => add("/content".into(), text, None),
        Some(Json::Array(parts)) => {
            for (i, part) in parts.iter().enumerate() {
                if let Some(text) = part.get("text").and_then(Json::as_str) {
                    add(format!("/content/{i}/text"), text, None);
                }
            }
        }
        _ => {}
    }
    for (i, call) in calls(fields).iter().enumerate() {
        let (function, at) = match call.get("function") {
            Some(function) => (function, format!("/tool_calls/{i}/function")),
            None => (call, format!("/tool_calls/{i}")),
        };
        if let Some(name) = function.get("name").and_then(Json::as_str) {
            add(format!("{at}/name"), name, Some(i));
        }
        match function.get("arguments") {
            Some(Json::String(text)) => add(format!("{at}/arguments"), text, Some(i)),
            Some(Json::Object(arguments)) => {
                for (key, value) in arguments {
                    if let Some(text) = value.as_str() {
                        let key = key.replace('~', "~0").replace('/', "~1");
                        add(format!("{at}/arguments/{key}"), text, Some(i));
                    }
                }
            }
            _ => {}
        }
    }
    out
}

fn calls(fields: &Map<String, Json>) -> &[Json] {
    fields.get("tool_calls").and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// Byte position for a mark: never next to outer white space (templates trim it). `None`: nothing but white space.
fn cut_position(text: &str, cut: Cut) -> Option<usize> {
    let inner = inner(text);
    if inner.is_empty() {
        return None;
    }
    Some(match cut {
        Cut::Start => inner.start,
        Cut::End => inner.end,
        Cut::Middle => middle(text, inner),
    })
}

fn inner(text: &str) -> Range<usize> {
    let start = text.len() - text.trim_start_matches(is_space).len();
    let end = text.trim_end_matches(is_space).len();
    start..end.max(start)
}

/// A place inside a word near the middle, outside any `<tag>`: what templates look for in a text is at its ends, or
/// a tag, or a line end.
fn middle(text: &str, inner: Range<usize>) -> usize {
    let mut half = inner.start + inner.len() / 2;
    while !text.is_char_boundary(half) {
        half += 1;
    }
    let mut previous = text[..half].chars().next_back();
    let mut in_tag = match (text[..half].rfind('<'), text[..half].rfind('>')) {
        (Some(open), close) => close.is_none_or(|close| close < open) && half - open < 64,
        _ => false,
    };
    for (i, c) in text[half..inner.end].char_indices().take(256) {
        if !in_tag
            && c.is_alphanumeric()
            && previous.is_some_and(char::is_alphanumeric)
            && half + i > inner.start
        {
            return half + i;
        }
        in_tag = if c == '<' { true } else { in_tag && c != '>' };
        previous = Some(c);
    }
    half.clamp(inner.start, inner.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_clear_of_tags_and_outer_space() {
        for (text, cut, expected) in [
            ("  hello ", Cut::Start, Some(2)),
            ("  hello ", Cut::End, Some(7)),
            ("  hello ", Cut::Middle, Some(4)),
            (" \n\t", Cut::Middle, None),
            ("", Cut::End, None),
            ("x", Cut::Middle, Some(0)),
            ("ab<think>cd", Cut::Middle, Some(10)),
        ] {
            assert_eq!(cut_position(text, cut), expected, "{text:?} {cut:?}");
        }
    }
}
