//! What lies in the caches, and taking it away.

use crate::catalogue::{Entry, catalogue};
use crate::error::{HubError, Result};
use crate::names;
use crate::options::Options;
use crate::store;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries of a folder looked at, at most.
const MAX_ENTRIES: usize = 1_000_000;

/// What something in a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A file of the catalogue.
    Catalogued,
    /// A model or adapter of the hub, with all its revisions; other programs share it.
    Model,
    /// A data set of the hub; other programs share it.
    Dataset,
    /// A file of an older galen's catalogue.
    Stale,
    /// Downloads that were cut. Getting the same file again goes on from them.
    Unfinished,
}

impl What {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Catalogued => "catalogue",
            Self::Model => "model",
            Self::Dataset => "data set",
            Self::Stale => "stale",
            Self::Unfinished => "unfinished",
        }
    }
}

/// Something in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The name it is asked for by; of what has none, its file's.
    pub name: String,
    /// What it is.
    pub what: What,
    /// A folder or file.
    pub path: PathBuf,
    /// What it takes on disk.
    pub bytes: u64,
    /// When something of it was last written.
    pub written: SystemTime,
}

impl Held {
    fn new(name: String, what: What, path: PathBuf) -> Result<Self> {
        let (bytes, written) = measure(&path)?;
        Ok(Self { name, what, path, bytes, written })
    }
}

/// Everything in galen's cache and in the hub's, by name. A file that the hub's cache holds for the catalogue counts
/// there.
pub fn inventory(options: &Options<'_>) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    let known = |sha256: &str| catalogue().ok()?.iter().find(|e| e.sha256 == sha256);
    for (name, path) in entries(&options.galen_cache.join("files"))? {
        held.extend(catalogued(&name, path, known(&name))?);
    }
    for (name, path) in entries(&options.galen_cache.join("tmp"))? {
        held.push(Held::new(name, What::Unfinished, path)?);
    }
    for (folder, path) in entries(&options.hub_cache)? {
        let (what, rest) = match (folder.strip_prefix("models--"), folder.strip_prefix("datasets--")) {
            (Some(rest), _) => (What::Model, rest),
            (_, Some(rest)) => (What::Dataset, rest),
            _ => continue,
        };
        let name = rest.replacen("--", "/", 1);
        if names::repo_id(&name).is_err() {
            continue;
        }
        for (blob, path) in entries(&path.join("blobs"))? {
            if blob.ends_with(".incomplete") {
                held.push(Held::new(format!("{name}: {blob}"), What::Unfinished, path)?);
            }
        }
        held.push(Held::new(name, what, path)?);
    }
    held.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(held)
}

/// The files of one digest: whole, and cut.
fn catalogued(sha256: &str, folder: PathBuf, entry: Option<&Entry>) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (file, path) in entries(&folder)? {
        let (name, what) = match entry {
            _ if file.ends_with(".incomplete") => (file, What::Unfinished),
            Some(entry) if entry.file == file => (entry.name.clone(), What::Catalogued),
            _ => (file, What::Stale),
        };
        held.push(Held::new(name, what, path)?);
    }
    if held.is_empty() && names::is_sha256(sha256) {
        held.push(Held::new(sha256.to_owned(), What::Stale, folder)?);
    }
    Ok(held)
}

/// Deletes it, with the folder that held it alone and the stamp that vouched for it. Waits for a download of the same
/// file that is under way.
pub fn remove(held: &Held, options: &Options<'_>) -> Result<()> {
    let entries = catalogue()?;
    let entry = entries.iter().find(|e| held.path == store::store_path(e, options));
    let _lock = entry.map(|e| store::lock(e, options)).transpose()?;
    let io = |e| HubError::io(&held.path, e);
    let meta = fs::symlink_metadata(&held.path).map_err(io)?;
    if meta.is_dir() {
        fs::remove_dir_all(&held.path).map_err(io)?;
    } else {
        fs::remove_file(&held.path).map_err(io)?;
    }
    if let Some(entry) = entry {
        store::forget(entry, options);
    }
    // Where something else lies there too, it stays.
    if let Some(parent) = held.path.parent().filter(|p| p.starts_with(options.galen_cache.join("files"))) {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Names and paths in a folder; none where it is not there.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(HubError::io(folder, e)),
    };
    let mut found = Vec::new();
    for entry in read.take(MAX_ENTRIES) {
        let path = entry.map_err(|e| HubError::io(folder, e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        found.push((name.to_owned(), path));
    }
    Ok(found)
}

/// Bytes of a file, or of all files below a folder, and when one was last written; links are not followed.
fn measure(path: &Path) -> Result<(u64, SystemTime)> {
    let (mut bytes, mut written) = (0, UNIX_EPOCH);
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        // What another process took away meanwhile takes no room.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        written = written.max(meta.modified().unwrap_or(UNIX_EPOCH));
        if meta.is_dir() {
            waiting.extend(entries(&path)?.into_iter().map(|(_, p)| p));
        } else if meta.is_file() {
            bytes += meta.len();
        }
    }
    Ok((bytes, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Silent;

    #[test]
    fn what_lies_in_the_caches_is_told_apart_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::from_env(true, &Silent);
        options.galen_cache = dir.path().join("galen");
        options.hub_cache = dir.path().join("hub");
        assert!(inventory(&options).unwrap().is_empty());
        let entry = &catalogue().unwrap()[0];
        let write = |path: PathBuf, bytes: usize| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        let known = store::store_path(entry, &options);
        write(known.clone(), 7);
        write(crate::disk::with_suffix(&known, ".incomplete"), 3);
        write(options.galen_cache.join("files").join("0".repeat(64)).join("old.gguf"), 5);
        write(options.hub_cache.join("models--o--r/blobs/abc"), 11);
        write(options.hub_cache.join("models--o--r/blobs/def.incomplete"), 2);
        write(options.hub_cache.join("datasets--o--d/blobs/x"), 1);
        write(options.hub_cache.join("version.txt"), 1);
        let held = inventory(&options).unwrap();
        let find =
            |what| held.iter().filter(|h| h.what == what).map(|h| (&h.name[..], h.bytes)).collect::<Vec<_>>();
        assert_eq!(find(What::Catalogued), [(&entry.name[..], 7)]);
        assert_eq!(find(What::Stale), [("old.gguf", 5)]);
        assert_eq!(find(What::Model), [("o/r", 13)]);
        assert_eq!(find(What::Dataset), [("o/d", 1)]);
        let unfinished = find(What::Unfinished);
        assert_eq!(unfinished.iter().map(|(_, bytes)| bytes).sum::<u64>(), 5);
        for h in held.iter().filter(|h| h.what != What::Model && h.what != What::Dataset) {
            remove(h, &options).unwrap();
        }
        let left = inventory(&options).unwrap();
        assert_eq!(left.iter().map(|h| &h.name[..]).collect::<Vec<_>>(), ["o/d", "o/r"]);
        assert_eq!(fs::read_dir(options.galen_cache.join("files")).unwrap().count(), 0);
    }
}
