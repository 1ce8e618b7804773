//! Where a model's weights would lie in memory: for estimates before anything is loaded.

use super::Weights;
use crate::block::MODULES;
use crate::precision::Precision;

/// Bytes of the frozen weights by where they lie once loaded, norms left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// Projections, and a head of its own, read from the mapped file.
    pub mapped: u64,
    /// Projections on the heap: rows in another order than the file's, or quantised at load.
    pub heap: u64,
    /// The embedding in the mapped file.
    pub embedding: u64,
}

impl Weights {
    /// Where the weights lie when they are loaded in that precision.
    pub fn held_bytes(&self, precision: Precision) -> HeldBytes {
        let bytes = |name: &str| self.stored(name).map_or(0, |s| s.bytes.len() as u64);
        let mut held = HeldBytes { embedding: bytes("model.embed_tokens.weight"), ..HeldBytes::default() };
        if !self.config.tie_word_embeddings {
            held.mapped = bytes("lm_head.weight");
        }
        for layer in 0..self.config.n_layers {
            for (_, module) in MODULES {
                let name = format!("model.layers.{layer}.{module}.weight");
                let Ok(stored) = self.stored(&name) else { continue };
                let Ok(shape) = <[usize; 2]>::try_from(stored.shape) else { continue };
                let (bytes, in_file) = precision.held(stored.dtype, shape, stored.bytes.len() as u64);
                if in_file && self.permuted_heads(&name).is_none() {
                    held.mapped += bytes;
                } else {
                    held.heap += bytes;
                }
            }
        }
        held
    }
}
