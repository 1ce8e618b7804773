//! JSON values as block YAML.

use serde_json::Value;
use std::fmt::Write as _;

/// Writes `key: value` at the left margin.
pub fn entry(out: &mut String, key: &str, value: &Value) {
    write(out, key, value, 0);
}

fn write(out: &mut String, key: &str, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    let key = scalar(&Value::from(key));
    match value {
        Value::Object(map) if !map.is_empty() => {
            let _ = writeln!(out, "{pad}{key}:");
            for (k, v) in map {
                write(out, k, v, indent + 2);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let _ = writeln!(out, "{pad}{key}:");
            for item in items {
                list_item(out, item, indent + 2);
            }
        }
        _ => {
            let _ = writeln!(out, "{pad}{key}: {}", flow(value));
        }
    }
}

fn list_item(out: &mut String, item: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    let Value::Object(map) = item else {
        let _ = writeln!(out, "{pad}- {}", flow(item));
        return;
    };
    // The first key shares the dash's line: write the map two deeper, then put the dash into its margin.
    let mut inner = String::new();
    for (k, v) in map {
        write(&mut inner, k, v, indent + 2);
    }
    match inner.strip_prefix(&format!("{pad}  ")) {
        Some(rest) => {
            let _ = write!(out, "{pad}- {rest}");
        }
        None => {
            let _ = writeln!(out, "{pad}- {{}}");
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let parts: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", scalar(&Value::from(k.as_str())), flow(v)))
                .collect();
            format!("{{{}}}", parts.join(", "))
        }
        _ => scalar(value),
    }
}

/// A scalar; text is quoted wherever a reader could take it for something else.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) if is_plain(s) => s.clone(),
        // JSON's quoting is YAML's double quoting.
        Value::String(s) => Value::from(s.as_str()).to_string(),
        Value::Null => "null".into(),
        other => other.to_string(),
    }
}

fn is_plain(s: &str) -> bool {
    let word = s.to_ascii_lowercase();
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan"];
    s.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.' | '_'))
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'+'))
        && s.parse::<f64>().is_err()
        && !word.trim_start_matches('.').is_empty()
        && !reserved.contains(&word.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "a": "plain/path.gguf", "b": "1e5", "c": "no", "d": "x: y # z", "e": ["q_proj", "1"], "f": 2e-4,
            "g": [{"path": "a b.jsonl", "roles": {"user": ["human", "user"]}}, {"path": "ü\n\t\"q\"", "type": {"format": "{instruction}\n"}}],
            "h": {"0": "8GiB"}, "i": true, "j": [], "k": "<|im_end|>", "l": "", "m": ".5", "n": "~", "o": 1e-8,
            "p": 8.0, "q": "-dash", "r": "a,b", "s": "null", "t": {"x": {"y": [1, [2, {"z": null}]]}},
        });
        let mut text = String::new();
        for (k, v) in value.as_object().unwrap() {
            entry(&mut text, k, v);
        }
        assert_eq!(yaml::parse(&text).unwrap().to_json(), value, "{text}");
    }
}
