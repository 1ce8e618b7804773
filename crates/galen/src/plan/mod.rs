//! Memory and time of a run, by arithmetic over shapes: nothing is loaded.
//!
//! Letters: T tokens of a pass, D hidden width, F feed-forward width, L blocks, V vocabulary, r rank.

mod choice;
mod memory;
mod passes;
#[cfg(test)]
mod tests;

pub use choice::{Choice, Limit, choose};
pub use memory::{AdapterShape, Memory, Mode, PassShape, memory, packed_bytes};
pub use passes::{Batches, largest_pass};

use galen_adapter::ModuleShape;
use galen_model::MODULES;
use serde::Serialize;

/// A decoder's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelShape {
    /// L.
    pub layers: u64,
    /// D.
    pub hidden: u64,
    /// F.
    pub ffn: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// V.
    pub vocab: u64,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Whether q and k are normalised per head.
    pub qk_norm: bool,
    /// Whether sublayers are normalised behind as well as before.
    pub sandwich_norms: bool,
}

impl From<&galen_model::ModelConfig> for ModelShape {
    fn from(config: &galen_model::ModelConfig) -> Self {
        Self {
            layers: config.n_layers as u64,
            hidden: config.hidden_size as u64,
            ffn: config.intermediate_size as u64,
            heads: config.n_heads as u64,
            kv_heads: config.n_kv_heads as u64,
            head_dim: config.head_dim as u64,
            vocab: config.vocab_size as u64,
            tied_head: config.tie_word_embeddings,
            qk_norm: config.qk_norm,
            sandwich_norms: config.sandwich_norms,
        }
    }
}

impl ModelShape {
    /// (input, output) widths of a block's projections: q, k, v, o, gate, up, down.
    pub fn projections(&self) -> [(u64, u64); 7] {
        let q = self.heads.saturating_mul(self.head_dim);
        let kv = self.kv_heads.saturating_mul(self.head_dim);
        let (d, f) = (self.hidden, self.ffn);
        [(d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d)]
    }

    /// Every projection, as adapters name them.
    pub fn modules(&self) -> Vec<ModuleShape> {
        let of_block = |layer: u64| {
            MODULES.iter().zip(self.projections()).map(move |((_, module), (inputs, outputs))| ModuleShape {
                layer: layer as usize,
                module,
                inputs: inputs as usize,
                outputs: outputs as usize,
            })
        };
        (0..self.layers).flat_map(of_block).collect()
    }

    /// Weights of one block's projections.
    pub fn block_params(&self) -> u64 {
        self.projections().iter().fold(0, |sum, (i, o)| sum.saturating_add(i.saturating_mul(*o)))
    }

    /// Weights that multiply every token: blocks without the embedding, which is a look-up.
    pub fn matmul_params(&self) -> u64 {
        self.layers.saturating_mul(self.block_params())
    }

    /// All weights (norms left out: less than a thousandth).
    pub fn params(&self) -> u64 {
        let embedding = self.vocab.saturating_mul(self.hidden);
        let heads = if self.tied_head { 1 } else { 2 };
        self.matmul_params().saturating_add(embedding.saturating_mul(heads))
    }
}

/// What a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkShape {
    /// Weights of all adapters: the sum of r x (in + out).
    pub adapter_params: u64,
    /// T: tokens of one pass.
    pub tokens_per_pass: u64,
    /// Mean row, tokens: attention grows with its square.
    pub row_tokens: u64,
    /// Tokens of a pass under the loss.
    pub supervised_per_pass: u64,
    /// Passes a step.
    pub accumulation: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Whether activations are recomputed.
    pub recompute: bool,
    /// Useful work of the device, floating-point operations a second.
    pub flops_per_second: f64,
}

/// Operations and seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Floating-point operations of a step.
    pub step_flops: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of all steps, validation left out.
    pub total_seconds: f64,
}

/// The work: 2 operations a weight and token forward, 2 backward (no gradient of frozen weights), 2 more to recompute;
/// 6 for adapter weights; attention over half the square of a row, 4 D forward and twice that backward; the head for
/// supervised tokens only.
pub fn work(model: &ModelShape, run: &WorkShape) -> Work {
    let t = run.tokens_per_pass as f64;
    let q = model.heads as f64 * model.head_dim as f64;
    let (d, l) = (model.hidden as f64, model.layers as f64);
    let n = model.matmul_params() as f64;
    let recompute = if run.recompute { 1.0 } else { 0.0 };
    let dense = 2.0 * n * t * (2.0 + recompute);
    let adapter = 2.0 * run.adapter_params as f64 * t * (3.0 + recompute);
    let attention = t * run.row_tokens as f64 * q * 2.0 * l * (3.0 + recompute);
    let head = 4.0 * d * model.vocab as f64 * run.supervised_per_pass as f64;
    let step_flops = (dense + adapter + attention + head) * run.accumulation as f64;
    let step_seconds = if run.flops_per_second > 0.0 { step_flops / run.flops_per_second } else { f64::NAN };
    Work { step_flops, step_seconds, total_seconds: step_seconds * run.steps as f64 }
}
