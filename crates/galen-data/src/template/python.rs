//! Python's way of writing values: `str()`, `repr()` and `json.dumps`, as Hugging Face templates see them.

use super::limits::{self, MAX_DEPTH};
use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write as _;

/// `str(value)`: text as it is, `True`, `None`, lists and dicts by `repr`. Undefined is empty.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_string());
    }
    let mut out = String::new();
    if !value.is_undefined() {
        repr(value, &mut out, 0)?;
    }
    Ok(out)
}

/// `markupsafe.escape`.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

fn too_deep() -> Error {
    limits::refused("a value is nested too deeply to be written")
}

fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out, false),
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&item, out, depth + 1)?;
                limits::charge(4)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
                limits::charge(4)?;
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if unprintable(c) => {
                let code = c as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// The separators, controls, formats and private-use characters that Python's `repr` escapes (not unassigned ones).
fn unprintable(c: char) -> bool {
    matches!(c as u32,
        0..=0x1f | 0x7f..=0xa0 | 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x1680 | 0x180e
        | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x2064 | 0x2066..=0x206f | 0x3000
        | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xf0000..=0x10_ffff)
}

/// `repr` of a number; `json` writes infinities and NaN as `json.dumps` does.
fn number(value: &Value, out: &mut String, json: bool) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let Ok(x) = f64::try_from(value.clone()) else {
        let _ = write!(out, "{value}");
        return;
    };
    if x.is_nan() {
        out.push_str(if json { "NaN" } else { "nan" });
    } else if x.is_infinite() {
        out.push_str(if x < 0.0 { "-" } else { "" });
        out.push_str(if json { "Infinity" } else { "inf" });
    } else {
        // Shortest digits that read back the same, laid out as Python does: exponents below -4 or from 16 up.
        let scientific = format!("{x:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..16).contains(&exponent) {
            let plain = format!("{x}");
            let whole = !plain.contains('.');
            out.push_str(&plain);
            if whole {
                out.push_str(".0");
            }
        } else {
            let sign = if exponent < 0 { '-' } else { '+' };
            let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
        }
    }
}

/// How `json.dumps` lays its text out.
struct Layout {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// Hugging Face's `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands the rest of the arguments over by value")]
pub(super) fn tojson(value: &Value, rest: Rest<Value>) -> Result<Value, Error> {
    type Positional = Option<Value>;
    let (ensure_ascii, indent, separators, sort_keys, kwargs): (
        Positional,
        Positional,
        Positional,
        Positional,
        Kwargs,
    ) = from_args(&rest)?;
    let argument = |positional: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(named.or(positional).filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let ascii = argument(ensure_ascii, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = match argument(indent, "indent")? {
        None => None,
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(limits::count(v.as_i64().unwrap_or(0).max(0) as usize)?),
        }),
    };
    let separators = argument(separators, "separators")?;
    let sort_keys = argument(sort_keys, "sort_keys")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let part = |i: usize| -> Result<Option<String>, Error> {
        let Some(pair) = &separators else { return Ok(None) };
        Ok(pair.get_item_by_index(i)?.as_str().map(str::to_string))
    };
    let item_separator = part(0)?.unwrap_or_else(|| if indent.is_some() { "," } else { ", " }.to_string());
    let key_separator = part(1)?.unwrap_or_else(|| ": ".to_string());
    let layout = Layout { ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    write_json(value, &layout, &mut out, 0)?;
    limits::charge(out.len())?;
    Ok(Value::from(out))
}

fn write_json(value: &Value, layout: &Layout, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if out.len() > limits::MAX_OUTPUT_BYTES {
        return Err(limits::refused("the JSON text is too long"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => number(value, out, true),
        ValueKind::String => json_text(value.as_str().unwrap_or_default(), layout.ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut empty = true;
            out.push('[');
            for item in value.try_iter()? {
                separate(layout, out, depth + 1, empty);
                empty = false;
                write_json(&item, layout, out, depth + 1)?;
            }
            close(layout, out, depth, empty, ']');
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sort_keys {
                keys.sort();
            }
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                separate(layout, out, depth + 1, i == 0);
                if let Some(text) = key.as_str() {
                    json_text(text, layout.ascii, out);
                } else {
                    out.push('"');
                    write_json(key, layout, out, depth + 1)?;
                    out.push('"');
                }
                out.push_str(&layout.key_separator);
                write_json(&value.get_item(key)?, layout, out, depth + 1)?;
            }
            close(layout, out, depth, keys.is_empty(), '}');
        }
        kind => {
            let what = format!("a value of type {kind} cannot be written as JSON");
            return Err(Error::new(ErrorKind::BadSerialization, what));
        }
    }
    Ok(())
}

fn separate(layout: &Layout, out: &mut String, depth: usize, first: bool) {
    if !first {
        out.push_str(&layout.item_separator);
    }
    new_line(layout, out, depth);
}

fn close(layout: &Layout, out: &mut String, depth: usize, empty: bool, bracket: char) {
    if !empty {
        new_line(layout, out, depth);
    }
    out.push(bracket);
}

fn new_line(layout: &Layout, out: &mut String, depth: usize) {
    if let Some(indent) = &layout.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn json_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (x, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-2.5e100, "-2.5e+100"),
            (-0.0, "-0.0"),
        ] {
            let mut out = String::new();
            number(&Value::from(x), &mut out, false);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn repr_follows_python() {
        limits::start(0);
        let value =
            Value::from_serialize(serde_json::json!({"a": [1, true, null, "it's", "q\"'\n"], "b": 1.0}));
        assert_eq!(text(&value).expect("text"), r#"{'a': [1, True, None, "it's", 'q"\'\n'], 'b': 1.0}"#);
    }
}
