//! Owns: the formats that models and adapters leave galen in and come into it from, and the ways to merge adapters.
//! Takes: an opened base, its tokenizer, adapters over it; files of other programs.
//! Gives: files and folders that other programs load, whole or not at all.
//! Never: trains, generates, or decides where a file comes from.

mod compare;
mod error;
mod feedback;
mod format;
mod gguf;
mod gguf_lora;
mod hf;
mod import;
pub mod merge;
mod ollama;
mod peft;
mod place;
mod source;

pub use compare::{TensorError, adapter_errors, first_shape_difference, tensor_errors};
pub use error::{Error, Result};
pub use feedback::Calibration;
pub use format::{FORMATS, Format, Kind, Options, Written, export, export_checked, find, may_write};
pub use gguf::{QUANTIZATIONS, Quantization};
pub use import::{
    ADAPTERS, AdapterFiles, Over, adapter_files, expect_adapter_files, is_gguf_lora, open_adapter,
};
pub use ollama::{MODEL as OLLAMA_MODEL, MODELFILE, modelfile};
pub use place::abandon;
pub use source::{Render, Source, module_shapes};
