//! llama.cpp's adapters: a GGUF file of type `adapter`, pairs `NAME.lora_a` [r, in] and `NAME.lora_b` [out, r], whose product
//! counts `alpha / r` times. What `gguf_lora.rs` writes, and llama.cpp's own `convert_lora_to_gguf.py`.

use super::{AdapterFiles, Branch, Over, adapter_of};
use crate::error::{Result, cannot, of_tensor};
use galen_adapter::{Adapter, BaseRecord};
use galen_model::weights::{Gguf, gguf_name, gguf_rows};
use galen_ops::quant::dequantize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Whether a GGUF file is an adapter.
pub fn is_gguf_lora(file: &Gguf) -> bool {
    file.str("general.type") == Some("adapter")
}

pub(super) struct GgufLora;

impl AdapterFiles for GgufLora {
    fn name(&self) -> &'static str {
        "gguf-lora"
    }

    fn about(&self) -> &'static str {
        "llama.cpp's GGUF files of type `adapter`"
    }

    fn holds(&self, path: &Path) -> bool {
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && path.is_file()
    }

    fn weights(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn base(&self, path: &Path) -> Result<BaseRecord> {
        Ok(record(&Gguf::open(path)?))
    }

    fn load(&self, path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)> {
        load(path, over, seed)
    }
}

/// The base's name: its repository where llama.cpp's converter wrote that, else the name it goes by.
fn record(file: &Gguf) -> BaseRecord {
    let of_url = |url: &str| {
        let (host, path) = url.trim_end_matches('/').split_once("://")?.1.split_once('/')?;
        let is_id = path.split('/').filter(|part| !part.is_empty()).count() == 2;
        (host.starts_with("huggingface.") && is_id).then(|| path.to_owned())
    };
    let repository = file.str("general.base_model.0.repo_url").and_then(of_url);
    let name = repository.or_else(|| file.str("general.base_model.0.name").map(str::to_owned));
    BaseRecord { name, revision: None }
}

/// Reads an adapter. The rows of B are brought into Hugging Face order.
///
/// Errors: another kind of file or of adapter, another architecture, tensors of other shapes or of no projection.
fn load(path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)> {
    let Over { config, modules } = over;
    let file = Gguf::open(path)?;
    let at = path.display();
    let text = |key: &str| file.str(key).unwrap_or("(nothing)");
    for (key, want) in
        [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", config.architecture)]
    {
        let is = text(key);
        if is != want {
            let what = format!("{at}: `{key}` is `{is}` instead of `{want}`");
            return cannot(what, "it must be a LoRA adapter of the same base");
        }
    }
    // llama.cpp takes no alpha, or an alpha of 0, for a factor of 1.
    let alpha = file.f64("adapter.lora.alpha").filter(|a| *a != 0.0);
    if alpha.is_some_and(|a| !a.is_finite()) {
        return cannot(format!("{at}: `adapter.lora.alpha` is no number"), "the file is damaged");
    }
    let mut known = HashSet::new();
    let mut branches = Vec::new();
    for shape in modules {
        let name = format!("model.layers.{}.{}.weight", shape.layer, shape.module);
        let Some(stored) = gguf_name(config, &name) else { continue };
        let keys = [format!("{stored}.lora_a"), format!("{stored}.lora_b")];
        let (a, b) = match (file.tensor(&keys[0]), file.tensor(&keys[1])) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => continue,
            (a, _) => {
                let missing = &keys[usize::from(a.is_some())];
                return cannot(format!("{at}: tensor `{missing}` is missing"), "the file is damaged");
            }
        };
        let r = a.shape.first().copied().unwrap_or(0);
        if a.shape != [r, shape.inputs] || b.shape != [shape.outputs, r] || r == 0 {
            let what = format!(
                "{at}: `{}` is `{:?}` and `{}` is `{:?}` for a projection of {} to {}",
                keys[0], a.shape, keys[1], b.shape, shape.inputs, shape.outputs
            );
            return cannot(what, "it must be an adapter of the same base");
        }
        let mut values = [vec![0f32; r * shape.inputs], vec![0f32; shape.outputs * r]];
        for ((tensor, key), out) in [a, b].into_iter().zip(&keys).zip(&mut values) {
            dequantize(tensor.dtype, tensor.bytes.as_slice(), out).map_err(of_tensor(key))?;
        }
        let [a, stored_b] = values;
        let mut b = stored_b.clone();
        if let Some(order) = gguf_rows(config, &name, shape.outputs) {
            for (row, hf) in stored_b.chunks(r).zip(order) {
                b[hf * r..(hf + 1) * r].copy_from_slice(row);
            }
        }
        let scale = alpha.map_or(1.0, |alpha| alpha as f32 / r as f32);
        branches.push(Branch { shape: shape.clone(), a, b, magnitude: None, r, scale });
        known.extend(keys);
    }
    if let Some(stray) = file.tensor_names().find(|n| !known.contains(*n)) {
        let what = format!("{at}: tensor `{stray}` belongs to no projection of the base");
        return cannot(what, "adapters of embeddings, heads and norms are not supported");
    }
    Ok((adapter_of(path, branches, 0.0, seed)?, record(&file)))
}
