//! Answers that are to be JSON of a schema.

use crate::steps::generate::beginning;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Schemas nested deeper are refused.
const MAX_SCHEMA_DEPTH: usize = 64;

/// A schema and what holds answers against it.
pub(crate) struct Shape {
    pub schema: Value,
    validator: Validator,
}

impl Shape {
    /// Errors, in words: no schema.
    pub fn new(schema: Value) -> Result<Self, String> {
        if depth_over(&schema, MAX_SCHEMA_DEPTH) {
            return Err(format!("is nested more than `{MAX_SCHEMA_DEPTH}` deep"));
        }
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|e| format!("is no schema: {e}"))?;
        Ok(Self { schema, validator })
    }

    /// The JSON in an answer. Errors, in words: there is none, or it is not of the schema.
    pub fn read(&self, answer: &str) -> Result<Value, String> {
        let value = find(answer).ok_or("has no JSON in it")?;
        let said = self.validator.iter_errors(&value).next().map(|e| {
            let (place, what) = (e.instance_path().to_string(), beginning(&e.to_string()));
            if place.is_empty() { what } else { format!("at `{place}`: {what}") }
        });
        said.map_or(Ok(value), Err)
    }
}

fn depth_over(value: &Value, limit: usize) -> bool {
    let over = |inner: &Value| limit == 0 || depth_over(inner, limit - 1);
    match value {
        Value::Array(list) => list.iter().any(over),
        Value::Object(map) => map.values().any(over),
        _ => false,
    }
}

/// The whole answer as JSON, what stands in its first fence, or from the first bracket on.
fn find(answer: &str) -> Option<Value> {
    let answer = answer.trim();
    if let Ok(value) = serde_json::from_str(answer) {
        return Some(value);
    }
    let fenced = answer.split("```").nth(1).map(|inside| inside.trim_start_matches("json"));
    if let Some(value) = fenced.and_then(|text| serde_json::from_str(text.trim()).ok()) {
        return Some(value);
    }
    let from = answer.find(['{', '['])?;
    // What follows the value does not matter; nesting is bounded by the parser.
    serde_json::Deserializer::from_str(&answer[from..]).into_iter::<Value>().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_and_held_against_the_schema() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
        let shape = Shape::new(schema).unwrap();
        for answer in ["{\"a\": 1}", " Sure!\n```json\n{\"a\": 1}\n```\nDone.", "Here: {\"a\": 1} and so on"]
        {
            assert_eq!(shape.read(answer), Ok(json!({"a": 1})), "{answer}");
        }
        for (answer, said) in [
            ("no", "no JSON"),
            ("{\"a\": ", "no JSON"),
            ("{\"b\": 1}", "required"),
            ("{\"a\": \"x\"}", "`/a`"),
            (&"[".repeat(1_000_000), "no JSON"),
        ] {
            let error = shape.read(answer).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(Shape::new(json!({"type": 7})).is_err());
        let mut deep = json!(true);
        for _ in 0..80 {
            deep = json!({"not": deep});
        }
        assert!(Shape::new(deep).err().unwrap().contains("nested"));
    }
}
