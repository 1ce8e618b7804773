//! Owns: running the CUDA kernels of this folder, on the CPU through the runtime in `host/` or on a card, and the checks of
//! what they compute.
//! Takes: a kernel's name, a grid and arguments.
//! Gives: what the kernel wrote, the same for every order of threads and blocks, or what it did wrong.
//! Never: is part of the product. Its `unsafe` is the call into that runtime, and launches.
#![allow(unsafe_code, reason = "calls into the C++ runtime that runs the kernels, and launches on cards")]

#[allow(clippy::unwrap_used, missing_docs, reason = "test code, also of the program that runs it on cards")]
pub mod checks;
mod device;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "host")]
mod host;
mod launch;
pub mod manifest;
pub mod place;
#[cfg(feature = "host")]
mod products;
mod record;

pub use device::{Device, POISON, Place, Stats};
pub use launch::{Arg, Launch, Plain};
pub use record::Recorder;
