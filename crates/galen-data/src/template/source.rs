//! A pass over the template's source before minijinja sees it.
//!
//! Three things Hugging Face's Jinja has and minijinja lacks are put in by rewriting: the `{% generation %}` block
//! (becomes a filter block), Python's `str()` under `~` (`True`, not `true`), and a bound on what `+`, `~`, `*` and
//! slices may build (operands pass through identity filters that count bytes, see `limits.rs`). Everything else is
//! left byte for byte.

use super::limits::MAX_SOURCE_BYTES;

/// Filter that stands for `{% generation %}`.
pub(super) const GENERATION: &str = "_galen_generation";
/// Filter that turns an operand of `~` into Python's `str()`.
pub(super) const TEXT: &str = "_galen_text";
/// Identity filter that counts an operand's bytes.
pub(super) const KEEP: &str = "_galen_keep";
/// On the operands of `+` and `~` beside one marked `|safe`: Python's Markup escapes what is added to it.
pub(super) const ESCAPE: &str = "_galen_escape";
/// Identity filter on the operands of `*`.
pub(super) const TIMES: &str = "_galen_times";

/// Operators in one tag; a longer expression would need a deep stack to compile.
const MAX_TOKENS_IN_TAG: usize = 4_000;

/// The rewritten source and what was seen on the way.
#[derive(Debug)]
pub(super) struct Source {
    /// What minijinja compiles.
    pub text: String,
    /// Whether the template marks its assistant text with `{% generation %}`.
    pub has_generation: bool,
    /// Longest stretch of plain text, in bytes.
    pub longest_literal: usize,
    /// Names used in expressions (`tools`, `strftime_now` ...).
    pub names: std::collections::HashSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Open,
    Close,
    Operator,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
    /// Brackets open around the token; a bracket has the depth outside it.
    depth: usize,
}

/// Rewrites `source`. Line ends become `\n`, as Jinja2 makes them. Syntax errors are left for minijinja to find.
pub(super) fn rewrite(source: &str) -> Result<Source, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("source of {} bytes (at most {MAX_SOURCE_BYTES})", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Source {
        text: String::with_capacity(source.len() + 256),
        has_generation: false,
        longest_literal: 0,
        names: std::collections::HashSet::new(),
    };
    let mut at = 0;
    while let Some((open, end_marker)) = next_tag(&source, at) {
        out.longest_literal = out.longest_literal.max(open - at);
        let Some(end_marker) = end_marker else {
            let Some(close) = source[open..].find("#}") else { break };
            out.text.push_str(&source[at..open + close + 2]);
            at = open + close + 2;
            continue;
        };
        let Some((tokens, close)) = tokenize(&source, open + 2, end_marker)? else { break };
        out.text.push_str(&source[at..open + 2]);
        rewrite_tag(&source, open + 2, &tokens, close, end_marker, &mut out);
        at = close;
        if end_marker == "%}" && tokens.len() == 1 && source[tokens[0].start..tokens[0].end] == *"raw" {
            let end = raw_end(&source, at);
            out.longest_literal = out.longest_literal.max(end - at);
            out.text.push_str(&source[at..end]);
            at = end;
        }
    }
    out.longest_literal = out.longest_literal.max(source.len() - at);
    out.text.push_str(&source[at..]);
    Ok(out)
}

/// The next `{{`, `{%` or `{#` from `at`, with the marker that ends it (`None` for a comment).
fn next_tag(source: &str, at: usize) -> Option<(usize, Option<&'static str>)> {
    let bytes = source.as_bytes();
    (at..bytes.len().saturating_sub(1)).filter(|&i| bytes[i] == b'{').find_map(|i| match bytes[i + 1] {
        b'{' => Some((i, Some("}}"))),
        b'%' => Some((i, Some("%}"))),
        b'#' => Some((i, None)),
        _ => None,
    })
}

/// Where the `{% endraw %}` after `at` begins (or the source ends).
fn raw_end(source: &str, at: usize) -> usize {
    let mut from = at;
    while let Some(i) = source[from..].find("{%") {
        let start = from + i;
        let inside = source[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return start;
        }
        from = start + 2;
    }
    source.len()
}

