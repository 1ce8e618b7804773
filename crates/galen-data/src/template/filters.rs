//! Filters, tests and methods where Jinja2 on Python differs from minijinja, and bounds on those that build text.

use super::limits::{charge, charge_value, count, refused};
use super::python;
use minijinja::value::{Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// Registers everything in `env`.
pub(super) fn register(env: &mut Environment<'static>) {
    charged(env);
    env.add_filter("tojson", python::tojson);
    env.add_filter("string", |v: Value| kept(Value::from(python::text(&v)?)));
    env.add_filter("trim", |v: Value, chars: Option<String>| {
        let text = python::text(&v)?;
        kept(Value::from(strip(&text, chars.as_deref(), true, true)))
    });
    env.add_filter(
        "join",
        |v: &Value, glue: Option<Value>, attribute: Option<Value>, kwargs: minijinja::value::Kwargs| {
            let attribute: Option<Value> = kwargs.get::<Option<Value>>("attribute")?.or(attribute);
            let glue = kwargs.get::<Option<Value>>("d")?.or(glue);
            kwargs.assert_all_used()?;
            let glue = glue.map_or(Ok(String::new()), |g| python::text(&g))?;
            join(v, &glue, attribute.as_ref())
        },
    );
    env.add_filter("replace", |v: Value, old: String, new: Value, n: Option<i64>| {
        replace(&python::text(&v)?, &old, &python::text(&new)?, n)
    });
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter(
        "indent",
        |v: Value,
         width: Option<usize>,
         first: Option<bool>,
         blank: Option<bool>,
         kwargs: minijinja::value::Kwargs| {
            let width = kwargs.get::<Option<usize>>("width")?.or(width).unwrap_or(4);
            let first = kwargs.get::<Option<bool>>("first")?.or(first).unwrap_or(false);
            let blank = kwargs.get::<Option<bool>>("blank")?.or(blank).unwrap_or(false);
            kwargs.assert_all_used()?;
            indent(&python::text(&v)?, count(width)?, first, blank)
        },
    );
    let format = Value::from_function(filters::format);
    env.add_filter("format", move |state: &State, args: Rest<Value>| {
        if args.first().and_then(Value::as_str).is_some_and(wide) {
            return Err(refused("a format asks for a width of more than three digits"));
        }
        kept(format.call(state, &args)?)
    });
    // Their results can be far larger than what they are given, and no chat template uses them.
    for refused_filter in ["batch", "slice", "pprint"] {
        env.remove_filter(refused_filter);
    }
    env.add_test("sequence", |v: &Value| iterable(v) || v.is_undefined());
    env.add_test("iterable", |v: &Value| iterable(v) || v.is_undefined());
    env.add_test("number", |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |v: &Value| v.kind() == ValueKind::Plain);
    env.set_unknown_method_callback(|state, value, method, args| {
        let out = methods(state, value, method, args)?;
        charge_value(&out)?;
        Ok(out)
    });
}

/// minijinja's own filters, with what they return charged to the budget.
fn charged(env: &mut Environment<'static>) {
    let own: [(&'static str, Value); 24] = [
        ("upper", Value::from_function(filters::upper)),
        ("lower", Value::from_function(filters::lower)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("escape", Value::from_function(filters::escape)),
        ("e", Value::from_function(filters::escape)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("items", Value::from_function(filters::items)),
        ("reverse", Value::from_function(filters::reverse)),
        ("split", Value::from_function(filters::split)),
        ("lines", Value::from_function(filters::lines)),
        ("sort", Value::from_function(filters::sort)),
        ("list", Value::from_function(filters::list)),
        ("sum", Value::from_function(filters::sum)),
        ("select", Value::from_function(filters::select)),
        ("reject", Value::from_function(filters::reject)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("map", Value::from_function(filters::map)),
        ("groupby", Value::from_function(filters::groupby)),
        ("unique", Value::from_function(filters::unique)),
        ("chain", Value::from_function(filters::chain)),
        ("zip", Value::from_function(filters::zip)),
        ("default", Value::from_function(filters::default)),
    ];
    for (name, filter) in own {
        env.add_filter(name, move |state: &State, args: Rest<Value>| {
            let out = filter.call(state, &args)?;
            charge_value(&out)?;
            Ok::<Value, Error>(out)
        });
    }
}

fn kept(value: Value) -> Result<Value, Error> {
    charge_value(&value)?;
    Ok(value)
}

fn iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
}

fn length(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from(0));
    }
    filters::length(value).map(Value::from)
}

/// What Python's `str.isspace` and `str.strip` call white space: Unicode's, and four control separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

fn join(values: &Value, glue: &str, attribute: Option<&Value>) -> Result<Value, Error> {
    let mut out = String::new();
    if values.is_undefined() {
        return Ok(Value::from(out));
    }
    for (i, value) in values.try_iter()?.enumerate() {
        let value = match attribute {
            Some(name) => value.get_item(name)?,
            None => value,
        };
        let text = python::text(&value)?;
        charge(text.len() + glue.len())?;
        if i > 0 {
            out.push_str(glue);
        }
        out.push_str(&text);
    }
    Ok(Value::from(out))
}

fn replace(text: &str, old: &str, new: &str, n: Option<i64>) -> Result<Value, Error> {
    let n = n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let found = text.matches(old).take(n).count();
    charge(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(old, new, n)))
}

fn indent(text: &str, width: usize, first: bool, blank: bool) -> Result<Value, Error> {
    let lines = text.split('\n').count();
    charge(text.len().saturating_add(lines.saturating_mul(width)))?;
    let padding = " ".repeat(width);
    let mut out = String::with_capacity(text.len() + lines * width);
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if (i > 0 || first) && (blank || i == 0 || !line.is_empty()) {
            out.push_str(&padding);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// Python's methods on text, dicts and lists; what is not here is minijinja-contrib's.
fn methods(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => text_methods(state, value, text, method, args),
        None if method == "index" && matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => {
            let (wanted,) = from_args::<(Value,)>(args)?;
            let place = value.try_iter()?.position(|item| item == wanted);
            place.map(Value::from).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, format!("`{wanted}` is not in the list"))
            })
        }
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn text_methods(
    state: &State,
    value: &Value,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let all = |class: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(!text.is_empty() && text.chars().all(class)))
    };
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, chars, method != "rstrip", method != "lstrip")))
        }
        "split" | "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|m| usize::try_from(m).ok()).unwrap_or(usize::MAX);
            split(text, separator, most, method == "rsplit")
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found =
                if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "replace" => {
            let (old, new, n): (&str, &str, Option<i64>) = from_args(args)?;
            replace(text, old, new, n)
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            join(values, text, None)
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let found = if method.starts_with('r') { text.rfind(what) } else { text.find(what) };
            match found {
                Some(at) => Ok(Value::from(text[..at].chars().count())),
                None if method.ends_with("find") => Ok(Value::from(-1)),
                None => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
            }
        }
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(Value::from(text.matches(what).count()))
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            Ok(Value::from(pad(text, count(width)?, fill, method)))
        }
        "isdigit" | "isnumeric" => all(char::is_numeric),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isspace" => all(is_space),
        "islower" => {
            Ok(Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))
        }
        "isupper" => {
            Ok(Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))
        }
        "format" if wide(text) => Err(refused("a format asks for a width of more than three digits")),
        "splitlines" | "format" | "upper" | "lower" | "title" | "capitalize" | "startswith" | "endswith"
        | "isascii" => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Whether a format string holds a number of more than three digits.
