//! The minijinja environment a chat template runs in: what Hugging Face gives its templates, and no more.

use super::limits::{self, BoundedOutput, charge, charge_value};
use super::source::{self, Source};
use super::{filters, python};
use chrono::{Local, NaiveDateTime};
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use std::cell::RefCell;
use std::fmt::Write as _;

const NAME: &str = "chat_template";

/// What one render needs beside its variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// What `strftime_now` formats; the clock where absent.
    pub date: Option<NaiveDateTime>,
    /// Characters written before and after what `{% generation %}` encloses.
    pub generation: Option<(char, char)>,
}

thread_local! {
    static RUN: RefCell<Run> = RefCell::default();
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Engine {
    env: Environment<'static>,
}

impl Engine {
    /// Compiles a rewritten source.
    pub(super) fn new(source: &Source) -> Result<Self, Error> {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_recursion_limit(limits::MAX_RECURSION);
        env.set_debug(false);
        env.set_formatter(|out, _, value| {
            if let Some(text) = value.as_str() {
                charge(text.len())?;
                return out.write_str(text).map_err(Error::from);
            }
            let text = python::text(value)?;
            charge(text.len())?;
            out.write_str(&text).map_err(Error::from)
        });
        filters::register(&mut env);
        register(&mut env);
        env.add_filter(source::GENERATION, |text: String| {
            RUN.with_borrow(|run| match run.generation {
                Some((open, close)) => format!("{open}{text}{close}"),
                None => text,
            })
        });
        env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
            let text = python::text(&message)?;
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{text}")))
        });
        env.add_function("strftime_now", strftime_now);
        env.add_function("debug", || Err::<Value, _>(limits::refused("`debug` is not available")));
        env.set_fuel(Some(limits::fuel(source.longest_literal)));
        env.add_template_owned(NAME, source.text.clone())?;
        Ok(Self { env })
    }

    /// Renders with `variables`, which hold about `input_bytes` of text. Call on a deep stack.
    pub(super) fn render(&self, variables: Value, input_bytes: usize, run: &Run) -> Result<String, Error> {
        RUN.set(run.clone());
        limits::start(input_bytes);
        let mut out = BoundedOutput::default();
        self.env.get_template(NAME)?.render_captured_to(variables, &mut out)?;
        String::from_utf8(out.0).map_err(|_| limits::refused("the rendered text is not UTF-8"))
    }
}

/// The filters that `source::rewrite` puts behind operands.
pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter(source::KEEP, |v: Value| charge_value(&v).map(|()| v));
    env.add_filter(source::TEXT, |v: Value| {
        let text = if v.kind() == ValueKind::String { v } else { Value::from(python::text(&v)?) };
        charge_value(&text).map(|()| text)
    });
    env.add_filter(source::ESCAPE, |v: Value| {
        if v.is_safe() {
            return charge_value(&v).map(|()| v);
        }
        let text = Value::from_safe_string(python::escape(&python::text(&v)?));
        charge_value(&text).map(|()| text)
    });
    env.add_filter(source::TIMES, times);
}

/// Marks an error that the template itself raised.
pub(super) const RAISED: &str = "raise_exception: ";

/// Operands of `*`: numbers are left alone up to a bound, and repeated text is charged as repeated.
fn times(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let bytes = value.as_str().map_or(0, str::len);
            limits::count(bytes)?;
            charge(bytes.saturating_mul(limits::MAX_COUNT))?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = limits::count(value.len().unwrap_or(usize::MAX))?;
            charge(items.saturating_mul(limits::MAX_COUNT))?;
        }
        ValueKind::Number
            if value.is_integer() && value.as_i64().is_none_or(|n| n > limits::MAX_COUNT as i64) =>
        {
            return Err(limits::refused("a factor is larger than 4096"));
        }
        _ => {}
    }
    Ok(value)
}

fn strftime_now(format: &str) -> Result<String, Error> {
    limits::count(format.len())?;
    let now = RUN.with_borrow(|run| run.date).unwrap_or_else(|| Local::now().naive_local());
    let mut out = String::new();
    // An unknown directive makes chrono's Display fail, which `to_string` would turn into a panic.
    write!(out, "{}", now.format(format)).map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, format!("date format `{format}` is not understood"))
    })?;
    Ok(out)
}

/// JSON as a template value: object keys keep their order.
pub fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (.., f) => Value::from(f.unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(map) => map.iter().map(|(k, v)| (Value::from(k.as_str()), from_json(v))).collect(),
    }
}
