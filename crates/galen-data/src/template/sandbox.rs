//! Templates of tasks: single texts, strict about missing fields, their blanks kept as written, under the same limits as chat
//! templates, since they too come from files others wrote.

use super::env::from_json;
use super::limits::{self, BoundedOutput, charge};
use super::source::{self, Source};
use super::{filters, prompt, python};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

/// The environment of such templates, with Python's methods and spelling of values.
#[derive(Debug)]
pub struct Sandbox(Environment<'static>);

impl Sandbox {
    /// Without filters beyond Jinja's.
    pub fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_keep_trailing_newline(true);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            let text = python::text(value)?;
            charge(text.len())?;
            out.write_str(&text).map_err(Error::from)
        });
        env.set_recursion_limit(limits::MAX_RECURSION);
        env.set_debug(false);
        filters::register(&mut env);
        super::env::register(&mut env);
        Self(env)
    }

    /// Adds a filter from a text and two others to a text. It calls [`about_to_build`] before it does.
    pub fn add_text_filter(
        &mut self,
        name: &'static str,
        f: impl Fn(&str, &str, &str) -> Result<String, Error> + Send + Sync + 'static,
    ) {
        self.0.add_filter(name, f);
    }

    /// Errors: `source` is not a template, or too long for one.
    pub fn check(&self, source: &str) -> Result<(), String> {
        let Source { text, .. } = source::rewrite(source)?;
        let work = || self.0.template_from_str(&text).map(|_| ()).map_err(|e| super::error::describe(&e));
        limits::on_deep_stack(work).unwrap_or_else(|| Err(prompt::no_thread().to_string()))
    }

    /// The template's text with these variables.
    pub fn render(&self, source: &str, variables: &Map<String, Json>) -> Result<String, String> {
        let Source { text, longest_literal, .. } = source::rewrite(source)?;
        let mut env = self.0.clone();
        env.set_fuel(Some(limits::fuel(longest_literal)));
        let values: Value = variables.iter().map(|(k, v)| (Value::from(k.as_str()), from_json(v))).collect();
        let work = || {
            limits::start(prompt::size(variables));
            let mut out = BoundedOutput::default();
            env.template_from_str(&text)?.render_captured_to(values, &mut out)?;
            String::from_utf8(out.0).map_err(|_| limits::refused("the rendered text is not UTF-8"))
        };
        let rendered = limits::on_deep_stack(work).unwrap_or_else(|| Err(prompt::no_thread()));
        rendered.map_err(|e| super::error::describe(&e))
    }
}

/// Counts text of at most so many bytes that a filter builds. Errors: the template has built too much.
pub fn about_to_build(bytes: usize) -> Result<(), Error> {
    charge(bytes)
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}
