//! Models and batches for the tests.

use crate::goldens::path;
use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::{LoadOptions, Model, Weights};
use galen_types::{Origin, PackedBatch, Segment, Target, Tokenized};
use std::path::PathBuf;

pub const TINY: [&str; 6] = ["llama_tied", "llama_untied", "mistral", "qwen2", "qwen3", "gemma3"];

pub fn tiny(name: &str) -> Model {
    tiny_with(name, LoadOptions::default())
}

pub fn tiny_with(name: &str, options: LoadOptions) -> Model {
    let weights = Weights::open(&path(&format!("tiny/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"));
    Model::load(&weights, options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn lora(r: usize, alpha: f64) -> AdapterConfig {
    AdapterConfig {
        method: "lora".into(),
        r,
        alpha,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Random,
        seed: 7,
    }
}

pub fn adapter(model: &Model, config: AdapterConfig) -> Adapter {
    Adapter::over(config, &galen_train::module_shapes(model), model).expect("the adapter fits")
}

/// One row as a batch with the given (index, token) predictions.
pub fn batch(ids: &[u32], targets: &[(u32, u32)]) -> PackedBatch {
    let segment = Segment { start: 0, len: ids.len() as u32, parent: None, position: 0 };
    let targets =
        targets.iter().map(|(index, token)| Target { index: *index, token: *token, row: 0 }).collect();
    PackedBatch::new(ids.to_vec(), vec![segment], targets, vec![0; ids.len()]).expect("a sound batch")
}

pub fn row(number: u64, ids: &[u32], mask: &[bool]) -> Tokenized {
    Tokenized::new(Origin::new("test", number + 1), number, ids.to_vec(), mask.to_vec()).expect("a sound row")
}

/// A real model by catalogue name: from `GALEN_TEST_MODELS`, else from galen's cache.
pub fn real(name: &str, file: &str) -> Option<PathBuf> {
    if let Ok(dir) = std::env::var("GALEN_TEST_MODELS") {
        let path = PathBuf::from(dir).join(file);
        if path.exists() {
            return Some(path);
        }
    }
    galen_testkit::models::real_model(name)
}

/// Plain settings: one row a micro-batch is the caller's to change.
pub fn settings() -> galen_train::TrainSettings {
    galen_train::TrainSettings {
        micro_batch_size: 4,
        total_steps: 6,
        max_grad_norm: 1.0,
        ..galen_train::TrainSettings::steps(1e-3)
    }
}
