//! Comma-separated values with a header line. Every value is a string; an empty cell is an empty string.

use super::{Format, RowIter, Source, too_long};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const FORMAT: Format = Format {
    name: "csv",
    extensions: &["csv"],
    about: "comma-separated values, the first line names the fields",
    open,
};

fn open(source: Source) -> Result<RowIter, DataError> {
    let read_bytes = Arc::new(AtomicU64::new(0));
    // An unclosed quote would make one record of the whole file: the reader ends it a buffer past the limit.
    let bounded = RecordBound {
        inner: Box::new(source.stream()?),
        read_bytes: read_bytes.clone(),
        max: source.limits.max_row_bytes.saturating_add(1 << 17),
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bounded);
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(e) => return Err(broken(&source, 1, &e)),
    };
    if names.is_empty() {
        return Err(DataError::file(&*source.shown, "the file is empty: no header line"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
        let what = format!("column `{twice}` is there twice");
        return Err(DataError::file(format!("{}:1", source.shown), what));
    }
    let mut bytes = csv::ByteRecord::new();
    Ok(Box::new(std::iter::from_fn(move || {
        read_bytes.store(0, Ordering::Relaxed);
        let line = reader.position().line();
        match reader.read_byte_record(&mut bytes) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(e) => return Some(Err(broken(&source, line, &e))),
        }
        let line = bytes.position().map_or(line, csv::Position::line);
        let origin = Origin::new(source.shown.clone(), line);
        let bad = |what: String| Some(Err(DataError::row(&origin, Fault::Syntax, what)));
        let record = match csv::StringRecord::from_byte_record(std::mem::take(&mut bytes)) {
            Ok(record) => record,
            Err(e) => return bad(format!("not valid UTF-8 in column `{}`", e.utf8_error().field() + 1)),
        };
        if record.len() != names.len() {
            return bad(format!("`{}` values for `{}` columns", record.len(), names.len()));
        }
        let fields = names.iter().zip(&record).map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
        Some(Ok(RawRow { origin, fields }))
    })))
}

fn broken(source: &Source, line: u64, e: &csv::Error) -> DataError {
    match e.kind() {
        csv::ErrorKind::Io(io) if io.to_string() == super::TOO_LONG => {
            too_long(&source.shown, line, source.limits)
        }
        csv::ErrorKind::Io(io) => DataError::file(&*source.shown, io.to_string()),
        _ => DataError::file(format!("{}:{line}", source.shown), e.to_string()),
    }
}

struct RecordBound {
    inner: Box<dyn Read + Send>,
    read_bytes: Arc<AtomicU64>,
    max: u64,
}

impl Read for RecordBound {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if self.read_bytes.fetch_add(n as u64, Ordering::Relaxed) > self.max {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, super::TOO_LONG));
        }
        Ok(n)
    }
}
