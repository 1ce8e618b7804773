//! GGUF files, version 2 and 3 (ggml `docs/gguf.md`), whole or split.
//!
//! Nothing in the file is believed: every count and length is held against the bytes that are left before it is
//! used, names and keys are unique, and tensors lie inside the file without overlap.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use galen_ops::mmap::Bytes;
use galen_ops::quant::WeightDtype;

use super::error::{Result, WeightsError};
use super::gguf_value::{Array, Cursor, Value};

const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_DIMS: u32 = 4;
/// Far above any real model; bounds what a header can make us hold.
const MAX_TENSORS: usize = 1 << 18;
const MAX_PAIRS: usize = 1 << 16;

/// A tensor of the file.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// How it is stored.
    pub dtype: WeightDtype,
    /// Row-major: rows first, the contiguous dimension last (the reverse of the file's order).
    pub shape: Vec<usize>,
    /// Its bytes, exactly.
    pub bytes: Bytes,
}

/// A metadata pair as the file has it, for writing it again.
#[derive(Debug, Clone)]
pub struct GgufPair {
    /// Its key.
    pub key: String,
    /// The number of its value's type, then the value.
    pub bytes: Bytes,
}

/// An opened GGUF model: metadata of the first file, tensors of all.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    metadata: BTreeMap<String, Value>,
    pairs: Vec<GgufPair>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Gguf {
    /// Opens a file, with all its siblings if it is one of a split model (`NAME-00001-of-00003.gguf`).
    pub fn open(path: &Path) -> Result<Self> {
        let count = |file: &Self| file.u64("split.count").unwrap_or(1);
        let opened = Self::parse(path, &Bytes::open(path)?)?;
        let parts = count(&opened);
        if parts <= 1 {
            return Ok(opened);
        }
        let Some((prefix, named)) = split_name(path).filter(|(_, named)| *named == parts) else {
            let what =
                format!("`split.count` is {parts}, but the name does not end in `-00001-of-{parts:05}.gguf`");
            return Err(WeightsError::config(path, what));
        };
        let part_path = |i: u64| path.with_file_name(format!("{prefix}-{:05}-of-{named:05}.gguf", i + 1));
        let mut whole = Self::parse(&part_path(0), &Bytes::open(&part_path(0))?)?;
        for i in 0..parts {
            let path = part_path(i);
            let part = if i == 0 { None } else { Some(Self::parse(&path, &Bytes::open(&path)?)?) };
            let said = part.as_ref().unwrap_or(&whole);
            if said.u64("split.no") != Some(i) || count(said) != parts {
                let what =
                    format!("is not part {i} (from 0) of {parts} by its own `split.no` and `split.count`");
                return Err(WeightsError::config(&path, what));
            }
            for (name, tensor) in part.map(|p| p.tensors).unwrap_or_default() {
                if whole.tensors.insert(name.clone(), tensor).is_some() {
                    return Err(WeightsError::corrupt(
                        &path,
                        format!("tensor `{name}` is in an earlier part too"),
                    ));
                }
            }
        }
        match whole.u64("split.tensors.count") {
            Some(n) if n != whole.tensors.len() as u64 => {
                let what = format!("`split.tensors.count` is {n}, the parts hold {}", whole.tensors.len());
                Err(WeightsError::corrupt(path, what))
            }
            _ => Ok(whole),
        }
    }

    /// Reads one file's header from its bytes. `path` is for messages.
    pub fn parse(path: &Path, file: &Bytes) -> Result<Self> {
        parse(path, file).map_err(|failure| match failure {
            Failure::Corrupt(what) => WeightsError::corrupt(path, what),
            Failure::Unsupported(what, hint) => {
                WeightsError::Unsupported { path: path.display().to_string(), what, hint }
            }
        })
    }

    /// The file that was opened (of a split model, the first).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A metadata value that is a non-negative integer.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_u64)
    }

    /// A metadata value that is a number.
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64)
    }

    /// A metadata value that is a truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// A metadata value that is text.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// A metadata value that is an array.
    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key).and_then(Value::as_array)
    }

    /// Metadata keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Metadata pairs as they are, in the file's order.
    pub fn pairs(&self) -> &[GgufPair] {
        &self.pairs
    }

    /// A tensor by the file's own name (`blk.0.attn_q.weight`).
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }

    /// Names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// `NAME-00002-of-00003.gguf` to (`NAME`, 3).
fn split_name(path: &Path) -> Option<(&str, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    if digits(count) && digits(number) { Some((prefix, count.parse().ok()?)) } else { None }
}

enum Failure {
    Corrupt(String),
    Unsupported(String, Option<String>),
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Corrupt(what)
    }
}

/// A tensor as the header describes it.
struct Described {
    name: String,
    dtype: WeightDtype,
    shape: Vec<usize>,
    offset: u64,
    nbytes: usize,
}

