//! Answers through a table.

use super::{Filter, FilterEntry, Row};
use crate::metrics::known_options;
use serde_json::{Map, Value};

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "map",
    about: "through the table mapping_dict; default_value for what is not in it",
    build: |kwargs| {
        known_options(kwargs, &["mapping_dict", "default_value"])?;
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let table = match kwargs.get("mapping_dict") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(table)) => table.clone(),
            Some(other) => return Err(format!("`mapping_dict` is `{other}`, expected a mapping")),
        };
        let table = table.iter().map(|(from, to)| (from.clone(), text(to))).collect();
        let default = kwargs.get("default_value").map(text).unwrap_or_default();
        Ok(Box::new(Table { table, default }) as Box<dyn Filter>)
    },
};

#[derive(Debug)]
struct Table {
    table: Vec<(String, String)>,
    default: String,
}

impl Filter for Table {
    fn apply(&self, answers: Vec<String>, _: &Row) -> Result<Vec<String>, String> {
        let look_up =
            |a: &String| self.table.iter().find(|(from, _)| from == a).map_or(&self.default, |(_, to)| to);
        Ok(answers.iter().map(|a| look_up(a).clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn looked_up() {
        let options = serde_json::json!({"function": "map", "mapping_dict": {"A": 1, "B": "two"}, "default_value": "?"});
        super::super::check(options, serde_json::json!({}), &["A", "B", "C"], &["1", "two", "?"]);
    }
}
