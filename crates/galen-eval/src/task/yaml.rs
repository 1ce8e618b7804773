//! A task file as a tree: YAML with its tags and lines kept, `include:` resolved.

use crate::EvalError;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Spanned, Tagged};
use std::fmt;
use std::path::{Path, PathBuf};

/// Task files are small; anything larger is not one.
const MAX_BYTES: u64 = 4 << 20;
/// `include:` chains in published tasks are two or three long.
const MAX_INCLUDES: usize = 8;

/// One key of a task file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    /// `file:line` of the key.
    pub origin: String,
    pub value: Value,
}

/// A YAML value.
#[derive(Debug, Clone)]
enum Node {
    Plain(Value),
    Seq(Vec<Tagged<Node>>),
    Map(Vec<(Spanned<String>, Tagged<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Plain(Value::Bool(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Plain(Value::from(v)))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Plain(Value::from(v)))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Plain(Value::from(v)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Plain(Value::from(v)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

/// The entries of a task file, those of its `include:` beneath its own.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, EvalError> {
    let mut layers: Vec<Vec<Entry>> = Vec::new();
    let mut next: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(file) = next.pop() {
        if layers.len() > MAX_INCLUDES {
            return Err(EvalError::task(
                path.display(),
                format!("more than {MAX_INCLUDES} files by `include`: a loop?"),
            ));
        }
        let length = std::fs::metadata(&file).map_err(|e| EvalError::io(&file, e))?.len();
        if length > MAX_BYTES {
            return Err(EvalError::task(
                file.display(),
                format!("{length} bytes is too large for a task (limit {MAX_BYTES})"),
            ));
        }
        let text = std::fs::read_to_string(&file).map_err(|e| EvalError::io(&file, e))?;
        let mut entries = parse(&text, &file.display().to_string())?;
        if let Some(at) = entries.iter().position(|e| e.key == "include") {
            let include = entries.remove(at);
            let Value::String(name) = &include.value else {
                return Err(EvalError::task(include.origin, "`include` takes one file name"));
            };
            next.push(file.parent().unwrap_or(Path::new(".")).join(name));
        }
        layers.push(entries);
    }
    let mut merged: Vec<Entry> = Vec::new();
    for layer in layers.into_iter().rev() {
        for entry in layer {
            match merged.iter_mut().find(|e| e.key == entry.key) {
                Some(old) => *old = entry,
                None => merged.push(entry),
            }
        }
    }
    Ok(merged)
}

/// The entries of one YAML text. `file` names it in errors.
pub(super) fn parse(text: &str, file: &str) -> Result<Vec<Entry>, EvalError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let root: Tagged<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let origin = e.location().map_or_else(|| file.to_owned(), |at| format!("{file}:{}", at.line()));
        // Without the parser's advice on its own options.
        let text = e.without_snippet().to_string();
        let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or_default().trim_end();
        EvalError::task(origin, format!("not YAML: {text}"))
    })?;
    let Node::Map(entries) = root.0 else {
        return Err(EvalError::task(file, "a task file is a YAML mapping (`task: name` ...)"));
    };
    entries
        .into_iter()
        .map(|(key, tagged)| {
            let origin = format!("{file}:{}", key.referenced.line());
            let value = untag(tagged, &key.value, &origin)?;
            Ok(Entry { key: key.value, origin, value })
        })
        .collect()
}

/// Refuses local tags anywhere in the value.
fn untag(tagged: Tagged<Node>, key: &str, origin: &str) -> Result<Value, EvalError> {
    let Tagged(node, tag) = tagged;
    if let Some(tag) = tag.filter(|t| !t.starts_with("tag:yaml.org,2002:") && !t.starts_with("!!")) {
        let argument = match &node {
            Node::Plain(Value::String(text)) => format!(" {text}"),
            _ => String::new(),
        };
        let what = format!(
            "`{key}` is `{tag}{argument}`: galen runs no code named by a task\n\
             hint: write it as a minijinja template over the row's fields, or prepare the rows beforehand"
        );
        return Err(EvalError::task(origin, what));
    }
    Ok(match node {
        Node::Plain(value) => value,
        Node::Seq(items) => {
            Value::Array(items.into_iter().map(|item| untag(item, key, origin)).collect::<Result<_, _>>()?)
        }
        Node::Map(entries) => {
            let mut map = serde_json::Map::new();
            for (name, value) in entries {
                let path = format!("{key}.{}", name.value);
                map.insert(name.value, untag(value, &path, origin)?);
            }
            Value::Object(map)
        }
    })
}
