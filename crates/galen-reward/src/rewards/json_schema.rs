//! Whether the answer is JSON, and valid against a schema.

use crate::answer::{ANSWER, Answer};
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "json_schema",
    about: "1 where the answer is JSON that a schema accepts; `parsed` where it is JSON it refuses; else 0",
    doc: "The whole answer must be one JSON document; a Markdown fence around it is taken off. Drafts 4, 6, 7, 2019-09 and \
          2020-12, by the schema's `$schema` (without one 2020-12). References inside the schema are followed, others \
          refused: nothing is fetched. Patterns of the schema are matched in linear time, without look-around.",
    params: &[PARAMS, ANSWER],
    build,
};

const PARAMS: &[Param] = &[
    Param::optional(
        "schema",
        Kind::Value("a schema, or the path of a JSON file with one"),
        "the schema; left out, any JSON is accepted",
    ),
    Param::with("parsed", Kind::Number, "0", "reward of JSON that the schema refuses"),
];

/// What a file's parser allows, for schemas in the configuration too.
const MAX_SCHEMA_DEPTH: usize = 128;
/// Largest schema file, bytes.
const MAX_SCHEMA_BYTES: u64 = 4 << 20;

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let schema = match options.value("schema")? {
        None => Value::Bool(true),
        Some(Value::String(path)) => read(&path).map_err(|what| options.wrong("schema", what))?,
        Some(schema @ (Value::Object(_) | Value::Bool(_))) => schema,
        Some(other) => {
            return Err(options
                .wrong("schema", format!("takes a map or a path, not {}", crate::error::shown(&other))));
        }
    };
    if depth_over(&schema, MAX_SCHEMA_DEPTH) {
        return Err(options.wrong("schema", format!("is nested more than `{MAX_SCHEMA_DEPTH}` deep")));
    }
    let validator = jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .build(&schema)
        .map_err(|e| options.wrong("schema", format!("is no schema: {e}")))?;
    Ok(Box::new(JsonSchema { answer: Answer::new(options)?, validator, parsed: options.number("parsed")? }))
}

fn depth_over(value: &Value, limit: usize) -> bool {
    let over = |inner: &Value| limit == 0 || depth_over(inner, limit - 1);
    match value {
        Value::Array(list) => list.iter().any(over),
        Value::Object(map) => map.values().any(over),
        _ => false,
    }
}

fn read(path: &str) -> Result<Value, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{path}: {e}");
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > MAX_SCHEMA_BYTES {
        return Err(failed(&format!("`{size}` bytes, more than a schema may have (`{MAX_SCHEMA_BYTES}`)")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    serde_json::from_str(&text).map_err(|e| failed(&format!("not JSON: {e}")))
}

struct JsonSchema {
    answer: Answer,
    validator: Validator,
    parsed: f64,
}

impl JsonSchema {
    fn reward(&self, text: &str) -> f64 {
        match self.answer.of(text).map(|a| serde_json::from_str::<Value>(unfenced(a))) {
            Some(Ok(document)) if self.validator.is_valid(&document) => 1.0,
            Some(Ok(_)) => self.parsed,
            _ => 0.0,
        }
    }
}

/// Without a Markdown fence around the whole.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix("```").and_then(|t| t.strip_suffix("```"));
    inside.and_then(|t| t.split_once('\n')).map_or(text, |(_, body)| body)
}

impl Reward for JsonSchema {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        Ok(completions.iter().map(|c| Some(self.reward(c.text))).collect())
    }
}
