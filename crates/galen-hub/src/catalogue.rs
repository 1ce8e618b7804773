//! The files galen knows by name.

use crate::error::{HubError, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model in one file.
    Model,
    /// A data file.
    Data,
}

/// One catalogued file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name users write.
    pub name: String,
    /// Model or data.
    pub kind: Kind,
    /// The Hugging Face id of the model's base, recorded in `adapter_config.json`.
    pub hf_id: Option<String>,
    /// Licence of the file.
    pub licence: String,
    /// File name it gets.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// One table a source, read by that source.
    #[serde(default)]
    source: BTreeMap<String, toml::Value>,
}

impl Entry {
    /// The table of source `name`, where this entry has one.
    pub(crate) fn source<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(table) = self.source.get(name) else { return Ok(None) };
        table.clone().try_into().map(Some).map_err(|e: toml::de::Error| HubError::Format {
            what: format!("catalogue entry `{}`, source `{name}`", self.name),
            why: e.message().to_owned(),
        })
    }
}

#[derive(Deserialize)]
struct Catalogue {
    entry: Vec<Entry>,
}

static CATALOGUE: LazyLock<std::result::Result<Vec<Entry>, String>> =
    LazyLock::new(|| parse(include_str!("catalogue.toml")));

fn parse(text: &str) -> std::result::Result<Vec<Entry>, String> {
    toml::from_str::<Catalogue>(text).map(|c| c.entry).map_err(|e| e.to_string())
}

/// Every entry, in the catalogue's order.
pub fn catalogue() -> Result<&'static [Entry]> {
    match &*CATALOGUE {
        Ok(entries) => Ok(entries),
        Err(why) => Err(HubError::Format { what: "catalogue.toml".into(), why: why.clone() }),
    }
}

/// The entry called `name`, of the given kind.
pub fn find(name: &str, kind: Kind) -> Result<Option<&'static Entry>> {
    Ok(catalogue()?.iter().find(|e| e.name == name && e.kind == kind))
}

#[cfg(test)]
pub(crate) fn parse_one(text: &str) -> Entry {
    parse(text).expect("a catalogue").remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn every_entry_is_sound_and_readable_by_its_sources() {
        let entries = catalogue().unwrap();
        assert!(entries.len() >= 3);
        for e in entries {
            assert!(names::is_sha256(&e.sha256) && e.sha256 == e.sha256.to_lowercase(), "{}", e.name);
            assert!(names::file(&e.file).is_ok() && !e.file.contains('/'), "{}", e.name);
            assert!(e.size > 0 && e.hf_id.as_deref().is_none_or(|id| names::repo_id(id).is_ok()));
            assert!(entries.iter().filter(|o| o.name == e.name).count() == 1, "{} twice", e.name);
            let known = crate::sources::SOURCES.iter().map(|s| s.name()).collect::<Vec<_>>();
            for table in e.source.keys() {
                assert!(known.contains(&table.as_str()), "{}: no source `{table}`", e.name);
            }
            for source in crate::sources::SOURCES {
                source.describe(e).unwrap();
            }
        }
    }
}
