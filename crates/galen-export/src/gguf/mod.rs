//! The model as one GGUF file, an adapter merged into it.

mod meta;
mod mixture;
mod vocab;
pub(crate) mod writer;

pub use mixture::{QUANTIZATIONS, Quantization};

use crate::error::{Result, cannot, of_tensor};
use crate::feedback::{Feedback, Inputs};
use crate::format::{Format, Kind, Options, Written};
use crate::source::{Source, module_of};
use galen_model::weights::{Gguf, gguf_name, gguf_rows};
use galen_ops::quant::WeightDtype;
use std::path::Path;
use writer::{Metadata, Tensor, Value, write};

pub(crate) struct GgufModel;

/// Version of ggml's block formats.
const QUANTIZATION_VERSION: u32 = 2;

impl Format for GgufModel {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn about(&self) -> &'static str {
        "the model, the adapter merged into it, for llama.cpp and Ollama"
    }

    fn kind(&self) -> Kind {
        Kind::File
    }

    fn adapter_alone(&self) -> bool {
        false
    }

    fn writes_blocks(&self) -> bool {
        true
    }

    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written> {
        let config = source.config();
        let mut metadata = match source.weights.gguf() {
            Some(file) => copied(file),
            None => meta::from_config(source)?,
        };
        if let Some(template) = source.template() {
            metadata.push("tokenizer.chat_template", Value::Str(template));
        }
        let plan = plan(source, options.quantize)?;
        let file_type = match options.quantize {
            Some(q) => Some(q.file_type),
            None => source.weights.gguf().map_or_else(|| float_file_type(source), |_| None),
        };
        if let Some(n) = file_type {
            metadata.push("general.file_type", Value::U32(n));
        }
        metadata.push("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
        let tensors: Vec<Tensor> = plan.iter().map(|p| p.tensor.clone()).collect();
        let mut shared: Option<((usize, &str), Option<Feedback>)> = None;
        let bytes = write(out, &metadata, &tensors, |i| {
            let Planned { tensor, from } = &plan[i];
            match from {
                From::File(bytes) => Ok(bytes.as_slice().into()),
                From::Values(values) => {
                    Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into())
                }
                From::Model(name) => {
                    let order = gguf_rows(config, name, tensor.shape[0]);
                    if let Some((key, inputs)) = calibrated(source, options, name, tensor.dtype) {
                        // Projections of one input come one after another.
                        if shared.as_ref().is_none_or(|(k, _)| *k != key) {
                            shared = Some((key, Feedback::new(inputs)));
                        }
                        if let Some((_, Some(feedback))) = &shared {
                            let values = source.ordered(name, order.as_deref())?;
                            let old = source.weights.gguf().and_then(|f| f.tensor(&tensor.name));
                            let old = old.filter(|t| t.dtype == tensor.dtype).map(|t| t.bytes.as_slice());
                            let blocks = feedback.round(tensor.dtype, &values, old);
                            return Ok(blocks.map_err(of_tensor(&tensor.name))?.into());
                        }
                    }
                    Ok(source.encoded(name, tensor.dtype, order.as_deref())?.into())
                }
            }
        })?;
        let launch = vec!["llama-server -m {}".to_owned(), "mistralrs serve -f {}".to_owned()];
        // Its graph of this architecture has no window.
        let window = source.config().sliding_window.filter(|_| source.config().architecture == "llama");
        let notes = window.map(|w| {
            format!("llama.cpp attends to all tokens, the model to the last {w}: they differ beyond that")
        });
        Ok(Written { bytes, launch, notes: notes.into_iter().collect(), ..Written::default() })
    }
}

/// The inputs that a changed tensor of codes is rounded by.
fn calibrated<'a>(
    source: &Source,
    options: &Options<'a>,
    name: &str,
    dtype: WeightDtype,
) -> Option<((usize, &'static str), &'a Inputs)> {
    let calibration = options.calibration.filter(|_| dtype.has_integer_codes() && source.changes(name))?;
    let (layer, module) = module_of(name)?;
    let (group, inputs) = calibration.inputs(layer, module)?;
    Some(((layer, group), inputs))
}

/// Where a tensor's bytes come from.
enum From {
    /// As they are in the base.
    File(galen_ops::mmap::Bytes),
    /// Computed from the configuration.
    Values(Vec<f32>),
    /// The model's tensor of that Hugging Face name, encoded.
    Model(String),
}

struct Planned {
    tensor: Tensor,
    from: From,
}

/// Every tensor of the file, its type and where it comes from.
fn plan(source: &Source, quantize: Option<Quantization>) -> Result<Vec<Planned>> {
    let config = source.config();
    let mut plan = Vec::new();
    for (name, shape) in config.tensors() {
        let Some(stored) = gguf_name(config, &name) else {
            return cannot(format!("tensor `{name}` has no name in GGUF"), "export it as `hf`");
        };
        let base = source.weights.gguf().and_then(|f| f.tensor(&stored));
        let is = source.stored_dtype(&name)?;
        let cols = shape.last().copied().unwrap_or(1);
        let dtype = match quantize {
            Some(q) => q.tensor_dtype(config, &stored, shape.len(), cols),
            None if base.is_none() && shape.len() < 2 => WeightDtype::F32,
            None => is,
        };
        let from = match base {
            Some(t) if dtype == t.dtype && !source.changes(&name) => From::File(t.bytes.clone()),
            _ => From::Model(name.clone()),
        };
        if matches!(from, From::Model(_)) && !dtype.can_encode() {
            let what =
                format!("tensor `{stored}` is of type `{dtype}`, which galen reads but does not write");
            return cannot(what, "choose the types: `--quantize q4_k_m`");
        }
        plan.push(Planned { tensor: Tensor { name: stored, shape, dtype }, from });
    }
    if let Some(factors) = meta::frequency_factors(config) {
        let tensor =
            Tensor { name: "rope_freqs.weight".into(), shape: vec![factors.len()], dtype: WeightDtype::F32 };
        plan.push(Planned { tensor, from: From::Values(factors) });
    }
    Ok(plan)
}

/// The base's metadata, less what says how its file was cut.
fn copied(file: &Gguf) -> Metadata {
    let mut metadata = Metadata::default();
    for pair in file.pairs().iter().filter(|p| !p.key.starts_with("split.")) {
        metadata.push_raw(&pair.key, pair.bytes.as_slice());
    }
    if let Some(alignment) = file.u64("general.alignment") {
        metadata.align(alignment);
    }
    metadata
}

/// `general.file_type` of a base of floats, by its embedding.
fn float_file_type(source: &Source) -> Option<u32> {
    let dtype = source.stored_dtype("model.embed_tokens.weight").ok()?;
    Quantization::of_dtype(dtype).map(|q| q.file_type)
}
