//! Safetensors files, written as their tensors come, in one file or in shards with an index.

use super::json_file;
use crate::error::{Result, at};
use galen_ops::quant::WeightDtype;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The index of several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A tensor to write.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

impl Tensor {
    fn nbytes(&self, dtype: WeightDtype) -> u64 {
        (self.shape.iter().product::<usize>() * dtype.block_bytes()) as u64
    }
}

/// Writes the tensors, all of one float type, into files of at most `most` bytes (more where one tensor is larger). Returns
/// their bytes.
pub(super) fn write(
    dir: &Path,
    tensors: &[Tensor],
    dtype: WeightDtype,
    most: u64,
    mut data: impl FnMut(&Tensor) -> Result<Vec<u8>>,
) -> Result<u64> {
    let mut shards: Vec<&[Tensor]> = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (i, t) in tensors.iter().enumerate() {
        let n = t.nbytes(dtype);
        if i > start && size + n > most {
            shards.push(&tensors[start..i]);
            (start, size) = (i, 0);
        }
        size += n;
    }
    shards.push(&tensors[start..]);
    let name = |i: usize| match shards.len() {
        1 => "model.safetensors".to_owned(),
        n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
    };
    let mut map = Map::new();
    let mut total = 0;
    for (i, shard) in shards.iter().enumerate() {
        total += file(&dir.join(name(i)), shard, dtype, &mut data)?;
        map.extend(shard.iter().map(|t| (t.name.clone(), json!(name(i)))));
    }
    if shards.len() > 1 {
        let bytes: u64 = tensors.iter().map(|t| t.nbytes(dtype)).sum();
        json_file(&dir.join(INDEX), &json!({"metadata": {"total_size": bytes}, "weight_map": map}))?;
    }
    Ok(total)
}

/// One file: the length of the header, the header, the tensors end to end.
fn file(
    path: &Path,
    tensors: &[Tensor],
    dtype: WeightDtype,
    data: &mut impl FnMut(&Tensor) -> Result<Vec<u8>>,
) -> Result<u64> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for t in tensors {
        let end = offset + t.nbytes(dtype);
        let info = json!({"dtype": dtype.to_string(), "shape": t.shape, "data_offsets": [offset, end]});
        header.insert(t.name.clone(), info);
        offset = end;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(at(path))?);
    out.write_all(&(text.len() as u64).to_le_bytes()).map_err(at(path))?;
    out.write_all(text.as_bytes()).map_err(at(path))?;
    for t in tensors {
        out.write_all(&data(t)?).map_err(at(path))?;
    }
    out.flush().map_err(at(path))?;
    Ok(8 + text.len() as u64 + offset)
}