fn parse(path: &Path, file: &Bytes) -> std::result::Result<Gguf, Failure> {
    let mut cursor = Cursor::new(file.as_slice());
    if file.as_slice().is_empty() {
        return Err(Failure::Corrupt("the file is empty".to_owned()));
    }
    let magic = cursor.take(4, "the magic number")?;
    if magic != b"GGUF" {
        return Err(Failure::Corrupt("does not begin with `GGUF`".to_owned()));
    }
    let version = cursor.u32("the version")?;
    if !(2..=3).contains(&version) {
        let big_endian = (1..=3).contains(&version.swap_bytes());
        let what = if big_endian {
            "a big-endian GGUF file".to_owned()
        } else {
            format!("GGUF version `{version}`")
        };
        return Err(Failure::Unsupported(
            what,
            Some("convert the model again with a current llama.cpp".to_owned()),
        ));
    }
    // The smallest tensor description is 24 bytes (empty name, no dimensions), the smallest key-value pair 13.
    let n_tensors = cursor.count(24, "the number of tensors")?;
    let n_pairs = cursor.count(13, "the number of metadata pairs")?;
    if n_tensors > MAX_TENSORS || n_pairs > MAX_PAIRS {
        return Err(Failure::Corrupt(format!("claims {n_tensors} tensors and {n_pairs} metadata pairs")));
    }

    let mut metadata = BTreeMap::new();
    let mut pairs = Vec::new();
    for _ in 0..n_pairs {
        let key = cursor.key("a metadata key")?;
        let start = cursor.position();
        let value = cursor.value(file).map_err(|what| format!("metadata `{}`: {what}", shorten(key)))?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(Failure::Corrupt(format!("metadata key `{}` comes twice", shorten(key))));
        }
        let bytes = file.slice(start..cursor.position()).map_err(|e| e.to_string())?;
        pairs.push(GgufPair { key: key.to_owned(), bytes });
    }
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => match value.as_u64() {
            Some(a) if a.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&a) => a,
            _ => return Err(Failure::Corrupt(format!("`general.alignment` is `{value:?}`"))),
        },
    };

    let mut described = Vec::new();
    for _ in 0..n_tensors {
        described.push(describe(&mut cursor)?);
    }
    let start = cursor.position().next_multiple_of(alignment as usize).min(file.len());
    let tensors = place(described, &file.slice(start..file.len()).map_err(|e| e.to_string())?, alignment)?;
    Ok(Gguf { path: path.to_owned(), metadata, pairs, tensors })
}

fn describe(cursor: &mut Cursor) -> std::result::Result<Described, Failure> {
    let name = cursor.key("a tensor name")?.to_owned();
    let shown = shorten(&name);
    let n_dims = cursor.u32("a number of dimensions")?;
    if n_dims == 0 || n_dims > MAX_DIMS {
        return Err(Failure::Corrupt(format!("tensor `{shown}` has {n_dims} dimensions")));
    }
    let mut shape = Vec::new();
    let mut elements = 1usize;
    for _ in 0..n_dims {
        let dim = cursor.u64("a dimension")?;
        let product = usize::try_from(dim).ok().filter(|d| *d > 0).and_then(|d| elements.checked_mul(d));
        elements = product.ok_or_else(|| format!("tensor `{shown}` has a dimension of `{dim}`"))?;
        shape.push(dim as usize);
    }
    let kind = cursor.u32("a tensor type")?;
    let dtype = WeightDtype::from_ggml(kind).map_err(|e| {
        let text = e.to_string();
        let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        let what = what.trim_end_matches(" is not supported");
        Failure::Unsupported(
            format!("tensor `{shown}`: {what}"),
            Some(hint.to_owned()).filter(|h| !h.is_empty()),
        )
    })?;
    let row = dtype.row_bytes(shape[0]).map_err(|e| format!("tensor `{shown}`: {e}"))?;
    let rows = elements / shape[0];
    let nbytes = row.checked_mul(rows).ok_or_else(|| format!("tensor `{shown}` is too large"))?;
    let offset = cursor.u64("a tensor offset")?;
    shape.reverse();
    Ok(Described { name, dtype, shape, offset, nbytes })
}

/// Cuts the data section into the described tensors.
fn place(
    mut described: Vec<Described>,
    data: &Bytes,
    alignment: u64,
) -> std::result::Result<BTreeMap<String, GgufTensor>, Failure> {
    described.sort_by_key(|t| t.offset);
    let mut tensors = BTreeMap::new();
    let mut free = 0;
    for t in described {
        let shown = shorten(&t.name);
        if !t.offset.is_multiple_of(alignment) {
            return Err(Failure::Corrupt(format!(
                "tensor `{shown}` lies at {}, not a multiple of {alignment}",
                t.offset
            )));
        }
        let range = usize::try_from(t.offset).ok().and_then(|o| Some(o..o.checked_add(t.nbytes)?));
        let Some(range) = range.filter(|r| r.end <= data.len()) else {
            return Err(Failure::Corrupt(format!(
                "tensor `{shown}` takes {} bytes from {}, but there are {} bytes of data",
                t.nbytes,
                t.offset,
                data.len()
            )));
        };
        if range.start < free {
            return Err(Failure::Corrupt(format!("tensor `{shown}` overlaps the one before it")));
        }
        free = range.end;
        let bytes = data.slice(range).map_err(|e| e.to_string())?;
        if tensors.insert(t.name.clone(), GgufTensor { dtype: t.dtype, shape: t.shape, bytes }).is_some() {
            return Err(Failure::Corrupt(format!("tensor `{shown}` comes twice")));
        }
    }
    Ok(tensors)
}

/// Names come from the file: keep messages short and printable.
fn shorten(name: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let mut short: String = name.chars().take(80).map(clean).collect();
    if short.len() < name.len() {
        short.push_str("...");
    }
    short
}
