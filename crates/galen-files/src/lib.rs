//! Owns: how a file takes the place of another: a temporary name beside it, synced, renamed.
//! Takes: a path and what is to stand there.
//! Gives: the new file in its place, on the disk, or the old one untouched.
//! Never: knows what a file holds.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, IntoInnerError, Result, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile, TempDir};

/// What temporary names begin with. Whoever owns a folder may remove such files that a killed process left in it.
pub const PREFIX: &str = ".tmp-";

/// Characters of a name that a temporary's takes over: four bytes each, and names hold 255.
const MAX_NAME: usize = 48;

/// The folder a path lies in.
pub fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// What a temporary beside `path` is called: after it, as far as names may be long.
fn prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(MAX_NAME).collect();
    format!("{PREFIX}{name}-")
}

fn builder(prefix: &str, mode: u32) -> Builder<'_, 'static> {
    let mut builder = Builder::new();
    builder.prefix(prefix);
    // Others read what is written: the mode of any new file or folder, not a temporary's private one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let _ = mode;
    builder
}

/// A temporary file in the folder of `path`, removed when it is dropped. Two processes may each have one for the same path.
pub fn file_beside(path: &Path) -> Result<NamedTempFile> {
    builder(&prefix(path), 0o666).tempfile_in(parent(path))
}

/// A temporary folder likewise.
pub fn folder_beside(path: &Path) -> Result<TempDir> {
    builder(&prefix(path), 0o777).tempdir_in(parent(path))
}

/// Puts `bytes` at `path`. A file that is there stays until the new one is whole on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(path, |out| out.write_all(bytes))
}

/// The same with what `write` writes.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(file_beside(path)?);
    write(&mut out)?;
    let file = out.into_inner().map_err(IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(&parent(path))
}

/// Writes a file and waits until it is on the disk: one of a folder that is still under a temporary name.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until a folder's names are on the disk. Where a file system cannot, a rename is as durable as that system makes it.
pub fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|f| f.sync_all()) {
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_goes_when_the_new_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["a.json"]);
        // A folder in the way: nothing is replaced, nothing is left.
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("x"), "").unwrap();
        assert!(replace(&taken, b"bytes").is_err());
        assert!(replace(&dir.path().join("missing/a"), b"bytes").is_err());
        assert_eq!(names(dir.path()), ["a.json", "taken"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        replace(&ours, b"x").unwrap();
        std::fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn temporaries_are_called_after_what_they_become() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder_beside(&dir.path().join("checkpoint-3")).unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(".tmp-checkpoint-3-"), "{name}");
        replace(&dir.path().join("ä".repeat(127)), b"x").unwrap();
    }

    #[test]
    fn a_path_without_a_folder_lies_here() {
        assert_eq!(parent(Path::new("a")), Path::new("."));
        assert_eq!(parent(Path::new("a/b")), Path::new("a"));
    }
}
