//! Jinja templates of tasks, with limits: they come from files others wrote.

use crate::literal;
use fancy_regex::Regex;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

/// Instructions one rendering may use; published tasks need a few hundred.
const FUEL: u64 = 1_000_000;
/// Bytes of one template.
const MAX_TEMPLATE: usize = 1 << 20;

/// The templates' environment: strict about missing fields, Python's methods and spelling of values.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    pub fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_keep_trailing_newline(true);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(64);
        env.set_unknown_method_callback(python_method);
        env.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            out.write_str(&literal::python_str(value)).map_err(|_| Error::from(ErrorKind::WriteFailure))
        });
        env.add_filter("regex_replace", regex_replace);
        Self(env)
    }

    /// `Err` with the reason when the text is not a template.
    pub fn check(&self, source: &str) -> Result<(), String> {
        if source.len() > MAX_TEMPLATE {
            return Err(format!("{} bytes is too long for a template (limit {MAX_TEMPLATE})", source.len()));
        }
        self.0.template_from_str(source).map(|_| ()).map_err(|e| reason(&e))
    }

    pub fn render(
        &self,
        source: &str,
        row: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, String> {
        // Most delimiters and labels hold no template at all.
        if !source.contains('{') {
            return Ok(source.to_owned());
        }
        self.0.render_str(source, row).map_err(|e| reason(&e))
    }
}

fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (in <string>") {
        text.truncate(at);
    }
    text
}

/// `list.index` and what minijinja-contrib knows of Python's methods.
fn python_method(
    state: &minijinja::State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == "index"
        && let [wanted] = args
    {
        let place = match (value.kind(), value.as_str(), wanted.as_str()) {
            (ValueKind::String, Some(text), Some(part)) => {
                text.find(part).map(|at| text[..at].chars().count())
            }
            (ValueKind::Seq | ValueKind::Iterable, ..) => value.try_iter()?.position(|item| item == *wanted),
            _ => None,
        };
        return place.map(Value::from).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, format!("`{wanted}` is not in the list"))
        });
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn regex_replace(text: &str, pattern: &str, replacement: &str) -> Result<String, Error> {
    let fail =
        |e: fancy_regex::Error| Error::new(ErrorKind::InvalidOperation, format!("regex `{pattern}`: {e}"));
    let regex = Regex::new(pattern).map_err(fail)?;
    // Python writes groups `\1`, the regex crate `$1`; a literal `$` must not become a group.
    let groups = Regex::new(r"\\(\d+)").map_err(fail)?;
    let replacement = replacement.replace('$', "$$");
    let replacement = groups.replace_all(&replacement, "$${$1}");
    regex.try_replacen(text, 0, &*replacement).map(std::borrow::Cow::into_owned).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, row: serde_json::Value) -> Result<String, String> {
        let serde_json::Value::Object(row) = row else { panic!("a row is an object") };
        Templates::new().render(source, &row)
    }

    #[test]
    fn templates_of_published_tasks() {
        let row = json!({"question": " Q? ", "choices": {"text": ["x", "y's"], "label": ["A", "B"]}, "key": "B", "n": 3});
        for (source, expect) in [
            ("Question: {{question.strip()}}\nAnswer:", "Question: Q?\nAnswer:"),
            ("{{choices.label.index(key)}}", "1"),
            ("{{choices.text}}", r#"['x', "y's"]"#),
            ("{{['a', 'b'].index('b') + n}}", "4"),
            (
                "{% for l in choices.label %}{{ l }}. {{ choices.text[loop.index0] }}\n{% endfor %}",
                "A. x\nB. y's\n",
            ),
            ("{{ question|regex_replace('(Q)(.)', '\\\\2$\\\\1') }}", " ?$Q "),
            ("{{ n == 3 }}", "True"),
            ("plain\n", "plain\n"),
        ] {
            assert_eq!(render(source, row.clone()).as_deref(), Ok(expect), "{source}");
        }
    }

    #[test]
    fn hostile_templates_end() {
        assert!(render("{{ missing }}", json!({})).unwrap_err().contains("undefined"));
        let bomb = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(render(bomb, json!({})).is_err());
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(render(&deep, json!({})).is_err());
        assert!(render("{% include '/etc/passwd' %}", json!({})).is_err());
    }
}
