//! From a file or a folder to raw rows. A new file format is one file here and one line in [`FORMATS`].
//!
//! Every file is untrusted: rows, unpacked sizes and ratios are bounded by [`Limits`], and no header is believed
//! before the bytes it speaks of are there.

mod csv;
mod document;
mod folder;
mod json;
mod json_lines;
mod packed;
mod parquet;
mod parquet_guard;
mod text;
mod thrift;

use crate::DataError;
use galen_types::RawRow;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use document::documents;
pub use folder::{EVALUATION_SPLITS, NO_EVALUATION, data_files, evaluation_files};

/// What a file may ask of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest row, bytes of its text.
    pub max_row_bytes: u64,
    /// Most bytes a packed file (`.gz`, `.zst`, Parquet pages) may unpack to.
    pub max_unpacked_bytes: u64,
    /// Most bytes unpacked for each packed byte, beyond the first 64 MiB.
    pub max_unpack_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_row_bytes: 64 << 20, max_unpacked_bytes: 64 << 30, max_unpack_ratio: 250 }
    }
}

/// Rows of one file or of several. After an error other than `DataError::Row` it ends.
pub type RowIter = Box<dyn Iterator<Item = Result<RawRow, DataError>> + Send>;

/// A file format: how it is named, recognised and read.
#[derive(Debug)]
pub struct Format {
    /// Its name in `ds_type`.
    pub name: &'static str,
    /// File name endings, without the dot and without `.gz` / `.zst`.
    pub extensions: &'static [&'static str],
    /// One line for `--help` and the docs.
    pub about: &'static str,
    open: fn(Source) -> Result<RowIter, DataError>,
}

/// Every file format galen reads.
pub static FORMATS: &[Format] =
    &[json_lines::FORMAT, json::FORMAT, csv::FORMAT, parquet::FORMAT, text::FORMAT];

/// The format called `name` (`json` also stands for JSON lines, as in the `datasets` library).
pub fn format_by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|f| f.name.eq_ignore_ascii_case(name))
}

/// The format of a file by its ending, looking through `.gz` and `.zst`.
pub fn format_by_extension(path: &Path) -> Option<&'static Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = packed::strip_extension(&name);
    let (_, extension) = name.rsplit_once('.')?;
    FORMATS.iter().find(|f| f.extensions.contains(&extension))
}

/// Rows of one file. `format`: `None` goes by the ending. `shown` is how origins name the file.
pub fn open_file(
    path: &Path,
    shown: &str,
    format: Option<&'static Format>,
    limits: Limits,
) -> Result<RowIter, DataError> {
    let Some(format) = format.or_else(|| format_by_extension(path)) else {
        let known: Vec<_> = FORMATS.iter().flat_map(|f| f.extensions).map(|e| format!(".{e}")).collect();
        return Err(DataError::file(shown, "not a data file galen can read").with_hint(format!(
            "known endings: {} (also with .gz or .zst); else name the format with `ds_type:`",
            known.join(" ")
        )));
    };
    let source = Source { path: path.to_owned(), shown: shown.into(), limits };
    Ok(Box::new(UntilBroken { rows: (format.open)(source)?, broken: false }))
}

/// Rows of several files, one after the other, each opened when its turn comes.
pub fn open_files(files: Vec<PathBuf>, format: Option<&'static Format>, limits: Limits) -> RowIter {
    let rows = files.into_iter().flat_map(move |path| {
        let shown = path.display().to_string();
        open_file(&path, &shown, format, limits).unwrap_or_else(|e| Box::new(std::iter::once(Err(e))))
    });
    Box::new(UntilBroken { rows: Box::new(rows), broken: false })
}

/// Ends behind the first error that is not a single row's.
struct UntilBroken {
    rows: RowIter,
    broken: bool,
}

impl Iterator for UntilBroken {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let item = self.rows.next();
        if let Some(Err(e)) = &item {
            self.broken = e.fault().is_none();
        }
        item
    }
}

/// A file to be opened by a format.
pub(crate) struct Source {
    path: PathBuf,
    shown: Arc<str>,
    limits: Limits,
}

impl Source {
    fn io(&self, e: std::io::Error) -> DataError {
        DataError::io(&*self.shown, e)
    }

    /// The unpacked bytes as a stream, a UTF-8 byte order mark taken off.
    fn stream(&self) -> Result<Box<dyn BufRead + Send>, DataError> {
        let file = std::fs::File::open(&self.path).map_err(|e| self.io(e))?;
        let mut reader = BufReader::with_capacity(1 << 16, packed::unpack(file, &self.path, self.limits)?);
        if reader.fill_buf().map_err(|e| self.io(e))?.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        Ok(Box::new(reader))
    }
}

/// Reads up to and without the next `\n` into `line`; `Ok(false)` at the end. Never holds more than `max` bytes.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>, max: u64) -> std::io::Result<bool> {
    line.clear();
    let n = reader.take(max.saturating_add(1)).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if n as u64 > max {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, TOO_LONG));
    }
    Ok(n > 0)
}

const TOO_LONG: &str = "row is longer than the limit";

fn too_long(file: &str, line: u64, limits: Limits) -> DataError {
    DataError::file(
        format!("{file}:{line}"),
        format!("row is longer than the limit of `{}` bytes", limits.max_row_bytes),
    )
    .with_hint("is this the format its ending says? name it with `ds_type:` otherwise")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
