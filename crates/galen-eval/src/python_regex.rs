//! Patterns of published tasks, which are Python's.

use fancy_regex::Regex;

/// A pattern as Python's `re` reads it: without `(?m)`, `$` also stands before a line feed that ends the text, and `\Z` is the
/// very end. Errors: what is wrong with it.
pub(crate) fn python_regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(&translated(pattern)).map_err(|e| e.to_string())
}

fn translated(pattern: &str) -> String {
    // With the flag `$` stands before every line feed, in both.
    let flags = pattern.strip_prefix("(?").and_then(|rest| rest.split([')', ':']).next()).unwrap_or_default();
    let multiline = flags.contains('m') && flags.chars().all(|c| c.is_ascii_alphabetic());
    let (mut out, mut class) = (String::with_capacity(pattern.len() + 16), false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Z') if !class => out.push_str("\\z"),
                next => {
                    out.push('\\');
                    out.extend(next);
                }
            },
            '[' if !class => {
                class = true;
                out.push('[');
                // A bracket that comes first is one of the class.
                let rest = chars.as_str();
                let first = rest.strip_prefix('^').unwrap_or(rest);
                if first.starts_with(']') {
                    let taken = rest.len() - first.len() + 1;
                    out.push_str(&rest[..taken]);
                    chars = rest[taken..].chars();
                }
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '$' if !class && !multiline => out.push_str("(?=\\n?\\z)"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pythons() {
        for (pattern, text, expect) in [
            ("(\\d+)$", "42\n", Some("42")),
            ("(\\d+)$", "42\n\n", None),
            ("(\\d+)\\Z", "42\n", None),
            ("(\\d+)\\Z", "42", Some("42")),
            ("(?m)(\\d+)$", "42\n\nx", Some("42")),
            ("(?P<number>\\d+)$", "42\n", Some("42")),
            ("[$]\\d", "a$5", Some("$5")),
            ("[]$]+", "]$", Some("]$")),
            ("\\$\\d+$", "$7\n", Some("$7")),
            ("\\\\$", "a\\\n", Some("\\")),
        ] {
            let found = python_regex(pattern).unwrap().find(text).unwrap().map(|m| m.as_str().to_owned());
            assert_eq!(found.as_deref(), expect, "{pattern} on {text:?}");
        }
        assert!(python_regex("(").is_err());
    }
}
