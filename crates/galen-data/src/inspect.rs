//! `galen data inspect`: a door's contents as text for a terminal. What is trained is green (without colour: between
//! `[+` and `+]`), the rest dim, special tokens magenta.

use galen_types::{PackedBatch, Rendered, TextEncoder, Tokenized};
use std::collections::HashSet;
use std::fmt::Write;

const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const MAGENTA: &str = "\x1b[35m";
const GREEN_SPECIAL: &str = "\x1b[1;32m";
const RESET: &str = "\x1b[0m";

/// The text the model sees, supervised spans marked.
pub fn rendered(row: &Rendered, color: bool) -> String {
    let mut out = Painter::new(color);
    out.head(&row.origin().to_string());
    let mut at = 0;
    for span in row.spans() {
        out.text(&row.text()[at..span.start], false, false);
        out.text(&row.text()[span.clone()], true, false);
        at = span.end;
    }
    out.text(&row.text()[at..], false, false);
    if row.append_eos() {
        let supervised = row.spans().last().is_some_and(|s| s.end == row.text().len());
        out.text("(end-of-sequence token)", supervised, true);
    }
    out.end()
}

/// The tokens, a bar between them, supervised ones marked.
pub fn tokenized(row: &Tokenized, encoder: &dyn TextEncoder, color: bool) -> String {
    let mut out = Painter::new(color);
    out.head(&format!(
        "{}  row {}  {} tokens, {} supervised",
        row.origin(),
        row.row(),
        row.ids().len(),
        row.supervised_tokens()
    ));
    for (id, supervised) in row.ids().iter().zip(row.mask()) {
        out.token(*id, *supervised, encoder);
    }
    out.end()
}

/// The segments, each with its place, parent and tokens. A token is marked where some row is trained to predict it.
pub fn packed(batch: &PackedBatch, encoder: &dyn TextEncoder, color: bool) -> String {
    let targets: HashSet<(u32, u32)> = batch.targets().iter().map(|t| (t.index, t.token)).collect();
    let mut out = Painter::new(color);
    out.head(&format!(
        "{} tokens, {} segments, {} targets",
        batch.ids().len(),
        batch.segments().len(),
        batch.targets().len()
    ));
    for (i, segment) in batch.segments().iter().enumerate() {
        let parent = segment.parent.map_or(String::new(), |p| format!(" after segment {p}"));
        let row = batch.rows()[segment.start as usize];
        out.head(&format!(
            "segment {i}{parent}  row {row}  position {}  {} tokens",
            segment.position, segment.len
        ));
        // The hidden state before a segment's first token is the last one of its parent.
        let mut before = segment.parent.and_then(|p| {
            let p = batch.segments()[p as usize];
            (p.start + p.len).checked_sub(1)
        });
        for index in segment.start..segment.start + segment.len {
            let id = batch.ids()[index as usize];
            out.token(id, before.is_some_and(|b| targets.contains(&(b, id))), encoder);
            before = Some(index);
        }
        out.newline();
    }
    out.end()
}

struct Painter {
    out: String,
    color: bool,
}

impl Painter {
    fn new(color: bool) -> Self {
        Self { out: String::new(), color }
    }

    fn head(&mut self, text: &str) {
        let text = visible(text);
        let _ = if self.color {
            writeln!(self.out, "\x1b[1m{text}{RESET}")
        } else {
            writeln!(self.out, "{text}")
        };
    }

    fn text(&mut self, text: &str, supervised: bool, special: bool) {
        if text.is_empty() {
            return;
        }
        let text = visible(text);
        let _ = match (self.color, supervised) {
            (true, _) => {
                let paint = match (supervised, special) {
                    (true, true) => GREEN_SPECIAL,
                    (true, false) => GREEN,
                    (false, true) => MAGENTA,
                    (false, false) => DIM,
                };
                write!(self.out, "{paint}{text}{RESET}")
            }
            (false, true) => write!(self.out, "[+{text}+]"),
            (false, false) => write!(self.out, "{text}"),
        };
    }

    fn token(&mut self, id: u32, supervised: bool, encoder: &dyn TextEncoder) {
        let text = encoder.decode(&[id], false).unwrap_or_else(|_| format!("(id {id})"));
        let special = encoder.decode(&[id], true).is_ok_and(|t| t.is_empty() && !text.is_empty());
        let shown = if text.is_empty() { format!("(id {id})") } else { text };
        self.text(&shown, supervised, special);
        self.out.push('|');
    }

    fn newline(&mut self) {
        self.out.push('\n');
    }

    fn end(mut self) -> String {
        if !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        self.out
    }
}

/// Control characters made visible: data must not be able to steer the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\x7f' => '\u{2421}',
            c if c < ' ' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests;
