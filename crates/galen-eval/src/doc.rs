//! One row through `doc_to_text`, `doc_to_choice`, `doc_to_target`.

use crate::error::{EvalError, nearest};
use crate::literal;
use crate::task::DocTo;
use crate::task::shorten;
use crate::template::Templates;
use galen_types::RawRow;
use serde_json::Value;

/// What `doc_to_text` gives: a question, or (with choices) the number of the choice that is right, the choices being
/// whole contexts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Text(String),
    Index(i64),
}

/// What `doc_to_target` gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    Index(i64),
    Text(String),
    List(Vec<Target>),
}

/// Reads rows by the harness's rules: the text of a `doc_to_*` that is a field's name means the field's value, any
/// other is a template.
pub(crate) struct Reader<'a> {
    pub templates: &'a Templates,
    pub row: &'a RawRow,
    /// Whether the task lists choices: then digits alone are an index.
    pub has_choices: bool,
}

impl Reader<'_> {
    pub fn fail(&self, key: &str, what: impl AsRef<str>) -> EvalError {
        EvalError::row(&self.row.origin, format!("`{key}`: {}", what.as_ref()))
    }

    /// A field's value as text, or the template's.
    pub fn text_of(&self, key: &str, source: &str) -> Result<String, EvalError> {
        match self.row.fields.get(source) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Ok(python(other)),
            None => self.templates.render(source, &self.row.fields).map_err(|e| self.fail(key, e)),
        }
    }

    pub fn text(&self, doc: &DocTo) -> Result<Text, EvalError> {
        let source = match doc {
            DocTo::Int(i) => return Ok(Text::Index(*i)),
            DocTo::List(_) => return Err(self.fail("doc_to_text", "a list is not a text")),
            DocTo::Text(source) => source,
        };
        match self.row.fields.get(source) {
            Some(Value::String(text)) => return Ok(Text::Text(text.clone())),
            Some(Value::Number(n)) if self.has_choices => {
                let index =
                    n.as_i64().ok_or_else(|| self.fail("doc_to_text", format!("`{n}` is not an index")))?;
                return Ok(Text::Index(index));
            }
            Some(Value::Null) => return Err(self.fail("doc_to_text", format!("field `{source}` is null"))),
            Some(other) => return Ok(Text::Text(python(other))),
            None => {}
        }
        // A bare word that is no field would be the same prompt for every row.
        if !source.is_empty() && source.chars().all(|c| c.is_alphanumeric() || c == '_') {
            let fields = self.row.fields.keys().map(String::as_str);
            let hint = nearest(source, fields.clone()).map_or_else(
                || format!("\nhint: the row's fields are `{}`", fields.collect::<Vec<_>>().join("` `")),
                |near| format!("\nhint: did you mean `{near}`?"),
            );
            return Err(self.fail("doc_to_text", format!("the row has no field `{source}`{hint}")));
        }
        let text = self.text_of("doc_to_text", source)?;
        Ok(match digits(&text) {
            Some(index) if self.has_choices => Text::Index(index),
            _ => Text::Text(text),
        })
    }

    pub fn choices(&self, doc: &DocTo) -> Result<Vec<String>, EvalError> {
        let fail = |what: String| Err(self.fail("doc_to_choice", what));
        let list = match doc {
            DocTo::List(list) => list.clone(),
            DocTo::Int(i) => return fail(format!("`{i}` is not a list")),
            DocTo::Text(source) => {
                let value = match self.row.fields.get(source) {
                    Some(value) => Some(value.clone()),
                    None => literal::parse(&self.text_of("doc_to_choice", source)?),
                };
                match value {
                    Some(Value::Array(items)) => {
                        let text = |v: &Value| match v {
                            Value::String(text) => Ok(text.clone()),
                            Value::Number(n) => Ok(n.to_string()),
                            other => Err(self.fail("doc_to_choice", format!("choice `{other}` is not text"))),
                        };
                        items.iter().map(text).collect::<Result<_, _>>()?
                    }
                    // A mapping's values, as the harness takes them.
                    other => {
                        let found = other
                            .map_or_else(|| "no list".into(), |v| format!("`{}`", shorten(&v.to_string())));
                        return fail(format!(
                            "gives {found}, expected a list of texts such as `[\"yes\", \"no\"]`"
                        ));
                    }
                }
            }
        };
        if list.is_empty() || list.len() > 4096 {
            return fail(format!("{} choices, expected 1 to 4096", list.len()));
        }
        match list.iter().position(String::is_empty) {
            Some(i) => fail(format!("choice {i} is empty: an empty text has no likelihood")),
            None => Ok(list),
        }
    }

    pub fn target(&self, doc: &DocTo) -> Result<Target, EvalError> {
        let source = match doc {
            DocTo::Int(i) => return Ok(Target::Index(*i)),
            DocTo::List(list) => return Ok(Target::List(list.iter().cloned().map(Target::Text).collect())),
            DocTo::Text(source) => source,
        };
        if let Some(value) = self.row.fields.get(source) {
            return self.target_of(value, 0);
        }
        let text = self.text_of("doc_to_target", source)?;
        if let Some(index) = digits(&text).filter(|_| self.has_choices) {
            return Ok(Target::Index(index));
        }
        if text.len() >= 2
            && text.starts_with('[')
            && text.ends_with(']')
            && let Some(list) = literal::parse(&text)
        {
            return self.target_of(&list, 0);
        }
        Ok(Target::Text(text))
    }

    fn target_of(&self, value: &Value, depth: usize) -> Result<Target, EvalError> {
        match value {
            Value::Null => Err(self.fail("doc_to_target", "the answer is null")),
            Value::String(text) => Ok(Target::Text(text.clone())),
            Value::Bool(b) if self.has_choices => Ok(Target::Index(i64::from(*b))),
            Value::Number(n) if self.has_choices && n.is_i64() => {
                Ok(Target::Index(n.as_i64().unwrap_or_default()))
            }
            Value::Array(items) if depth == 0 => {
                Ok(Target::List(items.iter().map(|v| self.target_of(v, 1)).collect::<Result<_, _>>()?))
            }
            other => Ok(Target::Text(python(other))),
        }
    }

    /// The indices of the right choices. Unlike the harness, which counts it wrong, a label that names no choice is
    /// an error: such a number measures nothing.
    pub fn gold_choices(&self, target: &Target, choices: &[String]) -> Result<Vec<usize>, EvalError> {
        let one = |target: &Target| match target {
            Target::Index(i) => usize::try_from(*i).ok().filter(|i| *i < choices.len()).ok_or_else(|| {
                let what = format!("label `{i}` of {} choices", choices.len());
                self.fail(
                    "doc_to_target",
                    format!("{what}\nhint: labels count from 0; hidden labels cannot be scored"),
                )
            }),
            Target::Text(text) => choices.iter().position(|c| c == text).ok_or_else(|| {
                let shown = shorten(&choices.join("` `"));
                self.fail(
                    "doc_to_target",
                    format!("answer `{}` is none of the choices `{shown}`", shorten(text)),
                )
            }),
            Target::List(_) => Err(self.fail("doc_to_target", "a list within a list")),
        };
        match target {
            Target::List(list) if list.is_empty() => Err(self.fail("doc_to_target", "no right answer")),
            Target::List(list) => list.iter().map(one).collect(),
            single => Ok(vec![one(single)?]),
        }
    }

    /// The right answers as texts.
    pub fn gold_texts(&self, target: &Target, choices: Option<&[String]>) -> Result<Vec<String>, EvalError> {
        let list = match target {
            Target::List(list) if list.is_empty() => {
                return Err(self.fail("doc_to_target", "no right answer"));
            }
            Target::List(list) => list.as_slice(),
            single => std::slice::from_ref(single),
        };
        list.iter()
            .map(|target| match (target, choices) {
                (Target::Index(_), Some(choices)) => {
                    let index = self.gold_choices(target, choices)?;
                    Ok(index.first().and_then(|i| choices.get(*i)).cloned().unwrap_or_default())
                }
                (Target::Index(i), None) => Ok(i.to_string()),
                (Target::Text(text), _) => Ok(text.clone()),
                (Target::List(_), _) => Err(self.fail("doc_to_target", "a list within a list")),
            })
            .collect()
    }
}

