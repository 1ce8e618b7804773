//! Thrift's compact protocol, read into a bounded tree: what [`super::parquet_guard`] checks a file by.
//! Source: the compact protocol specification of Apache Thrift.

use std::ops::Range;

/// Structs and lists within one another.
const MAX_DEPTH: u32 = 24;
/// Fields of a struct; Parquet's have at most a dozen or two.
const MAX_FIELDS: usize = 64;
/// Values of one message.
const MAX_NODES: usize = 4_000_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Double,
    /// Byte range of a string or binary in the message.
    Bytes(Range<usize>),
    List(Vec<Value>),
    Struct(Vec<(i64, Value)>),
}

impl Value {
    pub(super) fn field(&self, id: i64) -> Option<&Value> {
        match self {
            Self::Struct(fields) => fields.iter().find(|(i, _)| *i == id).map(|(_, v)| v),
            _ => None,
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(*v),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Value]> {
        match self {
            Self::List(v) => Some(v),
            _ => None,
        }
    }
}

/// Reads one struct from the front of `bytes`; with it, how many bytes it took. `None`: malformed.
pub(super) fn read_struct(bytes: &[u8]) -> Option<(Value, usize)> {
    let mut reader = Reader { bytes, at: 0, nodes: 0 };
    let value = reader.structure(0)?;
    Some((value, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let b = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(b)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let b = self.byte()?;
            value |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let v = self.varint()?;
        Some((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    fn skip(&mut self, n: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(n)?;
        if end > self.bytes.len() {
            return None;
        }
        let range = self.at..end;
        self.at = end;
        Some(range)
    }

    /// One value more; `None` beyond [`MAX_NODES`].
    fn count(&mut self) -> Option<()> {
        self.nodes += 1;
        (self.nodes <= MAX_NODES).then_some(())
    }

    fn structure(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (mut fields, mut id) = (Vec::new(), 0_i64);
        loop {
            let header = self.byte()?;
            let kind = header & 0x0f;
            if kind == 0 {
                return Some(Value::Struct(fields));
            }
            id = match header >> 4 {
                0 => self.zigzag()?,
                delta => id.checked_add(i64::from(delta))?,
            };
            let value = match kind {
                1 | 2 => {
                    self.count()?;
                    Value::Bool(kind == 1)
                }
                _ => self.value(kind, depth + 1)?,
            };
            // Others take the last of a field that is there twice.
            if fields.len() >= MAX_FIELDS || fields.iter().any(|(other, _)| *other == id) {
                return None;
            }
            fields.push((id, value));
        }
    }

    fn value(&mut self, kind: u8, depth: u32) -> Option<Value> {
        self.count()?;
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match kind {
            // Within a list a boolean is one byte.
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Int(i64::from(self.byte()? as i8)),
            4..=6 => Value::Int(self.zigzag()?),
            7 => {
                self.skip(8)?;
                Value::Double
            }
            8 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.skip(len)?)
            }
            9 | 10 => {
                let header = self.byte()?;
                let len = match header >> 4 {
                    15 => usize::try_from(self.varint()?).ok()?,
                    n => usize::from(n),
                };
                // Every element takes at least a byte: a larger count is a lie.
                if len > self.bytes.len() - self.at {
                    return None;
                }
                let mut list = Vec::new();
                for _ in 0..len {
                    list.push(self.value(header & 0x0f, depth + 1)?);
                }
                Value::List(list)
            }
            12 => self.structure(depth + 1)?,
            // Maps and uuids do not occur in Parquet's metadata.
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_refuses() {
        // field 1: i32 5; field 3: "ab"; field 4: list of two i64 (-1, 1); stop
        let good = [0x15, 10, 0x28, 2, b'a', b'b', 0x19, 0x26, 1, 2, 0];
        let (value, used) = read_struct(&good).unwrap();
        assert_eq!(used, good.len());
        assert_eq!(value.field(1).and_then(Value::int), Some(5));
        assert_eq!(value.field(3), Some(&Value::Bytes(4..6)));
        assert_eq!(value.field(4).and_then(Value::list), Some(&[Value::Int(-1), Value::Int(1)][..]));
        for n in 0..good.len() {
            assert_eq!(read_struct(&good[..n]), None, "cut at {n}");
        }
        // field 1 twice: the crate would take the second.
        assert_eq!(read_struct(&[0x15, 10, 0x05, 2, 12, 0]), None, "a field twice");
        assert!(read_struct(&[0x15, 10, 0x05, 4, 12, 0]).is_some(), "another field");
        let long_list = [0x19, 0xf6, 0xff, 0xff, 0xff, 0x7f, 0];
        assert_eq!(read_struct(&long_list), None);
        assert_eq!(read_struct(&[0x1c; 1000]), None, "deep nesting");
        // A truth value is one byte of the file and forty of ours.
        let mut flags = vec![0x11; MAX_NODES + 1];
        flags.push(0);
        assert_eq!(read_struct(&flags), None, "truth values without end");
        assert_eq!(read_struct(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), None);
    }
}
