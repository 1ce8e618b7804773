//! One file of a hub repository at a fixed commit. It lands in the hub's own cache.

use super::Source;
use crate::catalogue::Entry;
use crate::error::Result;
use crate::hub::{Repo, RepoKind, Snapshot};
use crate::options::Options;
use crate::store;
use serde::Deserialize;
use std::path::PathBuf;

pub(super) struct Hub;

/// `[entry.source.hub]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubSpec {
    repo: String,
    /// A commit.
    revision: String,
    file: String,
}

impl HubSpec {
    /// Where the hub's cache keeps the file once it is there.
    pub(super) fn cached_path(&self, options: &Options<'_>) -> PathBuf {
        let folder = format!("models--{}", self.repo.replace('/', "--"));
        options.hub_cache.join(folder).join("snapshots").join(&self.revision).join(&self.file)
    }
}

impl Source for Hub {
    fn name(&self) -> &'static str {
        "hub"
    }

    fn describe(&self, entry: &Entry) -> Result<Option<String>> {
        Ok(entry.source::<HubSpec>(self.name())?.map(|s| format!("hub {}", s.repo)))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn fetch(&self, entry: &Entry, options: &Options<'_>) -> Result<Option<PathBuf>> {
        let Some(spec) = entry.source::<HubSpec>(self.name())? else { return Ok(None) };
        let repo = Repo::new(RepoKind::Model, &spec.repo, Some(&spec.revision))?;
        let path = Snapshot::pinned(&repo, options)?.fetch(&spec.file, Some(&entry.sha256))?;
        store::write_stamp(&path, entry, options);
        Ok(Some(path))
    }
}
