//! Parameters of a reward: declared once, read and checked against the declaration.

use crate::error::{ConfigError, shown, suggestion};
use serde_json::{Map, Value};
use std::cell::RefCell;

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text, or a list of texts.
    Texts,
    /// A finite number.
    Number,
    /// A whole number of 0 or more.
    Count,
    /// `true` or `false`.
    Flag,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// Anything the reward itself checks; in words.
    Value(&'static str),
}

impl Kind {
    /// In words, for docs and errors.
    pub fn words(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Texts => "text, or a list of texts".into(),
            Self::Number => "number".into(),
            Self::Count => "whole number, 0 or more".into(),
            Self::Flag => "true or false".into(),
            Self::OneOf(names) => format!("`{}`", names.join("`, `")),
            Self::Value(words) => words.into(),
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Texts => {
                value.is_string() || value.as_array().is_some_and(|l| l.iter().all(Value::is_string))
            }
            Self::Number => value.as_f64().is_some_and(f64::is_finite),
            Self::Count => value.as_u64().is_some(),
            Self::Flag => value.is_boolean(),
            Self::OneOf(names) => value.as_str().is_some_and(|v| names.contains(&v)),
            Self::Value(_) => true,
        }
    }
}

/// What holds when a parameter is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It must be given.
    Required,
    /// Nothing.
    Unset,
    /// This value, as JSON.
    Json(&'static str),
}

/// One parameter's only declaration.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// What it does.
    pub about: &'static str,
}

impl Param {
    /// A parameter that must be given.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, absent: Absent::Required, about }
    }

    /// A parameter that may be left out.
    pub const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, absent: Absent::Unset, about }
    }

    /// A parameter with a default, as JSON.
    pub const fn with(name: &'static str, kind: Kind, json: &'static str, about: &'static str) -> Self {
        Self { name, kind, absent: Absent::Json(json), about }
    }
}

/// Whether sockets may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// They may.
    Allowed,
    /// `--offline`.
    Offline,
}

/// The parameters given to one reward.
#[derive(Debug)]
pub struct Options<'a> {
    /// The reward's label, for its errors.
    pub label: &'a str,
    /// Whether it may open sockets.
    pub network: Network,
    place: &'a str,
    given: &'a Map<String, Value>,
    declared: &'static [&'static [Param]],
    /// Names that were read: tests hold them against the declaration.
    pub read: RefCell<Vec<&'static str>>,
}

impl<'a> Options<'a> {
    /// `given` is checked against `declared`; `place` is the key they stand under.
    pub fn new(
        label: &'a str,
        network: Network,
        place: &'a str,
        given: &'a Map<String, Value>,
        declared: &'static [&'static [Param]],
    ) -> Result<Self, ConfigError> {
        let options = Self { label, network, place, given, declared, read: RefCell::default() };
        for (key, value) in given {
            let Some(param) = options.declared(key) else {
                let names: Vec<_> = declared.iter().copied().flatten().map(|p| p.name).collect();
                let hint = if names.is_empty() { "it has none".into() } else { suggestion(key, &names) };
                return Err(options.wrong(key, "there is no such parameter").hint(hint));
            };
            if !value.is_null() && !param.kind.takes(value) {
                return Err(options.wrong(key, format!("takes {}, not {}", param.kind.words(), shown(value))));
            }
        }
        Ok(options)
    }

    fn declared(&self, name: &str) -> Option<&'static Param> {
        self.declared.iter().copied().flatten().find(|p| p.name == name)
    }

    /// An error about one parameter.
    pub fn wrong(&self, name: &str, what: impl Into<String>) -> ConfigError {
        ConfigError::new(format!("{}.{name}", self.place), what)
    }

    /// Whether a value is given, rather than left to its default.
    pub fn given(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|v| !v.is_null())
    }

    /// The value given, or the default; `None` when neither is there.
    pub fn value(&self, name: &str) -> Result<Option<Value>, ConfigError> {
        let Some(param) = self.declared(name) else { return Err(self.wrong(name, "is not declared")) };
        self.read.borrow_mut().push(param.name);
        if let Some(value) = self.given.get(name).filter(|v| !v.is_null()) {
            return Ok(Some(value.clone()));
        }
        match param.absent {
            Absent::Required => {
                Err(self.wrong(name, "is required").hint(format!("{}: {}", param.kind.words(), param.about)))
            }
            Absent::Unset => Ok(None),
            Absent::Json(text) => {
                let value = serde_json::from_str(text).map_err(|e| self.wrong(name, e.to_string()))?;
                Ok(Some(value))
            }
        }
    }

    fn get<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.wrong(name, format!("cannot be {}", shown(&value))))
    }

    fn must<T>(&self, name: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.wrong(name, "has no value"))
    }

    /// Text that may be left out.
    pub fn maybe_text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        self.get(name, |v| v.as_str().map(str::to_owned))
    }

    /// Text.
    pub fn text(&self, name: &str) -> Result<String, ConfigError> {
        self.must(name, self.maybe_text(name)?)
    }

    /// Text, not empty.
    pub fn filled(&self, name: &str) -> Result<String, ConfigError> {
        match self.text(name)? {
            text if text.trim().is_empty() => Err(self.wrong(name, "is empty")),
            text => Ok(text),
        }
    }

    /// One text or several; none when left out.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let texts = self.get(name, |v| match v {
            Value::Array(list) => list.iter().map(|t| t.as_str().map(str::to_owned)).collect(),
            one => one.as_str().map(|t| vec![t.to_owned()]),
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<f64, ConfigError> {
        self.must(name, self.get(name, Value::as_f64)?)
    }

    /// A whole number that may be left out.
    pub fn maybe_count(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.get(name, |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> Result<usize, ConfigError> {
        self.must(name, self.maybe_count(name)?)
    }

    /// A whole number of at least 1.
    pub fn positive(&self, name: &str) -> Result<usize, ConfigError> {
        match self.count(name)? {
            0 => Err(self.wrong(name, "takes 1 or more")),
            n => Ok(n),
        }
    }

    /// A time in seconds, above 0 and at most a day.
    pub fn seconds(&self, name: &str) -> Result<std::time::Duration, ConfigError> {
        let seconds = self.number(name)?;
        if seconds > 0.0 && seconds <= 86_400.0 {
            Ok(std::time::Duration::from_secs_f64(seconds))
        } else {
            Err(self.wrong(name, format!("takes seconds above 0 and at most 86400, not `{seconds}`")))
        }
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        self.must(name, self.get(name, Value::as_bool)?)
    }

    /// A pattern, its backtracking bounded.
    pub fn regex(&self, name: &str, pattern: &str) -> Result<fancy_regex::Regex, ConfigError> {
        fancy_regex::RegexBuilder::new(pattern)
            .backtrack_limit(MAX_BACKTRACKS)
            .build()
            .map_err(|e| self.wrong(name, format!("`{pattern}`: {e}")))
    }
}

/// Steps back a pattern may take on one completion before it counts as not matching.
const MAX_BACKTRACKS: usize = 200_000;
