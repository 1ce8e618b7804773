//! New files in the place of old ones, whole or not at all: a temporary name beside the target, synced, renamed.

use crate::error::{Error, Result, at, cannot};
use crate::format::Kind;
use galen_files::{file_beside, folder_beside, parent, sync_folder};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is being written under temporary names. Held while something is put in its place.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is half written, for a process about to end. While the result is held nothing is put in its place, nor
/// is something that is being put there interrupted.
pub fn abandon() -> impl Sized {
    let all = unfinished();
    for path in &*all {
        // One of the two; whatever cannot be removed stays.
        let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
    }
    all
}

/// A temporary name that [`abandon`] knows.
struct Unfinished(PathBuf);

impl Unfinished {
    fn new(path: &Path) -> Self {
        unfinished().insert(path.to_owned());
        Self(path.to_owned())
    }

    /// A complaint about the temporary in the name of what it was to become.
    fn named(&self, out: &Path) -> impl Fn(Error) -> Error {
        let (temporary, out) = (self.0.display().to_string(), out.display().to_string());
        move |e| match e {
            Error::Io { path, source } if source.kind() == ErrorKind::StorageFull => Error::Cannot {
                what: format!("{}: {source}", path.replace(&temporary, &out)),
                hint: "make room; nothing was replaced".into(),
            },
            Error::Io { path, source } => Error::Io { path: path.replace(&temporary, &out), source },
            e => e,
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().remove(&self.0);
    }
}

/// What `galen verify` leaves in a folder; it goes with what it speaks of.
const PROOF: &str = "verify.json";
/// What says that a folder is an export, whose names are those of everybody's models: without it nothing is replaced.
const MARK: &str = ".galen-export";

/// Whether a file or a folder may be written there.
pub(crate) fn check(kind: Kind, out: &Path, owned: impl Fn(&str) -> bool) -> Result<()> {
    match kind {
        Kind::Folder if out.exists() => refuse_foreign(out, owned),
        Kind::File if out.is_dir() => {
            let what = format!("{}: a folder is in the way of the file", out.display());
            cannot(what, "give `--out` the name of a file")
        }
        Kind::File if out.exists() && !is_gguf(out) => {
            let what = format!("{}: the file that is there is no GGUF", out.display());
            cannot(what, "choose another `--out`, or move it away")
        }
        _ => Ok(()),
    }
}

fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}

/// Writes a file. A GGUF that is there is replaced.
pub(crate) fn file<T>(out: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    check(Kind::File, out, |_| false)?;
    let dir = parent(out);
    std::fs::create_dir_all(&dir).map_err(at(&dir))?;
    let temporary = file_beside(out).map_err(at(&dir))?.into_temp_path();
    let unfinished_file = Unfinished::new(&temporary);
    let written = write(&temporary).map_err(unfinished_file.named(out))?;
    File::open(&temporary).and_then(|f| f.sync_all()).map_err(at(out))?;
    let placing = unfinished();
    temporary.persist(out).map_err(|e| at(out)(e.error))?;
    drop(placing);
    sync_folder(&dir).map_err(at(&dir))?;
    Ok(written)
}

/// Writes a folder. One that an export wrote is replaced where all its files are `owned`, by two renames.
pub(crate) fn folder<T>(
    out: &Path,
    owned: impl Fn(&str) -> bool,
    write: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    check(Kind::Folder, out, owned)?;
    let dir = parent(out);
    std::fs::create_dir_all(&dir).map_err(at(&dir))?;
    let temporary = folder_beside(out).map_err(at(&dir))?;
    let unfinished_folder = Unfinished::new(temporary.path());
    let written = write(temporary.path()).map_err(unfinished_folder.named(out))?;
    let mark = temporary.path().join(MARK);
    std::fs::write(&mark, concat!("galen ", env!("CARGO_PKG_VERSION"), "\n")).map_err(at(&mark))?;
    for entry in std::fs::read_dir(temporary.path()).map_err(at(out))? {
        let path = entry.map_err(at(out))?.path();
        File::open(&path).and_then(|f| f.sync_all()).map_err(at(&path))?;
    }
    sync_folder(temporary.path()).map_err(at(temporary.path()))?;
    let placing = unfinished();
    let old = if out.exists() {
        let old = folder_beside(out).map_err(at(&dir))?;
        std::fs::rename(out, old.path().join("old")).map_err(at(out))?;
        Some(old)
    } else {
        None
    };
    if let Err(e) = std::fs::rename(temporary.path(), out) {
        if let Some(old) = old
            && std::fs::rename(old.path().join("old"), out).is_err()
        {
            // The only copy: it stays where it is.
            let kept = old.keep().join("old");
            return cannot(
                format!("{}: {e}", out.display()),
                format!("what was there is in {}", kept.display()),
            );
        }
        return Err(at(out)(e));
    }
    drop(placing);
    let _ = temporary.keep();
    sync_folder(&dir).map_err(at(&dir))?;
    Ok(written)
}

fn refuse_foreign(out: &Path, owned: impl Fn(&str) -> bool) -> Result<()> {
    if !out.is_dir() {
        let what = format!("{}: a file is in the way of the folder", out.display());
        return cannot(what, "give `--out` the name of a folder");
    }
    let hint = "choose another `--out`, or move it away";
    let (mut names, mut marked) = (0, false);
    for entry in std::fs::read_dir(out).map_err(at(out))? {
        let entry = entry.map_err(at(out))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() || !(owned(&name) || name == PROOF || name == MARK) {
            let what = format!("{}: the folder holds `{name}`, which no export wrote", out.display());
            return cannot(what, hint);
        }
        names += 1;
        marked |= name == MARK;
    }
    if names > 0 && !marked {
        let what = format!("{}: the folder holds a model or an adapter that no export wrote", out.display());
        return cannot(what, hint);
    }
    Ok(())
}
