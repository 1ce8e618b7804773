//! What must be true of a Parquet file before the `parquet` crate is let near it.
//!
//! The crate returns errors for most malformed files, but it allocates by sizes that page headers state and recurses
//! as deep as the schema says. Running out of memory or stack ends the process: no `Result` and no `catch_unwind`
//! would help. So the footer and every page header are walked first; nothing is allocated by a stated size.
//! Source of the layout: the Apache Parquet format, `parquet.thrift`.

use super::Limits;
use super::thrift::{Value, read_struct};
use std::fs::File;
use std::io::{Error, Read, Seek, SeekFrom};

/// Largest footer; published data sets stay below 1 MiB.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Groups within groups of a schema.
const MAX_SCHEMA_DEPTH: usize = 24;
/// Longest page header; statistics are what makes one long.
const MAX_PAGE_HEADER_BYTES: usize = 1 << 20;

/// Rows that need no bytes to justify them.
const FREE_ROWS: u64 = 1 << 20;
/// Rows for each unpacked byte beyond those, and list elements for each beyond one a row.
const MAX_VALUES_PER_BYTE: u64 = 256;

/// Encodings whose data state counts that the crate allocates by, behind what a header shows.
const REFUSED_ENCODINGS: &[(i64, &str)] = &[(6, "DELTA_LENGTH_BYTE_ARRAY"), (7, "DELTA_BYTE_ARRAY")];

/// Walks the file; `Err` says what is wrong with it.
pub(super) fn check(file: &mut File, limits: Limits) -> Result<(), String> {
    let len = file.metadata().map_err(|e: Error| e.to_string())?.len();
    let footer = footer(file, len)?;
    let (metadata, _) = read_struct(&footer).ok_or("the footer is not valid")?;
    let schema = metadata.field(2).and_then(Value::list).ok_or("the footer has no schema")?;
    check_schema(schema)?;
    let mut unpacked = Budget { left: limits.max_unpacked_bytes };
    let mut total_rows = 0_u64;
    for group in metadata.field(4).and_then(Value::list).ok_or("the footer has no row groups")? {
        let chunks = group.field(1).and_then(Value::list).ok_or("a row group has no columns")?;
        let rows = group.field(3).and_then(Value::int).unwrap_or(-1);
        if rows < 0 {
            return Err(format!("a row group has `{rows}` rows"));
        }
        for chunk in chunks {
            check_chunk(file, chunk, len, rows, &mut unpacked)?;
        }
        total_rows = total_rows.saturating_add(rows as u64);
    }
    // Rows of nulls take no bytes, so a few could stand for any number of rows.
    let bytes = limits.max_unpacked_bytes - unpacked.left;
    if total_rows > FREE_ROWS.saturating_add(bytes.saturating_mul(MAX_VALUES_PER_BYTE)) {
        return Err(format!("it states `{total_rows}` rows in `{bytes}` bytes"));
    }
    Ok(())
}

struct Budget {
    left: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or("its pages unpack to more than the limit")?;
        Ok(())
    }
}

