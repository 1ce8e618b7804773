//! The model as transformers keeps it: safetensors, configuration, tokenizer, template.

mod config;
mod shards;

use crate::error::{Result, at, cannot};
use crate::format::{Format, Kind, Options, Written};
use crate::source::Source;
use galen_model::weights::is_norm;
use galen_ops::quant::{WeightDtype, quantize};
use serde_json::{Value, json};
use shards::Tensor;
use std::path::Path;

pub(crate) struct HuggingFace;

/// Files of such a folder beside the weights.
const FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

impl Format for HuggingFace {
    fn name(&self) -> &'static str {
        "hf"
    }

    fn about(&self) -> &'static str {
        "the model, the adapter merged into it, for transformers, vLLM and mistral.rs"
    }

    fn kind(&self) -> Kind {
        Kind::Folder
    }

    fn adapter_alone(&self) -> bool {
        false
    }

    fn owns(&self, name: &str) -> bool {
        FILES.contains(&name)
            || name.starts_with("model") && (name.ends_with(".safetensors") || name == shards::INDEX)
    }

    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written> {
        let dtype = match options.quantize.map(|q| (q.name, q.dtype)) {
            None => own_dtype(source)?,
            Some((_, d @ (WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16))) => d,
            Some((name, _)) => {
                let what = format!("`hf` does not hold matrices of type `{name}`");
                return cannot(what, "`f32`, `f16` and `bf16` are possible, or `--format gguf`");
            }
        };
        let config = config::config_json(source, dtype)?;
        let tensors: Vec<Tensor> =
            source.config().tensors().into_iter().map(|(name, shape)| Tensor { name, shape }).collect();
        let bytes = shards::write(out, &tensors, dtype, options.max_shard_bytes, |t| {
            let mut values = source.values(&t.name)?;
            // Gemma's norms are stored less one.
            if source.config().architecture == "gemma3" && is_norm(&t.name) {
                values.iter_mut().for_each(|v| *v -= 1.0);
            }
            let cols = t.shape.last().copied().unwrap_or(1);
            quantize(dtype, cols, &values).map_err(crate::error::of_tensor(&t.name))
        })?;
        json_file(&out.join("config.json"), &config)?;
        json_file(&out.join("generation_config.json"), &config::generation_json(source)?)?;
        source.tokenizer.save_to(out, source.template())?;
        let launch = vec!["vllm serve {}".to_owned(), "mistralrs serve -m {}".to_owned()];
        Ok(Written { bytes, launch, ..Written::default() })
    }
}

/// The base's own type where that is a float, else half precision, which holds what block formats decode to best.
fn own_dtype(source: &Source) -> Result<WeightDtype> {
    let stored = source.stored_dtype("model.layers.0.mlp.down_proj.weight")?;
    Ok(if stored.block_size() == 1 { stored } else { WeightDtype::F16 })
}

pub(crate) fn json_file(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|_| json!({}).to_string());
    text.push('\n');
    std::fs::write(path, text).map_err(at(path))
}
