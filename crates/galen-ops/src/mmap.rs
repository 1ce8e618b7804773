//! Files mapped into memory and cheap slices of them.
//!
//! Weights are read where they lie: a slice holds its file alive, costs no copy, and its pages belong to the
//! page cache, so that the kernel may drop and re-read them under memory pressure.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

/// A file could not be mapped, or a slice lies outside its file.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Opening or mapping failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A range outside the bytes there are.
    #[error("bytes `{start}..{end}` of `{len}`")]
    OutOfRange {
        /// First byte asked for.
        start: usize,
        /// One past the last byte asked for.
        end: usize,
        /// Bytes there are.
        len: usize,
    },
}

/// A file mapped read-only for as long as this value lives.
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file read-only. An empty file gives an empty map.
    #[expect(unsafe_code, reason = "mapping a file is the purpose of this module")]
    pub fn open(path: &Path) -> Result<Self, MapError> {
        let fail = |source| MapError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        // SAFETY: the map is read-only and private to this value. Like every reader of mapped weights we rely on
        // nobody rewriting or truncating the file while it is open; model files are written once, under a
        // temporary name, and then renamed.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The file as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedFile({}, {} bytes)", self.path.display(), self.map.len())
    }
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<MappedFile>),
    Heap(Arc<Vec<u8>>),
}

/// Immutable bytes, mapped or on the heap; clones and slices share their owner.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// Maps a file and takes all of it.
    pub fn open(path: &Path) -> Result<Self, MapError> {
        MappedFile::open(path).map(Self::from)
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let all = match &self.owner {
            Owner::Mapped(file) => file.as_slice(),
            Owner::Heap(bytes) => bytes.as_slice(),
        };
        &all[self.range.clone()]
    }

    /// Lets the system take back the pages of a mapped file until they are read again. Best effort.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(file) = &self.owner {
            // SAFETY: the map is read-only and of a file, so that pages come back with the same contents.
            let _ = unsafe {
                file.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether the bytes lie in a mapped file (and so cost page cache, not heap).
    pub fn is_mapped(&self) -> bool {
        matches!(self.owner, Owner::Mapped(_))
    }

    /// A part of these bytes, `range` counted from their start. Shares the owner.
    pub fn slice(&self, range: Range<usize>) -> Result<Self, MapError> {
        if range.start > range.end || range.end > self.len() {
            return Err(MapError::OutOfRange { start: range.start, end: range.end, len: self.len() });
        }
        let start = self.range.start + range.start;
        Ok(Self { owner: self.owner.clone(), range: start..start + range.len() })
    }

    /// Tells the system that these bytes will not be read soon: mapped pages leave resident memory and are read
    /// again from the file when touched. Does nothing to bytes on the heap. Advice only, so failure is ignored.
    pub fn advise_dontneed(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(file) = &self.owner
            && !self.range.is_empty()
        {
            dontneed(&file.map, &self.range);
        }
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "memmap2 calls this advice unchecked, as it loses writes to anonymous memory")]
fn dontneed(map: &Mmap, range: &Range<usize>) {
    // SAFETY: the map is read-only and backed by a file, so a dropped page is read back unchanged.
    let advised =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    drop(advised);
}

impl From<MappedFile> for Bytes {
    fn from(file: MappedFile) -> Self {
        let range = 0..file.as_slice().len();
        Self { owner: Owner::Mapped(Arc::new(file)), range }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Heap(Arc::new(bytes)), range }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "heap" };
        write!(f, "Bytes({kind}, {:?})", self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_and_stay_inside() {
        let all = Bytes::from((0u8..100).collect::<Vec<_>>());
        let part = all.slice(10..20).unwrap();
        assert_eq!(part.as_slice(), &(10u8..20).collect::<Vec<_>>()[..]);
        assert_eq!(part.slice(3..5).unwrap().as_slice(), &[13, 14]);
        assert!(part.slice(0..11).is_err(), "must not see its neighbour's bytes");
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = part.slice(5..3);
        assert!(reversed.is_err());
    }

    #[test]
    fn mapped_bytes_survive_dontneed() {
        let path = std::env::temp_dir().join(format!("galen-mmap-{}", std::process::id()));
        let want: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &want).unwrap();
        let bytes = Bytes::open(&path).unwrap();
        assert!(bytes.is_mapped());
        assert_eq!(bytes.as_slice(), &want[..]);
        let part = bytes.slice(5000..15_000).unwrap();
        part.advise_dontneed();
        assert_eq!(part.as_slice(), &want[5000..15_000]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn errors_name_the_file() {
        let error = Bytes::open(Path::new("/nonexistent/model.gguf")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/model.gguf: "), "{error}");
        assert!(Bytes::open(&std::env::temp_dir()).is_err());
    }
}
