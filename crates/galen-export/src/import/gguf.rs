//! llama.cpp's adapters: a GGUF file of type `adapter`, pairs `NAME.lora_a` [r, in] and `NAME.lora_b` [out, r], whose product
//! counts `alpha / r` times. What `gguf_lora.rs` writes, and llama.cpp's own `convert_lora_to_gguf.py`.

use super::{Branch, adapter_of};
use crate::error::{Result, cannot, of_tensor};
use galen_adapter::{Adapter, BaseRecord, ModuleShape};
use galen_model::ModelConfig;
use galen_model::weights::{Gguf, gguf_name, gguf_rows};
use galen_ops::quant::dequantize;
use std::collections::HashSet;
use std::path::Path;

/// Whether a GGUF file is an adapter.
pub fn is_gguf_lora(file: &Gguf) -> bool {
    file.str("general.type") == Some("adapter")
}

/// Reads an adapter over the base of that configuration; `modules` are its projections. The rows of B are brought into
/// Hugging Face order.
///
/// Errors: another kind of file or of adapter, another architecture, tensors of other shapes or of no projection.
pub fn load_gguf_lora(
    path: &Path,
    config: &ModelConfig,
    modules: &[ModuleShape],
) -> Result<(Adapter, BaseRecord)> {
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
        branches.push(Branch { shape: shape.clone(), a, b, r, scale });
        known.extend(keys);
    }
    if let Some(stray) = file.tensor_names().find(|n| !known.contains(*n)) {
        let what = format!("{at}: tensor `{stray}` belongs to no projection of the base");
        return cannot(what, "adapters of embeddings, heads and norms are not supported");
    }
    let name = file.str("general.base_model.0.name").map(str::to_owned);
    Ok((adapter_of(path, branches, 0.0)?, BaseRecord { name, revision: None }))
}
