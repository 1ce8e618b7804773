//! Typed access to the entries of a task file, with errors that say where.

use super::yaml::Entry;
use crate::error::{EvalError, nearest};
use crate::task::DocTo;
use serde_json::{Map, Value};

/// The entries of a mapping: of the whole file, or of one of its values.
pub(super) struct Fields {
    entries: Vec<Entry>,
    /// Before the key in errors: `fewshot_config.`.
    prefix: String,
    /// Where an absent key is missing from.
    pub origin: String,
}

impl Fields {
    pub fn new(entries: Vec<Entry>, origin: &str) -> Self {
        Self { entries, prefix: String::new(), origin: origin.to_owned() }
    }

    /// The fields of a nested mapping; unknown ones are refused with the nearest name.
    pub fn nested(
        map: Map<String, Value>,
        name: &str,
        origin: &str,
        known: &[&str],
    ) -> Result<Self, EvalError> {
        if let Some(key) = map.keys().find(|k| !known.contains(&k.as_str())) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("\nhint: did you mean `{near}`?"),
                None => format!("\nhint: known keys are `{}`", known.join("` `")),
            };
            return Err(EvalError::task(origin, format!("unknown key `{name}.{key}`{hint}")));
        }
        let entries = map
            .into_iter()
            .map(|(key, value)| Entry { key, origin: origin.to_owned(), value })
            .collect::<Vec<_>>();
        Ok(Self { entries, prefix: format!("{name}."), origin: origin.to_owned() })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The value, unless absent or null.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key && !e.value.is_null())
    }

    pub fn wrong(&self, key: &str, expected: &str) -> EvalError {
        let entry = self.get(key);
        let origin = entry.map_or(self.origin.as_str(), |e| e.origin.as_str());
        let found = entry.map_or("null".to_owned(), |e| shorten(&e.value.to_string()));
        EvalError::task(origin, format!("`{}{key}` is `{found}`, expected {expected}", self.prefix))
    }

    pub fn string(&self, key: &str) -> Result<Option<String>, EvalError> {
        match self.get(key).map(|e| &e.value) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "text")),
        }
    }

    pub fn count(&self, key: &str) -> Result<Option<usize>, EvalError> {
        match self.get(key) {
            None => Ok(None),
            Some(e) => match e.value.as_u64() {
                Some(n) if u32::try_from(n).is_ok() => Ok(Some(n as usize)),
                _ => Err(self.wrong(key, "a whole number")),
            },
        }
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, EvalError> {
        match self.get(key) {
            None => Ok(None),
            Some(e) => match e.value.as_f64() {
                Some(x) if x.is_finite() && x >= 0.0 => Ok(Some(x)),
                _ => Err(self.wrong(key, "a number of at least 0")),
            },
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, EvalError> {
        match self.get(key).map(|e| &e.value) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong(key, "`true` or `false`")),
        }
    }

    pub fn map(&self, key: &str) -> Result<Map<String, Value>, EvalError> {
        match self.get(key).map(|e| &e.value) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(self.wrong(key, "a mapping")),
        }
    }

    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, EvalError> {
        match self.get(key).map(|e| &e.value) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    /// One text or a list of texts.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, EvalError> {
        match self.get(key).map(|e| &e.value) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(items)) => {
                match items.iter().map(|i| i.as_str().map(str::to_owned)).collect() {
                    Some(texts) => Ok(Some(texts)),
                    None => Err(self.wrong(key, "texts")),
                }
            }
            Some(_) => Err(self.wrong(key, "text or a list of texts")),
        }
    }

    /// A `doc_to_*` value: text, number, list, or a mapping whose values are the list.
    pub fn doc_to(&self, key: &str) -> Result<Option<DocTo>, EvalError> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(n) => Some(n.to_string()),
            _ => None,
        };
        let expected = "a field's name, a template, a number or a list of texts";
        Ok(match self.get(key).map(|e| &e.value) {
            None => None,
            Some(Value::String(source)) => Some(DocTo::Text(source.clone())),
            Some(Value::Number(n)) => Some(DocTo::Int(n.as_i64().ok_or_else(|| self.wrong(key, expected))?)),
            Some(Value::Array(items)) => Some(DocTo::List(
                items.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.wrong(key, expected))?,
            )),
            Some(Value::Object(map)) => Some(DocTo::List(
                map.values().map(text).collect::<Option<_>>().ok_or_else(|| self.wrong(key, expected))?,
            )),
            Some(Value::Bool(_) | Value::Null) => return Err(self.wrong(key, expected)),
        })
    }
}

/// At most 80 characters of `text`.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
