//! Owns: the formats that models and adapters leave galen in, and the ways to merge adapters.
//! Takes: an opened base, its tokenizer, adapters over it.
//! Gives: files and folders that other programs load, whole or not at all.
//! Never: trains, generates, or decides where a file comes from.

mod error;
mod feedback;
mod format;
mod gguf;
mod gguf_lora;
mod hf;
pub mod merge;
mod ollama;
mod peft;
mod place;
mod source;

pub use error::{Error, Result};
pub use feedback::Calibration;
pub use format::{FORMATS, Format, Kind, Options, Written, export, export_checked, find};
pub use gguf::{QUANTIZATIONS, Quantization};
pub use source::{Render, Source, module_shapes};
