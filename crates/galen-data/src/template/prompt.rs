//! Prompt templates: a folder of Jinja files, strict where chat templates must be lenient, under the same limits.
//!
//! All files of the folder are read when it is opened, so an include finds what lies in the folder and nothing else,
//! whatever a template asks for; nothing is read while rendering.

use super::env::from_json;
pub use super::env::from_json as to_value;
use super::limits::{self, BoundedOutput, charge};
use super::{filters, python, source};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What a prompt template's file ends with.
pub const EXTENSION: &str = ".jinja";
/// Files of a folder that are read.
const MAX_FILES: usize = 2_000;
/// Bytes of all of them.
const MAX_BYTES: usize = 16 << 20;
/// Folders within folders.
const MAX_DEPTH: usize = 6;
/// Bytes of one rendered prompt; what a model reads is far shorter.
const MAX_PROMPT_BYTES: usize = 4 << 20;

/// A prompt template could not be read or rendered. Its text has no origin: the caller knows the row or the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PromptError(pub String);

/// The cause within all includes, with the template in which it is.
fn error(e: &Error) -> PromptError {
    let mut e = e;
    while let Some(cause) = std::error::Error::source(e).and_then(|s| s.downcast_ref::<Error>()) {
        e = cause;
    }
    let name = e.name().filter(|n| !n.starts_with('<')).map(|n| format!("{n}: ")).unwrap_or_default();
    PromptError(format!("template {name}{}", super::error::describe(e)))
}

/// Templates by name: of a folder, of the program, and single ones added under names of their own.
#[derive(Debug)]
pub struct Prompts {
    env: Environment<'static>,
    sources: BTreeMap<String, String>,
    /// Templates that do not compile, and why.
    broken: BTreeMap<String, PromptError>,
    longest_literal: usize,
}

