//! JSON: an array of objects, an object with a `data` array, or objects one after the other. Read as a stream: only
//! one row is in memory at a time.

use super::json_lines::object;
use super::{Format, RowIter, Source};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use serde_json::Value;
use std::io::BufRead;

pub(super) const FORMAT: Format = Format {
    name: "json",
    extensions: &["json"],
    about: "an array of objects, an object with a `data` array, or one object a line",
    open,
};

fn open(source: Source) -> Result<RowIter, DataError> {
    let mut bytes = Bytes { stream: source.stream()?, line: 1 };
    let shape = match bytes.peek_token().map_err(|e| source.io(e))? {
        None => Shape::Done,
        Some(b'[') => {
            bytes.bump();
            Shape::Array
        }
        Some(_) => Shape::Values,
    };
    Ok(Box::new(Rows { bytes, source, shape, record: 0, value: Vec::new(), held: Vec::new() }))
}

/// What surrounds the next row.
enum Shape {
    /// Elements of an array, up to its `]`.
    Array,
    /// Values one after the other, up to the end of the file.
    Values,
    /// No more rows.
    Done,
}

struct Rows {
    bytes: Bytes,
    source: Source,
    shape: Shape,
    record: u64,
    value: Vec<u8>,
    /// Rows of a `data` array already parsed, last first.
    held: Vec<Value>,
}

impl Iterator for Rows {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(value) = self.held.pop() {
            return Some(self.held_row(value));
        }
        match self.step() {
            Ok(true) => {
                self.record += 1;
                let origin = self.origin();
                let row = object(&self.value, &origin);
                match row {
                    Ok(row) if self.first_holds_data(&row) => self.unfold(row),
                    other => Some(other),
                }
            }
            Ok(false) => {
                self.shape = Shape::Done;
                None
            }
            Err(e) => {
                self.shape = Shape::Done;
                Some(Err(e))
            }
        }
    }
}

impl Rows {
    /// Lines where rows stand one a line; records in an array.
    fn origin(&self) -> Origin {
        Origin::new(self.source.shown.clone(), self.record)
    }

    /// Puts the bytes of the next row into `self.value`; false at the end.
    fn step(&mut self) -> Result<bool, DataError> {
        let io = |e| self.source.io(e);
        let broken = |line: u64, what: &str| {
            Err(DataError::file(format!("{}:{line}", self.source.shown), format!("not valid JSON: {what}")))
        };
        let next = self.bytes.peek_token().map_err(io)?;
        match (&self.shape, next) {
            (Shape::Done, _) | (Shape::Values, None) => return Ok(false),
            (Shape::Array, Some(b']')) => {
                self.bytes.bump();
                return match self.bytes.peek_token().map_err(io)? {
                    None => Ok(false),
                    Some(_) => broken(self.bytes.line, "text behind the array"),
                };
            }
            (Shape::Array, Some(b',')) if self.record > 0 => {
                self.bytes.bump();
                self.bytes.peek_token().map_err(io)?;
            }
            (Shape::Array, Some(_)) if self.record > 0 => {
                return broken(self.bytes.line, "expected `,` or `]`");
            }
            (Shape::Array, None) => return broken(self.bytes.line, "the array does not end"),
            (Shape::Array | Shape::Values, Some(_)) => {}
        }
        let line = self.bytes.line;
        match self.bytes.value(&mut self.value, self.source.limits.max_row_bytes).map_err(io)? {
            Scan::Whole => Ok(true),
            Scan::Cut => broken(line, "the file ends within a value that begins here"),
            Scan::TooLong => Err(super::too_long(&self.source.shown, line, self.source.limits)),
        }
    }

    /// Whether this is `{"data": [...]}`: the file's first value, with an array of objects in `data`.
    fn first_holds_data(&self, row: &RawRow) -> bool {
        matches!(self.shape, Shape::Values)
            && self.record == 1
            && matches!(row.fields.get("data"), Some(Value::Array(rows)) if rows.iter().all(Value::is_object))
    }

    fn unfold(&mut self, mut row: RawRow) -> Option<Result<RawRow, DataError>> {
        match self.bytes.peek_token() {
            Ok(None) => {}
            // More values follow: `data` is a field like any other.
            Ok(Some(_)) => return Some(Ok(row)),
            Err(e) => return Some(Err(self.source.io(e))),
        }
        if let Some(Value::Array(mut rows)) = row.fields.shift_remove("data") {
            rows.reverse();
            self.held = rows;
        }
        self.shape = Shape::Done;
        self.record = 0;
        let value = self.held.pop()?;
        Some(self.held_row(value))
    }

    fn held_row(&mut self, value: Value) -> Result<RawRow, DataError> {
        self.record += 1;
        match value {
            Value::Object(fields) => Ok(RawRow { origin: self.origin(), fields }),
            _ => Err(DataError::row(&self.origin(), Fault::Syntax, "expected a JSON object")),
        }
    }
}

enum Scan {
    Whole,
    Cut,
    TooLong,
}

/// A byte stream that knows where a JSON value ends, without understanding it: brackets are counted outside of
/// strings; serde_json, with its own recursion limit, judges the bytes afterwards.
struct Bytes {
    stream: Box<dyn BufRead + Send>,
    line: u64,
}

impl Bytes {
    fn peek(&mut self) -> std::io::Result<Option<u8>> {
        Ok(self.stream.fill_buf()?.first().copied())
    }

    fn bump(&mut self) {
        self.stream.consume(1);
    }

    /// The next byte that is not white space, not consumed.
    fn peek_token(&mut self) -> std::io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.line += u64::from(byte == b'\n');
            self.bump();
        }
        Ok(None)
    }

    /// Copies one value into `out`. The stream stands on its first byte.
    fn value(&mut self, out: &mut Vec<u8>, max: u64) -> std::io::Result<Scan> {
        out.clear();
        let (mut depth, mut in_string, mut escaped) = (0_u64, false, false);
        while let Some(byte) = self.peek()? {
            let closes_outer = depth == 0 && !in_string && matches!(byte, b',' | b']' | b'}');
            if closes_outer || (depth == 0 && !in_string && !out.is_empty() && byte.is_ascii_whitespace()) {
                if out.is_empty() {
                    // A stray bracket or comma: hand it on as the (invalid) value it is.
                    out.push(byte);
                    self.bump();
                }
                return Ok(Scan::Whole);
            }
            if out.len() as u64 >= max {
                return Ok(Scan::TooLong);
            }
            self.line += u64::from(byte == b'\n');
            out.push(byte);
            self.bump();
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                if !in_string && depth == 0 {
                    return Ok(Scan::Whole);
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(Scan::Whole);
                    }
                }
                _ => {}
            }
        }
        Ok(if depth == 0 && !in_string { Scan::Whole } else { Scan::Cut })
    }
}