fn wide(format: &str) -> bool {
    let mut run = 0;
    format.bytes().any(|b| {
        run = if b.is_ascii_digit() { run + 1 } else { 0 };
        run > 3
    })
}

fn pad(text: &str, width: usize, fill: Option<char>, method: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let fill = |n: usize| fill.unwrap_or(if method == "zfill" { '0' } else { ' ' }).to_string().repeat(n);
    match method {
        "ljust" => format!("{text}{}", fill(missing)),
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
        "zfill" if text.starts_with(['-', '+']) => format!("{}{}{}", &text[..1], fill(missing), &text[1..]),
        _ => format!("{}{text}", fill(missing)),
    }
}

fn split(text: &str, separator: Option<&str>, most: usize, from_right: bool) -> Result<Value, Error> {
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = text;
    match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => {
            while parts.len() < most {
                let found = if from_right { rest.rsplit_once(separator) } else { rest.split_once(separator) };
                let Some((before, after)) = found else { break };
                parts.push(if from_right { after } else { before });
                rest = if from_right { before } else { after };
            }
            parts.push(rest);
        }
        None => loop {
            rest = rest.trim_start_matches(is_space);
            rest = if from_right { rest.trim_end_matches(is_space) } else { rest };
            if rest.is_empty() {
                break;
            }
            let cut = if from_right {
                rest.char_indices().rev().find(|(_, c)| is_space(*c)).map(|(i, c)| (i, i + c.len_utf8()))
            } else {
                rest.char_indices().find(|(_, c)| is_space(*c)).map(|(i, c)| (i, i + c.len_utf8()))
            };
            match cut {
                Some((end, next)) if parts.len() < most => {
                    parts.push(if from_right { &rest[next..] } else { &rest[..end] });
                    rest = if from_right { &rest[..end] } else { &rest[next..] };
                }
                _ => {
                    parts.push(rest);
                    break;
                }
            }
        },
    }
    if from_right {
        parts.reverse();
    }
    charge(text.len().saturating_add(parts.len().saturating_mul(32)))?;
    Ok(parts.into_iter().map(Value::from).collect())
}
