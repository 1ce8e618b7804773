//! Memory and time of a run, by arithmetic over shapes: nothing is loaded.
//!
//! Letters: T tokens of a pass, D hidden width, F feed-forward width, L blocks, V vocabulary, r rank.

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

/// What a run does with the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RunShape {
    /// The weights as they lie in memory, bytes: the file's size, or `params` times the width after conversion.
    pub weight_bytes: u64,
    /// Weights of all adapters: the sum of r x (in + out).
    pub adapter_params: u64,
    /// T: tokens of one pass, `micro_batch_size` rows as long as they are (at most `sequence_len` each).
    pub tokens_per_pass: u64,
    /// Longest row, tokens: attention grows with its square.
    pub row_tokens: u64,
    /// Tokens of a pass under the loss.
    pub supervised_per_pass: u64,
    /// Passes a step.
    pub accumulation: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Bytes of an activation: 2 (bf16) or 4 (f32).
    pub activation_bytes: u64,
    /// Whether activations are recomputed.
    pub checkpointing: bool,
    /// Tokens whose logits are held at once by the head.
    pub head_chunk_tokens: u64,
    /// Useful work of the device, floating-point operations a second.
    pub flops_per_second: f64,
}

/// Memory (bytes) and time (seconds).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Frozen weights.
    pub weights_bytes: u64,
    /// Adapter, its gradient and both moments, all f32.
    pub adapter_bytes: u64,
    /// Kept activations.
    pub activations_bytes: u64,
    /// One block's work space and the head's chunk of logits.
    pub workspace_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// Floating-point operations of a step.
    pub step_flops: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of all steps, validation left out.
    pub total_seconds: f64,
}

/// Adapter weights: r x (in + out) for each chosen projection of each chosen block.
pub fn adapter_params(model: &ModelShape, rank: u64, layers: u64, chosen: impl Fn(usize) -> bool) -> u64 {
    let block: u64 =
        model.projections().iter().enumerate().filter(|(i, _)| chosen(*i)).map(|(_, (i, o))| i + o).sum();
    rank.saturating_mul(block).saturating_mul(layers)
}

/// The estimate.
///
/// Memory: weights once; four f32 copies of the adapter (value, gradient, two moments); activations a block keeps
/// for the backward pass - its input, the normed input twice, q, k, v, attention's output, gate, up and their product,
/// the low-rank products - or its input alone when recomputed; one block's gradients; a chunk of logits (value and
/// gradient, f32).
///
/// Time: 2 operations a weight and token forward, 2 backward (no gradient of frozen weights), 2 more to recompute;
/// 6 for adapter weights; attention over half the square of a row, 4 D forward and twice that backward; the head for
/// supervised tokens only.
pub fn estimate(model: &ModelShape, run: &RunShape) -> Estimate {
    let t = run.tokens_per_pass as f64;
    let width = |heads: u64| heads as f64 * model.head_dim as f64;
    let (q, kv) = (width(model.heads), width(model.kv_heads));
    let (d, f, l) = (model.hidden as f64, model.ffn as f64, model.layers as f64);
    let rank_width =
        if model.hidden == 0 { 0.0 } else { run.adapter_params as f64 / (l.max(1.0) * (d + f) * 2.0) };
    let kept_per_token = 3.0 * d + 2.0 * q + 2.0 * kv + 3.0 * f + 7.0 * rank_width;
    let bytes = run.activation_bytes as f64;
    let block = t * kept_per_token * bytes;
    let inputs = t * d * bytes * (l + 1.0);
    let activations = if run.checkpointing { inputs } else { block * l + t * d * bytes };
    let head_tokens = run.head_chunk_tokens.min(run.supervised_per_pass) as f64;
    let workspace = t * (2.0 * d + 3.0 * f) * 4.0
        + head_tokens * model.vocab as f64 * 8.0
        + if run.checkpointing { block } else { 0.0 };

    let n = model.matmul_params() as f64;
    let recompute = if run.checkpointing { 1.0 } else { 0.0 };
    let dense = 2.0 * n * t * (2.0 + recompute);
    let adapter = 2.0 * run.adapter_params as f64 * t * (3.0 + recompute);
    let attention = t * run.row_tokens as f64 * q * 2.0 * l * (3.0 + recompute);
    let head = 4.0 * d * model.vocab as f64 * run.supervised_per_pass as f64;
    let step_flops = (dense + adapter + attention + head) * run.accumulation as f64;
    let step_seconds = if run.flops_per_second > 0.0 { step_flops / run.flops_per_second } else { f64::NAN };

    let adapter_bytes = run.adapter_params.saturating_mul(16);
    let (activations_bytes, workspace_bytes) = (activations as u64, workspace as u64);
    let total = [adapter_bytes, activations_bytes, workspace_bytes];
    Estimate {
        weights_bytes: run.weight_bytes,
        adapter_bytes,
        activations_bytes,
        workspace_bytes,
        total_bytes: total.iter().fold(run.weight_bytes, |sum, b| sum.saturating_add(*b)),
        step_flops,
        step_seconds,
        total_seconds: step_seconds * run.steps as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M: its parameter count is published.
    const SMOL: ModelShape = ModelShape {
        layers: 30,
        hidden: 576,
        ffn: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocab: 49152,
        tied_head: true,
    };

    fn run(checkpointing: bool) -> RunShape {
        RunShape {
            weight_bytes: 98_362_432,
            adapter_params: adapter_params(&SMOL, 16, SMOL.layers, |_| true),
            tokens_per_pass: 1024,
            row_tokens: 256,
            supervised_per_pass: 1024,
            accumulation: 1,
            steps: 100,
            activation_bytes: 4,
            checkpointing,
            head_chunk_tokens: 256,
            flops_per_second: 100e9,
        }
    }

    #[test]
    fn parameters_are_the_published_ones() {
        // 134,515,008 with norms; norms are 61 x 576.
        assert_eq!(SMOL.params() + 61 * 576, 134_515_008);
        // PEFT reports 4,884,480 trainable parameters for r = 16 on all linear layers of SmolLM2-135M.
        assert_eq!(adapter_params(&SMOL, 16, 30, |_| true), 4_884_480);
    }

    #[test]
    fn work_is_4n_and_6n_when_recomputed() {
        // 4N of the measured step (N with the head) is 551 GFLOP; adapters and attention add about 60.
        let step = estimate(&SMOL, &run(false));
        assert!((step.step_flops / 1e9 - 613.0).abs() < 613.0 * 0.05, "{}", step.step_flops / 1e9);
        let again = estimate(&SMOL, &run(true));
        assert!(again.step_flops > 1.3 * step.step_flops && again.step_flops < 1.5 * step.step_flops);
        assert!(again.activations_bytes < step.activations_bytes / 8);
        assert!((step.total_seconds - 100.0 * step.step_flops / 100e9).abs() < 1e-6);
    }

    #[test]
    fn absurd_shapes_do_not_overflow() {
        let big = 1 << 40;
        let shape = ModelShape { layers: big, hidden: big, ffn: big, vocab: big, ..SMOL };
        assert_eq!(shape.params(), u64::MAX);
        let sum = estimate(&shape, &RunShape { weight_bytes: u64::MAX, ..run(true) });
        assert_eq!(sum.total_bytes, u64::MAX);
    }
}
