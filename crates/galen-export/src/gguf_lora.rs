//! An adapter for llama.cpp: a GGUF file of type `adapter`.
//!
//! llama.cpp multiplies a branch by `alpha / rank` with one alpha for the file and the rank of each pair, so that what is
//! not `alpha / rank` (rsLoRA, alphas of modules) is folded into B. In the llama family B's rows of q and k lie as the
//! weight's rows do.

use crate::error::{Result, cannot, of_tensor};
use crate::format::{Format, Kind, Options, Written};
use crate::gguf::writer::{Metadata, Tensor, Value, write};
use crate::source::{Source, in_order};
use galen_model::weights::{gguf_name, gguf_rows};
use galen_ops::quant::{WeightDtype, quantize};
use std::path::Path;

pub(crate) struct GgufLora;

/// A difference this small between a module's factor and `alpha / rank` is rounding: B keeps its bits.
const SAME: f32 = 1e-6;

impl Format for GgufLora {
    fn name(&self) -> &'static str {
        "gguf-lora"
    }

    fn about(&self) -> &'static str {
        "the adapter alone for llama.cpp (`--lora`)"
    }

    fn kind(&self) -> Kind {
        Kind::File
    }

    fn adapter_alone(&self) -> bool {
        true
    }

    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written> {
        let dtype = match options.quantize.map(|q| (q.name, q.dtype)) {
            None => WeightDtype::F32,
            Some((_, d @ (WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16))) => d,
            Some((name, _)) => {
                let what = format!("`gguf-lora` does not hold matrices of type `{name}`");
                return cannot(what, "`f32`, `f16` and `bf16` are possible");
            }
        };
        let config = source.config();
        let Some(adapter) = source.adapter else {
            return cannot("there is no adapter", "name one with `--adapter`");
        };
        let alpha = adapter.config.alpha as f32;
        let mut tensors = Vec::new();
        let mut data = Vec::new();
        for shape in adapter.layers().iter().flat_map(|l| &l.entries).map(|e| &e.shape) {
            let name = format!("model.layers.{}.{}.weight", shape.layer, shape.module);
            let Some(branch) = adapter.low_rank(shape.layer, shape.module) else {
                let what = format!("`{}` of `{name}` is no pair of matrices", adapter.method().name());
                return cannot(what, "merge it: `--format gguf`");
            };
            let Some(stored) = gguf_name(config, &name) else {
                return cannot(format!("`{name}` has no name in GGUF"), "merge it: `--format gguf`");
            };
            let mut b = match gguf_rows(config, &name, shape.outputs) {
                Some(order) => in_order(branch.b, branch.r, &order),
                None => branch.b.to_vec(),
            };
            let factor = branch.scale * branch.r as f32 / alpha;
            if !factor.is_finite() {
                return cannot(format!("`lora_alpha` is `{alpha}`"), "merge it: `--format gguf`");
            }
            if (factor - 1.0).abs() > SAME {
                b.iter_mut().for_each(|b| *b *= factor);
            }
            for (suffix, dims, values) in [
                ("lora_a", [branch.r, shape.inputs], branch.a),
                ("lora_b", [shape.outputs, branch.r], &b[..]),
            ] {
                let name = format!("{stored}.{suffix}");
                data.push(quantize(dtype, dims[1], values).map_err(of_tensor(&name))?);
                tensors.push(Tensor { name, shape: dims.to_vec(), dtype });
            }
        }
        let mut metadata = Metadata::default();
        metadata.push("general.architecture", Value::Str(config.architecture));
        metadata.push("general.type", Value::Str("adapter"));
        metadata.push("adapter.type", Value::Str("lora"));
        metadata.push("adapter.lora.alpha", Value::F32(alpha));
        if let Some(base) = &source.base.name {
            metadata.push("general.base_model.count", Value::U32(1));
            metadata.push("general.base_model.0.name", Value::Str(base));
        }
        let bytes = write(out, &metadata, &tensors, |i| Ok((&data[i]).into()))?;
        let launch = vec!["llama-server -m BASE.gguf --lora {}".to_owned()];
        Ok(Written { bytes, launch, ..Written::default() })
    }
}
