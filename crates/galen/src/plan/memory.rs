//! Peak memory of training, item by item: the largest of a step, bytes.
//!
//! Letters: T tokens of a pass (common beginnings once), N of them predict something, D hidden width, Q and K widths
//! of queries and keys, F feed-forward width, L blocks, V vocabulary, w bytes of a kept activation (2 in bf16).

use super::ModelShape;
use galen_adapter::{AdapterConfig, METHODS, ModuleShape};
use galen_model::weights::HeldBytes;
use galen_model::{LoadOptions, WeightCache};
use galen_ops::ops::{Compute, Frozen};
use serde::Serialize;

/// The program, tables and what threads keep; measured (`benches/RESULTS.md`).
const PROCESS: f64 = 80e6;
/// Bytes of a vocabulary entry in the tokenizer; measured.
const ENTRY: f64 = 350.0;
/// What the allocator holds beside what is in use, of the latter; measured.
const ALLOCATOR: f64 = 0.1;
/// Vocabulary entries whose logits exist at once.
const HEAD_CHUNK: f64 = 4096.0;
/// Bytes of a mapped file that one look-up brings in.
const LOOK_UP: f64 = 65536.0;

/// What an adapter trains and keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AdapterShape {
    /// Trained values.
    pub params: u64,
    /// Blocks from the lowest adapted one up: those below keep nothing.
    pub blocks: u64,
    /// Ranks of all branches together.
    pub ranks: u64,
    /// Adapted output projections: they keep attention's output.
    pub outputs: u64,
    /// Outputs of the projections whose magnitude is trained (DoRA): they keep what it multiplies.
    pub magnitudes: u64,
    /// Whether branches drop inputs.
    pub dropout: bool,
}

impl AdapterShape {
    /// Of a new adapter over these projections of a model with `layers` blocks.
    pub fn new(covered: &[ModuleShape], wanted: &AdapterConfig, layers: u64) -> Self {
        let lowest = covered.iter().map(|m| m.layer as u64).min().unwrap_or(layers);
        let r = wanted.r;
        let method = METHODS.iter().find(|m| m.name() == wanted.method);
        let parameters =
            |m: &ModuleShape| method.map_or(Vec::new(), |of| of.parameters(r, m.inputs, m.outputs));
        let all: u64 = covered.iter().flat_map(parameters).map(|p| p.len() as u64).sum();
        let pairs: u64 = covered.iter().map(|m| (r * (m.inputs + m.outputs)) as u64).sum();
        Self {
            params: all,
            blocks: layers.saturating_sub(lowest),
            ranks: (covered.len() * r) as u64,
            outputs: covered.iter().filter(|m| m.module.ends_with("o_proj")).count() as u64,
            magnitudes: all.saturating_sub(pairs),
            dropout: wanted.dropout > 0.0,
        }
    }
}

/// The largest pass of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PassShape {
    /// T.
    pub tokens: u64,
    /// N.
    pub predicting: u64,
    /// Different token ids of a run, at most: what is looked up in the embedding.
    pub ids: u64,
    /// Tokens whose keys and values are held at once while answers are sampled.
    pub cached: u64,
}

/// How the base is held and activations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Arithmetic and where products read weights.
    pub load: LoadOptions,
    /// Whether blocks are run again in backward.
    pub recompute: bool,
}

/// Peak memory by what holds it, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights in the mapped file that stay in memory, and on the heap in an order or format of their own.
    pub weights_bytes: u64,
    /// The copy packed for bf16 products.
    pub packed_bytes: u64,
    /// Adapter, gradient and both moments in f32, and its matrices as the tape has them.
    pub adapter_bytes: u64,
    /// Kept for the backward pass.
    pub activations_bytes: u64,
    /// The largest of: a block forward, a block backward, attention backward, the head; or what the caches of answers that are
    /// being sampled take beyond the activations, which are gone by then.
    pub workspace_bytes: u64,
    /// The program itself, its tokenizer and what the allocator holds.
    pub process_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// The memory of a run.
