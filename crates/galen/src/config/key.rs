//! What a key of a configuration is, and how a map is read against a table of them.

use super::field::{Wrong, nearest};
use super::yaml::{Entry, Node};
use crate::error::ConfigError;
use serde_json::Value;

/// One key: the single place its name, meaning and fate are written.
pub struct Key<C: 'static> {
    /// Its name; a trailing `*` stands for every name that begins so.
    pub name: &'static str,
    /// The heading it stands under in docs and written configurations.
    pub group: &'static str,
    /// Its documentation, a line an entry.
    pub doc: &'static [&'static str],
    /// What becomes of it.
    pub state: State<C>,
}

/// What becomes of a key.
pub enum State<C: 'static> {
    /// galen does what it says.
    Honoured {
        /// The type in words.
        type_name: fn() -> String,
        /// Reads a value into the configuration.
        set: fn(&mut C, &Node, &str, &mut Report) -> Result<(), Wrong>,
        /// The value it holds.
        get: fn(&C) -> Value,
    },
    /// Another name of an honoured key.
    Alias(&'static str),
    /// Nothing learned depends on it; named in one summary line.
    NoEffect {
        /// Some values are refused even so: the reason, or `None`.
        unless: fn(&Node) -> Option<String>,
    },
    /// galen cannot do it; any value that turns it on stops the command.
    Refused {
        /// The remedy.
        hint: &'static str,
        /// Values that ask for nothing.
        off: fn(&Node) -> bool,
    },
}

impl<C> Key<C> {
    /// Whether the key answers to `name`.
    pub fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.name == name,
        }
    }

    /// The state in a word: `honoured`, `another name`, `no effect`, `refused`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Honoured { .. } => "honoured",
            State::Alias(_) => "another name",
            State::NoEffect { .. } => "no effect",
            State::Refused { .. } => "refused",
        }
    }
}

