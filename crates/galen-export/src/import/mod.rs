//! Adapters that other programs wrote.

mod gguf;

pub use gguf::{is_gguf_lora, load_gguf_lora};

use crate::error::{Result, cannot};
use galen_adapter::{Adapter, AdapterConfig, Init, ModuleShape, Targets};
use std::path::Path;

/// One projection's branch, rows in Hugging Face order.
struct Branch {
    shape: ModuleShape,
    /// A, `[r, inputs]`.
    a: Vec<f32>,
    /// B, `[outputs, r]`.
    b: Vec<f32>,
    r: usize,
    scale: f32,
}

/// The adapter of these branches. Errors: none, or ranks beyond reason.
fn adapter_of(path: &Path, branches: Vec<Branch>, dropout: f32) -> Result<Adapter> {
    let Some(r) = branches.iter().map(|b| b.r).max() else {
        return cannot(
            format!("{}: it holds no LoRA matrices", path.display()),
            "is it an adapter of another base?",
        );
    };
    let scale = branches.iter().find(|b| b.r == r).map_or(1.0, |b| b.scale);
    let mut names: Vec<String> = branches.iter().map(|b| b.shape.module.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let config = AdapterConfig {
        method: "lora".into(),
        r,
        alpha: f64::from(scale) * r as f64,
        dropout,
        rslora: false,
        targets: Targets::Names(names),
        layers: None,
        init: Init::Kaiming,
        seed: 0,
    };
    let chosen = branches.iter().map(|b| (b.shape.clone(), b.r, b.scale)).collect();
    let mut adapter = Adapter::zeros(config, chosen)?;
    for Branch { shape, a, b, .. } in &branches {
        let key = format!("base_model.model.model.layers.{}.{}.", shape.layer, shape.module);
        for (suffix, values) in [("lora_A.weight", a), ("lora_B.weight", b)] {
            if !adapter.set(&format!("{key}{suffix}"), values) {
                let what = format!("{}: `{key}{suffix}` does not fit its projection", path.display());
                return cannot(what, "the file is damaged");
            }
        }
    }
    Ok(adapter)
}