/// Tokens of one tag from `at` (just after its opening marker), and the index just past its end marker.
/// `None`: the tag does not end.
fn tokenize(source: &str, at: usize, end_marker: &str) -> Result<Option<(Vec<Token>, usize)>, String> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut depth = 0usize;
    let mut i = at;
    if matches!(bytes.get(i), Some(b'-' | b'+')) {
        i += 1;
    }
    while let Some(&b) = bytes.get(i) {
        if b.is_ascii_whitespace() {
            i += 1;
            continue;
        }
        if depth == 0 {
            let rest = &source[i..];
            for skip in ["", "-", "+"] {
                if rest.strip_prefix(skip).is_some_and(|r| r.starts_with(end_marker)) {
                    return Ok(Some((tokens, i + skip.len() + end_marker.len())));
                }
            }
        }
        if tokens.len() >= MAX_TOKENS_IN_TAG {
            return Err(format!("a tag has more than {MAX_TOKENS_IN_TAG} tokens"));
        }
        let start = i;
        let token = match b {
            b'\'' | b'"' => {
                i += 1;
                while let Some(&c) = bytes.get(i) {
                    i += if c == b'\\' { 2 } else { 1 };
                    if c == b {
                        break;
                    }
                }
                if i > bytes.len() || bytes[i - 1] != b || i == start + 1 {
                    return Ok(None);
                }
                Token { kind: Kind::Text, start, end: i, depth }
            }
            b'(' | b'[' | b'{' => {
                i += 1;
                depth += 1;
                Token { kind: Kind::Open, start, end: i, depth: depth - 1 }
            }
            b')' | b']' | b'}' => {
                i += 1;
                depth = depth.saturating_sub(1);
                Token { kind: Kind::Close, start, end: i, depth }
            }
            b'0'..=b'9' => {
                let digit = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
                while bytes.get(i).is_some_and(digit) {
                    i += 1;
                }
                if bytes.get(i) == Some(&b'.') && bytes.get(i + 1).is_some_and(u8::is_ascii_digit) {
                    i += 1;
                    while bytes.get(i).is_some_and(digit) {
                        i += 1;
                    }
                }
                Token { kind: Kind::Number, start, end: i, depth }
            }
            _ if b == b'_' || b.is_ascii_alphabetic() || b >= 0x80 => {
                while bytes.get(i).is_some_and(|c| *c == b'_' || c.is_ascii_alphanumeric() || *c >= 0x80) {
                    i += 1;
                }
                Token { kind: Kind::Name, start, end: i, depth }
            }
            _ => {
                let two = ["==", "!=", "<=", ">=", "//", "**"].iter().any(|op| source[i..].starts_with(op));
                i += if two { 2 } else { 1 };
                Token { kind: Kind::Operator, start, end: i, depth }
            }
        };
        tokens.push(token);
    }
    Ok(None)
}

