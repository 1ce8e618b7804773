//! Python literals: what a Jinja template renders a list to, and how such text is read back.
//!
//! `doc_to_choice: "{{choices.text}}"` renders to `['a', "it's"]` in Python, which the harness reads with
//! `ast.literal_eval`. Both halves live here, so that templates written for it give the same lists.

use minijinja::value::{Value, ValueKind};
use std::fmt::Write as _;

/// Nesting deeper than this is not a list of choices.
const MAX_DEPTH: usize = 32;

/// `str(value)` as Python writes it.
pub(crate) fn python_str(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let mut out = String::new();
    write_repr(value, &mut out, 0);
    out
}

fn write_repr(value: &Value, out: &mut String, depth: usize) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    let items = |out: &mut String| {
        for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_repr(&item, out, depth + 1);
            if value.kind() == ValueKind::Map {
                out.push_str(": ");
                write_repr(&value.get_item(&item).unwrap_or_default(), out, depth + 1);
            }
        }
    };
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            items(out);
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            items(out);
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Reads a Python (or JSON) literal: strings, numbers, `True`/`False`/`None`, lists and tuples of those.
/// `None` when the text is anything else.
pub(crate) fn parse(text: &str) -> Option<serde_json::Value> {
    let mut reader = Reader { rest: text.trim() };
    let value = reader.value(0)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn next_char(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn value(&mut self, depth: usize) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        self.skip_space();
        match self.rest.chars().next()? {
            '[' | '(' if depth < MAX_DEPTH => self.sequence(depth),
            '\'' | '"' => {
                let mut text = self.string()?;
                // Neighbouring literals are one string, as in Python.
                self.skip_space();
                while self.rest.starts_with(['\'', '"']) {
                    text.push_str(&self.string()?);
                    self.skip_space();
                }
                Some(Json::String(text))
            }
            _ => {
                let end = self
                    .rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
                    .unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word {
                    "True" | "true" => Some(Json::Bool(true)),
                    "False" | "false" => Some(Json::Bool(false)),
                    "None" | "null" => Some(Json::Null),
                    _ => word.parse::<i64>().map(Json::from).ok().or_else(|| number(word)),
                }
            }
        }
    }

    fn sequence(&mut self, depth: usize) -> Option<serde_json::Value> {
        let close = if self.next_char()? == '[' { "]" } else { ")" };
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.eat(close) {
                return Some(serde_json::Value::Array(items));
            }
            if !items.is_empty() {
                if !self.eat(",") {
                    return None;
                }
                self.skip_space();
                if self.eat(close) {
                    return Some(serde_json::Value::Array(items));
                }
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.next_char()?;
        let mut out = String::new();
        loop {
            match self.next_char()? {
                c if c == quote => return Some(out),
                '\\' => self.escape(&mut out)?,
                '\n' => return None,
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let digits = match self.next_char()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            simple => {
                match simple {
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    '0' => out.push('\0'),
                    '\\' | '\'' | '"' | '/' => out.push(simple),
                    '\n' => {}
                    other => out.extend(['\\', other]),
                }
                return Some(());
            }
        };
        let code = u32::from_str_radix(self.rest.get(..digits)?, 16).ok()?;
        self.rest = &self.rest[digits..];
        out.push(char::from_u32(code)?);
        Some(())
    }
}

fn number(word: &str) -> Option<serde_json::Value> {
    if !word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    serde_json::Number::from_f64(word.parse().ok()?).map(serde_json::Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_survive_the_way_through_text() {
        for list in [
            json!(["a", "it's", "say \"hi\"", "both ' and \"", "new\nline", "é\u{1}\\"]),
            json!([]),
            json!([1, -2, 0.5, true, false, null, ["x", ["y"]]]),
        ] {
            let text = python_str(&Value::from_serialize(&list));
            assert_eq!(parse(&text), Some(list), "{text}");
        }
    }

    #[test]
    fn python_writes_it_so() {
        let value = Value::from_serialize(json!(["a", "it's", "b'\"", {"k": [null, true]}]));
        assert_eq!(python_str(&value), r#"['a', "it's", 'b\'"', {'k': [None, True]}]"#);
        assert_eq!(python_str(&Value::from("it's")), "it's");
    }

    #[test]
    fn fuzz() {
        let inputs = galen_testkit::fuzz::run("literal", &galen_testkit::fuzz::corpus("literal"), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            // What is read is written and read back the same (floats aside: JSON has fewer spellings).
            if let Some(value) = parse(&text).filter(|v| !v.to_string().contains(['.', 'e'])) {
                let written = python_str(&Value::from_serialize(&value));
                assert!(
                    value.is_string() || parse(&written).as_ref() == Some(&value),
                    "{text:?} {written:?}"
                );
            }
        });
        println!("literal: {inputs} inputs");
    }

    #[test]
    fn other_spellings() {
        assert_eq!(parse(r#" ("a", 'b' "c",) "#), Some(json!(["a", "bc"])));
        assert_eq!(parse(r#"["\u00e9\x41"]"#), Some(json!(["éA"])));
        assert_eq!(parse("[1 2]"), None);
        assert_eq!(parse("['a'"), None);
        assert_eq!(parse("[,]"), None);
        assert_eq!(parse("['\\u00']"), None);
        assert_eq!(parse("['\\xé']"), None);
        assert_eq!(parse("__import__('os')"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse(&"[".repeat(1_000_000)), None);
    }
}
