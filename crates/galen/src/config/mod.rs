//! The configuration: flat YAML with Axolotl's keys, read against one table.
//!
//! A file becomes a [`Config`] with every default filled in, or a list of complaints, each with `file:line` and a
//! remedy. The table ([`tables`]) holds every key once: its name, meaning, type, default and fate. It feeds the
//! parser, the suggestions in errors, `galen init`, `galen plan --list-keys` and `docs/config.md`.

pub mod alignment;
pub mod build;
pub mod datasets;
mod device;
pub mod docs;
pub mod emit;
pub mod field;
pub mod key;
pub mod lines;
mod others;
mod overrides;
mod resolve;
mod rollout;
pub mod schedule;
pub mod table;
pub mod trl;
pub mod types;
pub mod yaml;

pub use alignment::Alignment;
pub use build::native_compute;
pub use datasets::DatasetEntry;
pub use device::Device;
pub use key::{Report, Verdict};
pub use schedule::{Every, Precision};
pub use table::Config;

use crate::error::{ConfigError, ConfigErrors};
use key::{Key, State};
use std::fmt::Write as _;
use std::path::Path;
use yaml::{Entry, Node, Yaml};

/// The tables of the top level, honoured keys first.
const TABLES: &[&[Key<Config>]] = &[table::HONOURED, others::ALIASES, others::NO_EFFECT, others::REFUSED];

/// Every key of the top level.
pub fn tables() -> impl Iterator<Item = &'static Key<Config>> {
    TABLES.iter().flat_map(|t| t.iter())
}

/// Reads `path`, applies `--set` overrides, and resolves. Notes and no-effect keys are in the report.
///
/// Errors: every complaint at once, in file order.
pub fn load(path: &Path, sets: &[String]) -> Result<(Config, Report), ConfigErrors> {
    let (config, report) = check(path, sets);
    if report.errors.is_empty() { Ok((config, report)) } else { Err(ConfigErrors(report.errors)) }
}

/// The same, but always with everything there is to say; the configuration is only sound without errors.
pub fn check(path: &Path, sets: &[String]) -> (Config, Report) {
    let file = path.display().to_string();
    let text = match read_text(path) {
        Ok(text) => text,
        Err((message, hint)) => {
            let error = ConfigError { origin: file.clone(), message, hint };
            return (Config::default(), Report { file, errors: vec![error], ..Report::default() });
        }
    };
    check_text(&file, &text, sets)
}

/// Checks a configuration that is text already; `file` names it in messages.
pub fn check_text(file: &str, text: &str, sets: &[String]) -> (Config, Report) {
    let mut report = Report { file: file.to_owned(), ..Report::default() };
    let entries = match yaml::parse(text) {
        Ok(Node { value: Yaml::Map(entries), .. }) => entries,
        Ok(Node { value: Yaml::Null, .. }) => Vec::new(),
        Ok(node) => {
            let message = format!("a configuration is a map of keys, not {}", node.describe());
            report.complain(node.line, "", "wrong", message, Some("write `key: value` lines".into()));
            return (Config::default(), report);
        }
        Err(e) => {
            let hint = yaml_hint(file, &e.message).to_owned();
            report.complain(e.line, "", "wrong", e.message, Some(hint));
            return (Config::default(), report);
        }
    };
    let entries = overrides::apply(entries, sets, &mut report);
    let mut config = key::read_map(&entries, TABLES, "", belongs_in_a_dataset, &mut report);
    resolve::resolve(&mut config, &entries, &mut report);
    report.errors.sort_by_key(|e| line_of(&e.origin));
    (config, report)
}

/// The remedy for text that is not the YAML we read.
fn yaml_hint(file: &str, message: &str) -> &'static str {
    let data = [".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz", ".zst"];
    if data.iter().any(|ending| file.ends_with(ending)) {
        "this looks like data: `galen init --model M --data FILE -o config.yaml` writes a configuration for it"
    } else if message.contains("is set twice") {
        "keep one of them"
    } else if message == yaml::EMPTY {
        "`galen init --model M --data FILE` writes a configuration"
    } else {
        "it must be YAML; a tab cannot indent, and `: ` needs its space"
    }
}

fn line_of(origin: &str) -> usize {
    origin.rsplit(':').next().and_then(|l| l.parse().ok()).unwrap_or(usize::MAX)
}

fn belongs_in_a_dataset(key: &str) -> Option<String> {
    datasets::DATASET_HONOURED
        .iter()
        .any(|k| k.matches(key))
        .then(|| format!("`{key}` belongs in an entry of `datasets:`"))
}

fn read_text(path: &Path) -> Result<String, (String, Option<String>)> {
    let fail = |e: std::io::Error| {
        let hint = (e.kind() == std::io::ErrorKind::NotFound)
            .then(|| "`galen init --model M --data FILE -o config.yaml` writes one".to_owned());
        (format!("cannot be read: {e}"), hint)
    };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > yaml::MAX_BYTES {
        return Err((format!("{size} bytes is no configuration (at most {})", yaml::MAX_BYTES), None));
    }
    std::fs::read_to_string(path).map_err(fail)
}

impl Config {
    /// The values by key, in the table's order; keys that are unset are left out.
    pub fn values(&self) -> impl Iterator<Item = (&'static Key<Self>, serde_json::Value)> + '_ {
        table::HONOURED.iter().filter_map(|key| match key.state {
            State::Honoured { get, .. } => Some((key, get(self))).filter(|(_, v)| !v.is_null()),
            _ => None,
        })
    }

    /// The configuration as YAML that reads back as itself: a run directory's `config.yaml`.
    pub fn to_yaml(&self) -> String {
        let mut out =
            String::from("# Every setting of the run, defaults included: training this file repeats it.\n");
        let mut group = "";
        for (key, value) in self.values() {
            if key.group != group {
                group = key.group;
                let _ = writeln!(out, "\n# {group}");
            }
            emit::entry(&mut out, key.name, &value);
        }
        out
    }

    /// The configuration as JSON, for hashes and `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        self.values().map(|(key, value)| (key.name.to_owned(), value)).collect()
    }
}

/// The entry of a key, by any of its names.
fn given<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let is_alias = |written: &str| {
        others::ALIASES.iter().any(|k| k.name == written && matches!(k.state, State::Alias(of) if of == name))
    };
    entries.iter().find(|e| (e.key == name || is_alias(&e.key)) && e.node.value != Yaml::Null)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