impl Prompts {
    /// None yet. `globals` adds functions to the environment.
    pub fn new(globals: impl FnOnce(&mut Environment<'static>)) -> Self {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_recursion_limit(limits::MAX_RECURSION);
        env.set_debug(false);
        env.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            let text = match value.as_str() {
                Some(text) => text.to_owned(),
                None => python::text(value)?,
            };
            charge(text.len())?;
            out.write_str(&text).map_err(Error::from)
        });
        filters::register(&mut env);
        super::env::register(&mut env);
        env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
            let text = python::text(&message)?;
            Err(Error::new(ErrorKind::InvalidOperation, format!("{}{text}", super::env::RAISED)))
        });
        env.add_function("debug", || Err::<Value, _>(limits::refused("`debug` is not available")));
        globals(&mut env);
        Self { env, sources: BTreeMap::new(), broken: BTreeMap::new(), longest_literal: 0 }
    }

    /// One more template; one of the same name is replaced. What does not compile is known from then on and said when it
    /// is asked for.
    pub fn add(&mut self, name: &str, text: &str) {
        self.broken.remove(name);
        let compiled = source::rewrite(text).map_err(|what| PromptError(format!("template {name}: {what}")));
        let compiled = compiled.and_then(|rewritten| {
            let env = &mut self.env;
            let add = move || env.add_template_owned(name.to_owned(), rewritten.text).map_err(|e| error(&e));
            limits::on_deep_stack(add).unwrap_or_else(thread)?;
            Ok(rewritten.longest_literal)
        });
        match compiled {
            Ok(literal) => self.longest_literal = self.longest_literal.max(literal),
            Err(e) => {
                self.env.remove_template(name);
                self.broken.insert(name.to_owned(), e);
            }
        }
        self.env.set_fuel(Some(limits::fuel(self.longest_literal)));
        self.sources.insert(name.to_owned(), text.to_owned());
    }

    /// Every `.jinja` file of a folder, by its path within it. Errors: the folder cannot be read, or holds too much.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), PromptError> {
        let mut files = Vec::new();
        let root = folder.canonicalize().map_err(|e| PromptError(format!("{}: {e}", folder.display())))?;
        walk(&root, &root, 0, &mut files)?;
        files.sort();
        let mut bytes = 0;
        for name in files {
            let path = root.join(&name);
            let fail = |e: std::io::Error| PromptError(format!("{}: {e}", path.display()));
            bytes += std::fs::metadata(&path).map_err(fail)?.len() as usize;
            if bytes > MAX_BYTES {
                return Err(PromptError(format!(
                    "{}: its templates are more than {MAX_BYTES} bytes",
                    folder.display()
                )));
            }
            let text = std::fs::read_to_string(&path).map_err(fail)?;
            self.add(&name, &text);
        }
        Ok(())
    }

    /// The name under which a template is known: as given, or with its ending. Errors: there is none, or it does not
    /// compile.
    pub fn find(&self, name: &str) -> Result<String, PromptError> {
        let with_ending = format!("{name}{EXTENSION}");
        let found = [name, &with_ending].into_iter().find(|n| self.sources.contains_key(*n));
        let Some(found) = found else {
            let names: Vec<&str> = self.names().map(|n| n.strip_suffix(EXTENSION).unwrap_or(n)).collect();
            let hint = match crate::error::nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are `{}`", names.join("`, `")),
            };
            return Err(PromptError(format!("there is no template `{name}`\nhint: {hint}")));
        };
        self.broken.get(found).map_or(Ok(found.to_owned()), |e| Err(e.clone()))
    }

    /// Names of all templates that are files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str).filter(|n| n.ends_with(EXTENSION))
    }

    /// SHA-256 of a template and of every template it names, each with its name.
    pub fn sha256(&self, name: &str) -> String {
        let mut names = vec![name];
        let mut at = 0;
        while let Some(source) = names.get(at).and_then(|n| self.sources.get(*n)) {
            for other in self.sources.keys() {
                let named =
                    source.contains(&format!("\"{other}\"")) || source.contains(&format!("'{other}'"));
                if named && !names.contains(&other.as_str()) {
                    names.push(other);
                }
            }
            at += 1;
        }
        names[1..].sort_unstable();
        let mut hasher = Sha256::new();
        for name in names {
            let source = self.sources.get(name).map_or("", String::as_str);
            hasher.update(format!("{name}\n{}\n", source.len()));
            hasher.update(source);
        }
        format!("{:x}", hasher.finalize())
    }

    /// The text of a template with these variables; `name` as [`Prompts::find`] gave it.
    pub fn render(&self, name: &str, variables: &Map<String, Json>) -> Result<String, PromptError> {
        let work = || {
            limits::start(size(variables));
            let mut out = BoundedOutput::default();
            let template = self.env.get_template(name)?;
            template.render_captured_to(values(variables), &mut out)?;
            String::from_utf8(out.0).map_err(|_| limits::refused("the rendered text is not UTF-8"))
        };
        let text = limits::on_deep_stack(work).unwrap_or_else(|| Err(no_thread())).map_err(|e| error(&e))?;
        if text.len() > MAX_PROMPT_BYTES {
            let what = format!("the prompt is {} bytes, more than {MAX_PROMPT_BYTES}", text.len());
            return Err(PromptError(what));
        }
        Ok(text)
    }

    /// Whether `expression` compiles.
    pub fn check_expression(&self, expression: &str) -> Result<(), PromptError> {
        let text = rewritten(expression)?;
        let work = || self.env.compile_expression(&text).map(|_| ()).map_err(|e| error(&e));
        limits::on_deep_stack(work).unwrap_or_else(thread)
    }

    /// The value of a Jinja expression, as JSON.
    pub fn evaluate(&self, expression: &str, variables: &Map<String, Json>) -> Result<Json, PromptError> {
        let text = rewritten(expression)?;
        let work = || {
            limits::start(size(variables));
            let value = self.env.compile_expression(&text)?.eval(values(variables))?;
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            serde_json::to_value(&value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
        };
        limits::on_deep_stack(work).unwrap_or_else(|| Err(no_thread())).map_err(|e| error(&e))
    }

    /// Whether an expression holds of these variables, as `{% if %}` takes it.
    pub fn holds(&self, expression: &str, variables: &Map<String, Json>) -> Result<bool, PromptError> {
        Ok(match self.evaluate(expression, variables)? {
            Json::Null => false,
            Json::Bool(b) => b,
            Json::Number(n) => n.as_f64() != Some(0.0),
            Json::String(s) => !s.is_empty(),
            Json::Array(a) => !a.is_empty(),
            Json::Object(o) => !o.is_empty(),
        })
    }
}

/// An expression with the counting filters of a template's.
fn rewritten(expression: &str) -> Result<String, PromptError> {
    if expression.contains("}}") || expression.contains("{%") {
        return Err(PromptError("an expression has no `{{ }}` and no `{% %}` in it".into()));
    }
    let tag = source::rewrite(&format!("{{{{ {expression} }}}}")).map_err(PromptError)?.text;
    let inside = tag.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
    Ok(inside.unwrap_or(expression).trim().to_owned())
}

fn values(variables: &Map<String, Json>) -> Value {
    variables.iter().map(|(k, v)| (Value::from(k.as_str()), from_json(v))).collect()
}

/// Bytes of text in the variables, about.
pub(super) fn size(variables: &Map<String, Json>) -> usize {
    fn of(value: &Json) -> usize {
        match value {
            Json::String(s) => s.len(),
            Json::Array(a) => a.iter().map(of).sum::<usize>() + 16,
            Json::Object(o) => o.iter().map(|(k, v)| k.len() + of(v)).sum::<usize>() + 16,
            _ => 8,
        }
    }
    variables.values().map(of).sum()
}

fn thread<T>() -> Result<T, PromptError> {
    Err(PromptError("a rendering thread could not be started, or died".into()))
}

pub(super) fn no_thread() -> Error {
    limits::refused("a rendering thread could not be started, or died")
}

