//! GGUF metadata values, and the cursor that reads them without trusting a length.

use std::ops::Range;

use galen_ops::mmap::Bytes;

/// Arrays of arrays deeper than this are refused; none are known to exist.
const MAX_DEPTH: usize = 4;
/// Longest key, by the specification.
const MAX_KEY_BYTES: usize = 65_535;

/// A metadata value.
#[derive(Debug, Clone)]
pub enum Value {
    /// Any unsigned integer type.
    Uint(u64),
    /// Any signed integer type.
    Int(i64),
    /// Either float type.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Str(String),
    /// An array, left in the file.
    Array(Array),
}

impl Value {
    /// A non-negative integer of whatever type.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(v) => Some(*v),
            Self::Int(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// A number of whatever type.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Uint(v) => Some(*v as f64),
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(v) = self { Some(*v) } else { None }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(v) = self { Some(v) } else { None }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        if let Self::Array(v) = self { Some(v) } else { None }
    }
}

/// Element type numbers of the format.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Bytes of a fixed-size element; none for text and arrays.
fn fixed_size(kind: u32) -> Option<usize> {
    match kind {
        kind::U8 | kind::I8 | kind::BOOL => Some(1),
        kind::U16 | kind::I16 => Some(2),
        kind::U32 | kind::I32 | kind::F32 => Some(4),
        kind::U64 | kind::I64 | kind::F64 => Some(8),
        _ => None,
    }
}

/// An array whose bytes were checked when the file was opened; elements are read as they are asked for.
#[derive(Debug, Clone)]
pub struct Array {
    kind: u32,
    len: usize,
    bytes: Bytes,
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements as text; none unless it is an array of text.
    pub fn strs(&self) -> Option<impl Iterator<Item = &str>> {
        let mut cursor = Cursor::new(self.bytes.as_slice());
        (self.kind == kind::STRING).then(|| (0..self.len).map_while(move |_| cursor.str("element").ok()))
    }

    /// Elements as values; arrays in it are left out.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        let mut cursor = Cursor::new(self.bytes.as_slice());
        let n = if self.kind == kind::ARRAY { 0 } else { self.len };
        (0..n).map_while(move |_| cursor.scalar(self.kind).ok())
    }
}

/// Reads little-endian fields from the front of a file. Errors say what was being read, and where.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], String> {
        if n > self.remaining() {
            return Err(format!(
                "{what} at byte {} takes {n} bytes, but only {} are left",
                self.at,
                self.remaining()
            ));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let taken = self.take(N, what)?;
        taken.first_chunk::<N>().copied().ok_or_else(|| format!("{what} is cut short"))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each: one that cannot fit is refused before anything is
    /// allocated for it.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<usize, String> {
        let at = self.at;
        let count = self.u64(what)?;
        match usize::try_from(count) {
            Ok(n) if n <= self.remaining() / least.max(1) => Ok(n),
            _ => Err(format!("{what} at byte {at} is {count}, more than the rest of the file can hold")),
        }
    }

    pub(super) fn str(&mut self, what: &str) -> Result<&'a str, String> {
        let n = self.count(1, what)?;
        let at = self.at;
        let bytes = self.take(n, what)?;
        std::str::from_utf8(bytes).map_err(|e| format!("{what} at byte {at} is not UTF-8: {e}"))
    }

    pub(super) fn key(&mut self, what: &str) -> Result<&'a str, String> {
        let key = self.str(what)?;
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(format!("{what} has {} bytes", key.len()));
        }
        Ok(key)
    }

    fn scalar(&mut self, kind: u32) -> Result<Value, String> {
        let what = "a value";
        Ok(match kind {
            kind::U8 => Value::Uint(u64::from(u8::from_le_bytes(self.array(what)?))),
            kind::I8 => Value::Int(i64::from(i8::from_le_bytes(self.array(what)?))),
            kind::U16 => Value::Uint(u64::from(u16::from_le_bytes(self.array(what)?))),
            kind::I16 => Value::Int(i64::from(i16::from_le_bytes(self.array(what)?))),
            kind::U32 => Value::Uint(u64::from(u32::from_le_bytes(self.array(what)?))),
            kind::I32 => Value::Int(i64::from(i32::from_le_bytes(self.array(what)?))),
            kind::U64 => Value::Uint(u64::from_le_bytes(self.array(what)?)),
            kind::I64 => Value::Int(i64::from_le_bytes(self.array(what)?)),
            kind::F32 => Value::Float(f64::from(f32::from_le_bytes(self.array(what)?))),
            kind::F64 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            kind::BOOL => match u8::from_le_bytes(self.array(what)?) {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(format!("a truth value before byte {} is `{other}`", self.at)),
            },
            kind::STRING => Value::Str(self.str("text")?.to_owned()),
            other => {
                return Err(format!("value type `{other}` before byte {} is not of this format", self.at));
            }
        })
    }

    /// A value of a type, with its type number before it. `file` is what the cursor reads.
    pub(super) fn value(&mut self, file: &Bytes) -> Result<Value, String> {
        let kind = self.u32("a value type")?;
        if kind != kind::ARRAY {
            return self.scalar(kind);
        }
        let (element, len, range) = self.array_extent(1)?;
        let bytes = file.slice(range).map_err(|e| e.to_string())?;
        Ok(Value::Array(Array { kind: element, len, bytes }))
    }

    /// Walks over an array, checking every element; gives its element type, length and bytes.
    fn array_extent(&mut self, depth: usize) -> Result<(u32, usize, Range<usize>), String> {
        if depth > MAX_DEPTH {
            return Err(format!("arrays nested more than {MAX_DEPTH} deep at byte {}", self.at));
        }
        let element = self.u32("an array's element type")?;
        let least = match element {
            kind::STRING => 8,
            kind::ARRAY => 12,
            other => fixed_size(other).ok_or_else(|| {
                format!("element type `{other}` before byte {} is not of this format", self.at)
            })?,
        };
        let len = self.count(least, "an array's length")?;
        let start = self.at;
        match element {
            kind::STRING => {
                for _ in 0..len {
                    self.str("text of an array")?;
                }
            }
            kind::ARRAY => {
                for _ in 0..len {
                    self.array_extent(depth + 1)?;
                }
            }
            kind::BOOL => {
                if let Some(bad) = self.take(len, "an array")?.iter().find(|b| **b > 1) {
                    return Err(format!("a truth value in the array at byte {start} is `{bad}`"));
                }
            }
            _ => {
                self.take(len * least, "an array")?;
            }
        }
        Ok((element, len, start..self.at))
    }
}