/// Writes one tag (from `at` to `close`), with filters inserted after operands.
fn rewrite_tag(source: &str, at: usize, tokens: &[Token], close: usize, end_marker: &str, out: &mut Source) {
    let text = |i: usize| tokens.get(i).map_or("", |t| &source[t.start..t.end]);
    if end_marker == "%}" && tokens.len() == 1 && matches!(text(0), "generation" | "endgeneration") {
        out.text.push_str(&source[at..tokens[0].start]);
        if text(0) == "generation" {
            out.has_generation = true;
            out.text.push_str("filter ");
            out.text.push_str(GENERATION);
        } else {
            out.text.push_str("endfilter");
        }
        out.text.push_str(&source[tokens[0].end..close]);
        return;
    }
    out.names
        .extend(tokens.iter().filter(|t| t.kind == Kind::Name).map(|t| source[t.start..t.end].to_string()));
    // (byte position, filter); one filter a position, the strongest wins.
    let mut inserts = std::collections::BTreeMap::<usize, &'static str>::new();
    let mut insert = |position: usize, filter: &'static str| {
        let old = inserts.get(&position).copied();
        let rank = |f: &str| [KEEP, TIMES, TEXT, ESCAPE].iter().position(|x| *x == f);
        if old.is_none_or(|old| rank(filter) > rank(old)) {
            inserts.insert(position, filter);
        }
    };
    let arithmetic = |i: usize| matches!(text(i), "*" | "/" | "//" | "%" | "**");
    let safe: std::collections::HashSet<usize> = (1..tokens.len())
        .filter(|&i| text(i) == "safe" && text(i - 1) == "|")
        .map(|i| tokens[i].depth)
        .collect();
    let safe_at = |depth: usize| safe.contains(&depth);
    for (i, token) in tokens.iter().enumerate() {
        // A slice that is called or taken from at once is charged there.
        let goes_on = matches!(text(i + 1), "." | "[" | "(");
        if token.kind == Kind::Close && text(i) == "]" && !goes_on && is_slice(source, tokens, i) {
            insert(token.end, KEEP);
        }
        if token.kind != Kind::Operator || !matches!(text(i), "+" | "~" | "*") || i == 0 {
            continue;
        }
        if !ends_operand(source, tokens, i - 1) {
            continue;
        }
        let Some(right) = operand_end(source, tokens, i + 1) else { continue };
        let left_start = operand_start(source, tokens, i - 1);
        let left_is_product = left_start > 0 && arithmetic(left_start - 1);
        let right_is_product = arithmetic(right + 1);
        match text(i) {
            "+" | "~" if safe_at(token.depth) => {
                insert(tokens[i - 1].end, ESCAPE);
                insert(tokens[right].end, ESCAPE);
            }
            "~" => {
                insert(tokens[i - 1].end, if left_is_product { KEEP } else { TEXT });
                insert(tokens[right].end, if right_is_product { KEEP } else { TEXT });
            }
            "*" => {
                insert(tokens[i - 1].end, TIMES);
                insert(tokens[right].end, TIMES);
            }
            _ => {
                insert(tokens[i - 1].end, KEEP);
                insert(tokens[right].end, KEEP);
            }
        }
    }
    let mut from = at;
    for (position, filter) in inserts {
        out.text.push_str(&source[from..position]);
        out.text.push('|');
        out.text.push_str(filter);
        // `x|f+}}` would read as a whitespace marker.
        out.text.push(' ');
        from = position;
    }
    out.text.push_str(&source[from..close]);
}

/// Whether token `i` can be the last of an operand (so that a following `+` is binary).
fn ends_operand(source: &str, tokens: &[Token], i: usize) -> bool {
    let Some(token) = tokens.get(i) else { return false };
    match token.kind {
        Kind::Number | Kind::Text | Kind::Close => true,
        Kind::Name => {
            let attribute = i > 0 && source[tokens[i - 1].start..tokens[i - 1].end] == *".";
            attribute
                || !matches!(
                    &source[token.start..token.end],
                    "and"
                        | "or"
                        | "not"
                        | "in"
                        | "is"
                        | "if"
                        | "elif"
                        | "else"
                        | "set"
                        | "for"
                        | "call"
                        | "filter"
                )
        }
        Kind::Open | Kind::Operator => false,
    }
}

/// Index of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let depth = tokens.get(open)?.depth;
    (open + 1..tokens.len()).find(|&i| tokens[i].kind == Kind::Close && tokens[i].depth == depth)
}

fn opening(tokens: &[Token], close: usize) -> usize {
    let depth = tokens[close].depth;
    (0..close).rev().find(|&i| tokens[i].kind == Kind::Open && tokens[i].depth == depth).unwrap_or(0)
}

/// Whether the `]` at `close` ends a subscript with a colon of its own.
fn is_slice(source: &str, tokens: &[Token], close: usize) -> bool {
    let open = opening(tokens, close);
    let subscript = open > 0 && ends_operand(source, tokens, open - 1);
    let depth = tokens[close].depth + 1;
    let colon = |t: &Token| t.depth == depth && t.kind == Kind::Operator && source[t.start..t.end] == *":";
    subscript && tokens[open..close].iter().any(colon)
}