/// `type` is written `r#type` in Rust.
pub const fn plain_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Declares a configuration struct and its honoured keys at once: a field that exists is a key that is read,
/// documented, defaulted and written back.
macro_rules! key_table {
    (
        $(#[$meta:meta])* pub struct $config:ident, $table:ident;
        $([$group:literal] $($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:expr $(, $check:expr)?;)+)+
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $config { $($($(#[doc = $doc])+ pub $name: $ty,)+)+ }

        impl Default for $config {
            fn default() -> Self {
                Self { $($($name: $default,)+)+ }
            }
        }

        /// The honoured keys.
        pub static $table: &[$crate::config::key::Key<$config>] = &[$($(
            $crate::config::key::Key {
                name: $crate::config::key::plain_name(stringify!($name)),
                group: $group,
                doc: &[$($doc),+],
                state: $crate::config::key::State::Honoured {
                    type_name: <$ty as $crate::config::field::Field>::type_name,
                    set: |config, node, place, report| {
                        let value = <$ty as $crate::config::field::Field>::parse_in(node, place, report)?;
                        $(
                            let check: fn(&$ty) -> Result<(), String> = $check;
                            check(&value).map_err(|m| $crate::config::field::Wrong::at(node, m))?;
                        )?
                        config.$name = value;
                        Ok(())
                    },
                    get: |config| <$ty as $crate::config::field::Field>::dump(&config.$name),
                },
            },
        )+)+];
    };
}
pub(crate) use key_table;

/// What became of one key that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// The key, with its place for nested ones: `datasets[0].type`.
    pub key: String,
    /// `honoured`, `no effect`, `off` (written, but asks for nothing), `refused`, `unknown`, `wrong`.
    pub state: &'static str,
    /// Where it stands.
    pub origin: String,
    /// Why, or what to know.
    pub text: String,
}

/// Everything reading a configuration has to say.
#[derive(Debug, Default)]
pub struct Report {
    /// The file as the user named it.
    pub file: String,
    /// One a key written.
    pub verdicts: Vec<Verdict>,
    /// Complaints; the configuration is usable iff there is none.
    pub errors: Vec<ConfigError>,
    /// Things a user of the peers should know: (key, text).
    pub notes: Vec<(String, String)>,
}

impl Report {
    /// `file:line`, or `--set` for line 0.
    pub fn origin(&self, line: usize) -> String {
        if line == 0 { "--set".into() } else { format!("{}:{line}", self.file) }
    }

    /// Records a complaint about `key`.
    pub fn complain(
        &mut self,
        line: usize,
        key: &str,
        state: &'static str,
        message: String,
        hint: Option<String>,
    ) {
        let origin = self.origin(line);
        self.verdict(line, key, state, message.clone());
        self.errors.push(ConfigError { origin, message, hint });
    }

    /// Records what became of `key`.
    pub fn verdict(&mut self, line: usize, key: &str, state: &'static str, text: String) {
        let origin = self.origin(line);
        self.verdicts.push(Verdict { key: key.into(), state, origin, text });
    }

    /// Records something worth knowing, once.
    pub fn note(&mut self, key: &str, text: impl Into<String>) {
        let note = (key.to_owned(), text.into());
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Reads `entries` against the tables into a fresh configuration. `place` is put before each key in messages
/// (`datasets[0].`). `elsewhere` names keys that belong in another map, for hints.
pub fn read_map<C: Default>(
    entries: &[Entry],
    tables: &[&'static [Key<C>]],
    place: &str,
    elsewhere: fn(&str) -> Option<String>,
    report: &mut Report,
) -> C {
    let mut config = C::default();
    let mut taken: Vec<&str> = Vec::new();
    for entry in entries {
        let full = format!("{place}{}", entry.key);
        let find = |name: &str| tables.iter().flat_map(|t| t.iter()).find(|k| k.matches(name));
        let Some(key) = find(&entry.key) else {
            let names = tables.iter().flat_map(|t| t.iter()).map(|k| k.name.trim_end_matches('*'));
            let hint = elsewhere(&entry.key)
                .or_else(|| nearest(&entry.key, names).map(|near| format!("did you mean `{near}`?")));
            report.complain(entry.line, &full, "unknown", format!("unknown key `{full}`"), hint);
            continue;
        };
        let target = match key.state {
            State::Alias(other) => find(other).unwrap_or(key),
            _ => key,
        };
        if taken.contains(&target.name) && !target.name.ends_with('*') {
            let message = format!("`{full}` is another name of `{}`, which is set too", target.name);
            report.complain(entry.line, &full, "wrong", message, Some("keep one of them".into()));
            continue;
        }
        taken.push(target.name);
        apply(&mut config, entry, target, &full, report);
    }
    config
}

fn apply<C>(config: &mut C, entry: &Entry, key: &Key<C>, full: &str, report: &mut Report) {
    let doc = || key.doc.join(" ").trim().to_owned();
    match &key.state {
        State::Honoured { set, .. } => {
            if entry.node.value == super::yaml::Yaml::Null {
                report.verdict(entry.line, full, "off", "nothing is set".into());
                return;
            }
            match set(config, &entry.node, full, report) {
                Ok(()) => report.verdict(entry.line, full, "honoured", String::new()),
                Err(wrong) => {
                    let line = wrong.line.unwrap_or(entry.line);
                    report.complain(line, full, "wrong", format!("`{full}` {}", wrong.message), wrong.hint);
                }
            }
        }
        State::NoEffect { unless } => match unless(&entry.node) {
            Some(why) => report.complain(entry.line, full, "refused", format!("`{full}`: {why}"), None),
            None if entry.node.is_off() => report.verdict(entry.line, full, "off", doc()),
            None => report.verdict(entry.line, full, "no effect", doc()),
        },
        State::Refused { hint, off } => {
            if off(&entry.node) {
                report.verdict(entry.line, full, "off", doc());
            } else {
                let hint = (!hint.is_empty()).then(|| (*hint).to_owned());
                report.complain(entry.line, full, "refused", format!("`{full}`: {}", doc()), hint);
            }
        }
        State::Alias(_) => {}
    }
}
