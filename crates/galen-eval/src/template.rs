//! Jinja templates of tasks, with limits: they come from files others wrote.

use crate::python_regex::python_regex;
use fancy_regex::Regex;
use galen_data::template::sandbox::{Sandbox, about_to_build};
use minijinja::{Error, ErrorKind};

/// The templates' environment, with lm-evaluation-harness' own filter.
pub(crate) struct Templates(Sandbox);

impl Templates {
    pub fn new() -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.add_text_filter("regex_replace", regex_replace);
        Self(sandbox)
    }

    /// `Err` with the reason when the text is not a template.
    pub fn check(&self, source: &str) -> Result<(), String> {
        self.0.check(source)
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
        self.0.render(source, row)
    }
}

fn regex_replace(text: &str, pattern: &str, replacement: &str) -> Result<String, Error> {
    let fail =
        |e: fancy_regex::Error| Error::new(ErrorKind::InvalidOperation, format!("regex `{pattern}`: {e}"));
    let regex = python_regex(pattern)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("regex `{pattern}`: {e}")))?;
    // Python writes groups `\1`, the regex crate `$1`; a literal `$` must not become a group.
    let groups = Regex::new(r"\\(\d+)").map_err(fail)?;
    let replacement = replacement.replace('$', "$$");
    let copies = groups.find_iter(&replacement).count();
    let replacement = groups.replace_all(&replacement, "$${$1}");
    // A group is part of its match, and matches do not overlap.
    let matches = regex.find_iter(text).count();
    let most =
        (1 + copies).saturating_mul(text.len()).saturating_add(matches.saturating_mul(replacement.len()));
    about_to_build(most)?;
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
        // Texts that double, lists that hold themselves twice, and a replacement of every character by many.
        let doubling = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
        let lists = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}";
        let replaced = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x|regex_replace('a', 'aaaaaaaa') %}{% endfor %}{{ ns.x|length }}";
        for template in [doubling, lists, replaced] {
            assert!(render(template, json!({})).unwrap_err().contains("than is allowed"), "{template}");
        }
    }
}
