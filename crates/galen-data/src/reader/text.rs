//! Plain text: one row a line, its text in the field `text`.

use super::{Format, RowIter, Source, TOO_LONG, read_line, too_long};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use serde_json::{Map, Value};

pub(super) const FORMAT: Format = Format {
    name: "text",
    extensions: &["txt"],
    about: "one text a line, as the field `text`; blank lines are passed over",
    open,
};

fn open(source: Source) -> Result<RowIter, DataError> {
    let mut stream = source.stream()?;
    let (mut line, mut buffer) = (0, Vec::new());
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            line += 1;
            match read_line(&mut *stream, &mut buffer, source.limits.max_row_bytes) {
                Ok(false) => return None,
                Ok(true) if buffer.trim_ascii().is_empty() => {}
                Ok(true) => {
                    let origin = Origin::new(source.shown.clone(), line);
                    return Some(match std::str::from_utf8(&buffer) {
                        Ok(text) => {
                            let text = text.strip_suffix('\r').unwrap_or(text);
                            let fields = Map::from_iter([("text".to_owned(), Value::from(text))]);
                            Ok(RawRow { origin, fields })
                        }
                        Err(_) => Err(DataError::row(&origin, Fault::Syntax, "not valid UTF-8")),
                    });
                }
                Err(e) if e.to_string() == TOO_LONG => {
                    return Some(Err(too_long(&source.shown, line, source.limits)));
                }
                Err(e) => return Some(Err(source.io(e))),
            }
        }
    })))
}
