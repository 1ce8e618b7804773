//! galen's own cache: catalogued files below `files/SHA256/NAME`, stamps of what was verified, locks.

use crate::catalogue::Entry;
use crate::disk;
use crate::error::{HubError, Result};
use crate::options::Options;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Says that the file at `path` had the digest this stamp is named after. A file whose size or time changed
/// since is hashed again.
#[derive(PartialEq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    size: u64,
    mtime_ns: u64,
}

impl Stamp {
    fn of(path: &Path, meta: &Metadata) -> Self {
        let since = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Self { path: path.into(), size: meta.len(), mtime_ns: since.map_or(0, |d| d.as_nanos() as u64) }
    }
}

/// The folder of galen's own cache: `GALEN_CACHE`, or `galen` below the user's cache folder.
pub fn cache_dir() -> PathBuf {
    Options::from_env(true, &crate::options::Silent).galen_cache
}

/// Where the entry's file stands in galen's cache, whether or not it is there.
pub fn store_path(entry: &Entry, options: &Options<'_>) -> PathBuf {
    options.galen_cache.join("files").join(&entry.sha256).join(&entry.file)
}

fn stamp_path(entry: &Entry, options: &Options<'_>) -> PathBuf {
    options.galen_cache.join("verified").join(format!("{}.json", entry.sha256))
}

/// Whether `path` is the entry's file: true or false for there or not, an error for wrong bytes.
pub(crate) fn verified(path: &Path, entry: &Entry, options: &Options<'_>) -> Result<bool> {
    let Ok(meta) = fs::metadata(path) else { return Ok(false) };
    let what = path.display().to_string();
    if meta.len() != entry.size || !meta.is_file() {
        return Err(HubError::Size { what, expected: entry.size, actual: meta.len() });
    }
    let stamp = Stamp::of(path, &meta);
    let known = fs::read(stamp_path(entry, options)).ok();
    if known.and_then(|k| serde_json::from_slice::<Stamp>(&k).ok()).is_some_and(|k| k == stamp) {
        return Ok(true);
    }
    let (_, actual) = disk::digest(path)?;
    if actual != entry.sha256 {
        return Err(HubError::Checksum { what, expected: entry.sha256.clone(), actual });
    }
    write_stamp(path, entry, options);
    Ok(true)
}

/// Remembers that `path` has just been checked. Best effort: without a stamp it is hashed again next time.
pub(crate) fn write_stamp(path: &Path, entry: &Entry, options: &Options<'_>) {
    let Ok(meta) = fs::metadata(path) else { return };
    if let Ok(text) = serde_json::to_string(&Stamp::of(path, &meta)) {
        let _ = disk::write_small(&stamp_path(entry, options), &text);
    }
}

/// Takes away what vouched for the entry's file.
pub(crate) fn forget(entry: &Entry, options: &Options<'_>) {
    let _ = fs::remove_file(stamp_path(entry, options));
}

/// Held while the entry is being fetched.
pub(crate) fn lock(entry: &Entry, options: &Options<'_>) -> Result<Option<File>> {
    disk::lock(&options.galen_cache.join("locks").join(&entry.sha256), options.progress)
}

/// A folder for temporary files, on the same disk as the cache; removed when dropped.
pub(crate) fn scratch(options: &Options<'_>) -> Result<tempfile::TempDir> {
    let parent = options.galen_cache.join("tmp");
    disk::create_dir(&parent)?;
    tempfile::Builder::new().prefix("fetch-").tempdir_in(&parent).map_err(|e| HubError::io(&parent, e))
}
