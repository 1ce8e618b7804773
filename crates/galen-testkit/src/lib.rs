//! Owns: what several crates' tests share: a byte mutator for fuzzing, a GGUF writer, a tiny
//! model, real weights from the cache.
//! Takes: seeds, corpora, tensors, catalogue names.
//! Gives: inputs for tests, the same everywhere.
//! Never: is part of the product: only `[dev-dependencies]` name it.

pub mod big_gguf;
pub mod blocks;
pub mod fuzz;
pub mod gguf_writer;
pub mod models;
pub mod reference;
pub mod tiny_gguf;