/// Template files below `root`; links that lead out of it are no part of it.
fn walk(root: &Path, folder: &Path, depth: usize, files: &mut Vec<String>) -> Result<(), PromptError> {
    let fail = |e: std::io::Error| PromptError(format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Ok(real) = path.canonicalize() else { continue };
        if !real.starts_with(root) {
            continue;
        }
        if real.is_dir() && depth < MAX_DEPTH {
            walk(root, &path, depth + 1, files)?;
        } else if real.is_file()
            && let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && name.ends_with(EXTENSION)
        {
            files.push(name.replace('\\', "/"));
        }
        if files.len() > MAX_FILES {
            return Err(PromptError(format!("{}: more than {MAX_FILES} templates", root.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vars(value: Json) -> Map<String, Json> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn prompts(templates: &[(&str, &str)]) -> Prompts {
        let mut prompts = Prompts::new(|_| ());
        for (name, text) in templates {
            prompts.add(name, text);
        }
        prompts
    }

    #[test]
    fn a_folder_s_templates_and_nothing_beside_it() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("prompts");
        std::fs::create_dir_all(folder.join("parts")).unwrap();
        std::fs::write(outer.path().join("secret.jinja"), "secret").unwrap();
        std::fs::write(folder.join("a.jinja"), "{% include 'parts/b.jinja' %} {{ row.x }}").unwrap();
        std::fs::write(folder.join("parts/b.jinja"), "part").unwrap();
        std::fs::write(folder.join("out.jinja"), "{% include '../secret.jinja' %}").unwrap();
        std::fs::write(folder.join("passwd.jinja"), "{% include '/etc/passwd' %}").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(outer.path().join("secret.jinja"), folder.join("link.jinja")).unwrap();
        let mut prompts = Prompts::new(|_| ());
        prompts.add_folder(&folder).unwrap();
        let names: Vec<&str> = prompts.names().collect();
        assert_eq!(names, ["a.jinja", "out.jinja", "parts/b.jinja", "passwd.jinja"]);
        let row = vars(json!({"row": {"x": 3}}));
        assert_eq!(prompts.render(&prompts.find("a").unwrap(), &row).unwrap(), "part 3");
        for name in ["out", "passwd"] {
            let said = prompts.render(&prompts.find(name).unwrap(), &row).unwrap_err();
            assert!(said.0.contains("not found") || said.0.contains("does not exist"), "{said}");
        }
        let hash = prompts.sha256("a.jinja");
        prompts.add("parts/b.jinja", "other");
        assert_ne!(prompts.sha256("a.jinja"), hash);
        assert!(prompts.find("parts/c").unwrap_err().0.contains("hint: did you mean `parts/b`"));
    }

    #[test]
    fn hostile_templates_end_with_an_error() {
        let row = vars(json!({"row": {"x": "text"}}));
        for (text, said) in [
            ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "too long"),
            ("{{ range(999999999)|list }}", "range"),
            ("{{ 'a' * 999999999 }}", "4096"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
            ("{% include 'self' %}", "recursion"),
            ("{{ row.__class__.__mro__ }}", "undefined"),
            ("{{ row.missing }}", "undefined"),
            ("{{ missing }}", "undefined"),
            ("{{ row.x.__init__() }}", "method"),
            ("{{ debug() }}", "not available"),
            ("{% include '/etc/passwd' %}", "template"),
            ("{{ raise_exception('no such row') }}", "`no such row`"),
        ] {
            let prompts = prompts(&[("self", text)]);
            let e = prompts.render(&prompts.find("self").unwrap(), &row).unwrap_err();
            assert!(e.0.contains(said), "{text}: {e}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(prompts(&[("deep", &deep)]).find("deep").is_err());
        let doubling = "{% set ns = namespace(t='aaaaaaaaaaaaaaaa') %}{% for i in range(64) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}";
        let prompts = prompts(&[("d", doubling)]);
        assert!(prompts.render("d", &row).unwrap_err().0.contains("more text than is allowed"));
    }

    #[test]
    fn expressions() {
        let prompts = prompts(&[]);
        let row = vars(json!({"row": {"text": "a b c", "score": 3.5, "none": null, "list": []}}));
        for (expression, expect) in [
            ("row.score >= 3", true),
            ("row.text|length > 5", false),
            ("'b' in row.text and row.score < 4", true),
            ("row.none", false),
            ("row.list", false),
            ("row.text.split(' ')|length == 3", true),
            ("row.missing is undefined", true),
        ] {
            prompts.check_expression(expression).unwrap();
            assert_eq!(prompts.holds(expression, &row), Ok(expect), "{expression}");
        }
        assert!(prompts.holds("row.missing > 1", &row).is_err());
        assert!(prompts.check_expression("row.").is_err());
        assert!(prompts.check_expression("1 }}{{ 2").is_err());
        assert!(prompts.evaluate("'ab' * 99999999", &row).is_err());
        assert_eq!(prompts.evaluate("row.text.upper()", &row), Ok(json!("A B C")));
    }
}