pub fn memory(
    model: &ModelShape,
    held: HeldBytes,
    adapter: AdapterShape,
    pass: PassShape,
    mode: Mode,
) -> Memory {
    let (t, d) = (pass.tokens as f64, model.hidden as f64);
    let bf16 = mode.load.compute == Compute::Bf16;
    let packs = bf16 && mode.load.weight_cache == WeightCache::Packed;

    let embedding = held.embedding as f64;
    // Pages come in by windows; n random look-ups among w touch w (1 - (1 - 1/w)^n) of them.
    let windows = (embedding / LOOK_UP).max(1.0);
    let looked_up = embedding * (1.0 - (1.0 - 1.0 / windows).powf(pass.ids as f64));
    let mapped = if packs { looked_up } else { held.mapped as f64 + embedding };
    let packed = if packs { packed_bytes(model) } else { 0.0 };

    let p = adapter.params as f64;
    let blocks = (adapter.blocks as f64).max(1.0);
    // Values, gradient, two moments; and the copy in which a tape has a block's matrices.
    let adapter_bytes = 16.0 * p + if mode.recompute { 4.0 * p / blocks } else { 4.0 * p };

    let kept = t * kept_by_blocks(model, adapter, bf16);
    let inputs = t * 4.0 * d;
    let activations = if mode.recompute {
        // Each block's input; one block with all it keeps.
        inputs * (blocks + 1.0) + kept / blocks
    } else {
        kept + inputs
    };
    // Answers are sampled while no pass is under way; a growing cache holds up to twice what is in it.
    let width = 2.0 * (model.kv_heads * model.head_dim) as f64 * model.layers as f64;
    let caches = pass.cached as f64 * width * 4.0 * 1.5;
    let workspace = workspace(model, adapter, pass, bf16).max(caches - activations);

    let heap = held.heap as f64 + packed + adapter_bytes + activations + workspace;
    let process = PROCESS + ENTRY * model.vocab as f64 + ALLOCATOR * heap;
    Memory {
        weights_bytes: (mapped + held.heap as f64) as u64,
        packed_bytes: packed as u64,
        adapter_bytes: adapter_bytes as u64,
        activations_bytes: activations as u64,
        workspace_bytes: workspace as u64,
        process_bytes: process as u64,
        total_bytes: (mapped + heap + process) as u64,
    }
}

fn widths(model: &ModelShape) -> (f64, f64) {
    let width = |heads: u64| heads as f64 * model.head_dim as f64;
    (width(model.heads), width(model.kv_heads))
}

/// Bytes of the copy that `weight_cache: bf16` packs: every projection and the head.
pub fn packed_bytes(model: &ModelShape) -> f64 {
    let of = |rows: u64, cols: u64| {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX >> 40).min(usize::MAX >> 40);
        Frozen::packed_bytes(count(rows), count(cols)) as f64
    };
    let block: f64 = model.projections().iter().map(|(inputs, outputs)| of(*outputs, *inputs)).sum();
    block * model.layers as f64 + of(model.vocab, model.hidden)
}

/// Bytes a token that all trained blocks together keep: the input of either half in f32, for norms; q, k, v, gate, up
/// and (for a branch) attention's output in w bytes; two norms a head; each branch's product with A; what magnitudes multiply
/// in w bytes; where heads or sublayers are normalised, what the norms read.
fn kept_by_blocks(model: &ModelShape, adapter: AdapterShape, bf16: bool) -> f64 {
    let (q, k) = widths(model);
    let (d, f) = (model.hidden as f64, model.ffn as f64);
    let w = if bf16 { 2.0 } else { 4.0 };
    let mut block = 8.0 * d + w * (q + 2.0 * k + 2.0 * f) + 8.0 * model.heads as f64;
    if model.qk_norm {
        block += 4.0 * (q + k);
    }
    if model.sandwich_norms {
        block += 8.0 * d;
    }
    let mut kept =
        block * adapter.blocks as f64 + w * q * adapter.outputs as f64 + 4.0 * adapter.ranks as f64;
    if adapter.magnitudes > 0 {
        kept += w * adapter.magnitudes as f64;
        // Both parts of a dropped input come from gate and up, narrowed by either.
        if adapter.dropout && bf16 {
            kept += 2.0 * w * f * adapter.blocks as f64;
        }
    }
    kept
}

/// Bytes at once within an operation beyond what is kept.
fn workspace(model: &ModelShape, adapter: AdapterShape, pass: PassShape, bf16: bool) -> f64 {
    let (q, k) = widths(model);
    let (t, n) = (pass.tokens as f64, pass.predicting as f64);
    let (d, f) = (model.hidden as f64, model.ffn as f64);
    // Bytes of an operand rounded and packed.
    let b = if bf16 { 2.0 } else { 0.0 };
    // Hidden states of the rows that predict, their expectation and a chunk's part; logits; the hidden states normed.
    let chunk = HEAD_CHUNK.min(model.vocab as f64);
    let head = n * (chunk * (4.0 + b) + d * (12.0 + b)) + t * 4.0 * d;
    // gate, up and their product; the half's input and the block's output.
    let forward = t * ((12.0 + b) * f + 12.0 * d);
    // gate and up widened again, their gradients and that of their product; gradients of both halves, one packed.
    let wide = if bf16 { 5.0 } else { 3.0 };
    let backward = t * (wide * 4.0 * f + (12.0 + b) * d);
    // q, k, v widened; each head's dq, dk, dv; their sums; the output's gradient.
    let read = if bf16 { q + 2.0 * k } else { 0.0 };
    let attention = t * 4.0 * (read + 3.0 * q + (q + 2.0 * k) + q + d);
    let dropped = if adapter.dropout { t * (4.0 + b) * d.max(f) } else { 0.0 };
    // gate and up before and behind their magnitudes; of a dropped input both parts.
    let magnified = if adapter.magnitudes > 0 { 8.0 * t * f + dropped } else { 0.0 };
    magnified + dropped + [head, forward, backward, attention].into_iter().fold(0.0, f64::max)
}
