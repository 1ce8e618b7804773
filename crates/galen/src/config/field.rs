//! How one typed value is read from YAML and written back.

use super::key::Report;
use super::yaml::{Node, Quoted, Yaml};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a value was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Line of the value, where it differs from its key's.
    pub line: Option<usize>,
    /// What is wrong, after `` `key` ``: "takes an integer, not `x`".
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Wrong {
    /// A complaint about `node`.
    pub fn at(node: &Node, message: impl Into<String>) -> Self {
        Self { line: Some(node.line), message: message.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn takes(node: &Node, what: &str) -> Self {
        Self::at(node, format!("takes {what}, not {}", node.describe()))
    }
}

/// A type a key can have.
pub trait Field: Sized {
    /// The type in words, for the docs: "integer", "`lora` or `qlora`".
    fn type_name() -> String;
    /// Reads it.
    fn parse(node: &Node) -> Result<Self, Wrong>;
    /// Reads it where it has keys of its own, whose fate goes into `report` under `place` (`datasets`).
    fn parse_in(node: &Node, place: &str, report: &mut Report) -> Result<Self, Wrong> {
        let _ = (place, report);
        Self::parse(node)
    }
    /// Writes it; `Null` where nothing is set.
    fn dump(&self) -> Value;
}

impl Field for bool {
    fn type_name() -> String {
        "true or false".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        // YAML 1.1 (the peers' reader) also has yes/no/on/off.
        match (&node.value, node.text().map(str::to_ascii_lowercase).as_deref()) {
            (Yaml::Bool(b, _), _) => Ok(*b),
            (Yaml::Str(_, Quoted::No), Some("yes" | "on")) => Ok(true),
            (Yaml::Str(_, Quoted::No), Some("no" | "off")) => Ok(false),
            _ => Err(Wrong::takes(node, "true or false")),
        }
    }
    fn dump(&self) -> Value {
        (*self).into()
    }
}

impl Field for u64 {
    fn type_name() -> String {
        "integer".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match &node.value {
            Yaml::Int(i, _) if *i >= 0 => Ok(i.unsigned_abs()),
            // `1e3` and `4.0` are whole numbers too, where they are exact.
            Yaml::Float(f, _) if *f >= 0.0 && f.fract() == 0.0 && *f < 9.0e15 => Ok(*f as u64),
            _ => Err(Wrong::takes(node, "an integer of 0 or more")),
        }
    }
    fn dump(&self) -> Value {
        (*self).into()
    }
}

impl Field for i64 {
    fn type_name() -> String {
        "integer".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match &node.value {
            Yaml::Int(i, _) => Ok(*i),
            _ => Err(Wrong::takes(node, "an integer")),
        }
    }
    fn dump(&self) -> Value {
        (*self).into()
    }
}

impl Field for f64 {
    fn type_name() -> String {
        "number".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match &node.value {
            Yaml::Int(i, _) => Ok(*i as f64),
            Yaml::Float(f, _) => Ok(*f),
            // Quoted numbers: the peers convert them, and people quote `"2e-4"` because YAML 1.1 needs it.
            Yaml::Str(s, _) => match s.trim().parse::<f64>() {
                Ok(f) if f.is_finite() => Ok(f),
                _ => Err(Wrong::takes(node, "a number")),
            },
            _ => Err(Wrong::takes(node, "a number")),
        }
    }
    fn dump(&self) -> Value {
        (*self).into()
    }
}

impl Field for String {
    fn type_name() -> String {
        "text".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        node.text().map(str::to_owned).ok_or_else(|| Wrong::takes(node, "text"))
    }
    fn dump(&self) -> Value {
        self.as_str().into()
    }
}

impl<T: Field> Field for Option<T> {
    fn type_name() -> String {
        T::type_name()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        if node.value == Yaml::Null { Ok(None) } else { T::parse(node).map(Some) }
    }
    fn dump(&self) -> Value {
        self.as_ref().map_or(Value::Null, Field::dump)
    }
}

impl<T: Field> Field for Vec<T> {
    fn type_name() -> String {
        format!("list of {}", T::type_name())
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match &node.value {
            Yaml::Null => Ok(Vec::new()),
            Yaml::Seq(items) => items.iter().map(T::parse).collect(),
            // One entry without its dash.
            _ => T::parse(node)
                .map(|v| vec![v])
                .map_err(|_| Wrong::takes(node, &format!("a list of {}", T::type_name()))),
        }
    }
    fn dump(&self) -> Value {
        if self.is_empty() { Value::Null } else { self.iter().map(Field::dump).collect() }
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn type_name() -> String {
        format!("map to {}", T::type_name())
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let Yaml::Map(entries) = &node.value else { return Err(Wrong::takes(node, "a map")) };
        entries.iter().map(|e| Ok((e.key.clone(), T::parse(&e.node)?))).collect()
    }
    fn dump(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        Value::Object(self.iter().map(|(k, v)| (k.clone(), v.dump())).collect())
    }
}

/// Free-form values handed on as they are (template variables).
impl Field for serde_json::Map<String, Value> {
    fn type_name() -> String {
        "map".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match node.to_json() {
            Value::Object(map) => Ok(map),
            _ => Err(Wrong::takes(node, "a map")),
        }
    }
    fn dump(&self) -> Value {
        if self.is_empty() { Value::Null } else { Value::Object(self.clone()) }
    }
}

/// The nearest of `names` to what was written, when it is near enough to be a slip.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let score = |name: &str| {
        let name = name.to_ascii_lowercase();
        let rest = name.strip_prefix(folded.as_str());
        // `eos` for `eos_token`: the beginning of a name, up to a joint.
        let begins = folded.len() > 2 && rest.is_some_and(|r| r.starts_with('_'));
        strsim::jaro_winkler(&folded, &name).max(if begins { 0.9 } else { 0.0 })
    };
    names
        .into_iter()
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score >= 0.86)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Declares an enum of named values: the parser, the docs and the error's list come from the one line.
macro_rules! choices {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The name a configuration uses.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::config::field::Field for $name {
            fn type_name() -> String {
                [$(concat!("`", $text, "`")),+].join(", ")
            }
            fn parse(node: &$crate::config::yaml::Node) -> Result<Self, $crate::config::field::Wrong> {
                match node.text().map(str::to_ascii_lowercase).as_deref() {
                    $(Some($text $(| $alias)*) => Ok(Self::$variant),)+
                    Some(word) => {
                        let wrong = $crate::config::field::Wrong::at(
                            node, format!("takes {}, not `{word}`", Self::type_name()));
                        Err(match $crate::config::field::nearest(word, [$($text),+]) {
                            Some(near) => wrong.hint(format!("did you mean `{near}`?")),
                            None => wrong,
                        })
                    }
                    None => Err($crate::config::field::Wrong::at(
                        node, format!("takes {}, not {}", Self::type_name(), node.describe()))),
                }
            }
            fn dump(&self) -> serde_json::Value {
                // `true` and `false` are written as YAML's own.
                match self.name() {
                    "true" => true.into(),
                    "false" => false.into(),
                    name => name.into(),
                }
            }
        }
    };
}
pub(crate) use choices;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    fn read<T: Field>(text: &str) -> Result<Value, String> {
        T::parse(&parse(text).unwrap()).map(|v| v.dump()).map_err(|w| w.message)
    }

    #[test]
    fn numbers_and_switches() {
        assert_eq!(read::<f64>("\"2e-4\""), Ok(2e-4.into()));
        assert_eq!(read::<f64>("3"), Ok(3.0.into()));
        assert_eq!(read::<f64>(".inf"), Err("takes a number, not `.inf`".into()));
        assert_eq!(read::<u64>("4.0"), Ok(4.into()));
        assert_eq!(read::<u64>("0.1"), Err("takes an integer of 0 or more, not `0.1`".into()));
        assert_eq!(read::<u64>("-1"), Err("takes an integer of 0 or more, not `-1`".into()));
        assert_eq!(read::<bool>("yes"), Ok(true.into()));
        assert_eq!(read::<bool>("'yes'"), Err("takes true or false, not the text `\"yes\"`".into()));
        assert_eq!(read::<Option<u64>>("~"), Ok(Value::Null));
        assert_eq!(read::<Vec<String>>("q_proj"), Ok(serde_json::json!(["q_proj"])));
        assert_eq!(read::<String>("6299e10"), Ok("6299e10".into()));
    }

    #[test]
    fn near_names() {
        let names = ["lora_r", "lora_alpha", "learning_rate", "num_epochs"];
        assert_eq!(nearest("lora_rank", names), Some("lora_r"));
        assert_eq!(nearest("learning-rate", names), Some("learning_rate"));
        assert_eq!(nearest("epochs", names), Some("num_epochs"));
        assert_eq!(nearest("eos", ["bos_token", "eos_token"]), Some("eos_token"));
        assert_eq!(nearest("zzz", names), None);
    }
}
