//! YAML text as a tree that remembers its lines.
//!
//! Built from parser events rather than through serde, because errors must name `file:line` for a whole value
//! (a wrong type, an unknown key, a contradiction found later), duplicate keys are errors, and plain scalars keep
//! their text: `6299b56` may be a revision, `no` a strategy.

use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Largest configuration file read, bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// Deepest nesting of sequences and maps.
const MAX_DEPTH: usize = 32;
/// Most nodes after aliases are expanded.
const MAX_NODES: usize = 100_000;

/// What is said of text without a value.
pub const EMPTY: &str = "the file is empty";

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// 1-based line; 0 for a value given by `--set`.
    pub line: usize,
    /// The value.
    pub value: Yaml,
}

/// A YAML value. Plain scalars keep their text beside their reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false` (any case), with its text.
    Bool(bool, String),
    /// A decimal integer (`_` allowed), with its text.
    Int(i64, String),
    /// A finite decimal number (also `1e-5`, which YAML 1.1 readers take for text), with its text.
    Float(f64, String),
    /// Text; whether it was quoted.
    Str(String, Quoted),
    /// A sequence.
    Seq(Vec<Node>),
    /// A map, in file order, keys unique.
    Map(Vec<Entry>),
}

/// Whether text was written in quotes or as a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoted {
    /// In quotes, or a block scalar.
    Yes,
    /// Plain.
    No,
}

/// A key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// 1-based line of the key; 0 for `--set`.
    pub line: usize,
    /// The value.
    pub node: Node,
}

/// Text that is not the YAML we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// 1-based line.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// What kind of value it is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Yaml::Null => "nothing".into(),
            Yaml::Seq(_) => "a list".into(),
            Yaml::Map(_) => "a map".into(),
            // A number in quotes looks like the number that is wanted.
            Yaml::Str(text, Quoted::Yes) => format!("the text `\"{text}\"`"),
            _ => format!("`{}`", self.text().unwrap_or_default()),
        }
    }

    /// The text of a scalar as it was written; `None` for null, lists and maps.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Bool(_, s) | Yaml::Int(_, s) | Yaml::Float(_, s) | Yaml::Str(s, _) => Some(s),
            Yaml::Null | Yaml::Seq(_) | Yaml::Map(_) => None,
        }
    }

    /// Whether the value says "off": null, false, zero, empty text, an empty list or map.
    pub fn is_off(&self) -> bool {
        match &self.value {
            Yaml::Null | Yaml::Bool(false, _) | Yaml::Int(0, _) => true,
            Yaml::Float(f, _) => *f == 0.0,
            Yaml::Str(s, _) => s.is_empty(),
            Yaml::Seq(s) => s.is_empty(),
            Yaml::Map(m) => m.is_empty(),
            Yaml::Bool(true, _) | Yaml::Int(..) => false,
        }
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Yaml::Null => serde_json::Value::Null,
            Yaml::Bool(b, _) => (*b).into(),
            Yaml::Int(i, _) => (*i).into(),
            Yaml::Float(f, _) => (*f).into(),
            Yaml::Str(s, _) => s.as_str().into(),
            Yaml::Seq(s) => s.iter().map(Self::to_json).collect(),
            Yaml::Map(m) => {
                serde_json::Value::Object(m.iter().map(|e| (e.key.clone(), e.node.to_json())).collect())
            }
        }
    }
}

/// An unfinished list or map while its events arrive.
struct Open {
    anchor: usize,
    line: usize,
    container: Container,
}

enum Container {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, usize)>, merges: Vec<Node> },
}

/// Reads one YAML document. Errors carry the line; nesting, size and alias expansion are bounded.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut builder =
        Builder { stack: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, documents: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| YamlError { line: e.marker().line().max(1), message: e.info() })?;
        builder.event(event, span.start.line().max(1))?;
    }
    builder.root.ok_or(YamlError { line: 1, message: EMPTY.into() })
}

struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(line, "a second document (`---`) in one file");
                }
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return fail(line, "an alias (`*name`) inside its own anchor");
                };
                let node = node.clone();
                self.place(node, line)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let forced_text = match tag.as_deref().map(|t| t.core_suffix()) {
                    None | Some(Some("int" | "float" | "bool" | "null")) => false,
                    Some(Some("str")) => true,
                    Some(_) => return fail(line, "a custom tag (`!name`) is not read"),
                };
                let value = if style == ScalarStyle::Plain && !forced_text {
                    plain(&text)
                } else {
                    Yaml::Str(text.into_owned(), Quoted::Yes)
                };
                self.finish(Node { line, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, line, Container::Seq(Vec::new()))?,
            Event::MappingStart(_, anchor, _) => {
                let map = Container::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.open(anchor, line, map)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    let value = match open.container {
                        Container::Seq(items) => Yaml::Seq(items),
                        Container::Map { entries, merges, .. } => Yaml::Map(merge(entries, merges)?),
                    };
                    self.finish(Node { line: open.line, value }, open.anchor)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, line: usize, container: Container) -> Result<(), YamlError> {
        if self.stack.len() >= MAX_DEPTH {
            return fail(line, &format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.stack.push(Open { anchor, line, container });
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        let line = node.line;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node, line)
    }

    fn place(&mut self, node: Node, line: usize) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(count(&node));
        if self.nodes > MAX_NODES {
            return fail(line, &format!("more than {MAX_NODES} values once aliases are expanded"));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.container {
            Container::Seq(items) => items.push(node),
            Container::Map { entries, key, merges } => match key.take() {
                None => match node.text() {
                    Some(text) => *key = Some((text.to_owned(), line)),
                    None => return fail(line, &format!("a key must be text, not {}", node.describe())),
                },
                Some((name, _)) if name == "<<" => merges.push(node),
                Some((name, line)) => {
                    if let Some(first) = entries.iter().find(|e| e.key == name) {
                        return fail(line, &format!("`{name}` is set twice (first on line {})", first.line));
                    }
                    entries.push(Entry { key: name, line, node });
                }
            },
        }
        Ok(())
    }
}

/// `<<: *base`: keys of the merged maps that the map itself does not set.
fn merge(mut entries: Vec<Entry>, merges: Vec<Node>) -> Result<Vec<Entry>, YamlError> {
    for node in merges {
        let maps = match node.value {
            Yaml::Map(_) => vec![node],
            Yaml::Seq(items) => items,
            _ => return fail(node.line, &format!("`<<` takes a map, not {}", node.describe())),
        };
        for map in maps {
            let Yaml::Map(merged) = map.value else {
                return fail(map.line, &format!("`<<` takes maps, not {}", map.describe()));
            };
            for entry in merged {
                if !entries.iter().any(|e| e.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(entries)
}

/// What a node weighs against [`MAX_NODES`]: one, and one more per 64 bytes of text.
fn count(node: &Node) -> usize {
    1 + node.text().map_or(0, |t| t.len() / 64)
        + match &node.value {
            Yaml::Seq(items) => items.iter().map(count).sum::<usize>(),
            Yaml::Map(entries) => entries.iter().map(|e| 1 + count(&e.node)).sum(),
            _ => 0,
        }
}

fn fail<T>(line: usize, message: &str) -> Result<T, YamlError> {
    Err(YamlError { line, message: message.to_owned() })
}

/// Reads a plain scalar by YAML 1.2's core schema, plus `1e-5` as a number.
fn plain(text: &str) -> Yaml {
    let own = || text.to_owned();
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "true" | "True" | "TRUE" => return Yaml::Bool(true, own()),
        "false" | "False" | "FALSE" => return Yaml::Bool(false, own()),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins_a_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !begins_a_number {
        return Yaml::Str(own(), Quoted::No);
    }
    // `010` is 8 to one reader and 10 to another: left as text, so that a number is refused there.
    let ambiguous = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    let compact: String = text.chars().filter(|c| *c != '_').collect();
    let whole = digits.bytes().all(|b| b.is_ascii_digit() || b == b'_') && !ambiguous;
    if let Some(i) = whole.then(|| compact.parse::<i64>().ok()).flatten() {
        return Yaml::Int(i, own());
    }
    let decimal = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse::<f64>() {
        Ok(f) if decimal && !ambiguous && f.is_finite() => Yaml::Float(f, own()),
        _ => Yaml::Str(own(), Quoted::No),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(text).map_or_else(|e| format!("{}: {}", e.line, e.message), |n| n.to_json().to_string())
    }

    #[test]
    fn values_and_errors() {
        for (text, expect) in [
            ("a: 1\nb: 1e-5\nc: no\nd: 1_000\n", r#"{"a":1,"b":0.00001,"c":"no","d":1000}"#),
            ("a: 2e-4\nb: -.5\nc: '7'\nd:\n", r#"{"a":0.0002,"b":-0.5,"c":"7","d":null}"#),
            ("a: 010\nb: 6299b56\nc: 1.2.3\n", r#"{"a":"010","b":"6299b56","c":"1.2.3"}"#),
            ("x: &b {r: 8}\ny:\n  <<: *b\n  a: 1\n", r#"{"x":{"r":8},"y":{"a":1,"r":8}}"#),
            ("x: &b {r: 8}\ny:\n  r: 1\n  <<: [*b]\n", r#"{"x":{"r":8},"y":{"r":1}}"#),
            ("a: |\n  one\n  two\n", r#"{"a":"one\ntwo\n"}"#),
            ("a: 1\nb: 2\na: 3\n", "3: `a` is set twice (first on line 1)"),
            ("", "1: the file is empty"),
            ("a: 1\n---\nb: 2\n", "2: a second document (`---`) in one file"),
            ("a: !!python/object x\n", "1: a custom tag (`!name`) is not read"),
            ("a: &x [*x]\n", "1: an alias (`*name`) inside its own anchor"),
            ("? [1]\n: 2\n", "1: a key must be text, not a list"),
        ] {
            assert_eq!(json(text), expect, "{text:?}");
        }
    }

    #[test]
    fn bad_syntax_names_its_line() {
        let e = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(e.line >= 2, "{e:?}");
    }

    #[test]
    fn bombs_are_refused() {
        let deep = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(&deep).is_err());
        let mut billion = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let p = i - 1;
            billion.push_str(
                &["a", &i.to_string(), ": &a", &i.to_string(), " [", &format!("*a{p}, ").repeat(8), "]\n"]
                    .concat(),
            );
        }
        let e = parse(&billion).unwrap_err();
        assert!(e.message.contains("aliases"), "{e:?}");
    }

    #[test]
    fn lines_are_one_based() {
        let Yaml::Map(entries) = parse("# c\na: 1\nb:\n  - x\n  - y\n").unwrap().value else { panic!() };
        assert_eq!((entries[0].line, entries[1].line), (2, 3));
        let Yaml::Seq(items) = &entries[1].node.value else { panic!() };
        assert_eq!(items.iter().map(|n| n.line).collect::<Vec<_>>(), [4, 5]);
    }
}