fn footer(file: &mut File, len: u64) -> Result<Vec<u8>, String> {
    if len < 12 {
        return Err(format!("`{len}` bytes are too few"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(len - 8))
        .and_then(|_| file.read_exact(&mut tail))
        .map_err(|e: Error| e.to_string())?;
    let [a, b, c, d, magic @ ..] = tail;
    if &magic == b"PARE" {
        return Err("the file is encrypted".to_owned());
    }
    if &magic != b"PAR1" {
        return Err("it does not end with `PAR1` (cut short?)".to_owned());
    }
    let footer_len = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer_len > len - 12 || footer_len > MAX_FOOTER_BYTES {
        return Err(format!("a footer of `{footer_len}` bytes in a file of `{len}`"));
    }
    let mut footer = vec![0; footer_len as usize];
    file.seek(SeekFrom::Start(len - 8 - footer_len))
        .and_then(|_| file.read_exact(&mut footer))
        .map_err(|e: Error| e.to_string())?;
    Ok(footer)
}

/// The schema is a tree in depth-first order, each element stating its number of children.
fn check_schema(schema: &[Value]) -> Result<(), String> {
    let mut open: Vec<i64> = Vec::new();
    for (i, element) in schema.iter().enumerate() {
        let children = element.field(5).and_then(Value::int).unwrap_or(0);
        if children < 0 || children as usize > schema.len() {
            return Err(format!("schema element {i} has `{children}` children"));
        }
        if i > 0 {
            while open.last() == Some(&0) {
                open.pop();
            }
            *open.last_mut().ok_or("the schema has more than one root")? -= 1;
        }
        if children > 0 || i == 0 {
            open.push(children);
        }
        if open.len() > MAX_SCHEMA_DEPTH {
            return Err(format!("the schema is nested deeper than `{MAX_SCHEMA_DEPTH}`"));
        }
    }
    if open.iter().any(|n| *n != 0) {
        return Err("the schema has fewer elements than it states".to_owned());
    }
    Ok(())
}

fn check_chunk(
    file: &mut File,
    chunk: &Value,
    len: u64,
    rows: i64,
    unpacked: &mut Budget,
) -> Result<(), String> {
    let meta = chunk.field(3).ok_or("a column chunk has no metadata")?;
    let int = |id| meta.field(id).and_then(Value::int);
    let gzip = int(4) == Some(2);
    let packed = int(4) != Some(0);
    let lz4 = int(4) == Some(5);
    let (Some(values), Some(size), Some(data)) = (int(5), int(7), int(9)) else {
        return Err("a column chunk states no sizes".to_owned());
    };
    // The crate begins at the dictionary wherever that is said to be.
    if int(11).is_some_and(|dictionary| !(4..=data).contains(&dictionary)) {
        return Err("a column chunk's dictionary lies behind its data".to_owned());
    }
    let start = int(11).unwrap_or(data);
    let end = start.checked_add(size).filter(|e| start >= 4 && size >= 0 && *e as u64 <= len);
    let Some(end) = end else {
        return Err(format!("a column chunk at `{start}` of `{size}` bytes lies outside of the file"));
    };
    let (mut at, mut seen, mut bytes) = (start as u64, 0_i64, 0_u64);
    while seen < values && at < end as u64 {
        let page = page_header(file, at, end as u64)?;
        let body = at + page.header_bytes;
        if body + page.packed_bytes > end as u64 {
            return Err(format!("the page at `{at}` reaches past its column chunk"));
        }
        unpacked.take(page.unpacked_bytes)?;
        bytes += page.unpacked_bytes;
        if let Some(name) = REFUSED_ENCODINGS.iter().find(|(e, _)| *e == page.encoding).map(|(_, name)| name)
        {
            return Err(format!("a column is encoded as `{name}`, which galen does not read"));
        }
        if !packed && page.unpacked_bytes != page.packed_bytes {
            return Err(format!("the unpacked page at `{at}` states two sizes"));
        }
        if page.dictionary && page.values as u64 > page.unpacked_bytes {
            return Err(format!(
                "the dictionary at `{at}` states `{}` values in `{}` bytes",
                page.values, page.unpacked_bytes
            ));
        }
        if gzip && !page.gzip_fits(file, body)? {
            return Err(format!("the page at `{at}` unpacks to more than it states"));
        }
        if lz4 && page.is_lz4_frame(file, body)? {
            return Err(format!("the page at `{at}` is an LZ4 frame, which states no size"));
        }
        seen += if page.dictionary { 0 } else { page.values };
        at = body + page.packed_bytes;
    }
    if seen < values {
        return Err(format!("a column chunk states `{values}` values and has `{seen}`"));
    }
    // Run lengths let a few bytes speak of any number of list elements, all of which one row would hold.
    let most = bytes.saturating_mul(MAX_VALUES_PER_BYTE).saturating_add(rows as u64).saturating_add(4096);
    if values < 0 || values as u64 > most {
        return Err(format!("a column chunk of `{rows}` rows states `{values}` values in `{bytes}` bytes"));
    }
    Ok(())
}

struct Page {
    header_bytes: u64,
    packed_bytes: u64,
    unpacked_bytes: u64,
    /// Bytes before the packed part (levels of a version 2 page).
    level_bytes: u64,
    values: i64,
    dictionary: bool,
    encoding: i64,
}

impl Page {
    /// The deprecated codec is LZ4 in Hadoop's blocks, which state their sizes; the crate takes frames for it too.
    fn is_lz4_frame(&self, file: &mut File, body: u64) -> Result<bool, String> {
        file.seek(SeekFrom::Start(body + self.level_bytes)).map_err(|e: Error| e.to_string())?;
        let mut magic = [0; 4];
        Ok(file.read_exact(&mut magic).is_ok() && magic == [0x04, 0x22, 0x4d, 0x18])
    }

    /// gzip states no size of its own and the crate unpacks it to the end: measure it first.
    fn gzip_fits(&self, file: &mut File, body: u64) -> Result<bool, String> {
        file.seek(SeekFrom::Start(body + self.level_bytes)).map_err(|e: Error| e.to_string())?;
        let stream = file.take(self.packed_bytes.saturating_sub(self.level_bytes));
        let mut unpacked = flate2::read::MultiGzDecoder::new(stream).take(self.unpacked_bytes + 1);
        // A broken stream is the crate's to report.
        let n = std::io::copy(&mut unpacked, &mut std::io::sink()).unwrap_or(0);
        Ok(n <= self.unpacked_bytes)
    }
}

fn page_header(file: &mut File, at: u64, end: u64) -> Result<Page, String> {
    let (mut window, limit) = (512_usize, (end - at).min(MAX_PAGE_HEADER_BYTES as u64) as usize);
    loop {
        let take = window.min(limit);
        let mut bytes = vec![0; take];
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e: Error| e.to_string())?;
        if let Some((header, used)) = read_struct(&bytes) {
            return page(&header, used).ok_or_else(|| format!("the page header at `{at}` is not valid"));
        }
        if take == limit {
            return Err(format!("the page header at `{at}` is not valid"));
        }
        window *= 8;
    }
}

fn page(header: &Value, used: usize) -> Option<Page> {
    let size = |id| header.field(id).and_then(Value::int).and_then(|v| i32::try_from(v).ok());
    let kind = size(1)?;
    let (unpacked, packed) = (u64::try_from(size(2)?).ok()?, u64::try_from(size(3)?).ok()?);
    // 5: data page, 7: dictionary page, 8: data page of version 2.
    let (inner, dictionary) = match kind {
        0 => (header.field(5)?, false),
        2 => (header.field(7)?, true),
        3 => (header.field(8)?, false),
        // Index pages hold no values.
        1 => {
            return Some(Page {
                header_bytes: used as u64,
                packed_bytes: packed,
                unpacked_bytes: unpacked,
                level_bytes: 0,
                values: 0,
                dictionary: false,
                encoding: 0,
            });
        }
        _ => return None,
    };
    let values = i64::from(i32::try_from(inner.field(1)?.int()?).ok()?);
    let encoding = inner.field(if kind == 3 { 4 } else { 2 })?.int()?;
    let level = |id| inner.field(id).and_then(Value::int).unwrap_or(0);
    let level_bytes = if kind == 3 { level(5).checked_add(level(6))? } else { 0 };
    let level_bytes = u64::try_from(level_bytes).ok()?;
    if values < 0 || level_bytes > packed {
        return None;
    }
    Some(Page {
        header_bytes: used as u64,
        packed_bytes: packed,
        unpacked_bytes: unpacked,
        level_bytes,
        values,
        dictionary,
        encoding,
    })
}

#[cfg(test)]
mod tests;
