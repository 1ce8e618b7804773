//! Owns: running the CUDA kernels of this folder on the CPU, through the runtime in `host/`.
//! Takes: a kernel's name, a grid and arguments.
//! Gives: what the kernel wrote, the same for every order of threads and blocks, or what it did wrong.
//! Never: is part of the product; needs a GPU or its compiler. Its `unsafe` is the call into that runtime.
#![allow(unsafe_code, reason = "calls into the C++ runtime that runs the kernels")]

mod launch;
pub mod manifest;
mod record;
mod runtime;

pub use launch::{Arg, Launch, Plain};
pub use record::Recorder;
pub use runtime::{Device, Stats};
