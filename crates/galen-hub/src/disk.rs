//! Files that appear whole or not at all, locks between processes, digests.

use crate::error::{HubError, Result};
use crate::options::Progress;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes moved at a time.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| HubError::io(path, e))
}

/// `path` with `suffix` after its whole name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Size and sha256 of a file.
pub(crate) fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(|e| HubError::io(path, e))?;
    let (len, hasher) = digest_from(&mut file).map_err(|e| HubError::io(path, e))?;
    Ok((len, hex(&hasher.finalize())))
}

pub(crate) fn digest_from(reader: &mut impl Read) -> std::io::Result<(u64, Sha256)> {
    let (mut hasher, mut len) = (Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            return Ok((len, hasher));
        }
        hasher.update(&buffer[..n]);
        len += n as u64;
    }
}

/// A file being written under a temporary name, hashed as it grows. What an earlier run left is continued.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    len: u64,
    continued: bool,
}

impl Partial {
    /// Opens `target.incomplete`, keeping what is there (at most `limit` bytes of it).
    pub(crate) fn open(target: &Path, limit: Option<u64>) -> Result<Self> {
        if let Some(parent) = target.parent() {
            create_dir(parent)?;
        }
        let path = with_suffix(target, ".incomplete");
        let io = |e| HubError::io(&path, e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let (len, hasher) = digest_from(&mut file).map_err(io)?;
        let mut partial = Self { path, file, hasher, len, continued: len > 0 };
        if limit.is_some_and(|l| len > l) {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Bytes there so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether some bytes come from an earlier run.
    pub(crate) fn continued(&self) -> bool {
        self.continued
    }

    /// Throws away what is there.
    pub(crate) fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        let cleared = self.file.set_len(0).and_then(|()| self.file.rewind());
        cleared.map_err(|e| HubError::io(&self.path, e))?;
        (self.len, self.continued) = (0, false);
        self.hasher = Sha256::new();
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| HubError::io(&self.path, e))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// sha256 of what is there, hex.
    pub(crate) fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    /// Synced, then renamed to `target`.
    pub(crate) fn publish(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(|e| HubError::io(&self.path, e))?;
        drop(self.file);
        fs::rename(&self.path, target).map_err(|e| HubError::io(target, e))?;
        if let Some(parent) = target.parent() {
            // What was fetched can be fetched again: as durable as the system makes it.
            let _ = galen_files::sync_folder(parent);
        }
        Ok(())
    }

    pub(crate) fn discard(self) {
        drop(self.file);
        let _ = fs::remove_file(&self.path);
    }
}

/// A small file, whole or not at all.
pub(crate) fn write_small(target: &Path, text: &str) -> Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    create_dir(parent)?;
    galen_files::replace(target, text.as_bytes()).map_err(|e| HubError::io(target, e))
}

/// Held until dropped: no other process fetches the same thing meanwhile. `None` where the file system
/// cannot lock.
pub(crate) fn lock(path: &Path, progress: &dyn Progress) -> Result<Option<File>> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let io = |e| HubError::io(path, e);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            progress.note("another process is fetching the same file: waiting for it");
            file.lock().map_err(io)?;
            Ok(Some(file))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // echo -n "hello world" | sha256sum
    const HELLO: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

    #[test]
    fn a_partial_file_is_continued_and_hashed_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/x");
        let mut p = Partial::open(&target, None).unwrap();
        p.append(b"hello ").unwrap();
        drop(p);
        assert!(!target.exists());
        let mut p = Partial::open(&target, Some(11)).unwrap();
        assert_eq!((p.len(), p.continued()), (6, true));
        p.append(b"world").unwrap();
        assert_eq!(p.sha256(), HELLO);
        p.publish(&target).unwrap();
        assert_eq!(digest(&target).unwrap(), (11, HELLO.to_owned()));
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn a_partial_file_longer_than_the_whole_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        fs::write(dir.path().join("x.incomplete"), "too long").unwrap();
        assert_eq!(Partial::open(&target, Some(3)).unwrap().len(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_named() {
        let error = File::create("/dev/full").unwrap().write_all(b"x").unwrap_err();
        let text = HubError::io(Path::new("/cache/x"), error).to_string();
        assert!(text.contains("no space left") && text.contains("hint: free some space"), "{text}");
    }
}
