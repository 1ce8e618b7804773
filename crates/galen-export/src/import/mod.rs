//! Adapters in the files of any program that galen reads.

mod gguf;
mod mlx;
mod peft;

pub use gguf::is_gguf_lora;

use crate::error::{Result, cannot};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord, Init, ModuleShape, Targets};
use galen_model::ModelConfig;
use std::path::{Path, PathBuf};

/// The base an adapter is read over.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    /// Its configuration.
    pub config: &'a ModelConfig,
    /// Its projections.
    pub modules: &'a [ModuleShape],
}

/// A program's way to keep an adapter.
pub trait AdapterFiles: Sync + Send {
    /// As messages and reports name it.
    fn name(&self) -> &'static str;

    /// In a few words.
    fn about(&self) -> &'static str;

    /// Whether a path looks like one.
    fn holds(&self, path: &Path) -> bool;

    /// The file that holds the matrices.
    fn weights(&self, path: &Path) -> PathBuf;

    /// What it calls its base, without reading the matrices.
    fn base(&self, path: &Path) -> Result<BaseRecord>;

    /// Reads it. `seed` keys dropout where it is trained further.
    fn load(&self, path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)>;
}

/// Every kind. Adding one is its file and its line here.
pub static ADAPTERS: &[&dyn AdapterFiles] = &[&mlx::Mlx, &peft::Peft, &gguf::GgufLora];

/// The kind of what lies at a path; none where it is no adapter.
pub fn adapter_files(path: &Path) -> Option<&'static dyn AdapterFiles> {
    ADAPTERS.iter().copied().find(|files| files.holds(path))
}

/// The same, or an error that names the kinds.
pub fn expect_adapter_files(path: &Path) -> Result<&'static dyn AdapterFiles> {
    if let Some(files) = adapter_files(path) {
        return Ok(files);
    }
    let kinds: Vec<&str> = ADAPTERS.iter().map(|files| files.about()).collect();
    let what = format!("{}: it is no adapter", path.display());
    cannot(what, format!("galen reads {}", kinds.join(", ")))
}

/// Reads the adapter that lies at a path, whoever wrote it, and what it calls its base.
///
/// Errors: no adapter, a damaged one, one of another base.
pub fn open_adapter(path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)> {
    expect_adapter_files(path)?.load(path, over, seed)
}

/// One projection's branch, rows in Hugging Face order.
struct Branch {
    shape: ModuleShape,
    /// A, `[r, inputs]`.
    a: Vec<f32>,
    /// B, `[outputs, r]`.
    b: Vec<f32>,
    /// DoRA's m, `[outputs]`.
    magnitude: Option<Vec<f32>>,
    r: usize,
    scale: f32,
}

/// The adapter of these branches. Errors: none, magnitudes for some of them alone, or ranks beyond reason.
fn adapter_of(path: &Path, branches: Vec<Branch>, dropout: f32, seed: u64) -> Result<Adapter> {
    let at = path.display();
    let Some(r) = branches.iter().map(|b| b.r).max() else {
        return cannot(format!("{at}: it holds no LoRA matrices"), "is it an adapter of another base?");
    };
    let magnitudes = branches.iter().filter(|b| b.magnitude.is_some()).count();
    if magnitudes != 0 && magnitudes != branches.len() {
        let what = format!("{at}: {magnitudes} of its {} projections have magnitudes", branches.len());
        return cannot(what, "the file is damaged");
    }
    let scale = branches.iter().find(|b| b.r == r).map_or(1.0, |b| b.scale);
    let mut names: Vec<String> = branches.iter().map(|b| b.shape.module.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let config = AdapterConfig {
        method: if magnitudes > 0 { "dora" } else { "lora" }.into(),
        r,
        alpha: f64::from(scale) * r as f64,
        dropout,
        rslora: false,
        targets: Targets::Names(names),
        layers: None,
        init: Init::Kaiming,
        seed,
    };
    let chosen = branches.iter().map(|b| (b.shape.clone(), b.r, b.scale)).collect();
    let mut adapter = Adapter::zeros(config, chosen)?;
    for Branch { shape, a, b, magnitude, .. } in &branches {
        let key = format!("base_model.model.model.layers.{}.{}.", shape.layer, shape.module);
        let of_pair = [("lora_A.weight", a), ("lora_B.weight", b)];
        for (suffix, values) in
            of_pair.into_iter().chain(magnitude.iter().map(|m| ("lora_magnitude_vector", m)))
        {
            if !adapter.set(&format!("{key}{suffix}"), values) {
                let what = format!("{at}: `{key}{suffix}` does not fit its projection");
                return cannot(what, "the file is damaged");
            }
        }
    }
    Ok(adapter)
}
