//! Safetensors files of a directory: `model.safetensors`, or the shards its index names.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use galen_ops::mmap::Bytes;
use galen_ops::quant::WeightDtype;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use super::error::{Result, WeightsError};
use super::read_json;

/// The weights, when they are one file.
pub const SINGLE: &str = "model.safetensors";
/// The index, when they are several.
pub const INDEX: &str = "model.safetensors.index.json";

/// A tensor of a file.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// How it is stored; none for a type weights never have (integers, 8-bit floats), with its name beside it.
    pub dtype: Option<WeightDtype>,
    /// The file's name of the type.
    pub dtype_name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Its bytes, exactly.
    pub bytes: Bytes,
}

/// Opens the directory's weights: every tensor by its name.
pub fn open_dir(dir: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let index = dir.join(INDEX);
    if index.exists() {
        return open_shards(dir, &index);
    }
    let single = dir.join(SINGLE);
    if !single.exists() {
        let what = format!("there is neither `{SINGLE}` nor `{INDEX}`");
        return Err(WeightsError::NotAModel { path: dir.display().to_string(), what });
    }
    parse(&single, &Bytes::open(&single)?)
}

fn open_shards(dir: &Path, index: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in parse_index(index, &read_json(index)?)? {
        by_file.entry(file).or_default().push(name);
    }
    let mut tensors = BTreeMap::new();
    for (file, names) in by_file {
        let path = dir.join(&file);
        let mut shard = parse(&path, &Bytes::open(&path)?)?;
        for name in names {
            let Some(tensor) = shard.remove(&name) else {
                let what = format!("has no tensor `{name}`, which `{INDEX}` says it holds");
                return Err(WeightsError::corrupt(&path, what));
            };
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// The index's (tensor, file) pairs. A file must be a plain name beside the index: an index fetched from somewhere
/// must not make us read elsewhere.
pub fn parse_index(path: &Path, index: &Value) -> Result<Vec<(String, String)>> {
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(WeightsError::corrupt(path, "has no object `weight_map`"));
    };
    if map.is_empty() {
        return Err(WeightsError::corrupt(path, "`weight_map` is empty"));
    }
    let mut pairs = Vec::with_capacity(map.len());
    for (name, file) in map {
        let Some(file) = file.as_str() else {
            return Err(WeightsError::corrupt(path, format!("the file of tensor `{name}` is not text")));
        };
        let mut parts = Path::new(file).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
            && !file.contains(['/', '\\', ':', '\0'])
            && file.ends_with(".safetensors");
        if !plain {
            let what = format!(
                "file name `{}` of tensor `{name}` is not a plain `.safetensors` name",
                file.escape_debug()
            );
            return Err(WeightsError::corrupt(path, what));
        }
        pairs.push((name.clone(), file.to_owned()));
    }
    Ok(pairs)
}

/// Reads one file's header from its bytes. `path` is for messages.
pub fn parse(path: &Path, file: &Bytes) -> Result<BTreeMap<String, StoredTensor>> {
    let (header, metadata) = SafeTensors::read_metadata(file.as_slice())
        .map_err(|e| WeightsError::corrupt(path, e.to_string()))?;
    let outside = |e: galen_ops::mmap::MapError| WeightsError::corrupt(path, e.to_string());
    let data = file.slice(8 + header..file.len()).map_err(outside)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => Some(WeightDtype::F32),
            Dtype::F16 => Some(WeightDtype::F16),
            Dtype::BF16 => Some(WeightDtype::BF16),
            _ => None,
        };
        let bytes = data.slice(info.data_offsets.0..info.data_offsets.1).map_err(outside)?;
        let dtype_name = format!("{:?}", info.dtype);
        tensors.insert(name, StoredTensor { dtype, dtype_name, shape: info.shape.clone(), bytes });
    }
    Ok(tensors)
}
