//! A hierarchy of facts: what templates ask for neighbours, and where distractors come from.

use galen_data::DataError;
use galen_data::reader::{Limits, data_files, open_files};
use galen_data::template::prompt::to_value;
use minijinja::{Environment, Value as Jinja};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Nodes above one another; a loop of parents ends there.
const MAX_DEPTH: usize = 64;

/// Nodes with their parents. Rows are kept as text and read when they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Taxonomy {
    rows: Vec<Box<str>>,
    ids: Vec<Box<str>>,
    by_id: HashMap<Box<str>, u32>,
    parents: Vec<Option<u32>>,
    children: HashMap<u32, Vec<u32>>,
    /// Nodes without a parent.
    roots: Vec<u32>,
}

impl Taxonomy {
    /// Rows of a file or folder; `id` and `parent` are the fields that say where a row stands.
    pub fn read(path: &Path, id: &str, parent: &str) -> Result<Self, DataError> {
        let mut this = Self::default();
        let mut named: Vec<Option<String>> = Vec::new();
        for row in open_files(data_files(path, "train")?, None, Limits::default()) {
            let row = row?;
            let text = |field: &str| match row.fields.get(field) {
                Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
                Some(Value::Number(n)) => Some(n.to_string()),
                _ => None,
            };
            let wrong = |what: String| DataError::File { file: row.origin.to_string(), what, hint: None };
            let key = text(id).ok_or_else(|| wrong(format!("has no text in `{id}`")))?;
            let number = this.rows.len() as u32;
            if this.by_id.insert(key.as_str().into(), number).is_some() {
                return Err(wrong(format!("`{id}` `{key}` is there twice")));
            }
            this.ids.push(key.into());
            named.push(text(parent));
            this.rows.push(Value::Object(row.fields).to_string().into());
        }
        for (i, parent) in named.into_iter().enumerate() {
            // A parent that is not in the list: a root.
            let parent = parent.and_then(|p| this.by_id.get(p.as_str()).copied());
            match parent {
                Some(p) => this.children.entry(p).or_default().push(i as u32),
                None => this.roots.push(i as u32),
            }
            this.parents.push(parent);
        }
        Ok(this)
    }

    /// A node's fields.
    pub fn row(&self, node: u32) -> Value {
        serde_json::from_str(&self.rows[node as usize]).unwrap_or_default()
    }

    fn parent(&self, node: u32) -> Option<u32> {
        self.parents[node as usize]
    }

    fn below(&self, parent: Option<u32>) -> &[u32] {
        match parent {
            Some(p) => self.children.get(&p).map_or(&[], Vec::as_slice),
            None => &self.roots,
        }
    }

    fn ancestors(&self, node: u32) -> Vec<u32> {
        let mut out = Vec::new();
        let mut at = node;
        while let Some(parent) = self.parent(at).filter(|p| out.len() < MAX_DEPTH && !out.contains(p)) {
            out.push(parent);
            at = parent;
        }
        out
    }

    fn siblings(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.below(self.parent(node)).iter().copied().filter(move |n| *n != node)
    }

    /// The node of this id.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Relatives of a node at its own depth: its siblings at `distance` 0, its cousins at 1, and so on; `None` where there
    /// is nobody that far above it.
    pub fn relatives(&self, node: u32, distance: usize) -> Option<Vec<u32>> {
        let above = if distance == 0 { node } else { *self.ancestors(node).get(distance - 1)? };
        let mut nodes: Vec<u32> = self.siblings(above).collect();
        for _ in 0..distance {
            nodes = nodes.iter().flat_map(|n| self.below(Some(*n)).iter().copied()).collect();
        }
        Some(nodes)
    }

    /// `node(id)`, `parent(id)`, `children(id)`, `siblings(id)`, `ancestors(id)`: rows; nothing of an unknown id.
    pub fn register(self: &Arc<Self>, env: &mut Environment<'static>) {
        type Find = fn(&Taxonomy, u32) -> Vec<u32>;
        let lists: [(&'static str, Find); 3] = [
            ("children", |t, n| t.below(Some(n)).to_vec()),
            ("siblings", |t, n| t.siblings(n).collect()),
            ("ancestors", |t, n| t.ancestors(n)),
        ];
        for (name, find) in lists {
            let this = Arc::clone(self);
            env.add_function(name, move |id: &str| -> Jinja {
                let nodes = this.by_id.get(id).map(|n| find(&this, *n)).unwrap_or_default();
                nodes.into_iter().map(|n| to_value(&this.row(n))).collect::<Vec<_>>().into()
            });
        }
        let this = Arc::clone(self);
        env.add_function("node", move |id: &str| this.by_id.get(id).map(|n| to_value(&this.row(*n))));
        let this = Arc::clone(self);
        env.add_function("parent", move |id: &str| {
            this.by_id.get(id).and_then(|n| this.parent(*n)).map(|n| to_value(&this.row(n)))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_data::template::prompt::Prompts;
    use serde_json::{Map, json};

    #[test]
    fn relatives_and_functions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let rows = [("A", ""), ("B", ""), ("A1", "A"), ("A2", "A"), ("A3", "A"), ("B1", "B"), ("L", "L")];
        let text: String =
            rows.iter().map(|(id, parent)| json!({"id": id, "up": parent}).to_string() + "\n").collect();
        std::fs::write(&path, text).unwrap();
        let taxonomy = Arc::new(Taxonomy::read(&path, "id", "up").unwrap());
        let ids = |id: &str, distance: usize| -> Option<Vec<String>> {
            let nodes = taxonomy.relatives(taxonomy.find(id)?, distance)?;
            Some(nodes.iter().map(|n| taxonomy.ids[*n as usize].to_string()).collect())
        };
        let owned = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!([ids("A1", 0), ids("A1", 1), ids("A1", 2)], [owned(&["A2", "A3"]), owned(&["B1"]), None]);
        assert_eq!([ids("A", 0), ids("A", 1), ids("X", 0)], [owned(&["B"]), None, None]);
        assert_eq!(taxonomy.ancestors(taxonomy.by_id["L"]).len(), 1);
        let mut prompts = Prompts::new(|env| taxonomy.register(env));
        prompts.add(
            "t",
            "{{ siblings('A1')|map(attribute='id')|join(' ') }};{{ parent('A1').id }};{{ ancestors('A1')|length }};\
             {{ children('A')|length }};{{ node('X') is none }}",
        );
        assert_eq!(prompts.render("t", &Map::new()).unwrap(), "A2 A3;A;1;3;True");
    }
}
