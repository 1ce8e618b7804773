//! Owns: the reverse-mode tape, the differentiable operations, their CPU kernels, and mapped memory.
//! Takes: f32 tensors and frozen weights in their own format.
//! Gives: outputs and gradients whose bits do not depend on threads, packing or what else is in the batch.
//! Never: knows a model family, an adapter method or a file format beyond the weight blocks. It is the only crate
//! with `unsafe`.
#![allow(unsafe_code, reason = "kernels and mapped memory live here and nowhere else")]
#![allow(clippy::inline_always, reason = "kernel bodies are compiled into each instruction set's wrapper")]
#![allow(clippy::large_stack_arrays, reason = "panels are dequantised through first-level-cache scratch")]

pub mod alloc;
pub mod ceiling;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
mod error;
pub mod hook;
mod kernels;
pub mod mmap;
pub mod ops;
pub mod profile;
pub mod quant;
pub mod tape;
pub mod tensor;

pub use error::{Error, Result};
pub use kernels::isa::{Isa, IsaError, available as available_isas, check as check_isa, isa};
pub use tape::{Gradients, Launched, Op, Saved, Tape, Traced, WayBack};