/// Last token of the operand (primary with attributes, subscripts, calls and filters) that begins at `i`.
fn operand_end(source: &str, tokens: &[Token], mut i: usize) -> Option<usize> {
    let text = |i: usize| tokens.get(i).map_or("", |t| &source[t.start..t.end]);
    while matches!(text(i), "-" | "+") {
        i += 1;
    }
    let mut end = match tokens.get(i)?.kind {
        Kind::Name | Kind::Number | Kind::Text if text(i) != "not" => i,
        Kind::Open => closing(tokens, i)?,
        _ => return None,
    };
    while tokens.get(end).is_some_and(|t| t.kind == Kind::Text)
        && tokens.get(end + 1).is_some_and(|t| t.kind == Kind::Text)
    {
        end += 1;
    }
    loop {
        match text(end + 1) {
            "." | "|" => end += 2,
            "(" | "[" => end = closing(tokens, end + 1)?,
            _ => return (end < tokens.len()).then_some(end),
        }
    }
}

/// First token of the operand that ends at `i`.
fn operand_start(source: &str, tokens: &[Token], mut i: usize) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |t| &source[t.start..t.end]);
    loop {
        if tokens[i].kind == Kind::Close {
            i = opening(tokens, i);
            if i > 0 && ends_operand(source, tokens, i - 1) {
                i -= 1;
                continue;
            }
        }
        if i >= 2 && matches!(text(i - 1), "." | "|") {
            i -= 2;
            continue;
        }
        return i;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let text = rewrite(source).expect("rewrites").text;
        let short = text.replace("|_galen_", "|").replace("filter _galen_", "filter ");
        assert_eq!(short, expected);
    }

    #[test]
    fn leaves_plain_tags_alone() {
        for source in [
            "plain {text} {{ a.b['c'](d)|f(1) }}{# + ~ {{ #}{%- if a == b -%}x{% endif %}",
            "{% raw %}{{ a ~ b }}{% endraw %}",
            "{{ '}}' }}{{ {'a': {'b': 1}} }}{{ \"it's ~ %}\" }}",
            "{{ -x }}{% if not -x %}{%+ set y = [1, -2] +%}",
            "{{ unfinished ~ x",
        ] {
            check(source, source);
        }
    }

    #[test]
    fn marks_operands() {
        check("{{ a ~ b }}", "{{ a|text  ~ b|text  }}");
        check("{{ a ~ b.c[0]|trim(x) ~ 'd' }}", "{{ a|text  ~ b.c[0]|trim(x)|text  ~ 'd'|text  }}");
        check("{{ a + b if c else d }}", "{{ a|keep  + b|keep  if c else d }}");
        check("{{- 'x' + (a + 'b') -}}", "{{- 'x'|keep  + (a|keep  + 'b'|keep )|keep  -}}");
        check("{{ a * 2 ~ b }}", "{{ a|times  * 2|times  ~ b|text  }}");
        check("{{ 'a'|safe + b }}", "{{ 'a'|safe|escape  + b|escape  }}");
        check("{% set x = m[1:] %}", "{% set x = m[1:]|keep  %}");
        check("{{ m[1:].strip() + m[:1][0] }}", "{{ m[1:].strip()|keep  + m[:1][0]|keep  }}");
        check("{{ {'a': [1]} }}", "{{ {'a': [1]} }}");
    }

    #[test]
    fn generation_becomes_a_filter_block() {
        let source = rewrite("a{%- generation -%}b{% endgeneration %}c").expect("rewrites");
        assert!(source.has_generation);
        assert_eq!(source.text, "a{%- filter _galen_generation -%}b{% endfilter %}c");
    }

    #[test]
    fn line_ends_are_normalised() {
        check("a\r\nb\rc", "a\nb\nc");
    }
    #[test]
    fn fuzz() {
        let mut rewritten = 0;
        let corpus = galen_testkit::fuzz::corpus("template");
        let inputs = galen_testkit::fuzz::run("template", &corpus, |bytes| {
            let source = String::from_utf8_lossy(bytes);
            let Ok(out) = rewrite(&source) else { return };
            // Taking the filters out again leaves the source.
            if !out.has_generation && !source.contains("endgeneration") && !source.contains("_galen") {
                let mut text = out.text.clone();
                for filter in [KEEP, TEXT, ESCAPE, TIMES] {
                    text = text.replace(&format!("|{filter} "), "");
                }
                assert!(text == source.replace("\r\n", "\n").replace('\r', "\n"), "{source:?} {text:?}");
            }
            rewritten += u64::from(out.text.len() > source.len());
        });
        println!("template: {inputs} inputs, {rewritten} of them rewritten");
        assert!(rewritten > 0);
    }
}
