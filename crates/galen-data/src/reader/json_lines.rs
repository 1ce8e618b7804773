//! JSON lines: one object a line.

use super::{Format, RowIter, Source, TOO_LONG, read_line, too_long};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use serde_json::Value;
use std::io::BufRead;

pub(super) const FORMAT: Format = Format {
    name: "jsonl",
    extensions: &["jsonl", "ndjson"],
    about: "one JSON object a line; blank lines are passed over",
    open,
};

fn open(source: Source) -> Result<RowIter, DataError> {
    let stream = source.stream()?;
    Ok(Box::new(Lines { stream, source, line: 0, buffer: Vec::new() }))
}

struct Lines {
    stream: Box<dyn BufRead + Send>,
    source: Source,
    line: u64,
    buffer: Vec<u8>,
}

impl Iterator for Lines {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line += 1;
            match read_line(&mut *self.stream, &mut self.buffer, self.source.limits.max_row_bytes) {
                Ok(false) => return None,
                Ok(true) if self.buffer.trim_ascii().is_empty() => {}
                Ok(true) => {
                    return Some(object(&self.buffer, &Origin::new(self.source.shown.clone(), self.line)));
                }
                Err(e) if e.to_string() == TOO_LONG => {
                    return Some(Err(too_long(&self.source.shown, self.line, self.source.limits)));
                }
                Err(e) => return Some(Err(self.source.io(e))),
            }
        }
    }
}

/// Bytes of one JSON value to a row; anything but an object is a bad row.
pub(super) fn object(bytes: &[u8], origin: &Origin) -> Result<RawRow, DataError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(RawRow { origin: origin.clone(), fields }),
        Ok(other) => {
            let what = format!("expected a JSON object, found {}", crate::format::kind(&other));
            let error = DataError::row(origin, Fault::Syntax, what);
            // A whole file in one list is the other format.
            Err(if other.is_array() { error.with_hint("a list of rows is a `.json` file") } else { error })
        }
        Err(_) if std::str::from_utf8(bytes).is_err() => {
            let error = DataError::row(origin, Fault::Syntax, "it is not UTF-8");
            Err(error.with_hint("`iconv -f latin1 -t utf8` (or `-f utf16`) makes it so"))
        }
        Err(e) => {
            let error =
                DataError::row(origin, Fault::Syntax, format!("not valid JSON: {}", position_free(&e)));
            Err(if e.is_eof() { error.with_hint("one row is one line of JSONL") } else { error })
        }
    }
}

/// serde_json counts lines within the value; the origin already names the file's line, so only the column stays.
fn position_free(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", e.column())
}
