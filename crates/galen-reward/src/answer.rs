//! The two sides of a comparison: what the completion answers, and what the row says is right.

use crate::error::{shorten, shown};
use crate::options::{Kind, Options, Param};
use crate::{Completion, ConfigError, RewardError};
use fancy_regex::Regex;
use serde_json::Value;

/// Parameters of [`Answer`].
pub(crate) const ANSWER: &[Param] = &[
    Param::optional(
        "after",
        Kind::Text,
        "only what follows the last occurrence of this text is judged, for example `</think>`; a completion without \
         it is wrong",
    ),
    Param::optional(
        "extract",
        Kind::Texts,
        "patterns, tried in order: of the first that matches, group 1 (without groups all of it) of its last match is \
         judged; a completion that none matches is wrong",
    ),
];

/// Which part of a completion is judged.
#[derive(Debug)]
pub(crate) struct Answer {
    after: Option<String>,
    extract: Vec<Regex>,
}

impl Answer {
    pub(crate) fn new(options: &Options<'_>) -> Result<Self, ConfigError> {
        let after = options.maybe_text("after")?;
        if after.as_deref() == Some("") {
            return Err(options.wrong("after", "is empty"));
        }
        let patterns = options.texts("extract")?;
        let extract = patterns.iter().map(|p| options.regex("extract", p)).collect::<Result<_, _>>()?;
        Ok(Self { after, extract })
    }

    /// `None`: the completion has no such part.
    pub(crate) fn of<'t>(&self, text: &'t str) -> Option<&'t str> {
        let text = match &self.after {
            Some(mark) => text.rsplit_once(mark.as_str())?.1,
            None => text,
        };
        if self.extract.is_empty() {
            return Some(text);
        }
        self.extract.iter().find_map(|regex| captured(regex, text).last())
    }
}

/// Group 1 (without groups the whole) of each match. A match that needs too much backtracking ends the search.
pub(crate) fn captured<'r, 't>(
    regex: &'r Regex,
    text: &'t str,
) -> impl Iterator<Item = &'t str> + use<'r, 't> {
    let group = usize::from(regex.captures_len() > 1);
    let matches = regex.captures_iter(text).map_while(Result::ok);
    matches.filter_map(move |c| c.get(group).map(|m| m.as_str()))
}

/// Parameters of [`Gold`].
pub(crate) const GOLD: &[Param] = &[
    Param::with(
        "field",
        Kind::Text,
        "\"answer\"",
        "the row's field with the right answer, or a list of them; `a.b` is field `b` of field `a`",
    ),
    MISSING[0],
];

/// The parameter of [`Gold`] beside the field.
pub(crate) const MISSING: &[Param] = &[Param::with(
    "missing",
    Kind::OneOf(&["error", "skip"]),
    "\"error\"",
    "a row without a usable right answer: `error` stops, with `skip` the reward does not apply to it",
)];

/// What the row says is right.
#[derive(Debug)]
pub(crate) struct Gold {
    label: String,
    field: String,
    skip: bool,
}

impl Gold {
    pub(crate) fn new(options: &Options<'_>) -> Result<Self, ConfigError> {
        let gold = Self::of_field(options, Some(options.text("field")?))?;
        gold.ok_or_else(|| options.wrong("field", "is required"))
    }

    /// Of a field that may be left out.
    pub(crate) fn of_field(
        options: &Options<'_>,
        field: Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let skip = options.text("missing")? == "skip";
        match field {
            Some(field) if field.trim().is_empty() => Err(options.wrong("field", "is empty")),
            Some(field) => Ok(Some(Self { label: options.label.to_owned(), field, skip })),
            None => Ok(None),
        }
    }

    /// Every right answer as `read` understands it, at least one; `None` where the reward does not apply.
    /// `what` names what `read` looks for.
    pub(crate) fn read<T>(
        &self,
        completion: &Completion<'_>,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, RewardError> {
        let complaint = match find(completion.row, &self.field) {
            None | Some(Value::Null) => format!("no field `{}`, which holds the right answer", self.field),
            Some(value) => {
                let list = match value {
                    Value::Array(list) => list.as_slice(),
                    one => std::slice::from_ref(one),
                };
                let golds: Option<Vec<T>> = list.iter().map(read).collect();
                match golds {
                    Some(golds) if !golds.is_empty() => return Ok(Some(golds)),
                    _ => format!("field `{}` is {}, expected {what}", self.field, shown(value)),
                }
            }
        };
        if self.skip {
            return Ok(None);
        }
        let fields: Vec<_> =
            completion.row.keys().take(12).map(|k| format!("`{}`", shorten(k, 40))).collect();
        let hint = format!(
            "`field:` names it (the row has {}); `missing: skip` leaves such rows out",
            if fields.is_empty() { "no fields".to_owned() } else { fields.join(", ") }
        );
        Err(RewardError::Row {
            origin: completion.origin.to_string(),
            reward: self.label.clone(),
            what: complaint,
            hint: Some(hint),
        })
    }
}

/// A field by its name, else by the path its dots make.
fn find<'r>(row: &'r serde_json::Map<String, Value>, name: &str) -> Option<&'r Value> {
    row.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(row.get(first)?, |value, part| value.get(part))
    })
}

/// A text, number or truth value as text.
pub(crate) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// How two texts are compared.
#[derive(Debug)]
pub(crate) struct Comparison {
    ignore_case: bool,
    strip: bool,
}

/// Parameters of [`Comparison`].
pub(crate) const COMPARISON: &[Param] = &[
    Param::with("ignore_case", Kind::Flag, "false", "compare without regard to case"),
    Param::with("strip", Kind::Flag, "true", "compare without the white space around"),
];

impl Comparison {
    pub(crate) fn new(options: &Options<'_>) -> Result<Self, ConfigError> {
        Ok(Self { ignore_case: options.flag("ignore_case")?, strip: options.flag("strip")? })
    }

    pub(crate) fn equal(&self, a: &str, b: &str) -> bool {
        let (a, b) = if self.strip { (a.trim(), b.trim()) } else { (a, b) };
        a == b || (self.ignore_case && a.to_lowercase() == b.to_lowercase())
    }
}

/// 1 or 0.
pub(crate) fn one_if(right: bool) -> f64 {
    f64::from(u8::from(right))
}