/// `str(value)` in Python.
fn python(value: &Value) -> String {
    literal::python_str(&minijinja::Value::from_serialize(value))
}

/// The number that ASCII digits alone write, as Python's `str.isdigit` and `int` would read it.
fn digits(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_types::Origin;
    use serde_json::json;

    fn with<T>(row: Value, has_choices: bool, f: impl Fn(&Reader<'_>) -> T) -> T {
        let Value::Object(fields) = row else { panic!("a row is an object") };
        let row = RawRow { origin: Origin::new("rows.jsonl", 3), fields };
        f(&Reader { templates: &Templates::new(), row: &row, has_choices })
    }

    #[test]
    fn labels_in_all_spellings() {
        let choices = ["no".to_owned(), "yes".to_owned()];
        for (row, doc, expect) in [
            (json!({"label": 1}), DocTo::Text("label".into()), Ok(vec![1])),
            (json!({"label": true}), DocTo::Text("label".into()), Ok(vec![1])),
            (json!({"label": "yes"}), DocTo::Text("label".into()), Ok(vec![1])),
            (json!({"label": "1"}), DocTo::Text("{{label}}".into()), Ok(vec![1])),
            (json!({"label": "yes"}), DocTo::Text("{{label}}".into()), Ok(vec![1])),
            (json!({"label": [0, 1]}), DocTo::Text("label".into()), Ok(vec![0, 1])),
            (json!({"label": [0, 1]}), DocTo::Text("{{label}}".into()), Ok(vec![0, 1])),
            (json!({}), DocTo::Int(0), Ok(vec![0])),
            // Text "1" in a field is a text, not an index.
            (json!({"label": "1"}), DocTo::Text("label".into()), Err("is none of the choices")),
            (json!({"label": 2}), DocTo::Text("label".into()), Err("label `2` of 2 choices")),
            (json!({"label": -1}), DocTo::Text("label".into()), Err("label `-1` of 2 choices")),
            (json!({"label": null}), DocTo::Text("label".into()), Err("null")),
            (json!({"label": []}), DocTo::Text("label".into()), Err("no right answer")),
        ] {
            let found =
                with(row.clone(), true, |r| r.target(&doc).and_then(|t| r.gold_choices(&t, &choices)));
            match (found, expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{row} {doc:?}"),
                (Err(e), Err(part)) => {
                    let e = e.to_string();
                    assert!(e.starts_with("rows.jsonl:3: ") && e.contains(part), "{row} {doc:?}: {e}");
                }
                (found, _) => panic!("{row} {doc:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn choices_from_field_list_and_template() {
        let row = json!({"opts": ["a", "it's"], "x": "p", "y": "q", "c": {"text": ["s", "t"]}, "n": 3});
        for (source, expect) in [
            ("opts", vec!["a", "it's"]),
            ("{{opts}}", vec!["a", "it's"]),
            ("{{[x, y]}}", vec!["p", "q"]),
            ("['{{x}}', '{{y}}']", vec!["p", "q"]),
            ("{{c.text}}", vec!["s", "t"]),
        ] {
            let choices = with(row.clone(), true, |r| r.choices(&DocTo::Text(source.into()))).unwrap();
            assert_eq!(choices, expect, "{source}");
        }
        for source in ["{{x}}", "n", "{{['']}}", "{{[]}}"] {
            assert!(with(row.clone(), true, |r| r.choices(&DocTo::Text(source.into()))).is_err(), "{source}");
        }
    }

    #[test]
    fn text_from_field_or_template() {
        let row = json!({"question": "Q?", "n": 1});
        let text = |source: &str, has| with(row.clone(), has, |r| r.text(&DocTo::Text(source.into())));
        assert_eq!(text("question", true).unwrap(), Text::Text("Q?".into()));
        assert_eq!(text("{{question}}\nA:", true).unwrap(), Text::Text("Q?\nA:".into()));
        assert_eq!(text("n", true).unwrap(), Text::Index(1));
        assert_eq!(text("{{n}}", true).unwrap(), Text::Index(1));
        assert_eq!(text("{{n}}", false).unwrap(), Text::Text("1".into()));
        assert!(text("questoin", true).unwrap_err().to_string().contains("did you mean `question`?"));
        assert!(text("{{missing}}", true).is_err());
    }
}
