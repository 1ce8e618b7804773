//! Parquet, by the row interface of the `parquet` crate (without Arrow, which would triple its compile time).

use super::{Format, RowIter, Source, packed, parquet_guard};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
use serde_json::{Map, Number, Value};
use std::fs::File;
use std::io::Seek;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) const FORMAT: Format = Format {
    name: "parquet",
    extensions: &["parquet"],
    about: "Apache Parquet; plain, snappy, gzip, lz4 or zstd pages",
    open,
};

/// Most nested lists and structs of a value.
const MAX_DEPTH: u32 = 32;

fn open(source: Source) -> Result<RowIter, DataError> {
    let mut file = File::open(&source.path).map_err(|e| source.io(e))?;
    let is_packed = source.path.extension().is_some_and(|e| {
        let e = e.to_ascii_lowercase();
        e == "gz" || e == "zst"
    });
    if is_packed {
        // Parquet is read from its end, so a packed one is unpacked to a file without a name first.
        let mut whole = packed::unpack(file, &source.path, source.limits)?;
        let mut unpacked = tempfile::tempfile().map_err(|e| source.io(e))?;
        std::io::copy(&mut whole, &mut unpacked).map_err(|e| source.io(e))?;
        unpacked.rewind().map_err(|e| source.io(e))?;
        file = unpacked;
    }
    let broken = |what: String| DataError::file(&*source.shown, format!("not valid Parquet: {what}"));
    parquet_guard::check(&mut file, source.limits).map_err(broken)?;
    let rows =
        guarded(|| SerializedFileReader::new(file).map(SerializedFileReader::into_iter)).map_err(broken)?;
    let mut rows = Some(rows);
    let mut record = 0;
    Ok(Box::new(std::iter::from_fn(move || {
        let reader = rows.as_mut()?;
        record += 1;
        let next = match guarded(|| reader.next().transpose()) {
            Ok(next) => next?,
            Err(what) => {
                rows = None;
                let at = format!("{}:{record}", source.shown);
                return Some(Err(DataError::file(at, format!("not valid Parquet: {what}"))));
            }
        };
        let origin = Origin::new(source.shown.clone(), record);
        let mut fields = Map::new();
        for (name, field) in next.into_columns() {
            let Some(value) = json(&field, 0) else {
                let what = format!("field `{name}` is nested deeper than `{MAX_DEPTH}`");
                return Some(Err(DataError::row(&origin, Fault::Syntax, what)));
            };
            fields.insert(name, value);
        }
        Some(Ok(RawRow { origin, fields }))
    })))
}

/// Runs the `parquet` crate, a panic of it made an error. Its decoders index by values they read and state no
/// promise not to panic; the reader is dropped after one, so nothing half-changed is used again.
fn guarded<T>(f: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("its contents contradict one another".to_owned()),
    }
}

/// A Parquet value as JSON. Bytes that are no text and floats that JSON has no word for become null; times and
/// decimals become text. `None`: nested too deep.
fn json(field: &Field, depth: u32) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let float = |v: f64| Number::from_f64(v).map_or(Value::Null, Value::Number);
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float16(v) => float(v.to_f64()),
        Field::Float(v) => float(f64::from(*v)),
        Field::Double(v) => float(*v),
        Field::Str(v) => v.as_str().into(),
        Field::Bytes(v) => std::str::from_utf8(v.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => {
            let mut object = Map::new();
            for (name, value) in row.get_column_iter() {
                object.insert(name.clone(), json(value, depth + 1)?);
            }
            Value::Object(object)
        }
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(|v| json(v, depth + 1)).collect::<Option<_>>()?)
        }
        Field::MapInternal(map) => {
            let mut object = Map::new();
            for (key, value) in map.entries() {
                let key = match json(key, depth + 1)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, json(value, depth + 1)?);
            }
            Value::Object(object)
        }
        other => other.to_string().into(),
    })
}
